//! The gRPC server: listeners, connections, the bounds that hold for each and for all, and the drain.
//!
//! It knows HTTP/2 and who is calling; what a call means is [`service`](crate::service)'s business. Memory that peers can
//! make the broker hold is bounded by the [shares](crate::memory::Shares) of the memory limit: a connection's window by its
//! grant of `windows`, request bytes by `requests` ([`request_body`]), answers by `responses` ([`response_body`]).

mod connection;
mod connections;
mod network;
mod request_body;
mod response_body;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use self::connection::Protocol;
use self::connections::{Connections, Stage};
use self::network::Listening;
use crate::allocator::Decay;
use crate::brokers::INTERNAL;
use crate::memory::{Budget, Shares};
use crate::metrics::{Metrics, resident_bytes};
use crate::security::Authenticator;
use crate::service::{self, Broker};

pub(crate) use connection::MAX_STREAMS;
pub use connection::{Connection, Outbox};
pub use network::{Network, Socket, Stream};

/// How often tokens and readiness are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name under which brokers register what they are reached at.
    pub name: Arc<str>,
    /// Where.
    pub address: SocketAddr,
    /// Clients do not reach single brokers: what stands before all of them does, and they are told to go there for each.
    pub exposed: bool,
}

impl Listener {
    /// Of a broker that runs alone: clients stay where they are.
    pub fn alone(address: SocketAddr) -> Self {
        Self { name: Arc::from("grpc"), address, exposed: true }
    }
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any that is free.
    pub listen: Vec<Listener>,
    /// "host:port" that clients are told; `None`: the one they used.
    pub advertise: Option<String>,
    /// Connections at a time; further ones are closed at once.
    pub max_connections: usize,
    /// `--memory-limit`, bytes.
    pub memory_limit: usize,
    /// How long streams may take to end when the broker stops.
    pub drain_timeout: Duration,
    /// Who is let in.
    pub authenticator: Authenticator,
    /// On which network.
    pub network: Network,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: vec![Listener::alone(SocketAddr::from(([127, 0, 0, 1], 0)))],
            advertise: None,
            max_connections: 12_000,
            memory_limit: 1 << 30,
            drain_timeout: Duration::from_secs(10),
            authenticator: Authenticator::default(),
            network: Network::TCP,
        }
    }
}

/// The server could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; choose another --listen address or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The API's descriptors are not understood.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// The stages of a stop. Streams watch them.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// The broker is about to stop: tell the clients.
    pub announced: CancellationToken,
    /// End every stream when what is in flight has been answered.
    pub closing: CancellationToken,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stopped: JoinHandle<()>,
}

impl Server {
    /// Where it listens, in the order of [`Options::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until it has stopped: all connections are gone.
    pub async fn stopped(self) {
        if let Err(error) = self.stopped.await {
            tracing::error!(%error, "the server ended badly");
        }
    }
}

/// What all connections have in common.
struct Shared {
    protocol: Protocol,
    routes: Routes,
    options: Options,
    drain: Drain,
    requests: Arc<Budget>,
    responses: Arc<Budget>,
    windows: connection::Windows,
    open: Connections,
    metrics: Arc<Metrics>,
    connections: TaskTracker,
}

/// Listens and serves until `shutdown`, and then drains: readiness ends, streams are told, the rest ends by itself or after
/// the drain timeout.
pub async fn serve(options: Options, broker: Arc<Broker>, shutdown: CancellationToken) -> Result<Server, ServeError> {
    let routes = service::routes(&broker, options.advertise.as_deref())?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("ready", ServingStatus::Serving).await;
    let (shared, listening) = begin(Protocol::CLIENTS, options, routes.add_service(health), &broker.metrics).await?;
    let keeping = tokio::spawn(keep_house(shared.clone(), broker, reporter.clone()));
    let before = async move {
        keeping.abort();
        reporter.set_service_status("ready", ServingStatus::NotServing).await;
    };
    Ok(run(shared, listening, shutdown, before))
}

