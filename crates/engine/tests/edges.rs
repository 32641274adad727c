//! Things that come at the wrong moment: what the random walks (walk.rs) have found, each as a short story.

mod common;

use common::{config, in_dialog, invite, World, ANSWER, OFFER};
use rtc_json_engine::{Config, Input, ServerTx, Trickle};
use serde_json::{json, Value};

fn registered() -> World {
    let mut world = World::new(config());
    world.register(1);
    world
}

fn browser_answer() -> String {
    OFFER.replace("a=setup:actpass", "a=setup:active")
}

/// A call of the browser that was answered; gives its id and the far side's answers go under the tag `t1`.
fn answered(w: &mut World, id: &str) -> String {
    let (call, invite) = w.call(1, id);
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    w.frames(1);
    call
}

/// A call that rings; gives its id, its transaction and our tag.
fn ringing(w: &mut World) -> (String, ServerTx, String) {
    let tx = w.far_request(&invite(1, "", ANSWER));
    let tag = w.reply().to_tag;
    let call = w.frame(1)["payload"]["callId"]
        .as_str()
        .expect("id")
        .to_owned();
    (call, tx, tag)
}

/// The same, answered and acknowledged.
fn talking(w: &mut World) -> (String, String) {
    let (call, _, tag) = ringing(w);
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    (call, tag)
}

fn version(sdp: &str) -> u64 {
    let line = sdp.lines().find(|l| l.starts_with("o=")).expect("o=");
    line.split(' ')
        .nth(2)
        .and_then(|v| v.parse().ok())
        .expect("a version")
}

fn body(frame: &Value) -> &Value {
    &frame["payload"]
}

#[test]
fn what_follows_a_refused_offer_has_a_higher_version() {
    let mut w = registered();
    let call = answered(&mut w, "c1");
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    w.send(1, "update", json!({ "callId": call, "sdp": OFFER }), "u1");
    let hold = w.request();
    w.far_reply(&hold, 488, "t1", "", "");
    let update = w.request();
    assert!(version(&update.body) > version(&hold.body));
    let answer = ANSWER.replace(" 4 IN IP4 ", " 5 IN IP4 ");
    w.far_reply(&update, 491, "t1", "", "");
    // the far side's own offer comes first now
    w.far_request(
        &in_dialog("INVITE", 7, &update.from_tag, &answer)
            .replace("in-call-1", &update.call_id)
            .replace("tag=far1", "tag=t1"),
    );
    let ok = w.reply();
    assert_eq!(ok.code, 200);
    assert!(version(&ok.body) > version(&update.body), "{}", ok.body);
}

#[test]
fn an_offer_that_waited_is_told_from_those_before_it() {
    let mut w = registered();
    let call = answered(&mut w, "c1");
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    w.send(1, "update", json!({ "callId": call, "sdp": OFFER }), "u1");
    let hold = w.request();
    let held = ANSWER.replace("sendrecv", "recvonly");
    w.far_reply(&hold, 200, "t1", "Content-Type: application/sdp\r\n", &held);
    let update = w.request();
    assert!(
        version(&update.body) > version(&hold.body),
        "{}",
        update.body
    );
}

#[test]
fn nothing_is_offered_to_a_far_side_that_is_gone() {
    let mut w = registered();
    let call = answered(&mut w, "c1");
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    w.send(1, "update", json!({ "callId": call, "sdp": OFFER }), "u1");
    let hold = w.request();
    w.no_reply(&hold);
    assert_eq!(w.request().method, "BYE");
    let frames = w.frames(1);
    assert_eq!(frames[0]["id"], "h1");
    assert_eq!(body(&frames[0])["code"], 408);
    assert_eq!(frames[1]["id"], "u1");
    assert_eq!(frames[2]["type"], "callEnded");
}

