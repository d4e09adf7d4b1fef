//! Copies of partitions: how a leader follows its followers, and a follower its leader. `docs/replication.md` is the design.
//!
//! - [`leader`]: the high watermark and the in-sync replicas as the leader sees them (pure);
//! - [`follower`]: what a follower does with what it is sent (pure);
//! - [`fetcher`]: the tasks and streams around it; [`throttle`]: how fast it copies while it is not in sync (pure);
//! - [`proposals`]: changes of in-sync replicas that leaders ask the controller for.

use taffrail_crds::slice::{PartitionState, Replica};

pub mod fetcher;
pub mod follower;
pub mod leader;
pub mod proposals;
pub mod throttle;

pub use leader::Leader;
pub use proposals::{Proposal, Proposals};

/// A high watermark as a replica knew it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownEnd {
    /// The high watermark.
    pub high_watermark: i64,
    /// The partition's leader epoch then.
    pub leader_epoch: i32,
}

impl KnownEnd {
    /// What of it holds for one that is to follow: all, or nothing if somebody was elected since without proof that it has what
    /// was committed. Records may have been lost then; that has been declared, and the replica gives up its own (T4).
    pub fn under(self, state: &PartitionState) -> i64 {
        let is_over = state.unclean_leader_epoch.is_some_and(|unclean| unclean > self.leader_epoch);
        if is_over { 0 } else { self.high_watermark }
    }
}

/// What a leader goes by: the committed state of its partition, as the slice has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The leader itself, in the session that was elected.
    pub me: Replica,
    /// Its leader epoch.
    pub leader_epoch: i32,
    /// Rises with every change.
    pub partition_epoch: i32,
    /// Brokers that have a replica.
    pub replicas: Vec<i32>,
    /// Replicas in sync, the leader among them.
    pub isr: Vec<Replica>,
    /// As many must be in sync for a write with acks=all.
    pub min_in_sync_replicas: i32,
}

impl View {
    /// Of the partition that `me` leads.
    pub fn of(state: &PartitionState, me: Replica) -> Self {
        Self {
            me,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            replicas: state.replicas.clone(),
            isr: state.isr.clone(),
            min_in_sync_replicas: state.min_in_sync_replicas,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};

    #[test]
    fn t4_what_was_known_to_be_committed_holds_until_somebody_is_elected_without_proof() {
        let known = KnownEnd { high_watermark: 70, leader_epoch: 5 };
        let state = spread(&wanted(1)).remove(0).partitions.remove(0);
        for (unclean, holds) in [(None, 70), (Some(4), 70), (Some(5), 70), (Some(6), 0), (Some(9), 0)] {
            // Also when that is over: whoever was away has not heard of it.
            let state = PartitionState { leader_epoch: 9, unclean_leader_epoch: unclean, ..state.clone() };
            assert_eq!(known.under(&state), holds, "{unclean:?}");
        }
    }
}
