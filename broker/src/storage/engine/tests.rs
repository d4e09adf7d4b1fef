use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, BatchProducer, Compression};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::storage::producers::{SequenceError, Sequenced};
use crate::storage::{Append, Durability, ReadError};

/// Epochs of 64 KiB, so that a few batches fill some.
fn small() -> EngineOptions {
    EngineOptions {
        epoch_bytes: 64 << 10,
        epoch_age: Duration::from_hours(1),
        recent_bytes: 0,
        reader_threads: 2,
        ..EngineOptions::default()
    }
}

fn open(dir: &TempDir) -> Arc<Engine> {
    Engine::open(dir.path(), small()).unwrap()
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index }
}

fn batch(base: i64, records: i64, timestamp: i64, producer: Option<BatchProducer>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in 0..records {
        let value = vec![(base + record) as u8; 1000];
        builder.push(None, Some(&value), std::iter::empty(), timestamp).unwrap();
    }
    let built = builder.build(Compression::None, producer).unwrap();
    let mut bytes = BytesMut::from(&built[..]);
    set_base_offset(&mut bytes, base);
    set_leader_epoch(&mut bytes, 0);
    bytes.freeze()
}

fn append(log: &Arc<dyn Log>, records: i64) -> Bytes {
    append_as(log, records, Durability::Os)
}

fn append_as(log: &Arc<dyn Log>, records: i64, durability: Durability) -> Bytes {
    let base = log.extent().end;
    let batch = batch(base, records, 1000 + base, None);
    let header = BatchHeader::parse(&batch).unwrap();
    let ticket = log.append(Append { batch: batch.clone(), header, append_time: 5000 + base, durability });
    block_on(ticket).unwrap().unwrap();
    batch
}

fn read_all(log: &Arc<dyn Log>) -> Vec<Bytes> {
    let (mut at, mut found) = (log.extent().start, vec![]);
    while at < log.extent().end {
        let batches = block_on(log.read(at, i64::MAX, 10_000)).unwrap();
        at = BatchHeader::parse(batches.last().unwrap()).unwrap().next_offset();
        found.extend(batches);
    }
    found
}

#[test]
fn r2_what_was_appended_is_read_back_before_and_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let logs: Vec<_> = (0..3).map(|index| engine.create(partition(index)).unwrap()).collect();
    let mut written = vec![vec![]; 3];
    for round in 0..200 {
        written[round % 3].push(append(&logs[round % 3], 1 + round as i64 % 4));
    }
    assert!(engine.status().epochs > 3);
    for (log, written) in logs.iter().zip(&written) {
        assert_eq!(&read_all(log), written);
    }
    engine.close().unwrap();
    drop((logs, engine));
    let engine = open(&dir);
    assert!(engine.identity().clean && engine.identity().complete);
    assert_eq!(engine.identity().incarnation, 2);
    for (log, written) in engine.logs().iter().zip(&written) {
        assert_eq!(&read_all(log), written);
    }
}

#[test]
fn d2_acknowledged_batches_survive_a_drop_without_close_and_offsets_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = vec![];
    for round in 0..4 {
        let engine = open(&dir);
        assert_eq!(engine.identity().clean, round == 0);
        assert!(engine.identity().complete);
        let log = engine.create(partition(0)).unwrap();
        assert_eq!(read_all(&log), written);
        for _ in 0..50 {
            let durability = if round == 1 { Durability::Disk } else { Durability::Os };
            written.push(append_as(&log, 2, durability));
        }
    }
}

#[test]
fn r5_a_batch_elsewhere_than_at_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    append(&log, 3);
    let batch = batch(5, 1, 0, None);
    let header = BatchHeader::parse(&batch).unwrap();
    let ticket = log.append(Append { batch, header, append_time: 0, durability: Durability::Os });
    assert!(matches!(block_on(ticket).unwrap(), Err(StorageError::WrongOffset { base: 5, end: 3 })));
    assert!(matches!(block_on(log.read(4, 9, 1)), Err(ReadError::OutOfRange { offset: 4, start: 0, end: 3 })));
}

