//! A lock in shared memory that survives the death of its holder.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use lock_api::{GuardNoSend, RawMutex, RawMutexTimed};

use crate::owner;
use crate::parts::{futex_wait, futex_wake, spin_loop, AtomicU32, Instant, SPINS};

/// How long a waiter sleeps before it looks whether the holder is still alive.
pub(crate) const CHECK: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 20 });

/// Somebody may sleep on the word.
pub(crate) const WAITERS: u32 = !owner::OWNER_MASK;

/// The lock as it lies in the mapping. All zero bytes is an unlocked one.
pub(crate) type Lock = lock_api::Mutex<RawLock, ()>;
/// It is held.
pub(crate) type LockGuard<'a> = lock_api::MutexGuard<'a, RawLock, ()>;

/// A futex word with the holder in it: 0 is free, else the owner (see [`owner`]) and the bit [`WAITERS`].
///
/// The futex is used without the PRIVATE flag, as the waiters are in other processes. Sleeping is bounded: after each
/// [`CHECK`] the waiter asks whether the holder still lives. A dead holder's word is replaced by compare-exchange, so of
/// several thieves one wins. The thief leaves a mark that stays until the data were repaired, even when it dies as well.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawLock {
    pub(crate) word: AtomicU32,
    stolen: AtomicU32,
}

impl RawLock {
    /// The lock was taken from a dead process and what it guards was not repaired yet.
    pub(crate) fn is_stolen(&self) -> bool {
        self.stolen.load(Relaxed) != 0
    }

    /// What the lock guards is whole again. Only the holder says so.
    pub(crate) fn repaired(&self) {
        self.stolen.store(0, Release);
    }

    /// The holder, 0 if there is none.
    pub(crate) fn owner(&self) -> u32 {
        self.word.load(Relaxed) & owner::OWNER_MASK
    }

    /// Takes the lock without waiting if it is free or its holder is dead.
    pub(crate) fn try_lock_or_steal(&self) -> bool {
        let word = self.word.load(Relaxed);
        if word == 0 {
            return self.try_lock();
        }
        self.steal(word)
    }

    /// Unlocked, whatever it was. Only while no other process can use the lock.
    pub(crate) fn reset(&self) {
        self.word.store(0, Relaxed);
        self.stolen.store(0, Relaxed);
    }

    fn steal(&self, word: u32) -> bool {
        if !owner::is_dead(word & owner::OWNER_MASK) {
            return false;
        }
        // WAITERS stays set: others may sleep, and must be woken by our unlock
        let taken = self
            .word
            .compare_exchange(word, owner::me() | WAITERS, Acquire, Relaxed)
            .is_ok();
        if taken {
            self.stolen.store(1, Relaxed);
        }
        taken
    }

    #[cold]
    fn lock_slow(&self, until: Option<Instant>) -> bool {
        for _ in 0..SPINS {
            if self.try_lock() {
                return true;
            }
            spin_loop();
        }
        let me = owner::me();
        let mut check = Instant::now() + CHECK;
        loop {
            let word = self.word.load(Relaxed);
            if word == 0 {
                // We slept, so others may sleep too: keep the mark
                if self
                    .word
                    .compare_exchange(0, me | WAITERS, Acquire, Relaxed)
                    .is_ok()
                {
                    return true;
                }
                continue;
            }
            if word & WAITERS == 0
                && self
                    .word
                    .compare_exchange(word, word | WAITERS, Relaxed, Relaxed)
                    .is_err()
            {
                continue;
            }
            futex_wait(&self.word, word | WAITERS, CHECK);
            let now = Instant::now();
            if now < check {
                continue;
            }
            check = now + CHECK;
            if self.steal(word | WAITERS) {
                return true;
            }
            if until.is_some_and(|until| now >= until) {
                return false;
            }
        }
    }
}

// SAFETY: the word goes from 0 to non-zero by compare-exchange only, so one process at a time has the lock; it is taken
// over from a holder only when that process is dead and so touches nothing any more. Acquire on taking and Release on
// giving back order what is done under the lock.
unsafe impl RawMutex for RawLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: RawLock = RawLock {
        word: AtomicU32::new(0),
        stolen: AtomicU32::new(0),
    };
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.lock_slow(None);
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.word.load(Relaxed) == 0
            && self
                .word
                .compare_exchange(0, owner::me(), Acquire, Relaxed)
                .is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        if self.word.swap(0, Release) & WAITERS != 0 {
            futex_wake(&self.word, 1);
        }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.word.load(Relaxed) != 0
    }
}

// SAFETY: as above; a false answer leaves the word to its holder.
unsafe impl RawMutexTimed for RawLock {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.try_lock() || self.lock_slow(Some(Instant::now() + timeout))
    }

    #[inline]
    fn try_lock_until(&self, timeout: Instant) -> bool {
        self.try_lock() || self.lock_slow(Some(timeout))
    }
}
