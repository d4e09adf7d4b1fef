//! Looks at a data directory that no broker uses and changes nothing in it: what is there, and whether every byte is right.
//!
//! [`Depth::Footers`] reads what the engine reads at a start; [`Depth::EveryByte`] reads all batches too and checks their
//! checksums, RocksDB's and their own. What is wrong is collected, not raised: the point is to tell all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rocksdb::DB;
use serde::Serialize;
use taffrail_proto::record::BatchHeader;
use taffrail_proto::record::header::verify_crc;
use uuid::Uuid;

use super::find::{Found, State, find};
use super::footer::{Footer, Seal};
use super::front::{Copies, Front};
use super::keys::{
    DataKey, FORMAT, META_CLEAN, META_FORMAT, META_INCARNATION, META_STORAGE_ID, batches_start, epoch_end, ledger_start,
};
use super::ledger::Ledger;
use super::lock::DirLock;
use super::meta::MetaDb;
use super::shared::Shared;
use super::{EngineOptions, LogId, MetaStore, StorageError, options, recovery, wal};

/// Faults that are listed; more would not help anyone.
const MAX_FAULTS: usize = 1_000;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Footers, and the batches of the epoch that was open: fast.
    Footers,
    /// Everything.
    EveryByte,
}

/// What a data directory holds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Version of the formats on disk.
    pub format_version: u32,
    /// Random, made with the directory.
    pub storage_id: Uuid,
    /// Number of the newest start.
    pub incarnation: u64,
    /// The last broker closed it properly.
    pub clean: bool,
    /// Storage epochs that are complete.
    pub sealed_epochs: u64,
    /// Storage epochs that were open when the broker ended.
    pub open_epochs: u64,
    /// Storage epochs that a rewritten one replaces and that are still there.
    pub replaced_epochs: u64,
    /// The partitions' logs, by number.
    pub logs: Vec<StoredLog>,
    /// Batches of logs that were deleted, bytes.
    pub deleted_bytes: u64,
    /// What is wrong; none: nothing was found.
    pub faults: Vec<Fault>,
}

/// What is stored of a log: also records that were trimmed or truncated and whose space is not given back yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredLog {
    /// Its number in the directory.
    pub log: u32,
    /// The topic's id.
    pub topic_id: Uuid,
    /// Number of the partition.
    pub partition: i32,
    /// First offset that is stored.
    pub first_offset: Option<i64>,
    /// Last offset that is stored.
    pub last_offset: Option<i64>,
    /// Batches that are stored.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where.
    pub place: String,
    /// What.
    pub what: String,
}

/// A data directory, opened for reading.
pub struct Directory {
    _lock: DirLock,
    meta: MetaDb,
    data: Option<DB>,
    copies: Copies,
    found: Inspection,
    logs: BTreeMap<LogId, StoredLog>,
}

/// A closed epoch: its number, and its seal if it is complete.
type Epoch = (u32, Option<Seal>);

