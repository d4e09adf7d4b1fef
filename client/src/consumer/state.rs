//! The partitions of a consumer as a state machine: what to read next of each, what came, what to hand out.
//!
//! Pure: time is passed in; what has to be asked of brokers is handed out as [`Action`]s. It knows no connection; a
//! partition is "on" an endpoint's stream or on none.
//!
//! What holds: the records of a partition are handed out in the order of their offsets, none twice and none left out,
//! through lost streams and moved leaders; what was received before a seek or a pause is not handed out after it; every
//! byte received is given back as credit exactly once, when it is handed out or dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use taffrail_proto::record::BatchHeader;
use taffrail_proto::v1::{FetchAdd, FetchPartition, Reason};
use tokio::time::Instant;

use super::builder::{Position, ResetPolicy};
use crate::error::{Error, ErrorKind, RequestOutcome, Result};
use crate::retry::Backoff;

/// What is to be done for the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// These bytes of batches from that endpoint were handed out or dropped.
    Credit { endpoint: Arc<str>, bytes: u64 },
    /// Find the offset of a position; answer with [`State::resolved`] under this ticket.
    Resolve { slot: usize, ticket: u64, at: Position },
    /// Take a partition off that endpoint's stream.
    Remove { endpoint: Arc<str>, slot: usize },
    /// Leaders may have moved.
    RenewMetadata,
}

/// Data or an error of one partition, decoded as far as needed.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) subscription: u64,
    pub(super) batches: Vec<(BatchHeader, Bytes)>,
    pub(super) error: Option<Error>,
}

/// What is handed out.
#[derive(Debug)]
pub(super) enum Item {
    Batch(Fetched),
    Error(Error),
}

/// A batch with the part of it that is wanted.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) slot: usize,
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
    pub(super) from: i64,
    pub(super) until: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The offset to begin at is being looked up, under this ticket.
    Resolving(u64),
    /// Being read, or to be read.
    Reading,
    /// Read up to its end.
    Done,
    /// Failed; goes on after a seek.
    Failed,
    /// Not read any more, until it is assigned again.
    Unassigned,
}

/// An offset and the leader epoch of the record before it, where known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: i64,
    epoch: Option<i32>,
}

/// One partition.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    phase: Phase,
    /// Next to be handed out.
    position: Place,
    /// Next to be received.
    fetch: Place,
    /// Where to stop.
    end: Option<i64>,
    paused: bool,
    /// The stream it is on, and under which number.
    on: Option<(Arc<str>, u64)>,
    /// That stream is a follower's, which stands in for the leader.
    is_near: bool,
    /// A follower did not serve it: the leader does, at least until then.
    from_leader_until: Option<Instant>,
    not_before: Option<Instant>,
    backoff: Backoff,
    /// Rises with each seek and pause: what is buffered of an earlier one is void.
    era: u64,
}

impl PartitionState {
    fn at_end(&self) -> bool {
        self.end.is_some_and(|end| self.fetch.offset >= end)
    }
}

/// All partitions of a consumer.
#[derive(Debug)]
pub(super) struct State {
    partitions: Vec<PartitionState>,
    by_subscription: HashMap<u64, usize>,
    /// The last number given, to subscriptions and tickets.
    number: u64,
    policy: ResetPolicy,
    buffer: VecDeque<Buffered>,
    pub(super) buffered_bytes: u64,
    pub(super) actions: Vec<Action>,
}

#[derive(Debug)]
struct Buffered {
    item: Item,
    slot: usize,
    era: u64,
    endpoint: Arc<str>,
    bytes: u64,
}

impl State {
    pub(super) fn new(policy: ResetPolicy) -> Self {
        Self {
            partitions: Vec::new(),
            by_subscription: HashMap::new(),
            number: 0,
            policy,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            actions: Vec::new(),
        }
    }

