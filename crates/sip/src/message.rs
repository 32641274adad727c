//! A view over a raw message.

use std::borrow::Cow;
use std::fmt;

use crate::Error;

/// A SIP message as it was received. Nothing is copied: each question looks it up in the text again.
#[derive(Clone)]
pub struct Message<'a> {
    start: Start<'a>,
    /// header fields with their line ends, without the empty line
    fields: &'a [u8],
    body: &'a [u8],
}

#[derive(Clone, Copy)]
enum Start<'a> {
    Request { method: &'a str, uri: &'a str },
    Reply { code: u16, reason: &'a [u8] },
}

impl<'a> Message<'a> {
    /// Reads the start line and finds the body. Header fields are not looked at, save `Content-Length`; a line that is no
    /// header field is passed over.
    ///
    /// Empty lines before the start line are skipped (RFC 3261 7.5), lines may end with LF alone. Without `Content-Length`
    /// the body goes to the end (RFC 3261 18.3).
    ///
    /// # Errors
    /// [`Error::StartLine`], [`Error::Unfinished`], [`Error::Length`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, Error> {
        let begin = raw
            .iter()
            .position(|byte| !matches!(byte, b'\r' | b'\n'))
            .ok_or(Error::StartLine)?;
        let (line, after) = next_line(&raw[begin..]);
        let start = Start::parse(line)?;
        let mut rest = after;
        let body = loop {
            if rest.is_empty() {
                return Err(Error::Unfinished);
            }
            let (line, next) = next_line(rest);
            if line.is_empty() {
                break next;
            }
            rest = next;
        };
        let fields = &after[..after.len() - rest.len()];
        let mut message = Message {
            start,
            fields,
            body,
        };
        if let Some(length) = message.content_length()? {
            message.body = body.get(..length).ok_or(Error::Length)?;
        }
        Ok(message)
    }

    /// Method of a request.
    pub fn method(&self) -> Option<&'a str> {
        match self.start {
            Start::Request { method, .. } => Some(method),
            Start::Reply { .. } => None,
        }
    }

    /// Request-URI of a request.
    pub fn request_uri(&self) -> Option<&'a str> {
        match self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Reply { .. } => None,
        }
    }

    /// Status of a reply, 100 to 699.
    pub fn code(&self) -> Option<u16> {
        match self.start {
            Start::Request { .. } => None,
            Start::Reply { code, .. } => Some(code),
        }
    }

    /// Reason phrase of a reply; may be empty. Without control characters.
    pub fn reason(&self) -> Option<Cow<'a, str>> {
        match self.start {
            Start::Request { .. } => None,
            Start::Reply { reason, .. } => Some(clean(reason)),
        }
    }

    /// Value of the first header field of that name, see [`headers`](Self::headers).
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        self.headers(name).next()
    }

    /// Values of all header fields of that name, in their order, whether they are written in full or in compact form, in
    /// upper or lower case.
    ///
    /// A value has no space around it and no control characters: folds have become one space (RFC 3261 7.3.1), and so has
    /// anything else that does not belong there. Bytes that are not UTF-8 become U+FFFD.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = Cow<'a, str>> + use<'a, 'n> {
        self.fields()
            .filter(move |field| same_name(field.name, name))
            .map(|field| clean(field.value))
    }

    /// All header fields in their order, names in full and values as [`headers`](Self::headers) gives them. What has no
    /// proper name is left out.
    pub fn all_headers(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.fields().filter_map(|field| {
            let name = match field.name {
                [letter] => full_name(*letter),
                _ => None,
            };
            let written = std::str::from_utf8(field.name).ok();
            let name = name.or(written.filter(|name| is_token(name)))?;
            Some((name, clean(field.value)))
        })
    }

    /// The elements of all header fields of that name whose values are lists (`Contact`, `Record-Route`, `Supported`, …).
    pub fn list(&self, name: &str) -> Vec<String> {
        self.headers(name)
            .flat_map(|value| {
                split_list(&value)
                    .map(str::to_owned)
                    .collect::<Vec<String>>()
            })
            .collect()
    }

    /// The body: as long as `Content-Length` says, or all that came.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The media type of the body in lower case, without parameters.
    pub fn content_type(&self) -> Option<String> {
        let value = self.header("Content-Type")?;
        let kind = value.split(';').next().unwrap_or_default().trim();
        Some(kind.to_ascii_lowercase())
    }

    /// Number in `CSeq`.
    pub fn cseq(&self) -> Option<u32> {
        self.header("CSeq")?.split_whitespace().next()?.parse().ok()
    }

    /// Method in `CSeq`: for a reply, that of the request.
    pub fn cseq_method(&self) -> Option<String> {
        Some(self.header("CSeq")?.split_whitespace().nth(1)?.to_owned())
    }

    fn fields(&self) -> Fields<'a> {
        Fields { rest: self.fields }
    }

    fn content_length(&self) -> Result<Option<usize>, Error> {
        let mut length = None;
        for value in self.headers("Content-Length") {
            // `parse` alone would take a sign
            if !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Error::Length);
            }
            let number: usize = value.parse().map_err(|_| Error::Length)?;
            if length.is_some_and(|known| known != number) {
                return Err(Error::Length);
            }
            length = Some(number);
        }
        Ok(length)
    }
}

