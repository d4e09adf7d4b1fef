//! The topic controller: makes, changes, removes and brings back topics.
//!
//! What is wanted stands in `Topic` objects in the [`MetadataStore`]; the controller admits them by the rules of
//! `taffrail_crds`, gives them their identity, makes their logs and serves them through [`Topics`]. One change at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use taffrail_crds::config::ConfigEntry;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use self::object::DeletedTopic;
use self::serving::Serving;
use crate::context::Context;
use crate::metadata::{MetadataStore, Object};
use crate::storage::{PartitionId, Storage};
use crate::topics::Topics;

mod error;
pub(crate) mod object;
mod serving;
mod start;
mod topics;
mod trash;

pub use error::TopicError;

/// A topic to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// From 1; `None`: the default.
    pub partitions: Option<i32>,
    /// Of each partition, from 1; `None`: as the cluster says.
    pub replication_factor: Option<i32>,
    /// Keys (a manifest's or Kafka's) and values.
    pub config: Vec<(String, String)>,
}

/// Changes of a topic.
#[derive(Clone, Debug, Default)]
pub struct TopicChange {
    /// Not below the present number; `None`: as it is.
    pub partitions: Option<i32>,
    /// Of each partition, from 1; `None`: as it is.
    pub replication_factor: Option<i32>,
    /// Keys and values to set.
    pub set: Vec<(String, String)>,
    /// Keys to put back to the default.
    pub unset: Vec<String>,
}

/// Which deleted topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The one last deleted under this name.
    Name(String),
    /// This very one.
    Id(Uuid),
}

/// A topic as the controller knows it, served or in the trash.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity. Nil for one that was only checked, not made.
    pub id: Uuid,
    /// How many partitions.
    pub partitions: i32,
    /// Replicas that each of them shall have; 0: not known.
    pub replication_factor: i32,
    /// All keys with the values in force, by name.
    pub config: Vec<ConfigEntry>,
    /// Set when it is in the trash.
    pub trash: Option<Trash>,
    /// Used by the broker itself.
    pub internal: bool,
}

/// Since when and until when a topic is in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trash {
    /// When it was deleted, milliseconds since 1970.
    pub deleted_at: i64,
    /// When it goes for good, milliseconds since 1970.
    pub purge_at: i64,
}

/// What a manifest changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Topics that were made.
    pub created: Vec<String>,
    /// Topics that were changed.
    pub changed: Vec<String>,
    /// Topics that were as the manifest says.
    pub unchanged: Vec<String>,
    /// Topics that were refused; the others were applied.
    pub failed: Vec<(String, String)>,
}

/// What callers of the API may ask about topics.
pub trait TopicAdmin: Send + Sync + 'static {
    /// Makes a topic; with `validate_only` it only says whether it would.
    fn create(&self, topic: NewTopic, validate_only: bool) -> BoxFuture<'_, Result<TopicDescription, TopicError>>;
    /// Changes a topic.
    fn alter<'a>(
        &'a self,
        name: &'a str,
        change: TopicChange,
        validate_only: bool,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>>;
    /// Takes a topic out of service. It can be brought back as long as its records are there.
    fn delete<'a>(&'a self, name: &'a str, id: Option<Uuid>) -> BoxFuture<'a, Result<TopicDescription, TopicError>>;
    /// Brings a topic back with its id, records, offsets and configuration, under its old name or another.
    fn undelete<'a>(
        &'a self,
        which: Deleted,
        new_name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>>;
    /// A topic that is not deleted.
    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<TopicDescription, TopicError>>;
    /// All topics by name, with those that are deleted where asked for.
    fn list(&self, include_deleted: bool) -> BoxFuture<'_, Result<Vec<TopicDescription>, TopicError>>;
    /// Lets the topics go whose time in the trash is over; answers how many.
    fn purge(&self) -> BoxFuture<'_, u64>;
    /// Has this broker's replica lead a partition that has no leader, whatever it lacks; answers the leader epoch.
    fn recover<'a>(&'a self, name: &'a str, partition: i32, broker: i32) -> BoxFuture<'a, Result<i32, TopicError>>;
}

impl TopicAdmin for Controller {
    fn create(&self, topic: NewTopic, validate_only: bool) -> BoxFuture<'_, Result<TopicDescription, TopicError>> {
        Box::pin(Self::create(self, topic, validate_only))
    }

    fn alter<'a>(
        &'a self,
        name: &'a str,
        change: TopicChange,
        validate_only: bool,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(Self::alter(self, name, change, validate_only))
    }

    fn delete<'a>(&'a self, name: &'a str, id: Option<Uuid>) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(Self::delete(self, name, id))
    }

    fn undelete<'a>(
        &'a self,
        which: Deleted,
        new_name: Option<&'a str>,
    ) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(Self::undelete(self, which, new_name))
    }

    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<TopicDescription, TopicError>> {
        Box::pin(Self::describe(self, name))
    }

    fn list(&self, include_deleted: bool) -> BoxFuture<'_, Result<Vec<TopicDescription>, TopicError>> {
        Box::pin(Self::list(self, include_deleted))
    }

    fn purge(&self) -> BoxFuture<'_, u64> {
        Box::pin(Self::purge(self))
    }

    fn recover<'a>(&'a self, _: &'a str, _: i32, _: i32) -> BoxFuture<'a, Result<i32, TopicError>> {
        let why = "a broker that runs alone has one replica of each partition and leads it: there is nothing to choose";
        Box::pin(std::future::ready(Err(TopicError::Invalid(vec![why.to_owned()]))))
    }
}

