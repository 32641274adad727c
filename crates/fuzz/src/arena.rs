//! An arena's file that was damaged: it opens, keeps what is sound, and works.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use rtc_json_engine::Agent;
use rtc_json_store::{Arena, Error, Options, MIN_SIZE, NEVER};
use tempfile::TempDir;

const OPTIONS: Options = Options {
    size: MIN_SIZE,
    boot_id: [7; 16],
};

struct Sample {
    // goes with the thread
    _dir: TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

thread_local! {
    static SAMPLE: OnceCell<Sample> = const { OnceCell::new() };
}

fn record(n: usize) -> Vec<u8> {
    // sizes of all kinds: small, of several pages
    let len = [10, 180, 900, 5000, 20_000][n % 5] + n;
    (0..len).map(|at| (at * 31 + n) as u8).collect()
}

fn key(n: usize) -> Vec<u8> {
    format!("a/{n:04}").into_bytes()
}

fn sample() -> Sample {
    // a file in memory where there is one: each input writes it anew
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    let path = dir.path().join("arena");
    let (arena, _) = Arena::open(&path, &OPTIONS).expect("a new arena");
    for n in 0..40 {
        let mut guard = arena.lock_or_create(&key(n)).expect("room");
        guard.commit(&record(n), NEVER).expect("room");
    }
    for n in (0..40).step_by(7) {
        arena.lock(&key(n)).expect("free").expect("there").remove();
    }
    drop(arena);
    let bytes = std::fs::read(&path).expect("its file");
    Sample {
        _dir: dir,
        path,
        bytes,
    }
}

/// Six bytes an edit: where (four, modulo the size), how many bytes (a signed one: negative repeats over that many words), what.
/// With a first byte of 0xff the file is cut to the length that the next four say.
pub fn arena(data: &[u8]) {
    // the record inside has a format of its own
    if let Ok(agent) = Agent::decode(data) {
        let _again = agent
            .encode(Vec::new())
            .expect("what was read can be written");
    }
    SAMPLE.with(|sample| damaged(sample.get_or_init(self::sample), data));
}

fn damaged(sample: &Sample, data: &[u8]) {
    let mut bytes = sample.bytes.clone();
    let mut edits = data;
    if let [0xff, a, b, c, d, rest @ ..] = data {
        bytes.truncate(u32::from_le_bytes([*a, *b, *c, *d]) as usize % (sample.bytes.len() + 1));
        edits = rest;
    }
    for edit in edits.chunks_exact(6) {
        let Some(size) = std::num::NonZeroUsize::new(bytes.len()) else {
            break;
        };
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], edit[3]]) as usize % size;
        let count = usize::from(edit[4]) + 1;
        let end = (at + count).min(bytes.len());
        bytes[at..end].fill(edit[5]);
    }
    std::fs::write(&sample.path, &bytes).expect("the file can be written");
    let (arena, found) = match Arena::open(&sample.path, &OPTIONS) {
        Ok(opened) => opened,
        // what does not say that it is ours is left alone
        Err(Error::Foreign(_)) => {
            std::fs::remove_file(&sample.path).expect("the file is there");
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let mut seen = BTreeMap::new();
    arena
        .for_each(|key, record| {
            assert!(seen.insert(key.to_vec(), record.to_vec()).is_none());
        })
        .expect("nobody holds a lock");
    assert_eq!(seen.len(), found.kept);
    for (name, kept) in &seen {
        let n = (0..40).find(|n| key(*n) == *name).expect("a key of ours");
        assert!(*kept == record(n), "{name:?} is not as it was written");
    }
    for n in 0..50 {
        let mut guard = arena.lock_or_create(&key(n)).expect("room");
        if let Err(error) = guard.commit(&record(n), NEVER) {
            assert!(matches!(error, Error::Full), "{error}");
            continue;
        }
        assert!(guard.record() == record(n));
    }
    assert_eq!(arena.reclaim(), 0);
    drop(arena);
}
