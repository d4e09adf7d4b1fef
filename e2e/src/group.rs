//! Members of consumer groups as processes that keep a diary, and the judge who reads the diaries.
//!
//! A member (`taffrail-member`) writes a line when it gets or loses partitions and one for each record that it processes,
//! each with the machine's monotonic time, straight to a file: what is written survives a SIGKILL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::process::{Process, program};

/// A partition of the one topic, and an offset in it.
pub type Place = (i32, i64);

/// A line of a diary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// These partitions are the member's from now on.
    Assigned(u64, Vec<i32>),
    /// These are not any more.
    Revoked(u64, Vec<i32>),
    /// These may have been others' for a while.
    Lost(u64, Vec<i32>),
    /// A record was processed: partition and offset.
    Record(u64, i32, i64),
    /// A commit was refused, as the member was removed from the group.
    Fenced(u64),
}

/// How to start a member.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    /// The broker.
    pub endpoint: String,
    /// The group.
    pub group: String,
    /// What to read.
    pub topic: String,
    /// Commits before it processes; otherwise after.
    pub at_most_once: bool,
    /// When the group gives it up.
    pub session_timeout: Duration,
    /// How long it works on each record.
    pub pace: Duration,
    /// Of a static member.
    pub instance: Option<String>,
}

impl MemberOptions {
    /// At least once; 100 µs a record. The group notices deaths after ten seconds: nobody who waits for a processor on a busy
    /// machine is taken for dead.
    pub fn new(endpoint: &str, group: &str, topic: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            at_most_once: false,
            session_timeout: Duration::from_secs(10),
            pace: Duration::from_micros(100),
            instance: None,
        }
    }

    /// Starts a member that keeps its diary in `dir` under its name.
    pub fn start(&self, dir: &Path, name: &str) -> Result<Member> {
        let diary = dir.join(format!("{}-{name}.jsonl", self.group));
        let mut command = Command::new(program("taffrail-member")?);
        command.args(["--broker", &self.endpoint, "--group", &self.group, "--topic", &self.topic]);
        command.args(["--session-timeout-ms", &self.session_timeout.as_millis().to_string()]);
        command.args(["--pace-us", &self.pace.as_micros().to_string()]).arg("--diary").arg(&diary);
        if self.at_most_once {
            command.arg("--at-most-once");
        }
        if let Some(instance) = &self.instance {
            command.args(["--instance-id", instance]);
        }
        let process = Process(command.stdin(Stdio::null()).spawn().context("start taffrail-member")?);
        Ok(Member { process, name: name.to_owned(), diary })
    }
}

/// A member that runs.
#[derive(Debug)]
pub struct Member {
    process: Process,
    name: String,
    diary: PathBuf,
}

