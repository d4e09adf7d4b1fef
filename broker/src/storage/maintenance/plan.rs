//! What to drop and what to rewrite. Pure.
//!
//! RocksDB's files are what can be dropped, and a file may hold several storage epochs (a recovery puts several write-ahead
//! logs into one). So epochs are dropped in runs, neighbours with no living epoch between, and rewritten together with those
//! whose files they share. Neither happens while a file is on level 0, where dropping does not reach.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// An epoch is rewritten when its live bytes are at most this part of it: disk stays below twice what lives, at a cost of
/// at most one written byte for each that is given back.
const HALF: (u64, u64) = (1, 2);
/// The same while the disk is crowded.
const CROWDED: (u64, u64) = (9, 10);
/// Epochs smaller than this part of a full one are small: rolled by age, by a restart, or left over by a rewrite.
const SMALL: u64 = 4;
/// So many small ones are merged.
const SMALL_ENOUGH: usize = 16;
/// Epochs in one rewrite.
const GROUP: usize = 64;
/// Epochs of about one size that are merged to thin out the index.
const MERGE: usize = 8;
/// A merged epoch has at most so many full ones' bytes.
const MERGED_MAX: u64 = 16;
/// Bytes that one round rewrites, in full epochs; at least one group.
const BUDGET: u64 = 4;

/// A storage epoch that is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EpochView {
    /// Bytes of its batches.
    pub(super) bytes: u64,
    /// Those of them that some log still has.
    pub(super) live: u64,
    /// Pieces in it: entries of the index in memory.
    pub(super) pieces: u64,
    /// Nothing of it is needed.
    pub(super) dead: bool,
}

/// A file of the database: the epochs of its least and its greatest key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileView {
    pub(super) level: i32,
    pub(super) first: u32,
    pub(super) last: u32,
}

/// Everything that is there. Epochs with files that are not among the sealed ones are open: nothing touches them.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) epochs: BTreeMap<u32, EpochView>,
    pub(super) files: Vec<FileView>,
    pub(super) open: u32,
}

/// What decides about rewriting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of a full epoch.
    pub(super) epoch_bytes: u64,
    /// Entries that the index may have.
    pub(super) pieces: u64,
    /// The disk is so full that space is worth more work.
    pub(super) crowded: bool,
}

/// Epochs that share files, directly or by way of others: they are dropped and rewritten together.
#[derive(Clone, Debug, Default)]
struct Unit {
    living: Vec<u32>,
    dead: Vec<u32>,
    bytes: u64,
    live: u64,
}

/// Runs of dead epochs that can be dropped now.
pub(super) fn drops(view: &View) -> Vec<RangeInclusive<u32>> {
    let free: BTreeSet<u32> =
        view.units().into_iter().filter(|unit| unit.living.is_empty()).flat_map(|unit| unit.dead).collect();
    let mut runs: Vec<RangeInclusive<u32>> = Vec::new();
    let mut joins = false;
    for number in view.numbers() {
        let is_free = free.contains(&number);
        match runs.last_mut() {
            Some(run) if joins && is_free => *run = *run.start()..=number,
            _ if is_free => runs.push(number..=number),
            _ => {}
        }
        joins = is_free;
    }
    runs
}

/// Groups of epochs to write anew, each into one.
pub(super) fn rewrites(view: &View, limits: &Limits) -> Vec<Vec<u32>> {
    let units: Vec<Unit> = view.units().into_iter().filter(|unit| unit.live > 0).collect();
    let mut groups = wasteful(&units, limits);
    if groups.is_empty() {
        groups.extend(small(&units, limits).or_else(|| crowd(view, &units, limits)));
    }
    let (mut budget, mut first) = (limits.epoch_bytes.saturating_mul(BUDGET), true);
    groups.retain(|group| {
        let fits = std::mem::take(&mut first) || group.live <= budget;
        budget = budget.saturating_sub(group.live);
        fits
    });
    groups.into_iter().map(|group| group.living).collect()
}

