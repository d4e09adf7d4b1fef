//! What the records in the log say, judged by the rules and by nothing of the broker's code but their meaning.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use taffrail_broker::coordinator::group::{
    Change, CommittedOffset, Current, Heartbeat, Record, Request, TopicPartition,
};
use uuid::Uuid;

use super::counts::{Counts, Seen};

/// Who sent a commit. Each commit has an offset of its own, by which its record is known.
#[derive(Clone, Debug)]
pub(crate) enum Committer {
    Member(String, i32),
    Outside,
    /// May commit whatever there is.
    Reset,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<String, Current>,
    pub(crate) targets: BTreeMap<String, BTreeSet<TopicPartition>>,
    pub(crate) offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// Highest epoch that a member has had.
    highest: i32,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) groups: BTreeMap<String, Group>,
    /// Commits that were sent, by their offsets.
    pub(crate) sent: HashMap<i64, Committer>,
    /// Commits that are in the log: partition and offset.
    pub(crate) kept: HashSet<(String, TopicPartition, i64)>,
    /// Members that asked to leave: when they go it is not for a timeout.
    pub(crate) leaving: HashSet<String>,
    /// So much time passes that groups expire.
    pub(crate) expiring: bool,
    /// How often groups or offsets were removed.
    pub(crate) removals: u32,
    /// What members have let go of by the records since this was last looked at: group, member, partition.
    pub(crate) released: Vec<(String, String, TopicPartition)>,
}

impl Model {
    /// The member is in the group, in the life that it had this epoch in, and has not left.
    pub(crate) fn is_current(&self, group: &str, member: &str, epoch: i32) -> bool {
        let current = self.groups.get(group).and_then(|group| group.members.get(member));
        current.is_some_and(|current| !current.away && current.joined <= epoch)
    }

    /// A heartbeat, or a resuming join, from before its member was asked to let go of something that it does not name.
    pub(crate) fn is_late_release(&self, request: &Request) -> bool {
        let (group, member, epoch, owned) = match request {
            Request::Heartbeat(Heartbeat { group, member, epoch, owned: Some(owned), .. }) => {
                (group, member, epoch, owned)
            }
            Request::Join(join) => (&join.group, &join.member, &join.epoch, &join.owned),
            _ => return false,
        };
        let current = self.groups.get(group).and_then(|group| group.members.get(member));
        current.is_some_and(|current| {
            (current.joined..current.epoch).contains(epoch)
                && current.revoking.keys().any(|partition| !owned.contains(partition))
        })
    }

    /// A record is in the log.
    pub(crate) fn replay(&mut self, record: &Record, counts: &mut Counts) {
        match record {
            Record::Group { group, change } => self.change(group, change, counts),
            Record::TopicGone { .. } => {}
            Record::TopicForgotten { topic } => self.forget(*topic, counts),
        }
    }

    fn forget(&mut self, topic: Uuid, counts: &mut Counts) {
        counts.saw(Seen::TopicForgotten);
        self.removals += 1;
        for group in self.groups.values_mut() {
            group.offsets.retain(|partition, _| partition.topic != topic);
        }
    }

    fn change(&mut self, id: &str, change: &Change, counts: &mut Counts) {
        if matches!(change, Change::Removed) {
            let group = self.groups.remove(id).expect("only a group that is there can go");
            assert!(group.members.is_empty(), "C10: a group with members was removed");
            counts.saw(if self.expiring { Seen::GroupExpired } else { Seen::GroupDeleted });
            self.removals += 1;
            return;
        }
        if !self.groups.contains_key(id) {
            self.groups.insert(id.to_owned(), Group::default());
        }
        let group = self.groups.get_mut(id).expect("it was made");
        match change {
            Change::Current { member, current } => {
                let released = group.hold(member, current, counts);
                let of = |partition| (id.to_owned(), member.to_string(), partition);
                self.released.extend(released.into_iter().map(of));
            }
            Change::MemberRemoved { member } => {
                let current = group.members.remove(&**member).expect("only a member that is there can go");
                group.targets.remove(&**member);
                if !self.leaving.contains(&**member) && !current.away {
                    let held_on = !current.revoking.is_empty();
                    counts.saw(if held_on { Seen::RebalanceTimeout } else { Seen::SessionTimeout });
                }
            }
            Change::Target { member, partitions } => {
                group.targets.insert(member.to_string(), partitions.as_ref().clone());
            }
            Change::Offset { partition, offset } => {
                let committer = &self.sent[&offset.offset];
                group.may_commit(committer, partition);
                if matches!(committer, Committer::Reset) {
                    counts.saw(Seen::Reset);
                }
                group.offsets.insert(*partition, offset.clone());
                self.kept.insert((id.to_owned(), *partition, offset.offset));
            }
            Change::Standing(_) | Change::Topics(_) | Change::Profile { .. } | Change::Removed => {}
        }
    }
}

impl Group {
    /// C6, by the log: what a member gets is nobody's. C5: whoever joins has a higher epoch than anybody before, or a commit
    /// from an earlier life of its id would pass for its own. Answers what the member does not hold any more.
    fn hold(&mut self, id: &str, current: &Current, counts: &mut Counts) -> Vec<TopicPartition> {
        let mut released = vec![];
        for partition in current.assigned.keys().chain(current.revoking.keys()) {
            for (other, has) in &self.members {
                let holds = has.assigned.contains_key(partition) || has.revoking.contains_key(partition);
                assert!(!holds || other == id, "C6: {partition:?} is given to {id} while {other} holds it");
            }
        }
        if let Some(before) = self.members.get(id) {
            assert!(before.epoch <= current.epoch, "the epoch of {id} went back");
            let gains = current.assigned.keys().any(|partition| !before.assigned.contains_key(partition));
            assert!(!gains || before.epoch < current.epoch, "{id} gets something without a new epoch");
            if before.revoking.len() > current.revoking.len() {
                counts.saw(Seen::LetGo);
            }
            let holds = |p: &&TopicPartition| current.assigned.contains_key(p) || current.revoking.contains_key(p);
            released.extend(before.assigned.keys().chain(before.revoking.keys()).filter(|p| !holds(p)).copied());
        } else {
            let Current { joined, epoch, .. } = current;
            let is_new = *joined > self.highest && epoch == joined;
            assert!(is_new, "C5: {id} joins with {joined}, and members before it had up to {}", self.highest);
        }
        self.highest = self.highest.max(current.epoch);
        match self.members.get_mut(id) {
            Some(member) => member.clone_from(current),
            None => drop(self.members.insert(id.to_owned(), current.clone())),
        }
        released
    }

    /// C5, at the record: nothing was decided in between.
    fn may_commit(&self, committer: &Committer, partition: &TopicPartition) {
        match committer {
            Committer::Reset => {}
            Committer::Outside => assert!(self.members.is_empty(), "a commit from outside while there are members"),
            Committer::Member(id, epoch) => {
                let Some(current) = self.members.get(id) else { panic!("C5: {id} is no member, and has committed") };
                let alive = !current.away && (current.joined..=current.epoch).contains(epoch);
                assert!(alive, "C5: {id} has committed with {epoch}, it stands at {current:?}");
                let since = current.assigned.get(partition).or_else(|| current.revoking.get(partition));
                assert!(
                    since.is_some_and(|since| since <= epoch),
                    "C5: {id} has committed {partition:?} with {epoch}, it stands at {current:?}"
                );
            }
        }
    }
}
