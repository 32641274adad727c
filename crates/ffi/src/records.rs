//! Records of calls that are over: numbered, the latest kept in the arena for the API, and each logged if the operator wants it.

use std::sync::atomic::Ordering;

use rtc_json_api::calls::PastCall;
use rtc_json_engine::{CallRecord, Direction};
use rtc_json_store::NEVER;

use crate::host::Level;
use crate::runtime::Runtime;
use crate::stats::Stat;

/// What becomes of records.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// How many are kept for the API.
    pub keep: u64,
    /// A log line for each?
    pub log: bool,
}

const PREFIX: &[u8] = b"r/";

fn key(number: u64) -> Vec<u8> {
    format!("r/{number}").into_bytes()
}

impl Runtime {
    /// Takes the record of a call that has just ended.
    pub fn keep_record(&self, record: &CallRecord) {
        let call = past_call(record);
        if self.records.log {
            self.host
                .log(Level::Info, &format!("call-record {}", call.json()));
        }
        // from 1 on, and never the same twice while the arena lives
        let number = self.stat(Stat::CallRecords).fetch_add(1, Ordering::Relaxed) + 1;
        if self.records.keep == 0 {
            return;
        }
        let kept = postcard::to_stdvec(&call).is_ok_and(|bytes| {
            self.arena
                .lock_or_create(&key(number))
                .and_then(|mut guard| guard.commit(&bytes, NEVER))
                .is_ok()
        });
        if !kept {
            self.host.log(
                Level::Error,
                &format!("{}: no room for the record of a call", record.dn),
            );
        }
        self.forget_record(number.saturating_sub(self.records.keep));
    }

    fn forget_record(&self, number: u64) {
        if let Ok(Some(mut guard)) = self.arena.lock(&key(number)) {
            guard.remove();
        }
    }

    /// Kept records, latest first: those below `before`, of a DN that is wanted, at most so many.
    pub fn past_calls(
        &self,
        before: u64,
        wanted: &dyn Fn(&str) -> bool,
        limit: usize,
    ) -> Vec<(u64, PastCall)> {
        let last = self.stat(Stat::CallRecords).load(Ordering::Relaxed);
        let oldest = last.saturating_sub(self.records.keep) + 1;
        let mut found = Vec::new();
        let mut number = last.min(before.saturating_sub(1));
        while number >= oldest && number > 0 && found.len() < limit {
            let stored = match self.arena.lock(&key(number)) {
                Ok(Some(guard)) => postcard::from_bytes::<PastCall>(guard.record()).ok(),
                _ => None,
            };
            if let Some(call) = stored.filter(|call| wanted(&call.dn)) {
                found.push((number, call));
            }
            number -= 1;
        }
        found
    }

    /// After a start: records beyond those that are kept now.
    pub fn forget_old_records(&self) {
        let last = self.stat(Stat::CallRecords).load(Ordering::Relaxed);
        let oldest = last.saturating_sub(self.records.keep) + 1;
        let mut old = Vec::new();
        let listed = self.arena.for_each(|key, _| {
            let number = key
                .strip_prefix(PREFIX)
                .and_then(|text| std::str::from_utf8(text).ok())
                .and_then(|text| text.parse::<u64>().ok());
            if let Some(number) = number.filter(|number| *number < oldest) {
                old.push(number);
            }
        });
        self.listed(listed);
        for number in old {
            self.forget_record(number);
        }
    }
}

fn past_call(record: &CallRecord) -> PastCall {
    PastCall {
        call_id: record.id.clone(),
        sip_call_id: record.sip_call_id.clone(),
        dn: record.dn.clone(),
        inbound: record.direction == Direction::In,
        from: record.from.clone(),
        to: record.to.clone(),
        started: record.started,
        answered: record.answered,
        duration: record.duration,
        reason: record.reason.as_str().to_owned(),
        code: record.code,
        cause: record.cause,
        ring_after: record.ring_after,
        answer_after: record.answer_after,
        recorded: record.recorded,
    }
}
