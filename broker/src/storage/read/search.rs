//! Records by timestamp. Footers and memory know the newest timestamp of each batch, so that few batches are fetched.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use taffrail_proto::record::Scratch;
use tokio::sync::oneshot;

use super::fetch::{Fetched, fetch};
use super::plan::{Located, Segment, locate, segments};
use super::{ATTEMPTS, Range};
use crate::storage::log::LogCell;
use crate::storage::shared::Shared;
use crate::storage::{ReadError, StorageError, TimestampHit, timestamps};

/// Which record is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// The first with this timestamp or a later one.
    From(i64),
    /// The one with the newest.
    Newest,
}

type Found = Result<Option<TimestampHit>, ReadError>;

/// Looks for a record below `before`.
pub(crate) fn by_timestamp(
    shared: &Arc<Shared>,
    cell: &Arc<LogCell>,
    wanted: Wanted,
    before: i64,
) -> BoxFuture<'static, Found> {
    let (answer, answered) = oneshot::channel();
    let search = Search { shared: Arc::clone(shared), cell: Arc::clone(cell), before };
    shared.readers.run(move || {
        // The asker may be gone.
        let _ = answer.send(search.run(wanted));
    });
    answered.map(|got| got.unwrap_or_else(|_| Err(StorageError::Closed.into()))).boxed()
}

struct Search {
    shared: Arc<Shared>,
    cell: Arc<LogCell>,
    before: i64,
}

/// The log changed while it was searched.
struct Changed;

impl Search {
    fn run(&self, wanted: Wanted) -> Found {
        for _ in 0..ATTEMPTS {
            let start = self.cell.extent().start;
            let found = match wanted {
                Wanted::From(timestamp) => self.first(start, timestamp),
                Wanted::Newest => self.newest(start),
            };
            if let Ok(found) = found {
                return found;
            }
        }
        let start = self.cell.extent().start;
        Err(ReadError::Corrupt { first: start, last: start, what: "batches are not in the database".to_owned() })
    }

    fn first(&self, start: i64, timestamp: i64) -> Result<Found, Changed> {
        let mut scratch = Scratch::new();
        for segment in self.segments(start) {
            if newest_in(&segment) < timestamp {
                continue;
            }
            let located = match self.locate(start, &segment)? {
                Ok(located) => located,
                Err(fault) => return Ok(Err(fault)),
            };
            for batch in located.iter().filter(|batch| batch.max_timestamp >= timestamp) {
                let look = |bytes: &_, scratch: &mut _| {
                    timestamps::first_from(bytes, &(start..self.before), timestamp, scratch)
                };
                match self.look(batch, &mut scratch, look)? {
                    Ok(None) => {}
                    decided => return Ok(decided),
                }
            }
        }
        Ok(Ok(None))
    }

    fn newest(&self, start: i64) -> Result<Found, Changed> {
        let (mut scratch, mut best) = (Scratch::new(), None::<TimestampHit>);
        let mut segments = self.segments(start);
        segments.sort_by_key(|segment| std::cmp::Reverse(newest_in(segment)));
        for segment in segments {
            if !can_beat(best, newest_in(&segment), i64::MIN) {
                break;
            }
            let mut located = match self.locate(start, &segment)? {
                Ok(located) => located,
                Err(fault) => return Ok(Err(fault)),
            };
            located.sort_by_key(|batch| std::cmp::Reverse(batch.max_timestamp));
            for batch in located {
                if !can_beat(best, batch.max_timestamp, batch.base) {
                    continue;
                }
                let look = |bytes: &_, scratch: &mut _| timestamps::newest(bytes, &(start..self.before), scratch);
                match self.look(&batch, &mut scratch, look)? {
                    Ok(Some(hit)) if can_beat(best, hit.timestamp, hit.offset) => best = Some(hit),
                    Ok(_) => {}
                    fault => return Ok(fault),
                }
            }
        }
        Ok(Ok(best))
    }

    fn segments(&self, start: i64) -> Vec<Segment> {
        let mut all = vec![];
        let mut from = start;
        // A plan looks at a bounded number of parts at a time.
        loop {
            let some = segments(&self.shared, &self.cell, Range { from, before: self.before, max_bytes: usize::MAX });
            let next = match some.last() {
                Some(Segment::Sealed(entry)) => entry.last + 1,
                _ => i64::MAX,
            };
            all.extend(some);
            if next >= self.before || next == i64::MAX {
                return all;
            }
            from = next;
        }
    }

    fn locate(&self, start: i64, segment: &Segment) -> Result<Result<Vec<Located>, ReadError>, Changed> {
        locate(&self.shared, self.cell.id, segment, &(start..self.before)).transpose().ok_or(Changed)
    }

    fn look(
        &self,
        batch: &Located,
        scratch: &mut Scratch,
        look: impl Fn(&bytes::Bytes, &mut Scratch) -> Result<Option<TimestampHit>, taffrail_proto::record::BatchError>,
    ) -> Result<Found, Changed> {
        let fault = |what: String| ReadError::Corrupt { first: batch.base, last: batch.last, what };
        match fetch(&self.shared, std::slice::from_ref(batch)).pop() {
            Some(Fetched::Batch(bytes)) => Ok(look(&bytes, scratch).map_err(|cause| fault(cause.to_string()))),
            Some(Fetched::Fault(fault)) => Ok(Err(fault)),
            Some(Fetched::Missing) | None => Err(Changed),
        }
    }
}

/// Newest first, then the lowest offset.
fn can_beat(best: Option<TimestampHit>, timestamp: i64, offset: i64) -> bool {
    best.is_none_or(|best| timestamp > best.timestamp || (timestamp == best.timestamp && offset < best.offset))
}

fn newest_in(segment: &Segment) -> i64 {
    match segment {
        Segment::Sealed(entry) => entry.max_timestamp,
        Segment::Open { batches, .. } => batches.iter().map(|batch| batch.max_timestamp).max().unwrap_or(i64::MIN),
    }
}
