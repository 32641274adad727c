//! One step: the working set, the dispatch, and what goes to the browsers.

use rand_core::RngCore;
use rtc_json_protocol::{self as protocol, ServerMessage};

use crate::config::Config;
use crate::io::{CallRecord, Counter, Input, Output};
use crate::model::{Agent, Call, Direction};
use crate::packed::Outcome;

/// Alphabet of ids and tags: 64 letters that need no escape in a SIP token or URI.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a step may know beside the agent: settings, time, entropy.
pub struct Env<'a> {
    /// Settings.
    pub config: &'a Config,
    /// Milliseconds of a clock that never jumps and outlives a restart of Kamailio (CLOCK_BOOTTIME).
    pub now: u64,
    /// Unix time in milliseconds, for records only.
    pub unix_now: u64,
    /// Is the server to become empty? Then no call and no session begins.
    pub draining: bool,
    /// Is the next hop known to be silent? Browsers are told, and nothing else follows from it.
    pub unreachable: bool,
    /// Source of entropy; must be fit for secrets.
    pub rng: &'a mut dyn RngCore,
}

/// Lets one thing happen to an agent. The record is changed in place; what has to be done comes back in its order.
///
/// The caller commits the record before it does anything of it, and commits nothing if this panics.
pub fn step(agent: &mut Agent, input: Input<'_>, env: &mut Env<'_>) -> Vec<Output> {
    let mut step = Step {
        agent,
        config: env.config,
        now: env.now,
        unix_now: env.unix_now,
        draining: env.draining,
        unreachable: env.unreachable,
        rng: env.rng,
        out: Vec::with_capacity(4),
    };
    match input {
        Input::Message {
            conn,
            addr,
            request,
            next_hop,
            token,
        } => step.on_message(conn, addr, request, next_hop, token),
        Input::Refused {
            conn,
            request,
            code,
            reason,
        } => step.on_refused(conn, request, code, reason),
        Input::Closed { conn } => step.on_closed(conn),
        Input::Unsent { conn, text } => step.on_unsent(conn, &text),
        Input::Ha1 { conn, found } => step.on_ha1(conn, found),
        Input::SipRequest {
            message,
            user,
            tx,
            src,
        } => step.on_sip_request(message, user, tx, src),
        Input::SipReply {
            handle,
            code,
            message,
        } => step.on_sip_reply(handle, code, message),
        Input::NotSent { handle } => step.on_not_sent(handle),
        Input::NotReplied { tx } => step.on_not_replied(tx),
        Input::HangUp { call } => step.on_operator_hangup(&call),
        Input::Draining => step.on_draining(),
        Input::NextHop => step.on_next_hop(),
        Input::Tick => step.on_tick(),
        Input::Restarted => step.on_restarted(),
        Input::TakenOver { former } => step.on_taken_over(former),
        Input::Yielded { to, theirs } => step.on_yielded(&to, &theirs),
        Input::Ended { call } => step.on_ended_elsewhere(&call),
        Input::Orphaned { former } => step.on_orphaned(former),
        Input::Claimed => step.on_claimed(),
    }
    step.out
}

/// The working set of one step.
pub(crate) struct Step<'s> {
    pub agent: &'s mut Agent,
    pub config: &'s Config,
    pub now: u64,
    pub unix_now: u64,
    pub draining: bool,
    pub unreachable: bool,
    pub rng: &'s mut dyn RngCore,
    pub out: Vec<Output>,
}

/// An `error` message in the making.
pub(crate) struct Failure<'f> {
    pub code: u16,
    pub message: &'f str,
    pub details: &'f str,
    pub call: Option<&'f str>,
    pub cause: Option<u16>,
    pub retryable: bool,
    /// Milliseconds.
    pub retry_after: Option<u64>,
}

impl<'f> Failure<'f> {
    pub fn new(code: u16, message: &'f str, details: &'f str) -> Self {
        Failure {
            code,
            message,
            details,
            call: None,
            cause: None,
            retryable: matches!(code, 408 | 429 | 480 | 500 | 503 | 504),
            retry_after: None,
        }
    }

    pub fn of_call(self, call: &'f str) -> Self {
        Failure {
            call: Some(call),
            ..self
        }
    }

    pub fn to_message(&self, request: &str) -> ServerMessage {
        ServerMessage::Error {
            message: self.message.to_owned(),
            code: self.code,
            details: Some(self.details.to_owned()).filter(|d| !d.is_empty()),
            call_id: self.call.map(str::to_owned),
            request: Some(request.to_owned()),
            cause: self.cause,
            retryable: self.retryable.then_some(true),
            retry_after: self.retry_after.map(|ms| ms.div_ceil(1000)),
        }
    }
}

