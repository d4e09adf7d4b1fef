//! Whether partitions survive right now what is declared: the loss of any one broker, or of all brokers of any one zone, such
//! that writes with acks=all go on and no acknowledged record is lost. Pure.
//!
//! What is acknowledged is in every in-sync replica. So it is kept, and writes go on, if as many in-sync replicas as min ISR are
//! elsewhere, whichever broker or zone is lost. A replica that is being added does not count before it belongs to the partition.
//! The disruption budget is a part of it: without it a drain of nodes takes brokers away together.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use taffrail_crds::topic::Survives;
use taffrail_crds::{BrokerSpec, PartitionState};

use crate::replicas::{settled, settled_in_sync};

/// Type of the condition that says whether what is declared holds right now.
pub const SURVIVES: &str = "SurvivesAsDeclared";

/// Most partitions that a message names.
const MAX_NAMED: usize = 5;

/// Where brokers are, and what keeps them from going together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brokers {
    /// Zones by number; brokers whose node has none are not here.
    pub zones: BTreeMap<i32, String>,
    /// Label of nodes that names their zone, for what to do.
    pub zone_label: String,
    /// The disruption budget lets one broker go at a time at the most.
    pub kept: bool,
}

impl Brokers {
    /// As they are registered, and as the disruption budget is.
    pub fn of(registered: &[BrokerSpec], zone_label: &str, budget: Option<&PodDisruptionBudget>) -> Self {
        let zones = registered.iter().filter_map(|broker| Some((broker.id, broker.zone.clone()?))).collect();
        Self { zones, zone_label: zone_label.to_owned(), kept: is_kept_by(budget) }
    }
}

/// Whether a disruption budget lets one broker go at a time at the most.
pub fn is_kept_by(budget: Option<&PodDisruptionBudget>) -> bool {
    let most = budget.and_then(|budget| budget.spec.as_ref()?.max_unavailable.as_ref());
    matches!(most, Some(IntOrString::Int(most)) if *most <= 1)
}

/// Why a partition does not survive. What a person has to change comes first; the order is that of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// It has too few replicas for it, whatever else is done.
    TooFewReplicas,
    /// A broker's zone is not known.
    ZoneUnknown,
    /// Too many replicas are in one zone.
    ZonesShared,
    /// Nobody leads it, or who does may lack records.
    NoLeader,
    /// Replicas are not in sync.
    NotInSync,
}

impl Why {
    const fn reason(self) -> &'static str {
        match self {
            Self::TooFewReplicas => "TooFewReplicas",
            Self::ZoneUnknown => "ZoneUnknown",
            Self::ZonesShared => "ZonesShared",
            Self::NoLeader => "PartitionsWithoutLeader",
            Self::NotInSync => "ReplicasNotInSync",
        }
    }

    fn advice(self, brokers: &Brokers) -> String {
        match self {
            Self::TooFewReplicas => "raise replicationFactor, or lower config.minInSyncReplicas".to_owned(),
            Self::ZoneUnknown => format!("give the nodes of these brokers the label {}", brokers.zone_label),
            Self::ZonesShared => {
                let zones: BTreeSet<_> = brokers.zones.values().collect();
                format!(
                    "there are brokers in {} zones: have them in more, and set spec.rebalance: Enabled",
                    zones.len()
                )
            }
            Self::NoLeader => "bring the brokers of their replicas back".to_owned(),
            Self::NotInSync => "they will once their replicas are in sync: see UnderReplicated".to_owned(),
        }
    }
}

/// What is declared of some partitions, and what is so.
#[derive(Clone, Debug)]
pub struct Survival<'a> {
    brokers: &'a Brokers,
    /// How many partitions are to survive each.
    declared: BTreeMap<Survives, usize>,
    failing: BTreeMap<(Why, Survives), Vec<String>>,
}

impl<'a> Survival<'a> {
    /// Of no partition yet.
    pub fn new(brokers: &'a Brokers) -> Self {
        Self { brokers, declared: BTreeMap::new(), failing: BTreeMap::new() }
    }

    /// Counts a partition of which this is declared, under the name by which messages call it.
    pub fn add(&mut self, declared: Survives, partition: &PartitionState, name: impl Fn() -> String) {
        *self.declared.entry(declared).or_default() += 1;
        if let Some((why, what)) = fault(declared, partition, self.brokers) {
            self.failing.entry((why, declared)).or_default().push(format!("{} ({what})", name()));
        }
    }

