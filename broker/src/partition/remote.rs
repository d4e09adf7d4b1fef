//! A partition that another broker leads: everything goes there. What its leader has said of it is kept for those who wait.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use taffrail_proto::internal::v1::{
    CurrentRequest, DeleteRecordsRequest, EndOfEpochRequest, ListOffsetRequest, PartitionRef, PartitionState,
    ReadRequest as WireRead, list_offset_request::At,
};
use taffrail_proto::v1::LogError;
use tokio::sync::oneshot;

use super::replica::Replica;
use super::state::check_epoch;
use super::waiters::{Waiter, Waiters};
use super::{
    AppendError, AppendRequest, Current, DeleteRecordsError, FetchError, Isolation, ListedOffset, OffsetQuery,
    PendingAppend, ReadData, ReadRequest, Snapshot,
};
use crate::peers::{Outgoing, Peer, Peers, Purpose, Watch, wire};
use crate::storage::PartitionId;
use crate::storage::leader_epochs::EpochEnd;

/// The way to its leader, and what that has said.
pub(super) struct Remote {
    peer: Arc<Peer>,
    id: PartitionId,
    leader: i32,
    leader_epoch: i32,
    seen: Mutex<Snapshot>,
    waiters: Waiters,
    /// Whether the leader was asked to tell of more, by isolation. Nobody waits here for what is not committed.
    watching: [AtomicBool; 2],
    largest_read_batch: AtomicUsize,
    /// Where this broker follows it.
    replica: OnceLock<Arc<Replica>>,
}

impl Remote {
    pub(super) fn new(peers: &Arc<Peers>, id: PartitionId, leader: i32, leader_epoch: i32) -> Arc<Self> {
        Arc::new(Self {
            peer: peers.peer(leader),
            id,
            leader,
            leader_epoch,
            seen: Mutex::new(Snapshot { leader_epoch, ..Snapshot::UNKNOWN }),
            waiters: Waiters::default(),
            watching: [AtomicBool::new(false), AtomicBool::new(false)],
            largest_read_batch: AtomicUsize::new(0),
            replica: OnceLock::new(),
        })
    }

    /// This broker has a replica, which follows under the very leader epoch. A second one is not taken.
    pub(super) fn attach(&self, replica: Replica) {
        let _ = self.replica.set(Arc::new(replica));
    }

    pub(super) fn replica(&self) -> Option<&Arc<Replica>> {
        self.replica.get()
    }

    pub(super) fn id(&self) -> PartitionId {
        self.id
    }

    pub(super) fn leader(&self) -> i32 {
        self.leader
    }

    fn partition(&self) -> PartitionRef {
        wire::partition(self.id, self.leader_epoch)
    }

    pub(super) fn append(&self, request: AppendRequest) -> PendingAppend {
        let checked = request.leader_epoch.map_or(Ok(()), |given| check_epoch(given, self.leader_epoch));
        if let Err(error) = checked {
            return PendingAppend::refused(&request, error.into());
        }
        if self.snapshot().closed {
            return PendingAppend::refused(&request, AppendError::Closed);
        }
        let (reply, answer) = oneshot::channel();
        let AppendRequest { batch, max_timestamp, acks, permit, order, .. } = request;
        let partition = self.partition();
        self.peer.appends().put(Outgoing { partition, batch, max_timestamp, acks, order, permit, reply });
        PendingAppend(answer)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        *self.seen.lock()
    }

    /// Takes note of what the leader said. Answers may overtake each other: nothing goes back.
    fn hear(&self, state: PartitionState) -> Snapshot {
        let heard = wire::snapshot(state);
        let seen = {
            let mut seen = self.seen.lock();
            seen.log_start = seen.log_start.max(heard.log_start);
            seen.high_watermark = seen.high_watermark.max(heard.high_watermark);
            seen.last_stable = seen.last_stable.max(heard.last_stable);
            seen.log_end = seen.log_end.max(heard.log_end);
            *seen
        };
        self.waiters.wake(&seen);
        heard
    }

    fn is_served(&self) -> Result<(), FetchError> {
        if self.snapshot().closed { Err(FetchError::Closed) } else { Ok(()) }
    }

    pub(super) async fn current(&self) -> Result<Current, FetchError> {
        self.is_served()?;
        let request = CurrentRequest { partition: Some(self.partition()) };
        let ask = |mut client: wire::Client| async move { client.current(request).await };
        let answer = self.peer.call(Purpose::Control, ask).await.map_err(failed)?;
        match (answer.error, answer.state) {
            (None, Some(state)) => Ok(Current { snapshot: self.hear(state), size_bytes: answer.size_bytes }),
            (error, _) => Err(failed(error.unwrap_or_default())),
        }
    }

    pub(super) fn arm(self: &Arc<Self>, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        let armed = self.waiters.arm((beyond, isolation), waiter, token, || self.snapshot());
        if armed {
            self.watch(isolation);
        }
        armed
    }

