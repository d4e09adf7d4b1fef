//! The client's error: small and stable for programs, with a message that tells people what to do next.
//!
//! Whatever failed, three questions have an answer: [what kind of thing](Error::kind) it was, whether the same request
//! [may succeed later](Error::retriable), and whether it [took effect](Error::outcome). The broker answers them in its
//! `LogError`; for faults that never reached it, this file does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use taffrail_proto::v1::{LogError, Outcome, Reason};
use tonic::{Code, Status};

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or a setting is not valid: change it.
    InvalidArgument,
    /// No such topic, partition or offset.
    NotFound,
    /// A topic of this name exists.
    AlreadyExists,
    /// The credentials are missing or not valid.
    Unauthenticated,
    /// The caller may not do this.
    Unauthorized,
    /// No broker could be reached, or the one that was is not ready.
    Unavailable,
    /// The time given for the request has passed.
    Timeout,
    /// The broker has no room, or takes no more for now.
    ResourceExhausted,
    /// A record or batch is refused as it is.
    RecordRefused,
    /// The offset is outside of what the log holds.
    OffsetOutOfRange,
    /// The log was cut below what the reader has read.
    LogTruncated,
    /// A newer instance of this producer exists.
    ProducerFenced,
    /// The group member was removed from its group, or does not own what it commits any more.
    MemberFenced,
    /// Others hold it: the group has members, or the instance id is taken.
    InUse,
    /// Stored or received bytes are damaged.
    DataCorrupt,
    /// The producer, consumer or client was closed.
    Closed,
    /// A fault of the broker, or an answer that cannot be understood.
    Internal,
}

/// Whether a failed request took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestOutcome {
    /// It did not and will not.
    NotApplied,
    /// It did.
    Applied,
    /// It may have, or may yet.
    Unknown,
}

