//! The storage engine: logs of record batches, by offset. It knows partitions and offsets, not replicas, topics' names or RPC.
//!
//! # What an implementation promises
//!
//! - **Order.** Operations on one log ([`Log::append`], [`Log::truncate`], [`Log::trim`], [`Log::restart`],
//!   [`Log::begin_epoch`]) take effect in the order in which they were called, and their tickets resolve in that order.
//! - **Acknowledged means kept.** A resolved ticket at [`Durability::Os`] survives the death of the process, at
//!   [`Durability::Disk`] a power failure (rules D1, D2, D4).
//! - **Atomic.** After a crash each operation is there whole or not at all; an append that was never acknowledged may be
//!   there. Appends of a log survive as a prefix of their order.
//! - **Offsets never restart** and records never change (R2): not after all records expired, not after a restart. An append
//!   whose base offset is not the log's end is refused and changes nothing (R5).
//! - **State follows the log** (P5, T6): leader epochs and producer state are those of a replay of the batches.
//! - **No silent loss.** Bytes that fail their checksum are an error for the offsets concerned, never skipped (D5, D6).
//! - **A failed write ends writing**: every later write is refused with the first failure's reason; reads go on.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use taffrail_proto::record::BatchHeader;
use tokio::sync::oneshot;
use uuid::Uuid;

mod codec;
#[cfg(test)]
mod contract;
mod disk;
pub mod engine;
mod epochs;
mod error;
mod find;
pub(crate) mod footer;
mod front;
pub(crate) mod index;
pub mod inspect;
pub(crate) mod keys;
pub mod leader_epochs;
pub(crate) mod ledger;
mod lock;
pub(crate) mod log;
mod maintenance;
pub mod memory;
pub(crate) mod meta;
pub(crate) mod options;
mod pace;
pub mod producers;
mod read;
mod recent;
mod recovery;
mod replay;
mod rewrite;
pub(crate) mod shared;
mod state;
mod timestamps;
mod truncation;
pub mod wal;
mod writer;

pub use engine::Engine;
pub use error::{ReadError, StorageError};
pub use keys::FORMAT as FORMAT_VERSION;
use leader_epochs::LeaderEpochs;
pub use options::EngineOptions;
use producers::Producers;

/// Number of a log in one data directory, from 1; stands for a [`PartitionId`] and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u32);

/// What a log holds: a partition of a topic, by the topic's identity and not by its name, so that a topic made again under
/// an old name never sees old records (M10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic's id.
    pub topic: Uuid,
    /// Number of the partition, from 0.
    pub index: i32,
}

/// How far a write has got when its ticket resolves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// In the kernel's page cache.
    #[default]
    Os,
    /// On the device (fdatasync, one for many appends).
    Disk,
}

/// A batch to append. The caller has validated it and set its base offset and leader epoch.
#[derive(Clone, Debug)]
pub struct Append {
    /// The whole batch; not a slice of a much larger buffer, for it is kept in memory for a while.
    pub batch: Bytes,
    /// Its header, parsed.
    pub header: BatchHeader,
    /// Log time of the append in milliseconds (see `clock`): what time retention goes by. Never a client's time.
    pub append_time: i64,
    /// When the ticket may resolve.
    pub durability: Durability,
}

/// Resolves when an operation has taken effect, or did not. A dropped sender means that the storage was closed: the outcome
/// is unknown.
pub type Ticket = oneshot::Receiver<Result<(), StorageError>>;

/// Ends of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// First offset that is still there.
    pub start: i64,
    /// Next offset to be written (LEO). Covers only appends whose tickets have resolved or are about to.
    pub end: i64,
}

/// Part of a log within one stretch of the write order, the unit in which retention gives up records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first record.
    pub first: i64,
    /// Offset of the last record.
    pub last: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Newest append time among its batches (log time, milliseconds).
    pub max_append_time: i64,
    /// Newest record timestamp among its batches (producers' time, milliseconds).
    pub max_timestamp: i64,
}

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampHit {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, milliseconds.
    pub timestamp: i64,
}

