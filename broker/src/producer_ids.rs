//! Identities of idempotent producers.
//!
//! Ids are taken in blocks of a million, so that a start of a producer costs no write; what is left of a block when the
//! broker stops is never used (M11). A broker that is alone takes them from its own metadata. Brokers of a cluster take them
//! from the ClusterState, and the next one when half of one is used, so that an outage of the API does not stop producers.
//!
//! # Format
//!
//! Key `broker/producer-ids`: version `u8` = 1, first id that is in no block that this broker knows of `i64`. Big endian. It
//! is kept in a cluster too: an API that was restored from an older copy does not bring ids back. Nor those of other brokers: what
//! this one saw of the ClusterState is on its disk as well, and no block begins before it.

use std::sync::Arc;
use std::time::Duration;

use taffrail_crds::last_seen;
use taffrail_proto::record::header::MAX_PRODUCER_EPOCH;
use tokio::sync::Mutex;

use crate::cluster::serving::state_seen;
use crate::metadata::{Kind, MetadataError, MetadataStore, Object};
use crate::storage::{MetaStore, StorageError, blocking};

/// Ids in a block (kafka.md's size: a producer takes one at each of its starts).
const BLOCK: i64 = 1_000_000;
const KEY: &[u8] = b"broker/producer-ids";
const VERSION: u8 = 1;
/// Pause before a block that was not to be had is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Identity of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// Not negative.
    pub id: i64,
    /// 0 to 32,766.
    pub epoch: i16,
}

/// Why no identity was given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InitProducerError {
    /// The identity to continue is out of bounds, or its id was never given out.
    #[error("producer id {id} with epoch {epoch} was not given out by this cluster: ask for a new one")]
    NotGiven {
        /// Its id.
        id: i64,
        /// Its epoch.
        epoch: i32,
    },
    /// The block of ids could not be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The block of ids could not be had from the cluster.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// Ids that may be given out without asking the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    next: i64,
    end: i64,
}

/// Where blocks come from.
enum Source {
    /// This broker's own metadata.
    Own,
    /// `nextIds.producer` of the ClusterState of this name.
    Cluster { store: Arc<dyn MetadataStore>, name: String },
}

/// Gives out identities, each once.
pub struct ProducerIds {
    meta: Arc<dyn MetaStore>,
    source: Source,
    state: Mutex<State>,
}

struct State {
    block: Block,
    /// The block after that.
    spare: Option<Block>,
    /// No id from here on is known to be in a block, of whichever broker.
    known: i64,
    fetching: bool,
}

impl ProducerIds {
    /// Of a broker that is alone: goes on after the last block that `meta` knows. Blocks.
    pub fn open(meta: Arc<dyn MetaStore>) -> Result<Arc<Self>, StorageError> {
        Self::with(meta, Source::Own)
    }

    /// Of a broker of the Cluster `name`. Blocks.
    pub fn of_cluster(
        meta: Arc<dyn MetaStore>,
        store: Arc<dyn MetadataStore>,
        name: &str,
    ) -> Result<Arc<Self>, StorageError> {
        Self::with(meta, Source::Cluster { store, name: name.to_owned() })
    }

    fn with(meta: Arc<dyn MetaStore>, source: Source) -> Result<Arc<Self>, StorageError> {
        let known = match meta.get(KEY)? {
            None => 0,
            Some(bytes) => decode(&bytes).ok_or_else(|| StorageError::Damaged {
                file: "metadata key broker/producer-ids".to_owned(),
                at: 0,
                what: "not a version 1 producer id block".to_owned(),
            })?,
        };
        let state = State { block: Block { next: known, end: known }, spare: None, known, fetching: false };
        Ok(Arc::new(Self { meta, source, state: Mutex::new(state) }))
    }

    /// A new identity, or `current` (id, epoch) with the next epoch; a new id where the epochs are used up.
    pub async fn init(self: &Arc<Self>, current: Option<(i64, i32)>) -> Result<ProducerIdentity, InitProducerError> {
        let mut state = self.state.lock().await;
        if let Some((id, epoch)) = current {
            let in_bounds = id >= 0 && (0..=i32::from(MAX_PRODUCER_EPOCH)).contains(&epoch);
            if !in_bounds || !self.is_given(&mut state, id).await? {
                return Err(InitProducerError::NotGiven { id, epoch });
            }
            if epoch < i32::from(MAX_PRODUCER_EPOCH) {
                return Ok(ProducerIdentity { id, epoch: epoch as i16 + 1 });
            }
        }
        if state.block.next == state.block.end {
            state.block = match state.spare.take() {
                Some(spare) => spare,
                None => self.take_block(state.known).await?,
            };
            state.known = state.known.max(state.block.end);
        }
        let id = state.block.next;
        state.block.next += 1;
        self.fetch_early(&mut state);
        Ok(ProducerIdentity { id, epoch: 0 })
    }

