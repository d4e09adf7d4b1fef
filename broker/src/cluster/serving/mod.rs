//! Makes what this broker serves follow the cluster's metadata: leads partitions, points at the leaders of others, says why
//! nobody leads.
//!
//! One task does it, one image after another. Before the broker leads a partition it reads its own registration and the
//! slice once more from the store, past all caches (M7), makes the log where there never was one, and notes under which
//! epoch it leads. It never makes an empty log where there was one: what it cannot serve it reports to the controller as a
//! fault, and goes on with the rest.

mod check;
mod desired;
mod kept;
mod lead;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taffrail_crds::PartitionSliceSpec;
use taffrail_crds::slice::Replica;
use uuid::Uuid;

use self::desired::{Desired, Place, Role, desired};
pub use self::kept::Kept;
use super::Session;
use super::image::{Image, Objects, Stored};
use super::purge::is_over;
use crate::context::Context;
use crate::metadata::MetadataStore;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::storage::{PartitionId, Storage, StorageError, blocking};
use crate::topics::{Assignment, Settings, Topic, Topics};

/// Partitions that this broker has and cannot serve, and why.
pub type Faults = BTreeMap<(Uuid, i32), String>;

/// What a broker serves of a cluster.
pub struct Serving {
    context: Context,
    storage: Arc<dyn Storage>,
    store: Arc<dyn MetadataStore>,
    topics: Arc<Topics>,
    peers: Arc<Peers>,
    me: Session,
    kept: Arc<Mutex<Kept>>,
    /// Slices as they were kept last.
    remembered: Objects<(Uuid, i32), PartitionSliceSpec>,
    faults: Faults,
    served: BTreeMap<Uuid, Served>,
}

struct Served {
    name: Arc<str>,
    settings: Arc<ArcSwap<Settings>>,
    slots: Vec<Slot>,
}

struct Slot {
    place: Place,
    partition: Partition,
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
}

impl Serving {
    /// Serves nothing yet. Blocks.
    pub fn new(parts: Parts) -> Result<Self, StorageError> {
        let Parts { context, storage, store, topics, peers, me } = parts;
        let kept = Arc::new(Mutex::new(Kept::open(storage.meta())?));
        let (remembered, faults, served) = (Objects::new(), Faults::new(), BTreeMap::new());
        Ok(Self { context, storage, store, topics, peers, me, kept, remembered, faults, served })
    }

    /// What it cannot serve.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// What it keeps of the metadata.
    pub fn kept(&self) -> Arc<Mutex<Kept>> {
        self.kept.clone()
    }

    /// Serves what the image says.
    pub async fn follow(&mut self, image: &Image) -> Outcome {
        self.remember(image).await;
        let wanted = self.desired(image).await;
        let gone: Vec<_> = self.served.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        let mut changes = Vec::new();
        for (id, desired) in wanted {
            changes.extend(self.adopt(id, desired).await);
        }
        if changes.iter().any(|change| !change.to_lead.is_empty()) {
            // To open logs takes a moment, in which a topic that is there shall not pass for unknown.
            self.publish(&changes, &gone);
        }
        let outcome = self.lead(image, &changes).await;
        self.publish(&changes, &gone);
        for id in gone {
            if let Some(served) = self.served.remove(&id) {
                stop(served.slots).await;
            }
        }
        outcome
    }

    /// Partitions that it was elected for without proof, and whose log it has found and serves.
    pub fn recovered(&self) -> BTreeSet<(Uuid, i32)> {
        let slots = self.served.iter().flat_map(|(topic, served)| served.slots.iter().map(|slot| (*topic, slot)));
        let found = slots.filter(|(_, slot)| slot.place.state.recovering && slot.partition.is_local());
        found.map(|(topic, slot)| (topic, slot.place.state.index)).collect()
    }

    /// Ends serving. Names stay known: clients shall not think the topics gone.
    pub async fn stop(&mut self) {
        for served in std::mem::take(&mut self.served).into_values() {
            stop(served.slots).await;
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
        let epochs: HashMap<_, _> =
            logs.iter().map(|log| (log.partition(), log.leader_epochs().latest().unwrap_or(-1))).collect();
        let mut faults = Faults::new();
        {
            let kept = self.kept.lock();
            for (topic, desired) in &mut wanted {
                self.pad(*topic, desired);
                for place in &mut desired.partitions {
                    let id = PartitionId { topic: *topic, index: place.state.index };
                    let Some(fault) = check::fault(&place.state, self.me, epochs.get(&id).copied(), kept.led(id))
                    else {
                        continue;
                    };
                    if place.role == Role::Lead {
                        place.role = Role::Offline(fault.to_string());
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

    /// Takes over what is decided without waiting for anybody; answers the topic's change, in which those to be led are
    /// still offline.
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
        let (mut slots, mut to_lead) = (Vec::with_capacity(desired.partitions.len()), Vec::new());
        for (index, place) in desired.partitions.into_iter().enumerate() {
            let old = before.next();
            let same = old.as_ref().is_some_and(|old| is_same(&old.place, &place) && !old.is_waiting());
            changed |= old.as_ref().is_none_or(|old| old.place != place) || !same;
            if same && let Some(old) = old {
                slots.push(Slot { place, ..old });
                continue;
            }
            if let Some(old) = old {
                old.partition.stop().await;
            }
            if place.role == Role::Lead {
                to_lead.push(index);
            }
            slots.push(self.slot(PartitionId { topic: id, index: index as i32 }, place));
        }
        stop(before.collect()).await;
        self.served.insert(id, Served { name: desired.name, settings: cell, slots });
        changed.then_some(Change { topic: id, renamed, to_lead })
    }

    fn slot(&self, id: PartitionId, place: Place) -> Slot {
        let partition = match &place.role {
            Role::Lead => Partition::offline(id, Some("its leader is about to begin".to_owned())),
            Role::Forward { leader } => Partition::remote(&self.peers, id, *leader, place.state.leader_epoch),
            Role::Offline(fault) => Partition::offline(id, Some(fault.clone())),
        };
        Slot { place, partition }
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
}

impl Slot {
    /// It is to be led and is not yet.
    fn is_waiting(&self) -> bool {
        self.place.role == Role::Lead && !self.partition.is_local()
    }
}

/// The same leadership, seen from here.
fn is_same(old: &Place, new: &Place) -> bool {
    old.role == new.role && old.state.leader_epoch == new.state.leader_epoch
}

fn assignment(place: &Place) -> Assignment {
    let state = &place.state;
    let fault = match &place.role {
        Role::Offline(fault) => Some(fault.clone()),
        Role::Lead | Role::Forward { .. } => None,
    };
    Assignment {
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        replicas: state.replicas.clone(),
        isr: state.isr.iter().map(|Replica { broker, .. }| *broker).collect(),
        fault,
    }
}

async fn stop(slots: Vec<Slot>) {
    futures::future::join_all(slots.iter().map(|slot| slot.partition.stop())).await;
}
