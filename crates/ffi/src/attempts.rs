//! Who fails to register again and again has to wait: for each DN, and for each address.
//!
//! What is counted lies in the arena, `f/d/DN` and `f/a/ADDRESS`, so all workers see it and a restart forgives nothing; the timer
//! forgets it. A browser that shows a session or a good token is never made to wait, nor one at an address where its DN is in use:
//! else whoever knows a number could lock its owner out.

use std::net::{IpAddr, Ipv6Addr};

use rtc_json_engine::Failures;
use rtc_json_protocol::{Register, ServerMessage};
use rtc_json_sip::same_secret;

use crate::host::Level;
use crate::runtime::Runtime;
use crate::stats::Stat;

/// Failures that are free; 0 for no limit.
#[derive(Clone, Copy, Debug)]
pub struct Attempts {
    /// Of one DN.
    pub dn: u32,
    /// Of one address.
    pub addr: u32,
}

const PREFIX: &str = "f/";

fn dn_key(dn: &str) -> String {
    [PREFIX, "d/", dn].concat()
}

fn addr_key(addr: IpAddr) -> String {
    format!("{PREFIX}a/{}", network(addr))
}

/// What counts as one address: a network of IPv6 belongs to one customer, who may choose any address of it.
pub fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

impl Runtime {
    /// Milliseconds for which a `register` is not looked at; none if it may be tried.
    pub fn must_wait(
        &self,
        dn: Option<&str>,
        addr: Option<IpAddr>,
        register: &Register,
    ) -> Option<u64> {
        let now = Self::now();
        let wait = |limit: u32, key: Option<String>| match key {
            Some(key) if limit != 0 => self.failures(&key).map_or(0, |f| f.wait(now)),
            _ => 0,
        };
        let of_addr = wait(self.attempts.addr, addr.map(addr_key));
        let of_dn = wait(self.attempts.dn, dn.map(dn_key));
        if of_addr.max(of_dn) == 0 {
            return None;
        }
        let resume = register.resume.as_ref();
        let at_home = dn
            .and_then(|dn| self.look(dn).or_else(|| self.told(dn)))
            .is_some_and(|agent| {
                agent.sessions.iter().any(|session| {
                    resume.is_some_and(|given| same_secret(&session.token, given.expose()))
                        || (of_addr == 0 && addr.is_some() && session.addr == addr)
                })
            });
        (!at_home).then_some(of_addr.max(of_dn))
    }

    /// Refuses a `register` that came too soon.
    pub fn too_many(&self, conn: i32, id: &str, wait: u64) {
        self.count(Stat::RegisterLimited);
        self.count(Stat::RegisterFailed);
        let message = ServerMessage::RegistrationFailed {
            reason: "too many failed attempts: wait".to_owned(),
            code: 429,
            retry_after: Some(wait.div_ceil(1000)),
        };
        self.answer(conn, id, &message);
    }

    /// A browser has shown who it is, or has failed to.
    pub fn judged(&self, dn: &str, conn: i32, right: bool) {
        if right {
            // not for its address: else a guesser with a number of his own could go on for ever
            if let Ok(Some(mut guard)) = self.arena.lock(dn_key(dn).as_bytes()) {
                guard.remove();
            }
            return;
        }
        self.failed(self.attempts.dn, &dn_key(dn), dn);
        if let Some(addr) = self.connection(conn).addr {
            self.failed(self.attempts.addr, &addr_key(addr), &addr.to_string());
        }
    }

    fn failed(&self, limit: u32, key: &str, who: &str) {
        // what is left of the arena belongs to calls
        if limit == 0 || self.short_of_space() {
            return;
        }
        let Ok(mut guard) = self.arena.lock_or_create(key.as_bytes()) else {
            return;
        };
        let mut failures: Failures = postcard::from_bytes(guard.record()).unwrap_or_default();
        let wait = failures.failed(limit, Self::now());
        if let Ok(record) = postcard::to_stdvec(&failures) {
            // without room nothing is remembered, and nobody is kept out
            let _noted = guard.commit(&record, failures.forgotten_at(limit));
        }
        drop(guard);
        if wait != 0 {
            let seconds = wait.div_ceil(1000);
            self.host.log(
                Level::Notice,
                &format!(
                    "register: {who} has failed too often and is not looked at for {seconds} s"
                ),
            );
        }
    }

    fn failures(&self, key: &str) -> Option<Failures> {
        if !self.arena.contains(key.as_bytes()) {
            return None;
        }
        let guard = self.arena.lock(key.as_bytes()).ok()??;
        postcard::from_bytes(guard.record()).ok()
    }

    /// The time of such a record has come.
    pub fn forget_failures(&self, key: &[u8]) {
        let Some(rest) = key.strip_prefix(PREFIX.as_bytes()) else {
            return;
        };
        let limit = match rest.starts_with(b"d/") {
            true => self.attempts.dn,
            false => self.attempts.addr,
        };
        let Ok(Some(mut guard)) = self.arena.lock(key) else {
            return;
        };
        let over = postcard::from_bytes::<Failures>(guard.record())
            .map_or(true, |f| f.forgotten_at(limit) <= Self::now());
        if over {
            guard.remove();
        }
    }
}
