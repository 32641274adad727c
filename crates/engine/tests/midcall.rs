//! What happens in the middle of a call, in the engine: what the tests on a real Kamailio have found.

mod common;

use common::{config, in_dialog, invite, World, ANSWER, OFFER};
use rtc_json_engine::Input;
use serde_json::json;

const SDP: &str = "Content-Type: application/sdp\r\n";

fn registered() -> World {
    let mut world = World::new(config());
    world.register(1);
    world
}

/// What the far side says after an ICE restart.
fn moved(setup: &str) -> String {
    ANSWER
        .replace("a=ice-ufrag:", "a=ice-ufrag:new")
        .replace("a=setup:active", &format!("a=setup:{setup}"))
}

/// A call from the far side, answered and acknowledged; its id and our tag.
fn answered(w: &mut World) -> (String, String) {
    answered_to(w, "")
}

/// The same with more header lines in the INVITE.
fn answered_to(w: &mut World, more: &str) -> (String, String) {
    let offer = ANSWER.replace("a=setup:active", "a=setup:actpass");
    let head = format!("{more}Max-Forwards");
    w.far_request(&invite(1, "", &offer).replacen("Max-Forwards", &head, 1));
    let tag = w.reply().to_tag;
    let call = w.frame(1)["payload"]["callId"]
        .as_str()
        .expect("a callId")
        .to_owned();
    let answer = OFFER.replace("a=setup:actpass", "a=setup:active");
    w.send(1, "answer", json!({ "callId": call, "sdp": answer }), "a1");
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    (call, tag)
}

#[test]
fn the_far_side_takes_back_an_offer_that_waits_for_the_browser() {
    let mut w = registered();
    let (call, tag) = answered(&mut w);
    let open = w.far_request(&invite(2, &tag, &moved("actpass")));
    assert_eq!(w.frame(1)["payload"]["answerNeeded"], true);
    // one without an offer only refreshes
    w.far_request(&in_dialog("UPDATE", 3, &tag, ""));
    assert_eq!(w.reply().code, 200);
    w.far_request(&in_dialog("CANCEL", 2, &tag, ""));
    let replies = w.replies();
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[0].code, 200);
    assert_eq!((replies[1].code, replies[1].tx), (487, open));
    let back = w.frame(1);
    assert_eq!(back["payload"]["answerNeeded"], false);
    w.send(1, "answer", json!({ "callId": call, "sdp": OFFER }), "a2");
    assert_eq!(w.frame(1)["payload"]["code"], 409);
    // nothing is open any more
    w.far_request(&in_dialog("CANCEL", 2, &tag, ""));
    assert_eq!(w.reply().code, 200);
}

#[test]
fn a_200_without_a_description_is_ended_by_bye() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    w.far_reply(&invite, 200, "t1", "", "");
    let frames = w.frames(1);
    assert_eq!(frames[0]["payload"]["code"], 488);
    assert_eq!(frames[1]["payload"]["callId"], call.as_str());
    assert_eq!(frames[1]["payload"]["reason"], "not_acceptable");
    let bye = w.request();
    assert_eq!((bye.method, bye.to_tag.as_str()), ("BYE", "t1"));
    assert!(w.cancels().is_empty());
    w.far_reply(&bye, 200, "t1", "", "");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn an_answer_that_came_while_the_browser_was_away_is_told() {
    let mut w = registered();
    let session = w.agent.sessions[0].token.clone();
    let (call, tag) = answered(&mut w);
    w.step(Input::Closed { conn: 1 });
    w.far_request(&invite(2, &tag, ""));
    assert_eq!(w.reply().code, 200);
    let ack = in_dialog("ACK", 2, &tag, &moved("active"));
    assert!(ack.contains(SDP));
    w.far_request(&ack);
    assert!(w.frames(1).is_empty());
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "resume": session }),
        "r2",
    );
    let frames = w.frames(2);
    assert_eq!(frames[0]["type"], "registered");
    assert_eq!(frames[1]["type"], "callUpdated", "{frames:#?}");
    assert_eq!(frames[1]["payload"]["callId"], call.as_str());
    let sdp = frames[1]["payload"]["sdp"].as_str().expect("an answer");
    assert!(sdp.contains("a=ice-ufrag:new"));
    assert!(frames[1]["payload"].get("answerNeeded").is_none());
}

/// A NOTIFY of the caller about our REFER.
fn notify(cseq: u32, tag: &str, state: &str, status: &str) -> String {
    let lines = format!("Event: refer\r\nSubscription-State: {state}\r\nContent-Type");
    in_dialog("NOTIFY", cseq, tag, &format!("SIP/2.0 {status}\r\n"))
        .replace("application/sdp", "message/sipfrag;version=2.0")
        .replace("Content-Type", &lines)
}

