//! Where replicas go: those of a topic evenly over brokers, and all together too; those of one partition over zones.

use std::collections::BTreeMap;

use taffrail_crds::PartitionState;

use super::members::{Member, Members};

/// What brokers have already, or shall have: replicas that go do not count.
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

    /// Counts a partition as it shall be.
    pub fn count(&mut self, partition: &PartitionState) {
        for (place, broker) in partition.wanted().enumerate() {
            let share = self.by_broker.entry(broker).or_default();
            share.replicas += 1;
            share.leaders += usize::from(place == 0);
        }
    }

    /// How many replicas a broker has.
    pub fn replicas(&self, broker: i32) -> usize {
        self.of(broker).replicas
    }

    /// How many partitions a broker is the preferred leader of.
    pub fn leaders(&self, broker: i32) -> usize {
        self.of(broker).leaders
    }

    /// A replica moves, or will. `leads`: it is the preferred leader's.
    pub fn shift(&mut self, from: i32, to: i32, leads: bool) {
        self.remove_follower(from);
        self.add_follower(to);
        if leads {
            self.prefer(from, to);
        }
    }

    /// Another broker becomes the preferred leader of a partition.
    pub fn prefer(&mut self, from: i32, to: i32) {
        let share = self.by_broker.entry(from).or_default();
        share.leaders = share.leaders.saturating_sub(1);
        self.by_broker.entry(to).or_default().leaders += 1;
    }

    fn add_follower(&mut self, broker: i32) {
        self.by_broker.entry(broker).or_default().replicas += 1;
    }

    fn remove_follower(&mut self, broker: i32) {
        let share = self.by_broker.entry(broker).or_default();
        share.replicas = share.replicas.saturating_sub(1);
    }

    fn of(&self, broker: i32) -> Share {
        self.by_broker.get(&broker).copied().unwrap_or_default()
    }
}

/// Who can take replicas, and what all brokers have of all topics.
#[derive(Debug)]
pub struct Room<'a> {
    members: &'a Members,
    takers: Vec<&'a Member>,
    load: Load,
    /// Brokers from this number on are about to go.
    staying: i32,
}

impl<'a> Room<'a> {
    /// Of these brokers `takers` can take something.
    pub fn new(members: &'a Members, takers: Vec<&'a Member>, load: Load) -> Self {
        Self { members, takers, load, staying: i32::MAX }
    }

    /// The same, with brokers from this number on about to go. None of them is among the takers.
    pub fn with_staying(self, staying: i32) -> Self {
        Self { staying, ..self }
    }

