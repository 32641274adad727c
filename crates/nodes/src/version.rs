//! The order of an agent's records.

use serde::{Deserialize, Serialize};

/// Which of two records of an agent counts: the one of the later takeover; of two that were taken over at the same time in
/// two halves of a network, that of the node whose name comes later; of one owner's records the latest.
///
/// The order is total and the same everywhere, so nodes that have seen the same records agree, whatever the order in which
/// they saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// How often the agent has gone from one node to another.
    pub epoch: u64,
    /// The owner: `host:port` of its SIP socket.
    pub owner: String,
    /// Number of the owner's commit.
    pub counter: u64,
}

impl Version {
    /// The version with which `node` takes the agent over.
    #[must_use]
    pub fn taken_by(&self, node: &str) -> Version {
        Version {
            epoch: self.epoch + 1,
            owner: node.to_owned(),
            counter: 1,
        }
    }

    /// The version after the owner's next commit.
    #[must_use]
    pub fn next(&self) -> Version {
        Version {
            counter: self.counter + 1,
            ..self.clone()
        }
    }
}
