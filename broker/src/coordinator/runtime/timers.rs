//! When which timer runs out, by boot time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Timers by name.
#[derive(Debug)]
pub(super) struct Timers<T> {
    by_name: BTreeMap<T, Duration>,
    by_time: BTreeSet<(Duration, T)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<T: Clone + Ord> Timers<T> {
    /// Has `timer` run out at `due`, whatever it was set to before.
    pub(super) fn set(&mut self, timer: T, due: Duration) {
        if let Some(before) = self.by_name.insert(timer.clone(), due) {
            self.by_time.remove(&(before, timer.clone()));
        }
        self.by_time.insert((due, timer));
    }

    pub(super) fn cancel(&mut self, timer: &T) {
        if let Some((name, due)) = self.by_name.remove_entry(timer) {
            self.by_time.remove(&(due, name));
        }
    }

    /// When the next one runs out.
    pub(super) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Takes one that has run out at `now`, the earliest first.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_name.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_timer_runs_out_once_at_the_time_it_was_set_to_last() {
        let mut timers = Timers::default();
        timers.set("a", at(5));
        timers.set("b", at(3));
        timers.set("a", at(2));
        assert_eq!((timers.next(), timers.take_due(at(1))), (Some(at(2)), None));
        assert_eq!(timers.take_due(at(9)), Some("a"));
        assert_eq!(timers.take_due(at(9)), Some("b"));
        assert_eq!(timers.take_due(at(9)), None);
    }

    #[test]
    fn a_cancelled_timer_does_not_run_out() {
        let mut timers = Timers::default();
        timers.set("a", at(1));
        timers.cancel(&"a");
        timers.cancel(&"b");
        assert_eq!((timers.next(), timers.take_due(at(9))), (None, None));
    }
}
