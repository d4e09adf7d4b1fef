//! What a client should not send: refused with the reason that says what is wrong, and nothing is lost.

use bytes::Bytes;
use taffrail_proto::record::{BatchBuilder, BatchProducer, Compression};
use taffrail_proto::v1::{self, Reason, produce_ack};

use crate::harness::{TestBroker, batch, log_error, produce_request, reason, record};
use crate::produce_stream::Stream;

/// Sends a batch to a stream of its own; the reason for which it was refused, and how.
async fn refusal(broker: &TestBroker, topic: &str, partition: i32, batch: Bytes) -> v1::LogError {
    let mut stream = Stream::open(broker).await;
    stream.send(1, topic, partition, batch).await;
    match stream.ack().await.outcome.unwrap() {
        produce_ack::Outcome::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

fn put<const N: usize>(batch: &Bytes, at: usize, bytes: [u8; N]) -> Bytes {
    let mut batch = batch.to_vec();
    batch[at..at + N].copy_from_slice(&bytes);
    batch.into()
}

/// With the checksum that fits what was changed.
fn sealed(batch: &Bytes) -> Bytes {
    let crc = crc32c::crc32c(&batch[21..]);
    put(batch, 17, crc.to_be_bytes())
}

/// A batch whose only record claims what its fields do not hold.
fn with_record_bytes(records: &[u8]) -> Bytes {
    let good = batch(&["v"], None);
    let bytes = [&good[..61], records].concat();
    let length = (bytes.len() - 12) as i32;
    sealed(&put(&bytes.into(), 8, length.to_be_bytes()))
}

fn bomb() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(None, Some(&vec![0; 64 << 20]), [], 1).unwrap();
    builder.build(Compression::Zstd, None).unwrap()
}

fn malformed() -> Vec<(&'static str, Bytes, Reason)> {
    let good = batch(&["value"], None);
    let long = |bytes: usize| "x".repeat(bytes);
    let mut late = BatchBuilder::new();
    late.push(None, None, [], 4_000_000_000_000).unwrap();
    vec![
        ("nothing", Bytes::new(), Reason::CorruptBatch),
        ("a piece of a header", good.slice(..40), Reason::CorruptBatch),
        ("a piece of a batch", good.slice(..good.len() - 1), Reason::CorruptBatch),
        ("a flipped bit", put(&good, good.len() - 1, [good[good.len() - 1] ^ 1]), Reason::CorruptBatch),
        ("a wrong checksum", put(&good, 17, [0; 4]), Reason::CorruptBatch),
        ("wrong magic", put(&good, 16, [1]), Reason::CorruptBatch),
        ("a negative length", put(&good, 8, (-1_i32).to_be_bytes()), Reason::CorruptBatch),
        ("an absurd length", put(&good, 8, i32::MAX.to_be_bytes()), Reason::CorruptBatch),
        ("a negative count", sealed(&put(&good, 57, (-5_i32).to_be_bytes())), Reason::CorruptBatch),
        ("a count of 2^31-1", sealed(&put(&good, 57, i32::MAX.to_be_bytes())), Reason::CorruptBatch),
        (
            "61 bytes that claim 2^31 records",
            sealed(&put(
                &put(&put(&good.slice(..61), 8, 49_i32.to_be_bytes()), 57, i32::MAX.to_be_bytes()),
                23,
                (i32::MAX - 1).to_be_bytes(),
            )),
            Reason::CorruptBatch,
        ),
        (
            "no records",
            sealed(&put(&put(&good.slice(..61), 8, 49_i32.to_be_bytes()), 57, [0; 4])),
            Reason::InvalidRecord,
        ),
        ("trailing bytes", [&good[..], b"x"].concat().into(), Reason::CorruptBatch),
        ("two batches", [&good[..], &good[..]].concat().into(), Reason::CorruptBatch),
        ("an unknown codec", sealed(&put(&good, 21, 7_i16.to_be_bytes())), Reason::CorruptBatch),
        ("what is no gzip", sealed(&put(&good, 21, 1_i16.to_be_bytes())), Reason::CorruptBatch),
        ("a control batch", sealed(&put(&good, 21, 0x20_i16.to_be_bytes())), Reason::InvalidRecord),
        ("a transaction", sealed(&put(&good, 21, 0x10_i16.to_be_bytes())), Reason::InvalidRecord),
        ("an append time", sealed(&put(&good, 21, 0x08_i16.to_be_bytes())), Reason::InvalidRecord),
        ("half an identity", sealed(&put(&good, 43, 5_i64.to_be_bytes())), Reason::InvalidRecord),
        ("a record that is longer than the batch", with_record_bytes(&[100, 0, 0, 0, 1, 1, 0]), Reason::InvalidRecord),
        ("a key of negative length", with_record_bytes(&[14, 0, 0, 0, 5, 1, 0, 0]), Reason::InvalidRecord),
        ("2^31 headers", with_record_bytes(&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]), Reason::InvalidRecord),
        ("a timestamp in the far future", late.build(Compression::None, None).unwrap(), Reason::InvalidRecord),
        ("more than max.message.bytes", batch(&[&long(1_100_000)], None), Reason::BatchTooLarge),
        ("a decompression bomb", bomb(), Reason::BatchTooLarge),
    ]
}

