//! Blocks: the words that name them and what is in them.

use crate::layout::{Layout, CLASSES, FORMAT, MAX_KEY, MAX_RECORD, PAGE, UNIT};

/// Bytes before the key.
pub(crate) const HEAD: usize = 32;
/// Pages of the biggest block.
const SPAN_MAX: u32 = (HEAD + MAX_KEY + MAX_RECORD).div_ceil(PAGE as usize) as u32;
/// Size codes: up to here a class, above a number of pages.
const SPAN_CODE: u32 = CLASSES.len() as u32;

const UNIT_BITS: u32 = 32;
const CODE_BITS: u32 = 8;
const GENERATION_BITS: u32 = 24;
const UNIT_MASK: u64 = (1 << UNIT_BITS) - 1;
const BLOCK_MASK: u64 = (1 << (UNIT_BITS + CODE_BITS)) - 1;

/// Names a block: offset in units, size code, and the generation of the slot's record. Offset 0 is no block; such a word
/// still carries the generation, so that it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockRef(pub u64);

/// A size that blocks come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Index into [`CLASSES`].
    Class(usize),
    /// Whole pages, at least two.
    Span(u32),
}

/// A block's place among the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub size: Size,
    pub page: u32,
    /// Number of the block in its page; 0 for a span.
    pub index: u32,
}

impl Size {
    /// The smallest that holds so many bytes (head and key included).
    pub(crate) fn fitting(bytes: usize) -> Size {
        match CLASSES.iter().position(|&size| size as usize >= bytes) {
            Some(class) => Size::Class(class),
            None => Size::Span(bytes.div_ceil(PAGE as usize) as u32),
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Size::Class(class) => u64::from(CLASSES[class]),
            Size::Span(pages) => u64::from(pages) * PAGE,
        }
    }

    fn code(self) -> u32 {
        match self {
            Size::Class(class) => class as u32,
            Size::Span(pages) => SPAN_CODE + pages,
        }
    }

    fn from_code(code: u32) -> Option<Size> {
        match code {
            0..SPAN_CODE => Some(Size::Class(code as usize)),
            _ => Some(code - SPAN_CODE)
                .filter(|pages| (2..=SPAN_MAX).contains(pages))
                .map(Size::Span),
        }
    }
}

impl BlockRef {
    pub(crate) const NONE: BlockRef = BlockRef(0);

    pub(crate) fn at(layout: &Layout, place: Place) -> BlockRef {
        let offset = layout.at_data
            + u64::from(place.page) * PAGE
            + u64::from(place.index) * place.size.bytes();
        BlockRef((offset / UNIT) | (u64::from(place.size.code()) << UNIT_BITS))
    }

    pub(crate) fn is_some(self) -> bool {
        self.0 & UNIT_MASK != 0
    }

    /// The size, as a number.
    pub(crate) fn code(self) -> u32 {
        (self.0 >> UNIT_BITS) as u32 & ((1 << CODE_BITS) - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> (UNIT_BITS + CODE_BITS)) as u32
    }

    /// The same block as the record that follows `previous` in its slot.
    pub(crate) fn after(self, previous: BlockRef) -> BlockRef {
        let generation = (previous.generation() + 1) & ((1 << GENERATION_BITS) - 1);
        BlockRef((self.0 & BLOCK_MASK) | (u64::from(generation) << (UNIT_BITS + CODE_BITS)))
    }

    /// No block, the generation kept.
    pub(crate) fn cleared(self) -> BlockRef {
        BlockRef(self.0 & !BLOCK_MASK)
    }

    pub(crate) fn same_block(self, other: BlockRef) -> bool {
        self.0 & BLOCK_MASK == other.0 & BLOCK_MASK
    }

    pub(crate) fn offset(self) -> u64 {
        (self.0 & UNIT_MASK) * UNIT
    }

    /// Where the block lies, if the word names a block of this arena at all.
    pub(crate) fn place(self, layout: &Layout) -> Option<Place> {
        let size = Size::from_code(self.code())?;
        let inner = self.offset().checked_sub(layout.at_data)?;
        let page = u32::try_from(inner / PAGE).ok()?;
        let within = inner % PAGE;
        let (pages, index) = match size {
            Size::Class(_) => (1, within / size.bytes()),
            Size::Span(pages) => (pages, 0),
        };
        let fits = page.checked_add(pages)? <= layout.pages
            && within == index * size.bytes()
            && within + size.bytes() <= u64::from(pages) * PAGE;
        fits.then_some(Place {
            size,
            page,
            index: index as u32,
        })
    }
}

