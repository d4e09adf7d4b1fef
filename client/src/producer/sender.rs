//! The task that sends: takes sealed batches, asks each partition's queue what it wants, and gives its batches to the link
//! of its leader. It decides nothing about order or retries (the queues do) and nothing about bytes on the wire (the
//! links do).
//!
//! This file holds the loop and what wakes it; [`dispatch`](self::dispatch) the way of batches and answers.
//!
//! Lives until the producer is dropped and everything has ended. A partition is looked at only when something happened to
//! it; timers bring it back.

mod dispatch;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::accumulator::{Accumulator, PartitionBuffer};
use super::builder::{Delivery, Settings};
use super::link::{Link, Tagged, lost};
use super::queue::{Ended, Identity, Promise, Queue};
use super::topics::Topics;
use crate::client::Shared;
use crate::error::{Error, Result};
use crate::metadata::Snapshot;
use crate::metrics::ProducerCounters;
use crate::retry::Backoff;

/// How often deadlines are looked at, and streams that do not answer.
const TICK: Duration = Duration::from_millis(250);
/// A broker that leaves a batch unanswered for so long is taken for dead (Kafka's `request.timeout.ms`).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// When a partition without a leader is looked at again.
const NO_LEADER: Duration = Duration::from_millis(100);

/// What the application asks of the sender.
pub(super) enum Command {
    /// Answer when everything sent so far has ended.
    Flush(oneshot::Sender<Result<()>>),
}

/// What happened outside of the task.
enum Event {
    Link(Tagged),
    Identity(Result<Identity>),
    MetadataAsked,
}

/// What a timer brings back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Partition(u32),
    Link(Arc<str>),
    Identity,
}

struct Partition {
    buffer: Arc<PartitionBuffer>,
    queue: Queue,
    /// Where its batches in flight are.
    endpoint: Option<Arc<str>>,
    /// It stands in the list of those to be looked at.
    listed: bool,
    /// It waits for a link or an identity, which bring it back.
    parked: bool,
}

/// See the module.
pub(super) struct Sender {
    shared: Arc<Shared>,
    settings: Settings,
    promise: Promise,
    accumulator: Arc<Accumulator>,
    topics: Arc<Topics>,
    counters: Arc<ProducerCounters>,
    metadata: watch::Receiver<Arc<Snapshot>>,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    partitions: HashMap<u32, Partition>,
    links: HashMap<Arc<str>, Link>,
    /// Partitions to be looked at.
    ready: VecDeque<u32>,
    timers: BTreeSet<(Instant, Timer)>,
    identity: Option<Identity>,
    /// A new identity is being asked for, or will be.
    identity_asked: bool,
    identity_backoff: Backoff,
    /// Partitions that wait for it.
    identity_waiters: Vec<u32>,
    /// Metadata is being asked for.
    metadata_asked: bool,
    last_fault: Option<Error>,
    /// First failure since the last flush.
    failure: Arc<Mutex<Option<Error>>>,
    ended: Vec<Ended>,
}

impl Sender {
    pub(super) fn new(
        shared: Arc<Shared>,
        settings: Settings,
        accumulator: Arc<Accumulator>,
        topics: Arc<Topics>,
        counters: Arc<ProducerCounters>,
    ) -> Self {
        let promise = Promise {
            idempotent: settings.delivery == Delivery::ExactlyOnce,
            retries: settings.delivery != Delivery::AtMostOnce,
            max_in_flight: settings.max_in_flight,
            delivery_timeout: settings.delivery_timeout,
        };
        Self {
            metadata: shared.metadata.subscribe(),
            shared,
            settings,
            promise,
            accumulator,
            topics,
            counters,
            events: mpsc::unbounded_channel(),
            partitions: HashMap::new(),
            links: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            identity: None,
            identity_asked: false,
            identity_backoff: Backoff::default(),
            identity_waiters: Vec::new(),
            metadata_asked: false,
            last_fault: None,
            failure: Arc::default(),
            ended: Vec::new(),
        }
    }

