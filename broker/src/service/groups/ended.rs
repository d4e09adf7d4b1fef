//! How a stream of a member ends badly.

use taffrail_proto::v1::Reason;
use tonic::Status;

use crate::metrics::Metrics;
use crate::service::call::refuse;
use crate::service::status::{Refused, refusal, status};

/// Why a stream ends badly.
pub(super) enum Ended {
    /// Something was refused; counted by its reason.
    Refused(Refused),
    /// The transport's word, or the stream's own end: not counted.
    Status(Status),
}

impl Ended {
    /// The broker stops.
    pub(super) fn stopping() -> Self {
        Self::Status(status(&refusal(Reason::Unavailable, "the broker is stopping: connect again")))
    }

    /// The client said how long it would wait.
    pub(super) fn overdue() -> Self {
        Self::Status(Status::deadline_exceeded("the stream's deadline passed"))
    }

    /// The client has to say where to begin first, or go elsewhere: until then the member is of no use to its group.
    pub(super) fn needs_a_beginning(&self) -> bool {
        let Self::Refused(refused) = self else { return false };
        matches!(refused.0.reason(), Reason::NoCommittedOffset | Reason::OffsetOutOfRange)
    }

    /// What the client is told.
    pub(super) fn status(self, metrics: &Metrics) -> Status {
        match self {
            Self::Refused(refused) => refuse(metrics, &refused.0),
            Self::Status(status) => status,
        }
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}
