//! Registration through the engine, in both modes.

mod common;

use common::{config, World};
use rtc_json_engine::{Input, Output, OverLimit, RegisterMode};
use rtc_json_sip::{ha1, Algorithm};
use serde_json::json;

fn local() -> World {
    let mut config = config();
    config.register_mode = RegisterMode::Local;
    config.realm = "rtc.local".into();
    World::new(config)
}

#[test]
fn upstream_with_a_challenge() {
    let mut w = World::new(config());
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    let first = w.request();
    assert_eq!(first.method, "REGISTER");
    assert_eq!(first.uri, "sip:pbx.example");
    assert!(!first.headers.contains("Authorization"));
    assert!(w.frames(1).is_empty());
    let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"abc\", qop=\"auth\", algorithm=SHA-256\r\n\
                     WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"abc\", qop=\"auth\", algorithm=MD5\r\n";
    w.far_reply(&first, 401, "x", challenge, "");
    let second = w.request();
    assert_eq!(second.cseq, first.cseq + 1);
    assert_eq!(second.call_id, first.call_id);
    assert!(
        second.headers.contains("algorithm=SHA-256"),
        "the stronger: {}",
        second.headers
    );
    assert!(!second.headers.contains("secret"));
    assert!(
        w.agent.pending[0].password.is_none(),
        "dropped with the first challenge"
    );
    w.far_reply(&second, 200, "x", "Expires: 120\r\n", "");
    let done = w.frame(1);
    assert_eq!(done["type"], "registered");
    assert_eq!(done["id"], "r1");
    assert_eq!(done["payload"]["expires"], 120);
    assert_eq!(done["payload"]["calls"], json!([]));
    let record = w.agent.encode(Vec::new()).expect("encodes");
    assert!(
        !record.windows(6).any(|b| b == b"secret"),
        "no clear password in the record"
    );
}

#[test]
fn a_wrong_password_is_refused_with_403() {
    let mut w = World::new(config());
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "wrong" }),
        "r1",
    );
    let first = w.request();
    let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"abc\", algorithm=MD5\r\n";
    w.far_reply(&first, 401, "x", challenge, "");
    let second = w.request();
    w.far_reply(&second, 401, "x", &challenge.replace("abc", "def"), "");
    let failed = w.frame(1);
    assert_eq!(failed["type"], "registrationFailed");
    assert_eq!(failed["payload"]["code"], 403);
    assert!(w.agent.is_empty());
}

#[test]
fn the_registrar_does_not_answer() {
    let mut w = World::new(config());
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "x" }),
        "r1",
    );
    let first = w.request();
    w.no_reply(&first);
    assert_eq!(w.frame(1)["payload"]["code"], 408);
    assert!(w.agent.is_empty());
}

#[test]
fn two_browsers_register_one_after_the_other() {
    let mut w = World::new(config());
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "password": "wrong" }),
        "r2",
    );
    let first = w.request();
    let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"abc\", algorithm=MD5\r\n";
    w.far_reply(&first, 401, "x", challenge, "");
    let second = w.request();
    w.far_reply(&second, 200, "x", "Expires: 120\r\n", "");
    assert_eq!(w.frame(1)["type"], "registered");
    let third = w.request();
    assert!(
        third.headers.contains("Authorization"),
        "the nonce is known"
    );
    w.far_reply(&third, 401, "x", challenge, "");
    let fourth = w.request();
    w.far_reply(&fourth, 401, "x", challenge, "");
    assert_eq!(w.frame(2)["payload"]["code"], 403);
    assert_eq!(w.agent.sessions.len(), 1, "the good session is untouched");
}

#[test]
fn the_binding_is_refreshed_and_removed() {
    let mut w = World::new(config());
    w.register(1);
    for _ in 0..10 {
        w.now += 30_000;
        w.send(1, "ping", json!({}), "p");
    }
    w.frames(1);
    w.step(Input::Tick);
    let refresh = w.request();
    assert_eq!(refresh.method, "REGISTER");
    assert!(refresh.headers.contains("expires=300"));
    assert!(refresh.headers.contains("Authorization"));
    w.far_reply(&refresh, 200, "x", "Expires: 300\r\n", "");
    w.send(1, "unregister", json!({}), "u1");
    let gone = w.frame(1);
    assert_eq!(gone["type"], "unregistered");
    assert_eq!(gone["payload"]["reason"], "requested");
    let remove = w.request();
    assert!(remove.headers.contains("expires=0"));
    w.far_reply(&remove, 200, "x", "", "");
    assert!(w.agent.is_empty());
}

#[test]
fn silence_expires_the_session() {
    let mut w = World::new(config());
    w.register(1);
    w.wait(299_000);
    w.requests();
    assert_eq!(w.agent.sessions.len(), 1);
    w.wait(1_001);
    let gone = w.frame(1);
    assert_eq!(gone["payload"]["reason"], "expired");
    assert!(w.agent.sessions.is_empty());
}

