//! One partition's way of batches to its leader, as a state machine: order, sequence numbers, retries, deadlines.
//!
//! Pure: time is passed in, what ended is handed out in [`Ended`], and the sender does what [`Queue::wants`] says. It knows
//! no connection; "the stream" is whatever carries the batches now, and [`Queue::disconnected`] tells that it broke.
//!
//! What holds:
//!
//! - Batches are sent in the order in which they were pushed, and after a refusal from the first one that is missing.
//! - A batch keeps its sequence number from its first sending until it is known not to have been stored (P3): after a lost
//!   stream the unanswered ones are sent again as they were.
//! - Where a number was given up (a batch failed or ran out of time), or the broker does not know the producer, the queue
//!   takes a new identity, once nothing is in flight. Batches that may have been stored under the old one then fail with
//!   an unknown outcome: to send them under the new one could store them twice.
//! - Every batch ends exactly once, at its deadline at the latest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::record::BatchProducer;
use taffrail_proto::record::header::add_to_sequence;
use taffrail_proto::v1::{Appended, Reason};
use tokio::time::Instant;

use super::accumulator::SealedBatch;
use super::delivery::BatchState;
use crate::error::{Error, ErrorKind, RequestOutcome};
use crate::retry::Backoff;

mod entry;

use self::entry::{Answer, Attempted, Entry, stamped, timed_out};
pub(super) use self::entry::{Ended, Sending};

/// What the producer promised, as far as a queue is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// Batches carry sequence numbers.
    pub(super) idempotent: bool,
    /// Passing faults are tried again.
    pub(super) retries: bool,
    /// Batches of the partition that may be unanswered.
    pub(super) max_in_flight: usize,
    /// From a batch's first record to its end.
    pub(super) delivery_timeout: Duration,
}

/// Producer id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// What a queue needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// Nothing, until something happens.
    Nothing,
    /// To be asked again at this time.
    Wait(Instant),
    /// [`Queue::adopt`], with an identity that is newer than this one.
    Identity(Option<Identity>),
    /// [`Queue::send`].
    Send,
}

/// Batches of one partition.
#[derive(Debug)]
pub(super) struct Queue {
    promise: Promise,
    /// To be sent, in order; those that were sent before come first.
    waiting: VecDeque<Entry>,
    /// Sent on this stream, in order.
    in_flight: VecDeque<Entry>,
    identity: Option<Identity>,
    next_sequence: i32,
    /// A sequence number was given up: a new identity is needed.
    hole: bool,
    /// A batch was refused on this stream.
    resume: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
    correlation: u32,
}

impl Queue {
    pub(super) fn new(promise: Promise) -> Self {
        Self {
            promise,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            identity: None,
            next_sequence: 0,
            hole: false,
            resume: false,
            not_before: None,
            backoff: Backoff::default(),
            correlation: 0,
        }
    }

    /// Adds a batch behind the others.
    pub(super) fn push(&mut self, batch: SealedBatch) {
        self.waiting.push_back(Entry {
            batch,
            sequence: None,
            attempted: Attempted::NotStored,
            answer: Answer::Awaited,
            correlation: 0,
            ended: false,
        });
    }

    /// Nothing waits and nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Nothing is unanswered on the stream: the queue may move to another.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// All batches that have not ended, oldest first.
    pub(super) fn states(&self) -> impl Iterator<Item = Arc<BatchState>> {
        let entries = self.in_flight.iter().chain(&self.waiting);
        entries.filter(|e| !e.ended).map(|e| e.batch.state.clone())
    }

    /// What to do next.
    pub(super) fn wants(&self, now: Instant) -> Wants {
        if self.waiting.is_empty() || self.in_flight.len() >= self.promise.max_in_flight || self.is_halted() {
            return Wants::Nothing;
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Wants::Wait(at);
        }
        if self.promise.idempotent && (self.identity.is_none() || self.hole) {
            return if self.in_flight.is_empty() { Wants::Identity(self.identity) } else { Wants::Nothing };
        }
        Wants::Send
    }

