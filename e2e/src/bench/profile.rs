//! Where the time goes in figures that are missed: `perf record` beside a measurement, then a flame graph and the functions
//! that take most. Profiles are taken in a run of their own, so that they slow no figure down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::process::Process;

/// Samples a second and thread: not a divisor of what timers use.
const FREQUENCY: &str = "999";
/// Time in which perf attaches to all threads.
const ATTACH: Duration = Duration::from_millis(300);
/// How long perf may take to write its file.
const PATIENCE: Duration = Duration::from_mins(1);
/// Functions named in the report.
const TOP: usize = 10;

/// A profile of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Figures that the measurement is for and that were missed.
    pub figures: Vec<String>,
    /// File name of the flame graph.
    pub svg: String,
    /// Functions that take most by themselves: name and percent of all samples.
    pub top: Vec<(String, f64)>,
}

/// Takes profiles of the figures that are wanted.
#[derive(Clone, Debug)]
pub struct Profiler {
    /// Where perf's data goes meanwhile.
    work: PathBuf,
    /// Where the flame graphs go.
    out: PathBuf,
    wanted: BTreeSet<&'static str>,
    done: Arc<Mutex<Vec<Profile>>>,
}

/// A recording that runs.
#[derive(Debug)]
#[must_use = "a recording ends when it is kept"]
pub struct Recording {
    perf: Process,
    data: PathBuf,
    figures: Vec<String>,
}

impl Profiler {
    /// For the figures `wanted`.
    pub fn new(work: &Path, out: &Path, wanted: BTreeSet<&'static str>) -> Result<Self> {
        std::fs::create_dir_all(out)?;
        Ok(Self { work: work.to_owned(), out: out.to_owned(), wanted, done: Arc::default() })
    }

    /// Begins to record processes if one of the figures is wanted and has no profile yet.
    pub fn record(&self, figures: &[&str], pids: &[u32]) -> Result<Option<Recording>> {
        let done: Vec<String> = self.lock().iter().flat_map(|profile| profile.figures.clone()).collect();
        let open = |id: &&&str| self.wanted.contains(**id) && !done.iter().any(|other| other == **id);
        let figures: Vec<String> = figures.iter().filter(open).map(|id| (*id).to_owned()).collect();
        let Some(first) = figures.first() else { return Ok(None) };
        let data = self.work.join(format!("{first}.perf"));
        let pids = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let perf = Command::new("perf")
            .args(["record", "--quiet", "-e", "cpu-clock", "-F", FREQUENCY, "-g", "-p", &pids, "-o"])
            .arg(&data)
            .stdout(Stdio::null())
            .spawn()
            .context("start perf: `make bench` installs it (linux-perf)")?;
        std::thread::sleep(ATTACH);
        Ok(Some(Recording { perf: Process(perf), data, figures }))
    }

    /// Ends a recording and makes the flame graph.
    pub fn keep(&self, recording: Recording) -> Result<()> {
        let Recording { mut perf, data, figures } = recording;
        perf.signal(Signal::INT)?;
        perf.wait(PATIENCE)?;
        let folded = fold(&data)?;
        std::fs::remove_file(&data)?;
        let svg = format!("{}.svg", figures[0]);
        let mut options = flamegraph::Options::default();
        options.title = format!("{}: CPU time", figures.join(", "));
        options.min_width = 0.1;
        let file = BufWriter::new(File::create(self.out.join(&svg))?);
        flamegraph::from_lines(&mut options, folded.lines(), file).context("draw the flame graph")?;
        self.lock().push(Profile { figures, svg, top: top(&folded) });
        Ok(())
    }

    /// All profiles so far.
    pub fn profiles(&self) -> Vec<Profile> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Profile>> {
        self.done.lock().expect("nobody panics with it")
    }
}

/// Stacks, one a line, each with the number of its samples. Without inlined functions: naming them takes perf minutes.
fn fold(data: &Path) -> Result<String> {
    let mut script: Child = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start perf script")?;
    let samples = std::io::BufReader::new(script.stdout.take().context("perf's output")?);
    let mut folded = vec![];
    let collapsed = Folder::from(FoldOptions::default()).collapse(samples, &mut folded);
    ensure!(script.wait()?.success(), "perf script cannot read {}", data.display());
    collapsed.context("fold perf's stacks")?;
    Ok(String::from_utf8(folded)?)
}

/// The functions at the end of most samples, with their share in percent.
fn top(folded: &str) -> Vec<(String, f64)> {
    let mut functions = BTreeMap::<&str, u64>::new();
    for (stack, count) in folded.lines().filter_map(|line| line.rsplit_once(' ')) {
        *functions.entry(stack.rsplit(';').next().unwrap_or(stack)).or_default() += count.parse().unwrap_or(0);
    }
    let all: u64 = functions.values().sum();
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let share = |(name, count): (&str, u64)| (name.to_owned(), count as f64 / all as f64 * 100.0);
    functions.into_iter().take(TOP).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_functions_are_those_at_the_ends_of_stacks() {
        let folded = "writer;write;crc 30\nwriter;flush;crc 20\nreader;read 25\nwriter;write 25\n";
        let expected = [("crc", 50.0), ("read", 25.0), ("write", 25.0)].map(|(name, share)| (name.to_owned(), share));
        assert_eq!(top(folded), expected);
    }
}
