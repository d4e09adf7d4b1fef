//! The group coordinator's shard: what it is asked and answers. Semantics of KIP-848 (server-side assignment, member
//! epochs, incremental hand-over), KIP-1251 (an assignment epoch per partition fences commits), KIP-345 (static members).
//!
//! Where it differs from KIP-848:
//! - A member's epoch rises with each change of what it is told to own, revocations included, and with nothing else. A
//!   heartbeat lets go of revoked partitions only with the member's present epoch, so one that was late, doubled or overtaken
//!   lets go of nothing.
//! - A member may speak with any epoch since it joined: answers to it were lost. What a resuming member says it owns must be
//!   its own still; epochs from before it joined are fenced.
//! - A member gets what is free while it lets go of the rest.
//! - What a static member that is away should not own any more goes to others at once.
//!
//! From request to records: `shard` (which decision), `membership`, `offsets`, `timers`, `describe` (the decisions),
//! `draft` (a decision's steps), `reconcile` (one member's step), [`assignor`], [`subscription`]; `state` and `member` are what
//! is there, `records` how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub mod assignor;
mod describe;
mod draft;
mod member;
mod membership;
mod offsets;
mod reconcile;
mod records;
mod shard;
mod state;
pub mod subscription;
mod timers;

pub use member::{Current, Profile};
pub use membership::MAX_MEMBERS;
pub use records::{Change, Record, Standing};
pub use shard::{GroupShard, PlantedFault};
pub use timers::{OFFSETS_RETENTION, Timer};

/// Topics as groups see them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicsView {
    /// By name. Internal topics are not there.
    pub topics: BTreeMap<Arc<str>, TopicView>,
}

/// A topic as groups see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its identity.
    pub id: Uuid,
    /// How many partitions.
    pub partitions: i32,
}

/// A partition by its topic's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's identity.
    pub topic: Uuid,
    /// Its number.
    pub partition: i32,
}

/// What a member wants to read. The edge has checked bounds, and that the pattern is a regular expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// By name.
    pub topics: BTreeSet<String>,
    /// Topics whose whole names match.
    pub pattern: Option<String>,
}

/// A request to a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Joins the group (member epoch 0), or resumes in it.
    Join(Box<Join>),
    /// The member is alive and owns this.
    Heartbeat(Heartbeat),
    /// What is the member to own? Does not count as a sign of life: asked by the broker itself after an [`Event`].
    Refresh {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// Its epoch as its stream knows it.
        epoch: i32,
    },
    /// The member goes.
    Leave {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// Its epoch.
        epoch: i32,
        /// A static member that will come back: its partitions wait for it until its session timeout.
        returning: bool,
    },
    /// Keeps how far partitions are processed.
    Commit(Commit),
    /// How far partitions are processed; `None`: all that have an offset.
    FetchOffsets {
        /// The group.
        group: String,
        /// Which.
        partitions: Option<Vec<TopicPartition>>,
    },
    /// All groups.
    List,
    /// One group.
    Describe(String),
    /// Removes a group without members, with its offsets.
    Delete(String),
    /// Sets committed offsets by hand.
    Reset {
        /// The group.
        group: String,
        /// To what.
        offsets: Vec<(TopicPartition, CommittedOffset)>,
        /// Also while there are members.
        force: bool,
    },
}

/// See [`Request::Join`].
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// The group; made if it is not there.
    pub group: String,
    /// The member.
    pub member: String,
    /// 0: joins. Above: resumes with this epoch.
    pub epoch: i32,
    /// Of a static member.
    pub instance: Option<String>,
    /// What to read.
    pub subscription: Subscription,
    /// Which assignor it asks for; `None`: the default.
    pub assignor: Option<AssignorName>,
    /// Its zone.
    pub rack: Option<String>,
    /// Its name for itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: IpAddr,
    /// Removed when not heard of for so long. In bounds.
    pub session_timeout: Duration,
    /// Removed when it holds on to revoked partitions for so long. In bounds.
    pub rebalance_timeout: Duration,
    /// What it owns, when it resumes.
    pub owned: BTreeSet<TopicPartition>,
}

/// See [`Request::Heartbeat`].
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// The epoch of the newest answer that it has acted on: not one that is still on its way to it.
    pub epoch: i32,
    /// All that it owns; `None`: as before.
    pub owned: Option<BTreeSet<TopicPartition>>,
    /// A new subscription; `None`: as before.
    pub subscription: Option<Subscription>,
}

