//! Descriptions after the first (RFC 3264, RFC 6141): hold, the browser's own changes, refreshes, and the offers of the far
//! side. One at a time in each dialog; what cannot be offered yet waits in [`Call::wants`](crate::Call).

use rtc_json_protocol::{EndReason, ServerMessage};
use rtc_json_sdp as sdp;
use rtc_json_sip::{Message, NameAddr};

use crate::browser::no_call;
use crate::call::{End, ACK_WAIT};
use crate::identity;
use crate::inbound::ALLOW;
use crate::model::{Call, FarOffer, InDialog, Leg, Open, ServerTx, State, Want};
use crate::outbound::sdp_body;
use crate::step::{Failure, Step};
use crate::timer::{Said, Verdict};
use crate::trickle::SUPPORTED;

/// Changes of one call that may wait.
const MAX_WANTS: usize = 8;
/// How often an offer is repeated after 491.
const MAX_GLARES: u8 = 6;
/// How long a browser may take to answer an offer, or to make one.
pub(crate) const ANSWER_WAIT: u64 = 15_000;

impl Step<'_> {
    /// An established call of that session; if there is none, the request is refused.
    pub fn mine(&mut self, session: usize, id: &str, call_id: &str) -> Option<usize> {
        let number = self.agent.sessions[session].number;
        let found = self.live_call(call_id).filter(|call| {
            self.agent.calls[*call]
                .session
                .is_none_or(|owner| owner == number)
        });
        let Some(call) = found else {
            self.refuse(session, id, &no_call(call_id));
            return None;
        };
        match self.agent.calls[call].state {
            State::Established => Some(call),
            // ours went out already, only the ACK is not here yet
            State::Answering if self.agent.calls[call].session == Some(number) => Some(call),
            _ => {
                let failure = Failure::new(409, "Conflict", "this call is not answered");
                self.refuse(session, id, &failure.of_call(call_id));
                None
            }
        }
    }

    /// `hold`.
    pub fn hold(&mut self, session: usize, id: &str, call_id: &str, hold: bool) {
        let Some(call) = self.mine(session, id, call_id) else {
            return;
        };
        let request = id.to_owned();
        self.want(session, call, id, Want::Hold { request, hold });
    }

    /// `update`: the browser offers anew.
    pub fn update(&mut self, session: usize, id: &str, call_id: &str, offer: &str) {
        let Some(call) = self.mine(session, id, call_id) else {
            return;
        };
        let c = &self.agent.calls[call];
        if c.leg.far_offer.is_some() || c.moving.is_some() {
            let details = "an offer of the far side waits for the answer";
            let failure = Failure {
                retryable: true,
                ..Failure::new(491, "Request Pending", details).of_call(call_id)
            };
            return self.refuse(session, id, &failure);
        }
        match self.placed(session, call, offer, sdp::Kind::Offer) {
            Ok(sdp) => {
                let request = id.to_owned();
                self.want(session, call, id, Want::Update { request, sdp });
            }
            Err(details) => {
                let failure = Failure::new(488, "Not Acceptable Here", &details);
                self.refuse(session, id, &failure.of_call(call_id));
            }
        }
    }

    /// A later description of the browser as the SIP side gets it.
    ///
    /// # Errors
    /// What the policy misses in it.
    pub fn placed(
        &self,
        session: usize,
        call: usize,
        text: &str,
        kind: sdp::Kind,
    ) -> Result<String, String> {
        let last = &self.agent.calls[call].leg.local_sdp;
        let keep = sdp::candidates(last);
        let placement = sdp::Placement {
            browser_addr: self.agent.sessions[session].addr,
            keep: Some(&keep),
        };
        let mut filtered = sdp::from_browser(text, kind, &self.config.policy, &placement)
            .map_err(|error| error.details().to_owned())?;
        if !last.is_empty() {
            sdp::follow(&mut filtered.text, last);
        }
        Ok(filtered.text)
    }

    fn want(&mut self, session: usize, call: usize, id: &str, want: Want) {
        let c = &mut self.agent.calls[call];
        if c.wants.len() >= MAX_WANTS {
            let failure = Failure::new(503, "Service Unavailable", "too many changes wait");
            let call_id = c.id.clone();
            return self.refuse(session, id, &failure.of_call(&call_id));
        }
        c.wants.push_back(want);
        self.agent.sessions[session].set_outcome(id, crate::packed::Outcome::Pending);
        self.next_offer(call);
    }

    /// Offers what waits, if the dialog allows it now.
    pub fn next_offer(&mut self, call: usize) {
        loop {
            let c = &self.agent.calls[call];
            if !c.may_offer() || c.leg.offer_after > self.now {
                return;
            }
            let Some(want) = self.agent.calls[call].wants.pop_front() else {
                return;
            };
            if self.offer(call, want) {
                return;
            }
        }
    }

    /// Sends an offer; false if there is nothing to send for it.
    fn offer(&mut self, call: usize, want: Want) -> bool {
        let want = match self.offer_by_replaces(call, want) {
            None => return true,
            Some(want) => want,
        };
        let c = &mut self.agent.calls[call];
        c.leg.offer_after = 0;
        let mut purpose = InDialog::Reinvite;
        let sdp = match &want {
            Want::Hold { request, hold } if c.hold == *hold => {
                let request = request.clone();
                self.change_done(call, &request, None);
                return false;
            }
            Want::Hold { hold, .. } => {
                let direction = own_direction(*hold, c.remote_hold);
                sdp::with_direction(&c.leg.local_sdp, direction)
            }
            Want::Update { sdp, .. } => {
                let mut sdp = held(c, sdp);
                if c.leg.trickle == Some(true) && sdp::same_fingerprints(&c.leg.local_sdp, &sdp) {
                    // the association goes on, and so do the roles; asked by `actpass`, Firefox takes the other one
                    sdp = in_role(&sdp, own_role(&c.leg));
                }
                // others may have been sent while it waited
                sdp::follow(&mut sdp, &c.leg.local_sdp);
                sdp
            }
            Want::Refresh if c.leg.takes_update => {
                purpose = InDialog::Update;
                String::new()
            }
            Want::Refresh => c.leg.local_sdp.clone(),
            Want::Candidates => {
                let lines = std::mem::take(&mut c.leg.candidates);
                if !c.leg.takes_update || lines.iter().all(String::is_empty) {
                    return false;
                }
                purpose = InDialog::Update;
                sdp::with_candidates(&c.leg.local_sdp, &lines)
            }
        };
        let sdp = versioned(&self.agent.calls[call].leg, sdp);
        let kind = if sdp.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let headers = [
            &self.contact_header(),
            ALLOW,
            SUPPORTED,
            &self.timer_lines(call, false),
            kind,
        ]
        .concat();
        self.agent.calls[call].leg.open = Some(Open {
            want,
            sdp: sdp.clone(),
        });
        if !self.send_in_dialog(call, purpose, headers, sdp) {
            self.offer_failed(call, 503);
        }
        true
    }

    /// The open offer has its final reply.
    pub fn on_offer_reply(&mut self, call: usize, code: u16, message: Option<&Message<'_>>) {
        let Some(open) = self.agent.calls[call].leg.open.take() else {
            return;
        };
        match (code, message) {
            (200..=299, Some(message)) => self.offer_answered(call, open, message),
            (491, _) if self.agent.calls[call].leg.glares < MAX_GLARES => {
                // RFC 3261, section 14.1: the owner of the Call-ID waits longer
                let tens = u64::from(self.rng.next_u32() % 200);
                let c = &mut self.agent.calls[call];
                untaken(&mut c.leg, &open);
                c.leg.glares += 1;
                let wait = if c.leg.ours {
                    2_100 + tens * 19 / 2
                } else {
                    tens * 10
                };
                c.leg.offer_after = self.now + wait.max(10);
                c.wants.push_front(open.want);
            }
            (422, Some(message)) => {
                let min = Said::of(message).min.unwrap_or(0);
                let leg = &mut self.agent.calls[call].leg;
                if min <= leg.min_se.max(self.config.min_se) || min > 86_400 {
                    leg.open = Some(open);
                    return self.offer_failed(call, code);
                }
                leg.min_se = min;
                untaken(leg, &open);
                if let Some(timer) = &mut leg.timer {
                    timer.interval = timer.interval.max(min);
                }
                self.agent.calls[call].wants.push_front(open.want);
                self.next_offer(call);
            }
            (500, Some(_)) if open.want == Want::Refresh && self.raised(call) => {
                let c = &mut self.agent.calls[call];
                untaken(&mut c.leg, &open);
                c.wants.push_front(Want::Refresh);
                self.next_offer(call);
            }
            (408, None) | (503, None) => {
                // RFC 3261, section 14.1: nobody there any more
                self.agent.calls[call].leg.open = Some(open);
                self.refuse_open(call, code);
                self.hang_up(
                    call,
                    End::with_code(EndReason::NetworkError, code),
                    480,
                    None,
                );
            }
            _ => {
                self.agent.calls[call].leg.open = Some(open);
                self.offer_failed(call, code);
            }
        }
    }

    fn offer_answered(&mut self, call: usize, open: Open, message: &Message<'_>) {
        self.agent.calls[call].leg.glares = 0;
        // a Contact that cannot be read moves nothing
        let _unread = self.agent.calls[call].leg.dialog.refresh(message);
        self.timer_answered(call, message);
        if open.sdp.is_empty() {
            let doubtful = std::mem::take(&mut self.agent.calls[call].leg.doubtful);
            let asterisk = message.header("Server").is_some_and(|name| {
                name.get(..8)
                    .is_some_and(|start| start.eq_ignore_ascii_case("asterisk"))
            });
            if doubtful && asterisk && message.header("P-Asserted-Identity").is_none() {
                return self.hang_up(call, End::new(EndReason::NormalClearing), 480, None);
            }
            return self.next_offer(call);
        }
        let answer = sdp_body(message)
            .and_then(|body| sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy).ok());
        let Some(answer) = answer else {
            // both sides think otherwise of the media from here on
            self.agent.calls[call].leg.open = Some(open);
            self.refuse_open(call, 488);
            return self.hang_up(call, End::with_code(EndReason::MediaError, 488), 480, None);
        };
        let c = &mut self.agent.calls[call];
        // (an answer names a role where the offer of before had left it open)
        let same = sdp::only_direction_differs(
            &without_role(&c.leg.remote_sdp),
            &without_role(&answer.text),
        );
        c.leg.local_sdp.clone_from(&open.sdp);
        c.leg.refused.clear();
        let told = match &open.want {
            // the browser waits for exactly this
            Want::Update { .. } => Some(answer.text.clone()),
            _ if !same => Some(answer.text.clone()),
            _ => None,
        };
        c.leg.remote_sdp = answer.text;
        if let Want::Hold { hold, .. } = open.want {
            c.hold = hold;
        }
        if !c.hold && !matches!(open.want, Want::Candidates) {
            c.remote_hold = matches!(
                answer.direction,
                sdp::Direction::SendOnly | sdp::Direction::Inactive
            );
        }
        match open.want {
            Want::Hold { request, .. } | Want::Update { request, .. } => {
                self.change_done(call, &request, told);
            }
            Want::Refresh | Want::Candidates => {
                if told.is_some() {
                    let update = self.updated(call, told, None);
                    self.event_of_call(call, &update);
                }
            }
        }
        self.next_offer(call);
    }

    /// The open offer was refused: whoever asked for it is told, and the call goes on as before.
    pub fn offer_failed(&mut self, call: usize, code: u16) {
        self.refuse_open(call, code);
        self.next_offer(call);
    }

    /// The same where nothing more is to be offered.
    pub fn refuse_open(&mut self, call: usize, code: u16) {
        let leg = &mut self.agent.calls[call].leg;
        leg.glares = 0;
        let Some(open) = leg.open.take() else {
            return;
        };
        refused(leg, &open.sdp);
        if let Want::Hold { request, .. } | Want::Update { request, .. } = open.want {
            self.change_failed(call, &request, code, "the far side did not agree");
        }
    }

    fn change_failed(&mut self, call: usize, request: &str, code: u16, details: &str) {
        let id = self.agent.calls[call].id.clone();
        if let Some(owner) = self.owner(call) {
            let failure = Failure {
                retryable: matches!(code, 408 | 491 | 500 | 503 | 504),
                ..Failure::new(code, rtc_json_sip::reason_phrase(code), details).of_call(&id)
            };
            self.refuse(owner, request, &failure);
        }
    }

    pub fn change_done(&mut self, call: usize, request: &str, sdp: Option<String>) {
        let update = self.updated(call, sdp, None);
        if let Some(owner) = self.owner(call) {
            self.outcome(owner, request, &update);
        }
    }

    /// `callUpdated`.
    pub fn updated(
        &self,
        call: usize,
        sdp: Option<String>,
        answer_needed: Option<bool>,
    ) -> ServerMessage {
        let c = &self.agent.calls[call];
        ServerMessage::CallUpdated {
            call_id: c.id.clone(),
            hold: c.hold,
            remote_hold: c.remote_hold,
            sdp: sdp.map(shown),
            answer_needed,
            remote: None,
        }
    }

    /// The call is over: what waited in it gets its outcome.
    pub fn drop_wants(&mut self, call: usize) {
        let c = &mut self.agent.calls[call];
        let open = c.leg.open.take().map(|o| o.want);
        let moving = c.moving.as_mut().and_then(|m| m.update.take());
        let wants: Vec<Want> = open
            .into_iter()
            .chain(moving)
            .chain(c.wants.drain(..))
            .collect();
        for want in wants {
            if let Want::Hold { request, .. } | Want::Update { request, .. } = want {
                self.change_failed(call, &request, 487, "the call is over");
            }
        }
    }

    // ---- offers of the far side

    /// An offer of the far side in the dialog. A change of direction is answered here; anything else needs the browser.
    pub fn on_reinvite(
        &mut self,
        call: usize,
        message: &Message<'_>,
        tx: ServerTx,
        invite: bool,
        trusted: bool,
    ) {
        let c = &self.agent.calls[call];
        let body = sdp_body(message);
        match c.state {
            State::Established if c.leg.gone => return self.code(tx, invite, 481),
            State::Cancelling | State::Terminating => return self.code(tx, invite, 481),
            // an UPDATE without offer only refreshes
            _ if !invite && body.is_none() => {}
            // (who sends the next offer has got our last 200: its ACK was overtaken by another worker)
            State::Established
                if c.leg.far_offer.is_some() || c.leg.ack_by != 0 && c.leg.answer_in_ack =>
            {
                // RFC 3261, section 14.2; the header is that of section 20.33
                let headers = "Retry-After: 2\r\n".to_owned();
                return self.reply(tx, invite, 500, "", headers, String::new());
            }
            State::Established if c.leg.open.is_none() && c.moving.is_none() => {}
            _ => return self.code(tx, invite, 491),
        }
        let headers = match self.timer_asked(c.leg.timer, message) {
            Verdict::TooSmall(min) => return self.reply(tx, invite, 422, "", min, String::new()),
            Verdict::Take(lines, timer) => {
                self.agent.calls[call].leg.timer = timer;
                lines
            }
        };
        if invite {
            self.agent.calls[call].leg.far_invite = message.cseq().unwrap_or(0);
        }
        // target refresh (RFC 3261, section 12.2.2; RFC 3311, section 5.2)
        let _unread = self.agent.calls[call].leg.dialog.refresh(message);
        self.note_abilities(call, message);
        let remote = self.new_remote(call, message, trusted);
        match body {
            None if invite => self.offer_wanted(call, tx, headers),
            None => {
                let headers = [&self.contact_header(), ALLOW, &headers].concat();
                self.reply(tx, false, 200, "", headers, String::new());
            }
            Some(body) => self.offered(call, tx, invite, headers, &body),
        }
        if remote {
            self.tell_remote(call, None);
        }
    }

    fn code(&mut self, tx: ServerTx, invite: bool, code: u16) {
        self.reply(tx, invite, code, "", String::new(), String::new());
    }

    fn offered(&mut self, call: usize, tx: ServerTx, invite: bool, headers: String, body: &str) {
        let Ok(offer) = sdp::from_sip(body, sdp::Kind::Offer, &self.config.policy) else {
            // the media that runs goes on (RFC 3261, section 14.2)
            return self.code(tx, invite, 488);
        };
        let c = &mut self.agent.calls[call];
        if !sdp::only_direction_differs(&c.leg.remote_sdp, &offer.text) {
            if !invite {
                // RFC 3311, section 5.2: one that cannot be answered at once
                return self.code(tx, false, 504);
            }
            if c.moves.is_some() {
                // its browser has gone on to another far side
                return self.code(tx, true, 488);
            }
            return self.ask(call, tx, headers, offer.text);
        }
        let candidates = new_candidates(&c.leg.remote_sdp, &offer.text);
        let direction = own_answer(c.hold, offer.direction);
        let answer = as_answer(
            &sdp::with_direction(&c.leg.local_sdp, direction),
            &c.leg.remote_sdp,
            &offer.text,
        );
        let hold = matches!(
            offer.direction,
            sdp::Direction::SendOnly | sdp::Direction::Inactive
        );
        let changed = hold != c.remote_hold;
        c.remote_hold = hold;
        self.accept(call, tx, invite, headers, answer);
        if changed {
            let update = self.updated(call, None, None);
            self.event_of_call(call, &update);
        }
        for candidate in candidates {
            let message = ServerMessage::IceCandidate {
                call_id: self.agent.calls[call].id.clone(),
                candidate: Some(candidate),
            };
            self.event_of_call(call, &message);
        }
    }

    /// The far side wants an offer. The browser makes one, for the answer may come from somebody else (third-party call
    /// control, RFC 3725); where it is away, what it offered last must do.
    fn offer_wanted(&mut self, call: usize, tx: ServerTx, headers: String) {
        let there = self
            .owner(call)
            .is_some_and(|owner| self.agent.sessions[owner].attached());
        if there && self.agent.calls[call].moves.is_none() {
            return self.ask(call, tx, headers, String::new());
        }
        let leg = &mut self.agent.calls[call].leg;
        leg.answer_in_ack = true;
        let sdp = leg.local_sdp.clone();
        self.accept(call, tx, true, headers, sdp);
    }

    fn ask(&mut self, call: usize, tx: ServerTx, headers: String, sdp: String) {
        // an offer of the browser that was not sent yet cannot be any more: it has to take this one first
        let c = &mut self.agent.calls[call];
        let (updates, rest): (Vec<Want>, Vec<Want>) = c
            .wants
            .drain(..)
            .partition(|w| matches!(w, Want::Update { .. }));
        c.wants.extend(rest);
        for want in updates {
            if let Want::Update { request, .. } = want {
                self.change_failed(call, &request, 491, "the far side was faster");
            }
        }
        let deadline = self.now + ANSWER_WAIT;
        self.agent.calls[call].leg.far_offer = Some(FarOffer {
            tx,
            sdp: sdp.clone(),
            headers,
            deadline,
        });
        let update = self.updated(call, Some(sdp).filter(|s| !s.is_empty()), Some(true));
        self.event_of_call(call, &update);
    }

    /// CANCEL in the dialog: the far side takes an offer back that waits for the browser (RFC 3261, section 9.2).
    pub fn on_cancel_offer(&mut self, call: usize, tx: ServerTx) {
        self.code(tx, false, 200);
        if let Some(far) = self.agent.calls[call].leg.far_offer.take() {
            self.code(far.tx, true, 487);
            let update = self.updated(call, None, Some(false));
            self.event_of_call(call, &update);
            self.next_offer(call);
        }
    }

    /// 200 to an offer of the far side.
    fn accept(&mut self, call: usize, tx: ServerTx, invite: bool, headers: String, sdp: String) {
        let headers = [
            &self.contact_header(),
            ALLOW,
            SUPPORTED,
            &headers,
            "Content-Type: application/sdp\r\n",
        ]
        .concat();
        let leg = &mut self.agent.calls[call].leg;
        let sdp = versioned(leg, sdp);
        leg.local_sdp.clone_from(&sdp);
        leg.refused.clear();
        if invite {
            leg.ack_by = self.now + ACK_WAIT;
        }
        self.reply(tx, invite, 200, "", headers, sdp);
    }

    /// The browser answers an offer of the far side, or makes the one that it was asked for.
    pub fn answer_far_offer(&mut self, session: usize, id: &str, call: usize, text: &str) {
        let call_id = self.agent.calls[call].id.clone();
        let Some(far) = self.agent.calls[call].leg.far_offer.clone() else {
            let details = "this call does not wait for an answer";
            let failure = Failure::new(409, "Conflict", details).of_call(&call_id);
            return self.refuse(session, id, &failure);
        };
        let kind = if far.sdp.is_empty() {
            sdp::Kind::Offer
        } else {
            sdp::Kind::Answer
        };
        let sdp = match self.placed(session, call, text, kind) {
            Ok(sdp) => sdp,
            Err(details) => {
                let failure = Failure::new(488, "Not Acceptable Here", &details);
                return self.refuse(session, id, &failure.of_call(&call_id));
            }
        };
        self.ack(session, id, &call_id);
        let c = &mut self.agent.calls[call];
        let offered = sdp::direction(&far.sdp);
        let hold = !far.sdp.is_empty()
            && matches!(offered, sdp::Direction::SendOnly | sdp::Direction::Inactive);
        let changed = !far.sdp.is_empty() && hold != c.remote_hold;
        let direction = if far.sdp.is_empty() {
            own_direction(c.hold, c.remote_hold)
        } else {
            c.remote_hold = hold;
            own_answer(c.hold, offered)
        };
        let sdp = match direction {
            sdp::Direction::SendRecv => sdp,
            held => {
                let mut held = sdp::with_direction(&sdp, held);
                sdp::follow(&mut held, &c.leg.local_sdp);
                held
            }
        };
        c.leg.far_offer = None;
        c.leg.answer_in_ack = far.sdp.is_empty();
        if !far.sdp.is_empty() {
            c.leg.remote_sdp = far.sdp;
        }
        self.accept(call, far.tx, true, far.headers, sdp);
        if changed {
            let update = self.updated(call, None, None);
            self.event_of_call(call, &update);
        }
    }

    /// The outcome of a request that is done.
    pub fn ack(&mut self, session: usize, id: &str, call_id: &str) {
        let ack = ServerMessage::Ack {
            call_id: Some(call_id.to_owned()),
            mode: None,
        };
        self.outcome(session, id, &ack);
    }

    /// The answer to our offer came with the ACK.
    pub fn answer_in_ack(&mut self, call: usize, message: &Message<'_>) {
        let answer = sdp_body(message)
            .and_then(|body| sdp::from_sip(&body, sdp::Kind::Answer, &self.config.policy).ok());
        let Some(answer) = answer else {
            let end = End::with_code(EndReason::MediaError, 488);
            return self.hang_up(call, end, 488, None);
        };
        let c = &mut self.agent.calls[call];
        c.leg.answer_in_ack = false;
        c.remote_hold = matches!(
            answer.direction,
            sdp::Direction::SendOnly | sdp::Direction::Inactive
        );
        c.leg.remote_sdp.clone_from(&answer.text);
        let update = self.updated(call, Some(answer.text), None);
        self.event_of_call(call, &update);
    }

    /// The browser did not answer the far side's offer in time, or the ACK to our answer stays away.
    pub fn tick_offers(&mut self, call: usize) {
        let now = self.now;
        let leg = &mut self.agent.calls[call].leg;
        if leg.ack_by != 0 && leg.ack_by <= now {
            // RFC 3261, section 13.3.1.4
            leg.ack_by = 0;
            return self.hang_up(call, End::with_code(EndReason::Timeout, 408), 480, None);
        }
        if let Some(far) = leg.far_offer.take_if(|far| far.deadline <= now) {
            self.code(far.tx, true, 480);
            let update = self.updated(call, None, Some(false));
            self.event_of_call(call, &update);
        }
        self.next_offer(call);
    }

    /// A browser is back: offers that still wait for it are told again, for no snapshot shows them.
    pub fn repeat_offers(&mut self, session: usize) {
        let number = self.agent.sessions[session].number;
        for call in 0..self.agent.calls.len() {
            let c = &self.agent.calls[call];
            if c.session != Some(number) || !c.live() {
                continue;
            }
            let sdp = match (&c.leg.far_offer, &c.moving) {
                (Some(far), _) => far.sdp.clone(),
                (None, Some(moving)) if self.asks(moving) => self.moving_offer(call),
                _ => continue,
            };
            let update = self.updated(call, Some(sdp).filter(|s| !s.is_empty()), Some(true));
            self.event(session, &update);
        }
    }

    /// Notes whether the far side takes UPDATE, where a message says it.
    pub fn note_abilities(&mut self, call: usize, message: &Message<'_>) {
        if message.header("Allow").is_some() {
            self.agent.calls[call].leg.takes_update =
                crate::timer::has_option(message, "Allow", "UPDATE");
        }
        if message.header("Supported").is_some() {
            self.agent.calls[call].leg.takes_replaces =
                crate::timer::has_option(message, "Supported", "replaces");
        }
        self.agent.calls[call].leg.asserts |= message.header("P-Asserted-Identity").is_some();
    }

    /// Takes over the identity that a trusted far side asserts in the middle of a call; true if it is a new one.
    pub fn new_remote(&mut self, call: usize, message: &Message<'_>, trusted: bool) -> bool {
        if !trusted || message.header("P-Asserted-Identity").is_none() {
            return false;
        }
        let party = identity::remote_of(message, trusted);
        let c = &mut self.agent.calls[call];
        if party.number.is_empty() || party.number == c.peer && party.name == c.peer_name {
            return false;
        }
        c.peer = party.number;
        c.peer_name = party.name;
        true
    }

    /// Tells the browser who the far side is now.
    pub fn tell_remote(&mut self, call: usize, sdp: Option<String>) {
        let c = &self.agent.calls[call];
        let remote = rtc_json_protocol::Remote {
            number: c.peer.clone(),
            display_name: c.peer_name.clone().unwrap_or_default(),
        };
        let mut update = self.updated(call, sdp, None);
        if let ServerMessage::CallUpdated { remote: place, .. } = &mut update {
            *place = Some(remote);
        }
        self.event_of_call(call, &update);
    }
}

