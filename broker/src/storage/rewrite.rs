//! The one operation that changes sealed data: what lives in some sealed storage epochs is written into a new one, which
//! replaces them. Retention, deletion, truncation, compaction and merging of small epochs all end here.
//!
//! The new epoch is one file, built beside the database and published by ingestion, which is atomic. Its seal names what it
//! replaces: from then on the sources are dead, also for a start that finds both. So nothing else must be ordered but that
//!
//! - the sources are in files below level 0, and no file of theirs holds an epoch that is neither a source nor dead (the
//!   planner sees to it);
//! - what makes batches dead (trims, truncations) is synced before the file that lacks them is published;
//! - numbers of rewritten epochs are never used again: the ingestion refuses a key that is there, but not a used number;
//! - the ingestion takes no sequence number. One that does would leave a gap in the recycled write-ahead log, and after a
//!   SIGKILL RocksDB would drop all that follows the gap without a word.

mod shape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};
use taffrail_proto::record::BatchHeader;
use taffrail_proto::record::header::verify_crc;

use self::shape::{LogView, Shape};
use super::epochs::EpochInfo;
use super::footer::{BatchRef, Footer, Piece, Seal};
use super::front::Front;
use super::keys::{DataKey, FIRST_REWRITTEN, META_REWRITTEN_EPOCHS};
use super::log::LogCell;
use super::shared::Shared;
use super::{LogId, StorageError, options};
use crate::crash::{CrashPoint, hit};

/// Batches that are fetched at a time: bytes and number.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK: usize = 1024;

/// What a rewrite did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// Bytes of the new file.
    pub(super) bytes: u64,
}

/// Writes what lives in `sources` into a new epoch and makes it the one that counts. The sources are dead afterwards, not
/// dropped. On an error nothing has changed. One at a time; blocks for as long as reading and writing takes.
pub(super) fn rewrite(shared: &Shared, sources: &[u32]) -> Result<Rewritten, StorageError> {
    let draft = Draft::of(shared, sources)?;
    // Trims and truncations that the draft takes for granted.
    shared.sync()?;
    let number = take_number(shared)?;
    let file = file_for(shared, number)?;
    let bytes = draft.write(shared, number, &file)?;
    hit(CrashPoint::Rewrite);
    ingest(shared, &file)?;
    hit(CrashPoint::Ingest);
    draft.publish(shared, number);
    Ok(Rewritten { bytes })
}

/// What the new epoch will hold.
struct Draft {
    logs: BTreeMap<LogId, Shape>,
    seal: Seal,
    sources: Vec<u32>,
}

impl Draft {
    fn of(shared: &Shared, sources: &[u32]) -> Result<Self, StorageError> {
        let mut logs = BTreeMap::new();
        for (log, pieces) in read_pieces(shared, sources)? {
            let Some(cell) = shared.cell(log) else { continue };
            let shape = Shape::of(&view(&cell), pieces);
            if !shape.pieces.is_empty() {
                logs.insert(log, shape);
            }
        }
        let pieces = logs.values().flat_map(|shape| &shape.pieces);
        let bytes = pieces.filter_map(|piece| Some(piece.span?.bytes)).sum();
        let seal = Seal { footers: logs.len() as u64, bytes, replaces: replaced(shared, sources) };
        Ok(Self { logs, seal, sources: sources.to_vec() })
    }

    /// Writes the file; gives its size.
    fn write(&self, shared: &Shared, epoch: u32, path: &Path) -> Result<u64, StorageError> {
        let io = |cause: rocksdb::Error| StorageError::io("write a storage epoch anew", &cause);
        let tuned = options::data(&shared.options, false)?;
        let mut file = SstFileWriter::create(&tuned);
        file.open(path).map_err(io)?;
        file.put(DataKey::Seal { epoch }.encode(), self.seal.encode()).map_err(io)?;
        for (&log, shape) in &self.logs {
            file.put(DataKey::Footer { epoch, log }.encode(), Footer::encode_pieces(&shape.pieces)).map_err(io)?;
        }
        for (&log, shape) in &self.logs {
            let batches = shape.pieces.iter().flat_map(|piece| &piece.batches).copied();
            let batches: Vec<(BatchRef, u32)> = batches.zip(shape.from.iter().flatten().copied()).collect();
            copy(shared, log, &batches, |base, batch| {
                file.put(DataKey::Batch { epoch, log, base }.encode(), batch).map_err(io)
            })?;
        }
        file.finish().map_err(io)?;
        Ok(file.file_size())
    }

    /// Makes the new epoch known.
    fn publish(self, shared: &Shared, epoch: u32) {
        let info = EpochInfo { bytes: self.seal.bytes, replaces: self.seal.replaces };
        shared.epochs.lock().add(epoch, info);
        for cell in shared.cells() {
            let pieces = self.logs.get(&cell.id).map_or(&[][..], |shape| &shape.pieces);
            cell.lock().state.index_mut().replace(&self.sources, epoch, pieces);
        }
    }
}

