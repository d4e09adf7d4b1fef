//! Who a directory is, and how the broker before left it.

use std::path::Path;

use uuid::Uuid;

use crate::storage::keys::{FORMAT, META_BOOT_ID, META_CLEAN, META_FORMAT, META_INCARNATION, META_STORAGE_ID};
use crate::storage::meta::MetaDb;
use crate::storage::{Identity, StorageError, wal};

/// What the broker before left.
pub(super) struct Before {
    storage: Option<Uuid>,
    incarnation: u64,
    /// It closed properly, or there was none.
    pub(super) clean: bool,
    /// The kernel it ran on still runs: what it wrote is there even if it was not synced.
    pub(super) same_boot: bool,
}

impl Before {
    /// There was none.
    pub(super) fn is_new(&self) -> bool {
        self.storage.is_none()
    }
}

/// Identity of the running kernel; empty, which equals no other, where it is not told.
pub(super) fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Opens the metadata if it is of a version that this program knows.
pub(super) fn open_meta(dir: &Path, meta_dir: &Path) -> Result<MetaDb, StorageError> {
    // All that is in it was synced: a hole is damage, whatever happened to the kernel.
    wal::scan(meta_dir, false)?;
    let meta = MetaDb::open(meta_dir)?;
    match meta.read_u32(META_FORMAT)? {
        Some(found) if found > FORMAT => {
            Err(StorageError::NewerFormat { dir: dir.display().to_string(), found, known: FORMAT })
        }
        _ => Ok(meta),
    }
}

/// Reads what the broker before left.
pub(super) fn before(meta: &MetaDb, boot_id: &str) -> Result<Before, StorageError> {
    let storage = meta.read(META_STORAGE_ID)?.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    let incarnation = meta.read_u64(META_INCARNATION)?.unwrap_or(0);
    let clean = storage.is_none() || meta.read_u64(META_CLEAN)? == Some(incarnation);
    let same_boot = !boot_id.is_empty() && meta.read(META_BOOT_ID)?.as_deref() == Some(boot_id.as_bytes());
    Ok(Before { storage, incarnation, clean, same_boot })
}

/// Begins the next incarnation. `intact`: all that the one before wrote is there.
pub(super) fn start(meta: &MetaDb, before: &Before, intact: bool, boot_id: &str) -> Result<Identity, StorageError> {
    let storage = before.storage.unwrap_or_else(Uuid::new_v4);
    let incarnation = before.incarnation + 1;
    meta.write_synced(vec![
        (META_FORMAT.to_vec(), Some(FORMAT.to_be_bytes().to_vec())),
        (META_STORAGE_ID.to_vec(), Some(storage.as_bytes().to_vec())),
        (META_INCARNATION.to_vec(), Some(incarnation.to_be_bytes().to_vec())),
        (META_BOOT_ID.to_vec(), Some(boot_id.as_bytes().to_vec())),
        (META_CLEAN.to_vec(), None),
    ])?;
    Ok(Identity { storage, incarnation, clean: before.clean, complete: intact })
}

/// Leaves the mark of a proper close.
pub(in crate::storage) fn mark_clean(meta: &MetaDb, incarnation: u64) -> Result<(), StorageError> {
    meta.write_synced(vec![(META_CLEAN.to_vec(), Some(incarnation.to_be_bytes().to_vec()))])
}
