//! Makes what this broker serves follow the cluster's metadata: leads partitions, points at the leaders of others, says why
//! nobody leads.
//!
//! One task does it, one image after another. Before the broker leads a partition it reads its own registration and the
//! slice once more from the store, past all caches (M7), makes the log where there never was one, and notes under which
//! epoch it leads. It never makes an empty log where there was one: what it cannot serve it reports to the controller as a
//! fault, and goes on with the rest. What another leads and this broker has a replica of, it follows.

mod changes;
mod check;
mod damaged;
mod desired;
mod follow;
mod kept;
mod lead;
mod leftovers;
mod slot;
mod watermarks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taffrail_crds::{PartitionSliceSpec, PartitionState};
use uuid::Uuid;

use self::check::Known;
pub use self::check::{begins_anew, has_recovered, is_asked, log_end};
use self::desired::{Desired, Place, Role, desired};
pub use self::kept::{Kept, state_seen};
use self::leftovers::Leftovers;
use self::slot::{Ended, Slot, assignment, is_same, stop};
use self::watermarks::{Mark, Watermarks};
use super::Session;
use super::controller::frozen::Epochs;
use super::controller::members::LogEnd;
use super::image::{Image, Objects, Stored};
use super::purge::is_over;
use crate::context::Context;
use crate::metadata::MetadataStore;
use crate::metrics::ReplicationMetrics;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::replication::Proposals;
use crate::replication::fetcher::Followers;
use crate::storage::{Log, PartitionId, Storage, StorageError, blocking};
use crate::topics::{Settings, Topic, Topics};

/// Partitions that this broker has and cannot serve, and why.
pub type Faults = BTreeMap<(Uuid, i32), String>;

/// What the controller asks of logs, to choose among them.
pub type Ends = BTreeMap<(Uuid, i32), LogEnd>;

/// What a broker serves of a cluster.
pub struct Serving {
    context: Context,
    storage: Arc<dyn Storage>,
    store: Arc<dyn MetadataStore>,
    topics: Arc<Topics>,
    peers: Arc<Peers>,
    followers: Arc<Followers>,
    proposals: Arc<Proposals>,
    metrics: ReplicationMetrics,
    me: Session,
    kept: Arc<Mutex<Kept>>,
    watermarks: Arc<Mutex<Watermarks>>,
    /// When those were kept last.
    marked_at: Duration,
    /// Slices as they were kept last.
    remembered: Objects<(Uuid, i32), PartitionSliceSpec>,
    faults: Faults,
    /// Partitions of which a later state was seen than the last image shows.
    seen: Epochs,
    ends: Ends,
    leftovers: Leftovers,
    served: BTreeMap<Uuid, Served>,
}

struct Served {
    name: Arc<str>,
    settings: Arc<ArcSwap<Settings>>,
    slots: Vec<Slot>,
}

/// What there is to do later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is served as the metadata says, or reported as a fault.
    Done,
    /// The metadata could not be asked, or storage failed for now: try again after a moment.
    TryAgain,
}

/// What [`Serving`] stands on.
pub struct Parts {
    /// Clock and randomness.
    pub context: Context,
    /// The logs.
    pub storage: Arc<dyn Storage>,
    /// The cluster's objects.
    pub store: Arc<dyn MetadataStore>,
    /// Where what is served is published.
    pub topics: Arc<Topics>,
    /// The other brokers.
    pub peers: Arc<Peers>,
    /// This broker.
    pub me: Session,
    /// What is counted of it.
    pub metrics: ReplicationMetrics,
}

impl Serving {
    /// Serves nothing yet. Blocks.
    pub fn new(parts: Parts) -> Result<Self, StorageError> {
        let Parts { context, storage, store, topics, peers, me, metrics } = parts;
        let kept = Arc::new(Mutex::new(Kept::open(storage.meta())?));
        let watermarks = Arc::new(Mutex::new(Watermarks::open(storage.meta())?));
        let marked_at = context.clock().since_boot();
        let followers = Followers::new(context.clone(), &peers, me, metrics.clone());
        let proposals = Arc::default();
        Ok(Self {
            context,
            storage,
            store,
            topics,
            peers,
            followers,
            proposals,
            metrics,
            me,
            kept,
            watermarks,
            marked_at,
            remembered: Objects::new(),
            faults: Faults::new(),
            seen: Epochs::new(),
            ends: Ends::new(),
            leftovers: Leftovers::default(),
            served: BTreeMap::new(),
        })
    }

    /// Whether its storage takes records.
    pub fn takes_records(&self) -> bool {
        self.storage.takes_appends()
    }

