//! Notices that the API went back in time: what the watches have told is not so any more, and they would not tell it.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};
use taffrail_crds::Cluster;
use taffrail_crds::revision::{INTERVAL, Revisions, WentBack};
use tokio::time::{sleep, timeout};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for it.
pub async fn noticed(client: &Client) -> WentBack {
    let (clusters, mut revisions) = (Api::<Cluster>::all(client.clone()), Revisions::default());
    // No more than the revision is wanted of it.
    let shortest = ListParams::default().limit(1);
    loop {
        // One that does not answer is reported by the watches.
        if let Ok(Ok(list)) = timeout(PATIENCE, clusters.list_metadata(&shortest)).await
            && let Err(went_back) = revisions.take(list.metadata.resource_version.as_deref())
        {
            return went_back;
        }
        sleep(INTERVAL).await;
    }
}
