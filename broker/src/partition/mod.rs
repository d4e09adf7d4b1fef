//! One partition: a task that owns its writes, and a handle for everyone else.
//!
//! - `state`, `pending`: what is decided about appends and their answers, as synchronous state machines;
//! - `batch`: what a leader writes into a batch;
//! - `owner`: the task around them;
//! - [`snapshot`]: what readers see without asking the task; [`waiters`]: how they wait for more;
//! - [`read`]: reads, offset queries, history.
//!
//! It knows its log, its clock and its topic's configuration; not topics' names, not clients, not RPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use taffrail_proto::record::BatchHeader;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use self::batch::OwnedBatch;
use self::owner::{AppendCommand, AppendReply, Command, Owner};
use self::state::State;
use self::waiters::Waiters;
use crate::context::Context;
use crate::storage::{Durability, Log, PartitionId, StorageError};
use crate::topics::Settings;

mod batch;
mod error;
mod owner;
mod pending;
pub mod read;
pub mod snapshot;
mod state;
pub mod waiters;

pub use error::{AppendError, DeleteRecordsError, EpochError, FetchError};
pub use read::{ListedOffset, OffsetQuery, ReadData, ReadRequest};
pub use snapshot::{Isolation, Snapshot};
pub use waiters::Waiter;

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Acks {
    /// As soon as it is in line; the answer says nothing of its fate (A3).
    None,
    /// When it is in the leader's log at the topic's durability (A2).
    Leader,
    /// When every in-sync replica has it there (A1).
    #[default]
    All,
}

/// A batch to append.
#[derive(Debug)]
pub struct AppendRequest {
    /// Exactly one batch, validated (`taffrail_proto::record::validate`). Copied once on its way in.
    pub batch: Bytes,
    /// Its header, parsed.
    pub header: BatchHeader,
    /// The newest timestamp of its records, as found by the walk. The header is corrected where it says otherwise.
    pub max_timestamp: i64,
    /// When to answer.
    pub acks: Acks,
    /// Checked against the partition's where the client gave one (E2).
    pub leader_epoch: Option<i32>,
    /// What the batch was admitted with; released when its fate is known.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Which appends it may not overtake where one of them was refused.
    pub order: Option<Order>,
}

/// Appends to one partition that must not be there without those before them: once one that carries a clone of it is
/// refused, all later ones are (P9). A rule of who appends: the partition only keeps it.
#[derive(Clone, Debug, Default)]
pub struct Order(Arc<AtomicBool>);

impl Order {
    /// One of the appends was refused.
    pub fn end(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// An append that carries it was refused.
    pub fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An acknowledged append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record. Absent with [`Acks::None`], and for a repeat so old that its offset is forgotten (P1).
    pub base_offset: Option<i64>,
    /// How far it has got on each replica (D1).
    pub durability: Durability,
    /// Replicas that have it: 0 with [`Acks::None`].
    pub replicas: i32,
    /// The leader epoch of the answer.
    pub leader_epoch: i32,
    /// Append time, milliseconds since 1970, where the topic's timestamps are append times.
    pub log_append_time: Option<i64>,
    /// First offset that is still there.
    pub log_start_offset: i64,
    /// It had been appended before: nothing was written now.
    pub duplicate: bool,
}

/// Resolves when the batch is acknowledged as was asked, or refused. Dropping it does not take the append back.
#[derive(Debug)]
pub struct PendingAppend(oneshot::Receiver<Result<Appended, AppendError>>);

impl Future for PendingAppend {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(AppendError::ClosedInFlight)))
    }
}

/// Handle of a partition; clones are the same partition. It serves until it is [stopped](Self::stop) or all handles are gone.
#[derive(Clone)]
pub struct Partition {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What the owner shares with readers.
struct Shared {
    log: Arc<dyn Log>,
    snapshot: ArcSwap<Snapshot>,
    waiters: Waiters,
    largest_read_batch: AtomicUsize,
}

impl Shared {
    fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.waiters.wake(&snapshot);
    }
}