fn view(cell: &LogCell) -> LogView {
    let inner = cell.lock();
    let state = &inner.state;
    LogView { start: state.start(), entries: state.index().entries().to_vec(), needed_from: state.needed_from() }
}

/// Pieces by log, each with the epoch that holds it.
fn read_pieces(shared: &Shared, sources: &[u32]) -> Result<BTreeMap<LogId, Vec<(u32, Piece)>>, StorageError> {
    let mut pieces: BTreeMap<LogId, Vec<(u32, Piece)>> = BTreeMap::new();
    for &epoch in sources {
        for (log, footer) in Front::read(shared.data(), &shared.copies, epoch)?.footers() {
            let malformed = || damaged(shared, epoch, format!("malformed footer of log {}", log.0));
            let footer = Footer::decode(footer).ok_or_else(malformed)?;
            pieces.entry(*log).or_default().extend(footer.pieces.into_iter().map(|piece| (epoch, piece)));
        }
    }
    Ok(pieces)
}

/// The sources, and what they replace and is not gone yet.
fn replaced(shared: &Shared, sources: &[u32]) -> Vec<u32> {
    let epochs = shared.epochs.lock();
    let before = sources.iter().filter_map(|&source| epochs.get(source)).flat_map(|info| &info.replaces);
    let mut replaced: Vec<u32> = before.copied().filter(|&epoch| epochs.get(epoch).is_some()).collect();
    replaced.extend(sources);
    replaced.sort_unstable();
    replaced.dedup();
    replaced
}

/// A number that no rewritten epoch had or will have.
fn take_number(shared: &Shared) -> Result<u32, StorageError> {
    let newest = shared.epochs.lock().sealed().map(|(number, _)| number).max().unwrap_or(0);
    let used = shared.meta.read_u32(META_REWRITTEN_EPOCHS)?.unwrap_or(0).max(newest).max(FIRST_REWRITTEN - 1);
    let number = used.checked_add(1).ok_or_else(|| StorageError::io("number a storage epoch", &"none is left"))?;
    shared.meta.write_synced(vec![(META_REWRITTEN_EPOCHS.to_vec(), Some(number.to_be_bytes().to_vec()))])?;
    Ok(number)
}

/// Where the file is built: on the database's volume, for it is linked and not copied. What a crash left there goes.
fn file_for(shared: &Shared, number: u32) -> Result<PathBuf, StorageError> {
    let dir = shared.dir.join("rewrite");
    let io = |cause: std::io::Error| StorageError::io("make room for a rewritten storage epoch", &cause);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(io)?;
    }
    std::fs::create_dir(&dir).map_err(io)?;
    Ok(dir.join(format!("{number}.sst")))
}

fn ingest(shared: &Shared, file: &Path) -> Result<(), StorageError> {
    let mut how = IngestExternalFileOptions::default();
    how.set_move_files(true);
    how.set_allow_global_seqno(false);
    how.set_snapshot_consistency(false);
    how.set_allow_blocking_flush(false);
    let ingested = shared.data().ingest_external_file_opts(&how, vec![file]);
    ingested.map_err(|cause| StorageError::io("ingest a rewritten storage epoch", &cause))
}

/// Gives a log's batches, each named with the epoch that holds it, to `put`.
fn copy(
    shared: &Shared,
    log: LogId,
    batches: &[(BatchRef, u32)],
    mut put: impl FnMut(i64, &[u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut rest = batches;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |(batch, _): &&(BatchRef, u32)| {
            bytes += batch.bytes as usize;
            bytes <= CHUNK_BYTES
        };
        let count = rest.iter().take(CHUNK).take_while(fits).count().max(1);
        let (chunk, after) = rest.split_at(count);
        let keys = chunk.iter().map(|&(batch, epoch)| DataKey::Batch { epoch, log, base: batch.base }.encode());
        let values = shared.data().multi_get_opt(keys, &options::read_once());
        for (&(batch, epoch), value) in chunk.iter().zip(values) {
            let name = |what: String| {
                damaged(shared, epoch, format!("batch at offset {} of log {}: {what}", batch.base, log.0))
            };
            let value = value.map_err(|cause| name(cause.to_string()))?;
            let value = value.ok_or_else(|| name("it is missing".to_owned()))?;
            check(&batch, &value).map_err(name)?;
            put(batch.base, &value)?;
        }
        rest = after;
    }
    Ok(())
}

/// Damage is never spread.
fn check(batch: &BatchRef, value: &[u8]) -> Result<(), String> {
    verify_crc(value).map_err(|fault| fault.to_string())?;
    let header = BatchHeader::parse(value).map_err(|fault| fault.to_string())?;
    if header.base_offset != batch.base || value.len() != batch.bytes as usize {
        return Err("it is not the batch that the footer lists".to_owned());
    }
    Ok(())
}

fn damaged(shared: &Shared, epoch: u32, what: String) -> StorageError {
    let file = format!("{}, storage epoch {epoch}", shared.data().path().display());
    StorageError::Damaged { file, at: 0, what }
}
