//! Data of replicas that moved to other brokers: deleted here once the partition has been whole without it for a while.
//!
//! No absence deletes anything (M9), and no doubt: only a slice that is there, names other brokers and shows all of them in
//! sync, for [`KEEP`], and once more when it is read past all caches. Under which epoch that was is kept, so that metadata
//! that goes back in time afterwards finds a log missing, and not one that can be made anew (M5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use taffrail_crds::slice::PARTITIONS_PER_SLICE;
use taffrail_crds::{PartitionSliceSpec, PartitionState};
use uuid::Uuid;

use super::Serving;
use super::kept::Kept;
use crate::cluster::image::{Image, spec_of};
use crate::metadata::Kind;
use crate::storage::{Log, LogId, PartitionId, Storage, StorageError, blocking};

/// How long the data stays: moves may go back, and somebody may notice that they were a mistake. Until then only what is new
/// since is copied again.
pub(super) const KEEP: Duration = Duration::from_hours(1);
/// How often it is looked at.
const LOOK: Duration = Duration::from_mins(1);
/// Why nothing is deleted by what the store says now.
const WENT_BACK: &str = "the cluster's metadata went back in time";

/// Since when partitions have been whole without this broker's data of them, by the context's monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    since: BTreeMap<PartitionId, Duration>,
    looked: Option<Duration>,
}

/// A log that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leftover {
    partition: PartitionId,
    log: LogId,
    /// The newest leader epoch in it.
    newest: i32,
}

impl Leftovers {
    /// Whether it is time to look.
    fn is_time(&mut self, now: Duration) -> bool {
        let due = self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// Which of these logs have been of no use for long enough. One that is of use in between begins anew.
    fn due(&mut self, logs: &[Leftover], image: &Image, me: i32, now: Duration) -> Vec<Leftover> {
        let is_whole = |id: PartitionId| {
            let slice = image.slices.get(&slice_of(id));
            slice.is_some_and(|slice| state_of(&slice.spec, id).is_some_and(|state| is_whole_without(state, me)))
        };
        let of_no_use: BTreeSet<_> = logs.iter().map(|log| log.partition).filter(|id| is_whole(*id)).collect();
        self.since.retain(|id, _| of_no_use.contains(id));
        for id in of_no_use {
            self.since.entry(id).or_insert(now);
        }
        let is_due =
            |log: &&Leftover| self.since.get(&log.partition).is_some_and(|since| now.saturating_sub(*since) >= KEEP);
        logs.iter().filter(is_due).copied().collect()
    }
}

impl Serving {
    /// Deletes what is of no use any more, if it is time to look. To be called when all is served as `image` says.
    pub async fn clean(&mut self, image: &Image) {
        let now = self.context.clock().since_boot();
        if !self.leftovers.is_time(now) {
            return;
        }
        let storage = self.storage.clone();
        let logs = blocking(move || Ok(storage.logs())).await.unwrap_or_default();
        let logs: Vec<_> = logs.iter().map(Leftover::of).collect();
        for leftover in self.leftovers.due(&logs, image, self.me.broker, now) {
            if let Err(error) = self.delete(image, leftover).await {
                let PartitionId { topic, index } = leftover.partition;
                tracing::warn!(%topic, partition = index, error, "data of a replica that has moved away stays for now");
            }
        }
    }

    async fn delete(&mut self, image: &Image, leftover: Leftover) -> Result<(), String> {
        let (id, me) = (leftover.partition, self.me.broker);
        let Some(state) = self.stored_state(image, id, |state| is_whole_without(state, me)).await? else {
            return Ok(());
        };
        if leftover.newest > state.leader_epoch {
            return Err(WENT_BACK.to_owned());
        }
        let partition_epoch = state.partition_epoch;
        let (storage, kept) = (self.storage.clone(), self.kept.clone());
        let delete = move || delete(&*storage, &mut kept.lock(), leftover, partition_epoch);
        blocking(delete).await.map_err(|error| error.to_string())?;
        let PartitionId { topic, index } = id;
        tracing::info!(%topic, partition = index, "the data of a replica that has moved away is deleted");
        Ok(())
    }

