//! Many partitions, and memory at rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use taffrail_proto::record::Compression;

use super::figures::Figures;
use super::load::{Done, ProduceLoad, batch};
use super::probe::Usage;
use super::sitting::{MIB, Sitting};
use crate::process::{Broker, taffrail};

/// Bytes in the data directory with 10,000 partitions: more than 300 storage epochs of 64 MiB.
const MANY_BYTES: u64 = 20_500 * 1_000_000;
const MANY: i32 = 10_000;

/// The rows about 10,000 partitions in one broker. Once: a round takes a minute and 20 GB.
pub async fn many(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let broker = sitting.broker("many", &[("many", MANY as u32, ""), ("few", 16, "")], &[])?;
    let few = load(&broker, "few", 16, sitting.bytes).await?;
    let many = load(&broker, "many", MANY, MANY_BYTES).await?;
    let note = format!("{:.0} of {:.0} MB/s, 16 KiB batches", many.rate(), few.rate());
    figures.add("many-throughput", many.rate() / few.rate(), &note);
    let options = broker.kill()?;
    let begin = Instant::now();
    let broker = options.start()?;
    let seconds = begin.elapsed().as_secs_f64();
    let usage = Usage::of(broker.pid())?;
    let epochs = broker.metric("taffrail_storage_epochs").unwrap_or(f64::NAN);
    let note =
        format!("{epochs} epochs, {:.1} GB, {:.1} CPU s", (MANY_BYTES + sitting.bytes) as f64 / 1e9, usage.cpu_seconds);
    figures.add("many-start", seconds, &note);
    figures.add("many-memory", usage.resident as f64 / MIB as f64, "right after the start");
    sitting.discard(broker)
}

async fn load(broker: &Broker, topic: &str, partitions: i32, bytes: u64) -> Result<Done> {
    let batch = batch(16 << 10, 1 << 10, Compression::None)?;
    let (connections, endpoint) = (2, broker.endpoint());
    let batches = bytes / batch.len() as u64 / u64::from(connections);
    let topic = topic.to_owned();
    ProduceLoad { endpoint, topic, partitions, batch, batches, connections, window: 64, pace: None }.run().await
}

/// The rows about resident memory at rest.
pub async fn rest(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let minute = Duration::from_mins(1);
    let broker = sitting.broker("rest", &[("rest", 16, "")], &[])?;
    let resident = |broker: &Broker| Ok::<_, anyhow::Error>(broker.resident_bytes()? as f64 / MIB as f64);
    tokio::time::sleep(minute).await;
    figures.add("rest-empty", resident(&broker)?, "once");
    load(&broker, "rest", 16, 4 << 30).await?;
    let read = taffrail(&broker.endpoint())?.args(["bench", "consume", "rest"]).output().context("read it all")?;
    anyhow::ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    tokio::time::sleep(minute).await;
    figures.add("rest-used", resident(&broker)?, "once; all of it read again too");
    sitting.discard(broker)
}
