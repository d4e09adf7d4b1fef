//! What a broker keeps of the cluster's metadata on its own disk: under which epochs it has led and followed, and the ClusterState and
//! all slices as it saw them last.
//!
//! The first tells it that the metadata went back in time, as after a restored backup (M5). From the second lost objects can
//! be rebuilt: so what is kept never goes back in time with it.
//!
//! # Format
//!
//! In the [`MetaStore`]. Key `cluster/led/` topic id (16 bytes), index `u32`: version `u8` = 1, partition epoch `i32`.
//! Key `cluster/slice/` topic id, first index `u32`: version `u8` = 1, the slice's `spec` as JSON. Key `cluster/state`:
//! version `u8` = 1, the ClusterState's `spec` as JSON. Big endian.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use taffrail_crds::id::Id;
use taffrail_crds::{ClusterStateSpec, PartitionSliceSpec, last_seen};
use uuid::Uuid;

use crate::storage::{MetaStore, PartitionId, StorageError};

const LED: &[u8] = b"cluster/led/";
const SLICE: &[u8] = b"cluster/slice/";
const STATE: &[u8] = b"cluster/state";
const VERSION: u8 = 1;

/// The broker's own memory of the cluster.
pub struct Kept {
    meta: Arc<dyn MetaStore>,
    led: HashMap<PartitionId, i32>,
    slices: BTreeMap<(Uuid, i32), Vec<u8>>,
    state: Option<Vec<u8>>,
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
        let state = meta.get(STATE)?;
        Ok(Self { meta, led, slices, state })
    }

    /// The partition epoch under which a partition was last led or followed here.
    pub fn led(&self, partition: PartitionId) -> Option<i32> {
        self.led.get(&partition).copied()
    }

    /// Notes that these partitions are led or followed from now on, under these partition epochs. Durable when it returns; blocks.
    pub fn lead(&mut self, partitions: &[(PartitionId, i32)]) -> Result<(), StorageError> {
        let value = |epoch: i32| [&[VERSION][..], &epoch.to_be_bytes()].concat();
        let put = |(id, epoch): &(PartitionId, i32)| (key(LED, id.topic, id.index), Some(value(*epoch)));
        self.meta.write(partitions.iter().map(put).collect())?;
        self.led.extend(partitions.iter().copied());
        Ok(())
    }

    /// Keeps objects as they are now; those that are as they were cost nothing. Of what is older than what was seen before
    /// the newer part stays. Blocks.
    pub fn see<'a>(
        &mut self,
        state: Option<&ClusterStateSpec>,
        slices: impl Iterator<Item = &'a PartitionSliceSpec>,
    ) -> Result<(), StorageError> {
        let state = state.and_then(|state| newer_state(self.state.as_deref(), state));
        let slices = slices.filter_map(|slice| {
            let id = (slice.topic_id.0, slice.first_index);
            Some((id, newer_slice(self.slices.get(&id).map(Vec::as_slice), slice)?))
        });
        let slices: Vec<_> = slices.collect();
        if state.is_none() && slices.is_empty() {
            return Ok(());
        }
        let of_state = state.iter().map(|value| (STATE.to_vec(), Some(value.clone())));
        let of_slices = slices.iter().map(|((topic, first), value)| (key(SLICE, *topic, *first), Some(value.clone())));
        self.meta.write(of_state.chain(of_slices).collect())?;
        self.state = state.or_else(|| self.state.take());
        self.slices.extend(slices);
        Ok(())
    }

    /// The `spec` of the ClusterState as it was seen last, as JSON.
    pub fn state(&self) -> Option<&str> {
        json(self.state.as_ref()?)
    }

    /// The `spec` of slices as they were seen last, as JSON, also of those that are gone: those after this one.
    pub fn slices(&self, after: Option<(Uuid, i32)>) -> impl Iterator<Item = ((Uuid, i32), &str)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.slices.range((from, Bound::Unbounded)).filter_map(|(id, value)| Some((*id, json(value)?)))
    }

    /// Forgets topics that were deleted for good: their time was over, and the cluster knows neither their names nor their
    /// slices any more. A slice that was only removed is not forgotten. Blocks.
    pub fn forget_purged(
        &mut self,
        state: &ClusterStateSpec,
        is_there: impl Fn(Uuid) -> bool,
        is_over: impl Fn(&PartitionSliceSpec) -> bool,
    ) -> Result<(), StorageError> {
        let topics: BTreeSet<Uuid> = self.slices.keys().map(|(topic, _)| *topic).collect();
        for topic in topics.into_iter().filter(|topic| !state.topics.contains_key(&Id(*topic)) && !is_there(*topic)) {
            let mut slices = self.slices.range((topic, 0)..=(topic, i32::MAX));
            if slices.all(|(_, value)| decode(value).is_some_and(|slice| is_over(&slice))) {
                self.forget(topic)?;
            }
        }
        Ok(())
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

/// What is to be kept in the place of what is; `None`: that stays.
fn newer_slice(kept: Option<&[u8]>, seen: &PartitionSliceSpec) -> Option<Vec<u8>> {
    let value = encode(seen);
    if kept == Some(value.as_slice()) {
        return None;
    }
    let known = kept.and_then(decode);
    let newest = known.map_or(value, |known| encode(&last_seen::slice(seen.clone(), known)));
    (kept != Some(newest.as_slice())).then_some(newest)
}

fn newer_state(kept: Option<&[u8]>, seen: &ClusterStateSpec) -> Option<Vec<u8>> {
    let value = encode(seen);
    let is_older =
        |known: ClusterStateSpec| known.cluster_id != seen.cluster_id || known.controller_epoch > seen.controller_epoch;
    let stays = kept == Some(value.as_slice()) || kept.and_then(decode).is_some_and(is_older);
    (!stays).then_some(value)
}

fn encode<T: Serialize>(spec: &T) -> Vec<u8> {
    let json = serde_json::to_vec(spec).expect("objects have string keys and finite numbers");
    [&[VERSION][..], &json].concat()
}

/// Nothing where it cannot be read.
fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value.strip_prefix(&[VERSION])?).ok()
}

