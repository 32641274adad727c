//! Browsers that answer challenges themselves, or show a token: the server knows no secret of theirs.

mod common;

use common::{config, World, ANSWER};
use rtc_json_engine::{Input, Output, RegisterMode, SipRequest, TableUnavailable};
use rtc_json_protocol::{parse, Limits};
use rtc_json_sip::{ha1, response, Algorithm};
use serde_json::{json, Value};

const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n-weak\", algorithm=MD5, qop=\"auth\"\r\n\
     WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n-none\", algorithm=SHA-512-256, qop=\"auth\"\r\n\
     WWW-Authenticate: Digest realm=\"a\\\"b\", nonce=\"n-odd\", algorithm=SHA-256, qop=\"auth\"\r\n\
     WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n-1\", algorithm=SHA-256, qop=\"auth,auth-int\", opaque=\"op4que\"\r\n";

fn local() -> World {
    let mut config = config();
    config.register_mode = RegisterMode::Local;
    config.realm = "rtc.local".into();
    World::new(config)
}

/// What a browser makes of a challenge.
fn answer(challenge: &Value, password: &str) -> Value {
    let p = &challenge["payload"];
    let text = |key: &str| p[key].as_str().expect(key).to_owned();
    let algorithm = Algorithm::parse(&text("algorithm")).expect("known");
    let secret = ha1(algorithm, "5001", &text("realm"), password);
    let (nonce, method, uri) = (text("nonce"), text("method"), text("uri"));
    let (nc, cnonce) = ("00000001", "cl1ent");
    let qop = (text("qop") == "auth").then_some((nc, cnonce));
    let hash = response(algorithm, &secret, &nonce, qop, &method, &uri);
    let mut digest = json!({
        "realm": text("realm"), "nonce": nonce, "uri": uri, "response": hash, "algorithm": text("algorithm"),
    });
    if qop.is_some() {
        for (key, value) in [("qop", "auth"), ("nc", nc), ("cnonce", cnonce)] {
            digest[key] = value.into();
        }
    }
    digest
}

fn ask(w: &mut World, conn: i32, id: &str) -> Value {
    w.send(conn, "register", json!({ "dn": "5001" }), id);
    w.frame(conn)
}

fn register(w: &mut World, conn: i32, id: &str, digest: &Value) {
    let payload = json!({ "dn": "5001", "displayName": "Ann", "digest": digest });
    w.send(conn, "register", payload, id);
}

/// A `register` with a token on which that verdict was found.
fn with_token(w: &mut World, conn: i32, dn: Option<&str>, verdict: Option<Result<&str, &str>>) {
    let mut payload = json!({ "token": "eyJ.t0ken.sig" });
    if let Some(dn) = dn {
        payload["dn"] = dn.into();
    }
    let frame = json!({ "type": "register", "payload": payload, "id": "t" }).to_string();
    let request = parse(frame.as_bytes(), &Limits::default()).expect("a good frame");
    w.step(Input::Message {
        conn,
        addr: None,
        request,
        next_hop: None,
        token: verdict.map(|v| v.map(str::to_owned).map_err(str::to_owned)),
    });
}

/// Registers a browser that answers the registrar's challenge.
fn registered(w: &mut World, conn: i32) {
    w.send(conn, "register", json!({ "dn": "5001" }), "r1");
    let first = w.request();
    w.far_reply(&first, 401, "x", CHALLENGE, "");
    let challenge = w.frame(conn);
    register(w, conn, "r2", &answer(&challenge, "secret"));
    let second = w.request();
    w.far_reply(&second, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.frame(conn)["type"], "registered");
}

fn authorization(request: &SipRequest) -> Option<&str> {
    let mut lines = request.headers.split("\r\n");
    lines.find(|line| line.contains("uthorization: "))
}

// ---- local mode

