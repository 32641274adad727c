//! Tokens that are good, and all the ways in which one is not.

mod common;

use common::*;
use jsonwebtoken::{Algorithm, EncodingKey};
use proptest::prelude::*;
use rtc_json_api::token::{verify, Error, Keys, Rules, MAX_LEN};
use serde_json::{json, Value};

fn claim(name: &'static str, expected: &'static str) -> Error {
    Error::Claim { name, expected }
}

// ---- good ones

#[test]
fn every_algorithm_by_kid() {
    for (kid, name, algorithm, key) in [
        ("hs", "HS256", Algorithm::HS256, secret()),
        ("rs", "RS256", Algorithm::RS256, rsa_private()),
        ("es", "ES256", Algorithm::ES256, ec_private()),
        ("ed", "EdDSA", Algorithm::EdDSA, ed_private()),
    ] {
        let payload = claims().to_string();
        let header = json!({ "alg": name, "kid": kid }).to_string();
        let token = compact(&header, &payload, algorithm, &key);
        assert_eq!(check(&token).unwrap().subject, "5001", "{name}");
        // one key of each algorithm: its name may be left out
        let header = json!({ "alg": name }).to_string();
        let token = compact(&header, &payload, algorithm, &key);
        assert_eq!(check(&token).unwrap().subject, "5001", "{name}, no kid");
    }
}

#[test]
fn a_pem_file_serves_any_kid() {
    for (pem, name, algorithm, key) in [
        (RSA, "RS256", Algorithm::RS256, rsa_private()),
        (
            include_str!("keys/test-only-rsa-pkcs1.pem"),
            "RS256",
            Algorithm::RS256,
            rsa_private(),
        ),
        (EC, "ES256", Algorithm::ES256, ec_private()),
        (ED, "EdDSA", Algorithm::EdDSA, ed_private()),
    ] {
        let keys = Keys::parse(pem.as_bytes()).unwrap();
        for header in [
            json!({ "alg": name }),
            json!({ "alg": name, "kid": "whatever" }),
        ] {
            let token = compact(&header.to_string(), &claims().to_string(), algorithm, &key);
            let got = verify(&token, &keys, &Rules::default(), NOW);
            assert_eq!(got.unwrap().subject, "5001", "{name}");
        }
    }
}

/// Signatures that others made: RFC 7515 appendix A.1 to A.3. They lack `nbf`, which is looked at after the signature.
#[test]
fn the_examples_of_rfc_7515() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (jwk, header, signature) in [
        (
            json!({ "kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" }),
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            json!({ "kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" }),
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }),
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
    ] {
        let keys = keys(&[jwk]);
        let good = format!("{header}.{payload}.{signature}");
        assert_eq!(
            verify(&good, &keys, &Rules::default(), 0),
            Err(claim("nbf", "a number")),
            "{header}"
        );
        let changed = good.replace(payload, &payload.replace("Ijp0cnVlfQ", "Ijp0cnVlIH0"));
        assert_eq!(
            verify(&changed, &keys, &Rules::default(), 0),
            Err(Error::Signature)
        );
    }
}

/// RFC 8037 appendix A.4: Ed25519. Its payload is no JSON.
#[test]
fn the_example_of_rfc_8037() {
    let keys = keys(&[
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
    ]);
    let good = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(
        verify(good, &keys, &Rules::default(), 0),
        Err(Error::Malformed)
    );
    let changed = good.replace(".RXhh", ".RXhi");
    assert_eq!(
        verify(&changed, &keys, &Rules::default(), 0),
        Err(Error::Signature)
    );
}

#[test]
fn scopes_and_further_numbers() {
    let got = check(&hs(&claims())).unwrap();
    assert_eq!((got.scopes, got.dns.len()), (None, 0));
    let mut all = claims();
    all["scope"] = json!("calls:read  calls:write");
    all["scp"] = json!(["directory", "a b"]);
    all["dn"] = json!(["5001", "5002"]);
    let got = check(&hs(&all)).unwrap();
    assert_eq!(
        got.scopes.unwrap(),
        ["calls:read", "calls:write", "directory", "a", "b"]
    );
    assert_eq!(got.dns, ["5001", "5002"]);
    all["scp"] = json!("one two");
    assert_eq!(
        check(&hs(&all)).unwrap().scopes.unwrap(),
        ["calls:read", "calls:write", "one", "two"]
    );
    for (name, value) in [
        ("scope", json!(["a"])),
        ("scope", json!(1)),
        ("scp", json!({})),
        ("scp", json!([1])),
        ("dn", json!("5001")),
        ("dn", json!([5001])),
        ("dn", json!([["5001"]])),
    ] {
        let bad = with(claims(), name, value);
        let got = check(&hs(&bad)).unwrap_err();
        assert!(
            matches!(got, Error::Claim { name: n, .. } if n == name),
            "{bad}: {got}"
        );
    }
}

