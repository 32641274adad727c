//! What the fuzz targets do with an input. `fuzz/` runs them under libFuzzer; the inputs in `fuzz/regression` are replayed by
//! `cargo test`, so that what was once found stays mended, and each target goes on doing what it is for.
//!
//! A target panics when the code under test does, and when what comes out breaks a rule that holds for every input
//! ([`checks`]). All of them take text with separators rather than raw structures, so that an input can be read, written by
//! hand and made from recorded traffic.

mod arena;
mod checks;
mod ffi;
mod frames;
mod sdp;
mod sip;
mod token;
#[path = "../../engine/tests/common/mod.rs"]
mod world;

pub use arena::arena;
pub use ffi::{call, calls, reset, Surface};
pub use frames::frames;
pub use sdp::sdp;
pub use sip::sip;
pub use token::token;

/// A target: what it does with an input.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("frames", frames),
    ("sdp", sdp),
    ("sip", sip),
    ("token", token),
    ("arena", arena),
    ("ffi", calls),
];
