//! Leader epochs of a log and where each begins: the log's history, by which readers and followers find out where theirs
//! parts from it (KIP-101, KIP-279, KIP-320). Pure.

/// Leader epochs in rising order, each with the offset at which it begins. Epochs that hold no record are kept while they
/// are the newest; one that is followed by another at the same offset never held one and is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    starts: Vec<(i32, i64)>,
}

/// End of an epoch in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch of the log that is not above the one asked for.
    pub epoch: i32,
    /// Exclusive end of its records.
    pub end: i64,
}

impl LeaderEpochs {
    /// No epochs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The newest epoch.
    pub fn latest(&self) -> Option<i32> {
        self.starts.last().map(|&(epoch, _)| epoch)
    }

    /// Epochs and their first offsets, oldest first.
    pub fn entries(&self) -> &[(i32, i64)] {
        &self.starts
    }

    /// Notes that `epoch` begins at `start`. An epoch that is not above the newest changes nothing, so that a replay of
    /// batches may call it for each of them.
    pub fn assign(&mut self, epoch: i32, start: i64) {
        if self.latest().is_some_and(|latest| epoch <= latest) {
            return;
        }
        while self.starts.last().is_some_and(|&(_, s)| s >= start) {
            self.starts.pop();
        }
        self.starts.push((epoch, start));
    }

    /// Whether a batch of `epoch` at `base`, the log's end, is of an older epoch than the newest, which has no record yet.
    pub fn is_older(&self, epoch: i32, base: i64) -> bool {
        self.starts.last().is_some_and(|&(latest, start)| epoch < latest && start >= base)
    }

    /// Notes a batch from `base` to below `next`, at the log's end. A log may hold a newer epoch than its next batch: one
    /// that was led here, and of whose records none was kept. It then begins behind the batch, for fencing only: history is
    /// what the records say.
    pub fn appended(&mut self, epoch: i32, base: i64, next: i64) {
        let newest = if self.is_older(epoch, base) { self.starts.pop() } else { None };
        self.assign(epoch, base);
        if let Some((newest, _)) = newest {
            self.assign(newest, next);
        }
    }

    /// Forgets what lies at or above `end`, the log's new end. The newest epoch is remembered even if none of its records
    /// is left, for fencing must never go back (E5); it then begins at `end`.
    pub fn truncate(&mut self, end: i64) {
        let latest = self.latest();
        while self.starts.last().is_some_and(|&(_, start)| start >= end) {
            self.starts.pop();
        }
        if let Some(latest) = latest {
            self.assign(latest, end);
        }
    }

    /// Forgets epochs that end at or below `start`, the log's new start; the one that holds `start` begins there.
    pub fn trim(&mut self, start: i64) {
        let keep = self.starts.partition_point(|&(_, s)| s <= start).saturating_sub(1);
        self.starts.drain(..keep);
        if let Some(first) = self.starts.first_mut() {
            first.1 = first.1.max(start);
        }
    }

    /// Epoch under which the record at `offset` was appended.
    pub fn at(&self, offset: i64) -> Option<i32> {
        let after = self.starts.partition_point(|&(_, start)| start <= offset);
        after.checked_sub(1).map(|i| self.starts[i].0)
    }

    /// Where the largest epoch not above `epoch` ends in a log that ends at `log_end`; `None` if all epochs are above.
    pub fn end_of(&self, epoch: i32, log_end: i64) -> Option<EpochEnd> {
        let after = self.starts.partition_point(|&(e, _)| e <= epoch);
        let found = after.checked_sub(1)?;
        let end = self.starts.get(after).map_or(log_end, |&(_, start)| start);
        Some(EpochEnd { epoch: self.starts[found].0, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn history(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::new();
        for &(epoch, start) in entries {
            epochs.assign(epoch, start);
        }
        epochs
    }

    #[test]
    fn end_of_an_epoch_is_the_start_of_the_next_one_in_the_log() {
        let epochs = history(&[(1, 0), (3, 10), (7, 25)]);
        let ends = [0, 1, 2, 3, 6, 7, 9].map(|e| epochs.end_of(e, 40).map(|end| (end.epoch, end.end)));
        assert_eq!(
            ends,
            [None, Some((1, 10)), Some((1, 10)), Some((3, 25)), Some((3, 25)), Some((7, 40)), Some((7, 40))]
        );
    }

    #[test]
    fn an_epoch_without_records_is_forgotten_once_another_begins_at_its_offset() {
        assert_eq!(history(&[(1, 0), (2, 5), (3, 5)]).entries(), [(1, 0), (3, 5)]);
    }

    #[test]
    fn e5_truncation_keeps_the_newest_epoch_for_fencing() {
        let mut epochs = history(&[(1, 0), (2, 5), (4, 9)]);
        epochs.truncate(6);
        assert_eq!(epochs.entries(), [(1, 0), (2, 5), (4, 6)]);
        epochs.truncate(0);
        assert_eq!(epochs.entries(), [(4, 0)]);
    }

    #[test]
    fn t1_a_newer_epoch_without_records_does_not_hide_those_of_older_batches() {
        let mut epochs = history(&[(1, 0), (2, 5), (4, 9)]);
        epochs.truncate(6);
        epochs.appended(2, 6, 8);
        assert_eq!(epochs.entries(), [(1, 0), (2, 5), (4, 8)]);
        epochs.appended(3, 8, 12);
        assert_eq!(epochs.entries(), [(1, 0), (2, 5), (3, 8), (4, 12)]);
        epochs.appended(4, 12, 13);
        epochs.appended(4, 13, 14);
        epochs.appended(6, 14, 15);
        assert_eq!(epochs.entries(), [(1, 0), (2, 5), (3, 8), (4, 12), (6, 14)]);
    }

    #[test]
    fn trimming_keeps_the_epoch_of_the_first_record_left() {
        let mut epochs = history(&[(1, 0), (2, 5), (4, 9)]);
        epochs.trim(7);
        assert_eq!(epochs.entries(), [(2, 7), (4, 9)]);
        epochs.trim(100);
        assert_eq!(epochs.entries(), [(4, 100)]);
    }

    proptest! {
        #[test]
        fn each_offset_has_the_epoch_of_its_batch(steps in prop::collection::vec((1i32..3, 1i64..5), 1..30)) {
            let (mut epochs, mut epoch, mut end, mut of) = (LeaderEpochs::new(), 0, 0i64, vec![]);
            for (rise, records) in steps {
                epoch += rise - 1;
                epochs.assign(epoch, end);
                of.extend(std::iter::repeat_n(epoch, records as usize));
                end += records;
            }
            for (offset, epoch) in of.iter().enumerate() {
                prop_assert_eq!(epochs.at(offset as i64), Some(*epoch));
                prop_assert!(epochs.end_of(*epoch, end).is_some_and(|e| e.epoch == *epoch && e.end > offset as i64));
            }
        }
    }
}
