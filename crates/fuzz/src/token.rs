//! Tokens, their key files, and what belongs to TURN.

use std::cell::OnceCell;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use hmac::{Hmac, Mac};
use rtc_json_api::access::{allow, reach, Action};
use rtc_json_api::token::{verify, Keys, Rules};
use rtc_json_api::turn::{is_uri, TurnSecret};
use sha2::Sha256;

const SECRET: &[u8] = b"a secret for tests, of 32 bytes.";
/// Unix time that the tokens are checked at.
const NOW: u64 = 1_800_000_000;

thread_local! {
    static KEYS: OnceCell<Keys> = const { OnceCell::new() };
}

fn with_keys(run: impl FnOnce(&Keys)) {
    KEYS.with(|keys| {
        run(keys.get_or_init(|| Keys::parse(key_file().as_bytes()).expect("a good key file")));
    });
}

/// The key that [`signed`] signs with.
pub fn key_file() -> String {
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    format!(r#"{{"keys":[{{"kty":"oct","kid":"hs","alg":"HS256","k":"{secret}"}}]}}"#)
}

/// A token whose signature is right, whatever it says.
pub fn signed(header: &[u8], payload: &[u8]) -> String {
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length");
    mac.update(text.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{text}.{signature}")
}

/// The first byte says what the rest is: `k` a key file, `t` a token as it comes, `c` claims, `h` a header and behind a line
/// end the claims (both are signed here, so that what lies behind the signature is reached), `s` a TURN secret, `u` a TURN URI.
pub fn token(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else {
        return;
    };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    let rules = Rules {
        issuer: None,
        audience: Some("rtc".to_owned()),
        leeway: 5,
    };
    let check = |token: &str, sound: bool| {
        with_keys(|keys| {
            for rules in [&rules, &Rules::default()] {
                match verify(token, keys, rules, NOW) {
                    Ok(claims) => {
                        assert!(sound, "nobody signed {token}");
                        for action in [Action::Register, Action::ReadAgent, Action::EndCall] {
                            let _reach = reach(&claims, action);
                            let _allowed = allow(&claims, action, &claims.subject);
                        }
                    }
                    Err(error) => {
                        // the reason goes to a browser: nothing of the token may be in it
                        let told = error.to_string();
                        assert!(token.len() < 40 || !told.contains(token));
                    }
                }
            }
        });
    };
    match what {
        b'k' => {
            if let Ok(keys) = Keys::parse(rest) {
                assert!(keys.len() > 0);
                let _verdict = verify(&signed(br#"{"alg":"HS256"}"#, b"{}"), &keys, &rules, NOW);
            }
        }
        b't' => check(text, false),
        b'c' => check(&signed(br#"{"alg":"HS256","kid":"hs"}"#, rest), true),
        b'h' => {
            let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let (header, payload) = rest.split_at(end);
            check(&signed(header, payload.get(1..).unwrap_or_default()), true);
        }
        b's' => {
            if let Ok(secret) = TurnSecret::parse(rest) {
                let given = secret.credentials("5001", NOW);
                assert_eq!(given.username, format!("{NOW}:5001"));
                assert!(!format!("{given:?}{secret:?}").contains(text.trim_end()));
            }
        }
        _ => {
            if is_uri(text) {
                assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{text:?}");
            }
        }
    }
}
