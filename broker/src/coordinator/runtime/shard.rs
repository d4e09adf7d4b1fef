//! The core: decisions in, appends and answers out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

use super::Limits;
use super::checkpoint::{Checkpoints, Next};
use super::frame::Frame;
use super::load::Loaded;
use super::step::{Failure, Input, Output, Step};
use super::timers::Timers;
use crate::coordinator::{Effects, Env, StateMachine, TimerChange};

/// What a record takes in a batch beside key and value, at most.
const RECORD_BYTES: usize = 32;

/// The shortest time after which a timer runs out.
const LEAST_TIMER: Duration = Duration::from_millis(1);

/// Bytes that a record takes, at most.
pub(super) fn size(key: &Bytes, value: &Bytes) -> usize {
    key.len() + value.len() + RECORD_BYTES
}

/// A batch that is not under way yet.
struct Queued {
    step: Step,
    records: Vec<(Bytes, Bytes)>,
    bytes: usize,
    /// Decisions up to here are committed when it is.
    position: u64,
}

/// Held until what was decided before is committed.
enum Held<M: StateMachine, R> {
    Answer(R, Result<M::Answer, Failure>),
    Event(M::Event),
}

/// A shard that is loaded. `R` stands for whoever waits for an answer.
pub struct Shard<M: StateMachine, R> {
    machine: M,
    limits: Limits,
    /// Records decided since the load. Decisions count by the record behind their last.
    decided: u64,
    committed: u64,
    queue: VecDeque<Queued>,
    in_flight: VecDeque<(Step, u64)>,
    held: VecDeque<(u64, Held<M, R>)>,
    /// In order: when the shard fails, who waits hears of it in the same order every time.
    parked: BTreeMap<M::Timer, R>,
    timers: Timers<M::Timer>,
    checkpoints: Checkpoints<M>,
    /// Where the log is to begin, of a checkpoint that has just been finished.
    trim_to: Option<i64>,
    trims_early: bool,
}

impl<M: StateMachine, R> Shard<M, R> {
    /// Makes it trim the log before a checkpoint is finished. Only for tests that prove that the simulation sees it.
    #[doc(hidden)]
    pub fn plant_early_trim(&mut self) {
        self.trims_early = true;
    }

    /// Begins to serve what was loaded.
    pub fn new(loaded: Loaded<M>, limits: Limits, env: &Env<'_, M::World>) -> (Self, Vec<Output<M, R>>) {
        let mut shard = Self {
            machine: loaded.machine,
            limits,
            decided: 0,
            committed: 0,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            held: VecDeque::new(),
            parked: BTreeMap::new(),
            timers: Timers::default(),
            checkpoints: Checkpoints::new(limits, loaded.grown, loaded.checkpoint_bytes),
            trim_to: None,
            trims_early: false,
        };
        let effects = shard.machine.on_loaded(env);
        shard.follow(effects, None, env.now);
        let outputs = shard.issue(env);
        (shard, outputs)
    }

    /// Takes some inputs in, then issues what follows from all of them: requests that come together are appended together.
    pub fn apply(
        &mut self,
        inputs: impl IntoIterator<Item = Input<M, R>>,
        env: &Env<'_, M::World>,
    ) -> Vec<Output<M, R>> {
        for input in inputs {
            match input {
                Input::Request(request, reply) => {
                    let effects = self.machine.handle(request, env);
                    self.follow(effects, Some(reply), env.now);
                }
                Input::Tick => {
                    while let Some(timer) = self.timers.take_due(env.now) {
                        let effects = self.machine.on_timer(&timer, env);
                        self.follow(effects, None, env.now);
                    }
                }
                Input::World => {
                    let effects = self.machine.on_world(env);
                    self.follow(effects, None, env.now);
                }
                Input::Appended(offset) => self.appended(offset),
                Input::Trimmed => self.checkpoints.trimmed(),
            }
        }
        self.issue(env)
    }

    /// The log failed, or is not to be written any more: what everybody who waits is told.
    pub fn fail(self) -> Vec<Output<M, R>> {
        let held = self.held.into_iter().filter_map(|(_, held)| match held {
            Held::Answer(reply, _) => Some(reply),
            Held::Event(_) => None,
        });
        held.chain(self.parked.into_values()).map(|reply| Output::Answer(reply, Err(Failure::Unknown))).collect()
    }

    /// The state, with all that was decided.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// When [`Input::Tick`] is wanted next, boot time.
    pub fn next_tick(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// So much waits to be appended that no more should be asked for now.
    pub fn is_saturated(&self) -> bool {
        self.queue.len() > 2 * self.limits.in_flight
    }

    /// Nothing is under way or waits for it.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_empty() && self.held.is_empty()
    }

