//! What a process has used so far, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// CPU time and device traffic of a process since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Bytes it made the device write.
    pub written: u64,
    /// Bytes it made the device read.
    pub read: u64,
    /// Resident memory now, bytes.
    pub resident: u64,
    /// Part of it that is files', the program's above all: not counted twice where several processes run it.
    pub resident_file: u64,
}

impl Usage {
    /// Of a process, by its id.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self {
            cpu_seconds: ticks / rustix::param::clock_ticks_per_second() as f64,
            written: field(&io, "write_bytes:")?,
            read: field(&io, "read_bytes:")?,
            resident: field(&status, "VmRSS:")? * 1024,
            resident_file: field(&status, "RssFile:")? * 1024,
        })
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            written: self.written - before.written,
            read: self.read - before.read,
            ..self
        }
    }

    /// CPU seconds for each GiB of `bytes`.
    pub fn cpu_per_gib(self, bytes: u64) -> f64 {
        self.cpu_seconds / (bytes as f64 / f64::from(1 << 30))
    }
}

/// The number behind a name at the beginning of a line, as `/proc` has them.
pub fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