    /// Whether an id was given out: in a cluster by any of its brokers, of whose blocks this one does not hear.
    async fn is_given(&self, state: &mut State, id: i64) -> Result<bool, InitProducerError> {
        match &self.source {
            Source::Own => Ok(id < state.block.next),
            Source::Cluster { .. } if id < state.known => Ok(true),
            Source::Cluster { store, name } => {
                let object = store.get(Kind::ClusterState, name).await?.ok_or_else(|| gone(name))?;
                state.known = state.known.max(next_of(&object)?);
                Ok(id < state.known)
            }
        }
    }

    /// Takes the next block while there is enough of this one.
    fn fetch_early(self: &Arc<Self>, state: &mut State) {
        let half_used = state.block.end - state.block.next <= BLOCK / 2;
        let wanted = half_used && state.spare.is_none() && !state.fetching;
        if !wanted || matches!(self.source, Source::Own) {
            return;
        }
        state.fetching = true;
        let (ids, known) = (self.clone(), state.known);
        tokio::spawn(async move {
            let taken = ids.take_block(known).await;
            if let Err(error) = &taken {
                tracing::warn!(%error, "the next block of producer ids was not to be had yet");
                // Whoever comes next tries again, but not each of thousands.
                tokio::time::sleep(RETRY).await;
            }
            let mut state = ids.state.lock().await;
            state.fetching = false;
            if let Ok(block) = taken {
                state.known = state.known.max(block.end);
                state.spare = Some(block);
            }
        });
    }

    /// Durable before any id of it is given out. If nobody waits for the answer, or it never comes, the next call takes
    /// another block, or the same of which nothing was given out.
    async fn take_block(&self, known: i64) -> Result<Block, InitProducerError> {
        let block = match &self.source {
            Source::Own => Block { next: known, end: known.saturating_add(BLOCK) },
            Source::Cluster { store, name } => {
                let meta = self.meta.clone();
                let seen = blocking(move || state_seen(&*meta)).await?;
                take_from(&**store, name, known, seen.map_or(0, |seen| seen.next_ids.producer)).await?
            }
        };
        let meta = self.meta.clone();
        let write = move || meta.write(vec![(KEY.to_vec(), Some(encode(block.end)))]);
        blocking(write).await?;
        Ok(block)
    }
}

