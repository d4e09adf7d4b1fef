//! The controller's epoch: raised by compare-and-swap of the ClusterState, which the first controller makes.
//!
//! A broker whose volume belongs to a cluster knows that there was one: it never makes another in its place, under which
//! identities and numbers would be given out twice (M9, M11). For the same reason one that went back in time, as when etcd is
//! restored from a backup, is lifted to what the broker saw of it last.

use std::sync::Arc;

use serde_json::{Value, json};
use taffrail_crds::{CLUSTER_LABEL, ClusterStateSpec, FEATURE_LEVEL, last_seen};
use uuid::Uuid;

use crate::cluster::image::spec_of;
use crate::cluster::serving::state_seen;
use crate::context::Context;
use crate::controller::object::document;
use crate::metadata::{Kind, MetadataError, MetadataStore, Object};
use crate::registration;
use crate::storage::{MetaStore, StorageError, blocking};

/// Why the epoch was not raised.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimError {
    /// The ClusterState is lost.
    #[error(
        "ClusterState {name:?} is gone, and this broker's volume belongs to cluster {cluster}: nothing is decided until it is \
         back, and partitions stay as they are. \"taffrail cluster recover\" rebuilds it from what the brokers saw last"
    )]
    Lost {
        /// Name of the object.
        name: String,
        /// Id of the cluster that it was.
        cluster: Uuid,
    },
    /// The ClusterState is lost, and this broker is new.
    #[error(
        "ClusterState {name:?} is gone, and {slices} PartitionSlices of the cluster are there: nothing is decided until it is \
         back. \"taffrail cluster recover\" rebuilds it from what the brokers saw last"
    )]
    Orphaned {
        /// Name of the object.
        name: String,
        /// How many slices there are.
        slices: usize,
    },
    /// It was not read or written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// What the volume belongs to could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Raises the epoch for `broker`, whose volume's memory is `meta`; the new one. A write of unknown outcome is followed by
