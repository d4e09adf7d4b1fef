//! What the engine's threads share: the databases, the logs, the epochs, and how the whole is doing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};
use rocksdb::{ColumnFamily, DB, DEFAULT_COLUMN_FAMILY_NAME};
use tokio::sync::oneshot;

use super::disk::Volume;
use super::epochs::Epochs;
use super::front::Copies;
use super::lock::DirLock;
use super::log::LogCell;
use super::maintenance::Keeper;
use super::meta::MetaDb;
use super::pace::Pace;
use super::read::{Ahead, FooterCache, Readers};
use super::writer::{Command, Operation};
use super::{EngineOptions, Identity, LogId, PartitionId, StorageError};

/// Logs by number and by what they hold.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) by_id: HashMap<LogId, Arc<LogCell>>,
    pub(crate) by_partition: HashMap<PartitionId, LogId>,
}

impl Logs {
    pub(crate) fn insert(&mut self, cell: Arc<LogCell>) {
        self.by_partition.insert(cell.partition, cell.id);
        self.by_id.insert(cell.id, cell);
    }
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) options: EngineOptions,
    pub(crate) identity: Identity,
    pub(crate) meta: Arc<MetaDb>,
    pub(crate) logs: RwLock<Logs>,
    pub(crate) epochs: Mutex<Epochs>,
    pub(crate) footers: FooterCache,
    pub(crate) copies: Copies,
    pub(crate) readers: Readers,
    pub(crate) ahead: Ahead,
    /// The epoch that the writer fills.
    pub(crate) open_epoch: AtomicU32,
    /// One round of maintenance at a time.
    pub(crate) maintenance: Mutex<Keeper>,
    pub(crate) disk_full: AtomicBool,
    /// How long group commits take.
    pub(crate) pace: Pace,
    /// Highest sequence known to be on the device.
    pub(crate) synced: AtomicU64,
    failed: OnceLock<Arc<str>>,
    closed: AtomicBool,
    queue: Sender<Command>,
    data: DB,
    /// Given back after the databases are closed.
    _lock: DirLock,
}

/// What a recovery found; the rest of [`Shared`] is made from it.
pub(crate) struct Opened {
    pub(crate) dir: PathBuf,
    pub(crate) options: EngineOptions,
    pub(crate) identity: Identity,
    pub(crate) meta: Arc<MetaDb>,
    pub(crate) data: DB,
    pub(crate) copies: Copies,
    pub(crate) logs: Logs,
    pub(crate) epochs: Epochs,
    pub(crate) open_epoch: u32,
}

impl Shared {
    pub(crate) fn new(opened: Opened, queue: Sender<Command>, lock: DirLock) -> Result<Self, StorageError> {
        let readers = Readers::start(opened.options.reader_threads);
        Ok(Self {
            dir: opened.dir,
            readers: readers.map_err(|cause| StorageError::io("start reader threads", &cause))?,
            options: opened.options,
            identity: opened.identity,
            meta: opened.meta,
            logs: RwLock::new(opened.logs),
            epochs: Mutex::new(opened.epochs),
            footers: FooterCache::default(),
            copies: opened.copies,
            ahead: Ahead::default(),
            open_epoch: AtomicU32::new(opened.open_epoch),
            maintenance: Mutex::default(),
            disk_full: AtomicBool::new(false),
            pace: Pace::default(),
            synced: AtomicU64::new(0),
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            queue,
            data: opened.data,
            _lock: lock,
        })
    }

    /// The database of batches, footers and ledger records.
    pub(crate) fn data(&self) -> &DB {
        &self.data
    }