#[test]
fn a_notify_may_come_before_the_202() {
    for (first, over) in [("180 Ringing", false), ("200 OK", true)] {
        let mut w = registered();
        let (call, tag) = answered(&mut w);
        w.send(1, "transfer", json!({ "callId": call, "to": "1004" }), "t1");
        let refer = w.request();
        w.far_request(&notify(2, &tag, "active", first));
        let frames = w.frames(1);
        assert_eq!(frames[0]["type"], "ack");
        assert_eq!(frames[0]["id"], "t1");
        assert_eq!(frames[1]["type"], "transferProgress");
        if over {
            assert_eq!(frames[1]["payload"]["state"], "completed");
            assert_eq!(frames[2]["payload"]["reason"], "transferred");
        } else {
            assert_eq!(frames[1]["payload"]["state"], "ringing");
        }
        w.far_reply(&refer, 202, "far1", "", "");
        assert!(w.frames(1).is_empty());
    }
}

#[test]
fn whether_anybody_is_left_after_a_transfer_that_failed_is_asked() {
    let asserted = "P-Asserted-Identity: <sip:1003@pbx.example>\r\n";
    let server = "Server: Asterisk PBX 22\r\n";
    for (code, identity, from, left) in [
        (503, "", server, false),
        (503, asserted, server, true),
        // another one may well leave it out
        (503, "", "Server: Other\r\n", true),
        (486, "", server, true),
    ] {
        let mut w = registered();
        let (call, tag) = answered_to(&mut w, &format!("{asserted}Allow: INVITE, UPDATE\r\n"));
        w.send(1, "transfer", json!({ "callId": call, "to": "1004" }), "t1");
        let refer = w.request();
        w.far_reply(&refer, 202, "far1", "", "");
        w.frames(1);
        w.far_request(&notify(2, &tag, "terminated", &format!("{code} Whatever")));
        assert_eq!(w.frame(1)["payload"]["state"], "failed");
        if code == 503 {
            let refresh = w.request();
            assert_eq!((refresh.method, refresh.body.as_str()), ("UPDATE", ""));
            w.far_reply(&refresh, 200, "far1", &[from, identity].concat(), "");
        }
        if left {
            assert!(w.frames(1).is_empty() && w.requests().is_empty());
        } else {
            assert_eq!(w.frame(1)["type"], "callEnded");
            assert_eq!(w.request().method, "BYE");
        }
    }
}

#[test]
fn a_transfer_of_which_nothing_is_heard_fails_after_a_minute() {
    let mut w = registered();
    let (call, _) = answered(&mut w);
    w.send(1, "transfer", json!({ "callId": call, "to": "1004" }), "t1");
    let refer = w.request();
    w.far_reply(&refer, 202, "far1", "", "");
    w.frames(1);
    w.wait(59_000);
    assert!(w.frames(1).is_empty());
    w.wait(1_000);
    let failed = w.frame(1);
    assert_eq!(
        (&failed["payload"]["state"], &failed["payload"]["code"]),
        (&json!("failed"), &json!(408))
    );
    // and the call can be sent elsewhere
    w.send(1, "transfer", json!({ "callId": call, "to": "1005" }), "t2");
    assert_eq!(w.request().method, "REFER");
}

#[test]
fn an_offer_that_meets_another_six_times_is_given_up() {
    let mut w = registered();
    let (call, _) = answered(&mut w);
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    for _ in 0..7 {
        let hold = w.request();
        assert_eq!(hold.method, "INVITE");
        assert!(w.frames(1).is_empty());
        w.far_reply(&hold, 491, "far1", "", "");
        w.wait(4_100);
    }
    assert!(w.requests().is_empty());
    let refused = w.frame(1);
    assert_eq!(
        (&refused["id"], &refused["payload"]["code"]),
        (&json!("h1"), &json!(491))
    );
    assert_eq!(refused["payload"]["retryable"], true);
}

#[test]
fn a_refresh_that_is_too_short_for_the_far_side_comes_again_with_its_interval() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    let timer = format!("{SDP}Allow: INVITE, UPDATE\r\nSession-Expires: 120;refresher=uac\r\n");
    w.far_reply(&invite, 200, "t1", &timer, ANSWER);
    w.frames(1);
    w.wait(60_000);
    let refresh = w.request();
    assert_eq!(refresh.method, "UPDATE");
    w.far_reply(&refresh, 422, "t1", "Min-SE: 300\r\n", "");
    let again = w.request();
    assert_eq!(again.method, "UPDATE");
    assert!(
        again
            .headers
            .contains("Session-Expires: 300;refresher=uac\r\nMin-SE: 300\r\n"),
        "{}",
        again.headers
    );
    w.far_reply(
        &again,
        200,
        "t1",
        "Session-Expires: 300;refresher=uac\r\n",
        "",
    );
    w.wait(149_000);
    assert!(w.requests().is_empty());
    w.wait(1_000);
    assert_eq!(w.request().method, "UPDATE");
    assert!(w.frames(1).is_empty());
}

