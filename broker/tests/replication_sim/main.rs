//! Seeded simulation of replication: the real machines of leader and follower, the controller's real plan and the real
//! decision about sessions, with a network, disks, clients and a metadata store in virtual time that do everything wrong
//! that they can. What is around the machines (roles, streams, rounds of the controller) does here what their tasks do.
//!
//! After every step the rules are checked by somebody who sees everything, see `checks` and `history`. First everything is
//! kept safe under faults; then a set of brokers that suffices is healed for good, and everything must end.
//!
//! `make sim` runs many schedules and writes `RUNS.md`. A run that fails prints its seed and what follows from it:
//! `SIM_SEED=<seed> cargo test -p taffrail-broker --test replication_sim one_seed -- --nocapture`.

#![allow(clippy::unwrap_used)]

mod checks;
mod clients;
mod clocks;
mod control;
mod counts;
mod following;
mod history;
mod leading;
mod log;
mod moving;
mod nemesis;
mod network;
mod options;
mod planted;
mod process;
mod refusing;
mod replica;
mod rewinding;
#[path = "../sim/rng.rs"]
mod rng;
#[path = "../schedules/mod.rs"]
mod schedules;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use counts::Counts;
use options::Options;
use planted::Planted;
use schedules::runs::{Subject, Tally as _, asked, fresh, many};
use world::World;

/// Schedules of a test.
const BUDGET: u64 = 300;
/// In so many a planted fault must be seen.
const PLANTED_BUDGET: u64 = 2_000;

/// Says which schedule it was when a check fails.
struct Told<'a>(&'a Options);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.0.planted.is_none() && std::env::var_os("SIM_SCHEDULES").is_none() {
            eprintln!("the schedule of seed {} failed: {}", self.0.seed, self.0);
        }
    }
}

/// One schedule; how many steps it had.
fn run(options: &Options, counts: &mut Counts) -> u32 {
    let told = Told(options);
    let mut world = World::new(options.clone());
    world.trace = std::env::var_os("SIM_TRACE").is_some();
    world.run(options.length * 1_000);
    world.end_rewind();
    world.heal();
    counts.add(&world.counts);
    drop(told);
    world.steps
}

#[test]
fn rules_hold_in_every_schedule_of_a_fixed_budget() {
    let mut counts = Counts::default();
    for seed in 0..BUDGET {
        assert!(run(&Options::of(seed, None), &mut counts) > 0);
    }
    for (what, count) in counts.rows() {
        assert!(count > 0, "never happened: {what}");
    }
}

#[test]
fn rules_hold_in_schedules_that_are_others_each_time() {
    fresh(BUDGET, |seed, counts| run(&Options::of(seed, None), counts));
}

/// Seeds that failed once: each found a fault. Of the controller, which took sessions that it had not heard of for lost (25,
/// 307), of the leader, which took followers for lagging that report faster than they catch up (249, 912), of the follower,
/// which kept a high watermark from before a loss that was declared while it was away (8420) and began anew behind what is
/// committed (2004809), of the leader, which took a history for its own of which it had deleted all (3014873), and of the
/// checks, which compared logs of replicas out of sync (8787, 18880, 26603) and of leaders that died when they were elected
/// (9307, 17196, 19951), and blamed acknowledgements that were under way while their loss was declared (4001557). In others the
/// faults left nobody with what was acknowledged, while one that had it was about to stop (3002997, 3008828, 3025968), or
/// counted for less than one of which nobody knew yet that it had lost its records (6065447).
#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    let seeds = [25, 249, 307, 912, 8_420, 8_787, 9_307, 17_196, 18_880, 19_951, 26_603, 2_004_809, 3_014_873];
    for seed in seeds.into_iter().chain([3_002_997, 3_008_828, 3_025_968]) {
        run(&Options::without_moves(seed, None), &mut Counts::default());
    }
    for seed in [4_001_557, 6_065_447] {
        run(&Options::of(seed, None), &mut Counts::default());
    }
    // A move that was completed while too few were in sync, as the one that went counted for nothing (5041547). In others the
    // checks asked for too much, or too early: with moves that could not be completed without the broker that stayed broken
    // (3002945), went back to it (18546, 5105909), or began to go there before anybody had noticed that (6567, 8424), and with one
    // that was about to be in sync while the leader died (5064985).
    let seeds = [6_567, 8_424, 18_546, 3_002_945, 5_041_547, 5_064_985, 5_105_909];
    for seed in seeds {
        run(&Options::with_moves(seed, None), &mut Counts::default());
    }
}