    /// The one column family of that database.
    pub(crate) fn batches(&self) -> &ColumnFamily {
        self.data.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).expect("the database is opened with it")
    }

    /// Directory of the database of batches.
    pub(crate) fn data_dir(dir: &Path) -> PathBuf {
        dir.join("data")
    }

    /// Directory of the metadata.
    pub(crate) fn meta_dir(dir: &Path) -> PathBuf {
        dir.join("meta")
    }

    /// All logs.
    pub(crate) fn cells(&self) -> Vec<Arc<LogCell>> {
        self.logs.read().by_id.values().cloned().collect()
    }

    /// A log.
    pub(crate) fn cell(&self, log: LogId) -> Option<Arc<LogCell>> {
        self.logs.read().by_id.get(&log).cloned()
    }

    /// Why nothing is written, if so.
    pub(crate) fn refusal(&self) -> Option<StorageError> {
        if let Some(reason) = self.failed.get() {
            return Some(StorageError::Failed(Arc::clone(reason)));
        }
        self.closed.load(Ordering::Acquire).then_some(StorageError::Closed)
    }

    /// Whether appends are refused for want of space. Nobody may append meanwhile, so it looks again.
    pub(crate) fn is_full(&self) -> bool {
        let still = |volume: Volume| !volume.has_room_again(self.options.reserve(volume.total));
        self.disk_full.load(Ordering::Relaxed) && Volume::of(&self.dir).is_ok_and(still)
    }

    /// Why writing failed, if it did.
    pub(crate) fn failure(&self) -> Option<&Arc<str>> {
        self.failed.get()
    }

    /// Ends writing for good. The first reason is the one that is told.
    pub(crate) fn fail(&self, doing: &str, cause: &dyn std::fmt::Display) -> StorageError {
        let reason = self.failed.get_or_init(|| {
            tracing::error!(doing, %cause, "writing has failed; the storage takes no more writes, reads go on");
            format!("{doing}: {cause}").into()
        });
        StorageError::Failed(Arc::clone(reason))
    }

    /// No command is taken any more. False if that was so before.
    pub(crate) fn set_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Gives a command to the writer; waits while its queue is full.
    pub(crate) fn send(&self, command: Command) {
        if let Some(refusal) = self.refusal() {
            command.refuse(&refusal);
        } else if let Err(unsent) = self.queue.send(command) {
            unsent.0.refuse(&StorageError::Closed);
        }
    }

    /// Tells the writer to end, also where it takes no more writes. It may have ended.
    pub(crate) fn abandon(&self) {
        let _ = self.queue.send(Command::Abandon);
    }

    /// Gives a command to the writer and waits until it is done.
    pub(crate) fn call(&self, command: impl FnOnce(Reply) -> Command) -> Result<(), StorageError> {
        let (reply, done) = oneshot::channel();
        self.send(command(reply));
        wait(done)
    }

    /// Writes the whole state of logs into the open epoch and syncs it, so that epochs which hold older state can go.
    pub(crate) fn checkpoint(&self, cells: &[Arc<LogCell>]) -> Result<(), StorageError> {
        let send = |cell: &Arc<LogCell>| {
            let (reply, done) = oneshot::channel();
            self.send(Command::Log { cell: Arc::clone(cell), operation: Operation::Checkpoint, reply });
            done
        };
        let sent: Vec<_> = cells.iter().map(send).collect();
        for done in sent {
            match wait(done) {
                Ok(()) | Err(StorageError::NoSuchLog(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Sees to it that each sealed epoch has a copy of its footers.
    pub(crate) fn keep_copies(&self) {
        let epochs = self.epochs.lock().sealed().map(|(epoch, _)| epoch).collect();
        self.copies.keep(&self.data, &epochs);
    }

    /// Syncs all that is published.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let written = self.data.latest_sequence_number();
        self.data.flush_wal(true).map_err(|cause| self.fail("sync the write-ahead log", &cause))?;
        self.synced.fetch_max(written, Ordering::Relaxed);
        Ok(())
    }

    /// Seals the open epoch if it holds anything and starts to flush it.
    #[cfg(test)]
    pub(crate) fn seal(&self) -> Result<(), StorageError> {
        self.call(|reply| Command::Seal { reply })
    }

    /// Waits until RocksDB has flushed what is sealed, and has every file where it belongs.
    #[cfg(test)]
    pub(crate) fn wait_for_files(&self) {
        self.data.wait_for_compact(&rocksdb::WaitForCompactOptions::default()).unwrap();
    }
}

/// Answer to a command.
pub(crate) type Reply = oneshot::Sender<Result<(), StorageError>>;

fn wait(done: oneshot::Receiver<Result<(), StorageError>>) -> Result<(), StorageError> {
    futures::executor::block_on(done).unwrap_or(Err(StorageError::Closed))
}
