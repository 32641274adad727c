//! Several nodes: replicas of other nodes' agents beside our own, takeover, and what is told to whom.
//!
//! In the arena: `a/DN` is an agent that lives here; `n/DN` the last that another node told of one, or what is left of one
//! that is gone; `d/DN` says that the others are to be told of it; `m/NODE` is another node.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rtc_json_engine::{Agent, Input};
use rtc_json_nodes::{bucket_of, Batch, Digest, Item, Key, Version};
use rtc_json_protocol::Secret;
use rtc_json_store::NEVER;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::host::{Level, Sink};
use crate::runtime::{agent_key, gauges, Runtime, Stored};
use crate::stats::Stat;

/// How often a node says that it lives.
const HELLO_EVERY: u64 = 1_000;
/// A node that was silent for that long is taken for gone: calls to its agents are not sent there.
const SILENT_FOR: u64 = 5_000;
/// Not more often is a node asked to tell its records again.
const ASK_EVERY: u64 = 3_000;
/// What is left of an agent that is gone is kept for that long: nobody tells of it later.
const TOMBSTONE_FOR: u64 = 600_000;
/// Records told in one tick (of 100 ms), and bytes after which another message begins.
const RECORDS_A_TICK: usize = 200;
const BATCH_BYTES: usize = 12_000;
/// Milliseconds between two log lines about the same trouble.
const TELL_EVERY: u64 = 60_000;

/// What this node needs to be one of several.
#[derive(Debug)]
pub struct Nodes {
    key: Key,
    /// `host:port` of its SIP socket: the name by which the others know it.
    pub own: String,
    /// When it last said that it lives; of this process.
    hello_at: AtomicU64,
    /// When the operator was last told of a message that is not ours; of this process.
    told_at: AtomicU64,
}

impl Nodes {
    /// A node with the secret of all, and its own address.
    pub fn new(secret: &[u8], own: &str) -> Self {
        Nodes {
            key: Key::new(secret),
            own: own.to_owned(),
            hello_at: AtomicU64::new(0),
            told_at: AtomicU64::new(0),
        }
    }
}

/// What a step means for the other nodes.
#[derive(Debug)]
pub enum Changed {
    /// Nothing.
    No,
    /// The agent's record is another one.
    Record,
    /// The agent lives here from now on.
    Taken,
    /// The agent is gone.
    Gone(Version),
}

/// What another node has told of an agent.
#[derive(Serialize, Deserialize)]
struct Replica {
    version: Version,
    /// What to add to its times.
    behind: i64,
    /// None for an agent that is gone.
    agent: Option<Agent>,
}

/// Another node.
#[derive(Default, Serialize, Deserialize)]
struct Member {
    heard_at: u64,
    asked_at: u64,
    agents: u64,
    calls: u64,
    draining: bool,
    digest: Digest,
}

thread_local! {
    /// The last answer of `node_of`; it is read before the next question.
    static ANSWER: RefCell<String> = const { RefCell::new(String::new()) };
}

const DIRTY: &[u8] = b"t/";

fn replica_key(dn: &str) -> Vec<u8> {
    [b"n/", dn.as_bytes()].concat()
}

/// (no prefix of another kind of record: `d/` is the directory's)
fn dirty_key(dn: &str) -> Vec<u8> {
    [DIRTY, dn.as_bytes()].concat()
}

fn member_key(node: &str) -> Vec<u8> {
    [b"m/", node.as_bytes()].concat()
}

/// The DN of a key under which another node's agent is kept; none for other keys.
pub fn replica_dn(key: &[u8]) -> Option<&str> {
    dn_in(key, b"n/")
}

fn dn_in<'k>(key: &'k [u8], prefix: &[u8]) -> Option<&'k str> {
    std::str::from_utf8(key.strip_prefix(prefix)?).ok()
}

impl Runtime {
    // ---- our own agents

    /// The version of a record after a step, and what that means for the others.
    pub fn next_version(
        &self,
        version: Version,
        agent: &Agent,
        yielded: bool,
    ) -> (Version, Changed) {
        let Some(nodes) = &self.nodes else {
            return (version, Changed::No);
        };
        if yielded {
            return (version, Changed::No);
        }
        match (version.owner == nodes.own, agent.is_empty()) {
            (true, true) => {
                let last = version.next();
                (last.clone(), Changed::Gone(last))
            }
            (true, false) => (version.next(), Changed::Record),
            // who only tries to register takes nothing from another node
            (false, _) if agent.is_unknown() => (version, Changed::No),
            (false, _) => (version.taken_by(&nodes.own), Changed::Taken),
        }
    }

