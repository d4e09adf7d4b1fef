//! Storage in memory, for tests: the contract without the disk. Deterministic: no threads, no clock, no randomness; each
//! operation has taken effect, and its ticket has resolved, when the call returns.
//!
//! A [`Disk`] is what survives; [`Disk::open`] starts a storage on it, after which one that was opened before takes no
//! more writes, as if its process had died. A disk can be told to fail, to be full, or to be damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use uuid::Uuid;

mod state;

use super::leader_epochs::LeaderEpochs;
use super::producers::Producers;
use super::{
    Append, Extent, Identity, Log, LogId, Maintenance, MetaStore, PartitionId, ReadError, Span, Status, Storage,
    StorageError, Ticket, TimestampHit,
};
use state::LogState;

/// Bytes that the disk says it keeps in reserve while it is full.
const RESERVE: u64 = 1 << 20;

/// What outlives a [`MemoryStorage`].
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    logs: BTreeMap<LogId, LogState>,
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
    last_log: u32,
    incarnation: u64,
    clean: bool,
    incomplete: bool,
    full: bool,
    fail_next: Option<Arc<str>>,
    /// Why nothing is written any more.
    refuses: Option<StorageError>,
}

impl Disk {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a storage; unclean unless the one before was closed.
    pub fn open(&self) -> Arc<MemoryStorage> {
        Arc::new(self.start())
    }

    fn start(&self) -> MemoryStorage {
        let mut content = self.0.lock();
        content.incarnation += 1;
        (content.refuses, content.fail_next) = (None, None);
        let clean = std::mem::take(&mut content.clean) || content.incarnation == 1;
        let (incarnation, complete) = (content.incarnation, !content.incomplete);
        let identity = Identity { storage: Uuid::from_u128(1), incarnation, clean, complete };
        MemoryStorage { opened: Opened { disk: self.clone(), incarnation: content.incarnation }, identity }
    }

    /// The next write fails with this reason, and with it all later ones until the storage is opened again.
    pub fn fail_next_write(&self, reason: &str) {
        self.0.lock().fail_next = Some(reason.into());
    }

    /// From the next start on it is not known whether all acknowledged appends are there.
    pub fn set_incomplete(&self) {
        self.0.lock().incomplete = true;
    }

    /// Appends are refused while the disk is full.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// The log of a partition.
    pub fn log_of(&self, partition: PartitionId) -> Option<LogId> {
        let content = self.0.lock();
        content.logs.iter().find(|(_, log)| log.partition() == partition).map(|(id, _)| *id)
    }

    /// Damages the batch that contains `offset`: reads of it fail. True if there is one.
    pub fn damage(&self, log: LogId, offset: i64) -> bool {
        self.0.lock().logs.get_mut(&log).is_some_and(|log| log.damage(offset))
    }
}

/// A disk as opened once.
#[derive(Clone)]
struct Opened {
    disk: Disk,
    incarnation: u64,
}

impl Opened {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.disk.0.lock()
    }

    /// The content, for a write.
    fn writable(&self) -> Result<MutexGuard<'_, Content>, StorageError> {
        let mut content = self.content();
        if content.incarnation != self.incarnation {
            return Err(StorageError::Closed);
        }
        if let Some(reason) = content.fail_next.take() {
            content.refuses = Some(StorageError::Failed(reason));
        }
        match &content.refuses {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(content),
        }
    }
}

/// The storage; see the module.
pub struct MemoryStorage {
    opened: Opened,
    identity: Identity,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStorage {
    /// On a disk of its own.
    pub fn new() -> Self {
        Disk::new().start()
    }

    fn log(&self, id: LogId, partition: PartitionId) -> Arc<dyn Log> {
        Arc::new(MemoryLog { opened: self.opened.clone(), id, partition })
    }
}

impl Storage for MemoryStorage {
    fn logs(&self) -> Vec<Arc<dyn Log>> {
        self.opened.content().logs.iter().map(|(id, log)| self.log(*id, log.partition())).collect()
    }

    fn create_all(&self, partitions: &[PartitionId]) -> Result<Vec<Arc<dyn Log>>, StorageError> {
        let mut content = self.opened.writable()?;
        let mut create = |&partition: &PartitionId| {
            if let Some((id, _)) = content.logs.iter().find(|(_, log)| log.partition() == partition) {
                return self.log(*id, partition);
            }
            content.last_log += 1;
            let id = LogId(content.last_log);
            content.logs.insert(id, LogState::new(partition));
            self.log(id, partition)
        };
        Ok(partitions.iter().map(&mut create).collect())
    }

    fn delete(&self, log: LogId) -> Result<(), StorageError> {
        self.opened.writable()?.logs.remove(&log).map(|_| ()).ok_or(StorageError::NoSuchLog(log.0))
    }

