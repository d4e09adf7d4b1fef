//! Which Clusters and Topics have to be looked at when something changes.
//!
//! Looking at one that needs nothing costs no write, but some reads; so what changes all the time (a node's status, a
//! Cluster's own) is compared with what it was when it was last seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use taffrail_crds::{ADOPT_ANNOTATION, Broker, ClusterState, PartitionSlice, Topic};

use super::{ClusterObject, Guarded, Stores, TopicObject, reference};
use crate::cluster::labels;
use crate::survives::is_kept_by;
use crate::topic::{ClusterKey, cluster_key};

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A Cluster.
    Cluster(ClusterKey),
    /// A Cluster is gone.
    ClusterGone(ClusterKey),
    /// A Topic, by namespace and name.
    Topic(String, String),
    /// All Topics of a Cluster.
    TopicsOf(ClusterKey),
    /// Topics of a Cluster that declare what they survive: where its brokers are has changed.
    SurvivorsOf(ClusterKey),
    /// Topics of a Cluster by this name: who may have it is open again.
    TopicsNamed(ClusterKey, String),
    /// Topics that take over a lost topic's data.
    Adopters(ClusterKey),
    /// Everything: a list was read again, and what vanished meanwhile was told by nobody.
    Relisted,
}

/// Where the names of what has to be looked at go.
#[derive(Clone, Debug)]
pub struct Queues {
    /// Clusters.
    pub clusters: UnboundedSender<ObjectRef<ClusterObject>>,
    /// Topics.
    pub topics: UnboundedSender<ObjectRef<TopicObject>>,
    /// Clusters that are gone.
    pub gone: UnboundedSender<ClusterKey>,
}

/// What matters of a Cluster to its Topics: uid, generation, whether it goes.
type Seen = (Option<String>, Option<i64>, bool);

#[derive(Default)]
struct Memory {
    clusters: HashMap<ClusterKey, Seen>,
    nodes: HashMap<String, BTreeMap<String, String>>,
    /// Zone of each broker, and whether it is fenced.
    brokers: HashMap<(ClusterKey, i32), (Option<String>, bool)>,
    /// Whether each Cluster's disruption budget keeps brokers from going together.
    budgets: HashMap<ClusterKey, bool>,
    /// Namespace and name of Topics by their topicId.
    topics: HashMap<String, (String, String)>,
}

/// Finds what has to be looked at.
pub struct Router {
    stores: Arc<Stores>,
    queues: Queues,
    memory: Mutex<Memory>,
}

