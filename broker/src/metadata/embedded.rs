//! Metadata in a database of the process: for a broker that is alone, and, with what [`api`] adds, for brokers of one
//! process.
//!
//! # Format
//!
//! Key `object/<kind>/<name>`, for other namespaces than the store's own `object/<kind>@<namespace>/<name>`; value JSON `{"v":1,"uid":"<uuid>","resourceVersion":<number>,"document":{…}}`; key
//! `object-revision`: the last resource version, `u64` big endian, written with each change.
//!
//! Nothing is cached: metadata is read at starts and by people, and so no failed write can leave a wrong copy behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taffrail_crds::admission::admit_kind;
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Event, Kind, MetadataError, MetadataStore, Object};
use crate::context::Context;
use crate::storage::{MetaStore, StorageError};

pub mod api;

const VERSION: u32 = 1;
const REVISION_KEY: &[u8] = b"object-revision";
/// Changes that a watcher may be behind before its watch ends.
const WATCH_BUFFER: usize = 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    v: u32,
    uid: Uuid,
    resource_version: u64,
    document: Value,
}

/// The store; cheap to clone.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    /// Of the objects; none: the store's own.
    namespace: Option<Arc<str>>,
}

/// The store for those who may block.
struct Local(EmbeddedStore);

struct Inner {
    context: Context,
    meta: Arc<dyn MetaStore>,
    changes: broadcast::Sender<(Option<Arc<str>>, Event)>,
    /// Held by each change from its check to its event.
    changing: Mutex<()>,
}

impl EmbeddedStore {
    /// On what is there in `meta`.
    pub fn new(context: Context, meta: Arc<dyn MetaStore>) -> Self {
        let changes = broadcast::Sender::new(WATCH_BUFFER);
        Self { inner: Arc::new(Inner { context, meta, changes, changing: Mutex::new(()) }), namespace: None }
    }

    /// Runs `work` on a thread that may block, to its end even if nobody waits for it any more.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Local) -> Result<T, MetadataError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MetadataError>> {
        let local = Local(self.clone());
        async move {
            let done = tokio::task::spawn_blocking(move || work(&local)).await;
            done.unwrap_or_else(|error| Err(MetadataError::Unknown(error.to_string())))
        }
        .boxed()
    }
}

impl Local {
    fn key(&self, kind: Kind, name: &str) -> Vec<u8> {
        key(kind, self.0.namespace.as_deref(), name)
    }

    fn get(&self, kind: Kind, name: &str) -> Result<Option<Object>, MetadataError> {
        let bytes = self.0.inner.meta.get(&self.key(kind, name)).map_err(|error| unread(&error))?;
        bytes.map(|bytes| decode(kind, name, &bytes)).transpose()
    }

    fn list(&self, kind: Kind) -> Result<Vec<Object>, MetadataError> {
        let prefix = self.key(kind, "");
        let found = self.0.inner.meta.scan(&prefix).map_err(|error| unread(&error))?;
        let object = |(key, bytes): (Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            decode(kind, &name, &bytes)
        };
        found.into_iter().map(object).collect()
    }

    /// All objects and, without a gap, the changes after.
    fn watch(&self, kind: Kind) -> Result<(Vec<Object>, Changes), MetadataError> {
        let _changing = self.0.inner.changing.lock();
        Ok((self.list(kind)?, self.0.inner.changes.subscribe()))
    }

    fn create(&self, kind: Kind, name: String, document: Value) -> Result<Object, MetadataError> {
        let _changing = self.0.inner.changing.lock();
        if self.get(kind, &name)?.is_some() {
            return Err(MetadataError::Exists { kind, name });
        }
        admit(kind, &name, &document, None)?;
        self.put(kind, name, self.0.inner.context.random_uuid(), document)
    }

    fn replace(&self, object: Object) -> Result<Object, MetadataError> {
        let _changing = self.0.inner.changing.lock();
        let current = self.check_current(&object)?;
        admit(object.kind, &object.name, &object.document, Some(&current.document))?;
        self.put(object.kind, object.name, object.uid, object.document)
    }

