//! What the operator sees through RPC. No secret is among it.

use rtc_json_engine::{Agent, Call, Input};

use crate::host::{Row, Sink};
use crate::runtime::{Drain, Runtime};
use crate::stats::{self, Stat};

/// One row an agent.
pub fn agents(runtime: &Runtime, sink: &Sink<'_>) -> i32 {
    let mut found = Vec::new();
    runtime.each_agent(|agent| found.push(agent.clone()));
    found.sort_by(|a, b| a.dn.cmp(&b.dn));
    for agent in found {
        sink.row(|row| {
            row.text(c"dn", &agent.dn);
            row.text(c"displayName", &agent.display_name);
            row.number(c"sessions", agent.sessions.len() as u64);
            row.number(c"attached", attached(&agent));
            row.number(c"calls", agent.live_calls() as u64);
            row.number(c"upstream", u64::from(agent.upstream.bound));
        });
    }
    0
}

/// One agent: a row for itself, one for each session and each call.
pub fn agent(runtime: &Runtime, dn: &str, sink: &Sink<'_>) -> i32 {
    let Some(agent) = runtime.look(dn) else {
        return -1;
    };
    let now = Runtime::now();
    sink.row(|row| {
        row.text(c"dn", &agent.dn);
        row.text(c"displayName", &agent.display_name);
        row.number(c"upstream", u64::from(agent.upstream.bound));
        row.number(
            c"upstreamExpires",
            agent.upstream.expires_at.saturating_sub(now) / 1000,
        );
    });
    for session in &agent.sessions {
        sink.row(|row| {
            row.number(c"session", u64::from(session.number));
            row.text(
                c"state",
                if session.attached() {
                    "attached"
                } else {
                    "away"
                },
            );
            if let Some(conn) = session.conn {
                row.number(c"conn", u64::try_from(conn).unwrap_or_default());
            }
            if let Some(addr) = session.addr {
                row.text(c"address", &addr.to_string());
            }
            row.number(c"expires", session.expires_at.saturating_sub(now) / 1000);
        });
    }
    for call in &agent.calls {
        sink.row(|row| show_call(row, &agent, call, now));
    }
    0
}

/// One row a call.
pub fn calls(runtime: &Runtime, sink: &Sink<'_>) -> i32 {
    let now = Runtime::now();
    let mut found = Vec::new();
    runtime.each_agent(|agent| {
        if !agent.calls.is_empty() {
            found.push(agent.clone());
        }
    });
    for agent in &found {
        for call in &agent.calls {
            sink.row(|row| show_call(row, agent, call, now));
        }
    }
    0
}

/// Ends a call by its `callId`.
pub fn hangup(runtime: &Runtime, call_id: &str) -> i32 {
    let mut owner = None;
    runtime.each_agent(|agent| {
        if agent.calls.iter().any(|c| c.id == call_id && c.live()) {
            owner = Some(agent.dn.clone());
        }
    });
    let Some(dn) = owner else { return -1 };
    let input = Input::HangUp {
        call: call_id.to_owned(),
    };
    match runtime.drive(&dn, input, false) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// Takes no new calls and sessions, and ends when none is left, or takes them again. One row with what is left.
pub fn drain(runtime: &Runtime, mode: Drain, sink: &Sink<'_>) -> i32 {
    runtime.drain(mode);
    sink.row(|row| {
        for entry in stats::ALL {
            if matches!(entry.stat, Stat::Draining | Stat::Sessions | Stat::Calls) {
                row.number(entry.name, runtime.value(entry.stat));
            }
        }
    });
    0
}

/// All statistics in one row.
pub fn stats(runtime: &Runtime, sink: &Sink<'_>) -> i32 {
    sink.row(|row| {
        for entry in stats::ALL {
            row.number(entry.name, runtime.value(entry.stat));
        }
    });
    0
}

fn attached(agent: &Agent) -> u64 {
    agent.sessions.iter().filter(|s| s.attached()).count() as u64
}

fn show_call(row: &Row<'_>, agent: &Agent, call: &Call, now: u64) {
    row.text(c"callId", &call.id);
    row.text(c"dn", &agent.dn);
    row.text(c"direction", call.direction.as_str());
    row.text(c"state", call.state.as_str());
    row.text(c"peer", &call.peer);
    row.text(c"sipCallId", &call.leg.dialog.call_id);
    row.number(c"hold", call.hold.into());
    row.number(c"remoteHold", call.remote_hold.into());
    row.number(c"muted", call.muted.into());
    if let Some(recording) = call.recording {
        row.text(c"recording", recording.as_str());
    }
    if let Some(moves) = &call.moves {
        row.text(c"moves", moves);
    }
    row.number(c"duration", call.duration(now));
}
