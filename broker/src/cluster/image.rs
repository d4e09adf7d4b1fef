//! The cluster's objects as this broker has seen them: followed by watches, read by all that acts on them.
//!
//! It may be behind what is stored. So whoever changes something by it does so with the version that stands here, and is
//! refused when that is not the newest any more (M4).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use taffrail_crds::condition::ConditionStatus;
use taffrail_crds::topic::DeletionPolicy;
use taffrail_crds::{BrokerSpec, Cluster, ClusterStateSpec, PartitionSliceSpec, Topic};
use uuid::Uuid;

use crate::metadata::{Event, Kind, Object};

/// A stored object and what it says. Two are equal if they are of one version: each change gives an object another.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// As it is stored, with its version.
    pub object: Object,
    /// What it says.
    pub spec: T,
}

impl<T> PartialEq for Stored<T> {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.object, &other.object);
        one.uid == other.uid && one.resource_version == other.resource_version
    }
}

/// Objects by key, cheap to clone.
pub type Objects<K, T> = BTreeMap<K, Arc<Stored<T>>>;

/// All objects of a cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// All objects have been listed once.
    pub complete: bool,
    /// The Cluster.
    pub cluster: Option<Arc<Stored<Cluster>>>,
    /// What the cluster remembers.
    pub state: Option<Arc<Stored<ClusterStateSpec>>>,
    /// Registrations by number.
    pub brokers: Objects<i32, BrokerSpec>,
    /// Slices by topic and first index.
    pub slices: Objects<(Uuid, i32), PartitionSliceSpec>,
    /// Topics of this cluster, by namespace and name of the object.
    pub topics: Objects<(String, String), Topic>,
}

/// Who the cluster is: objects of others are not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the Cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
}

#[derive(Deserialize)]
struct Document<T> {
    spec: T,
}

impl Image {
    /// Takes what a watch told. Objects that cannot be read are left as they were seen last, and reported: a broken object
    /// must not take away what it said before.
    pub fn apply(&mut self, identity: &Identity, event: Event) {
        let (object, is_there) = match event {
            Event::Applied(object) => (object, true),
            Event::Deleted(object) => (object, false),
            Event::Listed => return,
        };
        let (kind, name) = (object.kind, object.name.clone());
        if let Err(error) = self.take(identity, object, is_there) {
            tracing::error!(kind = kind.as_str(), name, %error, "an object cannot be read and is not followed");
        }
    }

    fn take(&mut self, identity: &Identity, object: Object, is_there: bool) -> Result<(), serde_json::Error> {
        match object.kind {
            Kind::Cluster if object.name == identity.cluster => {
                self.cluster = is_there.then(|| stored(object)).transpose()?;
            }
            Kind::ClusterState if object.name == identity.cluster => {
                self.state = is_there.then(|| stored_spec(object)).transpose()?;
            }
            Kind::Broker => {
                let stored = stored_spec::<BrokerSpec>(object)?;
                if stored.spec.cluster_name == identity.cluster {
                    keep(&mut self.brokers, stored.spec.id, stored, is_there);
                }
            }
            Kind::PartitionSlice => {
                let stored = stored_spec::<PartitionSliceSpec>(object)?;
                if stored.spec.cluster_name == identity.cluster {
                    let key = (stored.spec.topic_id.0, stored.spec.first_index);
                    keep(&mut self.slices, key, stored, is_there);
                }
            }
            Kind::Topic => self.take_topic(identity, object, is_there)?,
            Kind::Cluster | Kind::ClusterState | Kind::DeletedTopic | Kind::Lease => {}
        }
        Ok(())
    }

    fn take_topic(&mut self, identity: &Identity, object: Object, is_there: bool) -> Result<(), serde_json::Error> {
        let stored = stored::<Topic>(object)?;
        let meta = &stored.spec.metadata;
        let namespace = meta.namespace.clone().unwrap_or_else(|| identity.namespace.clone());
        let key = (namespace.clone(), meta.name.clone().unwrap_or_default());
        let is_ours = stored.spec.spec.cluster_ref.as_ref().is_some_and(|cluster| {
            let of = cluster.namespace.as_deref().unwrap_or(&namespace);
            cluster.name == identity.cluster && of == identity.namespace
        });
        keep(&mut self.topics, key, stored, is_there && is_ours);
        Ok(())
    }

    /// Slices of a topic, by first index.
    pub fn slices_of(&self, topic: Uuid) -> impl Iterator<Item = &Arc<Stored<PartitionSliceSpec>>> {
        self.slices.range((topic, 0)..=(topic, i32::MAX)).map(|(_, slice)| slice)
    }

    /// Topics that have been accepted, with their identities.
    pub fn accepted(&self) -> impl Iterator<Item = (Uuid, &Topic)> {
        self.topics.values().filter_map(|stored| Some((accepted_id(&stored.spec)?, &stored.spec)))
    }
}

/// Identity of a topic that the operator has accepted.
pub fn accepted_id(topic: &Topic) -> Option<Uuid> {
    let status = topic.status.as_ref()?;
    let accepted = |type_: &str| type_ == "Accepted";
    let condition = status.conditions.iter().find(|condition| accepted(&condition.type_))?;
    // A change that was refused takes nothing away: the topic goes on as it was accepted before.
    let was_accepted = condition.status == ConditionStatus::True || status.accepted_generation.is_some();
    Uuid::try_parse(status.topic_id.as_deref()?).ok().filter(|_| was_accepted)
}

/// The object is on its way out.
pub fn is_deleting(topic: &Topic) -> bool {
    topic.metadata.deletion_timestamp.is_some()
}

/// Its data goes with it.
pub fn deletes_data(topic: &Topic) -> bool {
    is_deleting(topic) && topic.spec.deletion_policy == DeletionPolicy::Delete
}

/// What an object's `spec` says; `None`: it cannot be read.
pub fn spec_of<T: DeserializeOwned>(object: &Object) -> Option<T> {
    Document::deserialize(&object.document).ok().map(|document| document.spec)
}

/// What the whole object says.
fn stored<T: DeserializeOwned>(object: Object) -> Result<Arc<Stored<T>>, serde_json::Error> {
    let spec = T::deserialize(&object.document)?;
    Ok(Arc::new(Stored { object, spec }))
}

/// What its `spec` says.
fn stored_spec<T: DeserializeOwned>(object: Object) -> Result<Arc<Stored<T>>, serde_json::Error> {
    let spec = Document::deserialize(&object.document)?.spec;
    Ok(Arc::new(Stored { object, spec }))
}

fn keep<K: Ord, T>(objects: &mut Objects<K, T>, key: K, stored: Arc<Stored<T>>, is_there: bool) {
    if is_there {
        objects.insert(key, stored);
    } else {
        objects.remove(&key);
    }
}
