//! The strict walk over a produced batch, which the leader makes before it appends.
//!
//! What passes can be stored and will be readable by every client: the bytes are what they say, offsets count up without
//! a gap, limits are kept. Stored batches may have gaps after compaction and are read by [`reader`](super::reader).
//! No record is copied and nothing is allocated for one.

use super::compression::Scratch;
use super::entry::{Entry, Headers, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, MAX_KEY_BYTES};
use super::error::{BatchError, InvalidRecord, RecordFault};
use super::header::{BatchHeader, BatchProducer, HEADER_LEN, NO_TIMESTAMP, TimestampType, verify_crc};
use super::varint::Cursor;

/// Kafka's default of `max.message.bytes`.
pub const DEFAULT_MAX_BATCH_BYTES: usize = 1_048_588;
/// The least bound on a batch's unpacked records.
pub const LEAST_MAX_UNPACKED_BYTES: usize = 16 << 20;
/// The bound on unpacked records is this many times the largest batch, if that is more.
pub const UNPACKED_PER_BATCH_BYTE: usize = 16;
/// How far a record's timestamp may lie ahead of the broker's clock: one hour, as in Kafka.
pub const MAX_FUTURE_MILLIS: i64 = 60 * 60 * 1_000;
/// How many invalid records are named in one refusal.
pub const MAX_NAMED_RECORDS: usize = 10;

/// What a batch may be and hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole batch as sent.
    pub max_batch_bytes: usize,
    /// Bytes of the records when unpacked. Only compressed batches are held to it.
    pub max_unpacked_bytes: usize,
    /// No record may be later, in milliseconds since 1970. Where the broker overwrites the timestamps: `i64::MAX`.
    pub latest_timestamp: i64,
    /// Accept batches with the transactional bit.
    pub allow_transactional: bool,
    /// Accept batches with the control bit.
    pub allow_control: bool,
}

impl Limits {
    /// For a topic's `max.message.bytes` and the time now: no transactions, no control batches.
    #[must_use]
    pub fn new(max_batch_bytes: usize, now_millis: i64) -> Self {
        Self {
            max_batch_bytes,
            max_unpacked_bytes: max_unpacked_bytes(max_batch_bytes),
            latest_timestamp: now_millis.saturating_add(MAX_FUTURE_MILLIS),
            allow_transactional: false,
            allow_control: false,
        }
    }
}

/// The bound on unpacked records for a topic's `max.message.bytes`.
#[must_use]
pub fn max_unpacked_bytes(max_batch_bytes: usize) -> usize {
    max_batch_bytes.saturating_mul(UNPACKED_PER_BATCH_BYTE).max(LEAST_MAX_UNPACKED_BYTES)
}

/// What the walk found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// The batch's header as it was sent.
    pub header: BatchHeader,
    /// The largest timestamp of the records. Where the header's differs, it is wrong and must be set
    /// ([`set_max_timestamp`](super::header::set_max_timestamp)) before the batch is stored.
    pub max_timestamp: i64,
    /// Bytes of the records when unpacked.
    pub unpacked_bytes: usize,
}

/// Checks that `batch` is exactly one acceptable batch. Base offset and leader epoch may be any: the leader sets them.
pub fn validate(batch: &[u8], limits: &Limits, scratch: &mut Scratch) -> Result<Walked, BatchError> {
    if batch.len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size: batch.len(), limit: limits.max_batch_bytes });
    }
    let header = BatchHeader::parse(batch)?;
    if batch.len() > header.size_in_bytes() {
        return Err(BatchError::TrailingBytes { extra: batch.len() - header.size_in_bytes() });
    }
    verify_crc(batch)?;
    check_header(&header, limits)?;
    let records = scratch.unpack(header.compression()?, &batch[HEADER_LEN..], limits.max_unpacked_bytes)?;
    let max_timestamp = walk(records, &header, limits)?;
    Ok(Walked { header, max_timestamp, unpacked_bytes: records.len() })
}

/// What a producer may say in a header; the rest was checked when it was parsed.
fn check_header(header: &BatchHeader, limits: &Limits) -> Result<(), BatchError> {
    if header.has_unknown_attributes() {
        return Err(BatchError::UnknownAttributes { attributes: header.attributes });
    }
    if header.is_control() && !limits.allow_control {
        return Err(BatchError::ControlNotAllowed);
    }
    if header.is_transactional() && !limits.allow_transactional {
        return Err(BatchError::TransactionalNotAllowed);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::AppendTimeNotAllowed);
    }
    check_producer(header)?;
    let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if count == 0 {
        return Err(BatchError::Empty);
    }
    if last_offset_delta != count - 1 {
        return Err(BatchError::InvalidCount { count, last_offset_delta });
    }
    Ok(())
}