    fn delete(&self, object: &Object) -> Result<(), MetadataError> {
        let _changing = self.0.inner.changing.lock();
        let last = self.check_current(object)?;
        let revision = self.next_revision()?;
        self.write(vec![(self.key(object.kind, &object.name), None)], revision)?;
        self.tell(Event::Deleted(last));
        Ok(())
    }

    fn check_current(&self, object: &Object) -> Result<Object, MetadataError> {
        let (kind, name) = (object.kind, object.name.clone());
        match self.get(kind, &name)? {
            None => Err(MetadataError::NotFound { kind, name }),
            Some(current) if current.resource_version != object.resource_version || current.uid != object.uid => {
                Err(MetadataError::Conflict { kind, name })
            }
            Some(current) => Ok(current),
        }
    }

    fn put(&self, kind: Kind, name: String, uid: Uuid, document: Value) -> Result<Object, MetadataError> {
        let revision = self.next_revision()?;
        let envelope = Envelope { v: VERSION, uid, resource_version: revision, document };
        let bytes = serde_json::to_vec(&envelope).expect("JSON values and numbers serialize");
        self.write(vec![(self.key(kind, &name), Some(bytes))], revision)?;
        let object = Object { kind, name, uid, resource_version: revision.to_string(), document: envelope.document };
        self.tell(Event::Applied(object.clone()));
        Ok(object)
    }

    fn next_revision(&self) -> Result<u64, MetadataError> {
        let bytes = self.0.inner.meta.get(REVISION_KEY).map_err(|error| unread(&error))?;
        let last = bytes.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
        Ok(last.unwrap_or(0) + 1)
    }

    fn write(&self, mut changes: Vec<(Vec<u8>, Option<Vec<u8>>)>, revision: u64) -> Result<(), MetadataError> {
        changes.push((REVISION_KEY.to_vec(), Some(revision.to_be_bytes().to_vec())));
        self.0.inner.meta.write(changes).map_err(|error| match error {
            StorageError::DiskFull { .. } | StorageError::Closed => MetadataError::Unavailable(error.to_string()),
            error => MetadataError::Unknown(error.to_string()),
        })
    }

    fn tell(&self, event: Event) {
        // Nobody may be watching.
        let _ = self.0.inner.changes.send((self.0.namespace.clone(), event));
    }
}

impl MetadataStore for EmbeddedStore {
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>> {
        let name = name.to_owned();
        self.blocking(move |local| local.get(kind, &name))
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>> {
        self.blocking(move |local| local.list(kind))
    }

    fn watch(&self, kind: Kind) -> BoxStream<'static, Event> {
        let namespace = self.namespace.clone();
        let listed = self.blocking(move |local| local.watch(kind));
        stream::once(listed)
            .filter_map(|listed| async { listed.ok() })
            .flat_map(move |(objects, changes)| {
                let objects = objects.into_iter().map(Event::Applied).chain([Event::Listed]);
                stream::iter(objects).chain(changes_of(kind, namespace.clone(), changes))
            })
            .boxed()
    }

    fn create<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        document: Value,
    ) -> BoxFuture<'a, Result<Object, MetadataError>> {
        let name = name.to_owned();
        self.blocking(move |local| local.create(kind, name, document))
    }

    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>> {
        let object = object.clone();
        self.blocking(move |local| local.replace(object))
    }

    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>> {
        let object = object.clone();
        self.blocking(move |local| local.delete(&object))
    }

    fn in_namespace(&self, namespace: &str) -> Arc<dyn MetadataStore> {
        Arc::new(Self { inner: self.inner.clone(), namespace: Some(namespace.into()) })
    }

    fn until(&self, _: Instant) -> Arc<dyn MetadataStore> {
        Arc::new(self.clone())
    }
}

type Changes = broadcast::Receiver<(Option<Arc<str>>, Event)>;

/// Ends when the reader fell behind or the store is gone.
fn changes_of(kind: Kind, namespace: Option<Arc<str>>, changes: Changes) -> impl futures::Stream<Item = Event> {
    let all = stream::unfold(changes, |mut changes| async move { Some((changes.recv().await.ok()?, changes)) });
    all.filter_map(move |(of, event)| {
        let concerned = match &event {
            Event::Applied(object) | Event::Deleted(object) => object.kind == kind && of == namespace,
            Event::Listed => false,
        };
        futures::future::ready(concerned.then_some(event))
    })
}

