//! Random walks of one agent: browsers, far sides, tm and time do whatever they may, in any order. What comes out is held
//! against the protocol (docs/protocol.md) and RFC 3261 by a checker that knows nothing of the engine.
//!
//! `RTC_JSON_WALKS` sets how many (2000), `RTC_JSON_WALK_SEED` where they begin (and then it is one, unless the other says
//! more), `RTC_JSON_WALK_SHOW` prints what was covered and tells one walk for every kind of fault, not only the most
//! frequent; `RTC_JSON_WALK_LONG` prints whole messages. A walk that fails is made shorter before it is told.

#[path = "walk/acts.rs"]
mod acts;
#[path = "walk/browser.rs"]
mod browser;
mod common;
#[path = "walk/dice.rs"]
mod dice;
#[path = "walk/far.rs"]
mod far;
#[path = "walk/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use dice::Dice;
use rtc_json_engine::{Input, RegisterMode};
use serde_json::json;
use world::World;

const FIRST_SEED: u64 = 20_000;

/// Where 2000 walks must have been, at the least.
const COVERED: &[&str] = &[
    "state Out Cancelling",
    "state Out Established",
    "state Out Trying hidden",
    "state Out Ringing hidden",
    "state Out Cancelling hidden",
    "state Out Terminating hidden",
    "state In Answering",
    "state In Established",
    "state In Incoming hidden",
    "state In Terminating",
    "state hold",
    "state remote hold",
    "state moving",
    "state replaced by ourselves",
    "state gone",
    "state transfer",
    "state conference",
    "state far offer",
    "state ack awaited",
    "state answer in ack",
    "state open offer",
    "state after a glare",
    "state reliable 180",
    "state INVITE challenged",
    "state challenged",
    "state redirected",
    "state timer ours",
    "state timer theirs",
    "< UPDATE 200",
    "< REFER 202",
    "< INVITE 487",
    "> CANCEL",
    "> PRACK",
    "> NOTIFY",
    "> UPDATE",
    "> REFER",
    "NotReplied",
    "NotSent",
    "lost",
    "restarted",
    "drained",
    "silent",
    "back",
    "> OPTIONS",
    "broken connection",
    "retry of what is done",
    "another 200",
    "call -> callAccepted",
    "answer -> ack",
    "dtmf -> ack",
    "hold -> callUpdated",
    "update -> callUpdated",
    "recording -> recordingUpdated",
    "transfer -> ack",
    "conference -> ack",
    "digest -> ack",
    "message -> ack",
    "callEnded transferred",
    "callEnded session_expired",
    "callEnded media_error",
    "event challenge",
    "event conferenceUpdated active",
    "event callUpdated sdp true needed Some(true)",
    "event callUpdated sdp false needed Some(true)",
    "event callUpdated sdp false needed Some(false)",
    "event callUpdated sdp true needed None",
];

struct Walked {
    fault: Option<String>,
    seen: BTreeMap<String, u64>,
    trace: Vec<String>,
    largest: usize,
}

/// The steps of the walk with that seed; each is a seed of its own, so that some can be left out.
fn steps_of(seed: u64) -> Vec<u64> {
    let mut dice = Dice(seed ^ 0x5eed);
    let n = 30 + dice.below(60);
    (0..n).map(|_| dice.next()).collect()
}

fn walk(seed: u64, steps: &[u64], tell: bool) -> Walked {
    let mut w = World::new(seed);
    if w.config.register_mode == RegisterMode::Local {
        w.by_challenge = false;
    }
    if tell {
        w.trace = Some(Vec::new());
    }
    w.connect(0, false, false);
    sign_in(&mut w, 0);
    if seed % 3 != 0 {
        w.connect(1, false, false);
        sign_in(&mut w, 1);
    }
    for step in steps {
        if !w.faults.is_empty() {
            break;
        }
        let mut dice = Dice(*step);
        w.dice = Dice(dice.next());
        let acts = w.acts();
        let act = dice.weighted(&acts);
        let name = format!("{act:?}");
        let name = name.split('(').next().unwrap_or_default().to_owned();
        w.saw(format!("act {name}"));
        w.act(act, &mut dice);
        let ms = dice.between(0, 40);
        w.now += ms;
    }
    if w.faults.is_empty() {
        wind_up(&mut w, seed);
    }
    Walked {
        fault: w.faults.first().cloned(),
        seen: w.seen,
        trace: w.trace.unwrap_or_default(),
        largest: w.largest,
    }
}

