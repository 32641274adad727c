//! A page that was loaded anew, with a far side that begins no second DTLS association in a dialog: its new description goes
//! out as an INVITE with Replaces.

mod common;

use common::{config, in_dialog, World, ANSWER, OFFER};
use rtc_json_engine::{Output, SipRequest};
use serde_json::{json, Value};

const SDP: &str = "Content-Type: application/sdp\r\n";
const TAKES_REPLACES: &str = "Content-Type: application/sdp\r\nSupported: timer, replaces\r\n";

/// The description of another certificate.
fn anew() -> String {
    OFFER.replace("a=fingerprint:sha-256 73:", "a=fingerprint:sha-256 74:")
}

/// A call of ours that is answered; its id and the INVITE.
fn established(more: &str) -> (World, String, SipRequest) {
    let mut w = World::new(config());
    w.register(1);
    let (call, invite) = w.call(1, "c1");
    w.far_reply(&invite, 200, "t1", more, ANSWER);
    assert_eq!(w.types(1), ["callAccepted"]);
    (w, call, invite)
}

fn update(w: &mut World, call: &str) -> SipRequest {
    w.send(1, "update", json!({ "callId": call, "sdp": anew() }), "u1");
    w.request()
}

fn replaces(first: &SipRequest) -> String {
    format!(
        "Replaces: {};to-tag=t1;from-tag={}\r\nRequire: replaces\r\n",
        first.call_id, first.from_tag
    )
}

fn only(frames: Vec<Value>) -> Value {
    assert_eq!(frames.len(), 1, "{frames:#?}");
    frames.into_iter().next().expect("one")
}