    /// The task. Ends when no producer is left and everything has ended.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let accumulator = self.accumulator.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            let wake_at = self.step();
            if !open && self.is_idle() {
                return;
            }
            tokio::select! {
                command = commands.recv(), if open => match command {
                    Some(Command::Flush(answer)) => self.on_flush(answer),
                    None => {
                        open = false;
                        self.accumulator.seal_all();
                    }
                },
                Some(event) = self.events.1.recv() => self.on_events(event),
                Ok(()) = self.metadata.changed() => self.on_metadata(),
                () = accumulator.woken() => {}
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
                _ = tick.tick(), if !self.is_idle() => self.on_tick(),
            }
        }
    }

    /// Everything that can be done now; answers when to come back.
    fn step(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let lingers_until = self.accumulator.seal_lingered(now);
        self.take_sealed();
        self.fire_timers(now);
        self.dispatch(now);
        self.settle(now);
        lingers_until.into_iter().chain(self.timers.first().map(|(at, _)| *at)).min()
    }

    /// Nothing waits for anything.
    fn is_idle(&self) -> bool {
        self.accumulator.buffered() == 0
    }

    fn take_sealed(&mut self) {
        let (partitions, ready, promise) = (&mut self.partitions, &mut self.ready, self.promise);
        self.accumulator.take_sealed(|buffer, batch| {
            let partition = partitions.entry(buffer.slot).or_insert_with(|| Partition {
                buffer: buffer.clone(),
                queue: Queue::new(promise),
                endpoint: None,
                listed: false,
                parked: false,
            });
            partition.queue.push(batch);
            if !partition.parked && !std::mem::replace(&mut partition.listed, true) {
                ready.push_back(buffer.slot);
            }
        });
    }

    fn fire_timers(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            match self.timers.pop_first() {
                Some((_, Timer::Partition(slot))) => self.look_at(slot),
                // Who waits for it is looked at again, and connects to it. While nobody does, it is left alone: it may be away,
                // and an attempt that goes to where it was would keep those who need it later waiting.
                Some((_, Timer::Link(endpoint))) => self.unblock(&endpoint),
                Some((_, Timer::Identity)) => self.ask_identity(None),
                None => {}
            }
        }
    }

    /// Puts a partition on the list of those to be looked at, unless it waits for something that brings it back.
    fn look_at(&mut self, slot: u32) {
        if let Some(partition) = self.partitions.get_mut(&slot)
            && !partition.parked
            && !std::mem::replace(&mut partition.listed, true)
        {
            self.ready.push_back(slot);
        }
    }

    /// What the partition waited for is there.
    fn unpark(&mut self, slot: u32) {
        if let Some(partition) = self.partitions.get_mut(&slot) {
            partition.parked = false;
        }
        self.look_at(slot);
    }

    /// Looks again at every partition that has something to do.
    fn look_at_all(&mut self) {
        let slots: Vec<_> = self.partitions.iter().filter(|(_, p)| !p.queue.is_empty()).map(|(s, _)| *s).collect();
        for slot in slots {
            self.unpark(slot);
        }
    }

    fn on_flush(&mut self, answer: oneshot::Sender<Result<()>>) {
        self.accumulator.seal_all();
        self.take_sealed();
        let pending: Vec<_> = self.partitions.values().flat_map(|p| p.queue.states()).collect();
        let failure = self.failure.clone();
        tokio::spawn(async move {
            for batch in pending {
                // A failure is in `failure` before the batch ends.
                let _ = batch.wait().await;
            }
            let failed = failure.lock().take();
            let _ = answer.send(failed.map_or(Ok(()), Err));
        });
    }

    fn on_metadata(&mut self) {
        let snapshot = self.metadata.borrow_and_update().clone();
        self.topics.refresh(&snapshot);
        self.leave_former_leaders(&snapshot);
        self.look_at_all();
    }

    /// What a broker has not answered that does not lead any more goes to the new leader, under the numbers that it has: the
    /// former one may be asleep, and can acknowledge nothing that the new one does not know. Without numbers it could be
    /// stored twice, so there the answer is awaited, or the end of the stream.
    fn leave_former_leaders(&mut self, snapshot: &Snapshot) {
        let error = lost("another broker leads the partition now");
        for partition in self.partitions.values_mut().filter(|p| self.promise.idempotent && !p.queue.is_idle()) {
            let leader = snapshot.leader(&partition.buffer.topic, partition.buffer.partition);
            if leader.is_some() && leader != partition.endpoint.as_deref() {
                partition.queue.disconnected(&error, &mut self.ended);
            }
        }
    }

    fn on_events(&mut self, first: Event) {
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Link(tagged) => self.on_link(tagged),
                Event::Identity(identity) => self.on_identity(identity),
                Event::MetadataAsked => self.metadata_asked = false,
            }
            next = self.events.1.try_recv().ok();
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for partition in self.partitions.values_mut() {
            partition.queue.expire(now, self.last_fault.as_ref(), &mut self.ended);
        }
        if !self.ended.is_empty() {
            self.look_at_all();
        }
        let silent = |l: &&Link| l.oldest().is_some_and(|since| since + ANSWER_TIMEOUT <= now);
        let silent: Vec<_> = self.links.values().filter(silent).map(|l| l.endpoint.clone()).collect();
        for endpoint in silent {
            self.on_lost(&endpoint, &lost("the broker left a batch unanswered for 30 s"));
        }
    }

    /// Tells the ends of batches to whom they concern.
    fn settle(&mut self, now: Instant) {
        for Ended { state, result, memory, records, opened } in self.ended.drain(..) {
            match &result {
                Ok(_) => self.counters.stored(records, now.saturating_duration_since(opened)),
                Err(error) => {
                    self.counters.failed(records);
                    self.failure.lock().get_or_insert_with(|| error.clone());
                }
            }
            state.complete(result);
            self.accumulator.release(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Client;
    use crate::producer::accumulator::SealedBatch;
    use crate::producer::delivery::BatchState;
    use crate::producer::{Acks, Compression};

    fn sender() -> Sender {
        let settings = Settings {
            delivery: Delivery::AtLeastOnce,
            acks: Acks::All,
            compression: Compression::None,
            linger: Duration::ZERO,
            batch_size: 64 << 10,
            buffer_memory: 1 << 20,
            delivery_timeout: Duration::from_mins(1),
            max_in_flight: 5,
        };
        let accumulator = Arc::new(Accumulator::new(settings.clone()));
        let shared = Client::connect("localhost:1").unwrap().0;
        Sender::new(shared, settings, accumulator, Arc::default(), Arc::new(ProducerCounters::new()))
    }

    #[tokio::test]
    async fn a_broker_that_was_lost_is_connected_to_when_a_partition_waits_for_it_and_not_before() {
        let (mut sender, now) = (sender(), Instant::now());
        let endpoint: Arc<str> = "localhost:1".into();
        sender.links.insert(endpoint.clone(), Link::new(endpoint.clone(), now));
        let connects = |sender: &mut Sender| {
            sender.timers.insert((now, Timer::Link(endpoint.clone())));
            sender.step();
            sender.links[&endpoint].connects_at().is_none()
        };
        assert!(!connects(&mut sender), "nobody waits for it");

        let mut queue = Queue::new(sender.promise);
        for _ in 0..2 {
            let (bytes, state) = (Bytes::from_static(b"batch"), BatchState::new(0));
            queue.push(SealedBatch { bytes, records: 1, memory: 5, opened: now, state });
        }
        // One is in flight there, so that the other one has no other way.
        queue.send().unwrap();
        let (buffer, route) = (PartitionBuffer::new("t".into(), 0, 0), Some(endpoint.clone()));
        sender.partitions.insert(0, Partition { buffer, queue, endpoint: route, listed: false, parked: true });
        sender.links.get_mut(&endpoint).unwrap().blocked.push(0);
        assert!(connects(&mut sender), "a partition waits for it");
    }
}
