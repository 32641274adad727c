//! Digest challenges that a browser answers, so that the server never learns the secret.
//!
//! A challenge comes from the far side ([`Asked::by`]) or is made here ([`Asked::here`]); [`Asked`] is what is kept of it
//! while the browser computes. Its answer becomes a header line ([`Asked::line`]) or is compared with the HA1 of the user
//! table ([`Answer::matches`]).
//!
//! For a request of a call: [`Step::challenge_call`] when a 401 or 407 cannot be answered here, [`Step::call_answer`] when
//! the `digest` of the browser comes.

use std::fmt;

use rtc_json_protocol::{DigestAnswer, ServerMessage};
use rtc_json_sip::{self as sip, Algorithm, Challenge, Ha1, Message};
use serde::{Deserialize, Serialize};

use crate::browser::no_call;
use crate::model::State;
use crate::outbound::authorization_header;
use crate::step::{Failure, Step};

/// How long a browser may take to answer a challenge that comes by itself.
pub(crate) const ASK_WAIT: u64 = 10_000;
/// How long a challenge that is the outcome of a `register` can be answered.
pub(crate) const REGISTER_WAIT: u64 = 30_000;
/// Challenges that browsers answer for one refresh: the second and third cover a nonce that went stale.
const MAX_ROUNDS: u8 = 3;

/// A challenge that a browser was asked to answer. Serves once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// With its opaque, which the browser does not see.
    challenge: Challenge,
    /// 401 or 407: decides which header answers it.
    code: u16,
    method: String,
    uri: String,
    /// When the answer comes too late.
    pub deadline: u64,
}

/// A browser's answer to a challenge of our own. `Debug` hides it: with it passwords can be guessed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Answer {
    asked: Asked,
    response: String,
    /// Nonce count and client nonce.
    qop_auth: Option<(String, String)>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer(..)")
    }
}

/// What a browser has computed: the response, and nonce count with client nonce where `qop=auth` is used.
type Given<'d> = (&'d str, Option<(&'d str, &'d str)>);

/// How a browser that registers shows who it is.
#[derive(Clone, Serialize, Deserialize)]
pub enum Proof {
    /// By the password in the pending record, or its HA1.
    Password,
    /// By a token that was found good.
    Token,
    /// Not at all yet: a challenge is to be had from the registrar.
    Nothing,
    /// It was challenged and has not answered yet.
    Asked(Asked),
    /// Its answer for the registrar, as a header line.
    Line(String),
    /// Its answer to a challenge of our own.
    Answer(Answer),
    /// Nothing that is right; it is told so by the timer.
    Wrong,
}

/// Challenges to the server's own refresh of the binding, where only a browser can answer them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Asking {
    /// The one that waits for its answer.
    pub asked: Option<Asked>,
    /// Sessions are asked from this number on: that of the last one that registered by answering a challenge, or was asked.
    pub session: u32,
    /// How often browsers were asked for the refresh under way.
    pub rounds: u8,
    /// Nobody was there to be asked.
    pub missed: bool,
    /// The answer, as a header line, until it is sent.
    pub line: Option<String>,
    /// The REGISTER under way carries an answer of a browser.
    pub answering: bool,
}

impl Asked {
    /// What a browser can answer of the challenges in a 401 or 407: the strongest one whose texts fit into a `digest`.
    pub(crate) fn by(
        reply: &Message<'_>,
        code: u16,
        method: &str,
        uri: &str,
        deadline: u64,
    ) -> Option<Self> {
        let fits = |text: &str| (1..=256).contains(&text.len()) && !text.contains(['"', '\\']);
        let challenges: Vec<Challenge> = challenges(reply)
            .filter(|c| fits(&c.realm) && fits(&c.nonce))
            .collect();
        Some(Asked {
            challenge: sip::choose(&challenges)?.clone(),
            code,
            method: method.to_owned(),
            uri: uri.to_owned(),
            deadline,
        })
    }

    /// A challenge of our own to a REGISTER. MD5, because that is what user tables hold.
    pub(crate) fn here(realm: &str, nonce: String, uri: String, deadline: u64) -> Self {
        Asked {
            challenge: Challenge {
                realm: realm.to_owned(),
                nonce,
                opaque: None,
                algorithm: Algorithm::Md5,
                algorithm_named: true,
                qop_auth: true,
                stale: false,
            },
            code: 401,
            method: "REGISTER".to_owned(),
            uri,
            deadline,
        }
    }

    /// Only the nonce of the answer before was too old.
    pub(crate) fn stale(&self) -> bool {
        self.challenge.stale
    }

