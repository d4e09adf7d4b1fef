//! What a change of a Cluster would do, before it is applied: which brokers it restarts, in which order and why, whose replicas
//! move, which volumes grow, and what would be refused or could never end. Pure: it decides by the very functions that the
//! operator acts by, on what is there now.

mod compare;
pub mod live;
mod text;

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde::Serialize;
use taffrail_crds::admission::admit_kind;
use taffrail_crds::{Cluster, ClusterSpec, Kind};

use crate::apply::{Child, ChildKind};
use crate::cluster::fetch::Fetched;
use crate::cluster::rollout::{BrokerPod, newest_revision};
use crate::cluster::status::survival;
use crate::cluster::validate::{Problem, Validated, validate};
use crate::cluster::{key_of, resources, volumes};
use crate::context::Settings;
use crate::replicas::held_by;

/// A Cluster as it is there.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Its object; `None`: it would be new.
    pub cluster: Option<Cluster>,
    /// What belongs to it.
    pub fetched: Fetched,
}

/// What a change would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Namespace and name of the Cluster.
    pub cluster: String,
    /// It is not there yet.
    pub new: bool,
    /// What would be refused, or could never end by itself.
    pub refused: Vec<Refused>,
    /// Brokers that are restarted, in their order.
    pub restarts: Vec<Restart>,
    /// Why they are: what of their pods or their configuration differs.
    pub restarts_since: Vec<String>,
    /// Brokers that are added.
    pub added: Vec<i32>,
    /// Brokers that go once their replicas have moved to the others, the first to go first.
    pub drained: Vec<Moved>,
    /// Brokers that have more replicas than an even share, which move to the others; an estimate.
    pub rebalanced: Vec<Moved>,
    /// Topics that leave it to the Cluster how many replicas they have.
    pub replicas: Vec<Replicas>,
    /// Volumes that grow.
    pub grown: Vec<String>,
    /// Size to which they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grown_to: Option<String>,
    /// Objects that are made, changed or deleted besides.
    pub objects: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Something that would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// In one word.
    pub reason: String,
    /// In a sentence that says what to do.
    pub message: String,
}

/// A broker that is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// Its number.
    pub broker: i32,
    /// For what it would wait now, besides its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// Replicas that move off a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Its number.
    pub broker: i32,
    /// How many.
    pub replicas: usize,
}

/// A topic whose partitions get more replicas, or have fewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replicas {
    /// Its name.
    pub topic: String,
    /// Its partitions.
    pub partitions: usize,
    /// Replicas that each has.
    pub from: i32,
    /// Replicas that each is to have.
    pub to: i32,
}

impl Plan {
    /// Whether it changes nothing at all.
    pub fn is_nothing(&self) -> bool {
        let bare = Self { cluster: self.cluster.clone(), notes: self.notes.clone(), ..Self::default() };
        *self == bare
    }

    fn refuse(&mut self, reason: &str, message: String) {
        self.refused.push(Refused { reason: reason.to_owned(), message });
    }
}

/// What would become of `live` if `wanted` were applied.
pub fn plan(wanted: &Cluster, live: &Live, settings: &Settings) -> Plan {
    let mut plan = Plan { cluster: key_of(wanted).to_string(), new: live.cluster.is_none(), ..Plan::default() };
    let document = |cluster: &Cluster| serde_json::to_value(cluster).unwrap_or_default();
    let faults = admit_kind(Kind::Cluster, &document(wanted), live.cluster.as_ref().map(document).as_ref());
    for fault in &faults {
        plan.refuse("NotAdmitted", fault.to_string());
    }
    if !faults.is_empty() {
        return plan;
    }
    let wanted = over(wanted, live.cluster.as_ref());
    let after = match validate(&wanted, &live.fetched, settings) {
        Ok(after) => after,
        Err(Problem { reason, message }) => {
            plan.refuse(reason, message);
            return plan;
        }
    };
    // One that cannot be built has no brokers that would restart.
    let before = live.cluster.as_ref().and_then(|cluster| validate(cluster, &live.fetched, settings).ok());
    objects(&mut plan, before.as_ref(), &after, &live.fetched);
    restarts(&mut plan, &live.fetched, after.replicas);
    moves(&mut plan, &after, &live.fetched);
    replicas(&mut plan, before.as_ref(), &after.spec, &live.fetched);
    grow(&mut plan, &after, &live.fetched);
    if let Some((false, reason, message)) = survival(&after.spec, &live.fetched) {
        plan.notes.push(format!("not everything would survive as declared ({reason}): {message}"));
    }
    plan
}

