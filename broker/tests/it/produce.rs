//! The unary Produce, and InitProducer.

use prost::Message;
use taffrail_proto::partitioner::partition_for_key;
use taffrail_proto::v1::{self, Outcome, Reason, produce_result};

use crate::harness::{TestBroker, log_error, produce_request, reason, record};

fn appended(result: &v1::ProduceResult) -> &v1::Appended {
    match result.outcome.as_ref().unwrap() {
        produce_result::Outcome::Appended(appended) => appended,
        produce_result::Outcome::Error(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn records_get_offsets_and_are_read_back_as_they_were() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let header = |name: &str, value: Option<&'static [u8]>| v1::Header {
        name: name.to_owned(),
        value: value.map(bytes::Bytes::from_static),
    };
    let full = v1::Record {
        key: Some("k".into()),
        value: None,
        headers: vec![header("a", Some(b"1")), header("a", None), header("", Some(b""))],
        timestamp_ms: Some(1_700_000_000_123),
    };
    let records = vec![full.clone(), v1::Record { value: Some(bytes::Bytes::new()), ..Default::default() }];
    for compression in 0..5 {
        let request = v1::ProduceRequest { compression, partition: Some(0), ..produce_request("t", records.clone()) };
        let response = broker.producer().produce(request).await.unwrap().into_inner();
        let done = appended(&response.results[0]);
        assert_eq!(done.base_offset, Some(i64::from(compression) * 2));
        assert_eq!((done.replicas, done.durability(), done.duplicate), (1, v1::Durability::Os, false));
    }
    let request = v1::ReadRequest { topic: "t".to_owned(), ..Default::default() };
    let mut stream = broker.consumer().read(request).await.unwrap().into_inner();
    let mut read = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        read.extend(response.records);
    }
    assert_eq!(read.len(), 10);
    for (offset, stored) in read.iter().enumerate() {
        assert_eq!(stored.offset, offset as i64);
        let sent = &records[offset % 2];
        assert_eq!((&stored.key, &stored.value, &stored.headers), (&sent.key, &sent.value, &sent.headers));
    }
    assert_eq!(read[0].timestamp_ms, 1_700_000_000_123);
    assert_eq!(read[0].timestamp_type(), v1::TimestampType::CreateTime);
    assert!(read[1].timestamp_ms > 1_700_000_000_123, "the broker's clock");
}

#[tokio::test]
async fn keys_decide_the_partition_and_keyless_records_of_a_call_stay_together() {
    let broker = TestBroker::start().await;
    broker.topic("t", 8).await;
    let keyed: Vec<_> = (0..100).map(|i| record(Some(&format!("key-{i}")), "v")).collect();
    let response = broker.producer().produce(produce_request("t", keyed.clone())).await.unwrap().into_inner();
    let mut seen = 0;
    for result in &response.results {
        appended(result);
        for index in &result.record_indexes {
            let key = keyed[*index as usize].key.as_ref().unwrap();
            assert_eq!(partition_for_key(key, 8), result.partition);
            seen += 1;
        }
        assert!(result.record_indexes.is_sorted(), "their order is kept");
    }
    assert_eq!(seen, 100);
    let keyless = (0..10).map(|_| record(None, "v")).collect();
    let response = broker.producer().produce(produce_request("t", keyless)).await.unwrap().into_inner();
    assert_eq!(response.results.len(), 1);
    assert_eq!(response.results[0].record_indexes.len(), 10);
}

#[tokio::test]
async fn p1_p10_a_repeat_with_identity_is_stored_once() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let producer =
        broker.producer().init_producer(v1::InitProducerRequest::default()).await.unwrap().into_inner().producer;
    let request = |first: i32, epoch_plus: i32| v1::ProduceRequest {
        partition: Some(0),
        producer: producer.map(|producer| v1::ProducerIdentity { epoch: producer.epoch + epoch_plus, ..producer }),
        first_sequence: Some(first),
        ..produce_request("t", vec![record(None, "a"), record(None, "b")])
    };
    let first = broker.producer().produce(request(0, 0)).await.unwrap().into_inner();
    let again = broker.producer().produce(request(0, 0)).await.unwrap().into_inner();
    assert_eq!(appended(&first.results[0]).base_offset, appended(&again.results[0]).base_offset);
    assert!(appended(&again.results[0]).duplicate);
    assert_eq!(broker.values("t", 0).await, ["a", "b"]);
    // A gap, a new epoch, and the old one after it.
    assert_eq!(reason(broker.producer().produce(request(5, 0)).await), Reason::OutOfSequence);
    broker.producer().produce(request(0, 1)).await.unwrap();
    assert_eq!(reason(broker.producer().produce(request(2, 0)).await), Reason::ProducerFenced);
    assert_eq!(broker.values("t", 0).await.len(), 4);
}

