//! STUN and TURN servers that browsers are told, with credentials of their own.

use std::path::PathBuf;

use rtc_json_api::turn::{BadSecret, TurnSecret};
use rtc_json_engine::IceSource;
use rtc_json_protocol::{IceServer, Secret};

use crate::watched::{BadFile, Watched};

/// The secret shared with the TURN server.
#[derive(Debug)]
pub enum SharedSecret {
    /// As it stood in the parameter.
    Fixed(TurnSecret),
    /// In a file.
    File(Watched<TurnSecret, BadSecret>),
}

/// The operator's servers.
#[derive(Debug)]
pub struct IceServers {
    /// URIs that need no credentials.
    pub stun: Vec<String>,
    /// URIs that do.
    pub turn: Vec<String>,
    /// Where there are any.
    pub secret: Option<SharedSecret>,
    /// Seconds for which credentials are good.
    pub ttl: u64,
}

impl SharedSecret {
    /// Reads the file.
    ///
    /// # Errors
    /// [`BadFile`] says what is wrong with it.
    pub fn from_file(file: PathBuf) -> Result<Self, BadFile<BadSecret>> {
        Watched::new(file, TurnSecret::parse).map(SharedSecret::File)
    }
}

impl IceSource for IceServers {
    fn servers(&self, dn: &str, unix_now: u64) -> Vec<IceServer> {
        let until = unix_now / 1000 + self.ttl;
        let credentials = self.secret.as_ref().map(|secret| match secret {
            SharedSecret::Fixed(secret) => secret.credentials(dn, until),
            SharedSecret::File(file) => file.contents().credentials(dn, until),
        });
        let stun = (!self.stun.is_empty()).then(|| IceServer {
            urls: self.stun.clone(),
            username: None,
            credential: None,
        });
        let turn = credentials.map(|credentials| IceServer {
            urls: self.turn.clone(),
            username: Some(credentials.username),
            credential: Some(Secret::new(credentials.password)),
        });
        stun.into_iter().chain(turn).collect()
    }
}