/// Takes a block from the ClusterState, not below `known`. One that was taken by a write of unknown outcome is lost (M3). `seen`:
/// where it said that the next one begins, when this broker saw it last.
async fn take_from(store: &dyn MetadataStore, name: &str, known: i64, seen: i64) -> Result<Block, MetadataError> {
    loop {
        let mut object = store.get(Kind::ClusterState, name).await?.ok_or_else(|| gone(name))?;
        let next = lifted(next_of(&object)?, seen).max(known);
        let end = next.saturating_add(BLOCK);
        object.document["spec"]["nextIds"]["producer"] = end.into();
        match store.replace(&object).await {
            Ok(_) => return Ok(Block { next, end }),
            Err(MetadataError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Where it went back in time, one that was taken since, and not seen here, stays taken (M11).
fn lifted(found: i64, seen: i64) -> i64 {
    if found < seen { seen.saturating_add(last_seen::BLOCK) } else { found }
}

fn next_of(object: &Object) -> Result<i64, MetadataError> {
    let next = object.document["spec"]["nextIds"]["producer"].as_i64();
    next.ok_or_else(|| object.malformed("no nextIds.producer"))
}

fn gone(name: &str) -> MetadataError {
    MetadataError::NotFound { kind: Kind::ClusterState, name: name.to_owned() }
}

fn encode(next: i64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(next.to_be_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<i64> {
    let (&version, next) = bytes.split_first()?;
    let next = i64::from_be_bytes(next.try_into().ok()?);
    (version == VERSION && next >= 0).then_some(next)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::clock::ManualClock;
    use crate::cluster::image::spec_of;
    use crate::cluster::serving::Kept;
    use crate::context::Context;
    use crate::metadata::EmbeddedStore;
    use crate::storage::Storage;
    use crate::storage::memory::Disk;

    #[tokio::test]
    async fn m11_no_id_is_given_twice_across_restarts() {
        let (meta, mut seen) = (Disk::new().open().meta(), HashSet::new());
        for _ in 0..3 {
            let ids = ProducerIds::open(meta.clone()).unwrap();
            for _ in 0..10 {
                assert!(seen.insert(ids.init(None).await.unwrap().id));
            }
        }
    }

    #[tokio::test]
    async fn a_given_identity_goes_on_with_the_next_epoch_and_then_with_a_new_id() {
        let ids = ProducerIds::open(Disk::new().open().meta()).unwrap();
        let first = ids.init(None).await.unwrap();
        assert_eq!(first, ProducerIdentity { id: 0, epoch: 0 });
        assert_eq!(ids.init(Some((0, 0))).await.unwrap(), ProducerIdentity { id: 0, epoch: 1 });
        assert_eq!(ids.init(Some((0, 32_765))).await.unwrap(), ProducerIdentity { id: 0, epoch: 32_766 });
        assert_eq!(ids.init(Some((0, 32_766))).await.unwrap(), ProducerIdentity { id: 1, epoch: 0 });
    }

    #[tokio::test]
    async fn identities_that_were_never_given_are_refused() {
        let ids = ProducerIds::open(Disk::new().open().meta()).unwrap();
        ids.init(None).await.unwrap();
        for current in [(1, 0), (-1, 0), (0, -1), (0, 32_767), (i64::MAX, 0)] {
            let error = ids.init(Some(current)).await.unwrap_err();
            assert!(matches!(error, InitProducerError::NotGiven { .. }), "{current:?}: {error}");
        }
    }

    async fn cluster() -> Arc<EmbeddedStore> {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = Arc::new(EmbeddedStore::new(context, meta));
        let state = json!({
            "apiVersion": "taffrail.dev/v1alpha1",
            "kind": "ClusterState",
            "metadata": {"name": "main"},
            "spec": {
                "clusterId": "7f6c2f0e-5f0b-4a53-9d0e-4a9c7a3f5b11", "controllerEpoch": 1, "featureLevel": 1,
                "nextIds": {"producer": 0, "incarnation": 0, "operation": 0}, "internalTopics": [], "topics": {},
            },
        });
        store.create(Kind::ClusterState, "main", state).await.unwrap();
        store
    }

    #[tokio::test]
    async fn m11_brokers_of_a_cluster_give_no_id_twice_and_know_each_others() {
        let (store, mut seen) = (cluster().await, HashSet::new());
        let disks = [Disk::new().open().meta(), Disk::new().open().meta()];
        for _ in 0..3 {
            let brokers = disks.clone().map(|meta| ProducerIds::of_cluster(meta, store.clone(), "main").unwrap());
            for _ in 0..10 {
                for broker in &brokers {
                    assert!(seen.insert(broker.init(None).await.unwrap().id));
                }
            }
            // What one gave, the other goes on with.
            let given = brokers[1].init(None).await.unwrap();
            assert_eq!(brokers[0].init(Some((given.id, 0))).await.unwrap().epoch, 1);
            assert!(brokers[0].init(Some((1 << 40, 0))).await.is_err());
        }
    }

    #[tokio::test]
    async fn m11_an_api_that_was_restored_brings_no_id_back() {
        let (store, meta) = (cluster().await, Disk::new().open().meta());
        let ids = ProducerIds::of_cluster(meta.clone(), store, "main").unwrap();
        ids.init(None).await.unwrap();
        let ids = ProducerIds::of_cluster(meta, cluster().await, "main").unwrap();
        assert_eq!(ids.init(None).await.unwrap().id, BLOCK);
    }

    #[tokio::test]
    async fn m11_nor_an_id_of_another_broker() {
        let (store, meta) = (cluster().await, Disk::new().open().meta());
        let other = ProducerIds::of_cluster(Disk::new().open().meta(), store.clone(), "main").unwrap();
        other.init(None).await.unwrap();
        let state = store.get(Kind::ClusterState, "main").await.unwrap().unwrap();
        Kept::open(meta.clone()).unwrap().see(spec_of(&state).as_ref(), std::iter::empty()).unwrap();
        let ids = ProducerIds::of_cluster(meta, cluster().await, "main").unwrap();
        let first = ids.init(None).await.unwrap().id;
        assert_eq!(first, BLOCK + last_seen::BLOCK, "nor one of the block after that, which was not seen here");
    }

    #[tokio::test]
    async fn the_next_block_is_there_before_this_one_ends() {
        let (store, meta) = (cluster().await, Disk::new().open().meta());
        let ids = ProducerIds::of_cluster(meta, store.clone(), "main").unwrap();
        ids.init(None).await.unwrap();
        assert!(!ids.state.lock().await.fetching);
        ids.state.lock().await.block.next = BLOCK / 2;
        ids.init(None).await.unwrap();
        while ids.state.lock().await.spare.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The API is gone: what was taken still serves, and what is not there is told.
        store.delete(&store.get(Kind::ClusterState, "main").await.unwrap().unwrap()).await.unwrap();
        ids.state.lock().await.block.next = BLOCK;
        assert_eq!(ids.init(None).await.unwrap().id, BLOCK);
        ids.state.lock().await.block.next = 2 * BLOCK;
        let error = ids.init(None).await.unwrap_err();
        assert!(matches!(error, InitProducerError::Metadata(MetadataError::NotFound { .. })), "{error}");
    }

    #[test]
    fn a_damaged_block_is_not_taken_for_none() {
        let meta = Disk::new().open().meta();
        meta.write(vec![(KEY.to_vec(), Some(vec![1, 2]))]).unwrap();
        assert!(ProducerIds::open(meta).is_err());
    }
}
