//! Who the agents are: the copy of the directory's table in the arena, which every process reads.

use std::cell::RefCell;
use std::collections::HashSet;

use rtc_json_api::directory::Entry;
use rtc_json_store::{Error as StoreError, NEVER};

use crate::host::Level;
use crate::runtime::Runtime;

thread_local! {
    /// The DNs that the table had so far, while it is read.
    static SEEN: RefCell<HashSet<String>> = RefCell::new(HashSet::new());
}

const PREFIX: &[u8] = b"d/";

/// Key of an agent's entry.
pub fn entry_key(dn: &str) -> Vec<u8> {
    [PREFIX, dn.as_bytes()].concat()
}

/// The DN of an entry's key; none for other keys.
pub fn entry_dn(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()
}

impl Runtime {
    /// An agent's entry.
    pub fn entry(&self, dn: &str) -> Option<Entry> {
        let guard = self.arena.lock(&entry_key(dn)).ok()??;
        postcard::from_bytes(guard.record()).ok()
    }

    /// Changes an agent's entry, or makes it.
    ///
    /// # Errors
    /// Without room in the arena.
    pub fn change_entry(
        &self,
        dn: &str,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Entry, StoreError> {
        let mut guard = self.arena.lock_or_create(&entry_key(dn))?;
        let before = postcard::from_bytes::<Entry>(guard.record()).ok();
        let mut entry = before.clone().unwrap_or_default();
        change(&mut entry);
        if before.as_ref() != Some(&entry) {
            match postcard::to_stdvec(&entry) {
                Ok(bytes) => guard.commit(&bytes, NEVER)?,
                Err(_) => unreachable!("texts and a flag"),
            }
        }
        Ok(entry)
    }

    /// The table is read from its beginning.
    pub fn directory_begin(&self) {
        SEEN.with_borrow_mut(HashSet::clear);
    }

    /// A row of the table. One that is no agent is passed over; false if there is no room for it.
    pub fn directory_row(&self, dn: &str, name: &str, genesys_agent: &str, skills: &str) -> bool {
        if !self.limits.allows_number(dn) {
            self.host.log(
                Level::Warning,
                "directory: a dn that cannot be registered is passed over",
            );
            return true;
        }
        SEEN.with_borrow_mut(|seen| seen.insert(dn.to_owned()));
        let stored = self.change_entry(dn, |entry| {
            *entry = Entry::from_row(name, genesys_agent, skills, entry.away);
        });
        if let Err(error) = &stored {
            self.host
                .log(Level::Error, &format!("directory: {dn}: {error}"));
        }
        stored.is_ok()
    }

    /// The table is read: who is not in it any more is forgotten.
    pub fn directory_end(&self) {
        let seen = SEEN.take();
        let mut gone = Vec::new();
        self.each_record(|key, _| {
            if let Some(dn) = entry_dn(key).filter(|dn| !seen.contains(*dn)) {
                gone.push(dn.to_owned());
            }
        });
        for dn in &gone {
            self.forget_entry(dn);
        }
        self.host.log(
            Level::Info,
            &format!("directory: {} agents, {} no longer", seen.len(), gone.len()),
        );
    }

    /// An agent who is not in the table, or not any more. That he is away he has said himself.
    fn forget_entry(&self, dn: &str) {
        let Ok(Some(mut guard)) = self.arena.lock(&entry_key(dn)) else {
            return;
        };
        let entry = postcard::from_bytes::<Entry>(guard.record()).unwrap_or_default();
        if !entry.away {
            guard.remove();
            return;
        }
        let left = Entry {
            away: true,
            ..Entry::default()
        };
        if let Ok(bytes) = postcard::to_stdvec(&left) {
            // (what is shorter always fits; else the entry stays as it was)
            let _stays = guard.commit(&bytes, NEVER);
        }
    }
}
