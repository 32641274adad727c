//! A call that gets another far side and stays the same call for its browser: REFER of the far side (RFC 3515), INVITE with
//! Replaces (RFC 3891), and the agent's way into a conference room.
//!
//! The browser is asked for a new offer (or to answer the one of an INVITE with Replaces). A second, hidden [`Call`] carries
//! the leg to the new far side; when that one has answered, the two calls exchange their legs, and the hidden one goes on to
//! end the old dialog.
//!
//! A browser that was loaded anew has another certificate, and not every far side begins a second DTLS association in a dialog:
//! Asterisk stays silent. There the same far side gets an INVITE with Replaces from us, in the same way.

use rtc_json_protocol::EndReason;
use rtc_json_sdp as sdp;
use rtc_json_sip::{self as sip, Dialog, Message, NameAddr, Uri};

use crate::call::{End, ACK_WAIT, SAFETY_WAIT};
use crate::inbound::ALLOW;
use crate::model::{
    Call, Direction, InDialog, Leg, Moving, ServerTx, State, TransferKind, TransferResult, Want,
};
use crate::offer::{held, party_of, ANSWER_WAIT};
use crate::outbound::sdp_body;
use crate::step::{Failure, Step};
use crate::trickle::SUPPORTED;

/// How long the far side that referred us may take to answer the last NOTIFY.
const NOTIFY_WAIT: u64 = 5_000;
/// How long the far side may take to end the dialog that our INVITE with Replaces took the place of.
const REPLACED_WAIT: u64 = 5_000;