    /// What it cannot serve, and replicas that have stopped to follow.
    pub fn faults(&self) -> Faults {
        let stopped = self.slots().filter_map(|(topic, slot)| {
            let fault = slot.follow.as_ref()?.fault()?;
            Some(((topic, slot.place.state.index), fault))
        });
        self.faults.clone().into_iter().chain(stopped).collect()
    }

    /// Partitions of which it has seen later states than the metadata shows, whoever has their replicas, with the partition
    /// epochs of these.
    pub fn seen(&self) -> Epochs {
        self.seen.clone()
    }

    /// What it has of partitions that nobody leads and the controller chooses a log for.
    pub fn ends(&self) -> Ends {
        self.ends.clone()
    }

    /// What its leaders ask the controller for.
    pub fn proposals(&self) -> Arc<Proposals> {
        self.proposals.clone()
    }

    /// What it keeps of the metadata.
    pub fn kept(&self) -> Arc<Mutex<Kept>> {
        self.kept.clone()
    }

    /// Serves what the image says.
    pub async fn follow(&mut self, image: &Image) -> Outcome {
        if let Some(cluster) = &image.cluster {
            self.followers.set_catch_up_rate(cluster.spec.spec.catch_up_rate());
        }
        self.remember(image).await;
        let wanted = self.desired(image).await;
        let gone: Vec<_> = self.served.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        let mut changes = Vec::new();
        for (id, desired) in wanted {
            changes.extend(self.adopt(id, desired).await);
        }
        self.ends = self.log_ends().await;
        if changes.iter().any(|change| !change.to_lead.is_empty()) {
            // To open logs takes a moment, in which a topic that is there shall not pass for unknown.
            self.publish(&changes, &gone);
        }
        let led = self.lead(image, &changes).await;
        self.publish(&changes, &gone);
        let followed = self.follow_leaders(image, &changes).await;
        for id in gone {
            if let Some(served) = self.served.remove(&id) {
                stop(served.slots).await;
            }
        }
        if led == Outcome::Done { followed } else { led }
    }

    /// Partitions that it was elected for without proof, and whose log it has found and serves, with their leader epochs.
    pub fn recovered(&self) -> BTreeMap<(Uuid, i32), i32> {
        let found = self.slots().filter(|(_, slot)| slot.partition.is_local() && has_recovered(&slot.place.state));
        found.map(|(topic, slot)| ((topic, slot.place.state.index), slot.place.state.leader_epoch)).collect()
    }

    /// Where logs end of partitions that nobody leads, now that nobody writes to them any more. A storage that does not answer
    /// says nothing: nothing must not pass for an empty log.
    async fn log_ends(&self) -> Ends {
        let asked = self.slots().filter(|(_, slot)| is_asked(&slot.place.state, self.me));
        let asked: Vec<_> = asked.map(|(topic, slot)| (topic, slot.place.state.clone())).collect();
        if asked.is_empty() {
            return Ends::new();
        }
        let storage = self.storage.clone();
        let Ok(logs) = blocking(move || Ok(storage.logs())).await else { return Ends::new() };
        let found = |log: &Arc<dyn Log>| (log.partition(), (log.extent(), log.leader_epochs()));
        let found: HashMap<_, _> = logs.iter().map(found).collect();
        let end = |(topic, state): &(Uuid, PartitionState)| {
            let log = found.get(&PartitionId { topic: *topic, index: state.index });
            ((*topic, state.index), log_end(state, log.map(|(extent, epochs)| (*extent, &**epochs))))
        };
        asked.iter().map(end).collect()
    }

    fn slots(&self) -> impl Iterator<Item = (Uuid, &Slot)> {
        self.served.iter().flat_map(|(topic, served)| served.slots.iter().map(|slot| (*topic, slot)))
    }

    /// Ends serving. Names stay known: clients shall not think the topics gone.
    pub async fn stop(&mut self) {
        let served = std::mem::take(&mut self.served);
        let topics = served.keys().copied().collect();
        let mut known = HashMap::new();
        for (topic, served) in served {
            let ids: Vec<_> = served.slots.iter().map(|slot| slot.mark_id(topic)).collect();
            let ended = futures::future::join_all(served.slots.into_iter().map(Slot::end)).await;
            known.extend(ids.into_iter().zip(ended).filter_map(|(id, end)| Some((id?, end.known.high_watermark))));
        }
        self.keep_marks(known, topics).await;
    }

    /// Keeps the high watermarks that are known here now and then, for the next start.
    pub async fn keep_watermarks(&mut self) {
        let now = self.context.clock().since_boot();
        if now.saturating_sub(self.marked_at) < watermarks::INTERVAL {
            return;
        }
        self.marked_at = now;
        let known = self.slots().filter_map(|(topic, slot)| Some((slot.mark_id(topic)?, slot.high_watermark())));
        let (known, topics) = (known.collect(), self.served.keys().copied().collect());
        self.keep_marks(known, topics).await;
    }

