//! Encodes records into a batch: for clients, and for the broker on behalf of clients that send plain records.
//!
//! Records are written once, uncompressed, behind room for the header. No record costs an allocation. What the builder
//! accepts passes [`validate`](super::walk::validate), apart from its bounds on batch size and clock.

use bytes::Bytes;

use super::compression::{Compression, Packer};
use super::error::{BatchError, RecordFault};
use super::header::{
    ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BASE_TIMESTAMP, BATCH_LENGTH, BatchProducer, HEADER_LEN, LAST_OFFSET_DELTA,
    LEADER_EPOCH, LENGTH_PREFIX, MAGIC, MAGIC_AT, MAX_TIMESTAMP, NO_LEADER_EPOCH, NO_TIMESTAMP, PRODUCER_EPOCH,
    PRODUCER_ID, RECORD_COUNT, put, seal,
};
use super::varint::{self, encoded_len};
use super::walk::{check_header_name, check_header_totals, check_key, check_timestamp};

/// Length, attributes, timestamp delta, offset delta and key length at their longest.
const MAX_PREFIX: usize = 5 + 1 + varint::MAX_LEN + 5 + 5;

/// Collects records and makes a batch of them. Used again, it keeps its memory.
///
/// ```
/// use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(Some(b"key"), Some(b"value"), [("trace", Some(&b"1"[..]))], 1_700_000_000_000).unwrap();
/// builder.push(None, None, [], -1).unwrap();
/// let batch = builder.build(Compression::Lz4, None).unwrap();
/// assert_eq!(BatchHeader::parse(&batch).unwrap().record_count, 2);
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    packer: Packer,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// What a record will take.
struct Measured {
    timestamp_delta: i64,
    header_count: usize,
    /// Bytes after the length field.
    length: usize,
    /// Bytes with the length field.
    total: usize,
}

