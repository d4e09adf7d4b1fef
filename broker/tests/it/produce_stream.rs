//! ProduceStream.

use bytes::Bytes;
use taffrail_proto::record::BatchProducer;
use taffrail_proto::v1::{
    self, ProduceStreamRequest, Reason, produce_ack, produce_stream_request, produce_stream_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::harness::{TestBroker, batch, log_error, produce_request, record, soon};

/// A stream that is open.
pub(crate) struct Stream {
    pub(crate) frames: mpsc::Sender<ProduceStreamRequest>,
    answers: Streaming<v1::ProduceStreamResponse>,
    gathered: Vec<v1::ProduceAck>,
}

impl Stream {
    pub(crate) async fn open(broker: &TestBroker) -> Self {
        Self::open_with(broker, v1::ProduceOpen::default()).await
    }

    pub(crate) async fn open_with(broker: &TestBroker, open: v1::ProduceOpen) -> Self {
        let (frames, requests) = mpsc::channel(100);
        let mut client = broker.producer();
        let begun = client.produce_stream(ReceiverStream::new(requests));
        frames.send(frame(produce_stream_request::Frame::Open(open))).await.unwrap();
        let answers = soon(begun).await.unwrap().into_inner();
        let mut stream = Self { frames, answers, gathered: Vec::new() };
        match stream.next().await.unwrap() {
            produce_stream_response::Frame::Opened(opened) => assert!(opened.max_in_flight_bytes > 0),
            other => panic!("{other:?}"),
        }
        stream
    }

    pub(crate) async fn next(&mut self) -> Result<produce_stream_response::Frame, Status> {
        Ok(soon(self.answers.message()).await?.expect("the stream goes on").frame.unwrap())
    }

    pub(crate) async fn send(&self, id: u64, topic: &str, partition: i32, batch: Bytes) {
        self.send_batches(vec![partition_batch(id, topic, partition, batch)]).await;
    }

    pub(crate) async fn send_batches(&self, batches: Vec<v1::PartitionBatch>) {
        let batches = v1::ProduceBatches { batches };
        self.frames.send(frame(produce_stream_request::Frame::Batches(batches))).await.unwrap();
    }

    pub(crate) async fn resume(&self, topic: &str, partition: i32) {
        let resume = v1::ProduceResume { topic: topic.to_owned(), partition };
        self.frames.send(frame(produce_stream_request::Frame::Resume(resume))).await.unwrap();
    }

    /// The next answer.
    pub(crate) async fn ack(&mut self) -> v1::ProduceAck {
        while self.gathered.is_empty() {
            match self.next().await.unwrap() {
                produce_stream_response::Frame::Acks(acks) => self.gathered = acks.acks,
                other => panic!("{other:?}"),
            }
        }
        self.gathered.remove(0)
    }

    /// The next answer: which batch, and its offset or why not.
    pub(crate) async fn outcome(&mut self) -> (u64, Result<Option<i64>, Reason>) {
        let ack = self.ack().await;
        let outcome = match ack.outcome.unwrap() {
            produce_ack::Outcome::Appended(appended) => Ok(appended.base_offset),
            produce_ack::Outcome::Error(error) => Err(error.reason()),
            produce_ack::Outcome::Response(response) => panic!("{response:?}"),
        };
        (ack.correlation_id, outcome)
    }
}

pub(crate) fn frame(frame: produce_stream_request::Frame) -> ProduceStreamRequest {
    ProduceStreamRequest { frame: Some(frame) }
}

pub(crate) fn partition_batch(id: u64, topic: &str, partition: i32, batch: Bytes) -> v1::PartitionBatch {
    v1::PartitionBatch { correlation_id: id, topic: topic.to_owned(), partition, batch, ..Default::default() }
}

#[tokio::test]
async fn many_batches_in_flight_are_answered_in_order_of_their_partition() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut stream = Stream::open(&broker).await;
    for id in 0..200 {
        stream.send(id, "t", (id % 2) as i32, batch(&[&id.to_string()], None)).await;
    }
    let mut next = [0, 0];
    for _ in 0..200 {
        let (id, outcome) = stream.outcome().await;
        let partition = (id % 2) as usize;
        assert_eq!(outcome, Ok(Some(next[partition])));
        assert_eq!(id as i64 / 2, next[partition]);
        next[partition] += 1;
    }
    let values = broker.values("t", 1).await;
    assert_eq!(values, (0..100).map(|i| (i * 2 + 1).to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn p9_after_a_refusal_nothing_of_the_partition_is_appended_until_it_is_resumed() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut stream = Stream::open(&broker).await;
    let mut damaged = batch(&["bad"], None).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    stream.send(1, "t", 0, batch(&["a"], None)).await;
    stream.send(2, "t", 0, damaged.into()).await;
    stream.send(3, "t", 0, batch(&["after"], None)).await;
    stream.send(4, "t", 1, batch(&["other"], None)).await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(stream.outcome().await);
    }
    outcomes.sort_by_key(|(id, _)| *id);
    let refused = [Err(Reason::CorruptBatch), Err(Reason::PrecedingFailed)];
    assert_eq!(outcomes, [(1, Ok(Some(0))), (2, refused[0]), (3, refused[1]), (4, Ok(Some(0)))]);
    stream.resume("t", 0).await;
    stream.send(5, "t", 0, batch(&["b"], None)).await;
    assert_eq!(stream.outcome().await, (5, Ok(Some(1))));
    assert_eq!(broker.values("t", 0).await, ["a", "b"]);
}

#[tokio::test]
async fn p9_holds_for_refusals_that_the_partition_makes() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(&broker).await;
    let known = |first_sequence| Some(BatchProducer { id: 5, epoch: 0, first_sequence });
    stream
        .send_batches(vec![
            partition_batch(1, "t", 0, batch(&["a"], known(0))),
            partition_batch(2, "t", 0, batch(&["gap"], known(7))),
            partition_batch(3, "t", 0, batch(&["b"], known(1))),
            partition_batch(4, "t", 0, batch(&["plain"], None)),
        ])
        .await;
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(stream.outcome().await);
    }
    outcomes.sort_by_key(|(id, _)| *id);
    assert_eq!(outcomes[1].1, Err(Reason::OutOfSequence));
    assert_eq!(outcomes[2].1, Err(Reason::PrecedingFailed));
    assert_eq!(outcomes[3].1, Err(Reason::PrecedingFailed));
    assert_eq!(broker.values("t", 0).await, ["a"]);
}

