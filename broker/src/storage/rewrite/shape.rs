//! Which pieces and batches of a log a rewrite keeps, and which pieces become one. Pure.
//!
//! A piece is kept if some of its batches live or if the log's state needs it. Pieces that follow each other in the log are
//! folded into one, so that the index in memory shrinks with the number of epochs. A fold has the origin of its last piece,
//! and applying it gives what applying its pieces one after the other gives.

use std::collections::BTreeMap;

use crate::storage::footer::{BatchRef, Piece, SpanSummary};
use crate::storage::index::Entry;

/// A folded piece has at most so many batches and bytes: its footer is read for each read of the log.
const FOLDED_BATCHES: usize = 16 << 10;
const FOLDED_BYTES: u64 = 64 << 20;
/// Append times of a folded piece differ by at most a day, milliseconds: retention gives up pieces whole.
const FOLDED_TIME: i64 = 24 * 60 * 60 * 1000;

/// A log as it is now.
#[derive(Clone, Debug)]
pub(super) struct LogView {
    pub(super) start: i64,
    /// In the order of origins.
    pub(super) entries: Vec<Entry>,
    /// The state is that of the pieces from this origin on.
    pub(super) needed_from: u32,
}

/// What the new epoch holds of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// In the order of their origins.
    pub(super) pieces: Vec<Piece>,
    /// For each batch of each piece the epoch that holds it now.
    pub(super) from: Vec<Vec<u32>>,
}

impl Shape {
    /// What is kept of the `pieces` that the sources hold, each given with its source.
    pub(super) fn of(log: &LogView, pieces: Vec<(u32, Piece)>) -> Self {
        let mut pieces: BTreeMap<(u32, u32), Piece> =
            pieces.into_iter().map(|(source, piece)| ((source, piece.origin), piece)).collect();
        let (mut shape, mut folding) = (Self::default(), None);
        for entry in &log.entries {
            let Some(piece) = pieces.remove(&(entry.container, entry.origin)) else {
                folding = None;
                continue;
            };
            let piece = trim(piece, entry, log.start);
            if piece.span.is_some() || piece.origin >= log.needed_from {
                folding = Some(shape.add(piece, entry.container, folding));
            }
        }
        shape
    }

    /// Adds a piece; `oldest` is the append time of the oldest piece in the fold that it follows. Gives that of its own.
    fn add(&mut self, piece: Piece, source: u32, oldest: Option<i64>) -> i64 {
        let from = vec![source; piece.batches.len()];
        let time = piece.span.map_or(i64::MAX, |span| span.max_append_time);
        match (oldest, self.pieces.last_mut(), self.from.last_mut()) {
            (Some(oldest), Some(last), Some(last_from)) if fits(last, &piece, oldest) => {
                fold(last, piece);
                last_from.extend(from);
                oldest.min(time)
            }
            _ => {
                self.pieces.push(piece);
                self.from.push(from);
                time
            }
        }
    }
}

/// Leaves only the batches that live.
fn trim(mut piece: Piece, entry: &Entry, start: i64) -> Piece {
    let Some(span) = piece.span else { return piece };
    let ends: Vec<i64> = piece.batches.iter().skip(1).map(|next| next.base - 1).chain([span.last]).collect();
    let lives = |(batch, last): &(BatchRef, i64)| *last >= start && batch.base <= entry.last;
    let (batches, ends): (Vec<_>, Vec<_>) = piece.batches.into_iter().zip(ends).filter(lives).unzip();
    piece.span = ends.last().and_then(|&last| SpanSummary::of(&batches, last, span.max_append_time));
    piece.batches = batches;
    piece
}

/// `oldest`: append time of the oldest piece in `a`.
fn fits(a: &Piece, b: &Piece, oldest: i64) -> bool {
    let (Some(first), Some(second)) = (a.span, b.span) else { return true };
    a.batches.len() + b.batches.len() <= FOLDED_BATCHES
        && first.bytes + second.bytes <= FOLDED_BYTES
        && second.max_append_time.saturating_sub(oldest) <= FOLDED_TIME
}

/// Adds the piece that follows.
fn fold(a: &mut Piece, b: Piece) {
    a.origin = b.origin;
    a.start = a.start.max(b.start);
    a.end = b.end;
    a.append_time = a.append_time.max(b.append_time);
    a.truncated_to = match (a.truncated_to, b.truncated_to) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if b.full {
        a.full = true;
        (a.epochs_from, a.epochs, a.producers) = (b.epochs_from, b.epochs, b.producers);
    } else {
        a.epochs.retain(|&(_, start)| start < b.epochs_from);
        a.epochs.extend(b.epochs);
        a.epochs_from = a.epochs_from.min(b.epochs_from);
        a.producers.extend(&b.producers);
    }
    a.span = match (a.span, b.span) {
        (Some(a), Some(b)) => Some(SpanSummary {
            first: a.first,
            last: b.last,
            bytes: a.bytes + b.bytes,
            max_append_time: a.max_append_time.max(b.max_append_time),
            max_timestamp: a.max_timestamp.max(b.max_timestamp),
        }),
        (a, b) => a.or(b),
    };
    a.batches.extend(b.batches);
}

#[cfg(test)]
mod tests;
