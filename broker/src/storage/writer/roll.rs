//! The open storage epoch, and its end: footers, seal, flush, next number.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use rocksdb::{FlushOptions, WriteBatch};

use super::Writer;
use crate::crash::{CrashPoint, hit};
use crate::storage::StorageError;
use crate::storage::epochs::EpochInfo;
use crate::storage::footer::{Footer, Piece, Seal};
use crate::storage::front::Front;
use crate::storage::keys::{DataKey, META_EPOCHS};
use crate::storage::log::LogCell;
use crate::storage::wal::sync_mark;

/// Memtables that may wait for their flush when an epoch is sealed. RocksDB flushes all that wait into one file; with more,
/// files hold two epochs.
const WAITING_MEMTABLES: u64 = 1;
/// Numbers of epochs that are reserved at a time in the metadata.
pub(crate) const RESERVED: u32 = 64;
const POLL: Duration = Duration::from_micros(200);

/// The epoch that is being filled.
pub(super) struct OpenEpoch {
    pub(super) number: u32,
    /// Bytes of its batches and records.
    pub(super) bytes: u64,
    since: Option<Instant>,
    touched: Vec<Arc<LogCell>>,
}

impl OpenEpoch {
    pub(super) fn new(number: u32) -> Self {
        Self { number, bytes: 0, since: None, touched: vec![] }
    }

    /// The epoch holds something of a log.
    pub(super) fn touch(&mut self, cell: &Arc<LogCell>) {
        if cell.writer.touched_in.swap(self.number, Relaxed) != self.number {
            self.since.get_or_insert_with(Instant::now);
            self.touched.push(Arc::clone(cell));
        }
    }

    /// Time until it has reached an age; that age if it holds nothing.
    pub(super) fn age_left(&self, age: Duration) -> Duration {
        self.since.map_or(age, |since| age.saturating_sub(since.elapsed()))
    }
}

impl Writer {
    /// Seals the epoch if it is full and the flush of those before is far enough.
    pub(super) fn roll_if_full(&mut self) {
        let options = &self.shared.options;
        if self.open.bytes < options.epoch_bytes {
            return self.seal_if_old();
        }
        let most = options.epoch_bytes_max();
        if self.waiting_memtables() > WAITING_MEMTABLES {
            if self.open.bytes < most {
                return;
            }
            if self.wait_for_flush().is_err() {
                return;
            }
        }
        // A failure is remembered by `fail`.
        let _ = self.seal();
    }

    /// Seals the epoch if it holds anything and has been open for long.
    pub(super) fn seal_if_old(&mut self) {
        if !self.open.touched.is_empty() && self.open.age_left(self.shared.options.epoch_age).is_zero() {
            let _ = self.seal();
        }
    }

    /// Writes the footers of all that the epoch holds, starts its flush, and opens the next.
    pub(super) fn seal(&mut self) -> Result<(), StorageError> {
        if let Some(StorageError::Failed(reason)) = self.shared.refusal() {
            return Err(StorageError::Failed(reason));
        }
        if self.open.touched.is_empty() {
            return Ok(());
        }
        hit(CrashPoint::Footer);
        let next = self.next_number()?;
        let number = self.open.number;
        let logs: Vec<_> = std::mem::take(&mut self.open.touched).into_iter().filter(|c| !c.is_deleted()).collect();
        let mut batch = WriteBatch::default();
        batch.put_log_data(sync_mark(self.shared.synced.load(Relaxed)));
        let mut pieces = Vec::with_capacity(logs.len());
        for cell in logs {
            let piece = cell.lock().state.piece(number);
            pieces.extend(piece.map(|piece| (cell, piece)));
        }
        let bytes = pieces.iter().filter_map(|(_, piece)| Some(piece.span?.bytes)).sum();
        let mut footers = Vec::with_capacity(pieces.len());
        for (cell, piece) in &mut pieces {
            footers.push((cell.id, put_footer(&mut batch, number, cell, piece)));
        }
        let seal = Seal { footers: pieces.len() as u64, bytes, replaces: vec![] }.encode();
        batch.put(DataKey::Seal { epoch: number }.encode(), &seal);
        let data = self.shared.data();
        data.write(batch).map_err(|cause| self.shared.fail("write footers", &cause))?;
        hit(CrashPoint::Seal);
        let mut flush = FlushOptions::default();
        flush.set_wait(false);
        data.flush_opt(&flush).map_err(|cause| self.shared.fail("flush a storage epoch", &cause))?;
        self.shared.epochs.lock().add(number, EpochInfo { bytes, replaces: vec![] });
        for (cell, piece) in &pieces {
            cell.sealed(piece);
        }
        self.open = OpenEpoch::new(next);
        self.shared.open_epoch.store(next, Release);
        self.clock.begin_epoch();
        self.copy_front(number, Front::written(seal, footers));
        Ok(())
    }

    /// Has the copy of an epoch's front made by a thread that may wait for the file system.
    fn copy_front(&self, epoch: u32, front: Front) {
        let shared = Arc::clone(&self.shared);
        self.shared.readers.run(move || {
            shared.copies.add(epoch, &front);
        });
    }

    /// Seals, flushes, syncs: nothing is left in memory.
    pub(super) fn close(&mut self) -> Result<(), StorageError> {
        self.seal()?;
        let data = self.shared.data();
        data.flush().map_err(|cause| self.shared.fail("flush the data database", &cause))?;
        self.sync()
    }

    /// The number after the open epoch's, reserved in the metadata so that no later start uses it again.
    fn next_number(&self) -> Result<u32, StorageError> {
        let next = self.open.number + 1;
        let reserved = self.shared.meta.read_u32(META_EPOCHS)?.unwrap_or(0);
        if next > reserved {
            let until = (next + RESERVED).to_be_bytes().to_vec();
            let change = vec![(META_EPOCHS.to_vec(), Some(until))];
            self.shared.meta.write_synced(change).map_err(|cause| self.shared.fail("reserve epochs", &cause))?;
        }
        Ok(next)
    }

    fn waiting_memtables(&self) -> u64 {
        self.property("rocksdb.num-immutable-mem-table")
    }

    fn wait_for_flush(&self) -> Result<(), StorageError> {
        while self.waiting_memtables() > WAITING_MEMTABLES {
            if self.property("rocksdb.background-errors") > 0 {
                return Err(self.shared.fail("flush memtables", &"RocksDB reports errors; see its LOG file"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn property(&self, name: &str) -> u64 {
        self.shared.data().property_int_value(name).ok().flatten().unwrap_or(0)
    }
}

/// Gives the footer as it was encoded.
fn put_footer(batch: &mut WriteBatch, epoch: u32, cell: &LogCell, piece: &mut Piece) -> Vec<u8> {
    let footer = Footer::encode_pieces(std::slice::from_ref(piece));
    batch.put(DataKey::Footer { epoch, log: cell.id }.encode(), &footer);
    // The list of batches is on the disk now, or soon.
    piece.batches = vec![];
    footer
}