    async fn keep_marks(&self, known: HashMap<PartitionId, i64>, topics: BTreeSet<Uuid>) {
        let (storage, watermarks) = (self.storage.clone(), self.watermarks.clone());
        let keep = move || {
            let logs = storage.logs();
            let mark = |log: &Arc<dyn Log>| Some((log.partition(), Mark::of(&**log, *known.get(&log.partition())?)?));
            // A topic that is not served just now may come back as long as its logs are there.
            let is_there = |topic| topics.contains(&topic) || logs.iter().any(|log| log.partition().topic == topic);
            watermarks.lock().keep(logs.iter().filter_map(mark), is_there)
        };
        if let Err(error) = blocking(keep).await {
            tracing::warn!(%error, "high watermarks could not be kept on this broker's disk: the next time tries again");
        }
    }

    /// Keeps what has changed since it was kept last. A failure takes nothing from what is served now, and is made good with
    /// the next image.
    async fn remember(&mut self, image: &Image) {
        let known = |(key, slice): (&(Uuid, i32), &Arc<Stored<PartitionSliceSpec>>)| {
            self.remembered.get(key).is_some_and(|known| Arc::ptr_eq(known, slice))
        };
        let changed = image.slices.iter().filter(|slice| !known(*slice)).map(|(_, slice)| slice.clone());
        let (changed, there): (Vec<_>, _) = (changed.collect(), image.slices.clone());
        let (kept, state, now) = (self.kept.clone(), image.state.clone(), self.context.wall_millis());
        let see = move || {
            let mut kept = kept.lock();
            kept.see(state.as_ref().map(|state| &state.spec), changed.iter().map(|slice| &slice.spec))?;
            let Some(state) = state else { return Ok(()) };
            let is_there = |topic| there.range((topic, 0)..=(topic, i32::MAX)).next().is_some();
            kept.forget_purged(&state.spec, is_there, |slice| is_over(slice, now))
        };
        match blocking(see).await {
            Ok(()) => self.remembered = image.slices.clone(),
            Err(error) => {
                tracing::error!(%error, "the cluster's metadata could not be kept on this broker's disk");
            }
        }
    }

    /// What is to be served, with what is known to be impossible taken out and reported.
    async fn desired(&mut self, image: &Image) -> BTreeMap<Uuid, Desired> {
        let mut wanted = desired(image, self.me);
        let storage = self.storage.clone();
        // A storage that has closed has no logs.
        let logs = blocking(move || Ok(storage.logs())).await.unwrap_or_default();
        let newest = |log: &Arc<dyn Log>| log.leader_epochs().latest().unwrap_or(-1);
        let newest: HashMap<_, _> = logs.iter().map(|log| (log.partition(), newest(log))).collect();
        let mut faults = Faults::new();
        {
            let kept = self.kept.lock();
            self.seen = kept.ahead_of(&image.slices);
            for (topic, desired) in &mut wanted {
                self.pad(*topic, desired);
                for place in &mut desired.partitions {
                    let id = PartitionId { topic: *topic, index: place.state.index };
                    let log = newest.get(&id).copied();
                    let known = Known { was_here: kept.led(id).is_some(), seen: kept.newest(id) };
                    let Some(fault) = check::fault(&place.state, self.me, log, known) else { continue };
                    match place.role {
                        Role::Lead => place.role = Role::Offline(fault.to_string()),
                        Role::Follow { leader } => place.role = Role::Forward { leader },
                        Role::Forward { .. } | Role::Offline(_) => {}
                    }
                    faults.insert((*topic, place.state.index), fault.to_string());
                }
            }
        }
        self.faults = faults;
        wanted
    }

    /// A slice that is gone takes no partition away: its partitions are there and nobody serves them (M9).
    fn pad(&self, topic: Uuid, desired: &mut Desired) {
        let Some(served) = self.served.get(&topic) else { return };
        let known = desired.partitions.len().min(served.slots.len());
        for slot in &served.slots[known..] {
            let fault = "its PartitionSlice is gone: the data is kept; \"taffrail cluster recover\" brings it back";
            let role = Role::Offline(fault.to_owned());
            if slot.place.state.index as usize >= desired.partitions.len() {
                desired.partitions.push(Place { role, state: slot.place.state.clone() });
            }
        }
    }

