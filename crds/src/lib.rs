//! Taffrail's custom resources: the types, their defaults and bounds, the rules that admit or refuse them, and how
//! manifests are read.
//!
//! One definition serves all: [`topic`] holds the types, whose documentation becomes `kubectl explain` and whose schema
//! and CEL rules become `yaml/`. An API server enforces them there; [`admission`] enforces the very same ones
//! where no API server is. [`manifest`] reads YAML and lists all faults of a file with their lines.
//!
//! This crate knows nothing of brokers, storage or the wire.
#![warn(missing_docs)]

pub mod admission;
pub mod condition;
pub mod config;
pub mod duration;
pub mod field;
pub mod kafka;
pub mod manifest;
pub mod name;
pub mod size;
pub mod topic;
pub mod yaml;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use topic::{Topic, TopicConfig, TopicSpec, TopicStatus};

/// API group of all kinds.
pub const GROUP: &str = "taffrail.dev";

/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Annotation on a new Topic: the `topicId` of a deleted or lost topic whose data it takes over, with all its offsets.
pub const ADOPT_ANNOTATION: &str = "taffrail.dev/adopt";

/// All definitions, in the order in which they are written and applied.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Topic::crd()]
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
