//! From an event to its effects: lock the agent, decode, step, encode, commit, unlock, carry out.
//!
//! What a step wants done is done after the unlock, because tm may call back at once. Frames alone keep their order
//! across processes: the place in the queue is taken under the lock and given up when they are sent ([`Turn`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rtc_json_engine::{
    self as engine, Agent, Counter, Env, Handle, Input, Output, Purpose, ServerTx, SipReply,
    TableUnavailable,
};
use rtc_json_nodes::Version;
use rtc_json_protocol::{self as protocol, Limits, Request, ServerMessage};
use rtc_json_sip::{Message, NameAddr};
use rtc_json_store::{Arena, Error as StoreError, Guard};
use serde::{Deserialize, Serialize};

use crate::attempts::Attempts;
use crate::fault;
use crate::host::{Ha1Answer, Host, Level};
use crate::ice::{IceServers, SharedSecret};
use crate::nodes::{self, Changed, Nodes};
use crate::probes;
use crate::records::Records;
use crate::stats::Stat;
use crate::tokens::Tokens;

/// Everything that a process needs; made before the fork and never changed.
pub struct Runtime {
    /// Kamailio.
    pub host: Host,
    /// Settings of the engine.
    pub config: engine::Config,
    /// Limits of messages.
    pub limits: Limits,
    /// Checks tokens, if they are taken.
    pub tokens: Option<Tokens>,
    /// The STUN and TURN servers of `config`.
    pub ice: Option<Arc<IceServers>>,
    /// The API.
    pub api: rtc_json_api::rest::Config,
    /// Servers that are asked whether they are there, by [`probes::Asked`].
    pub targets: [Option<probes::Target>; 2],
    /// When they were last asked; of this process.
    pub probed_at: [AtomicU64; 2],
    /// Who may try to register how often.
    pub attempts: Attempts,
    /// WebSockets that one address may have open; 0 for any number.
    pub max_sockets: usize,
    /// SIP status for a call to an agent who is away; none: it rings all the same.
    pub away_reply: Option<u16>,
    /// Records of calls.
    pub records: Records,
    /// The other nodes, if there are any.
    pub nodes: Option<Nodes>,
    /// Log each message?
    pub log_messages: bool,
    /// The records.
    pub arena: Arena,
    /// Tells this start of Kamailio from earlier ones.
    pub start: u64,
    /// Ticks of this process.
    pub ticks: AtomicU64,
}

/// An agent's record with the start of Kamailio that wrote it: what an earlier one wrote is told of the restart first.
#[derive(Serialize, Deserialize)]
pub(crate) struct Stored {
    pub start: u64,
    /// Whose the agent is among the nodes; no owner while nobody has been let in, and where there is one node.
    pub version: Version,
    pub agent: Agent,
}

/// What is known of a connection: whose it is, and how often it sent rubbish.
#[derive(Default, Serialize, Deserialize)]
pub struct Connection {
    /// Start of Kamailio that it belongs to; connection numbers begin again with each.
    start: u64,
    /// The DN that registered on it; empty for none.
    pub dn: String,
    /// The browser's address, as it registered.
    pub addr: Option<IpAddr>,
    /// We have closed it: what still comes on it is not looked at.
    pub closing: bool,
    /// Malformed frames in the window.
    bad: u8,
    /// Beginning of the window.
    bad_since: u64,
}

/// An event that does not belong to any agent, or could not be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// There is no such agent.
    NoAgent,
    /// The arena is full.
    Full,
    /// The step panicked, or its record could not be read or written.
    Broken,
}

/// Ten malformed frames within this time close a connection.
const BAD_WINDOW: u64 = 10_000;
const BAD_LIMIT: u8 = 10;
/// One part in so many of the arena is kept for calls that run: with less left, no new one begins.
const RESERVE: u64 = 16;
/// Ticks (of 100 ms) between two looks for what dead processes left in the arena.
const RECLAIM_EVERY: u64 = 50;

