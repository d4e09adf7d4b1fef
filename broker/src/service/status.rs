//! The one mapping of what can go wrong: the broker's errors → [`LogError`] → gRPC [`Status`].
//!
//! Inside streams a [`LogError`] travels as it is. A status carries it packed as `Any` beside `google.rpc.ErrorInfo` (same
//! reason, domain `taffrail.dev`) and, where waiting helps, `google.rpc.RetryInfo`. Every match here is exhaustive.

use std::fmt::Display;

use prost::Message;
use taffrail_proto::record::BatchError;
use taffrail_proto::v1::{LogError, Outcome, Reason, RecordError};
use tonic::{Code, Status};
use tonic_types::pb;

use crate::controller::TopicError;
use crate::metadata::MetadataError;
use crate::partition::{AppendError, DeleteRecordsError, EpochError, FetchError, LeadError};
use crate::producer_ids::InitProducerError;
use crate::security::{Denied, Unauthenticated};
use crate::storage::StorageError;
use crate::storage::producers::SequenceError;
use crate::topics::LookupError;

mod groups;

/// Whose reasons these are, in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "taffrail.dev";

/// What follows from a reason alone.
struct Rule {
    code: Code,
    retriable: bool,
    /// The least wait before a retry, milliseconds; 0 where waiting does not help.
    retry_after_ms: u32,
}

fn rule(reason: Reason) -> Rule {
    let (code, retriable, retry_after_ms) = match reason {
        Reason::NotLeader | Reason::FencedLeaderEpoch => (Code::FailedPrecondition, true, 0),
        Reason::UnknownLeaderEpoch | Reason::CoordinatorLoading | Reason::OffsetNotAvailable => {
            (Code::Unavailable, true, 50)
        }
        Reason::RequestTimeout => (Code::DeadlineExceeded, true, 0),
        Reason::UnknownProducer
        | Reason::ProducerFenced
        | Reason::UnknownMember
        | Reason::MemberFenced
        | Reason::StaleMemberEpoch
        | Reason::GroupNotEmpty => (Code::FailedPrecondition, false, 0),
        Reason::OutOfSequence | Reason::PrecedingFailed => (Code::Aborted, false, 0),
        Reason::OffsetOutOfRange | Reason::LogTruncated => (Code::OutOfRange, false, 0),
        Reason::UnknownTopic | Reason::UnknownPartition | Reason::UnknownGroup | Reason::NoCommittedOffset => {
            (Code::NotFound, false, 0)
        }
        Reason::BatchTooLarge | Reason::CorruptBatch | Reason::InvalidRecord | Reason::InvalidRequest => {
            (Code::InvalidArgument, false, 0)
        }
        Reason::QuotaExceeded => (Code::ResourceExhausted, true, 100),
        Reason::DiskFull => (Code::ResourceExhausted, true, 1_000),
        Reason::Unauthenticated => (Code::Unauthenticated, false, 0),
        Reason::Unauthorized => (Code::PermissionDenied, false, 0),
        Reason::DataCorrupt => (Code::DataLoss, false, 0),
        Reason::Unavailable | Reason::NotEnoughReplicas => (Code::Unavailable, true, 100),
        Reason::TopicExists => (Code::AlreadyExists, false, 0),
        Reason::Internal | Reason::Unspecified => (Code::Internal, false, 0),
        Reason::StorageFailed => (Code::Unavailable, true, 1_000),
        Reason::InstanceInUse => (Code::Aborted, true, 1_000),
    };
    Rule { code, retriable, retry_after_ms }
}

/// An error of this reason; the request had no effect.
pub fn refusal(reason: Reason, message: impl Display) -> LogError {
    let rule = rule(reason);
    LogError {
        reason: reason.into(),
        outcome: Outcome::NotApplied.into(),
        retriable: rule.retriable,
        message: message.to_string(),
        retry_after_ms: rule.retry_after_ms,
        ..LogError::default()
    }
}

/// As [`refusal`], but the request may have taken effect, or may yet.
pub fn unknown_outcome(reason: Reason, message: impl Display) -> LogError {
    LogError { outcome: Outcome::Unknown.into(), ..refusal(reason, message) }
}

/// A field of the request is missing, malformed or out of bounds.
pub fn invalid(field: &str, fault: impl Display) -> LogError {
    refusal(Reason::InvalidRequest, format_args!("{field}: {fault}"))
}

/// The gRPC status that carries `error`.
pub fn status(error: &LogError) -> Status {
    status_with(error, None)
}

