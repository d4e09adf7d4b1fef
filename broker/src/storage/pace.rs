//! Whether the disk is so slow that other replicas had better lead: a disk that is about to die often hangs first, for seconds
//! at a time, and fails nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A group commit that takes longer is slow. It is a MiB at most, and its records wait.
const SLOW: Duration = Duration::from_secs(5);
/// So long after the last slow one the disk counts as well again, so that leaders do not go to and fro.
const CALM: Duration = Duration::from_secs(30);

/// What the writer notes of its group commits, and others ask.
#[derive(Debug)]
pub(crate) struct Pace {
    origin: Instant,
    /// When the one under way began, in milliseconds since the origin, from 1 on; 0: none is under way.
    begun: AtomicU64,
    /// When the last slow one ended; 0: none was slow.
    slow: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { origin: Instant::now(), begun: AtomicU64::new(0), slow: AtomicU64::new(0) }
    }
}

impl Pace {
    /// A group commit begins.
    pub(crate) fn begin(&self, now: Instant) {
        self.begun.store(self.millis(now), Ordering::Relaxed);
    }

    /// It has ended, after so long.
    pub(crate) fn end(&self, taken: Duration, now: Instant) {
        if taken > SLOW {
            self.slow.store(self.millis(now), Ordering::Relaxed);
        }
        self.begun.store(0, Ordering::Relaxed);
    }

    /// Whether one has been under way for too long, or was lately.
    pub(crate) fn is_slow(&self, now: Instant) -> bool {
        let since = |at: &AtomicU64| match at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(self.millis(now).saturating_sub(at))),
        };
        since(&self.begun).is_some_and(|under_way| under_way > SLOW) || since(&self.slow).is_some_and(|ago| ago < CALM)
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_millis() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_slow_while_a_commit_hangs_and_for_a_while_after() {
        let (pace, begin) = (Pace::default(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(!pace.is_slow(begin));
        pace.begin(begin);
        assert!(!pace.is_slow(after(5)));
        assert!(pace.is_slow(after(6)), "it has not ended yet");
        pace.end(Duration::from_secs(8), after(8));
        assert!(pace.is_slow(after(9)));
        pace.begin(after(9));
        pace.end(Duration::from_secs(1), after(10));
        assert!(pace.is_slow(after(37)));
        assert!(!pace.is_slow(after(39)));
    }

    #[test]
    fn a_disk_that_keeps_up_is_not_slow_however_long_nothing_is_written() {
        let (pace, begin) = (Pace::default(), Instant::now());
        pace.begin(begin);
        pace.end(Duration::from_secs(4), begin + Duration::from_secs(4));
        assert!(!pace.is_slow(begin + Duration::from_hours(1)));
    }
}
