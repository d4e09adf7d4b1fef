//! Taking leadership.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use taffrail_crds::{BrokerSpec, PartitionSliceSpec, PartitionState};

use super::desired::{Role, role};
use super::leftovers::slice_of;
use super::slot::{Slot, view};
use super::{Change, Outcome, Serving};
use crate::cluster::image::{Image, spec_of};
use crate::metadata::{Kind, MetadataError};
use crate::partition::{LeadError, Partition, Replicated, Term};
use crate::storage::{Log, PartitionId, StorageError, blocking};

/// Slices that are read at a time.
const READS: usize = 8;

/// Why a partition is not led now.
#[derive(Debug, thiserror::Error)]
enum NotLed {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Log(#[from] LeadError),
}

impl Serving {
    /// Leads what the image gives to this broker and the store confirms (M7).
    pub(super) async fn lead(&mut self, image: &Image, changes: &[Change]) -> Outcome {
        let id = |topic, index: &usize| PartitionId { topic, index: *index as i32 };
        let of = |change: &Change| change.to_lead.iter().map(|index| id(change.topic, index)).collect::<Vec<_>>();
        let wanted: Vec<_> = changes.iter().flat_map(of).collect();
        if wanted.is_empty() {
            return Outcome::Done;
        }
        match self.take(image, &wanted).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::TryAgain,
            Err(error) => {
                tracing::warn!(%error, partitions = wanted.len(), "partitions are not led yet");
                Outcome::TryAgain
            }
        }
    }

    /// Whether all of these are led now.
    async fn take(&mut self, image: &Image, wanted: &[PartitionId]) -> Result<bool, NotLed> {
        let confirmed = self.confirm(image, wanted).await?;
        let states: Vec<_> = wanted.iter().filter_map(|id| Some((*id, self.state(*id)?.clone()))).collect();
        let taken: Vec<_> =
            states.iter().filter(|(id, state)| confirmed.contains(&(*id, state.partition_epoch))).collect();
        let logs = self.logs(&taken).await?;
        let opened = taken.iter().zip(logs).map(|((id, state), log)| self.open(*id, state, log));
        let opened = futures::future::join_all(opened).await;
        let mut all = taken.len() == wanted.len();
        for (id, partition) in opened {
            match (partition, self.slot_mut(id)) {
                (Ok(partition), Some(slot)) => slot.partition = partition,
                (Err(error), _) => {
                    all = false;
                    tracing::error!(topic = %id.topic, partition = id.index, %error, "cannot lead");
                }
                (Ok(partition), None) => partition.stop().await,
            }
        }
        Ok(all)
    }

    /// Which of these partitions the store gives to this broker, with their partition epochs: read past all caches.
    async fn confirm(&self, image: &Image, wanted: &[PartitionId]) -> Result<BTreeSet<(PartitionId, i32)>, NotLed> {
        let registration = image.brokers.get(&self.me.broker).map(|stored| stored.object.name.clone());
        let Some(registration) = registration else { return Ok(BTreeSet::new()) };
        let own: Option<BrokerSpec> = self.store.get(Kind::Broker, &registration).await?.and_then(|o| spec_of(&o));
        if own.is_none_or(|own| own.incarnation != self.me.incarnation) {
            tracing::warn!("another session of this broker has registered: it leads nothing");
            return Ok(BTreeSet::new());
        }
        let slices: BTreeSet<_> = wanted.iter().copied().map(slice_of).collect();
        let slices = slices.iter().filter_map(|key| image.slices.get(key));
        let names: Vec<_> = slices.map(|slice| slice.object.name.clone()).collect();
        let reads: Vec<_> = names.iter().map(|name| self.store.get(Kind::PartitionSlice, name)).collect();
        let mut reads = stream::iter(reads).buffered(READS);
        let mut confirmed = BTreeSet::new();
        while let Some(read) = reads.next().await {
            let slice: Option<PartitionSliceSpec> = read?.and_then(|object| spec_of(&object));
            let Some(slice) = slice.filter(|slice| slice.tombstone.is_none()) else { continue };
            let mine = slice.partitions.iter().filter(|state| role(state, self.me) == Role::Lead);
            let id = |state: &PartitionState| PartitionId { topic: slice.topic_id.0, index: state.index };
            confirmed.extend(mine.map(|state| (id(state), state.partition_epoch)));
        }
        Ok(confirmed)
    }

    pub(super) fn state(&self, id: PartitionId) -> Option<&PartitionState> {
        let slot = self.served.get(&id.topic)?.slots.get(id.index as usize)?;
        Some(&slot.place.state)
    }

    pub(super) fn slot_mut(&mut self, id: PartitionId) -> Option<&mut Slot> {
        self.served.get_mut(&id.topic)?.slots.get_mut(id.index as usize)
    }

    /// The logs of these partitions, made where there is none, and the note that they are led or followed. In this order: a
    /// crash between leaves a log that nobody wrote to.
    pub(super) async fn logs(
        &self,
        taken: &[&(PartitionId, PartitionState)],
    ) -> Result<Vec<Arc<dyn Log>>, StorageError> {
        let ids: Vec<_> = taken.iter().map(|(id, _)| *id).collect();
        let led: Vec<_> = taken.iter().map(|(id, state)| (*id, state.partition_epoch)).collect();
        let (storage, kept) = (self.storage.clone(), self.kept.clone());
        blocking(move || {
            let logs = storage.create_all(&ids)?;
            kept.lock().lead(&led)?;
            Ok(logs)
        })
        .await
    }

    async fn open(
        &self,
        id: PartitionId,
        state: &PartitionState,
        log: Arc<dyn Log>,
    ) -> (PartitionId, Result<Partition, NotLed>) {
        let Some(served) = self.served.get(&id.topic) else { return (id, Err(StorageError::Closed.into())) };
        let known = served.slots.get(id.index as usize).map_or(0, |slot| slot.high_watermark);
        let replicated = Replicated {
            view: view(state, self.me),
            high_watermark: known.max(self.watermarks.lock().known(&*log)),
            proposals: self.proposals.clone(),
        };
        let term = Term { epoch: Some(state.leader_epoch), replicated: Some(replicated) };
        let partition = Partition::lead(log, self.context.clone(), served.settings.clone(), term).await;
        (id, partition.map_err(NotLed::from))
    }
}
