//! The record of one agent: everything that outlives a step.

use std::collections::VecDeque;
use std::fmt;

use rtc_json_protocol::{EndReason, RecordingState, TransferState};
use rtc_json_sip::{Challenge, Dialog, Ha1};
use serde::{Deserialize, Serialize};

use crate::challenge::{Asked, Asking, Proof};
use crate::limits::Rate;
use crate::packed::{Journal, Outcome, Outcomes};
use crate::text::Text;

/// Outcomes of requests that a session remembers, so that a retry with the same id gets the first one again.
const OUTCOMES: usize = 16;
/// Requests that a session remembers in all. Those without outcome are few: whatever may wait has a limit of its own.
const REQUESTS: usize = 64;
/// Events that a session remembers for a browser that comes back.
const JOURNAL: usize = 16;
/// Transfers that a call remembers for its record.
const PAST_TRANSFERS: usize = 8;

/// One DN with all that belongs to it: browsers, calls, registration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Agent {
    /// The directory number; also the user part of every SIP URI of this agent.
    pub dn: String,
    /// Name for From, as the last browser gave it.
    pub display_name: String,
    /// Registered browsers, oldest first.
    pub sessions: Vec<Session>,
    /// Browsers whose `register` has no outcome yet.
    pub pending: Vec<Pending>,
    /// Calls, oldest first, including those whose end the browser knows already but SIP does not.
    pub calls: Vec<Call>,
    /// Texts that browsers have sent and the far side has not answered yet.
    pub texts: Vec<Text>,
    /// The registration at the upstream registrar.
    pub upstream: Upstream,
    /// Number that the next session gets.
    pub next_session: u32,
    /// How fast its browsers begin calls.
    pub call_rate: Rate,
    /// When to look what a next hop that was silent still knows of this agent; 0 for never.
    pub look_at: u64,
    /// SIP Call-IDs that came with the last takeovers, the latest last: a former owner that comes back need not end them.
    pub brought: Vec<String>,
}

/// One browser (one WebSocket at a time, several over its life).
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    /// Number within the agent.
    pub number: u32,
    /// Secret with which the same browser resumes (128 bits).
    pub token: String,
    /// The WebSocket connection; none while the browser is away.
    pub conn: Option<i32>,
    /// The browser's address as its WebSocket shows it.
    pub addr: Option<std::net::IpAddr>,
    /// Name that this browser gave.
    pub display_name: String,
    /// It registered by answering a challenge, so it can answer others.
    pub answers: bool,
    /// When the connection was lost; 0 while there is one.
    pub detached_at: u64,
    /// Number of the first event that the browser missed, while it is away.
    pub missed_from: u64,
    /// Registration time in seconds, renewed by every message.
    pub expires: u32,
    /// When the registration ends unless the browser says something.
    pub expires_at: u64,
    /// When it is given TURN credentials anew; 0 for never.
    pub ice_renew_at: u64,
    /// Number of the next event (`evt-N`).
    pub next_event: u64,
    /// The last outcomes, in their order, and the requests that have none yet.
    pub outcomes: Outcomes,
    /// The last events that no snapshot can tell again.
    pub journal: Journal,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number)
            .field("conn", &self.conn)
            .field("detached_at", &self.detached_at)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Is a connection there?
    pub fn attached(&self) -> bool {
        self.conn.is_some()
    }

    /// Notes the outcome of a request; the oldest one is forgotten. A request that has none yet is not: it is the one that a
    /// browser asks for again.
    pub fn set_outcome(&mut self, id: &str, outcome: Outcome<'_>) {
        self.outcomes.set(id, outcome, OUTCOMES, REQUESTS);
    }

    /// Keeps an event for a browser that comes back; `older_than` drops what is too old to matter.
    pub fn remember(&mut self, event: u64, now: u64, older_than: u64, frame: &str) {
        self.forget(older_than);
        if self.journal.len() == JOURNAL {
            self.journal.remove(0);
        }
        self.journal.push(event, now, frame);
    }

    /// Drops events from before that time.
    pub fn forget(&mut self, older_than: u64) {
        while self
            .journal
            .iter()
            .next()
            .is_some_and(|(_, at, _)| at < older_than)
        {
            self.journal.remove(0);
        }
    }
}

