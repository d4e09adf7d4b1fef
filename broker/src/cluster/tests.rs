//! Members of one cluster in one process, over one embedded store: controller, heartbeats and serving together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::follow::follow;
use super::image::{Identity, Image};
use super::member::{Member, Parts};
use crate::brokers::Brokers;
use crate::clock::SystemClock;
use crate::context::Context;
use crate::election::Leadership;
use crate::metadata::{EmbeddedStore, Kind, MetadataStore};
use crate::peers::Peers;
use crate::storage::Storage;
use crate::storage::memory::Disk;
use crate::topics::Topics;

const TOPIC: &str = "6f1b0a52-4a3e-4d3e-9d67-2b8f6f0f7a11";
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    store: Arc<dyn MetadataStore>,
    disk: Disk,
}

struct Running {
    topics: Arc<Topics>,
    member: Option<Member>,
    stop: CancellationToken,
    disk: Disk,
    leadership: watch::Sender<Leadership>,
}

fn context(storage: &dyn Storage, seed: u64) -> Context {
    Context::seeded(Arc::new(SystemClock::new()), seed, &*storage.meta()).unwrap()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "taffrail.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name, "namespace": "default", "generation": 1 },
        "spec": spec,
    })
}

impl Cluster {
    async fn new(replicas: i32) -> Self {
        let disk = Disk::new();
        let storage = disk.open();
        let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::new(context(&*storage, 1), storage.meta()));
        let cluster = object("Cluster", "main", &json!({ "replicas": replicas, "storage": { "size": "1Gi" } }));
        store.create(Kind::Cluster, "main", cluster).await.unwrap();
        let state = json!({
            "clusterId": "0b0a3c5e-93c2-4b39-8d7a-3a1a7a2f4c01", "controller": 0, "controllerEpoch": 1, "featureLevel": 1,
            "nextIds": { "producer": 0, "incarnation": 0, "operation": 0 }, "internalTopics": [], "topics": {},
        });
        store.create(Kind::ClusterState, "main", object("ClusterState", "main", &state)).await.unwrap();
        Self { store, disk }
    }

    async fn topic(&self, partitions: i32) {
        let spec = json!({ "clusterRef": { "name": "main" }, "partitions": partitions, "replicationFactor": 1 });
        let mut topic = object("Topic", "t", &spec);
        topic["status"] = json!({
            "topicId": TOPIC, "acceptedGeneration": 1,
            "conditions": [{ "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                             "lastTransitionTime": "2026-01-01T00:00:00Z" }],
        });
        self.store.create(Kind::Topic, "t", topic).await.unwrap();
    }

    /// Starts a broker on this disk, in this session; broker 0 acts as controller.
    async fn start(&self, id: i32, incarnation: i64, continues: Option<i64>, disk: Disk) -> Running {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let spec = json!({
            "clusterName": "main", "id": id, "incarnation": incarnation, "continues": continues,
            "storageId": disk.open().identity().storage.to_string(),
            "bootId": "11111111-2222-4333-8444-555555555555",
            "endpoints": [{ "listener": "internal", "host": "127.0.0.1", "port": port }],
            "version": "0.1.0", "featureLevel": 1, "fenced": true,
        });
        let name = format!("main-{id}");
        let mut spec = spec;
        if continues.is_none() {
            spec.as_object_mut().unwrap().shift_remove("continues");
        }
        match self.store.get(Kind::Broker, &name).await.unwrap() {
            Some(mut object) => {
                object.document["spec"] = spec;
                self.store.replace(&object).await.unwrap();
            }
            None => {
                self.store.create(Kind::Broker, &name, object("Broker", &name, &spec)).await.unwrap();
            }
        }
        let (storage, identity) = (disk.open(), Identity { cluster: "main".into(), namespace: "default".into() });
        let (context, topics, stop) = (context(&*storage, 2), Topics::new(), CancellationToken::new());
        let (images, image) = watch::channel(Arc::<Image>::default());
        tokio::spawn(follow(identity.clone(), self.store.clone(), images, stop.clone()));
        image.clone().wait_for(|image| image.complete).await.unwrap();
        let acting = Leadership::Acting { epoch: 1, write_until: Duration::from_hours(1_000_000) };
        let (leadership, elected) =
            watch::channel(if id == 0 { acting } else { Leadership::Follower { holder: None } });
        let brokers = Brokers::new(id, "cluster".to_owned());
        let parts = Parts {
            context,
            identity,
            store: self.store.clone(),
            image,
            leadership: elected,
            deposed: tokio::sync::mpsc::unbounded_channel().0,
            session_timeout: Duration::from_millis(1_200),
            storage,
            topics: topics.clone(),
            peers: Peers::new(brokers.clone(), 1 << 20),
            brokers,
            me: Session { broker: id, incarnation },
        };
        let (member, service) = Member::join(parts).unwrap();
        let server = tonic::transport::Server::builder().add_service(service);
        let ended = stop.clone();
        tokio::spawn(async move {
            server.serve_with_incoming_shutdown(TcpListenerStream::new(socket), ended.cancelled()).await.unwrap();
        });
        Running { topics, member: Some(member), stop, disk, leadership }
    }
}

impl Running {
    /// By leader: how many partitions of the topic are led by it, as this broker serves them.
    fn leaders(&self) -> Option<BTreeMap<Option<i32>, usize>> {
        let image = self.topics.image();
        let topic = image.topic("t").ok()?;
        let mut leaders = BTreeMap::new();
        for (assignment, partition) in topic.assignments.iter().zip(&topic.partitions) {
            let begun = partition.is_local() || partition.remote_leader().is_some();
            *leaders.entry(assignment.leader.filter(|_| begun)).or_default() += 1;
        }
        Some(leaders)
    }

    fn fault(&self) -> Option<String> {
        self.topics.image().topic("t").ok()?.assignments.iter().find_map(|assignment| assignment.fault.clone())
    }

    async fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < end, "{what}: {:?} {:?}", self.leaders(), self.fault());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn leave(mut self) -> Disk {
        self.member.take().unwrap().leave().await;
        self.stop.cancel();
        drop(self.leadership);
        self.disk
    }
}

