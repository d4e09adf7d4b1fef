//! A Cluster's status, from what is there and what was done. Pure.

use std::time::SystemTime;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use taffrail_crds::cluster::{BootstrapAddress, PendingRestart};
use taffrail_crds::condition::{Condition, ConditionStatus, READY, RECONCILING, STALLED, set_condition};
use taffrail_crds::{Cluster, ClusterSpec, ClusterStatus};

use super::drain::{DRAINING, Drain};
use super::fetch::Fetched;
use super::rollout::BrokerPod;
use super::validate::{Problem, Validated};
use super::{Outcome, labels};
use crate::error::Error;
use crate::replicas::{BELOW_MIN, Health, POSSIBLE_LOSS, RECOVERED, UNCLEAN, UNDER_REPLICATED, is_moving};
use crate::survives::{Brokers, SURVIVES, Survival};
use crate::topic::status::News;

/// Type of the condition that says whether all objects of the Cluster are as they are wanted.
pub const APPLIED: &str = "Applied";

/// Most namespaces that the status lists.
const MAX_NAMESPACES: usize = 1000;

/// What is there and what was done.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What was read.
    pub fetched: &'a Fetched,
    /// What was decided.
    pub validated: &'a Validated,
    /// What was done.
    pub outcome: &'a Outcome,
    /// What failed.
    pub failures: &'a [Error],
}

/// Conditions as they are told: type, whether it holds, reason, message.
type Told = (&'static str, bool, String, String);

/// Of those `forgotten` it is not known any more since when they were so.
fn begin(cluster: &Cluster, told: Vec<Told>, forgotten: &[&str], now: SystemTime) -> ClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    status.conditions.retain(|known| !forgotten.contains(&known.type_.as_str()));
    status.observed_generation = cluster.metadata.generation;
    for (type_, holds, reason, message) in told {
        let holds = if holds { ConditionStatus::True } else { ConditionStatus::False };
        let mut condition = Condition::new(type_, holds, &reason, message);
        condition.observed_generation = cluster.metadata.generation;
        set_condition(&mut status.conditions, condition, now);
    }
    status
}

fn told(type_: &'static str, holds: bool, reason: &str, message: &str) -> Told {
    (type_, holds, reason.to_owned(), message.to_owned())
}

/// Of a Cluster that is to be left alone: what is known of it stays.
pub fn paused(cluster: &Cluster, now: SystemTime) -> ClusterStatus {
    let message = format!("the annotation {} is \"true\": take it away to go on", super::PAUSED);
    let conditions = vec![told(RECONCILING, false, "Paused", &message), told(STALLED, true, "Paused", &message)];
    begin(cluster, conditions, &[], now)
}

/// Of a Cluster that cannot be built.
pub fn invalid(cluster: &Cluster, problem: &Problem, now: SystemTime) -> ClusterStatus {
    let (reason, message) = (problem.reason, &problem.message);
    let conditions = vec![
        told(READY, false, reason, message),
        told(RECONCILING, false, reason, ""),
        told(STALLED, true, reason, message),
    ];
    begin(cluster, conditions, &[], now)
}

