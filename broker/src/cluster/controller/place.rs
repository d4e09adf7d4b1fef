//! Where new partitions go: those of a topic evenly over brokers, and all together too; replicas of one over zones.

use std::collections::BTreeMap;

use super::members::{Members, can_take};

/// What brokers have already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    by_broker: BTreeMap<i32, Share>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    leaders: usize,
    replicas: usize,
}

impl Load {
    /// Counts a partition with these replicas, the preferred leader first.
    pub fn add(&mut self, replicas: &[i32]) {
        for (place, broker) in replicas.iter().enumerate() {
            let share = self.by_broker.entry(*broker).or_default();
            share.replicas += 1;
            share.leaders += usize::from(place == 0);
        }
    }

    fn of(&self, broker: i32) -> Share {
        self.by_broker.get(&broker).copied().unwrap_or_default()
    }
}

/// Brokers for one more partition of a topic, the preferred leader first, and counts it in what they have of the topic and
/// of all. `None`: not enough brokers can take one.
///
/// The leader is the broker that leads least of the topic, and of those the one that leads least. Each further replica goes to a zone that has none yet where there is one, and
/// there to the broker with the least replicas. Among equals the lowest number wins, so that equal input places equally.
pub fn place(topic: &mut Load, all: &mut Load, members: &Members, replication_factor: usize) -> Option<Vec<i32>> {
    let mut left: Vec<_> = members.values().filter(|member| can_take(member)).collect();
    let mut replicas = Vec::with_capacity(replication_factor);
    let mut zones: Vec<Option<&str>> = Vec::new();
    while replicas.len() < replication_factor {
        let best = left.iter().enumerate().min_by_key(|(_, member)| {
            let (of_topic, of_all) = (topic.of(member.id), all.of(member.id));
            let zone = zones.iter().filter(|zone| **zone == member.zone.as_deref()).count();
            let leads = if replicas.is_empty() { (of_topic.leaders, of_all.leaders) } else { (0, 0) };
            (zone, leads, of_topic.replicas, of_all.replicas, member.id)
        });
        let chosen = left.swap_remove(best?.0);
        zones.push(chosen.zone.as_deref());
        replicas.push(chosen.id);
    }
    topic.add(&replicas);
    all.add(&replicas);
    Some(replicas)
}

#[cfg(test)]
mod tests {
    use super::super::members::tests::members;
    use super::*;

    fn placed(count: usize, factor: usize, members: &Members) -> Vec<Vec<i32>> {
        let (mut topic, mut all) = (Load::default(), Load::default());
        (0..count).map(|_| place(&mut topic, &mut all, members, factor).unwrap()).collect()
    }

    #[test]
    fn leaders_are_spread_evenly() {
        for factor in 1..=3 {
            let all = placed(300, factor, &members(5));
            for broker in 0..5 {
                assert_eq!(all.iter().filter(|replicas| replicas[0] == broker).count(), 60, "factor {factor}");
            }
        }
    }

    #[test]
    fn replicas_of_a_partition_are_in_different_zones() {
        let members = members(6);
        for replicas in placed(50, 3, &members) {
            let mut zones: Vec<_> = replicas.iter().map(|id| members[id].zone.clone()).collect();
            zones.sort();
            zones.dedup();
            assert_eq!(zones.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn brokers_that_are_away_or_about_to_stop_get_nothing() {
        let mut members = members(4);
        members.get_mut(&1).unwrap().fenced = true;
        members.get_mut(&2).unwrap().stopping = true;
        assert!(placed(20, 2, &members).iter().flatten().all(|id| [0, 3].contains(id)));
        assert_eq!(place(&mut Load::default(), &mut Load::default(), &members, 3), None);
    }

    #[test]
    fn a_new_broker_is_filled_first() {
        let mut load = Load::default();
        (0..10).for_each(|_| load.add(&[0]));
        assert_eq!(place(&mut Load::default(), &mut load, &members(2), 1), Some(vec![1]));
    }

    #[test]
    fn a_topic_is_spread_though_the_others_are_not() {
        let (mut topic, mut all) = (Load::default(), Load::default());
        (0..10).for_each(|_| all.add(&[0]));
        let leaders: Vec<_> = (0..4).filter_map(|_| place(&mut topic, &mut all, &members(2), 1)).flatten().collect();
        assert_eq!(leaders, [1, 0, 1, 0]);
    }
}
