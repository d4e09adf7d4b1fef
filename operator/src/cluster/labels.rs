//! Names, labels and annotations of what belongs to a Cluster. All are here.
//!
//! [`selector`] is in fields of a StatefulSet that cannot change, so it never can either.

use std::collections::BTreeMap;

use serde_json::{Value, json};
pub use taffrail_crds::CLUSTER_LABEL as CLUSTER;

use super::validate::Validated;
use crate::apply::FIELD_MANAGER;

/// Label of objects in other namespaces: the Cluster's namespace.
pub const CLUSTER_NAMESPACE: &str = "taffrail.dev/cluster-namespace";
/// Label: who made it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Annotation of pods: the hash of the configuration they started with.
pub const CONFIG_HASH: &str = "taffrail.dev/config-hash";
/// Annotation of pods: the zone of their node.
pub const ZONE: &str = "taffrail.dev/zone";
/// Annotation of pods and of the StatefulSet: the brokers' version.
pub const VERSION: &str = "taffrail.dev/version";

/// Labels that brokers' pods are found by. They never change.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "taffrail"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/component", "broker"),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// [`selector`] as kubectl and the scale subresource write it.
pub fn selector_text(cluster: &str) -> String {
    let labels: Vec<_> = selector(cluster).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// Labels of everything that belongs to a Cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let mut labels = selector(cluster);
    labels.insert(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned());
    labels.insert(CLUSTER.to_owned(), cluster.to_owned());
    labels
}

/// Metadata of an object in the Cluster's namespace, which is collected when the Cluster is deleted.
pub fn metadata(cluster: &Validated) -> Value {
    json!({
        "labels": labels(&cluster.key.name),
        "ownerReferences": [{
            "apiVersion": "taffrail.dev/v1alpha1",
            "kind": "Cluster",
            "name": cluster.key.name,
            "uid": cluster.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    })
}

/// Name of the headless Service.
pub fn headless(cluster: &str) -> String {
    format!("{cluster}-brokers")
}

/// Name of the Service for clients.
pub fn bootstrap(cluster: &str) -> String {
    format!("{cluster}-bootstrap")
}

/// Name of the Service of an exposed listener.
pub fn exposed(cluster: &str, listener: &str) -> String {
    format!("{cluster}-{listener}")
}

/// Name of the ConfigMap.
pub fn config(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// Name of ServiceAccount, Role and RoleBinding in the Cluster's namespace.
pub fn access(cluster: &str) -> String {
    format!("{cluster}-broker")
}

/// Name of Role and RoleBinding in another namespace: only these kinds may have colons, so it is never somebody else's.
pub fn foreign_access(namespace: &str, cluster: &str) -> String {
    format!("taffrail:{namespace}:{cluster}")
}

/// Name of a broker's claim.
pub fn claim(cluster: &str, broker: i32) -> String {
    format!("data-{cluster}-{broker}")
}
