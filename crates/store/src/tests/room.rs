use super::*;
use crate::{Error, MAX_RECORD, NEVER};

/// Makes new keys with records of this length until there is no room. Gives their number.
fn fill(arena: &Arena, name: u8, len: usize) -> u32 {
    for n in 0u32.. {
        let mut key = vec![name];
        key.extend_from_slice(&n.to_be_bytes());
        let committed = match arena.lock_or_create(&key) {
            Ok(mut guard) => guard.commit(&sealed(&key, n, len), NEVER),
            Err(error) => Err(error),
        };
        match committed {
            Ok(()) => {}
            Err(Error::Full) => {
                assert!(!arena.contains(&key), "a key without a record stays");
                return n;
            }
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

#[test]
fn full_arena_refuses_new_keys_and_serves_old_ones() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let empty = footprint(&arena);
    for len in [100, 5000, 16_000, 32_000, 60_000] {
        let count = fill(&arena, b'a', len);
        // All room but the reserve and what a class wastes; or all slots
        let usage = arena.usage();
        assert!(
            count == arena.map().layout.slots
                || u64::from(count) * len as u64 > usage.capacity * 3 / 4,
            "{count} of {len}"
        );
        let full = footprint(&arena);
        // Running calls go on: records of the same size are committed again and again
        for n in (0..count).cycle().take(1000) {
            let key = [&b"a"[..], &n.to_be_bytes()].concat();
            let mut guard = arena.lock(&key).unwrap().unwrap();
            if len <= 30_000 {
                guard.commit(&sealed(&key, n, len), NEVER).unwrap();
            }
        }
        // (One page of the reserve may be in use now for a block of another)
        assert_eq!((footprint(&arena).0, footprint(&arena).2), (full.0, full.2));
        let full = footprint(&arena);
        // Growing ends at Full, and the old record stands
        let key = [&b"a"[..], &0u32.to_be_bytes()].concat();
        if usage.free_bytes < MAX_RECORD as u64 {
            let mut guard = arena.lock(&key).unwrap().unwrap();
            assert!(matches!(
                guard.commit(&vec![0; MAX_RECORD], NEVER),
                Err(Error::Full)
            ));
            assert_eq!(unseal(&key, guard.record()), 0);
        }
        assert_eq!(footprint(&arena), full);
        arena.for_each(check).unwrap();
        remove_all(&arena);
        assert_eq!(footprint(&arena), empty, "{len}");
    }
}

#[test]
fn room_of_small_records_serves_big_ones_and_back() {
    let bench = bench();
    let (arena, _) = bench.open(2 * MIB);
    let empty = footprint(&arena);
    let first = fill(&arena, b's', 5000);
    assert!(matches!(
        arena
            .lock_or_create(b"big")
            .unwrap()
            .commit(&vec![0; MAX_RECORD], NEVER),
        Err(Error::Full)
    ));
    // Half of them go, those of neighbouring pages: whole pages come free
    for n in first / 2..first {
        arena
            .lock(&[&b"s"[..], &n.to_be_bytes()].concat())
            .unwrap()
            .unwrap()
            .remove();
    }
    arena
        .lock_or_create(b"big")
        .unwrap()
        .commit(&vec![1; MAX_RECORD], NEVER)
        .unwrap();
    remove_all(&arena);
    assert_eq!(footprint(&arena), empty);
    let big = fill(&arena, b'b', MAX_RECORD);
    assert!(big >= 5, "{big}");
    remove_all(&arena);
    assert_eq!(fill(&arena, b's', 5000), first);
    remove_all(&arena);
    assert_eq!(footprint(&arena), empty);
}

#[test]
fn last_room_is_given_in_blocks_of_another_size() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    fill(&arena, b'a', 5000);
    let key = [&b"a"[..], &0u32.to_be_bytes()].concat();
    arena.lock(&key).unwrap().unwrap().remove();
    // No page is free beside the reserve, but a block of 5 kB is
    let mut guard = arena.lock_or_create(b"small").unwrap();
    guard.commit(&[1; 100], NEVER).unwrap();
    assert_eq!(guard.record(), [1; 100]);
}

#[test]
fn hundred_thousand_random_commits_leave_nothing() {
    let bench = bench();
    let (arena, _) = bench.open(8 * MIB);
    let empty = footprint(&arena);
    let mut rng = rng(7);
    let lens = [0, 50, 200, 700, 2000, 5000, 9000, 20_000, 70_000];
    let record = vec![3; 70_000];
    for n in 0..100_000 {
        let key = (below(&mut rng, 150) as u16).to_be_bytes();
        let len = lens[if n % 10 == 0 {
            below(&mut rng, lens.len())
        } else {
            below(&mut rng, 5)
        }];
        let mut guard = arena.lock_or_create(&key).unwrap();
        if below(&mut rng, 20) == 0 {
            guard.remove();
        } else {
            guard.commit(&record[..len], NEVER).unwrap();
        }
    }
    Heap::lock(arena.map()).check();
    assert_eq!(arena.usage().records, keys(&arena).len() as u64);
    remove_all(&arena);
    assert_eq!(footprint(&arena), empty);
}

/// An idle agent is a record of some 250 bytes and one of some 40 for its connection.
#[test]
fn default_size_holds_thirty_thousand_idle_agents_and_room_for_calls() {
    let bench = bench();
    let (arena, _) = bench.open(64 * MIB);
    for n in 0..30_000 {
        for (kind, len) in [("a/", 250), ("c/", 40)] {
            let key = format!("{kind}{n}");
            let mut guard = arena.lock_or_create(key.as_bytes()).unwrap();
            guard.commit(&[7; 250][..len], NEVER).unwrap();
        }
    }
    // a call is some 2.5 kB: a third of them can be in one
    assert!(arena.usage().free_bytes > 10_000 * 2_560);
}
