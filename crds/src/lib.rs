//! Taffrail's custom resources: the types, their defaults and bounds, the rules that admit or refuse them, and how
//! manifests are read.
//!
//! Users write [`Cluster`] and [`Topic`]; the brokers keep [`PartitionSlice`], [`ClusterState`] and [`Broker`] among
//! themselves. One definition serves all: the types' documentation becomes `kubectl explain`, their schema and CEL rules
//! become `yaml/`. An API server enforces them there; [`admission`] enforces the very same ones where no API server is. [`manifest`] reads YAML and lists all faults of a file with their lines.
//!
//! This crate knows nothing of brokers, storage or the wire.
#![warn(missing_docs)]

pub mod admission;
pub mod broker;
pub mod cluster;
pub mod cluster_state;
pub mod condition;
pub mod config;
pub mod cpu;
pub mod duration;
pub mod field;
pub mod id;
pub mod kafka;
pub mod kind;
pub mod last_seen;
pub mod manifest;
pub mod name;
pub mod recover;
pub mod reference;
mod replicas;
pub mod revision;
pub mod size;
pub mod slice;
pub mod topic;
pub mod yaml;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub use broker::{Broker, BrokerSpec};
pub use cluster::{Cluster, ClusterSpec, ClusterStatus};
pub use cluster_state::{ClusterState, ClusterStateSpec};
pub use kind::Kind;
pub use slice::{PartitionSlice, PartitionSliceSpec, PartitionState};
pub use topic::{Topic, TopicConfig, TopicSpec, TopicStatus};

/// API group of all kinds.
pub const GROUP: &str = "taffrail.dev";

/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Annotation on a new Topic: the `topicId` of a deleted or lost topic whose data it takes over, with all its offsets.
pub const ADOPT_ANNOTATION: &str = "taffrail.dev/adopt";

/// Label of every object that belongs to a Cluster: its name.
pub const CLUSTER_LABEL: &str = "taffrail.dev/cluster";

/// Label of slices: the id of their topic.
pub const TOPIC_ID_LABEL: &str = "taffrail.dev/topic-id";

/// Level of features that this version has.
pub const FEATURE_LEVEL: i32 = 1;

/// All definitions, in the order in which they are written and applied.
pub fn all() -> Vec<CustomResourceDefinition> {
    Kind::ALL.map(Kind::definition).into()
}

/// All that is generated and committed: paths from the root of the repository, and contents. The definitions lie in the chart a
/// second time, since a chart is packed with what is in its folder.
pub fn written_files() -> Vec<(String, String)> {
    let copies = |(name, text): (String, String)| {
        ["crds/yaml", "helm/taffrail/files/crds"].map(|folder| (format!("{folder}/{name}"), text.clone()))
    };
    let mut files: Vec<_> = yaml_files().into_iter().flat_map(copies).collect();
    files.push(("docs/crds.md".to_owned(), reference::page()));
    files
}

/// File names and contents of the definitions of all kinds, as they lie in `yaml/`.
pub fn yaml_files() -> Vec<(String, String)> {
    let file = |definition: CustomResourceDefinition| {
        let yaml = serde_yaml::to_string(&definition).expect("a definition has string keys only");
        let head = "# Written by `cargo run -p taffrail-crds --bin crdgen` from crds/src. Do not edit.\n";
        (format!("{}.yaml", definition.spec.names.singular.unwrap_or_default()), format!("{head}{yaml}"))
    };
    all().into_iter().map(file).collect()
}
