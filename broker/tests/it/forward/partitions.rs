//! Partitions that another broker leads.

use std::time::{Duration, Instant};

use taffrail_proto::record::BatchProducer;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{self, Reason};
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use crate::harness::{PATIENCE, batch, fetch_partition, log_error, produce_request, reason, record, soon};
use crate::produce_stream::{Stream, partition_batch};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_calls_are_served_by_every_broker() {
    let cluster = Cluster::start(3).await;
    cluster.topic("t", &[Some(0), Some(1), Some(2)], 3).await;
    for broker in 0..3 {
        for partition in 0..3 {
            let client = cluster.client(broker);
            assert_eq!(client.produce("t", partition, &["a", "b"]).await, 2 * broker as i64);
        }
    }
    for broker in 0..3 {
        for partition in 0..3 {
            let values = cluster.client(broker).values("t", partition).await;
            assert_eq!(values, ["a", "b", "a", "b", "a", "b"], "broker {broker}, partition {partition}");
        }
    }
    let query = |at| v1::OffsetQuery { topic: "t".to_owned(), partition: 2, at: Some(at) };
    let queries = vec![
        query(v1::offset_query::At::Latest(v1::Latest {})),
        query(v1::offset_query::At::Earliest(v1::Earliest {})),
        query(v1::offset_query::At::MaxTimestamp(v1::MaxTimestamp {})),
    ];
    let request = v1::ListOffsetsRequest { queries, ..v1::ListOffsetsRequest::default() };
    let here = cluster.client(2).consumer().list_offsets(request.clone()).await.unwrap().into_inner();
    let there = cluster.client(0).consumer().list_offsets(request).await.unwrap().into_inner();
    assert_eq!(here, there);
    assert_eq!(there.answers[0].offset, Some(6));
    let request = v1::EndOfEpochRequest { topic: "t".to_owned(), partition: 2, leader_epoch: 5 };
    let end = cluster.client(1).consumer().end_of_epoch(request).await.unwrap().into_inner();
    assert_eq!((end.leader_epoch, end.end_offset), (3, 6));
    let request = v1::DeleteRecordsRequest { topic: "t".to_owned(), partition: 2, before_offset: 4 };
    assert_eq!(cluster.client(1).admin().delete_records(request).await.unwrap().into_inner().log_start_offset, 4);
    let fetch = v1::FetchRequest { partitions: vec![fetch_partition("t", 2, 0)], ..v1::FetchRequest::default() };
    let answer = cluster.client(0).consumer().fetch(fetch).await.unwrap().into_inner();
    let error = answer.partitions[0].error.clone().unwrap();
    assert_eq!((error.reason(), error.log_start_offset), (Reason::OffsetOutOfRange, Some(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_is_answered_when_the_leader_has_more() {
    let cluster = Cluster::start(2).await;
    cluster.topic("t", &[Some(1)], 0).await;
    let request = v1::FetchRequest {
        partitions: vec![fetch_partition("t", 0, 0)],
        min_bytes: 1,
        max_wait_ms: 20_000,
        ..v1::FetchRequest::default()
    };
    for offset in 0..3 {
        let mut consumer = cluster.client(0).consumer();
        let mut request = request.clone();
        request.partitions[0].offset = offset;
        let waiting = tokio::spawn(async move { consumer.fetch(request).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "an unknown partition is not an empty answer");
        let began = Instant::now();
        cluster.client(1).produce("t", 0, &["x"]).await;
        let answer = soon(waiting).await.unwrap().unwrap().into_inner();
        assert_eq!(answer.partitions[0].batches.len(), 1);
        assert!(began.elapsed() < Duration::from_secs(10), "it was not woken: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p9_streams_keep_order_and_repeats_through_another_broker() {
    let cluster = Cluster::start(2).await;
    cluster.topic("t", &[Some(1), Some(0)], 0).await;
    let producer = |first| Some(BatchProducer::new(7, 0, first).unwrap());
    let mut stream = Stream::open(cluster.client(0)).await;
    for id in 0..20 {
        stream.send(id, "t", 0, batch(&["v"], producer(id as i32))).await;
    }
    for id in 0..20 {
        assert_eq!(stream.outcome().await, (id, Ok(Some(id as i64))));
    }
    stream.send(20, "t", 0, batch(&["v"], producer(18))).await;
    assert_eq!(stream.outcome().await, (20, Ok(Some(18))), "a repeat is known for one");
    // 21 is missing: what follows is refused, other partitions go on.
    let batches = vec![
        partition_batch(21, "t", 0, batch(&["v"], producer(22))),
        partition_batch(22, "t", 0, batch(&["v"], producer(20))),
        partition_batch(23, "t", 1, batch(&["w"], None)),
    ];
    stream.send_batches(batches).await;
    let mut outcomes = vec![stream.outcome().await, stream.outcome().await, stream.outcome().await];
    outcomes.sort_by_key(|(id, _)| *id);
    assert_eq!(outcomes, [(21, Err(Reason::OutOfSequence)), (22, Err(Reason::PrecedingFailed)), (23, Ok(Some(0)))]);
    stream.send(24, "t", 0, batch(&["v"], producer(20))).await;
    assert_eq!(stream.outcome().await, (24, Err(Reason::PrecedingFailed)));
    stream.resume("t", 0).await;
    stream.send(25, "t", 0, batch(&["v"], producer(20))).await;
    assert_eq!(stream.outcome().await, (25, Ok(Some(20))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_clients_are_sent_to_the_leader() {
    let cluster = Cluster::start(2).await;
    cluster.topic("t", &[Some(1)], 4).await;
    cluster.client(1).produce("t", 0, &["a"]).await;
    let mut stream = Stream::open(cluster.client(0)).await;
    let direct = v1::PartitionBatch { leader_epoch: Some(4), ..partition_batch(1, "t", 0, batch(&["v"], None)) };
    stream.send_batches(vec![direct]).await;
    let Some(v1::produce_ack::Outcome::Error(error)) = stream.ack().await.outcome else { panic!("it was appended") };
    assert_eq!(error.reason(), Reason::NotLeader);
    let endpoint = cluster.client(1).address().to_string();
    assert_eq!(error.not_leader, Some(v1::NotLeader { broker: 1, endpoint: endpoint.clone(), leader_epoch: 4 }));
    let direct = v1::FetchPartition { leader_epoch: Some(4), ..fetch_partition("t", 0, 0) };
    let fetch = v1::FetchRequest { partitions: vec![direct], ..v1::FetchRequest::default() };
    let answer = cluster.client(0).consumer().fetch(fetch).await.unwrap().into_inner();
    assert_eq!(answer.partitions[0].error.clone().unwrap().reason(), Reason::NotLeader);
    let metadata = cluster.client(0).metadata().get(v1::GetMetadataRequest::default()).await.unwrap().into_inner();
    let told = &metadata.topics[0].partitions[0];
    assert_eq!((told.leader, told.leader_epoch), (1, 4));
    assert_eq!(metadata.brokers.iter().find(|broker| broker.id == 1).unwrap().endpoint, endpoint);
    assert_eq!(metadata.cluster_id, "cluster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_metadata_of_another_epoch_is_refused_by_the_leader() {
    let cluster = Cluster::start(2).await;
    cluster.topic("t", &[Some(1)], 2).await;
    let mut produce = cluster.client(0).producer();
    let request = || produce_request("t", vec![record(None, "x")]);
    for (epoch, refused) in [(1, Reason::FencedLeaderEpoch), (3, Reason::UnknownLeaderEpoch)] {
        cluster.publish(0, "t", &[Some(1)], epoch).await;
        assert_eq!(reason(produce.produce(request()).await), refused);
        let fetch = v1::FetchRequest { partitions: vec![fetch_partition("t", 0, 0)], ..v1::FetchRequest::default() };
        let answer = cluster.client(0).consumer().fetch(fetch).await.unwrap().into_inner();
        assert_eq!(answer.partitions[0].error.clone().unwrap().reason(), refused);
    }
    // Not the leader, and does not pass it on.
    cluster.publish(1, "t", &[Some(0)], 3).await;
    assert_eq!(reason(produce.produce(request()).await), Reason::NotLeader);
    cluster.publish(0, "t", &[None], 3).await;
    let error = log_error(&produce.produce(request()).await.unwrap_err());
    assert_eq!(error.reason(), Reason::Unavailable);
    assert!(error.retriable && error.message.contains("nobody has it"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_away_is_used_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.topic("t", &[Some(1), Some(2)], 0).await;
    cluster.client(0).produce("t", 0, &["a"]).await;
    cluster.cut(1).await;
    let request = || v1::ProduceRequest { partition: Some(0), ..produce_request("t", vec![record(None, "lost?")]) };
    let error = log_error(&cluster.client(0).producer().produce(request()).await.unwrap_err());
    assert_eq!((error.reason(), error.retriable), (Reason::Unavailable, true));
    assert_eq!(cluster.client(0).produce("t", 1, &["others go on"]).await, 0);
    cluster.mend(1).await;
    let began = Instant::now();
    while let Err(status) = cluster.client(0).producer().produce(request()).await {
        assert_eq!(log_error(&status).reason(), Reason::Unavailable);
        assert!(began.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cluster.client(0).values("t", 0).await.len() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_answer_does_not_hold_up_others_and_is_given_no_more_than_its_bound() {
    let mut cluster = Cluster::with(2, 64 << 20).await;
    cluster.topic("t", &[Some(1), Some(0)], 0).await;
    // Takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    cluster.nodes[1].set_internal_address(silent.local_addr().unwrap().to_string());
    cluster.register();
    let mut stuck = Vec::new();
    let value = "x".repeat(900_000);
    for _ in 0..12 {
        // Connections of their own: one alone may not hold so much.
        let mut producer = ProducerClient::new(cluster.client(0).connect().await);
        let records = vec![record(None, &value)];
        let request = v1::ProduceRequest { partition: Some(0), ..produce_request("t", records) };
        stuck.push(tokio::spawn(async move { reason(producer.produce(request).await) }));
    }
    // One that is refused says that the others are on their way.
    let began = Instant::now();
    while !stuck.iter().any(JoinHandle::is_finished) {
        assert!(began.elapsed() < PATIENCE, "none is refused");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    let mut other = ProducerClient::new(cluster.client(0).connect().await);
    let request = v1::ProduceRequest { partition: Some(1), ..produce_request("t", vec![record(None, "goes on")]) };
    soon(other.produce(request)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "calls to the silent one end after ten: {:?}", began.elapsed());
    let refused = stuck.iter().filter(|task| task.is_finished()).count();
    assert!((1..12).contains(&refused), "{refused} of 12 were refused at once: 8 MiB may be on their way");
    let mut reasons = Vec::new();
    for task in stuck {
        reasons.push(soon(task).await.unwrap());
    }
    assert!(reasons.contains(&Reason::QuotaExceeded) && reasons.contains(&Reason::Unavailable), "{reasons:?}");
}
