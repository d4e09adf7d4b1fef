//! What a Cluster's fate depends on: read only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use taffrail_crds::condition::ConditionStatus;
use taffrail_crds::topic::Survives;
use taffrail_crds::{BrokerSpec, Cluster, ClusterState, PartitionSlice, Topic};

use super::{drain, key_of, labels};
use crate::context::Context;
use crate::error::{Cause, code};
use crate::replicas::is_fragile;
use crate::topic::ClusterKey;
use crate::topic::accept::ACCEPTED;
use crate::watches::Guarded;

/// What a Cluster's fate depends on.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The StatefulSet, if it is there.
    pub set: Option<StatefulSet>,
    /// The brokers' pods.
    pub pods: Vec<Arc<Pod>>,
    /// The brokers' claims.
    pub claims: Vec<PersistentVolumeClaim>,
    /// The storage class of the claims, if it is there.
    pub class: Option<StorageClass>,
    /// All slices of the Cluster.
    pub slices: Vec<PartitionSlice>,
    /// How many more there are that cannot be read.
    pub unreadable: usize,
    /// A lower number of brokers is known to everybody who places replicas, and the slices are what the API server has.
    pub settled: bool,
    /// Registrations of its brokers.
    pub brokers: Vec<BrokerSpec>,
    /// What its Topics ask for, by topicId.
    pub topics: BTreeMap<String, Asked>,
    /// How many brokers may be away by somebody's will, as it is there.
    pub budget: Option<PodDisruptionBudget>,
    /// What the Cluster remembers.
    pub state: Option<ClusterState>,
    /// Other namespaces in which accepted Topics are.
    pub namespaces: BTreeSet<String>,
    /// Services that expose listeners.
    pub exposed: Vec<Service>,
    /// Whether the API server knows the kind ServiceMonitor, and one is wanted.
    pub monitors: bool,
}

/// What a Topic asks for, as far as its Cluster's fate depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Replicas of each partition; `None`: as the Cluster says.
    pub replication_factor: Option<i32>,
    /// Replicas that must have a record; `None`: as the Cluster says.
    pub min_in_sync_replicas: Option<i32>,
    /// What it must survive; `None`: as the Cluster says.
    pub survives: Option<Survives>,
}

impl Asked {
    /// Of a Topic, with its topicId, once it has one.
    pub fn of(topic: &Topic) -> Option<(String, Self)> {
        let spec = &topic.spec;
        let asked = Self {
            replication_factor: spec.replication_factor,
            min_in_sync_replicas: spec.config.min_in_sync_replicas,
            survives: spec.survives,
        };
        Some((topic.status.as_ref()?.topic_id.clone()?, asked))
    }
}

/// What decides which objects there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Other namespaces in which accepted Topics are.
    pub namespaces: BTreeSet<String>,
    /// Whether a partition cannot do without any of its brokers now.
    pub fragile: bool,
    /// Whether there is to be a ServiceMonitor.
    pub monitors: bool,
}

impl Fetched {
    /// What decides which objects there are.
    pub fn facts(&self) -> Facts {
        Facts { namespaces: self.namespaces.clone(), fragile: is_fragile(&self.slices), monitors: self.monitors }
    }
}

/// Reads it.
pub async fn fetch(cluster: &Cluster, context: &Context) -> Result<Fetched, Cause> {
    let key = key_of(cluster);
    let (client, stores) = (&context.client, &context.stores);
    let ours = ListParams::default().labels(&labels::selector_text(&key.name));
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &key.namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), &key.namespace);
    let exposed = if cluster.spec.listeners.iter().any(|listener| listener.expose.is_some()) {
        services.list(&ours).await?.items
    } else {
        vec![]
    };
    let set = sets.get_opt(&key.name).await?;
    let mut slices = (stores.slices_of(&key), stores.unreadable_slices_of(&key));
    let settled = drain::has_settled(cluster, context.now());
    let present = set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
    if settled && drain::needed(cluster.spec.replicas, present, &slices.0) < present {
        // The watch says that a broker can go: it does by what is so, not by what was seen.
        slices = slices_now(&key, context).await?;
    }
    let (slices, unreadable) = slices;
    Ok(Fetched {
        set,
        pods: stores.pods_of(&key),
        claims: claims.list(&ours).await?.items,
        class: storage_class(cluster, client).await?,
        slices,
        unreadable,
        settled,
        brokers: stores.brokers_of(&key),
        topics: topics_of(&key, context),
        budget: stores.budget_of(&key),
        state: stores.state(&key),
        namespaces: topic_namespaces(cluster, context),
        exposed,
        monitors: context.settings.service_monitors && has_monitors(context).await?,
    })
}

/// The slices that the API server has now, and how many of them cannot be read.
async fn slices_now(key: &ClusterKey, context: &Context) -> Result<(Vec<PartitionSlice>, usize), Cause> {
    let api: Api<Guarded<PartitionSlice>> = Api::namespaced(context.client.clone(), &key.namespace);
    let ours = ListParams::default().labels(&format!("{}={}", labels::CLUSTER, key.name));
    let all = api.list(&ours).await?.items;
    let count = all.len();
    let slices: Vec<_> = all.into_iter().filter_map(|slice| slice.0.ok()).collect();
    let unreadable = count - slices.len();
    Ok((slices, unreadable))
}

fn topics_of(key: &ClusterKey, context: &Context) -> BTreeMap<String, Asked> {
    let topics = context.stores.topics_of(key);
    topics.iter().filter_map(|topic| topic.0.as_ref().ok()).filter_map(Asked::of).collect()
}

/// The class that the Cluster names, or the default one.
pub async fn storage_class(cluster: &Cluster, client: &Client) -> Result<Option<StorageClass>, Cause> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let classes: Api<StorageClass> = Api::all(client.clone());
    if let Some(name) = &cluster.spec.storage.storage_class_name {
        return Ok(classes.get_opt(name).await?);
    }
    let is_default = |class: &StorageClass| class.annotations().get(DEFAULT).is_some_and(|value| value == "true");
    Ok(classes.list(&ListParams::default()).await?.items.into_iter().find(is_default))
}

/// Other namespaces, that the Cluster allows, in which accepted Topics of it are.
fn topic_namespaces(cluster: &Cluster, context: &Context) -> BTreeSet<String> {
    let key = key_of(cluster);
    let topics = context.stores.topics_of(&key);
    let namespaces = topics.iter().filter_map(|topic| topic.0.as_ref().ok()).filter_map(|topic| {
        let conditions = &topic.status.as_ref()?.conditions;
        let accepted = conditions.iter().any(|c| c.type_ == ACCEPTED && c.status == ConditionStatus::True);
        topic.namespace().filter(|_| accepted)
    });
    namespaces.filter(|other| *other != key.namespace && cluster.spec.allows_namespace(other, &key.namespace)).collect()
}

async fn has_monitors(context: &Context) -> Result<bool, Cause> {
    match context.client.list_api_group_resources("monitoring.coreos.com/v1").await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.kind == "ServiceMonitor")),
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
