//! Reading for a group: partitions come and go, and nothing is handed out while the group is not heard of.

use std::sync::Arc;

use super::state::{Item, State};
use super::{Consumer, Position, RecordBatch, ResetPolicy};
use crate::client::Shared;
use crate::error::Result;

impl Consumer {
    /// A reader of nothing yet.
    pub(crate) fn unassigned(shared: Arc<Shared>, prefetch: u64, reset: ResetPolicy) -> Self {
        Self::with_state(shared, State::new(reset), prefetch)
    }

    /// Reads a partition from a position, to `end` if there is one.
    pub(crate) fn assign(&mut self, topic: &Arc<str>, partition: i32, at: Position, end: Option<i64>) {
        self.state.assign(topic, partition, at, end);
        self.act();
    }

    /// Stops reading a partition.
    pub(crate) fn unassign(&mut self, topic: &str, partition: i32) {
        if let Some(slot) = self.state.find(topic, partition).filter(|slot| self.state.is_assigned(*slot)) {
            self.state.unassign(slot);
            self.act();
        }
    }

    /// A batch that is there already. Its records count as handed out.
    pub(crate) fn ready_batch(&mut self) -> Option<Result<RecordBatch>> {
        while let Ok(event) = self.link_events.1.try_recv() {
            self.on_link(event);
        }
        let item = self.state.pop();
        self.act();
        match item? {
            Item::Error(error) => Some(Err(error)),
            Item::Batch(fetched) => Some(self.open(fetched).map(|(slot, batch)| {
                self.state.handed_out(slot, batch.next_offset(), batch.header().leader_epoch);
                batch
            })),
        }
    }

    /// Waits until something has happened that may bring a batch. May be dropped at any time.
    pub(crate) async fn wait_for_batch(&mut self) {
        self.wait().await;
    }

    /// Something is read, and all of it is read to its end.
    pub(crate) fn all_read(&self) -> bool {
        self.state.all_read()
    }
}
