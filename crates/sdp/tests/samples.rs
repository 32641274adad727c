//! The filters on what Chromium 156, Firefox 153 and Asterisk 22 really wrote. Files under `samples` are byte for byte
//! as recorded, on loopback.

use std::collections::HashMap;

use rtc_json_sdp::{
    candidates, direction, follow, from_browser, from_sip, only_direction_differs, with_direction,
    Direction, Error, Filtered, Kind, Placement, Policy,
};

macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("samples/", $name, ".sdp"))
    };
}

const BROWSER: [&str; 11] = [
    sample!("chromium-offer-audio"),
    sample!("chromium-offer-audio-gathered"),
    sample!("chromium-offer-audio-mdns"),
    sample!("chromium-offer-audio-video"),
    sample!("chromium-offer-audio-video-gathered"),
    sample!("firefox-offer-audio"),
    sample!("firefox-offer-audio-gathered"),
    sample!("firefox-offer-audio-video"),
    sample!("chromium-answer-audio"),
    sample!("chromium-answer-audio-gathered"),
    sample!("firefox-answer-audio"),
];

const PLACEHOLDER: &str = "a=candidate:1 1 udp 1 0.0.0.0 9 typ host";

fn kind(sdp: &str) -> Kind {
    match sdp.contains("a=setup:actpass") {
        true => Kind::Offer,
        false => Kind::Answer,
    }
}

fn sent(sdp: &str) -> Filtered {
    let placement = Placement {
        browser_addr: Some([203, 0, 113, 7].into()),
        keep: None,
    };
    from_browser(sdp, kind(sdp), &Policy::default(), &placement).expect("a recorded sdp")
}

fn lines(sdp: &str) -> Vec<&str> {
    sdp.split("\r\n").filter(|line| !line.is_empty()).collect()
}

/// The lines of the first audio section.
fn audio(sdp: &str) -> Vec<&str> {
    let mut inside = false;
    lines(sdp)
        .into_iter()
        .filter(|line| {
            if line.starts_with("m=") {
                inside = line.starts_with("m=audio");
            }
            inside
        })
        .collect()
}

/// Every browser sample leaves with PCMU and telephone-event, its own lines untouched, and nothing lost but what a rule
/// names.
#[test]
fn browser_samples_keep_their_lines() {
    for sample in BROWSER {
        let Filtered {
            text,
            direction,
            telephone_event,
            candidates,
        } = sent(sample);
        assert_eq!(direction, Direction::SendRecv);
        assert!(telephone_event);
        let own = sample.matches("a=candidate:").count();
        // the samples with video bring two candidates for each of three sections
        assert!(candidates <= own && (candidates > 0) == (own > 0));
        let event = match sample.contains("SDPARTA") {
            true => "101",
            false => "126",
        };
        let formats = ["0", event];
        let mut unknown: HashMap<&str, usize> = HashMap::new();
        for line in audio(sample) {
            *unknown.entry(line).or_default() += 1;
        }
        for line in audio(&text) {
            if let Some(count) = unknown.get_mut(line) {
                *count -= 1;
                continue;
            }
            let new = line.starts_with("m=audio ")
                || line == "c=IN IP4 203.0.113.7"
                || line.ends_with(" 1 udp 1 0.0.0.0 9 typ host");
            assert!(new, "this line came from nowhere: {line}");
        }
        let lost = unknown.iter().filter(|(_, &count)| count > 0);
        for (line, _) in lost {
            let format = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"]
                .iter()
                .find_map(|name| line.strip_prefix(name))
                .and_then(|value| value.split(' ').next());
            match format {
                Some(format) => assert!(!formats.contains(&format), "lost: {line}"),
                None => assert!(
                    line.starts_with("m=audio ") || *line == "c=IN IP4 0.0.0.0",
                    "lost: {line}"
                ),
            }
        }
        let m = audio(&text)[0];
        assert!(
            m.ends_with(&format!("UDP/TLS/RTP/SAVPF {}", formats.join(" "))),
            "{m}"
        );
        assert_eq!(text.matches(" 1 udp 1 0.0.0.0 9 typ host\r\n").count(), 1);
    }
}

#[test]
fn chromium_before_gathering() {
    let sample = sample!("chromium-offer-audio");
    let expected = sample
        .replace(" 111 63 9 0 8 13 110 126", " 0 126")
        .replace("c=IN IP4 0.0.0.0", "c=IN IP4 203.0.113.7")
        .replace("a=ice-ufrag:", &format!("{PLACEHOLDER}\r\na=ice-ufrag:"));
    let gone = [
        "a=rtpmap:111 ",
        "a=rtcp-fb:111 ",
        "a=fmtp:111 ",
        "a=rtpmap:63 ",
        "a=fmtp:63 ",
        "a=rtpmap:9 ",
        "a=rtpmap:8 ",
        "a=rtpmap:13 ",
        "a=rtpmap:110 ",
    ];
    let expected: Vec<&str> = lines(&expected)
        .into_iter()
        .filter(|line| !gone.iter().any(|gone| line.starts_with(gone)))
        .collect();
    assert_eq!(lines(&sent(sample).text), expected);
}