/// Of a Cluster that was acted on.
pub fn status_of(cluster: &Cluster, observed: &Observed<'_>, now: SystemTime) -> ClusterStatus {
    let Observed { fetched, validated, outcome, failures } = *observed;
    let health = Health::of_cluster(&fetched.slices);
    let known = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let survival = survival(&validated.spec, fetched);
    let survival_is_told = survival.is_some();
    let replicas = [
        Some((UNDER_REPLICATED, health.told())),
        Some((POSSIBLE_LOSS, health.possible_loss(known))),
        Some((DRAINING, validated.drain.told())),
        survival.map(|told| (SURVIVES, told)),
    ];
    let replicas = replicas.into_iter().flatten();
    let replicas = replicas.map(|(type_, (holds, reason, message))| told(type_, holds, reason, &message));
    let forgotten = [(!survival_is_told).then_some(SURVIVES), begins(cluster, &validated.drain).then_some(DRAINING)];
    let forgotten: Vec<_> = forgotten.into_iter().flatten().collect();
    let mut status = begin(cluster, conditions(observed).into_iter().chain(replicas).collect(), &forgotten, now);
    status.moving_partitions = Some(moving(fetched));
    status.draining_brokers = validated.drain.leaving.iter().map(|leaving| leaving.broker).collect();
    let set = fetched.set.as_ref().and_then(|set| set.status.as_ref());
    status.replicas = Some(set.map_or(0, |set| set.replicas));
    status.ready_replicas = Some(set.and_then(|set| set.ready_replicas).unwrap_or(0));
    status.selector = Some(labels::selector_text(&validated.key.name));
    status.version = Some(version(fetched, validated));
    status.cluster_id = fetched.state.as_ref().map(|state| state.spec.cluster_id.to_string()).or(status.cluster_id);
    // The brokers look only where they may: a namespace whose Role could not be written is not told to them yet.
    let access_failed = failures.iter().any(|failure| failure.step == crate::step::Step::Access);
    if !access_failed || status.topic_namespaces.is_empty() {
        let others = fetched.namespaces.iter().filter(|_| !access_failed).cloned();
        status.topic_namespaces =
            std::iter::once(validated.key.namespace.clone()).chain(others).take(MAX_NAMESPACES).collect();
    }
    status.bootstrap = bootstrap(fetched, validated);
    let pending =
        |pending: &super::rollout::Pending| PendingRestart { broker: pending.broker, reason: pending.reason.clone() };
    status.pending_restarts = outcome.pending.iter().map(pending).collect();
    status
}

/// Whether another drain begins than the one that is on record: the lowest broker that is to go was not told yet.
fn begins(cluster: &Cluster, drain: &Drain) -> bool {
    let known = cluster.status.as_ref().map(|status| status.draining_brokers.as_slice()).unwrap_or_default();
    drain.leaving.first().is_some_and(|first| !known.contains(&first.broker))
}

/// Partitions of which a replica is on its way, deleted topics' among them.
fn moving(fetched: &Fetched) -> i32 {
    let partitions = fetched.slices.iter().flat_map(|slice| &slice.spec.partitions);
    i32::try_from(partitions.filter(|partition| is_moving(partition)).count()).unwrap_or(i32::MAX)
}

/// Whether the Cluster's topics survive what they, or the Cluster for them, declare; internal ones as the Cluster says.
pub fn survival(spec: &ClusterSpec, fetched: &Fetched) -> Option<(bool, &'static str, String)> {
    let brokers = Brokers::of(&fetched.brokers, spec.zone_label(), fetched.budget.as_ref());
    let mut survival = Survival::new(&brokers);
    for slice in fetched.slices.iter().filter(|slice| slice.spec.tombstone.is_none()) {
        let own = fetched.topics.get(&slice.spec.topic_id.to_string()).and_then(|topic| topic.survives);
        let Some(declared) = own.or(spec.topic_defaults.survives) else { continue };
        for partition in &slice.spec.partitions {
            survival.add(declared, partition, || format!("{}/{}", slice.spec.topic_name, partition.index));
        }
    }
    survival.told()
}

/// The oldest version that a broker runs.
fn version(fetched: &Fetched, validated: &Validated) -> String {
    let number =
        |version: &str| -> Vec<u64> { version.split(['.', '-']).map_while(|part| part.parse().ok()).collect() };
    let versions = fetched.pods.iter().filter_map(|pod| pod.annotations().get(labels::VERSION).cloned());
    versions.min_by_key(|version| number(version)).unwrap_or_else(|| validated.version.clone())
}

fn conditions(observed: &Observed<'_>) -> Vec<Told> {
    let Observed { fetched, validated, outcome, failures } = *observed;
    let problems: Vec<Problem> = validated
        .drain
        .problem
        .iter()
        .chain(&outcome.volumes)
        .cloned()
        .chain(class_problem(validated, fetched))
        .chain(fetched.pods.iter().filter_map(|pod| pod_problem(pod)))
        .collect();
    let failed: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let applied = if failed.is_empty() {
        told(APPLIED, true, "AsWanted", "")
    } else {
        told(APPLIED, false, "StepFailed", &failed.join("; "))
    };
    let progress = progress(observed);
    // Brokers that all serve are ready, whatever else cannot be done.
    let ready = match (&progress, problems.first()) {
        (None, _) if failed.is_empty() => told(READY, true, "AllBrokersServe", &all_serve(validated)),
        (None, _) => told(READY, false, "StepFailed", &failed.join("; ")),
        (Some(_), Some(problem)) => told(READY, false, problem.reason, &problem.message),
        (Some((reason, message)), None) => told(READY, false, reason, message),
    };
    let stalled = match problems.first() {
        Some(problem) => told(STALLED, true, problem.reason, &problem.message),
        None => told(STALLED, false, "NothingInTheWay", ""),
    };
    let reconciling = match (progress, failed.is_empty(), problems.is_empty()) {
        (Some((reason, message)), _, true) => told(RECONCILING, true, reason, &message),
        (_, false, _) => told(RECONCILING, true, "StepFailed", &failed.join("; ")),
        (_, true, false) => told(RECONCILING, false, "Stalled", ""),
        // The brokers serve meanwhile, with the room that they have.
        (None, true, true) => match super::volumes::waiting(fetched) {
            Some(message) => told(RECONCILING, true, "VolumesGrow", &message),
            None => told(RECONCILING, false, "Settled", ""),
        },
    };
    vec![ready, reconciling, stalled, applied]
}

