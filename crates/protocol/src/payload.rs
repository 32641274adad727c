//! Taking a payload apart under the rules of its keys.

use crate::json::{Node, Object};
use crate::Limits;

/// A payload that its type does not allow, or a type that does not exist.
pub(crate) struct Problem {
    pub message: &'static str,
    pub details: String,
}

impl Problem {
    pub fn at(key: &str, expected: &str) -> Self {
        Problem::bad_payload(format!("payload.{key}: expected {expected}"))
    }

    /// The same for a key within the object at `key`.
    pub fn within(self, key: &str) -> Self {
        match self.details.strip_prefix("payload.") {
            Some(rest) => Problem::bad_payload(format!("payload.{key}.{rest}")),
            None => self,
        }
    }

    pub fn bad_payload(details: String) -> Self {
        Problem {
            message: "Bad message",
            details,
        }
    }
}

/// The payload's keys, taken out one by one. An optional key that is `null` counts as absent.
pub(crate) struct Payload<'a>(pub Object<'a>);

impl<'a> Payload<'a> {
    pub fn take(&mut self, key: &str) -> Option<Node<'a>> {
        take(&mut self.0, key).filter(|node| *node != Node::Null)
    }

    pub fn optional_string(&mut self, key: &str, rule: &Rule) -> Result<Option<String>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::String(text)) if rule.fits(&text) => Ok(Some(text.into_owned())),
            Some(Node::String(_)) => Err(Problem::at(key, rule.expected)),
            Some(_) => Err(Problem::at(key, "a string")),
        }
    }

    pub fn string(&mut self, key: &str, rule: &Rule) -> Result<String, Problem> {
        self.optional_string(key, rule)?
            .ok_or_else(|| Problem::at(key, "a string"))
    }

    /// A DN, or a number to dial.
    pub fn optional_number(
        &mut self,
        key: &str,
        limits: &Limits,
    ) -> Result<Option<String>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::String(text)) if limits.allows_number(&text) => Ok(Some(text.into_owned())),
            Some(Node::String(_)) => Err(Problem::at(
                key,
                &format!(
                    "1 to 64 letters, digits or characters of {}",
                    limits.dn_extra
                ),
            )),
            Some(_) => Err(Problem::at(key, "a string")),
        }
    }

    pub fn number(&mut self, key: &str, limits: &Limits) -> Result<String, Problem> {
        self.optional_number(key, limits)?
            .ok_or_else(|| Problem::at(key, "a string"))
    }

    pub fn boolean(&mut self, key: &str) -> Result<bool, Problem> {
        match self.take(key) {
            Some(Node::Bool(value)) => Ok(value),
            _ => Err(Problem::at(key, "true or false")),
        }
    }

    pub fn integer(
        &mut self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        expected: &str,
    ) -> Result<Option<u64>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::Unsigned(value)) if range.contains(&value) => Ok(Some(value)),
            Some(_) => Err(Problem::at(key, expected)),
        }
    }

    pub fn optional_object(&mut self, key: &str) -> Result<Option<Payload<'a>>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Node::Object(object)) => Ok(Some(Payload(object))),
            Some(_) => Err(Problem::at(key, "an object")),
        }
    }

    pub fn headers(&mut self) -> Result<Vec<(String, String)>, Problem> {
        let Some(Payload(object)) = self.optional_object("headers")? else {
            return Ok(Vec::new());
        };
        if object.len() > 16 {
            return Err(Problem::at("headers", "at most 16 headers"));
        }
        let mut headers = Vec::with_capacity(object.len());
        for (name, value) in object {
            if name.len() > 64 || !valid_token(&name) {
                return Err(Problem::at(
                    "headers",
                    "names of at most 64 characters that a SIP header name may have",
                ));
            }
            match value {
                Node::String(text) if HEADER_VALUE.fits(&text) => {
                    headers.push((name.into_owned(), text.into_owned()));
                }
                _ => {
                    return Err(Problem::at(
                        &format!("headers.{name}"),
                        HEADER_VALUE.expected,
                    ))
                }
            }
        }
        Ok(headers)
    }
}

/// What a string may be.
pub(crate) struct Rule {
    /// bytes
    length: std::ops::RangeInclusive<usize>,
    allowed: fn(&str) -> bool,
    expected: &'static str,
}

impl Rule {
    pub fn fits(&self, text: &str) -> bool {
        self.length.contains(&text.len()) && (self.allowed)(text)
    }
}

fn not_control(text: &str) -> bool {
    !text.contains(char::is_control)
}

fn not_nul(text: &str) -> bool {
    // an SDP is long: worth a search made for it
    memchr::memchr(0, text.as_bytes()).is_none()
}

fn visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) const SDP: Rule = Rule {
    // the frame bounds it
    length: 1..=usize::MAX,
    allowed: not_nul,
    expected: "a string that is not empty and has no NUL",
};
pub(crate) const TEXT: Rule = Rule {
    length: 1..=8192,
    allowed: not_nul,
    expected: "a string of 1 to 8192 bytes without NUL",
};
pub(crate) const CALL_ID: Rule = Rule {
    length: 1..=128,
    allowed: visible,
    expected: "a string of 1 to 128 visible ASCII characters",
};
pub(crate) const DISPLAY_NAME: Rule = Rule {
    length: 0..=128,
    allowed: not_control,
    expected: "a string of at most 128 bytes without control characters",
};
pub(crate) const REASON: Rule = Rule {
    length: 0..=64,
    allowed: not_control,
    expected: "a string of at most 64 bytes without control characters",
};
pub(crate) const DIGITS: Rule = Rule {
    length: 1..=32,
    allowed: |text| {
        text.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D'))
    },
    expected: "a string of 1 to 32 of 0-9*#A-D",
};
pub(crate) const PASSWORD: Rule = Rule {
    length: 0..=256,
    allowed: not_nul,
    expected: "a string of at most 256 bytes without NUL",
};
pub(crate) const TOKEN: Rule = Rule {
    length: 1..=8192,
    allowed: visible,
    expected: "a string of 1 to 8192 visible ASCII characters",
};
pub(crate) const RESUME: Rule = Rule {
    length: 1..=256,
    allowed: visible,
    expected: "a string of 1 to 256 visible ASCII characters",
};
pub(crate) const DIGEST: Rule = Rule {
    length: 1..=256,
    allowed: |text| !text.contains(|c: char| c.is_control() || c == '"' || c == '\\'),
    expected: "a string of 1 to 256 bytes without control characters, quotes and backslashes",
};
pub(crate) const NONCE_COUNT: Rule = Rule {
    length: 8..=8,
    allowed: |text| text.bytes().all(|byte| byte.is_ascii_hexdigit()),
    expected: "a string of 8 hex digits",
};
pub(crate) const CANDIDATE: Rule = Rule {
    length: 0..=1024,
    allowed: not_control,
    expected: "a string of at most 1024 bytes without control characters",
};
pub(crate) const MID: Rule = Rule {
    length: 0..=64,
    allowed: not_control,
    expected: "a string of at most 64 bytes without control characters",
};
const HEADER_VALUE: Rule = Rule {
    length: 0..=1024,
    allowed: not_control,
    expected: "a string of at most 1024 bytes without control characters",
};

/// Takes a key out; `null` is not absent here.
pub(crate) fn take<'a>(object: &mut Object<'a>, key: &str) -> Option<Node<'a>> {
    let position = object.iter().position(|(known, _)| known == key)?;
    Some(object.swap_remove(position).1)
}

/// RFC 3261 25.1 `token`
fn valid_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte))
}