fn spread(leaders: &[(Option<i32>, usize)]) -> BTreeMap<Option<i32>, usize> {
    leaders.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_keeps_its_partitions_and_leads_them_again_when_it_is_back() {
    let cluster = Cluster::new(2).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    let one = cluster.start(1, 1, None, Disk::new()).await;
    cluster.topic(4).await;
    for broker in [&zero, &one] {
        broker.wait("spread over both", |broker| broker.leaders() == Some(spread(&[(Some(0), 2), (Some(1), 2)]))).await;
    }

    let disk = one.leave().await;
    zero.wait("half of them offline", |zero| zero.leaders() == Some(spread(&[(None, 2), (Some(0), 2)]))).await;
    assert_eq!(zero.fault().as_deref(), Some("broker 1 does not answer"));

    let one = cluster.start(1, 2, Some(1), disk).await;
    one.wait("back", |one| one.leaders() == Some(spread(&[(Some(0), 2), (Some(1), 2)]))).await;
    let epochs: Vec<_> = one.topics.image().topic("t").unwrap().assignments.iter().map(|a| a.leader_epoch).collect();
    assert!(epochs.iter().any(|epoch| *epoch >= 2), "{epochs:?}");

    // Another volume in the place of the one that it had: the loss is shown, not papered over with empty logs (M9).
    one.leave().await;
    let one = cluster.start(1, 3, None, Disk::new()).await;
    zero.wait("half of them offline", |zero| zero.leaders() == Some(spread(&[(None, 2), (Some(0), 2)]))).await;
    zero.wait("its reason", |zero| zero.fault().is_some_and(|fault| fault.contains("volume"))).await;
    one.leave().await;
    zero.leave().await;
    drop(cluster.disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_slice_that_is_removed_by_hand_freezes_its_partitions_and_comes_back() {
    let cluster = Cluster::new(1).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    cluster.topic(2).await;
    zero.wait("served", |zero| zero.leaders() == Some(spread(&[(Some(0), 2)]))).await;

    let registered = || async {
        let state = cluster.store.get(Kind::ClusterState, "main").await.unwrap().unwrap();
        state.document["spec"]["topics"].get(TOPIC).is_some()
    };
    while !registered().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let name = format!("{TOPIC}-0");
    let slice = cluster.store.get(Kind::PartitionSlice, &name).await.unwrap().unwrap();
    cluster.store.delete(&slice).await.unwrap();
    zero.wait("frozen", |zero| zero.fault().is_some_and(|fault| fault.contains("PartitionSlice is gone"))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.store.get(Kind::PartitionSlice, &name).await.unwrap(), None, "it is not made anew");

    cluster.store.create(Kind::PartitionSlice, &name, slice.document).await.unwrap();
    zero.wait("served again", |zero| zero.leaders() == Some(spread(&[(Some(0), 2)]))).await;
    zero.leave().await;
}
