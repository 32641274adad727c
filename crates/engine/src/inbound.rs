//! SIP requests of the far side: calls that come in, and what happens inside a dialog.

use rtc_json_protocol::{EndReason, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{self as sip, Dialog, Message, NameAddr};

use crate::call::End;
use crate::identity;
use crate::io::{Counter, Output};
use crate::model::{Call, Direction, Owed, ServerTx, State};
use crate::outbound::sdp_body;
use crate::step::Step;

/// What this user agent takes (RFC 3261, section 20.5).
pub(crate) const ALLOW: &str =
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, MESSAGE\r\n";

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
        if method != "CANCEL" {
            // RFC 3261, section 12.2.2
            let cseq = message.cseq().unwrap_or(0);
            let dialog = &mut self.agent.calls[call].dialog;
            if dialog.remote_cseq.is_some_and(|last| cseq < last) {
                return self.status(tx, 500);
            }
            dialog.remote_cseq = Some(cseq);
        }
        match method {
            "BYE" => self.on_bye(call, message, tx),
            "INVITE" => self.on_reinvite(call, message, tx, true),
            "UPDATE" => self.on_reinvite(call, message, tx, false),
            "CANCEL" => self.on_cancel(message, tx),
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

    fn refuse_invite(&mut self, tx: ServerTx, code: u16) {
        self.reply(tx, true, code, "", String::new(), String::new());
    }

    fn on_invite(&mut self, message: &Message<'_>, user: &str, tx: ServerTx, trusted: bool) {
        let call_id = message.header("Call-ID").unwrap_or_default().into_owned();
        let from_tag = tag_of(message, "From");
        let merged = self.agent.calls.iter().any(|c| {
            c.direction == Direction::In
                && c.dialog.call_id == call_id
                && c.dialog.remote_tag == from_tag
        });
        if merged {
            // the same request by another path (RFC 3261, section 8.2.2.2)
            return self.refuse_invite(tx, 482);
        }
        self.out.push(Output::Count(Counter::CallsIn));
        if self.agent.sessions.is_empty() {
            return self.refuse_invite(tx, 480);
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
        let tag = self.random_text(10);
        let Ok(dialog) = Dialog::incoming(message, &tag) else {
            return self.refuse_invite(tx, 400);
        };
        let from = identity::remote_of(message, trusted);
        let id = self.random_text(16);
        let call = Call {
            id: id.clone(),
            direction: Direction::In,
            state: State::Incoming,
            session: None,
            peer: from.number.clone(),
            peer_name: from.name,
            own: sip::unescape_user(user),
            request: None,
            dialog,
            invite_cseq: 0,
            provisional: false,
            cancel: Owed::No,
            bye: Owed::No,
            answered: 0,
            asked: None,
            invite_tx: Some(tx),
            offerless: offer.is_none(),
            ack_owed: false,
            local_sdp: String::new(),
            remote_sdp: offer.unwrap_or_default(),
            trickle: None,
            candidates: Vec::new(),
            trickle_cseq: 0,
            remote_hold: false,
            next_hop: None,
            headers: String::new(),
            started_at: self.now,
            ringing_at: self.now,
            answered_at: 0,
            started_unix: self.unix_now,
            deadline: self.now + self.config.ring_timeout,
            end: None,
        };
        let announce = ServerMessage::IncomingCall {
            call_id: id,
            from: from.number,
            display_name: call.peer_name.clone(),
            sdp: Some(call.remote_sdp.clone()).filter(|s| !s.is_empty()),
            to: Some(call.own.clone()),
            headers: identity::shown_headers(message, &self.config.headers_in, trusted),
            diversion: identity::diversion(message),
        };
        self.agent.calls.push(call);
        let call = self.agent.calls.len() - 1;
        self.agent.calls[call].trickle = Some(crate::trickle::takes(message));
        self.event_of_call(call, &announce);
        let headers = format!("{}{ALLOW}", self.contact_header());
        self.reply(tx, true, 180, &tag, headers, String::new());
    }

    fn on_cancel(&mut self, message: &Message<'_>, tx: ServerTx) {
        let call_id = message.header("Call-ID").unwrap_or_default();
        let from_tag = tag_of(message, "From");
        let cseq = message.cseq();
        let call = self.agent.calls.iter().position(|c| {
            c.direction == Direction::In
                && c.dialog.call_id == call_id
                && c.dialog.remote_tag == from_tag
                && c.dialog.remote_cseq == cseq
        });
        let Some(call) = call else {
            return self.status(tx, 481);
        };
        // RFC 3261, section 9.2: the same To tag as in the reply to the INVITE
        let tag = self.agent.calls[call].dialog.local_tag.clone();
        self.reply(tx, false, 200, &tag, String::new(), String::new());
        if self.agent.calls[call].state == State::Incoming {
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
        c.ack_owed = false;
        match c.state {
            State::Answering => {
                c.state = State::Established;
                c.deadline = 0;
                c.invite_tx = None;
                if c.offerless {
                    self.on_answer_in_ack(call, message);
                } else {
                    self.send_candidates(call);
                }
            }
            State::Terminating if c.bye == Owed::Waiting => self.send_bye(call),
            _ => {}
        }
    }

    /// The INVITE had no offer, so ours stood in the 200 and the answer comes with the ACK (RFC 3261, section 13.2.1).
    fn on_answer_in_ack(&mut self, call: usize, message: &Message<'_>) {
        let answer = sdp_body(message)
            .and_then(|body| sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy).ok());
        match answer {
            Some(answer) => {
                let c = &mut self.agent.calls[call];
                c.remote_sdp.clone_from(&answer.text);
                let update = ServerMessage::CallUpdated {
                    call_id: c.id.clone(),
                    hold: false,
                    remote_hold: false,
                    sdp: Some(answer.text),
                    answer_needed: None,
                    remote: None,
                };
                self.event_of_call(call, &update);
            }
            None => {
                let end = End::with_code(EndReason::MediaError, 488);
                self.hang_up(call, end, 488, None);
            }
        }
    }

    fn on_bye(&mut self, call: usize, message: &Message<'_>, tx: ServerTx) {
        self.status(tx, 200);
        let cause = message
            .header("Reason")
            .and_then(|value| sip::parse_reason(&value))
            .filter(|r| r.protocol == "Q.850")
            .and_then(|r| r.cause)
            .unwrap_or(0);
        let end = End {
            reason: EndReason::NormalClearing,
            code: 0,
            cause,
        };
        self.finish(call, end);
    }

    /// An offer of the far side in the dialog. A change of direction is answered here; anything else would need the
    /// browser.
    fn on_reinvite(&mut self, call: usize, message: &Message<'_>, tx: ServerTx, invite: bool) {
        let c = &self.agent.calls[call];
        match c.state {
            State::Established if !c.ack_owed => {}
            State::Cancelling | State::Terminating => {
                return self.reply(tx, invite, 481, "", String::new(), String::new());
            }
            // an UPDATE without offer only refreshes
            _ if !invite && sdp_body(message).is_none() => {}
            _ => return self.reply(tx, invite, 491, "", String::new(), String::new()),
        }
        if let Some(target) = message
            .header("Contact")
            .and_then(|v| NameAddr::parse(&v).ok())
        {
            // target refresh (RFC 3261, section 12.2.2; RFC 3311, section 5.2)
            self.agent.calls[call].dialog.remote_target = target.uri;
        }
        let contact = self.contact_header();
        let with_sdp = format!("{contact}{ALLOW}Content-Type: application/sdp\r\n");
        let Some(body) = sdp_body(message) else {
            if invite {
                // no offer in it: the 200 carries ours, unchanged
                let c = &mut self.agent.calls[call];
                c.ack_owed = true;
                let sdp = sdp::with_direction(&c.local_sdp, sdp::direction(&c.local_sdp));
                c.local_sdp.clone_from(&sdp);
                return self.reply(tx, true, 200, "", with_sdp, sdp);
            }
            return self.reply(
                tx,
                false,
                200,
                "",
                format!("{contact}{ALLOW}"),
                String::new(),
            );
        };
        let offer = match sdp::from_sip(&body, sdp::Kind::Offer, &self.config.policy) {
            Ok(offer)
                if sdp::only_direction_differs(&self.agent.calls[call].remote_sdp, &offer.text) =>
            {
                offer
            }
            // the media that runs goes on (RFC 3261, section 14.2)
            _ => return self.reply(tx, invite, 488, "", String::new(), String::new()),
        };
        let c = &mut self.agent.calls[call];
        let answer = as_answer(
            &sdp::with_direction(&c.local_sdp, sdp::mirror(offer.direction)),
            &c.remote_sdp,
        );
        let hold = matches!(
            offer.direction,
            sdp::Direction::SendOnly | sdp::Direction::Inactive
        );
        let changed = hold != c.remote_hold;
        c.remote_hold = hold;
        c.local_sdp.clone_from(&answer);
        c.ack_owed = invite;
        let update = ServerMessage::CallUpdated {
            call_id: c.id.clone(),
            hold: false,
            remote_hold: hold,
            sdp: None,
            answer_needed: None,
            remote: None,
        };
        self.reply(tx, invite, 200, "", with_sdp, answer);
        if changed {
            self.event_of_call(call, &update);
        }
    }

    /// A reply to an INVITE went nowhere: its transaction had ended before.
    pub fn on_not_replied(&mut self, tx: ServerTx) {
        let Some(call) = self
            .agent
            .calls
            .iter()
            .position(|c| c.invite_tx == Some(tx))
        else {
            return;
        };
        match self.agent.calls[call].state {
            State::Incoming | State::Answering => {
                self.finish(call, End::with_code(EndReason::Cancelled, 487));
            }
            State::Terminating => {
                self.agent.calls.remove(call);
            }
            _ => {}
        }
    }

    /// Transactions of before the restart are gone: a call that was not answered yet cannot go on, one that was can.
    pub fn calls_after_restart(&mut self) {
        let mut call = 0;
        while call < self.agent.calls.len() {
            let before = self.agent.calls.len();
            match self.agent.calls[call].state {
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
                    c.invite_tx = None;
                    c.deadline = 0;
                }
                State::Terminating => self.send_bye(call),
                State::Established => {
                    let c = &mut self.agent.calls[call];
                    c.ack_owed = false;
                    c.trickle_cseq = 0;
                }
            }
            if self.agent.calls.len() == before {
                call += 1;
            }
        }
    }

    /// The call whose dialog a message belongs to (RFC 3261, section 12).
    fn call_of(&self, message: &Message<'_>) -> Option<usize> {
        let call_id = message.header("Call-ID")?;
        let (local, remote) = (tag_of(message, "To"), tag_of(message, "From"));
        self.agent.calls.iter().position(|c| {
            c.dialog.call_id == call_id
                && c.dialog.local_tag == local
                && c.dialog.remote_tag == remote
        })
    }
}

/// An answer names its own DTLS role, the one that was agreed first (RFC 8842, section 5.5: it stays as long as the
/// association does).
fn as_answer(local: &str, remote: &str) -> String {
    let role = if remote.contains("a=setup:active") {
        "a=setup:passive"
    } else {
        "a=setup:active"
    };
    local.replace("a=setup:actpass", role)
}

/// The tag of From or To; empty if there is none.
fn tag_of(message: &Message<'_>, header: &str) -> String {
    message
        .header(header)
        .and_then(|v| NameAddr::parse(&v).ok())
        .and_then(|n| n.tag().map(str::to_owned))
        .unwrap_or_default()
}
