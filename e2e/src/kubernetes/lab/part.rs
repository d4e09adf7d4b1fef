//! A part of the control plane: it can hang and crash.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, Lab};

/// A process of the control plane.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    lab: &'a Lab,
    name: &'a str,
}

impl<'a> Part<'a> {
    pub(super) fn new(lab: &'a Lab, name: &'a str) -> Self {
        Self { lab, name }
    }

    /// Stops it where it is: its connections stay open and nothing answers. It goes on at the end.
    pub fn freeze(self) -> Result<Fault<'a>> {
        self.signal(Signal::STOP)?;
        Ok(Fault::new(format!("{} hangs", self.name), move || self.signal(Signal::CONT)))
    }

    /// Kills it; it is started again at the end.
    pub fn crash(self) -> Result<Fault<'a>> {
        self.signal(Signal::KILL)?;
        Ok(Fault::new(format!("{} is down", self.name), move || self.lab.script("part", &[self.name]).map(drop)))
    }

    /// Kills it and starts it again.
    pub fn restart(self) -> Result<()> {
        self.crash()?.end()
    }

    fn signal(self, signal: Signal) -> Result<()> {
        let file = self.lab.folder()?.join("pids").join(self.name);
        let text = fs::read_to_string(&file).with_context(|| format!("{}: no such part", self.name))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).with_context(|| file.display().to_string())?;
        kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))
    }
}
