//! Coordinators: replicated state machines whose log is a partition of an internal topic.
//!
//! A *shard* is a [`StateMachine`]: `handle(request)` decides and changes nothing; it answers with records and effects.
//! `replay(record)` is the only thing that changes state. The runtime around it appends the records to the shard's
//! partition, replays them, and hands the answer out once they are committed (C4); it loads a shard by replaying its log
//! (C2), keeps its timers, and bounds its log by checkpoint and trim. Live state is what replay gives, at every offset (C3).
//!
//! Consumer groups ([`group`]) are the first user; the runtime knows nothing of them.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;

pub mod group;
pub mod groups;
pub mod runtime;

/// What a decision is given in place of ambient time and surroundings.
#[derive(Debug)]
pub struct Env<'a, W> {
    /// Boot time: what timers go by. Never goes back.
    pub now: Duration,
    /// Log time in milliseconds (see [`crate::clock::log_time`]): what is kept in records and outlives the process.
    pub log_millis: i64,
    /// Wall time in milliseconds since 1970, for people only.
    pub wall_millis: i64,
    /// What the shard sees of the world outside: for groups, the topics.
    pub world: &'a W,
}

/// A shard's decisions and state. Deterministic: the same calls give the same answers and the same state.
pub trait StateMachine: Send + Sized + 'static {
    /// What it is asked.
    type Request: Send + 'static;
    /// What it answers, refusals included.
    type Answer: Send + 'static;
    /// A change of state, as it is kept in the log.
    type Record: Clone + Debug + Send + Sync + 'static;
    /// Names a timer. Timers are not kept: a loaded shard starts those that it wants anew.
    type Timer: Clone + Debug + Ord + Send + 'static;
    /// Told to whoever watches the shard, once the records that came with it are committed.
    type Event: Send + 'static;
    /// What it sees of the world outside.
    type World: Clone + Send + Sync + 'static;

    /// Decides. Changes nothing: the records of the answer do, when they are replayed.
    fn handle(&self, request: Self::Request, env: &Env<'_, Self::World>) -> Effects<Self>;
    /// A timer has run out. It is not set any more.
    fn on_timer(&self, timer: &Self::Timer, env: &Env<'_, Self::World>) -> Effects<Self>;
    /// The world has changed to what `env` gives.
    fn on_world(&self, env: &Env<'_, Self::World>) -> Effects<Self>;
    /// The log was replayed to its end and the shard is about to serve.
    fn on_loaded(&self, env: &Env<'_, Self::World>) -> Effects<Self>;
    /// Applies a record. Never fails: a record that makes no sense changes nothing.
    fn replay(&mut self, record: &Self::Record);
    /// The whole state as records: replayed into an empty machine they give this state. Cheap to make (copy on write), so
    /// that the shard goes on while it is written.
    fn checkpoint(&self) -> Box<dyn Iterator<Item = Self::Record> + Send>;
    /// A record's bytes: key and value of a record in the log.
    fn encode(record: &Self::Record) -> (Bytes, Bytes);
    /// A record of its bytes. `None`: written by a newer version or damaged; the shard does not load then.
    fn decode(key: &[u8], value: &[u8]) -> Option<Self::Record>;
}

/// What follows from a decision.
pub struct Effects<M: StateMachine> {
    /// To be appended, all or none, in this order.
    pub records: Vec<M::Record>,
    /// To be given once the records, and all before them, are committed. `None` parks the request under
    /// [`park`](Self::park), or there was no request.
    pub answer: Option<M::Answer>,
    /// Names the request, so that a later decision can answer it.
    pub park: Option<M::Timer>,
    /// Answers of parked requests.
    pub completed: Vec<(M::Timer, M::Answer)>,
    /// Changes of timers. They hold at once.
    pub timers: Vec<TimerChange<M::Timer>>,
    /// To be told once the records are committed.
    pub events: Vec<M::Event>,
}

/// A change of a timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange<T> {
    /// It runs out this long from now, whatever it was set to before.
    Set(T, Duration),
    /// It does not run any more.
    Cancel(T),
}

impl<M: StateMachine> Default for Effects<M> {
    fn default() -> Self {
        Self { records: vec![], answer: None, park: None, completed: vec![], timers: vec![], events: vec![] }
    }
}

impl<M: StateMachine> Effects<M> {
    /// Only an answer.
    pub fn answer(answer: M::Answer) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }
}