    /// A step is committed: notes what the others have to be told.
    pub fn changed(&self, dn: &str, changed: Changed) {
        match changed {
            Changed::No => return,
            Changed::Record => {}
            Changed::Taken => self.forget_replica(dn),
            Changed::Gone(version) => {
                let grave = Replica {
                    version,
                    behind: 0,
                    agent: None,
                };
                let _newer = self.keep_replica(dn, &grave);
            }
        }
        self.mark(dn);
    }

    /// The others are to be told of that agent.
    fn mark(&self, dn: &str) {
        let key = dirty_key(dn);
        // one that is marked already will be read after this
        if !self.arena.contains(&key) {
            let marked = self
                .arena
                .lock_or_create(&key)
                .and_then(|mut guard| guard.commit(&[1], Self::now()));
            self.listed(marked);
        }
    }

    /// The version in which an agent that is not here was last seen.
    pub fn known_version(&self, dn: &str) -> Version {
        match self.nodes {
            Some(_) => self.replica(dn).map(|replica| replica.version),
            None => None,
        }
        .unwrap_or_default()
    }

    /// The record of an agent that lives here.
    fn own(&self, dn: &str) -> Option<Stored> {
        let nodes = self.nodes.as_ref()?;
        let guard = self.arena.lock(&agent_key(dn)).ok()??;
        let stored = postcard::from_bytes::<Stored>(guard.record()).ok()?;
        (stored.version.owner == nodes.own).then_some(stored)
    }

    // ---- replicas

    fn replica(&self, dn: &str) -> Option<Replica> {
        let guard = self.arena.lock(&replica_key(dn)).ok()??;
        postcard::from_bytes(guard.record()).ok()
    }

    /// Keeps it if it is newer than what is there. Gives what is there, if that is newer.
    fn keep_replica(&self, dn: &str, replica: &Replica) -> Option<Replica> {
        let due = match replica.agent {
            Some(_) => NEVER,
            None => Self::now() + TOMBSTONE_FOR,
        };
        let Ok(record) = postcard::to_stdvec(replica) else {
            return None;
        };
        let mut newer = None;
        let kept = self
            .arena
            .lock_or_create(&replica_key(dn))
            .and_then(|mut guard| {
                let known = postcard::from_bytes::<Replica>(guard.record()).ok();
                match known {
                    Some(known) if known.version >= replica.version => {
                        newer = (known.version > replica.version).then_some(known);
                        Ok(())
                    }
                    _ => guard.commit(&record, due),
                }
            });
        self.listed(kept);
        newer
    }

    fn forget_replica(&self, dn: &str) {
        if let Ok(Some(mut guard)) = self.arena.lock(&replica_key(dn)) {
            guard.remove();
        }
    }

    fn each_replica(&self, mut show: impl FnMut(&str, Replica)) {
        self.each_record(|key, record| {
            if let Some(dn) = dn_in(key, b"n/") {
                if let Ok(replica) = postcard::from_bytes::<Replica>(record) {
                    show(dn, replica);
                }
            }
        });
    }

    /// An agent that lives on another node which was heard of lately.
    pub fn elsewhere(&self, dn: &str) -> Option<Agent> {
        self.nodes.as_ref()?;
        let replica = self.replica(dn)?;
        self.is_heard(&replica.version.owner)
            .then_some(replica.agent)
            .flatten()
    }

    /// An agent as another node told of it, whether that node lives or not.
    pub fn told(&self, dn: &str) -> Option<Agent> {
        self.nodes.as_ref()?;
        self.replica(dn)?.agent
    }

    /// A browser with that token resumes: if another node had its agent, it is ours from now on.
    pub fn take_over(&self, dn: &str, token: &Secret) {
        let Some(nodes) = &self.nodes else { return };
        let Some(replica) = self.replica(dn) else {
            return;
        };
        let Some(mut agent) = replica.agent else {
            return;
        };
        let given = token.expose().as_bytes();
        let known = |s: &rtc_json_engine::Session| bool::from(s.token.as_bytes().ct_eq(given));
        if !agent.sessions.iter().any(known) {
            return;
        }
        agent.shift(replica.behind);
        let former = replica.version.owner.clone();
        let stored = Stored {
            start: self.start,
            version: replica.version.taken_by(&nodes.own),
            agent,
        };
        let taken = (|| {
            let mut guard = self.arena.lock_or_create(&agent_key(dn)).ok()?;
            let here = postcard::from_bytes::<Stored>(guard.record()).ok();
            // one that somebody is just registering for counts for nothing
            if here.is_some_and(|here| !here.agent.is_unknown()) {
                return None;
            }
            let record = postcard::to_stdvec(&stored).ok()?;
            guard.commit(&record, Self::now()).ok()
        })();
        if taken.is_none() {
            return;
        }
        let (agents, sessions, calls) = gauges(&stored.agent);
        for (stat, more) in [
            (Stat::Agents, agents),
            (Stat::Sessions, sessions),
            (Stat::Calls, calls),
        ] {
            self.stat(stat).fetch_add(more, Ordering::Relaxed);
        }
        self.count(Stat::TakenOver);
        self.forget_replica(dn);
        self.host
            .log(Level::Notice, &format!("{dn}: taken over from {former}"));
        // it was written a moment ago
        let _there = self.drive(dn, Input::TakenOver { former }, false);
    }