// ---- time

#[test]
fn exp_and_nbf_with_leeway() {
    let token = hs(&claims());
    let at = |leeway: u64, now: u64| {
        let rules = Rules {
            leeway,
            ..Rules::default()
        };
        verify(&token, &all_keys(), &rules, now).map(|_| ())
    };
    assert_eq!(at(0, NOW - 61), Err(Error::NotYet));
    assert_eq!(at(0, NOW - 60), Ok(()));
    assert_eq!(at(0, NOW + 59), Ok(()));
    assert_eq!(at(0, NOW + 60), Err(Error::Expired));
    assert_eq!(at(30, NOW - 91), Err(Error::NotYet));
    assert_eq!(at(30, NOW - 90), Ok(()));
    assert_eq!(at(30, NOW + 89), Ok(()));
    assert_eq!(at(30, NOW + 90), Err(Error::Expired));
    assert_eq!(at(300, 0), Err(Error::NotYet));
    assert_eq!(at(300, u64::MAX), Err(Error::Expired));
}

#[test]
fn times_are_numbers_of_any_size() {
    let got = |exp: &str, nbf: &str| {
        check(&hs_text(&format!(
            r#"{{"sub":"5001","exp":{exp},"nbf":{nbf}}}"#
        )))
        .map(|_| ())
    };
    assert_eq!(got("1800000000.5", "1799999999.5"), Ok(()));
    assert_eq!(got("1.9e9", "-1"), Ok(()));
    assert_eq!(got("1e300", "0"), Ok(()));
    assert_eq!(got("18446744073709551615", "-9223372036854775808"), Ok(()));
    assert_eq!(got("-1", "0"), Err(Error::Expired));
    assert_eq!(got("1e300", "1e300"), Err(Error::NotYet));
    // no JSON number of serde_json's
    assert_eq!(got("1e999", "0"), Err(Error::Malformed));
    assert_eq!(got("NaN", "0"), Err(Error::Malformed));
}

#[test]
fn times_that_are_no_numbers() {
    for name in ["exp", "nbf"] {
        let good = claims()[name].clone();
        for value in [json!(good.to_string()), json!(true), Value::Null, json!("")] {
            let token = hs(&with(claims(), name, value));
            assert_eq!(check(&token), Err(claim(name, "a number")));
        }
        let token = hs(&without(claims(), name));
        assert_eq!(check(&token), Err(claim(name, "a number")));
        // the library reads no further than such a one
        for value in [json!([good]), json!({ "exp": good })] {
            let token = hs(&with(claims(), name, value));
            assert_eq!(check(&token), Err(Error::Malformed));
        }
    }
}

#[test]
fn a_subject_is_a_text() {
    for value in [json!(5001), json!(""), Value::Null] {
        let token = hs(&with(claims(), "sub", value));
        assert_eq!(
            check(&token),
            Err(claim("sub", "a string that is not empty"))
        );
    }
    let token = hs(&without(claims(), "sub"));
    assert_eq!(
        check(&token),
        Err(claim("sub", "a string that is not empty"))
    );
    let token = hs(&with(claims(), "sub", json!(["5001"])));
    assert_eq!(check(&token), Err(Error::Malformed));
    // which characters a number may have is the caller's
    let token = hs(&with(claims(), "sub", "Ä<b>\r\n"));
    assert_eq!(check(&token).unwrap().subject, "Ä<b>\r\n");
}

#[test]
fn a_claim_stands_once() {
    let twice = format!(
        r#"{{"sub":"5001","sub":"5002","exp":{},"nbf":0}}"#,
        NOW + 60
    );
    assert_eq!(check(&hs_text(&twice)), Err(Error::Malformed));
    for payload in ["", "[]", "null", "\"5001\"", "{", "{}x", "\u{feff}{}"] {
        assert_eq!(
            check(&hs_text(payload)).map(|_| ()).unwrap_err(),
            Error::Malformed,
            "{payload}"
        );
    }
}

