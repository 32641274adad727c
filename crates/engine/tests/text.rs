//! Text messages through the engine.

mod common;

use common::{config, in_dialog, World};
use rtc_json_engine::{Handle, Input, Purpose};
use serde_json::{json, Value};

const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"m1\", qop=\"auth\", algorithm=MD5\r\n";

fn world() -> World {
    let mut w = World::new(config());
    w.register(1);
    w
}

fn message(body: &[u8], kind: &str, more: &str) -> Vec<u8> {
    let head = format!(
        "MESSAGE sip:5001@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKm\r\n\
         From: \"Bob\" <sip:1003@pbx.example>;tag=f\r\nTo: <sip:5001@pbx.example>\r\nCall-ID: m-1\r\n\
         CSeq: 1 MESSAGE\r\n{kind}{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PLAIN: &str = "Content-Type: text/plain;charset=UTF-8\r\n";

/// A MESSAGE of the far side; gives status and headers of the reply.
fn incoming(w: &mut World, raw: &[u8]) -> (u16, String) {
    let message = rtc_json_sip::Message::parse(raw).expect("a good request");
    w.step(Input::SipRequest {
        message: &message,
        user: "5001",
        tx: Some(rtc_json_engine::ServerTx { index: 9, label: 9 }),
        src: Some([127, 0, 0, 1].into()),
    });
    let reply = w.reply();
    assert!(!reply.invite);
    (reply.code, reply.headers)
}

fn text(w: &mut World, body: &str) -> u16 {
    incoming(w, &message(body.as_bytes(), PLAIN, "")).0
}

#[test]
fn a_text_goes_out_and_is_acknowledged() {
    let mut w = world();
    let body = "Grüße\r\n\"<script>\" 😀";
    w.send(1, "message", json!({ "to": "600#", "text": body }), "m1");
    let request = w.request();
    assert_eq!(
        (request.method, request.uri.as_str()),
        ("MESSAGE", "sip:600%23@pbx.example")
    );
    assert_eq!(request.from, "\"Ann\" <sip:5001@pbx.example>");
    assert_eq!(request.to, "<sip:600%23@pbx.example>");
    assert_eq!(request.body, body);
    assert!(request
        .headers
        .contains("Content-Type: text/plain;charset=utf-8\r\n"));
    assert!(!request.headers.contains("Contact"), "RFC 3428, section 4");
    assert_eq!(
        Handle::parse(&request.handle.to_string())
            .expect("a handle")
            .purpose,
        Purpose::Text
    );
    assert!(w.frames(1).is_empty());
    // a retry does nothing, and gets the outcome once there is one
    w.send(1, "message", json!({ "to": "600", "text": "x" }), "m1");
    assert!(w.requests().is_empty() && w.frames(1).is_empty());
    w.far_reply(&request, 100, "", "", "");
    assert!(w.frames(1).is_empty());
    w.far_reply(&request, 202, "x", "", "");
    let ack = w.frame(1);
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("m1")));
    w.send(1, "message", json!({ "to": "600", "text": "x" }), "m1");
    assert_eq!(w.frame(1), ack);
    assert!(w.agent.texts.is_empty());
}

#[test]
fn a_challenge_is_answered_from_ha1() {
    let mut w = world();
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m1");
    let first = w.request();
    w.far_reply(&first, 407, "x", &CHALLENGE.replace("WWW", "Proxy"), "");
    let second = w.request();
    assert_eq!(
        (second.cseq, &second.call_id, second.body.as_str()),
        (first.cseq + 1, &first.call_id, "hi")
    );
    assert!(second
        .headers
        .contains("Proxy-Authorization: Digest username=\"5001\""));
    // a late copy of the first reply changes nothing
    w.far_reply(&first, 407, "x", CHALLENGE, "");
    assert!(w.requests().is_empty());
    w.far_reply(&second, 401, "x", &CHALLENGE.replace("m1", "m2"), "");
    assert_eq!(w.frame(1)["payload"]["code"], 401, "asked twice, refused");
    assert!(w.requests().is_empty() && w.agent.texts.is_empty());
}

