use std::fs::File;
use std::path::Path;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use crate::alloc::Heap;
use crate::crash;
use crate::error::Error;
use crate::file;
use crate::guard::Guard;
use crate::index::{self, Key};
use crate::layout::{Layout, COUNTERS, MAX_KEY, PAGE};
use crate::map::Map;
use crate::recover::{recover, Recovery};
use crate::repair;

/// The due time of a record that is never due.
pub const NEVER: u64 = u64::MAX;

/// A full arena looks for leavings of the dead at most so often.
const RECLAIM_EVERY_MS: u64 = 1000;
/// Lookups that found a key which was gone once locked. Each one means that another process made progress, so this many
/// mean that the index was overwritten.
const TRIES: u32 = 10_000;

/// How to open an arena.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of the file, from [`MIN_SIZE`](crate::MIN_SIZE). All of it is reserved at once.
    pub size: u64,
    /// Whose records are kept: those written under another id are dropped (times and connections of another boot mean
    /// nothing).
    pub boot_id: [u8; 16],
}

/// How full an arena is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of it that can hold records.
    pub capacity: u64,
    /// Bytes of the blocks in use (a record's block is up to a quarter bigger, or up to twice beyond 8 kB).
    pub used_bytes: u64,
    /// Bytes of whole pages that are free for any size.
    pub free_bytes: u64,
    /// Keys, including those that are being made.
    pub records: u64,
    /// Keys that there is still room for in the table of slots.
    pub slots_free: u64,
    /// Locks taken from dead processes, since the arena is new.
    pub locks_stolen: u64,
    /// Turns of dead or slow processes that were passed over, since the arena is new.
    pub turns_skipped: u64,
}

/// Opaque records under keys of 1 to [`MAX_KEY`] bytes, in a file that all worker processes map.
///
/// [`open`](Arena::open) in the parent, before the fork. [`lock`](Arena::lock) and
/// [`lock_or_create`](Arena::lock_or_create) give a [`Guard`] of one key; a process holds one at a time.
/// [`due`](Arena::due) and [`contains`](Arena::contains) look without waiting for guards. [`for_each`](Arena::for_each),
/// [`usage`](Arena::usage) and [`counter`](Arena::counter) are for the operator; [`reclaim`](Arena::reclaim) for a timer.
#[derive(Debug)]
pub struct Arena {
    pub(crate) map: Map,
    /// Open as long as the arena is: the file's lock goes with it.
    pub(crate) _file: File,
}

impl Arena {
    /// Opens the file, or makes it (mode 0600), and recovers what is in it.
    ///
    /// Records that are damaged are dropped. A file of another size, format or boot, or with a damaged header, is replaced
    /// by an empty arena. A file that never was an arena, is no regular file, belongs to somebody else or is in use is
    /// refused. Waits up to a second for the last processes of another server to let go of it.
    pub fn open(path: &Path, options: &Options) -> Result<(Arena, Recovery), Error> {
        let layout = Layout::new(options.size).ok_or(Error::Size(options.size))?;
        let opened = file::open(path, layout, options.boot_id)?;
        let recovery = Recovery {
            fresh: opened.fresh,
            replaced: opened.replaced,
            ..recover(&opened.map)
        };
        Ok((
            Arena {
                map: opened.map,
                _file: opened.file,
            },
            recovery,
        ))
    }

