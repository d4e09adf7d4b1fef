//! `taffrail bench`: throughput and latency through the client library, as an application gets them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Args, Subcommand};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde::Serialize;
use taffrail_client::{Client, CommitMode, Position, Producer, Record, RecordBatch};

use crate::output::{self, Format};
use crate::produce::{AcksMode, CompressionMode, DeliveryMode};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Writes records as fast as they go.
    Produce(ProduceBench),
    /// Reads a topic from its beginning as fast as it goes.
    Consume(ConsumeBench),
    /// Writes at a steady rate and measures the time until each record is read.
    Latency(LatencyBench),
}

#[derive(Debug, Args)]
pub(crate) struct ProduceBench {
    /// Name of the topic.
    topic: String,
    /// Records in all.
    #[arg(short = 'n', long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of each value; half of them random, so that they compress about 2:1.
    #[arg(short, long, default_value_t = 100)]
    size: usize,
    /// Producers, each with connections and batches of its own.
    #[arg(short, long, default_value_t = 1)]
    producers: u32,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 64 << 10)]
    batch_size: usize,
    /// What is promised of each record.
    #[arg(short, long, value_enum, default_value_t)]
    delivery: DeliveryMode,
    /// What must have happened before a record counts as sent.
    #[arg(long, value_enum)]
    acks: Option<AcksMode>,
    /// Compression of batches.
    #[arg(short, long, value_enum, default_value_t)]
    compression: CompressionMode,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct ConsumeBench {
    /// Name of the topic.
    topic: String,
    /// Read as the only member of this group, from where it stopped, and commit all that is read.
    #[arg(short, long)]
    group: Option<String>,
    /// Commit this often; otherwise after each call that brought records, about 1 MiB.
    #[arg(long, requires = "group", value_parser = humantime::parse_duration)]
    auto_commit: Option<Duration>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct LatencyBench {
    /// Name of the topic.
    topic: String,
    /// Records a second.
    #[arg(short, long, default_value_t = 1_000)]
    rate: u32,
    /// How long.
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Bytes of each value, at least 8.
    #[arg(short, long, default_value_t = 100)]
    size: usize,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    records: u64,
    bytes: u64,
    seconds: f64,
    records_per_second: f64,
    megabytes_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
}

/// Percentiles in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Report {
    fn new(records: u64, bytes: u64, elapsed: Duration, latency_ms: Option<Latency>) -> Self {
        let seconds = elapsed.as_secs_f64();
        let (records_per_second, megabytes_per_second) = (records as f64 / seconds, bytes as f64 / seconds / 1e6);
        Self { records, bytes, seconds, records_per_second, megabytes_per_second, latency_ms }
    }

    fn print(&self, format: Format) -> Result<()> {
        if format == Format::Json {
            return output::json(self);
        }
        println!("{} records, {} in {:.2} s", self.records, output::bytes(self.bytes), self.seconds);
        println!("{:.0} records/s, {:.1} MB/s", self.records_per_second, self.megabytes_per_second);
        if let Some(Latency { p50, p99, p999, max }) = &self.latency_ms {
            println!("latency p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms");
        }
        Ok(())
    }
}

impl BenchCommand {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        match self {
            Self::Produce(bench) => bench.run(client).await,
            Self::Consume(bench) => bench.run(client).await,
            Self::Latency(bench) => bench.run(client).await,
        }
    }
}

/// Values of one size; as many as it takes that batches do not repeat.
fn values(size: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(1);
    let value = || {
        let mut value = vec![b'.'; size];
        random.fill_bytes(&mut value[..size / 2]);
        value
    };
    std::iter::repeat_with(value).take(1024).collect()
}

impl ProduceBench {
    async fn run(self, client: &Client) -> Result<()> {
        let values = std::sync::Arc::new(values(self.size));
        let each = self.records / u64::from(self.producers.max(1));
        let begin = Instant::now();
        let mut tasks = vec![];
        for _ in 0..self.producers.max(1) {
            let mut builder = client.producer().delivery(self.delivery.into()).compression(self.compression.into());
            builder = builder.batch_size(self.batch_size).buffer_memory((32 << 20).max(self.batch_size * 8));
            if let Some(acks) = self.acks {
                builder = builder.acks(acks.into());
            }
            let (producer, topic, values) = (builder.build()?, self.topic.clone(), std::sync::Arc::clone(&values));
            tasks.push(tokio::spawn(send_all(producer, topic, values, each)));
        }
        let mut latency: Option<Latency> = None;
        for task in tasks {
            let one = task.await??;
            let worse = latency.as_ref().is_none_or(|l| one.p99 > l.p99);
            if worse {
                latency = Some(one);
            }
        }
        let records = each * u64::from(self.producers.max(1));
        Report::new(records, records * self.size as u64, begin.elapsed(), latency).print(self.output)
    }
}

