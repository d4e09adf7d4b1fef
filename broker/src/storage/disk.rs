//! The guard that refuses appends before the disk is full, so that what is acknowledged can still be written out, and
//! truncations, trims and deletions, which make room, still be recorded.

use std::path::Path;
use std::time::{Duration, Instant};

use super::StorageError;

/// The volume is looked at this often, or after [`BYTES`] appended, or an eighth of the reserve where that is less: what was
/// appended unseen is taken from the reserve, which on a small volume is not much more than memtables need to be written out.
const INTERVAL: Duration = Duration::from_millis(100);
const BYTES: u64 = 16 << 20;

/// A volume's size, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) total: u64,
    pub(crate) free: u64,
}

impl Volume {
    /// Of the file system that holds `dir`; what only root may use does not count as free.
    pub(crate) fn of(dir: &Path) -> Result<Self, StorageError> {
        let stat = rustix::fs::statvfs(dir).map_err(|errno| StorageError::io("look at the volume", &errno))?;
        Ok(Self { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    /// Once it was full, an eighth more than the reserve must be free again, so that it does not go to and fro.
    pub(crate) fn has_room_again(self, reserve: u64) -> bool {
        self.free >= reserve + reserve / 8
    }
}

/// Decides whether an append may use the disk.
#[derive(Debug)]
pub(crate) struct DiskGuard {
    reserve: u64,
    volume: Volume,
    full: bool,
    looked: Option<Instant>,
    since: u64,
}

impl DiskGuard {
    /// Keeps `reserve` bytes free.
    pub(crate) fn new(reserve: u64) -> Self {
        Self { reserve, volume: Volume::default(), full: false, looked: None, since: 0 }
    }

    /// Counts an append of `bytes` at `now` and says whether it is time to look at the volume again.
    pub(crate) fn is_due(&mut self, bytes: u64, now: Instant) -> bool {
        self.since += bytes;
        self.looked.is_none_or(|at| now.duration_since(at) >= INTERVAL) || self.since >= BYTES.min(self.reserve / 8)
    }

    /// Takes a fresh look into account.
    pub(crate) fn looked(&mut self, volume: Volume, now: Instant) {
        let room = if self.full { volume.has_room_again(self.reserve) } else { volume.free >= self.reserve };
        (self.volume, self.full, self.looked, self.since) = (volume, !room, Some(now), 0);
    }

    /// Appends are refused.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What a refused append is told.
    pub(crate) fn refusal(&self) -> StorageError {
        StorageError::DiskFull { free: self.volume.free, reserve: self.reserve }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_stop_at_the_reserve_and_go_on_with_some_room() {
        let (mut guard, now) = (DiskGuard::new(800), Instant::now());
        let full: Vec<_> = [1000, 800, 799, 800, 899, 900, 800]
            .map(|free| {
                guard.looked(Volume { total: 10_000, free }, now);
                guard.is_full()
            })
            .into();
        assert_eq!(full, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn the_volume_is_looked_at_by_time_and_by_bytes() {
        let (mut guard, now) = (DiskGuard::new(1 << 30), Instant::now());
        assert!(guard.is_due(1, now));
        guard.looked(Volume::default(), now);
        assert!(!guard.is_due(BYTES - 1, now + INTERVAL / 2));
        assert!(guard.is_due(1, now + INTERVAL / 2));
        guard.looked(Volume::default(), now);
        assert!(guard.is_due(0, now + INTERVAL));
    }

    #[test]
    fn what_is_appended_unseen_leaves_most_of_a_small_reserve() {
        let (mut guard, now) = (DiskGuard::new(21 << 20), Instant::now());
        guard.looked(Volume::default(), now);
        assert!(!guard.is_due(2 << 20, now));
        assert!(guard.is_due(1 << 20, now));
    }
}
