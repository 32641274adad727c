//! The far side as RFC 3261 has it: its dialogs and transactions, and whether what we send agrees with them.
//!
//! It knows only what goes over the wire. What it finds wrong goes to [`Far::faults`].

use std::collections::{BTreeMap, BTreeSet};

use rtc_json_engine::{Handle, Purpose, ServerTx, SipReply, SipRequest};

/// Who owes the answer to an offer of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurOffer {
    No,
    /// The final reply to the request with that CSeq.
    Reply(u32),
    /// The ACK to our 2xx.
    Ack,
}

/// A description of ours: `o=` without its version, the version, all other lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    origin: String,
    version: u128,
    rest: String,
}

impl Said {
    fn of(sdp: &str) -> Option<Said> {
        let line = sdp.lines().find(|l| l.starts_with("o="))?;
        let mut words: Vec<&str> = line[2..].split(' ').collect();
        let version = words.get(2)?.parse().ok()?;
        words[2] = "";
        let rest = sdp
            .lines()
            .filter(|l| !l.starts_with("o="))
            .collect::<Vec<_>>()
            .join("\n");
        Some(Said {
            origin: words.join(" "),
            version,
            rest,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Dialog {
    pub call_id: String,
    pub our_tag: String,
    pub far_tag: String,
    /// We began it.
    pub ours: bool,
    /// CSeq of the INVITE that began it.
    pub invite_cseq: u32,
    /// A 2xx has gone.
    pub confirmed: bool,
    /// It never came to be, or the far side knows no more of it.
    pub dead: bool,
    /// Our 2xx did not reach it.
    pub deaf: bool,
    /// No BYE of ours need come.
    pub excused: bool,
    pub our_bye: bool,
    /// Our BYE was challenged or its transaction is lost: another may come.
    pub bye_again: bool,
    pub far_bye: bool,
    pub last_our: u32,
    pub far_cseq: u32,
    /// CSeq of the open INVITE of ours.
    pub our_invite: Option<u32>,
    pub our_offer: OurOffer,
    /// Label of the far side's INVITE without final reply.
    pub far_invite: Option<u32>,
    /// Label of the far side's offer without final reply.
    pub far_offer: Option<u32>,
    /// Our 2xx to that CSeq waits for its ACK, since then; must the ACK carry an answer?
    pub await_ack: Option<(u32, bool, u64)>,
    /// CSeq of the last INVITE of the far side that had its ACK.
    pub acked: Option<u32>,
    /// The INVITE that began it was acknowledged, or can be no more.
    pub settled: bool,
    pub said: Option<Said>,
    /// RSeq of our reliable 18x that has no PRACK yet.
    pub our_rseq: Option<u32>,
    pub far_rseq: u32,
    pub far_version: u32,
    pub far_media: u32,
    pub far_held: bool,
    /// We sent REFER here, and its subscription is not over.
    pub referred: bool,
    /// The far side's BYE crossed no final reply yet.
    pub peer: String,
}

impl Dialog {
    pub fn over(&self) -> bool {
        self.dead || self.deaf || self.our_bye || self.far_bye
    }

    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.call_id, self.our_tag, self.far_tag)
    }
}

/// A request of ours in tm.
pub struct Client {
    pub req: SipRequest,
    pub provisional: bool,
    pub done: bool,
    pub cancelled: bool,
    /// tm never tells what came of it.
    pub lost: bool,
    pub since: u64,
    /// Challenges given to its call so far.
    pub dialog: Option<usize>,
}

impl Client {
    pub fn initial_invite(&self) -> bool {
        self.req.method == "INVITE" && self.req.to_tag.is_empty()
    }
}

/// A request of the far side in tm.
#[derive(Clone, Debug)]
pub struct Server {
    pub label: u32,
    pub method: String,
    pub cseq: u32,
    /// It began the dialog.
    pub initial: bool,
    pub offer: bool,
    pub dialog: Option<usize>,
    pub done: bool,
    /// tm has ended it by itself.
    pub gone: bool,
}

#[derive(Default)]
pub struct Far {
    pub dialogs: Vec<Dialog>,
    pub client: Vec<Client>,
    pub server: Vec<Server>,
    pub faults: Vec<String>,
    /// Call-ID to (last CSeq, last description) of what we sent outside of dialogs.
    outside: BTreeMap<String, (u32, Option<Said>)>,
    pracks: BTreeSet<(String, String, String)>,
    /// After a challenge a PRACK may come again.
    prack_again: bool,
    next_label: u32,
    pub next_call: u32,
    pub seen: Vec<String>,
}

impl Far {
    pub fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    fn saw(&mut self, what: String) {
        self.seen.push(what);
    }

    pub fn find(&self, call_id: &str, our_tag: &str, far_tag: &str) -> Option<usize> {
        self.dialogs
            .iter()
            .position(|d| d.call_id == call_id && d.our_tag == our_tag && d.far_tag == far_tag)
    }

    /// A description that follows another in the same dialog.
    fn follows(&mut self, name: &str, last: &Option<Said>, body: &str) -> Option<Said> {
        let Some(said) = Said::of(body) else {
            self.fault(format!("sdp without o=: {name}"));
            return None;
        };
        if let Some(last) = last {
            if said.origin != last.origin {
                self.fault(format!("o= became another one: {name}: {last:?} {said:?}"));
            } else if said.version < last.version {
                self.fault(format!(
                    "o= went down: {name}: {} {}",
                    last.version, said.version
                ));
            } else if said.version == last.version && said.rest != last.rest {
                self.fault(format!(
                    "o= stayed at {} although the description changed: {name}",
                    said.version
                ));
            }
        }
        Some(said)
    }

    // ---- what we send

    pub fn on_request(&mut self, req: SipRequest, now: u64) {
        self.saw(format!("> {}", req.method));
        let handle = Handle::parse(&req.handle.to_string());
        if handle.as_ref() != Some(&req.handle) || req.handle.cseq != req.cseq {
            self.fault(format!(
                "handle does not name its request: {:?}",
                req.handle
            ));
        }
        if !req.headers.is_empty() && !req.headers.ends_with("\r\n")
            || req.headers.contains("\r\n\r\n")
        {
            self.fault(format!("header lines: {:?}", req.headers));
        }
        if req.body.is_empty() == req.headers.contains("Content-Type:") && req.method != "MESSAGE" {
            self.fault(format!(
                "body and Content-Type: {} {:?}",
                req.method, req.headers
            ));
        }
        if req.method == "ACK" {
            return self.on_our_ack(&req);
        }
        let dialog = if req.to_tag.is_empty() {
            self.outside(&req);
            None
        } else {
            let found = self.find(&req.call_id, &req.from_tag, &req.to_tag);
            match found {
                Some(dialog) => self.inside(dialog, &req, now),
                None => self.fault(format!(
                    "{} in a dialog that the far side does not know: {}/{}/{}",
                    req.method, req.call_id, req.from_tag, req.to_tag
                )),
            }
            found
        };
        self.client.push(Client {
            req,
            provisional: false,
            done: false,
            cancelled: false,
            lost: false,
            since: now,
            dialog,
        });
    }

    /// tm acknowledges only one of several forks.
    fn on_our_ack(&mut self, req: &SipRequest) {
        let found = self.find(&req.call_id, &req.from_tag, &req.to_tag);
        let right = found.is_some_and(|d| {
            let d = &self.dialogs[d];
            d.ours && d.confirmed && d.invite_cseq == req.cseq && !d.over()
        });
        if !right {
            self.fault(format!("ACK for nothing: {req:?}"));
        }
    }

    fn outside(&mut self, req: &SipRequest) {
        let (last, said) = self.outside.get(&req.call_id).cloned().unwrap_or((0, None));
        if req.cseq <= last {
            self.fault(format!(
                "CSeq outside of a dialog does not rise: {} {} after {last}",
                req.method, req.cseq
            ));
        }
        if !matches!(req.method, "INVITE" | "REGISTER" | "MESSAGE") {
            self.fault(format!("{} without dialog", req.method));
        }
        let open = self.client.iter().any(|c| {
            !c.done
                && !c.lost
                && c.req.to_tag.is_empty()
                && c.req.call_id == req.call_id
                && c.req.method == req.method
        });
        if open {
            self.fault(format!("second {} while the first is open", req.method));
        }
        let said = if req.method == "INVITE" {
            if req.body.is_empty() {
                self.fault("INVITE without offer".into());
            }
            let said = self.follows("INVITE", &said, &req.body);
            if self
                .dialogs
                .iter()
                .any(|d| d.call_id == req.call_id && d.ours && d.confirmed)
            {
                self.fault("INVITE without To tag in a dialog".into());
            }
            said
        } else {
            None
        };
        self.outside.insert(req.call_id.clone(), (req.cseq, said));
    }

    fn inside(&mut self, index: usize, req: &SipRequest, now: u64) {
        let d = self.dialogs[index].clone();
        let name = d.name();
        let method = req.method;
        if req.cseq <= d.last_our {
            self.fault(format!(
                "CSeq of {method} does not rise: {} after {}: {name}",
                req.cseq, d.last_our
            ));
        }
        let again = method == "BYE" && d.bye_again;
        if d.our_bye && !again {
            self.fault(format!("{method} after our BYE: {name}"));
        }
        if d.far_bye {
            self.fault(format!("{method} after the far side's BYE: {name}"));
        }
        if d.dead {
            self.fault(format!(
                "{method} in a dialog that never came to be: {name}"
            ));
        }
        if !d.confirmed && !matches!(method, "PRACK" | "UPDATE" | "INFO") {
            self.fault(format!("{method} in an early dialog: {name}"));
        }
        let offers = matches!(method, "INVITE" | "UPDATE") && !req.body.is_empty();
        if method == "INVITE" {
            if d.our_invite.is_some() {
                self.fault(format!("second INVITE while ours is open: {name}"));
            }
            if d.far_invite.is_some() {
                self.fault(format!("INVITE while the far side's is open: {name}"));
            }
            if req.body.is_empty() {
                self.fault(format!("re-INVITE without offer: {name}"));
            }
        }
        if offers {
            if d.our_offer != OurOffer::No {
                self.fault(format!("{method} with an offer while ours is open: {name}"));
            }
            if d.far_offer.is_some() {
                self.fault(format!(
                    "{method} with an offer while the far side's is open: {name}"
                ));
            }
            let said = self.follows(&name, &d.said, &req.body);
            self.dialogs[index].said = said;
        }
        if method == "BYE" && !d.ours && !d.settled {
            let late = d.await_ack.is_some_and(|(_, _, at)| now >= at + 32_000);
            if !late {
                self.fault(format!("BYE before the ACK: {name}"));
            }
        }
        if method == "PRACK" {
            let rack = req
                .headers
                .lines()
                .find_map(|l| l.strip_prefix("RAck: "))
                .unwrap_or_default()
                .to_owned();
            let new = self
                .pracks
                .insert((name.clone(), rack.clone(), String::new()));
            if !new && !self.prack_again {
                self.fault(format!("PRACK again: {name} {rack}"));
            }
        }
        if method == "INFO" && req.body.contains("Signal=") {
            self.saw("> INFO digit".into());
        }
        let d = &mut self.dialogs[index];
        d.last_our = req.cseq;
        match method {
            "INVITE" => {
                d.our_invite = Some(req.cseq);
                d.our_offer = OurOffer::Reply(req.cseq);
            }
            "UPDATE" if offers => d.our_offer = OurOffer::Reply(req.cseq),
            "BYE" => {
                d.our_bye = true;
                d.bye_again = false;
            }
            _ => {}
        }
    }

    pub fn on_cancel(&mut self, call_id: &str, cseq: u32) {
        self.saw("> CANCEL".into());
        let found = self
            .client
            .iter_mut()
            .find(|c| c.req.method == "INVITE" && c.req.call_id == call_id && c.req.cseq == cseq);
        let fault = match found {
            None => Some("CANCEL of an INVITE that never was"),
            Some(c) if c.done => Some("CANCEL after the final reply"),
            Some(c) if !c.provisional => Some("CANCEL before a provisional reply"),
            Some(c) if c.cancelled => Some("CANCEL twice"),
            Some(c) => {
                c.cancelled = true;
                None
            }
        };
        if let Some(fault) = fault {
            self.fault(fault.to_owned());
        }
    }

    pub fn on_reply(&mut self, reply: &SipReply, now: u64) {
        let label = reply.tx.label;
        let code = reply.code;
        let Some(at) = self.server.iter().position(|s| s.label == label) else {
            return self.fault(format!("{code} for a transaction that never was"));
        };
        let s = self.server[at].clone();
        self.saw(format!("< {} {code}", s.method));
        if s.done {
            return self.fault(format!("{code} after the final reply to {}", s.method));
        }
        if s.gone {
            return self.fault(format!("{code} to {} of before the restart", s.method));
        }
        if s.method != "INVITE" && code < 200 {
            self.fault(format!("{code} to {}", s.method));
        }
        let ok = (200..300).contains(&code);
        if s.method == "INVITE" && ok && !reply.invite {
            self.fault("200 to INVITE is not marked as such".into());
        }
        if reply.body.is_empty() == reply.headers.contains("Content-Type:") {
            self.fault(format!("body and Content-Type: {code} {:?}", reply.headers));
        }
        if let Some(index) = s.dialog {
            self.reply_in(index, &s, reply, now);
        }
        if code >= 200 {
            self.server[at].done = true;
        }
    }

    fn reply_in(&mut self, index: usize, s: &Server, reply: &SipReply, now: u64) {
        let code = reply.code;
        let ok = (200..300).contains(&code);
        let name = self.dialogs[index].name();
        if s.initial && code > 100 {
            let d = &mut self.dialogs[index];
            if !reply.to_tag.is_empty() {
                if d.our_tag.is_empty() {
                    d.our_tag.clone_from(&reply.to_tag);
                } else if d.our_tag != reply.to_tag {
                    self.fault(format!("the To tag became another one: {name}"));
                }
            } else if code < 300 {
                self.fault(format!("{code} without To tag: {name}"));
            }
        }
        if code < 200 {
            let rseq = reply
                .headers
                .lines()
                .find_map(|l| l.strip_prefix("RSeq: "))
                .and_then(|v| v.parse().ok());
            if rseq.is_some() {
                self.saw("< reliable 180".into());
                self.dialogs[index].our_rseq = rseq;
            }
            return;
        }
        let described = matches!(s.method.as_str(), "INVITE" | "UPDATE");
        if described && ok {
            if s.offer && self.dialogs[index].our_offer != OurOffer::No {
                self.fault(format!("offer taken while ours is open: {name}"));
            }
            let wanted = s.method == "INVITE" || s.offer;
            if wanted == reply.body.is_empty() {
                self.fault(format!(
                    "{code} to {} (offer {}) with body {:?}: {name}",
                    s.method,
                    s.offer,
                    reply.body.len()
                ));
            }
            if !reply.body.is_empty() {
                let last = self.dialogs[index].said.clone();
                let said = self.follows(&name, &last, &reply.body);
                self.dialogs[index].said = said;
            }
            if reply.body.contains("a=setup:actpass") && s.offer {
                self.fault(format!("actpass in an answer: {name}"));
            }
        }
        let d = &mut self.dialogs[index];
        if d.far_offer == Some(s.label) {
            d.far_offer = None;
        }
        if s.method == "INVITE" {
            if d.far_invite == Some(s.label) {
                d.far_invite = None;
            }
            if ok {
                d.confirmed = true;
                d.await_ack = Some((s.cseq, !s.offer, now));
                if !s.offer {
                    d.our_offer = OurOffer::Ack;
                }
            } else if s.initial {
                d.dead = true;
            }
        }
    }

    // ---- what the far side sends

    /// A transaction for a request of the far side.
    pub fn open(&mut self, server: Server) -> ServerTx {
        self.next_label += 1;
        let label = self.next_label;
        if let Some(index) = server.dialog {
            let d = &mut self.dialogs[index];
            if server.method == "INVITE" {
                d.far_invite = Some(label);
            }
            if server.offer && matches!(server.method.as_str(), "INVITE" | "UPDATE") {
                d.far_offer = Some(label);
            }
            if server.method == "BYE" {
                d.far_bye = true;
            }
        }
        self.server.push(Server { label, ..server });
        ServerTx { index: 7, label }
    }

    /// The early or confirmed dialog of a reply to our INVITE.
    pub fn dialog_of(&mut self, client: usize, tag: &str) -> usize {
        let req = &self.client[client].req;
        if let Some(found) = self.find(&req.call_id, &req.from_tag, tag) {
            return found;
        }
        let said = Said::of(&req.body);
        self.dialogs.push(Dialog {
            call_id: req.call_id.clone(),
            our_tag: req.from_tag.clone(),
            far_tag: tag.to_owned(),
            ours: true,
            invite_cseq: req.cseq,
            last_our: req.cseq,
            our_offer: OurOffer::Reply(req.cseq),
            said,
            settled: true,
            ..self.fresh()
        });
        self.dialogs.len() - 1
    }

    pub fn fresh(&self) -> Dialog {
        Dialog {
            call_id: String::new(),
            our_tag: String::new(),
            far_tag: String::new(),
            ours: false,
            invite_cseq: 0,
            confirmed: false,
            dead: false,
            deaf: false,
            excused: false,
            our_bye: false,
            bye_again: false,
            far_bye: false,
            last_our: 0,
            far_cseq: 100,
            our_invite: None,
            our_offer: OurOffer::No,
            far_invite: None,
            far_offer: None,
            await_ack: None,
            acked: None,
            settled: false,
            said: None,
            our_rseq: None,
            far_rseq: 0,
            far_version: 4,
            far_media: 0,
            far_held: false,
            referred: false,
            peer: "1003".into(),
        }
    }

    /// A request of ours that could not be sent: a BYE of which the far side knows nothing has to be sent again, but not that of
    /// a second fork, which has no call of its own.
    pub fn never_came(&mut self, client: usize) {
        let request = &self.client[client];
        let (Some(index), "BYE") = (request.dialog, request.req.method) else {
            return;
        };
        let of = |d: &Dialog| (d.call_id.clone(), d.our_tag.clone());
        let this = of(&self.dialogs[index]);
        let forks = self.dialogs.iter().filter(|d| of(d) == this && d.confirmed);
        let fork = forks.count() > 1;
        self.dialogs[index].our_bye = false;
        self.dialogs[index].excused |= fork;
    }

    /// A reply has gone to the engine: what it means for the dialog.
    pub fn replied(&mut self, client: usize, code: u16, tag: &str, made_up: bool) {
        let initial = self.client[client].initial_invite();
        let (method, cseq) = (self.client[client].req.method, self.client[client].req.cseq);
        if code < 200 {
            self.client[client].provisional = true;
            if initial && code > 100 && !tag.is_empty() {
                self.dialog_of(client, tag);
            }
            return;
        }
        let first = !self.client[client].done;
        self.client[client].done = true;
        if initial {
            if (200..300).contains(&code) {
                let index = self.dialog_of(client, tag);
                let d = &mut self.dialogs[index];
                d.confirmed = true;
                d.our_offer = OurOffer::No;
            } else if first {
                let (call_id, tag) = {
                    let req = &self.client[client].req;
                    (req.call_id.clone(), req.from_tag.clone())
                };
                for d in &mut self.dialogs {
                    if d.call_id == call_id && d.our_tag == tag && !d.confirmed {
                        d.dead = true;
                    }
                }
            }
            return;
        }
        let Some(index) = self.client[client].dialog else {
            return;
        };
        if !first {
            return;
        }
        let d = &mut self.dialogs[index];
        if d.our_offer == OurOffer::Reply(cseq) {
            d.our_offer = OurOffer::No;
        }
        if method == "INVITE" && d.our_invite == Some(cseq) {
            d.our_invite = None;
        }
        match method {
            "BYE" if matches!(code, 401 | 407) && !made_up => d.bye_again = true,
            "REFER" if (200..300).contains(&code) => d.referred = true,
            "PRACK" if matches!(code, 401 | 407) => self.prack_again = true,
            _ => {}
        }
        if code == 481 || made_up && method != "BYE" {
            self.dialogs[index].excused = true;
        }
    }

    /// All transactions are gone.
    pub fn restart(&mut self) {
        for c in &mut self.client {
            c.done = true;
        }
        for s in &mut self.server {
            if !s.done {
                s.gone = true;
            }
        }
        for d in &mut self.dialogs {
            d.our_invite = None;
            d.our_offer = OurOffer::No;
            d.far_invite = None;
            d.far_offer = None;
            d.excused = true;
            d.settled = true;
            if d.our_bye {
                d.bye_again = true;
            }
            if !d.confirmed {
                d.dead = true;
            }
        }
    }

    /// A reply for the wire.
    pub fn reply_text(
        &self,
        client: usize,
        code: u16,
        tag: &str,
        more: &str,
        body: &str,
    ) -> String {
        let req = &self.client[client].req;
        let to_tag = if req.to_tag.is_empty() {
            tag
        } else {
            &req.to_tag
        };
        let to_tag = if to_tag.is_empty() {
            String::new()
        } else {
            format!(";tag={to_tag}")
        };
        let kind = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        let contact = if code < 300 {
            "Contact: <sip:far@127.0.0.1:5080>\r\n"
        } else {
            ""
        };
        format!(
            "SIP/2.0 {code} Whatever\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\n\
             From: {};tag={}\r\nTo: {}{to_tag}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n\
             {contact}{more}{kind}Content-Length: {}\r\n\r\n{body}",
            req.from,
            req.from_tag,
            req.to,
            req.call_id,
            req.cseq,
            req.method,
            body.len(),
        )
    }

    /// Requests of ours that wait.
    pub fn waiting(&self) -> Vec<usize> {
        (0..self.client.len())
            .filter(|c| !self.client[*c].done && !self.client[*c].lost)
            .collect()
    }

    /// When tm gives one up.
    pub fn timeout(&self, client: usize) -> u64 {
        let c = &self.client[client];
        if c.req.method == "INVITE" && c.provisional && !c.cancelled {
            c.since + 120_000
        } else {
            c.since + 32_000
        }
    }

    /// At the end of a walk.
    pub fn check_end(&mut self) {
        for at in 0..self.server.len() {
            let s = self.server[at].clone();
            if !s.done && !s.gone {
                self.fault(format!("no final reply to {}: {s:?}", s.method));
            }
        }
        for at in 0..self.dialogs.len() {
            let d = self.dialogs[at].clone();
            if d.confirmed && !d.over() && !d.excused {
                self.fault(format!("dialog left without BYE: {d:?}"));
            }
        }
        for at in 0..self.client.len() {
            let c = &self.client[at];
            if !c.done && !c.lost && c.req.handle.purpose != Purpose::Register {
                let text = format!("{} still open", c.req.method);
                self.fault(text);
            }
        }
    }
}

/// A request of the far side.
pub fn request_text(
    d: &Dialog,
    method: &str,
    cseq: u32,
    (our_tag, far_tag): (&str, &str),
    more: &str,
    body: &str,
) -> String {
    let to_tag = if our_tag.is_empty() {
        String::new()
    } else {
        format!(";tag={our_tag}")
    };
    let kind = if body.is_empty() || more.contains("Content-Type") {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    format!(
        "{method} sip:5001@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bK{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: \"Bob\" <sip:{}@pbx.example>;tag={far_tag}\r\n\
         To: <sip:5001@pbx.example>{to_tag}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:{}@127.0.0.1:5080>\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
        d.peer,
        d.call_id,
        d.peer,
        body.len()
    )
}
