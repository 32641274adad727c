//! What a registrar grants (RFC 3261 10.2.4, 10.2.8).

use crate::{Message, NameAddr, Uri};

/// Seconds that a 200 to a REGISTER grants: the `expires` of the Contact that is ours (same user, host and port), or else
/// the `Expires` header field.
pub fn contact_expires(message: &Message<'_>, our_contact: &str) -> Option<u32> {
    let ours = Uri::parse(our_contact).ok();
    let granted = message.list("Contact").iter().find_map(|element| {
        let contact = NameAddr::parse(element).ok()?;
        let same = match (&ours, Uri::parse(&contact.uri)) {
            (Some(ours), Ok(uri)) => uri.same_place(ours),
            _ => contact.uri == our_contact,
        };
        match contact.param("expires") {
            Some(Some(seconds)) if same => parse_seconds(seconds),
            _ => None,
        }
    });
    granted.or_else(|| parse_seconds(&message.header("Expires")?))
}

/// Seconds that a 423 demands at least.
pub fn min_expires(message: &Message<'_>) -> Option<u32> {
    parse_seconds(&message.header("Min-Expires")?)
}

fn parse_seconds(text: &str) -> Option<u32> {
    let text = text.trim_matches('"');
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(fields: &str) -> Option<u32> {
        let raw = format!("SIP/2.0 200 OK\r\n{fields}\r\n");
        contact_expires(
            &Message::parse(raw.as_bytes()).unwrap(),
            "sip:10%2301@gw:5070",
        )
    }

    #[test]
    fn our_contact_counts_first() {
        assert_eq!(
            granted(
                "Expires: 9\r\nContact: <sip:10%2301@other>;expires=1, <sip:10%2301@GW:5070;ob>;q=1;Expires=77\r\n"
            ),
            Some(77)
        );
        assert_eq!(
            granted("m: <sip:10%2301@gw:5070>\r\nExpires: 9\r\n"),
            Some(9)
        );
        assert_eq!(
            granted("Contact: <sip:x@gw:5070>;expires=1\r\nExpires: 9\r\n"),
            Some(9)
        );
        assert_eq!(
            granted("Contact: <sip:10%2301@gw:5070>;expires=x\r\n"),
            None
        );
        assert_eq!(
            granted("Contact: <sip:10%2301@gw:5070>;expires=+5\r\n"),
            None
        );
        assert_eq!(granted("Contact: *\r\nExpires: 4294967296\r\n"), None);
        assert_eq!(granted(""), None);
    }

    #[test]
    fn the_least_time() {
        let message = Message::parse(b"SIP/2.0 423 x\r\nMin-Expires: 1800\r\n\r\n").unwrap();
        assert_eq!(min_expires(&message), Some(1800));
    }
}
