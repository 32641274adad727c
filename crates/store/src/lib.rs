//! The shared arena: one file, mapped by all worker processes, that keeps opaque records under byte-string keys and
//! outlives a crash, a SIGKILL or a restart of the server.
//!
//! [`Arena::open`] runs once in the parent; the workers inherit the mapping when they are forked. A worker takes the lock
//! of one key ([`Arena::lock`], [`Arena::lock_or_create`]), reads the record, and commits a new one or none. A [`Turn`],
//! taken under the lock, orders what is sent after the unlock.
//!
//! # Crash safety
//!
//! A record is immutable while it is published. A commit writes the new record into a fresh block and publishes it by one
//! atomic store into the slot, so a process that dies at any instruction leaves the old record or the new one, never a
//! mixture. Every block in use is named by a word of a slot (published, fresh or retired), so what a dead process left
//! behind is found: by the next holder of its lock, by [`Arena::reclaim`], or at the next [`Arena::open`].
//!
//! # Memory model
//!
//! * Publish: the block is written with plain stores, then its reference is stored into `Slot::record` with `Release`.
//!   Readers load that word with `Acquire` before they touch the block, so they see all of it. This holds even for a
//!   reader that stole the lock of a dead process and has no happens-before edge with it through the lock itself.
//! * Lock: taking it is a compare-exchange with `Acquire`, giving it back a swap with `Release`; plain accesses to a
//!   slot's blocks are ordered by that pair. A block is written only between its allocation and its publication, by the
//!   holder of the slot's lock, and read only under that lock.
//! * Everything else in the mapping is read and written through atomics, so a race there can give an old value, but is
//!   never undefined behaviour.
//!
//! # Order of locks
//!
//! Slot (one agent), then bucket (index), then allocator; a lock is waited for only while holding earlier kinds. A process
//! holds one slot lock at most ([`Error::Nested`] otherwise); [`Arena::reclaim`] takes a second one only without waiting,
//! and only from the dead. A [`Turn`] is waited for without any lock. So no cycle of waiting processes can form.
//!
//! # Threads
//!
//! Ownership is by process. Threads of one process may share an [`Arena`], but a thread that ends while it holds a lock is
//! not noticed, and turns order processes, not threads.

mod alloc;
mod arena;
mod block;
mod crash;
mod error;
mod file;
mod guard;
mod index;
mod layout;
mod lock;
mod map;
mod owner;
mod parts;
mod recover;
mod repair;
#[cfg(feature = "testing")]
mod testing;
mod turn;

pub use arena::{Arena, Options, Usage, NEVER};
pub use error::Error;
pub use guard::Guard;
pub use layout::{COUNTERS, MAX_KEY, MAX_RECORD, MIN_SIZE};
pub use recover::{Recovery, Replaced};
pub use turn::{Turn, HOLD_LIMIT};

#[cfg(test)]
mod tests;
