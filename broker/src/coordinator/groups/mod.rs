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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taffrail_proto::partitioner::partition_for_key;

pub use self::directory::Directory;
use self::follower::Follower;
pub use self::watch::Watch;
use self::watch::Watchers;
use super::group::{Answered, GroupError, GroupShard, Request};
use super::runtime::{AskError, Coordinator, Limits, Phase, Setup};
use crate::context::Context;
use crate::controller::NewTopic;
use crate::partition::Partition;
use crate::topics::{Assignment, Topics};

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
    /// It is not at this broker, or not any more.
    #[error("the coordinator of the group is not at this broker: {0}; try again after a moment")]
    NotHere(Arc<str>),
}

/// What is to be made at start.
pub fn topic() -> NewTopic {
    let config = vec![("retention.ms".to_owned(), "-1".to_owned())];
    NewTopic { name: TOPIC.to_owned(), partitions: Some(PARTITIONS), replication_factor: None, config }
}

/// Where the coordinator of a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here.
    Here,
    /// At another broker.
    At(i32),
    /// Nowhere now; why.
    Nowhere(Arc<str>),
}

/// A shard, wherever it is.
enum Shard {
    Here { partition: Partition, coordinator: Coordinator<GroupShard> },
    At(i32),
    Nowhere(Arc<str>),
}

impl Shard {
    /// It is here, on this very partition.
    fn is_on(&self, partition: &Partition) -> bool {
        matches!(self, Self::Here { partition: its, .. } if its.is_same(partition))
    }
}

/// Numbers of a shard that is here.
#[derive(Clone, Copy, Debug)]
pub struct ShardStatus {
    /// It answers.
    pub serves: bool,
    /// How long it took to load.
    pub load: Duration,
    /// How many records it read then.
    pub loaded_records: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Checkpoints that it wrote.
    pub checkpoints: u64,
}

/// The coordinators of all groups: those whose partitions this broker leads run here, and come and go with the leadership.
pub struct Groups {
    context: Context,
    topics: Arc<Topics>,
    limits: Limits,
    shards: ArcSwap<Vec<Arc<Shard>>>,
    /// Held through a change of the shards; true: none is begun any more.
    stopped: Mutex<bool>,
    watchers: Arc<Watchers>,
    follower: Arc<Follower>,
}

impl Groups {
    /// Begins to load the shards that are led here, now and as long as it is there.
    pub fn start(context: &Context, topics: &Arc<Topics>, limits: Limits) -> Arc<Self> {
        let groups = Arc::new(Self {
            context: context.clone(),
            topics: topics.clone(),
            limits,
            shards: ArcSwap::default(),
            stopped: Mutex::new(false),
            watchers: Arc::new(Watchers::default()),
            follower: Follower::new(topics),
        });
        let mut revisions = topics.subscribe();
        groups.follow();
        let following = Arc::downgrade(&groups);
        tokio::spawn(async move {
            while revisions.changed().await.is_ok() {
                let Some(groups) = following.upgrade() else { return };
                groups.follower.directory();
                groups.follow();
            }
        });
        groups
    }

    /// Begins and ends shards as the leadership of their partitions has come and gone.
    fn follow(&self) {
        let stopped = self.stopped.lock();
        if *stopped {
            return;
        }
        let (image, before) = (self.topics.full_image(), self.shards.load_full());
        // Without the topic nothing is known: what there was ends with its partitions.
        let Ok(topic) = image.topic(TOPIC) else { return };
        let shards =
            topic.partitions.iter().zip(&topic.assignments).enumerate().map(|(index, (partition, assignment))| {
                if let Some(old) = before.get(index).filter(|old| old.is_on(partition)) {
                    return old.clone();
                }
                Arc::new(match partition.remote_leader() {
                    Some(broker) => Shard::At(broker),
                    None if partition.is_local() => self.begin(index, partition),
                    None => Shard::Nowhere(fault(assignment)),
                })
            });
        let shards: Vec<_> = shards.collect();
        for (old, new) in before.iter().zip(&shards).filter(|(old, new)| !Arc::ptr_eq(old, new)) {
            end(old, new);
        }
        self.shards.store(Arc::new(shards));
    }

    fn begin(&self, index: usize, partition: &Partition) -> Shard {
        let watchers = self.watchers.clone();
        let setup = Setup {
            name: format!("{TOPIC}-{index}").into(),
            make: GroupShard::new,
            context: self.context.clone(),
            world: self.follower.world(),
            events: Arc::new(move |event| watchers.tell(&event)),
            limits: self.limits,
        };
        Shard::Here { partition: partition.clone(), coordinator: Coordinator::start(partition.clone(), setup) }
    }

    /// Where the coordinator of a group is.
    pub fn place_of(&self, group: &str) -> Place {
        match find(&self.shards.load(), group) {
            Some(Shard::Here { .. }) => Place::Here,
            Some(Shard::At(broker)) => Place::At(*broker),
            Some(Shard::Nowhere(fault)) => Place::Nowhere(fault.clone()),
            None => Place::Nowhere(Arc::from("the cluster has no place for groups yet")),
        }
    }

