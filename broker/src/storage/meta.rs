//! The database `meta`: who the directory is, which logs there are, and what others keep. Every write is synced.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{DB, Direction, IteratorMode, WriteBatch, WriteOptions};

use super::keys::{META_LOG_PREFIX, META_NEXT_LOG, META_OTHERS_PREFIX, meta_log};
use super::lock::DirLock;
use super::{KeyValue, LogId, MetaStore, PartitionId, StorageError, options};
use crate::crash::{CrashPoint, hit};

/// Keys and values, synced.
#[derive(Debug)]
pub(crate) struct MetaDb {
    db: DB,
}

/// A change: key, and its value or nothing.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

impl MetaDb {
    /// Opens or makes it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StorageError> {
        let db = DB::open(&options::meta(), dir).map_err(|cause| StorageError::unopened(dir, &cause))?;
        Ok(Self { db })
    }

    /// Opens one that is there, to read only.
    pub(crate) fn open_read_only(dir: &Path) -> Result<Self, StorageError> {
        let opened = DB::open_for_read_only(&options::meta(), dir, false);
        let db = opened.map_err(|cause| StorageError::unopened(dir, &cause))?;
        Ok(Self { db })
    }

    /// A value.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.db.get(key).map_err(|cause| self.unread(&cause))
    }

    /// A `u32`, big endian.
    pub(crate) fn read_u32(&self, key: &[u8]) -> Result<Option<u32>, StorageError> {
        self.read(key)?.map(|value| Ok(u32::from_be_bytes(fixed(key, &value)?))).transpose()
    }

    /// A `u64`, big endian.
    pub(crate) fn read_u64(&self, key: &[u8]) -> Result<Option<u64>, StorageError> {
        self.read(key)?.map(|value| Ok(u64::from_be_bytes(fixed(key, &value)?))).transpose()
    }

    /// All keys that begin with `prefix`.
    pub(crate) fn read_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError> {
        let mut found = vec![];
        for item in self.db.iterator(IteratorMode::From(prefix, Direction::Forward)) {
            let (key, value) = item.map_err(|cause| self.unread(&cause))?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key.into_vec(), value.into_vec()));
        }
        Ok(found)
    }

    fn unread(&self, cause: &rocksdb::Error) -> StorageError {
        StorageError::by_rocksdb(self.db.path(), "metadata", cause)
    }

    /// Makes changes, all or none, on the device when it returns.
    pub(crate) fn write_synced(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut write = WriteOptions::default();
        write.set_sync(true);
        self.db.write_opt(batch, &write).map_err(|cause| StorageError::io("write metadata", &cause))?;
        hit(CrashPoint::MetadataWrite);
        Ok(())
    }

    /// The logs that exist.
    pub(crate) fn logs(&self) -> Result<Vec<(LogId, PartitionId)>, StorageError> {
        let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
            let id = u32::from_be_bytes(fixed(&key, &key[META_LOG_PREFIX.len()..])?);
            let value: [u8; 20] = fixed(&key, &value)?;
            let (topic, index) = value.split_first_chunk::<16>().expect("20 bytes");
            let index = i32::from_be_bytes(index.try_into().expect("4 bytes"));
            Ok((LogId(id), PartitionId { topic: uuid::Uuid::from_bytes(*topic), index }))
        };
        self.read_prefix(META_LOG_PREFIX)?.into_iter().map(decode).collect()
    }

    /// Gives each partition the next log id, in one write.
    pub(crate) fn add_logs(
        &self,
        partitions: impl IntoIterator<Item = PartitionId>,
    ) -> Result<Vec<(LogId, PartitionId)>, StorageError> {
        let mut next = self.read_u32(META_NEXT_LOG)?.unwrap_or(1);
        let (mut added, mut changes) = (vec![], vec![]);
        for partition in partitions {
            let id = LogId(next);
            next = next.checked_add(1).ok_or_else(|| StorageError::io("create a log", &"log ids are used up"))?;
            let value = [&partition.topic.as_bytes()[..], &partition.index.to_be_bytes()].concat();
            changes.push((meta_log(id), Some(value)));
            added.push((id, partition));
        }
        if !added.is_empty() {
            changes.push((META_NEXT_LOG.to_vec(), Some(next.to_be_bytes().to_vec())));
            self.write_synced(changes)?;
        }
        Ok(added)
    }

    /// Forgets a log; its id is not given again.
    pub(crate) fn remove_log(&self, log: LogId) -> Result<(), StorageError> {
        self.write_synced(vec![(meta_log(log), None)])
    }
}

