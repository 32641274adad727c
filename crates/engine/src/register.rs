//! Registration of browsers, and the binding at the upstream registrar. The sessions that come of it are in `session`.

use std::net::IpAddr;

use rtc_json_protocol::{
    self as protocol, EndReason, Register, Secret, ServerMessage, UnregisterReason,
};
use rtc_json_sip::{self as sip, Algorithm, Challenge, Ha1, Message};

use crate::challenge::{answerable, challenges, Asked, Proof, REGISTER_WAIT};
use crate::config::RegisterMode;
use crate::io::{Counter, Handle, Output, Purpose, SipRequest, TableUnavailable};
use crate::model::{Pending, Session};
use crate::session::DRAINING;
use crate::step::Step;

/// Registrations of one DN that may wait at a time: a guesser cannot queue more.
const MAX_PENDING: usize = 8;
/// Stands for the connection of a `register` whose browser has left.
pub(crate) const GONE: i32 = -1;
/// How long a `register` may take: tm gives a request up after 30 s.
const PENDING_WAIT: u64 = 35_000;
/// Challenges answered for one request: the second covers a nonce that went stale.
pub(crate) const MAX_ANSWERS: u8 = 2;
/// Pause before a failed refresh is tried again.
const REFRESH_RETRY: u64 = 30_000;

