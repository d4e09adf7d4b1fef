//! Metadata as objects of a Kubernetes API.
//!
//! Every change is a full replace of the version that was read (M1); nothing is patched. Reads ask for no version, which
//! makes them quorum reads (M4). What came of a change that got no answer is unknown, and said to be so (M3). An API that goes back
//! in time is noticed, and all watches tell what is so now (M5).
//!
//! # Documents
//!
//! A document is the object's JSON without what stands in [`Object`](super::Object) (`uid`, `resourceVersion`) and without
//! `managedFields` ([`document`]). All else of `metadata` is there: labels, annotations, finalizers, generation, the
//! deletionTimestamp. A replace writes all of it back, so that fields this program does not know survive.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use serde_json::Value;
use taffrail_crds::{CLUSTER_LABEL, GROUP, VERSION};
use tokio::sync::watch::Sender;
use tokio::time::{Instant, timeout_at};

use super::{Event, Kind, MetadataError, MetadataStore, Object};
use crate::metrics::MetadataMetrics;
use budget::Budget;

mod budget;
pub mod client;
mod document;
pub(crate) mod errors;
mod rewind;
mod watch;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The objects of one Cluster in one namespace; cheap to clone.
#[derive(Clone)]
pub struct KubernetesStore {
    client: kube::Client,
    namespace: String,
    cluster: String,
    budget: Arc<Budget>,
    metrics: MetadataMetrics,
    end: Option<Instant>,
    /// How often the API went back in time.
    rewinds: Arc<Sender<u64>>,
}

impl KubernetesStore {
    /// Of the Cluster `cluster` in `namespace`: of PartitionSlices and Brokers those with its label, of Clusters and
    /// ClusterStates the one of its name, of Topics all.
    pub fn new(client: kube::Client, namespace: &str, cluster: &str, metrics: MetadataMetrics) -> Self {
        let budget = Arc::new(Budget::new(metrics.clone()));
        let (namespace, cluster) = (namespace.to_owned(), cluster.to_owned());
        Self { client, namespace, cluster, budget, metrics, end: None, rewinds: Arc::new(Sender::new(0)) }
    }

    fn api(&self, kind: Kind) -> Result<Api<DynamicObject>, MetadataError> {
        let resource = resource(kind).ok_or_else(|| {
            let what = "it is not kept in Kubernetes as an object of this kind".to_owned();
            MetadataError::Refused { kind, name: String::new(), what }
        })?;
        Ok(Api::namespaced_with(self.client.clone(), &self.namespace, &resource))
    }

    /// Which objects of a kind concern this Cluster: a selector by labels, and one by fields.
    fn selectors(&self, kind: Kind) -> (Option<String>, Option<String>) {
        match kind {
            Kind::PartitionSlice | Kind::Broker => (Some(format!("{CLUSTER_LABEL}={}", self.cluster)), None),
            Kind::Cluster | Kind::ClusterState => (None, Some(format!("metadata.name={}", self.cluster))),
            Kind::Topic | Kind::DeletedTopic | Kind::Lease => (None, None),
        }
    }

    fn end(&self) -> Instant {
        let usual = Instant::now() + PATIENCE;
        self.end.map_or(usual, |end| end.min(usual))
    }

    /// Waits for an answer to a read.
    async fn read<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, errors::Failure> {
        let end = Instant::now() + PATIENCE;
        self.budget.not_paused(end).await?;
        let answer = timeout_at(end, call).await;
        self.metrics.read(matches!(answer, Ok(Ok(_))));
        self.heed(answer.map_err(|_| errors::Failure::late())?)
    }

    /// Waits for the answer to a change of `bytes`.
    async fn change<T>(&self, bytes: usize, call: impl Future<Output = kube::Result<T>>) -> Result<T, errors::Failure> {
        let end = self.end();
        self.budget.take(bytes, end).await?;
        let answer = timeout_at(end, call).await;
        self.metrics.change(matches!(answer, Ok(Ok(_))));
        self.heed(answer.map_err(|_| errors::Failure::late())?)
    }

