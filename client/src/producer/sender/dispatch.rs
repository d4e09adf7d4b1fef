//! From queues to links and back: batches out, answers in, streams that open and break, identities.

use std::sync::Arc;

use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{InitProducerRequest, PartitionBatch, ProduceAck, ProduceOpen, ProducerIdentity, produce_ack};
use tokio::time::Instant;

use super::{Event, NO_LEADER, Sender, Timer};
use crate::client::{Retry, Shared};
use crate::connection::Purpose;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::link::{Link, LinkEvent, Tagged};
use crate::producer::queue::{Identity, Sending, Wants};

/// A correlation id names partition and batch, so that an answer finds both.
fn correlation_id(slot: u32, batch: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(batch)
}

fn slot_and_batch(correlation_id: u64) -> (u32, u32) {
    ((correlation_id >> 32) as u32, correlation_id as u32)
}

impl Sender {
    /// Looks at every partition on the list, one batch at a time, so that none starves another.
    pub(super) fn dispatch(&mut self, now: Instant) {
        while let Some(slot) = self.ready.pop_front() {
            let Some(partition) = self.partitions.get_mut(&slot) else { continue };
            partition.listed = false;
            match partition.queue.wants(now) {
                Wants::Nothing => {}
                Wants::Wait(at) => {
                    self.timers.insert((at, Timer::Partition(slot)));
                }
                Wants::Identity(than) => self.want_identity(slot, than),
                Wants::Send => self.dispatch_one(slot, now),
            }
        }
        self.links.values_mut().for_each(Link::send_gathered);
    }

    fn dispatch_one(&mut self, slot: u32, now: Instant) {
        let Some(endpoint) = self.route(slot) else {
            self.timers.insert((now + NO_LEADER, Timer::Partition(slot)));
            self.renew_metadata();
            return;
        };
        let Some(partition) = self.partitions.get_mut(&slot) else { return };
        let link = self.links.entry(endpoint.clone()).or_insert_with(|| Link::new(endpoint.clone(), now));
        if !link.has_room(partition.queue.next_size()) {
            link.blocked.push(slot);
            partition.parked = true;
            if link.connects_at().is_some_and(|at| at <= now) {
                self.connect(&endpoint);
            }
            return;
        }
        let Some(Sending { correlation, bytes, resume, retry }) = partition.queue.send() else { return };
        partition.endpoint = Some(endpoint);
        let (topic, number) = (&partition.buffer.topic, partition.buffer.partition);
        if resume {
            link.resume(topic, number);
        }
        self.counters.sent(bytes.len(), retry);
        // What nobody answers must not be refused: it is passed on if this is not the leader any more.
        let is_answered = self.settings.acks.to_wire() != taffrail_proto::v1::Acks::None;
        let snapshot = is_answered.then(|| self.shared.metadata.snapshot());
        let batch = PartitionBatch {
            correlation_id: correlation_id(slot, correlation),
            topic: topic.to_string(),
            partition: number,
            batch: bytes,
            leader_epoch: snapshot.and_then(|snapshot| snapshot.leader_epoch(topic, number)),
            ..PartitionBatch::default()
        };
        link.batch(batch, now);
        self.look_at(slot);
    }

    /// The endpoint for a partition's next batch: where its others are in flight, else its leader's.
    fn route(&self, slot: u32) -> Option<Arc<str>> {
        let partition = self.partitions.get(&slot)?;
        if !partition.queue.is_idle() {
            return partition.endpoint.clone();
        }
        let snapshot = self.shared.metadata.snapshot();
        let leader = snapshot.leader(&partition.buffer.topic, partition.buffer.partition)?;
        match &partition.endpoint {
            Some(endpoint) if **endpoint == *leader => Some(endpoint.clone()),
            _ => Some(leader.into()),
        }
    }

