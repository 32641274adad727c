//! Why a token or a key file is refused. No text here quotes anything of either.

use super::keys::{MIN_SECRET, RSA_BITS};
use super::MAX_LEN;

/// Why a token is refused: SIP 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is longer than [`MAX_LEN`].
    #[error("the token is longer than {MAX_LEN} bytes")]
    TooLong,
    /// It is not a JWT of a known form: three parts of base64url, two of them JSON objects whose members have kinds that are
    /// possible, with an algorithm that somebody knows (`none` is not one).
    #[error("the token is not a jwt of a known form")]
    Malformed,
    /// Its header lists extensions that must be understood (`crit`, RFC 7515 section 4.1.11).
    #[error("the token demands an extension that is not known here")]
    Extension,
    /// No key has its `kid`; or it has none, and no key is for its algorithm.
    #[error("no key here fits the token")]
    NoKey,
    /// It has no `kid`, and several keys are for its algorithm.
    #[error("the token does not say which of the keys it is signed with")]
    WhichKey,
    /// Its key is for another algorithm.
    #[error("the token's algorithm is not that of its key")]
    Algorithm,
    /// It was not signed with that key, or changed afterwards.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing or of the wrong kind.
    #[error("the token's {name} must be {expected}")]
    Claim {
        /// Which one.
        name: &'static str,
        /// What has to stand there.
        expected: &'static str,
    },
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// `iss` is another one.
    #[error("the token is from another issuer")]
    Issuer,
    /// `aud` does not name us.
    #[error("the token is for another audience")]
    Audience,
}

/// Why a key file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is neither of the two forms.
    #[error("neither a jwks ({{\"keys\": [...]}}) nor a public key in pem")]
    Form,
    /// It begins like a JWKS.
    #[error("line {line}, column {column}: not a jwks ({{\"keys\": [...]}}, RFC 7517)")]
    Json {
        /// Where, from 1.
        line: usize,
        /// Where, from 1.
        column: usize,
    },
    /// There is no key in it that could check a signature.
    #[error("no key for signatures in it")]
    Empty,
    /// Several blocks of PEM.
    #[error("more than one pem block: several keys go into a jwks")]
    Blocks,
    /// A certificate in PEM.
    #[error(
        "a certificate: write its public key, as openssl x509 -in FILE -pubkey -noout gives it"
    )]
    Certificate,
    /// Something is wrong with a key.
    #[error("key {number}: {problem}")]
    Key {
        /// Which one, from 1.
        number: usize,
        /// What.
        problem: KeyProblem,
    },
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// It could sign, and need not be here for that.
    #[error("a private key; write only the public half (of a jwk n and e, x and y, or x)")]
    Private,
    /// Another kind of key.
    #[error("not a key that is known here; use oct, RSA, EC with P-256 or OKP with Ed25519")]
    Kind,
    /// Its `alg` is not the one for its kind.
    #[error("alg must be HS256 for oct, RS256 for RSA, ES256 for EC and EdDSA for OKP")]
    Algorithm,
    /// A member is missing, is not base64url or does not make a key.
    #[error("{0} is missing or cannot be used")]
    Member(&'static str),
    /// PEM that does not hold what it says.
    #[error(
        "the pem block is not a public key of RSA (2048 to 4096 bits), EC with P-256 or Ed25519"
    )]
    Pem,
    /// A secret that can be guessed.
    #[error("k is shorter than {MIN_SECRET} bytes")]
    ShortSecret,
    /// An RSA key that is too weak, or too long to be checked.
    #[error("an RSA key of {0} bits; it must have {low} to {high}", low = RSA_BITS.start(), high = RSA_BITS.end())]
    RsaBits(usize),
    /// Another key has the same `kid`.
    #[error("its kid is that of an earlier key")]
    SameKid,
}