#[tokio::test]
async fn p6_an_unknown_producer_is_told_so_with_the_log_start() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let request = v1::ProduceRequest {
        partition: Some(0),
        producer: Some(v1::ProducerIdentity { id: 12, epoch: 0 }),
        first_sequence: Some(7),
        ..produce_request("t", vec![record(None, "a")])
    };
    let error = log_error(&broker.producer().produce(request).await.unwrap_err());
    assert_eq!((error.reason(), error.log_start_offset), (Reason::UnknownProducer, Some(0)));
}

#[tokio::test]
async fn init_producer_gives_new_ids_and_next_epochs() {
    let broker = TestBroker::start().await;
    let init = async |current| {
        let request = v1::InitProducerRequest { current };
        broker.producer().init_producer(request).await.map(|given| given.into_inner().producer.unwrap())
    };
    let one = init(None).await.unwrap();
    let other = init(None).await.unwrap();
    assert_ne!(one.id, other.id);
    let next = init(Some(one)).await.unwrap();
    assert_eq!((next.id, next.epoch), (one.id, one.epoch + 1));
    let negative = v1::ProducerIdentity { id: -1, epoch: 0 };
    assert_eq!(reason(init(Some(negative)).await), Reason::InvalidRequest);
    let never_given = v1::ProducerIdentity { id: i64::MAX, epoch: 0 };
    assert_eq!(reason(init(Some(never_given)).await), Reason::UnknownProducer);
}

#[tokio::test]
async fn a3_acks_none_answers_without_offsets() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let acks = v1::Acks::None.into();
    let request = v1::ProduceRequest { acks, partition: Some(0), ..produce_request("t", vec![record(None, "a")]) };
    let response = broker.producer().produce(request).await.unwrap().into_inner();
    assert_eq!(appended(&response.results[0]).base_offset, None);
}

#[tokio::test]
async fn a_call_that_fails_in_one_partition_tells_all_results() {
    let broker = TestBroker::start().await;
    broker.topic_with("t", 8, &[("max.message.bytes", "1024")]).await;
    let small = record(Some("small"), "v");
    let key = (0..).map(|i| format!("large-{i}"));
    let apart = key.into_iter().find(|key| partition_for_key(key.as_bytes(), 8) != partition_for_key(b"small", 8));
    let large = record(Some(&apart.unwrap()), &"x".repeat(2_000));
    let status = broker.producer().produce(produce_request("t", vec![small, large])).await.unwrap_err();
    let error = log_error(&status);
    assert_eq!((error.reason(), error.outcome()), (Reason::BatchTooLarge, Outcome::Unknown));
    let packed = tonic_types::pb::Status::decode(status.details()).unwrap();
    let found = packed.details.iter().find(|any| any.type_url.ends_with("taffrail.v1.ProduceResponse")).unwrap();
    let results = v1::ProduceResponse::decode(found.value.as_slice()).unwrap().results;
    let of = |index| results.iter().find(|result| result.record_indexes == [index]).unwrap().outcome.clone().unwrap();
    assert!(matches!(of(0), produce_result::Outcome::Appended(_)));
    assert!(matches!(of(1), produce_result::Outcome::Error(error) if error.reason() == Reason::BatchTooLarge));
}

#[tokio::test]
async fn log_append_time_is_the_brokers_and_said_in_the_answer() {
    let broker = TestBroker::start().await;
    broker.topic_with("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let late = v1::Record { timestamp_ms: Some(i64::MAX - 1), ..record(None, "v") };
    let request = v1::ProduceRequest { partition: Some(0), ..produce_request("t", vec![late]) };
    let response = broker.producer().produce(request).await.unwrap().into_inner();
    let time = appended(&response.results[0]).log_append_time_ms.unwrap();
    let request = v1::ReadRequest { topic: "t".to_owned(), ..Default::default() };
    let mut stream = broker.consumer().read(request).await.unwrap().into_inner();
    let stored = stream.message().await.unwrap().unwrap().records.remove(0);
    assert_eq!((stored.timestamp_ms, stored.timestamp_type()), (time, v1::TimestampType::LogAppendTime));
}

#[tokio::test]
async fn a_full_disk_refuses_for_certain_and_recovers() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["before"]).await;
    broker.disk.set_full(true);
    let request = v1::ProduceRequest { partition: Some(0), ..produce_request("t", vec![record(None, "no")]) };
    let error = log_error(&broker.producer().produce(request).await.unwrap_err());
    assert_eq!((error.reason(), error.outcome(), error.retriable), (Reason::DiskFull, Outcome::NotApplied, true));
    assert_eq!(broker.values("t", 0).await, ["before"]);
    broker.disk.set_full(false);
    broker.produce("t", 0, &["after"]).await;
    assert_eq!(broker.values("t", 0).await, ["before", "after"]);
}