/// As the API server would keep it: who it is and what is known of it stay.
fn over(wanted: &Cluster, present: Option<&Cluster>) -> Cluster {
    let mut next = wanted.clone();
    if let Some(present) = present {
        next.metadata.uid.clone_from(&present.metadata.uid);
        next.status.clone_from(&present.status);
    }
    next
}

fn children(validated: &Validated, fetched: &Fetched) -> BTreeMap<(ChildKind, String), Child> {
    let all = resources::build(validated, &fetched.facts()).into_iter().flat_map(|(_, children)| children);
    all.map(|child| ((child.kind, format!("{}/{}", child.namespace, child.name)), child)).collect()
}

/// What differs of what the Cluster is made of, and why pods do.
fn objects(plan: &mut Plan, before: Option<&Validated>, after: &Validated, fetched: &Fetched) {
    let new = children(after, fetched);
    let old = before.map(|before| children(before, fetched)).unwrap_or_default();
    let kind = |kind: ChildKind| kind.resource().kind;
    for (key, child) in &new {
        match old.get(key) {
            None => plan.objects.push(format!("{} {} is made", kind(key.0), key.1)),
            Some(before) if before.object != child.object => {
                plan.objects.push(format!("{} {} changes", kind(key.0), key.1));
            }
            Some(_) => {}
        }
    }
    let gone = old.keys().filter(|key| !new.contains_key(key));
    plan.objects.extend(gone.map(|key| format!("{} {} is deleted", kind(key.0), key.1)));
    let set = (ChildKind::StatefulSet, plan.cluster.clone());
    if let (Some(old), Some(new), Some(before)) = (old.get(&set), new.get(&set), before) {
        plan.restarts_since = compare::lines(&before.config, &after.config);
        plan.restarts_since.extend(compare::pods(&old.object["spec"]["template"], &new.object["spec"]["template"]));
    }
}

/// Those that do not serve first, then by number, one at a time: as the operator restarts them.
fn restarts(plan: &mut Plan, fetched: &Fetched, size: i32) {
    let newest = fetched.set.as_ref().and_then(newest_revision);
    let changes = !plan.restarts_since.is_empty();
    let is_outdated = |pod: &BrokerPod| newest.is_some_and(|newest| pod.revision != newest);
    let pods = fetched.pods.iter().filter_map(|pod| BrokerPod::of(pod)).filter(|pod| pod.broker < size && !pod.leaving);
    let mut pods: Vec<_> = pods.filter(|pod| changes || is_outdated(pod)).collect();
    pods.sort_by_key(|pod| (pod.ready, pod.broker));
    let waits = |pod: &BrokerPod| held_by(pod.broker, &fetched.slices).filter(|_| pod.ready);
    plan.restarts = pods.iter().map(|pod| Restart { broker: pod.broker, waits: waits(pod) }).collect();
    if !changes && !plan.restarts.is_empty() {
        plan.notes.push("restarts are under way already, from an earlier change".to_owned());
    }
}

