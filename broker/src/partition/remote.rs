//! A partition that another broker leads.

use std::sync::Arc;

use parking_lot::Mutex;
use taffrail_proto::v1::LogError;

use super::waiters::{Waiter, Waiters};
use super::{
    AppendError, AppendRequest, Current, DeleteRecordsError, FetchError, Isolation, ListedOffset, OffsetQuery,
    PendingAppend, ReadData, ReadRequest, Snapshot,
};
use crate::peers::Peers;
use crate::storage::PartitionId;
use crate::storage::leader_epochs::EpochEnd;

/// What is known of it here, and the way to its leader.
pub(super) struct Remote {
    peers: Arc<Peers>,
    id: PartitionId,
    leader: i32,
    leader_epoch: i32,
    seen: Mutex<Snapshot>,
    waiters: Waiters,
}

impl Remote {
    pub(super) fn new(peers: &Arc<Peers>, id: PartitionId, leader: i32, leader_epoch: i32) -> Arc<Self> {
        let seen = Mutex::new(Snapshot { leader_epoch, ..Snapshot::UNKNOWN });
        Arc::new(Self { peers: peers.clone(), id, leader, leader_epoch, seen, waiters: Waiters::default() })
    }

    pub(super) fn id(&self) -> PartitionId {
        self.id
    }

    pub(super) fn leader(&self) -> i32 {
        self.leader
    }

    fn unreachable(&self) -> Box<LogError> {
        Box::new(self.peers.unreachable(self.leader, self.leader_epoch))
    }

    pub(super) fn append(&self, request: AppendRequest) -> PendingAppend {
        PendingAppend::refused(request, AppendError::Leader(self.unreachable()))
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        *self.seen.lock()
    }

    pub(super) async fn current(&self) -> Result<Current, FetchError> {
        Err(FetchError::Leader(self.unreachable()))
    }

    pub(super) fn arm(&self, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        self.waiters.arm((beyond, isolation), waiter, token, || self.snapshot())
    }

    pub(super) async fn delete_records(&self, _: i64) -> Result<i64, DeleteRecordsError> {
        Err(DeleteRecordsError::Leader(self.unreachable()))
    }

    pub(super) fn close(&self) {
        let snapshot = Snapshot { closed: true, ..self.snapshot() };
        *self.seen.lock() = snapshot;
        self.waiters.wake(&snapshot);
    }

    pub(super) async fn read(&self, _: ReadRequest) -> Result<ReadData, FetchError> {
        Err(FetchError::Leader(self.unreachable()))
    }

    pub(super) fn largest_read_batch(&self) -> usize {
        0
    }

    pub(super) async fn list_offset(&self, _: OffsetQuery, _: Isolation) -> Result<ListedOffset, FetchError> {
        Err(FetchError::Leader(self.unreachable()))
    }

    pub(super) async fn end_of_epoch(&self, _: i32) -> Result<Option<EpochEnd>, FetchError> {
        Err(FetchError::Leader(self.unreachable()))
    }
}
