//! What a request of the groups' API may contain: every field is checked here, before a coordinator sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use taffrail_proto::v1;
use uuid::Uuid;

use crate::coordinator::group::{AssignorName, CommittedOffset, Join, Subscription, TopicPartition, subscription};
use crate::coordinator::groups::Directory;
use crate::security::{self, Resource, Verb};
use crate::service::Broker;
use crate::service::call::Call;
use crate::service::status::{Refused, invalid};

/// Longest id of a group, a member or an instance, in bytes.
const MAX_ID_BYTES: usize = 249;
/// Longest rack or client id, in bytes.
const MAX_LABEL_BYTES: usize = 255;
/// Topics in a subscription.
const MAX_TOPICS: usize = 1_000;
/// Offsets in a commit, or partitions in a question.
pub(super) const MAX_OFFSETS: usize = 1_000;
/// Longest metadata of a commit, in bytes.
const MAX_METADATA_BYTES: usize = 4_096;
/// Partitions that a member says it owns.
const MAX_OWNED: usize = 100_000;
/// Session timeouts, milliseconds: bounds and default.
const SESSION: (u32, u32, u32) = (1_000, 1_800_000, 45_000);
/// Rebalance timeouts, milliseconds: bounds and default.
const REBALANCE: (u32, u32, u32) = (1_000, 3_600_000, 300_000);

/// A group's id, and what the caller wants to do with the group.
pub(super) fn group(call: &Call, verb: Verb, id: &str) -> Result<(), Refused> {
    check_id("group", id)?;
    Ok(security::authorize(&call.caller, verb, Resource::Group(id))?)
}

fn check_id(field: &str, id: &str) -> Result<(), Refused> {
    check_length(field, id.len(), 1, MAX_ID_BYTES)
}

fn check_length(field: &str, length: usize, least: usize, most: usize) -> Result<(), Refused> {
    if (least..=most).contains(&length) {
        return Ok(());
    }
    Err(Refused::of(invalid(field, format_args!("must have {least} to {most} bytes, not {length}"))))
}

fn timeout(field: &str, asked: u32, (least, most, default): (u32, u32, u32)) -> Result<Duration, Refused> {
    let millis = if asked == 0 { default } else { asked };
    if (least..=most).contains(&millis) {
        return Ok(Duration::from_millis(u64::from(millis)));
    }
    Err(Refused::of(invalid(field, format_args!("must be {least} to {most}, or 0 for {default}, not {asked}"))))
}

/// A subscription of which the caller may read every topic that it names.
pub(super) fn subscription(call: &Call, asked: v1::Subscription) -> Result<Subscription, Refused> {
    let v1::Subscription { topics, pattern } = asked;
    if topics.len() > MAX_TOPICS {
        let fault = format_args!("at most {MAX_TOPICS}, not {}", topics.len());
        return Err(Refused::of(invalid("subscription.topics", fault)));
    }
    if topics.is_empty() && pattern.is_empty() {
        return Err(Refused::of(invalid("subscription", "name topics, or give a pattern")));
    }
    for topic in &topics {
        call.authorize_topic(Verb::Consume, topic)?;
    }
    if !pattern.is_empty() {
        subscription::compile(&pattern)
            .map_err(|error| Refused::of(invalid("subscription.pattern", shortened(&error.to_string()))))?;
    }
    Ok(Subscription { topics: topics.into_iter().collect(), pattern: Some(pattern).filter(|text| !text.is_empty()) })
}

/// Errors of patterns quote them, which may be long.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= 500).last().unwrap_or(0);
    if text.len() <= 500 { text } else { &text[..end] }
}

/// A join by a member that may be in this group.
pub(super) fn join(
    broker: &Broker,
    call: &Call,
    directory: &Directory,
    asked: v1::SessionJoin,
) -> Result<Join, Refused> {
    group(call, Verb::Consume, &asked.group)?;
    check_length("join.member_id", asked.member_id.len(), 0, MAX_ID_BYTES)?;
    check_length("join.instance_id", asked.instance_id.len(), 0, MAX_ID_BYTES)?;
    check_length("join.rack", asked.rack.len(), 0, MAX_LABEL_BYTES)?;
    check_length("join.client_id", asked.client_id.len(), 0, MAX_LABEL_BYTES)?;
    if asked.member_epoch < 0 || (asked.member_epoch > 0 && asked.member_id.is_empty()) {
        let fault = format_args!("is 0 to join, or that of the member that resumes, not {}", asked.member_epoch);
        return Err(Refused::of(invalid("join.member_epoch", fault)));
    }
    let assignor = match asked.assignor.as_str() {
        "" => None,
        "uniform" => Some(AssignorName::Uniform),
        "range" => Some(AssignorName::Range),
        _ => return Err(Refused::of(invalid("join.assignor", "must be \"uniform\" or \"range\""))),
    };
    let member = match asked.member_id {
        id if id.is_empty() => broker.context.random_uuid().to_string(),
        id => id,
    };
    Ok(Join {
        group: asked.group,
        member,
        epoch: asked.member_epoch,
        instance: Some(asked.instance_id).filter(|id| !id.is_empty()),
        subscription: subscription(call, asked.subscription.unwrap_or_default())?,
        assignor,
        rack: Some(asked.rack).filter(|rack| !rack.is_empty()),
        client_id: asked.client_id,
        client_host: call.connection.peer.ip().to_canonical(),
        session_timeout: timeout("join.session_timeout_ms", asked.session_timeout_ms, SESSION)?,
        rebalance_timeout: timeout("join.rebalance_timeout_ms", asked.rebalance_timeout_ms, REBALANCE)?,
        owned: owned(directory, &asked.owned)?,
    })
}

