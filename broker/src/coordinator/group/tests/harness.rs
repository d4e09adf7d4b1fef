//! A shard without a runtime: every decision is appended and committed at once. After each of them the live state must be
//! that of the replayed bytes, and that of the checkpoint (C3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::*;
use crate::coordinator::{Effects, Env, StateMachine, TimerChange};

pub(super) struct Harness {
    pub(super) shard: GroupShard,
    replayed: GroupShard,
    pub(super) world: Arc<TopicsView>,
    pub(super) now: Duration,
    pub(super) wall_millis: i64,
    /// When they run out.
    pub(super) timers: BTreeMap<Timer, Duration>,
    /// Of the last decision.
    pub(super) records: Vec<Record>,
    pub(super) events: Vec<Event>,
}

pub(super) const GROUP: &str = "g";

pub(super) fn topic(number: u128) -> Uuid {
    Uuid::from_u128(number + 2)
}

/// Partitions of a topic.
pub(super) fn of(number: u128, partitions: impl IntoIterator<Item = i32>) -> BTreeSet<TopicPartition> {
    partitions.into_iter().map(|partition| TopicPartition { topic: topic(number), partition }).collect()
}

pub(super) fn to(topics: &[&str]) -> Subscription {
    Subscription { topics: topics.iter().map(|&name| name.to_owned()).collect(), pattern: None }
}

pub(super) fn join(member: &str) -> Join {
    Join {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        epoch: 0,
        instance: None,
        subscription: to(&["a"]),
        assignor: None,
        rack: Some("zone".to_owned()),
        client_id: "client".to_owned(),
        client_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        session_timeout: Duration::from_secs(45),
        rebalance_timeout: Duration::from_mins(5),
        owned: BTreeSet::new(),
    }
}

pub(super) fn at(offset: i64) -> CommittedOffset {
    CommittedOffset { offset, leader_epoch: Some(1), metadata: "m".to_owned(), committed_at: 0 }
}

impl Harness {
    /// Topics by name with their numbers and partitions.
    pub(super) fn new(topics: &[(&str, u128, i32)]) -> Self {
        let mut this = Self {
            shard: GroupShard::new(),
            replayed: GroupShard::new(),
            world: Arc::default(),
            now: Duration::from_secs(1000),
            wall_millis: 1_000_000,
            timers: BTreeMap::new(),
            records: vec![],
            events: vec![],
        };
        this.topics(topics);
        this
    }

    pub(super) fn log_millis(&self) -> i64 {
        self.now.as_millis() as i64
    }

    fn decide(
        &mut self,
        decision: impl FnOnce(&GroupShard, &Env<'_, Arc<TopicsView>>) -> Effects<GroupShard>,
    ) -> Option<Answer> {
        let env =
            Env { now: self.now, log_millis: self.log_millis(), wall_millis: self.wall_millis, world: &self.world };
        let effects = decision(&self.shard, &env);
        for record in &effects.records {
            self.shard.replay(record);
            let (key, value) = GroupShard::encode(record);
            let decoded = GroupShard::decode(&key, &value).expect("what is encoded can be decoded");
            assert_eq!(&decoded, record);
            self.replayed.replay(&decoded);
        }
        assert_eq!(self.shard, self.replayed, "C3: live is not what replay gives");
        let mut restored = GroupShard::new();
        self.shard.checkpoint().for_each(|record| restored.replay(&record));
        assert_eq!(self.shard, restored, "C3: live is not what the checkpoint gives");
        for change in effects.timers {
            match change {
                TimerChange::Set(timer, after) => drop(self.timers.insert(timer, self.now + after)),
                TimerChange::Cancel(timer) => drop(self.timers.remove(&timer)),
            }
        }
        self.records = effects.records;
        self.events.extend(effects.events);
        effects.answer
    }

    pub(super) fn ask(&mut self, request: Request) -> Answer {
        self.decide(|shard, env| shard.handle(request, env)).expect("each request is answered")
    }

    /// Replaces the topics.
    pub(super) fn topics(&mut self, topics: &[(&str, u128, i32)]) {
        let view =
            |&(name, id, partitions): &(&str, u128, i32)| (Arc::from(name), TopicView { id: topic(id), partitions });
        self.world = Arc::new(TopicsView { topics: topics.iter().map(view).collect() });
        self.decide(|shard, env| {
            let effects = shard.on_world(env);
            Effects { answer: None, ..effects }
        });
        self.pass(Duration::ZERO);
    }

    /// Time passes, and timers run out in order.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((timer, at)) =
            self.timers.clone().into_iter().min_by_key(|(_, at)| *at).filter(|(_, at)| *at <= end)
        {
            self.timers.remove(&timer);
            self.now = self.now.max(at);
            self.decide(|shard, env| shard.on_timer(&timer, env));
        }
        self.now = end;
    }

    /// A new process with the same log.
    pub(super) fn restart(&mut self) {
        self.shard = std::mem::take(&mut self.replayed);
        self.shard.checkpoint().for_each(|record| self.replayed.replay(&record));
        self.timers.clear();
        self.decide(StateMachine::on_loaded);
        self.pass(Duration::ZERO);
    }

    pub(super) fn join(&mut self, join: Join) -> Result<Membership, GroupError> {
        self.ask(Request::Join(Box::new(join))).map(membership)
    }

    pub(super) fn heartbeat(
        &mut self,
        member: &str,
        epoch: i32,
        owned: Option<BTreeSet<TopicPartition>>,
    ) -> Result<Membership, GroupError> {
        let (group, member) = (GROUP.to_owned(), member.to_owned());
        let heartbeat = Heartbeat { group, member, epoch, owned, subscription: None };
        self.ask(Request::Heartbeat(heartbeat)).map(membership)
    }

    pub(super) fn refresh(&mut self, member: &str, epoch: i32) -> Result<Membership, GroupError> {
        let (group, member) = (GROUP.to_owned(), member.to_owned());
        self.ask(Request::Refresh { group, member, epoch }).map(membership)
    }

    pub(super) fn leave(&mut self, member: &str, epoch: i32, returning: bool) -> Answer {
        let (group, member) = (GROUP.to_owned(), member.to_owned());
        self.ask(Request::Leave { group, member, epoch, returning })
    }

    /// Answers what was refused.
    pub(super) fn commit(
        &mut self,
        member: Option<(&str, i32)>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) -> Result<Vec<GroupError>, GroupError> {
        let member = member.map(|(member, epoch)| (member.to_owned(), epoch));
        match self.ask(Request::Commit(Commit { group: GROUP.to_owned(), member, offsets }))? {
            Answered::Committed(refused) => Ok(refused.into_iter().map(|(_, error)| error).collect()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn offset(&mut self, partition: TopicPartition) -> Option<i64> {
        let request = Request::FetchOffsets { group: GROUP.to_owned(), partitions: Some(vec![partition]) };
        match self.ask(request).unwrap() {
            Answered::Offsets(mut offsets) => offsets.pop().unwrap().1.map(|committed| committed.offset),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn describe(&mut self) -> Result<GroupDescription, GroupError> {
        match self.ask(Request::Describe(GROUP.to_owned()))? {
            Answered::Group(group) => Ok(*group),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn membership(answered: Answered) -> Membership {
    match answered {
        Answered::Membership(membership) => membership,
        other => panic!("{other:?}"),
    }
}
