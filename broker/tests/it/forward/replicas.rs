//! Copies: a broker that follows what another one leads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use taffrail_broker::cluster::Session;
use taffrail_broker::partition::{Partition, Replicated, Term};
use taffrail_broker::replication::View;
use taffrail_broker::replication::fetcher::{Follow, Followers, Following};
use taffrail_broker::storage::{Extent, Log, PartitionId};
use taffrail_broker::topics::{Assignment, Settings, Topic};
use taffrail_crds::slice::Replica;
use taffrail_proto::internal::v1::replicas_client::ReplicasClient;
use taffrail_proto::internal::v1::{FetchPosition, FetchRequest, FetchedPart, PartitionRef};
use taffrail_proto::v1::{DeleteRecordsRequest, Reason};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::cluster::Cluster;
use crate::harness::PATIENCE;

pub(super) const TOPIC: &str = "t";

/// A cluster whose brokers follow each other.
pub(super) struct Bench {
    pub(super) cluster: Cluster,
    followers: Vec<Arc<Followers>>,
}

impl Bench {
    pub(super) async fn start(brokers: i32) -> Self {
        let cluster = Cluster::start(brokers).await;
        let followers = cluster.nodes.iter().enumerate().map(|(id, node)| {
            let me = Session { broker: id as i32, incarnation: 1 };
            let broker = node.broker();
            Followers::new(broker.context.clone(), &broker.peers, me, broker.metrics.replication.clone())
        });
        Self { followers: followers.collect(), cluster }
    }

    /// Has a broker lead all of so many partitions.
    pub(super) async fn lead(&self, leader: i32, leader_epoch: i32, partitions: usize) {
        self.cluster.topic(TOPIC, &vec![Some(leader); partitions], leader_epoch).await;
    }

    /// Has broker 0 lead the first partition, which it leads already, anew under epoch 2: these brokers are in sync.
    pub(super) async fn lead_replicated(&self, in_sync: &[i32]) -> Partition {
        let (node, log) = (self.cluster.nodes[0].broker(), self.log(0, 0));
        let image = node.topics.full_image();
        let topic = image.topic(TOPIC).unwrap();
        topic.partitions[0].stop().await;
        let settings = Arc::new(ArcSwap::from_pointee(Settings::of(&taffrail_crds::TopicConfig::default())));
        let in_session = |broker: &i32| Replica { broker: *broker, incarnation: 1 };
        let view = View {
            me: in_session(&0),
            leader_epoch: 2,
            partition_epoch: 7,
            replicas: in_sync.to_vec(),
            isr: in_sync.iter().map(in_session).collect(),
            min_in_sync_replicas: 2,
        };
        let replicated = Replicated { view, high_watermark: 0, proposals: Arc::default() };
        let term = Term { epoch: Some(2), replicated: Some(replicated) };
        let partition = Partition::lead(log, node.context.clone(), settings.clone(), term).await.unwrap();
        let assignment = Assignment { leader_epoch: 2, ..topic.assignments[0].clone() };
        let led = Topic::new(TOPIC.into(), topic.id, settings, vec![(partition.clone(), assignment)]);
        node.topics.change(vec![Arc::new(led)], &[]);
        partition
    }

    /// The log of a broker's replica.
    pub(super) fn log(&self, broker: usize, index: i32) -> Arc<dyn Log> {
        let node = self.cluster.nodes[broker].broker();
        let topic = node.topics.full_image().topic(TOPIC).unwrap().id;
        node.storage.create(PartitionId { topic, index }).unwrap()
    }

    pub(super) fn follow(&self, broker: usize, index: i32, following: Following) -> Follow {
        let settings = Settings::of(&taffrail_crds::TopicConfig::default());
        self.followers[broker].follow(self.log(broker, index), Arc::new(ArcSwap::from_pointee(settings)), following)
    }

    pub(super) async fn produce(&self, leader: usize, index: i32, batches: usize) {
        for _ in 0..batches {
            self.cluster.client(leader).produce(TOPIC, index, &["a", "b", "c"]).await;
        }
    }

