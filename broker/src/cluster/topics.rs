//! Topics on behalf of callers of the API: their Topic objects are made, changed and deleted, as `kubectl` would.
//!
//! The object is the one record of a topic: the operator accepts it, the controller places it, the brokers serve it. A call
//! waits until this broker sees that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::ResourceExt;
use taffrail_crds::condition::ConditionStatus;
use taffrail_crds::recover::{self, RECOVER_ANNOTATION, Recovery};
use taffrail_crds::topic::{ClusterRef, DeletionPolicy};
use taffrail_crds::{ADOPT_ANNOTATION, PartitionSliceSpec, PartitionState, Topic};
use tokio::sync::watch;
use uuid::Uuid;

use super::controller::topics::tombstone_of;
use super::image::{Identity, Image, Stored, accepted_id, is_deleting};
use crate::context::Context;
use crate::controller::{Deleted, NewTopic, TopicAdmin, TopicChange, TopicDescription, TopicError, Trash, object};
use crate::metadata::{Kind, MetadataError, MetadataStore};
use crate::security::is_internal;
use crate::topics::Topics;

/// How long a call waits for a topic to be served.
const PATIENCE: Duration = Duration::from_secs(30);

/// Topics of a cluster.
pub struct ClusterTopics {
    context: Context,
    identity: Identity,
    store: Arc<dyn MetadataStore>,
    image: watch::Receiver<Arc<Image>>,
    topics: Arc<Topics>,
}

impl ClusterTopics {
    /// Of this cluster, as followed and as served here.
    pub fn new(
        context: Context,
        identity: Identity,
        store: Arc<dyn MetadataStore>,
        image: watch::Receiver<Arc<Image>>,
        topics: Arc<Topics>,
    ) -> Arc<Self> {
        Arc::new(Self { context, identity, store, image, topics })
    }

    fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// The object of a topic that is not deleted.
    fn find(&self, name: &str) -> Result<Arc<Stored<Topic>>, TopicError> {
        let image = self.image();
        let of_name = |stored: &&Arc<Stored<Topic>>| stored.spec.topic_name() == name && !is_deleting(&stored.spec);
        let mut found: Vec<_> = image.topics.values().filter(of_name).cloned().collect();
        // Of several that claim the name, the one that was accepted has it.
        found.sort_by_key(|stored| accepted_id(&stored.spec).is_none());
        found.into_iter().next().ok_or_else(|| TopicError::Unknown(name.to_owned()))
    }

    async fn create_object(&self, mut topic: Topic, check_only: bool) -> Result<TopicDescription, TopicError> {
        let name = topic.topic_name();
        topic.spec.cluster_ref = Some(ClusterRef { name: self.identity.cluster.clone(), namespace: None });
        object::admit_in_cluster(&topic, None)?;
        if self.find(&name).is_ok() {
            return Err(TopicError::Exists(name));
        }
        if check_only {
            return Ok(described(&self.image(), &topic, None));
        }
        let object_name = topic.metadata.name.clone().unwrap_or_default();
        let created = self.store.create(Kind::Topic, &object_name, object::document(&topic)).await;
        let created = created.map_err(|error| match error {
            MetadataError::Exists { .. } => TopicError::Exists(name.clone()),
            error => failed(error),
        })?;
        let key = (self.identity.namespace.clone(), created.name);
        self.served(&name, key, topic.spec.partitions, generation(&created.document)).await
    }

    /// Waits until a topic is served here as this generation of its object says; `key`: namespace and name of that.
    async fn served(
        &self,
        name: &str,
        key: (String, String),
        partitions: i32,
        generation: i64,
    ) -> Result<TopicDescription, TopicError> {
        let (mut images, mut topics) = (self.image.clone(), self.topics.subscribe());
        let waiting = async {
            loop {
                let stored = images.borrow_and_update().topics.get(&key).cloned();
                topics.mark_unchanged();
                match stored.as_deref().map(|stored| verdict(&stored.spec, generation)) {
                    Some(Verdict::Refused(why)) => return Err(TopicError::Invalid(vec![why])),
                    Some(Verdict::Accepted(id)) if self.is_served(name, id, partitions) => {
                        return Ok(stored.map(|stored| described(&images.borrow(), &stored.spec, None)));
                    }
                    _ => {}
                }
                tokio::select! {
                    changed = images.changed() => if changed.is_err() { return Err(TopicError::Stopping) },
                    changed = topics.changed() => if changed.is_err() { return Err(TopicError::Stopping) },
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(Some(described))) => Ok(described),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) | Err(_) => Err(self.pending(name, &key)),
        }
    }

