//! Credentials for a TURN server that last for a while: the convention that coturn takes with `use-auth-secret`
//! (draft-uberti-behave-turn-rest-00). The TURN server checks them by itself, with the same secret.

use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Shortest secret in bytes: what is shorter can be guessed from a single credential.
pub const MIN_SECRET: usize = 16;
/// Longest secret in bytes.
pub const MAX_SECRET: usize = 512;

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a secret of {MIN_SECRET} to {MAX_SECRET} printable characters without blanks")]
pub struct BadSecret;

/// The secret that a TURN server shares with us. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret(String);

/// User name and password for a TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredentials {
    /// Until when they are good, and for whom.
    pub username: String,
    /// The proof.
    pub password: String,
}

impl TurnSecret {
    /// Takes a secret as it stands in a parameter or a file; a line end behind it is none of it.
    ///
    /// # Errors
    /// [`BadSecret`] when it is too short, too long or not a word.
    pub fn parse(text: &[u8]) -> Result<Self, BadSecret> {
        let text = std::str::from_utf8(text).map_err(|_| BadSecret)?.trim_end();
        let word = text.bytes().all(|b| b.is_ascii_graphic());
        if word && (MIN_SECRET..=MAX_SECRET).contains(&text.len()) {
            Ok(TurnSecret(text.to_owned()))
        } else {
            Err(BadSecret)
        }
    }

    /// Credentials for a DN, good until a Unix time in seconds.
    pub fn credentials(&self, dn: &str, until: u64) -> TurnCredentials {
        let username = format!("{until}:{dn}");
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(self.0.as_bytes()) else {
            unreachable!("HMAC takes keys of any length");
        };
        mac.update(username.as_bytes());
        TurnCredentials {
            password: STANDARD.encode(mac.finalize().into_bytes()),
            username,
        }
    }
}

impl fmt::Debug for TurnSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnSecret")
    }
}

impl fmt::Debug for TurnCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnCredentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// `stun:`, `stuns:`, `turn:` or `turns:` with host, port and transport (RFC 7064, RFC 7065)?
pub fn is_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let (host_port, query) = match rest.split_once('?') {
        Some((host_port, query)) => (host_port, Some(query)),
        None => (rest, None),
    };
    let transport = match (scheme, query) {
        ("stun" | "stuns", query) => query.is_none(),
        ("turn" | "turns", query) => {
            matches!(query, None | Some("transport=udp" | "transport=tcp"))
        }
        _ => false,
    };
    transport && is_host_port(host_port)
}

fn is_host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    !host.is_empty() && host.chars().all(name) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by OpenSSL: printf 1700000600:5001 | openssl dgst -sha1 -hmac north-of-the-river -binary | base64
    #[test]
    fn credentials_are_those_of_the_convention() {
        let secret = TurnSecret::parse(b"north-of-the-river\n").unwrap();
        let made = secret.credentials("5001", 1_700_000_600);
        assert_eq!(made.username, "1700000600:5001");
        assert_eq!(made.password, "7disWMdSeV1FvgGg4cazv/pBJ3A=");
        assert!(!format!("{made:?}{secret:?}").contains("north"));
        assert!(!format!("{made:?}").contains(&made.password));
    }

    #[test]
    fn what_is_no_secret() {
        let long = "x".repeat(MAX_SECRET + 1);
        for bad in [
            "",
            "too-short",
            "with a blank in it, long",
            &long,
            "pässwörd-of-sixteen",
        ] {
            assert_eq!(TurnSecret::parse(bad.as_bytes()), Err(BadSecret), "{bad}");
        }
        assert_eq!(
            TurnSecret::parse(b"\xff\xffxxxxxxxxxxxxxxxxxx"),
            Err(BadSecret)
        );
    }

    #[test]
    fn uris() {
        for good in [
            "stun:stun.example",
            "turn:192.0.2.1:3478",
            "turn:turn.example?transport=tcp",
            "turns:turn.example:5349?transport=tcp",
            "turn:[2001:db8::1]:3478?transport=udp",
            "stun:[2001:db8::1]",
        ] {
            assert!(is_uri(good), "{good}");
        }
        for bad in [
            "",
            "turn",
            "turn:",
            "http://turn.example",
            "turn:turn.example:0",
            "turn:turn.example:x",
            "turn:turn.example?transport=sctp",
            "stun:stun.example?transport=udp",
            "turn:user@turn.example",
            "turn:[2001:db8::1",
            "turn:a b",
        ] {
            assert!(!is_uri(bad), "{bad}");
        }
    }
}