#[test]
fn a_bye_in_a_call_that_rings_ends_its_invite() {
    let mut w = registered();
    let (_, tx, tag) = ringing(&mut w);
    w.far_request(&in_dialog("BYE", 2, &tag, ""));
    let replies = w.replies();
    assert_eq!(replies[0].code, 200);
    assert_eq!((replies[1].tx, replies[1].code), (tx, 487));
    assert_eq!(w.frame(1)["type"], "callEnded");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn a_hangup_waits_for_the_ack_of_the_invite_that_took_the_call_over() {
    let mut w = registered();
    let (call, tag) = talking(&mut w);
    let replaces = format!("Replaces: in-call-1;to-tag={tag};from-tag=far1\r\nContent-Type:");
    let other = invite(1, "", ANSWER)
        .replace("Call-ID: in-call-1", "Call-ID: in-call-2")
        .replace("Content-Type:", &replaces);
    w.far_request(&other);
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a2",
    );
    let ok = w.reply();
    assert_eq!(ok.code, 200);
    let bye = w.request();
    assert_eq!((bye.method, bye.call_id.as_str()), ("BYE", "in-call-1"));
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    assert!(w.requests().is_empty(), "no BYE before the ACK");
    let ack = in_dialog("ACK", 1, &ok.to_tag, "").replace("in-call-1", "in-call-2");
    w.far_request(&ack);
    assert_eq!(w.request().call_id, "in-call-2");
}

#[test]
fn a_session_that_ends_tells_what_becomes_of_its_texts() {
    let mut w = registered();
    w.send(1, "message", json!({ "to": "600", "text": "hello" }), "m1");
    let text = w.request();
    w.send(1, "unregister", json!({}), "u1");
    let frames = w.frames(1);
    assert_eq!(frames[0]["id"], "m1");
    assert_eq!(body(&frames[0])["code"], 487);
    assert_eq!(frames[1]["type"], "unregistered");
    w.far_reply(&text, 200, "t", "", "");
    assert!(w.frames(1).is_empty());
}

#[test]
fn after_a_restart_nothing_goes_to_connections_of_before() {
    let mut w = registered();
    w.send(1, "message", json!({ "to": "600", "text": "hello" }), "m1");
    w.step(Input::Restarted);
    assert!(w.frames(1).is_empty());
}

#[test]
fn a_register_that_had_to_wait_has_all_its_time() {
    let mut w = World::new(config());
    let payload = json!({ "dn": "5001", "password": "secret" });
    w.send(1, "register", payload.clone(), "r1");
    w.send(2, "register", payload, "r2");
    let first = w.request();
    w.now += 32_000;
    w.no_reply(&first);
    assert_eq!(w.frame(1)["type"], "registrationFailed");
    let second = w.request();
    w.wait(10_000);
    assert!(w.frames(2).is_empty() && w.requests().is_empty());
    w.far_reply(&second, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.frame(2)["type"], "registered");
}

#[test]
fn a_register_under_way_is_not_looked_at_again_and_again() {
    let mut w = registered();
    w.wait(240_000);
    let refresh = w.request();
    assert_eq!(refresh.method, "REGISTER");
    w.send(1, "unregister", json!({}), "u1");
    w.wait(10);
    assert!(w.agent.due(w.config.resume_grace) > w.now);
    w.far_reply(&refresh, 200, "x", "Expires: 300\r\n", "");
    assert!(w.request().headers.contains("Expires: 0\r\n"));
}

