//! Session descriptions through the filters, and all that makes one out of another.

use rtc_json_sdp::{
    candidates, direction, follow, fragment, from_browser, from_sip, only_direction_differs,
    same_but_for_version, same_fingerprints, trickled, with_candidates, with_direction, Direction,
    Filtered, Kind, Placement, Policy,
};

/// What goes out has whole lines and nothing else that ends one.
fn whole(text: &str) {
    assert!(text.ends_with("\r\n"), "no end: {text:?}");
    for line in text.split_terminator("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
    }
}

fn again(first: &Filtered, second: Result<Filtered, rtc_json_sdp::Error>) {
    let second = second.expect("a filter takes its own output");
    assert_eq!(
        first.text, second.text,
        "a second filtering changes nothing"
    );
}

fn exercise(filtered: &Filtered) {
    let text = &filtered.text;
    whole(text);
    for way in [
        Direction::SendRecv,
        Direction::SendOnly,
        Direction::RecvOnly,
        Direction::Inactive,
    ] {
        let turned = with_direction(text, way);
        whole(&turned);
        let _read = direction(&turned);
        assert!(
            only_direction_differs(text, &turned),
            "{text}\n--\n{turned}"
        );
    }
    let mut next = text.clone();
    follow(&mut next, text);
    whole(&next);
    assert!(same_but_for_version(text, &next), "{text}\n--\n{next}");
    assert!(same_fingerprints(text, &next));
    let lines = [
        "candidate:1 1 udp 1 192.0.2.1 9000 typ host".to_owned(),
        String::new(),
    ];
    whole(&with_candidates(text, &lines));
    if let Some(fragment) = fragment(text, &lines) {
        assert!(!trickled(&fragment).is_empty(), "{fragment}");
    }
}

/// The first byte chooses the policy; the rest is the description.
pub fn sdp(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let list = ["PCMU,telephone-event", "opus,PCMU,PCMA,telephone-event"];
    let mut policy = Policy::parse(list[usize::from(choice & 1)]).expect("known codecs");
    policy.require_dtls = choice & 2 == 0;
    let _lines = trickled(text);
    for kind in [Kind::Offer, Kind::Answer] {
        let placement = Placement {
            browser_addr: Some([198, 51, 100, 7].into()),
            keep: None,
        };
        if let Ok(first) = from_browser(text, kind, &policy, &placement) {
            again(&first, from_browser(&first.text, kind, &policy, &placement));
            let keep = candidates(&first.text);
            let kept = Placement {
                keep: Some(&keep),
                ..placement
            };
            let later = from_browser(&first.text, kind, &policy, &kept).expect("the same again");
            // they may come to stand elsewhere in the section, but are the same and in the same order
            assert_eq!(candidates(&later.text), keep);
            exercise(&first);
        }
        if let Ok(first) = from_sip(text, kind, &policy) {
            again(&first, from_sip(&first.text, kind, &policy));
            exercise(&first);
        }
    }
}