impl BatchBuilder {
    /// Without records.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(HEADER_LEN)
    }

    /// Without records, with room for a batch of `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut builder = Self {
            bytes: Vec::with_capacity(capacity.max(HEADER_LEN)),
            count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            packer: Packer::new(),
        };
        builder.clear();
        builder
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_LEN, 0);
        self.count = 0;
        self.base_timestamp = NO_TIMESTAMP;
        self.max_timestamp = NO_TIMESTAMP;
    }

    /// No records yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the batch if it were built now: exactly without compression, else at most.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record. `timestamp` is in milliseconds since 1970, -1 for none. After an error nothing was added.
    ///
    /// Headers keep their order and may repeat; the iterator is gone through twice.
    #[inline]
    pub fn push<'a, H>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
        timestamp: i64,
    ) -> Result<(), RecordFault>
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        let measured = self.measure(key, value, headers.clone(), timestamp)?;
        self.bytes.reserve(measured.total);
        self.write_prefix(&measured, key);
        self.write_nullable(value);
        self.write_int(measured.header_count as i64);
        for (name, value) in headers {
            self.write_int(name.len() as i64);
            self.bytes.extend_from_slice(name.as_bytes());
            self.write_nullable(value);
        }
        if self.count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.count += 1;
        Ok(())
    }

    /// Whether the batch, with this record added, has at most `max_batch_bytes`, whatever the compression.
    ///
    /// The rule for splitting: when it does not fit and the builder is not empty, build, then ask again; a record that does
    /// not fit an empty builder is too large for the topic. An invalid record "fits", so that `push` refuses it.
    #[must_use]
    pub fn would_fit<'a, H>(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
        timestamp: i64,
        max_batch_bytes: usize,
    ) -> bool
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    {
        match self.measure(key, value, headers.into_iter(), timestamp) {
            Ok(measured) => self.size() + measured.total <= max_batch_bytes,
            Err(RecordFault::TooLong { .. }) => false,
            Err(_) => true,
        }
    }

    /// Makes the batch and begins anew with the same memory. Base offset 0, no leader epoch, create time.
    ///
    /// Data that a codec would make longer is stored uncompressed, so that [`size`](Self::size) is always a bound.
    pub fn build(&mut self, compression: Compression, producer: Option<BatchProducer>) -> Result<Bytes, BatchError> {
        if self.is_empty() {
            return Err(BatchError::Empty);
        }
        let header = self.header(producer);
        let records = &self.bytes[HEADER_LEN..];
        let packed = self.packer.pack(compression, records)?;
        let batch = if packed.len() < records.len() {
            let mut batch = Vec::with_capacity(HEADER_LEN + packed.len());
            batch.extend_from_slice(&header);
            batch.extend_from_slice(packed);
            finish(&mut batch, compression);
            Bytes::from(batch)
        } else {
            self.bytes[..HEADER_LEN].copy_from_slice(&header);
            finish(&mut self.bytes, Compression::None);
            self.take_plain()
        };
        self.clear();
        Ok(batch)
    }

    /// The finished bytes: given away when they fill their memory well, else copied, so that a small batch that waits to
    /// be sent does not hold a large buffer.
    fn take_plain(&mut self) -> Bytes {
        let capacity = self.bytes.capacity();
        if self.bytes.len() < capacity / 2 {
            return Bytes::copy_from_slice(&self.bytes);
        }
        Bytes::from(std::mem::replace(&mut self.bytes, Vec::with_capacity(capacity)))
    }

    fn header(&self, producer: Option<BatchProducer>) -> [u8; HEADER_LEN] {
        let producer = producer.unwrap_or(BatchProducer { id: -1, epoch: -1, first_sequence: -1 });
        let mut header = [0; HEADER_LEN];
        put(&mut header, BASE_OFFSET, 0_i64.to_be_bytes());
        put(&mut header, LEADER_EPOCH, NO_LEADER_EPOCH.to_be_bytes());
        put(&mut header, MAGIC_AT, MAGIC.to_be_bytes());
        put(&mut header, LAST_OFFSET_DELTA, (self.count - 1).to_be_bytes());
        put(&mut header, BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut header, MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut header, PRODUCER_ID, producer.id.to_be_bytes());
        put(&mut header, PRODUCER_EPOCH, producer.epoch.to_be_bytes());
        put(&mut header, BASE_SEQUENCE, producer.first_sequence.to_be_bytes());
        put(&mut header, RECORD_COUNT, self.count.to_be_bytes());
        header
    }

    #[inline]
    fn measure<'a>(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        timestamp: i64,
    ) -> Result<Measured, RecordFault> {
        check_key(key)?;
        check_timestamp(timestamp)?;
        let (mut header_count, mut header_bytes) = (0, 0);
        for (name, value) in headers {
            check_header_name(name)?;
            header_count += 1;
            header_bytes += encoded_len(name.len() as i64) + name.len() + nullable_len(value);
            check_header_totals(header_count, header_bytes)?;
        }
        // Both lie between -1 and the largest value, so that the difference has a number.
        let timestamp_delta = if self.count == 0 { 0 } else { timestamp - self.base_timestamp };
        let length = 1
            + encoded_len(timestamp_delta)
            + encoded_len(i64::from(self.count))
            + nullable_len(key)
            + nullable_len(value)
            + encoded_len(header_count as i64)
            + header_bytes;
        let total = encoded_len(length as i64) + length;
        // Also keeps the count in range: a record takes several bytes.
        if self.bytes.len() + total > i32::MAX as usize {
            return Err(RecordFault::TooLong { bytes: total });
        }
        Ok(Measured { timestamp_delta, header_count, length, total })
    }

    /// Everything up to and including the key, most of it in one piece.
    #[inline]
    fn write_prefix(&mut self, measured: &Measured, key: Option<&[u8]>) {
        let mut prefix = [0; MAX_PREFIX];
        let mut at = varint::encode(&mut prefix, 0, measured.length as i64);
        at += 1; // attributes: none
        at = varint::encode(&mut prefix, at, measured.timestamp_delta);
        at = varint::encode(&mut prefix, at, i64::from(self.count));
        at = varint::encode(&mut prefix, at, key.map_or(-1, |key| key.len() as i64));
        self.bytes.extend_from_slice(&prefix[..at]);
        self.bytes.extend_from_slice(key.unwrap_or_default());
    }

    #[inline]
    fn write_nullable(&mut self, value: Option<&[u8]>) {
        self.write_int(value.map_or(-1, |value| value.len() as i64));
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    #[inline]
    fn write_int(&mut self, value: i64) {
        let mut buffer = [0; varint::MAX_LEN];
        let length = varint::encode(&mut buffer, 0, value);
        self.bytes.extend_from_slice(&buffer[..length]);
    }
}

fn nullable_len(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| encoded_len(value.len() as i64) + value.len())
}

/// Sets what depends on the packed records.
fn finish(batch: &mut [u8], compression: Compression) {
    let length = (batch.len() - LENGTH_PREFIX) as i32;
    put(batch, BATCH_LENGTH, length.to_be_bytes());
    put(batch, ATTRIBUTES, i16::from(compression).to_be_bytes());
    seal(batch);
}

#[cfg(test)]
mod tests;
