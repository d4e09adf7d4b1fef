//! Carries out the controller's plans while this broker acts, one round after another.
//!
//! Nothing here decides: a round reads the newest image, plans, writes, and waits until the watch shows what was written, so
//! that the next plan is made of it. A write that is refused or lost ends the round, and the next begins with what is there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use taffrail_crds::cluster::Rebalance;
use taffrail_crds::id::Id;
use taffrail_crds::{ClusterStateSpec, PartitionSliceSpec, last_seen};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::frozen::Epochs;
use super::liveness::Liveness;
use super::moves::Tally;
use super::plan::{Facts, Plan, plan};
use super::slices::Unplaced;
use super::topics;
use crate::cluster::heartbeat::Purger;
use crate::cluster::image::{Identity, Image, Stored};
use crate::cluster::serving::Kept;
use crate::context::Context;
use crate::controller::object::document;
use crate::election::Leadership;
use crate::metadata::{Kind, MetadataError, MetadataStore, Object};
use crate::metrics::ControllerMetrics;
use crate::storage::blocking;

/// How often silence is looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(500);
/// How long a round waits for the watch to show what it wrote.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How often leadership goes back to the preferred replicas, and it is looked at how even brokers are.
const BALANCE: Duration = Duration::from_mins(1);
/// Slices that are written at a time.
const WRITES: usize = 8;
/// Numbers for writes that are taken at a time.
const OPERATIONS: i64 = 1 << 20;

/// What the controller stands on.
pub struct Parts {
    /// Clock and randomness.
    pub context: Context,
    /// Which cluster.
    pub identity: Identity,
    /// Its objects.
    pub store: Arc<dyn MetadataStore>,
    /// The same, as followed.
    pub image: watch::Receiver<Arc<Image>>,
    /// Whether this broker acts.
    pub leadership: watch::Receiver<Leadership>,
    /// Told of epochs in which somebody else has become controller since.
    pub deposed: mpsc::UnboundedSender<i32>,
    /// What was heard of brokers.
    pub liveness: Arc<Mutex<Liveness>>,
    /// What this broker keeps of the metadata.
    pub kept: Arc<Mutex<Kept>>,
    /// Deletes data of topics whose time is over.
    pub purger: Arc<dyn Purger>,
    /// What is counted of it.
    pub metrics: ControllerMetrics,
}

/// Acts as controller whenever the broker is elected, until `stop`.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let mut task = Task { parts, operations: 0..0, said: Vec::new(), balanced: Duration::ZERO, shown: None };
    tokio::select! {
        () = task.serve() => {}
        () = stop.cancelled() => {}
    }
}

struct Task {
    parts: Parts,
    /// Numbers that this term may still give to its writes.
    operations: Range<i64>,
    /// What was last said of topics without slices.
    said: Vec<(String, Unplaced)>,
    /// When leadership last went back to the preferred replicas, and it was looked at how even brokers are, by the context's monotonic clock.
    balanced: Duration,
    /// The ClusterState of the last image.
    shown: Option<Arc<Stored<ClusterStateSpec>>>,
}

/// One uninterrupted time of acting.
#[derive(Clone, Copy)]
struct Term {
    epoch: i32,
    /// Since when, by the context's monotonic clock.
    since: Duration,
}

/// What a round reads from and writes to.
#[derive(Clone, Copy)]
struct Round<'a> {
    store: &'a dyn MetadataStore,
    image: &'a Image,
    state: &'a Stored<ClusterStateSpec>,
    term: Term,
}

/// An object that the controller writes.
#[derive(Clone, Copy)]
enum Key {
    State,
    Broker(i32),
    Slice((Uuid, i32)),
}

/// What a round wrote, and the version before, `None` for a new object.
type Written = Vec<(Key, Option<String>)>;

