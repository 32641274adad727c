//! Calls through the engine, both directions, in every phase in which they can end.

mod common;

use common::{config, in_dialog, invite, World, ANSWER, OFFER};
use rtc_json_engine::{Input, Output, State};
use serde_json::json;

fn registered() -> World {
    let mut world = World::new(config());
    world.register(1);
    world
}

#[test]
fn an_outbound_call_from_offer_to_hangup() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    assert_eq!(invite.method, "INVITE");
    assert_eq!(invite.uri, "sip:600@pbx.example");
    assert_eq!(invite.next_hop, "sip:127.0.0.1:5080");
    assert!(
        invite.from.starts_with("\"Ann\" <sip:5001@pbx.example>"),
        "{}",
        invite.from
    );
    assert!(invite
        .headers
        .contains("Contact: <sip:5001@127.0.0.1:5060>"));
    assert!(!invite.body.contains("opus"), "{}", invite.body);
    assert!(invite.body.contains("PCMU/8000"));
    assert!(
        invite.body.contains(" 0.0.0.0 9 typ host"),
        "{}",
        invite.body
    );
    assert!(
        invite.body.contains("c=IN IP4 198.51.100.7"),
        "{}",
        invite.body
    );

    w.far_reply(&invite, 100, "", "", "");
    assert!(w.frames(1).is_empty());
    w.now += 40;
    w.far_reply(&invite, 180, "t1", "", "");
    let ringing = w.frame(1);
    assert_eq!(ringing["payload"]["state"], "ringing");
    assert_eq!(ringing["payload"]["request"], "c1");
    assert_eq!(ringing["id"], "evt-1");
    w.now += 2_000;
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let accepted = w.frame(1);
    assert_eq!(accepted["type"], "callAccepted");
    assert_eq!(accepted["id"], "c1");
    assert!(accepted["payload"]["sdp"]
        .as_str()
        .is_some_and(|s| s.contains("a=fingerprint")));

    w.now += 61_500;
    w.send(
        1,
        "hangup",
        json!({ "callId": call, "reason": "user_hangup" }),
        "h1",
    );
    let ended = w.frame(1);
    assert_eq!(ended["type"], "callEnded");
    assert_eq!(ended["id"], "h1");
    assert_eq!(ended["payload"]["reason"], "normal_clearing");
    assert_eq!(ended["payload"]["duration"], 61);
    assert_eq!(ended["payload"]["timings"]["ringing"], 40);
    assert_eq!(ended["payload"]["timings"]["answered"], 2_040);
    let bye = w.request();
    assert_eq!(bye.method, "BYE");
    assert_eq!(bye.uri, "sip:far@127.0.0.1:5080");
    assert_eq!(bye.to_tag, "t1");
    assert!(bye.cseq > invite.cseq);
    assert_eq!(w.agent.calls.len(), 1, "waits for the answer to BYE");
    w.far_reply(&bye, 200, "t1", "", "");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn a_failed_call_ends_with_its_code() {
    for (code, reason) in [
        (486, "user_busy"),
        (404, "unallocated_number"),
        (603, "call_rejected"),
        (480, "no_answer"),
        (503, "service_unavailable"),
        (488, "not_acceptable"),
    ] {
        let mut w = registered();
        let (call, invite) = w.call(1, "c1");
        w.far_reply(&invite, code, "t1", "Reason: Q.850;cause=17\r\n", "");
        let frames = w.frames(1);
        assert_eq!(frames.len(), 2, "{frames:#?}");
        assert_eq!(frames[0]["type"], "error");
        assert_eq!(frames[0]["id"], "c1");
        assert_eq!(frames[0]["payload"]["code"], code);
        assert_eq!(frames[0]["payload"]["callId"], call.as_str());
        assert_eq!(frames[0]["payload"]["cause"], 17);
        assert_eq!(frames[1]["type"], "callEnded");
        assert_eq!(frames[1]["payload"]["duration"], 0);
        if code != 503 && code != 480 && code != 404 && code != 603 && code != 488 {
            assert_eq!(frames[1]["payload"]["reason"], reason);
        }
        assert!(w.agent.calls.is_empty());
        assert!(w.out.iter().any(|o| matches!(o, Output::CallEnded(_))));
    }
}