// ---- issuer and audience

#[test]
fn issuer_and_audience() {
    let rules = Rules {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("rtc_json".to_owned()),
        leeway: 0,
    };
    let got = |iss: Value, aud: Value| {
        let token = hs(&with(with(claims(), "iss", iss), "aud", aud));
        verify(&token, &all_keys(), &rules, NOW).map(|_| ())
    };
    let iss = || json!("https://id.example");
    assert_eq!(got(iss(), json!("rtc_json")), Ok(()));
    assert_eq!(got(iss(), json!(["other", "rtc_json"])), Ok(()));
    for aud in [
        json!("other"),
        json!("rtc_json2"),
        json!("rtc_jso"),
        json!("RTC_JSON"),
        json!([]),
        json!(["other"]),
    ] {
        assert_eq!(got(iss(), aud), Err(Error::Audience));
    }
    for aud in [
        Value::Null,
        json!(1),
        json!([1]),
        json!([["rtc_json"]]),
        json!({ "rtc_json": 1 }),
    ] {
        let expected = claim("aud", "a string or an array of strings");
        let got = got(iss(), aud.clone()).unwrap_err();
        assert!(
            got == expected || got == claim("aud", "an array of strings"),
            "{aud}: {got}"
        );
    }
    for other in [
        json!("https://id.example/"),
        json!("https://ID.example"),
        json!("x"),
    ] {
        assert_eq!(got(other, json!("rtc_json")), Err(Error::Issuer));
    }
    // a list is no issuer (RFC 7519 section 4.1.1)
    for other in [json!(["https://id.example"]), Value::Null, json!(1)] {
        assert_eq!(
            got(other, json!("rtc_json")),
            Err(claim("iss", "a string that is not empty"))
        );
    }
    // without rules any will do
    let foreign = with(with(claims(), "iss", "x"), "aud", json!(["y"]));
    assert!(check(&hs(&foreign)).is_ok());
}

// ---- signatures

