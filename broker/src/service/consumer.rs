//! Fetch, ListOffsets, EndOfEpoch; Read and FetchStream begin here.

use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1::{self, FetchRequest, FetchResponse, OffsetAnswer, PartitionData, offset_query};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Call, count, finish};
use super::fetch::{Reader, Room, count_fetched, failed, isolation, room, room_now, settle, size, total};
use super::status::{Refused, invalid};
use super::{Broker, MAX_RESPONSE_BYTES, fetch_stream, read};
use crate::memory::Charge;
use crate::metrics::Rpc;
use crate::partition::{Isolation, OffsetQuery, Waiter};
use crate::security::Verb;

/// Partitions or queries in one request.
const MAX_PARTITIONS: usize = 1_000;
/// About what a partition takes while it is read.
pub(super) const PARTITION_BYTES: usize = 512;
/// The longest wait, milliseconds.
const MAX_WAIT_MS: u32 = 60_000;
/// How often a request that waits with part of its answer looks whether others need the memory.
const LOOK_AROUND: Duration = Duration::from_millis(250);

/// The service `Consumer`.
pub(super) struct Service {
    broker: Arc<Broker>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker) }
    }

    async fn fetch_all(&self, call: &Call, request: FetchRequest) -> Result<FetchResponse, Refused> {
        check_count("partitions", request.partitions.len())?;
        check_wait("max_wait_ms", request.max_wait_ms)?;
        let _held = call.hold(request.partitions.len() * PARTITION_BYTES);
        let isolation = isolation(request.isolation)?;
        let mut poll = Poll::new(&self.broker, call, &request, isolation);
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.max_wait_ms));
        let waiter = Waiter::new();
        let mut due: Vec<usize> = (0..poll.slots.len()).collect();
        loop {
            poll.read(&due).await;
            if poll.is_enough() || Instant::now() >= deadline {
                return Ok(poll.answer());
            }
            due = poll.arm(&due, &waiter);
            if due.is_empty() {
                tokio::select! {
                    tokens = waiter.ready() => due = tokens.into_iter().map(|token| token as usize).collect(),
                    () = tokio::time::sleep_until(deadline) => return Ok(poll.answer()),
                    () = poll.memory_is_needed() => return Ok(poll.answer()),
                    () = call.connection.drain.announced.cancelled() => return Ok(poll.answer()),
                    () = call.overdue() => return Ok(poll.answer()),
                }
            }
        }
    }

    async fn list(&self, call: &Call, query: &v1::OffsetQuery, isolation: Isolation) -> Result<OffsetAnswer, Refused> {
        call.authorize_topic(Verb::Describe, &query.topic)?;
        let at = match query.at {
            Some(offset_query::At::Earliest(_)) => OffsetQuery::Earliest,
            Some(offset_query::At::Latest(_)) => OffsetQuery::Latest,
            Some(offset_query::At::TimestampMs(timestamp)) => OffsetQuery::Timestamp(timestamp),
            Some(offset_query::At::MaxTimestamp(_)) => OffsetQuery::MaxTimestamp,
            None => {
                let fault = "say which offset: earliest, latest, timestamp_ms or max_timestamp";
                return Err(Refused::of(invalid("queries.at", fault)));
            }
        };
        let partition = self.broker.topics.image().partition(&query.topic, query.partition)?.clone();
        let found = partition.list_offset(at, isolation).await?;
        let (offset, timestamp_ms, leader_epoch) = (found.offset, found.timestamp, found.leader_epoch);
        Ok(OffsetAnswer { offset, timestamp_ms, leader_epoch, error: None })
    }

    async fn list_all(&self, call: &Call, request: v1::ListOffsetsRequest) -> Result<v1::ListOffsetsResponse, Refused> {
        check_count("queries", request.queries.len())?;
        let _held = call.hold(request.queries.len() * PARTITION_BYTES);
        let isolation = isolation(request.isolation)?;
        let mut answers = Vec::with_capacity(request.queries.len());
        for query in &request.queries {
            let answer = self.list(call, query, isolation).await.unwrap_or_else(|refused| {
                count(&self.broker.metrics, &refused.0);
                OffsetAnswer { error: Some(*refused.0), ..OffsetAnswer::default() }
            });
            answers.push(answer);
        }
        Ok(v1::ListOffsetsResponse { answers })
    }

    async fn end_of(&self, call: &Call, request: &v1::EndOfEpochRequest) -> Result<v1::EndOfEpochResponse, Refused> {
        call.authorize_topic(Verb::Consume, &request.topic)?;
        if request.leader_epoch < 0 {
            return Err(Refused::of(invalid("leader_epoch", "an epoch is from 0")));
        }
        let partition = self.broker.topics.image().partition(&request.topic, request.partition)?.clone();
        let end = partition.end_of_epoch(request.leader_epoch).await?;
        let (leader_epoch, end_offset) = end.map_or((-1, -1), |end| (end.epoch, end.end));
        Ok(v1::EndOfEpochResponse { leader_epoch, end_offset })
    }
}

