//! How many WebSockets one address may have open.
//!
//! Which they are lies in the arena, `s/ADDRESS`, so all workers see them: their connection numbers, not a count, which would drift
//! with every connection whose end nobody tells. A connection is forgotten when the websocket module tells of its end, and
//! those of which nobody will hear any more (their handshake failed) when the address is at its limit, or once a minute.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::attempts::network;
use crate::host::Level;
use crate::runtime::Runtime;
use crate::stats::Stat;

/// The WebSockets of an address.
#[derive(Default, Serialize, Deserialize)]
struct Sockets {
    /// Start of Kamailio that they belong to; connection numbers begin again with each.
    start: u64,
    conns: Vec<i32>,
    /// When the operator was last told that it gets no more; 0 for never.
    told_at: u64,
}

const PREFIX: &str = "s/";
/// Milliseconds between two looks at the connections of an address, and between two log lines about it.
const LOOK_EVERY: u64 = 60_000;

fn key(addr: IpAddr) -> String {
    format!("{PREFIX}{}", network(addr))
}

impl Runtime {
    /// May this connection become a WebSocket? If so, it is one of its address from now on.
    pub fn socket_opens(&self, conn: i32, addr: IpAddr) -> bool {
        let limit = self.max_sockets;
        // what is left of the arena belongs to calls
        if limit == 0 || self.short_of_space() {
            return true;
        }
        let Ok(mut guard) = self.arena.lock_or_create(key(addr).as_bytes()) else {
            return true;
        };
        let mut sockets = self.sockets(guard.record());
        if sockets.conns.contains(&conn) {
            return true;
        }
        if sockets.conns.len() >= limit {
            sockets.conns.retain(|conn| self.host.conn_alive(*conn));
        }
        let allowed = sockets.conns.len() < limit;
        let now = Self::now();
        let tell =
            !allowed && (sockets.told_at == 0 || now.saturating_sub(sockets.told_at) >= LOOK_EVERY);
        if allowed {
            sockets.conns.push(conn);
        }
        if tell {
            sockets.told_at = now;
        }
        if let Ok(record) = postcard::to_stdvec(&sockets) {
            // without room nothing is remembered, and nobody is kept out
            let _noted = guard.commit(&record, now + LOOK_EVERY);
        }
        drop(guard);
        if !allowed {
            self.count(Stat::SocketsLimited);
        }
        if tell {
            self.host.log(
                Level::Notice,
                &format!("{addr} has {limit} WebSockets open and gets no more"),
            );
        }
        allowed
    }

    /// A connection is no WebSocket any more.
    pub fn socket_closed(&self, conn: i32, addr: IpAddr) {
        if self.max_sockets != 0 {
            self.forget_sockets(key(addr).as_bytes(), |known| known != conn);
        }
    }

    /// The time of such a record has come.
    pub fn look_at_sockets(&self, key: &[u8]) {
        if key.starts_with(PREFIX.as_bytes()) {
            self.forget_sockets(key, |conn| self.host.conn_alive(conn));
        }
    }

    fn forget_sockets(&self, key: &[u8], keep: impl Fn(i32) -> bool) {
        let Ok(Some(mut guard)) = self.arena.lock(key) else {
            return;
        };
        let mut sockets = self.sockets(guard.record());
        sockets.conns.retain(|conn| keep(*conn));
        if sockets.conns.is_empty() {
            return guard.remove();
        }
        if let Ok(record) = postcard::to_stdvec(&sockets) {
            // shorter than before
            let _noted = guard.commit(&record, Self::now() + LOOK_EVERY);
        }
    }

    fn sockets(&self, record: &[u8]) -> Sockets {
        postcard::from_bytes::<Sockets>(record)
            .ok()
            .filter(|sockets| sockets.start == self.start)
            .unwrap_or(Sockets {
                start: self.start,
                ..Sockets::default()
            })
    }
}
