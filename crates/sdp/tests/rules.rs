//! One test for each rule, on texts as small as they can be.

use std::net::IpAddr;

use rtc_json_sdp::{
    candidates, direction, follow, from_browser, from_sip, mirror, with_direction, Direction,
    Error, Filtered, Kind, Placement, Policy, PolicyError,
};

const PRINT: &str = "sha-256 9B:2E:62:8B:3F:01:97:5F:2A:AC:B2:B7:08:CB:62:18:D8:C4:AE:C0:56:8B:6A:20:BF:CB:5D:98:14:5D:28:F0";
const SESSION: &str = "v=0\r\no=- 1 7 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
const PLACEHOLDER: &str = "a=candidate:1 1 udp 1 0.0.0.0 9 typ host\r\n";

fn transport() -> String {
    format!("a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijkl\r\na=fingerprint:{PRINT}\r\na=setup:active\r\n")
}

/// An audio section with DTLS-SRTP: payload types, then lines (CRLF added).
fn audio(formats: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 192.0.2.9\r\n{lines}{}",
        transport()
    )
}

fn filter(sdp: &str, policy: &str) -> Result<Filtered, Error> {
    let policy = Policy::parse(policy).expect("a good list");
    from_browser(sdp, Kind::Answer, &policy, &Placement::default())
}

fn lenient() -> Policy {
    let mut policy = Policy::default();
    policy.require_dtls = false;
    policy
}

/// The filtered text of `SESSION` and these sections.
fn text(sections: &str, policy: &str) -> String {
    filter(&format!("{SESSION}{sections}"), policy)
        .expect("acceptable")
        .text
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(start))
        .unwrap_or("")
}

fn details(result: Result<Filtered, Error>) -> String {
    match result.expect_err("not acceptable") {
        error @ Error::NotAcceptable { .. } => error.details().to_owned(),
        other => panic!("{other}"),
    }
}

#[test]
fn codecs_stand_in_order_of_preference() {
    let lines = [
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:101 telephone-event/8000",
        "a=rtpmap:8 PCMA/8000",
    ];
    let sections = audio("111 101 8 0", &lines);
    let m = |policy| line(&text(&sections, policy), "m=").to_owned();
    assert!(m("PCMU,PCMA,telephone-event").ends_with(" 0 8 101"));
    assert!(m("pcma telephone-event,PCMU").ends_with(" 8 101 0"));
    assert!(m("opus,PCMU").ends_with(" 111 0"));
    assert!(m("PCMU").ends_with("SAVPF 0"));
}

/// PCMU needs no `rtpmap` (RFC 3551), and a payload type that has another one is not PCMU.
#[test]
fn static_payload_types() {
    assert!(text(&audio("0", &[]), "PCMU").contains("SAVPF 0\r\n"));
    let taken = format!("{SESSION}{}", audio("0", &["a=rtpmap:0 opus/48000/2"]));
    assert!(details(filter(&taken, "PCMU")).starts_with("codec: "));
    let dynamic = text(&audio("96 0", &["a=rtpmap:96 pcmu/8000"]), "PCMU");
    assert!(dynamic.contains("SAVPF 96 0\r\na") || dynamic.contains("SAVPF 96 0\r\nc"));
}

#[test]
fn a_codec_is_its_clock_and_channels_too() {
    for (map, fits) in [
        ("PCMU/8000", true),
        ("PCMU/8000/1", true),
        ("PCMU/16000", false),
        ("PCMU/8000/2", false),
        ("PCMU", false),
        ("opus/48000/2", true),
        ("opus/48000", false),
        ("G722/8000/1", true),
        ("red/8000", false),
    ] {
        let sections = audio("96", &[&format!("a=rtpmap:96 {map}")]);
        let result = filter(&format!("{SESSION}{sections}"), "PCMU,opus,G722");
        assert_eq!(result.is_ok(), fits, "{map}");
    }
}

