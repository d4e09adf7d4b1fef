//! Assignors: which member should own which partitions in the end. Pure and deterministic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{AssignorName, TopicPartition};

mod range;
mod uniform;

/// A member as assignors see it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its id.
    pub member: &'a Arc<str>,
    /// Of a static member: who replaces it takes its place in the order.
    pub instance: Option<&'a Arc<str>>,
    /// Topics it subscribes to; those that are not there do not matter.
    pub topics: Arc<BTreeSet<Uuid>>,
    /// What it should own until now.
    pub target: &'a BTreeSet<TopicPartition>,
}

/// What each candidate should own, in the order of candidates. Every partition of a topic that someone subscribes to is
/// given to exactly one of its subscribers. `topics`: number of partitions by topic.
pub fn assign(
    assignor: AssignorName,
    candidates: &[Candidate<'_>],
    topics: &BTreeMap<Uuid, i32>,
) -> Vec<BTreeSet<TopicPartition>> {
    match assignor {
        AssignorName::Uniform => uniform::assign(candidates, topics),
        AssignorName::Range => range::assign(candidates, topics),
    }
}

/// The assignor that most members ask for; members that do not care have no voice.
pub(super) fn elect(votes: impl Iterator<Item = Option<AssignorName>>) -> AssignorName {
    let (mut uniform, mut range) = (0, 0);
    for vote in votes.flatten() {
        match vote {
            AssignorName::Uniform => uniform += 1,
            AssignorName::Range => range += 1,
        }
    }
    if range > uniform { AssignorName::Range } else { AssignorName::Uniform }
}

#[cfg(test)]
mod tests;
