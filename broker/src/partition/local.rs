//! A partition that this broker leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use taffrail_crds::slice::Replica;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::OwnedBatch;
use super::command::{AppendCommand, AppendReply, Command, refuse_closed};
use super::damage::Damage;
use super::owner::Owner;
use super::read::divergence;
use super::state::{State, check_epoch};
use super::waiters::{Waiter, Waiters};
use super::{
    AppendRequest, DeleteRecordsError, FetchError, Isolation, LeadError, ListedOffset, OffsetQuery, PendingAppend,
    ReadData, ReadRequest, Replicated, Snapshot, Term, take_epoch,
};
use crate::context::Context;
use crate::replication::{Leader, Proposals, View};
use crate::storage::leader_epochs::EpochEnd;
use crate::storage::{Log, PartitionId, ReadError};
use crate::topics::Settings;

/// A partition that this broker leads: its log, and the way to the task that owns its writes.
#[derive(Clone)]
pub(super) struct Local {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
}

/// What the owner shares with readers.
pub(super) struct Shared {
    pub(super) log: Arc<dyn Log>,
    snapshot: ArcSwap<Snapshot>,
    waiters: Waiters,
    largest_read_batch: AtomicUsize,
    damage: Damage,
    pub(super) replication: Option<Replication>,
}

/// What there is beside where the partition is replicated.
pub(super) struct Replication {
    pub(super) proposals: Arc<Proposals>,
    /// Below this the high watermark is not known to be the latest (H5).
    latest_from: i64,
    /// Other replicas are in sync.
    has_others: AtomicBool,
    /// What followers have said since the owner looked last, one entry for a broker: however often they report, it looks
    /// once.
    reports: Mutex<Vec<(Replica, i64)>>,
}

impl Replication {
    /// True: the owner has yet to be told that there is something.
    fn report(&self, by: Replica, written: i64) -> bool {
        let mut reports = self.reports.lock();
        let first = reports.is_empty();
        match reports.iter_mut().find(|(other, _)| other.broker == by.broker) {
            None => reports.push((by, written)),
            Some(report) if report.0.incarnation <= by.incarnation => *report = (by, written),
            Some(_) => {}
        }
        first
    }
}

impl Shared {
    /// Takes what followers have reported.
    pub(super) fn reports(&self, mut take: impl FnMut(Replica, i64)) {
        if let Some(replication) = &self.replication {
            replication.reports.lock().drain(..).for_each(|(by, written)| take(by, written));
        }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.waiters.wake(&snapshot);
    }
}

