//! Writing a status: only what differs, and without getting in the way of those who write the spec.

use std::time::SystemTime;

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use taffrail_crds::condition::{Condition, ConditionStatus, READY, RECONCILING, STALLED, set_condition};

use crate::apply::FIELD_MANAGER;
use crate::error::Cause;

/// The merge patch that makes `old` to `new`: what is changed or new, and null for what is gone. None: they are equal. Pure.
pub fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    let none = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let patch: Map<_, _> = changed.map(|(name, value)| (name.clone(), value.clone())).chain(gone).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Whether a write goes through when the object has been written by others since it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfChanged {
    /// Yes: the status is told anew by whoever sees more.
    Write,
    /// No: what is decided must not be decided twice.
    Refuse,
}

/// Writes the status of `object` if it differs. True: it did.
pub async fn write<K, S>(
    client: &Client,
    object: &K,
    old: Option<&S>,
    new: &S,
    if_changed: IfChanged,
) -> Result<bool, Cause>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
    S: Serialize,
{
    let value = |status: &S| serde_json::to_value(status).unwrap_or_default();
    let Some(patch) = merge_patch(&old.map(value).unwrap_or_default(), &value(new)) else { return Ok(false) };
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut body = json!({ "status": patch });
    if if_changed == IfChanged::Refuse {
        body["metadata"] = json!({ "resourceVersion": object.resource_version() });
    }
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&object.name_any(), &parameters, &Patch::Merge(&body)).await?;
    Ok(true)
}

/// Tells of an object that the API server has taken and that cannot be read all the same. True: that is new.
pub async fn write_malformed<K>(client: &Client, namespace: &str, name: &str, error: &str) -> Result<bool, Cause>
where
    K: Resource<DynamicType = ()>,
{
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()));
    let Some(object) = api.get_opt(name).await? else { return Ok(false) };
    let known: Vec<Condition> = serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
    let mut conditions = known.clone();
    let message = format!("the object cannot be read, so it is left as it is: {error}");
    let facts =
        [(READY, ConditionStatus::False), (RECONCILING, ConditionStatus::False), (STALLED, ConditionStatus::True)];
    for (type_, holds) in facts {
        let mut condition = Condition::new(type_, holds, "Malformed", &*message);
        condition.observed_generation = object.metadata.generation;
        set_condition(&mut conditions, condition, SystemTime::now());
    }
    if conditions == known {
        return Ok(false);
    }
    let body = json!({ "status": { "observedGeneration": object.metadata.generation, "conditions": conditions } });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &parameters, &Patch::Merge(&body)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_differs() {
        let old = json!({"a": 1, "b": [1, 2], "c": "x"});
        assert_eq!(merge_patch(&old, &old), None);
        assert_eq!(merge_patch(&old, &json!({"a": 1, "b": [1]})), Some(json!({"b": [1], "c": null})));
        assert_eq!(merge_patch(&Value::Null, &json!({"a": 1})), Some(json!({"a": 1})));
        assert_eq!(merge_patch(&Value::Null, &json!({})), None);
    }
}
