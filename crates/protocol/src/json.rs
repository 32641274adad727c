//! JSON as a tree that borrows from the frame, read under the protocol's own rules: no duplicate keys, bounded depth.
//!
//! The reader is our own because of one long string. In an SDP an escaped CRLF stands behind every thirty bytes, and reading
//! it is most of the work that a frame makes: here it goes in one pass into a String that is large enough from the start.
//! What is JSON, RFC 8259 says; the tests hold the reader against serde_json.

use std::borrow::Cow;

/// Levels of objects and arrays that a frame may have, the outermost object included.
const MAX_DEPTH: u8 = 8;
const TOO_DEEP: &str = "deeper than 8 levels";

/// Up to here comparing each key with those before it is cheaper than sorting.
const FEW_KEYS: usize = 16;

pub(crate) type Object<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

/// A JSON value. Strings without escapes borrow from the frame.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Any other number.
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    Object(Object<'a>),
}

/// What is wrong with a text, and where. Quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at line {line} column {column}")]
pub(crate) struct JsonError {
    what: &'static str,
    line: usize,
    column: usize,
}

/// Reads exactly one JSON value.
pub(crate) fn read(text: &str) -> Result<Node<'_>, JsonError> {
    let mut reader = Reader { text, at: 0 };
    reader.document().map_err(|what| {
        let before = &text.as_bytes()[..reader.at.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        JsonError { what, line, column }
    })
}

/// What is wrong; where, the reader's own place says.
type Reading<T> = Result<T, &'static str>;

