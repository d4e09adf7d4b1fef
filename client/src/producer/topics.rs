//! The topics that a producer writes to: their buffers, and which partition a record goes to.
//!
//! Read without a lock on the way of each record; replaced when a topic is new or has grown.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taffrail_proto::partitioner::partition_for_key;

use super::accumulator::PartitionBuffer;
use super::record::Record;
use crate::client::no_such_partition;
use crate::error::Result;
use crate::metadata::{Snapshot, TopicInfo};

/// One topic's buffers.
#[derive(Debug)]
pub(super) struct TopicBuffers {
    partitions: Vec<Arc<PartitionBuffer>>,
    /// Where records without a key go at present.
    sticky: AtomicU32,
    /// Largest batch, in bytes.
    pub(super) max_message_bytes: usize,
}

impl TopicBuffers {
    /// The buffer of the partition that the record names, that its key decides, or that is the present one.
    pub(super) fn buffer_for(&self, record: &Record<'_>) -> Result<&Arc<PartitionBuffer>> {
        let index = match (record.partition, record.key) {
            (Some(partition), _) => usize::try_from(partition).unwrap_or(usize::MAX),
            (None, Some(key)) => partition_for_key(key, self.partitions.len() as i32) as usize,
            (None, None) => self.sticky.load(Ordering::Relaxed) as usize % self.partitions.len(),
        };
        self.partitions
            .get(index)
            .ok_or_else(|| no_such_partition(record.topic, record.partition.unwrap_or_default(), self.partitions.len()))
    }

    /// Records without a key go on elsewhere: the batch is full.
    pub(super) fn move_on(&self, random: u32) {
        self.sticky.store(random, Ordering::Relaxed);
    }
}

/// All topics of a producer.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: ArcSwap<HashMap<Arc<str>, Arc<TopicBuffers>>>,
    /// Buffers made so far.
    slots: Mutex<u32>,
}

impl Topics {
    pub(super) fn get(&self, name: &str) -> Option<Arc<TopicBuffers>> {
        self.by_name.load().get(name).cloned()
    }

    /// Takes a topic in, or what has changed of it. Buffers of partitions that are known are kept: they hold records.
    pub(super) fn learn(&self, info: &TopicInfo, random: u32) {
        let mut slots = self.slots.lock();
        let known = self.by_name.load_full();
        let old = known.get(&info.name);
        let max_message_bytes = match info.max_message_bytes {
            0 => usize::MAX,
            bytes => bytes as usize,
        };
        let same = |o: &&Arc<TopicBuffers>| {
            o.partitions.len() == info.partitions.len() && o.max_message_bytes == max_message_bytes
        };
        if info.partitions.is_empty() || old.is_some_and(|o| same(&o)) {
            return;
        }
        let mut partitions = Vec::with_capacity(info.partitions.len());
        for index in 0..info.partitions.len() {
            let known = old.and_then(|o| o.partitions.get(index)).cloned();
            partitions.push(known.unwrap_or_else(|| {
                *slots += 1;
                PartitionBuffer::new(info.name.clone(), index as i32, *slots)
            }));
        }
        let topic = Arc::new(TopicBuffers { partitions, sticky: AtomicU32::new(random), max_message_bytes });
        let mut next = (*known).clone();
        next.insert(info.name.clone(), topic);
        self.by_name.store(Arc::new(next));
    }

    /// Takes in what has changed of the topics that are known.
    pub(super) fn refresh(&self, snapshot: &Snapshot) {
        for name in self.by_name.load_full().keys() {
            if let Some(info) = snapshot.topic(name) {
                self.learn(info, rand::random());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::metadata::Leader;

    fn info(partitions: usize) -> TopicInfo {
        let partitions = vec![Leader { broker: 0, epoch: 0 }; partitions];
        TopicInfo { name: "t".into(), id: "id".into(), partitions, in_sync: vec![], max_message_bytes: 0 }
    }

    #[test]
    fn a_key_decides_as_in_kafka_and_a_named_partition_goes_before_it() {
        let topics = Topics::default();
        topics.learn(&info(10), 7);
        let topic = topics.get("t").unwrap();
        let partition = |record: Record<'_>| topic.buffer_for(&record).map(|b| b.partition);
        assert_eq!(partition(Record::to("t").key("abc")).unwrap(), 479_470_107 % 10);
        assert_eq!(partition(Record::to("t").key("abc").partition(9)).unwrap(), 9);
        assert_eq!(partition(Record::to("t")).unwrap(), 7);
        topic.move_on(13);
        assert_eq!(partition(Record::to("t")).unwrap(), 3);
        for wrong in [-1, 10, i32::MAX] {
            assert_eq!(partition(Record::to("t").partition(wrong)).unwrap_err().kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_topic_that_grows_keeps_the_buffers_it_has() {
        let topics = Topics::default();
        topics.learn(&info(2), 0);
        let before = topics.get("t").unwrap();
        topics.learn(&info(3), 0);
        let after = topics.get("t").unwrap();
        assert!(Arc::ptr_eq(&before.partitions[1], &after.partitions[1]));
        let slots: Vec<_> = after.partitions.iter().map(|b| b.slot).collect();
        assert_eq!(slots, [1, 2, 3]);
    }
}
