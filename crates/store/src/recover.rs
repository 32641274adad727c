//! What is done when an arena is opened: everything is built anew from the published records that are sound.

use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::alloc::Heap;
use crate::arena::NEVER;
use crate::block::BlockRef;
use crate::index::{self, Key};
use crate::layout::{FREE, LIVE};
use crate::lock::Lock;
use crate::map::Map;

/// What [`Arena::open`](crate::Arena::open) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The arena is new and empty.
    pub fresh: bool,
    /// Why a file that was there was replaced; always with `fresh`. None: it was kept, or there was none.
    pub replaced: Option<Replaced>,
    /// Records kept.
    pub kept: usize,
    /// Records dropped, as their checksum, format or place is wrong.
    pub damaged: usize,
    /// Blocks and slots freed that a process was filling when it ended.
    pub in_flight_freed: usize,
}

impl Recovery {
    /// The file was of another boot of the machine (or whatever the boot id stands for), so its records were dropped.
    pub fn other_boot(&self) -> bool {
        self.replaced == Some(Replaced::Boot)
    }
}

/// Why the arena in a file was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It has another size than is wanted.
    Size,
    /// It is of another version of the format.
    Format,
    /// Its header is damaged.
    Header,
    /// It is of another boot.
    Boot,
}

/// Builds everything anew from the slots' published words, the only ones believed, and those only as far as block, slot,
/// generation, key and checksum agree. No other process has the arena open.
pub(crate) fn recover(map: &Map) -> Recovery {
    let mut found = Recovery::default();
    reset(&map.header().heap.lock);
    map.header().reclaimed_at.store(0, Relaxed);
    for at in 0..map.layout.buckets {
        reset(&map.bucket(at).lock);
        map.bucket(at).first.store(0, Relaxed);
    }
    let heap = Heap::lock(map);
    heap.clear();
    for at in 0..map.layout.slots {
        let slot = map.slot(at);
        reset(&slot.lock);
        for word in [&slot.turn_next, &slot.turn_serving, &slot.link] {
            word.store(0, Relaxed);
        }
        for entry in &slot.turn_ring {
            entry.store(0, Relaxed);
        }
        let record = Map::load(&slot.record);
        let fresh = BlockRef(slot.fresh.swap(0, Relaxed));
        let retired = BlockRef(slot.retired.swap(0, Relaxed));
        let state = slot.state.swap(FREE, Relaxed);
        if [fresh, retired]
            .iter()
            .any(|block| block.is_some() && !block.same_block(record))
            || (!record.is_some() && state != FREE)
        {
            found.in_flight_freed += 1;
        }
        map.due(at).store(NEVER, Relaxed);
        if !record.is_some() {
            continue;
        }
        if keep(map, &heap, at, record) {
            found.kept += 1;
        } else {
            slot.record.store(record.cleared().0, Release);
            found.damaged += 1;
        }
    }
    heap.finish();
    found
}

/// Puts a sound record back into its place.
fn keep(map: &Map, heap: &Heap<'_>, at: u32, record: BlockRef) -> bool {
    // SAFETY: nobody else uses the arena, and nothing is published or freed while `contents` is in use.
    let Some(contents) = (unsafe { map.read_checked(record) }) else {
        return false;
    };
    let head = &contents.head;
    if (head.slot, head.generation, head.code) != (at, record.generation(), record.code()) {
        return false;
    }
    let Ok(key) = Key::new(contents.key) else {
        return false;
    };
    if index::find(map, &key).is_some() || !heap.mark(record) {
        return false;
    }
    map.slot(at).set_key(&key);
    index::insert(map, at, &key);
    map.due(at).store(head.due, Relaxed);
    map.slot(at).state.store(LIVE, Release);
    true
}

fn reset(lock: &Lock) {
    // SAFETY: no other process has the arena open (the file is locked), so nobody holds the lock or waits for it.
    unsafe { lock.raw() }.reset();
}
