//! Places where tests let a process die. Nothing in other builds.

/// One such place: between two stores whose order matters to recovery.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn point() {}

#[cfg(test)]
pub(crate) use armed::{arm, point};

#[cfg(test)]
mod armed {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// How many places are still passed before the process dies; 0: never.
    static LEFT: AtomicU32 = AtomicU32::new(0);

    /// From now on this process dies by SIGKILL at the `n`th place it comes to (from 1; 0 for never).
    pub(crate) fn arm(n: u32) {
        LEFT.store(n, Relaxed);
    }

    pub(crate) fn point() {
        let left = LEFT.load(Relaxed);
        if left == 0 {
            return;
        }
        LEFT.store(left - 1, Relaxed);
        if left == 1 {
            // SAFETY: plain system calls; the process ends here.
            unsafe {
                libc::kill(libc::getpid(), libc::SIGKILL);
            }
        }
    }
}
