//! The topic controller: makes, changes, removes and brings back topics.
//!
//! What is wanted stands in `Topic` objects in the [`MetadataStore`]; the controller admits them by the rules of
//! `taffrail_crds`, gives them their identity, makes their logs and serves them through [`Topics`]. One change at a time.

use std::sync::Arc;

use taffrail_crds::config::ConfigEntry;
use uuid::Uuid;

use crate::context::Context;
use crate::metadata::MetadataStore;
use crate::storage::Storage;
use crate::topics::Topics;

mod error;

pub use error::TopicError;

/// A topic to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// From 1; `None`: the default.
    pub partitions: Option<i32>,
    /// Keys (a manifest's or Kafka's) and values.
    pub config: Vec<(String, String)>,
}

/// Changes of a topic.
#[derive(Clone, Debug, Default)]
pub struct TopicChange {
    /// Not below the present number; `None`: as it is.
    pub partitions: Option<i32>,
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

/// Makes, changes, removes topics and brings them back.
pub struct Controller {}

impl Controller {
    /// Reads all topics from the metadata, opens their logs and serves them. Logs without a topic are kept and reported (M9).
    pub async fn start(
        _context: Context,
        _storage: Arc<dyn Storage>,
        _metadata: Arc<dyn MetadataStore>,
        _topics: Arc<Topics>,
    ) -> Result<Arc<Self>, TopicError> {
        todo!()
    }

    /// Makes a topic; with `validate_only` it only says whether it would.
    pub async fn create(&self, _topic: NewTopic, _validate_only: bool) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// Changes a topic.
    pub async fn alter(
        &self,
        _name: &str,
        _change: TopicChange,
        _validate_only: bool,
    ) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// Puts a topic in the trash. It is not served any more; its records stay until its window is over.
    pub async fn delete(&self, _name: &str, _id: Option<Uuid>) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// Brings a topic back with its id, records, offsets and configuration, under its old name or another.
    pub async fn undelete(&self, _which: Deleted, _new_name: Option<&str>) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// A topic that is not in the trash.
    pub async fn describe(&self, _name: &str) -> Result<TopicDescription, TopicError> {
        todo!()
    }

    /// All topics by name, with those in the trash where asked for.
    pub async fn list(&self, _include_deleted: bool) -> Result<Vec<TopicDescription>, TopicError> {
        todo!()
    }

    /// Makes or changes the topics of a manifest so that they are as it says. Others are left alone.
    pub async fn apply(&self, _manifest: Vec<taffrail_crds::Topic>) -> Result<Applied, TopicError> {
        todo!()
    }

    /// Logs whose topic is not known: kept, not served (M9).
    pub fn orphans(&self) -> Vec<crate::storage::PartitionId> {
        todo!()
    }

    /// Stops all partitions after what they have in line.
    pub async fn stop(&self) {
        todo!()
    }
}