/// Brokers that come and go, and what moves off which.
fn moves(plan: &mut Plan, after: &Validated, fetched: &Fetched) {
    let present = fetched.set.as_ref().and_then(|set| set.spec.as_ref()?.replicas).unwrap_or(0);
    let wanted = after.spec.replicas;
    plan.added = (present..wanted).collect();
    let leaving = after.drain.leaving.iter().rev();
    plan.drained = leaving.map(|leaving| Moved { broker: leaving.broker, replicas: leaving.left }).collect();
    if let Some(Problem { reason, message }) = &after.drain.problem {
        plan.refuse(reason, message.clone());
    }
    plan.notes.extend(after.drain.waits.iter().cloned());
    if after.spec.rebalance.is_on() {
        plan.rebalanced = uneven(wanted, fetched);
    } else if !plan.added.is_empty() && !plan.new && !fetched.slices.is_empty() {
        plan.notes.push("nothing moves to new brokers but what is made anew: spec.rebalance is Disabled".to_owned());
    }
}

/// Brokers that stay and have more than their even share of all replicas.
fn uneven(wanted: i32, fetched: &Fetched) -> Vec<Moved> {
    let live = fetched.slices.iter().filter(|slice| slice.spec.tombstone.is_none());
    let brokers = live
        .flat_map(|slice| &slice.spec.partitions)
        .flat_map(|partition| partition.replicas.iter().filter(|broker| !partition.removing.contains(broker)));
    let mut load = BTreeMap::<i32, usize>::new();
    brokers.for_each(|broker| *load.entry(*broker).or_default() += 1);
    let share = load.values().sum::<usize>().div_ceil(usize::try_from(wanted).unwrap_or(1).max(1));
    let staying = load.into_iter().filter(|(broker, count)| *broker < wanted && *count > share);
    staying.map(|(broker, count)| Moved { broker, replicas: count - share }).collect()
}

/// Topics that say nothing of their replicas have as many as the Cluster says.
fn replicas(plan: &mut Plan, before: Option<&Validated>, after: &ClusterSpec, fetched: &Fetched) {
    let Some(before) = before.map(|before| &before.spec) else { return };
    let (from, to) = (before.replication_factor(), after.replication_factor());
    let mut partitions = BTreeMap::<&str, usize>::new();
    for slice in fetched.slices.iter().filter(|slice| slice.spec.tombstone.is_none()) {
        let asked = fetched.topics.get(&slice.spec.topic_id.to_string());
        if asked.is_some_and(|asked| asked.replication_factor.is_none()) {
            *partitions.entry(&slice.spec.topic_name).or_default() += slice.spec.partitions.len();
        }
    }
    if from != to {
        let of_topic = |(topic, partitions): (&str, usize)| Replicas { topic: topic.to_owned(), partitions, from, to };
        plan.replicas = partitions.into_iter().map(of_topic).collect();
    }
    let least = |spec: &ClusterSpec| spec.min_in_sync_replicas_of(&taffrail_crds::TopicSpec::default());
    let (from, to) = (least(before), least(after));
    if from != to {
        plan.notes.push(format!("minInSyncReplicas of topics that do not set it changes from {from} to {to}"));
    }
}

fn grow(plan: &mut Plan, after: &Validated, fetched: &Fetched) {
    let volumes = volumes::plan(after, fetched);
    if let Some(Problem { reason, message }) = volumes.problem {
        plan.refuse(reason, message);
    }
    if !volumes.grow.is_empty() {
        plan.grown_to = Some(after.spec.storage.size.to_string());
    }
    plan.grown = volumes.grow;
}

/// What the operator that acts was started with, as far as it can be seen by what it made.
pub fn settings(live: &Live, broker_image: &str) -> Settings {
    let own = live.cluster.as_ref().is_some_and(|cluster| cluster.spec.image.is_some());
    let seen = live.fetched.set.as_ref().filter(|_| !own).and_then(|set| {
        let container = set.spec.as_ref()?.template.spec.as_ref()?.containers.first()?;
        let version = set.annotations().get(crate::cluster::labels::VERSION)?;
        container.image.as_ref()?.strip_suffix(&format!(":{version}")).map(str::to_owned)
    });
    Settings { broker_image: seen.unwrap_or_else(|| broker_image.to_owned()), service_monitors: false }
}

#[cfg(test)]
mod tests;
