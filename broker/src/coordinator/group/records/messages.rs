//! Bodies of records as protobuf messages, and what they mean. Bounds are checked here: what cannot be true is `None`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::Standing;
use crate::coordinator::group::member::{Current, Profile};
use crate::coordinator::group::{AssignorName, CommittedOffset, Subscription, TopicPartition};

/// The type of all groups until now; `classic`, `share` and `streams` may come.
const GROUP_TYPE: &str = "consumer";

/// What a record is about.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Key {
    #[prost(string, tag = "1")]
    pub(super) group: String,
    #[prost(string, tag = "2")]
    pub(super) member: String,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) topic: Bytes,
    #[prost(int32, tag = "4")]
    pub(super) partition: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StandingValue {
    /// [`GROUP_TYPE`].
    #[prost(string, tag = "1")]
    pub(super) group_type: String,
    #[prost(int32, tag = "2")]
    pub(super) epoch: i32,
    /// Of the target assignment: the same as `epoch` until now.
    #[prost(int32, tag = "3")]
    pub(super) assignment_epoch: i32,
    #[prost(int32, tag = "4")]
    pub(super) last_epoch: i32,
    /// Log time, milliseconds.
    #[prost(int64, optional, tag = "5")]
    pub(super) empty_since: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicsValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) topics: Vec<TopicValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) topic: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) partitions: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProfileValue {
    #[prost(string, optional, tag = "1")]
    pub(super) instance: Option<String>,
    #[prost(string, tag = "2")]
    pub(super) client_id: String,
    #[prost(string, tag = "3")]
    pub(super) client_host: String,
    #[prost(string, optional, tag = "4")]
    pub(super) rack: Option<String>,
    #[prost(uint64, tag = "5")]
    pub(super) session_timeout_ms: u64,
    #[prost(uint64, tag = "6")]
    pub(super) rebalance_timeout_ms: u64,
    #[prost(string, repeated, tag = "7")]
    pub(super) topics: Vec<String>,
    #[prost(string, optional, tag = "8")]
    pub(super) pattern: Option<String>,
    /// 0: none asked for; 1: uniform; 2: range.
    #[prost(int32, tag = "9")]
    pub(super) assignor: i32,
    /// For groups of type `classic`: always empty until now.
    #[prost(string, tag = "10")]
    pub(super) protocol_type: String,
    /// As above.
    #[prost(message, repeated, tag = "11")]
    pub(super) protocols: Vec<ProtocolValue>,
    /// As above.
    #[prost(bytes = "bytes", tag = "12")]
    pub(super) assignment: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtocolValue {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) metadata: Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TargetValue {
    #[prost(message, repeated, tag = "1")]
    pub(super) partitions: Vec<PartitionsValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CurrentValue {
    #[prost(int32, tag = "1")]
    pub(super) epoch: i32,
    #[prost(int32, tag = "2")]
    pub(super) joined: i32,
    #[prost(message, repeated, tag = "3")]
    pub(super) assigned: Vec<PartitionsValue>,
    #[prost(message, repeated, tag = "4")]
    pub(super) revoking: Vec<PartitionsValue>,
    #[prost(bool, tag = "5")]
    pub(super) away: bool,
}

/// Partitions of a topic.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PartitionsValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) topic: Bytes,
    #[prost(int32, repeated, tag = "2")]
    pub(super) partitions: Vec<i32>,
    /// Assignment epochs, one for each partition; none in targets.
    #[prost(int32, repeated, tag = "3")]
    pub(super) epochs: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OffsetValue {
    #[prost(int64, tag = "1")]
    pub(super) offset: i64,
    #[prost(int32, optional, tag = "2")]
    pub(super) leader_epoch: Option<i32>,
    #[prost(string, tag = "3")]
    pub(super) metadata: String,
    /// Wall time, milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(super) committed_at: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TopicGoneValue {
    /// Log time, milliseconds.
    #[prost(int64, tag = "1")]
    pub(super) since: i64,
}

impl From<&Standing> for StandingValue {
    fn from(standing: &Standing) -> Self {
        Self {
            group_type: GROUP_TYPE.to_owned(),
            epoch: standing.epoch,
            assignment_epoch: standing.epoch,
            last_epoch: standing.last_epoch,
            empty_since: standing.empty_since,
        }
    }
}

impl StandingValue {
    pub(super) fn read(self) -> Option<Standing> {
        (self.group_type == GROUP_TYPE).then_some(())?;
        let (epoch, last_epoch) = (natural(self.epoch)?, natural(self.last_epoch)?);
        (epoch <= last_epoch).then_some(Standing { epoch, last_epoch, empty_since: self.empty_since })
    }
}

impl TopicsValue {
    pub(super) fn read(self) -> Option<BTreeMap<Uuid, i32>> {
        self.topics.into_iter().map(|value| Some((topic(&value.topic)?, natural(value.partitions)?))).collect()
    }
}

impl From<&Profile> for ProfileValue {
    fn from(profile: &Profile) -> Self {
        Self {
            instance: profile.instance.as_deref().map(str::to_owned),
            client_id: profile.client_id.clone(),
            client_host: profile.client_host.to_string(),
            rack: profile.rack.clone(),
            session_timeout_ms: profile.session_timeout.as_millis() as u64,
            rebalance_timeout_ms: profile.rebalance_timeout.as_millis() as u64,
            topics: profile.subscription.topics.iter().cloned().collect(),
            pattern: profile.subscription.pattern.clone(),
            assignor: match profile.assignor {
                None => 0,
                Some(AssignorName::Uniform) => 1,
                Some(AssignorName::Range) => 2,
            },
            ..Self::default()
        }
    }
}

impl ProfileValue {
    pub(super) fn read(self) -> Option<Profile> {
        let assignor = match self.assignor {
            0 => None,
            1 => Some(AssignorName::Uniform),
            2 => Some(AssignorName::Range),
            _ => return None,
        };
        let subscription = Subscription { topics: self.topics.into_iter().collect(), pattern: self.pattern };
        Some(Profile {
            instance: self.instance.map(Arc::from),
            client_id: self.client_id,
            client_host: self.client_host.parse::<IpAddr>().ok()?,
            rack: self.rack,
            session_timeout: timeout(self.session_timeout_ms)?,
            rebalance_timeout: timeout(self.rebalance_timeout_ms)?,
            subscription: Arc::new(subscription),
            assignor,
        })
    }
}

impl TargetValue {
    pub(super) fn read(self) -> Option<BTreeSet<TopicPartition>> {
        let mut target = BTreeSet::new();
        for value in self.partitions {
            let topic = topic(&value.topic)?;
            for partition in value.partitions {
                target.insert(TopicPartition { topic, partition: natural(partition)? });
            }
        }
        Some(target)
    }
}

impl From<&Current> for CurrentValue {
    fn from(current: &Current) -> Self {
        let epochs = |partitions: &BTreeMap<TopicPartition, i32>| {
            grouped(partitions.iter().map(|(partition, epoch)| (partition, Some(*epoch))))
        };
        Self {
            epoch: current.epoch,
            joined: current.joined,
            assigned: epochs(&current.assigned),
            revoking: epochs(&current.revoking),
            away: current.away,
        }
    }
}

impl CurrentValue {
    pub(super) fn read(self) -> Option<Current> {
        Some(Current {
            epoch: natural(self.epoch)?,
            joined: natural(self.joined)?,
            assigned: with_epochs(self.assigned)?,
            revoking: with_epochs(self.revoking)?,
            away: self.away,
        })
    }
}

fn with_epochs(values: Vec<PartitionsValue>) -> Option<BTreeMap<TopicPartition, i32>> {
    let mut partitions = BTreeMap::new();
    for value in values {
        let topic = topic(&value.topic)?;
        (value.partitions.len() == value.epochs.len()).then_some(())?;
        for (partition, epoch) in value.partitions.into_iter().zip(value.epochs) {
            partitions.insert(TopicPartition { topic, partition: natural(partition)? }, natural(epoch)?);
        }
    }
    Some(partitions)
}

impl From<&CommittedOffset> for OffsetValue {
    fn from(offset: &CommittedOffset) -> Self {
        let CommittedOffset { offset, leader_epoch, metadata, committed_at } = offset.clone();
        Self { offset, leader_epoch, metadata, committed_at }
    }
}

impl OffsetValue {
    pub(super) fn read(self) -> Option<CommittedOffset> {
        let Self { offset, leader_epoch, metadata, committed_at } = self;
        (offset >= 0).then_some(CommittedOffset { offset, leader_epoch, metadata, committed_at })
    }
}

/// Partitions in rising order, by topic.
pub(super) fn grouped<'a>(partitions: impl Iterator<Item = (&'a TopicPartition, Option<i32>)>) -> Vec<PartitionsValue> {
    let mut grouped: Vec<PartitionsValue> = vec![];
    for (partition, epoch) in partitions {
        let topic = partition.topic.as_bytes();
        if grouped.last().is_none_or(|last| last.topic != topic[..]) {
            grouped.push(PartitionsValue { topic: uuid(partition.topic), ..PartitionsValue::default() });
        }
        let last = grouped.last_mut().expect("one was pushed if there was none");
        last.partitions.push(partition.partition);
        last.epochs.extend(epoch);
    }
    grouped
}

pub(super) fn uuid(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn topic(bytes: &[u8]) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

pub(super) fn natural(number: i32) -> Option<i32> {
    (number >= 0).then_some(number)
}

/// Longer timeouts than a day are nobody's: the edge bounds them by an hour.
fn timeout(millis: u64) -> Option<Duration> {
    (millis <= 86_400_000).then_some(Duration::from_millis(millis))
}
