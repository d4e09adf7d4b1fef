//! Making and changing topics.

use std::sync::Arc;

use taffrail_crds::Topic;
use uuid::Uuid;

use super::object::{self, DeletedTopic};
use super::serving::Wanted;
use super::{Applied, Inner, Known, NewTopic, Stored, TopicChange, TopicDescription, TopicError, start};
use crate::metadata::{Kind, MetadataError};
use crate::topics::Settings;

impl Inner {
    pub(super) async fn create(&self, request: NewTopic, check_only: bool) -> Result<TopicDescription, TopicError> {
        let topic = object::new_object(&request)?;
        let mut known = self.change().await?;
        self.create_object(&mut known, topic, check_only).await
    }

    /// Makes a topic of the broker itself if it is not there, past the rules for users' topics. One that is there stays as
    /// it is, with the number of partitions that it was made with: what is in it was placed by that number.
    pub(super) async fn ensure_internal(&self, request: NewTopic) -> Result<(), TopicError> {
        let mut known = self.change().await?;
        if known.topics.contains_key(&request.name) {
            return Ok(());
        }
        let (topic, id) = (object::object_of(&request)?, self.new_id());
        let made = self.record_and_serve(&mut known, topic, id, 0).await;
        if made.is_err() {
            self.forget_new(&mut known, &request.name, id).await;
        }
        made.map(|_| ())
    }

