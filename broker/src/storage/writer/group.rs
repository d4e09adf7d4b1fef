//! Staging: what goes into the next write. Operations are checked here, in the order of the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rocksdb::WriteBatch;

use super::{Command, Operation, Writer, answer};
use crate::crash::{CrashPoint, hit};
use crate::storage::keys::DataKey;
use crate::storage::ledger::{Ledger, Snapshot};
use crate::storage::log::LogCell;
use crate::storage::shared::Reply;
use crate::storage::truncation;
use crate::storage::wal::sync_mark;
use crate::storage::{Append, Durability, StorageError};

/// Append times are marked in the ledger at this distance, milliseconds: what a crash makes uncertain of them.
const CLOCK_STEP: i64 = 1000;

/// Marks append times in the open epoch's ledger: batches do not carry them, and footers come later.
pub(super) struct Clock {
    /// Newest append time in the open epoch's ledger.
    marked: Option<i64>,
    /// Rises with each mark and each epoch.
    number: u64,
    /// Logs that got batches since.
    since: Vec<Arc<LogCell>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { marked: None, number: 1, since: vec![] }
    }

    /// An epoch begins.
    pub(super) fn begin_epoch(&mut self) {
        *self = Self { number: self.number + 1, ..Self::new() };
    }

    /// A batch is about to be staged: the mark that must come before it, if any.
    fn tick(&mut self, cell: &Arc<LogCell>, append_time: i64) -> Option<Ledger> {
        let due = self.marked.is_none_or(|marked| append_time >= marked.saturating_add(CLOCK_STEP));
        let record = due.then(|| {
            self.marked = Some(append_time);
            self.number += 1;
            let end = |cell: Arc<LogCell>| (cell.id, cell.writer.next.load(Relaxed));
            let ends = std::mem::take(&mut self.since).into_iter().map(end).collect();
            Ledger::Clock { append_time, ends }
        });
        if cell.writer.clocked_in.swap(self.number, Relaxed) != self.number {
            self.since.push(Arc::clone(cell));
        }
        record
    }
}

/// What an operation does once it is written.
pub(super) enum Effect {
    Append(Append),
    BeginEpoch(i32),
    Trim(i64),
    Truncate(Snapshot),
    Checkpoint(Snapshot),
}

/// An operation in the group.
pub(super) struct Staged {
    pub(super) cell: Arc<LogCell>,
    pub(super) effect: Effect,
    pub(super) reply: Reply,
}

/// One write to be.
pub(super) struct Group {
    pub(super) number: u64,
    pub(super) batch: WriteBatch,
    /// Bytes of the batches in it.
    pub(super) bytes: usize,
    pub(super) staged: Vec<Staged>,
    /// Something in it wants the disk.
    pub(super) sync: bool,
    /// A ledger record other than the clock is in it.
    pub(super) ledger: bool,
}

impl Group {
    pub(super) fn new(number: u64, synced: u64, expected_bytes: usize) -> Self {
        // RocksDB copies batches into it; growing it would copy them again.
        let mut batch = WriteBatch::with_capacity_bytes(expected_bytes + expected_bytes / 16);
        batch.put_log_data(sync_mark(synced));
        Self { number, batch, bytes: 0, staged: vec![], sync: false, ledger: false }
    }

    fn add(&mut self, cell: Arc<LogCell>, effect: Effect, to_disk: bool, reply: Reply) {
        cell.writer.staged_in.store(self.number, Relaxed);
        if to_disk {
            self.sync = true;
            cell.writer.waits_in.store(self.number, Relaxed);
        }
        self.staged.push(Staged { cell, effect, reply });
    }
}

impl Writer {
    /// Puts an operation into the group, or refuses it, or gives it back because the group must be written first.
    pub(super) fn stage(
        &mut self,
        group: &mut Group,
        cell: Arc<LogCell>,
        operation: Operation,
        reply: Reply,
    ) -> Option<Command> {
        if let Some(refusal) = self.shared.refusal().filter(|fault| matches!(fault, StorageError::Failed(_))) {
            answer(reply, Err(refusal));
            return None;
        }
        if cell.is_deleted() {
            answer(reply, Err(StorageError::NoSuchLog(cell.id.0)));
            return None;
        }
        let is_append = matches!(operation, Operation::Append(_));
        if !is_append && cell.writer.staged_in.load(Relaxed) == group.number {
            return Some(Command::Log { cell, operation, reply });
        }
        let staged = match operation {
            Operation::Append(append) => self.stage_append(group, &cell, append),
            Operation::BeginEpoch(epoch) => self.stage_begin_epoch(group, &cell, epoch),
            Operation::Trim(start) => self.stage_trim(group, &cell, start),
            Operation::Truncate(end) => self.stage_truncate(group, &cell, end),
            Operation::Restart(at) => self.stage_restart(group, &cell, at),
            Operation::Checkpoint => Ok(Some(self.stage_checkpoint(group, &cell))),
        };
        match staged {
            Ok(Some((effect, to_disk))) => group.add(cell, effect, to_disk, reply),
            // Nothing to do, and nothing of the log is staged before it.
            Ok(None) => answer(reply, Ok(())),
            Err(fault) => answer(reply, Err(fault)),
        }
        None
    }