/// An offer that will be made again: candidates in it wait with those that were found since.
fn untaken(leg: &mut Leg, open: &Open) {
    if open.want == Want::Candidates {
        let mut lines: Vec<String> = new_candidates(&leg.local_sdp, &open.sdp)
            .into_iter()
            .map(|candidate| candidate.candidate)
            .collect();
        lines.append(&mut leg.candidates);
        leg.candidates = lines;
    }
    refused(leg, &open.sdp);
}

/// The far side has seen that offer, though it did not take it.
fn refused(leg: &mut Leg, offered: &str) {
    if !offered.is_empty() {
        offered.clone_into(&mut leg.refused);
    }
}

/// A description of ours with the version that it has to have: the next one after that of an offer that was refused, or the
/// same where it is that offer once more (RFC 3264, section 8).
fn versioned(leg: &Leg, mut sdp: String) -> String {
    if leg.refused.is_empty() || sdp.is_empty() {
        return sdp;
    }
    if sdp::same_but_for_version(&sdp, &leg.refused) {
        return leg.refused.clone();
    }
    sdp::follow(&mut sdp, &leg.refused);
    sdp
}

fn without_role(sdp: &str) -> String {
    sdp.split_inclusive('\n')
        .filter(|line| !line.starts_with("a=setup:"))
        .collect()
}

