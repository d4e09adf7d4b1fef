//! What a broker keeps of the cluster's metadata on its own disk: under which epochs it has led and followed, and the ClusterState and
//! all slices as it saw them last.
//!
//! From the latter lost objects can be rebuilt: so what is kept never goes back in time with the metadata. Both tell that it did,
//! as when etcd is restored from a backup (M5).
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
use taffrail_crds::slice::PARTITIONS_PER_SLICE;
use taffrail_crds::{ClusterStateSpec, PartitionSliceSpec, last_seen};
use uuid::Uuid;

use crate::cluster::controller::frozen::Epochs;
use crate::cluster::image::Objects;
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
    /// The partition epochs in these slices.
    seen: BTreeMap<PartitionId, i32>,
    state: Option<Vec<u8>>,
}

/// The ClusterState as it was seen last by whoever had this volume. Blocks.
pub fn state_seen(meta: &dyn MetaStore) -> Result<Option<ClusterStateSpec>, StorageError> {
    Ok(meta.get(STATE)?.and_then(|value| decode(&value)))
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
        let (mut slices, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in meta.scan(SLICE)? {
            let key = partition_of(&key, SLICE).ok_or_else(|| damaged("cluster/slice"))?;
            seen.extend(decode::<PartitionSliceSpec>(&value).iter().flat_map(epochs));
            slices.insert(key, value);
        }
        let state = meta.get(STATE)?;
        Ok(Self { meta, led, slices, seen, state })
    }

    /// The partition epoch under which a partition was last led or followed here.
    pub fn led(&self, partition: PartitionId) -> Option<i32> {
        self.led.get(&partition).copied()
    }

    /// The highest partition epoch of a partition that is known here.
    pub fn newest(&self, partition: PartitionId) -> Option<i32> {
        self.led(partition).max(self.seen.get(&partition).copied())
    }

    /// Partitions that were seen in a later state than these slices show, or that these lack, with the epochs of that state.
    /// Those that are frozen already are not told of.
    pub fn ahead_of(&self, slices: &Objects<(Uuid, i32), PartitionSliceSpec>) -> Epochs {
        let shown = |id: PartitionId| {
            let place = id.index % PARTITIONS_PER_SLICE;
            slices.get(&(id.topic, id.index - place))?.spec.partitions.get(usize::try_from(place).ok()?)
        };
        let is_ahead = |(id, epoch): &(&PartitionId, &i32)| {
            shown(**id).is_none_or(|state| !state.is_frozen() && state.partition_epoch < **epoch)
        };
        self.seen.iter().filter(is_ahead).map(|(id, epoch)| ((id.topic, id.index), *epoch)).collect()
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
            let newest = newer_slice(self.slices.get(&id).map(Vec::as_slice), slice)?;
            Some((id, encode(&newest), newest))
        });
        let slices: Vec<_> = slices.collect();
        if state.is_none() && slices.is_empty() {
            return Ok(());
        }
        let of_state = state.iter().map(|value| (STATE.to_vec(), Some(value.clone())));
        let of_slices =
            slices.iter().map(|((topic, first), value, _)| (key(SLICE, *topic, *first), Some(value.clone())));
        self.meta.write(of_state.chain(of_slices).collect())?;
        self.state = state.or_else(|| self.state.take());
        self.seen.extend(slices.iter().flat_map(|(_, _, newest)| epochs(newest)));
        self.slices.extend(slices.into_iter().map(|(id, value, _)| (id, value)));
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
            if self.all_slices(topic, &is_over) {
                self.forget(topic)?;
            }
        }
        Ok(())
    }

    /// Whether this holds of all slices of a topic as they were seen last.
    pub fn all_slices(&self, topic: Uuid, holds: impl Fn(&PartitionSliceSpec) -> bool) -> bool {
        let mut slices = self.slices.range((topic, 0)..=(topic, i32::MAX));
        slices.all(|(_, value)| decode(value).is_some_and(|slice| holds(&slice)))
    }

    /// Forgets a topic whose data is gone for good. Blocks.
    pub fn forget(&mut self, topic: Uuid) -> Result<(), StorageError> {
        let led = self.led.keys().filter(|id| id.topic == topic).map(|id| key(LED, topic, id.index));
        let slices = self.slices.keys().filter(|(id, _)| *id == topic).map(|(_, first)| key(SLICE, topic, *first));
        let changes: Vec<_> = led.chain(slices).map(|key| (key, None)).collect();
        self.meta.write(changes)?;
        self.led.retain(|id, _| id.topic != topic);
        self.slices.retain(|(id, _), _| *id != topic);
        self.seen.retain(|id, _| id.topic != topic);
        Ok(())
    }
}