impl Task {
    async fn serve(&mut self) {
        let mut term: Option<Term> = None;
        let news = self.parts.liveness.lock().news();
        loop {
            let leadership = self.parts.leadership.borrow_and_update().clone();
            match leadership {
                Leadership::Acting { epoch, write_until } if write_until > self.now() => {
                    let now = self.now();
                    let current = term.filter(|term| term.epoch == epoch).unwrap_or(Term { epoch, since: now });
                    if term.is_none_or(|term| term.epoch != epoch) {
                        self.operations = 0..0;
                        self.balanced = now;
                        tracing::info!(epoch, "acting as controller");
                    }
                    term = Some(current);
                    self.round(current, write_until).await;
                }
                _ => {
                    if let Some(term) = term.take() {
                        tracing::info!(epoch = term.epoch, "no longer acting as controller");
                    }
                }
            }
            tokio::select! {
                changed = self.parts.image.changed() => if changed.is_err() { return },
                changed = self.parts.leadership.changed() => if changed.is_err() { return },
                () = news.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.parts.context.clock().since_boot()
    }

    async fn round(&mut self, term: Term, write_until: Duration) {
        let image = self.parts.image.borrow_and_update().clone();
        // What is seen must be of this term: what an earlier controller wrote last may still be on its way here.
        let Some(state) = image.state.as_ref() else { return };
        let before = self.shown.replace(state.clone());
        let went_back = before.is_some_and(|before| last_seen::went_back(&state.spec, &before.spec));
        if state.spec.controller_epoch > term.epoch || went_back {
            // Whoever begins a term lifts what went back. The election ends with the broker: then nobody need know.
            let _ = self.parts.deposed.send(term.epoch);
        }
        if state.spec.controller_epoch != term.epoch || went_back {
            return;
        }
        let Some(seen) = self.seen(&image).await else { return };
        let plan = self.plan(&image, &state.spec, term, seen);
        self.say(&plan.unplaced);
        let store = self.parts.store.until(Instant::now() + write_until.saturating_sub(self.now()));
        let round = Round { store: &*store, image: &image, state, term };
        let mut written = Written::new();
        match self.carry_out(&round, plan, &mut written).await {
            Ok(()) => {}
            Err(MetadataError::Conflict { kind, name }) => {
                tracing::debug!(kind = kind.as_str(), name, "the object has changed since it was read");
            }
            Err(error) => tracing::warn!(%error, "the controller could not write; it plans anew"),
        }
        self.catch_up(&written).await;
    }

    /// What this broker has seen and the image does not show; nothing once its disk is closed.
    async fn seen(&self, image: &Arc<Image>) -> Option<Epochs> {
        let (kept, image) = (self.parts.kept.clone(), image.clone());
        // It may be written to disk at this moment.
        blocking(move || Ok(kept.lock().ahead_of(&image.slices))).await.ok()
    }

    fn plan(&mut self, image: &Image, state: &ClusterStateSpec, term: Term, seen: Epochs) -> Plan {
        let now = self.now();
        let balance = now.saturating_sub(self.balanced) >= BALANCE;
        if balance {
            self.balanced = now;
        }
        let context = &self.parts.context;
        plan(&Facts {
            cluster: &self.parts.identity.cluster,
            replicas: image.cluster.as_ref().map(|cluster| cluster.spec.spec.replicas),
            state,
            brokers: image.brokers.values().map(|stored| &stored.spec).collect(),
            slices: image.slices.iter().map(|(key, stored)| (*key, &stored.spec)).collect(),
            topics: topics::wanted(image),
            recoveries: topics::recoveries(image),
            seen,
            liveness: &self.parts.liveness.lock(),
            balance,
            rebalance: image.cluster.as_ref().is_some_and(|cluster| cluster.spec.spec.rebalance == Rebalance::On),
            acting: term.since,
            now,
            wall_millis: context.wall_millis(),
            fresh_id: context.random_uuid(),
        })
    }

    /// Says once why topics have no slices.
    fn say(&mut self, unplaced: &[(String, Unplaced)]) {
        for (topic, reason) in unplaced.iter().filter(|new| !self.said.contains(new)) {
            tracing::warn!(topic, %reason, "a topic is not placed");
        }
        unplaced.clone_into(&mut self.said);
    }

    async fn carry_out(&mut self, round: &Round<'_>, plan: Plan, written: &mut Written) -> Result<(), MetadataError> {
        let Round { store, image, state, .. } = *round;
        let needed = plan.slices.len() as i64;
        let short = self.operations.end - self.operations.start < needed;
        if plan.state.is_some() || short {
            let mut next = plan.state.unwrap_or_else(|| state.spec.clone());
            if short {
                let first = next.next_ids.operation;
                next.next_ids.operation = first.saturating_add(OPERATIONS.max(needed));
                self.operations = first..next.next_ids.operation;
            }
            replace(store, (Key::State, &state.object), &next, written)
                .await
                .inspect_err(|_| self.operations = 0..0)?;
        }
        for broker in plan.brokers {
            let Some(stored) = image.brokers.get(&broker.id) else { continue };
            replace(store, (Key::Broker(broker.id), &stored.object), &broker, written).await?;
            let (broker, fenced) = (broker.id, broker.fenced);
            tracing::warn!(broker, fenced, "a broker {}", if fenced { "is silent: fenced" } else { "is alive" });
        }
        self.write_slices(round, plan.slices, written).await?;
        if plan.moves != Tally::default() {
            let Tally { begun, completed, cancelled } = plan.moves;
            self.parts.metrics.count_moves(begun, completed, cancelled);
            tracing::info!(begun, completed, cancelled, "partitions move to other brokers");
        }
        self.purge(round, plan.purge, written).await
    }

    async fn write_slices(
        &mut self,
        round: &Round<'_>,
        slices: Vec<PartitionSliceSpec>,
        written: &mut Written,
    ) -> Result<(), MetadataError> {
        let Round { store, image, term, .. } = *round;
        let operations = &mut self.operations;
        let stamped = slices.into_iter().map(|slice| {
            let operation_id = operations.next().unwrap_or_default();
            PartitionSliceSpec { controller_epoch: term.epoch, operation_id, ..slice }
        });
        let stamped: Vec<_> = stamped.collect();
        let writes: Vec<_> = stamped.iter().map(|slice| write_slice(store, image, slice)).collect();
        let mut results = stream::iter(writes).buffer_unordered(WRITES);
        let mut outcome = Ok(());
        // One that is refused does not hold up the others.
        while let Some((one, result)) = results.next().await {
            written.extend(one);
            outcome = outcome.and(result);
        }
        outcome
    }

    /// The data, then the names, then the slices: whatever is left half done is done again by the next round.
    async fn purge(&self, round: &Round<'_>, topics: Vec<Uuid>, written: &mut Written) -> Result<(), MetadataError> {
        let Round { store, image, state, .. } = *round;
        let calls: Vec<_> = topics.into_iter().map(|topic| self.purge_data(round, topic)).collect();
        let gone: Vec<Uuid> =
            stream::iter(calls).buffer_unordered(WRITES).filter_map(std::future::ready).collect().await;
        let (named, nameless): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|topic| state.spec.topics.contains_key(&Id(*topic)));
        for topic in nameless {
            for slice in image.slices_of(topic) {
                store.delete(&slice.object).await?;
            }
            tracing::info!(%topic, "a deleted topic's data is gone");
        }
        if named.is_empty() {
            return Ok(());
        }
        let mut next = state.spec.clone();
        next.topics.retain(|id, _| !named.contains(&id.0));
        replace(store, (Key::State, &state.object), &next, written).await
    }

    /// Answers the topic once its data is gone on all its brokers. One that is fenced would not answer. From the others goes what
    /// may be left of replicas that have moved away, as far as they can be asked now.
    fn purge_data<'a>(&'a self, round: &Round<'a>, topic: Uuid) -> BoxFuture<'a, Option<Uuid>> {
        let Round { image, term, .. } = *round;
        let partitions = image.slices_of(topic).flat_map(|slice| &slice.spec.partitions);
        let brokers: BTreeSet<_> = partitions.flat_map(|partition| partition.replicas.iter().copied()).collect();
        let answers = |broker: &i32| image.brokers.get(broker).is_some_and(|broker| !broker.spec.fenced);
        if !brokers.iter().all(answers) {
            return Box::pin(std::future::ready(None));
        }
        let others: Vec<_> =
            image.brokers.keys().copied().filter(|other| !brokers.contains(other) && answers(other)).collect();
        Box::pin(async move {
            for broker in brokers {
                if let Err(error) = self.parts.purger.purge(broker, topic, term.epoch).await {
                    tracing::warn!(%topic, broker, %error, "a deleted topic's data is not gone yet");
                    return None;
                }
            }
            for broker in others {
                if let Err(error) = self.parts.purger.purge(broker, topic, term.epoch).await {
                    tracing::warn!(%topic, broker, %error, "what this broker may have had of a deleted topic stays there");
                }
            }
            Some(topic)
        })
    }

    /// Waits until the image shows what was written, or something newer.
    async fn catch_up(&mut self, written: &Written) {
        if written.is_empty() {
            return;
        }
        let caught_up = self
            .parts
            .image
            .wait_for(|image| written.iter().all(|(key, before)| version(image, *key) != before.as_deref()));
        if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
            tracing::debug!("the watch is behind what was written");
        }
    }
}

