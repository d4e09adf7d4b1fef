//! Batches on their way to another broker: one stream, on which they keep their order.
//!
//! An answer resolves what it answers. When the stream breaks, the fate of what was sent is unknown, and what was not is
//! refused; so are later batches of the same [`Order`]s, here and at the leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use taffrail_proto::internal::v1::append_answer::Outcome;
use taffrail_proto::internal::v1::{AppendAnswer, AppendBatch, AppendRequest, AppendResponse, PartitionRef};
use taffrail_proto::v1::{LogError, Reason};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connection::{Connector, Purpose};
use super::wire;
use crate::partition::{Acks, AppendError, Appended, Order};
use crate::service::status::{refusal, unknown_outcome};

/// Batches in one message.
const BATCHES_AT_ONCE: usize = 64;
/// Bytes of batches after which a message is sent.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that wait to be sent.
const MESSAGES_AHEAD: usize = 2;

/// A batch to be appended by the broker.
pub(crate) struct Outgoing {
    pub(crate) partition: PartitionRef,
    pub(crate) batch: Bytes,
    pub(crate) max_timestamp: i64,
    pub(crate) acks: Acks,
    pub(crate) order: Option<Order>,
    /// What it was admitted with, given back when its fate is known.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The line to a broker.
pub(crate) struct Appends {
    queue: mpsc::UnboundedSender<Waiting>,
    in_flight: Arc<AtomicUsize>,
    most: usize,
    broker: i32,
}

/// A batch that is not answered, and what it takes of the bound.
struct Waiting {
    outgoing: Outgoing,
    _taken: Taken,
}

struct Taken {
    in_flight: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Appends {
    /// Puts a batch in line, or refuses it when as much is in flight as may be.
    pub(crate) fn put(&self, outgoing: Outgoing) {
        let bytes = outgoing.batch.len();
        let before = self.in_flight.fetch_add(bytes, Ordering::Relaxed);
        let taken = Taken { in_flight: self.in_flight.clone(), bytes };
        if before > 0 && before + bytes > self.most {
            let broker = self.broker;
            let message = format_args!("broker {broker}, which leads this, is behind with {before} bytes: slow down");
            return outgoing.refuse(refusal(Reason::QuotaExceeded, message));
        }
        if let Err(mpsc::error::SendError(waiting)) = self.queue.send(Waiting { outgoing, _taken: taken }) {
            waiting.outgoing.refuse(refusal(Reason::Unavailable, "the broker is stopping: connect again"));
        }
    }
}

impl Outgoing {
    fn refuse(self, error: LogError) {
        self.answer(Err(AppendError::Leader(Box::new(error))));
    }

