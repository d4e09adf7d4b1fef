//! Shares of the memory limit that clients can fill, and how they are divided among connections.
//!
//! [`Shares`] is the one place where `--memory-limit` is split. A [`Budget`] is one share; each connection has an
//! [`Account`] at it, and holds a [`Charge`] for each piece of memory it occupies.
//!
//! A connection gets a piece if it then holds no more than what was free ("dynamic thresholds", Choudhury and Hahne, 1998):
//! of `n` connections that take all they get, each ends with about `1/(n+1)` of the budget and as much stays free for
//! newcomers. So hostile connections cannot starve an honest one, however many they are, and one alone may use half. Nor can
//! large pieces take what small ones need: each leaves an eighth of what is free.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How `--memory-limit` is divided. Of 1 GiB, in MiB: 128 requests, 128 answers, 64 windows, 256 memtables (four times an
/// epoch of 64: one that fills, grown to 112 at most, and those that are being flushed), 64 recent batches, 16 block cache.
/// The other 368 are for the state of connections, logs and footers, for what storage reads ahead (16 at most), and for what
/// the allocator holds free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Requests: from the first byte of a message until its batch is appended or refused.
    pub requests: usize,
    /// Answers: from the read until the bytes are written to the socket.
    pub responses: usize,
    /// HTTP/2 connection windows: what peers may send before anything reads it.
    pub windows: usize,
    /// A storage epoch; memtables take up to four times as much.
    pub epoch: usize,
    /// Recent batches that readers at the ends of logs get without the disk.
    pub recent: usize,
    /// RocksDB's block cache: indexes, and what is read twice.
    pub block_cache: usize,
}

impl Shares {
    /// An eighth each for requests and answers, a sixteenth for windows; at least 16 MiB each, so that the largest message
    /// passes. An epoch is a sixteenth, at most 64 MiB: larger ones gain nothing.
    pub fn of_limit(memory_limit: usize) -> Self {
        let part = |divisor: usize| (memory_limit / divisor).max(16 << 20);
        Self {
            requests: part(8),
            responses: part(8),
            windows: part(16),
            epoch: part(16).min(64 << 20),
            recent: part(16),
            block_cache: part(64),
        }
    }
}

/// Bytes that many connections share.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    free: Arc<Semaphore>,
    started: Instant,
}

impl Budget {
    /// Of so many bytes; more than 4 GiB are cut to that.
    pub fn new(total: usize) -> Arc<Self> {
        let total = total.min(u32::MAX as usize);
        Arc::new(Self { total, free: Arc::new(Semaphore::new(total)), started: Instant::now() })
    }

    /// Bytes that somebody holds.
    pub fn used(&self) -> usize {
        self.total.saturating_sub(self.free())
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Less than a quarter is free: those who hold something without moving should give it back.
    pub fn is_tight(&self) -> bool {
        self.free() < self.total / 4
    }

    /// Less than a sixteenth is free: newcomers have to wait.
    pub fn is_exhausted(&self) -> bool {
        self.free() < self.total / 16
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(bytes.min(self.total) as u32).ok()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// What one connection holds of a budget.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    used: AtomicUsize,
    /// Milliseconds of the budget's time at which something was given back last, or the first thing taken.
    moved: AtomicU64,
    released: Notify,
}

impl Account {
    /// The shortest and longest time between two tries of someone who is not admitted.
    const RETRY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(256));

    /// What part of the free bytes a piece leaves to others.
    const KEPT_FREE: usize = 8;

    /// Holds nothing yet.
    pub fn new(budget: &Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget: Arc::clone(budget),
            used: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            released: Notify::new(),
        })
    }

    /// Bytes held.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of the whole budget.
    pub fn budget(&self) -> usize {
        self.budget.total
    }

    /// What this account may take in one piece now without crowding others out: an eighth of what is free. The caller
    /// applies bounds of its own.
    pub fn allowance(&self) -> usize {
        self.budget.free() / 8
    }

    /// How long it has held something and given nothing back.
    pub fn stalled_for(&self) -> Duration {
        if self.used() == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.budget.now().saturating_sub(self.moved.load(Ordering::Relaxed)))
    }

    /// See [`Budget::is_tight`].
    pub fn is_tight(&self) -> bool {
        self.budget.is_tight()
    }

    /// What it holds does not stall for its peer's sake.
    pub fn touch(&self) {
        self.moved.store(self.budget.now(), Ordering::Relaxed);
    }

    /// It may take `bytes` more now: the rule that the module describes. Whatever its size, one piece alone may.
    pub fn admits(&self, bytes: usize) -> bool {
        let free = self.budget.free();
        let has_room = self.used().saturating_add(bytes) <= free && bytes <= free - free / Self::KEPT_FREE;
        has_room || free == self.budget.total
    }

    /// Takes `bytes` if this account is admitted now.
    pub fn try_charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        if !self.admits(bytes) {
            return None;
        }
        let permit = self.budget.take(bytes)?;
        if self.used.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.touch();
        }
        Some(Charge { account: Arc::clone(self), bytes, permit: Some(permit) })
    }

    /// Something was given back.
    fn moved(&self) {
        self.touch();
        self.released.notify_one();
    }

    /// Takes `bytes` whether admitted or not, for memory that is occupied already: what the budget lacks is held all the same
    /// against this account.
    pub fn overdraw(self: &Arc<Self>, bytes: usize) -> Charge {
        let permit = self.budget.take(bytes.min(self.budget.free()));
        if self.used.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.touch();
        }
        Charge { account: Arc::clone(self), bytes, permit }
    }

    /// Takes `bytes` when this account is admitted. Cancel safe.
    pub async fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        let (mut pause, longest) = Self::RETRY;
        loop {
            let released = self.released.notified();
            if let Some(charge) = self.try_charge(bytes) {
                // One is woken at a time, and wakes the next: of many who wait, most would wake in vain.
                self.released.notify_one();
                return charge;
            }
            let _ = tokio::time::timeout(pause, released).await;
            pause = (pause * 2).min(longest);
        }
    }
}