#[test]
fn the_server_challenges_and_compares() {
    let mut w = local();
    let challenge = ask(&mut w, 1, "r1");
    assert_eq!(
        (&challenge["type"], &challenge["id"]),
        (&json!("challenge"), &json!("r1"))
    );
    let p = &challenge["payload"];
    assert_eq!(
        json!([
            p["realm"],
            p["algorithm"],
            p["qop"],
            p["method"],
            p["uri"],
            p["callId"]
        ]),
        json!([
            "rtc.local",
            "MD5",
            "auth",
            "REGISTER",
            "sip:pbx.example",
            null
        ])
    );
    assert_eq!(p["nonce"].as_str().map(str::len), Some(32));
    assert!(
        w.out.is_empty(),
        "nobody is looked up before there is an answer"
    );
    register(&mut w, 1, "r2", &answer(&challenge, "secret"));
    assert!(matches!(w.out.pop(), Some(Output::LookUp { conn: 1 })));
    let table = ha1(Algorithm::Md5, "5001", "rtc.local", "secret").to_uppercase();
    w.step(Input::Ha1 {
        conn: 1,
        found: Ok(Some(table)),
    });
    let done = w.frame(1);
    assert_eq!(
        (&done["type"], &done["id"]),
        (&json!("registered"), &json!("r2"))
    );
    assert_eq!(w.agent.display_name, "Ann");
    assert!(w.requests().is_empty());
}

#[test]
fn wrong_answers_and_unknown_numbers_look_the_same() {
    let mut w = local();
    let table = ha1(Algorithm::Md5, "5001", "rtc.local", "secret");
    let mut outcomes = Vec::new();
    for (password, found) in [
        ("wrong", Ok(Some(table))),
        ("secret", Ok(None)),
        ("secret", Ok(Some(String::new()))),
    ] {
        let challenge = ask(&mut w, 1, "r1");
        register(&mut w, 1, "r2", &answer(&challenge, password));
        assert!(
            matches!(w.out.pop(), Some(Output::LookUp { conn: 1 })),
            "the same path"
        );
        w.step(Input::Ha1 { conn: 1, found });
        outcomes.push(w.frame(1));
        assert!(w.agent.is_empty());
    }
    assert_eq!(
        outcomes[0]["payload"],
        json!({ "reason": "Forbidden", "code": 403 })
    );
    assert!(outcomes.iter().all(|o| *o == outcomes[0]));
    // who is not in the table, or has no secret there, does not get in by what stands for none
    for (secret, found) in [("0".repeat(32), None), (String::new(), Some(String::new()))] {
        let challenge = ask(&mut w, 1, "r1");
        let p = &challenge["payload"];
        let text = |key: &str| p[key].as_str().expect("a text").to_owned();
        let mut digest = answer(&challenge, "secret");
        let qop = Some(("00000001", "cl1ent"));
        let (nonce, uri) = (text("nonce"), text("uri"));
        digest["response"] =
            response(Algorithm::Md5, &secret, &nonce, qop, "REGISTER", &uri).into();
        register(&mut w, 1, "r2", &digest);
        w.step(Input::Ha1 {
            conn: 1,
            found: Ok(found),
        });
        assert_eq!(w.frame(1)["payload"]["code"], 403);
        w.out.clear();
    }
}

#[test]
fn an_answer_serves_once_and_not_for_long() {
    let mut w = local();
    let table = || Ok(Some(ha1(Algorithm::Md5, "5001", "rtc.local", "secret")));
    let first = ask(&mut w, 1, "r1");
    let digest = answer(&first, "secret");
    // on another connection
    register(&mut w, 2, "x", &digest);
    assert_eq!(w.frame(2)["type"], "challenge");
    register(&mut w, 1, "r2", &digest);
    w.step(Input::Ha1 {
        conn: 1,
        found: table(),
    });
    assert_eq!(w.frame(1)["type"], "registered");
    w.send(1, "unregister", json!({}), "u");
    w.frames(1);
    w.out.clear();
    // again
    register(&mut w, 1, "r3", &digest);
    let second = w.frame(1);
    assert_eq!(second["type"], "challenge");
    assert_ne!(second["payload"]["nonce"], first["payload"]["nonce"]);
    // too late, before and after the time has been noticed
    let digest = answer(&second, "secret");
    w.now += 30_000;
    register(&mut w, 1, "r4", &digest);
    assert_eq!(w.frame(1)["type"], "challenge");
    w.wait(30_000);
    assert!(w.frames(1).is_empty(), "it has had its outcome");
    assert!(w.agent.is_empty(), "and leaves nothing");
    // a wrong one uses it up as well
    let third = ask(&mut w, 1, "r5");
    register(&mut w, 1, "r6", &answer(&third, "wrong"));
    w.step(Input::Ha1 {
        conn: 1,
        found: table(),
    });
    assert_eq!(w.frame(1)["payload"]["code"], 403);
    register(&mut w, 1, "r7", &answer(&third, "secret"));
    assert_eq!(w.frame(1)["type"], "challenge");
}

