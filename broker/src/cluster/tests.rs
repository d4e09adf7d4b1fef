//! Members of one cluster in one process, over one embedded store: controller, heartbeats and serving together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use taffrail_crds::{PartitionSliceSpec, PartitionState};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::follow::follow;
use super::image::{Identity, Image, spec_of};
use super::member::{Member, Parts};
use super::topics::ClusterTopics;
use crate::brokers::Brokers;
use crate::clock::SystemClock;
use crate::context::Context;
use crate::coordinator::groups::Groups;
use crate::coordinator::runtime::Limits;
use crate::election::Leadership;
use crate::metadata::{EmbeddedStore, Kind, MetadataError, MetadataStore};
use crate::metrics::{ControllerMetrics, Metrics, ReplicationMetrics};
use crate::peers::Peers;
use crate::producer_ids::ProducerIds;
use crate::server::{self, Options};
use crate::service;
use crate::storage::memory::Disk;
use crate::storage::{FORMAT_VERSION, Storage};
use crate::topics::Topics;

mod damage;
mod moves;
mod rewind;

const TOPIC: &str = "6f1b0a52-4a3e-4d3e-9d67-2b8f6f0f7a11";
const PATIENCE: Duration = Duration::from_mins(1);
/// Of a cluster in which no broker is to be taken for dead, however long the machine holds this process up.
const PATIENT: Duration = Duration::from_secs(15);
/// Of a cluster in which a broker dies.
const SHORT: Duration = Duration::from_millis(1_200);

struct Cluster {
    store: Arc<dyn MetadataStore>,
    disk: Disk,
    session_timeout: Duration,
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
    async fn new(replicas: i32, session_timeout: Duration) -> Self {
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
        Self { store, disk, session_timeout }
    }

    async fn topic(&self, partitions: i32, replication_factor: i32) {
        let spec = json!({
            "clusterRef": { "name": "main" }, "partitions": partitions, "replicationFactor": replication_factor,
        });
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
        let (storage, identity): (Arc<dyn Storage>, _) =
            (disk.open(), Identity { cluster: "main".into(), namespace: "default".into() });
        let (context, topics, stop) = (context(&*storage, 2), Topics::new(), CancellationToken::new());
        let (images, image) = watch::channel(Arc::<Image>::default());
        tokio::spawn(follow(identity.clone(), self.store.clone(), images, stop.clone()));
        image.clone().wait_for(|image| image.complete).await.unwrap();
        let acting = Leadership::Acting { epoch: 1, write_until: Duration::from_hours(1_000_000) };
        let (leadership, elected) =
            watch::channel(if id == 0 { acting } else { Leadership::Follower { holder: None } });
        let brokers = Brokers::new(id, "cluster".to_owned());
        let peers = Peers::new(brokers.clone(), 1 << 20);
        let broker = self.broker((context.clone(), &image, &topics), (&brokers, &peers), &storage);
        let parts = Parts {
            context,
            identity,
            store: self.store.clone(),
            image,
            leadership: elected,
            deposed: tokio::sync::mpsc::unbounded_channel().0,
            session_timeout: self.session_timeout,
            storage,
            topics: topics.clone(),
            peers,
            brokers,
            me: Session { broker: id, incarnation },
            controller: ControllerMetrics::default(),
            metrics: ReplicationMetrics::default(),
            newest: Arc::new(watch::Sender::new(0)),
        };
        let (member, service) = Member::join(parts).unwrap();
        let routes = service::internal_routes(&broker).add_service(service);
        let address = socket.local_addr().unwrap();
        drop(socket);
        let options = Options { drain_timeout: Duration::from_millis(200), ..Options::default() };
        server::serve_internal(address, routes, options, &broker.metrics, stop.clone()).await.unwrap();
        Running { topics, member: Some(member), stop, disk, leadership }
    }

    /// What other brokers call.
    fn broker(
        &self,
        (context, image, topics): (Context, &watch::Receiver<Arc<Image>>, &Arc<Topics>),
        (brokers, peers): (&Arc<Brokers>, &Arc<Peers>),
        storage: &Arc<dyn Storage>,
    ) -> Arc<service::Broker> {
        let identity = Identity { cluster: "main".into(), namespace: "default".into() };
        let store = self.store.clone();
        Arc::new(service::Broker {
            brokers: brokers.clone(),
            peers: peers.clone(),
            storage: storage.clone(),
            topics: topics.clone(),
            groups: Groups::start(&context, topics, Limits::default()),
            controller: ClusterTopics::new(context.clone(), identity, store.clone(), image.clone(), topics.clone()),
            metrics: Metrics::new(std::time::Instant::now()),
            producer_ids: ProducerIds::of_cluster(storage.meta(), store, "main").unwrap(),
            data_dir: String::new(),
            format_version: FORMAT_VERSION,
            default_partitions: 1,
            last_seen: None,
            context,
        })
    }

