//! Where topics and other cluster objects are kept: small documents with versions, changed by compare-and-swap. In the
//! broker's own database ([`embedded`]) or in Kubernetes; both keep the same contract (`contract.rs` tests it).
//!
//! # What an implementation promises
//!
//! - An object is named by kind and name. While it exists no other has that name; when it is deleted and made again it has
//!   another uid.
//! - Each change gives it another resource version. [`replace`](MetadataStore::replace) and
//!   [`delete`](MetadataStore::delete) take effect only if the object still has the version that was read.
//! - What a call answered is durable. Reads see all changes that were answered before them.
//! - A failed change changed nothing, but for [`MetadataError::Unknown`]: read again before deciding (M3).
//! - A [watch](MetadataStore::watch) begins with all objects there are and then tells each of them that changes, in order.
//!   It may leave out states that were followed by a newer one of the same object.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use uuid::Uuid;

#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;

pub use embedded::EmbeddedStore;

/// What sort of object; the Kubernetes kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A topic that is served.
    Topic,
    /// A topic in the trash, by its topic id.
    DeletedTopic,
}

impl Kind {
    /// Its name on disk and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::DeletedTopic => "DeletedTopic",
        }
    }
}

/// An object and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name among those of its kind.
    pub name: String,
    /// Given when it was created.
    pub uid: Uuid,
    /// Changes with each change; opaque, only to be compared for equality.
    pub resource_version: String,
    /// What it says. The store does not look at it.
    pub document: Value,
}

/// A change that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is so now.
    Applied(Object),
    /// The object is gone; its last state.
    Deleted(Object),
    /// All objects that were there when the watch began have been told.
    Listed,
}

/// Why the metadata was not read or changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataError {
    /// An object of this kind and name exists.
    #[error("{kind} {name:?} exists already", kind = .kind.as_str())]
    Exists {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The object does not exist.
    #[error("{kind} {name:?} does not exist", kind = .kind.as_str())]
    NotFound {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The object is not as it was read: read it again.
    #[error("{kind} {name:?} was changed by someone else: read it again", kind = .kind.as_str())]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// What is stored cannot be understood.
    #[error("{kind} {name:?} is stored in a form that is not understood: {what}", kind = .kind.as_str())]
    Malformed {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The store could not be reached or failed; nothing was changed.
    #[error("metadata is not available: {0}")]
    Unavailable(String),
    /// The store failed during a change: it may have happened (M3).
    #[error("the outcome of a metadata change is unknown: {0}")]
    Unknown(String),
}

/// Versioned documents; see the module for what it promises.
pub trait MetadataStore: Send + Sync + 'static {
    /// An object, if it exists.
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>>;
    /// All objects of a kind, by name.
    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>>;
    /// All objects of a kind, and what becomes of them. Ends when the store is closed or the reader fell too far behind:
    /// watch again.
    fn watch(&self, kind: Kind) -> BoxStream<'static, Event>;
    /// Makes an object.
    fn create<'a>(&'a self, kind: Kind, name: &'a str, document: Value)
    -> BoxFuture<'a, Result<Object, MetadataError>>;
    /// Puts `object.document` in the place of the stored one if that still has `object.resource_version`.
    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>>;
    /// Removes the object if it still has `object.resource_version`.
    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>>;
}