/// The registrar is kind to it.
fn sign_in(w: &mut World, slot: usize) {
    for _ in 0..4 {
        while let Some(later) = w.later.pop() {
            w.happens(later);
        }
        for client in w.far.waiting() {
            let asked = w.far.client[client].req.headers.contains("Authorization:");
            if asked {
                w.reply(client, 200, "reg", "Expires: 300\r\n", "");
            } else {
                let line = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n0\", qop=\"auth\", algorithm=MD5\r\n";
                w.reply(client, 401, "reg", line, "");
            }
        }
        if let Some(challenge) = w.browsers[slot].register_challenge.take() {
            let digest = World::answer_challenge(&challenge);
            let payload = json!({ "dn": "5001", "displayName": "Ann", "digest": digest });
            w.send(slot, "register", payload);
        }
    }
}

/// Everybody answers, acknowledges, and hears what is left to hear.
fn settle(w: &mut World, dice: &mut Dice) {
    for slot in 0..w.browsers.len() {
        w.send(slot, "ping", json!({}));
    }
    for _ in 0..12 {
        while let (Some(later), true) = (w.later.pop(), w.faults.is_empty()) {
            w.happens(later);
        }
        for slot in 0..w.browsers.len() {
            if !w.browsers[slot].registered && w.browsers[slot].token.is_some() {
                w.connect(slot, true, true);
            }
            if w.browsers[slot].registered {
                w.resend(slot);
            }
        }
        for at in 0..w.far.dialogs.len() {
            if w.far.dialogs[at].await_ack.is_some() && !w.far.dialogs[at].dead {
                w.act_ack(at, dice);
            }
        }
        for client in w.far.waiting() {
            match w.far.client[client].req.method {
                "INVITE" if w.far.client[client].initial_invite() => {
                    if !w.far.client[client].provisional {
                        w.reply(client, 100, "", "", "");
                    }
                    if w.far.client[client].cancelled {
                        w.reply(client, 487, "end", "", "");
                    } else if dice.percent(50) {
                        w.reply(client, 486, "end", "", "");
                    }
                }
                "INVITE" => w.reply(client, 488, "", "", ""),
                "UPDATE" => w.reply(client, 488, "", "", ""),
                "REGISTER" => w.reply(client, 200, "reg", "Expires: 300\r\n", ""),
                _ => w.reply(client, 200, "end", "", ""),
            }
        }
        w.wait(1_000);
        if !w.faults.is_empty() {
            return;
        }
    }
}

fn wind_up(w: &mut World, seed: u64) {
    w.note(|| "the walk is wound up".to_owned());
    w.lossy = false;
    let mut dice = Dice(seed ^ 0xe4d);
    settle(w, &mut dice);
    // who owes an answer keeps owing it; the server gives it up
    w.wait(if w.far.client.iter().any(|c| c.lost) {
        202_000
    } else {
        40_000
    });
    settle(w, &mut dice);
    if !w.faults.is_empty() {
        return;
    }
    for slot in 0..w.browsers.len() {
        let b = &w.browsers[slot];
        let open: Vec<String> = b
            .calls
            .iter()
            .filter(|(_, k)| k.open && k.live && !k.over && !k.vanished)
            .map(|(id, _)| id.clone())
            .collect();
        if let (Some(call), true) = (open.first(), b.registered) {
            let text = format!("nobody tells what became of the offer in `answer`: {call}");
            return w.fault(text);
        }
    }
    // most calls are ended by hand, some by those who leave
    for slot in 0..w.browsers.len() {
        let live: Vec<String> = w.browsers[slot]
            .calls
            .iter()
            .filter(|(_, k)| !k.over && !k.vanished)
            .map(|(id, _)| id.clone())
            .collect();
        for call in live {
            if dice.percent(60) && w.browsers[slot].registered {
                w.send(slot, "hangup", json!({ "callId": call }));
            }
        }
    }
    settle(w, &mut dice);
    let over = w.agent.live_calls() == 0;
    if over {
        for b in &mut w.browsers {
            if b.registered {
                b.check_end();
            }
        }
    }
    for slot in 0..w.browsers.len() {
        match dice.below(3) {
            0 => w.send(slot, "unregister", json!({})),
            1 => w.close(slot),
            _ => {}
        }
    }
    for _ in 0..3 {
        while let Some(later) = w.later.pop() {
            w.happens(later);
        }
        w.wait(210_000);
        for client in w.far.waiting() {
            match w.far.client[client].req.method {
                "INVITE" => w.reply(client, 487, "end", "", ""),
                "REGISTER" => w.reply(client, 200, "reg", "Expires: 300\r\n", ""),
                _ => w.reply(client, 200, "end", "", ""),
            }
        }
    }
    w.wait(400_000);
    w.step(Input::Tick);
    if !w.faults.is_empty() {
        return;
    }
    let a = &w.agent;
    if !a.calls.is_empty() || !a.pending.is_empty() || !a.texts.is_empty() || !a.sessions.is_empty()
    {
        let text = format!("left at the end: {:#?}", w.agent);
        return w.fault(text);
    }
    if !a.is_empty() || w.due() != u64::MAX {
        let text = format!("not empty at the end: due {} {:#?}", w.due(), w.agent);
        return w.fault(text);
    }
    w.far.check_end();
    let faults = std::mem::take(&mut w.far.faults);
    w.faults.extend(faults);
}

