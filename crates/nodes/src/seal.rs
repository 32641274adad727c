//! Messages between nodes are sealed: they hold session tokens and digests of passwords.

use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::RngCore;
use sha2::{Digest as _, Sha256};

use crate::Batch;

/// Bytes of a nonce: long enough to be drawn at random.
const NONCE: usize = 24;
/// Goes before the secret, so that the same text used elsewhere gives another key.
const CONTEXT: &[u8] = b"rtc_json nodes 1\0";

/// The key that all nodes share.
#[derive(Clone)]
pub struct Key(XChaCha20Poly1305);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// A message that was not sealed with our key, or was changed on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sealed with this node's secret")]
pub struct BadSeal;

impl Key {
    /// The key of a secret text.
    pub fn new(secret: &[u8]) -> Key {
        let mut hash = Sha256::new();
        hash.update(CONTEXT);
        hash.update(secret);
        Key(XChaCha20Poly1305::new(&hash.finalize()))
    }

    /// A batch as text for the body of a message.
    ///
    /// # Errors
    /// [`BadSeal`] where it is too large to be sealed.
    pub fn seal(&self, batch: &Batch, rng: &mut dyn RngCore) -> Result<String, BadSeal> {
        let plain = postcard::to_stdvec(batch).map_err(|_| BadSeal)?;
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let sealed = self
            .0
            .encrypt(XNonce::from_slice(&nonce), plain.as_slice())
            .map_err(|_| BadSeal)?;
        // text: Kamailio takes a zero at the end of a datagram away
        Ok(STANDARD.encode([&nonce, sealed.as_slice()].concat()))
    }

    /// Reads what [`seal`](Self::seal) wrote.
    ///
    /// # Errors
    /// [`BadSeal`] for anything else.
    pub fn open(&self, body: &[u8]) -> Result<Batch, BadSeal> {
        let bytes = STANDARD.decode(body).map_err(|_| BadSeal)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE).ok_or(BadSeal)?;
        let plain = self
            .0
            .decrypt(XNonce::from_slice(nonce), sealed)
            .map_err(|_| BadSeal)?;
        postcard::from_bytes(&plain).map_err(|_| BadSeal)
    }
}
