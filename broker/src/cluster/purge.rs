//! Deletes this broker's replicas of a topic whose time in the trash is over.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taffrail_crds::PartitionSliceSpec;
use tokio::sync::watch;
use uuid::Uuid;

use super::heartbeat::Purger;
use super::image::{Image, spec_of};
use super::serving::Kept;
use crate::clock::time_of;
use crate::context::Context;
use crate::metadata::{Kind, MetadataStore};
use crate::storage::{Storage, blocking};

/// This broker's own data.
pub struct OwnData {
    /// Clock.
    pub context: Context,
    /// The logs.
    pub storage: Arc<dyn Storage>,
    /// What it keeps of the metadata.
    pub kept: Arc<Mutex<Kept>>,
    /// The cluster's objects.
    pub store: Arc<dyn MetadataStore>,
    /// The same, as followed.
    pub image: watch::Receiver<Arc<Image>>,
}

impl Purger for OwnData {
    /// Whoever asks: what counts is what the store says now of every slice of the topic (M9).
    fn purge(&self, _: i32, topic: Uuid, _: i32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let names: Vec<_> = self.image.borrow().slices_of(topic).map(|slice| slice.object.name.clone()).collect();
            if names.is_empty() {
                return Err("this broker knows no slice of the topic".to_owned());
            }
            for name in names {
                let read = self.store.get(Kind::PartitionSlice, &name).await.map_err(|error| error.to_string())?;
                let slice = read.as_ref().and_then(spec_of::<PartitionSliceSpec>);
                if !slice.is_some_and(|slice| is_over(&slice, self.context.wall_millis())) {
                    return Err(format!("PartitionSlice {name} has no tombstone whose time has come"));
                }
            }
            let (storage, kept, now) = (self.storage.clone(), self.kept.clone(), self.context.wall_millis());
            let delete = move || {
                // A tombstone from before the topic was brought back, of a store that went back in time, deletes nothing (M5).
                if !kept.lock().all_slices(topic, |slice| is_over(slice, now)) {
                    return Ok(false);
                }
                let logs = storage.logs();
                let logs = logs.iter().filter(|log| log.partition().topic == topic).map(|log| log.id());
                logs.into_iter().try_for_each(|log| storage.delete(log))?;
                kept.lock().forget(topic)?;
                Ok(true)
            };
            match blocking(delete).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("this broker saw the topic last when it was not to be deleted yet".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Whether the topic's data is to go: it has a tombstone, and its time has come.
pub fn is_over(slice: &PartitionSliceSpec, wall_millis: i64) -> bool {
    let purge_at = slice.tombstone.as_ref().map(|tombstone| humantime::parse_rfc3339_weak(&tombstone.purge_at));
    matches!(purge_at, Some(Ok(at)) if at <= time_of(wall_millis))
}
