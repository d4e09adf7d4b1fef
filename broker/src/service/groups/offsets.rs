//! CommitOffsets, FetchOffsets, ResetOffsets.

use taffrail_proto::v1::{self, LogError, Reason, reset_offsets_request::To};

use super::{Service, check, names};
use crate::coordinator::group::{Answered, Commit, CommittedOffset, Request, TopicPartition};
use crate::coordinator::groups::{Directory, GroupsError};
use crate::partition::{Isolation, OffsetQuery, Partition};
use crate::security::Verb;
use crate::service::call::Call;
use crate::service::status::{IntoLogError as _, Refused, invalid, refusal};
use crate::topics::LookupError;

/// A commit, as far as its topics are there.
pub(super) struct Named {
    /// Partitions that are there.
    pub(super) offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// Those that are not, and why.
    pub(super) errors: Vec<v1::OffsetCommitError>,
}

/// Checks a commit and finds what it names.
pub(super) fn named(directory: &Directory, asked: &[v1::OffsetCommit]) -> Result<Named, Refused> {
    if asked.len() > check::MAX_OFFSETS {
        let fault = format_args!("at most {}, not {}", check::MAX_OFFSETS, asked.len());
        return Err(Refused::of(invalid("offsets", fault)));
    }
    let mut named = Named { offsets: vec![], errors: vec![] };
    for commit in asked {
        let offset = check::offset(commit)?;
        if let Some(topic) = directory.named(&commit.topic) {
            named.offsets.push((TopicPartition { topic: topic.id, partition: commit.partition }, offset));
            continue;
        }
        let topic = commit.topic.get(..249).unwrap_or(&commit.topic).to_owned();
        let error = Some(LookupError::UnknownTopic(topic.clone()).into_log_error());
        named.errors.push(v1::OffsetCommitError { topic, partition: commit.partition, error });
    }
    Ok(named)
}

/// The answer to a commit: what was refused of it.
pub(super) fn refusals(
    directory: &Directory,
    answered: Answered,
    mut errors: Vec<v1::OffsetCommitError>,
) -> Vec<v1::OffsetCommitError> {
    let Answered::Committed(refused) = answered else { return errors };
    errors.extend(refused.into_iter().map(|(partition, error)| v1::OffsetCommitError {
        topic: names::name(directory, partition.topic),
        partition: partition.partition,
        error: Some(error.into_log_error()),
    }));
    errors
}

impl Service {
    pub(super) async fn commit(
        &self,
        call: &Call,
        request: v1::CommitOffsetsRequest,
    ) -> Result<v1::CommitOffsetsResponse, Refused> {
        check::group(call, Verb::Consume, &request.group)?;
        let directory = self.groups.directory();
        let Named { offsets, errors } = named(&directory, &request.offsets)?;
        let member = Some((request.member_id, request.member_epoch)).filter(|(member, _)| !member.is_empty());
        let (count, before) = (offsets.len(), errors.len());
        let commit = Commit { group: request.group.clone(), member, offsets };
        let answered = self.groups.ask(&request.group, Request::Commit(commit)).await?;
        let errors = refusals(&directory, answered, errors);
        self.broker.metrics.groups.commits.inc_by(count.saturating_sub(errors.len() - before) as u64);
        Ok(v1::CommitOffsetsResponse { errors })
    }

    pub(super) async fn fetch(
        &self,
        call: &Call,
        request: v1::FetchOffsetsRequest,
    ) -> Result<v1::FetchOffsetsResponse, Refused> {
        check::group(call, Verb::Describe, &request.group)?;
        check::count("partitions", &request.partitions)?;
        let directory = self.groups.directory();
        let (mut wanted, mut unknown) = (Vec::new(), Vec::new());
        for asked in &request.partitions {
            match directory.named(&asked.topic) {
                Some(topic) => wanted
                    .extend(asked.partitions.iter().map(|&partition| TopicPartition { topic: topic.id, partition })),
                None => unknown.extend(asked.partitions.iter().map(|partition| {
                    let topic = asked.topic.get(..249).unwrap_or(&asked.topic).to_owned();
                    let error = Some(LookupError::UnknownTopic(topic.clone()).into_log_error());
                    v1::CommittedOffset { topic, partition: *partition, error, ..Default::default() }
                })),
            }
        }
        let partitions = (!request.partitions.is_empty()).then_some(wanted);
        let offsets = self.offsets(&request.group, partitions).await?;
        let mut offsets: Vec<_> = offsets.into_iter().map(|(p, offset)| committed(&directory, p, offset)).collect();
        offsets.extend(unknown);
        Ok(v1::FetchOffsetsResponse { offsets })
    }