impl Step<'_> {
    pub fn register(
        &mut self,
        conn: i32,
        addr: Option<IpAddr>,
        id: &str,
        wanted: Register,
        next_hop: Option<String>,
        token: Option<Result<String, String>>,
    ) {
        if self.draining && !self.stays(conn, wanted.resume.as_ref()) {
            return self.registration_failed(conn, id, 503, DRAINING);
        }
        if let Some(resume) = &wanted.resume {
            if let Some(session) = self.session_with_token(resume) {
                return self.resume(session, conn, addr, id, &wanted);
            }
            if wanted.password.is_none() && wanted.token.is_none() && wanted.digest.is_none() {
                return self.registration_failed(conn, id, 401, "session expired: register anew");
            }
        }
        let before = self.agent.pending.iter().position(|p| p.conn == conn);
        if let Some(first) = before.map(|index| &self.agent.pending[index]) {
            if !first.waits() {
                // the same one again has its outcome before it; of two the first one counts
                if first.request != id {
                    let reason = "a registration of this connection is under way";
                    self.registration_failed(conn, id, 491, reason);
                }
                return;
            }
        }
        // whatever comes now, a challenge is answered once
        let asked = before.and_then(|index| match self.agent.pending.remove(index).proof {
            Proof::Asked(asked) => Some(asked),
            _ => None,
        });
        let proof = match self.proof(&wanted, token, asked) {
            Ok(proof) => proof,
            Err((code, reason)) => return self.registration_failed(conn, id, code, &reason),
        };
        if self.agent.pending.len() >= MAX_PENDING {
            // one that may never answer makes room
            let Some(oldest) = self.agent.pending.iter().position(Pending::waits) else {
                let reason = "too many registrations under way";
                return self.registration_failed(conn, id, 503, reason);
            };
            self.agent.pending.remove(oldest);
        }
        let expires = match wanted.expires {
            None | Some(0) => self.config.expires,
            Some(seconds) => seconds.clamp(MIN_EXPIRES, self.config.expires.max(MIN_EXPIRES)),
        };
        let mut pending = Pending {
            conn,
            addr,
            request: id.to_owned(),
            display_name: wanted.display_name.unwrap_or_default(),
            expires,
            password: wanted.password.map(|password| password.expose().to_owned()),
            ha1: Ha1::default(),
            proof,
            cseq: 0,
            answered: 0,
            next_hop,
            deadline: self.now + PENDING_WAIT,
        };
        if self.config.register_mode == RegisterMode::Upstream {
            self.agent.pending.push(pending);
            return self.next_register();
        }
        match pending.proof {
            Proof::Token => self.establish(pending),
            // known or not, every DN gets one, and none is looked up before the answer comes
            Proof::Nothing => {
                let nonce = self.random_text(32);
                let (realm, uri) = (self.config.realm.clone(), self.registrar());
                let asked = Asked::here(&realm, nonce, uri, self.now + REGISTER_WAIT);
                self.agent.pending.push(pending);
                self.challenge_pending(self.agent.pending.len() - 1, asked);
            }
            _ => {
                keep_ha1(&mut pending, &self.agent.dn, &self.config.realm);
                self.agent.pending.push(pending);
                self.out.push(Output::LookUp { conn });
            }
        }
    }

    /// What a browser shows of who it is; `asked` is the challenge that it was given before.
    fn proof(
        &self,
        wanted: &Register,
        token: Option<Result<String, String>>,
        asked: Option<Asked>,
    ) -> Result<Proof, (u16, String)> {
        if wanted.token.is_some() || token.is_some() {
            let own =
                |sub: &str| sub == self.agent.dn && wanted.dn.as_deref().is_none_or(|dn| dn == sub);
            return match token {
                Some(Ok(sub)) if own(&sub) => Ok(Proof::Token),
                // one text, whichever of the three differ
                Some(Ok(_)) => Err((403, "the token is for another DN".to_owned())),
                Some(Err(why)) => Err((401, why)),
                None => Err((401, "this server takes no tokens".to_owned())),
            };
        }
        if wanted.password.is_some() {
            return Ok(Proof::Password);
        }
        let (Some(digest), Some(asked)) = (&wanted.digest, asked) else {
            return Ok(Proof::Nothing);
        };
        if !asked.is_meant_by(digest) || asked.deadline <= self.now {
            // too late, or used before: there is a new one to be had
            return Ok(Proof::Nothing);
        }
        let dn = &self.agent.dn;
        match self.config.register_mode {
            RegisterMode::Local => asked.answer(dn, digest).map(Proof::Answer),
            RegisterMode::Upstream => asked.line(dn, &self.config.domain, digest).map(Proof::Line),
        }
        .map_err(|details| (400, details.to_owned()))
    }

    /// The outcome of this `register` is a challenge; another `register` may answer it.
    fn challenge_pending(&mut self, index: usize, asked: Asked) {
        let pending = &mut self.agent.pending[index];
        pending.deadline = asked.deadline;
        let conn = pending.conn;
        let text = protocol::encode(&asked.message(None), &pending.request);
        pending.proof = Proof::Asked(asked);
        self.out.push(Output::Frame { conn, text });
    }

    /// The user table has spoken.
    pub fn on_ha1(&mut self, conn: i32, found: Result<Option<String>, TableUnavailable>) {
        let asks = |p: &Pending| p.conn == conn && !p.waits();
        let Some(index) = self.agent.pending.iter().position(asks) else {
            return;
        };
        let pending = self.agent.pending.remove(index);
        match found {
            Err(TableUnavailable) => {
                let reason = "the user table cannot be asked";
                self.registration_failed(conn, &pending.request, 503, reason);
            }
            // one answer for an unknown DN and for a wrong password
            Ok(found) => {
                let right = match &pending.proof {
                    Proof::Answer(answer) => answer.matches(found.as_deref()),
                    _ => pending.ha1.is_known(found.as_deref()),
                };
                if right {
                    self.establish(pending);
                } else {
                    // Told by the timer: how long a table takes to find a number, or not to find it, would show in the answer's time.
                    self.agent.pending.push(Pending {
                        proof: Proof::Wrong,
                        deadline: self.now,
                        ..pending
                    });
                }
            }
        }
    }

    /// A reply to a REGISTER.
    pub fn on_register_reply(&mut self, cseq: u32, code: u16, message: Option<&Message<'_>>) {
        if code < 200 {
            return;
        }
        if self.agent.upstream.in_flight == cseq {
            self.on_own_register_reply(code, message);
        } else if let Some(index) = self.agent.pending.iter().position(|p| p.cseq == cseq) {
            self.on_pending_reply(index, code, message);
        } else if (200..300).contains(&code) && self.agent.sessions.is_empty() {
            // the browser left before the registrar agreed
            self.bound_until(message, self.config.expires);
            self.agent.upstream.refresh_at = self.now;
        }
        self.next_register();
    }

    fn on_pending_reply(&mut self, index: usize, code: u16, message: Option<&Message<'_>>) {
        let pending = &mut self.agent.pending[index];
        pending.cseq = 0;
        if pending.conn == GONE {
            // nobody waits for it any more; a binding that came of it has to be taken back
            let pending = self.agent.pending.remove(index);
            if (200..300).contains(&code) {
                self.bound_until(message, pending.expires);
                self.keep_secret(&pending);
                self.agent.upstream.next_hop = pending.next_hop;
                if self.agent.sessions.is_empty() {
                    self.agent.upstream.refresh_at = self.now;
                }
            }
            return;
        }
        match code {
            200..=299 if self.config.tokens && !self.agent.pending[index].was_checked() => {
                // The registrar may trust this server for the sake of tokens; then it asks nobody, and what it grants says
                // nothing of this browser.
                let pending = self.agent.pending.remove(index);
                self.bound_until(message, pending.expires);
                self.agent.upstream.next_hop = pending.next_hop;
                if self.agent.sessions.is_empty() {
                    self.agent.upstream.refresh_at = self.now;
                }
                let reason = "the registrar has not checked the password";
                self.registration_failed(pending.conn, &pending.request, 403, reason);
            }
            200..=299 => {
                let mut pending = self.agent.pending.remove(index);
                pending.expires = self.bound_until(message, pending.expires);
                self.keep_secret(&pending);
                self.agent.upstream.next_hop = pending.next_hop.clone();
                self.establish(pending);
            }
            401 | 407 => self.on_pending_challenged(index, code, message),
            423 => {
                let min = message.and_then(sip::min_expires).unwrap_or(0);
                if min > self.agent.pending[index].expires && min <= 86_400 {
                    self.agent.pending[index].expires = min;
                    self.pending_register(index);
                } else {
                    self.give_up(index, 423, sip::reason_phrase(423));
                }
            }
            503 if message.is_none() => self.give_up(index, 503, "the registrar cannot be reached"),
            408 if message.is_none() => self.give_up(index, 408, "the registrar does not answer"),
            _ => self.give_up(index, code, sip::reason_phrase(code)),
        }
    }

    fn on_pending_challenged(&mut self, index: usize, code: u16, message: Option<&Message<'_>>) {
        let asked = |step: &Self| {
            let deadline = step.now + REGISTER_WAIT;
            Asked::by(message?, code, "REGISTER", &step.registrar(), deadline)
        };
        let pending = &self.agent.pending[index];
        match &pending.proof {
            Proof::Password => {
                let challenge = message.and_then(strongest_challenge);
                let stale = challenge.as_ref().is_some_and(|c| c.stale);
                let again = pending.answered == 0 || stale && pending.answered < MAX_ANSWERS;
                match challenge {
                    Some(challenge) if again => {
                        let pending = &mut self.agent.pending[index];
                        keep_ha1(pending, &self.agent.dn, &challenge.realm);
                        pending.answered += 1;
                        self.agent.upstream.challenge = Some(challenge);
                        self.agent.upstream.nonce_count = 0;
                        self.pending_register(index);
                    }
                    _ => self.wrong(index),
                }
            }
            Proof::Token => {
                let reason = "the registrar asks for a password: it has to trust this server";
                self.give_up(index, 403, reason);
            }
            Proof::Nothing => match asked(self) {
                Some(asked) => self.challenge_pending(index, asked),
                None => {
                    let reason = "the registrar asks for what a browser cannot answer";
                    self.give_up(index, 403, reason);
                }
            },
            Proof::Line(_) => match asked(self).filter(Asked::stale) {
                Some(asked) => self.challenge_pending(index, asked),
                None => self.wrong(index),
            },
            Proof::Asked(_) | Proof::Answer(_) | Proof::Wrong => {
                self.give_up(index, 403, "Forbidden")
            }
        }
    }

    /// Keeps the HA1 that the registrar accepted. One who answered a challenge by himself brings none; then that of another
    /// browser of the agent still serves.
    fn keep_secret(&mut self, pending: &Pending) {
        if !pending.ha1.is_empty() {
            self.agent.upstream.ha1 = pending.ha1.clone();
        }
    }

    /// The registrar does not take what a browser shows.
    fn wrong(&mut self, index: usize) {
        let pending = self.agent.pending.remove(index);
        self.not_proven(pending.conn, &pending.request);
    }

    /// One answer for an unknown DN and for a wrong password.
    fn not_proven(&mut self, conn: i32, request: &str) {
        self.out.push(Output::Judged { conn, right: false });
        self.registration_failed(conn, request, 403, "Forbidden");
    }

    /// Its time is over.
    pub fn overdue(&mut self, index: usize) {
        match self.agent.pending[index].proof {
            Proof::Wrong => self.wrong(index),
            _ => self.give_up(index, 408, "the registrar does not answer"),
        }
    }

    pub fn give_up(&mut self, index: usize, code: u16, reason: &str) {
        let pending = self.agent.pending.remove(index);
        // one that waits for its browser has had its outcome
        if pending.conn != GONE && !pending.waits() {
            self.registration_failed(pending.conn, &pending.request, code, reason);
        }
    }

    /// A reply to a refresh or a removal that the server sent by itself.
    fn on_own_register_reply(&mut self, code: u16, message: Option<&Message<'_>>) {
        let up = &mut self.agent.upstream;
        let removing = up.removing;
        up.in_flight = 0;
        match code {
            200..=299 if removing => {
                up.bound = false;
                up.refresh_at = 0;
            }
            200..=299 => {
                up.asking.settle();
                let expires = self.config.expires;
                self.bound_until(message, expires);
                if self.agent.sessions.is_empty() {
                    // the last browser has left meanwhile
                    self.agent.upstream.refresh_at = self.now;
                }
            }
            401 | 407 => {
                let again =
                    |c: &Challenge| up.answered == 0 || c.stale && up.answered < MAX_ANSWERS;
                let challenge = message.and_then(|m| answerable(m, &up.ha1)).filter(again);
                match challenge {
                    Some(challenge) => {
                        up.challenge = Some(challenge);
                        up.nonce_count = 0;
                        up.answered += 1;
                        self.own_register(removing);
                    }
                    // nobody is left who could be asked
                    None if removing => self.binding_refused(true),
                    None => self.refresh_challenged(code, message),
                }
            }
            403 | 404 => self.binding_refused(removing),
            _ if removing => {
                // nobody there to take it: the registrar forgets the binding by itself
                up.bound = false;
                up.refresh_at = 0;
            }
            _ => up.refresh_at = self.now + REFRESH_RETRY,
        }
    }

    /// A refresh could not be made now. It is tried again while the binding lasts; then the browsers that are there are told.
    pub fn refresh_later(&mut self) {
        let there = self.agent.sessions.iter().any(Session::attached);
        let up = &mut self.agent.upstream;
        let left = up.expires_at.saturating_sub(self.now);
        if left == 0 && there {
            return self.binding_refused(false);
        }
        up.asking.rounds = 0;
        up.refresh_at = match left {
            0 => self.now + REFRESH_RETRY,
            _ => self.now + (left / 2).clamp(1_000, REFRESH_RETRY),
        };
    }

    /// The registrar no longer takes the agent's secret.
    pub fn binding_refused(&mut self, removing: bool) {
        self.agent.upstream.bound = false;
        self.agent.upstream.refresh_at = 0;
        self.agent.upstream.asking.settle();
        if !removing {
            while !self.agent.sessions.is_empty() {
                self.drop_session(0, UnregisterReason::Expired, EndReason::SessionExpired);
            }
        }
    }

    /// Notes the binding; gives the seconds that the registrar granted.
    fn bound_until(&mut self, message: Option<&Message<'_>>, asked: u32) -> u32 {
        let contact = self.contact_uri();
        let granted = message
            .and_then(|m| sip::contact_expires(m, &contact))
            .filter(|seconds| *seconds > 0)
            .unwrap_or(asked);
        let up = &mut self.agent.upstream;
        up.bound = true;
        up.former.clear();
        up.asking.missed = false;
        let span = u64::from(granted) * 1000;
        up.expires_at = self.now + span;
        // early enough for one retry
        up.refresh_at = self.now + (span * 4 / 5).min(span.saturating_sub(5_000)).max(1_000);
        granted
    }

    pub fn registration_failed(&mut self, conn: i32, id: &str, code: u16, reason: &str) {
        let message = ServerMessage::RegistrationFailed {
            reason: reason.to_owned(),
            code,
            retry_after: None,
        };
        self.out.push(Output::Count(Counter::RegisterFailed));
        let text = protocol::encode(&message, id);
        self.out.push(Output::Frame { conn, text });
    }

    /// Sends the next REGISTER that waits. One at a time: RFC 3261, section 10.2, forbids a second one before the first
    /// has its final reply.
    pub fn next_register(&mut self) {
        if self.config.register_mode == RegisterMode::Local
            || self.agent.upstream.in_flight != 0
            || self.agent.pending.iter().any(|p| p.cseq != 0)
        {
            return;
        }
        if let Some(index) = self.agent.pending.iter().position(|p| !p.waits()) {
            return self.pending_register(index);
        }
        let up = &self.agent.upstream;
        if up.bound && up.refresh_at != 0 && up.refresh_at <= self.now {
            let removing = self.agent.sessions.is_empty();
            self.agent.upstream.answered = 0;
            self.own_register(removing);
        }
    }

    fn pending_register(&mut self, index: usize) {
        let known = self
            .agent
            .upstream
            .challenge
            .as_ref()
            .map(|c| c.realm.clone());
        let realm = known.unwrap_or_else(|| self.config.realm.clone());
        let pending = &mut self.agent.pending[index];
        if !realm.is_empty() {
            keep_ha1(pending, &self.agent.dn, &realm);
        }
        let ha1 = pending.ha1.clone();
        let line = match &pending.proof {
            Proof::Line(line) => line.clone(),
            // a registrar that may trust us has to ask by itself, or it would not be known whether it has checked anything
            Proof::Password if pending.answered > 0 || !self.config.tokens => {
                self.register_authorization(&ha1)
            }
            _ => String::new(),
        };
        let pending = &self.agent.pending[index];
        let (expires, next_hop) = (pending.expires, pending.next_hop.clone());
        let cseq = self.send_register(expires, &line, next_hop);
        let pending = &mut self.agent.pending[index];
        pending.cseq = cseq;
        // from now on: others may have been in front of it, and no second REGISTER may go out before this one is over
        pending.deadline = self.now + PENDING_WAIT;
    }

    fn own_register(&mut self, removing: bool) {
        let expires = if removing { 0 } else { self.config.expires };
        let ha1 = self.agent.upstream.ha1.clone();
        let next_hop = self.agent.upstream.next_hop.clone();
        let by_browser = self.agent.upstream.asking.line.take();
        self.agent.upstream.asking.answering = by_browser.is_some();
        let line = by_browser.unwrap_or_else(|| self.register_authorization(&ha1));
        let cseq = self.send_register(expires, &line, next_hop);
        let up = &mut self.agent.upstream;
        if removing {
            // nobody is left to answer
            up.asking.asked = None;
        }
        up.in_flight = cseq;
        up.removing = removing;
        up.refresh_at = 0;
    }

    /// Request-URI of every REGISTER.
    pub fn registrar(&self) -> String {
        format!("sip:{}", self.config.domain)
    }

    fn register_authorization(&mut self, ha1: &Ha1) -> String {
        let uri = self.registrar();
        self.authorization("REGISTER", &uri, ha1, "Authorization")
    }

    /// A REGISTER; `authorization` is a header line or empty.
    fn send_register(
        &mut self,
        expires: u32,
        authorization: &str,
        next_hop: Option<String>,
    ) -> u32 {
        if self.agent.upstream.call_id.is_empty() {
            self.agent.upstream.call_id = self.random_text(16);
            self.agent.upstream.tag = self.random_text(10);
        }
        let uri = self.registrar();
        let contact = self.contact_uri();
        let own = self.name_addr("");
        let next_hop = next_hop.unwrap_or_else(|| self.config.next_hop.clone());
        let former = self.former_contacts();
        let up = &mut self.agent.upstream;
        up.cseq += 1;
        let cseq = up.cseq;
        let request = SipRequest {
            method: "REGISTER",
            uri,
            from: own.clone(),
            from_tag: up.tag.clone(),
            to: own,
            to_tag: String::new(),
            call_id: up.call_id.clone(),
            cseq,
            next_hop,
            headers: format!(
                "Contact: <{contact}>;expires={expires}\r\n{former}Expires: {expires}\r\n{authorization}"
            ),
            body: String::new(),
            handle: Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::Register,
                call: String::new(),
                cseq,
            },
        };
        self.out.push(Output::Request(Box::new(request)));
        cseq
    }

    /// A header line that answers the last challenge, or nothing where there is none to answer or no HA1 for it.
    pub fn authorization(&mut self, method: &str, uri: &str, ha1: &Ha1, header: &str) -> String {
        let cnonce = self.random_text(12);
        let dn = &self.agent.dn;
        let up = &mut self.agent.upstream;
        let Some(challenge) = &up.challenge else {
            return String::new();
        };
        up.nonce_count += 1;
        match sip::authorization(challenge, dn, ha1, method, uri, &cnonce, up.nonce_count) {
            Some(value) => format!("{header}: {value}\r\n"),
            None => String::new(),
        }
    }
}