    /// Other brokers that have coordinators; an error if some are nowhere.
    pub fn others(&self) -> Result<BTreeSet<i32>, GroupsError> {
        let shards = self.shards.load_full();
        let mut others = BTreeSet::new();
        for shard in shards.iter() {
            match &**shard {
                Shard::Here { .. } => {}
                Shard::At(broker) => {
                    others.insert(*broker);
                }
                Shard::Nowhere(fault) => return Err(GroupsError::NotHere(fault.clone())),
            }
        }
        Ok(others)
    }

    /// Asks the coordinator of a group, if it is here. The request is in line when this returns; dropping the future does not
    /// take it back.
    pub fn ask(
        &self,
        group: &str,
        request: Request,
    ) -> impl Future<Output = Result<Answered, GroupsError>> + Send + use<> {
        // A request about a topic that was just made finds it.
        self.follower.directory();
        let asked = match find(&self.shards.load(), group) {
            Some(Shard::Here { coordinator, .. }) => Ok(coordinator.ask(request)),
            Some(Shard::At(_)) => Err(GroupsError::NotHere(Arc::from("it is at another broker"))),
            Some(Shard::Nowhere(fault)) => Err(GroupsError::NotHere(fault.clone())),
            None => Err(GroupsError::NotHere(Arc::from("the cluster has no place for groups yet"))),
        };
        async move { Ok(asked?.await??) }
    }

    /// Asks all coordinators that are here the same; their answers by shard.
    pub async fn ask_all(&self, request: &Request) -> Result<Vec<Answered>, GroupsError> {
        let asked: Vec<_> = here(&self.shards.load()).map(|coordinator| coordinator.ask(request.clone())).collect();
        let answers = futures::future::try_join_all(asked).await?;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }

    /// Which shard has a group.
    pub fn shard_of(&self, group: &str) -> usize {
        index_of(group, self.shards.load().len())
    }

    /// Watches a member for events.
    pub fn watch(&self, group: &str, member: &str) -> Watch {
        self.watchers.watch(group, member)
    }

    /// Topics by their identity, as the coordinators see them.
    pub fn directory(&self) -> Arc<Directory> {
        self.follower.directory()
    }

    /// Waits until all shards that are here serve, or cannot, at most so long; how many do not serve.
    pub async fn loaded(&self, patience: Duration) -> usize {
        let shards = self.shards.load_full();
        let phases = here(&shards).map(|coordinator| coordinator.loaded(patience));
        let phases = futures::future::join_all(phases).await;
        phases.into_iter().filter(|phase| *phase != Phase::Serving).count()
    }

    /// Numbers of each shard that is here.
    pub fn status(&self) -> Vec<ShardStatus> {
        let status = |coordinator: &Coordinator<GroupShard>| {
            let status = coordinator.status();
            ShardStatus {
                serves: coordinator.phase() == Phase::Serving,
                load: Duration::from_millis(status.load_millis.load(Relaxed)),
                loaded_records: status.loaded_records.load(Relaxed),
                log_bytes: coordinator.log_bytes(),
                checkpoints: status.checkpoints.load(Relaxed),
            }
        };
        here(&self.shards.load()).map(status).collect()
    }

    /// Answers what is in flight and ends. To be called before the partitions stop.
    pub async fn stop(&self) {
        *self.stopped.lock() = true;
        let shards = self.shards.load_full();
        futures::future::join_all(here(&shards).map(Coordinator::stop)).await;
    }
}

/// Which of so many shards has a group.
fn index_of(group: &str, shards: usize) -> usize {
    let count = i32::try_from(shards).unwrap_or(i32::MAX).max(1);
    partition_for_key(group.as_bytes(), count) as usize
}

/// The shard that has a group, if there are any.
fn find<'a>(shards: &'a [Arc<Shard>], group: &str) -> Option<&'a Shard> {
    shards.get(index_of(group, shards.len())).map(Arc::as_ref)
}

/// The coordinators that are here, by shard.
fn here(shards: &[Arc<Shard>]) -> impl Iterator<Item = &Coordinator<GroupShard>> {
    shards.iter().filter_map(|shard| match &**shard {
        Shard::Here { coordinator, .. } => Some(coordinator),
        Shard::At(_) | Shard::Nowhere(_) => None,
    })
}

fn fault(assignment: &Assignment) -> Arc<str> {
    assignment.fault.as_deref().map_or_else(|| Arc::from("its broker is not there"), Arc::from)
}

/// Ends a shard that is not here any more, or begins anew.
fn end(old: &Arc<Shard>, new: &Shard) {
    if !matches!(**old, Shard::Here { .. }) {
        return;
    }
    let place = match new {
        Shard::Here { .. } => "here, under another epoch".to_owned(),
        Shard::At(broker) => format!("broker {broker}"),
        Shard::Nowhere(fault) => format!("nowhere: {fault}"),
    };
    tracing::info!(place, "a coordinator of groups has moved");
    let old = old.clone();
    tokio::spawn(async move {
        if let Shard::Here { coordinator, .. } = &*old {
            coordinator.stop().await;
        }
    });
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
