//! One partition: a task that owns its writes, and a handle for everyone else.
//!
//! - `state`, `pending`: what is decided about appends and their answers, as synchronous state machines;
//! - `batch`: what a leader writes into a batch;
//! - `owner`: the task around them, what it is asked (`command`), and what it waits for (`in_flight`);
//! - [`snapshot`]: what readers see without asking the task; [`waiters`]: how they wait for more;
//! - [`read`]: reads, offset queries, history;
//! - `local`, `remote`: one that this broker leads, and one that another leads, to which everything goes on;
//! - `replica`: one that another leads, read here;
//! - `damage`: stored records that cannot be read any more.
//!
//! It knows its log, its clock and its topic's configuration; not topics' names, not clients, not RPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use arc_swap::ArcSwap;
use bytes::Bytes;
use taffrail_crds::slice::Replica;
use taffrail_proto::record::BatchHeader;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use self::local::Local;
use self::remote::Remote;
use self::replica::Here;
use crate::context::Context;
use crate::peers::Peers;
use crate::replication::fetcher::Follow;
use crate::replication::{Proposals, View};
use crate::storage::leader_epochs::EpochEnd;
use crate::storage::{Durability, Log, PartitionId, StorageError};
use crate::topics::Settings;

mod batch;
mod command;
mod damage;
mod error;
mod in_flight;
mod local;
mod owner;
mod pending;
pub mod read;
mod remote;
mod replica;
pub mod snapshot;
mod state;
pub mod waiters;

pub use error::{AppendError, DeleteRecordsError, EpochError, FetchError, LeadError};
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

    /// Another number than that of any other order that is there.
    pub(crate) fn number(&self) -> u64 {
        Arc::as_ptr(&self.0).addr() as u64
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

impl PendingAppend {
    /// Of an append that was refused before it got into a line.
    fn refused(request: &AppendRequest, error: AppendError) -> Self {
        let (reply, answer) = oneshot::channel();
        if let Some(order) = &request.order {
            order.end();
        }
        let _ = reply.send(Err(error));
        Self(answer)
    }
}

impl Future for PendingAppend {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(AppendError::ClosedInFlight)))
    }
}

/// Handle of a partition, wherever it is led; clones are the same partition. One that is led here serves until it is
/// [stopped](Self::stop) or all handles are gone.
#[derive(Clone)]
pub struct Partition(Backing);

#[derive(Clone)]
enum Backing {
    /// Led by this broker.
    Local(Local),
    /// Led by another one.
    Remote(Arc<Remote>),
    /// Led by another one, and read from this broker's replica.
    Here(Here),
    /// Led by nobody.
    Offline(Arc<Offline>),
}

/// Under what a log is led.
#[derive(Debug)]
pub struct Term {
    /// The leader epoch; `None`: the log's newest, or 0.
    pub epoch: Option<i32>,
    /// Where there is a slice to go by, also if it knows of no other replica. `None`: all that is written is committed.
    pub replicated: Option<Replicated>,
}

impl Term {
    /// Of a broker that stands alone.
    pub fn alone(epoch: Option<i32>) -> Self {
        Self { epoch, replicated: None }
    }
}

/// What a leader begins with. One leadership, by leader epoch and session, may be begun again: it goes on with the change that
/// stands in `proposals`, which may have been heard and be taken up yet (I5).
#[derive(Debug)]
pub struct Replicated {
    /// The state under which it was elected, or a newer one of the same leadership.
    pub view: View,
    /// As it was known to this broker while it followed; 0: nothing is known.
    pub high_watermark: i64,
    /// Where it leaves the changes of in-sync replicas that it asks for.
    pub proposals: Arc<Proposals>,
}

/// A partition's state, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its ends and its epoch.
    pub snapshot: Snapshot,
    /// Bytes of the batches that are stored.
    pub size_bytes: u64,
}

impl Partition {
    /// Takes the leadership of a log and serves it, under the epoch of `term`, which is durable before it is used where the
    /// log does not have it yet (E1, E5). Refused if the log has seen a newer one.
    pub async fn lead(
        log: Arc<dyn Log>,
        context: Context,
        settings: Arc<ArcSwap<Settings>>,
        term: Term,
    ) -> Result<Self, LeadError> {
        Ok(Self(Backing::Local(Local::lead(log, context, settings, term).await?)))
    }

    /// One that broker `leader` leads, under this epoch: what is asked of it goes there.
    pub fn remote(peers: &Arc<Peers>, id: PartitionId, leader: i32, leader_epoch: i32) -> Self {
        Self(Backing::Remote(Remote::new(peers, id, leader, leader_epoch)))
    }

