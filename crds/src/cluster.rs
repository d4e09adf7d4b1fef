//! `Cluster`: the brokers that users want, and what is there of them.
//!
//! The user writes `spec`, the operator `status`. What is not set stays so in the object, and the methods give what is in
//! force, so that a later version may choose better defaults. Fields that nothing obeys yet are left out: TLS and
//! authentication of listeners, and quotas, come as optional fields.

// The derive of KubeSchema repeats the structs where nothing reaches them.
#![allow(unreachable_pub)]

mod defaults;
mod failover;
mod listener;
mod pod;
mod rebalance;
mod status;
mod storage;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::size::Size;
use crate::topic::{Survives, TopicConfig, TopicSpec};

pub use defaults::TopicDefaults;
pub use failover::Failover;
pub use listener::{Expose, ExposeType, Listener, Protocol};
pub use pod::{EnvVar, Pod, ResourceAmounts, Resources, Toleration};
pub use rebalance::Rebalance;
pub use status::{BootstrapAddress, ClusterStatus, PendingRestart};
pub use storage::{ClaimPolicy, Storage};

/// Most brokers of a cluster.
pub const MAX_BROKERS: i32 = 100;

/// The port between brokers. No listener can have it.
pub const INTERNAL_PORT: i32 = 9093;

/// The port of probes and metrics. No listener can have it.
pub const ADMIN_PORT: i32 = 9095;

/// A cluster of brokers that hold topics together.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taffrail.dev",
    version = "v1alpha1",
    kind = "Cluster",
    namespaced,
    status = "ClusterStatus",
    shortname = "tfc",
    category = "taffrail",
    derive = "PartialEq",
    doc = "A cluster of brokers that hold topics together.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')")
        .message("metadata.name becomes the name of pods and Services: begin with a letter a-z, go on with a-z, 0-9 and '-', at most 40 characters"),
    printcolumn(name = "Brokers", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Under-Replicated", type_ = "string", json_path = ".status.conditions[?(@.type==\"UnderReplicated\")].status"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Cluster-ID", type_ = "string", json_path = ".status.clusterId", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.topicDefaults.replicationFactor) || self.topicDefaults.replicationFactor <= self.replicas")
        .message("topicDefaults.replicationFactor is higher than replicas, so that no topic could be placed: lower it, or ask for more brokers")
        .field_path(".topicDefaults.replicationFactor"),
    validation = Rule::new("!has(self.topicDefaults.survives) || self.replicas > 1")
        .message("topicDefaults.survives asks for what one broker cannot give: ask for 2 brokers at least, or leave survives out")
        .field_path(".topicDefaults.survives"),
    validation = Rule::new("!has(self.topicDefaults.survives) || has(self.topicDefaults.replicationFactor) || !has(self.topicDefaults.config.minInSyncReplicas) || self.topicDefaults.config.minInSyncReplicas < (self.replicas < 3 ? self.replicas : 3)")
        .message("topicDefaults.config.minInSyncReplicas is not lower than the number of replicas (3, or the number of brokers), so that no acks=all write would go on after a loss, which survives asks for: lower it, or set topicDefaults.replicationFactor higher")
        .field_path(".topicDefaults.survives")
)]
pub struct ClusterSpec {
    /// Number of brokers, from 1 to 100. `kubectl scale` sets it. A lower number moves the partitions off the brokers with
    /// the highest numbers first. Default: 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = MAX_BROKERS))]
    pub replicas: i32,

    /// Version of the brokers, such as 0.1.0; it is independent of the operator's. Default: the operator's own version
    /// when the Cluster is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 64), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    pub version: Option<String>,

    /// The brokers' image as a whole reference, for registries of one's own. It has to hold the version that `version`
    /// says. Default: the image of that version where the operator's comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// Secrets for pulling the image, by name, in the Cluster's namespace. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,

    /// The volume of each broker.
    pub storage: Storage,

    /// Where clients connect, each by its name. At most 8. Default: one listener `grpc` on port 9094, inside the
    /// Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.port == a.port))").message("two listeners cannot have one port"))]
    pub listeners: Vec<Listener>,

    /// What holds for topics that do not say otherwise.
    #[serde(default)]
    pub topic_defaults: TopicDefaults,

    /// Other namespaces whose Topics may name this Cluster; "*" is all. Topics of the Cluster's own namespace always may.
    /// At most 100. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_topic_namespaces: Vec<String>,

    /// Label of nodes that names their zone. Replicas of a partition are spread over zones, and brokers too. Default:
    /// topology.kubernetes.io/zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub zone_label: Option<String>,

    /// Whether replicas move from brokers that have more of them to those that have less. New partitions go to the brokers that
    /// have least in any case. Default: Disabled.
    #[serde(default)]
    pub rebalance: Rebalance,

    /// How many bytes a second a broker copies, at the most, for replicas that are not in sync: a size from 1Mi. Higher, they
    /// are in sync sooner; lower, producers feel it less. Replicas in sync are never held back. Default: 100Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!quantity(string(self)).isLessThan(quantity('1Mi'))").message("catchUpRate is 1Mi a second at least"))]
    pub catch_up_rate: Option<Size>,

    /// How soon a dead broker is noticed.
    #[serde(default)]
    pub failover: Failover,

    /// What the brokers' pods need of Kubernetes.
    #[serde(default)]
    pub pod: Pod,
}

impl ClusterSpec {
    /// Default of [`ClusterSpec::zone_label`].
    pub const DEFAULT_ZONE_LABEL: &str = "topology.kubernetes.io/zone";

    /// Default of [`ClusterSpec::catch_up_rate`]: 100 MiB a second.
    pub const DEFAULT_CATCH_UP_RATE: u64 = 100 << 20;
    /// Smallest [`ClusterSpec::catch_up_rate`].
    pub const LEAST_CATCH_UP_RATE: u64 = 1 << 20;

