//! Server-side apply of the objects that belong to a Cluster, and only of what differs.
//!
//! Whether something differs is found without a write: the object as it was applied last leaves its hash in an annotation,
//! which tells when what is wanted has changed (also when a field is no longer wanted), and what is wanted must be a part of
//! what is there, which tells when somebody else has changed it. Comparing alone would not see fields that are no longer
//! wanted; the hash alone would not see the changes of others; a dry run counts as a write of the API server.

use std::fmt::Debug;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value};

use crate::cluster::labels;
use crate::error::Cause;

/// Who the operator is to the API server.
pub const FIELD_MANAGER: &str = "taffrail-operator";

/// Annotation with the hash of the object as it was applied last.
pub const APPLIED_HASH: &str = "taffrail.dev/applied-hash";

/// A kind of object that belongs to Clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChildKind {
    /// Who the brokers are.
    ServiceAccount,
    /// What they may do.
    Role,
    /// Who may do that.
    RoleBinding,
    /// Their configuration.
    ConfigMap,
    /// Where they are reached.
    Service,
    /// How many may be away.
    PodDisruptionBudget,
    /// Who may connect to them.
    NetworkPolicy,
    /// They themselves.
    StatefulSet,
    /// That Prometheus' operator shall read their metrics.
    ServiceMonitor,
}

impl ChildKind {
    /// Kinds that every API server has.
    pub const BUILT_IN: [Self; 8] = [
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::ConfigMap,
        Self::Service,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::StatefulSet,
    ];

    /// How the API server calls it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Role => ApiResource::erase::<Role>(&()),
            Self::RoleBinding => ApiResource::erase::<RoleBinding>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::ServiceMonitor => ApiResource {
                group: "monitoring.coreos.com".to_owned(),
                version: "v1".to_owned(),
                api_version: "monitoring.coreos.com/v1".to_owned(),
                kind: "ServiceMonitor".to_owned(),
                plural: "servicemonitors".to_owned(),
            },
        }
    }

    /// Its objects in a namespace.
    pub fn api(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), namespace, &self.resource())
    }
}

/// An object that is wanted, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: ChildKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// It, with apiVersion and kind.
    pub object: Value,
}

impl Child {
    /// An object of these parts; `metadata` without name and namespace, `rest` are the fields beside it.
    pub fn new(kind: ChildKind, namespace: &str, name: &str, mut metadata: Value, rest: Value) -> Self {
        let resource = kind.resource();
        metadata["name"] = name.into();
        metadata["namespace"] = namespace.into();
        let mut object = Value::Object(Map::from_iter([
            ("apiVersion".to_owned(), resource.api_version.into()),
            ("kind".to_owned(), resource.kind.into()),
            ("metadata".to_owned(), metadata),
        ]));
        if let (Some(object), Value::Object(rest)) = (object.as_object_mut(), rest) {
            object.extend(rest);
        }
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), object: without_empty(object) }
    }

    /// With the annotation that tells what was applied.
    fn with_hash(&self) -> Value {
        let mut object = self.object.clone();
        object["metadata"]["annotations"][APPLIED_HASH] = format!("{:016x}", hash(&self.object.to_string())).into();
        object
    }
}

/// Whom an object that is there belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The Cluster, or nobody yet, but it is labelled as the Cluster's.
    Ours,
    /// An earlier Cluster of the same name.
    Earlier,
    /// Somebody else.
    Other,
}

/// Whom an object belongs to that is where the Cluster `name` with this uid wants one. Pure.
pub fn owner_of(present: &DynamicObject, name: &str, uid: &str) -> Owner {
    let ours = present.labels().get(labels::CLUSTER).is_some_and(|cluster| cluster == name)
        && present.labels().get(labels::MANAGED_BY).is_some_and(|by| by == FIELD_MANAGER);
    match present.owner_references().iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) if owner.uid == uid => Owner::Ours,
        Some(owner) if owner.kind == "Cluster" && owner.name == name && ours => Owner::Earlier,
        None if ours => Owner::Ours,
        _ => Owner::Other,
    }
}

