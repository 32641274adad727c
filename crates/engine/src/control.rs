//! What a browser does in a call beside its media: mute, digits, recording.

use rtc_json_protocol::{RecordingAction, RecordingState, ServerMessage};

use crate::config::DtmfMode;
use crate::model::{Digits, InDialog};
use crate::step::{Failure, Step};

/// `dtmf` messages of one call that may wait.
const MAX_DIGITS: usize = 16;

impl Step<'_> {
    /// `mute`: noted for those who watch, nothing goes out.
    pub fn mute(&mut self, session: usize, id: &str, call_id: &str, muted: bool) {
        if let Some(call) = self.mine(session, id, call_id) {
            self.agent.calls[call].muted = muted;
            self.ack(session, id, call_id);
        }
    }

    /// `dtmf`.
    pub fn dtmf(
        &mut self,
        session: usize,
        id: &str,
        call_id: &str,
        digits: &str,
        duration: Option<u32>,
    ) {
        let Some(call) = self.mine(session, id, call_id) else {
            return;
        };
        let c = &mut self.agent.calls[call];
        let in_rtp = self.config.dtmf_mode == DtmfMode::Rfc4733
            && has_event(&c.leg.remote_sdp)
            && has_event(&c.leg.local_sdp);
        if in_rtp {
            let ack = ServerMessage::Ack {
                call_id: Some(call_id.to_owned()),
                mode: Some("rfc4733"),
            };
            return self.outcome(session, id, &ack);
        }
        if c.digits.len() >= MAX_DIGITS {
            let failure = Failure::new(503, "Service Unavailable", "too many digits wait");
            return self.refuse(session, id, &failure.of_call(call_id));
        }
        c.digits.push_back(Digits {
            request: id.to_owned(),
            rest: digits.to_owned(),
            duration: duration.unwrap_or(self.config.dtmf_duration),
        });
        self.agent.sessions[session].set_outcome(id, crate::packed::Outcome::Pending);
        if self.agent.calls[call].digits.len() == 1 {
            self.next_digit(call);
        }
    }

    /// Sends the first digit that waits. One at a time, so that their order holds.
    fn next_digit(&mut self, call: usize) {
        let Some(digits) = self.agent.calls[call].digits.front_mut() else {
            return;
        };
        let digit = digits.rest.remove(0);
        let body = format!("Signal={digit}\r\nDuration={}\r\n", digits.duration);
        let headers = "Content-Type: application/dtmf-relay\r\n".to_owned();
        if !self.send_in_dialog(call, InDialog::Digit, headers, body) {
            self.on_digit_reply(call, 503);
        }
    }

    /// The INFO with a digit has its answer.
    pub fn on_digit_reply(&mut self, call: usize, code: u16) {
        let c = &mut self.agent.calls[call];
        let Some(digits) = c.digits.front() else {
            return;
        };
        if code < 300 && !digits.rest.is_empty() {
            return self.next_digit(call);
        }
        let request = digits.request.clone();
        c.digits.pop_front();
        if code < 300 {
            let call_id = c.id.clone();
            if let Some(owner) = self.owner(call) {
                self.ack(owner, &request, &call_id);
            }
        } else {
            self.control_failed(call, &request, code, "the digit was not taken");
        }
        self.next_digit(call);
    }

    /// `recording`.
    pub fn recording(&mut self, session: usize, id: &str, call_id: &str, action: RecordingAction) {
        use RecordingAction as Do;
        use RecordingState as Is;
        let Some(call) = self.mine(session, id, call_id) else {
            return;
        };
        let c = &self.agent.calls[call];
        if c.record.is_some() {
            let details = "the recording is just being changed";
            let failure = Failure {
                retryable: true,
                ..Failure::new(491, "Request Pending", details).of_call(call_id)
            };
            return self.refuse(session, id, &failure);
        }
        // what the far side is told, and what it is afterwards
        let (tell, state) = match (action, c.recording.unwrap_or(Is::Stopped)) {
            (Do::Start, Is::Stopped) | (Do::Resume, Is::Paused) => (Some("on"), Is::Recording),
            (Do::Start | Do::Resume, Is::Recording) => (None, Is::Recording),
            (Do::Pause, Is::Recording) => (Some("off"), Is::Paused),
            (Do::Pause, Is::Paused) => (None, Is::Paused),
            (Do::Stop, Is::Recording) => (Some("off"), Is::Stopped),
            (Do::Stop, Is::Paused | Is::Stopped) => (None, Is::Stopped),
            (Do::Start, Is::Paused) | (Do::Pause | Do::Resume, Is::Stopped) => {
                let details = match action {
                    Do::Start => "the recording is paused: resume it",
                    _ => "nothing is being recorded",
                };
                let failure = Failure::new(409, "Conflict", details).of_call(call_id);
                return self.refuse(session, id, &failure);
            }
        };
        let Some(tell) = tell else {
            return self.recorded(call, id, state);
        };
        self.agent.calls[call].record = Some((id.to_owned(), state));
        self.agent.sessions[session].set_outcome(id, crate::packed::Outcome::Pending);
        let headers = format!("Record: {tell}\r\n");
        if !self.send_in_dialog(call, InDialog::Record, headers, String::new()) {
            self.on_record_reply(call, 503);
        }
    }

    /// The INFO about the recording has its answer.
    pub fn on_record_reply(&mut self, call: usize, code: u16) {
        let Some((request, state)) = self.agent.calls[call].record.take() else {
            return;
        };
        if code < 300 {
            self.recorded(call, &request, state);
        } else {
            self.control_failed(call, &request, code, "the recording was not changed");
        }
    }

    /// The dialog in which the far side recorded has gone, and the recording with it.
    pub fn recording_lost(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        let state = RecordingState::Stopped;
        if c.recording.is_none_or(|recording| recording == state) {
            return;
        }
        c.recording = Some(state);
        let message = ServerMessage::RecordingUpdated {
            call_id: c.id.clone(),
            state,
        };
        self.event_of_call(call, &message);
    }

    fn recorded(&mut self, call: usize, request: &str, state: RecordingState) {
        let c = &mut self.agent.calls[call];
        c.recording = Some(state);
        let message = ServerMessage::RecordingUpdated {
            call_id: c.id.clone(),
            state,
        };
        if let Some(owner) = self.owner(call) {
            self.outcome(owner, request, &message);
        }
    }

    fn control_failed(&mut self, call: usize, request: &str, code: u16, details: &str) {
        let id = self.agent.calls[call].id.clone();
        if let Some(owner) = self.owner(call) {
            let phrase = rtc_json_sip::reason_phrase(code);
            self.refuse(
                owner,
                request,
                &Failure::new(code, phrase, details).of_call(&id),
            );
        }
    }

    /// The call is over: what waited in it gets its outcome.
    pub fn drop_controls(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        let digits = c.digits.drain(..).map(|d| d.request);
        let waiting: Vec<String> = digits.chain(c.record.take().map(|r| r.0)).collect();
        for request in waiting {
            self.control_failed(call, &request, 487, "the call is over");
        }
    }
}

/// Does the description have telephone-event?
fn has_event(sdp: &str) -> bool {
    sdp.contains(" telephone-event/")
}
