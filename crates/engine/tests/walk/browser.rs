//! A browser as the protocol has it: what it has asked for, what it knows of its calls, and whether what it is told agrees.

use std::collections::BTreeMap;

use serde_json::Value;

/// Requests that the server remembers.
const REMEMBERED: usize = 16;

/// A call as the browser knows it.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub ringing: bool,
    pub live: bool,
    pub over: bool,
    /// The snapshot had it no more; its end may still be told.
    pub vanished: bool,
    /// An answer is owed: to an offer (`true`), or an offer of its own.
    pub owes: Option<bool>,
    /// Its own offer in an `answer` waits for what becomes of it.
    pub open: bool,
    pub offerless: bool,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub id: String,
    pub kind: String,
    pub payload: Value,
    pub call: Option<String>,
    pub outcome: Option<Value>,
    pub sends: u32,
    pub got: u32,
    pub trying: u32,
    /// Nobody has to answer it any more.
    pub excused: bool,
    /// The session of that number heard it; none before registration.
    pub session: Option<u32>,
    /// Rises with each outcome.
    pub heard: u64,
    /// The connection on which it went last.
    pub conn: Option<i32>,
}

#[derive(Default)]
pub struct Browser {
    pub slot: usize,
    pub conn: Option<i32>,
    pub token: Option<String>,
    /// Counts its sessions.
    pub session: u32,
    pub registered: bool,
    pub last_event: u64,
    /// What the next event must be; none just after it came back.
    pub expected: Option<u64>,
    pub resuming: bool,
    pub calls: BTreeMap<String, Known>,
    pub asked: Vec<Asked>,
    /// `challenge` as outcome of a `register`.
    pub register_challenge: Option<Value>,
    pub challenges: Vec<Value>,
    pub heard: u64,
    pub faults: Vec<String>,
    pub seen: Vec<String>,
}

fn outcomes_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "register" => &["registered", "registrationFailed", "challenge"],
        "unregister" => &["unregistered", "error"],
        "ping" => &["pong"],
        "call" => &["callAccepted", "error"],
        "hangup" => &["callEnded", "error"],
        "hold" | "update" => &["callUpdated", "error"],
        "recording" => &["recordingUpdated", "error"],
        "iceCandidate" => &["error"],
        _ => &["ack", "error"],
    }
}

impl Browser {
    fn fault(&mut self, text: String) {
        let slot = self.slot;
        self.faults.push(format!("{text} [browser {slot}]"));
    }

    /// Notes a request that goes out.
    pub fn asks(&mut self, id: &str, kind: &str, payload: Value) {
        if let Some(asked) = self.asked.iter_mut().find(|a| a.id == id) {
            asked.sends += 1;
            asked.conn = self.conn;
            return;
        }
        let call = payload["callId"].as_str().map(str::to_owned);
        self.asked.push(Asked {
            id: id.to_owned(),
            kind: kind.to_owned(),
            call,
            payload,
            outcome: None,
            sends: 1,
            got: 0,
            trying: 0,
            excused: false,
            heard: 0,
            conn: self.conn,
            // a `register` belongs to its connection
            session: (self.registered && kind != "register").then_some(self.session),
        });
    }

    /// Requests that the server remembers, by their place: those without outcome, and the last ones that have one.
    pub fn remembered(&self) -> Vec<usize> {
        if !self.registered {
            return Vec::new();
        }
        let kept = |at: &usize| {
            let a = &self.asked[*at];
            a.session == Some(self.session)
                && !matches!(a.kind.as_str(), "ping" | "register" | "iceCandidate")
        };
        let all = (0..self.asked.len()).rev().filter(kept);
        let (unheard, mut heard): (Vec<usize>, Vec<usize>) =
            all.partition(|at| self.asked[*at].outcome.is_none());
        // any of those that it has not heard of may be among the last
        heard.sort_by_key(|at| std::cmp::Reverse(self.asked[*at].heard));
        heard.truncate(REMEMBERED.saturating_sub(unheard.len()));
        heard.extend(unheard);
        heard
    }

    pub fn unanswered(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self
            .remembered()
            .into_iter()
            .filter(|at| self.asked[*at].outcome.is_none() && !self.asked[*at].excused)
            .collect();
        all.sort_unstable();
        all
    }

