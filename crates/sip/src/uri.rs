//! URIs and what stands in them.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::Error;

/// A `sip:`, `sips:` or `tel:` URI, taken apart but not unescaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// As written; compare without regard to case.
    pub scheme: &'a str,
    /// User part, still escaped; empty if there is none. Of a `tel:` URI: the number.
    pub user: &'a str,
    /// Host, an IPv6 address with its brackets; empty for `tel:`.
    pub host: &'a str,
    /// Port, if one is given.
    pub port: Option<u16>,
    /// Parameters without the first `;`.
    pub params: &'a str,
    /// Header fields without the `?`.
    pub headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart (RFC 3261 19.1.1, RFC 3966).
    ///
    /// # Errors
    /// [`Error::Uri`] for another scheme, for control characters, spaces, quotes or angle brackets, and for a bad host or
    /// port.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || "<>\"".contains(c)) {
            return Err(Error::Uri);
        }
        let (scheme, rest) = text.split_once(':').ok_or(Error::Uri)?;
        if scheme.eq_ignore_ascii_case("tel") {
            let (user, params) = rest.split_once(';').unwrap_or((rest, ""));
            if user.is_empty() {
                return Err(Error::Uri);
            }
            return Ok(Uri {
                scheme,
                user,
                host: "",
                port: None,
                params,
                headers: "",
            });
        }
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return Err(Error::Uri);
        }
        // a user may hold `;` and `?`, so it is cut off first
        let (user, rest) = match rest.split_once('@') {
            Some(("", _)) => return Err(Error::Uri),
            Some((user, rest)) => (user, rest),
            None => ("", rest),
        };
        if rest.contains('@') {
            return Err(Error::Uri);
        }
        // a password has no meaning here
        let user = user.split(':').next().unwrap_or_default();
        let (rest, headers) = rest.split_once('?').unwrap_or((rest, ""));
        let (host_port, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = split_host_port(host_port).ok_or(Error::Uri)?;
        Ok(Uri {
            scheme,
            user,
            host,
            port,
            params,
            headers,
        })
    }

    /// Value of a parameter: `Some("")` when it stands there without one.
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.split(';').find_map(|param| {
            let (known, value) = param.split_once('=').unwrap_or((param, ""));
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Do both name the same user at the same place? Compares scheme, user, host and port as RFC 3261 19.1.4 has it, but
    /// takes an absent port for the scheme's own, since registrars like to write it out.
    pub fn same_place(&self, other: &Uri<'_>) -> bool {
        let port = |uri: &Uri<'_>| {
            uri.port
                .unwrap_or(if uri.scheme.eq_ignore_ascii_case("sips") {
                    5061
                } else {
                    5060
                })
        };
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && unescape_user(self.user) == unescape_user(other.user)
            && self.host.eq_ignore_ascii_case(other.host)
            && port(self) == port(other)
    }
}

/// Escapes a text for the user part of a SIP URI (RFC 3261 25.1 `user`): `#` becomes `%23`.
pub fn escape_user(text: &str) -> Cow<'_, str> {
    escape(text, b"-_.!~*'()&=+$,;?/")
}

/// Escapes a text for the value of a header field in a SIP URI (RFC 3261 25.1 `hvalue`).
pub(crate) fn escape_header(text: &str) -> Cow<'_, str> {
    escape(text, b"-_.!~*'()[]/?:+$")
}

/// Undoes [`escape_user`]. An escape that is broken, or that hides a control character, stays as it is; bytes that are not
/// UTF-8 become U+FFFD.
pub fn unescape_user(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut position = 0;
    while position < bytes.len() {
        let byte = bytes[position];
        let decoded = (byte == b'%')
            .then(|| bytes.get(position + 1..position + 3))
            .flatten()
            .and_then(hex_byte)
            .filter(|byte| !byte.is_ascii_control());
        match decoded {
            Some(decoded) => {
                out.push(decoded);
                position += 3;
            }
            None => {
                out.push(byte);
                position += 1;
            }
        }
    }
    let decoded = String::from_utf8_lossy(&out);
    // U+0080 to U+009F are control characters of two bytes each, so only now they can be seen
    if decoded.contains(char::is_control) {
        return text.replace(char::is_control, "\u{fffd}");
    }
    decoded.into_owned()
}