/// As [`status`], with one more detail: a message of this API by its name.
pub fn status_with(error: &LogError, more: Option<(&str, Vec<u8>)>) -> Status {
    let code = rule(error.reason()).code;
    let mut details = vec![any("google.rpc.ErrorInfo", error_info(error).encode_to_vec())];
    if error.retry_after_ms > 0 {
        let retry_delay = prost_types::Duration {
            seconds: i64::from(error.retry_after_ms / 1_000),
            nanos: (error.retry_after_ms % 1_000 * 1_000_000) as i32,
        };
        let retry = pb::RetryInfo { retry_delay: Some(retry_delay) };
        details.push(any("google.rpc.RetryInfo", retry.encode_to_vec()));
    }
    details.push(any("taffrail.v1.LogError", error.encode_to_vec()));
    details.extend(more.map(|(name, message)| any(name, message)));
    let packed = pb::Status { code: code as i32, message: error.message.clone(), details };
    Status::with_details(code, error.message.clone(), packed.encode_to_vec().into())
}

/// The error that a status carries, if it is one of a broker's.
pub fn log_error(status: &Status) -> Option<LogError> {
    let packed = pb::Status::decode(status.details()).ok()?;
    let found = packed.details.iter().find(|any| any.type_url.ends_with("taffrail.v1.LogError"))?;
    LogError::decode(found.value.as_slice()).ok()
}

fn error_info(error: &LogError) -> pb::ErrorInfo {
    let reason = error.reason().as_str_name().trim_start_matches("REASON_").to_owned();
    pb::ErrorInfo { reason, domain: DOMAIN.to_owned(), metadata: std::collections::HashMap::new() }
}

fn any(name: &str, value: Vec<u8>) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{name}"), value }
}

/// The broker's side of the mapping: one function for each error type.
pub trait IntoLogError {
    /// What a client is told.
    fn into_log_error(self) -> LogError;
}

impl<E: IntoLogError> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(Box::new(error.into_log_error()))
    }
}

/// A [`LogError`] on its way out of a handler: boxed, since results of handlers are moved about a lot.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused(pub Box<LogError>);

impl Refused {
    /// Of an error that is one already.
    pub fn of(error: LogError) -> Self {
        Self(Box::new(error))
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        Self::of(error)
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        status(&refused.0)
    }
}

impl IntoLogError for EpochError {
    fn into_log_error(self) -> LogError {
        let reason = match self {
            Self::Fenced { .. } => Reason::FencedLeaderEpoch,
            Self::Unknown { .. } => Reason::UnknownLeaderEpoch,
        };
        refusal(reason, self)
    }
}

impl IntoLogError for AppendError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::Epoch(error) => error.into_log_error(),
            Self::Sequence { error, log_start } => sequence_refusal(error, log_start),
            Self::PrecedingRefused => refusal(Reason::PrecedingFailed, self),
            Self::NotEnoughReplicas { .. } => refusal(Reason::NotEnoughReplicas, self),
            Self::OffsetsExhausted => refusal(Reason::Internal, self),
            Self::Refused(error) => error.into_log_error(),
            Self::Unknown(_) => unknown_outcome(Reason::StorageFailed, self),
            Self::Closed | Self::NoLeader(_) => refusal(Reason::Unavailable, self),
            Self::ClosedInFlight => unknown_outcome(Reason::Unavailable, self),
            Self::Leader(error) => *error,
        }
    }
}

fn sequence_refusal(error: SequenceError, log_start: i64) -> LogError {
    let reason = match error {
        SequenceError::Fenced { .. } => Reason::ProducerFenced,
        SequenceError::OutOfSequence { .. } => Reason::OutOfSequence,
        SequenceError::Unknown => {
            let error = refusal(Reason::UnknownProducer, error);
            return LogError { log_start_offset: Some(log_start), ..error };
        }
    };
    refusal(reason, error)
}

impl IntoLogError for FetchError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::Epoch(error) => error.into_log_error(),
            Self::OutOfRange { start, end, .. } => {
                let error = refusal(Reason::OffsetOutOfRange, self);
                LogError { log_start_offset: Some(start), log_end_offset: Some(end), ..error }
            }
            Self::Truncated { at, start, .. } => {
                let error = refusal(Reason::LogTruncated, self);
                LogError { log_start_offset: Some(start), log_end_offset: Some(at), ..error }
            }
            Self::NotInSync { .. } => refusal(Reason::NotLeader, self),
            Self::OffsetNotAvailable => refusal(Reason::OffsetNotAvailable, self),
            Self::Corrupt { .. } => refusal(Reason::DataCorrupt, self),
            Self::Storage(error) => error.into_log_error(),
            Self::Closed | Self::NoLeader(_) => refusal(Reason::Unavailable, self),
            Self::Leader(error) => *error,
        }
    }
}

