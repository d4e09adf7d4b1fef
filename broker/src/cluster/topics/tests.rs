use serde_json::{Value, json};

use super::*;
use crate::clock::SystemClock;
use crate::metadata::{EmbeddedStore, Event};
use crate::storage::Storage as _;
use crate::storage::memory::Disk;

const TOPIC: &str = "6f1b0a52-4a3e-4d3e-9d67-2b8f6f0f7a11";
const SLICE: &str = "6f1b0a52-4a3e-4d3e-9d67-2b8f6f0f7a11-0";

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "taffrail.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": "default", "generation": 1 }, "spec": spec,
    })
}

fn broker(id: i32, fenced: bool) -> Value {
    json!({
        "clusterName": "main", "id": id, "incarnation": 1, "storageId": TOPIC, "bootId": TOPIC, "version": "1",
        "featureLevel": 1, "endpoints": [{ "listener": "internal", "host": "h", "port": 1 }], "fenced": fenced,
    })
}

/// Partition 0 has no leader in leader epoch 17: broker 0 is away and had every record. Partition 1 is led by broker 1.
fn slice(leader: Option<i32>, leader_epoch: i32) -> Value {
    let partition = |index: i32, leader: Option<i32>, epoch: i32| {
        let mut partition = json!({
            "index": index, "replicas": [0, 1], "leaderEpoch": epoch, "partitionEpoch": epoch, "isr": [],
            "minInSyncReplicas": 1, "replicationFactor": 2,
        });
        if let Some(leader) = leader {
            partition["leader"] = leader.into();
            partition["isr"] = json!([{ "broker": leader, "incarnation": 1 }]);
        }
        partition
    };
    json!({
        "clusterName": "main", "topicId": TOPIC, "topicName": "t", "firstIndex": 0, "controllerEpoch": 1, "operationId": 1,
        "partitions": [partition(0, leader, leader_epoch), partition(1, Some(1), 2)],
    })
}

struct World {
    store: Arc<dyn MetadataStore>,
    images: watch::Sender<Arc<Image>>,
    topics: Arc<ClusterTopics>,
}

impl World {
    async fn new() -> Self {
        let storage = Disk::new().open();
        let context = || Context::seeded(Arc::new(SystemClock::new()), 1, &*storage.meta()).unwrap();
        let store = EmbeddedStore::new(context(), storage.meta()).in_namespace("default");
        let (images, image) = watch::channel(Arc::<Image>::default());
        let identity = Identity { cluster: "main".into(), namespace: "default".into() };
        let topics = ClusterTopics::new(context(), identity, store.clone(), image, Topics::new());
        let world = Self { store, images, topics };
        let mut topic = object("Topic", "t", &json!({ "clusterRef": { "name": "main" }, "partitions": 2 }));
        topic["status"] = json!({
            "topicId": TOPIC, "acceptedGeneration": 1,
            "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                             "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        });
        world.put(Kind::Topic, "t", topic).await;
        world.put(Kind::Broker, "main-0", object("Broker", "main-0", &broker(0, true))).await;
        world.put(Kind::Broker, "main-1", object("Broker", "main-1", &broker(1, false))).await;
        world.put(Kind::PartitionSlice, SLICE, object("PartitionSlice", SLICE, &slice(None, 17))).await;
        world
    }

    async fn put(&self, kind: Kind, name: &str, document: Value) {
        let stored = match self.store.get(kind, name).await.unwrap() {
            None => self.store.create(kind, name, document).await.unwrap(),
            Some(mut present) => {
                present.document["spec"] = document["spec"].clone();
                self.store.replace(&present).await.unwrap()
            }
        };
        self.images.send_modify(|image| {
            let mut next = Image::clone(image);
            next.apply(&self.topics.identity, Event::Applied(stored));
            *image = Arc::new(next);
        });
    }
}

#[tokio::test]
async fn l8_a_command_is_kept_in_the_topic_and_answered_when_the_replica_leads() {
    let world = World::new().await;
    let topics = Arc::clone(&world.topics);
    let call = tokio::spawn(async move { topics.recover("t", 0, 1).await });
    let annotation = loop {
        let topic = world.store.get(Kind::Topic, "t").await.unwrap().unwrap();
        if let Some(annotation) = topic.document["metadata"]["annotations"][RECOVER_ANNOTATION].as_str() {
            break annotation.to_owned();
        }
        assert!(!call.is_finished(), "{:?}", call.await);
        tokio::task::yield_now().await;
    };
    assert_eq!(annotation, "0=1@17");
    assert!(!call.is_finished(), "nobody leads yet");
    world.put(Kind::PartitionSlice, SLICE, object("PartitionSlice", SLICE, &slice(Some(1), 18))).await;
    assert_eq!(call.await.unwrap().unwrap(), 18);
}

#[tokio::test]
async fn l8_a_command_that_cannot_be_carried_out_is_refused_and_not_kept() {
    let world = World::new().await;
    for (name, partition, broker, why) in [
        ("u", 0, 1, "does not exist"),
        ("t", 2, 1, "there is no partition 2"),
        ("t", 1, 0, "is led by broker 1"),
        ("t", 0, 2, "choose one of 0, 1"),
        ("t", 0, 0, "does not answer"),
    ] {
        let refused = world.topics.recover(name, partition, broker).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let topic = world.store.get(Kind::Topic, "t").await.unwrap().unwrap();
    assert!(topic.document["metadata"]["annotations"].is_null(), "{}", topic.document);
}
