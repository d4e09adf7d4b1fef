//! The controller of Clusters: fetch, validate, build, apply in order, take away what is no longer wanted, tell.
//!
//! Order of apply: who the brokers are and what they are configured to before the StatefulSet that starts them, lest their
//! pods restart twice. What does not depend on each other goes on when one part fails; each part's failure is told.

pub mod drain;
pub mod fetch;
pub mod labels;
pub mod pods;
pub mod resources;
pub mod rollout;
pub mod status;
pub mod sweep;
pub mod validate;
pub mod volumes;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Config, applier};
use taffrail_crds::{Cluster, ClusterStatus};

use crate::apply::{Child, apply};
use crate::context::Context;
use crate::crash;
use crate::error::{AtStep as _, Error, Failures, backoff};
use crate::metrics::Controller;
use crate::status::{IfChanged, write, write_malformed};
use crate::step::Step;
use crate::topic::ClusterKey;
use crate::watches::ClusterObject;
use fetch::Fetched;
use status::Observed;
use validate::Validated;

/// Clusters that are looked at at one time.
const CONCURRENCY: u16 = 4;

/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How long until a Cluster that waits for something that is not watched (a storage class, an image) is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Annotation of a Cluster that is to be left alone.
pub const PAUSED: &str = "taffrail.dev/paused";

/// Looks at the Clusters whose names come in, for ever.
pub async fn run(context: Arc<Context>, queue: UnboundedReceiver<ObjectRef<ClusterObject>>) {
    let store = context.stores.clusters.clone();
    let config = Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
    let failures = Arc::new(Failures::default());
    let retry = failures.clone();
    let reconcile = move |object: Arc<ClusterObject>, context: Arc<Context>| {
        let failures = failures.clone();
        Box::pin(async move {
            let _measured = context.metrics.reconcile(Controller::Cluster);
            let outcome = reconcile(&object, &context).await;
            if outcome.is_ok() {
                failures.forget(&*object);
            }
            outcome
        })
    };
    let failed = move |object: Arc<ClusterObject>, error: &Error, context: Arc<Context>| {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        context.metrics.error(Controller::Cluster, error);
        tracing::warn!(namespace, cluster = name, %error, "a step failed: it is tried again");
        Action::requeue(backoff(retry.count(&*object)))
    };
    applier(reconcile, failed, context, store, queue.map(Ok::<_, std::convert::Infallible>), config)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(object: &ClusterObject, context: &Context) -> Result<Action, Error> {
    let cluster = match &object.0 {
        Ok(cluster) => cluster,
        Err(invalid) => {
            let (namespace, cluster) = (object.namespace().unwrap_or_default(), object.name_any());
            let error = invalid.to_string();
            if write_malformed::<Cluster>(&context.client, &namespace, &cluster, &error)
                .await
                .at(Step::ClusterStatus)?
            {
                tracing::warn!(namespace, cluster, error, "the object cannot be read: left as it is");
            }
            return Ok(Action::await_change());
        }
    };
    if cluster.metadata.deletion_timestamp.is_some() {
        // What belongs to it is collected by Kubernetes.
        return Ok(Action::await_change());
    }
    if cluster.annotations().get(PAUSED).is_some_and(|paused| paused == "true") {
        tell(cluster, context, &status::paused(cluster, context.now())).await?;
        return Ok(Action::await_change());
    }
    let fetched = fetch::fetch(cluster, context).await.at(Step::Fetch)?;
    crash::done(Step::Fetch);
    let validated = match validate::validate(cluster, &fetched, &context.settings) {
        Ok(validated) => validated,
        Err(problem) => {
            tell(cluster, context, &status::invalid(cluster, &problem, context.now())).await?;
            return Ok(Action::await_change());
        }
    };
    let (outcome, mut failures) = act(&validated, &fetched, context).await;
    let observed = Observed { fetched: &fetched, validated: &validated, outcome: &outcome, failures: &failures };
    let new = status::status_of(cluster, &observed, context.now());
    tell(cluster, context, &new).await?;
    if !failures.is_empty() {
        return Err(failures.swap_remove(0));
    }
    let settled = new.conditions.iter().all(|condition| {
        condition.type_ != "Ready" || condition.status == taffrail_crds::condition::ConditionStatus::True
    });
    let draining = !new.draining_brokers.is_empty();
    Ok(match (settled, draining) {
        (true, _) => Action::await_change(),
        (false, true) => Action::requeue(drain::PATIENCE),
        (false, false) => Action::requeue(LOOK_AGAIN),
    })
}

/// What was done besides applying objects.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Why volumes cannot grow, if they cannot.
    pub volumes: Option<validate::Problem>,
    /// Brokers that wait for their restart.
    pub pending: Vec<rollout::Pending>,
    /// A broker is being restarted now.
    pub restarting: bool,
}

/// Makes what is there what is wanted; goes on behind a part that failed where it can.
async fn act(validated: &Validated, fetched: &Fetched, context: &Context) -> (Outcome, Vec<Error>) {
    let (mut outcome, mut failures) = (Outcome::default(), Vec::new());
    let mut start = true;
    for (step, children) in resources::build(validated, &fetched.facts()) {
        if step == Step::StatefulSet {
            match volumes::grow(validated, fetched, context).await.at(Step::Volumes) {
                Ok(problem) => outcome.volumes = problem,
                Err(error) => failures.push(error),
            }
            if !start {
                continue;
            }
        }
        if let Err(error) = apply_all(&children, step, validated, context).await {
            // Brokers that start without these would fail, or start twice.
            start = start && !matches!(step, Step::Access | Step::Config);
            failures.push(error);
        }
    }
    if let Err(error) = sweep::orphans(validated, &fetched.facts(), context).await.at(Step::Orphans) {
        failures.push(error);
    }
    if let Err(error) = pods::tell_zones(validated, &fetched.pods, context).await.at(Step::Zones) {
        failures.push(error);
    }
    if failures.is_empty() {
        match pods::restart(validated, fetched, context).await.at(Step::Restart) {
            Ok(rollout) => (outcome.pending, outcome.restarting) = rollout,
            Err(error) => failures.push(error),
        }
    }
    (outcome, failures)
}

async fn apply_all(children: &[Child], step: Step, validated: &Validated, context: &Context) -> Result<(), Error> {
    for child in children {
        if apply(&context.client, child, &validated.key.name, &validated.uid).await.at(step)? {
            context.metrics.write(step);
            crash::done(step);
        }
    }
    Ok(())
}

/// Writes the status if it differs, and an Event if the Cluster begins or ceases to be ready, or stalls.
async fn tell(cluster: &Cluster, context: &Context, new: &ClusterStatus) -> Result<(), Error> {
    let old = cluster.status.clone().unwrap_or_default();
    let written =
        write::<Cluster, ClusterStatus>(&context.client, cluster, cluster.status.as_ref(), new, IfChanged::Write);
    if written.await.at(Step::ClusterStatus)? {
        context.metrics.write(Step::ClusterStatus);
        crash::done(Step::ClusterStatus);
        for news in status::events(&old, new, cluster.spec.replicas) {
            if news.warning {
                context.events.warning(cluster, &news.reason, &news.note).await;
            } else {
                context.events.normal(cluster, &news.reason, &news.note).await;
            }
        }
    }
    Ok(())
}

/// The name of a Cluster.
pub fn key_of(cluster: &Cluster) -> ClusterKey {
    ClusterKey { namespace: cluster.namespace().unwrap_or_default(), name: cluster.name_any() }
}
