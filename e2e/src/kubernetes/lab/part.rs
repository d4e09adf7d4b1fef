//! A part of the control plane: it can hang and crash.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, Lab, PATIENCE};
use crate::kubernetes::keeper::is_gone;

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
        Ok(Fault::new(format!("{} hangs", self.name), move || self.signal(Signal::CONT).map(drop)))
    }

    /// Kills it and waits until it is gone; it is started again at the end.
    pub fn crash(self) -> Result<Fault<'a>> {
        let pid = self.signal(Signal::KILL)?;
        let begin = Instant::now();
        while !is_gone(pid.as_raw_nonzero().get().unsigned_abs())? {
            ensure!(begin.elapsed() < PATIENCE, "{} does not die", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Fault::new(format!("{} is down", self.name), move || self.lab.script("part", &[self.name]).map(drop)))
    }

    /// Kills it and starts it again.
    pub fn restart(self) -> Result<()> {
        self.crash()?.end()
    }

    fn signal(self, signal: Signal) -> Result<Pid> {
        let file = self.lab.folder()?.join("pids").join(self.name);
        let text = fs::read_to_string(&file).with_context(|| format!("{}: no such part", self.name))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).with_context(|| file.display().to_string())?;
        kill_process(pid, signal).with_context(|| format!("signal to {}", self.name))?;
        Ok(pid)
    }
}