#[test]
fn another_key_or_a_changed_text() {
    let other = EncodingKey::from_secret(b"another secret of at least 32 bytes");
    let header = r#"{"alg":"HS256","kid":"hs"}"#;
    let token = compact(header, &claims().to_string(), Algorithm::HS256, &other);
    assert_eq!(check(&token), Err(Error::Signature));
    let good = hs(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let elevated = with(claims(), "sub", "5002").to_string();
    let changed = format!("{head}.{}.{signature}", base64url(elevated));
    assert_eq!(check(&changed), Err(Error::Signature));
    // a signature of another length, and none at all
    for signature in ["", "AAAA", &signature[..40]] {
        let cut = format!("{message}.{signature}");
        assert!(
            matches!(check(&cut), Err(Error::Signature | Error::Malformed)),
            "{signature}"
        );
    }
    for (kid, name, algorithm, key) in [
        ("rs", "RS256", Algorithm::RS256, rsa_private()),
        ("es", "ES256", Algorithm::ES256, ec_private()),
        ("ed", "EdDSA", Algorithm::EdDSA, ed_private()),
    ] {
        let header = json!({ "alg": name, "kid": kid }).to_string();
        let token = compact(&header, &claims().to_string(), algorithm, &key);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let zeros = base64url(vec![0u8; signature.len() * 3 / 4]);
        // the last without the end of it, which may not even be base64url then
        for bad in ["", "AAAA", &zeros, &signature[..signature.len() - 4]] {
            let got = check(&format!("{message}.{bad}")).unwrap_err();
            assert!(
                matches!(got, Error::Signature | Error::Malformed),
                "{name}: {bad}"
            );
        }
        let (head, _) = message.split_once('.').unwrap();
        let payload = base64url(with(claims(), "sub", "5002").to_string());
        assert_eq!(
            check(&format!("{head}.{payload}.{signature}")),
            Err(Error::Signature),
            "{name}"
        );
    }
}

#[test]
fn no_signature_in_every_spelling() {
    let payload = claims().to_string();
    let mut spellings: Vec<String> = (0..16u32)
        .map(|upper| {
            "none"
                .chars()
                .enumerate()
                .map(|(i, c)| match upper >> i & 1 {
                    1 => c.to_ascii_uppercase(),
                    _ => c,
                })
                .collect()
        })
        .collect();
    spellings.extend(["none ", " none", "none\0", "nоne", "", "null"].map(str::to_owned));
    for alg in spellings {
        for kid in [None, Some("hs"), Some("rs")] {
            let mut header = json!({ "alg": alg, "typ": "JWT" });
            if let Some(kid) = kid {
                header["kid"] = json!(kid);
            }
            let header = header.to_string();
            let bare = format!("{}.{}.", base64url(&header), base64url(&payload));
            let signed = compact(&header, &payload, Algorithm::HS256, &secret());
            let two_parts = bare.trim_end_matches('.').to_owned();
            for token in [bare, signed, two_parts] {
                assert_eq!(check(&token), Err(Error::Malformed), "{alg:?} {kid:?}");
            }
        }
    }
    for header in [
        r#"{}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":0}"#,
        r#"{"kid":"hs"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
    ] {
        let token = compact(header, &payload, Algorithm::HS256, &secret());
        assert_eq!(check(&token), Err(Error::Malformed), "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let payload = claims().to_string();
    for (pem, kid) in [(RSA, "rs"), (EC, "es"), (ED, "ed")] {
        let as_secret = [
            pem.as_bytes().to_vec(),
            pem.trim().as_bytes().to_vec(),
            pem.replace('\n', "").into_bytes(),
        ];
        for secret in as_secret {
            let key = EncodingKey::from_secret(&secret);
            for header in [
                json!({ "alg": "HS256", "kid": kid }),
                json!({ "alg": "HS256" }),
            ] {
                let token = compact(&header.to_string(), &payload, Algorithm::HS256, &key);
                let only = Keys::parse(pem.as_bytes()).unwrap();
                let got = verify(&token, &only, &Rules::default(), NOW);
                assert_eq!(got, Err(Error::Algorithm));
                let jwks = keys(&[rsa_jwk("rs"), ec_jwk("es"), ed_jwk("ed")]);
                let got = verify(&token, &jwks, &Rules::default(), NOW).unwrap_err();
                assert!(matches!(got, Error::Algorithm | Error::NoKey), "{got}");
            }
        }
    }
}

#[test]
fn the_key_has_the_algorithm_not_the_token() {
    let payload = claims().to_string();
    // rightly signed, by the same key, in another way
    for (kid, name, algorithm, key) in [
        ("hs", "HS384", Algorithm::HS384, secret()),
        ("hs", "HS512", Algorithm::HS512, secret()),
        ("rs", "RS512", Algorithm::RS512, rsa_private()),
        ("rs", "PS256", Algorithm::PS256, rsa_private()),
        ("rs", "ES256", Algorithm::ES256, ec_private()),
        ("es", "HS256", Algorithm::HS256, secret()),
        ("ed", "RS256", Algorithm::RS256, rsa_private()),
    ] {
        let header = json!({ "alg": name, "kid": kid }).to_string();
        let token = compact(&header, &payload, algorithm, &key);
        assert_eq!(check(&token), Err(Error::Algorithm), "{name}");
    }
    let token = compact(r#"{"alg":"HS512"}"#, &payload, Algorithm::HS512, &secret());
    assert_eq!(check(&token), Err(Error::NoKey));
}

/// A key in the token itself is never looked at.
#[test]
fn a_key_in_the_header_counts_for_nothing() {
    let own = ed_jwk("mine");
    let header = json!({ "alg": "EdDSA", "jwk": own, "jku": "https://evil.example/keys", "x5u": "https://evil.example/cert" });
    let token = compact(
        &header.to_string(),
        &claims().to_string(),
        Algorithm::EdDSA,
        &ed_private(),
    );
    let others = keys(&[oct_jwk("hs"), rsa_jwk("rs")]);
    assert_eq!(
        verify(&token, &others, &Rules::default(), NOW),
        Err(Error::NoKey)
    );
}

// ---- which key

#[test]
fn which_key() {
    let header = |kid: Option<&str>| match kid {
        Some(kid) => json!({ "alg": "HS256", "kid": kid }).to_string(),
        None => json!({ "alg": "HS256" }).to_string(),
    };
    let token = |kid| {
        compact(
            &header(kid),
            &claims().to_string(),
            Algorithm::HS256,
            &secret(),
        )
    };
    let rules = Rules::default();
    for kid in ["unknown", "", "HS", "hs ", "../hs"] {
        assert_eq!(check(&token(Some(kid))), Err(Error::NoKey), "{kid}");
    }
    let other = with(
        oct_jwk("other"),
        "k",
        base64url(b"another secret of at least 32 bytes"),
    );
    let two = keys(&[other.clone(), oct_jwk("hs")]);
    assert_eq!(
        verify(&token(None), &two, &rules, NOW),
        Err(Error::WhichKey)
    );
    assert!(verify(&token(Some("hs")), &two, &rules, NOW).is_ok());
    assert_eq!(
        verify(&token(Some("other")), &two, &rules, NOW),
        Err(Error::Signature)
    );
    // two without a name: neither can be chosen
    let nameless = keys(&[without(other, "kid"), without(oct_jwk("hs"), "kid")]);
    assert_eq!(
        verify(&token(None), &nameless, &rules, NOW),
        Err(Error::WhichKey)
    );
    assert_eq!(
        verify(&token(Some("hs")), &nameless, &rules, NOW),
        Err(Error::NoKey)
    );
    // one key with a name is chosen by it, or by nothing
    let one = keys(&[oct_jwk("hs")]);
    assert!(verify(&token(None), &one, &rules, NOW).is_ok());
    assert_eq!(
        verify(&token(Some("x")), &one, &rules, NOW),
        Err(Error::NoKey)
    );
    // and none at all for the algorithm
    let others = keys(&[rsa_jwk("rs"), ec_jwk("es")]);
    assert_eq!(
        verify(&token(None), &others, &rules, NOW),
        Err(Error::NoKey)
    );
}

// ---- form

#[test]
fn headers_that_demand_more() {
    for header in [
        r#"{"alg":"HS256","kid":"hs","crit":["exp"]}"#,
        r#"{"alg":"HS256","kid":"hs","crit":[]}"#,
        r#"{"alg":"HS256","kid":"hs","b64":"false","crit":["b64"]}"#,
    ] {
        let token = compact(header, &claims().to_string(), Algorithm::HS256, &secret());
        assert_eq!(check(&token), Err(Error::Extension), "{header}");
    }
}

#[test]
fn broken_forms() {
    let good = hs(&claims());
    // every beginning, and every end
    for cut in 0..good.len() {
        assert!(check(&good[..cut]).is_err(), "{cut}");
        assert!(cut == 0 || check(&good[cut..]).is_err(), "{cut}");
    }
    let parts: Vec<&str> = good.split('.').collect();
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{}", parts[2]),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{good}="),
        format!("Bearer {good}"),
        good.replace('.', ""),
        format!("{}.{}", parts[0], parts[1]),
        // five parts are an encrypted token
        format!("{good}.AAAA.AAAA"),
        // the form as JSON
        json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] }).to_string(),
    ] {
        assert_eq!(check(&bad), Err(Error::Malformed), "{bad:?}");
    }
    for (from, to) in [('.', "\u{2024}"), ('e', "е"), ('J', "Ｊ")] {
        let bad = good.replacen(from, to, 1);
        assert_eq!(check(&bad), Err(Error::Malformed), "{bad}");
    }
    assert_eq!(check("ä.ö.ü"), Err(Error::Malformed));
    assert_eq!(check("\0.\0.\0"), Err(Error::Malformed));
    // the last character of a signature has bits to spare; they must be 0, so that a token has one form only
    let last = good.chars().last().unwrap();
    let same: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['-', '_'])
        .filter(|c| *c != last)
        .filter(|c| check(&format!("{}{c}", &good[..good.len() - 1])).is_ok())
        .collect();
    assert_eq!(same, []);
}

