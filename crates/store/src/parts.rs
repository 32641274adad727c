//! What the lock is made of. `tests/model.rs` puts other parts into the same source, to try all orders of events.

use std::ptr;
use std::time::Duration;

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::AtomicU32;
pub(crate) use std::time::Instant;

/// Most holders are done within this many looks (a commit takes about a microsecond).
pub(crate) const SPINS: u32 = 100;

/// Sleeps while the word is `expected`, at most `limit`. May return early for no reason.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, limit: Duration) {
    let limit = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the word and the time outlive the call; the kernel only reads them.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const limit,
            ptr::null::<u32>(),
            0,
        );
    }
}

/// Wakes up to `count` sleepers.
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    // SAFETY: the kernel uses the address only to find the sleepers.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            count,
            ptr::null::<u32>(),
            ptr::null::<u32>(),
            0,
        );
    }
}
