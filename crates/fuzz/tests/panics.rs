//! A hundred thousand panics at every place of the C surface where an event can fail: none leaves it (that would end this
//! process), no lock stays held, and the next event is handled.

use std::collections::BTreeMap;

use rtc_json_ffi::testing::{arm, records};
use rtc_json_fuzz::{call, reset, Surface};

const PANICS: u32 = 100_000;

/// Every call of the surface, in an order in which they reach something: a browser registers, calls, is called, leaves.
fn script() -> Vec<Vec<u8>> {
    let offer = include_str!("../../engine/tests/samples/chromium-offer.sdp")
        .replace('\r', "\\r")
        .replace('\n', "\\n");
    let sip_offer =
        include_str!("../../engine/tests/samples/asterisk-answer.sdp").replace("\r\n", "|");
    let invite = "INVITE sip:5001@127.0.0.1 SIP/2.0|Via: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bK1|Max-Forwards: 70|\
        From: <sip:1003@pbx.example>;tag=f1|To: <sip:5001@pbx.example>|Call-ID: in-1|CSeq: 1 INVITE|\
        Contact: <sip:1003@127.0.0.1:5080>|Content-Type: application/sdp||";
    let lines = [
        r#"f1{"type":"register","payload":{"dn":"5001","password":"pw-of-5001"},"id":"r1"}"#.to_owned(),
        "r401".to_owned(),
        "r200".to_owned(),
        format!(r#"f1{{"type":"call","payload":{{"to":"600","sdp":"{offer}"}},"id":"c1"}}"#),
        "r200".to_owned(),
        r#"f1{"type":"hold","payload":{"callId":"$call","hold":true},"id":"h1"}"#.to_owned(),
        "r200".to_owned(),
        r#"o1{"type":"ping","payload":{},"id":"p1"}"#.to_owned(),
        "h".to_owned(),
        "l0".to_owned(),
        r#"o1{"type":"ping","payload":{},"id":"p2"}"#.to_owned(),
        "j3".to_owned(),
        "l1".to_owned(),
        "w5001".to_owned(),
        format!("s1{invite}{sip_offer}"),
        "s2OPTIONS sip:5001@x SIP/2.0|Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK2|From: <sip:a@b>;tag=1|To: <sip:5001@x>|Call-ID: o|CSeq: 1 OPTIONS||".to_owned(),
        r#"f1{"type":"hangup","payload":{"callId":"$call","reason":"busy"},"id":"x1"}"#.to_owned(),
        "r200".to_owned(),
        "gGET /api/health HTTP/1.1|Host: a||".to_owned(),
        "gGET /api/agents HTTP/1.1|Host: a||".to_owned(),
        "b".to_owned(),
        "d5001,Ann,ann,sales".to_owned(),
        "e".to_owned(),
        "R".to_owned(),
        "t".to_owned(),
        "vcall.from".to_owned(),
        "S3".to_owned(),
        "A".to_owned(),
        "a5001".to_owned(),
        "C".to_owned(),
        "unobody".to_owned(),
        "D0".to_owned(),
        "T".to_owned(),
        "c1".to_owned(),
    ];
    lines.map(String::into_bytes).to_vec()
}

#[test]
fn a_panic_at_any_entry_stays_inside() {
    std::panic::set_hook(Box::new(|_| {}));
    Surface::start();
    let script = script();
    // what passes without a fault, as the measure for what must still pass after each
    for line in &script {
        call(line);
    }
    reset();
    let mut struck: BTreeMap<u8, u32> = BTreeMap::new();
    let mut total = 0;
    let mut round = 0;
    while total < PANICS {
        round += 1;
        for (at, line) in script.iter().enumerate() {
            // the entry itself, then each place further in, in turn
            let place = 1 + (round + at as u32) % 9;
            arm(place);
            call(line);
            if arm(0) == 0 {
                total += 1;
                *struck.entry(line[0]).or_default() += 1;
            }
            // the same again without a fault: the surface still works
            if (round + at as u32) % 3 == 0 {
                call(line);
            }
        }
        // another thread waits for a lock that this one had left held, and would say so
        if round % 500 == 1 {
            let here = records();
            let there = std::thread::spawn(records)
                .join()
                .expect("all can be locked");
            assert_eq!(here, there);
        }
        reset();
        assert_eq!(records().len(), 0, "nothing keeps a record from going");
    }
    drop(std::panic::take_hook());
    println!("{total} panics in {round} rounds: {struck:?}");
    for op in script.iter().map(|line| line[0]) {
        assert!(
            struck.get(&op).is_some_and(|n| *n > 100),
            "{}: {struck:?}",
            char::from(op)
        );
    }
}
