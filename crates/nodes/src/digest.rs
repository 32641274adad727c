//! A short sum of what a node owns.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::Version;

/// Parts that agents are divided into by their number.
pub const BUCKETS: usize = 64;

/// The sum of a part of which nothing is said.
const HIDDEN: u64 = u64::MAX;

/// One number for each part: the sum of its records' fingerprints. Records may be added in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(Vec<u64>);

impl Default for Digest {
    fn default() -> Self {
        Digest(vec![0; BUCKETS])
    }
}

impl Digest {
    /// Adds a record.
    pub fn add(&mut self, dn: &str, version: &Version) {
        // the key is no secret: whoever may send digests holds the nodes' key
        let mut hasher = SipHasher13::new();
        (dn, version.epoch, &version.owner, version.counter).hash(&mut hasher);
        if let Some(sum) = self.0.get_mut(usize::from(bucket_of(dn))) {
            *sum = sum.wrapping_add(hasher.finish());
        }
    }

    /// Says nothing of a part: it has changes that the others were not told of yet.
    pub fn hide(&mut self, bucket: u8) {
        if let Some(sum) = self.0.get_mut(usize::from(bucket)) {
            *sum = HIDDEN;
        }
    }

    /// Parts that `other` has otherwise, of those that something is said of.
    pub fn unlike(&self, other: &Digest) -> Vec<u8> {
        (0u8..)
            .zip(self.0.iter().zip(&other.0))
            .filter(|(_, (now, other))| **now != HIDDEN && now != other)
            .map(|(bucket, _)| bucket)
            .collect()
    }

    /// Parts that `other` has as `self` has them no more, `before` being what `self` said a while ago: a part that changes
    /// all the time is told anyway.
    pub fn differs(&self, before: &Digest, other: &Digest) -> Vec<u8> {
        (0u8..)
            .zip(self.0.iter().zip(&before.0).zip(&other.0))
            .filter(|(_, ((now, before), other))| **now != HIDDEN && now == before && now != other)
            .map(|(bucket, _)| bucket)
            .collect()
    }
}

/// The part that an agent belongs to.
pub fn bucket_of(dn: &str) -> u8 {
    let mut hasher = SipHasher13::new();
    dn.hash(&mut hasher);
    (hasher.finish() % BUCKETS as u64) as u8
}
