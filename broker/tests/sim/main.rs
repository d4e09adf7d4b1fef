//! Seeded simulation of consumer groups: the real state machine in the real core of the runtime, with clients, a network and
//! a broker in virtual time that do everything wrong that they can. After every step the rules are checked; see `model` for
//! what the log must say, `simulation` for what members believe, `checks` for answers and ends.
//!
//! `make sim` runs many schedules and writes `RUNS.md`. A run that fails prints its seed:
//! `SIM_SEED=<seed> cargo test -p taffrail-broker --test sim one_seed -- --nocapture`.

#![allow(clippy::unwrap_used)]

mod broker;
mod checks;
mod client;
mod counts;
mod faults;
mod members;
mod model;
mod rng;
#[path = "../schedules/mod.rs"]
mod schedules;
mod simulation;
mod topics;

use std::panic::{AssertUnwindSafe, catch_unwind};

use taffrail_broker::coordinator::group::{GroupShard, PlantedFault};

use broker::Make;
use counts::Counts;
use schedules::runs::{Subject, Tally as _, asked, fresh, many};
use simulation::Simulation;

/// Schedules of a test.
const BUDGET: u64 = 400;
const REAL: Make = Make { machine: GroupShard::new, early_trim: false };

/// Says which seed it was when a check fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of seed {} failed", self.0);
        }
    }
}

/// One schedule; how many steps it had.
fn run(seed: u64, make: Make, counts: &mut Counts) -> u32 {
    let seed = Seed(seed);
    let mut simulation = Simulation::new(seed.0, make);
    let length = simulation.millis(8_000, 20_000);
    simulation.run(simulation.now + length);
    simulation.heal();
    if simulation.rng.once_in(4) {
        simulation.expire();
    }
    counts.add(&simulation.counts);
    simulation.steps
}

#[test]
fn rules_hold_in_every_schedule_of_a_fixed_budget() {
    let mut counts = Counts::default();
    for seed in 0..BUDGET {
        assert!(run(seed, REAL, &mut counts) > 0);
    }
    for (what, count) in counts.rows() {
        assert!(count > 0, "never happened: {what}");
    }
}

#[test]
fn rules_hold_in_schedules_that_are_others_each_time() {
    fresh(BUDGET, |seed, counts| run(seed, REAL, counts));
}

/// Seeds that failed once: each found a fault.
#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    for seed in [] {
        run(seed, REAL, &mut Counts::default());
    }
}

#[test]
fn same_seed_gives_the_same_schedule() {
    for seed in 0..5 {
        let (mut first, mut second) = (Counts::default(), Counts::default());
        assert_eq!(run(seed, REAL, &mut first), run(seed, REAL, &mut second));
        assert!(first.rows().eq(second.rows()));
    }
}

/// For looking into a failure.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var_os("SIM_SEED") {
        run(seed.to_str().unwrap().parse().unwrap(), REAL, &mut Counts::default());
    }
}

/// The first schedules of the fixed budget in which a planted fault is seen, at most three.
fn found(make: Make, by: &[&str]) -> Vec<u64> {
    let seen = |seed: &u64| {
        let failed = catch_unwind(AssertUnwindSafe(|| run(*seed, make, &mut Counts::default())));
        let Err(why) = failed else { return false };
        let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(by.iter().any(|rule| why.contains(rule)), "seen by another rule: {why}");
        true
    };
    let found = (0..BUDGET).filter(seen).take(3).collect();
    eprintln!("seen by {by:?} with seeds {found:?}");
    found
}

#[test]
fn planted_owner_that_is_not_fenced_is_found() {
    let machine = || GroupShard::with_planted_fault(PlantedFault::OwnerNotFenced);
    assert!(!found(Make { machine, early_trim: false }, &["C6"]).is_empty());
}

#[test]
fn planted_commit_from_a_fenced_member_is_found() {
    let machine = || GroupShard::with_planted_fault(PlantedFault::CommitFromFenced);
    assert!(!found(Make { machine, early_trim: false }, &["C5"]).is_empty());
}

/// The resume came late: it is from before the member got what it does not name.
#[test]
fn planted_late_resume_that_lets_go_is_found() {
    let machine = || GroupShard::with_planted_fault(PlantedFault::LateResumeLetsGo);
    assert!(!found(Make { machine, early_trim: false }, &["C6"]).is_empty());
}

/// A commit from before a member was removed would pass for one of its next life.
#[test]
fn planted_join_with_an_epoch_that_was_given_before_is_found() {
    let machine = || GroupShard::with_planted_fault(PlantedFault::JoinEpochRepeats);
    assert!(!found(Make { machine, early_trim: false }, &["C5"]).is_empty());
}

#[test]
fn planted_trim_before_the_checkpoint_is_finished_is_found() {
    assert!(!found(Make { machine: GroupShard::new, early_trim: true }, &["C3"]).is_empty());
}

/// `make sim`: as many schedules as `SIM_SCHEDULES` says, from seed `SIM_FROM` on.
#[test]
fn many_schedules() {
    if let Some(seeds) = asked() {
        let subject = Subject { title: "Runs of the simulation", report: "tests/sim/RUNS.md" };
        many(subject, seeds, |seed, counts| run(seed, REAL, counts));
    }
}
