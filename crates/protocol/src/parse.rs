//! From a frame to a [`Request`].

use std::borrow::Cow;

use serde::Deserialize;

use crate::client::{Call, Candidate, ClientMessage, DigestAnswer, RecordingAction, Register};
use crate::json::{self, Node, Object};
use crate::payload::{
    take, Payload, Problem, CALL_ID, CANDIDATE, DIGEST, DIGITS, DISPLAY_NAME, MID, NONCE_COUNT,
    PASSWORD, REASON, RESUME, SDP, TEXT, TOKEN,
};
use crate::{Request, Secret, ServerMessage};

/// What an operator can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame in bytes.
    pub max_frame: usize,
    /// Characters that a DN or a dialled number may have beside `[A-Za-z0-9]`. Control characters never count.
    pub dn_extra: String,
}

impl Limits {
    /// Is that text a DN, or a number that can be dialled?
    pub fn allows_number(&self, text: &str) -> bool {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || (!c.is_control() && self.dn_extra.contains(c));
        (1..=64).contains(&text.len()) && text.chars().all(allowed)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_frame: 32768,
            dn_extra: "._+*#-".to_owned(),
        }
    }
}

/// How bad a [`BadFrame`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKind {
    /// Not a frame of this protocol at all (too long, not JSON, not the three keys). Ten of them in ten seconds close the
    /// connection.
    Malformed,
    /// A proper frame, but of an unknown type or with a payload that its type does not allow. The connection stays open
    /// however many come.
    BadMessage,
}

/// A frame that was refused. Quotes nothing of the payload, so it can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct BadFrame {
    /// The request's id, when it could be read.
    pub id: Option<String>,
    /// 400 or 413.
    pub code: u16,
    /// What it is, in two or three words.
    pub message: &'static str,
    /// Which key is wrong and what was expected there.
    pub details: String,
    /// Whether it counts towards closing the connection.
    pub kind: BadKind,
}

impl BadFrame {
    /// The `error` to send for it.
    pub fn error(&self) -> ServerMessage {
        ServerMessage::Error {
            message: self.message.to_owned(),
            code: self.code,
            details: Some(self.details.clone()),
            call_id: None,
            request: self.id.clone(),
            cause: None,
            retryable: Some(false),
            retry_after: None,
        }
    }
}

/// Reads one text frame of a browser.
///
/// # Errors
/// [`BadFrame`]: 413 for a frame over `max_frame`, 400 for everything else.
pub fn parse(frame: &[u8], limits: &Limits) -> Result<Request, BadFrame> {
    if frame.len() > limits.max_frame {
        let text = std::str::from_utf8(frame).unwrap_or_default();
        let details = format!("{} bytes, at most {}", frame.len(), limits.max_frame);
        return Err(BadFrame {
            code: 413,
            message: "Frame too large",
            ..malformed(lenient_id(text), details)
        });
    }
    let text = std::str::from_utf8(frame)
        .map_err(|_| malformed(None, "the frame is not UTF-8".to_owned()))?;
    let node = json::read(text).map_err(|error| malformed(lenient_id(text), error.to_string()))?;
    let Node::Object(object) = node else {
        return Err(malformed(None, "expected an object".to_owned()));
    };
    let envelope = Envelope::split(object)?;
    let message = match read_message(&envelope.kind, Payload(envelope.payload), limits) {
        Ok(message) => message,
        Err(problem) => {
            return Err(BadFrame {
                id: Some(envelope.id),
                code: 400,
                message: problem.message,
                details: problem.details,
                kind: BadKind::BadMessage,
            })
        }
    };
    Ok(Request {
        id: envelope.id,
        message,
    })
}

/// One value of a frame for the operator's script: `type`, `id`, `payload.<key>` or `payload.<key>.<key>…`.
///
/// Numbers and booleans come as JSON writes them. `None` for a frame that does not parse, an absent or `null` key, an
/// object or array, and in two more cases: a secret (`password`, `token`, `digest`, `resume`, `credential` anywhere in the
/// path), and a string with control characters outside `payload.sdp` and `payload.text`, because a script may write it into
/// a header.
pub fn variable(frame: &[u8], path: &str) -> Option<String> {
    const SECRETS: [&str; 5] = ["password", "token", "digest", "resume", "credential"];
    let mut keys = path.split('.');
    let first = keys.next()?;
    let nested = first == "payload";
    if !(nested || matches!(path, "type" | "id"))
        || path.split('.').any(|key| {
            SECRETS
                .iter()
                .any(|secret| key.eq_ignore_ascii_case(secret))
        })
    {
        return None;
    }
    let mut node = json::read(std::str::from_utf8(frame).ok()?).ok()?;
    for key in std::iter::once(first).chain(keys) {
        let Node::Object(mut object) = node else {
            return None;
        };
        node = take(&mut object, key)?;
    }
    match node {
        Node::String(text) => {
            let multiline = matches!(path, "payload.sdp" | "payload.text");
            (multiline || !text.contains(char::is_control)).then(|| text.into_owned())
        }
        Node::Bool(value) => Some(value.to_string()),
        Node::Unsigned(value) => Some(value.to_string()),
        Node::Negative(value) => Some(value.to_string()),
        Node::Float(value) => serde_json::to_string(&value).ok(),
        Node::Null | Node::Array(_) | Node::Object(_) => None,
    }
}

