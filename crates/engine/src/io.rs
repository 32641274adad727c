//! What goes into a step and what comes out of it.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use rtc_json_protocol::{EndReason, Request};
use rtc_json_sip::Message;

use crate::model::{Direction, PastTransfer, ServerTx};

/// Something that happened to one agent.
#[derive(Debug)]
pub enum Input<'a> {
    /// A message of a browser.
    Message {
        /// Its connection.
        conn: i32,
        /// Its address.
        addr: Option<IpAddr>,
        /// The message.
        request: Request,
        /// Next hop that the script chose.
        next_hop: Option<String>,
        /// What the `token` of a `register` came to: its subject, or why it was refused. None without a token.
        token: Option<Result<String, String>>,
    },
    /// The routing script refused a message of a browser.
    Refused {
        /// Its connection.
        conn: i32,
        /// The message.
        request: Request,
        /// SIP status, 400 to 699.
        code: u16,
        /// Text for the browser.
        reason: String,
    },
    /// A connection is gone. May be told twice.
    Closed {
        /// The connection.
        conn: i32,
    },
    /// A frame could not be sent: its connection is gone.
    Unsent {
        /// The connection.
        conn: i32,
        /// The frame.
        text: String,
    },
    /// What the user table said.
    Ha1 {
        /// Connection whose `register` asked.
        conn: i32,
        /// HA1 (MD5, hexadecimal), or none for an unknown user.
        found: Result<Option<String>, TableUnavailable>,
    },
    /// A SIP request for the agent.
    SipRequest {
        /// The message.
        message: &'a Message<'a>,
        /// Request-URI's user part, as the script left it.
        user: &'a str,
        /// Its server transaction; none for ACK.
        tx: Option<ServerTx>,
        /// Where it came from.
        src: Option<IpAddr>,
    },
    /// A reply to a request of ours.
    SipReply {
        /// Which request.
        handle: Handle,
        /// Status.
        code: u16,
        /// The message; none when tm made the reply up (no answer in time).
        message: Option<&'a Message<'a>>,
    },
    /// A request could not be sent; no reply will come.
    NotSent {
        /// Which request.
        handle: Handle,
    },
    /// A reply to an INVITE could not be sent: its transaction is over.
    NotReplied {
        /// The transaction.
        tx: ServerTx,
    },
    /// The operator ends a call.
    HangUp {
        /// The call.
        call: String,
    },
    /// The server is to become empty from now on.
    Draining,
    /// The next hop has been silent for a while, or answers again after that. What `unreachable` of [`Env`](crate::Env) says holds from now on.
    NextHop,
    /// Time has passed.
    Tick,
    /// Kamailio was started again: no connection and no transaction of before exists any more.
    Restarted,
    /// This node has taken the agent over from another, whose connections and transactions are not ours. Its times are on our
    /// clock already ([`Agent::shift`](crate::Agent::shift)).
    TakenOver {
        /// `host:port` of the last owner's Contact.
        former: String,
    },
    /// Another node has taken the agent over. The record goes away with this step.
    Yielded {
        /// `host:port` of the new owner's Contact; empty where the agent lives nowhere any more.
        to: String,
        /// SIP Call-IDs that the new owner has, or has ended.
        theirs: HashSet<String>,
    },
    /// As [`Input::TakenOver`], but no browser has come: the last owner is gone, and so is the agent.
    Orphaned {
        /// `host:port` of the last owner's Contact.
        former: String,
    },
    /// The far side has answered the BYE that a former owner had sent.
    Ended {
        /// Key of the call's leg.
        call: String,
    },
    /// The browser is here, while others may have taken the agent for theirs: far sides are told that this node is the one.
    Claimed,
}

/// The user table could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUnavailable;

/// Something to do, in this order, after the record was committed and the lock released.
#[derive(Debug)]
pub enum Output {
    /// A frame for a browser.
    Frame {
        /// Its connection.
        conn: i32,
        /// JSON text.
        text: String,
    },
    /// Close a connection (RFC 6455, section 7.4).
    Close {
        /// The connection.
        conn: i32,
        /// Status.
        status: u16,
        /// Why.
        reason: &'static str,
    },
    /// Send a request in a client transaction.
    Request(Box<SipRequest>),
    /// An INVITE that tm holds goes on to the node that has the agent now, which answers it in our place.
    PassOn {
        /// Its server transaction.
        tx: ServerTx,
        /// `host:port` of that node.
        node: String,
    },
    /// Cancel an INVITE of ours.
    Cancel {
        /// Its Call-ID.
        call_id: String,
        /// Its CSeq.
        cseq: u32,
    },
    /// Answer a request that tm holds.
    Reply(SipReply),
    /// Ask the user table for the HA1 of this agent; the answer comes as [`Input::Ha1`].
    LookUp {
        /// Connection whose `register` asks.
        conn: i32,
    },
    /// A call is over.
    CallEnded(Box<CallRecord>),
    /// A browser has shown who it is, or has failed to.
    Judged {
        /// Its connection.
        conn: i32,
        /// Was it right?
        right: bool,
    },
    /// Add one to a counter.
    Count(Counter),
}