/// The second `rtpmap` could make the far side choose what is not allowed.
#[test]
fn a_payload_type_with_two_meanings_goes() {
    let lines = [
        "a=rtpmap:96 PCMU/8000",
        "a=rtpmap:96 opus/48000/2",
        "a=rtpmap:0 PCMU/8000",
    ];
    let text = text(&audio("96 0", &lines), "PCMU");
    assert!(text.contains("SAVPF 0\r\n") && !text.contains(":96 "));
}

#[test]
fn lines_of_removed_payload_types_go_wherever_they_stand() {
    let lines = [
        "a=fmtp:111 useinbandfec=1",
        "a=rtcp-fb:111 transport-cc",
        "a=rtcp-fb:* nack",
        "a=rtcp-fb:0 transport-cc",
        "a=fmtp:0 annexb=no",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:0 PCMU/8000",
        "a=fmtp:1 x",
        "a=fmtp:1111 x",
        "a=fmtp:x",
    ];
    let text = text(&audio("111 0", &lines), "PCMU");
    for kept in [lines[2], lines[3], lines[4], lines[6]] {
        assert!(text.contains(&format!("{kept}\r\n")), "{kept}");
    }
    assert_eq!(text.matches("a=fmtp").count(), 1);
    assert_eq!(text.matches("a=rtcp-fb").count(), 2);
    assert!(!text.contains("opus"));
}

#[test]
fn events_need_an_audio_codec_of_their_clock() {
    let lines = [
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:110 telephone-event/48000",
        "a=rtpmap:126 telephone-event/8000",
        "a=rtpmap:105 CN/16000",
    ];
    let sections = audio("111 0 110 126 13 105", &lines);
    let m = |policy| line(&text(&sections, policy), "m=").to_owned();
    assert!(m("PCMU,telephone-event,CN").ends_with("SAVPF 0 126 13"));
    assert!(m("opus,telephone-event,CN").ends_with("SAVPF 111 110"));
    assert!(m("opus,PCMU,telephone-event").ends_with("SAVPF 111 0 110 126"));
    let only = format!(
        "{SESSION}{}",
        audio("126", &["a=rtpmap:126 telephone-event/8000"])
    );
    let said = details(filter(&only, "PCMU,telephone-event"));
    assert!(said.contains("PCMU,telephone-event"), "{said}");
}

#[test]
fn session_level_counts_where_the_section_is_silent() {
    let sdp = format!(
        "{SESSION}{}m=audio 9 UDP/TLS/RTP/SAVP 0\r\nc=IN IP4 192.0.2.9\r\n",
        transport()
    );
    let filtered = filter(&sdp, "PCMU").expect("complete by its session level");
    // without an ice-ufrag of its own the section ends with the placeholder
    assert_eq!(filtered.text, format!("{sdp}{PLACEHOLDER}"));
    let weak = sdp.clone() + "a=fingerprint:sha-1 00:11\r\n";
    assert!(details(filter(&weak, "PCMU")).starts_with("fingerprint: "));
}

