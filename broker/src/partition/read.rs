//! Reads of a partition. They go by the published snapshot and the log, and never through the owner's task.

use bytes::Bytes;

use super::{FetchError, Isolation, Partition, Snapshot};
use crate::storage::leader_epochs::EpochEnd;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// First offset wanted; the answer begins with the batch that contains it.
    pub offset: i64,
    /// Bytes of batches to answer at most, but at least one batch.
    pub max_bytes: usize,
    /// Which records may be seen.
    pub isolation: Isolation,
    /// Leader epoch of the record that was read last, where known: the log is checked to have the same history (E7).
    pub last_epoch: Option<i32>,
    /// Checked against the partition's where the client gave one (E2).
    pub leader_epoch: Option<i32>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct ReadData {
    /// Whole batches in order; none when `offset` is at the end of what may be seen. Batches may hold records at or above
    /// that end only if a transaction is open in them.
    pub batches: Vec<Bytes>,
    /// The partition when it was read.
    pub snapshot: Snapshot,
}

/// Which offset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// First one that is still there.
    Earliest,
    /// Exclusive end of what may be seen.
    Latest,
    /// First record whose timestamp (milliseconds) is this or later.
    Timestamp(i64),
    /// The record with the newest timestamp.
    MaxTimestamp,
}

/// An offset that was looked up. All absent: no record matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Option<i64>,
    /// Timestamp of the record found, milliseconds; absent for earliest and latest.
    pub timestamp: Option<i64>,
    /// Leader epoch at that offset, where there is one.
    pub leader_epoch: Option<i32>,
}

impl Partition {
    /// Reads whole batches. Does not wait for data.
    pub async fn read(&self, _request: ReadRequest) -> Result<ReadData, FetchError> {
        todo!()
    }

    /// Looks an offset up.
    pub async fn list_offset(&self, _query: OffsetQuery, _isolation: Isolation) -> Result<ListedOffset, FetchError> {
        todo!()
    }

    /// Where the largest leader epoch that is not above `epoch` ends; `None` if all of the log's are above.
    pub fn end_of_epoch(&self, _epoch: i32) -> Result<Option<EpochEnd>, FetchError> {
        todo!()
    }
}
