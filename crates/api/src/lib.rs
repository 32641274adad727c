//! What stands beside the engine and knows nothing of it: who may do what, and the REST API.
//!
//! Text in, text out: no clock, no file, no Kamailio. The caller reads the files and says what time it is.
//!
//! - [`token`]: bearer tokens and the keys that they are checked with; [`access`]: what they are good for.
//! - [`rest`]: the API, over [`http`]. It shows agents ([`directory`]) and [`calls`].
//! - [`turn`]: credentials for a TURN server.
//! - [`probe`]: whether a server answers.

pub mod access;
pub mod calls;
pub mod directory;
pub mod http;
mod json;
pub mod probe;
pub mod rest;
pub mod token;
pub mod turn;