#[test]
fn a_far_side_that_the_browser_has_left_is_not_shown() {
    let mut w = registered();
    let (first, tag) = talking(&mut w);
    let second = answered(&mut w, "c2");
    w.send(1, "conference", json!({ "callIds": [first, second] }), "k1");
    w.send(1, "answer", json!({ "callId": first, "sdp": OFFER }), "a2");
    let room = w.request();
    w.far_reply(
        &room,
        200,
        "r1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    assert!(w.requests().iter().all(|r| r.method == "REFER"));
    w.frames(1);
    // the one that is being sent to the room changes its media
    let other = ANSWER
        .replace("21016", "21018")
        .replace(" 4 IN IP4 ", " 5 IN IP4 ");
    w.far_request(&in_dialog("INVITE", 2, &tag, &other));
    assert_eq!(w.reply().code, 488);
    w.far_request(&in_dialog("INVITE", 3, &tag, ""));
    let ok = w.reply();
    assert_eq!(ok.code, 200);
    w.far_request(&in_dialog("ACK", 3, &tag, &other));
    assert!(w.frames(1).is_empty());
}

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n9\", qop=\"auth\", algorithm=MD5\r\n";

#[test]
fn a_challenge_that_comes_after_the_bye_is_not_answered() {
    let mut w = registered();
    let call = answered(&mut w, "c1");
    w.send(1, "dtmf", json!({ "callId": call, "digit": "1" }), "d1");
    let info = w.request();
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    let bye = w.request();
    w.far_reply(&info, 401, "t1", CHALLENGE, "");
    assert!(w.requests().is_empty());
    w.far_reply(&bye, 401, "t1", CHALLENGE, "");
    assert_eq!(w.request().method, "BYE");
}

#[test]
fn nothing_is_sent_to_one_that_has_sent_the_call_elsewhere_and_gone() {
    let mut w = registered();
    let (call, tag) = talking(&mut w);
    let refer = in_dialog("REFER", 2, &tag, "").replace(
        "Max-Forwards",
        "Refer-To: <sip:700@pbx.example>\r\nMax-Forwards",
    );
    w.far_request(&refer);
    w.far_request(&in_dialog("BYE", 3, &tag, ""));
    w.requests();
    w.frames(1);
    w.send(1, "dtmf", json!({ "callId": call, "digit": "1" }), "d1");
    assert!(w.requests().is_empty());
    assert_eq!(body(&w.frame(1))["code"], 503);
}

#[test]
fn a_challenged_prack_of_an_invite_that_was_sent_on_is_forgotten() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 180, "t1", "Require: 100rel\r\nRSeq: 1\r\n", "");
    let prack = w.request();
    w.far_reply(
        &invite,
        302,
        "t1",
        "Contact: <sip:601@127.0.0.1:5090>\r\n",
        "",
    );
    assert_eq!(w.request().method, "INVITE");
    w.far_reply(&prack, 401, "t1", CHALLENGE, "");
    assert!(w.requests().is_empty());
}

#[test]
fn the_bye_of_a_fork_comes_after_its_prack() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 180, "f1", "Require: 100rel\r\nRSeq: 1\r\n", "");
    w.far_reply(&invite, 180, "f2", "Require: 100rel\r\nRSeq: 1\r\n", "");
    let pracks = w.requests();
    assert_eq!(
        (pracks[0].to_tag.as_str(), pracks[1].to_tag.as_str()),
        ("f1", "f2")
    );
    let sdp = "Content-Type: application/sdp\r\n";
    w.far_reply(&invite, 200, "f1", sdp, ANSWER);
    w.far_reply(&invite, 200, "f2", sdp, ANSWER);
    let both = w.requests();
    assert_eq!((both[0].method, both[0].cseq), ("ACK", invite.cseq));
    assert_eq!((both[1].method, both[1].to_tag.as_str()), ("BYE", "f2"));
    assert!(both[1].cseq > pracks[1].cseq);
}

#[test]
fn a_change_that_waits_for_the_far_side_is_not_looked_at_again_and_again() {
    let mut w = registered();
    let call = answered(&mut w, "c1");
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    let hold = w.request();
    w.far_reply(&hold, 491, "t1", "", "");
    // an offer of the far side that the browser has to answer
    let other = ANSWER
        .replace("21016", "21018")
        .replace(" 4 IN IP4 ", " 5 IN IP4 ");
    w.far_request(
        &in_dialog("INVITE", 7, &hold.from_tag, &other)
            .replace("in-call-1", &hold.call_id)
            .replace("tag=far1", "tag=t1"),
    );
    w.wait(5_000);
    assert!(w.agent.due(w.config.resume_grace) > w.now);
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(
        &in_dialog("ACK", 7, &hold.from_tag, "")
            .replace("in-call-1", &hold.call_id)
            .replace("tag=far1", "tag=t1"),
    );
    assert_eq!(w.request().method, "INVITE", "now it goes");
}

