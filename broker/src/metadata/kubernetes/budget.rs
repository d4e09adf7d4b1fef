//! How much this process asks of the API: a cluster of thousands of partitions that fails over must not be what overloads
//! the API server it shares with everything else.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::errors::Failure;
use crate::metrics::MetadataMetrics;

/// Objects changed per second.
const OBJECTS: f64 = 100.0;
/// Bytes of changes per second.
const BYTES: f64 = 2_000_000.0;

/// What changes may cost, for all of a process.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    metrics: MetadataMetrics,
}

/// What has been spent, as the moment from which on more may be: each change moves it on by what it costs.
#[derive(Clone, Copy, Debug)]
struct State {
    free_from: Instant,
    paused_until: Instant,
}

impl State {
    /// When a change of `bytes` may begin: at once while less than a second's worth was spent in the last second.
    fn take(&mut self, bytes: usize, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64((1.0 / OBJECTS).max(bytes as f64 / BYTES));
        let begin = (self.free_from - Duration::from_secs(1)).max(now).max(self.paused_until);
        self.free_from = self.free_from.max(now) + cost;
        begin
    }
}

impl Budget {
    pub(super) fn new(metrics: MetadataMetrics) -> Self {
        let now = Instant::now();
        Self { state: Mutex::new(State { free_from: now, paused_until: now }), metrics }
    }

    /// Waits until a change of `bytes` may be made, or finds that this would be after `end`.
    pub(super) async fn take(&self, bytes: usize, end: Instant) -> Result<(), Failure> {
        let now = Instant::now();
        let begin = {
            let mut state = self.state.lock();
            let before = *state;
            let begin = state.take(bytes, now);
            if begin >= end {
                *state = before;
            }
            begin
        };
        self.wait(begin, now, end).await
    }

    /// Waits until the API server takes requests again, or finds that this would be after `end`.
    pub(super) async fn not_paused(&self, end: Instant) -> Result<(), Failure> {
        let begin = self.state.lock().paused_until;
        self.wait(begin, Instant::now(), end).await
    }

    async fn wait(&self, begin: Instant, now: Instant, end: Instant) -> Result<(), Failure> {
        if begin >= end || now >= end {
            return Err(Failure::NotMade("there was no time left to ask the Kubernetes API".to_owned()));
        }
        if begin > now {
            self.metrics.waited(begin - now);
            sleep_until(begin).await;
        }
        Ok(())
    }

    /// Keeps still, because the API server said so.
    pub(super) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        state.paused_until = state.paused_until.max(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn begins(costs: impl IntoIterator<Item = usize>) -> Vec<Duration> {
        let now = Instant::now();
        let mut state = State { free_from: now, paused_until: now };
        costs.into_iter().map(|bytes| state.take(bytes, now) - now).collect()
    }

    #[test]
    fn a_hundred_objects_at_once_and_then_a_hundred_each_second() {
        let begins = begins(std::iter::repeat_n(1000, 301));
        assert_eq!(begins[99], Duration::ZERO);
        assert_eq!(begins[100], Duration::ZERO);
        assert_eq!(begins[200].as_millis(), 1000);
        assert_eq!(begins[300].as_millis(), 2000);
    }

    #[test]
    fn large_objects_count_by_their_bytes() {
        let begins = begins([1_000_000; 5]);
        assert_eq!(begins.iter().map(Duration::as_millis).collect::<Vec<_>>(), [0, 0, 0, 500, 1000]);
    }

    #[tokio::test]
    async fn who_cannot_be_served_in_time_is_told_at_once_and_costs_nothing() {
        let budget = Budget::new(MetadataMetrics::default());
        let begin = Instant::now();
        let pause = Duration::from_millis(300);
        budget.pause(pause);
        assert!(matches!(budget.take(usize::MAX, begin + pause / 2).now_or_never(), Some(Err(_))));
        assert!(matches!(budget.not_paused(begin + pause / 2).now_or_never(), Some(Err(_))));
        budget.take(0, begin + 1000 * pause).await.unwrap();
        assert!(begin.elapsed() >= pause);
        assert!(budget.take(0, begin).await.is_err(), "an end that is over");
    }
}
