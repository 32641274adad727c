//! Calls that a browser starts, and the replies to our own requests.

use rtc_json_protocol::{EndReason, ProgressState, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{self as sip, Dialog, Message};

use crate::browser::progress;
use crate::call::{in_dialog, End, ACK_WAIT};
use crate::io::{Counter, Handle, Output, Purpose, SipRequest};
use crate::model::{Owed, State};
use crate::register::{strongest_challenge, MAX_ANSWERS};
use crate::step::Step;

impl Step<'_> {
    pub fn on_sip_reply(&mut self, handle: Handle, code: u16, message: Option<&Message<'_>>) {
        match handle.purpose {
            Purpose::Register => self.on_register_reply(handle.cseq, code, message),
            Purpose::Bye => self.on_bye_reply(&handle, code, message),
            Purpose::Trickle => self.on_trickle_reply(&handle, code),
            Purpose::Text => self.on_text_reply(&handle, code, message),
            Purpose::Invite => match self.agent.calls.iter().position(|c| c.id == handle.call) {
                Some(call) if self.agent.calls[call].invite_cseq == handle.cseq => {
                    self.on_invite_reply(call, code, message);
                }
                _ => {
                    let bye = message.and_then(|m| end_stray(&handle, code, m));
                    if let Some(bye) = bye {
                        self.out.push(Output::Request(Box::new(bye)));
                    }
                }
            },
        }
    }

    /// Sends the INVITE of a call; `authorization` is a header line or empty.
    pub fn invite(&mut self, call: usize, authorization: &str) {
        let contact = self.contact_header();
        let c = &mut self.agent.calls[call];
        c.dialog.local_cseq += 1;
        c.invite_cseq = c.dialog.local_cseq;
        c.provisional = false;
        let next_hop = c.next_hop.clone();
        let request = SipRequest {
            method: "INVITE",
            uri: c.dialog.remote_target.clone(),
            from: c.dialog.local_uri.clone(),
            from_tag: c.dialog.local_tag.clone(),
            to: c.dialog.remote_uri.clone(),
            to_tag: String::new(),
            call_id: c.dialog.call_id.clone(),
            cseq: c.invite_cseq,
            next_hop: next_hop.unwrap_or_else(|| self.config.next_hop.clone()),
            headers: [
                &contact,
                crate::inbound::ALLOW,
                crate::trickle::SUPPORTED,
                &crate::identity::asserted(&self.agent.dn, &self.config.domain),
                &c.headers,
                authorization,
                "Content-Type: application/sdp
",
            ]
            .concat(),
            body: c.local_sdp.clone(),
            handle: Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::Invite,
                call: c.id.clone(),
                cseq: c.invite_cseq,
            },
        };
        self.out.push(Output::Request(Box::new(request)));
    }

    fn on_invite_reply(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        match (code, message) {
            (100..=199, message) => self.on_provisional(call, code, message),
            (200..=299, Some(message)) => self.on_accepted(call, message),
            (401 | 407, Some(message)) if self.agent.calls[call].state.live() => {
                self.on_challenged(call, code, message);
            }
            _ => self.on_failed(call, code, message),
        }
    }

    fn on_provisional(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.provisional = true;
        if c.cancel == Owed::Waiting {
            c.cancel = Owed::Sent;
            c.deadline = now + ACK_WAIT;
            let (call_id, cseq) = (c.dialog.call_id.clone(), c.invite_cseq);
            self.out.push(Output::Cancel { call_id, cseq });
            return;
        }
        // anything later than an answer is a straggler
        if code == 100 || !matches!(c.state, State::Trying | State::Ringing) {
            return;
        }
        let Some(message) = message else { return };
        // requests of the far side may come before its 200
        if c.dialog.confirm(message).is_err() {
            return;
        }
        c.state = State::Ringing;
        if c.ringing_at == 0 && code != 182 {
            c.ringing_at = now;
        }
        let early = match sdp_body(message) {
            Some(body) => sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy).ok(),
            None => None,
        };
        let update = match early {
            // the same answer may come in several replies: the browser can take it once
            Some(early) if c.remote_sdp.is_empty() => {
                c.remote_sdp.clone_from(&early.text);
                progress(c, ProgressState::Early, Some(early.text))
            }
            _ if code == 182 => progress(c, ProgressState::Queued, None),
            _ if code == 183 => return,
            _ => progress(c, ProgressState::Ringing, None),
        };
        self.event_of_call(call, &update);
    }

    fn on_accepted(&mut self, call: usize, message: &Message<'_>) {
        let c = &mut self.agent.calls[call];
        if c.dialog.confirm(message).is_err() {
            // tm cannot even acknowledge it; the far side gives up by itself
            return self.finish(call, End::with_code(EndReason::NetworkError, 500));
        }
        match c.state {
            State::Trying | State::Ringing => {}
            // the browser was faster, or the 200 crossed our CANCEL: the call must be ended as a whole
            State::Cancelling => return self.send_bye(call),
            _ => return,
        }
        let answer = match sdp_body(message) {
            Some(body) => sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy)
                .map(|answer| answer.text)
                .ok(),
            None => Some(c.remote_sdp.clone()).filter(|early| !early.is_empty()),
        };
        let Some(answer) = answer else {
            let end = End::with_code(EndReason::NotAcceptable, 488);
            self.tell_end(call, end, None);
            return self.send_bye(call);
        };
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.state = State::Established;
        c.answered_at = now;
        c.deadline = 0;
        c.remote_sdp.clone_from(&answer);
        c.trickle = Some(crate::trickle::takes(message));
        let accepted = ServerMessage::CallAccepted {
            call_id: c.id.clone(),
            sdp: answer,
        };
        let request = c.request.clone().unwrap_or_default();
        self.out.push(Output::Count(Counter::CallsAnswered));
        if let Some(session) = self.owner(call) {
            self.outcome(session, &request, &accepted);
        }
        self.send_candidates(call);
    }

    fn on_challenged(&mut self, call: usize, code: u16, message: &Message<'_>) {
        let challenge = strongest_challenge(message);
        let answered = self.agent.calls[call].answered;
        let again = challenge
            .as_ref()
            .is_some_and(|c| answered == 0 || (c.stale && answered < MAX_ANSWERS));
        let header = authorization_header(code);
        self.agent.upstream.challenge = challenge.or(self.agent.upstream.challenge.take());
        self.agent.upstream.nonce_count = 0;
        let uri = self.agent.calls[call].dialog.remote_target.clone();
        let ha1 = self.agent.upstream.ha1.clone();
        let line = if again {
            self.authorization("INVITE", &uri, &ha1, header)
        } else {
            String::new()
        };
        if line.is_empty() {
            if again && ha1.is_empty() {
                // nobody but the browser knows the secret
                if let Some(asked) = self.challenge_call(call, code, message, "INVITE", &uri) {
                    let c = &mut self.agent.calls[call];
                    c.deadline = asked.deadline;
                    c.asked = Some(asked);
                    return;
                }
            }
            return self.on_failed(call, code, Some(message));
        }
        self.agent.calls[call].answered += 1;
        self.invite(call, &line);
    }

    fn on_failed(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        let c = &self.agent.calls[call];
        let cause = message
            .and_then(|m| m.header("Reason"))
            .and_then(|value| sip::parse_reason(&value))
            .filter(|r| r.protocol == "Q.850")
            .and_then(|r| r.cause)
            .unwrap_or(0);
        let reason = match (code, message) {
            (408, None) if c.ringing_at != 0 => EndReason::NoAnswer,
            // nobody there at all
            (408, None) if !c.provisional => EndReason::NetworkError,
            (408, None) => EndReason::Timeout,
            (503, None) => EndReason::NetworkError,
            _ => sip_end_reason(code, cause),
        };
        self.finish(
            call,
            End {
                reason,
                code,
                cause,
            },
        );
    }

    fn on_bye_reply(&mut self, handle: &Handle, code: u16, message: Option<&Message<'_>>) {
        let Some(call) = self.agent.calls.iter().position(|c| c.id == handle.call) else {
            return;
        };
        if code < 200 || self.agent.calls[call].dialog.local_cseq != handle.cseq {
            return;
        }
        if let (401 | 407, 0, Some(message)) = (code, self.agent.calls[call].answered, message) {
            if let Some(challenge) = strongest_challenge(message) {
                self.agent.upstream.challenge = Some(challenge);
                self.agent.upstream.nonce_count = 0;
                let uri = self.agent.calls[call].dialog.request_uri().to_owned();
                let ha1 = self.agent.upstream.ha1.clone();
                let line = self.authorization("BYE", &uri, &ha1, authorization_header(code));
                if !line.is_empty() {
                    self.agent.calls[call].answered += 1;
                    return self.bye_request(call, &line);
                }
            }
        }
        self.agent.calls.remove(call);
    }
}

