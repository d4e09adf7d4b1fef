//! Reads what is there of a Cluster, with the rights of whoever asks. Writes nothing.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use taffrail_crds::{Broker, Cluster, ClusterState, PartitionSlice, Topic};

use super::Live;
use crate::cluster::fetch::{Asked, Fetched, storage_class};
use crate::cluster::{key_of, labels};
use crate::error::Cause;
use crate::topic::{ClusterKey, cluster_key};
use crate::watches::Guarded;

/// What is there of the Cluster that `wanted` names.
pub async fn load(client: &Client, wanted: &Cluster) -> Result<Live, Cause> {
    let key = key_of(wanted);
    let Some(cluster) = one::<Cluster>(client, &key).await? else { return Ok(Live::default()) };
    let selector = labels::selector_text(&key.name);
    let ours = format!("{}={}", labels::CLUSTER, key.name);
    let slices: Vec<Guarded<PartitionSlice>> = all(client, &key.namespace, Some(&ours)).await?;
    let count = slices.len();
    let slices: Vec<_> = slices.into_iter().filter_map(|slice| slice.0.ok()).collect();
    let brokers: Vec<Broker> = all(client, &key.namespace, Some(&ours)).await?;
    let pods: Vec<Pod> = all(client, &key.namespace, Some(&selector)).await?;
    let claims: Vec<PersistentVolumeClaim> = all(client, &key.namespace, Some(&selector)).await?;
    // Classes belong to nobody's namespace: who may not read them can plan all but larger volumes.
    let grows = cluster.spec.storage.size != wanted.spec.storage.size;
    let class = if grows { storage_class(wanted, client).await? } else { None };
    let namespaces = cluster.status.as_ref().map(|status| status.topic_namespaces.clone()).unwrap_or_default();
    let mut topics = Vec::new();
    for namespace in &namespaces {
        let found: Vec<Guarded<Topic>> = all(client, namespace, None).await?;
        topics.extend(
            found.into_iter().filter_map(|topic| topic.0.ok()).filter(|t| cluster_key(t).as_ref() == Some(&key)),
        );
    }
    let fetched = Fetched {
        set: one::<StatefulSet>(client, &key).await?,
        pods: pods.into_iter().map(Arc::new).collect(),
        claims,
        class,
        unreadable: count - slices.len(),
        slices,
        brokers: brokers.into_iter().map(|broker| broker.spec).collect(),
        topics: topics.iter().filter_map(Asked::of).collect(),
        budget: one::<PodDisruptionBudget>(client, &key).await?,
        state: one::<ClusterState>(client, &key).await?,
        namespaces: namespaces.into_iter().filter(|namespace| *namespace != key.namespace).collect(),
        ..Fetched::default()
    };
    Ok(Live { cluster: Some(cluster), fetched })
}

/// The object of the Cluster's name.
async fn one<K>(client: &Client, key: &ClusterKey) -> Result<Option<K>, Cause>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    Ok(api.get_opt(&key.name).await?)
}

async fn all<K>(client: &Client, namespace: &str, selector: Option<&str>) -> Result<Vec<K>, Cause>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let parameters = selector.map_or_else(ListParams::default, |selector| ListParams::default().labels(selector));
    let mut items = api.list(&parameters).await?.items;
    items.sort_by_key(ResourceExt::name_any);
    Ok(items)
}
