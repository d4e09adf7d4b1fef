//! Whether a Topic is accepted, under which identity, and if not, why. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kube::ResourceExt;
use taffrail_crds::condition::ConditionStatus;
use taffrail_crds::id::Id;
use taffrail_crds::name::check_topic_name;
use taffrail_crds::{ADOPT_ANNOTATION, Cluster, PartitionSlice, Topic};

use super::cluster_key;
use crate::survives::{Brokers, Survival};

/// Type of the condition that says whether the brokers may serve the topic.
pub const ACCEPTED: &str = "Accepted";

/// What a Topic's fate depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The Cluster that it names, if it is there.
    pub cluster: Option<Cluster>,
    /// Other Topics of the same Cluster by the same name.
    pub rivals: Vec<Topic>,
    /// Other Topics with the topicId that it has or takes over.
    pub users: Vec<Topic>,
    /// The names of all topics that the Cluster knows, by topicId.
    pub names: BTreeMap<Id, String>,
    /// The slices of the topicId that it has or takes over.
    pub slices: Vec<PartitionSlice>,
    /// Where the Cluster's brokers are.
    pub brokers: Brokers,
}

/// What has been decided about a Topic.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Under which identity it is accepted, as far as anything of it is.
    pub accepted: Option<Identity>,
    /// Why what it asks for is not accepted. With `accepted`: it is served as it was before its last change.
    pub refused: Option<Refusal>,
    /// Replicas that it asks for of each partition.
    pub replicas: i32,
    /// Its slices.
    pub slices: Vec<PartitionSlice>,
    /// Whether it survives right now what is declared, why in one word, and in a sentence; `None`: nothing is.
    pub survives: Option<(bool, &'static str, String)>,
}

/// The identity of an accepted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It is new.
    New,
    /// It has one, or takes over one.
    Known(String),
}

/// Why a Topic is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In one word.
    pub reason: &'static str,
    /// In a sentence that says what to do.
    pub message: String,
}

fn refuse<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason, message: message.into() })
}

/// Decides about a Topic that is not being deleted.
pub fn judge(topic: &Topic, around: &Surroundings) -> Verdict {
    let mut verdict = Verdict { slices: around.slices.clone(), ..Verdict::default() };
    let cluster = match may_be_here(topic, around) {
        Ok(cluster) => cluster,
        Err(refusal) => return Verdict { refused: Some(refusal), ..verdict },
    };
    verdict.survives = survival(topic, cluster, around);
    verdict.replicas = topic.spec.replication_factor.unwrap_or_else(|| cluster.spec.replication_factor());
    match identity(topic, around) {
        Ok(identity) => verdict.accepted = Some(identity),
        Err(refusal) => return Verdict { refused: Some(refusal), ..verdict },
    }
    verdict.refused = is_possible(topic, cluster, &around.slices).err();
    if topic_id(topic).is_none() && verdict.refused.is_some() {
        verdict.accepted = None;
    }
    verdict
}

/// Whether its partitions survive what it declares, or its Cluster for it.
fn survival(topic: &Topic, cluster: &Cluster, around: &Surroundings) -> Option<(bool, &'static str, String)> {
    let declared = cluster.spec.survives_of(&topic.spec)?;
    let mut survival = Survival::new(&around.brokers);
    let partitions = around.slices.iter().flat_map(|slice| &slice.spec.partitions);
    for partition in partitions.filter(|partition| partition.index < topic.spec.partitions) {
        survival.add(declared, partition, || partition.index.to_string());
    }
    Some(survival.told().unwrap_or_else(|| (false, "NotPlaced", "no partition is placed on brokers yet".to_owned())))
}

fn topic_id(topic: &Topic) -> Option<&String> {
    topic.status.as_ref()?.topic_id.as_ref()
}

/// Whether it may be in that Cluster under that name.
fn may_be_here<'a>(topic: &Topic, around: &'a Surroundings) -> Result<&'a Cluster, Refusal> {
    let Some(key) = cluster_key(topic) else {
        return refuse("ClusterNotNamed", "spec.clusterRef is missing: name the Cluster whose brokers shall hold it");
    };
    let Some(cluster) = &around.cluster else {
        return refuse(
            "ClusterNotFound",
            format!("there is no Cluster {key}: make it, or delete this Topic and name another"),
        );
    };
    let namespace = topic.namespace().unwrap_or_default();
    if !cluster.spec.allows_namespace(&namespace, &key.namespace) {
        let message = format!(
            "the Cluster {key} takes no Topics of the namespace {namespace}: add it to the Cluster's \
             spec.allowedTopicNamespaces"
        );
        return refuse("NamespaceNotAllowed", message);
    }
    if let Err(fault) = check_topic_name(&topic.topic_name()) {
        return refuse("InvalidName", format!("{fault}: make a Topic with another spec.topicName"));
    }
    let allowed =
        |rival: &&Topic| cluster.spec.allows_namespace(&rival.namespace().unwrap_or_default(), &key.namespace);
    match around.rivals.iter().filter(allowed).find(|rival| precedence(rival, topic) == Ordering::Less) {
        Some(winner) => refuse(
            "NameTaken",
            format!(
                "the Topic {}/{} was first with the topic name {:?} in the Cluster {key}: this one takes the name over \
                 when that is gone, or make one with another spec.topicName",
                winner.namespace().unwrap_or_default(),
                winner.name_any(),
                topic.topic_name()
            ),
        ),
        None => Ok(cluster),
    }
}

