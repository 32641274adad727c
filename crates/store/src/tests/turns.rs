use std::fs::OpenOptions;
use std::io::Write;

use super::*;
use crate::layout::RING;
use crate::{Turn, HOLD_LIMIT, NEVER};

/// Takes the key's next turn, as a step does.
fn turn<'a>(arena: &'a Arena, key: &[u8]) -> Turn<'a> {
    let mut guard = arena.lock_or_create(key).unwrap();
    guard.commit(b"x", NEVER).unwrap();
    guard.turn()
}

fn numbers_in_order(each: u32, skip: u32) {
    const PROCESSES: u32 = 8;
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(&0u32.to_le_bytes(), NEVER)
        .unwrap();
    let log = bench.path().with_extension("log");
    let work = || {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        for _ in 0..each {
            let mut guard = arena.lock(b"a").unwrap().unwrap();
            let n = u32::from_le_bytes(guard.record().try_into().unwrap());
            guard.commit(&(n + 1).to_le_bytes(), NEVER).unwrap();
            let mut turn = guard.turn();
            drop(guard);
            if skip == 0 || n % skip != 0 {
                assert!(turn.wait());
                log.write_all(&n.to_le_bytes()).unwrap();
            }
        }
    };
    together(&arena, PROCESSES.into(), |_| work());
    let written = std::fs::read(&log).unwrap();
    let written: Vec<_> = written
        .chunks(4)
        .map(|n| u32::from_le_bytes(n.try_into().unwrap()))
        .collect();
    let wanted: Vec<_> = (0..PROCESSES * each)
        .filter(|n| skip == 0 || n % skip != 0)
        .collect();
    assert!(written == wanted, "out of order");
}

#[test]
fn eight_write_in_the_order_of_their_steps() {
    numbers_in_order(500, 0);
}

#[test]
fn turns_that_are_not_waited_for_are_passed_over() {
    numbers_in_order(500, 3);
}

#[test]
fn holder_killed_in_its_turn_does_not_block_the_rest() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let ready = signal();
    let holder = fork(|| {
        let mut turn = turn(&arena, b"a");
        assert!(turn.wait());
        ready.give();
        sleep_for_good();
    });
    ready.await_one();
    // One more that dies while it waits
    let waiter = fork(|| {
        let mut turn = turn(&arena, b"a");
        ready.give();
        turn.wait();
    });
    ready.await_one();
    let mut third = turn(&arena, b"a");
    waiter.kill();
    waiter.until_zombie();
    holder.kill();
    holder.until_zombie();
    let start = Instant::now();
    assert!(!third.wait(), "says that the order was not kept");
    assert!(start.elapsed() < HOLD_LIMIT / 2);
    drop(third);
    assert!(turn(&arena, b"a").wait(), "and is in order again");
    assert!(arena.usage().turns_skipped >= 1);
}

#[test]
fn slow_holder_is_passed_over_after_the_limit() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let (ready, go_on) = (signal(), signal());
    let holder = fork(|| {
        let mut slow = turn(&arena, b"a");
        assert!(slow.wait());
        ready.give();
        go_on.await_one();
        // It was passed over; letting go must not move the order
        drop(slow);
        assert!(turn(&arena, b"a").wait());
    });
    ready.await_one();
    let mut second = turn(&arena, b"a");
    let start = Instant::now();
    assert!(!second.wait());
    assert!(start.elapsed() >= HOLD_LIMIT && start.elapsed() < HOLD_LIMIT * 2);
    go_on.give();
    std::thread::sleep(Duration::from_millis(20));
    drop(second);
    assert!(holder.join());
}

#[test]
fn turns_hold_when_the_key_goes_and_its_slot_is_used_again() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let ready = signal();
    let holder = fork(|| {
        let mut first = turn(&arena, b"a");
        assert!(first.wait());
        ready.give();
        std::thread::sleep(Duration::from_millis(150));
        drop(first);
    });
    ready.await_one();
    let start = Instant::now();
    let mut guard = arena.lock(b"a").unwrap().unwrap();
    let mut second = guard.turn();
    guard.remove();
    drop(guard);
    // The free slots are a stack, so this key gets the same one
    let third = turn(&arena, b"b");
    assert!(second.wait());
    assert!(
        start.elapsed() > Duration::from_millis(50),
        "did not wait for the turn of the removed key"
    );
    drop(second);
    drop(third);
    assert!(turn(&arena, b"b").wait());
    assert!(holder.join());
}

#[test]
fn nested_turn_of_one_process_does_not_wait_for_itself() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let mut outer = turn(&arena, b"a");
    assert!(outer.wait());
    let mut inner = turn(&arena, b"a");
    let start = Instant::now();
    assert!(!inner.wait());
    drop(inner);
    drop(outer);
    assert!(turn(&arena, b"a").wait());
    assert!(start.elapsed() < HOLD_LIMIT / 2);
}

#[test]
fn more_turns_than_the_ring_knows() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    // Given up in the reverse order, as far as the ring goes
    let turns: Vec<_> = (0..RING).map(|_| turn(&arena, b"a")).collect();
    turns.into_iter().rev().for_each(drop);
    assert!(turn(&arena, b"a").wait());
    // Beyond it: in processes, each of which has to wait for the one before
    let ready = signal();
    let children: Vec<_> = (0..RING + 5)
        .map(|n| {
            let child = fork(|| {
                let mut turn = turn(&arena, b"a");
                ready.give();
                // The later ones give up unwaited, which for those not listed is a wait all the same
                if n < RING {
                    assert!(turn.wait());
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
            ready.await_one();
            child
        })
        .collect();
    assert!(children.into_iter().all(Child::join));
    let start = Instant::now();
    assert!(turn(&arena, b"a").wait());
    assert!(start.elapsed() < HOLD_LIMIT / 2);
    assert_eq!(arena.usage().turns_skipped, 0);
}