#[test]
fn hangup_before_any_reply_waits_with_the_cancel() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    let frames = w.frames(1);
    assert_eq!(frames[0]["type"], "error");
    assert_eq!(frames[0]["payload"]["code"], 487);
    assert_eq!(frames[1]["type"], "callEnded");
    assert_eq!(frames[1]["id"], "h1");
    assert_eq!(frames[1]["payload"]["reason"], "cancelled");
    assert!(
        w.cancels().is_empty(),
        "RFC 3261 9.1: no CANCEL before a provisional reply"
    );
    w.far_reply(&invite, 100, "", "", "");
    assert_eq!(w.cancels(), [(invite.call_id.clone(), invite.cseq)]);
    w.far_reply(&invite, 180, "t1", "", "");
    assert!(w.cancels().is_empty(), "once is enough");
    w.far_reply(&invite, 487, "t1", "", "");
    assert!(w.agent.calls.is_empty());
    assert!(w.frames(1).is_empty(), "the browser knows already");
}

#[test]
fn a_200_that_crosses_the_cancel_is_ended_with_bye() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    w.far_reply(&invite, 180, "t1", "", "");
    w.frames(1);
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    assert_eq!(w.cancels().len(), 1);
    w.frames(1);
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let bye = w.request();
    assert_eq!(bye.method, "BYE");
    assert!(w.frames(1).is_empty());
    w.far_reply(&bye, 481, "t1", "", "");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn nobody_there_is_told_from_no_answer() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    w.no_reply(&invite);
    assert_eq!(w.frames(1)[1]["payload"]["reason"], "network_error");

    let (_, invite) = w.call(1, "c2");
    w.far_reply(&invite, 180, "t", "", "");
    w.no_reply(&invite);
    assert_eq!(w.frames(1)[2]["payload"]["reason"], "no_answer");
}

#[test]
fn a_challenge_is_answered_once() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    let challenge = "Proxy-Authenticate: Digest realm=\"asterisk\", nonce=\"n2\", qop=\"auth\", algorithm=MD5\r\n";
    w.far_reply(&invite, 407, "t0", challenge, "");
    let again = w.request();
    assert_eq!(again.cseq, invite.cseq + 1);
    assert_eq!(again.call_id, invite.call_id);
    assert_eq!(again.from_tag, invite.from_tag);
    assert!(again.to_tag.is_empty());
    assert!(
        again.headers.contains("Proxy-Authorization: Digest "),
        "{}",
        again.headers
    );
    w.far_reply(&again, 407, "t0", challenge, "");
    assert!(w.requests().is_empty());
    assert_eq!(w.frames(1)[0]["payload"]["code"], 407);
}

#[test]
fn a_retried_call_places_no_second_one() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    w.send(1, "call", json!({ "to": "600", "sdp": OFFER }), "c1");
    let again = w.frame(1);
    assert_eq!(again["payload"]["callId"], call.as_str());
    assert!(w.requests().is_empty());
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let accepted = w.frame(1);
    w.send(1, "call", json!({ "to": "600", "sdp": OFFER }), "c1");
    assert_eq!(w.frame(1), accepted);
    assert!(w.requests().is_empty());
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn an_offer_without_dtls_is_refused_with_what_is_missing() {
    let mut w = registered();
    let plain: String = OFFER
        .lines()
        .filter(|l| !l.starts_with("a=fingerprint"))
        .flat_map(|l| [l, "\r\n"])
        .collect();
    w.send(1, "call", json!({ "to": "600", "sdp": plain }), "c1");
    let error = w.frame(1);
    assert_eq!(error["payload"]["code"], 488);
    assert!(error["payload"]["details"]
        .as_str()
        .is_some_and(|d| d.contains("fingerprint")));
    assert!(w.requests().is_empty());
    assert!(w.agent.calls.is_empty());
}

fn ringing() -> (World, String, rtc_json_engine::ServerTx, String) {
    let mut w = registered();
    let tx = w.far_request(&invite(1, "", ANSWER));
    let reply = w.reply();
    assert_eq!(reply.code, 180);
    assert_eq!(reply.tx, tx);
    let incoming = w.frame(1);
    assert_eq!(incoming["type"], "incomingCall");
    assert_eq!(incoming["payload"]["from"], "1003");
    assert_eq!(incoming["payload"]["displayName"], "Bob");
    assert_eq!(incoming["payload"]["to"], "5001");
    let call = incoming["payload"]["callId"]
        .as_str()
        .expect("id")
        .to_owned();
    (w, call, tx, reply.to_tag)
}

