//! A server that is to become empty: what goes on and what no longer begins.

mod common;

use common::{config, invite, World, ANSWER, OFFER};
use rtc_json_engine::Input;
use serde_json::json;

fn registered() -> World {
    let mut w = World::new(config());
    w.register(1);
    w
}

fn drain(w: &mut World) {
    w.draining = true;
    w.step(Input::Draining);
}

/// A call of the browser, answered.
fn answered(w: &mut World) -> String {
    let (call, sent) = w.call(1, "c1");
    w.far_reply(
        &sent,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    assert_eq!(w.types(1), ["callAccepted"]);
    call
}

#[test]
fn browsers_that_are_there_are_told_once() {
    let mut w = registered();
    w.register(2);
    w.step(Input::Closed { conn: 2 });
    drain(&mut w);
    let notice = w.frame(1);
    assert_eq!(notice["type"], "notice");
    assert_eq!(notice["payload"], json!({ "reason": "draining" }));
    assert_eq!(notice["id"], "evt-1");
    w.wait(1_000);
    w.send(1, "ping", json!({}), "p1");
    assert_eq!(w.types(1), ["pong"]);
    assert!(w.frames(2).is_empty());
}

#[test]
fn no_call_begins() {
    let mut w = registered();
    drain(&mut w);
    w.frames(1);
    w.send(1, "call", json!({ "to": "600", "sdp": OFFER }), "c1");
    let error = w.frame(1);
    assert_eq!(
        (&error["type"], &error["id"]),
        (&json!("error"), &json!("c1"))
    );
    assert_eq!(error["payload"]["code"], 503);
    assert_eq!(error["payload"]["retryable"], true);
    assert!(w.requests().is_empty());

    w.far_request(&invite(1, "", ANSWER));
    let reply = w.reply();
    assert_eq!((reply.code, reply.invite), (503, true));
    assert!(w.frames(1).is_empty(), "the browser hears nothing of it");
    assert!(w.agent.calls.is_empty());

    w.draining = false;
    w.call(1, "c2");
}

#[test]
fn a_call_goes_on() {
    let mut w = registered();
    let call = answered(&mut w);
    drain(&mut w);
    assert_eq!(w.types(1), ["notice"]);
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    assert_eq!(w.request().method, "INVITE");
    w.send(1, "hangup", json!({ "callId": call }), "h2");
    assert_eq!(w.types(1).last().map(String::as_str), Some("callEnded"));
}

#[test]
fn no_session_begins_but_one_with_a_call_comes_back() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"].clone();
    let call = answered(&mut w);
    drain(&mut w);
    w.frames(1);
    let refused = |w: &mut World, conn: i32, payload: serde_json::Value| {
        w.send(conn, "register", payload, "r");
        let frame = w.frame(conn);
        assert_eq!(frame["type"], "registrationFailed", "{frame}");
        assert_eq!(frame["payload"]["code"], 503);
        assert!(w.requests().is_empty() && w.agent.pending.is_empty());
    };
    refused(&mut w, 2, json!({ "dn": "5001", "password": "secret" }));
    refused(&mut w, 2, json!({ "dn": "5001" }));
    refused(&mut w, 2, json!({ "dn": "5001", "resume": "wrong" }));

    w.step(Input::Closed { conn: 1 });
    let resume = json!({ "dn": "5001", "resume": token });
    w.send(3, "register", resume.clone(), "r3");
    let frames = w.frames(3);
    assert_eq!(frames[0]["type"], "registered");
    assert_eq!(frames[0]["payload"]["calls"][0]["callId"], call.as_str());
    assert_eq!(
        frames[1]["type"], "notice",
        "it is told again on the new connection"
    );

    w.send(3, "hangup", json!({ "callId": call }), "h");
    let bye = w.requests().pop().expect("BYE");
    w.far_reply(&bye, 200, "t1", "", "");
    w.frames(3);
    w.step(Input::Closed { conn: 3 });
    refused(&mut w, 4, resume.clone());

    // no longer draining, and the session is there yet
    w.draining = false;
    w.send(4, "register", resume, "r4");
    assert_eq!(w.types(4), ["registered"]);
}

#[test]
fn what_a_browser_missed_comes_before_the_notice() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"].clone();
    answered(&mut w);
    let (second, sent) = w.call(1, "c2");
    w.step(Input::Closed { conn: 1 });
    w.far_reply(&sent, 486, "t2", "", "");
    w.draining = true;
    let resume = json!({ "dn": "5001", "resume": token, "last": 0 });
    w.send(2, "register", resume, "r2");
    let frames = w.frames(2);
    let types: Vec<_> = frames.iter().map(|f| f["type"].clone()).collect();
    assert_eq!(types, ["registered", "callEnded", "notice"]);
    assert_eq!(frames[1]["payload"]["callId"], second.as_str());
    let number =
        |f: &serde_json::Value| f["id"].as_str().and_then(|id| id[4..].parse::<u32>().ok());
    assert!(number(&frames[1]) < number(&frames[2]), "{frames:#?}");
}

#[test]
fn the_browser_that_is_there_may_register_again() {
    let mut w = registered();
    drain(&mut w);
    w.frames(1);
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r2",
    );
    let request = w.request();
    w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.types(1), ["registered", "notice"]);
    assert_eq!(w.agent.sessions.len(), 1);
}
