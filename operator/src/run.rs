//! `taffrail-operator run`: from the start to the signal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::channel::mpsc;
use kube::Client;
use taffrail_crds::{GROUP, Kind, VERSION};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::admin_http::{self, Subjects};
use crate::context::{Context, Settings};
use crate::events::Events;
use crate::lease::{Lease, LeaseSettings};
use crate::metrics::Metrics;
use crate::readiness::{Phase, Readiness};
use crate::telemetry::LogLevel;
use crate::watches::{self, Queues};
use crate::{cluster, rewind, topic};

/// How long between two looks at whether something that is waited for is there.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the HTTP server for probes and metrics.
    pub listen: SocketAddr,
    /// The Lease.
    pub lease: LeaseSettings,
    /// What the controllers need to know.
    pub settings: Settings,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options, log_level: LogLevel) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let subjects = Subjects { readiness: readiness.clone(), metrics: metrics.clone(), log_level: Arc::new(log_level) };
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    tokio::spawn(admin_http::serve(listener, subjects, stop.clone()));

    let client = Client::try_default()
        .await
        .context("find the API server: in a pod it needs a ServiceAccount, elsewhere set KUBECONFIG")?;
    let mut lease = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        lease = ask_for_lease(&client, &options.lease, &readiness) => lease,
    };
    loop {
        readiness.set(Phase::Standby);
        tokio::select! {
            () = stop.cancelled() => break,
            () = lease.wait_for(true) => {}
        }
        readiness.set(Phase::Acting);
        metrics.acting.set(1);
        tokio::select! {
            () = stop.cancelled() => break,
            () = lease.wait_for(false) => tracing::warn!("the Lease is lost: another operator acts"),
            // The watches would not tell what is so now.
            went_back = rewind::noticed(&client) => tracing::error!(%went_back, "all objects are listed anew"),
            result = act(&client, &options, &metrics) => result?,
        }
        metrics.acting.set(0);
    }
    readiness.set(Phase::Stopping);
    lease.give_back().await;
    Ok(())
}

/// Waits for the kinds and begins to ask for the Lease. What is missing is told, again when it is something else, and never
/// a reason to end: a pod that crashes tells less.
async fn ask_for_lease(client: &Client, settings: &LeaseSettings, readiness: &Readiness) -> Lease {
    loop {
        let missing = match missing_kinds(client).await {
            Ok(missing) if missing.is_empty() => match Lease::ask(client.clone(), settings).await {
                Ok(lease) => return lease,
                Err(error) => format!("for the Lease {}/{}: {error}", settings.namespace, settings.name),
            },
            Ok(missing) => format!(
                "for the kinds {} of {GROUP}/{VERSION}: install them with the chart (crds.enabled=true) or by \
                 \"taffrail-operator crd | kubectl apply --server-side -f -\"",
                missing.join(", ")
            ),
            Err(error) => format!("for the API server: {error}"),
        };
        readiness.set(Phase::Waiting(missing));
        sleep(LOOK_AGAIN).await;
    }
}

/// Kinds that the API server does not serve.
async fn missing_kinds(client: &Client) -> Result<Vec<&'static str>, kube::Error> {
    let served = match client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await {
        Ok(list) => list.resources,
        Err(error) if crate::error::code(&error) == Some(404) => vec![],
        Err(error) => return Err(error),
    };
    let is_served = |kind: &Kind| served.iter().any(|resource| resource.kind == kind.name());
    Ok(Kind::ALL.iter().filter(|kind| !is_served(kind)).map(|kind| kind.name()).collect())
}

/// Acts until it is dropped; that may be at any moment.
async fn act(client: &Client, options: &Options, metrics: &Arc<Metrics>) -> anyhow::Result<()> {
    let (clusters, cluster_queue) = mpsc::unbounded();
    let (topics, topic_queue) = mpsc::unbounded();
    let (gone, gone_queue) = mpsc::unbounded();
    let (stores, mut watches) = watches::start(client, Queues { clusters, topics, gone });
    stores.wait_listed().await.context("the watches have ended")?;
    let context = Arc::new(Context {
        client: client.clone(),
        events: Arc::new(Events::new(client.clone(), &options.lease.identity)),
        metrics: metrics.clone(),
        settings: Arc::new(options.settings.clone()),
        stores,
    });
    tracing::info!("all kinds are watched");
    tokio::select! {
        () = cluster::run(context.clone(), cluster_queue) => {}
        () = topic::run(context.clone(), topic_queue) => {}
        () = cluster::sweep::run(context, gone_queue) => {}
        _ = watches.join_next() => {}
    }
    anyhow::bail!("a controller has ended by itself")
}

fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}