impl Step<'_> {
    /// Does the browser still have to say something for it?
    pub fn asks(&self, moving: &Moving) -> bool {
        let new = moving.leg.as_ref().and_then(|key| self.call_with_leg(key));
        new.is_none_or(|new| self.agent.calls[new].state == State::Incoming)
    }

    /// What the browser was asked to answer; empty when an offer of its own was asked for.
    pub fn moving_offer(&self, call: usize) -> String {
        let key = self.agent.calls[call]
            .moving
            .as_ref()
            .and_then(|m| m.leg.as_ref());
        key.and_then(|key| self.call_with_leg(key))
            .map(|new| self.agent.calls[new].leg.remote_sdp.clone())
            .unwrap_or_default()
    }

    fn call_with_leg(&self, key: &str) -> Option<usize> {
        self.agent.calls.iter().position(|c| c.leg.key == key)
    }

    /// The call that a hidden one belongs to.
    fn moved_call(&self, hidden: usize) -> Option<usize> {
        let id = self.agent.calls[hidden].moves.as_deref()?;
        self.agent.calls.iter().position(|c| c.id == id && c.live())
    }

    /// Begins to give a call another far side: its browser is asked.
    pub fn move_call(&mut self, call: usize, moving: Moving, kind: TransferKind) {
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.note_transfer(kind, &moving.remote.0, now);
        c.moving = Some(Moving {
            deadline: now + ANSWER_WAIT,
            ..moving
        });
        let offer = self.moving_offer(call);
        let update = self.updated(call, Some(offer).filter(|o| !o.is_empty()), Some(true));
        self.event_of_call(call, &update);
    }

    /// Why a call cannot be moved now: a SIP status.
    fn unmovable(&self, call: usize) -> Option<u16> {
        let c = &self.agent.calls[call];
        let attached = self
            .owner(call)
            .is_some_and(|owner| self.agent.sessions[owner].attached());
        let exchange = c.leg.open.is_some() || c.leg.far_offer.is_some() || c.leg.ack_by != 0;
        match c.state {
            State::Established if c.leg.gone => Some(481),
            State::Established if exchange || c.moving.is_some() || c.transfer.is_some() => {
                Some(491)
            }
            State::Established if !attached => Some(480),
            State::Established => None,
            _ => Some(481),
        }
    }

    /// REFER of the far side in a dialog.
    pub fn on_refer(&mut self, call: usize, message: &Message<'_>, tx: ServerTx) {
        let answer = |step: &mut Self, code: u16| {
            step.reply(tx, false, code, "", String::new(), String::new());
        };
        if !self.config.accept_refer {
            return answer(self, 603);
        }
        if let Some(code) = self.unmovable(call) {
            return answer(self, code);
        }
        let Some((target, headers, remote)) = referred(message) else {
            return answer(self, 400);
        };
        let silent = message
            .header("Refer-Sub")
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("false"));
        let sub = if silent {
            "Refer-Sub: false\r\nSupported: norefersub\r\n"
        } else {
            ""
        };
        let lines = [&self.contact_header(), sub].concat();
        self.reply(tx, false, 202, "", lines, String::new());
        let moving = Moving {
            target,
            headers,
            notify: !silent,
            update: None,
            others: Vec::new(),
            remote,
            leg: None,
            deadline: 0,
        };
        if !silent {
            self.notify(call, 100, false);
        }
        self.move_call(call, moving, TransferKind::Refer);
    }

    /// Tells the far side that referred us how far it is (RFC 3515, section 2.4.4).
    fn notify(&mut self, call: usize, code: u16, over: bool) {
        let state = if over {
            "terminated;reason=noresource"
        } else {
            "active;expires=60"
        };
        let headers = [
            &self.contact_header(),
            "Event: refer\r\nSubscription-State: ",
            state,
            "\r\nContent-Type: message/sipfrag;version=2.0\r\n",
        ]
        .concat();
        let body = format!("SIP/2.0 {code} {}\r\n", sip::reason_phrase(code));
        self.send_in_dialog(call, InDialog::Notify, headers, body);
    }

    /// Offers an `update` by INVITE with Replaces where a re-INVITE would not do. Gives back what is to be offered within the
    /// dialog.
    pub fn offer_by_replaces(&mut self, call: usize, want: Want) -> Option<Want> {
        let c = &self.agent.calls[call];
        let Want::Update { sdp, .. } = &want else {
            return Some(want);
        };
        // browsers take another certificate in a dialog (RFC 8842, section 5.5); only they trickle
        if !c.leg.takes_replaces
            || c.leg.trickle == Some(true)
            || sdp::same_fingerprints(&c.leg.local_sdp, sdp)
        {
            return Some(want);
        }
        if self.owner(call).is_none() {
            return Some(want);
        }
        let dialog = &c.leg.dialog;
        // Asterisk wants to find the number in its dialplan before it looks at Replaces, and its Contact is none; whom we
        // talk to may be a number that it only brought here. Our own is always there
        let own = format!(
            "sip:{}@{}",
            sip::escape_user(&self.agent.dn),
            self.config.domain
        );
        let mut others = vec![own];
        others.extend(NameAddr::parse(&dialog.remote_uri).map(|address| address.uri));
        let moving = Moving {
            target: dialog.remote_target.clone(),
            headers: format!(
                "Replaces: {}\r\nRequire: replaces\r\n",
                sip::replaces_value(dialog)
            ),
            notify: false,
            update: Some(want),
            others,
            remote: (c.peer.clone(), c.peer_name.clone()),
            leg: None,
            deadline: 0,
        };
        self.replace_far_side(call, moving);
        None
    }

    /// INVITE with Replaces to the far side that the call has.
    fn replace_far_side(&mut self, call: usize, moving: Moving) {
        self.agent.calls[call].moving = Some(moving.clone());
        match (&moving.update, self.owner(call)) {
            (Some(Want::Update { sdp, .. }), Some(session)) => {
                let sdp = held(&self.agent.calls[call], sdp);
                self.call_new_far_side(session, call, &moving, sdp);
            }
            _ => self.move_failed(call, 480),
        }
    }

    /// INVITE with Replaces. True if it was dealt with here.
    pub fn on_invite_replaces(
        &mut self,
        message: &Message<'_>,
        tx: ServerTx,
        trusted: bool,
    ) -> bool {
        let Some(value) = message.header("Replaces") else {
            return false;
        };
        let refuse = |step: &mut Self, code: u16| {
            step.reply(tx, true, code, "", String::new(), String::new());
            true
        };
        let Some(replaced) = Replaced::parse(&value) else {
            return refuse(self, 400);
        };
        let found = self.agent.calls.iter().position(|c| {
            c.leg.dialog.call_id == replaced.call_id
                && c.leg.dialog.local_tag == replaced.to_tag
                && c.leg.dialog.remote_tag == replaced.from_tag
        });
        // RFC 3891, section 3
        let Some(call) = found else {
            return refuse(self, 481);
        };
        match self.agent.calls[call].state {
            State::Terminating | State::Cancelling => return refuse(self, 603),
            State::Established if replaced.early_only => return refuse(self, 486),
            _ => {}
        }
        if let Some(code) = self.unmovable(call) {
            return refuse(self, code);
        }
        let offer = match sdp_body(message) {
            None => String::new(),
            Some(body) => match sdp::from_sip(&body, sdp::Kind::Offer, &self.config.policy) {
                Ok(offer) => offer.text,
                Err(_) => return refuse(self, 488),
            },
        };
        let tag = self.random_text(10);
        let Ok(dialog) = Dialog::incoming(message, &tag) else {
            return refuse(self, 400);
        };
        let party = crate::identity::remote_of(message, trusted);
        let key = self.random_text(16);
        let mut leg = Leg::new(&key, dialog);
        leg.invite_tx = Some(tx);
        leg.far_invite = message.cseq().unwrap_or(0);
        leg.offerless = offer.is_empty();
        leg.remote_sdp = offer;
        let mut hidden = Call::new(&key, Direction::In, leg, self.now, self.unix_now);
        hidden.moves = Some(self.agent.calls[call].id.clone());
        hidden.session = self.agent.calls[call].session;
        hidden.peer = party.number.clone();
        hidden.deadline = self.now + SAFETY_WAIT;
        self.agent.calls.push(hidden);
        let new = self.agent.calls.len() - 1;
        self.note_abilities(new, message);
        self.agent.calls[new].leg.trickle = Some(crate::trickle::takes(message));
        let moving = Moving {
            target: String::new(),
            headers: String::new(),
            notify: false,
            update: None,
            others: Vec::new(),
            remote: (party.number, party.name),
            leg: Some(key),
            deadline: 0,
        };
        self.move_call(call, moving, TransferKind::Replaces);
        true
    }

    /// The browser's description for a call that moves. False if the call does not wait for one.
    pub fn answer_moving(&mut self, session: usize, id: &str, call: usize, text: &str) -> bool {
        let Some(moving) = self.agent.calls[call].moving.clone() else {
            return false;
        };
        if !self.asks(&moving) {
            return false;
        }
        let call_id = self.agent.calls[call].id.clone();
        let answering = !self.moving_offer(call).is_empty();
        let kind = if answering {
            sdp::Kind::Answer
        } else {
            sdp::Kind::Offer
        };
        let sdp = match self.placed(session, call, text, kind) {
            Ok(sdp) => sdp,
            Err(details) => {
                let failure = Failure::new(488, "Not Acceptable Here", &details);
                self.refuse(session, id, &failure.of_call(&call_id));
                return true;
            }
        };
        self.ack(session, id, &call_id);
        match moving
            .leg
            .as_deref()
            .and_then(|key| self.call_with_leg(key))
        {
            Some(new) => self.take_over(call, new, sdp),
            None => self.call_new_far_side(session, call, &moving, sdp),
        }
        true
    }

    /// INVITE to the new far side.
    fn call_new_far_side(&mut self, session: usize, call: usize, moving: &Moving, sdp: String) {
        let key = self.random_text(16);
        let tag = self.random_text(10);
        let name = self.agent.sessions[session].display_name.clone();
        let dialog = Dialog::outgoing(
            key.as_str(),
            tag,
            self.name_addr(&name),
            ["<", &moving.target, ">"].concat(),
            moving.target.as_str(),
        );
        let mut leg = Leg::new(&key, dialog);
        leg.local_sdp = sdp;
        leg.headers.clone_from(&moving.headers);
        leg.next_hop
            .clone_from(&self.agent.calls[call].leg.next_hop);
        let mut hidden = Call::new(&key, Direction::Out, leg, self.now, self.unix_now);
        hidden.moves = Some(self.agent.calls[call].id.clone());
        hidden.session = self.agent.calls[call].session;
        hidden.peer.clone_from(&moving.remote.0);
        hidden.deadline = self.now + SAFETY_WAIT;
        self.agent.calls.push(hidden);
        if let Some(moving) = &mut self.agent.calls[call].moving {
            moving.leg = Some(key);
            moving.deadline = 0;
        }
        self.invite(self.agent.calls.len() - 1, "");
    }

    /// The new far side rings.
    pub fn moving_progress(&mut self, hidden: usize, code: u16) {
        let Some(call) = self.moved_call(hidden) else {
            return;
        };
        let moving = self.agent.calls[call].moving.as_ref();
        if moving.is_some_and(|m| m.notify) && !self.agent.calls[call].leg.gone {
            self.notify(call, code, false);
        }
    }

    /// The INVITE with Replaces gets the browser's answer; from here on the call is that with the new far side.
    fn take_over(&mut self, call: usize, new: usize, sdp: String) {
        let contact = self.contact_header();
        let now = self.now;
        let leg = &mut self.agent.calls[new].leg;
        leg.local_sdp.clone_from(&sdp);
        leg.answer_in_ack = leg.offerless;
        leg.ack_by = now + ACK_WAIT;
        let tag = leg.dialog.local_tag.clone();
        let Some(tx) = leg.invite_tx else { return };
        let headers = [
            &contact,
            ALLOW,
            SUPPORTED,
            "Content-Type: application/sdp\r\n",
        ]
        .concat();
        self.reply(tx, true, 200, &tag, headers, sdp);
        self.agent.calls[new].state = State::Established;
        self.exchange_legs(call, new, None);
    }

    /// The new far side has answered our INVITE.
    pub fn moved(&mut self, hidden: usize, answer: String) {
        self.agent.calls[hidden].state = State::Established;
        self.agent.calls[hidden].leg.remote_sdp.clone_from(&answer);
        match self.moved_call(hidden) {
            Some(call) => self.exchange_legs(call, hidden, Some(answer)),
            // the call is over meanwhile
            None => self.send_bye(hidden),
        }
    }

    fn exchange_legs(&mut self, call: usize, hidden: usize, answer: Option<String>) {
        let Some(moving) = self.agent.calls[call].moving.take() else {
            return self.send_bye(hidden);
        };
        let conference = self.agent.calls[call].conference.is_some();
        let mut leg = std::mem::replace(
            &mut self.agent.calls[hidden].leg,
            // for the moment between the two
            Leg::new("", Dialog::outgoing("", "", "", "", "")),
        );
        std::mem::swap(&mut leg, &mut self.agent.calls[call].leg);
        let old = leg.key.clone();
        self.agent.calls[hidden].leg = leg;
        let gone = self.agent.calls[hidden].leg.gone;
        // what the far side did for the dialog of before
        self.agent.calls[call].remote_hold = false;
        self.recording_lost(call);
        let c = &mut self.agent.calls[call];
        if let Some(Want::Update { request, .. }) = &moving.update {
            self.change_done(call, request, answer);
            let old = &mut self.agent.calls[hidden];
            if gone {
                old.state = State::Terminating;
                old.deadline = self.now;
            } else {
                // who takes a Replaces ends what it replaces (RFC 3891, section 3); a BYE of ours could be faster than
                // its change of the media
                old.deadline = self.now + REPLACED_WAIT;
            }
            return self.next_offer(call);
        }
        c.hold = false;
        c.note_transfer_end(TransferResult::Completed, 0);
        let before = std::mem::take(&mut c.peer);
        c.first_peer.get_or_insert(before);
        c.peer = moving.remote.0;
        c.peer_name = moving.remote.1;
        self.tell_remote(call, answer);
        if gone {
            self.agent.calls[hidden].state = State::Terminating;
            self.agent.calls[hidden].deadline = self.now;
        } else if moving.notify {
            // BYE follows its answer: one that overtakes it would hide the success from the far side
            self.agent.calls[hidden].deadline = self.now + NOTIFY_WAIT;
            self.notify(hidden, 200, true);
        }
        if conference && moving.target.is_empty() {
            // an INVITE with Replaces took the place of a room: it is a plain call again
            self.conference_failed(call);
        }
        if conference && !moving.target.is_empty() {
            self.conference_entered(call, &old);
        } else if !gone && !moving.notify {
            self.send_bye(hidden);
        }
        self.next_offer(call);
    }

    /// A NOTIFY has its answer. After the last one the old dialog is ended.
    pub fn on_notify_reply(&mut self, call: usize) {
        let c = &self.agent.calls[call];
        let more = c.leg.sent.iter().any(|s| s.purpose == InDialog::Notify);
        if c.moves.is_some() && c.state == State::Established && c.transfer.is_none() && !more {
            self.send_bye(call);
        }
    }

    /// The new far side cannot be had: the call goes on with the old one, if that is still there. The hidden call, if there is
    /// one, is left to its own end.
    pub fn move_failed(&mut self, call: usize, code: u16) {
        let Some(mut moving) = self.agent.calls[call].moving.take() else {
            return;
        };
        let gone = self.agent.calls[call].leg.gone;
        if let Some(want) = moving.update {
            if code == 404 && !gone {
                if let Some(target) = moving.others.pop() {
                    moving.target = target;
                    moving.update = Some(want);
                    return self.replace_far_side(call, moving);
                }
            }
            let c = &mut self.agent.calls[call];
            c.leg.takes_replaces = false;
            c.wants.push_front(want);
            if gone {
                return self.hang_up(call, End::new(EndReason::NormalClearing), 480, None);
            }
            // within the dialog, then: better than nothing
            return self.next_offer(call);
        }
        self.agent.calls[call].note_transfer_end(TransferResult::Failed, code);
        if moving.notify && !gone {
            self.notify(call, code, true);
        }
        let update = self.updated(call, None, Some(false));
        self.event_of_call(call, &update);
        self.conference_failed(call);
        if gone {
            return self.hang_up(call, End::new(EndReason::NormalClearing), 480, None);
        }
        self.next_offer(call);
    }

    /// A hidden call has failed before it was of use.
    pub fn hidden_failed(&mut self, hidden: usize, code: u16) {
        let call = self
            .moved_call(hidden)
            .map(|call| self.agent.calls[call].id.clone());
        self.agent.calls.remove(hidden);
        let call = call.and_then(|id| self.live_call(&id));
        if let Some(call) = call {
            self.move_failed(call, code);
        }
    }

    /// The browser took too long, or the call is over: the leg to the new far side is taken back.
    pub fn drop_moving(&mut self, call: usize) {
        let Some(moving) = self.agent.calls[call].moving.take() else {
            return;
        };
        if let Some(new) = moving
            .leg
            .as_deref()
            .and_then(|key| self.call_with_leg(key))
        {
            self.release(new, 480);
        }
    }

    /// The time of a move has come.
    pub fn tick_moving(&mut self, call: usize) {
        let late = self.agent.calls[call]
            .moving
            .as_ref()
            .is_some_and(|m| m.deadline != 0 && m.deadline <= self.now);
        if !late {
            return;
        }
        let id = self.agent.calls[call].id.clone();
        let key = self.agent.calls[call]
            .moving
            .as_ref()
            .and_then(|m| m.leg.clone());
        self.move_failed(call, 408);
        if let Some(new) = key.and_then(|key| self.call_with_leg(&key)) {
            if self.agent.calls[new].id != id {
                self.release(new, 480);
            }
        }
    }
}

