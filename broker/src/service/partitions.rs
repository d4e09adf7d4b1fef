//! What other brokers ask of the partitions that this one leads: the service `Partitions` of the internal listener.
//!
//! The asking broker has decided that the caller may; what is not led here is refused, and never passed on.

mod appends;
mod observe;

use std::sync::Arc;

use taffrail_proto::internal::v1::list_offset_request::At;
use taffrail_proto::internal::v1::partitions_server::Partitions;
use taffrail_proto::internal::v1::{
    AppendRequest, AppendResponse, CurrentRequest, CurrentResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    EndOfEpochRequest, EndOfEpochResponse, ListOffsetRequest, ListOffsetResponse, ObserveRequest, ObserveResponse,
    PartitionRef, ReadRequest, ReadResponse,
};
use taffrail_proto::v1::{LogError, Reason};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::fetch::total;
use super::status::{IntoLogError as _, Refused, invalid, refusal};
use super::{Broker, MAX_RESPONSE_BYTES};
use crate::partition::{EpochError, FetchError, OffsetQuery, Partition, ReadRequest as Wanted};
use crate::peers::wire;
use crate::topics::Topics;

/// The service.
pub(super) struct Service {
    broker: Arc<Broker>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker) }
    }

    async fn read_batches(&self, call: &Call, request: ReadRequest) -> ReadResponse {
        let failed = |error: LogError| ReadResponse { error: Some(error), ..ReadResponse::default() };
        let (partition, leader_epoch) = match led(&self.broker.topics, request.partition) {
            Ok(led) => led,
            Err(refused) => return failed(*refused.0),
        };
        let max_bytes = (request.max_bytes as usize).clamp(1, MAX_RESPONSE_BYTES);
        let mut charge = call.connection.responses.charge(max_bytes).await;
        let wanted = Wanted {
            offset: request.offset,
            max_bytes,
            isolation: wire::isolation(request.committed),
            last_epoch: request.last_epoch,
            leader_epoch: Some(leader_epoch),
        };
        match partition.read(wanted).await {
            Ok(read) => {
                super::fetch::settle(call, &mut charge, total(&read.batches));
                call.outbox.put(charge);
                ReadResponse { batches: read.batches, state: Some(wire::state(&read.snapshot)), error: None }
            }
            Err(error) => {
                let known = matches!(error, FetchError::OutOfRange { .. } | FetchError::Truncated { .. });
                let state = known.then(|| wire::state(&partition.snapshot()));
                ReadResponse { state, ..failed(error.into_log_error()) }
            }
        }
    }

    async fn find_offset(&self, request: ListOffsetRequest) -> Result<ListOffsetResponse, Refused> {
        let partition = served(&self.broker.topics, request.partition)?;
        let query = match request.at {
            Some(At::Earliest(_)) => OffsetQuery::Earliest,
            Some(At::Latest(_)) => OffsetQuery::Latest,
            Some(At::TimestampMs(timestamp)) => OffsetQuery::Timestamp(timestamp),
            Some(At::MaxTimestamp(_)) => OffsetQuery::MaxTimestamp,
            None => return Err(invalid("at", "is missing").into()),
        };
        let isolation = wire::isolation(request.committed);
        let found = partition.list_offset(query, isolation).await?;
        Ok(ListOffsetResponse {
            offset: found.offset,
            timestamp_ms: found.timestamp,
            leader_epoch: found.leader_epoch,
            error: None,
        })
    }

    async fn find_end(&self, request: EndOfEpochRequest) -> Result<EndOfEpochResponse, Refused> {
        let partition = served(&self.broker.topics, request.partition)?;
        let end = partition.end_of_epoch(request.epoch).await?;
        let (epoch, end) = end.map_or((None, 0), |end| (Some(end.epoch), end.end));
        Ok(EndOfEpochResponse { epoch, end, error: None })
    }

    async fn delete(&self, request: DeleteRecordsRequest) -> Result<i64, Refused> {
        let partition = served(&self.broker.topics, request.partition)?;
        Ok(partition.delete_records(request.before_offset).await?)
    }
}

/// A partition that is led here, and the epoch under which the sender has it led.
fn led(topics: &Topics, sent: Option<PartitionRef>) -> Result<(Partition, i32), Refused> {
    let sent = sent.ok_or_else(|| Refused::of(invalid("partition", "is missing")))?;
    let (id, image) = (wire::partition_id(&sent), topics.image());
    let found = image.by_id(id.topic).and_then(|topic| topic.partition(id.index).ok());
    match found {
        Some(partition) if partition.is_local() => Ok((partition.clone(), sent.leader_epoch)),
        Some(_) => {
            Err(refusal(Reason::NotLeader, "the broker that was asked does not lead the partition: try again").into())
        }
        None => {
            let message =
                "the broker that was asked does not know the partition, or not yet, or not any more: try again";
            Err(refusal(Reason::NotLeader, message).into())
        }
    }
}

/// As [`led`], under the very epoch.
pub(super) fn served(topics: &Topics, sent: Option<PartitionRef>) -> Result<Partition, Refused> {
    let (partition, given) = led(topics, sent)?;
    let current = partition.snapshot().leader_epoch;
    match given.cmp(&current) {
        std::cmp::Ordering::Less => Err(EpochError::Fenced { given, current }.into()),
        std::cmp::Ordering::Equal => Ok(partition),
        std::cmp::Ordering::Greater => Err(EpochError::Unknown { given, current }.into()),
    }
}

#[tonic::async_trait]
impl Partitions for Service {
    type AppendStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(appends::begin(Arc::clone(&self.broker), call, request.into_inner())))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(self.read_batches(&call, request.into_inner()).await))
    }

    type ObserveStream = ReceiverStream<Result<ObserveResponse, Status>>;

    async fn observe(
        &self,
        request: Request<Streaming<ObserveRequest>>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(observe::begin(Arc::clone(&self.broker), call, request.into_inner())))
    }

    async fn current(&self, request: Request<CurrentRequest>) -> Result<Response<CurrentResponse>, Status> {
        Ok(Response::new(match served(&self.broker.topics, request.into_inner().partition) {
            Ok(partition) => CurrentResponse {
                state: Some(wire::state(&partition.snapshot())),
                size_bytes: partition.size_bytes(),
                error: None,
            },
            Err(refused) => CurrentResponse { error: Some(*refused.0), ..CurrentResponse::default() },
        }))
    }

    async fn list_offset(&self, request: Request<ListOffsetRequest>) -> Result<Response<ListOffsetResponse>, Status> {
        let answered = self.find_offset(request.into_inner()).await;
        let failed = |refused: Refused| ListOffsetResponse { error: Some(*refused.0), ..ListOffsetResponse::default() };
        Ok(Response::new(answered.unwrap_or_else(failed)))
    }

    async fn end_of_epoch(&self, request: Request<EndOfEpochRequest>) -> Result<Response<EndOfEpochResponse>, Status> {
        let answered = self.find_end(request.into_inner()).await;
        let failed = |refused: Refused| EndOfEpochResponse { error: Some(*refused.0), ..EndOfEpochResponse::default() };
        Ok(Response::new(answered.unwrap_or_else(failed)))
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        Ok(Response::new(match self.delete(request.into_inner()).await {
            Ok(log_start) => DeleteRecordsResponse { log_start, error: None },
            Err(refused) => DeleteRecordsResponse { error: Some(*refused.0), ..DeleteRecordsResponse::default() },
        }))
    }
}
