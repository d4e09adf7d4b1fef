//! How the replicas of partitions do, by their slices, and which brokers the partitions can do without. Pure.

use taffrail_crds::condition::Condition;
use taffrail_crds::slice::Replica;
use taffrail_crds::{PartitionSlice, PartitionState};

/// Type of the condition that says whether partitions have fewer replicas in sync than they shall.
pub const UNDER_REPLICATED: &str = "UnderReplicated";

/// Reason: so few replicas are in sync that acks=all is refused.
pub const BELOW_MIN: &str = "BelowMinInSyncReplicas";

/// Type of the condition that says whether acknowledged records may be lost.
pub const POSSIBLE_LOSS: &str = "PossibleLoss";

/// Reason: nobody was left who had every acknowledged record for sure, so that the longest log leads.
pub const UNCLEAN: &str = "UncleanRecovery";

/// Reason: that was so, and the partitions go on.
pub const RECOVERED: &str = "Recovered";

/// Most partitions that a message names.
const MAX_NAMED: usize = 5;

/// How the replicas of some partitions do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Partitions that were looked at.
    partitions: usize,
    /// Those of them with fewer replicas in sync than they shall have.
    behind: Vec<Shortfall>,
    /// Those whose leader was elected without proof that it has every acknowledged record.
    recovering: Vec<String>,
    /// Those of which that was ever so.
    unclean: Vec<String>,
}

/// A partition that has too few replicas in sync.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shortfall {
    name: String,
    in_sync: usize,
    wanted: usize,
    below_min: bool,
}

/// Replicas that a partition has but for those that are being added: these are no shortfall while they catch up, and nothing is
/// built on them before they belong to it, for their move may be called off.
pub fn settled(partition: &PartitionState) -> impl Iterator<Item = i32> + Clone {
    partition.replicas.iter().copied().filter(|broker| !partition.adding.contains(broker))
}

/// Those of them that are in sync.
pub fn settled_in_sync(partition: &PartitionState) -> impl Iterator<Item = i32> + Clone {
    partition.isr.iter().map(|replica| replica.broker).filter(|broker| !partition.adding.contains(broker))
}

/// Whether a replica of the partition is on its way to another broker.
pub fn is_moving(partition: &PartitionState) -> bool {
    !partition.adding.is_empty() || !partition.removing.is_empty()
}

