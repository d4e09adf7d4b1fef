//! Footers: what a log has in a sealed storage epoch. A start reads all of them and no batch; a read takes the base offsets of
//! the batches from them.
//!
//! A footer is a list of [`Piece`]s. An epoch that the writer filled has one for each log; a rewritten epoch keeps the pieces
//! of its sources, each with the epoch it comes from (its *origin*). A log's state is the fold of its pieces in the order of
//! their origins, wherever they lie now ([`LogState::apply`](super::state::LogState::apply)).
//!
//! # Format
//!
//! Integers are varints ([`codec`](super::codec)); signed ones zigzag, marked `±`.
//!
//! Footer: version `u8` = 1, number of pieces, pieces. Piece:
//!
//! | field | |
//! |---|---|
//! | origin | storage epoch |
//! | flags `u8` | 1 full, 2 truncates, 4 has batches, 8 has producers |
//! | start, end, append time | log start and end when the origin was sealed; newest append time of the log until then, ± |
//! | truncated to | if flagged: batches of earlier origins at or above this offset are gone |
//! | epochs from ±, count, (epoch, start) … | leader epochs: replaces all entries that begin at or above `epochs from` |
//! | producers | if flagged: as [`Producers`] encodes |
//! | first, last, bytes, append time ±, timestamp ± | if it has batches: of these, the times are the newest |
//! | length, batches | if it has batches: for each the base offset (less the one before), bytes, timestamp ± (less the one before) |
//!
//! Seal: version `u8` = 1, number of footers, bytes of batches, number of replaced epochs, replaced epochs in rising order.

use super::codec::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_u8, take_u32, take_u64};
use super::producers::Producers;

const VERSION: u8 = 1;
const FULL: u8 = 1;
const TRUNCATES: u8 = 2;
const HAS_BATCHES: u8 = 4;
const HAS_PRODUCERS: u8 = 8;

/// Where a batch lies in its log, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchRef {
    /// Offset of its first record.
    pub(crate) base: i64,
    /// Its bytes.
    pub(crate) bytes: u32,
    /// Newest timestamp of its records.
    pub(crate) max_timestamp: i64,
}

/// The batches of a piece in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanSummary {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) bytes: u64,
    pub(crate) max_append_time: i64,
    pub(crate) max_timestamp: i64,
}

impl SpanSummary {
    /// Of batches in offset order, of which the last ends at `last`; `None` of none.
    pub(crate) fn of(batches: &[BatchRef], last: i64, max_append_time: i64) -> Option<Self> {
        Some(Self {
            first: batches.first()?.base,
            last,
            bytes: batches.iter().map(|batch| u64::from(batch.bytes)).sum(),
            max_append_time,
            max_timestamp: batches.iter().map(|batch| batch.max_timestamp).max()?,
        })
    }
}

/// What a log got in one epoch of the write order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The epoch in which it was written.
    pub(crate) origin: u32,
    /// State is complete and replaces that of earlier origins; otherwise it adds to it.
    pub(crate) full: bool,
    /// Log start when sealed.
    pub(crate) start: i64,
    /// Log end when sealed.
    pub(crate) end: i64,
    /// Newest append time of the log when sealed, milliseconds; `i64::MIN` if it never had a batch.
    pub(crate) append_time: i64,
    /// Batches of earlier origins at or above this offset are gone.
    pub(crate) truncated_to: Option<i64>,
    /// Leader epochs that begin at or above this offset are those of `epochs`.
    pub(crate) epochs_from: i64,
    /// (leader epoch, first offset), rising.
    pub(crate) epochs: Vec<(i32, i64)>,
    /// Producers that appended in the origin, or all if `full`.
    pub(crate) producers: Producers,
    /// Of its batches, if it has any.
    pub(crate) span: Option<SpanSummary>,
    /// Its batches in offset order; empty when decoded without them.
    pub(crate) batches: Vec<BatchRef>,
}

impl Piece {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, u64::from(self.origin));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(self.full, FULL)
                | flag(self.truncated_to.is_some(), TRUNCATES)
                | flag(self.span.is_some(), HAS_BATCHES)
                | flag(!self.producers.is_empty(), HAS_PRODUCERS),
        );
        put_i64(out, self.start);
        put_i64(out, self.end);
        put_i64(out, self.append_time);
        if let Some(to) = self.truncated_to {
            put_i64(out, to);
        }
        put_epochs(out, self.epochs_from, &self.epochs);
        if !self.producers.is_empty() {
            self.producers.encode(out);
        }
        if let Some(span) = &self.span {
            put_i64(out, span.first);
            put_i64(out, span.last);
            put_u64(out, span.bytes);
            put_i64(out, span.max_append_time);
            put_i64(out, span.max_timestamp);
            put_bytes(out, &encode_batches(&self.batches));
        }
    }

    fn decode(bytes: &mut &[u8], with_batches: bool) -> Option<Self> {
        let origin = take_u32(bytes)?;
        let flags = take_u8(bytes)?;
        if flags & !(FULL | TRUNCATES | HAS_BATCHES | HAS_PRODUCERS) != 0 {
            return None;
        }
        let has = |bit: u8| flags & bit != 0;
        let (start, end, append_time) = (take_i64(bytes)?, take_i64(bytes)?, take_i64(bytes)?);
        let truncated_to = if has(TRUNCATES) { Some(take_i64(bytes)?) } else { None };
        let (epochs_from, epochs) = take_epochs(bytes)?;
        let producers = if has(HAS_PRODUCERS) { Producers::decode(bytes)? } else { Producers::new() };
        let (mut span, mut batches) = (None, vec![]);
        if has(HAS_BATCHES) {
            span = Some(SpanSummary {
                first: take_i64(bytes)?,
                last: take_i64(bytes)?,
                bytes: take_u64(bytes)?,
                max_append_time: take_i64(bytes)?,
                max_timestamp: take_i64(bytes)?,
            });
            let encoded = take_bytes(bytes)?;
            if with_batches {
                batches = decode_batches(encoded)?;
            }
        }
        let full = has(FULL);
        Some(Self {
            origin,
            full,
            start,
            end,
            append_time,
            truncated_to,
            epochs_from,
            epochs,
            producers,
            span,
            batches,
        })
    }
}

