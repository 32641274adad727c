//! Module parameters: checked once, at start, with an error that says what to write instead.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::Arc;

use ipnet::IpNet;
use rtc_json_api::rest;
use rtc_json_api::token::Rules;
use rtc_json_api::turn::{self, BadSecret, TurnSecret};
use rtc_json_engine::{Config, DtmfMode, HeaderList, Ice, OverLimit, RegisterMode, Trickle};
use rtc_json_protocol::Limits;
use rtc_json_sdp::Policy;
use rtc_json_sip::{valid_host_port, Uri};

use crate::attempts::Attempts;
use crate::host::{rtc_json_config_t, text};
use crate::ice::{IceServers, SharedSecret};
use crate::nodes::Nodes;
use crate::probes;
use crate::records::Records;
use crate::tokens::{BadKeys, Tokens};
use crate::watched::BadFile;

/// A parameter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSetting {
    /// A text that is not one of the allowed ones.
    #[error("{name}: '{value}' is not known; write one of: {allowed}")]
    Choice {
        /// Parameter.
        name: &'static str,
        /// What stood there.
        value: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A number out of its range.
    #[error("{name}: {value} is out of range; write a number from {low} to {high} ({unit})")]
    Range {
        /// Parameter.
        name: &'static str,
        /// What stood there.
        value: i64,
        /// Smallest allowed.
        low: i64,
        /// Largest allowed.
        high: i64,
        /// Unit.
        unit: &'static str,
    },
    /// A text of the wrong form.
    #[error("{name}: '{value}' cannot be used; write {instead}")]
    Form {
        /// Parameter.
        name: &'static str,
        /// What stood there.
        value: String,
        /// An example.
        instead: &'static str,
    },
    /// Something that has to be there is not.
    #[error("{name} is missing; write {instead}")]
    Missing {
        /// Parameter.
        name: &'static str,
        /// An example.
        instead: &'static str,
    },
    /// The codec list.
    #[error("codecs: {0}")]
    Codecs(String),
    /// The key file.
    #[error(
        "jwt_keys: {file} cannot be used: {problem}; write the path of a file with a JWKS or one public key in PEM"
    )]
    Keys {
        /// Its path.
        file: String,
        /// What is wrong with it.
        problem: BadKeys,
    },
    /// A secret, which is not shown.
    #[error("{name}: {problem}")]
    Secret {
        /// Parameter.
        name: &'static str,
        /// What is wrong with it.
        problem: BadSecret,
    },
    /// The file with the TURN server's secret.
    #[error(
        "turn_secret: {file} cannot be used: {problem}; write file: and the path of a file with the secret alone"
    )]
    TurnSecret {
        /// Its path.
        file: String,
        /// What is wrong with it.
        problem: BadFile<BadSecret>,
    },
}

/// All parameters, checked.
pub struct Settings {
    /// For the engine.
    pub engine: Config,
    /// For messages.
    pub limits: Limits,
    /// Checks tokens, if they are taken.
    pub tokens: Option<Tokens>,
    /// STUN and TURN servers, as in `engine`.
    pub ice: Option<Arc<IceServers>>,
    /// For the REST API.
    pub api: rest::Config,
    /// The contact centre, if one is to be watched.
    pub targets: [Option<probes::Target>; 2],
    /// Who may try to register how often.
    pub attempts: Attempts,
    /// WebSockets that one address may have open; 0 for any number.
    pub max_sockets: usize,
    /// SIP status for a call to an agent who is away; none: it rings all the same.
    pub away_reply: Option<u16>,
    /// What becomes of records of calls.
    pub records: Records,
    /// Where the arena lies.
    pub arena_path: PathBuf,
    /// Its size in bytes.
    pub arena_size: u64,
    /// The other nodes, if there are any.
    pub nodes: Option<Nodes>,
    /// Log each message?
    pub log_messages: bool,
}

