//! Changes of a shard's state: what its log consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::member::{Current, Profile};
use super::{CommittedOffset, TopicPartition};

mod messages;
mod wire;

pub(super) use wire::{decode, encode};

#[cfg(test)]
mod tests;

/// A record of a shard's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Of a group.
    Group {
        /// The group.
        group: Arc<str>,
        /// What changes.
        change: Change,
    },
    /// A topic that groups have offsets of is gone since this log time in milliseconds; `None`: it is back.
    TopicGone {
        /// Its identity.
        topic: Uuid,
        /// Since when.
        since: Option<i64>,
    },
    /// A topic is gone for so long that its offsets go as well.
    TopicForgotten {
        /// Its identity.
        topic: Uuid,
    },
}

/// A change of a group.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The group is there and stands so.
    Standing(Standing),
    /// The group is gone with everything in it.
    Removed,
    /// Topics that its members subscribe to, with their numbers of partitions.
    Topics(Arc<BTreeMap<Uuid, i32>>),
    /// A member is there and says this of itself.
    Profile {
        /// The member.
        member: Arc<str>,
        /// What it says.
        profile: Box<Profile>,
    },
    /// What a member should own in the end.
    Target {
        /// The member.
        member: Arc<str>,
        /// The partitions.
        partitions: Arc<BTreeSet<TopicPartition>>,
    },
    /// What a member owns.
    Current {
        /// The member.
        member: Arc<str>,
        /// Where it stands.
        current: Current,
    },
    /// The member is gone with everything that it owned.
    MemberRemoved {
        /// The member.
        member: Arc<str>,
    },
    /// How far a partition is processed.
    Offset {
        /// The partition.
        partition: TopicPartition,
        /// How far.
        offset: CommittedOffset,
    },
}

/// Where a group stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Rises with each change of members, subscriptions or topics. The assignment is made at once, so it has the same.
    pub epoch: i32,
    /// Highest epoch ever given in the group, to it or to a member: whoever joins gets a higher one, so that epochs of
    /// members that are gone stay fenced.
    pub last_epoch: i32,
    /// Log time in milliseconds since which it has had no members, or of the last commit from outside after that. `None`: it
    /// has members.
    pub empty_since: Option<i64>,
}
