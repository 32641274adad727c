//! An agent goes from one node to another: its record is taken over, and its calls are led to the new node.

use std::collections::HashSet;

use rtc_json_protocol::{EndReason, ServerMessage, UnregisterReason};

use crate::call::End;
use crate::io::{Counter, Output};
use crate::model::{Agent, State, Want};
use crate::step::Step;

/// Nodes whose Contacts are remembered until the registrar has answered.
const MAX_FORMER: usize = 8;
/// Added to the CSeq of each dialog that is taken over. Should the last owner live, cut off from us, the far side takes nothing
/// of it any more, least of all its BYE: its numbers are too low (RFC 3261, section 12.2.2).
const FENCE: u32 = 1000;
/// How often the numbers are raised again where the far side has seen higher ones: of another node, in the other half of a
/// network, that had the agent for a while.
const MAX_FENCES: u8 = 6;
/// How long until an agent that has just been taken over is looked at again for his browser.
const ATTACHED_WITHIN: u64 = 1000;
/// How long a BYE that a former owner has sent may wait for its answer, before one more is sent from here: that node may be gone, and the BYE lost.
pub(crate) const BYE_ELSEWHERE: u64 = 10_000;
/// Calls of former owners that are remembered.
const MAX_BROUGHT: usize = 16;

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
        shift(&mut self.look_at);
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
        self.take(former);
        self.refresh_targets();
    }

    /// The last owner is gone, and no browser has come: calls and registration end as if their browsers had stayed away from
    /// it.
    pub fn on_orphaned(&mut self, former: String) {
        self.take(former);
        while !self.agent.sessions.is_empty() {
            self.out.push(Output::Count(Counter::SessionsLost));
            let (told, end) = (UnregisterReason::Expired, EndReason::SessionExpired);
            self.drop_session(0, told, end);
        }
    }

    /// The browser is at this node, and another one may have taken the agent over meanwhile: the far side answers to whom has
    /// spoken last.
    pub fn on_claimed(&mut self) {
        self.refresh_targets();
    }

    fn take(&mut self, former: String) {
        for c in &mut self.agent.calls {
            c.leg.dialog.local_cseq = c.leg.dialog.local_cseq.saturating_add(FENCE);
            self.agent.brought.push(c.leg.dialog.call_id.clone());
        }
        let old = self.agent.brought.len().saturating_sub(MAX_BROUGHT);
        self.agent.brought.drain(..old);
        self.agent.upstream.cseq = self.agent.upstream.cseq.saturating_add(FENCE);
        let known = &mut self.agent.upstream.former;
        known.retain(|node| *node != former && *node != self.config.contact);
        if known.len() < MAX_FORMER && former != self.config.contact {
            known.push(former);
        }
        self.begin_anew(true);
        if self.agent.upstream.bound {
            self.agent.upstream.refresh_at = self.now;
        }
        self.next_register();
    }

    fn refresh_targets(&mut self) {
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

    /// The INVITEs that are unanswered here, in dialogs and for new ones, go to the node that has the agent.
    fn pass_on(&mut self, node: &str) {
        for c in &mut self.agent.calls {
            let again = c.leg.far_offer.take().map(|far| far.tx);
            let first = match c.state {
                State::Incoming => c.leg.invite_tx.take(),
                _ => None,
            };
            for tx in again.into_iter().chain(first) {
                let node = node.to_owned();
                self.out.push(Output::PassOn { tx, node });
            }
        }
        // they ring there
        self.agent.calls.retain(|c| c.state != State::Incoming);
    }

    /// The far side has refused a target refresh with 500: it knows higher numbers (RFC 3261, section 12.2.2). The node where the
    /// browser is goes above them; it may be on its way here. False if it did not come.
    pub fn raised(&mut self, call: usize) -> bool {
        let there = self
            .owner(call)
            .is_some_and(|owner| self.agent.sessions[owner].attached());
        let leg = &mut self.agent.calls[call].leg;
        if leg.glares >= MAX_FENCES {
            return false;
        }
        leg.glares += 1;
        if there {
            leg.dialog.local_cseq = leg.dialog.local_cseq.saturating_add(FENCE);
        } else {
            leg.offer_after = self.now + ATTACHED_WITHIN;
        }
        true
    }

    /// Header lines that take the Contacts of former nodes back (RFC 3261, section 10.2.2): else a call would ring here twice.
    pub fn former_contacts(&self) -> String {
        let own = self.contact_uri();
        let user = own.split_once('@').map_or(own.as_str(), |(user, _)| user);
        let line = |node: &String| format!("Contact: <{user}@{node}>;expires=0\r\n");
        self.agent.upstream.former.iter().map(line).collect()
    }

    /// A former owner's BYE has its answer: nothing is left to do.
    pub fn on_ended_elsewhere(&mut self, call: &str) {
        self.agent
            .calls
            .retain(|c| c.leg.key != call || c.state != State::Terminating);
    }

    /// Another node owns the agent now. The browsers here are told and sent away; calls that are the other's, too, are
    /// forgotten without a word to their far sides, for they go on. `theirs`: the SIP Call-IDs of the new owner's record. INVITEs that
    /// nobody has answered yet go `to` that node.
    pub fn on_yielded(&mut self, to: &str, theirs: &HashSet<String>) {
        if !to.is_empty() {
            self.pass_on(to);
        }
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
