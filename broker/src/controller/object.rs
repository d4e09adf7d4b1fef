//! Topic objects as documents: made from requests, checked by the rules of `taffrail_crds`, read back. Pure.
//!
//! A topic in the trash is a document of its own, `{"topic": …, "deletedAtMs": …, "deletedAtLogMs": …, "restoring": …}`, under
//! its topic id.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use taffrail_crds::admission;
use taffrail_crds::condition::{Condition, ConditionStatus, set_condition};
use taffrail_crds::name::{check_topic_name, object_name};
use taffrail_crds::{ADOPT_ANNOTATION, Topic, TopicSpec, TopicStatus};
use uuid::Uuid;

use super::{NewTopic, TopicChange, TopicDescription, TopicError, Trash};
use crate::clock::time_of;
use crate::security::is_internal;

/// Kafka reserves this id for its own metadata topic, beside the nil one (kafka.md 2).
const RESERVED_ID: Uuid = Uuid::from_u128(1);

/// A topic's document in the trash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeletedTopic {
    /// The object as it was.
    pub(super) topic: Topic,
    /// Wall time of the deletion, for people.
    pub(super) deleted_at_ms: i64,
    /// Log time of the deletion, which the window goes by: a wall clock that jumps empties no trash.
    pub(super) deleted_at_log_ms: i64,
    /// It is being brought back: if a topic of its id is there, it has been.
    pub(super) restoring: bool,
}

impl DeletedTopic {
    /// Its window is over at log time `now`.
    pub(super) fn is_over(&self, now: i64) -> bool {
        now.saturating_sub(self.deleted_at_log_ms) >= self.window_ms()
    }

    pub(super) fn trash(&self) -> Trash {
        Trash { deleted_at: self.deleted_at_ms, purge_at: self.deleted_at_ms.saturating_add(self.window_ms()) }
    }

    fn window_ms(&self) -> i64 {
        i64::try_from(self.topic.spec.config.trash_retention().as_millis()).unwrap_or(i64::MAX)
    }
}

/// The object that a request for a topic stands for.
pub(crate) fn new_object(request: &NewTopic) -> Result<Topic, TopicError> {
    check_topic_name(&request.name)?;
    object_of(request)
}

/// As [`new_object`], for topics of the broker itself, whose names users may not give.
pub(crate) fn object_of(request: &NewTopic) -> Result<Topic, TopicError> {
    let object = object_name(&request.name);
    let topic_name = (object != request.name).then(|| request.name.clone());
    let partitions = request.partitions.unwrap_or_else(|| TopicSpec::default().partitions);
    let replication_factor = request.replication_factor;
    let mut spec = TopicSpec { topic_name, partitions, replication_factor, ..TopicSpec::default() };
    for (key, value) in &request.config {
        spec.config.set(key, value)?;
    }
    Ok(Topic::new(&object, spec))
}

/// The object after a change.
pub(crate) fn changed_object(old: &Topic, change: &TopicChange) -> Result<Topic, TopicError> {
    let mut new = old.clone();
    if let Some(partitions) = change.partitions {
        new.spec.partitions = partitions;
    }
    if change.replication_factor.is_some() {
        new.spec.replication_factor = change.replication_factor;
    }
    for key in &change.unset {
        new.spec.config.unset(key)?;
    }
    for (key, value) in &change.set {
        new.spec.config.set(key, value)?;
    }
    Ok(new)
}

/// The object that a manifest makes of one that is there: its metadata and specification, with the status there is.
pub(super) fn merged_object(old: &Topic, manifest: &Topic) -> Topic {
    Topic { status: old.status.clone(), ..manifest.clone() }
}

/// What a manifest says is what is there.
pub(crate) fn is_same(old: &Topic, new: &Topic) -> bool {
    let metadata = |topic: &Topic| (topic.metadata.labels.clone(), topic.metadata.annotations.clone());
    old.spec == new.spec && metadata(old) == metadata(new)
}

/// Checks an object as an API server and a standalone broker would; `old` is the one whose place it takes.
pub(crate) fn admit(new: &Topic, old: Option<&Topic>) -> Result<(), TopicError> {
    check(new, old, admission::standalone(new))
}

/// Checks an object before it is written to an API server, which checks it again.
pub(crate) fn admit_in_cluster(new: &Topic, old: Option<&Topic>) -> Result<(), TopicError> {
    check(new, old, Vec::new())
}

fn check(new: &Topic, old: Option<&Topic>, more: Vec<admission::Fault>) -> Result<(), TopicError> {
    let mut faults = admission::admit(&document(new), old.map(document).as_ref());
    faults.extend(more);
    if let Err(fault) = check_topic_name(&new.topic_name()) {
        return Err(fault.into());
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(TopicError::Invalid(faults.iter().map(ToString::to_string).collect()))
}

/// What is kept of an object.
pub(crate) fn document<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("objects have string keys and finite numbers")
}

/// Identity of a topic: from its status.
pub(super) fn id_of(topic: &Topic) -> Option<Uuid> {
    Uuid::try_parse(topic.status.as_ref()?.topic_id.as_ref()?).ok()
}

/// The topic whose data this one is to take over.
pub(super) fn adopted_id(topic: &Topic) -> Option<Uuid> {
    Uuid::try_parse(topic.metadata.annotations.as_ref()?.get(ADOPT_ANNOTATION)?).ok()
}

/// May be a topic's identity.
pub(super) fn is_usable(id: Uuid) -> bool {
    !id.is_nil() && id != RESERVED_ID
}

/// Partitions whose logs have been made: those must be there at every later start (M9).
pub(super) fn made_partitions(topic: &Topic) -> i32 {
    topic.status.as_ref().and_then(|status| status.partitions).unwrap_or(0)
}

/// Notes a topic's identity and the partitions whose logs are there.
pub(super) fn set_status(topic: &mut Topic, id: Uuid, partitions: i32, now_ms: i64) {
    let status = topic.status.get_or_insert_with(TopicStatus::default);
    status.topic_id = Some(id.to_string());
    status.partitions = Some(partitions);
    let ready = if partitions == topic.spec.partitions {
        Condition::new("Ready", ConditionStatus::True, "Serving", "all partitions can be written and read")
    } else {
        Condition::new("Ready", ConditionStatus::False, "Creating", "the logs of its partitions are being made")
    };
    set_condition(&mut status.conditions, ready, time_of(now_ms));
}

/// What clients are told of a topic, which says how many replicas it has, or has one.
pub(crate) fn describe(topic: &Topic, trash: Option<Trash>) -> TopicDescription {
    let (name, replication_factor) = (topic.topic_name(), topic.spec.replication_factor.unwrap_or(1));
    TopicDescription {
        id: id_of(topic).unwrap_or_default(),
        partitions: topic.spec.partitions,
        replication_factor,
        config: topic.spec.config.entries(replication_factor),
        trash,
        internal: is_internal(&name),
        name,
    }
}
