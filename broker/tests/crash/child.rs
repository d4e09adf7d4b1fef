//! The process that is killed: random operations on a few logs, maintenance beside them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use taffrail_broker::storage::{
    Append, Durability, Engine, EngineOptions, Extent, Log, PartitionId, Storage, StorageError, Ticket,
};
use taffrail_proto::record::BatchHeader;
use uuid::Uuid;

use crate::journal::{Journal, Operation, PARTITIONS, batch, path};

/// Environment of a child: where it works, and what its randomness begins with.
pub(crate) const DIRECTORY: &str = "TAFFRAIL_TEST_CRASH_DIRECTORY";
pub(crate) const SEED: &str = "TAFFRAIL_TEST_CRASH_SEED";
/// A log that is longer is trimmed, so that a check takes little time.
const LONG: i64 = 150;

/// Small epochs, so that a short life sees many.
pub(crate) fn options() -> EngineOptions {
    EngineOptions { epoch_bytes: 64 << 10, recent_bytes: 64 << 10, reader_threads: 2, ..EngineOptions::default() }
}

pub(crate) fn partition(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(11), index }
}

pub(crate) fn wait(ticket: Ticket) -> Result<(), StorageError> {
    block_on(ticket).unwrap_or(Err(StorageError::Closed))
}

/// All batches of a log.
pub(crate) fn read_all(log: &dyn Log) -> Vec<Bytes> {
    let Extent { start: mut at, end } = log.extent();
    let mut found = vec![];
    while at < end {
        let batches = block_on(log.read(at, end, 1 << 20)).unwrap();
        at = BatchHeader::parse(batches.last().unwrap()).unwrap().next_offset();
        found.extend(batches);
    }
    found
}

/// Appends until at least one epoch is sealed.
pub(crate) fn fill_an_epoch(log: &dyn Log) {
    for nonce in 0..100 {
        let base = log.extent().end;
        wait(log.append(append(batch(log.partition().index, base, 1, 2000, 1 << 20, nonce), Durability::Os))).unwrap();
    }
}

fn append(batch: Bytes, durability: Durability) -> Append {
    let header = BatchHeader::parse(&batch).unwrap();
    Append { batch, header, append_time: 0, durability }
}

/// Works until it is killed.
pub(crate) fn run() {
    let dir = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    taffrail_broker::crash::arm_from_environment().unwrap();
    let journal = Journal::create(&path(&dir));
    let engine = Engine::open(&dir.join("data"), options()).unwrap();
    let maintained = Arc::clone(&engine);
    std::thread::spawn(move || {
        loop {
            maintained.maintain(0).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let rng = StdRng::seed_from_u64(std::env::var(SEED).unwrap().parse().unwrap());
    let mut worker = Worker { engine, journal, rng };
    loop {
        worker.step();
    }
}

struct Worker {
    engine: Arc<Engine>,
    journal: Journal,
    rng: StdRng,
}

impl Worker {
    fn step(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let log = self.log(partition);
        let Extent { start, end } = log.extent();
        match self.rng.random_range(0..100) {
            0..3 => self.truncate(partition, &*log),
            3..5 => {
                let epoch = log.leader_epochs().latest().map_or(0, |epoch| epoch + 1);
                self.control(Operation::BeginEpoch { partition, epoch }, || log.begin_epoch(epoch));
            }
            5 => self.delete(partition, &*log),
            6..9 if end > start => self.trim(partition, &*log, cut(start, end, 4)),
            _ if end - start > LONG => self.trim(partition, &*log, cut(start, end, 1)),
            _ => self.append_some(partition, &*log),
        }
    }

    fn log(&mut self, index: i32) -> Arc<dyn Log> {
        if let Some(log) = self.engine.logs().into_iter().find(|log| log.partition() == partition(index)) {
            return log;
        }
        let number = self.journal.asked(Operation::Create { partition: index });
        let log = self.engine.create(partition(index)).unwrap();
        self.journal.done(number);
        log
    }

    /// A few batches at once.
    fn append_some(&mut self, partition: i32, log: &dyn Log) {
        let (mut base, mut waiting) = (log.extent().end, vec![]);
        let leader_epoch = log.leader_epochs().latest().unwrap_or(0);
        for _ in 0..self.rng.random_range(1..5) {
            let (records, size) = (self.rng.random_range(1..4), self.rng.random_range(8..3000));
            let nonce = self.rng.random::<u64>() >> 1;
            let operation = Operation::Append { partition, base, records, size, leader_epoch, nonce };
            let number = self.journal.asked(operation);
            let durability = if self.rng.random_ratio(1, 50) { Durability::Disk } else { Durability::Os };
            let bytes = batch(partition, base, records, size, leader_epoch, nonce);
            waiting.push((number, log.append(append(bytes, durability))));
            base += i64::from(records);
        }
        for (number, ticket) in waiting {
            wait(ticket).unwrap();
            self.journal.done(number);
        }
    }

    fn control(&mut self, operation: Operation, run: impl FnOnce() -> Ticket) {
        let number = self.journal.asked(operation);
        wait(run()).unwrap();
        self.journal.done(number);
    }

    /// To the beginning of a batch, so that something is left.
    fn truncate(&mut self, partition: i32, log: &dyn Log) {
        let bases: Vec<i64> =
            read_all(log).iter().skip(1).map(|batch| BatchHeader::parse(batch).unwrap().base_offset).collect();
        if !bases.is_empty() {
            let to = bases[self.rng.random_range(0..bases.len())];
            self.control(Operation::Truncate { partition, to }, || log.truncate(to));
        }
    }

    fn trim(&mut self, partition: i32, log: &dyn Log, to: i64) {
        self.control(Operation::Trim { partition, to }, || log.trim(to));
    }

    fn delete(&mut self, partition: i32, log: &dyn Log) {
        let number = self.journal.asked(Operation::Delete { partition });
        self.engine.delete(log.id()).unwrap();
        self.journal.done(number);
    }
}

/// Where a trim cuts: after one part of so many, at least one record.
fn cut(start: i64, end: i64, parts: i64) -> i64 {
    (start + ((end - start) / parts).max(1)).min(end)
}
