//! The objects of a cluster without Kubernetes: those that people make elsewhere, the Cluster and the Topics of a manifest, and
//! what the operator does with them.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use taffrail_crds::Topic;
use taffrail_crds::topic::ClusterRef;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::operator::Operator;
use super::{CLUSTER, NAMESPACE, identity};
use crate::broker::BrokerError;
use crate::cluster::follow::follow;
use crate::context::Context;
use crate::controller::object::{admit_in_cluster, document, is_same};
use crate::controller::{Applied, TopicError};
use crate::election::EmbeddedLease;
use crate::manifest::follow::Target;
use crate::metadata::{EmbeddedApi, EmbeddedStore, Kind, MetadataError, MetadataStore, Object};
use crate::storage::MetaStore;

/// How often a topic is applied anew that somebody else changed at the same time.
const TRIES: usize = 10;

/// The objects of the cluster [`CLUSTER`] in [`NAMESPACE`], for brokers that share them. Clones are the same.
#[derive(Clone)]
pub struct Objects {
    api: EmbeddedApi,
    context: Context,
}

impl Objects {
    /// Kept in `meta`.
    pub fn new(context: Context, meta: Arc<dyn MetaStore>) -> Self {
        let store = EmbeddedStore::new(context.clone(), meta);
        Self { api: EmbeddedApi::new(context.clone(), store, NAMESPACE), context }
    }

    /// Makes the Cluster, or lets it grow to so many brokers.
    pub async fn prepare(&self, brokers: i32) -> Result<(), BrokerError> {
        prepare(&self.api, brokers).await
    }

    /// Where they are.
    pub fn store(&self) -> Arc<dyn MetadataStore> {
        Arc::new(self.api.clone())
    }

    /// The controller's Lease.
    pub fn lease(&self) -> EmbeddedLease {
        EmbeddedLease::new(self.store(), CLUSTER)
    }

    /// Does with them what the operator does elsewhere, until `stop`.
    pub async fn operate(self, stop: CancellationToken) {
        let (images, image) = watch::channel(Arc::default());
        let following = tokio::spawn(follow(identity(), self.store(), images, stop.clone()));
        Operator { api: self.api, context: self.context, image }.run(stop).await;
        // It ends as this does; by a panic at worst, which was logged.
        let _ = following.await;
    }

    pub(super) fn topics(&self) -> Topics {
        Topics::new(self.api.clone())
    }
}

/// Makes the Cluster, or lets it grow to so many brokers.
pub(super) async fn prepare(api: &EmbeddedApi, brokers: i32) -> Result<(), BrokerError> {
    let Some(mut cluster) = api.get(Kind::Cluster, CLUSTER).await? else {
        let spec = json!({ "replicas": brokers, "storage": { "size": "1Gi" } });
        api.create(Kind::Cluster, CLUSTER, taffrail_crds::Kind::Cluster.object(CLUSTER, &json!({}), &spec)).await?;
        return Ok(());
    };
    let were = cluster.document["spec"]["replicas"].as_i64().and_then(|were| i32::try_from(were).ok()).unwrap_or(0);
    if were > brokers {
        return Err(BrokerError::FewerBrokers { were });
    }
    if were < brokers {
        cluster.document["spec"]["replicas"] = brokers.into();
        api.replace(&cluster).await?;
    }
    Ok(())
}

/// Topics as a manifest says, in this cluster, whichever it names.
pub(super) struct Topics {
    api: EmbeddedApi,
}

enum Outcome {
    Created,
    Changed,
    Unchanged,
}

impl Topics {
    pub(super) fn new(api: EmbeddedApi) -> Self {
        Self { api }
    }

    async fn apply_all(&self, topics: Vec<Topic>) -> Applied {
        let mut applied = Applied::default();
        for topic in topics {
            let name = topic.topic_name();
            match self.apply_one(topic).await {
                Ok(Outcome::Created) => applied.created.push(name),
                Ok(Outcome::Changed) => applied.changed.push(name),
                Ok(Outcome::Unchanged) => applied.unchanged.push(name),
                Err(error) => applied.failed.push((name, error.to_string())),
            }
        }
        applied
    }

    async fn apply_one(&self, mut topic: Topic) -> Result<Outcome, TopicError> {
        topic.status = None;
        topic.metadata.namespace = Some(NAMESPACE.to_owned());
        topic.spec.cluster_ref = Some(ClusterRef { name: CLUSTER.to_owned(), namespace: None });
        for _ in 1..TRIES {
            match self.try_apply(&topic).await {
                Err(TopicError::Conflict(_)) => {}
                outcome => return outcome,
            }
        }
        self.try_apply(&topic).await
    }

    async fn try_apply(&self, topic: &Topic) -> Result<Outcome, TopicError> {
        let name = topic.metadata.name.clone().unwrap_or_default();
        let Some(stored) = self.api.get(Kind::Topic, &name).await.map_err(TopicError::Metadata)? else {
            admit_in_cluster(topic, None)?;
            let created = self.api.create(Kind::Topic, &name, document(topic)).await;
            return created.map(|_| Outcome::Created).map_err(|error| failed(topic, error));
        };
        let old: Topic = serde_json::from_value(stored.document.clone())
            .map_err(|error| TopicError::Metadata(stored.malformed(error.to_string())))?;
        if is_same(&old, topic) {
            return Ok(Outcome::Unchanged);
        }
        admit_in_cluster(topic, Some(&old))?;
        let replaced = self.api.replace(&changed(stored, topic)).await;
        replaced.map(|_| Outcome::Changed).map_err(|error| failed(topic, error))
    }
}

impl Target for Topics {
    fn apply(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<Applied, TopicError>> {
        self.apply_all(topics).map(Ok).boxed()
    }
}

/// As the manifest says; what others keep in the object stays.
fn changed(mut stored: Object, topic: &Topic) -> Object {
    stored.document["spec"] = document(&topic.spec);
    for (key, values) in [("labels", &topic.metadata.labels), ("annotations", &topic.metadata.annotations)] {
        stored.document["metadata"][key] = values.as_ref().map_or(Value::Null, document);
    }
    stored
}

fn failed(topic: &Topic, error: MetadataError) -> TopicError {
    match error {
        MetadataError::Refused { what, .. } => TopicError::Invalid(vec![what]),
        MetadataError::Conflict { .. } | MetadataError::Exists { .. } | MetadataError::NotFound { .. } => {
            TopicError::Conflict(topic.topic_name())
        }
        error => TopicError::Metadata(error),
    }
}
