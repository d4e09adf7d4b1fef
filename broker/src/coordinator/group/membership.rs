//! Joining, staying, leaving.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draft::Draft;
use super::member::{Current, Member, Profile};
use super::records::Change;
use super::shard::{GroupShard, PlantedFault};
use super::{Answered, GroupError, Heartbeat, Join, TopicPartition, TopicsView};
use crate::coordinator::{Effects, Env};

/// A group has at most so many members.
pub const MAX_MEMBERS: usize = 10_000;

/// Epoch of a static member that is away, as it is shown.
pub(super) const AWAY: i32 = -2;

type Decision = Result<Effects<GroupShard>, GroupError>;
type World<'a> = Env<'a, Arc<TopicsView>>;

impl GroupShard {
    /// The member with this epoch, if it may speak with it: any epoch since it joined. An older one than its present epoch
    /// means that an answer was lost; what it owns it owns still.
    pub(super) fn speaking(&self, group: &str, member: &str, epoch: i32) -> Result<(&Arc<str>, &Member), GroupError> {
        let group_state = self.groups.get(group);
        let Some((id, state)) = group_state.and_then(|group| group.members.get_key_value(member)) else {
            return Err(GroupError::UnknownMember { group: group.to_owned(), member: member.to_owned() });
        };
        let Current { epoch: known, joined, away, .. } = state.current;
        if away || !(joined..=known).contains(&epoch) {
            return Err(fenced(member, epoch, state));
        }
        Ok((id, state))
    }

    pub(super) fn join(&self, join: &Join, env: &World<'_>) -> Decision {
        if join.epoch != 0 {
            return self.resume(join, env);
        }
        if let Some(state) = self.member(&join.group, &join.member) {
            if state.profile.instance.as_deref() != join.instance.as_deref() {
                return Err(fenced(&join.member, join.epoch, state));
            }
            // Otherwise the answer to its join was lost. It keeps what it has until it says that it does not own it.
            if !state.current.away {
                return Ok(self.update(join, None, env));
            }
        }
        let held = join.instance.as_deref().and_then(|instance| self.holder(&join.group, instance));
        match held {
            Some((_, state)) if state.current.away => Ok(self.replace(join, env)),
            Some((member, _)) => {
                let instance = join.instance.clone().unwrap_or_default();
                Err(GroupError::InstanceInUse { instance, member: member.to_string() })
            }
            None => self.join_new(join, env),
        }
    }

    fn holder(&self, group: &str, instance: &str) -> Option<(&Arc<str>, &Arc<Member>)> {
        let group = self.groups.get(group)?;
        group.members.get_key_value(group.instances.get(instance)?)
    }

    fn join_new(&self, join: &Join, env: &World<'_>) -> Decision {
        let members = self.groups.get(join.group.as_str()).map_or(0, |group| group.members.len());
        if members >= MAX_MEMBERS {
            return Err(GroupError::Full { group: join.group.clone(), members });
        }
        let id: Arc<str> = Arc::from(join.member.as_str());
        let mut draft = Draft::new(self, &join.group, env);
        draft.make();
        draft.set_profile(&id, Profile::of(join));
        draft.retarget();
        draft.admit(&id, draft.group.standing.epoch);
        Ok(draft.membership(&id))
    }

    /// A static member is back, as another process: it takes the place of the one that left, and nothing moves.
    fn replace(&self, join: &Join, env: &World<'_>) -> Effects<Self> {
        let mut draft = Draft::new(self, &join.group, env);
        let old = join.instance.as_deref().and_then(|instance| draft.group.instances.get(instance)).cloned();
        let old = old.expect("the caller found the instance");
        let before = Arc::clone(&draft.group.members[&old]);
        let id: Arc<str> = Arc::from(join.member.as_str());
        draft.hand_over(&old);
        let profile = Profile::of(join);
        let changed = wants_else(&before.profile, &profile);
        draft.set_profile(&id, profile);
        draft.apply(Change::Target { member: Arc::clone(&id), partitions: Arc::clone(&before.target) });
        if changed {
            draft.retarget();
        }
        draft.admit(&id, draft.new_epoch());
        draft.membership(&id)
    }

    fn resume(&self, join: &Join, env: &World<'_>) -> Decision {
        let (_, state) = self.speaking(&join.group, &join.member, join.epoch)?;
        let own = |partition| state.current.assignment_epoch(partition).is_some();
        if state.profile.instance.as_deref() != join.instance.as_deref() || !join.owned.iter().all(own) {
            return Err(fenced(&join.member, join.epoch, state));
        }
        let is_present = join.epoch == state.current.epoch || self.planted(PlantedFault::LateResumeLetsGo);
        Ok(self.update(join, is_present.then_some(&join.owned), env))
    }

    /// A member that is there says again who it is and what it wants.
    fn update(&self, join: &Join, owned: Option<&BTreeSet<TopicPartition>>, env: &World<'_>) -> Effects<Self> {
        let mut draft = Draft::new(self, &join.group, env);
        let (id, before) =
            draft.group.members.get_key_value(join.member.as_str()).expect("the caller found the member");
        let (id, before, profile) = (Arc::clone(id), Arc::clone(before), Profile::of(join));
        let changed = wants_else(&before.profile, &profile);
        if before.profile != profile {
            draft.set_profile(&id, profile);
        }
        if changed {
            draft.retarget();
        }
        draft.reconcile(&id, owned);
        draft.alive(&id);
        draft.membership(&id)
    }

    pub(super) fn heartbeat(&self, heartbeat: &Heartbeat, env: &World<'_>) -> Decision {
        let Heartbeat { group, member, epoch, owned, subscription } = heartbeat;
        let (id, state) = self.speaking(group, member, *epoch)?;
        let owned = owned.as_ref().filter(|_| *epoch == state.current.epoch);
        let mut draft = Draft::new(self, group, env);
        if let Some(subscription) = subscription
            && *subscription != *state.profile.subscription
        {
            let subscription = Arc::new(subscription.clone());
            draft.set_profile(id, Profile { subscription, ..state.profile.clone() });
            draft.retarget();
        }
        draft.reconcile(id, owned);
        draft.alive(id);
        Ok(draft.membership(id))
    }

    pub(super) fn refresh(&self, group: &str, member: &str, epoch: i32, env: &World<'_>) -> Decision {
        let (id, _) = self.speaking(group, member, epoch)?;
        let mut draft = Draft::new(self, group, env);
        draft.reconcile(id, None);
        Ok(draft.membership(id))
    }

    pub(super) fn leave(&self, group: &str, member: &str, epoch: i32, returning: bool, env: &World<'_>) -> Decision {
        let (id, state) = self.speaking(group, member, epoch)?;
        let mut draft = Draft::new(self, group, env);
        if returning && state.profile.instance.is_some() {
            draft.go_away(id);
        } else {
            draft.remove(id);
            draft.retarget();
        }
        Ok(draft.finish(Some(Ok(Answered::Done)), Some(member)))
    }
}

/// Does the assignment depend on what is different?
fn wants_else(before: &Profile, after: &Profile) -> bool {
    before.subscription != after.subscription || before.assignor != after.assignor
}

fn fenced(member: &str, epoch: i32, state: &Member) -> GroupError {
    let known = if state.current.away { AWAY } else { state.current.epoch };
    GroupError::Fenced { member: member.to_owned(), epoch, known }
}
