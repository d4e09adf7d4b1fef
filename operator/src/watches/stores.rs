//! What the watches have seen last.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{self, Store};
use taffrail_crds::slice::PARTITIONS_PER_SLICE;
use taffrail_crds::{Broker, BrokerSpec, Cluster, ClusterState, PartitionSlice, Topic};

use super::{Guarded, reference};
use crate::cluster::labels;
use crate::topic::{ClusterKey, cluster_key};

/// A Cluster as it is watched.
pub type ClusterObject = Guarded<Cluster>;
/// A Topic as it is watched.
pub type TopicObject = Guarded<Topic>;

/// What the watches have seen last.
#[derive(Clone)]
pub struct Stores {
    /// Clusters.
    pub clusters: Store<ClusterObject>,
    /// Topics.
    pub topics: Store<TopicObject>,
    slices: Store<Guarded<PartitionSlice>>,
    states: Store<Guarded<ClusterState>>,
    brokers: Store<Guarded<Broker>>,
    budgets: Store<PodDisruptionBudget>,
    pods: Store<Pod>,
    nodes: Store<PartialObjectMeta<Node>>,
}

/// The sides of the stores that are written.
pub(super) struct Writers {
    pub(super) clusters: Writer<ClusterObject>,
    pub(super) topics: Writer<TopicObject>,
    pub(super) slices: Writer<Guarded<PartitionSlice>>,
    pub(super) states: Writer<Guarded<ClusterState>>,
    pub(super) brokers: Writer<Guarded<Broker>>,
    pub(super) budgets: Writer<PodDisruptionBudget>,
    pub(super) pods: Writer<Pod>,
    pub(super) nodes: Writer<PartialObjectMeta<Node>>,
}

/// Empty stores.
pub(super) fn new() -> (Arc<Stores>, Writers) {
    let (clusters, cluster_writer) = reflector::store();
    let (topics, topic_writer) = reflector::store();
    let (slices, slice_writer) = reflector::store();
    let (states, state_writer) = reflector::store();
    let (brokers, broker_writer) = reflector::store();
    let (budgets, budget_writer) = reflector::store();
    let (pods, pod_writer) = reflector::store();
    let (nodes, node_writer) = reflector::store();
    let writers = Writers {
        clusters: cluster_writer,
        topics: topic_writer,
        slices: slice_writer,
        states: state_writer,
        brokers: broker_writer,
        budgets: budget_writer,
        pods: pod_writer,
        nodes: node_writer,
    };
    (Arc::new(Stores { clusters, topics, slices, states, brokers, budgets, pods, nodes }), writers)
}

impl Stores {
    /// Waits until each has been listed once: before, what is not there says nothing.
    pub async fn wait_listed(&self) -> Result<(), WriterDropped> {
        self.clusters.wait_until_ready().await?;
        self.topics.wait_until_ready().await?;
        self.slices.wait_until_ready().await?;
        self.states.wait_until_ready().await?;
        self.brokers.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.nodes.wait_until_ready().await
    }

    /// The Cluster of that name, if it is there; malformed or not.
    pub fn cluster(&self, key: &ClusterKey) -> Option<Arc<ClusterObject>> {
        self.clusters.get(&reference(&key.name, &key.namespace))
    }

    /// What the Cluster remembers, once its brokers have written it.
    pub fn state(&self, key: &ClusterKey) -> Option<ClusterState> {
        self.states.get(&reference(&key.name, &key.namespace))?.0.clone().ok()
    }

    /// Topics for which `wanted` holds.
    pub fn topics(&self, wanted: impl Fn(&Topic) -> bool) -> Vec<Arc<TopicObject>> {
        self.topics.state_filter(|object| object.0.as_ref().is_ok_and(&wanted))
    }

    /// Topics that name the Cluster.
    pub fn topics_of(&self, key: &ClusterKey) -> Vec<Arc<TopicObject>> {
        self.topics(|topic| cluster_key(topic).as_ref() == Some(key))
    }

    /// Slices of a topic in the Cluster's namespace, by their names, up to the first that is missing behind `partitions`.
    pub fn slices_of_topic(&self, namespace: &str, topic_id: &str, partitions: i32) -> Vec<PartitionSlice> {
        let mut found = Vec::new();
        let step = usize::try_from(PARTITIONS_PER_SLICE).unwrap_or(1);
        for first in (0..).step_by(step) {
            match self.slices.get(&reference(&format!("{topic_id}-{first}"), namespace)) {
                Some(slice) => found.extend(slice.0.clone().ok()),
                None if first >= partitions => return found,
                None => {}
            }
        }
        found
    }

    /// All slices of a Cluster that can be read.
    pub fn slices_of(&self, key: &ClusterKey) -> Vec<PartitionSlice> {
        let of = |slice: &PartitionSlice| {
            slice.spec.cluster_name == key.name && slice.namespace().as_ref() == Some(&key.namespace)
        };
        self.slices
            .state()
            .iter()
            .filter_map(|slice| slice.0.as_ref().ok().filter(|slice| of(slice)).cloned())
            .collect()
    }

    /// How many slices of a Cluster, by their labels, cannot be read.
    pub fn unreadable_slices_of(&self, key: &ClusterKey) -> usize {
        let of = |slice: &&Arc<Guarded<PartitionSlice>>| {
            let labelled = slice.labels().get(labels::CLUSTER) == Some(&key.name);
            slice.0.is_err() && labelled && slice.namespace().as_ref() == Some(&key.namespace)
        };
        self.slices.state().iter().filter(of).count()
    }

    /// Registrations of a Cluster's brokers, by number.
    pub fn brokers_of(&self, key: &ClusterKey) -> Vec<BrokerSpec> {
        let all = self.brokers.state();
        let ours = all.iter().filter(|broker| broker.namespace().as_ref() == Some(&key.namespace));
        let specs = ours.filter_map(|broker| broker.0.as_ref().ok().map(|broker| &broker.spec));
        let mut specs: Vec<_> = specs.filter(|spec| spec.cluster_name == key.name).cloned().collect();
        specs.sort_by_key(|spec| spec.id);
        specs
    }

    /// The disruption budget of a Cluster's brokers.
    pub fn budget_of(&self, key: &ClusterKey) -> Option<PodDisruptionBudget> {
        self.budgets.get(&reference(&key.name, &key.namespace)).map(|budget| (*budget).clone())
    }

    /// Pods of a Cluster's brokers.
    pub fn pods_of(&self, key: &ClusterKey) -> Vec<Arc<Pod>> {
        self.pods.state_filter(|pod| {
            pod.namespace().as_ref() == Some(&key.namespace) && pod.labels().get(labels::CLUSTER) == Some(&key.name)
        })
    }

    /// Pods that run on a node.
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        self.pods.state_filter(on)
    }

    /// A label of a node.
    pub fn node_label(&self, node: &str, label: &str) -> Option<String> {
        let node = self.nodes.get(&reflector::ObjectRef::new(node))?;
        node.labels().get(label).cloned()
    }
}