/// The partition epochs of a slice. Those of frozen partitions are not what anybody acted under.
fn epochs(slice: &PartitionSliceSpec) -> impl Iterator<Item = (PartitionId, i32)> + '_ {
    let topic = slice.topic_id.0;
    let partitions = slice.partitions.iter().filter(|partition| !partition.is_frozen());
    partitions.map(move |partition| (PartitionId { topic, index: partition.index }, partition.partition_epoch))
}

/// What is to be kept in the place of what is; `None`: that stays.
fn newer_slice(kept: Option<&[u8]>, seen: &PartitionSliceSpec) -> Option<PartitionSliceSpec> {
    let stays = |slice: &PartitionSliceSpec| kept == Some(encode(slice).as_slice());
    if stays(seen) {
        return None;
    }
    let newest = match kept.and_then(decode) {
        Some(known) => last_seen::slice(seen.clone(), known),
        None => seen.clone(),
    };
    (!stays(&newest)).then_some(newest)
}

fn newer_state(kept: Option<&[u8]>, seen: &ClusterStateSpec) -> Option<Vec<u8>> {
    let value = encode(seen);
    let is_older = |known: ClusterStateSpec| known.cluster_id != seen.cluster_id || last_seen::went_back(seen, &known);
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
    use crate::cluster::image::Stored;
    use crate::metadata::{Kind, Object};
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
    fn m11_numbers_that_went_back_under_one_controller_are_not_kept() {
        let mut kept = Kept::open(MemoryStorage::default().meta()).unwrap();
        let mut new = state(4, &[]);
        new.next_ids.producer = 7;
        kept.see(Some(&new), std::iter::empty()).unwrap();
        kept.see(Some(&state(4, &[])), std::iter::empty()).unwrap();
        assert_eq!(seen(&kept).0, Some(new.clone()));
        assert_eq!(state_seen(&*kept.meta).unwrap(), Some(new));
    }

    /// As the watches tell them.
    fn stored(slices: &[PartitionSliceSpec]) -> Objects<(Uuid, i32), PartitionSliceSpec> {
        let stored = |slice: &PartitionSliceSpec| {
            let object = Object {
                kind: Kind::PartitionSlice,
                name: slice.object_name(),
                uid: Uuid::from_u128(1),
                resource_version: "1".to_owned(),
                document: serde_json::Value::Null,
            };
            ((slice.topic_id.0, slice.first_index), Arc::new(Stored { object, spec: slice.clone() }))
        };
        slices.iter().map(stored).collect()
    }

    #[test]
    fn m5_what_was_seen_later_than_it_is_shown_is_known_also_after_a_restart() {
        let meta = MemoryStorage::default().meta();
        let old = spread(&wanted(66));
        let topic = old[0].topic_id.0;
        let mut new = old.clone();
        new[0].partitions[1].partition_epoch = 4;
        new[1].partitions[0].partition_epoch = 1;
        let mut kept = Kept::open(meta.clone()).unwrap();
        kept.see(None, new.iter()).unwrap();
        let mut frozen = old.clone();
        frozen[0].partitions[1].seen_epoch = Some(4);
        let mut later = new.clone();
        later[0].partitions[1].partition_epoch = 5;
        let mut shorter = new.clone();
        shorter[1].partitions.pop();
        for (what, shown, ahead) in [
            ("the same", new.clone(), vec![]),
            ("later", later, vec![]),
            ("older", old, vec![(1, 4), (64, 1)]),
            ("one frozen already", frozen.clone(), vec![(64, 1)]),
            ("one is not there", shorter, vec![(65, 0)]),
            ("a slice is not there", new[..1].to_vec(), vec![(64, 1), (65, 0)]),
        ] {
            let expected: Epochs = ahead.into_iter().map(|(index, epoch)| ((topic, index), epoch)).collect();
            assert_eq!(kept.ahead_of(&stored(&shown)), expected, "{what}");
            assert_eq!(Kept::open(meta.clone()).unwrap().ahead_of(&stored(&shown)), expected, "{what}: restarted");
        }
        // That it is frozen is not remembered in the place of what was there.
        frozen[0].partitions[1].partition_epoch = 9;
        frozen[0].controller_epoch += 1;
        kept.see(None, frozen.iter()).unwrap();
        assert_eq!(kept.newest(PartitionId { topic, index: 1 }), Some(4));
        assert_eq!(kept.ahead_of(&stored(&new)), Epochs::new(), "once it is back");
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
