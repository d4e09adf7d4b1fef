//! The controller of Topics: accepts or refuses them, gives them their identity, and tells how they do.
//!
//! What the brokers then do with an accepted Topic is in its slices, which the brokers' controller writes.

pub mod accept;
pub mod deletion;
pub mod status;

use std::sync::Arc;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Config, applier};
use taffrail_crds::topic::DeletionPolicy;
use taffrail_crds::{Topic, TopicStatus};
use uuid::Uuid;

use crate::context::Context;
use crate::crash;
use crate::error::{AtStep as _, Error, backoff};
use crate::metrics::Controller;
use crate::status::{IfChanged, write, write_malformed};
use crate::step::Step;
use crate::survives::Brokers;
use crate::watches::TopicObject;
use accept::{Surroundings, Verdict};

/// Topics that are looked at at one time.
const CONCURRENCY: u16 = 16;

/// Names a Cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Cluster that a Topic names, if it names one.
pub fn cluster_key(topic: &Topic) -> Option<ClusterKey> {
    let named = topic.spec.cluster_ref.as_ref()?;
    let namespace = named.namespace.clone().or_else(|| topic.namespace()).unwrap_or_default();
    Some(ClusterKey { namespace, name: named.name.clone() })
}

/// Looks at the Topics whose names come in, for ever.
pub async fn run(context: Arc<Context>, queue: UnboundedReceiver<ObjectRef<TopicObject>>) {
    let store = context.stores.topics.clone();
    let config = Config::default().concurrency(CONCURRENCY);
    let failures = Arc::new(crate::error::Failures::default());
    let retry = failures.clone();
    let reconcile = move |object: Arc<TopicObject>, context: Arc<Context>| {
        let failures = failures.clone();
        Box::pin(async move {
            let _measured = context.metrics.reconcile(Controller::Topic);
            let outcome = reconcile(&object, &context).await;
            if outcome.is_ok() {
                failures.forget(&*object);
            }
            outcome
        })
    };
    let failed = move |object: Arc<TopicObject>, error: &Error, context: Arc<Context>| {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        context.metrics.error(Controller::Topic, error);
        // What was decided on is out of date: the watch brings what is there now.
        if !error.cause.is_conflict() {
            tracing::warn!(namespace, topic = name, %error, "a step failed: it is tried again");
        }
        Action::requeue(backoff(retry.count(&*object)))
    };
    applier(reconcile, failed, context, store, queue.map(Ok::<_, std::convert::Infallible>), config)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(object: &TopicObject, context: &Context) -> Result<Action, Error> {
    let topic = match &object.0 {
        Ok(topic) => topic,
        Err(invalid) => {
            let (namespace, topic) = (object.namespace().unwrap_or_default(), object.name_any());
            let error = invalid.to_string();
            if write_malformed::<Topic>(&context.client, &namespace, &topic, &error).await.at(Step::TopicStatus)? {
                tracing::warn!(namespace, topic, error, "the object cannot be read: left as it is");
            }
            return Ok(Action::await_change());
        }
    };
    if topic.metadata.deletion_timestamp.is_some() {
        return deletion::reconcile(topic, context).await;
    }
    let verdict = accept::judge(topic, &surroundings(topic, context));
    if keep_finalizer(topic, &verdict, context).await? {
        // The write brings the Topic here again, with the finalizer.
        return Ok(Action::await_change());
    }
    tell(topic, &verdict, context).await?;
    Ok(Action::await_change())
}

/// What the Topic's fate depends on, as the watches have seen it last.
fn surroundings(topic: &Topic, context: &Context) -> Surroundings {
    let Some(key) = cluster_key(topic) else { return Surroundings::default() };
    let stores = &context.stores;
    let name = topic.topic_name();
    let same_name = |other: &Topic| cluster_key(other).as_ref() == Some(&key) && other.topic_name() == name;
    let rivals = stores.topics(|other| other.metadata.uid != topic.metadata.uid && same_name(other));
    let id = topic.status.as_ref().and_then(|status| status.topic_id.clone());
    let wanted = id.or_else(|| topic.annotations().get(taffrail_crds::ADOPT_ANNOTATION).cloned());
    let users = wanted.as_ref().map(|id| {
        stores.topics(|other| {
            let status = other.status.as_ref();
            other.metadata.uid != topic.metadata.uid && status.and_then(|s| s.topic_id.as_ref()) == Some(id)
        })
    });
    let slices = wanted.map(|id| stores.slices_of_topic(&key.namespace, &id, topic.spec.partitions));
    let cluster = stores.cluster(&key).and_then(|cluster| cluster.0.clone().ok());
    // Only what a topic survives depends on them.
    let declares = cluster.as_ref().filter(|cluster| cluster.spec.survives_of(&topic.spec).is_some());
    let brokers = declares.map(|cluster| {
        Brokers::of(&stores.brokers_of(&key), cluster.spec.zone_label(), stores.budget_of(&key).as_ref())
    });
    Surroundings {
        cluster,
        brokers: brokers.unwrap_or_default(),
        rivals: rivals.iter().filter_map(|rival| rival.0.clone().ok()).collect(),
        users: users.unwrap_or_default().iter().filter_map(|user| user.0.clone().ok()).collect(),
        names: stores.state(&key).map(|state| state.spec.topics).unwrap_or_default(),
        slices: slices.unwrap_or_default(),
    }
}

/// Puts the finalizer where data must be deleted with the Topic, and takes it away where not any more. True: it was written.
async fn keep_finalizer(topic: &Topic, verdict: &Verdict, context: &Context) -> Result<bool, Error> {
    let has_data = verdict.accepted.is_some() || topic.status.as_ref().is_some_and(|status| status.topic_id.is_some());
    let wanted = topic.spec.deletion_policy == DeletionPolicy::Delete && has_data;
    if wanted == deletion::has_finalizer(topic) {
        return Ok(false);
    }
    deletion::write_finalizer(topic, wanted, context).await.at(Step::Finalizer)?;
    crash::done(Step::Finalizer);
    Ok(true)
}

/// Writes the status if it differs, and Events about what is new in it.
async fn tell(topic: &Topic, verdict: &Verdict, context: &Context) -> Result<(), Error> {
    let old = topic.status.clone().unwrap_or_default();
    let new = status::status_of(topic, verdict, Uuid::new_v4, context.now());
    // An identity is given once: only over the object that was looked at.
    let if_changed = if old.topic_id == new.topic_id { IfChanged::Write } else { IfChanged::Refuse };
    if write::<Topic, TopicStatus>(&context.client, topic, topic.status.as_ref(), &new, if_changed)
        .await
        .at(Step::TopicStatus)?
    {
        context.metrics.write(Step::TopicStatus);
        crash::done(Step::TopicStatus);
        for event in status::events(&old, &new) {
            if event.warning {
                context.events.warning(topic, &event.reason, &event.note).await;
            } else {
                context.events.normal(topic, &event.reason, &event.note).await;
            }
        }
    }
    Ok(())
}
