//! A key file: a JWKS (RFC 7517), or a single public key in PEM.

use std::ops::RangeInclusive;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::VerifyingKey;
use jsonwebtoken::{Algorithm, DecodingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPublicKey};
use serde::de::IgnoredAny;
use serde::Deserialize;

use super::{Error, KeyError, KeyProblem};

/// Shortest secret in bytes (RFC 7518 section 3.2: as long as the hash).
pub(super) const MIN_SECRET: usize = 32;
/// Bits of an RSA key: below is weak, above the library does not go.
pub(super) const RSA_BITS: RangeInclusive<usize> = 2048..=RsaPublicKey::MAX_SIZE;

/// The keys of a file. `Debug` shows no more of them than their names.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

/// One key, good for one algorithm.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
}

impl Keys {
    /// Reads a key file.
    ///
    /// In a JWKS `alg` may be absent: each kind of key has one algorithm here. Keys for encryption (`use`, `key_ops`) are passed
    /// over; any other one has to be usable.
    ///
    /// # Errors
    /// [`KeyError`] names the first key that cannot be used, by its number.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(file)
            .map_err(|_| KeyError::Form)?
            .trim();
        if text.starts_with('{') {
            return read_set(text).map(Keys);
        }
        match text.matches(PEM_BEGIN).count() {
            0 => Err(KeyError::Form),
            1 => read_pem(text).map(|key| Keys(vec![key])),
            _ => Err(KeyError::Blocks),
        }
    }

    /// How many there are: one at least.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key that a token with such a header has to be signed with.
    pub(super) fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, Error> {
        let key = match (self.0.as_slice(), kid) {
            // nothing to choose from: a key without a name, as in PEM, stands for any
            ([only], _) if only.kid.is_none() => only,
            (all, Some(kid)) => all
                .iter()
                .find(|key| key.kid.as_deref() == Some(kid))
                .ok_or(Error::NoKey)?,
            (all, None) => {
                let mut fitting = all.iter().filter(|key| key.algorithm == algorithm);
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => key,
                    (None, _) => return Err(Error::NoKey),
                    (Some(_), Some(_)) => return Err(Error::WhichKey),
                }
            }
        };
        if key.algorithm == algorithm {
            Ok(key)
        } else {
            Err(Error::Algorithm)
        }
    }
}

// ---- JWKS

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// Members of RFC 7517 section 4 and RFC 7518 section 6.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    // these are private, all of them
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    dp: Option<IgnoredAny>,
    dq: Option<IgnoredAny>,
    qi: Option<IgnoredAny>,
    oth: Option<IgnoredAny>,
}