/// Partitions that a member names. Those of topics that are gone are left out: nobody owns them.
pub(super) fn owned(directory: &Directory, named: &[v1::TopicPartitions]) -> Result<BTreeSet<TopicPartition>, Refused> {
    let count: usize = named.iter().map(|topic| topic.partitions.len()).sum();
    if count > MAX_OWNED || named.len() > MAX_OWNED {
        return Err(Refused::of(invalid("partitions", format_args!("at most {MAX_OWNED}, not {count}"))));
    }
    let mut partitions = BTreeSet::new();
    for named in named {
        let Some(topic) = topic(directory, named)? else { continue };
        partitions.extend(named.partitions.iter().map(|&partition| TopicPartition { topic, partition }));
    }
    Ok(partitions)
}

/// The topic that is named, by its id if that is given.
fn topic(directory: &Directory, named: &v1::TopicPartitions) -> Result<Option<Uuid>, Refused> {
    if named.topic_id.is_empty() {
        return Ok(directory.named(&named.topic).map(|topic| topic.id));
    }
    let id = Uuid::try_parse(&named.topic_id).map_err(|_| Refused::of(invalid("topic_id", "is not a UUID")))?;
    Ok(Some(id))
}

/// How many partitions are named is within the bound.
pub(super) fn count(field: &str, named: &[v1::TopicPartitions]) -> Result<(), Refused> {
    let count: usize = named.iter().map(|topic| topic.partitions.len().max(1)).sum();
    if count <= MAX_OFFSETS {
        return Ok(());
    }
    Err(Refused::of(invalid(field, format_args!("at most {MAX_OFFSETS} partitions, not {count}"))))
}

/// What a commit says of one partition, apart from which.
pub(super) fn offset(asked: &v1::OffsetCommit) -> Result<CommittedOffset, Refused> {
    if asked.offset < 0 {
        return Err(Refused::of(invalid("offsets.offset", format_args!("is from 0, not {}", asked.offset))));
    }
    if asked.leader_epoch.is_some_and(|epoch| epoch < 0) {
        return Err(Refused::of(invalid("offsets.leader_epoch", "is from 0; leave it out if it is not known")));
    }
    check_length("offsets.metadata", asked.metadata.len(), 0, MAX_METADATA_BYTES)?;
    Ok(CommittedOffset {
        offset: asked.offset,
        leader_epoch: asked.leader_epoch,
        metadata: asked.metadata.clone(),
        committed_at: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_bounds_and_defaults() {
        let session = |asked| timeout("f", asked, SESSION).ok().map(|timeout| timeout.as_millis());
        assert_eq!(session(0), Some(45_000));
        assert_eq!((session(1_000), session(1_800_000)), (Some(1_000), Some(1_800_000)));
        assert_eq!((session(999), session(1_800_001), session(u32::MAX)), (None, None, None));
    }

    #[test]
    fn ids_have_one_to_249_bytes() {
        assert!(check_id("group", "g").is_ok() && check_id("group", &"g".repeat(249)).is_ok());
        assert!(check_id("group", "").is_err() && check_id("group", &"g".repeat(250)).is_err());
    }

    #[test]
    fn offsets_of_commits_are_checked() {
        let commit = v1::OffsetCommit { offset: 5, metadata: "m".repeat(4_096), ..Default::default() };
        assert!(offset(&commit).is_ok());
        assert!(offset(&v1::OffsetCommit { offset: -1, ..commit.clone() }).is_err());
        assert!(offset(&v1::OffsetCommit { leader_epoch: Some(-1), ..commit.clone() }).is_err());
        assert!(offset(&v1::OffsetCommit { metadata: "m".repeat(4_097), ..commit }).is_err());
    }

    #[test]
    fn a_long_error_is_shortened_between_characters() {
        assert_eq!(shortened(&"ä".repeat(1_000)).len(), 500);
        assert_eq!(shortened("short"), "short");
    }
}