    // ---- other nodes

    fn member(&self, node: &str) -> Option<Member> {
        let guard = self.arena.lock(&member_key(node)).ok()??;
        postcard::from_bytes(guard.record()).ok()
    }

    /// The other nodes that were ever heard of, by name.
    fn members(&self) -> Vec<(String, Member)> {
        let mut members = Vec::new();
        self.each_record(|key, record| {
            if let Some(node) = dn_in(key, b"m/") {
                if let Ok(member) = postcard::from_bytes::<Member>(record) {
                    members.push((node.to_owned(), member));
                }
            }
        });
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members
    }

    /// Agents with a session at other nodes that were heard of lately.
    pub fn agents_elsewhere(&self) -> u64 {
        if self.nodes.is_none() {
            return 0;
        }
        let heard = |m: &Member| Self::now().saturating_sub(m.heard_at) < SILENT_FOR;
        let members = self.members();
        members
            .iter()
            .filter(|(_, m)| heard(m))
            .map(|(_, m)| m.agents)
            .sum()
    }

    fn is_heard(&self, node: &str) -> bool {
        self.member(node)
            .is_some_and(|m| Self::now().saturating_sub(m.heard_at) < SILENT_FOR)
    }

    /// A message of another node; false if it was not sealed with our secret.
    pub fn node_message(&self, body: &[u8]) -> bool {
        let Some(nodes) = &self.nodes else {
            return false;
        };
        let batch = match nodes.key.open(body) {
            Ok(batch) => batch,
            Err(problem) => {
                let (now, told) = (Self::now(), nodes.told_at.load(Ordering::Relaxed));
                if told == 0 || now.saturating_sub(told) >= TELL_EVERY {
                    nodes.told_at.store(now, Ordering::Relaxed);
                    self.host.log(
                        Level::Error,
                        &format!("a message of a node is refused: {problem}: is node_secret the same everywhere?"),
                    );
                }
                return false;
            }
        };
        if batch.from == nodes.own {
            return true;
        }
        let behind = i64::try_from(Self::now()).unwrap_or_default()
            - i64::try_from(batch.now).unwrap_or_default();
        for item in batch.items {
            match item {
                Item::Record {
                    dn,
                    version,
                    record,
                } => self.told_record(&dn, version, behind, record.as_deref()),
                Item::Hello {
                    agents,
                    calls,
                    draining,
                    digest,
                } => {
                    let told = Member {
                        heard_at: Self::now(),
                        asked_at: 0,
                        agents,
                        calls,
                        draining,
                        digest,
                    };
                    self.told_hello(&batch.from, told);
                }
                Item::Ask { to, buckets } if to == nodes.own => self.told_ask(&buckets),
                Item::Ask { .. } => {}
                Item::Known { to, dn, version } if to == nodes.own => {
                    self.told_known(&dn, &version);
                }
                Item::Known { .. } => {}
                Item::Listing { bucket, dns } => self.told_listing(&batch.from, bucket, dns),
            }
        }
        true
    }

    fn told_record(&self, dn: &str, version: Version, behind: i64, record: Option<&[u8]>) {
        let agent = match record.map(Agent::decode) {
            None => None,
            Some(Ok(agent)) => Some(agent),
            // of another release: it is told again when both have the same
            Some(Err(_)) => return,
        };
        if let Some(mine) = self.own(dn) {
            if version < mine.version {
                // the other does not know yet
                return self.mark(dn);
            }
            if version.owner == mine.version.owner {
                return;
            }
            let theirs = agent
                .iter()
                .flat_map(|a| &a.calls)
                .map(|c| c.leg.dialog.call_id.clone())
                .collect();
            self.count(Stat::Yielded);
            self.host.log(
                Level::Notice,
                &format!("{dn}: has been taken over by {}", version.owner),
            );
            let _gone = self.drive(dn, Input::Yielded { theirs }, false);
        }
        let told = Replica {
            version,
            behind,
            agent,
        };
        let Some(newer) = self.keep_replica(dn, &told) else {
            return;
        };
        let to = told.version.owner;
        // the owner of an agent that lives elsewhere says so itself
        if told.agent.is_some() && (newer.agent.is_none() || newer.version.owner == to) {
            let (dn, version) = (dn.to_owned(), newer.version);
            self.tell(vec![Item::Known { to, dn, version }]);
        }
    }