/// Which of two Topics by one name has it: the one that is served, otherwise the older.
fn precedence(a: &Topic, b: &Topic) -> Ordering {
    let rank = |topic: &Topic| {
        let created = topic.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!is_served(topic), created, topic.metadata.uid.clone())
    };
    rank(a).cmp(&rank(b))
}

fn is_served(topic: &Topic) -> bool {
    let Some(status) = &topic.status else { return false };
    let accepted =
        status.conditions.iter().any(|known| known.type_ == ACCEPTED && known.status == ConditionStatus::True);
    accepted && status.topic_id.is_some()
}

fn identity(topic: &Topic, around: &Surroundings) -> Result<Identity, Refusal> {
    if let Some(id) = topic_id(topic) {
        // Two Topics with one identity come from a status that somebody copied.
        return match around.users.iter().find(|user| precedence(user, topic) == Ordering::Less) {
            Some(user) => taken(id, user),
            None => Ok(Identity::Known(id.clone())),
        };
    }
    let Some(wanted) = topic.annotations().get(ADOPT_ANNOTATION) else { return Ok(Identity::New) };
    if let Some(user) = around.users.first() {
        return taken(wanted, user);
    }
    let known = around.names.iter().find(|(id, _)| id.to_string() == *wanted);
    match known {
        Some((_, name)) if *name == topic.topic_name() => Ok(Identity::Known(wanted.clone())),
        Some((_, name)) => refuse(
            "AdoptOtherName",
            format!("the topic {wanted} is called {name:?}: set spec.topicName to that in a new Topic"),
        ),
        None => refuse(
            "AdoptUnknown",
            format!(
                "the Cluster knows no topic {wanted}: look at \"kubectl get clusterstates -o yaml\" for those it knows, or \
                 take the annotation {ADOPT_ANNOTATION} away for a new topic"
            ),
        ),
    }
}

fn taken<T>(id: &str, user: &Topic) -> Result<T, Refusal> {
    let (namespace, name) = (user.namespace().unwrap_or_default(), user.name_any());
    refuse("AdoptInUse", format!("the topic {id} is that of the Topic {namespace}/{name}: delete that one first"))
}

/// Whether what it asks for can be done with what is there.
fn is_possible(topic: &Topic, cluster: &Cluster, slices: &[PartitionSlice]) -> Result<(), Refusal> {
    let present: usize = slices.iter().map(|slice| slice.spec.partitions.len()).sum();
    let present = i32::try_from(present).unwrap_or(i32::MAX);
    if present > topic.spec.partitions {
        let message = format!(
            "the topic has {present} partitions and none can be taken away: set spec.partitions to {present} or more"
        );
        return refuse("PartitionsCannotFall", message);
    }
    can_be_replicated(topic, cluster, slices)
}

/// Whether there are brokers for its replicas, and replicas for its min ISR. What it has already it may keep, even where
/// the Cluster asks for fewer brokers since.
fn can_be_replicated(topic: &Topic, cluster: &Cluster, slices: &[PartitionSlice]) -> Result<(), Refusal> {
    let replicas = topic.spec.replication_factor.unwrap_or_else(|| cluster.spec.replication_factor());
    let brokers = cluster.spec.replicas;
    let factors = slices.iter().flat_map(|slice| &slice.spec.partitions).map(|partition| partition.replication_factor);
    if replicas > brokers.max(factors.max().unwrap_or(0)) {
        let message = format!(
            "{replicas} replicas of each partition need {replicas} brokers, and the Cluster {} has {brokers}: lower \
             spec.replicationFactor, or raise the Cluster's spec.replicas",
            cluster.name_any()
        );
        return refuse("TooFewBrokers", message);
    }
    match topic.spec.config.min_in_sync_replicas {
        Some(least) if least > replicas => {
            let message = format!(
                "spec.config.minInSyncReplicas is {least}, and the topic has {replicas} replicas as the Cluster {} says, so \
                 that no acks=all write could ever succeed: lower it, or set spec.replicationFactor",
                cluster.name_any()
            );
            refuse("MinInSyncReplicasTooHigh", message)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