/// Beyond it a browser's numbers are no longer exact.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

fn malformed(id: Option<String>, details: String) -> BadFrame {
    BadFrame {
        id,
        code: 400,
        message: "Malformed frame",
        details,
        kind: BadKind::Malformed,
    }
}

/// The id of a frame that was refused before its keys were looked at, so that the client's waiting request can still end.
fn lenient_id(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct IdOnly<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let id = serde_json::from_str::<IdOnly<'_>>(text).ok()?.id;
    valid_id(&id).then(|| id.into_owned())
}

fn valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// `[a-z][A-Za-z0-9]{0,31}`
fn valid_type(kind: &str) -> bool {
    kind.len() <= 32
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

struct Envelope<'a> {
    kind: Cow<'a, str>,
    payload: Object<'a>,
    id: String,
}

impl<'a> Envelope<'a> {
    fn split(mut object: Object<'a>) -> Result<Self, BadFrame> {
        let id = match take(&mut object, "id") {
            Some(Node::String(id)) if valid_id(&id) => id.into_owned(),
            _ => {
                let details = "id: expected a string of 1 to 64 printable ASCII characters";
                return Err(malformed(None, details.to_owned()));
            }
        };
        let Some(Node::String(kind)) = take(&mut object, "type") else {
            return Err(malformed(Some(id), "type: expected a string".to_owned()));
        };
        let payload = match take(&mut object, "payload") {
            Some(Node::Object(payload)) => payload,
            None => Object::new(),
            Some(_) => {
                return Err(malformed(
                    Some(id),
                    "payload: expected an object".to_owned(),
                ))
            }
        };
        if !object.is_empty() {
            let details = "expected no keys but type, payload and id";
            return Err(malformed(Some(id), details.to_owned()));
        }
        Ok(Envelope { kind, payload, id })
    }
}

fn read_message(
    kind: &str,
    mut payload: Payload<'_>,
    limits: &Limits,
) -> Result<ClientMessage, Problem> {
    let payload = &mut payload;
    Ok(match kind {
        "register" => ClientMessage::Register(read_register(payload, limits)?),
        "unregister" => ClientMessage::Unregister,
        "ping" => ClientMessage::Ping,
        "call" => ClientMessage::Call(Call {
            to: payload.number("to", limits)?,
            sdp: payload.string("sdp", &SDP)?,
            display_name: payload.optional_string("displayName", &DISPLAY_NAME)?,
            headers: payload.headers()?,
        }),
        "answer" => ClientMessage::Answer {
            call_id: payload.string("callId", &CALL_ID)?,
            sdp: payload.string("sdp", &SDP)?,
        },
        "hangup" => ClientMessage::Hangup {
            call_id: payload.string("callId", &CALL_ID)?,
            reason: payload.optional_string("reason", &REASON)?,
        },
        "hold" => ClientMessage::Hold {
            call_id: payload.string("callId", &CALL_ID)?,
            hold: payload.boolean("hold")?,
        },
        "mute" => ClientMessage::Mute {
            call_id: payload.string("callId", &CALL_ID)?,
            muted: payload.boolean("muted")?,
        },
        "dtmf" => ClientMessage::Dtmf {
            call_id: payload.string("callId", &CALL_ID)?,
            digit: payload.string("digit", &DIGITS)?,
            duration: payload
                .integer("duration", 1..=10_000, "an integer from 1 to 10000")?
                .map(|value| value as u32),
        },
        "iceCandidate" => ClientMessage::IceCandidate {
            call_id: payload.string("callId", &CALL_ID)?,
            candidate: read_candidate(payload)?,
        },
        "update" => ClientMessage::Update {
            call_id: payload.string("callId", &CALL_ID)?,
            sdp: payload.string("sdp", &SDP)?,
        },
        "transfer" => read_transfer(payload, limits)?,
        "conference" => ClientMessage::Conference {
            call_ids: read_call_ids(payload)?,
            room: payload.optional_number("room", limits)?,
        },
        "recording" => ClientMessage::Recording {
            call_id: payload.string("callId", &CALL_ID)?,
            action: read_action(payload)?,
        },
        "digest" => ClientMessage::Digest {
            call_id: payload.optional_string("callId", &CALL_ID)?,
            digest: read_digest(payload)?.ok_or_else(|| Problem::at("digest", "an object"))?,
        },
        "message" => ClientMessage::Message {
            to: payload.number("to", limits)?,
            text: payload.string("text", &TEXT)?,
        },
        unknown => {
            return Err(Problem {
                message: "Unknown message type",
                // what has the form of a type name is harmless to send back
                details: if valid_type(unknown) {
                    format!("type: no message is called {unknown}")
                } else {
                    "type: expected a camelCase name of at most 32 bytes".to_owned()
                },
            });
        }
    })
}

