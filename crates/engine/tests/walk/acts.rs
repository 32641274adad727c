//! What may happen next, and how often.

use serde_json::json;

use crate::common::{ANSWER, OFFER};
use crate::dice::Dice;
use crate::far::{Dialog, OurOffer};
use crate::world::World;
use rtc_json_engine::{Input, Purpose};

#[derive(Clone, Debug)]
pub enum Act {
    Connect(usize),
    RegisterAgain(usize),
    Resend(usize),
    Retry(usize),
    Leave(usize),
    Close(usize),
    Call(usize),
    Odd(usize),
    Message(usize),
    Ping(usize),
    Digest(usize),
    Answer(usize, String),
    Hangup(usize, String),
    Early(usize, String),
    Talk(usize, String),
    Together(usize, Vec<String>),
    Later(usize),
    Reply(usize),
    ReplyAgain(usize),
    Lose(usize),
    Invite,
    Ack(usize),
    AckAgain(usize),
    Cancel(usize),
    Prack(usize),
    InDialog(usize),
    Notify(usize),
    Replaces(usize),
    Stranger,
    Wait,
    LongWait,
    Restart,
    Operator,
    Drain,
    NextHop,
}

const NONCE: &str = "Digest realm=\"asterisk\", qop=\"auth\", algorithm=MD5";

pub fn far_sdp(version: u32, media: u32, direction: &str) -> String {
    let mut sdp = ANSWER
        .replace(" 4 IN IP4 ", &format!(" {version} IN IP4 "))
        .replace("a=sendrecv", &format!("a={direction}"));
    if media != 0 {
        sdp = sdp
            .replace("21016", &format!("{}", 21_016 + 2 * media))
            .replace("1c510f255b", &format!("1c510f{media:04}"));
    }
    sdp
}

fn no_dtls(sdp: &str) -> String {
    sdp.lines()
        .filter(|l| !l.starts_with("a=fingerprint"))
        .flat_map(|l| [l, "\r\n"])
        .collect()
}

fn browser_sdp(dice: &mut Dice, offer: bool, bad: bool) -> String {
    let mut sdp = OFFER.replace(
        "a=ice-ufrag:a3je",
        &format!("a=ice-ufrag:a{:03}", dice.below(5)),
    );
    if dice.percent(15) {
        // a page that was loaded anew
        sdp = sdp.replace("sha-256 73:", &format!("sha-256 7{}:", dice.below(3)));
    }
    if !offer {
        sdp = sdp.replace("a=setup:actpass", "a=setup:active");
    }
    if bad {
        sdp = no_dtls(&sdp);
    }
    sdp
}

