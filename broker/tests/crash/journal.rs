//! What a child asked for and what was acknowledged, and what the logs must be then.
//!
//! A line is written, by one `write`, before an operation is given to the engine, and another when its ticket has resolved.
//! The kernel keeps them when the process dies.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use taffrail_broker::storage::Extent;
use taffrail_broker::storage::leader_epochs::LeaderEpochs;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchProducer, Compression};

pub(crate) const PARTITIONS: i32 = 6;

/// An operation on a partition's log.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Operation {
    Create { partition: i32 },
    Append { partition: i32, base: i64, records: u32, size: usize, leader_epoch: i32, nonce: u64 },
    BeginEpoch { partition: i32, epoch: i32 },
    Truncate { partition: i32, to: i64 },
    Trim { partition: i32, to: i64 },
    Delete { partition: i32 },
}

#[derive(Serialize, Deserialize)]
enum Line {
    Asked(u64, Operation),
    Done(u64),
}

impl Operation {
    pub(crate) fn partition(&self) -> i32 {
        match *self {
            Self::Create { partition }
            | Self::Append { partition, .. }
            | Self::BeginEpoch { partition, .. }
            | Self::Truncate { partition, .. }
            | Self::Trim { partition, .. }
            | Self::Delete { partition } => partition,
        }
    }
}

/// The batch of an append.
pub(crate) fn batch(partition: i32, base: i64, records: u32, size: usize, leader_epoch: i32, nonce: u64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in 0..u64::from(records) {
        let mut value = vec![(nonce + record) as u8; size];
        value[..8].copy_from_slice(&nonce.to_be_bytes());
        builder.push(Some(&base.to_be_bytes()), Some(&value), [], base).unwrap();
    }
    let producer = BatchProducer { id: i64::from(partition), epoch: 0, first_sequence: base as i32 };
    let mut batch = BytesMut::from(&builder.build(Compression::None, Some(producer)).unwrap()[..]);
    set_base_offset(&mut batch, base);
    set_leader_epoch(&mut batch, leader_epoch);
    batch.freeze()
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

/// The child's side.
pub(crate) struct Journal {
    file: File,
    next: u64,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        Self { file: File::create(path).unwrap(), next: 0 }
    }

    /// Notes what is about to be asked.
    pub(crate) fn asked(&mut self, operation: Operation) -> u64 {
        self.next += 1;
        self.line(&Line::Asked(self.next, operation));
        self.next
    }

    /// Notes an acknowledgement.
    pub(crate) fn done(&mut self, number: u64) {
        self.line(&Line::Done(number));
    }

    fn line(&mut self, line: &Line) {
        let mut bytes = serde_json::to_vec(line).unwrap();
        bytes.push(b'\n');
        self.file.write_all(&bytes).unwrap();
    }
}

/// Takes the journal of a dead child: what was acknowledged, then what was only asked for.
pub(crate) fn take(path: &Path) -> (Vec<Operation>, Vec<Operation>) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    let mut asked: Vec<(u64, Operation, bool)> = Vec::new();
    // A line that was cut by the death is none.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        match serde_json::from_str(line).unwrap() {
            Line::Asked(number, operation) => asked.push((number, operation, false)),
            Line::Done(number) => asked.iter_mut().rev().find(|asked| asked.0 == number).unwrap().2 = true,
        }
    }
    let (done, open): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(_, _, done)| *done);
    let operations = |list: Vec<(u64, Operation, bool)>| list.into_iter().map(|(_, operation, _)| operation).collect();
    (operations(done), operations(open))
}

/// A log as it must be.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogModel {
    partition: i32,
    start: i64,
    end: i64,
    pub(crate) epochs: LeaderEpochs,
    batches: Vec<(i64, u32, Bytes)>,
}

impl LogModel {
    pub(crate) fn extent(&self) -> Extent {
        Extent { start: self.start, end: self.end }
    }

    /// Batches that hold records of the log.
    pub(crate) fn stored(&self) -> Vec<Bytes> {
        let there = |(base, records, _): &&(i64, u32, Bytes)| base + i64::from(*records) > self.start;
        self.batches.iter().filter(there).map(|(.., bytes)| bytes.clone()).collect()
    }

    /// Where its batches begin.
    pub(crate) fn bases(&self) -> Vec<i64> {
        self.batches.iter().map(|(base, ..)| *base).collect()
    }
}

/// Does an operation on the model of its log.
pub(crate) fn apply(log: &mut Option<LogModel>, operation: &Operation) {
    match (*operation, log.as_mut()) {
        (Operation::Create { partition }, None) => *log = Some(LogModel { partition, ..LogModel::default() }),
        (Operation::Create { .. }, Some(_)) => {}
        (Operation::Delete { .. }, _) => *log = None,
        (operation, Some(log)) => change(log, operation),
        (operation, None) => panic!("{operation:?} without a log"),
    }
}

fn change(log: &mut LogModel, operation: Operation) {
    match operation {
        Operation::Append { base, records, size, leader_epoch, nonce, .. } => {
            let bytes = batch(log.partition, base, records, size, leader_epoch, nonce);
            log.batches.push((base, records, bytes));
            log.end = base + i64::from(records);
            log.epochs.assign(leader_epoch, base);
        }
        Operation::BeginEpoch { epoch, .. } => log.epochs.assign(epoch, log.end),
        Operation::Truncate { to, .. } => {
            log.batches.retain(|(base, ..)| *base < to);
            log.end = to;
            log.epochs.truncate(to);
        }
        Operation::Trim { to, .. } => {
            log.start = to;
            log.batches.retain(|(base, records, _)| base + i64::from(*records) > to);
            log.epochs.trim(to);
        }
        Operation::Create { .. } | Operation::Delete { .. } => {}
    }
}

/// All logs as they must be.
#[derive(Default)]
pub(crate) struct Model {
    logs: [Option<LogModel>; PARTITIONS as usize],
    operations: usize,
}

impl Model {
    pub(crate) fn apply(&mut self, operation: &Operation) {
        self.operations += 1;
        apply(&mut self.logs[operation.partition() as usize], operation);
    }

    pub(crate) fn log(&self, partition: i32) -> Option<&LogModel> {
        self.logs[partition as usize].as_ref()
    }

    pub(crate) fn set(&mut self, partition: i32, log: Option<LogModel>) {
        self.logs[partition as usize] = log;
    }

    /// How many were acknowledged.
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }
}
