//! Where a log's records lie: one entry for each piece of each footer. Pure; 48 bytes an entry, so that 10,000 logs in 300
//! epochs take 144 MB.
//!
//! Entries lie in the order of their origins, which is offset order. An entry whose piece has no batches, or none that is
//! left, is *empty*: its `last` is one below its `first`. It stays in the list for the state that its footer holds.

use super::Span;
use super::footer::Piece;

/// A piece of a log, and which storage epoch holds it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The epoch that holds it.
    pub(crate) container: u32,
    /// The epoch in which it was written.
    pub(crate) origin: u32,
    /// First offset.
    pub(crate) first: i64,
    /// Last offset that truncations left.
    pub(crate) last: i64,
    /// Newest append time of its batches.
    pub(crate) max_append_time: i64,
    /// Newest record timestamp of its batches.
    pub(crate) max_timestamp: i64,
    /// Bytes of its batches, those that truncation and trim made dead included: they are there until a rewrite.
    pub(crate) bytes: u32,
}

impl Entry {
    /// Of a piece as it was sealed.
    pub(crate) fn new(piece: &Piece, container: u32) -> Self {
        let origin = piece.origin;
        match &piece.span {
            Some(span) => Self {
                container,
                origin,
                first: span.first,
                last: span.last,
                max_append_time: span.max_append_time,
                max_timestamp: span.max_timestamp,
                bytes: u32::try_from(span.bytes).unwrap_or(u32::MAX),
            },
            None => Self {
                container,
                origin,
                first: piece.end,
                last: piece.end - 1,
                max_append_time: i64::MIN,
                max_timestamp: i64::MIN,
                bytes: 0,
            },
        }
    }

    /// No offset is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Some of its records are in a log that begins at `start`.
    pub(crate) fn is_live(&self, start: i64) -> bool {
        !self.is_empty() && self.last >= start
    }
}

/// All entries of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanIndex {
    entries: Vec<Entry>,
}

impl SpanIndex {
    /// In the order of their origins.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds the piece that follows all others.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Forgets all offsets at or above `end`.
    pub(crate) fn truncate(&mut self, end: i64) {
        for entry in self.entries.iter_mut().rev() {
            if entry.last < end && entry.first <= end {
                break;
            }
            entry.first = entry.first.min(end);
            entry.last = entry.last.min(end - 1);
            if entry.is_empty() {
                entry.bytes = 0;
            }
        }
    }

    /// Entries from the one that contains `offset` on, empty ones left out.
    pub(crate) fn from(&self, offset: i64) -> impl Iterator<Item = &Entry> {
        let at = self.entries.partition_point(|entry| entry.last < offset);
        self.entries[at..].iter().filter(|entry| !entry.is_empty())
    }

    /// What is left of a log that begins at `start`.
    pub(crate) fn live(&self, start: i64) -> impl Iterator<Item = &Entry> {
        self.from(start)
    }

    /// The same for the outside.
    pub(crate) fn spans(&self, start: i64) -> Vec<Span> {
        let span = |entry: &Entry| Span {
            first: entry.first.max(start),
            last: entry.last,
            bytes: u64::from(entry.bytes),
            max_append_time: entry.max_append_time,
            max_timestamp: entry.max_timestamp,
        };
        self.live(start).map(span).collect()
    }

    /// Bytes that are stored of a log that begins at `start`.
    pub(crate) fn bytes(&self, start: i64) -> u64 {
        self.live(start).map(|entry| u64::from(entry.bytes)).sum()
    }

    /// A rewrite put `pieces` into `container` in place of what `sources` held. Truncations that came meanwhile hold.
    pub(crate) fn replace(&mut self, sources: &[u32], container: u32, pieces: &[Piece]) {
        let mut end = i64::MIN;
        self.entries.retain(|entry| {
            let gone = sources.contains(&entry.container);
            if gone {
                end = end.max(entry.last.saturating_add(1)).max(entry.first);
            }
            !gone
        });
        for piece in pieces {
            let mut entry = Entry::new(piece, container);
            entry.first = entry.first.min(end);
            entry.last = entry.last.min(end - 1);
            if entry.is_empty() {
                entry.bytes = 0;
            }
            let at = self.entries.partition_point(|other| other.origin < entry.origin);
            self.entries.insert(at, entry);
        }
    }

    /// Epochs are being dropped.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(u32) -> bool) {
        self.entries.retain(|entry| !is_gone(entry.container));
    }

    /// Gives back memory after a start.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(origin: u32, first: i64, last: i64) -> Entry {
        let bytes = if last < first { 0 } else { 10 };
        Entry { container: origin, origin, first, last, max_append_time: 0, max_timestamp: 0, bytes }
    }

    fn index(entries: &[(u32, i64, i64)]) -> SpanIndex {
        SpanIndex { entries: entries.iter().map(|&(origin, first, last)| entry(origin, first, last)).collect() }
    }

    #[test]
    fn lookup_skips_empty_entries() {
        let index = index(&[(1, 0, 9), (2, 10, 9), (3, 10, 19)]);
        let origins = |offset| index.from(offset).map(|entry| entry.origin).collect::<Vec<_>>();
        assert_eq!(origins(0), [1, 3]);
        assert_eq!(origins(9), [1, 3]);
        assert_eq!(origins(10), [3]);
        assert!(origins(20).is_empty());
    }

    #[test]
    fn truncation_clips_and_empties() {
        let mut index = index(&[(1, 0, 9), (2, 10, 19), (3, 20, 29), (4, 30, 29)]);
        index.truncate(15);
        let left: Vec<_> = index.entries().iter().map(|e| (e.first, e.last, e.bytes)).collect();
        assert_eq!(left, [(0, 9, 10), (10, 14, 10), (15, 14, 0), (15, 14, 0)]);
        index.truncate(10);
        let left: Vec<_> = index.entries().iter().map(|e| (e.first, e.last, e.bytes)).collect();
        assert_eq!(left, [(0, 9, 10), (10, 9, 0), (10, 9, 0), (10, 9, 0)]);
    }

    #[test]
    fn an_entry_takes_48_bytes() {
        assert_eq!(size_of::<Entry>(), 48);
    }
}
