//! Several nodes: replicas of other nodes' agents beside our own, takeover, and what is told to whom.
//!
//! In the arena: `a/DN` is an agent that lives here; `n/DN` the last that another node told of one, or what is left of one
//! that is gone; `t/DN` says that the others are to be told of it, `q/N` that they want to hear of a part; `m` holds the other nodes.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use rtc_json_engine::{Agent, Call, Input, State};
use rtc_json_nodes::{bucket_of, is_first, is_gone, Batch, Digest, Item, Key, Version, BUCKETS};
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
/// What would not be missed is told after so many milliseconds, with what has come to it meanwhile.
const LITTLE_WAITS: u64 = 1_000;
/// Every so many of them it tells a sum of its records.
const DIGEST_EVERY: u64 = 5;
/// Every so many of them it tells one part of its records again, changed or not: a part in which something changes all the time
/// has no sum that could be compared.
const PART_EVERY: u64 = 10;
/// Agents of a node that is gone which are ended in a second.
const ORPHANS_A_SECOND: usize = 100;
/// Not more often is a node asked to tell its records again.
const ASK_EVERY: u64 = 3_000;
/// What is left of an agent that is gone is kept for that long: nobody tells of it later.
const TOMBSTONE_FOR: u64 = 600_000;
/// Records told in one tick (of 100 ms), and bytes after which another message begins.
const RECORDS_A_TICK: usize = 200;
const BATCH_BYTES: usize = 12_000;
/// Bytes at the beginning of a record in which its version is.
const HEAD: usize = 320;
/// Milliseconds between two log lines about the same trouble.
const TELL_EVERY: u64 = 60_000;

/// What this node needs to be one of several.
#[derive(Debug)]
pub struct Nodes {
    key: Key,
    /// `host:port` of its SIP socket: the name by which the others know it.
    pub own: String,
    /// When it last said that it lives, and how often it has; of this process.
    hello_at: AtomicU64,
    hellos: AtomicU64,
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
            hellos: AtomicU64::new(0),
            told_at: AtomicU64::new(0),
        }
    }
}

/// What a step means for the other nodes.
#[derive(Debug)]
pub enum Changed {
    /// Nothing.
    No,
    /// The agent's record is another one, in nothing that would be missed.
    Little,
    /// It is another one.
    Record,
    /// The agent lives here from now on.
    Taken,
    /// The agent is gone; with the SIP Call-IDs that came from former owners.
    Gone(Version, Vec<String>),
}

/// What another node has told of an agent.
#[derive(Serialize, Deserialize)]
struct Replica {
    version: Version,
    /// What to add to its times.
    behind: i64,
    /// None for an agent that is gone.
    agent: Option<Agent>,
    /// Of an agent that is gone: SIP Call-IDs that came from former owners.
    brought: Vec<String>,
}

/// The beginning of a [`Replica`], which is all that most want to know.
#[derive(Deserialize)]
struct Head {
    version: Version,
    _behind: i64,
    /// The variant of an `Option`.
    agent: u8,
}

/// The beginning of a [`Stored`].
#[derive(Deserialize)]
struct OwnHead {
    _start: u64,
    version: Version,
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
    /// The sum that it told last, which is yet to be looked at.
    told: Option<Digest>,
    /// Parts of what it owns that were known here otherwise, the last time that it told a digest.
    unlike: Vec<u8>,
    /// Whom it hears.
    hears: Vec<String>,
    /// Agents that have gone from it to others since it was last heard.
    left: u64,
    /// When the last of them went.
    left_at: u64,
}

impl Member {
    fn silent_for(&self) -> u64 {
        Runtime::now().saturating_sub(self.heard_at)
    }

    fn is_heard(&self) -> bool {
        self.silent_for() < SILENT_FOR
    }
}

/// Key of the record with all other nodes.
const MEMBERS: &[u8] = b"m";

thread_local! {
    /// The last answer of `node_of`; it is read before the next question.
    static ANSWER: RefCell<String> = const { RefCell::new(String::new()) };
}

