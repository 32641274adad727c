//! The next hop falls silent, and is there again: browsers are told, and what it may have forgotten is looked at.

use crate::config::RegisterMode;
use crate::model::{InDialog, State};
use crate::step::Step;

/// All agents look within this time, each at a moment of its own: a server that has just started is not to be buried.
const LOOK_WITHIN: u64 = 5_000;

impl Step<'_> {
    /// It is silent, or back. A call is left alone as long as nobody says that it is gone: its voice may go another way.
    pub fn on_next_hop(&mut self) {
        let reason = match self.unreachable {
            true => "unreachable",
            false => "reachable",
        };
        for session in 0..self.agent.sessions.len() {
            if self.agent.sessions[session].attached() {
                self.notice(session, reason);
            }
        }
        self.agent.look_at = match self.unreachable {
            true => 0,
            false => self.now + 1 + u64::from(self.rng.next_u32()) % LOOK_WITHIN,
        };
    }

    /// It is back. If it was started anew it knows neither the calls (it says so when it is asked within one) nor, it may be, the
    /// binding.
    pub fn tick_next_hop(&mut self) {
        if self.agent.look_at == 0 || self.agent.look_at > self.now {
            return;
        }
        self.agent.look_at = 0;
        for call in 0..self.agent.calls.len() {
            let c = &self.agent.calls[call];
            if c.state == State::Established && !c.leg.gone {
                self.send_in_dialog(call, InDialog::Look, String::new(), String::new());
            }
        }
        let up = &mut self.agent.upstream;
        if self.config.register_mode == RegisterMode::Upstream
            && up.bound
            && up.refresh_at > self.now
        {
            up.refresh_at = self.now;
        }
    }
}