impl World {
    pub fn acts(&self) -> Vec<(u32, Act)> {
        let mut acts = vec![
            (12, Act::Invite),
            (40, Act::Wait),
            (3, Act::LongWait),
            (2, Act::Restart),
            (2, Act::Operator),
            (if self.draining { 8 } else { 1 }, Act::Drain),
            (if self.unreachable { 8 } else { 1 }, Act::NextHop),
            (3, Act::Stranger),
        ];
        for at in 0..self.later.len() {
            acts.push((60, Act::Later(at)));
        }
        let established = self.agent.live_calls();
        for (slot, b) in self.browsers.iter().enumerate() {
            if b.conn.is_none() {
                acts.push((if slot == 0 { 60 } else { 12 }, Act::Connect(slot)));
                continue;
            }
            if !b.registered {
                let pending = b
                    .asked
                    .iter()
                    .any(|a| a.kind == "register" && a.outcome.is_none() && !a.excused);
                if !pending || b.register_challenge.is_some() {
                    acts.push((60, Act::Connect(slot)));
                }
                acts.push((2, Act::Close(slot)));
                acts.push((2, Act::Odd(slot)));
                continue;
            }
            let pending = b
                .asked
                .iter()
                .any(|a| a.kind == "register" && a.outcome.is_none() && !a.excused);
            if !pending {
                acts.push((1, Act::RegisterAgain(slot)));
            }
            acts.push((1, Act::Leave(slot)));
            acts.push((5, Act::Close(slot)));
            acts.push((3, Act::Odd(slot)));
            acts.push((4, Act::Message(slot)));
            acts.push((2, Act::Ping(slot)));
            acts.push((6, Act::Retry(slot)));
            acts.push((if established < 3 { 30 } else { 4 }, Act::Call(slot)));
            if b.unanswered().iter().any(|at| b.asked[*at].sends == 1) {
                acts.push((8, Act::Resend(slot)));
            }
            if !b.challenges.is_empty() {
                acts.push((60, Act::Digest(slot)));
            }
            let mut live = Vec::new();
            for (id, known) in &b.calls {
                if known.over || known.vanished {
                    continue;
                }
                if known.ringing {
                    acts.push((80, Act::Answer(slot, id.clone())));
                    acts.push((6, Act::Hangup(slot, id.clone())));
                } else if !known.live {
                    acts.push((8, Act::Hangup(slot, id.clone())));
                    acts.push((8, Act::Early(slot, id.clone())));
                } else {
                    if known.owes.is_some() {
                        acts.push((80, Act::Answer(slot, id.clone())));
                    }
                    acts.push((8, Act::Hangup(slot, id.clone())));
                    acts.push((40, Act::Talk(slot, id.clone())));
                    live.push(id.clone());
                }
            }
            if live.len() > 1 {
                acts.push((30, Act::Together(slot, live)));
            }
        }
        for client in self.far.waiting() {
            acts.push((45, Act::Reply(client)));
            acts.push((1, Act::Lose(client)));
        }
        for (at, client) in self.far.client.iter().enumerate().rev().take(12) {
            if client.done && client.req.handle.purpose != Purpose::Register {
                let fork = client.initial_invite() && client.since + 20_000 > self.now;
                acts.push((if fork { 2 } else { 1 }, Act::ReplyAgain(at)));
            }
        }
        for (at, d) in self.far.dialogs.iter().enumerate().rev().take(24) {
            if d.deaf {
                continue;
            }
            if d.await_ack.is_some() && !d.dead {
                acts.push((60, Act::Ack(at)));
            }
            if d.acked.is_some() {
                acts.push((2, Act::AckAgain(at)));
            }
            if d.far_invite.is_some() {
                acts.push((6, Act::Cancel(at)));
            }
            if d.our_rseq.is_some() && !d.over() {
                acts.push((60, Act::Prack(at)));
            }
            if !d.our_tag.is_empty() && !d.dead {
                let weight = match (d.over(), d.confirmed) {
                    (true, _) => 1,
                    (_, false) => 4,
                    _ => 16,
                };
                acts.push((weight, Act::InDialog(at)));
            }
            if d.referred && !d.over() {
                acts.push((30, Act::Notify(at)));
            }
            if d.confirmed && !d.dead {
                acts.push((if d.over() { 1 } else { 4 }, Act::Replaces(at)));
            }
        }
        acts
    }

