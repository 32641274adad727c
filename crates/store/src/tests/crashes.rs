use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::crash;
use crate::lock::CHECK;
use crate::map::Map;
use crate::{Error, NEVER};

#[test]
fn lock_of_a_killed_process_is_taken_over() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(b"old", 5)
        .unwrap();
    let before = footprint(&arena);
    for reap in [false, true] {
        let ready = signal();
        let child = fork(|| {
            let _guard = arena.lock(b"a").unwrap().unwrap();
            ready.give();
            sleep_for_good();
        });
        ready.await_one();
        child.kill();
        child.until_zombie();
        // A zombie has nobody to unlock either
        let zombie = (!reap).then_some(child);
        let start = Instant::now();
        assert_eq!(arena.lock(b"a").unwrap().unwrap().record(), b"old");
        assert!(start.elapsed() < CHECK * 50);
        drop(zombie);
    }
    assert_eq!(footprint(&arena), before);
    assert_eq!(arena.usage().locks_stolen, 2);
}

#[test]
fn waiters_go_on_when_the_holder_is_killed() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena.lock_or_create(b"a").unwrap().commit(&[0], 5).unwrap();
    let ready = signal();
    let holder = fork(|| {
        let _guard = arena.lock(b"a").unwrap().unwrap();
        ready.give();
        sleep_for_good();
    });
    ready.await_one();
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            fork(|| {
                let mut guard = arena.lock(b"a").unwrap().unwrap();
                let n = guard.record()[0];
                guard.commit(&[n + 1], 5).unwrap();
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(30));
    holder.kill();
    assert!(waiters.into_iter().all(Child::join));
    assert_eq!(arena.lock(b"a").unwrap().unwrap().record(), [4]);
}

#[test]
fn allocator_lock_of_a_killed_process_is_taken_over() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(&[1; 5000], 5)
        .unwrap();
    let before = footprint(&arena);
    let ready = signal();
    let child = fork(|| {
        let heap = Heap::lock(arena.map());
        // Half done: a slot and no more, and every list gone
        heap.take_slot().unwrap();
        heap.clear();
        ready.give();
        sleep_for_good();
    });
    ready.await_one();
    child.kill();
    child.until_zombie();
    arena
        .lock(b"a")
        .unwrap()
        .unwrap()
        .commit(&[2; 4990], 5)
        .unwrap();
    assert_eq!(arena.reclaim(), 1, "the slot");
    assert_eq!(footprint(&arena), before);
    assert_eq!(arena.lock(b"a").unwrap().unwrap().record(), [2; 4990]);
}

#[test]
fn live_holder_that_does_not_let_go_is_reported() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena.lock_or_create(b"a").unwrap().commit(b"x", 5).unwrap();
    arena.lock_or_create(b"b").unwrap().commit(b"x", 5).unwrap();
    let ready = signal();
    let child = fork(|| {
        let _guard = arena.lock(b"a").unwrap().unwrap();
        ready.give();
        sleep_for_good();
    });
    ready.await_one();
    assert_eq!(arena.lock(b"b").unwrap().unwrap().record(), b"x");
    assert_eq!(arena.reclaim(), 0, "nothing is taken from the living");
    assert!(matches!(arena.lock(b"a"), Err(Error::Busy(pid)) if pid == child.pid()));
    assert!(arena.contains(b"a"));
    assert_eq!(arena.lock(b"b").unwrap().unwrap().record(), b"x");
}

/// A bit of everything. The keys: `a` is there all the time, `b` and `c` come and go.
fn life(arena: &Arena) {
    let mut guard = arena.lock(b"a").unwrap().unwrap();
    guard.commit(&sealed(b"a", 1, 300), 900).unwrap();
    guard.commit(&sealed(b"a", 2, 40_000), 2000).unwrap();
    let mut turn = guard.turn();
    drop(guard);
    turn.wait();
    drop(turn);
    let mut guard = arena.lock_or_create(b"b").unwrap();
    guard.commit(&sealed(b"b", 3, 100), 3).unwrap();
    drop(guard.turn());
    drop(guard);
    drop(arena.lock_or_create(b"c").unwrap());
    let mut guard = arena.lock(b"b").unwrap().unwrap();
    guard.commit(&sealed(b"b", 4, 100), 4).unwrap();
    guard.remove();
    drop(guard);
    arena
        .lock(b"a")
        .unwrap()
        .unwrap()
        .commit(&sealed(b"a", 5, 5000), 5)
        .unwrap();
}

/// All is well after a death in [`life`], and is put back as it was before.
fn settle(arena: &Arena, before: (u64, u64, u64, u64)) {
    // Before anybody comes to repair: what is due may be seen too early, never too late
    let map = arena.map();
    for index in 0..map.layout.slots {
        // SAFETY: the only other process is dead.
        if let Some(contents) = unsafe { map.read_block(Map::load(&map.slot(index).record)) } {
            assert!(
                map.due(index).load(Relaxed) <= contents.head.due,
                "due too late"
            );
        }
    }
    for key in [b"a", b"b", b"c"] {
        let guard = arena.lock(key).unwrap();
        assert!(guard.is_some() || key != b"a");
        assert!(guard.is_none() || key != b"c");
        if let Some(guard) = guard {
            // By number of the record
            let due = [1000, 900, 2000, 3, 4, 5][unseal(key, guard.record()) as usize];
            assert!(is_due_at(arena, key, due));
        }
    }
    // What nobody came across; then nothing is left to find
    arena.reclaim();
    assert_eq!(arena.reclaim(), 0);
    if let Some(mut guard) = arena.lock(b"b").unwrap() {
        guard.remove();
    }
    let mut guard = arena.lock(b"a").unwrap().unwrap();
    guard.commit(&sealed(b"a", 0, 5000), 1000).unwrap();
    let mut turn = guard.turn();
    drop(guard);
    let start = Instant::now();
    turn.wait();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "a dead process's turn was waited for"
    );
    drop(turn);
    assert_eq!(footprint(arena), before);
}

