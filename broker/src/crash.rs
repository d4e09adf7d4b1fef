//! Crash points: named places at which a test makes the process kill itself, so that what a death leaves behind there can
//! be looked at. For tests only: nothing else may set [`VARIABLE`].
//!
//! A point lies where a death is worst: between two steps of an operation that must look like one. When nothing is armed a
//! point costs one relaxed load. The process dies by SIGKILL, as it would by the kernel's hand: no destructor runs, and no
//! buffer of the process is written.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Environment variable that arms a point: `<name>:<n>`, to die at the n-th time (from 1) that it is reached.
pub const VARIABLE: &str = "TAFFRAIL_CRASH_POINT";

/// A place at which the process can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CrashPoint {
    /// A group of appends is in the write-ahead log, none of its tickets has resolved.
    Append = 1,
    /// The footers of a full storage epoch are written, the next epoch is not open yet.
    Seal,
    /// A storage epoch is full, its footers are not written yet.
    Footer,
    /// A ledger record is in the write-ahead log, memory does not know of it yet.
    LedgerRecord,
    /// The file of a rewritten storage epoch is finished, but not ingested.
    Rewrite,
    /// A rewritten storage epoch is ingested, memory does not know of it and its sources are there.
    Ingest,
    /// Between two runs of dead storage epochs, or between a drop and its check.
    Drop,
    /// Checkpoints are written, the storage epochs that they stand for are not dropped.
    Checkpoint,
    /// A trim is about to be written.
    Trim,
    /// A truncation is about to be written.
    Truncate,
    /// A log is marked as deleted in one of the databases, but not in both.
    Delete,
    /// A change of the metadata is synced, its caller does not know.
    MetadataWrite,
    /// A coordinator has decided, its log does not know.
    CoordinatorAppend,
    /// A coordinator's decision is committed, or it had nothing to write, nobody was told.
    CoordinatorAnswer,
    /// The begin of a coordinator's checkpoint is about to be appended.
    CoordinatorCheckpointBegin,
    /// Parts of a coordinator's checkpoint are about to be appended.
    CoordinatorCheckpointParts,
    /// The end of a coordinator's checkpoint is about to be appended.
    CoordinatorCheckpointEnd,
    /// A coordinator's checkpoint is committed, its log is not trimmed.
    CoordinatorTrim,
}

impl CrashPoint {
    /// Those of storage.
    pub const STORAGE: [Self; 12] = [
        Self::Append,
        Self::Seal,
        Self::Footer,
        Self::LedgerRecord,
        Self::Rewrite,
        Self::Ingest,
        Self::Drop,
        Self::Checkpoint,
        Self::Trim,
        Self::Truncate,
        Self::Delete,
        Self::MetadataWrite,
    ];

    /// Those of coordinators.
    pub const COORDINATOR: [Self; 6] = [
        Self::CoordinatorAppend,
        Self::CoordinatorAnswer,
        Self::CoordinatorCheckpointBegin,
        Self::CoordinatorCheckpointParts,
        Self::CoordinatorCheckpointEnd,
        Self::CoordinatorTrim,
    ];

    /// Each of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::STORAGE.into_iter().chain(Self::COORDINATOR)
    }

    /// Its name in [`VARIABLE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Seal => "seal",
            Self::Footer => "footer",
            Self::LedgerRecord => "ledger-record",
            Self::Rewrite => "rewrite",
            Self::Ingest => "ingest",
            Self::Drop => "drop",
            Self::Checkpoint => "checkpoint",
            Self::Trim => "trim",
            Self::Truncate => "truncate",
            Self::Delete => "delete",
            Self::MetadataWrite => "metadata-write",
            Self::CoordinatorAppend => "coordinator-append",
            Self::CoordinatorAnswer => "coordinator-answer",
            Self::CoordinatorCheckpointBegin => "coordinator-checkpoint-begin",
            Self::CoordinatorCheckpointParts => "coordinator-checkpoint-parts",
            Self::CoordinatorCheckpointEnd => "coordinator-checkpoint-end",
            Self::CoordinatorTrim => "coordinator-trim",
        }
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|point| point.name() == name)
    }
}

/// The variable's value names no point or no number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={0:?} is not <crash point>:<number from 1>; it is for tests only, unset it")]
pub struct InvalidCrashPoint(String);

/// The armed point as its discriminant; 0: none.
static ARMED: AtomicU8 = AtomicU8::new(0);
/// How many times the armed point must still be reached.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Arms the point that the environment names, if it does. Called once, at the process's start.
pub fn arm_from_environment() -> Result<(), InvalidCrashPoint> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let value = value.to_string_lossy();
    let (point, times) = parse(&value).ok_or_else(|| InvalidCrashPoint(value.to_string()))?;
    tracing::warn!(point = point.name(), times, "this process will kill itself: {VARIABLE} is set");
    LEFT.store(times, Relaxed);
    ARMED.store(point as u8, Relaxed);
    Ok(())
}

fn parse(value: &str) -> Option<(CrashPoint, u64)> {
    let (name, times) = value.split_once(':')?;
    let times = times.parse().ok().filter(|&times| times > 0)?;
    Some((CrashPoint::by_name(name)?, times))
}

/// Dies if `point` is armed and its time has come.
#[inline]
pub fn hit(point: CrashPoint) {
    if ARMED.load(Relaxed) == point as u8 {
        count_down();
    }
}

#[cold]
fn count_down() {
    if LEFT.fetch_sub(1, Relaxed) == 1 {
        die();
    }
}

fn die() -> ! {
    // A process may always signal itself; should the kernel refuse, an abort is the next best death.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one that is declared behind it. A new point does not compile until it has its place here.
    fn next(point: CrashPoint) -> Option<CrashPoint> {
        use CrashPoint::*;
        Some(match point {
            Append => Seal,
            Seal => Footer,
            Footer => LedgerRecord,
            LedgerRecord => Rewrite,
            Rewrite => Ingest,
            Ingest => Drop,
            Drop => Checkpoint,
            Checkpoint => Trim,
            Trim => Truncate,
            Truncate => Delete,
            Delete => MetadataWrite,
            MetadataWrite => CoordinatorAppend,
            CoordinatorAppend => CoordinatorAnswer,
            CoordinatorAnswer => CoordinatorCheckpointBegin,
            CoordinatorCheckpointBegin => CoordinatorCheckpointParts,
            CoordinatorCheckpointParts => CoordinatorCheckpointEnd,
            CoordinatorCheckpointEnd => CoordinatorTrim,
            CoordinatorTrim => return None,
        })
    }

    #[test]
    fn the_list_of_points_is_complete() {
        let points: Vec<_> = std::iter::successors(Some(CrashPoint::Append), |&point| next(point)).collect();
        assert_eq!(points, CrashPoint::all().collect::<Vec<_>>());
    }

    #[test]
    fn each_point_has_a_name_of_its_own_and_is_found_by_it() {
        for point in CrashPoint::all() {
            assert_eq!(CrashPoint::by_name(point.name()), Some(point));
            assert_eq!(parse(&format!("{}:3", point.name())), Some((point, 3)));
        }
    }

    #[test]
    fn other_values_are_refused() {
        for value in ["", "append", "append:", "append:0", "append:-1", "append:x", "nowhere:1", "Append:1"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
