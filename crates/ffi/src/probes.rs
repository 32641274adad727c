//! Whether the contact centre and the next hop answer: OPTIONS to them again and again, by the timer's process; their answers come
//! in any.

use std::sync::atomic::Ordering;

use rand_core::RngCore;
use rtc_json_api::probe::{answers, Probe};
use rtc_json_api::rest::Genesys;
use rtc_json_engine::{Handle, Input, Purpose, SipRequest};
use rtc_json_store::NEVER;

use crate::host::Level;
use crate::runtime::Runtime;
use crate::stats::Stat;

/// Where a server is and how often it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// SIP URI.
    pub uri: String,
    /// `host` or `host:port` of it.
    pub server: String,
    /// Milliseconds from one question to the next.
    pub interval: u64,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Asked {
    /// The contact centre, for those who look at it through the API.
    Genesys = 0,
    /// The next hop, for the browsers.
    NextHop = 1,
}

impl Asked {
    /// All of them.
    pub const ALL: [Asked; 2] = [Asked::Genesys, Asked::NextHop];

    fn from_word(word: &str) -> Self {
        match word {
            "hop" => Asked::NextHop,
            _ => Asked::Genesys,
        }
    }

    /// In the handle of a question.
    fn word(self) -> &'static str {
        match self {
            Asked::Genesys => "",
            Asked::NextHop => "hop",
        }
    }

    /// In the log.
    fn name(self) -> &'static str {
        match self {
            Asked::Genesys => "genesys",
            Asked::NextHop => "next hop",
        }
    }

    fn key(self) -> &'static [u8] {
        match self {
            Asked::Genesys => b"g",
            Asked::NextHop => b"h",
        }
    }

    /// Failures in a row that count. tm repeats a question that has no answer, so two of them are five lost packets; browsers are to
    /// be told within five seconds.
    fn down_after(self) -> u8 {
        match self {
            Asked::Genesys => 3,
            Asked::NextHop => 2,
        }
    }
}

impl Runtime {
    /// Asks each that is to be asked now.
    pub fn probe(&self) {
        for asked in Asked::ALL {
            self.probe_one(asked);
        }
    }

    fn probe_one(&self, asked: Asked) {
        let Some(target) = &self.targets[asked as usize] else {
            return;
        };
        let now = Self::now();
        let last = self.probed_at[asked as usize].load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < target.interval {
            return;
        }
        self.probed_at[asked as usize].store(now, Ordering::Relaxed);
        let number = crate::entropy::Generator.next_u32() >> 1 | 1;
        let mut silent = None;
        self.with_probe(asked, |probe| {
            let first = !probe.known;
            // no answer since: tm may go on waiting for it longer than this
            if probe.open != 0 && probe.saw(false, asked.down_after()) {
                silent = Some((probe.up, first));
            }
            probe.open = number;
        });
        if let Some((up, first)) = silent {
            self.is_now(asked, up, first, "no answer in time");
        }
        let tag = format!("{:016x}", crate::entropy::Generator.next_u64());
        let request = SipRequest {
            method: "OPTIONS",
            uri: target.uri.clone(),
            from: format!("<sip:{}>", self.config.domain),
            to: format!("<{}>", target.uri),
            to_tag: String::new(),
            call_id: format!("{tag}-{number}"),
            from_tag: tag,
            cseq: 1,
            next_hop: target.uri.clone(),
            headers: format!(
                "Contact: <sip:{}>\r\nAccept: application/sdp\r\n",
                self.config.contact
            ),
            body: String::new(),
            handle: Handle {
                dn: String::new(),
                purpose: Purpose::Probe,
                call: asked.word().to_owned(),
                cseq: number,
            },
        };
        if !self.host.request(&request) {
            self.probe_answered(&request.handle, 503, false);
        }
    }

    /// A final reply to a question, or what tm made up for it (`real` is false).
    pub fn probe_answered(&self, handle: &Handle, code: u16, real: bool) {
        if code < 200 {
            return;
        }
        let asked = Asked::from_word(&handle.call);
        let answered = real && answers(code);
        let mut changed = None;
        self.with_probe(asked, |probe| {
            // one that came late has been counted as a failure
            if probe.open != handle.cseq {
                return;
            }
            let first = !probe.known;
            probe.open = 0;
            if probe.saw(answered, asked.down_after()) {
                changed = Some((probe.up, first));
            }
        });
        if let Some((up, first)) = changed {
            self.is_now(asked, up, first, &code.to_string());
        }
    }

    /// It has changed: tells the operator and whom else it concerns. `first`: nothing was known before.
    fn is_now(&self, asked: Asked, up: bool, first: bool, why: &str) {
        let server = self.targets[asked as usize]
            .as_ref()
            .map_or("", |target| &target.server);
        let (level, word) = match up {
            true => (Level::Notice, "answers"),
            false => (Level::Warning, "does not answer"),
        };
        self.host
            .log(level, &format!("{}: {server} {word} ({why})", asked.name()));
        match asked {
            Asked::Genesys => self
                .stat(Stat::GenesysUp)
                .store(u64::from(up), Ordering::Relaxed),
            // One that never answers such a question may work all the same. And one that answers at once is no news.
            Asked::NextHop if first => {}
            Asked::NextHop => {
                self.stat(Stat::NextHopDown)
                    .store(u64::from(!up), Ordering::Relaxed);
                let mut there = Vec::new();
                self.each_agent(|agent| there.push(agent.dn.clone()));
                for dn in there {
                    // one that has gone meanwhile need not be told
                    let _gone = self.drive(&dn, Input::NextHop, false);
                }
            }
        }
    }

    /// Is the next hop silent that has answered before?
    pub fn unreachable(&self) -> bool {
        self.stat(Stat::NextHopDown).load(Ordering::Relaxed) != 0
    }

    /// What the API says of the contact centre.
    pub fn genesys_status(&self) -> Genesys {
        let target = &self.targets[Asked::Genesys as usize];
        Genesys {
            connected: target.is_some() && self.stat(Stat::GenesysUp).load(Ordering::Relaxed) == 1,
            server: target.as_ref().map(|target| target.server.clone()),
            registered_agents: self.value(Stat::Agents) + self.agents_elsewhere(),
        }
    }

    /// At a start nothing is known.
    pub fn forget_probes(&self) {
        for asked in Asked::ALL {
            if let Ok(Some(mut guard)) = self.arena.lock(asked.key()) {
                guard.remove();
            }
        }
        self.stat(Stat::GenesysUp).store(0, Ordering::Relaxed);
        self.stat(Stat::NextHopDown).store(0, Ordering::Relaxed);
    }

    fn with_probe(&self, asked: Asked, change: impl FnOnce(&mut Probe)) {
        // (without room the next question tries again)
        let Ok(mut guard) = self.arena.lock_or_create(asked.key()) else {
            return;
        };
        let mut probe = postcard::from_bytes::<Probe>(guard.record()).unwrap_or_default();
        change(&mut probe);
        if let Ok(bytes) = postcard::to_stdvec(&probe) {
            if let Err(error) = guard.commit(&bytes, NEVER) {
                self.host.log(
                    Level::Error,
                    &format!("{}: what is known cannot be kept: {error}", asked.name()),
                );
            }
        }
    }
}
