//! Why something ended: status codes, Q.850 causes, and the words of the JSON protocol.

use crate::message::is_token;
use crate::{split_list, Message};

/// One value of a `Reason` header field (RFC 3326).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `SIP` or `Q.850`, in upper case whatever the sender wrote.
    pub protocol: String,
    /// SIP status or Q.850 cause.
    pub cause: Option<u16>,
    /// Text for people, without quotes.
    pub text: Option<String>,
}

/// The reason phrase of a status (RFC 3261 section 21 and the registry of IANA); for one that is not known, that of its
/// class. Never empty.
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        425 => "Bad Alert Message",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        555 => "Push Notification Service Not Supported",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        // a status that is not known counts as the x00 of its class, 183 for a provisional one (RFC 3261 8.1.3.2)
        _ => match code / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Multiple Choices",
            5 => "Server Internal Error",
            6 => "Busy Everywhere",
            _ => "Bad Request",
        },
    }
}

/// The first value of a `Reason` header field. One field can hold several: see [`reasons`].
pub fn parse_reason(value: &str) -> Option<Reason> {
    split_list(value).find_map(parse_one)
}

/// All reasons that a message gives.
pub fn reasons(message: &Message<'_>) -> Vec<Reason> {
    message
        .headers("Reason")
        .flat_map(|value| split_list(&value).filter_map(parse_one).collect::<Vec<_>>())
        .collect()
}

/// The Q.850 cause that a message gives.
pub fn q850_cause(message: &Message<'_>) -> Option<u16> {
    reasons(message)
        .into_iter()
        .find(|reason| reason.protocol == "Q.850")
        .and_then(|reason| reason.cause)
}

/// Does a CANCEL, BYE or reply say that another device took the call? (`SIP;cause=200`, RFC 3326 section 1; or Q.850 cause
/// 26, "non-selected user clearing", as Asterisk sends it.)
pub fn answered_elsewhere(message: &Message<'_>) -> bool {
    reasons(message)
        .iter()
        .any(|reason| match reason.protocol.as_str() {
            "SIP" => reason.cause == Some(200),
            "Q.850" => reason.cause == Some(26),
            _ => false,
        })
}

/// The Q.850 cause for a final status (RFC 3398 section 8.2.6.1). `None` where the table has none: success, redirection, 487,
/// and 488 and 606, where it depends on more than the status.
pub fn sip_to_q850(code: u16) -> Option<u16> {
    Some(match code {
        400 | 481 | 500 | 503 => 41,
        401 | 402 | 403 | 407 | 603 => 21,
        404 | 485 | 604 => 1,
        405 => 63,
        406 | 415 | 501 => 79,
        408 | 504 => 102,
        410 => 22,
        413 | 414 | 416 | 420 | 421 | 423 | 505 | 513 => 127,
        480 => 18,
        482 | 483 => 25,
        484 => 28,
        486 | 600 => 17,
        502 => 38,
        _ => return None,
    })
}

/// The status for a Q.850 cause that ends a call before its answer (RFC 3398 section 7.2.4.1). For a cause that is not in the
/// table: 500, as that of its class 127. `None` for 16, normal clearing, which is no failure.
pub fn q850_to_sip(cause: u16) -> Option<u16> {
    Some(match cause {
        16 => return None,
        1..=3 | 26 => 404,
        17 => 486,
        18 => 408,
        19 | 20 | 31 => 480,
        21 | 55 | 57 | 87 => 403,
        22 | 23 => 410,
        27 => 502,
        28 => 484,
        29 | 79 => 501,
        34 | 38 | 41 | 42 | 47 | 58 | 88 => 503,
        65 | 70 => 488,
        102 => 504,
        _ => 500,
    })
}

/// The word of the JSON protocol (`reason` in `callEnded`) for a call that ended with this status and Q.850 cause. `code` 0
/// stands for none: the call was ended by BYE.
///
/// A cause that says something goes before the status, since gateways and Asterisk fold many causes into 480, 500 and 503.
/// Causes that say nothing (16 normal, 31 unspecified, 127 interworking) leave it to the status. What the status cannot show
/// (a 408 that was made here because nobody answered at all) is for the caller to decide.
pub fn end_reason(code: u16, cause: Option<u16>) -> &'static str {
    match cause.and_then(cause_word) {
        Some(word) => word,
        None => status_word(code),
    }
}

fn cause_word(cause: u16) -> Option<&'static str> {
    Some(match cause {
        1 | 2 | 3 | 22 | 28 => "unallocated_number",
        17 => "user_busy",
        18..=20 => "no_answer",
        21 | 55 | 57 | 87 => "call_rejected",
        26 => "answered_elsewhere",
        25 | 27 => "network_error",
        34 | 38 | 41 | 42 | 43 | 44 | 47 => "service_unavailable",
        58 | 65 | 70 | 79 | 88 => "not_acceptable",
        _ => return None,
    })
}

fn status_word(code: u16) -> &'static str {
    match code {
        0 | 200..=299 => "normal_clearing",
        486 | 600 => "user_busy",
        408 | 480 => "no_answer",
        401 | 402 | 403 | 407 | 428 | 429 | 433..=438 | 470 | 603 | 605 | 607..=699 => {
            "call_rejected"
        }
        404 | 410 | 416 | 484 | 485 | 604 => "unallocated_number",
        487 => "cancelled",
        406 | 415 | 420 | 421 | 488 | 494 | 580 | 606 => "not_acceptable",
        430 | 482 | 483 => "network_error",
        300..=399 | 502 | 503 => "service_unavailable",
        504 => "timeout",
        _ => "internal_error",
    }
}

