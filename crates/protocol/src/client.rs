//! What a browser asks for.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// One parsed frame of a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The request's id, 1 to 64 printable ASCII bytes; every reply to it carries the same.
    pub id: String,
    /// What is asked for.
    pub message: ClientMessage,
}

/// A message of a browser, one variant for each `type`. `callId`s are only checked for form: whether there is such a call,
/// and whose it is, the caller has to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(
        tag = "type",
        content = "payload",
        rename_all = "camelCase",
        rename_all_fields = "camelCase"
    )
)]
pub enum ClientMessage {
    /// Sign in.
    Register(Register),
    /// Sign out.
    Unregister,
    /// Are you there?
    Ping,
    /// Place a call.
    Call(Call),
    /// Take a ringing call, or answer an offer that `callUpdated` brought.
    Answer {
        /// The call.
        call_id: String,
        /// The browser's SDP.
        sdp: String,
    },
    /// End a call, in whatever state it is.
    Hangup {
        /// The call.
        call_id: String,
        /// A word of the client's (`user_hangup`, `busy`, `declined`, …), at most 64 bytes without control characters.
        reason: Option<String>,
    },
    /// Put on hold, or take back.
    Hold {
        /// The call.
        call_id: String,
        /// `true`: on hold.
        hold: bool,
    },
    /// The browser has muted its microphone, or opened it.
    Mute {
        /// The call.
        call_id: String,
        /// `true`: muted.
        muted: bool,
    },
    /// Send digits.
    Dtmf {
        /// The call.
        call_id: String,
        /// 1 to 32 of `0-9*#A-D`.
        digit: String,
        /// Length of each tone in milliseconds, 1 to 10000.
        duration: Option<u32>,
    },
    /// A candidate of the browser, or the end of them.
    IceCandidate {
        /// The call.
        call_id: String,
        /// `null`, or a candidate with an empty line as browsers report it, is the end of candidates.
        #[cfg_attr(
            feature = "schema",
            schemars(schema_with = "crate::schema::candidate_or_null")
        )]
        candidate: Option<Candidate>,
    },
    /// A new offer within a call (ICE restart, other device).
    Update {
        /// The call.
        call_id: String,
        /// The offer.
        sdp: String,
    },
    /// Hand the far side on. Exactly one of the two targets is set.
    Transfer {
        /// The call.
        call_id: String,
        /// Blind: the number to send it to.
        to: Option<String>,
        /// Attended: the other call of mine to connect it with; never `call_id` itself.
        with_call_id: Option<String>,
    },
    /// Put calls together.
    Conference {
        /// 2 to 32 different calls.
        call_ids: Vec<String>,
        /// The room; the server chooses when it is absent.
        room: Option<String>,
    },
    /// Steer the recording of a call.
    Recording {
        /// The call.
        call_id: String,
        /// What to do.
        action: RecordingAction,
    },
    /// Answer to a `challenge` that came by itself: for a call's request, or for the refresh of the registration.
    Digest {
        /// The call whose request was challenged; none for the registration.
        call_id: Option<String>,
        /// The answer.
        digest: Box<DigestAnswer>,
    },
    /// A text message.
    Message {
        /// The receiver's number.
        to: String,
        /// 1 to 8192 bytes without NUL.
        text: String,
    },
}

/// Payload of `register`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(
        rename_all = "camelCase",
        extend("anyOf" = [{ "required": ["dn"] }, { "required": ["token"] }])
    )
)]
pub struct Register {
    /// The number to register; absent only where a `token` names it.
    pub dn: Option<String>,
    /// The password in clear.
    pub password: Option<Secret>,
    /// A JWT whose `sub` is the DN.
    pub token: Option<Secret>,
    /// Answer to a `challenge`.
    pub digest: Option<Box<DigestAnswer>>,
    /// Name to show to others, at most 128 bytes without control characters.
    pub display_name: Option<String>,
    /// Wished lifetime in seconds, 0 to 604800 (a week).
    pub expires: Option<u32>,
    /// Session token of an earlier `registered`.
    pub resume: Option<Secret>,
    /// With `resume`: number of the last `evt-N` that the client has seen.
    pub last: Option<u64>,
}

/// Answer to a `challenge`, with the names of RFC 7616 section 3.4. Each value has at most 256 bytes and neither control
/// characters nor `"` or `\`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "camelCase")
)]
pub struct DigestAnswer {
    /// User name, when it is not the DN.
    pub username: Option<String>,
    /// Realm of the challenge.
    pub realm: Option<String>,
    /// Nonce of the challenge.
    pub nonce: String,
    /// Digest URI, when it is not the challenge's.
    pub uri: Option<String>,
    /// The hash, in hex.
    pub response: Secret,
    /// `MD5` or `SHA-256`.
    pub algorithm: Option<String>,
    /// `auth`.
    pub qop: Option<String>,
    /// Client nonce.
    pub cnonce: Option<Secret>,
    /// Nonce count, eight hex digits.
    pub nc: Option<String>,
}

/// Payload of `call`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "camelCase")
)]
pub struct Call {
    /// The number to call.
    pub to: String,
    /// The offer.
    pub sdp: String,
    /// Name to show to the far side, at most 128 bytes without control characters.
    pub display_name: Option<String>,
    /// Extra SIP headers, at most 16: the name is a token of at most 64 bytes, the value has at most 1024 bytes without
    /// control characters. Which of them are allowed is not decided here.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<std::collections::BTreeMap<String, String>>")
    )]
    pub headers: Vec<(String, String)>,
}

/// An ICE candidate in the shape of the browsers' `RTCIceCandidateInit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    /// The candidate line (`candidate:…`), at most 1024 bytes without control characters.
    pub candidate: String,
    /// Name of the media section, at most 64 bytes without control characters.
    pub sdp_mid: Option<String>,
    /// Index of the media section.
    #[serde(rename = "sdpMLineIndex")]
    pub sdp_m_line_index: Option<u16>,
}

/// What to do with a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RecordingAction {
    /// Begin.
    Start,
    /// End.
    Stop,
    /// Interrupt.
    Pause,
    /// Go on.
    Resume,
}
