//! All shards of consumer groups: which of them has a group, what they see of the topics, and who is told of their events.
//!
//! # Where a group lives
//!
//! A group's shard is the partition of [`TOPIC`] that Kafka's partitioner gives its id (murmur2 of the id's bytes, the sign
//! bit cleared, modulo the number of partitions; see [`taffrail_proto::partitioner`]). The topic is made with
//! [`PARTITIONS`] partitions and keeps the number it was made with, since another number would send groups elsewhere. It has
//! no retention: checkpoints bound it. Its durability is `os`, as in Kafka: what a commit says survives the death of the
//! broker, and after a loss of power what was committed last may be consumed again.

mod directory;
mod follower;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::partitioner::partition_for_key;
use tokio::task::JoinHandle;

pub use self::directory::Directory;
use self::follower::Follower;
pub use self::watch::Watch;
use self::watch::Watchers;
use super::group::{Answered, GroupError, GroupShard, Request};
use super::runtime::{AskError, Coordinator, Limits, Phase, Setup, Status};
use crate::context::Context;
use crate::controller::NewTopic;
use crate::topics::{LookupError, Topics};

/// Name of the internal topic.
pub const TOPIC: &str = "__consumer_offsets";
/// Partitions that it is made with.
pub const PARTITIONS: i32 = 16;

/// Why a group gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupsError {
    /// The coordinator refused.
    #[error(transparent)]
    Refused(#[from] GroupError),
    /// The coordinator did not answer.
    #[error(transparent)]
    Unanswered(#[from] AskError),
}

/// What is to be made at start.
pub fn topic() -> NewTopic {
    let config = vec![("retention.ms".to_owned(), "-1".to_owned())];
    NewTopic { name: TOPIC.to_owned(), partitions: Some(PARTITIONS), config }
}

/// The coordinators of all groups.
pub struct Groups {
    shards: Vec<Coordinator<GroupShard>>,
    watchers: Arc<Watchers>,
    follower: Arc<Follower>,
    following: JoinHandle<()>,
}

impl Groups {
    /// Begins to load all shards. Their topic must be served.
    pub fn start(context: &Context, topics: &Arc<Topics>, limits: Limits) -> Result<Self, LookupError> {
        let image = topics.full_image();
        let follower = Follower::new(topics);
        let watchers = Arc::new(Watchers::default());
        let start = |(index, partition): (usize, &crate::partition::Partition)| {
            let watchers = watchers.clone();
            let setup = Setup {
                name: format!("{TOPIC}-{index}").into(),
                make: GroupShard::new,
                context: context.clone(),
                world: follower.world(),
                events: Arc::new(move |event| watchers.tell(&event)),
                limits,
            };
            Coordinator::start(partition.clone(), setup)
        };
        let shards = image.topic(TOPIC)?.partitions.iter().enumerate().map(start).collect();
        let following = tokio::spawn(follower.clone().run());
        Ok(Self { shards, watchers, follower, following })
    }

    /// Asks the coordinator of a group. The request is in line when this returns; dropping the future does not take it back.
    pub fn ask(
        &self,
        group: &str,
        request: Request,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        // A request about a topic that was just made finds it.
        self.follower.directory();
        let asked = self.shards[self.shard_of(group)].ask(request);
        async move { Ok(asked.await??) }
    }

    /// Asks all coordinators the same; their answers by shard.
    pub async fn ask_all(&self, request: &Request) -> Result<Vec<Answered>, GroupsError> {
        let asked: Vec<_> = self.shards.iter().map(|shard| shard.ask(request.clone())).collect();
        let answers = futures::future::try_join_all(asked).await?;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }

    /// Which shard has a group.
    pub fn shard_of(&self, group: &str) -> usize {
        partition_for_key(group.as_bytes(), self.shards.len() as i32) as usize
    }

    /// Watches a member for events.
    pub fn watch(&self, group: &str, member: &str) -> Watch {
        self.watchers.watch(group, member)
    }

    /// Topics by their identity, as the coordinators see them.
    pub fn directory(&self) -> Arc<Directory> {
        self.follower.directory()
    }

    /// Waits until all shards serve, or cannot, at most so long; how many do not serve.
    pub async fn loaded(&self, patience: Duration) -> usize {
        let phases = futures::future::join_all(self.shards.iter().map(|shard| shard.loaded(patience))).await;
        phases.into_iter().filter(|phase| *phase != Phase::Serving).count()
    }

    /// Numbers of each shard: its phase, what it counts, and the bytes of its log.
    pub fn status(&self) -> impl Iterator<Item = (Phase, &Status, u64)> {
        self.shards.iter().map(|shard| (shard.phase(), shard.status(), shard.log_bytes()))
    }

    /// Answers what is in flight and ends. To be called before the partitions stop.
    pub async fn stop(&self) {
        self.following.abort();
        futures::future::join_all(self.shards.iter().map(Coordinator::stop)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number that Kafka's partitioner gives, so that other clients may compute it.
    #[test]
    fn a_groups_shard_is_that_of_kafkas_partitioner() {
        let of = |group: &str| partition_for_key(group.as_bytes(), PARTITIONS);
        // murmur2("21") = -973932308, murmur2("foobar") = -790332482, both from Kafka's own tests.
        assert_eq!((of("21"), of("foobar")), (12, 14));
    }
}