#[test]
fn video_and_data_are_refused_in_place() {
    for sample in [
        sample!("chromium-offer-audio-video"),
        sample!("chromium-offer-audio-video-gathered"),
        sample!("firefox-offer-audio-video"),
    ] {
        let text = sent(sample).text;
        let kinds: Vec<&str> = lines(&text)
            .into_iter()
            .filter(|line| line.starts_with("m="))
            .map(|line| line.split(' ').next().unwrap_or(""))
            .collect();
        assert_eq!(kinds, ["m=audio", "m=video", "m=application"]);
        assert!(text.contains("\r\na=group:BUNDLE 0\r\n"));
        let refused = &lines(&text)[lines(&text)
            .iter()
            .position(|line| line.starts_with("m=video"))
            .expect("the section of the video")..];
        assert_eq!(refused.len(), 8, "{refused:?}");
        assert!(refused[0].starts_with("m=video 0 UDP/TLS/RTP/SAVPF "));
        assert_eq!(refused[0].split(' ').count(), 4);
        assert_eq!(refused[2..4], ["a=mid:1", "a=inactive"]);
        assert_eq!(
            refused[4],
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"
        );
        assert_eq!(refused[6..8], ["a=mid:2", "a=inactive"]);
    }
}

/// Firefox uses 0 and 1 as foundations.
#[test]
fn placeholder_has_a_foundation_of_its_own() {
    let text = sent(sample!("firefox-offer-audio-gathered")).text;
    let all: Vec<&str> = lines(&text)
        .into_iter()
        .filter(|line| line.starts_with("a=candidate:"))
        .collect();
    assert_eq!(all.len(), 5);
    assert_eq!(all[4], "a=candidate:2 1 udp 1 0.0.0.0 9 typ host");
    assert!(text.contains("\r\na=end-of-candidates\r\n"));
    assert!(text.contains("\r\nc=IN IP4 198.18.0.1\r\n"));
}

#[test]
fn hidden_addresses_get_a_place() {
    let text = sent(sample!("chromium-offer-audio-mdns")).text;
    let at = |wanted: &str| lines(&text).iter().position(|line| line.contains(wanted));
    assert_eq!(at(".local ").map(|n| n + 1), at(PLACEHOLDER));
    assert!(at(".local ").is_some());
    assert!(text.contains("\r\nc=IN IP4 203.0.113.7\r\n"));
}

/// A call's second offer has gathered candidates; the SIP side sees the lines of the first.
#[test]
fn later_offers_repeat_the_first_candidates() {
    let first = sent(sample!("chromium-offer-audio"));
    let keep = candidates(&first.text);
    assert_eq!(keep.port, 9);
    assert_eq!(keep.connection, "IN IP4 203.0.113.7");
    assert_eq!(keep.lines, format!("{PLACEHOLDER}\r\n"));
    // the two recordings are one peer connection
    let gathered = sample!("chromium-offer-audio-gathered");
    let placement = Placement {
        browser_addr: Some([198, 51, 100, 1].into()),
        keep: Some(&keep),
    };
    let policy = Policy::default();
    let later = from_browser(gathered, Kind::Offer, &policy, &placement).expect("a recorded sdp");
    assert_eq!(later.text, first.text);
    assert_eq!(candidates(&later.text), keep);
    // an ICE restart makes the old ones void
    let restarted = gathered.replace("a=ice-ufrag:", "a=ice-ufrag:new");
    let later = from_browser(&restarted, Kind::Offer, &policy, &placement).expect("a changed sdp");
    assert_eq!(later.candidates, 2);
    assert!(later.text.contains("\r\nc=IN IP4 127.0.0.1\r\n"));
    assert_ne!(candidates(&later.text).port, 9);
}

#[test]
fn kept_candidates_survive_their_encoding() {
    let keep = candidates(&sent(sample!("firefox-offer-audio-gathered")).text);
    let bytes = postcard::to_stdvec(&keep).expect("plain data");
    assert_eq!(postcard::from_bytes(&bytes), Ok(keep));
}