#[test]
fn each_missing_thing_is_named() {
    let whole = format!("{SESSION}{}", audio("0", &[]));
    let cases = [
        ("a=ice-ufrag:abcd\r\n", "", "ice-ufrag: "),
        ("ufrag:abcd", "ufrag:abc", "ice-ufrag: "),
        ("a=ice-pwd", "a=ice-ufrag:efgh\r\na=ice-pwd", "ice-ufrag: "),
        ("a=ice-pwd", "a=x-pwd", "ice-pwd: "),
        ("ghijkl", "ghi kl", "ice-pwd: "),
        ("ghijkl", "ghijk", "ice-pwd: "),
        ("a=setup:active\r\n", "", "setup: "),
        ("setup:active", "setup:actpass", "setup: "),
        ("setup:active", "setup:holdconn", "setup: "),
        ("sha-256 ", "sha-1 ", "fingerprint: "),
        ("sha-256 ", "sha-384 ", "fingerprint: "),
        (":28:F0", ":28:G0", "fingerprint: "),
        (":28:F0", ":28", "fingerprint: "),
        ("UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "profile: "),
        ("UDP/TLS/RTP/SAVPF 0", "UDP/TLS/RTP/SAVPF 8", "codec: "),
        ("m=audio 9", "m=audio 0", "audio: "),
        ("m=audio", "m=video", "audio: "),
    ];
    for (from, to, word) in cases {
        let broken = whole.replace(from, to);
        assert_ne!(broken, whole);
        let said = details(filter(&broken, "PCMU"));
        assert!(
            said.starts_with(word) && !said.contains("; "),
            "{from} -> {to}: {said}"
        );
    }
    // an offer may leave the role open
    let open = whole.replace("setup:active", "setup:actpass");
    let policy = Policy::default();
    assert!(from_sip(&open, Kind::Offer, &policy).is_ok());
    let all = details(from_sip(
        &format!("{SESSION}m=audio 9 RTP/AVP 8\r\n"),
        Kind::Offer,
        &policy,
    ));
    assert_eq!(all.split("; ").count(), 6, "{all}");
}

#[test]
fn strong_fingerprints_stay_and_weak_ones_go() {
    let long = |bytes: usize| vec!["AB"; bytes].join(":");
    let strong = [
        format!("a=fingerprint:sha-512 {}", long(64)),
        format!("a=fingerprint:SHA-384 {}", long(48)),
    ];
    let weak = format!("a=fingerprint:sha-1 {}", long(20));
    let text = text(&audio("0", &[&strong[0], &weak, &strong[1]]), "PCMU");
    assert_eq!(text.matches("a=fingerprint:").count(), 3);
    assert!(strong.iter().all(|line| text.contains(line.as_str())));
    assert!(!text.contains("sha-1 "));
}

#[test]
fn keys_in_the_sdp_go() {
    let crypto =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:8QVQSHJ2AM8gIumHpYRRdWHyZ5NkLhaTD1AENOWx";
    let sections = audio("0", &[crypto]);
    assert!(!text(&sections, "PCMU").contains("a=crypto"));
    let policy = lenient();
    let sip = |sections: &str| {
        from_sip(&format!("{SESSION}{sections}"), Kind::Offer, &policy)
            .expect("no DTLS is demanded")
            .text
    };
    assert!(!sip(&sections).contains("a=crypto"));
    // there they are all that the media are protected by, until the relay takes over
    assert!(sip(&format!("m=audio 4000 RTP/SAVP 0\r\n{crypto}\r\n")).contains(crypto));
}

#[test]
fn refused_sections_keep_their_place_only() {
    let sections = format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\ni=picture\r\nc=IN IP4 0.0.0.0\r\nb=AS:900\r\na=bundle-only\r\na=mid:v\r\na=sendrecv\r\na=rtpmap:96 VP8/90000\r\n{}m=audio 9 UDP/TLS/RTP/SAVPF 8\r\na=mid:x\r\n{}",
        audio("0", &["a=mid:a"]),
        transport(),
    );
    let sdp = format!("{SESSION}a=group:BUNDLE v a x\r\na=group:LS v a\r\n{sections}");
    let text = filter(&sdp, "PCMU")
        .expect("one audio section is fine")
        .text;
    let expected = format!(
        "{SESSION}a=group:BUNDLE a\r\na=group:LS v a\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=inactive\r\n{}m=audio 0 UDP/TLS/RTP/SAVPF 8\r\na=mid:x\r\na=inactive\r\n",
        audio("0", &["a=mid:a"]).replace("a=ice-ufrag", &format!("{PLACEHOLDER}a=ice-ufrag"))
    );
    assert_eq!(text, expected);
}

#[test]
fn a_bundle_of_refused_sections_goes() {
    let sdp = format!(
        "{SESSION}a=group:BUNDLE v w\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:v\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:w\r\n{}",
        audio("0", &[])
    );
    assert!(!filter(&sdp, "PCMU")
        .expect("audio")
        .text
        .contains("a=group"));
}

