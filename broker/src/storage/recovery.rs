//! Start: from a directory to the state that the broker before left, whatever way it ended.
//!
//! 1. Lock, format, identity ([`start_over`](identity)).
//! 2. After an unclean stop, scan of the write-ahead log before RocksDB opens it (D6).
//! 3. Storage epochs by one seek each ([`find`](super::find)); those that a rewritten one replaces are dead.
//! 4. Footers of all live epochs, folded in the order of their origins; batches are not read. Damaged ones are read from
//!    their copies, and a start is refused only where there is none ([`front`](super::front), D5).
//! 5. The epoch that was open at a crash: ledger records and batch headers replayed, then sealed like any other.
//! 6. A fresh epoch number.

mod fold;
mod identity;

use std::path::Path;
use std::sync::Arc;

use rocksdb::{ColumnFamilyDescriptor, DB, DEFAULT_COLUMN_FAMILY_NAME, WriteBatch};
use taffrail_proto::record::BatchHeader;

use super::disk::Volume;
use super::epochs::{EpochInfo, Epochs};
use super::find::{Found, State, find};
use super::footer::{Footer, Seal};
use super::front::Copies;
use super::keys::{DataKey, FIRST_REWRITTEN, META_EPOCHS, batches_start, epoch_end, ledger_start};
use super::ledger::Ledger;
use super::log::LogCell;
use super::meta::MetaDb;
use super::replay::Unsealed;
use super::shared::{Logs, Opened, Shared};
use super::wal::sync_mark;
use super::writer::RESERVED;
use super::{EngineOptions, LogId, PartitionId, StorageError, options, wal};
use fold::Fold;
pub(super) use identity::{before, boot_id, mark_clean, mark_complete, scan_meta};

/// Opens a directory; the lock is held.
pub(super) fn open(dir: &Path, options: EngineOptions) -> Result<Opened, StorageError> {
    let (meta_dir, data_dir) = (Shared::meta_dir(dir), Shared::data_dir(dir));
    for dir in [&meta_dir, &data_dir] {
        std::fs::create_dir_all(dir).map_err(|cause| StorageError::io("make the data directory", &cause))?;
    }
    let boot_id = boot_id();
    let meta = Arc::new(identity::open_meta(dir, &meta_dir)?);
    let before = before(&meta, &boot_id)?;
    if before.is_new() && data_dir.join("CURRENT").exists() {
        return Err(StorageError::damaged(
            &meta_dir,
            "the metadata is gone",
            &"there is data but nothing says of which logs",
        ));
    }
    let intact = before.clean || scan(&data_dir, before.same_boot, options.accept_loss)?;
    let identity = identity::start(&meta, &before, intact, &boot_id)?;
    let options = options.fit(Volume::of(dir)?.total);
    let data = open_data(&data_dir, &options)?;
    let known = meta.logs()?;
    let copies = Copies::of(dir);
    if !before.same_boot {
        copies.remove_torn();
    }
    let epochs = Epochs::default();
    let mut recovery = Recovery { meta: &meta, data: &data, copies: &copies, known: &known, epochs, newest: 0 };
    let unsealed = recovery.find_epochs()?;
    let mut fold = recovery.fold()?;
    match unsealed {
        // All that was written after it has been rewritten: it is not what was open.
        Some(epoch) if epoch < recovery.newest => recovery.give_up(epoch),
        Some(epoch) => recovery.seal(epoch, &mut fold)?,
        None => {}
    }
    let open_epoch = recovery.reserve()?;
    let epochs = recovery.epochs;
    let mut logs = Logs::default();
    for (id, partition) in known {
        logs.insert(Arc::new(LogCell::new(id, partition, fold.take(id))));
    }
    Ok(Opened { dir: dir.to_owned(), options, identity, meta, data, copies, logs, epochs, open_epoch })
}

/// Whether everything that was written is there; an error if what is missing was promised.
fn scan(data_dir: &Path, same_boot: bool, accept_loss: bool) -> Result<bool, StorageError> {
    match wal::scan(data_dir, same_boot) {
        Ok(_) => Ok(same_boot),
        Err(damage) if accept_loss => {
            tracing::warn!(%damage, "starting although the write-ahead log is damaged: what follows the damage is lost");
            Ok(false)
        }
        Err(damage) => Err(damage),
    }
}

fn open_data(dir: &Path, engine: &EngineOptions) -> Result<DB, StorageError> {
    let tuned = options::data(engine, options::supports_direct_io(dir))?;
    // Its only column family, by name: only so can its handle be had, which reads of many keys ask for.
    let batches = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, tuned.clone());
    DB::open_cf_descriptors(&tuned, dir, [batches]).map_err(|cause| StorageError::unopened(dir, &cause))
}

struct Recovery<'a> {
    meta: &'a MetaDb,
    data: &'a DB,
    copies: &'a Copies,
    /// The logs that exist.
    known: &'a [(LogId, PartitionId)],
    epochs: Epochs,
    /// Highest number of an epoch that the writer filled.
    newest: u32,
}

