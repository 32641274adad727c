//! What the server says.
//!
//! The structs here serialise to the wire's form, where an absent value is left out. A format that is not self-describing
//! cannot read that back, so they are for sending, not for keeping; the small enums are fit for both.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::{Candidate, Secret};

/// A message of the server, one variant for each `type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "type",
    content = "payload",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ServerMessage {
    /// Signed in.
    Registered {
        /// The number.
        dn: String,
        /// Lifetime in seconds.
        expires: u32,
        /// Name of the server.
        server: String,
        /// Token to come back with after a lost connection.
        session: Secret,
        /// Version of the protocol, 1.
        protocol: u32,
        /// TURN and STUN servers for this session.
        ice_servers: Vec<IceServer>,
        /// The number's live calls.
        calls: Vec<CallSnapshot>,
    },
    /// Not signed in.
    RegistrationFailed {
        /// Why, for people.
        reason: String,
        /// The SIP status, or 4xx/5xx of the same meaning.
        code: u16,
        /// With 429: seconds until the next try is looked at.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Prove who you are.
    Challenge {
        /// Realm.
        realm: String,
        /// Nonce.
        nonce: String,
        /// `MD5` or `SHA-256`.
        algorithm: String,
        /// `auth`.
        qop: String,
        /// Method to hash.
        method: String,
        /// URI to hash.
        uri: String,
        /// The call whose request was challenged; absent for a registration.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
    },
    /// Signed out.
    Unregistered {
        /// The number.
        dn: String,
        /// Why.
        reason: UnregisterReason,
    },
    /// Somebody calls.
    IncomingCall {
        /// The call.
        call_id: String,
        /// The calling number.
        from: String,
        /// The caller's name; sent as an empty string when there is none.
        #[serde(serialize_with = "empty_for_none")]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        display_name: Option<String>,
        /// The offer; without it the client's `answer` carries the offer.
        #[serde(skip_serializing_if = "Option::is_none")]
        sdp: Option<String>,
        /// The called number.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// SIP headers for the client. Lines of one name become one key, their values joined by a comma (RFC 3261 7.3.1).
        #[serde(
            skip_serializing_if = "Vec::is_empty",
            serialize_with = "headers_as_object"
        )]
        #[cfg_attr(
            feature = "schema",
            schemars(with = "Option<std::collections::BTreeMap<String, String>>")
        )]
        headers: Vec<(String, String)>,
        /// Who sent the call on to here.
        #[serde(skip_serializing_if = "Option::is_none")]
        diversion: Option<String>,
    },
    /// An outbound call gets on.
    CallProgress {
        /// The call.
        call_id: String,
        /// How far it is.
        state: ProgressState,
        /// Answer of the far side to hear before it answers the call, with `early`.
        #[serde(skip_serializing_if = "Option::is_none")]
        sdp: Option<String>,
        /// Id of the `call` request.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// An outbound call was answered.
    CallAccepted {
        /// The call.
        call_id: String,
        /// The far side's answer.
        sdp: String,
    },
    /// Something changed in a call.
    CallUpdated {
        /// The call.
        call_id: String,
        /// On hold by this side.
        hold: bool,
        /// On hold by the far side.
        remote_hold: bool,
        /// An offer (with `answer_needed`) or an answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        sdp: Option<String>,
        /// `true`: the client has to send `answer`; without `sdp` that one carries a new offer of its own. `false`: the offer
        /// that it made came to nothing, and the description before it holds again.
        #[serde(skip_serializing_if = "Option::is_none")]
        answer_needed: Option<bool>,
        /// Who the far side is now, after a transfer.
        #[serde(skip_serializing_if = "Option::is_none")]
        remote: Option<Remote>,
    },
    /// A call is over.
    CallEnded {
        /// The call.
        call_id: String,
        /// Why.
        reason: EndReason,
        /// Whole seconds since the answer, 0 without one.
        duration: u64,
        /// SIP status.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// Q.850 cause.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<u16>,
        /// How long setting it up took.
        #[serde(skip_serializing_if = "Option::is_none")]
        timings: Option<Timings>,
    },
    /// A candidate of the far side.
    IceCandidate {
        /// The call.
        call_id: String,
        /// `null`: end of candidates.
        #[cfg_attr(
            feature = "schema",
            schemars(schema_with = "crate::schema::candidate_or_null")
        )]
        candidate: Option<Candidate>,
    },
    /// A transfer gets on.
    TransferProgress {
        /// The call that is transferred.
        call_id: String,
        /// How far it is.
        state: TransferState,
        /// SIP status of the far side's attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
    },
    /// A conference changed.
    ConferenceUpdated {
        /// The room.
        room: String,
        /// The calls in it.
        call_ids: Vec<String>,
        /// How it is.
        state: ConferenceState,
    },
    /// A recording changed.
    RecordingUpdated {
        /// The call.
        call_id: String,
        /// How it is.
        state: RecordingState,
    },
    /// A text message.
    Message {
        /// Who wrote it.
        from: String,
        /// The text.
        text: String,
    },
    /// Something failed.
    Error {
        /// What failed, for people.
        message: String,
        /// The SIP status where there is one, else a number of the same meaning.
        code: u16,
        /// More about it; sent as an empty string when there is none.
        #[serde(serialize_with = "empty_for_none")]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        details: Option<String>,
        /// The call.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
        /// Id of the request that failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<String>,
        /// Q.850 cause.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<u16>,
        /// May the same request succeed later?
        #[serde(skip_serializing_if = "Option::is_none")]
        retryable: Option<bool>,
        /// With 429: seconds until it may succeed.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Done.
    Ack {
        /// The call, when the request named one.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
        /// `rfc4733` as the outcome of `dtmf`: nothing was sent, the browser plays the digits into its own RTP.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<&'static str>,
    },
    /// I am here.
    #[serde(serialize_with = "empty_payload")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::schema::Empty"))]
    Pong,
    /// The server announces something.
    Notice {
        /// A word: `draining`, `unreachable`, `reachable`.
        reason: String,
    },
}

