//! Somebody who reads a topic from its beginning and never looks back, through all that happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use taffrail_client::{Client, Position};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::history::{Seen, id_of};

/// A reader at work.
#[derive(Debug)]
pub struct Reader {
    stop: oneshot::Sender<()>,
    read: Arc<AtomicU64>,
    task: JoinHandle<Result<Seen>>,
}

impl Reader {
    /// Starts it.
    pub fn start(client: &Client, topic: &str) -> Self {
        let ((stop, stopped), read) = (oneshot::channel(), Arc::<AtomicU64>::default());
        let task = tokio::spawn(follow(client.clone(), topic.to_owned(), Arc::clone(&read), stopped));
        Self { stop, read, task }
    }

    /// Records read until now.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself: it will say why.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Stops it: what it saw.
    pub async fn stop(self) -> Result<Seen> {
        let _ = self.stop.send(());
        self.task.await?
    }
}

async fn follow(
    client: Client,
    topic: String,
    read: Arc<AtomicU64>,
    mut stopped: oneshot::Receiver<()>,
) -> Result<Seen> {
    let mut consumer = client.consumer().topic(topic).from(Position::Earliest).build().await?;
    let mut seen = Seen::new();
    loop {
        let record = tokio::select! {
            record = consumer.next() => record.context("a reader that follows never ends")??,
            _ = &mut stopped => return Ok(seen),
        };
        let records = seen.entry(record.partition).or_default();
        let expected = records.last_key_value().map_or(record.offset, |(last, _)| last + 1);
        let (partition, offset) = (record.partition, record.offset);
        ensure!(offset == expected, "the reader that follows got offset {offset} of {partition}, not {expected}");
        records.insert(offset, record.value.as_deref().and_then(id_of));
        read.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a reader that followed saw must be what is there; how many records that are.
pub fn agree(followed: &Seen, there: &Seen) -> Result<usize> {
    for (partition, records) in followed {
        for (offset, id) in records {
            let now = there.get(partition).and_then(|records| records.get(offset));
            ensure!(now == Some(id), "offset {offset} of {partition} was {id:?} and is {now:?} (R2)");
        }
    }
    Ok(followed.values().map(std::collections::BTreeMap::len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_must_stay() {
        let seen = |ids: &[u64]| Seen::from([(0, (0..).zip(ids.iter().map(|id| Some(*id))).collect())]);
        assert_eq!(agree(&seen(&[7, 8]), &seen(&[7, 8, 9])).unwrap(), 2);
        assert!(agree(&seen(&[7, 8]), &seen(&[7, 9])).is_err());
        assert!(agree(&seen(&[7, 8]), &seen(&[7])).is_err());
    }
}
