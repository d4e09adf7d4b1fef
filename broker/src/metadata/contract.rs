//! What every [`MetadataStore`] must do, as tests. The embedded store's are in its own file, those on a real API server
//! among the end-to-end tests.

// It is a test, wherever it is called from.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{Event, Kind, MetadataError, MetadataStore, Object};

/// Where the number stands that tells states of an object apart.
const NUMBER: &str = "taffrail.dev/number";

/// Checks all of it; `open` makes an empty store.
pub async fn check<F: Future<Output = Arc<dyn MetadataStore>>>(open: &impl Fn() -> F) {
    objects_are_found_under_kind_and_name(&*open().await).await;
    a_name_is_taken_once(&*open().await).await;
    m1_only_the_version_that_was_read_is_replaced(&*open().await).await;
    only_the_version_that_was_read_is_deleted(&*open().await).await;
    an_object_made_again_is_another(&*open().await).await;
    m2_what_breaks_the_rules_of_its_kind_changes_nothing(&*open().await).await;
    namespaces_are_apart(&*open().await).await;
    a_watch_tells_what_is_there_and_what_changes(&*open().await).await;
    a_watch_tells_nothing_of_what_was_refused(&*open().await).await;
    m1_of_many_writers_one_wins(open().await).await;
}

/// A Topic with this number.
fn topic(name: &str, number: u64) -> Value {
    json!({
        "apiVersion": "taffrail.dev/v1alpha1",
        "kind": "Topic",
        "metadata": {"name": name, "annotations": {NUMBER: number.to_string()}},
        "spec": {"clusterRef": {"name": "main"}, "partitions": 1},
    })
}

/// A ClusterState, which is an object with rules. Its name is the Cluster's.
fn state(name: &str, epoch: i32) -> Value {
    json!({
        "apiVersion": "taffrail.dev/v1alpha1",
        "kind": "ClusterState",
        "metadata": {"name": name},
        "spec": {
            "clusterId": "7f6c2f0e-5f0b-4a53-9d0e-4a9c7a3f5b11",
            "controllerEpoch": epoch,
            "featureLevel": 1,
            "nextIds": {"producer": 0, "incarnation": 0, "operation": 0},
            "internalTopics": [],
            "topics": {},
        },
    })
}

fn number(object: &Object) -> u64 {
    object.document["metadata"]["annotations"][NUMBER].as_str().unwrap().parse().unwrap()
}

fn numbered(object: &Object, number: u64) -> Object {
    let mut object = object.clone();
    object.document["metadata"]["annotations"][NUMBER] = number.to_string().into();
    object
}

async fn create(store: &dyn MetadataStore, name: &str, number: u64) -> Object {
    store.create(Kind::Topic, name, topic(name, number)).await.unwrap()
}

async fn get(store: &dyn MetadataStore, name: &str) -> Option<Object> {
    store.get(Kind::Topic, name).await.unwrap()
}

