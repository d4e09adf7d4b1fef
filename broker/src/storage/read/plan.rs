//! Which batches a read wants, and under which keys they lie.

use std::sync::atomic::Ordering;

use super::Range;
use super::footers::footer;
use crate::storage::footer::BatchRef;
use crate::storage::index::Entry;
use crate::storage::keys::DataKey;
use crate::storage::log::LogCell;
use crate::storage::shared::Shared;
use crate::storage::{LogId, ReadError, StorageError};

/// Parts of a log that one plan looks at.
const SEGMENTS: usize = 256;

/// A batch and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) epoch: u32,
    pub(super) log: LogId,
    pub(super) base: i64,
    /// Offset of its last record.
    pub(super) last: i64,
    pub(super) bytes: u32,
    pub(super) max_timestamp: i64,
}

impl Located {
    pub(super) fn key(&self) -> DataKey {
        DataKey::Batch { epoch: self.epoch, log: self.log, base: self.base }
    }
}

/// A part of a log.
#[derive(Debug)]
pub(super) enum Segment {
    /// Its footer lists the batches.
    Sealed(Entry),
    /// In the open epoch.
    Open { epoch: u32, batches: Vec<BatchRef>, end: i64 },
}

/// The parts of a log that hold offsets from `from` to below `before`, in order: as many as make up `max_bytes`, and the
/// first.
pub(super) fn segments(shared: &Shared, cell: &LogCell, range: Range) -> Vec<Segment> {
    let inner = cell.lock();
    let state = &inner.state;
    let mut found = vec![];
    let (mut bytes, wanted) = (0u64, range.max_bytes as u64);
    for entry in state.index().from(range.from).take_while(|entry| entry.first < range.before) {
        // The first is cut in front by an unknown part: it does not count.
        if !found.is_empty() && (bytes >= wanted || found.len() >= SEGMENTS) {
            return found;
        }
        bytes += if found.is_empty() { 0 } else { u64::from(entry.bytes) };
        found.push(Segment::Sealed(*entry));
    }
    let open = &state.open().batches;
    let first = open.partition_point(|batch| batch.base <= range.from).saturating_sub(1);
    let mut until = first;
    while open.get(until).is_some_and(|batch| batch.base < range.before && (bytes < wanted || until == first)) {
        bytes += u64::from(open[until].bytes);
        until += 1;
    }
    if until > first {
        let end = open.get(until).map_or_else(|| state.end(), |batch| batch.base);
        // While the cell holds open batches, the writer has not left their epoch.
        let epoch = shared.open_epoch.load(Ordering::Acquire);
        found.push(Segment::Open { epoch, batches: open[first..until].to_vec(), end });
    }
    found
}

/// The batches of a part that hold offsets from `from` to below `before`; `None` if it is not there any more.
pub(super) fn locate(
    shared: &Shared,
    log: LogId,
    segment: &Segment,
    offsets: &std::ops::Range<i64>,
) -> Result<Option<Vec<Located>>, ReadError> {
    match segment {
        Segment::Open { epoch, batches, end } => Ok(Some(within(*epoch, log, batches, *end, offsets))),
        Segment::Sealed(entry) => {
            let found = footer(shared, entry.container, log).map_err(|fault| match fault {
                damage @ StorageError::Damaged { .. } => {
                    ReadError::Corrupt { first: entry.first, last: entry.last, what: damage.to_string() }
                }
                fault => fault.into(),
            })?;
            let Some(footer) = found else { return Ok(None) };
            let Some(piece) = footer.piece(entry.origin) else { return Ok(None) };
            let end = entry.last + 1;
            let kept = piece.batches.partition_point(|batch| batch.base < end);
            Ok(Some(within(entry.container, log, &piece.batches[..kept], end, offsets)))
        }
    }
}

fn within(epoch: u32, log: LogId, batches: &[BatchRef], end: i64, offsets: &std::ops::Range<i64>) -> Vec<Located> {
    let first = batches.partition_point(|batch| batch.base <= offsets.start).saturating_sub(1);
    let until = batches.partition_point(|batch| batch.base < offsets.end);
    let last = |at: usize| batches.get(at + 1).map_or(end, |next| next.base) - 1;
    let located = |at: usize| {
        let BatchRef { base, bytes, max_timestamp } = batches[at];
        Located { epoch, log, base, last: last(at), bytes, max_timestamp }
    };
    (first..until).map(located).filter(|found| found.last >= offsets.start).collect()
}

/// The batches of a read; `None` if the log changed under it. Blocks for footers.
pub(super) fn plan(shared: &Shared, cell: &LogCell, range: Range) -> Result<Option<Vec<Located>>, ReadError> {
    let (mut found, mut bytes) = (vec![], 0usize);
    for segment in segments(shared, cell, range) {
        let located = match locate(shared, cell.id, &segment, &(range.from..range.before)) {
            Ok(Some(located)) => located,
            // What is before the fault can be read.
            Ok(None) | Err(_) if !found.is_empty() => break,
            Ok(None) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        for batch in located {
            bytes = bytes.saturating_add(batch.bytes as usize);
            if bytes > range.max_bytes && !found.is_empty() {
                return Ok(Some(found));
            }
            found.push(batch);
        }
    }
    Ok((!found.is_empty()).then_some(found))
}
