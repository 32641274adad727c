//! What must hold for any input.

use proptest::prelude::*;
use rtc_json_sip::{
    authorization, choose, contact_expires, end_reason, escape_user, parse_reason, q850_cause,
    quote_display, reasons, sipfrag_status, split_list, unescape_user, valid_host_port, Algorithm,
    Challenge, Dialog, Ha1, Message, NameAddr, Uri,
};

const INVITE: &str = "INVITE sip:1001@gw SIP/2.0\r\n\
    Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
    Record-Route: <sip:p2;lr>, \"x, y\" <sip:p1;lr>\r\n\
    f: \"B \\\" ob\" <sip:bob@b>;tag=bt\r\n\
    To: <sip:1001@gw>\r\n\
    Call-ID: c1\r\n\
    CSeq: 17 INVITE\r\n\
    Contact: <sip:bob@10.0.0.1:5070;transport=tcp>;expires=60\r\n\
    Reason: Q.850;cause=17;text=\"a;b\"\r\n\
    \tSIP;cause=486\r\n\
    WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n\
    Content-Length: 4\r\n\r\nabcd";

/// Header lines as they would be sent: no control character but the line ends themselves.
fn clean_lines(lines: &str) -> bool {
    lines
        .split_terminator("\r\n")
        .all(|line| !line.contains(char::is_control))
}

fn exercise(message: &Message<'_>) {
    for name in ["From", "To", "Contact", "Record-Route", "Via", "Reason"] {
        for value in message.headers(name) {
            assert!(!value.contains(char::is_control));
        }
    }
    for dialog in [Dialog::incoming(message, "t"), Dialog::from_reply(message)]
        .into_iter()
        .flatten()
    {
        assert!(clean_lines(&dialog.route_headers()));
        for text in [
            dialog.request_uri(),
            dialog.next_hop(),
            &dialog.remote_uri,
            &dialog.local_uri,
            &dialog.call_id,
            &dialog.remote_tag,
        ] {
            assert!(!text.contains(char::is_control));
        }
    }
    for reason in reasons(message) {
        assert!(!reason.protocol.is_empty());
    }
    let _ = q850_cause(message);
    let _ = contact_expires(message, "sip:bob@10.0.0.1:5070");
    let challenges: Vec<Challenge> = message
        .headers("WWW-Authenticate")
        .filter_map(|value| Challenge::parse(&value).ok())
        .collect();
    if let Some(challenge) = choose(&challenges) {
        let ha1 = Ha1::new(&challenge.realm, "00", "11");
        let value = authorization(challenge, "u", &ha1, "INVITE", "sip:x", "c", 1).unwrap();
        assert!(!value.contains(char::is_control));
    }
}

proptest! {
    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::parse(&raw) {
            exercise(&message);
        }
        let _ = sipfrag_status(&raw);
    }

    /// Bytes overwritten, put in and taken out.
    #[test]
    fn a_damaged_invite(
        damage in prop::collection::vec((0..INVITE.len(), any::<u8>(), 0..3u8), 1..6)
    ) {
        let mut raw = INVITE.as_bytes().to_vec();
        for (position, byte, kind) in damage {
            let position = position.min(raw.len() - 1);
            match kind {
                0 => raw[position] = byte,
                1 => raw.insert(position, byte),
                _ => {
                    raw.remove(position);
                }
            }
        }
        if let Ok(message) = Message::parse(&raw) {
            exercise(&message);
        }
    }

    /// Characters that matter to the parsers, in any order.
    #[test]
    fn any_text(text in "([a-z0-9 ;:,<>\"\\\\=@%\\[\\]?\r\n\0\u{85}é]|sip:|Digest |tag=|realm=|nonce=|cause=){0,40}") {
        if let Ok(addr) = NameAddr::parse(&text) {
            prop_assert_eq!(NameAddr::parse(&addr.to_string()), Ok(addr));
        }
        if let Ok(uri) = Uri::parse(&text) {
            prop_assert!(!unescape_user(uri.user).contains(char::is_control));
        }
        prop_assert!(split_list(&text).all(|element| !element.is_empty()));
        prop_assert!(!unescape_user(&text).contains(char::is_control));
        if valid_host_port(&text) {
            let uri = format!("sip:u@{text}");
            prop_assert!(Uri::parse(&uri).is_ok());
        }
        let _ = parse_reason(&text);
        let _ = Challenge::parse(&text);
    }

    #[test]
    fn users_go_there_and_back(user in "[^\\p{Cc}]{1,20}") {
        let escaped = escape_user(&user);
        prop_assert!(escaped.is_ascii() && !escaped.contains([' ', '@', '<', '>', '"', '#']));
        prop_assert_eq!(unescape_user(&escaped), user);
    }

    #[test]
    fn display_names_go_there_and_back(name in "[^\\p{Cc}]{1,20}") {
        let value = format!("{} <sip:a@b>;tag=t", quote_display(&name).unwrap());
        let addr = NameAddr::parse(&value).unwrap();
        prop_assert_eq!(addr.tag(), Some("t"));
        let display = addr.display.unwrap_or_default();
        prop_assert_eq!(display.trim(), name.trim());
    }

    #[test]
    fn what_this_side_begins_is_clean(text in any::<String>()) {
        let dialog = Dialog::outgoing(&text, &text, &text, &text, &text);
        for text in [&dialog.call_id, &dialog.local_tag, &dialog.local_uri, &dialog.remote_uri] {
            prop_assert!(!text.contains(char::is_control));
        }
        prop_assert!(clean_lines(&dialog.route_headers()));
    }

    #[test]
    fn any_answer_is_clean(user in any::<String>(), uri in any::<String>(), cnonce in any::<String>()) {
        let challenge = Challenge::parse("Digest realm=\"r\", nonce=\"n\", qop=\"auth\"").unwrap();
        let ha1 = Ha1::new("r", "00", "");
        if let Some(value) = authorization(&challenge, &user, &ha1, "BYE", &uri, &cnonce, 1) {
            prop_assert!(!value.contains(char::is_control));
            prop_assert_eq!(value.matches('"').count(), 12);
        }
        prop_assert_eq!(ha1.get(Algorithm::Sha256), None);
    }

    #[test]
    fn every_end_has_a_word(code in any::<u16>(), cause in any::<Option<u16>>()) {
        const WORDS: [&str; 15] = [
            "normal_clearing", "user_busy", "no_answer", "call_rejected", "cancelled",
            "answered_elsewhere", "unallocated_number", "transferred", "media_error",
            "network_error", "timeout", "not_acceptable", "service_unavailable",
            "session_expired", "internal_error",
        ];
        prop_assert!(WORDS.contains(&end_reason(code, cause)));
    }
}