struct Reader<'a> {
    text: &'a str,
    /// Offset of the byte to read next.
    at: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Reading<Node<'a>> {
        let node = self.value(MAX_DEPTH)?;
        match self.look() {
            None => Ok(node),
            Some(_) => Err("trailing characters"),
        }
    }

    /// The next byte that is no white space, without taking it.
    fn look(&mut self) -> Option<u8> {
        let mut byte = self.peek();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = byte {
            self.at += 1;
            byte = self.peek();
        }
        byte
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// `levels`: how many may still be opened.
    fn value(&mut self, levels: u8) -> Reading<Node<'a>> {
        match self.look() {
            Some(b'"') => self.string().map(Node::String),
            Some(b'{') => self.object(levels).map(Node::Object),
            Some(b'[') => self.array(levels).map(Node::Array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Node::Bool(true)),
            Some(b'f') => self.word("false", Node::Bool(false)),
            Some(b'n') => self.word("null", Node::Null),
            Some(_) => Err("expected value"),
            None => Err("EOF while parsing a value"),
        }
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Reading<Node<'a>> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err("expected value");
        }
        self.at += word.len();
        Ok(node)
    }

    fn array(&mut self, levels: u8) -> Reading<Vec<Node<'a>>> {
        let levels = levels.checked_sub(1).ok_or(TOO_DEEP)?;
        self.at += 1;
        let mut array = Vec::new();
        if self.closes(b']') {
            return Ok(array);
        }
        loop {
            array.push(self.value(levels)?);
            if self.closes(b']') {
                return Ok(array);
            }
            self.take(b',', "expected `,` or `]`")?;
        }
    }

    fn object(&mut self, levels: u8) -> Reading<Object<'a>> {
        let levels = levels.checked_sub(1).ok_or(TOO_DEEP)?;
        self.at += 1;
        let mut object = Object::with_capacity(4);
        if self.closes(b'}') {
            return Ok(object);
        }
        loop {
            if self.look() != Some(b'"') {
                return Err("key must be a string");
            }
            let key = self.string()?;
            if object.len() < FEW_KEYS && object.iter().any(|(known, _)| *known == key) {
                return Err("duplicate key");
            }
            self.take(b':', "expected `:`")?;
            object.push((key, self.value(levels)?));
            if self.closes(b'}') {
                break;
            }
            self.take(b',', "expected `,` or `}`")?;
        }
        if object.len() > FEW_KEYS && has_duplicate(&object) {
            return Err("duplicate key");
        }
        Ok(object)
    }

    /// Takes the bracket if it comes next.
    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.look() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    fn take(&mut self, byte: u8, otherwise: &'static str) -> Reading<()> {
        if self.look() != Some(byte) {
            return Err(otherwise);
        }
        self.at += 1;
        Ok(())
    }

    /// A string, quotes included.
    fn string(&mut self) -> Reading<Cow<'a, str>> {
        self.at += 1;
        let first = self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(first));
        }
        // an escape is never shorter than what it stands for, so there is room enough up to the quote that ends the
        // string; only an escaped quote can make it grow
        let rest = &self.text.as_bytes()[self.at..];
        let room = memchr::memchr(b'"', rest).unwrap_or(0);
        let mut string = String::with_capacity(first.len() + room);
        string.push_str(first);
        loop {
            match self.peek() {
                Some(b'\\') => {
                    self.at += 1;
                    string.push(self.escaped()?);
                }
                Some(b'"') => break,
                Some(0..b' ') => return Err("control character in a string"),
                Some(_) => string.push_str(self.plain()),
                None => return Err("EOF while parsing a string"),
            }
        }
        self.at += 1;
        Ok(Cow::Owned(string))
    }

    /// Up to the next quote, backslash or control character.
    #[inline]
    fn plain(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let plain = &rest[..special_byte(rest.as_bytes())];
        self.at += plain.len();
        plain
    }

    /// The character that an escape stands for; its backslash is taken.
    #[inline]
    fn escaped(&mut self) -> Reading<char> {
        let character = match self.peek() {
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => return self.unicode(),
            Some(_) => return Err("invalid escape"),
            None => return Err("EOF while parsing a string"),
        };
        self.at += 1;
        Ok(character)
    }

    /// `uXXXX`, or two of them where the first is half of a pair of surrogates.
    fn unicode(&mut self) -> Reading<char> {
        const LONE: &str = "lone surrogate in an escape";
        let first = self.code_unit()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    return Err(LONE);
                }
                self.at += 1;
                let second = self.code_unit()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return Err(LONE);
                }
                0x10000 + ((first - 0xD800) << 10 | (second - 0xDC00))
            }
            other => other,
        };
        char::from_u32(code).ok_or(LONE)
    }

    /// `uXXXX` as a number.
    fn code_unit(&mut self) -> Reading<u32> {
        self.at += 1;
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let mut code = 0;
        for digit in digits.ok_or("EOF while parsing a string")? {
            let value = char::from(*digit).to_digit(16).ok_or("invalid escape")?;
            code = code << 4 | value;
        }
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Reading<Node<'a>> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if zero && digits.len() > 1 {
            return Err("invalid number");
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            whole = false;
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        // -0 is no whole number, nor is one that no integer holds
        match (whole, negative) {
            (true, false) => {
                if let Ok(number) = text.parse() {
                    return Ok(Node::Unsigned(number));
                }
            }
            (true, true) if !zero => {
                if let Ok(number) = text.parse() {
                    return Ok(Node::Negative(number));
                }
            }
            _ => {}
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Node::Float(number)),
            _ => Err("number out of range"),
        }
    }

    /// At least one digit.
    fn digits(&mut self) -> Reading<&'a str> {
        let rest = &self.text[self.at..];
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return Err("invalid number");
        }
        self.at += count;
        Ok(&rest[..count])
    }
}

