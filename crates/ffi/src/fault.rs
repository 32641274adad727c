//! Places where tests let an event fail by a panic. Nothing in other builds.

/// One such place.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub fn point() {}

#[cfg(feature = "fault-injection")]
pub use armed::{arm, point};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::cell::Cell;

    thread_local! {
        /// How many places are still passed before one panics; 0: none will.
        static LEFT: Cell<u32> = const { Cell::new(0) };
    }

    /// From now on this thread panics at the `n`th place it comes to (from 1; 0 for never). Gives how many places the last
    /// count had left: 0 when it has struck.
    pub fn arm(n: u32) -> u32 {
        LEFT.replace(n)
    }

    pub fn point() {
        let left = LEFT.get();
        if left == 0 {
            return;
        }
        LEFT.set(left - 1);
        assert!(left > 1, "a fault that a test wanted");
    }
}
