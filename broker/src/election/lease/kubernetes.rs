//! The Lease as an object of Kubernetes.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use taffrail_crds::CLUSTER_LABEL;

use super::{LeaseApi, Unread, Wanted, name};
use crate::election::core::{Seen, WriteError};
use crate::metadata::kubernetes::errors::Failure;
use crate::metadata::{Kind, MetadataError};

/// Reads and writes the Lease; what it read last is kept, for a write replaces the whole object.
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
    cluster: String,
    last: Mutex<Option<Lease>>,
}

impl KubernetesLease {
    /// Of the Cluster `cluster` in `namespace`.
    pub fn new(client: kube::Client, namespace: &str, cluster: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name(cluster), cluster: cluster.to_owned(), last: Mutex::default() }
    }

    async fn put(&self, wanted: Wanted) -> Result<Seen, WriteError> {
        let last = self.last.lock().clone().filter(|_| wanted.over.is_some());
        if wanted.over != last.as_ref().map(version) {
            return Err(WriteError::Conflict);
        }
        let (parameters, lease) = (PostParams::default(), self.made(last, &wanted));
        let written = match wanted.over {
            None => self.api.create(&parameters, &lease).await,
            Some(_) => self.api.replace(&self.name, &parameters, &lease).await,
        };
        written.map(|lease| self.keep(lease)).map_err(|error| {
            let failure = Failure::from(error);
            tracing::debug!(?failure, "the controller's Lease was not written");
            match failure.of_change(Kind::Lease, &self.name) {
                MetadataError::Exists { .. } | MetadataError::Conflict { .. } | MetadataError::NotFound { .. } => {
                    WriteError::Conflict
                }
                MetadataError::Unknown(_) => WriteError::Unknown,
                _ => WriteError::Unavailable,
            }
        })
    }

    fn made(&self, last: Option<Lease>, wanted: &Wanted) -> Lease {
        let labels = [(CLUSTER_LABEL.to_owned(), self.cluster.clone())].into();
        let metadata = ObjectMeta { name: Some(self.name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let Lease { metadata, spec } = last.unwrap_or(Lease { metadata, spec: None });
        let old = spec.unwrap_or_default();
        let now = Timestamp::from_millisecond(wanted.wall_millis).ok().map(MicroTime);
        let changes = old.holder_identity != wanted.holder;
        let spec = LeaseSpec {
            holder_identity: wanted.holder.clone(),
            // The API takes whole seconds; brokers go by their own setting.
            lease_duration_seconds: Some(wanted.duration.as_secs_f64().ceil() as i32),
            acquire_time: if changes { now.clone() } else { old.acquire_time },
            renew_time: now,
            lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(changes))),
            ..LeaseSpec::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn keep(&self, lease: Lease) -> Seen {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let seen = Seen { version: version(&lease), holder: holder.filter(|holder| !holder.is_empty()) };
        *self.last.lock() = Some(lease);
        seen
    }
}

impl LeaseApi for KubernetesLease {
    fn read(&self) -> BoxFuture<'_, Result<Option<Seen>, Unread>> {
        async move {
            let lease = self.api.get_opt(&self.name).await.map_err(|error| {
                tracing::warn!(%error, "cannot read the controller's Lease");
                Unread
            })?;
            Ok(lease.map(|lease| self.keep(lease)))
        }
        .boxed()
    }

    fn write(&self, wanted: Wanted) -> BoxFuture<'_, Result<Seen, WriteError>> {
        self.put(wanted).boxed()
    }
}

fn version(lease: &Lease) -> String {
    let ObjectMeta { uid, resource_version, .. } = &lease.metadata;
    format!("{}/{}", uid.as_deref().unwrap_or_default(), resource_version.as_deref().unwrap_or_default())
}
