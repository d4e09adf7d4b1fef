//! Where a checkpoint stands: begin → parts, one batch at a time → end → trim.

use bytes::Bytes;

use super::Limits;
use super::frame::Frame;
use crate::coordinator::StateMachine;

/// What is to be written next for the checkpoint under way.
pub(super) enum Next {
    /// A batch of parts.
    Parts(Vec<(Bytes, Bytes)>),
    /// The last record.
    End(Frame),
}

/// Writes checkpoints of a shard, one after the other.
pub(super) struct Checkpoints<M: StateMachine> {
    limits: Limits,
    /// Bytes of the log behind the last begin, changes only.
    grown: u64,
    /// Of the last finished checkpoint.
    last_bytes: u64,
    phase: Phase<M>,
}

enum Phase<M: StateMachine> {
    Idle,
    Writing(Writing<M>),
    /// Offset of the begin: everything before it is superfluous once the end is committed.
    Ending(i64),
    Trimming,
}

struct Writing<M: StateMachine> {
    rest: std::iter::Peekable<Box<dyn Iterator<Item = M::Record> + Send>>,
    /// Offset of the begin; known once that is committed.
    begin: Option<i64>,
    parts: u64,
    bytes: u64,
}

impl<M: StateMachine> Checkpoints<M> {
    /// Of a log that has `grown` by so many bytes since its newest finished checkpoint of `last_bytes`.
    pub(super) fn new(limits: Limits, grown: u64, last_bytes: u64) -> Self {
        Self { limits, grown, last_bytes, phase: Phase::Idle }
    }

    /// The log has grown by changes of so many bytes.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.grown += bytes as u64;
    }

    pub(super) fn is_due(&self) -> bool {
        let enough = self.limits.least_bytes.max(self.last_bytes.saturating_mul(self.limits.growth));
        matches!(self.phase, Phase::Idle) && self.grown > enough
    }

    /// Takes the state as it is now. The begin is to be written behind all changes that made it.
    pub(super) fn begin(&mut self, machine: &M) {
        self.grown = 0;
        self.phase = Phase::Writing(Writing { rest: machine.checkpoint().peekable(), begin: None, parts: 0, bytes: 0 });
    }

    /// The batch of the begin or of parts, written at `offset`, is committed; what comes next.
    pub(super) fn committed(&mut self, offset: i64) -> Option<Next> {
        let Phase::Writing(writing) = &mut self.phase else { return None };
        let begin = *writing.begin.get_or_insert(offset);
        let parts = writing.take(self.limits.batch_bytes);
        if !parts.is_empty() {
            return Some(Next::Parts(parts));
        }
        let end = Frame::End { begin, parts: writing.parts };
        self.last_bytes = writing.bytes;
        self.phase = Phase::Ending(begin);
        Some(Next::End(end))
    }

    /// The end is committed; up to where the log is to be trimmed.
    pub(super) fn ended(&mut self) -> Option<i64> {
        let Phase::Ending(begin) = self.phase else { return None };
        self.phase = Phase::Trimming;
        Some(begin)
    }

    /// The trim is over, with whatever result: the next checkpoint's trim cuts as far.
    pub(super) fn trimmed(&mut self) {
        if matches!(self.phase, Phase::Trimming) {
            self.phase = Phase::Idle;
        }
    }
}

impl<M: StateMachine> Writing<M> {
    /// The next parts: a batch of at most `most` bytes, but at least one while there is one.
    fn take(&mut self, most: usize) -> Vec<(Bytes, Bytes)> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.rest.peek() {
            let (key, value) = M::encode(record);
            let size = super::shard::size(&key, &value);
            if bytes + size > most && !parts.is_empty() {
                break;
            }
            bytes += size;
            parts.push(Frame::Part(key, value).encode());
            self.rest.next();
        }
        self.parts += parts.len() as u64;
        self.bytes += bytes as u64;
        parts
    }
}