/// Offset of the first quote, backslash or control character (as JSON counts them: below 32), or the length. Eight bytes at
/// a time; between two escapes there are too few for a search that has to be set up.
#[inline]
fn special_byte(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // the lowest bit set marks the first of them among eight bytes
    let marks = |eight: &[u8; 8]| {
        let x = u64::from_le_bytes(*eight);
        // with this bit turned over, a quote is 32, and what is below 32 stays there
        let low = x ^ (ONES * 2);
        let backslash = x ^ (ONES * b'\\' as u64);
        (low.wrapping_sub(ONES * 33) & !low | backslash.wrapping_sub(ONES) & !backslash)
            & (ONES << 7)
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
    let special = |b: &u8| *b < b' ' || matches!(b, b'"' | b'\\');
    at + rest.iter().position(special).unwrap_or(rest.len())
}

fn has_duplicate(object: &Object<'_>) -> bool {
    let mut keys: Vec<&str> = object.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Is it the same value? Of an odd number serde_json may miss the last digit.
    fn same(ours: &Node<'_>, theirs: &Value) -> bool {
        match (ours, theirs) {
            (Node::Null, Value::Null) => true,
            (Node::Bool(a), Value::Bool(b)) => a == b,
            (Node::Unsigned(a), Value::Number(b)) => b.as_u64() == Some(*a),
            (Node::Negative(a), Value::Number(b)) => *a < 0 && b.as_i64() == Some(*a),
            (Node::Float(a), Value::Number(b)) if b.is_f64() => b
                .as_f64()
                .is_some_and(|b| (a - b).abs() <= b.abs() * f64::EPSILON),
            (Node::String(a), Value::String(b)) => a == b,
            (Node::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Node::Object(a), Value::Object(b)) => {
                let known = |(key, node): &(Cow<'_, str>, Node<'_>)| {
                    b.get(key.as_ref()).is_some_and(|value| same(node, value))
                };
                a.len() == b.len() && a.iter().all(known)
            }
            _ => false,
        }
    }

    /// Only our own two rules may tell the readers apart.
    fn check(text: &str) {
        match (read(text), serde_json::from_str::<Value>(text)) {
            (Ok(ours), Ok(theirs)) => assert!(same(&ours, &theirs), "{text}: {ours:?}"),
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) => {
                assert!(["duplicate key", TOO_DEEP].contains(&error.what), "{text}");
            }
            (Ok(_), Err(error)) => panic!("{text}: {error}"),
        }
    }

    /// What a string may be made of, and what may not stand in it.
    const PIECES: [&str; 24] = [
        "a",
        "äö",
        "😀",
        "plain text",
        "\u{7f}",
        "\u{2028}",
        "\\r\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\b\\f\\t",
        "\\u0041",
        "\\u00E4",
        "\\ud83d\\ude00",
        "\\u0000",
        "\\ud83d",
        "\\ude00",
        "\\ud83d\\n",
        "\\u12",
        "\\u+123",
        "\\x",
        "\n",
        "\0",
        "\"",
    ];
    const NUMBERS: [&str; 22] = [
        "0",
        "-0",
        "7",
        "-1",
        "10",
        "01",
        "-",
        "-01",
        "+1",
        "1.",
        ".5",
        "1.5",
        "-0.0",
        "1e5",
        "1E-2",
        "1e",
        "1e400",
        "1e-400",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
    ];

    fn json() -> impl Strategy<Value = String> {
        // mostly good pieces, or hardly any text would be good as a whole
        let good = prop::collection::vec(0..15usize, 0..12);
        let any = prop::collection::vec(0..PIECES.len(), 0..4);
        let string = prop_oneof![4 => good, 1 => any].prop_map(|pieces| {
            let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
            format!("\"{text}\"")
        });
        let leaf = prop_oneof![
            4 => string.clone(),
            2 => prop::sample::select(&NUMBERS[..]).prop_map(str::to_owned),
            1 => prop::sample::select(&["true", "false", "null", "nul", "", "NaN"][..]).prop_map(str::to_owned),
        ];
        let space = prop::sample::select(&["", "", "", " ", "\r\n\t"][..]);
        leaf.prop_recursive(10, 40, 4, move |inner| {
            let pair =
                (string.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            let list =
                (prop::collection::vec(inner, 0..4), space.clone()).prop_map(|(list, space)| {
                    format!("[{space}{}{space}]", list.join(&format!("{space},")))
                });
            let object =
                (prop::collection::vec(pair, 0..4), space.clone()).prop_map(|(pairs, space)| {
                    format!("{{{}{space}}}", pairs.join(&format!(",{space}")))
                });
            prop_oneof![list, object]
        })
    }

    proptest! {
        #[test]
        fn it_reads_as_serde_json_does(text in json(), cut in any::<prop::sample::Index>()) {
            check(&text);
            // and with an end too early, or a piece too many
            let mut at = cut.index(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let (head, tail) = text.split_at(at);
            check(head);
            for piece in PIECES.iter().chain(&NUMBERS).chain(&["{", "}", "[", "]", ",", ":", " "]) {
                check(&format!("{head}{piece}{tail}"));
            }
        }
    }

    #[test]
    fn a_long_string_takes_no_more_room_than_its_frame() {
        let sdp = "v=0\\r\\n".repeat(300);
        let frame = format!("{{\"sdp\":\"{sdp}\",\"id\":\"1\"}}");
        let Node::Object(object) = read(&frame).unwrap() else {
            panic!("not an object")
        };
        let Node::String(Cow::Owned(text)) = &object[0].1 else {
            panic!("not a string with escapes")
        };
        assert_eq!(*text, "v=0\r\n".repeat(300));
        assert!(text.capacity() <= frame.len());
    }

    #[test]
    fn an_error_says_where() {
        let error = |text| read(text).unwrap_err().to_string();
        assert_eq!(error("{\"a\":x}"), "expected value at line 1 column 6");
        assert_eq!(error("{\n \"a\" 1}"), "expected `:` at line 2 column 6");
        assert_eq!(
            error("\"a"),
            "EOF while parsing a string at line 1 column 3"
        );
        assert_eq!(
            error("\"\\u00"),
            "EOF while parsing a string at line 1 column 4"
        );
        assert_eq!(error("{} x"), "trailing characters at line 1 column 4");
    }

    #[test]
    fn plain_strings_borrow_and_escaped_ones_are_copied() {
        let Node::Array(array) = read(r#"["plain","a\nb"]"#).unwrap() else {
            panic!("not an array")
        };
        assert!(matches!(&array[0], Node::String(Cow::Borrowed("plain"))));
        assert!(matches!(&array[1], Node::String(Cow::Owned(text)) if text == "a\nb"));
    }

    #[test]
    fn eight_levels_are_the_limit() {
        assert!(read("[[[[[[[[]]]]]]]]").is_ok());
        assert!(read("[[[[[[[[[]]]]]]]]]").is_err());
        assert!(read(r#"{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}"#).is_ok());
        assert!(read(r#"{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{}}}}}}}}}"#).is_err());
    }

    #[test]
    fn duplicates_are_found_in_small_and_in_large_objects() {
        assert!(read(r#"{"a":1,"b":2,"a":3}"#).is_err());
        assert!(
            read("{\"a\":1,\"\\u0061\":3}").is_err(),
            "an escape hides nothing"
        );
        for count in [15usize, 16, 17, 18, 400] {
            let unique: Vec<String> = (0..count).map(|n| format!("\"k{n}\":{n}")).collect();
            assert!(read(&format!("{{{}}}", unique.join(","))).is_ok());
            for position in [0, count / 2, count - 1] {
                let twice = format!("{{{},\"k{position}\":0}}", unique.join(","));
                assert!(read(&twice).is_err(), "{count} keys, k{position} twice");
            }
        }
    }

    #[test]
    fn errors_do_not_quote_the_input() {
        for text in [
            r#"{"password":"hunter2""#,
            r#"{"p":"hunter2","p":1}"#,
            r#"hunter2"#,
            r#"{"hunter2"}"#,
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