    fn is_served(&self, name: &str, id: Uuid, partitions: i32) -> bool {
        let image = self.topics.image();
        let Ok(topic) = image.topic(name) else { return false };
        let led = topic.assignments.iter().filter(|assignment| assignment.leader.is_some()).count();
        // A leader that is to be this broker counts once it leads.
        let begun = topic.partitions.iter().zip(&topic.assignments);
        let begun = begun.filter(|(partition, _)| partition.is_local() || partition.remote_leader().is_some()).count();
        topic.id == id && led >= partitions as usize && begun >= partitions as usize
    }

    fn pending(&self, name: &str, key: &(String, String)) -> TopicError {
        let image = self.image();
        let topic = image.topics.get(key);
        let conditions = topic.and_then(|stored| stored.spec.status.as_ref()).map(|status| &status.conditions);
        let ready = conditions.and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
        let why = ready.map_or_else(
            || "the operator has not looked at it, see whether it runs".to_owned(),
            |condition| format!("{}: {}", condition.reason, condition.message),
        );
        TopicError::Pending { topic: name.to_owned(), object: format!("{}/{}", key.0, key.1), why }
    }

    async fn change(&self, name: &str, change: TopicChange, check_only: bool) -> Result<TopicDescription, TopicError> {
        if is_internal(name) {
            return Err(TopicError::Invalid(vec!["it is the brokers' own and cannot be changed".to_owned()]));
        }
        let stored = self.find(name)?;
        let new = object::changed_object(&stored.spec, &change)?;
        object::admit_in_cluster(&new, Some(&stored.spec))?;
        if check_only {
            return Ok(described(&self.image(), &new, None));
        }
        let mut next = stored.object.clone();
        next.document["spec"] = object::document(&new.spec);
        let namespace = namespace_of(&stored.spec, &self.identity);
        let store = self.store.in_namespace(&namespace);
        let replaced = store.replace(&next).await.map_err(|error| match error {
            MetadataError::Conflict { .. } => TopicError::Conflict(name.to_owned()),
            error => failed(error),
        })?;
        self.served(name, (namespace, replaced.name), new.spec.partitions, generation(&replaced.document)).await
    }

    async fn remove(&self, name: &str, id: Option<Uuid>) -> Result<TopicDescription, TopicError> {
        if is_internal(name) {
            return Err(TopicError::Invalid(vec!["it is the brokers' own and cannot be deleted".to_owned()]));
        }
        let stored = self.find(name)?;
        let actual = accepted_id(&stored.spec).unwrap_or_default();
        if let Some(given) = id.filter(|given| *given != actual) {
            return Err(TopicError::OtherId { name: name.to_owned(), given, actual });
        }
        let store = self.store.in_namespace(&namespace_of(&stored.spec, &self.identity));
        store.delete(&stored.object).await.map_err(|error| match error {
            MetadataError::Conflict { .. } => TopicError::Conflict(name.to_owned()),
            error => failed(error),
        })?;
        let mut topics = self.topics.subscribe();
        let gone = async {
            while self.topics.image().topic(name).is_ok_and(|topic| topic.id == actual)
                && topics.changed().await.is_ok()
            {}
        };
        // Gone it is; that this broker has not noticed yet is no failure.
        let _ = tokio::time::timeout(PATIENCE, gone).await;
        let now = self.context.wall_millis();
        let purge_at = match stored.spec.spec.deletion_policy {
            DeletionPolicy::Retain => i64::MAX,
            DeletionPolicy::Delete => {
                let window = stored.spec.spec.config.trash_retention().as_millis();
                now.saturating_add(i64::try_from(window).unwrap_or(i64::MAX))
            }
        };
        Ok(described(&self.image(), &stored.spec, Some(Trash { deleted_at: now, purge_at })))
    }

