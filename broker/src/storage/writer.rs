//! The one thread that writes: it drains its queue into one RocksDB write (group commit), then tells those who wait.
//!
//! - Each write begins with a mark of what is synced ([`wal::sync_mark`](super::wal::sync_mark)).
//! - Operations at [`Durability::Os`](super::Durability) are published after the write. If any wants the disk, one sync
//!   follows for all of them; whatever else the group holds of *their* logs waits with them, so that tickets of a log
//!   resolve in order.
//! - A control operation looks at a log's published state: if the group already holds something of that log, the group is
//!   written first.
//! - A failed write or sync ends writing for good: a page that the kernel could not write may read back as if it had.

mod group;
mod roll;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use self::group::{Clock, Effect, Group, Staged};
use self::roll::OpenEpoch;
pub(crate) use self::roll::RESERVED;
use super::disk::{DiskGuard, Volume};
use super::log::LogCell;
use super::recent::Budget;
use super::shared::{Reply, Shared};
use super::{Append, StorageError};
use crate::crash::{CrashPoint, hit};

/// Commands that may wait. Admission by bytes in flight keeps far below it.
pub(crate) const QUEUE: usize = 16 << 10;
/// Operations in one group.
const GROUP_OPERATIONS: usize = 16 << 10;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// An operation on a log.
    Log { cell: Arc<LogCell>, operation: Operation, reply: Reply },
    /// Seal the open epoch if it holds anything, and start to flush it.
    #[cfg(test)]
    Seal { reply: Reply },
    /// Seal, flush, sync and end. Later commands find the storage closed.
    Close { reply: Reply },
    /// End at once, as if the process had died.
    Abandon,
}

/// An operation on a log.
#[derive(Debug)]
pub(crate) enum Operation {
    Append(Append),
    BeginEpoch(i32),
    Truncate(i64),
    Trim(i64),
    Restart(i64),
    /// Write the whole state down.
    Checkpoint,
}

impl Command {
    /// Answers that it is not done.
    pub(crate) fn refuse(self, why: &StorageError) {
        match self {
            Self::Log { reply, .. } | Self::Close { reply } => answer(reply, Err(why.clone())),
            #[cfg(test)]
            Self::Seal { reply } => answer(reply, Err(why.clone())),
            Self::Abandon => {}
        }
    }
}

/// The receiver may be gone: nobody waits then.
fn answer(reply: Reply, with: Result<(), StorageError>) {
    let _ = reply.send(with);
}

fn refuse(staged: Vec<Staged>, why: &StorageError) {
    for Staged { reply, .. } in staged {
        answer(reply, Err(why.clone()));
    }
}

/// The thread's state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Command>,
    open: OpenEpoch,
    /// Files that were added to the ring of the write-ahead log since the start.
    resting_logs: u32,
    groups: u64,
    ledger_sequence: u64,
    clock: Clock,
    recent: Budget,
    disk: DiskGuard,
}

impl Writer {
    /// A writer that fills `shared`'s open epoch.
    pub(crate) fn new(shared: Arc<Shared>, queue: Receiver<Command>, reserve: u64) -> Self {
        let open = OpenEpoch::new(shared.open_epoch.load(Relaxed));
        let recent = Budget::new(shared.options.recent_bytes);
        Self {
            shared,
            queue,
            open,
            resting_logs: 0,
            groups: 0,
            ledger_sequence: 0,
            clock: Clock::new(),
            recent,
            disk: DiskGuard::new(reserve),
        }
    }