#[test]
fn appends_are_refused_below_the_reserve_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let log_of = |engine: &Engine| engine.create(partition(0)).unwrap();
    {
        let engine = open(&dir);
        append(&log_of(&engine), 3);
        engine.close().unwrap();
    }
    let full = EngineOptions { reserve_bytes: Some(u64::MAX / 2), ..small() };
    let engine = Engine::open(dir.path(), full).unwrap();
    let log = log_of(&engine);
    let batch = batch(3, 1, 0, None);
    let header = BatchHeader::parse(&batch).unwrap();
    let refused = block_on(log.append(Append { batch, header, append_time: 0, durability: Durability::Os })).unwrap();
    assert!(matches!(refused, Err(StorageError::DiskFull { .. })));
    assert!(engine.status().disk_full);
    block_on(log.trim(2)).unwrap().unwrap();
    block_on(log.begin_epoch(4)).unwrap().unwrap();
    block_on(log.truncate(3)).unwrap().unwrap();
    assert_eq!(read_all(&log).len(), 1);
    engine.delete(log.id()).unwrap();
}

#[test]
fn a_second_start_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _engine = open(&dir);
    assert!(matches!(Engine::open(dir.path(), small()), Err(StorageError::InUse { .. })));
}

#[test]
fn a_storage_whose_writing_failed_ends_when_it_is_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    append(&engine.create(partition(0)).unwrap(), 3);
    engine.shared().fail("write", &"the disk is gone");
    assert!(matches!(engine.close(), Err(StorageError::Failed(_))));
    let (ended, ends) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(engine);
        let _ = ended.send(());
    });
    assert!(ends.recv_timeout(Duration::from_mins(1)).is_ok(), "it waits for its writer for ever");
    assert_eq!(read_all(&open(&dir).logs()[0]).len(), 1);
}

#[test]
fn sealed_files_are_disjoint_and_nothing_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let mut most = 0;
    for _ in 0..3 {
        let engine = open(&dir);
        let log = engine.create(partition(0)).unwrap();
        (0..100).for_each(|_| drop(append(&log, 3)));
        engine.close().unwrap();
        let mut files: Vec<_> = engine.shared().data().live_files().unwrap();
        files.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        // Flushes that fall together share a file.
        most = most.max(files.len());
        assert!(files.windows(2).all(|pair| pair[0].end_key < pair[1].start_key));
    }
    assert!(most > 3);
}

#[test]
fn p5_a_truncation_builds_no_producer_from_a_history_with_holes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    let sequenced = |first_sequence, id| {
        let base = log.extent().end;
        let batch = batch(base, 1, base, Some(BatchProducer { id, epoch: 0, first_sequence }));
        let header = BatchHeader::parse(&batch).unwrap();
        let append = Append { batch, header, append_time: 1, durability: Durability::Os };
        block_on(log.append(append)).unwrap().unwrap();
        engine.shared().seal().unwrap();
        Sequenced::of(&header).unwrap()
    };
    sequenced(0, 7);
    let second = sequenced(1, 7);
    for sequence in 0..3 {
        sequenced(sequence, 8);
    }
    block_on(log.trim(2)).unwrap().unwrap();
    let cell = engine.shared().cell(log.id()).unwrap();
    engine.shared().checkpoint(std::slice::from_ref(&cell)).unwrap();
    // A round drops the second epoch; the file of the first is just being moved.
    let gone = cell.lock().state.index().entries()[1].container;
    cell.lock().state.index_mut().forget(|container| container == gone);
    block_on(log.truncate(4)).unwrap().unwrap();
    assert_eq!(log.producers().check(&second), Err(SequenceError::Unknown), "it would be there twice");
}

mod ahead;
mod blocks;
mod crash;
mod damage;
mod files;

mod contract {
    use super::*;
    use crate::storage::contract::{Subject, contract_tests};

    fn subject() -> Subject {
        let dir = tempfile::tempdir().unwrap();
        let options = EngineOptions { epoch_bytes: 16 << 10, recent_bytes: 4 << 10, ..small() };
        Subject::new(move || Engine::open(dir.path(), options.clone()).map(|engine| engine as Arc<dyn Storage>))
    }

    contract_tests!(subject);
}
