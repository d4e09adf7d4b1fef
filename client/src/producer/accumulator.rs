//! Where records gather into batches: one open batch for each partition, filled by `send`, taken by the sender.
//!
//! A record is encoded once, into its batch, under the partition's lock; nothing is allocated for it. A batch is sealed by
//! the record that finds it full, by the sender when its linger has passed, or by a flush. Batches leave a partition in
//! the order in which they were opened. All bytes that wait for an answer are counted, so that memory has a bound.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use taffrail_proto::record::{BatchBuilder, RecordFault};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::builder::Settings;
use super::delivery::{BatchState, Receipt};
use super::record::Record;
use crate::error::{Error, ErrorKind, Result};

/// Builders that are kept for the next batch; each holds about a batch of memory.
const BUILDERS_KEPT: usize = 64;

/// A batch that is complete and encoded, without producer identity.
#[derive(Debug)]
pub(super) struct SealedBatch {
    pub(super) bytes: Bytes,
    pub(super) records: i32,
    /// Bytes that it counts for in the buffer memory.
    pub(super) memory: usize,
    /// When its first record came.
    pub(super) opened: Instant,
    pub(super) state: Arc<BatchState>,
}

/// One partition's open batch and those sealed that the sender has not taken yet.
#[derive(Debug)]
pub(super) struct PartitionBuffer {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// Number of this buffer in its producer, for the sender's table.
    pub(super) slot: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: Option<OpenBatch>,
    sealed: VecDeque<SealedBatch>,
    /// Batches opened so far: names the open one.
    opened: u64,
    /// It stands in the list of partitions with sealed batches.
    listed: bool,
}

#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    memory: usize,
    opened: Instant,
    state: Arc<BatchState>,
}

/// What the sender has to look at.
#[derive(Default)]
struct Work {
    sealed: Vec<Arc<PartitionBuffer>>,
    /// Open batches by the end of their linger, which is the order of their opening.
    lingering: VecDeque<(Instant, Arc<PartitionBuffer>, u64)>,
}

/// What `send` and the sender share.
pub(super) struct Accumulator {
    settings: Settings,
    buffered: AtomicUsize,
    room: Notify,
    work: Mutex<Work>,
    wake: Notify,
    builders: Mutex<Vec<BatchBuilder>>,
}

/// What adding a record did.
pub(super) struct Added {
    pub(super) receipt: Option<Receipt>,
    /// A batch was full and was sealed.
    pub(super) sealed: bool,
}

impl PartitionBuffer {
    pub(super) fn new(topic: Arc<str>, partition: i32, slot: u32) -> Arc<Self> {
        Arc::new(Self { topic, partition, slot, inner: Mutex::default() })
    }
}

