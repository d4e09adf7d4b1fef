use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Release};

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, BatchProducer, Compression};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::storage::{Append, Durability, Engine, EngineOptions, Extent, Log, PartitionId, ReadError, Storage};

const EPOCH: u64 = 64 << 10;

fn open(dir: &TempDir) -> Arc<Engine> {
    open_with(dir, EPOCH)
}

fn open_with(dir: &TempDir, epoch_bytes: u64) -> Arc<Engine> {
    let options = EngineOptions { epoch_bytes, recent_bytes: 0, reader_threads: 2, ..EngineOptions::default() };
    Engine::open(dir.path(), options).unwrap()
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(3), index }
}

/// Appends a batch of one record with `value` bytes, by a producer of the log's number.
fn append(log: &dyn Log, value: usize) -> Bytes {
    let base = log.extent().end;
    let mut builder = BatchBuilder::new();
    builder.push(None, Some(&vec![base as u8; value]), [], base).unwrap();
    let producer = BatchProducer { id: i64::from(log.id().0), epoch: 0, first_sequence: base as i32 };
    let mut batch = BytesMut::from(&builder.build(Compression::None, Some(producer)).unwrap()[..]);
    set_base_offset(&mut batch, base);
    set_leader_epoch(&mut batch, 0);
    let batch = batch.freeze();
    let header = BatchHeader::parse(&batch).unwrap();
    let ticket = log.append(Append { batch: batch.clone(), header, append_time: 0, durability: Durability::Os });
    block_on(ticket).unwrap().unwrap();
    batch
}

fn read_all(log: &dyn Log) -> Vec<Bytes> {
    let Extent { start: mut at, end } = log.extent();
    let mut found = vec![];
    while at < end {
        let batches = block_on(log.read(at, end, 100_000)).unwrap();
        at = BatchHeader::parse(batches.last().unwrap()).unwrap().next_offset();
        found.extend(batches);
    }
    found
}

/// Fills so many logs in turn with so many batches of 4 KiB each.
fn fill(engine: &Engine, logs: i32, batches: usize) -> Vec<Vec<Bytes>> {
    let logs: Vec<_> = (0..logs).map(|index| engine.create(partition(index)).unwrap()).collect();
    let mut written = vec![vec![]; logs.len()];
    for _ in 0..batches {
        for (log, written) in logs.iter().zip(&mut written) {
            written.push(append(&**log, 4000));
        }
    }
    written
}

fn log(engine: &Engine, index: i32) -> Arc<dyn Log> {
    engine.create(partition(index)).unwrap()
}

/// Rounds until nothing is left to do. Before each one files reach their level, without which a round passes them over.
fn settle(engine: &Engine) -> Maintenance {
    let mut all = Maintenance::default();
    loop {
        engine.shared().wait_for_files();
        let done = engine.maintain(0).unwrap();
        if done == Maintenance::default() {
            return all;
        }
        all.dropped += done.dropped;
        all.rewritten += done.rewritten;
        all.rewritten_bytes += done.rewritten_bytes;
    }
}

/// Bytes of the database's table files.
fn table_bytes(engine: &Engine) -> u64 {
    engine.shared().data().live_files().unwrap().iter().map(|file| file.size as u64).sum()
}

#[test]
fn r2_a_log_that_expired_leaves_its_offsets_and_its_producers_and_no_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir);
    fill(&engine, 2, 60);
    let producers = log(&engine, 0).producers();
    for index in 0..2 {
        block_on(log(&engine, index).trim(60)).unwrap().unwrap();
    }
    engine.shared().seal().unwrap();
    assert!(settle(&engine).dropped >= 4);
    for _ in 0..3 {
        assert!(table_bytes(&engine) < 20_000, "{}", table_bytes(&engine));
        for index in 0..2 {
            assert_eq!(log(&engine, index).extent(), Extent { start: 60, end: 60 });
        }
        assert_eq!(log(&engine, 0).producers(), producers);
        drop(engine);
        engine = open(&dir);
        settle(&engine);
    }
}

#[test]
fn what_lives_among_the_dead_is_rewritten_and_reads_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir);
    let written = fill(&engine, 4, 100);
    block_on(log(&engine, 0).trim(100)).unwrap().unwrap();
    block_on(log(&engine, 1).trim(90)).unwrap().unwrap();
    block_on(log(&engine, 2).truncate(30)).unwrap().unwrap();
    engine.shared().seal().unwrap();
    // How many there are depends on how fast they could be flushed.
    let before = engine.status().epochs;
    let done = settle(&engine);
    assert!(done.rewritten > before / 2 && done.rewritten_bytes < 900_000, "{done:?} of {before}");
    let live = 4100 * (10 + 30 + 100);
    for _ in 0..3 {
        assert!(table_bytes(&engine) < live * 2, "{} of {live}", table_bytes(&engine));
        assert_eq!(log(&engine, 0).extent(), Extent { start: 100, end: 100 });
        assert_eq!(read_all(&*log(&engine, 1)), written[1][90..]);
        assert_eq!(read_all(&*log(&engine, 2)), written[2][..30]);
        assert_eq!(read_all(&*log(&engine, 3)), written[3]);
        drop(engine);
        engine = open(&dir);
    }
    let again = append(&*log(&engine, 2), 100);
    assert_eq!(read_all(&*log(&engine, 2)), [&written[2][..30], &[again]].concat());
}