    pub fn act(&mut self, act: Act, dice: &mut Dice) {
        match act {
            Act::Connect(slot) => self.act_connect(slot, dice),
            Act::RegisterAgain(slot) => {
                let by_token = dice.percent(40);
                self.connect(slot, by_token, dice.percent(70));
            }
            Act::Resend(slot) => self.resend(slot),
            Act::Retry(slot) => {
                let mut all = self.browsers[slot].remembered();
                all.truncate(8);
                if !all.is_empty() {
                    let at = *dice.one(&all);
                    self.send_again(slot, at);
                }
            }
            Act::Leave(slot) => self.send(slot, "unregister", json!({})),
            Act::Close(slot) => self.close(slot),
            Act::Call(slot) => {
                let sdp = browser_sdp(dice, true, dice.0 % 40 == 0);
                let to = format!("60{}", dice.below(4));
                let mut payload = json!({ "to": to, "sdp": sdp });
                if dice.percent(5) {
                    payload["headers"] = json!({ "X-Secret": "x" });
                }
                self.send(slot, "call", payload);
            }
            Act::Odd(slot) => self.act_odd(slot, dice),
            Act::Message(slot) => {
                self.send(slot, "message", json!({ "to": "600", "text": "hello" }));
            }
            Act::Ping(slot) => self.send(slot, "ping", json!({})),
            Act::Digest(slot) => {
                let at = dice.below(self.browsers[slot].challenges.len());
                let challenge = self.browsers[slot].challenges.remove(at);
                let mut payload = json!({ "digest": World::answer_challenge(&challenge) });
                if challenge["callId"].is_string() {
                    payload["callId"] = challenge["callId"].clone();
                }
                if dice.percent(8) {
                    payload["digest"]["nonce"] = json!("another");
                }
                self.send(slot, "digest", payload);
            }
            Act::Answer(slot, call) => {
                let known = &self.browsers[slot].calls[&call];
                let offer = match known.owes {
                    Some(offered) => !offered,
                    None => known.offerless,
                };
                let sdp = browser_sdp(dice, offer, dice.0 % 25 == 0);
                self.send(slot, "answer", json!({ "callId": call, "sdp": sdp }));
            }
            Act::Hangup(slot, call) => {
                let mut payload = json!({ "callId": call });
                if dice.percent(60) {
                    payload["reason"] = json!(dice.one(&["busy", "declined", "user_hangup"]));
                }
                self.send(slot, "hangup", payload);
            }
            Act::Early(slot, call) => match dice.below(4) {
                0 => self.send(slot, "hold", json!({ "callId": call, "hold": true })),
                1 => {
                    let sdp = browser_sdp(dice, false, false);
                    self.send(slot, "answer", json!({ "callId": call, "sdp": sdp }));
                }
                _ => self.act_candidate(slot, &call, dice),
            },
            Act::Talk(slot, call) => self.act_talk(slot, &call, dice),
            Act::Together(slot, live) => {
                let first = dice.below(live.len());
                let second = (first + 1 + dice.below(live.len() - 1)) % live.len();
                if dice.percent(50) {
                    let payload = json!({ "callId": live[first], "withCallId": live[second] });
                    self.send(slot, "transfer", payload);
                } else {
                    let mut ids = vec![live[first].clone(), live[second].clone()];
                    if dice.percent(30) {
                        ids.extend(live.iter().find(|l| !ids.contains(l)).cloned());
                    }
                    self.send(slot, "conference", json!({ "callIds": ids }));
                }
            }
            Act::Later(at) => {
                let later = self.later.remove(at);
                self.happens(later);
            }
            Act::Reply(client) => self.act_reply(client, dice),
            Act::ReplyAgain(client) => self.act_reply_again(client, dice),
            Act::Lose(client) => {
                let kept = self.far.client[client].req.handle.purpose != Purpose::Register;
                if dice.percent(30) && kept {
                    self.saw("lost");
                    self.note(|| "tm loses a transaction".to_owned());
                    self.far.client[client].lost = true;
                    self.forgive(client);
                } else {
                    let code = *dice.one(&[408, 503]);
                    self.made_up(client, code);
                }
            }
            Act::Invite => self.act_invite(dice, None),
            Act::Ack(at) => self.act_ack(at, dice),
            Act::AckAgain(at) => {
                let d = self.far.dialogs[at].clone();
                if let Some(cseq) = d.acked {
                    self.saw("ACK again");
                    let before = self.far.client.len();
                    self.request(&d, None, "ACK", cseq, (&d.our_tag, &d.far_tag), "", "");
                    if self.far.client.len() != before {
                        self.fault(format!(
                            "an ACK that came again did something: {}",
                            d.name()
                        ));
                    }
                }
            }
            Act::Cancel(at) => self.act_cancel(at),
            Act::Prack(at) => self.act_prack(at, dice),
            Act::InDialog(at) => self.act_in_dialog(at, dice),
            Act::Notify(at) => self.act_notify(at, dice),
            Act::Replaces(at) => {
                let d = self.far.dialogs[at].clone();
                let early = if dice.percent(15) { ";early-only" } else { "" };
                let value = format!(
                    "Replaces: {};to-tag={};from-tag={}{early}\r\nRequire: replaces\r\n",
                    d.call_id, d.our_tag, d.far_tag
                );
                self.act_invite(dice, Some(&value));
            }
            Act::Stranger => {
                let method = *dice.one(&[
                    "BYE", "INFO", "OPTIONS", "UPDATE", "PUBLISH", "MESSAGE", "ACK",
                ]);
                let d = Dialog {
                    call_id: "stranger".into(),
                    ..self.far.fresh()
                };
                let tag = if dice.percent(50) { "nobody" } else { "" };
                let (more, body) = match method {
                    "MESSAGE" => ("Content-Type: text/plain\r\n", "hi"),
                    _ => ("", ""),
                };
                self.request(&d, None, method, 3, (tag, "x"), more, body);
            }
            Act::Wait => {
                let ms = *dice.one(&[5, 20, 120, 300, 600, 1_200, 2_500, 6_000]);
                self.wait(ms);
            }
            Act::LongWait => {
                let ms = *dice.one(&[11_000, 16_000, 33_000, 50_000, 91_000, 200_000]);
                self.wait(ms);
            }
            Act::Restart => {
                if dice.percent(40) {
                    self.restart();
                }
            }
            Act::Drain => {
                self.draining = !self.draining;
                let draining = self.draining;
                self.note(|| format!("the server drains: {draining}"));
                if draining {
                    self.saw("drained");
                    self.step(Input::Draining);
                }
            }
            Act::NextHop => {
                self.unreachable = !self.unreachable;
                let silent = self.unreachable;
                self.note(|| format!("the next hop is silent: {silent}"));
                self.saw(if silent { "silent" } else { "back" });
                self.step(Input::NextHop);
            }
            Act::Operator => {
                let calls: Vec<String> = self.agent.calls.iter().map(|c| c.id.clone()).collect();
                if !calls.is_empty() {
                    let call = dice.one(&calls).clone();
                    self.saw("operator");
                    self.note(|| format!("the operator ends {call}"));
                    self.step(Input::HangUp { call });
                }
            }
        }
    }

