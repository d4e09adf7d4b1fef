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

/// Memtables that may be on their way to the disk when an epoch is sealed. RocksDB flushes all that wait into one file; with
/// more, files hold two epochs.
const WAITING_MEMTABLES: u64 = 1;
/// Files of the write-ahead log that rest in its ring beside those in use.
///
/// RocksDB (11, `FindObsoleteFiles`) offers a file to be written anew a moment before it closes it, and closing cuts it off
/// where its old records ended. If it was taken meanwhile and has been written further than that, what lies behind is gone,
/// and nobody notices but the start after a crash. A flush ends only after the files that it made obsolete are closed, and
/// the file that has rested longest is taken first: with two, that one is closed as long as no flush is under way but that of
/// the one memtable that may wait ([`Writer::flushes_are_far_enough`]).
const RESTING_LOGS: u32 = 2;
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
        if self.open.bytes < options.epoch_bytes_max() && !self.flushes_are_far_enough() {
            return;
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

    /// Writes the footers of all that the epoch holds, starts its flush, and opens the next. Waits until the flushes before
    /// are far enough.
    pub(super) fn seal(&mut self) -> Result<(), StorageError> {
        if let Some(StorageError::Failed(reason)) = self.shared.refusal() {
            return Err(StorageError::Failed(reason));
        }
        if self.open.touched.is_empty() {
            return Ok(());
        }
        self.wait_for_flushes()?;
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
        self.start_flush().map_err(|cause| self.shared.fail("flush a storage epoch", &cause))?;
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

    /// Starts to flush the memtable; what is written from now on goes to the next one and to the next file of the
    /// write-ahead log.
    fn start_flush(&mut self) -> Result<(), rocksdb::Error> {
        let data = self.shared.data();
        let mut flush = FlushOptions::default();
        flush.set_wait(false);
        if self.resting_logs == RESTING_LOGS {
            return data.flush_opt(&flush);
        }
        // While no file may be deleted none is taken from the ring either.
        data.disable_file_deletions()?;
        let started = data.flush_opt(&flush);
        data.enable_file_deletions()?;
        self.resting_logs += 1;
        started
    }

    /// Whether the memtable may be flushed: see [`WAITING_MEMTABLES`] and [`RESTING_LOGS`].
    fn flushes_are_far_enough(&self) -> bool {
        // In this order: what waits becomes less meanwhile, and once a thread has begun with it, it counts as a flush until
        // that thread has closed what it must.
        let waiting = self.property("rocksdb.num-immutable-mem-table");
        waiting <= WAITING_MEMTABLES
            && self.property("rocksdb.mem-table-flush-pending") == 0
            && self.property("rocksdb.num-running-flushes") <= waiting
    }

    fn wait_for_flushes(&self) -> Result<(), StorageError> {
        while !self.flushes_are_far_enough() {
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