    /// The method of the challenged request.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// What the browser is told.
    pub(crate) fn message(&self, call_id: Option<&str>) -> ServerMessage {
        let qop = if self.challenge.qop_auth { "auth" } else { "" };
        ServerMessage::Challenge {
            realm: self.challenge.realm.clone(),
            nonce: self.challenge.nonce.clone(),
            algorithm: self.challenge.algorithm.as_str().to_owned(),
            qop: qop.to_owned(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            call_id: call_id.map(str::to_owned),
        }
    }

    /// Is it this challenge that the browser has answered?
    pub(crate) fn is_meant_by(&self, digest: &DigestAnswer) -> bool {
        self.challenge.nonce == digest.nonce
    }

    /// The header line that answers the challenge of the far side.
    ///
    /// # Errors
    /// What is wrong with the answer, for people.
    pub(crate) fn line(
        &self,
        dn: &str,
        domain: &str,
        digest: &DigestAnswer,
    ) -> Result<String, &'static str> {
        let user = digest.username.as_deref().unwrap_or(dn);
        let host = user.strip_prefix(dn).map(|rest| rest.strip_prefix('@'));
        // the forms in which registrars know the same user; another one's name is not for this agent to give
        let own = user == dn
            || host.flatten() == Some(domain)
            || host.flatten() == Some(&self.challenge.realm);
        if !own {
            return Err("payload.digest.username: expected the DN");
        }
        let (response, qop_auth) = self.check(digest)?;
        sip::credentials(&self.challenge, user, &self.uri, response, qop_auth)
            .map(|value| format!("{}: {value}\r\n", authorization_header(self.code)))
            .ok_or("payload.digest: cannot stand in a header")
    }

    /// The answer to a challenge of our own, to be compared when the HA1 is known.
    ///
    /// # Errors
    /// What is wrong with the answer, for people.
    pub(crate) fn answer(self, dn: &str, digest: &DigestAnswer) -> Result<Answer, &'static str> {
        if digest.username.as_deref().is_some_and(|user| user != dn) {
            return Err("payload.digest.username: expected the DN");
        }
        let (response, qop_auth) = self.check(digest)?;
        let (response, qop_auth) = (
            response.to_ascii_lowercase(),
            qop_auth.map(|(count, cnonce)| (count.to_owned(), cnonce.to_owned())),
        );
        Ok(Answer {
            asked: self,
            response,
            qop_auth,
        })
    }

    /// Does the answer repeat what was asked?
    fn check<'d>(&self, digest: &'d DigestAnswer) -> Result<Given<'d>, &'static str> {
        let challenge = &self.challenge;
        let same =
            |given: &Option<String>, asked: &str| given.as_deref().is_none_or(|g| g == asked);
        if digest.nonce != challenge.nonce {
            return Err("payload.digest.nonce: expected that of the challenge");
        }
        if !same(&digest.realm, &challenge.realm) {
            return Err("payload.digest.realm: expected that of the challenge");
        }
        if !same(&digest.uri, &self.uri) {
            return Err("payload.digest.uri: expected that of the challenge");
        }
        let algorithm = digest.algorithm.as_deref().map(Algorithm::parse);
        if algorithm.is_some_and(|given| given != Some(challenge.algorithm)) {
            return Err("payload.digest.algorithm: expected that of the challenge");
        }
        let response = digest.response.expose();
        let digits = match challenge.algorithm {
            Algorithm::Md5 => 32,
            Algorithm::Sha256 => 64,
        };
        if response.len() != digits || !response.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("payload.digest.response: expected the hash in hex digits");
        }
        match (challenge.qop_auth, &digest.qop, &digest.nc, &digest.cnonce) {
            (true, Some(qop), Some(count), Some(cnonce)) if qop.eq_ignore_ascii_case("auth") => {
                Ok((response, Some((count, cnonce.expose()))))
            }
            (true, ..) => Err("payload.digest: expected qop auth with cnonce and nc"),
            (false, None, ..) => Ok((response, None)),
            (false, ..) => Err("payload.digest.qop: expected none, as in the challenge"),
        }
    }
}

impl Answer {
    /// Is it right for that HA1? Takes the same time for a wrong answer and for an unknown user.
    pub(crate) fn matches(&self, ha1: Option<&str>) -> bool {
        let known = ha1.map(|ha1| ha1.trim().to_ascii_lowercase());
        let qop_auth = self.qop_auth.as_ref();
        let expected = sip::response(
            self.asked.challenge.algorithm,
            known
                .as_deref()
                .unwrap_or("00000000000000000000000000000000"),
            &self.asked.challenge.nonce,
            qop_auth.map(|(count, cnonce)| (count.as_str(), cnonce.as_str())),
            &self.asked.method,
            &self.asked.uri,
        );
        let right = sip::same_secret(&expected, &self.response);
        right & known.is_some_and(|ha1| !ha1.is_empty())
    }
}