impl Partition {
    /// Takes the leadership of a log and serves it, under its newest leader epoch; a log that has none gets epoch 0, which is
    /// durable before it is used (E1, E5).
    pub async fn open(
        log: Arc<dyn Log>,
        context: Context,
        settings: Arc<ArcSwap<Settings>>,
    ) -> Result<Self, StorageError> {
        let leader_epoch = match log.leader_epochs().latest() {
            Some(epoch) => epoch,
            None => begin_epoch(&*log, 0).await?,
        };
        let state = State::new(log.extent(), leader_epoch, log.producers());
        let snapshot = ArcSwap::from_pointee(state.snapshot(false));
        let (waiters, largest_read_batch) = (Waiters::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { log, snapshot, waiters, largest_read_batch });
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(Owner::new(shared.clone(), context, settings, state).run(queue));
        Ok(Self { shared, commands })
    }

    /// What it holds.
    pub fn id(&self) -> PartitionId {
        self.shared.log.partition()
    }

    /// Puts a batch in line to be appended. Batches are appended in the order of these calls, on whatever task they are
    /// made. Does not block: what may be in line is bounded by the permits that the caller hands in.
    pub fn append(&self, request: AppendRequest) -> PendingAppend {
        let (reply, answer) = oneshot::channel();
        let AppendRequest { batch, header, max_timestamp, acks, leader_epoch, permit, order } = request;
        let reply = AppendReply { to: reply, order };
        let batch = OwnedBatch::copy(&batch, header, max_timestamp);
        self.send(Command::Append(Box::new(AppendCommand { batch, acks, leader_epoch, permit, reply })));
        PendingAppend(answer)
    }

    fn send(&self, command: Command) {
        if let Err(mpsc::error::SendError(command)) = self.commands.send(command) {
            owner::refuse_closed(command);
        }
    }

    /// Its state; cheap, never blocks.
    pub fn snapshot(&self) -> Snapshot {
        **self.shared.snapshot.load()
    }

    /// Bytes of the batches that are stored.
    pub fn size_bytes(&self) -> u64 {
        self.shared.log.size_bytes()
    }

    /// Its log, for what does not concern the owner.
    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.shared.log
    }

    /// Arms `waiter`: it gets `token` once, when there is something to see at or above `beyond`, or the partition is
    /// closed. Answers false, and arms nothing, if that is so now. Arming again does not undo an earlier arming.
    pub fn arm(&self, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        self.shared.waiters.arm((beyond, isolation), waiter, token, || self.snapshot())
    }

    /// Waits until there is something to see at or above `beyond`, or the partition is closed.
    pub async fn wait_beyond(&self, beyond: i64, isolation: Isolation) -> Snapshot {
        let waiter = Waiter::new();
        if self.arm(beyond, isolation, &waiter, 0) {
            waiter.ready().await;
        }
        self.snapshot()
    }

    /// Deletes the records before `offset` for good (−1: before the high watermark); answers the log's start. What shares a
    /// batch with a later record stays until that goes.
    pub async fn delete_records(&self, offset: i64) -> Result<i64, DeleteRecordsError> {
        let to = if offset == -1 { self.snapshot().high_watermark } else { offset };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Trim { to, reply });
        answer.await.unwrap_or(Err(DeleteRecordsError::Closed))
    }

    /// Ends serving, after what is in flight is done; what is in line behind is refused.
    pub async fn stop(&self) {
        self.send(Command::Stop);
        self.commands.closed().await;
        while !self.snapshot().closed {
            self.wait_beyond(i64::MAX, Isolation::default()).await;
        }
    }
}

/// Begins the next leader epoch of a log that may have lost acknowledged records: what is appended from now on must not
/// pass for what was there (D7). A log without an epoch has nothing to lose.
pub async fn raise_epoch(log: &dyn Log) -> Result<(), StorageError> {
    match log.leader_epochs().latest() {
        Some(latest) => begin_epoch(log, latest.saturating_add(1)).await.map(|_| ()),
        None => Ok(()),
    }
}

async fn begin_epoch(log: &dyn Log, epoch: i32) -> Result<i32, StorageError> {
    log.begin_epoch(epoch).await.unwrap_or(Err(StorageError::Closed))?;
    Ok(epoch)
}

#[cfg(test)]
mod tests;