    pub(super) async fn delete(&self, leader: usize, index: i32, before_offset: i64) {
        let request = DeleteRecordsRequest { topic: TOPIC.to_owned(), partition: index, before_offset };
        self.cluster.client(leader).admin().delete_records(request).await.unwrap();
    }

    /// Waits until both replicas hold the same.
    pub(super) async fn same(&self, one: usize, other: usize, index: i32) {
        let (one, other) = (self.log(one, index), self.log(other, index));
        until(|| one.extent() == other.extent()).await;
        assert_eq!(content(&*one).await, content(&*other).await);
        let Extent { start, end } = one.extent();
        for offset in start..end {
            assert_eq!(one.leader_epochs().at(offset), other.leader_epochs().at(offset), "epoch of {offset}");
        }
    }
}

pub(super) async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it takes too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn content(log: &dyn Log) -> Vec<Bytes> {
    let Extent { start, end } = log.extent();
    log.read(start, end, usize::MAX).await.unwrap()
}

pub(super) fn of(leader: i32, leader_epoch: i32) -> Following {
    Following { leader, leader_epoch, high_watermark: 0, in_sync: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_a_follower_catches_up_and_stays_there() {
    let bench = Bench::start(2).await;
    bench.lead(0, 3, 1).await;
    bench.produce(0, 0, 40).await;
    let follow = bench.follow(1, 0, of(0, 3));
    bench.same(0, 1, 0).await;
    bench.produce(0, 0, 20).await;
    bench.same(0, 1, 0).await;
    until(|| follow.high_watermark() == 180).await;
    bench.delete(0, 0, 4).await;
    bench.same(0, 1, 0).await;
    assert_eq!((follow.fault(), follow.stop().await), (None, 180));
    bench.produce(0, 0, 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bench.log(1, 0).extent(), Extent { start: 4, end: 180 }, "it does not follow any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_t2_a_deposed_leader_cuts_what_its_successor_does_not_have() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 1).await;
    bench.produce(0, 0, 10).await;
    let follow = bench.follow(1, 0, of(0, 1));
    bench.same(0, 1, 0).await;
    follow.stop().await;
    bench.produce(0, 0, 5).await;
    bench.lead(1, 2, 1).await;
    bench.produce(1, 0, 3).await;
    let follow = bench.follow(0, 0, of(1, 2));
    bench.same(0, 1, 0).await;
    assert_eq!(bench.log(0, 0).extent().end, 39);
    // And back again, with records of both epochs.
    follow.stop().await;
    bench.lead(0, 3, 1).await;
    bench.produce(0, 0, 1).await;
    let _follow = bench.follow(1, 0, of(0, 3));
    bench.same(0, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t4_a_leader_without_committed_records_stops_the_replica() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 1).await;
    bench.produce(0, 0, 10).await;
    let follow = bench.follow(1, 0, of(0, 1));
    bench.same(0, 1, 0).await;
    until(|| follow.high_watermark() == 30).await;
    let high_watermark = follow.stop().await;
    bench.lead(1, 2, 1).await;
    let short = bench.log(1, 0);
    bench.cluster.publish(1, TOPIC, &[None], 2).await;
    short.truncate(27).await.unwrap().unwrap();
    bench.lead(1, 2, 1).await;
    bench.produce(1, 0, 2).await;
    let follow = bench.follow(0, 0, Following { high_watermark, ..of(1, 2) });
    until(|| follow.fault().is_some()).await;
    assert_eq!(bench.log(0, 0).extent().end, 30, "nothing is cut");
    follow.stop().await;
    // Once the loss is declared, what was taken for committed is not any more.
    let _follow = bench.follow(0, 0, of(1, 2));
    bench.same(0, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q1_a_follower_that_is_too_far_behind_begins_anew() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 1).await;
    bench.produce(0, 0, 2).await;
    let follow = bench.follow(1, 0, of(0, 1));
    bench.same(0, 1, 0).await;
    follow.stop().await;
    bench.produce(0, 0, 10).await;
    // Within a batch.
    bench.delete(0, 0, 25).await;
    let follow = bench.follow(1, 0, of(0, 1));
    bench.same(0, 1, 0).await;
    bench.produce(0, 0, 1).await;
    bench.same(0, 1, 0).await;
    until(|| follow.high_watermark() == 39).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_is_made_anew() {
    let mut bench = Bench::start(2).await;
    bench.lead(0, 1, 3).await;
    let _follows: Vec<_> = (0..3).map(|index| bench.follow(1, index, of(0, 1))).collect();
    for round in 0..2 {
        for index in 0..3 {
            bench.produce(0, index, 5).await;
            bench.same(0, 1, index).await;
        }
        if round == 0 {
            bench.cluster.cut(0).await;
            bench.produce(0, 1, 5).await;
            bench.cluster.mend(0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_share_a_stream() {
    let bench = Bench::start(2).await;
    let partitions = 300;
    bench.lead(0, 1, partitions as usize).await;
    let follows: Vec<_> = (0..partitions).map(|index| bench.follow(1, index, of(0, 1))).collect();
    for index in 0..partitions {
        bench.produce(0, index, 1).await;
    }
    for index in 0..partitions {
        bench.same(0, 1, index).await;
    }
    for follow in follows {
        assert_eq!(follow.fault(), None);
        follow.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_a_while_delays_the_copy() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 1).await;
    let follow = bench.follow(1, 0, of(0, 1));
    bench.cluster.nodes[1].public.disk.set_full(true);
    bench.produce(0, 0, 5).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!((bench.log(1, 0).extent().end, follow.fault()), (0, None));
    bench.cluster.nodes[1].public.disk.set_full(false);
    bench.same(0, 1, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a1_h1_h7_acks_all_waits_for_what_the_follower_writes() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 1).await;
    let partition = bench.lead_replicated(&[0, 1]).await;
    let produced = bench.produce(0, 0, 1);
    tokio::pin!(produced);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut produced).await;
    assert!(early.is_err(), "nobody follows");
    assert_eq!(partition.snapshot().high_watermark, 0);
    let follow = bench.follow(1, 0, of(0, 2));
    tokio::time::timeout(PATIENCE, produced).await.unwrap();
    let begun = Instant::now();
    bench.produce(0, 0, 50).await;
    // Far below the interval of news: what is written is told at once.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(partition.snapshot().high_watermark, 153);
    bench.same(0, 1, 0).await;
    until(|| follow.high_watermark() == 153).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_leader_is_away_holds_up_no_other_that_catches_up() {
    let mut bench = Bench::start(3).await;
    bench.cluster.topic(TOPIC, &[Some(0), Some(2)], 1).await;
    bench.produce(2, 1, 20).await;
    bench.cluster.cut(0).await;
    // So little that there is one turn, and no second one while the test runs.
    bench.followers[1].set_catch_up_rate(1);
    let _away = bench.follow(1, 0, of(0, 1));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _follow = bench.follow(1, 1, of(2, 1));
    bench.same(2, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_replica_that_is_not_in_sync_is_throttled_and_it_goes_on_with_a_higher_rate() {
    let bench = Bench::start(2).await;
    bench.lead(0, 1, 3).await;
    bench.followers[1].set_catch_up_rate(1);
    let large = "x".repeat(60_000);
    for index in 0..3 {
        for _ in 0..4 {
            bench.cluster.client(0).produce(TOPIC, index, &[&large]).await;
        }
    }
    let _in_sync = bench.follow(1, 0, Following { in_sync: true, ..of(0, 1) });
    bench.same(0, 1, 0).await;
    let behind = [bench.follow(1, 1, of(0, 1)), bench.follow(1, 2, of(0, 1))];
    tokio::time::sleep(Duration::from_millis(300)).await;
    let copied = (1..3).map(|index| bench.log(1, index).extent().end).sum::<i64>();
    assert!(copied <= 2, "one of them had a turn, for 64 KiB: {copied} records");
    behind[0].set_in_sync(true);
    bench.same(0, 1, 1).await;
    bench.followers[1].set_catch_up_rate(1 << 40);
    bench.same(0, 1, 2).await;
}

/// A follower whose every word is chosen.
struct Raw {
    partition: PartitionRef,
    requests: mpsc::UnboundedSender<FetchRequest>,
    answers: tonic::Streaming<taffrail_proto::internal::v1::FetchResponse>,
}

impl Raw {
    async fn connect(bench: &Bench, leader: usize, leader_epoch: i32) -> Self {
        let node = bench.cluster.nodes[leader].broker();
        let address = node.brokers.image().endpoint(leader as i32, "internal").unwrap().to_owned();
        let mut client = ReplicasClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, outbound) = mpsc::unbounded_channel();
        let answers = client.fetch(UnboundedReceiverStream::new(outbound)).await.unwrap().into_inner();
        let (topic_high, topic_low) = node.topics.full_image().topic(TOPIC).unwrap().id.as_u64_pair();
        Self { partition: PartitionRef { topic_high, topic_low, index: 0, leader_epoch }, requests, answers }
    }

    fn ask(&self, incarnation: i64, position: FetchPosition) {
        let positions = vec![FetchPosition { partition: Some(self.partition), ..position }];
        self.requests.send(FetchRequest { broker: 1, incarnation, positions }).unwrap();
    }

    async fn part(&mut self) -> FetchedPart {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.unwrap();
        answer.unwrap().unwrap().parts.remove(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_m6_a_leader_serves_only_its_epoch_and_only_registered_sessions() {
    let bench = Bench::start(2).await;
    bench.lead(0, 5, 1).await;
    bench.produce(0, 0, 2).await;
    let mut raw = Raw::connect(&bench, 0, 5).await;
    let demand = FetchPosition { max_bytes: 1, ..FetchPosition::default() };
    let cases = [(5, 0, Reason::Unavailable), (4, 1, Reason::FencedLeaderEpoch), (6, 1, Reason::UnknownLeaderEpoch)];
    for (leader_epoch, incarnation, reason) in cases {
        raw.partition.leader_epoch = leader_epoch;
        raw.ask(incarnation, demand);
        let part = raw.part().await;
        assert_eq!((part.error.unwrap().reason(), part.batches.len()), (reason, 0));
    }
    raw.partition.leader_epoch = 5;
    raw.ask(1, demand);
    let part = raw.part().await;
    assert_eq!((part.error, part.answers, part.batches.len()), (None, Some(0), 1), "one batch whatever its size");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demand_waits_for_data_and_a_report_does_not_take_it_back() {
    let bench = Bench::start(2).await;
    bench.lead(0, 5, 1).await;
    bench.produce(0, 0, 1).await;
    let mut raw = Raw::connect(&bench, 0, 5).await;
    let end = FetchPosition { next: 3, last_epoch: Some(5), written: 3, ..FetchPosition::default() };
    raw.ask(1, FetchPosition { max_bytes: 1 << 20, ..end });
    let news = raw.part().await;
    assert_eq!((news.answers, news.high_watermark), (None, 3), "the histories match");
    raw.ask(1, end);
    bench.produce(0, 0, 1).await;
    let part = loop {
        let part = raw.part().await;
        if part.answers.is_some() {
            break part;
        }
    };
    assert_eq!((part.answers, part.batches.len()), (Some(3), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_positions_do_no_harm() {
    let bench = Bench::start(2).await;
    bench.lead(0, 5, 1).await;
    bench.produce(0, 0, 2).await;
    let mut raw = Raw::connect(&bench, 0, 5).await;
    let begun = Instant::now();
    for next in [-1, i64::MIN, i64::MAX, 7] {
        for last_epoch in [None, Some(-1), Some(i32::MAX), Some(5)] {
            raw.ask(
                1,
                FetchPosition { next, last_epoch, written: i64::MAX, max_bytes: u32::MAX, ..Default::default() },
            );
            let part = raw.part().await;
            let is_told = part.restart || part.diverging.is_some() || part.error.is_some();
            assert!(is_told, "{next} {last_epoch:?}: {part:?}");
        }
    }
    raw.requests.send(FetchRequest { broker: 1, incarnation: 1, positions: vec![FetchPosition::default()] }).unwrap();
    assert_eq!(raw.part().await.error.unwrap().reason(), Reason::InvalidRequest);
    assert!(begun.elapsed() < PATIENCE);
    let _follow = bench.follow(1, 0, of(0, 5));
    bench.same(0, 1, 0).await;
}