    /// What a group has committed.
    async fn offsets(
        &self,
        group: &str,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, GroupsError> {
        let request = Request::FetchOffsets { group: group.to_owned(), partitions };
        match self.groups.ask(group, request).await? {
            Answered::Offsets(offsets) => Ok(offsets),
            _ => Ok(vec![]),
        }
    }

    pub(super) async fn reset(
        &self,
        call: &Call,
        request: v1::ResetOffsetsRequest,
    ) -> Result<v1::ResetOffsetsResponse, Refused> {
        check::group(call, Verb::Alter, &request.group)?;
        check::count("partitions", &request.partitions)?;
        let to = request.to.ok_or_else(|| {
            Refused::of(invalid("to", "say where to: earliest, latest, offset, timestamp_ms or shift_by"))
        })?;
        let directory = self.groups.directory();
        let wanted = chosen(&directory, &request.partitions)?;
        let is_chosen = wanted.is_some();
        let (mut changes, mut offsets) = (vec![], vec![]);
        for (id, before) in self.offsets(&request.group, wanted).await? {
            let Some(topic) = directory.topic_of(id) else { continue };
            let before = before.map(|before| before.offset);
            if before.is_none() && !is_chosen {
                continue;
            }
            let after = target(topic.partition(id.partition)?, &to, before).await?;
            let (topic, partition) = (topic.name.to_string(), id.partition);
            changes.push(v1::OffsetChange { topic, partition, before, after });
            let offset =
                CommittedOffset { offset: after, leader_epoch: None, metadata: String::new(), committed_at: 0 };
            offsets.push((id, offset));
        }
        changes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if !request.dry_run {
            let (group, force) = (request.group.clone(), request.force);
            self.groups.ask(&request.group, Request::Reset { group, offsets, force }).await?;
        }
        Ok(v1::ResetOffsetsResponse { changes })
    }
}

fn committed(directory: &Directory, partition: TopicPartition, offset: Option<CommittedOffset>) -> v1::CommittedOffset {
    let (topic, partition) = (names::name(directory, partition.topic), partition.partition);
    match offset {
        Some(found) => v1::CommittedOffset {
            topic,
            partition,
            offset: Some(found.offset),
            leader_epoch: found.leader_epoch,
            metadata: found.metadata,
            committed_at_ms: found.committed_at,
            error: None,
        },
        None => v1::CommittedOffset { topic, partition, error: Some(nothing()), ..Default::default() },
    }
}

/// Nothing is committed, which is not the same as 0 (C8).
pub(super) fn nothing() -> LogError {
    refusal(Reason::NoCommittedOffset, "the group has committed no offset for this partition")
}

/// The partitions that a reset names; `None`: none, which means all with a committed offset.
fn chosen(directory: &Directory, asked: &[v1::TopicPartitions]) -> Result<Option<Vec<TopicPartition>>, Refused> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut chosen = std::collections::BTreeSet::new();
    for named in asked {
        let unknown = || LookupError::UnknownTopic(named.topic.get(..249).unwrap_or(&named.topic).to_owned());
        let topic = directory.named(&named.topic).ok_or_else(unknown)?;
        let all = 0..topic.partitions.len() as i32;
        let partitions = if named.partitions.is_empty() { all.collect() } else { named.partitions.clone() };
        for partition in partitions {
            topic.partition(partition)?;
            chosen.insert(TopicPartition { topic: topic.id, partition });
        }
    }
    Ok(Some(chosen.into_iter().collect()))
}

/// Where a partition's offset goes.
async fn target(partition: &Partition, to: &To, before: Option<i64>) -> Result<i64, Refused> {
    let snapshot = partition.current().await?.snapshot;
    let (start, end) = (snapshot.log_start, snapshot.high_watermark);
    Ok(match to {
        To::Earliest(_) => start,
        To::Latest(_) => end,
        To::Offset(offset) => (*offset).clamp(start, end),
        To::TimestampMs(timestamp) => {
            let found = partition.list_offset(OffsetQuery::Timestamp(*timestamp), Isolation::ReadUncommitted).await?;
            found.offset.unwrap_or(end)
        }
        To::ShiftBy(by) => before.ok_or_else(|| Refused::of(nothing()))?.saturating_add(*by).clamp(start, end),
    })
}
