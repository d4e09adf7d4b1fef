//! The broker: the real core over a log in memory, which loses what a crash may lose.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use taffrail_broker::coordinator::group::{Event, GroupShard, Record, Request, TopicsView};
use taffrail_broker::coordinator::runtime::frame::Frame;
use taffrail_broker::coordinator::runtime::{Input, Limits, Loader, Output, Shard, Step};
use taffrail_broker::coordinator::{Env, StateMachine};
use taffrail_proto::record::{Scratch, records};

use super::client::Reply;
use super::counts::{Counts, Seen};
use super::model::Model;

/// Small, so that each schedule has several checkpoints in several batches.
const LIMITS: Limits =
    Limits { least_bytes: 3_000, growth: 1, batch_bytes: 1_500, decision_bytes: 1 << 20, in_flight: 3 };

pub(crate) type Core = Shard<GroupShard, Reply>;
pub(crate) type Out = Output<GroupShard, Reply>;

/// A batch in the log.
struct Batch {
    base: i64,
    records: Vec<(Bytes, Bytes)>,
}

/// What survives a crash.
#[derive(Default)]
struct Log {
    start: i64,
    end: i64,
    batches: VecDeque<Batch>,
}

/// What makes an empty machine, and whether the core has its own fault.
#[derive(Clone, Copy)]
pub(crate) struct Make {
    pub(crate) machine: fn() -> GroupShard,
    pub(crate) early_trim: bool,
}

pub(crate) struct Broker {
    make: Make,
    log: Log,
    /// `None`: it is down.
    pub(crate) core: Option<Core>,
    /// Grows with each start: what was under way before is of no interest.
    pub(crate) life: u32,
    in_flight: VecDeque<(Step, Bytes)>,
    /// Replayed from the first record on, never from a checkpoint.
    replica: GroupShard,
    pub(crate) model: Model,
    pub(crate) world: Arc<TopicsView>,
    pub(crate) wall_millis: i64,
}

impl Broker {
    pub(crate) fn new(make: Make) -> Self {
        Self {
            make,
            log: Log::default(),
            core: None,
            life: 0,
            in_flight: VecDeque::new(),
            replica: GroupShard::new(),
            model: Model::default(),
            world: Arc::default(),
            wall_millis: 1_700_000_000_000,
        }
    }

    /// Loads the log, and serves. C3: what it loads is what was in the log, whatever was checkpointed and trimmed.
    pub(crate) fn start(&mut self, now: Duration, counts: &mut Counts) -> Vec<Out> {
        let mut loader = Loader::new(self.make.machine, self.log.start);
        let mut unfinished = false;
        for batch in &self.log.batches {
            for (offset, (key, value)) in (batch.base..).zip(&batch.records) {
                loader.record(offset, key, value).expect("C3: the log can be loaded");
                match key.first() {
                    Some(2) => unfinished = true,
                    Some(3) => unfinished = false,
                    _ => {}
                }
            }
        }
        let loaded = loader.finish().expect("C3: the log can be loaded");
        assert!(loaded.machine == self.replica, "C3: what is loaded is not what was in the log");
        if self.log.start > 0 {
            counts.saw(Seen::LoadedFromCheckpoint);
        }
        if unfinished {
            counts.saw(Seen::UnfinishedCheckpoint);
        }
        self.life += 1;
        let env = Env { now, log_millis: log_millis(now), wall_millis: self.wall_millis, world: &self.world };
        let (mut core, outputs) = Shard::new(loaded, LIMITS, &env);
        if self.make.early_trim {
            core.plant_early_trim();
        }
        self.core = Some(core);
        outputs
    }

    pub(crate) fn apply(&mut self, input: Input<GroupShard, Reply>, now: Duration) -> Vec<Out> {
        let Some(core) = &mut self.core else { return vec![] };
        let env = Env { now, log_millis: log_millis(now), wall_millis: self.wall_millis, world: &self.world };
        let outputs = core.apply([input], &env);
        if core.is_settled() && outputs.iter().all(|output| !matches!(output, Output::Append { .. })) {
            assert!(*core.machine() == self.replica, "C3: live state is not what replay gives");
        }
        outputs
    }

    /// Asks without a network.
    pub(crate) fn ask(&mut self, request: Request, reply: Reply, now: Duration) -> Vec<Out> {
        self.apply(Input::Request(request, reply), now)
    }

    pub(crate) fn append(&mut self, step: Step, batch: Bytes) {
        self.in_flight.push_back((step, batch));
    }

    /// Which step the oldest append under way is.
    pub(crate) fn under_way(&self) -> Option<Step> {
        self.in_flight.front().map(|(step, _)| *step)
    }

    /// The oldest append under way is in the log; the offset of its first record.
    pub(crate) fn persist(&mut self, counts: &mut Counts) -> Option<i64> {
        let (_, batch) = self.in_flight.pop_front()?;
        let base = self.log.end;
        let mut kept = vec![];
        for record in records(&batch, 1 << 20, &mut Scratch::new()).expect("the core builds whole batches") {
            let record = record.expect("the core builds whole batches");
            let (key, value) = (record.key.expect("has a key"), record.value.expect("has a value"));
            if let Some(Frame::Change(key, value)) = Frame::decode(&key, &value) {
                let record: Record = GroupShard::decode(&key, &value).expect("the machine reads what it writes");
                self.replica.replay(&record);
                self.model.replay(&record, counts);
            }
            kept.push((key, value));
        }
        self.log.end += kept.len() as i64;
        self.log.batches.push_back(Batch { base, records: kept });
        Some(base)
    }

    pub(crate) fn trim(&mut self, to: i64) {
        while self.log.batches.front().is_some_and(|batch| batch.base < to) {
            self.log.batches.pop_front();
        }
        self.log.start = self.log.start.max(to);
    }

    /// The process is gone; of what was under way the first `kept` are in the log.
    pub(crate) fn crash(&mut self, kept: usize, counts: &mut Counts) {
        for _ in 0..kept.min(self.in_flight.len()) {
            self.persist(counts);
            counts.saw(Seen::CrashInFlightKept);
        }
        if !self.in_flight.is_empty() {
            counts.saw(Seen::CrashInFlightLost);
        }
        self.in_flight.clear();
        self.core = None;
        self.life += 1;
    }

    /// An append failed: nothing behind it counts.
    pub(crate) fn fail(&mut self) -> Vec<Out> {
        self.in_flight.clear();
        self.life += 1;
        self.core.take().map(Shard::fail).unwrap_or_default()
    }

    pub(crate) fn appends_under_way(&self) -> usize {
        self.in_flight.len()
    }
}

/// Log time goes with boot time, and began earlier.
pub(crate) fn log_millis(now: Duration) -> i64 {
    5_000_000 + now.as_millis() as i64
}

/// Whoever is told has to look.
pub(crate) fn told(event: &Event) -> impl Iterator<Item = (&str, &str)> {
    event.members.iter().map(|member| (event.group.as_str(), member.as_str()))
}