    /// Locks a key that exists. None if it does not.
    ///
    /// [`Error::Damaged`] is given once: the record is dropped with it.
    pub fn lock(&self, key: &[u8]) -> Result<Option<Guard<'_>>, Error> {
        let key = Key::new(key)?;
        for _ in 0..TRIES {
            let Some(index) = index::find(&self.map, &key) else {
                return if repair::is_holding() {
                    Err(Error::Nested)
                } else {
                    Ok(None)
                };
            };
            if let Some(guard) = self.enter_as(index, &key)? {
                return Ok(Some(guard));
            }
        }
        Err(Error::Damaged)
    }

    /// Locks a key, and makes it if it does not exist; then its record is empty, and without a commit the key goes away
    /// with the guard. [`Error::Full`] when there is no slot for another key.
    pub fn lock_or_create(&self, key: &[u8]) -> Result<Guard<'_>, Error> {
        if let Some(guard) = self.lock(key)? {
            return Ok(guard);
        }
        let key = Key::new(key)?;
        for _ in 0..TRIES {
            if let Some(guard) = self.create(&key)? {
                return Ok(guard);
            }
            // Somebody else made it since
            if let Some(index) = index::find(&self.map, &key) {
                if let Some(guard) = self.enter_as(index, &key)? {
                    return Ok(guard);
                }
            }
        }
        Err(Error::Damaged)
    }

    /// Shows each record. Each one is whole, but they are of different moments. A record that a process will not let go of
    /// is left out. [`Error::Nested`] if this thread holds a guard; `f` itself may lock.
    pub fn for_each(&self, f: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        self.for_each_of(|_| true, usize::MAX, f)
    }

    /// As [`for_each`](Self::for_each), of records whose key is `wanted` alone, and of each no more than its first bytes. Others are neither
    /// locked nor copied.
    pub fn for_each_of(
        &self,
        wanted: impl Fn(&[u8]) -> bool,
        first: usize,
        mut f: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        let mut record = Vec::new();
        for index in 0..self.map.layout.slots {
            let slot = self.map.slot(index);
            if !Map::load(&slot.record).is_some() {
                continue;
            }
            if !slot
                .key()
                .is_some_and(|key| wanted(key.write_to(&mut [0; MAX_KEY])))
            {
                continue;
            }
            let held = match repair::enter(&self.map, index) {
                Ok(held) => held,
                Err(Error::Busy(_)) => continue,
                Err(other) => return Err(other),
            };
            let published = Map::load(&self.map.slot(index).record);
            // SAFETY: the published block of a slot whose lock is held until the copy is made.
            let contents = unsafe { self.map.read_block(published) };
            let Some(key) = contents
                .as_ref()
                .and_then(|contents| Key::new(contents.key).ok())
            else {
                continue;
            };
            record.clear();
            let whole = contents.map_or(&[][..], |contents| contents.record);
            record.extend_from_slice(&whole[..whole.len().min(first)]);
            drop(held);
            let mut buffer = [0; MAX_KEY];
            let key = key.write_to(&mut buffer);
            // another one may have come into the slot meanwhile
            if wanted(key) {
                f(key, &record);
            }
        }
        Ok(())
    }

    /// Shows the key of each record, without the record. Takes no lock; a key that was made or removed meanwhile can be shown
    /// or missing.
    pub fn keys(&self, mut f: impl FnMut(&[u8])) {
        for index in 0..self.map.layout.slots {
            let slot = self.map.slot(index);
            if !Map::load(&slot.record).is_some() {
                continue;
            }
            if let Some(key) = slot.key() {
                f(key.write_to(&mut [0; MAX_KEY]));
            }
        }
    }

    /// Appends the keys that are due at `now_ms` or before. Takes no lock; a key that was changed or removed meanwhile can
    /// be among them, and one committed meanwhile can be missing until the next call.
    pub fn due(&self, now_ms: u64, out: &mut Vec<Vec<u8>>) {
        for (index, due) in self.map.dues().iter().enumerate() {
            let due = due.load(Relaxed);
            if due > now_ms || due == NEVER {
                continue;
            }
            if let Some(key) = self.map.slot(index as u32).key() {
                out.push(key.write_to(&mut [0; MAX_KEY]).to_vec());
            }
        }
    }

    /// Whether there is a record under the key. Does not wait for guards.
    pub fn contains(&self, key: &[u8]) -> bool {
        let Ok(key) = Key::new(key) else {
            return false;
        };
        index::find(&self.map, &key)
            .is_some_and(|index| Map::load(&self.map.slot(index).record).is_some())
    }

    /// One of [`COUNTERS`] numbers shared by all processes. They go on over a restart and start at 0 in a new arena.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`COUNTERS`].
    pub fn counter(&self, index: usize) -> &AtomicU64 {
        assert!(index < COUNTERS, "there is no counter {index}");
        &self.map.header().counters[index]
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let _heap = Heap::lock(&self.map);
        let header = self.map.header();
        let slots_free = header.heap.slots_free.load(Relaxed);
        Usage {
            size: self.map.layout.size,
            capacity: u64::from(self.map.layout.pages) * PAGE,
            used_bytes: header.heap.used_bytes.load(Relaxed),
            free_bytes: u64::from(header.heap.pages_free.load(Relaxed)) * PAGE,
            records: u64::from(self.map.layout.slots.saturating_sub(slots_free)),
            slots_free: u64::from(slots_free),
            locks_stolen: header.locks_stolen.load(Relaxed),
            turns_skipped: header.turns_skipped.load(Relaxed),
        }
    }

    /// Frees what processes left that died in the middle of something, and gives the number of keys concerned. What is in
    /// the way of anybody is put right without this; it finds the rest. Never waits for a guard.
    pub fn reclaim(&self) -> usize {
        repair::reclaim(&self.map)
    }

    /// Locks the slot; none if it is not this key's any more.
    fn enter_as(&self, index: u32, key: &Key) -> Result<Option<Guard<'_>>, Error> {
        let held = repair::enter(&self.map, index)?;
        let slot = self.map.slot(index);
        let published = Map::load(&slot.record);
        if !published.is_some() || slot.key() != Some(*key) {
            return Ok(None);
        }
        let guard = Guard::new(&self.map, index, *key, held);
        // SAFETY: the published block of a slot whose lock is held; the result is not kept.
        let head = unsafe { self.map.read_block(published) }.map(|contents| contents.head);
        // Never another agent's record, whatever happened to the word
        if head.is_none_or(|head| (head.slot, head.generation) != (index, published.generation())) {
            guard.abandon();
            return Err(Error::Damaged);
        }
        Ok(Some(guard))
    }

    /// A new slot for the key; none if the key came to exist meanwhile.
    fn create(&self, key: &Key) -> Result<Option<Guard<'_>>, Error> {
        let take = || Heap::lock(&self.map).take_slot();
        let index = take()
            .or_else(|| reclaim_for_room(&self.map).then(take)?)
            .ok_or(Error::Full)?;
        // Its last holder may still be on the way out
        let held = repair::enter(&self.map, index)
            .inspect_err(|_| Heap::lock(&self.map).give_slot(index))?;
        self.map.slot(index).set_key(key);
        crash::point();
        if !index::insert(&self.map, index, key) {
            Heap::lock(&self.map).give_slot(index);
            drop(held);
            return Ok(None);
        }
        Ok(Some(Guard::new(&self.map, index, *key, held)))
    }

    #[cfg(test)]
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }
}

