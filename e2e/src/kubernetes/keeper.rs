//! Processes that end with the process that started them, however it ends.
//!
//! The kernel's signal at the parent's death (PR_SET_PDEATHSIG, set by `setpriv`) is sent when the *thread* ends that
//! started the process. So each process has a thread, which does nothing else and ends when its handle goes out of scope.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, test_kill_process};

use crate::process::Process;

/// A process that is killed when this goes out of scope, or when this process dies.
#[derive(Debug)]
pub(super) struct Kept {
    pid: u32,
    log: PathBuf,
    // Its end tells the thread to end.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts `command`, whose output goes to `log`.
pub(super) fn keep(command: &Command, log: &Path) -> Result<Kept> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut under = Command::new("setpriv");
    under.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    let file = File::create(log)?;
    under.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);

    let (stop, stopped) = channel::<()>();
    let (tell, told) = channel();
    let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
        let process = under.spawn().map(Process);
        let begun = process.as_ref().map(|process| process.0.id()).map_err(ToString::to_string);
        if tell.send(begun).is_ok() {
            // Nothing is ever sent: it ends when the handle is gone.
            let _ = stopped.recv();
        }
        drop(process);
    })?;
    let pid = told.recv()?.map_err(|error| anyhow!(error)).with_context(|| format!("start {name}"))?;
    Ok(Kept { pid, log: log.to_owned(), stop: Some(stop), thread: Some(thread) })
}

impl Kept {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> Result<bool> {
        is_gone(self.pid)
    }

    /// Last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a process has ended: it is no longer there, or nobody has asked yet how it ended.
pub(super) fn is_gone(pid: u32) -> Result<bool> {
    let pid = Pid::from_raw(pid as i32).context("process id")?;
    if test_kill_process(pid).is_err() {
        return Ok(true);
    }
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The state stands behind the name, which is in parentheses.
    Ok(stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
}
