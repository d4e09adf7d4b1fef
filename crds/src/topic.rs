//! `Topic`: a named log in partitions, as users declare it.
//!
//! Field documentation is what `kubectl explain` prints. Defaults of the configuration are not written into objects, so
//! that "not set" stays visible and a later version may choose better ones; [`TopicConfig`]'s methods give what is in
//! force. Rules that a schema cannot say are CEL, attached where they look.

// The derive of KubeSchema repeats the structs where nothing reaches them.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::duration::{Duration, Retention};
use crate::kafka;
use crate::replicas;
use crate::size::Size;

/// Most partitions of one topic.
pub const MAX_PARTITIONS: i32 = 10_000;

/// Most replicas of one partition.
pub const MAX_REPLICATION_FACTOR: i32 = 7;

/// A topic: a named log in partitions, to which producers append records and from which consumers read them by offset.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taffrail.dev",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "TopicStatus",
    shortname = "tft",
    category = "taffrail",
    derive = "PartialEq",
    doc = "A topic: a named log in partitions, to which producers append records and from which consumers read them by offset.",
    validation = Rule::new("has(self.spec.topicName) || size(self.metadata.name) <= 249")
        .message("metadata.name is longer than a topic name may be (249): set spec.topicName"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Partitions", type_ = "integer", json_path = ".spec.partitions"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicationFactor"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Under-Replicated", type_ = "string", json_path = ".status.conditions[?(@.type==\"UnderReplicated\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clusterRef) == has(oldSelf.clusterRef) && (!has(self.clusterRef) || self.clusterRef == oldSelf.clusterRef)")
        .message("clusterRef cannot change: make a new Topic in the other cluster")
        .field_path(".clusterRef"),
    validation = Rule::new("has(self.topicName) == has(oldSelf.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)")
        .message("topicName cannot change: make a new Topic")
        .field_path(".topicName"),
    validation = replicas::enough_for_min_isr(),
    validation = replicas::more_than_one_to_survive(),
    validation = replicas::more_than_min_isr_to_survive()
)]
pub struct TopicSpec {
    /// The Cluster whose brokers hold the topic. It cannot change. A standalone broker is its own cluster and does not
    /// look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,

    /// Name of the topic for producers and consumers: 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', not
    /// "." or "..", not beginning with "__". It cannot change. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    #[x_kube(
        validation = Rule::new("self != '.' && self != '..'").message("topicName cannot be '.' or '..'"),
        validation = Rule::new("!self.startsWith('__')")
            .message("topic names that begin with '__' are for internal topics: choose another name")
    )]
    pub topic_name: Option<String>,

    /// Number of partitions, from 1 to 10000. It can rise and never falls: a key's records move to another partition
    /// when it rises. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = MAX_PARTITIONS))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("partitions cannot be taken away: make a new topic with fewer and copy"))]
    pub partitions: i32,

    /// Number of replicas of each partition, from 1 to 7. Default: as the cluster says. A standalone broker has one
    /// replica and refuses any other number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICATION_FACTOR))]
    pub replication_factor: Option<i32>,

    /// What the topic must survive. Default: as the cluster says.
    // The schema of an optional enum takes its description from the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survives: Option<Survives>,

    /// How records are kept and checked.
    #[serde(default)]
    pub config: TopicConfig,

    /// What becomes of the data when the Topic object is deleted. Default: Retain.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whose loss a topic must survive: of any one Broker, or of all brokers of any one Zone, such that writes with acks=all go on
/// and no acknowledged record is lost. It changes nothing: the condition SurvivesAsDeclared says whether it holds right now,
/// and why not. Default: what topicDefaults.survives of the Cluster says, otherwise nothing is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Survives {
    /// The loss of any one broker.
    Broker,
    /// The loss of all brokers of any one zone.
    Zone,
}

impl Survives {
    /// The word in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "Broker",
            Self::Zone => "Zone",
        }
    }
}

/// Names a Cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Name of the Cluster.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Cluster, which must allow this one. Default: the Topic's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What becomes of the data when the Topic object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The data stays; a new Topic with the annotation taffrail.dev/adopt takes it over.
    #[default]
    Retain,
    /// The topic goes to the trash, from which it can be brought back until config.trashRetention is over.
    Delete,
}

