//! The mapping, and typed views into it.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};

use crate::block::{checksum, BlockRef, Head, HEAD};
use crate::layout::{Bucket, Header, Layout, Page, Slot};

/// The whole file, mapped shared. Views are bounds-checked against the layout, which was computed in this process and is
/// not read from the file.
#[derive(Debug)]
pub(crate) struct Map {
    base: NonNull<u8>,
    pub layout: Layout,
    /// What the index hashes with, the same in all processes.
    pub sip_key: [u8; 16],
}

// SAFETY: the mapping belongs to nobody's thread. All shared state in it is atomic; blocks are accessed under the slot's
// lock only (see the crate's memory model).
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

/// Key and record of a block.
pub(crate) struct Contents<'a> {
    pub head: Head,
    pub key: &'a [u8],
    pub record: &'a [u8],
}

impl Map {
    /// Maps a file of at least `layout.size` bytes.
    pub(crate) fn new(file: &impl AsRawFd, layout: Layout, sip_key: [u8; 16]) -> io::Result<Map> {
        let len = layout.size as usize;
        // SAFETY: a new shared mapping at an address the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Records may hold credentials: not into core files. Failing is no reason to stop.
        // SAFETY: the mapping made above, of this length.
        unsafe { libc::madvise(base, len, libc::MADV_DONTDUMP) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Map {
            base,
            layout,
            sip_key,
        })
    }

    /// All of it. Nobody has a view: they borrow `self`.
    #[cfg(feature = "testing")]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping made in `new`, of this length; it is this process's alone by the contract of the callers.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size as usize) }
    }

    /// A view of one `T` at `offset`.
    ///
    /// # Safety
    ///
    /// `T` consists of atomics only, `offset` is a multiple of its alignment, and it lies within the layout's size.
    #[inline]
    unsafe fn view<T>(&self, offset: u64) -> &T {
        debug_assert!(offset + size_of::<T>() as u64 <= self.layout.size);
        // SAFETY: in bounds and aligned by the contract; the base is page-aligned and mapped while `self` lives; atomics
        // allow any bit pattern and concurrent stores.
        unsafe { &*self.base.as_ptr().add(offset as usize).cast::<T>() }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the header lies at 0 and is smaller than the smallest arena (asserted in layout).
        unsafe { self.view(0) }
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        assert!(index < self.layout.slots);
        // SAFETY: the table of slots starts 8-aligned and holds `layout.slots` of them.
        unsafe { self.view(self.layout.at_slots + u64::from(index) * size_of::<Slot>() as u64) }
    }

    /// When the slot's record is due.
    #[inline]
    pub(crate) fn due(&self, index: u32) -> &AtomicU64 {
        &self.dues()[index as usize]
    }

    #[inline]
    pub(crate) fn dues(&self) -> &[AtomicU64] {
        // SAFETY: the table starts 8-aligned and holds one word for each slot, all atomics.
        unsafe {
            slice::from_raw_parts(
                self.view::<AtomicU64>(self.layout.at_due),
                self.layout.slots as usize,
            )
        }
    }

    #[inline]
    pub(crate) fn bucket(&self, index: u32) -> &Bucket {
        assert!(index < self.layout.buckets);
        // SAFETY: the table of buckets starts 8-aligned and holds `layout.buckets` of them.
        unsafe { self.view(self.layout.at_buckets + u64::from(index) * size_of::<Bucket>() as u64) }
    }

    #[inline]
    pub(crate) fn page(&self, index: u32) -> &Page {
        assert!(index < self.layout.pages);
        // SAFETY: the page table starts 8-aligned and holds `layout.pages` entries.
        unsafe { self.view(self.layout.at_pages + u64::from(index) * size_of::<Page>() as u64) }
    }

    /// Bits of the free pages.
    #[inline]
    pub(crate) fn free_pages(&self) -> &[AtomicU64] {
        let words = self.layout.pages.div_ceil(64) as usize;
        // SAFETY: the words start 8-aligned and lie before the data, all atomics.
        unsafe { slice::from_raw_parts(self.view::<AtomicU64>(self.layout.at_free), words) }
    }

    /// Loads one of a slot's block words.
    #[inline]
    pub(crate) fn load(word: &AtomicU64) -> BlockRef {
        BlockRef(word.load(Acquire))
    }

    /// Writes a block. Key and record fit it: the caller allocated it for them.
    ///
    /// # Safety
    ///
    /// The block was allocated to the slot whose lock the caller holds, and is not published.
    pub(crate) unsafe fn write_block(
        &self,
        block: BlockRef,
        mut head: [u8; HEAD],
        key: &[u8],
        record: &[u8],
    ) {
        let room = block
            .place(&self.layout)
            .map_or(0, |place| place.size.bytes());
        assert!((HEAD + key.len() + record.len()) as u64 <= room);
        let crc = checksum(&head, key, record);
        head[..4].copy_from_slice(&crc.to_le_bytes());
        // SAFETY: `place` proved that the block lies within the mapping, the assertion that all three parts lie within
        // the block. Nobody else reads or writes it by the contract. The sources are not in this block: a record read
        // through a guard lies in a published one.
        unsafe {
            let at = self.base.as_ptr().add(block.offset() as usize);
            at.copy_from_nonoverlapping(head.as_ptr(), HEAD);
            at.add(HEAD)
                .copy_from_nonoverlapping(key.as_ptr(), key.len());
            at.add(HEAD + key.len())
                .copy_from_nonoverlapping(record.as_ptr(), record.len());
        }
    }

    /// What is in a block. None when the word or the lengths are impossible; the checksum is not looked at.
    ///
    /// # Safety
    ///
    /// The word is the published one of a slot whose lock the caller holds (or the arena is being opened), and the lock is
    /// held, nothing else published there and the block not freed while the result is in use.
    pub(crate) unsafe fn read_block(&self, block: BlockRef) -> Option<Contents<'_>> {
        let room = block.place(&self.layout)?.size.bytes();
        // SAFETY: `place` proved that `room` bytes (at least a head) from here lie within the mapping, and no one writes
        // to a published block.
        let bytes = unsafe {
            slice::from_raw_parts(
                self.base.as_ptr().add(block.offset() as usize),
                room as usize,
            )
        };
        let head = Head::decode(bytes.first_chunk()?, room)?;
        let (key, rest) = bytes.get(HEAD..)?.split_at_checked(head.key_len as usize)?;
        let record = rest.get(..head.len as usize)?;
        Some(Contents { head, key, record })
    }

    /// As [`Map::read_block`], with the checksum.
    ///
    /// # Safety
    ///
    /// As there.
    pub(crate) unsafe fn read_checked(&self, block: BlockRef) -> Option<Contents<'_>> {
        // SAFETY: the same contract.
        let contents = unsafe { self.read_block(block)? };
        // SAFETY: `read_block` found a whole head there; see there.
        let head = unsafe {
            &*self
                .base
                .as_ptr()
                .add(block.offset() as usize)
                .cast::<[u8; HEAD]>()
        };
        let crc = checksum(head, contents.key, contents.record);
        (head[..4] == crc.to_le_bytes()).then_some(contents)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; views borrow `self`, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.layout.size as usize) };
    }
}