/// As [`serve`], for other brokers, at one address: they are trusted to say for whom they ask. The memory limit is that of
/// the broker; what they may occupy is half as much as clients may, and apart from it, so that brokers that forward to each
/// other never wait for each other's memory.
pub async fn serve_internal(
    address: SocketAddr,
    routes: Routes,
    options: Options,
    metrics: &Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<Server, ServeError> {
    let listener = Listener { name: Arc::from(INTERNAL), address, exposed: false };
    let memory_limit = options.memory_limit / 2;
    let options = Options { listen: vec![listener], memory_limit, ..options };
    let (shared, listening) = begin(Protocol::BROKERS, options, routes, metrics).await?;
    Ok(run(shared, listening, shutdown, std::future::ready(())))
}

async fn begin(
    protocol: Protocol,
    options: Options,
    routes: Routes,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<Shared>, Vec<Listening>), ServeError> {
    let shares = Shares::of_limit(options.memory_limit);
    let shared = Arc::new(Shared {
        protocol,
        routes: routes.prepare(),
        options,
        drain: Drain::default(),
        requests: Budget::new(shares.requests),
        responses: Budget::new(shares.responses),
        windows: connection::Windows::new(shares.windows, protocol),
        open: Connections::new(),
        metrics: Arc::clone(metrics),
        connections: TaskTracker::new(),
    });
    let mut listening = Vec::with_capacity(shared.options.listen.len());
    for listener in &shared.options.listen {
        let opened = shared.options.network.listen(Arc::new(listener.clone()), shared.clone()).await;
        listening.push(opened.map_err(|cause| ServeError::Listen { address: listener.address, cause })?);
    }
    Ok((shared, listening))
}

/// Accepts until `shutdown`; then does what comes `before`, and drains.
fn run(
    shared: Arc<Shared>,
    listening: Vec<Listening>,
    shutdown: CancellationToken,
    before: impl Future<Output = ()> + Send + 'static,
) -> Server {
    let (addresses, accepting): (Vec<_>, Vec<_>) = listening.into_iter().unzip();
    let accepting: Vec<_> = accepting.into_iter().map(tokio::spawn).collect();
    let sweeping = tokio::spawn(watch_memory(shared.clone()));
    let stopped = tokio::spawn(async move {
        shutdown.cancelled().await;
        before.await;
        accepting.iter().for_each(JoinHandle::abort);
        drain(&shared).await;
        sweeping.abort();
    });
    Server { addresses, stopped }
}

async fn accept<S: Socket>(socket: S, listener: Arc<Listener>, shared: Arc<Shared>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => take(stream, peer, &listener, &shared),
            Err(error) => {
                // Most likely no file descriptor is left: some will be given back.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn take<S: Stream>(stream: S, peer: SocketAddr, listener: &Arc<Listener>, shared: &Arc<Shared>) {
    if shared.connections.len() >= shared.options.max_connections {
        shared.metrics.refused_connections.inc();
        return;
    }
    shared.connections.spawn(connection::serve(stream, peer, Arc::clone(listener), Arc::clone(shared)));
}

/// Reads tokens again when their file changes, and shows in "ready" whether writes are taken.
async fn keep_house(shared: Arc<Shared>, broker: Arc<Broker>, reporter: HealthReporter) {
    let mut ready = true;
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        let (tokens, storage) = (shared.options.authenticator.tokens().cloned(), Arc::clone(&broker.storage));
        let look = move || (tokens.map(|tokens| tokens.refresh()), storage.status().failed.is_none());
        let Ok((refreshed, works)) = tokio::task::spawn_blocking(look).await else { continue };
        match refreshed {
            Some(Err(error)) => tracing::error!(%error, "the tokens stay as they were"),
            Some(Ok(true)) => tracing::info!("read the token file again"),
            Some(Ok(false)) | None => {}
        }
        if works != ready {
            ready = works;
            let status = if works { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("ready", status).await;
        }
    }
}

/// Shows what is in flight, and gives memory back to those who read, where others do not.
async fn watch_memory(shared: Arc<Shared>) {
    let mut decay = Decay::new(shared.options.memory_limit as u64);
    loop {
        tokio::time::sleep(connections::SWEEP_INTERVAL).await;
        if shared.protocol.is_for_clients() {
            shared.metrics.produce_in_flight_bytes.set(shared.requests.used() as i64);
            shared.metrics.fetch_in_flight_bytes.set(shared.responses.used() as i64);
        }
        if shared.protocol.is_for_clients()
            && let Err(error) = decay.follow(resident_bytes())
        {
            tracing::warn!(%error, "the allocator's settings could not be changed");
        }
        let ended = shared.open.sweep(&shared.responses);
        if ended > 0 {
            tracing::warn!(ended, "ended connections that held answers unread while memory was short");
        }
    }
}

/// Half of the time for clients to leave, half for streams to end.
async fn drain(shared: &Shared) {
    shared.connections.close();
    shared.open.tell(Stage::Draining);
    let half = shared.options.drain_timeout / 2;
    for stage in [&shared.drain.announced, &shared.drain.closing] {
        stage.cancel();
        if tokio::time::timeout(half, shared.connections.wait()).await.is_ok() {
            return;
        }
    }
    tracing::warn!(connections = shared.connections.len(), "closing connections that did not end");
    shared.open.tell(Stage::Ended);
    shared.connections.wait().await;
}
