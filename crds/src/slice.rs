//! `PartitionSlice`: up to 64 partitions of one topic, with their replicas, leaders and in-sync replicas.
//!
//! The controller alone writes slices, each time the whole object with the resourceVersion it has read. What is wanted and
//! what is so are one thing here, so all stands in `spec` and one write makes it whole. The rules let a partition go only
//! forward (M2): epochs rise, a new leader has a new leader epoch, nothing changes without a new partition epoch, no
//! partition disappears. Partitions are in the order of their indexes, without gaps: so the rules compare each with itself
//! in one pass, wherever they are evaluated.

// The derive of KubeSchema repeats the structs where nothing reaches them.
#![allow(unreachable_pub)]
// Two columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::{Id, NOT_RESERVED};
use crate::topic::{MAX_PARTITIONS, MAX_REPLICATION_FACTOR};
use crate::{CLUSTER_LABEL, TOPIC_ID_LABEL};

/// Most partitions of one slice.
pub const PARTITIONS_PER_SLICE: i32 = 64;

/// Most replicas of a partition while it moves: those of before and those to be.
pub const MAX_REPLICAS: i32 = 2 * MAX_REPLICATION_FACTOR;

/// Said twice, since an API server does not run a rule again over what it takes for unchanged, and to it a list by keys is
/// unchanged in any order; rules that look at `oldSelf` it always runs.
const ORDER: &str = "partitions stand in the order of their indexes, from firstIndex on, without gaps";

/// Up to 64 partitions of one topic: replicas, leaders, in-sync replicas. Written by the controller only.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taffrail.dev",
    version = "v1alpha1",
    kind = "PartitionSlice",
    namespaced,
    shortname = "tfps",
    category = "taffrail-internal",
    derive = "PartialEq",
    doc = "Up to 64 partitions of one topic: replicas, leaders, in-sync replicas. Written by the controller only.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".spec.topicName"),
    printcolumn(name = "First", type_ = "integer", json_path = ".spec.firstIndex"),
    printcolumn(name = "Leaders", type_ = "string", json_path = ".spec.partitions[*].leader"),
    printcolumn(name = "Topic-ID", type_ = "string", json_path = ".spec.topicId", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.partitions.all(p, p.index >= self.firstIndex && p.index < self.firstIndex + size(self.partitions) && self.partitions[p.index - self.firstIndex].index == p.index)")
        .message(ORDER)
        .field_path(".partitions"),
    validation = Rule::new("size(self.partitions) < size(oldSelf.partitions) || self.partitions.all(p, p.index >= self.firstIndex && p.index < self.firstIndex + size(self.partitions) && self.partitions[p.index - self.firstIndex].index == p.index)")
        .message(ORDER)
        .field_path(".partitions")
)]
pub struct PartitionSliceSpec {
    /// The Cluster whose brokers hold the topic, in the same namespace. It cannot change.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterName cannot change"))]
    pub cluster_name: String,

    /// Identity of the topic, a UUID. It cannot change.
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("topicId cannot change: another topic has slices of its own"),
        validation = Rule::new(NOT_RESERVED).message("this topicId is reserved")
    )]
    pub topic_id: Id,

    /// Name of the topic for producers and consumers. It cannot change. Internal topics have theirs too.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("topicName cannot change for the life of a topicId"))]
    pub topic_name: String,

    /// Index of the first partition: a multiple of 64. It cannot change.
    #[schemars(range(min = 0, max = MAX_PARTITIONS - 1))]
    #[x_kube(
        validation = Rule::new("self % 64 == 0").message("firstIndex is a multiple of 64"),
        validation = Rule::new("self == oldSelf").message("firstIndex cannot change")
    )]
    pub first_index: i32,

    /// Epoch of the controller that wrote this. It never falls: a controller that has been replaced is refused.
    #[schemars(range(min = 0, max = i32::MAX))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("controllerEpoch cannot fall: another controller has written since"))]
    pub controller_epoch: i32,

    /// The write that made this version, unique for the life of the cluster: whoever does not know whether a write went
    /// through finds it here.
    #[schemars(range(min = 0))]
    pub operation_id: i64,

    /// Set once the topic was deleted together with its data: nobody serves it, and after `purgeAt` its brokers delete it.
    /// Until then the topic can be brought back. Not set: the data stays, whatever becomes of the Topic object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone: Option<Tombstone>,

    /// The partitions, in the order of their indexes, at most 64. None disappears.
    #[schemars(length(min = 1, max = PARTITIONS_PER_SLICE))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["index"]))]
    #[x_kube(validation = Rule::new("size(self) >= size(oldSelf)").message("a partition cannot disappear"))]
    pub partitions: Vec<PartitionState>,
}

