//! FetchStream.

use std::time::Duration;

use taffrail_proto::record::BatchHeader;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::{
    self, FetchStreamRequest, PartitionData, Reason, fetch_stream_request, fetch_stream_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::harness::{TestBroker, fetch_partition, log_error, soon};

const PLENTY: u64 = 1 << 30;

pub(crate) struct Stream {
    pub(crate) frames: mpsc::Sender<FetchStreamRequest>,
    pub(crate) answers: Streaming<v1::FetchStreamResponse>,
}

impl Stream {
    pub(crate) async fn open(broker: &TestBroker, open: v1::FetchOpen) -> Self {
        Self::open_on(broker.consumer(), open).await
    }

    /// On the connection of a client.
    pub(crate) async fn open_on(mut client: ConsumerClient<Channel>, open: v1::FetchOpen) -> Self {
        let (frames, requests) = mpsc::channel(100);
        let begun = client.fetch_stream(ReceiverStream::new(requests));
        frames.send(frame(fetch_stream_request::Frame::Open(open))).await.unwrap();
        Self { frames, answers: soon(begun).await.unwrap().into_inner() }
    }

    pub(crate) async fn with_credit(broker: &TestBroker, credit_bytes: u64) -> Self {
        Self::open(broker, v1::FetchOpen { credit_bytes, ..v1::FetchOpen::default() }).await
    }

    pub(crate) async fn add(&self, subscription: u64, partition: v1::FetchPartition) {
        let add = v1::FetchAdd { subscription, partition: Some(partition) };
        self.frames.send(frame(fetch_stream_request::Frame::Add(add))).await.unwrap();
    }

    async fn next(&mut self) -> Result<PartitionData, Status> {
        match soon(self.answers.message()).await?.expect("the stream goes on").frame.unwrap() {
            fetch_stream_response::Frame::Data(data) => Ok(data),
            fetch_stream_response::Frame::Drain(drain) => panic!("{drain:?}"),
        }
    }

    /// Offsets of the batches of the next `count` of them.
    async fn offsets(&mut self, count: usize) -> Vec<(u64, i32, i64)> {
        let mut offsets = Vec::new();
        while offsets.len() < count {
            let data = self.next().await.unwrap();
            assert_eq!(data.error, None);
            let base = |batch| BatchHeader::parse(batch).unwrap().base_offset;
            offsets.extend(data.batches.iter().map(|batch| (data.subscription, data.partition, base(batch))));
        }
        offsets
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.answers.message()).await.is_err()
    }
}

fn frame(frame: fetch_stream_request::Frame) -> FetchStreamRequest {
    FetchStreamRequest { frame: Some(frame) }
}

#[tokio::test]
async fn r1_what_is_there_and_what_comes_is_pushed_in_order() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    for _ in 0..3 {
        broker.produce("t", 0, &["v"]).await;
    }
    let mut stream = Stream::with_credit(&broker, PLENTY).await;
    stream.add(1, fetch_partition("t", 0, 1)).await;
    assert_eq!(stream.offsets(2).await, [(1, 0, 1), (1, 0, 2)]);
    stream.add(2, fetch_partition("t", 1, 0)).await;
    let empty = stream.next().await.unwrap();
    assert_eq!(
        (empty.subscription, empty.batches.len(), empty.high_watermark),
        (2, 0, 0),
        "told once that it is at the end"
    );
    broker.produce("t", 0, &["v"]).await;
    assert_eq!(stream.offsets(1).await, [(1, 0, 3)]);
    broker.produce("t", 1, &["v"]).await;
    assert_eq!(stream.offsets(1).await, [(2, 1, 0)]);
}