    /// What we told of an agent is older than what others know: he was gone while we did not hear it, or it is from an earlier
    /// life of this node. He lives here, so ours is from now on the latest.
    fn told_known(&self, dn: &str, known: &Version) {
        let Some(nodes) = &self.nodes else { return };
        let Ok(Some(mut guard)) = self.arena.lock(&agent_key(dn)) else {
            return;
        };
        let Ok(mut stored) = postcard::from_bytes::<Stored>(guard.record()) else {
            return;
        };
        if stored.version.owner != nodes.own || stored.version >= *known {
            return;
        }
        stored.version = known.taken_by(&nodes.own);
        let due = stored.agent.due(self.config.resume_grace);
        let raised = postcard::to_stdvec(&stored).map(|record| guard.commit(&record, due));
        drop(guard);
        if let Ok(raised) = raised {
            self.listed(raised);
            self.mark(dn);
        }
    }

    fn told_hello(&self, from: &str, mut told: Member) {
        let before = self.member(from).unwrap_or_default();
        let mut known = Digest::default();
        self.each_replica(|dn, replica| {
            if replica.version.owner == from && replica.agent.is_some() {
                known.add(dn, &replica.version);
            }
        });
        let buckets = told.digest.differs(&before.digest, &known);
        told.asked_at = before.asked_at;
        let ask = !buckets.is_empty() && told.heard_at.saturating_sub(before.asked_at) >= ASK_EVERY;
        if ask {
            told.asked_at = told.heard_at;
        }
        let kept = self
            .arena
            .lock_or_create(&member_key(from))
            .and_then(|mut guard| match postcard::to_stdvec(&told) {
                Ok(record) => guard.commit(&record, NEVER),
                Err(_) => Ok(()),
            });
        self.listed(kept);
        if ask {
            let to = from.to_owned();
            self.tell(vec![Item::Ask { to, buckets }]);
        }
    }

    fn told_ask(&self, buckets: &[u8]) {
        let mut listed: Vec<(u8, Vec<String>)> = buckets.iter().map(|b| (*b, Vec::new())).collect();
        self.each_own(|dn, _| {
            let bucket = bucket_of(dn);
            if let Some((_, dns)) = listed.iter_mut().find(|(b, _)| *b == bucket) {
                dns.push(dn.to_owned());
            }
        });
        for (bucket, dns) in listed {
            for dn in &dns {
                self.mark(dn);
            }
            self.tell(vec![Item::Listing { bucket, dns }]);
        }
    }

    fn told_listing(&self, from: &str, bucket: u8, dns: Vec<String>) {
        let dns: HashSet<String> = dns.into_iter().collect();
        let mut over = Vec::new();
        self.each_replica(|dn, replica| {
            let theirs = replica.version.owner == from && replica.agent.is_some();
            if theirs && bucket_of(dn) == bucket && !dns.contains(dn) {
                over.push(dn.to_owned());
            }
        });
        for dn in over {
            self.forget_replica(&dn);
        }
    }

    /// Shows the agents that live here, with their versions.
    fn each_own(&self, mut show: impl FnMut(&str, &Stored)) {
        let Some(nodes) = &self.nodes else { return };
        self.each_record(|key, record| {
            if let Some(dn) = dn_in(key, b"a/") {
                if let Ok(stored) = postcard::from_bytes::<Stored>(record) {
                    if stored.version.owner == nodes.own {
                        show(dn, &stored);
                    }
                }
            }
        });
    }

    // ---- what is told

    fn tell(&self, items: Vec<Item>) {
        let Some(nodes) = &self.nodes else { return };
        let batch = Batch {
            from: nodes.own.clone(),
            now: Self::now(),
            items,
        };
        if let Ok(body) = nodes.key.seal(&batch, &mut crate::entropy::Generator) {
            // what is lost on its way shows in the digests
            self.host.node_broadcast(&body);
        }
    }

