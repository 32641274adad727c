//! Tokens in place of passwords: the key file, and the verdict on a token.

use std::path::PathBuf;

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

    /// The DN that a token is for, or why it is refused; `unix_now` in milliseconds.
    ///
    /// # Errors
    /// As [`claims`](Tokens::claims).
    pub fn verdict(
        &self,
        token: &Secret,
        limits: &Limits,
        unix_now: u64,
    ) -> Result<String, String> {
        let claims = self.claims(token.expose(), unix_now)?;
        if limits.allows_number(&claims.subject) {
            Ok(claims.subject)
        } else {
            Err("the token's sub is not a number that can be registered".to_owned())
        }
    }
}