    /// Changes the Cluster's `spec`.
    async fn set(&self, field: &str, value: Value) {
        let mut cluster = self.store.get(Kind::Cluster, "main").await.unwrap().unwrap();
        cluster.document["spec"][field] = value;
        self.store.replace(&cluster).await.unwrap();
    }

    /// All partitions as the store has them.
    async fn partitions(&self) -> Vec<PartitionState> {
        let slices = self.store.list(Kind::PartitionSlice).await.unwrap();
        let slices = slices.iter().filter_map(spec_of::<PartitionSliceSpec>);
        slices.flat_map(|slice| slice.partitions).collect()
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

    /// Readers of the first partition may be answered by the replica here.
    fn serves_near(&self) -> bool {
        let image = self.topics.image();
        image.topic("t").is_ok_and(|topic| topic.partitions[0].in_sync_replica().is_some())
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

/// Two brokers that lead two partitions each.
async fn spread_over_two(replication_factor: i32, session_timeout: Duration) -> (Cluster, Running, Running) {
    let cluster = Cluster::new(2, session_timeout).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    let one = cluster.start(1, 1, None, Disk::new()).await;
    cluster.topic(4, replication_factor).await;
    for broker in [&zero, &one] {
        broker.wait("spread over both", |broker| broker.leaders() == Some(spread(&[(Some(0), 2), (Some(1), 2)]))).await;
    }
    (cluster, zero, one)
}

fn spread(leaders: &[(Option<i32>, usize)]) -> BTreeMap<Option<i32>, usize> {
    leaders.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_keeps_its_partitions_and_leads_them_again_when_it_is_back() {
    let (cluster, zero, one) = spread_over_two(1, SHORT).await;

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
    let cluster = Cluster::new(1, PATIENT).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    cluster.topic(2, 1).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn r3_a_replica_serves_readers_as_long_as_the_slice_has_it_in_sync() {
    let cluster = Cluster::new(2, PATIENT).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    let one = cluster.start(1, 1, None, Disk::new()).await;
    cluster.topic(1, 2).await;
    for broker in [&zero, &one] {
        broker.wait("led", |broker| broker.leaders().is_some_and(|leaders| !leaders.contains_key(&None))).await;
    }
    let zero_leads = zero.leaders() == Some(spread(&[(Some(0), 1)]));
    let (led_by, leader, follower) = if zero_leads { (0, &zero, &one) } else { (1, &one, &zero) };
    follower.wait("in sync", Running::serves_near).await;
    assert!(!leader.serves_near(), "it leads");

    // Without a controller nobody but this test changes the slice: one would take the replica into the ISR again at once.
    zero.leadership.send_replace(Leadership::Follower { holder: None });
    let in_sync = |replicas: Value| {
        let store = cluster.store.clone();
        async move {
            loop {
                let mut slice = store.get(Kind::PartitionSlice, &format!("{TOPIC}-0")).await.unwrap().unwrap();
                let state = &mut slice.document["spec"]["partitions"][0];
                let all = std::mem::replace(&mut state["isr"], replicas.clone());
                state["partitionEpoch"] = (state["partitionEpoch"].as_i64().unwrap() + 1).into();
                match store.replace(&slice).await {
                    Ok(_) => return all,
                    // The controller's last round may still be under way.
                    Err(MetadataError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let all = in_sync(json!([{ "broker": led_by, "incarnation": 1 }])).await;
    follower.wait("not in sync", |follower| !follower.serves_near()).await;
    in_sync(all).await;
    follower.wait("in sync again", Running::serves_near).await;
    let other_session = json!([{ "broker": led_by, "incarnation": 1 }, { "broker": 1 - led_by, "incarnation": 9 }]);
    in_sync(other_session).await;
    follower.wait("another session is in sync", |follower| !follower.serves_near()).await;
    zero.leave().await;
    one.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full_hands_over_what_it_leads() {
    let (_cluster, zero, one) = spread_over_two(2, PATIENT).await;
    one.disk.set_full(true);
    zero.wait("all with the one that has room", |zero| zero.leaders() == Some(spread(&[(Some(0), 4)]))).await;
    zero.leave().await;
    one.leave().await;
}
