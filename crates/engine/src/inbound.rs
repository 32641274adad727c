//! SIP requests of the far side: calls that come in, and what happens inside a dialog.

use rtc_json_protocol::{EndReason, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{self as sip, Dialog, Message, NameAddr};

use crate::call::End;
use crate::identity;
use crate::io::{Counter, Output};
use crate::model::{Call, Direction, InDialog, Leg, Owed, ServerTx, State};
use crate::outbound::sdp_body;
use crate::step::Step;
use crate::takeover::BYE_ELSEWHERE;
use crate::timer::{has_option, Verdict};

/// What this user agent takes (RFC 3261, section 20.5).
pub(crate) const ALLOW: &str =
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, MESSAGE, REFER, NOTIFY, PRACK\r\n";

/// Extensions that a request may require (RFC 3261, section 20.32).
const KNOWN: [&str; 6] = [
    "100rel",
    "timer",
    "replaces",
    "trickle-ice",
    "norefersub",
    "ice",
];

impl Step<'_> {
    pub fn on_sip_request(
        &mut self,
        message: &Message<'_>,
        user: &str,
        tx: Option<ServerTx>,
        src: Option<std::net::IpAddr>,
    ) {
        let trusted = identity::is_trusted(&self.config.trusted_peers, src);
        let method = message.method().unwrap_or_default();
        let Some(tx) = tx else {
            if method == "ACK" {
                self.on_ack(message);
            }
            return;
        };
        if self.not_understood(message, method, tx) {
            return;
        }
        let to_tag = tag_of(message, "To");
        if to_tag.is_empty() {
            return match method {
                "INVITE" => self.on_invite(message, user, tx, trusted),
                "MESSAGE" => self.on_text(message, tx, trusted),
                "CANCEL" => self.on_cancel(message, tx),
                "OPTIONS" => {
                    let headers = format!("{ALLOW}Accept: application/sdp\r\n");
                    self.reply(tx, false, 200, "", headers, String::new());
                }
                // no dialog for it
                "BYE" | "UPDATE" | "INFO" | "PRACK" | "NOTIFY" | "REFER" => self.status(tx, 481),
                _ => self.reply(tx, false, 405, "", ALLOW.to_owned(), String::new()),
            };
        }
        let Some(call) = self.call_of(message) else {
            return self.status(tx, 481);
        };
        if matches!(method, "INVITE" | "UPDATE" | "REFER") {
            // RFC 3261, section 12.2.2. Only where the order matters: of two NOTIFYs that come at once either may be taken
            // first, for each has a worker of its own, and a far side ends its subscription after a 500.
            let cseq = message.cseq().unwrap_or(0);
            let dialog = &mut self.agent.calls[call].leg.dialog;
            if dialog.remote_cseq.is_some_and(|last| cseq < last) {
                return self.status(tx, 500);
            }
            dialog.remote_cseq = Some(cseq);
        }
        match method {
            "BYE" => self.on_bye(call, message, tx),
            "INVITE" => self.on_reinvite(call, message, tx, true, trusted),
            "UPDATE" => self.on_reinvite(call, message, tx, false, trusted),
            "REFER" => self.on_refer(call, message, tx),
            "NOTIFY" => self.on_notify(call, message, tx),
            "PRACK" => self.on_prack(call, message, tx),
            "CANCEL" => self.on_cancel_offer(call, tx),
            "OPTIONS" => {
                let headers = format!("{ALLOW}Accept: application/sdp\r\n");
                self.reply(tx, false, 200, "", headers, String::new());
            }
            "MESSAGE" => self.on_text(message, tx, trusted),
            "INFO" => {
                self.status(tx, 200);
                self.on_info(call, message);
            }
            _ => self.reply(tx, false, 405, "", ALLOW.to_owned(), String::new()),
        }
    }

    fn status(&mut self, tx: ServerTx, code: u16) {
        self.reply(tx, false, code, "", String::new(), String::new());
    }

    /// Refuses a request that wants an extension or brings a body that nobody here knows. An end is an end, whatever it wants.
    fn not_understood(&mut self, message: &Message<'_>, method: &str, tx: ServerTx) -> bool {
        if matches!(method, "BYE" | "CANCEL" | "PRACK") {
            return false;
        }
        let unknown: Vec<String> = message
            .list("Require")
            .into_iter()
            .filter(|tag| !KNOWN.iter().any(|known| tag.eq_ignore_ascii_case(known)))
            .collect();
        if !unknown.is_empty() {
            // RFC 3261, section 8.2.2.3
            let headers = format!("Unsupported: {}\r\n", unknown.join(", "));
            self.reply(tx, method == "INVITE", 420, "", headers, String::new());
            return true;
        }
        let optional = message
            .header("Content-Disposition")
            .is_some_and(|value| value.to_ascii_lowercase().contains("handling=optional"));
        let described = matches!(method, "INVITE" | "UPDATE");
        if described && !message.body().is_empty() && sdp_body(message).is_none() && !optional {
            // RFC 3261, section 8.2.3: it is not the same as none
            let headers = "Accept: application/sdp\r\n".to_owned();
            self.reply(tx, method == "INVITE", 415, "", headers, String::new());
            return true;
        }
        false
    }

    fn refuse_invite(&mut self, tx: ServerTx, code: u16) {
        self.reply(tx, true, code, "", String::new(), String::new());
    }

    fn on_invite(&mut self, message: &Message<'_>, user: &str, tx: ServerTx, trusted: bool) {
        let call_id = message.header("Call-ID").unwrap_or_default().into_owned();
        let from_tag = tag_of(message, "From");
        let merged = self.agent.calls.iter().any(|c| {
            !c.leg.ours && c.leg.dialog.call_id == call_id && c.leg.dialog.remote_tag == from_tag
        });
        if merged {
            // the same request by another path (RFC 3261, section 8.2.2.2)
            return self.refuse_invite(tx, 482);
        }
        if self.on_invite_replaces(message, tx, trusted) {
            return;
        }
        self.out.push(Output::Count(Counter::CallsIn));
        if self.agent.sessions.is_empty() {
            return self.refuse_invite(tx, 480);
        }
        if self.draining {
            // RFC 3261, section 21.5.4: maintenance; who sent it may try another server
            return self.refuse_invite(tx, 503);
        }
        if self.agent.live_calls() >= self.config.max_calls {
            return self.refuse_invite(tx, 486);
        }
        let offer = match sdp_body(message) {
            None => None,
            Some(body) => match sdp::from_sip(&body, sdp::Kind::Offer, &self.config.policy) {
                Ok(offer) => Some(offer.text),
                Err(error) => {
                    // 304: media type not available (RFC 3261, section 20.43)
                    let headers = format!(
                        "Warning: 304 {} \"{}\"\r\n",
                        self.config.domain,
                        error.details().replace(['"', '\\'], "'")
                    );
                    return self.reply(tx, true, 488, "", headers, String::new());
                }
            },
        };
        let (timer_lines, timer) = match self.timer_asked(None, message) {
            Verdict::Take(lines, timer) => (lines, timer),
            Verdict::TooSmall(min) => return self.reply(tx, true, 422, "", min, String::new()),
        };
        let tag = self.random_text(10);
        let Ok(dialog) = Dialog::incoming(message, &tag) else {
            return self.refuse_invite(tx, 400);
        };
        let from = identity::remote_of(message, trusted);
        let id = self.random_text(16);
        let mut leg = Leg::new(&id, dialog);
        leg.invite_tx = Some(tx);
        leg.far_invite = message.cseq().unwrap_or(0);
        leg.offerless = offer.is_none();
        leg.remote_sdp = offer.unwrap_or_default();
        leg.trickle = Some(crate::trickle::takes(message));
        leg.timer = timer;
        // for the 200
        leg.headers = timer_lines;
        let mut call = Call::new(&id, Direction::In, leg, self.now, self.unix_now);
        call.peer.clone_from(&from.number);
        call.peer_name = from.name;
        call.own = sip::unescape_user(user);
        call.ringing_at = self.now;
        call.deadline = self.now + self.config.ring_timeout;
        let announce = ServerMessage::IncomingCall {
            call_id: id,
            from: from.number,
            display_name: call.peer_name.clone(),
            sdp: Some(call.leg.remote_sdp.clone())
                .filter(|s| !s.is_empty())
                .map(crate::offer::shown),
            to: Some(call.own.clone()),
            headers: identity::shown_headers(message, &self.config.headers_in, trusted),
            diversion: identity::diversion(message),
        };
        self.agent.calls.push(call);
        let call = self.agent.calls.len() - 1;
        self.note_abilities(call, message);
        self.event_of_call(call, &announce);
        if has_option(message, "Require", "100rel") {
            self.make_reliable(call);
        }
        self.ring(call);
    }

    fn on_cancel(&mut self, message: &Message<'_>, tx: ServerTx) {
        let call_id = message.header("Call-ID").unwrap_or_default();
        let from_tag = tag_of(message, "From");
        let cseq = message.cseq();
        let call = self.agent.calls.iter().position(|c| {
            !c.leg.ours
                && c.leg.dialog.call_id == call_id
                && c.leg.dialog.remote_tag == from_tag
                // (an UPDATE may have come since)
                && cseq.is_some()
                && c.leg.dialog.remote_cseq >= cseq
        });
        let Some(call) = call else {
            return self.status(tx, 481);
        };
        // RFC 3261, section 9.2: the same To tag as in the reply to the INVITE
        let tag = self.agent.calls[call].leg.dialog.local_tag.clone();
        self.reply(tx, false, 200, &tag, String::new(), String::new());
        if self.agent.calls[call].moves.is_some() && self.agent.calls[call].state == State::Incoming
        {
            if let Some(tx) = self.agent.calls[call].leg.invite_tx.take() {
                self.reply(tx, true, 487, &tag, String::new(), String::new());
            }
            self.hidden_failed(call, 487);
        } else if self.agent.calls[call].state == State::Incoming {
            let elsewhere = message
                .header("Reason")
                .and_then(|value| sip::parse_reason(&value))
                .is_some_and(|r| {
                    r.protocol == "SIP" && r.cause == Some(200) || r.cause == Some(26)
                });
            let reason = if elsewhere {
                EndReason::AnsweredElsewhere
            } else {
                EndReason::Cancelled
            };
            self.hang_up(call, End::with_code(reason, 487), 487, None);
        }
    }

    fn on_ack(&mut self, message: &Message<'_>) {
        let Some(call) = self.call_of(message) else {
            return;
        };
        let c = &mut self.agent.calls[call];
        if message.cseq() != Some(c.leg.far_invite) {
            // that of an earlier one, once more
            return;
        }
        match c.state {
            State::Answering | State::Established => {
                if c.state == State::Answering {
                    c.state = State::Established;
                    c.deadline = 0;
                } else if c.leg.ack_by == 0 {
                    // once more
                    return;
                }
                c.leg.ack_by = 0;
                c.leg.invite_tx = None;
                if c.leg.answer_in_ack {
                    let key = c.leg.key.clone();
                    self.answer_in_ack(call, message);
                    if self.agent.calls.get(call).is_none_or(|c| c.leg.key != key) {
                        return;
                    }
                }
                self.send_candidates(call);
                self.next_offer(call);
            }
            // (once a BYE could not be sent, it is the timer that sends the next one)
            State::Terminating if c.leg.bye == Owed::Waiting && c.leg.unsent_byes == 0 => {
                c.leg.ack_by = 0;
                self.send_bye(call);
            }
            _ => {}
        }
    }

    fn on_bye(&mut self, call: usize, message: &Message<'_>, tx: ServerTx) {
        self.status(tx, 200);
        let c = &mut self.agent.calls[call];
        if c.moving.is_some() && c.live() {
            // the far side has sent the call elsewhere and goes: what becomes of it decides
            c.leg.gone = true;
            return;
        }
        if let (State::Incoming, Some(tx)) = (c.state, c.leg.invite_tx.take()) {
            // RFC 3261, section 15.1.2: the caller may end an early dialog, too
            let tag = c.leg.dialog.local_tag.clone();
            self.reply(tx, true, 487, &tag, String::new(), String::new());
            if self.agent.calls[call].moves.is_some() {
                return self.hidden_failed(call, 487);
            }
        }
        let c = &self.agent.calls[call];
        if c.moves.is_some() && matches!(c.state, State::Trying | State::Ringing) {
            return self.hidden_failed(call, 487);
        }
        let reason = if self.ends_transferred(call) {
            EndReason::Transferred
        } else {
            EndReason::NormalClearing
        };
        let cause = message
            .header("Reason")
            .and_then(|value| sip::parse_reason(&value))
            .filter(|r| r.protocol == "Q.850")
            .and_then(|r| r.cause)
            .unwrap_or(0);
        let end = End {
            reason,
            code: 0,
            cause,
        };
        self.finish(call, end);
    }

    /// A reply to an INVITE went nowhere: its transaction had ended before.
    pub fn on_not_replied(&mut self, tx: ServerTx) {
        let Some(call) = self
            .agent
            .calls
            .iter()
            .position(|c| c.leg.invite_tx == Some(tx))
        else {
            return;
        };
        match self.agent.calls[call].state {
            State::Incoming if self.agent.calls[call].moves.is_some() => {
                self.hidden_failed(call, 487);
            }
            State::Incoming | State::Answering => {
                self.finish(call, End::with_code(EndReason::Cancelled, 487));
            }
            // it took the call over, and the far side of before has had its BYE
            State::Established => {
                self.finish(call, End::with_code(EndReason::NetworkError, 487));
            }
            State::Terminating => {
                self.agent.calls.remove(call);
            }
            _ => {}
        }
    }

    /// Transactions of before the restart are gone: a call that was not answered yet cannot go on, one that was can. `elsewhere`: they are
    /// those of another node, which may live.
    pub fn calls_after_restart(&mut self, elsewhere: bool) {
        let keys: Vec<String> = self.agent.calls.iter().map(|c| c.leg.key.clone()).collect();
        for key in keys {
            // the end of one may be that of another
            let Some(call) = self.agent.calls.iter().position(|c| c.leg.key == key) else {
                continue;
            };
            match self.agent.calls[call].state {
                State::Trying | State::Ringing | State::Incoming
                    if self.agent.calls[call].moves.is_some() =>
                {
                    self.hidden_failed(call, 503);
                }
                State::Trying | State::Ringing | State::Incoming => {
                    let end = End::with_code(EndReason::ServiceUnavailable, 503);
                    self.finish(call, end);
                }
                State::Cancelling => {
                    self.agent.calls.remove(call);
                }
                // the ACK may have come while nobody was there
                State::Answering => {
                    let c = &mut self.agent.calls[call];
                    c.state = State::Established;
                    c.leg.invite_tx = None;
                    c.leg.answer_in_ack = false;
                    c.deadline = 0;
                }
                State::Terminating => {
                    let c = &mut self.agent.calls[call];
                    c.leg.ack_by = 0;
                    let sent = c.leg.bye == Owed::Sent;
                    // whether one has left nobody knows
                    c.leg.bye = Owed::Waiting;
                    if elsewhere && sent {
                        // a node that lives repeats it, and tells when it is answered
                        c.deadline = self.now + BYE_ELSEWHERE;
                    } else {
                        self.send_bye(call);
                    }
                }
                State::Established => self.forget_transactions(call),
            }
        }
    }

    /// What was under way in an established dialog when Kamailio ended will never be answered.
    fn forget_transactions(&mut self, call: usize) {
        let leg = &mut self.agent.calls[call].leg;
        let key = leg.key.clone();
        leg.ack_by = 0;
        // an answer that would have come with the ACK comes no more
        let in_ack = std::mem::take(&mut leg.answer_in_ack);
        let offered = leg.far_offer.take().is_some();
        // an offer that may have been taken: the next one says where it stands
        let sent = std::mem::take(&mut leg.sent);
        if offered || in_ack {
            let update = self.updated(call, None, Some(false));
            self.event_of_call(call, &update);
        }
        for sent in sent {
            // each of these may end the call
            if self.agent.calls.get(call).is_none_or(|c| c.leg.key != key) {
                return;
            }
            match sent.purpose {
                InDialog::Digit => self.on_digit_reply(call, 503),
                InDialog::Record => self.on_record_reply(call, 503),
                InDialog::Refer => self.on_refer_reply(call, 503, None),
                InDialog::Reinvite | InDialog::Update => self.offer_failed(call, 503),
                InDialog::Bye
                | InDialog::Trickle
                | InDialog::Notify
                | InDialog::Prack
                | InDialog::Look => {}
            }
        }
    }

    /// The call whose dialog a message belongs to (RFC 3261, section 12).
    fn call_of(&self, message: &Message<'_>) -> Option<usize> {
        let call_id = message.header("Call-ID")?;
        let (local, remote) = (tag_of(message, "To"), tag_of(message, "From"));
        self.agent.calls.iter().position(|c| {
            // who has answered may ask something at once, and a worker may have that before another one has the 200
            let unanswered = c.direction == Direction::Out
                && matches!(c.state, State::Trying | State::Ringing | State::Cancelling);
            c.leg.dialog.call_id == call_id
                && c.leg.dialog.local_tag == local
                && (c.leg.dialog.remote_tag == remote || unanswered)
        })
    }
}

/// The tag of From or To; empty if there is none.
fn tag_of(message: &Message<'_>, header: &str) -> String {
    message
        .header(header)
        .and_then(|v| NameAddr::parse(&v).ok())
        .and_then(|n| n.tag().map(str::to_owned))
        .unwrap_or_default()
}
