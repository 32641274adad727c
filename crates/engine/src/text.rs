//! Text messages (SIP MESSAGE, RFC 3428), out of and into the browsers.

use std::fmt;

use rtc_json_protocol::{self as protocol, DigestAnswer, ServerMessage};
use rtc_json_sip::{self as sip, Message};
use serde::{Deserialize, Serialize};

use crate::challenge::{answerable, Asked, ASK_WAIT};
use crate::io::{Handle, Output, Purpose, SipRequest};
use crate::model::{ServerTx, Session};
use crate::outbound::authorization_header;
use crate::packed::Outcome;
use crate::register::MAX_ANSWERS;
use crate::step::{Failure, Step};

/// Longest text, in bytes; the protocol has the same for what a browser sends.
const MAX_TEXT: usize = 8192;
/// Texts of one agent that may wait for their answer at a time.
const MAX_PENDING: usize = 4;
/// How long one may take: tm gives a request up after 30 s.
const WAIT: u64 = 35_000;
/// Texts that a session keeps for its browser, and the bytes of their frames. One always fits.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 65_536;

/// A text of a browser on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Text {
    /// The session that sent it.
    pub session: u32,
    /// Id of its request.
    pub request: String,
    /// SIP Call-ID.
    pub call_id: String,
    /// From tag.
    pub tag: String,
    /// CSeq of the MESSAGE under way.
    pub cseq: u32,
    /// From without its tag.
    pub from: String,
    /// Request-URI.
    pub uri: String,
    /// What it says.
    pub body: String,
    /// Challenges answered so far.
    pub answered: u8,
    /// A challenge that the browser was asked to answer.
    pub asked: Option<Asked>,
    /// Next hop that the script chose.
    pub next_hop: Option<String>,
    /// When it is given up.
    pub deadline: u64,
}

/// Without what it says: that is for the two who write to each other.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text")
            .field("session", &self.session)
            .field("request", &self.request)
            .field("cseq", &self.cseq)
            .finish_non_exhaustive()
    }
}

