//! Keys and tokens to test with.
#![allow(dead_code)]

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, Document, SecretDocument};
use rsa::traits::PublicKeyParts;
use rtc_json_api::token::{verify, Claims, Error, Keys, Rules};
use serde_json::{json, Value};

/// What the tests call now.
pub const NOW: u64 = 1_800_000_000;

pub const RSA: &str = include_str!("../keys/test-only-rsa.pem");
pub const RSA_KEY: &str = include_str!("../keys/test-only-rsa.key.pem");
pub const EC: &str = include_str!("../keys/test-only-ec.pem");
pub const EC_KEY: &str = include_str!("../keys/test-only-ec.key.pem");
pub const ED: &str = include_str!("../keys/test-only-ed.pem");
pub const ED_KEY: &str = include_str!("../keys/test-only-ed.key.pem");
pub const SECRET: &[u8] = b"a secret for tests, of 32 bytes.";

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes of a PEM block.
fn der(pem: &str) -> Vec<u8> {
    let (_, document) = Document::from_pem(pem).unwrap();
    document.as_bytes().to_vec()
}

pub fn rsa_private() -> EncodingKey {
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(RSA_KEY).unwrap();
    EncodingKey::from_rsa_der(key.to_pkcs1_der().unwrap().as_bytes())
}

pub fn ec_private() -> EncodingKey {
    let (_, document) = SecretDocument::from_pem(EC_KEY).unwrap();
    EncodingKey::from_ec_der(document.as_bytes())
}

pub fn ed_private() -> EncodingKey {
    let (_, document) = SecretDocument::from_pem(ED_KEY).unwrap();
    EncodingKey::from_ed_der(document.as_bytes())
}

pub fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET)
}

pub fn oct_jwk(kid: &str) -> Value {
    json!({ "kty": "oct", "kid": kid, "alg": "HS256", "k": base64url(SECRET) })
}

pub fn rsa_jwk(kid: &str) -> Value {
    let key = rsa::RsaPrivateKey::from_pkcs8_pem(RSA_KEY).unwrap();
    json!({ "kty": "RSA", "kid": kid, "alg": "RS256", "n": base64url(key.n().to_bytes_be()), "e": base64url(key.e().to_bytes_be()) })
}

pub fn ec_jwk(kid: &str) -> Value {
    // a public key in DER ends with x and y
    let der = der(EC);
    let (x, y) = der[der.len() - 64..].split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "x": base64url(x), "y": base64url(y) })
}

pub fn ed_jwk(kid: &str) -> Value {
    let der = der(ED);
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": "EdDSA", "x": base64url(&der[der.len() - 32..]) })
}

/// The same without a member.
pub fn without(mut jwk: Value, name: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(name);
    jwk
}

/// The same with another member.
pub fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

pub fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

pub fn keys(all: &[Value]) -> Keys {
    Keys::parse(set(all).as_bytes()).unwrap()
}

/// One key of each kind, named after it.
pub fn all_keys() -> Keys {
    keys(&[oct_jwk("hs"), rsa_jwk("rs"), ec_jwk("es"), ed_jwk("ed")])
}

/// Good claims.
pub fn claims() -> Value {
    json!({ "sub": "5001", "exp": NOW + 60, "nbf": NOW - 60 })
}

/// A token of these two texts.
pub fn compact(header: &str, payload: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let message = format!("{}.{}", base64url(header), base64url(payload));
    let signature = sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// A token of HS256 with the key "hs".
pub fn hs(claims: &Value) -> String {
    hs_text(&claims.to_string())
}

/// The same with claims as they are written.
pub fn hs_text(payload: &str) -> String {
    compact(
        r#"{"alg":"HS256","typ":"JWT","kid":"hs"}"#,
        payload,
        Algorithm::HS256,
        &secret(),
    )
}

/// Checks a token of `hs` without rules.
pub fn check(token: &str) -> Result<Claims, Error> {
    verify(token, &all_keys(), &Rules::default(), NOW)
}
