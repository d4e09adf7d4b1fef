//! Uniform: balanced, and sticky. Members that subscribe to the same get numbers of partitions that differ by one at most,
//! and as few partitions move as that allows. Where subscriptions differ it does its best: what is free goes to the least
//! loaded subscriber, then partitions move from the most to the least loaded while that makes a difference.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Candidate;
use crate::coordinator::group::TopicPartition;

pub(super) fn assign(candidates: &[Candidate<'_>], topics: &BTreeMap<Uuid, i32>) -> Vec<BTreeSet<TopicPartition>> {
    let Some(first) = candidates.first() else { return vec![] };
    let (kept, free) = keep(candidates, topics);
    if candidates.iter().all(|candidate| candidate.topics == first.topics) {
        alike(kept, free)
    } else {
        different(candidates, kept, free)
    }
}

type Assignment = Vec<BTreeSet<TopicPartition>>;

/// What members keep of what they had, and what is left over.
fn keep(candidates: &[Candidate<'_>], topics: &BTreeMap<Uuid, i32>) -> (Assignment, BTreeSet<TopicPartition>) {
    let subscribed: BTreeSet<&Uuid> = candidates.iter().flat_map(|candidate| candidate.topics.iter()).collect();
    let mut free: BTreeSet<TopicPartition> = topics
        .iter()
        .filter(|(topic, _)| subscribed.contains(topic))
        .flat_map(|(&topic, &partitions)| (0..partitions).map(move |partition| TopicPartition { topic, partition }))
        .collect();
    let kept = candidates.iter().map(|candidate| {
        let wanted = candidate.target.iter().filter(|partition| candidate.topics.contains(&partition.topic));
        wanted.filter(|partition| free.remove(partition)).copied().collect()
    });
    (kept.collect(), free)
}

/// All subscribe to the same.
fn alike(mut assigned: Assignment, mut free: BTreeSet<TopicPartition>) -> Assignment {
    let total = free.len() + assigned.iter().map(BTreeSet::len).sum::<usize>();
    let (least, mut extra) = (total / assigned.len(), total % assigned.len());
    // One more than the least for those that have it already, then for those who come first.
    let mut quotas = vec![least; assigned.len()];
    for rich in [true, false] {
        for (quota, has) in quotas.iter_mut().zip(&assigned) {
            if extra > 0 && *quota == least && (has.len() > least) == rich {
                *quota += 1;
                extra -= 1;
            }
        }
    }
    for (has, quota) in assigned.iter_mut().zip(&quotas) {
        while has.len() > *quota {
            free.extend(has.pop_last());
        }
    }
    // In turns, so that each topic is spread over the members.
    let mut free = free.into_iter();
    let mut hungry: Vec<usize> = (0..assigned.len()).collect();
    while !hungry.is_empty() {
        hungry.retain(|&at| {
            let has = &mut assigned[at];
            let more = has.len() < quotas[at];
            if more {
                has.extend(free.next());
            }
            more
        });
    }
    assigned
}

/// Members with the same subscription.
struct Class<'a> {
    topics: &'a BTreeSet<Uuid>,
    /// Their number of partitions and place.
    loads: BTreeSet<(usize, usize)>,
}

/// Subscriptions differ.
struct Different<'a> {
    classes: Vec<Class<'a>>,
    /// Class of each candidate.
    class_of: Vec<usize>,
    assigned: Assignment,
    owners: BTreeMap<TopicPartition, usize>,
}

fn different(candidates: &[Candidate<'_>], kept: Assignment, free: BTreeSet<TopicPartition>) -> Assignment {
    let mut this = Different::new(candidates, kept);
    // What few can take first: it narrows nobody else's choice.
    let mut free: Vec<_> = free.into_iter().map(|partition| (this.subscribers(&partition.topic), partition)).collect();
    free.sort_unstable();
    for (_, partition) in free {
        if let Some((_, to)) = this.least_loaded(&partition.topic) {
            this.give(partition, to);
        }
    }
    this.balance();
    this.assigned
}

impl<'a> Different<'a> {
    fn new(candidates: &'a [Candidate<'_>], assigned: Assignment) -> Self {
        let mut places: BTreeMap<&BTreeSet<Uuid>, usize> = BTreeMap::new();
        let mut classes: Vec<Class<'a>> = vec![];
        let mut class_of = Vec::with_capacity(candidates.len());
        for (at, candidate) in candidates.iter().enumerate() {
            let class = *places.entry(&candidate.topics).or_insert_with(|| {
                classes.push(Class { topics: &candidate.topics, loads: BTreeSet::new() });
                classes.len() - 1
            });
            classes[class].loads.insert((assigned[at].len(), at));
            class_of.push(class);
        }
        let owners = assigned.iter().enumerate().flat_map(|(at, has)| has.iter().map(move |p| (*p, at))).collect();
        Self { classes, class_of, assigned, owners }
    }

    fn subscribers(&self, topic: &Uuid) -> usize {
        self.classes.iter().filter(|class| class.topics.contains(topic)).map(|class| class.loads.len()).sum()
    }

    fn least_loaded(&self, topic: &Uuid) -> Option<(usize, usize)> {
        let subscribed = self.classes.iter().filter(|class| class.topics.contains(topic));
        subscribed.filter_map(|class| class.loads.first()).min().copied()
    }

    fn give(&mut self, partition: TopicPartition, to: usize) {
        if let Some(from) = self.owners.insert(partition, to) {
            self.change(from, |has| has.remove(&partition));
        }
        self.change(to, |has| has.insert(partition));
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut BTreeSet<TopicPartition>) -> bool) {
        let loads = &mut self.classes[self.class_of[at]].loads;
        loads.remove(&(self.assigned[at].len(), at));
        change(&mut self.assigned[at]);
        loads.insert((self.assigned[at].len(), at));
    }

    /// Each move makes the loads' squares smaller, so it ends; a bound on the passes keeps it short.
    fn balance(&mut self) {
        const PASSES: usize = 8;
        let partitions: Vec<TopicPartition> = self.owners.keys().copied().collect();
        for _ in 0..PASSES {
            let mut moved = false;
            for partition in &partitions {
                let from = self.owners[partition];
                let Some((load, to)) = self.least_loaded(&partition.topic) else { continue };
                if self.assigned[from].len() > load + 1 {
                    self.give(*partition, to);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    }
}
