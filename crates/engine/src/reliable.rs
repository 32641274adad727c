//! Provisional replies that must arrive (RFC 3262): PRACK for those of the far side, and our own 180 until its PRACK comes.

use rtc_json_protocol::EndReason;
use rtc_json_sip::Message;

use crate::call::{End, ACK_WAIT};
use crate::model::{InDialog, Reliable, ServerTx, State};
use crate::step::Step;
use crate::timer::has_option;

/// T1 (RFC 3261, section 17.1.1.1).
const T1: u64 = 500;
/// Early dialogs of one INVITE whose reliable replies are told apart.
const MAX_FORKS: usize = 8;

impl Step<'_> {
    /// A provisional reply of the far side: a reliable one gets its PRACK, in the early dialog that it belongs to. False if it is
    /// a repetition, or came out of order, and must not count (RFC 3262, section 4).
    pub fn confirm_reliable(&mut self, call: usize, code: u16, message: &Message<'_>) -> bool {
        let rseq = message
            .header("RSeq")
            .and_then(|v| v.trim().parse::<u32>().ok());
        let required = has_option(message, "Require", "100rel");
        let (true, Some(rseq), true) = (required, rseq, code > 100) else {
            return true;
        };
        let leg = &mut self.agent.calls[call].leg;
        let mut early = leg.dialog.clone();
        if early.confirm(message).is_err() || early.remote_tag.is_empty() {
            return false;
        }
        match leg
            .rseq
            .iter()
            .position(|(tag, _)| *tag == early.remote_tag)
        {
            Some(at) if rseq == leg.rseq[at].1.wrapping_add(1) => leg.rseq[at].1 = rseq,
            Some(_) => return false,
            None if leg.rseq.len() >= MAX_FORKS => return false,
            None => leg.rseq.push((early.remote_tag.clone(), rseq)),
        }
        let headers = format!("RAck: {rseq} {} INVITE\r\n", leg.invite_cseq);
        // the CSeq numbers of all early dialogs of a call come from one count: they only have to rise in each
        let last = std::mem::replace(&mut leg.dialog, early);
        self.send_in_dialog(call, InDialog::Prack, headers, String::new());
        let leg = &mut self.agent.calls[call].leg;
        let count = leg.dialog.local_cseq;
        leg.dialog = last;
        leg.dialog.local_cseq = count;
        true
    }

    /// Sends the 180 of a call that rings here; again and again where the caller wants to confirm it.
    pub fn ring(&mut self, call: usize) {
        let c = &self.agent.calls[call];
        let Some(tx) = c.leg.invite_tx else { return };
        let tag = c.leg.dialog.local_tag.clone();
        let reliable = match c.leg.reliable {
            Some(reliable) => format!("Require: 100rel\r\nRSeq: {}\r\n", reliable.rseq),
            None => String::new(),
        };
        let headers = [&self.contact_header(), crate::inbound::ALLOW, &reliable].concat();
        self.reply(tx, true, 180, &tag, headers, String::new());
    }

    /// The caller wants our 180 to be reliable.
    pub fn make_reliable(&mut self, call: usize) {
        // RFC 3262, section 3: from 1 to 2^31 - 1
        let rseq = (rand_core::RngCore::next_u32(self.rng) >> 1).max(1);
        self.agent.calls[call].leg.reliable = Some(Reliable {
            rseq,
            next: self.now + T1,
            interval: T1,
            until: self.now + ACK_WAIT,
        });
    }

    /// PRACK of the far side.
    pub fn on_prack(&mut self, call: usize, message: &Message<'_>, tx: ServerTx) {
        let leg = &mut self.agent.calls[call].leg;
        let rack = message.header("RAck").unwrap_or_default();
        let mut words = rack.split_whitespace();
        let rseq = words.next().and_then(|w| w.parse::<u32>().ok());
        let code = match leg.reliable {
            Some(reliable) if rseq == Some(reliable.rseq) && words.nth(1) == Some("INVITE") => {
                leg.reliable = None;
                200
            }
            _ => 481,
        };
        self.reply(tx, false, code, "", String::new(), String::new());
    }

    /// Our 180 was not confirmed yet.
    pub fn tick_reliable(&mut self, call: usize) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        let Some(reliable) = c.leg.reliable.as_mut().filter(|r| r.next <= now) else {
            return;
        };
        if c.state != State::Incoming {
            c.leg.reliable = None;
            return;
        }
        if reliable.until <= now {
            return self.hang_up(call, End::with_code(EndReason::Timeout, 504), 504, None);
        }
        reliable.interval *= 2;
        reliable.next = (now + reliable.interval).min(reliable.until);
        self.ring(call);
    }
}
