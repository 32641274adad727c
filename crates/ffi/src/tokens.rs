//! Tokens in place of passwords: the key file, and the verdict on a token.

use std::path::PathBuf;

use rtc_json_api::access::{allow, Action};
use rtc_json_api::token::{verify, Claims, KeyError, Keys, Rules};
use rtc_json_protocol::{Limits, Secret};

use crate::watched::{BadFile, Watched};

/// Why a key file cannot be used.
pub type BadKeys = BadFile<KeyError>;

/// Checks tokens.
pub struct Tokens {
    /// The key file.
    pub keys: Watched<Keys, KeyError>,
    rules: Rules,
}

impl Tokens {
    /// Reads the key file.
    ///
    /// # Errors
    /// [`BadKeys`] says what is wrong with it.
    pub fn new(file: PathBuf, rules: Rules) -> Result<Self, BadKeys> {
        let keys = Watched::new(file, Keys::parse)?;
        Ok(Tokens { keys, rules })
    }

    /// What a token says, or why it is refused; `unix_now` in milliseconds.
    ///
    /// # Errors
    /// The reason, in words that hold nothing of the token.
    pub fn claims(&self, token: &str, unix_now: u64) -> Result<Claims, String> {
        verify(token, &self.keys.contents(), &self.rules, unix_now / 1000)
            .map_err(|error| error.to_string())
    }

    /// The DN that a token registers, or why it is refused; `unix_now` in milliseconds.
    ///
    /// # Errors
    /// Status and reason: 401 as for [`claims`](Tokens::claims), 403 for a good token that is not meant for this.
    pub fn verdict(
        &self,
        token: &Secret,
        limits: &Limits,
        unix_now: u64,
    ) -> Result<String, (u16, String)> {
        let claims = self
            .claims(token.expose(), unix_now)
            .map_err(|reason| (401, reason))?;
        if !limits.allows_number(&claims.subject) {
            let reason = "the token's sub is not a number that can be registered";
            return Err((401, reason.to_owned()));
        }
        match allow(&claims, Action::Register, &claims.subject) {
            Ok(()) => Ok(claims.subject),
            Err(denied) => Err((403, denied.to_string())),
        }
    }
}
