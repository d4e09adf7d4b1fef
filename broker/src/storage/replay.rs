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
    events: BTreeMap<LogId, Vec<Event>>,
    /// The newest append time that was marked.
    clock: Option<i64>,
}

/// Something between the batches of a log.
#[derive(Debug)]
enum Event {
    Record(Ledger),
    /// Batches up to here, from the mark before on, have this append time.
    Clock {
        end: i64,
        append_time: i64,
    },
}

impl Unsealed {
    /// Adds a ledger record; they come in their order.
    pub(crate) fn add_record(&mut self, record: Ledger) {
        let log = match &record {
            Ledger::Truncate { log, .. }
            | Ledger::Trim { log, .. }
            | Ledger::BeginEpoch { log, .. }
            | Ledger::Checkpoint { log, .. } => *log,
            Ledger::Clock { append_time, ends } => {
                let before = self.clock.unwrap_or(*append_time);
                for &(log, end) in ends {
                    self.events.entry(log).or_default().push(Event::Clock { end, append_time: before });
                }
                self.clock = Some(*append_time);
                return;
            }
        };
        self.events.entry(log).or_default().push(Event::Record(record));
    }

    /// Adds a batch; those of a log come in offset order.
    pub(crate) fn add_batch(&mut self, log: LogId, header: BatchHeader, bytes: u32) {
        self.batches.entry(log).or_default().push((header, bytes));
    }

    /// Logs that have something in it.
    pub(crate) fn logs(&self) -> Vec<LogId> {
        let mut logs: Vec<_> = self.batches.keys().chain(self.events.keys()).copied().collect();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    /// Brings a log from its state before the epoch to its last one. False if a batch does not follow the one before.
    ///
    /// Before a checkpoint there may be a gap: the checkpoint was written so that earlier epochs, of which nothing lived any
    /// more, could be dropped, and it tells the whole state.
    pub(crate) fn replay(&mut self, log: LogId, state: &mut LogState) -> bool {
        let events = self.events.remove(&log).unwrap_or_default();
        let mut batches = self.batches.remove(&log).unwrap_or_default().into_iter().peekable();
        let newest = self.clock.unwrap_or(i64::MIN);
        let is_checkpoint = |event: &Event| matches!(event, Event::Record(Ledger::Checkpoint { .. }));
        let told = events.iter().rposition(is_checkpoint).map_or(0, |last| last + 1);
        let mut follows = true;
        let mut append = |state: &mut LogState, (header, bytes): (BatchHeader, u32), append_time, may_skip: bool| {
            let (base, end) = (header.base_offset, state.end());
            follows &= base == end || (may_skip && base > end);
            state.append(&header, bytes, append_time);
        };
        for (at, (event, bound)) in events.iter().zip(bounds(&events, newest)).enumerate() {
            while let Some(batch) = batches.next_if(|(header, _)| header.base_offset < bound.end) {
                append(state, batch, bound.append_time, at < told);
            }
            apply(state, event);
        }
        batches.for_each(|batch| append(state, batch, newest, false));
        follows
    }
}

fn apply(state: &mut LogState, event: &Event) {
    match event {
        Event::Record(Ledger::Truncate { after, .. }) => state.truncate(after),
        Event::Record(Ledger::Trim { start, .. }) => state.trim(*start),
        Event::Record(Ledger::BeginEpoch { epoch, .. }) => state.begin_epoch(*epoch),
        Event::Record(Ledger::Checkpoint { state: snapshot, .. }) => state.checkpoint(snapshot),
        Event::Record(Ledger::Clock { .. }) | Event::Clock { .. } => {}
    }
}

/// Which batches came before an event, and when those came that did not come before an earlier one.
struct Bound {
    end: i64,
    append_time: i64,
}

fn bounds(events: &[Event], newest: i64) -> Vec<Bound> {
    let (mut lowest, mut time) = (i64::MAX, newest);
    let bound = |event: &Event| {
        let end = match event {
            Event::Record(Ledger::Truncate { end, after, .. }) => {
                lowest = lowest.min(after.end);
                *end
            }
            Event::Record(Ledger::Trim { end, .. } | Ledger::BeginEpoch { end, .. }) => *end,
            Event::Record(Ledger::Checkpoint { state, .. }) => state.end,
            Event::Record(Ledger::Clock { .. }) => i64::MAX,
            Event::Clock { end, append_time } => {
                time = *append_time;
                *end
            }
        };
        Bound { end: end.min(lowest), append_time: time }
    };
    let mut bounds: Vec<_> = events.iter().rev().map(bound).collect();
    bounds.reverse();
    bounds
}
