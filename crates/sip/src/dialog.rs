//! Dialogs (RFC 3261 section 12).

use serde::{Deserialize, Serialize};

use crate::uri::escape_header;
use crate::{Error, Message, NameAddr, Uri};

/// What one side of a dialog has to remember. No text in it holds a control character, as long as changes to the public
/// fields keep to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The far side's tag; empty until it has told one.
    pub remote_tag: String,
    /// CSeq of our last request; 0 before the first.
    pub local_cseq: u32,
    /// CSeq of the far side's last request.
    pub remote_cseq: Option<u32>,
    /// URI for requests to the far side.
    pub remote_target: String,
    /// Route set, nearest hop first; each a name-addr.
    pub routes: Vec<String>,
    /// We, as a name-addr without parameters.
    pub local_uri: String,
    /// The far side, as a name-addr without parameters.
    pub remote_uri: String,
}

impl Dialog {
    /// The dialog of a request that we are about to send: no remote tag, no routes, CSeq 0. Control characters in the
    /// arguments are dropped.
    ///
    /// `local_uri` and `remote_uri` are name-addrs without tag, `target` is the Request-URI.
    pub fn outgoing(
        call_id: impl Into<String>,
        local_tag: impl Into<String>,
        local_uri: impl Into<String>,
        remote_uri: impl Into<String>,
        target: impl Into<String>,
    ) -> Self {
        Dialog {
            call_id: printable(call_id),
            local_tag: printable(local_tag),
            remote_tag: String::new(),
            local_cseq: 0,
            remote_cseq: None,
            remote_target: printable(target),
            routes: Vec::new(),
            local_uri: printable(local_uri),
            remote_uri: printable(remote_uri),
        }
    }

    /// The dialog that an INVITE of the far side begins (RFC 3261 12.1.1).
    ///
    /// # Errors
    /// [`Error::Header`] when Call-ID, CSeq, From, To, Contact or Record-Route is missing or bad.
    pub fn incoming(request: &Message<'_>, local_tag: &str) -> Result<Self, Error> {
        let from = address(request, "From")?;
        let contact = contact(request)?.ok_or(Error::Header("Contact"))?;
        Ok(Dialog {
            call_id: call_id(request)?,
            local_tag: printable(local_tag),
            remote_tag: from.tag().unwrap_or_default().to_owned(),
            local_cseq: 0,
            remote_cseq: Some(request.cseq().ok_or(Error::Header("CSeq"))?),
            remote_target: contact,
            routes: record_routes(request)?,
            local_uri: address(request, "To")?.without_params().to_string(),
            remote_uri: from.without_params().to_string(),
        })
    }

    /// The dialog as a reply to our request shows it, when nothing else is left of it (RFC 3261 12.1.2). Without Contact
    /// the address in To is the target.
    ///
    /// # Errors
    /// [`Error::Header`] when Call-ID, CSeq, From, To, Contact or Record-Route is missing or bad.
    pub fn from_reply(reply: &Message<'_>) -> Result<Self, Error> {
        let from = address(reply, "From")?;
        let to = address(reply, "To")?;
        let mut dialog = Dialog {
            call_id: call_id(reply)?,
            local_tag: from.tag().unwrap_or_default().to_owned(),
            remote_tag: String::new(),
            local_cseq: reply.cseq().ok_or(Error::Header("CSeq"))?,
            remote_cseq: None,
            remote_target: to.uri.clone(),
            routes: Vec::new(),
            local_uri: from.without_params().to_string(),
            remote_uri: to.without_params().to_string(),
        };
        dialog.confirm(reply)?;
        Ok(dialog)
    }

    /// Takes what an 18x or 2xx to our INVITE tells of the far side: tag, target, routes. A 2xx after an 18x is told again,
    /// and wins (RFC 3261 13.2.2.4). The target stays when there is no Contact. For a 2xx to a later request there is
    /// [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// [`Error::Header`] when To, Contact or Record-Route cannot be read; the dialog is unchanged then.
    pub fn confirm(&mut self, reply: &Message<'_>) -> Result<(), Error> {
        let to = address(reply, "To")?;
        let target = contact(reply)?;
        let mut routes = record_routes(reply)?;
        routes.reverse();
        self.remote_tag = to.tag().unwrap_or_default().to_owned();
        self.routes = routes;
        if let Some(target) = target {
            self.remote_target = target;
        }
        Ok(())
    }