/// Where a REFER wants us to call: Request-URI, header lines for the INVITE, number and name.
fn referred(message: &Message<'_>) -> Option<(String, String, (String, Option<String>))> {
    let value = message.header("Refer-To")?;
    let address = NameAddr::parse(&value).ok()?;
    let (uri, fields) = match address.uri.split_once('?') {
        Some((uri, fields)) => (uri.to_owned(), fields),
        None => (address.uri.clone(), ""),
    };
    let parsed = Uri::parse(&uri).ok()?;
    let is_sip =
        parsed.scheme.eq_ignore_ascii_case("sip") || parsed.scheme.eq_ignore_ascii_case("sips");
    if !is_sip || parsed.host.is_empty() {
        return None;
    }
    let mut headers = String::new();
    for field in fields.split('&') {
        let Some((name, value)) = field.split_once('=') else {
            continue;
        };
        if name.eq_ignore_ascii_case("Replaces") {
            let value = sip::unescape_user(value);
            Replaced::parse(&value)?;
            headers.push_str(&format!("Replaces: {value}\r\nRequire: replaces\r\n"));
        }
    }
    if let Some(by) = message.header("Referred-By") {
        headers.push_str(&format!("Referred-By: {by}\r\n"));
    }
    let bare = NameAddr {
        uri: uri.clone(),
        ..address
    };
    Some((uri, headers, party_of(&bare)))
}

/// Value of Replaces (RFC 3891).
struct Replaced<'a> {
    call_id: &'a str,
    to_tag: &'a str,
    from_tag: &'a str,
    early_only: bool,
}

impl<'a> Replaced<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        if value.contains(char::is_control) {
            return None;
        }
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().filter(|id| !id.is_empty())?;
        let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
        for part in parts {
            match part.split_once('=') {
                Some((name, tag)) if name.trim().eq_ignore_ascii_case("to-tag") => {
                    to_tag = Some(tag.trim())
                }
                Some((name, tag)) if name.trim().eq_ignore_ascii_case("from-tag") => {
                    from_tag = Some(tag.trim());
                }
                None if part.eq_ignore_ascii_case("early-only") => early_only = true,
                _ => {}
            }
        }
        Some(Replaced {
            call_id,
            to_tag: to_tag?,
            from_tag: from_tag?,
            early_only,
        })
    }
}