    /// The state of a partition, read past all caches, if that holds of it; an error if a later one was seen here (M5).
    pub(super) async fn stored_state(
        &self,
        image: &Image,
        id: PartitionId,
        holds: impl Fn(&PartitionState) -> bool,
    ) -> Result<Option<PartitionState>, String> {
        let Some(known) = image.slices.get(&slice_of(id)) else { return Ok(None) };
        let read = self.store.get(Kind::PartitionSlice, &known.object.name).await.map_err(|error| error.to_string())?;
        let slice = read.as_ref().and_then(spec_of::<PartitionSliceSpec>);
        let Some(state) = slice.as_ref().and_then(|slice| state_of(slice, id)).filter(|state| holds(state)) else {
            return Ok(None);
        };
        if self.kept.lock().newest(id).is_some_and(|seen| seen > state.partition_epoch) {
            return Err(WENT_BACK.to_owned());
        }
        Ok(Some(state.clone()))
    }
}

/// The epoch first: a crash between leaves a log that is deleted later.
fn delete(
    storage: &dyn Storage,
    kept: &mut Kept,
    leftover: Leftover,
    partition_epoch: i32,
) -> Result<(), StorageError> {
    kept.lead(&[(leftover.partition, partition_epoch)])?;
    storage.delete(leftover.log)
}

impl Leftover {
    fn of(log: &Arc<dyn Log>) -> Self {
        Self { partition: log.partition(), log: log.id(), newest: log.leader_epochs().latest().unwrap_or(-1) }
    }
}

pub(super) fn slice_of(id: PartitionId) -> (Uuid, i32) {
    (id.topic, id.index - id.index % PARTITIONS_PER_SLICE)
}

/// Of a topic that was not deleted.
fn state_of(slice: &PartitionSliceSpec, id: PartitionId) -> Option<&PartitionState> {
    let is_it = |state: &&PartitionState| state.index == id.index;
    slice.partitions.iter().find(is_it).filter(|_| slice.tombstone.is_none())
}

/// Whether the partition has all that it shall have without this broker.
fn is_whole_without(state: &PartitionState, me: i32) -> bool {
    let in_sync = |broker: &i32| state.isr.iter().any(|replica| replica.broker == *broker);
    let is_led = state.leader.is_some() && !state.recovering;
    let is_whole =
        state.replicas.len() >= state.replication_factor.max(1) as usize && state.replicas.iter().all(in_sync);
    !state.replicas.contains(&me) && is_led && is_whole && !state.is_moving()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};
    use crate::cluster::image::Stored;
    use crate::metadata::Object;
    use crate::storage::memory::MemoryStorage;

    const ME: i32 = 9;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn image(slice: PartitionSliceSpec) -> Image {
        let object = Object {
            kind: Kind::PartitionSlice,
            name: slice.object_name(),
            uid: Uuid::from_u128(1),
            resource_version: "1".to_owned(),
            document: json!({}),
        };
        let key = (slice.topic_id.0, slice.first_index);
        Image { slices: [(key, Arc::new(Stored { object, spec: slice }))].into(), ..Image::default() }
    }

    fn log() -> Leftover {
        Leftover { partition: PartitionId { topic: wanted(1).id, index: 0 }, log: LogId(1), newest: 0 }
    }

    fn slice() -> PartitionSliceSpec {
        spread(&wanted(1)).remove(0)
    }

    #[test]
    fn what_has_moved_away_is_deleted_after_an_hour_in_which_it_was_never_missed() {
        let (there, logs) = (image(slice()), [log()]);
        let mut leftovers = Leftovers::default();
        assert_eq!(leftovers.due(&logs, &there, ME, secs(10)), []);
        assert_eq!(leftovers.due(&logs, &there, ME, secs(3_609)), []);
        let mut unled = slice();
        unled.partitions[0].leader = None;
        assert_eq!(leftovers.due(&logs, &image(unled), ME, secs(3_609)), [], "it begins anew");
        assert_eq!(leftovers.due(&logs, &there, ME, secs(3_611)), []);
        assert_eq!(leftovers.due(&logs, &there, ME, secs(7_210)), []);
        assert_eq!(leftovers.due(&logs, &there, ME, secs(7_211)), logs);
        assert_eq!(leftovers.due(&[], &there, ME, secs(7_212)), [], "it is gone");
    }

    #[test]
    fn m9_nothing_is_deleted_for_what_is_not_there_or_not_whole() {
        let one = slice();
        let mut of_us = one.clone();
        of_us.partitions[0].replicas.push(ME);
        let mut behind = one.clone();
        behind.partitions[0].isr.clear();
        let mut unproven = one.clone();
        unproven.partitions[0].recovering = true;
        let mut moving = one.clone();
        moving.partitions[0].removing.push(0);
        let mut few = one.clone();
        few.partitions[0].replication_factor = 2;
        let mut deleted = one.clone();
        let time = || "2026-01-01T00:00:00Z".to_owned();
        deleted.tombstone = Some(taffrail_crds::slice::Tombstone { deleted_at: time(), purge_at: time() });
        let mut empty = one.clone();
        empty.partitions.clear();
        let none = Image::default();
        for (what, image) in [
            ("no slice", none),
            ("it has a replica", image(of_us)),
            ("not in sync", image(behind)),
            ("recovering", image(unproven)),
            ("moving", image(moving)),
            ("too few", image(few)),
            ("deleted", image(deleted)),
            ("no such partition", image(empty)),
        ] {
            let mut leftovers = Leftovers::default();
            for now in [0, 4_000, 8_000] {
                assert_eq!(leftovers.due(&[log()], &image, ME, secs(now)), [], "{what}");
            }
        }
        assert_eq!(Leftovers::default().due(&[log()], &image(one), ME, secs(0)), []);
    }

    #[test]
    fn m5_the_epoch_of_what_is_deleted_is_kept() {
        let storage = MemoryStorage::default();
        let id = PartitionId { topic: wanted(1).id, index: 0 };
        let log = storage.create(id).unwrap();
        let mut kept = Kept::open(storage.meta()).unwrap();
        kept.lead(&[(id, 3)]).unwrap();
        delete(&storage, &mut kept, Leftover::of(&log), 7).unwrap();
        assert!(storage.logs().is_empty());
        assert_eq!(Kept::open(storage.meta()).unwrap().led(id), Some(7));
    }
}