/// Only the start line: header fields can hold credentials.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.start {
            Start::Request { method, uri } => write!(f, "Message({method} {uri})"),
            Start::Reply { code, .. } => write!(f, "Message({code})"),
        }
    }
}

/// Splits a list at its commas, except those within quotes and angle brackets. Empty elements are left out.
pub fn split_list(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (element, after) = match find_outside(rest, b',') {
                Some(comma) => (&rest[..comma], &rest[comma + 1..]),
                None => (rest, ""),
            };
            rest = after;
            let element = element.trim();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    })
}

/// Position of the first such byte (which is ASCII) outside quotes and angle brackets.
pub(crate) fn find_outside(text: &str, wanted: u8) -> Option<usize> {
    let (mut quoted, mut escaped, mut bracket) = (false, false, false);
    for (position, byte) in text.bytes().enumerate() {
        if escaped {
            escaped = false;
        } else if quoted {
            match byte {
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
        } else if byte == wanted && !bracket {
            return Some(position);
        } else {
            match byte {
                // within a URI a quote is no quote
                b'"' if !bracket => quoted = true,
                b'<' => bracket = true,
                b'>' => bracket = false,
                _ => {}
            }
        }
    }
    None
}

/// What stands between the quotes of a quoted-string, escapes and all, or a text without quotes as it is.
pub(crate) fn unquote(value: &str) -> Option<&str> {
    let Some(rest) = value.strip_prefix('"') else {
        let plain = !value.contains(|c: char| c.is_whitespace() || "\"\\<>".contains(c));
        return plain.then_some(value);
    };
    rest.strip_suffix('"').filter(|inner| closes_at_end(inner))
}

/// No quote in it is unescaped, and the last character escapes nothing beyond it.
fn closes_at_end(inner: &str) -> bool {
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}

impl<'a> Start<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, Error> {
        let is_version = |text: &[u8]| text.eq_ignore_ascii_case(b"SIP/2.0");
        if let Some((_, after)) = cut(line, b' ').filter(|(first, _)| is_version(first)) {
            let (code, reason) = cut(after, b' ').unwrap_or((after, b""));
            let code = std::str::from_utf8(code)
                .ok()
                .filter(|code| code.len() == 3)
                .and_then(|code| code.parse::<u16>().ok())
                .filter(|code| (100..700).contains(code))
                .ok_or(Error::StartLine)?;
            return Ok(Start::Reply { code, reason });
        }
        let line = std::str::from_utf8(line).map_err(|_| Error::StartLine)?;
        let mut parts = line.split(' ');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(method), Some(uri), Some(version), None)
                if is_token(method)
                    && is_version(version.as_bytes())
                    && !uri.is_empty()
                    && !uri.contains(|c: char| {
                        c.is_control() || c.is_whitespace() || "<>\"".contains(c)
                    }) =>
            {
                Ok(Start::Request { method, uri })
            }
            _ => Err(Error::StartLine),
        }
    }
}

struct Field<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let begin = self.rest;
            let (_, mut after) = next_line(begin);
            while matches!(after.first(), Some(b' ' | b'\t')) {
                after = next_line(after).1;
            }
            self.rest = after;
            let field = &begin[..begin.len() - after.len()];
            if let Some((name, value)) = cut(field, b':') {
                return Some(Field {
                    name: name.trim_ascii_end(),
                    value,
                });
            }
        }
        None
    }
}

/// The line without its end, and what follows.
fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = cut(text, b'\n').unwrap_or((text, b""));
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|byte| *byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

/// Text of a value: trimmed, UTF-8, and without control characters.
fn clean(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw.trim_ascii());
    if !text.contains(char::is_control) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut folding = false;
    for c in text.chars() {
        if c.is_control() {
            if !folding {
                out.push(' ');
            }
            folding = true;
        } else if !(folding && c == ' ') {
            out.push(c);
            folding = false;
        }
    }
    Cow::Owned(out)
}

/// RFC 3261 25.1 `token`
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
}

