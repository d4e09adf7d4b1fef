//! One partition as this broker serves it, and what it leaves to the next one when its role changes.

use taffrail_crds::PartitionState;
use taffrail_crds::slice::Replica;
use uuid::Uuid;

use super::desired::{Place, Role};
use crate::cluster::Session;
use crate::partition::Partition;
use crate::replication::fetcher::Follow;
use crate::replication::{KnownEnd, View};
use crate::storage::PartitionId;
use crate::topics::Assignment;

/// A partition as it is served.
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) partition: Partition,
    /// The replica, while it follows.
    pub(super) follow: Option<Follow>,
    /// As this process knew it before this slot, as far as it still holds: never above the true one.
    pub(super) high_watermark: i64,
    /// The log was found to be damaged before this slot: under which leader epoch it was led or followed last.
    pub(super) damaged: Option<i32>,
}

/// What a slot leaves to the next of its partition.
pub(super) struct Ended {
    /// The high watermark as far as it is known here.
    pub(super) known: KnownEnd,
    /// See [`Slot::damaged_under`].
    pub(super) damaged: Option<i32>,
}

impl Slot {
    /// It is to be led or followed and is not yet.
    pub(super) fn is_waiting(&self) -> bool {
        match self.place.role {
            Role::Lead => !self.partition.is_local(),
            Role::Follow { .. } => self.follow.is_none(),
            Role::Forward { .. } | Role::Offline(_) => false,
        }
    }

    /// The same leadership goes on, in another state.
    pub(super) fn go_on(self, place: Place, me: Session) -> Self {
        if place.role == Role::Lead && place.state.partition_epoch != self.place.state.partition_epoch {
            self.partition.adopt(view(&place.state, me));
        }
        if let Some(follow) = &self.follow {
            follow.set_in_sync(is_in_sync(&place.state, me));
        }
        Self { place, ..self }
    }

    /// Whose high watermark it knows, for the next start. While records may have been lost, what is known may be cut yet.
    pub(super) fn mark_id(&self, topic: Uuid) -> Option<PartitionId> {
        let state = &self.place.state;
        let is_known = !state.recovering && (self.partition.is_local() || self.follow.is_some());
        is_known.then_some(PartitionId { topic, index: state.index })
    }

    /// As it is known here now.
    pub(super) fn high_watermark(&self) -> i64 {
        let led = if self.partition.is_local() { self.partition.snapshot().high_watermark } else { 0 };
        let followed = self.follow.as_ref().map_or(0, Follow::high_watermark);
        self.high_watermark.max(led).max(followed)
    }

    /// Ends it, when what is in flight is in the log.
    pub(super) async fn end(self) -> Ended {
        let leader_epoch = self.place.state.leader_epoch;
        self.partition.stop().await;
        let damaged = self.damaged_under();
        let led = if self.partition.is_local() { self.partition.snapshot().high_watermark } else { 0 };
        let followed = match self.follow {
            Some(follow) => follow.stop().await,
            None => 0,
        };
        let known = KnownEnd { high_watermark: self.high_watermark.max(led).max(followed), leader_epoch };
        Ended { known, damaged }
    }
}

/// How the leader sees the partition's state.
pub(super) fn view(state: &PartitionState, me: Session) -> View {
    View::of(state, Replica { broker: me.broker, incarnation: me.incarnation })
}

/// In sync in the very session: a broker that has started again is not until the controller says so (M6).
pub(super) fn is_in_sync(state: &PartitionState, me: Session) -> bool {
    state.isr.contains(&Replica { broker: me.broker, incarnation: me.incarnation })
}

/// The same leadership, seen from here.
pub(super) fn is_same(old: &Place, new: &Place) -> bool {
    old.role == new.role && old.state.leader_epoch == new.state.leader_epoch
}

/// What others are told of it.
pub(super) fn assignment(place: &Place) -> Assignment {
    let state = &place.state;
    let fault = match &place.role {
        Role::Offline(fault) => Some(fault.clone()),
        Role::Lead | Role::Follow { .. } | Role::Forward { .. } => None,
    };
    Assignment {
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        replicas: state.replicas.clone(),
        isr: state.isr.iter().map(|Replica { broker, .. }| *broker).collect(),
        min_in_sync_replicas: state.min_in_sync_replicas,
        recovering: state.recovering,
        adding: state.adding.clone(),
        removing: state.removing.clone(),
        fault,
    }
}

/// Ends them all.
pub(super) async fn stop(slots: Vec<Slot>) {
    futures::future::join_all(slots.into_iter().map(Slot::end)).await;
}