    /// One that nobody leads; `fault` says why, where that is known.
    pub fn offline(id: PartitionId, fault: Option<String>) -> Self {
        Self(Backing::Offline(Arc::new(Offline::new(id, fault))))
    }

    /// What another broker leads is followed here, under the same leader epoch.
    pub fn followed(&self, log: Arc<dyn Log>, follow: &Follow) {
        if let Backing::Remote(remote) = &self.0 {
            remote.attach(replica::Replica::new(log, follow));
        }
    }

    /// The same partition, read from this broker's replica, if that is in sync now (R3). Everything else goes on to the leader.
    pub fn in_sync_replica(&self) -> Option<Self> {
        let Backing::Remote(remote) = &self.0 else { return None };
        let replica = remote.replica().filter(|replica| replica.is_in_sync())?;
        Some(Self(Backing::Here(Here { leader: remote.clone(), replica: replica.clone() })))
    }

    /// Records that this broker's replica lacked when it heard of its leader last; `None`: it does not follow.
    pub fn lag(&self) -> Option<i64> {
        let Backing::Remote(remote) = &self.0 else { return None };
        Some(remote.replica()?.lag())
    }

    /// Records that are stored here were found to be damaged since this broker leads the partition, or follows its leader, under
    /// this leader epoch (D5).
    pub fn is_damaged(&self) -> bool {
        match &self.0 {
            Backing::Local(local) => local.is_damaged(),
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => {
                remote.replica().is_some_and(|replica| replica.is_damaged())
            }
            Backing::Offline(_) => false,
        }
    }

    /// The slice shows a new state of the leadership under which this broker leads it. One that is led elsewhere does not
    /// care.
    pub fn adopt(&self, view: View) {
        if let Backing::Local(local) = &self.0 {
            local.adopt(view);
        }
    }

    /// A follower's log is written up to here at the topic's durability, as it said under the leader epoch of this partition
    /// (E2, H7). Cheap, does not block. One that is led elsewhere does not care.
    pub fn fetched(&self, by: Replica, written: i64) {
        if let Backing::Local(local) = &self.0 {
            local.fetched(by, written);
        }
    }

    /// Whether this broker leads it.
    pub fn is_local(&self) -> bool {
        matches!(self.0, Backing::Local(_))
    }

    /// Which other broker leads it, if one does.
    pub fn remote_leader(&self) -> Option<i32> {
        match &self.0 {
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => Some(remote.leader()),
            Backing::Local(_) | Backing::Offline(_) => None,
        }
    }

