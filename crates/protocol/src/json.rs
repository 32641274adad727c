//! JSON as a tree that borrows from the frame, read under the protocol's own rules: no duplicate keys, bounded depth.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Levels of objects and arrays that a frame may have, the outermost object included.
const MAX_DEPTH: u8 = 8;

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

/// Reads exactly one JSON value. The error's text names what is wrong and where, and quotes nothing of the input.
pub(crate) fn read(text: &str) -> Result<Node<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = NodeSeed { levels: MAX_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(node)
}

#[derive(Clone, Copy)]
struct NodeSeed {
    /// levels still allowed
    levels: u8,
}

impl<'de> DeserializeSeed<'de> for NodeSeed {
    type Value = Node<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl NodeSeed {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(NodeSeed { levels }),
            None => Err(E::custom(format_args!("deeper than {MAX_DEPTH} levels"))),
        }
    }
}

impl<'de> Visitor<'de> for NodeSeed {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Negative(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::String(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(node) = access.next_element_seed(inner)? {
            array.push(node);
        }
        Ok(Node::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node<'de>, A::Error> {
        let inner = self.deeper()?;
        let mut object: Object<'de> = Vec::with_capacity(4);
        while let Some(key) = access.next_key_seed(KeySeed)? {
            if object.len() < FEW_KEYS && object.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("duplicate key"));
            }
            let value = access.next_value_seed(inner)?;
            object.push((key, value));
        }
        if object.len() > FEW_KEYS && has_duplicate(&object) {
            return Err(A::Error::custom("duplicate key"));
        }
        Ok(Node::Object(object))
    }
}

fn has_duplicate(object: &Object<'_>) -> bool {
    let mut keys: Vec<&str> = object.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