impl Step<'_> {
    // ---- from a browser

    /// A browser sends a text. Its outcome comes with the reply.
    pub fn text(
        &mut self,
        session: usize,
        id: &str,
        to: &str,
        body: String,
        next_hop: Option<String>,
    ) {
        if self.agent.texts.len() >= MAX_PENDING {
            let details = "others still wait for their answer";
            let failure = Failure::new(503, "Too many messages", details);
            return self.refuse(session, id, &failure);
        }
        let s = &self.agent.sessions[session];
        let (number, from) = (s.number, self.name_addr(&s.display_name));
        let text = Text {
            session: number,
            request: id.to_owned(),
            call_id: self.random_text(16),
            tag: self.random_text(10),
            cseq: 0,
            from,
            uri: format!("sip:{}@{}", sip::escape_user(to), self.config.domain),
            body,
            answered: 0,
            asked: None,
            next_hop,
            deadline: 0,
        };
        self.agent.sessions[session].set_outcome(id, Outcome::Pending);
        self.agent.texts.push(text);
        self.send_text(self.agent.texts.len() - 1, "");
    }

    /// Sends it with the next CSeq; `authorization` is a header line or empty.
    fn send_text(&mut self, text: usize, authorization: &str) {
        let t = &mut self.agent.texts[text];
        t.cseq += 1;
        t.deadline = self.now + WAIT;
        let next_hop = t.next_hop.clone();
        let request = SipRequest {
            method: "MESSAGE",
            uri: t.uri.clone(),
            from: t.from.clone(),
            from_tag: t.tag.clone(),
            to: format!("<{}>", t.uri),
            to_tag: String::new(),
            call_id: t.call_id.clone(),
            cseq: t.cseq,
            next_hop: next_hop.unwrap_or_else(|| self.config.next_hop.clone()),
            // RFC 3428, section 4: no Contact
            headers: format!("{authorization}Content-Type: text/plain;charset=utf-8\r\n"),
            body: t.body.clone(),
            handle: Handle {
                dn: self.agent.dn.clone(),
                purpose: Purpose::Text,
                call: t.call_id.clone(),
                cseq: t.cseq,
            },
        };
        self.out.push(Output::Request(Box::new(request)));
    }

    /// A reply to a MESSAGE of ours.
    pub fn on_text_reply(&mut self, handle: &Handle, code: u16, message: Option<&Message<'_>>) {
        let found = self
            .agent
            .texts
            .iter()
            .position(|t| t.call_id == handle.call && t.cseq == handle.cseq);
        let (Some(text), 200..) = (found, code) else {
            return;
        };
        match (code, message) {
            (200..=299, _) => {
                let t = self.agent.texts.remove(text);
                if let Some(session) = self.agent.session(t.session) {
                    let ack = ServerMessage::Ack {
                        call_id: None,
                        mode: None,
                    };
                    self.outcome(session, &t.request, &ack);
                }
            }
            (401 | 407, Some(message)) if self.text_challenged(text, code, message) => {}
            (408, None) => self.text_failed(text, code, "no answer"),
            (503, None) => self.text_failed(text, code, "the next hop cannot be reached"),
            _ => self.text_failed(text, code, ""),
        }
    }

    /// Answers the challenge, or lets the browser answer it; false if neither can be.
    fn text_challenged(&mut self, text: usize, code: u16, message: &Message<'_>) -> bool {
        let t = &self.agent.texts[text];
        let again = |stale: bool| t.answered == 0 || stale && t.answered < MAX_ANSWERS;
        let uri = t.uri.clone();
        let ha1 = self.agent.upstream.ha1.clone();
        let known = answerable(message, &ha1).filter(|c| again(c.stale));
        let asked = Asked::by(message, code, "MESSAGE", &uri, self.now + ASK_WAIT)
            .filter(|asked| again(asked.stale()));
        let number = t.session;
        if let Some(challenge) = known {
            self.agent.upstream.challenge = Some(challenge);
            self.agent.upstream.nonce_count = 0;
            let line = self.authorization("MESSAGE", &uri, &ha1, authorization_header(code));
            self.answered_text(text, &line);
            return true;
        }
        let session = self.agent.session(number);
        let session = session.filter(|session| self.agent.sessions[*session].answers);
        let (Some(asked), Some(session)) = (asked, session) else {
            return false;
        };
        let challenge = asked.message(None);
        let t = &mut self.agent.texts[text];
        t.deadline = asked.deadline;
        t.asked = Some(asked);
        self.event(session, &challenge);
        true
    }

    /// The text of that session whose challenge a `digest` answers, with the challenge.
    pub fn challenged_text(
        &self,
        session: usize,
        digest: &DigestAnswer,
    ) -> Option<(usize, &Asked)> {
        let number = self.agent.sessions[session].number;
        let mut texts = self.agent.texts.iter().enumerate();
        texts.find_map(|(index, t)| {
            let asked = t.asked.as_ref()?;
            (t.session == number && asked.is_meant_by(digest)).then_some((index, asked))
        })
    }

    /// Challenges to the texts of a session that wait for their answer.
    pub fn challenges_of_texts(&self, session: u32) -> Vec<ServerMessage> {
        let texts = self.agent.texts.iter().filter(|t| t.session == session);
        texts
            .filter_map(|t| Some(t.asked.as_ref()?.message(None)))
            .collect()
    }

    /// The challenge to a text is answered by this header line.
    pub fn answered_text(&mut self, text: usize, authorization: &str) {
        let t = &mut self.agent.texts[text];
        t.answered += 1;
        t.asked = None;
        self.send_text(text, authorization);
    }

    fn text_failed(&mut self, text: usize, code: u16, details: &str) {
        let t = self.agent.texts.remove(text);
        if let Some(session) = self.agent.session(t.session) {
            let failure = Failure::new(code, sip::reason_phrase(code), details);
            self.refuse(session, &t.request, &failure);
        }
    }

    /// What became too late.
    pub fn tick_texts(&mut self) {
        let now = self.now;
        while let Some(text) = self.agent.texts.iter().position(|t| t.deadline <= now) {
            match self.agent.texts[text].asked {
                Some(_) => self.text_failed(text, 401, "the challenge was not answered"),
                None => self.text_failed(text, 408, "no answer"),
            }
        }
    }

    /// A session ends: what becomes of its texts can be told to nobody afterwards.
    pub fn drop_texts(&mut self, session: u32) {
        while let Some(text) = self.agent.texts.iter().position(|t| t.session == session) {
            self.text_failed(text, 487, "the session is over");
        }
    }

    /// The transactions are gone, and with them the replies.
    pub fn texts_after_restart(&mut self) {
        while !self.agent.texts.is_empty() {
            self.text_failed(0, 503, "the server was started again");
        }
    }

    // ---- to the browsers

    /// A MESSAGE of the far side.
    pub fn on_text(&mut self, message: &Message<'_>, tx: ServerTx, trusted: bool) {
        let (code, headers) = match self.take_text(message, trusted) {
            Ok(code) => (code, ""),
            Err(refused) => refused,
        };
        self.reply(tx, false, code, "", headers.to_owned(), String::new());
    }

    fn take_text(
        &mut self,
        message: &Message<'_>,
        trusted: bool,
    ) -> Result<u16, (u16, &'static str)> {
        if self.agent.sessions.is_empty() {
            return Err((480, ""));
        }
        if !is_plain_text(message) {
            return Err((
                415,
                "Accept: text/plain;charset=utf-8\r\nAccept-Encoding: identity\r\n",
            ));
        }
        if message.body().len() > MAX_TEXT {
            return Err((413, ""));
        }
        let text = std::str::from_utf8(message.body()).map_err(|_| (400, ""))?;
        if text.is_empty() {
            // nothing to show, and no fault of anybody
            return Ok(200);
        }
        if text.contains('\0') {
            return Err((400, ""));
        }
        let event = ServerMessage::Message {
            from: crate::identity::remote_of(message, trusted).number,
            text: text.to_owned(),
        };
        let mut attached = false;
        let mut kept = false;
        for session in 0..self.agent.sessions.len() {
            let there = self.agent.sessions[session].attached();
            let told = self.tell_text(session, &event);
            attached |= told && there;
            kept |= told;
        }
        match (attached, kept) {
            (true, _) => Ok(200),
            // RFC 3428, section 7: taken, but nobody has it yet
            (false, true) => Ok(202),
            (false, false) => Err((480, "")),
        }
    }

    /// Sends a text to a session, and keeps it: no snapshot tells it again. False when its browser is away and there is no
    /// room for more.
    fn tell_text(&mut self, session: usize, event: &ServerMessage) -> bool {
        let older_than = self.now.saturating_sub(2 * self.config.resume_grace);
        let s = &mut self.agent.sessions[session];
        let number = s.next_event;
        let frame = protocol::encode(event, &format!("evt-{number}"));
        if !make_room(s, frame.len()) {
            return false;
        }
        s.next_event += 1;
        s.remember(number, self.now, older_than, &frame);
        if let Some(conn) = s.conn {
            self.out.push(Output::Frame { conn, text: frame });
        }
        true
    }
}

