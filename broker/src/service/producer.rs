//! Produce, ProduceStream, InitProducer.

use std::sync::Arc;

use futures::future::join_all;
use prost::Message;
use taffrail_proto::record::BatchHeader;
use taffrail_proto::v1::{self, LogError, Outcome, ProduceResponse, ProduceResult, Reason, produce_result};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::batches::limits;
use super::call::{Call, finish, refuse};
use super::encoding::{Encoded, Plan, encode};
use super::status::{Refused, invalid, status_with, unknown_outcome};
use super::{Broker, call, produce_stream};
use crate::memory::Charge;
use crate::metrics::{Rpc, TopicMetrics};
use crate::partition::{Acks, AppendRequest, Appended, Order, PendingAppend};
use crate::security::Verb;
use crate::storage::Durability;
use crate::topics::Topic;

/// A status travels in HTTP/2 headers, whose size clients bound: a longer list of results is left out.
const MAX_DETAIL_BYTES: usize = 4 << 10;

/// The service `Producer`.
pub(super) struct Service {
    broker: Arc<Broker>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker) }
    }

    async fn produce_records(&self, call: &Call, request: v1::ProduceRequest) -> Result<Vec<ProduceResult>, Refused> {
        call.authorize_topic(Verb::Produce, &request.topic)?;
        let topic = Arc::clone(self.broker.topics.image().topic(&request.topic)?);
        let plan = Plan::of(request, Acks::All)?;
        let mut charge = call.hold(plan.size());
        let sticky = (self.broker.context.random_u64() % topic.partitions.len().max(1) as u64) as i32;
        let placed = append(&self.broker, &topic, plan, || sticky, &mut charge, |_| Ok(None)).await?;
        let answers = placed.into_iter().map(|placed| placed.answer(call));
        Ok(join_all(answers).await)
    }
}

/// Records of a request that go to one partition: on their way, or refused.
pub(super) struct Placed {
    partition: i32,
    indexes: Vec<u32>,
    pending: Result<PendingAppend, Refused>,
    numbers: Arc<TopicMetrics>,
    bytes: usize,
    /// Held until the answer.
    _charge: Charge,
}

/// Encodes and appends what a plan says. Each partition's part is on its way, or refused, on its own.
pub(super) async fn append(
    broker: &Broker,
    topic: &Arc<Topic>,
    plan: Plan,
    sticky: impl FnMut() -> i32,
    charge: &mut Charge,
    mut order: impl FnMut(i32) -> Result<Option<Order>, Refused>,
) -> Result<Vec<Placed>, Refused> {
    let shares = plan.split(topic, sticky)?;
    let (acks, now) = (plan.acks, broker.context.wall_millis());
    let numbers = Arc::new(broker.metrics.topic(&topic.name));
    let mut placed = Vec::with_capacity(shares.len());
    for Encoded { partition, indexes, batch } in encode(plan, shares, limits(&topic.settings, now), now).await {
        let bytes = batch.as_ref().map_or(0, |(batch, _)| batch.len());
        let mut part = charge.split(bytes);
        let place = |(batch, header): (bytes::Bytes, BatchHeader)| {
            let (order, permit) = (order(partition)?, part.take_permit());
            let max_timestamp = header.max_timestamp;
            let request = AppendRequest { batch, header, max_timestamp, acks, leader_epoch: None, permit, order };
            Ok(topic.partition(partition)?.append(request))
        };
        let pending = batch.and_then(place);
        placed.push(Placed { partition, indexes, pending, numbers: Arc::clone(&numbers), bytes, _charge: part });
    }
    Ok(placed)
}

impl Placed {
    /// Which partition.
    pub(super) fn partition(&self) -> i32 {
        self.partition
    }

    /// It never got to its partition.
    pub(super) fn is_refused(&self) -> bool {
        self.pending.is_err()
    }

