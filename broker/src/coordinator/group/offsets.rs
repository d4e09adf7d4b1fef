//! Committed offsets.
//!
//! They belong to a topic's identity, so a topic that is made anew under a name starts without. Those of a topic that is gone
//! stay for [`OFFSETS_RETENTION`](super::timers::OFFSETS_RETENTION), so that one that is brought back has them still; those
//! of a group with members never expire otherwise, those of a group without for as long (C10).

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::draft::Draft;
use super::member::Member;
use super::records::{Change, Record};
use super::shard::{GroupShard, PlantedFault};
use super::state::Group;
use super::{Answered, Commit, CommittedOffset, GroupError, TopicPartition, TopicsView};
use crate::coordinator::{Effects, Env};

type Decision = Result<Effects<GroupShard>, GroupError>;
type World<'a> = Env<'a, Arc<TopicsView>>;

impl GroupShard {
    /// Each partition for itself: what may be committed is kept, the rest is named in the answer.
    pub(super) fn commit(&self, commit: Commit, env: &World<'_>) -> Decision {
        let Commit { group, member, offsets } = commit;
        let committer = match &member {
            None => {
                self.without_members(&group)?;
                None
            }
            Some(_) if self.planted(PlantedFault::CommitFromFenced) => None,
            Some((member, epoch)) => Some((self.speaking(&group, member, *epoch)?.1, member.as_str(), *epoch)),
        };
        let mut draft = Draft::new(self, &group, env);
        if member.is_none() {
            draft.emptied();
        }
        let there = There::new(self.groups.get(group.as_str()).map(Arc::as_ref), env.world);
        let mut refused = vec![];
        for (partition, offset) in offsets {
            match allowed(&partition, committer, &there) {
                Ok(()) => draft.keep(kept(partition, offset, env)),
                Err(error) => refused.push((partition, error)),
            }
        }
        Ok(draft.finish(Some(Ok(Answered::Committed(refused))), None))
    }

    fn without_members(&self, group: &str) -> Result<(), GroupError> {
        match self.groups.get(group).map_or(0, |group| group.members.len()) {
            0 => Ok(()),
            members => Err(GroupError::NotEmpty { group: group.to_owned(), members }),
        }
    }

    /// A group that is not there has committed nothing (C8).
    pub(super) fn fetch_offsets(&self, group: &str, partitions: Option<Vec<TopicPartition>>) -> Effects<Self> {
        let group = self.groups.get(group);
        let offsets = match partitions {
            Some(partitions) => partitions
                .into_iter()
                .map(|partition| (partition, group.and_then(|group| group.offset(&partition)).cloned()))
                .collect(),
            None => group
                .iter()
                .flat_map(|group| group.offsets())
                .map(|(partition, offset)| (partition, Some(offset.clone())))
                .collect(),
        };
        Effects::answer(Ok(Answered::Offsets(offsets)))
    }

    pub(super) fn reset(
        &self,
        group: &str,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
        force: bool,
        env: &World<'_>,
    ) -> Decision {
        if !force {
            self.without_members(group)?;
        }
        let there = There::new(None, env.world);
        for (partition, _) in &offsets {
            allowed(partition, None, &there)?;
        }
        let mut draft = Draft::new(self, group, env);
        if draft.group.members.is_empty() {
            draft.emptied();
        }
        for (partition, offset) in offsets {
            draft.keep(kept(partition, offset, env));
        }
        Ok(draft.finish(Some(Ok(Answered::Done)), None))
    }

    pub(super) fn delete(&self, group: &str) -> Decision {
        self.group(group)?;
        self.without_members(group)?;
        let (id, _) = self.groups.get_key_value(group).expect("the group is there");
        let record = Record::Group { group: Arc::clone(id), change: Change::Removed };
        Ok(Effects { records: vec![record], ..Effects::answer(Ok(Answered::Done)) })
    }
}

fn kept(partition: TopicPartition, offset: CommittedOffset, env: &World<'_>) -> Change {
    Change::Offset { partition, offset: CommittedOffset { committed_at: env.wall_millis, ..offset } }
}

/// Which partitions there are: asks the topics that the group subscribes to, and only then all.
struct There<'a> {
    group: Option<&'a Group>,
    world: &'a TopicsView,
    all: OnceCell<BTreeMap<Uuid, i32>>,
}

impl<'a> There<'a> {
    fn new(group: Option<&'a Group>, world: &'a TopicsView) -> Self {
        Self { group, world, all: OnceCell::new() }
    }

    fn all(&self) -> &BTreeMap<Uuid, i32> {
        let topics = self.world.topics.values();
        self.all.get_or_init(|| topics.map(|topic| (topic.id, topic.partitions)).collect())
    }

    fn contains(&self, partition: &TopicPartition) -> bool {
        let known = self.group.and_then(|group| group.topics.get(&partition.topic));
        let known = known.or_else(|| self.all().get(&partition.topic));
        known.is_some_and(|partitions| (0..*partitions).contains(&partition.partition))
    }
}

/// The partition is there, and the member got it no later than at the epoch it speaks with (C5).
fn allowed(
    partition: &TopicPartition,
    committer: Option<(&Member, &str, i32)>,
    there: &There<'_>,
) -> Result<(), GroupError> {
    if !there.contains(partition) {
        return Err(GroupError::UnknownPartition);
    }
    let Some((member, id, epoch)) = committer else { return Ok(()) };
    match member.current.assignment_epoch(partition) {
        Some(since) if since <= epoch => Ok(()),
        _ => Err(GroupError::StaleEpoch { member: id.to_owned(), epoch }),
    }
}
