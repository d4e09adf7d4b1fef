//! C3: live state is what replay gives, at every offset. After each decision of random schedules the log so far is given to a
//! fresh shard, once from the first record on, and once as a start of the broker reads it: from a checkpoint, behind a trim.
//! The real core of the runtime decides when checkpoints are written, between requests whose appends are still under way.

use std::cell::Cell;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use taffrail_proto::record::{Scratch, records};

use super::harness::*;
use crate::coordinator::group::*;
use crate::coordinator::runtime::frame::Frame;
use crate::coordinator::runtime::{Input, Limits, Loaded, Loader, Output, Shard, Step};
use crate::coordinator::{Env, StateMachine};

/// Small, so that each schedule has several checkpoints. Any number of appends may be under way: what was decided is then
/// what was handed out to be appended.
const LIMITS: Limits =
    Limits { least_bytes: 1_200, growth: 1, batch_bytes: 600, decision_bytes: 1 << 20, in_flight: 1_000_000 };
const GROUPS: [&str; 2] = ["g", "h"];
const MEMBERS: [&str; 4] = ["m", "n", "o", "p"];
const TOPICS: [&str; 3] = ["a", "b", "bb"];
const SUBSCRIPTIONS: [&[&str]; 4] = [&["a"], &["a", "b"], &["bb", "unknown"], &[]];

/// A member of a group, by their numbers.
type Who = (usize, usize);

/// The epoch that a member speaks with, against the one that the group knows.
#[derive(Clone, Copy, Debug)]
enum Age {
    Present,
    Older(i32),
    Any(i32),
}

/// What a member says that it owns.
#[derive(Clone, Copy, Debug)]
enum Owns {
    Nothing,
    WhatItShould,
    AllThatItHolds,
    Unsaid,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Join {
        who: Who,
        is_static: bool,
        topics: usize,
        age: Option<Age>,
        owns: Owns,
        range: bool,
    },
    Heartbeat {
        who: Who,
        age: Age,
        owns: Owns,
        topics: Option<usize>,
    },
    Refresh {
        who: Who,
        age: Age,
    },
    Leave {
        who: Who,
        age: Age,
        returning: bool,
    },
    Commit {
        who: Who,
        age: Option<Age>,
        topic: usize,
        partition: i32,
        offset: i64,
    },
    Reset {
        group: usize,
        topic: usize,
        partition: i32,
        offset: i64,
        force: bool,
    },
    Delete(usize),
    Topic {
        name: usize,
        partitions: i32,
        anew: bool,
    },
    Pass(Duration),
    /// So many appends are over.
    Appended(usize),
    /// The broker dies; so many of the appends under way are in the log. It starts again.
    Crash(usize),
}

fn who() -> impl Strategy<Value = Who> {
    (0..GROUPS.len(), 0..MEMBERS.len())
}

fn age() -> impl Strategy<Value = Age> {
    prop_oneof![6 => Just(Age::Present), 2 => (1..4).prop_map(Age::Older), 1 => any::<i32>().prop_map(Age::Any)]
}

