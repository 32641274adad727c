//! What both kinds of call share: how they end, and the timers.

use rtc_json_protocol::{CallSnapshot, EndReason, ServerMessage, Timings};
use rtc_json_sip::Dialog;

use crate::io::{Counter, Handle, Output, SipRequest};
use crate::model::{Call, InDialog, Owed, ServerTx, State, TransferResult};
use crate::step::{Failure, Step};

/// 64*T1 (RFC 3261, section 17.1.1.2): how long a 200 waits for its ACK.
pub(crate) const ACK_WAIT: u64 = 32_000;
/// By then tm has ended every transaction of ours, answered or not; only a lost one is still waited for.
pub(crate) const SAFETY_WAIT: u64 = 200_000;

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub reason: EndReason,
    /// SIP status; 0 for none.
    pub code: u16,
    /// Q.850 cause; 0 for none.
    pub cause: u16,
}

impl End {
    pub fn new(reason: EndReason) -> Self {
        End {
            reason,
            code: 0,
            cause: 0,
        }
    }

    pub fn with_code(reason: EndReason, code: u16) -> Self {
        End {
            reason,
            code,
            cause: 0,
        }
    }
}

/// A request in a dialog, with the dialog's own CSeq; `headers` are lines, each ended by CRLF.
pub(crate) fn in_dialog(
    dialog: &Dialog,
    method: &'static str,
    headers: &str,
    body: String,
    handle: Handle,
) -> SipRequest {
    SipRequest {
        method,
        uri: dialog.request_uri().to_owned(),
        from: dialog.local_uri.clone(),
        from_tag: dialog.local_tag.clone(),
        to: dialog.remote_uri.clone(),
        to_tag: dialog.remote_tag.clone(),
        call_id: dialog.call_id.clone(),
        cseq: dialog.local_cseq,
        next_hop: dialog.next_hop().to_owned(),
        headers: format!("{}{headers}", dialog.route_headers()),
        body,
        handle,
    }
}

impl Call {
    /// Whole seconds since the answer; 0 if there was none.
    pub fn duration(&self, now: u64) -> u64 {
        match self.answered_at {
            0 => 0,
            at => now.saturating_sub(at) / 1000,
        }
    }
}

