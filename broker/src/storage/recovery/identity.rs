//! Who a directory is, and how the broker before left it.

use std::path::Path;

use uuid::Uuid;

use crate::storage::keys::{
    FORMAT, META_BOOT_ID, META_CLEAN, META_FORMAT, META_INCARNATION, META_INCOMPLETE, META_STORAGE_ID,
};
use crate::storage::meta::MetaDb;
use crate::storage::{Identity, StorageError, wal};

/// What the broker before left.
pub(in crate::storage) struct Before {
    storage: Option<Uuid>,
    incarnation: u64,
    /// It closed properly, or there was none.
    pub(super) clean: bool,
    /// The kernel it ran on still runs: what it wrote is there even if it was not synced.
    pub(in crate::storage) same_boot: bool,
    /// An earlier start could not prove that all is there, and what must follow from that was not done.
    incomplete: bool,
}

impl Before {
    /// There was none.
    pub(super) fn is_new(&self) -> bool {
        self.storage.is_none()
    }
}

/// Identity of the running kernel; empty, which equals no other, where it is not told.
pub(in crate::storage) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Opens the metadata if it is of a version that this program knows.
pub(super) fn open_meta(dir: &Path, meta_dir: &Path) -> Result<MetaDb, StorageError> {
    scan_meta(meta_dir)?;
    let meta = MetaDb::open(meta_dir)?;
    match meta.read_u32(META_FORMAT)? {
        Some(found) if found > FORMAT => {
            Err(StorageError::NewerFormat { dir: dir.display().to_string(), found, known: FORMAT })
        }
        _ => Ok(meta),
    }
}

/// Scans the write-ahead log of the metadata. Each write was synced before the next began: what follows a bad byte was there
/// before it went bad, whatever happened to the kernel.
pub(in crate::storage) fn scan_meta(meta_dir: &Path) -> Result<(), StorageError> {
    wal::scan(meta_dir, true).map(drop)
}

/// Reads what the broker before left.
pub(in crate::storage) fn before(meta: &MetaDb, boot_id: &str) -> Result<Before, StorageError> {
    let storage = meta.read(META_STORAGE_ID)?.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    let incarnation = meta.read_u64(META_INCARNATION)?.unwrap_or(0);
    let clean = storage.is_none() || meta.read_u64(META_CLEAN)? == Some(incarnation);
    let same_boot = !boot_id.is_empty() && meta.read(META_BOOT_ID)?.as_deref() == Some(boot_id.as_bytes());
    let incomplete = meta.read(META_INCOMPLETE)?.is_some();
    Ok(Before { storage, incarnation, clean, same_boot, incomplete })
}

/// Begins the next incarnation. `intact`: all that the one before wrote is there.
pub(super) fn start(meta: &MetaDb, before: &Before, intact: bool, boot_id: &str) -> Result<Identity, StorageError> {
    let storage = before.storage.unwrap_or_else(Uuid::new_v4);
    let incarnation = before.incarnation + 1;
    let complete = intact && !before.incomplete;
    let mut changes = vec![
        (META_FORMAT.to_vec(), Some(FORMAT.to_be_bytes().to_vec())),
        (META_STORAGE_ID.to_vec(), Some(storage.as_bytes().to_vec())),
        (META_INCARNATION.to_vec(), Some(incarnation.to_be_bytes().to_vec())),
        (META_BOOT_ID.to_vec(), Some(boot_id.as_bytes().to_vec())),
        (META_CLEAN.to_vec(), None),
    ];
    if !complete {
        // With the boot id: a start after a crash finds that id again and would think that all is there.
        changes.push((META_INCOMPLETE.to_vec(), Some(vec![])));
    }
    meta.write_synced(changes)?;
    Ok(Identity { storage, incarnation, clean: before.clean, complete })
}

/// What must follow from a start that could not prove that all is there is done.
pub(in crate::storage) fn mark_complete(meta: &MetaDb) -> Result<(), StorageError> {
    meta.write_synced(vec![(META_INCOMPLETE.to_vec(), None)])
}

/// Leaves the mark of a proper close.
pub(in crate::storage) fn mark_clean(meta: &MetaDb, incarnation: u64) -> Result<(), StorageError> {
    meta.write_synced(vec![(META_CLEAN.to_vec(), Some(incarnation.to_be_bytes().to_vec()))])
}