/// Makes, changes, removes topics and brings them back. Changes run to their end even if the caller goes away.
#[derive(Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

struct Inner {
    context: Context,
    metadata: Arc<dyn MetadataStore>,
    serving: Serving,
    /// Held through each change, so that there is one at a time.
    known: Mutex<Known>,
}

/// All topics, as the metadata has them.
struct Known {
    /// By the topic's name.
    topics: BTreeMap<String, Stored>,
    /// By id.
    trash: BTreeMap<Uuid, Trashed>,
    /// Nothing changes any more.
    stopping: bool,
}

/// A topic's object, raw and read.
struct Stored {
    object: Object,
    topic: taffrail_crds::Topic,
    id: Uuid,
}

/// The same of a topic in the trash.
struct Trashed {
    object: Object,
    deleted: DeletedTopic,
}

impl Inner {
    /// Everything known, for a change.
    async fn change(&self) -> Result<MutexGuard<'_, Known>, TopicError> {
        let known = self.known.lock().await;
        if known.stopping { Err(TopicError::Stopping) } else { Ok(known) }
    }
}

impl Controller {
    /// Reads all topics from the metadata, opens their logs and serves them. Logs without a topic are kept and reported (M9).
    pub async fn start(
        context: Context,
        storage: Arc<dyn Storage>,
        metadata: Arc<dyn MetadataStore>,
        topics: Arc<Topics>,
    ) -> Result<Arc<Self>, TopicError> {
        let known = Mutex::new(start::load(&metadata).await?);
        let serving = Serving::new(context.clone(), storage, topics);
        serving.raise_epochs().await?;
        let inner = Arc::new(Inner { context, metadata, serving, known });
        inner.serve_all().await;
        Ok(Arc::new(Self { inner }))
    }

    /// Makes a topic; with `validate_only` it only says whether it would.
    pub async fn create(&self, topic: NewTopic, validate_only: bool) -> Result<TopicDescription, TopicError> {
        self.run(move |inner| async move { inner.create(topic, validate_only).await }).await?
    }

    /// Makes a topic of the broker itself (its name begins with `__`) if it is not there.
    pub async fn ensure_internal(&self, topic: NewTopic) -> Result<(), TopicError> {
        self.run(move |inner| async move { inner.ensure_internal(topic).await }).await?
    }

    /// Changes a topic.
    pub async fn alter(
        &self,
        name: &str,
        change: TopicChange,
        validate_only: bool,
    ) -> Result<TopicDescription, TopicError> {
        let name = name.to_owned();
        self.run(move |inner| async move { inner.alter(&name, change, validate_only).await }).await?
    }

    /// Puts a topic in the trash. It is not served any more; its records stay until its window is over.
    pub async fn delete(&self, name: &str, id: Option<Uuid>) -> Result<TopicDescription, TopicError> {
        let name = name.to_owned();
        self.run(move |inner| async move { inner.delete(&name, id).await }).await?
    }

    /// Brings a topic back with its id, records, offsets and configuration, under its old name or another.
    pub async fn undelete(&self, which: Deleted, new_name: Option<&str>) -> Result<TopicDescription, TopicError> {
        let new_name = new_name.map(ToOwned::to_owned);
        self.run(move |inner| async move { inner.undelete(which, new_name).await }).await?
    }

    /// Makes or changes the topics of a manifest so that they are as it says. Others are left alone.
    pub async fn apply(&self, manifest: Vec<taffrail_crds::Topic>) -> Result<Applied, TopicError> {
        self.run(move |inner| async move { inner.apply(manifest).await }).await?
    }

    /// Lets the topics go whose time in the trash is over; answers how many.
    pub async fn purge(&self) -> u64 {
        self.run(move |inner| async move { inner.purge().await }).await.unwrap_or(0)
    }

    /// A topic that is not in the trash.
    pub async fn describe(&self, name: &str) -> Result<TopicDescription, TopicError> {
        let known = self.inner.known.lock().await;
        let stored = known.topics.get(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        Ok(object::describe(&stored.topic, None))
    }

    /// All topics by name, with those in the trash where asked for.
    pub async fn list(&self, include_deleted: bool) -> Result<Vec<TopicDescription>, TopicError> {
        let known = self.inner.known.lock().await;
        let mut topics: Vec<_> = known.topics.values().map(|stored| object::describe(&stored.topic, None)).collect();
        if include_deleted {
            let trashed = known.trash.values().map(|trashed| &trashed.deleted);
            topics.extend(trashed.map(|deleted| object::describe(&deleted.topic, Some(deleted.trash()))));
        }
        topics.sort_by(|a, b| (&a.name, a.trash.map(|t| t.deleted_at)).cmp(&(&b.name, b.trash.map(|t| t.deleted_at))));
        Ok(topics)
    }

    /// Logs whose topic is not known: kept, not served (M9).
    pub async fn orphans(&self) -> Vec<PartitionId> {
        self.inner.orphans_of(&*self.inner.known.lock().await)
    }

    /// Ends changes, then stops all partitions after what is in flight. Their topics stay known; what is asked of them is
    /// answered as closed.
    pub async fn stop(&self) {
        self.inner.known.lock().await.stopping = true;
        self.inner.serving.stop().await;
    }

    /// Runs a change in a task of its own, which nobody cancels.
    async fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        change: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<T, TopicError> {
        tokio::spawn(change(self.inner.clone())).await.map_err(|_| TopicError::Stopping)
    }
}

#[cfg(test)]
mod tests;