fn all_serve(validated: &Validated) -> String {
    let wanted = validated.spec.replicas;
    format!("{wanted} of {wanted} brokers serve")
}

/// What is not as it is wanted yet, in one word and a sentence.
fn progress(observed: &Observed<'_>) -> Option<(&'static str, String)> {
    let Observed { fetched, validated, outcome, .. } = *observed;
    let pods: Vec<_> = fetched.pods.iter().filter_map(|pod| BrokerPod::of(pod)).collect();
    let wanted = validated.spec.replicas;
    let serving = pods.iter().filter(|pod| pod.ready && !pod.leaving && pod.broker < wanted).count();
    let serving = i32::try_from(serving).unwrap_or(i32::MAX);
    if outcome.restarting || !outcome.pending.is_empty() {
        let count = outcome.pending.len();
        return Some(("Restarting", format!("{count} of {wanted} brokers wait for their restart; {serving} serve")));
    }
    if serving < wanted {
        return Some(("Starting", format!("{serving} of {wanted} brokers serve")));
    }
    if !validated.drain.leaving.is_empty() {
        return Some((DRAINING, validated.drain.progress()));
    }
    let leaving = pods.iter().filter(|pod| pod.broker >= wanted).count();
    if leaving > 0 {
        return Some(("ScalingDown", format!("{leaving} brokers stop; {wanted} stay")));
    }
    let set = fetched.set.as_ref()?;
    let seen = set.status.as_ref().and_then(|status| status.observed_generation) >= set.metadata.generation;
    (!seen).then(|| ("Starting", "the StatefulSet's controller has not seen the newest change".to_owned()))
}

fn class_problem(validated: &Validated, fetched: &Fetched) -> Option<Problem> {
    let unbound = |claim: &&k8s_openapi::api::core::v1::PersistentVolumeClaim| {
        claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending"))
    };
    if fetched.class.is_some() || fetched.claims.iter().find(unbound).is_none() {
        return None;
    }
    let message = match &validated.spec.storage.storage_class_name {
        Some(name) => format!(
            "there is no storage class {name:?}, so the brokers get no volumes: make it, or delete this Cluster and its claims \
             and name another"
        ),
        None => "there is no default storage class, so the brokers get no volumes: make one, or name one in \
                 spec.storage.storageClassName of a new Cluster"
            .to_owned(),
    };
    Some(Problem { reason: "StorageClassNotFound", message })
}

/// What keeps a pod from running that it does not come over by itself.
fn pod_problem(pod: &Pod) -> Option<Problem> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let mut unschedulable = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable"))
        .map(|condition| condition.message.clone().unwrap_or_default());
    if let Some(why) = unschedulable.next() {
        return Some(Problem { reason: "Unschedulable", message: format!("no node takes the pod {name}: {why}") });
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default(), container.image.clone()))
    });
    let (why, message, image) = waiting?;
    match why.as_str() {
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => Some(Problem {
            reason: "ImageCannotBePulled",
            message: format!(
                "the image {image} of the pod {name} cannot be pulled: set spec.image or spec.version right ({why})"
            ),
        }),
        "CreateContainerConfigError" | "CreateContainerError" => {
            Some(Problem { reason: "ContainerCannotStart", message: format!("the pod {name}: {message}") })
        }
        "CrashLoopBackOff" => Some(Problem {
            reason: "BrokerFails",
            message: format!(
                "the broker of the pod {name} ends again and again: kubectl logs --previous {name} says why"
            ),
        }),
        _ => None,
    }
}

