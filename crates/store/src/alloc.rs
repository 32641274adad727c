//! The allocator: blocks from pages, pages from a common pool, and the list of free slots.
//!
//! Everything it knows is derived from the slots, so after the death of a process inside it the state is built anew
//! ([`Heap::rebuild`]) instead of being mended.
//!
//! Pages with a free block of a class form a list. A page whose last block is freed goes back to the pool at once, so that
//! memory once used for one size serves any other. Small pages are taken from the low end, rows of pages for big blocks
//! from the high end, which keeps rows free for longer.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::block::{BlockRef, Place, Size};
use crate::crash;
use crate::layout::{self, CLASSES, FREE, PAGE, PAGE_SPAN};
use crate::lock::LockGuard;
use crate::map::Map;
use crate::owner;

/// The allocator while this process holds its lock. The lock makes plain relaxed loads and stores enough.
pub(crate) struct Heap<'a> {
    map: &'a Map,
    _lock: LockGuard<'a>,
}

impl<'a> Heap<'a> {
    /// Takes the lock. If it had to be taken from a dead process, the state is built anew first.
    pub(crate) fn lock(map: &'a Map) -> Heap<'a> {
        let lock = &map.header().heap.lock;
        let guard = lock.lock();
        let heap = Heap { map, _lock: guard };
        // SAFETY: only flags are read; the lock is not unlocked through this reference.
        let raw = unsafe { lock.raw() };
        if raw.is_stolen() {
            heap.rebuild();
            map.header().locks_stolen.fetch_add(1, Relaxed);
            raw.repaired();
        }
        heap
    }

    fn shared(&self) -> &'a layout::Heap {
        &self.map.header().heap
    }

    /// A block of at least `bytes`, named by the slot's `fresh` word before the lock is given back, so that it is never
    /// out of sight. `for_new_key`: the reserve is left alone.
    pub(crate) fn alloc(&self, slot: u32, bytes: usize, for_new_key: bool) -> Option<BlockRef> {
        let keep = if for_new_key {
            self.map.layout.reserve()
        } else {
            0
        };
        let place = match Size::fitting(bytes) {
            Size::Class(class) => self.alloc_small(class, keep)?,
            Size::Span(pages) => self.alloc_span(pages, keep)?,
        };
        crash::point();
        self.count(place.size, true);
        let block = BlockRef::at(&self.map.layout, place);
        self.map.slot(slot).fresh.store(block.0, Release);
        crash::point();
        Some(block)
    }

    /// Gives a block back. The word of a slot that names it is cleared by the caller, under this lock.
    pub(crate) fn free(&self, block: BlockRef) {
        let Some(place) = block.place(&self.map.layout) else {
            // Overwritten from outside: nothing here to give back
            return;
        };
        let page = self.map.page(place.page);
        match place.size {
            Size::Class(class) => {
                let word = &page.bits[place.index as usize / 64];
                let bit = 1 << (place.index % 64);
                let bits = word.load(Relaxed);
                if page.kind.load(Relaxed) != class as u32 + 1 || bits & bit == 0 {
                    debug_assert!(false, "freed twice: {place:?}");
                    return;
                }
                word.store(bits & !bit, Relaxed);
                crash::point();
                let used = page.used.load(Relaxed);
                page.used.store(used - 1, Relaxed);
                if used == per_page(class) {
                    self.link(class, place.page);
                }
                crash::point();
                if used == 1 {
                    self.unlink(class, place.page);
                    self.release(place.page);
                }
            }
            Size::Span(pages) => {
                for index in place.page..place.page + pages {
                    self.release(index);
                    crash::point();
                }
            }
        }
        self.count(place.size, false);
        crash::point();
    }

    /// A free slot, marked as being filled by this process.
    pub(crate) fn take_slot(&self) -> Option<u32> {
        let shared = self.shared();
        let index = shared.slot.load(Relaxed).checked_sub(1)?;
        let slot = self.map.slot(index);
        shared.slot.store(slot.link.load(Relaxed), Relaxed);
        crash::point();
        shared
            .slots_free
            .store(shared.slots_free.load(Relaxed).saturating_sub(1), Relaxed);
        slot.state.store(owner::me(), Release);
        crash::point();
        Some(index)
    }