#[test]
fn length() {
    let long = |pad: usize| hs(&with(claims(), "pad", "x".repeat(pad)));
    let mut pad = 5000;
    while long(pad + 1).len() <= MAX_LEN {
        pad += 1;
    }
    assert!(long(pad).len() > MAX_LEN - 4);
    assert!(check(&long(pad)).is_ok());
    assert_eq!(check(&long(pad + 1)), Err(Error::TooLong));
    assert_eq!(check(&"a".repeat(1 << 20)), Err(Error::TooLong));
    // nested as deeply as it can be: passed over in what is not read, refused in what is
    let nest = format!("{}{}", "[".repeat(2500), "]".repeat(2500));
    for (name, deep) in [("x", true), ("dn", false), ("exp", false)] {
        let payload = format!(
            r#"{{"sub":"5001","exp":{},"nbf":0,"{name}":{nest}}}"#,
            NOW + 60
        );
        assert_eq!(check(&hs_text(&payload)).is_ok(), deep, "{name}");
    }
}

/// What is told to the browser and to the log holds nothing of the token.
#[test]
fn errors_quote_nothing() {
    let mut seen = Vec::new();
    let rules = Rules {
        issuer: Some("i".to_owned()),
        audience: Some("a".to_owned()),
        leeway: 0,
    };
    for (name, value) in [
        ("exp", json!("MARK")),
        ("exp", json!(1)),
        ("nbf", json!("MARK")),
        ("nbf", json!(NOW * 2)),
        ("sub", json!({ "MARK": "MARK" })),
        ("iss", json!("MARK")),
        ("aud", json!("MARK")),
        ("scope", json!(["MARK"])),
        ("scp", json!(["MARK", 1])),
        ("dn", json!("MARK")),
    ] {
        let mut all = with(with(claims(), "iss", "i"), "aud", "a");
        all[name] = value;
        let token = hs(&all);
        seen.push(
            verify(&token, &all_keys(), &rules, NOW)
                .unwrap_err()
                .to_string(),
        );
    }
    for token in ["MARK.MARK.MARK", "MARK"] {
        seen.push(check(token).unwrap_err().to_string());
    }
    for header in [
        json!({ "alg": "MARK" }),
        json!({ "alg": "HS256", "kid": "MARK" }),
        json!({ "alg": "HS256", "crit": ["MARK"] }),
    ] {
        let token = compact(
            &header.to_string(),
            r#"{"MARK":1}"#,
            Algorithm::HS256,
            &secret(),
        );
        seen.push(check(&token).unwrap_err().to_string());
    }
    for text in seen {
        assert!(!text.contains("MARK"), "{text}");
        assert!(
            text.starts_with("the token") || text.starts_with("no key"),
            "{text}"
        );
    }
}