/// An answer of the browser to the offer of [`ringing`].
fn browser_answer() -> String {
    OFFER.replace("a=setup:actpass", "a=setup:active")
}

#[test]
fn an_inbound_call_from_invite_to_bye() {
    let (mut w, call, tx, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    assert_eq!(w.frame(1)["type"], "ack");
    let ok = w.reply();
    assert_eq!((ok.code, ok.tx, ok.invite), (200, tx, true));
    assert_eq!(ok.to_tag, tag, "the tag of the 180");
    assert!(ok.headers.contains("Contact: <sip:5001@127.0.0.1:5060>"));
    assert!(ok.body.contains(" 0.0.0.0 9 typ host"));
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    assert_eq!(w.agent.calls[0].state, State::Established);
    w.now += 3_999;
    w.far_request(&in_dialog("BYE", 2, &tag, ""));
    assert_eq!(w.reply().code, 200);
    let ended = w.frame(1);
    assert_eq!(ended["type"], "callEnded");
    assert_eq!(ended["payload"]["duration"], 3);
    assert_eq!(ended["payload"]["reason"], "normal_clearing");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn the_caller_cancels() {
    let (mut w, call, invite_tx, _) = ringing();
    let tx = w.far_request(&in_dialog("CANCEL", 1, "", ""));
    let replies = w.replies();
    assert_eq!((replies[0].tx, replies[0].code), (tx, 200));
    assert_eq!((replies[1].tx, replies[1].code), (invite_tx, 487));
    assert_eq!(w.frame(1)["payload"]["reason"], "cancelled");
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    assert_eq!(w.frame(1)["payload"]["code"], 404);
    assert!(w.replies().is_empty());
}

#[test]
fn a_cancel_after_the_answer_changes_nothing() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.frames(1);
    w.replies();
    w.far_request(&in_dialog("CANCEL", 1, "", ""));
    assert_eq!(w.reply().code, 200);
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    assert_eq!(w.agent.calls[0].state, State::Established);
}

#[test]
fn busy_and_declined() {
    for (reason, code, word) in [
        ("busy", 486, "user_busy"),
        ("declined", 603, "call_rejected"),
    ] {
        let (mut w, call, tx, _) = ringing();
        w.send(
            1,
            "hangup",
            json!({ "callId": call, "reason": reason }),
            "h1",
        );
        let reply = w.reply();
        assert_eq!((reply.tx, reply.code), (tx, code));
        let ended = w.frame(1);
        assert_eq!(ended["id"], "h1");
        assert_eq!(ended["payload"]["reason"], word);
        assert!(w.agent.calls.is_empty());
    }
}

#[test]
fn hangup_before_the_ack_waits_with_the_bye() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    assert_eq!(w.types(1), ["ack", "callEnded"]);
    assert!(
        w.requests().is_empty(),
        "RFC 3261 15: no BYE before the ACK"
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    assert_eq!(w.request().method, "BYE");
}

#[test]
fn nobody_answers() {
    let (mut w, _, tx, _) = ringing();
    w.wait(90_001);
    let reply = w.reply();
    assert_eq!((reply.tx, reply.code), (tx, 480));
    assert_eq!(w.frame(1)["payload"]["reason"], "no_answer");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn the_ack_never_comes() {
    let (mut w, call, _, _) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.frames(1);
    w.wait(32_001);
    assert_eq!(w.frame(1)["payload"]["reason"], "timeout");
    let bye = w.request();
    assert_eq!(bye.method, "BYE");
    w.no_reply(&bye);
    assert!(w.agent.calls.is_empty());
}

#[test]
fn the_first_answer_wins() {
    let mut w = registered();
    w.register(2);
    w.far_request(&invite(1, "", ANSWER));
    let call = w.frame(1)["payload"]["callId"]
        .as_str()
        .expect("id")
        .to_owned();
    assert_eq!(w.frame(2)["payload"]["callId"], call.as_str());
    w.send(
        2,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a2",
    );
    assert_eq!(w.frame(2)["type"], "ack");
    let lost = w.frame(1);
    assert_eq!(lost["type"], "callEnded");
    assert_eq!(lost["payload"]["reason"], "answered_elsewhere");
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    assert_eq!(w.frame(1)["payload"]["code"], 409);
    assert_eq!(w.replies().iter().filter(|r| r.code == 200).count(), 1);
}

#[test]
fn a_hold_of_the_far_side_is_answered_here() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    let held = ANSWER
        .replace("a=sendrecv", "a=sendonly")
        .replace(" 4 IN IP4 ", " 5 IN IP4 ");
    assert!(held.contains("a=sendonly") && held.contains(" 5 IN IP4 "));
    w.far_request(&invite(2, &tag, &held));
    let ok = w.reply();
    assert_eq!(ok.code, 200);
    assert!(ok.body.contains("a=recvonly"), "{}", ok.body);
    assert!(
        ok.body.contains(" 0.0.0.0 9 typ host"),
        "the same candidates"
    );
    assert!(!ok.body.contains("actpass"));
    let update = w.frame(1);
    assert_eq!(update["type"], "callUpdated");
    assert_eq!(update["payload"]["remoteHold"], true);
    w.far_request(&in_dialog("ACK", 2, &tag, ""));
}

#[test]
fn two_notifies_that_come_at_once_may_be_taken_the_wrong_way_round() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    w.send(1, "transfer", json!({ "callId": call, "to": "1004" }), "t1");
    let refer = w.request();
    assert_eq!(refer.method, "REFER");
    w.far_reply(&refer, 202, "far1", "", "");
    assert_eq!(w.types(1), ["ack", "transferProgress"]);
    let mut notify = |cseq: u32, state: &str, code: &str| {
        let body = format!("SIP/2.0 {code}\r\n");
        let text = in_dialog("NOTIFY", cseq, &tag, &body)
            .replace("application/sdp", "message/sipfrag;version=2.0")
            .replace(
                "Content-Type",
                &format!("Event: refer\r\nSubscription-State: {state}\r\nContent-Type"),
            );
        w.far_request(&text);
        let replies: Vec<u16> = w.replies().iter().map(|r| r.code).collect();
        let states: Vec<String> = w
            .frames(1)
            .iter()
            .filter(|f| f["type"] == "transferProgress")
            .map(|f| f["payload"]["state"].as_str().unwrap().to_owned())
            .collect();
        (replies, states.join(" "))
    };
    assert_eq!(
        notify(3, "active", "180 Ringing"),
        (vec![200], "ringing".to_owned())
    );
    assert_eq!(
        notify(2, "active", "100 Trying"),
        (vec![200], String::new())
    );
    assert_eq!(
        notify(4, "terminated;reason=noresource", "200 OK"),
        (vec![200], "completed".to_owned())
    );
}

