//! The lock of the arena and how records are published, in every order of events (loom). The lock is the real source; only its
//! parts are the model's: its words, the futex, the clock, and who is dead.
//!
//! Time is not modelled: who sleeps is woken by an unlock or by the death of the holder (in life by the next look at it).
//! So an unlock that forgets to wake somebody is a deadlock here, where in life it would be a wait of 20 ms.

use std::mem::forget;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{
    AtomicU64,
    Ordering::{self, Acquire, Relaxed, Release},
};
use loom::thread;

/// The parts of the lock.
mod parts {
    use std::ops::{Add, Deref};
    use std::sync::OnceLock;
    use std::time::Duration;

    use loom::sync::{Condvar, Mutex};

    use crate::owner;

    /// loom's own lets all others go first, which hides orders of events.
    pub(crate) fn spin_loop() {}

    pub(crate) const SPINS: u32 = 1;

    /// loom's has no constant constructor, which `RawMutex` asks for; it is made when it is first looked at.
    #[derive(Default)]
    pub(crate) struct AtomicU32(OnceLock<loom::sync::atomic::AtomicU32>);

    impl AtomicU32 {
        pub(crate) const fn new(_zero: u32) -> Self {
            AtomicU32(OnceLock::new())
        }
    }

    impl Deref for AtomicU32 {
        type Target = loom::sync::atomic::AtomicU32;

        fn deref(&self) -> &Self::Target {
            self.0.get_or_init(|| loom::sync::atomic::AtomicU32::new(0))
        }
    }

    /// It is always late: each look at the holder is due.
    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    pub(crate) struct Instant(bool);

    impl Instant {
        pub(crate) fn now() -> Self {
            Instant(true)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, _: Duration) -> Self {
            Instant(false)
        }
    }

    loom::lazy_static! {
        /// What the kernel holds while it compares the word, and while it wakes.
        pub(crate) static ref KERNEL: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, _limit: Duration) {
        let mut held = KERNEL.0.lock().unwrap();
        if word.load(std::sync::atomic::Ordering::SeqCst) != expected
            || owner::is_dead(expected & owner::OWNER_MASK)
        {
            return;
        }
        held = KERNEL.1.wait(held).unwrap();
        drop(held);
    }

    pub(crate) fn futex_wake(_word: &AtomicU32, count: i32) {
        let _held = KERNEL.0.lock().unwrap();
        match count {
            1 => KERNEL.1.notify_one(),
            _ => KERNEL.1.notify_all(),
        }
    }
}

/// Who runs, and who does not any more.
mod owner {
    use std::cell::Cell;

    use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};

    pub(crate) const OWNER_MASK: u32 = (1 << 31) - 1;

    loom::thread_local! {
        static ME: Cell<u32> = Cell::new(1);
    }

    loom::lazy_static! {
        /// A bit for each process.
        static ref DEAD: AtomicU32 = AtomicU32::new(0);
    }

    /// This thread stands for that process from now on.
    pub(crate) fn become_process(id: u32) {
        ME.with(|me| me.set(id));
    }

    pub(crate) fn me() -> u32 {
        ME.with(Cell::get)
    }

    /// Looked at with no order at all: what a dead process wrote must be seen by its own means.
    pub(crate) fn is_dead(owner: u32) -> bool {
        owner == 0 || DEAD.load(Relaxed) & (1 << owner) != 0
    }

    /// The process dies where it stands. Who sleeps looks again.
    pub(crate) fn die() {
        DEAD.fetch_or(1 << me(), Relaxed);
        let _held = crate::parts::KERNEL.0.lock().unwrap();
        crate::parts::KERNEL.1.notify_all();
    }
}

#[allow(dead_code)]
#[path = "../src/lock.rs"]
mod lock;

use lock::{Lock, LockGuard};

/// One record under a lock: a block of two words that is written and then published.
struct Slot {
    lock: Lock,
    published: AtomicU64,
    block: UnsafeCell<[u64; 2]>,
    repairs: UnsafeCell<u32>,
}

// SAFETY: the block and the count are touched only as the protocol says, which is what is tried here: loom fails otherwise
unsafe impl Sync for Slot {}