/// As an API server would. Topics are checked by those who write them, for they name the faults to people.
fn admit(kind: Kind, name: &str, new: &Value, old: Option<&Value>) -> Result<(), MetadataError> {
    let Some(definition) = kind.definition().filter(|definition| *definition != taffrail_crds::Kind::Topic) else {
        return Ok(());
    };
    admit_as(definition, kind, name, new, old)
}

fn admit_as(
    definition: taffrail_crds::Kind,
    kind: Kind,
    name: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), MetadataError> {
    let faults = admit_kind(definition, new, old);
    if faults.is_empty() {
        return Ok(());
    }
    let what = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(MetadataError::Refused { kind, name: name.to_owned(), what })
}

fn key(kind: Kind, namespace: Option<&str>, name: &str) -> Vec<u8> {
    let namespace = namespace.map(|namespace| format!("@{namespace}")).unwrap_or_default();
    format!("object/{}{namespace}/{name}", kind.as_str()).into_bytes()
}

/// Names of the topics by their ids, served or in the trash, as far as they can be read: for tools on a directory that no
/// broker uses.
pub fn topic_names(meta: &dyn MetaStore) -> Result<BTreeMap<Uuid, String>, StorageError> {
    let mut names = BTreeMap::new();
    for kind in [Kind::DeletedTopic, Kind::Topic] {
        for (_, value) in meta.scan(&key(kind, None, ""))? {
            let Ok(envelope) = serde_json::from_slice::<Envelope>(&value) else { continue };
            let document = &envelope.document;
            let topic = if kind == Kind::DeletedTopic { &document["topic"] } else { document };
            let id = topic["status"]["topicId"].as_str().and_then(|id| Uuid::try_parse(id).ok());
            let name = topic["spec"]["topicName"].as_str().or_else(|| topic["metadata"]["name"].as_str());
            if let (Some(id), Some(name)) = (id, name) {
                names.insert(id, name.to_owned());
            }
        }
    }
    Ok(names)
}

fn decode(kind: Kind, name: &str, bytes: &[u8]) -> Result<Object, MetadataError> {
    let malformed = |what: String| MetadataError::Malformed { kind, name: name.to_owned(), what };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    if envelope.v != VERSION {
        return Err(malformed(format!("version {} instead of {VERSION}", envelope.v)));
    }
    let resource_version = envelope.resource_version.to_string();
    Ok(Object { kind, name: name.to_owned(), uid: envelope.uid, resource_version, document: envelope.document })
}

fn unread(error: &StorageError) -> MetadataError {
    MetadataError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::metadata::contract;
    use crate::storage::Storage;
    use crate::storage::memory::Disk;

    fn store(meta: &Arc<dyn MetaStore>) -> EmbeddedStore {
        let clock = Arc::new(ManualClock::new(0, "boot"));
        EmbeddedStore::new(Context::seeded(clock, 7, &**meta).unwrap(), meta.clone())
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&|| async { Arc::new(store(&Disk::new().open().meta())) as Arc<dyn MetadataStore> }).await;
    }

    #[tokio::test]
    async fn versions_go_on_after_a_reopening() {
        let meta = Disk::new().open().meta();
        let first = store(&meta).create(Kind::Topic, "a", Value::Null).await.unwrap();
        store(&meta).delete(&first).await.unwrap();
        let second = store(&meta).create(Kind::Topic, "a", Value::Null).await.unwrap();
        assert_ne!(first.resource_version, second.resource_version);
    }

    #[tokio::test]
    async fn what_is_stored_in_another_form_is_named_and_not_taken_for_absent() {
        let meta = Disk::new().open().meta();
        meta.write(vec![(key(Kind::Topic, None, "a"), Some(b"{\"v\":2}".to_vec()))]).unwrap();
        let error = store(&meta).get(Kind::Topic, "a").await.unwrap_err();
        assert!(matches!(error, MetadataError::Malformed { .. }), "{error}");
    }
}
