//! The controller's epoch: raised by compare-and-swap of the ClusterState, which the first controller makes.

use serde_json::{Value, json};
use taffrail_crds::{GROUP, VERSION};

use crate::context::Context;
use crate::metadata::kubernetes::CLUSTER_LABEL;
use crate::metadata::{Kind, MetadataError, MetadataStore, Object};

/// Level of features that this program has.
const FEATURE_LEVEL: i32 = 1;

/// Raises the epoch for `broker`; the new one. A write of unknown outcome is followed by another: the epoch then is higher
/// by two, which does no harm.
pub(super) async fn raise(
    store: &dyn MetadataStore,
    context: &Context,
    cluster: &str,
    broker: i32,
) -> Result<i32, MetadataError> {
    loop {
        let written = match store.get(Kind::ClusterState, cluster).await? {
            None => store.create(Kind::ClusterState, cluster, first(context, cluster, broker)).await,
            Some(object) => store.replace(&raised(object, broker)?).await,
        };
        match written {
            Ok(object) => return epoch(&object),
            Err(MetadataError::Conflict { .. } | MetadataError::Exists { .. } | MetadataError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

fn first(context: &Context, cluster: &str, broker: i32) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": Kind::ClusterState.as_str(),
        "metadata": {"name": cluster, "labels": {CLUSTER_LABEL: cluster}},
        "spec": {
            "clusterId": context.random_uuid().to_string(),
            "controller": broker,
            "controllerEpoch": 1,
            "featureLevel": FEATURE_LEVEL,
            "nextIds": {"producer": 0, "incarnation": 0, "operation": 0},
            "internalTopics": [],
            "topics": {},
        },
    })
}

/// With the next epoch; all else stays as it is, also what this program does not know.
fn raised(mut object: Object, broker: i32) -> Result<Object, MetadataError> {
    let next = epoch(&object)?.checked_add(1).ok_or_else(|| malformed(&object, "controllerEpoch has no next"))?;
    object.document["spec"]["controllerEpoch"] = next.into();
    object.document["spec"]["controller"] = broker.into();
    Ok(object)
}

fn epoch(object: &Object) -> Result<i32, MetadataError> {
    let epoch = object.document["spec"]["controllerEpoch"].as_i64().and_then(|epoch| i32::try_from(epoch).ok());
    epoch.ok_or_else(|| malformed(object, "no controllerEpoch"))
}

fn malformed(object: &Object, what: &str) -> MetadataError {
    MetadataError::Malformed { kind: object.kind, name: object.name.clone(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::ManualClock;
    use crate::metadata::EmbeddedStore;
    use crate::storage::Storage;
    use crate::storage::memory::Disk;

    #[tokio::test]
    async fn m14_each_controller_has_an_epoch_of_its_own_and_nothing_else_changes() {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = Arc::new(EmbeddedStore::new(context.clone(), meta));
        assert_eq!(raise(&*store, &context, "main", 2).await.unwrap(), 1);
        let first = store.get(Kind::ClusterState, "main").await.unwrap().unwrap();
        let claims = (0..8).map(|broker| {
            let (store, context) = (store.clone(), context.clone());
            tokio::spawn(async move { raise(&*store, &context, "main", broker).await.unwrap() })
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
}