#[test]
fn an_answer_of_the_wrong_form_is_told_what_is_wrong() {
    let mut w = local();
    for (key, value, names) in [
        ("uri", json!("sip:elsewhere"), "uri"),
        ("realm", json!("elsewhere"), "realm"),
        ("algorithm", json!("SHA-256"), "algorithm"),
        ("algorithm", json!("rot13"), "algorithm"),
        ("username", json!("5002"), "username"),
        ("username", json!("5001@rtc.local"), "username"),
        ("response", json!("00"), "response"),
        (
            "response",
            json!("zz000000000000000000000000000000"),
            "response",
        ),
        ("qop", json!(null), "qop"),
        ("qop", json!("auth-int"), "qop"),
        ("cnonce", json!(null), "cnonce"),
        ("nc", json!(null), "nc"),
    ] {
        let challenge = ask(&mut w, 1, "r1");
        let mut digest = answer(&challenge, "secret");
        digest[key] = value;
        register(&mut w, 1, "r2", &digest);
        let failed = w.frame(1);
        assert_eq!(failed["payload"]["code"], 400, "{key}: {failed}");
        let reason = failed["payload"]["reason"].as_str().expect("a reason");
        assert!(reason.contains(names), "{key}: {reason}");
        assert!(
            w.agent.is_empty()
                && w.out
                    .iter()
                    .all(|o| matches!(o, Output::Count(_) | Output::Judged { .. }))
        );
    }
}

#[test]
fn browsers_that_never_answer_do_not_keep_others_out() {
    let mut w = local();
    for conn in 10..40 {
        ask(&mut w, conn, "r");
    }
    assert_eq!(w.agent.pending.len(), 8);
    let challenge = ask(&mut w, 1, "r1");
    register(&mut w, 1, "r2", &answer(&challenge, "secret"));
    w.step(Input::Ha1 {
        conn: 1,
        found: Err(TableUnavailable),
    });
    assert_eq!(w.frame(1)["payload"]["code"], 503);
    for conn in 10..40 {
        w.step(Input::Closed { conn });
    }
    assert!(w.agent.is_empty());
}

// ---- upstream