impl Recovery<'_> {
    /// Finds all epochs; gives the one that may have been open at a crash.
    fn find_epochs(&mut self) -> Result<Option<u32>, StorageError> {
        let (mut unsealed, mut lost, mut last_filled) = (vec![], vec![], 0);
        for Found { number, state } in find(self.data, self.copies)? {
            match state {
                State::Sealed(seal, damage) => {
                    if let Some(damage) = damage {
                        tracing::error!(%damage, "the copy stands in");
                    }
                    let replaced = seal.replaces.iter().copied().filter(|&replaced| replaced < FIRST_REWRITTEN).max();
                    self.newest = self.newest.max(replaced.unwrap_or(0));
                    self.epochs.add(number, EpochInfo { bytes: seal.bytes, replaces: seal.replaces });
                }
                State::Open => unsealed.push(number),
                State::Lost(damage) => lost.push((number, damage)),
            }
            if number < FIRST_REWRITTEN {
                self.newest = self.newest.max(number);
                last_filled = number;
            }
        }
        for (epoch, damage) in lost {
            // Of one that is replaced nothing is needed.
            if !self.epochs.is_dead(epoch) {
                return Err(damage);
            }
            self.epochs.add(epoch, EpochInfo::default());
        }
        let mut open = None;
        for epoch in unsealed {
            if epoch == last_filled && !self.epochs.is_dead(epoch) {
                open = Some(epoch);
            } else {
                self.give_up(epoch);
            }
        }
        Ok(open)
    }

    /// It is what a drop has left that was cut in the middle.
    fn give_up(&mut self, epoch: u32) {
        self.epochs.add(epoch, EpochInfo::default());
        self.epochs.kill(epoch);
    }

    fn fold(&mut self) -> Result<Fold, StorageError> {
        let live: Vec<u32> =
            self.epochs.sealed().map(|(epoch, _)| epoch).filter(|&epoch| !self.epochs.is_dead(epoch)).collect();
        let fold = Fold::of(self.data, self.copies, &live)?;
        self.newest = self.newest.max(fold.newest_origin());
        Ok(fold)
    }

    /// Replays an epoch that has no footers, and gives it some.
    fn seal(&mut self, epoch: u32, fold: &mut Fold) -> Result<(), StorageError> {
        let mut unsealed = self.read_unsealed(epoch)?;
        let mut batch = WriteBatch::default();
        batch.put_log_data(sync_mark(0));
        let mut seal = Seal::default();
        let exists = |log: &LogId| self.known.binary_search_by_key(log, |(id, _)| *id).is_ok();
        for log in unsealed.logs().into_iter().filter(exists) {
            let state = fold.state_mut(log);
            if !unsealed.replay(log, state) {
                let what = format!("batches of log {} do not follow each other", log.0);
                return Err(self.damaged(&format!("storage epoch {epoch}"), &what));
            }
            let Some(piece) = state.piece(epoch) else { continue };
            seal.footers += 1;
            seal.bytes += piece.span.map_or(0, |span| span.bytes);
            batch.put(DataKey::Footer { epoch, log }.encode(), Footer::encode_pieces(std::slice::from_ref(&piece)));
            state.seal(&piece);
        }
        batch.put(DataKey::Seal { epoch }.encode(), seal.encode());
        let io = |cause: rocksdb::Error| StorageError::io("seal the storage epoch that was open at the crash", &cause);
        self.data.write(batch).map_err(io)?;
        // In a file of their own, in front of the epoch's other keys: files stay disjoint.
        self.data.flush().map_err(io)?;
        self.epochs.add(epoch, EpochInfo { bytes: seal.bytes, replaces: vec![] });
        Ok(())
    }

    fn read_unsealed(&self, epoch: u32) -> Result<Unsealed, StorageError> {
        let mut unsealed = Unsealed::default();
        let what = format!("storage epoch {epoch}, which was open at the crash");
        let mut items = self.data.raw_iterator_opt(options::scan(batches_start(epoch)));
        items.seek(ledger_start(epoch));
        while let Some(value) = items.value() {
            let record = Ledger::decode(value).ok_or_else(|| self.damaged(&what, &"malformed ledger record"))?;
            unsealed.add_record(record);
            items.next();
        }
        items.status().map_err(|cause| StorageError::by_rocksdb(self.data.path(), &what, &cause))?;
        let mut items = self.data.raw_iterator_opt(options::scan(epoch_end(epoch)));
        items.seek(batches_start(epoch));
        while let Some((key, value)) = items.item() {
            let Some(DataKey::Batch { log, base, .. }) = DataKey::decode(key) else {
                return Err(self.damaged(&what, &"malformed key"));
            };
            let header = BatchHeader::parse(value).map_err(|fault| self.damaged(&what, &fault))?;
            if header.base_offset != base {
                return Err(self.damaged(&what, &"a batch that is not the one its key says"));
            }
            unsealed.add_batch(log, header, value.len() as u32);
            items.next();
        }
        items.status().map_err(|cause| StorageError::by_rocksdb(self.data.path(), &what, &cause))?;
        Ok(unsealed)
    }

    /// A number that no epoch had, with some more reserved in the metadata.
    fn reserve(&self) -> Result<u32, StorageError> {
        let reserved = self.meta.read_u32(META_EPOCHS)?.unwrap_or(0);
        let open = self.newest.max(reserved) + 1;
        let until = open + RESERVED;
        self.meta.write_synced(vec![(META_EPOCHS.to_vec(), Some(until.to_be_bytes().to_vec()))])?;
        Ok(open)
    }

    fn damaged(&self, what: &str, cause: &dyn std::fmt::Display) -> StorageError {
        StorageError::damaged(self.data.path(), what, cause)
    }
}
