//! What is decided about a partition's appends: offsets, epochs, sequences, and whether enough replicas are in sync. No task,
//! no clock, no log: the owner feeds it what happens. Where the partition is replicated, [`Leader`] says where the high
//! watermark stands.
//!
//! Producer state is kept ahead of storage by what is in flight, so that a retry of a batch that is still being written is
//! known for one. When an append fails, everything behind it fails too (the log takes no batch off its end), and the state
//! goes back to what the log holds.

use std::time::Duration;

use taffrail_crds::slice::Replica;
use taffrail_proto::record::BatchHeader;

use super::{Acks, AppendError, EpochError, Snapshot};
use crate::replication::{Leader, Proposal, View};
use crate::storage::Extent;
use crate::storage::producers::{Check, Producers, Sequenced};

/// What to do with a batch that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Append it at this offset.
    Append {
        /// Its base offset.
        base_offset: i64,
    },
    /// It was appended before.
    Duplicate {
        /// Where, if that is still known.
        base_offset: Option<i64>,
        /// The original is in the log when the log's end is at or above this (P2).
        end: i64,
    },
}

/// State of a partition on its leader.
#[derive(Debug)]
pub(super) struct State {
    leader_epoch: i32,
    log_start: i64,
    /// Base offset of the next batch: the end of what is written and in flight.
    next: i64,
    /// End of what is written here at the topic's durability.
    log_end: i64,
    /// Where it is replicated. Else all that is written is committed.
    replication: Option<Box<Leader>>,
    producers: Producers,
}

impl State {
    /// Of a log that nothing is in flight to.
    pub(super) fn new(
        extent: Extent,
        leader_epoch: i32,
        producers: Producers,
        replication: Option<Box<Leader>>,
    ) -> Self {
        let (log_start, end) = (extent.start, extent.end);
        Self { leader_epoch, log_start, next: end, log_end: end, replication, producers }
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    pub(super) fn log_start(&self) -> i64 {
        self.log_start
    }

    pub(super) fn log_end(&self) -> i64 {
        self.log_end
    }

    pub(super) fn high_watermark(&self) -> i64 {
        self.replication.as_ref().map_or(self.log_end, |leader| leader.high_watermark())
    }

    /// How many replicas have what is below the high watermark.
    pub(super) fn in_sync(&self) -> i32 {
        self.replication.as_ref().map_or(1, |leader| leader.in_sync())
    }

    /// The in-sync replicas that are asked for.
    pub(super) fn proposal(&self) -> Option<&Proposal> {
        self.replication.as_ref()?.proposal()
    }

    /// Whether others are to follow it: then time matters.
    pub(super) fn has_followers(&self) -> bool {
        self.replication.as_ref().is_some_and(|leader| leader.view().replicas.len() > 1)
    }

    /// A follower's log is written up to here (H1).
    pub(super) fn fetched(&mut self, by: Replica, written: i64, now: Duration) {
        if let Some(leader) = &mut self.replication {
            leader.fetched(by, written, now);
        }
    }

    /// The slice shows another state.
    pub(super) fn adopt(&mut self, view: View, now: Duration) {
        if let Some(leader) = &mut self.replication {
            leader.adopt(view, now);
        }
    }

    pub(super) fn tick(&mut self, now: Duration) {
        if let Some(leader) = &mut self.replication {
            leader.tick(now);
        }
    }

    /// Whether and where to append a batch. Changes nothing: [`placed`](Self::placed) does, once the batch is on its way.
    pub(super) fn decide(
        &self,
        batch: &BatchHeader,
        acks: Acks,
        leader_epoch: Option<i32>,
    ) -> Result<Decision, AppendError> {
        if let Some(given) = leader_epoch {
            check_epoch(given, self.leader_epoch)?;
        }
        if let Some(sequenced) = Sequenced::of(batch) {
            let check = self.producers.check(&sequenced);
            match check.map_err(|error| AppendError::Sequence { error, log_start: self.log_start })? {
                Check::Append => {}
                Check::Duplicate { base_offset, end } => return Ok(Decision::Duplicate { base_offset, end }),
            }
        }
        // Behind the duplicates: of one that is there already it would not be true that nothing was appended (L1).
        if let (Acks::All, Some(leader)) = (acks, &self.replication)
            && leader.is_short()
        {
            let (in_sync, min) = (leader.in_sync(), leader.view().min_in_sync_replicas);
            return Err(AppendError::NotEnoughReplicas { in_sync, min });
        }
        let end = self.next.checked_add(i64::from(batch.last_offset_delta) + 1);
        end.map(|_| Decision::Append { base_offset: self.next }).ok_or(AppendError::OffsetsExhausted)
    }

    /// Takes note of a batch that was handed to the log, as it will be stored.
    pub(super) fn placed(&mut self, batch: &BatchHeader, append_time: i64) {
        debug_assert_eq!(batch.base_offset, self.next, "batches are placed where it was decided");
        if let Some(sequenced) = Sequenced::of(batch) {
            self.producers.record(&sequenced, append_time);
        }
        self.producers.expire(append_time);
        self.next = batch.next_offset();
    }

    /// The log holds everything up to `end` now.
    pub(super) fn written(&mut self, end: i64, now: Duration) {
        self.log_end = self.log_end.max(end);
        if let Some(leader) = &mut self.replication {
            leader.written(self.log_end, now);
        }
    }

    /// The log begins at `start` now (Q1).
    pub(super) fn trimmed(&mut self, start: i64) {
        self.log_start = self.log_start.max(start);
    }

    /// Forgets what was in flight: the log holds `end` and `producers`, and nothing is in flight any more.
    pub(super) fn roll_back(&mut self, end: i64, producers: Producers, now: Duration) {
        self.written(end, now);
        self.next = self.log_end;
        self.producers = producers;
    }

    /// What readers may know.
    pub(super) fn snapshot(&self, closed: bool) -> Snapshot {
        Snapshot {
            log_start: self.log_start,
            high_watermark: self.high_watermark(),
            last_stable: self.high_watermark(),
            log_end: self.log_end,
            leader_epoch: self.leader_epoch,
            closed,
        }
    }
}

/// Compares a leader epoch that a client gave with the partition's (E2).
pub(super) fn check_epoch(given: i32, current: i32) -> Result<(), EpochError> {
    match given.cmp(&current) {
        std::cmp::Ordering::Less => Err(EpochError::Fenced { given, current }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(EpochError::Unknown { given, current }),
    }
}

#[cfg(test)]
mod tests;