/// The same kind of fault, whatever names are in it.
fn kind_of(fault: &str) -> String {
    fault
        .split([':', '{'])
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .collect()
}

/// Leaves out what the fault does not need.
fn shorten(seed: u64, kind: &str) -> Vec<u64> {
    let mut steps = steps_of(seed);
    let mut size = steps.len() / 2;
    let mut tries = 0;
    while size > 0 && tries < 3_000 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            tries += 1;
            let same = walk(seed, &fewer, false)
                .fault
                .is_some_and(|f| kind_of(&f) == kind);
            if same {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    steps
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

#[test]
fn whatever_happens_in_any_order_every_rule_holds() {
    std::panic::set_hook(Box::new(|info| {
        world::PANIC.with(|p| *p.borrow_mut() = info.to_string());
    }));
    let one = std::env::var("RTC_JSON_WALK_SEED")
        .ok()
        .and_then(|v| v.parse::<u64>().ok());
    let walks = number("RTC_JSON_WALKS", if one.is_some() { 1 } else { 2_000 });
    let first = one.unwrap_or(FIRST_SEED);
    let next = AtomicU64::new(0);
    let failed: Mutex<BTreeMap<String, Vec<(u64, String)>>> = Mutex::default();
    let all: Mutex<(BTreeMap<String, u64>, usize)> = Mutex::default();
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut seen: BTreeMap<String, u64> = BTreeMap::new();
                let mut largest = 0;
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= walks {
                        break;
                    }
                    let seed = first + n;
                    let walked = walk(seed, &steps_of(seed), false);
                    for (what, times) in walked.seen {
                        *seen.entry(what).or_default() += times;
                    }
                    largest = largest.max(walked.largest);
                    if let Some(fault) = walked.fault {
                        let mut failed = failed.lock().expect("no thread panics");
                        failed
                            .entry(kind_of(&fault))
                            .or_default()
                            .push((seed, fault));
                    }
                }
                let mut all = all.lock().expect("no thread panics");
                for (what, times) in seen {
                    *all.0.entry(what).or_default() += times;
                }
                all.1 = all.1.max(largest);
            });
        }
    });
    let (seen, largest) = all.into_inner().expect("no thread panics");
    let failed = failed.into_inner().expect("no thread panics");
    let mut report = String::new();
    for (kind, cases) in &failed {
        report.push_str(&format!(
            "{:>6} {kind} (seed {})\n",
            cases.len(),
            cases[0].0
        ));
    }
    let mut by_count: Vec<_> = failed.iter().collect();
    by_count.sort_by_key(|(_, cases)| std::cmp::Reverse(cases.len()));
    let show = std::env::var_os("RTC_JSON_WALK_SHOW").is_some();
    for (kind, cases) in by_count.into_iter().take(if show { 100 } else { 1 }) {
        // of all that fail, the one that needs the fewest steps
        let (seed, steps) = cases
            .iter()
            .take(4)
            .map(|(seed, _)| (*seed, shorten(*seed, kind)))
            .min_by_key(|(_, steps)| steps.len())
            .unwrap_or_default();
        let walked = walk(seed, &steps, true);
        report.push_str(&format!(
            "\nseed {seed}, {} steps:\n{}\n{}\n",
            steps.len(),
            walked.trace.join("\n"),
            walked.fault.unwrap_or_default()
        ));
    }
    let _ = std::panic::take_hook();
    if show {
        for (what, times) in &seen {
            println!("{times:>8} {what}");
        }
        println!("{largest:>8} bytes in the largest record");
    }
    assert!(failed.is_empty(), "{report}");
    if walks >= 2_000 {
        let missing: Vec<&str> = COVERED
            .iter()
            .filter(|what| seen.get(**what).is_none_or(|times| *times < 5))
            .copied()
            .collect();
        assert!(
            missing.is_empty(),
            "the walks no longer come to: {missing:?}"
        );
    }
}