impl Directory {
    /// Opens it. Refuses one that a broker uses, one that a newer version wrote, and what is no data directory.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let (meta_dir, data_dir) = (Shared::meta_dir(dir), Shared::data_dir(dir));
        if !meta_dir.is_dir() {
            return Err(StorageError::io("inspect", &format!("{} is no data directory", dir.display())));
        }
        let lock = DirLock::take(dir)?;
        recovery::scan_meta(&meta_dir)?;
        let meta = MetaDb::open_read_only(&meta_dir)?;
        let mut found = identity(&meta)?;
        if found.format_version > FORMAT {
            let dir = dir.display().to_string();
            return Err(StorageError::NewerFormat { dir, found: found.format_version, known: FORMAT });
        }
        let survived = recovery::before(&meta, &recovery::boot_id())?.same_boot;
        if !found.clean
            && let Err(damage) = wal::scan(&data_dir, survived)
        {
            found.fault(data_dir.display().to_string(), damage.to_string());
        }
        let data = open_data(&data_dir, &mut found)?;
        let empty = |(log, partition): (LogId, super::PartitionId)| (log, StoredLog::new(log, partition));
        let logs = meta.logs()?.into_iter().map(empty).collect();
        Ok(Self { _lock: lock, meta, data, copies: Copies::of(dir), found, logs })
    }

    /// The metadata that is kept beside the logs.
    pub fn meta(&self) -> &dyn MetaStore {
        &self.meta
    }

    /// Reads it.
    pub fn inspect(mut self, depth: Depth) -> Inspection {
        if let Some(data) = self.data.take() {
            let epochs = self.epochs(&data);
            let replaced: BTreeSet<u32> =
                epochs.iter().filter_map(|(_, seal)| seal.as_ref()).flat_map(|seal| seal.replaces.clone()).collect();
            for epoch in self.copies.epochs().into_iter().filter(|&epoch| self.copies.read(epoch).is_none()) {
                let place = self.copies.path(epoch).display().to_string();
                self.found.fault(place, "damaged; remove it, and the next start makes it anew".to_owned());
            }
            for (epoch, seal) in epochs {
                match (replaced.contains(&epoch), &seal) {
                    (true, _) => self.found.replaced_epochs += 1,
                    (false, Some(_)) => self.found.sealed_epochs += 1,
                    (false, None) => self.found.open_epochs += 1,
                }
                if !replaced.contains(&epoch) {
                    self.epoch(&data, epoch, seal.as_ref(), depth);
                }
            }
        }
        self.found.logs = self.logs.into_values().collect();
        self.found
    }

    /// All epochs.
    fn epochs(&mut self, data: &DB) -> Vec<Epoch> {
        let found = find(data, &self.copies).unwrap_or_else(|fault| {
            self.found.fault("storage epochs".to_owned(), fault.to_string());
            vec![]
        });
        let mut epoch = |Found { number, state }: Found| {
            let (seal, fault) = match state {
                State::Sealed(seal, damage) => (Some(seal), damage),
                State::Open => (None, None),
                State::Lost(damage) => (None, Some(damage)),
            };
            if let Some(fault) = fault {
                self.found.fault(format!("storage epoch {number}"), fault.to_string());
            }
            (number, seal)
        };
        found.into_iter().map(&mut epoch).collect()
    }

    fn epoch(&mut self, data: &DB, epoch: u32, seal: Option<&Seal>, depth: Depth) {
        let mut expected = BTreeMap::new();
        if let Some(seal) = seal {
            expected = self.footers(data, epoch, seal);
        }
        self.ledger(data, epoch);
        if seal.is_none() || depth == Depth::EveryByte {
            self.batches(data, epoch, seal.is_none(), &mut expected);
            self.missing(data, epoch, &expected);
        }
    }

    /// Counts what the footers name; answers the bytes of each batch. Damaged footers are taken from their copy.
    fn footers(&mut self, data: &DB, epoch: u32, seal: &Seal) -> BTreeMap<(LogId, i64), u32> {
        let mut named = BTreeMap::new();
        let place_of_all = format!("footers of storage epoch {epoch}");
        let front = Front::original(data, epoch).unwrap_or_else(|damage| {
            let copy = self.copies.read(epoch);
            let instead = if copy.is_some() { "the copy stands in" } else { "there is no copy" };
            self.found.fault(place_of_all.clone(), format!("{damage}; {instead}"));
            copy.unwrap_or_default()
        });
        for (log, footer) in front.footers() {
            match Footer::decode(footer) {
                Some(footer) => self.footer(*log, &footer, &mut named),
                None => self.found.fault(place(epoch, *log), "its footer is malformed".to_owned()),
            }
        }
        if front.footers().len() as u64 != seal.footers {
            let what = format!("{} are there, its seal says {}", front.footers().len(), seal.footers);
            self.found.fault(place_of_all, what);
        }
        named
    }

    fn footer(&mut self, log: LogId, footer: &Footer, named: &mut BTreeMap<(LogId, i64), u32>) {
        for piece in &footer.pieces {
            named.extend(piece.batches.iter().map(|batch| ((log, batch.base), batch.bytes)));
            if let Some(span) = &piece.span {
                self.count(log, (span.first, span.last), piece.batches.len() as u64, span.bytes);
            }
        }
    }

    fn count(&mut self, log: LogId, (first, last): (i64, i64), batches: u64, bytes: u64) {
        let Some(stored) = self.logs.get_mut(&log) else {
            self.found.deleted_bytes += bytes;
            return;
        };
        stored.first_offset = Some(stored.first_offset.map_or(first, |known| known.min(first)));
        stored.last_offset = stored.last_offset.max(Some(last));
        stored.batches += batches;
        stored.bytes += bytes;
    }

    fn ledger(&mut self, data: &DB, epoch: u32) {
        let mut items = data.raw_iterator_opt(options::scan(batches_start(epoch)));
        items.seek(ledger_start(epoch));
        while let Some(value) = items.value() {
            if Ledger::decode(value).is_none() {
                self.found.fault(format!("storage epoch {epoch}"), "a ledger record is malformed".to_owned());
            }
            items.next();
        }
        if let Err(cause) = items.status() {
            self.found.fault(format!("ledger of storage epoch {epoch}"), cause.to_string());
        }
    }

    /// Reads all batches of an epoch, and takes those that are right off `expected`.
    fn batches(&mut self, data: &DB, epoch: u32, open: bool, expected: &mut BTreeMap<(LogId, i64), u32>) {
        let mut items = data.raw_iterator_opt(options::scan(epoch_end(epoch)));
        items.seek(batches_start(epoch));
        while let Some((key, value)) = items.item() {
            match DataKey::decode(key) {
                Some(DataKey::Batch { log, base, .. }) => {
                    let size = expected.remove(&(log, base));
                    match check(value, base, size) {
                        Ok(last) if open => self.count(log, (base, last), 1, value.len() as u64),
                        Ok(_) => {}
                        Err(what) => self.found.fault(format!("{}, offset {base}", place(epoch, log)), what),
                    }
                }
                _ => self.found.fault(format!("storage epoch {epoch}"), format!("key {key:02x?} is none")),
            }
            items.next();
        }
        if let Err(cause) = items.status() {
            self.found.fault(format!("batches of storage epoch {epoch}"), cause.to_string());
        }
    }

    /// Batches that the scan did not come by: behind a damaged block, or not there.
    fn missing(&mut self, data: &DB, epoch: u32, expected: &BTreeMap<(LogId, i64), u32>) {
        for (&(log, base), &bytes) in expected {
            let read = data.get_pinned_opt(DataKey::Batch { epoch, log, base }.encode(), &options::read_once());
            let fault = match read {
                Ok(Some(value)) => check(&value, base, Some(bytes)).err(),
                Ok(None) => Some("the batch is missing".to_owned()),
                Err(cause) => Some(cause.to_string()),
            };
            if let Some(what) = fault {
                self.found.fault(format!("{}, offset {base}", place(epoch, log)), what);
            }
        }
    }
}

