//! Why a topic was not made, changed or removed.

use taffrail_crds::config::ConfigFault;
use taffrail_crds::name::TopicNameFault;
use uuid::Uuid;

use super::serving::ServingError;
use crate::metadata::MetadataError;
use crate::partition::LeadError;
use crate::storage::StorageError;

/// Nothing was changed unless the variant says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// No topic has this name.
    #[error("topic {0:?} does not exist")]
    Unknown(String),
    /// The topic of this name has another id than the caller said.
    #[error("topic {name:?} has id {actual}, not {given}: it was deleted and made again")]
    OtherId {
        /// Its name.
        name: String,
        /// Given.
        given: Uuid,
        /// The topic's.
        actual: Uuid,
    },
    /// Nothing in the trash has this name or id.
    #[error("no deleted topic {0:?} is in the trash: its window is over, or it was never there")]
    NotInTrash(String),
    /// The topic that is to be adopted is not gone.
    #[error("the topic with id {0} exists: delete it first, or leave the annotation taffrail.dev/adopt out")]
    InUse(Uuid),
    /// The name is taken.
    #[error("topic {0:?} exists already")]
    Exists(String),
    /// The name cannot be that of a topic.
    #[error(transparent)]
    Name(#[from] TopicNameFault),
    /// A configuration key or value is refused.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// The topic breaks rules that every Topic object must keep; each fault says what to do.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Someone else changed the topic at the same time; try again.
    #[error("topic {0:?} was changed by someone else at the same time: try again")]
    Conflict(String),
    /// The metadata could not be read or written.
    #[error(transparent)]
    Metadata(MetadataError),
    /// The change is recorded, and nobody has carried it out so far.
    #[error(
        "topic {topic:?} is recorded in Topic {object}, and is not served as it says yet: {why}; \"kubectl describe topic \
         {name} -n {namespace}\" says more", namespace = object.split('/').next().unwrap_or_default(),
         name = object.split('/').next_back().unwrap_or_default()
    )]
    Pending {
        /// Its name.
        topic: String,
        /// Namespace and name of the object.
        object: String,
        /// What is known of the reason.
        why: String,
    },
    /// The logs could not be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A log could not be led.
    #[error(transparent)]
    Lead(#[from] LeadError),
    /// The log of a partition, which was made, is not there. Nothing is put in its place (M9).
    #[error(
        "the log of partition {0} is missing in the data directory: restore it, or delete the topic and make it again"
    )]
    MissingLog(i32),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

impl From<ServingError> for TopicError {
    fn from(error: ServingError) -> Self {
        match error {
            ServingError::MissingLog(index) => Self::MissingLog(index),
            ServingError::Storage(error) => Self::Storage(error),
            ServingError::Lead(error) => Self::Lead(error),
        }
    }
}
