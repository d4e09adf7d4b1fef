//! ProduceStream: batches in, in order per partition, acknowledgements out.
//!
//! One task per stream reads a frame only when what is in flight leaves room for it, puts its batches in line, and answers
//! them as their fates are known, many in one message. Order (P9): after a refusal for a partition, what follows for it is
//! refused too until the client resumes it; the partition itself keeps that rule for what is in its line already.

mod lanes;

use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt, join_all, ready};
use futures::stream::{FuturesUnordered, StreamExt};
use taffrail_proto::v1::{self, ProduceAck, ProduceStreamRequest, ProduceStreamResponse, Reason};
use taffrail_proto::v1::{produce_ack, produce_stream_request as request, produce_stream_response as response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::lanes::Lanes;
use super::Broker;
use super::batches::{check, limits};
use super::call::{Call, check_client_id, count, refuse};
use super::encoding::{Plan, acks, held};
use super::producer::{append, appended, count_appended};
use super::status::{Refused, invalid, refusal, status};
use crate::memory::Charge;
use crate::metrics::{Rpc, RpcMetrics};
use crate::partition::{Acks, AppendRequest};
use crate::security::Verb;

/// What a client may have unanswered on a stream, if the memory limit allows it.
const MAX_IN_FLIGHT_BYTES: usize = 16 << 20;
/// Answers in one message.
const MAX_GATHERED: usize = 1_000;
/// Messages with answers that wait to be sent; then nothing more is read.
const ANSWERS_AHEAD: usize = 8;
/// Bytes of keyless records after which another random partition is chosen.
const STICKY_BYTES: usize = 64 << 10;

type Answers = ReceiverStream<Result<ProduceStreamResponse, Status>>;
/// What was in flight and is not any more.
struct Done {
    /// The answer, if one is wanted.
    ack: Option<ProduceAck>,
    /// When the batch arrived.
    began: Instant,
    bytes: usize,
}

/// Resolves when the fate of a batch is known.
type Pending = BoxFuture<'static, Done>;

/// Starts a stream's task.
pub(super) fn begin(broker: Arc<Broker>, call: Call, inbound: Streaming<ProduceStreamRequest>) -> Answers {
    let (answers, outbound) = mpsc::channel(ANSWERS_AHEAD);
    tokio::spawn(async move {
        let _open = broker.metrics.rpc(Rpc::ProduceStream).stream();
        let stream = Stream::new(&broker, call, answers.clone());
        if let Err(status) = stream.run(inbound).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(outbound)
}

struct Stream {
    broker: Arc<Broker>,
    rpc: RpcMetrics,
    call: Call,
    acks: Acks,
    lanes: Lanes,
    sticky: Sticky,
    pending: FuturesUnordered<Pending>,
    /// Bytes of what is pending.
    in_flight: usize,
    answers: mpsc::Sender<Result<ProduceStreamResponse, Status>>,
}

/// The partition for records without a key.
#[derive(Default)]
struct Sticky {
    random: u64,
    bytes: usize,
}

/// How far the stream has come towards its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Stage {
    Open,
    /// The client was told that the broker stops.
    Draining,
    /// Nothing more is read.
    Ending,
}

impl Stream {
    fn new(broker: &Arc<Broker>, call: Call, answers: mpsc::Sender<Result<ProduceStreamResponse, Status>>) -> Self {
        Self {
            rpc: broker.metrics.rpc(Rpc::ProduceStream).clone(),
            broker: Arc::clone(broker),
            lanes: Lanes::new(&call.connection.requests),
            call,
            acks: Acks::All,
            sticky: Sticky { random: broker.context.random_u64(), bytes: 0 },
            pending: FuturesUnordered::new(),
            in_flight: 0,
            answers,
        }
    }

    /// An error ends the stream; what is in line is appended nevertheless.
    async fn run(mut self, mut inbound: Streaming<ProduceStreamRequest>) -> Result<(), Status> {
        self.open(inbound.message().await?).await?;
        let drain = self.call.connection.drain.clone();
        let mut stage = Stage::Open;
        let mut waiting = None;
        loop {
            if let Some((frame, charge)) = waiting.take_if(|(_, charge)| self.has_room(charge)) {
                self.take(frame, charge).await?;
            }
            if stage == Stage::Ending && self.pending.is_empty() && waiting.is_none() {
                let stopped = drain.closing.is_cancelled();
                return if stopped { Err(status(&stopping())) } else { Ok(()) };
            }
            tokio::select! {
                biased;
                () = self.answers.closed() => return Ok(()),
                Some(done) = self.pending.next(), if !self.pending.is_empty() => self.answer(done).await,
                frame = inbound.message(), if waiting.is_none() && stage < Stage::Ending => match frame? {
                    None => stage = Stage::Ending,
                    Some(frame) => waiting = Some(self.receive(frame)?),
                },
                () = drain.announced.cancelled(), if stage == Stage::Open => {
                    stage = Stage::Draining;
                    self.send(response::Frame::Drain(v1::Drain { reason: "the broker is about to stop".to_owned() })).await;
                }
                () = drain.closing.cancelled(), if stage == Stage::Draining => stage = Stage::Ending,
                () = self.call.overdue() => return Err(Status::deadline_exceeded("the stream's deadline passed")),
            }
        }
    }

    async fn open(&mut self, first: Option<ProduceStreamRequest>) -> Result<(), Status> {
        let Some(request::Frame::Open(open)) = first.and_then(|first| first.frame) else {
            return Err(self.refused(&invalid("frame", "the first frame must be `open`").into()));
        };
        check_client_id(&open.client_id).map_err(|refused| self.refused(&refused))?;
        self.acks = acks(open.acks, Acks::All).map_err(|refused| self.refused(&refused))?;
        let most = MAX_IN_FLIGHT_BYTES.min(self.call.connection.requests.budget() / 4);
        self.send(response::Frame::Opened(v1::ProduceOpened { max_in_flight_bytes: most as u64 })).await;
        Ok(())
    }

    fn refused(&self, refused: &Refused) -> Status {
        refuse(&self.broker.metrics, &refused.0)
    }

    /// Whoever does not listen any more is noticed by the loop.
    async fn send(&mut self, frame: response::Frame) {
        let _ = self.answers.send(Ok(ProduceStreamResponse { frame: Some(frame) })).await;
    }

    /// A frame with the charge for what it holds.
    fn receive(&self, frame: ProduceStreamRequest) -> Result<(request::Frame, Charge), Status> {
        let Some(frame) = frame.frame else {
            let fault = "it is empty, or of a kind that this broker does not know";
            return Err(self.refused(&invalid("frame", fault).into()));
        };
        let charge = self.call.hold(size(&frame));
        Ok((frame, charge))
    }

    /// Whether a frame may be put in line beside what is in flight. One always may alone.
    fn has_room(&self, charge: &Charge) -> bool {
        self.in_flight == 0 || self.in_flight + charge.bytes() <= MAX_IN_FLIGHT_BYTES
    }

    /// Puts what a frame holds in line.
    async fn take(&mut self, frame: request::Frame, mut charge: Charge) -> Result<(), Status> {
        let began = Instant::now();
        match frame {
            request::Frame::Open(_) => Err(self.refused(&invalid("frame", "the stream is open already").into())),
            request::Frame::Batches(batches) => {
                for batch in batches.batches {
                    let part = charge.split(batch.batch.len());
                    self.take_batch(batch, part, began).await?;
                }
                Ok(())
            }
            request::Frame::Records(records) => self.take_records(records, charge, began).await,
            request::Frame::Resume(resume) => {
                self.lanes.resume(&resume.topic, resume.partition);
                Ok(())
            }
        }
    }

    async fn take_batch(&mut self, batch: v1::PartitionBatch, charge: Charge, began: Instant) -> Result<(), Status> {
        self.rpc.requests.inc();
        let (id, topic, partition) = (batch.correlation_id, batch.topic.clone(), batch.partition);
        let wanted = acks(batch.acks, self.acks);
        let silent = matches!(wanted, Ok(Acks::None));
        let placed = match wanted {
            Ok(wanted) => self.place(batch, wanted, charge, began).await,
            Err(refused) => Err(refused),
        };
        if let Err(refused) = placed {
            // Who wants no answers cannot know that a partition must be resumed: no order is kept for them.
            if !silent {
                self.lanes.refuse(&topic, partition).map_err(|error| self.refused(&error))?;
            }
            self.refuse_batch(id, silent, refused, began);
        }
        Ok(())
    }

    /// Checks a batch and hands it to its partition.
    async fn place(
        &mut self,
        batch: v1::PartitionBatch,
        acks: Acks,
        mut charge: Charge,
        began: Instant,
    ) -> Result<(), Refused> {
        let v1::PartitionBatch { correlation_id, topic, partition, batch, leader_epoch, .. } = batch;
        self.call.authorize_topic(Verb::Produce, &topic)?;
        let order = if acks == Acks::None { None } else { Some(self.lanes.order(&topic, partition)?) };
        let (partition, settings) = {
            let image = self.broker.topics.image();
            let topic = image.topic(&topic)?;
            self.call.check_direct(&self.broker, topic, partition, leader_epoch)?;
            (topic.partition(partition)?.clone(), Arc::clone(&topic.settings))
        };
        let numbers = self.lanes.numbers(&topic, &self.broker.metrics);
        let walked = check(&batch, limits(&settings, self.broker.context.wall_millis())).await?;
        let (bytes, header) = (batch.len(), walked.header);
        let permit = charge.take_permit();
        let max_timestamp = walked.max_timestamp;
        let pending =
            partition.append(AppendRequest { batch, header, max_timestamp, acks, leader_epoch, permit, order });
        self.in_flight += bytes;
        self.pending.push(Box::pin(async move {
            let outcome = match pending.await {
                Ok(done) => {
                    count_appended(&numbers, &done, bytes, header.record_count as usize);
                    produce_ack::Outcome::Appended(appended(done))
                }
                Err(error) => produce_ack::Outcome::Error(*Refused::from(error).0),
            };
            drop(charge);
            let ack = ProduceAck { correlation_id, outcome: Some(outcome) };
            Done { ack: (acks != Acks::None).then_some(ack), began, bytes }
        }));
        Ok(())
    }

    /// Answers in turn with what is in flight.
    fn refuse_batch(&mut self, correlation_id: u64, silent: bool, refused: Refused, began: Instant) {
        if silent {
            return count(&self.broker.metrics, &refused.0);
        }
        let ack = ProduceAck { correlation_id, outcome: Some(produce_ack::Outcome::Error(*refused.0)) };
        self.pending.push(ready(Done { ack: Some(ack), began, bytes: 0 }).boxed());
    }

    async fn take_records(
        &mut self,
        records: v1::ProduceRecords,
        charge: Charge,
        began: Instant,
    ) -> Result<(), Status> {
        self.rpc.requests.inc();
        let id = records.correlation_id;
        let request = records.request.unwrap_or_default();
        let plan = match self.call.authorize_topic(Verb::Produce, &request.topic) {
            Ok(()) => {
                let name = request.topic.clone();
                Plan::of(request, self.acks).map(|plan| (name, plan))
            }
            Err(refused) => Err(refused),
        };
        let (silent, placed) = match plan {
            Ok((name, plan)) => (plan.acks == Acks::None, self.place_records(id, &name, plan, charge, began).await),
            Err(refused) => (false, Err(refused)),
        };
        if let Err(refused) = placed {
            self.refuse_batch(id, silent, refused, began);
        }
        Ok(())
    }

    async fn place_records(
        &mut self,
        correlation_id: u64,
        name: &str,
        plan: Plan,
        mut charge: Charge,
        began: Instant,
    ) -> Result<(), Refused> {
        let topic = Arc::clone(self.broker.topics.image().topic(name)?);
        let (silent, bytes) = (plan.acks == Acks::None, charge.bytes());
        self.sticky.bytes += plan.size();
        if self.sticky.bytes > STICKY_BYTES {
            self.sticky = Sticky { random: self.broker.context.random_u64(), bytes: 0 };
        }
        let sticky = (self.sticky.random % topic.partitions.len().max(1) as u64) as i32;
        let (lanes, call) = (&mut self.lanes, self.call.clone());
        let order = |partition| if silent { Ok(None) } else { lanes.order(name, partition).map(Some) };
        let placed = append(&self.broker, &topic, plan, || sticky, &mut charge, order).await?;
        for refused in placed.iter().filter(|placed| !silent && placed.is_refused()) {
            self.lanes.refuse(name, refused.partition())?;
        }
        self.in_flight += bytes;
        self.pending.push(Box::pin(async move {
            let results = join_all(placed.into_iter().map(|placed| placed.answer(&call))).await;
            let outcome = Some(produce_ack::Outcome::Response(v1::ProduceResponse { results }));
            Done { ack: (!silent).then_some(ProduceAck { correlation_id, outcome }), began, bytes }
        }));
        Ok(())
    }

    /// Sends an answer, with all others that are ready.
    async fn answer(&mut self, first: Done) {
        let mut acks = Vec::new();
        let mut next = Some(first);
        while let Some(Done { ack, began, bytes }) = next {
            self.in_flight -= bytes;
            self.rpc.latency.observe(began.elapsed());
            if let Some(ack) = ack {
                count_refusals(&self.broker.metrics, &ack);
                acks.push(ack);
            }
            let more = acks.len() < MAX_GATHERED;
            next = if more { self.pending.next().now_or_never().flatten() } else { None };
        }
        if !acks.is_empty() {
            self.send(response::Frame::Acks(v1::ProduceAcks { acks })).await;
        }
    }
}

fn count_refusals(metrics: &crate::metrics::Metrics, ack: &ProduceAck) {
    if let Some(produce_ack::Outcome::Error(error)) = &ack.outcome {
        count(metrics, error);
    }
}

fn stopping() -> v1::LogError {
    refusal(Reason::Unavailable, "the broker is stopping: connect again")
}

/// Bytes that a frame holds in memory until its batches are answered.
fn size(frame: &request::Frame) -> usize {
    match frame {
        request::Frame::Batches(batches) => batches.batches.iter().map(|batch| batch.batch.len()).sum(),
        request::Frame::Records(records) => records.request.as_ref().map_or(0, |request| held(&request.records)),
        request::Frame::Open(_) | request::Frame::Resume(_) => 0,
    }
}
