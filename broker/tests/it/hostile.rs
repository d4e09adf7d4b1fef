//! Clients that hold what they can: an honest one is served nevertheless.

use std::time::Duration;

use taffrail_broker::server::Options;
use taffrail_proto::v1;
use tokio::io::AsyncWriteExt;

use crate::fetch_stream::Stream;
use crate::harness::{TestBroker, fetch_partition, soon};

/// Little enough that a few clients can take all of it.
const MEMORY: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_do_not_stop_the_others() {
    let broker = TestBroker::with(Options { memory_limit: MEMORY, ..Options::default() }).await;
    broker.topic("t", 1).await;
    let value = "x".repeat(40_000);
    for _ in 0..500 {
        broker.produce("t", 0, &[&value]).await;
    }
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut client = v1::consumer_client::ConsumerClient::new(broker.connect().await);
        let request = v1::ReadRequest { topic: "t".to_owned(), follow: true, ..Default::default() };
        idle.push(soon(client.read(request)).await.unwrap().into_inner());
        let stream = Stream::with_credit(&broker, 1 << 40).await;
        stream.add(1, fetch_partition("t", 0, 0)).await;
    }
    for _ in 0..3 {
        assert_eq!(soon(broker.values("t", 0)).await.len(), 500);
    }
    assert_eq!(soon(broker.produce("t", 0, &["honest"])).await, 500);
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
