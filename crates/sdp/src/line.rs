//! Lines and what they are.

use std::net::IpAddr;

use crate::Direction;

/// The lines of a text, without their ends, and what the search for their ends saw of other control bytes.
pub(crate) struct Lines<'a> {
    text: &'a str,
    /// Offset behind the end of the line that came last.
    pub end: usize,
    /// A CR stood without its LF.
    pub bare_return: bool,
    /// There was a control byte that is neither a tab nor of a line end.
    pub control: bool,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        Lines {
            text,
            end: 0,
            bare_return: false,
            control: false,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.end..];
        if rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let mut at = 0;
        loop {
            at += control_byte(&bytes[at..]);
            let end = match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'\n'), _) => 1,
                (Some(b'\r'), Some(b'\n')) => 2,
                (None, _) => 0,
                (Some(other), _) => {
                    match other {
                        b'\r' => self.bare_return = true,
                        b'\t' => {}
                        _ => self.control = true,
                    }
                    at += 1;
                    continue;
                }
            };
            self.end += at + end;
            return Some(&rest[..at]);
        }
    }
}

/// Offset of the first control byte, or the length. Eight bytes at a time: a good part of a filter's cost is finding line
/// ends, and most lines are too short for a search that has to be set up.
#[inline]
fn control_byte(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // the lowest bit set marks the first control byte among eight bytes: one below 32, or 127
    let marks = |eight: &[u8; 8]| {
        let x = u64::from_le_bytes(*eight);
        let del = x ^ (ONES * 0x7f);
        let below = x.wrapping_sub(ONES * 32) & !x;
        (below | del.wrapping_sub(ONES) & !del) & (ONES << 7)
    };
    let mut rest = bytes;
    let mut at = 0;
    while let Some((eight, tail)) = rest.split_first_chunk() {
        let found = marks(eight);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
        rest = tail;
    }
    at + rest
        .iter()
        .position(u8::is_ascii_control)
        .unwrap_or(rest.len())
}