    /// Size of the batch that [`send`](Self::send) would give.
    pub(super) fn next_size(&self) -> usize {
        self.waiting.front().map_or(0, |e| e.batch.bytes.len())
    }

    /// A batch was refused and others are unanswered: they will be refused as well, and order needs all of them.
    fn is_halted(&self) -> bool {
        self.in_flight.iter().any(|e| e.answer == Answer::Again)
    }

    /// Takes the next batch, numbered. Only when [`wants`](Self::wants) says so.
    pub(super) fn send(&mut self) -> Option<Sending> {
        let mut entry = self.waiting.pop_front()?;
        let retry = entry.sequence.is_some();
        if let (None, Some(identity)) = (entry.sequence, self.identity) {
            let producer = BatchProducer { id: identity.id, epoch: identity.epoch, first_sequence: self.next_sequence };
            entry.batch.bytes = stamped(std::mem::take(&mut entry.batch.bytes), producer);
            entry.sequence = Some(self.next_sequence);
            self.next_sequence = add_to_sequence(self.next_sequence, entry.batch.records);
        }
        self.correlation = self.correlation.wrapping_add(1);
        entry.correlation = self.correlation;
        entry.answer = Answer::Awaited;
        let resume = std::mem::take(&mut self.resume);
        let sending = Sending { correlation: entry.correlation, bytes: entry.batch.bytes.clone(), resume, retry };
        self.in_flight.push_back(entry);
        Some(sending)
    }

    /// A batch is in the log; `None`: it was handed to the network and no answer will come.
    pub(super) fn stored(&mut self, correlation: u32, appended: Option<Appended>, ended: &mut Vec<Ended>) {
        let Some(at) = self.find(correlation) else { return };
        let Some(entry) = self.in_flight.remove(at) else { return };
        self.backoff.reset();
        entry.end(Ok(appended), ended);
        self.requeue();
    }

    /// A batch was refused, or nobody knows. `random` in 0..1.
    pub(super) fn refused(
        &mut self,
        correlation: u32,
        error: &Error,
        now: Instant,
        random: f64,
        ended: &mut Vec<Ended>,
    ) {
        // Also where the batch is not known: with acks none it has ended when it was sent.
        self.resume = true;
        let Some(at) = self.find(correlation) else { return };
        if error.outcome() == RequestOutcome::Unknown {
            self.in_flight[at].attempted = Attempted::MaybeStored;
        }
        match self.verdict(at, error) {
            Verdict::Stored => return self.stored(correlation, Some(Appended::default()), ended),
            Verdict::Fail => self.fail(at, error, ended),
            Verdict::NewIdentity => {
                self.hole = true;
                self.again(at, error, now, random);
            }
            Verdict::Again => self.again(at, error, now, random),
        }
        self.requeue();
    }

    fn verdict(&self, at: usize, error: &Error) -> Verdict {
        match error.reason() {
            _ if error.outcome() == RequestOutcome::Applied => Verdict::Stored,
            _ if !self.promise.retries => Verdict::Fail,
            Reason::UnknownProducer => Verdict::NewIdentity,
            // With an earlier one in flight that one is missing; else what is missing was stored once and is lost.
            Reason::OutOfSequence if at == 0 => Verdict::NewIdentity,
            Reason::OutOfSequence | Reason::PrecedingFailed => Verdict::Again,
            _ if error.worth_a_retry() => Verdict::Again,
            _ => Verdict::Fail,
        }
    }

    fn again(&mut self, at: usize, error: &Error, now: Instant, random: f64) {
        self.in_flight[at].answer = Answer::Again;
        // Those behind a refused batch wait with it, not longer.
        if error.reason() != Reason::PrecedingFailed {
            let until = now + self.backoff.next_after(error.retry_after(), random);
            self.not_before = self.not_before.max(Some(until));
        }
    }

