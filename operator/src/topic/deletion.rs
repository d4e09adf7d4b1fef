//! The end of a Topic whose data goes with it: the finalizer, and when it is taken away.
//!
//! The brokers' controller marks the topic's slices as deleted (a tombstone); then the data is in the trash and the object
//! may go. A finalizer that waits for somebody who is gone as well would hold a namespace for ever, so it does not.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use serde_json::json;
use taffrail_crds::{PartitionSlice, TOPIC_ID_LABEL, Topic};

use super::cluster_key;
use crate::apply::FIELD_MANAGER;
use crate::context::Context;
use crate::crash;
use crate::error::{AtStep as _, Cause, Error, code};
use crate::step::Step;

/// The finalizer of Topics whose data goes with them.
pub const FINALIZER: &str = "taffrail.dev/data";

/// How long a Topic in a namespace that is being deleted waits for the brokers.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long between two looks at a Topic that waits.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is known when a Topic is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its Cluster is there and is not being deleted.
    pub cluster: bool,
    /// The namespace of its Cluster or its own is being deleted.
    pub namespace_leaving: bool,
    /// How long ago it was deleted.
    pub waited: Duration,
    /// Its slices, and how many of them are marked as deleted.
    pub slices: (usize, usize),
}

/// What becomes of the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It is taken away: the data is in the trash, or there is none.
    Done,
    /// It is taken away though the data stays: nobody is left who could delete it.
    GivenUp,
    /// It stays for now.
    Wait,
}

/// Whether the finalizer can go. Pure.
pub fn release(facts: &Facts) -> Release {
    let (slices, marked) = facts.slices;
    if slices == marked {
        return Release::Done;
    }
    if !facts.cluster || facts.namespace_leaving && facts.waited >= PATIENCE {
        return Release::GivenUp;
    }
    Release::Wait
}

/// Whether a Topic has the finalizer.
pub fn has_finalizer(topic: &Topic) -> bool {
    topic.finalizers().iter().any(|name| name == FINALIZER)
}

/// Puts the finalizer there or takes it away, over the object that was looked at.
pub async fn write_finalizer(topic: &Topic, wanted: bool, context: &Context) -> Result<(), Cause> {
    let others = topic.finalizers().iter().filter(|name| *name != FINALIZER).cloned();
    let finalizers: Vec<String> = others.chain(wanted.then(|| FINALIZER.to_owned())).collect();
    let metadata = json!({ "resourceVersion": topic.resource_version(), "finalizers": finalizers });
    let api: Api<Topic> = Api::namespaced(context.client.clone(), &topic.namespace().unwrap_or_default());
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(&topic.name_any(), &parameters, &Patch::Merge(json!({ "metadata": metadata }))).await {
        Err(error) if code(&error) == Some(404) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            context.metrics.write(Step::Finalizer);
            Ok(())
        }
    }
}

/// Looks at a Topic that is being deleted.
pub(super) async fn reconcile(topic: &Topic, context: &Context) -> Result<Action, Error> {
    if !has_finalizer(topic) {
        return Ok(Action::await_change());
    }
    let facts = facts(topic, context).await.at(Step::Fetch)?;
    let release = release(&facts);
    let (namespace, name) = (topic.namespace().unwrap_or_default(), topic.name_any());
    match release {
        Release::Wait => return Ok(Action::requeue(LOOK_AGAIN)),
        Release::Done => tracing::info!(namespace, topic = name, "its data is in the trash: the object may go"),
        Release::GivenUp => {
            let note = "nobody is left who could delete the data: it stays on the brokers' volumes";
            tracing::warn!(namespace, topic = name, "{note}");
            context.events.warning(topic, "DataStays", note).await;
        }
    }
    write_finalizer(topic, false, context).await.at(Step::Finalizer)?;
    crash::done(Step::Finalizer);
    Ok(Action::await_change())
}

async fn facts(topic: &Topic, context: &Context) -> Result<Facts, Cause> {
    let own = topic.namespace().unwrap_or_default();
    let key = cluster_key(topic);
    let cluster = key.as_ref().and_then(|key| context.stores.cluster(key));
    let deleted = topic.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second()).unwrap_or_default();
    let now = context.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut leaving = is_leaving(&own, context).await?;
    let slices = match &key {
        Some(key) => {
            leaving = leaving || key.namespace != own && is_leaving(&key.namespace, context).await?;
            slices(topic, &key.namespace, context).await?
        }
        None => (0, 0),
    };
    Ok(Facts {
        cluster: cluster.is_some_and(|cluster| cluster.meta_is_there()),
        namespace_leaving: leaving,
        waited: now.saturating_sub(Duration::from_secs(u64::try_from(deleted).unwrap_or_default())),
        slices,
    })
}

trait IsThere {
    fn meta_is_there(&self) -> bool;
}

impl<K: ResourceExt> IsThere for K {
    fn meta_is_there(&self) -> bool {
        self.meta().deletion_timestamp.is_none()
    }
}

async fn is_leaving(namespace: &str, context: &Context) -> Result<bool, Cause> {
    let namespace = Api::<Namespace>::all(context.client.clone()).get_metadata_opt(namespace).await?;
    Ok(namespace.is_none_or(|namespace| !namespace.meta_is_there()))
}

/// How many slices the topic has and how many of them are marked, asked of the API server: a watch that lags would let go of
/// data that nobody deletes.
async fn slices(topic: &Topic, namespace: &str, context: &Context) -> Result<(usize, usize), Cause> {
    let Some(id) = topic.status.as_ref().and_then(|status| status.topic_id.as_ref()) else { return Ok((0, 0)) };
    let api: Api<DeserializeGuard<PartitionSlice>> = Api::namespaced(context.client.clone(), namespace);
    let list = api.list(&ListParams::default().labels(&format!("{TOPIC_ID_LABEL}={id}"))).await?;
    let marked =
        |slice: &&DeserializeGuard<PartitionSlice>| slice.0.as_ref().is_ok_and(|slice| slice.spec.tombstone.is_some());
    Ok((list.items.len(), list.items.iter().filter(marked).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_goes_when_the_data_is_in_the_trash_and_never_holds_a_namespace() {
        let facts = |cluster, leaving, seconds, slices| Facts {
            cluster,
            namespace_leaving: leaving,
            waited: Duration::from_secs(seconds),
            slices,
        };
        for (facts, expected) in [
            (facts(true, false, 0, (0, 0)), Release::Done),
            (facts(true, false, 0, (2, 2)), Release::Done),
            (facts(true, false, 9999, (2, 1)), Release::Wait),
            (facts(false, false, 0, (2, 1)), Release::GivenUp),
            (facts(false, false, 0, (2, 2)), Release::Done),
            (facts(true, true, 5, (2, 0)), Release::Wait),
            (facts(true, true, 20, (2, 0)), Release::GivenUp),
        ] {
            assert_eq!(release(&facts), expected, "{facts:?}");
        }
    }
}
