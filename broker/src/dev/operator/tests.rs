use serde_json::json;

use super::super::{CLUSTER, identity, objects};
use super::*;
use crate::clock::ManualClock;
use crate::cluster::follow::follow;
use crate::manifest::follow::Target as _;
use crate::metadata::{EmbeddedStore, Object};
use crate::storage::Storage;
use crate::storage::memory::Disk;

/// The objects of a cluster of three, with the operator at work.
struct Bench {
    api: EmbeddedApi,
    topics: objects::Topics,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn manifest(object: &str, name: &str, spec: &Value) -> Topic {
    let mut topic =
        json!({ "apiVersion": "taffrail.dev/v1alpha1", "kind": "Topic", "metadata": { "name": object }, "spec": spec });
    topic["spec"]["topicName"] = name.into();
    serde_json::from_value(topic).unwrap()
}

impl Bench {
    async fn new() -> Self {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let api = EmbeddedApi::new(context.clone(), EmbeddedStore::new(context.clone(), meta), "default");
        objects::prepare(&api, 3).await.unwrap();
        let (images, image) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        tokio::spawn(follow(identity(), Arc::new(api.clone()), images, stop.clone()));
        tokio::spawn(Operator { api: api.clone(), context, image }.run(stop.clone()));
        Self { topics: objects::Topics::new(api.clone()), api, stop }
    }

    /// Applies one Topic; whether it was created, changed, left, or refused.
    async fn apply(&self, object: &str, name: &str, spec: Value) -> [usize; 4] {
        let applied = self.topics.apply(vec![manifest(object, name, &spec)]).await.unwrap();
        [applied.created.len(), applied.changed.len(), applied.unchanged.len(), applied.failed.len()]
    }

    async fn object(&self, name: &str) -> Option<Object> {
        self.api.get(Kind::Topic, name).await.unwrap()
    }

    /// The operator may be writing to it.
    async fn delete(&self, name: &str) {
        while let Err(error) = self.api.delete(&self.object(name).await.unwrap()).await {
            assert!(matches!(error, MetadataError::Conflict { .. }), "{error}");
        }
    }

    /// Waits until an object is so.
    async fn until(&self, name: &str, is: impl Fn(&Topic) -> bool) -> Topic {
        for _ in 0..6_000 {
            let topic = self.object(name).await.map(|object| serde_json::from_value::<Topic>(object.document).unwrap());
            if let Some(topic) = topic.filter(|topic| is(topic)) {
                return topic;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.object(name).await);
    }

    async fn until_gone(&self, name: &str) {
        for _ in 0..6_000 {
            if self.object(name).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.object(name).await);
    }
}

fn accepted(topic: &Topic) -> Option<i64> {
    topic.status.as_ref()?.accepted_generation
}

fn stalled(topic: &Topic) -> Option<&str> {
    let conditions = &topic.status.as_ref()?.conditions;
    let stalled = conditions.iter().find(|condition| condition.type_ == "Stalled")?;
    (stalled.status == taffrail_crds::condition::ConditionStatus::True).then_some(&stalled.reason)
}

#[tokio::test]
async fn a_topic_is_accepted_under_one_identity_and_again_when_it_changes() {
    let bench = Bench::new().await;
    assert_eq!(bench.apply("t", "t", json!({ "partitions": 2 })).await, [1, 0, 0, 0]);
    let first = bench.until("t", |topic| accepted(topic) == Some(1)).await;
    assert_eq!(bench.apply("t", "t", json!({ "partitions": 2 })).await, [0, 0, 1, 0]);
    assert_eq!(bench.apply("t", "t", json!({ "partitions": 3 })).await, [0, 1, 0, 0]);
    let second = bench.until("t", |topic| accepted(topic) == Some(2)).await;
    assert_eq!(topic_id(&first), topic_id(&second));
    assert_eq!(second.spec.cluster_ref.map(|cluster| cluster.name).as_deref(), Some(CLUSTER));
    assert_eq!(bench.apply("t", "t", json!({ "partitions": 1 })).await, [0, 0, 0, 1], "none can be taken away");
}

#[tokio::test]
async fn what_the_operator_refuses_is_refused_with_its_reason() {
    let bench = Bench::new().await;
    bench.apply("wide", "wide", json!({ "replicationFactor": 4 })).await;
    let wide = bench.until("wide", |topic| stalled(topic).is_some()).await;
    assert_eq!((stalled(&wide), topic_id(&wide)), (Some("TooFewBrokers"), None));
    bench.apply("a", "same", json!({})).await;
    bench.until("a", |topic| accepted(topic) == Some(1)).await;
    bench.apply("b", "same", json!({})).await;
    let second = bench.until("b", |topic| stalled(topic).is_some()).await;
    assert_eq!(stalled(&second), Some("NameTaken"));
    bench.delete("a").await;
    bench.until("b", |topic| accepted(topic) == Some(1)).await;
}

#[tokio::test]
async fn a_topic_that_takes_its_data_along_waits_for_its_slices_to_be_marked() {
    let bench = Bench::new().await;
    bench.apply("t", "t", json!({ "deletionPolicy": "Delete" })).await;
    let topic = bench.until("t", |topic| accepted(topic) == Some(1) && has_finalizer(topic)).await;
    let id = topic_id(&topic).unwrap().clone();
    let slice = json!({
        "clusterName": CLUSTER, "topicId": id, "topicName": "t", "firstIndex": 0, "controllerEpoch": 1, "operationId": 0,
        "partitions": [{
            "index": 0, "replicas": [0], "leader": 0, "leaderEpoch": 0, "partitionEpoch": 0,
            "isr": [{ "broker": 0, "incarnation": 1 }], "minInSyncReplicas": 1, "replicationFactor": 1,
        }],
    });
    let slice = taffrail_crds::Kind::PartitionSlice.object(&format!("{id}-0"), &json!({}), &slice);
    let mut slice = bench.api.create(Kind::PartitionSlice, &format!("{id}-0"), slice).await.unwrap();
    bench.delete("t").await;
    tokio::time::sleep(LOOK_AGAIN + Duration::from_millis(200)).await;
    bench.until("t", is_deleting).await;
    slice.document["spec"]["tombstone"] =
        json!({ "deletedAt": "2026-01-01T00:00:00Z", "purgeAt": "2026-01-02T00:00:00Z" });
    bench.api.replace(&slice).await.unwrap();
    bench.until_gone("t").await;
}

#[tokio::test]
async fn a_cluster_can_grow_and_not_shrink() {
    use crate::broker::BrokerError;
    let bench = Bench::new().await;
    objects::prepare(&bench.api, 3).await.unwrap();
    let refused = objects::prepare(&bench.api, 2).await.unwrap_err();
    assert!(matches!(refused, BrokerError::FewerBrokers { were: 3 }), "{refused}");
    objects::prepare(&bench.api, 4).await.unwrap();
    bench.apply("wide", "wide", json!({ "replicationFactor": 4 })).await;
    bench.until("wide", |topic| accepted(topic) == Some(1)).await;
}