impl Settings {
    /// Checks what Kamailio read.
    ///
    /// # Errors
    /// [`BadSetting`] names the first parameter that cannot be used and what to write.
    ///
    /// # Safety
    /// The strings in `raw` must be readable for the length of the call.
    pub unsafe fn new(raw: &rtc_json_config_t) -> Result<Self, BadSetting> {
        // SAFETY: the caller's promise, for each string of `raw`
        let read = |value| unsafe { text(value) }.trim().to_owned();
        let mode = read(raw.register_mode);
        let register_mode = match mode.as_str() {
            "upstream" => RegisterMode::Upstream,
            "local" => RegisterMode::Local,
            _ => {
                return Err(BadSetting::Choice {
                    name: "register_mode",
                    value: mode,
                    allowed: "upstream, local",
                })
            }
        };
        let over = read(raw.over_limit);
        let over_limit = match over.as_str() {
            "refuse" => OverLimit::Refuse,
            "replace" => OverLimit::Replace,
            _ => {
                return Err(BadSetting::Choice {
                    name: "over_limit",
                    value: over,
                    allowed: "refuse, replace",
                })
            }
        };
        let contact = read(raw.contact);
        if !valid_host_port(&contact) {
            return Err(BadSetting::Form {
                name: "contact",
                value: contact,
                instead: "host:port of a SIP socket of this Kamailio, as in 192.0.2.10:5060",
            });
        }
        let proxy = read(raw.outbound_proxy);
        let next_hop = match (proxy.is_empty(), register_mode) {
            (true, RegisterMode::Upstream) => {
                return Err(BadSetting::Missing {
                    name: "outbound_proxy",
                    instead: "the SIP URI of the registrar, as in sip:asterisk.example:5060",
                })
            }
            // calls between agents of this Kamailio come back in as SIP
            (true, RegisterMode::Local) => format!("sip:{contact}"),
            (false, _) => proxy.clone(),
        };
        let host = match Uri::parse(&next_hop) {
            Ok(uri) if !uri.host.is_empty() => uri.host.to_owned(),
            _ => {
                return Err(BadSetting::Form {
                    name: "outbound_proxy",
                    value: next_hop,
                    instead: "a SIP URI, as in sip:asterisk.example:5060",
                })
            }
        };
        let domain = match read(raw.domain) {
            domain if domain.is_empty() => host,
            domain => domain,
        };
        if !valid_host_port(&domain) {
            return Err(BadSetting::Form {
                name: "domain",
                value: domain,
                instead: "a host name or address, as in pbx.example",
            });
        }
        let realm = read(raw.realm);
        if realm.is_empty() && register_mode == RegisterMode::Local {
            return Err(BadSetting::Missing {
                name: "realm",
                instead: "the realm for which the ha1 column was computed, as in pbx.example",
            });
        }
        if realm.contains(['"', '\\']) || realm.chars().any(char::is_control) {
            return Err(BadSetting::Form {
                name: "realm",
                value: realm,
                instead: "a text without quotes, backslashes and control characters",
            });
        }
        let mut policy = Policy::parse(&read(raw.codecs))
            .map_err(|error| BadSetting::Codecs(error.to_string()))?;
        policy.require_dtls = raw.require_dtls != 0;
        let dn_extra = read(raw.dn_chars);
        if dn_extra
            .chars()
            .any(|c| !c.is_ascii_graphic() || "<>\"@:;?\\/ ".contains(c))
        {
            return Err(BadSetting::Form {
                name: "dn_chars",
                value: dn_extra,
                instead: "the characters allowed beside letters and digits, as in ._+*#-",
            });
        }
        let arena_path = PathBuf::from(read(raw.arena_path));
        if !arena_path.is_absolute() {
            return Err(BadSetting::Form {
                name: "arena_path",
                value: arena_path.display().to_string(),
                instead: "the path of a file on a tmpfs, as in /dev/shm/rtc_json.arena",
            });
        }
        let arena_size = range("arena_size", raw.arena_size, 1, 1 << 20, "megabytes")?;
        let max_frame = range("max_frame", raw.max_frame.into(), 1024, 1 << 20, "bytes")?;
        let max_calls = range(
            "max_calls_per_agent",
            raw.max_calls_per_agent.into(),
            1,
            64,
            "calls",
        )?;
        let call_rate = range(
            "call_rate",
            raw.call_rate.into(),
            0,
            1000,
            "calls a second; 0 for any number",
        )?;
        let failures = |name, value: i32| {
            range(name, value.into(), 0, 100_000, "failures; 0 for any number")
                .map(|n| u32::try_from(n).unwrap_or_default())
        };
        let attempts = Attempts {
            dn: failures("register_failures", raw.register_failures)?,
            addr: failures("register_failures_address", raw.register_failures_address)?,
        };
        let max_sockets = range(
            "max_sockets_address",
            raw.max_sockets_address.into(),
            0,
            10_000,
            "WebSockets; 0 for any number",
        )?;
        let away_reply = match raw.away_reply {
            0 => None,
            code => {
                let wanted = "a SIP status; 0 to let it ring";
                let code = range("away_reply", code.into(), 400, 699, wanted)?;
                u16::try_from(code).ok()
            }
        };
        let max_sessions = range(
            "max_sessions_per_agent",
            raw.max_sessions_per_agent.into(),
            1,
            64,
            "sessions",
        )?;
        let grace = range("resume_grace", raw.resume_grace.into(), 1, 3600, "seconds")?;
        let expires = range("expires", raw.expires.into(), 30, 86_400, "seconds")?;
        let min_se = range("min_se", raw.min_se.into(), 90, 86_400, "seconds")?;
        let session_expires = raw.session_expires.into();
        if session_expires != 0 {
            range(
                "session_expires",
                session_expires,
                min_se,
                86_400,
                "seconds; 0 for none",
            )?;
        }
        let max_redirects = range(
            "max_redirects",
            raw.max_redirects.into(),
            0,
            20,
            "addresses",
        )?;
        let dtmf_duration = range(
            "dtmf_duration",
            raw.dtmf_duration.into(),
            40,
            10_000,
            "milliseconds",
        )?;
        let dtmf = read(raw.dtmf_mode);
        let dtmf_mode = match dtmf.as_str() {
            "info" => DtmfMode::Info,
            "rfc4733" => DtmfMode::Rfc4733,
            _ => {
                return Err(BadSetting::Choice {
                    name: "dtmf_mode",
                    value: dtmf,
                    allowed: "info, rfc4733",
                })
            }
        };
        let word = read(raw.trickle);
        let trickle = match word.as_str() {
            "off" => Trickle::Off,
            "info" => Trickle::Info,
            "update" => Trickle::Update,
            "auto" => Trickle::Auto,
            _ => {
                return Err(BadSetting::Choice {
                    name: "trickle",
                    value: word,
                    allowed: "off, info, update, auto",
                })
            }
        };
        let conference_prefix = read(raw.conference_prefix);
        if !conference_prefix
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._+*#-".contains(c))
            || conference_prefix.len() > 32
        {
            return Err(BadSetting::Form {
                name: "conference_prefix",
                value: conference_prefix,
                instead: "at most 32 letters, digits or characters of ._+*#-, as in conf-",
            });
        }
        let headers_in = header_list("headers_in", &read(raw.headers_in))?;
        let headers_out = header_list("headers_out", &read(raw.headers_out))?;
        let trusted_peers = trusted(&read(raw.trusted_peers), &next_hop)?;
        let leeway = range("jwt_leeway", raw.jwt_leeway.into(), 0, 300, "seconds")?;
        let rules = Rules {
            issuer: Some(read(raw.jwt_issuer)).filter(|text| !text.is_empty()),
            audience: Some(read(raw.jwt_audience)).filter(|text| !text.is_empty()),
            leeway: u64::try_from(leeway).unwrap_or_default(),
        };
        let tokens = key_file(read(raw.jwt_keys), rules)?;
        let turn_ttl = range("turn_ttl", raw.turn_ttl.into(), 30, 86_400, "seconds")?;
        let ice = ice_servers(&read(raw.turn_uris), &read(raw.turn_secret), turn_ttl)?;
        let api = rest::Config {
            origins: origins(&read(raw.api_origins))?,
        };
        let interval = range(
            "genesys_interval",
            raw.genesys_interval.into(),
            1,
            3600,
            "seconds",
        )?;
        let genesys = target("genesys_uri", read(raw.genesys_uri), interval)?;
        let interval = range(
            "next_hop_interval",
            raw.next_hop_interval.into(),
            0,
            3600,
            "seconds",
        )?;
        // (to ask ourselves would say nothing)
        let asked = Some(proxy).filter(|_| interval != 0).unwrap_or_default();
        let hop = target("outbound_proxy", asked, interval)?;
        let history = range(
            "call_history",
            raw.call_history.into(),
            0,
            1_000_000,
            "calls",
        )?;
        let ring = range("ring_timeout", raw.ring_timeout.into(), 5, 3600, "seconds")?;
        let nodes = nodes(&read(raw.node_secret), &contact)?;
        let unsigned = |n: i64| usize::try_from(n).unwrap_or_default();
        let seconds = |n: i64| u64::try_from(n).unwrap_or_default() * 1000;
        Ok(Settings {
            engine: Config {
                next_hop,
                register_mode,
                tokens: tokens.is_some(),
                contact,
                domain,
                realm,
                server_name: read(raw.server_name),
                ice: ice.clone().map(|source| Ice {
                    // in good time: what is renewed now has to last for calls that begin just before the next time
                    renew: source.secret.as_ref().map_or(0, |_| source.ttl * 1000 / 2),
                    source,
                }),
                policy,
                max_calls: unsigned(max_calls),
                call_rate: u32::try_from(call_rate).unwrap_or_default(),
                max_sessions: unsigned(max_sessions),
                over_limit,
                resume_grace: seconds(grace),
                expires: u32::try_from(expires).unwrap_or_default(),
                ring_timeout: seconds(ring),
                session_expires: u32::try_from(session_expires).unwrap_or_default(),
                min_se: u32::try_from(min_se).unwrap_or_default(),
                max_redirects: unsigned(max_redirects),
                dtmf_mode,
                dtmf_duration: u32::try_from(dtmf_duration).unwrap_or_default(),
                trickle,
                accept_refer: raw.accept_refer != 0,
                conference_prefix,
                headers_in,
                headers_out,
                trusted_peers,
            },
            limits: Limits {
                max_frame: unsigned(max_frame),
                dn_extra,
            },
            tokens,
            ice,
            api,
            targets: [genesys, hop],
            attempts,
            max_sockets: unsigned(max_sockets),
            away_reply,
            records: Records {
                keep: u64::try_from(history).unwrap_or_default(),
                log: raw.log_calls != 0,
                write: raw.write_calls != 0,
                missed_at: AtomicU64::new(0),
                refused_at: AtomicU64::new(0),
                told_at: AtomicU64::new(0),
            },
            arena_path,
            arena_size: u64::try_from(arena_size).unwrap_or_default() << 20,
            nodes,
            log_messages: raw.log_messages != 0,
        })
    }
}

