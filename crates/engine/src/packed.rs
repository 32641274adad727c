//! Lists that stay as they lie in the record. Most steps do not look at what a session remembers, and none looks at all of it: taking
//! some thirty texts apart and building them again would cost more than the step.

use std::fmt;
use std::ops::Range;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of the length before each entry.
const LEN: usize = 4;

/// Entries one behind the other, each after its length.
#[derive(Clone, Default)]
struct Packed(Vec<u8>);

impl Packed {
    /// Each entry, and where it lies with its length. Ends where the bytes make no sense.
    fn iter(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (len, rest) = self.0.get(at..)?.split_first_chunk::<LEN>()?;
            let len = u32::from_le_bytes(*len) as usize;
            let entry = rest.get(..len)?;
            let place = at..at + LEN + len;
            at = place.end;
            Some((place, entry))
        })
    }

    fn push(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // a frame is far shorter
        let Ok(len) = u32::try_from(len) else { return };
        self.0.extend_from_slice(&len.to_le_bytes());
        for part in parts {
            self.0.extend_from_slice(part);
        }
    }

    fn remove(&mut self, place: Range<usize>) {
        self.0.drain(place);
    }

    fn remove_at(&mut self, index: usize) {
        let place = self.iter().nth(index).map(|(place, _)| place);
        if let Some(place) = place {
            self.remove(place);
        }
    }
}