impl Slot {
    fn new() -> Arc<Self> {
        let slot = Slot {
            lock: <Lock as Default>::default(),
            published: AtomicU64::new(0),
            block: UnsafeCell::new([0; 2]),
            repairs: UnsafeCell::new(0),
        };
        // its words and the kernel's are there before any thread is: making them would order what must not be ordered
        drop(slot.enter());
        owner::is_dead(1);
        drop(parts::KERNEL.0.lock().unwrap());
        Arc::new(slot)
    }

    fn enter(&self) -> LockGuard<'_> {
        let held = self.lock.lock();
        // SAFETY: the lock is not unlocked through this reference
        let raw = unsafe { self.lock.raw() };
        if raw.is_stolen() {
            // SAFETY: the lock is held
            self.repairs.with_mut(|repairs| unsafe { *repairs += 1 });
            raw.repaired();
        }
        held
    }

    /// Writes the block and publishes it.
    fn commit(&self, how: Ordering) {
        // SAFETY: the lock is held, and nothing is published
        self.block.with_mut(|block| unsafe { *block = [7, 7] });
        self.published.store(1, how);
    }

    /// The record, if there is one.
    fn read(&self) -> Option<[u64; 2]> {
        // SAFETY: published, so written before
        (self.published.load(Acquire) == 1).then(|| self.block.with(|block| unsafe { *block }))
    }
}

struct Count(UnsafeCell<u32>);

// SAFETY: as for `Slot`
unsafe impl Sync for Count {}

fn explore(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // more switches by force find nothing new in locks, and take hours
    model.preemption_bound = Some(2);
    model.check(run);
}

#[test]
fn one_holder_at_a_time_and_no_sleeper_is_forgotten() {
    explore(|| {
        let slot = Slot::new();
        let count = Arc::new(Count(UnsafeCell::new(0)));
        let others: Vec<_> = (2..5)
            .map(|id| {
                let (slot, count) = (Arc::clone(&slot), Arc::clone(&count));
                thread::spawn(move || {
                    owner::become_process(id);
                    let _held = slot.enter();
                    // SAFETY: the lock is held; loom fails where it does not exclude the others
                    count.0.with_mut(|count| unsafe { *count += 1 });
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        let _held = slot.enter();
        // SAFETY: as above
        assert_eq!(count.0.with(|count| unsafe { *count }), 3);
    });
}

/// A process dies with the lock after it has published; another takes the lock before, or steals it.
fn death_of_a_holder(how: Ordering) {
    explore(move || {
        let slot = Slot::new();
        let dying = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                owner::become_process(2);
                let held = slot.lock.lock();
                slot.commit(how);
                // its lock stays as it is
                forget(held);
                owner::die();
            })
        };
        let other = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                owner::become_process(3);
                let _held = slot.enter();
                // all of the record, or none
                assert!(matches!(slot.read(), None | Some([7, 7])));
            })
        };
        other.join().unwrap();
        dying.join().unwrap();
        let _held = slot.enter();
        assert_eq!(slot.read(), Some([7, 7]));
        // SAFETY: the lock is held. Stolen once, so repaired once, by whoever came first
        assert_eq!(slot.repairs.with(|repairs| unsafe { *repairs }), 1);
    });
}

#[test]
fn what_a_dead_holder_published_is_whole_and_its_lock_is_stolen_once() {
    death_of_a_holder(Release);
}

/// The model would notice: without the order of the publishing store, a thief may see a record and not what is in it.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_record_published_without_order_is_seen_half() {
    death_of_a_holder(Relaxed);
}

/// The thief dies, too, before it has repaired anything: the next one knows that there is something to repair.
#[test]
fn the_mark_of_a_theft_outlives_the_thief() {
    explore(|| {
        let slot = Slot::new();
        for id in 2..4 {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                owner::become_process(id);
                forget(slot.lock.lock());
                owner::die();
            })
            .join()
            .unwrap();
        }
        let _held = slot.enter();
        // SAFETY: the lock is held
        assert_eq!(slot.repairs.with(|repairs| unsafe { *repairs }), 1);
    });
}