    /// Gives a slot back that is in no bucket and has no block.
    pub(crate) fn give_slot(&self, index: u32) {
        let slot = self.map.slot(index);
        slot.state.store(FREE, Release);
        crash::point();
        let shared = self.shared();
        slot.link.store(shared.slot.load(Relaxed), Relaxed);
        shared.slot.store(index + 1, Relaxed);
        crash::point();
        shared
            .slots_free
            .store(shared.slots_free.load(Relaxed) + 1, Relaxed);
    }

    /// Builds everything anew from what the slots name. Other processes may publish and retire meanwhile; they cannot
    /// allocate or free.
    ///
    /// The order of the loads matters. A commit stores `fresh` (under this lock), `retired`, `record`, then clears
    /// `fresh`, and clears `retired` under this lock. So the new block is in `fresh`, or `fresh` was seen cleared and
    /// `record` is seen new; the old one is in `record`, or `record` was seen new and `retired` is seen set.
    fn rebuild(&self) {
        self.clear();
        crash::point();
        for index in 0..self.map.layout.slots {
            let slot = self.map.slot(index);
            let mut seen = [BlockRef::NONE; 3];
            for (at, word) in [&slot.fresh, &slot.record, &slot.retired]
                .into_iter()
                .enumerate()
            {
                let block = Map::load(word);
                if block.is_some() && !seen[..at].iter().any(|other| other.same_block(block)) {
                    seen[at] = block;
                    self.mark(block);
                }
            }
        }
        crash::point();
        self.finish();
    }

    /// First step of building anew: every page free, no slot listed.
    pub(crate) fn clear(&self) {
        for index in 0..self.map.layout.pages {
            let page = self.map.page(index);
            for word in [&page.kind, &page.used, &page.next, &page.prev] {
                word.store(0, Relaxed);
            }
            for bits in &page.bits {
                bits.store(0, Relaxed);
            }
        }
        let shared = self.shared();
        for first in &shared.partial {
            first.store(0, Relaxed);
        }
        shared.slot.store(0, Relaxed);
        shared.slots_free.store(0, Relaxed);
        shared.pages_free.store(0, Relaxed);
        shared.used_bytes.store(0, Relaxed);
        for word in self.map.free_pages() {
            word.store(0, Relaxed);
        }
    }

    /// Second step, for each block in use. False when it is none of this arena or overlaps another.
    pub(crate) fn mark(&self, block: BlockRef) -> bool {
        let Some(place) = block.place(&self.map.layout) else {
            return false;
        };
        match place.size {
            Size::Class(class) => {
                let page = self.map.page(place.page);
                let kind = page.kind.load(Relaxed);
                let word = &page.bits[place.index as usize / 64];
                let bit = 1 << (place.index % 64);
                if (kind != 0 && kind != class as u32 + 1) || word.load(Relaxed) & bit != 0 {
                    return false;
                }
                page.kind.store(class as u32 + 1, Relaxed);
                word.store(word.load(Relaxed) | bit, Relaxed);
                page.used.store(page.used.load(Relaxed) + 1, Relaxed);
            }
            Size::Span(pages) => {
                let row = place.page..place.page + pages;
                if row
                    .clone()
                    .any(|index| self.map.page(index).kind.load(Relaxed) != 0)
                {
                    return false;
                }
                for index in row {
                    self.map.page(index).kind.store(PAGE_SPAN, Relaxed);
                }
            }
        }
        self.count(place.size, true);
        true
    }

