//! Decodes the records of a stored batch, without copying keys, values and headers.
//!
//! Tolerant of gaps between offsets (compaction removes records), strict about everything else. The CRC is checked by
//! [`verify_crc`](super::header::verify_crc), not here. Control batches decode like others; their records are markers and
//! not for applications.

use bytes::Bytes;

use super::compression::{Compression, Scratch};
use super::entry::{Entry, Headers};
use super::error::{BatchError, InvalidRecord, RecordFault};
use super::header::{BatchHeader, HEADER_LEN, TimestampType};
use super::varint::Cursor;

/// A record of a batch. Its parts share the memory of the batch, or of the batch's unpacked records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 when there is none.
    pub timestamp: i64,
    /// Absent is null.
    pub key: Option<Bytes>,
    /// Absent is null.
    pub value: Option<Bytes>,
    header_count: u32,
    header_bytes: Bytes,
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// May repeat within a record.
    pub name: &'a str,
    /// Absent is null.
    pub value: Option<Bytes>,
}

impl RecordView {
    /// How many headers the record says it has.
    #[must_use]
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The headers in order, decoded as they are taken. Ends after the first fault.
    pub fn headers(&self) -> impl Iterator<Item = Result<HeaderView<'_>, RecordFault>> {
        Headers::new(&self.header_bytes, self.header_count).map(|header| {
            let (name, value) = header?;
            Ok(HeaderView { name, value: value.map(|value| self.header_bytes.slice_ref(value)) })
        })
    }
}

/// The records of one batch in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct RecordIter {
    header: BatchHeader,
    /// What is left of the (unpacked) records.
    rest: Bytes,
    /// Position of the next record.
    index: i32,
    /// The least offset delta that the next record may have.
    next_delta: i32,
}

impl RecordIter {
    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the (unpacked) records that are still to come.
    #[must_use]
    pub fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    fn decode(&mut self) -> Result<RecordView, RecordFault> {
        let mut cursor = Cursor::new(&self.rest);
        let entry = next_entry(&mut cursor, self.next_delta, &self.header)?;
        let share = |part: &[u8]| self.rest.slice_ref(part);
        let record = RecordView {
            offset: self.header.base_offset + i64::from(entry.offset_delta),
            timestamp: timestamp_of(&entry, &self.header),
            key: entry.key.map(share),
            value: entry.value.map(share),
            header_count: entry.headers.announced(),
            header_bytes: if entry.headers.announced() == 0 { Bytes::new() } else { share(entry.headers.bytes()) },
        };
        self.next_delta = entry.offset_delta.saturating_add(1);
        let read = self.rest.len() - cursor.rest().len();
        bytes::Buf::advance(&mut self.rest, read);
        Ok(record)
    }
}

impl Iterator for RecordIter {
    type Item = Result<RecordView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.header.record_count {
            let extra = self.rest.len();
            self.rest.clear();
            return (extra > 0).then_some(Err(BatchError::TrailingRecordBytes { extra }));
        }
        let index = self.index;
        match self.decode() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(fault) => {
                self.index = self.header.record_count;
                self.rest.clear();
                Some(Err(BatchError::InvalidRecords(vec![InvalidRecord { index, fault }])))
            }
        }
    }
}

impl std::iter::FusedIterator for RecordIter {}

/// The records of the batch at the beginning of `batch`. Compressed ones are unpacked here, to at most `limit` bytes
/// ([`max_unpacked_bytes`](super::walk::max_unpacked_bytes) of what brokers accept).
pub fn records(batch: &Bytes, limit: usize, scratch: &mut Scratch) -> Result<RecordIter, BatchError> {
    let header = checked_header(batch)?;
    let packed = batch.slice(HEADER_LEN..header.size_in_bytes());
    let rest = match header.compression()? {
        Compression::None => packed,
        compression => Bytes::copy_from_slice(scratch.unpack(compression, &packed, limit)?),
    };
    Ok(RecordIter { header, rest, index: 0, next_delta: 0 })
}

/// Offset and timestamp of the batch's first record whose timestamp is `target` or later.
pub fn find_by_timestamp(
    batch: &[u8],
    target: i64,
    limit: usize,
    scratch: &mut Scratch,
) -> Result<Option<(i64, i64)>, BatchError> {
    let header = checked_header(batch)?;
    let packed = &batch[HEADER_LEN..header.size_in_bytes()];
    let mut cursor = Cursor::new(scratch.unpack(header.compression()?, packed, limit)?);
    let mut next_delta = 0;
    for index in 0..header.record_count {
        let entry = next_entry(&mut cursor, next_delta, &header)
            .map_err(|fault| BatchError::InvalidRecords(vec![InvalidRecord { index, fault }]))?;
        let timestamp = timestamp_of(&entry, &header);
        if timestamp >= target {
            return Ok(Some((header.base_offset + i64::from(entry.offset_delta), timestamp)));
        }
        next_delta = entry.offset_delta.saturating_add(1);
    }
    Ok(None)
}

/// The header of a stored batch: its offsets must have numbers.
fn checked_header(batch: &[u8]) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let base_offset = header.base_offset;
    if base_offset < 0 || base_offset.checked_add(i64::from(header.last_offset_delta) + 1).is_none() {
        return Err(BatchError::InvalidOffset { base_offset });
    }
    Ok(header)
}

fn next_entry<'a>(cursor: &mut Cursor<'a>, next_delta: i32, header: &BatchHeader) -> Result<Entry<'a>, RecordFault> {
    let entry = Entry::parse(Entry::frame(cursor)?)?;
    check_delta(&entry, next_delta, header)?;
    Ok(entry)
}

/// Offsets rise and stay within the batch.
fn check_delta(entry: &Entry<'_>, next_delta: i32, header: &BatchHeader) -> Result<(), RecordFault> {
    if (next_delta..=header.last_offset_delta).contains(&entry.offset_delta) {
        return Ok(());
    }
    Err(RecordFault::OffsetDelta { expected: next_delta, actual: entry.offset_delta })
}

fn timestamp_of(entry: &Entry<'_>, header: &BatchHeader) -> i64 {
    match header.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.saturating_add(entry.timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

#[cfg(test)]
mod tests;