fn read_register(payload: &mut Payload<'_>, limits: &Limits) -> Result<Register, Problem> {
    let token = payload.optional_string("token", &TOKEN)?.map(Secret::from);
    let dn = match &token {
        Some(_) => payload.optional_number("dn", limits)?,
        None => Some(payload.number("dn", limits)?),
    };
    Ok(Register {
        dn,
        password: payload
            .optional_string("password", &PASSWORD)?
            .map(Secret::from),
        token,
        digest: read_digest(payload)?,
        display_name: payload.optional_string("displayName", &DISPLAY_NAME)?,
        expires: payload
            .integer("expires", 0..=604_800, "an integer from 0 to 604800")?
            .map(|value| value as u32),
        resume: payload
            .optional_string("resume", &RESUME)?
            .map(Secret::from),
        last: payload.integer(
            "last",
            0..=MAX_SAFE_INTEGER,
            "an integer from 0 to 2^53 - 1",
        )?,
    })
}

fn read_digest(payload: &mut Payload<'_>) -> Result<Option<Box<DigestAnswer>>, Problem> {
    let Some(digest) = payload.optional_object("digest")? else {
        return Ok(None);
    };
    let answer = read_digest_answer(digest).map_err(|problem| problem.within("digest"))?;
    Ok(Some(Box::new(answer)))
}

fn read_digest_answer(mut digest: Payload<'_>) -> Result<DigestAnswer, Problem> {
    Ok(DigestAnswer {
        username: digest.optional_string("username", &DIGEST)?,
        realm: digest.optional_string("realm", &DIGEST)?,
        nonce: digest.string("nonce", &DIGEST)?,
        uri: digest.optional_string("uri", &DIGEST)?,
        response: digest.string("response", &DIGEST)?.into(),
        algorithm: digest.optional_string("algorithm", &DIGEST)?,
        qop: digest.optional_string("qop", &DIGEST)?,
        cnonce: digest.optional_string("cnonce", &DIGEST)?.map(Secret::from),
        nc: digest.optional_string("nc", &NONCE_COUNT)?,
    })
}

fn read_candidate(payload: &mut Payload<'_>) -> Result<Option<Candidate>, Problem> {
    match take(&mut payload.0, "candidate") {
        Some(Node::Null) => Ok(None),
        Some(Node::Object(object)) => {
            read_candidate_init(Payload(object)).map_err(|problem| problem.within("candidate"))
        }
        _ => Err(Problem::at("candidate", "an object or null")),
    }
}

fn read_candidate_init(mut object: Payload<'_>) -> Result<Option<Candidate>, Problem> {
    let line = object.string("candidate", &CANDIDATE)?;
    let sdp_mid = object.optional_string("sdpMid", &MID)?;
    let sdp_m_line_index = object
        .integer(
            "sdpMLineIndex",
            0..=u64::from(u16::MAX),
            "an integer from 0 to 65535",
        )?
        .map(|value| value as u16);
    Ok((!line.is_empty()).then_some(Candidate {
        candidate: line,
        sdp_mid,
        sdp_m_line_index,
    }))
}

fn read_transfer(payload: &mut Payload<'_>, limits: &Limits) -> Result<ClientMessage, Problem> {
    let call_id = payload.string("callId", &CALL_ID)?;
    let to = payload.optional_number("to", limits)?;
    let with_call_id = payload.optional_string("withCallId", &CALL_ID)?;
    if to.is_some() == with_call_id.is_some() {
        return Err(Problem::bad_payload(
            "payload: expected either to or withCallId".to_owned(),
        ));
    }
    if with_call_id.as_ref() == Some(&call_id) {
        return Err(Problem::at("withCallId", "another call than callId"));
    }
    Ok(ClientMessage::Transfer {
        call_id,
        to,
        with_call_id,
    })
}

fn read_call_ids(payload: &mut Payload<'_>) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::at("callIds", "an array of 2 to 32 different call ids");
    let Some(Node::Array(array)) = payload.take("callIds") else {
        return Err(wrong());
    };
    if !(2..=32).contains(&array.len()) {
        return Err(wrong());
    }
    let mut ids: Vec<String> = Vec::with_capacity(array.len());
    for node in array {
        match node {
            Node::String(id) if CALL_ID.fits(&id) && !ids.iter().any(|known| *known == id) => {
                ids.push(id.into_owned());
            }
            _ => return Err(wrong()),
        }
    }
    Ok(ids)
}

fn read_action(payload: &mut Payload<'_>) -> Result<RecordingAction, Problem> {
    match payload.take("action") {
        Some(Node::String(action)) => match action.as_ref() {
            "start" => Some(RecordingAction::Start),
            "stop" => Some(RecordingAction::Stop),
            "pause" => Some(RecordingAction::Pause),
            "resume" => Some(RecordingAction::Resume),
            _ => None,
        },
        _ => None,
    }
    .ok_or_else(|| Problem::at("action", "start, stop, pause or resume"))
}
