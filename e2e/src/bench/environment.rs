//! Where a sitting took place: machine, kernel, file system, versions, commit.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::probe::field;

const LOCK: &str = include_str!("../../../Cargo.lock");
const TOOLCHAIN: &str = include_str!("../../../rust-toolchain.toml");
/// Packages whose versions matter to speed.
const PACKAGES: &[&str] = &["librocksdb-sys", "tikv-jemalloc-sys", "tonic", "h2", "tokio"];

/// What the bench itself writes is no change.
const BUT_REPORTS: &str = ":(exclude)e2e/bench";

/// What figures depend on. Those of different environments do not belong into one report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Processor and memory.
    pub machine: String,
    /// Kernel.
    pub kernel: String,
    /// File system and device that are measured.
    pub disk: String,
    /// Of Taffrail, the compiler and the libraries that matter.
    pub versions: String,
    /// Commit that is measured; says if the tree has changes on top.
    pub commit: String,
}

impl Environment {
    /// Of this machine and the tree in the working directory. `dir` is on the disk that is measured.
    pub fn of(dir: &Path) -> Result<Self> {
        Ok(Self {
            machine: machine()?,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            disk: disk(&std::fs::read_to_string("/proc/mounts")?, &dir.canonicalize()?),
            versions: versions(),
            commit: commit(),
        })
    }
}

fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unnamed processor");
    let cores = std::thread::available_parallelism()?;
    let memory = field(&std::fs::read_to_string("/proc/meminfo")?, "MemTotal:")? >> 20;
    Ok(format!("{cores} cores of {}, {memory} GiB", model.trim_start_matches([' ', '\t', ':'])))
}

/// The file system that `dir` is on: the mount with the longest path in front of it.
fn disk(mounts: &str, dir: &Path) -> String {
    let of = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    };
    let around = mounts.lines().filter_map(of).filter(|(_, at, _)| dir.starts_with(at));
    around.max_by_key(|(_, at, _)| at.len()).map_or_else(String::new, |(device, _, kind)| format!("{kind} on {device}"))
}

fn versions() -> String {
    let channel = TOOLCHAIN.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap_or("").trim_matches('"');
    let mut all = vec![format!("taffrail {}", env!("CARGO_PKG_VERSION")), format!("rustc {channel}")];
    all.extend(PACKAGES.iter().filter_map(|name| Some(format!("{name} {}", locked(LOCK, name)?))));
    all.join(", ")
}

/// Version of a package in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    after.split('"').next()
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).output().context("git")?;
        anyhow::ensure!(out.status.success(), "git {args:?}");
        anyhow::Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain", "--", ".", BUT_REPORTS])) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit,
        (Ok(commit), _) => format!("{commit} with changes that are not committed"),
        (Err(_), _) => "not a git tree".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_the_innermost_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\n/dev/vdb /data xfs rw 0 0\ntmpfs /data/tmp tmpfs rw 0 0\n";
        for (dir, disk_of) in
            [("/home", "ext4 on /dev/vda"), ("/data/x", "xfs on /dev/vdb"), ("/data/tmp", "tmpfs on tmpfs")]
        {
            assert_eq!(disk(mounts, Path::new(dir)), disk_of);
        }
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        assert_eq!(locked("[[package]]\nname = \"tonic\"\nversion = \"0.1.2\"\n", "tonic"), Some("0.1.2"));
        for package in PACKAGES {
            assert!(locked(LOCK, package).is_some(), "{package}");
        }
    }
}
