//! Read: plain records as a stream.

use std::time::Duration;

use taffrail_proto::v1::{self, Reason, position};
use tokio::time::timeout;
use tonic::Streaming;

use crate::harness::{TestBroker, log_error, soon, text};

fn request(topic: &str) -> v1::ReadRequest {
    v1::ReadRequest { topic: topic.to_owned(), ..v1::ReadRequest::default() }
}

fn from(start: position::Start) -> v1::Position {
    v1::Position { start: Some(start) }
}

async fn open(broker: &TestBroker, request: v1::ReadRequest) -> Streaming<v1::ReadResponse> {
    soon(broker.consumer().read(request)).await.unwrap().into_inner()
}

/// Partition, offset and value of all records until the stream ends.
async fn all(broker: &TestBroker, request: v1::ReadRequest) -> Vec<(i32, i64, String)> {
    let mut stream = open(broker, request).await;
    let mut out = Vec::new();
    while let Some(response) = soon(stream.message()).await.unwrap() {
        out.extend(response.records.iter().map(|r| (r.partition, r.offset, text(r.value.as_ref()))));
    }
    out
}

#[tokio::test]
async fn reads_all_partitions_to_their_ends_and_stops() {
    let broker = TestBroker::start().await;
    broker.topic("t", 3).await;
    for partition in 0..3 {
        broker.produce("t", partition, &["a", "b"]).await;
        broker.produce("t", partition, &["c"]).await;
    }
    let read = all(&broker, request("t")).await;
    for partition in 0..3 {
        let of: Vec<_> = read.iter().filter(|r| r.0 == partition).map(|r| (r.1, r.2.as_str())).collect();
        assert_eq!(of, [(0, "a"), (1, "b"), (2, "c")]);
    }
}

#[tokio::test]
async fn begins_where_it_is_told_to() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let record = |timestamp, value: &str| v1::Record {
        timestamp_ms: Some(timestamp),
        value: Some(value.to_owned().into()),
        ..v1::Record::default()
    };
    let records = vec![record(1_000, "a"), record(2_000, "b"), record(3_000, "c")];
    let produce = v1::ProduceRequest { partition: Some(0), ..crate::harness::produce_request("t", records) };
    broker.producer().produce(produce).await.unwrap();
    let values = async |request| -> Vec<String> { all(&broker, request).await.into_iter().map(|r| r.2).collect() };
    let one = |from| v1::ReadRequest { partitions: vec![0], from, ..request("t") };
    assert_eq!(values(one(None)).await, ["a", "b", "c"]);
    assert_eq!(values(one(Some(from(position::Start::Earliest(v1::Earliest {}))))).await, ["a", "b", "c"]);
    assert_eq!(values(one(Some(from(position::Start::Offset(1))))).await, ["b", "c"]);
    assert_eq!(values(one(Some(from(position::Start::TimestampMs(2_500))))).await, ["c"]);
    assert_eq!(values(one(Some(from(position::Start::TimestampMs(9_000))))).await, Vec::<String>::new());
    assert_eq!(values(one(Some(from(position::Start::Latest(v1::Latest {}))))).await, Vec::<String>::new());
    assert_eq!(values(v1::ReadRequest { limit: 2, ..one(None) }).await, ["a", "b"]);
    let resume = vec![v1::PartitionOffset { partition: 0, offset: 2, last_epoch: None }];
    assert_eq!(values(v1::ReadRequest { resume, ..request("t") }).await, ["c"]);
}

#[tokio::test]
async fn follows_what_comes_and_partitions_that_are_added() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let latest = Some(from(position::Start::Latest(v1::Latest {})));
    broker.produce("t", 0, &["old"]).await;
    let mut stream = open(&broker, v1::ReadRequest { follow: true, from: latest, ..request("t") }).await;
    // What is seen is whatever comes after the stream has begun: one of these does.
    let first = async {
        loop {
            broker.produce("t", 0, &["new"]).await;
            if let Ok(got) = timeout(Duration::from_millis(100), stream.message()).await {
                break got.unwrap().unwrap();
            }
        }
    };
    let got = soon(first).await;
    assert_eq!(text(got.records[0].value.as_ref()), "new");
    let alter = v1::AlterTopicRequest { name: "t".to_owned(), partitions: 2, ..Default::default() };
    broker.admin().alter_topic(alter).await.unwrap();
    broker.produce("t", 1, &["in the new one"]).await;
    let added = loop {
        let got = soon(stream.message()).await.unwrap().unwrap();
        if let Some(record) = got.records.into_iter().find(|record| record.partition == 1) {
            break record;
        }
    };
    assert_eq!(text(added.value.as_ref()), "in the new one");
}

#[tokio::test]
async fn a_follower_learns_that_its_topic_was_deleted() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = open(&broker, v1::ReadRequest { follow: true, ..request("t") }).await;
    let delete = v1::DeleteTopicRequest { name: "t".to_owned(), ..Default::default() };
    broker.admin().delete_topic(delete).await.unwrap();
    assert_eq!(log_error(&soon(stream.message()).await.unwrap_err()).reason(), Reason::UnknownTopic);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_field() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let resume = |partition| v1::PartitionOffset { partition, offset: 0, last_epoch: None };
    let wrong = [
        (request("nowhere"), Reason::UnknownTopic, "topic "),
        (request(""), Reason::InvalidRequest, "topic: "),
        (v1::ReadRequest { partitions: vec![5], ..request("t") }, Reason::UnknownPartition, "topic "),
        (v1::ReadRequest { partitions: vec![1, 1], ..request("t") }, Reason::InvalidRequest, "partitions: "),
        (v1::ReadRequest { partitions: vec![1; 3], ..request("t") }, Reason::InvalidRequest, "partitions: "),
        (
            v1::ReadRequest { partitions: vec![1], resume: vec![resume(0)], ..request("t") },
            Reason::InvalidRequest,
            "resume: ",
        ),
        (v1::ReadRequest { resume: vec![resume(0), resume(0)], ..request("t") }, Reason::InvalidRequest, "resume: "),
        (
            v1::ReadRequest { from: Some(from(position::Start::Offset(9))), ..request("t") },
            Reason::OffsetOutOfRange,
            "offset ",
        ),
        (v1::ReadRequest { isolation: -3, ..request("t") }, Reason::InvalidRequest, "isolation: "),
    ];
    for (request, reason, begins) in wrong {
        let mut stream = open(&broker, request).await;
        let error = log_error(&soon(stream.message()).await.unwrap_err());
        assert_eq!(error.reason(), reason, "{}", error.message);
        assert!(error.message.starts_with(begins), "{}", error.message);
    }
}

#[tokio::test]
async fn a_large_topic_comes_in_answers_that_any_client_accepts() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let value = "x".repeat(500_000);
    for i in 0..20 {
        broker.produce("t", i % 2, &[&value, &value]).await;
    }
    assert_eq!(all(&broker, request("t")).await.len(), 40);
}
