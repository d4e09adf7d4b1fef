//! What followers ask of the partitions that this broker leads: the service `Replicas` of the internal listener.
//!
//! One task for each follower's stream. A demand whose data is there is read at once, several at a time, and what is ready
//! goes out in one message; the others wait at their partitions. What a follower says to have written counts from when its
//! history was found to match.

mod followed;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use taffrail_crds::slice::Replica;
use taffrail_proto::internal::v1::replicas_server::Replicas;
use taffrail_proto::internal::v1::{FetchPosition, FetchRequest, FetchResponse, FetchedPart, PartitionRef};
use taffrail_proto::v1::{LogError, Reason};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::followed::{AllFollowed, Demand, Found, find};
use super::Broker;
use super::call::{Call, count};
use super::fetch::{Room, room_at, settle, total};
use super::partitions::served;
use super::status::{IntoLogError as _, invalid, refusal, status};
use crate::memory::Charge;
use crate::partition::{Isolation, Waiter};

/// Partitions that are read at the same time.
const READS_AHEAD: usize = 8;
/// Bytes that are gathered for a message.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that wait to be sent.
const MESSAGES_AHEAD: usize = 1;
/// How often a follower is told of ends that have moved while it got no data.
const NEWS: Duration = Duration::from_millis(500);

type Answers = ReceiverStream<Result<FetchResponse, Status>>;

/// The service.
pub(super) struct Service {
    broker: Arc<Broker>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker) }
    }
}

#[tonic::async_trait]
impl Replicas for Service {
    type FetchStream = Answers;

    async fn fetch(&self, request: Request<Streaming<FetchRequest>>) -> Result<Response<Answers>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(begin(Arc::clone(&self.broker), call, request.into_inner())))
    }
}

