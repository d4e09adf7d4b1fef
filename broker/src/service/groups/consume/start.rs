//! Where a member begins to read a partition.

use taffrail_proto::v1::{AssignedPartition, OffsetReset, Reason};

use crate::coordinator::group::{CommittedOffset, TopicPartition};
use crate::coordinator::groups::Directory;
use crate::partition::{FetchError, Isolation, Snapshot};
use crate::service::fetch::Reader;
use crate::service::groups::offsets::nothing;
use crate::service::status::{IntoLogError as _, Refused, refusal};

/// Begins at the committed offset, or as the client said for when there is none. `None`: the topic is gone.
pub(super) fn place(
    directory: &Directory,
    id: TopicPartition,
    (committed, snapshot): (Option<&CommittedOffset>, &Snapshot),
    (reset, isolation): (OffsetReset, Isolation),
) -> Result<Option<(Reader, AssignedPartition)>, Refused> {
    let Some(topic) = directory.topic_of(id) else { return Ok(None) };
    let mut reader = Reader::of(topic, id.partition, isolation)?;
    (reader.offset, reader.last_epoch) = begin(committed, snapshot, (reset, isolation))?;
    let assigned = AssignedPartition {
        topic: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partition: id.partition,
        offset: reader.offset,
        committed: committed.map(|committed| committed.offset),
    };
    Ok(Some((reader, assigned)))
}

/// At the end, as one begins with "latest" who finds nothing committed. `None`: the topic is gone.
pub(super) fn at_end(
    directory: &Directory,
    id: TopicPartition,
    snapshot: &Snapshot,
    isolation: Isolation,
) -> Result<Option<Reader>, Refused> {
    let Some(topic) = directory.topic_of(id) else { return Ok(None) };
    let mut reader = Reader::of(topic, id.partition, isolation)?;
    reader.offset = snapshot.visible_end(isolation);
    Ok(Some(reader))
}

/// The offset, and the leader epoch of the record in front of it where it is known.
fn begin(
    committed: Option<&CommittedOffset>,
    snapshot: &Snapshot,
    (reset, isolation): (OffsetReset, Isolation),
) -> Result<(i64, Option<i32>), Refused> {
    let (start, end) = (snapshot.log_start, snapshot.log_end);
    let refused = match committed {
        Some(committed) if (start..=end).contains(&committed.offset) => {
            return Ok((committed.offset, committed.leader_epoch));
        }
        Some(committed) => FetchError::OutOfRange { offset: committed.offset, start, end }.into_log_error(),
        None => nothing(),
    };
    match anew(reset, snapshot, isolation) {
        Some(offset) => Ok((offset, None)),
        None => Err(refused.into()),
    }
}

/// Where to go on when the position is gone: nowhere if the client said so.
pub(super) fn anew(reset: OffsetReset, snapshot: &Snapshot, isolation: Isolation) -> Option<i64> {
    match reset {
        OffsetReset::Unspecified | OffsetReset::Earliest => Some(snapshot.log_start),
        OffsetReset::Latest => Some(snapshot.visible_end(isolation)),
        OffsetReset::Fail => None,
    }
}

/// What the client said of partitions without a committed offset.
pub(super) fn policy(asked: i32) -> Result<OffsetReset, Refused> {
    OffsetReset::try_from(asked)
        .map_err(|unknown| refusal(Reason::InvalidRequest, format_args!("reset: {} is not known", unknown.0)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNAPSHOT: Snapshot =
        Snapshot { log_start: 10, high_watermark: 50, last_stable: 40, log_end: 60, leader_epoch: 0, closed: false };

    fn at(committed: Option<i64>, reset: OffsetReset) -> Result<i64, Reason> {
        let committed = committed.map(|offset| CommittedOffset {
            offset,
            leader_epoch: Some(3),
            metadata: String::new(),
            committed_at: 0,
        });
        begin(committed.as_ref(), &SNAPSHOT, (reset, Isolation::ReadCommitted))
            .map(|(offset, _)| offset)
            .map_err(|refused| refused.0.reason())
    }

    #[test]
    fn c8_what_is_committed_counts_and_otherwise_what_the_client_said() {
        for reset in [OffsetReset::Earliest, OffsetReset::Latest, OffsetReset::Fail] {
            assert_eq!((at(Some(10), reset), at(Some(60), reset)), (Ok(10), Ok(60)));
        }
        for gone in [None, Some(9), Some(61)] {
            assert_eq!(at(gone, OffsetReset::Unspecified), Ok(10));
            assert_eq!(at(gone, OffsetReset::Earliest), Ok(10));
            assert_eq!(
                at(gone, OffsetReset::Latest),
                Ok(40),
                "the last stable offset: nothing is skipped that is not seen"
            );
        }
        assert_eq!(at(None, OffsetReset::Fail), Err(Reason::NoCommittedOffset));
        assert_eq!(at(Some(9), OffsetReset::Fail), Err(Reason::OffsetOutOfRange));
    }
}
