//! Runs of before, as a report tells them: so that they add up over commits.

use std::process::Command;

/// Heads the table in a report.
const HEADING: &str = "| run of commit | seeds | schedules | CPU seconds |";

/// One run, all schedules of which kept every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Of the sources, with a mark if they were changed since.
    pub(crate) commit: String,
    /// First seed and last.
    pub(crate) seeds: (u64, u64),
    pub(crate) schedules: u64,
    pub(crate) cpu_seconds: u64,
}

impl Run {
    fn row(&self) -> String {
        let Self { commit, seeds: (first, last), schedules, cpu_seconds } = self;
        format!("| {commit} | {first} to {last} | {schedules} | {cpu_seconds} |\n")
    }

    fn parse(row: &str) -> Option<Self> {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, commit, seeds, schedules, cpu_seconds, _] = cells[..] else { return None };
        let (first, last) = seeds.split_once(" to ")?;
        Some(Self {
            commit: commit.to_owned(),
            seeds: (first.parse().ok()?, last.parse().ok()?),
            schedules: schedules.parse().ok()?,
            cpu_seconds: cpu_seconds.parse().ok()?,
        })
    }
}

/// The runs that a report tells of.
pub(crate) fn read(report: &str) -> Vec<Run> {
    let rows = report.lines().skip_while(|line| *line != HEADING).skip(2);
    rows.map_while(Run::parse).collect()
}

/// The newest run with those of before it that count: of commits for which `is_earlier` holds. The same seeds of the same
/// commit are the same schedules: they count once.
pub(crate) fn joined(newest: Run, before: Vec<Run>, is_earlier: impl Fn(&str) -> bool) -> Vec<Run> {
    let is_again = |run: &Run| {
        let overlap = run.seeds.0 <= newest.seeds.1 && newest.seeds.0 <= run.seeds.1;
        run.commit == newest.commit && overlap
    };
    let kept: Vec<_> = before.into_iter().filter(|run| !is_again(run) && is_earlier(&run.commit)).collect();
    std::iter::once(newest).chain(kept).collect()
}

/// As a table, the newest first.
pub(crate) fn table(runs: &[Run]) -> String {
    let rows: String = runs.iter().map(Run::row).collect();
    format!("{HEADING}\n|---|---|---:|---:|\n{rows}")
}

/// Whether the commit is the one that is checked out or lies before it. What git does not know is neither.
pub(crate) fn is_earlier(commit: &str) -> bool {
    let Some(hash) = commit.split_whitespace().next() else { return false };
    let asked = Command::new("git")
        .args(["merge-base", "--is-ancestor", hash, "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    asked.is_ok_and(|answer| answer.status.success())
}

#[test]
fn runs_of_earlier_commits_add_up_and_the_same_seeds_count_once() {
    let run = |commit: &str, first, last| Run {
        commit: commit.to_owned(),
        seeds: (first, last),
        schedules: last - first + 1,
        cpu_seconds: 7,
    };
    let before = vec![run("b", 1, 100), run("b", 101, 200), run("a with changes", 1, 100), run("other", 1, 100)];
    let report = format!("# Runs\n\n| what | how much |\n|---|---:|\n| commit | b |\n\n{}\nEnd.\n", table(&before));
    assert_eq!(read(&report), before);
    assert_eq!(read("# Runs\n"), []);
    let all = joined(run("b", 150, 180), read(&report), |commit| commit != "other");
    assert_eq!(all, [run("b", 150, 180), run("b", 1, 100), run("a with changes", 1, 100)]);
}