fn check_count(field: &str, count: usize) -> Result<(), Refused> {
    if (1..=MAX_PARTITIONS).contains(&count) {
        return Ok(());
    }
    Err(Refused::of(invalid(field, format_args!("must be 1 to {MAX_PARTITIONS}, not {count}"))))
}

/// A wait that a client asks for.
pub(super) fn check_wait(field: &str, wait_ms: u32) -> Result<(), Refused> {
    if wait_ms <= MAX_WAIT_MS {
        return Ok(());
    }
    Err(Refused::of(invalid(field, format_args!("must be at most {MAX_WAIT_MS}, not {wait_ms}"))))
}

/// One long poll: what each partition has given so far.
struct Poll<'a> {
    broker: &'a Broker,
    call: &'a Call,
    slots: Vec<Slot>,
    min_bytes: usize,
    max_bytes: usize,
    plain: bool,
    /// There was no room for a partition that was read: the answer does not grow by waiting.
    is_full: bool,
}

/// One partition of a long poll.
struct Slot {
    /// Absent when the partition cannot be read at all.
    reader: Option<Reader>,
    data: Option<PartitionData>,
    /// End of what could be seen when it was read last.
    end: i64,
    bytes: usize,
    charge: Option<Charge>,
}

impl<'a> Poll<'a> {
    fn new(broker: &'a Broker, call: &'a Call, request: &FetchRequest, isolation: Isolation) -> Self {
        let slot = |wanted: &v1::FetchPartition| {
            let (reader, data) = match Reader::find(broker, call, wanted, isolation) {
                Ok(reader) => (Some(reader), None),
                Err(refused) => {
                    let topic = wanted.topic.get(..249).unwrap_or(&wanted.topic);
                    (None, Some(failed(topic, wanted.partition, *refused.0)))
                }
            };
            Slot { reader, data, end: 0, bytes: 0, charge: None }
        };
        let max_bytes = match request.max_bytes as usize {
            0 => MAX_RESPONSE_BYTES,
            wanted => wanted.min(MAX_RESPONSE_BYTES),
        };
        Self {
            broker,
            call,
            slots: request.partitions.iter().map(slot).collect(),
            min_bytes: (request.min_bytes as usize).clamp(1, max_bytes),
            max_bytes,
            plain: request.plain,
            is_full: false,
        }
    }

