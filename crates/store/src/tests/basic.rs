use std::os::unix::fs::{symlink, PermissionsExt};
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::{Error, Replaced, COUNTERS, MAX_KEY, MAX_RECORD, NEVER};

#[test]
fn record_is_kept_under_its_key() {
    let bench = bench();
    let (arena, found) = bench.open(MIB);
    assert_eq!(
        found,
        Recovery {
            fresh: true,
            ..Recovery::default()
        }
    );
    assert!(arena.lock(b"anna").unwrap().is_none());
    let mut guard = arena.lock_or_create(b"anna").unwrap();
    assert!(guard.is_new());
    assert_eq!(guard.record(), b"");
    guard.commit(b"one", 10).unwrap();
    assert!(!guard.is_new());
    assert_eq!(guard.record(), b"one");
    guard.commit(&[7; 5000], 20).unwrap();
    assert_eq!(guard.record(), [7; 5000]);
    drop(guard);
    assert!(arena.contains(b"anna") && !arena.contains(b"ann") && !arena.contains(b""));
    let mut guard = arena.lock(b"anna").unwrap().unwrap();
    guard.remove();
    assert!(guard.is_new() && guard.record().is_empty());
    guard.commit(b"again", NEVER).unwrap();
    drop(guard);
    assert_eq!(arena.lock_or_create(b"anna").unwrap().record(), b"again");
    arena.lock(b"anna").unwrap().unwrap().remove();
    assert!(!arena.contains(b"anna"));
    assert_eq!(arena.usage().records, 0);
}

#[test]
fn keys_and_records_of_all_lengths() {
    let bench = bench();
    let (arena, _) = bench.open(8 * MIB);
    for len in (1..=MAX_KEY).rev() {
        let key = vec![b'k'; len];
        arena
            .lock_or_create(&key)
            .unwrap()
            .commit(&sealed(&key, len as u32, 100), NEVER)
            .unwrap();
    }
    for len in 1..=MAX_KEY {
        let key = vec![b'k'; len];
        assert_eq!(
            unseal(&key, arena.lock(&key).unwrap().unwrap().record()),
            len as u32
        );
    }
    // A key of zero bytes differs from its padding
    assert!(!arena.contains(b"k\0"));
    assert!(matches!(arena.lock(b""), Err(Error::Key(0))));
    assert!(matches!(
        arena.lock_or_create(&[0; MAX_KEY + 1]),
        Err(Error::Key(73))
    ));
    let mut guard = arena.lock_or_create(b"big").unwrap();
    for len in [
        0,
        1,
        31,
        127,
        128,
        5000,
        32_000,
        32_700,
        33_000,
        100_000,
        MAX_RECORD - 1,
        MAX_RECORD,
    ] {
        let record = (0..len).map(|at| (at * 7) as u8).collect::<Vec<_>>();
        guard.commit(&record, NEVER).unwrap();
        assert!(guard.record() == record);
    }
    assert!(matches!(
        guard.commit(&vec![0; MAX_RECORD + 1], NEVER),
        Err(Error::TooBig(_))
    ));
    assert_eq!(guard.record().len(), MAX_RECORD);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let before = footprint(&arena);
    drop(arena.lock_or_create(b"new").unwrap());
    assert!(!arena.contains(b"new") && arena.lock(b"new").unwrap().is_none());
    assert_eq!(footprint(&arena), before);
    arena
        .lock_or_create(b"old")
        .unwrap()
        .commit(b"stands", 5)
        .unwrap();
    let before = footprint(&arena);
    for key in [&b"new"[..], b"old"] {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = arena.lock_or_create(key).unwrap();
            // Not `panic!`: its message would be printed for nothing
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
    }
    assert_eq!(footprint(&arena), before);
    assert_eq!(arena.lock(b"old").unwrap().unwrap().record(), b"stands");
    assert!(arena.lock(b"new").unwrap().is_none());
}

