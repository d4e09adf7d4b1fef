//! FetchStream: raw batches of many partitions, pushed within a credit of bytes.
//!
//! One task per stream. It reads ahead: while one answer is being sent the next ones are read, of several partitions at a
//! time, so that a scan of cold data keeps the disk busy. What is read but not sent is charged to the connection and
//! bounded by the credit.

mod subscriptions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use taffrail_proto::v1::{self, FetchStreamRequest, FetchStreamResponse, PartitionData, Reason};
use taffrail_proto::v1::{fetch_stream_request as request, fetch_stream_response as response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::subscriptions::{Subscription, Subscriptions};
use super::Broker;
use super::call::{Call, check_client_id, count, refuse};
use super::consumer::check_wait;
use super::credit::Credit;
use super::fetch::{Reader, Room, count_fetched, failed, isolation, room, settle, total};
use super::status::{Refused, invalid, refusal, status};
use crate::memory::Charge;
use crate::metrics::{Rpc, RpcMetrics};
use crate::partition::{FetchError, Isolation, ReadData, Waiter};

/// Bytes of one partition read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Partitions read at the same time.
const READS_AHEAD: usize = 4;
/// Answers that wait to be sent.
const ANSWERS_AHEAD: usize = 1;
/// About what a partition on a stream takes, so that adding many is paid for.
const SUBSCRIPTION_BYTES: usize = 512;

type Answers = ReceiverStream<Result<FetchStreamResponse, Status>>;

/// A read that has ended.
struct Read {
    token: u64,
    began: Instant,
    /// Credit that was set aside for it.
    reserved: usize,
    charge: Charge,
    result: Result<ReadData, FetchError>,
}

/// Starts a stream's task.
pub(super) fn begin(broker: Arc<Broker>, call: Call, inbound: Streaming<FetchStreamRequest>) -> Answers {
    let (answers, outbound) = mpsc::channel(ANSWERS_AHEAD);
    tokio::spawn(async move {
        let rpc = broker.metrics.rpc(Rpc::FetchStream).clone();
        let _open = rpc.stream();
        let stream = Stream {
            broker: &broker,
            call: &call,
            rpc,
            isolation: Isolation::default(),
            min_bytes: 0,
            max_wait: Duration::ZERO,
            credit: Credit::new(0),
            subscriptions: Subscriptions::default(),
            waiter: Waiter::new(),
            reads: FuturesUnordered::new(),
            answers: answers.clone(),
        };
        if let Err(status) = stream.run(inbound).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(outbound)
}

struct Stream<'a> {
    broker: &'a Arc<Broker>,
    call: &'a Call,
    rpc: RpcMetrics,
    isolation: Isolation,
    min_bytes: usize,
    max_wait: Duration,
    credit: Credit,
    subscriptions: Subscriptions,
    waiter: Arc<Waiter>,
    reads: FuturesUnordered<BoxFuture<'a, Read>>,
    answers: mpsc::Sender<Result<FetchStreamResponse, Status>>,
}

impl Stream<'_> {
    async fn run(mut self, mut inbound: Streaming<FetchStreamRequest>) -> Result<(), Status> {
        self.open(inbound.message().await?)?;
        let drain = self.call.connection.drain.clone();
        let mut told = false;
        loop {
            self.read_ahead();
            let waiter = Arc::clone(&self.waiter);
            let due = OptionFuture::from(self.subscriptions.next_due().map(tokio::time::sleep_until));
            // In this order, so that what is shared by all streams is looked at only when this one has nothing to do.
            tokio::select! {
                biased;
                () = self.answers.closed() => return Ok(()),
                frame = inbound.message() => match frame? {
                    Some(frame) => self.take(frame).await?,
                    None => return Ok(()),
                },
                Some(read) = self.reads.next(), if !self.reads.is_empty() => self.deliver(read).await,
                tokens = waiter.ready() => tokens.into_iter().for_each(|token| self.subscriptions.wake(token)),
                Some(()) = due => self.subscriptions.wake_due(tokio::time::Instant::now()),
                () = drain.announced.cancelled(), if !told => {
                    told = true;
                    let reason = "the broker is about to stop".to_owned();
                    self.send(response::Frame::Drain(v1::Drain { reason })).await;
                }
                () = drain.closing.cancelled() => {
                    return Err(status(&refusal(Reason::Unavailable, "the broker is stopping: connect again")));
                }
                () = self.call.overdue() => return Err(Status::deadline_exceeded("the stream's deadline passed")),
            }
        }
    }

    fn refused(&self, refused: &Refused) -> Status {
        refuse(&self.broker.metrics, &refused.0)
    }

    fn open(&mut self, first: Option<FetchStreamRequest>) -> Result<(), Status> {
        let Some(request::Frame::Open(open)) = first.and_then(|first| first.frame) else {
            return Err(self.refused(&invalid("frame", "the first frame must be `open`").into()));
        };
        check_client_id(&open.client_id).map_err(|refused| self.refused(&refused))?;
        check_wait("open.max_wait_ms", open.max_wait_ms).map_err(|refused| self.refused(&refused))?;
        self.isolation = isolation(open.isolation).map_err(|refused| self.refused(&refused))?;
        self.min_bytes = (open.min_bytes as usize).min(CHUNK_BYTES);
        self.max_wait = Duration::from_millis(u64::from(open.max_wait_ms));
        self.credit = Credit::new(open.credit_bytes);
        Ok(())
    }

    async fn take(&mut self, frame: FetchStreamRequest) -> Result<(), Status> {
        match frame.frame {
            Some(request::Frame::Add(add)) => self.add(add).await,
            Some(request::Frame::Remove(remove)) => {
                self.subscriptions.remove(&remove.topic, remove.partition);
                Ok(())
            }
            Some(request::Frame::Credit(credit)) => {
                self.credit.add(credit.bytes);
                Ok(())
            }
            Some(request::Frame::Open(_)) => Err(self.refused(&invalid("frame", "the stream is open already").into())),
            None => {
                let fault = "it is empty, or of a kind that this broker does not know";
                Err(self.refused(&invalid("frame", fault).into()))
            }
        }
    }

    /// A partition that cannot be read is answered and not added; the stream goes on.
    async fn add(&mut self, add: v1::FetchAdd) -> Result<(), Status> {
        let Some(wanted) = add.partition else {
            return Err(self.refused(&invalid("add.partition", "is missing").into()));
        };
        let Some(charge) = self.call.connection.requests.try_charge(SUBSCRIPTION_BYTES) else {
            let fault = "too many partitions are on this connection's streams: use several connections";
            return Err(self.refused(&refusal(Reason::QuotaExceeded, fault).into()));
        };
        match Reader::find(self.broker, self.call, &wanted, self.isolation) {
            Ok(reader) => self.subscriptions.add(Subscription {
                numbers: Arc::new(self.broker.metrics.topic(&reader.topic)),
                reader,
                number: add.subscription,
                told: false,
                due: None,
                _charge: charge,
            }),
            Err(refused) => {
                self.subscriptions.remove(&wanted.topic, wanted.partition);
                count(&self.broker.metrics, &refused.0);
                let topic = wanted.topic.get(..249).unwrap_or(&wanted.topic);
                let data = failed(topic, wanted.partition, *refused.0);
                self.send_data(PartitionData { subscription: add.subscription, ..data }).await;
            }
        }
        Ok(())
    }

    /// Begins reads while there is credit and something to look at.
    fn read_ahead(&mut self) {
        while self.reads.len() < READS_AHEAD && self.credit.left() > 0 {
            let Some(token) = self.subscriptions.next_ready() else { return };
            let Some(subscription) = self.subscriptions.get(token) else { continue };
            let (reader, call) = (subscription.reader.clone(), self.call);
            let reserved = self.credit.left().min(CHUNK_BYTES);
            self.credit.spend(reserved);
            self.reads.push(Box::pin(async move {
                let Room { charge, bytes } = room(call, &reader, reserved).await;
                let began = Instant::now();
                let result = reader.read(bytes).await;
                Read { token, began, reserved, charge, result }
            }));
        }
    }

    /// Sends what was read, or waits for more.
    async fn deliver(&mut self, read: Read) {
        let Read { token, began, reserved, mut charge, result } = read;
        self.credit.add(reserved as u64);
        let Some(subscription) = self.subscriptions.get(token) else { return };
        let read = match result {
            Ok(read) => read,
            Err(error) => return self.fail(token, error).await,
        };
        let bytes = total(&read.batches);
        let end = read.snapshot.visible_end(subscription.reader.isolation);
        let now = tokio::time::Instant::now();
        let is_due = subscription.due.is_some_and(|due| due <= now);
        if bytes > 0 && bytes < self.min_bytes && !is_due {
            self.subscriptions.hold(token, now, self.max_wait);
            return self.await_more(token, end);
        }
        if bytes == 0 && subscription.told {
            return self.await_more(token, end);
        }
        subscription.told = true;
        subscription.due = None;
        let data = PartitionData { subscription: subscription.number, ..subscription.reader.data(read) };
        subscription.reader.advance(&data.batches);
        count_fetched(&subscription.numbers, &data.batches);
        if subscription.reader.offset < end {
            self.subscriptions.wake(token);
        } else {
            self.await_more(token, end);
        }
        self.credit.spend(bytes);
        self.rpc.requests.inc();
        self.rpc.latency.observe(began.elapsed());
        settle(self.call, &mut charge, bytes);
        self.send_charged(data, charge).await;
    }

    /// Has the partition looked at again when there is something at or above `end`.
    fn await_more(&mut self, token: u64, end: i64) {
        let Some(subscription) = self.subscriptions.get(token) else { return };
        let reader = &subscription.reader;
        if !reader.partition.arm(end, reader.isolation, &self.waiter, token) {
            self.subscriptions.wake(token);
        }
    }

    /// Tells the client why a partition is not read any more.
    async fn fail(&mut self, token: u64, error: FetchError) {
        let Some(subscription) = self.subscriptions.drop_token(token) else { return };
        let error = subscription.reader.error(self.broker, error);
        count(&self.broker.metrics, &error);
        let data = failed(&subscription.reader.topic, subscription.reader.index, error);
        self.send_data(PartitionData { subscription: subscription.number, ..data }).await;
    }

    async fn send_data(&mut self, data: PartitionData) {
        self.send(response::Frame::Data(data)).await;
    }

    /// The charge goes with the answer when that is about to be encoded.
    async fn send_charged(&mut self, data: PartitionData, charge: Charge) {
        if let Ok(place) = self.answers.reserve().await {
            self.call.outbox.put(charge);
            place.send(Ok(FetchStreamResponse { frame: Some(response::Frame::Data(data)) }));
        }
    }

    /// Whoever does not listen any more is noticed by the loop.
    async fn send(&mut self, frame: response::Frame) {
        let _ = self.answers.send(Ok(FetchStreamResponse { frame: Some(frame) })).await;
    }
}