impl ServerMessage {
    fn sdp(&self) -> Option<&str> {
        match self {
            ServerMessage::CallAccepted { sdp, .. } => Some(sdp),
            ServerMessage::IncomingCall { sdp, .. }
            | ServerMessage::CallProgress { sdp, .. }
            | ServerMessage::CallUpdated { sdp, .. } => sdp.as_deref(),
            _ => None,
        }
    }
}

/// Writes a message as a text frame: exactly `type`, `payload` and `id`, in this order. `id` is the answered request's, or
/// the server's own.
pub fn encode(message: &ServerMessage, id: &str) -> String {
    // room for most messages; a description has a line end, two bytes longer in JSON, for every twenty-five or so
    let room = message.sdp().map_or(0, |sdp| sdp.len() + sdp.len() / 8);
    let mut text = Vec::with_capacity(256 + room);
    // strings, numbers and maps with string keys always serialise, and writing to memory does not fail
    serde_json::to_writer(&mut text, message).unwrap_or_else(|_| unreachable!());
    // the brace that closes the message comes behind the id
    text.pop();
    text.extend_from_slice(b",\"id\":");
    serde_json::to_writer(&mut text, id).unwrap_or_else(|_| unreachable!());
    text.push(b'}');
    String::from_utf8(text).unwrap_or_else(|_| unreachable!("serde_json writes UTF-8"))
}

/// An entry of the browsers' `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IceServer {
    /// `stun:`, `turn:`, `turns:` URLs.
    pub urls: Vec<String>,
    /// User name for TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password for TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
}

