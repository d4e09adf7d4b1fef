//! Read: plain records of a topic as a stream, in order within each partition.
//!
//! One task per stream reads a piece of one partition after the other, decodes it and sends it before it reads the next:
//! what is buffered is one answer being sent and one waiting.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use taffrail_proto::v1::{FetchPartition, LogError, ReadRequest, ReadResponse, Reason, StoredRecord, position};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Broker;
use super::call::{Call, refuse};
use super::consumer::PARTITION_BYTES;
use super::fetch::{Reader, Room, count_fetched, isolation, room, settle, size, total};
use super::status::{Refused, invalid, refusal};
use crate::metrics::Rpc;
use crate::partition::{Isolation, OffsetQuery, Waiter};
use crate::security::Verb;
use crate::topics::Topic;

/// Bytes of batches read at a time, and about the records of one answer.
const CHUNK_BYTES: usize = 512 << 10;

type Answers = ReceiverStream<Result<ReadResponse, Status>>;

/// Starts a stream's task.
pub(super) fn begin(broker: Arc<Broker>, call: Call, request: ReadRequest) -> Answers {
    let (answers, outbound) = mpsc::channel(1);
    tokio::spawn(async move {
        let _open = broker.metrics.rpc(Rpc::Read).stream();
        // Whoever reads to an end may reach it; whoever follows would hold up the stop.
        let drain = &call.connection.drain;
        let leave = if request.follow { drain.announced.clone() } else { drain.closing.clone() };
        let ended = tokio::select! {
            ended = read(&broker, &call, request, &answers) => ended,
            () = answers.closed() => Ok(()),
            () = call.overdue() => Err(refusal(Reason::RequestTimeout, "the deadline passed").into()),
            () = leave.cancelled() => {
                Err(refusal(Reason::Unavailable, "the broker is stopping: connect again and resume").into())
            }
        };
        if let Err(refused) = ended {
            let _ = answers.send(Err(refuse(&broker.metrics, &refused.0))).await;
        }
    });
    ReceiverStream::new(outbound)
}

async fn read(
    broker: &Broker,
    call: &Call,
    request: ReadRequest,
    answers: &mpsc::Sender<Result<ReadResponse, Status>>,
) -> Result<(), Refused> {
    call.authorize_topic(Verb::Consume, &request.topic)?;
    let mut changes = broker.topics.subscribe();
    let topic = Arc::clone(broker.topics.image().topic(&request.topic)?);
    let selection = Selection::of(&request, &topic)?;
    let _held = call.hold(selection.partitions.len() * PARTITION_BYTES);
    let mut reading = Reading {
        broker,
        call,
        answers,
        topic,
        follow: request.follow,
        isolation: isolation(request.isolation)?,
        left: if request.limit == 0 { u64::MAX } else { request.limit },
        readers: Vec::new(),
        ready: VecDeque::new(),
        waiter: Waiter::new(),
    };
    for index in &selection.partitions {
        reading.begin(*index, selection.start(*index)).await?;
    }
    loop {
        while let Some(index) = reading.ready.pop_front() {
            if reading.step(index).await? {
                return Ok(());
            }
        }
        if !request.follow {
            return Ok(());
        }
        reading.wait(&mut changes, selection.all).await?;
    }
}

/// Which partitions, and where to begin.
struct Selection<'a> {
    request: &'a ReadRequest,
    partitions: Vec<i32>,
    /// None was named: all, also those that come later.
    all: bool,
}

impl<'a> Selection<'a> {
    fn of(request: &'a ReadRequest, topic: &Topic) -> Result<Self, Refused> {
        let all = request.partitions.is_empty();
        let count = topic.partitions.len();
        if request.partitions.len() > count || request.resume.len() > count {
            let fault = format_args!("more are named than the topic's {count} partitions");
            return Err(Refused::of(invalid("partitions", fault)));
        }
        let partitions = if all { (0..count as i32).collect() } else { request.partitions.clone() };
        let selection = Self { request, partitions, all };
        selection.check(topic)?;
        Ok(selection)
    }

    /// Each partition exists and is named once; what is resumed is selected.
    fn check(&self, topic: &Topic) -> Result<(), Refused> {
        let mut seen = HashSet::new();
        for index in &self.partitions {
            topic.partition(*index)?;
            if !seen.insert(*index) {
                return Err(Refused::of(invalid("partitions", format_args!("partition {index} is named twice"))));
            }
        }
        for resume in &self.request.resume {
            if !seen.remove(&resume.partition) {
                let fault = format_args!("partition {} is named twice, or is not read", resume.partition);
                return Err(Refused::of(invalid("resume", fault)));
            }
        }
        Ok(())
    }