    /// Has the leader tell when there is more than was heard, unless it was asked already.
    fn watch(self: &Arc<Self>, isolation: Isolation) {
        let watching = &self.watching[isolation as usize];
        if watching.swap(true, Ordering::AcqRel) {
            return;
        }
        let (answer, told) = oneshot::channel();
        let beyond = self.snapshot().visible_end(isolation);
        let (partition, committed) = (self.partition(), isolation == Isolation::ReadCommitted);
        self.peer.watches().ask(Watch { partition, beyond, committed, answer });
        let remote = Arc::downgrade(self);
        tokio::spawn(async move {
            let told = told.await.ok().flatten();
            let Some(remote) = remote.upgrade() else { return };
            remote.watching[isolation as usize].store(false, Ordering::Release);
            match told {
                Some(state) => {
                    remote.hear(state);
                    if remote.waiters.any(isolation) {
                        remote.watch(isolation);
                    }
                }
                // They read, and are told what is wrong.
                None => remote.waiters.wake(&Snapshot { closed: true, ..remote.snapshot() }),
            }
        });
    }

    pub(super) async fn delete_records(&self, before_offset: i64) -> Result<i64, DeleteRecordsError> {
        let failed = |error: LogError| DeleteRecordsError::Leader(Box::new(error));
        let request = DeleteRecordsRequest { partition: Some(self.partition()), before_offset };
        let ask = |mut client: wire::Client| async move { client.delete_records(request).await };
        let answer = self.peer.call(Purpose::Control, ask).await.map_err(failed)?;
        answer.error.map_or(Ok(answer.log_start), |error| Err(failed(error)))
    }

    pub(super) fn close(&self) {
        let snapshot = {
            let mut seen = self.seen.lock();
            seen.closed = true;
            *seen
        };
        self.waiters.wake(&snapshot);
    }

    pub(super) async fn read(&self, request: ReadRequest) -> Result<ReadData, FetchError> {
        self.is_served()?;
        if let Some(given) = request.leader_epoch {
            check_epoch(given, self.leader_epoch)?;
        }
        let wanted = WireRead {
            partition: Some(self.partition()),
            offset: request.offset,
            max_bytes: u32::try_from(request.max_bytes).unwrap_or(u32::MAX),
            committed: request.isolation == Isolation::ReadCommitted,
            last_epoch: request.last_epoch,
        };
        let ask = |mut client: wire::Client| async move { client.read(wanted).await };
        let answer = self.peer.call(Purpose::Data, ask).await.map_err(failed)?;
        let snapshot = answer.state.map(|state| self.hear(state));
        match (answer.error, snapshot) {
            (None, Some(snapshot)) => {
                let largest = answer.batches.iter().map(Bytes::len).max().unwrap_or(0);
                if largest > self.largest_read_batch() {
                    self.largest_read_batch.fetch_max(largest, Ordering::Relaxed);
                }
                Ok(ReadData { batches: answer.batches, snapshot })
            }
            (error, _) => Err(wire::fetch_error(request.offset, error.unwrap_or_default())),
        }
    }

    pub(super) fn largest_read_batch(&self) -> usize {
        self.largest_read_batch.load(Ordering::Relaxed)
    }

    pub(super) async fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: Isolation,
    ) -> Result<ListedOffset, FetchError> {
        self.is_served()?;
        let at = match query {
            OffsetQuery::Earliest => At::Earliest(true),
            OffsetQuery::Latest => At::Latest(true),
            OffsetQuery::Timestamp(timestamp) => At::TimestampMs(timestamp),
            OffsetQuery::MaxTimestamp => At::MaxTimestamp(true),
        };
        let committed = isolation == Isolation::ReadCommitted;
        let request = ListOffsetRequest { partition: Some(self.partition()), committed, at: Some(at) };
        let ask = |mut client: wire::Client| async move { client.list_offset(request).await };
        let answer = self.peer.call(Purpose::Control, ask).await.map_err(failed)?;
        match answer.error {
            None => Ok(ListedOffset {
                offset: answer.offset,
                timestamp: answer.timestamp_ms,
                leader_epoch: answer.leader_epoch,
            }),
            Some(error) => Err(failed(error)),
        }
    }

    pub(super) async fn end_of_epoch(&self, epoch: i32) -> Result<Option<EpochEnd>, FetchError> {
        self.is_served()?;
        let request = EndOfEpochRequest { partition: Some(self.partition()), epoch };
        let ask = |mut client: wire::Client| async move { client.end_of_epoch(request).await };
        let answer = self.peer.call(Purpose::Control, ask).await.map_err(failed)?;
        match answer.error {
            None => Ok(answer.epoch.map(|epoch| EpochEnd { epoch, end: answer.end })),
            Some(error) => Err(failed(error)),
        }
    }
}

fn failed(error: LogError) -> FetchError {
    FetchError::Leader(Box::new(error))
}
