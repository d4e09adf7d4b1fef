//! Readers that wait for data.
//!
//! A reader of many partitions has one [`Waiter`] and arms it at each partition that has nothing for it. The partition
//! wakes it once when it has, with a token of the reader's choice, and forgets it. So a fetch over 1,000 partitions costs
//! 1,000 short locks and no futures, and a wake names the partitions that are worth a look.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::snapshot::{Isolation, Snapshot};

/// Where partitions leave word for one reader.
#[derive(Debug, Default)]
pub struct Waiter {
    ready: Mutex<Vec<u64>>,
    notify: Notify,
}

impl Waiter {
    /// Armed nowhere.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until an armed partition has data or was closed, and answers the tokens of all that have by now. Cancel safe:
    /// tokens are only lost to the caller who got them. For one task at a time.
    pub async fn ready(&self) -> Vec<u64> {
        loop {
            let ready = self.take();
            if !ready.is_empty() {
                return ready;
            }
            self.notify.notified().await;
        }
    }

    /// The tokens that are there now.
    pub fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.ready.lock())
    }

    fn wake(&self, token: u64) {
        self.ready.lock().push(token);
        self.notify.notify_one();
    }
}

#[derive(Debug)]
struct Armed {
    beyond: i64,
    isolation: Isolation,
    token: u64,
    waiter: Weak<Waiter>,
}

impl Armed {
    fn is_due(&self, snapshot: &Snapshot) -> bool {
        snapshot.closed || snapshot.visible_end(self.isolation) > self.beyond
    }
}

/// Those that wait at one partition.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    armed: Mutex<Vec<Armed>>,
}

impl Waiters {
    /// Arms `waiter` unless its data is there already: then answers false and arms nothing. `load` reads the newest
    /// snapshot; it is called under the lock that [`wake`](Self::wake) takes after publishing, so no wake is missed.
    pub(super) fn arm(
        &self,
        (beyond, isolation): (i64, Isolation),
        waiter: &Arc<Waiter>,
        token: u64,
        load: impl FnOnce() -> Snapshot,
    ) -> bool {
        let entry = Armed { beyond, isolation, token, waiter: Arc::downgrade(waiter) };
        let mut armed = self.armed.lock();
        if entry.is_due(&load()) {
            return false;
        }
        // Readers that went away are dropped when the list would grow, so that it stays within twice those alive.
        if armed.len() == armed.capacity() {
            armed.retain(|a| a.waiter.strong_count() > 0);
        }
        armed.push(entry);
        true
    }

    /// Somebody waits for records of this isolation.
    pub(super) fn any(&self, isolation: Isolation) -> bool {
        self.armed.lock().iter().any(|armed| armed.isolation == isolation && armed.waiter.strong_count() > 0)
    }

    /// Wakes those who wait for what `snapshot` shows. To be called after it was published.
    pub(super) fn wake(&self, snapshot: &Snapshot) {
        let mut armed = self.armed.lock();
        armed.retain(|entry| {
            let due = entry.is_due(snapshot);
            if due && let Some(waiter) = entry.waiter.upgrade() {
                waiter.wake(entry.token);
            }
            !due
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn snapshot(high_watermark: i64, last_stable: i64) -> Snapshot {
        Snapshot { log_start: 0, high_watermark, last_stable, log_end: high_watermark, leader_epoch: 0, closed: false }
    }

    #[test]
    fn readers_that_went_away_do_not_pile_up() {
        let waiters = Waiters::default();
        let stays = Waiter::new();
        assert!(waiters.arm((0, Isolation::default()), &stays, 1, || snapshot(0, 0)));
        for token in 0..10_000 {
            waiters.arm((0, Isolation::default()), &Waiter::new(), token, || snapshot(0, 0));
        }
        assert!(waiters.armed.lock().len() <= 4, "{}", waiters.armed.lock().len());
        waiters.wake(&snapshot(1, 1));
        assert_eq!(stays.take(), [1]);
    }

    #[test]
    fn a_reader_of_committed_data_waits_for_the_last_stable_offset() {
        let (waiters, waiter) = (Waiters::default(), Waiter::new());
        waiters.arm((4, Isolation::ReadUncommitted), &waiter, 1, || snapshot(4, 2));
        waiters.arm((4, Isolation::ReadCommitted), &waiter, 2, || snapshot(4, 2));
        waiters.wake(&snapshot(5, 4));
        assert_eq!(waiter.take(), [1]);
        waiters.wake(&snapshot(5, 5));
        assert_eq!(waiter.take(), [2]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_missed_however_arming_and_publishing_meet() {
        let (waiters, end) = (Arc::new(Waiters::default()), Arc::new(AtomicI64::new(0)));
        let (publisher, published) = (waiters.clone(), end.clone());
        let publishing = std::thread::spawn(move || {
            for next in 1..=2_000 {
                published.store(next, Ordering::SeqCst);
                publisher.wake(&snapshot(next, next));
            }
        });
        let (waiter, mut seen) = (Waiter::new(), 0);
        while seen < 2_000 {
            let load = || snapshot(end.load(Ordering::SeqCst), 0);
            if waiters.arm((seen, Isolation::default()), &waiter, 0, load) {
                waiter.ready().await;
            }
            seen = end.load(Ordering::SeqCst);
        }
        publishing.join().unwrap();
    }
}
