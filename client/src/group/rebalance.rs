//! What an application is told when partitions come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use taffrail_proto::v1;

/// A partition of a topic, by the topic's identity: a topic that is deleted and made again under its name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Its UUID.
    pub topic_id: Arc<str>,
    /// Number of the partition.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Told of changes by [`GroupConsumer::next`](crate::GroupConsumer::next), in the application's own task. What takes long
/// here holds up the hand-over of partitions to others; after the rebalance timeout the member is removed.
pub trait RebalanceListener: Send {
    /// These partitions belong to this member from now on, beside those it had. None of their records was handed out yet.
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// These partitions go to others when this returns. What `commit` is told is committed before.
    fn revoked(&mut self, partitions: &[TopicPartition], commit: &mut RevokeCommit) {
        let _ = (partitions, commit);
    }

    /// These partitions may belong to others already, for this member was removed from the group. Nothing can be committed;
    /// what was not will be seen again there.
    fn lost(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }
}

/// What to commit of partitions that are revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokeCommit {
    pub(super) handed_out: bool,
    pub(super) offsets: BTreeMap<(String, i32), i64>,
}

impl RevokeCommit {
    /// All records that were handed out: the application has processed them.
    pub fn handed_out(&mut self) {
        self.handed_out = true;
    }

    /// A partition up to an offset: the next one to process, one more than that of the last record processed.
    pub fn offset(&mut self, topic: &str, partition: i32, next: i64) {
        self.offsets.insert((topic.to_owned(), partition), next);
    }
}

/// Partitions as the API writes them, by topic.
pub(super) fn to_wire<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Vec<v1::TopicPartitions> {
    let mut topics: BTreeMap<(&str, &str), Vec<i32>> = BTreeMap::new();
    for p in partitions {
        topics.entry((&p.topic, &p.topic_id)).or_default().push(p.partition);
    }
    let topic = |((topic, id), mut partitions): ((&str, &str), Vec<i32>)| {
        partitions.sort_unstable();
        v1::TopicPartitions { topic: topic.to_owned(), topic_id: id.to_owned(), partitions }
    };
    topics.into_iter().map(topic).collect()
}

/// Partitions as the API gives them.
pub(super) fn from_wire(topics: Vec<v1::TopicPartitions>) -> impl Iterator<Item = TopicPartition> {
    topics.into_iter().flat_map(|t| {
        let (topic, topic_id): (Arc<str>, Arc<str>) = (t.topic.into(), t.topic_id.into());
        let partition = move |partition| TopicPartition { topic: topic.clone(), topic_id: topic_id.clone(), partition };
        t.partitions.into_iter().map(partition)
    })
}
