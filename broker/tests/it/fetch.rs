//! Fetch, ListOffsets, EndOfEpoch.

use std::time::{Duration, Instant};

use taffrail_proto::record::records;
use taffrail_proto::record::{BatchHeader, Scratch};
use taffrail_proto::v1::{self, Reason, offset_query};

use crate::harness::{TestBroker, fetch_partition, log_error, reason, soon, text};

fn request(partitions: Vec<v1::FetchPartition>) -> v1::FetchRequest {
    v1::FetchRequest { partitions, ..v1::FetchRequest::default() }
}

#[tokio::test]
async fn batches_come_whole_from_the_one_that_contains_the_offset() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b", "c"]).await;
    broker.produce("t", 0, &["d"]).await;
    let response = broker.consumer().fetch(request(vec![fetch_partition("t", 0, 1)])).await.unwrap().into_inner();
    let data = &response.partitions[0];
    let bases: Vec<_> = data.batches.iter().map(|batch| BatchHeader::parse(batch).unwrap().base_offset).collect();
    assert_eq!(bases, [0, 3]);
    assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (4, 4, 0));
    let all = data.batches.iter().flat_map(|batch| records(batch, 1 << 20, &mut Scratch::new()).unwrap());
    let values: Vec<_> = all.map(|record| text(record.unwrap().value.as_ref())).collect();
    assert_eq!(values, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn plain_records_begin_at_the_offset() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b", "c"]).await;
    let plain = v1::FetchRequest { plain: true, ..request(vec![fetch_partition("t", 0, 1)]) };
    let response = broker.consumer().fetch(plain).await.unwrap().into_inner();
    let data = &response.partitions[0];
    assert!(data.batches.is_empty());
    assert_eq!(data.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn an_answer_stays_within_its_bound_but_has_at_least_one_batch() {
    let broker = TestBroker::start().await;
    broker.topic("t", 3).await;
    let value = "x".repeat(10_000);
    for partition in 0..3 {
        for _ in 0..4 {
            broker.produce("t", partition, &[&value]).await;
        }
    }
    let wanted = || (0..3).map(|partition| fetch_partition("t", partition, 0)).collect();
    let fetch = async |max_bytes| {
        let request = v1::FetchRequest { max_bytes, ..request(wanted()) };
        let response = broker.consumer().fetch(request).await.unwrap().into_inner();
        response.partitions.iter().map(|data| data.batches.len()).collect::<Vec<_>>()
    };
    assert_eq!(fetch(1).await, [1]);
    assert_eq!(fetch(25_000).await, [2]);
    assert_eq!(fetch(60_000).await, [4, 1]);
    assert_eq!(fetch(0).await, [4, 4, 4]);
}

#[tokio::test]
async fn a_long_poll_ends_with_data_or_with_its_time() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let wanted = || vec![fetch_partition("t", 0, 0), fetch_partition("t", 1, 0)];
    let poll = v1::FetchRequest { max_wait_ms: 50, ..request(wanted()) };
    let empty = broker.consumer().fetch(poll).await.unwrap().into_inner();
    assert_eq!(empty.partitions.len(), 2, "all are told when there is nothing");
    let mut consumer = broker.consumer();
    let poll = v1::FetchRequest { max_wait_ms: 30_000, ..request(wanted()) };
    let waiting = tokio::spawn(async move { consumer.fetch(poll).await.unwrap().into_inner() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    let began = Instant::now();
    broker.produce("t", 1, &["new"]).await;
    let response = soon(waiting).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "it was not woken");
    assert_eq!(response.partitions.len(), 1);
    assert_eq!(response.partitions[0].partition, 1);
}

#[tokio::test]
async fn a_long_poll_waits_for_min_bytes() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut consumer = broker.consumer();
    let poll = v1::FetchRequest { max_wait_ms: 30_000, min_bytes: 2_500, ..request(vec![fetch_partition("t", 0, 0)]) };
    let waiting = tokio::spawn(async move { consumer.fetch(poll).await.unwrap().into_inner() });
    let value = "x".repeat(1_000);
    for sent in 1..=3 {
        assert!(!waiting.is_finished(), "{sent}");
        broker.produce("t", 0, &[&value]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(soon(waiting).await.unwrap().partitions[0].batches.len(), 3);
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_does_not_hold_up_the_others() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a"]).await;
    let wanted = vec![
        fetch_partition("nowhere", 0, 0),
        fetch_partition("t", 7, 0),
        fetch_partition("t", 0, 0),
        fetch_partition("t", 0, 99),
        fetch_partition("t", 0, -1),
        v1::FetchPartition { leader_epoch: Some(50), ..fetch_partition("t", 0, 0) },
    ];
    let poll = v1::FetchRequest { max_wait_ms: 30_000, ..request(wanted) };
    let response = soon(broker.consumer().fetch(poll)).await.unwrap().into_inner();
    let of = |data: &v1::PartitionData| data.error.as_ref().map(v1::LogError::reason);
    let told: Vec<_> = response.partitions.iter().map(of).collect();
    let out_of_range = Some(Reason::OffsetOutOfRange);
    let unknown_epoch = Some(Reason::UnknownLeaderEpoch);
    let expected =
        [Some(Reason::UnknownTopic), Some(Reason::UnknownPartition), None, out_of_range, out_of_range, unknown_epoch];
    assert_eq!(told, expected);
    let error = response.partitions[3].error.as_ref().unwrap();
    assert_eq!((error.log_start_offset, error.log_end_offset), (Some(0), Some(1)));
}

#[tokio::test]
async fn requests_are_bounded() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let many = (0..1_001).map(|_| fetch_partition("t", 0, 0)).collect();
    let wrong = [
        (request(vec![]), "partitions: "),
        (request(many), "partitions: "),
        (v1::FetchRequest { max_wait_ms: 60_001, ..request(vec![fetch_partition("t", 0, 0)]) }, "max_wait_ms: "),
        (v1::FetchRequest { isolation: 9, ..request(vec![fetch_partition("t", 0, 0)]) }, "isolation: "),
    ];
    for (request, field) in wrong {
        let error = log_error(&broker.consumer().fetch(request).await.unwrap_err());
        assert_eq!(error.reason(), Reason::InvalidRequest);
        assert!(error.message.starts_with(field), "{}", error.message);
    }
}

#[tokio::test]
async fn offsets_are_found_by_end_and_by_time() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let at = |timestamp| v1::Record { timestamp_ms: Some(timestamp), ..v1::Record::default() };
    let records = vec![at(1_000), at(3_000), at(2_000)];
    let produce = v1::ProduceRequest { partition: Some(0), ..crate::harness::produce_request("t", records) };
    broker.producer().produce(produce).await.unwrap();
    let query = |at| v1::OffsetQuery { topic: "t".to_owned(), partition: 0, at };
    let queries = vec![
        query(Some(offset_query::At::Earliest(v1::Earliest {}))),
        query(Some(offset_query::At::Latest(v1::Latest {}))),
        query(Some(offset_query::At::TimestampMs(1_500))),
        query(Some(offset_query::At::TimestampMs(9_000))),
        query(Some(offset_query::At::MaxTimestamp(v1::MaxTimestamp {}))),
        query(None),
        v1::OffsetQuery { topic: "nowhere".to_owned(), ..query(Some(offset_query::At::Latest(v1::Latest {}))) },
    ];
    let request = v1::ListOffsetsRequest { queries, isolation: 0 };
    let answers = broker.consumer().list_offsets(request).await.unwrap().into_inner().answers;
    let offsets: Vec<_> = answers.iter().map(|answer| answer.offset).collect();
    assert_eq!(offsets, [Some(0), Some(3), Some(1), None, Some(1), None, None]);
    assert_eq!((answers[2].timestamp_ms, answers[4].timestamp_ms), (Some(3_000), Some(3_000)));
    assert_eq!(answers[5].error.as_ref().unwrap().reason(), Reason::InvalidRequest);
    assert_eq!(answers[6].error.as_ref().unwrap().reason(), Reason::UnknownTopic);
}

#[tokio::test]
async fn e7_the_end_of_an_epoch_is_told() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let ask = async |leader_epoch| {
        let request = v1::EndOfEpochRequest { topic: "t".to_owned(), partition: 0, leader_epoch };
        broker.consumer().end_of_epoch(request).await
    };
    let end = ask(0).await.unwrap().into_inner();
    assert_eq!((end.leader_epoch, end.end_offset), (0, 2));
    assert_eq!(reason(ask(-1).await), Reason::InvalidRequest);
}

#[tokio::test]
async fn d5_damaged_bytes_are_told_for_their_offsets_only() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a"]).await;
    broker.produce("t", 0, &["b"]).await;
    let log = broker.broker.topics.image().partition("t", 0).unwrap().id();
    let log = broker.broker.storage.logs().into_iter().find(|found| found.partition() == log).unwrap().id();
    assert!(broker.disk.damage(log, 0));
    let fetch = async |offset| {
        let response = broker.consumer().fetch(request(vec![fetch_partition("t", 0, offset)])).await.unwrap();
        let data = response.into_inner().partitions.remove(0);
        (data.error.map(|error| error.reason()), data.batches.len())
    };
    assert_eq!(fetch(0).await, (Some(Reason::DataCorrupt), 0));
    assert_eq!(fetch(1).await, (None, 1));
}