/// A `register` under way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// Its connection.
    pub conn: i32,
    /// Address of the browser.
    pub addr: Option<std::net::IpAddr>,
    /// Id of the request.
    pub request: String,
    /// Name that the browser gave.
    pub display_name: String,
    /// Seconds that it asked for.
    pub expires: u32,
    /// The clear password, only until the realm is known: dropped with the first challenge.
    pub password: Option<String>,
    /// What is kept of it.
    pub ha1: Ha1,
    /// How the browser shows who it is.
    pub proof: Proof,
    /// CSeq of the REGISTER that is under way for it; 0 in local mode.
    pub cseq: u32,
    /// Challenges answered so far.
    pub answered: u8,
    /// Next hop that the script chose.
    pub next_hop: Option<String>,
    /// When it is given up.
    pub deadline: u64,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("conn", &self.conn)
            .field("request", &self.request)
            .field("cseq", &self.cseq)
            .finish_non_exhaustive()
    }
}

/// The agent's binding at the registrar.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Upstream {
    /// Call-ID of all its REGISTERs (RFC 3261, section 10.2).
    pub call_id: String,
    /// CSeq of the last REGISTER sent.
    pub cseq: u32,
    /// From tag of its REGISTERs.
    pub tag: String,
    /// HA1 that the registrar accepted last; also answers challenges of other requests.
    pub ha1: Ha1,
    /// The last challenge, so that a refresh need not be challenged again.
    pub challenge: Option<Challenge>,
    /// How often its nonce was used.
    pub nonce_count: u32,
    /// Is there a binding?
    pub bound: bool,
    /// When the registrar forgets it.
    pub expires_at: u64,
    /// When to send the next REGISTER; 0 for never.
    pub refresh_at: u64,
    /// CSeq of a REGISTER of the server's own (refresh or removal) that is under way; 0 for none.
    pub in_flight: u32,
    /// Challenges answered in the refresh under way.
    pub answered: u8,
    /// Challenges that a browser has to answer.
    pub asking: Asking,
    /// Is the one under way a removal?
    pub removing: bool,
    /// Next hop that the script chose for the registration.
    pub next_hop: Option<String>,
    /// `host:port` of nodes whose Contacts are taken back with the next REGISTER: the agent was there before.
    pub former: Vec<String>,
}

/// Who started a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// The browser did.
    Out,
    /// The far side did.
    In,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Out: INVITE sent, nothing but 100 heard.
    Trying,
    /// Out: 18x heard.
    Ringing,
    /// Out: the browser hung up before an answer and knows that the call is over; the INVITE still has to end.
    Cancelling,
    /// In: rings in the browsers.
    Incoming,
    /// In: 200 sent, ACK not seen yet.
    Answering,
    /// Both sides talk.
    Established,
    /// The browser knows that the call is over; BYE is owed (as soon as the ACK comes) or under way.
    Terminating,
}

impl Direction {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Out => "out",
            Direction::In => "in",
        }
    }
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Trying => "trying",
            State::Ringing => "ringing",
            State::Cancelling => "cancelling",
            State::Incoming => "incoming",
            State::Answering => "answering",
            State::Established => "established",
            State::Terminating => "terminating",
        }
    }

    /// Is the call alive for the browser?
    pub fn live(self) -> bool {
        !matches!(self, State::Cancelling | State::Terminating)
    }
}

/// A server transaction that tm holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTx {
    /// Index in tm's table.
    pub index: u32,
    /// Label in that entry.
    pub label: u32,
}