impl MetaStore for MetaDb {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(&prefixed(key))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError> {
        let found = self.read_prefix(&prefixed(prefix))?;
        let strip = |(mut key, value): (Vec<u8>, Vec<u8>)| (key.split_off(META_OTHERS_PREFIX.len()), value);
        Ok(found.into_iter().map(strip).collect())
    }

    fn write(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StorageError> {
        self.write_synced(changes.into_iter().map(|(key, value)| (prefixed(&key), value)).collect())
    }
}

/// A directory that has such a database and nothing else, for one process at a time.
#[derive(Debug)]
pub(crate) struct MetaDirectory {
    db: MetaDb,
    /// Let go of last.
    _lock: DirLock,
}

impl MetaDirectory {
    /// Opens or makes it; refuses one that is in use. Blocks.
    pub(crate) fn open(dir: &Path) -> Result<Arc<Self>, StorageError> {
        std::fs::create_dir_all(dir).map_err(|cause| StorageError::io("make the data directory", &cause))?;
        let lock = DirLock::take(dir)?;
        Ok(Arc::new(Self { db: MetaDb::open(&dir.join("meta"))?, _lock: lock }))
    }
}

impl MetaStore for MetaDirectory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        MetaStore::get(&self.db, key)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError> {
        MetaStore::scan(&self.db, prefix)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), StorageError> {
        MetaStore::write(&self.db, changes)
    }
}

fn prefixed(key: &[u8]) -> Vec<u8> {
    [META_OTHERS_PREFIX, key].concat()
}

fn fixed<const N: usize>(key: &[u8], value: &[u8]) -> Result<[u8; N], StorageError> {
    value.try_into().map_err(|_| StorageError::Damaged {
        file: "the meta database".to_owned(),
        at: 0,
        what: format!("{} has {} bytes instead of {N}", String::from_utf8_lossy(key), value.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_are_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let partition = |index| PartitionId { topic: uuid::Uuid::from_u128(7), index };
        let meta = MetaDb::open(dir.path()).unwrap();
        let both = [(LogId(1), partition(3)), (LogId(2), partition(0))];
        assert_eq!(meta.add_logs([partition(3), partition(0)]).unwrap(), both);
        assert_eq!(meta.logs().unwrap(), both);
        meta.remove_log(LogId(1)).unwrap();
        meta.remove_log(LogId(2)).unwrap();
        drop(meta);
        let meta = MetaDb::open(dir.path()).unwrap();
        assert_eq!(meta.logs().unwrap(), []);
        assert_eq!(meta.add_logs([partition(3)]).unwrap(), [(LogId(3), partition(3))]);
    }

    #[test]
    fn a_directory_of_metadata_keeps_what_was_written_and_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = MetaDirectory::open(dir.path()).unwrap();
        first.write(vec![(b"a/1".to_vec(), Some(b"x".to_vec()))]).unwrap();
        assert!(matches!(MetaDirectory::open(dir.path()), Err(StorageError::InUse { .. })));
        drop(first);
        let second = MetaDirectory::open(dir.path()).unwrap();
        assert_eq!(second.scan(b"a/").unwrap(), [(b"a/1".to_vec(), b"x".to_vec())]);
        assert_eq!(second.get(b"a/1").unwrap(), Some(b"x".to_vec()));
    }

    #[test]
    fn keys_of_others_do_not_meet_those_of_the_engine() {
        let dir = tempfile::tempdir().unwrap();
        let meta = MetaDb::open(dir.path()).unwrap();
        let put = |key: &[u8]| MetaStore::write(&meta, vec![(key.to_vec(), Some(b"x".to_vec()))]).unwrap();
        put(META_NEXT_LOG);
        put(b"a/1");
        put(b"a/2");
        assert_eq!(meta.read_u32(META_NEXT_LOG).unwrap(), None);
        assert_eq!(MetaStore::get(&meta, META_NEXT_LOG).unwrap(), Some(b"x".to_vec()));
        let found = MetaStore::scan(&meta, b"a/").unwrap();
        assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [b"a/1", b"a/2"]);
    }
}