/// Memory that is held; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    account: Arc<Account>,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Charge {
    /// The budget's part, for what outlives the connection; the account's part stays with the charge.
    pub fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.account.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            if let Some(permit) = &mut self.permit {
                drop(permit.split(permit.num_permits().saturating_sub(bytes)));
            }
            self.account.moved();
        }
    }

    /// Divides the charge: `bytes` of it go into a charge of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        // The budget's part is smaller than the account's where the charge is larger than the whole budget.
        let permit = self.permit.as_mut().and_then(|permit| permit.split(bytes.min(permit.num_permits())));
        Self { account: Arc::clone(&self.account), bytes, permit }
    }

    /// Makes one charge of two of the same account.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.account, &other.account), "charges of one account");
        self.bytes += std::mem::take(&mut other.bytes);
        match (&mut self.permit, other.permit.take()) {
            (Some(mine), Some(more)) => mine.merge(more),
            (none, more) => *none = more,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        drop(self.permit.take());
        let account = &self.account;
        account.used.fetch_sub(self.bytes, Ordering::Relaxed);
        account.moved();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_given_back_when_dropped() {
        let budget = Budget::new(1_000);
        let account = Account::new(&budget);
        let charge = account.try_charge(400).unwrap();
        assert_eq!((account.used(), budget.free()), (400, 600));
        drop(charge);
        assert_eq!((account.used(), budget.free()), (0, 1_000));
    }

    #[test]
    fn greedy_accounts_leave_room_for_newcomers() {
        let budget = Budget::new(1_000_000);
        let greedy: Vec<_> = (0..200).map(|_| Account::new(&budget)).collect();
        let mut held = Vec::new();
        for _ in 0..1_000 {
            held.extend(greedy.iter().filter_map(|account| account.try_charge(100)));
        }
        assert!(budget.free() >= 1_000_000 / 201 - 100, "{} bytes are free", budget.free());
        assert!(Account::new(&budget).try_charge(4_000).is_some());
    }

    #[test]
    fn large_pieces_leave_room_for_small_ones() {
        let budget = Budget::new(1_000);
        let held: Vec<_> = (0..20).filter_map(|_| Account::new(&budget).try_charge(100)).collect();
        assert_eq!((held.len(), budget.free()), (9, 100));
        assert!(Account::new(&budget).try_charge(10).is_some());
    }

    #[test]
    fn more_than_the_whole_budget_passes_alone() {
        let budget = Budget::new(100);
        let account = Account::new(&budget);
        let charge = account.try_charge(1_000).unwrap();
        assert!(Account::new(&budget).try_charge(1).is_none());
        drop(charge);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn a_permit_outlives_its_charge() {
        let budget = Budget::new(100);
        let account = Account::new(&budget);
        let mut charge = account.try_charge(60).unwrap();
        let permit = charge.take_permit();
        drop(charge);
        assert_eq!((account.used(), budget.free()), (0, 40));
        drop(permit);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn what_is_overdrawn_keeps_its_account_waiting_and_goes_back_whole() {
        let budget = Budget::new(1_000);
        let account = Account::new(&budget);
        let held = Account::new(&budget).try_charge(900).unwrap();
        let mut charge = account.overdraw(500);
        assert_eq!((account.used(), budget.free()), (500, 0));
        drop(held);
        assert!(Account::new(&budget).try_charge(100).is_some());
        charge.shrink(50);
        drop(charge);
        assert_eq!((account.used(), budget.free()), (0, 1_000));
    }

    #[test]
    fn charges_shrink_and_merge() {
        let budget = Budget::new(1_000);
        let account = Account::new(&budget);
        let mut charge = account.try_charge(300).unwrap();
        charge.merge(account.try_charge(200).unwrap());
        assert_eq!((charge.bytes(), account.used(), budget.free()), (500, 500, 500));
        charge.shrink(100);
        assert_eq!((charge.bytes(), account.used(), budget.free()), (100, 100, 900));
        let part = charge.split(30);
        drop(charge);
        assert_eq!((part.bytes(), account.used(), budget.free()), (30, 30, 970));
        drop(part);
        assert_eq!((account.used(), budget.free()), (0, 1_000));
    }

    #[tokio::test]
    async fn waits_until_it_is_admitted() {
        let budget = Budget::new(100);
        let (one, other) = (Account::new(&budget), Account::new(&budget));
        let held = one.try_charge(100).unwrap();
        let waiting = tokio::spawn(async move { other.charge(50).await.bytes() });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap(), 50);
    }
}
