//! Bearer tokens: signed JWTs (RFC 7519) in the compact form of RFC 7515.
//!
//! 1. [`Keys::parse`] takes the text of a key file, whenever it has changed.
//! 2. [`verify`] checks a token with these keys under some [`Rules`] and gives its [`Claims`].
//!
//! Signatures and the token's form are the business of `jsonwebtoken`, with RustCrypto below it. What it leaves to the caller
//! is done here: a key has one algorithm, whatever the token says, and times are numbers compared with the time given.

mod claims;
mod error;
mod keys;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{decode, decode_header, Algorithm, Validation};

pub use claims::{Claims, Rules};
pub use error::{Error, KeyError, KeyProblem};
pub use keys::Keys;

use claims::Written;

/// Longest token in bytes.
pub const MAX_LEN: usize = 8192;

/// Checks a token. `now`: Unix time in seconds.
///
/// Whether `sub` is a number that may be registered here, and what the scopes allow, the caller has to find out.
///
/// # Errors
/// [`Error`] says why it is refused, in words that hold nothing of the token.
pub fn verify(token: &str, keys: &Keys, rules: &Rules, now: u64) -> Result<Claims, Error> {
    if token.len() > MAX_LEN {
        return Err(Error::TooLong);
    }
    // "none", in whatever spelling, is no algorithm of the library's: such a header does not parse
    let header = decode_header(token).map_err(|_| Error::Malformed)?;
    if header.crit.is_some() {
        return Err(Error::Extension);
    }
    let key = keys.choose(header.kid.as_deref(), header.alg)?;
    let written = decode::<Written>(token, &key.decoding, &signature_only(key.algorithm)).map_err(
        |error| match error.kind() {
            ErrorKind::InvalidSignature => Error::Signature,
            _ => Error::Malformed,
        },
    )?;
    written.claims.check(rules, now)
}

/// Leaves the claims to us: the library would ask the machine's clock, and lets claims pass that it cannot read.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}