/// A live call as a browser that comes back has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CallSnapshot {
    /// The call.
    pub call_id: String,
    /// `in`: the far side called; `out`: the browser did.
    pub direction: &'static str,
    /// `trying`, `ringing`, `early`, `queued` (all outbound), `incoming` or `established`.
    pub state: &'static str,
    /// The called number.
    pub to: String,
    /// The calling number.
    pub from: String,
    /// Name of the far side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the browser needs to go on: the offer of a ringing inbound call, the answer of an outbound one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp: Option<String>,
    /// On hold by this side.
    pub hold: bool,
    /// On hold by the far side.
    pub remote_hold: bool,
    /// Its microphone is muted, as the browser said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub muted: bool,
    /// The recording that the browser asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recording: Option<RecordingState>,
    /// Seconds since it was answered, 0 before.
    pub since: u64,
    /// Id of the `call` request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// The far side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remote {
    /// Its number.
    pub number: String,
    /// Its name, empty when there is none.
    pub display_name: String,
}

/// Milliseconds from the `call` request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timings {
    /// To the first 18x.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ringing: Option<u64>,
    /// To the 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<u64>,
}

/// Declares an enum of words, so that the word on the wire and the one in the code are written once.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                }
            }

            /// The value with this word.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }
    };
}

words! {
    /// Why a call ended.
    EndReason {
        /// Hung up after it was answered.
        NormalClearing = "normal_clearing",
        /// Busy.
        UserBusy = "user_busy",
        /// Nobody answered.
        NoAnswer = "no_answer",
        /// Refused.
        CallRejected = "call_rejected",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// Another device took it.
        AnsweredElsewhere = "answered_elsewhere",
        /// No such number.
        UnallocatedNumber = "unallocated_number",
        /// Handed on.
        Transferred = "transferred",
        /// No sound is possible.
        MediaError = "media_error",
        /// The far side cannot be reached, or the browser was lost.
        NetworkError = "network_error",
        /// Something took too long.
        Timeout = "timeout",
        /// The media offer suits nobody.
        NotAcceptable = "not_acceptable",
        /// Overload or a failed gateway.
        ServiceUnavailable = "service_unavailable",
        /// The session timer of RFC 4028 ran out.
        SessionExpired = "session_expired",
        /// A fault of the server.
        InternalError = "internal_error",
    }
}

words! {
    /// How far an outbound call is.
    ProgressState {
        /// On its way.
        Trying = "trying",
        /// The far side rings.
        Ringing = "ringing",
        /// There is something to hear already.
        Early = "early",
        /// Waiting in a queue.
        Queued = "queued",
    }
}

words! {
    /// Why a registration ended.
    UnregisterReason {
        /// The client asked for it.
        Requested = "requested",
        /// Its time ran out.
        Expired = "expired",
        /// Another session took its place.
        Replaced = "replaced",
        /// The server stops.
        Shutdown = "shutdown",
    }
}

words! {
    /// How far a transfer is.
    TransferState {
        /// On its way.
        Trying = "trying",
        /// The target rings.
        Ringing = "ringing",
        /// Done; the call ends.
        Completed = "completed",
        /// Not done; the call goes on.
        Failed = "failed",
    }
}

words! {
    /// How a conference is.
    ConferenceState {
        /// Its calls are being moved.
        Joining = "joining",
        /// All are in.
        Active = "active",
        /// Over.
        Ended = "ended",
        /// It did not come about.
        Failed = "failed",
    }
}

words! {
    /// How a recording is.
    RecordingState {
        /// Runs.
        Recording = "recording",
        /// Interrupted.
        Paused = "paused",
        /// Over.
        Stopped = "stopped",
    }
}

/// `{}` for a message without content, which serde would leave out.
fn empty_payload<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_map(Some(0))?.end()
}

/// For fields that every message of their type has.
fn empty_for_none<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.as_deref().unwrap_or_default())
}