    /// All registered brokers.
    pub fn members(&self) -> &'a Members {
        self.members
    }

    /// Who can take something.
    pub fn takers(&self) -> &[&'a Member] {
        &self.takers
    }

    /// What all brokers have.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Whether a broker is about to go for good, with all that it has.
    pub fn goes(&self, broker: i32) -> bool {
        broker >= self.staying
    }

    /// How many brokers there shall be.
    pub fn staying(&self) -> i32 {
        self.staying
    }

    /// Brokers for one more partition of a topic, the preferred leader first, and counts it in what they have of the topic and
    /// of all. `None`: not enough brokers can take one.
    ///
    /// The leader is the broker that leads least of the topic, and of those the one that leads least. Each further replica goes
    /// to a zone that has none yet where there is one, and there to the broker with the least replicas. Among equals the lowest
    /// number wins, so that equal input places equally.
    pub fn place(&mut self, topic: &mut Load, replication_factor: usize) -> Option<Vec<&'a Member>> {
        let mut replicas = Vec::with_capacity(replication_factor);
        while replicas.len() < replication_factor {
            let taken: Vec<_> = replicas.iter().map(|member: &&Member| member.id).collect();
            replicas.push(self.best(topic, &taken, taken.is_empty())?);
        }
        let ids: Vec<_> = replicas.iter().map(|member| member.id).collect();
        topic.add(&ids);
        self.load.add(&ids);
        Some(replicas)
    }

    /// A broker for one more replica of a partition that has these, and counts it. `None`: no other broker can take one.
    pub fn add(&mut self, topic: &mut Load, replicas: &[i32]) -> Option<i32> {
        let chosen = self.best(topic, replicas, false)?.id;
        topic.add_follower(chosen);
        self.load.add_follower(chosen);
        Some(chosen)
    }

    /// Which of `candidates`, which are among the replicas of a partition, it can best do without, and counts it out: one whose
    /// broker takes nothing new, or shares its zone with another, or has most.
    pub fn remove(&mut self, topic: &mut Load, replicas: &[i32], candidates: &[i32]) -> Option<i32> {
        let takes = |broker: i32| self.takers.iter().any(|member| member.id == broker);
        let key = |(place, broker): &(usize, &i32)| {
            let load = (topic.of(**broker).replicas, self.load.of(**broker).replicas);
            (!takes(**broker), self.in_zone(self.zone(**broker), replicas), load, *place)
        };
        let chosen = *candidates.iter().enumerate().max_by_key(key)?.1;
        topic.remove_follower(chosen);
        self.load.remove_follower(chosen);
        Some(chosen)
    }

    /// A broker that can have the place of one whose partition keeps these others. It is not counted: see [`Room::shift`].
    pub fn replacement(&self, topic: &Load, kept: &[i32], leads: bool) -> Option<i32> {
        self.best(topic, kept, leads).map(|member| member.id)
    }

    /// Counts that a replica moves, or will.
    pub fn shift(&mut self, topic: &mut Load, (from, to): (i32, i32), leads: bool) {
        topic.shift(from, to, leads);
        self.load.shift(from, to, leads);
    }

    /// Counts a replica that was to go and stays.
    pub fn keep(&mut self, topic: &mut Load, broker: i32) {
        topic.add_follower(broker);
        self.load.add_follower(broker);
    }

    fn best(&self, topic: &Load, taken: &[i32], leads: bool) -> Option<&'a Member> {
        let left = self.takers.iter().filter(|member| !taken.contains(&member.id));
        let best = left.min_by_key(|member| {
            let (of_topic, of_all) = (topic.of(member.id), self.load.of(member.id));
            let leads = if leads { (of_topic.leaders, of_all.leaders) } else { (0, 0) };
            let zone = self.in_zone(member.zone.as_deref(), taken);
            (zone, leads, of_topic.replicas, of_all.replicas, member.id)
        });
        best.copied()
    }

    fn zone(&self, broker: i32) -> Option<&str> {
        self.members.get(&broker)?.zone.as_deref()
    }

    fn in_zone(&self, zone: Option<&str>, brokers: &[i32]) -> usize {
        brokers.iter().filter(|broker| self.zone(**broker) == zone).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::can_take;
    use super::super::members::tests::members;
    use super::*;

    fn room(members: &Members, load: Load) -> Room<'_> {
        Room::new(members, members.values().filter(|member| can_take(member)).collect(), load)
    }

    fn ids(placed: Option<Vec<&Member>>) -> Vec<i32> {
        placed.unwrap().into_iter().map(|member| member.id).collect()
    }

    fn placed(count: usize, factor: usize, members: &Members) -> Vec<Vec<i32>> {
        let (mut topic, mut room) = (Load::default(), room(members, Load::default()));
        (0..count).map(|_| ids(room.place(&mut topic, factor))).collect()
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
        assert_eq!(room(&members, Load::default()).place(&mut Load::default(), 3), None);
    }

    #[test]
    fn a_new_broker_is_filled_first() {
        let mut load = Load::default();
        (0..10).for_each(|_| load.add(&[0]));
        assert_eq!(ids(room(&members(2), load).place(&mut Load::default(), 1)), [1]);
    }

    #[test]
    fn a_topic_is_spread_though_the_others_are_not() {
        let (mut topic, mut all, members) = (Load::default(), Load::default(), members(2));
        (0..10).for_each(|_| all.add(&[0]));
        let mut room = room(&members, all);
        let leaders: Vec<_> = (0..4).flat_map(|_| ids(room.place(&mut topic, 1))).collect();
        assert_eq!(leaders, [1, 0, 1, 0]);
    }

    #[test]
    fn a_partition_grows_into_zones_that_it_is_not_in() {
        let members = members(6);
        let (mut topic, mut room) = (Load::default(), room(&members, Load::default()));
        // 0 and 3 are in zone a, 1 and 4 in b, 2 and 5 in c.
        assert_eq!(room.add(&mut topic, &[0]), Some(1));
        assert_eq!(room.add(&mut topic, &[0, 1]), Some(2));
        assert_eq!(room.add(&mut topic, &[0]), Some(4), "1 has one already");
        assert_eq!(room.add(&mut topic, &[0, 1, 2, 3, 4, 5]), None);
    }

    #[test]
    fn a_partition_does_without_who_takes_nothing_new_or_shares_a_zone_or_has_most() {
        let mut members = members(6);
        let mut topic = Load::default();
        topic.add(&[0, 1, 2]);
        let all = topic.clone();
        assert_eq!(room(&members, all.clone()).remove(&mut topic.clone(), &[0, 1, 2, 5], &[1, 2, 5]), Some(2));
        assert_eq!(room(&members, all.clone()).remove(&mut topic.clone(), &[0, 1, 5], &[1, 5]), Some(1));
        members.get_mut(&5).unwrap().stopping = true;
        assert_eq!(room(&members, all).remove(&mut topic, &[0, 1, 5], &[1, 5]), Some(5));
    }
}