    /// Keeps still for as long as the API server asks.
    fn heed<T>(&self, answer: kube::Result<T>) -> Result<T, errors::Failure> {
        if let Err(kube::Error::Api(status)) = &answer
            && status.code == 429
        {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds).clamp(1, 60);
            self.budget.pause(Duration::from_secs(u64::from(seconds)));
        }
        Ok(answer?)
    }

    async fn put(&self, object: &Object) -> Result<Object, MetadataError> {
        let (kind, name) = (object.kind, object.name.as_str());
        let api = self.api(kind)?;
        let (new, bytes) = document::encode(kind, name, &object.document, Some(object))?;
        let answer = self.change(bytes, api.replace(name, &PostParams::default(), &new)).await;
        document::decode(kind, answer.map_err(|failure| failure.of_change(kind, name))?)
    }

    async fn post(&self, kind: Kind, name: &str, document: &Value) -> Result<Object, MetadataError> {
        let api = self.api(kind)?;
        let (new, bytes) = document::encode(kind, name, document, None)?;
        let answer = self.change(bytes, api.create(&PostParams::default(), &new)).await;
        document::decode(kind, answer.map_err(|failure| failure.of_change(kind, name))?)
    }

    async fn remove(&self, object: &Object) -> Result<(), MetadataError> {
        let (kind, name) = (object.kind, object.name.as_str());
        let api = self.api(kind)?;
        let preconditions = Preconditions {
            uid: Some(object.uid.to_string()),
            resource_version: Some(object.resource_version.clone()),
        };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let answer = self.change(0, api.delete(name, &parameters)).await;
        answer.map(drop).map_err(|failure| failure.of_change(kind, name))
    }

    async fn list_all(&self, kind: Kind) -> Result<Vec<Object>, MetadataError> {
        let api = self.api(kind)?;
        let (label_selector, field_selector) = self.selectors(kind);
        let parameters = ListParams { label_selector, field_selector, ..ListParams::default() };
        let found = self.read(api.list(&parameters)).await.map_err(errors::Failure::of_list)?;
        let mut objects =
            found.items.into_iter().map(|object| document::decode(kind, object)).collect::<Result<Vec<_>, _>>()?;
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }
}

/// Where the API has a kind.
fn resource(kind: Kind) -> Option<ApiResource> {
    let definition = kind.definition()?;
    Some(ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: definition.name().to_owned(),
        plural: format!("{}s", definition.name().to_lowercase()),
    })
}

impl MetadataStore for KubernetesStore {
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>> {
        async move {
            let api = self.api(kind)?;
            match self.read(api.get(name)).await {
                Ok(object) => document::decode(kind, object).map(Some),
                Err(failure) => failure.of_get(name).map(|()| None),
            }
        }
        .boxed()
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>> {
        self.list_all(kind).boxed()
    }

    fn watch(&self, kind: Kind) -> BoxStream<'static, Event> {
        match self.api(kind) {
            Ok(api) => watch::watch(kind, api, self.selectors(kind), self.metrics.clone(), self.rewinds.subscribe()),
            // There is none and never will be.
            Err(_) => stream::iter([Event::Listed]).chain(stream::pending()).boxed(),
        }
    }

    fn create<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        document: Value,
    ) -> BoxFuture<'a, Result<Object, MetadataError>> {
        async move { self.post(kind, name, &document).await }.boxed()
    }

    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>> {
        self.put(object).boxed()
    }

    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>> {
        self.remove(object).boxed()
    }

    fn in_namespace(&self, namespace: &str) -> Arc<dyn MetadataStore> {
        Arc::new(Self { namespace: namespace.to_owned(), ..self.clone() })
    }

    fn until(&self, end: Instant) -> Arc<dyn MetadataStore> {
        Arc::new(Self { end: Some(end), ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_where_their_definitions_say() {
        for definition in taffrail_crds::Kind::ALL {
            let kinds = [Kind::Topic, Kind::Cluster, Kind::PartitionSlice, Kind::ClusterState, Kind::Broker];
            let kind = kinds.into_iter().find(|kind| kind.definition() == Some(definition)).unwrap();
            assert_eq!(resource(kind).unwrap().plural, definition.definition().spec.names.plural);
        }
        assert!([Kind::DeletedTopic, Kind::Lease].into_iter().all(|kind| resource(kind).is_none()));
    }
}
