//! Operations that a partition's log has not answered yet, and how they end.

use std::collections::VecDeque;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::command::TrimReply;
use super::{AppendError, DeleteRecordsError, Order};
use crate::storage::{StorageError, Ticket};

/// An operation that the log has not answered yet.
pub(super) struct InFlight {
    pub(super) ticket: Ticket,
    pub(super) effect: Effect,
}

pub(super) enum Effect {
    /// The log ends at `end`.
    Append {
        end: i64,
        /// Held until then.
        _permit: Option<OwnedSemaphorePermit>,
        /// Ended if it fails, where nobody waits for the answer who would.
        unanswered: Option<Order>,
    },
    Trim {
        to: i64,
        reply: TrimReply,
    },
}

/// Why an operation on the log failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Storage(StorageError),
    /// The storage was closed before it answered.
    Unanswered,
}

impl From<Failure> for AppendError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Storage(error) if ends_writing(&error) => Self::Unknown(error),
            Failure::Storage(error) => Self::Refused(error),
            Failure::Unanswered => Self::ClosedInFlight,
        }
    }
}

impl From<Failure> for DeleteRecordsError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Storage(error) => Self::Storage(error),
            Failure::Unanswered => Self::Closed,
        }
    }
}

/// After such an error storage takes no more writes, and what was in flight may or may not be there after a restart.
pub(super) fn ends_writing(error: &StorageError) -> bool {
    match error {
        StorageError::WrongOffset { .. }
        | StorageError::OutOfBounds { .. }
        | StorageError::DiskFull { .. }
        | StorageError::NoSuchLog(_)
        | StorageError::Closed => false,
        StorageError::Failed(_)
        | StorageError::InUse { .. }
        | StorageError::NewerFormat { .. }
        | StorageError::Damaged { .. }
        | StorageError::Io { .. } => true,
    }
}

/// The result of the oldest operation; never, if there is none. Cancel safe.
pub(super) async fn oldest(in_flight: &mut VecDeque<InFlight>) -> Result<(), Failure> {
    match in_flight.front_mut() {
        Some(oldest) => (&mut oldest.ticket).await.map_or(Err(Failure::Unanswered), |r| r.map_err(Failure::Storage)),
        None => std::future::pending().await,
    }
}

pub(super) fn done(
    result: Result<Result<(), StorageError>, oneshot::error::TryRecvError>,
) -> Option<Result<(), Failure>> {
    match result {
        Ok(result) => Some(result.map_err(Failure::Storage)),
        Err(oneshot::error::TryRecvError::Closed) => Some(Err(Failure::Unanswered)),
        Err(oneshot::error::TryRecvError::Empty) => None,
    }
}
