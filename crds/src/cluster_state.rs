//! `ClusterState`: what a cluster must remember as a whole; one object per Cluster, of the same name.
//!
//! The controller writes it, seldom; whoever is to be controller raises the epoch in it, and each broker takes blocks of
//! producer ids from it. All of them write the whole object with the resourceVersion they have read.

// The derive of KubeSchema repeats the structs where nothing reaches them.
#![allow(unreachable_pub)]
// Two columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::topic::MAX_PARTITIONS;

/// Most topics of a cluster, so that the object stays within what an API server stores.
pub const MAX_TOPICS: usize = 10_000;

/// What a cluster remembers as a whole. Written by the brokers only.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taffrail.dev",
    version = "v1alpha1",
    kind = "ClusterState",
    plural = "clusterstates",
    namespaced,
    shortname = "tfcs",
    category = "taffrail-internal",
    derive = "PartialEq",
    doc = "What a cluster remembers as a whole. Written by the brokers only.",
    printcolumn(name = "Cluster-ID", type_ = "string", json_path = ".spec.clusterId"),
    printcolumn(name = "Controller", type_ = "integer", json_path = ".spec.controller"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.controllerEpoch"),
    printcolumn(name = "Level", type_ = "integer", json_path = ".spec.featureLevel"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.controller) == has(oldSelf.controller) && (!has(self.controller) || self.controller == oldSelf.controller) || self.controllerEpoch > oldSelf.controllerEpoch")
        .message("the controller changes only with a higher controllerEpoch")
        .field_path(".controller"),
    validation = Rule::new("oldSelf.internalTopics.all(o, self.internalTopics.exists(n, n == o))")
        .message("an internal topic keeps its number of partitions and does not disappear: keys would be looked for where they are not")
        .field_path(".internalTopics")
)]
pub struct ClusterStateSpec {
    /// Identity of the cluster, a UUID. It cannot change: brokers refuse the volumes of another cluster.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterId cannot change"))]
    pub cluster_id: Id,

    /// Number of the broker that acts as controller, or did last. Not set: none did yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = i32::MAX))]
    pub controller: Option<i32>,

    /// Rises with every change of the controller. It never falls.
    #[schemars(range(min = 0, max = i32::MAX))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("controllerEpoch cannot fall"))]
    pub controller_epoch: i32,

    /// Level of features that all brokers have and use. It never falls.
    #[schemars(range(min = 1, max = i32::MAX))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("featureLevel cannot fall: what has been written at a level cannot be read below it"))]
    pub feature_level: i32,

    /// Numbers that are given out in blocks and never twice.
    pub next_ids: NextIds,

    /// Internal topics, with what is fixed when they are made. At most 16.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub internal_topics: Vec<InternalTopic>,

    /// Name of each topic by its topicId, also of those in the trash. A name is fixed for the life of an id. At most 10000.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    #[schemars(extend(
        "maxProperties" = MAX_TOPICS,
        "additionalProperties" = {
            "type": "string",
            "minLength": 1,
            "maxLength": 249,
            "x-kubernetes-validations": [{
                "rule": "self == oldSelf",
                "message": "the name of a topic is fixed for the life of its topicId",
            }],
        },
    ))]
    #[x_kube(validation = Rule::new("self.all(id, size(id) == 36)").message("topics are named by their topicId"))]
    pub topics: BTreeMap<Id, String>,
}

/// The first numbers that have not been given out yet, in any block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.producer >= oldSelf.producer && self.incarnation >= oldSelf.incarnation && self.operation >= oldSelf.operation")
        .message("numbers that have been given out cannot be given out again: none of these falls")
)]
pub struct NextIds {
    /// Of producers.
    #[schemars(range(min = 0))]
    pub producer: i64,
    /// Of incarnations of brokers.
    #[schemars(range(min = 0))]
    pub incarnation: i64,
    /// Of the controller's writes.
    #[schemars(range(min = 0))]
    pub operation: i64,
}

/// An internal topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InternalTopic {
    /// Its name, such as __consumer_offsets.
    #[schemars(length(min = 3, max = 249), regex(pattern = "^__[a-z0-9_]+$"))]
    pub name: String,
    /// Its identity, a UUID.
    pub topic_id: Id,
    /// Number of its partitions, from 1 to 10000.
    #[schemars(range(min = 1, max = MAX_PARTITIONS))]
    pub partitions: i32,
}
