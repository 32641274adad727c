//! Digest authentication as SIP has it (RFC 2617, RFC 7616, RFC 8760).

use std::fmt;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::message::{is_token, split_list, unquote};
use crate::Error;

/// A hash algorithm; the later, the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// MD5.
    Md5,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// The name in `algorithm=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    /// Reads a name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        [Algorithm::Md5, Algorithm::Sha256]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    fn hash(self, parts: &[&str]) -> String {
        fn joined<D: Digest>(parts: &[&str]) -> String {
            let mut digest = D::new();
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    digest.update(b":");
                }
                digest.update(part.as_bytes());
            }
            digest
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        }
        match self {
            Algorithm::Md5 => joined::<Md5>(parts),
            Algorithm::Sha256 => joined::<Sha256>(parts),
        }
    }
}

/// A challenge that can be answered: a known algorithm, and quality of protection `auth` or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Realm, as it stands between the quotes.
    pub realm: String,
    /// Nonce, as it stands between the quotes.
    pub nonce: String,
    /// To be sent back as it is.
    pub opaque: Option<String>,
    /// MD5 when the challenge names none (RFC 7616 section 3.3).
    pub algorithm: Algorithm,
    /// The challenge names its algorithm.
    pub algorithm_named: bool,
    /// `qop=auth` is offered.
    pub qop_auth: bool,
    /// Only the nonce is too old; the credentials may be good.
    pub stale: bool,
}

impl Challenge {
    /// Reads the value of one `WWW-Authenticate` or `Proxy-Authenticate` header field. The first of two parameters with the
    /// same name counts.
    ///
    /// # Errors
    /// [`Error::Challenge`] for what is no digest challenge or has no realm or nonce, [`Error::Unsupported`] for another
    /// algorithm (`MD5-sess`, …) or when only another `qop` (`auth-int`) is offered.
    pub fn parse(value: &str) -> Result<Self, Error> {
        if value.contains(char::is_control) {
            return Err(Error::Control);
        }
        let (scheme, rest) = value.trim().split_once(' ').ok_or(Error::Challenge)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(Error::Challenge);
        }
        let mut params = Vec::new();
        for param in split_list(rest) {
            let (name, value) = param.split_once('=').ok_or(Error::Challenge)?;
            let value = unquote(value.trim()).ok_or(Error::Challenge)?;
            params.push((name.trim(), value));
        }
        let find = |wanted: &str| {
            params
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| *value)
        };
        let algorithm = find("algorithm");
        let qop = find("qop").filter(|qop| !qop.trim().is_empty());
        let qop_auth = qop.is_some_and(|qop| {
            qop.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case("auth"))
        });
        let challenge = Challenge {
            realm: find("realm").ok_or(Error::Challenge)?.to_owned(),
            nonce: find("nonce").ok_or(Error::Challenge)?.to_owned(),
            opaque: find("opaque").map(str::to_owned),
            algorithm: match algorithm {
                None => Algorithm::Md5,
                Some(name) => Algorithm::parse(name).ok_or(Error::Unsupported)?,
            },
            algorithm_named: algorithm.is_some(),
            qop_auth,
            stale: find("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        };
        if qop.is_some() && !qop_auth {
            return Err(Error::Unsupported);
        }
        Ok(challenge)
    }
}

/// The challenge to answer: the strongest, and of two that are equally strong the first. (RFC 8760 section 2.4 has the
/// topmost one, in the server's order of preference, unless the client has a policy of its own; this is it.)
pub fn choose(challenges: &[Challenge]) -> Option<&Challenge> {
    challenges.iter().reduce(|best, next| {
        if next.algorithm > best.algorithm {
            next
        } else {
            best
        }
    })
}

/// What is kept of a password: its hashes with user and realm (HA1, RFC 7616 section 3.4.2), in hex. As good as the password
/// itself within its realm, so `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ha1 {
    realm: String,
    md5: String,
    sha256: String,
}

impl Ha1 {
    /// Keeps the hashes of [`ha1`] for that realm. An empty one stands for: not known.
    pub fn new(realm: &str, md5: &str, sha256: &str) -> Self {
        Ha1 {
            realm: realm.to_owned(),
            md5: md5.to_ascii_lowercase(),
            sha256: sha256.to_ascii_lowercase(),
        }
    }

