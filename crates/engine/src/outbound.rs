//! Calls that a browser starts, and the replies to our own requests.

use rtc_json_protocol::{EndReason, ProgressState, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{self as sip, Dialog, Message};

use crate::browser::progress;
use crate::call::{in_dialog, End, ACK_WAIT};
use crate::io::{Counter, Handle, Output, Purpose, SipRequest};
use crate::model::{Owed, State};
use crate::offer::shown;
use crate::register::{strongest_challenge, MAX_ANSWERS};
use crate::step::Step;

/// More requests than that do not go out in an early dialog.
const STRAY_STEP: u32 = 64;

impl Step<'_> {
    pub fn on_sip_reply(&mut self, handle: Handle, code: u16, message: Option<&Message<'_>>) {
        match handle.purpose {
            Purpose::Register => self.on_register_reply(handle.cseq, code, message),
            Purpose::InDialog => self.on_dialog_reply(&handle, code, message),
            Purpose::Probe => {}
            Purpose::Text => self.on_text_reply(&handle, code, message),
            Purpose::Invite => match self
                .agent
                .calls
                .iter()
                .position(|c| c.leg.key == handle.call)
            {
                Some(call) if self.agent.calls[call].leg.invite_cseq == handle.cseq => {
                    self.on_invite_reply(call, code, message);
                }
                _ => {
                    for request in message.map_or_else(Vec::new, |m| end_stray(&handle, code, m)) {
                        self.out.push(Output::Request(Box::new(request)));
                    }
                }
            },
        }
    }

    /// Sends the INVITE of a call; `authorization` is a header line or empty.
    pub fn invite(&mut self, call: usize, authorization: &str) {
        let contact = self.contact_header();
        let timer = self.timer_lines(call, true);
        let supported =
            "Supported: trickle-ice, timer, replaces, 100rel\r\nRecv-Info: trickle-ice\r\n";
        let c = &mut self.agent.calls[call];
        c.leg.dialog.local_cseq += 1;
        c.leg.invite_cseq = c.leg.dialog.local_cseq;
        c.leg.provisional = false;
        let next_hop = c.leg.next_hop.clone();
        let request = SipRequest {
            method: "INVITE",
            uri: c.leg.dialog.remote_target.clone(),
            from: c.leg.dialog.local_uri.clone(),
            from_tag: c.leg.dialog.local_tag.clone(),
            to: c.leg.dialog.remote_uri.clone(),
            to_tag: String::new(),
            call_id: c.leg.dialog.call_id.clone(),
            cseq: c.leg.invite_cseq,
            next_hop: match next_hop {
                // who was sent on by a 3xx goes where it says (RFC 3261, section 8.1.3.4)
                _ if c.leg.redirects > 0 => c.leg.dialog.remote_target.clone(),
                Some(hop) => hop,
                None => self.config.next_hop.clone(),
            },
            headers: [
                &contact,
                crate::inbound::ALLOW,
                supported,
                &timer,
                &crate::identity::asserted(&self.agent.dn, &self.config.domain),
                &c.leg.headers,
                authorization,
                "Content-Type: application/sdp\r\n",
            ]
            .concat(),
            body: c.leg.local_sdp.clone(),
            handle: Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::Invite,
                call: c.leg.key.clone(),
                cseq: c.leg.invite_cseq,
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
            (300..=399, Some(message)) if self.agent.calls[call].state.live() => {
                self.on_redirected(call, code, message);
            }
            (422, Some(message)) if self.agent.calls[call].state.live() => {
                let min = crate::timer::Said::of(message).min.unwrap_or(0);
                let known = self.agent.calls[call].leg.min_se.max(self.config.min_se);
                if min <= known || min > 86_400 {
                    return self.on_failed(call, code, Some(message));
                }
                self.agent.calls[call].leg.min_se = min;
                self.again(call, "");
            }
            _ => self.on_failed(call, code, message),
        }
    }

    fn on_provisional(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.leg.provisional = true;
        if c.leg.cancel == Owed::Waiting {
            c.leg.cancel = Owed::Sent;
            c.deadline = now + ACK_WAIT;
            let (call_id, cseq) = (c.leg.dialog.call_id.clone(), c.leg.invite_cseq);
            self.out.push(Output::Cancel { call_id, cseq });
            return;
        }
        // anything later than an answer is a straggler
        if code == 100 || !matches!(c.state, State::Trying | State::Ringing) {
            return;
        }
        let Some(message) = message else { return };
        if !self.confirm_reliable(call, code, message) {
            return;
        }
        self.note_abilities(call, message);
        let c = &mut self.agent.calls[call];
        // requests of the far side may come before its 200
        if c.leg.dialog.confirm(message).is_err() {
            return;
        }
        c.state = State::Ringing;
        if c.moves.is_some() {
            return self.moving_progress(call, code);
        }
        if c.ringing_at == 0 && code != 182 {
            c.ringing_at = now;
        }
        let early = match sdp_body(message) {
            Some(body) => sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy).ok(),
            None => None,
        };
        let update = match early {
            // the same answer may come in several replies: the browser can take it once
            Some(early) if c.leg.remote_sdp.is_empty() => {
                c.leg.remote_sdp.clone_from(&early.text);
                progress(c, ProgressState::Early, Some(shown(early.text)))
            }
            _ if code == 182 => progress(c, ProgressState::Queued, None),
            _ if code == 183 => return,
            _ => progress(c, ProgressState::Ringing, None),
        };
        self.event_of_call(call, &update);
    }

    fn on_accepted(&mut self, call: usize, message: &Message<'_>) {
        let c = &mut self.agent.calls[call];
        let answered = !matches!(c.state, State::Trying | State::Ringing | State::Cancelling);
        if answered {
            // a fork has answered as well (RFC 3261, section 13.2.2.4): the first one has the call
            return self.end_fork(call, message);
        }
        if c.leg.dialog.confirm(message).is_err() {
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
            None => Some(c.leg.remote_sdp.clone()).filter(|early| !early.is_empty()),
        };
        let hidden = self.agent.calls[call].moves.is_some();
        let Some(answer) = answer else {
            if hidden {
                return self.hidden_unusable(call);
            }
            // tm has acknowledged it: from here on only BYE ends it
            self.agent.calls[call].state = State::Established;
            let end = End::with_code(EndReason::NotAcceptable, 488);
            return self.hang_up(call, end, 480, None);
        };
        self.timer_answered(call, message);
        self.note_abilities(call, message);
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.state = State::Established;
        c.answered_at = now;
        c.deadline = 0;
        c.leg.remote_sdp.clone_from(&answer);
        c.leg.trickle = Some(crate::trickle::takes(message));
        c.leg.targets.clear();
        if hidden {
            return self.moved(call, answer);
        }
        c.remote_hold = matches!(
            sdp::direction(&answer),
            sdp::Direction::SendOnly | sdp::Direction::Inactive
        );
        let accepted = ServerMessage::CallAccepted {
            call_id: c.id.clone(),
            sdp: shown(answer),
        };
        let request = c.request.clone().unwrap_or_default();
        self.out.push(Output::Count(Counter::CallsAnswered));
        if let Some(session) = self.owner(call) {
            self.outcome(session, &request, &accepted);
        }
        if self.agent.calls[call].remote_hold {
            let update = self.updated(call, None, None);
            self.event_of_call(call, &update);
        }
        self.send_candidates(call);
    }

    /// Another fork has accepted: it is ended at once.
    fn end_fork(&mut self, call: usize, message: &Message<'_>) {
        let c = &self.agent.calls[call];
        let same =
            sip::Dialog::from_reply(message).is_ok_and(|d| d.remote_tag == c.leg.dialog.remote_tag);
        if same {
            return;
        }
        let handle = Handle {
            dn: self.agent.dn.clone(),
            purpose: Purpose::Invite,
            call: c.leg.key.clone(),
            cseq: c.leg.invite_cseq,
        };
        // a PRACK may have gone there already
        let last = self.agent.calls[call].leg.dialog.local_cseq;
        for request in end_stray_after(&handle, 200, message, last) {
            self.out.push(Output::Request(Box::new(request)));
        }
    }

    /// The new far side of a call has answered with what its browser cannot use.
    fn hidden_unusable(&mut self, hidden: usize) {
        let call = self.agent.calls[hidden].moves.clone();
        self.send_bye(hidden);
        let call = call.and_then(|id| self.live_call(&id));
        if let Some(call) = call {
            self.move_failed(call, 488);
        }
    }

    /// The INVITE once more, after a refusal that can be mended.
    fn again(&mut self, call: usize, authorization: &str) {
        let c = &mut self.agent.calls[call];
        c.state = State::Trying;
        c.leg.forget_early();
        self.invite(call, authorization);
    }

    /// 3xx: the next address is tried, as long as the operator allows more.
    fn on_redirected(&mut self, call: usize, code: u16, message: &Message<'_>) {
        let mut found: Vec<(u32, String)> = message
            .list("Contact")
            .iter()
            .filter_map(|value| sip::NameAddr::parse(value).ok())
            .filter_map(|address| {
                let q = address.param("q").flatten().map_or(1000, thousandths);
                // header fields in a Contact of a 3xx are the far side's wish, not ours
                let uri = address.uri.split('?').next()?.to_owned();
                let parsed = sip::Uri::parse(&uri).ok()?;
                let scheme = parsed.scheme.eq_ignore_ascii_case("sip")
                    || parsed.scheme.eq_ignore_ascii_case("sips");
                (scheme && !parsed.host.is_empty()).then_some((q, uri))
            })
            .collect();
        // best first; those of one rank in their order
        found.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
        let max = self.config.max_redirects;
        let leg = &mut self.agent.calls[call].leg;
        for (_, uri) in found {
            if leg.targets.len() < max
                && !leg.targets.contains(&uri)
                && leg.dialog.remote_target != uri
            {
                leg.targets.push(uri);
            }
        }
        if !self.next_target(call) {
            self.on_failed(call, code, Some(message));
        }
    }

    /// Tries the next address of a 3xx; false if there is none.
    fn next_target(&mut self, call: usize) -> bool {
        let max = self.config.max_redirects;
        let c = &mut self.agent.calls[call];
        if !c.state.live() || c.leg.redirects >= max || c.leg.targets.is_empty() {
            return false;
        }
        c.leg.redirects += 1;
        c.leg.answered = 0;
        c.leg.dialog.remote_target = c.leg.targets.remove(0);
        c.leg.dialog.remote_tag.clear();
        c.leg.dialog.routes.clear();
        self.again(call, "");
        true
    }

    fn on_challenged(&mut self, call: usize, code: u16, message: &Message<'_>) {
        let challenge = strongest_challenge(message);
        let answered = self.agent.calls[call].leg.answered;
        let again = challenge
            .as_ref()
            .is_some_and(|c| answered == 0 || (c.stale && answered < MAX_ANSWERS));
        let header = authorization_header(code);
        self.agent.upstream.challenge = challenge.or(self.agent.upstream.challenge.take());
        self.agent.upstream.nonce_count = 0;
        let uri = self.agent.calls[call].leg.dialog.remote_target.clone();
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
                    c.leg.asked = Some(asked);
                    c.leg.forget_early();
                    return;
                }
            }
            return self.on_failed(call, code, Some(message));
        }
        self.agent.calls[call].leg.answered += 1;
        self.again(call, &line);
    }

    fn on_failed(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        // RFC 3261, section 8.1.3.4: 6xx is final for all of them
        if code < 600 && self.next_target(call) {
            return;
        }
        if self.agent.calls[call].moves.is_some() && self.agent.calls[call].state.live() {
            return self.hidden_failed(call, code);
        }
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
            (408, None) if !c.leg.provisional => EndReason::NetworkError,
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
}

