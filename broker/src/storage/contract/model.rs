//! A log as a list of what happened: state is what a replay of the list gives.

use proptest::prelude::*;

use super::*;
use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::producers::{Check, Producers, Sequenced};

/// An operation on a log or on its storage.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Appends a batch: records, whether the leader epoch rises, producer, milliseconds since the batch before.
    Append {
        records: usize,
        new_epoch: bool,
        producer: Option<i64>,
        after: i64,
    },
    BeginEpoch,
    /// To the beginning of one of the batches, by its position among them.
    Truncate(prop::sample::Index),
    /// To one of the offsets.
    Trim(prop::sample::Index),
    /// At one of the offsets, or a little above them.
    Restart(prop::sample::Index),
    Reopen,
    Maintain,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<(i32, Step)>> {
    // Nothing expires here: a start knows append times to the second only, and a truncation less.
    let append = (1usize..4, prop::bool::weighted(0.1), prop::option::of(1i64..4), 0..1000i64)
        .prop_map(|(records, new_epoch, producer, after)| Step::Append { records, new_epoch, producer, after });
    let step = prop_oneof![
        20 => append,
        1 => Just(Step::BeginEpoch),
        2 => any::<prop::sample::Index>().prop_map(Step::Truncate),
        2 => any::<prop::sample::Index>().prop_map(Step::Trim),
        1 => any::<prop::sample::Index>().prop_map(Step::Restart),
        1 => Just(Step::Reopen),
        1 => Just(Step::Maintain),
    ];
    prop::collection::vec((0i32..2, step), 1..60)
}

/// What a log must be told.
type Asked = Box<dyn FnOnce(&dyn Log) -> Ticket>;

/// What a log should be.
#[derive(Default)]
pub(super) struct Model {
    batches: Vec<Batch>,
    pub(super) extent: Extent,
    pub(super) epochs: LeaderEpochs,
    pub(super) truncated: bool,
    time: i64,
    epoch: i32,
}

impl Model {
    /// State of the producers by a replay of all batches, those below the start included.
    pub(super) fn producers(&self) -> Producers {
        let mut producers = Producers::new();
        for batch in &self.batches {
            if let Some(sequenced) = Sequenced::of(&batch.append().header) {
                producers.record(&sequenced, batch.append_time);
            }
        }
        producers
    }

    /// The batches that hold records of the log.
    pub(super) fn stored(&self) -> Vec<Bytes> {
        let there = |batch: &&Batch| batch.base + batch.records as i64 > self.extent.start;
        self.batches.iter().filter(there).map(Batch::bytes).collect()
    }

    /// Does the step here and returns what the log must be told.
    pub(super) fn step(&mut self, step: &Step) -> Option<Asked> {
        match step {
            Step::Append { records, new_epoch, producer, after } => {
                self.epoch = self.epoch.max(self.epochs.latest().unwrap_or(0)) + i32::from(*new_epoch);
                self.time += after;
                let batch = self.next_batch(*records, *producer);
                self.epochs.assign(batch.leader_epoch, batch.base);
                self.extent.end += *records as i64;
                self.batches.push(batch);
                Some(Box::new(move |log| log.append(batch.append())))
            }
            Step::BeginEpoch => {
                let epoch = self.epochs.latest().unwrap_or(0) + 1;
                self.epochs.assign(epoch, self.extent.end);
                Some(Box::new(move |log| log.begin_epoch(epoch)))
            }
            Step::Truncate(index) => {
                let first = self.batches.partition_point(|batch| batch.base < self.extent.start);
                let bounds: Vec<i64> =
                    self.batches[first..].iter().map(|batch| batch.base).chain([self.extent.end]).collect();
                let end = *index.get(&bounds);
                self.truncated |= end < self.extent.end;
                self.batches.retain(|batch| batch.base < end);
                self.extent.end = end;
                self.epochs.truncate(end);
                Some(Box::new(move |log| log.truncate(end)))
            }
            Step::Trim(index) => {
                let start = self.extent.start + index.index((self.extent.end - self.extent.start + 1) as usize) as i64;
                self.extent.start = start;
                self.epochs.trim(start);
                Some(Box::new(move |log| log.trim(start)))
            }
            Step::Restart(index) => {
                let at = self.extent.start + index.index((self.extent.end - self.extent.start + 9) as usize) as i64;
                self.batches.clear();
                self.extent = Extent { start: at, end: at };
                self.epochs.truncate(at);
                self.epochs.trim(at);
                Some(Box::new(move |log| log.restart(at)))
            }
            Step::Reopen | Step::Maintain => None,
        }
    }

    fn next_batch(&self, records: usize, producer: Option<i64>) -> Batch {
        let base = self.extent.end;
        let batch = |sequence| Batch {
            base,
            records,
            leader_epoch: self.epoch,
            producer: producer.map(|id| (id, 0, sequence)),
            append_time: self.time,
            timestamp: base * 10,
            value: 2_000,
            ..Batch::default()
        };
        // The sequence that comes next, or 0 of a producer that is not known.
        let next = (0..200).find(|&sequence| {
            let found = Sequenced::of(&batch(sequence).append().header);
            let check = found.map(|found| self.producers().check(&found));
            check.is_none_or(|check| check == Ok(Check::Append))
        });
        batch(next.unwrap_or(0))
    }
}
