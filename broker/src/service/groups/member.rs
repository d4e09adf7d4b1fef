//! A member as its stream knows it, and what the stream asks the coordinator in its name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1;

use crate::coordinator::group::{
    Answered, Commit, CommittedOffset, Heartbeat, Join, Membership, Request, Subscription, TopicPartition,
};
use crate::coordinator::groups::{Groups, GroupsError, Watch};
use crate::coordinator::runtime::{AskError, Failure};

/// How long a stream waits before it asks a coordinator again that could not answer.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// A member that has joined.
pub(super) struct Member {
    groups: Arc<Groups>,
    group: String,
    id: String,
    epoch: i32,
}

/// The coordinator will answer later: the stream goes on.
pub(super) fn is_passing(error: &GroupsError) -> bool {
    match error {
        // Who goes on finds it where it is.
        GroupsError::Refused(_) | GroupsError::NotHere(_) => false,
        GroupsError::Unanswered(error) => match error {
            AskError::Loading
            | AskError::Busy
            | AskError::Closed
            | AskError::Lost
            | AskError::Failed(Failure::Unknown | Failure::Replaced) => true,
            AskError::Failed(Failure::TooLarge(_)) | AskError::Unreadable(_) => false,
        },
    }
}

impl Member {
    /// Joins or resumes. It is watched from before it joins, so that no event is missed.
    pub(super) async fn join(groups: &Arc<Groups>, join: Join) -> Result<(Self, Membership, Watch), GroupsError> {
        let (group, id) = (join.group.clone(), join.member.clone());
        let watch = groups.watch(&group, &id);
        let membership = membership(groups.ask(&group, Request::Join(Box::new(join))).await?);
        Ok((Self { groups: groups.clone(), group, id, epoch: membership.epoch }, membership, watch))
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Takes note of where it stands; whether its epoch has risen.
    pub(super) fn note(&mut self, membership: &Membership) -> bool {
        let risen = membership.epoch != self.epoch;
        self.epoch = membership.epoch;
        risen
    }

    /// What the client is told of it.
    pub(super) fn joined(&self, membership: &Membership) -> v1::SessionJoined {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        v1::SessionJoined {
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            heartbeat_interval_ms: millis(membership.heartbeat_interval),
            session_timeout_ms: millis(membership.session_timeout),
        }
    }

    /// It is alive, owns this, and wants this.
    pub(super) fn heartbeat(
        &self,
        owned: Option<BTreeSet<TopicPartition>>,
        subscription: Option<Subscription>,
    ) -> impl Future<Output = Result<Membership, GroupsError>> + Send + use<> {
        let (group, member) = (self.group.clone(), self.id.clone());
        let heartbeat = Heartbeat { group, member, epoch: self.epoch, owned, subscription };
        let asked = self.groups.ask(&self.group, Request::Heartbeat(heartbeat));
        async move { asked.await.map(membership) }
    }

    /// Where does it stand?
    pub(super) fn refresh(&self) -> impl Future<Output = Result<Membership, GroupsError>> + Send + use<> {
        let (group, member) = (self.group.clone(), self.id.clone());
        let asked = self.groups.ask(&self.group, Request::Refresh { group, member, epoch: self.epoch });
        async move { asked.await.map(membership) }
    }

    /// It goes.
    pub(super) fn leave(&self, returning: bool) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        let (group, member) = (self.group.clone(), self.id.clone());
        self.groups.ask(&self.group, Request::Leave { group, member, epoch: self.epoch, returning })
    }

    /// It commits, with its present epoch (C5).
    pub(super) fn commit(
        &self,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        let member = Some((self.id.clone(), self.epoch));
        self.groups.ask(&self.group, Request::Commit(Commit { group: self.group.clone(), member, offsets }))
    }

    /// Commits where it begins, then says what its group has committed.
    pub(super) fn begin(
        &self,
        beginnings: Vec<(TopicPartition, CommittedOffset)>,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        // Both are in line now, one behind the other.
        let (kept, offsets) = (self.commit(beginnings), self.offsets(partitions));
        async move {
            kept.await?;
            offsets.await
        }
    }

    /// What its group has committed.
    pub(super) fn offsets(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        let (group, partitions) = (self.group.clone(), Some(partitions));
        self.groups.ask(&self.group, Request::FetchOffsets { group, partitions })
    }

    /// As [`offsets`](Self::offsets), asked after a while.
    pub(super) fn offsets_after(
        &self,
        pause: Duration,
        partitions: Vec<TopicPartition>,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        let (groups, group, partitions) = (self.groups.clone(), self.group.clone(), Some(partitions));
        async move {
            tokio::time::sleep(pause).await;
            let asked = groups.ask(&group, Request::FetchOffsets { group: group.clone(), partitions });
            asked.await
        }
    }
}

fn membership(answered: Answered) -> Membership {
    match answered {
        Answered::Membership(membership) => membership,
        other => unreachable!("a join, heartbeat or refresh is answered by a membership, not by {other:?}"),
    }
}
