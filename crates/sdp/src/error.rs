use crate::{policy::Policy, Kind};

/// Why a description was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not an SDP at all, or a broken one (RFC 8866): SIP 400.
    #[error("not an sdp: {details}")]
    Malformed {
        /// What is wrong, and in which line.
        details: String,
    },
    /// It is an SDP, but no audio section of it is acceptable: SIP 488.
    #[error("sdp not acceptable: {details}")]
    NotAcceptable {
        /// What is missing or wrong in the first audio section.
        details: String,
    },
}

impl Error {
    /// What is wrong and what to do about it, for the developer of the page. A text about missing things names each by
    /// its own word first: `audio`, `codec`, `profile`, `fingerprint`, `setup`, `ice-ufrag`, `ice-pwd`.
    pub fn details(&self) -> &str {
        match self {
            Error::Malformed { details } | Error::NotAcceptable { details } => details,
        }
    }

    /// The SIP status that says the same: 400 or 488.
    pub fn code(&self) -> u16 {
        match self {
            Error::Malformed { .. } => 400,
            Error::NotAcceptable { .. } => 488,
        }
    }
}

/// `line` counts from 1; 0 speaks of the whole text.
pub(crate) fn malformed(line: usize, what: &str) -> Error {
    let details = match line {
        0 => what.to_owned(),
        n => format!("line {n}: {what}"),
    };
    Error::Malformed { details }
}

/// One bit for each thing that a section can lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults(u8);

impl Faults {
    pub const AUDIO: Faults = Faults(1);
    pub const CODEC: Faults = Faults(2);
    pub const PROFILE: Faults = Faults(4);
    pub const FINGERPRINT: Faults = Faults(8);
    pub const SETUP: Faults = Faults(16);
    pub const UFRAG: Faults = Faults(32);
    pub const PWD: Faults = Faults(64);

    pub fn add(&mut self, fault: Faults, present: bool) {
        if present {
            self.0 |= fault.0;
        }
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn into_error(self, kind: Kind, policy: &Policy) -> Error {
        let setup = match kind {
            Kind::Offer => "setup: a=setup must be there and say actpass, active or passive",
            Kind::Answer => "setup: a=setup must be there and, in an answer, say active or passive",
        };
        let codec = format!("codec: none of the audio codecs is allowed here (allowed: {policy})");
        let all = [
            (
                Faults::AUDIO,
                "audio: there is no m=audio section that is not refused (port 0)",
            ),
            (Faults::CODEC, codec.as_str()),
            (
                Faults::PROFILE,
                "profile: the m=audio line must say UDP/TLS/RTP/SAVPF (DTLS-SRTP)",
            ),
            (
                Faults::FINGERPRINT,
                "fingerprint: a=fingerprint with sha-256, sha-384 or sha-512 is missing or cut",
            ),
            (Faults::SETUP, setup),
            (
                Faults::UFRAG,
                "ice-ufrag: a=ice-ufrag (4 to 256 characters) is missing or malformed",
            ),
            (
                Faults::PWD,
                "ice-pwd: a=ice-pwd (22 to 256 characters) is missing or malformed",
            ),
        ];
        let said: Vec<&str> = all
            .iter()
            .filter(|(fault, _)| self.0 & fault.0 != 0)
            .map(|(_, text)| *text)
            .collect();
        Error::NotAcceptable {
            details: said.join("; "),
        }
    }
}
