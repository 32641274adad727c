//! ICE candidates after the description, in INFO (RFC 8840). Only to a far side that announced it takes them: Asterisk never
//! answers such a request, and needs none, since the browser's checks reach it. Two browsers need them, for neither knows
//! the other's address.

use rtc_json_protocol::{Candidate, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{split_list, Message};

use crate::browser::no_call;
use crate::call::in_dialog;
use crate::io::{Handle, Output, Purpose};
use crate::model::State;
use crate::step::Step;

/// Says that we take candidates in INFO (RFC 8840, section 3, and RFC 6086, section 4.2.1).
pub(crate) const SUPPORTED: &str = "Supported: trickle-ice\r\nRecv-Info: trickle-ice\r\n";
/// Candidates kept for a call whose far side cannot take them yet; a browser has some ten.
const MAX_CANDIDATES: usize = 32;

/// Does the sender of a message take candidates in INFO?
pub(crate) fn takes(message: &Message<'_>) -> bool {
    message
        .headers("Supported")
        .any(|value| split_list(&value).any(|tag| tag.eq_ignore_ascii_case("trickle-ice")))
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
        if c.trickle == Some(false) || c.candidates.len() >= MAX_CANDIDATES {
            return;
        }
        let line = candidate.map(|c| c.candidate).unwrap_or_default();
        if line.is_empty() || line.starts_with("candidate:") {
            c.candidates.push(line);
            self.send_candidates(call);
        }
    }

    /// Sends the candidates that wait, in one INFO at a time and only in an established dialog.
    pub fn send_candidates(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        if c.trickle == Some(false) {
            c.candidates.clear();
        }
        if c.trickle != Some(true)
            || c.state != State::Established
            || c.trickle_cseq != 0
            || c.candidates.is_empty()
        {
            return;
        }
        let candidates = std::mem::take(&mut c.candidates);
        let Some(body) = sdp::fragment(&c.local_sdp, &candidates) else {
            return;
        };
        c.dialog.local_cseq += 1;
        c.trickle_cseq = c.dialog.local_cseq;
        let headers = format!(
            "Info-Package: trickle-ice\r\nContent-Disposition: Info-Package\r\nContent-Type: {}\r\n",
            sdp::FRAGMENT_TYPE
        );
        let handle = Handle {
            dn: self.agent.dn.clone(),
            purpose: Purpose::Trickle,
            call: c.id.clone(),
            cseq: c.trickle_cseq,
        };
        let info = in_dialog(&c.dialog, "INFO", &headers, body, handle);
        self.out.push(Output::Request(Box::new(info)));
    }

    /// The INFO has its answer. A far side that refuses it gets no other; the call goes on in any case.
    pub fn on_trickle_reply(&mut self, handle: &Handle, code: u16) {
        let found = self
            .agent
            .calls
            .iter()
            .position(|c| c.id == handle.call && c.trickle_cseq == handle.cseq);
        let (Some(call), 200..) = (found, code) else {
            return;
        };
        let c = &mut self.agent.calls[call];
        c.trickle_cseq = 0;
        if code >= 300 {
            c.trickle = Some(false);
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
        if !is_fragment || !self.agent.calls[call].state.live() {
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
