//! One member's step towards what it should own.
//!
//! Unlike in KIP-848 a member may get partitions while it lets go of others: what is free is nobody's, so there is nothing
//! to wait for.

use std::collections::BTreeSet;

use super::TopicPartition;
use super::member::Current;

/// What is known when the step is made.
pub(super) struct Step<'a> {
    /// Where the member stands.
    pub(super) current: &'a Current,
    /// What it should own in the end.
    pub(super) target: &'a BTreeSet<TopicPartition>,
    /// The group's epoch: a member's does not stay behind when it changes.
    pub(super) group_epoch: i32,
    /// All that it owns, said by the member itself at its present epoch.
    pub(super) owned: Option<&'a BTreeSet<TopicPartition>>,
}

/// Where the member stands after the step; `None`: where it stood. `free` says what nobody holds.
pub(super) fn next(step: &Step<'_>, free: impl Fn(&TopicPartition) -> bool) -> Option<Current> {
    let Step { current, target, group_epoch, owned } = *step;
    let mut next = current.clone();
    if let Some(owned) = owned {
        next.revoking.retain(|partition, _| owned.contains(partition));
    }
    let lost: Vec<_> = current.assigned.iter().filter(|(partition, _)| !target.contains(partition)).collect();
    let gained: Vec<_> = target
        .iter()
        .filter(|partition| !current.assigned.contains_key(partition) && !next.revoking.contains_key(partition))
        .filter(|partition| current.revoking.contains_key(partition) || free(partition))
        .copied()
        .collect();
    if lost.is_empty() && gained.is_empty() {
        return (next.revoking.len() != current.revoking.len()).then_some(next);
    }
    for (partition, epoch) in lost {
        next.assigned.remove(partition);
        next.revoking.insert(*partition, *epoch);
    }
    next.epoch = current.epoch.saturating_add(1).max(group_epoch);
    next.assigned.extend(gained.into_iter().map(|partition| (partition, next.epoch)));
    Some(next)
}

#[cfg(test)]
mod tests;
