//! Committed offsets: the calls of a member and of administration, in pieces that the broker takes.

use std::collections::BTreeMap;

use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::{
    CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest, LogError, OffsetCommit, OffsetCommitError, Reason,
    TopicPartitions,
};

use crate::client::{Retry, Shared};
use crate::connection::{Connection, MAX_MESSAGE};
use crate::error::{Error, Result};

/// Partitions in a call.
const AT_ONCE: usize = 1_000;

pub(super) type Service = GroupsClient<Connection>;

pub(super) fn groups_client(connection: Connection) -> Service {
    GroupsClient::new(connection).max_decoding_message_size(MAX_MESSAGE)
}

/// Who commits: group, member, epoch. A member that is empty: nobody in the group.
#[derive(Clone, Debug, Default)]
pub(super) struct Committer {
    pub(super) group: String,
    pub(super) member_id: String,
    pub(super) member_epoch: i32,
}

impl Shared {
    /// Commits; answers what was refused. The same offsets again do no harm, so faults that pass are waited for.
    pub(super) async fn commit_offsets(
        &self,
        committer: Committer,
        offsets: &[OffsetCommit],
    ) -> Result<Vec<OffsetCommitError>> {
        let mut refused = vec![];
        for offsets in offsets.chunks(AT_ONCE) {
            let Committer { group, member_id, member_epoch } = committer.clone();
            let request = CommitOffsetsRequest { group, member_id, member_epoch, offsets: offsets.to_vec() };
            let answer = self
                .call(Retry::Always, request, |c, r| async move { groups_client(c).commit_offsets(r).await })
                .await?;
            refused.extend(answer.errors);
        }
        Ok(refused)
    }

    /// What the group has committed for partitions; for none: for all.
    pub(super) async fn fetch_offsets(&self, group: &str, partitions: &[(&str, i32)]) -> Result<Vec<CommittedOffset>> {
        let mut found = vec![];
        let pieces: Vec<_> =
            if partitions.is_empty() { vec![partitions] } else { partitions.chunks(AT_ONCE).collect() };
        for piece in pieces {
            let request = FetchOffsetsRequest { group: group.to_owned(), partitions: by_topic(piece) };
            let answer = self
                .call(Retry::Always, request, |c, r| async move { groups_client(c).fetch_offsets(r).await })
                .await?;
            found.extend(answer.offsets);
        }
        Ok(found)
    }
}

fn by_topic(partitions: &[(&str, i32)]) -> Vec<TopicPartitions> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topic = |(topic, partitions): (&str, Vec<i32>)| TopicPartitions {
        topic: topic.to_owned(),
        partitions,
        ..TopicPartitions::default()
    };
    topics.into_iter().map(topic).collect()
}

/// The first refusal of a commit, as an error.
pub(super) fn refusal(errors: &[OffsetCommitError]) -> Option<Error> {
    let first = errors.first()?;
    let error = Error::from(first.error.clone().unwrap_or_default());
    let others = if errors.len() > 1 { format!(" (and {} others)", errors.len() - 1) } else { String::new() };
    Some(error.context(&format!("commit of {}/{}{others}", first.topic, first.partition)))
}

/// What a group has committed for a partition: an offset, nothing (C8), or why it cannot be told.
pub(super) fn committed(offset: &CommittedOffset) -> Result<Option<i64>> {
    match (offset.offset, &offset.error) {
        (Some(offset), _) => Ok(Some(offset)),
        (None, Some(error)) if !is_no_offset(error) => {
            let error = Error::from(error.clone());
            Err(error.context(&format!("committed offset of {}/{}", offset.topic, offset.partition)))
        }
        (None, _) => Ok(None),
    }
}

fn is_no_offset(error: &LogError) -> bool {
    error.reason == Reason::NoCommittedOffset as i32
}
