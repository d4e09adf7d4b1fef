//! Every reason has the code that the API's documentation promises, and a status carries all of it.

use std::sync::Arc;

use taffrail_proto::record::{InvalidRecord, RecordFault};

use super::*;

/// Reason, status code, retriable: as documented.
const TABLE: [(Reason, Code, bool); 36] = [
    (Reason::Unspecified, Code::Internal, false),
    (Reason::NotLeader, Code::FailedPrecondition, true),
    (Reason::FencedLeaderEpoch, Code::FailedPrecondition, true),
    (Reason::UnknownLeaderEpoch, Code::Unavailable, true),
    (Reason::RequestTimeout, Code::DeadlineExceeded, true),
    (Reason::UnknownProducer, Code::FailedPrecondition, false),
    (Reason::OutOfSequence, Code::Aborted, false),
    (Reason::PrecedingFailed, Code::Aborted, false),
    (Reason::ProducerFenced, Code::FailedPrecondition, false),
    (Reason::OffsetOutOfRange, Code::OutOfRange, false),
    (Reason::LogTruncated, Code::OutOfRange, false),
    (Reason::UnknownTopic, Code::NotFound, false),
    (Reason::UnknownPartition, Code::NotFound, false),
    (Reason::BatchTooLarge, Code::InvalidArgument, false),
    (Reason::CorruptBatch, Code::InvalidArgument, false),
    (Reason::InvalidRecord, Code::InvalidArgument, false),
    (Reason::InvalidRequest, Code::InvalidArgument, false),
    (Reason::QuotaExceeded, Code::ResourceExhausted, true),
    (Reason::DiskFull, Code::ResourceExhausted, true),
    (Reason::Unauthenticated, Code::Unauthenticated, false),
    (Reason::Unauthorized, Code::PermissionDenied, false),
    (Reason::DataCorrupt, Code::DataLoss, false),
    (Reason::Unavailable, Code::Unavailable, true),
    (Reason::TopicExists, Code::AlreadyExists, false),
    (Reason::Internal, Code::Internal, false),
    (Reason::StorageFailed, Code::Unavailable, true),
    (Reason::CoordinatorLoading, Code::Unavailable, true),
    (Reason::UnknownGroup, Code::NotFound, false),
    (Reason::UnknownMember, Code::FailedPrecondition, false),
    (Reason::MemberFenced, Code::FailedPrecondition, false),
    (Reason::StaleMemberEpoch, Code::FailedPrecondition, false),
    (Reason::InstanceInUse, Code::Aborted, true),
    (Reason::NoCommittedOffset, Code::NotFound, false),
    (Reason::GroupNotEmpty, Code::FailedPrecondition, false),
    (Reason::NotEnoughReplicas, Code::Unavailable, true),
    (Reason::OffsetNotAvailable, Code::Unavailable, true),
];

fn detail<M: Message + Default>(status: &Status, name: &str) -> Option<M> {
    let packed = pb::Status::decode(status.details()).unwrap();
    let found = packed.details.into_iter().find(|any| any.type_url == format!("type.googleapis.com/{name}"))?;
    Some(M::decode(found.value.as_slice()).unwrap())
}

#[test]
fn every_reason_has_its_code_and_says_whether_to_retry() {
    for (number, (reason, code, retriable)) in TABLE.into_iter().enumerate() {
        assert_eq!(reason as usize, number, "the table is in the order of the reasons");
        let error = refusal(reason, "why");
        assert_eq!((status(&error).code(), error.retriable), (code, retriable), "{reason:?}");
        assert_eq!(error.outcome(), Outcome::NotApplied);
    }
    assert!(Reason::try_from(TABLE.len() as i32).is_err(), "a reason is missing in the table");
}