    /// Adds a partition to be read from `offset` to `end`.
    pub(super) fn add(&mut self, topic: Arc<str>, partition: i32, offset: i64, end: Option<i64>) -> usize {
        let place = Place { offset, epoch: None };
        let mut state = PartitionState {
            topic,
            partition,
            phase: Phase::Reading,
            position: place,
            fetch: place,
            end,
            paused: false,
            on: None,
            is_near: false,
            from_leader_until: None,
            not_before: None,
            backoff: Backoff::default(),
            era: 0,
        };
        if state.at_end() {
            state.phase = Phase::Done;
        }
        self.partitions.push(state);
        self.partitions.len() - 1
    }

    pub(super) fn partition(&self, slot: usize) -> &PartitionState {
        &self.partitions[slot]
    }

    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        self.partitions.iter().position(|p| *p.topic == *topic && p.partition == partition)
    }

    /// Topic and number of each partition.
    pub(super) fn assignment(&self) -> Vec<(Arc<str>, i32)> {
        self.partitions.iter().map(|p| (p.topic.clone(), p.partition)).collect()
    }

    /// How many partitions of a topic are read.
    pub(super) fn count(&self, topic: &str) -> usize {
        self.partitions.iter().filter(|p| *p.topic == *topic).count()
    }

    /// Next offset to be handed out; `None` while it is being looked up.
    pub(super) fn position(&self, slot: usize) -> Option<i64> {
        let partition = &self.partitions[slot];
        (!matches!(partition.phase, Phase::Resolving(_))).then_some(partition.position.offset)
    }

    /// Nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        let over = |p: &PartitionState| matches!(p.phase, Phase::Done | Phase::Failed | Phase::Unassigned);
        self.buffer.is_empty() && self.partitions.iter().all(over)
    }

    /// Partitions that should be on a stream and are on none; and when the next other one should.
    pub(super) fn to_add(&self, now: Instant) -> (Vec<usize>, Option<Instant>) {
        let wanted = |p: &PartitionState| p.phase == Phase::Reading && !p.paused && p.on.is_none();
        let wanted = self.partitions.iter().enumerate().filter(|(_, p)| wanted(p));
        let (mut slots, mut next) = (Vec::new(), None::<Instant>);
        for (slot, partition) in wanted {
            match partition.not_before.filter(|at| *at > now) {
                None => slots.push(slot),
                Some(at) => next = Some(next.map_or(at, |n| n.min(at))),
            }
        }
        (slots, next)
    }

    /// Puts a partition on an endpoint's stream.
    pub(super) fn subscribe(&mut self, slot: usize, endpoint: Arc<str>) -> FetchAdd {
        self.number += 1;
        self.by_subscription.insert(self.number, slot);
        let partition = &mut self.partitions[slot];
        partition.on = Some((endpoint, self.number));
        partition.is_near = false;
        let place = partition.fetch;
        let wanted = FetchPartition {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: place.offset,
            last_epoch: place.epoch,
            ..FetchPartition::default()
        };
        FetchAdd { subscription: self.number, partition: Some(wanted) }
    }

    /// That endpoint's stream is gone.
    pub(super) fn lost(&mut self, endpoint: &str) {
        for partition in &mut self.partitions {
            if let Some((_, subscription)) = partition.on.take_if(|(on, _)| **on == *endpoint) {
                self.by_subscription.remove(&subscription);
            }
        }
    }

    /// Every partition on an endpoint's stream failed with it, for good.
    pub(super) fn refused(&mut self, endpoint: &Arc<str>, error: &Error) {
        for slot in 0..self.partitions.len() {
            let partition = &self.partitions[slot];
            if partition.phase == Phase::Reading && partition.on.as_ref().is_none_or(|(on, _)| on == endpoint) {
                self.unsubscribe(slot);
                self.fail(slot, error, endpoint.clone());
            }
        }
    }

    /// Data came from an endpoint.
    pub(super) fn received(&mut self, endpoint: &Arc<str>, data: Received, now: Instant, random: f64) {
        let bytes = |batch: &Bytes| batch.len() as u64;
        let Some(slot) = self.by_subscription.get(&data.subscription).copied() else {
            self.give_back(endpoint.clone(), data.batches.iter().map(|(_, b)| bytes(b)).sum());
            return;
        };
        for (header, batch) in data.batches {
            let size = bytes(&batch);
            match self.partitions[slot].take(header, batch, slot) {
                Some(fetched) => self.push(Item::Batch(fetched), slot, endpoint.clone(), size),
                None => self.give_back(endpoint.clone(), size),
            }
        }
        match data.error {
            Some(error) => self.on_error(slot, endpoint, &error, now, random),
            None => self.partitions[slot].backoff.reset(),
        }
        if self.partitions[slot].phase == Phase::Reading && self.partitions[slot].at_end() {
            self.partitions[slot].phase = Phase::Done;
            self.take_off(slot);
        }
    }

    /// The stream has dropped the partition: why decides how it goes on.
    fn on_error(&mut self, slot: usize, endpoint: &Arc<str>, error: &Error, now: Instant, random: f64) {
        self.unsubscribe(slot);
        let lost_place = matches!(error.reason(), Reason::OffsetOutOfRange | Reason::LogTruncated);
        if lost_place {
            return self.reset(slot, endpoint, error);
        }
        if self.partitions[slot].is_near {
            self.actions.push(Action::RenewMetadata);
            return self.partitions[slot].ask_leader(now);
        }
        if error.worth_a_retry() {
            self.actions.push(Action::RenewMetadata);
            let partition = &mut self.partitions[slot];
            partition.not_before = Some(now + partition.backoff.next_after(error.retry_after(), random));
            return;
        }
        self.fail(slot, error, endpoint.clone());
    }

    /// The position is not in the log any more: the reset policy says where to go on.
    fn reset(&mut self, slot: usize, endpoint: &Arc<str>, error: &Error) {
        let at = match (self.policy, error.reason(), error.log_end_offset()) {
            (ResetPolicy::Fail, ..) => return self.fail(slot, error, endpoint.clone()),
            // Nothing before the fork was lost: that is the earliest that was not read.
            (ResetPolicy::Earliest, Reason::LogTruncated, Some(fork)) => Position::Offset(fork),
            (ResetPolicy::Earliest, ..) => Position::Earliest,
            (ResetPolicy::Latest, ..) => Position::Latest,
        };
        tracing::warn!(topic = &*self.partitions[slot].topic, %error, "position reset by policy");
        // What was received before is handed out still; only where to go on changes.
        self.go_to(slot, at);
    }

    fn fail(&mut self, slot: usize, error: &Error, endpoint: Arc<str>) {
        let partition = &mut self.partitions[slot];
        partition.phase = Phase::Failed;
        let error = error.context(&format!("topic {:?}, partition {}", partition.topic, partition.partition));
        self.push(Item::Error(error), slot, endpoint, 0);
    }

    /// What was handed out could not be decoded: the partition stops before it.
    pub(super) fn damaged(&mut self, slot: usize) {
        self.take_off(slot);
        let partition = &mut self.partitions[slot];
        partition.era += 1;
        partition.phase = Phase::Failed;
    }

    /// The next item to be handed out. Batches move the position when [`handed_out`](Self::handed_out) is told.
    pub(super) fn pop(&mut self) -> Option<Item> {
        while let Some(buffered) = self.buffer.pop_front() {
            self.buffered_bytes -= buffered.bytes;
            self.give_back(buffered.endpoint, buffered.bytes);
            if self.partitions[buffered.slot].era == buffered.era {
                return Some(buffered.item);
            }
        }
        None
    }

    /// The application has everything before `offset`, the last of it from this leader epoch.
    pub(super) fn handed_out(&mut self, slot: usize, offset: i64, epoch: i32) {
        self.partitions[slot].position = Place { offset, epoch: Some(epoch) };
    }

    /// Goes on reading elsewhere; drops what was received.
    pub(super) fn seek(&mut self, slot: usize, at: Position) {
        self.drop_received(slot);
        self.go_to(slot, at);
        if let Phase::Reading = self.partitions[slot].phase {
            self.partitions[slot].position = self.partitions[slot].fetch;
        }
    }

    fn go_to(&mut self, slot: usize, at: Position) {
        self.number += 1;
        let ticket = self.number;
        let partition = &mut self.partitions[slot];
        partition.not_before = None;
        if let Position::Offset(offset) = at {
            partition.fetch = Place { offset, epoch: None };
            partition.phase = if partition.at_end() { Phase::Done } else { Phase::Reading };
        } else {
            partition.phase = Phase::Resolving(ticket);
            self.actions.push(Action::Resolve { slot, ticket, at });
        }
    }

    /// A position was looked up, or could not be.
    pub(super) fn resolved(&mut self, slot: usize, ticket: u64, offset: Result<i64>) {
        if self.partitions[slot].phase != Phase::Resolving(ticket) {
            return;
        }
        match offset {
            Ok(offset) => {
                self.go_to(slot, Position::Offset(offset));
                let buffered = self.buffer.iter().any(|b| b.slot == slot && b.era == self.partitions[slot].era);
                if !buffered {
                    self.partitions[slot].position = self.partitions[slot].fetch;
                }
            }
            Err(error) => self.fail(slot, &error, Arc::default()),
        }
    }

    /// Stops reading for a while.
    pub(super) fn pause(&mut self, slot: usize) {
        self.drop_received(slot);
        let partition = &mut self.partitions[slot];
        partition.paused = true;
        partition.fetch = partition.position;
        if partition.phase == Phase::Done && !partition.at_end() {
            partition.phase = Phase::Reading;
        }
    }

    /// Goes on where the application stopped.
    pub(super) fn resume(&mut self, slot: usize) {
        self.partitions[slot].paused = false;
    }

    fn drop_received(&mut self, slot: usize) {
        self.take_off(slot);
        self.partitions[slot].era += 1;
    }

    fn take_off(&mut self, slot: usize) {
        if let Some((endpoint, subscription)) = self.partitions[slot].on.take() {
            self.by_subscription.remove(&subscription);
            self.actions.push(Action::Remove { endpoint, slot });
        }
    }

    fn unsubscribe(&mut self, slot: usize) {
        if let Some((_, subscription)) = self.partitions[slot].on.take() {
            self.by_subscription.remove(&subscription);
        }
    }

    fn push(&mut self, item: Item, slot: usize, endpoint: Arc<str>, bytes: u64) {
        self.buffered_bytes += bytes;
        self.buffer.push_back(Buffered { item, slot, era: self.partitions[slot].era, endpoint, bytes });
    }

    fn give_back(&mut self, endpoint: Arc<str>, bytes: u64) {
        if bytes > 0 {
            self.actions.push(Action::Credit { endpoint, bytes });
        }
    }
}

impl PartitionState {
    /// Takes a batch that was received, unless nothing of it is wanted.
    fn take(&mut self, header: BatchHeader, bytes: Bytes, slot: usize) -> Option<Fetched> {
        let (from, until) = (self.fetch.offset, self.end.unwrap_or(i64::MAX));
        if header.next_offset() <= from || header.base_offset >= until {
            if header.base_offset >= until {
                self.fetch.offset = self.fetch.offset.max(until);
            }
            return None;
        }
        self.fetch = Place { offset: header.next_offset(), epoch: Some(header.leader_epoch) };
        (!header.is_control()).then_some(Fetched { slot, header, bytes, from, until })
    }
}

/// The partition is not read by this consumer.
pub(super) fn not_assigned(topic: &str, partition: i32) -> Error {
    let message =
        format!("partition {partition} of topic {topic:?} is not read by this consumer: add it when building");
    Error::local(ErrorKind::InvalidArgument, message)
}

/// A stream that ended without a fault of its own.
pub(crate) fn ended(message: &str) -> Error {
    Error::transient(ErrorKind::Unavailable, RequestOutcome::NotApplied, message)
}

mod assign;
mod near;
#[cfg(test)]
mod tests;
