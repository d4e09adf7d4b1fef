//! Reading from a follower in the reader's zone, which stands in for the leader. Whatever it does not do, the leader is asked to
//! do, at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{PartitionState, Phase, State};

/// Before a follower is tried again after one did not serve a partition.
const TRY_AGAIN: Duration = Duration::from_secs(10);

impl State {
    /// Whether a follower may be asked for a partition now.
    pub(in crate::consumer) fn may_be_near(&self, slot: usize, now: Instant) -> bool {
        self.partitions[slot].from_leader_until.is_none_or(|until| until <= now)
    }

    /// The stream that a partition was put on is a follower's.
    pub(in crate::consumer) fn set_near(&mut self, slot: usize) {
        self.partitions[slot].is_near = true;
    }

    /// No follower is asked for a partition for a while.
    pub(in crate::consumer) fn ask_leader(&mut self, slot: usize, now: Instant) {
        self.partitions[slot].ask_leader(now);
    }

    /// A stream is gone: what a follower served there is asked of the leaders.
    pub(in crate::consumer) fn lost_near(&mut self, endpoint: &str, now: Instant) {
        for slot in 0..self.partitions.len() {
            let partition = &mut self.partitions[slot];
            if partition.is_near && partition.on.as_ref().is_some_and(|(on, _)| **on == *endpoint) {
                partition.ask_leader(now);
                self.unsubscribe(slot);
            }
        }
    }

    /// When the next partition may be asked of a follower again.
    pub(in crate::consumer) fn near_again(&self, now: Instant) -> Option<Instant> {
        self.partitions.iter().filter_map(|p| p.from_leader_until).filter(|until| *until > now).min()
    }

    /// Partitions that are on a stream, which that is, and whether it is a follower's.
    pub(in crate::consumer) fn on_streams(&self) -> impl Iterator<Item = (usize, &Arc<str>, bool)> {
        self.partitions.iter().enumerate().filter(|(_, p)| p.phase == Phase::Reading).filter_map(|(slot, p)| {
            let (endpoint, _) = p.on.as_ref()?;
            Some((slot, endpoint, p.is_near))
        })
    }

    /// Takes a partition off its stream, to be put on another. What was received stays.
    pub(in crate::consumer) fn leave_stream(&mut self, slot: usize) {
        self.take_off(slot);
    }
}

impl PartitionState {
    pub(super) fn ask_leader(&mut self, now: Instant) {
        self.is_near = false;
        self.from_leader_until = Some(now + TRY_AGAIN);
    }
}
