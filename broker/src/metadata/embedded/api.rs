//! What an API server does beyond keeping objects, over the embedded store: for brokers that form a cluster without
//! Kubernetes.
//!
//! - An object gets its name, its namespace, the time of its creation, and a `generation` that rises with its `spec`.
//! - Defaults of its definition are filled in. Topics are checked like all other kinds.
//! - The `status` of Cluster and Topic is kept apart: [`replace`](MetadataStore::replace) leaves it as it is, and
//!   [`EmbeddedApi::replace_status`] changes nothing else.
//! - An object that has finalizers stays after its deletion, with a `deletionTimestamp`, until they are gone.
//!
//! Kinds that Kubernetes does not have are kept as they are given.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::{Map, Value, json};
use taffrail_crds::admission::with_defaults_of;
use tokio::time::Instant;

use super::{EmbeddedStore, admit_as};
use crate::clock::time_of;
use crate::context::Context;
use crate::metadata::{Event, Kind, MetadataError, MetadataStore, Object};

/// The objects of one namespace; cheap to clone.
#[derive(Clone)]
pub struct EmbeddedApi {
    context: Context,
    /// Has the objects of the namespace `home` as its own.
    root: EmbeddedStore,
    home: Arc<str>,
    namespace: Arc<str>,
    /// Of `namespace`.
    store: Arc<dyn MetadataStore>,
}

/// What of an object is put in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All but a status that is kept apart.
    Main,
    /// The status.
    Status,
}

impl EmbeddedApi {
    /// The objects that are the store's own are those of `namespace`.
    pub fn new(context: Context, store: EmbeddedStore, namespace: &str) -> Self {
        let namespace: Arc<str> = namespace.into();
        Self { context, store: Arc::new(store.clone()), root: store, home: namespace.clone(), namespace }
    }

    /// Puts the `status` of `object.document` in the place of the stored one if the object still has
    /// `object.resource_version`.
    pub async fn replace_status(&self, object: &Object) -> Result<Object, MetadataError> {
        self.put(object, Part::Status).await
    }

    fn now(&self) -> String {
        humantime::format_rfc3339_seconds(time_of(self.context.wall_millis())).to_string()
    }

    async fn make(&self, kind: Kind, name: &str, document: Value) -> Result<Object, MetadataError> {
        let Some(definition) = kind.definition() else { return self.store.create(kind, name, document).await };
        let mut new = document;
        if let Some(fields) = new.as_object_mut() {
            if has_status(kind) {
                fields.shift_remove("status");
            }
            let metadata = metadata_of(fields);
            metadata.shift_remove("deletionTimestamp");
            metadata.insert("name".to_owned(), name.into());
            metadata.insert("namespace".to_owned(), (*self.namespace).into());
            metadata.insert("creationTimestamp".to_owned(), self.now().into());
            metadata.insert("generation".to_owned(), 1.into());
            new = with_defaults_of(definition, &new);
        }
        admit_topic(kind, name, &new, None)?;
        self.store.create(kind, name, new).await
    }

    async fn put(&self, object: &Object, part: Part) -> Result<Object, MetadataError> {
        let Some(definition) = object.kind.definition() else { return self.store.replace(object).await };
        let old = self.current(object).await?;
        let new = match part {
            Part::Main if object.document.is_object() => {
                successor(object.kind, &old.document, with_defaults_of(definition, &object.document))
            }
            Part::Main => object.document.clone(),
            Part::Status => with_status(&old.document, &object.document),
        };
        admit_topic(object.kind, &object.name, &new, Some(&old.document))?;
        let next = Object { document: new, ..object.clone() };
        if is_deleting(&next.document) && !has_finalizers(&next.document) {
            return self.store.delete(&old).await.map(|()| next);
        }
        self.store.replace(&next).await
    }

    async fn remove(&self, object: &Object) -> Result<(), MetadataError> {
        let old = self.current(object).await?;
        if !has_finalizers(&old.document) {
            return self.store.delete(&old).await;
        }
        if is_deleting(&old.document) {
            return Ok(());
        }
        let mut deleting = old;
        deleting.document["metadata"]["deletionTimestamp"] = self.now().into();
        self.store.replace(&deleting).await.map(drop)
    }

    /// The stored object, if it is still the one that was read.
    async fn current(&self, read: &Object) -> Result<Object, MetadataError> {
        let (kind, name) = (read.kind, read.name.clone());
        match self.store.get(kind, &name).await? {
            None => Err(MetadataError::NotFound { kind, name }),
            Some(old) if old.uid != read.uid || old.resource_version != read.resource_version => {
                Err(MetadataError::Conflict { kind, name })
            }
            Some(old) => Ok(old),
        }
    }
}

/// The store below checks all other kinds.
fn admit_topic(kind: Kind, name: &str, new: &Value, old: Option<&Value>) -> Result<(), MetadataError> {
    if kind == Kind::Topic { admit_as(taffrail_crds::Kind::Topic, kind, name, new, old) } else { Ok(()) }
}

/// Whether the API keeps the status of this kind apart.
fn has_status(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Topic)
}

fn metadata_of(object: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("it is an object now")
}

/// What is stored when `next` is put in the place of `old`.
fn successor(kind: Kind, old: &Value, mut next: Value) -> Value {
    let Some(fields) = next.as_object_mut() else { return next };
    let changed = fields.get("spec") != old.get("spec");
    if has_status(kind) {
        fields.shift_remove("status");
        fields.extend(old.get("status").map(|status| ("status".to_owned(), status.clone())));
    }
    let metadata = metadata_of(fields);
    for key in ["name", "namespace", "creationTimestamp", "deletionTimestamp", "generation"] {
        metadata.shift_remove(key);
        metadata.extend(old["metadata"].get(key).map(|value| (key.to_owned(), value.clone())));
    }
    if changed {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        metadata.insert("generation".to_owned(), generation.saturating_add(1).into());
    }
    next
}

fn with_status(old: &Value, new: &Value) -> Value {
    let mut next = old.clone();
    match new.get("status") {
        Some(status) => next["status"] = status.clone(),
        None => drop(next.as_object_mut().and_then(|fields| fields.shift_remove("status"))),
    }
    next
}

fn is_deleting(document: &Value) -> bool {
    !document["metadata"]["deletionTimestamp"].is_null()
}

fn has_finalizers(document: &Value) -> bool {
    document["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

impl MetadataStore for EmbeddedApi {
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>> {
        self.store.get(kind, name)
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>> {
        self.store.list(kind)
    }

    fn watch(&self, kind: Kind) -> BoxStream<'static, Event> {
        self.store.watch(kind)
    }

    fn create<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        document: Value,
    ) -> BoxFuture<'a, Result<Object, MetadataError>> {
        self.make(kind, name, document).boxed()
    }

    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>> {
        self.put(object, Part::Main).boxed()
    }

    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>> {
        self.remove(object).boxed()
    }

    fn in_namespace(&self, namespace: &str) -> Arc<dyn MetadataStore> {
        let is_home = namespace == &*self.home;
        let store: Arc<dyn MetadataStore> =
            if is_home { Arc::new(self.root.clone()) } else { self.root.in_namespace(namespace) };
        Arc::new(Self { namespace: namespace.into(), store, ..self.clone() })
    }

    fn until(&self, _: Instant) -> Arc<dyn MetadataStore> {
        Arc::new(self.clone())
    }
}

#[cfg(test)]
mod tests;
