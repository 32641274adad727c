//! The rules of the protocol, one by one.

use rtc_json_protocol::{
    parse, variable, BadFrame, BadKind, ClientMessage, Limits, RecordingAction,
};

fn read(frame: &str) -> Result<ClientMessage, BadFrame> {
    parse(frame.as_bytes(), &Limits::default()).map(|request| request.message)
}

/// A message of that type, id `7`.
fn message(kind: &str, payload: &str) -> Result<ClientMessage, BadFrame> {
    read(&format!(
        r#"{{"type":"{kind}","payload":{payload},"id":"7"}}"#
    ))
}

#[track_caller]
fn malformed(frame: &[u8], id: Option<&str>, details: &str) {
    let bad = parse(frame, &Limits::default()).unwrap_err();
    assert_eq!(bad.kind, BadKind::Malformed, "{bad:?}");
    assert_eq!(bad.code, 400);
    assert_eq!(bad.id.as_deref(), id);
    assert!(bad.details.contains(details), "{bad:?}");
}

/// Every payload is refused, with details that begin with that key.
#[track_caller]
fn refused(kind: &str, key: &str, payloads: &[&str]) {
    for payload in payloads {
        match message(kind, payload) {
            Ok(message) => panic!("accepted {payload}: {message:?}"),
            Err(bad) => {
                assert_eq!(bad.kind, BadKind::BadMessage, "{payload}: {bad:?}");
                assert_eq!((bad.code, bad.id.as_deref()), (400, Some("7")));
                assert!(
                    bad.details
                        .starts_with(&format!("payload.{key}: expected ")),
                    "{payload}: {bad:?}"
                );
            }
        }
    }
}

fn text(value: &str) -> String {
    value.to_owned()
}

