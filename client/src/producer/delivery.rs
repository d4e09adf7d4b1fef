//! What becomes of a record: one shared state for each batch, and cheap receipts that point into it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use taffrail_proto::v1::{Appended, Durability};

use crate::error::{Error, Result};

/// Where a record went and how safe it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Number of the partition.
    pub partition: i32,
    /// Its offset. Absent with [`Acks::None`](crate::Acks::None), and when a broker that had stored the record before
    /// does not know the offset any more.
    pub offset: Option<i64>,
    /// Leader epoch of the append; absent with [`Acks::None`](crate::Acks::None).
    pub leader_epoch: Option<i32>,
    /// What the topic's durability is, and the record thus has reached.
    pub durability: Durability,
    /// Replicas that have it.
    pub replicas: i32,
    /// The broker's clock, in milliseconds since 1970, with topics of timestamp type LogAppendTime.
    pub log_append_time_ms: Option<i64>,
    /// A retry found it stored already.
    pub duplicate: bool,
}

/// How a batch ended.
pub(super) type BatchResult = Result<Option<Appended>>;

/// The state that a batch, its receipts and the sender share.
#[derive(Debug)]
pub(super) struct BatchState {
    partition: i32,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
enum Progress {
    Pending(Vec<Waker>),
    Done(BatchResult),
}

impl BatchState {
    pub(super) fn new(partition: i32) -> Arc<Self> {
        Arc::new(Self { partition, progress: Mutex::new(Progress::Pending(Vec::new())) })
    }

    /// Sets the result, once: a later one is of no interest (an answer after the deadline).
    pub(super) fn complete(&self, result: BatchResult) {
        let wakers = match &mut *self.progress.lock() {
            Progress::Done(_) => return,
            progress @ Progress::Pending(_) => match std::mem::replace(progress, Progress::Done(result)) {
                Progress::Pending(wakers) => wakers,
                Progress::Done(_) => Vec::new(),
            },
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<BatchResult> {
        match &mut *self.progress.lock() {
            Progress::Done(result) => Poll::Ready(result.clone()),
            Progress::Pending(wakers) => {
                // A task that awaits one receipt after the other registers once.
                if !wakers.last().is_some_and(|w| w.will_wake(cx.waker())) {
                    wakers.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// The end of the whole batch.
    pub(super) async fn wait(&self) -> BatchResult {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}

/// Stands for a record on its way: await it to learn that the record is stored, and where. Dropping it changes nothing.
#[derive(Clone, Debug)]
#[must_use = "await it to learn whether the record was stored, or use `send_forget`"]
pub struct Receipt {
    batch: Arc<BatchState>,
    index: u32,
}

impl Receipt {
    pub(super) fn new(batch: Arc<BatchState>, index: u32) -> Self {
        Self { batch, index }
    }
}

impl Future for Receipt {
    type Output = Result<RecordMetadata, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let partition = self.batch.partition;
        self.batch.poll(cx).map(|result| result.map(|appended| record_metadata(partition, self.index, appended)))
    }
}

fn record_metadata(partition: i32, index: u32, appended: Option<Appended>) -> RecordMetadata {
    let unknown = appended.is_none();
    let appended = appended.unwrap_or_default();
    RecordMetadata {
        partition,
        offset: appended.base_offset.map(|base| base.saturating_add(i64::from(index))),
        leader_epoch: (!unknown).then_some(appended.leader_epoch),
        durability: appended.durability(),
        replicas: appended.replicas,
        log_append_time_ms: appended.log_append_time_ms,
        duplicate: appended.duplicate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn each_receipt_tells_its_own_offset() {
        let batch = BatchState::new(3);
        let receipts: Vec<_> = (0..3).map(|i| Receipt::new(batch.clone(), i)).collect();
        let waiting = tokio::spawn(futures::future::join_all(receipts));
        tokio::task::yield_now().await;
        batch.complete(Ok(Some(Appended { base_offset: Some(40), leader_epoch: 2, ..Appended::default() })));
        batch.complete(Err(Error::closed("producer")));
        let told: Vec<_> = waiting.await.unwrap().into_iter().map(|r| r.unwrap().offset).collect();
        assert_eq!(told, [Some(40), Some(41), Some(42)]);
    }

    #[tokio::test]
    async fn all_records_of_a_failed_batch_share_its_error() {
        let batch = BatchState::new(0);
        batch.complete(Err(Error::closed("producer")));
        for i in 0..2 {
            assert_eq!(Receipt::new(batch.clone(), i).await.unwrap_err().kind(), ErrorKind::Closed);
        }
    }
}