impl Asking {
    /// When it has to be looked at; none for never.
    pub(crate) fn due(&self) -> Option<u64> {
        self.asked.as_ref().map(|asked| asked.deadline)
    }

    /// A refresh has gone well.
    pub(crate) fn settle(&mut self) {
        *self = Asking {
            session: self.session,
            ..Asking::default()
        };
    }
}

impl Step<'_> {
    // ---- requests of calls

    /// A request of a call was answered with 401 or 407 and no HA1 is known: asks the session that has the call. What it
    /// gives is to be kept with the call until [`call_answer`](Self::call_answer); none when the session has not shown that it
    /// can answer, and then the request has failed.
    pub fn challenge_call(
        &mut self,
        call: usize,
        code: u16,
        reply: &Message<'_>,
        method: &str,
        uri: &str,
    ) -> Option<Asked> {
        let asked = Asked::by(reply, code, method, uri, self.now + ASK_WAIT)?;
        // one that is away is told when it comes back
        let session = self.owner(call)?;
        if !self.agent.sessions[session].answers {
            return None;
        }
        let c = &self.agent.calls[call];
        // browsers know only the call that it belongs to
        let id = c.moves.as_ref().unwrap_or(&c.id);
        let message = asked.message(Some(id));
        self.event(session, &message);
        Some(asked)
    }

    /// The header line that a browser's answer makes of a challenge to a request of a call.
    ///
    /// # Errors
    /// What to tell the browser. The challenge still waits.
    pub fn call_answer<'c>(
        &self,
        asked: Option<&Asked>,
        call_id: &'c str,
        digest: &DigestAnswer,
    ) -> Result<String, Failure<'c>> {
        let asked = asked.ok_or(nothing_asked().of_call(call_id))?;
        asked
            .line(&self.agent.dn, &self.config.domain, digest)
            .map_err(|details| Failure::new(400, "Bad digest", details).of_call(call_id))
    }

    /// The browser answers a challenge to a request of a call.
    pub fn call_digest(&mut self, session: usize, id: &str, call_id: &str, digest: &DigestAnswer) {
        let number = self.agent.sessions[session].number;
        let call = self
            .live_call(call_id)
            .filter(|call| self.agent.calls[*call].session == Some(number));
        let Some(call) = call else {
            return self.refuse(session, id, &no_call(call_id));
        };
        // the challenge may be that of the leg to its new far side
        let hidden = self.agent.calls.iter().position(|c| {
            let meant = c.leg.asked.as_ref().is_some_and(|a| a.is_meant_by(digest));
            meant && c.moves.as_deref() == Some(call_id)
        });
        let call = hidden.unwrap_or(call);
        let c = &self.agent.calls[call];
        let waiting = c
            .leg
            .sent
            .iter()
            .position(|s| s.asked.as_ref().is_some_and(|a| a.is_meant_by(digest)));
        if let Some(index) = waiting {
            return match self.call_answer(c.leg.sent[index].asked.as_ref(), call_id, digest) {
                Ok(line) => {
                    self.ack(session, id, call_id);
                    self.authorized(call, index, &line);
                }
                Err(failure) => self.refuse(session, id, &failure),
            };
        }
        let asked = c.leg.asked.as_ref().filter(|asked| {
            asked.method() == "INVITE" && matches!(c.state, State::Trying | State::Ringing)
        });
        let line = match self.call_answer(asked, call_id, digest) {
            Ok(line) => line,
            Err(failure) => return self.refuse(session, id, &failure),
        };
        let ack = ServerMessage::Ack {
            call_id: Some(call_id.to_owned()),
            mode: None,
        };
        self.outcome(session, id, &ack);
        let now = self.now;
        let c = &mut self.agent.calls[call];
        c.leg.asked = None;
        c.leg.answered += 1;
        c.deadline = now + crate::call::SAFETY_WAIT;
        self.invite(call, &line);
    }

    // ---- the refresh of the registration, and texts

    /// The browser answers a challenge that belongs to no call.
    pub fn digest(&mut self, session: usize, id: &str, digest: &DigestAnswer) {
        let asked = self.agent.upstream.asking.asked.as_ref();
        let refresh = asked.filter(|asked| asked.is_meant_by(digest));
        let text = self.challenged_text(session, digest);
        let asked = match (refresh, text) {
            (Some(asked), _) => asked,
            (None, Some((_, asked))) => asked,
            (None, None) => return self.refuse(session, id, &nothing_asked()),
        };
        let line = match asked.line(&self.agent.dn, &self.config.domain, digest) {
            Ok(line) => line,
            Err(details) => {
                return self.refuse(session, id, &Failure::new(400, "Bad digest", details));
            }
        };
        let text = text.map(|(text, _)| text);
        let is_refresh = refresh.is_some();
        let ack = ServerMessage::Ack {
            call_id: None,
            mode: None,
        };
        self.outcome(session, id, &ack);
        match text {
            _ if is_refresh => {
                let up = &mut self.agent.upstream;
                up.asking.asked = None;
                up.asking.line = Some(line);
                up.refresh_at = self.now;
                self.next_register();
            }
            Some(text) => self.answered_text(text, &line),
            None => {}
        }
    }

    /// The server's own REGISTER was challenged and no HA1 answers that: a browser is asked.
    pub fn refresh_challenged(&mut self, code: u16, message: Option<&Message<'_>>) {
        let uri = self.registrar();
        let asked = message.and_then(|m| Asked::by(m, code, "REGISTER", &uri, self.now + ASK_WAIT));
        let up = &mut self.agent.upstream;
        let by_browser = std::mem::take(&mut up.asking.answering);
        let by_ha1 = !by_browser && up.answered > 0;
        let stale = asked.as_ref().is_some_and(Asked::stale);
        let refused = by_browser && !stale || !self.agent.sessions.iter().any(|s| s.answers);
        let Some(asked) = asked.filter(|_| !refused) else {
            return self.binding_refused(false);
        };
        if by_ha1 && !stale {
            // the password has changed, and there is a browser that knows the new one
            up.ha1 = Ha1::default();
        }
        if up.asking.rounds >= MAX_ROUNDS {
            return self.refresh_later();
        }
        let Some(session) = self.session_to_ask() else {
            self.agent.upstream.asking.missed = true;
            return self.refresh_later();
        };
        let number = self.agent.sessions[session].number;
        let message = asked.message(None);
        let asking = &mut self.agent.upstream.asking;
        asking.session = number;
        asking.rounds += 1;
        asking.missed = false;
        asking.asked = Some(asked);
        self.event(session, &message);
    }

    /// The next session that is there and can answer.
    fn session_to_ask(&self) -> Option<usize> {
        let there = |min: u32| {
            let sessions = &self.agent.sessions;
            sessions
                .iter()
                .position(|s| s.attached() && s.answers && s.number >= min)
        };
        there(self.agent.upstream.asking.session).or_else(|| there(0))
    }

    /// What became too late.
    pub fn tick_challenges(&mut self) {
        let due = self.agent.upstream.asking.due();
        if due.is_some_and(|at| at <= self.now) {
            let asking = &mut self.agent.upstream.asking;
            asking.asked = None;
            // another one may know the secret
            asking.session = asking.session.saturating_add(1);
            // a browser that registered meanwhile has refreshed the binding
            let up = &self.agent.upstream;
            if up.bound && up.refresh_at == 0 && up.in_flight == 0 {
                self.refresh_later();
            }
        }
    }

    /// A browser is back: challenges that still wait are told again, for no snapshot shows them.
    pub fn repeat_challenges(&mut self, session: usize) {
        let number = self.agent.sessions[session].number;
        let calls = self.agent.calls.iter();
        let mut messages: Vec<ServerMessage> = calls
            .filter(|c| c.session == Some(number) && c.live())
            .flat_map(|c| {
                let in_dialog = c.leg.sent.iter().filter_map(|s| s.asked.as_ref());
                let all = c.leg.asked.as_ref().into_iter().chain(in_dialog);
                all.map(|asked| asked.message(Some(&c.id)))
            })
            .collect();
        let asking = &self.agent.upstream.asking;
        if asking.session == number {
            messages.extend(asking.asked.as_ref().map(|asked| asked.message(None)));
        }
        messages.extend(self.challenges_of_texts(number));
        for message in messages {
            self.event(session, &message);
        }
        let up = &mut self.agent.upstream;
        if up.asking.missed && up.bound && up.refresh_at != 0 {
            up.asking.missed = false;
            up.refresh_at = self.now;
            self.next_register();
        }
    }
}

/// All challenges in a 401 or 407 that are digest challenges of a known kind.
pub(crate) fn challenges<'m>(message: &'m Message<'_>) -> impl Iterator<Item = Challenge> + 'm {
    message
        .headers("WWW-Authenticate")
        .chain(message.headers("Proxy-Authenticate"))
        .filter_map(|value| Challenge::parse(&value).ok())
}

/// The strongest challenge in a 401 or 407 that this HA1 answers.
pub(crate) fn answerable(message: &Message<'_>, ha1: &Ha1) -> Option<Challenge> {
    let challenges: Vec<Challenge> = challenges(message).filter(|c| ha1.answers(c)).collect();
    sip::choose(&challenges).cloned()
}

fn nothing_asked() -> Failure<'static> {
    Failure::new(409, "Conflict", "no such challenge waits for an answer")
}
