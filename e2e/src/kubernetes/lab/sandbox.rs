//! The cluster from outside: a tree of processes with a world of its own (`e2e/cluster`), which ends with this process.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use uuid::Uuid;

use super::FOLDER;
use crate::cli::{self, cache, project};
use crate::kubernetes::programs;

/// How long a cluster may take to be ready: seven seconds where nobody else works.
const PATIENCE: Duration = Duration::from_mins(4);

/// A cluster that this process has started.
#[derive(Debug)]
pub struct Sandbox {
    folder: PathBuf,
    keeper: Child,
    /// Its end, with this process if not before, tells the keeper to end the cluster.
    held: Option<ChildStdin>,
    /// Images that the nodes have.
    images: Mutex<BTreeSet<String>>,
}

impl Sandbox {
    /// The one that all tests of this process share. It is removed when the process ends.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Sandbox, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start().map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow!("no cluster: {error}"))
    }

    /// Starts one and waits until it is ready.
    pub fn start() -> Result<Self> {
        programs()?;
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let folder = base.join(format!("taffrail-cluster-{}", Uuid::new_v4().simple()));
        let mut command = script("keep", &folder)?;
        // In a group of its own: what interrupts a test run does not reach it, and it can clear up.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut keeper = command.spawn().context("start e2e/cluster/keep")?;
        let held = keeper.stdin.take();
        let mut sandbox = Self { folder, keeper, held, images: Mutex::default() };
        sandbox.wait_ready()?;
        Ok(sandbox)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.folder.join("ready").exists() {
            if let Some(status) = self.keeper.try_wait()? {
                let mut said = String::new();
                self.keeper.stderr.take().context("standard error")?.read_to_string(&mut said)?;
                bail!("the cluster ended with {status}:\n{said}");
            }
            if begin.elapsed() > PATIENCE {
                bail!("the cluster is not ready after {PATIENCE:?}:\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends of the logs that say how far the start came.
    fn logs(&self) -> String {
        let names = ["timeline", "sandbox", "n1", "n2", "n3"];
        let read = |name: &str| fs::read_to_string(self.folder.join("logs").join(name)).unwrap_or_default();
        names.map(|name| format!("{name}:\n{}", read(name))).join("\n")
    }

    /// Where its state is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its first process: all others end with it.
    pub fn pid(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.folder.join("pid"))?.trim().parse()?)
    }

    /// Makes the images of these names, from the programs beside this one, and gives them to every node.
    pub fn provide(&self, images: &[&str]) -> Result<()> {
        let mut there = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<&str> = images.iter().copied().filter(|name| !there.contains(*name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let me = std::env::current_exe()?;
        // Tests are in `deps`, beside the programs.
        let mut folders = me.ancestors().skip(1);
        let programs = folders.find(|folder| !folder.ends_with("deps")).context("this program is in no folder")?;
        let mut make = Command::new(project().join(".ci/images"));
        make.env("TAFFRAIL_CACHE", cache()?);
        cli::run(make.arg(programs).args(&missing), "")?.ok().context("make images")?;
        let tars = missing.iter().map(|name| programs.join("images").join(format!("{name}.tar")));
        cli::run(script("import", &self.folder)?.args(tars), "")?.ok().context("give images to the nodes")?;
        there.extend(missing.into_iter().map(ToOwned::to_owned));
        Ok(())
    }

    /// Runs a command inside.
    pub fn enter(&self, arguments: &[&str]) -> Result<cli::Ended> {
        cli::run(script("enter", &self.folder)?.args(arguments), "")
    }

    /// Runs a test of this program inside. What it prints is this test's.
    pub(super) fn run_test(&self, name: &str) -> Result<()> {
        let me = std::env::current_exe()?;
        let me = me.to_str().context("this program's path is no text")?;
        let ended = self.enter(&[me, name, "--exact", "--include-ignored", "--nocapture"])?;
        println!("{}\n{}", ended.out, ended.err);
        ensure!(ended.code == Some(0), "{name} ended with {:?} inside the cluster", ended.code);
        ensure!(ended.out.contains(" 1 passed"), "inside the cluster there is no test {name}");
        Ok(())
    }

    /// Ends it and waits until nothing is left.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.held.take());
        let status = self.keeper.wait()?;
        ensure!(status.success(), "the cluster's keeper ended with {status}");
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{}: {error:#}", self.folder.display());
        }
    }
}

/// One of the scripts, told which cluster.
fn script(name: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(project().join("e2e/cluster").join(name));
    command.env(FOLDER, folder).env("TAFFRAIL_CACHE", cache()?);
    Ok(command)
}
