use std::fmt;

use crate::line::{cut, payload_type};

/// What a text may contain: the codecs, in order of preference, and whether the SIP side must speak DTLS-SRTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    /// Must a text of the SIP side have DTLS-SRTP and ICE? A browser's text always must. `false` is for an operator whose
    /// relay puts them in afterwards. [`Policy::parse`] sets `true`.
    pub require_dtls: bool,
    codecs: Vec<&'static Codec>,
    /// What each payload type means where no `rtpmap` says so.
    fixed: [Format; 128],
}

/// Why a list of codecs was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A name that is not known.
    #[error("unknown codec \"{name}\"; write some of {}", names())]
    Unknown {
        /// The name as written.
        name: String,
    },
    /// A name stands there twice.
    #[error("codec \"{name}\" is named twice")]
    Twice {
        /// The name.
        name: &'static str,
    },
    /// Nothing in the list can carry a voice.
    #[error("the list of codecs has no audio codec, only {0}; write at least one, as in \"PCMU,telephone-event\"", or_nothing(.written))]
    NoAudio {
        /// The list as written.
        written: String,
    },
}

impl Policy {
    /// Reads a list as `PCMU,telephone-event`: names of RFC 3551 and its successors, divided by commas or blanks, the
    /// preferred one first, in any case.
    ///
    /// # Errors
    ///
    /// An unknown or repeated name, or a list without an audio codec. The text says what may be written.
    pub fn parse(list: &str) -> Result<Policy, PolicyError> {
        let mut policy = Policy {
            require_dtls: true,
            codecs: Vec::new(),
            fixed: [Format::NONE; 128],
        };
        for name in list.split([',', ' ', '\t']).filter(|name| !name.is_empty()) {
            let codec = KNOWN
                .iter()
                .find(|codec| codec.name.eq_ignore_ascii_case(name))
                .ok_or_else(|| PolicyError::Unknown {
                    name: name.to_owned(),
                })?;
            if policy.codecs.iter().any(|c| c.name == codec.name) {
                return Err(PolicyError::Twice { name: codec.name });
            }
            policy.codecs.push(codec);
        }
        if !policy.codecs.iter().any(|c| c.voice) {
            return Err(PolicyError::NoAudio {
                written: list.trim().to_owned(),
            });
        }
        for (rank, codec) in policy.codecs.iter().enumerate() {
            if let Some(pt) = codec.fixed {
                // every fixed type of the table, CN's too, runs at 8000 Hz
                policy.fixed[usize::from(pt)] = Format::new(rank, Clock::of(8_000));
            }
        }
        Ok(policy)
    }

    pub(crate) fn fixed(&self) -> &[Format; 128] {
        &self.fixed
    }

    /// The value of an `rtpmap` attribute: its payload type and what it stands for, [`Format::NONE`] if not allowed.
    pub(crate) fn rtpmap(&self, value: &str) -> Option<(u8, Format)> {
        let (pt, rest) = payload_type(value)?;
        let encoding = rest.trim_start_matches(' ');
        let (name, rest) = cut(encoding, b'/');
        let Some(rank) = self
            .codecs
            .iter()
            .position(|c| c.name.len() == name.len() && c.name.eq_ignore_ascii_case(name))
        else {
            return Some((pt, Format::NONE));
        };
        let codec = self.codecs[rank];
        let (clock, channels) = cut(rest, b'/');
        let clock = clock.parse().unwrap_or(0);
        // PCMU/16000 or PCMU/8000/2 is not what the operator meant by PCMU
        let fits = (codec.clock == 0 || codec.clock == clock)
            && Clock::of(clock) != Clock::OTHER
            && (codec.channels == channels || (codec.channels == "1" && channels.is_empty()));
        let format = if fits {
            Format::new(rank, Clock::of(clock))
        } else {
            Format::NONE
        };
        Some((pt, format))
    }