    fn fail(&mut self, at: usize, error: &Error, ended: &mut Vec<Ended>) {
        let Some(entry) = self.in_flight.remove(at) else { return };
        self.hole |= entry.sequence.is_some();
        let outcome = match error.outcome() {
            RequestOutcome::NotApplied => entry.outcome(),
            outcome => outcome,
        };
        entry.end(Err(error.with(outcome, "the batch was refused")), ended);
    }

    /// When all that is in flight has been answered, what was refused goes back to the front, in order.
    fn requeue(&mut self) {
        if self.in_flight.iter().any(|e| e.answer == Answer::Awaited) {
            return;
        }
        while let Some(entry) = self.in_flight.pop_back() {
            if entry.ended {
                self.hole |= entry.sequence.is_some();
            } else {
                self.waiting.push_front(entry);
            }
        }
    }

    /// The stream broke: what is unanswered may be stored or not.
    pub(super) fn disconnected(&mut self, error: &Error, ended: &mut Vec<Ended>) {
        self.resume = false;
        for entry in &mut self.in_flight {
            if entry.answer == Answer::Awaited {
                entry.attempted = Attempted::MaybeStored;
                entry.answer = Answer::Again;
            }
        }
        if !self.promise.retries {
            for entry in self.in_flight.drain(..) {
                let outcome = entry.outcome();
                entry.end(Err(error.with(outcome, "the connection broke before the answer")), ended);
            }
        }
        self.requeue();
    }

    /// From now on batches carry this identity, numbered from 0.
    pub(super) fn adopt(&mut self, identity: Identity, ended: &mut Vec<Ended>) {
        debug_assert!(self.in_flight.is_empty(), "an identity changes only when nothing is in flight");
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.hole = false;
        let numbered = self.waiting.iter().take_while(|e| e.sequence.is_some()).count();
        let again: Vec<_> = self.waiting.drain(..numbered).collect();
        for mut entry in again.into_iter().rev() {
            if entry.attempted == Attempted::MaybeStored {
                let message = "the batch was sent and its answer lost, and the broker does not know this producer any more: \
                               it may be stored or not; look in the topic before sending it again";
                let error = Error::transient(ErrorKind::Unavailable, RequestOutcome::Unknown, message);
                entry.end(Err(error), ended);
            } else {
                entry.sequence = None;
                self.waiting.push_front(entry);
            }
        }
    }

    /// Ends the batches whose time is over. `why` is the last fault seen.
    pub(super) fn expire(&mut self, now: Instant, why: Option<&Error>, ended: &mut Vec<Ended>) {
        let promise = self.promise;
        for entry in self.in_flight.iter_mut().filter(|e| !e.ended && e.deadline(&promise) <= now) {
            let unanswered = entry.answer == Answer::Awaited;
            let outcome = if unanswered { RequestOutcome::Unknown } else { entry.outcome() };
            entry.ended = true;
            ended.push(entry.ended_now(Err(timed_out(&promise, outcome, why))));
        }
        while let Some(entry) = self.waiting.pop_front_if(|e| e.deadline(&promise) <= now) {
            self.hole |= entry.sequence.is_some();
            let outcome = entry.outcome();
            entry.end(Err(timed_out(&promise, outcome, why)), ended);
        }
    }

    /// Ends everything: the producer gives up.
    pub(super) fn fail_all(&mut self, error: &Error, ended: &mut Vec<Ended>) {
        for mut entry in self.in_flight.drain(..).chain(self.waiting.drain(..)) {
            if entry.answer == Answer::Awaited && entry.correlation != 0 {
                entry.attempted = Attempted::MaybeStored;
            }
            self.hole |= entry.sequence.is_some();
            let outcome = entry.outcome();
            entry.end(Err(error.with(outcome, "the batch was given up")), ended);
        }
    }

    fn find(&self, correlation: u32) -> Option<usize> {
        self.in_flight.iter().position(|e| e.correlation == correlation && e.answer == Answer::Awaited)
    }
}

/// What becomes of a refused batch.
enum Verdict {
    Stored,
    Again,
    NewIdentity,
    Fail,
}

#[cfg(test)]
mod tests;
