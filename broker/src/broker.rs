//! A broker from start to stop: the only place that builds everything.
//!
//! Start: admin HTTP (so that probes see the rest) → lock and open storage → topics and their partitions → coordinators of
//! groups → manifest → background jobs → listeners → ready. Stop is the reverse: not ready → listeners drain → jobs →
//! coordinators → partitions → storage is closed with the clean mark → admin HTTP. Whatever fails on the way in, what was started is stopped in that order.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin_http::{self, Subjects};
use crate::brokers::Brokers;
use crate::config::Config;
use crate::context::Context;
use crate::controller::{Controller, TopicError};
use crate::coordinator::groups::{self, Groups};
use crate::coordinator::runtime::Limits;
use crate::election::LeaseApi;
use crate::manifest::{Manifest, ManifestFault, follow};
use crate::memory::Shares;
use crate::metadata::embedded::EmbeddedStore;
use crate::metadata::kubernetes::client::ClientError;
use crate::metadata::{MetadataError, MetadataStore};
use crate::metrics::{Metrics, PartitionSample};
use crate::open_files;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::producer_ids::ProducerIds;
use crate::readiness::{Phase, Readiness};
use crate::registration::RegistrationError;
use crate::retention::Retention;
use crate::security::{Authenticator, TokenFile, TokenFileError};
use crate::server::{self, Network, ServeError};
use crate::service;
use crate::signals::stop_on_signal;
use crate::storage::{Engine, EngineOptions, FORMAT_VERSION, Identity, Storage, StorageError};
use crate::telemetry::LogLevel;
use crate::topics::{Topic, Topics, standing};

mod cluster;
pub mod simulated;

/// How long requests under way may take once the broker is to stop: well within the 30 s that Kubernetes gives.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a start waits for the coordinators of groups; those that take longer answer that they are loading.
const GROUPS_PATIENCE: Duration = Duration::from_secs(10);
/// How often a step that takes long says that it is still at it.
const STILL: Duration = Duration::from_secs(5);

/// Why a broker did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No threads.
    #[error("cannot start threads: {0}")]
    Runtime(std::io::Error),
    /// No signal handlers.
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    /// The admin address is taken, or not this machine's.
    #[error("cannot listen on {address}: {cause}; choose another --admin-listen address or stop what uses it")]
    AdminListen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Storage cannot be opened or closed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A task ended by a panic.
    #[error("a part of the broker ended unexpectedly: {0}")]
    Panicked(#[from] tokio::task::JoinError),
    /// The topics cannot be served.
    #[error("cannot serve the topics: {0}")]
    Topics(#[from] TopicError),
    /// The manifest is wrong.
    #[error("{}", Lines(.0))]
    Manifest(Vec<ManifestFault>),
    /// Topics of the manifest are right for themselves, but cannot be made so: name and reason.
    #[error("{}", .0.iter().map(|(name, why)| format!("topic {name}: {why}")).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<(String, String)>),
    /// The token file is wrong.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The Kubernetes API cannot be used.
    #[error(transparent)]
    Kubernetes(#[from] ClientError),
    /// This process must not run as the broker that it was started as.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The listeners cannot be opened.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The objects of brokers of one process cannot be read or written.
    #[error("the metadata of the cluster cannot be used: {0}")]
    Metadata(#[from] MetadataError),
    /// No free ports.
    #[error("no free ports: {0}")]
    Ports(std::io::Error),
    /// The data directory is one of another kind.
    #[error("{} has the data of a broker that is alone: choose another --data-dir", .0.display())]
    OtherDirectory(PathBuf),
    /// There were more brokers before.
    #[error(
        "the data directory has the data of {were} brokers: say --brokers {were} or more, or choose another --data-dir"
    )]
    FewerBrokers {
        /// How many there were.
        were: i32,
    },
    /// A broker of this process ended by a panic, which is in the log.
    #[error("a broker ended unexpectedly")]
    Died,
}

struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separated = |(i, line): (usize, &T)| write!(f, "{}{line}", if i == 0 { "" } else { "\n" });
        self.0.iter().enumerate().try_for_each(separated)
    }
}