#[test]
fn the_envelope_has_three_keys() {
    assert_eq!(
        read(r#" {"id":"a b~","type":"ping"} "#),
        Ok(ClientMessage::Ping)
    );
    assert_eq!(
        read(r#"{"type":"ping","payload":{"extra":[{"a":null}]},"id":"1"}"#),
        Ok(ClientMessage::Ping)
    );
    malformed(
        br#"{"type":"ping","id":"1","x":0}"#,
        Some("1"),
        "no keys but",
    );
    malformed(br#"{"type":"ping"}"#, None, "id: expected");
    malformed(br#"{"type":"ping","id":1}"#, None, "id: expected");
    malformed(br#"{"type":"ping","id":""}"#, None, "id: expected");
    malformed(br#"{"type":"ping","id":"\u0007"}"#, None, "id: expected");
    malformed("{\"type\":\"ping\",\"id\":\"ä\"}".as_bytes(), None, "id: ");
    let long = |length| format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(length));
    assert!(read(&long(64)).is_ok());
    malformed(long(65).as_bytes(), None, "id: expected");
    malformed(br#"{"id":"1"}"#, Some("1"), "type: expected");
    malformed(br#"{"type":1,"id":"1"}"#, Some("1"), "type: expected");
    for payload in ["null", "[]", "1", "\"x\""] {
        malformed(
            format!(r#"{{"type":"ping","payload":{payload},"id":"1"}}"#).as_bytes(),
            Some("1"),
            "payload: expected",
        );
    }
    for frame in ["", " ", "[]", "1", "\"ping\"", "null", "{}{}", "{} x"] {
        malformed(frame.as_bytes(), None, "");
    }
}

#[test]
fn the_frame_is_proper_json() {
    malformed(b"{\"type\":\"ping\",\"id\":\"1\xff\"}", None, "not UTF-8");
    malformed(
        br#"{"type":"ping","id":"1","type":"ping"}"#,
        Some("1"),
        "duplicate key",
    );
    malformed(
        br#"{"type":"ping","payload":{"a":{"b":1,"b":1}},"id":"1"}"#,
        Some("1"),
        "duplicate key",
    );
    // twice an id is no id
    malformed(
        br#"{"type":"ping","id":"1","id":"1"}"#,
        None,
        "duplicate key",
    );
    // the object, the payload, and six more
    let nested = |levels: usize| {
        format!(
            r#"{{"type":"ping","payload":{{"a":{}{}}},"id":"1"}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(read(&nested(6)).is_ok());
    malformed(nested(7).as_bytes(), Some("1"), "deeper than 8 levels");
    malformed(nested(10_000).as_bytes(), Some("1"), "deeper than 8 levels");
    malformed(
        br#"{"type":"ping","payload":{"a":"\ud800"},"id":"1"}"#,
        Some("1"),
        "",
    );
    malformed(br#"{"type":"ping","id":"1"}x"#, None, "trailing");
}

#[test]
fn the_size_is_bounded() {
    let frame = br#"{"type":"ping","id":"1"}"#;
    let limits = |max_frame| Limits {
        max_frame,
        ..Limits::default()
    };
    assert!(parse(frame, &limits(frame.len())).is_ok());
    let bad = parse(frame, &limits(frame.len() - 1)).unwrap_err();
    assert_eq!((bad.code, bad.kind), (413, BadKind::Malformed));
    assert_eq!(bad.id.as_deref(), Some("1"));
    assert_eq!(bad.details, "24 bytes, at most 23");
}

#[test]
fn an_unknown_type_is_no_bad_frame() {
    let bad = message("jump", "{}").unwrap_err();
    assert_eq!((bad.code, bad.kind), (400, BadKind::BadMessage));
    assert_eq!(bad.message, "Unknown message type");
    assert_eq!(bad.details, "type: no message is called jump");
    for kind in ["", "Ping", "pi ng", "\\u0000", &"p".repeat(33)] {
        let bad = message(kind, "{}").unwrap_err();
        assert_eq!(bad.kind, BadKind::BadMessage);
        assert!(bad.details.contains("camelCase"), "{bad:?}");
    }
}

#[test]
fn register() {
    let Ok(ClientMessage::Register(register)) = message(
        "register",
        r#"{"dn":"1001","password":"p\"w","displayName":"Ann ä","expires":300,"resume":"tok","last":9,
            "digest":{"nonce":"n","response":"r","cnonce":"c","nc":"0000000a","qop":"auth"}}"#,
    ) else {
        panic!("refused")
    };
    assert_eq!(register.dn.as_deref(), Some("1001"));
    assert_eq!(register.password.as_ref().unwrap().expose(), "p\"w");
    assert_eq!(register.display_name.as_deref(), Some("Ann ä"));
    assert_eq!((register.expires, register.last), (Some(300), Some(9)));
    assert_eq!(register.resume.as_ref().unwrap().expose(), "tok");
    assert_eq!(register.token, None);
    let digest = register.digest.as_ref().unwrap();
    assert_eq!(
        (digest.nonce.as_str(), digest.realm.as_deref()),
        ("n", None)
    );
    assert_eq!(digest.nc.as_deref(), Some("0000000a"));

    // the token names the DN
    let Ok(ClientMessage::Register(register)) =
        message("register", r#"{"token":"a.b.c","password":null}"#)
    else {
        panic!("refused")
    };
    assert_eq!((register.dn, register.password), (None, None));

    refused(
        "register",
        "dn",
        &["{}", r#"{"dn":null}"#, r#"{"dn":1001}"#, r#"{"dn":""}"#],
    );
    refused(
        "register",
        "dn",
        &[
            r#"{"dn":"10 01"}"#,
            r#"{"dn":"1\r\n"}"#,
            r#"{"dn":"a@b"}"#,
            r#"{"dn":"ä"}"#,
            r#"{"dn":"\u0000"}"#,
            r#"{"token":"t","dn":"<1>"}"#,
        ],
    );
    refused(
        "register",
        "expires",
        &[
            r#"{"dn":"1","expires":-1}"#,
            r#"{"dn":"1","expires":1.5}"#,
            r#"{"dn":"1","expires":"60"}"#,
            r#"{"dn":"1","expires":604801}"#,
            r#"{"dn":"1","expires":18446744073709551616}"#,
        ],
    );
    refused(
        "register",
        "last",
        &[
            r#"{"dn":"1","last":-1}"#,
            r#"{"dn":"1","last":9007199254740992}"#,
        ],
    );
    refused("register", "password", &[r#"{"dn":"1","password":7}"#]);
    refused("register", "token", &[r#"{"dn":"1","token":"a b"}"#]);
    refused("register", "resume", &[r#"{"dn":"1","resume":""}"#]);
    refused("register", "digest", &[r#"{"dn":"1","digest":"x"}"#]);
    refused(
        "register",
        "digest.response",
        &[r#"{"dn":"1","digest":{"nonce":"n"}}"#],
    );
    refused(
        "register",
        "digest.nonce",
        &[r#"{"dn":"1","digest":{"nonce":"a\"b","response":"r"}}"#],
    );
    let name = |length| format!(r#"{{"dn":"1","displayName":"{}"}}"#, "x".repeat(length));
    assert!(message("register", &name(128)).is_ok());
    refused("register", "displayName", &[&name(129)]);
    for bad in ["\\r", "\\n", "\\u0000", "\\u007f", "\\u0085", "\\t"] {
        refused(
            "register",
            "displayName",
            &[&format!(r#"{{"dn":"1","displayName":"a{bad}b"}}"#)],
        );
    }
}

#[test]
fn the_operator_widens_a_dn() {
    let frame = br#"{"type":"register","payload":{"dn":"a@b\n"},"id":"1"}"#;
    let limits = Limits {
        dn_extra: text("@\n"),
        ..Limits::default()
    };
    // but never to control characters
    assert!(parse(frame, &limits).is_err());
    let frame = br#"{"type":"register","payload":{"dn":"a@b"},"id":"1"}"#;
    assert!(parse(frame, &limits).is_ok());
    assert!(parse(frame, &Limits::default()).is_err());
    let longest = |length| format!(r#"{{"dn":"{}"}}"#, "#".repeat(length));
    assert!(message("register", &longest(64)).is_ok());
    refused("register", "dn", &[&longest(65)]);
}

#[test]
fn secrets_show_nowhere() {
    let frame = r#"{"type":"register","payload":{"dn":"1","password":"s3cret-a","token":"s3cret-b","resume":"s3cret-c",
        "digest":{"nonce":"n","response":"s3cret-d","cnonce":"s3cret-e"}},"id":"1"}"#;
    let request = parse(frame.as_bytes(), &Limits::default()).unwrap();
    assert!(!format!("{request:?}").contains("s3cret"));
    for bad in [
        frame.replace("\"1\"}", "\"1\"}}"),
        frame.replace("\"dn\":\"1\"", "\"dn\":\"s3cret \""),
        frame.replace("register", "s3cret!"),
        frame.replace("\"s3cret-a\"", "[\"s3cret-a\"]"),
        frame.replace("token", "password"),
    ] {
        let bad = parse(bad.as_bytes(), &Limits::default()).unwrap_err();
        assert!(!format!("{bad} {bad:?}").contains("s3cret"), "{bad}");
    }
}

#[test]
fn call() {
    let Ok(ClientMessage::Call(call)) = message(
        "call",
        r#"{"to":"+49.1*#","sdp":"v=0\r\n","iceServers":[{"urls":"stun:x"}],"displayName":"A","headers":{"X-A":"1","X-B":""}}"#,
    ) else {
        panic!("refused")
    };
    assert_eq!(call.to, "+49.1*#");
    assert_eq!(call.sdp, "v=0\r\n");
    assert_eq!(call.display_name.as_deref(), Some("A"));
    assert_eq!(
        call.headers,
        [(text("X-A"), text("1")), (text("X-B"), text(""))]
    );
    refused(
        "call",
        "to",
        &[r#"{"sdp":"v"}"#, r#"{"to":"sip:x@y","sdp":"v"}"#],
    );
    refused(
        "call",
        "sdp",
        &[
            r#"{"to":"1"}"#,
            r#"{"to":"1","sdp":""}"#,
            r#"{"to":"1","sdp":"v\u0000"}"#,
            r#"{"to":"1","sdp":{}}"#,
        ],
    );
    let headers = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("\"X-{n}\":\"v\"")).collect();
        format!(r#"{{"to":"1","sdp":"v","headers":{{{}}}}}"#, list.join(","))
    };
    assert!(message("call", &headers(16)).is_ok());
    refused("call", "headers", &[&headers(17)]);
    refused(
        "call",
        "headers",
        &[
            r#"{"to":"1","sdp":"v","headers":[]}"#,
            r#"{"to":"1","sdp":"v","headers":{"":"v"}}"#,
            r#"{"to":"1","sdp":"v","headers":{"X A":"v"}}"#,
            r#"{"to":"1","sdp":"v","headers":{"X:A":"v"}}"#,
            r#"{"to":"1","sdp":"v","headers":{"X\r\nB":"v"}}"#,
        ],
    );
    refused(
        "call",
        "headers.X-A",
        &[
            r#"{"to":"1","sdp":"v","headers":{"X-A":1}}"#,
            r#"{"to":"1","sdp":"v","headers":{"X-A":"v\r\nTo: x"}}"#,
            r#"{"to":"1","sdp":"v","headers":{"X-A":"v\u0000"}}"#,
        ],
    );
    let value = |length| {
        let value = "x".repeat(length);
        format!(r#"{{"to":"1","sdp":"v","headers":{{"X-A":"{value}"}}}}"#)
    };
    assert!(message("call", &value(1024)).is_ok());
    refused("call", "headers.X-A", &[&value(1025)]);
}

#[test]
fn within_a_call() {
    let call_id = text("c1");
    assert_eq!(
        message("answer", r#"{"callId":"c1","sdp":"v"}"#),
        Ok(ClientMessage::Answer {
            call_id: call_id.clone(),
            sdp: text("v"),
        })
    );
    assert_eq!(
        message("update", r#"{"callId":"c1","sdp":"v"}"#),
        Ok(ClientMessage::Update {
            call_id: call_id.clone(),
            sdp: text("v"),
        })
    );
    assert_eq!(
        message("hangup", r#"{"callId":"c1","reason":"busy"}"#),
        Ok(ClientMessage::Hangup {
            call_id: call_id.clone(),
            reason: Some(text("busy")),
        })
    );
    assert_eq!(
        message("hold", r#"{"callId":"c1","hold":true}"#),
        Ok(ClientMessage::Hold {
            call_id: call_id.clone(),
            hold: true,
        })
    );
    assert_eq!(
        message("mute", r#"{"callId":"c1","muted":false}"#),
        Ok(ClientMessage::Mute {
            call_id: call_id.clone(),
            muted: false,
        })
    );
    assert_eq!(
        message("dtmf", r#"{"callId":"c1","digit":"0*#A","duration":100}"#),
        Ok(ClientMessage::Dtmf {
            call_id: call_id.clone(),
            digit: text("0*#A"),
            duration: Some(100),
        })
    );
    assert_eq!(
        message("recording", r#"{"callId":"c1","action":"pause"}"#),
        Ok(ClientMessage::Recording {
            call_id,
            action: RecordingAction::Pause,
        })
    );
    for kind in [
        "answer",
        "update",
        "hangup",
        "hold",
        "mute",
        "dtmf",
        "recording",
        "transfer",
    ] {
        refused(
            kind,
            "callId",
            &["{}", r#"{"callId":7}"#, r#"{"callId":""}"#],
        );
        refused(
            kind,
            "callId",
            &[r#"{"callId":"a b"}"#, r#"{"callId":"a\n"}"#],
        );
    }
    let reason = |length| format!(r#"{{"callId":"c","reason":"{}"}}"#, "x".repeat(length));
    assert!(message("hangup", &reason(64)).is_ok());
    refused(
        "hangup",
        "reason",
        &[&reason(65), r#"{"callId":"c","reason":"a\r\nb"}"#],
    );
    refused(
        "hold",
        "hold",
        &[r#"{"callId":"c"}"#, r#"{"callId":"c","hold":1}"#],
    );
    refused("mute", "muted", &[r#"{"callId":"c","muted":"true"}"#]);
    refused(
        "dtmf",
        "digit",
        &[
            r#"{"callId":"c"}"#,
            r#"{"callId":"c","digit":5}"#,
            r#"{"callId":"c","digit":""}"#,
            r#"{"callId":"c","digit":"a"}"#,
            r#"{"callId":"c","digit":"E"}"#,
            r#"{"callId":"c","digit":"1 "}"#,
            r#"{"callId":"c","digit":"111111111111111111111111111111111"}"#,
        ],
    );
    refused(
        "dtmf",
        "duration",
        &[r#"{"callId":"c","digit":"1","duration":0}"#],
    );
    refused(
        "recording",
        "action",
        &[r#"{"callId":"c","action":"play"}"#, r#"{"callId":"c"}"#],
    );
}

#[test]
fn candidates() {
    let candidate = |payload| match message("iceCandidate", payload) {
        Ok(ClientMessage::IceCandidate { candidate, .. }) => candidate,
        other => panic!("{other:?}"),
    };
    let full = candidate(
        r#"{"callId":"c","candidate":{"candidate":"candidate:1 1 udp 1 h 9 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"x"}}"#,
    )
    .unwrap();
    assert_eq!(full.candidate, "candidate:1 1 udp 1 h 9 typ host");
    assert_eq!(
        (full.sdp_mid.as_deref(), full.sdp_m_line_index),
        (Some("0"), Some(0))
    );
    assert_eq!(candidate(r#"{"callId":"c","candidate":null}"#), None);
    assert_eq!(
        candidate(r#"{"callId":"c","candidate":{"candidate":"","sdpMid":null}}"#),
        None
    );
    refused(
        "iceCandidate",
        "candidate",
        &[
            r#"{"callId":"c"}"#,
            r#"{"callId":"c","candidate":"candidate:1"}"#,
        ],
    );
    refused(
        "iceCandidate",
        "candidate.candidate",
        &[
            r#"{"callId":"c","candidate":{"candidate":"a\r\na=b"}}"#,
            r#"{"callId":"c","candidate":{}}"#,
        ],
    );
    refused(
        "iceCandidate",
        "candidate.sdpMLineIndex",
        &[r#"{"callId":"c","candidate":{"candidate":"a","sdpMLineIndex":65536}}"#],
    );
}

#[test]
fn several_parties() {
    assert_eq!(
        message("transfer", r#"{"callId":"a","to":"1003"}"#),
        Ok(ClientMessage::Transfer {
            call_id: text("a"),
            to: Some(text("1003")),
            with_call_id: None,
        })
    );
    assert_eq!(
        message("transfer", r#"{"callId":"a","withCallId":"b","to":null}"#),
        Ok(ClientMessage::Transfer {
            call_id: text("a"),
            to: None,
            with_call_id: Some(text("b")),
        })
    );
    for payload in [
        r#"{"callId":"a"}"#,
        r#"{"callId":"a","to":"1","withCallId":"b"}"#,
    ] {
        let bad = message("transfer", payload).unwrap_err();
        assert_eq!(bad.details, "payload: expected either to or withCallId");
    }
    refused(
        "transfer",
        "withCallId",
        &[r#"{"callId":"a","withCallId":"a"}"#],
    );
    assert_eq!(
        message("conference", r#"{"callIds":["a","b"],"room":"r1"}"#),
        Ok(ClientMessage::Conference {
            call_ids: vec![text("a"), text("b")],
            room: Some(text("r1")),
        })
    );
    refused(
        "conference",
        "callIds",
        &[
            "{}",
            r#"{"callIds":"a"}"#,
            r#"{"callIds":["a"]}"#,
            r#"{"callIds":["a","a"]}"#,
            r#"{"callIds":["a",1]}"#,
            r#"{"callIds":["a","b\n"]}"#,
        ],
    );
    refused(
        "conference",
        "room",
        &[r#"{"callIds":["a","b"],"room":"r 1"}"#],
    );
    assert_eq!(
        message("message", r#"{"to":"1","text":"a\nb"}"#),
        Ok(ClientMessage::Message {
            to: text("1"),
            text: text("a\nb"),
        })
    );
    let long = |length| format!(r#"{{"to":"1","text":"{}"}}"#, "x".repeat(length));
    assert!(message("message", &long(8192)).is_ok());
    refused(
        "message",
        "text",
        &[
            &long(8193),
            r#"{"to":"1","text":"\u0000"}"#,
            r#"{"to":"1","text":""}"#,
        ],
    );
    assert_eq!(message("unregister", "{}"), Ok(ClientMessage::Unregister));
}

#[test]
fn a_script_reads_variables() {
    let frame = br#"{"type":"call","payload":{"to":"00\u0034","n":1,"m":-2,"f":1.5,"b":true,"z":null,"o":{"k":"v","token":"t"},
        "l":["a"],"password":"p","digest":{"response":"r"},"evil":"a\r\nX: y","sdp":"v=0\r\n","text":"a\nb"},"id":"i1"}"#;
    let get = |path: &str| variable(frame, path);
    for (path, value) in [
        ("type", "call"),
        ("id", "i1"),
        ("payload.to", "004"),
        ("payload.n", "1"),
        ("payload.m", "-2"),
        ("payload.f", "1.5"),
        ("payload.b", "true"),
        ("payload.o.k", "v"),
        ("payload.sdp", "v=0\r\n"),
        ("payload.text", "a\nb"),
    ] {
        assert_eq!(get(path).as_deref(), Some(value), "{path}");
    }
    for path in [
        "",
        "payload",
        "payload.",
        "payload.z",
        "payload.o",
        "payload.l",
        "payload.l.0",
        "payload.absent",
        "payload.to.x",
        "type.x",
        "id.x",
        "call.id",
        "payload.password",
        "payload.o.token",
        "payload.digest.response",
        "payload.evil",
    ] {
        assert_eq!(get(path), None, "{path}");
    }
    assert_eq!(variable(b"{", "type"), None);
    assert_eq!(variable(b"\xff", "type"), None);
}

#[test]
fn a_refusal_becomes_an_error() {
    let bad = message("hold", r#"{"callId":"c"}"#).unwrap_err();
    assert_eq!(
        rtc_json_protocol::encode(&bad.error(), bad.id.as_deref().unwrap()),
        r#"{"type":"error","payload":{"message":"Bad message","code":400,"details":"payload.hold: expected true or false","request":"7","retryable":false},"id":"7"}"#
    );
}