/// Absent is -1 three times, which a transaction's batch may not be; a control batch has no sequence.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let (id, epoch, first_sequence) = (header.producer_id, i32::from(header.producer_epoch), header.base_sequence);
    if (id, epoch, first_sequence) == (-1, -1, -1) && !header.is_transactional() {
        return Ok(());
    }
    let checked = if header.is_control() && first_sequence == -1 { 0 } else { first_sequence };
    match BatchProducer::new(id, epoch, checked) {
        Ok(_) => Ok(()),
        Err(_) => Err(BatchError::InvalidProducer { id, epoch, first_sequence }),
    }
}

/// Checks all records and returns their largest timestamp.
fn walk(records: &[u8], header: &BatchHeader, limits: &Limits) -> Result<i64, BatchError> {
    let mut cursor = Cursor::new(records);
    let mut invalid = Vec::new();
    let mut max_timestamp = NO_TIMESTAMP;
    // The count is the producer's, but each turn takes bytes or ends.
    for index in 0..header.record_count {
        let frame = match Entry::frame(&mut cursor) {
            Ok(frame) => frame,
            Err(fault) => {
                // Without its length nothing behind it can be found.
                invalid.push(InvalidRecord { index, fault });
                break;
            }
        };
        match check_record(frame, index, header, limits) {
            Ok(timestamp) => max_timestamp = max_timestamp.max(timestamp),
            Err(fault) => invalid.push(InvalidRecord { index, fault }),
        }
        if invalid.len() == MAX_NAMED_RECORDS {
            break;
        }
    }
    if !invalid.is_empty() {
        return Err(BatchError::InvalidRecords(invalid));
    }
    match cursor.rest().len() {
        0 => Ok(max_timestamp),
        extra => Err(BatchError::TrailingRecordBytes { extra }),
    }
}

/// Checks one record and returns its timestamp.
#[inline]
fn check_record(frame: &[u8], index: i32, header: &BatchHeader, limits: &Limits) -> Result<i64, RecordFault> {
    let entry = Entry::parse(frame)?;
    if entry.offset_delta != index {
        return Err(RecordFault::OffsetDelta { expected: index, actual: entry.offset_delta });
    }
    check_key(entry.key)?;
    if entry.headers.announced() > 0 {
        check_headers(entry.headers)?;
    }
    let timestamp = header.base_timestamp.saturating_add(entry.timestamp_delta);
    check_timestamp(timestamp)?;
    if timestamp > limits.latest_timestamp {
        return Err(RecordFault::TimestampInFuture { timestamp, latest: limits.latest_timestamp });
    }
    Ok(timestamp)
}

/// The bound on keys; the builder keeps it too.
pub(super) fn check_key(key: Option<&[u8]>) -> Result<(), RecordFault> {
    match key {
        Some(key) if key.len() > MAX_KEY_BYTES => {
            Err(RecordFault::KeyTooLong { bytes: key.len(), limit: MAX_KEY_BYTES })
        }
        _ => Ok(()),
    }
}

/// -1 is "none"; the largest value is what an overflowing delta gives.
pub(super) fn check_timestamp(timestamp: i64) -> Result<(), RecordFault> {
    if (NO_TIMESTAMP..i64::MAX).contains(&timestamp) {
        Ok(())
    } else {
        Err(RecordFault::InvalidTimestamp { timestamp })
    }
}

fn check_headers(headers: Headers<'_>) -> Result<(), RecordFault> {
    check_header_totals(headers.announced() as usize, headers.bytes().len())?;
    for header in headers {
        check_header_name(header?.0)?;
    }
    Ok(())
}

/// The bounds on a record's headers together; the builder keeps them too.
pub(super) fn check_header_totals(count: usize, bytes: usize) -> Result<(), RecordFault> {
    if count > MAX_HEADERS {
        return Err(RecordFault::TooManyHeaders { count, limit: MAX_HEADERS });
    }
    if bytes > MAX_HEADERS_BYTES {
        return Err(RecordFault::HeadersTooLong { bytes, limit: MAX_HEADERS_BYTES });
    }
    Ok(())
}

/// The bound on a header's name; the builder keeps it too.
pub(super) fn check_header_name(name: &str) -> Result<(), RecordFault> {
    if name.len() > MAX_HEADER_NAME_BYTES {
        return Err(RecordFault::HeaderNameTooLong { bytes: name.len(), limit: MAX_HEADER_NAME_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