#[test]
fn asterisk_answers_and_offers_pass() {
    let policy = Policy::default();
    for (sample, kind) in [
        (sample!("asterisk-answer"), Kind::Answer),
        (sample!("asterisk-answer-video-refused"), Kind::Answer),
        (sample!("asterisk-offer"), Kind::Offer),
    ] {
        let filtered = from_sip(sample, kind, &policy).expect("a recorded sdp");
        // PCMA goes, nothing else
        let expected: Vec<String> = lines(sample)
            .into_iter()
            .filter(|line| !line.starts_with("a=rtpmap:8 "))
            .map(|line| match line.starts_with("m=audio ") {
                true => line.replace(" 0 8 ", " 0 "),
                false => line.to_owned(),
            })
            .collect();
        let got = lines(&filtered.text);
        let of_video = |line: &&str| line.starts_with("m=video ") || line.starts_with("m=app");
        match got.iter().position(of_video) {
            None => assert_eq!(got, expected),
            Some(at) => assert_eq!(got[..at], expected[..at]),
        }
        assert!(filtered.telephone_event);
        assert_eq!(filtered.direction, Direction::SendRecv);
        assert_eq!(filtered.candidates, 1);
    }
}

#[test]
fn plain_rtp_passes_only_if_a_relay_is_to_come() {
    let sample = sample!("asterisk-offer-plain");
    let mut policy = Policy::default();
    let error = from_sip(sample, Kind::Offer, &policy).expect_err("no DTLS in it");
    assert!(matches!(error, Error::NotAcceptable { .. }));
    assert_eq!(error.code(), 488);
    for word in ["profile", "fingerprint", "setup", "ice-ufrag", "ice-pwd"] {
        let starts = |part: &str| part.starts_with(&format!("{word}: "));
        assert!(error.details().split("; ").any(starts), "{error}");
    }
    policy.require_dtls = false;
    let text = from_sip(sample, Kind::Offer, &policy)
        .expect("no DTLS is demanded")
        .text;
    assert!(text.contains("m=audio 21038 RTP/AVP 0 101\r\n") && !text.contains("PCMA"));
    // never from a browser
    let error = from_browser(sample, Kind::Offer, &policy, &Placement::default());
    assert!(matches!(error, Err(Error::NotAcceptable { .. })));
}

#[test]
fn hold_and_back() {
    let first = sent(sample!("chromium-offer-audio")).text;
    let held = with_direction(&first, Direction::SendOnly);
    let expected = first.replace("a=sendrecv", "a=sendonly").replacen(
        " 2 IN IP4 127.0.0.1",
        " 3 IN IP4 127.0.0.1",
        1,
    );
    assert_eq!(held, expected);
    assert_eq!(direction(&held), Direction::SendOnly);
    let back = with_direction(&held, Direction::SendRecv);
    assert_eq!(back, first.replacen(" 2 IN IP4", " 4 IN IP4", 1));
    // the browser's own next offer still says version 2, or 3
    let mut next = first.clone();
    follow(&mut next, &back);
    assert_eq!(next, first.replacen(" 2 IN IP4", " 5 IN IP4", 1));
}

/// Asterisk's answer and a later offer of its own differ in more than the direction: setup, and what it offers again.
#[test]
fn asterisk_holds_after_its_answer() {
    let policy = Policy::default();
    let answer = sample!("asterisk-answer");
    let old = from_sip(answer, Kind::Answer, &policy)
        .expect("recorded")
        .text;
    let offer = with_direction(answer, Direction::SendOnly)
        .replace("a=setup:active", "a=setup:actpass")
        .replace("a=connection:new", "a=connection:existing");
    let new = from_sip(&offer, Kind::Offer, &policy).expect("as recorded");
    assert_eq!(new.direction, Direction::SendOnly);
    assert!(only_direction_differs(&old, &new.text));
    for (from, to) in [
        ("a=ice-pwd:0", "a=ice-pwd:1"),
        ("a=ice-ufrag:1", "a=ice-ufrag:2"),
        ("SHA-256 93", "SHA-256 94"),
        ("m=audio 21016", "m=audio 21018"),
        ("c=IN IP4 127.0.0.1", "c=IN IP4 127.0.0.2"),
        ("rtpmap:126 ", "rtpmap:99 "),
        ("a=mid:0", "a=mid:1"),
        ("a=setup:actpass", "a=setup:passive"),
        ("UDP/TLS/RTP/SAVPF 0 126", "UDP/TLS/RTP/SAVPF 0"),
    ] {
        let other = new.text.replace(from, to);
        assert_ne!(other, new.text, "{from} is not in the text");
        assert!(!only_direction_differs(&old, &other), "{from} -> {to}");
    }
    // more codecs than agreed are no change of what runs, nor is a hold as RFC 2543 had it
    let more = new.text.replace(
        "SAVPF 0 126\r\n",
        "SAVPF 126 0 9\r\na=rtpmap:9 G722/8000\r\n",
    );
    assert!(only_direction_differs(&old, &more));
    let nowhere = new.text.replace("c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0");
    assert!(only_direction_differs(&old, &nowhere));
    let section = "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
    assert!(!only_direction_differs(&old, &(new.text.clone() + section)));
}
