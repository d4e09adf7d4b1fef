use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use taffrail_proto::record::header::set_base_offset;
use taffrail_proto::record::{BatchBuilder, Compression};
use tempfile::TempDir;

use super::*;
use crate::storage::{Append, Durability, Engine, Log, PartitionId, Storage as _};

fn open(dir: &TempDir) -> Arc<Engine> {
    Engine::open(dir.path(), EngineOptions { epoch_bytes: 192 << 10, ..EngineOptions::default() }).unwrap()
}

fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(None, Some(&[7; 5000]), std::iter::empty(), 1).unwrap();
    let mut bytes = BytesMut::from(&builder.build(Compression::None, None).unwrap()[..]);
    set_base_offset(&mut bytes, base);
    bytes.freeze()
}

fn append(log: &Arc<dyn Log>, batches: i64) {
    for _ in 0..batches {
        let batch = batch(log.extent().end);
        let header = BatchHeader::parse(&batch).unwrap();
        block_on(log.append(Append { batch, header, append_time: 1, durability: Durability::Os })).unwrap().unwrap();
    }
}

/// 80 batches in partition 0, 40 in partition 1, over several epochs.
fn filled() -> (TempDir, Arc<Engine>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for (index, batches) in [(0, 80), (1, 40)] {
        append(&engine.create(PartitionId { topic: Uuid::from_u128(1), index }).unwrap(), batches);
    }
    (dir, engine)
}

fn look(dir: &TempDir, depth: Depth) -> Inspection {
    Directory::open(dir.path()).unwrap().inspect(depth)
}

#[test]
fn what_was_stored_is_counted_after_a_close_and_after_a_crash() {
    for close in [true, false] {
        let (dir, engine) = filled();
        if close {
            engine.close().unwrap();
        }
        drop(engine);
        for depth in [Depth::Footers, Depth::EveryByte] {
            let found = look(&dir, depth);
            assert_eq!((found.clean, &found.faults), (close, &vec![]));
            assert!(found.sealed_epochs >= 2, "{found:?}");
            assert_eq!(found.open_epochs, u64::from(!close));
            let logs: Vec<_> =
                found.logs.iter().map(|l| (l.partition, l.first_offset, l.last_offset, l.batches)).collect();
            assert_eq!(logs, [(0, Some(0), Some(79), 80), (1, Some(0), Some(39), 40)]);
            assert_eq!(found.logs[0].bytes, 80 * batch(0).len() as u64);
        }
    }
}

#[test]
fn looking_changes_nothing() {
    let (dir, engine) = filled();
    engine.close().unwrap();
    drop(engine);
    look(&dir, Depth::EveryByte);
    let engine = open(&dir);
    let identity = engine.identity();
    assert!(identity.clean && identity.incarnation == 2, "{identity:?}");
    assert_eq!(engine.logs()[0].extent().end, 80);
}

fn largest_table(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|e| e == "sst"));
    tables.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Flips a bit of a value behind `from` in the largest table.
fn flip_a_value(dir: &TempDir, from: usize) {
    let table = largest_table(dir);
    let mut bytes = fs::read(&table).unwrap();
    let value = bytes[from..].windows(1000).position(|bytes| bytes.iter().all(|&byte| byte == 7)).unwrap();
    bytes[from + value] ^= 1;
    fs::write(&table, bytes).unwrap();
}

#[test]
fn d5_a_flipped_bit_in_stored_batches_is_found_with_the_offsets_concerned() {
    let (dir, engine) = filled();
    engine.close().unwrap();
    drop(engine);
    // In the second block of an epoch of three, where only batches are.
    flip_a_value(&dir, 96 << 10);
    let found = look(&dir, Depth::EveryByte);
    assert!(found.faults.iter().any(|fault| fault.place.contains("offset ")), "{:?}", found.faults);
    // The footers are whole: what is stored is still known.
    assert_eq!(found.logs[0].last_offset, Some(79));
    assert_eq!(look(&dir, Depth::Footers).faults, []);
}

#[test]
fn d5_a_flipped_bit_beside_footers_is_found_and_what_is_stored_is_still_known() {
    let (dir, engine) = filled();
    engine.close().unwrap();
    drop(engine);
    // The first block holds the seal, the footers and the first batches.
    flip_a_value(&dir, 0);
    for depth in [Depth::Footers, Depth::EveryByte] {
        let found = look(&dir, depth);
        assert!(found.faults.iter().any(|fault| fault.what.contains("the copy stands in")), "{:?}", found.faults);
        let offsets = found.faults.iter().filter(|fault| fault.place.contains("offset ")).count();
        assert_eq!((1..20).contains(&offsets), depth == Depth::EveryByte, "{:?}", found.faults);
        assert_eq!((found.logs[0].last_offset, found.logs[1].last_offset), (Some(79), Some(39)));
    }
}

#[test]
fn a_damaged_copy_of_footers_is_told_with_what_to_do() {
    let (dir, engine) = filled();
    engine.close().unwrap();
    drop(engine);
    let copy = fs::read_dir(dir.path().join("fronts")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&copy).unwrap();
    bytes[20] ^= 1;
    fs::write(&copy, bytes).unwrap();
    let faults = look(&dir, Depth::Footers).faults;
    assert!(faults.len() == 1 && faults[0].place == copy.display().to_string(), "{faults:?}");
    fs::remove_file(&copy).unwrap();
    open(&dir).close().unwrap();
    assert!(copy.exists());
    assert_eq!(look(&dir, Depth::EveryByte).faults, []);
}

#[test]
fn a_directory_in_use_and_one_that_is_none_are_refused() {
    let (dir, engine) = filled();
    assert!(matches!(Directory::open(dir.path()), Err(StorageError::InUse { .. })));
    drop(engine);
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Directory::open(empty.path()), Err(StorageError::Io { .. })));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}
