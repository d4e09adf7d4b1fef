//! The only place that tunes RocksDB. The numbers are measured: see ARCHITECTURE.md (Storage) for what each is worth.

use std::path::Path;
use std::time::Duration;

use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions};
use rustix::fs::{Mode, OFlags};

use super::StorageError;
use crate::metrics::StorageMetrics;

const MIB: u64 = 1 << 20;
/// The least storage epoch.
const MIN_EPOCH_BYTES: u64 = MIB / 64;
/// A storage epoch is at most this part of its volume, so that what memory holds can always be written out.
const EPOCHS_IN_VOLUME: u64 = 128;

/// Of the files that RocksDB may have open it sets aside these for itself.
const NOT_TABLES: u32 = 10;

/// Options that the crate has no setter for. `delayed_write_rate`: the default of 16 MB/s is felt as hiccups of 4 to 64 ms.
/// The prefix, a key's epoch and log: keys of one log rise, so a memtable remembers where each log's last key went and puts
/// the next one behind it without a search (about a tenth of the CPU time with batches of 1 KiB).
const WITHOUT_SETTER: &str =
    "delayed_write_rate=2000000000;memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.8";

/// What the owner of the storage decides. All else is fixed.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Bytes of batches after which a storage epoch is sealed and its memtable flushed; less on a small volume.
    pub epoch_bytes: u64,
    /// Age at which a storage epoch is sealed although it is not full.
    pub epoch_age: Duration,
    /// Recent batches that are kept in memory for readers at the end of logs, all logs together.
    pub recent_bytes: usize,
    /// Bytes of batches that the writer puts into one write at most; RocksDB caps its own groups there too.
    pub group_bytes: usize,
    /// Threads that read from the disk.
    pub reader_threads: usize,
    /// RocksDB's block cache: indexes and what is read twice.
    pub block_cache_bytes: usize,
    /// Table files that are kept open; others are opened when they are read. All, if not given.
    pub max_tables: Option<u32>,
    /// Bytes of the volume that appends leave free; by the volume's size if not given.
    pub reserve_bytes: Option<u64>,
    /// Start although the write-ahead log is damaged, and live with the loss (D6).
    pub accept_loss: bool,
    /// What is counted.
    pub metrics: StorageMetrics,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            epoch_bytes: 64 * MIB,
            epoch_age: Duration::from_hours(1),
            recent_bytes: 64 << 20,
            group_bytes: 1 << 20,
            reader_threads: 4,
            block_cache_bytes: 16 << 20,
            max_tables: None,
            reserve_bytes: None,
            accept_loss: false,
            metrics: StorageMetrics::default(),
        }
    }
}

impl EngineOptions {
    /// With epochs that a volume of `total` bytes has room for.
    #[must_use]
    pub(crate) fn fit(mut self, total: u64) -> Self {
        let room = (total / EPOCHS_IN_VOLUME).max(MIB);
        self.epoch_bytes = self.epoch_bytes.min(room).max(MIN_EPOCH_BYTES);
        self
    }

    /// An epoch may grow to this while the memtables before it are being flushed.
    pub(crate) fn epoch_bytes_max(&self) -> u64 {
        self.epoch_bytes * 7 / 4
    }

    /// Never reached by an epoch, footers included, so that RocksDB switches memtables only when told.
    fn write_buffer_bytes(&self) -> u64 {
        (self.epoch_bytes * 2).max(MIB)
    }

    /// Bytes of the volume that appends may not use. What waits in memtables must fit on the disk, and the write-ahead log
    /// with it; 5 % of the volume, but not absurdly much of a large one.
    pub(crate) fn reserve(&self, total: u64) -> u64 {
        let in_flight = 4 * self.epoch_bytes_max() + self.write_buffer_bytes();
        self.reserve_bytes.unwrap_or_else(|| (total / 20).min(10 << 30).max(in_flight))
    }
}

/// Options of the database `data`.
pub(crate) fn data(options: &EngineOptions, direct_io: bool) -> Result<Options, StorageError> {
    let mut db = Options::get_options_from_string(&mut Options::default(), WITHOUT_SETTER)
        .map_err(|cause| StorageError::io("set options of the data database", &cause))?;
    db.create_if_missing(true);
    db.set_compression_type(DBCompressionType::None);
    memtables(&mut db, options);
    compaction(&mut db);
    write_ahead_log(&mut db);
    info_log(&mut db);
    db.set_bytes_per_sync(MIB);
    db.set_use_direct_reads(direct_io);
    db.set_use_direct_io_for_flush_and_compaction(direct_io);
    db.set_max_file_opening_threads(16);
    let tables = options.max_tables.map_or(-1, |most| i32::try_from(most.saturating_add(NOT_TABLES)).unwrap_or(-1));
    db.set_max_open_files(tables);
    db.set_skip_stats_update_on_db_open(true);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(64 << 10);
    table.set_format_version(6);
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    db.set_block_based_table_factory(&table);
    Ok(db)
}