/// Makes it be there as it is wanted, for the Cluster of this name and uid. True: something had to be written.
pub async fn apply(client: &Client, child: &Child, cluster: &str, uid: &str) -> Result<bool, Cause> {
    let api = child.kind.api(client, &child.namespace);
    let wanted = child.with_hash();
    if let Some(present) = api.get_opt(&child.name).await? {
        let kind = child.kind.resource().kind;
        match owner_of(&present, cluster, uid) {
            Owner::Other => return Err(Cause::Taken { kind, name: child.name.clone() }),
            Owner::Earlier => return Err(Cause::Leaving { kind, name: child.name.clone() }),
            Owner::Ours if present.metadata.deletion_timestamp.is_some() => {
                return Err(Cause::Leaving { kind, name: child.name.clone() });
            }
            Owner::Ours => {}
        }
        let present = serde_json::to_value(&present).unwrap_or_default();
        if !differs(&wanted, &present) {
            return Ok(false);
        }
    }
    let mut parameters = PatchParams::apply(FIELD_MANAGER).force();
    // A misspelt field would be dropped in silence otherwise.
    parameters.field_validation = Some(ValidationDirective::Strict);
    api.patch(&child.name, &parameters, &Patch::Apply(&wanted)).await?;
    tracing::info!(kind = child.kind.resource().kind, namespace = child.namespace, name = child.name, "applied");
    Ok(true)
}

/// Whether what is wanted is not a part of what is there. Lists must have the same length, since the API server fills in
/// defaults inside entries but adds none. Pure.
pub fn differs(wanted: &Value, present: &Value) -> bool {
    match (wanted, present) {
        (Value::Object(wanted), Value::Object(present)) => wanted.iter().any(|(name, wanted)| {
            present.get(name).map_or_else(|| !is_empty(wanted), |present| differs(wanted, present))
        }),
        (Value::Array(wanted), Value::Array(present)) => {
            wanted.len() != present.len()
                || wanted.iter().zip(present).any(|(wanted, present)| differs(wanted, present))
        }
        (wanted, present) => wanted != present,
    }
}

/// What an API server does not keep.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        _ => false,
    }
}

/// Without fields that are null, so that builders can leave something out by `None`.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_empty(value))).collect())
        }
        Value::Array(entries) => Value::Array(entries.into_iter().map(without_empty).collect()),
        other => other,
    }
}

/// FNV-1a, 64 bits: small, and the same on every machine and in every version.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_add_is_no_difference_and_what_they_change_is() {
        let wanted = json!({"a": 1, "list": [{"name": "x", "port": 1}], "none": {}, "map": {"k": "v"}});
        for (present, expected) in [
            (wanted.clone(), false),
            (json!({"a": 1, "b": 2, "list": [{"name": "x", "port": 1, "protocol": "TCP"}], "map": {"k": "v"}}), false),
            (json!({"a": 2, "list": [{"name": "x", "port": 1}], "map": {"k": "v"}}), true),
            (json!({"a": 1, "list": [{"name": "x", "port": 2}], "map": {"k": "v"}}), true),
            (json!({"a": 1, "list": [], "map": {"k": "v"}}), true),
            (json!({"a": 1, "list": [{"name": "x", "port": 1}, {"name": "y"}], "map": {"k": "v"}}), true),
            (json!({"a": 1, "list": [{"name": "x", "port": 1}]}), true),
        ] {
            assert_eq!(differs(&wanted, &present), expected, "{present}");
        }
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_changes_the_hash() {
        let child = |rest| Child::new(ChildKind::ConfigMap, "ns", "c", json!({}), rest);
        let (more, less) = (child(json!({"data": {"a": "1", "b": "2"}})), child(json!({"data": {"a": "1"}})));
        assert!(differs(&less.with_hash(), &more.with_hash()));
        assert!(!differs(&less.with_hash(), &less.with_hash()));
        assert_eq!(child(json!({"data": null})), child(json!({})), "null is left out");
    }

    #[test]
    fn objects_of_others_are_not_ours() {
        let object = |labels: Value, owners: Value| -> DynamicObject {
            serde_json::from_value(json!({"metadata": {"name": "x", "labels": labels, "ownerReferences": owners}}))
                .unwrap()
        };
        let ours = json!({labels::CLUSTER: "main", labels::MANAGED_BY: FIELD_MANAGER});
        let owner = |kind: &str, uid: &str| json!([{"apiVersion": "v1", "kind": kind, "name": "main", "uid": uid, "controller": true}]);
        for (labels, owners, expected) in [
            (ours.clone(), owner("Cluster", "1"), Owner::Ours),
            (ours.clone(), json!([]), Owner::Ours),
            (ours.clone(), owner("Cluster", "0"), Owner::Earlier),
            (ours, owner("Deployment", "0"), Owner::Other),
            (json!({}), json!([]), Owner::Other),
            (json!({labels::CLUSTER: "other", labels::MANAGED_BY: FIELD_MANAGER}), json!([]), Owner::Other),
        ] {
            assert_eq!(owner_of(&object(labels.clone(), owners.clone()), "main", "1"), expected, "{labels} {owners}");
        }
    }
}
