//! Gives back space: drops storage epochs that nothing needs, and rewrites those that are mostly dead. [`plan`] decides.
//!
//! A round:
//!
//! 1. Sealed epochs without a live batch are found. Logs whose state lies in one of them get a checkpoint in the open epoch,
//!    so that an idle log keeps its offsets and its producers for ever; it is synced, and with it all that made batches dead.
//! 2. Dead epochs are dropped by whole files, in runs; each drop is checked, for RocksDB skips files that it is just moving.
//! 3. What the planner finds worth it is rewritten ([`rewrite`](super::rewrite)), and the sources are dropped.
//! 4. Footers of epochs that are new are copied, those of epochs that are gone removed ([`front`](super::front)).
//!
//! A crash may interrupt it anywhere: a start finds the dead again, by what their logs need or by the seal of the epoch that
//! replaces them. A drop that was cut in the middle may leave batches without a seal. The open epoch is never empty then
//! (it has the checkpoint), so that a start knows them from the epoch that was open: only the newest can be that.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use self::plan::{EpochView, FileView, Limits, View};
use super::disk::Volume;
use super::find::has_keys;
use super::index::Entry;
use super::keys::{FIRST_REWRITTEN, epoch_last, epoch_start};
use super::log::LogCell;
use super::rewrite::rewrite;
use super::shared::Shared;
use super::{Maintenance, StorageError};
use crate::crash::{CrashPoint, hit};

/// Entries that the index in memory may have: 48 bytes each.
const INDEX_ENTRIES: u64 = 4_000_000;
/// Above this part of the volume, in percent, more is rewritten for less.
const CROWDED_PERCENT: u64 = 80;
/// A drop is tried so often in one round.
const DROP_ATTEMPTS: usize = 5;
const DROP_PAUSE: Duration = Duration::from_millis(10);

/// What rounds remember.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Epochs that could not be read: they stay as they are, for what can be read of them.
    spoiled: BTreeSet<u32>,
}

/// One round.
pub(super) fn round(shared: &Shared) -> Result<Maintenance, StorageError> {
    let mut keeper = shared.maintenance.lock();
    if let Some(refusal) = shared.refusal() {
        return Err(refusal);
    }
    let (mut done, metrics) = (Maintenance::default(), &shared.options.metrics);
    retire(shared)?;
    done.dropped += drop_dead(shared)?;
    let limits = limits(shared)?;
    for group in plan::rewrites(&survey(shared)?, &limits) {
        if group.iter().any(|epoch| keeper.spoiled.contains(epoch)) {
            continue;
        }
        match rewrite(shared, &group) {
            Ok(rewritten) => {
                metrics.rewritten_epochs.inc_by(group.len() as u64);
                metrics.rewritten_bytes.inc_by(rewritten.bytes);
                done.rewritten += group.len() as u64;
                done.rewritten_bytes += rewritten.bytes;
            }
            Err(damage @ StorageError::Damaged { .. }) => {
                tracing::error!(%damage, "storage epochs are not rewritten: they stay as they are");
                keeper.spoiled.extend(group);
            }
            Err(fault) => return Err(fault),
        }
    }
    if done.rewritten > 0 {
        done.dropped += drop_dead(shared)?;
    }
    shared.keep_copies();
    Ok(done)
}

/// Marks epochs without a live batch as dead, after the state that they hold was written down elsewhere.
fn retire(shared: &Shared) -> Result<(), StorageError> {
    let view = survey(shared)?;
    let empty: BTreeSet<u32> =
        view.epochs.iter().filter(|(_, epoch)| !epoch.dead && epoch.live == 0).map(|(&number, _)| number).collect();
    if view.epochs.values().all(|epoch| !epoch.dead) && empty.is_empty() {
        return Ok(());
    }
    let needs = |cell: &Arc<LogCell>| {
        let inner = cell.lock();
        let from = inner.state.needed_from();
        let holds_state = |entry: &Entry| entry.origin >= from && empty.contains(&entry.container);
        inner.state.index().entries().iter().any(holds_state)
    };
    let (mut cells, others): (Vec<_>, Vec<_>) = shared.cells().into_iter().partition(needs);
    if cells.is_empty() {
        // Any will do: see the module for why there must be one.
        cells.extend(others.into_iter().next());
    }
    shared.checkpoint(&cells)?;
    shared.sync()?;
    hit(CrashPoint::Checkpoint);
    let mut epochs = shared.epochs.lock();
    for epoch in empty {
        epochs.kill(epoch);
    }
    Ok(())
}