    /// Takes over what is decided without asking anybody; answers the topic's change, in which those to be led are still
    /// offline.
    async fn adopt(&mut self, id: Uuid, desired: Desired) -> Option<Change> {
        if desired.partitions.is_empty() {
            return None;
        }
        let settings = Settings::of(&desired.config);
        let mut old = self.served.remove(&id);
        let cell = old.as_ref().map_or_else(|| Arc::new(ArcSwap::from_pointee(settings)), |old| old.settings.clone());
        let renamed = old.as_ref().and_then(|old| (old.name != desired.name).then(|| old.name.clone()));
        let mut changed = old.is_none() || renamed.is_some();
        if **cell.load() != settings {
            cell.store(Arc::new(settings));
            changed = true;
        }
        let mut before = old.take().map(|old| old.slots).unwrap_or_default().into_iter();
        let (mut kept, mut ending) = (Vec::with_capacity(desired.partitions.len()), Vec::new());
        for place in &desired.partitions {
            let old = before.next();
            changes::count(&self.metrics, old.as_ref().map(|old| &old.place), place);
            changed |= old.as_ref().is_none_or(|old| old.place != *place || old.is_waiting());
            let (same, other) = match old {
                Some(old) if is_same(&old.place, place) && !old.is_waiting() => (Some(old), None),
                other => (None, other),
            };
            kept.push(same);
            ending.push(async { Some(other?.end().await) });
        }
        let ended = futures::future::join_all(ending).await;
        stop(before.collect()).await;
        let (mut slots, mut begin) = (Vec::with_capacity(kept.len()), Vec::new());
        for (index, (place, (kept, ended))) in
            desired.partitions.into_iter().zip(kept.into_iter().zip(ended)).enumerate()
        {
            if let Some(slot) = kept {
                slots.push(slot.go_on(place, self.me));
            } else {
                begin.push(index);
                let id = PartitionId { topic: id, index: index as i32 };
                slots.push(self.slot(id, place, ended));
            }
        }
        let of =
            |role: fn(&Role) -> bool| begin.iter().copied().filter(|index| role(&slots[*index].place.role)).collect();
        let to_lead = of(|role| *role == Role::Lead);
        let to_follow = of(|role| matches!(role, Role::Follow { .. }));
        self.served.insert(id, Served { name: desired.name, settings: cell, slots });
        changed.then_some(Change { topic: id, renamed, to_lead, to_follow })
    }

    fn slot(&self, id: PartitionId, place: Place, ended: Option<Ended>) -> Slot {
        let (known, damaged) = ended.map_or((None, None), |ended| (Some(ended.known), ended.damaged));
        let high_watermark = known.map_or(0, |known| match place.role {
            Role::Lead => known.high_watermark,
            _ => known.under(&place.state),
        });
        self.proposals.forget_others(id, place.state.leader_epoch);
        // While it has no replica it does not see what is lost on purpose.
        let has_replica = place.state.replicas.contains(&self.me.broker);
        let (high_watermark, damaged) = if has_replica { (high_watermark, damaged) } else { (0, None) };
        let partition = match &place.role {
            Role::Lead => Partition::offline(id, Some("its leader is about to begin".to_owned())),
            Role::Follow { leader } | Role::Forward { leader } => {
                Partition::remote(&self.peers, id, *leader, place.state.leader_epoch)
            }
            Role::Offline(fault) => Partition::offline(id, Some(fault.clone())),
        };
        Slot { place, partition, follow: None, high_watermark, damaged }
    }

    fn publish(&self, changes: &[Change], gone: &[Uuid]) {
        let removed = gone.iter().filter_map(|id| self.served.get(id)).map(|served| served.name.clone());
        let renamed = changes.iter().filter_map(|change| change.renamed.clone());
        let mut removed: Vec<_> = removed.chain(renamed).collect();
        let put: Vec<_> = changes.iter().filter_map(|change| self.topic(change.topic)).collect();
        // A topic that takes the name of one that is gone is put, not removed.
        removed.retain(|name| !put.iter().any(|topic| topic.name == *name));
        if !put.is_empty() || !removed.is_empty() {
            self.topics.change(put, &removed);
        }
    }

    fn topic(&self, id: Uuid) -> Option<Arc<Topic>> {
        let served = self.served.get(&id)?;
        let partitions = served.slots.iter().map(|slot| (slot.partition.clone(), assignment(&slot.place))).collect();
        Some(Arc::new(Topic::new(served.name.clone(), id, served.settings.clone(), partitions)))
    }
}

/// A topic that is to be published anew.
struct Change {
    topic: Uuid,
    /// The name that it had.
    renamed: Option<Arc<str>>,
    /// Partitions that this broker is to lead from now on.
    to_lead: Vec<usize>,
    /// Partitions that it is to follow from now on.
    to_follow: Vec<usize>,
}