    /// A transaction of which nothing will be heard: its dialog need not end properly.
    fn forgive(&mut self, client: usize) {
        let c = &self.far.client[client];
        let (call_id, dialog) = (c.req.call_id.clone(), c.dialog);
        for (at, d) in self.far.dialogs.iter_mut().enumerate() {
            if d.call_id == call_id {
                d.excused = true;
            }
            if dialog == Some(at) {
                d.our_invite = None;
                d.our_offer = OurOffer::No;
            }
        }
    }

    fn act_connect(&mut self, slot: usize, dice: &mut Dice) {
        let challenge = self.browsers[slot].register_challenge.take();
        match challenge {
            Some(challenge) if !dice.percent(10) => {
                let digest = World::answer_challenge(&challenge);
                let payload = json!({ "dn": "5001", "displayName": "Ann", "digest": digest });
                self.send(slot, "register", payload);
            }
            _ => self.connect(slot, dice.percent(85), dice.percent(70)),
        }
        if self.browsers[slot].registered {
            self.resend(slot);
        }
    }

    pub fn resend(&mut self, slot: usize) {
        for at in self.browsers[slot].unanswered() {
            self.send_again(slot, at);
        }
    }

    fn send_again(&mut self, slot: usize, at: usize) {
        let asked = &self.browsers[slot].asked[at];
        if asked.session != Some(self.browsers[slot].session) {
            return;
        }
        let (id, kind, payload) = (asked.id.clone(), asked.kind.clone(), asked.payload.clone());
        self.send_as(slot, &kind, payload, &id);
    }

    fn act_odd(&mut self, slot: usize, dice: &mut Dice) {
        let call = "nonesuch";
        let sdp = browser_sdp(dice, true, false);
        match dice.below(5) {
            0 => self.send(slot, "hangup", json!({ "callId": call })),
            1 => self.send(slot, "answer", json!({ "callId": call, "sdp": sdp })),
            2 => self.send(slot, "transfer", json!({ "callId": call, "to": "1" })),
            3 => self.act_candidate(slot, call, dice),
            _ => {
                let digest =
                    World::answer_challenge(&json!({ "realm": "r", "nonce": "n", "uri": "u" }));
                self.send(slot, "digest", json!({ "digest": digest }));
            }
        }
    }

