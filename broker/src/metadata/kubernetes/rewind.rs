//! Notices that the API went back in time: then all watches of the store list anew.

use kube::api::ListParams;
use taffrail_crds::revision::{INTERVAL, Revisions};
use tokio::time::sleep;

use super::{KubernetesStore, errors};
use crate::metadata::{Kind, MetadataError};

impl KubernetesStore {
    /// Asks for the API's newest revision, for ever. Of all stores that were made from each other one has to.
    pub async fn notice_rewinds(&self) {
        let mut revisions = Revisions::default();
        loop {
            // One that does not answer is reported by those who need the answer.
            if let Ok(revision) = self.revision().await
                && let Err(went_back) = revisions.take(revision.as_deref())
            {
                tracing::error!(%went_back, "all objects are listed anew");
                self.rewinds.send_modify(|rewinds| *rewinds += 1);
            }
            sleep(INTERVAL).await;
        }
    }

    /// By the shortest list there is.
    async fn revision(&self) -> Result<Option<String>, MetadataError> {
        let parameters = ListParams::default().limit(1);
        let found = self.read(self.api(Kind::Cluster)?.list(&parameters)).await.map_err(errors::Failure::of_list)?;
        Ok(found.metadata.resource_version)
    }
}
