//! `taffrail produce`: lines in, records out.

mod input;
mod progress;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use taffrail_client::{Acks, Client, Compression, Delivery, Producer, Record};

use self::input::{Lines, Parsed, Parser};
use self::progress::Progress;

#[derive(Debug, Args)]
#[command(after_help = "\
Each line is the value of a record. With --json each line must be a JSON value, and --key-field takes the key from it. With
--key-separator a line is KEY, the separator, VALUE.

Examples:
  echo 'hello' | taffrail produce greetings
  taffrail produce flights --json --key-field origin --file flights.jsonl
  printf 'a\\t1\\nb\\t2\\n' | taffrail produce pairs --key-separator '\\t'")]
pub(crate) struct Produce {
    /// Name of the topic.
    topic: String,
    /// Read this file in place of standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines are JSON: refuse those that are not.
    #[arg(long)]
    json: bool,
    /// Key of the record: this field of the JSON object. Its text if it is a string, otherwise its JSON.
    #[arg(short, long, value_name = "FIELD", requires = "json")]
    key_field: Option<String>,
    /// Key and value are parted by this; \t is a tabulator.
    #[arg(long, value_name = "TEXT", conflicts_with = "key_field")]
    key_separator: Option<String>,
    /// The same key for every record.
    #[arg(long, conflicts_with_all = ["key_field", "key_separator"])]
    key: Option<String>,
    /// A header for every record; may be given several times.
    #[arg(short = 'H', long = "headers", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Write to this partition, whatever the key.
    #[arg(short, long)]
    partition: Option<i32>,
    /// What is promised of each record.
    #[arg(short, long, value_enum, default_value_t)]
    delivery: DeliveryMode,
    /// What must have happened before a record counts as sent. Default: all; none with at-most-once.
    #[arg(long, value_enum)]
    acks: Option<AcksMode>,
    /// Compression of batches.
    #[arg(short, long, value_enum, default_value_t)]
    compression: CompressionMode,
    /// How long a record may wait for others to share its batch.
    #[arg(long, default_value = "5ms", value_parser = humantime::parse_duration)]
    linger: std::time::Duration,
    /// No progress and no summary.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the field's names")]
pub(crate) enum DeliveryMode {
    /// Sent once, never again.
    AtMostOnce,
    /// Sent until stored; a fault may store it twice.
    AtLeastOnce,
    /// Sent until stored, and stored once.
    #[default]
    ExactlyOnce,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AcksMode {
    None,
    Leader,
    All,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum CompressionMode {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<DeliveryMode> for Delivery {
    fn from(mode: DeliveryMode) -> Self {
        match mode {
            DeliveryMode::AtMostOnce => Self::AtMostOnce,
            DeliveryMode::AtLeastOnce => Self::AtLeastOnce,
            DeliveryMode::ExactlyOnce => Self::ExactlyOnce,
        }
    }
}

impl From<AcksMode> for Acks {
    fn from(mode: AcksMode) -> Self {
        match mode {
            AcksMode::None => Self::None,
            AcksMode::Leader => Self::Leader,
            AcksMode::All => Self::All,
        }
    }
}

impl From<CompressionMode> for Compression {
    fn from(mode: CompressionMode) -> Self {
        match mode {
            CompressionMode::None => Self::None,
            CompressionMode::Gzip => Self::Gzip,
            CompressionMode::Snappy => Self::Snappy,
            CompressionMode::Lz4 => Self::Lz4,
            CompressionMode::Zstd => Self::Zstd,
        }
    }
}

impl Produce {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let mut builder =
            client.producer().delivery(self.delivery.into()).compression(self.compression.into()).linger(self.linger);
        if let Some(acks) = self.acks {
            builder = builder.acks(acks.into());
        }
        let producer = builder.build()?;
        let headers = self.headers.iter().map(|h| header(h)).collect::<Result<Vec<_>>>()?;
        let parser =
            Parser::new(self.json, self.key_field.as_deref(), self.key_separator.as_deref(), self.key.as_deref());
        let mut lines = Lines::open(self.file.as_deref())?;
        let mut progress = Progress::new(lines.size(), self.quiet);
        let sent = self.send_all(&producer, &headers, &parser, &mut lines, &mut progress).await;
        let metrics = producer.clone();
        let closed = producer.close().await;
        progress.finish(&self.topic, &metrics.metrics());
        sent?;
        closed.context("not all records were stored")
    }

    async fn send_all(
        &self,
        producer: &Producer,
        headers: &[(&str, Option<&[u8]>)],
        parser: &Parser,
        lines: &mut Lines,
        progress: &mut Progress,
    ) -> Result<()> {
        while let Some(line) = lines.next().await? {
            let Parsed { key, value } = parser.parse(&line).with_context(|| format!("line {}", lines.number()))?;
            let mut record = Record::to(&self.topic).value(value).headers(headers);
            if let Some(key) = &key {
                record = record.key(key.as_ref());
            }
            if let Some(partition) = self.partition {
                record = record.partition(partition);
            }
            producer.send_forget(record).await.with_context(|| format!("line {}", lines.number()))?;
            progress.add(line.len() + 1);
        }
        Ok(())
    }
}

fn header(text: &str) -> Result<(&str, Option<&[u8]>)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, Some(value.as_bytes()))),
        _ => bail!("header {text:?}: write NAME=VALUE"),
    }
}
