//! What was measured, as it is kept beside the report (`results.json`): single parts can be taken again, and the report is
//! made of all that belongs to the same commit and machine.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::environment::Environment;
use super::profile::Profile;
use super::report::median;

/// A figure as it was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// Of the figure.
    pub id: String,
    /// Part of the bench that took it.
    pub part: String,
    /// When its part began, UTC.
    pub at: String,
    /// One for each round.
    pub samples: Vec<f64>,
    /// CPU seconds of the process under test for each GiB, one for each round; empty when it says nothing.
    pub cpu_s_per_gib: Vec<f64>,
    /// The absolute value behind a ratio, and other things worth knowing.
    pub note: String,
}

impl Taken {
    /// Middle of the samples.
    pub fn median(&self) -> f64 {
        median(&self.samples)
    }
}

/// A limit of the machine, as it was taken beside the figures of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Such as "L_disk".
    pub name: String,
    /// Part of the bench that took it.
    pub part: String,
    /// MB/s, one for each round.
    pub samples: Vec<f64>,
}

/// All that a report is made of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Where it was measured, and what.
    pub environment: Environment,
    /// Figures.
    pub rows: Vec<Taken>,
    /// Limits.
    pub limits: Vec<Limit>,
    /// Where the time goes in figures that are missed.
    pub profiles: Vec<Profile>,
}

impl Results {
    /// What an earlier run left, if it was one of the same commit on the same machine.
    pub fn load(path: &Path, environment: Environment) -> Self {
        let read = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        match read {
            Some(results) if results.environment == environment => results,
            _ => Self { environment, ..Self::default() },
        }
    }

    /// Takes over what a part took: it replaces what was there of the same figures and limits, and old profiles.
    pub fn merge(&mut self, (rows, limits): (Vec<Taken>, Vec<Limit>)) {
        self.rows.retain(|old| rows.iter().all(|new| new.id != old.id));
        self.limits.retain(|old| limits.iter().all(|new| new.part != old.part));
        let taken_anew = |figure: &String| rows.iter().any(|row| row.id == *figure);
        self.profiles.retain(|old| !old.figures.iter().any(taken_anew));
        self.rows.extend(rows);
        self.limits.extend(limits);
    }

    /// Writes it.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(id: &str, part: &str, sample: f64) -> Taken {
        let (id, part) = (id.to_owned(), part.to_owned());
        Taken { id, part, at: String::new(), samples: vec![sample], cpu_s_per_gib: vec![], note: String::new() }
    }

    #[test]
    fn a_part_taken_again_replaces_its_rows_and_keeps_the_others() {
        let limit = |part: &str| Limit { name: "L_disk".into(), part: part.into(), samples: vec![1.0] };
        let profile = |figure: &str| Profile { figures: vec![figure.into()], ..Profile::default() };
        let mut results = Results::default();
        results.merge((vec![taken("a", "x", 1.0), taken("b", "y", 2.0)], vec![limit("x"), limit("y")]));
        results.profiles = vec![profile("a"), profile("b")];
        results.merge((vec![taken("a", "x", 3.0)], vec![limit("x")]));
        assert_eq!(results.rows, [taken("b", "y", 2.0), taken("a", "x", 3.0)]);
        assert_eq!(results.limits, [limit("y"), limit("x")]);
        assert_eq!(results.profiles, [profile("b")]);
    }

    #[test]
    fn results_of_another_commit_are_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        let of = |commit: &str| Environment { commit: commit.to_owned(), ..Environment::default() };
        let mut results = Results::load(&path, of("one"));
        results.merge((vec![taken("a", "x", 1.0)], vec![]));
        results.save(&path).unwrap();
        assert_eq!(Results::load(&path, of("one")).rows.len(), 1);
        assert_eq!(Results::load(&path, of("two")).rows.len(), 0);
    }
}
