//! What the record of a call says, whatever ended it: why, with which status, and to whom it went.

mod common;

use std::collections::HashSet;

use common::{config, in_dialog, invite, World, ANSWER, OFFER};
use rtc_json_engine::{
    CallRecord, Input, Output, PastTransfer, SipRequest, TransferKind, TransferResult,
};
use serde_json::json;

const SDP: &str = "Content-Type: application/sdp\r\n";

fn registered() -> World {
    let mut world = World::new(config());
    world.register(1);
    world
}

/// The far side's offer.
fn offer() -> String {
    ANSWER.replace("a=setup:active", "a=setup:actpass")
}

/// What the browser answers to it.
fn browser_answer() -> String {
    OFFER.replace("a=setup:actpass", "a=setup:active")
}

/// A call of 1003 that rings: its id and our tag.
fn rings(w: &mut World, text: &str) -> (String, String) {
    w.far_request(text);
    let tag = w.reply().to_tag;
    let frame = w.frame(1);
    let call = frame["payload"]["callId"].as_str().expect("a callId");
    (call.to_owned(), tag)
}

/// The same, answered and acknowledged.
fn taken(w: &mut World) -> (String, String) {
    let (call, tag) = rings(w, &invite(1, "", &offer()));
    let payload = json!({ "callId": call, "sdp": browser_answer() });
    w.send(1, "answer", payload, "a1");
    w.far_request(&in_dialog("ACK", 1, &tag, ""));
    w.frames(1);
    w.replies();
    (call, tag)
}

/// A call to 600 that was answered: its id and the INVITE.
fn placed(w: &mut World, id: &str) -> (String, SipRequest) {
    let (call, sent) = w.call(1, id);
    w.far_reply(&sent, 200, "t1", SDP, ANSWER);
    w.frames(1);
    w.requests();
    (call, sent)
}

/// All records since the last look.
fn records(w: &mut World) -> Vec<CallRecord> {
    let mut found = Vec::new();
    w.out.retain(|output| match output {
        Output::CallEnded(record) => {
            found.push((**record).clone());
            false
        }
        _ => true,
    });
    found
}