/// One partition's log.
pub trait Log: Send + Sync + 'static {
    /// Its number in the data directory.
    fn id(&self) -> LogId;
    /// What it holds.
    fn partition(&self) -> PartitionId;
    /// Its ends; cheap, never blocks.
    fn extent(&self) -> Extent;
    /// Bytes of the batches that are stored.
    fn size_bytes(&self) -> u64;
    /// Its sealed parts in offset order; what was written last may be missing.
    fn spans(&self) -> Vec<Span>;
    /// Leader epochs and where they begin.
    fn leader_epochs(&self) -> Arc<LeaderEpochs>;
    /// State of the idempotent producers as of the log's end.
    fn producers(&self) -> Producers;

    /// Appends a batch at the log's end.
    fn append(&self, append: Append) -> Ticket;
    /// Records durably that `epoch` begins at the log's end, before its first batch is appended (E1). Higher than all before.
    fn begin_epoch(&self, epoch: i32) -> Ticket;
    /// Removes all batches from `end` on; `end` is the first offset of a batch or the log's end. Later appends begin there.
    fn truncate(&self, end: i64) -> Ticket;
    /// Raises the log's start to `start`, at most its end (Q1). Batches wholly below are gone.
    fn trim(&self, start: i64) -> Ticket;
    /// Gives up all records: the log is empty, begins and ends at `at`, which is not below its start. So a follower begins anew
    /// whose next records its leader has deleted. Nothing is known of producers afterwards; the newest leader epoch stays.
    fn restart(&self, at: i64) -> Ticket;

    /// Whole batches in order, from the one that contains `from`, together at most `max_bytes` but at least one, none that
    /// begins at or after `before`. Empty when `from` is at the log's end. Recent batches come from memory.
    fn read(&self, from: i64, before: i64, max_bytes: usize) -> BoxFuture<'static, Result<Vec<Bytes>, ReadError>>;
    /// The first record at or after the log's start whose timestamp is `timestamp` or later and whose offset is below
    /// `before`.
    fn find_timestamp(
        &self,
        timestamp: i64,
        before: i64,
    ) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>>;
    /// The record with the newest timestamp among those below `before`.
    fn max_timestamp(&self, before: i64) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>>;
}

/// All logs of a data directory, and its small synchronous metadata.
pub trait Storage: Send + Sync + 'static {
    /// All logs, whatever their topics' state.
    fn logs(&self) -> Vec<Arc<dyn Log>>;
    /// The logs of partitions, in their order; those that are not there are made now, all or none, in one write. Durable when
    /// it returns; blocks.
    fn create_all(&self, partitions: &[PartitionId]) -> Result<Vec<Arc<dyn Log>>, StorageError>;
    /// The log of one partition, in the same way.
    fn create(&self, partition: PartitionId) -> Result<Arc<dyn Log>, StorageError> {
        Ok(self.create_all(&[partition])?.remove(0))
    }
    /// Deletes a log for good; its number is not used again. Durable when it returns; blocks.
    fn delete(&self, log: LogId) -> Result<(), StorageError>;
    /// The metadata that is kept beside the logs.
    fn meta(&self) -> Arc<dyn MetaStore>;
    /// Who this data directory is and how it was left.
    fn identity(&self) -> Identity;
    /// Notes, durably, that leader epochs have risen since [`Identity::complete`] was false; blocks. Until then each later
    /// start says false too, however it was left: what a crash between keeps from being done is still to be done (D7).
    fn mark_complete(&self) -> Result<(), StorageError>;
    /// Disk and failure state.
    fn status(&self) -> Status;
    /// Whether records are taken, and in time: nothing has failed, there is room, and the disk is not far too slow. Cheap.
    fn takes_appends(&self) -> bool;
    /// Gives back space that no live record needs and seals what has been open for long: one round; blocks, for seconds.
    fn maintain(&self, log_time: i64) -> Result<Maintenance, StorageError>;
    /// Writes everything out, leaves the clean-shutdown mark and refuses further writes; blocks.
    fn close(&self) -> Result<(), StorageError>;
}

/// Does what blocks where blocking is allowed. One that panics has closed the storage, as far as its caller goes.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(StorageError::Closed))
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Keys and values that are durable (synced) when a write returns. Nothing in it needs to be atomic with the logs.
pub trait MetaStore: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;
    /// All keys that begin with `prefix`, in order, with their values.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError>;
    /// Sets (`Some`) and deletes (`None`) keys, all or none.
    fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StorageError>;
}

/// Who a data directory is and how the broker before left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random, made with the directory (L6).
    pub storage: Uuid,
    /// Number of this start, from 1.
    pub incarnation: u64,
    /// The broker before closed it properly.
    pub clean: bool,
    /// All acknowledged appends are known to be there: closed properly, or the process died on a kernel that stayed up
    /// (same boot id) and the write-ahead log has no hole. Otherwise leader epochs must rise (D7), and
    /// [`Storage::mark_complete`] is told.
    pub complete: bool,
}

/// State of the storage as a whole.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Why no write is taken any more; reads go on.
    pub failed: Option<String>,
    /// The disk is full up to its reserve: appends are refused until space is freed.
    pub disk_full: bool,
    /// Bytes that the data directory takes.
    pub used_bytes: u64,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Storage epochs that are there.
    pub epochs: u64,
    /// Bytes of batches that are live.
    pub live_bytes: u64,
}

/// What a round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Storage epochs dropped.
    pub dropped: u64,
    /// Storage epochs written anew without their dead batches.
    pub rewritten: u64,
    /// Bytes that the rewriting wrote.
    pub rewritten_bytes: u64,
}