#[test]
fn a_cancel_reaches_a_ringing_call_after_an_update() {
    let (mut w, _, _, tag) = ringing();
    w.replies();
    w.far_request(&in_dialog("UPDATE", 2, &tag, ""));
    assert_eq!(w.reply().code, 200);
    w.far_request(&in_dialog("CANCEL", 1, "", ""));
    let codes: Vec<u16> = w.replies().iter().map(|r| r.code).collect();
    assert_eq!(codes, [200, 487]);
}

#[test]
fn a_browser_is_shown_no_direction() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    // other media and a hold in one
    let moved = ANSWER
        .replace("a=sendrecv", "a=sendonly")
        .replace("a=ice-ufrag:", "a=ice-ufrag:new")
        .replace("a=setup:active", "a=setup:actpass");
    w.far_request(&invite(2, &tag, &moved));
    let asked = w.frame(1);
    assert_eq!(asked["payload"]["answerNeeded"], true);
    let offer = asked["payload"]["sdp"].as_str().unwrap();
    assert!(offer.contains("a=sendrecv") && !offer.contains("a=sendonly"));
    w.replies();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a2",
    );
    let ok = w.reply();
    assert_eq!(ok.code, 200);
    assert!(ok.body.contains("a=recvonly"), "{}", ok.body);
    let frames = w.frames(1);
    assert_eq!(frames[0]["type"], "ack");
    assert_eq!(frames[1]["payload"]["remoteHold"], true);
    w.far_request(&in_dialog("ACK", 2, &tag, ""));
    // only the direction comes back: nothing for the browser to do
    let back = moved.replace("a=sendonly", "a=sendrecv");
    w.far_request(&invite(3, &tag, &back));
    assert!(w.reply().body.contains("a=sendrecv"));
    let update = w.frame(1);
    assert_eq!(update["payload"]["remoteHold"], false);
    assert!(update["payload"].get("sdp").is_none());
}

