//! Cost of the filters on recorded offers.

// criterion's macro writes a public function without a doc
#![allow(missing_docs)]

use criterion::{criterion_group, criterion_main, Criterion};
use rtc_json_sdp::{candidates, from_browser, from_sip, with_direction, Kind, Placement, Policy};

fn filters(c: &mut Criterion) {
    let policy = Policy::default();
    let placement = Placement {
        browser_addr: Some([192, 0, 2, 1].into()),
        keep: None,
    };
    let video = include_str!("../tests/samples/chromium-offer-audio-video.sdp");
    let audio = include_str!("../tests/samples/chromium-offer-audio.sdp");
    let answer = include_str!("../tests/samples/asterisk-answer.sdp");
    c.bench_function("from_browser, audio and video, 5.7 kB", |b| {
        b.iter(|| from_browser(video, Kind::Offer, &policy, &placement))
    });
    c.bench_function("from_browser, audio, 1.3 kB", |b| {
        b.iter(|| from_browser(audio, Kind::Offer, &policy, &placement))
    });
    c.bench_function("from_sip, answer, 0.9 kB", |b| {
        b.iter(|| from_sip(answer, Kind::Answer, &policy))
    });
    let sent = from_browser(audio, Kind::Offer, &policy, &placement).expect("a recorded offer");
    c.bench_function("candidates", |b| b.iter(|| candidates(&sent.text)));
    c.bench_function("with_direction", |b| {
        b.iter(|| with_direction(&sent.text, sent.direction))
    });
}

criterion_group!(benches, filters);
criterion_main!(benches);