/// Appends leader epochs and the offset from which they hold.
pub(super) fn put_epochs(out: &mut Vec<u8>, from: i64, epochs: &[(i32, i64)]) {
    put_i64(out, from);
    put_u64(out, epochs.len() as u64);
    for &(epoch, start) in epochs {
        put_i64(out, i64::from(epoch));
        put_i64(out, start);
    }
}

/// Takes what [`put_epochs`] wrote.
pub(super) fn take_epochs(bytes: &mut &[u8]) -> Option<(i64, Vec<(i32, i64)>)> {
    let (from, count) = (take_i64(bytes)?, take_u64(bytes)?);
    let mut epochs = vec![];
    for _ in 0..count {
        epochs.push((i32::try_from(take_i64(bytes)?).ok()?, take_i64(bytes)?));
    }
    let rises = |pair: &[(i32, i64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
    epochs.windows(2).all(rises).then_some((from, epochs))
}

fn encode_batches(batches: &[BatchRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(batches.len() * 6 + 16);
    let (mut base, mut timestamp) = (0i64, 0i64);
    for batch in batches {
        put_u64(&mut out, (batch.base - base) as u64);
        put_u64(&mut out, u64::from(batch.bytes));
        put_i64(&mut out, batch.max_timestamp.wrapping_sub(timestamp));
        (base, timestamp) = (batch.base, batch.max_timestamp);
    }
    out
}

fn decode_batches(mut bytes: &[u8]) -> Option<Vec<BatchRef>> {
    // At least three bytes each: what is allocated is bounded by what is there.
    let mut batches: Vec<BatchRef> = Vec::with_capacity(bytes.len() / 3);
    let (mut base, mut timestamp) = (0i64, 0i64);
    while !bytes.is_empty() {
        let step = i64::try_from(take_u64(&mut bytes)?).ok()?;
        if step == 0 && !batches.is_empty() {
            return None;
        }
        base = base.checked_add(step)?;
        let size = take_u32(&mut bytes)?;
        timestamp = timestamp.wrapping_add(take_i64(&mut bytes)?);
        batches.push(BatchRef { base, bytes: size, max_timestamp: timestamp });
    }
    batches.shrink_to_fit();
    Some(batches)
}

/// All pieces that one epoch holds of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    /// In the order of their origins.
    pub(crate) pieces: Vec<Piece>,
}

impl Footer {
    /// The bytes on disk.
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Vec<u8> {
        Self::encode_pieces(&self.pieces)
    }

    /// The bytes on disk of a footer that has these pieces.
    pub(crate) fn encode_pieces(pieces: &[Piece]) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, pieces.len() as u64);
        for piece in pieces {
            piece.encode(&mut out);
        }
        out
    }

    /// With the list of batches; `None` if malformed.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes, true)
    }

    /// Without the list of batches, for a start.
    pub(crate) fn decode_summary(bytes: &[u8]) -> Option<Self> {
        Self::parse(bytes, false)
    }

    /// The piece that comes from `origin`.
    pub(crate) fn piece(&self, origin: u32) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.origin == origin)
    }

    fn parse(mut bytes: &[u8], with_batches: bool) -> Option<Self> {
        if take_u8(&mut bytes)? != VERSION {
            return None;
        }
        let count = take_u64(&mut bytes)?;
        let mut pieces = vec![];
        for _ in 0..count {
            pieces.push(Piece::decode(&mut bytes, with_batches)?);
        }
        bytes.is_empty().then_some(Self { pieces })
    }
}

/// Says that an epoch is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    /// How many footers the epoch has.
    pub(crate) footers: u64,
    /// Bytes of its batches.
    pub(crate) bytes: u64,
    /// Epochs that are dead because this one is there.
    pub(crate) replaces: Vec<u32>,
}

impl Seal {
    /// The bytes on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.footers);
        put_u64(&mut out, self.bytes);
        put_u64(&mut out, self.replaces.len() as u64);
        for &epoch in &self.replaces {
            put_u64(&mut out, u64::from(epoch));
        }
        out
    }

    /// `None` if malformed.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        if take_u8(&mut bytes)? != VERSION {
            return None;
        }
        let (footers, total, count) = (take_u64(&mut bytes)?, take_u64(&mut bytes)?, take_u64(&mut bytes)?);
        let mut replaces = vec![];
        for _ in 0..count {
            replaces.push(take_u32(&mut bytes)?);
        }
        bytes.is_empty().then_some(Self { footers, bytes: total, replaces })
    }
}

#[cfg(test)]
mod tests;
