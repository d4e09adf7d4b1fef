//! High watermarks as replicas here knew them, kept over restarts: what a leader begins with that has just started. So what was
//! committed can be read though its followers are not there yet, as after a loss of power, and latest offsets are known sooner.
//!
//! A mark counts only if the record before it is still that of the same leader epoch: then everything up to it is what was
//! committed. A log that lost its end, or was cut and went on otherwise, has no mark. Nothing is truncated to a mark (T3), nor
//! refused for one: whether a log that was away for long has lost what is committed elsewhere is not decided here (T4).
//!
//! # Format
//!
//! In the [`MetaStore`]. Key `cluster/hw/` topic id (16 bytes), index `u32`: version `u8` = 1, high watermark `i64`, leader epoch
//! `i32` of the record before it. Big endian.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::kept::{key, partition_of};
use crate::storage::{Log, MetaStore, PartitionId, StorageError};

/// How often they are kept while the broker runs.
pub(super) const INTERVAL: Duration = Duration::from_mins(1);

const PREFIX: &[u8] = b"cluster/hw/";
const VERSION: u8 = 1;

/// A high watermark, and the leader epoch of the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    high_watermark: i64,
    epoch: i32,
}

impl Mark {
    /// Of a log up to which so much is committed; `None`: nothing of that is there.
    pub(super) fn of(log: &dyn Log, high_watermark: i64) -> Option<Self> {
        let extent = log.extent();
        if high_watermark <= extent.start || high_watermark > extent.end {
            return None;
        }
        let epoch = log.leader_epochs().at(high_watermark - 1)?;
        Some(Self { high_watermark, epoch })
    }

    fn encode(self) -> Vec<u8> {
        [&[VERSION][..], &self.high_watermark.to_be_bytes(), &self.epoch.to_be_bytes()].concat()
    }

    /// Nothing where it cannot be read: it is of use, and not needed.
    fn decode(value: &[u8]) -> Option<Self> {
        let (high_watermark, epoch) = value.strip_prefix(&[VERSION])?.split_at_checked(8)?;
        let high_watermark = i64::from_be_bytes(high_watermark.try_into().ok()?);
        Some(Self { high_watermark, epoch: i32::from_be_bytes(epoch.try_into().ok()?) })
    }
}

/// Those that are kept.
pub(super) struct Watermarks {
    meta: Arc<dyn MetaStore>,
    kept: HashMap<PartitionId, Mark>,
}

impl Watermarks {
    /// Reads what was kept. Blocks.
    pub(super) fn open(meta: Arc<dyn MetaStore>) -> Result<Self, StorageError> {
        let mut kept = HashMap::new();
        for (key, value) in meta.scan(PREFIX)? {
            let partition = partition_of(&key, PREFIX);
            kept.extend(
                partition.zip(Mark::decode(&value)).map(|((topic, index), mark)| (PartitionId { topic, index }, mark)),
            );
        }
        Ok(Self { meta, kept })
    }

    /// Up to where a log is known to be committed; 0: nothing is known.
    pub(super) fn known(&self, log: &dyn Log) -> i64 {
        let kept = self.kept.get(&log.partition()).copied();
        let proven = kept.filter(|mark| Mark::of(log, mark.high_watermark) == Some(*mark));
        proven.map_or(0, |mark| mark.high_watermark)
    }

    /// Keeps these, if they have changed, and forgets those of topics that are there no more, in one write. Blocks.
    pub(super) fn keep(
        &mut self,
        marks: impl IntoIterator<Item = (PartitionId, Mark)>,
        is_there: impl Fn(Uuid) -> bool,
    ) -> Result<(), StorageError> {
        let changed: Vec<_> = marks.into_iter().filter(|(id, mark)| self.kept.get(id) != Some(mark)).collect();
        let gone: Vec<_> = self.kept.keys().filter(|id| !is_there(id.topic)).copied().collect();
        if changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let put = changed.iter().map(|(id, mark)| (key(PREFIX, id.topic, id.index), Some(mark.encode())));
        let removed = gone.iter().map(|id| (key(PREFIX, id.topic, id.index), None));
        self.meta.write(put.chain(removed).collect())?;
        for id in gone {
            self.kept.remove(&id);
        }
        self.kept.extend(changed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
    use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

    use super::*;
    use crate::storage::memory::Disk;
    use crate::storage::{Append, Durability, Storage};

    async fn append(log: &dyn Log, epoch: i32) {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(b"value"), [], 1).unwrap();
        let mut bytes = builder.build(Compression::None, None).unwrap().to_vec();
        set_base_offset(&mut bytes, log.extent().end);
        set_leader_epoch(&mut bytes, epoch);
        let header = BatchHeader::parse(&bytes).unwrap();
        let append = Append { batch: bytes.into(), header, append_time: 1, durability: Durability::Os };
        log.append(append).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_mark_outlives_a_restart_and_counts_as_long_as_its_record_is_there() {
        let storage: Arc<dyn Storage> = Disk::new().open();
        let id = PartitionId { topic: Uuid::from_u128(7), index: 3 };
        let log = storage.create(id).unwrap();
        for epoch in [1, 1, 2, 2] {
            append(&*log, epoch).await;
        }
        let again = || Watermarks::open(storage.meta()).unwrap();
        assert_eq!(again().known(&*log), 0);
        again().keep(Mark::of(&*log, 3).map(|mark| (id, mark)), |_| true).unwrap();
        assert_eq!(again().known(&*log), 3);
        let other = storage.create(PartitionId { index: 4, ..id }).unwrap();
        assert_eq!(again().known(&*other), 0, "another partition");
        log.truncate(2).await.unwrap().unwrap();
        assert_eq!(again().known(&*log), 0, "its end was lost");
        for _ in 0..3 {
            append(&*log, 4).await;
        }
        assert_eq!(again().known(&*log), 0, "another history");
        again().keep(Mark::of(&*log, 4).map(|mark| (id, mark)), |_| true).unwrap();
        assert_eq!(again().known(&*log), 4);
        log.trim(4).await.unwrap().unwrap();
        assert_eq!(again().known(&*log), 0, "nothing of it is there");
        again().keep([], |topic| topic != id.topic).unwrap();
        assert_eq!(storage.meta().scan(PREFIX).unwrap(), []);
    }

    #[tokio::test]
    async fn what_cannot_be_a_mark_is_none_and_what_cannot_be_read_is_forgotten() {
        let storage: Arc<dyn Storage> = Disk::new().open();
        let id = PartitionId { topic: Uuid::from_u128(7), index: 0 };
        let log = storage.create(id).unwrap();
        append(&*log, 1).await;
        for wrong in [i64::MIN, -1, 0, 2, i64::MAX] {
            assert_eq!(Mark::of(&*log, wrong), None, "{wrong}");
        }
        for wrong in [&b""[..], b"\x01", b"\x02\0\0\0\0\0\0\0\x01\0\0\0\x01", b"\x01\0\0\0\0\0\0\0\x01\0\0\0\x01\0"] {
            storage.meta().write(vec![(key(PREFIX, id.topic, 0), Some(wrong.to_vec()))]).unwrap();
            assert_eq!(Watermarks::open(storage.meta()).unwrap().known(&*log), 0, "{wrong:?}");
        }
    }
}