/// An answer to an INVITE whose call is gone: tm has acknowledged it, so it has to be ended. The BYE for it, where `code`
/// is a 2xx.
pub fn end_stray(handle: &Handle, code: u16, message: &Message<'_>) -> Option<SipRequest> {
    if !(200..=299).contains(&code) {
        return None;
    }
    let mut dialog = Dialog::from_reply(message).ok()?;
    dialog.local_cseq += 1;
    let handle = Handle {
        purpose: Purpose::Bye,
        cseq: dialog.local_cseq,
        ..handle.clone()
    };
    Some(in_dialog(&dialog, "BYE", "", String::new(), handle))
}

/// The SDP of a message, if it has one.
pub(crate) fn sdp_body(message: &Message<'_>) -> Option<String> {
    let is_sdp = message
        .header("Content-Type")
        .is_some_and(|t| t.trim().to_ascii_lowercase().starts_with("application/sdp"));
    if !is_sdp || message.body().is_empty() {
        return None;
    }
    std::str::from_utf8(message.body()).ok().map(str::to_owned)
}

/// The word for the end of a call by a final reply.
fn sip_end_reason(code: u16, cause: u16) -> EndReason {
    let cause = Some(cause).filter(|c| *c != 0);
    EndReason::parse(sip::end_reason(code, cause)).unwrap_or(EndReason::InternalError)
}

/// Which header answers which challenge (RFC 3261, section 22).
pub(crate) fn authorization_header(code: u16) -> &'static str {
    if code == 407 {
        "Proxy-Authorization"
    } else {
        "Authorization"
    }
}