fn parse_one(value: &str) -> Option<Reason> {
    // a text may hold a semicolon, but only within its quotes
    let cut = |text: &str| crate::message::find_outside(text, b';').unwrap_or(text.len());
    let end = cut(value);
    let protocol = value[..end].trim();
    if !is_token(protocol) {
        return None;
    }
    let mut reason = Reason {
        protocol: protocol.to_ascii_uppercase(),
        cause: None,
        text: None,
    };
    let mut rest = &value[end..];
    while let Some(after) = rest.strip_prefix(';') {
        let end = cut(after);
        if let Some((name, value)) = after[..end].split_once('=') {
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "cause" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    reason.cause = value.parse().ok();
                }
                "text" => reason.text = Some(unquoted(value)),
                _ => {}
            }
        }
        rest = &after[end..];
    }
    Some(reason)
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_phrase() {
        assert_eq!(reason_phrase(488), "Not Acceptable Here");
        assert_eq!(reason_phrase(150), "Session Progress");
        assert_eq!(reason_phrase(399), "Multiple Choices");
        assert_eq!(reason_phrase(499), "Bad Request");
        assert_eq!(reason_phrase(599), "Server Internal Error");
        assert_eq!(reason_phrase(699), "Busy Everywhere");
        assert!((0..=u16::MAX).all(|code| !reason_phrase(code).is_empty()));
    }

    #[test]
    fn reasons_are_read() {
        assert_eq!(
            parse_reason(r#"q.850 ; Cause=16;text="a; \"b\", c", SIP;cause=200"#),
            Some(Reason {
                protocol: "Q.850".into(),
                cause: Some(16),
                text: Some("a; \"b\", c".into()),
            })
        );
        assert_eq!(parse_reason("SIP").unwrap().cause, None);
        assert_eq!(parse_reason("SIP;cause=x").unwrap().cause, None);
        assert_eq!(parse_reason("SIP;cause=+7").unwrap().cause, None);
        assert_eq!(parse_reason("SIP;cause=99999").unwrap().cause, None);
        assert_eq!(parse_reason(""), None);
        assert_eq!(parse_reason("\"SIP\""), None);
    }

    #[test]
    fn of_several_reasons_each_is_found() {
        let raw = b"BYE sip:a SIP/2.0\r\nReason: SIP;cause=200;text=\"Call completed elsewhere\" , Q.850;cause=26\r\n\r\n";
        let message = Message::parse(raw).unwrap();
        assert_eq!(reasons(&message).len(), 2);
        assert_eq!(q850_cause(&message), Some(26));
        assert!(answered_elsewhere(&message));
        for (value, elsewhere) in [
            ("SIP;cause=200", true),
            ("Q.850;cause=26", true),
            ("SIP;cause=26", false),
            ("Q.850;cause=16", false),
        ] {
            let raw = format!("CANCEL sip:a SIP/2.0\r\nReason: {value}\r\n\r\n");
            let message = Message::parse(raw.as_bytes()).unwrap();
            assert_eq!(answered_elsewhere(&message), elsewhere, "{value}");
        }
    }

    #[test]
    fn the_words_of_the_protocol() {
        for (code, cause, word) in [
            (486, None, "user_busy"),
            (600, None, "user_busy"),
            (480, None, "no_answer"),
            (408, None, "no_answer"),
            (603, None, "call_rejected"),
            (403, None, "call_rejected"),
            (404, None, "unallocated_number"),
            (410, None, "unallocated_number"),
            (484, None, "unallocated_number"),
            (604, None, "unallocated_number"),
            (487, None, "cancelled"),
            (488, None, "not_acceptable"),
            (606, None, "not_acceptable"),
            (415, None, "not_acceptable"),
            (503, None, "service_unavailable"),
            (502, None, "service_unavailable"),
            (302, None, "service_unavailable"),
            (504, None, "timeout"),
            (500, None, "internal_error"),
            (400, None, "internal_error"),
            (0, None, "normal_clearing"),
            (0, Some(16), "normal_clearing"),
            (487, Some(26), "answered_elsewhere"),
            (487, Some(16), "cancelled"),
            (480, Some(17), "user_busy"),
            (503, Some(1), "unallocated_number"),
            (603, Some(21), "call_rejected"),
            (500, Some(127), "internal_error"),
            (488, Some(31), "not_acceptable"),
            // the far side's timer, not its user
            (408, Some(102), "no_answer"),
        ] {
            assert_eq!(end_reason(code, cause), word, "{code} {cause:?}");
        }
    }

    #[test]
    fn causes_and_statuses() {
        assert_eq!(sip_to_q850(486), Some(17));
        assert_eq!(sip_to_q850(487), None);
        assert_eq!(sip_to_q850(200), None);
        assert_eq!(q850_to_sip(16), None);
        assert_eq!(q850_to_sip(99), Some(500));
        // there and back, where the two tables agree
        for code in [404, 410, 480, 484, 486, 501, 503, 504] {
            let cause = sip_to_q850(code).unwrap();
            let back = q850_to_sip(cause).unwrap();
            assert_eq!(back, if code == 480 { 408 } else { code }, "{code}");
        }
    }
}
