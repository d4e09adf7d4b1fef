//! Identities of idempotent producers.

use std::sync::Arc;

use crate::storage::{MetaStore, StorageError};

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

/// Gives out identities, each once (M11).
pub struct ProducerIds {}

impl ProducerIds {
    /// Goes on after the last block that `meta` knows. Blocks.
    pub fn open(_meta: Arc<dyn MetaStore>) -> Result<Arc<Self>, StorageError> {
        todo!()
    }

    /// A new identity, or `current` (id, epoch) with the next epoch; a new id where the epochs are used up.
    pub async fn init(&self, _current: Option<(i64, i32)>) -> Result<ProducerIdentity, InitProducerError> {
        todo!()
    }
}
