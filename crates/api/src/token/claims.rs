//! What a token says, and whether it says it to us and now.

use serde::Deserialize;
use serde_json::Value;

use super::Error;

/// What a token must be beside well signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The `iss` that it must have; none: any.
    pub issuer: Option<String>,
    /// What its `aud` must name; none: any.
    pub audience: Option<String>,
    /// How many seconds the clocks may differ.
    pub leeway: u64,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: whose token it is. Not empty; its characters are not checked.
    pub subject: String,
    /// `dn`: further DNs that it speaks for.
    pub dns: Vec<String>,
    /// `scope` (RFC 8693 section 4.2) and `scp`: what it is good for; none when it has neither.
    pub scopes: Option<Vec<String>>,
}

/// The claims as they stand in the token. A claim that is `null` counts as absent; one that stands there twice is an error.
#[derive(Deserialize)]
pub(super) struct Written {
    iss: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    sub: Option<Value>,
    dn: Option<Value>,
    scope: Option<Value>,
    scp: Option<Value>,
}

impl Written {
    pub fn check(self, rules: &Rules, now: u64) -> Result<Claims, Error> {
        let (exp, nbf) = (number("exp", self.exp)?, number("nbf", self.nbf)?);
        let (now, leeway) = (now as f64, rules.leeway as f64);
        if now >= exp + leeway {
            return Err(Error::Expired);
        }
        if now < nbf - leeway {
            return Err(Error::NotYet);
        }
        if let Some(issuer) = &rules.issuer {
            if string("iss", self.iss)? != *issuer {
                return Err(Error::Issuer);
            }
        }
        if let Some(audience) = &rules.audience {
            if !one_or_more("aud", self.aud)?.contains(audience) {
                return Err(Error::Audience);
            }
        }
        let limited = self.scope.is_some() || self.scp.is_some();
        let mut scopes = Vec::new();
        if let Some(scope) = self.scope {
            scopes.extend(words(&string("scope", Some(scope))?));
        }
        if let Some(scp) = self.scp {
            for text in one_or_more("scp", Some(scp))? {
                scopes.extend(words(&text));
            }
        }
        Ok(Claims {
            subject: string("sub", self.sub)?,
            dns: match self.dn {
                Some(Value::Array(all)) => strings("dn", all)?,
                None => Vec::new(),
                Some(_) => return Err(wrong("dn", "an array of strings")),
            },
            scopes: limited.then_some(scopes),
        })
    }
}

fn wrong(name: &'static str, expected: &'static str) -> Error {
    Error::Claim { name, expected }
}

/// RFC 7519 section 2, NumericDate: seconds, perhaps with a fraction. A string is none.
fn number(name: &'static str, value: Option<Value>) -> Result<f64, Error> {
    value
        .as_ref()
        .and_then(Value::as_f64)
        .ok_or_else(|| wrong(name, "a number"))
}

fn string(name: &'static str, value: Option<Value>) -> Result<String, Error> {
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(wrong(name, "a string that is not empty")),
    }
}

fn strings(name: &'static str, all: Vec<Value>) -> Result<Vec<String>, Error> {
    all.into_iter()
        .map(|one| string(name, Some(one)))
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(name, "an array of strings"))
}

fn one_or_more(name: &'static str, value: Option<Value>) -> Result<Vec<String>, Error> {
    match value {
        Some(Value::Array(all)) => strings(name, all),
        one => string(name, one)
            .map(|text| vec![text])
            .map_err(|_| wrong(name, "a string or an array of strings")),
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
}
