//! Many partitions, and memory at rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use taffrail_proto::record::Compression;

use super::figures::Figures;
use super::load::{Done, ProduceLoad, batch};
use super::probe::Usage;
use super::sitting::{MIB, Sitting, used};
use crate::process::{Broker, taffrail};

/// What is produced to the many partitions, as a multiple of what other figures move: with 4 GiB more than 20 GB, and with
/// epochs of 64 MiB more than 300 of them.
const MANY_TIMES: u64 = 5;
const MANY: i32 = 10_000;

/// The rows about 10,000 partitions in one broker: 20 GB a round.
pub async fn many(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.long_rounds() {
        many_once(sitting, figures).await?;
    }
    Ok(())
}

async fn many_once(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let broker = sitting.broker("many", &[("many", MANY as u32, ""), ("few", 16, "")], &[])?;
    load(&broker, "few", 16, 512 * MIB).await?;
    let few = load(&broker, "few", 16, sitting.bytes).await?;
    let recording = sitting.record(&["many-throughput"], &[broker.pid()])?;
    let (many, usage) = used(&broker, load(&broker, "many", MANY, sitting.bytes * MANY_TIMES)).await?;
    sitting.keep(recording)?;
    let note = format!("{:.0} of {:.0} MB/s, 16 KiB batches", many.rate(), few.rate());
    figures.add("many-throughput", many.rate() / few.rate(), &note);
    figures.cpu("many-throughput", usage.cpu_per_gib(many.bytes));
    let options = broker.kill()?;
    let begin = Instant::now();
    let mut broker = options.spawn()?;
    let recording = sitting.record(&["many-start"], &[broker.pid()])?;
    broker.wait_ready()?;
    let seconds = begin.elapsed().as_secs_f64();
    sitting.keep(recording)?;
    let usage = Usage::of(broker.pid())?;
    let epochs = broker.metric("taffrail_storage_epochs")?;
    let gb = (sitting.bytes * (MANY_TIMES + 1)) as f64 / 1e9;
    let note = format!("{epochs} epochs, {gb:.1} GB, {:.1} CPU s", usage.cpu_seconds);
    figures.add("many-start", seconds, &note);
    figures.add("many-memory", usage.resident as f64 / MIB as f64, "right after the start");
    sitting.discard(broker)
}

async fn load(broker: &Broker, topic: &str, partitions: i32, bytes: u64) -> Result<Done> {
    let batch = batch(16 << 10, 1 << 10, Compression::None)?;
    let (connections, endpoint) = (2, broker.endpoint());
    let batches = bytes / batch.len() as u64 / u64::from(connections);
    let (topic, partitions) = (topic.to_owned(), (0..partitions).collect());
    ProduceLoad { endpoint, topic, partitions, batch, batches, connections, window: 64, pace: None }.run().await
}

/// The rows about resident memory at rest. One broker for each round, all at once: at rest they do not disturb each other.
pub async fn rest(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let minute = Duration::from_mins(1);
    let start = |round| sitting.broker(&format!("rest-{round}"), &[("rest", 16, "")], &[]);
    let brokers = (0..sitting.long_rounds()).map(start).collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(minute).await;
    for broker in &brokers {
        let (mib, note) = resident(broker)?;
        figures.add("rest-empty", mib, &note);
    }
    for broker in &brokers {
        load(broker, "rest", 16, 4 << 30).await?;
        let read = taffrail(&broker.endpoint())?.args(["bench", "consume", "rest"]).output().context("read it all")?;
        anyhow::ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
    tokio::time::sleep(minute).await;
    for broker in brokers {
        let (mib, note) = resident(&broker)?;
        figures.add("rest-used", mib, &format!("all of it read again too; {note}"));
        sitting.discard(broker)?;
    }
    Ok(())
}

/// Resident memory in MiB, and what it is made of.
fn resident(broker: &Broker) -> Result<(f64, String)> {
    let usage = Usage::of(broker.pid())?;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    Ok((mib(usage.resident), format!("{:.0} MiB of it are the program's file", mib(usage.resident_file))))
}
