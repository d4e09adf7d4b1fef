use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

/// A member, what it subscribes to, what it had.
type Subscriber = (Arc<str>, Arc<BTreeSet<Uuid>>, BTreeSet<TopicPartition>);

/// Members' subscriptions as bits of topics, and what they had.
#[derive(Clone, Debug)]
struct Case {
    topics: BTreeMap<Uuid, i32>,
    members: Vec<Subscriber>,
}

fn topic(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 2)
}

impl Case {
    fn new(partitions: &[i32], subscriptions: &[u8]) -> Self {
        let topics: BTreeMap<Uuid, i32> =
            partitions.iter().enumerate().map(|(at, &partitions)| (topic(at), partitions)).collect();
        let member = |(at, bits): (usize, &u8)| {
            let wanted = (0..partitions.len()).filter(|topic| bits & (1 << topic) != 0).map(topic);
            (Arc::from(format!("m{at:05}")), Arc::new(wanted.collect()), BTreeSet::new())
        };
        let members = subscriptions.iter().enumerate().map(member).collect();
        Self { topics, members }
    }

    /// Assigns, checks what always holds, and makes the result what members had.
    fn assign(&mut self, assignor: AssignorName) -> Vec<BTreeSet<TopicPartition>> {
        let candidates: Vec<_> = self
            .members
            .iter()
            .map(|(member, topics, target)| Candidate { member, instance: None, topics: topics.clone(), target })
            .collect();
        let assigned = assign(assignor, &candidates, &self.topics);
        assert_eq!(assigned, assign(assignor, &candidates, &self.topics), "not deterministic");
        assert_eq!(assigned.len(), candidates.len());
        let mut expected = BTreeSet::new();
        for (&topic, &partitions) in &self.topics {
            if candidates.iter().any(|candidate| candidate.topics.contains(&topic)) {
                expected.extend((0..partitions).map(|partition| TopicPartition { topic, partition }));
            }
        }
        let mut given = BTreeSet::new();
        for (candidate, assigned) in candidates.iter().zip(&assigned) {
            for partition in assigned {
                assert!(candidate.topics.contains(&partition.topic), "not subscribed");
                assert!(given.insert(*partition), "owned twice");
            }
        }
        assert_eq!(given, expected, "not all are owned");
        for (member, target) in self.members.iter_mut().zip(&assigned) {
            member.2.clone_from(target);
        }
        assigned
    }
}

fn loads(assigned: &[BTreeSet<TopicPartition>]) -> Vec<usize> {
    assigned.iter().map(BTreeSet::len).collect()
}