/// A description of the browser in the direction that the call has: browsers know nothing of holding, that is ours.
pub(crate) fn held(call: &Call, sdp: &str) -> String {
    match own_direction(call.hold, call.remote_hold) {
        sdp::Direction::SendRecv => sdp.to_owned(),
        direction => sdp::with_direction(sdp, direction),
    }
}

/// What this side offers.
fn own_direction(hold: bool, remote_hold: bool) -> sdp::Direction {
    match (hold, remote_hold) {
        (false, false) => sdp::Direction::SendRecv,
        (true, false) => sdp::Direction::SendOnly,
        // to ask for sendrecv lets the far side say itself that it holds
        (false, true) => sdp::Direction::SendRecv,
        (true, true) => sdp::Direction::Inactive,
    }
}

/// What this side answers to an offer.
pub(crate) fn own_answer(hold: bool, offered: sdp::Direction) -> sdp::Direction {
    match (hold, sdp::mirror(offered)) {
        (true, sdp::Direction::SendRecv) => sdp::Direction::SendOnly,
        (true, sdp::Direction::RecvOnly) => sdp::Direction::Inactive,
        (_, direction) => direction,
    }
}

/// A description as the browser gets it: directions are ours. A browser that had answered `recvonly` would go on sending
/// nothing after a change of direction, of which it is told by a flag alone.
pub(crate) fn shown(sdp: String) -> String {
    match sdp::direction(&sdp) {
        sdp::Direction::SendRecv => sdp,
        _ => sdp::with_direction(&sdp, sdp::Direction::SendRecv),
    }
}