    fn act_candidate(&mut self, slot: usize, call: &str, dice: &mut Dice) {
        let port = dice.between(50_000, 50_009);
        let candidate = format!("candidate:1 1 udp 2113937151 192.0.2.1 {port} typ host");
        let candidate = match dice.below(5) {
            0 => json!(null),
            _ => json!({ "candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0 }),
        };
        self.send(
            slot,
            "iceCandidate",
            json!({ "callId": call, "candidate": candidate }),
        );
    }

    fn act_talk(&mut self, slot: usize, call: &str, dice: &mut Dice) {
        match dice.below(16) {
            0..=3 => {
                let hold = dice.percent(60);
                self.send(slot, "hold", json!({ "callId": call, "hold": hold }));
            }
            4 => {
                let muted = dice.percent(50);
                self.send(slot, "mute", json!({ "callId": call, "muted": muted }));
            }
            5 | 6 => {
                let digit = *dice.one(&["1", "23", "*#A"]);
                self.send(slot, "dtmf", json!({ "callId": call, "digit": digit }));
            }
            7 | 8 => self.act_candidate(slot, call, dice),
            9..=11 => {
                let sdp = browser_sdp(dice, true, dice.0 % 20 == 0);
                self.send(slot, "update", json!({ "callId": call, "sdp": sdp }));
            }
            12 => self.send(slot, "transfer", json!({ "callId": call, "to": "700" })),
            13 | 14 => {
                let action = *dice.one(&["start", "start", "stop", "pause", "resume"]);
                self.send(
                    slot,
                    "recording",
                    json!({ "callId": call, "action": action }),
                );
            }
            _ => {
                let sdp = browser_sdp(dice, dice.0 % 2 == 0, false);
                self.send(slot, "answer", json!({ "callId": call, "sdp": sdp }));
            }
        }
    }

    // ---- the far side answers

    fn challenge_lines(&mut self, code: u16, dice: &mut Dice) -> String {
        self.nonce += 1;
        let header = if code == 401 {
            "WWW-Authenticate"
        } else {
            "Proxy-Authenticate"
        };
        let stale = if dice.percent(10) { ", stale=true" } else { "" };
        format!("{header}: {NONCE}, nonce=\"n{}\"{stale}\r\n", self.nonce)
    }

    fn extras(dice: &mut Dice) -> String {
        let mut more = String::new();
        if dice.percent(50) {
            more.push_str("Allow: INVITE, ACK, BYE, UPDATE, INFO\r\n");
        }
        if dice.percent(40) {
            more.push_str(dice.one::<&str>(&[
                "Supported: timer, trickle-ice\r\n",
                "Supported: timer, replaces\r\n",
            ]));
        }
        if dice.percent(30) {
            let who = *dice.one(&["uac", "uas"]);
            let seconds = *dice.one(&[90, 120, 1800]);
            more.push_str(&format!("Session-Expires: {seconds};refresher={who}\r\n"));
        }
        if dice.percent(10) {
            more.push_str("P-Asserted-Identity: \"Other\" <sip:777@pbx.example>\r\n");
        }
        more
    }

    fn act_reply(&mut self, client: usize, dice: &mut Dice) {
        let c = &self.far.client[client];
        let (method, initial) = (c.req.method, c.initial_invite());
        let authorized = c.req.headers.contains("uthorization: Digest");
        match (method, initial) {
            ("REGISTER", _) => {
                if !authorized && dice.percent(85) || dice.percent(3) {
                    let lines = self.challenge_lines(401, dice);
                    return self.reply(client, 401, "reg", &lines, "");
                }
                match dice.below(40) {
                    0 => self.reply(client, 403, "reg", "", ""),
                    1 => self.reply(client, 500, "reg", "", ""),
                    2 => self.reply(client, 423, "reg", "Min-Expires: 400\r\n", ""),
                    _ => self.reply(client, 200, "reg", "Expires: 300\r\n", ""),
                }
            }
            ("INVITE", true) => self.act_reply_invite(client, authorized, dice),
            ("INVITE" | "UPDATE", _) => self.act_reply_offer(client, authorized, dice),
            _ => {
                let code = match method {
                    "REFER" => dice.weighted(&[(60, 202), (10, 200), (5, 400), (5, 603), (3, 481)]),
                    "BYE" => dice.weighted(&[(80, 200), (5, 481)]),
                    "MESSAGE" => dice.weighted(&[(60, 200), (10, 202), (10, 404)]),
                    _ => dice.weighted(&[(80, 200), (3, 415), (2, 481), (2, 500), (2, 491)]),
                };
                if !authorized && dice.percent(8) || authorized && dice.percent(3) {
                    let code = *dice.one(&[401, 407]);
                    let lines = self.challenge_lines(code, dice);
                    return self.reply(client, code, "t", &lines, "");
                }
                if dice.percent(3) {
                    return self.reply(client, 100, "t", "", "");
                }
                let more = if method == "REFER" && code == 202 && dice.percent(10) {
                    "Refer-Sub: false\r\n"
                } else {
                    ""
                };
                self.reply(client, code, "t", more, "");
            }
        }
    }

    fn act_reply_invite(&mut self, client: usize, authorized: bool, dice: &mut Dice) {
        let (cancelled, provisional, hash) = {
            let c = &self.far.client[client];
            (c.cancelled, c.provisional, c.req.cseq)
        };
        // mostly one of them answers
        let fork = if dice.percent(85) {
            0
        } else {
            1 + dice.below(2)
        };
        let tag = format!("f{hash}{fork}");
        if cancelled && dice.percent(75) {
            return self.reply(client, 487, &tag, "", "");
        }
        let known = self
            .far
            .find(
                &self.far.client[client].req.call_id,
                &self.far.client[client].req.from_tag,
                &tag,
            )
            .map(|d| self.far.dialogs[d].clone());
        let version = known.as_ref().map_or(4, |d| d.far_version);
        let what = dice.weighted(&[
            (if provisional { 1 } else { 25 }, 100),
            (18, 180),
            (8, 183),
            (8, 1801),
            (2, 182),
            (if provisional { 40 } else { 15 }, 200),
            (3, 302),
            (if authorized { 1 } else { 5 }, 401),
            (3, 422),
            (10, 486),
            (2, 2001),
            (1, 2002),
        ]);
        match what {
            100 => self.reply(client, 100, "", "", ""),
            180 | 182 => self.reply(client, what, &tag, "", ""),
            183 => {
                let sdp = far_sdp(version, 0, "sendrecv");
                let reliable = dice.percent(40);
                let line = if reliable {
                    self.next_rseq(client, &tag, dice)
                } else {
                    String::new()
                };
                self.reply(client, 183, &tag, &line, &sdp);
            }
            1801 => {
                let line = self.next_rseq(client, &tag, dice);
                self.reply(client, 180, &tag, &line, "");
            }
            200 => {
                let sdp = far_sdp(
                    version,
                    0,
                    if dice.percent(5) {
                        "sendonly"
                    } else {
                        "sendrecv"
                    },
                );
                let more = World::extras(dice);
                self.reply(client, 200, &tag, &more, &sdp);
            }
            // without an answer, or with one that is of no use
            2001 => self.reply(client, 200, &tag, "", ""),
            2002 => self.reply(
                client,
                200,
                &tag,
                "",
                &no_dtls(&far_sdp(version, 0, "sendrecv")),
            ),
            302 => {
                let n = dice.below(3);
                let more = format!(
                    "Contact: <sip:alt{n}@127.0.0.1:5081>;q=0.5, <sip:alt{}@127.0.0.1:5082>\r\n",
                    n + 1
                );
                self.reply(client, 302, &tag, &more, "");
            }
            401 => {
                let code = *dice.one(&[401, 407]);
                let lines = self.challenge_lines(code, dice);
                self.reply(client, code, &tag, &lines, "");
            }
            422 => {
                let min = *dice.one(&[100, 200, 2000]);
                self.reply(client, 422, &tag, &format!("Min-SE: {min}\r\n"), "");
            }
            _ => {
                let code = *dice.one(&[486, 486, 404, 480, 488, 500, 503, 600, 603, 481, 491]);
                self.reply(client, code, &tag, "Reason: Q.850;cause=17\r\n", "");
            }
        }
    }

    fn next_rseq(&mut self, client: usize, tag: &str, dice: &mut Dice) -> String {
        let at = self.far.dialog_of(client, tag);
        let d = &mut self.far.dialogs[at];
        // now and then the same again, or one is missing
        d.far_rseq = match dice.below(10) {
            0 if d.far_rseq > 0 => d.far_rseq,
            1 => d.far_rseq + 2,
            _ => d.far_rseq + 1,
        };
        let rseq = d.far_rseq;
        format!("Require: 100rel\r\nRSeq: {rseq}\r\n")
    }

    fn act_reply_offer(&mut self, client: usize, authorized: bool, dice: &mut Dice) {
        let offered = !self.far.client[client].req.body.is_empty();
        let Some(at) = self.far.client[client].dialog else {
            return;
        };
        let d = &mut self.far.dialogs[at];
        let what = dice.weighted(&[
            (60, 200),
            (4, 100),
            (8, 491),
            (3, 422),
            (if authorized { 1 } else { 4 }, 401),
            (2, 481),
            (5, 488),
            (3, 500),
            (1, 2001),
            (3, 2003),
        ]);
        let held = self.far.client[client].req.body.contains("a=sendonly");
        let direction = if held { "recvonly" } else { "sendrecv" };
        match what {
            200 | 2003 => {
                if what == 2003 {
                    d.far_media += 1;
                }
                d.far_version += 1;
                let sdp = match offered {
                    true => far_sdp(d.far_version, d.far_media, direction),
                    false => String::new(),
                };
                let more = World::extras(dice);
                self.reply(client, 200, "", &more, &sdp);
            }
            2001 => self.reply(client, 200, "", "", ""),
            401 => {
                let code = *dice.one(&[401, 407]);
                let lines = self.challenge_lines(code, dice);
                self.reply(client, code, "", &lines, "");
            }
            422 => {
                let min = *dice.one(&[100, 200, 2000]);
                self.reply(client, 422, "", &format!("Min-SE: {min}\r\n"), "");
            }
            code => self.reply(client, code, "", "", ""),
        }
    }

    /// What comes after the final reply: it again, or that of another fork.
    fn act_reply_again(&mut self, client: usize, dice: &mut Dice) {
        let c = &self.far.client[client];
        if c.req.method == "INVITE" && c.initial_invite() {
            let tag = format!("f{}{}", c.req.cseq, dice.below(3));
            let same = (c.req.call_id.clone(), c.req.from_tag.clone());
            let dialog = self.far.find(&same.0, &same.1, &tag);
            // a fork that was refused does not answer, and tm keeps repetitions to itself
            let dead = dialog.is_some_and(|d| {
                let d = &self.far.dialogs[d];
                d.over() || d.excused
            });
            let any = self.far.dialogs.iter().any(|d| {
                d.call_id == same.0
                    && d.our_tag == same.1
                    && d.invite_cseq == c.req.cseq
                    && d.confirmed
            });
            if dead || !any {
                return;
            }
            self.saw("another 200");
            let sdp = far_sdp(4, 0, "sendrecv");
            self.reply(client, 200, &tag, "", &sdp);
        } else if c.req.method != "INVITE" {
            self.reply(client, 200, "t", "", "");
        }
    }

    // ---- requests of the far side

    fn act_invite(&mut self, dice: &mut Dice, replaces: Option<&str>) {
        self.far.next_call += 1;
        let n = self.far.next_call;
        let cseq = 1 + dice.below(50) as u32;
        let d = Dialog {
            call_id: format!("in-{n}"),
            far_tag: format!("far{n}"),
            invite_cseq: cseq,
            far_cseq: cseq,
            peer: format!("10{:02}", n % 100),
            ..self.far.fresh()
        };
        self.far.dialogs.push(d.clone());
        let at = self.far.dialogs.len() - 1;
        let body = match dice.below(12) {
            0 | 1 => String::new(),
            2 => no_dtls(&far_sdp(4, 0, "sendrecv")),
            _ => far_sdp(4, 0, "sendrecv"),
        };
        let mut more = World::extras(dice);
        match dice.below(20) {
            0 => more.push_str("Require: nonsense\r\n"),
            1..=5 => more.push_str("Require: 100rel\r\n"),
            6 => more.push_str("Session-Expires: 60\r\nSupported: timer\r\n"),
            _ => {}
        }
        if let Some(replaces) = replaces {
            more.push_str(replaces);
            self.saw("INVITE with Replaces");
        }
        self.request(&d, Some(at), "INVITE", cseq, ("", &d.far_tag), &more, &body);
        if dice.percent(2) {
            // the same by another path
            self.request(&d, None, "INVITE", cseq, ("", &d.far_tag), &more, &body);
        }
    }

    pub fn act_ack(&mut self, at: usize, dice: &mut Dice) {
        let d = self.far.dialogs[at].clone();
        let Some((cseq, needed, _)) = d.await_ack else {
            return;
        };
        let sdp = match (needed, dice.below(20)) {
            (false, _) | (true, 0) => String::new(),
            (true, 1) => no_dtls(&far_sdp(d.far_version + 1, d.far_media, "sendrecv")),
            (true, _) => far_sdp(d.far_version + 1, d.far_media, "sendrecv"),
        };
        let known = &mut self.far.dialogs[at];
        known.await_ack = None;
        known.acked = Some(cseq);
        known.settled = true;
        if needed {
            known.far_version += 1;
            known.our_offer = OurOffer::No;
        }
        self.request(&d, None, "ACK", cseq, (&d.our_tag, &d.far_tag), "", &sdp);
    }

    fn act_cancel(&mut self, at: usize) {
        let d = self.far.dialogs[at].clone();
        let Some(label) = d.far_invite else { return };
        let Some(server) = self.far.server.iter().find(|s| s.label == label).cloned() else {
            return;
        };
        // a CANCEL has the tags of its INVITE
        let tag = if server.initial {
            ""
        } else {
            d.our_tag.as_str()
        };
        let cancel = self.request(&d, None, "CANCEL", server.cseq, (tag, &d.far_tag), "", "");
        let done = self.far.server.iter().any(|s| s.label == label && s.done);
        if self.faults.is_empty() && cancel.is_some() && !done {
            self.fault(format!("CANCEL did not end its INVITE: {server:?}"));
        }
    }

    fn act_prack(&mut self, at: usize, dice: &mut Dice) {
        let d = &mut self.far.dialogs[at];
        let Some(rseq) = d.our_rseq else { return };
        d.far_cseq += 1;
        let wrong = dice.percent(8);
        let rseq = rseq + u32::from(wrong);
        if !wrong {
            d.our_rseq = None;
        }
        let d = d.clone();
        let rack = format!("RAck: {rseq} {} INVITE\r\n", d.invite_cseq);
        let tags = (d.our_tag.as_str(), d.far_tag.as_str());
        let before = self.seen.get("< PRACK 200").copied();
        self.request(&d, Some(at), "PRACK", d.far_cseq, tags, &rack, "");
        let taken = self.seen.get("< PRACK 200").copied() != before;
        // (a call may have been ended here meanwhile)
        let known = self
            .agent
            .calls
            .iter()
            .any(|c| c.leg.dialog.call_id == d.call_id && c.state.live());
        if self.faults.is_empty() && known && taken == wrong {
            self.fault(format!("PRACK taken {taken}, wrong {wrong}: {}", d.name()));
        }
    }

    fn act_notify(&mut self, at: usize, dice: &mut Dice) {
        self.far.dialogs[at].far_cseq += 1;
        let d = self.far.dialogs[at].clone();
        let code = dice.weighted(&[(20, 100), (20, 180), (30, 200), (10, 486), (5, 503), (2, 0)]);
        let over = code >= 200 || dice.percent(10);
        if over {
            self.far.dialogs[at].referred = false;
        }
        let state = if over {
            "terminated;reason=noresource"
        } else {
            "active;expires=60"
        };
        let event = if dice.percent(5) { "dialog" } else { "refer" };
        let more = format!(
            "Event: {event}\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n"
        );
        let body = match code {
            0 => "nonsense".to_owned(),
            code => format!("SIP/2.0 {code} Whatever\r\n"),
        };
        self.request(
            &d,
            Some(at),
            "NOTIFY",
            d.far_cseq,
            (&d.our_tag, &d.far_tag),
            &more,
            &body,
        );
    }

    fn act_in_dialog(&mut self, at: usize, dice: &mut Dice) {
        let d = self.far.dialogs[at].clone();
        let early = !d.confirmed;
        // a callee sends no BYE in an early dialog
        let bye = if early && d.ours { 0 } else { 10 };
        let offer = if early { 2 } else { 40 };
        let kind = dice.weighted(&[
            (offer, "INVITE"),
            (14, "UPDATE"),
            (bye, "BYE"),
            (8, "INFO"),
            (if early { 0 } else { 16 }, "REFER"),
            (2, "NOTIFY"),
            (2, "OPTIONS"),
            (2, "MESSAGE"),
            (1, "PRACK"),
            (1, "PUBLISH"),
            (2, "wrong tag"),
            (2, "old CSeq"),
        ]);
        let tags = (d.our_tag.clone(), d.far_tag.clone());
        if kind == "wrong tag" {
            self.request(&d, None, "BYE", d.far_cseq + 1, (&tags.0, "other"), "", "");
            return;
        }
        if kind == "old CSeq" {
            if d.far_cseq > 100 {
                let old = d.far_cseq - 100;
                self.request(&d, None, "INFO", old, (&tags.0, &tags.1), "", "");
            }
            return;
        }
        // a decent far side does not offer twice
        let busy = d.far_invite.is_some()
            || d.far_offer.is_some()
            || d.await_ack.is_some()
            || d.our_offer != OurOffer::No;
        let offers = matches!(kind, "INVITE" | "UPDATE");
        if offers && busy && !dice.percent(12) {
            return;
        }
        // RFC 3261, section 14.1: not while another INVITE of its own is under way
        if kind == "INVITE" && (d.far_invite.is_some() || d.await_ack.is_some()) {
            return;
        }
        self.far.dialogs[at].far_cseq += 1;
        let cseq = d.far_cseq + 1;
        let (mut more, mut body) = (String::new(), String::new());
        match kind {
            "INVITE" | "UPDATE" => {
                let what = dice.weighted(&[
                    (20, "same"),
                    (25, "hold"),
                    (25, "media"),
                    (20, "none"),
                    (4, "bad"),
                ]);
                let known = &mut self.far.dialogs[at];
                if what != "none" {
                    known.far_version += 1;
                }
                match what {
                    "hold" => known.far_held = !known.far_held,
                    "media" => known.far_media += 1,
                    _ => {}
                }
                let direction = match (known.far_held, what) {
                    (true, _) => "sendonly",
                    (false, "hold") if dice.percent(20) => "inactive",
                    _ => "sendrecv",
                };
                let sdp = far_sdp(known.far_version, known.far_media, direction);
                body = match what {
                    "none" => String::new(),
                    "bad" => no_dtls(&sdp),
                    _ => sdp,
                };
                more = World::extras(dice);
                self.saw(format!("far {kind} {what}"));
            }
            "INFO" if dice.percent(60) => {
                more = "Content-Type: application/trickle-ice-sdpfrag\r\nInfo-Package: trickle-ice\r\n".into();
                body = "a=ice-ufrag:x\r\na=ice-pwd:y\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host\r\na=end-of-candidates\r\n".into();
            }
            "REFER" => {
                more = match dice.below(8) {
                    0 => "Refer-To: <tel:700>\r\n".into(),
                    1 => {
                        "Refer-To: <sip:700@pbx.example?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>\r\n"
                            .into()
                    }
                    2 => "Refer-To: <sip:700@pbx.example>\r\nRefer-Sub: false\r\n".into(),
                    _ => {
                        "Refer-To: <sip:700@pbx.example>\r\nReferred-By: <sip:1003@pbx.example>\r\n"
                            .into()
                    }
                };
            }
            "MESSAGE" => {
                more = "Content-Type: text/plain\r\n".into();
                body = "hi".into();
            }
            "BYE" if dice.percent(20) => more = "Reason: Q.850;cause=16\r\n".into(),
            "NOTIFY" => {
                more = "Event: refer\r\nSubscription-State: active\r\nContent-Type: message/sipfrag\r\n".into();
                body = "SIP/2.0 100 Trying\r\n".into();
            }
            _ => {}
        }
        self.request(&d, Some(at), kind, cseq, (&tags.0, &tags.1), &more, &body);
    }
}