    /// Writes the command into the Topic, where the controller finds it, and waits until it has carried it out.
    async fn command(&self, name: &str, partition: i32, broker: i32) -> Result<i32, TopicError> {
        let image = self.image();
        if let Some(topic) = internal(&image).find(|topic| topic.name == name) {
            let command = recovery(&image, topic.id, partition, broker)?;
            let cluster = &self.identity;
            let why = format!(
                "internal topics have no object of their own: kubectl annotate --overwrite --namespace {} \
                 clusters.taffrail.dev/{} {RECOVER_ANNOTATION}.{name}={command}",
                cluster.namespace, cluster.cluster
            );
            return Err(TopicError::Invalid(vec![why]));
        }
        let stored = self.find(name)?;
        let id = accepted_id(&stored.spec).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let command = recovery(&image, id, partition, broker)?;
        let annotation = stored.spec.annotations().get(RECOVER_ANNOTATION).map(String::as_str);
        let mut next = stored.object.clone();
        next.document["metadata"]["annotations"][RECOVER_ANNOTATION] = recover::with(annotation, command).into();
        let store = self.store.in_namespace(&namespace_of(&stored.spec, &self.identity));
        store.replace(&next).await.map_err(|error| match error {
            MetadataError::Conflict { .. } => TopicError::Conflict(name.to_owned()),
            error => failed(error),
        })?;
        let mut images = self.image.clone();
        let epoch = |image: &Image| {
            let state = partition_state(image, id, partition)?;
            (state.leader.is_some() && state.leader_epoch > command.leader_epoch).then_some(state.leader_epoch)
        };
        let led = images.wait_for(|image| epoch(image).is_some());
        match tokio::time::timeout(PATIENCE, led).await {
            Ok(Ok(image)) => epoch(&image).ok_or(TopicError::Stopping),
            Ok(Err(_)) => Err(TopicError::Stopping),
            Err(_) => Err(TopicError::Pending {
                topic: name.to_owned(),
                object: format!("{}/{}", namespace_of(&stored.spec, &self.identity), stored.object.name),
                why: format!("no controller has carried out the command {command} yet, which stays in its annotations"),
            }),
        }
    }

    async fn adopt(&self, which: Deleted, new_name: Option<&str>) -> Result<TopicDescription, TopicError> {
        let image = self.image();
        let gone = deleted(&image);
        let found = gone.iter().filter(|topic| match &which {
            Deleted::Name(name) => topic.name == *name,
            Deleted::Id(id) => topic.id == *id,
        });
        let text = || match &which {
            Deleted::Name(name) => name.clone(),
            Deleted::Id(id) => id.to_string(),
        };
        let newest = found.max_by_key(|topic| topic.trash.map(|trash| trash.deleted_at));
        let newest = newest.ok_or_else(|| TopicError::NotInTrash(text()))?;
        if new_name.is_some_and(|name| name != newest.name) {
            let why = "new_name: in a cluster a topic keeps its name for the life of its id: leave it out";
            return Err(TopicError::Invalid(vec![why.to_owned()]));
        }
        let (name, partitions) = (newest.name.clone(), Some(newest.partitions));
        let request = NewTopic { name, partitions, ..NewTopic::default() };
        let mut topic = object::new_object(&request)?;
        topic.metadata.annotations.get_or_insert_default().insert(ADOPT_ANNOTATION.to_owned(), newest.id.to_string());
        self.create_object(topic, false).await
    }
}

impl TopicAdmin for ClusterTopics {
    fn create(&self, topic: NewTopic, validate_only: bool) -> BoxFuture<'_, Result<TopicDescription, TopicError>> {
        Box::pin(async move { self.create_object(object::new_object(&topic)?, validate_only).await })
    }

    fn alter<'a>(
        &'a self,
        name: &'a str,
        change: TopicChange,
        validate_only: bool,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(self.change(name, change, validate_only))
    }

    fn delete<'a>(&'a self, name: &'a str, id: Option<Uuid>) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(self.remove(name, id))
    }

    fn undelete<'a>(
        &'a self,
        which: Deleted,
        new_name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(self.adopt(which, new_name))
    }

    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(async move {
            let image = self.image();
            if let Some(internal) = internal(&image).find(|topic| topic.name == name) {
                return Ok(internal);
            }
            self.find(name).map(|stored| described(&image, &stored.spec, None))
        })
    }

    fn list(&self, include_deleted: bool) -> BoxFuture<'_, Result<Vec<TopicDescription>, TopicError>> {
        Box::pin(async move {
            let image = self.image();
            let there = image.accepted().filter(|(_, topic)| !is_deleting(topic));
            let mut topics: Vec<_> = there.map(|(_, topic)| described(&image, topic, None)).collect();
            topics.extend(internal(&image));
            if include_deleted {
                topics.extend(deleted(&image));
            }
            topics.sort_by(|a, b| {
                (&a.name, a.trash.map(|t| t.deleted_at)).cmp(&(&b.name, b.trash.map(|t| t.deleted_at)))
            });
            Ok(topics)
        })
    }

    /// The controller purges.
    fn purge(&self) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }

    fn recover<'a>(&'a self, name: &'a str, partition: i32, broker: i32) -> BoxFuture<'a, Result<i32, TopicError>> {
        Box::pin(self.command(name, partition, broker))
    }
}

