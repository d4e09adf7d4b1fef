//! The shard: its groups, and which decision answers which request.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::member::Member;
use super::records::{self, Change, Record};
use super::state::Group;
use super::subscription::Patterns;
use super::timers::Timer;
use super::{Answer, Event, GroupError, Request, TopicsView};
use crate::coordinator::{Effects, Env, StateMachine};

/// Faults that are planted on purpose. Only for tests that prove that the simulation sees them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedFault {
    /// Partitions go to their new owner while the old one neither has let go nor was fenced.
    OwnerNotFenced,
    /// Commits are kept whoever sends them.
    CommitFromFenced,
    /// A resuming member lets go of what it does not name, also with an epoch from before it was asked to.
    LateResumeLetsGo,
    /// Members join with the group's epoch, which members before them may have passed.
    JoinEpochRepeats,
}

/// The groups of one partition of the internal topic. See [`StateMachine`].
#[derive(Debug, Default)]
pub struct GroupShard {
    pub(super) groups: BTreeMap<Arc<str>, Arc<Group>>,
    /// Topics that are gone, since which log time in milliseconds: their offsets are kept for a while.
    pub(super) gone: BTreeMap<Uuid, i64>,
    pub(super) patterns: Patterns,
    planted: Option<PlantedFault>,
}

/// The same state, however it came about.
impl PartialEq for GroupShard {
    fn eq(&self, other: &Self) -> bool {
        self.groups == other.groups && self.gone == other.gone
    }
}

impl GroupShard {
    /// Without a group.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that does not keep what it promises.
    #[doc(hidden)]
    pub fn with_planted_fault(fault: PlantedFault) -> Self {
        Self { planted: Some(fault), ..Self::default() }
    }

    pub(super) fn planted(&self, fault: PlantedFault) -> bool {
        self.planted == Some(fault)
    }

    pub(super) fn member(&self, group: &str, member: &str) -> Option<&Member> {
        self.groups.get(group)?.member(member)
    }

    pub(super) fn group(&self, group: &str) -> Result<&Group, GroupError> {
        self.groups.get(group).map(Arc::as_ref).ok_or_else(|| GroupError::UnknownGroup(group.to_owned()))
    }
}

impl StateMachine for GroupShard {
    type Request = Request;
    type Answer = Answer;
    type Record = Record;
    type Timer = Timer;
    type Event = Event;
    type World = Arc<TopicsView>;

    fn handle(&self, request: Request, env: &Env<'_, Self::World>) -> Effects<Self> {
        let decided = match request {
            Request::Join(join) => self.join(&join, env),
            Request::Heartbeat(heartbeat) => self.heartbeat(&heartbeat, env),
            Request::Refresh { group, member, epoch } => self.refresh(&group, &member, epoch, env),
            Request::Leave { group, member, epoch, returning } => self.leave(&group, &member, epoch, returning, env),
            Request::Commit(commit) => self.commit(commit, env),
            Request::FetchOffsets { group, partitions } => Ok(self.fetch_offsets(&group, partitions)),
            Request::List => Ok(self.list()),
            Request::Describe(group) => self.describe(&group),
            Request::Delete(group) => self.delete(&group),
            Request::Reset { group, offsets, force } => self.reset(&group, offsets, force, env),
        };
        decided.unwrap_or_else(|refused| Effects::answer(Err(refused)))
    }

    fn on_timer(&self, timer: &Timer, env: &Env<'_, Self::World>) -> Effects<Self> {
        match timer {
            Timer::Session { group, member } => self.expel(group, member, env),
            Timer::Rebalance { group, member } => self.rebalance_over(group, member, env),
            Timer::GroupExpires(group) => self.group_expires(group, env),
            Timer::TopicForgotten(topic) => self.topic_forgotten(*topic, env),
            Timer::World(from) => self.look_at_groups(from, env),
        }
    }

    fn on_world(&self, env: &Env<'_, Self::World>) -> Effects<Self> {
        let (mut effects, groups) = (self.look_at_gone(env), self.look_at_groups(&Arc::from(""), env));
        effects.records.extend(groups.records);
        effects.timers.extend(groups.timers);
        effects.events.extend(groups.events);
        effects
    }

    fn on_loaded(&self, env: &Env<'_, Self::World>) -> Effects<Self> {
        let (mut effects, gone) = (self.start_timers(env), self.look_at_gone(env));
        effects.records.extend(gone.records);
        effects.timers.extend(gone.timers);
        effects
    }

    fn replay(&mut self, record: &Record) {
        match record {
            Record::Group { group, change: Change::Removed } => {
                self.groups.remove(group);
            }
            Record::Group { group, change: change @ Change::Standing(_) } => {
                let group = self.groups.entry(Arc::clone(group)).or_default();
                Arc::make_mut(group).replay(change);
            }
            Record::Group { group, change } => {
                if let Some(group) = self.groups.get_mut(group) {
                    Arc::make_mut(group).replay(change);
                }
            }
            Record::TopicGone { topic, since: Some(since) } => {
                self.gone.insert(*topic, *since);
            }
            Record::TopicGone { topic, since: None } => {
                self.gone.remove(topic);
            }
            Record::TopicForgotten { topic } => self.forget(topic),
        }
    }

    fn checkpoint(&self) -> Box<dyn Iterator<Item = Record> + Send> {
        let gone = self.gone.clone().into_iter().map(|(topic, since)| Record::TopicGone { topic, since: Some(since) });
        let groups = self.groups.clone().into_iter();
        Box::new(gone.chain(groups.flat_map(|(id, group)| group.records(&id))))
    }

    fn encode(record: &Record) -> (Bytes, Bytes) {
        records::encode(record)
    }

    fn decode(key: &[u8], value: &[u8]) -> Option<Record> {
        records::decode(key, value)
    }
}

impl GroupShard {
    fn forget(&mut self, topic: &Uuid) {
        self.gone.remove(topic);
        for group in self.groups.values_mut().filter(|group| group.offsets.contains_key(topic)) {
            Arc::make_mut(group).offsets.remove(topic);
        }
    }
}