/// Drops what is dead and can be dropped; gives the number of epochs.
fn drop_dead(shared: &Shared) -> Result<u64, StorageError> {
    let view = survey(shared)?;
    let mut dropped = 0;
    for run in plan::drops(&view) {
        let mut left: Vec<u32> = view.epochs.range(run.clone()).map(|(&number, _)| number).collect();
        for cell in shared.cells() {
            cell.lock().state.index_mut().forget(|container| run.contains(&container));
        }
        for attempt in 0..DROP_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(DROP_PAUSE);
            }
            let range = (epoch_start(*run.start()), epoch_last(*run.end()));
            let deleted = shared.data().delete_file_in_range(range.0, range.1);
            deleted.map_err(|cause| StorageError::io("drop storage epochs", &cause))?;
            hit(CrashPoint::Drop);
            dropped += forget_gone(shared, &mut left);
            if left.is_empty() {
                break;
            }
        }
    }
    Ok(dropped)
}

/// Takes epochs without a key from the list, and from that of all epochs; gives their number.
fn forget_gone(shared: &Shared, left: &mut Vec<u32>) -> u64 {
    let before = left.len();
    let mut there = Vec::new();
    for &epoch in left.iter() {
        // What cannot be read is still there.
        if matches!(has_keys(shared.data(), epoch), Ok(false)) {
            shared.epochs.lock().dropped(epoch);
        } else {
            there.push(epoch);
        }
    }
    *left = there;
    let gone = (before - left.len()) as u64;
    shared.options.metrics.dropped_epochs.inc_by(gone);
    gone
}

fn limits(shared: &Shared) -> Result<Limits, StorageError> {
    let volume = Volume::of(&shared.dir)?;
    let crowded = volume.total.saturating_sub(volume.free) > volume.total / 100 * CROWDED_PERCENT;
    Ok(Limits { epoch_bytes: shared.options.epoch_bytes, pieces: INDEX_ENTRIES, crowded })
}

/// What there is. An epoch that is sealed meanwhile is still taken for open: its pieces come to its logs one by one.
fn survey(shared: &Shared) -> Result<View, StorageError> {
    let open = shared.open_epoch.load(Acquire);
    let mut epochs = BTreeMap::new();
    {
        let all = shared.epochs.lock();
        let settled = all.sealed().filter(|(number, _)| *number < open || *number >= FIRST_REWRITTEN);
        epochs.extend(settled.map(|(number, info)| {
            (number, EpochView { bytes: info.bytes, dead: all.is_dead(number), ..EpochView::default() })
        }));
    }
    for cell in shared.cells() {
        let inner = cell.lock();
        let start = inner.state.start();
        for entry in inner.state.index().entries() {
            if let Some(epoch) = epochs.get_mut(&entry.container) {
                epoch.pieces += 1;
                epoch.live += live_bytes(entry, start);
            }
        }
    }
    Ok(View { epochs, files: files(shared)?, open })
}

/// Bytes of an entry's batches that live; of one that is cut by the log's start, its share by offsets, at least one.
fn live_bytes(entry: &Entry, start: i64) -> u64 {
    if !entry.is_live(start) {
        return 0;
    }
    let (all, left) = (entry.last - entry.first + 1, entry.last - entry.first.max(start) + 1);
    let share = u128::from(entry.bytes) * left as u128 / all as u128;
    (share as u64).max(1)
}

fn files(shared: &Shared) -> Result<Vec<FileView>, StorageError> {
    let files = shared.data().live_files().map_err(|cause| StorageError::io("list the database's files", &cause))?;
    let epoch = |key: &Option<Vec<u8>>| Some(u32::from_be_bytes(*key.as_ref()?.first_chunk()?));
    let view = |file: &rocksdb::LiveFile| {
        Some(FileView { level: file.level, first: epoch(&file.start_key)?, last: epoch(&file.end_key)? })
    };
    Ok(files.iter().filter_map(view).collect())
}

#[cfg(test)]
mod tests;