impl Local {
    /// See [`Partition::lead`](super::Partition::lead).
    pub(super) async fn lead(
        log: Arc<dyn Log>,
        context: Context,
        settings: Arc<ArcSwap<Settings>>,
        Term { epoch, replicated }: Term,
    ) -> Result<Self, LeadError> {
        let leader_epoch = take_epoch(&*log, epoch).await?;
        let extent = log.extent();
        let (leader, replication) = match replicated {
            None => (None, None),
            Some(Replicated { view, high_watermark, proposals }) => {
                let has_others = AtomicBool::new(has_others(&view));
                let mut leader = Leader::new(view, high_watermark, extent, context.clock().since_boot());
                proposals.get(log.partition()).into_iter().for_each(|proposal| leader.resume(proposal));
                let (latest_from, reports) = (leader.epoch_start(), Mutex::default());
                (Some(Box::new(leader)), Some(Replication { proposals, latest_from, has_others, reports }))
            }
        };
        let state = State::new(extent, leader_epoch, log.producers(), leader);
        let snapshot = ArcSwap::from_pointee(state.snapshot(false));
        let (waiters, largest_read_batch, damage) = (Waiters::default(), AtomicUsize::new(0), Damage::default());
        let shared = Arc::new(Shared { log, snapshot, waiters, largest_read_batch, damage, replication });
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(Owner::new(shared.clone(), context, settings, state).run(queue));
        Ok(Self { shared, commands })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What it holds.
    pub(super) fn id(&self) -> PartitionId {
        self.shared.log.partition()
    }

    /// Puts a batch in line to be appended. Batches are appended in the order of these calls, on whatever task they are
    /// made. Does not block: what may be in line is bounded by the permits that the caller hands in.
    pub(super) fn append(&self, request: AppendRequest) -> PendingAppend {
        let (reply, answer) = oneshot::channel();
        let AppendRequest { batch, header, max_timestamp, acks, leader_epoch, permit, order } = request;
        let reply = AppendReply { to: reply, order };
        let batch = OwnedBatch::copy(&batch, header, max_timestamp);
        self.send(Command::Append(Box::new(AppendCommand { batch, acks, leader_epoch, permit, reply })));
        PendingAppend(answer)
    }

    fn send(&self, command: Command) {
        if let Err(mpsc::error::SendError(command)) = self.commands.send(command) {
            refuse_closed(command);
        }
    }

    /// See [`Partition::adopt`](super::Partition::adopt).
    pub(super) fn adopt(&self, view: View) {
        if let Some(replication) = &self.shared.replication {
            replication.has_others.store(has_others(&view), Ordering::Relaxed);
        }
        self.send(Command::Adopt(Box::new(view)));
    }

    /// See [`Partition::fetched`](super::Partition::fetched).
    pub(super) fn fetched(&self, by: Replica, written: i64) {
        if self.shared.replication.as_ref().is_some_and(|replication| replication.report(by, written)) {
            self.send(Command::Reported);
        }
    }

    /// Its state; cheap, never blocks.
    pub(super) fn snapshot(&self) -> Snapshot {
        **self.shared.snapshot.load()
    }

    /// Bytes of the batches that are stored.
    pub(super) fn size_bytes(&self) -> u64 {
        self.shared.log.size_bytes()
    }

    /// Its log, for what does not concern the owner.
    pub(super) fn log(&self) -> &Arc<dyn Log> {
        &self.shared.log
    }

    /// Arms `waiter`: it gets `token` once, when there is something to see at or above `beyond`, or the partition is
    /// closed. Answers false, and arms nothing, if that is so now. Arming again does not undo an earlier arming.
    pub(super) fn arm(&self, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        self.shared.waiters.arm((beyond, isolation), waiter, token, || self.snapshot())
    }

    /// Deletes the records before `offset` for good (−1: before the high watermark); answers the log's start. What shares a
    /// batch with a later record stays until that goes.
    pub(super) async fn delete_records(&self, offset: i64) -> Result<i64, DeleteRecordsError> {
        let to = if offset == -1 { self.snapshot().high_watermark } else { offset };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Trim { to, reply });
        answer.await.unwrap_or(Err(DeleteRecordsError::Closed))
    }

    /// Ends serving, after what is in flight is done; what is in line behind is refused.
    pub(super) async fn stop(&self) {
        self.send(Command::Stop);
        self.commands.closed().await;
        while !self.snapshot().closed {
            let waiter = Waiter::new();
            if self.arm(i64::MAX, Isolation::default(), &waiter, 0) {
                waiter.ready().await;
            }
        }
    }
}

impl Local {
    /// Reads whole batches. Does not wait for data.
    pub(super) async fn read(&self, request: ReadRequest) -> Result<ReadData, FetchError> {
        let snapshot = self.served(request.leader_epoch)?;
        let log = &self.shared.log;
        if let Some(last_epoch) = request.last_epoch {
            let parted = divergence(&log.leader_epochs(), &snapshot, request.offset, last_epoch);
            if let Some((at, epoch)) = parted {
                return Err(FetchError::Truncated { at, epoch, start: snapshot.log_start });
            }
        }
        let (start, end) = (snapshot.log_start, snapshot.log_end);
        if request.offset < start || request.offset > end {
            return Err(FetchError::OutOfRange { offset: request.offset, start, end });
        }
        let before = snapshot.visible_end(request.isolation);
        let batches = if request.offset < before {
            log.read(request.offset, before, request.max_bytes).await.map_err(|error| self.failed(error))?
        } else {
            Vec::new()
        };
        let largest = batches.iter().map(Bytes::len).max().unwrap_or(0);
        // Loads are shared among cores, stores are not: this one is rare.
        if largest > self.largest_read_batch() {
            self.shared.largest_read_batch.fetch_max(largest, Ordering::Relaxed);
        }
        Ok(ReadData { batches, snapshot })
    }

