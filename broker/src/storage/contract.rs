//! The contract of [`Storage`] as tests, run on each implementation: [`contract_tests!`] makes them for a function that
//! returns a [`Subject`].

use std::sync::Arc;

use bytes::Bytes;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, BatchProducer, Compression};
use uuid::Uuid;

use super::{Append, Durability, Extent, Log, PartitionId, ReadError, Storage, StorageError, Ticket};

pub(super) mod directory;
pub(super) mod log;
mod model;
pub(super) mod replay;
pub(super) mod retention;
pub(super) mod time;

/// A storage that was started, or why it could not be.
type Opened = Result<Arc<dyn Storage>, StorageError>;

/// What is tested: content that survives, and how to start a storage on it.
pub(super) struct Subject {
    open: Box<dyn Fn() -> Opened>,
    opened: Opened,
    runtime: tokio::runtime::Runtime,
}

impl Subject {
    /// `open` starts a storage on always the same content; the one before has been dropped by then.
    pub(super) fn new(open: impl Fn() -> Opened + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { opened: open(), open: Box::new(open), runtime }
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        self.opened.as_ref().unwrap_or_else(|fault| panic!("the storage does not open: {fault}"))
    }

    /// Drops the storage without closing it, and starts another.
    fn reopen(&mut self) {
        self.try_reopen().unwrap_or_else(|fault| panic!("the storage does not open again: {fault}"));
    }

    fn try_reopen(&mut self) -> Result<(), StorageError> {
        // The one before is gone when the next one starts.
        self.opened = Err(StorageError::Closed);
        self.opened = (self.open)();
        match &self.opened {
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.clone()),
        }
    }

    fn close(&self) {
        self.storage().close().unwrap();
    }

    fn log(&self, index: i32) -> Arc<dyn Log> {
        self.storage().create(partition(index)).unwrap()
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The outcome of an operation.
    fn done(&self, ticket: Ticket) -> Result<(), StorageError> {
        self.wait(ticket).expect("the storage is open")
    }

    /// Appends batches of so many records each at the log's end and waits.
    fn fill(&self, log: &dyn Log, records: &[usize]) -> Vec<Bytes> {
        let first = Batch { base: log.extent().end, ..Batch::default() };
        let batches: Vec<_> = records
            .iter()
            .scan(first.base, |base, &records| {
                let batch = Batch { base: *base, records, ..first };
                *base += records as i64;
                Some(batch)
            })
            .collect();
        let tickets: Vec<_> = batches.iter().map(|batch| log.append(batch.append())).collect();
        for ticket in tickets {
            self.done(ticket).unwrap();
        }
        batches.iter().map(Batch::bytes).collect()
    }

    fn read(&self, log: &dyn Log, from: i64, before: i64, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        self.wait(log.read(from, before, max_bytes))
    }

    /// Everything that the log has.
    fn all(&self, log: &dyn Log) -> Vec<Bytes> {
        let Extent { mut start, end } = log.extent();
        let mut batches = Vec::new();
        while start < end {
            let read = self.read(log, start, end, 1 << 20).unwrap();
            start = BatchHeader::parse(read.last().expect("at least one batch")).unwrap().next_offset();
            batches.extend(read);
        }
        batches
    }
}

fn partition(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(7), index }
}

/// A batch to append. Its bytes follow from its fields.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Batch {
    base: i64,
    records: usize,
    leader_epoch: i32,
    /// Of the first record; each next one is 10 ms later.
    timestamp: i64,
    producer: Option<(i64, i16, i32)>,
    append_time: i64,
    durability: Durability,
    value: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            base: 0,
            records: 1,
            leader_epoch: 0,
            timestamp: 1_000,
            producer: None,
            append_time: 1_000,
            durability: Durability::Os,
            value: 100,
        }
    }
}

impl Batch {
    fn bytes(&self) -> Bytes {
        let mut builder = BatchBuilder::new();
        for i in 0..self.records as i64 {
            let value = vec![(self.base + i) as u8; self.value];
            builder.push(Some(b"key"), Some(&value), [], self.timestamp + i * 10).unwrap();
        }
        let producer = self.producer.map(|(id, epoch, first_sequence)| BatchProducer { id, epoch, first_sequence });
        let mut batch = builder.build(Compression::None, producer).unwrap().to_vec();
        set_base_offset(&mut batch, self.base);
        set_leader_epoch(&mut batch, self.leader_epoch);
        batch.into()
    }

    fn append(&self) -> Append {
        let batch = self.bytes();
        let header = BatchHeader::parse(&batch).unwrap();
        Append { batch, header, append_time: self.append_time, durability: self.durability }
    }
}

/// The contract as tests of the function's subject.
macro_rules! contract_tests {
    ($subject:path) => {
        $crate::storage::contract::contract_tests! { $subject:
            directory: a_partition_has_one_log, many_logs_are_made_at_once_in_the_order_asked_for,
                a_deleted_log_is_gone_for_good, metadata_survives,
                identity_tells_how_it_was_left, a_closed_storage_takes_no_writes;
            log: batches_come_back_byte_for_byte, r5_a_batch_that_is_not_at_the_end_changes_nothing,
                tickets_resolve_in_order, a_read_returns_whole_batches_within_its_bounds,
                e1_a_leader_epoch_begins_at_the_end_and_survives, p5_producers_survive,
                p7_idle_producers_are_forgotten_by_append_times;
            retention: r2_offsets_never_restart, q1_the_start_only_rises, truncation_removes_the_end,
                truncation_outside_changes_nothing, r2_a_log_that_begins_anew_is_empty_and_goes_on_there, spans_cover_the_log_in_order, p6_producers_outlive_their_batches;
            time: a_record_is_found_by_its_timestamp, the_newest_timestamp_is_found;
            replay: t6_state_is_that_of_a_replay;
        }
    };
    ($subject:path: $($part:ident: $($test:ident),+;)+) => {
        $($(#[test] fn $test() { $crate::storage::contract::$part::$test(&mut $subject()); })+)+
    };
}
pub(super) use contract_tests;