fn read_set(text: &str) -> Result<Vec<Key>, KeyError> {
    // the library's own text would quote what stands there, a secret perhaps
    let set: Set = serde_json::from_str(text).map_err(|error| KeyError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    let mut keys: Vec<Key> = Vec::new();
    for (index, jwk) in set.keys.into_iter().enumerate() {
        let fail = |problem| KeyError::Key {
            number: index + 1,
            problem,
        };
        if !jwk.for_signatures() {
            continue;
        }
        let key = jwk.read().map_err(fail)?;
        if key.kid.is_some() && keys.iter().any(|known| known.kid == key.kid) {
            return Err(fail(KeyProblem::SameKid));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(KeyError::Empty);
    }
    Ok(keys)
}

impl Jwk {
    fn for_signatures(&self) -> bool {
        let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
        self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(verifies)
    }

    fn private(&self) -> bool {
        let parts = [
            &self.d, &self.p, &self.q, &self.dp, &self.dq, &self.qi, &self.oth,
        ];
        parts.iter().any(|part| part.is_some())
    }

    fn read(self) -> Result<Key, KeyProblem> {
        if self.private() {
            return Err(KeyProblem::Private);
        }
        let (algorithm, decoding) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => (Algorithm::HS256, secret(&member("k", &self.k)?)?),
            ("RSA", _) => {
                let n = BigUint::from_bytes_be(&member("n", &self.n)?);
                let e = BigUint::from_bytes_be(&member("e", &self.e)?);
                (Algorithm::RS256, rsa_key(n, e)?)
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (member("x", &self.x)?, member("y", &self.y)?);
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let key = p256::PublicKey::from_sec1_bytes(&point)
                    .ok()
                    .filter(|_| x.len() == 32)
                    .ok_or(KeyProblem::Member("x or y"))?;
                (Algorithm::ES256, ec_key(&key))
            }
            ("OKP", Some("Ed25519")) => {
                let x = member("x", &self.x)?;
                let key = VerifyingKey::try_from(x.as_slice())
                    .ok()
                    .and_then(|key| ed_key(&key))
                    .ok_or(KeyProblem::Member("x"))?;
                (Algorithm::EdDSA, key)
            }
            _ => return Err(KeyProblem::Kind),
        };
        let fits = |alg: &str| alg.parse() == Ok(algorithm);
        if !self.alg.as_deref().is_none_or(fits) {
            return Err(KeyProblem::Algorithm);
        }
        Ok(Key {
            kid: self.kid,
            algorithm,
            decoding,
        })
    }
}

fn member(name: &'static str, value: &Option<String>) -> Result<Vec<u8>, KeyProblem> {
    value
        .as_deref()
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .filter(|bytes| !bytes.is_empty())
        .ok_or(KeyProblem::Member(name))
}

// ---- PEM

const PEM_BEGIN: &str = "-----BEGIN ";

fn read_pem(text: &str) -> Result<Key, KeyError> {
    let fail = |problem| KeyError::Key { number: 1, problem };
    let label = text
        .split_once(PEM_BEGIN)
        .and_then(|(_, rest)| rest.split_once("-----"))
        .map_or("", |(label, _)| label);
    if label.ends_with("PRIVATE KEY") {
        return Err(fail(KeyProblem::Private));
    }
    if label.ends_with("CERTIFICATE") {
        return Err(KeyError::Certificate);
    }
    let rsa = RsaPublicKey::from_public_key_pem(text)
        .or_else(|_| RsaPublicKey::from_pkcs1_pem(text).map_err(|_| ()));
    let (algorithm, decoding) = if let Ok(key) = rsa {
        let key = rsa_key(key.n().clone(), key.e().clone()).map_err(fail)?;
        (Algorithm::RS256, key)
    } else if let Ok(key) = p256::PublicKey::from_public_key_pem(text) {
        (Algorithm::ES256, ec_key(&key))
    } else {
        let key = VerifyingKey::from_public_key_pem(text)
            .ok()
            .and_then(|key| ed_key(&key))
            .ok_or(fail(KeyProblem::Pem))?;
        (Algorithm::EdDSA, key)
    };
    Ok(Key {
        kid: None,
        algorithm,
        decoding,
    })
}

// ---- what both have; the library itself looks at a key only when it checks a signature

fn secret(bytes: &[u8]) -> Result<DecodingKey, KeyProblem> {
    if bytes.len() < MIN_SECRET {
        return Err(KeyProblem::ShortSecret);
    }
    Ok(DecodingKey::from_secret(bytes))
}

fn rsa_key(n: BigUint, e: BigUint) -> Result<DecodingKey, KeyProblem> {
    if !RSA_BITS.contains(&n.bits()) {
        return Err(KeyProblem::RsaBits(n.bits()));
    }
    let (modulus, exponent) = (n.to_bytes_be(), e.to_bytes_be());
    RsaPublicKey::new(n, e).map_err(|_| KeyProblem::Member("n or e"))?;
    Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
}

fn ec_key(key: &p256::PublicKey) -> DecodingKey {
    DecodingKey::from_ec_der(key.to_encoded_point(false).as_bytes())
}

/// None for a key of small order, under which one signature fits many texts.
fn ed_key(key: &VerifyingKey) -> Option<DecodingKey> {
    (!key.is_weak()).then(|| DecodingKey::from_ed_der(key.as_bytes()))
}