    /// Takes a decision in: its records change the state at once, its answers wait.
    fn follow(&mut self, effects: Effects<M>, reply: Option<R>, now: Duration) {
        let Effects { records, answer, park, completed, timers, events } = effects;
        let encoded: Vec<_> = records.iter().map(Self::encode).collect();
        let bytes: usize = encoded.iter().map(|(key, value)| size(key, value)).sum();
        if bytes > self.limits.decision_bytes {
            tracing::error!(bytes, "a decision of a coordinator is too large and was dropped");
            let too_large = Err(Failure::TooLarge(self.limits.decision_bytes));
            self.held.extend(reply.map(|reply| (self.decided, Held::Answer(reply, too_large))));
            return;
        }
        self.decided += records.len() as u64;
        for record in &records {
            self.machine.replay(record);
        }
        if !encoded.is_empty() {
            self.checkpoints.grow(bytes);
            self.enqueue(Step::Changes, encoded, bytes);
        }
        match (answer, park, reply) {
            (Some(answer), _, Some(reply)) => self.hold(Held::Answer(reply, Ok(answer))),
            (None, Some(name), Some(reply)) => {
                if let Some(other) = self.parked.insert(name, reply) {
                    self.hold(Held::Answer(other, Err(Failure::Replaced)));
                }
            }
            _ => {}
        }
        for (name, answer) in completed {
            if let Some(reply) = self.parked.remove(&name) {
                self.hold(Held::Answer(reply, Ok(answer)));
            }
        }
        for change in timers {
            match change {
                // Never at once: a machine that sets its timer anew whenever it runs out shall not spin.
                TimerChange::Set(timer, after) => self.timers.set(timer, now + after.max(LEAST_TIMER)),
                TimerChange::Cancel(timer) => self.timers.cancel(&timer),
            }
        }
        for event in events {
            self.hold(Held::Event(event));
        }
    }

    fn encode(record: &M::Record) -> (Bytes, Bytes) {
        let (key, value) = M::encode(record);
        Frame::Change(key, value).encode()
    }

    fn hold(&mut self, held: Held<M, R>) {
        self.held.push_back((self.decided, held));
    }

    /// Puts records in line: changes into the batch at the end if they fit, everything else into a batch of its own.
    fn enqueue(&mut self, step: Step, records: Vec<(Bytes, Bytes)>, bytes: usize) {
        let position = self.decided;
        let fits = |last: &&mut Queued| {
            step == Step::Changes && last.step == step && last.bytes + bytes <= self.limits.batch_bytes
        };
        match self.queue.back_mut().filter(fits) {
            Some(last) => {
                last.records.extend(records);
                last.bytes += bytes;
                last.position = position;
            }
            None => self.queue.push_back(Queued { step, records, bytes, position }),
        }
    }

    fn appended(&mut self, offset: i64) {
        let Some((step, position)) = self.in_flight.pop_front() else { return };
        self.committed = position;
        if self.trims_early && step == Step::CheckpointBegin {
            self.trim_to = Some(offset);
        }
        match step {
            Step::CheckpointBegin | Step::CheckpointParts => match self.checkpoints.committed(offset) {
                Some(Next::Parts(parts)) => self.enqueue(Step::CheckpointParts, parts, 0),
                Some(Next::End(end)) => self.enqueue(Step::CheckpointEnd, vec![end.encode()], 0),
                None => {}
            },
            Step::CheckpointEnd => self.trim_to = self.checkpoints.ended(),
            Step::Changes | Step::Trim | Step::Answer => {}
        }
    }

    /// All that can be done now.
    fn issue(&mut self, env: &Env<'_, M::World>) -> Vec<Output<M, R>> {
        let mut outputs: Vec<_> = self.trim_to.take().map(Output::Trim).into_iter().collect();
        if self.checkpoints.is_due() {
            self.checkpoints.begin(&self.machine);
            self.enqueue(Step::CheckpointBegin, vec![Frame::Begin.encode()], 0);
        }
        while self.in_flight.len() < self.limits.in_flight
            && let Some(next) = self.queue.pop_front()
        {
            self.in_flight.push_back((next.step, next.position));
            let (batch, header) = build(&next.records, env.wall_millis);
            outputs.push(Output::Append { step: next.step, batch, header });
        }
        while let Some((position, _)) = self.held.front()
            && *position <= self.committed
            && let Some((_, held)) = self.held.pop_front()
        {
            outputs.push(match held {
                Held::Answer(reply, answer) => Output::Answer(reply, answer),
                Held::Event(event) => Output::Event(event),
            });
        }
        outputs
    }
}

fn build(records: &[(Bytes, Bytes)], wall_millis: i64) -> (Bytes, BatchHeader) {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder
            .push(Some(key), Some(value), [], wall_millis.max(0))
            .expect("a machine's keys are short, and its decisions bounded");
    }
    let batch = builder.build(Compression::None, None).expect("nothing is compressed");
    let header = BatchHeader::parse(&batch).expect("a batch that was built parses");
    (batch, header)
}