const DIRTY: &[u8] = b"t/";
/// Before the number of a part that somebody has asked for.
const ASKED: &[u8] = b"q/";

fn replica_key(dn: &str) -> Vec<u8> {
    [b"n/", dn.as_bytes()].concat()
}

fn dirty_key(dn: &str) -> Vec<u8> {
    [DIRTY, dn.as_bytes()].concat()
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
        quiet: bool,
        little: bool,
    ) -> (Version, Changed) {
        let Some(nodes) = &self.nodes else {
            return (version, Changed::No);
        };
        if quiet {
            return (version, Changed::No);
        }
        match (version.owner == nodes.own, agent.is_empty()) {
            (true, true) => {
                let last = version.next();
                (last.clone(), Changed::Gone(last, agent.brought.clone()))
            }
            (true, false) if little => (version.next(), Changed::Little),
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
            Changed::Little => return self.mark_until(dn, Self::now() + LITTLE_WAITS),
            Changed::Record => {}
            Changed::Taken => self.forget_replica(dn),
            Changed::Gone(version, brought) => {
                let grave = Replica {
                    version,
                    behind: 0,
                    agent: None,
                    brought,
                };
                let _newer = self.keep_replica(dn, &grave);
            }
        }
        self.mark(dn);
    }

    /// The others are to be told of that agent at once.
    fn mark(&self, dn: &str) {
        self.mark_until(dn, Self::now());
    }

    /// The others are to be told of that agent by then.
    fn mark_until(&self, dn: &str, due: u64) {
        let key = dirty_key(dn);
        let marked = self.arena.lock_or_create(&key).and_then(|mut guard| {
            let before = guard.record().try_into().map(u64::from_le_bytes);
            // one that is marked already will be read after this
            match before {
                Ok(before) if before <= due => Ok(()),
                _ => guard.commit(&due.to_le_bytes(), due),
            }
        });
        self.listed(marked);
    }

    /// The version in which an agent that is not here was last seen.
    pub fn known_version(&self, dn: &str) -> Version {
        match self.nodes {
            Some(_) => self.replica_head(dn).map(|known| known.version),
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

    fn replica_head(&self, dn: &str) -> Option<Head> {
        let guard = self.arena.lock(&replica_key(dn)).ok()??;
        let (head, _) = postcard::take_from_bytes(guard.record()).ok()?;
        Some(head)
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
                // (most are newer, and then the rest of what is known is of no interest)
                match postcard::take_from_bytes::<Head>(guard.record()) {
                    Ok((known, _)) if known.version >= replica.version => {
                        if known.version > replica.version {
                            newer = postcard::from_bytes(guard.record()).ok();
                        }
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
        self.each_n(
            usize::MAX,
            |_| true,
            |dn, record| {
                if let Ok(replica) = postcard::from_bytes::<Replica>(record) {
                    show(dn, replica);
                }
            },
        );
    }

    /// Shows whose each replica is, of those agents that are `wanted`.
    fn each_head(&self, wanted: impl Fn(&str) -> bool, mut show: impl FnMut(&str, Head)) {
        self.each_n(HEAD, wanted, |dn, record| {
            if let Ok((head, _)) = postcard::take_from_bytes::<Head>(record) {
                show(dn, head);
            }
        });
    }

    /// Shows the first bytes of each replica of the agents that are `wanted`.
    fn each_n(
        &self,
        first: usize,
        wanted: impl Fn(&str) -> bool,
        mut show: impl FnMut(&str, &[u8]),
    ) {
        let is_one = |key: &[u8]| dn_in(key, b"n/").is_some_and(&wanted);
        let listed = self.arena.for_each_of(is_one, first, |key, record| {
            if let Some(dn) = dn_in(key, b"n/") {
                show(dn, record);
            }
        });
        self.listed(listed);
    }

    /// Shows the agents that live on other nodes which were heard of lately.
    pub fn each_elsewhere(&self, mut show: impl FnMut(&Agent)) {
        if self.nodes.is_none() {
            return;
        }
        let mut found = Vec::new();
        self.each_replica(|_, replica| {
            if let Some(mut agent) = replica.agent {
                agent.shift(replica.behind);
                found.push((replica.version.owner, agent));
            }
        });
        let mut alive = HashSet::new();
        let mut silent = HashSet::new();
        for (owner, agent) in found {
            if silent.contains(&owner) {
                continue;
            }
            if !alive.contains(&owner) && !self.is_heard(&owner) {
                silent.insert(owner);
                continue;
            }
            alive.insert(owner);
            show(&agent);
        }
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
    /// False if not.
    pub fn take_over(&self, dn: &str, token: &Secret) -> bool {
        if self.nodes.is_none() {
            return false;
        }
        let Some(replica) = self.replica(dn) else {
            return false;
        };
        let given = token.expose().as_bytes();
        let known = |s: &rtc_json_engine::Session| bool::from(s.token.as_bytes().ct_eq(given));
        let sessions = replica.agent.iter().flat_map(|agent| &agent.sessions);
        if !sessions.map(known).fold(false, |any, one| any | one) {
            return false;
        }
        let idle = replica.agent.as_ref().is_some_and(|a| a.live_calls() == 0);
        if idle && self.draining() {
            // he is sent elsewhere at once
            return false;
        }
        let Some(former) = self.adopt(dn, replica) else {
            return false;
        };
        self.count(Stat::TakenOver);
        self.host
            .log(Level::Notice, &format!("{dn}: taken over from {former}"));
        self.has_left(&former);
        // it was written a moment ago
        let _there = self.drive(dn, Input::TakenOver { former }, false);
        true
    }

    /// The browser of an agent who was taken over is there. The others hear of it at once: an INVITE that reaches the last owner before it
    /// knows would ring there, and end with 480.
    pub fn tell_taken_over(&self, dn: &str) {
        self.tell(self.record_item(dn).into_iter().collect());
    }

    /// A browser is at this node as before. If a node is silent, the agent may have been taken over there, which we cannot know: the far
    /// sides are told that it is we.
    pub fn claim_calls(&self, dn: &str) {
        let Some(nodes) = &self.nodes else { return };
        let in_calls = |stored: Stored| stored.agent.live_calls() > 0;
        if self.own(dn).is_none_or(|stored| !in_calls(stored)) {
            return;
        }
        let members = self.members();
        if members
            .iter()
            .any(|(node, m)| *node != nodes.own && !m.is_heard())
        {
            // one that has gone meanwhile has no calls
            let _gone = self.drive(dn, Input::Claimed, false);
        }
    }

    /// What a node that is gone has left is ended, by one of the others, once no browser can come back to it any more.
    fn end_orphans(&self, nodes: &Nodes) {
        let members = self.members();
        let patience = SILENT_FOR + self.config.resume_grace;
        if members.iter().all(|(_, m)| m.silent_for() < patience) {
            return;
        }
        let heard: Vec<(String, Vec<String>)> = members
            .iter()
            .filter(|(_, m)| m.is_heard())
            .map(|(node, m)| (node.clone(), m.hears.clone()))
            .collect();
        if !is_first(&nodes.own, &heard) {
            return;
        }
        for (node, member) in members {
            // of very many browsers the last ones come late
            let calm = Self::now().saturating_sub(member.left_at) >= SILENT_FOR;
            if member.silent_for() < patience || member.left == 0 || !calm {
                continue;
            }
            let mut orphans = Vec::new();
            let mut staying = 0;
            self.each_n(
                usize::MAX,
                |_| true,
                |dn, record| {
                    let head = postcard::take_from_bytes::<Head>(record);
                    if !head.is_ok_and(|(head, _)| head.version.owner == node && head.agent != 0) {
                        return;
                    }
                    let replica = postcard::from_bytes::<Replica>(record).ok();
                    let Some(agent) = replica.and_then(|replica| replica.agent) else {
                        return;
                    };
                    let attached = |agent: Agent| agent.sessions.iter().any(|s| s.attached());
                    staying += u64::from(attached(agent));
                    orphans.push(dn.to_owned());
                },
            );
            if !is_gone(member.left, staying) {
                continue;
            }
            orphans.truncate(ORPHANS_A_SECOND);
            for dn in orphans {
                let Some(former) = self.replica(&dn).and_then(|r| self.adopt(&dn, r)) else {
                    continue;
                };
                self.count(Stat::Orphaned);
                self.host.log(
                    Level::Notice,
                    &format!("{dn}: {former} is gone and no browser has come: ended here"),
                );
                // it was written a moment ago
                let _there = self.drive(&dn, Input::Orphaned { former }, false);
            }
        }
    }

    /// The agent of another node is ours from now on. Gives its former owner; none if it was not to be had.
    fn adopt(&self, dn: &str, replica: Replica) -> Option<String> {
        let nodes = self.nodes.as_ref()?;
        let mut agent = replica.agent?;
        agent.shift(replica.behind);
        let former = replica.version.owner.clone();
        let stored = Stored {
            start: self.start,
            version: replica.version.taken_by(&nodes.own),
            agent,
        };
        let mut guard = self.arena.lock_or_create(&agent_key(dn)).ok()?;
        let here = postcard::from_bytes::<Stored>(guard.record()).ok();
        // one that somebody is just registering for counts for nothing
        if here.is_some_and(|here| !here.agent.is_unknown()) {
            return None;
        }
        let record = postcard::to_stdvec(&stored).ok()?;
        guard.commit(&record, Self::now()).ok()?;
        drop(guard);
        let (agents, sessions, calls) = gauges(&stored.agent);
        for (stat, more) in [
            (Stat::Agents, agents),
            (Stat::Sessions, sessions),
            (Stat::Calls, calls),
        ] {
            self.stat(stat).fetch_add(more, Ordering::Relaxed);
        }
        self.forget_replica(dn);
        Some(former)
    }

    /// A call of an agent who lives on another node is to be ended there. False if there is no such node.
    pub fn hang_up_elsewhere(&self, dn: &str, call: &str) -> bool {
        let live = |agent: &Agent| agent.calls.iter().any(|c| c.id == call && c.live());
        if self.elsewhere(dn).is_none_or(|agent| !live(&agent)) {
            return false;
        }
        let (dn, call) = (dn.to_owned(), call.to_owned());
        self.tell(vec![Item::HangUp { dn, call }]);
        true
    }

    // ---- other nodes

    /// The other nodes that were ever heard of, in the order of their names.
    fn members(&self) -> Vec<(String, Member)> {
        let Ok(Some(guard)) = self.arena.lock(MEMBERS) else {
            return Vec::new();
        };
        postcard::from_bytes(guard.record()).unwrap_or_default()
    }

    fn member(&self, node: &str) -> Option<Member> {
        let members = self.members();
        let found = members.into_iter().find(|(name, _)| name == node);
        found.map(|(_, member)| member)
    }

    fn with_member(&self, node: &str, change: impl FnOnce(&mut Member)) {
        let kept = self.arena.lock_or_create(MEMBERS).and_then(|mut guard| {
            let mut members: Vec<(String, Member)> =
                postcard::from_bytes(guard.record()).unwrap_or_default();
            let place = match members.binary_search_by(|(name, _)| name.as_str().cmp(node)) {
                Ok(place) => place,
                Err(place) => {
                    members.insert(place, (node.to_owned(), Member::default()));
                    place
                }
            };
            change(&mut members[place].1);
            match postcard::to_stdvec(&members) {
                Ok(record) => guard.commit(&record, NEVER),
                Err(_) => Ok(()),
            }
        });
        self.listed(kept);
    }

    /// An agent has gone from that node to another.
    fn has_left(&self, node: &str) {
        self.with_member(node, |member| {
            member.left += 1;
            member.left_at = Self::now();
        });
    }

    /// Agents with a session at other nodes that were heard of lately.
    pub fn agents_elsewhere(&self) -> u64 {
        if self.nodes.is_none() {
            return 0;
        }
        let members = self.members();
        let heard = members.iter().filter(|(_, m)| m.is_heard());
        heard.map(|(_, m)| m.agents).sum()
    }

    /// Is there another node to which the browsers of this one can go? Then their calls go with them, also those that begin
    /// while they are still here.
    pub fn hands_over(&self) -> bool {
        let ready = |(_, m): &(String, Member)| m.is_heard() && !m.draining;
        self.nodes.is_some() && self.members().iter().any(ready)
    }

    fn is_heard(&self, node: &str) -> bool {
        self.member(node).is_some_and(|m| m.is_heard())
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
                    brought,
                } => self.told_record(&dn, version, behind, record.as_deref(), brought),
                Item::Hello {
                    agents,
                    calls,
                    draining,
                    hears,
                    digest,
                } => {
                    self.with_member(&batch.from, |member| {
                        member.heard_at = Self::now();
                        (member.agents, member.calls) = (agents, calls);
                        (member.draining, member.hears) = (draining, hears);
                        member.left = 0;
                        if digest.is_some() {
                            member.told = digest;
                        }
                    });
                }
                Item::Ask { to, buckets } if to == nodes.own => self.told_ask(&buckets),
                Item::Ask { .. } => {}
                Item::Known {
                    to,
                    dn,
                    version,
                    brought,
                } if to == nodes.own => self.told_known(&dn, &version, brought),
                Item::Known { .. } => {}
                Item::HangUp { dn, call } => {
                    if self.own(&dn).is_some() {
                        // one that has ended meanwhile is what was wanted
                        let _gone = self.drive(&dn, Input::HangUp { call }, false);
                    }
                }
                Item::Ended { dn, call } => {
                    if self.own(&dn).is_some() {
                        // one that has ended meanwhile is what was wanted
                        let _gone = self.drive(&dn, Input::Ended { call }, false);
                    }
                }
                Item::Listing { bucket, dns } => self.told_listing(&batch.from, bucket, dns),
            }
        }
        true
    }

    fn told_record(
        &self,
        dn: &str,
        version: Version,
        behind: i64,
        record: Option<&[u8]>,
        brought: Vec<String>,
    ) {
        let agent = match record.map(Agent::decode) {
            None => None,
            Some(Ok(agent)) => Some(agent),
            // of another release: it is told again when both have the same
            Some(Err(_)) => return,
        };
        let mine = self.own(dn);
        if let Some(mine) = &mine {
            if version < mine.version {
                // the other does not know yet
                return self.mark(dn);
            }
            if version.owner == mine.version.owner {
                return;
            }
            let is_there = |agent: &Agent| agent.sessions.iter().any(|s| s.attached());
            if is_there(&mine.agent) && !agent.as_ref().is_some_and(is_there) {
                // whoever took it over, the browser is here
                return self.outbid(dn, &version);
            }
        } else if let Some(known) = self.replica_head(dn) {
            if known.version < version && known.version.owner != version.owner {
                self.has_left(&known.version.owner);
            }
        }
        let told = Replica {
            version,
            behind,
            agent,
            brought,
        };
        // before the record goes: an INVITE that comes now finds him here or there
        let newer = self.keep_replica(dn, &told);
        if let Some(mine) = &mine {
            let agent = told.agent.as_ref();
            self.yield_to(dn, &told.version, agent, &told.brought);
            self.tell_ended(dn, mine, agent);
        }
        let Some(newer) = newer else {
            return;
        };
        let to = told.version.owner;
        // the owner of an agent that lives elsewhere says so itself
        if told.agent.is_some() && (newer.agent.is_none() || newer.version.owner == to) {
            self.tell(vec![Item::Known {
                to,
                dn: dn.to_owned(),
                version: newer.version,
                brought: newer.brought,
            }]);
        }
    }

    /// Another node has the agent, or had it last: what was here goes.
    fn yield_to(&self, dn: &str, version: &Version, agent: Option<&Agent>, brought: &[String]) {
        let calls = agent.iter().flat_map(|a| &a.calls);
        let theirs = calls
            .map(|c| &c.leg.dialog.call_id)
            .chain(agent.iter().flat_map(|a| &a.brought))
            .chain(brought)
            .cloned()
            .collect();
        let to = match agent {
            Some(_) => version.owner.clone(),
            None => String::new(),
        };
        self.count(Stat::Yielded);
        self.host.log(
            Level::Notice,
            &format!("{dn}: has been taken over by {}", version.owner),
        );
        let _gone = self.drive(dn, Input::Yielded { to, theirs }, false);
    }

    /// The new owner waits for the answer to BYEs that were sent from here: it may have come already.
    fn tell_ended(&self, dn: &str, mine: &Stored, theirs: Option<&Agent>) {
        let known = |key: &str| mine.agent.calls.iter().any(|c| c.leg.key == key);
        let ended = theirs
            .iter()
            .flat_map(|agent| &agent.calls)
            .filter(|c| c.state == State::Terminating && !known(&c.leg.key))
            .map(|c| Item::Ended {
                dn: dn.to_owned(),
                call: c.leg.key.clone(),
            });
        let ended: Vec<Item> = ended.collect();
        if !ended.is_empty() {
            self.tell(ended);
        }
    }

    /// The far side has answered a BYE of an agent who is not here any more: his new owner need not send one.
    pub fn bye_answered(&self, dn: &str, call: &str) {
        if self.nodes.is_some() {
            let (dn, call) = (dn.to_owned(), call.to_owned());
            self.tell(vec![Item::Ended { dn, call }]);
        }
    }

    /// What we told of an agent is older than what others know: he was gone while we did not hear it, or it is from an earlier
    /// life of this node. If he lives here, ours is from now on the latest; if nobody is there for him, and another node had him
    /// last, that node's word counts.
    fn told_known(&self, dn: &str, known: &Version, brought: Vec<String>) {
        let Some(mine) = self.own(dn).filter(|mine| mine.version < *known) else {
            return;
        };
        let there = mine.agent.sessions.iter().any(|s| s.attached());
        if there || known.owner == mine.version.owner {
            return self.outbid(dn, known);
        }
        self.yield_to(dn, known, None, &brought);
        let grave = Replica {
            version: known.clone(),
            behind: 0,
            agent: None,
            brought,
        };
        let _newer = self.keep_replica(dn, &grave);
    }

    /// The agent lives here, whatever others know: ours is from now on the latest.
    fn outbid(&self, dn: &str, known: &Version) {
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

    fn told_digest(&self, from: &str, digest: Digest) {
        let mut known = Digest::default();
        self.each_head(
            |_| true,
            |dn, head| {
                if head.version.owner == from && head.agent != 0 {
                    known.add(dn, &head.version);
                }
            },
        );
        let mut asked = None;
        self.with_member(from, |member| {
            // what was told a moment ago may be on its way still; where nothing changes, or for the second time, something was lost
            let mut buckets = digest.differs(&member.digest, &known);
            let unlike = digest.unlike(&known);
            buckets.extend(unlike.iter().filter(|b| member.unlike.contains(b)));
            buckets.sort_unstable();
            buckets.dedup();
            member.unlike = unlike;
            let now = Self::now();
            if !buckets.is_empty() && now.saturating_sub(member.asked_at) >= ASK_EVERY {
                member.asked_at = now;
                asked = Some(buckets);
            }
            member.digest = digest;
            member.told = None;
        });
        if let Some(buckets) = asked {
            let to = from.to_owned();
            self.tell(vec![Item::Ask { to, buckets }]);
        }
    }

    /// These parts are told again, one after the other, as [`nodes_tick`](Self::nodes_tick) has room for them: of many agents it is the work of
    /// seconds, which no process that takes SIP is to be kept from its own for.
    fn told_ask(&self, buckets: &[u8]) {
        for bucket in buckets {
            let due = Self::now();
            let key = [ASKED, &[b'0' + bucket / 10, b'0' + bucket % 10]].concat();
            let noted = self.arena.lock_or_create(&key);
            self.listed(noted.and_then(|mut guard| guard.commit(&due.to_le_bytes(), due)));
        }
    }

    /// All of that part which is ours is to be told again. Gives how many agents these are.
    fn tell_part(&self, bucket: u8) -> usize {
        let mut dns = Vec::new();
        self.each_own(
            |dn| bucket_of(dn) == bucket,
            |dn, _| dns.push(dn.to_owned()),
        );
        for dn in &dns {
            self.mark(dn);
        }
        let count = dns.len();
        self.tell(vec![Item::Listing { bucket, dns }]);
        count
    }

    fn told_listing(&self, from: &str, bucket: u8, dns: Vec<String>) {
        let dns: HashSet<String> = dns.into_iter().collect();
        let mut over = Vec::new();
        let wanted = |dn: &str| bucket_of(dn) == bucket && !dns.contains(dn);
        self.each_head(wanted, |dn, head| {
            if head.version.owner == from && head.agent != 0 {
                over.push(dn.to_owned());
            }
        });
        for dn in over {
            self.forget_replica(&dn);
        }
    }

    /// Shows the agents that live here, with their versions.
    fn each_own(&self, wanted: impl Fn(&str) -> bool, mut show: impl FnMut(&str, &Version)) {
        let Some(nodes) = &self.nodes else { return };
        let is_one = |key: &[u8]| dn_in(key, b"a/").is_some_and(&wanted);
        let listed = self.arena.for_each_of(is_one, HEAD, |key, record| {
            if let Some(dn) = dn_in(key, b"a/") {
                if let Ok((head, _)) = postcard::take_from_bytes::<OwnHead>(record) {
                    if head.version.owner == nodes.own {
                        show(dn, &head.version);
                    }
                }
            }
        });
        self.listed(listed);
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
        let waiting = marked.clone().count();
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
        if waiting < RECORDS_A_TICK {
            self.tell_asked(due);
        }
        self.compare();
        let now = Self::now();
        if now.saturating_sub(nodes.hello_at.load(Ordering::Relaxed)) >= HELLO_EVERY {
            nodes.hello_at.store(now, Ordering::Relaxed);
            let hellos = nodes.hellos.fetch_add(1, Ordering::Relaxed);
            let digest = (hellos % DIGEST_EVERY == 0).then(|| {
                let mut digest = Digest::default();
                self.each_own(|_| true, |dn, version| digest.add(dn, version));
                self.arena.keys(|key| {
                    if let Some(dn) = dn_in(key, DIRTY) {
                        digest.hide(bucket_of(dn));
                    }
                });
                digest
            });
            let members = self.members();
            let heard = members.into_iter().filter(|(_, m)| m.is_heard());
            self.tell(vec![Item::Hello {
                agents: self.value(Stat::Agents),
                calls: self.value(Stat::Calls),
                draining: self.draining(),
                hears: heard.map(|(node, _)| node).collect(),
                digest,
            }]);
            if hellos % PART_EVERY == PART_EVERY - 1 {
                self.told_ask(&[(hellos / PART_EVERY % BUCKETS as u64) as u8]);
            }
            self.end_orphans(nodes);
        }
    }

    /// The next parts that somebody has asked for, as many as one tick tells.
    fn tell_asked(&self, due: &[Vec<u8>]) {
        let mut told = 0;
        for (key, part) in due.iter().filter_map(|key| Some((key, dn_in(key, ASKED)?))) {
            if told >= RECORDS_A_TICK {
                break;
            }
            if let Ok(Some(mut guard)) = self.arena.lock(key) {
                guard.remove();
            }
            if let Ok(bucket) = part.parse() {
                told += self.tell_part(bucket);
            }
        }
    }

    /// Sums that other nodes have told since the last tick.
    fn compare(&self) {
        for (node, member) in self.members() {
            if let Some(digest) = member.told {
                self.told_digest(&node, digest);
            }
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
                brought: Vec::new(),
            });
        }
        let replica = self.replica(dn)?;
        let ours = self.nodes.as_ref()?.own == replica.version.owner;
        (ours && replica.agent.is_none()).then(|| Item::Record {
            dn: dn.to_owned(),
            version: replica.version,
            record: None,
            brought: replica.brought,
        })
    }
}

