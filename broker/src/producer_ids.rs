//! Identities of idempotent producers.
//!
//! Ids are taken from the metadata in blocks of a million, so that a start of a producer costs no write; what is left of a
//! block when the broker stops is never used (M11).
//!
//! # Format
//!
//! Key `broker/producer-ids`: version `u8` = 1, first id that is in no block yet `i64`. Big endian.

use std::sync::Arc;

use taffrail_proto::record::header::MAX_PRODUCER_EPOCH;
use tokio::sync::Mutex;

use crate::storage::{MetaStore, StorageError};

/// Ids in a block (kafka.md's size: a producer takes one at each of its starts).
const BLOCK: i64 = 1_000_000;
const KEY: &[u8] = b"broker/producer-ids";
const VERSION: u8 = 1;

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
}

/// Ids that may be given out without asking the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    next: i64,
    end: i64,
}

/// Gives out identities, each once.
pub struct ProducerIds {
    meta: Arc<dyn MetaStore>,
    block: Mutex<Block>,
}

impl ProducerIds {
    /// Goes on after the last block that `meta` knows. Blocks.
    pub fn open(meta: Arc<dyn MetaStore>) -> Result<Arc<Self>, StorageError> {
        let next = match meta.get(KEY)? {
            None => 0,
            Some(bytes) => decode(&bytes).ok_or_else(|| StorageError::Damaged {
                file: "metadata key broker/producer-ids".to_owned(),
                at: 0,
                what: "not a version 1 producer id block".to_owned(),
            })?,
        };
        Ok(Arc::new(Self { meta, block: Mutex::new(Block { next, end: next }) }))
    }

    /// A new identity, or `current` (id, epoch) with the next epoch; a new id where the epochs are used up.
    pub async fn init(&self, current: Option<(i64, i32)>) -> Result<ProducerIdentity, InitProducerError> {
        let mut block = self.block.lock().await;
        if let Some((id, epoch)) = current {
            if !(0..block.next).contains(&id) || !(0..=i32::from(MAX_PRODUCER_EPOCH)).contains(&epoch) {
                return Err(InitProducerError::NotGiven { id, epoch });
            }
            if epoch < i32::from(MAX_PRODUCER_EPOCH) {
                return Ok(ProducerIdentity { id, epoch: epoch as i16 + 1 });
            }
        }
        if block.next == block.end {
            *block = self.take_block(block.end).await?;
        }
        block.next += 1;
        Ok(ProducerIdentity { id: block.next - 1, epoch: 0 })
    }

    /// Durable before any id of it is given out. If nobody waits for the answer, or it never comes, the next call takes
    /// the same block again, of which nothing was given out.
    async fn take_block(&self, next: i64) -> Result<Block, StorageError> {
        let (meta, end) = (self.meta.clone(), next.saturating_add(BLOCK));
        let write = move || meta.write(vec![(KEY.to_vec(), Some(encode(end)))]);
        tokio::task::spawn_blocking(write).await.map_err(|_| StorageError::Closed)??;
        Ok(Block { next, end })
    }
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

    use super::*;
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

    #[test]
    fn a_damaged_block_is_not_taken_for_none() {
        let meta = Disk::new().open().meta();
        meta.write(vec![(KEY.to_vec(), Some(vec![1, 2]))]).unwrap();
        assert!(ProducerIds::open(meta).is_err());
    }
}