/// Header fields that make a SIP message what it is: nobody may set or see them by a list.
const OWN_HEADERS: [&str; 24] = [
    "via",
    "from",
    "to",
    "call-id",
    "cseq",
    "contact",
    "route",
    "record-route",
    "max-forwards",
    "content-type",
    "content-length",
    "content-disposition",
    "authorization",
    "proxy-authorization",
    "www-authenticate",
    "proxy-authenticate",
    "require",
    "proxy-require",
    "supported",
    "session-expires",
    "min-se",
    "replaces",
    "refer-to",
    "rack",
];

fn header_list(name: &'static str, list: &str) -> Result<HeaderList, BadSetting> {
    let parsed = HeaderList::parse(list);
    let token = |c: char| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c);
    let bad = parsed.names().any(|n| {
        let bare = n.strip_suffix('*').unwrap_or(n);
        bare.is_empty() || bare.contains('*') || !bare.chars().all(token)
    }) || OWN_HEADERS.iter().any(|own| parsed.allows(own));
    if bad {
        return Err(BadSetting::Form {
            name,
            value: list.to_owned(),
            instead: "names of headers that are not SIP's own, as in X-Genesys-*,User-to-User",
        });
    }
    Ok(parsed)
}

fn trusted(list: &str, next_hop: &str) -> Result<Vec<IpNet>, BadSetting> {
    let net = |text: &str| -> Option<IpNet> {
        let text = text.trim_matches(['[', ']']);
        text.parse()
            .ok()
            .or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
    };
    match list {
        "none" => Ok(Vec::new()),
        "" => Ok(Uri::parse(next_hop)
            .ok()
            .and_then(|uri| net(uri.host))
            .into_iter()
            .collect()),
        _ => list
            .split([',', ' ', '\t'])
            .filter(|word| !word.is_empty())
            .map(|word| {
                net(word).ok_or_else(|| BadSetting::Form {
                    name: "trusted_peers",
                    value: list.to_owned(),
                    instead: "addresses or networks, as in 192.0.2.20,198.51.100.0/24, or none",
                })
            })
            .collect(),
    }
}