    /// Takes the Contact of a request or 2xx within the dialog that may move the far side (re-INVITE, UPDATE): only the target
    /// changes, never the routes (RFC 3261 12.2.1.2, 12.2.2; RFC 3311 5.2). Nothing changes when there is no Contact.
    ///
    /// # Errors
    /// [`Error::Header`] when Contact cannot be read.
    pub fn refresh(&mut self, message: &Message<'_>) -> Result<(), Error> {
        if let Some(target) = contact(message)? {
            self.remote_target = target;
        }
        Ok(())
    }

    /// Request-URI of the next request (RFC 3261 12.2.1.1): the remote target, or the first route where that is a strict
    /// router.
    pub fn request_uri(&self) -> &str {
        match self.strict_router() {
            // header fields must not stand in a Request-URI (RFC 3261 19.1.1, table 1)
            Some(route) => route.split('?').next().unwrap_or(route),
            None => &self.remote_target,
        }
    }

    /// URI to send the next request to: the first route, or the remote target without one.
    pub fn next_hop(&self) -> &str {
        self.routes
            .first()
            .map_or(self.remote_target.as_str(), |route| uri_of(route))
    }

    /// The Route header line of the next request, CRLF included; empty without routes.
    pub fn route_headers(&self) -> String {
        let mut routes: Vec<&str> = self.routes.iter().map(String::as_str).collect();
        let target = format!("<{}>", self.remote_target);
        if self.strict_router().is_some() {
            routes.remove(0);
            routes.push(&target);
        }
        if routes.is_empty() {
            return String::new();
        }
        format!("Route: {}\r\n", routes.join(", "))
    }

    /// URI of the first route, if it does not know loose routing.
    fn strict_router(&self) -> Option<&str> {
        let route = uri_of(self.routes.first()?);
        let loose = Uri::parse(route).is_ok_and(|uri| uri.param("lr").is_some());
        (!loose).then_some(route)
    }
}

/// The URI for `Refer-To` of an attended transfer: the far side of `dialog`, told to replace that dialog (RFC 3891, RFC 5589
/// section 7). Goes between angle brackets. The tags are those that the far side sees: its own is `to-tag`.
pub fn replaces(dialog: &Dialog) -> String {
    let value = replaces_value(dialog);
    let target = dialog.remote_target.split('?').next().unwrap_or_default();
    format!("{target}?Replaces={}", escape_header(&value))
}

/// Value of `Replaces` for the far side of `dialog`.
pub fn replaces_value(dialog: &Dialog) -> String {
    format!(
        "{};to-tag={};from-tag={}",
        dialog.call_id, dialog.remote_tag, dialog.local_tag
    )
}

/// Status in the body of a NOTIFY that reports on a transfer (`message/sipfrag`, RFC 3420, RFC 3515 section 2.4.4).
pub fn sipfrag_status(body: &[u8]) -> Option<u16> {
    let line =
        std::str::from_utf8(body.split(|byte| matches!(byte, b'\r' | b'\n')).next()?).ok()?;
    let mut words = line.split(' ');
    let version = words.next()?;
    let code = words.next()?;
    (version.eq_ignore_ascii_case("SIP/2.0") && code.len() == 3)
        .then(|| code.parse().ok())
        .flatten()
        .filter(|code| (100..700).contains(code))
}

/// The text without control characters.
fn printable(text: impl Into<String>) -> String {
    let mut text = text.into();
    // U+0080 to U+009F begin with C2 in UTF-8, as some harmless characters do; hardly any text has one of these bytes
    if !text.bytes().all(|b| b >= b' ' && b != 0x7f && b != 0xc2) {
        text.retain(|c| !c.is_control());
    }
    text
}

fn call_id(message: &Message<'_>) -> Result<String, Error> {
    match message.header("Call-ID") {
        Some(id) if !id.is_empty() => Ok(id.into_owned()),
        _ => Err(Error::Header("Call-ID")),
    }
}

fn address(message: &Message<'_>, name: &'static str) -> Result<NameAddr, Error> {
    message
        .header(name)
        .and_then(|value| NameAddr::parse(&value).ok())
        .ok_or(Error::Header(name))
}

fn contact(message: &Message<'_>) -> Result<Option<String>, Error> {
    match message.header("Contact") {
        None => Ok(None),
        Some(value) => NameAddr::parse(&value)
            .map(|contact| Some(contact.uri))
            .map_err(|_| Error::Header("Contact")),
    }
}