    /// Puts the allowed ones of `listed` into order of preference. Without an audio codec nothing is left. The second
    /// value tells whether `telephone-event` is among them.
    pub(crate) fn order(&self, listed: &[u8], formats: &[Format; 128]) -> (Vec<u8>, bool) {
        let format = |pt: u8| formats[usize::from(pt)];
        let mut clocks = 0u16;
        for &pt in listed {
            if let Some(rank) = format(pt).rank() {
                if self.codecs[rank].voice {
                    clocks |= 1 << format(pt).clock().0;
                }
            }
        }
        let mut order = Vec::new();
        let mut telephone_event = false;
        if clocks == 0 {
            return (order, telephone_event);
        }
        for (rank, codec) in self.codecs.iter().enumerate() {
            for &pt in listed {
                // an event or silence at a clock of no audio codec could never be sent (RFC 4733, section 2.1)
                if format(pt).rank() == Some(rank) && clocks & (1 << format(pt).clock().0) != 0 {
                    order.push(pt);
                    telephone_event |= codec.name == "telephone-event";
                }
            }
        }
        (order, telephone_event)
    }
}

impl Default for Policy {
    /// PCMU and `telephone-event`, DTLS-SRTP on both sides.
    fn default() -> Self {
        Policy::parse("PCMU,telephone-event").expect("both names are in the table of known codecs")
    }
}

/// The list, as [`Policy::parse`] reads it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, codec) in self.codecs.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}", codec.name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("codecs", &self.to_string())
            .field("require_dtls", &self.require_dtls)
            .finish()
    }
}

/// Rank and clock of a payload type in one byte: they are looked up for every line of an audio section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format(u8);

impl Format {
    pub const NONE: Format = Format(0);

    fn new(rank: usize, clock: Clock) -> Format {
        // the table has fewer than 15 codecs and clocks
        Format(((rank as u8 + 1) << 4) | clock.0)
    }

    fn rank(self) -> Option<usize> {
        usize::from(self.0 >> 4).checked_sub(1)
    }

    fn clock(self) -> Clock {
        Clock(self.0 & 15)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Clock(u8);

impl Clock {
    const OTHER: Clock = Clock(0);

    fn of(hertz: u32) -> Clock {
        Clock(match hertz {
            8_000 => 1,
            16_000 => 2,
            24_000 => 3,
            32_000 => 4,
            48_000 => 5,
            _ => 0,
        })
    }
}

#[derive(PartialEq, Eq)]
struct Codec {
    name: &'static str,
    /// Hertz in its `rtpmap`; 0: goes with any audio codec of the same clock.
    clock: u32,
    channels: &'static str,
    /// Payload type of RFC 3551, valid without an `rtpmap`.
    fixed: Option<u8>,
    /// Carries a voice, so that a call can live on it alone.
    voice: bool,
}

const fn codec(name: &'static str, clock: u32, fixed: Option<u8>) -> Codec {
    Codec {
        name,
        clock,
        channels: "1",
        fixed,
        voice: true,
    }
}

static KNOWN: [Codec; 11] = [
    codec("PCMU", 8_000, Some(0)),
    codec("PCMA", 8_000, Some(8)),
    codec("G722", 8_000, Some(9)),
    Codec {
        channels: "2",
        ..codec("opus", 48_000, None)
    },
    codec("G729", 8_000, Some(18)),
    codec("GSM", 8_000, Some(3)),
    codec("iLBC", 8_000, None),
    codec("AMR", 8_000, None),
    codec("AMR-WB", 16_000, None),
    Codec {
        voice: false,
        ..codec("CN", 0, Some(13))
    },
    Codec {
        voice: false,
        ..codec("telephone-event", 0, None)
    },
];

fn names() -> String {
    let names: Vec<&str> = KNOWN.iter().map(|codec| codec.name).collect();
    names.join(", ")
}

fn or_nothing(written: &str) -> &str {
    if written.is_empty() {
        "nothing"
    } else {
        written
    }
}
