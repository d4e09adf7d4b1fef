//! Replicas whose logs were found to be damaged (D5): told to the controller until they count for nothing, then copied anew.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Serving;
use super::check::begins_anew;
use super::slot::Slot;
use crate::cluster::image::Image;
use crate::storage::{PartitionId, blocking};

impl Serving {
    /// Partitions that it leads or follows with records that cannot be read any more, and under which leader epochs.
    pub fn damaged(&self) -> BTreeMap<(Uuid, i32), i32> {
        let served = self.slots().filter(|(_, slot)| slot.is_served());
        served.filter_map(|(topic, slot)| Some(((topic, slot.place.state.index), slot.damaged_under()?))).collect()
    }

    /// Gives up the log of a partition that is about to be followed, if that is damaged and this replica begins anew. False: it
    /// is to begin anew, and cannot just now.
    ///
    /// Storage treats the log as any that is deleted: its records are dead, and the files that hold them, the damaged one too,
    /// go when nothing in them lives any more. Until then what can be read is there for whoever has to look.
    pub(super) async fn give_up_damaged(&mut self, image: &Image, id: PartitionId) -> bool {
        let me = self.me.broker;
        let Some(slot) = self.slot_mut(id) else { return false };
        let (damaged, epoch) = (slot.damaged, slot.place.state.partition_epoch);
        if !begins_anew(&slot.place.state, me, damaged) {
            return true;
        }
        if let Err(why) = self.delete_log(image, (id, epoch), damaged).await {
            tracing::warn!(topic = %id.topic, partition = id.index, why, "a damaged replica does not begin anew yet");
            return false;
        }
        tracing::warn!(topic = %id.topic, partition = id.index, "a damaged replica begins anew");
        if let Some(slot) = self.slot_mut(id) {
            (slot.damaged, slot.high_watermark) = (None, 0);
        }
        true
    }

    /// If the store says so too, past all caches. The partition epoch first: metadata that goes back in time finds a log missing,
    /// and not one that can be made anew (M5).
    async fn delete_log(
        &self,
        image: &Image,
        (id, epoch): (PartitionId, i32),
        damaged: Option<i32>,
    ) -> Result<(), String> {
        let me = self.me.broker;
        let state = self.stored_state(image, id, |state| begins_anew(state, me, damaged)).await?;
        state.ok_or("its slice has changed")?;
        let (storage, kept) = (self.storage.clone(), self.kept.clone());
        let delete = move || {
            kept.lock().lead(&[(id, epoch)])?;
            let logs = storage.logs();
            let logs = logs.iter().filter(|log| log.partition() == id).map(|log| log.id());
            logs.into_iter().try_for_each(|log| storage.delete(log))
        };
        blocking(delete).await.map_err(|error| error.to_string())
    }
}

impl Slot {
    /// It is led here, or followed.
    fn is_served(&self) -> bool {
        self.partition.is_local() || self.follow.is_some()
    }

    /// Under which leader epoch this broker led or followed last with a damaged log.
    pub(super) fn damaged_under(&self) -> Option<i32> {
        let is_known = self.damaged.is_some() || self.partition.is_damaged();
        if is_known && self.is_served() { Some(self.place.state.leader_epoch) } else { self.damaged }
    }
}
