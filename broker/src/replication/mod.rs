//! Copies of partitions: how a leader follows its followers, and a follower its leader. `docs/replication.md` is the design.
//!
//! - [`leader`]: the high watermark and the in-sync replicas as the leader sees them (pure);
//! - [`follower`]: what a follower does with what it is sent (pure);
//! - [`fetcher`]: the tasks and streams around it;
//! - [`proposals`]: changes of in-sync replicas that leaders ask the controller for.

use taffrail_crds::slice::{PartitionState, Replica};

pub mod fetcher;
pub mod follower;
pub mod leader;
pub mod proposals;

pub use leader::Leader;
pub use proposals::{Proposal, Proposals};

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
