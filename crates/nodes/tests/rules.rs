//! Nodes that are cut off from each other and joined again agree; what they send is sealed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::rand_core::SeedableRng;
use rtc_json_nodes::{bucket_of, is_first, is_gone, BadSeal, Batch, Digest, Item, Key, Version};

const NODES: [&str; 3] = ["a:5060", "b:5060", "c:5060"];
const NODES4: [&str; 4] = ["a:5060", "b:5060", "c:5060", "d:5060"];

#[derive(Clone, Debug)]
enum Act {
    /// A browser comes to that node: the agent is taken over, unless it is owned there already.
    Take(usize, u8),
    /// The owner commits, if that node believes itself to be it.
    Commit(usize, u8),
    /// The agent is gone at its owner.
    Remove(usize, u8),
    /// One message from one node reaches another; others are lost.
    Deliver(usize, usize, u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3usize, 0..3u8).prop_map(|(n, d)| Act::Take(n, d)),
        (0..3usize, 0..3u8).prop_map(|(n, d)| Act::Commit(n, d)),
        (0..3usize, 0..3u8).prop_map(|(n, d)| Act::Remove(n, d)),
        (0..3usize, 0..3usize, 0..3u8).prop_map(|(n, m, d)| Act::Deliver(n, m, d)),
    ];
    prop::collection::vec(act, 0..60)
}

type Known = BTreeMap<u8, (Version, Option<u64>)>;

fn hear(known: &mut Known, dn: u8, told: &(Version, Option<u64>)) {
    let entry = known.entry(dn).or_default();
    if told.0 > entry.0 {
        *entry = told.clone();
    }
}

proptest! {
    /// Whatever was lost, doubled or late: when each has told the others what it knows, in any order, all know the same, and
    /// each agent has one owner.
    #[test]
    fn healed_nodes_agree(acts in acts(), order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut nodes = vec![Known::new(); 3];
        let mut content = 0;
        let mut seen = BTreeMap::new();
        for act in acts {
            match act {
                Act::Take(n, dn) => {
                    let now = nodes[n].entry(dn).or_default();
                    if now.0.owner != NODES[n] || now.1.is_none() {
                        content += 1;
                        *now = (now.0.taken_by(NODES[n]), Some(content));
                    }
                }
                Act::Commit(n, dn) | Act::Remove(n, dn) => {
                    let gone = matches!(act, Act::Remove(..));
                    let now = nodes[n].entry(dn).or_default();
                    if now.0.owner == NODES[n] && now.1.is_some() {
                        content += 1;
                        *now = (now.0.next(), Some(content).filter(|_| !gone));
                    }
                }
                Act::Deliver(from, to, dn) => {
                    if let Some(told) = nodes[from].get(&dn).cloned() {
                        hear(&mut nodes[to], dn, &told);
                    }
                }
            }
            for (dn, (version, record)) in nodes.iter().flatten().filter(|(_, (v, _))| !v.owner.is_empty()) {
                // no two records of an agent have the same version: else which one counts would depend on the order
                let first = seen.entry((*dn, version.clone())).or_insert(*record);
                prop_assert_eq!(*first, *record);
            }
        }
        for pair in order {
            let (from, to) = (pair / 3, pair % 3);
            for (dn, told) in nodes[from].clone() {
                hear(&mut nodes[to], dn, &told);
            }
        }
        // the ones that spoke early have not heard of the late ones yet
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                for (dn, told) in nodes[from].clone() {
                    hear(&mut nodes[to], dn, &told);
                }
            }
        }
        let real = |known: &Known| -> Known { known.clone().into_iter().filter(|(_, (v, _))| !v.owner.is_empty()).collect() };
        prop_assert_eq!(real(&nodes[0]), real(&nodes[1]));
        prop_assert_eq!(real(&nodes[1]), real(&nodes[2]));
    }

    /// A digest does not depend on the order, and a record that is missing, or of another version, shows in its own part.
    #[test]
    fn a_digest_finds_the_part_that_differs(count in 1usize..200, changed in 0usize..200) {
        let changed = changed % count;
        let version = |n: u64| Version { epoch: 1, owner: "a:5060".to_owned(), counter: n };
        let dns: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let mut here = Digest::default();
        let mut there = Digest::default();
        let mut other = Digest::default();
        dns.iter().for_each(|dn| here.add(dn, &version(1)));
        dns.iter().rev().for_each(|dn| there.add(dn, &version(1)));
        dns.iter().enumerate().for_each(|(n, dn)| other.add(dn, &version(if n == changed { 2 } else { 1 })));
        prop_assert_eq!(here.differs(&here, &there), Vec::<u8>::new());
        prop_assert_eq!(here.differs(&here, &other), vec![bucket_of(&dns[changed])]);
        // what has just changed is on its way anyway
        prop_assert_eq!(here.differs(&other, &there), Vec::<u8>::new());
        prop_assert_eq!(here.unlike(&there), Vec::<u8>::new());
        prop_assert_eq!(here.unlike(&other), vec![bucket_of(&dns[changed])]);
        here.hide(bucket_of(&dns[changed]));
        prop_assert_eq!(here.unlike(&other), Vec::<u8>::new());
    }
}

