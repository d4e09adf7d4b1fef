//! What is done to the brokers' pods: telling them their zone, and restarting one.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::fetch::Fetched;
use super::labels;
use super::rollout::{BrokerPod, Count, Pending, Started, Template, newest_revision, next_step};
use super::validate::Validated;
use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::crash;
use crate::error::{Cause, code};
use crate::step::Step;

/// Writes the zone of its node to each pod that does not have it yet: pods cannot read nodes.
pub async fn tell_zones(cluster: &Validated, pods: &[Arc<Pod>], context: &Context) -> Result<(), Cause> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &cluster.key.namespace);
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let zone = node.and_then(|node| context.stores.node_label(node, cluster.spec.zone_label()));
        let Some(zone) = zone.filter(|zone| pod.annotations().get(labels::ZONE) != Some(zone)) else { continue };
        let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": { labels::ZONE: zone } } });
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(&pod.name_any(), &parameters, &Patch::Merge(&patch)).await {
            // Gone meanwhile, or another pod of the same name.
            Err(error) if matches!(code(&error), Some(404 | 409)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                context.metrics.write(Step::Zones);
                crash::done(Step::Zones);
            }
        }
    }
    Ok(())
}

/// Restarts the broker whose turn it is, if it is anybody's: those that wait, and whether one was restarted.
pub async fn restart(cluster: &Validated, fetched: &Fetched, context: &Context) -> Result<(Vec<Pending>, bool), Cause> {
    let Some((set, revision)) = fetched.set.as_ref().and_then(|set| Some((set, newest_revision(set)?))) else {
        return Ok((vec![], false));
    };
    let pods: Vec<_> = fetched.pods.iter().filter_map(|pod| BrokerPod::of(pod)).collect();
    let new = Template { revision, started: &Started::by(set) };
    let count = Count { now: cluster.replicas, stay: cluster.spec.replicas };
    let plan = next_step(&pods, count, new, &fetched.slices);
    let Some(broker) = plan.restart else { return Ok((plan.pending, false)) };
    let name = format!("{}-{broker}", cluster.key.name);
    let uid = fetched.pods.iter().find(|pod| pod.name_any() == name).and_then(|pod| pod.uid());
    let only_that = Preconditions { uid, resource_version: None };
    let parameters = DeleteParams { preconditions: Some(only_that), ..DeleteParams::default() };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &cluster.key.namespace);
    match api.delete(&name, &parameters).await {
        Err(error) if matches!(code(&error), Some(404 | 409)) => {}
        Err(error) => return Err(error.into()),
        Ok(_) => {
            let reason = plan.pending.iter().find(|pending| pending.broker == broker).map(|p| p.reason.as_str());
            let (namespace, cluster) = (&cluster.key.namespace, &cluster.key.name);
            tracing::info!(namespace, cluster, broker, reason, "restarting a broker");
            context.metrics.restarts.inc();
            context.metrics.write(Step::Restart);
            crash::done(Step::Restart);
        }
    }
    Ok((plan.pending, true))
}
