//! Batches from another broker: appended in order per partition, answered as their fates are known.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::future::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use taffrail_proto::internal::v1::append_answer::Outcome;
use taffrail_proto::internal::v1::{AppendAnswer, AppendBatch, AppendRequest, AppendResponse};
use taffrail_proto::record::BatchHeader;
use taffrail_proto::v1::Reason;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::led;
use crate::memory::Charge;
use crate::partition::{AppendRequest as Append, Order, PendingAppend};
use crate::peers::wire;
use crate::service::Broker;
use crate::service::call::Call;
use crate::service::producer::appended;
use crate::service::status::{Refused, refusal, status};

/// Bytes of a stream's batches that are not answered yet; nothing more is read meanwhile.
const MAX_IN_FLIGHT_BYTES: usize = 64 << 20;
/// Answers in one message.
const MAX_GATHERED: usize = 1_000;
/// Messages with answers that wait to be sent.
const ANSWERS_AHEAD: usize = 8;

type Answers = ReceiverStream<Result<AppendResponse, Status>>;

/// What was in flight and is not any more.
struct Done {
    answer: AppendAnswer,
    order: u64,
    bytes: usize,
}

pub(super) fn begin(broker: Arc<Broker>, call: Call, inbound: Streaming<AppendRequest>) -> Answers {
    let (answers, outbound) = mpsc::channel(ANSWERS_AHEAD);
    tokio::spawn(async move {
        let mut stream =
            Stream { broker, call, orders: Orders::default(), pending: FuturesUnordered::new(), in_flight: 0 };
        if let Err(status) = stream.run(inbound, &answers).await {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(outbound)
}

struct Stream {
    broker: Arc<Broker>,
    call: Call,
    orders: Orders,
    pending: FuturesUnordered<BoxFuture<'static, Done>>,
    in_flight: usize,
}

impl Stream {
    async fn run(
        &mut self,
        mut inbound: Streaming<AppendRequest>,
        answers: &mpsc::Sender<Result<AppendResponse, Status>>,
    ) -> Result<(), Status> {
        let closing = self.call.connection.drain.closing.clone();
        loop {
            tokio::select! {
                biased;
                () = answers.closed() => return Ok(()),
                Some(done) = self.pending.next(), if !self.pending.is_empty() => {
                    let answer = self.gather(done);
                    let _ = answers.send(Ok(answer)).await;
                }
                request = inbound.message(), if self.in_flight < MAX_IN_FLIGHT_BYTES => match request? {
                    Some(request) => self.take(request),
                    None => return Ok(()),
                },
                () = closing.cancelled(), if self.pending.is_empty() => {
                    return Err(status(&refusal(Reason::Unavailable, "the broker is stopping")));
                }
            }
        }
    }

    fn take(&mut self, request: AppendRequest) {
        for order in request.forgotten_orders {
            self.orders.forget(order);
        }
        for batch in request.batches {
            let (correlation_id, number, bytes) = (batch.correlation_id, batch.order, batch.batch.len());
            let charge = self.call.hold(bytes);
            let order = self.orders.begin(number);
            let placed = self.place(batch, order.clone(), charge);
            if let (Err(_), Some(order)) = (&placed, &order) {
                order.end();
            }
            self.in_flight += bytes;
            self.pending.push(Box::pin(async move {
                let outcome = match placed {
                    Ok((pending, _charge)) => match pending.await {
                        Ok(done) => Outcome::Appended(appended(done)),
                        Err(error) => Outcome::Error(*Refused::from(error).0),
                    },
                    Err(refused) => Outcome::Error(*refused.0),
                };
                Done { answer: AppendAnswer { correlation_id, outcome: Some(outcome) }, order: number, bytes }
            }));
        }
    }

    /// The asking broker has walked the batch.
    fn place(
        &self,
        batch: AppendBatch,
        order: Option<Order>,
        mut charge: Charge,
    ) -> Result<(PendingAppend, Charge), Refused> {
        let (partition, leader_epoch) = led(&self.broker.topics, batch.partition)?;
        let header = BatchHeader::parse(&batch.batch)?;
        let permit = charge.take_permit();
        let append = Append {
            batch: batch.batch,
            header,
            max_timestamp: batch.max_timestamp,
            acks: wire::acks(batch.acks),
            leader_epoch: Some(leader_epoch),
            permit,
            order,
        };
        Ok((partition.append(append), charge))
    }

    /// An answer, with all others that are ready.
    fn gather(&mut self, first: Done) -> AppendResponse {
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(Done { answer, order, bytes }) = next {
            self.in_flight -= bytes;
            self.orders.end(order);
            answers.push(answer);
            let more = answers.len() < MAX_GATHERED;
            next = if more { self.pending.next().now_or_never().flatten() } else { None };
        }
        AppendResponse { answers }
    }
}

/// Orders by the sender's numbers: while batches of theirs are in flight, and those that ended until they are forgotten.
#[derive(Default)]
struct Orders(HashMap<u64, (Order, usize)>);

impl Orders {
    fn begin(&mut self, number: u64) -> Option<Order> {
        if number == 0 {
            return None;
        }
        let (order, in_flight) = self.0.entry(number).or_default();
        *in_flight += 1;
        Some(order.clone())
    }

    fn end(&mut self, number: u64) {
        if let Some((order, in_flight)) = self.0.get_mut(&number) {
            *in_flight -= 1;
            if *in_flight == 0 && !order.has_ended() {
                self.0.remove(&number);
            }
        }
    }

    fn forget(&mut self, number: u64) {
        self.0.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_an_order_that_ended_stays_so_until_it_is_forgotten() {
        let mut orders = Orders::default();
        orders.begin(1).unwrap().end();
        orders.end(1);
        assert!(orders.begin(1).unwrap().has_ended());
        orders.end(1);
        orders.forget(1);
        assert!(!orders.begin(1).unwrap().has_ended());
        orders.end(1);
        assert!(orders.0.is_empty(), "what did not end is not kept");
        assert!(orders.begin(0).is_none());
    }
}
