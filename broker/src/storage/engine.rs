//! The storage engine on RocksDB: its outside. See ARCHITECTURE.md (Storage) for the shape, [`keys`](super::keys) for what is
//! on the disk, [`writer`](super::writer) for how it gets there.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use super::disk::Volume;
use super::lock::DirLock;
use super::log::{LogCell, LogHandle};
use super::shared::Shared;
use super::state::LogState;
use super::writer::{Command, QUEUE, Writer};
use super::{
    EngineOptions, Identity, Log, LogId, Maintenance, MetaStore, PartitionId, Status, Storage, StorageError,
    maintenance, recovery,
};
use crate::crash::{CrashPoint, hit};

/// A data directory that is open. Dropped without [`close`](Storage::close) it leaves the directory as a crash would.
pub struct Engine {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Opens a data directory, or makes one. Refuses one that is in use, that a newer version wrote, or that is damaged in
    /// a way that would lose what was acknowledged. Blocks: reads all footers, and after a crash the open epoch.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Arc<Self>, StorageError> {
        std::fs::create_dir_all(dir).map_err(|cause| StorageError::io("make the data directory", &cause))?;
        let lock = DirLock::take(dir)?;
        let opened = recovery::open(dir, options)?;
        let reserve = opened.options.reserve(Volume::of(dir)?.total);
        let (queue, commands) = bounded(QUEUE);
        let shared = Arc::new(Shared::new(opened, queue, lock)?);
        shared.keep_copies();
        let writer = Writer::new(Arc::clone(&shared), commands, reserve);
        let spawned = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || writer.run());
        let writer = spawned.map_err(|cause| StorageError::io("start the writer thread", &cause))?;
        Ok(Arc::new(Self { shared, writer: Mutex::new(Some(writer)) }))
    }

    /// What the engine's parts share.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn handle(&self, cell: &Arc<LogCell>) -> Arc<dyn Log> {
        Arc::new(LogHandle::new(Arc::clone(cell), Arc::clone(&self.shared)))
    }

    /// Waits for the writer thread, which was told to end.
    fn join(&self) {
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread has panicked");
        }
    }
}

impl Storage for Engine {
    fn logs(&self) -> Vec<Arc<dyn Log>> {
        let mut cells = self.shared.cells();
        cells.sort_by_key(|cell| cell.id);
        cells.iter().map(|cell| self.handle(cell)).collect()
    }

    fn create_all(&self, partitions: &[PartitionId]) -> Result<Vec<Arc<dyn Log>>, StorageError> {
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        let mut logs = self.shared.logs.write();
        let missing: BTreeSet<_> =
            partitions.iter().filter(|id| !logs.by_partition.contains_key(id)).copied().collect();
        for (id, partition) in self.shared.meta.add_logs(missing)? {
            logs.insert(Arc::new(LogCell::new(id, partition, LogState::new())));
        }
        let cell = |partition: &PartitionId| logs.by_partition.get(partition).and_then(|id| logs.by_id.get(id));
        Ok(partitions.iter().filter_map(cell).map(|cell| self.handle(cell)).collect())
    }

    fn delete(&self, log: LogId) -> Result<(), StorageError> {
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        let mut logs = self.shared.logs.write();
        let cell = logs.by_id.get(&log).cloned().ok_or(StorageError::NoSuchLog(log.0))?;
        self.shared.meta.remove_log(log)?;
        hit(CrashPoint::Delete);
        // Its batches are dead: nothing but the metadata says which logs there are.
        logs.by_id.remove(&log);
        logs.by_partition.remove(&cell.partition);
        cell.delete();
        Ok(())
    }

    fn meta(&self) -> Arc<dyn MetaStore> {
        Arc::clone(&self.shared.meta) as Arc<dyn MetaStore>
    }

    fn identity(&self) -> Identity {
        self.shared.identity.clone()
    }

    fn mark_complete(&self) -> Result<(), StorageError> {
        recovery::mark_complete(&self.shared.meta)
    }

    fn status(&self) -> Status {
        let live = self.shared.cells().iter().map(|cell| cell.lock().state.bytes()).sum();
        let (data, meta) = (Shared::data_dir(&self.shared.dir), Shared::meta_dir(&self.shared.dir));
        let directories = [data.as_path(), &meta, self.shared.copies.dir()];
        Status {
            failed: self.shared.failure().map(ToString::to_string),
            disk_full: self.shared.disk_full.load(Ordering::Relaxed),
            used_bytes: directories.into_iter().map(used).sum(),
            free_bytes: Volume::of(&self.shared.dir).map_or(0, |volume| volume.free),
            epochs: self.shared.epochs.lock().len() as u64,
            live_bytes: live,
        }
    }

    fn takes_appends(&self) -> bool {
        self.shared.failure().is_none() && !self.shared.is_full() && !self.shared.pace.is_slow(Instant::now())
    }

    fn maintain(&self, _log_time: i64) -> Result<Maintenance, StorageError> {
        maintenance::round(&self.shared)
    }

    fn close(&self) -> Result<(), StorageError> {
        match self.shared.call(|reply| Command::Close { reply }) {
            Err(StorageError::Closed) => return Ok(()),
            closed => closed?,
        }
        self.join();
        self.shared.keep_copies();
        recovery::mark_clean(&self.shared.meta, self.shared.identity.incarnation)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.abandon();
        self.shared.set_closed();
        self.join();
        self.shared.readers.stop();
    }
}

/// Bytes that the files of a directory take.
fn used(dir: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(dir) else { return 0 };
    let size = |file: std::io::Result<std::fs::DirEntry>| file.and_then(|file| file.metadata()).map_or(0, |m| m.len());
    files.map(size).sum()
}

#[cfg(test)]
mod tests;