    fn answer(self, result: Result<Appended, AppendError>) {
        answer(self.order.as_ref(), self.reply, result);
    }
}

/// Who asked may have gone away; the order ends nevertheless.
fn answer(
    order: Option<&Order>,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
    result: Result<Appended, AppendError>,
) {
    if let (Some(order), Err(_)) = (order, &result) {
        order.end();
    }
    let _ = reply.send(result);
}

pub(super) fn start(connector: Arc<Connector>, most: usize) -> Appends {
    let (queue, waiting) = mpsc::unbounded_channel();
    let broker = connector.broker();
    tokio::spawn(run(connector, waiting));
    Appends { queue, in_flight: Arc::default(), most, broker }
}

async fn run(connector: Arc<Connector>, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    let mut first = Vec::new();
    while queue.recv_many(&mut first, BATCHES_AT_ONCE).await > 0 {
        let mut stream = Stream::default();
        let moved = connector.moved();
        let ended = tokio::select! {
            biased;
            ended = stream.run(&connector, &mut queue, &mut first) => ended,
            () = moved => Err(connector.refused("was restarted")),
        };
        let Err(error) = ended else { return };
        for waiting in first.drain(..) {
            waiting.outgoing.refuse(error.clone());
        }
        stream.fail(&connector, &error);
    }
}

/// What is in flight on one stream.
#[derive(Default)]
struct Stream {
    last_id: u64,
    sent: HashMap<u64, Sent>,
    /// By what stands for an order on the wire: while one is here its address is its own.
    orders: HashMap<u64, Turn>,
    /// Orders that were ended, and of which nothing is in flight any more.
    forgotten: Vec<u64>,
}

struct Sent {
    order: Option<Order>,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
    _held: (Option<OwnedSemaphorePermit>, Taken),
}

#[derive(Default)]
struct Turn {
    in_flight: usize,
    refused: bool,
}

impl Stream {
    /// Until the line is closed, or the stream breaks: then with the reason why `first` and what comes next is refused.
    async fn run(
        &mut self,
        connector: &Connector,
        queue: &mut mpsc::UnboundedReceiver<Waiting>,
        first: &mut Vec<Waiting>,
    ) -> Result<(), LogError> {
        let mut client = connector.client(Purpose::Data).map_err(|refused| *refused.0)?;
        let (messages, outbound) = mpsc::channel(MESSAGES_AHEAD);
        let answers = client.append(ReceiverStream::new(outbound)).await;
        let mut answers: Streaming<AppendResponse> = answers.map_err(|status| connector.failed(&status))?.into_inner();
        connector.reached();
        let broken = || connector.refused("broke the connection off");
        let mut next = None;
        loop {
            while next.is_none() && !first.is_empty() {
                next = Some(self.message(first)).filter(|message| !message.batches.is_empty());
            }
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        answer.answers.into_iter().for_each(|answer| self.settle(answer));
                    }
                    Ok(None) | Err(_) => return Err(broken()),
                },
                place = messages.reserve(), if next.is_some() => {
                    let (Ok(place), Some(message)) = (place, next.take()) else { return Err(broken()) };
                    place.send(message);
                }
                count = queue.recv_many(first, BATCHES_AT_ONCE), if next.is_none() => if count == 0 {
                    return Ok(());
                },
            }
        }
    }

    /// The next batches in line, as far as their order holds.
    fn message(&mut self, line: &mut Vec<Waiting>) -> AppendRequest {
        let mut request = AppendRequest::default();
        let mut bytes = 0;
        let taken = line
            .iter()
            .position(|waiting| {
                bytes += waiting.outgoing.batch.len();
                bytes > MESSAGE_BYTES
            })
            .map_or(line.len(), |over| over.max(1));
        for waiting in line.drain(..taken) {
            let ended = waiting.outgoing.order.as_ref().is_some_and(Order::has_ended);
            if ended {
                waiting.outgoing.answer(Err(AppendError::PrecedingRefused));
            } else {
                request.batches.push(self.send(waiting));
            }
        }
        if !request.batches.is_empty() {
            request.forgotten_orders = std::mem::take(&mut self.forgotten);
        }
        request
    }

    fn send(&mut self, waiting: Waiting) -> AppendBatch {
        let Waiting { outgoing, _taken: taken } = waiting;
        let Outgoing { partition, batch, max_timestamp, acks, order, permit, reply } = outgoing;
        self.last_id += 1;
        let number = order.as_ref().map_or(0, Order::number);
        if number != 0 {
            self.orders.entry(number).or_default().in_flight += 1;
        }
        self.sent.insert(self.last_id, Sent { order, reply, _held: (permit, taken) });
        AppendBatch {
            correlation_id: self.last_id,
            partition: Some(partition),
            batch,
            max_timestamp,
            acks: wire::sent_acks(acks).into(),
            order: number,
        }
    }

    fn settle(&mut self, answered: AppendAnswer) {
        let Some(Sent { order, reply, .. }) = self.sent.remove(&answered.correlation_id) else { return };
        let result = match answered.outcome {
            Some(Outcome::Appended(appended)) => Ok(wire::appended(&appended)),
            Some(Outcome::Error(error)) if error.reason() == Reason::PrecedingFailed => {
                Err(AppendError::PrecedingRefused)
            }
            Some(Outcome::Error(error)) => Err(AppendError::Leader(Box::new(error))),
            None => Err(AppendError::ClosedInFlight),
        };
        if let Some(order) = &order {
            self.note(order.number(), result.is_err());
        }
        answer(order.as_ref(), reply, result);
    }

    fn note(&mut self, number: u64, refused: bool) {
        let Some(turn) = self.orders.get_mut(&number) else { return };
        turn.in_flight -= 1;
        turn.refused |= refused;
        if turn.in_flight > 0 {
            return;
        }
        if turn.refused {
            self.forgotten.push(number);
        }
        self.orders.remove(&number);
    }

    /// The stream broke: whether what was sent is there shows when it is sent again.
    fn fail(self, connector: &Connector, error: &LogError) {
        let unknown = unknown_outcome(error.reason(), format_args!("{}; the outcome is unknown", error.message));
        for (_, Sent { order, reply, .. }) in self.sent {
            answer(order.as_ref(), reply, Err(AppendError::Leader(Box::new(unknown.clone()))));
        }
        tracing::debug!(broker = connector.broker(), error = error.message, "the stream of batches ended");
    }
}