impl Member {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What it has written so far.
    pub fn diary(&self) -> Result<Diary> {
        Diary::read(&self.name, &self.diary)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it by a signal; gives what it wrote.
    pub fn end(mut self, signal: Signal) -> Result<Diary> {
        self.process.end(signal)?;
        Diary::read(&self.name, &self.diary)
    }

    /// Waits until its diary is as wanted.
    pub fn wait(&self, patience: Duration, wanted: impl Fn(&Diary) -> bool) -> Result<Diary> {
        let begin = Instant::now();
        loop {
            let diary = self.diary()?;
            if wanted(&diary) {
                return Ok(diary);
            }
            if begin.elapsed() > patience {
                let tail = &diary.entries[diary.entries.len().saturating_sub(5)..];
                bail!("member {} after {patience:?}: owns {:?}, wrote {tail:?}", self.name, diary.owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// All that a member wrote.
#[derive(Clone, Debug, Default)]
pub struct Diary {
    /// Whose it is.
    pub name: String,
    /// In order.
    pub entries: Vec<Entry>,
}

/// A time in which a partition was a member's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tenure {
    partition: i32,
    from: u64,
    /// When it was let go, or the last record was processed.
    to: u64,
}

impl Diary {
    fn read(name: &str, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // A line that is not whole yet is none.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let line = |line: &str| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()));
        Ok(Self { name: name.to_owned(), entries: whole.lines().map(line).collect::<Result<_>>()? })
    }

    /// What it owns at the end.
    pub fn owned(&self) -> BTreeSet<i32> {
        let mut owned = BTreeSet::new();
        for entry in &self.entries {
            match entry {
                Entry::Assigned(_, partitions) => owned.extend(partitions),
                Entry::Revoked(_, gone) | Entry::Lost(_, gone) => owned.retain(|p| !gone.contains(p)),
                _ => {}
            }
        }
        owned
    }

    /// What it processed, in order.
    pub fn records(&self) -> impl Iterator<Item = Place> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(_, partition, offset) => Some((*partition, *offset)),
            _ => None,
        })
    }

    /// How often partitions came to it or left it.
    pub fn moves(&self) -> usize {
        self.entries.iter().filter(|e| !matches!(e, Entry::Record(..) | Entry::Fenced(_))).count()
    }

    /// When it processed its last record; 0: never.
    pub fn last_record_at(&self) -> u64 {
        let at = |entry: &Entry| if let Entry::Record(at, ..) = entry { Some(*at) } else { None };
        self.entries.iter().rev().find_map(at).unwrap_or_default()
    }

    /// Which partitions came to it after a time, and when.
    pub fn assigned_since(&self, time: u64) -> Vec<(u64, i32)> {
        let assigned = self.entries.iter().filter_map(|entry| match entry {
            Entry::Assigned(at, partitions) if *at > time => Some(partitions.iter().map(|p| (*at, *p))),
            _ => None,
        });
        assigned.flatten().collect()
    }

    /// Tenures; fails on a record of a partition that the member does not own.
    fn tenures(&self) -> Result<Vec<Tenure>> {
        let (mut open, mut over) = (BTreeMap::new(), vec![]);
        for entry in &self.entries {
            match entry {
                Entry::Assigned(at, partitions) => {
                    let tenure = |&partition| (partition, Tenure { partition, from: *at, to: *at });
                    open.extend(partitions.iter().map(tenure));
                }
                Entry::Record(at, partition, offset) => {
                    let tenure = open.get_mut(partition);
                    let fault = || format!("{} processed {partition}/{offset}, which it did not own", self.name);
                    tenure.with_context(fault)?.to = *at;
                }
                Entry::Revoked(at, partitions) => {
                    let gone = partitions.iter().filter_map(|p| open.remove(p));
                    over.extend(gone.map(|tenure| Tenure { to: *at, ..tenure }));
                }
                Entry::Lost(_, partitions) => over.extend(partitions.iter().filter_map(|p| open.remove(p))),
                Entry::Fenced(_) => {}
            }
        }
        over.extend(open.into_values());
        Ok(over)
    }
}

/// What the diaries of a group say.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Records that each member processed, in the order of the diaries.
    pub processed: Vec<usize>,
    /// Records that were processed more than once.
    pub again: BTreeSet<Place>,
    /// Records that were never processed.
    pub missing: BTreeSet<Place>,
    /// Times that a partition was a member's.
    pub tenures: usize,
}

/// Judges: no partition was two members' at one time, and each record was processed by who owned its partition. `ends` is
/// the end of each partition; all begin at 0.
pub fn judge(diaries: &[Diary], ends: &BTreeMap<i32, i64>) -> Result<Verdict> {
    let mut all: Vec<(Tenure, &str)> = vec![];
    for diary in diaries {
        all.extend(diary.tenures()?.into_iter().map(|tenure| (tenure, diary.name.as_str())));
    }
    all.sort_by_key(|(tenure, _)| (tenure.partition, tenure.from));
    for pair in all.windows(2) {
        let ((before, first), (after, second)) = (pair[0], pair[1]);
        let apart = before.partition != after.partition || before.to <= after.from;
        ensure!(apart, "partition {} was {first}'s and {second}'s at one time: {before:?}, {after:?}", after.partition);
    }
    let mut times: BTreeMap<Place, usize> = BTreeMap::new();
    for place in diaries.iter().flat_map(Diary::records) {
        *times.entry(place).or_default() += 1;
    }
    let every = ends.iter().flat_map(|(&partition, &end)| (0..end).map(move |offset| (partition, offset)));
    Ok(Verdict {
        processed: diaries.iter().map(|d| d.records().count()).collect(),
        again: times.iter().filter(|(_, times)| **times > 1).map(|(place, _)| *place).collect(),
        missing: every.filter(|place| !times.contains_key(place)).collect(),
        tenures: all.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diary(name: &str, entries: &[Entry]) -> Diary {
        Diary { name: name.to_owned(), entries: entries.to_vec() }
    }

    fn ends() -> BTreeMap<i32, i64> {
        BTreeMap::from([(0, 3)])
    }

    #[test]
    fn a_clean_hand_over_is_found_clean() -> Result<()> {
        let a =
            [Entry::Assigned(1, vec![0]), Entry::Record(2, 0, 0), Entry::Record(3, 0, 1), Entry::Revoked(4, vec![0])];
        let b = [Entry::Assigned(5, vec![0]), Entry::Record(6, 0, 1)];
        let verdict = judge(&[diary("a", &a), diary("b", &b)], &ends())?;
        assert_eq!((verdict.again, verdict.missing), (BTreeSet::from([(0, 1)]), BTreeSet::from([(0, 2)])));
        assert_eq!((verdict.processed, verdict.tenures), (vec![2, 1], 2));
        Ok(())
    }

    #[test]
    fn two_owners_at_one_time_are_found() {
        let a = [Entry::Assigned(1, vec![0]), Entry::Record(6, 0, 0)];
        let b = [Entry::Assigned(5, vec![0])];
        assert!(judge(&[diary("a", &a), diary("b", &b)], &ends()).is_err());
    }

    #[test]
    fn a_record_of_a_partition_that_is_not_owned_is_found() {
        let a = [Entry::Assigned(1, vec![0]), Entry::Lost(2, vec![0]), Entry::Record(3, 0, 0)];
        assert!(judge(&[diary("a", &a)], &ends()).is_err());
    }
}
