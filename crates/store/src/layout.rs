//! Where things lie in the file, and the types that lie there.
//!
//! ```text
//! header (4 KiB) | slots | due times | buckets | page table | bits of free pages | pages (32 KiB each)
//! ```
//!
//! All types here consist of atomics, so every bit pattern is a valid value and a shared reference into the mapping is
//! sound while other processes write. Links are numbers (index + 1, 0 for none), never addresses.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::lock::{Lock, RawLock};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 72;
/// Longest record, in bytes.
pub const MAX_RECORD: usize = 256 * 1024;
/// Smallest arena, in bytes.
pub const MIN_SIZE: u64 = 1 << 20;
/// Number of counters, see [`Arena::counter`](crate::Arena::counter).
pub const COUNTERS: usize = 128;

/// Largest arena: offsets in units of 64 bytes fit 32 bits with a margin.
pub(crate) const MAX_SIZE: u64 = 1 << 36;
/// Version of everything in this file. Raise it with every change of layout or meaning, and of what the records hold.
pub(crate) const FORMAT: u32 = 4;
/// At the start of the file.
pub(crate) const MAGIC: [u8; 8] = *b"rtcArena";
/// At the end of the header, so that a file whose first bytes are damaged is still known as an arena.
pub(crate) const MAGIC_END: [u8; 8] = *b"anerActr";
pub(crate) const HEADER_LEN: usize = 4096;

/// What is carved into blocks, or given out in a row for a big block.
pub(crate) const PAGE: u64 = 32 * 1024;
/// Sizes of the blocks a page is carved into, some 1.25 apart, chosen so that little of a page is left over.
pub(crate) const CLASSES: [u32; 23] = [
    128, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1600, 2048, 2304, 2688, 3264, 4096, 4672,
    5440, 6528, 8192, 10880, 16384, 32768,
];
/// Unit of block offsets.
pub(crate) const UNIT: u64 = 64;
/// Tickets of one slot whose process is known.
pub(crate) const RING: usize = 8;
pub(crate) const KEY_WORDS: usize = MAX_KEY / 8;
/// One slot for so many bytes of the file. An idle agent is two keys and a third of a kB; so an arena of idle agents runs out of
/// slots when half of its pages are in use, and one in which a fifth of the agents is in a call out of both at once. The tables
/// take a fifth of the file.
const SLOT_FOR: u64 = 1024;

/// `Slot::state`: nobody's. Any other value but [`LIVE`] is the owner that is making a record here.
pub(crate) const FREE: u32 = 0;
/// `Slot::state`: a record was published under the slot's key.
pub(crate) const LIVE: u32 = u32::MAX;

/// The fixed part of the header, written once when the arena is made and checked byte by byte when it is opened.
#[repr(C)]
pub(crate) struct Header {
    /// See [`Identity`].
    pub identity: [AtomicU64; Identity::LEN / 8],
    /// The process that opened the file.
    pub opener: AtomicU32,
    pub pad: AtomicU32,
    pub locks_stolen: AtomicU64,
    pub turns_skipped: AtomicU64,
    /// When [`Arena::reclaim`](crate::Arena::reclaim) ran last for want of room, monotonic milliseconds.
    pub reclaimed_at: AtomicU64,
    pub heap: Heap,
    pub counters: [AtomicU64; COUNTERS],
}

/// The allocator. All of it is derived from the slots and is built anew when in doubt.
#[repr(C)]
pub(crate) struct Heap {
    pub lock: Lock,
    /// First page of each class with a free block.
    pub partial: [AtomicU32; CLASSES.len()],
    /// First free slot.
    pub slot: AtomicU32,
    pub slots_free: AtomicU32,
    pub pages_free: AtomicU32,
    pub used_bytes: AtomicU64,
}