    /// Whether all do, why in one word, and in a sentence that says what to do; `None`: nothing was declared.
    pub fn told(&self) -> Option<(bool, &'static str, String)> {
        if self.declared.is_empty() {
            return None;
        }
        if let Some(((why, declared), partitions)) = self.failing.iter().next() {
            return Some((false, why.reason(), self.failure(*why, *declared, partitions)));
        }
        if !self.brokers.kept {
            let message = "the PodDisruptionBudget of the brokers is not there or lets more than one of them go at a time: the \
                           Cluster's condition Applied says why the operator could not write it";
            return Some((false, "DisruptionBudget", message.to_owned()));
        }
        let one = |(declared, count): (&Survives, &usize)| {
            format!("{count} partitions the loss of any one {}", word(*declared))
        };
        let all = self.declared.iter().map(one).collect::<Vec<_>>().join(", ");
        Some((true, "AsDeclared", format!("survived right now: by {all}")))
    }

    fn failure(&self, why: Why, declared: Survives, partitions: &[String]) -> String {
        let more = if partitions.len() > MAX_NAMED { ", ..." } else { "" };
        let others = self.failing.values().map(Vec::len).sum::<usize>() - partitions.len();
        let others = if others > 0 { format!("; {others} more for other reasons") } else { String::new() };
        format!(
            "{} of {} partitions would not survive the loss of a {}: {}{more}; {}{others}",
            partitions.len(),
            self.declared.get(&declared).copied().unwrap_or(0),
            word(declared),
            partitions.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", "),
            why.advice(self.brokers)
        )
    }
}

const fn word(declared: Survives) -> &'static str {
    match declared {
        Survives::Broker => "broker",
        Survives::Zone => "zone",
    }
}

/// Why a partition does not survive it right now.
fn fault(declared: Survives, partition: &PartitionState, brokers: &Brokers) -> Option<(Why, String)> {
    let least = usize::try_from(partition.min_in_sync_replicas).unwrap_or(0).max(1);
    let all: Vec<_> = settled(partition).collect();
    if all.len() <= least {
        return Some((Why::TooFewReplicas, format!("{} replicas, minInSyncReplicas {least}", all.len())));
    }
    if declared == Survives::Zone
        && let Some(fault) = zone_fault(&all, least, brokers)
    {
        return Some(fault);
    }
    if partition.leader.is_none() || partition.recovering {
        let what = if partition.recovering { "its leader may lack records" } else { "no leader" };
        return Some((Why::NoLeader, what.to_owned()));
    }
    let in_sync: Vec<_> = settled_in_sync(partition).collect();
    let left = match declared {
        Survives::Broker => in_sync.len().saturating_sub(1),
        Survives::Zone => left_by_worst_zone(&in_sync, brokers),
    };
    (left < least).then(|| (Why::NotInSync, format!("{} of {} replicas in sync", in_sync.len(), all.len())))
}

/// Why these replicas would not do even if all were in sync.
fn zone_fault(replicas: &[i32], least: usize, brokers: &Brokers) -> Option<(Why, String)> {
    let unknown: Vec<_> = replicas.iter().filter(|broker| !brokers.zones.contains_key(broker)).collect();
    if let Some(broker) = unknown.first() {
        return Some((Why::ZoneUnknown, format!("broker {broker} is in no zone")));
    }
    if left_by_worst_zone(replicas, brokers) >= least {
        return None;
    }
    let mut zones: Vec<_> = replicas.iter().filter_map(|broker| brokers.zones.get(broker).cloned()).collect();
    zones.sort();
    let last = zones.pop().unwrap_or_default();
    Some((Why::ZonesShared, format!("replicas in zones {} and {last}", zones.join(", "))))
}

/// How many of these replicas are left when the zone with most of them is lost.
fn left_by_worst_zone(replicas: &[i32], brokers: &Brokers) -> usize {
    let mut by_zone: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    for broker in replicas {
        *by_zone.entry(brokers.zones.get(broker)).or_default() += 1;
    }
    // Whoever is in no known zone may be in the one that is lost.
    let unknown = by_zone.remove(&None).unwrap_or(0);
    replicas.len() - unknown - by_zone.values().copied().max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
