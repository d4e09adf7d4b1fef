//! Partitions that come and go, as a group assigns them. A partition keeps its slot when it goes.

use std::sync::Arc;

use super::{Phase, State};
use crate::consumer::Position;

impl State {
    /// Reads a partition from a position to `end`, as if it had never been read before.
    pub(in crate::consumer) fn assign(&mut self, topic: &Arc<str>, partition: i32, at: Position, end: Option<i64>) {
        let slot = match self.find(topic, partition) {
            Some(slot) => slot,
            None => self.add(topic.clone(), partition, 0, end),
        };
        let state = &mut self.partitions[slot];
        state.end = end;
        state.paused = false;
        state.backoff.reset();
        self.seek(slot, at);
    }

    /// Stops reading a partition; what was received of it is not handed out.
    pub(in crate::consumer) fn unassign(&mut self, slot: usize) {
        self.drop_received(slot);
        self.partitions[slot].phase = Phase::Unassigned;
    }

    /// Each partition that is read is read to its end, or failed.
    pub(in crate::consumer) fn all_read(&self) -> bool {
        self.is_over() && self.partitions.iter().any(|p| p.phase != Phase::Unassigned)
    }

    pub(in crate::consumer) fn is_assigned(&self, slot: usize) -> bool {
        self.partitions[slot].phase != Phase::Unassigned
    }
}