    /// Tells the others what is due, and that this node lives; in one process.
    pub fn nodes_tick(&self, due: &[Vec<u8>]) {
        let Some(nodes) = &self.nodes else { return };
        let mut items = Vec::new();
        let mut bytes = 0;
        let marked = due.iter().filter_map(|key| dn_in(key, DIRTY));
        for dn in marked.take(RECORDS_A_TICK) {
            // first: what changes from here on is marked anew
            if let Ok(Some(mut guard)) = self.arena.lock(&dirty_key(dn)) {
                guard.remove();
            }
            let Some(item) = self.record_item(dn) else {
                continue;
            };
            if let Item::Record { record, .. } = &item {
                bytes += record.as_ref().map_or(0, Vec::len) + 100;
            }
            items.push(item);
            if bytes >= BATCH_BYTES {
                self.tell(std::mem::take(&mut items));
                bytes = 0;
            }
        }
        if !items.is_empty() {
            self.tell(items);
        }
        for dn in due.iter().filter_map(|key| dn_in(key, b"n/")) {
            self.forget_replica(dn);
        }
        let now = Self::now();
        if now.saturating_sub(nodes.hello_at.load(Ordering::Relaxed)) >= HELLO_EVERY {
            nodes.hello_at.store(now, Ordering::Relaxed);
            let mut digest = Digest::default();
            self.each_own(|dn, stored| digest.add(dn, &stored.version));
            self.tell(vec![Item::Hello {
                agents: self.value(Stat::Agents),
                calls: self.value(Stat::Calls),
                draining: self.draining(),
                digest,
            }]);
        }
    }

    fn record_item(&self, dn: &str) -> Option<Item> {
        if let Some(mut stored) = self.own(dn) {
            // who has not been let in yet is nobody's business, and a password in clear least of all
            stored.agent.pending.clear();
            return Some(Item::Record {
                dn: dn.to_owned(),
                version: stored.version,
                record: stored.agent.encode(Vec::new()).ok(),
            });
        }
        let replica = self.replica(dn)?;
        let ours = self.nodes.as_ref()?.own == replica.version.owner;
        (ours && replica.agent.is_none()).then(|| Item::Record {
            dn: dn.to_owned(),
            version: replica.version,
            record: None,
        })
    }
}

/// Where a SIP request for that agent has to go, as a SIP URI; it stays until the next call.
pub fn node_of(runtime: &Runtime, dn: &str) -> Option<(*const u8, usize)> {
    let nodes = runtime.nodes.as_ref()?;
    let replica = runtime.replica(dn)?;
    let owner = &replica.version.owner;
    if replica.agent.is_none() || *owner == nodes.own || !runtime.is_heard(owner) {
        return None;
    }
    ANSWER.with(|slot| {
        let mut slot = slot.borrow_mut();
        *slot = format!("sip:{owner}");
        Some((slot.as_ptr(), slot.len()))
    })
}

/// One row a node, this one first.
pub fn list(runtime: &Runtime, sink: &Sink<'_>) -> i32 {
    let Some(nodes) = &runtime.nodes else {
        return -1;
    };
    let mut own = 0u64;
    runtime.each_own(|_, _| own += 1);
    let mut replicas: std::collections::BTreeMap<String, (u64, u64)> = Default::default();
    runtime.each_replica(|_, replica| {
        if let Some(agent) = replica.agent {
            let known = replicas.entry(replica.version.owner).or_default();
            known.0 += 1;
            known.1 += agent.live_calls() as u64;
        }
    });
    let members = runtime.members();
    sink.row(|row| {
        row.text(c"node", &nodes.own);
        row.text(c"state", "self");
        row.number(c"agents", runtime.value(Stat::Agents));
        row.number(c"calls", runtime.value(Stat::Calls));
        row.number(c"draining", runtime.draining().into());
        row.number(c"records", own);
    });
    let now = Runtime::now();
    for (node, member) in members {
        let silent = now.saturating_sub(member.heard_at);
        sink.row(|row| {
            row.text(c"node", &node);
            row.text(c"state", if silent < SILENT_FOR { "up" } else { "silent" });
            row.number(c"agents", member.agents);
            row.number(c"calls", member.calls);
            row.number(c"draining", member.draining.into());
            let (records, calls) = replicas.get(&node).copied().unwrap_or_default();
            row.number(c"records", records);
            row.number(c"knownCalls", calls);
            row.number(c"silentFor", silent / 1000);
        });
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    // they are records of one arena
    #[test]
    fn what_is_to_be_told_is_no_entry_of_the_directory() {
        let keys = [dirty_key("5001"), replica_key("5001"), member_key("5001")];
        for key in &keys {
            assert_eq!(crate::directory::entry_dn(key), None);
            assert_ne!(*key, crate::runtime::agent_key("5001"));
        }
    }
}
