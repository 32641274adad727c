//! The engine: what happens to an agent, as a pure function.
//!
//! One [`Agent`] is one directory number with its browsers, its calls and its registration. Everything that happens to
//! it, be it a message of a browser, a SIP request or reply, or the time, is an [`Input`]; [`step`] changes the agent and
//! gives the [`Output`]s that the caller must carry out in their order, after it has committed the agent's record.
//!
//! The engine knows no clock, no randomness, no socket, no shared memory and no Kamailio: time and entropy come in with
//! [`Env`]. Between a step and the execution of its outputs, other processes may step the same agent: each step must
//! hold in that case. (A `hangup` may come before the INVITE has left, a 200 while a CANCEL is on its way.)
//!
//! The calls of an agent, in the order in which a call goes through them: `call` in [`browser`](self) or an INVITE in
//! `inbound`, then `outbound` for the replies, then `call` for the end.

mod browser;
mod call;
mod challenge;
mod config;
mod control;
mod identity;
mod inbound;
mod io;
mod limits;
mod model;
mod moving;
mod next_hop;
mod offer;
mod outbound;
mod packed;
mod register;
mod reliable;
mod requests;
mod session;
mod step;
mod takeover;
mod text;
mod timer;
mod transfer;
mod trickle;

pub use browser::before_registration;
pub use challenge::{Answer, Asked, Asking, Proof};
pub use config::{Config, DtmfMode, HeaderList, Ice, IceSource, OverLimit, RegisterMode, Trickle};
pub use io::{
    CallRecord, Counter, Handle, Input, Output, Purpose, SipReply, SipRequest, TableUnavailable,
};
pub use limits::{Failures, Rate};
pub use model::{
    Agent, Call, Conference, Digits, Direction, FarOffer, InDialog, Leg, Moving, Open, Owed,
    PastTransfer, Pending, RecordError, Reliable, Sent, ServerTx, Session, State, Timer, Transfer,
    TransferKind, TransferResult, Upstream, Want,
};
pub use outbound::end_stray;
pub use packed::{Journal, Outcome, Outcomes};
pub use step::{step, Env};
pub use text::Text;