    /// How many bytes a second a broker copies for replicas that are not in sync, never below
    /// [`Self::LEAST_CATCH_UP_RATE`] whatever the field says.
    pub fn catch_up_rate(&self) -> u64 {
        self.catch_up_rate.map_or(Self::DEFAULT_CATCH_UP_RATE, |rate| rate.as_bytes().max(Self::LEAST_CATCH_UP_RATE))
    }

    /// The label of nodes that names their zone.
    pub fn zone_label(&self) -> &str {
        self.zone_label.as_deref().unwrap_or(Self::DEFAULT_ZONE_LABEL)
    }

    /// Where clients connect: what is asked for, or the one listener of the default.
    pub fn listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() { vec![Listener::default()] } else { self.listeners.clone() }
    }

    /// Whether a Topic in that namespace may name this Cluster, which is in `own`.
    pub fn allows_namespace(&self, namespace: &str, own: &str) -> bool {
        namespace == own || self.allowed_topic_namespaces.iter().any(|allowed| allowed == "*" || allowed == namespace)
    }

    /// Replicas of a topic that says nothing of them: as set, otherwise 3, or as many as there are brokers.
    pub fn replication_factor(&self) -> i32 {
        self.topic_defaults.replication_factor.unwrap_or_else(|| self.replicas.clamp(1, 3))
    }

    /// Replicas of a topic's partitions.
    pub fn replicas_of(&self, topic: &TopicSpec) -> i32 {
        topic.replication_factor.unwrap_or_else(|| self.replication_factor())
    }

    /// What a topic declares to survive, or the Cluster for it.
    pub fn survives_of(&self, topic: &TopicSpec) -> Option<Survives> {
        topic.survives.or(self.topic_defaults.survives)
    }

    /// How many of them must have a record before a write with acks=all succeeds.
    pub fn min_in_sync_replicas_of(&self, topic: &TopicSpec) -> i32 {
        let set = topic.config.min_in_sync_replicas.or(self.topic_defaults.config.min_in_sync_replicas);
        TopicConfig { min_in_sync_replicas: set, ..TopicConfig::default() }
            .min_in_sync_replicas(self.replicas_of(topic))
    }
}

fn three() -> i32 {
    3
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> ClusterSpec {
        serde_json::from_value(value).expect("a legal spec")
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let spec = spec(json!({"storage": {"size": "10Gi"}}));
        assert_eq!(spec.replicas, 3);
        assert_eq!(spec.replication_factor(), 3);
        assert_eq!(spec.zone_label(), "topology.kubernetes.io/zone");
        assert_eq!((spec.rebalance, spec.catch_up_rate()), (Rebalance::Off, 100 << 20));
        let listeners = spec.listeners();
        assert_eq!((listeners.len(), listeners[0].name.as_str(), listeners[0].port), (1, "grpc", 9094));
    }

    #[test]
    fn a_small_cluster_has_no_more_replicas_than_brokers() {
        assert_eq!(spec(json!({"replicas": 1, "storage": {"size": "1Gi"}})).replication_factor(), 1);
        let set = json!({"replicas": 5, "storage": {"size": "1Gi"}, "topicDefaults": {"replicationFactor": 4}});
        assert_eq!(spec(set).replication_factor(), 4);
    }

    #[test]
    fn a_topic_says_how_many_replicas_it_has_or_the_cluster_does() {
        let spec = spec(json!({
            "replicas": 5, "storage": {"size": "1Gi"},
            "topicDefaults": {"replicationFactor": 4, "config": {"minInSyncReplicas": 3}},
        }));
        let of = |topic: &TopicSpec| (spec.replicas_of(topic), spec.min_in_sync_replicas_of(topic));
        let topic = TopicSpec::default();
        assert_eq!(of(&topic), (4, 3));
        assert_eq!(
            of(&TopicSpec { replication_factor: Some(2), ..topic.clone() }),
            (2, 2),
            "never more than there are"
        );
        let config = TopicConfig { min_in_sync_replicas: Some(1), ..TopicConfig::default() };
        assert_eq!(of(&TopicSpec { config, ..topic }), (4, 1));
    }

    #[test]
    fn a_topic_declares_what_it_survives_or_the_cluster_does() {
        let spec = spec(json!({"storage": {"size": "1Gi"}, "topicDefaults": {"survives": "Broker"}}));
        let own = TopicSpec { survives: Some(Survives::Zone), ..TopicSpec::default() };
        assert_eq!(spec.survives_of(&own), Some(Survives::Zone));
        assert_eq!(spec.survives_of(&TopicSpec::default()), Some(Survives::Broker));
    }

    #[test]
    fn nothing_copies_slower_than_the_least_rate() {
        for (rate, expected) in [("1k", 1 << 20), ("1Mi", 1 << 20), ("2Gi", 2 << 30)] {
            let spec = spec(json!({"storage": {"size": "1Gi"}, "catchUpRate": rate}));
            assert_eq!(spec.catch_up_rate(), expected, "{rate}");
        }
    }

    #[test]
    fn namespaces_are_allowed_by_name_or_all() {
        let some = spec(json!({"storage": {"size": "1Gi"}, "allowedTopicNamespaces": ["shop"]}));
        assert!(some.allows_namespace("shop", "taffrail") && some.allows_namespace("taffrail", "taffrail"));
        assert!(!some.allows_namespace("other", "taffrail"));
        let all = spec(json!({"storage": {"size": "1Gi"}, "allowedTopicNamespaces": ["*"]}));
        assert!(all.allows_namespace("other", "taffrail"));
    }
}
