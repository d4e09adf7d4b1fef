//! Records of one stored batch by their timestamps. Pure.

use std::ops::Range;

use bytes::Bytes;
use taffrail_proto::record::walk::max_unpacked_bytes;
use taffrail_proto::record::{BatchError, Scratch, records};

use super::TimestampHit;

/// No topic's `max.message.bytes` is or ever was larger: what is stored was accepted under it or less.
const LARGEST_BATCH_BYTES: usize = 32 << 20;

/// The first record of `batch` among `offsets` whose timestamp is `timestamp` or later.
pub(super) fn first_from(
    batch: &Bytes,
    offsets: &Range<i64>,
    timestamp: i64,
    scratch: &mut Scratch,
) -> Result<Option<TimestampHit>, BatchError> {
    for record in records(batch, max_unpacked_bytes(LARGEST_BATCH_BYTES), scratch)? {
        let record = record?;
        if offsets.contains(&record.offset) && record.timestamp >= timestamp {
            return Ok(Some(TimestampHit { offset: record.offset, timestamp: record.timestamp }));
        }
    }
    Ok(None)
}

/// The record of `batch` among `offsets` with the newest timestamp; the first of them if several have it.
pub(super) fn newest(
    batch: &Bytes,
    offsets: &Range<i64>,
    scratch: &mut Scratch,
) -> Result<Option<TimestampHit>, BatchError> {
    let mut newest: Option<TimestampHit> = None;
    for record in records(batch, max_unpacked_bytes(LARGEST_BATCH_BYTES), scratch)? {
        let record = record?;
        let newer = newest.is_none_or(|hit| record.timestamp > hit.timestamp);
        if offsets.contains(&record.offset) && newer {
            newest = Some(TimestampHit { offset: record.offset, timestamp: record.timestamp });
        }
    }
    Ok(newest)
}