/// A JSON object must not have a key twice, a SIP message may well have a header twice.
fn headers_as_object<S: Serializer>(
    headers: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object: BTreeMap<String, (&str, String)> = BTreeMap::new();
    for (name, value) in headers {
        object
            .entry(name.to_ascii_lowercase())
            .and_modify(|(_, joined)| {
                joined.push_str(", ");
                joined.push_str(value);
            })
            .or_insert_with(|| (name, value.clone()));
    }
    serializer.collect_map(object.values().map(|(name, value)| (name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_content_has_an_empty_payload() {
        assert_eq!(
            encode(&ServerMessage::Pong, "1"),
            r#"{"type":"pong","payload":{},"id":"1"}"#
        );
        assert_eq!(
            encode(
                &ServerMessage::Ack {
                    call_id: None,
                    mode: None
                },
                "1"
            ),
            r#"{"type":"ack","payload":{},"id":"1"}"#
        );
    }

    #[test]
    fn the_end_of_candidates_is_null() {
        let message = ServerMessage::IceCandidate {
            call_id: "c".to_owned(),
            candidate: None,
        };
        assert_eq!(
            encode(&message, "evt-1"),
            r#"{"type":"iceCandidate","payload":{"callId":"c","candidate":null},"id":"evt-1"}"#
        );
        let message = ServerMessage::IceCandidate {
            call_id: "c".to_owned(),
            candidate: Some(Candidate {
                candidate: "candidate:1".to_owned(),
                sdp_mid: Some("0".to_owned()),
                sdp_m_line_index: Some(0),
            }),
        };
        assert_eq!(
            encode(&message, "evt-1"),
            r#"{"type":"iceCandidate","payload":{"callId":"c","candidate":{"candidate":"candidate:1","sdpMid":"0","sdpMLineIndex":0}},"id":"evt-1"}"#
        );
    }

    #[test]
    fn headers_of_one_name_become_one_key() {
        let message = ServerMessage::IncomingCall {
            call_id: "c".to_owned(),
            from: "1".to_owned(),
            display_name: None,
            sdp: None,
            to: None,
            headers: [("X-A", "1"), ("X-B", "2"), ("x-a", "3")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            diversion: None,
        };
        assert_eq!(
            encode(&message, "evt-1"),
            r#"{"type":"incomingCall","payload":{"callId":"c","from":"1","displayName":"","headers":{"X-A":"1, 3","X-B":"2"}},"id":"evt-1"}"#
        );
    }

    #[test]
    fn an_error_always_has_message_code_and_details() {
        let message = ServerMessage::Error {
            message: "No".to_owned(),
            code: 404,
            details: None,
            call_id: None,
            request: None,
            cause: None,
            retryable: None,
            retry_after: None,
        };
        assert_eq!(
            encode(&message, "\"x\""),
            r#"{"type":"error","payload":{"message":"No","code":404,"details":""},"id":"\"x\""}"#
        );
    }

    #[test]
    fn the_session_token_is_sent_but_not_shown() {
        let message = ServerMessage::Registered {
            dn: "1001".to_owned(),
            expires: 300,
            server: "s".to_owned(),
            session: Secret::new("tok-1"),
            protocol: crate::VERSION,
            ice_servers: vec![IceServer {
                urls: vec!["turn:t.example".to_owned()],
                username: Some("u".to_owned()),
                credential: Some(Secret::new("tok-2")),
            }],
            calls: Vec::new(),
        };
        assert_eq!(
            encode(&message, "1"),
            r#"{"type":"registered","payload":{"dn":"1001","expires":300,"server":"s","session":"tok-1","protocol":1,"iceServers":[{"urls":["turn:t.example"],"username":"u","credential":"tok-2"}],"calls":[]},"id":"1"}"#
        );
        assert!(!format!("{message:?}").contains("tok-"));
    }

    #[test]
    fn words_read_back() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::parse(reason.as_str()), Some(*reason));
            assert_eq!(
                serde_json::to_string(reason).unwrap(),
                format!("\"{}\"", reason.as_str())
            );
        }
        assert_eq!(EndReason::parse("nonsense"), None);
    }
}