/// Two audio sections over one transport: the candidates belong to the first of the group (RFC 8843). Over two: to each.
#[test]
fn the_placeholder_stands_once_for_each_transport() {
    let bare = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:b\r\n";
    let sections = format!("{}{bare}", audio("0", &["a=mid:a"]));
    let bundled = text(&format!("a=group:BUNDLE a b\r\n{sections}"), "PCMU");
    assert_eq!(bundled.matches(PLACEHOLDER).count(), 1);
    assert!(bundled.ends_with(bare));
    // without the group the second section has no transport at all
    let apart = text(&sections, "PCMU");
    assert!(apart.contains("m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:b\r\na=inactive\r\n"));
    let both = text(&(audio("0", &[]) + &audio("0", &[])), "PCMU");
    assert_eq!(both.matches(PLACEHOLDER).count(), 2);
}

/// max-bundle with the video first: the audio has no transport of its own, and its owner goes.
#[test]
fn audio_inherits_the_transport_of_a_refused_section() {
    let candidate = "a=candidate:1 1 udp 2113937151 192.0.2.9 5000 typ host\r\n";
    let video = format!(
        "m=video 5000 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 192.0.2.9\r\na=mid:v\r\na=rtcp-mux\r\n{}{candidate}",
        transport()
    );
    let sdp = format!("{SESSION}a=group:BUNDLE v a\r\n{video}m=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\na=bundle-only\r\n");
    let policy = Policy::default();
    let filtered = from_browser(&sdp, Kind::Offer, &policy, &Placement::default()).expect("audio");
    let placeholder = PLACEHOLDER.replace(":1 1", ":2 1");
    let expected = format!(
        "m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\na=mid:a\r\nc=IN IP4 192.0.2.9\r\na=rtcp-mux\r\n{}{candidate}{placeholder}",
        transport()
    );
    assert!(filtered.text.ends_with(&expected), "{}", filtered.text);
    assert!(filtered.text.contains("a=group:BUNDLE a\r\nm=video 0 "));
    // in an answer port 0 is a refusal
    let answer = from_browser(&sdp, Kind::Answer, &policy, &Placement::default());
    assert!(details(answer).starts_with("audio: "));
}

#[test]
fn no_place_becomes_the_address_of_the_browser() {
    let cases: [(&str, &str, &str); 6] = [
        ("IN IP4 0.0.0.0", "192.0.2.1", "IN IP4 192.0.2.1"),
        ("IN IP6 ::", "192.0.2.1", "IN IP4 192.0.2.1"),
        ("IN IP4 0.0.0.0", "2001:db8::1", "IN IP6 2001:db8::1"),
        ("IN IP4 0.0.0.0", "::ffff:192.0.2.1", "IN IP4 192.0.2.1"),
        ("IN IP6 0:0:0:0:0:0:0:0", "::1", "IN IP6 ::1"),
        ("IN IP4 198.51.100.3", "192.0.2.1", "IN IP4 198.51.100.3"),
    ];
    for (written, address, expected) in cases {
        let address: IpAddr = address.parse().expect("an address");
        let placement = Placement {
            browser_addr: Some(address),
            keep: None,
        };
        for at_session in [true, false] {
            let section = audio("0", &[]).replace("c=IN IP4 192.0.2.9\r\n", "");
            let c = format!("c={written}\r\n");
            let sdp = match at_session {
                true => format!("{SESSION}{c}{section}"),
                false => format!(
                    "{SESSION}{}",
                    section.replace("a=ice-uf", &format!("{c}a=ice-uf"))
                ),
            };
            let text = from_browser(&sdp, Kind::Answer, &Policy::default(), &placement)
                .expect("acceptable")
                .text;
            assert_eq!(line(&text, "c="), format!("c={expected}"));
            assert_eq!(text.matches("c=").count(), sdp.matches("c=").count());
        }
    }
    // nothing is known of the browser: the line stays
    let section = audio("0", &[]).replace("192.0.2.9", "0.0.0.0");
    assert_eq!(line(&text(&section, "PCMU"), "c="), "c=IN IP4 0.0.0.0");
}

