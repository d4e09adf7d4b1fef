//! Between objects of the API and documents.

use kube::api::{DynamicObject, ObjectMeta, TypeMeta};
use serde_json::Value;
use taffrail_crds::{GROUP, VERSION};
use uuid::Uuid;

use super::{Kind, MetadataError, Object};

/// The object as it is written, and how many bytes that are: in the place of the version `read`, or new.
pub(super) fn encode(
    kind: Kind,
    name: &str,
    document: &Value,
    read: Option<&Object>,
) -> Result<(DynamicObject, usize), MetadataError> {
    let refused = |what: String| MetadataError::Refused { kind, name: name.to_owned(), what };
    let mut object: DynamicObject =
        serde_json::from_value(document.clone()).map_err(|error| refused(error.to_string()))?;
    if object.metadata.name.as_deref() != Some(name) {
        return Err(refused("its metadata.name is another".to_owned()));
    }
    object.metadata.uid = read.map(|object| object.uid.to_string());
    object.metadata.resource_version = read.map(|object| object.resource_version.clone());
    Ok((object, document.to_string().len()))
}

/// The object as the API tells it.
pub(super) fn decode(kind: Kind, mut object: DynamicObject) -> Result<Object, MetadataError> {
    let ObjectMeta { name, uid, resource_version, .. } = &mut object.metadata;
    let name = name.clone().unwrap_or_default();
    let malformed = |what: &str| MetadataError::Malformed { kind, name: name.clone(), what: what.to_owned() };
    let uid = uid.take().and_then(|uid| Uuid::try_parse(&uid).ok());
    let (Some(uid), Some(resource_version)) = (uid, resource_version.take()) else {
        return Err(malformed("it has no uid or no resourceVersion"));
    };
    object.metadata.managed_fields = None;
    // Entries of a list do not say what they are.
    object.types = Some(TypeMeta { api_version: format!("{GROUP}/{VERSION}"), kind: kind.as_str().to_owned() });
    let document = serde_json::to_value(object).map_err(|error| malformed(&error.to_string()))?;
    Ok(Object { kind, name, uid, resource_version, document })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_all_but_the_version() {
        let told = json!({
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "6b1b1c2e-5f0b-4a53-9d0e-4a9c7a3f5b11", "resourceVersion": "7",
                "labels": {"l": "1"}, "annotations": {"n": "2"}, "finalizers": ["taffrail.dev/data"], "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
                "managedFields": [{"manager": "kubectl"}],
            },
            "spec": {"partitions": 1, "later": {"x": [1]}},
            "status": {"topicId": "t"},
        });
        let read = decode(Kind::Topic, serde_json::from_value(told.clone()).unwrap()).unwrap();
        let mut expected = told.clone();
        for volatile in ["uid", "resourceVersion", "managedFields"] {
            expected["metadata"].as_object_mut().unwrap().remove(volatile);
        }
        expected["apiVersion"] = "taffrail.dev/v1alpha1".into();
        expected["kind"] = "Topic".into();
        assert_eq!(read.document, expected);
        assert_eq!((read.name.as_str(), read.resource_version.as_str()), ("a", "7"));
        // Written back it carries the version again, and nothing is lost.
        let (written, _) = encode(Kind::Topic, "a", &read.document, Some(&read)).unwrap();
        let mut written = serde_json::to_value(written).unwrap();
        for (field, value) in
            [("uid", &told["metadata"]["uid"]), ("resourceVersion", &told["metadata"]["resourceVersion"])]
        {
            assert_eq!(written["metadata"].as_object_mut().unwrap().remove(field).as_ref(), Some(value));
        }
        assert_eq!(written, expected);
    }

    #[test]
    fn what_is_no_object_of_that_name_is_refused() {
        for document in [json!(7), json!({"metadata": {"name": "b"}}), json!({"metadata": {"name": 7}}), json!({})] {
            let error = encode(Kind::Topic, "a", &document, None).unwrap_err();
            assert!(matches!(error, MetadataError::Refused { .. }), "{document}: {error}");
        }
        let bare: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert!(matches!(decode(Kind::Topic, bare), Err(MetadataError::Malformed { .. })));
    }
}
