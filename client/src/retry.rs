//! How long to wait between tries: exponential, bounded, with jitter so that clients of a restarted broker spread out.
//!
//! Pure: the random fraction is passed in.

use std::time::Duration;

/// First wait after a failure.
pub(crate) const FIRST: Duration = Duration::from_millis(50);
/// Longest wait: a broker that comes back is found within a second.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between half and the whole of 50 ms · 2^(failures − 1), at most a second.
    /// `random` lies in 0..1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The wait after one more failure, not below what the broker asked for.
    pub(crate) fn next_after(&mut self, asked: Option<Duration>, random: f64) -> Duration {
        self.next(random).max(asked.unwrap_or_default())
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 25);
        for _ in 0..100 {
            assert!(backoff.next(2.0) <= LONGEST);
        }
    }

    #[test]
    fn the_brokers_wish_is_the_least() {
        let asked = Some(Duration::from_secs(3));
        assert_eq!(Backoff::default().next_after(asked, 0.5), Duration::from_secs(3));
    }
}
