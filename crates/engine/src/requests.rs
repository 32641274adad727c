//! Our requests in a dialog: each waits for its final reply, answers a challenge, and tells what came of it to whom it
//! concerns.

use rtc_json_protocol::EndReason;
use rtc_json_sip::Message;

use crate::call::{in_dialog, End};
use crate::challenge::answerable;
use crate::io::{Handle, Output, Purpose};
use crate::model::{InDialog, Owed, Sent, State};
use crate::outbound::authorization_header;
use crate::step::Step;

/// Requests of one dialog that may wait at a time. A far side that answers none of them gets no more, but for the BYE.
const MAX_SENT: usize = 16;

/// How long until a BYE that could not be sent is tried again, and how often: as long as tm would repeat one.
const BYE_AGAIN: u64 = 1000;
const MAX_BYES: u8 = 32;

impl Step<'_> {
    /// Sends a request in the dialog of a call. False if too many wait already, or the dialog is at its end.
    pub fn send_in_dialog(
        &mut self,
        call: usize,
        purpose: InDialog,
        headers: String,
        body: String,
    ) -> bool {
        let c = &mut self.agent.calls[call];
        if purpose != InDialog::Bye && (c.leg.sent.len() >= MAX_SENT || c.closing()) {
            return false;
        }
        c.leg.sent.push(Sent {
            cseq: 0,
            purpose,
            headers,
            body,
            answered: 0,
            asked: None,
        });
        self.transmit(call, self.agent.calls[call].leg.sent.len() - 1, "");
        true
    }

    /// Puts a request that waits on the wire, under the next CSeq; `authorization` is a header line or empty.
    fn transmit(&mut self, call: usize, index: usize, authorization: &str) {
        let dn = self.agent.dn.clone();
        let leg = &mut self.agent.calls[call].leg;
        leg.dialog.local_cseq += 1;
        let sent = &mut leg.sent[index];
        sent.cseq = leg.dialog.local_cseq;
        sent.asked = None;
        let handle = Handle {
            dn,
            purpose: Purpose::InDialog,
            call: leg.key.clone(),
            cseq: sent.cseq,
        };
        let headers = [authorization, &sent.headers].concat();
        let request = in_dialog(
            &leg.dialog,
            sent.purpose.method(),
            &headers,
            sent.body.clone(),
            handle,
        );
        self.out.push(Output::Request(Box::new(request)));
    }

    /// A reply to a request in a dialog.
    pub fn on_dialog_reply(&mut self, handle: &Handle, code: u16, message: Option<&Message<'_>>) {
        let found = self.agent.calls.iter().enumerate().find_map(|(call, c)| {
            let sent = c.leg.sent.iter().position(|s| s.cseq == handle.cseq)?;
            (c.leg.key == handle.call).then_some((call, sent))
        });
        let (Some((call, index)), 200..) = (found, code) else {
            return;
        };
        if let (401 | 407, Some(message)) = (code, message) {
            if self.dialog_challenged(call, index, code, message) {
                return;
            }
        }
        let sent = self.agent.calls[call].leg.sent.remove(index);
        // a subscription or a reply that is gone is no reason to end the call
        let alone = matches!(
            sent.purpose,
            InDialog::Bye | InDialog::Notify | InDialog::Prack
        );
        if code == 481 && !alone {
            // RFC 3261, section 12.2.1.2: there is no such dialog any more
            self.dialog_lost(call, &sent, code);
            return;
        }
        match sent.purpose {
            InDialog::Bye => {
                self.agent.calls.remove(call);
            }
            InDialog::Trickle => self.on_trickle_reply(call, code),
            InDialog::Reinvite | InDialog::Update => self.on_offer_reply(call, code, message),
            InDialog::Digit => self.on_digit_reply(call, code),
            InDialog::Record => self.on_record_reply(call, code),
            InDialog::Refer => self.on_refer_reply(call, code, message),
            InDialog::Notify => self.on_notify_reply(call),
            // any other answer, or none, says nothing of the dialog
            InDialog::Prack | InDialog::Look => {}
        }
    }

    /// A request of ours could not be sent: there was no memory for it, or no way.
    pub fn on_not_sent(&mut self, handle: Handle) {
        if !self.bye_again(&handle) {
            self.on_sip_reply(handle, 503, None);
        }
    }

    /// The far side must learn that the call is over: a BYE that could not be sent is sent later. False for anything else, and when it
    /// was tried often enough.
    fn bye_again(&mut self, handle: &Handle) -> bool {
        let found = self.agent.calls.iter().enumerate().find_map(|(call, c)| {
            let is_it = |s: &Sent| s.purpose == InDialog::Bye && s.cseq == handle.cseq;
            let index = c.leg.sent.iter().position(is_it)?;
            (c.leg.key == handle.call).then_some((call, index))
        });
        let (Purpose::InDialog, Some((call, index))) = (handle.purpose, found) else {
            return false;
        };
        let c = &mut self.agent.calls[call];
        if c.leg.unsent_byes >= MAX_BYES {
            return false;
        }
        c.leg.sent.remove(index);
        c.leg.unsent_byes += 1;
        c.leg.bye = Owed::Waiting;
        c.deadline = self.now + BYE_AGAIN;
        true
    }

    /// The far side knows the dialog no more. What waited for an outcome gets it, and the call is over.
    fn dialog_lost(&mut self, call: usize, sent: &Sent, code: u16) {
        match sent.purpose {
            InDialog::Digit => self.on_digit_reply(call, code),
            InDialog::Record => self.on_record_reply(call, code),
            InDialog::Refer => self.on_refer_reply(call, code, None),
            InDialog::Reinvite | InDialog::Update => self.refuse_open(call, code),
            _ => {}
        }
        if self.agent.calls[call].state == State::Established {
            self.finish(call, End::with_code(EndReason::NetworkError, code));
        }
    }

    /// True if the request goes on, with credentials or once the browser has computed them.
    fn dialog_challenged(
        &mut self,
        call: usize,
        index: usize,
        code: u16,
        message: &Message<'_>,
    ) -> bool {
        let ha1 = self.agent.upstream.ha1.clone();
        let leg = &self.agent.calls[call].leg;
        let sent = &leg.sent[index];
        // a PRACK goes on only while it is clear in which early dialog
        let lost = sent.purpose == InDialog::Prack
            && (leg.rseq.len() != 1 || leg.rseq[0].0 != leg.dialog.remote_tag);
        if lost || sent.purpose != InDialog::Bye && self.agent.calls[call].closing() {
            return false;
        }
        let (method, uri) = (sent.purpose.method(), leg.dialog.request_uri().to_owned());
        let stale = |stale: bool| sent.answered == 0 || (stale && sent.answered < 2);
        if ha1.is_empty() {
            if sent.answered > 0 {
                return false;
            }
            let Some(asked) = self.challenge_call(call, code, message, method, &uri) else {
                return false;
            };
            let sent = &mut self.agent.calls[call].leg.sent[index];
            sent.answered += 1;
            sent.asked = Some(asked);
            return true;
        }
        let Some(challenge) = answerable(message, &ha1).filter(|c| stale(c.stale)) else {
            return false;
        };
        self.agent.upstream.challenge = Some(challenge);
        self.agent.upstream.nonce_count = 0;
        let line = self.authorization(method, &uri, &ha1, authorization_header(code));
        if line.is_empty() {
            return false;
        }
        self.agent.calls[call].leg.sent[index].answered += 1;
        self.transmit(call, index, &line);
        true
    }

    /// The browser has computed the credentials for a request in the dialog of its call.
    pub fn authorized(&mut self, call: usize, index: usize, line: &str) {
        let c = &self.agent.calls[call];
        let sent = &c.leg.sent[index];
        if sent.purpose != InDialog::Bye && c.closing() {
            // the far side has gone meanwhile
            let handle = Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::InDialog,
                call: c.leg.key.clone(),
                cseq: sent.cseq,
            };
            return self.on_dialog_reply(&handle, 401, None);
        }
        self.transmit(call, index, line);
    }

    /// The browser did not answer the challenge to a request in time: the request has failed.
    pub fn tick_sent(&mut self, call: usize) {
        let now = self.now;
        let c = &self.agent.calls[call];
        let late: Vec<Handle> = c
            .leg
            .sent
            .iter()
            .filter(|s| s.asked.as_ref().is_some_and(|a| a.deadline <= now))
            .map(|s| Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::InDialog,
                call: c.leg.key.clone(),
                cseq: s.cseq,
            })
            .collect();
        for handle in late {
            self.on_dialog_reply(&handle, 401, None);
        }
    }
}