/// A request for tm.
#[derive(Debug)]
pub struct SipRequest {
    /// Method.
    pub method: &'static str,
    /// Request-URI.
    pub uri: String,
    /// From without its tag.
    pub from: String,
    /// From tag.
    pub from_tag: String,
    /// To without its tag.
    pub to: String,
    /// To tag; empty outside a dialog.
    pub to_tag: String,
    /// Call-ID.
    pub call_id: String,
    /// CSeq number.
    pub cseq: u32,
    /// SIP URI to send it to.
    pub next_hop: String,
    /// Further header lines, each ended by CRLF.
    pub headers: String,
    /// Body.
    pub body: String,
    /// Names the request in its replies.
    pub handle: Handle,
}

/// A reply for tm.
#[derive(Debug)]
pub struct SipReply {
    /// The transaction.
    pub tx: ServerTx,
    /// Does it answer an INVITE? Then a failure to send it matters.
    pub invite: bool,
    /// Status.
    pub code: u16,
    /// Reason phrase.
    pub reason: &'static str,
    /// To tag; empty lets tm choose.
    pub to_tag: String,
    /// Further header lines, each ended by CRLF.
    pub headers: String,
    /// Body.
    pub body: String,
}

/// What a request of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// REGISTER for a browser that registers, or the server's own refresh or removal.
    Register,
    /// INVITE that starts a call.
    Invite,
    /// A request in a dialog; the record knows which.
    InDialog,
    /// MESSAGE with a text of a browser.
    Text,
    /// OPTIONS outside of any call. No agent's: nothing here sends one.
    Probe,
}

/// Names a request of ours in its replies: a text that goes through tm and comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The agent.
    pub dn: String,
    /// What it was for.
    pub purpose: Purpose,
    /// The leg of a call, by its key; empty for REGISTER, the SIP Call-ID for MESSAGE.
    pub call: String,
    /// CSeq of the request.
    pub cseq: u32,
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match self.purpose {
            Purpose::Register => 'r',
            Purpose::Invite => 'i',
            Purpose::InDialog => 'd',
            Purpose::Text => 'm',
            Purpose::Probe => 'o',
        };
        // a DN and a callId never hold a space
        write!(f, "{purpose} {} {} {}", self.cseq, self.dn, self.call)
    }
}

impl Handle {
    /// Reads what [`Display`](fmt::Display) wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let purpose = match parts.next()? {
            "r" => Purpose::Register,
            "i" => Purpose::Invite,
            "d" => Purpose::InDialog,
            "m" => Purpose::Text,
            "o" => Purpose::Probe,
            _ => return None,
        };
        let cseq = parts.next()?.parse().ok()?;
        let dn = parts.next()?.to_owned();
        let call = parts.next()?.to_owned();
        Some(Handle {
            dn,
            purpose,
            call,
            cseq,
        })
    }
}

/// What is left of a call when it is over.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// `callId`.
    pub id: String,
    /// SIP Call-ID.
    pub sip_call_id: String,
    /// The agent.
    pub dn: String,
    /// Who started it.
    pub direction: Direction,
    /// Who called.
    pub from: String,
    /// Who was called.
    pub to: String,
    /// Why it ended.
    pub reason: EndReason,
    /// SIP status that ended it; 0 for none.
    pub code: u16,
    /// Q.850 cause; 0 for none.
    pub cause: u16,
    /// Unix time of the beginning, milliseconds.
    pub started: u64,
    /// Whole seconds since the answer; 0 if there was none.
    pub duration: u64,
    /// Was it answered?
    pub answered: bool,
    /// Milliseconds from the beginning to the first 18x; 0 for none.
    pub ring_after: u64,
    /// Milliseconds from the beginning to the answer; 0 for none.
    pub answer_after: u64,
    /// Was it recorded, at least in part?
    pub recorded: bool,
    /// How it was sent, or led, to other far sides: the latest few, oldest first.
    pub transfers: Vec<PastTransfer>,
}

/// Counters that steps raise. The order is that of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Browsers registered.
    Registered,
    /// Registrations refused.
    RegisterFailed,
    /// Sessions resumed.
    Resumed,
    /// Sessions that ended without being resumed in time.
    SessionsLost,
    /// Calls that browsers started.
    CallsOut,
    /// Calls that came in.
    CallsIn,
    /// Calls answered.
    CallsAnswered,
    /// Calls that ended unanswered.
    CallsFailed,
    /// `error` messages sent.
    Errors,
    /// Calls refused because they came too fast.
    CallsLimited,
}