/// The command for a partition, as it is now: one that has no leader, and a replica whose broker is there.
fn recovery(image: &Image, id: Uuid, partition: i32, broker: i32) -> Result<Recovery, TopicError> {
    let refuse = |why: String| Err(TopicError::Invalid(vec![why]));
    let Some(state) = partition_state(image, id, partition) else {
        return refuse(format!("there is no partition {partition}"));
    };
    if let Some(leader) = state.leader {
        return refuse(format!("partition {partition} is led by broker {leader}: there is nothing to recover"));
    }
    if !state.replicas.contains(&broker) {
        let replicas: Vec<_> = state.replicas.iter().map(ToString::to_string).collect();
        return refuse(format!(
            "broker {broker} has no replica of partition {partition}: choose one of {}",
            replicas.join(", ")
        ));
    }
    if image.brokers.get(&broker).is_none_or(|known| known.spec.fenced) {
        return refuse(format!("broker {broker} does not answer: bring it back first, or choose another replica"));
    }
    Ok(Recovery { partition, broker, leader_epoch: state.leader_epoch })
}

fn partition_state(image: &Image, id: Uuid, partition: i32) -> Option<&PartitionState> {
    let mut partitions = image.slices_of(id).flat_map(|slice| &slice.spec.partitions);
    partitions.find(|state| state.index == partition)
}

enum Verdict {
    Accepted(Uuid),
    Refused(String),
    Waiting,
}

/// What the operator says to this generation of a Topic.
fn verdict(topic: &Topic, generation: i64) -> Verdict {
    let Some(status) = &topic.status else { return Verdict::Waiting };
    let accepted = status.conditions.iter().find(|condition| condition.type_ == "Accepted");
    match accepted {
        Some(condition)
            if condition.status == ConditionStatus::False && condition.observed_generation >= Some(generation) =>
        {
            Verdict::Refused(condition.message.clone())
        }
        _ if status.accepted_generation >= Some(generation) => {
            accepted_id(topic).map_or(Verdict::Waiting, Verdict::Accepted)
        }
        _ => Verdict::Waiting,
    }
}

/// What the topic leaves to its cluster is as the cluster says.
fn described(image: &Image, topic: &Topic, trash: Option<Trash>) -> TopicDescription {
    let Some(cluster) = &image.cluster else { return object::describe(topic, trash) };
    let (mut topic, cluster) = (topic.clone(), &cluster.spec.spec);
    topic.spec.replication_factor = Some(cluster.replicas_of(&topic.spec));
    let set = &mut topic.spec.config.min_in_sync_replicas;
    *set = set.or(cluster.topic_defaults.config.min_in_sync_replicas);
    object::describe(&topic, trash)
}

fn internal(image: &Image) -> impl Iterator<Item = TopicDescription> {
    let topics = image.state.iter().flat_map(|state| &state.spec.internal_topics);
    topics.map(|topic| TopicDescription {
        name: topic.name.clone(),
        id: topic.topic_id.0,
        partitions: topic.partitions,
        replication_factor: replication_factor(image, topic.topic_id.0),
        config: Vec::new(),
        trash: None,
        internal: true,
    })
}

/// As the slices say; 0: there are none.
fn replication_factor(image: &Image, id: Uuid) -> i32 {
    let partitions = image.slices_of(id).flat_map(|slice| &slice.spec.partitions);
    partitions.map(|partition| partition.replication_factor).max().unwrap_or(0)
}

/// Topics whose object is gone, or going with its data, and whose slices are there.
fn deleted(image: &Image) -> Vec<TopicDescription> {
    let there: BTreeSet<_> = image.accepted().filter(|(_, topic)| !is_deleting(topic)).map(|(id, _)| id).collect();
    let names = image.state.iter().flat_map(|state| &state.spec.topics);
    let gone = names.filter(|(id, name)| !there.contains(&id.0) && !is_internal(name));
    let described = |(id, name): (&taffrail_crds::id::Id, &String)| {
        let slices: Vec<&PartitionSliceSpec> = image.slices_of(id.0).map(|slice| &slice.spec).collect();
        let trash = slices.first()?.tombstone.as_ref().and_then(tombstone_of);
        Some(TopicDescription {
            name: name.clone(),
            id: id.0,
            partitions: slices.iter().map(|slice| slice.partitions.len() as i32).sum(),
            replication_factor: replication_factor(image, id.0),
            config: Vec::new(),
            trash: Some(trash.unwrap_or(Trash { deleted_at: 0, purge_at: i64::MAX })),
            internal: false,
        })
    };
    gone.filter_map(described).collect()
}

fn namespace_of(topic: &Topic, identity: &Identity) -> String {
    topic.metadata.namespace.clone().unwrap_or_else(|| identity.namespace.clone())
}

fn generation(document: &serde_json::Value) -> i64 {
    document["metadata"]["generation"].as_i64().unwrap_or(0)
}

fn failed(error: MetadataError) -> TopicError {
    match error {
        MetadataError::Refused { what, .. } => TopicError::Invalid(vec![what]),
        error => TopicError::Metadata(error),
    }
}

#[cfg(test)]
mod tests;