/// Drops the oldest texts of a session until one more fits. What its browser has missed is not dropped; false if that
/// takes all the room.
fn make_room(session: &mut Session, len: usize) -> bool {
    let missed_from = match session.conn {
        Some(_) => u64::MAX,
        None => session.missed_from,
    };
    loop {
        let texts = session.journal.iter().filter(|(_, _, f)| is_text(f));
        let (count, bytes) = texts.fold((0, 0), |(n, b), (_, _, f)| (n + 1, b + f.len()));
        if count < KEPT && bytes + len <= KEPT_BYTES {
            return true;
        }
        let oldest = session
            .journal
            .iter()
            .position(|(number, _, f)| number < missed_from && is_text(f));
        match oldest {
            Some(index) => session.journal.remove(index),
            None => return false,
        };
    }
}

/// Is it the frame of a text? Frames are our own, so they begin as we write them.
fn is_text(frame: &str) -> bool {
    frame.starts_with("{\"type\":\"message\"")
}

/// Text as the protocol can carry it: plain, in UTF-8 and not packed.
fn is_plain_text(message: &Message<'_>) -> bool {
    let charset = message.header("Content-Type").and_then(|value| {
        let (_, params) = value.split_once(';')?;
        params.split(';').find_map(|param| {
            let (name, value) = param.split_once('=')?;
            let charset = name.trim().eq_ignore_ascii_case("charset");
            charset.then(|| value.trim().trim_matches('"').to_ascii_lowercase())
        })
    });
    let packed = message
        .header("Content-Encoding")
        .is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    message.content_type().as_deref() == Some("text/plain")
        && charset.is_none_or(|c| c == "utf-8" || c == "us-ascii")
        && !packed
}