#[tokio::test]
async fn credit_bounds_what_is_sent() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let value = "x".repeat(1_000);
    for _ in 0..10 {
        broker.produce("t", 0, &[&value]).await;
    }
    let mut stream = Stream::with_credit(&broker, 1).await;
    stream.add(1, fetch_partition("t", 0, 0)).await;
    assert_eq!(stream.offsets(1).await, [(1, 0, 0)], "at least one batch");
    assert!(stream.is_silent().await);
    let credit = v1::FetchCredit { bytes: 4_000 };
    stream.frames.send(frame(fetch_stream_request::Frame::Credit(credit))).await.unwrap();
    // Less the debt of the first batch that is room for two more, and a rest that gives one.
    assert_eq!(stream.offsets(3).await, [(1, 0, 1), (1, 0, 2), (1, 0, 3)]);
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn a_seek_is_told_from_what_went_before_it() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for _ in 0..5 {
        broker.produce("t", 0, &["v"]).await;
    }
    let mut stream = Stream::with_credit(&broker, PLENTY).await;
    stream.add(1, fetch_partition("t", 0, 4)).await;
    assert_eq!(stream.offsets(1).await, [(1, 0, 4)]);
    stream.add(2, fetch_partition("t", 0, 2)).await;
    assert_eq!(stream.offsets(3).await, [(2, 0, 2), (2, 0, 3), (2, 0, 4)]);
    broker.produce("t", 0, &["v"]).await;
    assert_eq!(stream.offsets(1).await, [(2, 0, 5)], "once, under the new number");
    let remove = v1::FetchRemove { topic: "t".to_owned(), partition: 0 };
    stream.frames.send(frame(fetch_stream_request::Frame::Remove(remove))).await.unwrap();
    // What is answered came behind it.
    stream.add(3, fetch_partition("nowhere", 0, 0)).await;
    assert_eq!(stream.next().await.unwrap().subscription, 3);
    broker.produce("t", 0, &["v"]).await;
    assert!(stream.is_silent().await);
}

#[tokio::test]
async fn an_error_ends_the_partition_and_not_the_stream() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["v"]).await;
    let mut stream = Stream::with_credit(&broker, PLENTY).await;
    for (number, wanted, reason) in [
        (1, fetch_partition("nowhere", 0, 0), Reason::UnknownTopic),
        (2, fetch_partition("t", 3, 0), Reason::UnknownPartition),
        (3, fetch_partition("t", 0, 77), Reason::OffsetOutOfRange),
        (4, fetch_partition(&"x".repeat(300), 0, 0), Reason::InvalidRequest),
    ] {
        stream.add(number, wanted).await;
        let data = stream.next().await.unwrap();
        assert_eq!((data.subscription, data.error.unwrap().reason()), (number, reason));
    }
    stream.add(5, fetch_partition("t", 0, 0)).await;
    assert_eq!(stream.offsets(1).await, [(5, 0, 0)]);
}

#[tokio::test]
async fn a_deleted_topic_is_told() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::with_credit(&broker, PLENTY).await;
    stream.add(1, fetch_partition("t", 0, 0)).await;
    assert_eq!(stream.next().await.unwrap().error, None);
    let request = v1::DeleteTopicRequest { name: "t".to_owned(), ..Default::default() };
    broker.admin().delete_topic(request).await.unwrap();
    assert_eq!(stream.next().await.unwrap().error.unwrap().reason(), Reason::UnknownTopic);
}

#[tokio::test]
async fn min_bytes_are_waited_for_but_not_longer_than_max_wait() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let open = v1::FetchOpen { credit_bytes: PLENTY, min_bytes: 2_000, max_wait_ms: 3_000, ..Default::default() };
    let mut stream = Stream::open(&broker, open).await;
    stream.add(1, fetch_partition("t", 0, 0)).await;
    assert_eq!(stream.next().await.unwrap().batches.len(), 0);
    broker.produce("t", 0, &["small"]).await;
    assert!(stream.is_silent().await);
    assert_eq!(stream.offsets(1).await, [(1, 0, 0)], "when its time is over");
    broker.produce("t", 0, &[&"x".repeat(3_000)]).await;
    assert_eq!(stream.offsets(1).await, [(1, 0, 1)]);
}

#[tokio::test]
async fn the_first_frame_must_be_open() {
    let broker = TestBroker::start().await;
    let credit = frame(fetch_stream_request::Frame::Credit(v1::FetchCredit { bytes: 1 }));
    let mut answers = broker.consumer().fetch_stream(tokio_stream::iter([credit])).await.unwrap().into_inner();
    assert_eq!(log_error(&soon(answers.message()).await.unwrap_err()).reason(), Reason::InvalidRequest);
}
