//! What all ways of reading share: where a request wants to read, how much at a time, and the answer's form.

use std::sync::Arc;

use bytes::Bytes;
use taffrail_proto::record::walk::max_unpacked_bytes;
use taffrail_proto::record::{BatchError, BatchHeader, InvalidRecord, RecordFault, records};
use taffrail_proto::v1::{FetchPartition, IsolationLevel, LogError, PartitionData, Reason, StoredRecord};
use tokio::sync::Semaphore;

use super::batches::with_scratch;
use super::call::Call;
use super::status::{IntoLogError, Refused, invalid, refusal};
use super::{Broker, MAX_RESPONSE_BYTES};
use crate::memory::Charge;
use crate::metrics::TopicMetrics;
use crate::partition::{FetchError, Isolation, Partition, ReadData, ReadRequest};
use crate::security::Verb;
use crate::topics::{LookupError, Settings, Topic};

/// Read at a time even when memory is short, so that readers go on.
const LEAST_READ_BYTES: usize = 64 << 10;
/// Batches that are unpacked at the same time: each may take 16 MiB and more for a moment.
const UNPACKED_AT_ONCE: usize = 4;
/// Compressed batches up to this size are unpacked where they are needed.
const UNPACKED_ON_THE_SPOT: usize = 16 << 10;
/// Unpacked memory beyond the records that are answered which these may keep from being freed.
const PINNED_BYTES: usize = 256 << 10;
/// What a plain record takes beside its key, value and headers.
const RECORD_OVERHEAD: usize = 32;

static UNPACKING: Semaphore = Semaphore::const_new(UNPACKED_AT_ONCE);

/// Memory for a read.
pub(super) struct Room {
    /// Held until the read is [settled](settle).
    pub(super) charge: Charge,
    /// How much to ask for.
    pub(super) bytes: usize,
}

/// A partition that is read, and the position in it.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) topic: Arc<str>,
    pub(super) index: i32,
    pub(super) partition: Partition,
    pub(super) settings: Arc<Settings>,
    pub(super) offset: i64,
    pub(super) last_epoch: Option<i32>,
    pub(super) leader_epoch: Option<i32>,
    pub(super) isolation: Isolation,
    /// At most so many bytes at a time.
    pub(super) max_bytes: usize,
}

impl Reader {
    /// Finds what a request names, if the caller may read it.
    pub(super) fn find(
        broker: &Broker,
        call: &Call,
        wanted: &FetchPartition,
        isolation: Isolation,
    ) -> Result<Self, Refused> {
        call.authorize_topic(Verb::Consume, &wanted.topic)?;
        let image = broker.topics.image();
        let topic = image.topic(&wanted.topic)?;
        let found = Self::of(topic, wanted.partition, isolation)?;
        let replica = if wanted.from_follower { found.partition.in_sync_replica() } else { None };
        if replica.is_none() {
            call.check_direct(broker, topic, wanted.partition, wanted.leader_epoch)?;
        }
        Ok(Self {
            offset: wanted.offset,
            last_epoch: wanted.last_epoch,
            leader_epoch: wanted.leader_epoch,
            max_bytes: if wanted.max_bytes == 0 { usize::MAX } else { wanted.max_bytes as usize },
            partition: replica.unwrap_or(found.partition),
            ..found
        })
    }

    /// At the beginning of a topic's partition, which the caller may read.
    pub(super) fn of(topic: &Topic, index: i32, isolation: Isolation) -> Result<Self, LookupError> {
        Ok(Self {
            partition: topic.partition(index)?.clone(),
            topic: Arc::clone(&topic.name),
            index,
            settings: Arc::clone(&topic.settings),
            offset: 0,
            last_epoch: None,
            leader_epoch: None,
            isolation,
            max_bytes: usize::MAX,
        })
    }

    /// Whole batches from the position on.
    pub(super) async fn read(&self, max_bytes: usize) -> Result<ReadData, FetchError> {
        let request = ReadRequest {
            offset: self.offset,
            max_bytes: max_bytes.min(self.max_bytes),
            isolation: self.isolation,
            last_epoch: self.last_epoch,
            leader_epoch: self.leader_epoch,
        };
        self.partition.read(request).await
    }

