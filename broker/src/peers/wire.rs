//! What travels between brokers, and what it stands for.

use taffrail_proto::internal::v1::{PartitionRef, PartitionState};
use taffrail_proto::v1::{self, LogError, Reason};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::partition::{Acks, Appended, FetchError, Isolation, Snapshot};
use crate::storage::{Durability, PartitionId};

/// Who asks.
pub type Client = taffrail_proto::internal::v1::partitions_client::PartitionsClient<Channel>;

/// A partition, and the epoch under which it is led.
pub fn partition(id: PartitionId, leader_epoch: i32) -> PartitionRef {
    let (topic_high, topic_low) = id.topic.as_u64_pair();
    PartitionRef { topic_high, topic_low, index: id.index, leader_epoch }
}

/// Which partition that is.
pub fn partition_id(sent: &PartitionRef) -> PartitionId {
    PartitionId { topic: Uuid::from_u64_pair(sent.topic_high, sent.topic_low), index: sent.index }
}

/// A partition's state.
pub fn state(snapshot: &Snapshot) -> PartitionState {
    PartitionState {
        log_start: snapshot.log_start,
        high_watermark: snapshot.high_watermark,
        last_stable: snapshot.last_stable,
        log_end: snapshot.log_end,
        leader_epoch: snapshot.leader_epoch,
    }
}

/// What a state says, of a partition that is served.
pub fn snapshot(state: PartitionState) -> Snapshot {
    Snapshot {
        log_start: state.log_start,
        high_watermark: state.high_watermark,
        last_stable: state.last_stable,
        log_end: state.log_end,
        leader_epoch: state.leader_epoch,
        closed: false,
    }
}

/// Which records may be seen.
pub fn isolation(committed: bool) -> Isolation {
    if committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

/// When an append is answered. Unknown: as late as can be.
pub fn acks(sent: i32) -> Acks {
    match v1::Acks::try_from(sent) {
        Ok(v1::Acks::None) => Acks::None,
        Ok(v1::Acks::Leader) => Acks::Leader,
        Ok(v1::Acks::All | v1::Acks::Unspecified) | Err(_) => Acks::All,
    }
}

/// The other way.
pub fn sent_acks(acks: Acks) -> v1::Acks {
    match acks {
        Acks::None => v1::Acks::None,
        Acks::Leader => v1::Acks::Leader,
        Acks::All => v1::Acks::All,
    }
}

/// An acknowledged append.
pub fn appended(sent: &v1::Appended) -> Appended {
    Appended {
        base_offset: sent.base_offset,
        durability: match sent.durability() {
            v1::Durability::Disk => Durability::Disk,
            v1::Durability::Os | v1::Durability::Unspecified => Durability::Os,
        },
        replicas: sent.replicas,
        leader_epoch: sent.leader_epoch,
        log_append_time: sent.log_append_time_ms,
        log_start_offset: sent.log_start_offset,
        duplicate: sent.duplicate,
    }
}

/// What a leader's refusal of a read means: readers go on elsewhere after some.
pub fn fetch_error(offset: i64, error: LogError) -> FetchError {
    match (error.reason(), error.log_start_offset, error.log_end_offset) {
        (Reason::OffsetOutOfRange, Some(start), Some(end)) => FetchError::OutOfRange { offset, start, end },
        (Reason::LogTruncated, Some(start), Some(at)) => FetchError::Truncated { at, epoch: None, start },
        _ => FetchError::Leader(Box::new(error)),
    }
}
