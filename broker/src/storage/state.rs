//! State of one log as a pure machine: the writer drives it live, a start drives it by footers ([`LogState::apply`]) and, for the
//! epoch that was open at a crash, by ledger records and batch headers ([`replay`](super::replay)). All three ways lead to the
//! same state (C3, P5, T6).

use std::sync::Arc;

use taffrail_proto::record::BatchHeader;

use super::footer::{BatchRef, Piece, SpanSummary};
use super::index::{Entry, SpanIndex};
use super::leader_epochs::LeaderEpochs;
use super::ledger::Snapshot;
use super::producers::{Producers, Sequenced};

/// What the open storage epoch holds of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OpenPart {
    /// Its batches in offset order.
    pub(crate) batches: Vec<BatchRef>,
    /// Bytes of them.
    pub(crate) bytes: u64,
    max_append_time: i64,
    last: i64,
    touched: bool,
    full: bool,
    truncated_to: Option<i64>,
    epochs_from: i64,
    /// Of these batches, or of those since the newest snapshot.
    producers: Producers,
}

impl Default for OpenPart {
    fn default() -> Self {
        Self {
            batches: vec![],
            bytes: 0,
            max_append_time: i64::MIN,
            last: -1,
            touched: false,
            full: false,
            truncated_to: None,
            epochs_from: i64::MAX,
            producers: Producers::new(),
        }
    }
}

/// A log: its ends, its history, where its records lie.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogState {
    start: i64,
    end: i64,
    append_time: i64,
    epochs: Arc<LeaderEpochs>,
    /// As of the beginning of the open epoch, or of the newest snapshot in it.
    producers: Producers,
    index: SpanIndex,
    open: OpenPart,
    full_origin: Option<u32>,
}

impl LogState {
    /// A log that never had a batch.
    pub(crate) fn new() -> Self {
        Self {
            start: 0,
            end: 0,
            append_time: i64::MIN,
            epochs: Arc::default(),
            producers: Producers::new(),
            index: SpanIndex::default(),
            open: OpenPart::default(),
            full_origin: None,
        }
    }

    /// First offset.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// Next offset.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Newest append time; `i64::MIN` if it never had a batch.
    pub(crate) fn append_time(&self) -> i64 {
        self.append_time
    }

    /// Leader epochs.
    pub(crate) fn epochs(&self) -> &Arc<LeaderEpochs> {
        &self.epochs
    }

    /// Producers as of the log's end.
    pub(crate) fn producers(&self) -> Producers {
        let mut producers = self.producers.clone();
        producers.extend(&self.open.producers);
        producers.expire(self.append_time);
        producers
    }

    /// The sealed parts.
    pub(crate) fn index(&self) -> &SpanIndex {
        &self.index
    }

    /// For maintenance: rewritten and dropped epochs.
    pub(crate) fn index_mut(&mut self) -> &mut SpanIndex {
        &mut self.index
    }

    /// The part in the open epoch.
    pub(crate) fn open(&self) -> &OpenPart {
        &self.open
    }

    /// The state is that of the pieces from this origin on; `u32::MAX` if the open epoch has all of it.
    pub(crate) fn needed_from(&self) -> u32 {
        if self.open.full { u32::MAX } else { self.full_origin.unwrap_or(0) }
    }

