//! Screen pop: what a browser learns of who calls, and what it may say of itself.

mod common;

use common::{config, World, ANSWER, OFFER};
use rtc_json_engine::HeaderList;
use serde_json::json;

const FIELDS: &str =
    "P-Asserted-Identity: \"Real Name\" <sip:+4912@net>\r\nX-Genesys-CallUUID: 7a\r\n\
     User-to-User: 00ff;encoding=hex\r\nX-Secret: no\r\nDiversion: <sip:+4913@net>;reason=no-answer\r\n";

fn incoming(w: &mut World, fields: &str) -> serde_json::Value {
    let invite =
        common::invite(1, "", OFFER).replace("Max-Forwards:", &format!("{fields}Max-Forwards:"));
    w.far_request(&invite);
    let frame = w.frames(1).remove(0);
    assert_eq!(frame["type"], "incomingCall");
    frame["payload"].clone()
}

#[test]
fn a_call_from_a_trusted_peer() {
    let mut w = World::new(config());
    w.register(1);
    let p = incoming(&mut w, FIELDS);
    assert_eq!(
        json!([p["from"], p["displayName"], p["diversion"]]),
        json!(["+4912", "Real Name", "+4913"])
    );
    assert_eq!(
        p["headers"],
        json!({
            "X-Genesys-CallUUID": "7a", "User-to-User": "00ff;encoding=hex",
            "P-Asserted-Identity": "\"Real Name\" <sip:+4912@net>", "Diversion": "<sip:+4913@net>;reason=no-answer",
        })
    );
    let call = &w.agent.calls[0];
    assert_eq!(
        (call.peer.as_str(), call.peer_name.as_deref()),
        ("+4912", Some("Real Name"))
    );
    assert!(
        call.leg.dialog.remote_uri.contains("1003"),
        "the dialog is with who wrote From"
    );
}

#[test]
fn a_call_from_a_stranger_or_somebody_private() {
    let mut config = config();
    config.trusted_peers.clear();
    let mut w = World::new(config);
    w.register(1);
    let p = incoming(&mut w, FIELDS);
    assert_eq!(json!([p["from"], p["displayName"]]), json!(["1003", "Bob"]));
    assert_eq!(p["headers"]["P-Asserted-Identity"], json!(null));

    let mut w = World::new(common::config());
    w.register(1);
    let p = incoming(&mut w, &format!("{FIELDS}Privacy: id;critical\r\n"));
    assert_eq!(
        json!([p["from"], p["displayName"], p["diversion"]]),
        json!(["anonymous", "", null])
    );
    assert_eq!(
        p["headers"],
        json!({ "X-Genesys-CallUUID": "7a", "User-to-User": "00ff;encoding=hex" })
    );
    let text = p.to_string();
    for identity in ["4912", "4913", "1003", "Bob", "Real"] {
        assert!(
            !text.replace(OFFER, "").contains(&format!("\"{identity}")),
            "{identity}"
        );
    }
}

#[test]
fn what_a_browser_adds_to_its_call() {
    let mut config = config();
    config.headers_out = HeaderList::parse("X-Genesys-*,User-to-User,Privacy,P-Asserted-Identity");
    let mut w = World::new(config);
    w.register(1);
    let headers =
        json!({ "X-Genesys-Case": "47", "User-to-User": "00ff;encoding=hex", "Privacy": "id" });
    w.send(
        1,
        "call",
        json!({ "to": "600", "sdp": OFFER, "headers": headers }),
        "c1",
    );
    w.frames(1);
    let invite = w.request();
    for line in [
        "X-Genesys-Case: 47\r\n",
        "User-to-User: 00ff;encoding=hex\r\n",
        "Privacy: id\r\n",
        "P-Asserted-Identity: <sip:5001@pbx.example>\r\n",
    ] {
        assert_eq!(invite.headers.matches(line).count(), 1, "{line}");
    }
    // and again after a challenge
    let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"x\", algorithm=MD5\r\n";
    w.far_reply(&invite, 401, "x", challenge, "");
    let again = w.request();
    assert!(
        again.headers.contains("X-Genesys-Case: 47\r\n")
            && again.headers.contains("P-Asserted-Identity: <sip:5001@")
    );
    w.far_reply(
        &again,
        200,
        "far",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );

    for (name, value) in [
        ("P-Asserted-Identity", "<sip:5002@pbx.example>"),
        ("X-Other", "1"),
        ("v", "SIP/2.0/UDP x"),
    ] {
        let payload =
            json!({ "to": "600", "sdp": OFFER, "headers": { "X-Genesys-Case": "1", name: value } });
        w.frames(1);
        w.send(1, "call", payload, &format!("c-{name}"));
        let error = w.frame(1);
        assert_eq!(
            json!([error["type"], error["payload"]["code"]]),
            json!(["error", 403])
        );
        assert!(
            error["payload"]["details"]
                .as_str()
                .is_some_and(|d| d.contains(name)),
            "{error}"
        );
        assert!(w.requests().is_empty());
    }
    assert_eq!(w.agent.calls.len(), 1);
}
