//! Which partitions a FetchStream reads, which of them are worth a look, and how much may still be sent. No I/O.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::memory::Charge;
use crate::metrics::TopicMetrics;
use crate::service::fetch::Reader;

/// A partition on a stream.
pub(super) struct Subscription {
    pub(super) reader: Reader,
    /// The client's number for it.
    pub(super) number: u64,
    pub(super) numbers: Arc<TopicMetrics>,
    /// The client has heard of it.
    pub(super) told: bool,
    /// Too little is there to be sent; it will be at this time nevertheless.
    pub(super) due: Option<Instant>,
    /// What it takes to remember it.
    pub(super) _charge: Charge,
}

/// All partitions of a stream, by tokens that are never used again: whatever is still under way for a partition that was
/// taken off, or sought anew, finds nothing.
#[derive(Default)]
pub(super) struct Subscriptions {
    by_token: HashMap<u64, Subscription>,
    by_name: HashMap<(Arc<str>, i32), u64>,
    ready: VecDeque<u64>,
    /// Those that wait for more, by when they are due.
    timers: BTreeSet<(Instant, u64)>,
    last_token: u64,
}

impl Subscriptions {
    /// Adds a partition, or puts it in the place of the same one.
    pub(super) fn add(&mut self, subscription: Subscription) {
        self.last_token += 1;
        let token = self.last_token;
        let name = (Arc::clone(&subscription.reader.topic), subscription.reader.index);
        if let Some(old) = self.by_name.insert(name, token) {
            self.by_token.remove(&old);
        }
        self.by_token.insert(token, subscription);
        self.ready.push_back(token);
    }

    /// Takes a partition off.
    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(token) = self.by_name.remove(&(Arc::from(topic), partition)) {
            self.by_token.remove(&token);
        }
    }

    /// Takes a partition off by its token.
    pub(super) fn drop_token(&mut self, token: u64) -> Option<Subscription> {
        let subscription = self.by_token.remove(&token)?;
        self.by_name.remove(&(Arc::clone(&subscription.reader.topic), subscription.reader.index));
        Some(subscription)
    }

    /// The partition of a token, if that is still on the stream.
    pub(super) fn get(&mut self, token: u64) -> Option<&mut Subscription> {
        self.by_token.get_mut(&token)
    }

    /// Marks a partition as worth a look.
    pub(super) fn wake(&mut self, token: u64) {
        self.ready.push_back(token);
    }

    /// The partition that has waited longest for a look.
    pub(super) fn next_ready(&mut self) -> Option<u64> {
        while let Some(token) = self.ready.pop_front() {
            if self.by_token.contains_key(&token) {
                return Some(token);
            }
        }
        None
    }

    /// Has a partition sent at the latest `after` from now, counted from the first time this was asked.
    pub(super) fn hold(&mut self, token: u64, now: Instant, after: Duration) {
        if let Some(subscription) = self.by_token.get_mut(&token)
            && subscription.due.is_none()
        {
            subscription.due = Some(now + after);
            self.timers.insert((now + after, token));
        }
    }

    /// When the next partition is due, if one waits.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Wakes what is due.
    pub(super) fn wake_due(&mut self, now: Instant) {
        while let Some((due, token)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.remove(&(due, token));
            self.ready.push_back(token);
        }
    }
}
