//! Reading records: partitions in order, through lost connections and moved leaders.
//!
//! - [`builder`], [`record`]: what the application sees;
//! - [`state`]: the partitions, as a state machine;
//! - [`assign`]: reading for a group, whose partitions come and go;
//! - [`link`]: one broker's fetch stream; [`near`]: followers that stand in for leaders;
//! - this file: the shell, which runs in the application's own calls. Only the links have tasks.

mod assign;
mod builder;
mod link;
mod near;
mod record;
mod state;

use std::collections::HashMap;
use std::sync::Arc;

use taffrail_proto::record::Scratch;
use taffrail_proto::record::reader::records;
use taffrail_proto::record::walk::max_unpacked_bytes;
use taffrail_proto::v1::FetchRemove;
use taffrail_proto::v1::fetch_stream_request::Frame;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::builder::start_offset;
use self::link::{Link, LinkEvent, Tagged};
use self::record::bad_batch;
use self::state::{Action, Fetched, Item, State, not_assigned};
use crate::client::Shared;
use crate::connection::Purpose;
use crate::error::Result;
use crate::metadata::Snapshot;
use crate::metrics::ConsumerMetrics;

pub use self::builder::{ConsumerBuilder, Position, ResetPolicy};
pub(crate) use self::state::ended;

pub use self::record::{ConsumerRecord, Header, RecordBatch};

/// When a partition without a leader is looked at again.
const NO_LEADER: std::time::Duration = std::time::Duration::from_millis(100);

/// What happened outside of the application's calls.
enum Event {
    Resolved { slot: usize, ticket: u64, offset: Result<i64> },
    MetadataAsked,
}

/// Reads records; from [`Client::consumer`](crate::Client::consumer).
///
/// Records of a partition come in the order of their offsets, each once; partitions are interleaved as they come. Brokers
/// send ahead while the application works, up to the prefetch. After a failure of one partition the others go on;
/// [`seek`](Self::seek) takes it up again.
pub struct Consumer {
    shared: Arc<Shared>,
    state: State,
    links: HashMap<Arc<str>, Link>,
    link_events: (mpsc::UnboundedSender<Tagged>, mpsc::UnboundedReceiver<Tagged>),
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    metadata: watch::Receiver<Arc<Snapshot>>,
    metadata_asked: bool,
    /// Topics that are read whole.
    topics: Vec<String>,
    follow: bool,
    prefetch: u64,
    /// Followers there may stand in for leaders.
    zone: Option<String>,
    /// When it is to be looked who stands in for whom; as soon as the metadata changes too.
    near_again: Option<Instant>,
    scratch: Scratch,
    /// What `next` is going through.
    current: Option<(usize, RecordBatch)>,
    metrics: ConsumerMetrics,
}

impl Consumer {
    fn start(builder: &ConsumerBuilder, state: State, topics: Vec<String>) -> Self {
        let reader = Self::with_state(builder.shared.clone(), state, builder.prefetch).in_zone(builder.zone.clone());
        Self { topics, follow: builder.follow, ..reader }
    }

    fn with_state(shared: Arc<Shared>, state: State, prefetch: u64) -> Self {
        Self {
            state,
            links: HashMap::new(),
            link_events: mpsc::unbounded_channel(),
            events: mpsc::unbounded_channel(),
            metadata: shared.metadata.subscribe(),
            shared,
            metadata_asked: false,
            topics: Vec::new(),
            follow: true,
            prefetch,
            zone: None,
            near_again: None,
            scratch: Scratch::new(),
            current: None,
            metrics: ConsumerMetrics::default(),
        }
    }