impl Step<'_> {
    /// The call with that id, if the browsers know of it.
    pub fn live_call(&self, id: &str) -> Option<usize> {
        self.agent.calls.iter().position(|c| c.id == id && c.live())
    }

    /// Takes a call back on the SIP side, as its state demands. The browsers are not told here. The call may be gone
    /// afterwards, so its index is no longer valid.
    ///
    /// `reject`: status for a call that still rings here.
    pub fn release(&mut self, call: usize, reject: u16) {
        let c = &mut self.agent.calls[call];
        match c.state {
            // its INVITE was refused, and the next one waits for the browser
            State::Trying | State::Ringing if c.leg.asked.is_some() => {
                self.agent.calls.remove(call);
            }
            State::Trying | State::Ringing => {
                c.state = State::Cancelling;
                c.deadline = self.now + SAFETY_WAIT;
                if c.leg.provisional {
                    // RFC 3261, section 9.1: 64*T1 after the CANCEL the INVITE counts as cancelled
                    c.deadline = self.now + ACK_WAIT;
                    c.leg.cancel = Owed::Sent;
                    let (call_id, cseq) = (c.leg.dialog.call_id.clone(), c.leg.invite_cseq);
                    self.out.push(Output::Cancel { call_id, cseq });
                } else {
                    c.leg.cancel = Owed::Waiting;
                }
            }
            State::Incoming => {
                let tag = c.leg.dialog.local_tag.clone();
                if let Some(tx) = c.leg.invite_tx.take() {
                    self.reply(tx, true, reject, &tag, String::new(), String::new());
                }
                self.agent.calls.remove(call);
            }
            State::Answering => {
                // RFC 3261, section 15: the callee sends no BYE before the ACK
                c.state = State::Terminating;
                c.leg.bye = Owed::Waiting;
            }
            State::Established => {
                if let Some(far) = c.leg.far_offer.take() {
                    self.reply(far.tx, true, 487, "", String::new(), String::new());
                }
                self.send_bye(call);
            }
            State::Cancelling | State::Terminating => {}
        }
    }

    /// Tells the browsers that a call is over and hands its record out. The call itself stays where it is.
    ///
    /// `by`: session and request that asked for it, if one did.
    pub fn tell_end(&mut self, call: usize, end: End, by: Option<(usize, &str)>) {
        self.drop_wants(call);
        self.drop_controls(call);
        self.drop_transfer(call);
        let c = &mut self.agent.calls[call];
        if c.moving.is_some() {
            // nobody will reach the new far side any more
            c.note_transfer_end(TransferResult::Failed, 487);
        }
        let c = &self.agent.calls[call];
        let answered = c.answered_at != 0;
        let message = self.ended_message(c, &end);
        let id = c.id.clone();
        let record = self.record(c, &end);
        if !answered {
            if let (Some(request), Some(owner)) = (c.request.clone(), self.owner(call)) {
                let failure = Failure {
                    cause: Some(end.cause).filter(|c| *c != 0),
                    ..Failure::new(
                        if end.code == 0 { 487 } else { end.code },
                        rtc_json_sip::reason_phrase(if end.code == 0 { 487 } else { end.code }),
                        end.reason.as_str(),
                    )
                }
                .of_call(&id);
                self.refuse(owner, &request, &failure);
            }
        }
        let told: Vec<usize> = match self.agent.calls[call].session {
            Some(_) => self.owner(call).into_iter().collect(),
            None => (0..self.agent.sessions.len()).collect(),
        };
        for session in told {
            if by.is_none_or(|(asking, _)| asking != session) {
                self.event(session, &message);
            }
        }
        if let Some((session, request)) = by {
            self.outcome(session, request, &message);
        }
        self.agent.calls[call].end = Some(end.reason);
        self.out.push(Output::CallEnded(Box::new(record)));
        if !answered {
            self.out.push(Output::Count(Counter::CallsFailed));
        }
    }

    /// Ends a call on both sides.
    pub fn hang_up(&mut self, call: usize, end: End, reject: u16, by: Option<(usize, &str)>) {
        let key = self.agent.calls[call].leg.key.clone();
        if self.agent.calls[call].live() {
            self.tell_end(call, end, by);
            // takes another call out of the list, maybe
            self.drop_moving(call);
        }
        if let Some(call) = self.agent.calls.iter().position(|c| c.leg.key == key) {
            self.release(call, reject);
        }
    }

    /// The call failed or was ended by the far side: nothing is left to do in SIP.
    pub fn finish(&mut self, call: usize, end: End) {
        let key = self.agent.calls[call].leg.key.clone();
        if let Some(far) = self.agent.calls[call].leg.far_offer.take() {
            // RFC 3261, section 15.1.2
            self.reply(far.tx, true, 487, "", String::new(), String::new());
        }
        if self.agent.calls[call].live() {
            self.tell_end(call, end, None);
            self.drop_moving(call);
        } else {
            self.drop_transfer(call);
        }
        self.agent.calls.retain(|c| c.leg.key != key);
    }

    /// The session that has the call.
    pub fn owner(&self, call: usize) -> Option<usize> {
        self.agent.calls[call]
            .session
            .and_then(|number| self.agent.session(number))
    }

    /// Sends BYE and waits for its answer; not before the ACK to our last 200 has come, or comes no more (RFC 3261, section 15).
    /// Where the far side has ended the dialog already, the call is just gone.
    pub fn send_bye(&mut self, call: usize) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        if c.leg.gone {
            self.agent.calls.remove(call);
            return;
        }
        if c.state == State::Terminating && c.leg.bye == Owed::Sent {
            return;
        }
        c.state = State::Terminating;
        c.leg.timer = None;
        if c.leg.ack_by > now {
            c.leg.bye = Owed::Waiting;
            c.deadline = c.leg.ack_by;
            return;
        }
        c.leg.bye = Owed::Sent;
        c.leg.ack_by = 0;
        c.deadline = now + SAFETY_WAIT;
        self.send_in_dialog(call, InDialog::Bye, String::new(), String::new());
    }

    /// Answers a request that tm holds.
    pub fn reply(
        &mut self,
        tx: ServerTx,
        invite: bool,
        code: u16,
        to_tag: &str,
        headers: String,
        body: String,
    ) {
        self.out.push(Output::Reply(crate::io::SipReply {
            tx,
            invite,
            code,
            reason: rtc_json_sip::reason_phrase(code),
            to_tag: to_tag.to_owned(),
            headers,
            body,
        }));
    }

    /// What a browser that comes back has to know of a call.
    pub fn snapshot(&self, session: u32) -> Vec<CallSnapshot> {
        self.agent
            .calls
            .iter()
            .filter(|c| c.live() && c.session.is_none_or(|owner| owner == session))
            .map(|c| CallSnapshot {
                call_id: c.id.clone(),
                direction: c.direction.as_str(),
                state: match c.state {
                    State::Trying => "trying",
                    State::Ringing if c.leg.remote_sdp.is_empty() => "ringing",
                    State::Ringing => "early",
                    State::Incoming => "incoming",
                    _ => "established",
                },
                from: c.parties(&self.agent.dn).0.to_owned(),
                to: c.parties(&self.agent.dn).1.to_owned(),
                display_name: c.peer_name.clone(),
                sdp: Some(c.leg.remote_sdp.clone())
                    .filter(|s| !s.is_empty())
                    .map(crate::offer::shown),
                hold: c.hold,
                remote_hold: c.remote_hold,
                muted: c.muted,
                recording: c.recording,
                since: c.duration(self.now),
                request: c.request.clone(),
            })
            .collect()
    }

    /// What the time did to the calls.
    pub fn tick_calls(&mut self) {
        let keys: Vec<String> = self.agent.calls.iter().map(|c| c.leg.key.clone()).collect();
        for key in keys {
            // each of these may end the call
            for look in [
                Self::tick_state,
                Self::tick_reliable,
                Self::tick_timer,
                Self::tick_offers,
                Self::tick_moving,
                Self::tick_transfer,
                Self::tick_sent,
            ] {
                let Some(call) = self.agent.calls.iter().position(|c| c.leg.key == key) else {
                    break;
                };
                look(self, call);
            }
        }
    }

    fn tick_state(&mut self, call: usize) {
        let c = &self.agent.calls[call];
        if c.deadline == 0 || c.deadline > self.now {
            return;
        }
        match c.state {
            _ if c.moves.is_some() && c.state.live() && c.state != State::Established => {
                let (tx, code) = (self.agent.calls[call].leg.invite_tx.take(), 408);
                if let Some(tx) = tx {
                    self.reply(tx, true, 480, "", String::new(), String::new());
                }
                self.hidden_failed(call, code);
            }
            State::Incoming => {
                let end = End::with_code(EndReason::NoAnswer, 480);
                self.hang_up(call, end, 480, None);
            }
            State::Answering => {
                // RFC 3261, section 13.3.1.4: no ACK came, so BYE ends what may have begun
                let end = End::with_code(EndReason::Timeout, 408);
                self.tell_end(call, end, None);
                self.send_bye(call);
            }
            State::Terminating if c.leg.bye == Owed::Waiting => self.send_bye(call),
            State::Trying | State::Ringing => {
                self.finish(call, End::with_code(EndReason::Timeout, 408));
            }
            State::Cancelling | State::Terminating => {
                self.agent.calls.remove(call);
            }
            // the far side that sent its call elsewhere did not answer the last NOTIFY
            State::Established if c.moves.is_some() && c.transfer.is_none() => self.send_bye(call),
            State::Established => self.agent.calls[call].deadline = 0,
        }
    }

    fn ended_message(&self, call: &Call, end: &End) -> ServerMessage {
        let since = |at: u64| (at != 0).then(|| at.saturating_sub(call.started_at));
        ServerMessage::CallEnded {
            call_id: call.id.clone(),
            reason: end.reason,
            duration: call.duration(self.now),
            code: Some(end.code).filter(|c| *c != 0),
            cause: Some(end.cause).filter(|c| *c != 0),
            timings: Some(Timings {
                ringing: since(call.ringing_at),
                answered: since(call.answered_at),
            })
            .filter(|t| t.ringing.is_some() || t.answered.is_some()),
        }
    }
}
