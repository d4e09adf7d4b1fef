//! A decision in the making: a copy of a group that its records are applied to one by one, so that each further step sees
//! what the steps before it have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assignor::{Candidate, assign};
use super::member::{Current, Profile};
use super::reconcile::{Step, next};
use super::records::{Change, Record, Standing};
use super::shard::{GroupShard, PlantedFault};
use super::state::Group;
use super::subscription::Resolver;
use super::timers::{OFFSETS_RETENTION, Timer};
use super::{Answer, Answered, Event, Membership, TopicPartition, TopicsView};
use crate::coordinator::{Effects, Env, TimerChange};

/// See the module.
pub(super) struct Draft<'a> {
    shard: &'a GroupShard,
    world: &'a TopicsView,
    log_millis: i64,
    id: Arc<str>,
    /// Copied when it is first changed.
    pub(super) group: Arc<Group>,
    records: Vec<Record>,
    timers: Vec<TimerChange<Timer>>,
    /// Members whose target changed, or who can take a partition now, or who are gone.
    concerned: BTreeSet<Arc<str>>,
}

impl<'a> Draft<'a> {
    /// Of a group as it is; an empty one if it is not there.
    pub(super) fn new(shard: &'a GroupShard, group: &str, env: &Env<'a, Arc<TopicsView>>) -> Self {
        let (id, group) = match shard.groups.get_key_value(group) {
            Some((id, group)) => (Arc::clone(id), Arc::clone(group)),
            None => (Arc::from(group), Arc::default()),
        };
        let (records, timers, concerned) = (vec![], vec![], BTreeSet::new());
        Self { shard, world: env.world, log_millis: env.log_millis, id, group, records, timers, concerned }
    }

    pub(super) fn apply(&mut self, change: Change) {
        Arc::make_mut(&mut self.group).replay(&change);
        self.keep(change);
    }

    /// A change that no further step depends on.
    pub(super) fn keep(&mut self, change: Change) {
        self.records.push(Record::Group { group: Arc::clone(&self.id), change });
    }

    /// Makes the group if it is not there. It has no members yet.
    pub(super) fn make(&mut self) {
        if !self.shard.groups.contains_key(&self.id) && self.records.is_empty() {
            self.emptied();
        }
    }

    /// An epoch that nobody has had.
    pub(super) fn new_epoch(&self) -> i32 {
        let Standing { epoch, last_epoch, .. } = self.group.standing;
        let highest = if self.shard.planted(PlantedFault::JoinEpochRepeats) { epoch } else { last_epoch };
        highest.saturating_add(1)
    }

    /// The group has no members from now on, or someone from outside has used it without.
    pub(super) fn emptied(&mut self) {
        self.stand(self.group.standing.epoch, self.group.standing.last_epoch);
    }

    fn stand(&mut self, epoch: i32, last_epoch: i32) {
        let timer = Timer::GroupExpires(Arc::clone(&self.id));
        let (was_empty, empty) = (self.group.standing.empty_since.is_some(), self.group.members.is_empty());
        self.apply(Change::Standing(Standing { epoch, last_epoch, empty_since: empty.then_some(self.log_millis) }));
        if empty {
            self.timers.push(TimerChange::Set(timer, OFFSETS_RETENTION));
        } else if was_empty {
            self.timers.push(TimerChange::Cancel(timer));
        }
    }

    /// Members, subscriptions or topics have changed: a new epoch with a new assignment.
    pub(super) fn retarget(&mut self) {
        let epoch = self.new_epoch();
        self.stand(epoch, epoch);
        let (topics, targets) = targets(&self.group, self.world, self.shard);
        if *self.group.topics != topics {
            self.apply(Change::Topics(Arc::new(topics)));
        }
        for (member, partitions) in targets {
            self.apply(Change::Target { member: Arc::clone(&member), partitions: Arc::new(partitions) });
            self.concerned.insert(Arc::clone(&member));
            self.take_from_away(&member);
        }
    }

    /// A member that is away holds nothing itself, so what it should not own any more is free at once.
    fn take_from_away(&mut self, id: &Arc<str>) {
        let member = Arc::clone(&self.group.members[id]);
        if !member.current.away || member.current.assigned.keys().all(|partition| member.target.contains(partition)) {
            return;
        }
        let mut current = member.current.clone();
        current.assigned.retain(|partition, _| member.target.contains(partition));
        self.set_current(id, current);
    }

    pub(super) fn set_profile(&mut self, member: &Arc<str>, profile: Profile) {
        self.apply(Change::Profile { member: Arc::clone(member), profile: Box::new(profile) });
    }

    /// A member that has just joined gets what is free of its target, all with this epoch.
    pub(super) fn admit(&mut self, id: &Arc<str>, epoch: i32) {
        let target = Arc::clone(&self.group.members[id].target);
        let free = target.iter().filter(|partition| self.may_take(partition));
        let assigned = free.map(|partition| (*partition, epoch)).collect();
        self.set_current(id, Current { epoch, joined: epoch, assigned, ..Current::default() });
        self.alive(id);
    }

    /// Nobody holds it (C6).
    fn may_take(&self, partition: &TopicPartition) -> bool {
        self.group.free(partition) || self.shard.planted(PlantedFault::OwnerNotFenced)
    }

    /// What becomes free concerns those who wait for it.
    pub(super) fn set_current(&mut self, id: &Arc<str>, current: Current) {
        let before: Vec<_> = self.group.members[id].current.held().copied().collect();
        self.apply(Change::Current { member: Arc::clone(id), current });
        self.freed(&before);
    }