#[test]
fn the_new_dialog_takes_the_place_of_the_old_one() {
    let (mut w, call, first) = established(TAKES_REPLACES);
    let again = update(&mut w, &call);
    assert_eq!((again.method, again.to_tag.as_str()), ("INVITE", ""));
    assert_ne!(again.call_id, first.call_id);
    assert_eq!(again.uri, "sip:far@127.0.0.1:5080", "its Contact");
    assert!(
        again.headers.contains(&replaces(&first)),
        "{}",
        again.headers
    );
    assert!(again.body.contains("sha-256 74:"));
    let answer = ANSWER.replace("a=ice-ufrag:", "a=ice-ufrag:new");
    w.far_reply(&again, 200, "t2", TAKES_REPLACES, &answer);
    let told = only(w.frames(1));
    assert_eq!(
        (&told["type"], &told["id"]),
        (&json!("callUpdated"), &json!("u1"))
    );
    assert_eq!(told["payload"]["callId"], call.as_str());
    assert!(told["payload"]["sdp"]
        .as_str()
        .is_some_and(|s| s.contains("ice-ufrag:new")));
    assert!(
        w.requests().is_empty(),
        "who takes a Replaces ends the old dialog"
    );
    // which the far side never does here
    w.wait(5_000);
    let bye = w.request();
    assert_eq!((bye.method, &bye.call_id), ("BYE", &first.call_id));
    w.far_reply(&bye, 200, "t1", "", "");
    // the call goes on in the new one
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    let hold = w.request();
    assert_eq!(
        (&hold.call_id, hold.to_tag.as_str()),
        (&again.call_id, "t2")
    );
    assert!(hold.body.contains("sha-256 74:") && hold.body.contains("a=sendonly"));
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn hold_outlives_it() {
    let (mut w, call, _) = established(TAKES_REPLACES);
    w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
    let hold = w.request();
    let held = ANSWER.replace("a=sendrecv", "a=recvonly");
    w.far_reply(&hold, 200, "t1", SDP, &held);
    w.frames(1);
    let again = update(&mut w, &call);
    assert!(again.body.contains("a=sendonly"));
    w.far_reply(&again, 200, "t2", SDP, &held);
    let told = only(w.frames(1));
    assert_eq!(
        (&told["payload"]["hold"], &told["payload"]["remoteHold"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn a_number_that_is_not_there_is_followed_by_the_next_and_at_last_by_a_re_invite() {
    let (mut w, call, first) = established(TAKES_REPLACES);
    let mut again = update(&mut w, &call);
    for uri in ["sip:600@pbx.example", "sip:5001@pbx.example"] {
        w.far_reply(&again, 404, "x", "", "");
        again = w.request();
        assert_eq!(again.uri, uri);
        assert!(again.headers.contains(&replaces(&first)));
    }
    w.far_reply(&again, 404, "x", "", "");
    let within = w.request();
    assert_eq!(
        (&within.call_id, within.to_tag.as_str()),
        (&first.call_id, "t1")
    );
    assert!(!within.headers.contains("Replaces:"));
    w.far_reply(&within, 200, "t1", SDP, ANSWER);
    assert_eq!(only(w.frames(1))["id"], "u1");
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn a_far_side_that_takes_none_gets_a_re_invite_at_once() {
    for more in [
        SDP,
        "Content-Type: application/sdp\r\nSupported: replaces, trickle-ice\r\n",
    ] {
        let (mut w, call, first) = established(more);
        let within = update(&mut w, &call);
        assert_eq!(within.call_id, first.call_id, "{more}");
    }
}

#[test]
fn the_old_dialog_ends_first() {
    let (mut w, call, first) = established(TAKES_REPLACES);
    let again = update(&mut w, &call);
    let bye = in_dialog("BYE", 1, &first.from_tag, "")
        .replace("in-call-1", &first.call_id)
        .replace("tag=far1", "tag=t1");
    w.far_request(&bye);
    assert_eq!(w.reply().code, 200);
    assert!(w.frames(1).is_empty(), "it is not over");
    w.far_reply(&again, 200, "t2", SDP, ANSWER);
    assert_eq!(only(w.frames(1))["id"], "u1");
    w.wait(10_000);
    assert!(w.requests().is_empty());
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn both_dialogs_end_when_the_browser_hangs_up_meanwhile() {
    let (mut w, call, first) = established(TAKES_REPLACES);
    let again = update(&mut w, &call);
    w.far_reply(&again, 100, "", "", "");
    w.send(1, "hangup", json!({ "callId": call }), "e1");
    let frames = w.frames(1);
    let outcome = |id: &str| {
        frames
            .iter()
            .find(|f| f["id"] == id)
            .map(|f| f["type"].clone())
    };
    assert_eq!(outcome("u1"), Some(json!("error")), "{frames:#?}");
    assert_eq!(outcome("e1"), Some(json!("callEnded")));
    assert_eq!(w.cancels(), [(again.call_id.clone(), again.cseq)]);
    let bye = w.request();
    assert_eq!((bye.method, &bye.call_id), ("BYE", &first.call_id));
    w.far_reply(&bye, 200, "t1", "", "");
    w.far_reply(&again, 487, "t2", "", "");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn between_browsers_the_dtls_role_stays_with_the_certificate() {
    let browser = "Content-Type: application/sdp\r\nSupported: trickle-ice\r\n";
    let (mut w, call, _) = established(browser);
    let restart = OFFER.replace("a=ice-ufrag:", "a=ice-ufrag:new");
    w.send(1, "update", json!({ "callId": call, "sdp": restart }), "u0");
    // the far side has answered as client
    let again = w.request();
    assert!(again.body.contains("a=setup:passive\r\n"), "{}", again.body);
    w.far_reply(&again, 200, "t1", browser, ANSWER);
    w.frames(1);
    let other = update(&mut w, &call);
    assert!(
        other.body.contains("a=setup:actpass\r\n"),
        "a new association"
    );
}

#[test]
fn a_recording_ends_with_the_dialog_that_it_was_made_in() {
    let (mut w, call, _) = established(TAKES_REPLACES);
    let start = json!({ "callId": call, "action": "start" });
    w.send(1, "recording", start, "r1");
    let info = w.request();
    w.far_reply(&info, 200, "t1", "", "");
    assert_eq!(w.frame(1)["payload"]["state"], "recording");
    let again = update(&mut w, &call);
    w.far_reply(&again, 200, "t2", SDP, ANSWER);
    let frames = w.frames(1);
    let told = frames.iter().find(|f| f["type"] == "recordingUpdated");
    assert_eq!(
        told.map(|f| &f["payload"]["state"]),
        Some(&json!("stopped")),
        "{frames:#?}"
    );
    // its record still says that there was one
    w.send(1, "hangup", json!({ "callId": call }), "e1");
    let recorded = w.out.iter().find_map(|output| match output {
        Output::CallEnded(record) => Some(record.recorded),
        _ => None,
    });
    assert_eq!(recorded, Some(true));
}

/// A request in the dialog that the far side has begun with the answer to `invite`.
fn from_there(method: &str, cseq: u32, invite: &SipRequest, tag: &str) -> String {
    in_dialog(method, cseq, &invite.from_tag, "")
        .replace("in-call-1", &invite.call_id)
        .replace("tag=far1", &format!("tag={tag}"))
}

#[test]
fn what_follows_the_200_may_be_here_before_it() {
    // Asterisk tells the new identity at once
    let (mut w, call, _) = established(TAKES_REPLACES);
    let again = update(&mut w, &call);
    w.far_request(&from_there("UPDATE", 7, &again, "t2"));
    assert_eq!(w.reply().code, 200);
    w.far_reply(&again, 200, "t2", TAKES_REPLACES, ANSWER);
    assert_eq!(only(w.frames(1))["id"], "u1");
    w.far_request(&from_there("UPDATE", 8, &again, "t2"));
    assert_eq!(w.reply().code, 200);
    // (another tag is none of ours from here on)
    w.far_request(&from_there("UPDATE", 9, &again, "t3"));
    assert_eq!(w.reply().code, 481);
}

#[test]
fn an_offer_before_the_200_waits_and_a_bye_ends() {
    for hidden in [false, true] {
        let mut w = World::new(config());
        w.register(1);
        let (call, mut invite) = w.call(1, "c1");
        if hidden {
            w.far_reply(&invite, 200, "t1", TAKES_REPLACES, ANSWER);
            invite = update(&mut w, &call);
        }
        w.frames(1);
        let offer = in_dialog("UPDATE", 7, &invite.from_tag, ANSWER)
            .replace("in-call-1", &invite.call_id)
            .replace("tag=far1", "tag=t2");
        w.far_request(&offer);
        assert_eq!(w.reply().code, 491);
        w.far_request(&from_there("BYE", 8, &invite, "t2"));
        assert_eq!(w.reply().code, 200);
        if hidden {
            // back to the dialog that there is
            let within = w.request();
            assert_eq!((within.method, within.to_tag.as_str()), ("INVITE", "t1"));
            w.far_reply(&within, 200, "t1", SDP, ANSWER);
            assert_eq!(only(w.frames(1))["id"], "u1");
        } else {
            assert_eq!(w.types(1), ["error", "callEnded"]);
            assert!(w.agent.calls.is_empty());
        }
        // the 200 comes after all: it is acknowledged, and ended
        w.far_reply(&invite, 200, "t2", SDP, ANSWER);
        let both = w.requests();
        let both: Vec<_> = both.iter().map(|r| (r.method, r.to_tag.as_str())).collect();
        assert_eq!(both, [("ACK", "t2"), ("BYE", "t2")]);
        assert!(w.frames(1).is_empty());
    }
}
