//! Registration of browsers, the sessions that come of it, and the binding at the upstream registrar.

use std::net::IpAddr;

use rtc_json_protocol::{
    self as protocol, EndReason, Register, Secret, ServerMessage, UnregisterReason,
};
use rtc_json_sip::{self as sip, Algorithm, Challenge, Ha1, Message};
use subtle::ConstantTimeEq;

use crate::call::End;
use crate::config::{OverLimit, RegisterMode};
use crate::io::{Counter, Handle, Output, Purpose, SipRequest, TableUnavailable};
use crate::model::{Pending, Session};
use crate::step::Step;

/// Registrations of one DN that may wait at a time: a guesser cannot queue more.
const MAX_PENDING: usize = 8;
/// Stands for the connection of a `register` whose browser has left.
const GONE: i32 = -1;
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
        _token: Option<Result<String, String>>,
    ) {
        if let Some(token) = &wanted.resume {
            if let Some(session) = self.session_with_token(token) {
                return self.resume(session, conn, addr, id, &wanted);
            }
            if wanted.password.is_none() {
                return self.registration_failed(conn, id, 401, "session expired: register anew");
            }
        }
        if self.agent.pending.iter().any(|p| p.conn == conn) {
            // the same one again, or another before the first has its outcome: the first one counts
            return;
        }
        let Some(password) = wanted.password else {
            let reason = "password or resume expected";
            return self.registration_failed(conn, id, 400, reason);
        };
        if self.agent.pending.len() >= MAX_PENDING {
            return self.registration_failed(conn, id, 503, "too many registrations under way");
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
            password: Some(password.expose().to_owned()),
            ha1: Ha1::default(),
            cseq: 0,
            answered: 0,
            next_hop,
            deadline: self.now + PENDING_WAIT,
        };
        match self.config.register_mode {
            RegisterMode::Local => {
                let realm = self.config.realm.clone();
                keep_ha1(&mut pending, &self.agent.dn, &realm);
                self.agent.pending.push(pending);
                self.out.push(Output::LookUp { conn });
            }
            RegisterMode::Upstream => {
                self.agent.pending.push(pending);
                self.next_register();
            }
        }
    }

    /// The user table has spoken.
    pub fn on_ha1(&mut self, conn: i32, found: Result<Option<String>, TableUnavailable>) {
        let Some(index) = self.agent.pending.iter().position(|p| p.conn == conn) else {
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
                let expected = found.unwrap_or_default();
                if pending.ha1.matches(&expected) {
                    self.establish(pending);
                } else {
                    self.registration_failed(conn, &pending.request, 403, "Forbidden");
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
                self.agent.upstream.ha1 = pending.ha1;
                self.agent.upstream.next_hop = pending.next_hop;
                if self.agent.sessions.is_empty() {
                    self.agent.upstream.refresh_at = self.now;
                }
            }
            return;
        }
        match code {
            200..=299 => {
                let mut pending = self.agent.pending.remove(index);
                pending.expires = self.bound_until(message, pending.expires);
                self.agent.upstream.ha1 = pending.ha1.clone();
                self.agent.upstream.next_hop = pending.next_hop.clone();
                self.establish(pending);
            }
            401 | 407 if pending.answered < MAX_ANSWERS => {
                let challenge = message.and_then(strongest_challenge);
                let stale = challenge.as_ref().is_some_and(|c| c.stale);
                let again = pending.answered == 0 || stale;
                match challenge {
                    Some(challenge) if again => {
                        keep_ha1(
                            &mut self.agent.pending[index],
                            &self.agent.dn.clone(),
                            &challenge.realm,
                        );
                        self.agent.upstream.challenge = Some(challenge);
                        self.agent.upstream.nonce_count = 0;
                        self.agent.pending[index].answered += 1;
                        self.pending_register(index);
                    }
                    _ => self.give_up(index, 403, "Forbidden"),
                }
            }
            401 | 407 => self.give_up(index, 403, "Forbidden"),
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

    fn give_up(&mut self, index: usize, code: u16, reason: &str) {
        let pending = self.agent.pending.remove(index);
        if pending.conn != GONE {
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
                let expires = self.config.expires;
                self.bound_until(message, expires);
            }
            401 | 407 if up.answered < MAX_ANSWERS => match message.and_then(strongest_challenge) {
                Some(challenge) if challenge.stale || up.answered == 0 => {
                    up.challenge = Some(challenge);
                    up.nonce_count = 0;
                    up.answered += 1;
                    self.own_register(removing);
                }
                _ => self.binding_refused(removing),
            },
            401 | 403 | 404 | 407 => self.binding_refused(removing),
            _ if removing => {
                // nobody there to take it: the registrar forgets the binding by itself
                up.bound = false;
                up.refresh_at = 0;
            }
            _ => up.refresh_at = self.now + REFRESH_RETRY,
        }
    }

    /// The registrar no longer takes the agent's secret.
    fn binding_refused(&mut self, removing: bool) {
        self.agent.upstream.bound = false;
        self.agent.upstream.refresh_at = 0;
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
        let span = u64::from(granted) * 1000;
        up.expires_at = self.now + span;
        // early enough for one retry
        up.refresh_at = self.now + (span * 4 / 5).min(span.saturating_sub(5_000)).max(1_000);
        granted
    }

    /// The `register` is granted: a session begins (or the one on this connection goes on).
    fn establish(&mut self, pending: Pending) {
        self.agent.display_name.clone_from(&pending.display_name);
        let session = match self.agent.session_on(pending.conn) {
            Some(session) => session,
            None => {
                if self.agent.sessions.len() >= self.config.max_sessions
                    && !self.make_room(&pending)
                {
                    return;
                }
                let token = self.random_text(22);
                let number = self.agent.next_session;
                self.agent.next_session += 1;
                self.agent.sessions.push(Session {
                    number,
                    token,
                    conn: Some(pending.conn),
                    addr: pending.addr,
                    display_name: String::new(),
                    detached_at: 0,
                    missed_from: 0,
                    expires: 0,
                    expires_at: 0,
                    next_event: 1,
                    outcomes: Default::default(),
                    journal: Default::default(),
                });
                self.agent.sessions.len() - 1
            }
        };
        let s = &mut self.agent.sessions[session];
        s.display_name = pending.display_name;
        s.expires = pending.expires;
        self.renew(session);
        self.out.push(Output::Count(Counter::Registered));
        self.registered(session, &pending.request);
    }

    /// Room for one more session; false if the new one was refused instead.
    fn make_room(&mut self, pending: &Pending) -> bool {
        let idle = |s: &Session, step: &Self| {
            !step
                .agent
                .calls
                .iter()
                .any(|c| c.session == Some(s.number) && c.state.live())
        };
        let candidate = match self.config.over_limit {
            OverLimit::Refuse => None,
            // one whose browser is away first, then the oldest; never one that has a call
            OverLimit::Replace => {
                let sessions = &self.agent.sessions;
                sessions
                    .iter()
                    .position(|s| !s.attached() && idle(s, self))
                    .or_else(|| sessions.iter().position(|s| idle(s, self)))
            }
        };
        match candidate {
            Some(session) => {
                let conn = self.agent.sessions[session].conn;
                self.drop_session(
                    session,
                    UnregisterReason::Replaced,
                    EndReason::SessionExpired,
                );
                if let Some(conn) = conn {
                    self.out.push(Output::Close {
                        conn,
                        status: 1000,
                        reason: "replaced by another session",
                    });
                }
                true
            }
            None => {
                let reason = "max_sessions_per_agent is reached";
                self.registration_failed(pending.conn, &pending.request, 403, reason);
                false
            }
        }
    }

    /// The same browser is back, on another connection.
    fn resume(
        &mut self,
        session: usize,
        conn: i32,
        addr: Option<IpAddr>,
        id: &str,
        wanted: &Register,
    ) {
        let s = &mut self.agent.sessions[session];
        if let Some(old) = s.conn.filter(|old| *old != conn) {
            self.out.push(Output::Close {
                conn: old,
                status: 1000,
                reason: "resumed on another connection",
            });
        }
        // what it has seen it says itself; a client that does not gets what was never sent
        let from = match wanted.last {
            Some(last) => last + 1,
            None if s.attached() => s.next_event,
            None => s.missed_from,
        };
        s.conn = Some(conn);
        s.addr = addr;
        s.detached_at = 0;
        if let Some(name) = &wanted.display_name {
            s.display_name.clone_from(name);
        }
        self.renew(session);
        self.out.push(Output::Count(Counter::Resumed));
        self.registered(session, id);
        let missed: Vec<String> = self.agent.sessions[session]
            .journal
            .iter()
            .filter(|(number, _, _)| *number >= from)
            .map(|(_, _, text)| text.clone())
            .collect();
        for text in missed {
            self.out.push(Output::Frame { conn, text });
        }
    }

    fn registered(&mut self, session: usize, id: &str) {
        let s = &self.agent.sessions[session];
        let message = ServerMessage::Registered {
            dn: self.agent.dn.clone(),
            expires: s.expires,
            server: self.config.server_name.clone(),
            session: Secret::new(s.token.clone()),
            protocol: protocol::VERSION,
            ice_servers: Vec::new(),
            calls: self.snapshot(s.number),
        };
        self.note(session, id, &message);
    }

    pub fn registration_failed(&mut self, conn: i32, id: &str, code: u16, reason: &str) {
        let message = ServerMessage::RegistrationFailed {
            reason: reason.to_owned(),
            code,
        };
        self.out.push(Output::Count(Counter::RegisterFailed));
        let text = protocol::encode(&message, id);
        self.out.push(Output::Frame { conn, text });
    }

    /// Every message shows that the browser is alive.
    pub fn renew(&mut self, session: usize) {
        let s = &mut self.agent.sessions[session];
        s.expires_at = self.now + u64::from(s.expires) * 1000;
        s.forget(self.now.saturating_sub(2 * self.config.resume_grace));
    }

    pub fn unregister(&mut self, session: usize, id: &str) {
        let number = self.agent.sessions[session].number;
        self.end_calls_of(number, End::new(EndReason::NormalClearing));
        let message = ServerMessage::Unregistered {
            dn: self.agent.dn.clone(),
            reason: UnregisterReason::Requested,
        };
        self.note(session, id, &message);
        self.agent.sessions.remove(session);
        self.after_session();
    }

    /// Ends a session from the server's side. A browser that is there is told.
    pub fn drop_session(&mut self, session: usize, reason: UnregisterReason, calls_end: EndReason) {
        let number = self.agent.sessions[session].number;
        self.end_calls_of(number, End::new(calls_end));
        if self.agent.sessions[session].attached() {
            let dn = self.agent.dn.clone();
            self.event(session, &ServerMessage::Unregistered { dn, reason });
        }
        self.agent.sessions.remove(session);
        self.after_session();
    }

    /// The connection is gone: its session waits for the browser to come back.
    pub fn on_closed(&mut self, conn: i32) {
        // one whose REGISTER is under way waits for its reply
        self.agent.pending.retain(|p| p.conn != conn || p.cseq != 0);
        for pending in self.agent.pending.iter_mut().filter(|p| p.conn == conn) {
            pending.conn = GONE;
        }
        if let Some(session) = self.agent.session_on(conn) {
            let s = &mut self.agent.sessions[session];
            s.conn = None;
            s.detached_at = self.now;
            s.missed_from = s.next_event;
        }
        self.next_register();
    }

    /// The connection was gone before anybody had noticed: what was sent on it counts as missed.
    pub fn on_unsent(&mut self, conn: i32, text: &str) {
        self.on_closed(conn);
        for s in self.agent.sessions.iter_mut().filter(|s| !s.attached()) {
            if let Some((number, _, _)) = s.journal.iter().find(|(_, _, sent)| sent == text) {
                s.missed_from = s.missed_from.min(*number);
            }
        }
    }

    pub fn on_restarted(&mut self) {
        self.agent.pending.clear();
        let up = &mut self.agent.upstream;
        up.in_flight = 0;
        if up.bound && up.refresh_at == 0 {
            up.refresh_at = self.now;
        }
        for s in &mut self.agent.sessions {
            if s.conn.take().is_some() {
                s.detached_at = self.now;
                s.missed_from = s.next_event;
            }
        }
        self.calls_after_restart();
    }

    pub fn on_tick(&mut self) {
        self.tick_calls();
        let mut session = 0;
        while session < self.agent.sessions.len() {
            let s = &self.agent.sessions[session];
            let (over, lost) = if s.attached() {
                (s.expires_at <= self.now, false)
            } else {
                (s.detached_at + self.config.resume_grace <= self.now, true)
            };
            if !over {
                session += 1;
                continue;
            }
            if lost {
                self.out.push(Output::Count(Counter::SessionsLost));
            }
            self.drop_session(
                session,
                UnregisterReason::Expired,
                EndReason::SessionExpired,
            );
        }
        let now = self.now;
        while let Some(index) = self.agent.pending.iter().position(|p| p.deadline <= now) {
            self.give_up(index, 408, "the registrar does not answer");
        }
        self.next_register();
    }

    fn session_with_token(&self, token: &Secret) -> Option<usize> {
        // every session is compared, each in constant time
        let given = token.expose().as_bytes();
        let mut found = None;
        for (index, s) in self.agent.sessions.iter().enumerate() {
            if bool::from(s.token.as_bytes().ct_eq(given)) {
                found = Some(index);
            }
        }
        found
    }

    fn end_calls_of(&mut self, number: u32, end: End) {
        // with the last browser go the calls that ring in all of them
        let last = self.agent.sessions.len() == 1;
        while let Some(call) = self
            .agent
            .calls
            .iter()
            .position(|c| (last || c.session == Some(number)) && c.state.live())
        {
            self.hang_up(call, end, 480, None);
        }
    }

    /// A session has gone; with the last one goes the binding.
    fn after_session(&mut self) {
        if self.agent.sessions.is_empty() {
            if self.agent.upstream.bound {
                self.agent.upstream.refresh_at = self.now;
            }
            self.next_register();
        }
    }

    /// Sends the next REGISTER that waits. One at a time: RFC 3261, section 10.2, forbids a second one before the first
    /// has its final reply.
    fn next_register(&mut self) {
        if self.config.register_mode == RegisterMode::Local
            || self.agent.upstream.in_flight != 0
            || self.agent.pending.iter().any(|p| p.cseq != 0)
        {
            return;
        }
        if !self.agent.pending.is_empty() {
            return self.pending_register(0);
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
        let (expires, ha1) = (pending.expires, pending.ha1.clone());
        let next_hop = pending.next_hop.clone();
        let cseq = self.send_register(expires, &ha1, next_hop);
        self.agent.pending[index].cseq = cseq;
    }

    fn own_register(&mut self, removing: bool) {
        let expires = if removing { 0 } else { self.config.expires };
        let ha1 = self.agent.upstream.ha1.clone();
        let next_hop = self.agent.upstream.next_hop.clone();
        let cseq = self.send_register(expires, &ha1, next_hop);
        let up = &mut self.agent.upstream;
        up.in_flight = cseq;
        up.removing = removing;
        up.refresh_at = 0;
    }

    fn send_register(&mut self, expires: u32, ha1: &Ha1, next_hop: Option<String>) -> u32 {
        if self.agent.upstream.call_id.is_empty() {
            self.agent.upstream.call_id = self.random_text(16);
            self.agent.upstream.tag = self.random_text(10);
        }
        let uri = format!("sip:{}", self.config.domain);
        let authorization = self.authorization("REGISTER", &uri, ha1, "Authorization");
        let contact = self.contact_uri();
        let own = self.name_addr("");
        let next_hop = next_hop.unwrap_or_else(|| self.config.next_hop.clone());
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
                "Contact: <{contact}>;expires={expires}\r\nExpires: {expires}\r\n{authorization}"
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

/// The challenge to answer among those of a 401 or 407 (RFC 8760, section 2.4: the strongest that we know).
pub(crate) fn strongest_challenge(message: &Message<'_>) -> Option<Challenge> {
    let challenges: Vec<Challenge> = message
        .headers("WWW-Authenticate")
        .chain(message.headers("Proxy-Authenticate"))
        .filter_map(|value| Challenge::parse(&value).ok())
        .collect();
    sip::choose(&challenges).cloned()
}