    /// Waits for its fate, until the call's deadline.
    pub(super) async fn answer(self, call: &Call) -> ProduceResult {
        let outcome = match self.pending {
            Ok(pending) => tokio::select! {
                appended = pending => appended.map_err(Refused::from),
                () = call.overdue() => Err(Refused::of(overdue())),
            },
            Err(refused) => Err(refused),
        };
        let outcome = match outcome {
            Ok(appended) => {
                count_appended(&self.numbers, &appended, self.bytes, self.indexes.len());
                produce_result::Outcome::Appended(self::appended(appended))
            }
            Err(refused) => produce_result::Outcome::Error(*refused.0),
        };
        ProduceResult { partition: self.partition, record_indexes: self.indexes, outcome: Some(outcome) }
    }
}

/// The deadline passed after the append had begun.
fn overdue() -> LogError {
    unknown_outcome(Reason::RequestTimeout, "the deadline passed; the append may still happen: retry the same sequence")
}

/// Counts what was written; a repeat was counted when it was new.
pub(super) fn count_appended(numbers: &TopicMetrics, appended: &Appended, bytes: usize, records: usize) {
    if !appended.duplicate {
        numbers.produced_bytes.inc_by(bytes as u64);
        numbers.produced_records.inc_by(records as u64);
        numbers.produced_batches.inc();
    }
}

/// An acknowledged append as clients see it.
pub(super) fn appended(appended: Appended) -> v1::Appended {
    v1::Appended {
        base_offset: appended.base_offset,
        durability: match appended.durability {
            Durability::Os => v1::Durability::Os,
            Durability::Disk => v1::Durability::Disk,
        }
        .into(),
        replicas: appended.replicas,
        leader_epoch: appended.leader_epoch,
        log_append_time_ms: appended.log_append_time,
        log_start_offset: appended.log_start_offset,
        duplicate: appended.duplicate,
    }
}

/// The call succeeds if every partition's part did. Otherwise it fails with the first error, and with all results where they
/// differ.
fn answer(results: Vec<ProduceResult>) -> Result<ProduceResponse, Box<(LogError, Option<ProduceResponse>)>> {
    let error = results.iter().find_map(|result| match &result.outcome {
        Some(produce_result::Outcome::Error(error)) => Some(error.clone()),
        _ => None,
    });
    match error {
        None => Ok(ProduceResponse { results }),
        Some(error) if results.len() == 1 => Err(Box::new((error, None))),
        Some(error) => {
            let message = format!("not all partitions took their records, the details tell which: {}", error.message);
            let applied =
                results.iter().any(|result| matches!(result.outcome, Some(produce_result::Outcome::Appended(_))));
            let outcome = if applied { Outcome::Unknown.into() } else { error.outcome };
            Err(Box::new((LogError { message, outcome, ..error }, Some(ProduceResponse { results }))))
        }
    }
}

#[tonic::async_trait]
impl v1::producer_server::Producer for Service {
    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::Produce).call();
        let call = Call::of(&request)?;
        let results = self.produce_records(&call, request.into_inner()).await;
        let results = results.map_err(|refused| refuse(metrics, &refused.0))?;
        answer(results).map(Response::new).map_err(|failed| {
            let (error, results) = *failed;
            call::count(metrics, &error);
            let results =
                results.map(|results| results.encode_to_vec()).filter(|bytes| bytes.len() <= MAX_DETAIL_BYTES);
            status_with(&error, results.map(|bytes| ("taffrail.v1.ProduceResponse", bytes)))
        })
    }

    type ProduceStreamStream = ReceiverStream<Result<v1::ProduceStreamResponse, Status>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(produce_stream::begin(Arc::clone(&self.broker), call, request.into_inner())))
    }

    async fn init_producer(
        &self,
        request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::InitProducer).call();
        let call = Call::of(&request)?;
        let result = async {
            call.authorize_cluster(Verb::Produce)?;
            let current = request.into_inner().current;
            if let Some(v1::ProducerIdentity { id, epoch }) = current
                && (id < 0 || !(0..=i32::from(i16::MAX)).contains(&epoch))
            {
                return Err(Refused::of(invalid("current", "id is from 0, epoch 0 to 32,767")));
            }
            let given = self.broker.producer_ids.init(current.map(|current| (current.id, current.epoch))).await?;
            let producer = v1::ProducerIdentity { id: given.id, epoch: i32::from(given.epoch) };
            Ok(v1::InitProducerResponse { producer: Some(producer) })
        };
        finish(metrics, result.await)
    }
}
