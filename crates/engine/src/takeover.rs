//! An agent goes from one node to another: its record is taken over, and its calls are led to the new node.

use std::collections::HashSet;

use rtc_json_protocol::{EndReason, ServerMessage, UnregisterReason};

use crate::call::End;
use crate::io::Output;
use crate::model::{Agent, State, Want};
use crate::step::Step;

/// Nodes whose Contacts are remembered until the registrar has answered.
const MAX_FORMER: usize = 8;
/// Added to the CSeq of each dialog that is taken over. Should the last owner live, cut off from us, the far side takes nothing
/// of it any more, least of all its BYE: its numbers are too low (RFC 3261, section 12.2.2).
const FENCE: u32 = 1000;

impl Agent {
    /// Puts all times of the record from another machine's clock on this one's: `behind` is what has to be added.
    pub fn shift(&mut self, behind: i64) {
        // 0 stands for never, and stays
        let shift = |at: &mut u64| {
            if *at != 0 {
                *at = at.saturating_add_signed(behind).max(1);
            }
        };
        for s in &mut self.sessions {
            [&mut s.detached_at, &mut s.expires_at, &mut s.ice_renew_at]
                .into_iter()
                .for_each(shift);
            s.journal.change_times(shift);
        }
        shift(&mut self.upstream.expires_at);
        shift(&mut self.upstream.refresh_at);
        for c in &mut self.calls {
            [
                &mut c.started_at,
                &mut c.ringing_at,
                &mut c.answered_at,
                &mut c.deadline,
            ]
            .into_iter()
            .for_each(shift);
            if let Some(transfer) = &mut c.transfer {
                [&mut transfer.retry_at, &mut transfer.deadline]
                    .into_iter()
                    .for_each(shift);
            }
            if let Some(moving) = &mut c.moving {
                shift(&mut moving.deadline);
            }
            shift(&mut c.leg.ack_by);
            shift(&mut c.leg.offer_after);
            if let Some(timer) = &mut c.leg.timer {
                [&mut timer.at, &mut timer.dead_at]
                    .into_iter()
                    .for_each(shift);
            }
        }
    }
}

impl Step<'_> {
    /// This node owns the agent from now on. What the last one had under way is over; far sides and registrar are told the
    /// new Contact.
    pub fn on_taken_over(&mut self, former: String) {
        for c in &mut self.agent.calls {
            c.leg.dialog.local_cseq = c.leg.dialog.local_cseq.saturating_add(FENCE);
        }
        self.agent.upstream.cseq = self.agent.upstream.cseq.saturating_add(FENCE);
        let known = &mut self.agent.upstream.former;
        known.retain(|node| *node != former && *node != self.config.contact);
        if known.len() < MAX_FORMER && former != self.config.contact {
            known.push(former);
        }
        self.on_restarted();
        if self.agent.upstream.bound {
            self.agent.upstream.refresh_at = self.now;
        }
        self.next_register();
        let keys: Vec<String> = self.agent.calls.iter().map(|c| c.leg.key.clone()).collect();
        for key in keys {
            let Some(call) = self.agent.calls.iter().position(|c| c.leg.key == key) else {
                continue;
            };
            let c = &mut self.agent.calls[call];
            if c.state == State::Established && !c.leg.gone {
                if !c.wants.contains(&Want::Refresh) {
                    c.wants.push_front(Want::Refresh);
                }
                self.next_offer(call);
            }
        }
    }

    /// Header lines that take the Contacts of former nodes back (RFC 3261, section 10.2.2): else a call would ring here twice.
    pub fn former_contacts(&self) -> String {
        let own = self.contact_uri();
        let user = own.split_once('@').map_or(own.as_str(), |(user, _)| user);
        let line = |node: &String| format!("Contact: <{user}@{node}>;expires=0\r\n");
        self.agent.upstream.former.iter().map(line).collect()
    }

    /// Another node owns the agent now. The browsers here are told and sent away; calls that are the other's, too, are
    /// forgotten without a word to their far sides, for they go on. `theirs`: the SIP Call-IDs of the new owner's record.
    pub fn on_yielded(&mut self, theirs: &HashSet<String>) {
        // only what the new owner does not know of has to be ended here
        self.agent
            .calls
            .retain(|c| !theirs.contains(&c.leg.dialog.call_id));
        let keys: Vec<String> = self.agent.calls.iter().map(|c| c.leg.key.clone()).collect();
        for key in keys {
            if let Some(call) = self.agent.calls.iter().position(|c| c.leg.key == key) {
                self.hang_up(call, End::new(EndReason::ServiceUnavailable), 480, None);
            }
        }
        for session in 0..self.agent.sessions.len() {
            let Some(conn) = self.agent.sessions[session].conn else {
                continue;
            };
            let message = ServerMessage::Unregistered {
                dn: self.agent.dn.clone(),
                reason: UnregisterReason::Replaced,
            };
            self.event(session, &message);
            self.out.push(Output::Close {
                conn,
                status: 1000,
                reason: "the agent is at another node",
            });
        }
    }
}
