//! Applies a manifest at the start, and again whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use taffrail_crds::Topic;
use tokio_util::sync::CancellationToken;

use super::{Manifest, ManifestFault};
use crate::broker::BrokerError;
use crate::controller::{Applied, Controller, TopicError};

/// How often the manifest is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Makes or changes topics so that they are as a manifest says.
pub trait Target: Send + Sync + 'static {
    /// Others are left alone.
    fn apply(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<Applied, TopicError>>;
}

impl Target for Controller {
    fn apply(&self, topics: Vec<Topic>) -> BoxFuture<'_, Result<Applied, TopicError>> {
        Box::pin(Self::apply(self, topics))
    }
}

/// Applies the manifest for the first time; whatever is wrong with it is an error.
pub async fn begin(path: PathBuf, target: &dyn Target) -> Result<Manifest, BrokerError> {
    let (manifest, read) = poll(Manifest::new(path)).await?;
    let applied = target.apply(read.unwrap_or_else(|| Ok(Vec::new())).map_err(BrokerError::Manifest)?).await?;
    report(&applied);
    if applied.failed.is_empty() { Ok(manifest) } else { Err(BrokerError::Refused(applied.failed)) }
}

/// Applies the manifest again whenever it changes. What is wrong is told, and things stay as they are.
pub async fn follow(mut manifest: Manifest, target: Arc<dyn Target>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some() {
        let Ok((looked, read)) = poll(manifest).await else { return };
        manifest = looked;
        match read {
            None => {}
            Some(Ok(topics)) => match target.apply(topics).await {
                Ok(applied) => report(&applied),
                Err(error) => tracing::error!(%error, "the changed manifest was not applied"),
            },
            Some(Err(faults)) => {
                tracing::error!(faults = faults.len(), "the changed manifest is wrong: topics stay as they are");
                for fault in &faults {
                    tracing::error!("{fault}");
                }
            }
        }
    }
}

type Read = Option<Result<Vec<Topic>, Vec<ManifestFault>>>;

async fn poll(mut manifest: Manifest) -> Result<(Manifest, Read), tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || {
        let read = manifest.poll();
        (manifest, read)
    })
    .await
}

fn report(applied: &Applied) {
    let Applied { created, changed, unchanged, failed } = applied;
    tracing::info!(created = created.len(), changed = changed.len(), unchanged = unchanged.len(), "manifest applied");
    for (topic, reason) in failed {
        tracing::error!(topic, reason, "a topic of the manifest was not applied");
    }
}
