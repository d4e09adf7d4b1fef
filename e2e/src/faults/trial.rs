//! One fault, tried: it becomes a row of the table, whatever comes of it, and fails its test if a promise was broken.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::allowed;
use super::table::{Kind, Row, Table};
use crate::cli::{self, project};

/// A fault of the list and what is promised of it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number in the list, with a letter where a fault has several shapes.
    pub number: &'static str,
    /// What breaks.
    pub fault: &'static str,
    /// How it is caused.
    pub injected: &'static str,
    /// What must come of it, with limits.
    pub promised: &'static str,
}

/// What is seen while a fault is tried.
#[derive(Debug, Default)]
pub struct Trial {
    seen: Vec<String>,
    broken: Vec<String>,
}

impl Trial {
    /// Tries a fault on real things: runs `body`, writes the row, and fails if anything that was promised did not hold.
    pub async fn run(fault: &Fault, body: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut trial = Self::default();
        if let Err(error) = body(&mut trial).await {
            let said = format!("{error:#}");
            // The whole is in the test's output; a cell holds a sentence.
            trial.broken.push(said.lines().next().unwrap_or_default().chars().take(300).collect());
            eprintln!("{} {}: {said}", fault.number, fault.fault);
        }
        trial.end(fault, Kind::Real)
    }

    /// Notes something worth knowing.
    pub fn saw(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("saw: {what}");
        self.seen.push(what);
    }

    /// Notes how long something took, which had a limit ([`allowed`]).
    pub fn within(&mut self, what: &str, taken: Duration, limit: Duration) {
        let limit = allowed(limit);
        let told = format!("{what} {} (≤ {})", seconds(taken), seconds(limit));
        if taken > limit {
            self.broken.push(told.clone());
        }
        self.saw(told);
    }

    /// Notes what is broken unless it holds.
    pub fn must(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            let what = what.into();
            eprintln!("broken: {what}");
            self.broken.push(what);
        }
    }

    /// Writes the row; an error if a promise was broken.
    pub fn end(self, fault: &Fault, kind: Kind) -> Result<()> {
        let Fault { number, fault, injected, promised } = *fault;
        let row = Row {
            number: number.to_owned(),
            fault: fault.to_owned(),
            injected: injected.to_owned(),
            kind,
            promised: promised.to_owned(),
            seen: self.seen,
            broken: self.broken.clone(),
            commit: commit(),
            date: printed(Command::new("date").args(["-u", "+%F %R"])).unwrap_or_default(),
        };
        Table::record(row)?;
        if !self.broken.is_empty() {
            bail!("{number} {fault}: a promise is broken: {}", self.broken.join("; "));
        }
        Ok(())
    }
}

/// Seconds as the table shows them.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{} ms", time.as_millis());
    }
    let tenths = (time.as_secs_f64() * 10.0).round() / 10.0;
    format!("{tenths} s")
}

/// The commit that is tested; what the tests themselves write is no change.
fn commit() -> String {
    let git = |arguments: &[&str]| printed(Command::new("git").arg("-C").arg(project()).args(arguments));
    let tree = ["status", "--porcelain", "--", ".", ":(exclude)e2e/faults", ":(exclude)e2e/bench"];
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&tree)) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes"),
        (None, _) => "not a git tree".to_owned(),
    }
}

fn printed(command: &mut Command) -> Option<String> {
    Some(cli::run(command, "").ok()?.ok().ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault = Fault { number: "0", fault: "f", injected: "i", promised: "p" };

    #[tokio::test]
    async fn a_trial_fails_with_what_is_late_or_does_not_hold_or_goes_wrong() {
        let limit = Duration::from_secs(2);
        Trial::run(&FAULT, async |trial| {
            trial.within("back after", limit, limit);
            trial.must(true, "held");
            Ok(())
        })
        .await
        .unwrap();
        let late = async |trial: &mut Trial| {
            trial.within("back after", 3 * limit + Duration::from_millis(260), limit);
            Ok(())
        };
        let error = Trial::run(&FAULT, late).await.unwrap_err().to_string();
        assert!(error.ends_with("back after 6.3 s (≤ 6 s)"), "{error}");
        let error = Trial::run(&FAULT, async |trial| {
            trial.must(false, "it lost 1");
            bail!("and ended\nwith details")
        });
        assert!(error.await.unwrap_err().to_string().ends_with("it lost 1; and ended"));
    }
}