fn same_name(name: &[u8], wanted: &str) -> bool {
    if let [letter] = name {
        if let Some(full) = full_name(*letter) {
            return full.eq_ignore_ascii_case(wanted) || wanted.as_bytes() == name;
        }
    }
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// The compact forms that IANA lists.
fn full_name(letter: u8) -> Option<&'static str> {
    Some(match letter.to_ascii_lowercase() {
        b'a' => "Accept-Contact",
        b'b' => "Referred-By",
        b'c' => "Content-Type",
        b'd' => "Request-Disposition",
        b'e' => "Content-Encoding",
        b'f' => "From",
        b'i' => "Call-ID",
        b'j' => "Reject-Contact",
        b'k' => "Supported",
        b'l' => "Content-Length",
        b'm' => "Contact",
        b'n' => "Identity-Info",
        b'o' => "Event",
        b'r' => "Refer-To",
        b's' => "Subject",
        b't' => "To",
        b'u' => "Allow-Events",
        b'v' => "Via",
        b'x' => "Session-Expires",
        b'y' => "Identity",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/WSS a;branch=z9hG4bK1\r\n\
        i: abc@host\r\n\
        CSEQ : 7  INVITE\r\n\
        Subject: one\r\n  two\r\n\t three\r\n\
        Contact: \"a, b\" <sip:x,y@host>;q=1, <sip:z@host>\r\n\
        m: <sip:last@host>\r\n\
        l: 3\r\n\r\nabcdef";

    #[test]
    fn a_reply_is_taken_apart() {
        let message = Message::parse(REPLY).unwrap();
        assert_eq!(message.code(), Some(200));
        assert_eq!(message.reason().unwrap(), "OK");
        assert_eq!(message.method(), None);
        assert_eq!(message.request_uri(), None);
        assert_eq!(message.header("Call-ID").unwrap(), "abc@host");
        assert_eq!(message.header("call-id").unwrap(), "abc@host");
        assert_eq!(message.cseq(), Some(7));
        assert_eq!(message.cseq_method().as_deref(), Some("INVITE"));
        assert_eq!(message.header("Subject").unwrap(), "one two three");
        assert_eq!(message.headers("Contact").count(), 2);
        let names: Vec<&str> = message.all_headers().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "Via",
                "Call-ID",
                "CSEQ",
                "Subject",
                "Contact",
                "Contact",
                "Content-Length"
            ]
        );
        assert_eq!(
            message.list("Contact"),
            [
                "\"a, b\" <sip:x,y@host>;q=1",
                "<sip:z@host>",
                "<sip:last@host>"
            ]
        );
        assert_eq!(message.body(), b"abc");
        assert_eq!(message.header("Absent"), None);
    }

    #[test]
    fn a_request_is_taken_apart() {
        let message = Message::parse(
            b"\r\n\r\nINVITE sip:a@b SIP/2.0\nContent-Type: Application/SDP;x=y\n\nv=0",
        )
        .unwrap();
        assert_eq!(message.method(), Some("INVITE"));
        assert_eq!(message.request_uri(), Some("sip:a@b"));
        assert_eq!(message.code(), None);
        assert_eq!(message.content_type().as_deref(), Some("application/sdp"));
        assert_eq!(message.body(), b"v=0");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let error = |raw: &[u8]| Message::parse(raw).unwrap_err();
        assert_eq!(error(b""), Error::StartLine);
        assert_eq!(error(b"\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"SIP/2.0 99 x\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"SIP/2.0 +20 x\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"SIP/2.0 700 x\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"SIP/2.0 4294967301 x\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"INVITE sip:a@b SIP/7.0\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"INVITE  sip:a@b SIP/2.0\r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"INVITE sip:a@b SIP/2.0 \r\n\r\n"), Error::StartLine);
        assert_eq!(error(b"SIP/2.0 200 OK\r\nTo: x\r\n"), Error::Unfinished);
        assert_eq!(error(b"SIP/2.0 200 OK"), Error::Unfinished);
        for length in [
            "4",
            "-1",
            "+1",
            "x",
            "1\r\nl: 2",
            "99999999999999999999",
            "",
        ] {
            let raw = format!("SIP/2.0 200 OK\r\nContent-Length: {length}\r\n\r\nabc");
            let result = Message::parse(raw.as_bytes());
            assert_eq!(result.unwrap_err(), Error::Length, "{length}");
        }
    }

    #[test]
    fn values_have_no_control_characters() {
        let message = Message::parse(b"SIP/2.0 200 a\rb\r\nX: a\0b\rc\td\x7f\xff\r\n\r\n").unwrap();
        assert_eq!(message.header("X").unwrap(), "a b c d \u{fffd}");
        assert_eq!(message.reason().unwrap(), "a b");
    }

    #[test]
    fn credentials_do_not_show() {
        let raw = b"REGISTER sip:a SIP/2.0\r\nAuthorization: Digest response=\"s3cret\"\r\n\r\n";
        assert!(!format!("{:?}", Message::parse(raw).unwrap()).contains("s3cret"));
    }

    #[test]
    fn lists_split_outside_quotes_and_brackets() {
        let split = |text| split_list(text).collect::<Vec<_>>();
        assert_eq!(split("a, b ,,c"), ["a", "b", "c"]);
        assert_eq!(split(r#""x\",y" <a>, b"#), [r#""x\",y" <a>"#, "b"]);
        assert_eq!(split("<sip:a\",b>, c"), ["<sip:a\",b>", "c"]);
        assert!(split(" , ").is_empty());
    }
}