/// What a step left to do for which agent.
type Next = VecDeque<(String, Input<'static>)>;

impl Runtime {
    /// Milliseconds of a clock that does not jump and outlives the process.
    pub fn now() -> u64 {
        clock(libc::CLOCK_BOOTTIME)
    }

    /// Unix time in milliseconds.
    pub fn unix_now() -> u64 {
        clock(libc::CLOCK_REALTIME)
    }

    /// Lets something happen to an agent and carries out all that follows from it.
    ///
    /// # Errors
    /// [`Failed`] when the event itself was not handled; nothing was committed or sent for it then.
    pub fn drive(&self, dn: &str, input: Input<'_>, create: bool) -> Result<(), Failed> {
        let mut next = Next::new();
        self.step(dn, input, create, &mut next)?;
        while let Some((dn, input)) = next.pop_front() {
            if let Err(failed) = self.step(&dn, input, false, &mut next) {
                if failed != Failed::NoAgent {
                    self.host.log(
                        Level::Error,
                        &format!("{dn}: a follow-up failed: {failed:?}"),
                    );
                }
            }
        }
        Ok(())
    }

    fn step(
        &self,
        dn: &str,
        input: Input<'_>,
        create: bool,
        next: &mut Next,
    ) -> Result<(), Failed> {
        let key = agent_key(dn);
        // looked up before the lock: one record at a time
        let draining = self.draining() && !(is_call(&input) && self.hands_over());
        let base = if create {
            self.known_version(dn)
        } else {
            Version::default()
        };
        let mut guard = match create {
            true => self
                .arena
                .lock_or_create(&key)
                .map_err(|error| self.store_failed(dn, &error))?,
            false => self
                .arena
                .lock(&key)
                .map_err(|error| self.store_failed(dn, &error))?
                .ok_or(Failed::NoAgent)?,
        };
        fault::point();
        let (outputs, changed) = self.locked_step(dn, input, base, draining, &mut guard)?;
        fault::point();
        let turn = outputs
            .iter()
            .any(|o| matches!(o, Output::Frame { .. }))
            .then(|| guard.turn());
        drop(guard);
        self.changed(dn, changed);
        // before a browser can answer: the caller hears the 180 ahead of the 200, and who is told that the password is wrong cannot try
        // another one before the failure counts; who looks at a statistic after an answer finds it in there
        for output in &outputs {
            match output {
                Output::Reply(reply) if reply.code < 200 => {
                    self.host.reply(reply);
                }
                Output::Judged { conn, right } => self.judged(dn, *conn, *right),
                Output::Count(counter) => self.count(Stat::from(*counter)),
                _ => {}
            }
        }
        if let Some(mut turn) = turn {
            turn.wait();
            fault::point();
            self.send_frames(dn, &outputs, next);
        }
        self.carry_out(dn, outputs, next);
        Ok(())
    }

    fn locked_step(
        &self,
        dn: &str,
        input: Input<'_>,
        base: Version,
        draining: bool,
        guard: &mut Guard<'_>,
    ) -> Result<(Vec<Output>, Changed), Failed> {
        let Stored {
            mut agent,
            start,
            version,
        } = self.decode(dn, guard.record(), base);
        let yielded = matches!(input, Input::Yielded { .. });
        // who has taken an agent over tells it when its browser is there, which is the next step. That a browser lives is of no
        // use to other nodes
        let quiet = matches!(input, Input::TakenOver { .. }) || is_ping(&input);
        let quiet = yielded || quiet && start == self.start;
        let mattered = |agent: &Agent| self.nodes.as_ref().map(|_| nodes::matters(agent));
        let matters = mattered(&agent);
        let before = gauges(&agent);
        let now = Self::now();
        let unreachable = self.unreachable();
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut rng = crate::entropy::Generator;
            let mut env = Env {
                config: &self.config,
                now,
                unix_now: Self::unix_now(),
                draining,
                unreachable,
                rng: &mut rng,
            };
            let mut outputs = Vec::new();
            if start != self.start {
                outputs = engine::step(&mut agent, Input::Restarted, &mut env);
            }
            outputs.extend(engine::step(&mut agent, input, &mut env));
            fault::point();
            outputs
        }));
        let Ok(outputs) = result else {
            self.count(Stat::StepFailures);
            self.host.log(
                Level::Error,
                &format!("{dn}: a step failed; nothing of it was kept"),
            );
            return Err(Failed::Broken);
        };
        if yielded {
            agent = Agent::new(dn);
        }
        let (version, changed) =
            self.next_version(version, &agent, quiet, matters == mattered(&agent));
        if agent.is_empty() {
            guard.remove();
        } else {
            let due = agent.due(self.config.resume_grace);
            let stored = Stored {
                start: self.start,
                version,
                agent,
            };
            let committed = with_buffer(|buffer| {
                let record = postcard::to_extend(&stored, buffer).map_err(|_| Failed::Broken)?;
                let result = guard.commit(&record, due);
                Ok((record, result))
            })?;
            committed.map_err(|error| self.store_failed(dn, &error))?;
            agent = stored.agent;
        }
        let after = gauges(&agent);
        for (stat, before, after) in [
            (Stat::Agents, before.0, after.0),
            (Stat::Sessions, before.1, after.1),
            (Stat::Calls, before.2, after.2),
        ] {
            // wrapping: a gauge goes down as well
            self.stat(stat)
                .fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
        Ok((outputs, changed))
    }

    /// Reads a record. One that cannot be read is given up: better a new registration than a DN that never works again.
    fn decode(&self, dn: &str, record: &[u8], base: Version) -> Stored {
        let fresh = |version| Stored {
            start: self.start,
            version,
            agent: Agent::new(dn),
        };
        if record.is_empty() {
            // nobody's yet: only its epoch counts
            return fresh(Version {
                owner: String::new(),
                ..base
            });
        }
        postcard::from_bytes::<Stored>(record).unwrap_or_else(|_| {
            self.host.log(
                Level::Error,
                &format!("{dn}: the record cannot be read; it is dropped"),
            );
            fresh(Version::default())
        })
    }

    /// Reads an agent without changing it.
    pub fn look(&self, dn: &str) -> Option<Agent> {
        let guard = self.arena.lock(&agent_key(dn)).ok()??;
        let record = guard.record().to_vec();
        drop(guard);
        Self::read_agent(&record)
    }

    /// Shows every agent.
    pub fn each_agent(&self, mut show: impl FnMut(&Agent)) {
        self.each_record(|key, record| {
            if key.starts_with(b"a/") {
                if let Some(agent) = Self::read_agent(record) {
                    show(&agent);
                }
            }
        });
    }

    /// Shows every record of the arena.
    pub fn each_record(&self, show: impl FnMut(&[u8], &[u8])) {
        let listed = self.arena.for_each(show);
        self.listed(listed);
    }

    /// The agent in a record.
    pub fn read_agent(record: &[u8]) -> Option<Agent> {
        Some(postcard::from_bytes::<Stored>(record).ok()?.agent)
    }

    /// Notes that records could not be listed.
    pub fn listed(&self, listed: Result<(), StoreError>) {
        if let Err(error) = listed {
            self.host
                .log(Level::Error, &format!("records cannot be listed: {error}"));
        }
    }

    fn send_frames(&self, dn: &str, outputs: &[Output], next: &mut Next) {
        for output in outputs {
            let Output::Frame { conn, text } = output else {
                continue;
            };
            if self.log_messages {
                self.log_message(dn, *conn, '>', frame_type(text), text.len());
            }
            if self.host.ws_send(*conn, text) {
                self.count(Stat::FramesOut);
            } else {
                let (conn, text) = (*conn, text.clone());
                next.push_back((dn.to_owned(), Input::Unsent { conn, text }));
            }
        }
    }

    fn carry_out(&self, dn: &str, outputs: Vec<Output>, next: &mut Next) {
        for output in outputs {
            fault::point();
            match output {
                Output::Frame { .. } => {}
                Output::Close {
                    conn,
                    status,
                    reason,
                } => self.close(conn, status, reason),
                Output::Request(request) => {
                    if !self.host.request(&request) {
                        let handle = request.handle;
                        next.push_back((handle.dn.clone(), Input::NotSent { handle }));
                    }
                }
                Output::PassOn { tx, node } => {
                    if self.host.pass_on(tx, &format!("sip:{node}")) {
                        self.count(Stat::PassedOn);
                    } else {
                        self.reply(tx, true, 480, "Temporarily Unavailable");
                    }
                }
                Output::Cancel { call_id, cseq } => {
                    if !self.host.cancel(&call_id, cseq) {
                        // the final reply was faster; it is handled as such
                        self.host.log(
                            Level::Info,
                            &format!("{dn}: nothing to cancel for Call-ID {call_id}"),
                        );
                    }
                }
                Output::Reply(reply) if reply.code < 200 => {} // sent already
                Output::Reply(reply) => {
                    if !self.host.reply(&reply) && reply.invite {
                        let tx = reply.tx;
                        next.push_back((dn.to_owned(), Input::NotReplied { tx }));
                    }
                }
                Output::LookUp { conn } => {
                    let found = match self.host.ha1(dn, &self.config.realm) {
                        Ha1Answer::Found(ha1) => Ok(Some(ha1)),
                        Ha1Answer::Unknown => Ok(None),
                        Ha1Answer::Failed => Err(TableUnavailable),
                    };
                    next.push_back((dn.to_owned(), Input::Ha1 { conn, found }));
                }
                Output::CallEnded(record) => {
                    self.keep_record(&record);
                    crate::current::with_call(*record, || self.host.call_ended());
                }
                Output::Judged { .. } | Output::Count(_) => {} // done already
            }
        }
    }

    // ---- frames

    /// Reads files anew that have changed.
    pub fn look_at_files(&self) {
        let now = Self::now();
        if let Some(tokens) = &self.tokens {
            let seen = tokens.keys.look(now);
            let seen = seen.map(|seen| seen.map(|keys| format!("{} keys", keys.len())));
            self.log_seen("jwt_keys", tokens.keys.file(), seen);
        }
        let secret = self.ice.as_ref().and_then(|ice| ice.secret.as_ref());
        if let Some(SharedSecret::File(file)) = secret {
            let seen = file.look(now);
            let seen = seen.map(|seen| seen.map(|_| "a secret".to_owned()));
            self.log_seen("turn_secret", file.file(), seen);
        }
    }

    fn log_seen<E: std::error::Error>(
        &self,
        parameter: &str,
        file: &Path,
        seen: Option<Result<String, E>>,
    ) {
        let file = file.display();
        match seen {
            None => {}
            Some(Ok(what)) => self
                .host
                .log(Level::Info, &format!("{parameter}: {what} in {file}")),
            Some(Err(problem)) => self.host.log(
                Level::Error,
                &format!(
                    "{parameter}: {file} cannot be used: {problem}; what it held before stays"
                ),
            ),
        }
    }

    /// Handles a parsed message of a browser. `owner`: whose connection it is, empty for nobody's (of a `register` it is looked up).
    pub fn message(
        &self,
        conn: i32,
        addr: Option<IpAddr>,
        owner: String,
        request: Request,
        event: Event,
    ) {
        let id = request.id.clone();
        let mut token = None;
        // resumes a session that this node had
        let mut stayed = false;
        let mut taken = false;
        let (dn, is_register) = match &request.message {
            protocol::ClientMessage::Register(register) => {
                self.look_at_files();
                token = match self.verdict(register, &event) {
                    Ok(verdict) => verdict,
                    Err((code, reason)) => return self.not_registered(conn, &id, code, reason),
                };
                let subject = token.as_ref().and_then(|verdict| verdict.as_ref().ok());
                let named = register.dn.as_ref().or(subject).cloned();
                let waits = matches!(event, Event::Act { .. }) && !matches!(token, Some(Ok(_)));
                let wait = waits.then(|| self.must_wait(named.as_deref(), addr, register));
                if let Some(wait) = wait.flatten() {
                    return self.too_many(conn, &id, wait);
                }
                match self.claim(conn, addr, &id, named) {
                    Ok(dn) => {
                        if let (Some(resume), Event::Act { .. }) = (&register.resume, &event) {
                            taken = self.take_over(&dn, resume);
                            stayed = !taken;
                        }
                        (dn, true)
                    }
                    Err(error) => return self.answer(conn, &id, &error),
                }
            }
            _ => (owner, false),
        };
        let refused = token.as_ref().and_then(|verdict| verdict.as_ref().err());
        let refused = refused.cloned();
        // (the request itself, with its description, is given away)
        let before = engine::before_registration(&request);
        let unknown = || match &before {
            Some(answer) => self.answer(conn, &id, answer),
            None => self.answer(conn, &id, &failure(&id, 400, "Bad request", "dn expected")),
        };
        if dn.is_empty() {
            return unknown();
        }
        // what is left belongs to the calls that run
        if matches!(request.message, protocol::ClientMessage::Call(_)) && self.short_of_space() {
            self.full(&dn);
            let full = failure(&id, 503, "Service Unavailable", "the server is full");
            return self.answer(conn, &id, &full);
        }
        let input = match event {
            Event::Act { next_hop } => Input::Message {
                conn,
                addr,
                request,
                next_hop,
                token,
            },
            Event::Refuse { code, reason } => Input::Refused {
                conn,
                request,
                code,
                reason,
            },
        };
        match self.drive(&dn, input, is_register && refused.is_none()) {
            Ok(()) if stayed => self.claim_calls(&dn),
            Ok(()) if taken => self.tell_taken_over(&dn),
            Ok(()) => {}
            Err(Failed::NoAgent) => match refused {
                Some(reason) => self.not_registered(conn, &id, 401, reason),
                None => unknown(),
            },
            Err(Failed::Full) if is_register => {
                self.not_registered(conn, &id, 503, "the server is full".to_owned());
            }
            Err(Failed::Full) => self.answer(
                conn,
                &id,
                &failure(&id, 503, "Service Unavailable", "the server is full"),
            ),
            Err(Failed::Broken) => {
                self.answer(conn, &id, &failure(&id, 500, "Internal error", ""));
            }
        }
    }

    /// What the token of a `register` comes to; none without one. With status and reason where nothing more is to be done.
    fn verdict(
        &self,
        register: &protocol::Register,
        event: &Event,
    ) -> Result<Option<Result<String, String>>, (u16, String)> {
        let Some(token) = &register.token else {
            return Ok(None);
        };
        if let Event::Refuse { code, reason } = event {
            // whoever it is for: the script has spoken
            return Err((*code, reason.clone()));
        }
        let Some(tokens) = &self.tokens else {
            return Err((501, "tokens are not configured".to_owned()));
        };
        match tokens.verdict(token, &self.limits, Self::unix_now()) {
            // a session that is resumed needs no token; if there is none, the engine has the reason
            Err((401, reason)) if register.resume.is_some() && register.dn.is_some() => {
                Ok(Some(Err(reason)))
            }
            verdict => verdict.map(|dn| Some(Ok(dn))),
        }
    }

    /// Refuses a `register` without an agent.
    fn not_registered(&self, conn: i32, id: &str, code: u16, reason: String) {
        self.count(Stat::RegisterFailed);
        let message = ServerMessage::RegistrationFailed {
            reason,
            code,
            retry_after: None,
        };
        self.answer(conn, id, &message);
    }

    /// Notes whose connection it is, before anything is done for it.
    fn claim(
        &self,
        conn: i32,
        addr: Option<IpAddr>,
        id: &str,
        dn: Option<String>,
    ) -> Result<String, Box<ServerMessage>> {
        let Some(dn) = dn else {
            let details = "payload.dn: expected a string";
            return Err(Box::new(failure(id, 400, "Bad request", details)));
        };
        let owner = self.dn_of(conn);
        if owner == dn {
            return Ok(dn);
        }
        let registered = !owner.is_empty()
            && self
                .look(&owner)
                .is_some_and(|agent| agent.session_on(conn).is_some());
        if registered {
            let details = "this connection is registered for another DN: unregister first";
            return Err(Box::new(failure(id, 409, "Conflict", details)));
        }
        if !owner.is_empty() {
            // a challenge that it never answered must not stay behind: else one connection leaves a record for every DN
            let _gone = self.drive(&owner, Input::Closed { conn }, false);
        }
        self.with_connection(conn, |connection| {
            connection.dn.clone_from(&dn);
            connection.addr = addr;
        })
        .map_err(|error| {
            self.store_failed(&dn, &error);
            Box::new(failure(
                id,
                503,
                "Service Unavailable",
                "the server is full",
            ))
        })?;
        Ok(dn)
    }

    /// A frame that does not parse: told so, and closed after the tenth.
    pub fn bad_frame(&self, conn: i32, bad: &protocol::BadFrame) {
        self.count(Stat::BadFrames);
        let id = bad.id.as_deref().unwrap_or("evt-0");
        self.answer(conn, id, &bad.error());
        if bad.kind != protocol::BadKind::Malformed {
            return;
        }
        let now = Self::now();
        let mut count = 0;
        // a full arena must not keep rubbish flowing
        let counted = self.with_connection(conn, |connection| {
            if now.saturating_sub(connection.bad_since) > BAD_WINDOW {
                connection.bad = 0;
                connection.bad_since = now;
            }
            connection.bad = connection.bad.saturating_add(1);
            count = connection.bad;
        });
        if counted.is_err() || count >= BAD_LIMIT {
            self.host.log(
                Level::Warning,
                &format!("connection {conn}: closed for malformed frames"),
            );
            self.close(conn, 1008, "malformed frames");
        }
    }

    /// Closes a connection, and lets nothing that still comes on it through: the far side need not answer our close.
    fn close(&self, conn: i32, status: u16, reason: &str) {
        // without room for the note it is closed all the same
        let _noted = self.with_connection(conn, |connection| connection.closing = true);
        self.host.ws_close(conn, status, reason);
    }

    /// A connection is gone.
    pub fn closed(&self, conn: i32) {
        let dn = self.dn_of(conn);
        if let Ok(Some(mut guard)) = self.arena.lock(&connection_key(conn)) {
            guard.remove();
        }
        if !dn.is_empty() {
            // an agent that is gone has no session to lose
            let _gone = self.drive(&dn, Input::Closed { conn }, false);
        }
    }

    /// Sends a message outside any session.
    pub(crate) fn answer(&self, conn: i32, id: &str, message: &ServerMessage) {
        let text = protocol::encode(message, id);
        if self.log_messages {
            self.log_message("", conn, '>', frame_type(&text), text.len());
        }
        if self.host.ws_send(conn, &text) {
            self.count(Stat::FramesOut);
        }
    }

    /// The DN that registered on a connection; empty for none.
    pub fn dn_of(&self, conn: i32) -> String {
        self.connection(conn).dn
    }

    /// What is known of a connection.
    pub fn connection(&self, conn: i32) -> Connection {
        let Ok(Some(guard)) = self.arena.lock(&connection_key(conn)) else {
            return Connection::default();
        };
        postcard::from_bytes::<Connection>(guard.record())
            .ok()
            .filter(|connection| connection.start == self.start)
            .unwrap_or_default()
    }

    fn with_connection(
        &self,
        conn: i32,
        change: impl FnOnce(&mut Connection),
    ) -> Result<(), StoreError> {
        let mut guard = self.arena.lock_or_create(&connection_key(conn))?;
        let mut connection = postcard::from_bytes::<Connection>(guard.record())
            .ok()
            .filter(|c| c.start == self.start)
            .unwrap_or_default();
        connection.start = self.start;
        change(&mut connection);
        match postcard::to_stdvec(&connection) {
            Ok(record) => guard.commit(&record, rtc_json_store::NEVER),
            Err(_) => Ok(()),
        }
    }

    // ---- SIP

    /// Is there an agent for SIP requests to that user?
    pub fn wanted(&self, dn: &str) -> bool {
        self.arena.contains(&agent_key(dn))
            && self
                .look(dn)
                .is_some_and(|agent| !agent.sessions.is_empty() || !agent.calls.is_empty())
    }

    /// Handles a SIP request; false if there is no agent for it after all.
    pub fn sip_request(
        &self,
        dn: &str,
        user: &str,
        message: &Message<'_>,
        tx: Option<ServerTx>,
        src: Option<IpAddr>,
    ) -> bool {
        let invite = message.method() == Some("INVITE");
        if invite && self.short_of_space() {
            self.full(dn);
            if let Some(tx) = tx {
                self.reply(tx, invite, 503, "Service Unavailable");
            }
            return true;
        }
        if let (Some(code), true, Some(tx)) = (self.away_reply, begins_call(message), tx) {
            if self.entry(dn).is_some_and(|entry| entry.away) {
                self.count(Stat::CallsAway);
                self.reply(tx, true, code, rtc_json_sip::reason_phrase(code));
                return true;
            }
        }
        let input = Input::SipRequest {
            message,
            user,
            tx,
            src,
        };
        match self.drive(dn, input, false) {
            Ok(()) => true,
            Err(Failed::NoAgent) => false,
            Err(failed) => {
                let (code, reason) = match failed {
                    Failed::Full => (503, "Service Unavailable"),
                    _ => (500, "Server Internal Error"),
                };
                if let Some(tx) = tx {
                    self.reply(tx, invite, code, reason);
                }
                true
            }
        }
    }

    /// Handles a reply to a request of ours.
    pub fn sip_reply(&self, handle: Handle, code: u16, message: Option<&Message<'_>>) {
        if handle.purpose == Purpose::Probe {
            return self.probe_answered(&handle, code, message.is_some());
        }
        let dn = handle.dn.clone();
        let again = handle.clone();
        let input = Input::SipReply {
            handle,
            code,
            message,
        };
        if self.drive(&dn, input, false).is_ok() {
            return;
        }
        // (one that was challenged has ended nothing)
        let bye = |m: &Message<'_>| m.cseq_method().as_deref() == Some("BYE");
        if code >= 200 && !matches!(code, 401 | 407) && message.is_some_and(bye) {
            self.bye_answered(&dn, &again.call);
        }
        // Nobody will ever use this call: what was accepted must be ended, or it stays half-made.
        if let (Purpose::Invite, Some(message)) = (again.purpose, message) {
            for request in engine::end_stray(&again, code, message) {
                self.host.request(&request);
            }
        }
    }

    fn reply(&self, tx: ServerTx, invite: bool, code: u16, reason: &'static str) {
        self.host.reply(&SipReply {
            tx,
            invite,
            code,
            reason,
            to_tag: String::new(),
            headers: String::new(),
            body: String::new(),
        });
    }

    // ---- time

    /// Steps every agent whose time has come.
    pub fn tick(&self) {
        self.look_at_files();
        let mut due = Vec::new();
        self.arena.due(Self::now(), &mut due);
        if self.ticks.fetch_add(1, Ordering::Relaxed) % RECLAIM_EVERY == 0 {
            self.arena.reclaim();
        }
        self.probe();
        self.nodes_tick(&due);
        for key in due {
            if let Some(dn) = key
                .strip_prefix(b"a/")
                .and_then(|k| std::str::from_utf8(k).ok())
            {
                // one that has gone meanwhile has no timers
                let _gone = self.drive(dn, Input::Tick, false);
            } else {
                self.forget_failures(&key);
                self.look_at_sockets(&key);
            }
        }
    }

    /// Once after a start: tells every agent of it, and forgets connections of before.
    pub fn after_start(&self) {
        let mut agents = Vec::new();
        let mut connections = Vec::new();
        let listed = self.arena.for_each(|key, record| {
            if let Some(dn) = key.strip_prefix(b"a/") {
                agents.push(String::from_utf8_lossy(dn).into_owned());
            } else if key.starts_with(b"c/")
                && postcard::from_bytes::<Connection>(record)
                    .map_or(true, |c| c.start != self.start)
            {
                connections.push(key.to_vec());
            }
        });
        self.listed(listed);
        for key in connections {
            if let Ok(Some(mut guard)) = self.arena.lock(&key) {
                let stale = postcard::from_bytes::<Connection>(guard.record())
                    .map_or(true, |c| c.start != self.start);
                if stale {
                    guard.remove();
                }
            }
        }
        for dn in agents {
            let _gone = self.drive(&dn, Input::Tick, false);
        }
        self.forget_old_records();
    }

    /// Counts agents, sessions and calls anew: the gauges of a process that was killed may be off.
    pub fn recount(&self) {
        let mut sum = (0, 0, 0);
        self.each_agent(|agent| {
            let (agents, sessions, calls) = gauges(agent);
            sum = (sum.0 + agents, sum.1 + sessions, sum.2 + calls);
        });
        self.stat(Stat::Agents).store(sum.0, Ordering::Relaxed);
        self.stat(Stat::Sessions).store(sum.1, Ordering::Relaxed);
        self.stat(Stat::Calls).store(sum.2, Ordering::Relaxed);
    }

    // ---- figures

    /// The cell of a statistic.
    pub fn stat(&self, stat: Stat) -> &AtomicU64 {
        self.arena.counter(stat as usize)
    }

    /// Adds one.
    pub fn count(&self, stat: Stat) {
        self.stat(stat).fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a message in the log: who, where, which way, what, how long. Never what is in it.
    pub fn log_message(&self, dn: &str, conn: i32, way: char, what: &str, len: usize) {
        self.host.log(
            Level::Info,
            &format!("message {way} {what} dn={dn} conn={conn} bytes={len}"),
        );
    }

    /// Is this server to become empty?
    pub fn draining(&self) -> bool {
        self.stat(Stat::Draining).load(Ordering::Relaxed) != 0
    }

    /// Lets it become empty, or fill again. All that are registered are told of the first, once.
    pub fn drain(&self, mode: Drain) {
        let before = self
            .stat(Stat::Draining)
            .swap(mode as u64, Ordering::Relaxed);
        if mode as u64 == before {
            return;
        }
        match mode {
            Drain::Off => self
                .host
                .log(Level::Notice, "drain: calls and sessions are taken again"),
            Drain::On => self.host.log(
                Level::Notice,
                "drain: no new calls and sessions from now on",
            ),
            Drain::Stop => self.host.log(
                Level::Notice,
                "drain: no new calls and sessions from now on; ends when it is empty",
            ),
        }
        if mode == Drain::Off || before != 0 {
            return;
        }
        let mut there = Vec::new();
        self.each_agent(|agent| there.push(agent.dn.clone()));
        for dn in there {
            // one that has gone meanwhile need not be told
            let _gone = self.drive(&dn, Input::Draining, false);
        }
    }

    /// Was it to end when empty, and is it so? Told once.
    pub fn is_to_end(&self) -> bool {
        let cell = self.stat(Stat::Draining);
        let busy = |stat| self.stat(stat).load(Ordering::Relaxed) != 0;
        if cell.load(Ordering::Relaxed) != Drain::Stop as u64
            || busy(Stat::Sessions)
            || busy(Stat::Calls)
        {
            return false;
        }
        // what browsers know no more of may still have to be ended in SIP: calls, the binding at the registrar
        let mut left = false;
        self.each_agent(|_| left = true);
        if left {
            return false;
        }
        cell.store(Drain::On as u64, Ordering::Relaxed);
        self.host
            .log(Level::Notice, "drain: empty, and so the server ends");
        true
    }

    /// Is what is left for calls that run?
    pub fn short_of_space(&self) -> bool {
        let usage = self.arena.usage();
        usage.free_bytes * RESERVE < usage.capacity
    }

    fn full(&self, dn: &str) -> Failed {
        self.count(Stat::ArenaFull);
        self.host.log(
            Level::Error,
            &format!("{dn}: the arena is full: raise arena_size"),
        );
        Failed::Full
    }

    fn store_failed(&self, dn: &str, error: &StoreError) -> Failed {
        if matches!(error, StoreError::Full) {
            return self.full(dn);
        }
        self.host.log(Level::Error, &format!("{dn}: {error}"));
        Failed::Broken
    }
}

