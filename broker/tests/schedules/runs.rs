//! Many schedules on two threads, and the report on them.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::past::{self, Run};

const THREADS: usize = 2;

/// Most failures that are told in full.
const TOLD: usize = 20;

/// Counts of what happened.
pub(crate) trait Tally: Default + Send {
    fn add(&mut self, other: &Self);
    /// What there is to see, and how often it was.
    fn rows(&self) -> impl Iterator<Item = (&'static str, u64)>;
}

/// Whose schedules these are.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    /// Heading of the report.
    pub(crate) title: &'static str,
    /// Where the report goes, below the crate.
    pub(crate) report: &'static str,
}

/// Which seeds are to be run: from `SIM_FROM` on as many as `SIM_SCHEDULES` says, if it does.
pub(crate) fn asked() -> Option<(u64, u64)> {
    let schedules = std::env::var_os("SIM_SCHEDULES")?;
    let from = std::env::var("SIM_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(1_000);
    Some((from, schedules.to_str().unwrap().parse().unwrap()))
}

/// Runs so many schedules that nobody has run before: from a seed that follows from the time, or from `SIM_FROM` on, so that a
/// failure can be repeated. Fails if one of them does.
pub(crate) fn fresh<C: Tally>(schedules: u64, run: impl Fn(u64, &mut C) -> u32 + Sync) {
    let asked = std::env::var("SIM_FROM").ok().and_then(|from| from.parse().ok());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    // Far apart: runs a second after each other share no seed.
    let from = asked.unwrap_or_else(|| since_1970.as_secs() * schedules);
    eprintln!("seeds from {from} on: with SIM_FROM={from} they are these again, with SIM_SEED=<seed> one_seed is one");
    all((from, schedules), run);
}

/// Runs these many from a seed on, then writes the report. `run` answers how many steps one had, and panics if it fails. Fails
/// if one of them does, or if something never happened.
pub(crate) fn many<C: Tally>(subject: Subject, seeds: (u64, u64), run: impl Fn(u64, &mut C) -> u32 + Sync) {
    let (steps, counts) = all(seeds, run);
    let median = steps[steps.len() / 2];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(subject.report);
    let before = past::read(&std::fs::read_to_string(&path).unwrap_or_default());
    let schedules = steps.len() as u64;
    let newest = Run {
        commit: commit(subject.report),
        seeds: (seeds.0, seeds.0 + schedules - 1),
        schedules,
        cpu_seconds: cpu_time().as_secs(),
    };
    let runs = past::joined(newest, before, past::is_earlier);
    std::fs::write(path, report(subject, &runs, &steps, &counts)).expect("the report can be written");
    assert!(median >= 200, "schedules are too short: {median} steps");
    for (what, count) in counts.rows() {
        assert!(count > 0, "never happened: {what}");
    }
}

/// Runs all of these; their steps, in rising order, and what happened. Fails if one of them does, with all that did.
fn all<C: Tally>((from, schedules): (u64, u64), run: impl Fn(u64, &mut C) -> u32 + Sync) -> (Vec<u32>, C) {
    let next = AtomicU64::new(from);
    let work = || {
        let (mut counts, mut steps, mut failed) = (C::default(), vec![], vec![]);
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= from + schedules {
                return (counts, steps, failed);
            }
            match catch_unwind(AssertUnwindSafe(|| run(seed, &mut counts))) {
                Ok(some) => steps.push(some),
                Err(why) => {
                    let said = why.downcast_ref::<String>().map(String::as_str);
                    let said = said.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or_default();
                    failed.push((seed, said.to_owned()));
                }
            }
        }
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("failures are caught")).collect()
    });
    let (mut counts, mut steps, mut failed) = (C::default(), vec![], vec![]);
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
    (steps, counts)
}

/// Of the newest run, which had these steps and counts, and of all together.
fn report(subject: Subject, runs: &[Run], steps: &[u32], counts: &impl Tally) -> String {
    let Run { commit, seeds: (first, last), schedules, cpu_seconds } = &runs[0];
    let all: u64 = runs.iter().map(|run| run.schedules).sum();
    let all_cpu: u64 = runs.iter().map(|run| run.cpu_seconds).sum();
    let total: u64 = steps.iter().map(|steps| u64::from(*steps)).sum();
    let (least, median, most) = (steps[0], steps[steps.len() / 2], steps[steps.len() - 1]);
    let mut report = format!(
        "# {}\n\n\
         Written by `make sim`. Every schedule kept every rule; a schedule that fails prints its seed and stops the run.\n\n\
         The newest run:\n\n\
         | what | how much |\n|---|---:|\n\
         | commit | {commit} |\n| seeds | {first} to {last} |\n| schedules | {schedules} |\n\
         | CPU seconds | {cpu_seconds} |\n| steps | {total} |\n\
         | steps per schedule: least, median, most | {least}, {median}, {most} |\n\
         | schedules of all runs | {all} |\n| CPU seconds of all runs | {all_cpu} |\n\n\
         All runs of this commit and of those before it:\n\n\
         {}\n\
         In the newest run:\n\n\
         | what happened | times |\n|---|---:|\n",
        subject.title,
        past::table(runs),
    );
    for (what, count) in counts.rows() {
        let _ = writeln!(report, "| {what} | {count} |");
    }
    report
}

/// Of the sources, with a mark if they were changed since.
fn commit(report: &str) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_default();
    let other_than = format!(":!{report}");
    let changed = git(&["status", "--porcelain", "--", ".", &other_than]).is_none_or(|out| !out.is_empty());
    format!("{}{}", commit.trim(), if changed { " with changes" } else { "" })
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
