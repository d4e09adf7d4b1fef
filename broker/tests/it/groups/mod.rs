//! Consumer groups, by hand-written frames.

mod calls;
mod consume;
mod hostile;
mod load;
mod refused;
mod session;

use std::time::Duration;

use taffrail_proto::v1::{self, ConsumeRequest, ConsumeResponse, SessionRequest, SessionResponse};
use taffrail_proto::v1::{consume_request, consume_response, session_request, session_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::harness::{TestBroker, soon, text};

pub(crate) fn join(group: &str, member: &str, topics: &[&str]) -> v1::SessionJoin {
    let subscription =
        v1::Subscription { topics: topics.iter().map(|t| (*t).to_owned()).collect(), pattern: String::new() };
    v1::SessionJoin {
        group: group.to_owned(),
        member_id: member.to_owned(),
        subscription: Some(subscription),
        session_timeout_ms: 45_000,
        ..v1::SessionJoin::default()
    }
}

pub(crate) fn partitions(topic: &str, numbers: &[i32]) -> Vec<v1::TopicPartitions> {
    vec![v1::TopicPartitions { topic: topic.to_owned(), topic_id: String::new(), partitions: numbers.to_vec() }]
}

/// Numbers of the partitions of one topic.
fn numbers(named: &[v1::TopicPartitions]) -> Vec<i32> {
    let mut all: Vec<i32> = named.iter().flat_map(|topic| topic.partitions.clone()).collect();
    all.sort_unstable();
    all
}

/// A Session stream.
pub(crate) struct Session {
    frames: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
    pub(crate) epoch: i32,
    pub(crate) owned: Vec<v1::TopicPartitions>,
}

impl Session {
    pub(crate) async fn open(broker: &TestBroker, first: session_request::Frame) -> Result<Self, Status> {
        let (frames, requests) = mpsc::channel(100);
        let mut client = broker.groups();
        let begun = client.session(ReceiverStream::new(requests));
        frames.send(SessionRequest { frame: Some(first) }).await.unwrap();
        let answers = soon(begun).await?.into_inner();
        Ok(Self { frames, answers, epoch: 0, owned: vec![] })
    }

    pub(crate) async fn join(broker: &TestBroker, join: v1::SessionJoin) -> Self {
        let mut session = Self::open(broker, session_request::Frame::Join(join)).await.unwrap();
        session.next().await.unwrap();
        session.next().await.unwrap();
        session
    }

    pub(crate) async fn send(&self, frame: session_request::Frame) {
        let _ = self.frames.send(SessionRequest { frame: Some(frame) }).await;
    }

    /// Says that it owns what it was assigned.
    pub(crate) async fn heartbeat(&self) {
        let heartbeat = v1::SessionHeartbeat { owned: self.owned.clone(), member_epoch: self.epoch };
        self.send(session_request::Frame::Heartbeat(heartbeat)).await;
    }

    pub(crate) async fn next(&mut self) -> Result<session_response::Frame, Status> {
        let frame = soon(self.answers.message()).await?.expect("the stream goes on").frame.unwrap();
        match &frame {
            session_response::Frame::Joined(joined) => self.epoch = joined.member_epoch,
            session_response::Frame::Assignment(assignment) => {
                self.epoch = assignment.member_epoch;
                self.owned.clone_from(&assignment.partitions);
            }
            session_response::Frame::Drain(_) => {}
        }
        Ok(frame)
    }

    /// Follows assignments, and lets go at once, until it owns so many partitions.
    pub(crate) async fn owns(&mut self, count: usize) -> Vec<i32> {
        while numbers(&self.owned).len() != count {
            self.next().await.unwrap();
            self.heartbeat().await;
        }
        numbers(&self.owned)
    }

    /// The error that the stream ends with.
    pub(crate) async fn ends(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// A Consume stream.
pub(crate) struct Consumer {
    frames: mpsc::Sender<ConsumeRequest>,
    answers: Streaming<ConsumeResponse>,
    pub(crate) epoch: i32,
    /// Partitions and the offsets at which they begin.
    pub(crate) owned: std::collections::BTreeMap<i32, i64>,
    /// Partition, offset and value.
    pub(crate) records: Vec<(i32, i64, String)>,
}

impl Consumer {
    pub(crate) async fn begin(broker: &TestBroker, first: consume_request::Frame) -> Result<Self, Status> {
        let (frames, requests) = mpsc::channel(100);
        let mut client = broker.groups();
        let begun = client.consume(ReceiverStream::new(requests));
        frames.send(ConsumeRequest { frame: Some(first) }).await.unwrap();
        let answers = soon(begun).await?.into_inner();
        Ok(Self { frames, answers, epoch: 0, owned: std::collections::BTreeMap::new(), records: vec![] })
    }

    pub(crate) async fn open(broker: &TestBroker, join: v1::SessionJoin) -> Self {
        let open = v1::ConsumeOpen { join: Some(join), ..v1::ConsumeOpen::default() };
        Self::begin(broker, consume_request::Frame::Open(open)).await.unwrap()
    }

    pub(crate) async fn send(&self, frame: consume_request::Frame) {
        let _ = self.frames.send(ConsumeRequest { frame: Some(frame) }).await;
    }

    /// The next frame; revoked partitions are let go of only by [`release`](Self::release).
    pub(crate) async fn next(&mut self) -> Result<consume_response::Frame, Status> {
        use consume_response::Frame;
        let frame = soon(self.answers.message()).await?.expect("the stream goes on").frame.unwrap();
        match &frame {
            Frame::Joined(joined) => self.epoch = joined.member_epoch,
            Frame::Assigned(assigned) => {
                self.owned.extend(assigned.partitions.iter().map(|p| (p.partition, p.offset)));
            }
            Frame::Revoke(gone) | Frame::Lost(gone) => {
                let gone = numbers(&gone.partitions);
                self.owned.retain(|partition, _| !gone.contains(partition));
            }
            Frame::Records(records) => {
                let of = |r: &v1::StoredRecord| (records.partition, r.offset, text(r.value.as_ref()));
                self.records.extend(records.records.iter().map(of));
            }
            Frame::Committed(_) | Frame::Drain(_) => {}
        }
        Ok(frame)
    }

    pub(crate) async fn release(&self, topic: &str, numbers: &[i32]) {
        let released = v1::ConsumeReleased { partitions: partitions(topic, numbers) };
        self.send(consume_request::Frame::Released(released)).await;
    }

    /// Takes frames, and lets go of what is revoked at once, until it owns so many partitions.
    pub(crate) async fn owns(&mut self, topic: &str, count: usize) -> Vec<i32> {
        while self.owned.len() != count {
            if let consume_response::Frame::Revoke(gone) = self.next().await.unwrap() {
                self.release(topic, &numbers(&gone.partitions)).await;
            }
        }
        self.owned.keys().copied().collect()
    }

    pub(crate) async fn reads(&mut self, count: usize) -> Vec<(i32, i64, String)> {
        while self.records.len() < count {
            self.next().await.unwrap();
        }
        std::mem::take(&mut self.records)
    }

    /// Commits; what was refused.
    pub(crate) async fn commit(&mut self, id: u64, offsets: &[(&str, i32, i64)]) -> Vec<v1::OffsetCommitError> {
        let offsets = offsets.iter().map(|(topic, partition, offset)| commit(topic, *partition, *offset)).collect();
        self.send(consume_request::Frame::Commit(v1::ConsumeCommit { id, offsets })).await;
        loop {
            if let consume_response::Frame::Committed(committed) = self.next().await.unwrap() {
                assert_eq!(committed.id, id);
                return committed.errors;
            }
        }
    }

    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.answers.message()).await.is_err()
    }

    pub(crate) async fn ends(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

pub(crate) fn commit(topic: &str, partition: i32, offset: i64) -> v1::OffsetCommit {
    v1::OffsetCommit { topic: topic.to_owned(), partition, offset, ..v1::OffsetCommit::default() }
}

pub(crate) async fn describe(broker: &TestBroker, group: &str) -> v1::DescribeGroupResponse {
    let request = v1::DescribeGroupRequest { group: group.to_owned() };
    broker.groups().describe_group(request).await.unwrap().into_inner()
}

/// Offsets that the group has committed, by partition.
pub(crate) async fn committed(broker: &TestBroker, group: &str) -> Vec<(i32, Option<i64>)> {
    let request = v1::FetchOffsetsRequest { group: group.to_owned(), partitions: vec![] };
    let offsets = broker.groups().fetch_offsets(request).await.unwrap().into_inner().offsets;
    offsets.into_iter().map(|offset| (offset.partition, offset.offset)).collect()
}
