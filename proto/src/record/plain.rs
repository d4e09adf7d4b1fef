//! Between batches and the API's plain records, for clients that have nothing but generated stubs.

use super::builder::BatchBuilder;
use super::compression::Compression;
use super::error::{BatchError, InvalidRecord, RecordFault};
use super::header::{BatchHeader, BatchProducer, TimestampType};
use super::reader::RecordView;
use crate::v1;

impl BatchBuilder {
    /// Adds a plain record; one without a timestamp gets `now_millis`.
    pub fn push_plain(&mut self, record: &v1::Record, now_millis: i64) -> Result<(), RecordFault> {
        let timestamp = record.timestamp_ms.unwrap_or(now_millis);
        self.push(record.key.as_deref(), record.value.as_deref(), headers(record), timestamp)
    }

    /// [`would_fit`](Self::would_fit) for a plain record.
    #[must_use]
    pub fn would_fit_plain(&self, record: &v1::Record, now_millis: i64, max_batch_bytes: usize) -> bool {
        let timestamp = record.timestamp_ms.unwrap_or(now_millis);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        self.would_fit(key, value, headers(record), timestamp, max_batch_bytes)
    }
}

fn headers(record: &v1::Record) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
    record.headers.iter().map(|header| (header.name.as_str(), header.value.as_deref()))
}

impl RecordView {
    /// The plain form of a record that was read from `partition` in a batch with this header. Shares the record's memory.
    pub fn to_stored(&self, partition: i32, batch: &BatchHeader) -> Result<v1::StoredRecord, RecordFault> {
        // No capacity from the wire's count: iterating stops where the bytes do.
        let mut headers = Vec::new();
        for header in self.headers() {
            let header = header?;
            headers.push(v1::Header { name: header.name.to_owned(), value: header.value });
        }
        Ok(v1::StoredRecord {
            partition,
            offset: self.offset,
            timestamp_ms: self.timestamp,
            timestamp_type: v1::TimestampType::from(batch.timestamp_type()).into(),
            leader_epoch: batch.leader_epoch,
            key: self.key.clone(),
            value: self.value.clone(),
            headers,
        })
    }
}

impl From<TimestampType> for v1::TimestampType {
    fn from(kind: TimestampType) -> Self {
        match kind {
            TimestampType::CreateTime => Self::CreateTime,
            TimestampType::LogAppendTime => Self::LogAppendTime,
        }
    }
}

impl From<v1::Compression> for Compression {
    fn from(compression: v1::Compression) -> Self {
        match compression {
            v1::Compression::None => Self::None,
            v1::Compression::Gzip => Self::Gzip,
            v1::Compression::Snappy => Self::Snappy,
            v1::Compression::Lz4 => Self::Lz4,
            v1::Compression::Zstd => Self::Zstd,
        }
    }
}

impl From<Compression> for v1::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Snappy => Self::Snappy,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

impl From<InvalidRecord> for v1::RecordError {
    fn from(record: InvalidRecord) -> Self {
        Self { index: record.index, message: record.fault.to_string() }
    }
}

impl BatchError {
    /// The API's reason for refusing a produced batch with this fault.
    #[must_use]
    pub fn reason(&self) -> v1::Reason {
        match self {
            Self::TooLarge { .. } | Self::TooLargeUnpacked { .. } => v1::Reason::BatchTooLarge,
            Self::InvalidRecords(_) => v1::Reason::InvalidRecord,
            Self::UnsupportedMagic { .. }
            | Self::Empty
            | Self::UnknownAttributes { .. }
            | Self::UnknownCompression { .. }
            | Self::ControlNotAllowed
            | Self::TransactionalNotAllowed
            | Self::AppendTimeNotAllowed
            | Self::InvalidProducer { .. } => v1::Reason::InvalidRequest,
            Self::Truncated { .. }
            | Self::InvalidLength { .. }
            | Self::TrailingBytes { .. }
            | Self::CrcMismatch { .. }
            | Self::InvalidCount { .. }
            | Self::InvalidOffset { .. }
            | Self::CorruptCompression { .. }
            | Self::TrailingRecordBytes { .. } => v1::Reason::CorruptBatch,
        }
    }

    /// The records at fault, for the API's `record_errors`.
    #[must_use]
    pub fn record_errors(&self) -> Vec<v1::RecordError> {
        match self {
            Self::InvalidRecords(invalid) => invalid.iter().copied().map(Into::into).collect(),
            _ => Vec::new(),
        }
    }
}

impl BatchProducer {
    /// From a plain request's identity and the sequence number of its first record.
    pub fn from_plain(identity: v1::ProducerIdentity, first_sequence: i32) -> Result<Self, BatchError> {
        Self::new(identity.id, identity.epoch, first_sequence)
    }
}

#[cfg(test)]
mod tests;