    /// Goes on behind `batches`.
    pub(super) fn advance(&mut self, batches: &[Bytes]) {
        if let Some(header) = batches.last().and_then(|batch| BatchHeader::parse_prefix(batch).ok()) {
            self.offset = header.next_offset();
            self.last_epoch = Some(header.leader_epoch);
        }
    }

    /// Where to go on behind `batches`, whatever of them was wanted.
    pub(super) fn behind(&self, batches: &[Bytes]) -> i64 {
        let last = batches.last().and_then(|batch| BatchHeader::parse_prefix(batch).ok());
        last.map_or(self.offset, |header| header.next_offset())
    }

    /// What the client is told: a partition that is closed since its topic was deleted is unknown now.
    pub(super) fn error(&self, broker: &Broker, error: FetchError) -> LogError {
        if matches!(error, FetchError::Closed)
            && let Err(gone) = broker.topics.image().partition(&self.topic, self.index)
        {
            return gone.into_log_error();
        }
        error.into_log_error()
    }

    /// The answer's form of what was read.
    pub(super) fn data(&self, read: ReadData) -> PartitionData {
        let ReadData { batches, snapshot } = read;
        PartitionData {
            topic: self.topic.to_string(),
            partition: self.index,
            batches,
            high_watermark: snapshot.high_watermark,
            last_stable_offset: snapshot.last_stable,
            log_start_offset: snapshot.log_start,
            leader_epoch: snapshot.leader_epoch,
            ..PartitionData::default()
        }
    }