async fn objects_are_found_under_kind_and_name(store: &dyn MetadataStore) {
    let made = create(store, "b", 1).await;
    create(store, "a", 2).await;
    assert_eq!(get(store, "b").await, Some(made));
    assert_eq!(get(store, "c").await, None);
    assert_eq!(store.get(Kind::ClusterState, "b").await.unwrap(), None);
    let names: Vec<_> = store.list(Kind::Topic).await.unwrap().into_iter().map(|o| o.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(store.list(Kind::ClusterState).await.unwrap().is_empty());
}

async fn a_name_is_taken_once(store: &dyn MetadataStore) {
    let first = create(store, "a", 1).await;
    let error = store.create(Kind::Topic, "a", topic("a", 2)).await.unwrap_err();
    assert!(matches!(error, MetadataError::Exists { .. }), "{error}");
    assert_eq!(get(store, "a").await, Some(first));
}

async fn m1_only_the_version_that_was_read_is_replaced(store: &dyn MetadataStore) {
    let old = create(store, "a", 1).await;
    let new = store.replace(&numbered(&old, 2)).await.unwrap();
    assert_eq!((new.uid, number(&new)), (old.uid, 2));
    assert_ne!(new.resource_version, old.resource_version);
    let error = store.replace(&numbered(&old, 3)).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    assert_eq!(get(store, "a").await, Some(new));
}

async fn only_the_version_that_was_read_is_deleted(store: &dyn MetadataStore) {
    let old = create(store, "a", 1).await;
    let new = store.replace(&numbered(&old, 2)).await.unwrap();
    let error = store.delete(&old).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    store.delete(&new).await.unwrap();
    assert_eq!(get(store, "a").await, None);
    for error in [store.delete(&new).await.unwrap_err(), store.replace(&new).await.unwrap_err()] {
        assert!(matches!(error, MetadataError::NotFound { .. }), "{error}");
    }
    assert_eq!(get(store, "a").await, None);
}

async fn an_object_made_again_is_another(store: &dyn MetadataStore) {
    let first = create(store, "a", 1).await;
    store.delete(&first).await.unwrap();
    let second = create(store, "a", 1).await;
    assert_ne!(first.uid, second.uid);
    for error in [store.replace(&numbered(&first, 2)).await.unwrap_err(), store.delete(&first).await.unwrap_err()] {
        assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    }
    // Not even with the new one's version.
    let mixed = Object { uid: first.uid, ..numbered(&second, 2) };
    let error = store.replace(&mixed).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    assert_eq!(get(store, "a").await, Some(second));
}

async fn m2_what_breaks_the_rules_of_its_kind_changes_nothing(store: &dyn MetadataStore) {
    let refused = |result: Result<Object, MetadataError>, why: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, MetadataError::Refused { .. }) && error.to_string().contains(why), "{error}");
    };
    refused(store.create(Kind::ClusterState, "main", state("main", -1)).await, "controllerEpoch");
    assert_eq!(store.get(Kind::ClusterState, "main").await.unwrap(), None);
    let made = store.create(Kind::ClusterState, "main", state("main", 7)).await.unwrap();
    let lower = Object { document: state("main", 6), ..made.clone() };
    refused(store.replace(&lower).await, "controllerEpoch cannot fall");
    assert_eq!(store.get(Kind::ClusterState, "main").await.unwrap(), Some(made.clone()));
    // A version that is not current is told as that, whatever else is wrong: the reader reads again.
    store.replace(&Object { document: state("main", 8), ..made.clone() }).await.unwrap();
    let error = store.replace(&Object { document: state("main", 9), ..made }).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
}

async fn namespaces_are_apart(store: &dyn MetadataStore) {
    let other = store.in_namespace("default");
    for old in other.list(Kind::Topic).await.unwrap() {
        other.delete(&old).await.unwrap();
    }
    let mut watch = other.watch(Kind::Topic);
    assert_eq!(watch.next().await, Some(Event::Listed));
    create(store, "a", 1).await;
    assert_eq!(get(&*other, "a").await, None);
    let there = create(&*other, "a", 2).await;
    assert_eq!(watch.next().await, Some(Event::Applied(there.clone())));
    assert_eq!(get(store, "a").await.map(|object| number(&object)), Some(1));
    other.delete(&there).await.unwrap();
    assert_eq!(store.list(Kind::Topic).await.unwrap().len(), 1);
}

async fn a_watch_tells_what_is_there_and_what_changes(store: &dyn MetadataStore) {
    let first = create(store, "a", 1).await;
    let mut watch = store.watch(Kind::Topic);
    assert_eq!(watch.next().await, Some(Event::Applied(first.clone())));
    assert_eq!(watch.next().await, Some(Event::Listed));
    store.create(Kind::ClusterState, "main", state("main", 1)).await.unwrap();
    let second = store.replace(&numbered(&first, 2)).await.unwrap();
    store.delete(&second).await.unwrap();
    let third = create(store, "a", 3).await;
    assert_eq!(watch.next().await, Some(Event::Applied(second.clone())));
    // The last state of what is gone carries the version of its deletion in one of the stores.
    let Some(Event::Deleted(gone)) = watch.next().await else { panic!("no deletion") };
    assert_eq!((gone.uid, number(&gone)), (second.uid, 2));
    assert_eq!(watch.next().await, Some(Event::Applied(third)));
}

async fn a_watch_tells_nothing_of_what_was_refused(store: &dyn MetadataStore) {
    let first = create(store, "a", 1).await;
    let mut watch = store.watch(Kind::Topic);
    assert_eq!(watch.next().await, Some(Event::Applied(first.clone())));
    assert_eq!(watch.next().await, Some(Event::Listed));
    let second = store.replace(&numbered(&first, 2)).await.unwrap();
    store.replace(&numbered(&first, 3)).await.unwrap_err();
    store.delete(&first).await.unwrap_err();
    let last = store.replace(&numbered(&second, 4)).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Applied(second)));
    assert_eq!(watch.next().await, Some(Event::Applied(last)));
}

async fn m1_of_many_writers_one_wins(store: Arc<dyn MetadataStore>) {
    let object = create(&*store, "a", 0).await;
    let writers = (1..9).map(|n| {
        let (store, object) = (store.clone(), numbered(&object, n));
        tokio::spawn(async move { store.replace(&object).await.is_ok() })
    });
    let won = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
}
