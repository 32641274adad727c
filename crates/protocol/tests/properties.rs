//! What must hold for any input.

use proptest::prelude::*;
use rtc_json_protocol::{
    encode, parse, variable, CallSnapshot, Candidate, ClientMessage, ConferenceState, EndReason,
    IceServer, Limits, ProgressState, RecordingState, Remote, Secret, ServerMessage, Timings,
    TransferState, UnregisterReason,
};

const FRAMES: [&str; 8] = [
    r#"{"type":"register","payload":{"dn":"1001","password":"p","displayName":"Ann","expires":300,"resume":"t","last":3},"id":"r-1"}"#,
    r##"{"type":"call","payload":{"to":"*1#","sdp":"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\n","iceServers":[],"headers":{"X-A":"b"}},"id":"c-1"}"##,
    r#"{"type":"iceCandidate","payload":{"callId":"c","candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0}},"id":"i"}"#,
    r#"{"type":"dtmf","payload":{"callId":"c","digit":"12","duration":100},"id":"d"}"#,
    r#"{"type":"transfer","payload":{"callId":"c","withCallId":"d"},"id":"t"}"#,
    r#"{"type":"conference","payload":{"callIds":["a","b"],"room":"r"},"id":"k"}"#,
    r#"{"type":"message","payload":{"to":"2","text":"a\u00e4\ud83d\ude00"},"id":"m"}"#,
    r#"{"id":"h","type":"hangup","payload":{"callId":"c","reason":"busy"}}"#,
];

/// What a frame that was taken must hold, whatever it looked like.
fn check(frame: &[u8]) {
    let Ok(request) = parse(frame, &Limits::default()) else {
        return;
    };
    assert!(
        (1..=64).contains(&request.id.len()) && request.id.bytes().all(|b| (32..127).contains(&b))
    );
    let number = |text: &str| {
        (1..=64).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._+*#-".contains(c))
    };
    let plain = |text: &Option<String>| {
        !text
            .as_deref()
            .unwrap_or_default()
            .contains(char::is_control)
    };
    match request.message {
        ClientMessage::Register(register) => {
            assert!(register.dn.as_deref().is_none_or(number));
            assert!(plain(&register.display_name));
        }
        ClientMessage::Call(call) => {
            assert!(number(&call.to) && plain(&call.display_name));
            assert!(!call.sdp.contains('\0'));
            for (name, value) in call.headers {
                assert!(!name.contains([':', ' ', '\r', '\n']) && plain(&Some(value)));
            }
        }
        ClientMessage::Hangup { call_id, reason } => {
            assert!(plain(&Some(call_id)) && plain(&reason));
        }
        ClientMessage::IceCandidate { candidate, .. } => {
            let candidate = candidate.map(|candidate| candidate.candidate);
            assert!(plain(&candidate) && candidate.as_deref() != Some(""));
        }
        ClientMessage::Transfer {
            to, with_call_id, ..
        } => assert!(to.is_some() != with_call_id.is_some() && to.as_deref().is_none_or(number)),
        _ => {}
    }
}

#[test]
fn the_frames_are_good() {
    for frame in FRAMES {
        let request = parse(frame.as_bytes(), &Limits::default());
        assert!(request.is_ok(), "{request:?}");
    }
}