/// Why a request failed. Cheap to clone: all records of a failed batch share one.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    reason: Reason,
    outcome: RequestOutcome,
    retriable: bool,
    retry_after: Option<Duration>,
    message: String,
    detail: Option<LogError>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The broker's reason; `Unspecified` when the fault did not come from a broker.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The same request may succeed later, unchanged. The client has retried already where that was safe.
    pub fn retriable(&self) -> bool {
        self.0.retriable
    }

    /// Whether the request took effect.
    pub fn outcome(&self) -> RequestOutcome {
        self.0.outcome
    }

    /// Wait at least this long before a retry, where the broker said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// With [`ErrorKind::OffsetOutOfRange`] and [`ErrorKind::LogTruncated`]: first offset that is still there.
    pub fn log_start_offset(&self) -> Option<i64> {
        self.0.detail.as_ref().and_then(|d| d.log_start_offset)
    }

    /// With [`ErrorKind::OffsetOutOfRange`]: first offset that is not there yet. With [`ErrorKind::LogTruncated`]: where
    /// the reader's history and the log part.
    pub fn log_end_offset(&self) -> Option<i64> {
        self.0.detail.as_ref().and_then(|d| d.log_end_offset)
    }

    /// The broker's own words for it, if it came from a broker.
    pub fn detail(&self) -> Option<&LogError> {
        self.0.detail.as_ref()
    }

    /// A fault that this side found before anything was sent.
    pub(crate) fn local(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::new(kind, RequestOutcome::NotApplied, false, message.into())
    }

    /// The broker could not be reached or did not answer in time.
    pub(crate) fn transient(kind: ErrorKind, outcome: RequestOutcome, message: impl Into<String>) -> Self {
        Self::new(kind, outcome, true, message.into())
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::local(ErrorKind::Closed, format!("the {what} is closed: make a new one"))
    }

    fn new(kind: ErrorKind, outcome: RequestOutcome, retriable: bool, message: String) -> Self {
        let reason = Reason::Unspecified;
        Self(Arc::new(Inner { kind, reason, outcome, retriable, retry_after: None, message, detail: None }))
    }

    /// The same fault, told with what it concerns in front and another outcome.
    pub(crate) fn with(&self, outcome: RequestOutcome, context: &str) -> Self {
        let Inner { kind, reason, retriable, retry_after, message, detail, .. } = &*self.0;
        Self(Arc::new(Inner {
            kind: *kind,
            reason: *reason,
            outcome,
            retriable: *retriable,
            retry_after: *retry_after,
            message: format!("{context}: {message}"),
            detail: detail.clone(),
        }))
    }

    /// The same fault with what it concerns in front.
    pub(crate) fn context(&self, context: &str) -> Self {
        self.with(self.outcome(), context)
    }

    /// The request went to a broker that does not lead the partition, or under an old epoch: metadata is out of date.
    pub(crate) fn stale_metadata(&self) -> bool {
        matches!(
            self.0.reason,
            Reason::NotLeader | Reason::FencedLeaderEpoch | Reason::UnknownTopic | Reason::UnknownPartition
        )
    }

    /// Worth another try of a read-only or idempotent request, after a refresh of metadata where that is out of date.
    pub(crate) fn worth_a_retry(&self) -> bool {
        self.0.retriable || matches!(self.0.reason, Reason::NotLeader | Reason::FencedLeaderEpoch)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

impl From<LogError> for Error {
    fn from(detail: LogError) -> Self {
        let reason = Reason::try_from(detail.reason).unwrap_or(Reason::Unspecified);
        let outcome = match Outcome::try_from(detail.outcome) {
            Ok(Outcome::NotApplied) => RequestOutcome::NotApplied,
            Ok(Outcome::Applied) => RequestOutcome::Applied,
            _ => RequestOutcome::Unknown,
        };
        let wait = Duration::from_millis(u64::from(detail.retry_after_ms));
        Self(Arc::new(Inner {
            kind: kind_of(reason),
            reason,
            outcome,
            // A reason that this client does not know is not retriable, whatever the field says.
            retriable: detail.retriable && reason != Reason::Unspecified,
            retry_after: (!wait.is_zero()).then_some(wait),
            message: if detail.message.is_empty() { reason.as_str_name().to_owned() } else { detail.message.clone() },
            detail: Some(detail),
        }))
    }
}

impl From<Status> for Error {
    /// Takes the `LogError` out of the status; without one (a proxy answered, or nobody) the code must do.
    fn from(status: Status) -> Self {
        if let Some(detail) = log_error_of(&status) {
            return detail.into();
        }
        let (kind, outcome, retriable) = if refused(&status) {
            (ErrorKind::Unavailable, RequestOutcome::NotApplied, true)
        } else {
            meaning_of(status.code())
        };
        let message = match kind {
            ErrorKind::Unavailable => {
                format!("no broker answers ({}): check the address and that it runs", text(&status))
            }
            ErrorKind::Timeout => format!("the broker did not answer in time ({})", text(&status)),
            _ => text(&status),
        };
        Self::new(kind, outcome, retriable, message)
    }
}

/// Nobody listened, so nothing was sent: a broker that is about to start will take the same call.
fn refused(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// What stands in a status, with the causes below it: a transport fault's own message is only "transport error".
fn text(status: &Status) -> String {
    let mut text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn log_error_of(status: &Status) -> Option<LogError> {
    let details = tonic_types::Status::decode(status.details()).ok()?.details;
    let any = details.into_iter().find(|any| any.type_url.ends_with("/taffrail.v1.LogError"))?;
    LogError::decode(any.value.as_slice()).ok()
}

fn kind_of(reason: Reason) -> ErrorKind {
    match reason {
        Reason::NotLeader
        | Reason::FencedLeaderEpoch
        | Reason::UnknownLeaderEpoch
        | Reason::Unavailable
        | Reason::StorageFailed
        | Reason::CoordinatorLoading
        | Reason::NotEnoughReplicas
        | Reason::OffsetNotAvailable
        | Reason::PrecedingFailed => ErrorKind::Unavailable,
        Reason::RequestTimeout => ErrorKind::Timeout,
        Reason::UnknownTopic | Reason::UnknownPartition | Reason::UnknownGroup | Reason::NoCommittedOffset => {
            ErrorKind::NotFound
        }
        Reason::UnknownMember | Reason::MemberFenced | Reason::StaleMemberEpoch => ErrorKind::MemberFenced,
        Reason::InstanceInUse | Reason::GroupNotEmpty => ErrorKind::InUse,
        Reason::BatchTooLarge | Reason::CorruptBatch | Reason::InvalidRecord => ErrorKind::RecordRefused,
        Reason::InvalidRequest => ErrorKind::InvalidArgument,
        Reason::QuotaExceeded | Reason::DiskFull => ErrorKind::ResourceExhausted,
        Reason::Unauthenticated => ErrorKind::Unauthenticated,
        Reason::Unauthorized => ErrorKind::Unauthorized,
        Reason::DataCorrupt => ErrorKind::DataCorrupt,
        Reason::OffsetOutOfRange => ErrorKind::OffsetOutOfRange,
        Reason::LogTruncated => ErrorKind::LogTruncated,
        Reason::ProducerFenced => ErrorKind::ProducerFenced,
        Reason::TopicExists => ErrorKind::AlreadyExists,
        Reason::Internal | Reason::Unspecified | Reason::UnknownProducer | Reason::OutOfSequence => ErrorKind::Internal,
    }
}

fn meaning_of(code: Code) -> (ErrorKind, RequestOutcome, bool) {
    use RequestOutcome::{NotApplied, Unknown};
    match code {
        Code::InvalidArgument => (ErrorKind::InvalidArgument, NotApplied, false),
        Code::NotFound => (ErrorKind::NotFound, NotApplied, false),
        Code::AlreadyExists => (ErrorKind::AlreadyExists, NotApplied, false),
        Code::Unauthenticated => (ErrorKind::Unauthenticated, NotApplied, false),
        Code::PermissionDenied => (ErrorKind::Unauthorized, NotApplied, false),
        Code::ResourceExhausted => (ErrorKind::ResourceExhausted, Unknown, true),
        Code::OutOfRange => (ErrorKind::OffsetOutOfRange, NotApplied, false),
        Code::DataLoss => (ErrorKind::DataCorrupt, Unknown, false),
        Code::DeadlineExceeded => (ErrorKind::Timeout, Unknown, true),
        // The broker gives details with every fault of its own: `Internal` without is HTTP/2's (a reset, a GOAWAY).
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Aborted | Code::Internal => {
            (ErrorKind::Unavailable, Unknown, true)
        }
        Code::Unimplemented | Code::FailedPrecondition => (ErrorKind::Internal, NotApplied, false),
        Code::Ok => (ErrorKind::Internal, Unknown, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_reason_is_never_retriable() {
        let error = Error::from(LogError { reason: 9_999, retriable: true, ..LogError::default() });
        assert!(!error.retriable());
        assert_eq!(error.reason(), Reason::Unspecified);
        assert_eq!(error.outcome(), RequestOutcome::Unknown);
    }

    #[test]
    fn replicas_that_are_missing_or_new_are_waited_for() {
        for reason in [Reason::NotEnoughReplicas, Reason::OffsetNotAvailable] {
            let outcome = Outcome::NotApplied.into();
            let told = LogError { reason: reason.into(), retriable: true, outcome, ..LogError::default() };
            let error = Error::from(told);
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, RequestOutcome::NotApplied));
            assert!(error.worth_a_retry() && !error.stale_metadata(), "{reason:?}");
        }
    }

    #[test]
    fn the_log_error_in_a_status_decides() {
        let detail = LogError {
            reason: Reason::DiskFull.into(),
            outcome: Outcome::NotApplied.into(),
            retriable: true,
            message: "the disk is full: delete topics".into(),
            retry_after_ms: 250,
            ..LogError::default()
        };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/taffrail.v1.LogError".into(),
            value: detail.encode_to_vec(),
        };
        let status = tonic_types::Status { code: 8, message: String::new(), details: vec![any] };
        let error = Error::from(Status::with_details(Code::ResourceExhausted, "", status.encode_to_vec().into()));
        assert_eq!((error.kind(), error.reason()), (ErrorKind::ResourceExhausted, Reason::DiskFull));
        assert_eq!(error.outcome(), RequestOutcome::NotApplied);
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
        assert!(error.retriable());
        assert_eq!(error.to_string(), "the disk is full: delete topics");
    }

    #[test]
    fn a_status_without_details_leaves_the_outcome_open() {
        let error = Error::from(Status::unavailable("connection reset"));
        assert_eq!(
            (error.kind(), error.outcome(), error.retriable()),
            (ErrorKind::Unavailable, RequestOutcome::Unknown, true)
        );
    }

    #[test]
    fn damaged_details_are_no_reason_to_fail() {
        let error = Error::from(Status::with_details(Code::NotFound, "gone", bytes::Bytes::from_static(&[0xff; 9])));
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