/// Candidates that the new text has and the old one had not.
fn new_candidates(old: &str, new: &str) -> Vec<rtc_json_protocol::Candidate> {
    let old = sdp::candidates(old).lines;
    sdp::candidates(new)
        .lines
        .lines()
        .filter(|line| !old.lines().any(|known| known == *line))
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .take(32)
        .map(|rest| rtc_json_protocol::Candidate {
            candidate: format!("candidate:{rest}"),
            sdp_mid: None,
            sdp_m_line_index: Some(0),
        })
        .collect()
}

/// An answer names its own DTLS role, the one that was agreed first (RFC 8842, section 5.5: it stays as long as the
/// association does).
fn as_answer(local: &str, remote: &str, offer: &str) -> String {
    let passive = offer.contains("a=setup:active")
        || !offer.contains("a=setup:passive") && remote.contains("a=setup:active");
    in_role(local, Some(if passive { "passive" } else { "active" }))
}

/// What this side is in the DTLS association: the client (`active`) or the server.
fn own_role(leg: &Leg) -> Option<&'static str> {
    let says = |sdp: &str, role| sdp.contains(&format!("a=setup:{role}\r\n"));
    if says(&leg.local_sdp, "active") || says(&leg.remote_sdp, "passive") {
        Some("active")
    } else if says(&leg.local_sdp, "passive") || says(&leg.remote_sdp, "active") {
        Some("passive")
    } else {
        None
    }
}

/// A description that leaves the role open, with one.
fn in_role(sdp: &str, role: Option<&str>) -> String {
    match role {
        Some(role) => sdp.replace("a=setup:actpass", &["a=setup:", role].concat()),
        None => sdp.to_owned(),
    }
}

/// The number and name in a name-addr.
pub(crate) fn party_of(address: &NameAddr) -> (String, Option<String>) {
    (identity::number_of(address), address.display.clone())
}