/// One call, as browsers know it. What SIP knows of it is in its [`Leg`], which another call can take over: a call that is
/// transferred to another far side keeps its `callId` and gets another leg.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The `callId` of the protocol.
    pub id: String,
    /// Who started it.
    pub direction: Direction,
    /// Where it stands.
    pub state: State,
    /// No call of its own: it carries a new leg to the call with that id, or the old one away from it. Browsers are told nothing.
    pub moves: Option<String>,
    /// The session that has the media; none while it rings in all of them.
    pub session: Option<u32>,
    /// Number of the far side.
    pub peer: String,
    /// Its name, if it has one.
    pub peer_name: Option<String>,
    /// The number that was called (in) or that calls (out): the agent's side.
    pub own: String,
    /// Id of the browser's `call`.
    pub request: Option<String>,
    /// Does this side hold?
    pub hold: bool,
    /// Is the far side holding?
    pub remote_hold: bool,
    /// Is the microphone muted, as the browser said?
    pub muted: bool,
    /// The recording, once it was asked for.
    pub recording: Option<RecordingState>,
    /// The `recording` under way: its request, and what comes of it.
    pub record: Option<(String, RecordingState)>,
    /// Changes of the description that wait for their turn.
    pub wants: VecDeque<Want>,
    /// Digits that wait; those of the first entry are being sent.
    pub digits: VecDeque<Digits>,
    /// The far side is being sent elsewhere.
    pub transfer: Option<Transfer>,
    /// This call is getting another far side.
    pub moving: Option<Moving>,
    /// The room that this call leads to.
    pub conference: Option<Conference>,
    /// How it was sent, or led, to other far sides, for its record: the latest few, oldest first.
    pub transfers: VecDeque<PastTransfer>,
    /// The far side that it began with, once there is another.
    pub first_peer: Option<String>,
    /// The SIP side.
    pub leg: Leg,
    /// When it began.
    pub started_at: u64,
    /// First 18x (out), 0 for none.
    pub ringing_at: u64,
    /// Answer, 0 for none.
    pub answered_at: u64,
    /// Unix time of the beginning, milliseconds.
    pub started_unix: u64,
    /// When the state ends by itself; 0 for never.
    pub deadline: u64,
    /// How it ended, once the browser knows.
    pub end: Option<EndReason>,
}

/// The SIP side of a call: one dialog and all that is under way in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// Names it in [`Handle`](crate::Handle); goes where the leg goes.
    pub key: String,
    /// Is the Call-ID ours, because we began it?
    pub ours: bool,
    /// SIP dialog. Outbound, before the answer: remote tag empty.
    pub dialog: Dialog,
    /// CSeq of the INVITE that began it (ours).
    pub invite_cseq: u32,
    /// Has any provisional reply come? Only then a CANCEL may be sent (RFC 3261, section 9.1).
    pub provisional: bool,
    /// CANCEL was sent or is owed.
    pub cancel: Owed,
    /// BYE was sent or is owed.
    pub bye: Owed,
    /// The far side has ended the dialog, and the call waits for its next one.
    pub gone: bool,
    /// Challenges answered so far for the INVITE under way.
    pub answered: u8,
    /// The challenge that the browser was asked to answer before the INVITE can go on.
    pub asked: Option<Asked>,
    /// The INVITE (initial or later) of the far side that waits for our answer.
    pub invite_tx: Option<ServerTx>,
    /// CSeq of the last INVITE of the far side that was taken; its ACK has the same (RFC 3261, section 13.2.2.4).
    pub far_invite: u32,
    /// The INVITE of the far side had no offer.
    pub offerless: bool,
    /// A 200 to an INVITE in the dialog waits for its ACK until then; 0 for none.
    pub ack_by: u64,
    /// That ACK brings the answer to our offer.
    pub answer_in_ack: bool,
    /// Last SDP that went to the SIP side; every later one repeats its candidate lines and address.
    pub local_sdp: String,
    /// Last SDP from the SIP side, as the browser gets it.
    pub remote_sdp: String,
    /// Does the far side take candidates in INFO (RFC 8840)? Known once it has said what it supports.
    pub trickle: Option<bool>,
    /// Does it take UPDATE (RFC 3311)?
    pub takes_update: bool,
    /// Does it take Replaces (RFC 3891)?
    pub takes_replaces: bool,
    /// Has it asserted who is at its end (RFC 3325)?
    pub asserts: bool,
    /// A transfer has failed, and the refresh that follows shows whether anybody is left there.
    pub doubtful: bool,
    /// Candidates of the browser that could not be sent yet; an empty one is the end of them.
    pub candidates: Vec<String>,
    /// Next hop that the script chose.
    pub next_hop: Option<String>,
    /// Header lines for the INVITE that the browser asked for.
    pub headers: String,
    /// Requests in the dialog that have no final reply yet.
    pub sent: Vec<Sent>,
    /// Our last offer, if it was refused: what comes next is told from it (RFC 3264, section 8).
    pub refused: String,
    /// The description that we have offered.
    pub open: Option<Open>,
    /// How often it was refused with 491.
    pub glares: u8,
    /// How often its BYE could not be sent.
    pub unsent_byes: u8,
    /// Not before then may the next one be offered (RFC 3261, section 14.1, after a 491).
    pub offer_after: u64,
    /// The offer of the far side that the browser has to answer.
    pub far_offer: Option<FarOffer>,
    /// Session timer (RFC 4028).
    pub timer: Option<Timer>,
    /// Shortest session interval that the far side takes; raised by its 422.
    pub min_se: u32,
    /// Our 18x that has to be confirmed (RFC 3262).
    pub reliable: Option<Reliable>,
    /// RSeq of the last reliable 18x of each early dialog, by its tag.
    pub rseq: Vec<(String, u32)>,
    /// Addresses that the far side named in a 3xx and that were not tried yet, best first.
    pub targets: Vec<String>,
    /// How many were taken so far.
    pub redirects: usize,
}

