//! The partitions that one follower follows on its stream.

use std::collections::{BTreeMap, VecDeque};

use taffrail_crds::slice::Replica;
use taffrail_proto::internal::v1::{FetchDivergence, FetchPosition, FetchedPart, PartitionRef};

use crate::partition::{FetchError, Isolation, Partition, ReadData, ReadRequest};
use crate::peers::wire;
use crate::service::MAX_RESPONSE_BYTES;
use crate::storage::PartitionId;

/// What a follower wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) next: i64,
    pub(super) last_epoch: Option<i32>,
    pub(super) max_bytes: usize,
}

/// A partition that is followed.
pub(super) struct Followed {
    pub(super) partition: Partition,
    pub(super) reference: PartitionRef,
    by: Replica,
    /// Not answered.
    pub(super) demand: Option<Demand>,
    pub(super) reading: bool,
    /// The follower's history is this log's.
    pub(super) matched: bool,
    /// What it says to have written.
    written: i64,
    /// High watermark and log start as it was told.
    told: Option<(i64, i64)>,
}

impl Followed {
    /// Its history was found to be this log's: what it has written counts (H1).
    pub(super) fn matches(&mut self) {
        if !std::mem::replace(&mut self.matched, true) {
            self.partition.fetched(self.by, self.written);
        }
    }

    /// The answer to its demand, with the ends.
    pub(super) fn answer(&mut self, part: FetchedPart) -> FetchedPart {
        let answers = self.demand.take().map(|demand| demand.next);
        FetchedPart { answers, ..self.ends(part) }
    }

    /// As [`answer`](Self::answer), with what was read for it.
    pub(super) fn data(&mut self, read: ReadData, restart: bool) -> FetchedPart {
        let ReadData { batches, snapshot } = read;
        let part = self.answer(FetchedPart { batches, restart, ..FetchedPart::default() });
        FetchedPart { log_end: snapshot.log_end, ..part }
    }

    fn ends(&mut self, part: FetchedPart) -> FetchedPart {
        let snapshot = self.partition.snapshot();
        let (high_watermark, log_start, log_end) = (snapshot.high_watermark, snapshot.log_start, snapshot.log_end);
        self.told = Some((high_watermark, log_start));
        FetchedPart { partition: Some(self.reference), high_watermark, log_start, log_end, ..part }
    }

    fn has_news(&self) -> bool {
        let snapshot = self.partition.snapshot();
        self.matched && self.told != Some((snapshot.high_watermark, snapshot.log_start))
    }
}

/// All of them, by tokens of the stream's.
#[derive(Default)]
pub(super) struct AllFollowed {
    last: u64,
    tokens: BTreeMap<PartitionId, u64>,
    followed: BTreeMap<u64, Followed>,
    /// Those that are worth a look.
    ready: VecDeque<u64>,
}

impl AllFollowed {
    /// Takes a position of a partition that is led here under the very epoch.
    pub(super) fn place(&mut self, partition: Partition, sent: PartitionRef, by: Replica, position: &FetchPosition) {
        let id = wire::partition_id(&sent);
        let known = self.tokens.get(&id).copied();
        let is_known = |followed: &Followed| followed.by == by && followed.partition.is_same(&partition);
        let token = match known.filter(|token| self.followed.get(token).is_some_and(is_known)) {
            Some(token) => token,
            None => self.add(id, partition, sent, by),
        };
        let Some(followed) = self.followed.get_mut(&token) else { return };
        // Nothing can be written that was not asked for.
        followed.written = position.written.clamp(0, position.next.max(0));
        if followed.matched {
            followed.partition.fetched(by, followed.written);
        }
        if position.max_bytes > 0 {
            let max_bytes = (position.max_bytes as usize).min(MAX_RESPONSE_BYTES);
            followed.demand = Some(Demand { next: position.next, last_epoch: position.last_epoch, max_bytes });
            self.wake(token);
        }
    }

    fn add(&mut self, id: PartitionId, partition: Partition, reference: PartitionRef, by: Replica) -> u64 {
        self.last += 1;
        let followed =
            Followed { partition, reference, by, demand: None, reading: false, matched: false, written: 0, told: None };
        self.followed.insert(self.last, followed);
        if let Some(before) = self.tokens.insert(id, self.last) {
            self.followed.remove(&before);
        }
        self.last
    }

    /// It is not followed any more, or not served.
    pub(super) fn forget(&mut self, sent: &PartitionRef) {
        if let Some(token) = self.tokens.remove(&wire::partition_id(sent)) {
            self.followed.remove(&token);
        }
    }

