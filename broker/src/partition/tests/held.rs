//! A log whose answers can be held back.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::producers::Producers;
use crate::storage::{Append, Extent, Log, LogId, PartitionId, ReadError, Span, StorageError, Ticket, TimestampHit};

type TicketSender = oneshot::Sender<Result<(), StorageError>>;

/// A log whose appends take effect at once and whose tickets resolve when they are let go.
pub(super) struct HeldLog {
    log: Arc<dyn Log>,
    held: Mutex<Option<VecDeque<(TicketSender, Ticket)>>>,
}

impl HeldLog {
    pub(super) fn new(log: Arc<dyn Log>) -> Self {
        Self { log, held: Mutex::default() }
    }

    pub(super) fn hold(&self) {
        self.held.lock().get_or_insert_default();
    }

    /// Lets all tickets go that are held, and holds no others.
    pub(super) fn release(&self) {
        for (held, mut ticket) in self.held.lock().take().into_iter().flatten() {
            let _ = held.send(ticket.try_recv().unwrap());
        }
    }

    /// Waits until so many tickets are held.
    pub(super) async fn holds(&self, count: usize) {
        while self.held.lock().as_ref().is_none_or(|held| held.len() < count) {
            tokio::task::yield_now().await;
        }
    }
}

impl Log for HeldLog {
    fn id(&self) -> LogId {
        self.log.id()
    }
    fn partition(&self) -> PartitionId {
        self.log.partition()
    }
    fn extent(&self) -> Extent {
        self.log.extent()
    }
    fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }
    fn spans(&self) -> Vec<Span> {
        self.log.spans()
    }
    fn leader_epochs(&self) -> Arc<LeaderEpochs> {
        self.log.leader_epochs()
    }
    fn producers(&self) -> Producers {
        self.log.producers()
    }
    fn append(&self, append: Append) -> Ticket {
        let ticket = self.log.append(append);
        match &mut *self.held.lock() {
            None => ticket,
            Some(queue) => {
                let (held, answer) = oneshot::channel();
                queue.push_back((held, ticket));
                answer
            }
        }
    }
    fn begin_epoch(&self, epoch: i32) -> Ticket {
        self.log.begin_epoch(epoch)
    }
    fn truncate(&self, end: i64) -> Ticket {
        self.log.truncate(end)
    }
    fn trim(&self, start: i64) -> Ticket {
        self.log.trim(start)
    }
    fn restart(&self, at: i64) -> Ticket {
        self.log.restart(at)
    }
    fn read(&self, from: i64, before: i64, max: usize) -> BoxFuture<'static, Result<Vec<Bytes>, ReadError>> {
        self.log.read(from, before, max)
    }
    fn find_timestamp(&self, at: i64, before: i64) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        self.log.find_timestamp(at, before)
    }
    fn max_timestamp(&self, before: i64) -> BoxFuture<'static, Result<Option<TimestampHit>, ReadError>> {
        self.log.max_timestamp(before)
    }
}
