//! A batch in a [`Queue`](super::Queue): what is known of it, how it is sent, how it ends.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use taffrail_proto::record::BatchProducer;
use taffrail_proto::record::header::set_producer;
use tokio::time::Instant;

use super::Promise;
use crate::error::{Error, ErrorKind, RequestOutcome};
use crate::producer::accumulator::SealedBatch;
use crate::producer::delivery::{BatchResult, BatchState};

/// What is known of a batch that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attempted {
    /// It was not sent yet, or every try was refused without effect.
    NotStored,
    /// A try went unanswered, or nobody knows its outcome.
    MaybeStored,
}

/// What the stream has said of a batch in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Awaited,
    /// Refused: to be sent again.
    Again,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) batch: SealedBatch,
    /// Given at the first sending.
    pub(super) sequence: Option<i32>,
    pub(super) attempted: Attempted,
    pub(super) answer: Answer,
    pub(super) correlation: u32,
    /// Its end was told (its time ran out) while its answer is awaited.
    pub(super) ended: bool,
}

impl Entry {
    pub(super) fn deadline(&self, promise: &Promise) -> Instant {
        self.batch.opened + promise.delivery_timeout
    }

    pub(super) fn outcome(&self) -> RequestOutcome {
        match (self.attempted, self.answer) {
            (Attempted::NotStored, _) => RequestOutcome::NotApplied,
            (Attempted::MaybeStored, _) => RequestOutcome::Unknown,
        }
    }

    /// Ends it, unless its end was told before.
    pub(super) fn end(&self, result: BatchResult, ended: &mut Vec<Ended>) {
        if !self.ended {
            ended.push(self.ended_now(result));
        }
    }

    /// What is told of its end.
    pub(super) fn ended_now(&self, result: BatchResult) -> Ended {
        let SealedBatch { state, memory, records, opened, .. } = &self.batch;
        Ended { state: state.clone(), result, memory: *memory, records: *records, opened: *opened }
    }
}

/// A batch that came to its end.
#[derive(Debug)]
pub(in crate::producer) struct Ended {
    pub(in crate::producer) state: Arc<BatchState>,
    pub(in crate::producer) result: BatchResult,
    /// Of the batch, for the books.
    pub(in crate::producer) memory: usize,
    pub(in crate::producer) records: i32,
    pub(in crate::producer) opened: Instant,
}

/// A batch to be sent now.
#[derive(Debug)]
pub(in crate::producer) struct Sending {
    pub(in crate::producer) correlation: u32,
    pub(in crate::producer) bytes: Bytes,
    /// The partition was refused on this stream: tell the broker to take it up again first.
    pub(in crate::producer) resume: bool,
    /// It was sent before.
    pub(in crate::producer) retry: bool,
}

pub(super) fn timed_out(promise: &Promise, outcome: RequestOutcome, why: Option<&Error>) -> Error {
    let seconds = promise.delivery_timeout;
    let cause = why.map(|e| format!(" (last fault: {e})")).unwrap_or_default();
    let message = format!("not acknowledged within {seconds:?}{cause}: check the broker, or raise delivery_timeout");
    Error::transient(ErrorKind::Timeout, outcome, message)
}

/// The batch with a producer's identity in its header; copied only if somebody else still holds it.
pub(super) fn stamped(batch: Bytes, producer: BatchProducer) -> Bytes {
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    set_producer(&mut batch, producer);
    batch.freeze()
}
