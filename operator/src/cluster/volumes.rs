//! Volumes that grow: the claims, where their storage class allows it, and the StatefulSet's template of new ones.
//!
//! That template cannot be changed: the StatefulSet is deleted without its pods, which go on and belong to the one that is
//! made in its place at once.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use taffrail_crds::size::Size;

use super::fetch::Fetched;
use super::validate::{Problem, Validated};
use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::crash;
use crate::error::{Cause, code};
use crate::step::Step;

/// What there is to do. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Claims that are to ask for more.
    pub grow: Vec<String>,
    /// The StatefulSet has to be made anew.
    pub recreate: bool,
    /// Why the volumes stay as they are.
    pub problem: Option<Problem>,
}

/// What there is to do.
pub fn plan(cluster: &Validated, fetched: &Fetched) -> Plan {
    let wanted = cluster.spec.storage.size;
    let template = fetched.set.as_ref().and_then(template_size);
    let small = |claim: &&PersistentVolumeClaim| asked(claim).is_some_and(|size| size < wanted);
    let small: Vec<_> = fetched.claims.iter().filter(small).map(ResourceExt::name_any).collect();
    if cluster.claim_size < wanted || !small.is_empty() && !can_grow(fetched) {
        let class = fetched.class.as_ref().map(ResourceExt::name_any).unwrap_or_default();
        let message = format!(
            "the volumes cannot grow to {wanted}: the storage class {class:?} has not allowVolumeExpansion: true; set it there, \
             or make a new Cluster and copy"
        );
        return Plan { problem: Some(Problem { reason: "VolumesCannotGrow", message }), ..Plan::default() };
    }
    let leaving = fetched.set.as_ref().is_some_and(|set| set.metadata.deletion_timestamp.is_some());
    let recreate = template.is_some_and(|size| size != cluster.claim_size) && !leaving;
    Plan { grow: small, recreate, problem: None }
}

fn can_grow(fetched: &Fetched) -> bool {
    fetched.class.as_ref().is_some_and(|class| class.allow_volume_expansion == Some(true))
}

/// Claims that ask for more than they have, in a sentence: the storage, or the kubelet, has not grown them yet.
pub fn waiting(fetched: &Fetched) -> Option<String> {
    let waits = |claim: &&PersistentVolumeClaim| asked(claim) > given(claim) && given(claim).is_some();
    let small: Vec<_> = fetched.claims.iter().filter(waits).collect();
    let first = small.first()?;
    let (asked, given) = (asked(first)?, given(first)?);
    let (count, name) = (small.len(), first.name_any());
    Some(format!(
        "{count} volumes have not grown yet, such as {name}, which asks for {asked} and has {given}: kubectl describe pvc {name}"
    ))
}

fn given(claim: &PersistentVolumeClaim) -> Option<Size> {
    claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.parse().ok()
}

fn asked(claim: &PersistentVolumeClaim) -> Option<Size> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}

fn template_size(set: &StatefulSet) -> Option<Size> {
    asked(set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?)
}

/// Does it: claims first, so that the StatefulSet is made anew only when the volumes do grow. Why not, if not.
pub async fn grow(cluster: &Validated, fetched: &Fetched, context: &Context) -> Result<Option<Problem>, Cause> {
    let plan = plan(cluster, fetched);
    let namespace = &cluster.key.namespace;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let size = cluster.spec.storage.size.to_string();
    for name in &plan.grow {
        let patch = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
        match claims.patch(name, &parameters, &Patch::Merge(&patch)).await {
            // The API server's own word on why not, such as a quota.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) => {
                let message = format!("the volume {name} cannot grow to {size}: {}", status.message);
                return Ok(Some(Problem { reason: "VolumesCannotGrow", message }));
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {
                tracing::info!(namespace, claim = name, size, "a volume is to grow");
                context.metrics.write(Step::Volumes);
                crash::done(Step::Volumes);
            }
        }
    }
    if let Some(set) = fetched.set.as_ref().filter(|_| plan.recreate) {
        let only_that = Preconditions { uid: set.uid(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(only_that), ..DeleteParams::orphan() };
        let sets: Api<StatefulSet> = Api::namespaced(context.client.clone(), namespace);
        match sets.delete(&set.name_any(), &parameters).await {
            Err(error) if matches!(code(&error), Some(404 | 409)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let name = set.name_any();
                tracing::info!(namespace, name, "the StatefulSet is made anew for larger volumes; its pods go on");
                context.metrics.write(Step::Volumes);
                crash::done(Step::Volumes);
            }
        }
    }
    Ok(plan.problem)
}
