//! Range: of each topic, neighbouring partitions to each member, in the order of the members' names. Topics with as many
//! partitions and the same subscribers are cut alike, so that the same numbers of each go to one member.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Candidate;
use crate::coordinator::group::TopicPartition;

pub(super) fn assign(candidates: &[Candidate<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<BTreeSet<TopicPartition>> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // As in Kafka: static members first, by instance, so that a restart under another member id changes nothing.
    order.sort_by_key(|&at| (candidates[at].instance.is_none(), candidates[at].instance, candidates[at].member));

    let mut assigned = vec![BTreeSet::new(); candidates.len()];
    for (&topic, &partitions) in topics {
        let subscribers: Vec<usize> =
            order.iter().copied().filter(|&at| candidates[at].topics.contains(&topic)).collect();
        let Ok(members) = i32::try_from(subscribers.len()) else { continue };
        if members == 0 {
            continue;
        }
        let (each, extra) = (partitions / members, partitions % members);
        let mut first = 0;
        for (place, at) in (0..members).zip(subscribers) {
            let end = first + each + i32::from(place < extra);
            assigned[at].extend((first..end).map(|partition| TopicPartition { topic, partition }));
            first = end;
        }
    }
    assigned
}