#[test]
fn a_status_carries_error_info_retry_info_and_the_log_error() {
    let error = refusal(Reason::DiskFull, "no room");
    let status = status(&error);
    assert_eq!(status.message(), "no room");
    let info: pb::ErrorInfo = detail(&status, "google.rpc.ErrorInfo").unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DISK_FULL", "taffrail.dev"));
    let retry: pb::RetryInfo = detail(&status, "google.rpc.RetryInfo").unwrap();
    assert_eq!(retry.retry_delay.unwrap().seconds, 1);
    assert_eq!(detail::<LogError>(&status, "taffrail.v1.LogError"), Some(error));
}

#[test]
fn no_retry_info_where_waiting_does_not_help() {
    let status = status(&refusal(Reason::UnknownTopic, "no"));
    assert_eq!(detail::<pb::RetryInfo>(&status, "google.rpc.RetryInfo"), None);
}

#[test]
fn standard_tools_understand_the_details() {
    use tonic_types::StatusExt;
    let status = status(&refusal(Reason::QuotaExceeded, "wait"));
    assert_eq!(status.get_details_error_info().unwrap().domain, DOMAIN);
    assert!(status.get_details_retry_info().is_some());
}

#[test]
fn what_may_have_happened_is_unknown_and_the_rest_is_definite() {
    let failed = || StorageError::Failed("disk".into());
    let outcomes = [
        (AppendError::Unknown(failed()).into_log_error(), Outcome::Unknown),
        (AppendError::ClosedInFlight.into_log_error(), Outcome::Unknown),
        (MetadataError::Unknown("reset".into()).into_log_error(), Outcome::Unknown),
        (AppendError::Refused(failed()).into_log_error(), Outcome::NotApplied),
        (AppendError::Closed.into_log_error(), Outcome::NotApplied),
        (AppendError::NotEnoughReplicas { in_sync: 1, min: 2 }.into_log_error(), Outcome::NotApplied),
    ];
    for (error, outcome) in outcomes {
        assert_eq!(error.outcome(), outcome, "{error:?}");
    }
}

#[test]
fn p3_p4_p6_sequence_errors_have_reasons_of_their_own() {
    let of = |error| AppendError::Sequence { error, log_start: 7 }.into_log_error();
    assert_eq!(of(SequenceError::Fenced { current: 2 }).reason(), Reason::ProducerFenced);
    assert_eq!(of(SequenceError::OutOfSequence { expected: 1, found: 3 }).reason(), Reason::OutOfSequence);
    let unknown = of(SequenceError::Unknown);
    assert_eq!((unknown.reason(), unknown.log_start_offset), (Reason::UnknownProducer, Some(7)));
}

#[test]
fn e7_errors_of_position_say_where_the_log_is() {
    let error = FetchError::OutOfRange { offset: 9, start: 2, end: 5 }.into_log_error();
    assert_eq!(
        (error.reason(), error.log_start_offset, error.log_end_offset),
        (Reason::OffsetOutOfRange, Some(2), Some(5))
    );
    let error = FetchError::Truncated { at: 4, epoch: None, start: 1 }.into_log_error();
    assert_eq!(
        (error.reason(), error.log_start_offset, error.log_end_offset),
        (Reason::LogTruncated, Some(1), Some(4))
    );
}

#[test]
fn storage_errors_are_told_apart() {
    let table = [
        (StorageError::DiskFull { free: 1, reserve: 2 }, Reason::DiskFull),
        (StorageError::Failed(Arc::from("io")), Reason::StorageFailed),
        (StorageError::Closed, Reason::Unavailable),
        (StorageError::NoSuchLog(1), Reason::Internal),
    ];
    for (error, reason) in table {
        assert_eq!(error.into_log_error().reason(), reason);
    }
}

#[test]
fn refused_records_are_named_by_index() {
    let record = InvalidRecord { index: 3, fault: RecordFault::Truncated };
    let error = BatchError::InvalidRecords(vec![record]).into_log_error();
    assert_eq!(error.reason(), Reason::InvalidRecord);
    assert_eq!(error.record_errors[0].index, 3);
    let error = BatchError::InvalidCount { count: i32::MAX, last_offset_delta: 0 }.into_log_error();
    assert_eq!(error.reason(), Reason::CorruptBatch);
}
