//! Deleting topics, bringing them back, and letting go of what nobody brought back.
//!
//! A topic goes through the trash in steps, each of which a start after a crash can tell and finish:
//!
//! | step | `Topic` | `DeletedTopic` |
//! |---|---|---|
//! | served | there | |
//! | being deleted | there | there |
//! | in the trash | | there |
//! | being brought back | perhaps | there, `restoring` |
//!
//! Logs are deleted only for a `DeletedTopic` whose window is over, by its topic id: never because an object is absent (M9).

use taffrail_crds::name::TopicNameFault;
use uuid::Uuid;

use super::object::{self, DeletedTopic};
use super::{Deleted, Inner, Known, TopicDescription, TopicError, Trashed};
use crate::metadata::{Kind, MetadataError, Object};
use crate::security::is_internal;

impl Inner {
    pub(super) async fn delete(&self, name: &str, id: Option<Uuid>) -> Result<TopicDescription, TopicError> {
        let mut known = self.change().await?;
        if is_internal(name) {
            return Err(TopicError::Name(TopicNameFault::Reserved));
        }
        let stored = known.topics.get(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        if let Some(given) = id.filter(|given| *given != stored.id) {
            return Err(TopicError::OtherId { name: name.to_owned(), given, actual: stored.id });
        }
        let (id, object) = (stored.id, stored.object.clone());
        let deleted = DeletedTopic {
            topic: stored.topic.clone(),
            deleted_at_ms: self.context.wall_millis(),
            deleted_at_log_ms: self.context.log_millis(),
            restoring: false,
        };
        let tombstone = self.put_tombstone(&known, id, &deleted).await.map_err(TopicError::Metadata)?;
        let description = object::describe(&deleted.topic, Some(deleted.trash()));
        known.trash.insert(id, Trashed { object: tombstone, deleted });
        self.serving.withdraw(name).await;
        self.metadata.delete(&object).await.map_err(TopicError::Metadata)?;
        known.topics.remove(name);
        Ok(description)
    }

    /// Writes that a topic is being deleted, perhaps not for the first time.
    async fn put_tombstone(&self, known: &Known, id: Uuid, deleted: &DeletedTopic) -> Result<Object, MetadataError> {
        let document = object::document(deleted);
        match known.trash.get(&id) {
            Some(trashed) => self.metadata.replace(&Object { document, ..trashed.object.clone() }).await,
            None => self.metadata.create(Kind::DeletedTopic, &id.to_string(), document).await,
        }
    }

    pub(super) async fn undelete(
        &self,
        which: Deleted,
        new_name: Option<String>,
    ) -> Result<TopicDescription, TopicError> {
        let mut known = self.change().await?;
        let (id, mut deleted) = find(&known, &which)?;
        if let Some(name) = new_name {
            rename(&mut deleted, &name)?;
        }
        let name = deleted.topic.topic_name();
        if known.topics.contains_key(&name) {
            return Err(TopicError::Exists(name));
        }
        let made = object::made_partitions(&deleted.topic);
        self.restore(&mut known, deleted, id, made).await
    }

    /// Takes a topic out of the trash in the form that `deleted.topic` has now.
    pub(super) async fn restore(
        &self,
        known: &mut Known,
        deleted: DeletedTopic,
        id: Uuid,
        made: i32,
    ) -> Result<TopicDescription, TopicError> {
        let trashed = known.trash.get_mut(&id).ok_or_else(|| TopicError::NotInTrash(id.to_string()))?;
        trashed.object.document = object::document(&DeletedTopic { restoring: true, ..trashed.deleted.clone() });
        trashed.object = self.metadata.replace(&trashed.object).await.map_err(TopicError::Metadata)?;
        trashed.deleted.restoring = true;
        let object = trashed.object.clone();
        let description = self.record_and_serve(known, deleted.topic, id, made).await?;
        self.metadata.delete(&object).await.map_err(TopicError::Metadata)?;
        known.trash.remove(&id);
        Ok(description)
    }

    /// Deletes the logs of all topics whose window is over, then forgets them. Answers how many; faults are logged, the next
    /// call tries again.
    pub(super) async fn purge(&self) -> u64 {
        let Ok(mut known) = self.change().await else { return 0 };
        let now = self.context.log_millis();
        let over = |(id, trashed): (&Uuid, &Trashed)| trashed.deleted.is_over(now).then_some(*id);
        let ids: Vec<_> = known.trash.iter().filter_map(over).collect();
        let mut purged = 0;
        for id in ids {
            match self.purge_one(&mut known, id).await {
                Ok(()) => purged += 1,
                Err(error) => tracing::warn!(topic_id = %id, %error, "a deleted topic could not be purged"),
            }
        }
        purged
    }

    async fn purge_one(&self, known: &mut Known, id: Uuid) -> Result<(), TopicError> {
        if known.topics.values().any(|stored| stored.id == id) {
            // It is half brought back or half deleted; the next start finishes that.
            return Ok(());
        }
        let Some(trashed) = known.trash.get(&id) else { return Ok(()) };
        self.serving.delete(self.serving.logs_of(id)).await?;
        self.metadata.delete(&trashed.object).await.map_err(TopicError::Metadata)?;
        tracing::info!(topic = trashed.deleted.topic.topic_name(), topic_id = %id, "deleted topic purged");
        known.trash.remove(&id);
        Ok(())
    }
}

/// The topic that was last deleted under a name, or the one of an id.
fn find(known: &Known, which: &Deleted) -> Result<(Uuid, DeletedTopic), TopicError> {
    let found = match which {
        Deleted::Id(id) => known.trash.get_key_value(id),
        Deleted::Name(name) => {
            let named = known.trash.iter().filter(|(_, trashed)| trashed.deleted.topic.topic_name() == *name);
            named.max_by_key(|(id, trashed)| (trashed.deleted.deleted_at_log_ms, **id))
        }
    };
    let missing = || match which {
        Deleted::Id(id) => id.to_string(),
        Deleted::Name(name) => name.clone(),
    };
    let (id, trashed) = found.ok_or_else(|| TopicError::NotInTrash(missing()))?;
    Ok((*id, trashed.deleted.clone()))
}

/// Gives a topic another name; its object is then another one too.
fn rename(deleted: &mut DeletedTopic, name: &str) -> Result<(), TopicError> {
    taffrail_crds::name::check_topic_name(name)?;
    let object_name = taffrail_crds::name::object_name(name);
    deleted.topic.spec.topic_name = (object_name != name).then(|| name.to_owned());
    deleted.topic.metadata.name = Some(object_name);
    Ok(())
}