#[test]
fn a_far_side_that_holds_from_the_start_is_told_by_a_flag() {
    let mut w = World::new(config());
    w.register(1);
    let (_, invite) = w.call(1, "c1");
    let held = ANSWER.replace("a=sendrecv", "a=sendonly");
    assert_ne!(held, ANSWER);
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        &held,
    );
    let frames = w.frames(1);
    assert_eq!(frames[0]["type"], "callAccepted");
    let shown = frames[0]["payload"]["sdp"].as_str().expect("an answer");
    assert!(!shown.contains("a=sendonly"), "{shown}");
    assert_eq!(frames[1]["type"], "callUpdated");
    assert_eq!(frames[1]["payload"]["remoteHold"], true);
}

#[test]
fn a_second_fork_that_answers_is_acknowledged_and_ended() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 200, "t1", SDP, ANSWER);
    assert_eq!(w.types(1), ["callAccepted"]);
    w.far_reply(&invite, 200, "t1", SDP, ANSWER);
    assert!(w.requests().is_empty(), "the same fork again");
    w.far_reply(&invite, 200, "t2", SDP, ANSWER);
    let sent = w.requests();
    let told: Vec<(&str, &str, u32)> = sent
        .iter()
        .map(|r| (r.method, r.to_tag.as_str(), r.cseq))
        .collect();
    assert_eq!(told, [("ACK", "t2", 1), ("BYE", "t2", 2)]);
    assert!(w.frames(1).is_empty());
}

#[test]
fn what_a_request_requires_and_brings_must_be_known() {
    let mut w = registered();
    let (_, tag) = answered(&mut w);
    let with = |text: String, line: &str| text.replacen("Max-Forwards", line, 1);
    for method in ["INVITE", "UPDATE", "REFER", "INFO", "OPTIONS"] {
        let text = in_dialog(method, 5, &tag, "");
        w.far_request(&with(text, "Require: foo, timer\r\nMax-Forwards"));
        let reply = w.reply();
        assert_eq!(reply.code, 420, "{method}");
        assert_eq!(reply.headers, "Unsupported: foo\r\n");
    }
    for method in ["INVITE", "UPDATE"] {
        let text = in_dialog(method, 6, &tag, "<xml/>").replace("/sdp", "/xml");
        w.far_request(&text);
        let reply = w.reply();
        assert_eq!(reply.code, 415, "{method}");
        assert_eq!(reply.headers, "Accept: application/sdp\r\n");
    }
    let aside = in_dialog("UPDATE", 7, &tag, "<xml/>").replace("/sdp", "/xml");
    let aside = with(
        aside,
        "Content-Disposition: signal;handling=optional\r\nMax-Forwards",
    );
    w.far_request(&aside);
    assert_eq!(w.reply().code, 200);
    assert!(w.frames(1).is_empty());
    let bye = in_dialog("BYE", 8, &tag, "");
    w.far_request(&with(bye, "Require: foo\r\nMax-Forwards"));
    assert_eq!(w.reply().code, 200);
}

#[test]
fn a_180_that_nobody_confirms_is_given_up_after_32_seconds() {
    let mut w = registered();
    let text = invite(1, "", &ANSWER.replace("a=setup:active", "a=setup:actpass"));
    w.far_request(&text.replacen("Max-Forwards", "Require: 100rel\r\nMax-Forwards", 1));
    assert_eq!(w.reply().code, 180);
    w.frames(1);
    let mut times = Vec::new();
    for second in 0..40 {
        for half in 0..2 {
            w.wait(500);
            for reply in w.replies() {
                times.push((second * 1000 + half * 500 + 500, reply.code));
            }
        }
    }
    let rings = [500, 1500, 3500, 7500, 15_500, 31_500].map(|at| (at, 180));
    assert_eq!(times[..6], rings);
    assert_eq!(times[6..], [(32_000, 504)]);
    assert_eq!(w.frame(1)["payload"]["reason"], "timeout");
}

#[test]
fn a_bye_that_could_not_be_sent_is_sent_again() {
    let mut w = registered();
    let (call, _) = answered(&mut w);
    let hangup = json!({ "callId": call, "reason": "user_hangup" });
    w.send(1, "hangup", hangup, "h1");
    let bye = w.request();
    assert_eq!(bye.method, "BYE");
    assert_eq!(w.types(1), ["callEnded"]);
    w.step(Input::NotSent { handle: bye.handle });
    assert!(w.requests().is_empty());
    w.wait(1000);
    let again = w.request();
    assert_eq!(again.method, "BYE");
    w.far_reply(&again, 200, "x", "", "");
    assert!(w.agent.calls.is_empty());
    assert!(w.frames(1).is_empty(), "told once");
}

#[test]
fn a_bye_that_can_never_be_sent_is_given_up() {
    let mut w = registered();
    let (call, _) = answered(&mut w);
    let hangup = json!({ "callId": call, "reason": "user_hangup" });
    w.send(1, "hangup", hangup, "h1");
    let mut tries = 0;
    while let Some(bye) = w.requests().pop() {
        tries += 1;
        assert!(tries < 100);
        w.step(Input::NotSent { handle: bye.handle });
        w.wait(1000);
    }
    assert!(tries > 20, "{tries}");
    assert!(w.agent.calls.is_empty());
}