/// Runs a broker until SIGTERM or SIGINT. `started` is when the process began.
pub async fn run(config: Config, log_level: LogLevel, started: Instant) -> Result<(), BrokerError> {
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, pid = std::process::id(), data_dir = %config.data_dir.display(), "taffrail-broker starts");
    let open_files = open_files();
    let stop = stop_on_signal().map_err(BrokerError::Signals)?;
    Box::pin(Process::new(config, Arc::new(log_level), started, open_files, stop).run()).await
}

/// Raises the limit of open files; the one in force.
pub(crate) fn open_files() -> u64 {
    let (open_files, raised) = open_files::raise_limit();
    if let Err(error) = raised {
        tracing::warn!(%error, open_files, "the limit of open files could not be raised");
    }
    open_files
}

/// Where brokers of one process have their metadata.
#[derive(Clone)]
pub(crate) struct Embedded {
    /// The cluster's objects.
    pub(crate) store: Arc<dyn MetadataStore>,
    /// The controller's Lease.
    pub(crate) lease: Arc<dyn LeaseApi>,
    /// All brokers stop: there is nobody to hand over to.
    pub(crate) all_stop: CancellationToken,
}

/// What every step needs. Each step runs what stands on it and then undoes itself.
pub(crate) struct Process {
    config: Config,
    subjects: Subjects,
    stop: CancellationToken,
    /// Limit of open files.
    open_files: u64,
    /// None: those of a cluster have it in Kubernetes.
    embedded: Option<Embedded>,
    /// None: the machine's clock and randomness.
    context: Option<Context>,
    network: Network,
}

impl Process {
    /// A broker that stops when it is told to.
    pub(crate) fn new(
        config: Config,
        log_level: Arc<LogLevel>,
        started: Instant,
        open_files: u64,
        stop: CancellationToken,
    ) -> Self {
        let subjects =
            Subjects { readiness: Readiness::new("opening storage"), metrics: Metrics::new(started), log_level };
        let (embedded, context, network) = (None, None, Network::TCP);
        Self { config, subjects, stop, open_files, embedded, context, network }
    }

    /// With its metadata in this process.
    pub(crate) fn embedded(self, embedded: Embedded) -> Self {
        Self { embedded: Some(embedded), ..self }
    }

    /// Whether it serves.
    pub(crate) fn readiness(&self) -> Arc<Readiness> {
        self.subjects.readiness.clone()
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self) -> Result<(), BrokerError> {
        let admin = self.serve_admin().await?;
        let outcome = self.with_storage().await;
        admin.stop().await;
        outcome
    }

