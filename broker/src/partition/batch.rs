//! A batch on its way into the log: the one copy that is made of it, and what the leader writes into that.

use bytes::Bytes;
use taffrail_proto::record::{BatchHeader, TimestampType, header};

/// A batch in a buffer of its own, of its exact size: what arrived may be a slice of a much larger receive buffer, which
/// the batches kept in memory must not pin.
#[derive(Debug)]
pub(super) struct OwnedBatch {
    bytes: Vec<u8>,
    header: BatchHeader,
}

impl OwnedBatch {
    /// Copies a validated batch. `max_timestamp` is that of its records; the header is corrected where it says otherwise.
    pub(super) fn copy(batch: &Bytes, header: BatchHeader, max_timestamp: i64) -> Self {
        let mut owned = Self { bytes: batch.to_vec(), header };
        if header.max_timestamp != max_timestamp {
            header::set_max_timestamp(&mut owned.bytes, max_timestamp);
            owned.reparse();
        }
        owned
    }

    pub(super) fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Writes the leader's part, the append time (wall, milliseconds) where the topic wants it, and gives the batch out
    /// as it will be stored. Copies nothing.
    pub(super) fn place(
        mut self,
        base_offset: i64,
        leader_epoch: i32,
        log_append_time: Option<i64>,
    ) -> (Bytes, BatchHeader) {
        header::set_base_offset(&mut self.bytes, base_offset);
        header::set_leader_epoch(&mut self.bytes, leader_epoch);
        if let Some(millis) = log_append_time {
            header::set_append_time(&mut self.bytes, millis);
        }
        self.reparse();
        debug_assert!(self.header.timestamp_type() == TimestampType::CreateTime || log_append_time.is_some());
        (Bytes::from(self.bytes), self.header)
    }

    fn reparse(&mut self) {
        self.header = BatchHeader::parse(&self.bytes).expect("a parsed batch parses after its fixed fields were set");
    }
}
