//! Fewer brokers: those with the highest numbers go, once no slice names them. Pure.
//!
//! The brokers' controller moves their replicas away; it sees by `spec.replicas` who is to go. Here is decided how many pods stay
//! meanwhile, and told how far it is. Nothing is remembered: a higher number again ends it, whatever was moved so far.
//!
//! A controller that has not seen the lower number yet may still place a replica on a broker that is to go. So nothing shrinks
//! before the drain has been on record for [`PATIENCE`], and then by what the API server has, not by what a watch has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use taffrail_crds::condition::{Condition, ConditionStatus};
use taffrail_crds::{Cluster, ClusterSpec, PartitionSlice};

use super::fetch::Fetched;
use super::validate::Problem;
use crate::replicas::is_moving;

/// Type of the condition that says whether brokers are about to go, and how far that is.
pub const DRAINING: &str = "Draining";

/// Reason: replicas move off the brokers that are to go.
pub const MOVING: &str = "MovingReplicas";

/// How long the lower number has been there before a broker goes.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Most topics and partitions that a message names.
const MAX_NAMED: usize = 5;

/// How many brokers there shall be now, and what stands in the way of fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Brokers that there shall be now.
    pub size: i32,
    /// Those of them that are to go, by number.
    pub leaving: Vec<Leaving>,
    /// What the drain waits for besides copies, in sentences.
    pub waits: Vec<String>,
    /// Why it cannot end by itself.
    pub problem: Option<Problem>,
}

/// A broker that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its number.
    pub broker: i32,
    /// Replicas that it still has.
    pub left: usize,
    /// Those of them that are on their way.
    pub moving: usize,
}

impl Drain {
    /// How far it is, in a sentence.
    pub fn progress(&self) -> String {
        let one = |leaving: &Leaving| match *leaving {
            Leaving { broker, left: 0, .. } => format!("broker {broker}: drained"),
            Leaving { broker, left, moving } => {
                format!("broker {broker}: {left} replicas left, {moving} of them moving")
            }
        };
        let brokers = self.leaving.iter().map(one).collect::<Vec<_>>().join("; ");
        self.waits.iter().fold(brokers, |all, wait| all + "; " + wait)
    }

    /// The condition: whether brokers are about to go.
    pub fn told(&self) -> (bool, &'static str, String) {
        match &self.problem {
            _ if self.leaving.is_empty() => (false, "NobodyLeaves", String::new()),
            Some(problem) => (true, problem.reason, format!("{}; {}", problem.message, self.progress())),
            None => (true, MOVING, self.progress()),
        }
    }
}

/// Decides for a Cluster: how many of the brokers that are there stay.
pub fn drain(cluster: &Cluster, fetched: &Fetched) -> Drain {
    let wanted = cluster.spec.replicas;
    let present = fetched.set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
    if present <= wanted {
        return Drain { size: wanted, ..Drain::default() };
    }
    let size =
        if fetched.settled && fetched.unreadable == 0 { needed(wanted, present, &fetched.slices) } else { present };
    let leaving: Vec<_> = (wanted..size).map(|broker| leaving(broker, &fetched.slices)).collect();
    let holding: Vec<_> = fetched.slices.iter().filter(|slice| names_any(slice, wanted..size)).collect();
    Drain {
        size,
        leaving,
        waits: waits(cluster, fetched, &holding),
        problem: problem(&cluster.spec, fetched, &holding),
    }
}

/// Brokers that have to be there: all up to the highest that a slice names. One that is not there is not brought back by that.
pub fn needed(wanted: i32, present: i32, slices: &[PartitionSlice]) -> i32 {
    let named = slices.iter().flat_map(|slice| &slice.spec.partitions).flat_map(|partition| &partition.replicas);
    named.copied().filter(|broker| *broker < present).max().map_or(wanted, |broker| wanted.max(broker + 1))
}

fn names_any(slice: &PartitionSlice, brokers: std::ops::Range<i32>) -> bool {
    slice.spec.partitions.iter().any(|partition| partition.replicas.iter().any(|broker| brokers.contains(broker)))
}

fn leaving(broker: i32, slices: &[PartitionSlice]) -> Leaving {
    let partitions = slices.iter().flat_map(|slice| &slice.spec.partitions);
    let of_broker: Vec<_> = partitions.filter(|partition| partition.replicas.contains(&broker)).collect();
    Leaving { broker, left: of_broker.len(), moving: of_broker.iter().filter(|partition| is_moving(partition)).count() }
}

