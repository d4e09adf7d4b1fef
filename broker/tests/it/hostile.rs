//! Clients that hold what they can: an honest one is served nevertheless.

use std::ops::Range;
use std::time::Duration;

use taffrail_broker::server::Options;
use taffrail_proto::v1;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use tokio::io::AsyncWriteExt;
use tonic::Streaming;

use crate::fetch_stream::Stream;
use crate::harness::{TestBroker, fetch_partition, soon};

/// Little enough that a few clients can take all of it.
const MEMORY: usize = 64 << 20;

/// Streams that ask for all of topic `t` and read nothing of it, on connections of their own.
async fn readers_that_never_read(broker: &TestBroker, count: usize) -> Vec<(Streaming<v1::ReadResponse>, Stream)> {
    let mut readers = Vec::new();
    for _ in 0..count {
        let mut client = ConsumerClient::new(broker.connect().await);
        let request = v1::ReadRequest { topic: "t".to_owned(), follow: true, ..Default::default() };
        let read = soon(client.read(request)).await.unwrap().into_inner();
        let open = v1::FetchOpen { credit_bytes: 1 << 40, ..v1::FetchOpen::default() };
        let stream = Stream::open_on(ConsumerClient::new(broker.connect().await), open).await;
        stream.add(1, fetch_partition("t", 0, 0)).await;
        readers.push((read, stream));
    }
    readers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_do_not_stop_the_others() {
    let broker = TestBroker::with(Options { memory_limit: MEMORY, ..Options::default() }).await;
    broker.topic("t", 1).await;
    let value = "x".repeat(40_000);
    for _ in 0..500 {
        broker.produce("t", 0, &[&value]).await;
    }
    let _idle = readers_that_never_read(&broker, 40).await;
    for _ in 0..3 {
        assert_eq!(soon(broker.values("t", 0)).await.len(), 500);
    }
    assert_eq!(soon(broker.produce("t", 0, &["honest"])).await, 500);
}

fn long_poll(partitions: Range<i32>) -> v1::FetchRequest {
    v1::FetchRequest {
        partitions: partitions.map(|index| fetch_partition("t", index, 0)).collect(),
        min_bytes: u32::MAX,
        max_wait_ms: 60_000,
        ..v1::FetchRequest::default()
    }
}

/// Makes topic `t` with so many batches of 100 kB in each partition.
async fn fill(broker: &TestBroker, batches: &[usize]) {
    broker.topic("t", batches.len() as i32).await;
    let value = "x".repeat(100_000);
    for (index, batches) in batches.iter().enumerate() {
        for _ in 0..*batches {
            broker.produce("t", index as i32, &[&value]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_polls_that_find_no_memory_to_grow_are_answered_with_what_they_have() {
    let broker = TestBroker::with(Options { memory_limit: MEMORY, ..Options::default() }).await;
    fill(&broker, &[20; 4]).await;
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut client = ConsumerClient::new(broker.connect().await);
        polls.spawn(async move { client.fetch(long_poll(0..4)).await.unwrap().into_inner() });
    }
    assert_eq!(soon(broker.produce("t", 0, &["honest"])).await, 20);
    while let Some(answer) = soon(polls.join_next()).await {
        assert!(!answer.unwrap().partitions.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_gives_way_when_others_need_its_memory() {
    let broker = TestBroker::with(Options { memory_limit: MEMORY, ..Options::default() }).await;
    fill(&broker, &[200, 20]).await;
    let mut waiting = broker.consumer();
    let mut waiting = tokio::spawn(async move { waiting.fetch(long_poll(1..2)).await.unwrap().into_inner() });
    let ended = tokio::time::timeout(Duration::from_millis(600), &mut waiting).await;
    assert!(ended.is_err(), "there is memory, and less than was asked for");
    let _hogs = readers_that_never_read(&broker, 40).await;
    let answer = soon(waiting).await.unwrap();
    assert_eq!(answer.partitions[0].batches.len(), 20);
}

/// An HTTP/2 connection that begins as many calls as it may, sends half of a message in each, and stops.
async fn half_a_frame(broker: &TestBroker) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    for id in (1..200).step_by(2) {
        // :method POST, :scheme http, :path and :authority, content-type: literals without indexing.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [
            (&b":path"[..], &b"/taffrail.v1.Producer/Produce"[..]),
            (b":authority", b"broker"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ] {
            headers.push(0);
            headers.push(name.len() as u8);
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value);
        }
        bytes.extend(frame(1, 4, id, &headers));
        let mut data = vec![0];
        data.extend((4_u32 << 20).to_be_bytes());
        data.resize(600, 1);
        bytes.extend(frame(0, 0, id, &data));
    }
    stream.write_all(&bytes).await.unwrap();
    stream
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_frames_and_too_many_streams_do_not_stop_the_others() {
    let broker = TestBroker::with(Options { memory_limit: MEMORY, ..Options::default() }).await;
    broker.topic("t", 1).await;
    let mut hostile = Vec::new();
    for _ in 0..50 {
        hostile.push(half_a_frame(&broker).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let value = "x".repeat(500_000);
    for offset in 0..10 {
        assert_eq!(soon(broker.produce("t", 0, &[&value])).await, offset);
    }
}