impl PartitionSliceSpec {
    /// Name of its object.
    pub fn object_name(&self) -> String {
        format!("{}-{}", self.topic_id, self.first_index)
    }

    /// Labels of its object, by which it is found.
    pub fn labels(&self) -> Value {
        json!({ CLUSTER_LABEL: self.cluster_name, TOPIC_ID_LABEL: self.topic_id })
    }
}

/// Since when a topic is deleted, and when its data goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tombstone {
    /// When the topic was deleted.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub deleted_at: String,
    /// When its data goes for good.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub purge_at: String,
}

/// State of one partition, on which its brokers act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf || self.partitionEpoch > oldSelf.partitionEpoch")
        .message("a partition changes only with a higher partitionEpoch")
        .field_path(".partitionEpoch"),
    validation = Rule::new("self.leaderEpoch >= oldSelf.leaderEpoch")
        .message("leaderEpoch cannot fall")
        .field_path(".leaderEpoch"),
    validation = Rule::new("has(self.leader) == has(oldSelf.leader) && (!has(self.leader) || self.leader == oldSelf.leader) || self.leaderEpoch > oldSelf.leaderEpoch")
        .message("the leader changes only with a higher leaderEpoch")
        .field_path(".leader"),
    validation = Rule::new("!has(self.leader) || self.isr.exists(r, r.broker == self.leader)")
        .message("the leader is one of the in-sync replicas")
        .field_path(".leader"),
    validation = Rule::new("self.replicas.all(b, self.replicas.exists_one(c, c == b))")
        .message("a broker has one replica of a partition")
        .field_path(".replicas"),
    validation = Rule::new("self.isr.all(r, r.broker in self.replicas) && self.elr.all(r, r.broker in self.replicas)")
        .message("in-sync and eligible replicas are among the replicas")
        .field_path(".isr"),
    validation = Rule::new("self.isr.all(r, self.isr.exists_one(o, o.broker == r.broker) && !self.elr.exists(o, o.broker == r.broker)) && self.elr.all(r, self.elr.exists_one(o, o.broker == r.broker))")
        .message("a broker is in isr or elr once, and not in both")
        .field_path(".elr"),
    validation = Rule::new("self.adding.all(b, b in self.replicas && !(b in self.removing)) && self.removing.all(b, b in self.replicas)")
        .message("adding and removing are among the replicas, and no broker is in both")
        .field_path(".adding"),
    validation = Rule::new("self.minInSyncReplicas <= self.replicationFactor")
        .message("minInSyncReplicas is higher than replicationFactor")
        .field_path(".minInSyncReplicas")
)]
pub struct PartitionState {
    /// Index of the partition in its topic, from 0.
    #[schemars(range(min = 0, max = MAX_PARTITIONS - 1))]
    pub index: i32,

    /// Numbers of the brokers that have a replica, the preferred leader first. At most 14, while the partition moves.
    #[schemars(length(min = 1, max = MAX_REPLICAS), inner(range(min = 0, max = i32::MAX)))]
    pub replicas: Vec<i32>,

    /// Those of `replicas` that are being added and have not caught up yet.
    #[serde(default)]
    #[schemars(length(max = MAX_REPLICATION_FACTOR), inner(range(min = 0, max = i32::MAX)))]
    pub adding: Vec<i32>,

