//! One log in memory: batches, and the states that follow from them.

use bytes::Bytes;
use taffrail_proto::record::{BatchError, BatchHeader, Scratch};

use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::producers::{Producers, Sequenced};
use crate::storage::{Append, Extent, PartitionId, ReadError, Span, StorageError, TimestampHit, timestamps};

#[derive(Clone)]
struct Stored {
    header: BatchHeader,
    append_time: i64,
    /// Gone once the log was trimmed; what the header says about the producer stays (P6).
    batch: Option<Bytes>,
    damaged: bool,
}

/// A log: every batch that was ever appended and not truncated.
pub(super) struct LogState {
    partition: PartitionId,
    extent: Extent,
    batches: Vec<Stored>,
    epochs: LeaderEpochs,
    producers: Producers,
}

impl LogState {
    pub(super) fn new(partition: PartitionId) -> Self {
        let (extent, batches) = (Extent::default(), Vec::new());
        Self { partition, extent, batches, epochs: LeaderEpochs::new(), producers: Producers::new() }
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    pub(super) fn leader_epochs(&self) -> LeaderEpochs {
        self.epochs.clone()
    }

    pub(super) fn producers(&self) -> Producers {
        self.producers.clone()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.present().filter_map(|stored| stored.batch.as_ref()).map(|batch| batch.len() as u64).sum()
    }

    /// Each batch is a span of its own.
    pub(super) fn spans(&self) -> Vec<Span> {
        let span = |stored: &Stored| Span {
            first: stored.header.base_offset,
            last: stored.header.last_offset(),
            bytes: stored.header.size_in_bytes() as u64,
            max_append_time: stored.append_time,
            max_timestamp: stored.header.max_timestamp,
        };
        self.present().map(span).collect()
    }

    pub(super) fn damage(&mut self, offset: i64) -> bool {
        let holds = |stored: &&mut Stored| (stored.header.base_offset..stored.header.next_offset()).contains(&offset);
        self.batches.iter_mut().find(holds).map(|stored| stored.damaged = true).is_some()
    }

    pub(super) fn append(&mut self, append: Append) -> Result<(), StorageError> {
        let Append { batch, header, append_time, .. } = append;
        if header.base_offset != self.extent.end {
            return Err(StorageError::WrongOffset { base: header.base_offset, end: self.extent.end });
        }
        self.batches.push(Stored { header, append_time, batch: Some(batch), damaged: false });
        self.extent.end = header.next_offset();
        self.epochs.appended(header.leader_epoch, header.base_offset, header.next_offset());
        record(&mut self.producers, &header, append_time);
        Ok(())
    }

    pub(super) fn begin_epoch(&mut self, epoch: i32) -> Result<(), StorageError> {
        if self.epochs.latest().is_some_and(|latest| epoch <= latest) {
            return Err(self.out_of_bounds("leader epoch", i64::from(epoch)));
        }
        self.epochs.assign(epoch, self.extent.end);
        Ok(())
    }

    pub(super) fn truncate(&mut self, end: i64) -> Result<(), StorageError> {
        let first_removed = self.batches.partition_point(|stored| stored.header.next_offset() <= end);
        let splits = self.batches.get(first_removed).is_some_and(|stored| stored.header.base_offset < end);
        if end < self.extent.start || end > self.extent.end || splits {
            return Err(self.out_of_bounds("truncation", end));
        }
        self.batches.truncate(first_removed);
        self.extent.end = end;
        self.epochs.truncate(end);
        self.producers = Producers::new();
        for stored in &self.batches {
            record(&mut self.producers, &stored.header, stored.append_time);
        }
        Ok(())
    }

    pub(super) fn trim(&mut self, start: i64) -> Result<(), StorageError> {
        if start < self.extent.start || start > self.extent.end {
            return Err(self.out_of_bounds("trim", start));
        }
        self.extent.start = start;
        self.epochs.trim(start);
        for stored in self.batches.iter_mut().take_while(|stored| stored.header.next_offset() <= start) {
            stored.batch = None;
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, at: i64) -> Result<(), StorageError> {
        if at < self.extent.start {
            return Err(self.out_of_bounds("restart", at));
        }
        self.batches.clear();
        self.extent = Extent { start: at, end: at };
        self.epochs.truncate(at);
        self.epochs.trim(at);
        self.producers = Producers::new();
        Ok(())
    }

    fn out_of_bounds(&self, operation: &'static str, to: i64) -> StorageError {
        StorageError::OutOfBounds { operation, to, start: self.extent.start, end: self.extent.end }
    }

    /// Batches that hold records at or above the log's start.
    fn present(&self) -> impl Iterator<Item = &Stored> {
        self.batches.iter().filter(|stored| stored.batch.is_some())
    }

    pub(super) fn read(&self, from: i64, before: i64, max_bytes: usize) -> Result<Vec<Bytes>, ReadError> {
        let Extent { start, end } = self.extent;
        if from < start || from > end {
            return Err(ReadError::OutOfRange { offset: from, start, end });
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        let first = self.batches.partition_point(|stored| stored.header.next_offset() <= from);
        for stored in self.batches[first..].iter().take_while(|stored| stored.header.base_offset < before) {
            bytes += stored.header.size_in_bytes();
            if !batches.is_empty() && (bytes > max_bytes || stored.damaged) {
                break;
            }
            batches.push(stored.read()?);
        }
        Ok(batches)
    }

    pub(super) fn find_timestamp(&self, timestamp: i64, before: i64) -> Result<Option<TimestampHit>, ReadError> {
        let (offsets, mut scratch) = (self.extent.start..before, Scratch::new());
        let candidates = self.present().filter(|stored| stored.header.max_timestamp >= timestamp);
        for stored in candidates.take_while(|stored| stored.header.base_offset < before) {
            let found = timestamps::first_from(&stored.read()?, &offsets, timestamp, &mut scratch);
            if let Some(hit) = found.map_err(|fault| stored.corrupt(&fault))? {
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }

    pub(super) fn max_timestamp(&self, before: i64) -> Result<Option<TimestampHit>, ReadError> {
        let (offsets, mut scratch) = (self.extent.start..before, Scratch::new());
        let mut newest: Option<TimestampHit> = None;
        for stored in self.present().take_while(|stored| stored.header.base_offset < before) {
            let found = timestamps::newest(&stored.read()?, &offsets, &mut scratch);
            let hit = found.map_err(|fault| stored.corrupt(&fault))?;
            newest = match (newest, hit) {
                (Some(a), Some(b)) if b.timestamp <= a.timestamp => Some(a),
                (before, hit) => hit.or(before),
            };
        }
        Ok(newest)
    }
}

impl Stored {
    fn read(&self) -> Result<Bytes, ReadError> {
        match &self.batch {
            Some(batch) if !self.damaged => Ok(batch.clone()),
            _ => Err(ReadError::Corrupt {
                first: self.header.base_offset,
                last: self.header.last_offset(),
                what: "damaged by a test".to_owned(),
            }),
        }
    }

    fn corrupt(&self, fault: &BatchError) -> ReadError {
        let (first, last) = (self.header.base_offset, self.header.last_offset());
        ReadError::Corrupt { first, last, what: fault.to_string() }
    }
}

fn record(producers: &mut Producers, header: &BatchHeader, append_time: i64) {
    if let Some(sequenced) = Sequenced::of(header) {
        producers.record(&sequenced, append_time);
    }
    producers.expire(append_time);
}