#[test]
fn second_guard_in_one_process_is_refused() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let mut guard = arena.lock_or_create(b"a").unwrap();
    guard.commit(b"x", NEVER).unwrap();
    assert!(matches!(arena.lock(b"a"), Err(Error::Nested)));
    assert!(matches!(arena.lock(b"b"), Err(Error::Nested)));
    assert!(matches!(arena.lock_or_create(b"b"), Err(Error::Nested)));
    assert!(matches!(arena.for_each(|_, _| ()), Err(Error::Nested)));
    assert!(arena.contains(b"a"));
    drop(guard);
    assert_eq!(footprint(&arena).2, 1);
    // A listing may lock what it is shown
    arena
        .for_each(|key, _| {
            arena
                .lock(key)
                .unwrap()
                .unwrap()
                .commit(b"y", NEVER)
                .unwrap()
        })
        .unwrap();
    assert_eq!(arena.lock(b"a").unwrap().unwrap().record(), b"y");
    // keys alone are shown to whoever holds a guard, too; one without a record is none
    let _guard = arena.lock_or_create(b"new").unwrap();
    let mut keys = Vec::new();
    arena.keys(|key| keys.push(key.to_vec()));
    assert_eq!(keys, [b"a"]);
}

#[test]
fn due_keys() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    for (key, due) in [(b"a", 10), (b"b", 20), (b"c", NEVER), (b"d", 0)] {
        arena
            .lock_or_create(key)
            .unwrap()
            .commit(b"x", due)
            .unwrap();
    }
    let due = |now| {
        let mut out = Vec::new();
        arena.due(now, &mut out);
        out.sort();
        out.concat()
    };
    assert_eq!(due(9), b"d");
    assert_eq!(due(10), b"ad");
    assert_eq!(due(u64::MAX), b"abd");
    arena.lock(b"a").unwrap().unwrap().remove();
    arena.lock(b"d").unwrap().unwrap().commit(b"x", 30).unwrap();
    assert_eq!(due(29), b"b");
}

#[test]
fn reopen_keeps_records_counters_and_due_times() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    for n in 0..100u32 {
        let key = n.to_be_bytes();
        arena
            .lock_or_create(&key)
            .unwrap()
            .commit(&sealed(&key, n, n as usize * 50), u64::from(n))
            .unwrap();
    }
    arena.counter(COUNTERS - 1).fetch_add(42, Relaxed);
    let before = footprint(&arena);
    drop(arena);
    let (arena, found) = bench.open(MIB);
    assert_eq!(
        found,
        Recovery {
            kept: 100,
            ..Recovery::default()
        }
    );
    assert_eq!(footprint(&arena), before);
    assert_eq!(arena.counter(COUNTERS - 1).load(Relaxed), 42);
    for n in 0..100u32 {
        let key = n.to_be_bytes();
        assert_eq!(unseal(&key, arena.lock(&key).unwrap().unwrap().record()), n);
    }
    let mut due = Vec::new();
    arena.due(9, &mut due);
    assert_eq!(due.len(), 10);
}

#[test]
fn other_size_format_or_boot_starts_afresh() {
    let bench = bench();
    let fill = |arena: &Arena| {
        arena
            .lock_or_create(b"a")
            .unwrap()
            .commit(b"x", NEVER)
            .unwrap()
    };
    let (arena, _) = bench.open(MIB);
    fill(&arena);
    drop(arena);
    let (arena, found) = bench.open(2 * MIB);
    assert_eq!(found.replaced, Some(Replaced::Size));
    assert!(found.fresh && !arena.contains(b"a") && arena.usage().size == 2 * MIB);
    fill(&arena);
    drop(arena);
    let (arena, found) = Arena::open(
        &bench.path(),
        &Options {
            size: 2 * MIB,
            boot_id: [2; 16],
        },
    )
    .unwrap();
    assert!(found.fresh && found.other_boot() && !arena.contains(b"a"));
    fill(&arena);
    drop(arena);
    let mut bytes = std::fs::read(bench.path()).unwrap();
    bytes[8] += 1;
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(bench.path(), &bytes).unwrap();
    let (arena, found) = Arena::open(
        &bench.path(),
        &Options {
            size: 2 * MIB,
            boot_id: [2; 16],
        },
    )
    .unwrap();
    assert!(found.fresh && found.replaced == Some(Replaced::Format) && !arena.contains(b"a"));
    drop(arena);
    // A start that was cut off while it made the file
    for len in [8, 4096] {
        bytes.truncate(len);
        std::fs::write(bench.path(), &bytes).unwrap();
        assert!(bench.open(MIB).1.fresh);
    }
}