/// Nothing was free: perhaps the dead hold something. True if it is worth another try.
pub(crate) fn reclaim_for_room(map: &Map) -> bool {
    let now = monotonic_ms();
    let at = &map.header().reclaimed_at;
    let last = at.load(Relaxed);
    now.wrapping_sub(last) >= RECLAIM_EVERY_MS
        && at.compare_exchange(last, now, Acquire, Relaxed).is_ok()
        && repair::reclaim(map) > 0
}

/// Milliseconds of a clock that only goes forward, far enough from 0 that the first look of an arena is never too early.
fn monotonic_ms() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes the time into `now`. This clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    (now.tv_sec as u64) * 1000 + (now.tv_nsec as u64) / 1_000_000 + RECLAIM_EVERY_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{bench, footprint, MIB};

    /// The race of two that make one key, without the luck it takes to hit it.
    #[test]
    fn key_made_by_another_meanwhile_is_not_made_twice() {
        let bench = bench();
        let (arena, _) = bench.open(MIB);
        arena
            .lock_or_create(b"a")
            .unwrap()
            .commit(b"x", NEVER)
            .unwrap();
        let before = footprint(&arena);
        assert!(arena.create(&Key::new(b"a").unwrap()).unwrap().is_none());
        assert_eq!(footprint(&arena), before);
        assert_eq!(arena.lock(b"a").unwrap().unwrap().record(), b"x");
    }
}
