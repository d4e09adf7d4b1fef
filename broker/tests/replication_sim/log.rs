//! A replica's log on a disk that loses what a crash may lose: writes under way with the process, what is not synced with
//! the power. What is left is what an unbroken beginning of all writes made.

use bytes::Bytes;
use taffrail_broker::storage::leader_epochs::LeaderEpochs;
use taffrail_proto::record::BatchHeader;

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) epoch: i32,
    /// Who made it, and the first sequence number: this names the batch.
    pub(crate) value: (i64, i32),
    pub(crate) bytes: Bytes,
}

impl Batch {
    pub(crate) fn of(bytes: Bytes, header: &BatchHeader) -> Self {
        let producer = header.producer().expect("every batch here has a producer");
        let (base, next, epoch) = (header.base_offset, header.next_offset(), header.leader_epoch);
        Self { base, next, epoch, value: (producer.id, producer.first_sequence), bytes }
    }
}

/// A change of a log.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Append(Batch),
    Truncate(i64),
    Restart(i64),
    Trim(i64),
    Epoch(i32),
}

/// What a log holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) batches: Vec<Batch>,
    pub(crate) epochs: LeaderEpochs,
}

impl Contents {
    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(batch) => {
                assert_eq!(batch.base, self.end, "R5: a batch is not the log's next");
                self.epochs.appended(batch.epoch, batch.base, batch.next);
                self.end = batch.next;
                self.batches.push(batch.clone());
            }
            Operation::Truncate(to) => {
                let kept = self.batches.partition_point(|batch| batch.next <= *to);
                self.batches.truncate(kept);
                self.end = self.batches.last().map_or(self.start, |batch| batch.next);
                self.epochs.truncate(self.end);
            }
            Operation::Restart(at) => {
                self.batches.clear();
                (self.start, self.end) = (*at, *at);
                self.epochs.truncate(*at);
                self.epochs.trim(*at);
            }
            Operation::Trim(start) => {
                let gone = self.batches.partition_point(|batch| batch.next <= *start);
                self.batches.drain(..gone);
                self.start = self.start.max(*start);
                self.epochs.trim(self.start);
            }
            Operation::Epoch(epoch) => self.epochs.assign(*epoch, self.end),
        }
    }

    /// The batch that contains this offset.
    pub(crate) fn at(&self, offset: i64) -> Option<&Batch> {
        let place = self.batches.partition_point(|batch| batch.next <= offset);
        self.batches.get(place).filter(|batch| batch.base <= offset)
    }

    /// Leader epoch of the last record, −1 for none.
    pub(crate) fn last_epoch(&self) -> i32 {
        self.batches.last().map_or(-1, |batch| batch.epoch)
    }
}

/// The log, and how much of it is written and synced.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplicaLog {
    synced: Contents,
    /// With the log's end after each.
    since: Vec<(Operation, i64)>,
    /// Of `since`, so many are written.
    written: usize,
    /// With all operations.
    pub(crate) all: Contents,
    /// End of what is written.
    pub(crate) written_end: i64,
    /// Up to here it has been compared with what is committed.
    pub(crate) compared: i64,
}

impl ReplicaLog {
    pub(crate) fn submit(&mut self, operation: Operation) {
        self.all.apply(&operation);
        self.compared = self.compared.min(self.all.end);
        self.since.push((operation, self.all.end));
    }

    /// Operations that are under way.
    pub(crate) fn pending(&self) -> usize {
        self.since.len() - self.written
    }

    /// The oldest operation under way is written.
    pub(crate) fn write(&mut self) {
        self.written_end = self.since[self.written].1;
        self.written += 1;
    }

    pub(crate) fn sync(&mut self) {
        for (operation, _) in self.since.drain(..self.written) {
            self.synced.apply(&operation);
        }
        self.written = 0;
    }

    /// How many operations survive at least: all that are written, or only those that are synced.
    pub(crate) fn survivors(&self, power_is_lost: bool) -> (usize, usize) {
        (if power_is_lost { 0 } else { self.written }, self.since.len())
    }

    /// Comes back with so many of its operations since the last sync. Whether something that was written is gone.
    pub(crate) fn crash(&mut self, kept: usize) -> bool {
        let lost = kept < self.written;
        self.since.truncate(kept);
        self.all = self.synced.clone();
        for (operation, _) in &self.since {
            self.all.apply(operation);
        }
        self.written = self.since.len();
        self.written_end = self.all.end;
        // With what was written a truncation may be gone: then other batches are back.
        self.compared = if lost { 0 } else { self.compared.min(self.all.end) };
        lost
    }
}
