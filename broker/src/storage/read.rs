//! Reading: recent batches from memory, all others by the keys that footers list, fetched with `multi_get` in up to four
//! parts at once on a small pool of threads; a reader that goes through a log finds the next stretch fetched. What comes from
//! the database is checked: its CRC, and that it is the batch that its key says (R5, D5).

mod ahead;
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

pub(crate) use self::ahead::Ahead;
pub(crate) use self::footers::{FooterCache, footer};
pub(crate) use self::pool::Readers;
pub(crate) use self::search::{Wanted, by_timestamp};

use self::ahead::{MOST_BYTES, Place, STRETCH_BYTES, Sequel, Stretch, cut};
use self::fetch::{Fetched, fetch};
use self::plan::{Located, plan};
use super::log::LogCell;
use super::shared::Shared;
use super::{ReadError, StorageError};

/// A read is split for about this many threads, and not far below [`PART_BYTES`].
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

type Answered = Result<Vec<Bytes>, ReadError>;
type Answer = oneshot::Sender<Answered>;

/// Reads a range.
pub(crate) fn read(shared: &Arc<Shared>, cell: &Arc<LogCell>, range: Range) -> BoxFuture<'static, Answered> {
    match from_memory(cell, range) {
        Ok(Some(batches)) => ready(Ok(batches)).boxed(),
        Err(fault) => ready(Err(fault)).boxed(),
        Ok(None) => match shared.ahead.begin(cell, range.from) {
            Place::Unknown => from_disk(shared, cell, range, Behind::Noted),
            Place::End => from_disk(shared, cell, range, Behind::Fetched),
            Place::Fetched(stretch) => from_stretch(shared, cell, range, stretch),
        },
    }
}

fn from_disk(shared: &Arc<Shared>, cell: &Arc<LogCell>, range: Range, behind: Behind) -> BoxFuture<'static, Answered> {
    let (answer, answered) = oneshot::channel();
    Job { shared: Arc::clone(shared), cell: Arc::clone(cell), range, behind }.start(answer);
    answered.map(|got| got.unwrap_or_else(|_| Err(StorageError::Closed.into()))).boxed()
}

/// Answers with what was fetched ahead, or goes to the disk after all if nothing good came of that.
fn from_stretch(
    shared: &Arc<Shared>,
    cell: &Arc<LogCell>,
    range: Range,
    stretch: Stretch,
) -> BoxFuture<'static, Answered> {
    if let Some(end) = stretch.sequel.asked() {
        fetch_ahead(shared, cell, Range { from: end, ..range });
    }
    let (shared, cell) = (Arc::clone(shared), Arc::clone(cell));
    Box::pin(async move {
        match stretch.answered.await.map(|fetched| fetched.map(|batches| cut(batches, range))) {
            Ok(Ok(batches)) if !batches.is_empty() => Ok(batches),
            _ => from_disk(&shared, &cell, range, Behind::Noted).await,
        }
    })
}

/// Begins to fetch a range that is likely to be asked for next.
fn fetch_ahead(shared: &Arc<Shared>, cell: &Arc<LogCell>, range: Range) {
    // What is in memory, or not there, needs nothing.
    if !matches!(from_memory(cell, range), Ok(None)) {
        return;
    }
    let (answer, answered) = oneshot::channel();
    let place = if shared.readers.have_time() { shared.ahead.reserve(cell, range.from, answered) } else { None };
    let Some(sequel) = place else { return shared.ahead.note(cell.id, range.from) };
    let range = Range { max_bytes: range.max_bytes.min(STRETCH_BYTES), ..range };
    Job { shared: Arc::clone(shared), cell: Arc::clone(cell), range, behind: Behind::Asked(sequel) }.start(answer);
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

/// What becomes of the stretch behind a read.
#[derive(Clone)]
enum Behind {
    /// It is noted where the read ends.
    Noted,
    /// It is fetched: the read belongs to a sequence.
    Fetched,
    /// It is fetched once this one is asked for, which is itself fetched ahead.
    Asked(Arc<Sequel>),
}

/// A read that needs the database.
#[derive(Clone)]
struct Job {
    shared: Arc<Shared>,
    cell: Arc<LogCell>,
    range: Range,
    behind: Behind,
}

impl Job {
    fn start(self, answer: Answer) {
        let shared = Arc::clone(&self.shared);
        shared.readers.run(move || self.run(0, answer));
    }

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
            Ok(Some(located)) if self.is_worth(&located) => self.fetch(&located, attempt, answer),
            // Whoever asks for it will read it.
            Ok(Some(_)) => {}
        }
    }

    /// What is fetched ahead is kept in memory.
    fn is_worth(&self, located: &[Located]) -> bool {
        !matches!(self.behind, Behind::Asked(_)) || total(located) <= MOST_BYTES
    }

    /// It is known where the read will end.
    fn planned(&self, located: &[Located]) {
        let Some(end) = located.last().map(|last| last.last + 1) else { return };
        let fetched = match &self.behind {
            Behind::Noted => false,
            Behind::Fetched => true,
            Behind::Asked(sequel) if sequel.ends(end) => true,
            Behind::Asked(_) => return,
        };
        if fetched {
            fetch_ahead(&self.shared, &self.cell, Range { from: end, ..self.range });
        } else {
            self.shared.ahead.note(self.cell.id, end);
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
        if attempt == 0 {
            assembly.job.planned(located);
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
                self.job.clone().run(self.attempt + 1, answer);
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

/// Parts for several threads, cut where storage epochs meet: what lies in one is read at once. An epoch that has more than
/// one part and a half is cut as well.
fn split(located: &[Located]) -> Vec<Vec<Located>> {
    let part = (total(located) / PARTS as u64).max(PART_BYTES);
    let (mut parts, mut begin, mut bytes) = (vec![], 0, 0);
    for at in 0..located.len() {
        bytes += u64::from(located[at].bytes);
        let ends_epoch = located.get(at + 1).is_some_and(|next| next.epoch != located[at].epoch);
        if at + 1 == located.len() || bytes >= part * 3 / 2 || (ends_epoch && bytes >= part / 2) {
            parts.push(located[begin..=at].to_vec());
            (begin, bytes) = (at + 1, 0);
        }
    }
    parts
}

fn total(located: &[Located]) -> u64 {
    located.iter().map(|batch| u64::from(batch.bytes)).sum()
}

/// The reader may be gone.
fn reply(answer: Answer, with: Result<Vec<Bytes>, ReadError>) {
    let _ = answer.send(with);
}
