//! From a Cluster and what is there to what is to be built. Pure.

use kube::ResourceExt;
use taffrail_crds::size::Size;
use taffrail_crds::{Cluster, ClusterSpec, PartitionSlice};

use super::fetch::Fetched;
use super::resources::config_map::broker_yaml;
use super::{key_of, labels};
use crate::apply::hash;
use crate::context::Settings;
use crate::topic::ClusterKey;

/// Most topics that a message names.
const MAX_NAMED: usize = 5;

/// What keeps a Cluster from being as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In one word.
    pub reason: &'static str,
    /// In a sentence that says what to do.
    pub message: String,
}

/// A Cluster with everything decided that its objects show.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// Its name.
    pub key: ClusterKey,
    /// Its uid.
    pub uid: String,
    /// As the user wants it.
    pub spec: ClusterSpec,
    /// The brokers' version.
    pub version: String,
    /// The brokers' image.
    pub image: String,
    /// Brokers that there shall be now: what is wanted, or more while they hold what cannot move.
    pub replicas: i32,
    /// Why there are more than wanted.
    pub held: Option<Problem>,
    /// Size that new volumes get.
    pub claim_size: Size,
    /// The brokers' configuration file.
    pub config: String,
    /// Its hash.
    pub config_hash: String,
}

/// Decides.
pub fn validate(cluster: &Cluster, fetched: &Fetched, settings: &Settings) -> Result<Validated, Problem> {
    check_names(cluster)?;
    let key = key_of(cluster);
    let version = version(cluster, fetched);
    let image = cluster.spec.image.clone().unwrap_or_else(|| format!("{}:{version}", settings.broker_image));
    let (replicas, held) = replicas(cluster, fetched);
    let config = broker_yaml(&key, &cluster.spec);
    Ok(Validated {
        uid: cluster.uid().unwrap_or_default(),
        spec: cluster.spec.clone(),
        config_hash: format!("{:016x}", hash(&config)),
        claim_size: claim_size(cluster, fetched),
        key,
        version,
        image,
        replicas,
        held,
        config,
    })
}

/// The names of Services that expose listeners are made of the listeners' names, and two are taken.
fn check_names(cluster: &Cluster) -> Result<(), Problem> {
    let taken = |name: &str| name == "brokers" || name == "bootstrap";
    match cluster.spec.listeners.iter().find(|listener| listener.expose.is_some() && taken(&listener.name)) {
        None => Ok(()),
        Some(listener) => Err(Problem {
            reason: "ListenerName",
            message: format!(
                "the Service of the exposed listener {:?} would have the name of another one of this Cluster: choose \
                 another name for the listener",
                listener.name
            ),
        }),
    }
}

/// As the user says; otherwise as it is already, so that another operator does not bring other brokers.
fn version(cluster: &Cluster, fetched: &Fetched) -> String {
    let built = fetched.set.as_ref().and_then(|set| set.annotations().get(labels::VERSION).cloned());
    let told = cluster.status.as_ref().and_then(|status| status.version.clone());
    cluster.spec.version.clone().or(built).or(told).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

/// A broker that holds partitions cannot go, since nothing can move them away yet.
fn replicas(cluster: &Cluster, fetched: &Fetched) -> (i32, Option<Problem>) {
    let wanted = cluster.spec.replicas;
    let present = fetched.set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
    let needed = highest_broker(&fetched.slices).map_or(0, |broker| broker + 1).min(present);
    if needed <= wanted {
        return (wanted, None);
    }
    let holds = |slice: &&PartitionSlice| highest_broker(std::slice::from_ref(*slice)).is_some_and(|b| b >= wanted);
    let mut names: Vec<_> = fetched.slices.iter().filter(holds).map(|slice| slice.spec.topic_name.clone()).collect();
    names.sort();
    names.dedup();
    let more = if names.len() > MAX_NAMED { ", ..." } else { "" };
    names.truncate(MAX_NAMED);
    let message = format!(
        "brokers from number {wanted} on hold partitions of {}{more}, which cannot be moved: set spec.replicas to {needed}, or \
         delete these topics",
        names.join(", ")
    );
    (needed, Some(Problem { reason: "HoldsPartitions", message }))
}

fn highest_broker(slices: &[PartitionSlice]) -> Option<i32> {
    slices.iter().flat_map(|slice| &slice.spec.partitions).flat_map(|partition| &partition.replicas).copied().max()
}

/// The template of claims cannot change; it grows (with a new StatefulSet) only where volumes can.
fn claim_size(cluster: &Cluster, fetched: &Fetched) -> Size {
    let wanted = cluster.spec.storage.size;
    let template = || {
        let template = fetched.set.as_ref()?.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
        let storage = template.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?;
        storage.0.parse().ok()
    };
    let can_grow = fetched.class.as_ref().is_some_and(|class| class.allow_volume_expansion == Some(true));
    match template() {
        Some(present) if present != wanted && !can_grow => present,
        _ => wanted,
    }
}

#[cfg(test)]
mod tests;
