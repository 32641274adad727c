//! Taking a slot's lock, and putting right what its dead holder left.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::alloc::Heap;
use crate::arena::NEVER;
use crate::crash;
use crate::error::Error;
use crate::index;
use crate::layout::{FREE, LIVE};
use crate::lock::LockGuard;
use crate::map::Map;
use crate::owner;

/// How long a live holder may keep a slot before others give up. A step takes microseconds; only a stopped process or an
/// endless loop gets here, and it must not stop all workers one by one.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

thread_local! {
    /// Whether this thread holds a slot.
    static HOLDING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread holds a slot.
pub(crate) fn is_holding() -> bool {
    HOLDING.get()
}

/// The lock of a slot.
pub(crate) struct Held<'a> {
    _lock: LockGuard<'a>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        HOLDING.set(false);
    }
}

/// Takes the slot's lock; what a dead holder left is put right.
pub(crate) fn enter(map: &Map, index: u32) -> Result<Held<'_>, Error> {
    if is_holding() {
        return Err(Error::Nested);
    }
    let lock = &map.slot(index).lock;
    // SAFETY: only flags and the owner are used; the lock is not unlocked through this reference.
    let raw = unsafe { lock.raw() };
    let guard = lock
        .try_lock_for(PATIENCE)
        .ok_or_else(|| Error::Busy(owner::pid_of(raw.owner())))?;
    HOLDING.set(true);
    let held = Held { _lock: guard };
    if raw.is_stolen() {
        mend(map, index);
        map.header().locks_stolen.fetch_add(1, Relaxed);
        raw.repaired();
    }
    Ok(held)
}

/// Looks for what dead processes left and puts it right. Returns the number of slots mended.
pub(crate) fn reclaim(map: &Map) -> usize {
    // Builds the allocator anew if a process died in it
    drop(Heap::lock(map));
    let mut known: Vec<(u32, bool)> = Vec::new();
    let mut dead = |owner: u32| match known.iter().find(|(known, _)| *known == owner) {
        Some((_, dead)) => *dead,
        None => {
            let dead = owner::is_dead(owner);
            known.push((owner, dead));
            dead
        }
    };
    let mut mended = 0;
    for index in 0..map.layout.slots {
        let slot = map.slot(index);
        // SAFETY: the lock is unlocked only by the guard made below, after it was taken here.
        let raw = unsafe { slot.lock.raw() };
        let holder = raw.owner();
        let maker = slot.state.load(Acquire);
        let left = (holder != 0 && dead(holder)) || (maker != FREE && maker != LIVE && dead(maker));
        // Never waits: this process may hold another slot
        if left && raw.try_lock_or_steal() {
            // SAFETY: the lock was taken just now, and no other guard of it exists.
            let _guard = unsafe { slot.lock.make_guard_unchecked() };
            mend(map, index);
            if raw.is_stolen() {
                map.header().locks_stolen.fetch_add(1, Relaxed);
                raw.repaired();
            }
            mended += 1;
        }
    }
    mended
}

/// Puts a slot right after its holder's death at any place. The caller holds the slot's lock. Can itself be cut off at any
/// place and done again.
fn mend(map: &Map, index: u32) {
    let slot = map.slot(index);
    free_leftovers(map, index);
    let record = Map::load(&slot.record);
    if record.is_some() {
        // SAFETY: the published block of a slot whose lock is held.
        let due = unsafe { map.read_block(record) }.map_or(NEVER, |contents| contents.head.due);
        map.due(index).store(due, Relaxed);
        crash::point();
        slot.state.store(LIVE, Release);
        return;
    }
    let state = slot.state.load(Acquire);
    // Free: its holder died between giving it back and the unlock. Someone living: took it since, and waits for this lock
    if state == LIVE || (state != FREE && owner::is_dead(state)) {
        give_back(map, index);
    }
}

/// Frees the blocks that the slot names beside its record. The caller holds the slot's lock.
pub(crate) fn free_leftovers(map: &Map, index: u32) {
    let slot = map.slot(index);
    if slot.fresh.load(Relaxed) == 0 && slot.retired.load(Relaxed) == 0 {
        return;
    }
    let record = Map::load(&slot.record);
    let heap = Heap::lock(map);
    for word in [&slot.fresh, &slot.retired] {
        let block = Map::load(word);
        if block.is_some() && !block.same_block(record) {
            heap.free(block);
            crash::point();
        }
        // Under the allocator's lock: freed and named no more is one step for everybody else
        word.store(0, Release);
    }
}

/// The slot has no record: out of the index, and to the free ones. The caller holds the slot's lock.
pub(crate) fn give_back(map: &Map, index: u32) {
    map.due(index).store(NEVER, Relaxed);
    index::remove(map, index);
    Heap::lock(map).give_slot(index);
}
