use super::*;
use crate::clock::ManualClock;
use crate::metadata::contract;
use crate::storage::Storage;
use crate::storage::memory::Disk;

fn api() -> EmbeddedApi {
    let meta = Disk::new().open().meta();
    let clock = Arc::new(ManualClock::new(1_767_225_600_000, "boot"));
    let context = Context::seeded(clock, 7, &*meta).unwrap();
    EmbeddedApi::new(context.clone(), EmbeddedStore::new(context, meta), "own")
}

fn topic(partitions: i32) -> Value {
    json!({
        "apiVersion": "taffrail.dev/v1alpha1", "kind": "Topic", "metadata": { "name": "t" },
        "spec": { "clusterRef": { "name": "main" }, "partitions": partitions },
    })
}

async fn created(api: &EmbeddedApi) -> Object {
    api.create(Kind::Topic, "t", topic(1)).await.unwrap()
}

/// With these finalizers.
async fn held(api: &EmbeddedApi, object: &Object, finalizers: Value) -> Object {
    let mut next = object.clone();
    next.document["metadata"]["finalizers"] = finalizers;
    api.replace(&next).await.unwrap()
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::check(&|| async { Arc::new(api()) as Arc<dyn MetadataStore> }).await;
}

#[tokio::test]
async fn an_object_is_stored_with_what_the_api_server_says_of_it() {
    let api = api();
    let mut given = topic(1);
    given["status"] = json!({ "topicId": "of somebody's dreams" });
    given["metadata"]["generation"] = 7.into();
    given["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let stored = api.create(Kind::Topic, "t", given).await.unwrap().document;
    let expected =
        json!({ "name": "t", "namespace": "own", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1 });
    assert_eq!(stored["metadata"], expected);
    assert_eq!(stored["spec"]["deletionPolicy"], "Retain", "defaults are filled in");
    assert!(stored.get("status").is_none());
}

#[tokio::test]
async fn the_generation_rises_with_the_spec_and_nobody_can_set_it() {
    let api = api();
    let mut object = created(&api).await;
    let generation = |object: &Object| object.document["metadata"]["generation"].clone();
    object.document["metadata"]["labels"] = json!({ "a": "b" });
    object.document["metadata"]["generation"] = 9.into();
    let labelled = api.replace(&object).await.unwrap();
    assert_eq!((generation(&labelled), &labelled.document["metadata"]["labels"]["a"]), (1.into(), &"b".into()));
    let grown = api.replace(&Object { document: topic(2), ..labelled }).await.unwrap();
    assert_eq!(generation(&grown), 2);
    assert_eq!(grown.document["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
}

#[tokio::test]
async fn m2_a_topic_that_breaks_the_rules_of_its_kind_changes_nothing() {
    let api = api();
    let object = created(&api).await;
    let fewer = Object { document: topic(0), ..object.clone() };
    assert!(matches!(api.replace(&fewer).await, Err(MetadataError::Refused { .. })));
    assert!(matches!(api.create(Kind::Topic, "u", Value::Null).await, Err(MetadataError::Refused { .. })));
    assert_eq!(api.list(Kind::Topic).await.unwrap(), [object]);
}

#[tokio::test]
async fn status_and_the_rest_are_changed_apart() {
    let api = api();
    let mut told = created(&api).await;
    told.document["status"] = json!({ "partitions": 1 });
    told.document["spec"]["partitions"] = 5.into();
    let told = api.replace_status(&told).await.unwrap();
    assert_eq!((&told.document["status"]["partitions"], &told.document["spec"]["partitions"]), (&1.into(), &1.into()));
    let mut next = told.clone();
    next.document["status"] = Value::Null;
    next.document["spec"]["partitions"] = 5.into();
    let next = api.replace(&next).await.unwrap();
    assert_eq!((&next.document["status"]["partitions"], &next.document["spec"]["partitions"]), (&1.into(), &5.into()));
    assert!(matches!(api.replace_status(&told).await, Err(MetadataError::Conflict { .. })));
}

#[tokio::test]
async fn an_object_with_finalizers_goes_when_the_last_is_taken_away() {
    let api = api();
    let object = held(&api, &created(&api).await, json!(["taffrail.dev/data"])).await;
    api.delete(&object).await.unwrap();
    let going = api.get(Kind::Topic, "t").await.unwrap().unwrap();
    assert_eq!(going.document["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    api.delete(&going).await.unwrap();
    assert_eq!(api.get(Kind::Topic, "t").await.unwrap(), Some(going.clone()), "it is going already");
    let mut undone = going.clone();
    undone.document["metadata"].as_object_mut().unwrap().shift_remove("deletionTimestamp");
    let going = api.replace(&undone).await.unwrap();
    assert!(is_deleting(&going.document), "nobody can take it back");
    held(&api, &going, json!([])).await;
    assert_eq!(api.get(Kind::Topic, "t").await.unwrap(), None);
}

#[tokio::test]
async fn the_way_home_is_by_its_name() {
    let api = api();
    let object = created(&api).await;
    let there = api.in_namespace("other");
    assert_eq!(there.get(Kind::Topic, "t").await.unwrap(), None);
    assert_eq!(there.in_namespace("own").get(Kind::Topic, "t").await.unwrap(), Some(object));
}
