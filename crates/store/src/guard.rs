use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::alloc::Heap;
use crate::arena::{reclaim_for_room, NEVER};
use crate::block::{BlockRef, Head, HEAD};
use crate::crash;
use crate::error::Error;
use crate::index::Key;
use crate::layout::{LIVE, MAX_KEY, MAX_RECORD};
use crate::map::Map;
use crate::repair::{self, Held};
use crate::turn::Turn;

/// One key, locked in all processes until this is dropped.
///
/// Read with [`record`](Guard::record); change with [`commit`](Guard::commit) or [`remove`](Guard::remove), as often as
/// needed; take a place in the order of sending with [`turn`](Guard::turn). Dropping it without a commit (also by a panic)
/// leaves the record as it was, and a key without a record goes away.
///
/// Must not be kept over a `fork`.
pub struct Guard<'a> {
    map: &'a Map,
    index: u32,
    key: Key,
    // Dropped, so unlocked, after Guard::drop
    _held: Held<'a>,
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the record: it can hold credentials
        f.debug_struct("Guard")
            .field("slot", &self.index)
            .finish_non_exhaustive()
    }
}

impl<'a> Guard<'a> {
    pub(crate) fn new(map: &'a Map, index: u32, key: Key, held: Held<'a>) -> Guard<'a> {
        Guard {
            map,
            index,
            key,
            _held: held,
        }
    }

    /// The record as it was committed last; empty for a new or removed key.
    pub fn record(&self) -> &[u8] {
        // SAFETY: the published block of the slot whose lock `self` holds. `commit` and `remove` need `&mut self`, so the
        // block is not freed while the result is in use.
        unsafe { self.map.read_block(self.published()) }.map_or(&[], |contents| contents.record)
    }

    /// No record was committed under this key yet, or it was removed.
    pub fn is_new(&self) -> bool {
        !self.published().is_some()
    }

    /// Replaces the record and says when it is due ([`NEVER`] for not at all), in the caller's milliseconds.
    ///
    /// It is there, also for a later [`Arena::open`](crate::Arena::open), when this returns; if the process dies before,
    /// the old one is. [`Error::Full`] or [`Error::TooBig`]: the old one stands. The first record of a key leaves some of
    /// the arena alone, so that records that exist can still be committed when new keys are refused.
    pub fn commit(&mut self, record: &[u8], due_ms: u64) -> Result<(), Error> {
        if record.len() > MAX_RECORD {
            return Err(Error::TooBig(record.len()));
        }
        let old = self.published();
        let mut buffer = [0; MAX_KEY];
        let key = self.key.write_to(&mut buffer);
        let block = self
            .alloc(HEAD + key.len() + record.len(), !old.is_some())?
            .after(old);
        let head = Head {
            key_len: key.len() as u32,
            len: record.len() as u32,
            slot: self.index,
            generation: block.generation(),
            code: block.code(),
            due: due_ms,
        };
        // SAFETY: allocated to this slot just now and not published; `self` holds the slot's lock.
        unsafe { self.map.write_block(block, head.encode(), key, record) };
        crash::point();
        let due = self.map.due(self.index);
        // Until the new time is stored the earlier one counts: death in between wakes the key early, never late
        due.store(due.load(Relaxed).min(due_ms), Relaxed);
        self.publish(old, block);
        self.map.slot(self.index).state.store(LIVE, Release);
        crash::point();
        due.store(due_ms, Relaxed);
        self.map.slot(self.index).fresh.store(0, Release);
        crash::point();
        repair::free_leftovers(self.map, self.index);
        Ok(())
    }

    /// The record and its key go away (the key when the guard is dropped, unless something is committed before).
    pub fn remove(&mut self) {
        let old = self.published();
        if old.is_some() {
            self.publish(old, old.cleared());
            self.map.due(self.index).store(NEVER, Relaxed);
            crash::point();
            repair::free_leftovers(self.map, self.index);
        }
    }

    /// Takes the next place in this key's order of sending. The turns of a key come in the order in which they were taken,
    /// in all processes, also when the key is removed meanwhile.
    pub fn turn(&mut self) -> Turn<'a> {
        Turn::take(self.map, self.index)
    }

    /// The record cannot be trusted, and the key goes. Nor can the word, so its block is not freed: it may be another's.
    /// The allocator finds it again when it is built anew.
    pub(crate) fn abandon(self) {
        self.map
            .slot(self.index)
            .record
            .store(self.published().cleared().0, Release);
    }

    fn published(&self) -> BlockRef {
        Map::load(&self.map.slot(self.index).record)
    }

    /// One store decides. `retired` names the old block from before it to the end, so it is not lost whatever happens.
    fn publish(&self, old: BlockRef, new: BlockRef) {
        let slot = self.map.slot(self.index);
        slot.retired
            .store(if old.is_some() { old.0 } else { 0 }, Release);
        crash::point();
        // Release: whoever sees the word (Acquire) sees the block's content and the due time
        slot.record.store(new.0, Release);
        crash::point();
    }

    fn alloc(&self, bytes: usize, for_new_key: bool) -> Result<BlockRef, Error> {
        let alloc = || Heap::lock(self.map).alloc(self.index, bytes, for_new_key);
        alloc()
            .or_else(|| reclaim_for_room(self.map).then(alloc)?)
            .ok_or(Error::Full)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        repair::free_leftovers(self.map, self.index);
        if self.is_new() {
            repair::give_back(self.map, self.index);
        }
    }
}
