//! Records of calls that are over: numbered, the latest kept in the arena for the API, and each logged and written into a table if
//! the operator wants it.
//!
//! What waits for the table stays in the arena however much it is, also over a crash or a restart, and is written in its order. So
//! none is lost while the database is away.

use std::sync::atomic::{AtomicU64, Ordering};

use rtc_json_api::calls::{PastCall, PastTransfer};
use rtc_json_engine::{CallRecord, Direction};
use rtc_json_store::NEVER;

use crate::host::{Level, Written};
use crate::runtime::Runtime;
use crate::stats::Stat;

/// What becomes of records.
#[derive(Debug)]
pub struct Records {
    /// How many are kept for the API.
    pub keep: u64,
    /// A log line for each?
    pub log: bool,
    /// A row for each?
    pub write: bool,
    /// When the first one that is not there was first looked for; of this process. 0 for none.
    pub missed_at: AtomicU64,
    /// Since when the table takes the first one that waits no more; of this process. 0: it does.
    pub refused_at: AtomicU64,
    /// When the operator was last told that they cannot be written; of this process. 0: they can be.
    pub told_at: AtomicU64,
}

/// Milliseconds for which a record that has a number may not be there yet.
const MISSING_FOR: u64 = 5_000;
/// Milliseconds for which a record that the table does not take is tried.
const REFUSED_FOR: u64 = 5_000;
/// Milliseconds between two log lines about the same trouble.
const TELL_EVERY: u64 = 60_000;

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
        if self.records.keep == 0 && !self.records.write {
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
        // one that waits for the table is forgotten when it is written
        let old = number.saturating_sub(self.records.keep);
        if old <= self.written(number) {
            self.forget_record(old);
        }
    }

    /// The number up to which records may be forgotten, `last` being the latest.
    fn written(&self, last: u64) -> u64 {
        match self.records.write {
            true => self.stat(Stat::CallRecordsWritten).load(Ordering::Relaxed),
            false => last,
        }
    }

    /// Writes what waits for the table; in one process.
    pub fn write_records(&self) {
        let written = self.stat(Stat::CallRecordsWritten);
        let mut number = written.load(Ordering::Relaxed) + 1;
        while number <= self.stat(Stat::CallRecords).load(Ordering::Relaxed) {
            let stored = self.stored_record(number);
            let outcome = stored.as_ref().map(|call| self.host.record_write(call));
            match (outcome, stored) {
                (Some(Written::Refused), Some(call)) if self.is_refused_alone(number) => {
                    // it must not hold up all that follow
                    self.host.log(
                        Level::Error,
                        &format!(
                            "the table does not take the record of a call, and it goes on without it: {}",
                            call.json()
                        ),
                    );
                }
                (Some(Written::Refused | Written::NotNow), _) => {
                    // told once a minute, not once a second
                    let now = Self::now();
                    let told = self.records.told_at.load(Ordering::Relaxed);
                    if told == 0 || now.saturating_sub(told) >= TELL_EVERY {
                        self.records.told_at.store(now, Ordering::Relaxed);
                        let last = self.stat(Stat::CallRecords).load(Ordering::Relaxed);
                        let waiting = (last + 1).saturating_sub(number);
                        self.host.log(
                            Level::Error,
                            &format!(
                                "records of calls cannot be written at the moment; {waiting} wait"
                            ),
                        );
                    }
                    return;
                }
                (Some(Written::Yes), _) => self.records.missed_at.store(0, Ordering::Relaxed),
                // its number is taken a moment before it is stored; of a process that died in between nothing will come
                (None, _) if !self.has_waited() => return,
                (None, _) => {}
            }
            self.records.refused_at.store(0, Ordering::Relaxed);
            written.store(number, Ordering::Relaxed);
            let last = self.stat(Stat::CallRecords).load(Ordering::Relaxed);
            if number + self.records.keep <= last {
                self.forget_record(number);
            }
            number += 1;
        }
        self.records.told_at.store(0, Ordering::Relaxed);
    }

    fn stored_record(&self, number: u64) -> Option<PastCall> {
        match self.arena.lock(&key(number)) {
            Ok(Some(guard)) => postcard::from_bytes(guard.record()).ok(),
            _ => None,
        }
    }

    /// Has the table refused this record for long enough, and takes the next one? Then it is the record's fault. Where it takes
    /// none, the table is to be put right, and all wait.
    fn is_refused_alone(&self, number: u64) -> bool {
        let now = Self::now();
        let since = self.records.refused_at.load(Ordering::Relaxed);
        if since == 0 {
            self.records.refused_at.store(now, Ordering::Relaxed);
            return false;
        }
        now.saturating_sub(since) >= REFUSED_FOR
            && self
                .stored_record(number + 1)
                .is_some_and(|next| self.host.record_write(&next) == Written::Yes)
    }

    /// Has a record that is not there been waited for long enough?
    fn has_waited(&self) -> bool {
        let now = Self::now();
        let since = self.records.missed_at.load(Ordering::Relaxed);
        if since == 0 {
            self.records.missed_at.store(now, Ordering::Relaxed);
            return false;
        }
        if now.saturating_sub(since) < MISSING_FOR {
            return false;
        }
        self.records.missed_at.store(0, Ordering::Relaxed);
        true
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
            let stored = self.stored_record(number);
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
        if !self.records.write {
            // whoever wants them in a table later wants those from then on
            self.stat(Stat::CallRecordsWritten)
                .store(last, Ordering::Relaxed);
        }
        let oldest = last
            .saturating_sub(self.records.keep)
            .min(self.written(last))
            + 1;
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

/// What a column of the table has room for.
const COLUMN: usize = 255;

/// A text of the far side as a table takes it: one that does not would hold up all that follow.
fn clean(text: &str) -> String {
    let plain = |c: &char| !c.is_control();
    text.chars().filter(plain).take(COLUMN).collect()
}

/// The record in the form in which it is kept, shown and written.
pub fn past_call(record: &CallRecord) -> PastCall {
    PastCall {
        call_id: record.id.clone(),
        sip_call_id: clean(&record.sip_call_id),
        dn: record.dn.clone(),
        inbound: record.direction == Direction::In,
        from: clean(&record.from),
        to: clean(&record.to),
        started: record.started,
        answered: record.answered,
        duration: record.duration,
        reason: record.reason.as_str().to_owned(),
        code: record.code,
        cause: record.cause,
        ring_after: record.ring_after,
        answer_after: record.answer_after,
        recorded: record.recorded,
        transfers: record
            .transfers
            .iter()
            .map(|t| PastTransfer {
                kind: t.kind.as_str().to_owned(),
                to: clean(&t.to),
                after: t.after,
                result: t.result.as_str().to_owned(),
                code: t.code,
                sip_call_id: clean(&t.sip_call_id),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn what_a_table_would_not_take_is_made_to_fit() {
        assert_eq!(clean("a\0b\r\nc"), "abc");
        assert_eq!(clean(&"ü".repeat(300)), "ü".repeat(255));
    }
}
