//! One schedule: the machines, what happens to them, and what must hold at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use taffrail_broker::clock::ManualClock;
use taffrail_broker::context::Context;
use taffrail_broker::dev::Objects;
use taffrail_broker::storage::Storage as _;
use taffrail_broker::storage::memory::Disk;
use tokio_util::sync::CancellationToken;
use turmoil::{Builder, Sim};

use super::clients::{Shared, Stage, read, write};
use super::counts::{Counts, Seen};
use super::history::Told;
use super::links::Link;
use super::machine::{BEGIN, BrokerMachine};
use super::nemesis::Life;
use super::options::Options;
use super::panics;
use super::rng::Rng;
use super::schedules::runs::Tally as _;

/// How long all machines run before messages are delivered: nothing is faster.
const TICK: Duration = Duration::from_millis(5);
/// In which the cluster must have begun.
const SETUP: Duration = Duration::from_mins(2);
/// In which everything must end once all is healed.
const PATIENCE: Duration = Duration::from_mins(3);
/// Segments on their way in one direction of a connection, and connections that wait to be accepted.
const CAPACITY: usize = 1_024;
/// A link that broke by itself is whole again with one in so many messages that are tried.
const REPAIRED: f64 = 1.0 / 20.0;
/// Violations that are told.
const TOLD: usize = 10;

/// Time in ticks.
pub(crate) fn ticks(time: Duration) -> u32 {
    (time.as_millis() / TICK.as_millis()) as u32
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) sim: Sim<'static>,
    pub(crate) brokers: Vec<Arc<BrokerMachine>>,
    /// By broker.
    pub(crate) lives: Vec<Life>,
    pub(crate) links: Vec<Link>,
    pub(crate) rng: Rng,
    pub(crate) counts: Counts,
    /// Ticks until now.
    pub(crate) now: u32,
    /// When a power was lost last.
    pub(crate) power_lost: Option<u32>,
    shared: Arc<Shared>,
    /// That of the API.
    clock: ManualClock,
}

impl World {
    /// Machines that begin to run.
    pub(crate) fn new(options: Options) -> Self {
        panics::count();
        let mut sim = Builder::new()
            .rng_seed(options.seed)
            .tick_duration(TICK)
            // It is ended here.
            .simulation_duration(Duration::MAX)
            .max_message_latency(options.latency)
            .repair_rate(REPAIRED)
            .tcp_capacity(CAPACITY)
            .enable_random_order()
            .build();
        let clock = ManualClock::new(BEGIN, "api");
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(clock.clone()), !options.seed, &*meta).unwrap();
        let objects = Objects::new(context, meta);
        let brokers: Vec<_> = (0..options.brokers)
            .map(|id| Arc::new(BrokerMachine::new(id, options.seed, options.session, objects.clone())))
            .collect();
        let replicas = options.brokers;
        sim.host("kubernetes", move || {
            let objects = objects.clone();
            async move {
                objects.prepare(replicas).await?;
                Box::pin(objects.operate(CancellationToken::new())).await;
                Ok(())
            }
        });
        for broker in &brokers {
            let machine = broker.clone();
            sim.host(broker.name.as_str(), move || machine.clone().run());
        }
        let shared = Arc::new(Shared::new(options.clone()));
        sim.client("reader", read(shared.clone()));
        let mut hosts: Vec<_> = brokers.iter().map(|broker| broker.name.clone()).collect();
        let clients = hosts.len();
        hosts.push("reader".to_owned());
        for number in 0..options.writers {
            let name = format!("writer-{number}");
            sim.client(name.as_str(), write(shared.clone(), number));
            hosts.push(name);
        }
        Self {
            lives: vec![Life::Running; brokers.len()],
            links: Link::among(&hosts, clients),
            rng: Rng::new(options.seed ^ 0x0fa0_17ed),
            counts: Counts::default(),
            now: 0,
            power_lost: None,
            options,
            sim,
            brokers,
            shared,
            clock,
        }
    }

    /// From the start to the end; how many ticks that took.
    pub(crate) fn run(&mut self) -> u32 {
        let end = self.now + ticks(SETUP);
        while !self.shared.made.load(Relaxed) {
            self.step();
            assert!(self.now < end, "liveness: the cluster does not begin");
        }
        self.shared.stage.send_replace(Stage::Faults);
        self.spoil();
        self.heal();
        self.shared.stage.send_replace(Stage::Healed);
        let end = self.now + ticks(PATIENCE);
        while !self.step() {
            assert!(self.now < end, "liveness: {}", self.open());
        }
        self.check();
        self.now
    }

    /// A tick; whether all clients are through.
    pub(crate) fn step(&mut self) -> bool {
        let done = self.sim.step().unwrap_or_else(|error| panic!("a machine ended: {error}"));
        self.now += 1;
        self.clock.advance(TICK);
        for broker in &self.brokers {
            broker.advance(TICK);
        }
        assert_eq!(panics::seen(), 0, "a task ended by a panic, which is told above");
        done
    }

    /// Wall time of the API's machine, milliseconds since 1970.
    pub(crate) fn wall_millis(&self) -> i64 {
        BEGIN + i64::from(self.now) * TICK.as_millis() as i64
    }

    /// What has not ended.
    fn open(&self) -> String {
        let writing = self.shared.writing.load(Relaxed);
        let processed = self.shared.history.lock().is_processed();
        format!("{writing} writers are not through; the group is: {processed}")
    }

    fn check(&mut self) {
        self.counts.add(&self.shared.counts.lock());
        let history = self.shared.history.lock();
        let (acked, _) = history.count(|told| matches!(told, Told::Acked(..)));
        let (unknown, stored) = history.count(|told| told == Told::Unknown);
        let numbers = [
            (Seen::Acknowledged, acked),
            (Seen::Unknown, unknown),
            (Seen::UnknownStored, stored),
            (Seen::LaterEpoch, history.led_by_several()),
        ];
        for (seen, times) in numbers {
            (0..times).for_each(|_| self.counts.saw(seen));
        }
        let wrong = history.check();
        let told = &wrong[..wrong.len().min(TOLD)];
        assert!(wrong.is_empty(), "{} violations, such as {told:#?}", wrong.len());
    }
}