/// Where a SIP request for that agent has to go, as a SIP URI; it stays until the next call.
pub fn node_of(runtime: &Runtime, dn: &str) -> Option<(*const u8, usize)> {
    let owner = owner_of(runtime, dn)?;
    ANSWER.with(|slot| {
        let mut slot = slot.borrow_mut();
        *slot = format!("sip:{owner}");
        Some((slot.as_ptr(), slot.len()))
    })
}

/// Where an agent lives: 1 here, 2 on another node that was heard of lately, 0 nowhere. `$rtcj(node)` is that node's SIP URI then.
pub fn locate(runtime: &Runtime, dn: &str) -> i32 {
    let (found, uri) = if runtime.wanted(dn) {
        let own = runtime.nodes.as_ref().map(|nodes| nodes.own.as_str());
        let own = own.unwrap_or(&runtime.config.contact);
        (1, format!("sip:{own}"))
    } else {
        match owner_of(runtime, dn) {
            Some(owner) => (2, format!("sip:{owner}")),
            None => (0, String::new()),
        }
    };
    crate::current::set_node(Some(uri).filter(|uri| !uri.is_empty()));
    found
}

/// The node that has an agent who is not here, if it was heard of lately.
fn owner_of(runtime: &Runtime, dn: &str) -> Option<String> {
    let nodes = runtime.nodes.as_ref()?;
    let known = runtime.replica_head(dn)?;
    let owner = known.version.owner;
    let there = known.agent != 0 && owner != nodes.own && runtime.is_heard(&owner);
    there.then_some(owner)
}