/// What an acknowledged record has been written to: "os", the operating system, survives a crash of the broker; "disk" a
/// power loss too, at the cost of waiting for the disk. Default: os.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The operating system: it survives a crash of the broker, not one of the machine.
    #[default]
    Os,
    /// The disk: it survives a power loss.
    Disk,
}

impl Durability {
    /// The word in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Os => "os",
            Self::Disk => "disk",
        }
    }

    /// What a word of manifests says.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Os, Self::Disk].into_iter().find(|durability| durability.as_str() == word)
    }
}

/// Which time records carry (Kafka: message.timestamp.type): CreateTime, the producer's, or LogAppendTime, the broker's
/// when it appends them. Default: CreateTime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, when it appends them.
    LogAppendTime,
}

impl TimestampType {
    /// The word in manifests, which is Kafka's.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }

    /// What a word of manifests says.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::CreateTime, Self::LogAppendTime].into_iter().find(|type_| type_.as_str() == word)
    }
}

/// How a topic's records are kept and checked. Each field is what Kafka calls the key named with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfig {
    /// How long records are kept at least (Kafka: retention.ms), by the time the broker appended them: a duration such
    /// as 90m, 7d or 1h30m, or "forever". More than 100000d is forever. Default: 7d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,

    /// How many bytes each partition keeps (Kafka: retention.bytes); the oldest records go first: a size such as 10Gi or
    /// 500M. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(string(self)).isGreaterThan(quantity('0'))")
        .message("retentionBytes is 1 at least; leave it out for no limit"))]
    pub retention_bytes: Option<Size>,

    /// Largest record batch that is accepted, after compression (Kafka: max.message.bytes): a size from 1Ki to 7Mi.
    /// Clients in plain gRPC receive 4Mi at most unless told otherwise. Default: 1048588.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!quantity(string(self)).isLessThan(quantity('1Ki')) && !quantity(string(self)).isGreaterThan(quantity('7Mi'))")
        .message("maxMessageBytes is from 1Ki to 7Mi"))]
    pub max_message_bytes: Option<Size>,

    /// What an acknowledged record has been written to. Default: os.
    // The schema of an optional enum takes its description from the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,

    /// Which time records carry. Default: CreateTime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_type: Option<TimestampType>,

    /// How long a deleted topic can be brought back with its records and offsets: a duration. More than 100000d counts
    /// as that. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trash_retention: Option<Duration>,

    /// How many replicas must have a record before a write with acks=all succeeds (Kafka: min.insync.replicas), from 1
    /// to 7, not above replicationFactor. A higher number holds in a partition as soon as so many replicas are in sync.
    /// A standalone broker has one replica and refuses any number but 1. Default: 2 with 3 replicas or more, otherwise 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICATION_FACTOR))]
    pub min_in_sync_replicas: Option<i32>,

    /// Keys of Kafka's topic configuration that change nothing here, such as segment.bytes: they are checked, kept and
    /// shown. A key that has a field of its own belongs there. A key whose value would promise what is not there, such as
    /// cleanup.policy=compact, is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = kafka::KEYS.len(),
        "additionalProperties" = { "type": "string", "maxLength": kafka::MAX_VALUE_BYTES },
    ))]
    #[x_kube(
        validation = Rule::new(kafka::known_keys_rule())
            .message("not a key of Kafka's topic configuration, or one that has a field of its own (retention, retentionBytes, maxMessageBytes, timestampType, minInSyncReplicas)"),
        validation = Rule::new(kafka::only_defaults_rule()).message(kafka::only_defaults_message().as_str()),
    )]
    pub kafka: BTreeMap<String, String>,
}

/// What is there of a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Identity of the topic, a UUID. A topic that is deleted and made again under the same name has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(equal = 36))]
    pub topic_id: Option<String>,
    /// Generation of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Generation of the object that was accepted last: what it asks for is what the brokers do. Behind the object's own:
    /// the newest change is refused, or not looked at yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_generation: Option<i64>,
    /// Partitions that can be written and read now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_PARTITIONS))]
    pub ready_partitions: Option<i32>,
    /// Partitions that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MAX_PARTITIONS))]
    pub partitions: Option<i32>,
    /// Facts about the topic, one of each type. Ready: it can be written and read. Reconciling: somebody is at work on it.
    /// Stalled: that cannot go on by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
}

