//! Reading ahead: whoever goes on where a read ended finds the next stretch of the log fetched, or on its way.
//!
//! Each read from the disk leaves a note of where it ended. One that begins at a note belongs to a sequence: as soon as it
//! is planned, the stretch behind it is fetched, and when that is asked for, the one behind it. So the disk works while the
//! reader deals with what it got, and the other way round. Only threads that would be idle fetch ahead.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use taffrail_proto::record::BatchHeader;
use tokio::sync::oneshot;

use super::Range;
use crate::storage::log::LogCell;
use crate::storage::{LogId, ReadError};

/// Stretches that are fetched and not asked for yet, of all logs.
const STRETCHES: usize = 8;
/// Bytes of a stretch; with one large batch up to [`MOST_BYTES`].
pub(super) const STRETCH_BYTES: usize = 1 << 20;
/// A longer stretch is not fetched ahead: its batches are so large that it would gain nothing. All stretches together take
/// 16 MiB at most.
pub(super) const MOST_BYTES: u64 = 2 << 20;
/// Ends of reads that are remembered.
const NOTES: usize = 1024;
/// A stretch makes room for another when so many reads came since it was begun: its reader is gone, or slow.
const STALE_AFTER: u64 = 256;

type Answered = oneshot::Receiver<Result<Vec<Bytes>, ReadError>>;

/// What is known of sequences of reads, all logs together.
#[derive(Default)]
pub(crate) struct Ahead {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Ends of reads, and when they were noted.
    notes: HashMap<(LogId, i64), u64>,
    stretches: HashMap<(LogId, i64), Stretch>,
    /// Reads so far.
    clock: u64,
}

/// What is being fetched ahead.
pub(super) struct Stretch {
    pub(super) answered: Answered,
    /// Shared with the read that fetches it.
    pub(super) sequel: Arc<Sequel>,
    /// How often the log had been truncated when it was begun.
    truncations: u64,
    begun: u64,
}

/// Two things must be known before what lies behind a stretch is fetched: that the stretch itself was asked for, and where
/// it ends. They come in any order.
#[derive(Debug, Default)]
pub(super) struct Sequel(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Asked,
    Ends(i64),
}

impl Sequel {
    /// The stretch was asked for; its end if that is known.
    pub(super) fn asked(&self) -> Option<i64> {
        match std::mem::replace(&mut *self.0.lock(), Known::Asked) {
            Known::Ends(end) => Some(end),
            Known::Nothing | Known::Asked => None,
        }
    }

    /// The stretch ends here. True: it was asked for.
    pub(super) fn ends(&self, end: i64) -> bool {
        let mut known = self.0.lock();
        if matches!(*known, Known::Asked) {
            return true;
        }
        *known = Known::Ends(end);
        false
    }
}

/// What a read that begins somewhere finds there.
pub(super) enum Place {
    /// Nothing: it may be the only one.
    Unknown,
    /// Another read ended there.
    End,
    /// What it wants is on its way.
    Fetched(Stretch),
}

impl Ahead {
    /// A read begins.
    pub(super) fn begin(&self, cell: &LogCell, from: i64) -> Place {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let noted = inner.notes.remove(&(cell.id, from)).is_some();
        match inner.stretches.remove(&(cell.id, from)) {
            Some(stretch) if stretch.truncations == cell.truncations() => Place::Fetched(stretch),
            Some(_) => Place::End,
            None if noted => Place::End,
            None => Place::Unknown,
        }
    }

    /// A read will end here.
    pub(super) fn note(&self, log: LogId, end: i64) {
        let mut inner = self.inner.lock();
        if inner.notes.len() >= NOTES
            && let Some((&oldest, _)) = inner.notes.iter().min_by_key(|(_, noted)| **noted)
        {
            inner.notes.remove(&oldest);
        }
        let clock = inner.clock;
        inner.notes.insert((log, end), clock);
    }