    fn stage_append(&mut self, group: &mut Group, cell: &Arc<LogCell>, append: Append) -> Stage {
        let (base, end) = (append.header.base_offset, cell.writer.next.load(Relaxed));
        if base != end {
            return Err(StorageError::WrongOffset { base, end });
        }
        self.check_disk(append.batch.len())?;
        if let Some(record) = self.clock.tick(cell, append.append_time) {
            self.put_ledger(group, &record);
        }
        let key = DataKey::Batch { epoch: self.open.number, log: cell.id, base };
        group.batch.put(key.encode(), &append.batch);
        group.bytes += append.batch.len();
        self.open.bytes += append.batch.len() as u64;
        cell.writer.next.store(append.header.next_offset(), Relaxed);
        let to_disk = append.durability == Durability::Disk;
        Ok(Some((Effect::Append(append), to_disk)))
    }

    fn stage_begin_epoch(&mut self, group: &mut Group, cell: &LogCell, epoch: i32) -> Stage {
        let inner = cell.lock();
        if inner.state.epochs().latest().is_some_and(|latest| epoch <= latest) {
            return Err(out_of_bounds("leader epoch", i64::from(epoch), cell));
        }
        let end = inner.state.end();
        drop(inner);
        self.put_control(group, &Ledger::BeginEpoch { log: cell.id, end, epoch });
        // On the device whatever the topic wants: a leader epoch that is given out twice is not one (E5, D7).
        Ok(Some((Effect::BeginEpoch(epoch), true)))
    }

    fn stage_trim(&mut self, group: &mut Group, cell: &LogCell, start: i64) -> Stage {
        let extent = cell.extent();
        if start < extent.start || start > extent.end {
            return Err(out_of_bounds("trim", start, cell));
        }
        if start == extent.start {
            return Ok(None);
        }
        hit(CrashPoint::Trim);
        self.put_control(group, &Ledger::Trim { log: cell.id, end: extent.end, start });
        Ok(Some((Effect::Trim(start), false)))
    }

    fn stage_truncate(&mut self, group: &mut Group, cell: &LogCell, to: i64) -> Stage {
        let extent = cell.extent();
        if to < extent.start || to > extent.end {
            return Err(out_of_bounds("truncation", to, cell));
        }
        if to == extent.end {
            return Ok(None);
        }
        let Some(after) = truncation::snapshot(&self.shared, cell, to)? else {
            return Err(out_of_bounds("truncation", to, cell));
        };
        Ok(Some((self.cut(group, cell, after), false)))
    }

    fn stage_restart(&mut self, group: &mut Group, cell: &LogCell, at: i64) -> Stage {
        let extent = cell.extent();
        if at < extent.start {
            return Err(out_of_bounds("restart", at, cell));
        }
        if at == extent.start && at == extent.end {
            return Ok(None);
        }
        let after = cell.lock().state.snapshot_restarted(at);
        Ok(Some((self.cut(group, cell, after), false)))
    }

    /// Removes what the state `after` does not have any more.
    fn cut(&mut self, group: &mut Group, cell: &LogCell, after: Snapshot) -> Effect {
        hit(CrashPoint::Truncate);
        self.put_control(group, &Ledger::Truncate { log: cell.id, end: cell.extent().end, after: after.clone() });
        // Nobody has sealed them yet: they go for good.
        let (epoch, from) = (self.open.number, if after.is_empty() { i64::MIN } else { after.end });
        for batch in cell.lock().state.open().batches.iter().rev().take_while(|batch| batch.base >= from) {
            group.batch.delete(DataKey::Batch { epoch, log: cell.id, base: batch.base }.encode());
        }
        cell.writer.next.store(after.end, Relaxed);
        Effect::Truncate(after)
    }

    fn stage_checkpoint(&mut self, group: &mut Group, cell: &LogCell) -> (Effect, bool) {
        let state = cell.lock().state.snapshot();
        self.put_control(group, &Ledger::Checkpoint { log: cell.id, state: state.clone() });
        (Effect::Checkpoint(state), true)
    }

    fn put_control(&mut self, group: &mut Group, record: &Ledger) {
        group.ledger = true;
        self.put_ledger(group, record);
    }

    fn put_ledger(&mut self, group: &mut Group, record: &Ledger) {
        self.ledger_sequence += 1;
        let key = DataKey::Ledger { epoch: self.open.number, sequence: self.ledger_sequence };
        let value = record.encode();
        self.open.bytes += value.len() as u64;
        group.bytes += value.len();
        group.batch.put(key.encode(), value);
    }
}

/// The effect and whether it wants the disk, or that there is nothing to do, or a refusal.
type Stage = Result<Option<(Effect, bool)>, StorageError>;

fn out_of_bounds(operation: &'static str, to: i64, cell: &LogCell) -> StorageError {
    let extent = cell.extent();
    StorageError::OutOfBounds { operation, to, start: extent.start, end: extent.end }
}