#[test]
fn what_maintenance_does_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    fill(&engine, 4, 100);
    for index in 0..3 {
        block_on(log(&engine, index).trim(100)).unwrap().unwrap();
    }
    let done = settle(&engine);
    assert!(done.dropped > 0 && done.rewritten > 0 && done.rewritten_bytes > 0, "{done:?}");
    let counted = &engine.shared().options.metrics;
    let counted = (counted.dropped_epochs.get(), counted.rewritten_epochs.get(), counted.rewritten_bytes.get());
    assert_eq!(counted, (done.dropped, done.rewritten, done.rewritten_bytes));
}

#[test]
fn truncated_batches_stay_gone_when_the_epoch_that_tells_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir);
    let written = fill(&engine, 1, 40);
    // The truncation is told by an epoch that has no batch of its own.
    engine.shared().seal().unwrap();
    block_on(log(&engine, 0).truncate(25)).unwrap().unwrap();
    engine.shared().seal().unwrap();
    settle(&engine);
    for _ in 0..2 {
        assert_eq!(log(&engine, 0).extent(), Extent { start: 0, end: 25 });
        assert_eq!(read_all(&*log(&engine, 0)), written[0][..25]);
        drop(engine);
        engine = open(&dir);
        settle(&engine);
    }
}

#[test]
fn m9_only_the_deleted_log_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir);
    let written = fill(&engine, 2, 60);
    let deleted = log(&engine, 0).id();
    engine.delete(deleted).unwrap();
    engine.shared().seal().unwrap();
    settle(&engine);
    for _ in 0..2 {
        assert!(table_bytes(&engine) < 60 * 4100 * 2);
        assert_eq!(engine.logs().len(), 1);
        assert_eq!(read_all(&*log(&engine, 1)), written[1]);
        drop(engine);
        engine = open(&dir);
    }
}

#[test]
fn a_deleted_log_in_the_open_epoch_does_not_stop_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    fill(&engine, 1, 40);
    let deleted = log(&engine, 0).id();
    engine.delete(deleted).unwrap();
    settle(&engine);
    drop(engine);
    let engine = open(&dir);
    settle(&engine);
    assert_eq!(log(&engine, 0).extent(), Extent::default());
}

#[test]
fn small_epochs_of_many_starts_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = vec![];
    for _ in 0..20 {
        let engine = open(&dir);
        written.push(append(&*log(&engine, 0), 100));
    }
    let engine = open(&dir);
    let before = engine.status().epochs;
    settle(&engine);
    assert!(before >= 20 && engine.status().epochs < 8, "{before}, then {}", engine.status().epochs);
    assert_eq!(read_all(&*log(&engine, 0)), written);
    drop(engine);
    assert_eq!(read_all(&*log(&open(&dir), 0)), written);
}

/// Says that it is over, also where an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

#[test]
fn readers_and_truncations_go_on_while_epochs_move() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let mut written = fill(&engine, 4, 60);
    let (done, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let maintain = scope.spawn(|| {
            let mut rewritten = 0;
            while !done.load(Acquire) {
                rewritten += engine.maintain(0).unwrap().rewritten;
                rounds.fetch_add(1, Release);
            }
            rewritten
        });
        let stop = Stop(&done);
        let (one, kept) = (log(&engine, 3), written[3].clone());
        scope.spawn(move || (0..40).for_each(|_| assert_eq!(read_all(&*one), kept)));
        for round in 0..20 {
            for index in 0..2 {
                block_on(log(&engine, index).trim(round * 3 + 3)).unwrap().unwrap();
            }
            let two = log(&engine, 2);
            let end = two.extent().end - 5;
            block_on(two.truncate(end)).unwrap().unwrap();
            written[2].truncate(end as usize);
            written[2].extend((0..4).map(|_| append(&*two, 4000)));
            // What has died can be moved, and a whole round of maintenance sees it.
            engine.shared().wait_for_files();
            let seen = rounds.load(Acquire);
            while rounds.load(Acquire) < seen + 2 && !maintain.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        drop(stop);
        assert!(maintain.join().unwrap() > 0);
    });
    assert_eq!(read_all(&*log(&engine, 2)), written[2]);
    drop(engine);
    let engine = open(&dir);
    assert_eq!(read_all(&*log(&engine, 2)), written[2]);
    assert_eq!(read_all(&*log(&engine, 3)), written[3]);
}

#[test]
fn d5_damage_is_not_spread_and_costs_its_own_offsets_only() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_with(&dir, EPOCH * 8);
    let written = fill(&engine, 2, 50);
    engine.close().unwrap();
    drop(engine);
    damage_a_batch(&dir, &written[1][40]);
    let engine = open_with(&dir, EPOCH * 8);
    block_on(log(&engine, 0).trim(50)).unwrap().unwrap();
    for _ in 0..2 {
        settle(&engine);
        let one = log(&engine, 1);
        let broken = block_on(one.read(40, 50, 1));
        assert!(matches!(broken, Err(ReadError::Corrupt { first: 40, last: 40, .. })), "{broken:?}");
        // The block of the database that holds it is lost with it: 64 KiB.
        let reads =
            |at: &usize| block_on(one.read(*at as i64, 50, 1)).is_ok_and(|read| read[..] == written[1][*at..=*at]);
        assert!((0..50).filter(reads).count() > 30);
    }
}

/// Flips a bit of the batch in whatever table file holds it.
fn damage_a_batch(dir: &TempDir, batch: &[u8]) {
    let mut flipped = 0;
    for file in std::fs::read_dir(dir.path().join("data")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = std::fs::read(&path).unwrap();
            let needle = &batch[..200];
            if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                bytes[at + 150] ^= 4;
                std::fs::write(&path, bytes).unwrap();
                flipped += 1;
            }
        }
    }
    assert_eq!(flipped, 1);
}