/// A change of the description that waits until an offer may be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// `hold`.
    Hold {
        /// Id of the request.
        request: String,
        /// On or off.
        hold: bool,
    },
    /// `update`.
    Update {
        /// Id of the request.
        request: String,
        /// The browser's offer, filtered.
        sdp: String,
    },
    /// The session timer wants a refresh.
    Refresh,
    /// Candidates for a far side that takes them in UPDATE.
    Candidates,
}

/// An offer of ours that has no answer yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Open {
    /// What it is for.
    pub want: Want,
    /// The description; empty for a refresh without one.
    pub sdp: String,
}

/// An offer of the far side (or its wish for one) that waits for the browser.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FarOffer {
    /// The re-INVITE.
    pub tx: ServerTx,
    /// The offer; empty when the far side wants one of the browser.
    pub sdp: String,
    /// Its session timer header lines, for the 200.
    pub headers: String,
    /// When the far side is refused.
    pub deadline: u64,
}

/// A request in a dialog that waits for its final reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// Its CSeq; another one after a challenge.
    pub cseq: u32,
    /// What it is for.
    pub purpose: InDialog,
    /// Header lines.
    pub headers: String,
    /// Body.
    pub body: String,
    /// Challenges answered so far.
    pub answered: u8,
    /// The challenge that the browser was asked to answer.
    pub asked: Option<Asked>,
}

/// What a request in a dialog is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InDialog {
    /// BYE.
    Bye,
    /// INFO with ICE candidates.
    Trickle,
    /// Re-INVITE with the open offer.
    Reinvite,
    /// UPDATE with the open offer, or as refresh.
    Update,
    /// INFO with a digit.
    Digit,
    /// INFO that steers the recording.
    Record,
    /// REFER.
    Refer,
    /// NOTIFY about a REFER of the far side.
    Notify,
    /// PRACK.
    Prack,
    /// OPTIONS, to see whether the far side still knows the dialog.
    Look,
}

impl InDialog {
    /// Its method.
    pub fn method(self) -> &'static str {
        match self {
            InDialog::Bye => "BYE",
            InDialog::Trickle | InDialog::Digit | InDialog::Record => "INFO",
            InDialog::Reinvite => "INVITE",
            InDialog::Update => "UPDATE",
            InDialog::Refer => "REFER",
            InDialog::Notify => "NOTIFY",
            InDialog::Prack => "PRACK",
            InDialog::Look => "OPTIONS",
        }
    }
}

