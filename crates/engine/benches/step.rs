//! What one `call` costs in the engine: parse the frame, decode the record, step, encode the record, write the frame; as a
//! ratio to `serde_json::from_slice::<Value>` of the same frame, taken in the same run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rtc_json_engine::{step, Agent, Config, Env, Handle, Input, Output, OverLimit, RegisterMode};
use rtc_json_protocol::{parse, Limits};
use rtc_json_sdp::Policy;
use rtc_json_sip::Message;

const OFFER: &str = include_str!("../tests/samples/chromium-offer.sdp");
/// At most this many times the parsing of the frame alone.
const AIM: f64 = 4.0;

fn config() -> Config {
    Config {
        next_hop: "sip:127.0.0.1:5080".into(),
        register_mode: RegisterMode::Upstream,
        tokens: false,
        contact: "127.0.0.1:5060".into(),
        domain: "pbx.example".into(),
        realm: "asterisk".into(),
        server_name: "bench".into(),
        ice: None,
        policy: Policy::parse("PCMU,telephone-event").expect("known codecs"),
        max_calls: 4,
        call_rate: 0,
        max_sessions: 4,
        over_limit: OverLimit::Replace,
        resume_grace: 30_000,
        expires: 300,
        ring_timeout: 90_000,
        session_expires: 1800,
        min_se: 90,
        max_redirects: 5,
        dtmf_mode: rtc_json_engine::DtmfMode::Info,
        dtmf_duration: 160,
        trickle: rtc_json_engine::Trickle::Auto,
        accept_refer: true,
        conference_prefix: "conf-".into(),
        headers_in: rtc_json_engine::HeaderList::parse(
            "X-Genesys-*,User-to-User,P-Asserted-Identity,Diversion",
        ),
        headers_out: rtc_json_engine::HeaderList::parse("X-Genesys-*,User-to-User"),
        trusted_peers: vec!["127.0.0.0/8".parse().expect("a network")],
    }
}

/// The record of a registered agent, without a call.
fn registered(config: &Config, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut agent = Agent::new("5001");
    let frame = br#"{"type":"register","payload":{"dn":"5001","password":"x"},"id":"r"}"#;
    let request = parse(frame, &Limits::default()).expect("a good frame");
    let mut env = Env {
        config,
        now: 1,
        unix_now: 1,
        draining: false,
        unreachable: false,
        rng,
    };
    let input = Input::Message {
        conn: 1,
        addr: Some([127, 0, 0, 1].into()),
        request,
        next_hop: None,
        token: None,
    };
    let outputs = step(&mut agent, input, &mut env);
    let handle = outputs.iter().find_map(|output| match output {
        Output::Request(request) => Handle::parse(&request.handle.to_string()),
        _ => None,
    });
    let ok = Message::parse(b"SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\nExpires: 300\r\n\r\n")
        .expect("a reply");
    let input = Input::SipReply {
        handle: handle.expect("a REGISTER"),
        code: 200,
        message: Some(&ok),
    };
    step(&mut agent, input, &mut env);
    assert_eq!(agent.sessions.len(), 1);
    agent.encode(Vec::new()).expect("encodes")
}

fn one_call(
    frame: &[u8],
    record: &[u8],
    config: &Config,
    limits: &Limits,
    rng: &mut ChaCha8Rng,
    buffer: &mut Vec<u8>,
) {
    let request = parse(frame, limits).expect("a good frame");
    let mut agent = Agent::decode(record).expect("a record");
    let mut env = Env {
        config,
        now: 2,
        unix_now: 2,
        draining: false,
        unreachable: false,
        rng,
    };
    let input = Input::Message {
        conn: 1,
        addr: Some([127, 0, 0, 1].into()),
        request,
        next_hop: None,
        token: None,
    };
    let outputs = step(&mut agent, input, &mut env);
    assert_eq!(agent.calls.len(), 1);
    black_box(outputs);
    // as in a worker: the same memory for every record
    buffer.clear();
    *buffer = black_box(agent.encode(std::mem::take(buffer)).expect("encodes"));
}

/// The least time of one run, over interleaved rounds: noise only ever adds.
fn ratio(mut a: impl FnMut(), mut b: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 60;
    const RUNS: u32 = 400;
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        (0..RUNS).for_each(|_| a());
        best[0] = best[0].min(start.elapsed());
        let start = Instant::now();
        (0..RUNS).for_each(|_| b());
        best[1] = best[1].min(start.elapsed());
    }
    best[0].as_secs_f64() / best[1].as_secs_f64()
}

fn main() {
    let config = config();
    let limits = Limits::default();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let record = registered(&config, &mut rng);
    let frame = serde_json::json!({
        "type": "call", "payload": { "to": "1003", "sdp": OFFER, "iceServers": [] }, "id": "call-1"
    })
    .to_string()
    .into_bytes();

    let mut buffer = Vec::new();
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("json_value_of_the_call_frame", |b| {
        b.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&frame)));
    });
    criterion.bench_function("engine_call_step", |b| {
        b.iter(|| {
            one_call(
                black_box(&frame),
                &record,
                &config,
                &limits,
                &mut rng,
                &mut buffer,
            )
        });
    });
    criterion.final_summary();

    let ratio = ratio(
        || {
            one_call(
                black_box(&frame),
                &record,
                &config,
                &limits,
                &mut rng,
                &mut buffer,
            )
        },
        || {
            black_box(serde_json::from_slice::<serde_json::Value>(black_box(&frame)).is_ok());
        },
    );
    println!("frame of {} bytes", frame.len());
    println!("engine_call_ratio {ratio:.2}   (aim: at most {AIM:.1})");
}
