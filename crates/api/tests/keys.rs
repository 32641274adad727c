//! Key files that are good, and what is said of those that are not.

mod common;

use common::*;
use proptest::prelude::*;
use rtc_json_api::token::{KeyError, KeyProblem, Keys};
use serde_json::{json, Value};

fn refused(file: impl AsRef<[u8]>) -> KeyError {
    Keys::parse(file.as_ref()).expect_err("refused")
}

fn problem(jwk: Value) -> KeyProblem {
    // in the second place, so that the number is seen
    match refused(set(&[oct_jwk("first"), jwk])) {
        KeyError::Key { number: 2, problem } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn sets_and_pem() {
    assert_eq!(all_keys().len(), 4);
    for pem in [
        RSA,
        EC,
        ED,
        include_str!("keys/test-only-rsa-pkcs1.pem"),
        &RSA.replace('\n', "\r\n"),
        &format!("\n\n{EC}\n\n"),
    ] {
        assert_eq!(Keys::parse(pem.as_bytes()).map(|k| k.len()), Ok(1), "{pem}");
    }
    // a kind has one algorithm, so that it need not be said
    for jwk in [oct_jwk("a"), rsa_jwk("a"), ec_jwk("a"), ed_jwk("a")] {
        assert_eq!(keys(&[without(jwk.clone(), "alg")]).len(), 1);
        assert_eq!(keys(&[with(jwk.clone(), "use", "sig")]).len(), 1);
        assert_eq!(
            keys(&[with(jwk.clone(), "key_ops", json!(["sign", "verify"]))]).len(),
            1
        );
        assert_eq!(keys(&[with(jwk, "x5t", "unknown members")]).len(), 1);
    }
}

/// Those of an identity provider: one for signatures, one for encryption.
#[test]
fn keys_for_encryption_are_passed_over() {
    let encryption = with(with(rsa_jwk("enc"), "use", "enc"), "alg", "RSA-OAEP");
    assert_eq!(keys(&[encryption.clone(), rsa_jwk("sig")]).len(), 1);
    let wraps = with(rsa_jwk("w"), "key_ops", json!(["wrapKey"]));
    assert_eq!(refused(set(&[encryption, wraps])), KeyError::Empty);
    assert_eq!(refused(set(&[])), KeyError::Empty);
}

#[test]
fn private_keys_are_refused() {
    for pem in [
        RSA_KEY,
        EC_KEY,
        ED_KEY,
        include_str!("keys/test-only-ec-sec1.key.pem"),
    ] {
        let error = refused(pem);
        assert_eq!(
            error,
            KeyError::Key {
                number: 1,
                problem: KeyProblem::Private
            }
        );
        assert!(error.to_string().contains("private key"), "{error}");
    }
    for jwk in [rsa_jwk("a"), ec_jwk("a"), ed_jwk("a")] {
        for part in ["d", "p", "q", "dp", "dq", "qi"] {
            assert_eq!(
                problem(with(jwk.clone(), part, "AAAA")),
                KeyProblem::Private
            );
        }
        assert_eq!(
            problem(with(jwk.clone(), "oth", json!([{}]))),
            KeyProblem::Private
        );
    }
    // both halves in one file
    assert_eq!(refused(format!("{EC}{EC_KEY}")), KeyError::Blocks);
    assert_eq!(refused(format!("{RSA}{EC}")), KeyError::Blocks);
}

#[test]
fn weak_keys_are_refused() {
    let of = |len: usize| with(oct_jwk("a"), "k", base64url(vec![7; len]));
    assert_eq!(problem(of(31)), KeyProblem::ShortSecret);
    assert_eq!(problem(of(1)), KeyProblem::ShortSecret);
    assert_eq!(keys(&[of(32)]).len(), 1);
    assert_eq!(
        refused(include_str!("keys/test-only-rsa-1024.pem")),
        KeyError::Key {
            number: 1,
            problem: KeyProblem::RsaBits(1024)
        }
    );
    // 2047 bits, and one too long to be checked
    let n = |first: u8, len: usize| {
        let mut n = vec![0xff; len];
        n[0] = first;
        with(rsa_jwk("a"), "n", base64url(n))
    };
    assert_eq!(problem(n(0x7f, 256)), KeyProblem::RsaBits(2047));
    assert_eq!(problem(n(0xff, 513)), KeyProblem::RsaBits(4104));
    assert_eq!(keys(&[n(0xff, 512)]).len(), 1);
    // zeros in front make no key longer
    let padded = [vec![0; 256], vec![0xff; 128]].concat();
    assert_eq!(
        problem(with(rsa_jwk("a"), "n", base64url(padded))),
        KeyProblem::RsaBits(1024)
    );
    for e in ["AA", "AQ", "Ag"] {
        assert_eq!(
            problem(with(rsa_jwk("a"), "e", e)),
            KeyProblem::Member("n or e"),
            "{e}"
        );
    }
    // points of small order
    for x in [[0u8; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert_eq!(
            problem(with(ed_jwk("a"), "x", base64url(x))),
            KeyProblem::Member("x")
        );
    }
    let error = refused(include_str!("keys/test-only-rsa-8192.pem"));
    assert!(error.to_string().contains("2048 to 4096 bits"), "{error}");
}

#[test]
fn keys_that_are_none() {
    assert_eq!(problem(with(ec_jwk("a"), "crv", "P-384")), KeyProblem::Kind);
    assert_eq!(
        problem(with(ed_jwk("a"), "crv", "X25519")),
        KeyProblem::Kind
    );
    assert_eq!(problem(without(ed_jwk("a"), "crv")), KeyProblem::Kind);
    assert_eq!(problem(with(ec_jwk("a"), "kty", "ec")), KeyProblem::Kind);
    for (jwk, name) in [
        (oct_jwk("a"), "k"),
        (rsa_jwk("a"), "n"),
        (rsa_jwk("a"), "e"),
        (ec_jwk("a"), "x"),
        (ec_jwk("a"), "y"),
        (ed_jwk("a"), "x"),
    ] {
        assert_eq!(
            problem(without(jwk.clone(), name)),
            KeyProblem::Member(name)
        );
        for text in ["", "a b", "AAA=", "++++", "ä"] {
            assert_eq!(
                problem(with(jwk.clone(), name, text)),
                KeyProblem::Member(name),
                "{text}"
            );
        }
    }
    let off_curve = with(ec_jwk("a"), "y", base64url([1u8; 32]));
    assert_eq!(problem(off_curve), KeyProblem::Member("x or y"));
    for len in [0, 1, 31, 33, 64] {
        // a short one makes the library panic when it comes to check a signature
        let got = problem(with(ed_jwk("a"), "x", base64url(vec![9; len])));
        assert_eq!(got, KeyProblem::Member("x"), "{len}");
        let got = problem(with(ec_jwk("a"), "x", base64url(vec![9; len])));
        assert!(matches!(got, KeyProblem::Member(_)), "{len}");
    }
}

#[test]
fn a_kind_has_one_algorithm() {
    for (jwk, others) in [
        (oct_jwk("a"), ["HS384", "RS256", "none"]),
        (rsa_jwk("a"), ["PS256", "HS256", "RS512"]),
        (ec_jwk("a"), ["ES384", "HS256", "es256"]),
        (ed_jwk("a"), ["Ed25519", "HS256", ""]),
    ] {
        for alg in others {
            assert_eq!(
                problem(with(jwk.clone(), "alg", alg)),
                KeyProblem::Algorithm,
                "{alg}"
            );
        }
    }
}

#[test]
fn names_stand_once() {
    assert_eq!(problem(rsa_jwk("first")), KeyProblem::SameKid);
    let nameless = || without(oct_jwk(""), "kid");
    assert_eq!(keys(&[nameless(), nameless()]).len(), 2);
}

#[test]
fn files_that_are_no_key_files() {
    for file in ["", " ", "secret", "[]", "null", "keys", "<html>"] {
        assert_eq!(refused(file), KeyError::Form, "{file}");
    }
    assert_eq!(refused([0xff, 0xfe, 0x00]), KeyError::Form);
    for file in [
        "{",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":"s3cret"}"#,
        r#"{"keys":["s3cret"]}"#,
        r#"{"keys":[{"kty":"oct","k":["s3cret"]}]}"#,
        r#"{"keys":[{"k":"s3cret"}]}"#,
        r#"{"keys":[{"kty":"oct","k":"s3cret","k":"s3cret"}]}"#,
        r#"{"keys":[]} s3cret"#,
        // a key, not a set of them
        r#"{"kty":"oct","k":"s3cret"}"#,
    ] {
        let error = refused(file);
        assert!(matches!(error, KeyError::Json { line: 1, .. }), "{file}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    let certificate = refused(include_str!("keys/test-only-certificate.pem"));
    assert_eq!(certificate, KeyError::Certificate);
    for pem in [
        include_str!("keys/test-only-ec-p384.pem").to_owned(),
        EC.replace("MFkw", "MFkx"),
        EC.replace("-----END", "-----ENDE"),
        EC.lines().take(2).collect::<Vec<_>>().join("\n"),
        "-----BEGIN PUBLIC KEY-----".to_owned(),
    ] {
        assert_eq!(
            refused(&pem),
            KeyError::Key {
                number: 1,
                problem: KeyProblem::Pem
            },
            "{pem}"
        );
    }
}

/// A file is read with secrets in it; neither error nor `Debug` may show them.
#[test]
fn nothing_of_a_key_is_shown() {
    let keys = keys(&[oct_jwk("hs")]);
    let text = format!("{keys:?}");
    assert!(!text.contains(&base64url(SECRET)), "{text}");
    assert!(
        !text.contains(&format!("{}, {}", SECRET[0], SECRET[1])),
        "{text}"
    );
}

proptest! {
    #[test]
    fn no_file_is_too_odd(file in any::<Vec<u8>>()) {
        let _ = Keys::parse(&file);
    }

    #[test]
    fn no_pem_is_too_odd(at in any::<prop::sample::Index>(), byte in any::<u8>(), pem in prop_oneof![Just(RSA), Just(EC), Just(ED)]) {
        let mut file = pem.as_bytes().to_vec();
        let at = at.index(file.len());
        file[at] = byte;
        let _ = Keys::parse(&file);
    }

    #[test]
    fn no_key_is_too_odd(
        kty in prop_oneof![Just("oct"), Just("RSA"), Just("EC"), Just("OKP")],
        crv in proptest::option::of(prop_oneof![Just("P-256"), Just("Ed25519")]),
        bytes in proptest::collection::vec(any::<Vec<u8>>(), 5),
        long in proptest::collection::vec(any::<u8>(), 32..600),
    ) {
        let text: Vec<String> = bytes.iter().map(base64url).collect();
        let mut jwk = json!({ "kty": kty, "k": text[0], "n": base64url(&long), "e": text[2], "x": base64url(&long[..32]), "y": text[4] });
        if let Some(crv) = crv {
            jwk["crv"] = json!(crv);
        }
        let _ = Keys::parse(set(&[jwk]).as_bytes());
    }
}