#[test]
fn file_that_is_not_ours_is_refused_untouched() {
    let bench = bench();
    let options = Options {
        size: MIB,
        boot_id: BOOT,
    };
    let path = bench.path();
    std::fs::write(&path, "important").unwrap();
    assert!(matches!(
        Arena::open(&path, &options),
        Err(Error::Foreign(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"important");
    let link = path.with_extension("link");
    symlink(&path, &link).unwrap();
    assert!(matches!(
        Arena::open(&link, &options),
        Err(Error::NotRegular(_))
    ));
    assert!(matches!(
        Arena::open(path.parent().unwrap(), &options),
        Err(Error::NotRegular(_))
    ));
    let fifo = path.with_extension("fifo");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-ended path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(matches!(
        Arena::open(&fifo, &options),
        Err(Error::NotRegular(_))
    ));
    assert!(matches!(
        Arena::open(&path.join("x"), &options),
        Err(Error::Io { .. })
    ));
    assert!(matches!(
        Arena::open(
            &path,
            &Options {
                size: MIB - 1,
                boot_id: BOOT
            }
        ),
        Err(Error::Size(_))
    ));
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        let other = path.with_extension("other");
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::chown(&other, Some(65_534), None).unwrap();
        assert!(matches!(
            Arena::open(&other, &options),
            Err(Error::Owner { uid: 65_534, .. })
        ));
    }
}

#[test]
fn file_is_private_and_held_by_one_server() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let mode = || {
        std::fs::metadata(bench.path())
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(mode(), 0o600);
    let error = Arena::open(
        &bench.path(),
        &Options {
            size: MIB,
            boot_id: BOOT,
        },
    )
    .unwrap_err();
    assert!(
        matches!(&error, Error::InUse { pid, .. } if *pid == std::process::id()),
        "{error}"
    );
    // A worker that is left over still uses it
    let worker = fork(|| sleep_for_good());
    drop(arena);
    assert!(Arena::open(
        &bench.path(),
        &Options {
            size: MIB,
            boot_id: BOOT
        }
    )
    .is_err());
    drop(worker);
    std::fs::set_permissions(bench.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!bench.open(MIB).1.fresh);
    assert_eq!(mode(), 0o600);
}

#[test]
fn uncontended_path_makes_no_system_call() {
    // Counted by the kernel: a process under strict seccomp is killed by anything but read, write and exit
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    arena
        .lock_or_create(b"a")
        .unwrap()
        .commit(&[1; 5000], 5)
        .unwrap();
    let child = fork(|| {
        let record = [2; 5000];
        // The first use finds out who we are, and touches the pages
        arena
            .lock(b"a")
            .unwrap()
            .unwrap()
            .commit(&record, 5)
            .unwrap();
        // SAFETY: restricts this child only.
        let code = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
        assert_eq!(code, 0);
        for _ in 0..100 {
            let mut guard = arena.lock(b"a").unwrap().unwrap();
            let mut turn = guard.turn();
            guard.commit(&record, 5).unwrap();
            drop(guard);
            turn.wait();
            drop(turn);
            drop(arena.lock_or_create(b"b").unwrap());
        }
        // SAFETY: plain exit: exit_group, which _exit uses, is not allowed.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    assert!(child.join(), "killed: a system call was made");
}
