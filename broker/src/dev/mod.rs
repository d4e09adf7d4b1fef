//! A cluster of brokers in one process, for development and tests: `taffrail-broker dev`.
//!
//! The brokers are those of [`crate::broker`], each on threads of its own, with its own data directory, ports and metrics.
//! What Kubernetes does for them elsewhere is done here: their objects are in a store that they share
//! ([`EmbeddedApi`](crate::metadata::EmbeddedApi)), the Cluster is made at the start ([`objects`]), and Topics are accepted by
//! the operator's own decisions ([`operator`]).
//!
//! The data directory has `metadata`, the objects, and `broker-N` for each broker, with a file `zone` that may be changed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerError, Embedded, Process, open_files};
use crate::cluster::image::Identity;
use crate::config::{Addresses, ClusterConfig, Config, DevConfig};
use crate::context::Context;
use crate::manifest::follow as manifest;
use crate::signals::stop_on_signal;
use crate::storage::StorageError;
use crate::storage::meta::MetaDirectory;
use crate::telemetry::LogLevel;
use brokers::{Brokers, Parts};

pub use objects::Objects;

mod brokers;
mod objects;
mod operator;
mod ports;

/// Name of the Cluster.
pub const CLUSTER: &str = "dev";
/// Its namespace.
pub const NAMESPACE: &str = "default";

/// Runs all brokers until SIGTERM or SIGINT, or until one of them ends. `started` is when the process began.
pub async fn run(config: Config, dev: DevConfig, log_level: LogLevel, started: Instant) -> Result<(), BrokerError> {
    let (version, data_dir) = (env!("CARGO_PKG_VERSION"), config.data_dir.clone());
    tracing::info!(version, pid = std::process::id(), data_dir = %data_dir.display(), "a cluster of brokers starts");
    let stop = stop_on_signal().map_err(BrokerError::Signals)?;
    let objects = tokio::task::spawn_blocking(move || open(&data_dir)).await??;
    objects.prepare(dev.brokers).await?;
    let lease = objects.lease();
    // No other process has the directory: whoever held it is dead.
    lease.remove().await?;
    let topics = Arc::new(objects.topics());
    let manifest = match config.manifest.clone() {
        Some(path) => Some(manifest::begin(path, &*topics).await?),
        None => None,
    };

    let jobs = CancellationToken::new();
    let _ends_jobs = jobs.clone().drop_guard();
    if let Some(manifest) = manifest {
        tokio::spawn(manifest::follow(manifest, topics, jobs.clone()));
    }
    tokio::spawn(objects.clone().operate(jobs.clone()));

    let embedded = Embedded { store: objects.store(), lease: Arc::new(lease), all_stop: stop.clone() };
    let addresses = ports::choose(dev.addresses(&config).unwrap_or_default()).map_err(BrokerError::Ports)?;
    let parts = Parts {
        configs: addresses.of_brokers.iter().zip(0..).map(|(at, id)| of_broker(&config, &dev, *at, id)).collect(),
        log_level: Arc::new(log_level),
        open_files: open_files() / u64::from(dev.brokers.unsigned_abs().max(1)),
        started,
        embedded,
    };
    let brokers = Brokers::start(parts, &stop)?;
    let outcome = serve(brokers, &config, &addresses.of_brokers, &stop).await;
    drop(addresses);
    outcome
}

fn identity() -> Identity {
    Identity { cluster: CLUSTER.to_owned(), namespace: NAMESPACE.to_owned() }
}

/// Opens the metadata, or makes it; refuses a directory of another kind. Blocks.
fn open(data_dir: &Path) -> Result<Objects, BrokerError> {
    if data_dir.join("meta").exists() {
        return Err(BrokerError::OtherDirectory(data_dir.to_owned()));
    }
    let meta = MetaDirectory::open(&data_dir.join("metadata"))?;
    let context = Context::system(&*meta)?;
    Ok(Objects::new(context, meta))
}

/// How broker `id` is configured.
fn of_broker(config: &Config, dev: &DevConfig, at: Addresses, id: i32) -> Config {
    let data_dir = config.data_dir.join(format!("broker-{id}"));
    let [session, lease, renewal, retry] =
        [6_000, 6_000, 4_000, 1_000].map(taffrail_crds::duration::Duration::from_millis);
    let cluster = ClusterConfig {
        cluster: CLUSTER.to_owned(),
        namespace: NAMESPACE.to_owned(),
        broker_id: id,
        advertise_host: dev.host(config),
        internal_host: None,
        internal_listen: at.internal,
        zone_file: Some(data_dir.join("zone")),
        session_timeout: session,
        lease_duration: lease,
        renew_deadline: renewal,
        retry_period: retry,
        kubeconfig: None,
    };
    Config {
        data_dir,
        listen: vec![at.listen.into()],
        admin_listen: at.admin,
        memory_limit: dev.memory(config),
        manifest: None,
        dev: None,
        cluster: Some(cluster),
        ..config.clone()
    }
}

/// Says where the brokers are once all serve; kills and starts them as signals ask; stops them all.
async fn serve(
    mut brokers: Brokers,
    config: &Config,
    addresses: &[Addresses],
    stop: &CancellationToken,
) -> Result<(), BrokerError> {
    let mut kill = signal(SignalKind::user_defined1()).map_err(BrokerError::Signals)?;
    let mut revive = signal(SignalKind::user_defined2()).map_err(BrokerError::Signals)?;
    let serving = brokers.all_serve();
    tokio::pin!(serving);
    let mut is_said = false;
    let outcome = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            ended = brokers.ended() => break ended,
            () = &mut serving, if !is_said => {
                is_said = true;
                say(&welcome(config, addresses));
            }
            _ = kill.recv() => brokers.kill_next().await,
            _ = revive.recv() => {
                if let Err(error) = brokers.revive() {
                    break Err(error);
                }
            }
        }
    };
    stop.cancel();
    outcome.and(brokers.stopped().await)
}

fn welcome(config: &Config, addresses: &[Addresses]) -> String {
    let mut text = format!("{} brokers serve, with data in {}\n", addresses.len(), config.data_dir.display());
    for (id, Addresses { listen, admin, .. }) in addresses.iter().enumerate() {
        // Writing to a text does not fail.
        let _ = writeln!(text, "  broker {id}  grpc://{listen}  http://{admin}/metrics");
    }
    let pid = std::process::id();
    let _ = writeln!(
        text,
        "Any of them is enough to connect to. Ctrl-C stops all.\n\
         \"kill -USR1 {pid}\" kills one of them, the next each time; \"kill -USR2 {pid}\" starts those again."
    );
    text
}

/// To standard output; that nobody reads it is no failure.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A zone for the broker, where none has been chosen yet: replicas are spread over zones. Blocks.
fn choose_zone(config: &Config, id: i32) -> Result<(), StorageError> {
    let Some(file) = config.cluster.as_ref().and_then(|cluster| cluster.zone_file.as_ref()) else { return Ok(()) };
    if file.exists() {
        return Ok(());
    }
    let letter = char::from(b'a' + u8::try_from(id % 26).unwrap_or(0));
    let written = std::fs::create_dir_all(&config.data_dir).and_then(|()| std::fs::write(file, format!("{letter}\n")));
    written.map_err(|cause| StorageError::io("write the broker's zone", &cause))
}

fn process(parts: &Parts, id: i32, config: &Config, stop: CancellationToken) -> Process {
    tracing::info!(broker = id, data_dir = %config.data_dir.display(), "a broker starts");
    Process::new(config.clone(), parts.log_level.clone(), parts.started, parts.open_files, stop)
        .embedded(parts.embedded.clone())
}