impl Inspection {
    fn fault(&mut self, place: String, what: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { place, what });
        }
    }
}

impl StoredLog {
    fn new(log: LogId, partition: super::PartitionId) -> Self {
        let (topic_id, partition) = (partition.topic, partition.index);
        Self { log: log.0, topic_id, partition, first_offset: None, last_offset: None, batches: 0, bytes: 0 }
    }
}

fn place(epoch: u32, log: LogId) -> String {
    format!("storage epoch {epoch}, log {}", log.0)
}

/// The last offset of a batch that is right.
fn check(batch: &[u8], base: i64, size: Option<u32>) -> Result<i64, String> {
    let header = BatchHeader::parse(batch).map_err(|fault| fault.to_string())?;
    verify_crc(batch).map_err(|fault| fault.to_string())?;
    if header.base_offset != base {
        return Err(format!("the batch says that its base offset is {}", header.base_offset));
    }
    match size {
        Some(size) if size as usize != batch.len() => Err(format!("has {} bytes, its footer says {size}", batch.len())),
        _ => Ok(header.last_offset()),
    }
}

fn identity(meta: &MetaDb) -> Result<Inspection, StorageError> {
    let incarnation = meta.read_u64(META_INCARNATION)?.unwrap_or(0);
    let storage_id = meta.read(META_STORAGE_ID)?.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    Ok(Inspection {
        format_version: meta.read_u32(META_FORMAT)?.unwrap_or(0),
        storage_id: storage_id.unwrap_or_default(),
        incarnation,
        clean: meta.read_u64(META_CLEAN)? == Some(incarnation),
        ..Inspection::default()
    })
}

/// The database of batches; nothing if it does not open, which is noted.
fn open_data(dir: &Path, found: &mut Inspection) -> Result<Option<DB>, StorageError> {
    let tuned = options::data(&EngineOptions::default(), false)?;
    match DB::open_for_read_only(&tuned, dir, false) {
        Ok(data) => Ok(Some(data)),
        Err(cause) => {
            found.fault(dir.display().to_string(), StorageError::unopened(dir, &cause).to_string());
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
