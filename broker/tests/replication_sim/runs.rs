//! Many schedules on two threads, and the report on them.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::counts::Counts;
use super::options::Options;
use super::run;

const THREADS: usize = 2;
const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replication_sim/RUNS.md");

/// Most failures that are told in full.
const TOLD: usize = 20;

/// Runs them all, then writes the report. Fails if one of them does, or if something never happened.
pub(crate) fn many(from: u64, schedules: u64) {
    let next = AtomicU64::new(from);
    let work = || {
        let (mut counts, mut steps, mut failed) = (Counts::default(), vec![], vec![]);
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= from + schedules {
                return (counts, steps, failed);
            }
            match catch_unwind(AssertUnwindSafe(|| run(&Options::of(seed, None), &mut counts))) {
                Ok(some) => steps.push(some),
                Err(why) => failed.push((seed, why.downcast_ref::<String>().cloned().unwrap_or_default())),
            }
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("failures are caught")).collect()
    });
    let (mut counts, mut steps, mut failed) = (Counts::default(), vec![], vec![]);
    for (some, more, bad) in results {
        counts.add(&some);
        steps.extend(more);
        failed.extend(bad);
    }
    for (seed, why) in failed.iter().take(TOLD) {
        eprintln!("seed {seed}: {why}");
    }
    assert!(failed.is_empty(), "{} of {schedules} schedules failed", failed.len());
    steps.sort_unstable();
    let median = steps[steps.len() / 2];
    std::fs::write(REPORT, report(from, schedules, &steps, &counts)).expect("the report can be written");
    assert!(median >= 200, "schedules are too short: {median} steps");
    for (what, count) in counts.rows() {
        assert!(count > 0, "never happened: {what}");
    }
}

fn report(from: u64, schedules: u64, steps: &[u32], counts: &Counts) -> String {
    let total: u64 = steps.iter().map(|steps| u64::from(*steps)).sum();
    let (least, median, most) = (steps[0], steps[steps.len() / 2], steps[steps.len() - 1]);
    let mut report = format!(
        "# Runs of the simulation of replication\n\n\
         Written by `make sim`. Every schedule kept every rule; a schedule that fails prints its seed and stops the run.\n\n\
         | what | how much |\n|---|---:|\n\
         | commit | {} |\n| seeds | {from} to {} |\n| schedules | {schedules} |\n| CPU seconds | {:.0} |\n\
         | steps | {total} |\n| steps per schedule: least, median, most | {least}, {median}, {most} |\n\n\
         | what happened | times |\n|---|---:|\n",
        commit(),
        from + schedules - 1,
        cpu_time().as_secs_f64(),
    );
    for (what, count) in counts.rows() {
        let _ = writeln!(report, "| {what} | {count} |");
    }
    report
}

/// Of the sources, with a mark if they were changed since.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let changed =
        git(&["status", "--porcelain", "--", ".", ":!tests/replication_sim/RUNS.md"]).is_none_or(|out| !out.is_empty());
    format!("{}{}", commit.trim(), if changed { " with changes" } else { "" })
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
