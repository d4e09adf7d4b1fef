//! What can be wrong with a batch or one of its records.
//!
//! Variants name facts; messages tell the one who made the batch what to do. Nothing of the batch's content is quoted.

use super::compression::Compression;

/// Why bytes are not an acceptable record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the batch says it has.
    #[error("the record batch needs {needed} bytes but only {actual} are there: send whole batches")]
    Truncated { needed: usize, actual: usize },
    /// The length field cannot be that of a batch.
    #[error("the record batch claims a length of {length}: it must be 49 or more; encode the batch again")]
    InvalidLength { length: i32 },
    /// Bytes follow where exactly one batch was expected.
    #[error("{extra} bytes follow the record batch: send exactly one batch at a time")]
    TrailingBytes { extra: usize },
    /// Not record batch version 2.
    #[error("the record batch has magic {magic}: only magic 2 (Kafka 0.11 or later) is served; upgrade the client")]
    UnsupportedMagic { magic: i8 },
    /// The bytes were damaged.
    #[error(
        "the record batch has CRC32C {stored:#010x} but its bytes give {computed:#010x}: it was damaged; send it again"
    )]
    CrcMismatch { stored: u32, computed: u32 },
    /// Record count and last offset delta contradict each other or the batch's size.
    #[error(
        "the record batch claims {count} records up to offset delta {last_offset_delta}, which cannot be: encode it again"
    )]
    InvalidCount { count: i32, last_offset_delta: i32 },
    /// No records.
    #[error("the record batch has no records: send at least one")]
    Empty,
    /// The batch's offsets do not fit the number range.
    #[error("the record batch starts at offset {base_offset}: offsets must lie between 0 and 2^63-1")]
    InvalidOffset { base_offset: i64 },
    /// Attribute bits that a producer may not set.
    #[error("the record batch sets unknown attribute bits ({attributes:#06x}): clear all bits above 5")]
    UnknownAttributes { attributes: i16 },
    /// A codec number without a codec.
    #[error("the record batch names compression {code}: use none (0), gzip (1), snappy (2), lz4 (3) or zstd (4)")]
    UnknownCompression { code: i16 },
    /// The control bit is set.
    #[error("the record batch has the control bit set: only the broker writes control batches; clear it")]
    ControlNotAllowed,
    /// The transactional bit is set.
    #[error(
        "the record batch is transactional, which is not accepted here: send it within a transaction or clear the bit"
    )]
    TransactionalNotAllowed,
    /// The timestamp type bit is set.
    #[error("the record batch says its timestamps are append times: only the broker sets these; send create times")]
    AppendTimeNotAllowed,
    /// Producer id, epoch and sequence are neither all absent (-1) nor all in range.
    #[error(
        "the record batch carries producer id {id}, epoch {epoch}, first sequence {first_sequence}: give all three \
         (id from 0, epoch 0 to 32766, sequence from 0) or -1 for each"
    )]
    InvalidProducer { id: i64, epoch: i32, first_sequence: i32 },
    /// The batch is larger than the topic accepts.
    #[error("the record batch has {size} bytes, more than the {limit} of max.message.bytes: split it")]
    TooLarge { size: usize, limit: usize },
    /// The records are larger than the bound once they are unpacked.
    #[error("the record batch's records have more than {limit} bytes when unpacked: split the batch")]
    TooLargeUnpacked { limit: usize },
    /// The codec does not understand the bytes.
    #[error("the record batch's {compression} data cannot be unpacked ({detail}): encode the batch again")]
    CorruptCompression { compression: Compression, detail: String },
    /// Bytes are left over after the last record.
    #[error("{extra} bytes follow the record batch's last record: encode the batch again")]
    TrailingRecordBytes { extra: usize },
    /// Some records break a rule: the first ten of them.
    #[error("{}; correct or leave them out and send the batch again", list(.0))]
    InvalidRecords(Vec<InvalidRecord>),
}

fn list(invalid: &[InvalidRecord]) -> String {
    let named: Vec<_> = invalid.iter().map(ToString::to_string).collect();
    format!("records of the batch break rules: {}", named.join(", "))
}

/// A record that breaks a rule, by its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {index}: {fault}")]
pub struct InvalidRecord {
    /// Position in the batch, from 0.
    pub index: i32,
    /// The rule.
    pub fault: RecordFault,
}

/// The rule that a record breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The record or a field of it goes beyond the bytes there are.
    #[error("it ends in the middle of a field; encode it again")]
    Truncated,
    /// A length or count below what its field allows.
    #[error("a length or count in it is {value}; encode it again")]
    InvalidLength { value: i32 },
    /// A variable-length integer with more bits than its type.
    #[error("an integer in it has too many bits; encode it again")]
    VarintOverflow,
    /// The record's length is more than its fields take.
    #[error("{extra} bytes follow its last field; encode it again")]
    TrailingBytes { extra: usize },
    /// Offset deltas must count up from 0 without a gap (in stored batches: rise).
    #[error("its offset delta is {actual} where {expected} was expected; number the records from 0")]
    OffsetDelta { expected: i32, actual: i32 },
    /// The key is too long.
    #[error("its key has {bytes} bytes, more than {limit}; shorten it")]
    KeyTooLong { bytes: usize, limit: usize },
    /// Too many headers.
    #[error("it has {count} headers, more than {limit}; use fewer")]
    TooManyHeaders { count: usize, limit: usize },
    /// All headers together are too long.
    #[error("its headers have {bytes} bytes together, more than {limit}; shorten them")]
    HeadersTooLong { bytes: usize, limit: usize },
    /// A header name is too long.
    #[error("a header name of it has {bytes} bytes, more than {limit}; shorten it")]
    HeaderNameTooLong { bytes: usize, limit: usize },
    /// A header name is not text.
    #[error("a header name of it is not valid UTF-8; use text")]
    HeaderNameNotUtf8,
    /// A timestamp below -1 or beyond the number range.
    #[error("its timestamp is {timestamp}; give milliseconds since 1970, or -1 for none")]
    InvalidTimestamp { timestamp: i64 },
    /// A timestamp that lies too far ahead.
    #[error(
        "its timestamp {timestamp} is later than {latest}, an hour ahead of the broker; correct the clock or the unit (milliseconds)"
    )]
    TimestampInFuture { timestamp: i64, latest: i64 },
    /// The encoded record does not fit a batch at all.
    #[error("it has {bytes} bytes, more than a batch can hold; shorten it")]
    TooLong { bytes: usize },
}
