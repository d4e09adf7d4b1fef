//! The storage engine alone: what is appended, until all of it is on the device.

use std::time::Instant;

use anyhow::Result;
use taffrail_broker::storage::{Engine, EngineOptions, Storage};
use taffrail_proto::record::Compression;

use super::appender::Appender;
use super::figures::Figures;
use super::limits::{self, rate};
use super::load::batch;
use super::probe::Usage;
use super::sitting::{MIB, Sitting};

/// What fills the write-ahead log's ring before the clock runs.
const WARM_UP: u64 = 512 * MIB;
const LOGS: u32 = 256;

/// The rows about appends to the engine.
pub fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.rounds {
        let dir = sitting.folder("limits")?;
        let l_disk = figures.limit("L_disk", limits::disk_append(&dir, sitting.bytes / 2)?);
        std::fs::remove_dir_all(dir)?;
        let (rate, usage, bytes) = append(sitting, "engine-append", 64 << 10, 1 << 10, sitting.bytes)?;
        let written = usage.written as f64 / bytes as f64;
        figures.add("engine-append", rate / l_disk, &format!("{rate:.0} MB/s; written {written:.2}; {WITH_LOAD}"));
        figures.cpu("engine-append", usage.cpu_per_gib(bytes));
        for (figure, batch_bytes) in [("engine-4k", 4 << 10), ("engine-1k", 1 << 10)] {
            let (rate, usage, bytes) = append(sitting, figure, batch_bytes, batch_bytes - 80, sitting.bytes / 2)?;
            let written = usage.written as f64 / bytes as f64;
            figures.add(figure, rate, &format!("until drained; written {written:.2}; {WITH_LOAD}"));
            figures.cpu(figure, usage.cpu_per_gib(bytes));
        }
    }
    Ok(())
}

const WITH_LOAD: &str = "CPU with that of the load";

/// Rate in MB/s, what this process used, and the bytes appended.
fn append(
    sitting: &Sitting,
    figure: &str,
    batch_bytes: usize,
    record_bytes: usize,
    bytes: u64,
) -> Result<(f64, Usage, u64)> {
    let dir = sitting.folder("engine")?;
    let engine = Engine::open(&dir, EngineOptions::default())?;
    let mut appender = Appender::new(&engine, 1, LOGS, batch(batch_bytes, record_bytes, Compression::None)?)?;
    appender.append_bytes(WARM_UP)?;
    let me = std::process::id();
    let recording = sitting.record(&[figure], &[me])?;
    let (before, begin) = (Usage::of(me)?, Instant::now());
    appender.append_bytes(bytes)?;
    engine.close()?;
    let (rate, usage) = (rate(bytes, begin), Usage::of(me)?.since(before));
    sitting.keep(recording)?;
    drop((appender, engine));
    std::fs::remove_dir_all(dir)?;
    Ok((rate, usage, bytes))
}
