//! What is asked of a partition and what it answers. Reads go by the published snapshot and the log, and never through the
//! owner's task.

use bytes::Bytes;

use super::{Isolation, Snapshot};
use crate::storage::leader_epochs::LeaderEpochs;

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

/// Where the history of a reader that has read up to `offset`, the last record under `last_epoch`, parts from the log's, and
/// the epoch that the log has in front of that; `None` where it does not (E7, KIP-320).
pub(crate) fn divergence(
    epochs: &LeaderEpochs,
    snapshot: &Snapshot,
    offset: i64,
    last_epoch: i32,
) -> Option<(i64, Option<i32>)> {
    let Some(end) = epochs.end_of(last_epoch, snapshot.log_end) else {
        // Records of that epoch are gone by retention, or never were here: at the log's start nothing contradicts it.
        let first = epochs.entries().first().map_or(snapshot.log_start, |&(_, start)| start);
        return (offset > first).then_some((first, None));
    };
    let parted = end.epoch < last_epoch || end.end < offset;
    let at = end.end.clamp(snapshot.log_start, snapshot.log_end).min(offset);
    parted.then_some((at.max(snapshot.log_start), Some(end.epoch)))
}

#[cfg(test)]
mod tests;