    /// Third step: the lists.
    pub(crate) fn finish(&self) {
        // Downwards, so that the lists start with the lowest
        for index in (0..self.map.layout.pages).rev() {
            let page = self.map.page(index);
            match page.kind.load(Relaxed) {
                0 => self.release(index),
                PAGE_SPAN => {}
                kind => {
                    let class = kind as usize - 1;
                    if page.used.load(Relaxed) < per_page(class) {
                        self.link(class, index);
                    }
                }
            }
        }
        let shared = self.shared();
        let mut first = 0;
        let mut count = 0;
        for index in (0..self.map.layout.slots).rev() {
            let slot = self.map.slot(index);
            if slot.state.load(Acquire) == FREE {
                slot.link.store(first, Relaxed);
                first = index + 1;
                count += 1;
            }
        }
        shared.slot.store(first, Relaxed);
        shared.slots_free.store(count, Relaxed);
    }

    fn alloc_small(&self, class: usize, keep: u32) -> Option<Place> {
        let shared = self.shared();
        let first = |class: usize| shared.partial[class].load(Relaxed).checked_sub(1);
        if let Some(page) = first(class) {
            return self.take_block(class, page);
        }
        if shared.pages_free.load(Relaxed) > keep {
            if let Some(page) = self.take_low_page() {
                self.map.page(page).kind.store(class as u32 + 1, Relaxed);
                crash::point();
                self.link(class, page);
                return self.take_block(class, page);
            }
        }
        // Rather waste some of a bigger block than refuse
        let (class, page) =
            (class + 1..CLASSES.len()).find_map(|class| first(class).map(|page| (class, page)))?;
        self.take_block(class, page)
    }

    /// A block of a page that has one.
    fn take_block(&self, class: usize, index: u32) -> Option<Place> {
        let page = self.map.page(index);
        let blocks = per_page(class);
        for (at, word) in page.bits.iter().enumerate() {
            let bits = word.load(Relaxed);
            let block = at as u32 * 64 + bits.trailing_ones();
            if bits == u64::MAX || block >= blocks {
                continue;
            }
            word.store(bits | (bits + 1), Relaxed);
            crash::point();
            let used = page.used.load(Relaxed) + 1;
            page.used.store(used, Relaxed);
            if used == blocks {
                self.unlink(class, index);
            }
            return Some(Place {
                size: Size::Class(class),
                page: index,
                index: block,
            });
        }
        debug_assert!(false, "page {index} is listed and has no free block");
        None
    }

    fn take_low_page(&self) -> Option<u32> {
        let (at, word) = self
            .map
            .free_pages()
            .iter()
            .enumerate()
            .find(|(_, word)| word.load(Relaxed) != 0)?;
        let index = at as u32 * 64 + word.load(Relaxed).trailing_zeros();
        self.claim(index);
        Some(index)
    }

    /// The highest row of so many free pages.
    fn alloc_span(&self, pages: u32, keep: u32) -> Option<Place> {
        if self.shared().pages_free.load(Relaxed) < pages + keep {
            return None;
        }
        let words = self.map.free_pages();
        let mut row = 0;
        let mut index = self.map.layout.pages;
        while index > 0 {
            index -= 1;
            let word = words[index as usize / 64].load(Relaxed);
            if word == 0 {
                row = 0;
                index -= index % 64;
                continue;
            }
            row = if word >> (index % 64) & 1 == 1 {
                row + 1
            } else {
                0
            };
            if row == pages {
                for page in index..index + pages {
                    self.claim(page);
                    self.map.page(page).kind.store(PAGE_SPAN, Relaxed);
                    crash::point();
                }
                return Some(Place {
                    size: Size::Span(pages),
                    page: index,
                    index: 0,
                });
            }
        }
        None
    }