/// The key is due at that time and not before.
fn is_due_at(arena: &Arena, key: &[u8], at: u64) -> bool {
    let is_due = |now| {
        let mut due = Vec::new();
        arena.due(now, &mut due);
        due.iter().any(|found| found == key)
    };
    is_due(at) && !is_due(at - 1)
}

fn with_a(bench: &Bench) -> (Arena, (u64, u64, u64, u64)) {
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(&sealed(b"a", 0, 5000), 1000)
        .unwrap();
    let before = footprint(&arena);
    (arena, before)
}

/// Forks a child that dies at the `n`th place of `work`. True if it came to the end.
fn die_at(n: u32, work: impl FnOnce()) -> bool {
    let child = fork(|| {
        crash::arm(n);
        work();
        crash::arm(0);
    });
    child.until_zombie();
    child.join()
}

#[test]
fn death_at_any_place_is_put_right_by_the_others() {
    let bench = bench();
    let (arena, before) = with_a(&bench);
    let mut places = 0;
    while !die_at(places + 1, || life(&arena)) {
        places += 1;
        settle(&arena, before);
    }
    settle(&arena, before);
    assert!(places > 80, "{places}");
}

#[test]
fn death_at_any_place_of_putting_it_right_too() {
    let bench = bench();
    let (arena, before) = with_a(&bench);
    let mut twice = 0;
    let mut first = 0;
    loop {
        first += 1;
        if die_at(first, || life(&arena)) {
            break;
        }
        // Each of these finds what the one before left, so the places of recovery are passed in many states
        let mut second = 1 + first % 3;
        while !die_at(second, || settle(&arena, before)) {
            twice += 1;
            second += 7;
        }
        settle(&arena, before);
    }
    assert!(twice > 200, "{twice}");
}

#[test]
fn death_at_any_place_is_put_right_by_the_next_start() {
    let bench = bench();
    let (mut arena, before) = with_a(&bench);
    let mut in_flight = 0;
    for n in 1.. {
        let ended = die_at(n, || life(&arena));
        drop(arena);
        let found;
        (arena, found) = bench.open(MIB);
        assert!(!found.fresh && found.damaged == 0);
        in_flight += found.in_flight_freed;
        Heap::lock(arena.map()).check();
        assert_eq!(arena.usage().records, found.kept as u64);
        settle(&arena, before);
        if ended {
            break;
        }
    }
    assert!(in_flight > 20, "{in_flight}");
}

#[test]
fn random_kills_under_load_lose_nothing() {
    let bench = bench();
    let (arena, _) = bench.open(2 * MIB);
    let before = footprint(&arena);
    let work = |seed| {
        let mut rng = rng(seed);
        loop {
            let key = [below(&mut rng, 6) as u8];
            let mut guard = arena.lock_or_create(&key).unwrap();
            let n = if guard.is_new() {
                0
            } else {
                unseal(&key, guard.record())
            };
            if below(&mut rng, 4) == 0 {
                guard.remove();
            } else {
                guard
                    .commit(&sealed(&key, n + 1, below(&mut rng, 600)), 7)
                    .unwrap();
            }
            let mut turn = guard.turn();
            drop(guard);
            if below(&mut rng, 2) == 0 {
                turn.wait();
            }
        }
    };
    let mut rng = rng(99);
    let mut seed = 0;
    let mut start = || {
        seed += 1;
        fork(|| work(seed))
    };
    let mut children: Vec<_> = (0..4).map(|_| start()).collect();
    for _ in 0..150 {
        std::thread::sleep(Duration::from_micros(500 + below(&mut rng, 6000) as u64));
        let victim = children.swap_remove(below(&mut rng, 4));
        victim.kill();
        assert!(!victim.join(), "ended by itself");
        children.push(start());
    }
    for child in children {
        child.kill();
        assert!(!child.join());
    }
    arena.for_each(check).unwrap();
    arena.reclaim();
    remove_all(&arena);
    assert_eq!(footprint(&arena), before);
    // What was left over is nobody's, so a new start finds nothing either
    drop(arena);
    let (arena, found) = bench.open(2 * MIB);
    assert_eq!(found, Recovery::default());
    assert_eq!(footprint(&arena), before);
}

#[test]
fn full_arena_finds_what_the_dead_hold() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    // Every slot is taken by a process that dies before it commits
    let child = fork(|| {
        let heap = Heap::lock(arena.map());
        while heap.take_slot().is_some() {}
    });
    assert!(child.join());
    assert_eq!(arena.usage().slots_free, 0);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(b"x", NEVER)
        .unwrap();
    assert_eq!(footprint(&arena).2, 1);
}

#[test]
fn slot_taken_by_the_living_is_left_to_them() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let map = arena.map();
    let index = Heap::lock(map).take_slot().unwrap();
    let free = arena.usage().slots_free;
    // Its last holder died after giving it back, before the unlock; we are about to lock it
    let last = fork(|| std::mem::forget(map.slot(index).lock.lock()));
    assert!(last.join());
    // A third one is faster than we are
    let third = fork(|| assert_eq!(arena.reclaim(), 1));
    assert!(third.join());
    assert_eq!(arena.usage().slots_free, free);
    assert_eq!(map.slot(index).state.load(Relaxed), crate::owner::me());
    Heap::lock(map).give_slot(index);
    assert_eq!(footprint(&arena).2, 0);
}
