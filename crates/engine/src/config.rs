//! What the operator chose; the same for every agent and every step.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use rtc_json_protocol::IceServer;
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

/// How digits of a `dtmf` message are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtmfMode {
    /// INFO with `application/dtmf-relay`.
    Info,
    /// By the browser itself, in RTP (RFC 4733), where `telephone-event` was agreed; else as `Info`.
    Rfc4733,
}

/// How candidates that a browser finds after its description are sent to the far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trickle {
    /// Not at all.
    Off,
    /// INFO (RFC 8840) to a far side that announced `trickle-ice`.
    Info,
    /// UPDATE (RFC 3311) with the whole description to a far side that allows it.
    Update,
    /// INFO where it was announced; else UPDATE, but only where the far side shows no address that the browser could reach:
    /// all others find the browser by its own checks (peer-reflexive candidates).
    Auto,
}

/// Header fields that may pass between a browser and SIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<String>);

impl HeaderList {
    /// Reads names divided by commas or blanks; `*` at the end of one stands for any rest.
    pub fn parse(list: &str) -> Self {
        HeaderList(
            list.split([',', ' ', '\t'])
                .filter(|name| !name.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
        )
    }

    /// Is that header on the list?
    pub fn allows(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => *pattern == name,
            })
    }

    /// The names as they were written, in lower case.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// STUN and TURN servers for browsers.
#[derive(Clone, Debug)]
pub struct Ice {
    /// Who knows them.
    pub source: Arc<dyn IceSource>,
    /// A session is given them anew after this time; 0 for never.
    pub renew: u64,
}

/// Names STUN and TURN servers: the same for the same DN and time.
pub trait IceSource: fmt::Debug + Send + Sync {
    /// Those for a session of that DN, with credentials from now on (`unix_now`: milliseconds).
    fn servers(&self, dn: &str, unix_now: u64) -> Vec<IceServer>;
}

/// Settings of the engine. Durations are milliseconds unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// SIP URI that requests outside a dialog are sent to when the script names no other.
    pub next_hop: String,
    /// Who authenticates.
    pub register_mode: RegisterMode,
    /// Are tokens taken in place of passwords? Then a registrar may trust this server, and what it grants unasked proves nothing.
    pub tokens: bool,
    /// `host:port` of our Contact.
    pub contact: String,
    /// Host part of From, To and of the Request-URI.
    pub domain: String,
    /// Digest realm where it is known beforehand; empty otherwise.
    pub realm: String,
    /// Name that `registered` gives as `server`.
    pub server_name: String,
    /// STUN and TURN servers; none where browsers need none.
    pub ice: Option<Ice>,
    /// Which codecs may pass, and whether DTLS-SRTP is demanded.
    pub policy: Policy,
    /// Live calls that one agent may have; beyond it an INVITE gets 486 and a `call` gets 503.
    pub max_calls: usize,
    /// Calls that one agent may begin in a second, twice as many at once; 0 for any number.
    pub call_rate: u32,
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
    /// Session interval to ask for in seconds (RFC 4028); 0 asks for none.
    pub session_expires: u32,
    /// Shortest session interval that is accepted, in seconds.
    pub min_se: u32,
    /// Addresses tried for one call when the far side redirects it (3xx).
    pub max_redirects: usize,
    /// How digits are sent.
    pub dtmf_mode: DtmfMode,
    /// Milliseconds of a digit for which the browser names no duration.
    pub dtmf_duration: u32,
    /// How later candidates are sent.
    pub trickle: Trickle,
    /// Does a REFER of the far side move the call?
    pub accept_refer: bool,
    /// A conference without a name gets this and the DN.
    pub conference_prefix: String,
    /// Header fields of an INVITE that the browser is shown.
    pub headers_in: HeaderList,
    /// Header fields that a browser may add to its INVITE.
    pub headers_out: HeaderList,
    /// Who may assert an identity (RFC 3325).
    pub trusted_peers: Vec<IpNet>,
}
