//! A bit flips in each data block of each table file, one after the other: it costs the offsets of that block and nothing
//! else, and nothing wrong is served (D5).

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use super::*;
use crate::storage::inspect::{Depth, Directory};
use crate::storage::producers::Producers;

const LOGS: i32 = 3;
/// RocksDB's blocks of data are not smaller, but for the last of a file.
const STEP: usize = 24 << 10;
/// A block, and the batch that its end cuts off.
const MOST: usize = (64 << 10) + 8_000;

/// What a log must be after a start.
struct Wanted {
    extent: crate::storage::Extent,
    epochs: Vec<(i32, i64)>,
    producers: Producers,
    /// By base offset.
    batches: Vec<(i64, Bytes)>,
}

/// Epochs of many files, of one, of parts of blocks; trimmed, truncated, deleted and idle logs; footers of recoveries and a
/// rewritten epoch.
fn filled(dir: &TempDir) -> Vec<Wanted> {
    let options = EngineOptions { epoch_bytes: 128 << 10, ..small() };
    for round in 0..3 {
        let engine = Engine::open(dir.path(), options.clone()).unwrap();
        for index in 0..LOGS {
            let log = engine.create(partition(index)).unwrap();
            block_on(log.begin_epoch(round)).unwrap().unwrap();
            // The last log is idle after the first round: only old footers know it.
            let batches = if index == LOGS - 1 && round > 0 { 0 } else { 30 + 20 * i64::from(index) };
            for at in 0..batches {
                append_for(&log, 1 + at % 4, round);
            }
        }
        let log = engine.create(partition(0)).unwrap();
        if round == 1 {
            block_on(log.trim(9)).unwrap().unwrap();
        }
        if round == 2 {
            // Most of some epochs is dead then.
            let other = engine.create(partition(1)).unwrap();
            block_on(other.trim(other.extent().end - 60)).unwrap().unwrap();
            let end = block_on(log.read(log.extent().end - 12, i64::MAX, 1)).unwrap();
            block_on(log.truncate(BatchHeader::parse(&end[0]).unwrap().base_offset)).unwrap().unwrap();
            (0..10).for_each(|_| append_for(&log, 1, round));
            for _ in 0..5 {
                engine.maintain(0).unwrap();
            }
            engine.close().unwrap();
        }
    }
    let engine = Engine::open(dir.path(), options).unwrap();
    let wanted = engine.logs().iter().map(wanted).collect();
    engine.close().unwrap();
    wanted
}

fn append_for(log: &Arc<dyn Log>, records: i64, epoch: i32) {
    let base = log.extent().end;
    let producer = BatchProducer { id: i64::from(log.id().0), epoch: 0, first_sequence: base as i32 };
    let mut bytes = BytesMut::from(&batch(base, records, 1000 + base, Some(producer))[..]);
    set_leader_epoch(&mut bytes, epoch);
    let batch = bytes.freeze();
    let header = BatchHeader::parse(&batch).unwrap();
    let append = Append { batch, header, append_time: base, durability: Durability::Os };
    block_on(log.append(append)).unwrap().unwrap();
}

fn wanted(log: &Arc<dyn Log>) -> Wanted {
    let base = |batch: Bytes| (BatchHeader::parse(&batch).unwrap().base_offset, batch);
    Wanted {
        extent: log.extent(),
        epochs: log.leader_epochs().entries().to_vec(),
        producers: log.producers(),
        batches: read_all(log).into_iter().map(base).collect(),
    }
}

/// Reads every offset: the batches that are damaged, by log and base offset.
fn damaged(engine: &Engine, wanted: &[Wanted], place: &str) -> BTreeSet<(u32, i64)> {
    let mut found = BTreeSet::new();
    assert_eq!(engine.logs().len(), wanted.len(), "{place}");
    for (log, wanted) in engine.logs().iter().zip(wanted) {
        assert_eq!(log.extent(), wanted.extent, "{place}");
        assert_eq!(log.leader_epochs().entries(), wanted.epochs, "{place}");
        assert_eq!(log.producers(), wanted.producers, "{place}");
        for (base, batch) in &wanted.batches {
            match block_on(log.read(*base.max(&wanted.extent.start), i64::MAX, 1)) {
                Ok(read) => assert!(read == [batch.clone()], "{place}: offset {base} is another"),
                Err(ReadError::Corrupt { first, last, .. }) => {
                    assert!(first == *base && last < base + 4, "{place}: {base} is said to be {first} to {last}");
                    found.insert((log.id().0, *base));
                }
                Err(fault) => panic!("{place}, offset {base}: {fault}"),
            }
        }
    }
    found
}