#[test]
fn without_ha1_the_browser_answers() {
    let mut w = world();
    w.agent.upstream.ha1 = Default::default();
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m0");
    let zeroth = w.request();
    w.far_reply(&zeroth, 401, "x", CHALLENGE, "");
    assert_eq!(
        w.frame(1)["payload"]["code"],
        401,
        "it has not shown that it can"
    );
    w.agent.sessions[0].answers = true;
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m1");
    let first = w.request();
    w.far_reply(&first, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    let p = &challenge["payload"];
    assert_eq!(
        json!([challenge["type"], p["method"], p["uri"], p["callId"]]),
        json!(["challenge", "MESSAGE", "sip:600@pbx.example", null])
    );
    let digest = json!({ "nonce": "m1", "response": "0".repeat(32), "qop": "auth", "nc": "00000001", "cnonce": "c" });
    w.register(2);
    w.send(2, "digest", json!({ "digest": digest }), "d");
    assert_eq!(
        w.frame(2)["payload"]["code"],
        409,
        "asked was another browser"
    );
    w.send(1, "digest", json!({ "digest": digest }), "d");
    assert_eq!(w.frame(1)["type"], "ack");
    let second = w.request();
    assert!(second
        .headers
        .contains("Authorization: Digest username=\"5001\""));
    w.far_reply(&second, 200, "x", "", "");
    assert_eq!(w.frame(1)["id"], "m1");
    // or it does not
    w.agent.upstream.ha1 = Default::default();
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m2");
    let third = w.request();
    w.far_reply(&third, 401, "x", CHALLENGE, "");
    w.frames(1);
    w.wait(10_000);
    assert_eq!(w.frame(1)["payload"]["code"], 401);
    assert!(w.agent.texts.is_empty());
}

#[test]
fn what_goes_wrong_is_told() {
    let mut w = world();
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m1");
    let request = w.request();
    w.far_reply(&request, 404, "x", "", "");
    let error = w.frame(1);
    assert_eq!(
        json!([error["type"], error["payload"]["code"], error["id"]]),
        json!(["error", 404, "m1"])
    );
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m2");
    let request = w.request();
    w.no_reply(&request);
    assert_eq!(w.frame(1)["payload"]["code"], 408);
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m3");
    let handle = w.request().handle;
    w.step(Input::NotSent { handle });
    assert_eq!(w.frame(1)["payload"]["code"], 503);
    // a reply that never comes
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m4");
    w.requests();
    w.wait(35_000);
    assert_eq!(w.frame(1)["payload"]["code"], 408);
    assert!(w.agent.texts.is_empty());
}

#[test]
fn only_a_few_wait_at_a_time() {
    let mut w = world();
    for n in 0..6 {
        w.send(
            1,
            "message",
            json!({ "to": "600", "text": "hi" }),
            &format!("m{n}"),
        );
    }
    assert_eq!(w.requests().len(), 4);
    let codes: Vec<Value> = w
        .frames(1)
        .iter()
        .map(|f| f["payload"]["code"].clone())
        .collect();
    assert_eq!(codes, [503, 503]);
}

#[test]
fn the_sender_may_go_or_the_server_start_again() {
    let mut w = world();
    w.send(1, "message", json!({ "to": "600", "text": "hi" }), "m1");
    let request = w.request();
    w.step(Input::Closed { conn: 1 });
    w.far_reply(&request, 200, "x", "", "");
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    w.frames(2);
    w.send(2, "message", json!({ "to": "600", "text": "hi" }), "m1");
    assert_eq!(w.frame(2)["type"], "ack", "the outcome waits for the retry");
    w.send(2, "message", json!({ "to": "600", "text": "hi" }), "m2");
    w.requests();
    w.step(Input::Restarted);
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": w.agent.sessions[0].token }),
        "r",
    );
    w.frames(3);
    w.send(3, "message", json!({ "to": "600", "text": "hi" }), "m2");
    assert_eq!(w.frame(3)["payload"]["code"], 503);
    w.send(3, "message", json!({ "to": "600", "text": "hi" }), "m3");
    let request = w.requests().pop().expect("a MESSAGE");
    w.send(3, "unregister", json!({}), "u");
    w.frames(3);
    w.far_reply(&request, 200, "x", "", "");
    assert!(w.frames(3).is_empty() && w.agent.texts.is_empty());
}

#[test]
fn a_text_comes_in_to_every_browser() {
    let mut w = world();
    w.register(2);
    assert_eq!(text(&mut w, "Grüße\r\n😀"), 200);
    for conn in [1, 2] {
        let event = w.frame(conn);
        assert_eq!(event["type"], "message");
        assert_eq!(
            event["payload"],
            json!({ "from": "1003", "text": "Grüße\r\n😀" })
        );
    }
    // whom the network knows, and who wants to be private
    let more = "P-Asserted-Identity: <sip:+4912@net>\r\n";
    incoming(&mut w, &message(b"x", PLAIN, more));
    assert_eq!(w.frame(1)["payload"]["from"], "+4912");
    incoming(
        &mut w,
        &message(b"x", PLAIN, &format!("{more}Privacy: id\r\n")),
    );
    assert_eq!(w.frames(1)[0]["payload"]["from"], "anonymous");
}

