//! Reads of what is not in memory: by direct I/O, from an engine that has just been opened, after the page cache was dropped
//! where that is allowed.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use futures::executor::block_on;
use taffrail_broker::storage::{Engine, EngineOptions, Log, Storage};
use taffrail_proto::record::{BatchHeader, Compression};

use super::appender::Appender;
use super::figures::Figures;
use super::limits::{self, rate};
use super::load::batch;
use super::probe::Usage;
use super::sitting::Sitting;

const LOGS: u32 = 256;
const READERS: usize = 16;
/// Logs that are read one after the other in each round, for one alone is too short to time.
const ONE_BY_ONE: usize = 16;
/// What a read asks for, as the broker does for a stream.
const CHUNK: usize = 1 << 20;

/// The rows about cold reads.
pub fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let (dir, limit) = (sitting.folder("cold")?, sitting.folder("limits")?);
    fill(&dir, sitting.bytes * 2)?;
    limits::disk_append(&limit, sitting.bytes / 2)?;
    for round in 0..sitting.rounds {
        let cache = drop_page_cache();
        let read = figures.limit("O_DIRECT read", limits::disk_read(&limit, sitting.bytes / 2)?);
        let first = round * ONE_BY_ONE % LOGS as usize;
        let one = cold(sitting, "cold-read-one", &dir, 1, first..first + ONE_BY_ONE)?;
        let note = format!("{:.0} MB/s, {ONE_BY_ONE} logs one after the other; direct I/O, {cache}", one.rate);
        figures.add("cold-read-one", one.rate / read, &note);
        figures.cpu("cold-read-one", one.usage.cpu_per_gib(one.bytes));
        figures.add("cold-read-waste", one.usage.read as f64 / one.bytes as f64, "footers included");
        let all = cold(sitting, "cold-read-all", &dir, READERS, 0..LOGS as usize)?;
        figures.add("cold-read-all", all.rate / read, &format!("{:.0} MB/s; direct I/O, {cache}", all.rate));
        figures.cpu("cold-read-all", all.usage.cpu_per_gib(all.bytes));
    }
    std::fs::remove_dir_all(dir)?;
    Ok(std::fs::remove_dir_all(limit)?)
}

fn fill(dir: &Path, bytes: u64) -> Result<()> {
    let engine = Engine::open(dir, EngineOptions::default())?;
    Appender::new(&engine, 1, LOGS, batch(64 << 10, 1 << 10, Compression::None)?)?.append_bytes(bytes)?;
    Ok(engine.close()?)
}

/// Says what it could do.
fn drop_page_cache() -> &'static str {
    let dropped = std::fs::write("/proc/sys/vm/drop_caches", "3");
    if dropped.is_ok() { "page cache dropped" } else { "page cache not dropped (not root)" }
}

struct Cold {
    /// MB/s.
    rate: f64,
    usage: Usage,
    bytes: u64,
}

/// Opens the engine and reads some of its logs from beginning to end.
fn cold(sitting: &Sitting, figure: &str, dir: &Path, readers: usize, wanted: std::ops::Range<usize>) -> Result<Cold> {
    let engine = Engine::open(dir, EngineOptions::default())?;
    let logs: Vec<_> = engine.logs().into_iter().skip(wanted.start).take(wanted.len()).collect();
    let me = std::process::id();
    let recording = sitting.record(&[figure], &[me])?;
    let (before, begin) = (Usage::of(me)?, Instant::now());
    let tasks: Vec<_> = (0..readers)
        .map(|reader| {
            let own: Vec<_> = logs.iter().skip(reader).step_by(readers).cloned().collect();
            thread::spawn(move || own.iter().map(read_all).sum::<Result<u64>>())
        })
        .collect();
    let join = |task: thread::JoinHandle<Result<u64>>| task.join().map_err(|_| anyhow!("a reader panicked"))?;
    let bytes = tasks.into_iter().map(join).sum::<Result<u64>>()?;
    let cold = Cold { rate: rate(bytes, begin), usage: Usage::of(me)?.since(before), bytes };
    sitting.keep(recording)?;
    engine.close()?;
    Ok(cold)
}

/// Bytes of all its batches.
fn read_all(log: &Arc<dyn Log>) -> Result<u64> {
    let (mut offset, end, mut bytes) = (log.extent().start, log.extent().end, 0);
    while offset < end {
        let batches = block_on(log.read(offset, end, CHUNK))?;
        let last = batches.last().context("the log ends early")?;
        offset = BatchHeader::parse(last)?.next_offset();
        bytes += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
    }
    Ok(bytes)
}