/// Those with too many dead bytes, emptiest first, gathered until they fill an epoch.
fn wasteful(units: &[Unit], limits: &Limits) -> Vec<Unit> {
    let (part, of) = if limits.crowded { CROWDED } else { HALF };
    let is_wasteful = |unit: &&Unit| unit.live.saturating_mul(of) <= unit.bytes.saturating_mul(part);
    let mut units: Vec<&Unit> = units.iter().filter(is_wasteful).collect();
    // Equal shares in the order of writing, so that what is gathered expires together.
    units.sort_by_key(|unit| (unit.live.saturating_mul(16) / unit.bytes.max(1), unit.living[0]));
    gather(units, limits.epoch_bytes)
}

/// Many small ones, oldest first: as many as fill an epoch.
fn small(units: &[Unit], limits: &Limits) -> Option<Unit> {
    let small: Vec<&Unit> = units.iter().filter(|unit| unit.bytes < limits.epoch_bytes / SMALL).collect();
    if small.len() < SMALL_ENOUGH {
        return None;
    }
    gather(small, limits.epoch_bytes).into_iter().find(|group| group.living.len() > 1)
}

/// Neighbours of about one size, the smallest size first and the oldest of it: a log's pieces in them become one. Sizes go
/// by powers of [`MERGE`], so that a byte is merged a few times in its life and not each round.
fn crowd(view: &View, units: &[Unit], limits: &Limits) -> Option<Unit> {
    if view.epochs.values().map(|epoch| epoch.pieces).sum::<u64>() <= limits.pieces {
        return None;
    }
    let mut sizes: BTreeMap<u32, Vec<&Unit>> = BTreeMap::new();
    for unit in units {
        let full = unit.bytes / limits.epoch_bytes.max(1);
        sizes.entry(full.max(1).ilog(MERGE as u64)).or_default().push(unit);
    }
    let room = limits.epoch_bytes.saturating_mul(MERGED_MAX);
    let enough = sizes.into_values().filter(|units| units.len() >= MERGE);
    enough.flat_map(|units| gather(units.into_iter().take(MERGE), room)).find(|group| group.living.len() > 1)
}

/// Groups in the order given, each with at most `room` live bytes unless one unit alone has more.
fn gather<'a>(units: impl IntoIterator<Item = &'a Unit>, room: u64) -> Vec<Unit> {
    let mut groups = Vec::<Unit>::new();
    for unit in units {
        match groups.last_mut() {
            Some(group) if group.live + unit.live <= room && group.living.len() + unit.living.len() <= GROUP => {
                group.add(unit);
            }
            _ => groups.push(unit.clone()),
        }
    }
    for group in &mut groups {
        group.living.sort_unstable();
    }
    groups
}

impl Unit {
    fn add(&mut self, other: &Self) {
        self.living.extend(&other.living);
        self.dead.extend(&other.dead);
        self.bytes += other.bytes;
        self.live += other.live;
    }
}

impl View {
    /// All epochs, the open one among them, in the order of their keys.
    fn numbers(&self) -> impl Iterator<Item = u32> {
        let (before, after) = (self.epochs.range(..self.open), self.epochs.range(self.open..));
        before.map(|(&number, _)| number).chain([self.open]).chain(after.map(|(&number, _)| number))
    }

    /// The units that can be dropped or rewritten: all of their files are below level 0, and all of their epochs sealed.
    fn units(&self) -> Vec<Unit> {
        let mut files = self.files.clone();
        files.sort_unstable_by_key(|file| file.first);
        let mut clusters: Vec<FileView> = Vec::new();
        for file in files {
            match clusters.last_mut() {
                Some(cluster) if file.first <= cluster.last => {
                    cluster.last = cluster.last.max(file.last);
                    cluster.level = cluster.level.min(file.level);
                }
                _ => clusters.push(file),
            }
        }
        clusters.into_iter().filter_map(|cluster| self.unit(cluster)).collect()
    }

    fn unit(&self, FileView { level, first, last }: FileView) -> Option<Unit> {
        let known = self.epochs.contains_key(&first) && self.epochs.contains_key(&last);
        if level < 1 || !known || (first..=last).contains(&self.open) {
            return None;
        }
        let mut unit = Unit::default();
        for (&number, epoch) in self.epochs.range(first..=last) {
            unit.bytes += epoch.bytes;
            if epoch.dead {
                unit.dead.push(number);
            } else {
                unit.live += epoch.live;
                unit.living.push(number);
            }
        }
        Some(unit)
    }
}

#[cfg(test)]
mod tests;
