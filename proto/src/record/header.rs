//! The fixed part of a record batch: parsing it, checking its CRC, and the changes a broker makes in place.
//!
//! All integers are big endian. The CRC covers everything from `attributes` on, so that base offset and leader epoch can
//! be set without touching it.
//!
//! | offset | field | type |
//! |---|---|---|
//! | 0 | base offset | i64 |
//! | 8 | batch length: bytes after this field | i32 |
//! | 12 | partition leader epoch | i32 |
//! | 16 | magic, 2 | i8 |
//! | 17 | CRC32C from offset 21 to the end | u32 |
//! | 21 | attributes: bits 0–2 compression, 3 timestamp type, 4 transactional, 5 control | i16 |
//! | 23 | last offset delta | i32 |
//! | 27 | base timestamp, milliseconds | i64 |
//! | 35 | max timestamp, milliseconds | i64 |
//! | 43 | producer id, -1 for none | i64 |
//! | 51 | producer epoch | i16 |
//! | 53 | base sequence | i32 |
//! | 57 | record count | i32 |
//! | 61 | records, compressed as one block | |

use super::compression::Compression;
use super::error::BatchError;

/// Bytes in front of the records.
pub const HEADER_LEN: usize = 61;
/// Bytes up to and including the length field, which does not count them.
pub const LENGTH_PREFIX: usize = 12;
/// The only version of the format that is served.
pub const MAGIC: i8 = 2;
/// The last epoch that a producer may use; one more asks for a new id (Kafka's rule: `Short.MAX_VALUE - 1`).
pub const MAX_PRODUCER_EPOCH: i16 = i16::MAX - 1;
/// Leader epoch of a batch that no leader has appended yet.
pub const NO_LEADER_EPOCH: i32 = -1;
/// Timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

pub(super) const BASE_OFFSET: usize = 0;
pub(super) const BATCH_LENGTH: usize = 8;
pub(super) const LEADER_EPOCH: usize = 12;
pub(super) const MAGIC_AT: usize = 16;
pub(super) const CRC: usize = 17;
pub(super) const ATTRIBUTES: usize = 21;
pub(super) const LAST_OFFSET_DELTA: usize = 23;
pub(super) const BASE_TIMESTAMP: usize = 27;
pub(super) const MAX_TIMESTAMP: usize = 35;
pub(super) const PRODUCER_ID: usize = 43;
pub(super) const PRODUCER_EPOCH: usize = 51;
pub(super) const BASE_SEQUENCE: usize = 53;
pub(super) const RECORD_COUNT: usize = 57;

const COMPRESSION_BITS: i16 = 0b111;
const APPEND_TIME_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const KNOWN_BITS: i16 = COMPRESSION_BITS | APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT;

/// The least a record takes: one byte each for length, attributes, timestamp delta, offset delta, key length, value
/// length and header count.
const MIN_RECORD_BYTES: usize = 7;

/// Who set the records' timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, for each record.
    CreateTime,
    /// The broker: every record of the batch has the batch's max timestamp.
    LogAppendTime,
}

/// Identity and position of an idempotent producer's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchProducer {
    /// From 0.
    pub id: i64,
    /// 0 to [`MAX_PRODUCER_EPOCH`].
    pub epoch: i16,
    /// Sequence number of the first record, from 0, wrapping after 2^31-1. Control batches have -1.
    pub first_sequence: i32,
}

impl BatchProducer {
    /// Checks the ranges of a data batch's identity.
    pub fn new(id: i64, epoch: i32, first_sequence: i32) -> Result<Self, BatchError> {
        if id < 0 || !(0..=i32::from(MAX_PRODUCER_EPOCH)).contains(&epoch) || first_sequence < 0 {
            return Err(BatchError::InvalidProducer { id, epoch, first_sequence });
        }
        Ok(Self { id, epoch: epoch as i16, first_sequence })
    }
}

/// Adds to a sequence number as Kafka does: after 2^31-1 comes 0.
#[must_use]
pub fn add_to_sequence(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

/// The header of a batch, parsed. Fields as they are on the wire; the methods tell what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; any value until a leader has set it.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch; any value until a leader has set it.
    pub leader_epoch: i32,
    /// CRC32C as stored; see [`verify_crc`].
    pub crc: u32,
    /// See the accessors.
    pub attributes: i16,
    /// Offset of the last record, relative to the first; not below 0.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas add to.
    pub base_timestamp: i64,
    /// Largest timestamp of the batch; what a producer says until the broker has checked it.
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    /// -1 for none.
    pub producer_epoch: i16,
    /// -1 for none.
    pub base_sequence: i32,
    /// Records in the batch: at most `last_offset_delta + 1`, fewer after compaction (then 0 is possible).
    pub record_count: i32,
}

