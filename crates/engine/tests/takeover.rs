//! An agent that goes to another node: where its REGISTER and its calls go on, and what the last owner leaves alone.

mod common;

use std::collections::HashSet;

use common::{config, invite, World, ANSWER};
use rtc_json_engine::{Input, Output, SipRequest};
use serde_json::json;

/// A registered browser in an answered call; its session's token, the call and its INVITE.
fn in_call(allow: &str) -> (World, String, String, SipRequest) {
    let mut w = World::new(config());
    let registered = w.register(1);
    let token = registered["payload"]["session"]
        .as_str()
        .expect("a token")
        .to_owned();
    let (call, invite) = w.call(1, "c1");
    let headers = format!("Content-Type: application/sdp\r\n{allow}");
    w.far_reply(&invite, 200, "t1", &headers, ANSWER);
    assert_eq!(w.types(1), ["callAccepted"]);
    w.requests();
    (w, token, call, invite)
}

/// The same agent as another node has it.
fn taken(w: &mut World) {
    w.config.contact = "198.51.100.99:5060".to_owned();
    w.agent.shift(5_000_000);
    w.now += 5_000_000;
    let former = "192.0.2.10:5060".to_owned();
    w.step(Input::TakenOver { former });
}

/// Another node has the agent, with these calls.
fn yielded(theirs: HashSet<String>) -> Input<'static> {
    let to = "198.51.100.99:5060".to_owned();
    Input::Yielded { to, theirs }
}

#[test]
fn registrar_and_far_side_are_told_the_new_contact() {
    for (allow, method) in [("Allow: INVITE, UPDATE\r\n", "UPDATE"), ("", "INVITE")] {
        let (mut w, token, call, invite) = in_call(allow);
        taken(&mut w);
        let requests = w.requests();
        let register = requests.iter().find(|r| r.method == "REGISTER");
        let register = register.expect("a REGISTER");
        let own = "@198.51.100.99:5060>;expires=300\r\n";
        assert!(register.headers.contains(own), "{}", register.headers);
        let old = "@192.0.2.10:5060>;expires=0\r\n";
        assert!(register.headers.contains(old), "{}", register.headers);
        let refresh = requests.iter().find(|r| r.call_id == invite.call_id);
        let refresh = refresh.expect("a target refresh");
        assert_eq!(refresh.method, method);
        assert!(refresh.headers.contains("@198.51.100.99:5060>"));
        // what the last owner may still send has a lower number than anything of ours
        assert!(refresh.cseq > invite.cseq + 500);
        assert_eq!(requests.len(), 2);

        let payload = json!({ "dn": w.agent.dn.clone(), "resume": token });
        w.send(7, "register", payload, "r7");
        let back = w.frame(7);
        assert_eq!(back["type"], "registered");
        assert_eq!(back["payload"]["calls"][0]["callId"], call.as_str());
        assert_eq!(
            back["payload"]["calls"][0]["since"], 0,
            "not the other's clock"
        );
    }
}

#[test]
fn the_former_contact_is_taken_back_once() {
    let (mut w, ..) = in_call("");
    taken(&mut w);
    let requests = w.requests();
    let register = requests.iter().find(|r| r.method == "REGISTER");
    w.far_reply(register.expect("one"), 200, "r", "", "");
    // (the browser is back, or its session would end)
    let token = w.agent.sessions[0].token.clone();
    let payload = json!({ "dn": w.agent.dn.clone(), "resume": token });
    w.send(7, "register", payload, "r7");
    w.wait(245_000);
    let requests = w.requests();
    let again = requests.iter().find(|r| r.method == "REGISTER");
    assert!(!again.expect("a refresh").headers.contains("expires=0"));
}

#[test]
fn the_last_owner_ends_only_what_the_new_one_does_not_know() {
    let (mut w, _, _, invite) = in_call("");
    let theirs = HashSet::from([invite.call_id.clone()]);
    w.step(yielded(theirs));
    assert!(w.requests().is_empty(), "the call goes on elsewhere");
    assert_eq!(w.types(1), ["unregistered"]);
    let closed = |o: &Output| matches!(o, Output::Close { conn: 1, .. });
    assert!(w.out.iter().any(closed));

    let (mut w, ..) = in_call("");
    w.step(yielded(HashSet::new()));
    assert_eq!(w.request().method, "BYE", "nobody else would end it");
}

