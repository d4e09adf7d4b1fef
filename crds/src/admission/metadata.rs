//! What an API server checks of `metadata` by itself, as far as it concerns these kinds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Fault, MAX_FAULTS};
use crate::config::shorten;
use crate::field::FieldPath;
use crate::{ADOPT_ANNOTATION, Kind, name};

/// Fields that metadata may have (Kubernetes' ObjectMeta).
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Adds the faults of `metadata`: unknown fields, wrong types, names that are none, an annotation that is no topicId.
pub(super) fn check(kind: Kind, metadata: Option<&Value>, faults: &mut Vec<Fault>) {
    let path = FieldPath::fields(["metadata"]);
    let Some(Value::Object(fields)) = metadata else {
        faults.push(Fault::new(path, "missing: write metadata with a name"));
        return;
    };
    let unknown = fields.keys().filter(|name| !METADATA.contains(&name.as_str())).take(MAX_FAULTS);
    faults.extend(unknown.map(|name| Fault::new(path.field(name), "unknown field")));
    // Field by field: serde says what is wrong, not where.
    let mut good = Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| METADATA.contains(&name.as_str())) {
        let one = Map::from_iter([(name.clone(), value.clone())]);
        match serde_json::from_value::<ObjectMeta>(Value::Object(one.clone())) {
            Ok(_) => good.extend(one),
            Err(error) => faults.push(Fault::new(path.field(name), shorten(&error.to_string()))),
        }
    }
    let meta: ObjectMeta = serde_json::from_value(Value::Object(good)).expect("each field was read by itself");
    let is_named = fields.get("name").is_some_and(|name| !name.is_null());
    check_values(kind, meta, is_named, faults);
}

fn check_values(kind: Kind, meta: ObjectMeta, is_named: bool, faults: &mut Vec<Fault>) {
    let path = FieldPath::fields(["metadata"]);
    match meta.name {
        None if is_named => {}
        None => faults.push(Fault::new(path.clone(), "missing: metadata.name")),
        Some(name) if !name::is_object_name(&name) => faults.push(Fault::new(
            path.field("name"),
            format!(
                "{:?} cannot be the name of an object: use lower-case letters, digits, '-' and '.', beginning and ending \
                 with a letter or digit, at most 253{}",
                shorten(&name),
                if kind == Kind::Topic { "; the topic itself can have another name in spec.topicName" } else { "" }
            ),
        )),
        Some(_) => {}
    }
    if let Some(namespace) = meta.namespace.filter(|namespace| !name::is_namespace_name(namespace)) {
        let message = format!("{:?} cannot be the name of a namespace", shorten(&namespace));
        faults.push(Fault::new(path.field("namespace"), message));
    }
    let adopt = meta.annotations.unwrap_or_default().remove(ADOPT_ANNOTATION);
    if adopt.is_some_and(|id| Uuid::try_parse(&id).is_err()) {
        let path = path.field("annotations").field(ADOPT_ANNOTATION);
        faults.push(Fault::new(path, "not a topicId: write the UUID of the topic whose data this one takes over"));
    }
}
