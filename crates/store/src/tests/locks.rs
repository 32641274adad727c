use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{bench, fork, Child, MIB};
use crate::lock::WAITERS;
use crate::parts::futex_wait;

/// Bounded sleeping would hide a forgotten wake, so this waiter sleeps for long.
#[test]
fn unlock_wakes_a_sleeper() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let lock = &arena.map().slot(0).lock;
    let guard = lock.lock();
    // SAFETY: the lock is not unlocked through this reference.
    let raw = unsafe { lock.raw() };
    let sleeper = fork(|| {
        let word = raw.word.fetch_or(WAITERS, Relaxed) | WAITERS;
        while raw.word.load(Relaxed) == word {
            futex_wait(&raw.word, word, Duration::from_secs(60));
        }
    });
    while raw.word.load(Relaxed) & WAITERS == 0 {
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(20));
    drop(guard);
    assert!(Child::join(sleeper));
}