async fn send_all(
    producer: Producer,
    topic: String,
    values: std::sync::Arc<Vec<Vec<u8>>>,
    records: u64,
) -> Result<Latency> {
    for i in 0..records {
        let value = &values[i as usize % values.len()];
        producer.send_forget(Record::to(&topic).value(value)).await?;
    }
    producer.flush().await?;
    let metrics = producer.metrics();
    producer.close().await?;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let [p50, p99, max] = [metrics.latency_p50, metrics.latency_p99, metrics.latency_max].map(ms);
    Ok(Latency { p50, p99, p999: max, max })
}

impl ConsumeBench {
    async fn run(self, client: &Client) -> Result<()> {
        let mut read = Read::default();
        let begin = if let Some(group) = &self.group {
            let mode = self.auto_commit.map_or(CommitMode::AtLeastOnce, CommitMode::Auto);
            let builder = client.group_consumer(group).topics([&self.topic]).commits(mode).follow(false);
            let mut consumer = builder.start().await?;
            let begin = Instant::now();
            while let Some(records) = consumer.next().await? {
                records.batches().try_for_each(|batch| read.all_of(batch))?;
                if mode == CommitMode::AtLeastOnce {
                    consumer.commit().await?;
                }
            }
            consumer.close().await?;
            begin
        } else {
            let builder = client.consumer().topic(&self.topic).from(Position::Earliest).follow(false);
            let mut consumer = builder.build().await?;
            let begin = Instant::now();
            while let Some(batch) = consumer.next_batch().await {
                read.all_of(batch?)?;
            }
            begin
        };
        Report::new(read.records, read.bytes, begin.elapsed(), None).print(self.output)
    }
}

/// What was read.
#[derive(Debug, Default)]
struct Read {
    records: u64,
    bytes: u64,
}

impl Read {
    /// Goes through the records of a batch.
    fn all_of(&mut self, batch: RecordBatch) -> taffrail_client::Result<()> {
        self.bytes += batch.raw().len() as u64;
        for record in batch {
            record?;
            self.records += 1;
        }
        Ok(())
    }
}

impl LatencyBench {
    async fn run(self, client: &Client) -> Result<()> {
        ensure!(self.size >= 8, "--size must be at least 8: a record carries the time it was sent");
        ensure!(self.rate > 0, "--rate must be at least 1");
        let builder = client.consumer().topic(&self.topic).from(Position::Latest).follow(true);
        let mut consumer = builder.build().await?;
        let producer = client.producer().linger(Duration::ZERO).build()?;
        let total = (f64::from(self.rate) * self.duration.as_secs_f64()) as u64;
        let begin = Instant::now();
        let sender = tokio::spawn(send_steadily(producer, self.topic, self.size, self.rate, total, begin));
        let (mut latency, mut bytes) = (Histogram::<u64>::new(3)?, 0);
        for _ in 0..total {
            let patience = Duration::from_secs(30);
            let record = tokio::time::timeout(patience, consumer.next()).await.context("records do not arrive")?;
            let record = record.context("the consumer ended")??;
            let value = record.value.unwrap_or_else(Bytes::new);
            let sent = value.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            latency.record((begin.elapsed().as_nanos() as u64).saturating_sub(sent) / 1000)?;
            bytes += value.len() as u64;
        }
        sender.await??;
        let ms = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
        let latency = Latency { p50: ms(0.5), p99: ms(0.99), p999: ms(0.999), max: ms(1.0) };
        Report::new(total, bytes, begin.elapsed(), Some(latency)).print(self.output)
    }
}

async fn send_steadily(
    producer: Producer,
    topic: String,
    size: usize,
    rate: u32,
    total: u64,
    begin: Instant,
) -> Result<()> {
    let mut value = vec![b'.'; size];
    let pause = Duration::from_secs(1) / rate;
    for i in 0..total {
        tokio::time::sleep_until((begin + pause * i as u32).into()).await;
        value[..8].copy_from_slice(&(begin.elapsed().as_nanos() as u64).to_be_bytes());
        producer.send_forget(Record::to(&topic).value(&value)).await?;
    }
    Ok(producer.close().await?)
}