    pub(super) fn get(&mut self, token: u64) -> Option<&mut Followed> {
        self.followed.get_mut(&token)
    }

    /// It is worth a look, if there is a demand that is not being looked at.
    pub(super) fn wake(&mut self, token: u64) {
        if self.followed.get(&token).is_some_and(|followed| followed.demand.is_some() && !followed.reading) {
            self.ready.push_back(token);
        }
    }

    pub(super) fn next_ready(&mut self) -> Option<u64> {
        while let Some(token) = self.ready.pop_front() {
            // It may stand here twice.
            if self.followed.get(&token).is_some_and(|followed| followed.demand.is_some() && !followed.reading) {
                return Some(token);
            }
        }
        None
    }

    /// The ends of those where they have moved.
    pub(super) fn news(&mut self) -> impl Iterator<Item = FetchedPart> {
        let moved = self.followed.values_mut().filter(|followed| followed.has_news());
        moved.map(|followed| followed.ends(FetchedPart::default()))
    }
}

/// What there is for a demand.
pub(super) enum Found {
    /// Batches from there on: none at the log's end.
    Batches(ReadData),
    /// That is deleted: batches from the log's start on.
    Restart(ReadData),
    /// The histories part.
    Parted(FetchDivergence),
    Failed(FetchError),
}

/// Reads for a demand. `matched`: the follower's history was found to be this log's before.
pub(super) async fn find(
    partition: &Partition,
    leader_epoch: i32,
    demand: Demand,
    matched: bool,
    max_bytes: usize,
) -> Found {
    let request = ReadRequest {
        offset: demand.next,
        max_bytes,
        isolation: Isolation::LogEnd,
        last_epoch: demand.last_epoch,
        leader_epoch: Some(leader_epoch),
    };
    match partition.read(request).await {
        Ok(read) if !matched && is_forgotten(partition, demand).await => {
            from_start(partition, request, read.snapshot.log_start).await
        }
        Ok(read) => Found::Batches(read),
        Err(FetchError::Truncated { at, epoch, .. }) => Found::Parted(FetchDivergence { epoch, end: at }),
        Err(FetchError::OutOfRange { offset, start, .. }) if offset < start => {
            from_start(partition, request, start).await
        }
        Err(FetchError::OutOfRange { end, .. }) => Found::Parted(FetchDivergence { epoch: None, end }),
        Err(error) => Found::Failed(error),
    }
}

async fn from_start(partition: &Partition, request: ReadRequest, start: i64) -> Found {
    let request = ReadRequest { offset: start, last_epoch: None, ..request };
    partition.read(request).await.map_or_else(Found::Failed, Found::Restart)
}

/// Nothing is known any more of the epoch that the follower's last record has: it and all before it are deleted here. It may be
/// one that never was in this log, and until the follower has deleted it too, it could be elected with it, or serve it. Asked
/// after the read: what is known then was known there.
async fn is_forgotten(partition: &Partition, demand: Demand) -> bool {
    match demand.last_epoch {
        Some(last_epoch) => !matches!(partition.end_of_epoch(last_epoch).await, Ok(Some(_))),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::tests::bench;

    #[tokio::test]
    async fn t1_a_history_that_is_deleted_here_is_not_taken_for_this_logs() {
        let mut bench = bench().await;
        bench.append(7).await;
        bench.reopen(true).await;
        bench.append(3).await;
        bench.partition.delete_records(10).await.unwrap();
        // A deposed leader of epoch 0 may have other records from 7 on than were committed there.
        let cases = [(Some(0), false, true), (Some(1), false, false), (None, false, false), (Some(0), true, false)];
        for (last_epoch, matched, anew) in cases {
            let demand = Demand { next: 10, last_epoch, max_bytes: 1 << 20 };
            let found = find(&bench.partition, 1, demand, matched, 1 << 20).await;
            match found {
                Found::Restart(read) => assert!(anew && read.batches.is_empty(), "{last_epoch:?}, {matched}"),
                Found::Batches(read) => assert!(!anew && read.batches.is_empty(), "{last_epoch:?}, {matched}"),
                Found::Parted(_) | Found::Failed(_) => panic!("{last_epoch:?}, {matched}"),
            }
        }
        bench.append(2).await;
        let demand = Demand { next: 10, last_epoch: Some(0), max_bytes: 1 << 20 };
        let found = find(&bench.partition, 1, demand, false, 1 << 20).await;
        assert!(matches!(found, Found::Restart(read) if read.batches.len() == 1));
    }
}