#[test]
fn the_registrars_challenge_goes_to_the_browser_and_back() {
    let mut w = World::new(config());
    w.send(1, "register", json!({ "dn": "5001", "expires": 60 }), "r1");
    let first = w.request();
    assert_eq!(authorization(&first), None);
    w.far_reply(&first, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    assert_eq!(
        (&challenge["type"], &challenge["id"]),
        (&json!("challenge"), &json!("r1"))
    );
    assert_eq!(
        challenge["payload"],
        json!({ "realm": "asterisk", "nonce": "n-1", "algorithm": "SHA-256", "qop": "auth", "method": "REGISTER", "uri": "sip:pbx.example" }),
        "the strongest that it can do; what is opaque is not its affair"
    );
    let digest = answer(&challenge, "secret");
    register(&mut w, 1, "r2", &digest);
    let second = w.request();
    assert_eq!(
        (second.cseq, &second.call_id),
        (first.cseq + 1, &first.call_id)
    );
    let hash = digest["response"].as_str().expect("a response");
    assert_eq!(
        authorization(&second),
        Some(format!(
            "Authorization: Digest username=\"5001\", realm=\"asterisk\", nonce=\"n-1\", uri=\"sip:pbx.example\", \
             response=\"{hash}\", algorithm=SHA-256, qop=auth, nc=00000001, cnonce=\"cl1ent\", opaque=\"op4que\""
        ).as_str())
    );
    w.far_reply(&second, 200, "x", "Expires: 120\r\n", "");
    let done = w.frame(1);
    assert_eq!(
        (&done["type"], &done["id"]),
        (&json!("registered"), &json!("r2"))
    );
    assert!(w.agent.upstream.ha1.is_empty());
    let record = w.agent.encode(Vec::new()).expect("encodes");
    let has = |what: &str| record.windows(what.len()).any(|b| b == what.as_bytes());
    assert!(
        !has(hash) && !has("cl1ent"),
        "nothing of the answer is kept"
    );
}

#[test]
fn a_stale_nonce_is_challenged_again_a_wrong_answer_is_not() {
    let mut w = World::new(config());
    w.send(1, "register", json!({ "dn": "5001" }), "r1");
    let first = w.request();
    w.far_reply(&first, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    register(&mut w, 1, "r2", &answer(&challenge, "secret"));
    let second = w.request();
    let stale = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n-2\", stale=true\r\n";
    w.far_reply(&second, 401, "x", stale, "");
    let again = w.frame(1);
    assert_eq!(
        (&again["type"], &again["id"]),
        (&json!("challenge"), &json!("r2"))
    );
    assert_eq!(
        (&again["payload"]["qop"], &again["payload"]["algorithm"]),
        (&json!(""), &json!("MD5"))
    );
    // without qop, as it was asked
    let mut digest = answer(&again, "secret");
    digest["username"] = "5001@asterisk".into();
    register(&mut w, 1, "r3", &digest);
    let third = w.request();
    let line = authorization(&third).expect("an answer");
    assert!(
        line.contains("username=\"5001@asterisk\"")
            && !line.contains("qop")
            && !line.contains("algorithm"),
        "{line}"
    );
    w.far_reply(&third, 401, "x", &stale.replace(", stale=true", ""), "");
    assert_eq!(
        w.frame(1)["payload"],
        json!({ "reason": "Forbidden", "code": 403 })
    );
    assert!(w.agent.is_empty());
}

#[test]
fn another_ones_name_is_not_for_a_browser_to_give() {
    let mut w = World::new(config());
    for name in ["5002", "50015", "5001@elsewhere", "@asterisk", "5001@"] {
        w.send(1, "register", json!({ "dn": "5001" }), "r1");
        let first = w.request();
        w.far_reply(&first, 401, "x", CHALLENGE, "");
        let mut digest = answer(&w.frame(1), "secret");
        digest["username"] = name.into();
        register(&mut w, 1, "r2", &digest);
        assert_eq!(w.frame(1)["payload"]["code"], 400, "{name}");
        assert!(w.requests().is_empty());
    }
}

#[test]
fn what_a_browser_cannot_answer_is_told() {
    let mut w = World::new(config());
    w.send(1, "register", json!({ "dn": "5001" }), "r1");
    let first = w.request();
    let odd = "WWW-Authenticate: Digest realm=\"a\", nonce=\"b\", algorithm=SHA-512-256\r\nWWW-Authenticate: Basic realm=\"x\"\r\n";
    w.far_reply(&first, 401, "x", odd, "");
    let failed = w.frame(1);
    assert_eq!(failed["payload"]["code"], 403);
    assert!(failed["payload"]["reason"]
        .as_str()
        .is_some_and(|r| r.contains("cannot answer")));
    // and the registrar that is not there
    w.send(1, "register", json!({ "dn": "5001" }), "r2");
    let second = w.request();
    w.no_reply(&second);
    assert_eq!(w.frame(1)["payload"]["code"], 408);
}

#[test]
fn while_one_thinks_another_registers() {
    let mut w = World::new(config());
    w.send(1, "register", json!({ "dn": "5001" }), "r1");
    let first = w.request();
    w.far_reply(&first, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    w.register(2);
    register(&mut w, 1, "r2", &answer(&challenge, "secret"));
    let request = w.request();
    w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.frame(1)["type"], "registered");
    assert!(
        !w.agent.upstream.ha1.is_empty(),
        "the password of the other one still serves"
    );
}

#[test]
fn the_refresh_is_answered_by_the_browser() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    w.send(1, "ping", json!({}), "p");
    w.frames(1);
    w.wait(240_000);
    let refresh = w.request();
    assert_eq!(authorization(&refresh), None);
    w.far_reply(&refresh, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    let challenge = w.frame(1);
    assert_eq!(
        (&challenge["type"], &challenge["id"]),
        (&json!("challenge"), &json!("evt-1"))
    );
    assert_eq!(challenge["payload"]["callId"], Value::Null);
    // wrong ones change nothing
    let digest = answer(&challenge, "secret");
    let mut other = digest.clone();
    other["nonce"] = "n-1".into();
    w.send(1, "digest", json!({ "digest": other }), "d0");
    assert_eq!(w.frame(1)["payload"]["code"], 409);
    other = digest.clone();
    other["uri"] = "sip:elsewhere".into();
    w.send(1, "digest", json!({ "digest": other }), "d1");
    assert_eq!(w.frame(1)["payload"]["code"], 400);
    assert!(w.requests().is_empty());
    w.send(1, "digest", json!({ "digest": digest }), "d2");
    let ack = w.frame(1);
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("d2")));
    let answered = w.request();
    assert!(authorization(&answered)
        .is_some_and(|l| l.contains("nonce=\"n-2\"") && l.contains("op4que")));
    // twice is once
    w.send(1, "digest", json!({ "digest": digest }), "d3");
    assert_eq!(w.frame(1)["payload"]["code"], 409);
    w.far_reply(&answered, 200, "x", "Expires: 300\r\n", "");
    assert!(w.agent.upstream.bound && w.agent.upstream.refresh_at > w.now);
    assert!(w
        .out
        .iter()
        .all(|o| matches!(o, Output::Count(_) | Output::Judged { .. })));
    // and the next one begins as this one did
    w.wait(240_000);
    assert_eq!(authorization(&w.request()), None);
}