/// The kept address replaces the one that counts, also when it stands on session level.
#[test]
fn kept_lines_replace_port_and_address() {
    let first = text(
        &audio("0", &["a=candidate:7 1 udp 5 host.local 4 typ host"]),
        "PCMU",
    );
    let keep = candidates(&first);
    let section = audio("0", &["a=end-of-candidates"])
        .replace("c=IN IP4 192.0.2.9\r\n", "")
        .replace("m=audio 9", "m=audio 7000");
    let placement = Placement {
        browser_addr: None,
        keep: Some(&keep),
    };
    let sdp = format!("{SESSION}c=IN IP4 192.0.2.77\r\n{section}");
    let policy = Policy::default();
    let later = from_browser(&sdp, Kind::Answer, &policy, &placement).expect("acceptable");
    assert_eq!(candidates(&later.text), keep);
    assert_eq!(line(&later.text, "m="), "m=audio 9 UDP/TLS/RTP/SAVPF 0");
    assert_eq!(line(&later.text, "c="), "c=IN IP4 192.0.2.9");
    assert!(!later.text.contains("end-of-candidates"));
    assert!(keep.lines.starts_with("a=candidate:7 ") && keep.lines.ends_with(PLACEHOLDER));
}

#[test]
fn zero_address_from_sip_is_hold() {
    let policy = lenient();
    let section = |c: &str, port: u16, lines: &str| {
        format!("{SESSION}m=audio {port} RTP/AVP 0\r\nc=IN IP4 {c}\r\n{lines}")
    };
    let cases = [
        (section("0.0.0.0", 4000, ""), Direction::SendOnly),
        (
            section("0.0.0.0", 4000, "a=sendonly\r\n"),
            Direction::SendOnly,
        ),
        (
            section("0.0.0.0", 4000, "a=recvonly\r\n"),
            Direction::Inactive,
        ),
        (section("0.0.0.0", 9, &transport()), Direction::SendRecv),
        (section("0.0.0.0", 9, ""), Direction::SendOnly),
        (section("192.0.2.1", 4000, ""), Direction::SendRecv),
        (
            section("192.0.2.1", 4000, "a=recvonly\r\n"),
            Direction::RecvOnly,
        ),
    ];
    for (sdp, expected) in cases {
        let filtered = from_sip(&sdp, Kind::Offer, &policy).expect("acceptable");
        assert_eq!(filtered.direction, expected, "{sdp}");
        assert_eq!(direction(&filtered.text), expected, "{sdp}");
        assert_eq!(filtered.text, sdp);
    }
}

#[test]
fn direction_is_that_of_the_first_accepted_audio_section() {
    let refused = "m=audio 0 RTP/AVP 0\r\na=recvonly\r\n";
    let sdp = format!("{SESSION}a=sendonly\r\n{refused}{}", audio("0", &[]));
    let filtered = filter(&sdp, "PCMU").expect("acceptable");
    assert_eq!(filtered.direction, Direction::SendOnly);
    assert_eq!(direction(&filtered.text), Direction::SendOnly);
    assert!(!filtered.telephone_event);
    let own = with_direction(&filtered.text, Direction::Inactive);
    assert_eq!(direction(&own), Direction::Inactive);
    assert!(own.contains("o=- 1 8 IN IP4") && own.contains("a=sendonly\r\nm=audio 0 "));
    for (offered, answer) in [
        (Direction::SendRecv, Direction::SendRecv),
        (Direction::SendOnly, Direction::RecvOnly),
        (Direction::RecvOnly, Direction::SendOnly),
        (Direction::Inactive, Direction::Inactive),
    ] {
        assert_eq!(mirror(offered), answer);
    }
}