#[test]
fn what_is_no_text_is_refused() {
    let mut w = world();
    for (body, kind, code) in [
        (&b"x"[..], "Content-Type: text/html\r\n", 415),
        (b"x", "", 415),
        (b"x", "Content-Type: text/plain;charset=iso-8859-1\r\n", 415),
        (b"x", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", 415),
        (b"x", "Content-Type: Text/Plain; format=flowed; CHARSET=\"utf-8\"\r\nContent-Encoding: identity\r\n", 200),
        (b"x", "c: text/plain\r\n", 200),
        (b"\xff", PLAIN, 400),
        (b"a\0b", PLAIN, 400),
        (b"", PLAIN, 200),
        (&[b'x'; 8192], PLAIN, 200),
        (&[b'x'; 8193], PLAIN, 413),
    ] {
        let (got, headers) = incoming(&mut w, &message(body, kind, ""));
        assert_eq!(got, code, "{kind}");
        assert_eq!(headers.contains("Accept: text/plain"), code == 415, "{headers}");
        let frames = w.frames(1);
        assert_eq!(frames.len(), usize::from(code == 200 && !body.is_empty()), "{kind}");
    }
}

#[test]
fn nobody_there() {
    let mut w = World::new(config());
    assert_eq!(text(&mut w, "x"), 480);
    let mut w = world();
    w.step(Input::Closed { conn: 1 });
    assert_eq!(text(&mut w, "for later"), 202, "taken, not delivered");
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    let frames = w.frames(2);
    assert_eq!(frames[1]["payload"]["text"], "for later");
    assert_eq!(frames[1]["id"], "evt-1");
    // seen once is seen
    w.step(Input::Closed { conn: 2 });
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": w.agent.sessions[0].token, "last": 1 }),
        "r",
    );
    assert_eq!(w.types(3), ["registered"]);
}

#[test]
fn what_could_not_be_sent_is_told_again() {
    let mut w = world();
    assert_eq!(text(&mut w, "into the void"), 200);
    let lost = w.frame(1);
    let sent = format!(
        "{{\"type\":\"message\",\"payload\":{},\"id\":\"evt-1\"}}",
        "{\"from\":\"1003\",\"text\":\"into the void\"}"
    );
    assert_eq!(serde_json::from_str::<Value>(&sent).expect("JSON"), lost);
    w.step(Input::Unsent {
        conn: 1,
        text: sent,
    });
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    assert_eq!(w.frames(2)[1], lost);
}

#[test]
fn what_is_kept_is_bounded_and_nothing_taken_is_lost() {
    let mut w = world();
    w.step(Input::Closed { conn: 1 });
    let taken = (0..20)
        .filter(|n| text(&mut w, &format!("t{n}")) == 202)
        .count();
    assert_eq!(taken, 8, "then the sender is told");
    assert_eq!(text(&mut w, "x"), 480);
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    let texts: Vec<Value> = w.frames(2)[1..]
        .iter()
        .map(|f| f["payload"]["text"].clone())
        .collect();
    assert_eq!(texts, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
    // to one that is there, they go on for ever
    for n in 0..100 {
        assert_eq!(text(&mut w, &format!("u{n}")), 200);
    }
    assert_eq!(w.frames(2).len(), 100);
    assert_eq!(w.agent.sessions[0].journal.len(), 8);
    // large ones: what JSON makes of control characters is six times as long
    for _ in 0..4 {
        assert_eq!(text(&mut w, &"\u{1}".repeat(8192)), 200);
    }
    let kept: usize = w.agent.sessions[0]
        .journal
        .iter()
        .map(|(_, _, f)| f.len())
        .sum();
    assert!(kept <= 65_536, "{kept}");
    w.step(Input::Closed { conn: 2 });
    assert_eq!(text(&mut w, &"\u{1}".repeat(8192)), 202);
    assert_eq!(text(&mut w, &"\u{1}".repeat(8192)), 480);
}

#[test]
fn texts_do_not_push_out_the_end_of_a_call() {
    let mut w = world();
    let (call, invite) = w.call(1, "c");
    w.step(Input::Closed { conn: 1 });
    w.far_reply(&invite, 486, "x", "", "");
    for n in 0..20 {
        text(&mut w, &format!("t{n}"));
    }
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    let frames = w.frames(2);
    assert!(frames
        .iter()
        .any(|f| f["type"] == "callEnded" && f["payload"]["callId"] == json!(call)));
}

#[test]
fn a_text_within_a_call() {
    let mut w = world();
    w.far_request(&common::invite(1, "", common::OFFER));
    let tag = w.replies()[0].to_tag.clone();
    w.frames(1);
    let raw = in_dialog("MESSAGE", 2, &tag, "psst").replace("application/sdp", "text/plain");
    w.far_request(&raw);
    assert_eq!(w.reply().code, 200);
    assert_eq!(w.frame(1)["payload"]["text"], "psst");
}