    /// Reads the partitions of these slots, as far as there is room in the answer.
    async fn read(&mut self, due: &[usize]) {
        for index in due {
            let held: usize = self.slots.iter().map(|slot| slot.bytes).sum();
            let Some(slot) = self.slots.get_mut(*index) else { continue };
            let room = (self.max_bytes + slot.bytes).saturating_sub(held);
            let has_room = (room > 0 || held == 0)
                && slot.read(self.broker, self.call, room, held == slot.bytes, self.plain).await;
            if !has_room {
                self.is_full = true;
                return;
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.is_full
            || self.slots.iter().any(|slot| slot.data.as_ref().is_some_and(|data| data.error.is_some()))
            || self.slots.iter().map(|slot| slot.bytes).sum::<usize>() >= self.min_bytes
    }

    /// Ends when memory is short and part of the answer holds some.
    async fn memory_is_needed(&self) {
        if self.slots.iter().all(|slot| slot.charge.is_none()) {
            return std::future::pending().await;
        }
        let responses = &self.call.connection.responses;
        while !responses.is_tight() {
            // It is not the peer who holds this.
            responses.touch();
            tokio::time::sleep(LOOK_AROUND).await;
        }
    }

    /// Asks the partitions of these slots to say when there is more; answers those where there is already.
    fn arm(&self, due: &[usize], waiter: &Arc<Waiter>) -> Vec<usize> {
        let has_more = |index: &usize| {
            let slot = &self.slots[*index];
            let reader = slot.reader.as_ref();
            reader.is_some_and(|reader| !reader.partition.arm(slot.end, reader.isolation, waiter, *index as u64))
        };
        due.iter().copied().filter(has_more).collect()
    }

    /// Partitions with data or an error; all of them if there are none.
    fn answer(self) -> FetchResponse {
        let tells = |slot: &Slot| slot.bytes > 0 || slot.data.as_ref().is_some_and(|data| data.error.is_some());
        let any = self.slots.iter().any(tells);
        let mut partitions = Vec::new();
        for slot in self.slots {
            if any && !tells(&slot) {
                continue;
            }
            slot.charge.into_iter().for_each(|charge| self.call.outbox.put(charge));
            let Some(data) = slot.data else { continue };
            if let Some(error) = &data.error {
                count(&self.broker.metrics, error);
            } else if slot.bytes > 0 {
                let numbers = self.broker.metrics.topic(&data.topic);
                count_fetched(&numbers, &data.batches);
                if !data.records.is_empty() {
                    numbers.fetched_bytes.inc_by(slot.bytes as u64);
                    numbers.fetched_records.inc_by(data.records.len() as u64);
                }
            }
            partitions.push(data);
        }
        FetchResponse { partitions }
    }
}

impl Slot {
    /// Reads again from the position that was asked for. What does not fit into `room` is left for the next request, unless
    /// the answer would be empty; false if there was no room.
    async fn read(&mut self, broker: &Broker, call: &Call, room_left: usize, is_first: bool, plain: bool) -> bool {
        let Some(reader) = &self.reader else { return true };
        // Who holds part of an answer must not wait for memory that another one like it may hold.
        let room = if is_first {
            self.charge = None;
            Some(room(call, reader, room_left).await)
        } else {
            room_now(call, reader, room_left)
        };
        let Some(Room { mut charge, bytes: asked }) = room else { return false };
        let read = match reader.read(asked).await {
            Ok(read) => read,
            Err(error) => return self.fail(reader.error(broker, error)),
        };
        self.end = read.snapshot.visible_end(reader.isolation);
        let bytes = total(&read.batches);
        if bytes > room_left && !is_first {
            return false;
        }
        let was_cut_short = asked < room_left && reader.behind(&read.batches) < self.end;
        let mut data = reader.data(read);
        self.bytes = bytes;
        if plain {
            let batches = std::mem::take(&mut data.batches);
            match reader.plain(batches, self.end, room_left.max(1)).await {
                Ok(records) => {
                    self.bytes = records.iter().map(size).sum();
                    data.records = records;
                }
                Err(refused) => return self.fail(*refused.0),
            }
        }
        settle(call, &mut charge, self.bytes);
        self.charge = (self.bytes > 0).then_some(charge);
        self.data = Some(data);
        !was_cut_short
    }

    /// Not for want of room.
    fn fail(&mut self, error: v1::LogError) -> bool {
        if let Some(reader) = &self.reader {
            self.data = Some(failed(&reader.topic, reader.index, error));
            self.bytes = 0;
            self.charge = None;
        }
        true
    }
}

#[tonic::async_trait]
impl v1::consumer_server::Consumer for Service {
    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::Fetch).call();
        let call = Call::of(&request)?;
        finish(metrics, self.fetch_all(&call, request.into_inner()).await)
    }

    type ReadStream = ReceiverStream<Result<v1::ReadResponse, Status>>;

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(read::begin(Arc::clone(&self.broker), call, request.into_inner())))
    }

    type FetchStreamStream = ReceiverStream<Result<v1::FetchStreamResponse, Status>>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let call = Call::of(&request)?;
        Ok(Response::new(fetch_stream::begin(Arc::clone(&self.broker), call, request.into_inner())))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::ListOffsets).call();
        let call = Call::of(&request)?;
        finish(metrics, self.list_all(&call, request.into_inner()).await)
    }

    async fn end_of_epoch(
        &self,
        request: Request<v1::EndOfEpochRequest>,
    ) -> Result<Response<v1::EndOfEpochResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::EndOfEpoch).call();
        let call = Call::of(&request)?;
        finish(metrics, self.end_of(&call, &request.into_inner()).await)
    }
}