    pub(super) async fn alter(
        &self,
        name: &str,
        change: TopicChange,
        check_only: bool,
    ) -> Result<TopicDescription, TopicError> {
        let mut known = self.change().await?;
        let old = known.topics.get(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let new = object::changed_object(&old.topic, &change)?;
        self.change_object(&mut known, name, new, check_only).await
    }

    pub(super) async fn apply(&self, manifest: Vec<Topic>) -> Result<Applied, TopicError> {
        let (mut applied, mut known) = (Applied::default(), self.change().await?);
        for topic in manifest {
            let name = topic.topic_name();
            match self.apply_one(&mut known, topic).await {
                Ok(Outcome::Created) => applied.created.push(name),
                Ok(Outcome::Changed) => applied.changed.push(name),
                Ok(Outcome::Unchanged) => applied.unchanged.push(name),
                Err(error) => applied.failed.push((name, error.to_string())),
            }
        }
        Ok(applied)
    }

    async fn apply_one(&self, known: &mut Known, manifest: Topic) -> Result<Outcome, TopicError> {
        let object_name = manifest.metadata.name.as_deref().unwrap_or_default();
        let Some((name, old)) = known.topics.iter().find(|(_, stored)| stored.object.name == object_name) else {
            self.create_object(known, manifest, false).await?;
            return Ok(Outcome::Created);
        };
        let (name, new) = (name.clone(), object::merged_object(&old.topic, &manifest));
        if object::is_same(&old.topic, &new) {
            return Ok(Outcome::Unchanged);
        }
        self.change_object(known, &name, new, false).await?;
        Ok(Outcome::Changed)
    }

    async fn create_object(
        &self,
        known: &mut Known,
        mut topic: Topic,
        check_only: bool,
    ) -> Result<TopicDescription, TopicError> {
        topic.status = None;
        object::admit(&topic, None)?;
        let name = topic.topic_name();
        if known.topics.contains_key(&name) {
            return Err(TopicError::Exists(name));
        }
        if check_only {
            return Ok(object::describe(&topic, None));
        }
        if let Some(id) = object::adopted_id(&topic) {
            return self.adopt(known, topic, id).await;
        }
        let id = self.new_id();
        let made = self.record_and_serve(known, topic, id, 0).await;
        if made.is_err() {
            self.forget_new(known, &name, id).await;
        }
        made
    }

    /// Undoes the making of a topic that could not be served, as far as that is possible: nobody has written to it. What is
    /// left the next start goes on with.
    async fn forget_new(&self, known: &mut Known, name: &str, id: Uuid) {
        let Some(stored) = known.topics.get(name).filter(|stored| stored.id == id) else { return };
        let logs = self.serving.logs_of(id);
        let undone = match self.metadata.delete(&stored.object).await {
            Ok(()) => self.serving.delete(logs).await.map_err(TopicError::Storage),
            Err(error) => return tracing::warn!(topic = name, %error, "a topic that could not be made is still there"),
        };
        known.topics.remove(name);
        if let Err(error) = undone {
            tracing::warn!(topic = name, %error, "empty logs of a topic that could not be made are left");
        }
    }

    /// Makes a topic that takes over the data of one in the trash, or of one whose object was lost.
    async fn adopt(&self, known: &mut Known, topic: Topic, id: Uuid) -> Result<TopicDescription, TopicError> {
        let deleted = known.trash.get(&id).map(|trashed| trashed.deleted.clone());
        let partitions = match &deleted {
            Some(deleted) => deleted.topic.spec.partitions,
            None if known.topics.values().any(|stored| stored.id == id) => return Err(TopicError::InUse(id)),
            None => self.serving.partitions_of(id).ok_or_else(|| TopicError::NotInTrash(id.to_string()))?,
        };
        if topic.spec.partitions < partitions {
            let message = format!("spec.partitions: the topic that is adopted has {partitions}: write that or more");
            return Err(TopicError::Invalid(vec![message]));
        }
        match deleted {
            Some(deleted) => {
                let made = object::made_partitions(&deleted.topic);
                self.restore(known, DeletedTopic { topic, ..deleted }, id, made).await
            }
            None => self.record_and_serve(known, topic, id, partitions).await,
        }
    }

    /// Writes the object of a topic, of whose logs the first `made` exist, then makes the others and serves it. The object
    /// tells at each moment which logs must be there, so that a start after a crash goes on (M9).
    pub(super) async fn record_and_serve(
        &self,
        known: &mut Known,
        mut topic: Topic,
        id: Uuid,
        made: i32,
    ) -> Result<TopicDescription, TopicError> {
        object::set_status(&mut topic, id, made, self.context.wall_millis());
        let (name, object_name) = (topic.topic_name(), topic.metadata.name.clone().unwrap_or_default());
        let created = self.metadata.create(Kind::Topic, &object_name, object::document(&topic)).await;
        let object = created.map_err(|error| match error {
            MetadataError::Exists { .. } => TopicError::Exists(name.clone()),
            error => TopicError::Metadata(error),
        })?;
        let stored = known.topics.entry(name).insert_entry(Stored { object, topic, id }).into_mut();
        self.serve(stored).await?;
        Ok(object::describe(&stored.topic, None))
    }

    /// Opens the logs of a topic that is not served yet, makes those that are missing, and serves it.
    pub(super) async fn serve(&self, stored: &mut Stored) -> Result<(), TopicError> {
        let served = self.serving.open(wanted(stored), &self.serving.logs()).await?;
        self.note_made(stored).await?;
        self.serving.publish(vec![served]);
        Ok(())
    }

    /// Writes down that the logs of all partitions are there.
    pub(super) async fn note_made(&self, stored: &mut Stored) -> Result<(), TopicError> {
        let partitions = stored.topic.spec.partitions;
        if object::made_partitions(&stored.topic) == partitions {
            return Ok(());
        }
        let mut topic = stored.topic.clone();
        object::set_status(&mut topic, stored.id, partitions, self.context.wall_millis());
        self.replace(stored, topic).await
    }

    async fn change_object(
        &self,
        known: &mut Known,
        name: &str,
        new: Topic,
        check_only: bool,
    ) -> Result<TopicDescription, TopicError> {
        let stored = known.topics.get_mut(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        object::admit(&new, Some(&stored.topic))?;
        if check_only {
            return Ok(object::describe(&new, None));
        }
        self.replace(stored, new).await?;
        match self.serving.topic(name) {
            Some(served) => {
                let more = self.serving.grow(&served, stored.topic.spec.partitions).await?;
                self.note_made(stored).await?;
                let settings = Settings::of(&stored.topic.spec.config);
                self.serving.publish(vec![Arc::new(served.changed(settings, more))]);
            }
            // It could not be served before; perhaps it can now.
            None => self.serve(stored).await?,
        }
        Ok(object::describe(&stored.topic, None))
    }

    /// Writes the object's new form and remembers it.
    async fn replace(&self, stored: &mut Stored, topic: Topic) -> Result<(), TopicError> {
        let mut object = stored.object.clone();
        object.document = object::document(&topic);
        match self.metadata.replace(&object).await {
            Ok(object) => *stored = Stored { object, topic, id: stored.id },
            Err(MetadataError::Conflict { name, .. }) => {
                // Someone else changed it, or an earlier change went through that seemed to fail (M3): look, for the next try.
                if let Ok(Some(object)) = self.metadata.get(Kind::Topic, &name).await {
                    *stored = start::read(object)?;
                }
                return Err(TopicError::Conflict(name));
            }
            Err(error) => return Err(TopicError::Metadata(error)),
        }
        Ok(())
    }

    fn new_id(&self) -> Uuid {
        std::iter::repeat_with(|| self.context.random_uuid())
            .find(|id| object::is_usable(*id))
            .expect("random ids are hardly ever reserved ones")
    }
}

enum Outcome {
    Created,
    Changed,
    Unchanged,
}

/// What is to be served of a stored topic.
pub(super) fn wanted(stored: &Stored) -> Wanted {
    Wanted {
        name: stored.topic.topic_name().into(),
        id: stored.id,
        settings: Settings::of(&stored.topic.spec.config),
        partitions: stored.topic.spec.partitions,
        made: object::made_partitions(&stored.topic),
    }
}