#[test]
fn local_mode_asks_the_table() {
    let mut w = local();
    let good = ha1(Algorithm::Md5, "5001", "rtc.local", "secret").to_string();
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    assert!(matches!(w.out.pop(), Some(Output::LookUp { conn: 1 })));
    w.step(Input::Ha1 {
        conn: 1,
        found: Ok(Some(good.clone())),
    });
    assert_eq!(w.frame(1)["type"], "registered");
    assert!(w.requests().is_empty(), "no registrar in this mode");

    for found in [Ok(Some(good)), Ok(None)] {
        w.send(
            2,
            "register",
            json!({ "dn": "5001", "password": "wrong" }),
            "r2",
        );
        w.step(Input::Ha1 { conn: 2, found });
        w.wait(0);
        let failed = w.frame(2);
        assert_eq!(failed["type"], "registrationFailed");
        assert_eq!(
            failed["payload"],
            json!({ "reason": "Forbidden", "code": 403 })
        );
    }
}

#[test]
fn beyond_the_limit_the_oldest_makes_room() {
    let mut w = World::new(config());
    w.register(1);
    w.register(2);
    w.register(3);
    let replaced = w.frame(1);
    assert_eq!(replaced["payload"]["reason"], "replaced");
    assert!(w
        .out
        .iter()
        .any(|o| matches!(o, Output::Close { conn: 1, .. })));
    assert_eq!(w.agent.sessions.len(), 2);
}

#[test]
fn or_the_new_one_is_refused() {
    let mut config = config();
    config.over_limit = OverLimit::Refuse;
    let mut w = World::new(config);
    w.register(1);
    w.register(2);
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    let request = w.request();
    w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.frame(3)["payload"]["code"], 403);
    assert_eq!(w.agent.sessions.len(), 2);
}

#[test]
fn nothing_but_register_before_registered() {
    let mut w = World::new(config());
    w.send(1, "hangup", json!({ "callId": "x" }), "h1");
    let error = w.frame(1);
    assert_eq!(error["payload"]["code"], 401);
    w.send(1, "ping", json!({}), "p1");
    assert_eq!(w.frame(1)["type"], "pong");
}

#[test]
fn a_wrong_token_resumes_nothing() {
    let mut w = World::new(config());
    w.register(1);
    w.step(Input::Closed { conn: 1 });
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "resume": "AAAAAAAAAAAAAAAAAAAAAA" }),
        "r2",
    );
    let failed = w.frame(2);
    assert_eq!(failed["type"], "registrationFailed");
    assert_eq!(failed["payload"]["code"], 401);
}

#[test]
fn a_browser_that_leaves_while_it_registers_leaves_no_binding() {
    let mut w = World::new(config());
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    let first = w.request();
    let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"abc\", algorithm=MD5\r\n";
    w.far_reply(&first, 401, "x", challenge, "");
    let second = w.request();
    w.step(Input::Closed { conn: 1 });
    assert!(!w.agent.is_empty(), "the reply is still to come");
    w.far_reply(&second, 200, "x", "Expires: 120\r\n", "");
    let removal = w.request();
    assert!(removal.headers.contains("expires=0") && removal.headers.contains("Authorization"));
    w.far_reply(&removal, 200, "x", "", "");
    assert!(w.agent.is_empty());
    assert!(w.frames(1).is_empty() && w.frames(-1).is_empty());
}

#[derive(Debug)]
struct Turn;

impl rtc_json_engine::IceSource for Turn {
    fn servers(&self, dn: &str, unix_now: u64) -> Vec<rtc_json_protocol::IceServer> {
        vec![rtc_json_protocol::IceServer {
            urls: vec!["turn:t".to_owned()],
            username: Some(format!("{unix_now}:{dn}")),
            credential: None,
        }]
    }
}

#[test]
fn turn_credentials_are_renewed_for_browsers_that_are_there() {
    let mut w = local();
    w.config.ice = Some(rtc_json_engine::Ice {
        source: std::sync::Arc::new(Turn),
        renew: 60_000,
    });
    let credentials = |frame: &serde_json::Value| {
        frame["payload"]["iceServers"][0]["username"]
            .as_str()
            .map(str::to_owned)
    };
    let now = |w: &World| Some(format!("{}:5001", 1_700_000_000_000 + w.now));
    w.send(
        1,
        "register",
        json!({ "dn": "5001", "password": "secret" }),
        "r1",
    );
    w.step(Input::Ha1 {
        conn: 1,
        found: Ok(Some(ha1(Algorithm::Md5, "5001", "rtc.local", "secret"))),
    });
    let first = w.frame(1);
    assert_eq!(credentials(&first), now(&w));
    w.wait(59_999);
    assert!(w.frames(1).is_empty(), "not too early");
    assert_eq!(w.agent.due(30_000), w.now + 1);
    w.wait(1);
    let second = w.frame(1);
    assert_eq!(
        (&second["type"], &second["id"]),
        (&json!("registered"), &json!("evt-1"))
    );
    assert_eq!(credentials(&second), now(&w));
    assert_eq!(second["payload"]["session"], first["payload"]["session"]);
    // nobody is told while the browser is away, and it is as soon as it is back
    w.step(Input::Closed { conn: 1 });
    w.wait(29_000);
    w.send(
        2,
        "register",
        json!({ "dn": "5001", "resume": first["payload"]["session"] }),
        "r2",
    );
    assert_eq!(credentials(&w.frame(2)), now(&w));
    w.wait(60_000);
    assert_eq!(credentials(&w.frame(2)), now(&w));
}