#[test]
fn strangers_get_481() {
    let mut w = registered();
    for method in ["BYE", "INFO", "UPDATE", "CANCEL"] {
        w.far_request(&in_dialog(method, 1, "nobody", ""));
        assert_eq!(w.reply().code, 481, "{method}");
    }
    w.far_request(&in_dialog("OPTIONS", 1, "", ""));
    assert_eq!(w.reply().code, 200);
}

#[test]
fn a_session_that_does_not_come_back_loses_its_calls() {
    let mut w = registered();
    let (_, invite) = w.call(1, "c1");
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    w.step(Input::Closed { conn: 1 });
    w.step(Input::Closed { conn: 1 });
    w.wait(29_000);
    assert!(w.requests().is_empty(), "the call lives on");
    w.wait(1_001);
    let requests = w.requests();
    assert!(requests.iter().any(|r| r.method == "BYE"), "{requests:?}");
    let register = requests
        .iter()
        .find(|r| r.method == "REGISTER")
        .expect("unregisters");
    assert!(register.headers.contains("Expires: 0\r\n"));
}

#[test]
fn the_session_resumes_with_its_calls_and_what_it_missed() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"]
        .as_str()
        .expect("token")
        .to_owned();
    let (call, invite) = w.call(1, "c1");
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let (second, invite2) = w.call_silently(1, "c2");
    w.frames(1);
    w.step(Input::Closed { conn: 1 });
    w.far_reply(&invite2, 486, "t2", "", "");
    w.now += 2_000;
    w.send(
        9,
        "register",
        json!({ "dn": "5001", "resume": token }),
        "r2",
    );
    let frames = w.frames(9);
    assert_eq!(frames[0]["type"], "registered");
    assert_eq!(frames[0]["payload"]["session"], token.as_str());
    let calls = frames[0]["payload"]["calls"].as_array().expect("calls");
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["callId"], call.as_str());
    assert_eq!(calls[0]["state"], "established");
    assert_eq!(frames[1]["type"], "callEnded");
    assert_eq!(frames[1]["payload"]["callId"], second.as_str());
    // its `call` is asked for again, and has its outcome
    w.send(9, "call", json!({ "to": "600", "sdp": OFFER }), "c2");
    assert_eq!(w.frame(9)["payload"]["code"], 486);
    assert!(w.requests().is_empty());
    w.send(9, "hangup", json!({ "callId": call }), "h1");
    assert_eq!(w.frame(9)["type"], "callEnded");
}

#[test]
fn a_restart_keeps_what_was_answered() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"]
        .as_str()
        .expect("token")
        .to_owned();
    let (call, invite) = w.call(1, "c1");
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let (ringing, _) = w.call_silently(1, "c2");
    w.frames(1);
    w.step(Input::Restarted);
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": token }),
        "r2",
    );
    let frames = w.frames(3);
    assert_eq!(frames[0]["payload"]["calls"][0]["callId"], call.as_str());
    assert!(frames[1..]
        .iter()
        .any(|f| f["type"] == "callEnded" && f["payload"]["callId"] == ringing.as_str()));
    w.send(3, "hangup", json!({ "callId": call }), "h1");
    assert!(w.requests().iter().any(|r| r.method == "BYE"));
}

impl World {
    /// A further call, whatever else is sent meanwhile.
    fn call_silently(&mut self, conn: i32, id: &str) -> (String, rtc_json_engine::SipRequest) {
        self.frames(conn);
        self.requests();
        self.call(conn, id)
    }
}

const CANDIDATE: &str = "candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host";

