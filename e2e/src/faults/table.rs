//! The fault table in `e2e/faults`: a row for each fault, written by the test that has tried it, passed or failed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::project;

/// Names the folder that rows are written into; without it none are.
pub const FOLDER: &str = "TAFFRAIL_FAULTS_TABLE";

const HEAD: &str = "# What happens when things break

Written by `make faults` (and `make e2e`, of which it is part): each row by the test that caused the fault on a real Kubernetes of three nodes in three
zones (`e2e/cluster`), or by the simulation where the kernel cannot cause it. Unless a row says otherwise: three brokers, a topic of
four partitions with `replicationFactor: 3` and `minInSyncReplicas: 2`, idempotent producers with acks=all that write unique values
to every partition all the time, a reader that follows, and defaults for everything else. **safe** means that a fresh reader finds,
after the fault: no acknowledged record missing or at another offset than was told, none twice, none that was refused, the
records of each producer in the order of its sends, no hole; and that the reader that followed saw the same records at the same
offsets. The JSON beside this page has the same rows.

| # | fault | how it is caused | | promised | seen | kept | commit, date |
|---|---|---|---|---|---|---|---|
";

/// Where a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// To real processes, networks and disks.
    Real,
    /// In the simulation.
    Simulated,
}

/// What a fault did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Number in the list of faults, with a letter where a fault has several shapes.
    pub number: String,
    /// What breaks.
    pub fault: String,
    /// How it is caused.
    pub injected: String,
    /// Where.
    pub kind: Kind,
    /// What must come of it, with limits.
    pub promised: String,
    /// What came of it.
    pub seen: Vec<String>,
    /// What of the promise was broken.
    pub broken: Vec<String>,
    /// What was tested.
    pub commit: String,
    /// When.
    pub date: String,
}

impl Row {
    fn markdown(&self) -> String {
        let kind = if self.kind == Kind::Real { "real" } else { "simulated" };
        let kept =
            if self.broken.is_empty() { "yes".to_owned() } else { format!("**no**: {}", self.broken.join("; ")) };
        let commit = format!("{}, {}", self.commit, self.date);
        let seen = self.seen.join("; ");
        let cells: [&str; 8] = [&self.number, &self.fault, &self.injected, kind, &self.promised, &seen, &kept, &commit];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        format!("| {} |\n", cells.join(" | "))
    }

    /// Numbers are sorted as numbers.
    fn place(&self) -> (u32, &str) {
        let end = self.number.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.number.len());
        (self.number[..end].parse().unwrap_or(u32::MAX), &self.number[end..])
    }
}

/// All rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Puts a row into the table of the folder that [`FOLDER`] names, in place of what was there of the same fault.
    pub fn record(row: Row) -> Result<()> {
        let Some(folder) = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()) else { return Ok(()) };
        Self::record_in(&project().join(PathBuf::from(folder)), row)
    }

    fn record_in(folder: &Path, row: Row) -> Result<()> {
        fs::create_dir_all(folder)?;
        // Tests are processes of their own, and some run at the same time.
        let lock = File::create(std::env::temp_dir().join("taffrail-fault-table.lock"))?;
        lock.lock()?;
        let results = folder.join("results.json");
        let mut table: Self = match fs::read(&results) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| results.display().to_string())?,
            Err(_) => Self::default(),
        };
        table.put(row);
        fs::write(&results, serde_json::to_string_pretty(&table)? + "\n")?;
        Ok(fs::write(folder.join("README.md"), table.markdown())?)
    }

    fn put(&mut self, row: Row) {
        self.rows.retain(|old| old.number != row.number);
        self.rows.push(row);
        self.rows.sort_by(|a, b| a.place().cmp(&b.place()));
    }

    fn markdown(&self) -> String {
        let mut text = HEAD.to_owned();
        text.extend(self.rows.iter().map(Row::markdown));
        let kept = self.rows.iter().filter(|row| row.broken.is_empty()).count();
        let _ = writeln!(text, "\n{kept} of {} promises were kept.", self.rows.len());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: &str, broken: &[&str]) -> Row {
        Row {
            number: number.into(),
            fault: "a | b".into(),
            injected: "SIGKILL".into(),
            kind: Kind::Real,
            promised: "safe".into(),
            seen: vec!["1 s".into(), "2 records".into()],
            broken: broken.iter().map(ToString::to_string).collect(),
            commit: "abc".into(),
            date: "today".into(),
        }
    }

    #[test]
    fn a_row_replaces_the_one_of_the_same_fault_and_stands_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        for (number, broken) in [("10", &[][..]), ("2", &["late"]), ("8b", &[]), ("8a", &[]), ("2", &[])] {
            Table::record_in(dir.path(), row(number, broken)).unwrap();
        }
        let table: Table = serde_json::from_slice(&fs::read(dir.path().join("results.json")).unwrap()).unwrap();
        let numbers: Vec<_> = table.rows.iter().map(|row| row.number.as_str()).collect();
        assert_eq!(numbers, ["2", "8a", "8b", "10"]);
        let text = fs::read_to_string(dir.path().join("README.md")).unwrap();
        assert!(text.contains("| 2 | a \\| b | SIGKILL | real | safe | 1 s; 2 records | yes | abc, today |"), "{text}");
        assert!(text.ends_with("4 of 4 promises were kept.\n"), "{text}");
    }

    #[test]
    fn a_broken_promise_is_shown() {
        assert!(row("1", &["12 s"]).markdown().contains("| **no**: 12 s |"));
    }
}
