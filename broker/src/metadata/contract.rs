//! What every [`MetadataStore`] must do, as tests.

use std::sync::Arc;

use futures::StreamExt;
use serde_json::json;

use super::{Event, Kind, MetadataError, MetadataStore};

/// Checks all of it; `open` makes an empty store.
pub(crate) async fn check<F: Future<Output = Arc<dyn MetadataStore>>>(open: impl Fn() -> F) {
    objects_are_found_under_kind_and_name(&*open().await).await;
    a_name_is_taken_once(&*open().await).await;
    m1_only_the_version_that_was_read_is_replaced(&*open().await).await;
    only_the_version_that_was_read_is_deleted(&*open().await).await;
    an_object_made_again_is_another(&*open().await).await;
    a_watch_tells_what_is_there_and_what_changes(&*open().await).await;
    m1_of_many_writers_one_wins(open().await).await;
}

async fn objects_are_found_under_kind_and_name(store: &dyn MetadataStore) {
    let made = store.create(Kind::Topic, "b", json!({"n": 1})).await.unwrap();
    store.create(Kind::Topic, "a", json!({"n": 2})).await.unwrap();
    assert_eq!(store.get(Kind::Topic, "b").await.unwrap(), Some(made));
    assert_eq!(store.get(Kind::DeletedTopic, "b").await.unwrap(), None);
    let names: Vec<_> = store.list(Kind::Topic).await.unwrap().into_iter().map(|o| o.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(store.list(Kind::DeletedTopic).await.unwrap().is_empty());
}

async fn a_name_is_taken_once(store: &dyn MetadataStore) {
    let first = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    let error = store.create(Kind::Topic, "a", json!(2)).await.unwrap_err();
    assert!(matches!(error, MetadataError::Exists { .. }), "{error}");
    assert_eq!(store.get(Kind::Topic, "a").await.unwrap(), Some(first));
}

async fn m1_only_the_version_that_was_read_is_replaced(store: &dyn MetadataStore) {
    let mut old = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    old.document = json!(2);
    let new = store.replace(&old).await.unwrap();
    assert_eq!((new.uid, &new.document), (old.uid, &json!(2)));
    assert_ne!(new.resource_version, old.resource_version);
    let error = store.replace(&old).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    assert_eq!(store.get(Kind::Topic, "a").await.unwrap(), Some(new));
}

async fn only_the_version_that_was_read_is_deleted(store: &dyn MetadataStore) {
    let old = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    let new = store.replace(&old).await.unwrap();
    let error = store.delete(&old).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
    store.delete(&new).await.unwrap();
    assert_eq!(store.get(Kind::Topic, "a").await.unwrap(), None);
    let error = store.delete(&new).await.unwrap_err();
    assert!(matches!(error, MetadataError::NotFound { .. }), "{error}");
}

async fn an_object_made_again_is_another(store: &dyn MetadataStore) {
    let first = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    store.delete(&first).await.unwrap();
    let second = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    assert_ne!(first.uid, second.uid);
    let error = store.replace(&first).await.unwrap_err();
    assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
}

async fn a_watch_tells_what_is_there_and_what_changes(store: &dyn MetadataStore) {
    let first = store.create(Kind::Topic, "a", json!(1)).await.unwrap();
    let mut watch = store.watch(Kind::Topic);
    assert_eq!(watch.next().await, Some(Event::Applied(first.clone())));
    assert_eq!(watch.next().await, Some(Event::Listed));
    store.create(Kind::DeletedTopic, "other", json!(1)).await.unwrap();
    let second = store.replace(&first).await.unwrap();
    store.delete(&second).await.unwrap();
    assert_eq!(watch.next().await, Some(Event::Applied(second.clone())));
    assert_eq!(watch.next().await, Some(Event::Deleted(second)));
}

async fn m1_of_many_writers_one_wins(store: Arc<dyn MetadataStore>) {
    let object = store.create(Kind::Topic, "a", json!(0)).await.unwrap();
    let writers = (0..8).map(|n| {
        let (store, mut object) = (store.clone(), object.clone());
        object.document = json!(n);
        tokio::spawn(async move { store.replace(&object).await.is_ok() })
    });
    let won = futures::future::join_all(writers.collect::<Vec<_>>()).await;
    assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
}