    /// The realm that it is for.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Nothing kept.
    pub fn is_empty(&self) -> bool {
        self.md5.is_empty() && self.sha256.is_empty()
    }

    /// The hash for an algorithm, in hex.
    pub fn get(&self, algorithm: Algorithm) -> Option<&str> {
        let value = match algorithm {
            Algorithm::Md5 => &self.md5,
            Algorithm::Sha256 => &self.sha256,
        };
        (!value.is_empty()).then_some(value)
    }

    /// Does it serve to answer that challenge?
    pub fn answers(&self, challenge: &Challenge) -> bool {
        self.realm == challenge.realm && self.get(challenge.algorithm).is_some()
    }

    /// [`matches`](Self::matches) for a user that the table may not have: as much work for one that it has not.
    pub fn is_known(&self, expected: Option<&str>) -> bool {
        let right = self.matches(expected.unwrap_or("00000000000000000000000000000000"));
        right & expected.is_some()
    }

    /// Is this hex text, as a user table has it, one of the hashes? Takes the same time wherever they differ.
    pub fn matches(&self, expected: &str) -> bool {
        let expected = expected.trim().to_ascii_lowercase();
        let md5 = same_secret(&self.md5, &expected);
        let sha256 = same_secret(&self.sha256, &expected);
        !expected.is_empty() && (md5 | sha256)
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ha1(realm {:?}, ..)", self.realm)
    }
}

/// Are two texts equal? Takes the same time wherever they differ.
pub fn same_secret(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// HA1 in hex: the hash of `user:realm:password`.
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[user, realm, password])
}

/// The digest response in hex (RFC 7616 section 3.4.1).
///
/// `qop_auth`: nonce count as eight hex digits, and the client's nonce, where `qop=auth` is used.
pub fn response(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    qop_auth: Option<(&str, &str)>,
    method: &str,
    uri: &str,
) -> String {
    let ha2 = algorithm.hash(&[method, uri]);
    match qop_auth {
        Some((count, cnonce)) => algorithm.hash(&[ha1, nonce, count, cnonce, "auth", &ha2]),
        None => algorithm.hash(&[ha1, nonce, &ha2]),
    }
}

/// The value of an `Authorization` or `Proxy-Authorization` header field that answers a challenge.
///
/// `None` when there is no HA1 for its realm and algorithm, and when user, URI, method or client nonce hold something that
/// cannot stand in a header field (control characters, quotes, backslashes).
pub fn authorization(
    challenge: &Challenge,
    user: &str,
    ha1: &Ha1,
    method: &str,
    uri: &str,
    cnonce: &str,
    nonce_count: u32,
) -> Option<String> {
    if !ha1.answers(challenge)
        || !is_token(method)
        || ![user, uri, cnonce].into_iter().all(quotable)
    {
        return None;
    }
    let secret = ha1.get(challenge.algorithm)?;
    let count = format!("{nonce_count:08x}");
    let qop_auth = challenge.qop_auth.then_some((count.as_str(), cnonce));
    let response = response(
        challenge.algorithm,
        secret,
        &challenge.nonce,
        qop_auth,
        method,
        uri,
    );
    credentials(challenge, user, uri, &response, qop_auth)
}

/// The value of an `Authorization` or `Proxy-Authorization` header field with a response that somebody else has computed.
///
/// `qop_auth`: nonce count and client nonce of a response with `qop=auth`. `None` when something cannot stand in a header
/// field: the response and the nonce count are hex digits, the others hold no control characters, quotes and backslashes.
pub fn credentials(
    challenge: &Challenge,
    user: &str,
    uri: &str,
    response: &str,
    qop_auth: Option<(&str, &str)>,
) -> Option<String> {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (count, cnonce) = qop_auth.unwrap_or_default();
    if ![user, uri, cnonce].into_iter().all(quotable) || !hex(response) || !hex(count) {
        return None;
    }
    let mut value = format!(
        "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{response}\"",
        challenge.realm, challenge.nonce
    );
    if challenge.algorithm_named {
        value.push_str(", algorithm=");
        value.push_str(challenge.algorithm.as_str());
    }
    if qop_auth.is_some() {
        value.push_str(&format!(", qop=auth, nc={count}, cnonce=\"{cnonce}\""));
    }
    if let Some(opaque) = &challenge.opaque {
        value.push_str(&format!(", opaque=\"{opaque}\""));
    }
    Some(value)
}

