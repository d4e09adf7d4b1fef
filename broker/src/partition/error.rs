//! What an append, a read or a change of a partition may be answered, by fact.

use std::sync::Arc;

use taffrail_proto::v1::LogError;

use crate::storage::producers::SequenceError;
use crate::storage::{ReadError, StorageError};

/// The leader epoch that a client named is not the partition's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// It is older: the client's metadata is.
    #[error("leader epoch {given} is older than the current {current}: refresh metadata")]
    Fenced {
        /// The client's.
        given: i32,
        /// The partition's.
        current: i32,
    },
    /// It is newer: this broker does not know it yet.
    #[error("leader epoch {given} is newer than the current {current}: retry after a moment")]
    Unknown {
        /// The client's.
        given: i32,
        /// The partition's.
        current: i32,
    },
}

/// Why a log is not led.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeadError {
    /// It has seen a newer leader than the one that it is to have: the metadata that says so is older than the log.
    #[error(
        "the log has leader epoch {newest}, newer than {given} of the metadata: give the partition to this broker anew, \
         under a higher epoch"
    )]
    Fenced {
        /// The metadata's.
        given: i32,
        /// The log's.
        newest: i32,
    },
    /// The epoch could not be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a batch was not acknowledged. Nothing was appended unless the variant says that it is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The client's leader epoch is not the partition's.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The producer's sequence does not allow it (P3, P4, P6).
    #[error("{error}")]
    Sequence {
        /// What is wrong with it.
        error: SequenceError,
        /// First offset that is still there.
        log_start: i64,
    },
    /// An append of the same order was refused before (P9).
    #[error("an earlier batch for this partition was refused: resume the partition, then resend from that batch on")]
    PrecedingRefused,
    /// Too few replicas are in sync to acknowledge it as was asked (L1).
    #[error(
        "{in_sync} replicas are in sync and acks=all needs {min}: retry after a moment; if it stays so, look which of the \
         partition's brokers are down"
    )]
    NotEnoughReplicas {
        /// How many are.
        in_sync: i32,
        /// How many must be.
        min: i32,
    },
    /// The partition would pass its last possible offset.
    #[error("the partition has used up its offsets: make another topic")]
    OffsetsExhausted,
    /// Storage refused the batch, or one before it: nothing was appended.
    #[error(transparent)]
    Refused(StorageError),
    /// Storage failed while it wrote: whether the batch is there shows after a restart of the broker.
    #[error("storage failed during the append, whose outcome is unknown: {0}")]
    Unknown(StorageError),
    /// The partition stopped serving (its topic was deleted, or the broker stops) before it took the batch.
    #[error("the partition is not served any more: its topic was deleted or the broker is stopping")]
    Closed,
    /// The partition stopped serving while the batch was being written, here or on its followers.
    #[error("the broker stopped, or leads the partition no more, and the outcome of the append is unknown")]
    ClosedInFlight,
    /// Nobody leads the partition.
    #[error("the partition has no leader now, retry after a moment: {0}")]
    NoLeader(Arc<str>),
    /// What its leader answered, another broker, or why it could not be asked.
    #[error("{}", .0.message)]
    Leader(Box<LogError>),
}

/// Why nothing was read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The client's leader epoch is not the partition's.
    #[error(transparent)]
    Epoch(#[from] EpochError),
    /// The offset is below the log's start or above its end.
    #[error("offset {offset} is outside of the log ({start} to {end}): begin at the earliest or the latest offset")]
    OutOfRange {
        /// Asked for.
        offset: i64,
        /// First offset there is.
        start: i64,
        /// First offset there is not yet.
        end: i64,
    },
    /// This broker's replica was to be read, and is not in sync.
    #[error("the replica that was asked is not in sync: read from the leader, broker {leader}")]
    NotInSync {
        /// The leader's broker.
        leader: i32,
    },
    /// A new leader does not know yet up to where its log is committed (H5).
    #[error("the partition's new leader does not know the latest offset yet: retry after a moment")]
    OffsetNotAvailable,
    /// The log was cut below the reader's position: what it read last is not part of the log any more (E7).
    #[error("the log was cut: what you read last is gone; your history and the log part at offset {at}")]
    Truncated {
        /// Where they part: the first offset at which the reader's history is not the log's.
        at: i64,
        /// The log's epoch in front of it, if there is one.
        epoch: Option<i32>,
        /// First offset there is.
        start: i64,
    },
    /// The stored bytes are damaged (D5).
    #[error("stored data of offsets {first} to {last} is damaged: {what}")]
    Corrupt {
        /// First offset concerned.
        first: i64,
        /// Last offset concerned.
        last: i64,
        /// What was found.
        what: String,
    },
    /// Storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// The partition is not served any more.
    #[error("the partition is not served any more: its topic was deleted or the broker is stopping")]
    Closed,
    /// Nobody leads the partition.
    #[error("the partition has no leader now, retry after a moment: {0}")]
    NoLeader(Arc<str>),
    /// What its leader answered, another broker, or why it could not be asked.
    #[error("{}", .0.message)]
    Leader(Box<LogError>),
}

impl From<ReadError> for FetchError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { offset, start, end } => Self::OutOfRange { offset, start, end },
            ReadError::Corrupt { first, last, what } => Self::Corrupt { first, last, what },
            ReadError::Storage(error) => Self::Storage(error),
        }
    }
}

/// Why records were not deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// The offset is negative or above the high watermark (Q3).
    #[error("records before {offset} cannot be deleted: the high watermark is {high_watermark}")]
    OutOfRange {
        /// Asked for.
        offset: i64,
        /// The most that may be asked for.
        high_watermark: i64,
    },
    /// Storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// The partition is not served any more.
    #[error("the partition is not served any more: its topic was deleted or the broker is stopping")]
    Closed,
    /// Nobody leads the partition.
    #[error("the partition has no leader now, retry after a moment: {0}")]
    NoLeader(Arc<str>),
    /// What its leader answered, another broker, or why it could not be asked.
    #[error("{}", .0.message)]
    Leader(Box<LogError>),
}