    fn connect(&mut self, endpoint: &Arc<str>) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        if link.connects_at().is_none_or(|at| at > Instant::now()) {
            return;
        }
        let open =
            ProduceOpen { acks: self.settings.acks.to_wire().into(), client_id: self.shared.config.client_id.clone() };
        let events = self.events.0.clone();
        match self.shared.connections.place(Purpose::Produce, endpoint) {
            Ok(place) => link.connect(place, open, move |tagged| events.send(Event::Link(tagged)).is_ok()),
            Err(error) => self.on_lost(endpoint, &error),
        }
    }

    pub(super) fn on_link(&mut self, Tagged { endpoint, generation, event }: Tagged) {
        let Some(link) = self.links.get_mut(&endpoint) else { return };
        if link.generation != generation {
            return;
        }
        match event {
            LinkEvent::Opened(max_in_flight) => link.opened(max_in_flight),
            LinkEvent::Acks(acks) => self.on_acks(&endpoint, acks),
            LinkEvent::Written(batches) => self.on_written(&endpoint, &batches),
            LinkEvent::Drain => {
                link.drain();
                self.renew_metadata();
            }
            LinkEvent::Closed(error) => return self.on_lost(&endpoint, &error),
        }
        self.unblock(&endpoint);
    }

    /// A link may have room again, or nothing more to wait for before it is left.
    pub(super) fn unblock(&mut self, endpoint: &Arc<str>) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        if link.is_drained() {
            let again = link.close(Instant::now(), rand::random());
            self.timers.insert((again, Timer::Link(endpoint.clone())));
            return;
        }
        let blocked = std::mem::take(&mut link.blocked);
        for slot in blocked {
            self.unpark(slot);
        }
    }

    fn on_acks(&mut self, endpoint: &Arc<str>, acks: Vec<ProduceAck>) {
        let now = Instant::now();
        for ProduceAck { correlation_id, outcome } in acks {
            if let Some(link) = self.links.get_mut(endpoint) {
                link.answered(correlation_id);
            }
            let (slot, batch) = slot_and_batch(correlation_id);
            let Some(partition) = self.partitions.get_mut(&slot) else { continue };
            // A former leader, whose answer nobody waits for.
            if partition.endpoint.as_ref() != Some(endpoint) {
                continue;
            }
            match outcome {
                Some(produce_ack::Outcome::Appended(appended)) => {
                    partition.queue.stored(batch, Some(appended), &mut self.ended);
                }
                Some(produce_ack::Outcome::Error(error)) => self.on_refused(slot, batch, &error.into(), now),
                // Answers of these kinds are for plain records, which this client does not send.
                Some(produce_ack::Outcome::Response(_)) | None => {}
            }
            self.look_at(slot);
        }
    }

    fn on_refused(&mut self, slot: u32, batch: u32, error: &Error, now: Instant) {
        let Some(partition) = self.partitions.get_mut(&slot) else { return };
        tracing::debug!(topic = &*partition.buffer.topic, partition = partition.buffer.partition, %error, "batch refused");
        partition.queue.refused(batch, error, now, rand::random(), &mut self.ended);
        if error.stale_metadata() {
            self.renew_metadata();
        }
        self.last_fault = Some(error.clone());
    }

    fn on_written(&mut self, endpoint: &Arc<str>, batches: &[u64]) {
        for id in batches {
            if let Some(link) = self.links.get_mut(endpoint) {
                link.answered(*id);
            }
            let (slot, batch) = slot_and_batch(*id);
            if let Some(partition) = self.partitions.get_mut(&slot) {
                partition.queue.stored(batch, None, &mut self.ended);
                self.look_at(slot);
            }
        }
    }

    /// A stream broke, or could not be opened.
    pub(super) fn on_lost(&mut self, endpoint: &Arc<str>, error: &Error) {
        let Some(link) = self.links.get_mut(endpoint) else { return };
        tracing::debug!(%endpoint, %error, "produce stream lost");
        let again = link.close(Instant::now(), rand::random());
        self.timers.insert((again, Timer::Link(endpoint.clone())));
        let blocked = std::mem::take(&mut link.blocked);
        for (slot, partition) in &mut self.partitions {
            if partition.endpoint.as_ref() != Some(endpoint) && !blocked.contains(slot) {
                continue;
            }
            partition.parked = false;
            if error.retriable() {
                partition.queue.disconnected(error, &mut self.ended);
            } else {
                partition.queue.fail_all(error, &mut self.ended);
            }
        }
        self.last_fault = Some(error.clone());
        self.renew_metadata();
        self.look_at_all();
    }

    /// Asks for metadata in the background, once at a time.
    fn renew_metadata(&mut self) {
        if std::mem::replace(&mut self.metadata_asked, true) {
            return;
        }
        let (shared, events) = (self.shared.clone(), self.events.0.clone());
        tokio::spawn(async move {
            if let Err(error) = shared.renew_metadata().await {
                tracing::debug!(%error, "metadata not renewed");
            }
            let _ = events.send(Event::MetadataAsked);
        });
    }

    fn want_identity(&mut self, slot: u32, than: Option<Identity>) {
        match self.identity {
            // Another partition has got a new one since.
            Some(identity) if Some(identity) != than => self.give_identity(slot, identity),
            _ => {
                self.identity_waiters.push(slot);
                if let Some(partition) = self.partitions.get_mut(&slot) {
                    partition.parked = true;
                }
                if !self.identity_asked {
                    self.ask_identity(than);
                }
            }
        }
    }

    fn give_identity(&mut self, slot: u32, identity: Identity) {
        if let Some(partition) = self.partitions.get_mut(&slot) {
            partition.queue.adopt(identity, &mut self.ended);
            self.look_at(slot);
        }
    }

    pub(super) fn ask_identity(&mut self, than: Option<Identity>) {
        self.identity_asked = true;
        let current = than.or(self.identity).map(|i| ProducerIdentity { id: i.id, epoch: i32::from(i.epoch) });
        let (shared, events) = (self.shared.clone(), self.events.0.clone());
        tokio::spawn(async move {
            let _ = events.send(Event::Identity(init_producer(&shared, current).await));
        });
    }

    pub(super) fn on_identity(&mut self, identity: Result<Identity>) {
        match identity {
            Ok(identity) => {
                self.identity_asked = false;
                self.identity = Some(identity);
                self.identity_backoff.reset();
                for slot in std::mem::take(&mut self.identity_waiters) {
                    self.unpark(slot);
                }
            }
            Err(error) if error.retriable() => {
                let again = Instant::now() + self.identity_backoff.next_after(error.retry_after(), rand::random());
                self.last_fault = Some(error);
                self.timers.insert((again, Timer::Identity));
            }
            Err(error) => {
                self.identity_asked = false;
                for slot in std::mem::take(&mut self.identity_waiters) {
                    if let Some(partition) = self.partitions.get_mut(&slot) {
                        partition.queue.fail_all(&error, &mut self.ended);
                    }
                    self.unpark(slot);
                }
            }
        }
    }
}

async fn init_producer(shared: &Shared, current: Option<ProducerIdentity>) -> Result<Identity> {
    let request = InitProducerRequest { current };
    let answer = shared
        .call(Retry::Always, request, |c, r| async move { ProducerClient::new(c).init_producer(r).await })
        .await?;
    let told = answer.producer.filter(|p| p.id >= 0);
    let identity =
        told.and_then(|p| Some(Identity { id: p.id, epoch: i16::try_from(p.epoch).ok().filter(|e| *e >= 0)? }));
    identity.ok_or_else(|| Error::local(ErrorKind::Internal, "the broker gave no valid producer id: upgrade it"))
}
