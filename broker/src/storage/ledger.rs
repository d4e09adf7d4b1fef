//! Ledger records: operations that are no appends, in the open storage epoch. They matter until the epoch is sealed: then
//! the footers hold what came of them. A start replays those of the epoch that was open at a crash
//! ([`replay`](super::replay)).
//!
//! # Format
//!
//! Version `u8` = 1, kind `u8`, then varints ([`codec`](super::codec)):
//!
//! | kind | | fields |
//! |---|---|---|
//! | 1 | truncate | log, end before, snapshot (whose end is the new one) |
//! | 2 | trim | log, end, new start |
//! | 3 | begin epoch | log, end, leader epoch ± |
//! | 4 | checkpoint | log, snapshot |
//! | 5 | clock | append time ±, count, (log, end) … |
//!
//! A truncation whose snapshot is empty (start = end) leaves nothing: so a log is also restarted, at an offset that may lie
//! above the end before.
//!
//! Snapshot: start, end, append time ±, leader epochs as in footers, producers as [`Producers`] encodes.

use super::LogId;
use super::codec::{put_i64, put_u64, take_i64, take_u8, take_u32, take_u64};
use super::footer::{put_epochs, take_epochs};
use super::producers::Producers;

const VERSION: u8 = 1;

/// The whole state of a log, without its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Newest append time, milliseconds; `i64::MIN` if the log never had a batch.
    pub(crate) append_time: i64,
    pub(crate) epochs: Vec<(i32, i64)>,
    pub(crate) producers: Producers,
}

/// A ledger record. Each tells the log's end at its time, so that a replay can put it between the right batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ledger {
    /// Batches at and above the snapshot's end are gone; all, if it is empty.
    Truncate { log: LogId, end: i64, after: Snapshot },
    /// The log begins at `start`.
    Trim { log: LogId, end: i64, start: i64 },
    /// A leader epoch begins at the log's end.
    BeginEpoch { log: LogId, end: i64, epoch: i32 },
    /// The log's whole state, so that storage epochs which hold older state can go.
    Checkpoint { log: LogId, state: Snapshot },
    /// Batches from here to the next record of this kind have this append time, or up to a second more. `ends` are the ends,
    /// here, of the logs that got batches since the record of this kind before.
    Clock { append_time: i64, ends: Vec<(LogId, i64)> },
}

impl Ledger {
    /// The bytes on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut head = |kind: u8, log: &LogId| {
            out.push(kind);
            put_u64(&mut out, u64::from(log.0));
        };
        match self {
            Self::Truncate { log, end, after } => {
                head(1, log);
                put_i64(&mut out, *end);
                after.encode(&mut out);
            }
            Self::Trim { log, end, start } => {
                head(2, log);
                put_i64(&mut out, *end);
                put_i64(&mut out, *start);
            }
            Self::BeginEpoch { log, end, epoch } => {
                head(3, log);
                put_i64(&mut out, *end);
                put_i64(&mut out, i64::from(*epoch));
            }
            Self::Checkpoint { log, state } => {
                head(4, log);
                state.encode(&mut out);
            }
            Self::Clock { append_time, ends } => {
                out.push(5);
                put_i64(&mut out, *append_time);
                put_u64(&mut out, ends.len() as u64);
                for (log, end) in ends {
                    put_u64(&mut out, u64::from(log.0));
                    put_i64(&mut out, *end);
                }
            }
        }
        out
    }

    /// `None` if malformed or of another version.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if take_u8(bytes)? != VERSION {
            return None;
        }
        let log = |bytes: &mut &[u8]| take_u32(bytes).filter(|&id| id > 0).map(LogId);
        let record = match take_u8(bytes)? {
            1 => Self::Truncate { log: log(bytes)?, end: take_i64(bytes)?, after: Snapshot::decode(bytes)? },
            2 => Self::Trim { log: log(bytes)?, end: take_i64(bytes)?, start: take_i64(bytes)? },
            3 => Self::BeginEpoch {
                log: log(bytes)?,
                end: take_i64(bytes)?,
                epoch: i32::try_from(take_i64(bytes)?).ok()?,
            },
            4 => Self::Checkpoint { log: log(bytes)?, state: Snapshot::decode(bytes)? },
            5 => {
                let (append_time, count) = (take_i64(bytes)?, take_u64(bytes)?);
                let mut ends = vec![];
                for _ in 0..count {
                    ends.push((log(bytes)?, take_i64(bytes)?));
                }
                Self::Clock { append_time, ends }
            }
            _ => return None,
        };
        bytes.is_empty().then_some(record)
    }
}

impl Snapshot {
    /// No offset is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.start);
        put_i64(out, self.end);
        put_i64(out, self.append_time);
        put_epochs(out, i64::MIN, &self.epochs);
        self.producers.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (start, end, append_time) = (take_i64(bytes)?, take_i64(bytes)?, take_i64(bytes)?);
        let (_, epochs) = take_epochs(bytes)?;
        Some(Self { start, end, append_time, epochs, producers: Producers::decode(bytes)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_snapshot()(ends in any::<(i64, i64, i64)>(), epoch in any::<Option<(i32, i64)>>()) -> Snapshot {
            let (start, end, append_time) = ends;
            Snapshot { start, end, append_time, epochs: epoch.into_iter().collect(), producers: Producers::new() }
        }
    }

    fn any_record() -> impl Strategy<Value = Ledger> {
        let log = || (1..=u32::MAX).prop_map(LogId);
        prop_oneof![
            (log(), any::<i64>(), any_snapshot()).prop_map(|(log, end, after)| Ledger::Truncate { log, end, after }),
            (log(), any::<i64>(), any::<i64>()).prop_map(|(log, end, start)| Ledger::Trim { log, end, start }),
            (log(), any::<i64>(), any::<i32>()).prop_map(|(log, end, epoch)| Ledger::BeginEpoch { log, end, epoch }),
            (log(), any_snapshot()).prop_map(|(log, state)| Ledger::Checkpoint { log, state }),
            (any::<i64>(), prop::collection::vec((log(), any::<i64>()), 0..3))
                .prop_map(|(append_time, ends)| Ledger::Clock { append_time, ends }),
        ]
    }

    proptest! {
        #[test]
        fn records_come_back(record in any_record()) {
            prop_assert_eq!(Ledger::decode(&record.encode()), Some(record));
        }

        #[test]
        fn hostile_records_do_no_harm(noise in any::<Vec<u8>>(), kind in 0u8..7) {
            let _ = Ledger::decode(&[&[VERSION, kind], noise.as_slice()].concat());
        }

        #[test]
        fn cut_records_are_refused(record in any_record(), at in any::<prop::sample::Index>()) {
            let bytes = record.encode();
            prop_assert_eq!(Ledger::decode(&bytes[..at.index(bytes.len())]), None);
        }
    }
}
