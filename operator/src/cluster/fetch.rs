//! What a Cluster's fate depends on: read only.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use taffrail_crds::condition::ConditionStatus;
use taffrail_crds::{Cluster, ClusterState, PartitionSlice};

use super::{key_of, labels};
use crate::context::Context;
use crate::error::{Cause, code};
use crate::replicas::is_fragile;
use crate::topic::accept::ACCEPTED;

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
    /// What the Cluster remembers.
    pub state: Option<ClusterState>,
    /// Other namespaces in which accepted Topics are.
    pub namespaces: BTreeSet<String>,
    /// Services that expose listeners.
    pub exposed: Vec<Service>,
    /// Whether the API server knows the kind ServiceMonitor, and one is wanted.
    pub monitors: bool,
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
    Ok(Fetched {
        set: sets.get_opt(&key.name).await?,
        pods: stores.pods_of(&key),
        claims: claims.list(&ours).await?.items,
        class: storage_class(cluster, context).await?,
        slices: stores.slices_of(&key),
        state: stores.state(&key),
        namespaces: topic_namespaces(cluster, context),
        exposed,
        monitors: context.settings.service_monitors && has_monitors(context).await?,
    })
}

/// The class that the Cluster names, or the default one.
async fn storage_class(cluster: &Cluster, context: &Context) -> Result<Option<StorageClass>, Cause> {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let classes: Api<StorageClass> = Api::all(context.client.clone());
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