#[test]
fn a_far_side_that_knows_higher_numbers_is_told_again_where_the_browser_is() {
    let (mut w, token, _, invite) = in_call("Allow: INVITE, UPDATE\r\n");
    taken(&mut w);
    let find = |w: &mut World| {
        let refresh = |r: &SipRequest| r.method == "UPDATE";
        w.requests().into_iter().find(refresh)
    };
    let first = find(&mut w).expect("a target refresh");
    // the browser is not here (yet): another node may be right
    w.far_reply(&first, 500, "t1", "", "");
    assert!(find(&mut w).is_none());

    let payload = json!({ "dn": w.agent.dn.clone(), "resume": token });
    w.send(7, "register", payload, "r7");
    w.wait(1_000);
    let second = find(&mut w).expect("a target refresh");
    assert!(second.cseq < first.cseq + 500);
    w.far_reply(&second, 500, "t1", "", "");
    let third = find(&mut w).expect("the same, higher");
    assert_eq!(third.call_id, invite.call_id);
    assert!(third.cseq > second.cseq + 500);
    w.far_reply(&third, 200, "t1", "", "");
    assert!(find(&mut w).is_none());
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn an_orphan_is_ended_everywhere() {
    let (mut w, _, _, invite) = in_call("Allow: INVITE, UPDATE\r\n");
    w.config.contact = "198.51.100.99:5060".to_owned();
    let former = "192.0.2.10:5060".to_owned();
    w.step(Input::Orphaned { former });
    let requests = w.requests();
    let bye = requests.iter().find(|r| r.method == "BYE").expect("a BYE");
    assert_eq!(bye.call_id, invite.call_id);
    assert!(bye.cseq > invite.cseq + 500);
    assert!(requests.iter().all(|r| r.method != "UPDATE"));
    w.far_reply(bye, 200, "t1", "", "");
    if let Some(register) = requests.iter().find(|r| r.method == "REGISTER") {
        w.far_reply(register, 200, "r", "", "");
    }
    let requests = w.requests();
    for register in requests.iter().filter(|r| r.method == "REGISTER") {
        w.far_reply(register, 200, "r", "", "");
    }
    assert!(w.agent.is_empty(), "nothing is left of it");
    assert_eq!(w.agent.brought, [invite.call_id]);
}

#[test]
fn a_bye_that_the_last_owner_has_sent_is_his_until_it_is_clear_that_he_is_gone() {
    let (mut w, _, call, _) = in_call("");
    w.send(
        1,
        "hangup",
        json!({ "callId": call, "reason": "user_hangup" }),
        "h1",
    );
    let bye = w.request();
    assert_eq!(bye.method, "BYE");
    let byes = |w: &mut World| {
        let requests = w.requests();
        requests
            .into_iter()
            .filter(|r| r.method == "BYE")
            .collect::<Vec<_>>()
    };

    // he lives, and tells that it was answered
    taken(&mut w);
    let key = w.agent.calls[0].leg.key.clone();
    assert!(byes(&mut w).is_empty());
    w.step(Input::Ended { call: key });
    assert!(w.agent.calls.is_empty());
    w.wait(60_000);
    assert!(byes(&mut w).is_empty());

    // nothing more is heard of it
    let (mut w, _, call, _) = in_call("");
    w.send(
        1,
        "hangup",
        json!({ "callId": call, "reason": "user_hangup" }),
        "h1",
    );
    let first = w.request();
    taken(&mut w);
    assert!(byes(&mut w).is_empty());
    w.wait(10_000);
    let again = byes(&mut w);
    assert_eq!(again.len(), 1);
    assert!(again[0].cseq > first.cseq + 500);
    w.far_reply(&again[0], 481, "t1", "", "");
    assert!(w.agent.calls.is_empty());
}

#[test]
fn an_established_call_is_not_ended_by_a_word_of_the_last_owner() {
    let (mut w, ..) = in_call("");
    taken(&mut w);
    let key = w.agent.calls[0].leg.key.clone();
    w.step(Input::Ended { call: key });
    assert_eq!(w.agent.calls.len(), 1);
}

#[test]
fn what_rings_goes_to_the_new_owner() {
    for known in [false, true] {
        let mut w = World::new(config());
        w.register(1);
        let offer = ANSWER.replace("a=setup:active", "a=setup:actpass");
        let tx = w.far_request(&invite(1, "", &offer));
        w.frames(1);
        let call_id = w.agent.calls[0].leg.dialog.call_id.clone();
        w.out.clear();
        let theirs = known.then_some(call_id).into_iter().collect();
        w.step(yielded(theirs));
        let passed = |o: &Output| matches!(o, Output::PassOn { tx: it, node } if *it == tx && node == "198.51.100.99:5060");
        assert_eq!(w.out.iter().filter(|o| passed(o)).count(), 1);
        let said = |o: &Output| matches!(o, Output::Reply(_) | Output::CallEnded(_));
        assert!(
            !w.out.iter().any(said),
            "the caller hears what comes from there"
        );
    }

    // nowhere to go
    let mut w = World::new(config());
    w.register(1);
    let offer = ANSWER.replace("a=setup:active", "a=setup:actpass");
    w.far_request(&invite(1, "", &offer));
    w.out.clear();
    let theirs = HashSet::new();
    w.step(Input::Yielded {
        to: String::new(),
        theirs,
    });
    assert!(w
        .out
        .iter()
        .any(|o| matches!(o, Output::Reply(reply) if reply.code == 480)));
}