fn message() -> impl Strategy<Value = ServerMessage> {
    let texts = (any::<String>(), any::<String>(), any::<Option<String>>());
    let numbers = (
        any::<u16>(),
        any::<Option<u16>>(),
        any::<u64>(),
        any::<bool>(),
    );
    let headers = prop::collection::vec((any::<String>(), any::<String>()), 0..4);
    (texts, numbers, headers, 0..19usize).prop_map(
        |((call_id, other, option), (code, cause, long, flag), headers, kind)| match kind {
            0 => ServerMessage::Registered {
                dn: call_id.clone(),
                expires: u32::from(code),
                server: other.clone(),
                session: Secret::new(other.clone()),
                protocol: 1,
                ice_servers: vec![IceServer {
                    urls: vec![other.clone()],
                    username: option.clone(),
                    credential: option.clone().map(Secret::from),
                }],
                calls: vec![CallSnapshot {
                    call_id,
                    direction: "in",
                    state: "incoming",
                    to: other.clone(),
                    from: other,
                    display_name: option.clone(),
                    sdp: option.clone(),
                    hold: flag,
                    remote_hold: flag,
                    muted: flag,
                    recording: None,
                    since: long,
                    request: option,
                }],
            },
            1 => ServerMessage::RegistrationFailed {
                reason: other,
                code,
                retry_after: Some(u64::from(code)),
            },
            2 => ServerMessage::Challenge {
                realm: other.clone(),
                nonce: call_id,
                algorithm: other.clone(),
                qop: other.clone(),
                method: other.clone(),
                uri: other,
                call_id: option,
            },
            3 => ServerMessage::Unregistered {
                dn: other,
                reason: UnregisterReason::ALL[usize::from(code) % UnregisterReason::ALL.len()],
            },
            4 => ServerMessage::IncomingCall {
                call_id,
                from: other,
                display_name: option.clone(),
                sdp: option.clone(),
                to: option.clone(),
                headers,
                diversion: option,
            },
            5 => ServerMessage::CallProgress {
                call_id,
                state: ProgressState::ALL[usize::from(code) % ProgressState::ALL.len()],
                sdp: option.clone(),
                request: option,
            },
            6 => ServerMessage::CallAccepted {
                call_id,
                sdp: other,
            },
            7 => ServerMessage::CallUpdated {
                call_id,
                hold: flag,
                remote_hold: !flag,
                sdp: option.clone(),
                answer_needed: option.is_some().then_some(flag),
                remote: flag.then_some(Remote {
                    number: other,
                    display_name: option.unwrap_or_default(),
                }),
            },
            8 => ServerMessage::CallEnded {
                call_id,
                reason: EndReason::ALL[usize::from(code) % EndReason::ALL.len()],
                duration: long,
                code: cause,
                cause,
                timings: flag.then_some(Timings {
                    ringing: Some(long),
                    answered: cause.map(u64::from),
                }),
            },
            9 => ServerMessage::IceCandidate {
                call_id,
                candidate: flag.then_some(Candidate {
                    candidate: other,
                    sdp_mid: option,
                    sdp_m_line_index: cause,
                }),
            },
            10 => ServerMessage::TransferProgress {
                call_id,
                state: TransferState::ALL[usize::from(code) % TransferState::ALL.len()],
                code: cause,
            },
            11 => ServerMessage::ConferenceUpdated {
                room: other,
                call_ids: vec![call_id],
                state: ConferenceState::ALL[usize::from(code) % ConferenceState::ALL.len()],
            },
            12 => ServerMessage::RecordingUpdated {
                call_id,
                state: RecordingState::ALL[usize::from(code) % RecordingState::ALL.len()],
            },
            13 => ServerMessage::Message {
                from: call_id,
                text: other,
            },
            14 | 15 => ServerMessage::Error {
                message: other,
                code,
                details: option.clone(),
                call_id: Some(call_id),
                request: option,
                cause,
                retryable: Some(flag),
                retry_after: flag.then_some(7),
            },
            16 => ServerMessage::Ack {
                call_id: option,
                mode: None,
            },
            17 => ServerMessage::Pong,
            _ => ServerMessage::Notice { reason: other },
        },
    )
}

proptest! {
    #[test]
    fn any_bytes(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&frame);
        let _ = variable(&frame, "payload.x");
    }

    /// Bytes overwritten, put in and taken out.
    #[test]
    fn damaged_frames(
        frame in 0..FRAMES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..5),
    ) {
        let mut frame = FRAMES[frame].as_bytes().to_vec();
        for (position, byte, kind) in damage {
            let position = position.index(frame.len());
            match kind {
                0 => frame[position] = byte,
                1 => frame.insert(position, byte),
                _ => {
                    frame.remove(position);
                }
            }
        }
        check(&frame);
    }

    /// Strings put where strings go: they are taken only when the rules allow them.
    #[test]
    fn any_string_anywhere(text in any::<String>()) {
        let text = serde_json::to_string(&text).unwrap();
        for frame in [
            format!(r#"{{"type":"register","payload":{{"dn":{text},"displayName":{text}}},"id":"1"}}"#),
            format!(r#"{{"type":"call","payload":{{"to":"1","sdp":{text},"displayName":{text}}},"id":"1"}}"#),
            format!(r#"{{"type":"call","payload":{{"to":"1","sdp":"v","headers":{{"X":{text}}}}},"id":"1"}}"#),
            format!(r#"{{"type":"call","payload":{{"to":"1","sdp":"v","headers":{{{text}:"x"}}}},"id":"1"}}"#),
            format!(r#"{{"type":"hangup","payload":{{"callId":"1","reason":{text}}},"id":"1"}}"#),
            format!(r#"{{"type":"hangup","payload":{{"callId":{text}}},"id":{text}}}"#),
        ] {
            check(frame.as_bytes());
        }
    }

    /// serde_json's own reading of a frame is ours, where both take it.
    #[test]
    fn variables_agree_with_serde_json(text in any::<String>(), number in any::<i64>()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let frame = format!(r#"{{"type":"ping","payload":{{"text":{quoted},"n":{number}}},"id":"1"}}"#);
        prop_assert_eq!(variable(frame.as_bytes(), "payload.text"), Some(text));
        prop_assert_eq!(variable(frame.as_bytes(), "payload.n"), Some(number.to_string()));
    }

    #[test]
    fn what_is_sent_has_three_keys(message in message(), id in any::<String>()) {
        let text = encode(&message, &id);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let object = value.as_object().unwrap();
        prop_assert_eq!(object.len(), 3);
        prop_assert!(object["type"].is_string());
        prop_assert!(object["payload"].is_object());
        prop_assert_eq!(object["id"].as_str(), Some(id.as_str()));
        // our own rules hold for what we send, too: no key twice, bounded depth
        let as_payload = format!(r#"{{"type":"ping","payload":{},"id":"1"}}"#, object["payload"]);
        let limits = Limits { max_frame: 1 << 20, ..Limits::default() };
        let parsed = parse(as_payload.as_bytes(), &limits);
        prop_assert!(parsed.is_ok());
        prop_assert_eq!(
            variable(text.as_bytes(), "type"),
            object["type"].as_str().map(str::to_owned)
        );
    }
}