fn one() -> i32 {
    1
}

impl Default for TopicSpec {
    fn default() -> Self {
        Self {
            cluster_ref: None,
            topic_name: None,
            partitions: 1,
            replication_factor: None,
            survives: None,
            config: TopicConfig::default(),
            deletion_policy: DeletionPolicy::default(),
        }
    }
}

impl Topic {
    /// The name for producers and consumers: `spec.topicName`, otherwise `metadata.name`.
    pub fn topic_name(&self) -> String {
        self.spec.topic_name.clone().unwrap_or_else(|| self.name_any())
    }
}

impl TopicConfig {
    /// Default of [`TopicConfig::retention`]: 7 days, as Kafka's.
    pub const DEFAULT_RETENTION: Retention = Retention::from_millis(7 * 86_400_000);
    /// Default of [`TopicConfig::max_message_bytes`]: Kafka's own number, 1 MiB and the 12 bytes of its log overhead.
    pub const DEFAULT_MAX_MESSAGE_BYTES: u32 = 1_048_588;
    /// Smallest [`TopicConfig::max_message_bytes`].
    pub const LEAST_MAX_MESSAGE_BYTES: u32 = 1 << 10;
    /// Largest [`TopicConfig::max_message_bytes`]: with what surrounds it, a batch fits the 8 MiB of a request.
    pub const MOST_MAX_MESSAGE_BYTES: u32 = 7 << 20;
    /// Default of [`TopicConfig::trash_retention`]: a day.
    pub const DEFAULT_TRASH_RETENTION: Duration = Duration::from_millis(86_400_000);

    /// How long records are kept.
    pub fn retention(&self) -> Retention {
        self.retention.unwrap_or(Self::DEFAULT_RETENTION)
    }

    /// How many bytes each partition keeps; `None`: no limit.
    pub fn retention_bytes(&self) -> Option<u64> {
        self.retention_bytes.map(Size::as_bytes)
    }

    /// Largest record batch, in bytes, within [`Self::MOST_MAX_MESSAGE_BYTES`] whatever the field says.
    pub fn max_message_bytes(&self) -> u32 {
        self.max_message_bytes.map_or(Self::DEFAULT_MAX_MESSAGE_BYTES, |size| {
            let most = u64::from(Self::MOST_MAX_MESSAGE_BYTES);
            size.as_bytes().min(most) as u32
        })
    }

    /// What an acknowledged record has been written to.
    pub fn durability(&self) -> Durability {
        self.durability.unwrap_or_default()
    }

    /// Which time records carry.
    pub fn timestamp_type(&self) -> TimestampType {
        self.timestamp_type.unwrap_or_default()
    }

    /// How long a deleted topic can be brought back.
    pub fn trash_retention(&self) -> Duration {
        self.trash_retention.unwrap_or(Self::DEFAULT_TRASH_RETENTION)
    }

    /// Default of [`TopicConfig::min_in_sync_replicas`]: one of three or more replicas can be away and nothing waits.
    pub const fn default_min_in_sync_replicas(replication_factor: i32) -> i32 {
        if replication_factor >= 3 { 2 } else { 1 }
    }

    /// How many of so many replicas must have a record before a write with acks=all succeeds; never more than there are.
    pub fn min_in_sync_replicas(&self, replication_factor: i32) -> i32 {
        let default = || Self::default_min_in_sync_replicas(replication_factor);
        self.min_in_sync_replicas.unwrap_or_else(default).clamp(1, replication_factor.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_three_replicas_must_have_a_record_unless_it_is_said_otherwise() {
        let of = |set: Option<i32>, replicas| {
            TopicConfig { min_in_sync_replicas: set, ..TopicConfig::default() }.min_in_sync_replicas(replicas)
        };
        for (set, replicas, expected) in
            [(None, 1, 1), (None, 2, 1), (None, 3, 2), (None, 7, 2), (Some(1), 3, 1), (Some(3), 3, 3), (Some(3), 2, 2)]
        {
            assert_eq!(of(set, replicas), expected, "{set:?} of {replicas}");
        }
    }
}