/// How many partitions that a present member had are someone else's now, and how many had to be.
fn moves(before: &[BTreeSet<TopicPartition>], after: &[BTreeSet<TopicPartition>]) -> (usize, usize) {
    let moved = before.iter().zip(after).map(|(before, after)| before.difference(after).count()).sum();
    let total: usize = loads(after).iter().sum();
    let (least, extra) = (total / after.len(), total % after.len());
    let mut before = loads(before);
    before.sort_unstable_by(|a, b| b.cmp(a));
    let quotas = (0..after.len()).map(|at| least + usize::from(at < extra));
    let needed = before.iter().zip(quotas).map(|(has, quota)| has.saturating_sub(quota)).sum();
    (moved, needed)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn uniform_balances_and_moves_little_while_members_come_and_go(
        partitions in prop::collection::vec(0..20, 1..4),
        joins in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..30),
    ) {
        let mut case = Case::new(&partitions, &[0xff]);
        case.assign(AssignorName::Uniform);
        for (number, (join, at)) in joins.into_iter().enumerate() {
            if join || case.members.len() == 1 {
                let topics = case.members[0].1.clone();
                case.members.push((Arc::from(format!("n{number}")), topics, BTreeSet::new()));
            } else {
                case.members.remove(at.index(case.members.len()));
            }
            let before: Vec<_> = case.members.iter().map(|member| member.2.clone()).collect();
            let after = case.assign(AssignorName::Uniform);
            let loads = loads(&after);
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
            let (moved, needed) = moves(&before, &after);
            prop_assert!(2 * moved <= 3 * needed, "{moved} moved, {needed} had to");
        }
    }

    #[test]
    fn uniform_with_different_subscriptions_leaves_nobody_idle_who_could_help(
        partitions in prop::collection::vec(0..12, 1..5),
        subscriptions in prop::collection::vec(0..32_u8, 1..12),
        changed in any::<prop::sample::Index>(),
        to in 0..32_u8,
    ) {
        let mut case = Case::new(&partitions, &subscriptions);
        case.assign(AssignorName::Uniform);
        let at = changed.index(case.members.len());
        case.members[at].1 = Case::new(&partitions, &[to]).members[0].1.clone();
        let assigned = case.assign(AssignorName::Uniform);
        for from in &assigned {
            for partition in from {
                let subscribers = case.members.iter().zip(&assigned).filter(|(m, _)| m.1.contains(&partition.topic));
                for (_, other) in subscribers {
                    prop_assert!(from.len() <= other.len() + 1, "{:?}", loads(&assigned));
                }
            }
        }
    }

    #[test]
    fn range_cuts_each_topic_evenly(
        partitions in prop::collection::vec(0..12, 1..5),
        subscriptions in prop::collection::vec(0..32_u8, 1..12),
    ) {
        let mut case = Case::new(&partitions, &subscriptions);
        let assigned = case.assign(AssignorName::Range);
        for &topic in case.topics.keys() {
            let subscribed = case.members.iter().zip(&assigned).filter(|(member, _)| member.1.contains(&topic));
            let cuts: Vec<Vec<i32>> = subscribed
                .map(|(_, has)| has.iter().filter(|p| p.topic == topic).map(|p| p.partition).collect())
                .collect();
            let neighbours = cuts.concat();
            prop_assert!(neighbours.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{cuts:?}");
            prop_assert!(cuts.windows(2).all(|pair| (pair[1].len()..=pair[1].len() + 1).contains(&pair[0].len())));
        }
    }
}

#[test]
fn range_gives_equal_numbers_of_equal_topics_to_one_member() {
    let mut case = Case::new(&[7, 7], &[3, 3, 3]);
    for has in case.assign(AssignorName::Range) {
        let numbers = |at| has.iter().filter(|p| p.topic == topic(at)).map(|p| p.partition).collect::<Vec<_>>();
        assert_eq!(numbers(0), numbers(1));
    }
}

#[test]
fn range_orders_static_members_by_instance() {
    let (old, new, other): (Arc<str>, Arc<str>, Arc<str>) = ("a".into(), "z".into(), "m".into());
    let (first, second): (Arc<str>, Arc<str>) = ("i1".into(), "i2".into());
    let topics = BTreeMap::from([(topic(0), 4)]);
    let (all, nothing) = (Arc::new(BTreeSet::from([topic(0)])), BTreeSet::new());
    let candidate =
        |member, instance| Candidate { member, instance: Some(instance), topics: all.clone(), target: &nothing };
    let before = assign(AssignorName::Range, &[candidate(&old, &first), candidate(&other, &second)], &topics);
    let after = assign(AssignorName::Range, &[candidate(&other, &second), candidate(&new, &first)], &topics);
    assert_eq!((&before[0], &before[1]), (&after[1], &after[0]));
}

#[test]
fn ten_thousand_members_are_assigned_in_an_instant() {
    let mut alike = Case::new(&[20_000], &vec![1; 10_000]);
    assert_eq!(loads(&alike.assign(AssignorName::Uniform)), vec![2; 10_000]);
    alike.members.pop();
    let before: Vec<_> = alike.members.iter().map(|member| member.2.clone()).collect();
    let after = alike.assign(AssignorName::Uniform);
    assert_eq!(moves(&before, &after), (0, 0));
    let different: Vec<u8> = (0..10_000_u32).map(|at| 1 + (at % 3) as u8).collect();
    Case::new(&[5_000, 5_000], &different).assign(AssignorName::Uniform);
}

#[test]
fn most_votes_count_and_who_does_not_care_has_none() {
    use AssignorName::{Range, Uniform};
    for (votes, elected) in [
        (&[][..], Uniform),
        (&[None, None, Some(Range)], Range),
        (&[Some(Uniform), Some(Range)], Uniform),
        (&[Some(Uniform), Some(Range), Some(Range)], Range),
    ] {
        assert_eq!(elect(votes.iter().copied()), elected, "{votes:?}");
    }
}
