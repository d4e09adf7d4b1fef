//! One record as it lies in a batch, borrowed.
//!
//! ```text
//! length           varint   bytes that follow
//! attributes       i8       unused, ignored
//! timestamp delta  varlong  to the batch's base timestamp
//! offset delta     varint   to the batch's base offset
//! key length       varint   -1: null
//! key
//! value length     varint   -1: null
//! value
//! header count     varint   each: name length varint, name, value length varint (-1: null), value
//! ```

use super::error::RecordFault;
use super::varint::Cursor;

/// The longest key. Kafka has no limit of its own; keys are held in memory for compaction and partitioning, and a key
/// of this size is a mistake.
pub const MAX_KEY_BYTES: usize = 64 << 10;
/// The most headers a record may have.
pub const MAX_HEADERS: usize = 1_000;
/// The most bytes that a record's headers may take as encoded, names, values and lengths together.
pub const MAX_HEADERS_BYTES: usize = 64 << 10;
/// The longest header name.
pub const MAX_HEADER_NAME_BYTES: usize = 32 << 10;

/// A record's fields. Headers are decoded when they are asked for.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Headers<'a>,
}

impl<'a> Entry<'a> {
    /// Cuts the next record's bytes, without the length in front of them, from a batch's records.
    pub(super) fn frame(records: &mut Cursor<'a>) -> Result<&'a [u8], RecordFault> {
        let length = records.int()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::InvalidLength { value: length })?;
        records.take(length)
    }

    /// Decodes what [`frame`](Self::frame) cut. With headers, what is behind them is checked by iterating over them.
    pub(super) fn parse(frame: &'a [u8]) -> Result<Self, RecordFault> {
        let mut cursor = Cursor::new(frame);
        cursor.byte()?;
        let timestamp_delta = cursor.long()?;
        let offset_delta = cursor.int()?;
        let key = nullable(&mut cursor)?;
        let value = nullable(&mut cursor)?;
        let count = cursor.int()?;
        let left = u32::try_from(count).map_err(|_| RecordFault::InvalidLength { value: count })?;
        let headers = Headers { cursor, left };
        if left == 0 {
            headers.check_end()?;
        }
        Ok(Self { timestamp_delta, offset_delta, key, value, headers })
    }
}

/// A record's headers in order, decoded one by one. Ends after the first fault.
#[derive(Debug)]
pub(super) struct Headers<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

impl<'a> Headers<'a> {
    pub(super) fn new(bytes: &'a [u8], count: u32) -> Self {
        Self { cursor: Cursor::new(bytes), left: count }
    }

    /// How many there should be; as large as the wire says.
    pub(super) fn announced(&self) -> u32 {
        self.left
    }

    /// Bytes from the first header to the record's end.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    fn check_end(&self) -> Result<(), RecordFault> {
        match self.cursor.rest().len() {
            0 => Ok(()),
            extra => Err(RecordFault::TrailingBytes { extra }),
        }
    }

    fn decode(&mut self) -> Result<(&'a str, Option<&'a [u8]>), RecordFault> {
        let length = self.cursor.int()?;
        let length = usize::try_from(length).map_err(|_| RecordFault::InvalidLength { value: length })?;
        let name = self.cursor.take(length)?;
        let value = nullable(&mut self.cursor)?;
        if self.left == 1 {
            self.check_end()?;
        }
        Ok((str::from_utf8(name).map_err(|_| RecordFault::HeaderNameNotUtf8)?, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a str, Option<&'a [u8]>), RecordFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let header = self.decode();
        self.left = if header.is_ok() { self.left - 1 } else { 0 };
        Some(header)
    }
}

/// Bytes behind a length; -1 is null.
fn nullable<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, RecordFault> {
    match cursor.int()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| RecordFault::InvalidLength { value: length })?;
            cursor.take(length).map(Some)
        }
    }
}