#[test]
fn a_notify_that_is_faster_than_the_answer_to_the_refer() {
    let mut w = registered();
    let (call, tag) = talking(&mut w);
    w.send(1, "transfer", json!({ "callId": call, "to": "700" }), "t1");
    let refer = w.request();
    let notify = |cseq: u32, line: &str| {
        in_dialog("NOTIFY", cseq, &tag, line)
            .replace("application/sdp", "message/sipfrag")
            .replace("Max-Forwards", "Event: refer\r\nMax-Forwards")
    };
    w.far_request(&notify(2, "SIP/2.0 180 Ringing\r\n"));
    let frames = w.frames(1);
    assert_eq!(
        (&frames[0]["type"], &frames[0]["id"]),
        (&json!("ack"), &json!("t1"))
    );
    assert_eq!(body(&frames[1])["state"], "ringing");
    w.far_reply(&refer, 202, "far1", "", "");
    assert!(w.frames(1).is_empty());
    w.far_request(&notify(3, "SIP/2.0 486 Busy Here\r\n"));
    assert_eq!(body(&w.frame(1))["state"], "failed");
}

#[test]
fn a_call_that_was_taken_over_by_an_invite_that_is_gone_ends() {
    let mut w = registered();
    let (call, tag) = talking(&mut w);
    let replaces = format!("Replaces: in-call-1;to-tag={tag};from-tag=far1\r\nContent-Type:");
    let other = invite(1, "", ANSWER)
        .replace("Call-ID: in-call-1", "Call-ID: in-call-2")
        .replace("Content-Type:", &replaces);
    let tx = w.far_request(&other);
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a2",
    );
    w.frames(1);
    w.requests();
    w.step(Input::NotReplied { tx });
    assert_eq!(w.frame(1)["type"], "callEnded");
    assert!(w.requests().is_empty(), "there is no dialog for a BYE");
}

#[test]
fn an_offer_that_came_to_nothing_while_the_browser_was_away_is_told() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"].clone();
    let (call, tag) = talking(&mut w);
    let other = ANSWER
        .replace("21016", "21018")
        .replace(" 4 IN IP4 ", " 5 IN IP4 ");
    w.far_request(&in_dialog("INVITE", 2, &tag, &other));
    assert_eq!(body(&w.frame(1))["answerNeeded"], true);
    w.step(Input::Closed { conn: 1 });
    w.wait(15_001);
    assert_eq!(w.reply().code, 480);
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "resume": token }),
        "r2",
    );
    let frames = w.frames(2);
    assert_eq!(body(&frames[1])["callId"], call.as_str());
    assert_eq!(body(&frames[1])["answerNeeded"], false);
    w.far_request(&in_dialog("INVITE", 3, &tag, &other));
    w.frames(2);
    w.step(Input::Restarted);
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": token }),
        "r3",
    );
    assert_eq!(body(&w.frames(3)[1])["answerNeeded"], false);
}

#[test]
fn a_prack_may_come_after_the_answer() {
    let mut w = registered();
    let offer = invite(1, "", ANSWER).replace("Max-Forwards", "Require: 100rel\r\nMax-Forwards");
    w.far_request(&offer);
    let ringing = w.reply();
    let line = ringing
        .headers
        .lines()
        .find_map(|l| l.strip_prefix("RSeq: "));
    let rack = format!("RAck: {} 1 INVITE\r\nMax-Forwards", line.expect("reliable"));
    let call = w.frame(1)["payload"]["callId"]
        .as_str()
        .expect("id")
        .to_owned();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.replies();
    w.wait(1_000);
    assert!(w.replies().is_empty(), "no 180 after the 200");
    let prack = in_dialog("PRACK", 2, &ringing.to_tag, "").replace("Max-Forwards", &rack);
    w.far_request(&prack);
    assert_eq!(w.reply().code, 200);
}

#[test]
fn an_ack_that_comes_again_confirms_no_later_invite() {
    let mut w = registered();
    let (call, tag) = talking(&mut w);
    w.far_request(&in_dialog("INVITE", 2, &tag, ""));
    w.send(1, "answer", json!({ "callId": call, "sdp": OFFER }), "a2");
    assert_eq!(w.reply().code, 200);
    w.frames(1);
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    assert!(w.requests().is_empty() && w.frames(1).is_empty());
    let answer = ANSWER.replace(" 4 IN IP4 ", " 5 IN IP4 ");
    w.far_request(&in_dialog("ACK", 2, &tag, &answer));
    assert!(body(&w.frame(1))["sdp"].is_string());
}

