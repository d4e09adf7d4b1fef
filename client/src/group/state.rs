//! What a group's member owns, has handed out, and has committed, as a state machine.
//!
//! Pure: it is told what was assigned, handed out and committed, and answers what to let go of, take over and commit.
//!
//! What holds: nothing is committed that was not handed out; what [`finished`](GroupState::finished) gives was handed out
//! before the latest call of `next` (C9); a partition's committed offset never goes back by itself; after a loss nothing
//! of what was owned before is committed or handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use taffrail_proto::v1::OffsetCommit;

use super::rebalance::{RevokeCommit, TopicPartition};

/// An offset and the leader epoch of the record before it, where known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: i64,
    pub(super) epoch: Option<i32>,
}

/// A partition that the member owns.
#[derive(Debug)]
struct Owned {
    id: TopicPartition,
    /// Next to be handed out; `None`: nothing was handed out yet.
    handed_out: Option<Place>,
    /// As `handed_out` was when `next` was called last: the application is through with what is before.
    finished: Option<Place>,
    committed: Option<i64>,
    /// The application was told that it goes.
    announced: bool,
}

/// What to do about a new assignment, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// To be told to the application.
    pub(super) announce: Vec<TopicPartition>,
    /// To be committed if need be, and let go of.
    pub(super) revoke: Vec<TopicPartition>,
    /// To be taken over once the others are gone.
    pub(super) add: Vec<TopicPartition>,
}

type Name = (Arc<str>, i32);

fn name(partition: &TopicPartition) -> Name {
    (partition.topic.clone(), partition.partition)
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    owned: BTreeMap<Name, Owned>,
    /// Partitions of which something was handed out since `next` was called last.
    since_next: BTreeSet<Name>,
}

impl GroupState {
    /// All that it owns.
    pub(super) fn owned(&self) -> BTreeSet<TopicPartition> {
        self.owned.values().map(|o| o.id.clone()).collect()
    }

    pub(super) fn owns(&self, topic: &str, partition: i32) -> bool {
        self.owned.contains_key(&(topic.into(), partition))
    }

    /// What parts it from what it should own.
    pub(super) fn changes(&self, target: &BTreeSet<TopicPartition>) -> Changes {
        let gone = || self.owned.values().filter(|o| !target.contains(&o.id));
        let held = |p: &TopicPartition| self.owned.get(&name(p)).is_some_and(|o| o.id == *p);
        Changes {
            announce: gone().filter(|o| !o.announced).map(|o| o.id.clone()).collect(),
            revoke: gone().map(|o| o.id.clone()).collect(),
            add: target.iter().filter(|p| !held(p)).cloned().collect(),
        }
    }

    /// The application knows that these go.
    pub(super) fn announced(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(owned) = self.owned.get_mut(&name(partition)) {
                owned.announced = true;
            }
        }
    }

    /// It lets go of these.
    pub(super) fn released(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.owned.remove(&name(partition));
            self.since_next.remove(&name(partition));
        }
    }

    /// It was removed from the group: gives what it owned.
    pub(super) fn lost(&mut self) -> Vec<TopicPartition> {
        self.since_next.clear();
        std::mem::take(&mut self.owned).into_values().map(|o| o.id).collect()
    }

    /// It owns this one now, with what the group has committed.
    pub(super) fn assigned(&mut self, id: TopicPartition, committed: Option<i64>) {
        let owned = Owned { handed_out: None, finished: None, committed, announced: false, id };
        self.owned.insert(name(&owned.id), owned);
    }

    /// `next` was called: what was handed out before is finished.
    pub(super) fn next_called(&mut self) {
        for name in std::mem::take(&mut self.since_next) {
            if let Some(owned) = self.owned.get_mut(&name) {
                owned.finished = owned.handed_out;
            }
        }
    }

    /// The application gets everything of a partition before this place.
    pub(super) fn handed_out(&mut self, topic: &Arc<str>, partition: i32, place: Place) {
        let name = (topic.clone(), partition);
        if let Some(owned) = self.owned.get_mut(&name) {
            owned.handed_out = Some(place);
            self.since_next.insert(name);
        }
    }

    /// The application reads the partition from elsewhere: what it had is not what to commit any more.
    pub(super) fn sought(&mut self, topic: &str, partition: i32) {
        let name = (topic.into(), partition);
        if let Some(owned) = self.owned.get_mut(&name) {
            (owned.handed_out, owned.finished) = (None, None);
            self.since_next.remove(&name);
        }
    }

    /// Everything that was handed out and is not committed.
    pub(super) fn all(&self) -> Vec<OffsetCommit> {
        self.to_commit(|o| o.handed_out)
    }

    /// Everything that was handed out before the latest call of `next` and is not committed.
    pub(super) fn finished(&self) -> Vec<OffsetCommit> {
        self.to_commit(|o| o.finished)
    }

    fn to_commit(&self, place: impl Fn(&Owned) -> Option<Place>) -> Vec<OffsetCommit> {
        let due = self.owned.values().filter_map(|o| Some((o, place(o)?)));
        due.filter(|(o, place)| o.committed != Some(place.offset)).map(|(o, place)| commit(&o.id, place)).collect()
    }

    /// What to commit of partitions that go: what the application wants, and with `auto` what it has finished.
    pub(super) fn at_revoke(&self, gone: &[TopicPartition], wish: &RevokeCommit, auto: bool) -> Vec<OffsetCommit> {
        let place = |o: &Owned| {
            let key = (o.id.topic.to_string(), o.id.partition);
            let wished = wish.offsets.get(&key).map(|&offset| Place { offset, epoch: None });
            let handed_out = o.handed_out.filter(|_| wish.handed_out);
            wished.or(handed_out).or_else(|| o.finished.filter(|_| auto))
        };
        self.to_commit(|o| place(o).filter(|_| gone.contains(&o.id)))
    }

    /// These are committed.
    pub(super) fn committed(&mut self, offsets: &[OffsetCommit]) {
        for offset in offsets {
            if let Some(owned) = self.owned.get_mut(&(offset.topic.as_str().into(), offset.partition)) {
                owned.committed = Some(offset.offset);
            }
        }
    }
}

fn commit(id: &TopicPartition, place: Place) -> OffsetCommit {
    OffsetCommit {
        topic: id.topic.to_string(),
        partition: id.partition,
        offset: place.offset,
        leader_epoch: place.epoch,
        metadata: String::new(),
    }
}

#[cfg(test)]
mod tests;
