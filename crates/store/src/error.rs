use std::io;
use std::path::PathBuf;

use crate::layout::{MAX_KEY, MAX_RECORD, MAX_SIZE, MIN_SIZE};

/// What can go wrong with the arena.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No room for one more key, or for a record of this size. What was there stands unchanged.
    #[error("the arena is full")]
    Full,
    /// The record is longer than [`MAX_RECORD`].
    #[error("a record of {0} bytes is longer than {MAX_RECORD}")]
    TooBig(usize),
    /// The key is empty or longer than [`MAX_KEY`].
    #[error("a key of {0} bytes is not within 1 to {MAX_KEY}")]
    Key(usize),
    /// A live process has held the lock of this key for seconds (stopped, or in an endless loop).
    #[error("the record is locked by process {0}, which does not let go")]
    Busy(u32),
    /// This thread holds a [`Guard`](crate::Guard) already; a second one could deadlock.
    #[error("a record is locked in this process already")]
    Nested,
    /// The published record does not fit its block: something wrote into the mapping from outside.
    #[error("the record is damaged")]
    Damaged,
    /// The size asked for is out of bounds.
    #[error("an arena of {0} bytes is not within {MIN_SIZE} to {MAX_SIZE}")]
    Size(u64),
    /// Another server has the file open.
    #[error("{path} is in use by another server (opened by process {pid})")]
    InUse {
        /// The arena file.
        path: PathBuf,
        /// The process that opened it, as far as the file tells.
        pid: u32,
    },
    /// The path is a symbolic link, a directory, a device, ...
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// The file belongs to another user.
    #[error("{path} belongs to user {uid}, not to the user of this process")]
    Owner {
        /// The arena file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The file has content, but it never was an arena. It is not overwritten.
    #[error("{0} is not an arena; remove it or name another file")]
    Foreign(PathBuf),
    /// A system call failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The arena file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
