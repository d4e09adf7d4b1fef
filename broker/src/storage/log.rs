//! One log: the cell that the writer changes and readers look at, and its handle for the outside.
//!
//! The writer thread alone changes a cell's state (maintenance changes where sealed pieces lie); readers hold the lock for a
//! lookup, never while something waits for the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use taffrail_proto::record::BatchHeader;
use tokio::sync::oneshot;

use super::footer::Piece;
use super::leader_epochs::LeaderEpochs;
use super::ledger::Snapshot;
use super::producers::Producers;
use super::recent::Recent;
use super::shared::Shared;
use super::state::LogState;
use super::writer::{Command, Operation};
use super::{Append, Extent, Log, LogId, PartitionId, ReadError, Span, Ticket, TimestampHit, read};

/// A log within the engine.
#[derive(Debug)]
pub(crate) struct LogCell {
    pub(crate) id: LogId,
    pub(crate) partition: PartitionId,
    start: AtomicI64,
    end: AtomicI64,
    deleted: AtomicBool,
    truncations: AtomicU64,
    inner: Mutex<Inner>,
    /// What only the writer uses.
    pub(crate) writer: WriterNotes,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) state: LogState,
    pub(crate) recent: Recent,
}

/// The writer's notes on a log. Atomic only because the cell is shared.
#[derive(Debug)]
pub(crate) struct WriterNotes {
    /// The log's end with all that is staged.
    pub(crate) next: AtomicI64,
    /// Newest group that has something staged for the log.
    pub(crate) staged_in: AtomicU64,
    /// Newest group in which something of the log waits for a sync.
    pub(crate) waits_in: AtomicU64,
    /// Newest storage epoch that has something of the log.
    pub(crate) touched_in: AtomicU32,
    /// Newest mark of the time after which it got a batch.
    pub(crate) clocked_in: AtomicU64,
}

impl LogCell {
    pub(crate) fn new(id: LogId, partition: PartitionId, state: LogState) -> Self {
        let (start, end) = (state.start(), state.end());
        let writer = WriterNotes {
            next: AtomicI64::new(end),
            staged_in: AtomicU64::new(0),
            waits_in: AtomicU64::new(0),
            touched_in: AtomicU32::new(0),
            clocked_in: AtomicU64::new(0),
        };
        Self {
            id,
            partition,
            start: AtomicI64::new(start),
            end: AtomicI64::new(end),
            deleted: AtomicBool::new(false),
            truncations: AtomicU64::new(0),
            inner: Mutex::new(Inner { state, recent: Recent::default() }),
            writer,
        }
    }

    /// State and recent batches, locked: keep it short.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(crate) fn extent(&self) -> Extent {
        let start = self.start.load(Ordering::Acquire);
        Extent { start, end: self.end.load(Ordering::Acquire).max(start) }
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// How often it has been truncated: what was read before a truncation may not be there any more.
    pub(crate) fn truncations(&self) -> u64 {
        self.truncations.load(Ordering::Acquire)
    }

    /// From now on the log is not there; what it has in memory is given back.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.lock().recent.clear();
    }

    /// Forgets recent batches.
    pub(crate) fn evict(&self, ticket: u64) {
        self.lock().recent.evict(ticket);
    }

    /// A batch is written.
    pub(crate) fn appended(&self, header: &BatchHeader, batch: &Bytes, append_time: i64, ticket: u64) {
        let mut inner = self.lock();
        inner.state.append(header, batch.len() as u32, append_time);
        inner.recent.push(header.base_offset, header.next_offset(), ticket, batch.clone());
        self.publish(&inner);
    }

    /// A leader epoch is written.
    pub(crate) fn epoch_begun(&self, epoch: i32) {
        self.lock().state.begin_epoch(epoch);
    }

    /// A trim is written.
    pub(crate) fn trimmed(&self, start: i64) {
        let mut inner = self.lock();
        inner.state.trim(start);
        self.publish(&inner);
    }

    /// A truncation is written.
    pub(crate) fn truncated(&self, after: &Snapshot) {
        let mut inner = self.lock();
        inner.state.truncate(after);
        if after.is_empty() {
            inner.recent.clear();
        }
        inner.recent.truncate(after.end);
        self.truncations.fetch_add(1, Ordering::AcqRel);
        self.publish(&inner);
    }

    /// A checkpoint is written.
    pub(crate) fn checkpointed(&self, state: &Snapshot) {
        self.lock().state.checkpoint(state);
    }

    /// The open epoch is sealed.
    pub(crate) fn sealed(&self, piece: &Piece) {
        self.lock().state.seal(piece);
    }

    fn publish(&self, inner: &Inner) {
        self.start.store(inner.state.start(), Ordering::Release);
        self.end.store(inner.state.end(), Ordering::Release);
    }
}

/// A log for the outside.
pub(crate) struct LogHandle {
    cell: Arc<LogCell>,
    shared: Arc<Shared>,
}

impl LogHandle {
    pub(crate) fn new(cell: Arc<LogCell>, shared: Arc<Shared>) -> Self {
        Self { cell, shared }
    }

    fn send(&self, operation: Operation) -> Ticket {
        let (reply, ticket) = oneshot::channel();
        self.shared.send(Command::Log { cell: Arc::clone(&self.cell), operation, reply });
        ticket
    }
}

impl Log for LogHandle {
    fn id(&self) -> LogId {
        self.cell.id
    }

    fn partition(&self) -> PartitionId {
        self.cell.partition
    }

    fn extent(&self) -> Extent {
        self.cell.extent()
    }

    fn size_bytes(&self) -> u64 {
        self.cell.lock().state.bytes()
    }

    fn spans(&self) -> Vec<Span> {
        let inner = self.cell.lock();
        inner.state.index().spans(inner.state.start())
    }

    fn leader_epochs(&self) -> Arc<LeaderEpochs> {
        Arc::clone(self.cell.lock().state.epochs())
    }

    fn producers(&self) -> Producers {
        self.cell.lock().state.producers()
    }

    fn append(&self, append: Append) -> Ticket {
        self.send(Operation::Append(append))
    }

    fn begin_epoch(&self, epoch: i32) -> Ticket {
        self.send(Operation::BeginEpoch(epoch))
    }

    fn truncate(&self, end: i64) -> Ticket {
        self.send(Operation::Truncate(end))
    }

    fn trim(&self, start: i64) -> Ticket {
        self.send(Operation::Trim(start))
    }

    fn restart(&self, at: i64) -> Ticket {
        self.send(Operation::Restart(at))
    }

    fn read(&self, from: i64, before: i64, max_bytes: usize) -> BoxFuture<'static, Result<Vec<Bytes>, ReadError>> {
        read::read(&self.shared, &self.cell, read::Range { from, before, max_bytes })
    }

    fn find_timestamp(
        &self,
        timestamp: i64,
        before: i64,
    ) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        let wanted = read::Wanted::From(timestamp);
        read::by_timestamp(&self.shared, &self.cell, wanted, before)
    }

    fn max_timestamp(&self, before: i64) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        read::by_timestamp(&self.shared, &self.cell, read::Wanted::Newest, before)
    }
}