impl IntoLogError for DeleteRecordsError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::OutOfRange { high_watermark, .. } => {
                let error = refusal(Reason::OffsetOutOfRange, self);
                LogError { log_end_offset: Some(high_watermark), ..error }
            }
            Self::Storage(error) => error.into_log_error(),
            Self::Closed | Self::NoLeader(_) => refusal(Reason::Unavailable, self),
            Self::Leader(error) => *error,
        }
    }
}

impl IntoLogError for StorageError {
    fn into_log_error(self) -> LogError {
        let reason = match &self {
            Self::DiskFull { .. } => Reason::DiskFull,
            Self::Failed(_) | Self::Io { .. } => Reason::StorageFailed,
            Self::Closed => Reason::Unavailable,
            Self::Damaged { .. } => Reason::DataCorrupt,
            Self::WrongOffset { .. }
            | Self::OutOfBounds { .. }
            | Self::NoSuchLog(_)
            | Self::InUse { .. }
            | Self::NewerFormat { .. } => Reason::Internal,
        };
        refusal(reason, self)
    }
}

impl IntoLogError for BatchError {
    fn into_log_error(self) -> LogError {
        let reason = match &self {
            Self::TooLarge { .. } | Self::TooLargeUnpacked { .. } => Reason::BatchTooLarge,
            Self::Truncated { .. }
            | Self::InvalidLength { .. }
            | Self::TrailingBytes { .. }
            | Self::UnsupportedMagic { .. }
            | Self::CrcMismatch { .. }
            | Self::InvalidCount { .. }
            | Self::InvalidOffset { .. }
            | Self::UnknownAttributes { .. }
            | Self::UnknownCompression { .. }
            | Self::CorruptCompression { .. }
            | Self::TrailingRecordBytes { .. } => Reason::CorruptBatch,
            Self::Empty
            | Self::ControlNotAllowed
            | Self::TransactionalNotAllowed
            | Self::AppendTimeNotAllowed
            | Self::InvalidProducer { .. }
            | Self::InvalidRecords(_) => Reason::InvalidRecord,
        };
        let mut error = refusal(reason, &self);
        if let Self::InvalidRecords(records) = self {
            error.record_errors = records.into_iter().map(RecordError::from).collect();
        }
        error
    }
}

impl IntoLogError for LookupError {
    fn into_log_error(self) -> LogError {
        let reason = match self {
            Self::UnknownTopic(_) => Reason::UnknownTopic,
            Self::UnknownPartition { .. } => Reason::UnknownPartition,
        };
        refusal(reason, self)
    }
}

impl IntoLogError for TopicError {
    fn into_log_error(self) -> LogError {
        let reason = match self {
            Self::Unknown(_) | Self::OtherId { .. } | Self::NotInTrash(_) => Reason::UnknownTopic,
            Self::Exists(_) | Self::InUse(_) => Reason::TopicExists,
            Self::Name(_) | Self::Config(_) | Self::Invalid(_) => Reason::InvalidRequest,
            Self::Conflict(_) | Self::Stopping | Self::Lead(LeadError::Fenced { .. }) => Reason::Unavailable,
            Self::MissingLog(_) => Reason::Internal,
            Self::Pending { .. } => return unknown_outcome(Reason::RequestTimeout, self),
            Self::Metadata(error) => return error.into_log_error(),
            Self::Storage(error) | Self::Lead(LeadError::Storage(error)) => return error.into_log_error(),
        };
        refusal(reason, self)
    }
}

impl IntoLogError for MetadataError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::Exists { .. } | Self::NotFound { .. } | Self::Conflict { .. } | Self::Unavailable(_) => {
                refusal(Reason::Unavailable, self)
            }
            Self::Malformed { .. } => refusal(Reason::Internal, self),
            Self::Refused { .. } => refusal(Reason::InvalidRequest, self),
            Self::Unknown(_) => unknown_outcome(Reason::Unavailable, self),
        }
    }
}

impl IntoLogError for InitProducerError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::NotGiven { .. } => refusal(Reason::UnknownProducer, self),
            Self::Storage(error) => error.into_log_error(),
            // No identity was given, whatever became of the block.
            Self::Metadata(_) => refusal(Reason::Unavailable, self),
        }
    }
}

impl IntoLogError for Denied {
    fn into_log_error(self) -> LogError {
        refusal(Reason::Unauthorized, self)
    }
}

impl IntoLogError for Unauthenticated {
    fn into_log_error(self) -> LogError {
        refusal(Reason::Unauthenticated, self)
    }
}

#[cfg(test)]
mod tests;