impl Serialize for Packed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Packed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Packed, E> {
                Ok(Packed(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'o> {
    /// Nothing yet.
    Pending,
    /// This frame was sent.
    Frame(&'o str),
    /// `callAccepted` for this call; the answer is read from the call again.
    Accepted(&'o str),
}

impl<'o> Outcome<'o> {
    fn parts(self) -> (u8, &'o str) {
        match self {
            Outcome::Pending => (PENDING, ""),
            Outcome::Frame(text) => (FRAME, text),
            Outcome::Accepted(call) => (ACCEPTED, call),
        }
    }
}

const PENDING: u8 = 0;
const FRAME: u8 = 1;
const ACCEPTED: u8 = 2;

/// Requests of a session and their outcomes, by the id of the request, oldest first.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Outcomes(Packed);

impl Outcomes {
    /// Kind, length of the id, id, text.
    fn split(entry: &[u8]) -> Option<(&[u8], u8, &[u8])> {
        let (&[kind, len], rest) = entry.split_first_chunk::<2>()?;
        let (id, text) = rest.split_at_checked(len.into())?;
        Some((id, kind, text))
    }

    fn each(&self) -> impl Iterator<Item = (Range<usize>, &[u8], u8, &[u8])> {
        self.0.iter().filter_map(|(place, entry)| {
            let (id, kind, text) = Self::split(entry)?;
            Some((place, id, kind, text))
        })
    }

    /// The outcome of a request, if it is remembered.
    pub fn get(&self, id: &str) -> Option<Outcome<'_>> {
        let found = self.each().find(|(_, known, ..)| *known == id.as_bytes());
        found.map(|(_, _, kind, bytes)| match kind {
            FRAME => Outcome::Frame(text(bytes)),
            ACCEPTED => Outcome::Accepted(text(bytes)),
            _ => Outcome::Pending,
        })
    }

    /// Notes an outcome, as the latest. At most `done` outcomes stay, and `all` requests: the oldest is forgotten. One that has no
    /// outcome yet is the one that a browser asks for again, so it stays for longer.
    pub fn set(&mut self, id: &str, outcome: Outcome<'_>, done: usize, all: usize) {
        let Ok(len) = u8::try_from(id.len()) else {
            return; // the protocol allows 64
        };
        let known = self.each().find(|(_, known, ..)| *known == id.as_bytes());
        if let Some((place, ..)) = known {
            self.0.remove(place);
        }
        let (kind, text) = outcome.parts();
        self.0.push(&[&[kind, len], id.as_bytes(), text.as_bytes()]);
        let mut finished = self.each().filter(|(_, _, kind, _)| *kind != PENDING);
        let oldest = finished.next().map(|(place, ..)| place);
        if finished.count() >= done {
            if let Some(place) = oldest {
                self.0.remove(place);
            }
        }
        if self.len() > all {
            self.0.remove_at(0);
        }
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.0.iter().count()
    }

    /// Is none remembered?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Events of a session: number, time and frame of each, oldest first.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Journal(Packed);

const NUMBER: Range<usize> = 0..8;
const TIME: Range<usize> = 8..16;

impl Journal {
    /// The events.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        self.0.iter().filter_map(|(_, entry)| {
            let (number, rest) = entry.split_first_chunk()?;
            let (at, frame) = rest.split_first_chunk()?;
            Some((
                u64::from_le_bytes(*number),
                u64::from_le_bytes(*at),
                text(frame),
            ))
        })
    }

    /// Adds one.
    pub fn push(&mut self, number: u64, at: u64, frame: &str) {
        self.0
            .push(&[&number.to_le_bytes(), &at.to_le_bytes(), frame.as_bytes()]);
    }

    /// Takes the one at that place out.
    pub fn remove(&mut self, index: usize) {
        self.0.remove_at(index);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().count()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the time of each.
    pub fn change_times(&mut self, change: impl Fn(&mut u64)) {
        debug_assert_eq!(NUMBER.end, TIME.start);
        let places: Vec<_> = self.0.iter().map(|(place, _)| place.start + LEN).collect();
        for start in places {
            let time = self
                .0
                 .0
                .get_mut(start + TIME.start..start + TIME.end)
                .and_then(|bytes| bytes.first_chunk_mut());
            if let Some(bytes) = time {
                let mut at = u64::from_le_bytes(*bytes);
                change(&mut at);
                *bytes = at.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_outcomes_are_forgotten_and_what_waits_is_not() {
        let mut outcomes = Outcomes::default();
        outcomes.set("waits", Outcome::Pending, 3, 6);
        for n in 0..5 {
            outcomes.set(&format!("r{n}"), Outcome::Frame(&format!("f{n}")), 3, 6);
        }
        assert_eq!(outcomes.len(), 4);
        assert_eq!(outcomes.get("r1"), None);
        assert_eq!(outcomes.get("r2"), Some(Outcome::Frame("f2")));
        assert_eq!(outcomes.get("waits"), Some(Outcome::Pending));
        // what gets its outcome is the latest then
        outcomes.set("waits", Outcome::Accepted("c"), 3, 6);
        assert_eq!(outcomes.get("r2"), None);
        assert_eq!(outcomes.get("waits"), Some(Outcome::Accepted("c")));
        for n in 0..9 {
            outcomes.set(&format!("p{n}"), Outcome::Pending, 3, 6);
        }
        assert_eq!(outcomes.len(), 6);
        assert_eq!(outcomes.get("waits"), None);
        assert_eq!(outcomes.get("p8"), Some(Outcome::Pending));
    }

    #[test]
    fn a_journal_keeps_order_and_times() {
        let mut journal = Journal::default();
        for n in 1..=3 {
            journal.push(n, n * 10, &"x".repeat(n as usize));
        }
        journal.change_times(|at| *at += 1);
        journal.remove(1);
        journal.remove(7);
        let seen: Vec<_> = journal.iter().collect();
        assert_eq!(seen, [(1, 11, "x"), (3, 31, "xxx")]);
        assert!(!journal.is_empty());
    }

    #[test]
    fn both_come_back_from_a_record_and_bytes_of_any_kind_do_no_harm() {
        let mut kept = (Outcomes::default(), Journal::default());
        kept.0.set("a", Outcome::Frame("{}"), 3, 6);
        kept.1.push(7, 8, "{}");
        let bytes = postcard::to_stdvec(&kept).expect("it can be written");
        let (outcomes, journal): (Outcomes, Journal) =
            postcard::from_bytes(&bytes).expect("and read");
        assert_eq!(outcomes.get("a"), Some(Outcome::Frame("{}")));
        assert_eq!(journal.iter().next(), Some((7, 8, "{}")));

        for bytes in [
            &[1, 0, 0][..],
            &[9, 0, 0, 0, 1],
            &[2, 0, 0, 0, 1, 200],
            &[0; 40],
            &[255; 40],
        ] {
            let mut outcomes = Outcomes(Packed(bytes.to_vec()));
            let mut journal = Journal(Packed(bytes.to_vec()));
            assert_eq!(outcomes.get("a"), None);
            outcomes.set("a", Outcome::Pending, 3, 6);
            journal.change_times(|at| *at += 1);
            journal.push(1, 2, "x");
            journal.remove(0);
            let _counted = (outcomes.len(), journal.len(), journal.iter().count());
        }
    }
}
