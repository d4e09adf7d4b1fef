//! Batches that were just appended, kept in memory so that readers at the end of a log never reach RocksDB. One budget for
//! all logs, first in first out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::log::LogCell;

/// What a batch costs beside its bytes.
const OVERHEAD: usize = 128;

#[derive(Debug)]
struct Batch {
    base: i64,
    /// Offset after its last record.
    next: i64,
    /// When it came, among all logs.
    ticket: u64,
    bytes: Bytes,
}

/// The newest batches of one log, without gaps.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    batches: VecDeque<Batch>,
}

impl Recent {
    pub(crate) fn push(&mut self, base: i64, next: i64, ticket: u64, bytes: Bytes) {
        self.batches.push_back(Batch { base, next, ticket, bytes });
    }

    /// Forgets what begins at or above `end`.
    pub(crate) fn truncate(&mut self, end: i64) {
        while self.batches.pop_back_if(|batch| batch.base >= end).is_some() {}
    }

    /// Forgets what came up to `ticket`.
    pub(crate) fn evict(&mut self, ticket: u64) {
        while self.batches.pop_front_if(|batch| batch.ticket <= ticket).is_some() {}
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.batches = VecDeque::new();
    }

    /// Batches from the one that contains `from`, if that is here; see [`Log::read`](super::Log::read).
    pub(crate) fn read(&self, from: i64, before: i64, max_bytes: usize) -> Option<Vec<Bytes>> {
        if from < self.batches.front()?.base {
            return None;
        }
        let at = self.batches.partition_point(|batch| batch.next <= from);
        let (mut found, mut bytes) = (vec![], 0usize);
        for batch in self.batches.range(at..).take_while(|batch| batch.base < before) {
            bytes = bytes.saturating_add(batch.bytes.len());
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(batch.bytes.clone());
        }
        Some(found)
    }
}

/// What all logs may keep together. The writer has it.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: usize,
    next_ticket: u64,
    order: VecDeque<(Arc<LogCell>, u64, usize)>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: 0, next_ticket: 1, order: VecDeque::new() }
    }

    /// A ticket for a batch that is about to be pushed.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Counts a pushed batch and makes room for it.
    pub(crate) fn charge(&mut self, cell: &Arc<LogCell>, ticket: u64, bytes: usize) {
        let cost = bytes + OVERHEAD;
        self.used += cost;
        self.order.push_back((Arc::clone(cell), ticket, cost));
        while self.used > self.limit {
            let Some((cell, ticket, cost)) = self.order.pop_front() else { break };
            self.used -= cost;
            cell.evict(ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(batches: &[(i64, i64)]) -> Recent {
        let mut recent = Recent::default();
        for (at, &(base, next)) in batches.iter().enumerate() {
            recent.push(base, next, at as u64, Bytes::from(vec![0; 10]));
        }
        recent
    }

    #[test]
    fn reads_begin_at_the_batch_that_contains_the_offset_and_respect_the_bounds() {
        let recent = recent(&[(10, 15), (15, 16), (16, 30)]);
        let count = |from, before, max| recent.read(from, before, max).map(|found| found.len());
        assert_eq!(count(9, 100, 100), None);
        assert_eq!(count(12, 100, 100), Some(3));
        assert_eq!(count(15, 100, 20), Some(2));
        assert_eq!(count(15, 100, 1), Some(1));
        assert_eq!(count(10, 16, 100), Some(2));
        assert_eq!(count(30, 100, 100), Some(0));
    }

    #[test]
    fn truncated_and_evicted_batches_are_gone() {
        let mut recent = recent(&[(10, 15), (15, 16), (16, 30)]);
        recent.truncate(16);
        recent.evict(0);
        assert_eq!(recent.read(10, 100, 100), None);
        assert_eq!(recent.read(15, 100, 100).map(|found| found.len()), Some(1));
    }
}