/// In the order of the message.
fn record_routes(message: &Message<'_>) -> Result<Vec<String>, Error> {
    message
        .list("Record-Route")
        .iter()
        .map(|element| {
            NameAddr::parse(element)
                .map(|route| route.to_string())
                .map_err(|_| Error::Header("Record-Route"))
        })
        .collect()
}

/// What stands between the angle brackets.
fn uri_of(route: &str) -> &str {
    crate::message::find_outside(route, b'<')
        .and_then(|open| route[open + 1..].split_once('>'))
        .map_or(route, |(uri, _)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:1001@gw SIP/2.0\r\n\
        Record-Route: <sip:p2;lr>, <sip:p1;lr;x=\"a\">\r\n\
        From: \"Bob\" <sip:bob@b>;tag=bt\r\n\
        To: <sip:1001@gw>\r\n\
        Call-ID: c1\r\n\
        CSeq: 17 INVITE\r\n\
        Contact: \"x\" <sip:bob@10.0.0.1:5070;transport=tcp>;q=1\r\n\r\n";

    fn reply(record_route: &str, contact: &str) -> Vec<u8> {
        format!(
            "SIP/2.0 200 OK\r\n{record_route}From: \"A\" <sip:1001@gw>;tag=at\r\n\
             To: <sip:2@pbx>;tag=xt\r\nCall-ID: c2\r\nCSeq: 5 INVITE\r\n{contact}\r\n"
        )
        .into_bytes()
    }

    fn outgoing() -> Dialog {
        Dialog::outgoing(
            "c2",
            "at",
            "\"A\" <sip:1001@gw>",
            "<sip:2@pbx>",
            "sip:2@pbx",
        )
    }

    #[test]
    fn no_control_character_gets_in() {
        for (text, expected) in [
            ("sip:1@b", "sip:1@b"),
            ("\"Jörg £\" <sip:1@b>", "\"Jörg £\" <sip:1@b>"),
            ("a\r\nb\0c\u{7f}\u{80}\u{85}\u{9f}\u{a0}d", "abc\u{a0}d"),
            ("", ""),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn as_callee_the_routes_keep_their_order() {
        let broken = Message::parse(INVITE).unwrap();
        // a quote cannot stand within a URI
        assert_eq!(
            Dialog::incoming(&broken, "lt"),
            Err(Error::Header("Record-Route"))
        );
        let text = String::from_utf8(INVITE.to_vec()).unwrap();
        let text = text.replace(";x=\"a\"", "");
        let dialog = Dialog::incoming(&Message::parse(text.as_bytes()).unwrap(), "l\r\nt").unwrap();
        assert_eq!(
            dialog,
            Dialog {
                call_id: "c1".into(),
                local_tag: "lt".into(),
                remote_tag: "bt".into(),
                local_cseq: 0,
                remote_cseq: Some(17),
                remote_target: "sip:bob@10.0.0.1:5070;transport=tcp".into(),
                routes: vec!["<sip:p2;lr>".into(), "<sip:p1;lr>".into()],
                local_uri: "<sip:1001@gw>".into(),
                remote_uri: "\"Bob\" <sip:bob@b>".into(),
            }
        );
        assert_eq!(dialog.next_hop(), "sip:p2;lr");
        assert_eq!(dialog.request_uri(), "sip:bob@10.0.0.1:5070;transport=tcp");
        assert_eq!(
            dialog.route_headers(),
            "Route: <sip:p2;lr>, <sip:p1;lr>\r\n"
        );
    }

    #[test]
    fn an_invite_that_lacks_something_makes_no_dialog() {
        for (name, what) in [
            ("From", "From"),
            ("To", "To"),
            ("Call-ID", "Call-ID"),
            ("CSeq", "CSeq"),
            ("Contact", "Contact"),
        ] {
            let text = String::from_utf8(INVITE.to_vec())
                .unwrap()
                .replace(";x=\"a\"", "")
                .replace(&format!("{name}:"), "X:");
            let message = Message::parse(text.as_bytes()).unwrap();
            assert_eq!(
                Dialog::incoming(&message, "t"),
                Err(Error::Header(what)),
                "{name}"
            );
        }
    }

    #[test]
    fn as_caller_the_routes_are_reversed() {
        let raw = reply(
            "Record-Route: <sip:p2;lr>,<sip:p1;lr>\r\nRecord-Route: <sip:p0;lr>\r\n",
            "Contact: <sip:2@10.0.0.9>\r\n",
        );
        let message = Message::parse(&raw).unwrap();
        let mut dialog = outgoing();
        dialog.confirm(&message).unwrap();
        assert_eq!(dialog.remote_tag, "xt");
        assert_eq!(dialog.remote_target, "sip:2@10.0.0.9");
        assert_eq!(dialog.routes, ["<sip:p0;lr>", "<sip:p1;lr>", "<sip:p2;lr>"]);
        dialog.local_cseq = 5;
        assert_eq!(Dialog::from_reply(&message).unwrap(), dialog);
    }

    #[test]
    fn the_last_reply_wins_and_a_bad_one_changes_nothing() {
        let mut dialog = outgoing();
        let first = reply("Record-Route: <sip:p;lr>\r\n", "Contact: <sip:early@x>\r\n");
        dialog.confirm(&Message::parse(&first).unwrap()).unwrap();
        let before = dialog.clone();
        let bad = reply("", "Contact: <broken\r\n");
        assert_eq!(
            dialog.confirm(&Message::parse(&bad).unwrap()),
            Err(Error::Header("Contact"))
        );
        assert_eq!(dialog, before);
        let last = reply("", "");
        dialog.confirm(&Message::parse(&last).unwrap()).unwrap();
        assert!(dialog.routes.is_empty());
        assert_eq!(dialog.remote_target, "sip:early@x");
        assert_eq!(dialog.route_headers(), "");
        assert_eq!(dialog.next_hop(), "sip:early@x");
    }

    #[test]
    fn a_refresh_moves_the_target_only() {
        let mut dialog = outgoing();
        let first = reply("Record-Route: <sip:p;lr>\r\n", "Contact: <sip:a@x>\r\n");
        dialog.confirm(&Message::parse(&first).unwrap()).unwrap();
        let before = dialog.clone();
        dialog
            .refresh(&Message::parse(&reply("", "")).unwrap())
            .unwrap();
        assert_eq!(dialog, before);
        let moved = reply("Record-Route: <sip:q;lr>\r\n", "Contact: <sip:b@y>\r\n");
        dialog.refresh(&Message::parse(&moved).unwrap()).unwrap();
        assert_eq!(dialog.remote_target, "sip:b@y");
        assert_eq!(dialog.routes, before.routes);
    }

    /// RFC 3261 12.2.1.1
    #[test]
    fn a_strict_router_gets_its_own_uri() {
        let mut dialog = outgoing();
        dialog.routes = vec!["<sip:strict?x=y>".into(), "<sip:p;lr>".into()];
        assert_eq!(dialog.request_uri(), "sip:strict");
        assert_eq!(dialog.next_hop(), "sip:strict?x=y");
        assert_eq!(dialog.route_headers(), "Route: <sip:p;lr>, <sip:2@pbx>\r\n");
        // `lr` in the name-addr's own parameters is not the URI's
        dialog.routes = vec!["<sip:strict>;lr".into()];
        assert_eq!(dialog.request_uri(), "sip:strict");
        assert_eq!(dialog.route_headers(), "Route: <sip:2@pbx>\r\n");
        // written by old proxies
        dialog.routes = vec!["<sip:loose;lr=on>".into()];
        assert_eq!(dialog.request_uri(), "sip:2@pbx");
    }

    #[test]
    fn a_record_reads_back() {
        let dialog = outgoing();
        let text = serde_json::to_string(&dialog).unwrap();
        assert_eq!(serde_json::from_str::<Dialog>(&text).unwrap(), dialog);
    }

    #[test]
    fn replaces_is_escaped() {
        let mut dialog = outgoing();
        dialog.call_id = "a@b c".into();
        dialog.remote_tag = "r".into();
        dialog.remote_target = "sip:2@pbx;x?Old=1".into();
        assert_eq!(
            replaces(&dialog),
            "sip:2@pbx;x?Replaces=a%40b%20c%3Bto-tag%3Dr%3Bfrom-tag%3Dat"
        );
    }

    #[test]
    fn fragments() {
        assert_eq!(sipfrag_status(b"SIP/2.0 200 OK\r\n"), Some(200));
        assert_eq!(sipfrag_status(b"sip/2.0 100"), Some(100));
        assert_eq!(sipfrag_status(b"SIP/2.0 1000 x"), None);
        assert_eq!(sipfrag_status(b"HTTP/1.1 200 OK"), None);
        assert_eq!(sipfrag_status(b""), None);
    }
}