#[tokio::test]
async fn malformed_batches_are_refused_by_reason_and_nothing_is_lost() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["kept"]).await;
    for (what, bytes, reason) in malformed() {
        let error = refusal(&broker, "t", 0, bytes).await;
        assert_eq!(error.reason(), reason, "{what}: {}", error.message);
        assert_eq!((error.outcome(), error.retriable), (v1::Outcome::NotApplied, false), "{what}");
        assert!(!error.message.is_empty());
    }
    assert_eq!(broker.values("t", 0).await, ["kept"]);
    assert_eq!(broker.produce("t", 0, &["goes on"]).await, 1);
}

#[tokio::test]
async fn places_that_do_not_exist_are_told_apart() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let table = [
        ("nowhere", 0, Reason::UnknownTopic),
        ("t", 2, Reason::UnknownPartition),
        ("t", -1, Reason::UnknownPartition),
        ("t", i32::MIN, Reason::UnknownPartition),
        ("", 0, Reason::InvalidRequest),
    ];
    for (topic, partition, reason) in table {
        assert_eq!(
            refusal(&broker, topic, partition, batch(&["v"], None)).await.reason(),
            reason,
            "{topic} {partition}"
        );
    }
    let name = "x".repeat(5_000);
    assert_eq!(refusal(&broker, &name, 0, batch(&["v"], None)).await.reason(), Reason::InvalidRequest);
}

#[tokio::test]
async fn plain_records_are_refused_by_field_and_by_index() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let long = |bytes: usize| "x".repeat(bytes);
    let header = |name: String, value: usize| v1::Record {
        headers: vec![v1::Header { name, value: Some(vec![0; value].into()) }],
        ..v1::Record::default()
    };
    let at = |timestamp| v1::Record { timestamp_ms: Some(timestamp), ..v1::Record::default() };
    let refused = [
        ("a long key", record(Some(&long(70_000)), "v"), Reason::InvalidRecord),
        ("long headers", header("h".to_owned(), 70_000), Reason::InvalidRecord),
        ("a long header name", header(long(40_000), 1), Reason::InvalidRecord),
        ("a negative timestamp", at(-2), Reason::InvalidRecord),
        ("the far future", at(i64::MAX), Reason::InvalidRecord),
        ("a record over the limit", record(None, &long(1_100_000)), Reason::BatchTooLarge),
    ];
    for (what, bad, expected) in refused {
        let request = v1::ProduceRequest { partition: Some(0), ..produce_request("t", vec![record(None, "v"), bad]) };
        let error = log_error(&broker.producer().produce(request).await.unwrap_err());
        assert_eq!(error.reason(), expected, "{what}: {}", error.message);
        if expected == Reason::InvalidRecord {
            assert_eq!(error.record_errors[0].index, 1, "{what}");
        }
    }
    assert_eq!(broker.values("t", 0).await, Vec::<String>::new());
}

#[tokio::test]
async fn produce_requests_that_make_no_sense_name_the_field() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let good = || produce_request("t", vec![record(None, "v")]);
    let wrong = [
        (v1::ProduceRequest { records: vec![], ..good() }, "records: "),
        (v1::ProduceRequest { acks: 17, ..good() }, "acks: "),
        (v1::ProduceRequest { compression: -1, ..good() }, "compression: "),
        (v1::ProduceRequest { first_sequence: Some(0), ..good() }, "producer: "),
        (v1::ProduceRequest { topic: String::new(), ..good() }, "topic: "),
    ];
    for (request, field) in wrong {
        let error = log_error(&broker.producer().produce(request).await.unwrap_err());
        assert_eq!(error.reason(), Reason::InvalidRequest);
        assert!(error.message.starts_with(field), "{}", error.message);
    }
    let identity = v1::ProduceRequest {
        partition: Some(0),
        first_sequence: Some(-4),
        producer: Some(v1::ProducerIdentity { id: 1, epoch: 40_000 }),
        ..good()
    };
    assert_eq!(reason(broker.producer().produce(identity).await), Reason::InvalidRecord);
    let partition = v1::ProduceRequest { partition: Some(9), ..good() };
    assert_eq!(reason(broker.producer().produce(partition).await), Reason::UnknownPartition);
}

#[tokio::test]
async fn a_message_that_is_too_large_or_out_of_proportion_is_refused_and_the_connection_goes_on() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let value = "x".repeat(1_000_000);
    let large = (0..9).map(|_| record(None, &value)).collect();
    assert_eq!(reason(broker.producer().produce(produce_request("t", large)).await), Reason::BatchTooLarge);
    let many = vec![v1::Record::default(); 100_001];
    let status = broker.producer().produce(produce_request("t", many)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("100000"), "{}", status.message());
    assert_eq!(broker.produce("t", 0, &["fits"]).await, 0);
}

#[tokio::test]
async fn p1_a_retry_through_the_stream_returns_the_first_offset() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(&broker).await;
    let with = |first_sequence| batch(&["v"], Some(BatchProducer { id: 3, epoch: 0, first_sequence }));
    for sequence in 0..3 {
        stream.send(1, "t", 0, with(sequence)).await;
        assert_eq!(stream.outcome().await.1, Ok(Some(i64::from(sequence))));
    }
    stream.send(2, "t", 0, with(1)).await;
    assert_eq!(stream.outcome().await.1, Ok(Some(1)));
    assert_eq!(broker.values("t", 0).await.len(), 3);
}