/// another: the epoch then is higher by two, which does no harm.
pub(super) async fn raise(
    store: &dyn MetadataStore,
    meta: &Arc<dyn MetaStore>,
    context: &Context,
    cluster: &str,
    broker: i32,
) -> Result<i32, ClaimError> {
    let memory = meta.clone();
    let seen = blocking(move || state_seen(&*memory)).await?;
    loop {
        let written = match store.get(Kind::ClusterState, cluster).await? {
            None => match registration::cluster_of(meta).await? {
                None => make(store, context, cluster, broker).await?,
                Some(lost) => return Err(ClaimError::Lost { name: cluster.to_owned(), cluster: lost }),
            },
            Some(object) => store.replace(&raised(object, seen.as_ref(), broker)?).await,
        };
        match written {
            Ok(object) => return Ok(epoch(&object)?),
            Err(MetadataError::Conflict { .. } | MetadataError::Exists { .. } | MetadataError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first one, in a cluster that never had any.
async fn make(
    store: &dyn MetadataStore,
    context: &Context,
    cluster: &str,
    broker: i32,
) -> Result<Result<Object, MetadataError>, ClaimError> {
    let slices = store.list(Kind::PartitionSlice).await?.len();
    if slices > 0 {
        return Err(ClaimError::Orphaned { name: cluster.to_owned(), slices });
    }
    Ok(store.create(Kind::ClusterState, cluster, first(context, cluster, broker)).await)
}

fn first(context: &Context, cluster: &str, broker: i32) -> Value {
    let spec = json!({
        "clusterId": context.random_uuid().to_string(),
        "controller": broker,
        "controllerEpoch": 1,
        "featureLevel": FEATURE_LEVEL,
        "nextIds": {"producer": 0, "incarnation": 0, "operation": 0},
        "internalTopics": [],
        "topics": {},
    });
    taffrail_crds::Kind::ClusterState.object(cluster, &json!({ CLUSTER_LABEL: cluster }), &spec)
}

/// With the next epoch; all else stays as it is, also what this program does not know.
fn raised(mut object: Object, seen: Option<&ClusterStateSpec>, broker: i32) -> Result<Object, MetadataError> {
    if let Some(seen) = seen {
        lift(&mut object, seen);
    }
    let next = epoch(&object)?.checked_add(1).ok_or_else(|| object.malformed("controllerEpoch has no next"))?;
    object.document["spec"]["controllerEpoch"] = next.into();
    object.document["spec"]["controller"] = broker.into();
    Ok(object)
}

/// Where it went back in time, nothing in it is less than what was `seen`, and the numbers are left out that others may have taken
/// since.
fn lift(object: &mut Object, seen: &ClusterStateSpec) {
    let Some(found) = spec_of::<ClusterStateSpec>(object) else { return };
    if !last_seen::went_back(&found, seen) {
        return;
    }
    let Ok(lifted) = last_seen::state(found, seen.clone()) else { return };
    let name = &object.name;
    tracing::error!(name, "the ClusterState went back in time: it is lifted to what this broker saw of it last");
    let lifted = document(&last_seen::with_room(lifted));
    if let (Some(spec), Value::Object(lifted)) = (object.document["spec"].as_object_mut(), lifted) {
        spec.extend(lifted);
    }
}

fn epoch(object: &Object) -> Result<i32, MetadataError> {
    let epoch = object.document["spec"]["controllerEpoch"].as_i64().and_then(|epoch| i32::try_from(epoch).ok());
    epoch.ok_or_else(|| object.malformed("no controllerEpoch"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::cluster::serving::Kept;
    use crate::metadata::EmbeddedStore;
    use crate::storage::Storage;
    use crate::storage::memory::Disk;

    #[tokio::test]
    async fn m14_each_controller_has_an_epoch_of_its_own_and_nothing_else_changes() {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = Arc::new(EmbeddedStore::new(context.clone(), meta.clone()));
        assert_eq!(raise(&*store, &meta, &context, "main", 2).await.unwrap(), 1);
        let first = store.get(Kind::ClusterState, "main").await.unwrap().unwrap();
        let claims = (0..8).map(|broker| {
            let (store, meta, context) = (store.clone(), meta.clone(), context.clone());
            tokio::spawn(async move { raise(&*store, &meta, &context, "main", broker).await.unwrap() })
        });
        let mut epochs: Vec<i32> =
            futures::future::join_all(claims).await.into_iter().map(|epoch| epoch.unwrap()).collect();
        epochs.sort_unstable();
        assert_eq!(epochs, (2..10).collect::<Vec<_>>());
        let mut last = store.get(Kind::ClusterState, "main").await.unwrap().unwrap().document;
        last["spec"]["controllerEpoch"] = 1.into();
        last["spec"]["controller"] = 2.into();
        assert_eq!(last, first.document);
    }

    #[tokio::test]
    async fn m11_a_state_that_went_back_is_lifted_above_all_that_was_seen() {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = EmbeddedStore::new(context.clone(), meta.clone());
        raise(&store, &meta, &context, "main", 2).await.unwrap();
        let object = store.get(Kind::ClusterState, "main").await.unwrap().unwrap();
        let found: ClusterStateSpec = spec_of(&object).unwrap();
        let mut seen = found.clone();
        (seen.controller_epoch, seen.next_ids.producer) = (5, 7_000_000);
        seen.topics.insert(taffrail_crds::id::Id(Uuid::from_u128(9)), "flights".to_owned());
        Kept::open(meta.clone()).unwrap().see(Some(&seen), std::iter::empty()).unwrap();
        assert_eq!(raise(&store, &meta, &context, "main", 2).await.unwrap(), 6);
        let lifted: ClusterStateSpec = spec_of(&store.get(Kind::ClusterState, "main").await.unwrap().unwrap()).unwrap();
        assert_eq!((lifted.next_ids.producer, &lifted.topics), (7_000_000 + last_seen::BLOCK, &seen.topics));
        assert_eq!(raise(&store, &meta, &context, "main", 2).await.unwrap(), 7);
        let next: ClusterStateSpec = spec_of(&store.get(Kind::ClusterState, "main").await.unwrap().unwrap()).unwrap();
        assert_eq!(next.next_ids, lifted.next_ids, "once is enough");
    }

    #[tokio::test]
    async fn m11_a_volume_that_belonged_to_a_cluster_makes_no_other() {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = EmbeddedStore::new(context.clone(), Disk::new().open().meta());
        let registered =
            br#"{"v":1,"cluster":"7f6c2f0e-5f0b-4a53-9d0e-4a9c7a3f5b11","broker":2,"incarnation":7,"registered":6}"#;
        meta.write(vec![(b"broker/registration".to_vec(), Some(registered.to_vec()))]).unwrap();
        let refused = raise(&store, &meta, &context, "main", 2).await.unwrap_err();
        assert!(matches!(refused, ClaimError::Lost { .. }), "{refused}");
        assert!(refused.to_string().contains("taffrail cluster recover"), "{refused}");
        assert_eq!(store.get(Kind::ClusterState, "main").await.unwrap(), None);

        store.create(Kind::ClusterState, "main", first(&context, "main", 1)).await.unwrap();
        assert_eq!(raise(&store, &meta, &context, "main", 2).await.unwrap(), 2, "once it is back, it goes on");
    }
}