/// Can the text stand between quotes as it is?
fn quotable(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(user: &str, realm: &str, password: &str) -> Ha1 {
        Ha1::new(
            realm,
            &ha1(Algorithm::Md5, user, realm, password),
            &ha1(Algorithm::Sha256, user, realm, password),
        )
    }

    /// RFC 2617 section 3.5
    #[test]
    fn the_example_of_rfc_2617() {
        let challenge = Challenge::parse(
            r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#,
        )
        .unwrap();
        let ha1 = both("Mufasa", "testrealm@host.com", "Circle Of Life");
        assert_eq!(
            ha1.get(Algorithm::Md5),
            Some("939e7578ed9e3c518a452acee763bce9")
        );
        assert_eq!(
            authorization(
                &challenge,
                "Mufasa",
                &ha1,
                "GET",
                "/dir/index.html",
                "0a4f113b",
                1
            )
            .unwrap(),
            "Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
             nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", uri=\"/dir/index.html\", \
             response=\"6629fae49393a05397450978507c4ef1\", qop=auth, nc=00000001, \
             cnonce=\"0a4f113b\", opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""
        );
    }

    /// RFC 7616 section 3.9.1
    #[test]
    fn the_examples_of_rfc_7616() {
        let values = [
            r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
            r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#,
        ];
        let challenges = values.map(|value| Challenge::parse(value).unwrap());
        assert_eq!(choose(&challenges), Some(&challenges[1]));
        let ha1 = both("Mufasa", "http-auth@example.org", "Circle of Life");
        for (challenge, response, algorithm) in [
            (&challenges[0], "8ca523f5e9506fed4657c9700eebdbec", "MD5"),
            (
                &challenges[1],
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
                "SHA-256",
            ),
        ] {
            let value = authorization(
                challenge,
                "Mufasa",
                &ha1,
                "GET",
                "/dir/index.html",
                "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
                1,
            )
            .unwrap();
            assert!(
                value.contains(&format!("response=\"{response}\"")),
                "{value}"
            );
            assert!(
                value.contains(&format!(", algorithm={algorithm},")),
                "{value}"
            );
        }
    }

    /// RFC 8760 has no worked example; its order of challenges (section 2.3) with SHA-512-256 first, which is unknown here.
    #[test]
    fn unknown_algorithms_are_passed_over() {
        let values = [
            r#"Digest realm="r", nonce="1", algorithm=SHA-512-256, qop="auth""#,
            r#"Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth""#,
            r#"Digest realm="r", nonce="3", algorithm=MD5, qop="auth""#,
            r#"Digest realm="r", nonce="4", algorithm=MD5-sess, qop="auth""#,
            r#"Digest realm="r", nonce="5", algorithm=SHA-256, qop="auth-int""#,
            r#"Digest realm="r", nonce="6", algorithm=sha-256, qop="auth""#,
        ];
        let parsed = values.map(Challenge::parse);
        for unknown in [0, 3, 4] {
            assert_eq!(parsed[unknown], Err(Error::Unsupported));
        }
        let known: Vec<Challenge> = parsed.into_iter().flatten().collect();
        assert_eq!(choose(&known).unwrap().nonce, "2");
        assert_eq!(choose(&known[1..2]).unwrap().nonce, "3");
        assert_eq!(choose(&[]), None);
    }

    /// RFC 2069 as it lives on: no qop, no algorithm. Checked against `md5sum`.
    #[test]
    fn a_challenge_without_qop() {
        let challenge =
            Challenge::parse("digest realm=\"asterisk\",nonce=\"abc\" , stale=TRUE").unwrap();
        assert!(challenge.stale && !challenge.qop_auth && !challenge.algorithm_named);
        let ha1 = both("1001", "asterisk", "secret");
        assert_eq!(
            ha1.get(Algorithm::Md5),
            Some("f1243e5710353a976f53f30734dcab69")
        );
        assert_eq!(
            authorization(&challenge, "1001", &ha1, "REGISTER", "sip:pbx", "ignored", 7).unwrap(),
            "Digest username=\"1001\", realm=\"asterisk\", nonce=\"abc\", uri=\"sip:pbx\", \
             response=\"d891e49ff4c2dc0281064b4861ae06c3\""
        );
    }

    #[test]
    fn what_is_no_challenge_is_refused() {
        for value in [
            "",
            "Digest",
            "Basic realm=\"x\"",
            "Digest realm=\"x\"",
            "Digest nonce=\"x\"",
            "Digest realm=\"x, nonce=\"y\"",
            "Digest realm=\"x\", nonce=\"y\" z",
            "Digest realm=\"x\", nonce=\"y\\\"",
            "Digest realm=\"x\", nonce=y z",
            "Digest realm=\"x\", nonce",
        ] {
            assert_eq!(Challenge::parse(value), Err(Error::Challenge), "{value}");
        }
        assert_eq!(
            Challenge::parse("Digest realm=\"x\r\nY: z\", nonce=\"y\""),
            Err(Error::Control)
        );
    }

    #[test]
    fn quoted_texts_go_back_as_they_came() {
        let challenge = Challenge::parse(r#"Digest realm="a \"b\", c", nonce="n,=\\""#).unwrap();
        assert_eq!(challenge.realm, r#"a \"b\", c"#);
        let ha1 = both("u", &challenge.realm, "p");
        let value = authorization(&challenge, "u", &ha1, "INVITE", "sip:x", "c", 1).unwrap();
        assert!(
            value.contains(r#"realm="a \"b\", c", nonce="n,=\\""#),
            "{value}"
        );
    }

    #[test]
    fn what_would_break_out_gets_no_answer() {
        let challenge = Challenge::parse("Digest realm=\"r\", nonce=\"n\"").unwrap();
        let ha1 = both("u", "r", "p");
        let answer = |user, method, uri, cnonce| {
            authorization(&challenge, user, &ha1, method, uri, cnonce, 1)
        };
        assert!(answer("u", "BYE", "sip:x", "c").is_some());
        for bad in ["a\r\nX: y", "a\"b", "a\\", "\0"] {
            assert_eq!(answer(bad, "BYE", "sip:x", "c"), None);
            assert_eq!(answer("u", bad, "sip:x", "c"), None);
            assert_eq!(answer("u", "BYE", bad, "c"), None);
            assert_eq!(answer("u", "BYE", "sip:x", bad), None);
        }
        let given = |response, count| {
            credentials(&challenge, "u", "sip:x", response, Some((count, "c"))).is_some()
        };
        assert!(given("0a", "00000001"));
        assert!(
            !given("0a\", x=\"", "00000001") && !given("0a", "1, x=y") && !given("0a\r\n", "1")
        );
        let other = both("u", "elsewhere", "p");
        assert_eq!(
            authorization(&challenge, "u", &other, "BYE", "sip:x", "c", 1),
            None
        );
        let md5_unknown = Ha1::new("r", "", "00");
        assert_eq!(
            authorization(&challenge, "u", &md5_unknown, "BYE", "sip:x", "c", 1),
            None
        );
    }

    #[test]
    fn a_user_tables_hash_is_compared() {
        let ha1 = both("u", "r", "p");
        let md5 = ha1.get(Algorithm::Md5).unwrap();
        let sha256 = ha1.get(Algorithm::Sha256).unwrap();
        assert!(ha1.matches(md5) && ha1.matches(sha256));
        assert!(ha1.matches(&format!(" {} ", md5.to_uppercase())));
        assert!(!ha1.matches(""));
        assert!(!ha1.matches(&md5[1..]));
        assert!(!ha1.matches(&both("u", "r", "q").md5));
        assert!(!Ha1::default().matches(""));
        assert!(Ha1::default().is_empty() && !ha1.is_empty());
        assert!(!format!("{ha1:?}").contains(md5));
    }
}