/// One record's place.
#[repr(C)]
pub(crate) struct Slot {
    pub lock: Lock,
    pub state: AtomicU32,
    /// Next slot of the bucket, or next free slot.
    pub link: AtomicU32,
    /// The published record (a `BlockRef`). The one word that recovery believes.
    pub record: AtomicU64,
    /// A block that is being filled.
    pub fresh: AtomicU64,
    /// A block that was replaced and is about to be freed.
    pub retired: AtomicU64,
    /// Next ticket to give out.
    pub turn_next: AtomicU32,
    /// Ticket whose turn it is.
    pub turn_serving: AtomicU32,
    /// Odd while the key is written; then length in the upper half.
    pub key_mark: AtomicU64,
    pub key: [AtomicU64; KEY_WORDS],
    /// Ticket (upper half) and its owner (lower half).
    pub turn_ring: [AtomicU64; RING],
}

/// One chain of the index.
#[repr(C)]
pub(crate) struct Bucket {
    pub lock: Lock,
    pub first: AtomicU32,
    pub pad: AtomicU32,
}

/// What a page is used for.
#[repr(C)]
pub(crate) struct Page {
    /// 0: free. 1..: class + 1. [`PAGE_SPAN`]: part of a big block.
    pub kind: AtomicU32,
    /// Number of blocks in use.
    pub used: AtomicU32,
    /// Neighbours in the class's list of pages with a free block.
    pub next: AtomicU32,
    pub prev: AtomicU32,
    /// Blocks in use.
    pub bits: [AtomicU64; 4],
}

pub(crate) const PAGE_SPAN: u32 = u32::MAX;

// A lock must be its raw part and nothing else
const _: () = assert!(size_of::<Lock>() == size_of::<RawLock>() && size_of::<RawLock>() == 8);
const _: () = assert!(size_of::<Header>() <= HEADER_LEN - MAGIC_END.len());
const _: () =
    assert!(size_of::<Slot>() == 192 && size_of::<Bucket>() == 16 && size_of::<Page>() == 48);
const _: () = assert!(PAGE / (CLASSES[0] as u64) <= 4 * 64);

/// Where the tables start, and how long they are. A function of the size alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub size: u64,
    pub slots: u32,
    pub buckets: u32,
    pub pages: u32,
    pub at_slots: u64,
    pub at_due: u64,
    pub at_buckets: u64,
    pub at_pages: u64,
    pub at_free: u64,
    pub at_data: u64,
}

impl Layout {
    /// For a file of `size` bytes, rounded down to whole 4 KiB. None if that is out of bounds.
    pub(crate) fn new(size: u64) -> Option<Layout> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return None;
        }
        let size = size & !4095;
        Some(Layout::with_slots(size, (size / SLOT_FOR) as u32))
    }

    /// For a size in whole 4 KiB, and so many slots: the tables must leave room for pages.
    pub(crate) fn with_slots(size: u64, slots: u32) -> Layout {
        let buckets = slots.next_power_of_two();
        let at_slots = HEADER_LEN as u64;
        let at_due = at_slots + u64::from(slots) * size_of::<Slot>() as u64;
        let at_buckets = at_due + u64::from(slots) * 8;
        let at_pages = at_buckets + u64::from(buckets) * size_of::<Bucket>() as u64;
        // For each page itself, its entry, and its bit
        let pages =
            ((size - at_pages - 4096) * 8 / ((PAGE + size_of::<Page>() as u64) * 8 + 1)) as u32;
        let at_free = at_pages + u64::from(pages) * size_of::<Page>() as u64;
        let at_data = (at_free + u64::from(pages.div_ceil(64)) * 8).next_multiple_of(4096);
        debug_assert!(at_data + u64::from(pages) * PAGE <= size);
        Layout {
            size,
            slots,
            buckets,
            pages,
            at_slots,
            at_due,
            at_buckets,
            at_pages,
            at_free,
            at_data,
        }
    }

    /// Pages that a new key leaves alone, so that records that exist can still be rewritten and grow.
    pub(crate) fn reserve(&self) -> u32 {
        (self.pages / 16).max(1)
    }
}

/// The first bytes of the file: what makes it an arena, and whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub format: u32,
    pub size: u64,
    /// The index hashes with it. It lies in the file since all workers must hash alike.
    pub sip_key: [u8; 16],
    pub boot_id: [u8; 16],
}

