//! What a test needs that damages an arena many thousand times a second. In no build of the module.

use std::fs::File;
use std::io;

use crate::arena::Arena;
use crate::layout::Layout;
use crate::map::Map;
use crate::recover::{recover, Recovery};

impl Arena {
    /// An arena of that many 4 KiB and slots in an empty file of nobody else. It may be smaller than
    /// [`MIN_SIZE`](crate::MIN_SIZE), and its file is no arena for [`Arena::open`]: nothing in it says what it is.
    ///
    /// # Panics
    /// If the slots leave no room for pages.
    pub fn scratch(file: File, size: u64, slots: u32) -> io::Result<Arena> {
        assert!(size % 4096 == 0 && u64::from(slots) * 256 + (64 << 10) < size);
        file.set_len(size)?;
        let map = Map::new(&file, Layout::with_slots(size, slots), [3; 16])?;
        let mut arena = Arena { map, _file: file };
        arena.recover();
        Ok(arena)
    }

    /// The whole file, to be read or damaged. No guard is there, and no other process may have this arena.
    pub fn bytes(&mut self) -> &mut [u8] {
        self.map.bytes()
    }

    /// What opening does once it has found that the file is an arena of ours.
    pub fn recover(&mut self) -> Recovery {
        recover(&self.map)
    }
}