/// Is it `host` or `host:port`? The host is a name, an IPv4 address or an IPv6 address in brackets, the port 1 to 65535.
pub fn valid_host_port(text: &str) -> bool {
    split_host_port(text).is_some()
}

fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':')?),
        };
        (&text[..address.len() + 2], port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        // the underscore is no letter of a host name, but stands in many
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let name = host.strip_suffix('.').unwrap_or(host);
        let labels = |label: &str| !label.is_empty() && label.bytes().all(letter);
        if host.len() > 255 || !name.split('.').all(labels) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    Some((host, port))
}

fn escape<'a>(text: &'a str, allowed: &[u8]) -> Cow<'a, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let stays = |byte: u8| byte.is_ascii_alphanumeric() || allowed.contains(&byte);
    if text.bytes().all(stays) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out.into()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_taken_apart() {
        let uri = Uri::parse("sip:al%23ice;x?:pw@[2001:db8::1]:5070;transport=tcp;lr?a=b").unwrap();
        assert_eq!(uri.user, "al%23ice;x?");
        assert_eq!(uri.host, "[2001:db8::1]");
        assert_eq!(uri.port, Some(5070));
        assert_eq!(uri.param("Transport"), Some("tcp"));
        assert_eq!(uri.param("lr"), Some(""));
        assert_eq!(uri.param("t"), None);
        assert_eq!(uri.headers, "a=b");
        let uri = Uri::parse("SIPS:example.com").unwrap();
        assert_eq!((uri.user, uri.host, uri.port), ("", "example.com", None));
        let uri = Uri::parse("tel:+1-212;phone-context=x").unwrap();
        assert_eq!((uri.user, uri.host), ("+1-212", ""));
    }

    #[test]
    fn bad_uris_are_refused() {
        for text in [
            "",
            "sip:",
            "alice",
            "http:a",
            "sip:@b",
            "sip:a@",
            "sip:a@b@c",
            "sip:a@b:0",
            "sip:a@b:65536",
            "sip:a@b:",
            "sip:a@b:+1",
            "sip:a b@c",
            "sip:a\r\nX: y@c",
            "sip:a@[::1",
            "sip:a@[b]",
            "sip:a@b..c",
            "sip:<a@b>",
            "tel:",
        ] {
            assert_eq!(Uri::parse(text), Err(Error::Uri), "{text:?}");
        }
    }

    #[test]
    fn users_are_escaped_and_back() {
        assert_eq!(escape_user("1001*#"), "1001*%23");
        assert_eq!(escape_user("a b@c\r\n"), "a%20b%40c%0D%0A");
        assert_eq!(unescape_user("1001*%23%2a"), "1001*#*");
        assert_eq!(unescape_user("a%c3%a4"), "aä");
        assert_eq!(unescape_user("%0d%0A%00%7f"), "%0d%0A%00%7f");
        assert_eq!(unescape_user("%c2%85"), "%c2%85");
        assert_eq!(unescape_user("%"), "%");
        assert_eq!(unescape_user("%4"), "%4");
        assert_eq!(unescape_user("%zz%41"), "%zzA");
        assert_eq!(unescape_user("%+1"), "%+1");
    }

    #[test]
    fn places_compare() {
        let same = |a: &str, b: &str| Uri::parse(a).unwrap().same_place(&Uri::parse(b).unwrap());
        assert!(same("sip:1%2301@Host;x=y", "SIP:1%23%30%31@host:5060;z"));
        assert!(!same("sip:1001@host", "sip:1001@host:5070"));
        assert!(!same("sip:1001@host", "sip:1002@host"));
        assert!(!same("sip:A@host", "sip:a@host"));
        assert!(!same("sip:a@host", "sips:a@host"));
    }

    #[test]
    fn host_and_port() {
        for text in ["a", "a.b-c_d.", "10.0.0.1:5060", "[::1]", "[::1]:80"] {
            assert!(valid_host_port(text), "{text}");
        }
        for text in [
            "", ":1", "a:", "a b", "a\r\n", "::1", "[::1]80", "[]", "a;b", "a:x", ".",
        ] {
            assert!(!valid_host_port(text), "{text:?}");
        }
    }
}