/// What the first bytes of a file say.
pub(crate) enum Found {
    Ours(Identity),
    OtherFormat,
    Damaged,
    Foreign,
}

impl Identity {
    pub(crate) const LEN: usize = 64;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.format.to_le_bytes());
        out[16..24].copy_from_slice(&self.size.to_le_bytes());
        out[24..40].copy_from_slice(&self.sip_key);
        out[40..56].copy_from_slice(&self.boot_id);
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `head` is the start of the file, as much of the header as there is.
    pub(crate) fn decode(head: &[u8]) -> Found {
        let magic = head.starts_with(&MAGIC);
        if !magic && (head.len() < HEADER_LEN || !head[..HEADER_LEN].ends_with(&MAGIC_END)) {
            return Found::Foreign;
        }
        let Some(bytes) = head.first_chunk::<{ Self::LEN }>() else {
            return Found::Damaged;
        };
        let identity = Identity {
            format: u32::from_le_bytes(part(bytes, 8)),
            size: u64::from_le_bytes(part(bytes, 16)),
            sip_key: part(bytes, 24),
            boot_id: part(bytes, 40),
        };
        if !magic || crc32fast::hash(&bytes[..60]).to_le_bytes() != part::<4>(bytes, 60) {
            return Found::Damaged;
        }
        if identity.format != FORMAT {
            return Found::OtherFormat;
        }
        if Layout::new(identity.size).is_none_or(|layout| layout.size != identity.size) {
            return Found::Damaged;
        }
        Found::Ours(identity)
    }
}

/// `N` bytes at `at`, which lie within the array for all callers here.
fn part<const N: usize>(bytes: &[u8; Identity::LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_fit_for_many_sizes() {
        for size in
            (0..400)
                .map(|i| MIN_SIZE + i * 40_961)
                .chain([1 << 28, (1 << 30) + 4097, MAX_SIZE])
        {
            let l = Layout::new(size).unwrap();
            assert!(l.size <= size && l.size + 4096 > size);
            assert_eq!(u64::from(l.slots), l.size / SLOT_FOR);
            for at in [
                l.at_slots,
                l.at_due,
                l.at_buckets,
                l.at_pages,
                l.at_free,
                l.at_data,
            ] {
                assert_eq!(at % 8, 0);
            }
            assert!(l.at_free + u64::from(l.pages.div_ceil(64)) * 8 <= l.at_data);
            let end = l.at_data + u64::from(l.pages) * PAGE;
            assert!(end <= l.size && l.size - end < 2 * PAGE, "{l:?}");
        }
        assert_eq!(Layout::new(MIN_SIZE - 1), None);
        assert_eq!(Layout::new(MAX_SIZE + 1), None);
    }

    #[test]
    fn classes_are_ascending_units_and_waste_little() {
        for pair in CLASSES.windows(2) {
            assert!(pair[0] < pair[1] && u64::from(pair[1]) <= u64::from(pair[0]) * 2);
        }
        for class in CLASSES.map(u64::from) {
            assert_eq!(class % UNIT, 0);
            assert!(PAGE % class < PAGE / 16, "{class}");
        }
    }

    #[test]
    fn identity_survives_and_each_flipped_byte_is_seen() {
        let identity = Identity {
            format: FORMAT,
            size: MIN_SIZE,
            sip_key: [7; 16],
            boot_id: [9; 16],
        };
        let mut head = vec![0; HEADER_LEN];
        head[..Identity::LEN].copy_from_slice(&identity.encode());
        head[HEADER_LEN - 8..].copy_from_slice(&MAGIC_END);
        assert!(matches!(Identity::decode(&head), Found::Ours(found) if found == identity));
        for at in 0..Identity::LEN {
            head[at] ^= 0x40;
            assert!(matches!(Identity::decode(&head), Found::Damaged), "{at}");
            head[at] ^= 0x40;
        }
        assert!(matches!(Identity::decode(b"root:x:0:0"), Found::Foreign));
        assert!(matches!(Identity::decode(&MAGIC), Found::Damaged));
    }
}
