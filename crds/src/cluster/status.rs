//! What is there of a cluster, as the operator saw it last.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::MAX_BROKERS;
use crate::condition::Condition;

/// What is there of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Generation of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Brokers that are there, ready or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2 * MAX_BROKERS))]
    pub replicas: Option<i32>,
    /// Brokers that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2 * MAX_BROKERS))]
    pub ready_replicas: Option<i32>,
    /// Labels of the brokers' pods, as text; `kubectl scale` and the like read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Version that all brokers run. While they are replaced: the older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Identity of the cluster, a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(equal = 36))]
    pub cluster_id: Option<String>,
    /// Namespaces in which accepted Topics of this Cluster are, its own among them: where the brokers look for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub topic_namespaces: Vec<String>,
    /// Where clients connect, by listener.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["listener"]))]
    pub bootstrap: Vec<BootstrapAddress>,
    /// Brokers that wait for their restart, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2 * MAX_BROKERS))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["broker"]))]
    pub pending_restarts: Vec<PendingRestart>,
    /// Partitions of which a replica is being moved to another broker. Not set: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX))]
    pub moving_partitions: Option<i32>,
    /// Brokers that are about to go, since fewer are asked for, and from which replicas are moving away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2 * MAX_BROKERS), inner(range(min = 0, max = i32::MAX)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub draining_brokers: Vec<i32>,
    /// Facts about the cluster, one of each type. Ready: all brokers serve as the spec says. Reconciling: the operator is
    /// at work. Stalled: it cannot go on by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapAddress {
    /// Name of the listener.
    #[schemars(length(min = 1, max = 15))]
    pub listener: String,
    /// Host and port, separated by ':'.
    #[schemars(length(min = 3, max = 300))]
    pub address: String,
}

/// A broker that waits for its restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingRestart {
    /// Number of the broker.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub broker: i32,
    /// Why, in a sentence for people.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}