/// Starts a stream's task.
fn begin(broker: Arc<Broker>, call: Call, inbound: Streaming<FetchRequest>) -> Answers {
    let (answers, outbound) = mpsc::channel(MESSAGES_AHEAD);
    tokio::spawn(async move {
        let stream = Stream {
            broker: &broker,
            call: &call,
            followed: AllFollowed::default(),
            waiter: Waiter::new(),
            reads: FuturesUnordered::new(),
            parts: Vec::new(),
            charges: Vec::new(),
            bytes: 0,
        };
        if let Err(status) = stream.run(inbound, &answers).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(outbound)
}

/// A read that has ended.
struct Read {
    token: u64,
    demand: Demand,
    charge: Charge,
    found: Found,
}

struct Stream<'a> {
    broker: &'a Arc<Broker>,
    call: &'a Call,
    followed: AllFollowed,
    waiter: Arc<Waiter>,
    reads: FuturesUnordered<BoxFuture<'a, Read>>,
    /// The next message, and the memory that it holds.
    parts: Vec<FetchedPart>,
    charges: Vec<Charge>,
    bytes: usize,
}

impl Stream<'_> {
    async fn run(
        mut self,
        mut inbound: Streaming<FetchRequest>,
        answers: &mpsc::Sender<Result<FetchResponse, Status>>,
    ) -> Result<(), Status> {
        let closing = self.call.connection.drain.closing.clone();
        let waiter = Arc::clone(&self.waiter);
        let mut news = tokio::time::interval(NEWS);
        news.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.read_ahead();
            tokio::select! {
                biased;
                () = answers.closed() => return Ok(()),
                Some(read) = self.reads.next(), if !self.reads.is_empty() => self.deliver(read),
                request = inbound.message() => match request? {
                    Some(request) => self.take(request),
                    None => return Ok(()),
                },
                place = answers.reserve(), if !self.parts.is_empty() => {
                    let Ok(place) = place else { return Ok(()) };
                    place.send(Ok(self.message()));
                }
                tokens = waiter.ready() => tokens.into_iter().for_each(|token| self.followed.wake(token)),
                _ = news.tick() => self.parts.extend(self.followed.news()),
                () = closing.cancelled() => {
                    return Err(status(&refusal(Reason::Unavailable, "the broker is stopping: ask who leads now")));
                }
            }
        }
    }

    fn take(&mut self, request: FetchRequest) {
        let by = Replica { broker: request.broker, incarnation: request.incarnation };
        let image = self.broker.brokers.image();
        // Whoever is not registered in that session cannot have been found in sync in it (M6).
        let registered = image.brokers.get(&by.broker).is_some_and(|known| known.incarnation == by.incarnation);
        for position in request.positions {
            if registered {
                self.place(by, position);
            } else {
                let message = format_args!(
                    "broker {} is not registered in session {} here, or not yet: try again",
                    by.broker, by.incarnation
                );
                self.refuse(position.partition, refusal(Reason::Unavailable, message));
            }
        }
    }

    fn place(&mut self, by: Replica, position: FetchPosition) {
        let Some(sent) = position.partition else {
            return self.refuse(None, invalid("partition", "is missing"));
        };
        if position.ends {
            return self.followed.forget(&sent);
        }
        match served(&self.broker.topics, Some(sent)) {
            Ok(partition) => self.followed.place(partition, sent, by, &position),
            Err(refused) => self.refuse(Some(sent), *refused.0),
        }
    }

    fn refuse(&mut self, partition: Option<PartitionRef>, error: LogError) {
        count(&self.broker.metrics, &error);
        if let Some(sent) = &partition {
            self.followed.forget(sent);
        }
        self.parts.push(FetchedPart { partition, error: Some(error), ..FetchedPart::default() });
    }

    /// Begins reads of what is worth a look, while the next message has room.
    fn read_ahead(&mut self) {
        while self.reads.len() < READS_AHEAD && self.bytes < MESSAGE_BYTES {
            let Some(token) = self.followed.next_ready() else { return };
            let Some(followed) = self.followed.get(token) else { continue };
            let Some(demand) = followed.demand else { continue };
            // At the end of the log, where nearly all demands are, nothing is read to find that out.
            if followed.matched && followed.partition.arm(demand.next, Isolation::LogEnd, &self.waiter, token) {
                continue;
            }
            followed.reading = true;
            let (partition, matched, call) = (followed.partition.clone(), followed.matched, self.call);
            let leader_epoch = followed.reference.leader_epoch;
            self.reads.push(Box::pin(async move {
                let Room { charge, bytes } = room_at(call, &partition, demand.max_bytes).await;
                let found = find(&partition, leader_epoch, demand, matched, bytes).await;
                Read { token, demand, charge, found }
            }));
        }
    }

    /// Answers a demand with what was read, or waits for more.
    fn deliver(&mut self, read: Read) {
        let Read { token, demand, charge, found } = read;
        let Some(followed) = self.followed.get(token) else { return };
        followed.reading = false;
        if followed.demand != Some(demand) {
            // A later one has taken its place.
            return self.followed.wake(token);
        }
        match found {
            Found::Batches(read) if read.batches.is_empty() => {
                followed.matches();
                if !followed.partition.arm(demand.next, Isolation::LogEnd, &self.waiter, token) {
                    self.followed.wake(token);
                }
            }
            Found::Batches(read) => {
                followed.matches();
                let part = followed.data(read, false);
                self.put(part, charge);
            }
            Found::Restart(read) => {
                let part = followed.data(read, true);
                self.put(part, charge);
            }
            Found::Parted(diverging) => {
                let part = followed.answer(FetchedPart { diverging: Some(diverging), ..FetchedPart::default() });
                self.parts.push(part);
            }
            Found::Failed(error) => {
                let reference = followed.reference;
                self.refuse(Some(reference), error.into_log_error());
            }
        }
    }

    fn put(&mut self, part: FetchedPart, mut charge: Charge) {
        let bytes = total(&part.batches);
        settle(self.call, &mut charge, bytes);
        self.broker.metrics.replication.sent_bytes.inc_by(bytes as u64);
        self.bytes += bytes;
        self.parts.push(part);
        self.charges.push(charge);
    }

    /// What is ready. The charges go with it when it is about to be encoded.
    fn message(&mut self) -> FetchResponse {
        self.bytes = 0;
        self.charges.drain(..).for_each(|charge| self.call.outbox.put(charge));
        FetchResponse { parts: std::mem::take(&mut self.parts) }
    }
}
