//! The JSON messages between a browser and the server: `{"type":…,"payload":{…},"id":…}`.
//!
//! Two calls make up the crate, and neither keeps any state:
//!
//! 1. [`parse`] turns a text frame of a browser into a [`Request`], or says in a [`BadFrame`] what is wrong with it.
//!    Whatever it lets through is safe to hand on: every string has the length and the characters that its key allows,
//!    and no string that can reach a SIP header holds a control character.
//! 2. [`encode`] turns a [`ServerMessage`] into a text frame.
//!
//! Beside them, [`variable`] reads one value of a frame for the operator's script. The crate knows nothing of SIP.

mod client;
mod json;
mod parse;
mod payload;
#[cfg(feature = "schema")]
pub mod schema;
mod secret;
mod server;

pub use client::{
    Call, Candidate, ClientMessage, DigestAnswer, RecordingAction, Register, Request,
};
pub use parse::{parse, variable, BadFrame, BadKind, Limits};
pub use secret::Secret;
pub use server::{
    encode, CallSnapshot, ConferenceState, EndReason, IceServer, ProgressState, RecordingState,
    Remote, ServerMessage, Timings, TransferState, UnregisterReason,
};

/// The version of the protocol, as `registered` announces it.
pub const VERSION: u32 = 1;