    pub(super) fn largest_read_batch(&self) -> usize {
        self.shared.largest_read_batch.load(Ordering::Relaxed)
    }

    /// Looks an offset up.
    pub(super) async fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: Isolation,
    ) -> Result<ListedOffset, FetchError> {
        let (snapshot, log) = (self.served(None)?, &self.shared.log);
        let (before, failed) = (snapshot.visible_end(isolation), |error| self.failed(error));
        let latest_from = self.shared.replication.as_ref().map_or(0, |replication| replication.latest_from);
        let hit = match query {
            OffsetQuery::Earliest => return Ok(self.end_offset(snapshot.log_start)),
            OffsetQuery::Timestamp(timestamp) => log.find_timestamp(timestamp, before).await.map_err(failed)?,
            OffsetQuery::Latest | OffsetQuery::MaxTimestamp if before < latest_from => None,
            OffsetQuery::Latest => return Ok(self.end_offset(before)),
            OffsetQuery::MaxTimestamp => log.max_timestamp(before).await.map_err(failed)?,
        };
        if hit.is_none() && before < latest_from {
            return Err(FetchError::OffsetNotAvailable);
        }
        Ok(hit.map_or_else(ListedOffset::default, |hit| ListedOffset {
            timestamp: Some(hit.timestamp),
            ..self.end_offset(hit.offset)
        }))
    }

    /// What is told of a read that storage could not answer. Damage is noted; while another replica may take over, it passes.
    fn failed(&self, error: ReadError) -> FetchError {
        let shared = &*self.shared;
        shared.damage.note(shared.log.partition(), &error);
        // Its log may have been given up behind the read.
        if self.snapshot().closed {
            return FetchError::Closed;
        }
        let has_others = shared.replication.as_ref().is_some_and(|others| others.has_others.load(Ordering::Relaxed));
        match error {
            ReadError::Corrupt { first, last, .. } if has_others && shared.damage.may_pass(Instant::now()) => {
                let why = format!("offsets {first} to {last} are damaged on its leader, and another is to lead");
                FetchError::NoLeader(why.into())
            }
            error => error.into(),
        }
    }

    /// Stored records were found to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.shared.damage.is_found()
    }

    fn end_offset(&self, offset: i64) -> ListedOffset {
        let leader_epoch = self.shared.log.leader_epochs().at(offset);
        ListedOffset { offset: Some(offset), timestamp: None, leader_epoch }
    }

    /// Where the largest leader epoch that is not above `epoch` ends; `None` if all of the log's are above.
    pub(super) fn end_of_epoch(&self, epoch: i32) -> Result<Option<EpochEnd>, FetchError> {
        let snapshot = self.served(None)?;
        Ok(self.shared.log.leader_epochs().end_of(epoch, snapshot.log_end))
    }

    fn served(&self, leader_epoch: Option<i32>) -> Result<Snapshot, FetchError> {
        let snapshot = self.snapshot();
        if snapshot.closed {
            return Err(FetchError::Closed);
        }
        if let Some(given) = leader_epoch {
            check_epoch(given, snapshot.leader_epoch)?;
        }
        Ok(snapshot)
    }
}

fn has_others(view: &View) -> bool {
    view.isr.iter().any(|replica| *replica != view.me)
}