/// Shortest registration that a client can ask for, in seconds.
const MIN_EXPIRES: u32 = 30;

/// Turns the clear password into HA1 for that realm and drops it.
fn keep_ha1(pending: &mut Pending, dn: &str, realm: &str) {
    if let Some(password) = pending.password.take().map(Secret::from) {
        pending.ha1 = Ha1::new(
            realm,
            &sip::ha1(Algorithm::Md5, dn, realm, password.expose()),
            &sip::ha1(Algorithm::Sha256, dn, realm, password.expose()),
        );
    }
}

/// The challenge that an HA1 is to answer among those of a 401 or 407 (RFC 8760, section 2.4: the strongest that we know).
pub(crate) fn strongest_challenge(message: &Message<'_>) -> Option<Challenge> {
    let challenges: Vec<Challenge> = challenges(message).collect();
    sip::choose(&challenges).cloned()
}

impl Pending {
    /// Is it the browser's turn, to answer a challenge?
    fn waits(&self) -> bool {
        matches!(self.proof, Proof::Asked(_))
    }

    /// Has somebody looked at what the browser has shown, if the registrar grants it?
    fn was_checked(&self) -> bool {
        match self.proof {
            Proof::Password => self.answered > 0,
            Proof::Token | Proof::Line(_) => true,
            Proof::Nothing | Proof::Asked(_) | Proof::Answer(_) | Proof::Wrong => false,
        }
    }
}
