//! What a SIP user agent says (RFC 3261): reading messages, keeping dialogs, answering digest challenges, naming things.
//!
//! Everything is text in, text out; there is no clock, no socket and no randomness here.
//!
//! - reading: [`Message`], [`NameAddr`], [`Uri`], [`split_list`]
//! - dialogs: [`Dialog`], [`replaces`], [`sipfrag_status`]
//! - registering: [`contact_expires`], [`min_expires`]
//! - digest: [`Challenge`], [`choose`], [`ha1`], [`Ha1`], [`authorization`], [`credentials`], [`response`]
//! - why a call ended: [`reason_phrase`], [`parse_reason`], [`reasons`], [`end_reason`]
//!
//! **Header injection.** Texts that go into headers come from browsers and from other people's messages. What this crate
//! reads never holds a control character ([`Message::header`] replaces them), and what it writes refuses or escapes them.

mod addr;
mod dialog;
mod digest;
mod error;
mod message;
mod reason;
mod register;
mod uri;

pub use addr::{quote_display, NameAddr};
pub use dialog::{replaces, replaces_value, sipfrag_status, Dialog};
pub use digest::{
    authorization, choose, credentials, ha1, response, same_secret, Algorithm, Challenge, Ha1,
};
pub use error::Error;
pub use message::{split_list, Message};
pub use reason::{
    answered_elsewhere, end_reason, parse_reason, q850_cause, q850_to_sip, reason_phrase, reasons,
    sip_to_q850, Reason,
};
pub use register::{contact_expires, min_expires};
pub use uri::{escape_user, unescape_user, valid_host_port, Uri};
