//! What [`GroupConsumer::next`](crate::GroupConsumer::next) hands out.

use crate::consumer::{ConsumerRecord, RecordBatch};
use crate::error::Result;

/// Records of one or several partitions, in order within each: an iterator over them, or their [batches](Self::batches).
#[derive(Clone, Debug, Default)]
pub struct Records {
    batches: std::vec::IntoIter<RecordBatch>,
    current: Option<RecordBatch>,
}

impl Records {
    pub(super) fn new(batches: Vec<RecordBatch>) -> Self {
        Self { batches: batches.into_iter(), current: None }
    }

    /// The batches that the iterator has not begun: the fast path, nothing is copied or unpacked.
    pub fn batches(self) -> impl Iterator<Item = RecordBatch> {
        self.batches
    }
}

impl Iterator for Records {
    type Item = Result<ConsumerRecord>;

    /// The next record. After a damaged one the rest of its batch is left out: do not commit, but fail.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = &mut self.current {
                match batch.next_record() {
                    Some(record) => {
                        if record.is_err() {
                            self.current = None;
                        }
                        return Some(record);
                    }
                    None => self.current = None,
                }
            }
            self.current = Some(self.batches.next()?);
        }
    }
}