/// Digits of one `dtmf`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Digits {
    /// Id of the request.
    pub request: String,
    /// Those not sent yet.
    pub rest: String,
    /// Milliseconds of each.
    pub duration: u32,
}

/// A REFER of ours and what comes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transfer {
    /// Id of the `transfer`, until the far side has taken or refused it.
    pub request: Option<String>,
    /// The other call of an attended transfer.
    pub with: Option<String>,
    /// The call whose room the far side is sent to.
    pub conference: Option<String>,
    /// How far it is.
    pub state: Option<TransferState>,
    /// Tries left when the far side is not ready yet.
    pub tries: u8,
    /// When to try again; 0 for never.
    pub retry_at: u64,
    /// When it counts as failed.
    pub deadline: u64,
}

/// How a call came to another far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferKind {
    /// The browser sent the far side to a number.
    Blind,
    /// The browser joined the far sides of two calls.
    Attended,
    /// The far side sent this side to another (REFER).
    Refer,
    /// Another took the far side's place (INVITE with Replaces).
    Replaces,
    /// Into a room.
    Conference,
}

impl TransferKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TransferKind::Blind => "blind",
            TransferKind::Attended => "attended",
            TransferKind::Refer => "refer",
            TransferKind::Replaces => "replaces",
            TransferKind::Conference => "conference",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferResult {
    /// Nothing yet; in a record: nobody ever said.
    Open,
    /// It is there.
    Completed,
    /// It is not.
    Failed,
}

impl TransferResult {
    /// The word for it, in a record.
    pub fn as_str(self) -> &'static str {
        match self {
            TransferResult::Open => "unknown",
            TransferResult::Completed => "completed",
            TransferResult::Failed => "failed",
        }
    }
}

/// A transfer, for the record of its call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastTransfer {
    /// How.
    pub kind: TransferKind,
    /// Number of the new far side, or name of the room.
    pub to: String,
    /// Milliseconds from the beginning of the call.
    pub after: u64,
    /// What came of it.
    pub result: TransferResult,
    /// SIP status of the failure; 0 for none.
    pub code: u16,
    /// SIP Call-ID of the dialog in which it began.
    pub sip_call_id: String,
}

/// A call gets another far side: the browser is asked for a new offer, or to answer the one of the new far side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moving {
    /// Request-URI of the new far side; empty where it calls us.
    pub target: String,
    /// Header lines of the INVITE to it (Replaces, Referred-By).
    pub headers: String,
    /// Does the far side that referred us want to know?
    pub notify: bool,
    /// The browser's own `update` that needs a new dialog with the same far side. Then nobody is asked anything.
    pub update: Option<Want>,
    /// Where else such a new dialog may begin, the next one last.
    pub others: Vec<String>,
    /// Number and name of the new far side.
    pub remote: (String, Option<String>),
    /// Key of the new leg, once there is one.
    pub leg: Option<String>,
    /// When it is given up.
    pub deadline: u64,
}

/// A conference room at the media server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conference {
    /// Its name.
    pub room: String,
    /// Calls whose far sides are in it.
    pub joined: Vec<String>,
    /// Legs whose far sides are on their way.
    pub waiting: Vec<String>,
    /// Was it told active?
    pub active: bool,
}

/// Session timer (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Session interval, seconds.
    pub interval: u32,
    /// Is it us who refresh?
    pub ours: bool,
    /// When to refresh, or when the session counts as dead.
    pub at: u64,
    /// When it is dead in any case.
    pub dead_at: u64,
}

/// A reliable 18x of ours (RFC 3262).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reliable {
    /// Its RSeq.
    pub rseq: u32,
    /// When it is sent again.
    pub next: u64,
    /// The wait after that.
    pub interval: u64,
    /// When the INVITE is given up.
    pub until: u64,
}