fn key_file(file: String, rules: Rules) -> Result<Option<Tokens>, BadSetting> {
    if file.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(&file);
    if !path.is_absolute() {
        // Kamailio leaves the folder that it was started in
        return Err(BadSetting::Form {
            name: "jwt_keys",
            value: file,
            instead: "a path from the root, as in /etc/kamailio/jwt-keys.json",
        });
    }
    match Tokens::new(path, rules) {
        Ok(tokens) => Ok(Some(tokens)),
        Err(problem) => Err(BadSetting::Keys { file, problem }),
    }
}

fn ice_servers(uris: &str, secret: &str, ttl: i64) -> Result<Option<Arc<IceServers>>, BadSetting> {
    let mut ice = IceServers {
        stun: Vec::new(),
        turn: Vec::new(),
        secret: None,
        ttl: u64::try_from(ttl).unwrap_or_default(),
    };
    for uri in uris.split([',', ' ', '\t']).filter(|uri| !uri.is_empty()) {
        if !turn::is_uri(uri) {
            return Err(BadSetting::Form {
                name: "turn_uris",
                value: uri.to_owned(),
                instead: "URIs with commas between, as in stun:turn.example:3478,turn:turn.example:3478?transport=udp",
            });
        }
        let list = match uri.starts_with("turn") {
            true => &mut ice.turn,
            false => &mut ice.stun,
        };
        list.push(uri.to_owned());
    }
    if ice.turn.is_empty() != secret.is_empty() {
        return Err(match secret.is_empty() {
            true => BadSetting::Missing {
                name: "turn_secret",
                instead: "the static-auth-secret of the TURN server, or file: and the path of a file with it",
            },
            false => BadSetting::Missing {
                name: "turn_uris",
                instead: "where the TURN server is, as in turn:turn.example:3478?transport=udp",
            },
        });
    }
    if ice.stun.is_empty() && ice.turn.is_empty() {
        return Ok(None);
    }
    ice.secret = match secret.strip_prefix("file:") {
        _ if secret.is_empty() => None,
        Some(file) => Some(match Path::new(file).is_absolute() {
            true => {
                SharedSecret::from_file(file.into()).map_err(|problem| BadSetting::TurnSecret {
                    file: file.to_owned(),
                    problem,
                })?
            }
            false => {
                return Err(BadSetting::Form {
                    name: "turn_secret",
                    value: secret.to_owned(),
                    instead: "a path from the root, as in file:/etc/kamailio/turn-secret",
                })
            }
        }),
        None => match TurnSecret::parse(secret.as_bytes()) {
            Ok(secret) => Some(SharedSecret::Fixed(secret)),
            // not quoted: it is meant as a secret
            Err(problem) => {
                return Err(BadSetting::Secret {
                    name: "turn_secret",
                    problem,
                })
            }
        },
    };
    Ok(Some(Arc::new(ice)))
}