async fn replace<T: serde::Serialize>(
    store: &dyn MetadataStore,
    (key, object): (Key, &Object),
    spec: &T,
    written: &mut Written,
) -> Result<(), MetadataError> {
    let mut next = object.clone();
    next.document["spec"] = document(spec);
    store.replace(&next).await?;
    written.push((key, Some(object.resource_version.clone())));
    Ok(())
}

fn write_slice<'a>(
    store: &'a dyn MetadataStore,
    image: &'a Image,
    slice: &'a PartitionSliceSpec,
) -> BoxFuture<'a, (Written, Result<(), MetadataError>)> {
    Box::pin(async move {
        let mut written = Written::new();
        let key = (slice.topic_id.0, slice.first_index);
        let result = match image.slices.get(&key) {
            Some(stored) => replace(store, (Key::Slice(key), &stored.object), slice, &mut written).await,
            None => create(store, slice, &mut written).await,
        };
        (written, result)
    })
}

async fn create(
    store: &dyn MetadataStore,
    slice: &PartitionSliceSpec,
    written: &mut Written,
) -> Result<(), MetadataError> {
    let name = slice.object_name();
    let object = taffrail_crds::Kind::PartitionSlice.object(&name, &slice.labels(), slice);
    store.create(Kind::PartitionSlice, &name, object).await?;
    written.push((Key::Slice((slice.topic_id.0, slice.first_index)), None));
    Ok(())
}

/// The version of an object in the image.
fn version(image: &Image, key: Key) -> Option<&str> {
    let object = match key {
        Key::State => &image.state.as_ref()?.object,
        Key::Broker(id) => &image.brokers.get(&id)?.object,
        Key::Slice(key) => &image.slices.get(&key)?.object,
    };
    Some(&object.resource_version)
}