impl Leg {
    /// A leg in whose dialog nothing has happened yet.
    pub fn new(key: &str, dialog: Dialog) -> Self {
        Leg {
            key: key.to_owned(),
            ours: false,
            dialog,
            invite_cseq: 0,
            provisional: false,
            cancel: Owed::No,
            bye: Owed::No,
            gone: false,
            answered: 0,
            asked: None,
            invite_tx: None,
            far_invite: 0,
            offerless: false,
            ack_by: 0,
            answer_in_ack: false,
            local_sdp: String::new(),
            remote_sdp: String::new(),
            trickle: None,
            takes_update: false,
            takes_replaces: false,
            asserts: false,
            doubtful: false,
            candidates: Vec::new(),
            next_hop: None,
            headers: String::new(),
            sent: Vec::new(),
            refused: String::new(),
            open: None,
            glares: 0,
            unsent_byes: 0,
            offer_after: 0,
            far_offer: None,
            timer: None,
            min_se: 0,
            reliable: None,
            rseq: Vec::new(),
            targets: Vec::new(),
            redirects: 0,
        }
    }

    /// The INVITE that began it was refused: its early dialogs are gone, and with them what was under way there.
    pub fn forget_early(&mut self) {
        self.rseq.clear();
        self.sent.clear();
    }

    /// When something has to be done for it; `u64::MAX` for never. `offers`: something waits to be offered.
    fn due(&self, offers: bool) -> u64 {
        [
            self.ack_by,
            if offers { self.offer_after } else { 0 },
            self.far_offer.as_ref().map_or(0, |o| o.deadline),
            self.timer.map_or(0, |t| t.at),
            self.reliable.map_or(0, |r| r.next),
        ]
        .into_iter()
        .chain(
            self.sent
                .iter()
                .filter_map(|s| s.asked.as_ref())
                .map(|a| a.deadline),
        )
        .filter(|at| *at != 0)
        .min()
        .unwrap_or(u64::MAX)
    }
}

impl Call {
    /// A call that begins now.
    pub fn new(id: &str, direction: Direction, mut leg: Leg, now: u64, unix_now: u64) -> Self {
        leg.ours = direction == Direction::Out;
        Call {
            id: id.to_owned(),
            direction,
            state: match direction {
                Direction::Out => State::Trying,
                Direction::In => State::Incoming,
            },
            moves: None,
            session: None,
            peer: String::new(),
            peer_name: None,
            own: String::new(),
            request: None,
            hold: false,
            remote_hold: false,
            muted: false,
            recording: None,
            record: None,
            wants: VecDeque::new(),
            digits: VecDeque::new(),
            transfer: None,
            moving: None,
            conference: None,
            transfers: VecDeque::new(),
            first_peer: None,
            leg,
            started_at: now,
            ringing_at: 0,
            answered_at: 0,
            started_unix: unix_now,
            deadline: 0,
            end: None,
        }
    }

    /// Who calls whom, `dn` being the agent's number.
    pub fn parties<'c>(&'c self, dn: &'c str) -> (&'c str, &'c str) {
        match self.direction {
            Direction::Out => (dn, &self.peer),
            Direction::In => (&self.peer, &self.own),
        }
    }

    /// Notes for the record that it is being sent, or led, to another far side.
    pub fn note_transfer(&mut self, kind: TransferKind, to: &str, now: u64) {
        if self.transfers.len() == PAST_TRANSFERS {
            self.transfers.pop_front();
        }
        self.transfers.push_back(PastTransfer {
            kind,
            to: to.to_owned(),
            after: now.saturating_sub(self.started_at),
            result: TransferResult::Open,
            code: 0,
            sip_call_id: self.leg.dialog.call_id.clone(),
        });
    }

    /// Notes what came of it; `code`: the SIP status of a failure, or 0.
    pub fn note_transfer_end(&mut self, result: TransferResult, code: u16) {
        let last = self.transfers.back_mut();
        if let Some(last) = last.filter(|last| last.result == TransferResult::Open) {
            last.result = result;
            last.code = code;
        }
    }

    /// Is it a call that browsers know, and alive?
    pub fn live(&self) -> bool {
        self.state.live() && self.moves.is_none()
    }

    /// Does the dialog allow an offer of ours, apart from the pause after a 491?
    pub fn may_offer(&self) -> bool {
        self.state == State::Established
            && !self.leg.gone
            && self.leg.open.is_none()
            && self.leg.far_offer.is_none()
            && self.leg.ack_by == 0
            && self.moving.is_none()
    }

    /// Has one side ended the dialog? Nothing but a BYE may follow in it.
    pub fn closing(&self) -> bool {
        self.state == State::Terminating || self.leg.gone
    }

    /// When the next timer of this call runs out; `u64::MAX` for never.
    fn due(&self) -> u64 {
        let transfer = self.transfer.as_ref();
        // what else holds an offer back has an end of its own, and that lets it go
        let offers = !self.wants.is_empty() && self.may_offer();
        [
            self.deadline,
            transfer.map_or(0, |t| t.deadline),
            transfer.map_or(0, |t| t.retry_at),
            self.moving.as_ref().map_or(0, |m| m.deadline),
        ]
        .into_iter()
        .filter(|at| *at != 0)
        .chain([self.leg.due(offers)])
        .min()
        .unwrap_or(u64::MAX)
    }
}