#[test]
fn versions_of_any_length_rise() {
    for (version, next) in [
        ("0", "1"),
        ("9", "10"),
        ("1299", "1300"),
        ("18446744073709551615", "18446744073709551616"),
        ("99999999999999999999999", "100000000000000000000000"),
        ("x", "x"),
    ] {
        let sdp = SESSION.replace(" 7 ", &format!(" {version} ")) + &audio("0", &[]);
        let expected = format!("o=- 1 {next} IN IP4 127.0.0.1");
        assert_eq!(
            line(&with_direction(&sdp, Direction::SendRecv), "o="),
            expected
        );
        let mut other = SESSION.replace("- 1 7", "page 55 2") + &audio("0", &[]);
        follow(&mut other, &sdp);
        assert_eq!(
            other,
            sdp.replace(&format!("o=- 1 {version} IN IP4 127.0.0.1"), &expected)
        );
    }
}

#[test]
fn line_ends() {
    let sdp = format!("{SESSION}{}", audio("0", &[]));
    let expected = filter(&sdp, "PCMU").expect("acceptable").text;
    for same in [
        sdp.replace("\r\n", "\n"),
        sdp.trim_end().to_owned(),
        sdp.trim_end().replace("\r\n", "\n"),
        sdp.clone() + "\r\n\n",
    ] {
        assert_eq!(filter(&same, "PCMU").expect("acceptable").text, expected);
    }
}

#[test]
fn what_is_no_sdp() {
    let sdp = format!("{SESSION}{}", audio("0", &[]));
    let many = "m=video 0 RTP/AVP 96\r\n".repeat(65);
    let tags = format!("a=group:BUNDLE{}\r\n", " x".repeat(100));
    let broken = [
        String::new(),
        "\r\n".to_owned(),
        "hello".to_owned(),
        "v=1\r\n".to_owned() + &sdp,
        sdp.replace("o=", "q="),
        sdp.replace("s=-", "o=- 1 2 IN IP4 127.0.0.1"),
        sdp.replace("s=-", "s=\0"),
        sdp.replace("s=-", "s=\x1b[2J"),
        sdp.replace("s=-", "s=\x7f"),
        sdp.replace("s=-", "s=a\rb"),
        sdp.replace("s=-\r\n", "s=-\r\r\n"),
        sdp.trim_end().to_owned() + "\r",
        sdp.replace("s=-", "s"),
        sdp.replace("s=-", "S=-"),
        sdp.replace("s=-", " s=-"),
        sdp.replace("s=-", "\u{e9}=-"),
        sdp.replace("s=-\r\n", "s=-\r\n\r\n"),
        sdp.replace("m=audio 9", "m=audio 65536"),
        sdp.replace("m=audio 9", "m=audio -"),
        sdp.replace(" 0\r\nc=", "\r\nc="),
        format!("{sdp}{many}"),
        format!("{sdp}a=mid:\r\n"),
        format!("{sdp}a=mid:a\r\na=mid:b\r\n"),
        format!("{sdp}a=mid:a\r\nm=video 0 RTP/AVP 96\r\na=mid:a\r\n"),
        format!("{SESSION}{tags}{}", audio("0", &[])),
    ];
    for text in broken {
        let error = filter(&text, "PCMU").expect_err(&text);
        assert!(matches!(error, Error::Malformed { .. }), "{error}: {text}");
        assert_eq!(error.code(), 400);
        assert!(!error.details().is_empty());
    }
    let tab = sdp.replace("s=-", "s=a\tb \u{fc}");
    assert!(filter(&tab, "PCMU")
        .expect("no control byte")
        .text
        .contains("s=a\tb \u{fc}\r\n"));
}