    fn freed(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions.iter().filter(|partition| self.group.free(partition)) {
            let waiting = self.group.places.get(partition).and_then(|place| place.target.clone());
            self.concerned.extend(waiting);
        }
    }

    /// The member is gone; what it had is nobody's. A new assignment is the caller's to make.
    pub(super) fn remove(&mut self, id: &Arc<str>) {
        let before: Vec<_> = self.group.members[id].current.held().copied().collect();
        self.apply(Change::MemberRemoved { member: Arc::clone(id) });
        self.freed(&before);
        self.concerned.insert(Arc::clone(id));
        self.timers.push(TimerChange::Cancel(self.session_timer(id)));
        self.timers.push(TimerChange::Cancel(self.rebalance_timer(id)));
    }

    /// A static member leaves and will come back: what it holds waits for it, what it should not hold is free.
    pub(super) fn go_away(&mut self, id: &Arc<str>) {
        let member = Arc::clone(&self.group.members[id]);
        let mut current = Current { away: true, revoking: BTreeMap::new(), ..member.current.clone() };
        current.assigned.retain(|partition, _| member.target.contains(partition));
        self.set_current(id, current);
        self.timers.push(TimerChange::Cancel(self.rebalance_timer(id)));
        self.alive(id);
    }

    /// The member goes and another is about to take its place, with all that it had.
    pub(super) fn hand_over(&mut self, id: &Arc<str>) {
        self.apply(Change::MemberRemoved { member: Arc::clone(id) });
        self.timers.push(TimerChange::Cancel(self.session_timer(id)));
    }

    /// One step of a member towards its target. `owned`: said by itself at its present epoch.
    pub(super) fn reconcile(&mut self, id: &Arc<str>, owned: Option<&BTreeSet<TopicPartition>>) {
        let member = Arc::clone(&self.group.members[id]);
        let group_epoch = self.group.standing.epoch;
        let step = Step { current: &member.current, target: &member.target, group_epoch, owned };
        let Some(current) = next(&step, |partition| self.may_take(partition)) else { return };
        let (had, has) = (member.current.revoking.len(), current.revoking.len());
        let let_go = member.current.revoking.keys().any(|partition| !current.revoking.contains_key(partition));
        if has == 0 && had > 0 {
            self.timers.push(TimerChange::Cancel(self.rebalance_timer(id)));
        } else if has > 0 && (had == 0 || let_go) {
            self.timers.push(TimerChange::Set(self.rebalance_timer(id), member.profile.rebalance_timeout));
        }
        self.set_current(id, current);
    }

    /// The member is alive.
    pub(super) fn alive(&mut self, id: &Arc<str>) {
        let timeout = self.group.members[id].profile.session_timeout;
        self.timers.push(TimerChange::Set(self.session_timer(id), timeout));
    }

    fn session_timer(&self, member: &Arc<str>) -> Timer {
        Timer::Session { group: Arc::clone(&self.id), member: Arc::clone(member) }
    }

    fn rebalance_timer(&self, member: &Arc<str>) -> Timer {
        Timer::Rebalance { group: Arc::clone(&self.id), member: Arc::clone(member) }
    }

    /// Answers a member with where it stands.
    pub(super) fn membership(self, id: &str) -> Effects<GroupShard> {
        let answer = self.group.member(id).map(|member| {
            let assigned = member.current.assigned.keys().copied().collect();
            let revoking = member.current.revoking.keys().copied().collect();
            let (heartbeat_interval, session_timeout) = (member.heartbeat_interval(), member.profile.session_timeout);
            let epoch = member.current.epoch;
            Ok(Answered::Membership(Membership { epoch, assigned, revoking, heartbeat_interval, session_timeout }))
        });
        self.finish(answer, Some(id))
    }

    /// `asking`: the member that gets the answer and needs no event.
    pub(super) fn finish(mut self, answer: Option<Answer>, asking: Option<&str>) -> Effects<GroupShard> {
        if let Some(asking) = asking {
            self.concerned.remove(asking);
        }
        let members: Vec<String> = self.concerned.iter().map(ToString::to_string).collect();
        let events = if members.is_empty() { vec![] } else { vec![Event { group: self.id.to_string(), members }] };
        Effects { records: self.records, answer, timers: self.timers, events, ..Effects::default() }
    }
}

type Targets = Vec<(Arc<str>, BTreeSet<TopicPartition>)>;

/// What members subscribe to, and the targets that change.
fn targets(group: &Group, world: &TopicsView, shard: &GroupShard) -> (BTreeMap<uuid::Uuid, i32>, Targets) {
    let mut resolver = Resolver::new(world, &shard.patterns);
    let candidates: Vec<Candidate<'_>> = group
        .members
        .iter()
        .map(|(id, member)| Candidate {
            member: id,
            instance: member.profile.instance.as_ref(),
            topics: resolver.topics(&member.profile.subscription),
            target: &member.target,
        })
        .collect();
    let topics = resolver.known_topics();
    let assigned = assign(group.assignor(), &candidates, &topics);
    let changed = candidates.iter().zip(assigned).filter(|(candidate, target)| candidate.target != target);
    let targets = changed.map(|(candidate, target)| (Arc::clone(candidate.member), target)).collect();
    (topics, targets)
}

/// Topics that a group's members subscribe to and that are there, with their numbers of partitions.
pub(super) fn subscribed(group: &Group, world: &TopicsView, shard: &GroupShard) -> BTreeMap<uuid::Uuid, i32> {
    let mut resolver = Resolver::new(world, &shard.patterns);
    for member in group.members.values() {
        resolver.topics(&member.profile.subscription);
    }
    resolver.known_topics()
}
