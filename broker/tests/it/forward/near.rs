//! Readers who are answered by a follower.

use std::time::Duration;

use taffrail_broker::replication::fetcher::{Follow, Following};
use taffrail_proto::v1::fetch_stream_request::Frame as Ask;
use taffrail_proto::v1::fetch_stream_response::Frame as Told;
use taffrail_proto::v1::{
    FetchAdd, FetchOpen, FetchPartition, FetchRequest, FetchStreamRequest, GetMetadataRequest, PartitionData, Reason,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::replicas::{Bench, TOPIC, of, until};
use crate::harness::{PATIENCE, fetch_partition, soon};

/// Broker 1 follows broker 0, which leads under epoch 2 with these replicas in sync.
async fn followed(in_sync: &[i32], brokers: i32) -> (Bench, Follow) {
    let bench = Bench::start(brokers).await;
    bench.lead(0, 1, 1).await;
    bench.lead_replicated(in_sync).await;
    for broker in 1..brokers as usize {
        bench.cluster.publish(broker, TOPIC, &[Some(0)], 2).await;
    }
    let follow = bench.follow(1, 0, Following { in_sync: true, ..of(0, 2) });
    let node = bench.cluster.nodes[1].broker();
    node.topics.full_image().topic(TOPIC).unwrap().partitions[0].followed(bench.log(1, 0), &follow);
    (bench, follow)
}

fn near(offset: i64) -> FetchPartition {
    FetchPartition { leader_epoch: Some(2), from_follower: true, ..fetch_partition(TOPIC, 0, offset) }
}

async fn fetch(bench: &Bench, partition: FetchPartition, max_wait_ms: u32) -> PartitionData {
    let request = FetchRequest { partitions: vec![partition], max_wait_ms, ..FetchRequest::default() };
    soon(bench.cluster.client(1).consumer().fetch(request)).await.unwrap().into_inner().partitions.remove(0)
}

fn reason(data: &PartitionData) -> Option<Reason> {
    data.error.as_ref().map(taffrail_proto::v1::LogError::reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_an_in_sync_follower_serves_what_is_committed_and_no_one_else_does() {
    let (mut bench, follow) = followed(&[0, 1], 2).await;
    bench.produce(0, 0, 4).await;
    until(|| follow.high_watermark() == 12).await;
    bench.cluster.cut(0).await;
    let data = fetch(&bench, near(0), 0).await;
    assert_eq!((reason(&data), data.batches.len(), data.high_watermark, data.leader_epoch), (None, 4, 12, 2));
    let direct = fetch(&bench, FetchPartition { from_follower: false, ..near(0) }, 0).await;
    assert_eq!(reason(&direct), Some(Reason::NotLeader), "it was not asked for");
    // What comes next it does not know, as soon as it has found out.
    let sent_away = async { while reason(&fetch(&bench, near(12), 0).await) != Some(Reason::Unavailable) {} };
    soon(sent_away).await;
    let forwarded = fetch(&bench, fetch_partition(TOPIC, 0, 0), 0).await;
    assert_eq!(reason(&forwarded), Some(Reason::Unavailable), "the leader cannot be reached");
    bench.cluster.mend(0).await;
    for leader_epoch in [1, 3] {
        let other = fetch(&bench, FetchPartition { leader_epoch: Some(leader_epoch), ..near(0) }, 0).await;
        assert!(matches!(reason(&other), Some(Reason::FencedLeaderEpoch | Reason::UnknownLeaderEpoch)), "{other:?}");
    }
    follow.set_in_sync(false);
    let data = fetch(&bench, near(0), 0).await;
    assert_eq!((reason(&data), data.batches.len()), (Some(Reason::NotLeader), 0), "R3: it is not in sync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_r3_what_not_all_in_sync_replicas_have_is_waited_for_at_a_follower_too() {
    let (bench, follow) = followed(&[0, 1, 2], 3).await;
    let produced = bench.produce(0, 0, 1);
    tokio::pin!(produced);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut produced).await.is_err());
    let log = bench.log(1, 0);
    until(|| log.extent().end == 3).await;
    for offset in [0, 3] {
        let data = fetch(&bench, near(offset), 0).await;
        assert_eq!((reason(&data), data.batches.len(), data.high_watermark), (None, 0, 0), "from {offset}");
    }
    let waiting = fetch(&bench, near(0), 20_000);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    let _other = bench.follow(2, 0, Following { in_sync: true, ..of(0, 2) });
    let data = waiting.await;
    assert_eq!((reason(&data), data.batches.len(), data.high_watermark), (None, 1, 3));
    soon(produced).await;
    assert_eq!(follow.fault(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_only_the_leader_says_that_an_offset_is_out_of_range_or_a_history_cut() {
    let (mut bench, follow) = followed(&[0, 1], 2).await;
    bench.produce(0, 0, 4).await;
    until(|| follow.high_watermark() == 12).await;
    bench.delete(0, 0, 4).await;
    let log = bench.log(1, 0);
    until(|| log.extent().start == 4).await;
    let beyond = fetch(&bench, near(1_000), 0).await;
    assert_eq!((reason(&beyond), beyond.error.unwrap().log_end_offset), (Some(Reason::OffsetOutOfRange), Some(12)));
    assert_eq!(reason(&fetch(&bench, near(0), 0).await), Some(Reason::OffsetOutOfRange));
    let cut = fetch(&bench, FetchPartition { last_epoch: Some(1), ..near(9) }, 0).await;
    assert_eq!(reason(&cut), Some(Reason::LogTruncated));
    bench.cluster.cut(0).await;
    for partition in [near(1_000), near(0), FetchPartition { last_epoch: Some(1), ..near(9) }] {
        assert_eq!(reason(&fetch(&bench, partition, 0).await), Some(Reason::Unavailable), "nobody has confirmed it");
    }
}

/// A fetch stream of broker 1.
struct Stream {
    frames: mpsc::UnboundedSender<FetchStreamRequest>,
    answers: tonic::Streaming<taffrail_proto::v1::FetchStreamResponse>,
}

impl Stream {
    async fn open(bench: &Bench) -> Self {
        let (frames, queue) = mpsc::unbounded_channel();
        let open = FetchOpen { credit_bytes: 1 << 20, ..FetchOpen::default() };
        frames.send(FetchStreamRequest { frame: Some(Ask::Open(open)) }).unwrap();
        let mut consumer = bench.cluster.client(1).consumer();
        let answers = consumer.fetch_stream(UnboundedReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { frames, answers }
    }

    fn add(&self, offset: i64) {
        let add = FetchAdd { subscription: 1, partition: Some(near(offset)) };
        self.frames.send(FetchStreamRequest { frame: Some(Ask::Add(add)) }).unwrap();
    }

    async fn data(&mut self) -> PartitionData {
        match soon(self.answers.message()).await.unwrap().unwrap().frame.unwrap() {
            Told::Data(data) => data,
            Told::Drain(drain) => panic!("{drain:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_stream_follows_the_high_watermark_and_ends_when_the_replica_leaves_the_in_sync_ones() {
    let (bench, follow) = followed(&[0, 1], 2).await;
    let mut stream = Stream::open(&bench).await;
    stream.add(0);
    assert_eq!(stream.data().await.batches.len(), 0, "it tells the ends");
    for round in 0..50 {
        bench.produce(0, 0, 1).await;
        let data = stream.data().await;
        assert_eq!((reason(&data), data.batches.len()), (None, 1), "{round}");
    }
    follow.set_in_sync(false);
    assert_eq!(reason(&stream.data().await), Some(Reason::NotLeader));
    follow.set_in_sync(true);
    stream.add(150);
    assert_eq!(stream.data().await.batches.len(), 0);
    let node = bench.cluster.nodes[1].broker();
    node.topics.full_image().topic(TOPIC).unwrap().partitions[0].stop().await;
    assert_eq!(reason(&stream.data().await), Some(Reason::Unavailable), "another leads now, or the topic is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_follower_without_its_leader_sends_readers_away() {
    let (mut bench, follow) = followed(&[0, 1], 2).await;
    bench.produce(0, 0, 1).await;
    until(|| follow.high_watermark() == 3).await;
    let mut stream = Stream::open(&bench).await;
    stream.add(0);
    assert_eq!(stream.data().await.batches.len(), 1);
    bench.cluster.cut(0).await;
    let data = stream.data().await;
    assert_eq!(reason(&data), Some(Reason::Unavailable), "it may be in sync no more, and not know it: {data:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_of_zones() {
    let bench = Bench::start(2).await;
    for node in &bench.cluster.nodes {
        let mut image = (*node.broker().brokers.image()).clone();
        image.brokers.get_mut(&1).unwrap().zone = Some("b".to_owned());
        node.broker().brokers.publish(image);
    }
    let mut client = bench.cluster.client(0).metadata();
    let answer = tokio::time::timeout(PATIENCE, client.get(GetMetadataRequest::default())).await.unwrap();
    let zones: Vec<_> = answer.unwrap().into_inner().brokers.into_iter().map(|broker| broker.zone).collect();
    assert_eq!(zones, [None, Some("b".to_owned())]);
}
