//! What several nodes tell each other of their agents: who owns which, in which version, and what wins.
//!
//! Pure: bytes and records in, bytes and verdicts out. How messages travel, and where replicas lie, is the caller's.
//!
//! - [`Version`] orders the records of one agent, in any order of arrival, the same on every node.
//! - [`Batch`] is what one message carries; [`Key`] seals it, for it holds tokens and digests.
//! - [`Digest`] shows which part of two nodes' knowledge differs, without telling it all again.
//! - [`is_gone`] and [`is_first`] say who ends the calls of a node that is gone.

mod digest;
mod gone;
mod seal;
mod version;

pub use digest::{bucket_of, Digest, BUCKETS};
pub use gone::{is_first, is_gone};
pub use seal::{BadSeal, Key};
pub use version::Version;

use serde::{Deserialize, Serialize};

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The sender: `host:port` of its SIP socket.
    pub from: String,
    /// Its clock in milliseconds; times in the records are of that clock.
    pub now: u64,
    /// What it has to say.
    pub items: Vec<Item>,
}

/// One thing that a node tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// The record of an agent.
    Record {
        /// The agent.
        dn: String,
        /// Who owns it, and which version it is.
        version: Version,
        /// The record; none for an agent that is gone.
        // (as bytes: serde would read and write a list of them one by one)
        #[serde(with = "serde_bytes")]
        record: Option<Vec<u8>>,
        /// SIP Call-IDs of an agent that is gone which came from former owners: they need not end them.
        brought: Vec<String>,
    },
    /// The sender lives, and this is what it owns.
    Hello {
        /// Agents with a session.
        agents: u64,
        /// Calls.
        calls: u64,
        /// 1: it wants to become empty.
        draining: bool,
        /// The other nodes that it hears, in the order of their names.
        hears: Vec<String>,
        /// The records that it owns; not told each time.
        digest: Option<Digest>,
    },
    /// Tell these parts of what you own again.
    Ask {
        /// Who is meant.
        to: String,
        /// The parts.
        buckets: Vec<u8>,
    },
    /// A later version of that agent is known than the one that was told.
    Known {
        /// Who told it.
        to: String,
        /// The agent.
        dn: String,
        /// The later version: of one that is gone, or of an earlier life of `to`.
        version: Version,
        /// As in [`Item::Record`].
        brought: Vec<String>,
    },
    /// A call of an agent is to be ended, by whoever owns him.
    HangUp {
        /// The agent.
        dn: String,
        /// Its `callId`.
        call: String,
    },
    /// The far side has answered the BYE that the sender had sent while the agent was its own.
    Ended {
        /// The agent.
        dn: String,
        /// Key of the call's leg.
        call: String,
    },
    /// All agents of a part that the sender owns: others are none of its any more.
    Listing {
        /// The part.
        bucket: u8,
        /// Their numbers.
        dns: Vec<String>,
    },
}