    fn start(&self, index: i32) -> Start {
        if let Some(resume) = self.request.resume.iter().find(|resume| resume.partition == index) {
            return Start::Offset(resume.offset, resume.last_epoch);
        }
        match self.request.from.and_then(|from| from.start) {
            None | Some(position::Start::Earliest(_)) => Start::Query(OffsetQuery::Earliest),
            Some(position::Start::Latest(_)) => Start::Query(OffsetQuery::Latest),
            Some(position::Start::TimestampMs(timestamp)) => Start::Query(OffsetQuery::Timestamp(timestamp)),
            Some(position::Start::Offset(offset)) => Start::Offset(offset, None),
        }
    }
}

/// Where to begin in a partition.
enum Start {
    Offset(i64, Option<i32>),
    Query(OffsetQuery),
}

struct Reading<'a> {
    broker: &'a Broker,
    call: &'a Call,
    answers: &'a mpsc::Sender<Result<ReadResponse, Status>>,
    topic: Arc<Topic>,
    follow: bool,
    isolation: Isolation,
    /// Records that may still be sent.
    left: u64,
    /// Readers, each with the offset at which it stops.
    readers: Vec<(Reader, i64)>,
    /// Which of them are worth a look.
    ready: VecDeque<usize>,
    waiter: Arc<Waiter>,
}

impl Reading<'_> {
    /// Begins to read a partition. Without `follow` it ends where the partition ends now.
    async fn begin(&mut self, index: i32, start: Start) -> Result<(), Refused> {
        let wanted =
            FetchPartition { topic: self.topic.name.to_string(), partition: index, ..FetchPartition::default() };
        let mut reader = Reader::find(self.broker, self.call, &wanted, self.isolation)?;
        let end = reader.partition.current().await?.snapshot.visible_end(self.isolation);
        (reader.offset, reader.last_epoch) = match start {
            Start::Offset(offset, last_epoch) => (offset, last_epoch),
            Start::Query(query) => {
                let found = reader.partition.list_offset(query, self.isolation).await?;
                (found.offset.unwrap_or(end), None)
            }
        };
        self.ready.push_back(self.readers.len());
        self.readers.push((reader, if self.follow { i64::MAX } else { end }));
        Ok(())
    }

    /// Reads and sends a piece of a partition; true when the limit is reached.
    async fn step(&mut self, index: usize) -> Result<bool, Refused> {
        let (reader, stop) = &mut self.readers[index];
        let Room { mut charge, bytes } = room(self.call, reader, CHUNK_BYTES).await;
        let read = reader.read(bytes).await;
        let read = read.map_err(|error| Refused::of(reader.error(self.broker, error)))?;
        let end = read.snapshot.visible_end(self.isolation);
        let before = (*stop).min(end);
        let next = reader.behind(&read.batches);
        count_fetched(&self.broker.metrics.topic(&reader.topic), &read.batches);
        settle(self.call, &mut charge, total(&read.batches));
        let mut records = reader.plain(read.batches, before, CHUNK_BYTES).await?;
        records.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= records.len() as u64;
        match records.last() {
            Some(last) => (reader.offset, reader.last_epoch) = (last.offset + 1, Some(last.leader_epoch)),
            None => reader.offset = next.min(before.max(reader.offset)),
        }
        let has_more = reader.offset < before
            || (self.follow && !reader.partition.arm(end, self.isolation, &self.waiter, index as u64));
        if has_more {
            self.ready.push_back(index);
        }
        if !records.is_empty() {
            settle(self.call, &mut charge, records.iter().map(size).sum());
            self.send(records, charge).await;
        }
        Ok(self.left == 0)
    }

    async fn send(&self, records: Vec<StoredRecord>, charge: crate::memory::Charge) {
        if let Ok(place) = self.answers.reserve().await {
            self.call.outbox.put(charge);
            place.send(Ok(ReadResponse { records }));
        }
    }

    /// Until a partition has more, or the topic changed: then its new partitions are read from their beginning.
    async fn wait(&mut self, changes: &mut watch::Receiver<u64>, all: bool) -> Result<(), Refused> {
        tokio::select! {
            tokens = self.waiter.ready() => {
                self.ready.extend(tokens.into_iter().map(|token| token as usize));
                return Ok(());
            }
            changed = changes.changed() => if changed.is_err() {
                return Err(refusal(Reason::Unavailable, "the broker is stopping").into());
            },
        }
        let topic = Arc::clone(self.broker.topics.image().topic(&self.topic.name)?);
        if topic.id != self.topic.id {
            return Err(replaced(&topic).into());
        }
        self.topic = topic;
        if all {
            for index in self.readers.len()..self.topic.partitions.len() {
                self.begin(index as i32, Start::Query(OffsetQuery::Earliest)).await?;
            }
        }
        Ok(())
    }
}

fn replaced(topic: &Topic) -> LogError {
    refusal(Reason::UnknownTopic, format_args!("topic {:?} was deleted and made again: begin anew", topic.name))
}