    /// Whether both are handles of the same partition, led in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Backing::Local(one), Backing::Local(other)) => one.is_same(other),
            (Backing::Remote(one), Backing::Remote(other)) => Arc::ptr_eq(one, other),
            (Backing::Here(one), Backing::Here(other)) => Arc::ptr_eq(&one.leader, &other.leader),
            (Backing::Offline(one), Backing::Offline(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// What it holds.
    pub fn id(&self) -> PartitionId {
        match &self.0 {
            Backing::Local(local) => local.id(),
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.id(),
            Backing::Offline(offline) => offline.id(),
        }
    }

    /// Puts a batch in line to be appended. Batches are appended in the order of these calls, on whatever task they are
    /// made. Does not block: what may be in line is bounded by the permits that the caller hands in.
    pub fn append(&self, request: AppendRequest) -> PendingAppend {
        match &self.0 {
            Backing::Local(local) => local.append(request),
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.append(request),
            Backing::Offline(offline) => PendingAppend::refused(&request, AppendError::NoLeader(offline.fault())),
        }
    }

    /// Its state; cheap, never blocks. Of one that is not led here only what was heard last, and [`Snapshot::UNKNOWN`]
    /// before that: ask for what is [current](Self::current).
    pub fn snapshot(&self) -> Snapshot {
        match &self.0 {
            Backing::Local(local) => local.snapshot(),
            Backing::Remote(remote) => remote.snapshot(),
            Backing::Here(here) => here.snapshot(),
            Backing::Offline(_) => Snapshot { closed: true, ..Snapshot::UNKNOWN },
        }
    }

    /// Its state, asked of its leader.
    pub async fn current(&self) -> Result<Current, FetchError> {
        match &self.0 {
            Backing::Local(local) => Ok(Current { snapshot: local.snapshot(), size_bytes: local.size_bytes() }),
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.current().await,
            Backing::Offline(offline) => Err(FetchError::NoLeader(offline.fault())),
        }
    }

    /// Bytes of the batches that are stored here: none where it is led elsewhere.
    pub fn size_bytes(&self) -> u64 {
        self.log().map_or(0, |log| log.size_bytes())
    }

    /// Its log, where it is led here: for what does not concern the owner.
    pub fn log(&self) -> Option<&Arc<dyn Log>> {
        match &self.0 {
            Backing::Local(local) => Some(local.log()),
            Backing::Remote(_) | Backing::Here(_) | Backing::Offline(_) => None,
        }
    }

    /// Arms `waiter`: it gets `token` once, when there is something to see at or above `beyond`, or the partition is
    /// closed. Answers false, and arms nothing, if that is so now. Arming again does not undo an earlier arming.
    pub fn arm(&self, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        match &self.0 {
            Backing::Local(local) => local.arm(beyond, isolation, waiter, token),
            // A replica looks, and is told.
            Backing::Remote(_) | Backing::Here(_) if isolation == Isolation::LogEnd => false,
            Backing::Remote(remote) => remote.arm(beyond, isolation, waiter, token),
            Backing::Here(here) => here.arm(beyond, isolation, waiter, token),
            Backing::Offline(_) => false,
        }
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
        match &self.0 {
            Backing::Local(local) => local.delete_records(offset).await,
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.delete_records(offset).await,
            Backing::Offline(offline) => Err(DeleteRecordsError::NoLeader(offline.fault())),
        }
    }

    /// Ends serving, after what is in flight is done; what is in line behind is refused. To be called also for a handle of a
    /// partition that is led elsewhere, once another has taken its place: who waits at it gets to know.
    pub async fn stop(&self) {
        match &self.0 {
            Backing::Local(local) => local.stop().await,
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.close(),
            Backing::Offline(_) => {}
        }
    }

    /// Reads whole batches. Does not wait for data.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadData, FetchError> {
        match &self.0 {
            Backing::Local(local) => local.read(request).await,
            Backing::Remote(_) | Backing::Here(_) if request.isolation == Isolation::LogEnd => {
                Err(FetchError::NoLeader("this broker does not lead it, and replicas ask the leader itself".into()))
            }
            Backing::Remote(remote) => remote.read(request).await,
            Backing::Here(here) => here.read(request).await,
            Backing::Offline(offline) => Err(FetchError::NoLeader(offline.fault())),
        }
    }

    /// Bytes of the largest batch that was read here since the start: what a read may hold, however little is asked for.
    pub fn largest_read_batch(&self) -> usize {
        match &self.0 {
            Backing::Local(local) => local.largest_read_batch(),
            Backing::Remote(remote) => remote.largest_read_batch(),
            Backing::Here(here) => here.largest_read_batch(),
            Backing::Offline(_) => 0,
        }
    }

    /// Looks an offset up.
    pub async fn list_offset(&self, query: OffsetQuery, isolation: Isolation) -> Result<ListedOffset, FetchError> {
        match &self.0 {
            Backing::Local(local) => local.list_offset(query, isolation).await,
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => {
                remote.list_offset(query, isolation).await
            }
            Backing::Offline(offline) => Err(FetchError::NoLeader(offline.fault())),
        }
    }

    /// Where the largest leader epoch that is not above `epoch` ends; `None` if all of the log's are above.
    pub async fn end_of_epoch(&self, epoch: i32) -> Result<Option<EpochEnd>, FetchError> {
        match &self.0 {
            Backing::Local(local) => local.end_of_epoch(epoch),
            Backing::Remote(remote) | Backing::Here(Here { leader: remote, .. }) => remote.end_of_epoch(epoch).await,
            Backing::Offline(offline) => Err(FetchError::NoLeader(offline.fault())),
        }
    }
}

/// One that nobody leads.
struct Offline {
    id: PartitionId,
    fault: Arc<str>,
}

impl Offline {
    fn new(id: PartitionId, fault: Option<String>) -> Self {
        Self { id, fault: fault.unwrap_or_else(|| "its broker is not there".to_owned()).into() }
    }

    fn id(&self) -> PartitionId {
        self.id
    }

    fn fault(&self) -> Arc<str> {
        self.fault.clone()
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

/// The epoch under which a log is led: the one that was given, else its newest.
async fn take_epoch(log: &dyn Log, given: Option<i32>) -> Result<i32, LeadError> {
    match (given, log.leader_epochs().latest()) {
        (Some(given), Some(newest)) if given < newest => Err(LeadError::Fenced { given, newest }),
        (Some(given), Some(newest)) if given == newest => Ok(given),
        (Some(given), _) => Ok(begin_epoch(log, given).await?),
        (None, Some(newest)) => Ok(newest),
        (None, None) => Ok(begin_epoch(log, 0).await?),
    }
}

async fn begin_epoch(log: &dyn Log, epoch: i32) -> Result<i32, StorageError> {
    log.begin_epoch(epoch).await.unwrap_or(Err(StorageError::Closed))?;
    Ok(epoch)
}

#[cfg(test)]
pub(crate) mod tests;