    pub fn closed(&mut self) {
        self.conn = None;
        self.registered = false;
        self.register_challenge = None;
        for asked in &mut self.asked {
            let unheard = asked.outcome.is_none();
            if unheard && (asked.session.is_none() || matches!(asked.kind.as_str(), "ping")) {
                asked.excused = true;
            }
        }
        for call in self.calls.values_mut() {
            // what became of it may be told to nobody
            call.open = false;
        }
    }

    /// The session is over.
    pub fn end_session(&mut self, attached: bool) {
        let (session, conn) = (Some(self.session), self.conn);
        let mut missing = Vec::new();
        for asked in self.asked.iter_mut().filter(|a| a.session == session) {
            if asked.outcome.is_none() && !asked.excused && asked.kind != "iceCandidate" {
                asked.excused = true;
                if asked.conn != conn {
                    // it would have been told on asking again
                    continue;
                }
                missing.push(format!(
                    "the session ended without outcome of {}: {}",
                    asked.kind, asked.id
                ));
            }
        }
        if attached {
            for text in missing {
                self.fault(text);
            }
        }
        self.calls.clear();
        self.challenges.clear();
        self.token = None;
        self.registered = false;
        self.expected = None;
    }

    pub fn on_frame(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return self.fault(format!("not JSON: {text}"));
        };
        let kind = frame["type"].as_str().unwrap_or_default().to_owned();
        let id = frame["id"].as_str().unwrap_or_default().to_owned();
        if frame.as_object().map(serde_json::Map::len) != Some(3) || !frame["payload"].is_object() {
            self.fault(format!("not three keys: {text}"));
        }
        match id.strip_prefix("evt-").map(str::parse::<u64>) {
            Some(Ok(number)) => {
                self.seen.push(format!("event {kind}"));
                self.on_event(number, &kind, &frame["payload"]);
            }
            Some(Err(_)) => self.fault(format!("event without number: {id}")),
            None => self.on_outcome(&id, &kind, &frame),
        }
    }

    fn on_event(&mut self, number: u64, kind: &str, payload: &Value) {
        if !self.registered {
            return self.fault(format!("event {kind} before registered"));
        }
        match self.expected {
            Some(expected) if !self.resuming && number != expected => {
                self.fault(format!("evt-{number} where evt-{expected} comes: {kind}"));
            }
            _ if number <= self.last_event => {
                self.fault(format!(
                    "evt-{number} after evt-{}: {kind}",
                    self.last_event
                ));
            }
            _ => {}
        }
        self.last_event = number;
        self.expected = Some(number + 1);
        let call = payload["callId"].as_str().unwrap_or_default().to_owned();
        match kind {
            "incomingCall" => {
                if self.calls.contains_key(&call) {
                    self.fault(format!("announced twice: {call}"));
                }
                let known = Known {
                    ringing: true,
                    offerless: payload["sdp"].is_null(),
                    ..Known::default()
                };
                self.calls.insert(call, known);
            }
            "callEnded" => self.ended(&call, payload),
            "callProgress" => {
                let state = payload["state"].as_str().unwrap_or_default();
                self.seen.push(format!("event callProgress {state}"));
                if state == "trying" {
                    self.fault("callProgress trying as an event".into());
                }
                self.about(&call, kind);
            }
            "callUpdated" => self.updated(&call, payload),
            "iceCandidate" | "transferProgress" | "recordingUpdated" => self.about(&call, kind),
            "conferenceUpdated" => {
                let state = payload["state"].as_str().unwrap_or_default();
                self.seen.push(format!("event conferenceUpdated {state}"));
            }
            "challenge" => self.challenges.push(payload.clone()),
            "message" | "notice" => {}
            "unregistered" => self.end_session(true),
            other => self.fault(format!("{other} as an event")),
        }
    }

    fn about(&mut self, call: &str, kind: &str) {
        match self.calls.get(call) {
            // the connection broke before it heard of it
            None if self.resuming => {}
            None => self.fault(format!(
                "{kind} about a call that was never announced: {call}"
            )),
            Some(known) if known.over => {
                self.fault(format!("{kind} after the end of the call: {call}"));
            }
            Some(_) => {}
        }
    }

    fn ended(&mut self, call: &str, payload: &Value) {
        // a call that it never heard of has come and gone while it was away
        if !self.resuming || self.calls.contains_key(call) {
            self.about(call, "callEnded");
        }
        let reason = payload["reason"].as_str().unwrap_or_default();
        self.seen.push(format!("callEnded {reason}"));
        if let Some(known) = self.calls.get_mut(call) {
            *known = Known {
                over: true,
                ..Known::default()
            };
        }
    }

    fn updated(&mut self, call: &str, payload: &Value) {
        self.about(call, "callUpdated");
        let resuming = self.resuming;
        let sdp = payload["sdp"].is_string();
        let needed = payload["answerNeeded"].as_bool();
        self.seen
            .push(format!("event callUpdated sdp {sdp} needed {needed:?}"));
        let Some(known) = self.calls.get_mut(call) else {
            return;
        };
        let owed = known.owes.is_some();
        let mut fault = None;
        match needed {
            Some(true) => {
                if owed && !resuming {
                    fault = Some("asked again while an answer is owed");
                }
                if known.open && !resuming {
                    fault = Some("asked while its own offer is open");
                }
                known.owes = Some(sdp);
                known.open = false;
            }
            Some(false) => {
                known.owes = None;
                known.open = false;
            }
            None if sdp => {
                if owed && !resuming {
                    fault = Some("a description while an answer is owed");
                }
                known.open = false;
            }
            None => {}
        }
        if let Some(fault) = fault {
            self.fault(format!("{fault}: {call}"));
        }
    }

    fn on_outcome(&mut self, id: &str, kind: &str, frame: &Value) {
        let Some(at) = self.asked.iter().position(|a| a.id == id) else {
            return self.fault(format!("{kind} for a request that never was: {id}"));
        };
        let asked = self.asked[at].clone();
        if kind == "callProgress" {
            let call = frame["payload"]["callId"].as_str().unwrap_or_default();
            if asked.kind != "call" || frame["payload"]["state"] != "trying" {
                self.fault(format!("callProgress as outcome: {frame}"));
            }
            if asked.outcome.is_some() {
                self.fault(format!("trying after the outcome: {id}"));
            }
            self.asked[at].trying += 1;
            if self.asked[at].trying > asked.sends {
                self.fault(format!("trying more often than asked: {id}"));
            }
            match &asked.call {
                Some(known) if known != call => {
                    self.fault(format!("two calls for one request: {id}"));
                }
                _ => {
                    self.asked[at].call = Some(call.to_owned());
                    self.calls.entry(call.to_owned()).or_default();
                }
            }
            return;
        }
        self.seen.push(format!("{} -> {kind}", asked.kind));
        if kind == "error" {
            let code = &frame["payload"]["code"];
            self.seen.push(format!("{} -> error {code}", asked.kind));
            if asked.kind == "answer"
                && matches!(code.as_u64(), Some(404 | 409))
                && asked.outcome.is_none()
            {
                if let Some(known) = asked.call.as_ref().and_then(|c| self.calls.get_mut(c)) {
                    known.owes = None;
                }
            }
        }
        if !outcomes_of(&asked.kind).contains(&kind) && frame["payload"]["code"] != 401 {
            self.fault(format!("{kind} as outcome of {}", asked.kind));
        }
        self.asked[at].got += 1;
        if self.asked[at].got > asked.sends {
            self.fault(format!("more outcomes than asked for: {} {id}", asked.kind));
        }
        if let Some(first) = &asked.outcome {
            let accepted = first["type"] == "callAccepted";
            // the answer is read from the call again
            let other = first != frame && !(accepted && matches!(kind, "callAccepted" | "error"));
            if other && !matches!(asked.kind.as_str(), "ping" | "register" | "iceCandidate") {
                self.fault(format!("another outcome of {id}: {first} {frame}"));
            }
            if asked.kind != "register" {
                return;
            }
        }
        self.heard += 1;
        self.asked[at].heard = self.heard;
        self.asked[at].outcome = Some(frame.clone());
        let call_known = asked.call.is_some();
        let call = asked.call.clone().unwrap_or_default();
        match (asked.kind.as_str(), kind) {
            ("register", "registered") => self.signed_in(&frame["payload"]),
            ("register", "challenge") => self.register_challenge = Some(frame["payload"].clone()),
            ("unregister", "unregistered") if self.registered => self.end_session(true),
            ("call", "callAccepted") => {
                let call = frame["payload"]["callId"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                if !call_known {
                    // the connection broke before `trying`
                    self.asked[at].call = Some(call.clone());
                    self.calls.entry(call.clone()).or_default();
                }
                if asked.sends == 1 {
                    self.about(&call, kind);
                }
                if let Some(known) = self.calls.get_mut(&call).filter(|k| !k.over) {
                    known.live = true;
                }
            }
            ("hangup", "callEnded") => self.ended(&call, &frame["payload"]),
            ("hold" | "update", "callUpdated") if asked.sends == 1 => {
                self.about(&call, kind);
                let sdp = frame["payload"]["sdp"].is_string();
                if asked.kind == "update" && !sdp {
                    self.fault(format!("update without answer: {id}"));
                }
                let owed = self.calls.get(&call).is_some_and(|k| k.owes.is_some());
                if sdp && owed {
                    self.fault(format!("a description while an answer is owed: {call}"));
                }
            }
            ("answer", "ack") => {
                if asked.sends == 1 {
                    self.about(&call, kind);
                }
                if let Some(known) = self.calls.get_mut(&call).filter(|k| !k.over) {
                    let offers = known.owes == Some(false) || known.ringing && known.offerless;
                    // else it may have been told already
                    known.open = offers && asked.sends == 1;
                    known.owes = None;
                    known.ringing = false;
                    known.live = true;
                }
            }
            _ => {}
        }
    }

    fn signed_in(&mut self, payload: &Value) {
        let token = payload["session"].as_str().unwrap_or_default().to_owned();
        let calls = payload["calls"].as_array().cloned().unwrap_or_default();
        if self.token.as_ref() != Some(&token) {
            if self.token.is_some() {
                self.end_session(false);
            }
            self.session += 1;
            self.token = Some(token);
            self.last_event = 0;
            self.expected = Some(1);
        } else if !self.registered {
            self.expected = None;
        }
        self.registered = true;
        let mut shown = Vec::new();
        for call in calls {
            let id = call["callId"].as_str().unwrap_or_default().to_owned();
            let state = call["state"].as_str().unwrap_or_default();
            self.seen.push(format!("snapshot {state}"));
            let known = self.calls.entry(id.clone()).or_insert_with(|| Known {
                offerless: call["sdp"].is_null(),
                ..Known::default()
            });
            let over = known.over;
            known.live = state == "established";
            known.ringing = state == "incoming";
            if over {
                self.fault(format!("the snapshot has a call that is over: {id}"));
            }
            shown.push(id);
        }
        for (id, known) in &mut self.calls {
            if !known.over && !shown.contains(id) {
                known.vanished = true;
                known.live = false;
                known.ringing = false;
            }
        }
    }

    /// At the end: everything that it asked for has its outcome, every call its end.
    pub fn check_end(&mut self) {
        let session = Some(self.session);
        let remembered = self.remembered();
        let mut faults = Vec::new();
        for (at, asked) in self.asked.iter().enumerate() {
            // too old to be asked for again on this connection
            if asked.conn != self.conn && !remembered.contains(&at) {
                continue;
            }
            if asked.outcome.is_none() && !asked.excused && asked.kind != "iceCandidate" {
                faults.push(format!("no outcome of {}: {}", asked.kind, asked.id));
            }
            if asked.kind == "call" && asked.outcome.is_some() && asked.session == session {
                let accepted = asked
                    .outcome
                    .as_ref()
                    .is_some_and(|o| o["type"] == "callAccepted");
                let same = asked.conn == self.conn && asked.sends == 1;
                if accepted && asked.trying == 0 && same {
                    faults.push(format!("call without trying: {}", asked.id));
                }
            }
        }
        for (id, known) in &self.calls {
            if !known.over && !known.vanished {
                faults.push(format!("no callEnded: {id} {known:?}"));
            }
        }
        for fault in faults {
            self.fault(fault);
        }
    }
}
