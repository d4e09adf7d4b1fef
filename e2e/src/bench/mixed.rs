//! Mixed retention: a few bytes that are kept for a week among many that are kept for an hour, on a clock that runs fast.

use std::collections::VecDeque;

use anyhow::Result;
use futures::executor::block_on;
use taffrail_broker::retention::plan::{LogState, aged_budget, plan};
use taffrail_broker::storage::{Durability, Engine, EngineOptions, Storage};
use taffrail_broker::topics::Settings;
use taffrail_proto::record::{Compression, TimestampType};

use super::appender::Appender;
use super::figures::Figures;
use super::load::batch;
use super::probe::Usage;
use super::sitting::{MIB, Sitting};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Rounds of retention come this often in log time.
const TICK: i64 = 10 * MINUTE;
/// A week until the oldest of the long topic go, and a day in which disk and live bytes are compared.
const DAYS: i64 = 8;
const WEEK: i64 = 7 * DAY;
/// Of each so many batches, one is kept for the week.
const SHARE: u64 = 100;
const LOGS: u32 = 16;
/// A sixteenth of the usual size, and so many bytes an hour: all is scaled alike.
const EPOCH_BYTES: u64 = 4 * MIB;
const BYTES_AN_HOUR: u64 = 192 * MIB;

/// One class of topics.
struct Topic {
    appender: Appender,
    settings: Settings,
    /// What was appended at each tick and has not reached its age: time and bytes.
    young: VecDeque<(i64, u64)>,
}

/// The rows about mixed retention.
pub fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.long_rounds() {
        let recording = sitting.record(&["mixed-disk", "mixed-amplification"], &[std::process::id()])?;
        let (disk, amplification, appended) = week(sitting)?;
        sitting.keep(recording)?;
        let note = format!(
            "{:.0} GB in {DAYS} days at {} times the pace; storage epochs of {} MiB",
            appended as f64 / 1e9,
            64 * MIB / EPOCH_BYTES,
            EPOCH_BYTES / MIB
        );
        figures.add("mixed-disk", disk, &format!("the most in the last day, before a round of retention; {note}"));
        figures.add("mixed-amplification", amplification, &note);
    }
    Ok(())
}

/// The most disk bytes for a live byte in the last day; device bytes written for each byte appended; bytes appended.
fn week(sitting: &Sitting) -> Result<(f64, f64, u64)> {
    let dir = sitting.folder("mixed")?;
    let engine = Engine::open(&dir, EngineOptions { epoch_bytes: EPOCH_BYTES, ..EngineOptions::default() })?;
    let mut long = Topic::new(&engine, 1, WEEK)?;
    let mut short = Topic::new(&engine, 2, HOUR)?;
    let before = Usage::of(std::process::id())?;
    let (mut most, mut appended) = (0.0f64, 0u64);
    for tick in 1..=DAYS * DAY / TICK {
        let now = tick * TICK;
        let batches = BYTES_AN_HOUR * TICK as u64 / HOUR as u64 / long.appender.batch_bytes();
        appended += long.append(now, batches / SHARE)? + short.append(now, batches - batches / SHARE)?;
        if now > WEEK {
            let live = long.live(now) + short.live(now);
            most = most.max(engine.status().used_bytes as f64 / live as f64);
        }
        let stored = long.stored() + short.stored();
        for topic in [&long, &short] {
            topic.trim(now, aged_budget(stored))?;
        }
        engine.maintain(now)?;
    }
    let usage = Usage::of(std::process::id())?.since(before);
    engine.close()?;
    drop((long, short, engine));
    std::fs::remove_dir_all(dir)?;
    Ok((most, usage.written as f64 / appended as f64, appended))
}

impl Topic {
    fn new(engine: &Engine, topic: u128, retention_ms: i64) -> Result<Self> {
        let settings = Settings {
            max_message_bytes: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            durability: Durability::Os,
            retention_ms: Some(retention_ms),
            retention_bytes: None,
        };
        let appender = Appender::new(engine, topic, LOGS, batch(16 << 10, 1 << 10, Compression::None)?)?;
        Ok(Self { appender, settings, young: VecDeque::new() })
    }

    /// Gives the bytes.
    fn append(&mut self, now: i64, batches: u64) -> Result<u64> {
        for _ in 0..batches {
            self.appender.append(now)?;
        }
        self.appender.settle()?;
        let bytes = batches * self.appender.batch_bytes();
        self.young.push_back((now, bytes));
        Ok(bytes)
    }

    /// Bytes that retention must keep.
    fn live(&mut self, now: i64) -> u64 {
        let age = self.settings.retention_ms.unwrap_or(i64::MAX);
        while self.young.front().is_some_and(|(at, _)| now - at > age) {
            self.young.pop_front();
        }
        self.young.iter().map(|(_, bytes)| bytes).sum()
    }

    fn stored(&self) -> u64 {
        self.appender.logs().map(|log| log.size_bytes()).sum()
    }

    /// As the broker's retention does it.
    fn trim(&self, now: i64, budget: u64) -> Result<()> {
        for log in self.appender.logs() {
            let (spans, extent) = (log.spans(), log.extent());
            let state = LogState { spans: &spans, size: log.size_bytes(), log_start: extent.start, bound: extent.end };
            if let Some(trim) = plan(&state, &self.settings, now, budget) {
                block_on(log.trim(trim.to))??;
            }
        }
        Ok(())
    }
}
