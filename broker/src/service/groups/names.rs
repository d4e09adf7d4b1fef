//! Between identities, which coordinators know, and names, which clients know.

use std::collections::BTreeMap;

use taffrail_proto::v1;

use crate::coordinator::group::{GroupState, GroupSummary, Subscription, TopicPartition};
use crate::coordinator::groups::Directory;

/// Partitions by topic, for a client. Of a topic that is gone the name is empty.
pub(super) fn by_topic<'a>(
    directory: &Directory,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> Vec<v1::TopicPartitions> {
    let mut topics = BTreeMap::<_, Vec<i32>>::new();
    for partition in partitions {
        topics.entry(partition.topic).or_default().push(partition.partition);
    }
    let named = topics.into_iter().map(|(id, mut partitions)| {
        partitions.sort_unstable();
        v1::TopicPartitions { topic: name(directory, id), topic_id: id.to_string(), partitions }
    });
    let mut named: Vec<_> = named.collect();
    named.sort_by(|a, b| a.topic.cmp(&b.topic));
    named
}

/// A topic's name; empty: it is gone.
pub(super) fn name(directory: &Directory, topic: uuid::Uuid) -> String {
    directory.topic(topic).map_or_else(String::new, |topic| topic.name.to_string())
}

pub(super) fn subscription(subscription: Subscription) -> v1::Subscription {
    let Subscription { topics, pattern } = subscription;
    v1::Subscription { topics: topics.into_iter().collect(), pattern: pattern.unwrap_or_default() }
}

pub(super) fn state(state: GroupState) -> v1::GroupState {
    match state {
        GroupState::Empty => v1::GroupState::Empty,
        GroupState::Assigning => v1::GroupState::Assigning,
        GroupState::Reconciling => v1::GroupState::Reconciling,
        GroupState::Stable => v1::GroupState::Stable,
    }
}

pub(super) fn summary(summary: GroupSummary) -> v1::GroupSummary {
    v1::GroupSummary {
        state: state(summary.state).into(),
        r#type: "consumer".to_owned(),
        members: summary.members as u32,
        epoch: summary.epoch,
        group: summary.group,
    }
}