#[tokio::test]
async fn plain_records_are_encoded_by_the_broker() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let mut stream = Stream::open(&broker).await;
    let records = (0..20).map(|i| record(Some(&i.to_string()), "v")).collect();
    let records = v1::ProduceRecords { correlation_id: 9, request: Some(produce_request("t", records)) };
    stream.frames.send(frame(produce_stream_request::Frame::Records(records))).await.unwrap();
    let ack = stream.ack().await;
    assert_eq!(ack.correlation_id, 9);
    let Some(produce_ack::Outcome::Response(response)) = ack.outcome else { panic!("{ack:?}") };
    assert_eq!(response.results.iter().map(|result| result.record_indexes.len()).sum::<usize>(), 20);
    let nothing = v1::ProduceRecords { correlation_id: 10, request: Some(produce_request("t", vec![])) };
    stream.frames.send(frame(produce_stream_request::Frame::Records(nothing))).await.unwrap();
    assert_eq!(stream.outcome().await, (10, Err(Reason::InvalidRequest)));
}

#[tokio::test]
async fn a_stream_that_the_client_ends_answers_all_that_is_in_flight() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(&broker).await;
    for id in 0..50 {
        stream.send(id, "t", 0, batch(&["v"], None)).await;
    }
    let Stream { frames, .. } = &mut stream;
    *frames = mpsc::channel(1).0;
    for _ in 0..50 {
        assert!(stream.outcome().await.1.is_ok());
    }
    assert!(soon(stream.answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn acks_none_is_silent_and_a_wrong_epoch_is_told_apart() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(&broker).await;
    let silent = v1::PartitionBatch { acks: v1::Acks::None.into(), ..partition_batch(1, "t", 0, batch(&["a"], None)) };
    let ahead = v1::PartitionBatch { leader_epoch: Some(9), ..partition_batch(2, "t", 0, batch(&["b"], None)) };
    stream.send_batches(vec![silent, ahead]).await;
    assert_eq!(stream.outcome().await, (2, Err(Reason::UnknownLeaderEpoch)));
    assert_eq!(broker.values("t", 0).await, ["a"]);
}

#[tokio::test]
async fn the_first_frame_must_be_open_and_only_the_first() {
    let broker = TestBroker::start().await;
    let resume = frame(produce_stream_request::Frame::Resume(v1::ProduceResume::default()));
    let mut answers = broker.producer().produce_stream(tokio_stream::iter([resume])).await.unwrap().into_inner();
    let error = log_error(&soon(answers.message()).await.unwrap_err());
    assert_eq!((error.reason(), error.message.starts_with("frame: ")), (Reason::InvalidRequest, true));

    let mut stream = Stream::open(&broker).await;
    let again = frame(produce_stream_request::Frame::Open(v1::ProduceOpen::default()));
    stream.frames.send(again).await.unwrap();
    assert_eq!(log_error(&stream.next().await.unwrap_err()).reason(), Reason::InvalidRequest);
}

#[tokio::test]
async fn more_than_may_be_in_flight_is_taken_bit_by_bit() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut stream = Stream::open(&broker).await;
    let value = "x".repeat(900_000);
    let frames = stream.frames.clone();
    let sending = tokio::spawn(async move {
        for id in 0..60 {
            let batches = vec![partition_batch(id, "t", 0, batch(&[&value], None))];
            let batches = v1::ProduceBatches { batches };
            frames.send(frame(produce_stream_request::Frame::Batches(batches))).await.unwrap();
        }
    });
    for id in 0..60 {
        assert_eq!(stream.outcome().await, (id, Ok(Some(id as i64))));
    }
    sending.await.unwrap();
}
