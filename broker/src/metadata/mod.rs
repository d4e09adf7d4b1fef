//! Where topics and other cluster objects are kept: small documents with versions, changed by compare-and-swap. In the
//! process's own database ([`embedded`]) or in Kubernetes; both keep the same contract (`contract.rs` tests it).
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
//!   It may leave out states that were followed by a newer one of the same object. An object that was deleted and made
//!   again is told as deleted and then as there.
//!
//! None of that holds for a store that is put back to an older copy of itself, as when etcd is restored from a backup. Then
//! watches tell the older states, and their readers have to notice that these are older (M5).
//!
//! # Where the two differ
//!
//! In a cluster they do not: there [`EmbeddedApi`] stands before the embedded store. That alone differs in this:
//!
//! - Kubernetes takes objects that keep their definition's rules, and fills in their defaults: what is read back may say
//!   more than what was written. The embedded store checks all kinds but topics by the same rules, and fills in nothing.
//! - Kubernetes keeps the `status` of Cluster and Topic apart: [`replace`](MetadataStore::replace) does not change it.
//! - Kubernetes keeps an object that has finalizers after its deletion, with a `deletionTimestamp`, until they are gone.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

// The end-to-end tests check the store on a real API server by it.
#[doc(hidden)]
pub mod contract;
pub mod embedded;
pub mod kubernetes;

pub use embedded::EmbeddedStore;
pub use embedded::api::EmbeddedApi;
pub use kubernetes::KubernetesStore;

/// What sort of object; the Kubernetes kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A topic that is served.
    Topic,
    /// A topic in the trash, by its topic id: of a broker that is alone only, there is no such kind in Kubernetes.
    DeletedTopic,
    /// What a person wants of a cluster.
    Cluster,
    /// Partitions of a topic, with leaders and replicas.
    PartitionSlice,
    /// What a cluster remembers as a whole.
    ClusterState,
    /// Registration of a broker.
    Broker,
    /// Who may be controller: of brokers that share an embedded store only. That of Kubernetes is no object of this kind, for
    /// whoever renews it waits behind no other change.
    Lease,
}

impl Kind {
    /// Its name on disk and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "Topic",
            Self::DeletedTopic => "DeletedTopic",
            Self::Cluster => "Cluster",
            Self::PartitionSlice => "PartitionSlice",
            Self::ClusterState => "ClusterState",
            Self::Broker => "Broker",
            Self::Lease => "Lease",
        }
    }

    /// Its definition in Kubernetes, if it has one.
    pub fn definition(self) -> Option<taffrail_crds::Kind> {
        taffrail_crds::Kind::from_name(self.as_str())
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
    /// What it says: `apiVersion`, `kind`, `metadata` without uid, resourceVersion and managedFields, `spec`, `status`.
    pub document: Value,
}

impl Object {
    /// Why it cannot be understood.
    pub fn malformed(&self, what: impl Into<String>) -> MetadataError {
        MetadataError::Malformed { kind: self.kind, name: self.name.clone(), what: what.into() }
    }
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
    /// The object breaks rules of its kind: it stays as it was, and trying again does not help.
    #[error("{kind} {name:?} was refused: {what}", kind = .kind.as_str())]
    Refused {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What is wrong, as the API server says it.
        what: String,
    },
    /// The store could not be reached or failed; nothing was changed.
    #[error("metadata is not available: {0}")]
    Unavailable(String),
    /// The store failed during a change: it may have happened (M3).
    #[error("the outcome of a metadata change is unknown: {0}")]
    Unknown(String),
}

/// Versioned documents of one namespace; see the module for what it promises.
pub trait MetadataStore: Send + Sync + 'static {
    /// An object, if it exists.
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>>;
    /// All objects of a kind, by name.
    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>>;
    /// All objects of a kind, and what becomes of them. The embedded store's ends when the store is closed or the reader
    /// fell too far behind: watch again. Kubernetes' never ends.
    fn watch(&self, kind: Kind) -> BoxStream<'static, Event>;
    /// Makes an object.
    fn create<'a>(&'a self, kind: Kind, name: &'a str, document: Value)
    -> BoxFuture<'a, Result<Object, MetadataError>>;
    /// Puts `object.document` in the place of the stored one if that still has `object.resource_version`.
    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>>;
    /// Removes the object if it still has `object.resource_version`.
    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>>;
    /// The objects of another namespace.
    fn in_namespace(&self, namespace: &str) -> Arc<dyn MetadataStore>;
    /// The same store for changes that have to be over at `end`: then they are given up, with [`MetadataError::Unknown`] if
    /// they may have happened (M16). A change of the embedded store is a write to the local disk and is not cut short.
    fn until(&self, end: Instant) -> Arc<dyn MetadataStore>;
}
