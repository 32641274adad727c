use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::block::{Head, HEAD};
use crate::layout::{Identity, Layout, Slot, HEADER_LEN, MAGIC, MAGIC_END};
use crate::map::Map;
use crate::{Error, NEVER};

/// A file with records, and what each of them rests on.
struct Sample {
    bytes: Vec<u8>,
    layout: Layout,
    records: BTreeMap<Vec<u8>, Known>,
}

struct Known {
    record: Vec<u8>,
    word: Range<usize>,
    block: Range<usize>,
}

fn sample(bench: &Bench) -> Sample {
    let (arena, _) = bench.open(MIB);
    let mut rng = rng(1);
    // Twice, so that older and removed records lie about
    for round in 0..2 {
        for n in 0..120u32 {
            let key = format!("agent-{n}").into_bytes();
            let len =
                [60, 200, 900, 5000, 40_000][if n % 40 == 0 { 4 } else { below(&mut rng, 4) }];
            let mut guard = arena.lock_or_create(&key).unwrap();
            guard
                .commit(&sealed(&key, n + round, len), u64::from(n))
                .unwrap();
            if n % 7 == 0 && round == 1 {
                guard.remove();
            }
        }
    }
    let map = arena.map();
    let mut records = BTreeMap::new();
    for index in 0..map.layout.slots {
        let slot = map.slot(index);
        let block = Map::load(&slot.record);
        if !block.is_some() {
            continue;
        }
        // SAFETY: nobody else uses this arena.
        let contents = unsafe { map.read_checked(block) }.unwrap();
        let word = map.layout.at_slots as usize
            + index as usize * size_of::<Slot>()
            + std::mem::offset_of!(Slot, record);
        let at = block.offset() as usize;
        let known = Known {
            record: contents.record.to_vec(),
            word: word..word + 8,
            block: at..at + HEAD + contents.key.len() + contents.record.len(),
        };
        records.insert(contents.key.to_vec(), known);
    }
    assert!(records.len() > 90);
    let layout = map.layout;
    drop(arena);
    Sample {
        bytes: std::fs::read(bench.path()).unwrap(),
        layout,
        records,
    }
}

impl Sample {
    /// Opens the file so changed. What nothing was done to must be there; what is there must be as it was.
    fn check(&self, bench: &Bench, bytes: &[u8], what: &str) {
        let changed = |range: &Range<usize>| self.bytes[range.clone()] != bytes[range.clone()];
        std::fs::write(bench.path(), bytes).unwrap();
        let (arena, found) = match Arena::open(
            &bench.path(),
            &Options {
                size: MIB,
                boot_id: BOOT,
            },
        ) {
            Ok(opened) => opened,
            Err(Error::Foreign(_)) => {
                assert!(
                    changed(&(0..MAGIC.len()))
                        && changed(&(HEADER_LEN - MAGIC_END.len()..HEADER_LEN)),
                    "{what}"
                );
                return;
            }
            Err(other) => panic!("{what}: {other}"),
        };
        assert_eq!(found.fresh, changed(&(0..Identity::LEN)), "{what}");
        let mut seen = BTreeMap::new();
        arena
            .for_each(|key, record| assert!(seen.insert(key.to_vec(), record.to_vec()).is_none()))
            .unwrap();
        assert_eq!(seen.len(), found.kept, "{what}");
        for (key, known) in &self.records {
            let sound = !found.fresh && !changed(&known.word) && !changed(&known.block);
            // Not assert_eq: records are long
            assert!(
                seen.remove(key).as_ref() == sound.then_some(&known.record),
                "{what}: {key:?}, sound: {sound}"
            );
        }
        assert!(seen.is_empty(), "{what}: {:?}", seen.keys());
        // And it works
        Heap::lock(arena.map()).check();
        for n in 0..10 {
            let key = format!("agent-{n}").into_bytes();
            arena
                .lock_or_create(&key)
                .unwrap()
                .commit(&sealed(&key, 9, 3000), NEVER)
                .unwrap();
            let guard = arena.lock(&key).unwrap().unwrap();
            assert_eq!(unseal(&key, guard.record()), 9);
        }
        let mut due = Vec::new();
        arena.due(NEVER, &mut due);
        remove_all(&arena);
        assert_eq!(footprint(&arena).0, 0, "{what}");
    }
}

#[test]
fn flipped_bytes_anywhere() {
    let bench = bench();
    let sample = sample(&bench);
    let blocks: Vec<_> = sample
        .records
        .values()
        .map(|known| known.block.clone())
        .collect();
    for seed in 0..600 {
        let mut rng = rng(seed);
        let mut bytes = sample.bytes.clone();
        let parts: [Range<usize>; 5] = [
            0..HEADER_LEN,
            sample.layout.at_slots as usize..sample.layout.at_due as usize,
            sample.layout.at_due as usize..sample.layout.at_data as usize,
            blocks[below(&mut rng, blocks.len())].clone(),
            0..bytes.len(),
        ];
        let part = parts[seed as usize % parts.len()].clone();
        for _ in 0..1 << below(&mut rng, 10) {
            let at = part.start + below(&mut rng, part.len());
            bytes[at] ^= 1 + below(&mut rng, 255) as u8;
        }
        sample.check(&bench, &bytes, &format!("seed {seed}"));
    }
}