    async fn serve_admin(&self) -> Result<Admin, BrokerError> {
        let address = self.config.admin_listen;
        let failed = |cause| BrokerError::AdminListen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "serving /livez, /readyz, /metrics and /log-level");
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin_http::serve(listener, self.subjects.clone(), stop.clone()));
        Ok(Admin { task, stop })
    }

    /// Opens storage, runs what stands on it, closes it properly however that ended. A damaged one is not touched: the
    /// broker stays, not ready, so that the reason can be read off it.
    async fn with_storage(&self) -> Result<(), BrokerError> {
        let authenticator = self.authenticator()?;
        let storage = match self.open_storage().await {
            Err(BrokerError::Storage(error)) if error.is_log_damage() => {
                self.subjects.readiness.set(Phase::Damaged(advice(&self.config, &error)));
                self.stop.cancelled().await;
                return Err(error.into());
            }
            other => other?,
        };
        let (for_metrics, for_readiness) = (storage.clone(), storage.clone());
        self.subjects.metrics.observe_storage(Box::new(move || for_metrics.status()));
        self.subjects.readiness.watch_storage(Box::new(move || for_readiness.status()));
        let outcome = match &self.config.cluster {
            Some(cluster) => Box::pin(self.with_cluster(cluster, &storage, authenticator)).await,
            None => Box::pin(self.with_topics(&storage, authenticator)).await,
        };
        let closed = in_background("closing storage", move || storage.close()).await?;
        match (outcome, closed) {
            (Ok(()), closed) => Ok(closed?),
            (Err(first), closed) => {
                if let Err(error) = closed {
                    tracing::error!(%error, "storage was not closed properly");
                }
                Err(first)
            }
        }
    }

    fn authenticator(&self) -> Result<Authenticator, BrokerError> {
        let tokens = self.config.token_file.as_deref().map(TokenFile::open).transpose()?.map(Arc::new);
        Ok(Authenticator::new(tokens, self.config.allow_anonymous))
    }

    fn engine_options(&self) -> EngineOptions {
        let shares = Shares::of_limit(self.config.memory_limit.bytes() as usize);
        EngineOptions {
            epoch_bytes: shares.epoch as u64,
            recent_bytes: shares.recent,
            block_cache_bytes: shares.block_cache,
            max_tables: open_files::max_tables(self.open_files),
            metrics: self.subjects.metrics.storage.clone(),
            ..EngineOptions::default()
        }
    }

    async fn open_storage(&self) -> Result<Arc<dyn Storage>, BrokerError> {
        let (dir, options) = (self.config.data_dir.clone(), self.engine_options());
        let storage = in_background("opening storage", move || Engine::open(&dir, options)).await??;
        let Identity { storage: id, incarnation, clean, complete } = storage.identity();
        tracing::info!(storage = %id, incarnation, clean, logs = storage.logs().len(), "storage is open");
        if !complete {
            tracing::warn!("what was written last before the crash may be lost: leader epochs rise, readers are told");
        }
        Ok(storage)
    }

    /// Serves the topics, with the manifest applied and retention at work.
    async fn with_topics(&self, storage: &Arc<dyn Storage>, authenticator: Authenticator) -> Result<(), BrokerError> {
        self.subjects.readiness.set(Phase::Starting("opening partitions"));
        let meta = storage.meta();
        let context = in_background("reading log time", move || Context::system(&*meta)).await??;
        let topics = Topics::new();
        show_partitions(&self.subjects.metrics, &topics);
        let meta = storage.meta();
        let producer_ids = in_background("reading producer ids", move || ProducerIds::open(meta)).await??;
        let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
        let controller = Controller::start(context.clone(), storage.clone(), metadata, topics.clone()).await?;
        let groups = match self.start_groups(&controller, &context, &topics).await {
            Ok(groups) => groups,
            Err(error) => {
                controller.stop().await;
                return Err(error);
            }
        };
        let brokers = Brokers::alone(storage.identity().storage.to_string());
        let broker = Arc::new(service::Broker {
            context,
            peers: Peers::new(brokers.clone(), self.config.memory_limit.bytes() as usize),
            brokers,
            storage: storage.clone(),
            topics,
            groups: groups.clone(),
            controller: controller.clone(),
            metrics: self.subjects.metrics.clone(),
            producer_ids,
            data_dir: self.config.data_dir.display().to_string(),
            format_version: FORMAT_VERSION,
            default_partitions: self.config.default_partitions,
            last_seen: None,
        });
        let listen = self.config.listen.iter().map(|listen| server::Listener::alone(listen.socket_address()));
        let outcome =
            self.with_jobs(broker, Some(controller.clone()), listen.collect(), authenticator, &self.stop).await;
        groups.stop().await;
        controller.stop().await;
        outcome
    }

    /// Begins to load the coordinators of groups. A shard that cannot be loaded refuses its groups and says why; the broker
    /// serves everything else.
    async fn start_groups(
        &self,
        controller: &Controller,
        context: &Context,
        topics: &Arc<Topics>,
    ) -> Result<Arc<Groups>, BrokerError> {
        self.subjects.readiness.set(Phase::Starting("loading consumer groups"));
        controller.ensure_internal(groups::topic()).await?;
        let groups = Groups::start(context, topics, Limits::default());
        let missing = groups.loaded(GROUPS_PATIENCE).await;
        if missing > 0 {
            tracing::warn!(shards = missing, "some consumer groups are not served yet");
        }
        Ok(groups)
    }

    /// `alone`: the controller of a broker without a cluster, which has the topics of its manifest.
    async fn with_jobs(
        &self,
        broker: Arc<service::Broker>,
        alone: Option<Arc<Controller>>,
        listen: Vec<server::Listener>,
        authenticator: Authenticator,
        until: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let manifest = match &alone {
            Some(controller) => self.apply_manifest(controller).await?,
            None => None,
        };
        let stop = CancellationToken::new();
        let service::Broker { context, storage, topics, controller, .. } = &*broker;
        let retention = Retention::new(context.clone(), storage.clone(), topics.clone(), controller.clone());
        let sampled = service::groups::sample::run(broker.groups.clone(), broker.metrics.clone(), stop.clone());
        let mut jobs = vec![tokio::spawn(retention.run(stop.clone())), tokio::spawn(sampled)];
        if let (Some(manifest), Some(controller)) = (manifest, alone) {
            jobs.push(tokio::spawn(follow::follow(manifest, controller, stop.clone())));
        }
        let outcome = self.serve(broker, listen, &authenticator, until).await;
        stop.cancel();
        for job in jobs {
            job.await?;
        }
        outcome
    }

    /// Applies the manifest, if there is one; whatever is wrong with it keeps the broker from starting.
    async fn apply_manifest(&self, controller: &Controller) -> Result<Option<Manifest>, BrokerError> {
        let Some(path) = self.config.manifest.clone() else { return Ok(None) };
        self.subjects.readiness.set(Phase::Starting("applying the manifest"));
        follow::begin(path, controller).await.map(Some)
    }

    /// Opens the listeners, is ready `until` it is time to stop, drains.
    async fn serve(
        &self,
        broker: Arc<service::Broker>,
        listen: Vec<server::Listener>,
        authenticator: &Authenticator,
        until: &CancellationToken,
    ) -> Result<(), BrokerError> {
        let options = self.server_options(authenticator, listen);
        let shutdown = CancellationToken::new();
        let server = server::serve(options, broker, shutdown.clone()).await?;
        for address in server.addresses() {
            tracing::info!(address = %format_args!("grpc://{address}"), "listening");
        }
        self.subjects.readiness.set(Phase::Serving);
        until.cancelled().await;
        self.subjects.readiness.set(Phase::Draining);
        shutdown.cancel();
        server.stopped().await;
        Ok(())
    }
}

