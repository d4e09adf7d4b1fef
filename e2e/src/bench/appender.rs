//! Load on the storage engine alone: one batch, appended over and over to some logs with many appends on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::executor::block_on;
use taffrail_broker::storage::{Append, Durability, Engine, Log, PartitionId, Storage, Ticket};
use taffrail_proto::record::{BatchHeader, header};
use uuid::Uuid;

/// Bytes on their way, and batches: far more than a group, below the engine's queue.
const WINDOW_BYTES: usize = 16 << 20;
const WINDOW_BATCHES: usize = 8 << 10;

/// Appends to logs of its own.
pub struct Appender {
    logs: Vec<(Arc<dyn Log>, i64)>,
    batch: Bytes,
    header: BatchHeader,
    window: usize,
    waiting: VecDeque<Ticket>,
    turn: usize,
}

impl Appender {
    /// Makes so many logs. `batch` is what it appends.
    pub fn new(engine: &Engine, topic: u128, logs: u32, batch: Bytes) -> Result<Self> {
        let create = |index| {
            let log = engine.create(PartitionId { topic: Uuid::from_u128(topic), index })?;
            block_on(log.begin_epoch(0))??;
            anyhow::Ok((log, 0))
        };
        let logs = (0..logs as i32).map(create).collect::<Result<_>>()?;
        let header = BatchHeader { leader_epoch: 0, ..BatchHeader::parse(&batch)? };
        let window = (WINDOW_BYTES / batch.len()).clamp(1, WINDOW_BATCHES);
        Ok(Self { logs, batch, header, window, waiting: VecDeque::new(), turn: 0 })
    }

    /// Its logs.
    pub fn logs(&self) -> impl Iterator<Item = &Arc<dyn Log>> {
        self.logs.iter().map(|(log, _)| log)
    }

    /// Bytes of a batch.
    pub fn batch_bytes(&self) -> u64 {
        self.batch.len() as u64
    }

    /// Appends a batch to the next log in turn; waits while too much is on its way. The batch is copied, as a broker copies
    /// what it got from the network.
    pub fn append(&mut self, append_time: i64) -> Result<()> {
        while self.waiting.len() >= self.window {
            self.settle_one()?;
        }
        let logs = self.logs.len();
        let (log, next) = &mut self.logs[self.turn % logs];
        let mut batch = self.batch.to_vec();
        header::set_base_offset(&mut batch, *next);
        header::set_leader_epoch(&mut batch, 0);
        let header = BatchHeader { base_offset: *next, ..self.header };
        *next = header.next_offset();
        self.turn += 1;
        self.waiting.push_back(log.append(Append {
            batch: batch.into(),
            header,
            append_time,
            durability: Durability::Os,
        }));
        Ok(())
    }

    /// Appends so many bytes and waits until all are written.
    pub fn append_bytes(&mut self, bytes: u64) -> Result<()> {
        for _ in 0..bytes / self.batch_bytes() {
            self.append(0)?;
        }
        self.settle()
    }

    /// Waits until all is written that is on its way.
    pub fn settle(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.settle_one()?;
        }
        Ok(())
    }

    fn settle_one(&mut self) -> Result<()> {
        let oldest = self.waiting.pop_front().context("nothing waits")?;
        Ok(block_on(oldest)??)
    }
}
