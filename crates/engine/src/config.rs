//! What the operator chose; the same for every agent and every step.

use rtc_json_sdp::Policy;

/// Who decides whether a browser may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterMode {
    /// The registrar behind the next hop: each `register` becomes a REGISTER with digest (RFC 3261, section 10).
    Upstream,
    /// Kamailio's own user table, which holds HA1 (RFC 7616, section 3.4.2).
    Local,
}

/// What happens to a session beyond `max_sessions_per_agent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverLimit {
    /// The new one is refused with 403.
    Refuse,
    /// The oldest one without a call makes room and is told `unregistered` with reason `replaced`.
    Replace,
}

/// Settings of the engine. Durations are milliseconds unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// SIP URI that requests outside a dialog are sent to when the script names no other.
    pub next_hop: String,
    /// Who authenticates.
    pub register_mode: RegisterMode,
    /// `host:port` of our Contact.
    pub contact: String,
    /// Host part of From, To and of the Request-URI.
    pub domain: String,
    /// Digest realm where it is known beforehand; empty otherwise.
    pub realm: String,
    /// Name that `registered` gives as `server`.
    pub server_name: String,
    /// Which codecs may pass, and whether DTLS-SRTP is demanded.
    pub policy: Policy,
    /// Live calls that one agent may have; beyond it an INVITE gets 486 and a `call` gets 503.
    pub max_calls: usize,
    /// Browsers that one agent may have registered at a time.
    pub max_sessions: usize,
    /// What happens beyond that.
    pub over_limit: OverLimit,
    /// How long a session without a connection keeps its calls.
    pub resume_grace: u64,
    /// Longest registration, in seconds; also the one a client gets that asks for none.
    pub expires: u32,
    /// How long an incoming call rings before it is answered with 480.
    pub ring_timeout: u64,
}
