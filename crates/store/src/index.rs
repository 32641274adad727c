//! The index: chains of slots in buckets, each with its own lock, held for one walk.
//!
//! A chain changes by one store at a time (the new slot's link is set before it becomes reachable), so the death of a
//! process in the middle leaves a whole chain and a stolen bucket needs no repair.

use std::hash::Hasher;
use std::sync::atomic::{
    fence, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use siphasher::sip::SipHasher13;

use crate::crash;
use crate::error::Error;
use crate::layout::{Bucket, Slot, KEY_WORDS, MAX_KEY};
use crate::lock::LockGuard;
use crate::map::Map;

/// A key, as it is kept in a slot: zero-padded words and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    words: [u64; KEY_WORDS],
    len: u32,
}

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Result<Key, Error> {
        if bytes.is_empty() || bytes.len() > MAX_KEY {
            return Err(Error::Key(bytes.len()));
        }
        let mut words = [0; KEY_WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(padded);
        }
        Ok(Key {
            words,
            len: bytes.len() as u32,
        })
    }

    pub(crate) fn write_to<'a>(&self, buffer: &'a mut [u8; MAX_KEY]) -> &'a [u8] {
        for (chunk, word) in buffer.chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        &buffer[..self.len as usize]
    }

    fn bucket(&self, map: &Map) -> u32 {
        let mut buffer = [0; MAX_KEY];
        let mut hasher = SipHasher13::new_with_key(&map.sip_key);
        hasher.write(self.write_to(&mut buffer));
        hasher.finish() as u32 & (map.layout.buckets - 1)
    }

    fn is_of(&self, slot: &Slot) -> bool {
        (slot.key_mark.load(Relaxed) >> 32) as u32 == self.len
            && slot
                .key
                .iter()
                .zip(self.words)
                .all(|(theirs, ours)| theirs.load(Relaxed) == ours)
    }
}

impl Slot {
    /// Sets the key. The caller holds the slot's lock and the slot is in no bucket.
    pub(crate) fn set_key(&self, key: &Key) {
        // A writer may have died in the middle and left it odd
        let odd = self.key_mark.load(Relaxed) as u32 | 1;
        self.key_mark.store(u64::from(odd), Relaxed);
        fence(Release);
        crash::point();
        for (word, value) in self.key.iter().zip(key.words) {
            word.store(value, Relaxed);
        }
        crash::point();
        self.key_mark.store(
            u64::from(odd.wrapping_add(1)) | (u64::from(key.len) << 32),
            Release,
        );
    }

    /// The key, read without any lock. None while it is being written.
    pub(crate) fn key(&self) -> Option<Key> {
        let mark = self.key_mark.load(Acquire);
        let len = (mark >> 32) as u32;
        let words = std::array::from_fn(|at| self.key[at].load(Relaxed));
        fence(Acquire);
        let whole = mark & 1 == 0
            && (1..=MAX_KEY as u32).contains(&len)
            && self.key_mark.load(Relaxed) == mark;
        whole.then_some(Key { words, len })
    }
}

/// The slot with this key.
pub(crate) fn find(map: &Map, key: &Key) -> Option<u32> {
    let (bucket, _lock) = lock(map, key.bucket(map));
    walk(map, bucket, |_, slot| key.is_of(slot)).map(|(_, index)| index)
}

/// Adds a slot that has its key already. False, and nothing done, if another slot has this key.
pub(crate) fn insert(map: &Map, index: u32, key: &Key) -> bool {
    let (bucket, _lock) = lock(map, key.bucket(map));
    if walk(map, bucket, |_, slot| key.is_of(slot)).is_some() {
        return false;
    }
    map.slot(index)
        .link
        .store(bucket.first.load(Relaxed), Relaxed);
    crash::point();
    bucket.first.store(index + 1, Release);
    crash::point();
    true
}

/// Takes a slot out of its key's bucket, if it is there.
pub(crate) fn remove(map: &Map, index: u32) {
    let Some(key) = map.slot(index).key() else {
        // Its maker died before the key was whole, so before it was inserted
        return;
    };
    let (bucket, _lock) = lock(map, key.bucket(map));
    if let Some((from, _)) = walk(map, bucket, |at, _| at == index) {
        crash::point();
        from.store(map.slot(index).link.load(Relaxed), Release);
        crash::point();
    }
}

fn lock(map: &Map, index: u32) -> (&Bucket, LockGuard<'_>) {
    let bucket = map.bucket(index);
    let guard = bucket.lock.lock();
    // SAFETY: only flags are used; the lock is not unlocked through this reference.
    let raw = unsafe { bucket.lock.raw() };
    if raw.is_stolen() {
        map.header().locks_stolen.fetch_add(1, Relaxed);
        raw.repaired();
    }
    (bucket, guard)
}

/// The first slot of the chain that fits, and the word that leads to it. Ends even if the chain was overwritten from
/// outside and runs in a circle.
fn walk<'a>(
    map: &'a Map,
    bucket: &'a Bucket,
    mut fits: impl FnMut(u32, &Slot) -> bool,
) -> Option<(&'a AtomicU32, u32)> {
    let mut from = &bucket.first;
    for _ in 0..map.layout.slots {
        let index = from
            .load(Acquire)
            .checked_sub(1)
            .filter(|&index| index < map.layout.slots)?;
        let slot = map.slot(index);
        if fits(index, slot) {
            return Some((from, index));
        }
        from = &slot.link;
    }
    None
}