/// A call that a takeover leaves alive.
fn goes_on(call: &Call) -> bool {
    matches!(call.state, State::Established | State::Answering)
}

/// What another node must know at once, should this one be gone in a moment: whose browser is there, and how the calls are that
/// would go on.
pub fn matters(agent: &Agent) -> u64 {
    let mut hasher = DefaultHasher::new();
    agent.upstream.bound.hash(&mut hasher);
    for session in &agent.sessions {
        (session.number, session.attached()).hash(&mut hasher);
    }
    for call in agent.calls.iter().filter(|c| goes_on(c)) {
        let leg = &call.leg;
        (&leg.key, &leg.local_sdp, &leg.remote_sdp).hash(&mut hasher);
        (call.hold, call.remote_hold, call.muted, leg.gone).hash(&mut hasher);
        leg.dialog.request_uri().hash(&mut hasher);
    }
    hasher.finish()
}

/// One row a node, this one first.
pub fn list(runtime: &Runtime, sink: &Sink<'_>) -> i32 {
    let Some(nodes) = &runtime.nodes else {
        return -1;
    };
    let mut own = 0u64;
    runtime.each_own(|_| true, |_, _| own += 1);
    let mut replicas: std::collections::BTreeMap<String, (u64, u64)> = Default::default();
    runtime.each_replica(|_, replica| {
        if let Some(agent) = replica.agent {
            let known = replicas.entry(replica.version.owner).or_default();
            known.0 += 1;
            known.1 += agent.calls.iter().filter(|c| goes_on(c)).count() as u64;
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
    for (node, member) in members {
        let silent = member.silent_for();
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
        let keys = [dirty_key("5001"), replica_key("5001"), MEMBERS.to_vec()];
        for key in &keys {
            assert_eq!(crate::directory::entry_dn(key), None);
            assert_ne!(*key, crate::runtime::agent_key("5001"));
        }
    }
}
