//! The next hop falls silent and comes back: who is told, and what is looked at.

mod common;

use common::{config, World, ANSWER};
use rtc_json_engine::{Input, RegisterMode, SipRequest};
use serde_json::json;

fn registered() -> World {
    let mut w = World::new(config());
    w.register(1);
    w
}

fn falls_silent(w: &mut World) {
    w.unreachable = true;
    w.step(Input::NextHop);
}

fn comes_back(w: &mut World) {
    w.unreachable = false;
    w.step(Input::NextHop);
}

/// A call of the browser, answered.
fn answered(w: &mut World) -> String {
    let (call, sent) = w.call(1, "c1");
    let more = "Content-Type: application/sdp\r\n";
    w.far_reply(&sent, 200, "t1", more, ANSWER);
    assert_eq!(w.types(1), ["callAccepted"]);
    call
}

/// What is asked within five seconds.
fn looked_at(w: &mut World) -> Vec<SipRequest> {
    assert!(w.requests().is_empty(), "nothing at once");
    w.wait(5_000);
    w.requests()
}

#[test]
fn browsers_are_told_both() {
    let mut w = registered();
    w.register(2);
    w.step(Input::Closed { conn: 2 });
    falls_silent(&mut w);
    let notice = w.frame(1);
    assert_eq!(notice["type"], "notice");
    assert_eq!(notice["payload"], json!({ "reason": "unreachable" }));
    comes_back(&mut w);
    assert_eq!(w.frame(1)["payload"], json!({ "reason": "reachable" }));
    assert!(w.frames(2).is_empty());
}

#[test]
fn whoever_comes_meanwhile_is_told_behind_registered() {
    let mut w = registered();
    let session = w.register(2)["payload"]["session"].clone();
    w.step(Input::Closed { conn: 2 });
    w.unreachable = true;
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": session }),
        "r3",
    );
    assert_eq!(w.types(3), ["registered", "notice"]);
    w.unreachable = false;
    w.step(Input::Closed { conn: 3 });
    w.send(
        4,
        "register",
        json!({ "dn": "5001", "resume": session }),
        "r4",
    );
    assert_eq!(w.types(4), ["registered"]);
}

#[test]
fn a_call_lives_on_while_it_is_silent_and_ends_when_it_has_been_forgotten() {
    let mut w = registered();
    let call = answered(&mut w);
    falls_silent(&mut w);
    w.frames(1);
    w.requests();
    w.wait(60_000);
    assert!(w.frames(1).is_empty());
    w.requests();
    comes_back(&mut w);
    w.frames(1);
    let asked = looked_at(&mut w);
    let look = asked.iter().find(|r| r.method == "OPTIONS");
    let look = look.expect("the call is looked at");
    assert_eq!(look.to_tag, "t1");
    w.far_reply(look, 481, "t1", "", "");
    let ended = w.frame(1);
    assert_eq!(
        (
            &ended["type"],
            &ended["payload"]["callId"],
            &ended["payload"]["reason"]
        ),
        (&json!("callEnded"), &json!(call), &json!("network_error"))
    );
}

#[test]
fn any_other_answer_leaves_the_call_alone() {
    for code in [200, 401, 405, 408, 500, 501] {
        let mut w = registered();
        let call = answered(&mut w);
        falls_silent(&mut w);
        comes_back(&mut w);
        w.frames(1);
        let asked = looked_at(&mut w);
        let look = asked
            .iter()
            .find(|r| r.method == "OPTIONS")
            .expect("a look");
        match code {
            408 => w.no_reply(look),
            _ => w.far_reply(look, code, "t1", "", ""),
        }
        assert!(w.frames(1).is_empty(), "{code}");
        w.requests();
        w.send(
            1,
            "hangup",
            json!({ "callId": call, "reason": "user_hangup" }),
            "h",
        );
        let bye = w.request();
        assert_eq!(bye.method, "BYE");
        w.far_reply(&bye, 200, "t1", "", "");
        assert_eq!(w.types(1), ["callEnded"], "{code}");
    }
}

#[test]
fn the_binding_is_renewed_where_there_is_one() {
    let mut w = registered();
    falls_silent(&mut w);
    comes_back(&mut w);
    let asked = looked_at(&mut w);
    assert_eq!(
        asked.iter().map(|r| r.method).collect::<Vec<_>>(),
        ["REGISTER"]
    );
    w.far_reply(&asked[0], 200, "x", "Expires: 300\r\n", "");
    w.wait(5_000);
    assert!(w.requests().is_empty(), "once");

    let mut local = config();
    local.register_mode = RegisterMode::Local;
    local.realm = "pbx.example".into();
    let mut w = World::new(local);
    falls_silent(&mut w);
    comes_back(&mut w);
    assert!(looked_at(&mut w).is_empty());
}

#[test]
fn one_that_falls_silent_again_is_not_looked_at() {
    let mut w = registered();
    answered(&mut w);
    comes_back(&mut w);
    falls_silent(&mut w);
    assert!(looked_at(&mut w).is_empty());
}