fn record(w: &mut World) -> CallRecord {
    let mut found = records(w);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// Kind, number, result and status of each transfer.
fn transfers(record: &CallRecord) -> Vec<(&'static str, &str, &'static str, u16)> {
    let row = |t: &PastTransfer| (t.kind.as_str(), t.result.as_str(), t.code);
    let rows = record.transfers.iter();
    rows.map(|t| (row(t).0, t.to.as_str(), row(t).1, row(t).2))
        .collect()
}

/// A NOTIFY of the caller about our REFER.
fn notify(cseq: u32, tag: &str, status: &str) -> String {
    let lines = "Event: refer\r\nSubscription-State: terminated\r\nContent-Type";
    in_dialog("NOTIFY", cseq, tag, &format!("SIP/2.0 {status}\r\n"))
        .replace("application/sdp", "message/sipfrag;version=2.0")
        .replace("Content-Type", lines)
}

/// One way in which a call ends, with the reason and the status that its record must have.
type Way = (&'static str, u16, fn(&mut World));

#[test]
fn one_record_for_every_way_in_which_a_call_can_end() {
    let ways: &[Way] = &[
        ("user_busy", 486, |w| {
            let (_, sent) = w.call(1, "c1");
            w.far_reply(&sent, 486, "t1", "", "");
        }),
        ("no_answer", 408, |w| {
            let (_, sent) = w.call(1, "c1");
            w.far_reply(&sent, 180, "t1", "", "");
            w.no_reply(&sent);
        }),
        ("timeout", 408, |w| {
            let (_, sent) = w.call(1, "c1");
            w.far_reply(&sent, 100, "", "", "");
            w.no_reply(&sent);
        }),
        ("network_error", 408, |w| {
            let (_, sent) = w.call(1, "c1");
            w.no_reply(&sent);
        }),
        ("network_error", 503, |w| {
            let (_, sent) = w.call(1, "c1");
            let handle = sent.handle;
            w.step(Input::NotSent { handle });
        }),
        ("not_acceptable", 488, |w| {
            let (_, sent) = w.call(1, "c1");
            w.far_reply(&sent, 200, "t1", SDP, "v=0\r\n");
        }),
        ("cancelled", 487, |w| {
            let (call, _) = w.call(1, "c1");
            w.send(1, "hangup", json!({ "callId": call }), "h1");
        }),
        ("normal_clearing", 0, |w| {
            let (call, _) = placed(w, "c1");
            w.send(1, "hangup", json!({ "callId": call }), "h1");
        }),
        ("normal_clearing", 0, |w| {
            let (_, tag) = taken(w);
            w.far_request(&in_dialog("BYE", 2, &tag, ""));
        }),
        ("cancelled", 487, |w| {
            rings(w, &invite(1, "", &offer()));
            w.far_request(&in_dialog("CANCEL", 1, "", ""));
        }),
        ("answered_elsewhere", 487, |w| {
            rings(w, &invite(1, "", &offer()));
            let why = "Reason: SIP;cause=200\r\nMax-Forwards";
            w.far_request(&in_dialog("CANCEL", 1, "", "").replacen("Max-Forwards", why, 1));
        }),
        ("user_busy", 486, |w| {
            let (call, _) = rings(w, &invite(1, "", &offer()));
            let payload = json!({ "callId": call, "reason": "busy" });
            w.send(1, "hangup", payload, "h1");
        }),
        ("call_rejected", 603, |w| {
            let (call, _) = rings(w, &invite(1, "", &offer()));
            let payload = json!({ "callId": call, "reason": "declined" });
            w.send(1, "hangup", payload, "h1");
        }),
        ("no_answer", 480, |w| {
            rings(w, &invite(1, "", &offer()));
            w.wait(90_001);
        }),
        ("timeout", 504, |w| {
            let text = invite(1, "", &offer());
            let text = text.replacen("Max-Forwards", "Require: 100rel\r\nMax-Forwards", 1);
            rings(w, &text);
            (0..80).for_each(|_| w.wait(500));
        }),
        // the 200 is never acknowledged
        ("timeout", 408, |w| {
            let (call, _) = rings(w, &invite(1, "", &offer()));
            let payload = json!({ "callId": call, "sdp": browser_answer() });
            w.send(1, "answer", payload, "a1");
            w.wait(32_001);
        }),
        // nor the one to a later INVITE
        ("timeout", 408, |w| {
            let (_, tag) = taken(w);
            let held = offer().replace("a=sendrecv", "a=sendonly");
            w.far_request(&invite(2, &tag, &held.replace(" 4 IN IP4 ", " 5 IN IP4 ")));
            w.wait(32_001);
        }),
        // nobody answers the re-INVITE
        ("network_error", 408, |w| {
            let (call, _) = placed(w, "c1");
            w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
            let hold = w.request();
            w.no_reply(&hold);
        }),
        // or with what nobody can read
        ("media_error", 488, |w| {
            let (call, _) = placed(w, "c1");
            w.send(1, "hold", json!({ "callId": call, "hold": true }), "h1");
            let hold = w.request();
            w.far_reply(&hold, 200, "t1", SDP, "v=0\r\n");
        }),
        // the dialog is not there any more
        ("network_error", 481, |w| {
            let (call, _) = placed(w, "c1");
            w.send(1, "dtmf", json!({ "callId": call, "digit": "1" }), "d1");
            let digit = w.request();
            w.far_reply(&digit, 481, "t1", "", "");
        }),
        // the far side does not refresh
        ("session_expired", 408, |w| {
            let (_, sent) = w.call(1, "c1");
            let timer = "Session-Expires: 90;refresher=uas\r\nRequire: timer\r\n";
            w.far_reply(&sent, 200, "t1", &[SDP, timer].concat(), ANSWER);
            w.wait(90_000);
        }),
        // the browser does not come back
        ("session_expired", 0, |w| {
            placed(w, "c1");
            w.step(Input::Closed { conn: 1 });
            w.wait(30_001);
        }),
        ("normal_clearing", 0, |w| {
            placed(w, "c1");
            w.send(1, "unregister", json!({}), "u1");
        }),
        ("normal_clearing", 0, |w| {
            let (call, _) = placed(w, "c1");
            w.step(Input::HangUp { call });
        }),
        // the reply found no transaction
        ("cancelled", 487, |w| {
            let tx = w.far_request(&invite(1, "", &offer()));
            w.step(Input::NotReplied { tx });
        }),
        // a restart
        ("service_unavailable", 503, |w| {
            w.call(1, "c1");
            w.step(Input::Restarted);
        }),
        // another node has the agent, and does not know of the call
        ("service_unavailable", 0, |w| {
            placed(w, "c1");
            let theirs = HashSet::new();
            let to = "198.51.100.99:5060".to_owned();
            w.step(Input::Yielded { to, theirs });
        }),
    ];
    for (number, (reason, code, end)) in ways.iter().enumerate() {
        let mut w = registered();
        w.out.clear();
        end(&mut w);
        // whatever is left ends on its own
        let told = record(&mut w);
        assert_eq!(
            (told.reason.as_str(), told.code),
            (*reason, *code),
            "way {number}"
        );
        assert_eq!(told.dn, "5001");
        assert!(told.transfers.is_empty());
        for _ in 0..50 {
            w.wait(10_000);
        }
        assert!(records(&mut w).is_empty(), "way {number}: once");
    }
}

#[test]
fn a_call_that_another_node_has_got_is_not_over() {
    let mut w = registered();
    let (_, sent) = placed(&mut w, "c1");
    let theirs = HashSet::from([sent.call_id]);
    let to = "198.51.100.99:5060".to_owned();
    w.step(Input::Yielded { to, theirs });
    assert!(records(&mut w).is_empty());
}

#[test]
fn the_browser_sends_the_far_side_elsewhere() {
    let mut w = registered();
    let (call, tag) = taken(&mut w);
    let transfer = |w: &mut World, to: &str, id: &str| {
        w.send(1, "transfer", json!({ "callId": call, "to": to }), id);
        w.request()
    };
    // refused, failed, not answered, and at last
    let refer = transfer(&mut w, "1004", "t1");
    w.far_reply(&refer, 603, "far1", "", "");
    let refer = transfer(&mut w, "1005", "t2");
    w.far_reply(&refer, 202, "far1", "", "");
    w.far_request(&notify(2, &tag, "486 Busy Here"));
    let refer = transfer(&mut w, "1006", "t3");
    w.no_reply(&refer);
    w.now += 2_000;
    let refer = transfer(&mut w, "1007", "t4");
    w.far_reply(&refer, 202, "far1", "", "");
    w.far_request(&notify(3, &tag, "200 OK"));
    let told = record(&mut w);
    assert_eq!(told.reason.as_str(), "transferred");
    assert_eq!((told.from.as_str(), told.to.as_str()), ("1003", "5001"));
    let wanted = [
        ("blind", "1004", "failed", 603),
        ("blind", "1005", "failed", 486),
        ("blind", "1006", "failed", 408),
        ("blind", "1007", "completed", 0),
    ];
    assert_eq!(transfers(&told), wanted);
    assert_eq!(
        (told.transfers[0].after, told.transfers[3].after),
        (0, 2_000)
    );
    assert_eq!(told.transfers[3].sip_call_id, "in-call-1");
}

#[test]
fn a_call_that_is_over_before_its_transfer() {
    // (was the REFER answered, who ends the call): what is known then
    for (answered, far, result, code, reason) in [
        (false, true, "failed", 487, "normal_clearing"),
        (false, false, "failed", 487, "normal_clearing"),
        (true, true, "completed", 0, "transferred"),
        (true, false, "unknown", 0, "normal_clearing"),
    ] {
        let mut w = registered();
        let (call, tag) = taken(&mut w);
        w.send(1, "transfer", json!({ "callId": call, "to": "1004" }), "t1");
        let refer = w.request();
        if answered {
            w.far_reply(&refer, 202, "far1", "", "");
        }
        if far {
            w.far_request(&in_dialog("BYE", 2, &tag, ""));
        } else {
            w.send(1, "hangup", json!({ "callId": call }), "h1");
        }
        let told = record(&mut w);
        assert_eq!(told.reason.as_str(), reason);
        assert_eq!(transfers(&told), [("blind", "1004", result, code)]);
    }
}

#[test]
fn an_attended_transfer_stands_in_both_records() {
    // the far side ends the other call, or we do
    for bye_first in [false, true] {
        let mut w = registered();
        let (first, tag) = taken(&mut w);
        let (second, sent) = placed(&mut w, "c2");
        let payload = json!({ "callId": second, "withCallId": first });
        w.send(1, "transfer", payload, "t1");
        let refer = w.request();
        w.far_reply(&refer, 202, "t1", "", "");
        if bye_first {
            w.far_request(&in_dialog("BYE", 2, &tag, ""));
        }
        let text = notify(2, &sent.from_tag, "200 OK")
            .replace("in-call-1", &sent.call_id)
            .replace("far1", "t1");
        w.far_request(&text);
        let told = records(&mut w);
        assert_eq!(told.len(), 2);
        for record in &told {
            assert_eq!(record.reason.as_str(), "transferred");
            let to = if record.id == first { "600" } else { "1003" };
            assert_eq!(transfers(record), [("attended", to, "completed", 0)]);
        }
    }
}

/// A REFER of the caller; the browser makes its offer. The INVITE to the new far side.
fn referred(w: &mut World, call: &str, tag: &str, cseq: u32, to: &str) -> SipRequest {
    let target = format!("Refer-To: <sip:{to}@pbx.example>\r\nMax-Forwards");
    let refer = in_dialog("REFER", cseq, tag, "").replacen("Max-Forwards", &target, 1);
    w.far_request(&refer);
    w.send(1, "answer", json!({ "callId": call, "sdp": OFFER }), to);
    let mut requests = w.requests();
    let sent = requests.iter().position(|r| r.method == "INVITE");
    let sent = requests.remove(sent.expect("an INVITE"));
    for request in requests {
        w.far_reply(&request, 200, "far1", "", "");
    }
    sent
}

#[test]
fn the_far_side_sends_the_call_elsewhere() {
    let mut w = registered();
    let (call, tag) = taken(&mut w);
    let sent = referred(&mut w, &call, &tag, 2, "1004");
    w.far_reply(&sent, 486, "n1", "", "");
    let sent = referred(&mut w, &call, &tag, 3, "1005");
    w.far_reply(&sent, 200, "n2", SDP, ANSWER);
    w.now += 5_000;
    let bye = in_dialog("BYE", 1, &sent.from_tag, "")
        .replace("in-call-1", &sent.call_id)
        .replace("far1", "n2");
    w.far_request(&bye);
    let told = record(&mut w);
    assert_eq!(told.reason.as_str(), "normal_clearing");
    // with whom it began, and how long it took in all
    assert_eq!((told.from.as_str(), told.to.as_str()), ("1003", "5001"));
    assert_eq!(
        (told.duration, told.sip_call_id.as_str()),
        (5, sent.call_id.as_str())
    );
    let wanted = [
        ("refer", "1004", "failed", 486),
        ("refer", "1005", "completed", 0),
    ];
    assert_eq!(transfers(&told), wanted);
    assert_eq!(told.transfers[1].sip_call_id, "in-call-1");
}

#[test]
fn the_call_ends_while_it_is_sent_elsewhere() {
    // the far side that sent it has gone, and the new one is busy; or the browser hangs up
    for gone in [true, false] {
        let mut w = registered();
        let (call, tag) = taken(&mut w);
        let sent = referred(&mut w, &call, &tag, 2, "1004");
        let code = if gone {
            w.far_request(&in_dialog("BYE", 3, &tag, ""));
            assert!(records(&mut w).is_empty(), "not over yet");
            w.far_reply(&sent, 486, "n1", "", "");
            486
        } else {
            w.send(1, "hangup", json!({ "callId": call }), "h1");
            487
        };
        let told = record(&mut w);
        assert_eq!(told.reason.as_str(), "normal_clearing");
        assert_eq!(transfers(&told), [("refer", "1004", "failed", code)]);
    }
}

#[test]
fn another_takes_the_far_sides_place() {
    let mut w = registered();
    let (call, tag) = taken(&mut w);
    let replaces = format!("Replaces: in-call-1;to-tag={tag};from-tag=far1\r\nContent-Type:");
    let text = invite(1, "", &offer())
        .replace("Call-ID: in-call-1", "Call-ID: in-call-2")
        .replace("tag=far1\r\nTo", "tag=far2\r\nTo")
        .replace("sip:1003@pbx", "sip:1009@pbx")
        .replace("Content-Type:", &replaces);
    w.far_request(&text);
    let payload = json!({ "callId": call, "sdp": browser_answer() });
    w.send(1, "answer", payload, "a2");
    w.frames(1);
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    let told = record(&mut w);
    assert_eq!((told.from.as_str(), told.to.as_str()), ("1003", "5001"));
    assert_eq!(transfers(&told), [("replaces", "1009", "completed", 0)]);
}

#[test]
fn a_conference_stands_in_the_records_of_its_calls() {
    let mut w = registered();
    let (first, _) = taken(&mut w);
    let (second, _) = placed(&mut w, "c2");
    let payload = json!({ "callIds": [first, second], "room": "r1" });
    w.send(1, "conference", payload, "k1");
    w.send(1, "answer", json!({ "callId": first, "sdp": OFFER }), "a2");
    let room = w.request();
    w.far_reply(&room, 200, "r1", SDP, ANSWER);
    for refer in w.requests() {
        w.far_reply(&refer, 202, "x", "Refer-Sub: false\r\n", "");
    }
    let told = record(&mut w);
    assert_eq!(
        (told.id.as_str(), told.reason.as_str()),
        (second.as_str(), "transferred")
    );
    assert_eq!(transfers(&told), [("conference", "r1", "completed", 0)]);
    w.send(1, "hangup", json!({ "callId": first }), "h1");
    let told = record(&mut w);
    assert_eq!(
        (told.id.as_str(), told.from.as_str()),
        (first.as_str(), "1003")
    );
    assert_eq!(transfers(&told), [("conference", "r1", "completed", 0)]);
}

#[test]
fn of_many_transfers_the_latest_are_kept() {
    let mut w = registered();
    let (call, _) = taken(&mut w);
    for number in 0..20 {
        let to = format!("{}", 2000 + number);
        w.send(1, "transfer", json!({ "callId": call, "to": to }), &to);
        let refer = w.request();
        w.far_reply(&refer, 403, "far1", "", "");
    }
    w.send(1, "hangup", json!({ "callId": call }), "h1");
    let told = record(&mut w);
    let numbers: Vec<&str> = told.transfers.iter().map(|t| t.to.as_str()).collect();
    let kept: Vec<String> = (2012..2020).map(|n| n.to_string()).collect();
    assert_eq!(numbers, kept);
    assert!(told
        .transfers
        .iter()
        .all(|t| t.kind == TransferKind::Blind && t.result == TransferResult::Failed));
}
