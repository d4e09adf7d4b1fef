//! How the partitions of which a broker has a replica stand, for its metrics.

use super::{Assignment, Image};
use crate::metrics::ReplicationSample;
use crate::partition::Partition;

/// How those of broker `me` stand now.
pub fn standing(image: &Image, me: i32) -> ReplicationSample {
    let mut sample = ReplicationSample::default();
    for topic in image.topics() {
        for (partition, assignment) in topic.partitions.iter().zip(&topic.assignments) {
            if assignment.replicas.contains(&me) {
                count(&mut sample, partition, assignment);
            }
        }
    }
    sample
}

fn count(sample: &mut ReplicationSample, partition: &Partition, assignment: &Assignment) {
    let in_sync = assignment.isr.len();
    if partition.is_local() {
        sample.led += 1;
        sample.under_replicated += u64::from(in_sync < assignment.replicas.len());
        sample.below_min_isr += u64::from(in_sync < usize::try_from(assignment.min_in_sync_replicas).unwrap_or(0));
        sample.recovering += u64::from(assignment.recovering);
    } else if let Some(lag) = partition.lag() {
        sample.followed += 1;
        sample.catching_up += u64::from(partition.in_sync_replica().is_none());
        sample.max_lag = sample.max_lag.max(u64::try_from(lag).unwrap_or(0));
    }
    sample.leaderless += u64::from(assignment.leader.is_none());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arc_swap::ArcSwap;
    use taffrail_crds::TopicConfig;
    use uuid::Uuid;

    use super::*;
    use crate::brokers::Brokers;
    use crate::cluster::Session;
    use crate::context::Context;
    use crate::metrics::ReplicationMetrics;
    use crate::partition::Term;
    use crate::peers::Peers;
    use crate::replication::fetcher::{Followers, Following};
    use crate::storage::memory::Disk;
    use crate::storage::{PartitionId, Storage};
    use crate::topics::{Settings, Topic, Topics};

    const ME: i32 = 1;

    fn assigned(leader: Option<i32>, replicas: &[i32], isr: &[i32], recovering: bool) -> Assignment {
        let (replicas, isr) = (replicas.to_vec(), isr.to_vec());
        Assignment { leader, replicas, isr, min_in_sync_replicas: 2, recovering, ..Assignment::default() }
    }

    #[tokio::test]
    async fn every_replica_of_the_broker_is_counted_by_what_it_is() {
        let disk = Disk::new();
        let storage: Arc<dyn Storage> = disk.open();
        let context = Context::system(&*storage.meta()).unwrap();
        let settings = Arc::new(ArcSwap::from_pointee(Settings::of(&TopicConfig::default())));
        let peers = Peers::new(Brokers::new(ME, "cluster".to_owned()), 1 << 20);
        let me = Session { broker: ME, incarnation: 1 };
        let followers = Followers::new(context.clone(), &peers, me, ReplicationMetrics::default());
        let id = |index| PartitionId { topic: Uuid::from_u128(7), index };
        let (mut partitions, mut follows) = (Vec::new(), Vec::new());
        for (index, assignment) in [
            assigned(Some(1), &[1, 2, 3], &[1, 2, 3], false),
            assigned(Some(1), &[1, 2, 3], &[1, 2], true),
            assigned(Some(1), &[1, 2, 3], &[1], false),
            assigned(Some(2), &[2, 1], &[2, 1], false),
            assigned(Some(2), &[2, 1], &[2], false),
            assigned(Some(2), &[2, 3], &[2], false),
            assigned(None, &[1, 2], &[], false),
            assigned(None, &[2, 3], &[], false),
        ]
        .into_iter()
        .enumerate()
        {
            let id = id(index as i32);
            let partition = match assignment.leader {
                Some(ME) => {
                    let log = storage.create(id).unwrap();
                    Partition::lead(log, context.clone(), settings.clone(), Term::alone(Some(0))).await.unwrap()
                }
                Some(leader) => Partition::remote(&peers, id, leader, 0),
                None => Partition::offline(id, None),
            };
            if assignment.leader == Some(2) && assignment.replicas.contains(&ME) {
                let in_sync = assignment.isr.contains(&ME);
                let following = Following { leader: 2, leader_epoch: 0, high_watermark: 0, in_sync };
                let log = storage.create(id).unwrap();
                let follow = followers.follow(log.clone(), settings.clone(), following);
                partition.followed(log, &follow);
                follows.push(follow);
            }
            partitions.push((partition, assignment));
        }
        let topics = Topics::new();
        topics.change(vec![Arc::new(Topic::new("t".into(), id(0).topic, settings, partitions))], &[]);
        let expected = ReplicationSample {
            led: 3,
            followed: 2,
            under_replicated: 2,
            below_min_isr: 1,
            leaderless: 1,
            recovering: 1,
            catching_up: 1,
            max_lag: 0,
        };
        assert_eq!(standing(&topics.image(), ME), expected);
    }
}
