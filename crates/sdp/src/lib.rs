//! The SDP policy: what may pass between a browser and the SIP side, in both directions, in every offer and answer.
//!
//! Text in, text out, by pure functions. There are three kinds of them:
//!
//! - the filters [`from_browser`] and [`from_sip`] check an offer or answer against a [`Policy`] and give the text to send
//!   on. Running a filter on its own output changes nothing;
//! - [`with_direction`] and [`follow`] make the later descriptions of a call out of the last text that was sent;
//! - [`candidates`], [`direction`] and [`only_direction_differs`] read a filtered text.
//!
//! A call places its first offer through `from_browser`, keeps `candidates(&text)`, and hands them back in
//! [`Placement::keep`] with every later offer and answer, so that the far side sees the same lines each time.
//!
//! CRLF and bare LF are read, CRLF is written. A line that no rule names passes byte for byte, in its order.

mod change;
mod error;
mod filter;
mod fragment;
mod line;
mod policy;
mod scan;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use change::{
    candidates, direction, follow, only_direction_differs, same_but_for_version, same_fingerprints,
    with_candidates, with_direction,
};
pub use error::Error;
pub use filter::{from_browser, from_sip};
pub use fragment::{fragment, trickled, Trickled, FRAGMENT_TYPE};
pub use policy::{Policy, PolicyError};

/// Role of a description in the exchange (RFC 3264).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It opens an exchange.
    Offer,
    /// It closes one.
    Answer,
}

/// Direction of a media section, seen by whoever wrote the description (RFC 8866, section 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Sends and receives; also what a section without any direction line means.
    #[default]
    SendRecv,
    /// Sends only: the writer holds the other side.
    SendOnly,
    /// Receives only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute's name, as in `a=sendrecv`.
    pub fn name(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// The direction that answers `offered` in full: send where the other side receives, and the reverse (RFC 3264,
/// section 6.1).
pub fn mirror(offered: Direction) -> Direction {
    match offered {
        Direction::SendOnly => Direction::RecvOnly,
        Direction::RecvOnly => Direction::SendOnly,
        same => same,
    }
}

/// An offer or answer that passed a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// The text to send on, CRLF at the end of every line.
    pub text: String,
    /// Direction of the first accepted audio section. From the SIP side, `c=0.0.0.0` (hold as RFC 2543 had it; RFC 3264,
    /// section 8.4) takes the receiving half away: `sendrecv` counts as `SendOnly`, `recvonly` as `Inactive`. Not so in a
    /// section that trickles ICE candidates (port 9 with `ice-ufrag`; RFC 8840, section 4.1.1).
    pub direction: Direction,
    /// Does the first accepted audio section carry `telephone-event` (RFC 4733) in the filtered text?
    pub telephone_event: bool,
    /// How many candidates the first accepted audio section brought itself, the placeholder not counted.
    pub candidates: usize,
}

/// What the SIP side is told of the browser's place in the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// The browser's address as its WebSocket shows it. It replaces 0.0.0.0 and :: in `c=`, which would count as hold.
    pub browser_addr: Option<IpAddr>,
    /// Candidates, port and address as the call sent them first. They replace what this text says, unless its
    /// `ice-ufrag` is another one: after an ICE restart (RFC 8839, section 4.4.1.1.1) the old ones mean nothing.
    pub keep: Option<&'a Candidates>,
}

/// What a text that was sent says of the transport of its audio.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// `ice-ufrag` to which they belong.
    pub ufrag: String,
    /// Port of the `m=` line; 0 if the text had no accepted audio section.
    pub port: u16,
    /// Value of the `c=` line that holds for the section, as in `IN IP4 192.0.2.1`.
    pub connection: String,
    /// The `a=candidate` lines and `a=end-of-candidates`, whole, each with its CRLF.
    pub lines: String,
}
