//! Whole brokers, as they run in Kubernetes, and real clients, wired together by gRPC over a simulated network ([`turmoil`]):
//! what the simulations of single machines (`sim`, `replication_sim`) leave out, from listeners to the order of a start.
//!
//! Each broker has a host with a disk in memory that outlives its process ([`machine`]), and a way to the cluster's objects that
//! can be cut ([`api`]); one host does what Kubernetes and the operator do. Writers, a reader and a member of a group use them
//! ([`clients`]). While things go wrong ([`nemesis`], [`links`]) nothing that was acknowledged or read may be lost, doubled,
//! reordered or changed ([`history`]). Then all is healed, for good, and every produce, fetch and commit must end.
//!
//! # What a seed says, and what it does not
//!
//! Options and faults, with their places and times, follow from the seed alone. What happens between two faults does not follow
//! to the last step: tasks are woken from threads that are real, `select!` and hash maps have their own randomness, and so have
//! clients. A seed that fails is thus likely to fail again, but not certain to, as it is with the other simulations.
//!
//! # Time
//!
//! All machines go forward together, [5 ms](world) at a time; within that each runs alone, on its own paused clock, which jumps to
//! the next timer whenever no task can run. What brokers do by `spawn_blocking` (lists of logs, what a volume remembers, each call
//! of the API) runs on real threads: while one is at work tokio lets the clock of its host stand, and the other hosts wait. Such
//! work takes no simulated time, however long it takes, and always ends within its tick; none of it waits for time to pass, or the
//! simulation would wait for ever. What real threads add is the order in which the ends of several pieces of work of one host are
//! noticed, and whether a task that is ready meanwhile runs before. No thread touches the network, which only the thread of the
//! simulation knows. A process that dies does so after the work that its threads have begun: a change of the API that is under way
//! then has taken effect, and nobody heard of it.
//!
//! The broker's own clock moves by whole ticks and stands in between: it lags up to 5 ms behind tokio's.
//!
//! # What turmoil's network does
//!
//! It keeps the order within a connection, delivers what was held all at once, and never sends again: a segment that is lost in a
//! cut is a hole behind which nothing arrives. Such a connection is found by its pings, as one to a machine without power is. An
//! acknowledgement of a connection comes without delay and through cuts. A process that dies closes its connections, as a kernel
//! does; a machine that loses its power does not.
//!
//! `make sim` runs many schedules and writes `RUNS.md`. A run that fails prints its seed and what follows from it:
//! `SIM_SEED=<seed> cargo test -p taffrail-broker --test wiring one_seed -- --nocapture`, with `SIM_TRACE=info` and the log of all
//! machines.

#![allow(clippy::unwrap_used)]

mod api;
mod clients;
mod counts;
mod history;
mod links;
mod machine;
mod nemesis;
mod network;
mod options;
mod panics;
#[path = "../sim/rng.rs"]
mod rng;
#[path = "../schedules/mod.rs"]
mod schedules;
mod world;

use std::time::Duration;

use counts::Counts;
use options::Options;
use schedules::runs::{Subject, Tally as _, asked, fresh, many};
use taffrail_broker::config::LogFormat;
use taffrail_broker::telemetry;
use world::World;

/// Schedules of a test: each takes a second or two.
const BUDGET: u64 = 4;

/// Says which schedule it was when a check fails.
struct Told<'a>(&'a Options);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("SIM_SCHEDULES").is_none() {
            eprintln!("the schedule of seed {} failed: {}", self.0.seed, self.0);
        }
    }
}

/// One schedule; how many ticks it had.
fn run(options: &Options, counts: &mut Counts) -> u32 {
    let told = Told(options);
    let mut world = World::new(options.clone());
    let ticks = world.run();
    counts.add(&world.counts);
    drop(told);
    ticks
}

#[test]
fn whole_brokers_serve_while_nothing_goes_wrong() {
    let never = Duration::from_hours(1);
    let options = Options { lost: 0, fault_every: never, length: Duration::from_secs(3), ..Options::of(0) };
    let mut counts = Counts::default();
    run(&options, &mut counts);
    for (what, times) in counts.rows() {
        assert!(times == 0 || what.starts_with("branch"), "{times} times {what}");
    }
}

#[test]
fn whole_brokers_lose_nothing_and_come_to_an_end_in_every_schedule_of_a_fixed_budget() {
    let mut counts = Counts::default();
    for seed in 0..BUDGET {
        assert!(run(&Options::of(seed), &mut counts) > 0);
    }
}

#[test]
fn whole_brokers_lose_nothing_and_come_to_an_end_in_schedules_that_are_others_each_time() {
    fresh(BUDGET, |seed, counts| run(&Options::of(seed), counts));
}

/// For looking into a failure.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var_os("SIM_SEED") {
        if let Some(level) = std::env::var_os("SIM_TRACE") {
            telemetry::start(LogFormat::Human, level.to_str().unwrap().parse().unwrap(), false);
        }
        let options = Options::of(seed.to_str().unwrap().parse().unwrap());
        eprintln!("{options}");
        run(&options, &mut Counts::default());
    }
}

/// `make sim`: as many schedules as `SIM_SCHEDULES` says, from seed `SIM_FROM` on.
#[test]
fn many_schedules() {
    if let Some(seeds) = asked() {
        let subject = Subject { title: "Runs of the simulation of whole brokers", report: "tests/wiring/RUNS.md" };
        many(subject, seeds, |seed, counts| run(&Options::of(seed), counts));
    }
}
