//! What a start finds: topics to serve, steps that a crash left half done, logs that belong to no topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use taffrail_crds::Topic;
use uuid::Uuid;

use super::object::{self, DeletedTopic};
use super::topics::wanted;
use super::{Inner, Known, Stored, TopicError, Trashed};
use crate::metadata::{Kind, MetadataStore, Object};
use crate::storage::PartitionId;

/// Reads everything from the metadata and finishes what was half done.
pub(super) async fn load(metadata: &Arc<dyn MetadataStore>) -> Result<Known, TopicError> {
    let mut known = Known { topics: BTreeMap::new(), trash: BTreeMap::new(), stopping: false };
    for object in metadata.list(Kind::DeletedTopic).await.map_err(TopicError::Metadata)? {
        let deleted: DeletedTopic = parse(&object)?;
        let id = Uuid::try_parse(&object.name).map_err(|error| malformed(&object, error.to_string()))?;
        known.trash.insert(id, Trashed { object, deleted });
    }
    for object in metadata.list(Kind::Topic).await.map_err(TopicError::Metadata)? {
        let stored = read(object)?;
        known.topics.insert(stored.topic.topic_name(), stored);
    }
    finish_half_done(metadata, &mut known).await?;
    Ok(known)
}

/// See the table in [`super::trash`].
async fn finish_half_done(metadata: &Arc<dyn MetadataStore>, known: &mut Known) -> Result<(), TopicError> {
    let both: Vec<_> = known.topics.iter().filter(|(_, stored)| known.trash.contains_key(&stored.id)).collect();
    let both: Vec<_> = both.into_iter().map(|(name, stored)| (name.clone(), stored.id)).collect();
    for (name, id) in both {
        let (Some(stored), Some(trashed)) = (known.topics.get(&name), known.trash.get(&id)) else { continue };
        let brought_back = trashed.deleted.restoring;
        let gone = if brought_back { &trashed.object } else { &stored.object };
        metadata.delete(gone).await.map_err(TopicError::Metadata)?;
        if brought_back {
            known.trash.remove(&id);
        } else {
            known.topics.remove(&name);
        }
    }
    Ok(())
}

/// Understands a topic's object.
pub(super) fn read(object: Object) -> Result<Stored, TopicError> {
    let topic: Topic = parse(&object)?;
    let id = object::id_of(&topic).ok_or_else(|| malformed(&object, "it has no status.topicId".to_owned()))?;
    Ok(Stored { object, topic, id })
}

fn parse<T: DeserializeOwned>(object: &Object) -> Result<T, TopicError> {
    T::deserialize(&object.document).map_err(|error| malformed(object, error.to_string()))
}

fn malformed(object: &Object, what: String) -> TopicError {
    TopicError::Metadata(object.malformed(what))
}

impl Inner {
    /// Opens the logs of all known topics and serves them at once. A topic that cannot be served is left out and reported;
    /// the others are served.
    pub(super) async fn serve_all(&self) {
        let (logs, mut known, mut served) = (self.serving.logs(), self.known.lock().await, vec![]);
        let opening: Vec<_> = known.topics.values().map(|stored| self.serving.open(wanted(stored), &logs)).collect();
        let opened = futures::future::join_all(opening).await;
        for (stored, opened) in known.topics.values_mut().zip(opened) {
            let opened = match opened {
                Ok(topic) => self.note_made(stored).await.map(|()| topic),
                Err(error) => Err(error.into()),
            };
            match opened {
                Ok(topic) => served.push(topic),
                Err(error) => tracing::error!(topic = stored.topic.topic_name(), %error, "the topic is not served"),
            }
        }
        self.serving.publish(served);
        for orphan in self.orphans_of(&known) {
            tracing::warn!(
                topic_id = %orphan.topic, partition = orphan.index,
                "a log belongs to no known topic; it is kept: a Topic with the annotation taffrail.dev/adopt takes it over"
            );
        }
    }

    /// Logs whose topic is neither known nor in the trash (M9).
    pub(super) fn orphans_of(&self, known: &Known) -> Vec<PartitionId> {
        let ids: BTreeSet<_> =
            known.topics.values().map(|stored| stored.id).chain(known.trash.keys().copied()).collect();
        let mut orphans: Vec<_> = self.serving.logs().into_keys().filter(|log| !ids.contains(&log.topic)).collect();
        orphans.sort_unstable();
        orphans
    }
}