fn size(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

impl Health {
    /// Counts a partition, which shall have at least `wanted` replicas, under the name by which messages call it.
    pub fn add(&mut self, partition: &PartitionState, wanted: i32, name: impl Fn() -> String) {
        self.partitions += 1;
        if partition.recovering {
            self.recovering.push(name());
        }
        if partition.unclean_leader_epoch.is_some() {
            self.unclean.push(name());
        }
        let in_sync = settled_in_sync(partition).count();
        let wanted = settled(partition).count().max(size(wanted));
        if in_sync < wanted {
            // Writes count all that are in sync, whatever becomes of them.
            let below_min = partition.isr.len() < size(partition.min_in_sync_replicas);
            self.behind.push(Shortfall { name: name(), in_sync, wanted, below_min });
        }
    }

    /// Of all partitions of a Cluster, those of its internal topics too.
    pub fn of_cluster(slices: &[PartitionSlice]) -> Self {
        let mut health = Self::default();
        for (topic, partition) in live(slices) {
            health.add(partition, partition.replication_factor, || format!("{topic}/{}", partition.index));
        }
        health
    }

    /// Whether some are under-replicated, why in one word, and in a sentence.
    pub fn told(&self) -> (bool, &'static str, String) {
        let below: Vec<_> = self.behind.iter().filter(|partition| partition.below_min).collect();
        if !below.is_empty() {
            let message = format!(
                "{} of {} partitions refuse acks=all writes, since fewer replicas are in sync than minInSyncReplicas: {}",
                below.len(),
                self.partitions,
                named(&below)
            );
            return (true, BELOW_MIN, message);
        }
        if self.behind.is_empty() {
            return (false, "AsAsked", String::new());
        }
        let message = format!(
            "{} of {} partitions have fewer replicas in sync than they shall have: {}",
            self.behind.len(),
            self.partitions,
            named(&self.behind.iter().collect::<Vec<_>>())
        );
        (true, "ReplicasMissing", message)
    }
}

impl Health {
    /// Whether acknowledged records may be lost now, why in one word, and in a sentence. It is told of until the leader has
    /// looked into it, and stays on record (`before`) when that is over: a loss is never silent (L7).
    pub fn possible_loss(&self, before: &[Condition]) -> (bool, &'static str, String) {
        if !self.recovering.is_empty() {
            return (true, UNCLEAN, without_proof(&self.recovering));
        }
        let before = before.iter().find(|known| known.type_ == POSSIBLE_LOSS);
        match before.filter(|known| [UNCLEAN, RECOVERED].contains(&known.reason.as_str())) {
            Some(known) => (false, RECOVERED, known.message.clone()),
            None if self.unclean.is_empty() => (false, "NoneKnown", String::new()),
            // It was over before anybody here saw it.
            None => (false, RECOVERED, without_proof(&self.unclean)),
        }
    }
}

/// What it means that these partitions are or were led by the longest log that was left.
fn without_proof(partitions: &[String]) -> String {
    let count = partitions.len();
    let more = if count > MAX_NAMED { ", ..." } else { "" };
    let names = partitions.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    format!(
        "no replica of {count} partitions was left that had every acknowledged record for sure, so the longest log \
         leads and the last records may be missing: {names}{more}"
    )
}

fn named(partitions: &[&Shortfall]) -> String {
    let one = |partition: &&Shortfall| format!("{} ({} of {})", partition.name, partition.in_sync, partition.wanted);
    let more = if partitions.len() > MAX_NAMED { ", ..." } else { "" };
    partitions.iter().take(MAX_NAMED).map(one).collect::<Vec<_>>().join(", ") + more
}

/// Partitions of topics that are not deleted, with the names of these.
fn live(slices: &[PartitionSlice]) -> impl Iterator<Item = (&str, &PartitionState)> {
    let live = slices.iter().filter(|slice| slice.spec.tombstone.is_none());
    live.flat_map(|slice| slice.spec.partitions.iter().map(|partition| (slice.spec.topic_name.as_str(), partition)))
}

/// Whether a partition cannot do without any of its brokers now, as it has no leader or is at its min ISR or below; then no
/// broker may go by somebody's will. Where every replica is in sync there is no better time to come: a partition that needs
/// all of its replicas, one that has but one among them, waits for each broker that goes.
pub fn is_fragile(slices: &[PartitionSlice]) -> bool {
    live(slices).any(|(_, partition)| {
        let (in_sync, replicas) = (settled_in_sync(partition).count(), settled(partition).count());
        let least = in_sync <= size(partition.min_in_sync_replicas) && in_sync < replicas;
        replicas > 1 && (partition.leader.is_none() || least)
    })
}

/// Why a broker that serves should not be restarted now; None: its partitions can do without it.
pub fn held_by(broker: i32, slices: &[PartitionSlice]) -> Option<String> {
    let mut needed = live(slices).filter(|(_, partition)| needs(partition, broker));
    let (topic, partition) = needed.next()?;
    let (in_sync, replicas) = (settled_in_sync(partition).count(), settled(partition).count());
    let index = partition.index;
    let others = match needed.count() {
        0 => String::new(),
        count => format!(" (and {count} more like it)"),
    };
    Some(format!("partition {index} of {topic} has {in_sync} of {replicas} replicas in sync{others}"))
}

/// Whether a partition needs this broker since another replica is behind, or nobody leads it. A replica that is behind
/// itself is not needed, unless it is among the last from which a leader may come. A move holds up nobody: what has been copied
/// stays when the broker that copies, or the one that is copied from, is restarted.
fn needs(partition: &PartitionState, broker: i32) -> bool {
    let is_in = |list: &[Replica], broker: i32| list.iter().any(|r| r.broker == broker);
    if settled(partition).count() < 2 || !partition.replicas.contains(&broker) {
        return false;
    }
    if !is_in(&partition.isr, broker) && !is_in(&partition.elr, broker) {
        return partition.leader.is_none() && is_in(&partition.last_known_elr, broker);
    }
    let behind = |other: i32| other != broker && !is_in(&partition.isr, other);
    partition.leader.is_none() || settled(partition).any(behind)
}

#[cfg(test)]
mod tests;