    fn meta(&self) -> Arc<dyn MetaStore> {
        Arc::new(MemoryMeta(self.opened.clone()))
    }

    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn mark_complete(&self) -> Result<(), StorageError> {
        self.opened.writable()?.incomplete = false;
        Ok(())
    }

    fn status(&self) -> Status {
        let content = self.opened.content();
        let used = content.logs.values().map(LogState::size_bytes).sum();
        let failed = match &content.refuses {
            Some(StorageError::Failed(reason)) => Some(reason.to_string()),
            _ => None,
        };
        let free_bytes = if content.full { 0 } else { u64::MAX / 2 };
        Status { failed, disk_full: content.full, used_bytes: used, free_bytes, epochs: 1, live_bytes: used }
    }

    fn takes_appends(&self) -> bool {
        let content = self.opened.content();
        content.refuses.is_none() && !content.full
    }

    fn maintain(&self, _log_time: i64) -> Result<Maintenance, StorageError> {
        self.opened.writable().map(|_| Maintenance::default())
    }

    fn close(&self) -> Result<(), StorageError> {
        let mut content = self.opened.writable()?;
        content.clean = true;
        content.refuses = Some(StorageError::Closed);
        Ok(())
    }
}

struct MemoryLog {
    opened: Opened,
    id: LogId,
    partition: PartitionId,
}

impl MemoryLog {
    fn look<T: Default>(&self, look: impl FnOnce(&LogState) -> T) -> T {
        self.opened.content().logs.get(&self.id).map(look).unwrap_or_default()
    }

    fn read_from<T>(&self, read: impl FnOnce(&LogState) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let content = self.opened.content();
        content.logs.get(&self.id).map_or(Err(StorageError::NoSuchLog(self.id.0).into()), read)
    }

    fn change(&self, appends: bool, change: impl FnOnce(&mut LogState) -> Result<(), StorageError>) -> Ticket {
        let changed = self.opened.writable().and_then(|mut content| {
            if appends && content.full {
                return Err(StorageError::DiskFull { free: 0, reserve: RESERVE });
            }
            change(content.logs.get_mut(&self.id).ok_or(StorageError::NoSuchLog(self.id.0))?)
        });
        let (done, ticket) = oneshot::channel();
        // The receiver is ours.
        let _ = done.send(changed);
        ticket
    }
}

impl Log for MemoryLog {
    fn id(&self) -> LogId {
        self.id
    }

    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn extent(&self) -> Extent {
        self.look(LogState::extent)
    }

    fn size_bytes(&self) -> u64 {
        self.look(LogState::size_bytes)
    }

    fn spans(&self) -> Vec<Span> {
        self.look(LogState::spans)
    }

    fn leader_epochs(&self) -> Arc<LeaderEpochs> {
        Arc::new(self.look(LogState::leader_epochs))
    }

    fn producers(&self) -> Producers {
        self.look(LogState::producers)
    }

    fn append(&self, append: Append) -> Ticket {
        self.change(true, |log| log.append(append))
    }

    fn begin_epoch(&self, epoch: i32) -> Ticket {
        self.change(false, |log| log.begin_epoch(epoch))
    }

    fn truncate(&self, end: i64) -> Ticket {
        self.change(false, |log| log.truncate(end))
    }

    fn trim(&self, start: i64) -> Ticket {
        self.change(false, |log| log.trim(start))
    }

    fn restart(&self, at: i64) -> Ticket {
        self.change(false, |log| log.restart(at))
    }

    fn read(&self, from: i64, before: i64, max_bytes: usize) -> BoxFuture<'static, Result<Vec<Bytes>, ReadError>> {
        let read = self.read_from(|log| log.read(from, before, max_bytes));
        Box::pin(std::future::ready(read))
    }

    fn find_timestamp(
        &self,
        timestamp: i64,
        before: i64,
    ) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        let found = self.read_from(|log| log.find_timestamp(timestamp, before));
        Box::pin(std::future::ready(found))
    }

    fn max_timestamp(&self, before: i64) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        let found = self.read_from(|log| log.max_timestamp(before));
        Box::pin(std::future::ready(found))
    }
}

struct MemoryMeta(Opened);

impl MetaStore for MemoryMeta {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.content().meta.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StorageError> {
        let content = self.0.content();
        let from = content.meta.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        Ok(from.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StorageError> {
        let mut content = self.0.writable()?;
        for (key, value) in changes {
            match value {
                Some(value) => content.meta.insert(key, value),
                None => content.meta.remove(&key),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract::{Subject, contract_tests};

    fn subject() -> Subject {
        let disk = Disk::new();
        Subject::new(move || Ok(disk.open()))
    }

    contract_tests!(subject);
}
