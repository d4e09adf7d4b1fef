//! What was committed, acknowledged, refused and declared lost, and the checks of it.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Batch, ReplicaLog};

/// Of one partition.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// What has been below a high watermark, by base offset.
    committed: BTreeMap<i64, Batch>,
    by_value: BTreeMap<(i64, i32), i64>,
    /// Acknowledged to producers: value to base offset.
    acknowledged: BTreeMap<(i64, i32), i64>,
    acknowledged_end: i64,
    /// Refused for sure.
    failed: BTreeSet<(i64, i32)>,
    /// Committed, and given up when somebody was elected without proof.
    lost: BTreeSet<(i64, i32)>,
    /// Highest log start of any leader.
    start: i64,
}

impl History {
    /// End of what is committed.
    pub(crate) fn end(&self) -> i64 {
        self.committed.last_key_value().map_or(0, |(_, batch)| batch.next)
    }

    /// Where a committed batch is.
    pub(crate) fn place_of(&self, value: (i64, i32)) -> Option<(i64, i64)> {
        let batch = self.committed.get(self.by_value.get(&value)?)?;
        Some((batch.base, batch.next))
    }

    /// A producer was told that a batch is stored here.
    pub(crate) fn acknowledge(&mut self, value: (i64, i32), base: i64) {
        assert!(!self.failed.contains(&value), "definite failure of {value:?}, which is acknowledged at {base}");
        match self.committed.get(&base) {
            Some(batch) if batch.value == value => self.acknowledged_end = self.acknowledged_end.max(batch.next),
            // An answer may be under way while its batch is declared lost, and others are written to its place.
            there => assert!(
                self.lost.contains(&value) || there.is_none() && base < self.start,
                "lost-write: {value:?} is acknowledged at {base}, where {there:?} is committed (A1)"
            ),
        }
        self.acknowledged.insert(value, base);
    }

    /// End of what was acknowledged and is not declared lost.
    pub(crate) fn acknowledged_end(&self) -> i64 {
        self.acknowledged_end
    }

    /// A producer was told that a batch is not stored.
    pub(crate) fn fail(&mut self, value: (i64, i32)) {
        assert!(!self.by_value.contains_key(&value), "definite failure of {value:?}, which is committed");
        self.failed.insert(value);
    }

    /// A replica says that all below `to` is committed, and has it.
    pub(crate) fn commit(&mut self, log: &mut ReplicaLog, to: i64, by: &str) {
        let from = log.compared;
        if to <= from {
            return;
        }
        let first = log.all.batches.partition_point(|batch| batch.next <= from);
        for batch in log.all.batches[first..].iter().take_while(|batch| batch.base < to) {
            self.commit_one(batch, by);
        }
        log.compared = to;
    }

    fn commit_one(&mut self, batch: &Batch, by: &str) {
        if let Some(known) = self.committed.get(&batch.base) {
            assert_eq!(known, batch, "inconsistent-offsets: {by} has another batch at {}", batch.base);
            return;
        }
        // Below what is committed, or below the start of logs, nothing new can come to be.
        assert!(
            batch.base >= self.end(),
            "inconsistent-offsets: {by} has {batch:?} where other batches are committed, up to {}",
            self.end()
        );
        if let Some(base) = self.by_value.insert(batch.value, batch.base) {
            panic!("duplicate: {:?} is at {base} and, by {by}, at {}", batch.value, batch.base);
        }
        assert!(!self.failed.contains(&batch.value), "definite failure of {:?}, which {by} commits", batch.value);
        let (producer, sequence) = batch.value;
        let before = self.by_value.range((producer, 0)..(producer, sequence)).next_back();
        assert!(before.is_none_or(|(_, base)| *base < batch.base), "order: {:?} by {by}", batch.value);
        let after = self.by_value.range((producer, sequence + 1)..=(producer, i32::MAX)).next();
        assert!(after.is_none(), "order: {:?} comes late, by {by}", batch.value);
        self.committed.insert(batch.base, batch.clone());
    }

    /// Whether a replica that is said to have everything committed has: its last batch is looked at.
    pub(crate) fn is_complete(&self, log: &ReplicaLog) -> bool {
        let Some((base, last)) = self.committed.last_key_value() else { return true };
        if log.written_end < last.next {
            return false;
        }
        log.all.at(*base).map_or(log.all.start >= last.next, |batch| batch == last)
    }

    /// Somebody leads who was elected without proof: what it does not have is lost, and said to be.
    pub(crate) fn recover(&mut self, log: &ReplicaLog) -> u64 {
        let kept = |(base, batch): &(&i64, &Batch)| log.all.at(**base) == Some(*batch);
        let known = self.committed.range(log.all.start..);
        let gone: Vec<_> = known.filter(|it| !kept(it)).map(|(base, batch)| (*base, batch.value)).collect();
        for (base, value) in &gone {
            self.committed.remove(base);
            self.by_value.remove(value);
            self.lost.insert(*value);
        }
        self.acknowledged_end = self.acknowledged_end.min(self.end());
        gone.iter().filter(|(_, value)| self.acknowledged.contains_key(value)).count() as u64
    }

    /// A leader has raised the log's start.
    pub(crate) fn trim(&mut self, start: i64) {
        self.start = self.start.max(start);
    }

    /// At the end: a replica of the healed cluster has what was acknowledged, and only what is committed.
    pub(crate) fn check_final(&self, log: &ReplicaLog, by: &str) {
        for (value, base) in &self.acknowledged {
            let is_gone = self.lost.contains(value) || *base < log.all.start;
            let found = log.all.at(*base);
            assert!(
                is_gone || found.is_some_and(|batch| batch.value == *value),
                "lost-write: {value:?}, acknowledged at {base}, is not in the log of {by}"
            );
        }
        for batch in log.all.batches.iter().filter(|batch| batch.next <= log.written_end) {
            assert_eq!(self.committed.get(&batch.base), Some(batch), "inconsistent-offsets: at the end, by {by}");
        }
    }
}