impl BatchHeader {
    /// Parses the batch at the beginning of `bytes`, which must hold the whole of it and may hold more.
    ///
    /// Checks length, magic, and that the count of records fits the last offset delta and, without compression, the
    /// batch's size. Does not check the CRC, nor the records.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let header = Self::parse_prefix(bytes)?;
        let size = header.size_in_bytes();
        if bytes.len() < size {
            return Err(BatchError::Truncated { needed: size, actual: bytes.len() });
        }
        Ok(header)
    }

    /// As [`parse`](Self::parse), when only the first [`HEADER_LEN`] bytes are at hand.
    pub fn parse_prefix(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { needed: HEADER_LEN, actual: bytes.len() });
        };
        let magic = fixed[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(fixed, BASE_OFFSET)),
            batch_length: i32::from_be_bytes(field(fixed, BATCH_LENGTH)),
            leader_epoch: i32::from_be_bytes(field(fixed, LEADER_EPOCH)),
            crc: u32::from_be_bytes(field(fixed, CRC)),
            attributes: i16::from_be_bytes(field(fixed, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(fixed, LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(fixed, BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(fixed, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(fixed, PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(fixed, PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(fixed, BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(fixed, RECORD_COUNT)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BatchError> {
        if self.batch_length < (HEADER_LEN - LENGTH_PREFIX) as i32 {
            return Err(BatchError::InvalidLength { length: self.batch_length });
        }
        let (count, last_offset_delta) = (self.record_count, self.last_offset_delta);
        let room = (self.size_in_bytes() - HEADER_LEN) / MIN_RECORD_BYTES;
        let fits = self.attributes & COMPRESSION_BITS != 0 || usize::try_from(count).is_ok_and(|count| count <= room);
        if count < 0 || last_offset_delta < 0 || i64::from(count) > i64::from(last_offset_delta) + 1 || !fits {
            return Err(BatchError::InvalidCount { count, last_offset_delta });
        }
        Ok(())
    }

    /// Bytes of the whole batch, header included.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        LENGTH_PREFIX + self.batch_length as usize
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::try_from(self.attributes & COMPRESSION_BITS)
    }

    /// Who set the timestamps.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & APPEND_TIME_BIT == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    /// The batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// The batch holds a marker of the broker, not records of an application.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Attribute bits that this version of the format does not define for producers are set.
    #[must_use]
    pub fn has_unknown_attributes(&self) -> bool {
        self.attributes & !KNOWN_BITS != 0
    }

    /// Offset of the last record (of the last one there was, after compaction). Saturates where a hostile base offset
    /// would overflow.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset of the record that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Identity of the producer, if the batch has one.
    #[must_use]
    pub fn producer(&self) -> Option<BatchProducer> {
        (self.producer_id >= 0).then_some(BatchProducer {
            id: self.producer_id,
            epoch: self.producer_epoch,
            first_sequence: self.base_sequence,
        })
    }

    /// Sequence number of the last record; meaningful with [`producer`](Self::producer).
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// Compares the CRC of the batch at the beginning of `bytes` with the one it carries.
pub fn verify_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let computed = crc32c::crc32c(&bytes[ATTRIBUTES..header.size_in_bytes()]);
    if computed == header.crc { Ok(()) } else { Err(BatchError::CrcMismatch { stored: header.crc, computed }) }
}

/// Sets the base offset; the CRC does not cover it. `batch` begins with a parsed batch.
pub fn set_base_offset(batch: &mut [u8], offset: i64) {
    put(batch, BASE_OFFSET, offset.to_be_bytes());
}

/// Sets the leader epoch; the CRC does not cover it. `batch` begins with a parsed batch.
pub fn set_leader_epoch(batch: &mut [u8], epoch: i32) {
    put(batch, LEADER_EPOCH, epoch.to_be_bytes());
}

/// Makes `millis` the append time of all records: timestamp type LogAppendTime, max timestamp, new CRC.
/// `batch` is exactly one parsed batch.
pub fn set_append_time(batch: &mut [u8], millis: i64) {
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES], batch[ATTRIBUTES + 1]]) | APPEND_TIME_BIT;
    put(batch, ATTRIBUTES, attributes.to_be_bytes());
    set_max_timestamp(batch, millis);
}

/// Sets the max timestamp and a new CRC. `batch` is exactly one parsed batch.
pub fn set_max_timestamp(batch: &mut [u8], millis: i64) {
    put(batch, MAX_TIMESTAMP, millis.to_be_bytes());
    seal(batch);
}

/// Makes the batch that of an idempotent producer, or gives it another place in its sequence, with a new CRC: for
/// producers, before they send it. `batch` is exactly one parsed batch.
pub fn set_producer(batch: &mut [u8], producer: BatchProducer) {
    put(batch, PRODUCER_ID, producer.id.to_be_bytes());
    put(batch, PRODUCER_EPOCH, producer.epoch.to_be_bytes());
    put(batch, BASE_SEQUENCE, producer.first_sequence.to_be_bytes());
    seal(batch);
}

/// Computes and stores the CRC of exactly one batch.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES..]);
    put(batch, CRC, crc.to_be_bytes());
}

pub(super) fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    batch[at..at + N].copy_from_slice(&value);
}

fn field<const N: usize>(fixed: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    *fixed[at..].first_chunk().expect("every field lies within the header")
}

#[cfg(test)]
mod tests;
