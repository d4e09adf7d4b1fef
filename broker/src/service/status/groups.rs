//! The mapping of what coordinators of groups answer.

use taffrail_proto::v1::{LogError, Reason};

use super::{IntoLogError, refusal, unknown_outcome};
use crate::coordinator::group::GroupError;
use crate::coordinator::groups::GroupsError;
use crate::coordinator::runtime::{AskError, Failure};

impl IntoLogError for GroupError {
    fn into_log_error(self) -> LogError {
        let reason = match self {
            Self::UnknownGroup(_) => Reason::UnknownGroup,
            Self::UnknownMember { .. } => Reason::UnknownMember,
            Self::Fenced { .. } => Reason::MemberFenced,
            Self::StaleEpoch { .. } => Reason::StaleMemberEpoch,
            Self::InstanceInUse { .. } => Reason::InstanceInUse,
            Self::NotEmpty { .. } => Reason::GroupNotEmpty,
            Self::Full { .. } => Reason::QuotaExceeded,
            Self::UnknownPartition => Reason::UnknownPartition,
        };
        refusal(reason, self)
    }
}

impl IntoLogError for AskError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::Loading => refusal(Reason::CoordinatorLoading, self),
            Self::Busy => refusal(Reason::QuotaExceeded, self),
            Self::Unreadable(_) => refusal(Reason::DataCorrupt, self),
            Self::Closed | Self::Failed(Failure::Replaced) => refusal(Reason::Unavailable, self),
            Self::Lost | Self::Failed(Failure::Unknown) => unknown_outcome(Reason::Unavailable, self),
            Self::Failed(Failure::TooLarge(_)) => refusal(Reason::InvalidRequest, self),
        }
    }
}

impl IntoLogError for GroupsError {
    fn into_log_error(self) -> LogError {
        match self {
            Self::Refused(error) => error.into_log_error(),
            Self::Unanswered(error) => error.into_log_error(),
            Self::NotHere(_) => refusal(Reason::Unavailable, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use taffrail_proto::v1::Outcome;

    use super::*;

    #[test]
    fn refusals_of_coordinators_have_reasons_of_their_own() {
        let (member, group) = (|| "m".to_owned(), || "g".to_owned());
        let table = [
            (GroupError::UnknownGroup(group()), Reason::UnknownGroup),
            (GroupError::UnknownMember { group: group(), member: member() }, Reason::UnknownMember),
            (GroupError::Fenced { member: member(), epoch: 1, known: 2 }, Reason::MemberFenced),
            (GroupError::StaleEpoch { member: member(), epoch: 1 }, Reason::StaleMemberEpoch),
            (GroupError::InstanceInUse { instance: member(), member: member() }, Reason::InstanceInUse),
            (GroupError::NotEmpty { group: group(), members: 1 }, Reason::GroupNotEmpty),
            (GroupError::Full { group: group(), members: 1 }, Reason::QuotaExceeded),
            (GroupError::UnknownPartition, Reason::UnknownPartition),
        ];
        for (error, reason) in table {
            let mapped = GroupsError::from(error).into_log_error();
            assert_eq!((mapped.reason(), mapped.outcome()), (reason, Outcome::NotApplied));
        }
    }

    #[test]
    fn a_coordinator_that_did_not_answer_says_whether_anything_was_done() {
        let table = [
            (AskError::Loading, Reason::CoordinatorLoading, Outcome::NotApplied),
            (AskError::Busy, Reason::QuotaExceeded, Outcome::NotApplied),
            (AskError::Unreadable("why".into()), Reason::DataCorrupt, Outcome::NotApplied),
            (AskError::Closed, Reason::Unavailable, Outcome::NotApplied),
            (AskError::Lost, Reason::Unavailable, Outcome::Unknown),
            (AskError::Failed(Failure::Unknown), Reason::Unavailable, Outcome::Unknown),
            (AskError::Failed(Failure::Replaced), Reason::Unavailable, Outcome::NotApplied),
            (AskError::Failed(Failure::TooLarge(1)), Reason::InvalidRequest, Outcome::NotApplied),
        ];
        for (error, reason, outcome) in table {
            let mapped = GroupsError::from(error).into_log_error();
            assert_eq!((mapped.reason(), mapped.outcome()), (reason, outcome));
        }
    }
}
