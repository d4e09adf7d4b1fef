//! The state of a log as it was at an earlier offset: what a truncation makes current (T5, T6).
//!
//! Leader epochs are cut in memory. Producers are harder: memory knows their newest batches only. If none of them reaches
//! beyond the new end, nothing changes. Otherwise the state is built again from the footers of what stays whole and the
//! headers of the batches in what is cut.

use taffrail_proto::record::BatchHeader;

use super::footer::{BatchRef, Piece};
use super::index::Entry;
use super::keys::DataKey;
use super::ledger::Snapshot;
use super::log::LogCell;
use super::producers::{Producers, Sequenced};
use super::shared::Shared;
use super::{LogId, StorageError, read};

/// The state after a truncation to `to`, which lies below the log's end; `None` if a batch begins before `to` and ends
/// behind it. Nothing of the log is staged.
pub(super) fn snapshot(shared: &Shared, cell: &LogCell, to: i64) -> Result<Option<Snapshot>, StorageError> {
    loop {
        let entries = cell.lock().state.index().entries().to_vec();
        match snapshot_by(shared, cell, &entries, to) {
            // Maintenance has moved or dropped what the entries name.
            Err(_) if cell.lock().state.index().entries() != entries => {}
            done => return done,
        }
    }
}

fn snapshot_by(shared: &Shared, cell: &LogCell, entries: &[Entry], to: i64) -> Result<Option<Snapshot>, StorageError> {
    let (producers, open, source) = {
        let inner = cell.lock();
        let state = &inner.state;
        let (append_time, start, needed_from) = (state.append_time(), state.start(), state.needed_from());
        let source = Source { shared, log: cell.id, append_time, start, needed_from };
        (state.producers(), state.open().batches.clone(), source)
    };
    if !source.is_boundary(entries, &open, to)? {
        return Ok(None);
    }
    let producers = if producers.ends_below(to) { producers } else { source.producers_at(entries, &open, to)? };
    Ok(Some(cell.lock().state.snapshot_truncated(to, producers)))
}

struct Source<'a> {
    shared: &'a Shared,
    log: LogId,
    /// Newest append time of the log. Those of single batches are not kept: it stands for those of the open epoch.
    append_time: i64,
    start: i64,
    /// Pieces of earlier origins that lie wholly below the start may be gone, one without the other.
    needed_from: u32,
}

impl Source<'_> {
    fn is_boundary(&self, entries: &[Entry], open: &[BatchRef], to: i64) -> Result<bool, StorageError> {
        let begins = |batches: &[BatchRef]| batches.binary_search_by_key(&to, |batch| batch.base).is_ok();
        let sealed = entries.iter().find(|entry| !entry.is_empty() && entry.first <= to && to <= entry.last);
        match sealed {
            Some(entry) => Ok(entry.first == to || begins(&self.piece(entry)?.batches)),
            None => Ok(begins(open)),
        }
    }

    fn producers_at(&self, entries: &[Entry], open: &[BatchRef], to: i64) -> Result<Producers, StorageError> {
        let mut producers = Producers::new();
        let is_whole_history = |entry: &&Entry| entry.origin >= self.needed_from || entry.is_live(self.start);
        let below = entries.iter().take_while(|entry| entry.first < to || entry.is_empty());
        for entry in below.filter(is_whole_history) {
            self.add(&mut producers, entry, &self.piece(entry)?, to)?;
        }
        let epoch = self.shared.open_epoch.load(std::sync::atomic::Ordering::Acquire);
        self.replay(&mut producers, epoch, open, to, self.append_time)?;
        Ok(producers)
    }

    /// Adds what a piece contributes to the state at `to`.
    fn add(&self, producers: &mut Producers, entry: &Entry, piece: &Piece, to: i64) -> Result<(), StorageError> {
        let whole = match &piece.span {
            Some(span) => entry.last == span.last && span.last < to,
            None => entry.first == piece.end && piece.end <= to,
        };
        if whole && piece.full {
            *producers = piece.producers.clone();
        } else if whole {
            producers.extend(&piece.producers);
            producers.expire(piece.append_time);
        } else if !entry.is_empty() {
            let end = to.min(entry.last + 1);
            self.replay(producers, entry.container, &piece.batches, end, entry.max_append_time)?;
        }
        Ok(())
    }

    /// Adds the batches of an epoch that lie below `end`.
    fn replay(
        &self,
        producers: &mut Producers,
        epoch: u32,
        batches: &[BatchRef],
        end: i64,
        append_time: i64,
    ) -> Result<(), StorageError> {
        for batch in batches.iter().take_while(|batch| batch.base < end) {
            let key = DataKey::Batch { epoch, log: self.log, base: batch.base };
            let bytes = self.shared.data().get_pinned(key.encode()).map_err(|cause| self.damaged(key, &cause))?;
            let bytes = bytes.ok_or_else(|| self.damaged(key, &"it is missing"))?;
            let header = BatchHeader::parse(&bytes).map_err(|fault| self.damaged(key, &fault))?;
            if let Some(sequenced) = Sequenced::of(&header) {
                producers.record(&sequenced, append_time);
            }
        }
        Ok(())
    }

    fn piece(&self, entry: &Entry) -> Result<Piece, StorageError> {
        let key = DataKey::Footer { epoch: entry.container, log: self.log };
        let footer = read::footer(self.shared, entry.container, self.log)?;
        let piece = footer.and_then(|footer| footer.piece(entry.origin).cloned());
        piece.ok_or_else(|| self.damaged(key, &"it is missing"))
    }

    fn damaged(&self, key: DataKey, what: &dyn std::fmt::Display) -> StorageError {
        StorageError::Damaged {
            file: self.shared.data().path().display().to_string(),
            at: 0,
            what: format!("{key:?}, which a truncation needs: {what}"),
        }
    }
}