/// Is a server to become empty?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Drain {
    /// No.
    Off = 0,
    /// Yes.
    On = 1,
    /// Yes, and to end then.
    Stop = 2,
}

impl From<i32> for Drain {
    fn from(mode: i32) -> Self {
        match mode {
            0 => Drain::Off,
            2 => Drain::Stop,
            _ => Drain::On,
        }
    }
}

/// What to do with a message.
#[derive(Clone, Debug)]
pub enum Event {
    /// Act on it.
    Act {
        /// Next hop that the script chose.
        next_hop: Option<String>,
    },
    /// The script refused it.
    Refuse {
        /// SIP status.
        code: u16,
        /// Text for the browser.
        reason: String,
    },
}

fn failure(request: &str, code: u16, message: &str, details: &str) -> ServerMessage {
    ServerMessage::Error {
        message: message.to_owned(),
        code,
        details: Some(details.to_owned()),
        call_id: None,
        request: Some(request.to_owned()),
        cause: None,
        retryable: matches!(code, 500 | 503).then_some(true),
        retry_after: None,
    }
}

/// Would it ring? An INVITE outside any dialog, and none that takes the place of another.
fn begins_call(message: &Message<'_>) -> bool {
    message.method() == Some("INVITE")
        && message.header("Replaces").is_none()
        && message
            .header("To")
            .and_then(|to| NameAddr::parse(&to).ok())
            .is_some_and(|to| to.tag().is_none())
}