    /// The next record. `None`: nothing more will come (at the end without `follow`, or every partition has failed).
    ///
    /// May be dropped at any time without losing a record.
    pub async fn next(&mut self) -> Option<Result<ConsumerRecord>> {
        loop {
            if let Some((slot, batch)) = &mut self.current {
                let slot = *slot;
                match batch.next_record() {
                    Some(Ok(record)) => {
                        self.state.handed_out(slot, record.offset.saturating_add(1), record.leader_epoch);
                        return Some(Ok(record));
                    }
                    Some(Err(error)) => {
                        self.current = None;
                        self.state.damaged(slot);
                        return Some(Err(error));
                    }
                    None => {
                        self.state.handed_out(slot, batch.next_offset(), batch.header().leader_epoch);
                        self.current = None;
                    }
                }
            }
            match self.take_batch().await? {
                Ok(current) => self.current = Some(current),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next batch: the fast path. `None` as with [`next`](Self::next). What `next` has left of a batch comes first.
    pub async fn next_batch(&mut self) -> Option<Result<RecordBatch>> {
        let taken = match self.current.take() {
            Some(current) => Ok(current),
            None => self.take_batch().await?,
        };
        Some(taken.map(|(slot, batch)| {
            self.state.handed_out(slot, batch.next_offset(), batch.header().leader_epoch);
            batch
        }))
    }

    /// Goes on reading a partition elsewhere.
    pub fn seek(&mut self, topic: &str, partition: i32, to: Position) -> Result<()> {
        let slot = self.slot(topic, partition)?;
        self.current.take_if(|(current, _)| *current == slot);
        self.state.seek(slot, to);
        self.act();
        Ok(())
    }

    /// Stops reading a partition until [`resume`](Self::resume). What was received and not handed out is read again then.
    pub fn pause(&mut self, topic: &str, partition: i32) -> Result<()> {
        let slot = self.slot(topic, partition)?;
        self.current.take_if(|(current, _)| *current == slot);
        self.state.pause(slot);
        self.act();
        Ok(())
    }

    /// Goes on reading a partition after [`pause`](Self::pause).
    pub fn resume(&mut self, topic: &str, partition: i32) -> Result<()> {
        let slot = self.slot(topic, partition)?;
        self.state.resume(slot);
        Ok(())
    }

    /// Offset of the next record of a partition that will be handed out; `None` while it is being looked up.
    pub fn position(&self, topic: &str, partition: i32) -> Result<Option<i64>> {
        Ok(self.state.position(self.slot(topic, partition)?))
    }

    /// The partitions that are read: topic and number.
    pub fn assignment(&self) -> Vec<(Arc<str>, i32)> {
        self.state.assignment()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        ConsumerMetrics { buffered_bytes: self.state.buffered_bytes, ..self.metrics }
    }

    fn slot(&self, topic: &str, partition: i32) -> Result<usize> {
        self.state.find(topic, partition).ok_or_else(|| not_assigned(topic, partition))
    }

    async fn take_batch(&mut self) -> Option<Result<(usize, RecordBatch)>> {
        loop {
            let item = self.state.pop();
            self.act();
            match item {
                Some(Item::Batch(fetched)) => return Some(self.open(fetched)),
                Some(Item::Error(error)) => return Some(Err(error)),
                None if self.state.is_over() => return None,
                None => self.wait().await,
            }
        }
    }

    /// Unpacks a batch.
    fn open(&mut self, fetched: Fetched) -> Result<(usize, RecordBatch)> {
        let Fetched { slot, header, bytes, from, until } = fetched;
        let partition = self.state.partition(slot);
        let (topic, number) = (partition.topic.clone(), partition.partition);
        let known = self.shared.metadata.snapshot().topic(&topic).map_or(0, |t| t.max_message_bytes as usize);
        match records(&bytes, max_unpacked_bytes(known.max(bytes.len())), &mut self.scratch) {
            Ok(records) => {
                self.metrics.batches += 1;
                self.metrics.bytes += bytes.len() as u64;
                Ok((slot, RecordBatch { topic, partition: number, raw: bytes, records, from, until }))
            }
            Err(fault) => {
                self.state.damaged(slot);
                self.act();
                Err(bad_batch(&topic, number, header.base_offset, &fault))
            }
        }
    }

    /// Until something has happened that may bring an item.
    async fn wait(&mut self) {
        let wake_at = self.subscribe(Instant::now());
        self.act();
        tokio::select! {
            Some(event) = self.link_events.1.recv() => self.on_link(event),
            Some(event) = self.events.1.recv() => self.on_event(event),
            Ok(()) = self.metadata.changed() => self.on_metadata(),
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
        }
    }

    /// Puts partitions on the streams of their leaders, or of who stands in for them; answers when to try again what cannot be
    /// done now.
    fn subscribe(&mut self, now: Instant) -> Option<Instant> {
        if self.near_again.is_some_and(|at| at <= now) {
            self.choose_again(now);
        }
        let (slots, mut again) = self.state.to_add(now);
        let snapshot = self.shared.metadata.snapshot();
        for slot in slots {
            if self.subscribe_near(slot, &snapshot, now) {
                continue;
            }
            let partition = self.state.partition(slot);
            let retry = if let Some(leader) = snapshot.leader(&partition.topic, partition.partition) {
                let epoch = snapshot.leader_epoch(&partition.topic, partition.partition);
                self.subscribe_one(slot, (&leader.into(), epoch, false), now)
            } else {
                self.renew_metadata();
                Some(now + NO_LEADER)
            };
            again = again.into_iter().chain(retry).min();
        }
        self.near_again = self.zone.as_ref().and_then(|_| self.state.near_again(now));
        again.into_iter().chain(self.near_again).min()
    }

    fn subscribe_one(
        &mut self,
        slot: usize,
        (endpoint, leader_epoch, is_near): (&Arc<str>, Option<i32>, bool),
        now: Instant,
    ) -> Option<Instant> {
        let again = self.connect(endpoint, now);
        if let (None, Some(link)) = (again, self.links.get(endpoint)) {
            let mut add = self.state.subscribe(slot, endpoint.clone());
            if let Some(partition) = &mut add.partition {
                partition.leader_epoch = leader_epoch;
                partition.from_follower = is_near;
            }
            if is_near {
                self.state.set_near(slot);
            }
            link.frame(Frame::Add(add));
        }
        again
    }

    /// Makes sure of a stream from this broker; answers when to try, if there is none now.
    fn connect(&mut self, endpoint: &Arc<str>, now: Instant) -> Option<Instant> {
        let link = self.links.entry(endpoint.clone()).or_insert_with(|| Link::new(self.prefetch, now));
        let at = link.connects_at()?;
        if at > now {
            return Some(at);
        }
        match self.shared.connections.place(Purpose::Fetch, endpoint) {
            Ok(place) => {
                let (id, events) = (self.shared.config.client_id.clone(), self.link_events.0.clone());
                link.connect((endpoint, place), id, self.state.buffered_bytes, events);
                None
            }
            Err(_) => Some(link.close(now, rand::random())),
        }
    }

    fn on_link(&mut self, Tagged { endpoint, generation, event }: Tagged) {
        let Some(link) = self.links.get_mut(&endpoint).filter(|l| l.generation == generation) else { return };
        let now = Instant::now();
        match event {
            LinkEvent::Data(data) => {
                link.received();
                self.state.received(&endpoint, data, now, rand::random());
            }
            LinkEvent::Closed(error) => {
                tracing::debug!(%endpoint, %error, "fetch stream lost");
                link.close(now, rand::random());
                self.metrics.reconnects += 1;
                if error.retriable() {
                    self.state.lost_near(&endpoint, now);
                    self.state.lost(&endpoint);
                    self.renew_metadata();
                } else {
                    self.state.refused(&endpoint, &error);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Resolved { slot, ticket, offset } => self.state.resolved(slot, ticket, offset),
            Event::MetadataAsked => self.metadata_asked = false,
        }
    }

    /// Topics that are read whole may have grown, and others stand in for leaders.
    fn on_metadata(&mut self) {
        self.choose_again(Instant::now());
        let snapshot = self.metadata.borrow_and_update().clone();
        for topic in self.topics.iter().filter(|_| self.follow).filter_map(|t| snapshot.topic(t)) {
            for partition in self.state.count(&topic.name)..topic.partitions.len() {
                let slot = self.state.add(topic.name.clone(), partition as i32, 0, None);
                self.state.seek(slot, Position::Earliest);
            }
        }
    }

    /// Does what the state machine asks for.
    fn act(&mut self) {
        for action in std::mem::take(&mut self.state.actions) {
            match action {
                Action::Credit { endpoint, bytes } => {
                    if let Some(link) = self.links.get_mut(&endpoint) {
                        link.give_back(bytes);
                    }
                }
                Action::Resolve { slot, ticket, at } => self.resolve(slot, ticket, at),
                Action::Remove { endpoint, slot } => {
                    let partition = self.state.partition(slot);
                    let remove = FetchRemove { topic: partition.topic.to_string(), partition: partition.partition };
                    if let Some(link) = self.links.get(&endpoint) {
                        link.frame(Frame::Remove(remove));
                    }
                }
                Action::RenewMetadata => self.renew_metadata(),
            }
        }
    }

    fn resolve(&self, slot: usize, ticket: u64, at: Position) {
        let partition = self.state.partition(slot);
        let (topic, number) = (partition.topic.clone(), partition.partition);
        let (shared, events) = (self.shared.clone(), self.events.0.clone());
        tokio::spawn(async move {
            let offset = start_offset(&shared, &topic, number, at).await;
            let _ = events.send(Event::Resolved { slot, ticket, offset });
        });
    }

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
}
