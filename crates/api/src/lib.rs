//! Who may do what: what stands beside the engine and knows nothing of it.
//!
//! Text in, text out: no clock, no file, no Kamailio. The caller reads the files and says what time it is.
//!
//! - [`token`]: bearer tokens and the keys that they are checked with.
//! - [`turn`]: credentials for a TURN server.

pub mod token;
pub mod turn;