#[test]
fn lists_of_codecs() {
    assert_eq!(Policy::default().to_string(), "PCMU,telephone-event");
    let list = "opus g722,Telephone-Event";
    assert_eq!(
        Policy::parse(list).map(|policy| policy.to_string()),
        Ok("opus,G722,telephone-event".to_owned())
    );
    let unknown = Policy::parse("PCMU,ulaw").expect_err("no such name");
    assert_eq!(
        unknown,
        PolicyError::Unknown {
            name: "ulaw".to_owned()
        }
    );
    assert!(
        unknown.to_string().contains("PCMU, PCMA, G722, opus"),
        "{unknown}"
    );
    assert_eq!(
        Policy::parse("PCMU,pcmu"),
        Err(PolicyError::Twice { name: "PCMU" })
    );
    for written in ["", " ", "telephone-event,CN"] {
        let error = Policy::parse(written).expect_err("no audio codec");
        assert!(matches!(error, PolicyError::NoAudio { .. }));
        assert!(error.to_string().contains("PCMU"), "{error}");
    }
}

#[test]
fn directions_have_their_attribute_names() {
    let encoded = postcard::to_stdvec(&Direction::RecvOnly).expect("plain data");
    assert_eq!(postcard::from_bytes(&encoded), Ok(Direction::RecvOnly));
    assert_eq!(Direction::RecvOnly.name(), "recvonly");
}

const SENT: &str =
    "v=0\r\no=- 7 2 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
    c=IN IP4 192.0.2.1\r\na=candidate:1 1 udp 1 0.0.0.0 9 typ host\r\na=mid:0\r\na=sendrecv\r\n";

#[test]
fn later_candidates_stand_behind_the_first_ones() {
    let lines = |more: &[&str]| more.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    let fresh = "candidate:2 1 udp 5 192.0.2.9 4000 typ host";
    let later = rtc_json_sdp::with_candidates(
        SENT,
        &lines(&[
            fresh,
            "candidate:1 1 udp 1 0.0.0.0 9 typ host",
            "",
            "a=inactive",
            "candidate:3 1\r\na=inactive",
        ]),
    );
    let expected = SENT.replace("- 7 2 IN", "- 7 3 IN").replace(
        "typ host\r\na=mid",
        &format!("typ host\r\na={fresh}\r\na=mid"),
    );
    assert_eq!(later, expected);
}

#[test]
fn a_description_once_more_differs_in_its_version_alone() {
    let same = rtc_json_sdp::same_but_for_version;
    assert!(same(SENT, SENT));
    assert!(same(SENT, &SENT.replace("- 7 2 IN", "- 7 30 IN")));
    assert!(!same(SENT, &SENT.replace("- 7 2 IN", "- 8 2 IN")));
    assert!(!same(SENT, &SENT.replace("sendrecv", "sendonly")));
    assert!(!same(SENT, &format!("{SENT}a=x\r\n")));
}

/// Asterisk takes no ICE restart whose candidates are those that it knows.
#[test]
fn after_an_ice_restart_the_placeholder_is_another_one() {
    let policy = Policy::parse("PCMU").expect("a good list");
    let offer = |ufrag: &str, before: Option<&str>| {
        let text = format!("{SESSION}{}", audio("0", &[])).replace("abcd", ufrag);
        let keep = before.map(candidates);
        let placement = Placement {
            browser_addr: None,
            keep: keep.as_ref(),
        };
        from_browser(&text, Kind::Answer, &policy, &placement)
            .expect("a good text")
            .text
    };
    let lines = |text: &str| candidates(text).lines;
    let first = offer("abcd", None);
    let same = offer("abcd", Some(&first));
    assert_eq!(lines(&same), lines(&first));
    let second = offer("efgh", Some(&first));
    assert_ne!(lines(&second), lines(&first));
    let third = offer("ijkl", Some(&second));
    assert_ne!(lines(&third), lines(&second));
    for text in [first, second, third] {
        assert!(
            lines(&text).contains(" 1 udp 1 0.0.0.0 9 typ host"),
            "{text}"
        );
    }
}