    /// Runs until the storage is closed or nobody can send any more.
    pub(crate) fn run(mut self) {
        let mut carried = None;
        loop {
            let command = match carried.take() {
                Some(command) => command,
                None => match self.queue.recv_timeout(self.patience()) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        self.seal_if_old();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            match command {
                Command::Log { cell, operation, reply } => carried = self.write_group(cell, operation, reply),
                #[cfg(test)]
                Command::Seal { reply } => answer(reply, self.seal()),
                Command::Abandon => return,
                Command::Close { reply } => {
                    self.shared.set_closed();
                    let closed = self.close();
                    self.refuse_rest();
                    answer(reply, closed);
                    return;
                }
            }
        }
    }

    /// Writes a group that begins with this operation. Gives back a command that must come after it.
    fn write_group(&mut self, cell: Arc<LogCell>, operation: Operation, reply: Reply) -> Option<Command> {
        self.groups += 1;
        let mut group = Group::new(self.groups, self.shared.synced.load(Relaxed), self.shared.options.group_bytes);
        let mut next = Some(Command::Log { cell, operation, reply });
        let mut after = None;
        while let Some(command) = next.take() {
            after = match command {
                Command::Log { cell, operation, reply } => self.stage(&mut group, cell, operation, reply),
                other => Some(other),
            };
            let full = group.bytes >= self.shared.options.group_bytes || group.staged.len() >= GROUP_OPERATIONS;
            if after.is_none() && !full {
                next = self.queue.try_recv().ok();
            }
        }
        let (begun, bytes) = (Instant::now(), group.bytes);
        self.shared.pace.begin(begun);
        self.commit(group);
        let ended = Instant::now();
        self.shared.pace.end(ended - begun, ended);
        let metrics = &self.shared.options.metrics;
        metrics.group_commit_size.observe_bytes(bytes as u64);
        metrics.group_commit_latency.observe(ended - begun);
        self.roll_if_full();
        after
    }

    fn commit(&mut self, group: Group) {
        let Group { number, batch, staged, sync, ledger, .. } = group;
        if staged.is_empty() {
            return;
        }
        if let Err(cause) = self.shared.data().write(batch) {
            let fault = self.shared.fail("write to the data database", &cause);
            refuse(staged, &fault);
            return;
        }
        hit(if ledger { CrashPoint::LedgerRecord } else { CrashPoint::Append });
        if !sync {
            self.publish_all(staged);
            return;
        }
        let waits = |op: &Staged| op.cell.writer.waits_in.load(Relaxed) == number;
        let (wait, ready): (Vec<_>, Vec<_>) = staged.into_iter().partition(waits);
        self.publish_all(ready);
        match self.sync() {
            Ok(()) => self.publish_all(wait),
            Err(fault) => refuse(wait, &fault),
        }
    }

    fn sync(&self) -> Result<(), StorageError> {
        let written = self.shared.data().latest_sequence_number();
        self.shared.data().flush_wal(true).map_err(|cause| self.shared.fail("sync the write-ahead log", &cause))?;
        self.shared.options.metrics.wal_syncs.inc();
        self.shared.synced.store(written, Relaxed);
        Ok(())
    }

    fn publish_all(&mut self, staged: Vec<Staged>) {
        for operation in staged {
            self.publish(operation);
        }
    }

    /// Makes an operation visible and tells who waits for it.
    fn publish(&mut self, Staged { cell, effect, reply }: Staged) {
        self.open.touch(&cell);
        match effect {
            Effect::Append(Append { batch, header, append_time, .. }) => {
                let ticket = self.recent.ticket();
                cell.appended(&header, &batch, append_time, ticket);
                self.recent.charge(&cell, ticket, batch.len());
            }
            Effect::BeginEpoch(epoch) => cell.epoch_begun(epoch),
            Effect::Trim(start) => cell.trimmed(start),
            Effect::Truncate(after) => cell.truncated(&after),
            Effect::Checkpoint(state) => cell.checkpointed(&state),
        }
        answer(reply, Ok(()));
    }

    /// Whether an append of so many bytes must be refused for want of space.
    fn check_disk(&mut self, bytes: usize) -> Result<(), StorageError> {
        let now = Instant::now();
        if self.disk.is_due(bytes as u64, now) {
            self.disk.looked(Volume::of(&self.shared.dir)?, now);
            self.shared.disk_full.store(self.disk.is_full(), Relaxed);
        }
        if self.disk.is_full() { Err(self.disk.refusal()) } else { Ok(()) }
    }

    /// How long the writer may sleep.
    fn patience(&self) -> Duration {
        self.open.age_left(self.shared.options.epoch_age).max(Duration::from_millis(1))
    }

    fn refuse_rest(&self) {
        while let Ok(command) = self.queue.try_recv() {
            command.refuse(&StorageError::Closed);
        }
    }
}
