//! The topics that are served here: what every request looks names up in.
//!
//! One immutable [`Image`] holds them all; a change publishes a new one. Readers load it without a lock and may keep it.
//! Who may change what is the [controller](crate::controller)'s business.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use uuid::Uuid;

use crate::partition::Partition;
use crate::security::is_internal;

pub mod config;
mod standing;

pub use config::Settings;
pub use standing::standing;

/// A topic that is served.
pub struct Topic {
    /// Its name for clients.
    pub name: Arc<str>,
    /// Its identity: another topic of the same name has another one.
    pub id: Uuid,
    /// What its configuration comes to.
    pub settings: Arc<Settings>,
    /// By index, from 0, without gap.
    pub partitions: Vec<Partition>,
    /// Who has them, by the same index.
    pub assignments: Vec<Assignment>,
    /// Used by the broker itself.
    pub internal: bool,
    /// Where its partitions look their settings up.
    cell: Arc<ArcSwap<Settings>>,
}

/// Who has a partition, as the cluster's metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The broker that leads it, if one does.
    pub leader: Option<i32>,
    /// Under which epoch, or did last.
    pub leader_epoch: i32,
    /// Rises with each change of it.
    pub partition_epoch: i32,
    /// Brokers that have it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub isr: Vec<i32>,
    /// As many must be for a write with acks=all.
    pub min_in_sync_replicas: i32,
    /// Records may have been lost before its leader was elected, and not all replicas agree yet.
    pub recovering: bool,
    /// Those of them that are being added.
    pub adding: Vec<i32>,
    /// Those of them that go.
    pub removing: Vec<i32>,
    /// Why it is not served, where that is known.
    pub fault: Option<String>,
}

impl Assignment {
    /// On one broker.
    pub fn alone(broker: i32, leader_epoch: i32) -> Self {
        Self {
            leader: Some(broker),
            leader_epoch,
            partition_epoch: 0,
            adding: Vec::new(),
            removing: Vec::new(),
            replicas: vec![broker],
            isr: vec![broker],
            min_in_sync_replicas: 1,
            recovering: false,
            fault: None,
        }
    }
}

/// All topics at one moment.
#[derive(Default)]
pub struct Image {
    /// Rises with each change.
    pub revision: u64,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
}

/// Why a name leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No topic of this name is served.
    #[error("topic {0:?} does not exist: create it first, or look for a misspelling")]
    UnknownTopic(String),
    /// The topic has no partition of this number.
    #[error("topic {topic:?} has partitions 0 to {last}, not {index}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// Asked for.
        index: i32,
        /// The highest there is.
        last: i32,
    },
}

impl Topic {
    /// Of partitions that look their settings up in `cell`.
    pub fn new(
        name: Arc<str>,
        id: Uuid,
        cell: Arc<ArcSwap<Settings>>,
        partitions: Vec<(Partition, Assignment)>,
    ) -> Self {
        let internal = is_internal(&name);
        let (partitions, assignments) = partitions.into_iter().unzip();
        Self { name, id, settings: cell.load_full(), partitions, assignments, internal, cell }
    }

    /// With other settings, which its partitions follow from now on, and more partitions.
    pub(crate) fn changed(&self, settings: Settings, more: Vec<(Partition, Assignment)>) -> Self {
        self.cell.store(Arc::new(settings));
        let partitions = self.partitions.iter().cloned().zip(self.assignments.iter().cloned()).chain(more).collect();
        Self::new(self.name.clone(), self.id, self.cell.clone(), partitions)
    }

    /// Where its partitions look their settings up.
    pub fn settings_cell(&self) -> &Arc<ArcSwap<Settings>> {
        &self.cell
    }

    /// A partition by its number.
    pub fn partition(&self, index: i32) -> Result<&Partition, LookupError> {
        let found = usize::try_from(index).ok().and_then(|index| self.partitions.get(index));
        found.ok_or_else(|| LookupError::UnknownPartition {
            topic: self.name.to_string(),
            index,
            last: self.partitions.len() as i32 - 1,
        })
    }
}

impl Image {
    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Result<&Arc<Topic>, LookupError> {
        self.topics.get(name).ok_or_else(|| LookupError::UnknownTopic(name.to_owned()))
    }

    /// A partition by its topic's name and its number.
    pub fn partition(&self, topic: &str, index: i32) -> Result<&Partition, LookupError> {
        self.topic(topic)?.partition(index)
    }

    /// A topic by its identity.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }
}

/// The current [`Image`].
pub struct Topics {
    image: ArcSwap<Image>,
    revision: watch::Sender<u64>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { image: ArcSwap::default(), revision: watch::Sender::new(0) }
    }
}

impl Topics {
    /// No topics yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// All topics as they are now; cheap, never blocks.
    pub fn image(&self) -> arc_swap::Guard<Arc<Image>> {
        self.image.load()
    }

    /// All topics as they are now, to keep.
    pub fn full_image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Tells of each change: the newest revision.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Adds topics, or puts them in the place of those of the same name, and takes topics away.
    pub fn change(&self, put: Vec<Arc<Topic>>, removed: &[Arc<str>]) {
        let mut topics = self.image.load().topics.clone();
        for name in removed {
            topics.remove(name);
        }
        topics.extend(put.into_iter().map(|topic| (topic.name.clone(), topic)));
        let by_id = topics.values().map(|topic| (topic.id, topic.clone())).collect();
        let revision = self.image.load().revision + 1;
        self.image.store(Arc::new(Image { revision, topics, by_id }));
        self.revision.send_replace(revision);
    }
}