/// The start of a block. In the file: checksum of all that follows up to the record's end, then the fields in this order,
/// little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub key_len: u32,
    pub len: u32,
    /// The slot it was written for, and the generation: a word that by damage points to another slot's record, or to an
    /// older one, does not match.
    pub slot: u32,
    pub generation: u32,
    /// What size the word says the block has: a wrong one would lie over its neighbours.
    pub code: u32,
    pub due: u64,
}

impl Head {
    pub(crate) fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[4..6].copy_from_slice(&(FORMAT as u16).to_le_bytes());
        out[6..8].copy_from_slice(&(self.key_len as u16).to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..16].copy_from_slice(&self.slot.to_le_bytes());
        out[16..20].copy_from_slice(&self.generation.to_le_bytes());
        out[20..24].copy_from_slice(&self.code.to_le_bytes());
        out[24..32].copy_from_slice(&self.due.to_le_bytes());
        out
    }

    /// None when the lengths do not fit a block of `room` bytes. The checksum is not looked at.
    pub(crate) fn decode(bytes: &[u8; HEAD], room: u64) -> Option<Head> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let head = Head {
            key_len: u32::from(half(6)),
            len: word(8),
            slot: word(12),
            generation: word(16),
            code: word(20),
            due: u64::from(word(24)) | (u64::from(word(28)) << 32),
        };
        let sound = u32::from(half(4)) == FORMAT
            && (1..=MAX_KEY as u32).contains(&head.key_len)
            && head.len as usize <= MAX_RECORD
            && HEAD as u64 + u64::from(head.key_len) + u64::from(head.len) <= room;
        sound.then_some(head)
    }
}

/// Over the head but the checksum itself, the key and the record.
pub(crate) fn checksum(head: &[u8; HEAD], key: &[u8], record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[4..]);
    crc.update(key);
    crc.update(record);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIN_SIZE;

    #[test]
    fn every_block_is_found_again_and_nothing_beside() {
        let layout = Layout::new(MIN_SIZE).unwrap();
        for class in 0..CLASSES.len() {
            let size = Size::Class(class);
            for index in 0..(PAGE / size.bytes()) as u32 {
                let place = Place {
                    size,
                    page: layout.pages - 1,
                    index,
                };
                let block = BlockRef::at(&layout, place);
                assert_eq!(block.place(&layout), Some(place));
                assert_eq!(BlockRef(block.0 + 1).place(&layout), None, "{place:?}");
            }
        }
        let span = |page| {
            BlockRef::at(
                &layout,
                Place {
                    size: Size::Span(3),
                    page,
                    index: 0,
                },
            )
        };
        assert!(span(layout.pages - 3).place(&layout).is_some());
        assert!(span(layout.pages - 2).place(&layout).is_none());
        assert_eq!(BlockRef::NONE.place(&layout), None);
        assert_eq!(BlockRef(u64::MAX).place(&layout), None);
    }

    #[test]
    fn generation_goes_on_over_none_and_wraps() {
        let layout = Layout::new(MIN_SIZE).unwrap();
        let block = BlockRef::at(
            &layout,
            Place {
                size: Size::Class(0),
                page: 0,
                index: 0,
            },
        );
        let first = block.after(BlockRef::NONE);
        assert_eq!(first.generation(), 1);
        assert!(first.same_block(block) && first.is_some() && !first.cleared().is_some());
        assert_eq!(block.after(first.cleared()).generation(), 2);
        assert_eq!(block.after(BlockRef(u64::MAX)).generation(), 0);
    }

    #[test]
    fn sizes_fit() {
        for bytes in [1, 128, 129, 5240, 32768, 32769, HEAD + MAX_KEY + MAX_RECORD] {
            let size = Size::fitting(bytes);
            assert!(size.bytes() >= bytes as u64);
            assert_eq!(Size::from_code(size.code()), Some(size));
        }
        assert_eq!(Size::from_code(SPAN_CODE), None);
        assert_eq!(Size::from_code(SPAN_CODE + 1), None);
        assert_eq!(Size::from_code(SPAN_CODE + SPAN_MAX + 1), None);
    }
}
