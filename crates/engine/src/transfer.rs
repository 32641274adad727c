//! Calls that are sent elsewhere by this side: REFER (RFC 3515, RFC 5589), what its NOTIFYs say, and conferences.

use rtc_json_protocol::{ConferenceState, EndReason, ServerMessage, TransferState};
use rtc_json_sip::{self as sip, Message};

use crate::call::End;
use crate::model::{
    Conference, InDialog, Moving, ServerTx, State, Transfer, TransferKind, TransferResult, Want,
};
use crate::packed::Outcome;
use crate::step::{Failure, Step};

/// How long a transfer may take until its final NOTIFY.
const TRANSFER_WAIT: u64 = 60_000;
/// A far side that was answered only just now is not ready yet: pause before the REFER is sent again.
const REFER_RETRY: u64 = 500;
/// How often.
const REFER_TRIES: u8 = 3;

impl Step<'_> {
    /// `transfer`.
    pub fn transfer(
        &mut self,
        session: usize,
        id: &str,
        call_id: &str,
        to: Option<&str>,
        with: Option<&str>,
    ) {
        let Some(call) = self.mine(session, id, call_id) else {
            return;
        };
        let with = match with {
            None => None,
            Some(with) => match self.mine(session, id, with) {
                None => return,
                found => found,
            },
        };
        for busy in [Some(call), with].into_iter().flatten() {
            if let Some(details) = self.tied_up(busy) {
                let failure = Failure::new(409, "Conflict", details).of_call(call_id);
                return self.refuse(session, id, &failure);
            }
        }
        let target = match (to, with) {
            (_, Some(with)) => sip::replaces(&self.agent.calls[with].leg.dialog),
            (Some(to), None) => format!("sip:{}@{}", sip::escape_user(to), self.config.domain),
            (None, None) => return,
        };
        let transfer = Transfer {
            request: Some(id.to_owned()),
            with: with.map(|with| self.agent.calls[with].id.clone()),
            conference: None,
            state: None,
            tries: 0,
            retry_at: 0,
            deadline: self.now + TRANSFER_WAIT,
        };
        let (kind, number) = match with {
            Some(with) => (TransferKind::Attended, self.agent.calls[with].peer.clone()),
            None => (TransferKind::Blind, to.unwrap_or_default().to_owned()),
        };
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.transfer = Some(transfer);
        c.note_transfer(kind, &number, now);
        self.agent.sessions[session].set_outcome(id, Outcome::Pending);
        self.refer(call, &target);
    }

    /// Why a call cannot be sent elsewhere just now.
    fn tied_up(&self, call: usize) -> Option<&'static str> {
        let c = &self.agent.calls[call];
        let named = |t: &Transfer| t.with.as_ref() == Some(&c.id);
        if c.transfer.is_some()
            || self
                .agent
                .calls
                .iter()
                .any(|o| o.transfer.as_ref().is_some_and(named))
        {
            Some("this call is being transferred")
        } else if c.moving.is_some() {
            Some("this call is getting another far side")
        } else if c.state != State::Established {
            Some("this call is not confirmed yet")
        } else {
            None
        }
    }

    fn refer(&mut self, call: usize, target: &str) {
        let by = self.name_addr("");
        let headers = [
            &self.contact_header(),
            "Refer-To: <",
            target,
            ">\r\nReferred-By: ",
            &by,
            "\r\n",
        ]
        .concat();
        if !self.send_in_dialog(call, InDialog::Refer, headers, String::new()) {
            self.on_refer_reply(call, 503, None);
        }
    }

    /// The REFER has its answer.
    pub fn on_refer_reply(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        let c = &mut self.agent.calls[call];
        let call_id = c.id.clone();
        let Some(transfer) = &mut c.transfer else {
            return;
        };
        let request = transfer.request.take();
        if code >= 300 {
            let quiet = transfer.conference.is_some();
            if quiet || request.is_none() {
                return self.transfer_failed(call, code);
            }
            c.transfer = None;
            c.note_transfer_end(TransferResult::Failed, code);
            if let (Some(owner), Some(request)) = (self.owner(call), request) {
                let phrase = sip::reason_phrase(code);
                let details = "the far side does not take the transfer";
                self.refuse(
                    owner,
                    &request,
                    &Failure::new(code, phrase, details).of_call(&call_id),
                );
            }
            return;
        }
        if let (Some(owner), Some(request)) = (self.owner(call), request) {
            self.ack(owner, &request, &call_id);
        }
        let silent = message
            .and_then(|m| m.header("Refer-Sub"))
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("false"));
        if silent {
            // RFC 4488: no NOTIFY will say more
            return self.transferred(call);
        }
        // (a NOTIFY may have said more already)
        let c = &self.agent.calls[call];
        if c.transfer.as_ref().is_some_and(|t| t.state.is_none()) {
            self.transfer_state(call, TransferState::Trying, None);
        }
    }

    fn transfer_state(&mut self, call: usize, state: TransferState, code: Option<u16>) {
        let c = &mut self.agent.calls[call];
        let Some(transfer) = c.transfer.as_mut().filter(|t| t.state != Some(state)) else {
            return;
        };
        transfer.state = Some(state);
        if transfer.conference.is_some() {
            return;
        }
        let message = ServerMessage::TransferProgress {
            call_id: c.id.clone(),
            state,
            code,
        };
        self.event_of_call(call, &message);
    }

    /// NOTIFY of the far side.
    pub fn on_notify(&mut self, call: usize, message: &Message<'_>, tx: ServerTx) {
        let event = message.header("Event").unwrap_or_default();
        let event = event.split(';').next().unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("refer") {
            let headers = "Allow-Events: refer\r\n".to_owned();
            return self.reply(tx, false, 489, "", headers, String::new());
        }
        self.reply(tx, false, 200, "", String::new(), String::new());
        let c = &mut self.agent.calls[call];
        let call_id = c.id.clone();
        let Some(transfer) = &mut c.transfer else {
            return;
        };
        // it may be faster than the 202 that it follows from (RFC 3515, section 2.4.4)
        if let Some(request) = transfer.request.take() {
            if let Some(owner) = self.owner(call) {
                self.ack(owner, &request, &call_id);
            }
        }
        let over = message
            .header("Subscription-State")
            .is_some_and(|state| state.trim().to_ascii_lowercase().starts_with("terminated"));
        match sip::sipfrag_status(message.body()) {
            Some(200..=299) => self.transferred(call),
            Some(code @ 300..) => self.transfer_failed(call, code),
            Some(100) | None if over => self.transfer_failed(call, 0),
            Some(code @ 180..=199) => {
                self.transfer_state(call, TransferState::Ringing, Some(code));
            }
            // one that was overtaken by the next is no news
            _ if self.agent.calls[call]
                .transfer
                .as_ref()
                .is_some_and(|t| t.state.is_some()) => {}
            _ => self.transfer_state(call, TransferState::Trying, None),
        }
    }

    /// The far side is where it was sent to: this call, and the other one of an attended transfer, are over.
    pub fn transferred(&mut self, call: usize) {
        self.transfer_state(call, TransferState::Completed, Some(200));
        let Some(transfer) = self.agent.calls[call].transfer.take() else {
            return;
        };
        self.agent.calls[call].note_transfer_end(TransferResult::Completed, 0);
        let key = self.agent.calls[call].leg.key.clone();
        let other = transfer.with.as_deref().and_then(|id| self.live_call(id));
        let end = End::new(EndReason::Transferred);
        if let Some(other) = other {
            // after a live call the far side's BYE may be on its way: both are right
            self.joined(other, call);
            let id = self.agent.calls[call].id.clone();
            self.hang_up(other, end, 480, None);
            let Some(still) = self.agent.calls.iter().position(|c| c.id == id) else {
                return;
            };
            return self.hang_up(still, end, 480, None);
        }
        if self.agent.calls[call].moves.is_some() {
            self.send_bye(call);
        } else {
            self.hang_up(call, end, 480, None);
        }
        if let Some(conference) = transfer.conference {
            self.conference_step(&conference, &key, true);
        }
    }

    /// The far side of a call talks to that of another one now.
    fn joined(&mut self, call: usize, with: usize) {
        let now = self.now;
        let to = self.agent.calls[with].peer.clone();
        let c = &mut self.agent.calls[call];
        c.note_transfer(TransferKind::Attended, &to, now);
        c.note_transfer_end(TransferResult::Completed, 0);
    }

    fn transfer_failed(&mut self, call: usize, code: u16) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        let key = c.leg.key.clone();
        if let Some(transfer) = c.transfer.as_mut().filter(|t| t.conference.is_some()) {
            // Asterisk says 400 as long as it has not bridged the call
            if code == 400 && transfer.tries < REFER_TRIES {
                transfer.tries += 1;
                transfer.retry_at = now + REFER_RETRY;
                return;
            }
        }
        self.transfer_state(call, TransferState::Failed, Some(code).filter(|c| *c != 0));
        let Some(transfer) = self.agent.calls[call].transfer.take() else {
            return;
        };
        self.agent.calls[call].note_transfer_end(TransferResult::Failed, code);
        if code == 503 && transfer.conference.is_none() {
            self.doubt(call);
        }
        if let Some(conference) = transfer.conference {
            if self.agent.calls[call].moves.is_some() {
                // its browser has gone on to the room: nobody talks to it any more
                self.send_bye(call);
            }
            self.conference_step(&conference, &key, false);
        }
    }

    /// Asterisk has put the other party off with its attempt to transfer it, the agent's channel is gone, and no BYE ever says
    /// so: its 200 to a refresh names no identity any more. Where that was named before, and a 503 was the end of a transfer, the
    /// refresh decides.
    fn doubt(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        if c.leg.asserts && c.leg.takes_update {
            c.leg.doubtful = true;
            c.wants.push_back(Want::Refresh);
            self.next_offer(call);
        }
    }

    /// The time of a transfer has come.
    pub fn tick_transfer(&mut self, call: usize) {
        let now = self.now;
        let Some(transfer) = &mut self.agent.calls[call].transfer else {
            return;
        };
        if transfer.deadline <= now {
            if let Some(request) = transfer.request.take() {
                // no answer at all: tm will say so, too, but this record need not wait for it
                let id = self.agent.calls[call].id.clone();
                let c = &mut self.agent.calls[call];
                c.transfer = None;
                c.note_transfer_end(TransferResult::Failed, 408);
                if let Some(owner) = self.owner(call) {
                    let failure = Failure::new(408, "Request Timeout", "").of_call(&id);
                    self.refuse(owner, &request, &failure);
                }
                return;
            }
            return self.transfer_failed(call, 408);
        }
        if transfer.retry_at != 0 && transfer.retry_at <= now {
            transfer.retry_at = 0;
            let conference = transfer.conference.clone();
            let room = conference
                .and_then(|id| self.agent.calls.iter().find(|c| c.id == id))
                .and_then(|c| c.conference.as_ref())
                .map(|c| c.room.clone());
            match room {
                Some(room) => self.refer(call, &self.room_uri(&room)),
                None => self.transfer_failed(call, 487),
            }
        }
    }

    /// The call ends in the middle of its transfer. True if that is how the transfer ends: the far side, or the one that the
    /// other call was to be replaced by, has what it wanted.
    pub fn ends_transferred(&mut self, call: usize) -> bool {
        let c = &self.agent.calls[call];
        let replaced = self.agent.calls.iter().position(|o| {
            o.transfer
                .as_ref()
                .is_some_and(|t| t.request.is_none() && t.with.as_ref() == Some(&c.id))
        });
        let taken = c.transfer.as_ref().is_some_and(|t| t.request.is_none());
        if taken && c.moves.is_none() {
            self.transfer_state(call, TransferState::Completed, None);
            self.agent.calls[call].note_transfer_end(TransferResult::Completed, 0);
        }
        if let Some(with) = replaced {
            self.joined(call, with);
        }
        replaced.is_some() || taken
    }

    /// The call is over: what waited in it gets its outcome.
    pub fn drop_transfer(&mut self, call: usize) {
        let id = self.agent.calls[call].id.clone();
        if let Some(transfer) = self.agent.calls[call].transfer.take() {
            if transfer.request.is_some() {
                self.agent.calls[call].note_transfer_end(TransferResult::Failed, 487);
            }
            if let (Some(owner), Some(request)) = (self.owner(call), transfer.request) {
                let failure = Failure::new(487, "Request Terminated", "the call is over");
                self.refuse(owner, &request, &failure.of_call(&id));
            }
            if let Some(conference) = transfer.conference {
                let key = self.agent.calls[call].leg.key.clone();
                self.conference_step(&conference, &key, false);
            }
        }
        if let Some(conference) = self.agent.calls[call].conference.take() {
            self.tell_conference(call, conference.room, Vec::new(), ConferenceState::Ended);
        }
    }

    // ---- conferences

    /// `conference`: the first call becomes the agent's own with the room, all far sides are sent there.
    pub fn conference(
        &mut self,
        session: usize,
        id: &str,
        call_ids: &[String],
        room: Option<String>,
    ) {
        let mut calls = Vec::new();
        for call_id in call_ids {
            let Some(call) = self.mine(session, id, call_id) else {
                return;
            };
            let busy = self.tied_up(call).or_else(|| {
                let c = &self.agent.calls[call];
                let leg = &c.leg;
                let exchange = leg.open.is_some() || leg.far_offer.is_some() || leg.ack_by != 0;
                if c.conference.is_some() {
                    Some("this call is in a conference")
                } else if exchange {
                    Some("this call is just changing its media")
                } else {
                    None
                }
            });
            if let Some(details) = busy {
                let failure = Failure::new(409, "Conflict", details).of_call(call_id);
                return self.refuse(session, id, &failure);
            }
            calls.push(call);
        }
        let Some(first) = calls.first().copied() else {
            return;
        };
        let room = room
            .unwrap_or_else(|| [&self.config.conference_prefix, self.agent.dn.as_str()].concat());
        let ack = ServerMessage::Ack {
            call_id: None,
            mode: None,
        };
        self.outcome(session, id, &ack);
        let waiting = calls[1..]
            .iter()
            .map(|call| self.agent.calls[*call].leg.key.clone())
            .collect();
        self.agent.calls[first].conference = Some(Conference {
            room: room.clone(),
            joined: Vec::new(),
            waiting,
            active: false,
        });
        self.tell_conference(
            first,
            room.clone(),
            call_ids.to_vec(),
            ConferenceState::Joining,
        );
        let moving = Moving {
            target: self.room_uri(&room),
            headers: String::new(),
            notify: false,
            update: None,
            others: Vec::new(),
            remote: (room, None),
            leg: None,
            deadline: 0,
        };
        self.move_call(first, moving, TransferKind::Conference);
    }

    fn room_uri(&self, room: &str) -> String {
        format!("sip:{}@{}", sip::escape_user(room), self.config.domain)
    }

    fn tell_conference(
        &mut self,
        call: usize,
        room: String,
        call_ids: Vec<String>,
        state: ConferenceState,
    ) {
        let message = ServerMessage::ConferenceUpdated {
            room,
            call_ids,
            state,
        };
        self.event_of_call(call, &message);
    }

    /// The agent is in the room: now the far sides. `old`: the leg to the far side of the first call, by its key.
    pub fn conference_entered(&mut self, call: usize, old: &str) {
        let id = self.agent.calls[call].id.clone();
        let Some(conference) = &mut self.agent.calls[call].conference else {
            return;
        };
        conference.waiting.insert(0, old.to_owned());
        conference.joined.push(id.clone());
        let (room, waiting) = (conference.room.clone(), conference.waiting.clone());
        let target = self.room_uri(&room);
        for key in waiting {
            let leg = self.agent.calls.iter().position(|c| c.leg.key == key);
            let ready = leg.filter(|leg| {
                let c = &self.agent.calls[*leg];
                c.state == State::Established && !c.leg.gone && c.transfer.is_none()
            });
            let Some(leg) = ready else {
                self.conference_step(&id, &key, false);
                continue;
            };
            let now = self.now;
            self.agent.calls[leg].note_transfer(TransferKind::Conference, &room, now);
            self.agent.calls[leg].transfer = Some(Transfer {
                request: None,
                with: None,
                conference: Some(id.clone()),
                state: None,
                tries: 0,
                retry_at: 0,
                deadline: self.now + TRANSFER_WAIT,
            });
            self.refer(leg, &target);
        }
    }

    /// One of the far sides has arrived in the room, or will not.
    fn conference_step(&mut self, conference: &str, key: &str, arrived: bool) {
        let Some(call) = self.live_call(conference) else {
            return;
        };
        let other = self.agent.calls.iter().find(|c| c.leg.key == key);
        let other = other.filter(|c| c.moves.is_none()).map(|c| c.id.clone());
        let Some(c) = &mut self.agent.calls[call].conference else {
            return;
        };
        c.waiting.retain(|k| k != key);
        if arrived {
            c.joined.extend(other);
        }
        if c.waiting.is_empty() && !c.active {
            c.active = true;
            let (room, joined) = (c.room.clone(), c.joined.clone());
            self.tell_conference(call, room, joined, ConferenceState::Active);
        }
    }

    /// The agent did not get into the room; all calls go on.
    pub fn conference_failed(&mut self, call: usize) {
        if let Some(conference) = self.agent.calls[call].conference.take() {
            self.tell_conference(call, conference.room, Vec::new(), ConferenceState::Failed);
        }
    }
}