impl Accumulator {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            buffered: AtomicUsize::new(0),
            room: Notify::new(),
            work: Mutex::default(),
            wake: Notify::new(),
            builders: Mutex::default(),
        }
    }

    /// Takes `bytes` of the buffer memory if they are there.
    pub(super) fn try_reserve(&self, bytes: usize) -> bool {
        // One record beyond the limit is let in, so that one larger than what is left does not wait for emptiness. Not added
        // and taken back: that would wake those who wait, each other and themselves, without end.
        let add = |before| (before < self.settings.buffer_memory).then_some(before + bytes);
        self.buffered.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).is_ok()
    }

    /// Waits for that. Fails nobody: batches end by their delivery timeout at the latest.
    pub(super) async fn reserve(&self, bytes: usize) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.try_reserve(bytes) {
                return;
            }
            // What is open will not get fuller: whoever would fill it waits here.
            self.seal_all();
            room.await;
        }
    }

    /// Gives bytes back.
    pub(super) fn release(&self, bytes: usize) {
        let before = self.buffered.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.settings.buffer_memory {
            self.room.notify_waiters();
        }
    }

    /// Bytes that wait for an answer.
    pub(super) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Puts a record, for which `memory` was reserved, into the partition's batch. `max_bytes` is the largest batch that
    /// the topic takes.
    pub(super) fn add(
        &self,
        buffer: &Arc<PartitionBuffer>,
        record: &Record<'_>,
        memory: usize,
        max_bytes: usize,
        with_receipt: bool,
    ) -> Result<Added> {
        let timestamp = record.timestamp_ms.unwrap_or_else(now_ms);
        let target = self.settings.batch_size.min(max_bytes);
        let mut inner = buffer.inner.lock();
        let mut sealed = false;
        if inner.open.as_ref().is_some_and(|o| !o.builder.is_empty() && o.builder.size() + memory > target) {
            self.seal(buffer, &mut inner);
            sealed = true;
        }
        let opened = inner.open.is_none();
        let open = inner.open.get_or_insert_with(|| self.open(buffer.partition));
        let headers = record.headers.iter().copied();
        if memory > max_bytes
            && !open.builder.would_fit(record.key, record.value, headers.clone(), timestamp, max_bytes)
        {
            inner.open.take_if(|_| opened);
            return Err(too_large(record, max_bytes));
        }
        if let Err(fault) = open.builder.push(record.key, record.value, headers, timestamp) {
            inner.open.take_if(|_| opened);
            return Err(refused(record, fault));
        }
        open.memory += memory;
        let receipt = with_receipt.then(|| Receipt::new(open.state.clone(), open.builder.len() as u32 - 1));
        if opened {
            let (end, number) = (open.opened + self.settings.linger, inner.opened + 1);
            inner.opened = number;
            let mut work = self.work.lock();
            let first = work.lingering.is_empty();
            work.lingering.push_back((end, buffer.clone(), number));
            drop(work);
            // Otherwise the sender sleeps until the end of an earlier one.
            if first {
                self.wake.notify_one();
            }
        }
        Ok(Added { receipt, sealed })
    }

    fn open(&self, partition: i32) -> OpenBatch {
        let builder = self.builders.lock().pop().unwrap_or_default();
        OpenBatch { builder, memory: 0, opened: Instant::now(), state: BatchState::new(partition) }
    }

    /// Closes the open batch, if there is one with records.
    fn seal(&self, buffer: &Arc<PartitionBuffer>, inner: &mut Inner) {
        let Some(mut open) = inner.open.take() else { return };
        let records = open.builder.len() as i32;
        match open.builder.build(self.settings.compression, None) {
            Ok(bytes) => inner.sealed.push_back(SealedBatch {
                bytes,
                records,
                memory: open.memory,
                opened: open.opened,
                state: open.state,
            }),
            Err(fault) => {
                self.release(open.memory);
                let message = format!("the batch cannot be encoded ({fault}): use another compression");
                open.state.complete(Err(Error::local(ErrorKind::RecordRefused, message)));
            }
        }
        let mut builders = self.builders.lock();
        if builders.len() < BUILDERS_KEPT {
            open.builder.clear();
            builders.push(open.builder);
        }
        drop(builders);
        if !std::mem::replace(&mut inner.listed, true) {
            self.work.lock().sealed.push(buffer.clone());
            self.wake.notify_one();
        }
    }

    /// Seals every open batch.
    pub(super) fn seal_all(&self) {
        let lingering = std::mem::take(&mut self.work.lock().lingering);
        for (_, buffer, number) in lingering {
            self.seal_number(&buffer, number);
        }
    }

    /// Seals the batches whose linger has passed; answers when the next one's will.
    pub(super) fn seal_lingered(&self, now: Instant) -> Option<Instant> {
        loop {
            let due = {
                let mut work = self.work.lock();
                match work.lingering.front() {
                    Some((end, ..)) if *end <= now => work.lingering.pop_front(),
                    front => return front.map(|(end, ..)| *end),
                }
            };
            if let Some((_, buffer, number)) = due {
                self.seal_number(&buffer, number);
            }
        }
    }

    fn seal_number(&self, buffer: &Arc<PartitionBuffer>, number: u64) {
        let mut inner = buffer.inner.lock();
        if inner.opened == number {
            self.seal(buffer, &mut inner);
        }
    }

    /// Takes all sealed batches, each partition's in order.
    pub(super) fn take_sealed(&self, mut take: impl FnMut(&Arc<PartitionBuffer>, SealedBatch)) {
        let sealed = std::mem::take(&mut self.work.lock().sealed);
        for buffer in sealed {
            let batches = {
                let mut inner = buffer.inner.lock();
                inner.listed = false;
                std::mem::take(&mut inner.sealed)
            };
            for batch in batches {
                take(&buffer, batch);
            }
        }
    }

    /// Resolves when there may be something to take, or a new batch to wait for.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as i64)
}

fn too_large(record: &Record<'_>, max_bytes: usize) -> Error {
    let message = format!(
        "the record for topic {:?} does not fit a batch of {max_bytes} bytes: shorten it or raise max.message.bytes",
        record.topic
    );
    Error::local(ErrorKind::RecordRefused, message)
}

fn refused(record: &Record<'_>, fault: RecordFault) -> Error {
    Error::local(ErrorKind::RecordRefused, format!("the record for topic {:?} is refused: {fault}", record.topic))
}

#[cfg(test)]
mod tests;
