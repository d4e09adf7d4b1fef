//! The objects that a Cluster is made of: one file for each kind, all pure.

pub mod access;
pub mod config_map;
mod disruption_budget;
mod network_policy;
mod service_monitor;
mod services;
mod stateful_set;

use super::fetch::Facts;
use super::validate::Validated;
use crate::apply::Child;
use crate::step::Step;

/// All of them, in the order in which they are applied.
pub fn build(cluster: &Validated, facts: &Facts) -> Vec<(Step, Vec<Child>)> {
    let monitor = facts.monitors.then(|| service_monitor::build(cluster));
    vec![
        (Step::Access, access::build(cluster, &facts.namespaces)),
        (Step::Config, vec![config_map::build(cluster)]),
        (Step::Services, services::build(cluster)),
        (Step::DisruptionBudget, vec![disruption_budget::build(cluster, facts.fragile)]),
        (Step::NetworkPolicy, vec![network_policy::build(cluster)]),
        (Step::StatefulSet, vec![stateful_set::build(cluster)]),
        (Step::ServiceMonitor, monitor.into_iter().collect()),
    ]
}

#[cfg(test)]
mod tests;