#[test]
fn a_request_that_still_waits_is_not_forgotten() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    for n in 0..20 {
        w.send(
            1,
            "mute",
            json!({ "callId": "none", "muted": true }),
            &format!("m{n}"),
        );
    }
    w.frames(1);
    w.send(1, "call", json!({ "to": "600", "sdp": OFFER }), "c1");
    assert_eq!(body(&w.frame(1))["callId"], call.as_str());
    assert!(w.requests().is_empty(), "no second call");
    w.far_reply(&invite, 486, "t1", "", "");
    w.frames(1);
    w.send(1, "call", json!({ "to": "600", "sdp": OFFER }), "c1");
    assert_eq!(body(&w.frame(1))["code"], 486);
    assert!(w.agent.sessions[0].outcomes.len() <= 16);
}

#[test]
fn candidates_of_an_update_that_crossed_another_go_again() {
    let mut w = World::new(Config {
        trickle: Trickle::Update,
        ..config()
    });
    w.register(1);
    let (call, invite) = w.call(1, "c1");
    let headers = "Allow: INVITE, UPDATE\r\nContent-Type: application/sdp\r\n";
    w.far_reply(&invite, 200, "t1", headers, ANSWER);
    let line = "candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host";
    let candidate = json!({ "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 });
    w.send(
        1,
        "iceCandidate",
        json!({ "callId": call, "candidate": candidate }),
        "i1",
    );
    let update = w.request();
    assert!(update.method == "UPDATE" && update.body.contains("192.0.2.1 50000"));
    w.far_reply(&update, 491, "t1", "", "");
    w.wait(5_000);
    let again = w.request();
    assert!(again.body.contains("192.0.2.1 50000"), "{}", again.body);
}

#[test]
fn a_leg_on_its_way_to_a_room_is_ended_once() {
    let mut w = registered();
    let (first, tag) = talking(&mut w);
    let second = answered(&mut w, "c2");
    w.send(1, "conference", json!({ "callIds": [first, second] }), "k1");
    w.send(1, "answer", json!({ "callId": first, "sdp": OFFER }), "a2");
    let room = w.request();
    w.far_reply(
        &room,
        200,
        "r1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let refers = w.requests();
    // the session of the first far side ends before that one has arrived in the room
    let refresh = in_dialog("UPDATE", 2, &tag, "").replace(
        "Max-Forwards",
        "Session-Expires: 90;refresher=uac\r\nSupported: timer\r\nMax-Forwards",
    );
    w.far_request(&refresh);
    w.now += 1_000;
    for refer in &refers {
        w.far_reply(refer, 202, "x", "", "");
    }
    let mut byes = 0;
    for _ in 0..100 {
        w.wait(1_000);
        let sent = w.requests();
        byes += sent
            .iter()
            .filter(|r| r.method == "BYE" && r.call_id == "in-call-1")
            .count();
    }
    assert_eq!(byes, 1);
}

#[test]
fn a_digest_that_comes_after_the_far_side_has_gone_sends_nothing() {
    let mut w = World::new(config());
    w.send(1, "register", json!({ "dn": "5001" }), "r1");
    let register = w.request();
    w.far_reply(&register, 401, "x", CHALLENGE, "");
    w.frames(1);
    let digest = |nonce: &str| {
        json!({
            "realm": "asterisk", "nonce": nonce, "algorithm": "MD5", "qop": "auth", "nc": "00000001",
            "cnonce": "c", "response": "0123456789abcdef0123456789abcdef",
        })
    };
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "digest": digest("n9") }),
        "r2",
    );
    let register = w.request();
    w.far_reply(&register, 200, "x", "Expires: 300\r\n", "");
    w.frames(1);
    let (call, tag) = talking(&mut w);
    let refer = in_dialog("REFER", 2, &tag, "").replace(
        "Max-Forwards",
        "Refer-To: <sip:700@pbx.example>\r\nMax-Forwards",
    );
    w.far_request(&refer);
    let notify = w.request();
    w.far_reply(&notify, 401, "far1", &CHALLENGE.replace("n9", "n10"), "");
    w.far_request(&in_dialog("BYE", 3, &tag, ""));
    w.frames(1);
    w.send(
        1,
        "digest",
        json!({ "callId": call, "digest": digest("n10") }),
        "d1",
    );
    assert_eq!(w.frame(1)["type"], "ack");
    assert!(w.requests().is_empty());
}
