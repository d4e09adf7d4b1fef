//! Ends connections that hold answers unread while memory is short, so that one that reads gets it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::memory::{Account, Budget};

/// How long a peer may hold answers unread while memory is short.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for the one that holds most, while there is no memory for newcomers.
const PATIENCE_WHEN_EXHAUSTED: Duration = Duration::from_secs(1);
/// How often that is looked at.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// All connections, by what their answers hold.
#[derive(Debug, Default)]
pub(super) struct Watch {
    connections: Mutex<HashMap<u64, (Arc<Account>, CancellationToken)>>,
    last: AtomicU64,
}

/// A connection that is watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    watch: &'a Watch,
    number: u64,
    /// The connection is to end.
    pub(super) evicted: CancellationToken,
}

impl Watch {
    pub(super) fn add(&self, responses: &Arc<Account>) -> Watched<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let evicted = CancellationToken::new();
        self.connections.lock().insert(number, (Arc::clone(responses), evicted.clone()));
        Watched { watch: self, number, evicted }
    }

    /// Ends those that have stalled for too long; how many.
    pub(super) fn sweep(&self, budget: &Budget) -> usize {
        if !budget.is_tight() {
            return 0;
        }
        let connections = self.connections.lock();
        let open = || connections.values().filter(|(_, evicted)| !evicted.is_cancelled());
        let mut ended: Vec<_> = open().filter(|(account, _)| account.stalled_for() >= PATIENCE).collect();
        if ended.is_empty() && budget.is_exhausted() {
            let stalled = open().filter(|(account, _)| account.stalled_for() >= PATIENCE_WHEN_EXHAUSTED);
            ended.extend(stalled.max_by_key(|(account, _)| account.used()));
        }
        ended.iter().for_each(|(_, evicted)| evicted.cancel());
        ended.len()
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.connections.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_holds_memory_that_others_need_is_ended() {
        let (watch, budget) = (Watch::default(), Budget::new(1_000));
        let accounts = [Account::new(&budget), Account::new(&budget), Account::new(&budget)];
        let watched: Vec<_> = accounts.iter().map(|account| watch.add(account)).collect();
        let _small = accounts[0].overdraw(200);
        assert_eq!(watch.sweep(&budget), 0, "there is memory");
        let _large = accounts[1].overdraw(790);
        assert_eq!(watch.sweep(&budget), 0, "nobody has had time to read");
        std::thread::sleep(PATIENCE_WHEN_EXHAUSTED);
        assert_eq!(watch.sweep(&budget), 1);
        let ended: Vec<_> = watched.iter().map(|watched| watched.evicted.is_cancelled()).collect();
        assert_eq!(ended, [false, true, false]);
        drop(watched);
        assert!(watch.connections.lock().is_empty());
    }
}