/// See [`Request::Commit`].
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// The member and its epoch; `None`: from outside, allowed only while the group has no members.
    pub member: Option<(String, i32)>,
    /// What to keep.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// How far a partition is processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to process.
    pub offset: i64,
    /// Of the last record processed.
    pub leader_epoch: Option<i32>,
    /// The application's own, at most 4,096 bytes.
    pub metadata: String,
    /// Wall time of the commit, milliseconds since 1970; set by the shard.
    pub committed_at: i64,
}

/// Names of assignors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssignorName {
    /// Sticky: balanced, and few partitions move.
    #[default]
    Uniform,
    /// Neighbouring partitions, the same numbers of each topic to the same member.
    Range,
}

/// An answer of a shard.
pub type Answer = Result<Answered, GroupError>;

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// To a join, heartbeat or refresh.
    Membership(Membership),
    /// To a leave, delete or reset.
    Done,
    /// To a commit: what was refused; the rest is kept.
    Committed(Vec<(TopicPartition, GroupError)>),
    /// To a fetch: in the order asked for. `None`: nothing is committed (C8).
    Offsets(Vec<(TopicPartition, Option<CommittedOffset>)>),
    /// To a list.
    Groups(Vec<GroupSummary>),
    /// To a describe.
    Group(Box<GroupDescription>),
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its epoch now.
    pub epoch: i32,
    /// All that it is to own: it lets go of the rest.
    pub assigned: BTreeSet<TopicPartition>,
    /// What it must let go of, and others wait for.
    pub revoking: BTreeSet<TopicPartition>,
    /// How often to send heartbeats.
    pub heartbeat_interval: Duration,
    /// As it is in force.
    pub session_timeout: Duration,
}

/// How a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// No members.
    Empty,
    /// An assignment is to be made.
    Assigning,
    /// Members hand partitions over.
    Reconciling,
    /// Every member owns what it should.
    Stable,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    /// The group.
    pub group: String,
    /// How it is doing.
    pub state: GroupState,
    /// How many.
    pub members: usize,
    /// Rises with each change of members, subscriptions or topics.
    pub epoch: i32,
}

/// All about a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupDescription {
    /// As in a list.
    pub summary: GroupSummary,
    /// In force.
    pub assignor: AssignorName,
    /// Group epoch of the assignment in force.
    pub assignment_epoch: i32,
    /// By id.
    pub members: Vec<MemberDescription>,
    /// Committed offsets.
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// All about a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberDescription {
    /// Its id.
    pub member: String,
    /// Of a static member.
    pub instance: Option<String>,
    /// Its name for itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// Its zone.
    pub rack: Option<String>,
    /// Its epoch; −2: a static member that is away.
    pub epoch: i32,
    /// What it wants to read.
    pub subscription: Subscription,
    /// What it owns.
    pub assigned: BTreeSet<TopicPartition>,
    /// What it is to let go of.
    pub revoking: BTreeSet<TopicPartition>,
    /// What it should own in the end.
    pub target: BTreeSet<TopicPartition>,
}

/// Why a request was refused. It changed nothing, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// No such group.
    #[error("group {0:?} does not exist")]
    UnknownGroup(String),
    /// No such member; it has to join anew.
    #[error("member {member:?} is not in group {group:?}: join again")]
    UnknownMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
    },
    /// The member's epoch is not what the group knows: it was removed and came back, or another process took its place.
    #[error("member {member:?} has epoch {known}, not {epoch}: it was fenced; join again")]
    Fenced {
        /// The member.
        member: String,
        /// Its epoch.
        epoch: i32,
        /// As the group knows it.
        known: i32,
    },
    /// A commit with an epoch from before the member got the partition, or of a partition that is not the member's.
    #[error("member {member:?} with epoch {epoch} does not own the partition: nothing was committed for it")]
    StaleEpoch {
        /// The member.
        member: String,
        /// Its epoch.
        epoch: i32,
    },
    /// Another process is in the group under this instance id.
    #[error("instance {instance:?} is in use by member {member:?}: it must leave or time out first")]
    InstanceInUse {
        /// The instance id.
        instance: String,
        /// Who has it.
        member: String,
    },
    /// The group has members.
    #[error("group {group:?} has {members} members: stop them first, or use force where it is offered")]
    NotEmpty {
        /// The group.
        group: String,
        /// How many.
        members: usize,
    },
    /// The group is full.
    #[error("group {group:?} has {members} members, as many as are allowed")]
    Full {
        /// The group.
        group: String,
        /// How many.
        members: usize,
    },
    /// The topic is gone, or has no such partition.
    #[error("the partition does not exist any more")]
    UnknownPartition,
}

/// Something changed that the stream of a member may want to know: it asks by [`Request::Refresh`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The group.
    pub group: String,
    /// The members concerned.
    pub members: Vec<String>,
}

#[cfg(test)]
mod tests;
