//! Names with addresses, as in From, To, Contact and Route.

use std::fmt;

use crate::message::{find_outside, is_token, split_list, unquote};
use crate::Error;

/// A name-addr or addr-spec with its header parameters (RFC 3261 20.10). Holds no control characters; written out, it is
/// always a name-addr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// Display name without quotes and escapes; never empty.
    pub display: Option<String>,
    /// The URI, as written.
    pub uri: String,
    /// Parameters after the URI. Values are as written, quotes included.
    pub params: Vec<(String, Option<String>)>,
}

impl NameAddr {
    /// Reads the first element of a header value.
    ///
    /// # Errors
    /// [`Error::Control`], or [`Error::NameAddr`] for anything that is no address (`*` included).
    pub fn parse(value: &str) -> Result<Self, Error> {
        if value.contains(char::is_control) {
            return Err(Error::Control);
        }
        let value = split_list(value).next().ok_or(Error::NameAddr)?;
        let (display, uri, params) = match find_outside(value, b'<') {
            Some(open) => {
                let (uri, after) = value[open + 1..].split_once('>').ok_or(Error::NameAddr)?;
                (parse_display(value[..open].trim())?, uri, after)
            }
            // without brackets, what follows a semicolon belongs to the header field (RFC 3261 20.10)
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (None, &value[..end], &value[end..])
            }
        };
        let uri = uri.trim();
        let scheme = uri.split(':').next().unwrap_or_default();
        if scheme.len() == uri.len()
            || !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            || uri.contains(|c: char| c.is_whitespace() || "<>\"".contains(c))
        {
            return Err(Error::NameAddr);
        }
        Ok(NameAddr {
            display,
            uri: uri.to_owned(),
            params: parse_params(params)?,
        })
    }

    /// The `tag` parameter, if it has a value.
    pub fn tag(&self) -> Option<&str> {
        self.param("tag").flatten()
    }

    /// A parameter: `Some(None)` when it stands there without a value.
    pub fn param(&self, name: &str) -> Option<Option<&str>> {
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_deref())
    }

    /// The same without parameters.
    pub fn without_params(&self) -> Self {
        NameAddr {
            display: self.display.clone(),
            uri: self.uri.clone(),
            params: Vec::new(),
        }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Ok(display)) = self.display.as_deref().map(quote_display) {
            write!(f, "{display} ")?;
        }
        write!(f, "<{}>", self.uri)?;
        for (name, value) in &self.params {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        Ok(())
    }
}

/// Writes a text as a quoted-string (RFC 3261 25.1), quotes included.
///
/// # Errors
/// [`Error::Control`] when it holds a control character.
pub fn quote_display(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if c.is_control() {
            return Err(Error::Control);
        }
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

fn parse_display(text: &str) -> Result<Option<String>, Error> {
    let Some(quoted) = text.strip_prefix('"') else {
        if text.contains('"') {
            return Err(Error::NameAddr);
        }
        return Ok((!text.is_empty()).then(|| text.to_owned()));
    };
    let mut out = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next() {
            Some('"') => break,
            Some('\\') => out.push(chars.next().ok_or(Error::NameAddr)?),
            Some(c) => out.push(c),
            None => return Err(Error::NameAddr),
        }
    }
    if !chars.as_str().is_empty() {
        return Err(Error::NameAddr);
    }
    Ok((!out.trim().is_empty()).then_some(out))
}

fn parse_params(text: &str) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut params = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        rest = rest.strip_prefix(';').ok_or(Error::NameAddr)?;
        let end = find_outside(rest, b';').unwrap_or(rest.len());
        let (param, after) = rest.split_at(end);
        rest = after;
        let (name, value) = match param.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (param.trim(), None),
        };
        // what is kept is written out again, so it must end where it seems to end
        if value.is_some_and(|value| unquote(value).is_none()) {
            return Err(Error::NameAddr);
        }
        match name {
            "" if value.is_none() => {}
            _ if is_token(name) => params.push((name.to_owned(), value.map(str::to_owned))),
            _ => return Err(Error::NameAddr),
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        let addr = NameAddr::parse(r#""A. \"G\" \\ B" <sip:agb@bell>;tag=a48s;x="a;b""#).unwrap();
        assert_eq!(addr.display.as_deref(), Some(r#"A. "G" \ B"#));
        assert_eq!(addr.uri, "sip:agb@bell");
        assert_eq!(addr.tag(), Some("a48s"));
        assert_eq!(addr.param("X"), Some(Some("\"a;b\"")));
        let addr = NameAddr::parse("sip:+12125551212@server.net;tag=887s").unwrap();
        assert_eq!(addr.display, None);
        assert_eq!(addr.uri, "sip:+12125551212@server.net");
        assert_eq!(addr.tag(), Some("887s"));
        let addr =
            NameAddr::parse("Anonymous User<sip:c8oqz84zk7z@privacy.org;lr> ; tag = x ;y").unwrap();
        assert_eq!(addr.display.as_deref(), Some("Anonymous User"));
        assert_eq!(addr.uri, "sip:c8oqz84zk7z@privacy.org;lr");
        assert_eq!(addr.tag(), Some("x"));
        assert_eq!(addr.param("y"), Some(None));
        assert_eq!(addr.param("z"), None);
    }

    #[test]
    fn the_first_of_several_counts() {
        let addr = NameAddr::parse("\"a, <b>\" <sip:a,b@c>;q=1, <sip:d@e>;tag=no").unwrap();
        assert_eq!(addr.display.as_deref(), Some("a, <b>"));
        assert_eq!(addr.uri, "sip:a,b@c");
        assert_eq!(addr.tag(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for value in [
            "",
            "*",
            "<>",
            "<sip:a",
            "\"a <sip:b@c>",
            "\"a\" x <sip:b@c>",
            "a\"b <sip:b@c>",
            "<alice>",
            "<sip:a b@c>",
            "<sip:a@c>x",
            "<<sip:a@c>>",
            "<sip:a@c>;x=\"y",
            "<sip:a@c>;x=y\"",
            "<sip:a@c>;x=\"y\\\"",
            "<sip:a@c>;x=y z",
            "<sip:a@c>;x y",
            "<sip:a@c>;=y",
        ] {
            assert_eq!(NameAddr::parse(value), Err(Error::NameAddr), "{value}");
        }
        assert_eq!(NameAddr::parse("<sip:a@b>\r\nX: y"), Err(Error::Control));
    }

    #[test]
    fn written_out_it_reads_back() {
        for value in [
            r#""A \"x\" \\" <sip:a@b;lr>;tag=1;q"#,
            "<sip:a@b>",
            r#""Bob" <tel:+1>"#,
        ] {
            let addr = NameAddr::parse(value).unwrap();
            assert_eq!(addr.to_string(), value);
            assert_eq!(addr.without_params().params, []);
        }
    }

    #[test]
    fn display_names_cannot_break_out() {
        assert_eq!(
            quote_display("a\" <sip:x>\\").unwrap(),
            r#""a\" <sip:x>\\""#
        );
        assert_eq!(quote_display("Jörg 😀").unwrap(), "\"Jörg 😀\"");
        for text in ["a\r\nX: y", "\0", "\u{7f}", "\u{85}", "\t"] {
            assert_eq!(quote_display(text), Err(Error::Control), "{text:?}");
        }
    }
}