proptest! {
    /// However the browsers of a silent node are spread over two parts of a network: at most one part takes the node for gone.
    #[test]
    fn two_parts_never_both_find_a_node_gone(here in 0u64..1000, there in 0u64..1000, nowhere in 0u64..1000) {
        prop_assert!(!(is_gone(here, there + nowhere) && is_gone(there, here + nowhere)));
    }

    /// Whoever hears whom: of nodes that all act on what they see, at most one of those that hear each other ends anything.
    #[test]
    fn at_most_one_of_those_that_hear_each_other_is_first(hears in prop::collection::vec(prop::collection::vec(any::<bool>(), 4), 4)) {
        let name = |n: usize| NODES4[n].to_owned();
        let heard_by = |n: usize| (0..4).filter(|m| *m != n && hears[n][*m]).map(name).collect::<Vec<_>>();
        let first: Vec<usize> = (0..4).filter(|n| {
            let heard: Vec<_> = (0..4).filter(|m| *m != *n && hears[*n][*m]).map(|m| (name(m), heard_by(m))).collect();
            is_first(NODES4[*n], &heard)
        }).collect();
        for one in &first {
            for other in &first {
                prop_assert!(one == other || !hears[*one][*other] && !hears[*other][*one]);
            }
        }
    }
}

#[test]
fn a_node_is_gone_when_three_of_four_of_its_browsers_are_elsewhere() {
    assert!(is_gone(3, 1) && is_gone(1, 0) && is_gone(95, 5));
    assert!(!is_gone(2, 1) && !is_gone(0, 0) && !is_gone(0, 9));
}

fn batch() -> Batch {
    Batch {
        from: "a:5060".to_owned(),
        now: 17,
        items: vec![Item::Record {
            dn: "5001".to_owned(),
            version: Version::default().taken_by("a:5060"),
            record: Some(b"a token".to_vec()),
            brought: Vec::new(),
        }],
    }
}

#[test]
fn a_sealed_batch_is_opened_with_its_key_alone() {
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
    let key = Key::new(b"one secret of the nodes");
    let sealed = key.seal(&batch(), &mut rng).expect("it is small");
    assert_eq!(key.open(sealed.as_bytes()), Ok(batch()));
    assert_ne!(Ok(&sealed), key.seal(&batch(), &mut rng).as_ref());
    let other = Key::new(b"another secret of the nodes");
    assert_eq!(other.open(sealed.as_bytes()), Err(BadSeal));
    assert!(!format!("{key:?}").contains("secret"));
}

#[test]
fn a_changed_or_cut_message_is_not_opened() {
    let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(2);
    let key = Key::new(b"one secret of the nodes");
    let sealed = key.seal(&batch(), &mut rng).expect("it is small");
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert_ne!(key.open(&bytes), Ok(batch()), "byte {at}");
        assert_eq!(
            key.open(&sealed.as_bytes()[..at]),
            Err(BadSeal),
            "cut at {at}"
        );
    }
    assert_eq!(key.open(b"no base64 at all"), Err(BadSeal));
}
