//! Whether the contact centre answers: OPTIONS to it again and again, by the timer's process; its answers come in any.

use std::sync::atomic::Ordering;

use rand_core::RngCore;
use rtc_json_api::probe::{answers, Probe};
use rtc_json_api::rest::Genesys;
use rtc_json_engine::{Handle, Purpose, SipRequest};
use rtc_json_store::NEVER;

use crate::host::Level;
use crate::runtime::Runtime;
use crate::stats::Stat;

/// Where it is and how often it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// SIP URI.
    pub uri: String,
    /// `host` or `host:port` of it.
    pub server: String,
    /// Milliseconds from one question to the next.
    pub interval: u64,
}

const KEY: &[u8] = b"g";

impl Runtime {
    /// Asks it if it is time to.
    pub fn probe_genesys(&self) {
        let Some(target) = &self.genesys else { return };
        let now = Self::now();
        let last = self.probed_at.load(Ordering::Relaxed);
        if last != 0 && now.saturating_sub(last) < target.interval {
            return;
        }
        self.probed_at.store(now, Ordering::Relaxed);
        let number = crate::entropy::Generator.next_u32() >> 1 | 1;
        let mut silent = None;
        self.with_probe(|probe| {
            // no answer since: tm may go on waiting for it longer than this
            if probe.open != 0 && probe.saw(false) {
                silent = Some(probe.up);
            }
            probe.open = number;
        });
        if let Some(up) = silent {
            self.genesys_is(up, "no answer in time");
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
                call: String::new(),
                cseq: number,
            },
        };
        if !self.host.request(&request) {
            self.probe_answered(number, 503, false);
        }
    }

    /// A final reply to a question, or what tm made up for it (`real` is false).
    pub fn probe_answered(&self, number: u32, code: u16, real: bool) {
        if code < 200 {
            return;
        }
        let answered = real && answers(code);
        let mut changed = None;
        self.with_probe(|probe| {
            // one that came late has been counted as a failure
            if probe.open != number {
                return;
            }
            probe.open = 0;
            if probe.saw(answered) {
                changed = Some(probe.up);
            }
        });
        if let Some(up) = changed {
            self.genesys_is(up, &code.to_string());
        }
    }

    /// Tells the operator that it has changed.
    fn genesys_is(&self, up: bool, why: &str) {
        let server = self.genesys.as_ref().map_or("", |target| &target.server);
        let (level, word) = match up {
            true => (Level::Notice, "answers"),
            false => (Level::Warning, "does not answer"),
        };
        self.host
            .log(level, &format!("genesys: {server} {word} ({why})"));
        self.stat(Stat::GenesysUp)
            .store(u64::from(up), Ordering::Relaxed);
    }

    /// What the API says of it.
    pub fn genesys_status(&self) -> Genesys {
        Genesys {
            connected: self.genesys.is_some()
                && self.stat(Stat::GenesysUp).load(Ordering::Relaxed) == 1,
            server: self.genesys.as_ref().map(|target| target.server.clone()),
            registered_agents: self.value(Stat::Agents) + self.agents_elsewhere(),
        }
    }

    /// At a start nothing is known.
    pub fn forget_genesys(&self) {
        if let Ok(Some(mut guard)) = self.arena.lock(KEY) {
            guard.remove();
        }
        self.stat(Stat::GenesysUp).store(0, Ordering::Relaxed);
    }

    fn with_probe(&self, change: impl FnOnce(&mut Probe)) {
        // (without room the next question tries again)
        let Ok(mut guard) = self.arena.lock_or_create(KEY) else {
            return;
        };
        let mut probe = postcard::from_bytes::<Probe>(guard.record()).unwrap_or_default();
        change(&mut probe);
        if let Ok(bytes) = postcard::to_stdvec(&probe) {
            if let Err(error) = guard.commit(&bytes, NEVER) {
                self.host.log(
                    Level::Error,
                    &format!("genesys: what is known cannot be kept: {error}"),
                );
            }
        }
    }
}