/// A line, as far as a rule names it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line<'a> {
    /// `m=`: its value.
    Media(&'a str),
    /// `o=`: its value.
    Origin(&'a str),
    /// `c=`: its value.
    Connection(&'a str),
    /// `a=rtpmap`: its value, payload type first.
    Rtpmap(&'a str),
    /// `a=fmtp` or `a=rtcp-fb`: its value, payload type or `*` first.
    OfFormat(&'a str),
    Candidate(&'a str),
    EndOfCandidates,
    Ufrag(&'a str),
    Pwd(&'a str),
    Setup(&'a str),
    /// `a=fingerprint`: its value.
    Fingerprint(&'a str),
    /// `a=fingerprint` that does not count: too weak, or broken. Only the first pass tells it from the other.
    WeakFingerprint,
    Crypto,
    /// `a=group:BUNDLE`: its identification tags.
    Bundle(&'a str),
    Mid(&'a str),
    BundleOnly,
    RtcpMux,
    Direction(Direction),
    Other,
}

impl<'a> Line<'a> {
    /// Does every rule leave such a line as it is, wherever it stands?
    #[inline]
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Line::Other
                | Line::Origin(_)
                | Line::Pwd(_)
                | Line::Setup(_)
                | Line::Fingerprint(_)
                | Line::Mid(_)
                | Line::RtcpMux
                | Line::Direction(_)
        )
    }

    #[inline]
    pub fn of(line: &'a str) -> Line<'a> {
        let Some(value) = line.get(2..) else {
            return Line::Other;
        };
        match line.as_bytes() {
            [b'a', b'=', ..] => Line::attribute(value),
            [b'm', b'=', ..] => Line::Media(value),
            [b'c', b'=', ..] => Line::Connection(value),
            [b'o', b'=', ..] => Line::Origin(value),
            _ => Line::Other,
        }
    }

    #[inline]
    fn attribute(attribute: &'a str) -> Line<'a> {
        let after = |name| attribute.strip_prefix(name);
        let line = match attribute.as_bytes().first() {
            Some(b'r') => match attribute {
                "rtcp-mux" => Some(Line::RtcpMux),
                "recvonly" => Some(Line::Direction(Direction::RecvOnly)),
                _ => after("rtpmap:")
                    .map(Line::Rtpmap)
                    .or_else(|| after("rtcp-fb:").map(Line::OfFormat)),
            },
            Some(b'f') => after("fmtp:")
                .map(Line::OfFormat)
                .or_else(|| after("fingerprint:").map(Line::Fingerprint)),
            Some(b'c') => after("candidate:")
                .map(Line::Candidate)
                .or_else(|| after("crypto:").map(|_| Line::Crypto)),
            Some(b'i') => match attribute {
                "inactive" => Some(Line::Direction(Direction::Inactive)),
                _ => after("ice-ufrag:")
                    .map(Line::Ufrag)
                    .or_else(|| after("ice-pwd:").map(Line::Pwd)),
            },
            Some(b's') => match attribute {
                "sendrecv" => Some(Line::Direction(Direction::SendRecv)),
                "sendonly" => Some(Line::Direction(Direction::SendOnly)),
                _ => after("setup:").map(Line::Setup),
            },
            Some(b'm') => after("mid:").map(Line::Mid),
            Some(b'g') => after("group:BUNDLE")
                .filter(|tags| tags.is_empty() || tags.starts_with(' '))
                .map(Line::Bundle),
            Some(b'b') if attribute == "bundle-only" => Some(Line::BundleOnly),
            Some(b'e') if attribute == "end-of-candidates" => Some(Line::EndOfCandidates),
            _ => None,
        };
        line.unwrap_or(Line::Other)
    }
}

/// The value of an `m=` line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Media<'a> {
    pub kind: &'a str,
    /// Port, with `/number` where it was written.
    pub port: &'a str,
    pub protocol: &'a str,
    /// At least one, divided by blanks.
    pub formats: &'a str,
    /// The port is 0: refused, or not yet given (RFC 8843, section 6, `bundle-only`).
    pub no_port: bool,
}

impl<'a> Media<'a> {
    pub fn parse(value: &'a str) -> Option<Media<'a>> {
        let (kind, rest) = word(value)?;
        let (port, rest) = word(rest)?;
        let (protocol, rest) = word(rest)?;
        let formats = rest.trim_matches(' ');
        if formats.is_empty() {
            return None;
        }
        let number: u16 = cut(port, b'/').0.parse().ok()?;
        Some(Media {
            kind,
            port,
            protocol,
            formats,
            no_port: number == 0,
        })
    }

    pub fn is_audio(&self) -> bool {
        self.kind == "audio"
    }
}

/// The first word and what follows it.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    let (word, _) = cut(text, b' ');
    (!word.is_empty()).then(|| text.split_at(word.len()))
}

/// What stands before and behind the first `at`, an ASCII byte; the whole and nothing where there is none. Words are
/// short: a plain loop beats the search of the standard library.
#[inline]
pub(crate) fn cut(text: &str, at: u8) -> (&str, &str) {
    match text.bytes().position(|b| b == at) {
        Some(n) => (&text[..n], &text[n + 1..]),
        None => (text, ""),
    }
}

/// The words of a text, divided by blanks.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        let (word, behind) = cut(rest, b' ');
        rest = behind;
        (!word.is_empty()).then_some(word)
    })
}

/// A leading payload type (RFC 3550: 0 to 127) and what follows it, which begins with a blank unless it is empty.
#[inline]
pub(crate) fn payload_type(text: &str) -> Option<(u8, &str)> {
    let bytes = text.as_bytes();
    let mut number = 0u8;
    let mut digits = 0;
    while let Some(digit @ b'0'..=b'9') = bytes.get(digits) {
        // 007 is another word than 7, and nobody's payload type
        if number == 0 && digits != 0 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(digit - b'0')?;
        digits += 1;
    }
    let ends = bytes.get(digits).is_none_or(|&b| b == b' ');
    (digits != 0 && ends && number < 128).then(|| (number, &text[digits..]))
}

/// Is the value of a `c=` line 0.0.0.0 or ::, which names no place?
pub(crate) fn is_unspecified(connection: &str) -> bool {
    if connection == "IN IP4 0.0.0.0" {
        return true;
    }
    let Some(address) = words(connection).nth(2) else {
        return false;
    };
    cut(address, b'/')
        .0
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.to_canonical().is_unspecified())
}

/// Is the value of a candidate line that of the placeholder, whatever its foundation and priority?
pub(crate) fn is_placeholder(candidate: &str) -> bool {
    let mut words = words(candidate).skip(1);
    words.next() == Some("1")
        && words.next().is_some_and(|w| w.eq_ignore_ascii_case("udp"))
        && words.next().is_some()
        && words.next() == Some("0.0.0.0")
        && words.next() == Some("9")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_types() {
        for (text, expected) in [
            ("0", Some((0, ""))),
            ("8 PCMA/8000", Some((8, " PCMA/8000"))),
            ("127", Some((127, ""))),
            ("10  x", Some((10, "  x"))),
            ("", None),
            (" 1", None),
            ("x", None),
            ("1x", None),
            ("-1", None),
            ("00", None),
            ("07", None),
            ("007", None),
            ("128", None),
            ("256", None),
            ("300", None),
            ("99999999999999999999", None),
            ("*", None),
            ("1/2", None),
        ] {
            assert_eq!(payload_type(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_end_with_lf_and_the_rest_is_noted() {
        let read = |text: &str| {
            let mut lines = Lines::new(text);
            let all: Vec<String> = lines.by_ref().map(str::to_owned).collect();
            assert_eq!(lines.end, text.len());
            (all, lines.bare_return, lines.control)
        };
        let lines = |all: &[&str]| {
            all.iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(read(""), (vec![], false, false));
        assert_eq!(
            read("a\tb\r\nsixteen letters.\n\nend"),
            (
                lines(&["a\tb", "sixteen letters.", "", "end"]),
                false,
                false
            )
        );
        assert_eq!(read("a\rb\r\n"), (lines(&["a\rb"]), true, false));
        assert_eq!(read("a\r\r\n"), (lines(&["a\r"]), true, false));
        assert_eq!(read("a\r"), (lines(&["a\r"]), true, false));
        // at every place among the eight bytes that are looked at together
        for place in 0..20 {
            for (odd, control) in [
                ("\0", true),
                ("\u{1f}", true),
                ("\u{7f}", true),
                ("é", false),
            ] {
                let mut line = "~".repeat(20);
                line.insert_str(place, odd);
                let text = format!("{line}\r\nx\n");
                assert_eq!(
                    read(&text),
                    (lines(&[&line, "x"]), false, control),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn words_have_any_number_of_blanks_between_them() {
        assert_eq!(words("  a b   c ").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(words(" ").next(), None);
        assert_eq!(words("").next(), None);
    }
}
