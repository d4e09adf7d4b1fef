//! What an application reads: records, and the batches they came in. Nothing is copied out of an uncompressed batch.

use std::sync::Arc;

use bytes::Bytes;
use taffrail_proto::record::{BatchError, BatchHeader, RecordIter, RecordView, TimestampType};

use crate::error::{Error, ErrorKind, Result};

/// A name and a value attached to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// May repeat within a record.
    pub name: String,
    /// `None` is null, which is not the same as empty.
    pub value: Option<Bytes>,
}

/// A record that was read. Key, value and headers share the memory of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of the partition.
    pub partition: i32,
    /// Position in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 when the producer gave none.
    pub timestamp_ms: i64,
    /// Who set it.
    pub timestamp_type: TimestampType,
    /// Leader epoch under which the record was appended.
    pub leader_epoch: i32,
    /// `None` is null.
    pub key: Option<Bytes>,
    /// `None` is null.
    pub value: Option<Bytes>,
    /// In the producer's order.
    pub headers: Vec<Header>,
}

/// The records of one batch, from the position that was asked for: an iterator over [`RecordView`]s.
#[derive(Clone, Debug)]
pub struct RecordBatch {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) raw: Bytes,
    pub(super) records: RecordIter,
    /// First offset wanted.
    pub(super) from: i64,
    /// First offset not wanted.
    pub(super) until: i64,
}

impl RecordBatch {
    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Name of the topic, shared.
    pub(crate) fn topic_name(&self) -> &Arc<str> {
        &self.topic
    }

    /// Number of the partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Offset of the first record that is wanted, if it is there.
    pub(crate) fn first_wanted(&self) -> i64 {
        self.from.max(self.header().base_offset)
    }

    /// The header of the batch; it may begin before the first record that is wanted.
    pub fn header(&self) -> &BatchHeader {
        self.records.header()
    }

    /// The batch as it is stored (Kafka's RecordBatch v2), still compressed.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The next offset after this batch.
    pub fn next_offset(&self) -> i64 {
        self.header().next_offset().min(self.until)
    }

    /// The next record with everything that is known of it.
    pub(crate) fn next_record(&mut self) -> Option<Result<ConsumerRecord>> {
        let view = match self.next()? {
            Ok(view) => view,
            Err(error) => return Some(Err(error)),
        };
        Some(self.record(&view))
    }

    fn record(&self, view: &RecordView) -> Result<ConsumerRecord> {
        let header =
            |h: taffrail_proto::record::reader::HeaderView<'_>| Header { name: h.name.to_owned(), value: h.value };
        let headers: Result<Vec<_>, _> = view.headers().map(|h| h.map(header)).collect();
        let batch = self.header();
        Ok(ConsumerRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            offset: view.offset,
            timestamp_ms: view.timestamp,
            timestamp_type: batch.timestamp_type(),
            leader_epoch: batch.leader_epoch,
            key: view.key.clone(),
            value: view.value.clone(),
            headers: headers.map_err(|fault| damaged(&self.topic, self.partition, view.offset, &fault.to_string()))?,
        })
    }
}

impl Iterator for RecordBatch {
    type Item = Result<RecordView>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.next()? {
                Ok(view) if view.offset < self.from => {}
                Ok(view) if view.offset >= self.until => return None,
                Ok(view) => return Some(Ok(view)),
                Err(fault) => {
                    return Some(Err(bad_batch(&self.topic, self.partition, self.header().base_offset, &fault)));
                }
            }
        }
    }
}

pub(super) fn bad_batch(topic: &str, partition: i32, offset: i64, fault: &BatchError) -> Error {
    damaged(topic, partition, offset, &fault.to_string())
}

fn damaged(topic: &str, partition: i32, offset: i64, fault: &str) -> Error {
    let message = format!(
        "what was read of topic {topic:?}, partition {partition}, offset {offset} is damaged ({fault}): \
         seek beyond it, or check the broker with `taffrail-broker verify`"
    );
    Error::local(ErrorKind::DataCorrupt, message)
}