/// Where clients connect: from outside where a load balancer has an address, otherwise inside the Kubernetes cluster.
fn bootstrap(fetched: &Fetched, validated: &Validated) -> Vec<BootstrapAddress> {
    let key = &validated.key;
    let inside = |port: i32| format!("{}.{}.svc:{port}", labels::bootstrap(&key.name), key.namespace);
    let address = |listener: &taffrail_crds::cluster::Listener| {
        let name = labels::exposed(&key.name, &listener.name);
        let service = fetched.exposed.iter().find(|service| listener.expose.is_some() && service.name_any() == name);
        let outside = service.and_then(outside_host).map(|host| format!("{host}:{}", listener.port));
        BootstrapAddress { listener: listener.name.clone(), address: outside.unwrap_or_else(|| inside(listener.port)) }
    };
    validated.spec.listeners().iter().map(address).collect()
}

fn outside_host(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    ingress.hostname.clone().or_else(|| ingress.ip.clone())
}

/// What is new: that it serves, or does not any more, or stalls; that brokers are to go, and went. So many brokers are `wanted`.
pub fn events(old: &ClusterStatus, new: &ClusterStatus, wanted: i32) -> Vec<News> {
    let find = |status: &ClusterStatus, type_: &str| status.conditions.iter().find(|c| c.type_ == type_).cloned();
    let changed = |type_: &str| {
        let (before, now) = (find(old, type_), find(new, type_)?);
        let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
        (!same).then_some(now)
    };
    let mut news = Vec::new();
    if let Some(stalled) = changed(STALLED).filter(|condition| condition.status == ConditionStatus::True) {
        news.push(News { warning: true, reason: stalled.reason, note: stalled.message });
    }
    if let Some(ready) = changed(READY).filter(|condition| condition.status == ConditionStatus::True) {
        news.push(News { warning: false, reason: ready.reason, note: ready.message });
    }
    if let Some(failed) = changed(APPLIED).filter(|condition| condition.status == ConditionStatus::False) {
        news.push(News { warning: true, reason: failed.reason, note: failed.message });
    }
    for (type_, reason) in [(UNDER_REPLICATED, BELOW_MIN), (POSSIBLE_LOSS, UNCLEAN), (POSSIBLE_LOSS, RECOVERED)] {
        if let Some(told) = changed(type_).filter(|condition| condition.reason == reason) {
            news.push(News { warning: true, reason: told.reason, note: told.message });
        }
    }
    if let Some(told) = changed(SURVIVES) {
        let warning = told.status == ConditionStatus::False;
        news.push(News { warning, reason: told.reason, note: told.message });
    }
    news.extend(drained(old, new, wanted));
    let waiting = |status: &ClusterStatus| status.pending_restarts.len();
    if waiting(old) == 0 && waiting(new) > 0 {
        let why = new.pending_restarts.first().map(|pending| pending.reason.clone()).unwrap_or_default();
        let note = format!("{} brokers are restarted, one at a time: {why}", waiting(new));
        news.push(News { warning: false, reason: "Restarting".to_owned(), note });
    }
    news
}

/// Brokers that begin to go, that are drained, or that stay after all.
fn drained(old: &ClusterStatus, new: &ClusterStatus, wanted: i32) -> impl Iterator<Item = News> {
    let only = |one: &ClusterStatus, other: &ClusterStatus| -> Vec<i32> {
        one.draining_brokers.iter().copied().filter(|broker| !other.draining_brokers.contains(broker)).collect()
    };
    let (begin, end) = (only(new, old), only(old, new));
    let (gone, stay): (Vec<_>, Vec<_>) = end.into_iter().partition(|broker| *broker >= wanted);
    let told = new.conditions.iter().find(|condition| condition.type_ == DRAINING).map(|told| told.message.clone());
    let of = |brokers: &[i32]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let news = |brokers: &[i32], reason: &str, note: String| {
        (!brokers.is_empty()).then(|| News { warning: false, reason: reason.to_owned(), note })
    };
    [
        news(&begin, DRAINING, format!("brokers are to go: {}", told.unwrap_or_default())),
        news(&gone, "Drained", format!("nothing is left on brokers {}: they stop", of(&gone))),
        news(&stay, "DrainCancelled", format!("brokers {} stay, with what is left on them", of(&stay))),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
