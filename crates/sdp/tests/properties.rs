//! What must hold for any text at all: on generated ones, on mutilated recordings, and on a corpus of foreign SDPs.

use std::{fs, path::PathBuf};

use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree};
use rtc_json_sdp::{
    candidates, direction, follow, from_browser, from_sip, only_direction_differs, with_direction,
    Direction, Filtered, Kind, Placement, Policy,
};

const PRINT: &str = "a=fingerprint:sha-256 9B:2E:62:8B:3F:01:97:5F:2A:AC:B2:B7:08:CB:62:18:D8:C4:AE:C0:56:8B:6A:20:BF:CB:5D:98:14:5D:28:F0";
const RECORDED: [&str; 4] = [
    include_str!("samples/chromium-offer-audio-video-gathered.sdp"),
    include_str!("samples/firefox-offer-audio-gathered.sdp"),
    include_str!("samples/asterisk-answer-video-refused.sdp"),
    include_str!("samples/asterisk-offer-plain.sdp"),
];

fn policies() -> Vec<Policy> {
    [
        "PCMU,telephone-event",
        "opus,PCMA,PCMU,CN,telephone-event",
        "G722",
    ]
    .iter()
    .flat_map(|list| {
        let strict = Policy::parse(list).expect("a good list");
        let mut lenient = strict.clone();
        lenient.require_dtls = false;
        [strict, lenient]
    })
    .collect()
}

/// Does a line belong to what a rule may change or remove?
fn is_named(line: &str) -> bool {
    [
        "m=",
        "c=",
        "a=rtpmap:",
        "a=fmtp:",
        "a=rtcp-fb:",
        "a=crypto:",
        "a=fingerprint:",
        "a=candidate:",
        "a=end-of-candidates",
        "a=group:BUNDLE",
        "a=bundle-only",
        // may move here from a section that is refused
        "a=ice-ufrag:",
        "a=ice-pwd:",
        "a=setup:",
        "a=rtcp-mux",
    ]
    .iter()
    .any(|name| line.starts_with(name))
}

/// Session level and sections.
fn parts(sdp: &str) -> Vec<Vec<&str>> {
    let mut parts = vec![Vec::new()];
    for line in sdp.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.starts_with("m=") {
            parts.push(Vec::new());
        }
        if !line.is_empty() {
            parts.last_mut().expect("never empty").push(line);
        }
    }
    parts
}