    /// Makes place for a stretch that begins at `from`. `None` if there is one already, or no room for another.
    pub(super) fn reserve(&self, cell: &LogCell, from: i64, answered: Answered) -> Option<Arc<Sequel>> {
        let mut inner = self.inner.lock();
        let (key, begun) = ((cell.id, from), inner.clock);
        if inner.stretches.len() >= STRETCHES {
            inner.stretches.retain(|_, stretch| stretch.begun + STALE_AFTER > begun);
        }
        if inner.stretches.len() >= STRETCHES || inner.stretches.contains_key(&key) {
            return None;
        }
        let sequel = Arc::new(Sequel::default());
        let truncations = cell.truncations();
        inner.stretches.insert(key, Stretch { answered, sequel: Arc::clone(&sequel), truncations, begun });
        Some(sequel)
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn stretches(&self) -> usize {
        self.inner.lock().stretches.len()
    }
}

/// What a read may see of a stretch that was fetched for it.
pub(super) fn cut(mut batches: Vec<Bytes>, range: Range) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |batch: &Bytes| {
        bytes += batch.len();
        let visible = BatchHeader::parse_prefix(batch).is_ok_and(|header| header.base_offset < range.before);
        visible && (bytes <= range.max_bytes || bytes == batch.len())
    };
    let kept = batches.iter().map(fits).take_while(|fits| *fits).count();
    batches.truncate(kept);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::PartitionId;
    use crate::storage::state::LogState;

    fn cell() -> LogCell {
        LogCell::new(LogId(1), PartitionId { topic: uuid::Uuid::from_u128(1), index: 0 }, LogState::new())
    }

    fn answered() -> Answered {
        oneshot::channel().1
    }

    #[test]
    fn a_read_that_begins_where_another_ended_goes_on() {
        let (ahead, cell) = (Ahead::default(), cell());
        assert!(matches!(ahead.begin(&cell, 0), Place::Unknown));
        ahead.note(cell.id, 10);
        assert!(matches!(ahead.begin(&cell, 9), Place::Unknown));
        assert!(matches!(ahead.begin(&cell, 10), Place::End));
        assert!(matches!(ahead.begin(&cell, 10), Place::Unknown));
    }

    #[test]
    fn what_was_fetched_is_given_once_and_not_after_a_truncation() {
        let (ahead, cell) = (Ahead::default(), cell());
        ahead.reserve(&cell, 10, answered()).unwrap();
        assert!(ahead.reserve(&cell, 10, answered()).is_none());
        assert!(matches!(ahead.begin(&cell, 10), Place::Fetched(_)));
        assert!(matches!(ahead.begin(&cell, 10), Place::Unknown));
        ahead.reserve(&cell, 10, answered()).unwrap();
        cell.truncated(&LogState::new().snapshot());
        assert!(matches!(ahead.begin(&cell, 10), Place::End));
    }

    #[test]
    fn stretches_and_notes_have_bounds() {
        let (ahead, cell) = (Ahead::default(), cell());
        let reserved = |from| ahead.reserve(&cell, from, answered()).is_some();
        assert!((0..STRETCHES as i64).all(reserved));
        assert!(!reserved(1000));
        for from in 0..STALE_AFTER as i64 {
            ahead.begin(&cell, 10_000 + from);
        }
        assert!(reserved(1000));
        assert_eq!(ahead.inner.lock().stretches.len(), 1);
        (0..2 * NOTES as i64).for_each(|end| ahead.note(cell.id, end));
        assert_eq!(ahead.inner.lock().notes.len(), NOTES);
    }

    #[test]
    fn what_lies_behind_is_fetched_once_the_stretch_is_asked_for_and_its_end_known() {
        let sequel = Sequel::default();
        assert!(!sequel.ends(7));
        assert_eq!(sequel.asked(), Some(7));
        let sequel = Sequel::default();
        assert_eq!(sequel.asked(), None);
        assert!(sequel.ends(7));
    }
}
