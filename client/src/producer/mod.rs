//! Writing records: `send` encodes a record into its partition's batch; one task sends the batches.
//!
//! - [`record`], [`builder`], [`delivery`]: what the application sees;
//! - [`topics`]: which partition, which buffer;
//! - [`accumulator`]: records become batches;
//! - [`queue`]: one partition's order, numbers and retries, as a state machine;
//! - [`link`]: one broker's produce stream;
//! - [`sender`]: the task that ties queues to links.

mod accumulator;
mod builder;
mod delivery;
mod link;
mod queue;
mod record;
mod sender;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use self::accumulator::{Accumulator, Added};
use self::builder::Settings;
use self::sender::{Command, Sender};
use self::topics::{TopicBuffers, Topics};
use crate::client::Shared;
use crate::error::{Error, Result};
use crate::metrics::{ProducerCounters, ProducerMetrics};

pub use self::builder::{Acks, Delivery, ProducerBuilder};
pub use self::delivery::{Receipt, RecordMetadata};
pub use self::record::Record;
/// How batches are compressed, on the wire and on disk.
pub use taffrail_proto::record::Compression;

/// Writes records; from [`Client::producer`](crate::Client::producer). Cheap to clone: all clones share the batches.
///
/// `send` waits only while the buffer memory is full; the receipt it gives tells when the record is stored. Dropping the
/// last clone sends what is buffered in the background; [`close`](Self::close) waits for it.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    accumulator: Arc<Accumulator>,
    topics: Arc<Topics>,
    counters: Arc<ProducerCounters>,
    commands: mpsc::UnboundedSender<Command>,
    closed: AtomicBool,
}

impl Producer {
    fn start(shared: Arc<Shared>, settings: Settings) -> Self {
        let accumulator = Arc::new(Accumulator::new(settings.clone()));
        let topics = Arc::new(Topics::default());
        let counters = Arc::new(ProducerCounters::new());
        let (commands, received) = mpsc::unbounded_channel();
        let sender = Sender::new(shared.clone(), settings, accumulator.clone(), topics.clone(), counters.clone());
        tokio::spawn(sender.run(received));
        let closed = AtomicBool::new(false);
        Self(Arc::new(Inner { shared, accumulator, topics, counters, commands, closed }))
    }

    /// Adds a record to its partition's batch. Waits for buffer memory, and the first time for the topic's metadata.
    ///
    /// The receipt resolves when the record is stored, or failed. Fails at once when the record cannot be sent as it is,
    /// when there is no such topic, and when the producer is closed.
    pub async fn send(&self, record: Record<'_>) -> Result<Receipt> {
        let added = self.add(&record, true).await?;
        Ok(added.receipt.expect("a receipt was asked for"))
    }

    /// As [`send`](Self::send), without a receipt, which is a little faster. [`flush`](Self::flush) tells of failures.
    pub async fn send_forget(&self, record: Record<'_>) -> Result<()> {
        self.add(&record, false).await.map(drop)
    }

    #[inline]
    async fn add(&self, record: &Record<'_>, with_receipt: bool) -> Result<Added> {
        let inner = &*self.0;
        if inner.closed.load(Ordering::Relaxed) {
            return Err(Error::closed("producer"));
        }
        let topic = match inner.topics.get(record.topic) {
            Some(topic) => topic,
            None => self.learn(record.topic).await?,
        };
        let buffer = topic.buffer_for(record)?;
        let memory = record.size_bound();
        if !inner.accumulator.try_reserve(memory) {
            inner.accumulator.reserve(memory).await;
        }
        let added = inner.accumulator.add(buffer, record, memory, topic.max_message_bytes, with_receipt);
        match &added {
            Ok(added) if added.sealed => {
                if record.key.is_none() && record.partition.is_none() {
                    topic.move_on(rand::random());
                }
                // The sender was woken on this worker thread: an application that sends in a loop would keep it from running.
                tokio::task::yield_now().await;
            }
            Ok(_) => {}
            Err(_) => inner.accumulator.release(memory),
        }
        added
    }

    #[cold]
    async fn learn(&self, name: &str) -> Result<Arc<TopicBuffers>> {
        let info = self.0.shared.topic(name).await?;
        self.0.topics.learn(&info, rand::random());
        self.0.topics.get(name).ok_or_else(|| crate::client::no_such_partition(name, 0, 0))
    }

    /// Sends what is buffered without further waiting, and waits until all records sent so far have ended. Tells the first
    /// failure among them.
    pub async fn flush(&self) -> Result<()> {
        let (answer, ended) = oneshot::channel();
        self.0.commands.send(Command::Flush(answer)).map_err(|_| Error::closed("producer"))?;
        ended.await.map_err(|_| Error::closed("producer"))?
    }

    /// Takes no more records, and waits until all that were sent have ended, at their delivery timeout at the latest.
    /// Tells the first failure among them.
    pub async fn close(self) -> Result<()> {
        self.0.closed.store(true, Ordering::Relaxed);
        self.flush().await
    }

    /// What it has done so far.
    pub fn metrics(&self) -> ProducerMetrics {
        self.0.counters.read(self.0.accumulator.buffered())
    }
}