/// Words that look right, in wrong places: the checksum of a record alone does not tell.
#[test]
fn words_of_slots_mixed_up() {
    let bench = bench();
    let sample = sample(&bench);
    let words: Vec<_> = sample
        .records
        .values()
        .map(|known| known.word.clone())
        .collect();
    for seed in 0..60 {
        let mut rng = rng(seed);
        let mut bytes = sample.bytes.clone();
        for _ in 0..1 + below(&mut rng, 20) {
            let from = words[below(&mut rng, words.len())].clone();
            let to = words[below(&mut rng, words.len())].clone();
            match below(&mut rng, 3) {
                // Two slots that name one block
                0 => bytes.copy_within(from, to.start),
                // One generation on or back: another record may lie there still
                1 => bytes[to.start + 5] ^= 1,
                // A neighbouring block, or another size
                _ => bytes[to.start + below(&mut rng, 5)] ^= 1 << below(&mut rng, 8),
            }
        }
        sample.check(&bench, &bytes, &format!("seed {seed}"));
    }
}

/// Whole tables gone, as after a disk error.
#[test]
fn tables_overwritten() {
    let bench = bench();
    let sample = sample(&bench);
    let l = sample.layout;
    let tables = [
        Identity::LEN as u64..l.at_slots - 8,
        l.at_slots..l.at_due,
        l.at_due..l.at_buckets,
        l.at_buckets..l.at_pages,
        l.at_pages..l.at_free,
        l.at_free..l.at_data,
        l.at_data..l.size,
        0..l.size,
    ];
    for (at, table) in tables.into_iter().enumerate() {
        let table = table.start as usize..table.end as usize;
        for value in [0, 1, 0x7F, 0xFF] {
            let mut bytes = sample.bytes.clone();
            bytes[table.clone()].fill(value);
            sample.check(&bench, &bytes, &format!("table {at} of {value}"));
        }
        let mut bytes = sample.bytes.clone();
        rng(at as u64).fill_bytes(&mut bytes[table]);
        sample.check(&bench, &bytes, &format!("table {at} of noise"));
    }
}

/// Something wrote into the mapping while it is in use.
#[test]
fn word_overwritten_while_in_use() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    let empty = footprint(&arena);
    for key in [b"a", b"b"] {
        arena
            .lock_or_create(key)
            .unwrap()
            .commit(&sealed(key, 1, 500), NEVER)
            .unwrap();
    }
    let map = arena.map();
    let word = |key: &[u8]| {
        let index = (0..map.layout.slots).find(|&index| {
            // SAFETY: nobody else uses this arena.
            let contents = unsafe { map.read_block(Map::load(&map.slot(index).record)) };
            contents.is_some_and(|contents| contents.key == key)
        });
        &map.slot(index.unwrap()).record
    };
    let (a, b) = (word(b"a"), word(b"b"));
    let (right, other) = (a.load(Relaxed), b.load(Relaxed));
    for wrong in [
        other,
        u64::MAX,
        right ^ 1,
        right ^ (1 << 63),
        right & !0xFFFF_FFFF | 1,
    ] {
        arena
            .lock_or_create(b"a")
            .unwrap()
            .commit(&sealed(b"a", 2, 500), NEVER)
            .unwrap();
        word(b"a").store(wrong, Relaxed);
        assert!(matches!(arena.lock(b"a"), Err(Error::Damaged)), "{wrong:x}");
        assert!(arena.lock(b"a").unwrap().is_none());
        assert_eq!(unseal(b"b", arena.lock(b"b").unwrap().unwrap().record()), 1);
    }
    remove_all(&arena);
    drop(arena);
    let (arena, found) = bench.open(MIB);
    assert_eq!((found.kept, found.damaged), (0, 0));
    assert_eq!(footprint(&arena), empty);
}

/// Two sound records of one key: one of them stays.
#[test]
fn key_in_two_slots() {
    let bench = bench();
    let (arena, _) = bench.open(MIB);
    for key in [b"a", b"b"] {
        arena
            .lock_or_create(key)
            .unwrap()
            .commit(&sealed(key, 1, 500), NEVER)
            .unwrap();
    }
    let map = arena.map();
    for index in 0..map.layout.slots {
        let block = Map::load(&map.slot(index).record);
        // SAFETY: nobody else uses this arena.
        if let Some(contents) = unsafe { map.read_block(block) } {
            let head = Head {
                due: 7,
                ..contents.head
            };
            // SAFETY: as above, and `contents` is not used any more.
            unsafe { map.write_block(block, head.encode(), b"c", &sealed(b"c", index, 500)) };
        }
    }
    drop(arena);
    let (arena, found) = bench.open(MIB);
    assert_eq!((found.kept, found.damaged), (1, 1));
    assert_eq!(keys(&arena), [b"c"]);
    remove_all(&arena);
    assert_eq!(footprint(&arena).0, 0);
    assert_eq!(footprint(&arena).2, 0);
}
