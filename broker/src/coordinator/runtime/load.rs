//! Makes a machine of its log.

use bytes::Bytes;

use super::frame::Frame;
use crate::coordinator::StateMachine;

/// Why a log does not give a machine. It stays as it is; a person has to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A record that this version does not understand.
    #[error("the record at offset {0} cannot be read: it is damaged, or written by a newer version of the broker")]
    Unreadable(i64),
    /// The log begins behind its first record, and no finished checkpoint stands for what is gone.
    #[error("the log begins at offset {0} and has no finished checkpoint: what was before it is lost")]
    Incomplete(i64),
    /// The end of a checkpoint does not belong to what is in front of it.
    #[error("the checkpoint that ends at offset {0} is not whole")]
    BrokenCheckpoint(i64),
}

/// Replays a log from its start, record by record.
pub struct Loader<M: StateMachine> {
    make: fn() -> M,
    log_start: i64,
    machine: M,
    /// The machine knows everything before here: the log was whole, or a checkpoint was.
    is_whole: bool,
    candidate: Option<Candidate<M>>,
    bytes: u64,
    checkpoint_bytes: u64,
}

/// A machine made of the parts of a checkpoint whose end has not come yet.
struct Candidate<M: StateMachine> {
    begin: i64,
    machine: M,
    parts: u64,
    bytes: u64,
    /// Changes since the begin.
    since: Vec<M::Record>,
    since_bytes: u64,
}

/// What a log has given.
#[derive(Debug)]
pub struct Loaded<M> {
    /// In the state at the log's end.
    pub machine: M,
    /// Bytes of changes since the newest finished checkpoint.
    pub grown: u64,
    /// Bytes of that checkpoint; 0: there is none.
    pub checkpoint_bytes: u64,
}

impl<M: StateMachine> Loader<M> {
    /// Of a log that begins at `log_start`; `make` gives an empty machine.
    pub fn new(make: fn() -> M, log_start: i64) -> Self {
        Self {
            make,
            log_start,
            machine: make(),
            is_whole: log_start == 0,
            candidate: None,
            bytes: 0,
            checkpoint_bytes: 0,
        }
    }

    /// The next record, at `offset`.
    pub fn record(&mut self, offset: i64, key: &Bytes, value: &Bytes) -> Result<(), LoadError> {
        let size = super::shard::size(key, value) as u64;
        match Frame::decode(key, value).ok_or(LoadError::Unreadable(offset))? {
            Frame::Change(key, value) => {
                let record = M::decode(&key, &value).ok_or(LoadError::Unreadable(offset))?;
                self.bytes += size;
                // Without what was before, a change means nothing.
                if self.is_whole {
                    self.machine.replay(&record);
                }
                if let Some(candidate) = &mut self.candidate {
                    candidate.since.push(record);
                    candidate.since_bytes += size;
                }
            }
            Frame::Part(key, value) => {
                let record = M::decode(&key, &value).ok_or(LoadError::Unreadable(offset))?;
                let candidate = self.candidate.as_mut().ok_or(LoadError::BrokenCheckpoint(offset))?;
                candidate.machine.replay(&record);
                candidate.parts += 1;
                candidate.bytes += size;
            }
            Frame::Begin => {
                let machine = (self.make)();
                let candidate = Candidate { begin: offset, machine, parts: 0, bytes: 0, since: vec![], since_bytes: 0 };
                self.candidate = Some(candidate);
            }
            Frame::End { begin, parts } => {
                let candidate = self.candidate.take().filter(|c| (c.begin, c.parts) == (begin, parts));
                self.adopt(candidate.ok_or(LoadError::BrokenCheckpoint(offset))?);
            }
        }
        Ok(())
    }

    fn adopt(&mut self, mut candidate: Candidate<M>) {
        for record in &candidate.since {
            candidate.machine.replay(record);
        }
        self.machine = candidate.machine;
        self.is_whole = true;
        self.bytes = candidate.since_bytes;
        self.checkpoint_bytes = candidate.bytes;
    }

    /// The log is at its end.
    pub fn finish(self) -> Result<Loaded<M>, LoadError> {
        if !self.is_whole {
            return Err(LoadError::Incomplete(self.log_start));
        }
        Ok(Loaded { machine: self.machine, grown: self.bytes, checkpoint_bytes: self.checkpoint_bytes })
    }
}
