//! Reading: recent batches from memory, all others by the keys that footers list, fetched with `multi_get` in up to four
//! parts at once on a small pool of threads. What comes from the database is checked: its CRC, and that it is the batch
//! that its key says (R5, D5).

mod fetch;
mod footers;
mod plan;
mod pool;
mod search;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::footers::{FooterCache, footer};
pub(crate) use self::pool::Readers;
pub(crate) use self::search::{Wanted, by_timestamp};

use self::fetch::{Fetched, fetch};
use self::plan::{Located, plan};
use super::log::LogCell;
use super::shared::Shared;
use super::{ReadError, StorageError};

/// A read is split for this many threads at most, and not below [`PART_BYTES`].
const PARTS: usize = 4;
const PART_BYTES: u64 = 256 << 10;
/// How often a read is planned anew because what it planned on was rewritten or truncated meanwhile.
const ATTEMPTS: usize = 4;

/// What a read asks for; see [`Log::read`](super::Log::read).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) before: i64,
    pub(crate) max_bytes: usize,
}

type Answer = oneshot::Sender<Result<Vec<Bytes>, ReadError>>;

/// Reads a range.
pub(crate) fn read(
    shared: &Arc<Shared>,
    cell: &Arc<LogCell>,
    range: Range,
) -> BoxFuture<'static, Result<Vec<Bytes>, ReadError>> {
    match from_memory(cell, range) {
        Ok(Some(batches)) => ready(Ok(batches)).boxed(),
        Err(fault) => ready(Err(fault)).boxed(),
        Ok(None) => {
            let (answer, answered) = oneshot::channel();
            let job = Job { shared: Arc::clone(shared), cell: Arc::clone(cell), range };
            shared.readers.run(move || job.run(0, answer));
            answered.map(|got| got.unwrap_or_else(|_| Err(StorageError::Closed.into()))).boxed()
        }
    }
}

/// Checks the range and answers it if nothing must be fetched.
fn from_memory(cell: &LogCell, range: Range) -> Result<Option<Vec<Bytes>>, ReadError> {
    if cell.is_deleted() {
        return Err(StorageError::NoSuchLog(cell.id.0).into());
    }
    let inner = cell.lock();
    let (start, end) = (inner.state.start(), inner.state.end());
    if range.from < start || range.from > end {
        return Err(ReadError::OutOfRange { offset: range.from, start, end });
    }
    if range.from == end || range.from >= range.before {
        return Ok(Some(vec![]));
    }
    Ok(inner.recent.read(range.from, range.before, range.max_bytes))
}

/// A read that needs the database.
struct Job {
    shared: Arc<Shared>,
    cell: Arc<LogCell>,
    range: Range,
}

impl Job {
    fn run(self, attempt: usize, answer: Answer) {
        // The log may have changed since: truncated, trimmed, deleted.
        match from_memory(&self.cell, self.range) {
            Ok(None) => {}
            decided => return reply(answer, decided.map(Option::unwrap_or_default)),
        }
        match plan(&self.shared, &self.cell, self.range) {
            Err(fault) => reply(answer, Err(fault)),
            Ok(None) if attempt + 1 < ATTEMPTS => self.run(attempt + 1, answer),
            Ok(None) => reply(answer, Err(self.missing())),
            Ok(Some(located)) => self.fetch(&located, attempt, answer),
        }
    }

    /// Fetches in parts; whoever ends last answers.
    fn fetch(self, located: &[Located], attempt: usize, answer: Answer) {
        let mut parts = split(located);
        let shared = Arc::clone(&self.shared);
        let assembly = Arc::new(Assembly { job: self, attempt, state: Mutex::new(State::new(parts.len(), answer)) });
        let own = parts.pop();
        for (at, part) in parts.into_iter().enumerate() {
            let assembly = Arc::clone(&assembly);
            shared.readers.run(move || assembly.work(at, &part));
        }
        if let Some(own) = own {
            let at = assembly.state.lock().parts.len() - 1;
            assembly.work(at, &own);
        }
    }

    fn missing(&self) -> ReadError {
        let (first, what) = (self.range.from, "it is not in the database".to_owned());
        ReadError::Corrupt { first, last: first, what }
    }
}

/// A read whose parts are being fetched.
struct Assembly {
    job: Job,
    attempt: usize,
    state: Mutex<State>,
}

struct State {
    parts: Vec<Vec<Fetched>>,
    left: usize,
    answer: Option<Answer>,
}

impl State {
    fn new(parts: usize, answer: Answer) -> Self {
        Self { parts: (0..parts).map(|_| vec![]).collect(), left: parts, answer: Some(answer) }
    }
}

impl Assembly {
    fn work(self: Arc<Self>, at: usize, part: &[Located]) {
        let fetched = fetch(&self.job.shared, part);
        let mut state = self.state.lock();
        state.parts[at] = fetched;
        state.left -= 1;
        if state.left > 0 {
            return;
        }
        let (parts, answer) = (std::mem::take(&mut state.parts), state.answer.take());
        drop(state);
        let Some(answer) = answer else { return };
        match assemble(parts) {
            Some(answered) => reply(answer, answered),
            None if self.attempt + 1 < ATTEMPTS => {
                let Job { shared, cell, range } = &self.job;
                let job = Job { shared: Arc::clone(shared), cell: Arc::clone(cell), range: *range };
                job.run(self.attempt + 1, answer);
            }
            None => reply(answer, Err(self.job.missing())),
        }
    }
}

/// The batches up to the first fault, or the fault if it comes first; `None` if the first is missing.
fn assemble(parts: Vec<Vec<Fetched>>) -> Option<Result<Vec<Bytes>, ReadError>> {
    let mut batches = vec![];
    for fetched in parts.into_iter().flatten() {
        match fetched {
            Fetched::Batch(batch) => batches.push(batch),
            _ if !batches.is_empty() => break,
            Fetched::Missing => return None,
            Fetched::Fault(fault) => return Some(Err(fault)),
        }
    }
    Some(Ok(batches))
}

fn split(located: &[Located]) -> Vec<Vec<Located>> {
    let bytes: u64 = located.iter().map(|batch| u64::from(batch.bytes)).sum();
    let parts = usize::try_from(bytes / PART_BYTES).unwrap_or(PARTS).clamp(1, PARTS).min(located.len());
    let size = located.len().div_ceil(parts.max(1)).max(1);
    located.chunks(size).map(<[Located]>::to_vec).collect()
}

/// The reader may be gone.
fn reply(answer: Answer, with: Result<Vec<Bytes>, ReadError>) {
    let _ = answer.send(with);
}