fn json(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_prefix(&[VERSION])?).ok()
}

pub(super) fn key(prefix: &[u8], topic: Uuid, index: i32) -> Vec<u8> {
    [prefix, topic.as_bytes(), &index.to_be_bytes()].concat()
}

pub(super) fn partition_of(key: &[u8], prefix: &[u8]) -> Option<(Uuid, i32)> {
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

    fn state(epoch: i32, topics: &[Uuid]) -> ClusterStateSpec {
        let topics: BTreeMap<_, _> = topics.iter().map(|topic| (topic.to_string(), "flights")).collect();
        let state = serde_json::json!({
            "clusterId": Uuid::from_u128(1), "controllerEpoch": epoch, "featureLevel": 1, "topics": topics,
            "nextIds": { "producer": 0, "incarnation": 0, "operation": 0 },
        });
        serde_json::from_value(state).unwrap()
    }

    fn seen(kept: &Kept) -> (Option<ClusterStateSpec>, Vec<PartitionSliceSpec>) {
        let slices = kept.slices(None).map(|(_, json)| serde_json::from_str(json).unwrap()).collect();
        (kept.state().map(|json| serde_json::from_str(json).unwrap()), slices)
    }

    #[test]
    fn what_was_led_and_seen_outlives_a_restart_until_it_is_forgotten() {
        let meta = MemoryStorage::default().meta();
        let slice = spread(&wanted(3)).remove(0);
        let id = PartitionId { topic: slice.topic_id.0, index: 2 };
        let mut kept = Kept::open(meta.clone()).unwrap();
        assert_eq!(kept.led(id), None);
        kept.lead(&[(id, 7)]).unwrap();
        kept.see(Some(&state(3, &[])), [&slice].into_iter()).unwrap();

        let mut again = Kept::open(meta.clone()).unwrap();
        assert_eq!(again.led(id), Some(7));
        assert_eq!(seen(&again), (Some(state(3, &[])), vec![slice]));
        again.forget(id.topic).unwrap();
        let gone = Kept::open(meta).unwrap();
        assert_eq!((gone.led(id), seen(&gone)), (None, (Some(state(3, &[])), vec![])));
    }

    #[test]
    fn m5_what_is_kept_does_not_go_back_in_time_with_the_metadata() {
        let meta = MemoryStorage::default().meta();
        let old = spread(&wanted(3)).remove(0);
        let mut new = old.clone();
        new.partitions[1].partition_epoch += 4;
        new.operation_id += 1;
        let mut kept = Kept::open(meta.clone()).unwrap();
        kept.see(Some(&state(4, &[])), [&new].into_iter()).unwrap();
        kept.see(Some(&state(3, &[])), [&old].into_iter()).unwrap();
        kept.see(None, std::iter::empty()).unwrap();
        assert_eq!(seen(&Kept::open(meta).unwrap()), (Some(state(4, &[])), vec![new]));
    }

    #[test]
    fn slices_are_told_from_where_the_last_answer_ended() {
        let mut kept = Kept::open(MemoryStorage::default().meta()).unwrap();
        kept.see(None, spread(&wanted(200)).iter()).unwrap();
        let ids: Vec<_> = kept.slices(None).map(|(id, _)| id.1).collect();
        assert_eq!(ids, [0, 64, 128, 192]);
        let topic = wanted(1).id;
        assert_eq!(kept.slices(Some((topic, 64))).map(|(id, _)| id.1).collect::<Vec<_>>(), [128, 192]);
    }

    #[test]
    fn a_topic_is_forgotten_once_it_was_deleted_for_good_and_not_before() {
        let slice = spread(&wanted(3)).remove(0);
        let topic = slice.topic_id.0;
        for (what, named, there, over, left) in [
            ("purged", false, false, true, 0),
            ("its slice was removed", true, false, true, 1),
            ("its slice is not gone yet", false, true, true, 1),
            ("its time is not over", false, false, false, 1),
        ] {
            let mut kept = Kept::open(MemoryStorage::default().meta()).unwrap();
            kept.see(None, [&slice].into_iter()).unwrap();
            let names = if named { vec![topic] } else { vec![] };
            kept.forget_purged(&state(1, &names), |_| there, |_| over).unwrap();
            assert_eq!(kept.slices(None).count(), left, "{what}");
        }
    }
}