    /// The plain records of `batches` from the position on, about `max_bytes` of them but at least one. Records at or above
    /// `before` are left out.
    pub(super) async fn plain(
        &self,
        batches: Vec<Bytes>,
        before: i64,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, Refused> {
        let unpacking = Plain {
            partition: self.index,
            from: self.offset,
            before,
            max_bytes,
            max_batch_bytes: self.settings.max_message_bytes,
        };
        let packed: usize = batches.iter().filter(|batch| is_compressed(batch)).map(Bytes::len).sum();
        if packed <= UNPACKED_ON_THE_SPOT {
            return unpacking.of(&batches).map_err(|error| damaged(&error));
        }
        let _turn = UNPACKING.acquire().await;
        let work = move || unpacking.of(&batches).map_err(|error| damaged(&error));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

fn is_compressed(batch: &[u8]) -> bool {
    BatchHeader::parse_prefix(batch).is_ok_and(|header| header.attributes & 7 != 0)
}

/// A stored batch that cannot be decoded was accepted once: its bytes are damaged.
fn damaged(error: &BatchError) -> Refused {
    refusal(Reason::DataCorrupt, format_args!("a stored batch cannot be decoded: {error}")).into()
}

/// Which records of some batches are wanted.
#[derive(Clone, Copy)]
struct Plain {
    partition: i32,
    from: i64,
    before: i64,
    max_bytes: usize,
    max_batch_bytes: usize,
}

impl Plain {
    fn of(self, batches: &[Bytes]) -> Result<Vec<StoredRecord>, BatchError> {
        let (mut out, mut bytes, mut pinned) = (Vec::new(), 0, 0);
        'batches: for batch in batches {
            let limit = max_unpacked_bytes(self.max_batch_bytes.max(batch.len()));
            let mut records = with_scratch(|scratch| records(batch, limit, scratch))?;
            let header = *records.header();
            if header.is_control() {
                continue;
            }
            pinned += if is_compressed(batch) { records.remaining_bytes() } else { 0 };
            for record in records.by_ref() {
                let record = record?;
                if record.offset < self.from {
                    continue;
                }
                let stored = record.to_stored(self.partition, &header).map_err(invalid_header)?;
                bytes += size(&stored);
                if record.offset >= self.before || (bytes > self.max_bytes && !out.is_empty()) {
                    break 'batches;
                }
                out.push(stored);
            }
        }
        if pinned > PINNED_BYTES + bytes {
            out.iter_mut().for_each(unpin);
        }
        Ok(out)
    }
}

fn invalid_header(fault: RecordFault) -> BatchError {
    BatchError::InvalidRecords(vec![InvalidRecord { index: 0, fault }])
}

/// Gives a record memory of its own, so that it does not keep what its whole batch was unpacked to.
fn unpin(record: &mut StoredRecord) {
    let own = |bytes: &mut Option<Bytes>| {
        if let Some(bytes) = bytes {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    };
    own(&mut record.key);
    own(&mut record.value);
    record.headers.iter_mut().for_each(|header| own(&mut header.value));
}

/// About what a plain record takes in an answer.
pub(super) fn size(record: &StoredRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|header| header.name.len() + length(&header.value) + 8).sum();
    length(&record.key) + length(&record.value) + headers + RECORD_OVERHEAD
}

/// A partition that nothing was read from; why.
pub(super) fn failed(topic: &str, partition: i32, error: LogError) -> PartitionData {
    PartitionData { topic: topic.to_owned(), partition, error: Some(error), ..PartitionData::default() }
}

/// Bytes of whole batches.
pub(super) fn total(batches: &[Bytes]) -> usize {
    batches.iter().map(Bytes::len).sum()
}

/// Waits for memory for a read of `wanted` bytes.
pub(super) async fn room(call: &Call, reader: &Reader, wanted: usize) -> Room {
    room_at(call, &reader.partition, wanted).await
}

/// As [`room`], by the partition alone.
pub(super) async fn room_at(call: &Call, partition: &Partition, wanted: usize) -> Room {
    let (bytes, reserved) = share(call, partition, wanted);
    Room { charge: call.connection.responses.charge(reserved).await, bytes }
}

/// As [`room`], if there is any now.
pub(super) fn room_now(call: &Call, reader: &Reader, wanted: usize) -> Option<Room> {
    let (bytes, reserved) = share(call, &reader.partition, wanted);
    Some(Room { charge: call.connection.responses.try_charge(reserved)?, bytes })
}

/// How many bytes to ask for, and how many to reserve: at least one batch is read whatever its size, and thousands of streams
/// that were let on with less would hold one each. How large it will be only a read before this one can tell.
fn share(call: &Call, partition: &Partition, wanted: usize) -> (usize, usize) {
    let bytes = call.connection.responses.allowance().max(LEAST_READ_BYTES).min(wanted).clamp(1, MAX_RESPONSE_BYTES);
    // Not all there is: whoever asks for that waits for ever beside others who ask for less.
    let batch = partition.largest_read_batch().min(call.connection.responses.budget() / 4);
    (bytes, bytes.max(batch))
}

/// Makes a charge fit what was really read: more than was asked for is possible by one batch.
pub(super) fn settle(call: &Call, charge: &mut Charge, bytes: usize) {
    if bytes <= charge.bytes() {
        return charge.shrink(bytes);
    }
    charge.merge(call.connection.responses.overdraw(bytes - charge.bytes()));
}

/// Counts what is sent to readers.
pub(super) fn count_fetched(numbers: &TopicMetrics, batches: &[Bytes]) {
    let records = |batch: &Bytes| BatchHeader::parse_prefix(batch).map_or(0, |header| header.record_count as u64);
    numbers.fetched_bytes.inc_by(total(batches) as u64);
    numbers.fetched_batches.inc_by(batches.len() as u64);
    numbers.fetched_records.inc_by(batches.iter().map(records).sum());
}

/// Which records a request may see.
pub(super) fn isolation(asked: i32) -> Result<Isolation, Refused> {
    match IsolationLevel::try_from(asked) {
        Ok(IsolationLevel::ReadUncommitted) => Ok(Isolation::ReadUncommitted),
        Ok(IsolationLevel::ReadCommitted) => Ok(Isolation::ReadCommitted),
        Err(unknown) => Err(Refused::of(invalid("isolation", format_args!("{} is not known", unknown.0)))),
    }
}
