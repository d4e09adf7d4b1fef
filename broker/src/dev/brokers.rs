//! The brokers of the process, each on threads of its own, so that one of them can be killed as a crash would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{choose_zone, process};
use crate::broker::{BrokerError, Embedded};
use crate::config::Config;
use crate::readiness::Phase;
use crate::runtime;
use crate::telemetry::LogLevel;

/// Threads of each broker, beside those of its storage.
const THREADS: usize = 2;
/// How long calls of a killed broker that block may go on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What brokers are started from.
pub(super) struct Parts {
    /// By broker.
    pub(super) configs: Vec<Config>,
    /// Of the process.
    pub(super) log_level: Arc<LogLevel>,
    /// When the process began.
    pub(super) started: Instant,
    /// Files that each may have open.
    pub(super) open_files: u64,
    /// Where their metadata is.
    pub(super) embedded: Embedded,
}

/// All of them, with those that were killed.
pub(super) struct Brokers {
    parts: Parts,
    stop: CancellationToken,
    running: BTreeMap<i32, Running>,
    /// The one that was killed last.
    last_killed: i32,
}

/// One that runs.
struct Running {
    phase: watch::Receiver<Phase>,
    kill: CancellationToken,
    ended: oneshot::Receiver<Result<(), BrokerError>>,
}

impl Brokers {
    /// Starts all. They stop with `stop`.
    pub(super) fn start(parts: Parts, stop: &CancellationToken) -> Result<Self, BrokerError> {
        let mut brokers = Self { parts, stop: stop.clone(), running: BTreeMap::new(), last_killed: i32::MAX };
        brokers.revive()?;
        Ok(brokers)
    }

    /// Starts those that do not run.
    pub(super) fn revive(&mut self) -> Result<(), BrokerError> {
        for (config, id) in self.parts.configs.iter().zip(0..) {
            if !self.running.contains_key(&id) {
                choose_zone(config, id)?;
                self.running.insert(id, run(&self.parts, id, config, self.stop.clone())?);
            }
        }
        Ok(())
    }

    /// Kills the next one that runs, from the last to the first, where most clients are: its tasks are dropped where they stand,
    /// and its storage is not closed.
    pub(super) async fn kill_next(&mut self) {
        let next = self.running.range(..self.last_killed).next_back().or_else(|| self.running.last_key_value());
        let Some(id) = next.map(|(id, _)| *id) else { return };
        self.last_killed = id;
        let Some(running) = self.running.remove(&id) else { return };
        running.kill.cancel();
        // Its end: the data directory is free. A thread that panicked is one that has ended.
        let _ = running.ended.await;
        tracing::warn!(broker = id, "a broker was killed");
    }

    /// Waits until one has ended by itself, and how.
    pub(super) async fn ended(&mut self) -> Result<(), BrokerError> {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let ids: Vec<i32> = self.running.keys().copied().collect();
        let (outcome, place, _) = select_all(self.running.values_mut().map(|running| &mut running.ended)).await;
        // It will not end again.
        self.running.remove(&ids[place]);
        outcome.unwrap_or(Err(BrokerError::Died))
    }

    /// Waits until all that run now serve.
    pub(super) fn all_serve(&self) -> impl Future<Output = ()> + use<> {
        let phases = self.running.values().map(|running| running.phase.clone());
        let serving = phases.map(|mut phase| async move {
            if phase.wait_for(|phase| *phase == Phase::Serving).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        join_all(serving).map(drop)
    }

    /// Waits until all have ended; the first failure.
    pub(super) async fn stopped(self) -> Result<(), BrokerError> {
        let ended = join_all(self.running.into_values().map(|running| running.ended)).await;
        ended.into_iter().map(|outcome| outcome.unwrap_or(Err(BrokerError::Died))).fold(Ok(()), Result::and)
    }
}

fn run(parts: &Parts, id: i32, config: &Config, stop: CancellationToken) -> Result<Running, BrokerError> {
    let name = format!("broker-{id}");
    let runtime = runtime::new(&name, Some(THREADS)).map_err(BrokerError::Runtime)?;
    let process = process(parts, id, config, stop);
    let (phase, kill, (tell, ended)) = (process.readiness().subscribe(), CancellationToken::new(), oneshot::channel());
    let killed = kill.clone();
    let work = move || {
        let outcome = runtime.block_on(killed.run_until_cancelled(Box::pin(process.run())));
        runtime.shutdown_timeout(PATIENCE);
        // With it goes what still has the storage.
        drop(process);
        // Nobody may be waiting any more.
        let _ = tell.send(outcome.unwrap_or(Ok(())));
    };
    std::thread::Builder::new().name(name).spawn(work).map_err(BrokerError::Runtime)?;
    Ok(Running { phase, kill, ended })
}
