//! ListGroups, DescribeGroup, DeleteGroup.

use std::collections::{BTreeMap, BTreeSet};

use taffrail_proto::v1;

use super::forward::Coordinator;
use super::{Service, check, names};
use crate::coordinator::group::{
    Answered, AssignorName, CommittedOffset, GroupDescription, MemberDescription, Request, TopicPartition,
};
use crate::coordinator::groups::Directory;
use crate::partition::Current;
use crate::peers::Purpose;
use crate::security::{self, Resource, Verb};
use crate::service::call::Call;
use crate::service::status::{Refused, invalid};

impl Service {
    pub(super) async fn list(
        &self,
        call: &Call,
        request: v1::ListGroupsRequest,
    ) -> Result<v1::ListGroupsResponse, Refused> {
        if request.states.len() > 10 {
            return Err(Refused::of(invalid("states", format_args!("at most 10, not {}", request.states.len()))));
        }
        let mut groups = Vec::new();
        for answered in self.groups.ask_all(&Request::List).await? {
            let Answered::Groups(summaries) = answered else { continue };
            groups.extend(summaries.into_iter().map(names::summary));
        }
        if !call.is_forwarded() {
            groups.extend(self.listed_elsewhere(call, &request).await?);
        }
        groups.retain(|group: &v1::GroupSummary| {
            let may_see = security::authorize(&call.caller, Verb::Describe, Resource::Group(&group.group)).is_ok();
            let wanted = request.states.is_empty() || request.states.contains(&group.state);
            may_see && wanted && group.group.starts_with(&request.prefix)
        });
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let bytes = groups.iter().map(|group| group.group.len() + 64).sum();
        call.outbox.put(call.connection.responses.charge(bytes).await);
        Ok(v1::ListGroupsResponse { groups })
    }

    /// What the coordinators at other brokers list.
    async fn listed_elsewhere(
        &self,
        call: &Call,
        request: &v1::ListGroupsRequest,
    ) -> Result<Vec<v1::GroupSummary>, Refused> {
        let lists = self.groups.others()?.into_iter().map(async |broker| {
            let coordinators = Coordinator::at(&self.broker, broker, Purpose::Control)?;
            let listed = coordinators.client().list_groups(call.forward(request.clone())).await;
            Ok::<_, Refused>(coordinators.answer(listed)?.groups)
        });
        Ok(futures::future::try_join_all(lists).await?.into_iter().flatten().collect())
    }

    pub(super) async fn describe(
        &self,
        call: &Call,
        request: v1::DescribeGroupRequest,
    ) -> Result<v1::DescribeGroupResponse, Refused> {
        check::group(call, Verb::Describe, &request.group)?;
        let answered = self.groups.ask(&request.group, Request::Describe(request.group.clone())).await?;
        let Answered::Group(group) = answered else { return Ok(v1::DescribeGroupResponse::default()) };
        let me = self.broker.brokers.me();
        let response = description(&self.groups.directory(), *group, me).await;
        call.outbox.put(call.connection.responses.charge(prost::Message::encoded_len(&response)).await);
        Ok(response)
    }

    pub(super) async fn delete(
        &self,
        call: &Call,
        request: v1::DeleteGroupRequest,
    ) -> Result<v1::DeleteGroupResponse, Refused> {
        check::group(call, Verb::Delete, &request.group)?;
        self.groups.ask(&request.group, Request::Delete(request.group.clone())).await?;
        Ok(v1::DeleteGroupResponse {})
    }
}

async fn description(directory: &Directory, group: GroupDescription, coordinator: i32) -> v1::DescribeGroupResponse {
    let assignor = match group.assignor {
        AssignorName::Uniform => "uniform",
        AssignorName::Range => "range",
    };
    v1::DescribeGroupResponse {
        partitions: partitions(directory, &group).await,
        summary: Some(names::summary(group.summary)),
        assignor: assignor.to_owned(),
        assignment_epoch: group.assignment_epoch,
        members: group.members.into_iter().map(|found| member(directory, found)).collect(),
        coordinator,
    }
}

fn member(directory: &Directory, member: MemberDescription) -> v1::GroupMember {
    v1::GroupMember {
        assigned: names::by_topic(directory, &member.assigned),
        revoking: names::by_topic(directory, &member.revoking),
        target: names::by_topic(directory, &member.target),
        member_id: member.member,
        instance_id: member.instance.unwrap_or_default(),
        client_id: member.client_id,
        client_host: member.client_host,
        rack: member.rack.unwrap_or_default(),
        member_epoch: member.epoch,
        subscription: Some(names::subscription(member.subscription)),
    }
}

/// Every partition that is assigned or has a committed offset.
async fn partitions(directory: &Directory, group: &GroupDescription) -> Vec<v1::GroupPartition> {
    let owners: BTreeMap<TopicPartition, &str> = group
        .members
        .iter()
        .flat_map(|member| member.revoking.iter().chain(&member.assigned).map(|p| (*p, member.member.as_str())))
        .collect();
    let committed: BTreeMap<TopicPartition, &CommittedOffset> = group.offsets.iter().map(|(p, o)| (*p, o)).collect();
    let all: BTreeSet<TopicPartition> = owners.keys().chain(committed.keys()).copied().collect();
    let partitions = all.into_iter().map(async |id| {
        let committed = committed.get(&id).map(|offset| offset.offset);
        let (high_watermark, lag) = lag(directory, id, committed).await;
        v1::GroupPartition {
            topic: names::name(directory, id.topic),
            topic_id: id.topic.to_string(),
            partition: id.partition,
            committed,
            high_watermark,
            lag,
            member_id: owners.get(&id).map_or_else(String::new, |owner| (*owner).to_owned()),
        }
    });
    let mut partitions = futures::future::join_all(partitions).await;
    partitions.sort_by(|a, b| (&a.topic, &a.topic_id, a.partition).cmp(&(&b.topic, &b.topic_id, b.partition)));
    partitions
}

/// A partition's high watermark, and the records between it and what is committed: from the log's start where nothing is, or
/// where it is gone. Both 0 for a partition that is gone, or whose leader does not answer.
pub(super) async fn lag(directory: &Directory, partition: TopicPartition, committed: Option<i64>) -> (i64, i64) {
    let Some(topic) = directory.topic_of(partition) else { return (0, 0) };
    let Ok(partition) = topic.partition(partition.partition) else { return (0, 0) };
    let Ok(Current { snapshot, .. }) = partition.current().await else { return (0, 0) };
    let from = committed.unwrap_or(snapshot.log_start).max(snapshot.log_start);
    (snapshot.high_watermark, (snapshot.high_watermark - from).max(0))
}