/// The HTTP server for probes, up before and after everything else.
struct Admin {
    task: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Admin {
    /// A scraper that keeps its connection open does not hold up the end.
    async fn stop(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.task).await;
    }
}

/// What a person can do about damage.
fn advice(config: &Config, error: &StorageError) -> String {
    let dir = config.data_dir.display();
    format!(
        "{error}. Acknowledged records may lie behind it. Restore the data directory from a copy, or stop the broker and \
         see with \"taffrail-broker recover --data-dir {dir}\" what would be lost; with --accept-loss it goes on without"
    )
}

fn led_here(topic: &Topic) -> impl Iterator<Item = &Partition> {
    topic.partitions.iter().filter(|partition| partition.is_local())
}

fn show_partitions(metrics: &Metrics, topics: &Arc<Topics>) {
    let topics = topics.clone();
    metrics.observe_partitions(Box::new(move |max| {
        let image = topics.full_image();
        // Those of internal topics are shown as what they are for.
        let topics = || image.topics().filter(|topic| !topic.internal);
        let partitions = topics().flat_map(|topic| led_here(topic).map(move |p| (&topic.name, p)));
        let sample = |(topic, partition): (&Arc<str>, &Partition)| {
            let snapshot = partition.snapshot();
            PartitionSample {
                topic: topic.clone(),
                partition: partition.id().index,
                log_start: snapshot.log_start,
                high_watermark: snapshot.high_watermark,
                log_end: snapshot.log_end,
                size_bytes: partition.size_bytes(),
            }
        };
        let total = topics().map(|topic| led_here(topic).count()).sum();
        (partitions.take(max).map(sample).collect(), total)
    }));
}

/// What a broker of a cluster shows besides.
fn show_replication(metrics: &Metrics, topics: &Arc<Topics>, me: i32) {
    let topics = topics.clone();
    metrics.observe_replication(Box::new(move || standing(&topics.image(), me)));
}

/// Runs what blocks, saying now and then that it is still at it.
async fn in_background<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let mut task = tokio::task::spawn_blocking(work);
    let begun = Instant::now();
    loop {
        if let Ok(done) = tokio::time::timeout(STILL, &mut task).await {
            return done;
        }
        tracing::info!(step, seconds = begun.elapsed().as_secs(), "still at it");
    }
}