    /// Those of `replicas` that go once the others have caught up.
    #[serde(default)]
    #[schemars(length(max = MAX_REPLICATION_FACTOR), inner(range(min = 0, max = i32::MAX)))]
    pub removing: Vec<i32>,

    /// The broker that leads. Not set: none, the partition is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX))]
    pub leader: Option<i32>,

    /// Rises with every election; batches and fetches carry it. It never falls.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub leader_epoch: i32,

    /// Rises with every change of this partition. It never falls.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub partition_epoch: i32,

    /// In-sync replicas: they have every acknowledged record.
    #[serde(default)]
    #[schemars(length(max = MAX_REPLICAS))]
    pub isr: Vec<Replica>,

    /// Eligible leader replicas: they left the in-sync replicas when those were too few to acknowledge anything, so they
    /// have every acknowledged record too.
    #[serde(default)]
    #[schemars(length(max = MAX_REPLICAS))]
    pub elr: Vec<Replica>,

    /// Replicas that were in-sync or eligible last, before an unclean stop: who is asked when nobody else is left.
    #[serde(default)]
    #[schemars(length(max = MAX_REPLICAS))]
    pub last_known_elr: Vec<Replica>,

    /// Why nobody leads, in a sentence for people. Not set: somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub fault: Option<String>,

    /// The leader was elected without proof that it has every acknowledged record, and has not finished to look into it.
    #[serde(default)]
    pub recovering: bool,

    /// Leader epoch of the last election without proof that the leader had every acknowledged record. Not set: there was none.
    /// What replicas took for committed before it, they give up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX))]
    pub unclean_leader_epoch: Option<i32>,

    /// Partition epoch that brokers have seen, where this state was older: the API went back in time, as when etcd is restored.
    /// Then nobody leads and nothing changes, until the slice is deleted and `taffrail cluster recover` brings it back. Not set:
    /// no later state was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX))]
    pub seen_epoch: Option<i32>,

    /// How many replicas must have a record before acks=all succeeds, from 1 to 7: what decisions about this state go by.
    #[schemars(range(min = 1, max = MAX_REPLICATION_FACTOR))]
    pub min_in_sync_replicas: i32,

    /// How many replicas there shall be, from 1 to 7.
    #[schemars(range(min = 1, max = MAX_REPLICATION_FACTOR))]
    pub replication_factor: i32,

    /// What happens when no replica is left that is known to have every acknowledged record. Default: Balanced.
    #[serde(default)]
    pub unclean_recovery: UncleanRecovery,
}

impl PartitionState {
    /// Brokers that shall have a replica, in the order of preference: all but those that go.
    pub fn wanted(&self) -> impl Iterator<Item = i32> + '_ {
        self.replicas.iter().copied().filter(|broker| !self.removing.contains(broker))
    }

    /// The API went back in time, and this state was older than what brokers have seen: it must not be acted on (M5).
    pub fn is_frozen(&self) -> bool {
        self.seen_epoch.is_some()
    }

    /// Replicas are on their way from some brokers to others.
    pub fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replica of this broker is in sync, eligible, or was last known to be, in whatever session: acknowledged records may
    /// depend on it.
    pub fn counts(&self, broker: i32) -> bool {
        self.isr.iter().chain(&self.elr).chain(&self.last_known_elr).any(|replica| replica.broker == broker)
    }
}

/// A replica of a partition in one uptime session of its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Number of the broker.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub broker: i32,
    /// The broker's incarnation when it was found in sync. The entry counts only while the broker is registered with it.
    #[schemars(range(min = 0))]
    pub incarnation: i64,
}

/// What happens when no replica is left that is known to have every acknowledged record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UncleanRecovery {
    /// Once all replicas that were last known have answered, the longest log leads, and the possible loss is reported.
    #[default]
    Balanced,
    /// Nothing, until somebody commands it.
    None,
}