/// Why it cannot end, if it cannot: said at once, and not when all that can move has moved.
fn problem(spec: &ClusterSpec, fetched: &Fetched, holding: &[&PartitionSlice]) -> Option<Problem> {
    if fetched.unreadable > 0 {
        let message = format!(
            "{} PartitionSlices cannot be read, so that nobody knows what the brokers hold that are to go: \
             kubectl get partitionslices shows them; an operator of the brokers' version reads them",
            fetched.unreadable
        );
        return Some(Problem { reason: "SlicesUnreadable", message });
    }
    let live = || holding.iter().filter(|slice| slice.spec.tombstone.is_none());
    let asked = |slice: &PartitionSlice| replicas_of(slice, spec, fetched);
    let too_many: BTreeMap<_, _> = live()
        .filter_map(|slice| {
            Some((slice.spec.topic_name.as_str(), asked(slice).filter(|count| *count > spec.replicas)?))
        })
        .collect();
    if let Some(most) = too_many.values().max() {
        let message = format!(
            "{} {} brokers, and {} stay: lower replicationFactor of these topics, or set spec.replicas to {most}",
            named(too_many.iter().map(|(topic, count)| format!("{topic} ({count} replicas)"))),
            if too_many.len() == 1 { "needs more" } else { "need more" },
            spec.replicas
        );
        return Some(Problem { reason: "TooFewBrokersStay", message });
    }
    let kept = live().filter(|slice| asked(slice).is_none() && is_needed(slice, spec.replicas));
    let kept: BTreeSet<_> = kept.map(|slice| slice.spec.topic_name.clone()).collect();
    if kept.is_empty() {
        return None;
    }
    let message = format!(
        "the Topics of {} are deleted and their data is kept, which nobody serves and so nobody can copy: make each Topic again \
         with the annotation taffrail.dev/adopt, or raise spec.replicas",
        named(kept.into_iter())
    );
    Some(Problem { reason: "HoldsDeletedTopics", message })
}

/// Whether brokers from this number on have replicas that nobody else has: of what nobody serves the controller lets go as long as
/// min ISR others have it.
fn is_needed(slice: &PartitionSlice, wanted: i32) -> bool {
    slice.spec.partitions.iter().any(|partition| {
        let others = partition.isr.iter().filter(|replica| replica.broker < wanted).count();
        let held = partition.replicas.iter().any(|broker| *broker >= wanted);
        held && i32::try_from(others).is_ok_and(|others| others < partition.min_in_sync_replicas)
    })
}

/// Replicas that a slice's topic asks for; `None`: nobody serves it, for its Topic is gone.
fn replicas_of(slice: &PartitionSlice, spec: &ClusterSpec, fetched: &Fetched) -> Option<i32> {
    let id = slice.spec.topic_id.to_string();
    if let Some(topic) = fetched.topics.get(&id) {
        return Some(topic.replication_factor.unwrap_or_else(|| spec.replication_factor()));
    }
    let internal = fetched.state.iter().flat_map(|state| &state.spec.internal_topics);
    // As many as there are brokers for, three at the most.
    internal.into_iter().any(|topic| topic.topic_id == slice.spec.topic_id).then(|| spec.replicas.clamp(1, 3))
}

/// What it waits for that passes, or that other conditions tell what to do about.
fn waits(cluster: &Cluster, fetched: &Fetched, holding: &[&PartitionSlice]) -> Vec<String> {
    let mut waits = Vec::new();
    let wanted = cluster.spec.replicas;
    let leaderless = holding.iter().filter(|slice| slice.spec.tombstone.is_none()).flat_map(|slice| {
        let topic = &slice.spec.topic_name;
        let stuck =
            slice.spec.partitions.iter().filter(move |p| p.leader.is_none() && p.replicas.iter().any(|b| *b >= wanted));
        stuck.map(move |partition| format!("{topic}/{}", partition.index))
    });
    let leaderless: Vec<_> = leaderless.collect();
    if !leaderless.is_empty() {
        waits.push(format!("partitions without a leader cannot move: {}", named(leaderless.into_iter())));
    }
    let serves = |broker: i32| fetched.brokers.iter().any(|known| known.id == broker && !known.fenced);
    let away: Vec<_> = (0..wanted).filter(|broker| !serves(*broker)).collect();
    if !away.is_empty() && !holding.is_empty() {
        waits.push(format!("brokers that are to stay do not serve: {}", named(away.into_iter())));
    }
    let deleted = holding.iter().filter_map(|slice| Some((slice.spec.tombstone.as_ref()?, &slice.spec.topic_name)));
    let deleted: BTreeSet<_> = deleted.map(|(mark, topic)| format!("{topic} until {}", mark.purge_at)).collect();
    if !deleted.is_empty() {
        waits.push(format!("deleted topics are in the trash: {}", named(deleted.into_iter())));
    }
    waits
}

fn named<T: ToString>(all: impl Iterator<Item = T>) -> String {
    let mut names: Vec<_> = all.take(MAX_NAMED + 1).map(|one| one.to_string()).collect();
    if names.len() > MAX_NAMED {
        "...".clone_into(&mut names[MAX_NAMED]);
    }
    names.join(", ")
}

/// Whether the lower number has been on record for so long that every controller acts by it.
pub fn has_settled(cluster: &Cluster, now: SystemTime) -> bool {
    let Some(status) = &cluster.status else { return false };
    let known = |condition: &&Condition| condition.type_ == DRAINING && condition.status == ConditionStatus::True;
    let Some(condition) = status.conditions.iter().find(known) else { return false };
    let told = |broker: i32| status.draining_brokers.contains(&broker);
    let since = humantime::parse_rfc3339(&condition.last_transition_time).ok();
    let age = since.and_then(|since| now.duration_since(since).ok());
    condition.observed_generation == cluster.metadata.generation
        && told(cluster.spec.replicas)
        && age.is_some_and(|age| age >= PATIENCE)
}

#[cfg(test)]
mod tests;
