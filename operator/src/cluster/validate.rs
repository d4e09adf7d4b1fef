//! From a Cluster and what is there to what is to be built. Pure.

use kube::ResourceExt;
use taffrail_crds::size::Size;
use taffrail_crds::{Cluster, ClusterSpec};

use super::drain::{Drain, drain};
use super::fetch::Fetched;
use super::resources::config_map::broker_yaml;
use super::{key_of, labels};
use crate::apply::hash;
use crate::context::Settings;
use crate::topic::ClusterKey;

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
    /// Brokers that there shall be now: what is wanted, or more while they hold replicas.
    pub replicas: i32,
    /// How far those are that are to go.
    pub drain: Drain,
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
    let drain = drain(cluster, fetched);
    let config = broker_yaml(&key, &cluster.spec);
    Ok(Validated {
        uid: cluster.uid().unwrap_or_default(),
        spec: cluster.spec.clone(),
        config_hash: format!("{:016x}", hash(&config)),
        claim_size: claim_size(cluster, fetched),
        key,
        version,
        image,
        replicas: drain.size,
        drain,
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