fn nodes(secret: &str, contact: &str) -> Result<Option<Nodes>, BadSetting> {
    if secret.is_empty() {
        return Ok(None);
    }
    let text = match secret.strip_prefix("file:") {
        None => secret.to_owned(),
        Some(file) => std::fs::read_to_string(file).map_err(|_| BadSetting::Form {
            name: "node_secret",
            value: format!("file:{file}"),
            instead: "file: and the path of a file that Kamailio can read, with the secret alone",
        })?,
    };
    // the same rules as for the other shared secret; not quoted, for it is meant as one
    match TurnSecret::parse(text.as_bytes()) {
        Ok(_) => Ok(Some(Nodes::new(text.trim_end().as_bytes(), contact))),
        Err(problem) => Err(BadSetting::Secret {
            name: "node_secret",
            problem,
        }),
    }
}

fn origins(list: &str) -> Result<Vec<String>, BadSetting> {
    let is_origin = |text: &str| {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        host.is_some_and(valid_host_port) && !text.bytes().any(|b| b.is_ascii_uppercase())
    };
    list.split([',', ' ', '\t'])
        .filter(|word| !word.is_empty())
        .map(|word| match is_origin(word) {
            true => Ok(word.to_owned()),
            // "*" is refused, too: the API answers to whoever holds a token, and pages can be tricked out of theirs
            false => Err(BadSetting::Form {
                name: "api_origins",
                value: word.to_owned(),
                instead: "origins as browsers send them, as in https://desk.example,https://desk.example:8443",
            }),
        })
        .collect()
}

fn target(
    name: &'static str,
    uri: String,
    interval: i64,
) -> Result<Option<probes::Target>, BadSetting> {
    if uri.is_empty() {
        return Ok(None);
    }
    let server = match Uri::parse(&uri) {
        Ok(parsed) if !parsed.host.is_empty() && !uri.contains(['<', '>', '"', ' ']) => {
            match parsed.port {
                Some(port) => format!("{}:{port}", parsed.host),
                None => parsed.host.to_owned(),
            }
        }
        _ => {
            return Err(BadSetting::Form {
                name,
                value: uri,
                instead: "a SIP URI, as in sip:pbx.example:5060",
            })
        }
    };
    Ok(Some(probes::Target {
        uri,
        server,
        interval: u64::try_from(interval).unwrap_or_default() * 1000,
    }))
}

fn range(
    name: &'static str,
    value: i64,
    low: i64,
    high: i64,
    unit: &'static str,
) -> Result<i64, BadSetting> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(BadSetting::Range {
        name,
        value,
        low,
        high,
        unit,
    })
}
