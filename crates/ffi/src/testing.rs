//! What tests of the whole surface need beside it. In no build of the module.

pub use crate::fault::arm;
pub use crate::host::{
    rtc_json_call_record_t, rtc_json_config_t, rtc_json_host_t, rtc_json_reply_t,
    rtc_json_request_t, rtc_json_rpc_sink_t, rtc_json_str_t,
};

use std::sync::atomic::Ordering;

use crate::stats::Stat;
use crate::RUNTIME;

/// Forgets all agents and connections, so that a next run begins as the first one did. Gives how many records there were.
///
/// # Panics
/// If a lock is still held.
pub fn forget_all() -> usize {
    let Some(runtime) = RUNTIME.get() else {
        return 0;
    };
    let mut keys = Vec::new();
    runtime.arena.keys(|key| keys.push(key.to_vec()));
    for key in &keys {
        if let Some(mut guard) = runtime.arena.lock(key).expect("the lock is free") {
            guard.remove();
        }
    }
    for gauge in [Stat::Agents, Stat::Sessions, Stat::Calls] {
        runtime.stat(gauge).store(0, Ordering::Relaxed);
    }
    keys.len()
}

/// Keys of all records that can be locked.
///
/// # Panics
/// If this thread holds a lock.
pub fn records() -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    if let Some(runtime) = RUNTIME.get() {
        runtime
            .arena
            .for_each(|key, _| keys.push(key.to_vec()))
            .expect("no lock is held");
        let _the_heap_can_be_locked = runtime.arena.usage();
    }
    keys
}
