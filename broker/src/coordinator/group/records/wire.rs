//! Records as bytes.
//!
//! Key: a byte with the version (1), a byte with the kind, then [`Key`] as a protobuf message. Value: a byte with the version
//! (1), then a protobuf message by kind, named below; empty: what the key names is removed. Fields are only ever added; what
//! needs a reader to understand it gets a new kind, which older brokers refuse to load.
//!
//! | kind | of | value |
//! |---|---|---|
//! | 1 | a group | [`StandingValue`]; empty: gone with everything in it |
//! | 2 | a group's topics | [`TopicsValue`] |
//! | 3 | a member | [`ProfileValue`]; empty: gone with its target and assignment |
//! | 4 | a member's target | [`TargetValue`] |
//! | 5 | what a member owns | [`CurrentValue`] |
//! | 6 | a committed offset | [`OffsetValue`] |
//! | 7 | a topic that is gone | [`TopicGoneValue`]; empty: it is back |
//! | 8 | a topic that is forgotten | always empty |

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use uuid::Uuid;

use super::messages::{
    CurrentValue, Key, OffsetValue, ProfileValue, StandingValue, TargetValue, TopicGoneValue, TopicValue, TopicsValue,
    grouped, natural, topic, uuid,
};
use super::{Change, Record};
use crate::coordinator::group::TopicPartition;

const VERSION: u8 = 1;

const STANDING: u8 = 1;
const TOPICS: u8 = 2;
const PROFILE: u8 = 3;
const TARGET: u8 = 4;
const CURRENT: u8 = 5;
const OFFSET: u8 = 6;
const TOPIC_GONE: u8 = 7;
const TOPIC_FORGOTTEN: u8 = 8;

/// Key and value.
pub(in crate::coordinator::group) fn encode(record: &Record) -> (Bytes, Bytes) {
    match record {
        Record::Group { group, change } => encode_change(group, change),
        Record::TopicGone { topic, since } => {
            let value = since.map(|since| message(&TopicGoneValue { since }));
            (key(TOPIC_GONE, &topic_key(*topic)), value.unwrap_or_default())
        }
        Record::TopicForgotten { topic } => (key(TOPIC_FORGOTTEN, &topic_key(*topic)), Bytes::new()),
    }
}

fn encode_change(group: &str, change: &Change) -> (Bytes, Bytes) {
    let of_group = Key { group: group.to_owned(), ..Key::default() };
    let of_member = |member: &str| Key { member: member.to_owned(), ..of_group.clone() };
    match change {
        Change::Standing(standing) => (key(STANDING, &of_group), message(&StandingValue::from(standing))),
        Change::Removed => (key(STANDING, &of_group), Bytes::new()),
        Change::Topics(topics) => {
            let topics = topics.iter().map(|(id, &partitions)| TopicValue { topic: uuid(*id), partitions });
            (key(TOPICS, &of_group), message(&TopicsValue { topics: topics.collect() }))
        }
        Change::Profile { member, profile } => {
            (key(PROFILE, &of_member(member)), message(&ProfileValue::from(&**profile)))
        }
        Change::MemberRemoved { member } => (key(PROFILE, &of_member(member)), Bytes::new()),
        Change::Target { member, partitions } => {
            let partitions = grouped(partitions.iter().map(|partition| (partition, None)));
            (key(TARGET, &of_member(member)), message(&TargetValue { partitions }))
        }
        Change::Current { member, current } => {
            (key(CURRENT, &of_member(member)), message(&CurrentValue::from(current)))
        }
        Change::Offset { partition, offset } => {
            let of_offset = Key { topic: uuid(partition.topic), partition: partition.partition, ..of_group };
            (key(OFFSET, &of_offset), message(&OffsetValue::from(offset)))
        }
    }
}

fn key(kind: u8, key: &Key) -> Bytes {
    versioned(&[VERSION, kind], key)
}

fn topic_key(topic: Uuid) -> Key {
    Key { topic: uuid(topic), ..Key::default() }
}

fn message(message: &impl Message) -> Bytes {
    versioned(&[VERSION], message)
}

fn versioned(head: &[u8], message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(head.len() + message.encoded_len());
    bytes.put_slice(head);
    message.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

/// A record of its bytes. `None`: of a newer version, or damaged.
pub(in crate::coordinator::group) fn decode(key: &[u8], value: &[u8]) -> Option<Record> {
    let [VERSION, kind, key @ ..] = key else { return None };
    let key = Key::decode(key).ok()?;
    let removed = value.is_empty();
    match *kind {
        TOPIC_GONE => {
            let since = if removed { None } else { Some(read::<TopicGoneValue>(value)?.since) };
            Some(Record::TopicGone { topic: topic(&key.topic)?, since })
        }
        TOPIC_FORGOTTEN if removed => Some(Record::TopicForgotten { topic: topic(&key.topic)? }),
        kind => {
            let group = non_empty(&key.group)?;
            Some(Record::Group { group, change: decode_change(kind, &key, value)? })
        }
    }
}

fn decode_change(kind: u8, key: &Key, value: &[u8]) -> Option<Change> {
    let removed = value.is_empty();
    let change = match kind {
        STANDING if removed => Change::Removed,
        STANDING => Change::Standing(read::<StandingValue>(value)?.read()?),
        TOPICS if !removed => Change::Topics(Arc::new(read::<TopicsValue>(value)?.read()?)),
        PROFILE if removed => Change::MemberRemoved { member: non_empty(&key.member)? },
        PROFILE => {
            let profile = Box::new(read::<ProfileValue>(value)?.read()?);
            Change::Profile { member: non_empty(&key.member)?, profile }
        }
        TARGET if !removed => {
            let partitions = Arc::new(read::<TargetValue>(value)?.read()?);
            Change::Target { member: non_empty(&key.member)?, partitions }
        }
        CURRENT if !removed => {
            let current = read::<CurrentValue>(value)?.read()?;
            Change::Current { member: non_empty(&key.member)?, current }
        }
        OFFSET if !removed => {
            let partition = TopicPartition { topic: topic(&key.topic)?, partition: natural(key.partition)? };
            Change::Offset { partition, offset: read::<OffsetValue>(value)?.read()? }
        }
        _ => return None,
    };
    Some(change)
}

fn read<M: Message + Default>(value: &[u8]) -> Option<M> {
    let [VERSION, message @ ..] = value else { return None };
    M::decode(message).ok()
}

fn non_empty(id: &str) -> Option<Arc<str>> {
    (!id.is_empty()).then(|| id.into())
}