/// Options of the database `meta`: small values, each write synced.
pub(crate) fn meta() -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.set_compression_type(DBCompressionType::None);
    db.set_write_buffer_size(4 << 20);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_ttl(0);
    db.set_periodic_compaction_seconds(0);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(1 << 20));
    db.set_block_based_table_factory(&table);
    info_log(&mut db);
    db
}

fn memtables(db: &mut Options, options: &EngineOptions) {
    db.set_write_buffer_size(options.write_buffer_bytes() as usize);
    db.set_max_write_buffer_number(6);
    db.set_min_write_buffer_number_to_merge(1);
    db.set_max_background_jobs(8);
    // One thread writes.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
}

fn compaction(db: &mut Options) {
    // Files are disjoint: compaction moves them and rewrites nothing. It must run at once, for dropping skips level 0.
    db.set_level_zero_file_num_compaction_trigger(1);
    db.set_level_zero_slowdown_writes_trigger(1 << 30);
    db.set_level_zero_stop_writes_trigger(1 << 30);
    db.set_soft_pending_compaction_bytes_limit(1 << 40);
    db.set_hard_pending_compaction_bytes_limit(1 << 42);
    // By default files are rewritten when they are 30 days old.
    db.set_ttl(0);
    db.set_periodic_compaction_seconds(0);
}

fn write_ahead_log(db: &mut Options) {
    // A small ring in the page cache: overwritten before the kernel writes it out. Recycling needs point-in-time recovery,
    // which drops what lies behind a damaged record without a word: the broker scans the files before (D6).
    db.set_recycle_log_file_num(8);
    db.set_wal_bytes_per_sync(0);
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
}

fn info_log(db: &mut Options) {
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(4 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
}

/// Options for reads that happen once: the cache is for those that repeat.
pub(crate) fn read_once() -> ReadOptions {
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    read
}

/// Options for an iterator; it always has an upper bound, for without one RocksDB reads ahead into other logs' data (13
/// bytes read for each useful one).
pub(crate) fn scan(upper_bound: impl Into<Vec<u8>>) -> ReadOptions {
    let mut read = read_once();
    read.set_iterate_upper_bound(upper_bound.into());
    read.set_readahead_size(2 << 20);
    read
}

/// Whether the file system takes O_DIRECT. Some (tmpfs on older kernels, some network and overlay ones) refuse.
pub(crate) fn supports_direct_io(dir: &Path) -> bool {
    let probe = dir.join("direct-io-probe");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
    let opened = rustix::fs::open(&probe, flags, Mode::RUSR | Mode::WUSR);
    let _ = std::fs::remove_file(&probe);
    if let Err(cause) = &opened {
        tracing::warn!(dir = %dir.display(), %cause, "this file system refuses direct I/O: reads and flushes go through the page cache");
    }
    opened.is_ok()
}

#[cfg(test)]
mod tests {
    use rocksdb::DB;

    use super::*;

    #[test]
    fn options_without_a_setter_reach_the_database() {
        let dir = tempfile::tempdir().unwrap();
        drop(DB::open(&data(&EngineOptions::default(), false).unwrap(), dir.path()).unwrap());
        let files = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path());
        let is_options = |path: &std::path::PathBuf| path.to_string_lossy().contains("OPTIONS-");
        let written = std::fs::read_to_string(files.into_iter().find(is_options).unwrap()).unwrap();
        for option in WITHOUT_SETTER.split(';') {
            assert!(written.contains(&format!("{option}\n")), "{option} is not in:\n{written}");
        }
    }

    #[test]
    fn small_volumes_get_small_epochs_and_a_reserve_that_memory_fits_into() {
        for (volume, epoch) in [(1u64 << 40, 64 * MIB), (8 << 30, 64 * MIB), (1 << 30, 8 * MIB), (1 << 20, MIB)] {
            let options = EngineOptions::default().fit(volume);
            assert_eq!(options.epoch_bytes, epoch);
            assert!(options.reserve(volume) >= 4 * options.epoch_bytes_max());
        }
        assert_eq!(EngineOptions::default().fit(1 << 30).reserve(1 << 30), 72 * MIB);
        assert_eq!(EngineOptions::default().reserve(1 << 40), 10 << 30);
    }
}