#[test]
fn same_seed_gives_the_same_schedule() {
    for seed in 0..5 {
        let (mut first, mut second) = (Counts::default(), Counts::default());
        let options = Options::of(seed, None);
        assert_eq!(run(&options, &mut first), run(&options, &mut second));
        assert!(first.rows().eq(second.rows()));
    }
}

/// For looking into a failure.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var_os("SIM_SEED") {
        let options = Options::of(seed.to_str().unwrap().parse().unwrap(), None);
        eprintln!("{options}");
        run(&options, &mut Counts::default());
    }
}

/// The first schedule in which a planted fault is seen, by one of these rules.
fn found(planted: Planted, by: &[&str]) {
    let seen = |seed: &u64| {
        let options = Options::of(*seed, Some(planted));
        let failed = catch_unwind(AssertUnwindSafe(|| run(&options, &mut Counts::default())));
        let Err(why) = failed else { return false };
        let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(by.iter().any(|rule| why.starts_with(rule)), "{planted:?} is seen by another rule: {why}");
        true
    };
    let first = (0..PLANTED_BUDGET).find(seen);
    eprintln!("{planted:?} is seen with seed {first:?}");
    assert!(first.is_some(), "{planted:?} is not seen in {PLANTED_BUDGET} schedules");
}

#[test]
fn planted_truncation_to_the_high_watermark_is_found() {
    found(Planted::TruncateToHighWatermark, &["lost-write", "H1", "I4", "E6"]);
}

#[test]
fn planted_session_that_is_not_checked_is_found() {
    found(Planted::IncarnationNotChecked, &["lost-write", "H1", "I4", "E6", "I8"]);
}

#[test]
fn planted_local_shrink_is_found() {
    found(Planted::ShrinkLocally, &["I8", "lost-write", "H1", "I4"]);
}

#[test]
fn planted_acknowledgement_below_min_isr_is_found() {
    found(Planted::AckBelowMinIsr, &["H2"]);
}

#[test]
fn planted_high_watermark_by_the_committed_isr_is_found() {
    found(Planted::CommittedIsrOnly, &["lost-write", "H1", "I4", "E6"]);
}

#[test]
fn planted_silence_taken_for_refusal_is_found() {
    found(Planted::SilenceIsRefusal, &["I8", "lost-write", "H1", "I4"]);
}

#[test]
fn planted_answer_of_an_older_epoch_is_found() {
    found(Planted::OlderEpochAccepted, &["E3", "inconsistent-offsets", "lost-write", "H1", "T4", "I4"]);
}

#[test]
fn planted_leadership_without_a_quorum_read_is_found() {
    found(Planted::NoQuorumRead, &["M7"]);
}

#[test]
fn planted_follower_that_counts_before_it_has_written_is_found() {
    found(Planted::CountedBeforeWritten, &["lost-write", "H1", "I4", "E6"]);
}

#[test]
fn planted_eligibility_after_a_loss_is_found() {
    found(Planted::EligibleAfterLoss, &["lost-write", "H1", "I4", "E6"]);
}

#[test]
fn planted_move_that_is_completed_too_early_is_found() {
    found(Planted::MovedBeforeCaughtUp, &["I10", "L4", "lost-write", "H1", "I4", "E6"]);
}

#[test]
fn planted_watch_that_is_not_listed_anew_is_found() {
    found(Planted::NotListedAnew, &["liveness"]);
}

#[test]
fn planted_obedience_to_older_metadata_is_found() {
    // Before anybody misses the freeze, all that follows from it may be seen.
    let consequences = ["lost-write", "inconsistent-offsets", "non-monotonic", "duplicate", "order", "H1", "H5", "T4"];
    let by = [&["M5", "E6", "I4", "L4", "L8", "R5"][..], &consequences].concat();
    found(Planted::OlderMetadataObeyed, &by);
}

#[test]
fn planted_lease_by_the_wall_clock_is_found() {
    found(Planted::LeaseByWallClock, &["M16", "liveness"]);
}

/// `make sim`: as many schedules as `SIM_SCHEDULES` says, from seed `SIM_FROM` on.
#[test]
fn many_schedules() {
    if let Some(seeds) = asked() {
        let subject =
            Subject { title: "Runs of the simulation of replication", report: "tests/replication_sim/RUNS.md" };
        many(subject, seeds, |seed, counts| run(&Options::of(seed, None), counts));
    }
}