#[test]
fn a_refused_refresh_ends_the_sessions() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    w.send(1, "ping", json!({}), "p");
    w.frames(1);
    w.wait(240_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    w.send(
        1,
        "digest",
        json!({ "digest": answer(&challenge, "wrong") }),
        "d",
    );
    w.frames(1);
    let answered = w.request();
    w.far_reply(&answered, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    assert_eq!(
        w.frame(1)["payload"],
        json!({ "dn": "5001", "reason": "expired" })
    );
    assert!(w.agent.is_empty());
}

#[test]
fn nobody_answers_the_refresh() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    w.send(1, "ping", json!({}), "p");
    w.frames(1);
    w.wait(240_000);
    let mut asked = 0;
    for _ in 0..100 {
        w.wait(1_000);
        w.send(1, "ping", json!({}), "p");
        for request in w.requests() {
            w.far_reply(&request, 401, "x", CHALLENGE, "");
        }
        asked += w.types(1).iter().filter(|t| *t == "challenge").count();
        if w.agent.sessions.is_empty() {
            break;
        }
    }
    assert!(
        (2..=6).contains(&asked),
        "tried again, but not for ever: {asked}"
    );
    assert!(w.agent.is_empty());
    assert!(
        w.now <= 1_000_000 + 325_000,
        "not long after the binding has run out"
    );
}