/// An answer to an INVITE that nobody has a use for: its call is gone, or another fork has it. Where `code` is a 2xx: ACK and
/// BYE for it. (tm acknowledges only the first fork, and repeats that same ACK for the others.)
pub fn end_stray(handle: &Handle, code: u16, message: &Message<'_>) -> Vec<SipRequest> {
    // how far the CSeq numbers went in it nobody knows any more; they only have to rise (RFC 3261, section 12.2.1.1)
    end_stray_after(
        handle,
        code,
        message,
        handle.cseq.saturating_add(STRAY_STEP),
    )
}

/// `last`: CSeq that nothing in that dialog was beyond.
fn end_stray_after(
    handle: &Handle,
    code: u16,
    message: &Message<'_>,
    last: u32,
) -> Vec<SipRequest> {
    let (Ok(mut dialog), 200..=299) = (Dialog::from_reply(message), code) else {
        return Vec::new();
    };
    // nothing waits for a reply
    let stray = |cseq: u32| Handle {
        purpose: Purpose::InDialog,
        call: String::from("-"),
        cseq,
        ..handle.clone()
    };
    let ack = stray(dialog.local_cseq);
    let ack = in_dialog(&dialog, "ACK", "", String::new(), ack);
    dialog.local_cseq = last.saturating_add(1);
    let bye = stray(dialog.local_cseq);
    let bye = in_dialog(&dialog, "BYE", "", String::new(), bye);
    vec![ack, bye]
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

/// A `q` of Contact (RFC 3261, section 20.10) in thousandths.
fn thousandths(q: &str) -> u32 {
    q.trim()
        .parse::<f32>()
        .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32)
}
