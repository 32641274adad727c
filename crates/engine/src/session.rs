//! Sessions: how a browser's registration begins, goes on over several connections, and ends.

use std::net::IpAddr;

use rtc_json_protocol::{
    self as protocol, EndReason, Register, Secret, ServerMessage, UnregisterReason,
};
use subtle::ConstantTimeEq;

use crate::call::End;
use crate::challenge::Proof;
use crate::config::OverLimit;
use crate::io::{Counter, Output};
use crate::model::{Pending, Session};
use crate::register::GONE;
use crate::step::Step;

/// What a browser is told that comes to a server which is to become empty.
pub(crate) const DRAINING: &str = "the server is draining: connect elsewhere";

impl Step<'_> {
    /// The `register` is granted: a session begins (or the one on this connection goes on).
    pub fn establish(&mut self, pending: Pending) {
        self.out.push(Output::Judged {
            conn: pending.conn,
            right: true,
        });
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
                    answers: false,
                    detached_at: 0,
                    missed_from: 0,
                    expires: 0,
                    expires_at: 0,
                    ice_renew_at: 0,
                    next_event: 1,
                    outcomes: Default::default(),
                    journal: Default::default(),
                });
                self.agent.sessions.len() - 1
            }
        };
        let s = &mut self.agent.sessions[session];
        s.answers = matches!(pending.proof, Proof::Line(_) | Proof::Answer(_));
        if s.answers {
            self.agent.upstream.asking.session = s.number;
        }
        s.display_name = pending.display_name;
        s.expires = pending.expires;
        self.renew(session);
        self.out.push(Output::Count(Counter::Registered));
        self.registered(session, &pending.request);
        // its registration was under way when the others were told
        self.tell_state(session);
    }

    /// Room for one more session; false if the new one was refused instead.
    fn make_room(&mut self, pending: &Pending) -> bool {
        let idle = |s: &Session, step: &Self| {
            !step
                .agent
                .calls
                .iter()
                .any(|c| c.session == Some(s.number) && c.live())
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
    pub fn resume(
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
            .map(|(_, _, text)| text.to_owned())
            .collect();
        for text in missed {
            self.out.push(Output::Frame { conn, text });
        }
        self.repeat_challenges(session);
        self.repeat_offers(session);
        // it may have been away when the others were told. Behind what it missed, whose numbers are lower
        self.tell_state(session);
    }

    fn registered(&mut self, session: usize, id: &str) {
        let message = self.registration(session);
        self.note(session, id, &message);
    }

    /// While the server drains: may this `register` go on? It may renew the session of its connection, and resume one that has
    /// calls to look after.
    pub fn stays(&self, conn: i32, resume: Option<&Secret>) -> bool {
        let resumed = resume.and_then(|token| self.session_with_token(token));
        match resumed.map(|session| self.agent.sessions[session].number) {
            None => self.agent.session_on(conn).is_some(),
            Some(number) => self
                .agent
                .calls
                .iter()
                // one that still rings in all of them is nobody's yet
                .any(|c| c.live() && c.session.is_none_or(|owner| owner == number)),
        }
    }

    /// Browsers that are there are told to go elsewhere.
    pub fn on_draining(&mut self) {
        for session in 0..self.agent.sessions.len() {
            if self.agent.sessions[session].attached() {
                self.notice(session, "draining");
            }
        }
    }

    /// What a browser has to know of this server beside its own session. After `registered` all is well unless it is told.
    fn tell_state(&mut self, session: usize) {
        if self.draining {
            self.notice(session, "draining");
        }
        if self.unreachable {
            self.notice(session, "unreachable");
        }
    }

    pub fn notice(&mut self, session: usize, reason: &str) {
        let reason = reason.to_owned();
        self.event(session, &ServerMessage::Notice { reason });
    }

    /// What a browser has to know of its session, with TURN credentials from now on.
    fn registration(&mut self, session: usize) -> ServerMessage {
        let ice = self.config.ice.as_ref();
        let renew = ice.map_or(0, |ice| ice.renew);
        let s = &mut self.agent.sessions[session];
        s.ice_renew_at = if renew == 0 { 0 } else { self.now + renew };
        let s = &self.agent.sessions[session];
        let dn = &self.agent.dn;
        ServerMessage::Registered {
            dn: dn.clone(),
            expires: s.expires,
            server: self.config.server_name.clone(),
            session: Secret::new(s.token.clone()),
            protocol: protocol::VERSION,
            ice_servers: ice.map_or_else(Vec::new, |ice| ice.source.servers(dn, self.unix_now)),
            calls: self.snapshot(s.number),
        }
    }

    /// TURN credentials of browsers that are there end before their sessions do: they are told new ones.
    fn tick_ice(&mut self) {
        for session in 0..self.agent.sessions.len() {
            let s = &self.agent.sessions[session];
            if s.attached() && s.ice_renew_at != 0 && s.ice_renew_at <= self.now {
                let message = self.registration(session);
                self.event(session, &message);
            }
        }
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
        self.drop_texts(number);
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
        self.drop_texts(number);
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
            if let Some((number, _, _)) = s.journal.iter().find(|(_, _, sent)| *sent == text) {
                s.missed_from = s.missed_from.min(number);
            }
        }
    }

    pub fn on_restarted(&mut self) {
        self.begin_anew(false);
    }

    /// What was under way is over. `elsewhere`: at another node, which may go on with it for a while.
    pub fn begin_anew(&mut self, elsewhere: bool) {
        self.agent.pending.clear();
        let up = &mut self.agent.upstream;
        up.in_flight = 0;
        up.asking.asked = None;
        if up.bound && up.refresh_at == 0 {
            up.refresh_at = self.now;
        }
        for s in &mut self.agent.sessions {
            if s.conn.take().is_some() {
                s.detached_at = self.now;
                s.missed_from = s.next_event;
            }
        }
        self.texts_after_restart();
        self.calls_after_restart(elsewhere);
    }

    pub fn on_tick(&mut self) {
        self.tick_calls();
        self.tick_texts();
        self.tick_challenges();
        self.tick_next_hop();
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
        self.tick_ice();
        let now = self.now;
        while let Some(index) = self.agent.pending.iter().position(|p| p.deadline <= now) {
            self.overdue(index);
        }
        self.next_register();
    }

    pub fn session_with_token(&self, token: &Secret) -> Option<usize> {
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
            .position(|c| (last || c.session == Some(number)) && c.live())
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
}
