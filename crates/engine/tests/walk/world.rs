//! One agent with its browsers, its far sides, and tm between them; every step goes through encode and decode.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rtc_json_engine::{
    step, Agent, Config, DtmfMode, Env, Handle, Input, Output, OverLimit, RegisterMode, ServerTx,
    TableUnavailable, Trickle,
};
use rtc_json_protocol::{parse, Limits};
use rtc_json_sip::Message;
use serde_json::{json, Value};

use crate::browser::Browser;
use crate::dice::Dice;
use crate::far::{request_text, Dialog, Far, OurOffer, Server};

/// No record of these walks needs more.
const MAX_RECORD: usize = 400_000;

thread_local! {
    pub static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What comes back from the server's surroundings a little later.
#[derive(Clone, Debug)]
pub enum Later {
    Closed(i32),
    Unsent(i32, String),
    NotReplied(ServerTx),
    LookUp(i32),
    NotSent(usize),
}

pub struct World {
    pub agent: Agent,
    pub config: Config,
    pub now: u64,
    pub draining: bool,
    pub unreachable: bool,
    rng: ChaCha8Rng,
    pub far: Far,
    pub browsers: Vec<Browser>,
    pub later: Vec<Later>,
    pub faults: Vec<String>,
    pub seen: BTreeMap<String, u64>,
    /// Told only when somebody reads it.
    pub trace: Option<Vec<String>>,
    pub dice: Dice,
    /// Browsers show who they are by answering challenges.
    pub by_challenge: bool,
    pub next_conn: i32,
    pub next_id: u32,
    announced: BTreeMap<String, u32>,
    /// Outputs may get lost.
    pub lossy: bool,
    buffer: Vec<u8>,
    pub nonce: u32,
    pub largest: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let mut config = crate::common::config();
        config.max_sessions = 2 + dice.below(2);
        config.accept_refer = !dice.percent(10);
        if dice.percent(20) {
            config.over_limit = OverLimit::Refuse;
        }
        if dice.percent(20) {
            config.dtmf_mode = DtmfMode::Rfc4733;
        }
        config.session_expires = *dice.one(&[1800, 1800, 90, 0]);
        config.trickle = *dice.one(&[Trickle::Auto, Trickle::Auto, Trickle::Info, Trickle::Update]);
        if dice.percent(15) {
            config.register_mode = RegisterMode::Local;
            config.realm = "asterisk".into();
        }
        let by_challenge = dice.percent(35);
        World {
            agent: Agent::new("5001"),
            config,
            now: 1_000_000,
            draining: false,
            unreachable: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
            far: Far::default(),
            browsers: (0..3)
                .map(|slot| Browser {
                    slot,
                    ..Browser::default()
                })
                .collect(),
            later: Vec::new(),
            faults: Vec::new(),
            seen: BTreeMap::new(),
            trace: None,
            dice,
            by_challenge,
            next_conn: 1,
            next_id: 1,
            announced: BTreeMap::new(),
            lossy: true,
            buffer: Vec::new(),
            nonce: 0,
            largest: 0,
        }
    }

    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    pub fn saw(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>9} {}", text()));
        }
    }

    // ---- the step

    pub fn step(&mut self, input: Input<'_>) {
        if !self.faults.is_empty() {
            return;
        }
        let record = match self.agent.encode(std::mem::take(&mut self.buffer)) {
            Ok(record) => record,
            Err(error) => return self.fault(format!("record: {error}")),
        };
        match Agent::decode(&record) {
            Ok(agent) => self.agent = agent,
            Err(error) => return self.fault(format!("record: {error}")),
        }
        self.largest = self.largest.max(record.len());
        self.buffer = record;
        self.buffer.clear();
        let (agent, config, rng) = (&mut self.agent, &self.config, &mut self.rng);
        let (now, draining, unreachable) = (self.now, self.draining, self.unreachable);
        let out = catch_unwind(AssertUnwindSafe(|| {
            let mut env = Env {
                config,
                now,
                unix_now: 1_700_000_000_000 + now,
                draining,
                unreachable,
                rng,
            };
            step(agent, input, &mut env)
        }));
        match out {
            Ok(out) => self.carry_out(out),
            Err(_) => {
                let text = PANIC.with(|p| p.borrow().clone());
                return self.fault(format!("panic: {text}"));
            }
        }
        self.after_step();
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        // from this frame on nothing reaches the connection
        let frames = out
            .iter()
            .filter(|o| matches!(o, Output::Frame { .. }))
            .count();
        let mut broken: Option<i32> = None;
        let breaks_at = (self.lossy && frames > 0 && self.dice.below(300) == 0)
            .then(|| self.dice.below(frames));
        let mut frame = 0;
        for output in out {
            match output {
                Output::Frame { conn, text } => {
                    self.note(|| format!("        to {conn}: {}", short(&text)));
                    if breaks_at == Some(frame) {
                        broken = Some(conn);
                    }
                    frame += 1;
                    let Some(slot) = self.browsers.iter().position(|b| b.conn == Some(conn)) else {
                        let known = self.later.iter().any(
                            |l| matches!(l, Later::Closed(c) | Later::Unsent(c, _) if *c == conn),
                        );
                        // one that the server has closed itself, or that it was told of, gets nothing
                        if !known {
                            self.fault(format!("frame to a connection that is gone: {text}"));
                        }
                        self.later.push(Later::Unsent(conn, text));
                        continue;
                    };
                    if broken == Some(conn) {
                        self.later.push(Later::Unsent(conn, text));
                        continue;
                    }
                    self.browsers[slot].on_frame(&text);
                }
                Output::PassOn { .. } => {
                    self.fault("an INVITE goes to another node, and there is none")
                }
                Output::Close { conn, .. } => {
                    self.note(|| format!("        closes {conn}"));
                    self.saw("close");
                    match self.browsers.iter().position(|b| b.conn == Some(conn)) {
                        Some(slot) => {
                            self.browsers[slot].closed();
                            self.later.push(Later::Closed(conn));
                        }
                        None => {
                            let told = self.later.iter().any(
                                |l| matches!(l, Later::Closed(c) | Later::Unsent(c, _) if *c == conn),
                            );
                            if !told {
                                self.fault("close of a connection that is gone");
                            }
                        }
                    }
                }
                Output::Request(request) => {
                    self.note(|| {
                        format!(
                            "        > {} {} {}/{}/{} {}",
                            request.method,
                            request.cseq,
                            request.call_id,
                            request.from_tag,
                            request.to_tag,
                            short(&request.headers)
                        )
                    });
                    let unsent = self.lossy && self.dice.below(250) == 0;
                    self.far.on_request(*request, self.now);
                    if unsent {
                        if let Some(client) = self.far.client.last_mut() {
                            client.lost = true;
                        }
                        self.later.push(Later::NotSent(self.far.client.len() - 1));
                    }
                }
                Output::Cancel { call_id, cseq } => {
                    self.note(|| format!("        > CANCEL {cseq} {call_id}"));
                    self.far.on_cancel(&call_id, cseq);
                }
                Output::Reply(reply) => {
                    self.note(|| {
                        format!(
                            "        < {} tx {} {} {}",
                            reply.code,
                            reply.tx.label,
                            short(&reply.headers),
                            short(&reply.body)
                        )
                    });
                    let lost =
                        self.lossy && reply.invite && reply.code >= 200 && self.dice.below(60) == 0;
                    self.far.on_reply(&reply, self.now);
                    if lost {
                        self.reply_lost(reply.tx);
                    }
                }
                Output::LookUp { conn } => self.later.push(Later::LookUp(conn)),
                Output::CallEnded(record) => {
                    let times = self.announced.entry(record.id.clone()).or_default();
                    *times += 1;
                    if *times > 1 {
                        self.fault(format!("the end of a call twice: {}", record.id));
                    }
                }
                Output::Judged { .. } => {}
                Output::Count(_) => {}
            }
        }
        if let Some(conn) = broken {
            if let Some(slot) = self.browsers.iter().position(|b| b.conn == Some(conn)) {
                self.note(|| format!("        connection {conn} is broken"));
                self.saw("broken connection");
                self.browsers[slot].closed();
                self.later.push(Later::Closed(conn));
            }
        }
    }

    /// tm had ended the transaction before our reply.
    fn reply_lost(&mut self, tx: ServerTx) {
        self.saw("reply lost");
        let server = self.far.server.iter().find(|s| s.label == tx.label);
        if let Some((index, initial)) = server.and_then(|s| s.dialog.map(|d| (d, s.initial))) {
            let d = &mut self.far.dialogs[index];
            d.await_ack = None;
            if d.our_offer == OurOffer::Ack {
                d.our_offer = OurOffer::No;
            }
            d.deaf |= initial;
        }
        self.later.push(Later::NotReplied(tx));
    }

    /// What must hold after every step.
    fn after_step(&mut self) {
        for b in &mut self.browsers {
            self.faults.append(&mut b.faults);
            for what in b.seen.drain(..) {
                *self.seen.entry(what).or_default() += 1;
            }
        }
        self.faults.append(&mut self.far.faults);
        for what in self.far.seen.drain(..) {
            *self.seen.entry(what).or_default() += 1;
        }
        let open = self
            .far
            .server
            .iter()
            .find(|s| s.method != "INVITE" && !s.done && !s.gone);
        if let Some(open) = open {
            let text = format!("no final reply in the same step: {open:?}");
            self.fault(text);
        }
        if self.largest > MAX_RECORD {
            self.fault(format!("record of {} bytes", self.largest));
        }
        let mut lengths = vec![
            (
                "sessions",
                self.agent.sessions.len(),
                self.config.max_sessions,
            ),
            ("pending", self.agent.pending.len(), 8),
            ("texts", self.agent.texts.len(), 4),
            ("calls", self.agent.calls.len(), 60),
            ("live calls", self.agent.live_calls(), self.config.max_calls),
        ];
        for s in &self.agent.sessions {
            lengths.push(("outcomes", s.outcomes.len(), 64));
            lengths.push(("journal", s.journal.len(), 16));
        }
        for c in &self.agent.calls {
            lengths.push(("wants", c.wants.len(), 11));
            lengths.push(("digits", c.digits.len(), 16));
            lengths.push(("candidates", c.leg.candidates.len(), 32));
            lengths.push(("sent", c.leg.sent.len(), 17));
            lengths.push(("rseq", c.leg.rseq.len(), 8));
            lengths.push(("targets", c.leg.targets.len(), 5));
        }
        for (what, is, most) in lengths {
            if is > most {
                self.fault(format!("too many {what}: {is}"));
            }
        }
        self.cover();
    }

    /// Which states were there.
    fn cover(&mut self) {
        let mut seen = Vec::new();
        for c in &self.agent.calls {
            let hidden = if c.moves.is_some() { " hidden" } else { "" };
            seen.push(format!("state {:?} {:?}{hidden}", c.direction, c.state));
            let leg = &c.leg;
            for (is, what) in [
                (c.hold, "hold"),
                (c.remote_hold, "remote hold"),
                (c.moving.is_some(), "moving"),
                (
                    c.moving.as_ref().is_some_and(|m| m.update.is_some()),
                    "replaced by ourselves",
                ),
                (leg.gone, "gone"),
                (c.transfer.is_some(), "transfer"),
                (c.conference.is_some(), "conference"),
                (c.recording.is_some(), "recording"),
                (leg.far_offer.is_some(), "far offer"),
                (leg.ack_by != 0, "ack awaited"),
                (leg.answer_in_ack, "answer in ack"),
                (leg.open.is_some(), "open offer"),
                (leg.offer_after > self.now, "after a glare"),
                (leg.reliable.is_some(), "reliable 180"),
                (leg.asked.is_some(), "INVITE challenged"),
                (leg.sent.iter().any(|s| s.asked.is_some()), "challenged"),
                (leg.redirects > 0, "redirected"),
                (!c.wants.is_empty(), "wants"),
                (leg.timer.is_some_and(|t| t.ours), "timer ours"),
                (leg.timer.is_some_and(|t| !t.ours), "timer theirs"),
            ] {
                if is {
                    seen.push(format!("state {what}"));
                }
            }
        }
        for what in seen {
            self.saw(what);
        }
    }

    // ---- time

    pub fn due(&self) -> u64 {
        self.agent.due(self.config.resume_grace)
    }

    pub fn tick(&mut self) {
        self.step(Input::Tick);
        let due = self.due();
        if due <= self.now && self.faults.is_empty() {
            let (calls, now) = (&self.agent.calls, self.now);
            let text = format!("due at {due} after a tick at {now}: {calls:#?}");
            self.fault(text);
        }
    }

    /// Time passes; whatever becomes due on the way happens.
    pub fn wait(&mut self, ms: u64) {
        while let (false, true) = (self.later.is_empty(), self.faults.is_empty()) {
            let later = self.later.remove(0);
            self.happens(later);
        }
        let target = self.now + ms;
        self.note(|| format!("waits {ms}"));
        for round in 0.. {
            if round > 3_000 {
                return self.fault("ticking does not come to an end");
            }
            if !self.faults.is_empty() {
                return;
            }
            let timeouts = self.far.waiting();
            let timeout = timeouts.into_iter().map(|c| (self.far.timeout(c), c)).min();
            let due = self.due();
            let first = timeout.map_or(u64::MAX, |(at, _)| at).min(due);
            if first > target {
                break;
            }
            self.now = self.now.max(first);
            match timeout {
                Some((at, client)) if at <= self.now => self.made_up(client, 408),
                _ => self.tick(),
            }
        }
        self.now = target;
        self.tick();
    }

    // ---- the browsers

    pub fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        format!("q{}", self.next_id)
    }

    pub fn send(&mut self, slot: usize, kind: &str, payload: Value) {
        let id = self.fresh_id();
        self.send_as(slot, kind, payload, &id);
    }

    pub fn send_as(&mut self, slot: usize, kind: &str, payload: Value, id: &str) {
        let Some(conn) = self.browsers[slot].conn else {
            return;
        };
        let frame = json!({ "type": kind, "payload": payload, "id": id }).to_string();
        self.note(|| format!("browser {slot} on {conn}: {}", short(&frame)));
        let request = match parse(frame.as_bytes(), &Limits::default()) {
            Ok(request) => request,
            Err(error) => return self.fault(format!("the walk's own frame: {error} {frame}")),
        };
        let remembered = self.browsers[slot].remembered();
        let got = |w: &Self| {
            let asked = &w.browsers[slot].asked;
            let at = asked.iter().position(|a| a.id == id)?;
            Some((at, asked[at].got, asked[at].outcome.is_some()))
        };
        let before = got(self).filter(|(at, _, heard)| *heard && remembered.contains(at));
        self.saw(format!("browser {kind}"));
        if before.is_some() {
            self.saw("retry of what is done");
        }
        self.browsers[slot].asks(id, kind, payload);
        let broken = self.seen.get("broken connection").copied();
        self.step(Input::Message {
            conn,
            addr: Some([198, 51, 100, 7].into()),
            request,
            next_hop: None,
            token: None,
        });
        let fine = self.seen.get("broken connection").copied() == broken;
        if let (Some((_, before, _)), Some((_, after, _)), true) = (before, got(self), fine) {
            if after != before + 1 {
                self.fault(format!(
                    "a retry got {} outcomes: {kind} {id}",
                    after - before
                ));
            }
        }
    }

    pub fn connect(&mut self, slot: usize, resume: bool, with_last: bool) {
        if self.browsers[slot].conn.is_none() {
            let conn = self.next_conn;
            self.next_conn += 1;
            self.browsers[slot].conn = Some(conn);
        }
        let token = self.browsers[slot].token.clone();
        let mut payload = json!({ "dn": "5001", "displayName": "Ann" });
        let resuming = resume && token.is_some();
        if resuming {
            payload["resume"] = json!(token);
            if with_last {
                payload["last"] = json!(self.browsers[slot].last_event);
            }
        } else if !self.by_challenge {
            payload["password"] = json!("secret");
        }
        if resuming {
            // what was lost is known by now
            let (unsent, rest): (Vec<Later>, Vec<Later>) = std::mem::take(&mut self.later)
                .into_iter()
                .partition(|l| matches!(l, Later::Unsent(..)));
            self.later = rest;
            for later in unsent {
                self.happens(later);
            }
        }
        self.browsers[slot].resuming = resuming;
        let id = self.fresh_id();
        self.send_as(slot, "register", payload, &id);
        let b = &mut self.browsers[slot];
        b.resuming = false;
        if let (true, Some(token)) = (b.registered, &b.token) {
            let session = self.agent.sessions.iter().find(|s| s.token == *token);
            b.expected = session.map(|s| s.next_event);
        } else if resuming {
            // that session is over
            let dead = !self
                .agent
                .sessions
                .iter()
                .any(|s| Some(&s.token) == token.as_ref());
            if dead {
                b.end_session(false);
            }
        }
    }

    pub fn answer_challenge(challenge: &Value) -> Value {
        let mut digest = json!({
            "username": "5001",
            "realm": challenge["realm"],
            "nonce": challenge["nonce"],
            "uri": challenge["uri"],
            "response": "0123456789abcdef0123456789abcdef",
            "algorithm": "MD5",
        });
        if challenge["qop"] == "auth" {
            digest["qop"] = json!("auth");
            digest["cnonce"] = json!("c1");
            digest["nc"] = json!("00000001");
        }
        digest
    }

    pub fn close(&mut self, slot: usize) {
        let Some(conn) = self.browsers[slot].conn else {
            return;
        };
        self.note(|| format!("browser {slot} leaves {conn}"));
        self.saw("closed");
        self.browsers[slot].closed();
        self.step(Input::Closed { conn });
        if self.dice.percent(10) {
            self.step(Input::Closed { conn });
        }
    }

    // ---- tm

    pub fn happens(&mut self, later: Later) {
        self.note(|| format!("later: {}", short(&format!("{later:?}"))));
        match later {
            Later::Closed(conn) => self.step(Input::Closed { conn }),
            Later::Unsent(conn, text) => self.step(Input::Unsent { conn, text }),
            Later::NotReplied(tx) => {
                self.saw("NotReplied");
                let server = self.far.server.iter().find(|s| s.label == tx.label);
                if let Some(index) = server.filter(|s| s.initial).and_then(|s| s.dialog) {
                    self.far.dialogs[index].dead = true;
                    self.far.dialogs[index].settled = true;
                }
                self.step(Input::NotReplied { tx });
            }
            Later::LookUp(conn) => {
                let ha1 =
                    rtc_json_sip::ha1(rtc_json_sip::Algorithm::Md5, "5001", "asterisk", "secret");
                let found = match self.dice.below(20) {
                    0 => Err(TableUnavailable),
                    1 => Ok(None),
                    _ => Ok(Some(ha1)),
                };
                self.step(Input::Ha1 { conn, found });
            }
            Later::NotSent(client) => {
                if self.far.client[client].done {
                    return;
                }
                self.saw("NotSent");
                self.far.client[client].lost = false;
                self.far.never_came(client);
                self.far.replied(client, 503, "", true);
                let handle = self.handle(client);
                self.step(Input::NotSent { handle });
            }
        }
    }

    pub fn handle(&self, client: usize) -> Handle {
        self.far.client[client].req.handle.clone()
    }

    fn client_name(&self, client: usize) -> String {
        let req = &self.far.client[client].req;
        format!("{} {} {}", req.method, req.cseq, req.call_id)
    }

    /// tm makes a reply up.
    pub fn made_up(&mut self, client: usize, code: u16) {
        let name = self.client_name(client);
        self.note(|| format!("tm: {code} to {name}"));
        self.saw(format!("made up {code}"));
        self.far.replied(client, code, "", true);
        let handle = self.handle(client);
        self.step(Input::SipReply {
            handle,
            code,
            message: None,
        });
    }

    /// The far side answers a request of ours.
    pub fn reply(&mut self, client: usize, code: u16, tag: &str, more: &str, body: &str) {
        let text = self.far.reply_text(client, code, tag, more, body);
        let name = self.client_name(client);
        self.note(|| {
            let (more, body) = (short(more), short(body));
            format!("far: {code} to {name} tag {tag} {more} {body}")
        });
        self.saw(format!(
            "{} answered {code}",
            self.far.client[client].req.method
        ));
        self.far.replied(client, code, tag, false);
        let handle = self.handle(client);
        let message = match Message::parse(text.as_bytes()) {
            Ok(message) => message,
            Err(error) => return self.fault(format!("the walk's own reply: {error:?} {text}")),
        };
        self.step(Input::SipReply {
            handle,
            code,
            message: Some(&message),
        });
    }

    /// A request of the far side with a transaction of its own; gives its label.
    #[allow(clippy::too_many_arguments)]
    pub fn request(
        &mut self,
        d: &Dialog,
        dialog: Option<usize>,
        method: &str,
        cseq: u32,
        tags: (&str, &str),
        more: &str,
        body: &str,
    ) -> Option<u32> {
        let text = request_text(d, method, cseq, tags, more, body);
        self.note(|| {
            format!(
                "far: {method} {cseq} {}/{}/{} {} {}",
                d.call_id,
                tags.0,
                tags.1,
                short(more),
                short(body)
            )
        });
        self.saw(format!("far {method}"));
        let message = match Message::parse(text.as_bytes()) {
            Ok(message) => message,
            Err(error) => {
                self.fault(format!("the walk's own request: {error:?} {text}"));
                return None;
            }
        };
        let tx = (method != "ACK").then(|| {
            self.far.open(Server {
                label: 0,
                method: method.to_owned(),
                cseq,
                initial: method == "INVITE" && tags.0.is_empty(),
                offer: !body.is_empty(),
                dialog,
                done: false,
                gone: false,
            })
        });
        self.step(Input::SipRequest {
            message: &message,
            user: "5001",
            tx,
            src: Some([127, 0, 0, 1].into()),
        });
        tx.map(|tx| tx.label)
    }

    pub fn restart(&mut self) {
        // a start ends it
        self.draining = false;
        self.unreachable = false;
        self.note(|| "Kamailio starts again".to_owned());
        self.saw("restarted");
        for b in &mut self.browsers {
            b.closed();
        }
        self.later.clear();
        self.far.restart();
        self.step(Input::Restarted);
    }
}

/// For people: long texts lose their middle.
pub fn short(text: &str) -> String {
    let text = text.replace("\r\n", "|").replace("\\r\\n", "|");
    if std::env::var_os("RTC_JSON_WALK_LONG").is_some() || text.len() < 330 {
        return text;
    }
    let head: String = text.chars().take(240).collect();
    let tail: String = text
        .chars()
        .rev()
        .take(60)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    format!("{head}[…]{tail}")
}
