//! A group's state. Changed by replay alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::assignor::elect;
use super::member::{Current, Member, Profile};
use super::records::{Change, Record, Standing};
use super::{AssignorName, CommittedOffset, GroupState, TopicPartition};

/// Committed offsets by topic and partition. Each topic's are shared with snapshots until they change.
pub(super) type Offsets = BTreeMap<Uuid, Arc<BTreeMap<i32, CommittedOffset>>>;

/// Who has a partition, and who should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Who owns it, or was asked to let go of it: nobody else gets it (C6).
    pub(super) owner: Option<Arc<str>>,
    /// Who should own it in the end.
    pub(super) target: Option<Arc<str>>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) standing: Standing,
    /// What members subscribe to, as it was when the assignment was made.
    pub(super) topics: Arc<BTreeMap<Uuid, i32>>,
    pub(super) members: BTreeMap<Arc<str>, Arc<Member>>,
    pub(super) offsets: Offsets,
    /// Member of each instance. Follows from `members`.
    pub(super) instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Partitions that are someone's or should be. Follows from `members`.
    pub(super) places: BTreeMap<TopicPartition, Place>,
}

impl Group {
    pub(super) fn member(&self, member: &str) -> Option<&Member> {
        self.members.get(member).map(Arc::as_ref)
    }

    /// Nobody holds the partition.
    pub(super) fn free(&self, partition: &TopicPartition) -> bool {
        self.places.get(partition).is_none_or(|place| place.owner.is_none())
    }

    pub(super) fn offset(&self, partition: &TopicPartition) -> Option<&CommittedOffset> {
        self.offsets.get(&partition.topic)?.get(&partition.partition)
    }

    pub(super) fn offsets(&self) -> impl Iterator<Item = (TopicPartition, &CommittedOffset)> {
        self.offsets.iter().flat_map(|(&topic, offsets)| {
            offsets.iter().map(move |(&partition, offset)| (TopicPartition { topic, partition }, offset))
        })
    }

    /// What most members ask for.
    pub(super) fn assignor(&self) -> AssignorName {
        elect(self.members.values().map(|member| member.profile.assignor))
    }

    pub(super) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.members.values().all(|member| member.settled()) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Applies a change. One that makes no sense changes nothing.
    pub(super) fn replay(&mut self, change: &Change) {
        match change {
            Change::Standing(standing) => self.standing = standing.clone(),
            Change::Removed => *self = Self::default(),
            Change::Topics(topics) => self.topics = Arc::clone(topics),
            Change::Profile { member, profile } => self.replay_profile(member, profile),
            Change::Target { member, partitions } => self.replay_target(member, partitions),
            Change::Current { member, current } => self.replay_current(member, current),
            Change::MemberRemoved { member } => self.replay_removed(member),
            Change::Offset { partition, offset } => {
                let offsets = self.offsets.entry(partition.topic).or_default();
                Arc::make_mut(offsets).insert(partition.partition, offset.clone());
            }
        }
    }

    fn replay_profile(&mut self, id: &Arc<str>, profile: &Profile) {
        let mut profile = profile.clone();
        if let Some(alike) = self.members.values().next()
            && alike.profile.subscription == profile.subscription
        {
            profile.subscription = Arc::clone(&alike.profile.subscription);
        }
        let before = self.members.get(id).and_then(|member| member.profile.instance.clone());
        if let Some(before) = before.filter(|before| self.instances.get(before) == Some(id)) {
            self.instances.remove(&before);
        }
        if let Some(instance) = &profile.instance {
            self.instances.insert(Arc::clone(instance), Arc::clone(id));
        }
        if let Some(member) = self.members.get_mut(id) {
            Arc::make_mut(member).profile = profile;
        } else {
            let member = Member { profile, target: Arc::default(), current: Current::default() };
            self.members.insert(Arc::clone(id), Arc::new(member));
        }
    }

    fn replay_target(&mut self, id: &Arc<str>, partitions: &Arc<BTreeSet<TopicPartition>>) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut Arc::make_mut(member).target, Arc::clone(partitions));
        for partition in before.iter().filter(|partition| !partitions.contains(partition)) {
            vacate(&mut self.places, partition, id, |place| &mut place.target);
        }
        for partition in partitions.iter() {
            self.places.entry(*partition).or_default().target = Some(Arc::clone(id));
        }
    }

    fn replay_current(&mut self, id: &Arc<str>, current: &Current) {
        let Some(member) = self.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut Arc::make_mut(member).current, current.clone());
        self.standing.last_epoch = self.standing.last_epoch.max(current.epoch);
        for partition in before.held().filter(|partition| current.assignment_epoch(partition).is_none()) {
            vacate(&mut self.places, partition, id, |place| &mut place.owner);
        }
        for partition in current.held().filter(|partition| before.assignment_epoch(partition).is_none()) {
            self.places.entry(*partition).or_default().owner = Some(Arc::clone(id));
        }
    }

    fn replay_removed(&mut self, id: &Arc<str>) {
        let Some(member) = self.members.remove(id) else { return };
        for partition in member.current.held() {
            vacate(&mut self.places, partition, id, |place| &mut place.owner);
        }
        for partition in member.target.iter() {
            vacate(&mut self.places, partition, id, |place| &mut place.target);
        }
        if let Some(instance) = &member.profile.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
    }

    /// The whole group as records.
    pub(super) fn records(&self, group: &Arc<str>) -> Vec<Record> {
        let mut changes = vec![Change::Standing(self.standing.clone())];
        if !self.topics.is_empty() {
            changes.push(Change::Topics(Arc::clone(&self.topics)));
        }
        for (id, member) in &self.members {
            let id = || Arc::clone(id);
            changes.push(Change::Profile { member: id(), profile: Box::new(member.profile.clone()) });
            changes.push(Change::Target { member: id(), partitions: Arc::clone(&member.target) });
            changes.push(Change::Current { member: id(), current: member.current.clone() });
        }
        let offsets = self.offsets();
        changes.extend(offsets.map(|(partition, offset)| Change::Offset { partition, offset: offset.clone() }));
        changes.into_iter().map(|change| Record::Group { group: Arc::clone(group), change }).collect()
    }
}

/// The partition is not the member's any more, if it was.
fn vacate(
    places: &mut BTreeMap<TopicPartition, Place>,
    partition: &TopicPartition,
    member: &Arc<str>,
    side: impl Fn(&mut Place) -> &mut Option<Arc<str>>,
) {
    let Some(place) = places.get_mut(partition) else { return };
    let mine = side(place);
    if mine.as_ref() == Some(member) {
        *mine = None;
    }
    if *place == Place::default() {
        places.remove(partition);
    }
}