#[test]
fn candidates_go_to_a_far_side_that_takes_them_one_info_at_a_time() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    assert!(invite.headers.contains("Supported: trickle-ice, "));
    let send = |w: &mut World, line: &str, id: &str| {
        let candidate = json!({ "candidate": line, "sdpMid": "0", "sdpMLineIndex": 0 });
        w.send(
            1,
            "iceCandidate",
            json!({ "callId": call, "candidate": candidate }),
            id,
        );
    };
    send(&mut w, CANDIDATE, "i1");
    assert!(w.requests().is_empty(), "not before the call is answered");
    let headers = "Supported: timer, trickle-ice\r\nContent-Type: application/sdp\r\n";
    w.far_reply(&invite, 200, "t1", headers, ANSWER);
    let info = w.request();
    assert_eq!(info.method, "INFO");
    assert!(
        info.headers.contains("Info-Package: trickle-ice\r\n"),
        "{}",
        info.headers
    );
    assert!(info
        .headers
        .contains("Content-Type: application/trickle-ice-sdpfrag\r\n"));
    assert!(
        info.body.contains(&format!("a={CANDIDATE}\r\n")),
        "{}",
        info.body
    );
    send(&mut w, &CANDIDATE.replace("50000", "50001"), "i2");
    w.send(
        1,
        "iceCandidate",
        json!({ "callId": call, "candidate": null }),
        "i3",
    );
    assert!(w.requests().is_empty(), "one at a time");
    w.far_reply(&info, 200, "t1", "", "");
    let second = w.request();
    assert!(second.body.contains("50001") && second.body.contains("a=end-of-candidates\r\n"));
    w.far_reply(&second, 469, "t1", "", "");
    send(&mut w, CANDIDATE, "i4");
    assert!(
        w.requests().is_empty(),
        "a far side that refuses them gets no more"
    );
    assert_eq!(
        w.types(1),
        ["callAccepted"],
        "the call goes on, and nothing is answered"
    );
}

#[test]
fn candidates_never_go_to_one_that_does_not() {
    let mut w = registered();
    let (call, invite) = w.call(1, "c1");
    w.far_reply(
        &invite,
        200,
        "t1",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let candidate = json!({ "candidate": CANDIDATE, "sdpMid": "0", "sdpMLineIndex": 0 });
    w.send(
        1,
        "iceCandidate",
        json!({ "callId": call, "candidate": candidate }),
        "i1",
    );
    assert!(w.requests().is_empty());
    assert!(w.agent.calls[0].leg.candidates.is_empty());
}

#[test]
fn candidates_of_the_far_side_reach_the_browser() {
    let (mut w, call, _, tag) = ringing();
    w.send(
        1,
        "answer",
        json!({ "callId": call, "sdp": browser_answer() }),
        "a1",
    );
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    let body = format!("a=ice-ufrag:x\r\na=ice-pwd:y\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na={CANDIDATE}\r\na=end-of-candidates\r\n");
    let info = in_dialog("INFO", 2, &tag, &body)
        .replace("application/sdp", "application/trickle-ice-sdpfrag");
    w.far_request(&info);
    assert_eq!(w.reply().code, 200);
    let frames = w.frames(1);
    assert_eq!(frames.len(), 2, "{frames:#?}");
    assert_eq!(frames[0]["type"], "iceCandidate");
    assert_eq!(frames[0]["payload"]["candidate"]["candidate"], CANDIDATE);
    assert_eq!(frames[0]["payload"]["candidate"]["sdpMid"], "0");
    assert!(frames[1]["payload"]["candidate"].is_null());
}

#[test]
fn an_end_that_could_not_be_sent_is_told_on_resume() {
    let mut w = World::new(config());
    let token = w.register(1)["payload"]["session"]
        .as_str()
        .expect("token")
        .to_owned();
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 486, "t1", "", "");
    let sent: Vec<String> = w
        .out
        .iter()
        .filter_map(|o| match o {
            Output::Frame { text, .. } => Some(text.clone()),
            _ => None,
        })
        .collect();
    for text in sent {
        w.step(Input::Unsent { conn: 1, text });
    }
    w.frames(1);
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "resume": token }),
        "r2",
    );
    assert_eq!(w.types(2), ["registered", "callEnded"]);
}

#[test]
fn with_the_last_browser_go_the_calls_that_ring() {
    let (mut w, call, tx, _) = ringing();
    w.send(1, "unregister", json!({}), "u1");
    let reply = w.reply();
    assert_eq!((reply.tx, reply.code), (tx, 480));
    let frames = w.frames(1);
    assert_eq!(frames[0]["type"], "callEnded");
    assert_eq!(frames[0]["payload"]["callId"], call.as_str());
    assert_eq!(frames[1]["type"], "unregistered");
}