    /// Bytes that are stored of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.index.bytes(self.start) + self.open.bytes
    }

    /// Adds a batch at the end.
    pub(crate) fn append(&mut self, header: &BatchHeader, bytes: u32, append_time: i64) {
        let open = &mut self.open;
        open.touched = true;
        open.batches.push(BatchRef { base: header.base_offset, bytes, max_timestamp: header.max_timestamp });
        open.bytes += u64::from(bytes);
        open.max_append_time = open.max_append_time.max(append_time);
        open.last = header.last_offset();
        if let Some(sequenced) = Sequenced::of(header) {
            open.producers.record(&sequenced, append_time);
        }
        self.append_time = self.append_time.max(append_time);
        self.end = header.last_offset() + 1;
        self.note_epoch(header);
    }

    /// A leader epoch begins at the end.
    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        self.open.touched = true;
        self.assign(epoch, self.end);
    }

    /// Raises the start.
    pub(crate) fn trim(&mut self, start: i64) {
        self.open.touched = true;
        self.start = self.start.max(start);
        Arc::make_mut(&mut self.epochs).trim(self.start);
    }

    /// The whole state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            start: self.start,
            end: self.end,
            append_time: self.append_time,
            epochs: self.epochs.entries().to_vec(),
            producers: self.producers(),
        }
    }

    /// The whole state as it will be after a truncation to `end`, when `producers` is known for it.
    pub(crate) fn snapshot_truncated(&self, end: i64, producers: Producers) -> Snapshot {
        let mut epochs = LeaderEpochs::clone(&self.epochs);
        epochs.truncate(end);
        Snapshot { start: self.start, end, append_time: self.append_time, epochs: epochs.entries().to_vec(), producers }
    }

    /// The whole state as it will be when the log begins anew at `at`. Of producers nothing is known: what they sent up to
    /// there is not here.
    pub(crate) fn snapshot_restarted(&self, at: i64) -> Snapshot {
        let mut epochs = LeaderEpochs::clone(&self.epochs);
        epochs.truncate(at);
        epochs.trim(at);
        let (append_time, epochs) = (self.append_time, epochs.entries().to_vec());
        Snapshot { start: at, end: at, append_time, epochs, producers: Producers::new() }
    }

    /// Takes over a checkpoint: nothing changes but that the footer will hold the whole state.
    pub(crate) fn checkpoint(&mut self, state: &Snapshot) {
        self.open.touched = true;
        self.open.full = true;
        self.open.producers = Producers::new();
        self.producers = state.producers.clone();
        self.epochs = Arc::new(epochs_of(&state.epochs));
        self.start = self.start.max(state.start);
        self.end = state.end;
        self.append_time = self.append_time.max(state.append_time);
        // The piece that told of a truncation may be gone.
        self.index.truncate(state.end);
    }

    /// Removes all batches at and above the snapshot's end, all if it is empty, and takes it over.
    pub(crate) fn truncate(&mut self, after: &Snapshot) {
        let (open, end) = (&mut self.open, after.end);
        let keep = if after.is_empty() { 0 } else { open.batches.partition_point(|batch| batch.base < end) };
        open.batches.truncate(keep);
        open.bytes = open.batches.iter().map(|batch| u64::from(batch.bytes)).sum();
        // Times of single batches are not known: that of the log is not too old for what is left.
        (open.last, open.max_append_time) = match open.batches.last() {
            Some(_) => (open.last.min(end - 1), after.append_time),
            None => (-1, i64::MIN),
        };
        open.truncated_to = Some(open.truncated_to.map_or(end, |to| to.min(end)));
        self.index.truncate(end);
        self.checkpoint(after);
    }

    /// The piece that the open epoch, whose number is `origin`, will have of this log. `None` if it has nothing.
    pub(crate) fn piece(&self, origin: u32) -> Option<Piece> {
        let open = &self.open;
        if !open.touched {
            return None;
        }
        // Without an earlier piece what is here is all there is.
        let full = open.full || self.full_origin.is_none();
        let epochs_from = if full { i64::MIN } else { open.epochs_from };
        let entries = self.epochs.entries();
        Some(Piece {
            origin,
            full,
            start: self.start,
            end: self.end,
            append_time: self.append_time,
            truncated_to: open.truncated_to,
            epochs_from,
            epochs: entries[entries.partition_point(|&(_, start)| start < epochs_from)..].to_vec(),
            producers: if full { self.producers() } else { open.producers.clone() },
            span: SpanSummary::of(&open.batches, open.last, open.max_append_time),
            batches: open.batches.clone(),
        })
    }

    /// The open epoch is sealed with `piece`, and another one begins.
    pub(crate) fn seal(&mut self, piece: &Piece) {
        self.open = OpenPart::default();
        self.apply(piece, piece.origin);
    }

    /// Adds a sealed piece that lies in `container`. Pieces come in the order of their origins.
    pub(crate) fn apply(&mut self, piece: &Piece, container: u32) {
        // What was written earlier ends where this piece begins, whether or not the piece that says so is still there.
        let begins = piece.span.map_or(piece.end, |span| span.first);
        self.index.truncate(piece.truncated_to.map_or(begins, |to| to.min(begins)));
        if piece.full {
            self.full_origin = Some(piece.origin);
            self.producers = piece.producers.clone();
        } else {
            self.producers.extend(&piece.producers);
        }
        let kept = self.epochs.entries().iter().filter(|&&(_, start)| start < piece.epochs_from);
        let entries: Vec<_> = kept.chain(&piece.epochs).copied().collect();
        let mut epochs = epochs_of(&entries);
        self.start = self.start.max(piece.start);
        epochs.trim(self.start);
        if epochs != *self.epochs {
            self.epochs = Arc::new(epochs);
        }
        self.end = piece.end;
        self.append_time = self.append_time.max(piece.append_time);
        self.producers.expire(self.append_time);
        self.index.push(Entry::new(piece, container));
    }

    /// The epoch of a batch at the end.
    fn note_epoch(&mut self, header: &BatchHeader) {
        let (epoch, base) = (header.leader_epoch, header.base_offset);
        if self.epochs.is_older(epoch, base) {
            Arc::make_mut(&mut self.epochs).appended(epoch, base, header.next_offset());
            self.open.epochs_from = self.open.epochs_from.min(base);
        } else {
            self.assign(epoch, base);
        }
    }

    fn assign(&mut self, epoch: i32, start: i64) {
        if self.epochs.latest().is_none_or(|latest| epoch > latest) {
            Arc::make_mut(&mut self.epochs).assign(epoch, start);
            self.open.epochs_from = self.open.epochs_from.min(start);
        }
    }
}

fn epochs_of(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    for &(epoch, start) in entries {
        epochs.assign(epoch, start);
    }
    epochs
}

#[cfg(test)]
mod tests;