    /// Takes a page out of the pool.
    fn claim(&self, index: u32) {
        let word = &self.map.free_pages()[index as usize / 64];
        word.store(word.load(Relaxed) & !(1 << (index % 64)), Relaxed);
        crash::point();
        let free = &self.shared().pages_free;
        free.store(free.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// Puts a page into the pool.
    fn release(&self, index: u32) {
        self.map.page(index).kind.store(0, Relaxed);
        let word = &self.map.free_pages()[index as usize / 64];
        word.store(word.load(Relaxed) | (1 << (index % 64)), Relaxed);
        crash::point();
        let free = &self.shared().pages_free;
        free.store(free.load(Relaxed) + 1, Relaxed);
    }

    fn link(&self, class: usize, index: u32) {
        let first = &self.shared().partial[class];
        let next = first.load(Relaxed);
        let page = self.map.page(index);
        page.prev.store(0, Relaxed);
        page.next.store(next, Relaxed);
        if let Some(next) = next.checked_sub(1) {
            self.map.page(next).prev.store(index + 1, Relaxed);
        }
        crash::point();
        first.store(index + 1, Relaxed);
    }

    fn unlink(&self, class: usize, index: u32) {
        let page = self.map.page(index);
        let (prev, next) = (page.prev.load(Relaxed), page.next.load(Relaxed));
        match prev.checked_sub(1) {
            Some(prev) => self.map.page(prev).next.store(next, Relaxed),
            None => self.shared().partial[class].store(next, Relaxed),
        }
        crash::point();
        if let Some(next) = next.checked_sub(1) {
            self.map.page(next).prev.store(prev, Relaxed);
        }
    }

    fn count(&self, size: Size, used: bool) {
        let total = &self.shared().used_bytes;
        let now = total.load(Relaxed);
        total.store(
            if used {
                now + size.bytes()
            } else {
                now.saturating_sub(size.bytes())
            },
            Relaxed,
        );
    }
}

fn per_page(class: usize) -> u32 {
    (PAGE / u64::from(CLASSES[class])) as u32
}

#[cfg(test)]
impl Heap<'_> {
    /// Whether the lists and counts are what the pages say. For tests.
    pub(crate) fn check(&self) {
        let shared = self.shared();
        let mut listed = std::collections::HashSet::new();
        for class in 0..CLASSES.len() {
            let mut prev = 0;
            let mut at = shared.partial[class].load(Relaxed);
            while let Some(index) = at.checked_sub(1) {
                let page = self.map.page(index);
                assert!(listed.insert(index), "page {index} listed twice");
                assert_eq!(page.kind.load(Relaxed), class as u32 + 1);
                assert_eq!(page.prev.load(Relaxed), prev);
                (prev, at) = (at, page.next.load(Relaxed));
            }
        }
        let mut free = 0;
        let mut used_bytes = 0;
        for index in 0..self.map.layout.pages {
            let page = self.map.page(index);
            let is_free =
                self.map.free_pages()[index as usize / 64].load(Relaxed) >> (index % 64) & 1 == 1;
            let kind = page.kind.load(Relaxed);
            assert_eq!(is_free, kind == 0, "page {index}");
            free += u32::from(is_free);
            match kind {
                0 => {}
                PAGE_SPAN => used_bytes += PAGE,
                kind => {
                    let class = kind as usize - 1;
                    let used: u32 = page
                        .bits
                        .iter()
                        .map(|bits| bits.load(Relaxed).count_ones())
                        .sum();
                    assert!(used > 0 && used <= per_page(class));
                    assert_eq!(used, page.used.load(Relaxed));
                    assert_eq!(
                        used < per_page(class),
                        listed.contains(&index),
                        "page {index}"
                    );
                    used_bytes += u64::from(used) * u64::from(CLASSES[class]);
                }
            }
        }
        assert_eq!(free, shared.pages_free.load(Relaxed));
        assert_eq!(used_bytes, shared.used_bytes.load(Relaxed));
        let mut slots = 0;
        let mut at = shared.slot.load(Relaxed);
        while let Some(index) = at.checked_sub(1) {
            let slot = self.map.slot(index);
            assert_eq!(slot.state.load(Relaxed), FREE);
            assert!(!Map::load(&slot.record).is_some());
            slots += 1;
            assert!(slots <= self.map.layout.slots);
            at = slot.link.load(Relaxed);
        }
        assert_eq!(slots, shared.slots_free.load(Relaxed));
    }
}