fn key_of(object: &impl ResourceExt) -> ClusterKey {
    ClusterKey { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// The Cluster that labels name.
fn labelled(object: &impl ResourceExt) -> Option<ClusterKey> {
    let labels = object.labels();
    let namespace = labels.get(labels::CLUSTER_NAMESPACE).cloned().or_else(|| object.namespace())?;
    Some(ClusterKey { namespace, name: labels.get(labels::CLUSTER)?.clone() })
}

impl Router {
    pub(super) fn new(stores: Arc<Stores>, queues: Queues) -> Self {
        Self { stores, queues, memory: Mutex::default() }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cluster(&self, object: &ClusterObject, gone: bool) -> Vec<Touch> {
        let (key, meta) = (key_of(object), object.meta());
        let seen = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some());
        let before = if gone {
            self.memory().clusters.remove(&key)
        } else {
            self.memory().clusters.insert(key.clone(), seen.clone())
        };
        let mut touched = vec![if gone { Touch::ClusterGone(key.clone()) } else { Touch::Cluster(key.clone()) }];
        if gone || before != Some(seen) {
            touched.push(Touch::TopicsOf(key));
        }
        touched
    }

    pub(super) fn topic(&self, object: &TopicObject, gone: bool) -> Vec<Touch> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let mut touched = vec![];
        if let Ok(topic) = &object.0 {
            self.remember_id(topic, gone);
            if let Some(key) = cluster_key(topic) {
                if key.namespace != namespace {
                    touched.push(Touch::Cluster(key.clone()));
                }
                if gone {
                    touched.push(Touch::TopicsNamed(key, topic.topic_name()));
                }
            }
        }
        if !gone {
            touched.push(Touch::Topic(namespace, name));
        }
        touched
    }

    fn remember_id(&self, topic: &Topic, gone: bool) {
        let Some(id) = topic.status.as_ref().and_then(|status| status.topic_id.clone()) else { return };
        let place = (topic.namespace().unwrap_or_default(), topic.name_any());
        let mut memory = self.memory();
        if !gone {
            memory.topics.insert(id, place);
        } else if memory.topics.get(&id) == Some(&place) {
            memory.topics.remove(&id);
        }
    }

    pub(super) fn slice(&self, object: &Guarded<PartitionSlice>, _gone: bool) -> Vec<Touch> {
        let Ok(slice) = &object.0 else { return vec![] };
        let topic = self.memory().topics.get(&slice.spec.topic_id.to_string()).cloned();
        let mut touched: Vec<_> = topic.map(|(namespace, name)| Touch::Topic(namespace, name)).into_iter().collect();
        let key =
            ClusterKey { namespace: slice.namespace().unwrap_or_default(), name: slice.spec.cluster_name.clone() };
        // A thousand topics change a slice each: only some say something about the Cluster.
        let replicated = slice.spec.partitions.iter().any(|p| p.replicas.len() > 1 || p.replication_factor > 1);
        if replicated || self.is_shrinking(&key) {
            touched.push(Touch::Cluster(key));
        }
        touched
    }

    fn is_shrinking(&self, key: &ClusterKey) -> bool {
        let Some(object) = self.stores.cluster(key) else { return false };
        let Ok(cluster) = &object.0 else { return false };
        cluster.status.as_ref().and_then(|status| status.replicas).is_some_and(|now| now > cluster.spec.replicas)
    }

    pub(super) fn state(_: &Self, object: &Guarded<ClusterState>, _gone: bool) -> Vec<Touch> {
        let key = key_of(object);
        vec![Touch::Cluster(key.clone()), Touch::Adopters(key)]
    }

    /// Brokers write their registration seldom; what a topic survives depends on their zones alone.
    pub(super) fn broker(&self, object: &Guarded<Broker>, gone: bool) -> Vec<Touch> {
        let Ok(broker) = &object.0 else { return vec![] };
        let spec = &broker.spec;
        let key = ClusterKey { namespace: broker.namespace().unwrap_or_default(), name: spec.cluster_name.clone() };
        let (of, seen) = ((key.clone(), spec.id), (spec.zone.clone(), spec.fenced));
        let mut memory = self.memory();
        let before = if gone { memory.brokers.remove(&of) } else { memory.brokers.insert(of, seen.clone()) };
        let moved = gone || before.as_ref().map(|(zone, _)| zone) != Some(&seen.0);
        match before {
            Some(before) if before == seen && !gone => vec![],
            _ if moved => vec![Touch::Cluster(key.clone()), Touch::SurvivorsOf(key)],
            _ => vec![Touch::Cluster(key)],
        }
    }

    pub(super) fn budget(&self, object: &PodDisruptionBudget, gone: bool) -> Vec<Touch> {
        let Some(key) = labelled(object) else { return vec![] };
        let keeps = is_kept_by((!gone).then_some(object));
        let before = self.memory().budgets.insert(key.clone(), keeps);
        let changed = (before != Some(keeps)).then(|| Touch::SurvivorsOf(key.clone()));
        std::iter::once(Touch::Cluster(key)).chain(changed).collect()
    }

    pub(super) fn pod(_: &Self, pod: &Pod, _gone: bool) -> Vec<Touch> {
        labelled(pod).map(Touch::Cluster).into_iter().collect()
    }

    pub(super) fn child<K: Resource>(_: &Self, object: &PartialObjectMeta<K>, _gone: bool) -> Vec<Touch>
    where
        PartialObjectMeta<K>: Resource,
    {
        labelled(object).map(Touch::Cluster).into_iter().collect()
    }

    pub(super) fn node(&self, node: &PartialObjectMeta<Node>, gone: bool) -> Vec<Touch> {
        let name = node.name_any();
        let before = if gone {
            self.memory().nodes.remove(&name)
        } else {
            self.memory().nodes.insert(name.clone(), node.labels().clone())
        };
        if before.as_ref() == Some(node.labels()) && !gone {
            return vec![];
        }
        self.stores.pods_on(&name).iter().filter_map(|pod| labelled(&**pod)).map(Touch::Cluster).collect()
    }

    /// Puts into the queues what has to be looked at. A queue without a reader belongs to an operator that stops.
    pub(super) fn send(&self, touched: Vec<Touch>) {
        for touch in touched {
            match touch {
                Touch::Cluster(key) => self.send_cluster(&key),
                Touch::ClusterGone(key) => drop(self.queues.gone.unbounded_send(key)),
                Touch::Topic(namespace, name) => self.send_topic(&namespace, &name),
                Touch::TopicsOf(key) => self.send_topics(&self.stores.topics_of(&key)),
                Touch::SurvivorsOf(key) => {
                    let cluster = self.stores.cluster(&key);
                    let cluster = cluster.as_ref().and_then(|cluster| cluster.0.as_ref().ok());
                    let declares = |topic: &Topic| {
                        let declared = cluster.and_then(|cluster| cluster.spec.survives_of(&topic.spec));
                        declared.is_some() && cluster_key(topic).as_ref() == Some(&key)
                    };
                    self.send_topics(&self.stores.topics(declares));
                }
                Touch::TopicsNamed(key, name) => {
                    let named = |topic: &Topic| topic.topic_name() == name && cluster_key(topic).as_ref() == Some(&key);
                    self.send_topics(&self.stores.topics(named));
                }
                Touch::Adopters(key) => {
                    let adopts = |topic: &Topic| {
                        topic.annotations().contains_key(ADOPT_ANNOTATION) && cluster_key(topic).as_ref() == Some(&key)
                    };
                    self.send_topics(&self.stores.topics(adopts));
                }
                Touch::Relisted => {
                    self.send_topics(&self.stores.topics.state());
                    self.stores.clusters.state().iter().for_each(|cluster| self.send_cluster(&key_of(&**cluster)));
                }
            }
        }
    }

    fn send_cluster(&self, key: &ClusterKey) {
        let _ = self.queues.clusters.unbounded_send(reference(&key.name, &key.namespace));
    }

    fn send_topic(&self, namespace: &str, name: &str) {
        let _ = self.queues.topics.unbounded_send(reference(name, namespace));
    }

    fn send_topics(&self, topics: &[Arc<TopicObject>]) {
        for topic in topics {
            self.send_topic(&topic.namespace().unwrap_or_default(), &topic.name_any());
        }
    }
}
