//! A member: who it is, what it should own, what it owns.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{AssignorName, Join, Subscription, TopicPartition};

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Of a static member.
    pub instance: Option<Arc<str>>,
    /// Its name for itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: IpAddr,
    /// Its zone.
    pub rack: Option<String>,
    /// Removed when not heard of for so long.
    pub session_timeout: Duration,
    /// Removed when it holds on to revoked partitions for so long.
    pub rebalance_timeout: Duration,
    /// What it wants to read. Shared by the members of a group that want the same.
    pub subscription: Arc<Subscription>,
    /// Which assignor it asks for.
    pub assignor: Option<AssignorName>,
}

impl Profile {
    /// As a join states it.
    pub(super) fn of(join: &Join) -> Self {
        Self {
            instance: join.instance.as_deref().map(Arc::from),
            client_id: join.client_id.clone(),
            client_host: join.client_host,
            rack: join.rack.clone(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            subscription: Arc::new(join.subscription.clone()),
            assignor: join.assignor,
        }
    }
}

/// What a member owns, and since when.
///
/// Every change of what a member is told to own has an epoch of its own. So a heartbeat with the present epoch comes from a
/// member that knows the present assignment, and what it says of revoked partitions is not from before; heartbeats that were
/// late, doubled or overtaken carry an older epoch and let go of nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The member's epoch.
    pub epoch: i32,
    /// Its epoch when it joined: older ones are of an earlier life of the same id, and fenced.
    pub joined: i32,
    /// What it owns, with the epoch at which it got it (C5).
    pub assigned: BTreeMap<TopicPartition, i32>,
    /// What it was asked to let go of, with the epoch at which it got it. Still its own: nobody else gets it (C6), and it
    /// may commit.
    pub revoking: BTreeMap<TopicPartition, i32>,
    /// A static member that has left and will come back. It owns nothing by itself, but its partitions wait for it.
    pub away: bool,
}

impl Current {
    /// When it got a partition that it owns or is letting go of.
    pub(super) fn assignment_epoch(&self, partition: &TopicPartition) -> Option<i32> {
        self.assigned.get(partition).or_else(|| self.revoking.get(partition)).copied()
    }

    /// Everything that nobody else may have.
    pub(super) fn held(&self) -> impl Iterator<Item = &TopicPartition> {
        self.assigned.keys().chain(self.revoking.keys())
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// What it says of itself.
    pub profile: Profile,
    /// What it should own in the end.
    pub target: Arc<BTreeSet<TopicPartition>>,
    /// What it owns.
    pub current: Current,
}

impl Member {
    /// Does it own what it should, and nothing else?
    pub(super) fn settled(&self) -> bool {
        let Current { assigned, revoking, .. } = &self.current;
        revoking.is_empty() && assigned.len() == self.target.len() && assigned.keys().eq(self.target.iter())
    }

    /// How often it is to send heartbeats: a ninth of its session timeout, 5 s of 45 s.
    pub(super) fn heartbeat_interval(&self) -> Duration {
        (self.profile.session_timeout / 9).max(Duration::from_millis(200))
    }
}