/// Key of an agent.
pub fn agent_key(dn: &str) -> Vec<u8> {
    [b"a/", dn.as_bytes()].concat()
}

/// The DN of an agent's key; none for other keys.
pub fn agent_dn(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(b"a/")?).ok()
}

fn connection_key(conn: i32) -> Vec<u8> {
    format!("c/{conn}").into_bytes()
}

/// Agents with a session, sessions, calls.
pub(crate) fn gauges(agent: &Agent) -> (u64, u64, u64) {
    (
        u64::from(!agent.sessions.is_empty()),
        agent.sessions.len() as u64,
        agent.live_calls() as u64,
    )
}

/// A call that begins?
fn is_call(input: &Input<'_>) -> bool {
    match input {
        Input::SipRequest { .. } => true,
        Input::Message { request, .. } => {
            matches!(request.message, protocol::ClientMessage::Call(_))
        }
        _ => false,
    }
}

fn is_ping(input: &Input<'_>) -> bool {
    matches!(input, Input::Message { request, .. } if matches!(request.message, protocol::ClientMessage::Ping))
}

/// The type of a frame that we made ourselves: `{"type":"…"`.
fn frame_type(text: &str) -> &str {
    text.split('"').nth(3).unwrap_or_default()
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer; both clocks exist on every Linux that Kamailio runs on
    unsafe { libc::clock_gettime(which, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000
}

thread_local! {
    /// Records are encoded into the same memory again and again.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer for a record; what comes back with the result is kept for the next one.
fn with_buffer<T, E>(use_it: impl FnOnce(Vec<u8>) -> Result<(Vec<u8>, T), E>) -> Result<T, E> {
    let buffer = BUFFER.with(|slot| std::mem::take(&mut *slot.borrow_mut()));
    let (mut buffer, result) = use_it(buffer)?;
    buffer.clear();
    BUFFER.with(|slot| *slot.borrow_mut() = buffer);
    Ok(result)
}

/// Counters of the engine among the statistics.
impl From<Counter> for Stat {
    fn from(counter: Counter) -> Self {
        match counter {
            Counter::Registered => Stat::Registered,
            Counter::RegisterFailed => Stat::RegisterFailed,
            Counter::Resumed => Stat::Resumed,
            Counter::SessionsLost => Stat::SessionsLost,
            Counter::CallsOut => Stat::CallsOut,
            Counter::CallsIn => Stat::CallsIn,
            Counter::CallsAnswered => Stat::CallsAnswered,
            Counter::CallsFailed => Stat::CallsFailed,
            Counter::Errors => Stat::Errors,
            Counter::CallsLimited => Stat::CallsLimited,
        }
    }
}
