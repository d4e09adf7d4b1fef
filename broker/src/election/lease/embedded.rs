//! The Lease as an object of the embedded store, in the form that Kubernetes gives to it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{LeaseApi, Unread, Wanted, name};
use crate::clock::time_of;
use crate::election::core::{Seen, WriteError};
use crate::metadata::{Kind, MetadataError, MetadataStore, Object};

/// Reads and writes the Lease; keeps nothing, for the whole object is written anew.
pub struct EmbeddedLease {
    store: Arc<dyn MetadataStore>,
    name: String,
}

impl EmbeddedLease {
    /// Of the Cluster `cluster`.
    pub fn new(store: Arc<dyn MetadataStore>, cluster: &str) -> Self {
        Self { store, name: name(cluster) }
    }

    /// Takes away what a process left that is known to be dead: nobody has to wait until it expires.
    pub async fn remove(&self) -> Result<(), MetadataError> {
        match self.store.get(Kind::Lease, &self.name).await? {
            Some(lease) => self.store.delete(&lease).await,
            None => Ok(()),
        }
    }

    async fn put(&self, wanted: Wanted) -> Result<Seen, WriteError> {
        let document = document(&self.name, &wanted);
        let written = match &wanted.over {
            None => self.store.create(Kind::Lease, &self.name, document).await,
            Some(over) => {
                let (uid, version) = over.split_once('/').ok_or(WriteError::Conflict)?;
                let uid = Uuid::try_parse(uid).map_err(|_| WriteError::Conflict)?;
                let (name, resource_version) = (self.name.clone(), version.to_owned());
                self.store.replace(&Object { kind: Kind::Lease, name, uid, resource_version, document }).await
            }
        };
        written.as_ref().map(seen).map_err(failed)
    }
}

impl LeaseApi for EmbeddedLease {
    fn read(&self) -> BoxFuture<'_, Result<Option<Seen>, Unread>> {
        async move {
            let lease = self.store.get(Kind::Lease, &self.name).await.map_err(|error| {
                tracing::warn!(%error, "cannot read the controller's Lease");
                Unread
            })?;
            Ok(lease.as_ref().map(seen))
        }
        .boxed()
    }

    fn write(&self, wanted: Wanted) -> BoxFuture<'_, Result<Seen, WriteError>> {
        self.put(wanted).boxed()
    }
}

fn document(name: &str, wanted: &Wanted) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": name },
        "spec": {
            "holderIdentity": wanted.holder,
            "leaseDurationSeconds": wanted.duration.as_secs_f64().ceil() as i64,
            "renewTime": humantime::format_rfc3339_millis(time_of(wanted.wall_millis)).to_string(),
        },
    })
}

fn seen(lease: &Object) -> Seen {
    let holder = lease.document["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
    Seen { version: format!("{}/{}", lease.uid, lease.resource_version), holder: holder.map(str::to_owned) }
}

fn failed(error: &MetadataError) -> WriteError {
    match error {
        MetadataError::Exists { .. } | MetadataError::Conflict { .. } | MetadataError::NotFound { .. } => {
            WriteError::Conflict
        }
        MetadataError::Unknown(_) => WriteError::Unknown,
        _ => WriteError::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::context::Context;
    use crate::metadata::EmbeddedStore;
    use crate::storage::Storage;
    use crate::storage::memory::Disk;

    fn wanted(over: Option<&Seen>, holder: Option<&str>) -> Wanted {
        Wanted {
            over: over.map(|seen| seen.version.clone()),
            holder: holder.map(str::to_owned),
            duration: Duration::from_secs(6),
            wall_millis: 0,
        }
    }

    #[tokio::test]
    async fn of_two_that_write_over_one_version_one_wins() {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let lease = EmbeddedLease::new(Arc::new(EmbeddedStore::new(context, meta)), "main");
        assert_eq!(lease.read().await, Ok(None));
        let first = lease.write(wanted(None, Some("a"))).await.unwrap();
        assert_eq!(lease.read().await, Ok(Some(first.clone())));
        assert_eq!(lease.write(wanted(None, Some("b"))).await, Err(WriteError::Conflict), "it is there already");
        let renewed = lease.write(wanted(Some(&first), Some("a"))).await.unwrap();
        assert_ne!(renewed.version, first.version, "each renewal is seen");
        assert_eq!(lease.write(wanted(Some(&first), Some("b"))).await, Err(WriteError::Conflict));
        let released = lease.write(wanted(Some(&renewed), None)).await.unwrap();
        assert_eq!((released.holder.as_deref(), lease.read().await), (None, Ok(Some(released.clone()))));
        let strange = Seen { version: "x".to_owned(), holder: None };
        assert_eq!(lease.write(wanted(Some(&strange), Some("b"))).await, Err(WriteError::Conflict));
        lease.remove().await.unwrap();
        assert_eq!(lease.read().await, Ok(None));
        lease.remove().await.unwrap();
    }
}
