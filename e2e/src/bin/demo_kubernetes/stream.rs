//! Who produces which flights, and how they get into a pod: through its standard input, evenly over some seconds.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_e2e::flights::origin;
use taffrail_e2e::process::Process;

use crate::kubectl::{kubectl, wait};
use crate::objects::NAMESPACE;

/// The stream takes at least this long, so that what happens meanwhile falls into its middle.
const STREAM_TIME: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_mins(2);
/// Lines are handed over in so many parts.
pub(crate) const PARTS: usize = 40;

/// What happens before a part is handed over: which part, and what, which is told how many lines were before.
pub(crate) type Event<'a> = (usize, &'a dyn Fn(usize) -> Result<()>);

/// What each of the two producers sends. An airport's flights are all with one, so that their order is that of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// `AIRPORT:FLIGHT`, as `client/examples/python/produce.py` takes them.
    pub(crate) python: Vec<String>,
    /// Lines as they are.
    pub(crate) command_line: Vec<String>,
}

impl Share {
    /// Airports from A to C are Python's.
    pub(crate) fn of(lines: &[String]) -> Result<Self> {
        let mut share = Self { python: vec![], command_line: vec![] };
        for line in lines {
            let airport = origin(line)?;
            if airport.as_str() < "D" {
                share.python.push(format!("{airport}:{line}"));
            } else {
                share.command_line.push(line.clone());
            }
        }
        Ok(share)
    }
}

/// Hands lines to a pod and waits for its end; gives what it printed.
pub(crate) fn produce(pod: &str, lines: &[String], events: &[Event<'_>]) -> Result<String> {
    let object = format!("pod/{pod}");
    wait(&object, "condition=Ready", PATIENCE)?;
    let mut attach = Command::new("kubectl");
    attach
        .args(["attach", "-i", "-q", pod, "-n", NAMESPACE])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut attached = Process(attach.spawn().context("start kubectl attach")?);
    let mut stdin = attached.0.stdin.take().context("no standard input")?;
    let (mut handed_over, mut due) = (0, Instant::now());
    for (i, part) in lines.chunks(lines.len().div_ceil(PARTS).max(1)).enumerate() {
        for (_, happen) in events.iter().filter(|(part, _)| *part == i) {
            happen(handed_over)?;
        }
        let text: String = part.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        stdin.write_all(text.as_bytes()).with_context(|| format!("{pod} takes no more input"))?;
        handed_over += part.len();
        due = due.max(Instant::now()) + STREAM_TIME / PARTS as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    drop(stdin);
    let status = attached.wait(PATIENCE)?;
    ensure!(status.success(), "kubectl attach {pod} ended with {status}");
    wait(&object, "jsonpath={.status.phase}=Succeeded", PATIENCE)?;
    kubectl(&["logs", pod, "-n", NAMESPACE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flight_is_sent_by_one_producer_and_those_of_an_airport_by_the_same() {
        let lines = taffrail_e2e::flights::lines().expect("flights");
        let share = Share::of(&lines).expect("flights");
        assert_eq!(share.python.len() + share.command_line.len(), lines.len());
        assert!(share.python.len() > 1_000 && share.command_line.len() > 10_000);
        let first = share.python.first().expect("a flight");
        let (airport, line) = first.split_once(':').expect("a key");
        assert_eq!(airport, origin(line).expect("a flight"));
        assert!(share.command_line.iter().all(|line| origin(line).is_ok_and(|airport| airport.as_str() >= "D")));
        // One request carries all of Python's.
        assert!(share.python.iter().map(String::len).sum::<usize>() < 4 << 20);
    }
}
