//! Several brokers in one process, whose metadata is published by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use taffrail_broker::brokers::{Brokers, INTERNAL, Image, Registered};
use taffrail_broker::context::Context;
use taffrail_broker::controller::Controller;
use taffrail_broker::coordinator::groups::{self, Groups};
use taffrail_broker::coordinator::runtime::Limits;
use taffrail_broker::metadata::embedded::EmbeddedStore;
use taffrail_broker::metrics::Metrics;
use taffrail_broker::partition::{Partition, Term};
use taffrail_broker::peers::Peers;
use taffrail_broker::producer_ids::ProducerIds;
use taffrail_broker::server::{self, Listener, Options, Server};
use taffrail_broker::service::{self, Broker};
use taffrail_broker::storage::memory::Disk;
use taffrail_broker::storage::{PartitionId, Storage};
use taffrail_broker::topics::{Assignment, Settings, Topic, Topics};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{PATIENCE, TestBroker};

/// A broker of a cluster.
pub(crate) struct Node {
    pub(crate) public: TestBroker,
    internal: Option<Server>,
    internal_address: String,
    stop_internal: CancellationToken,
}

/// Brokers 0, 1, ...
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    pub(crate) async fn start(brokers: i32) -> Self {
        Self::with(brokers, 1 << 30).await
    }

    /// With this memory limit for each.
    pub(crate) async fn with(brokers: i32, memory_limit: usize) -> Self {
        let mut nodes = Vec::new();
        for id in 0..brokers {
            nodes.push(Node::start(id, memory_limit).await);
        }
        let cluster = Self { nodes };
        cluster.register();
        cluster
    }

    /// Tells all brokers of all.
    pub(crate) fn register(&self) {
        let registered = |(id, node): (usize, &Node)| {
            let endpoints = BTreeMap::from([
                (INTERNAL.to_owned(), node.internal_address.clone()),
                ("grpc".to_owned(), node.public.address().to_string()),
            ]);
            let id = id as i32;
            let version = "test".to_owned();
            (id, Registered { id, incarnation: 1, fenced: false, draining: false, zone: None, endpoints, version })
        };
        let image = Image { brokers: self.nodes.iter().enumerate().map(registered).collect() };
        for node in &self.nodes {
            node.broker().brokers.publish(image.clone());
        }
    }

    pub(crate) fn client(&self, broker: usize) -> &TestBroker {
        &self.nodes[broker].public
    }

    /// Serves a topic, each partition led by one of the brokers, or by none, under this epoch.
    pub(crate) async fn topic(&self, name: &str, leaders: &[Option<i32>], leader_epoch: i32) {
        for (broker, _) in self.nodes.iter().enumerate() {
            self.publish(broker, name, leaders, leader_epoch).await;
        }
    }

    /// What one broker is told of a topic.
    pub(crate) async fn publish(&self, broker: usize, name: &str, leaders: &[Option<i32>], leader_epoch: i32) {
        let node = self.nodes[broker].broker();
        let id = Uuid::from_u128(name.bytes().fold(7, |id: u128, byte| id.wrapping_mul(31).wrapping_add(byte.into())));
        let settings = Arc::new(ArcSwap::from_pointee(Settings::of(&taffrail_crds::TopicConfig::default())));
        let before = node.topics.full_image().topic(name).ok().cloned();
        for old in before.iter().flat_map(|topic| &topic.partitions) {
            old.stop().await;
        }
        let mut partitions = Vec::new();
        for (index, leader) in leaders.iter().enumerate() {
            let id = PartitionId { topic: id, index: index as i32 };
            let fault = leader.is_none().then(|| "nobody has it".to_owned());
            let partition = match *leader {
                Some(leader) if leader as usize == broker => {
                    let known = node.storage.logs().into_iter().find(|log| log.partition() == id);
                    let log = known.unwrap_or_else(|| node.storage.create(id).unwrap());
                    Partition::lead(log, node.context.clone(), settings.clone(), Term::alone(Some(leader_epoch)))
                        .await
                        .unwrap()
                }
                Some(leader) => Partition::remote(&node.peers, id, leader, leader_epoch),
                None => Partition::offline(id, fault.clone()),
            };
            let replicas: Vec<_> = leader.iter().copied().collect();
            let isr = replicas.clone();
            partitions.push((
                partition,
                Assignment { leader: *leader, leader_epoch, replicas, isr, fault, ..Assignment::default() },
            ));
        }
        node.topics.change(vec![Arc::new(Topic::new(name.into(), id, settings, partitions))], &[]);
    }

    /// Serves groups, all by one broker.
    pub(crate) async fn groups_at(&self, broker: i32, leader_epoch: i32) {
        self.topic(groups::TOPIC, &[Some(broker); 4], leader_epoch).await;
        let loaded = &self.nodes[broker as usize].broker().groups;
        // The shards begin when the groups' task has heard of the topic.
        let begun = Instant::now();
        while loaded.status().len() < 4 || loaded.loaded(PATIENCE).await > 0 {
            assert!(begun.elapsed() < PATIENCE, "the coordinators do not load");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends a broker's internal listener.
    pub(crate) async fn cut(&mut self, broker: usize) {
        let node = &mut self.nodes[broker];
        node.stop_internal.cancel();
        node.internal.take().unwrap().stopped().await;
    }

    /// Begins it anew, at another address, and tells all.
    pub(crate) async fn mend(&mut self, broker: usize) {
        self.nodes[broker].listen().await;
        self.register();
    }
}

impl Node {
    async fn start(id: i32, memory_limit: usize) -> Self {
        let disk = Disk::new();
        let storage: Arc<dyn Storage> = disk.open();
        let context = Context::system(&*storage.meta()).unwrap();
        let (topics, brokers) = (Topics::new(), Brokers::new(id, "cluster".to_owned()));
        let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
        let controller = Controller::start(context.clone(), storage.clone(), metadata, Topics::new()).await.unwrap();
        let broker = Arc::new(Broker {
            groups: Groups::start(&context, &topics, Limits::default()),
            context,
            peers: Peers::new(brokers.clone(), memory_limit),
            brokers,
            topics,
            controller,
            producer_ids: ProducerIds::open(storage.meta()).unwrap(),
            storage,
            metrics: Metrics::new(Instant::now()),
            data_dir: "memory".to_owned(),
            format_version: 1,
            default_partitions: 1,
            last_seen: None,
        });
        let address = ([127, 0, 0, 1], 0).into();
        let listener = Listener { name: Arc::from("grpc"), address, exposed: false };
        let options = Options { listen: vec![listener], memory_limit, ..Options::default() };
        let public = TestBroker::serving(disk, broker, options).await;
        let mut node =
            Self { public, internal: None, internal_address: String::new(), stop_internal: CancellationToken::new() };
        node.listen().await;
        node
    }

    async fn listen(&mut self) {
        self.stop_internal = CancellationToken::new();
        let broker = &self.public.broker;
        let options = Options { drain_timeout: Duration::from_millis(200), ..Options::default() };
        let routes = service::internal_routes(broker);
        let stop = self.stop_internal.clone();
        let address = ([127, 0, 0, 1], 0).into();
        let server = server::serve_internal(address, routes, options, &broker.metrics, stop).await.unwrap();
        self.internal_address = server.addresses()[0].to_string();
        self.internal = Some(server);
    }

    /// As which others are told to reach it.
    pub(crate) fn set_internal_address(&mut self, address: String) {
        self.internal_address = address;
    }

    pub(crate) fn broker(&self) -> &Arc<Broker> {
        &self.public.broker
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_internal.cancel();
    }
}
