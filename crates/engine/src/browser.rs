//! What a browser asks for, apart from its registration.

use std::net::IpAddr;

use rtc_json_protocol::{self as protocol, ClientMessage, EndReason, Request, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::Dialog;

use crate::call::{End, ACK_WAIT, SAFETY_WAIT};
use crate::identity;
use crate::io::{Counter, Output};
use crate::model::{Call, Direction, Leg, State};
use crate::packed::Outcome;
use crate::session::DRAINING;
use crate::step::{Failure, Step};

/// The answer to a message on a connection that is not registered, where it can be given without an agent.
pub fn before_registration(request: &Request) -> Option<ServerMessage> {
    match &request.message {
        ClientMessage::Register(_) => None,
        ClientMessage::Ping => Some(ServerMessage::Pong {}),
        ClientMessage::Unregister => Some(ServerMessage::Unregistered {
            dn: String::new(),
            reason: protocol::UnregisterReason::Requested,
        }),
        _ => Some(not_registered().to_message(&request.id)),
    }
}

fn not_registered() -> Failure<'static> {
    Failure::new(401, "Not registered", "register first")
}

impl Step<'_> {
    pub fn on_message(
        &mut self,
        conn: i32,
        addr: Option<IpAddr>,
        request: Request,
        next_hop: Option<String>,
        token: Option<Result<String, String>>,
    ) {
        let Request { id, message } = request;
        if let ClientMessage::Register(register) = message {
            return self.register(conn, addr, &id, register, next_hop, token);
        }
        let Some(session) = self.agent.session_on(conn) else {
            let request = Request { id, message };
            if let Some(answer) = before_registration(&request) {
                let text = protocol::encode(&answer, &request.id);
                self.out.push(Output::Frame { conn, text });
            }
            return;
        };
        self.renew(session);
        match message {
            // repeated or not, these change nothing
            ClientMessage::Ping => return self.note(session, &id, &ServerMessage::Pong {}),
            ClientMessage::IceCandidate { call_id, candidate } => {
                return self.candidate(session, &id, &call_id, candidate);
            }
            _ => {}
        }
        if self.repeated(session, &id) {
            return;
        }
        match message {
            ClientMessage::Unregister => self.unregister(session, &id),
            ClientMessage::Call(call) => self.call(session, &id, call, next_hop),
            ClientMessage::Answer { call_id, sdp } => self.answer(session, &id, &call_id, &sdp),
            ClientMessage::Hangup { call_id, reason } => {
                self.hangup(session, &id, &call_id, reason.as_deref());
            }
            ClientMessage::Hold { call_id, hold } => self.hold(session, &id, &call_id, hold),
            ClientMessage::Mute { call_id, muted } => self.mute(session, &id, &call_id, muted),
            ClientMessage::Dtmf {
                call_id,
                digit,
                duration,
            } => self.dtmf(session, &id, &call_id, &digit, duration),
            ClientMessage::Update { call_id, sdp } => self.update(session, &id, &call_id, &sdp),
            ClientMessage::Transfer {
                call_id,
                to,
                with_call_id,
            } => self.transfer(
                session,
                &id,
                &call_id,
                to.as_deref(),
                with_call_id.as_deref(),
            ),
            ClientMessage::Recording { call_id, action } => {
                self.recording(session, &id, &call_id, action);
            }
            ClientMessage::Conference { call_ids, room } => {
                self.conference(session, &id, &call_ids, room);
            }
            ClientMessage::Message { to, text } => self.text(session, &id, &to, text, next_hop),
            ClientMessage::Digest { call_id, digest } => match call_id {
                Some(call_id) => self.call_digest(session, &id, &call_id, &digest),
                None => self.digest(session, &id, &digest),
            },
            ClientMessage::Register(_)
            | ClientMessage::Ping
            | ClientMessage::IceCandidate { .. } => {}
        }
    }

    /// The script refused a message.
    pub fn on_refused(&mut self, conn: i32, request: Request, code: u16, reason: String) {
        let failure = Failure::new(code, &reason, "refused by the server's rules");
        if let ClientMessage::Register(_) = request.message {
            return self.registration_failed(conn, &request.id, code, &reason);
        }
        match self.agent.session_on(conn) {
            Some(session) => {
                self.renew(session);
                if !self.repeated(session, &request.id) {
                    self.refuse(session, &request.id, &failure);
                }
            }
            None => {
                let text = protocol::encode(&failure.to_message(&request.id), &request.id);
                self.out.push(Output::Frame { conn, text });
            }
        }
    }

    /// The operator ends a call.
    pub fn on_operator_hangup(&mut self, call: &str) {
        if let Some(call) = self.live_call(call) {
            self.hang_up(call, End::new(EndReason::NormalClearing), 480, None);
        }
    }

    /// Is it a retry? Then the first outcome goes out again.
    fn repeated(&mut self, session: usize, id: &str) -> bool {
        let s = &self.agent.sessions[session];
        let Some(outcome) = s.outcomes.get(id) else {
            return false;
        };
        let call_of =
            |id: &str, step: &Self| step.agent.calls.iter().position(|c| c.id == id && c.live());
        match outcome {
            Outcome::Frame(text) => {
                if let Some(conn) = s.conn {
                    let text = text.to_owned();
                    self.out.push(Output::Frame { conn, text });
                }
            }
            Outcome::Accepted(call) => {
                let call = call.to_owned();
                let message = match call_of(&call, self) {
                    Some(index) => ServerMessage::CallAccepted {
                        call_id: call,
                        sdp: crate::offer::shown(self.agent.calls[index].leg.remote_sdp.clone()),
                    },
                    // answered and over: its `callEnded` comes or came as an event
                    None => no_call(&call).to_message(id),
                };
                self.note(session, id, &message);
            }
            Outcome::Pending => {
                let trying = self
                    .agent
                    .calls
                    .iter()
                    .find(|c| c.request.as_deref() == Some(id) && c.live())
                    .map(|c| progress(c, protocol::ProgressState::Trying, None));
                if let Some(message) = trying {
                    self.note(session, id, &message);
                }
            }
        }
        true
    }

    fn call(&mut self, session: usize, id: &str, wanted: protocol::Call, next_hop: Option<String>) {
        if self.draining {
            return self.refuse(
                session,
                id,
                &Failure::new(503, "Service Unavailable", DRAINING),
            );
        }
        if let Err(wait) = self.agent.call_rate.take(self.config.call_rate, self.now) {
            self.out.push(Output::Count(Counter::CallsLimited));
            let failure = Failure {
                retry_after: Some(wait),
                ..Failure::new(429, "Too Many Requests", "calls come too fast")
            };
            return self.refuse(session, id, &failure);
        }
        if self.agent.live_calls() >= self.config.max_calls {
            let failure = Failure::new(503, "Too many calls", "max_calls_per_agent is reached");
            return self.refuse(session, id, &failure);
        }
        let headers = match identity::header_lines(&wanted.headers, &self.config.headers_out) {
            Ok(lines) => lines,
            Err(name) => {
                let details = format!("payload.headers: {name} is not allowed");
                return self.refuse(session, id, &Failure::new(403, "Forbidden", &details));
            }
        };
        let s = &self.agent.sessions[session];
        let placement = sdp::Placement {
            browser_addr: s.addr,
            keep: None,
        };
        let number = s.number;
        let name = match &wanted.display_name {
            Some(name) => name.clone(),
            None => s.display_name.clone(),
        };
        let offer = match sdp::from_browser(
            &wanted.sdp,
            sdp::Kind::Offer,
            &self.config.policy,
            &placement,
        ) {
            Ok(offer) => offer,
            Err(error) => {
                let failure = Failure::new(488, "Not Acceptable Here", error.details());
                return self.refuse(session, id, &failure);
            }
        };
        let call_id = self.random_text(16);
        let tag = self.random_text(10);
        let user = rtc_json_sip::escape_user(&wanted.to);
        let uri = ["sip:", &user, "@", &self.config.domain].concat();
        let dialog = Dialog::outgoing(
            call_id.as_str(),
            tag,
            self.name_addr(&name),
            ["<", &uri, ">"].concat(),
            uri,
        );
        let mut leg = Leg::new(&call_id, dialog);
        leg.local_sdp = offer.text;
        leg.next_hop = next_hop;
        leg.headers = headers;
        let mut call = Call::new(&call_id, Direction::Out, leg, self.now, self.unix_now);
        call.session = Some(number);
        call.peer = wanted.to;
        call.own.clone_from(&self.agent.dn);
        call.request = Some(id.to_owned());
        call.deadline = self.now + SAFETY_WAIT;
        let message = progress(&call, protocol::ProgressState::Trying, None);
        self.agent.calls.push(call);
        self.agent.sessions[session].set_outcome(id, Outcome::Pending);
        self.note(session, id, &message);
        self.out.push(Output::Count(Counter::CallsOut));
        self.invite(self.agent.calls.len() - 1, "");
    }

    fn answer(&mut self, session: usize, id: &str, call_id: &str, answer: &str) {
        let number = self.agent.sessions[session].number;
        let Some(call) = self.live_call(call_id) else {
            return self.refuse(session, id, &no_call(call_id));
        };
        let c = &self.agent.calls[call];
        if c.session.is_some_and(|owner| owner != number) {
            let failure = Failure::new(409, "Conflict", "answered elsewhere").of_call(call_id);
            return self.refuse(session, id, &failure);
        }
        if c.state == State::Established {
            if !self.answer_moving(session, id, call, answer) {
                self.answer_far_offer(session, id, call, answer);
            }
            return;
        }
        if c.state != State::Incoming {
            let failure = Failure::new(409, "Conflict", "this call does not wait for an answer")
                .of_call(call_id);
            return self.refuse(session, id, &failure);
        }
        let Some(tx) = c.leg.invite_tx else {
            return self.refuse(session, id, &no_call(call_id));
        };
        let kind = if c.leg.offerless {
            sdp::Kind::Offer
        } else {
            sdp::Kind::Answer
        };
        let placement = sdp::Placement {
            browser_addr: self.agent.sessions[session].addr,
            keep: None,
        };
        let filtered = match sdp::from_browser(answer, kind, &self.config.policy, &placement) {
            Ok(filtered) => filtered,
            Err(error) => {
                // the call goes on ringing: another answer may do better
                let failure =
                    Failure::new(488, "Not Acceptable Here", error.details()).of_call(call_id);
                return self.refuse(session, id, &failure);
            }
        };
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.session = Some(number);
        c.state = State::Answering;
        c.answered_at = now;
        c.deadline = now + ACK_WAIT;
        let offered = sdp::direction(&c.leg.remote_sdp);
        let text = match crate::offer::own_answer(false, offered) {
            _ if c.leg.offerless => filtered.text,
            sdp::Direction::SendRecv => filtered.text,
            // the browser is not shown that the far side holds from the start
            held => sdp::with_direction(&filtered.text, held),
        };
        c.remote_hold = matches!(offered, sdp::Direction::SendOnly | sdp::Direction::Inactive);
        c.leg.local_sdp.clone_from(&text);
        let tag = c.leg.dialog.local_tag.clone();
        let timer = std::mem::take(&mut c.leg.headers);
        // the interval begins with the 200
        let interval = c.leg.timer.map(|t| (t.interval, t.ours));
        let elsewhere = ServerMessage::CallEnded {
            call_id: call_id.to_owned(),
            reason: EndReason::AnsweredElsewhere,
            duration: 0,
            code: None,
            cause: None,
            timings: None,
        };
        self.ack(session, id, call_id);
        for other in 0..self.agent.sessions.len() {
            if other != session {
                self.event(other, &elsewhere);
            }
        }
        self.out.push(Output::Count(Counter::CallsAnswered));
        let running = interval.map(|(interval, ours)| self.timer(interval, ours));
        let c = &mut self.agent.calls[call];
        if let Some(reliable) = &mut c.leg.reliable {
            // not sent again, but its PRACK may still come (RFC 3262, section 3)
            reliable.next = u64::MAX;
        }
        c.leg.timer = running;
        c.leg.answer_in_ack = c.leg.offerless;
        let headers = [
            &self.contact_header(),
            crate::inbound::ALLOW,
            crate::trickle::SUPPORTED,
            &timer,
            "Content-Type: application/sdp\r\n",
        ]
        .concat();
        self.reply(tx, true, 200, &tag, headers, text);
        if self.agent.calls[call].remote_hold {
            let update = self.updated(call, None, None);
            self.event_of_call(call, &update);
        }
    }

    fn hangup(&mut self, session: usize, id: &str, call_id: &str, reason: Option<&str>) {
        let Some(call) = self.live_call(call_id) else {
            return self.refuse(session, id, &no_call(call_id));
        };
        let (end, reject) = match (self.agent.calls[call].state, reason) {
            (State::Incoming, Some("busy")) => (End::with_code(EndReason::UserBusy, 486), 486),
            (State::Incoming, _) => (End::with_code(EndReason::CallRejected, 603), 603),
            (State::Trying | State::Ringing, _) => (End::with_code(EndReason::Cancelled, 487), 0),
            _ => (End::new(EndReason::NormalClearing), 0),
        };
        self.hang_up(call, end, reject, Some((session, id)));
    }

    /// From or To with a display name.
    pub fn name_addr(&self, name: &str) -> String {
        let user = rtc_json_sip::escape_user(&self.agent.dn);
        let (quoted, blank) = match rtc_json_sip::quote_display(name) {
            Ok(quoted) if !name.is_empty() => (quoted, " "),
            _ => (String::new(), ""),
        };
        // every call needs these texts, and joining parts is far cheaper than formatting them
        [
            &quoted,
            blank,
            "<sip:",
            &user,
            "@",
            &self.config.domain,
            ">",
        ]
        .concat()
    }

    /// Where requests of the far side reach this agent.
    pub fn contact_header(&self) -> String {
        self.contact("Contact: <", ">\r\n")
    }

    pub fn contact_uri(&self) -> String {
        self.contact("", "")
    }

    fn contact(&self, before: &str, after: &str) -> String {
        let user = rtc_json_sip::escape_user(&self.agent.dn);
        [before, "sip:", &user, "@", &self.config.contact, after].concat()
    }
}

/// `callProgress` of an outbound call.
pub(crate) fn progress(
    call: &Call,
    state: protocol::ProgressState,
    sdp: Option<String>,
) -> ServerMessage {
    ServerMessage::CallProgress {
        call_id: call.id.clone(),
        state,
        sdp,
        request: call.request.clone(),
    }
}

/// The same answer for a call that does not exist and for one of another agent.
pub(crate) fn no_call(call_id: &str) -> Failure<'_> {
    Failure::new(404, "No such call", "").of_call(call_id)
}
