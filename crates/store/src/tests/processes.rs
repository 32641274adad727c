use super::*;
use crate::NEVER;

const PROCESSES: u64 = 8;

#[test]
fn nothing_is_lost_when_eight_count_in_one_record() {
    const EACH: u32 = 5000;
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"n")
        .unwrap()
        .commit(&0u32.to_le_bytes(), NEVER)
        .unwrap();
    let before = footprint(&arena);
    let work = || {
        for _ in 0..EACH {
            let mut guard = arena.lock(b"n").unwrap().unwrap();
            let n = u32::from_le_bytes(guard.record().try_into().unwrap());
            guard.commit(&(n + 1).to_le_bytes(), NEVER).unwrap();
        }
    };
    together(&arena, PROCESSES, |_| work());
    let total = PROCESSES as u32 * EACH;
    assert_eq!(
        arena.lock(b"n").unwrap().unwrap().record(),
        total.to_le_bytes()
    );
    assert_eq!(footprint(&arena), before);
}

#[test]
fn eight_create_commit_and_remove_at_random() {
    let bench = bench();
    let (arena, _) = bench.open(4 * MIB);
    let before = footprint(&arena);
    let work = |seed| {
        let mut rng = rng(seed);
        for n in 0..3000 {
            let key = (below(&mut rng, 60) as u16).to_be_bytes();
            match below(&mut rng, 10) {
                0..6 => {
                    let mut guard = arena.lock_or_create(&key).unwrap();
                    if !guard.is_new() {
                        unseal(&key, guard.record());
                    }
                    let len = [10, 200, 1000, 5000, 40_000][below(&mut rng, 5)];
                    guard
                        .commit(&sealed(&key, n, len), below(&mut rng, 100) as u64)
                        .unwrap();
                }
                6..8 => {
                    if let Some(mut guard) = arena.lock(&key).unwrap() {
                        unseal(&key, guard.record());
                        guard.remove();
                    }
                }
                8 => drop(arena.lock_or_create(&key).unwrap()),
                _ => {
                    let mut due = Vec::new();
                    arena.due(50, &mut due);
                    assert!(due.iter().all(|key| key.len() == 2));
                    if n % 50 == 0 {
                        arena.for_each(check).unwrap();
                    }
                }
            }
        }
    };
    together(&arena, PROCESSES, work);
    arena.for_each(check).unwrap();
    let mut listed = keys(&arena);
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len() as u64, arena.usage().records, "a key twice");
    assert_eq!(arena.reclaim(), 0);
    remove_all(&arena);
    assert_eq!(footprint(&arena), before);
}

#[test]
fn one_of_eight_makes_the_key() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let work = || {
        for n in 0..200u32 {
            let mut guard = arena.lock_or_create(&n.to_be_bytes()[2..]).unwrap();
            let made = guard.record().first().copied().unwrap_or(0);
            guard.commit(&[made + 1], NEVER).unwrap();
            drop(guard);
            // Goes away with the eighth; another one may have seen to that already
            if let Some(mut guard) = arena.lock(&n.to_be_bytes()[2..]).unwrap() {
                if guard.record() == [PROCESSES as u8] {
                    guard.remove();
                }
            }
        }
    };
    together(&arena, PROCESSES, |_| work());
    assert_eq!(footprint(&arena).2, 0);
}
