//! Groups from outside: list, describe, delete, committed offsets.

use std::collections::BTreeMap;

use taffrail_proto::v1::reset_offsets_request::To;
use taffrail_proto::v1::{
    DeleteGroupRequest, DescribeGroupRequest, Earliest, Latest, ListGroupsRequest, OffsetCommit, ResetOffsetsRequest,
    TopicPartitions,
};

use super::offsets::{Committer, groups_client, refusal};
use crate::admin::Admin;
use crate::client::Retry;
use crate::error::Result;

pub use taffrail_proto::v1::{
    CommittedOffset, DescribeGroupResponse as GroupDescription, GroupMember, GroupPartition, GroupState, GroupSummary,
    OffsetChange,
};

/// Where committed offsets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// To the first record that is still there.
    Earliest,
    /// To the end.
    Latest,
    /// To this offset, or the nearest that is there.
    Offset(i64),
    /// To the first record whose timestamp is this or later, in milliseconds since 1970; the end if there is none.
    Timestamp(i64),
    /// By this many records from what is committed, back if negative.
    ShiftBy(i64),
}

/// A change of a group's committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetReset {
    to: ResetTo,
    topics: BTreeMap<String, Vec<i32>>,
    dry_run: bool,
    force: bool,
}

impl OffsetReset {
    /// Of every partition with a committed offset.
    pub fn new(to: ResetTo) -> Self {
        Self { to, topics: BTreeMap::new(), dry_run: false, force: false }
    }

    /// Of all partitions of a topic, besides others that are named.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.entry(topic.into()).or_default();
        self
    }

    /// Of these partitions of a topic, besides others that are named.
    pub fn partitions(mut self, topic: impl Into<String>, partitions: impl IntoIterator<Item = i32>) -> Self {
        self.topics.entry(topic.into()).or_default().extend(partitions);
        self
    }

    /// Only answers what would be done.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Also while the group has members. They go on where they are, and their next commit overwrites this.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    fn request(self, group: &str) -> ResetOffsetsRequest {
        let to = match self.to {
            ResetTo::Earliest => To::Earliest(Earliest {}),
            ResetTo::Latest => To::Latest(Latest {}),
            ResetTo::Offset(offset) => To::Offset(offset),
            ResetTo::Timestamp(ms) => To::TimestampMs(ms),
            ResetTo::ShiftBy(records) => To::ShiftBy(records),
        };
        let topic = |(topic, mut partitions): (String, Vec<i32>)| {
            partitions.sort_unstable();
            partitions.dedup();
            TopicPartitions { topic, partitions, ..TopicPartitions::default() }
        };
        ResetOffsetsRequest {
            group: group.to_owned(),
            partitions: self.topics.into_iter().map(topic).collect(),
            to: Some(to),
            dry_run: self.dry_run,
            force: self.force,
        }
    }
}

impl Admin {
    /// The groups that the caller may see whose id begins with `prefix`; in these states, or in any if none is named.
    pub async fn list_groups(&self, states: &[GroupState], prefix: &str) -> Result<Vec<GroupSummary>> {
        let states = states.iter().map(|s| *s as i32).collect();
        let request = ListGroupsRequest { states, prefix: prefix.to_owned() };
        let call = |c, r| async move { groups_client(c).list_groups(r).await };
        Ok(self.0.call(Retry::Always, request, call).await?.groups)
    }

    /// Members, assignments, committed offsets and lag of a group.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription> {
        let request = DescribeGroupRequest { group: group.to_owned() };
        self.0.call(Retry::Always, request, |c, r| async move { groups_client(c).describe_group(r).await }).await
    }

    /// Removes a group without members, with its offsets.
    pub async fn delete_group(&self, group: &str) -> Result<()> {
        let request = DeleteGroupRequest { group: group.to_owned() };
        let call = |c, r| async move { groups_client(c).delete_group(r).await };
        self.0.call(Retry::NotApplied, request, call).await.map(drop)
    }

    /// Moves committed offsets; answers each partition's offset before and after.
    pub async fn reset_offsets(&self, group: &str, reset: OffsetReset) -> Result<Vec<OffsetChange>> {
        // By a shift, a second time is not the same as the first.
        let retry = if matches!(reset.to, ResetTo::ShiftBy(_)) { Retry::NotApplied } else { Retry::Always };
        let call = |c, r| async move { groups_client(c).reset_offsets(r).await };
        Ok(self.0.call(retry, reset.request(group), call).await?.changes)
    }

    /// What a group has committed for partitions; for none named: for all. A partition without a committed offset has none
    /// in its answer, and an error that says so.
    pub async fn committed_offsets(&self, group: &str, partitions: &[(&str, i32)]) -> Result<Vec<CommittedOffset>> {
        self.0.fetch_offsets(group, partitions).await
    }

    /// Commits offsets for a group without members; makes the group if it is not there.
    pub async fn commit_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<()> {
        let committer = Committer { group: group.to_owned(), ..Committer::default() };
        let refused = self.0.commit_offsets(committer, offsets).await?;
        refusal(&refused).map_or(Ok(()), Err)
    }
}
