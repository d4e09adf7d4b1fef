//! Taking away what no Cluster wants any more: objects of a Cluster that it no longer asks for, and what gone Clusters have
//! left in other namespaces, where owner references do not reach.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Preconditions};

use super::fetch::Facts;
use super::labels;
use super::resources;
use super::validate::Validated;
use crate::apply::{ChildKind, FIELD_MANAGER, Owner, owner_of};
use crate::context::Context;
use crate::crash;
use crate::error::{Cause, code};
use crate::step::Step;
use crate::topic::ClusterKey;

/// Kinds of which a Cluster has more or fewer objects as it asks for more or less.
const VARIABLE: [ChildKind; 1] = [ChildKind::Service];

/// Deletes the objects of a Cluster that it no longer asks for.
pub async fn orphans(cluster: &Validated, facts: &Facts, context: &Context) -> Result<(), Cause> {
    let key = &cluster.key;
    let wanted: BTreeSet<_> = resources::build(cluster, facts)
        .into_iter()
        .flat_map(|(_, children)| children)
        .map(|child| (child.kind, child.namespace, child.name))
        .collect();
    let ours = ListParams::default().labels(&format!(
        "{}={},{}={FIELD_MANAGER}",
        labels::CLUSTER,
        key.name,
        labels::MANAGED_BY
    ));
    for kind in VARIABLE {
        let api = kind.api(&context.client, &key.namespace);
        for present in api.list(&ours).await?.items {
            let name = (kind, key.namespace.clone(), present.name_any());
            if !wanted.contains(&name) && owner_of(&present, &key.name, &cluster.uid) == Owner::Ours {
                delete(&api, &present.name_any(), present.uid(), context).await?;
            }
        }
    }
    foreign(key, context, &|namespace| facts.namespaces.contains(namespace)).await
}

/// Deletes what a Cluster has in other namespaces, but for those that are `kept`.
async fn foreign(key: &ClusterKey, context: &Context, kept: &(dyn Fn(&str) -> bool + Sync)) -> Result<(), Cause> {
    let selector = format!("{}={},{}={}", labels::CLUSTER, key.name, labels::CLUSTER_NAMESPACE, key.namespace);
    // The binding first: a role without one allows nothing.
    for resource in [ApiResource::erase::<RoleBinding>(&()), ApiResource::erase::<Role>(&())] {
        let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
        for present in api.list_metadata(&ListParams::default().labels(&selector)).await?.items {
            let namespace = present.namespace().unwrap_or_default();
            if !kept(&namespace) {
                let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
                delete(&api, &present.name_any(), present.uid(), context).await?;
            }
        }
    }
    Ok(())
}

async fn delete(api: &Api<DynamicObject>, name: &str, uid: Option<String>, context: &Context) -> Result<(), Cause> {
    let only_that = Preconditions { uid, resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_that), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            tracing::info!(object = api.resource_url(), name, "no longer wanted: deleted");
            context.metrics.write(Step::Orphans);
            crash::done(Step::Orphans);
            Ok(())
        }
    }
}

/// Cleans up behind Clusters that are gone, also behind those that went while no operator acted.
pub async fn run(context: Arc<Context>, mut gone: UnboundedReceiver<ClusterKey>) {
    let mut forgotten = forgotten(&context).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "what gone Clusters have left in other namespaces was not found");
        vec![]
    });
    loop {
        let key = match forgotten.pop() {
            Some(key) => key,
            None => match gone.next().await {
                Some(key) => key,
                None => return,
            },
        };
        if context.stores.cluster(&key).is_none()
            && let Err(error) = foreign(&key, &context, &|_| false).await
        {
            tracing::warn!(cluster = %key, %error, "what it has left in other namespaces is not deleted yet");
        }
    }
}

/// Clusters that are not there and have left something in other namespaces.
async fn forgotten(context: &Context) -> Result<Vec<ClusterKey>, Cause> {
    let api: Api<RoleBinding> = Api::all(context.client.clone());
    let list = api.list_metadata(&ListParams::default().labels(labels::CLUSTER_NAMESPACE)).await?;
    let key = |binding: &PartialObjectMeta<RoleBinding>| {
        let (name, namespace) =
            (binding.labels().get(labels::CLUSTER)?, binding.labels().get(labels::CLUSTER_NAMESPACE)?);
        Some(ClusterKey { namespace: namespace.clone(), name: name.clone() })
    };
    let keys: BTreeSet<_> = list.items.iter().filter_map(key).collect();
    Ok(keys.into_iter().filter(|key| context.stores.cluster(key).is_none()).collect())
}
