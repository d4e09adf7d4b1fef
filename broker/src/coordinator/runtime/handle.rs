//! How a coordinator is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::step::Failure;
use super::task::{Setup, Task};
use crate::coordinator::StateMachine;
use crate::partition::Partition;

/// Requests that may wait for a shard: some milliseconds' worth of work.
const MAX_WAITING: usize = 4_096;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The log is being read; nothing was done.
    #[error("the coordinator is loading: try again after a moment")]
    Loading,
    /// As many requests wait as may; nothing was done.
    #[error("the coordinator has {MAX_WAITING} requests waiting: slow down and try again")]
    Busy,
    /// The log cannot be read; nothing was done.
    #[error("the coordinator's log cannot be read: {0}")]
    Unreadable(Arc<str>),
    /// The broker stops, or the partition is not served any more; nothing was done.
    #[error("the coordinator is not served any more: the broker is stopping")]
    Closed,
    /// The coordinator ended before it answered. Whether the request took effect is unknown.
    #[error("the coordinator stopped: whether the request took effect is unknown")]
    Lost,
    /// See [`Failure`].
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What a coordinator is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reads its log.
    Loading,
    /// Answers.
    Serving,
    /// Its log cannot be read, and why: a person has to look.
    Unreadable(Arc<str>),
    /// Ended.
    Closed,
}

/// A coordinator, for people and metrics.
#[derive(Debug, Default)]
pub struct Status {
    /// Milliseconds that the last load took.
    pub load_millis: AtomicU64,
    /// Records that the last load read.
    pub loaded_records: AtomicU64,
    /// Checkpoints that were finished.
    pub checkpoints: AtomicU64,
}

pub(super) struct Ask<M: StateMachine> {
    pub(super) request: M::Request,
    pub(super) reply: Reply<M>,
}

pub(super) type Reply<M> = oneshot::Sender<Result<<M as StateMachine>::Answer, Failure>>;

/// What task and handle share.
pub(super) struct Shared {
    pub(super) phase: watch::Sender<Phase>,
    pub(super) now: ArcSwap<Phase>,
    pub(super) status: Status,
}

impl Shared {
    pub(super) fn enter(&self, phase: Phase) {
        self.now.store(Arc::new(phase.clone()));
        self.phase.send_replace(phase);
    }
}

/// Handle of a shard and its task.
pub struct Coordinator<M: StateMachine> {
    requests: mpsc::Sender<Ask<M>>,
    shared: Arc<Shared>,
    partition: Partition,
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    stop: tokio_util::sync::CancellationToken,
}

impl<M: StateMachine> Coordinator<M> {
    /// Begins to load the shard whose log is `partition`.
    pub fn start(partition: Partition, setup: Setup<M>) -> Self {
        let (requests, queue) = mpsc::channel(MAX_WAITING);
        let shared = Arc::new(Shared {
            phase: watch::Sender::new(Phase::Loading),
            now: ArcSwap::from_pointee(Phase::Loading),
            status: Status::default(),
        });
        let stop = tokio_util::sync::CancellationToken::new();
        let task = Task::new(partition.clone(), setup, shared.clone(), queue, stop.clone());
        let task = parking_lot::Mutex::new(Some(tokio::spawn(task.run())));
        Self { requests, shared, partition, task, stop }
    }

    /// Asks. The request is in line when this returns; dropping the future does not take it back.
    pub fn ask(&self, request: M::Request) -> impl Future<Output = Result<M::Answer, AskError>> + Send + use<M> {
        let asked = self.enqueue(request);
        async move { Ok(asked?.await.map_err(|_| AskError::Lost)??) }
    }

    fn enqueue(&self, request: M::Request) -> Result<oneshot::Receiver<Result<M::Answer, Failure>>, AskError> {
        match &**self.shared.now.load() {
            Phase::Serving => {}
            Phase::Loading => return Err(AskError::Loading),
            Phase::Unreadable(why) => return Err(AskError::Unreadable(why.clone())),
            Phase::Closed => return Err(AskError::Closed),
        }
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Ask { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => AskError::Busy,
            mpsc::error::TrySendError::Closed(_) => AskError::Closed,
        })?;
        Ok(answer)
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        Phase::clone(&self.shared.now.load())
    }

    /// Waits until it serves, or cannot, at most so long; what it is doing then.
    pub async fn loaded(&self, patience: Duration) -> Phase {
        let mut phases = self.shared.phase.subscribe();
        let settled = phases.wait_for(|phase| *phase != Phase::Loading);
        // The sender lives as long as this handle.
        let _ = tokio::time::timeout(patience, settled).await;
        self.phase()
    }

    /// Numbers.
    pub fn status(&self) -> &Status {
        &self.shared.status
    }

    /// Bytes of its log.
    pub fn log_bytes(&self) -> u64 {
        self.partition.size_bytes()
    }

    /// Answers what is in flight, refuses the rest, and ends. To be called before its partition is stopped.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "a coordinator ended unexpectedly");
        }
    }
}

pub(super) fn count(number: &AtomicU64) {
    number.fetch_add(1, Relaxed);
}