fn owns() -> impl Strategy<Value = Owns> {
    prop_oneof![
        1 => Just(Owns::Nothing),
        4 => Just(Owns::WhatItShould),
        1 => Just(Owns::AllThatItHolds),
        1 => Just(Owns::Unsaid),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let subscription = || 0..SUBSCRIPTIONS.len();
    let place = || (0..TOPICS.len(), 0..4);
    let join = (who(), any::<bool>(), subscription(), prop::option::weighted(0.3, age()), owns(), any::<bool>());
    let pass = prop::sample::select(vec![1, 20, 50, 400, 8 * 86_400]).prop_map(Duration::from_secs);
    prop_oneof![
        6 => join.prop_map(|(who, is_static, topics, age, owns, range)| {
            Op::Join { who, is_static, topics, age, owns, range }
        }),
        8 => (who(), age(), owns(), prop::option::weighted(0.2, subscription()))
            .prop_map(|(who, age, owns, topics)| Op::Heartbeat { who, age, owns, topics }),
        1 => (who(), age()).prop_map(|(who, age)| Op::Refresh { who, age }),
        2 => (who(), age(), any::<bool>()).prop_map(|(who, age, returning)| Op::Leave { who, age, returning }),
        5 => (who(), prop::option::weighted(0.8, age()), place(), 0..=i64::MAX)
            .prop_map(|(who, age, (topic, partition), offset)| Op::Commit { who, age, topic, partition, offset }),
        1 => (0..GROUPS.len(), place(), 0..=i64::MAX, any::<bool>()).prop_map(
            |(group, (topic, partition), offset, force)| Op::Reset { group, topic, partition, offset, force }
        ),
        1 => (0..GROUPS.len()).prop_map(Op::Delete),
        2 => (0..TOPICS.len(), 0..5, any::<bool>())
            .prop_map(|(name, partitions, anew)| Op::Topic { name, partitions, anew }),
        3 => pass.prop_map(Op::Pass),
        8 => (1..8_usize).prop_map(Op::Appended),
        1 => (0..4_usize).prop_map(Op::Crash),
    ]
}

struct Batch {
    base: i64,
    records: Vec<(Bytes, Bytes)>,
}

/// The core over a log in memory.
struct Broker {
    core: Shard<GroupShard, ()>,
    now: Duration,
    world: Arc<TopicsView>,
    /// Topics that there have been, by number: the identities of those that are there are the latest.
    made: [u128; 3],
    /// All that was ever appended and not lost, what is trimmed too.
    batches: Vec<Batch>,
    /// So many of them are committed.
    committed: usize,
    log_start: i64,
    trims: usize,
}

impl Broker {
    fn new() -> Self {
        let made = [1, 2, 3];
        let view = |(name, id): (&&str, u128)| (Arc::from(*name), TopicView { id: topic(id), partitions: 3 });
        let world = Arc::new(TopicsView { topics: TOPICS[..2].iter().zip(made).map(view).collect() });
        let now = Duration::from_secs(1_000);
        let loaded = Loader::new(GroupShard::new, 0).finish().unwrap();
        let (core, outputs) = Shard::new(loaded, LIMITS, &env(now, &world));
        let (batches, committed, log_start, trims) = (vec![], 0, 0, 0);
        let mut this = Self { core, now, world, made, batches, committed, log_start, trims };
        this.carry_out(outputs);
        this
    }

    fn apply(&mut self, input: Input<GroupShard, ()>) {
        let outputs = self.core.apply([input], &env(self.now, &self.world));
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output<GroupShard, ()>>) {
        let mut trimmed = false;
        for output in outputs {
            match output {
                Output::Append { step, batch, .. } => self.append(step, &batch),
                Output::Trim(to) => {
                    (self.log_start, trimmed) = (to, true);
                    self.trims += 1;
                }
                Output::Answer((), answer) => drop(answer.expect("each request is answered")),
                Output::Event(_) => {}
            }
        }
        self.check();
        if trimmed {
            self.apply(Input::Trimmed);
        }
    }

    fn append(&mut self, step: Step, batch: &Bytes) {
        let base = self.end();
        let read = records(batch, 1 << 20, &mut Scratch::new()).unwrap();
        let read = read.map(Result::unwrap).map(|record| (record.key.unwrap(), record.value.unwrap()));
        let read: Vec<_> = read.map(|(key, value)| (Bytes::from(key.to_vec()), Bytes::from(value.to_vec()))).collect();
        assert!(!read.is_empty(), "an empty batch for {step:?}");
        self.batches.push(Batch { base, records: read });
    }

    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |last| last.base + last.records.len() as i64)
    }

    /// What a start of the broker reads.
    fn load(&self) -> Loaded<GroupShard> {
        let mut loader = Loader::new(GroupShard::new, self.log_start);
        for batch in self.batches.iter().filter(|batch| batch.base >= self.log_start) {
            for (offset, (key, value)) in (batch.base..).zip(&batch.records) {
                loader.record(offset, key, value).unwrap();
            }
        }
        loader.finish().unwrap()
    }

    fn check(&self) {
        let mut replayed = GroupShard::new();
        for (key, value) in self.batches.iter().flat_map(|batch| &batch.records) {
            if let Some(Frame::Change(key, value)) = Frame::decode(key, value) {
                replayed.replay(&GroupShard::decode(&key, &value).unwrap());
            }
        }
        let live = self.core.machine();
        assert_eq!(*live, replayed, "C3: live is not what replay gives at offset {}", self.end());
        assert_eq!(*live, self.load().machine, "C3: live is not what a load gives at offset {}", self.end());
    }

    fn appended(&mut self) {
        if let Some(oldest) = self.batches.get(self.committed) {
            let base = oldest.base;
            self.committed += 1;
            self.apply(Input::Appended(base));
        }
    }

    fn crash(&mut self, kept: usize) {
        self.batches.truncate(self.committed + kept);
        self.committed = self.batches.len();
        let (core, outputs) = Shard::new(self.load(), LIMITS, &env(self.now, &self.world));
        self.core = core;
        self.carry_out(outputs);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.next_tick().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.apply(Input::Tick);
        }
        self.now = end;
    }

    fn topic(&mut self, name: usize, partitions: i32, anew: bool) {
        if anew {
            self.made[name] += 3;
        }
        let mut topics = self.world.topics.clone();
        match partitions {
            0 => drop(topics.remove(TOPICS[name])),
            _ => drop(topics.insert(Arc::from(TOPICS[name]), TopicView { id: topic(self.made[name]), partitions })),
        }
        self.world = Arc::new(TopicsView { topics });
        self.apply(Input::World);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Topic { name, partitions, anew } => self.topic(name, partitions, anew),
            Op::Pass(time) => self.pass(time),
            Op::Appended(count) => (0..count).for_each(|_| self.appended()),
            Op::Crash(kept) => self.crash(kept),
            request => {
                let request = self.request(request);
                self.apply(Input::Request(request, ()));
            }
        }
    }

    fn current(&self, (group, member): Who) -> Current {
        let member = self.core.machine().member(GROUPS[group], MEMBERS[member]);
        member.map(|member| member.current.clone()).unwrap_or_default()
    }

    fn epoch(&self, who: Who, age: Age) -> i32 {
        match age {
            Age::Present => self.current(who).epoch,
            Age::Older(by) => self.current(who).epoch.saturating_sub(by),
            Age::Any(epoch) => epoch,
        }
    }

    fn owned(&self, who: Who, owns: Owns) -> Option<BTreeSet<TopicPartition>> {
        match owns {
            Owns::Nothing => Some(BTreeSet::new()),
            Owns::WhatItShould => Some(self.current(who).assigned.keys().copied().collect()),
            Owns::AllThatItHolds => Some(self.current(who).held().copied().collect()),
            Owns::Unsaid => None,
        }
    }

    fn request(&self, op: Op) -> Request {
        let group = |(group, _): Who| GROUPS[group].to_owned();
        let member = |(_, member): Who| MEMBERS[member].to_owned();
        let place = |topic_at: usize, partition| TopicPartition { topic: topic(self.made[topic_at]), partition };
        match op {
            Op::Join { who, is_static, topics, age, owns, range } => Request::Join(Box::new(Join {
                group: group(who),
                epoch: age.map_or(0, |age| self.epoch(who, age)),
                instance: is_static.then(|| format!("i{}", who.1 / 2)),
                subscription: subscription(topics),
                assignor: range.then_some(AssignorName::Range),
                owned: self.owned(who, owns).unwrap_or_default(),
                ..join(&member(who))
            })),
            Op::Heartbeat { who, age, owns, topics } => Request::Heartbeat(Heartbeat {
                group: group(who),
                member: member(who),
                epoch: self.epoch(who, age),
                owned: self.owned(who, owns),
                subscription: topics.map(subscription),
            }),
            Op::Refresh { who, age } => {
                Request::Refresh { group: group(who), member: member(who), epoch: self.epoch(who, age) }
            }
            Op::Leave { who, age, returning } => {
                Request::Leave { group: group(who), member: member(who), epoch: self.epoch(who, age), returning }
            }
            Op::Commit { who, age, topic, partition, offset } => Request::Commit(Commit {
                group: group(who),
                member: age.map(|age| (member(who), self.epoch(who, age))),
                offsets: vec![(place(topic, partition), at(offset))],
            }),
            Op::Reset { group, topic, partition, offset, force } => Request::Reset {
                group: GROUPS[group].to_owned(),
                offsets: vec![(place(topic, partition), at(offset))],
                force,
            },
            Op::Delete(group) => Request::Delete(GROUPS[group].to_owned()),
            Op::Topic { .. } | Op::Pass(_) | Op::Appended(_) | Op::Crash(_) => panic!("not a request: {op:?}"),
        }
    }
}

fn env(now: Duration, world: &Arc<TopicsView>) -> Env<'_, Arc<TopicsView>> {
    Env { now, log_millis: 5_000 + now.as_millis() as i64, wall_millis: 1_700_000_000_000, world }
}

/// The last of them is a pattern.
fn subscription(at: usize) -> Subscription {
    let topics = SUBSCRIPTIONS[at];
    Subscription { pattern: topics.is_empty().then(|| "b.*".to_owned()), ..to(topics) }
}

#[test]
fn c3_live_state_is_replayed_state_at_every_offset() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let (records, trims) = (Cell::new(0), Cell::new(0));
    let ops = prop::collection::vec(op(), 1..100);
    let result = runner.run(&ops, |ops| {
        let mut broker = Broker::new();
        for op in ops {
            broker.run(op);
        }
        records.set(records.get() + broker.end());
        trims.set(trims.get() + broker.trims);
        Ok(())
    });
    result.unwrap_or_else(|failed| panic!("{failed}"));
    assert!(trims.get() > 150 && records.get() > 7_500, "{} trims, {} records", trims.get(), records.get());
}