// ---- anything

proptest! {
    #[test]
    fn no_text_is_too_odd(token in "\\PC{0,200}") {
        let _ = check(&token);
    }

    #[test]
    fn no_three_parts_are_too_odd(head in any::<Vec<u8>>(), body in any::<Vec<u8>>(), end in any::<Vec<u8>>()) {
        let token = format!("{}.{}.{}", base64url(head), base64url(body), base64url(end));
        prop_assert!(check(&token).is_err());
    }

    /// Headers and signatures of any kind for keys of every kind: none passes, none panics.
    #[test]
    fn no_signature_is_guessed(
        alg in prop_oneof![Just("HS256"), Just("RS256"), Just("ES256"), Just("EdDSA")],
        kid in proptest::option::of(prop_oneof![Just("hs"), Just("rs"), Just("es"), Just("ed")]),
        signature in prop_oneof![any::<Vec<u8>>(), proptest::collection::vec(any::<u8>(), 64), proptest::collection::vec(any::<u8>(), 256)],
    ) {
        let mut header = json!({ "alg": alg });
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        let token = format!("{}.{}.{}", base64url(header.to_string()), base64url(claims().to_string()), base64url(signature));
        prop_assert!(check(&token).is_err());
    }

    /// One character changed anywhere: refused.
    #[test]
    fn no_change_goes_unnoticed(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        let good = hs(&claims());
        let at = at.index(good.len());
        let changed = format!("{}{to}{}", &good[..at], &good[at + 1..]);
        prop_assert_eq!(check(&changed).is_ok(), changed == good);
    }

    /// Claims of any kind, well signed.
    #[test]
    fn no_claim_is_too_odd(name in prop_oneof![Just("exp"), Just("nbf"), Just("sub"), Just("iss"), Just("aud"), Just("dn"), Just("scope"), Just("scp")], value in value()) {
        let rules = Rules { issuer: Some("i".to_owned()), audience: Some("a".to_owned()), leeway: 300 };
        let token = hs(&with(claims(), name, value));
        let _ = verify(&token, &all_keys(), &rules, NOW);
        let _ = check(&token);
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map("\\PC{0,5}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}
