//! Groups as people see them.

use std::sync::Arc;

use super::member::Member;
use super::membership::AWAY;
use super::shard::GroupShard;
use super::state::Group;
use super::{Answered, GroupDescription, GroupError, GroupSummary, MemberDescription};
use crate::coordinator::Effects;

impl GroupShard {
    pub(super) fn list(&self) -> Effects<Self> {
        let groups = self.groups.iter().map(|(id, group)| summary(id, group)).collect();
        Effects::answer(Ok(Answered::Groups(groups)))
    }

    pub(super) fn describe(&self, id: &str) -> Result<Effects<Self>, GroupError> {
        let group = self.group(id)?;
        let description = GroupDescription {
            summary: summary(id, group),
            assignor: group.assignor(),
            assignment_epoch: group.standing.epoch,
            members: group.members.iter().map(|(id, member)| describe(id, member)).collect(),
            offsets: group.offsets().map(|(partition, offset)| (partition, offset.clone())).collect(),
        };
        Ok(Effects::answer(Ok(Answered::Group(Box::new(description)))))
    }
}

fn summary(id: &str, group: &Group) -> GroupSummary {
    let (state, members) = (group.state(), group.members.len());
    GroupSummary { group: id.to_owned(), state, members, epoch: group.standing.epoch }
}

fn describe(id: &Arc<str>, member: &Member) -> MemberDescription {
    let Member { profile, target, current } = member;
    MemberDescription {
        member: id.to_string(),
        instance: profile.instance.as_deref().map(str::to_owned),
        client_id: profile.client_id.clone(),
        client_host: profile.client_host.to_string(),
        rack: profile.rack.clone(),
        epoch: if current.away { AWAY } else { current.epoch },
        subscription: profile.subscription.as_ref().clone(),
        assigned: current.assigned.keys().copied().collect(),
        revoking: current.revoking.keys().copied().collect(),
        target: target.as_ref().clone(),
    }
}
