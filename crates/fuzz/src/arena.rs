//! An arena's file that was damaged: it opens, keeps what is sound, and works.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rtc_json_engine::Agent;
use rtc_json_store::{Arena, Error, Options, MIN_SIZE, NEVER};
use tempfile::TempDir;

const OPTIONS: Options = Options {
    size: MIN_SIZE,
    boot_id: [7; 16],
};
/// Bytes and slots of the arena that is damaged in place: as few as the records below need.
const SIZE: u64 = 480 << 10;
const SLOTS: u32 = 32;
/// Records of the sample, and those that are written to it afterwards.
const RECORDS: usize = 16;
const WRITTEN: usize = 20;
/// Bytes of the records: of all kinds, up to some that need two pages.
const LENGTHS: [usize; RECORDS] = [
    10, 180, 900, 5000, 0, 190, 20_000, 20, 910, 40_000, 30, 170, 40, 4900, 50, 880,
];

struct Sample {
    /// By number: key and record.
    records: Vec<(Vec<u8>, Vec<u8>)>,
    scratch: Arena,
    image: Vec<u8>,
    /// Bytes of the image behind which there is nothing.
    used: usize,
    path: PathBuf,
    file: Vec<u8>,
    // goes with the thread
    _dir: TempDir,
}

thread_local! {
    static SAMPLE: RefCell<Option<Sample>> = const { RefCell::new(None) };
}

fn fill(arena: &Arena, records: &[(Vec<u8>, Vec<u8>)]) {
    for (key, record) in &records[..RECORDS] {
        let mut guard = arena.lock_or_create(key).expect("room");
        guard.commit(record, NEVER).expect("room");
    }
    for (key, _) in records[..RECORDS].iter().step_by(7) {
        arena.lock(key).expect("free").expect("there").remove();
    }
}

fn used(image: &[u8]) -> usize {
    image
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

impl Sample {
    fn new() -> Sample {
        let records: Vec<_> = (0..WRITTEN)
            .map(|n| {
                let len = LENGTHS[n % RECORDS] + n;
                let record = (0..len).map(|at| (at * 31 + n) as u8).collect();
                (format!("a/{n:04}").into_bytes(), record)
            })
            .collect();
        // files in memory where there is such a folder
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a folder");
        let path = dir.path().join("arena");
        let (arena, _) = Arena::open(&path, &OPTIONS).expect("a new arena");
        fill(&arena, &records);
        drop(arena);
        let file = std::fs::read(&path).expect("its file");
        let empty = tempfile::tempfile_in(&dir).expect("a file");
        let mut scratch = Arena::scratch(empty, SIZE, SLOTS).expect("an arena");
        fill(&scratch, &records);
        let image = scratch.bytes().to_vec();
        Sample {
            used: used(&image),
            records,
            scratch,
            image,
            path,
            file,
            _dir: dir,
        }
    }

    /// Damages the arena in place and recovers it.
    fn in_place(&mut self, edits: &[u8]) {
        let (now, was) = (self.scratch.bytes(), &self.image);
        now[..self.used].copy_from_slice(&was[..self.used]);
        now[self.used..].fill(0);
        damage(now, edits);
        let found = self.scratch.recover();
        sound(&self.scratch, &self.records, found.kept);
    }

    /// Damages a file and opens it.
    fn by_file(&self, len: usize, edits: &[u8]) {
        let mut bytes = self.file.clone();
        bytes.truncate(len);
        damage(&mut bytes, edits);
        write(&self.path, &bytes);
        let (arena, found) = match Arena::open(&self.path, &OPTIONS) {
            Ok(opened) => opened,
            // what does not say that it is ours is left alone
            Err(Error::Foreign(_)) => return,
            Err(other) => panic!("{other}"),
        };
        sound(&arena, &self.records, found.kept);
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .expect("the file can be opened");
    file.set_len(bytes.len() as u64).expect("its length");
    file.write_all_at(bytes, 0).expect("it can be written");
}

fn damage(bytes: &mut [u8], edits: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    for edit in edits.chunks_exact(6) {
        let at = u32::from_le_bytes([edit[0], edit[1], edit[2], edit[3]]) as usize % bytes.len();
        let end = (at + usize::from(edit[4]) + 1).min(bytes.len());
        bytes[at..end].fill(edit[5]);
    }
}

/// What was kept is as it was written, and there is room for all that there was room for before.
fn sound(arena: &Arena, records: &[(Vec<u8>, Vec<u8>)], kept: usize) {
    let mut seen = BTreeSet::new();
    arena
        .for_each(|key, record| {
            let (_, written) = records
                .iter()
                .find(|(name, _)| name == key)
                .expect("a key of ours");
            assert!(record == written, "{key:?} is not as it was written");
            assert!(seen.insert(key.to_vec()));
        })
        .expect("nobody holds a lock");
    assert_eq!(seen.len(), kept);
    for (key, record) in records {
        let mut guard = arena.lock_or_create(key).expect("a slot");
        guard.commit(record, NEVER).expect("room");
        assert!(guard.record() == record);
    }
    assert_eq!(arena.reclaim(), 0);
    for (key, _) in records {
        arena.lock(key).expect("free").expect("there").remove();
    }
    let left = arena.usage();
    assert_eq!(
        (left.records, left.used_bytes, left.free_bytes),
        (0, 0, left.capacity),
        "something is lost"
    );
}

/// Six bytes an edit: where (four, modulo the size), how many bytes (one more than the fifth says), what. They are made in an arena
/// that is open, of which all is read that an opening one reads behind its first 64 bytes. With a first byte of 0xff the
/// edits are in a file that is then opened, cut to the length that the next four bytes say.
pub fn arena(data: &[u8]) {
    // the record inside has a format of its own
    if let Ok(agent) = Agent::decode(data) {
        let _again = agent
            .encode(Vec::new())
            .expect("what was read can be written");
    }
    SAMPLE.with_borrow_mut(|sample| {
        let sample = sample.get_or_insert_with(Sample::new);
        if let [0xff, a, b, c, d, edits @ ..] = data {
            let len = u32::from_le_bytes([*a, *b, *c, *d]) as usize % (sample.file.len() + 1);
            sample.by_file(len, edits);
        } else {
            sample.in_place(data);
        }
    });
}
