//! A broker of a cluster on a machine that a test simulates: disk, clock, network and the cluster's objects are the test's.
//!
//! What runs is what runs in Kubernetes, from the election to the listeners, but for the HTTP server of probes. Callers may do
//! everything, wherever they are.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{BrokerError, Embedded, Process, in_background};
use crate::config::{ClusterConfig, Config};
use crate::context::Context;
use crate::election::LeaseApi;
use crate::metadata::MetadataStore;
use crate::security::Authenticator;
use crate::server::Network;
use crate::storage::Storage;
use crate::telemetry::LogLevel;

/// Open files of a simulated machine.
const OPEN_FILES: u64 = 1_024;

/// What a broker finds.
pub struct Machine {
    /// Its settings.
    pub config: Config,
    /// Those of a cluster.
    pub cluster: ClusterConfig,
    /// Its disk.
    pub storage: Arc<dyn Storage>,
    /// Its clock, and its randomness.
    pub context: Context,
    /// How it reaches others, and they it.
    pub network: Network,
    /// The cluster's objects.
    pub store: Arc<dyn MetadataStore>,
    /// The controller's Lease.
    pub lease: Arc<dyn LeaseApi>,
}

impl Machine {
    /// Runs the broker until `stop`, which it then does in good order. Dropped it is killed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BrokerError> {
        let Self { config, cluster, storage, context, network, store, lease } = self;
        let embedded = Embedded { store, lease, all_stop: CancellationToken::new() };
        let log_level = Arc::new(LogLevel::fixed(config.log_level.clone()));
        let process = Process::new(config, log_level, Instant::now(), OPEN_FILES, stop).embedded(embedded);
        let process = Process { context: Some(context), network, ..process };
        let everybody = Authenticator::new(None, true);
        let outcome = Box::pin(process.with_cluster(&cluster, &storage, everybody)).await;
        let closed = in_background("closing storage", move || storage.close()).await?;
        outcome?;
        Ok(closed?)
    }
}
