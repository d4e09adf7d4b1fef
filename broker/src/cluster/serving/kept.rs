//! What a broker keeps of the cluster's metadata on its own disk: under which epochs it has led, and all slices as it saw
//! them last.
//!
//! The first tells it that the metadata went back in time, as after a restored backup (M5). From the second lost objects can
//! be rebuilt.
//!
//! # Format
//!
//! In the [`MetaStore`]. Key `cluster/led/` topic id (16 bytes), index `u32`: version `u8` = 1, partition epoch `i32`.
//! Key `cluster/slice/` topic id, first index `u32`: version `u8` = 1, the slice's `spec` as JSON. Big endian.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use taffrail_crds::PartitionSliceSpec;
use uuid::Uuid;

use crate::storage::{MetaStore, PartitionId, StorageError};

const LED: &[u8] = b"cluster/led/";
const SLICE: &[u8] = b"cluster/slice/";
const VERSION: u8 = 1;

/// The broker's own memory of the cluster.
pub struct Kept {
    meta: Arc<dyn MetaStore>,
    led: HashMap<PartitionId, i32>,
    slices: BTreeMap<(Uuid, i32), Vec<u8>>,
}

impl Kept {
    /// Reads what was kept. Blocks.
    pub fn open(meta: Arc<dyn MetaStore>) -> Result<Self, StorageError> {
        let mut led = HashMap::new();
        for (key, value) in meta.scan(LED)? {
            let (topic, index) = partition_of(&key, LED).ok_or_else(|| damaged("cluster/led"))?;
            let epoch = value.strip_prefix(&[VERSION]).and_then(|epoch| epoch.try_into().ok()).map(i32::from_be_bytes);
            led.insert(PartitionId { topic, index }, epoch.ok_or_else(|| damaged("cluster/led"))?);
        }
        let mut slices = BTreeMap::new();
        for (key, value) in meta.scan(SLICE)? {
            let key = partition_of(&key, SLICE).ok_or_else(|| damaged("cluster/slice"))?;
            slices.insert(key, value);
        }
        Ok(Self { meta, led, slices })
    }

    /// The partition epoch under which a partition was led here last.
    pub fn led(&self, partition: PartitionId) -> Option<i32> {
        self.led.get(&partition).copied()
    }

    /// Notes that these partitions are led from now on, under these partition epochs. Durable when it returns; blocks.
    pub fn lead(&mut self, partitions: &[(PartitionId, i32)]) -> Result<(), StorageError> {
        let value = |epoch: i32| [&[VERSION][..], &epoch.to_be_bytes()].concat();
        let put = |(id, epoch): &(PartitionId, i32)| (key(LED, id.topic, id.index), Some(value(*epoch)));
        self.meta.write(partitions.iter().map(put).collect())?;
        self.led.extend(partitions.iter().copied());
        Ok(())
    }

    /// Keeps slices as they are now; those that are as they were cost nothing. Blocks.
    pub fn see<'a>(&mut self, slices: impl Iterator<Item = &'a PartitionSliceSpec>) -> Result<(), StorageError> {
        let mut changes = Vec::new();
        for slice in slices {
            let id = (slice.topic_id.0, slice.first_index);
            let json = serde_json::to_vec(slice).expect("objects have string keys and finite numbers");
            let value = [&[VERSION][..], &json].concat();
            if self.slices.get(&id) != Some(&value) {
                changes.push((key(SLICE, id.0, id.1), Some(value.clone())));
                self.slices.insert(id, value);
            }
        }
        if changes.is_empty() { Ok(()) } else { self.meta.write(changes) }
    }

    /// Slices as they were seen last, also those that are gone. What cannot be read is left out.
    pub fn seen(&self) -> impl Iterator<Item = PartitionSliceSpec> {
        self.slices.values().filter_map(|value| serde_json::from_slice(value.strip_prefix(&[VERSION])?).ok())
    }

    /// Forgets a topic whose data is gone for good. Blocks.
    pub fn forget(&mut self, topic: Uuid) -> Result<(), StorageError> {
        let led = self.led.keys().filter(|id| id.topic == topic).map(|id| key(LED, topic, id.index));
        let slices = self.slices.keys().filter(|(id, _)| *id == topic).map(|(_, first)| key(SLICE, topic, *first));
        let changes: Vec<_> = led.chain(slices).map(|key| (key, None)).collect();
        self.meta.write(changes)?;
        self.led.retain(|id, _| id.topic != topic);
        self.slices.retain(|(id, _), _| *id != topic);
        Ok(())
    }
}

fn key(prefix: &[u8], topic: Uuid, index: i32) -> Vec<u8> {
    [prefix, topic.as_bytes(), &index.to_be_bytes()].concat()
}

fn partition_of(key: &[u8], prefix: &[u8]) -> Option<(Uuid, i32)> {
    let (topic, index) = key.strip_prefix(prefix)?.split_at_checked(16)?;
    Some((Uuid::from_slice(topic).ok()?, i32::from_be_bytes(index.try_into().ok()?)))
}

fn damaged(what: &str) -> StorageError {
    StorageError::Damaged { file: format!("metadata key {what}"), at: 0, what: "not of version 1".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};
    use crate::storage::Storage as _;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn what_was_led_and_seen_outlives_a_restart_until_it_is_forgotten() {
        let meta = MemoryStorage::default().meta();
        let slice = spread(&wanted(3)).remove(0);
        let id = PartitionId { topic: slice.topic_id.0, index: 2 };
        let mut kept = Kept::open(meta.clone()).unwrap();
        assert_eq!(kept.led(id), None);
        kept.lead(&[(id, 7)]).unwrap();
        kept.see([&slice].into_iter()).unwrap();

        let mut again = Kept::open(meta.clone()).unwrap();
        assert_eq!(again.led(id), Some(7));
        assert_eq!(again.seen().collect::<Vec<_>>(), [slice]);
        again.forget(id.topic).unwrap();
        let gone = Kept::open(meta).unwrap();
        assert_eq!((gone.led(id), gone.seen().count()), (None, 0));
    }
}
