//! All connections, and what the server tells them: to drain, to end, or that they hold answers unread while memory is short
//! and are ended so that one that reads gets it.
//!
//! Each has a channel of its own: a connection looks at it whenever it wakes, and must not meet the others there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::memory::{Account, Budget};

/// How long a peer may hold answers unread while memory is short.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the one that holds most, while there is no memory for newcomers.
const PATIENCE_WHEN_EXHAUSTED: Duration = Duration::from_secs(1);
/// How often that is looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// Streams that are open may end, others are not taken.
    Draining,
    /// It held answers unread while memory was short.
    Stalled,
    /// The broker has waited long enough.
    Ended,
}

/// What a connection's answers hold, and how it is told.
type Entry = (Arc<Account>, watch::Sender<Stage>);

/// All connections, by numbers.
#[derive(Debug)]
pub(super) struct Connections {
    open: Mutex<HashMap<u64, Entry>>,
    last: AtomicU64,
    /// What was told to all.
    stage: watch::Sender<Stage>,
}

/// A connection that is known until this is dropped.
#[derive(Debug)]
pub(super) struct Known<'a> {
    connections: &'a Connections,
    number: u64,
    /// What it is told.
    pub(super) stage: watch::Receiver<Stage>,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { open: Mutex::default(), last: AtomicU64::new(0), stage: watch::Sender::new(Stage::Open) }
    }

    pub(super) fn add(&self, responses: &Arc<Account>) -> Known<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        // Under the lock, so that it misses nothing that is told to all.
        let (sender, mut stage) = watch::channel(*self.stage.borrow());
        stage.mark_changed();
        open.insert(number, (Arc::clone(responses), sender));
        Known { connections: self, number, stage }
    }

    /// Tells all that are open, and those to come.
    pub(super) fn tell(&self, stage: Stage) {
        let open = self.open.lock();
        self.stage.send_replace(stage);
        open.values().for_each(|(_, sender)| advance(sender, stage));
    }

    /// Ends those that have stalled for too long; how many.
    pub(super) fn sweep(&self, budget: &Budget) -> usize {
        if !budget.is_tight() {
            return 0;
        }
        let connections = self.open.lock();
        let open = || connections.values().filter(|(_, sender)| *sender.borrow() < Stage::Stalled);
        let mut ended: Vec<_> = open().filter(|(account, _)| account.stalled_for() >= PATIENCE).collect();
        if ended.is_empty() && budget.is_exhausted() {
            let stalled = open().filter(|(account, _)| account.stalled_for() >= PATIENCE_WHEN_EXHAUSTED);
            ended.extend(stalled.max_by_key(|(account, _)| account.used()));
        }
        for (_, sender) in &ended {
            advance(sender, Stage::Stalled);
        }
        ended.len()
    }
}

/// Stages only rise.
fn advance(sender: &watch::Sender<Stage>, stage: Stage) {
    sender.send_if_modified(|now| {
        let rises = stage > *now;
        *now = stage.max(*now);
        rises
    });
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_memory_that_others_need_is_ended() {
        let (connections, budget) = (Connections::new(), Budget::new(1_000));
        let accounts = [Account::new(&budget), Account::new(&budget), Account::new(&budget)];
        let known: Vec<_> = accounts.iter().map(|account| connections.add(account)).collect();
        let _small = accounts[0].overdraw(200);
        assert_eq!(connections.sweep(&budget), 0, "there is memory");
        let _large = accounts[1].overdraw(790);
        assert_eq!(connections.sweep(&budget), 0, "nobody has had time to read");
        std::thread::sleep(PATIENCE_WHEN_EXHAUSTED);
        assert_eq!(connections.sweep(&budget), 1);
        let told: Vec<_> = known.iter().map(|known| *known.stage.borrow()).collect();
        assert_eq!(told, [Stage::Open, Stage::Stalled, Stage::Open]);
        drop(known);
        assert!(connections.open.lock().is_empty());
    }

    #[test]
    fn what_is_told_to_all_reaches_those_that_come_later_and_never_goes_back() {
        let (connections, budget) = (Connections::new(), Budget::new(1_000));
        let account = Account::new(&budget);
        let early = connections.add(&account);
        connections.tell(Stage::Draining);
        let late = connections.add(&account);
        assert_eq!((*early.stage.borrow(), *late.stage.borrow()), (Stage::Draining, Stage::Draining));
        connections.tell(Stage::Ended);
        connections.tell(Stage::Draining);
        assert_eq!(*late.stage.borrow(), Stage::Ended);
    }
}