/// Length of the blocks of data of a table file, which begin it: a property of the file (RocksDB 11, `table/meta_blocks.cc`).
fn data_bytes(table: &[u8]) -> usize {
    // Keys are written without what they share with the one before.
    const NAME: &[u8] = b"tail.start.offset";
    let at = table.windows(NAME.len()).rposition(|window| window == NAME).unwrap();
    let varint = table[at + NAME.len()..].iter().scan(true, |more, byte| {
        let this = *more;
        *more = byte & 0x80 != 0;
        this.then_some(usize::from(byte & 0x7f))
    });
    varint.enumerate().map(|(at, bits)| bits << (7 * at)).sum()
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(Shared::data_dir(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut tables: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "sst")).collect();
    tables.sort();
    tables
}

/// Each file with a byte in each of its blocks.
fn places(dir: &Path) -> Vec<(PathBuf, usize)> {
    let places = |path: PathBuf| {
        let end = data_bytes(&fs::read(&path).unwrap());
        // The trailer of a block is five bytes behind its entries.
        let bytes: BTreeSet<_> = (100.min(end - 6)..end - 5).step_by(STEP).chain([end - 6]).collect();
        bytes.into_iter().map(move |at| (path.clone(), at)).collect::<Vec<_>>()
    };
    tables(dir).into_iter().flat_map(places).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the directory with a bit flipped.
fn flipped(dir: &TempDir, (path, at): &(PathBuf, usize)) -> TempDir {
    let other = tempfile::tempdir().unwrap();
    copy(dir.path(), other.path());
    let path = other.path().join(path.strip_prefix(dir.path()).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes[*at] ^= 1;
    fs::write(path, bytes).unwrap();
    other
}

fn bytes_of(batches: &BTreeSet<(u32, i64)>, wanted: &[Wanted], logs: &[u32]) -> usize {
    let size = |&(log, base): &(u32, i64)| {
        let batches = &wanted[logs.iter().position(|&id| id == log).unwrap()].batches;
        batches.iter().find(|batch| batch.0 == base).unwrap().1.len()
    };
    batches.iter().map(size).sum()
}

#[test]
fn d5_a_bit_that_flips_in_any_data_block_costs_the_offsets_in_that_block() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(&dir);
    let places = places(dir.path());
    let (mut with_loss, mut fronts) = (0, 0);
    for place in &places {
        let dir = flipped(&dir, place);
        let name = format!("{}, byte {}", place.0.display(), place.1);
        let looked = Directory::open(dir.path()).unwrap().inspect(Depth::EveryByte);
        assert!(!looked.faults.is_empty(), "{name}: not found");
        fronts += usize::from(looked.faults.iter().any(|fault| fault.what.contains("the copy stands in")));
        let engine = open(&dir);
        let damaged = damaged(&engine, &wanted, &name);
        let logs: Vec<u32> = engine.logs().iter().map(|log| log.id().0).collect();
        assert!(bytes_of(&damaged, &wanted, &logs) <= MOST, "{name} costs {damaged:?}");
        with_loss += usize::from(!damaged.is_empty());
        for (log, base) in &damaged {
            let named = format!("log {log}, offset {base}");
            assert!(looked.faults.iter().any(|fault| fault.place.ends_with(&named)), "{name}: {named} is not told");
        }
        // Life goes on, and a restart finds the same.
        engine.logs().iter().for_each(|log| append_for(log, 1, 5));
        engine.maintain(0).unwrap();
        engine.close().unwrap();
        drop(engine);
        let again = open(&dir);
        let ends: Vec<Range<i64>> = again.logs().iter().map(|l| l.extent().start..l.extent().end).collect();
        let expected: Vec<_> = wanted.iter().map(|w| w.extent.start..w.extent.end + 1).collect();
        assert_eq!(ends, expected, "{name}");
    }
    assert!(places.len() > 20 && with_loss > 10 && fronts > 3, "{} {with_loss} {fronts}", places.len());
}

#[test]
fn d5_without_the_copies_a_start_is_whole_or_refused_with_file_and_byte() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = filled(&dir);
    fs::remove_dir_all(dir.path().join("fronts")).unwrap();
    let (mut refused, mut started) = (0, 0);
    for place in places(dir.path()) {
        let dir = flipped(&dir, &place);
        let name = format!("{}, byte {}", place.0.display(), place.1);
        match Engine::open(dir.path(), small()) {
            Ok(engine) => {
                damaged(&engine, &wanted, &name);
                started += 1;
            }
            Err(StorageError::Damaged { file, at, .. }) => {
                assert_eq!(Path::new(&file).file_name(), place.0.file_name(), "{name}");
                assert!((at as usize..at as usize + MOST).contains(&place.1), "{name}: {at}");
                refused += 1;
            }
            Err(other) => panic!("{name}: {other}"),
        }
    }
    assert!(refused > 3 && started > 5, "{refused} {started}");
}

#[test]
fn a_start_makes_the_copies_that_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir);
    let fronts = dir.path().join("fronts");
    let before: Vec<_> = fs::read_dir(&fronts).unwrap().map(|file| file.unwrap().file_name()).collect();
    fs::remove_dir_all(&fronts).unwrap();
    drop(open(&dir));
    assert!(before.iter().all(|name| fronts.join(name).exists()), "{before:?}");
}
