//! Reads of a partition. They go by the published snapshot and the log, and never through the owner's task.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::state::check_epoch;
use super::{FetchError, Isolation, Partition, Snapshot};
use crate::storage::leader_epochs::{EpochEnd, LeaderEpochs};

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
    pub async fn read(&self, request: ReadRequest) -> Result<ReadData, FetchError> {
        let snapshot = self.served(request.leader_epoch)?;
        let log = &self.shared.log;
        if let Some(last_epoch) = request.last_epoch {
            let parted = divergence(&log.leader_epochs(), &snapshot, request.offset, last_epoch);
            if let Some((at, epoch)) = parted {
                return Err(FetchError::Truncated { at, epoch, start: snapshot.log_start });
            }
        }
        let (start, end) = (snapshot.log_start, snapshot.log_end);
        if request.offset < start || request.offset > end {
            return Err(FetchError::OutOfRange { offset: request.offset, start, end });
        }
        let before = snapshot.visible_end(request.isolation);
        let batches = if request.offset < before {
            log.read(request.offset, before, request.max_bytes).await?
        } else {
            Vec::new()
        };
        let largest = batches.iter().map(Bytes::len).max().unwrap_or(0);
        // Loads are shared among cores, stores are not: this one is rare.
        if largest > self.largest_read_batch() {
            self.shared.largest_read_batch.fetch_max(largest, Ordering::Relaxed);
        }
        Ok(ReadData { batches, snapshot })
    }

    /// Bytes of the largest batch that was read here since the start: what a read may hold, however little is asked for.
    pub fn largest_read_batch(&self) -> usize {
        self.shared.largest_read_batch.load(Ordering::Relaxed)
    }

    /// Looks an offset up.
    pub async fn list_offset(&self, query: OffsetQuery, isolation: Isolation) -> Result<ListedOffset, FetchError> {
        let (snapshot, log) = (self.served(None)?, &self.shared.log);
        let before = snapshot.visible_end(isolation);
        let hit = match query {
            OffsetQuery::Earliest => return Ok(self.end_offset(snapshot.log_start)),
            OffsetQuery::Latest => return Ok(self.end_offset(before)),
            OffsetQuery::Timestamp(timestamp) => log.find_timestamp(timestamp, before).await?,
            OffsetQuery::MaxTimestamp => log.max_timestamp(before).await?,
        };
        Ok(hit.map_or_else(ListedOffset::default, |hit| ListedOffset {
            timestamp: Some(hit.timestamp),
            ..self.end_offset(hit.offset)
        }))
    }

    fn end_offset(&self, offset: i64) -> ListedOffset {
        let leader_epoch = self.shared.log.leader_epochs().at(offset);
        ListedOffset { offset: Some(offset), timestamp: None, leader_epoch }
    }

    /// Where the largest leader epoch that is not above `epoch` ends; `None` if all of the log's are above.
    pub fn end_of_epoch(&self, epoch: i32) -> Result<Option<EpochEnd>, FetchError> {
        let snapshot = self.served(None)?;
        Ok(self.shared.log.leader_epochs().end_of(epoch, snapshot.log_end))
    }

    fn served(&self, leader_epoch: Option<i32>) -> Result<Snapshot, FetchError> {
        let snapshot = self.snapshot();
        if snapshot.closed {
            return Err(FetchError::Closed);
        }
        if let Some(given) = leader_epoch {
            check_epoch(given, snapshot.leader_epoch)?;
        }
        Ok(snapshot)
    }
}

/// Where the history of a reader that has read up to `offset`, the last record under `last_epoch`, parts from the log's, and
/// the epoch that the log has in front of that; `None` where it does not (E7, KIP-320).
fn divergence(epochs: &LeaderEpochs, snapshot: &Snapshot, offset: i64, last_epoch: i32) -> Option<(i64, Option<i32>)> {
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