#[test]
fn one_does_not_answer_another_one_does() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    registered(&mut w, 2);
    for conn in [1, 2] {
        w.send(conn, "ping", json!({}), "p");
        w.frames(conn);
    }
    w.wait(240_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    assert_eq!(w.types(2), ["challenge"], "who registered last");
    assert!(w.frames(1).is_empty());
    w.wait(10_000);
    assert!(w.requests().is_empty());
    w.wait(25_000);
    let again = w.request();
    w.far_reply(&again, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    let challenge = w.frame(1);
    assert_eq!(challenge["type"], "challenge");
    assert!(w.frames(2).is_empty());
    w.send(
        1,
        "digest",
        json!({ "digest": answer(&challenge, "secret") }),
        "d",
    );
    let answered = w.request();
    w.far_reply(&answered, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.agent.sessions.len(), 2);
    // from now on that one
    w.send(2, "ping", json!({}), "p");
    w.frames(1);
    w.frames(2);
    w.wait(240_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    assert_eq!(w.types(1), ["challenge"]);
}

#[test]
fn who_comes_back_is_asked_again() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    w.send(1, "ping", json!({}), "p");
    w.wait(239_000);
    w.step(Input::Closed { conn: 1 });
    w.frames(1);
    w.wait(1_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    assert_eq!(w.agent.sessions.len(), 1, "nobody there to answer");
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    assert_eq!(w.frame(2)["type"], "registered");
    let again = w.request();
    w.far_reply(&again, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    let first = w.frame(2);
    assert_eq!(first["type"], "challenge");
    // it goes once more before it has answered
    w.step(Input::Closed { conn: 2 });
    w.send(
        3,
        "register",
        json!({ "dn": "5001", "resume": w.agent.sessions[0].token }),
        "r",
    );
    let frames = w.frames(3);
    assert_eq!(frames[1]["payload"], first["payload"]);
    w.send(
        3,
        "digest",
        json!({ "digest": answer(&frames[1], "secret") }),
        "d",
    );
    assert_eq!(w.frame(3)["type"], "ack");
    let answered = w.request();
    w.far_reply(&answered, 200, "x", "Expires: 300\r\n", "");
    assert!(w.agent.upstream.bound);
}

#[test]
fn a_registrar_that_finds_every_nonce_stale_is_not_asked_for_ever() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    w.send(1, "ping", json!({}), "p");
    w.frames(1);
    w.wait(240_000);
    let stale = CHALLENGE.replace("opaque", "stale=true, opaque");
    let mut rounds = 0;
    for _ in 0..20 {
        let Some(request) = w.requests().pop() else {
            break;
        };
        w.far_reply(&request, 401, "x", &stale, "");
        if let Some(challenge) = w.frames(1).into_iter().find(|f| f["type"] == "challenge") {
            rounds += 1;
            w.send(
                1,
                "digest",
                json!({ "digest": answer(&challenge, "secret") }),
                &format!("d{rounds}"),
            );
        }
    }
    assert_eq!(rounds, 3);
    assert_eq!(w.agent.sessions.len(), 1);
    assert!(w.agent.upstream.refresh_at > w.now);
}

#[test]
fn the_password_has_changed_and_one_browser_knows_it() {
    let mut w = World::new(config());
    w.register(1);
    registered(&mut w, 2);
    assert!(!w.agent.upstream.ha1.is_empty());
    for conn in [1, 2] {
        w.send(conn, "ping", json!({}), "p");
        w.frames(conn);
    }
    w.wait(240_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    let by_ha1 = w.request();
    assert!(authorization(&by_ha1).is_some());
    w.far_reply(&by_ha1, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    let challenge = w.frame(2);
    assert_eq!(challenge["type"], "challenge");
    assert!(w.frames(1).is_empty());
    w.send(
        2,
        "digest",
        json!({ "digest": answer(&challenge, "new") }),
        "d",
    );
    let answered = w.request();
    w.far_reply(&answered, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.agent.sessions.len(), 2);
}

// ---- calls

#[test]
fn the_invite_waits_for_the_browser() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    let (call, invite) = w.call(1, "c1");
    let proxy = "Proxy-Authenticate: Digest realm=\"asterisk\", nonce=\"n-7\", algorithm=MD5, qop=\"auth\"\r\n";
    w.far_reply(&invite, 407, "x", proxy, "");
    let challenge = w.frame(1);
    assert_eq!(challenge["type"], "challenge");
    let p = &challenge["payload"];
    assert_eq!(
        json!([p["method"], p["uri"], p["callId"]]),
        json!(["INVITE", "sip:600@pbx.example", call])
    );
    let digest = answer(&challenge, "secret");
    for (id, payload, code) in [
        (
            "d1",
            json!({ "callId": "elsewhere", "digest": digest }),
            404,
        ),
        ("d2", json!({ "digest": digest }), 409),
    ] {
        w.send(1, "digest", payload, id);
        assert_eq!(w.frame(1)["payload"]["code"], code);
    }
    let mut wrong = digest.clone();
    wrong["nonce"] = "n-1".into();
    w.send(
        1,
        "digest",
        json!({ "callId": call, "digest": wrong }),
        "d3",
    );
    assert_eq!(w.frame(1)["payload"]["code"], 400);
    // another browser of the agent does not have the call
    w.register(2);
    w.send(
        2,
        "digest",
        json!({ "callId": call, "digest": digest }),
        "d4",
    );
    assert_eq!(w.frame(2)["payload"]["code"], 404);
    w.send(
        1,
        "digest",
        json!({ "callId": call, "digest": digest }),
        "d5",
    );
    let ack = w.frame(1);
    assert_eq!(
        (&ack["type"], &ack["payload"]["callId"]),
        (&json!("ack"), &json!(call))
    );
    let again = w.request();
    assert_eq!(
        (again.method, again.cseq, &again.call_id),
        ("INVITE", invite.cseq + 1, &invite.call_id)
    );
    assert!(authorization(&again).is_some_and(|l| l
        .starts_with("Proxy-Authorization: Digest username=\"5001\"")
        && l.contains("n-7")));
    w.far_reply(
        &again,
        200,
        "far",
        "Content-Type: application/sdp\r\n",
        ANSWER,
    );
    let types = w.types(1);
    assert_eq!(types, ["callAccepted"]);
}

#[test]
fn a_request_in_the_dialog_waits_for_the_browser_too() {
    let sdp = "Content-Type: application/sdp\r\n";
    let mut w = World::new(config());
    registered(&mut w, 1);
    let (call, invite) = w.call(1, "c1");
    w.far_reply(&invite, 200, "far", sdp, ANSWER);
    w.frames(1);
    for (id, kind, payload, method, outcome) in [
        (
            "h1",
            "hold",
            json!({ "callId": call, "hold": true }),
            "INVITE",
            "callUpdated",
        ),
        (
            "t1",
            "dtmf",
            json!({ "callId": call, "digit": "5" }),
            "INFO",
            "ack",
        ),
        (
            "x1",
            "transfer",
            json!({ "callId": call, "to": "700" }),
            "REFER",
            "ack",
        ),
    ] {
        w.send(1, kind, payload, id);
        let first = w.request();
        w.far_reply(&first, 401, "far", CHALLENGE, "");
        let challenge = w.frame(1);
        let p = &challenge["payload"];
        assert_eq!(json!([p["method"], p["callId"]]), json!([method, call]));
        let digest = answer(&challenge, "secret");
        w.send(
            1,
            "digest",
            json!({ "callId": call, "digest": digest }),
            &format!("{id}-d"),
        );
        assert_eq!(w.types(1), ["ack"]);
        let again = w.request();
        assert_eq!((again.method, again.cseq), (method, first.cseq + 1));
        assert_eq!((&again.call_id, &again.body), (&first.call_id, &first.body));
        assert!(authorization(&again).is_some());
        let (code, more, body) = match method {
            "INVITE" => (200, sdp, ANSWER),
            "REFER" => (202, "", ""),
            _ => (200, "", ""),
        };
        w.far_reply(&again, code, "far", more, body);
        let done = w.frames(1).remove(0);
        assert_eq!((&done["type"], &done["id"]), (&json!(outcome), &json!(id)));
    }
}

#[test]
fn who_gave_a_password_is_not_asked() {
    let mut w = local();
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
    w.frames(1);
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 401, "x", CHALLENGE, "");
    assert_eq!(w.types(1), ["error", "callEnded"], "at once");
    // nor who came with a token
    let mut w = World::new(config());
    with_token(&mut w, 1, None, Some(Ok("5001")));
    let request = w.request();
    w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
    w.send(1, "ping", json!({}), "p");
    w.frames(1);
    w.wait(240_000);
    let refresh = w.request();
    w.far_reply(&refresh, 401, "x", CHALLENGE, "");
    assert_eq!(w.frame(1)["payload"]["reason"], "expired");
    assert!(w.agent.is_empty());
}

#[test]
fn an_invite_whose_challenge_stays_unanswered_ends() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    let (_, invite) = w.call(1, "c1");
    w.far_reply(&invite, 100, "", "", "");
    w.far_reply(&invite, 401, "x", CHALLENGE, "");
    assert_eq!(w.frame(1)["type"], "challenge");
    w.wait(10_000);
    assert_eq!(w.types(1), ["error", "callEnded"]);
    assert!(w.agent.calls.is_empty() && w.cancels().is_empty());
    // hung up while it waits: there is nothing to cancel
    let (call, invite) = w.call(1, "c2");
    w.far_reply(&invite, 401, "x", CHALLENGE, "");
    w.frames(1);
    w.send(1, "hangup", json!({ "callId": call }), "h");
    assert_eq!(w.types(1), ["error", "callEnded"]);
    assert!(w.agent.calls.is_empty() && w.cancels().is_empty() && w.requests().is_empty());
    // a wrong answer
    let (call, invite) = w.call(1, "c3");
    w.far_reply(&invite, 401, "x", CHALLENGE, "");
    let challenge = w.frame(1);
    w.send(
        1,
        "digest",
        json!({ "callId": call, "digest": answer(&challenge, "wrong") }),
        "d",
    );
    let again = w.request();
    w.far_reply(&again, 401, "x", &CHALLENGE.replace("n-1", "n-2"), "");
    assert_eq!(w.types(1), ["ack", "error", "callEnded"]);
    assert!(w.agent.calls.is_empty());
}

#[test]
fn a_browser_that_was_away_learns_of_the_challenge_to_its_call() {
    let mut w = World::new(config());
    registered(&mut w, 1);
    let (call, invite) = w.call(1, "c1");
    w.step(Input::Closed { conn: 1 });
    w.far_reply(&invite, 401, "x", CHALLENGE, "");
    let token = w.agent.sessions[0].token.clone();
    w.send(2, "register", json!({ "dn": "5001", "resume": token }), "r");
    let frames = w.frames(2);
    assert_eq!(frames[0]["payload"]["calls"][0]["callId"], json!(call));
    assert_eq!(frames[1]["payload"]["callId"], json!(call));
    w.send(
        2,
        "digest",
        json!({ "callId": call, "digest": answer(&frames[1], "secret") }),
        "d",
    );
    assert_eq!(w.request().method, "INVITE");
}

// ---- tokens

#[test]
fn a_token_takes_the_place_of_the_password() {
    for dn in [None, Some("5001")] {
        let mut w = local();
        with_token(&mut w, 1, dn, Some(Ok("5001")));
        assert_eq!(w.frame(1)["type"], "registered");
        assert!(!w.out.iter().any(|o| matches!(o, Output::LookUp { .. })));
    }
    let mut w = World::new(config());
    with_token(&mut w, 1, None, Some(Ok("5001")));
    let request = w.request();
    assert_eq!(authorization(&request), None);
    w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
    assert_eq!(w.frame(1)["type"], "registered");
    w.send(1, "ping", json!({}), "p");
    w.wait(240_000);
    let refresh = w.request();
    assert_eq!(authorization(&refresh), None);
    w.far_reply(&refresh, 200, "x", "Expires: 300\r\n", "");
    assert!(w.agent.upstream.bound);
}

#[test]
fn a_registrar_that_asks_after_a_token() {
    let mut w = World::new(config());
    with_token(&mut w, 1, None, Some(Ok("5001")));
    let request = w.request();
    w.far_reply(&request, 401, "x", CHALLENGE, "");
    let failed = w.frame(1);
    assert_eq!(failed["payload"]["code"], 403);
    assert!(failed["payload"]["reason"]
        .as_str()
        .is_some_and(|r| r.contains("trust this server")));
    assert!(w.agent.is_empty());
}

#[test]
fn a_token_for_another_or_a_bad_one() {
    let mut w = local();
    let mut texts = Vec::new();
    for (dn, sub) in [
        (Some("5001"), "5002"),
        (Some("5002"), "5001"),
        (None, "5002"),
        (None, ""),
    ] {
        with_token(&mut w, 1, dn, Some(Ok(sub)));
        let failed = w.frame(1);
        assert_eq!(failed["payload"]["code"], 403, "{dn:?} {sub}");
        texts.push(failed["payload"]["reason"].clone());
    }
    assert!(texts.iter().all(|t| *t == texts[0]));
    for verdict in [Some(Err("the token has expired")), None] {
        with_token(&mut w, 1, Some("5001"), verdict);
        let failed = w.frame(1);
        assert_eq!(failed["payload"]["code"], 401);
        assert!(!failed.to_string().contains("t0ken"));
    }
    assert!(w.agent.is_empty());
}

/// The registrar that trusts us for the sake of tokens would let in whoever comes with any password.
#[test]
fn where_tokens_are_taken_an_unchecked_password_is_worth_nothing() {
    for payload in [
        json!({ "dn": "5001", "password": "any" }),
        json!({ "dn": "5001" }),
    ] {
        let mut config = config();
        config.tokens = true;
        let mut w = World::new(config);
        w.send(1, "register", payload.clone(), "r1");
        let request = w.request();
        w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
        assert_eq!(w.frame(1)["payload"]["code"], 403);
        let removal = w.request();
        assert!(
            removal.headers.contains("expires=0"),
            "and leaves no binding"
        );
        w.far_reply(&removal, 200, "x", "", "");
        assert!(w.agent.is_empty());
        // nor with credentials that nobody has asked for
        w.agent.upstream.challenge = Some(
            rtc_json_sip::Challenge::parse("Digest realm=\"asterisk\", nonce=\"n\"").expect("good"),
        );
        w.send(1, "register", payload, "r2");
        let request = w.request();
        assert_eq!(authorization(&request), None);
        w.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
        assert_eq!(w.frame(1)["payload"]["code"], 403);
    }
    // where the registrar asks, a password is as good as ever
    let mut config = config();
    config.tokens = true;
    let mut w = World::new(config);
    w.register(1);
    registered(&mut w, 2);
    assert_eq!(w.agent.sessions.len(), 2);
}
