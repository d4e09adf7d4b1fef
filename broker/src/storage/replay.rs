//! Replays the storage epoch that was open when the process died: batch headers and ledger records, merged into the order in
//! which they took effect. Pure but for the iterator it is fed from.
//!
//! Keys tell the order of batches and that of ledger records, not which came between which. But each record tells the log's
//! end at its time, and what later truncations removed is not there: of the batches that are there, exactly those below
//! `min(end at the record, ends of this and all later truncations)` came before it. (Those that came after it lie at or
//! above the log's end then, or at or above the end of a truncation that came between.)

use std::collections::BTreeMap;

use taffrail_proto::record::BatchHeader;

use super::LogId;
use super::ledger::Ledger;
use super::state::LogState;

/// What is left of an unsealed epoch.
#[derive(Debug, Default)]
pub(crate) struct Unsealed {
    /// By log, in offset order: header and bytes.
    batches: BTreeMap<LogId, Vec<(BatchHeader, u32)>>,
    /// By log, in the order of their writing.
    ledger: BTreeMap<LogId, Vec<Ledger>>,
    clock: Option<i64>,
}

impl Unsealed {
    /// Adds a ledger record; they come in their order.
    pub(crate) fn add_record(&mut self, record: Ledger) {
        let log = match &record {
            Ledger::Truncate { log, .. }
            | Ledger::Trim { log, .. }
            | Ledger::BeginEpoch { log, .. }
            | Ledger::Checkpoint { log, .. } => *log,
            Ledger::Clock { append_time } => {
                self.clock = self.clock.max(Some(*append_time));
                return;
            }
        };
        self.ledger.entry(log).or_default().push(record);
    }

    /// Adds a batch; those of a log come in offset order.
    pub(crate) fn add_batch(&mut self, log: LogId, header: BatchHeader, bytes: u32) {
        self.batches.entry(log).or_default().push((header, bytes));
    }

    /// Logs that have something in it.
    pub(crate) fn logs(&self) -> Vec<LogId> {
        let mut logs: Vec<_> = self.batches.keys().chain(self.ledger.keys()).copied().collect();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    /// Brings a log from its state before the epoch to its last one. False if a batch does not follow the one before.
    pub(crate) fn replay(&mut self, log: LogId, state: &mut LogState) -> bool {
        // Append times of single batches are lost: the newest that the epoch knows stands for all. Retention keeps them for
        // at most an epoch's age longer.
        let append_time = self.clock.unwrap_or(i64::MIN);
        let records = self.ledger.remove(&log).unwrap_or_default();
        let mut batches = self.batches.remove(&log).unwrap_or_default().into_iter().peekable();
        let mut follows = true;
        let mut append = |state: &mut LogState, (header, bytes): (BatchHeader, u32)| {
            follows &= header.base_offset == state.end();
            state.append(&header, bytes, append_time);
        };
        for (record, bound) in records.iter().zip(bounds(&records)) {
            while let Some(batch) = batches.next_if(|(header, _)| header.base_offset < bound) {
                append(state, batch);
            }
            apply(state, record);
        }
        batches.for_each(|batch| append(state, batch));
        follows
    }
}

fn apply(state: &mut LogState, record: &Ledger) {
    match record {
        Ledger::Truncate { after, .. } => state.truncate(after),
        Ledger::Trim { start, .. } => state.trim(*start),
        Ledger::BeginEpoch { epoch, .. } => state.begin_epoch(*epoch),
        Ledger::Checkpoint { state: snapshot, .. } => state.checkpoint(snapshot),
        Ledger::Clock { .. } => {}
    }
}

/// For each record: batches below this came before it.
fn bounds(records: &[Ledger]) -> Vec<i64> {
    let mut lowest = i64::MAX;
    let bound = |record: &Ledger| {
        let end = match record {
            Ledger::Truncate { end, after, .. } => {
                lowest = lowest.min(after.end);
                *end
            }
            Ledger::Trim { end, .. } | Ledger::BeginEpoch { end, .. } => *end,
            Ledger::Checkpoint { state, .. } => state.end,
            Ledger::Clock { .. } => i64::MAX,
        };
        end.min(lowest)
    };
    let mut bounds: Vec<_> = records.iter().rev().map(bound).collect();
    bounds.reverse();
    bounds
}
