//! Which broker is controller: the holder of the Lease `<cluster>-controller` that has raised the `controllerEpoch` of the
//! ClusterState.
//!
//! The Lease only keeps several brokers from trying at once. What fences is the epoch: it is raised by compare-and-swap,
//! every slice carries it, and a controller that has been replaced is refused (M14). Neither looks at a wall clock. A
//! Lease that a person deletes, steals or edits costs time and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::metadata::MetadataStore;
use crate::storage::MetaStore;
use claim::ClaimError;
use core::{Core, Effect, Event, Term};

mod claim;
pub mod core;
mod lease;

pub use core::{Seen, Times, WriteError};
pub use lease::{EmbeddedLease, KubernetesLease, LeaseApi, Unread, Wanted};

/// How long a stop tries to release the Lease.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// Whether this process is controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It is not; who holds the Lease (`<pod>_<random>`), if that is known.
    Follower {
        /// Identity of the process.
        holder: Option<String>,
    },
    /// It is, under this epoch.
    Acting {
        /// The `controllerEpoch` of this term.
        epoch: i32,
        /// No write begins at or after this moment of [`crate::clock::Clock::since_boot`]; each renewal moves it on. A
        /// write takes at most until then, too: [`MetadataStore::until`].
        write_until: Duration,
    },
}

/// What an election needs.
pub struct Settings {
    /// Where the Lease is.
    pub lease: Arc<dyn LeaseApi>,
    /// Where the ClusterState is.
    pub store: Arc<dyn MetadataStore>,
    /// What the volume remembers: whether there was a ClusterState already.
    pub meta: Arc<dyn MetaStore>,
    /// Clock and randomness.
    pub context: Context,
    /// Name of the Cluster.
    pub cluster: String,
    /// Number of this broker.
    pub broker: i32,
    /// Name of the pod, or of whatever runs this process.
    pub pod: String,
    /// How soon a dead controller is replaced.
    pub times: Times,
}

/// An election that this process takes part in.
#[derive(Debug)]
pub struct Election {
    leadership: watch::Receiver<Leadership>,
    deposed: mpsc::UnboundedSender<i32>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Election {
    /// Takes part, until it is stopped.
    pub fn start(settings: Settings) -> Self {
        let (told, leadership) = watch::channel(Leadership::Follower { holder: None });
        let (deposed, heard) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        // The random part makes a pod that is started again another candidate (M15).
        let identity = format!("{}_{}", settings.pod, settings.context.random_uuid());
        let core = Core::new(identity.clone(), settings.times);
        let shell = Shell { core, settings, identity, told, epoch: None, lost: Arc::default(), stop: stop.clone() };
        Self { leadership, deposed, stop, task: tokio::spawn(shell.run(heard)) }
    }

    /// Whether this process is controller, and each change of that.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Takes epochs of this process in which a controller of a higher epoch was seen: the term ends at once. If this process
    /// still holds the Lease, it begins another.
    pub fn deposed(&self) -> mpsc::UnboundedSender<i32> {
        self.deposed.clone()
    }

    /// Gives up the Lease, so that another broker can take it at once.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(RELEASE_PATIENCE, self.task).await.is_err() {
            tracing::warn!("the controller's Lease was not released: another broker takes it once it has expired");
        }
    }
}

struct Shell {
    core: Core,
    settings: Settings,
    identity: String,
    told: watch::Sender<Leadership>,
    /// What was claimed: number of the term, and its epoch.
    epoch: Option<(u64, i32)>,
    /// It was said that the ClusterState is gone.
    lost: Arc<AtomicBool>,
    stop: CancellationToken,
}

type Claim = BoxFuture<'static, Option<(u64, i32)>>;

impl Shell {
    async fn run(mut self, mut deposed: mpsc::UnboundedReceiver<i32>) {
        let mut call: Option<BoxFuture<'static, Event>> = None;
        let mut claim: Option<Claim> = None;
        let mut event = Event::Tick;
        loop {
            if let Some(effect) = self.core.apply(event, self.now()) {
                call = Some(self.call(effect));
            }
            self.tell();
            if self.core.is_done() {
                return;
            }
            if claim.is_none() && self.unclaimed().is_some() {
                claim = self.unclaimed().map(|term| self.claim(term));
            }
            let wake = self.core.wake().map(|at| at.saturating_sub(self.now()));
            event = tokio::select! {
                () = self.stop.cancelled(), if !self.core.is_stopping() => Event::Stop,
                Some(answer) = OptionFuture::from(call.as_mut()) => {
                    call = None;
                    answer
                }
                Some(claimed) = OptionFuture::from(claim.as_mut()) => {
                    claim = None;
                    self.epoch = claimed.or(self.epoch);
                    Event::Tick
                }
                Some(epoch) = deposed.recv() => {
                    if self.epoch.is_some_and(|(_, own)| own == epoch) { Event::Deposed } else { Event::Tick }
                }
                Some(()) = OptionFuture::from(wake.map(sleep)) => Event::Tick,
            };
        }
    }

