//! ICE candidates after the description, in INFO (RFC 8840). Only to a far side that announced it takes them: Asterisk never
//! answers such a request, and needs none, since the browser's checks reach it. Two browsers need them, for neither knows
//! the other's address.

use rtc_json_protocol::{Candidate, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{split_list, Message};

use crate::browser::no_call;
use crate::config::Trickle;
use crate::model::{InDialog, State, Want};
use crate::step::Step;

/// Says that we take candidates in INFO (RFC 8840, section 3, and RFC 6086, section 4.2.1).
pub(crate) const SUPPORTED: &str =
    "Supported: trickle-ice, timer, replaces\r\nRecv-Info: trickle-ice\r\n";
/// Candidates kept for a call whose far side cannot take them yet; a browser has some ten.
const MAX_CANDIDATES: usize = 32;

/// Does the sender of a message take candidates in INFO?
pub(crate) fn takes(message: &Message<'_>) -> bool {
    message
        .headers("Supported")
        .any(|value| split_list(&value).any(|tag| tag.eq_ignore_ascii_case("trickle-ice")))
}

/// Does the far side show no address that a browser could send to? (The placeholder counts as none, RFC 8839 allows it; a name
/// of mDNS means something in its own network only.)
fn hides(remote: &str) -> bool {
    let shown = sdp::candidates(remote).lines;
    !shown.lines().any(|line| {
        line.starts_with("a=candidate:")
            && !line.contains(" 0.0.0.0 9 ")
            && !line.contains(".local ")
    })
}

impl Step<'_> {
    /// A candidate of the browser. No outcome on success.
    pub fn candidate(
        &mut self,
        session: usize,
        id: &str,
        call_id: &str,
        candidate: Option<Candidate>,
    ) {
        let number = self.agent.sessions[session].number;
        let call = self
            .live_call(call_id)
            .filter(|call| self.agent.calls[*call].session == Some(number));
        let Some(call) = call else {
            return self.note(session, id, &no_call(call_id).to_message(id));
        };
        let c = &mut self.agent.calls[call];
        if c.leg.candidates.len() >= MAX_CANDIDATES {
            return;
        }
        let line = candidate.map(|c| c.candidate).unwrap_or_default();
        if line.is_empty() || line.starts_with("candidate:") {
            c.leg.candidates.push(line);
            self.send_candidates(call);
        }
    }

    /// Sends the candidates that wait, in one request at a time and only in an established dialog.
    pub fn send_candidates(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        let under_way = |purpose: InDialog| c.leg.sent.iter().any(|s| s.purpose == purpose);
        if c.state != State::Established || under_way(InDialog::Trickle) {
            return;
        }
        let info = c.leg.trickle == Some(true);
        let by_info = match self.config.trickle {
            Trickle::Off => None,
            Trickle::Info => info.then_some(true),
            Trickle::Update => c.leg.takes_update.then_some(false),
            Trickle::Auto if info => Some(true),
            Trickle::Auto => (c.leg.takes_update && hides(&c.leg.remote_sdp)).then_some(false),
        };
        if by_info.is_none() {
            c.leg.candidates.clear();
        }
        if c.leg.candidates.is_empty() {
            return;
        }
        if by_info == Some(false) {
            if !c.wants.contains(&Want::Candidates) {
                c.wants.push_back(Want::Candidates);
            }
            return self.next_offer(call);
        }
        let candidates = std::mem::take(&mut c.leg.candidates);
        let Some(body) = sdp::fragment(&c.leg.local_sdp, &candidates) else {
            return;
        };
        let headers = format!(
            "Info-Package: trickle-ice\r\nContent-Disposition: Info-Package\r\nContent-Type: {}\r\n",
            sdp::FRAGMENT_TYPE
        );
        self.send_in_dialog(call, InDialog::Trickle, headers, body);
    }

    /// The INFO has its answer. A far side that refuses it gets no other; the call goes on in any case.
    pub fn on_trickle_reply(&mut self, call: usize, code: u16) {
        if code >= 300 {
            self.agent.calls[call].leg.trickle = Some(false);
        }
        self.send_candidates(call);
    }

    /// INFO of the far side: its candidates go to the browser that has the call.
    pub fn on_info(&mut self, call: usize, message: &Message<'_>) {
        let is_fragment = message
            .content_type()
            .is_some_and(|t| t.eq_ignore_ascii_case(sdp::FRAGMENT_TYPE));
        let Ok(text) = std::str::from_utf8(message.body()) else {
            return;
        };
        if !is_fragment || !self.agent.calls[call].live() {
            return;
        }
        for trickled in sdp::trickled(text).into_iter().take(MAX_CANDIDATES) {
            let c = &self.agent.calls[call];
            let candidate = trickled.candidate.map(|candidate| Candidate {
                candidate,
                sdp_mid: Some(trickled.mid.clone()).filter(|mid| !mid.is_empty()),
                sdp_m_line_index: trickled.mid.is_empty().then_some(0),
            });
            let message = ServerMessage::IceCandidate {
                call_id: c.id.clone(),
                candidate,
            };
            self.event_of_call(call, &message);
        }
    }
}
