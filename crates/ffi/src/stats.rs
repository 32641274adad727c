//! The statistics: cells in the arena's header, so that all processes share them and a restart keeps them.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use crate::runtime::Runtime;

/// Declares the statistics once: cell, name, kind, description.
macro_rules! statistics {
    ($($stat:ident $name:literal $gauge:literal $doc:literal,)+) => {
        /// A statistic; its number is its cell in the arena.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stat {
            $(#[doc = $doc] $stat,)+
        }

        /// All of them, in the order of their numbers.
        pub const ALL: &[Entry] = &[$(Entry {
            stat: Stat::$stat,
            // SAFETY: the literal ends in NUL and has no other
            name: unsafe { CStr::from_bytes_with_nul_unchecked(concat!($name, "\0").as_bytes()) },
            // SAFETY: as above
            doc: unsafe { CStr::from_bytes_with_nul_unchecked(concat!($doc, "\0").as_bytes()) },
            gauge: $gauge,
        },)+];
    };
}

/// A statistic as Kamailio shows it.
pub struct Entry {
    /// Which.
    pub stat: Stat,
    /// Name in the group `rtc_json`.
    pub name: &'static CStr,
    /// What it counts.
    pub doc: &'static CStr,
    /// Goes up and down?
    pub gauge: bool,
}

statistics! {
    Agents "agents" true "DNs with at least one session",
    Sessions "sessions" true "Sessions (browsers), attached or waiting to be resumed",
    Calls "calls" true "Calls that browsers know of",
    Registered "registered" false "Registrations granted",
    RegisterFailed "register_failed" false "Registrations refused",
    Resumed "resumed" false "Sessions resumed on a new connection",
    SessionsLost "sessions_lost" false "Sessions not resumed within the grace time",
    CallsOut "calls_out" false "Calls that browsers started",
    CallsIn "calls_in" false "INVITEs received for agents",
    CallsAnswered "calls_answered" false "Calls answered, both directions",
    CallsFailed "calls_failed" false "Calls that ended unanswered",
    Errors "errors" false "error messages sent as the outcome of a request",
    FramesIn "frames_in" false "JSON frames received",
    FramesOut "frames_out" false "JSON frames sent",
    BadFrames "bad_frames" false "Frames refused as malformed",
    StepFailures "step_failures" false "Steps that failed by a fault of the program",
    ArenaFull "arena_full" false "Events refused because the arena was full",
    ArenaUsed "arena_used" true "Bytes of the arena in use",
    ArenaSize "arena_size" true "Bytes of the arena",
    ArenaRecords "arena_records" true "Records in the arena: agents, connections, the directory, past calls, failures to register, open sockets",
    CallRecords "call_records" false "Calls that are over, each with a record",
    CallRecordsWritten "call_records_written" false "Records of calls that are in the table, or never were to be",
    ApiRequests "api_requests" false "HTTP requests to the API",
    ApiErrors "api_errors" false "HTTP requests that were answered with 4xx or 5xx",
    GenesysUp "genesys_up" true "1: the contact centre answers OPTIONS",
    TakenOver "taken_over" false "Agents taken over from another node",
    Yielded "yielded" false "Agents that another node has taken over",
    PassedOn "passed_on" false "INVITEs that went on to the node that has taken their agent over",
    Orphaned "orphaned" false "Agents of a node that is gone which were ended here, for no browser of theirs had come",
    RegisterLimited "register_limited" false "register refused because its DN or address had failed too often",
    CallsLimited "calls_limited" false "call refused because the agent's calls came too fast",
    CallsAway "calls_away" false "INVITEs refused because the agent is away",
    SocketsLimited "sockets_limited" false "WebSockets refused because their address had too many",
    NextHopDown "next_hop_down" true "1: the next hop answered OPTIONS before and does not now",
    Draining "draining" true "1: no new calls and sessions, by rtc_json.drain; 2: and the server ends when it is empty",
}

impl Runtime {
    /// The value of a statistic.
    pub fn value(&self, stat: Stat) -> u64 {
        match stat {
            Stat::ArenaUsed => self.arena.usage().used_bytes,
            Stat::ArenaSize => self.arena.usage().size,
            Stat::ArenaRecords => self.arena.usage().records,
            _ => self.stat(stat).load(Ordering::Relaxed),
        }
    }
}