    fn now(&self) -> Duration {
        self.settings.context.clock().since_boot()
    }

    /// The term that has no epoch yet.
    fn unclaimed(&self) -> Option<Term> {
        self.core.term(self.now()).filter(|term| self.epoch.is_none_or(|(number, _)| number != term.number))
    }

    fn tell(&self) {
        let term = self.core.term(self.now());
        let epoch = term.and_then(|term| self.epoch.filter(|(number, _)| *number == term.number));
        let new = match (term, epoch) {
            (Some(Term { write_until, .. }), Some((_, epoch))) => Leadership::Acting { epoch, write_until },
            _ => Leadership::Follower { holder: self.core.holder().map(str::to_owned) },
        };
        self.told.send_if_modified(|told| {
            let changed = *told != new;
            log(told, &new);
            *told = new;
            changed
        });
    }

    fn call(&self, effect: Effect) -> BoxFuture<'static, Event> {
        let Settings { lease, times, context, .. } = &self.settings;
        let (lease, identity, wall_millis) = (lease.clone(), self.identity.clone(), context.wall_millis());
        // Two tries fit into the time in which a renewal has to succeed.
        let (patience, duration) = (times.renew_deadline / 2, times.lease);
        let reads = effect == Effect::Read;
        let call = async move {
            match effect {
                Effect::Read => Event::Read(lease.read().await.map_err(|Unread| ())),
                Effect::Write { over, held } => {
                    let holder = held.then_some(identity);
                    Event::Wrote(lease.write(Wanted { over, holder, duration, wall_millis }).await)
                }
            }
        };
        async move {
            let late = || if reads { Event::Read(Err(())) } else { Event::Wrote(Err(WriteError::Unknown)) };
            timeout(patience, call).await.unwrap_or_else(|_| late())
        }
        .boxed()
    }

    /// Raises the epoch for a term; nothing: it was not raised in time, and is tried again.
    fn claim(&self, term: Term) -> Claim {
        let end = tokio::time::Instant::now() + term.write_until.saturating_sub(self.now());
        let store = self.settings.store.until(end);
        let (cluster, broker) = (self.settings.cluster.clone(), self.settings.broker);
        let (context, retry) = (self.settings.context.clone(), self.settings.times.retry);
        let (meta, lost) = (self.settings.meta.clone(), self.lost.clone());
        async move {
            match tokio::time::timeout_at(end, claim::raise(&*store, &meta, &context, &cluster, broker)).await {
                Ok(Ok(epoch)) => {
                    lost.store(false, Ordering::Relaxed);
                    Some((term.number, epoch))
                }
                Ok(Err(error)) => {
                    let is_lost = matches!(error, ClaimError::Lost { .. } | ClaimError::Orphaned { .. });
                    if !is_lost {
                        tracing::warn!(%error, "cannot become controller: the ClusterState was not written");
                    } else if !lost.swap(true, Ordering::Relaxed) {
                        tracing::error!(%error, "cannot become controller");
                    }
                    sleep(retry).await;
                    None
                }
                Err(_) => None,
            }
        }
        .boxed()
    }
}

fn log(old: &Leadership, new: &Leadership) {
    match (old, new) {
        (Leadership::Acting { epoch: old, .. }, Leadership::Acting { epoch, .. }) if old == epoch => {}
        (_, Leadership::Acting { epoch, .. }) => tracing::info!(epoch, "this broker is controller"),
        (Leadership::Acting { epoch, .. }, Leadership::Follower { holder }) => {
            tracing::info!(epoch, holder, "this broker is not controller any more");
        }
        (Leadership::Follower { holder: old }, Leadership::Follower { holder }) => {
            if old != holder {
                tracing::info!(holder, "another broker holds the controller's Lease, or nobody does");
            }
        }
    }
}
