//! One partition: a task that owns its writes, and a handle for everyone else.
//!
//! - [`state`]: what is decided about appends, as a synchronous state machine;
//! - [`owner`]: the task around it;
//! - [`snapshot`]: what readers see without asking the task; [`waiters`]: how they wait for more;
//! - [`read`]: reads, offset queries, history.
//!
//! It knows its log, its clock and its topic's configuration; not topics' names, not clients, not RPC.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use taffrail_proto::record::BatchHeader;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::storage::{Durability, PartitionId};

mod error;
pub mod read;
pub mod snapshot;
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

/// Handle of a partition; clones are the same partition.
#[derive(Clone)]
pub struct Partition {
    inner: Arc<Inner>,
}

struct Inner {}

impl Partition {
    /// What it holds.
    pub fn id(&self) -> PartitionId {
        todo!()
    }

    /// Puts a batch in line to be appended. Batches are appended in the order of these calls, on whatever task they are
    /// made. Does not block: what may be in line is bounded by the permits that the caller hands in.
    pub fn append(&self, _request: AppendRequest) -> PendingAppend {
        todo!()
    }

    /// Its state; cheap, never blocks.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }

    /// Bytes of the batches that are stored.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Arms `waiter`: it gets `token` once, when there is something to see at or above `beyond`, or the partition is
    /// closed. Answers false, and arms nothing, if that is so now. Arming again does not undo an earlier arming.
    pub fn arm(&self, _beyond: i64, _isolation: Isolation, _waiter: &Arc<Waiter>, _token: u64) -> bool {
        todo!()
    }

    /// Waits until there is something to see at or above `beyond`, or the partition is closed.
    pub async fn wait_beyond(&self, beyond: i64, isolation: Isolation) -> Snapshot {
        let waiter = Waiter::new();
        if self.arm(beyond, isolation, &waiter, 0) {
            waiter.ready().await;
        }
        self.snapshot()
    }

    /// Deletes the records before `offset` for good (−1: before the high watermark); answers the log's start.
    pub async fn delete_records(&self, _offset: i64) -> Result<i64, DeleteRecordsError> {
        todo!()
    }
}