impl Step<'_> {
    /// A random text of `len` letters, at most 32, six bits each but for the first: that is one of 32 letters, so that
    /// no id looks like an option on a command line.
    pub fn random_text(&mut self, len: usize) -> String {
        let mut bytes = [0u8; 32];
        let bytes = &mut bytes[..len.min(32)];
        self.rng.fill_bytes(bytes);
        if let Some(first) = bytes.first_mut() {
            *first &= 31;
        }
        let letters = bytes
            .iter()
            .map(|b| char::from(ALPHABET[usize::from(b & 63)]));
        let mut text = String::with_capacity(len);
        text.extend(letters);
        text
    }

    /// Sends the outcome of a request and remembers it for a retry.
    pub fn outcome(&mut self, session: usize, request: &str, message: &ServerMessage) {
        let text = protocol::encode(message, request);
        let s = &mut self.agent.sessions[session];
        let conn = s.conn;
        match message {
            // the answer is large and stands in the call anyway
            ServerMessage::CallAccepted { call_id, .. } => {
                s.set_outcome(request, Outcome::Accepted(call_id));
            }
            _ => s.set_outcome(request, Outcome::Frame(&text)),
        }
        if let Some(conn) = conn {
            self.out.push(Output::Frame { conn, text });
        }
    }

    /// Sends something that is neither an outcome to remember nor an event, under the id of a request.
    pub fn note(&mut self, session: usize, request: &str, message: &ServerMessage) {
        if let Some(conn) = self.agent.sessions[session].conn {
            self.out.push(Output::Frame {
                conn,
                text: protocol::encode(message, request),
            });
        }
    }

    /// Sends an `error` as the outcome of a request.
    pub fn refuse(&mut self, session: usize, request: &str, failure: &Failure<'_>) {
        self.out.push(Output::Count(Counter::Errors));
        self.outcome(session, request, &failure.to_message(request));
    }

    /// Sends an event under the session's next number.
    pub fn event(&mut self, session: usize, message: &ServerMessage) {
        let s = &mut self.agent.sessions[session];
        let number = s.next_event;
        s.next_event += 1;
        let text = protocol::encode(message, &format!("evt-{number}"));
        // all else a snapshot of the calls, or the repeated offer, tells again
        let kept = matches!(
            message,
            ServerMessage::CallEnded { .. }
                | ServerMessage::CallUpdated {
                    sdp: Some(_),
                    answer_needed: None,
                    ..
                }
                | ServerMessage::CallUpdated {
                    answer_needed: Some(false),
                    ..
                }
        );
        if kept {
            let older_than = self.now.saturating_sub(2 * self.config.resume_grace);
            s.remember(number, self.now, older_than, &text);
        }
        if let Some(conn) = s.conn {
            self.out.push(Output::Frame { conn, text });
        }
    }

    /// Sends an event to every session that a call concerns: its own, or all while it rings in all. Of a hidden call nobody is
    /// told.
    pub fn event_of_call(&mut self, call: usize, message: &ServerMessage) {
        if self.agent.calls[call].moves.is_some() {
            return;
        }
        match self.agent.calls[call].session {
            Some(number) => {
                if let Some(session) = self.agent.session(number) {
                    self.event(session, message);
                }
            }
            None => {
                for session in 0..self.agent.sessions.len() {
                    self.event(session, message);
                }
            }
        }
    }

    /// What is left of a call for its record.
    pub fn record(&self, call: &Call, end: &crate::call::End) -> CallRecord {
        // whom it was begun with: whom it led to later is told by its transfers
        let peer = call.first_peer.as_deref().unwrap_or(&call.peer);
        let (from, to) = match call.direction {
            Direction::Out => (self.agent.dn.as_str(), peer),
            Direction::In => (peer, call.own.as_str()),
        };
        let since = |at: u64| at.saturating_sub(call.started_at);
        CallRecord {
            id: call.id.clone(),
            sip_call_id: call.leg.dialog.call_id.clone(),
            dn: self.agent.dn.clone(),
            direction: call.direction,
            from: from.to_owned(),
            to: to.to_owned(),
            reason: end.reason,
            code: end.code,
            cause: end.cause,
            started: call.started_unix,
            duration: call.duration(self.now),
            answered: call.answered_at != 0,
            ring_after: since(call.ringing_at),
            answer_after: since(call.answered_at),
            recorded: call.recording.is_some(),
            transfers: call.transfers.iter().cloned().collect(),
        }
    }
}