/// A request that may have to wait before it can be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owed {
    /// Not wanted.
    #[default]
    No,
    /// Wanted, not allowed yet.
    Waiting,
    /// Sent.
    Sent,
}

impl Agent {
    /// A new, empty record.
    pub fn new(dn: &str) -> Self {
        Agent {
            dn: dn.to_owned(),
            next_session: 1,
            ..Agent::default()
        }
    }

    /// Reads a record from the arena.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are not a record of this version.
    pub fn decode(record: &[u8]) -> Result<Self, RecordError> {
        postcard::from_bytes(record).map_err(|_| RecordError)
    }

    /// Writes the record for the arena, into a buffer that can be used again.
    ///
    /// # Errors
    /// [`RecordError`] when it cannot be encoded.
    pub fn encode(&self, buffer: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        postcard::to_extend(self, buffer).map_err(|_| RecordError)
    }

    /// Is there nothing left worth keeping?
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.pending.is_empty()
            && self.calls.is_empty()
            && !self.upstream.bound
            && self.upstream.in_flight == 0
    }

    /// Has nobody been let in yet? The record is that of a try.
    pub fn is_unknown(&self) -> bool {
        self.sessions.is_empty() && self.calls.is_empty()
    }

    /// The session on a connection.
    pub fn session_on(&self, conn: i32) -> Option<usize> {
        self.sessions.iter().position(|s| s.conn == Some(conn))
    }

    /// The session with a number.
    pub fn session(&self, number: u32) -> Option<usize> {
        self.sessions.iter().position(|s| s.number == number)
    }

    /// Calls that the browsers know of.
    pub fn live_calls(&self) -> usize {
        self.calls.iter().filter(|c| c.live()).count()
    }

    /// When the next timer of this record runs out; `u64::MAX` for never.
    pub fn due(&self, resume_grace: u64) -> u64 {
        let sessions = self
            .sessions
            .iter()
            .map(|s| match (s.attached(), s.ice_renew_at) {
                (false, _) => s.detached_at + resume_grace,
                (true, 0) => s.expires_at,
                (true, renew_at) => s.expires_at.min(renew_at),
            });
        let calls = self.calls.iter().map(Call::due);
        let pending = self.pending.iter().map(|p| p.deadline);
        // the next REGISTER goes out with the reply to the one under way
        let registering = self.upstream.in_flight != 0 || self.pending.iter().any(|p| p.cseq != 0);
        let refresh = Some(self.upstream.refresh_at).filter(|at| *at != 0 && !registering);
        let texts = self.texts.iter().map(|t| t.deadline);
        sessions
            .chain(calls)
            .chain(pending)
            .chain(texts)
            .chain(self.upstream.asking.due())
            .chain(refresh)
            .chain(Some(self.look_at).filter(|at| *at != 0))
            .min()
            .unwrap_or(u64::MAX)
    }
}

/// The bytes are not a record of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a record of an agent")]
pub struct RecordError;