fn check_output(input: &str, output: &str, policy: &Policy) {
    let (before, after) = (parts(input), parts(output));
    assert_eq!(before.len(), after.len(), "number of sections");
    for (n, (before, after)) in before.iter().zip(&after).enumerate() {
        if n == 0 {
            let unnamed = |part: &[&str]| -> Vec<String> {
                let kept = part.iter().filter(|line| !is_named(line));
                kept.map(|line| line.to_string()).collect()
            };
            assert_eq!(unnamed(before), unnamed(after));
            continue;
        }
        let words = |line: &str| -> Vec<String> {
            line[2..]
                .split(' ')
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (was, is) = (words(before[0]), words(after[0]));
        assert_eq!(was[0], is[0], "kind of media");
        assert_eq!(was[2], is[2], "profile");
        let bundle_only = after.contains(&"a=bundle-only");
        if is[1] == "0" && !bundle_only {
            assert_eq!(is.len(), 4, "one format stays");
            assert!(after.contains(&"a=inactive"));
            assert!(after[1..].iter().all(|line| {
                *line == "a=inactive" || line.starts_with("a=mid:") || line.starts_with("c=")
            }));
            continue;
        }
        assert_eq!(is[0], "audio", "nothing but audio is accepted");
        let unnamed = |part: &[&str]| -> Vec<String> {
            let kept = part.iter().filter(|line| !is_named(line));
            kept.map(|line| line.to_string()).collect()
        };
        assert_eq!(unnamed(before), unnamed(after));
        let allowed = policy.to_string().to_lowercase();
        let allowed: Vec<&str> = allowed.split(',').collect();
        for pt in &is[3..] {
            let map = format!("a=rtpmap:{pt} ");
            let maps: Vec<&str> = after
                .iter()
                .filter_map(|line| line.strip_prefix(&*map))
                .collect();
            let fixed = match pt.as_str() {
                "0" => "pcmu/",
                "8" => "pcma/",
                "9" => "g722/",
                "13" => "cn/",
                _ => "none/",
            };
            let names = if maps.is_empty() { vec![fixed] } else { maps };
            for name in names {
                let name = name
                    .trim_start()
                    .split('/')
                    .next()
                    .unwrap_or(name)
                    .to_lowercase();
                assert!(allowed.contains(&&*name), "{name} is not allowed");
            }
        }
        for line in &after[1..] {
            let of_format = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"]
                .iter()
                .find_map(|name| line.strip_prefix(name));
            if let Some(value) = of_format {
                let pt = value.split(' ').next().unwrap_or(value);
                let number = pt.trim_start_matches('0');
                let number = if number.is_empty() { "0" } else { number };
                assert!(pt == "*" || is[3..].iter().any(|f| f == number), "{line}");
            }
        }
    }
}

fn check(sdp: &str) -> usize {
    let mut accepted = 0;
    let address = Placement {
        browser_addr: Some([192, 0, 2, 1].into()),
        keep: None,
    };
    for policy in policies() {
        for kind in [Kind::Offer, Kind::Answer] {
            if let Ok(out) = from_sip(sdp, kind, &policy) {
                check_output(sdp, &out.text, &policy);
                assert_eq!(from_sip(&out.text, kind, &policy), Ok(out.clone()));
                assert!(only_direction_differs(&out.text, &out.text));
                accepted += 1;
            }
            for placement in [address, Placement::default()] {
                let Ok(out) = from_browser(sdp, kind, &policy, &placement) else {
                    continue;
                };
                check_output(sdp, &out.text, &policy);
                assert!(
                    out.text.contains(" 1 udp 1 0.0.0.0 9 typ host\r\n")
                        || sdp.contains(" 0.0.0.0 9 ")
                );
                let again = from_browser(&out.text, kind, &policy, &placement);
                assert_eq!(again, Ok(out.clone()));
                check_later(sdp, &out, kind, &policy);
                accepted += 1;
            }
        }
    }
    accepted
}

/// Later texts of the same call.
fn check_later(sdp: &str, out: &Filtered, kind: Kind, policy: &Policy) {
    let keep = candidates(&out.text);
    let placement = Placement {
        browser_addr: Some([198, 51, 100, 1].into()),
        keep: Some(&keep),
    };
    let later = from_browser(sdp, kind, policy, &placement).expect("accepted without them");
    check_output(sdp, &later.text, policy);
    // where the group names a later section first, its transport is that section's
    if keep.port != 0 && !sdp.contains("BUNDLE b a") {
        assert_eq!(candidates(&later.text), keep);
    }
    for wanted in [
        Direction::SendRecv,
        Direction::SendOnly,
        Direction::RecvOnly,
        Direction::Inactive,
    ] {
        let text = with_direction(&out.text, wanted);
        let mut followed = out.text.clone();
        follow(&mut followed, &out.text);
        let origin = |text: &str| {
            text.lines()
                .find(|line| line.starts_with("o="))
                .map(str::to_owned)
        };
        assert_eq!(origin(&text), origin(&followed));
        assert_eq!(parts(&text).len(), parts(&out.text).len());
        let others = |text: &str| -> Vec<String> {
            let directions = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
            text.lines()
                .filter(|line| !line.starts_with("o=") && !directions.contains(line))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(others(&text), others(&out.text));
        let nowhere = ["IN IP4 0.0.0.0", "IN IP6 ::"].contains(&&*keep.connection);
        if keep.port != 0 && !nowhere {
            assert_eq!(direction(&text), wanted);
        }
    }
}

/// Everything that takes a text, on one that may be anything.
fn must_not_panic(sdp: &str) {
    check(sdp);
    let _ = candidates(sdp);
    let _ = direction(sdp);
    let _ = with_direction(sdp, Direction::SendOnly);
    let _ = only_direction_differs(sdp, RECORDED[0]);
    let _ = only_direction_differs(RECORDED[0], sdp);
    let mut text = sdp.to_owned();
    follow(&mut text, RECORDED[0]);
    follow(&mut text, sdp);
}

fn attribute() -> impl Strategy<Value = String> {
    let fixed = select(vec![
        "a=ice-ufrag:abcd",
        "a=ice-ufrag:efgh",
        "a=ice-ufrag:x",
        "a=ice-pwd:0123456789abcdefghijkl",
        PRINT,
        "a=fingerprint:sha-1 00:11",
        "a=setup:actpass",
        "a=setup:active",
        "a=setup:passive",
        "a=mid:a",
        "a=bundle-only",
        "a=rtcp-mux",
        "a=sendrecv",
        "a=sendonly",
        "a=recvonly",
        "a=inactive",
        "a=end-of-candidates",
        "a=crypto:1 AES inline:xyz",
        "a=ptime:20",
        "a=extmap:1 urn:x",
        "a=msid:- x",
        "a=ssrc:1 cname:x",
        "c=IN IP4 0.0.0.0",
        "c=IN IP4 192.0.2.3",
        "c=IN IP6 ::",
        "b=AS:64",
        "i=x",
        "a=",
        "a=rtpmap:",
        "a=fmtp:",
        "a=candidate:",
        "a=candidate:1 1 udp 1 0.0.0.0 9 typ host",
        "a=candidate:63 1 udp 1 192.0.2.1 9 typ host",
        "a=candidate:99 1 tcp 1 x.local 9 typ host",
        "a=candidate:1 1 udp 7 192.0.2.1 4000 typ host",
        "a=rtcp-fb:* nack",
        "a=ice-options:trickle",
        "o=- 1 2 IN IP4 127.0.0.1",
        "a=rtcp:9 IN IP4 0.0.0.0",
    ])
    .prop_map(str::to_owned);
    let payload = select(vec![
        "0", "8", "9", "13", "96", "101", "110", "111", "127", "128", "007",
    ]);
    let codec = select(vec![
        "PCMU/8000",
        "pcma/8000",
        "G722/8000/1",
        "opus/48000/2",
        "telephone-event/8000",
        "telephone-event/48000",
        "CN/8000",
        "CN/16000",
        "red/48000/2",
        "opus/48000",
        "",
        "/",
        "PCMU",
    ]);
    let of_format = (select(vec!["rtpmap", "fmtp", "rtcp-fb"]), payload, codec)
        .prop_map(|(name, pt, codec)| format!("a={name}:{pt} {codec}"));
    prop_oneof![2 => fixed, 2 => of_format, 1 => "[a-z]=[ -~]{0,12}"]
}

fn section() -> impl Strategy<Value = String> {
    let m = (
        select(vec!["audio", "audio", "audio", "video", "application"]),
        select(vec!["9", "9", "0", "4000", "5000/2"]),
        select(vec![
            "UDP/TLS/RTP/SAVPF",
            "UDP/TLS/RTP/SAVPF",
            "UDP/TLS/RTP/SAVP",
            "RTP/AVP",
            "RTP/SAVP",
        ]),
        vec(
            select(vec![
                "0", "8", "9", "13", "96", "101", "110", "111", "127", "128", "007", "x",
            ]),
            1..7,
        ),
    )
        .prop_map(|(kind, port, profile, formats)| {
            format!("m={kind} {port} {profile} {}", formats.join(" "))
        });
    // most sections are complete, or hardly any text would be accepted
    let transport = prop_oneof![
        3 => Just(format!("a=ice-ufrag:abcd\na=ice-pwd:0123456789abcdefghijkl\n{PRINT}\na=setup:active")),
        1 => Just("a=x".to_owned()),
    ];
    (
        m,
        vec(attribute(), 0..6),
        transport,
        vec(attribute(), 0..10),
    )
        .prop_map(|(m, above, transport, below)| {
            let lines: Vec<String> = [m]
                .into_iter()
                .chain(above)
                .chain([transport])
                .chain(below)
                .collect();
            lines.join("\n")
        })
}

fn text() -> impl Strategy<Value = String> {
    let session = select(vec![
        "a=group:BUNDLE a b c",
        "a=group:BUNDLE b a",
        "a=group:BUNDLE",
        "a=group:LS a b",
        PRINT,
        "a=setup:passive",
        "a=ice-ufrag:wxyz",
        "a=ice-pwd:zyxwvutsrqponmlkjihgfe",
        "c=IN IP4 0.0.0.0",
        "c=IN IP6 2001:db8::1",
        "a=sendonly",
        "a=ice-options:trickle",
        "a=msid-semantic: WMS",
    ]);
    (
        vec(session, 0..6),
        vec((section(), any::<bool>()), 0..5),
        any::<bool>(),
    )
        .prop_map(|(session, sections, crlf)| {
            let mut text = "v=0\no=- 1 9 IN IP4 127.0.0.1\ns=-\nt=0 0\n".to_owned();
            let tagged = sections.into_iter().zip(["a", "b", "c", "d", "e"]).map(
                |((section, tagged), mid)| match tagged {
                    true => format!(
                        "{section}
a=mid:{mid}"
                    ),
                    false => section,
                },
            );
            for line in session.iter().map(|line| (*line).to_owned()).chain(tagged) {
                text.push_str(&line);
                text.push('\n');
            }
            match crlf {
                true => text.replace('\n', "\r\n"),
                false => text,
            }
        })
}

/// As many as there is time for: Miri takes a thousand times as long.
const CASES: u32 = if cfg!(miri) { 4 } else { 300 };
const ACCEPTED: usize = if cfg!(miri) { 20 } else { 200 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_texts(sdp in text()) {
        must_not_panic(&sdp);
    }

    #[test]
    fn any_text_at_all(sdp in "\\PC{0,60}|[avmco=: 09/\r\n]{0,80}") {
        must_not_panic(&sdp);
        must_not_panic(&format!("v=0\no=- 1 1 IN IP4 127.0.0.1\n{sdp}"));
    }

    /// One piece of a recording is cut out, doubled, or overwritten.
    #[test]
    fn mutilated_recordings(
        which in 0..RECORDED.len(), from in any::<usize>(), length in 0..80usize, with in "\\PC{0,6}|[\0-\x7f]{0,6}", twice in any::<bool>(),
    ) {
        let sample = RECORDED[which];
        let mut bytes = sample.as_bytes().to_vec();
        let from = from % bytes.len();
        let to = (from + length).min(bytes.len());
        let piece = if twice { bytes[from..to].repeat(2) } else { with.into_bytes() };
        bytes.splice(from..to, piece);
        must_not_panic(&String::from_utf8_lossy(&bytes));
    }
}

/// The generator must reach the interesting part: texts that are accepted.
#[test]
fn many_generated_texts_are_accepted() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = text();
    let accepted = (0..ACCEPTED)
        .filter(|_| {
            let tree = strategy
                .new_tree(&mut runner)
                .expect("nothing is filtered out");
            check(&tree.current()) > 0
        })
        .count();
    assert!(accepted > ACCEPTED * 3 / 10, "{accepted} of {ACCEPTED}");
}

#[test]
fn recordings() {
    for sample in RECORDED {
        assert!(check(sample) > 0);
        must_not_panic(sample);
    }
}

/// SDPs of other programs. They are no part of the project; without them the test says so and ends.
#[test]
fn foreign_corpus() {
    let folder = match std::env::var_os("RTC_JSON_CORPORA") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"),
    }
    .join("sdp");
    let Ok(entries) = fs::read_dir(&folder) else {
        println!("skipped: no corpus of SDPs (RTC_JSON_CORPORA names its folder)");
        return;
    };
    let (mut count, mut accepted) = (0, Vec::new());
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_some_and(|ext| ext == "sdp") {
            let bytes = fs::read(&path).expect("a readable file");
            let sdp = String::from_utf8_lossy(&bytes);
            must_not_panic(&sdp);
            if check(&sdp) > 0 {
                accepted.push(
                    path.file_stem()
                        .map(|n| n.to_string_lossy().into_owned())
                        .unwrap_or_default(),
                );
            }
            count += 1;
        }
    }
    assert!(count >= 20, "{count} files");
    for name in ["jsep", "icelite", "ssrc", "normal"] {
        assert!(
            accepted.iter().any(|n| n == name),
            "{name} should pass some filter: {accepted:?}"
        );
    }
}
