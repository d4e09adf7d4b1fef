//! What the operator does for Topics, by its own decisions (`taffrail_operator::topic`): accepts them, gives them their
//! identity, tells how they do, and lets them go once their data is in the trash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use taffrail_crds::topic::DeletionPolicy;
use taffrail_crds::{ADOPT_ANNOTATION, PartitionSlice, PartitionSliceSpec, Topic};
use taffrail_operator::survives::Brokers;
use taffrail_operator::topic::accept::{Surroundings, judge};
use taffrail_operator::topic::deletion::{FINALIZER, Facts, Release, has_finalizer, release};
use taffrail_operator::topic::status::{events, status_of};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::time_of;
use crate::cluster::image::{Image, Stored, is_deleting, spec_of};
use crate::context::Context;
use crate::controller::object::document;
use crate::metadata::{EmbeddedApi, Kind, MetadataError, MetadataStore};

/// How long between two looks at all Topics when nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The operator's part for the brokers of this process.
pub(super) struct Operator {
    pub(super) api: EmbeddedApi,
    pub(super) context: Context,
    /// The cluster's objects as they are followed.
    pub(super) image: watch::Receiver<Arc<Image>>,
}

/// Topics by what they may share with others.
#[derive(Default)]
struct Shared<'a> {
    by_name: BTreeMap<String, Vec<&'a Stored<Topic>>>,
    by_id: BTreeMap<String, Vec<&'a Stored<Topic>>>,
}

impl Operator {
    /// Looks at the Topics whenever something changes, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let image = self.image.borrow_and_update().clone();
            self.round(&image).await;
            tokio::select! {
                changed = self.image.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn round(&self, image: &Image) {
        let shared = Shared::of(image);
        for stored in image.topics.values() {
            match self.look_at(stored, image, &shared).await {
                // What was decided on is out of date: the watch brings what is there now.
                Ok(()) | Err(MetadataError::Conflict { .. } | MetadataError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(topic = stored.object.name, %error, "a step failed: it is tried again"),
            }
        }
    }

    async fn look_at(&self, stored: &Stored<Topic>, image: &Image, shared: &Shared<'_>) -> Result<(), MetadataError> {
        let topic = named(stored);
        if is_deleting(&topic) {
            return self.let_go(stored, &topic).await;
        }
        let verdict = judge(&topic, &shared.around(stored, image));
        let has_data = verdict.accepted.is_some() || topic_id(&topic).is_some();
        let is_held = topic.spec.deletion_policy == DeletionPolicy::Delete && has_data;
        if is_held != has_finalizer(&topic) {
            return self.write_finalizer(stored, is_held).await;
        }
        let (old, now) = (topic.status.clone().unwrap_or_default(), time_of(self.context.wall_millis()));
        let new = status_of(&topic, &verdict, || self.context.random_uuid(), now);
        if topic.status.as_ref() == Some(&new) {
            return Ok(());
        }
        let mut object = stored.object.clone();
        object.document["status"] = document(&new);
        self.api.replace_status(&object).await?;
        for event in events(&old, &new) {
            let (topic, reason) = (topic.topic_name(), event.reason);
            if event.warning {
                tracing::warn!(topic, reason, "{}", event.note);
            } else {
                tracing::info!(topic, reason, "{}", event.note);
            }
        }
        Ok(())
    }

    async fn write_finalizer(&self, stored: &Stored<Topic>, is_held: bool) -> Result<(), MetadataError> {
        let mut object = stored.object.clone();
        let finalizers = &mut object.document["metadata"]["finalizers"];
        let others = finalizers.as_array().into_iter().flatten().filter(|name| *name != FINALIZER).cloned();
        *finalizers = others.chain(is_held.then(|| Value::from(FINALIZER))).collect();
        self.api.replace(&object).await.map(drop)
    }

    /// The object of a topic may go when all its slices are marked as deleted, by what the store says now.
    async fn let_go(&self, stored: &Stored<Topic>, topic: &Topic) -> Result<(), MetadataError> {
        if !has_finalizer(topic) {
            return Ok(());
        }
        let id = topic_id(topic).and_then(|id| Uuid::try_parse(id).ok());
        let slices = self.api.list(Kind::PartitionSlice).await?;
        let slices =
            slices.iter().filter_map(spec_of::<PartitionSliceSpec>).filter(|slice| Some(slice.topic_id.0) == id);
        let marked: Vec<bool> = slices.map(|slice| slice.tombstone.is_some()).collect();
        let facts = Facts {
            cluster: true,
            namespace_leaving: false,
            waited: Duration::ZERO,
            slices: (marked.len(), marked.iter().filter(|marked| **marked).count()),
        };
        match release(&facts) {
            Release::Wait => Ok(()),
            Release::Done | Release::GivenUp => self.write_finalizer(stored, false).await,
        }
    }
}

impl<'a> Shared<'a> {
    fn of(image: &'a Image) -> Self {
        let mut shared = Self::default();
        for stored in image.topics.values().map(|stored| &**stored) {
            shared.by_name.entry(stored.spec.topic_name()).or_default().push(stored);
            if let Some(id) = topic_id(&stored.spec) {
                shared.by_id.entry(id.clone()).or_default().push(stored);
            }
        }
        shared
    }

    /// What a Topic's fate depends on.
    fn around(&self, stored: &Stored<Topic>, image: &Image) -> Surroundings {
        let others = |found: Option<&Vec<&Stored<Topic>>>| -> Vec<Topic> {
            let found = found.into_iter().flatten().filter(|other| other.object.uid != stored.object.uid);
            found.map(|other| named(other)).collect()
        };
        let adopted = stored.spec.metadata.annotations.as_ref().and_then(|all| all.get(ADOPT_ANNOTATION));
        let id = topic_id(&stored.spec).or(adopted);
        let slices = id.and_then(|id| Uuid::try_parse(id).ok()).into_iter().flat_map(|id| image.slices_of(id));
        let mut around = Surroundings {
            cluster: image.cluster.as_ref().map(|cluster| cluster.spec.clone()),
            rivals: others(self.by_name.get(&stored.spec.topic_name())),
            users: others(id.and_then(|id| self.by_id.get(id))),
            slices: slices.map(|slice| PartitionSlice::new(&slice.object.name, slice.spec.clone())).collect(),
            brokers: brokers(image),
            ..Surroundings::default()
        };
        // All names that the cluster knows matter only to one that takes another's place.
        if let Some(state) = image.state.as_ref().filter(|_| adopted.is_some()) {
            around.names.clone_from(&state.spec.topics);
        }
        around
    }
}

/// Where the brokers are. No drain of nodes takes two of one process at a time.
fn brokers(image: &Image) -> Brokers {
    let registered = image.brokers.values();
    let zones = registered.filter_map(|broker| Some((broker.spec.id, broker.spec.zone.clone()?))).collect();
    let label = image.cluster.as_ref().map(|cluster| cluster.spec.spec.zone_label().to_owned());
    Brokers { zones, zone_label: label.unwrap_or_default(), kept: true }
}

/// The Topic with the identity of its object, which stands beside it here.
fn named(stored: &Stored<Topic>) -> Topic {
    let mut topic = stored.spec.clone();
    topic.metadata.uid = Some(stored.object.uid.to_string());
    topic
}

fn topic_id(topic: &Topic) -> Option<&String> {
    topic.status.as_ref()?.topic_id.as_ref()
}

#[cfg(test)]
mod tests;
