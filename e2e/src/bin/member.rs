//! A member of a consumer group that keeps a diary (see `taffrail_e2e::group`), for the demo and the tests. Leaves the group
//! on SIGTERM.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use taffrail_client::{
    Client, ClientConfig, CommitMode, ErrorKind, GroupConsumer, RebalanceListener, Records, RevokeCommit,
    TopicPartition,
};
use taffrail_e2e::group::Entry;
use tokio::signal::unix::{SignalKind, signal};

/// Bytes handed out at a time: few, so that commits are many.
const AT_ONCE: usize = 64 << 10;

#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    broker: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    at_most_once: bool,
    #[arg(long)]
    session_timeout_ms: u64,
    #[arg(long)]
    pace_us: u64,
    #[arg(long)]
    instance_id: Option<String>,
    #[arg(long)]
    diary: PathBuf,
}

/// Lines go to the file one by one.
#[derive(Clone)]
struct Writer(Arc<Mutex<File>>);

impl Writer {
    fn write(&self, entry: &Entry) {
        let mut line = serde_json::to_vec(entry).expect("an entry can be written as JSON");
        line.push(b'\n');
        let mut file = self.0.lock().expect("no one panics while writing");
        file.write_all(&line).expect("the diary can be written");
    }
}

impl RebalanceListener for Writer {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.write(&Entry::Assigned(now(), numbers(partitions)));
    }

    fn revoked(&mut self, partitions: &[TopicPartition], _: &mut RevokeCommit) {
        self.write(&Entry::Revoked(now(), numbers(partitions)));
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.write(&Entry::Lost(now(), numbers(partitions)));
    }
}

fn numbers(partitions: &[TopicPartition]) -> Vec<i32> {
    partitions.iter().map(|p| p.partition).collect()
}

/// Nanoseconds since the machine's start: the same clock in all processes.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let file = File::options().create(true).append(true).open(&options.diary).context("open the diary")?;
    let diary = Writer(Arc::new(Mutex::new(file)));
    let client = Client::connect(ClientConfig::new(&options.broker).client_id("taffrail-member"))?;
    let mode = if options.at_most_once { CommitMode::AtMostOnce } else { CommitMode::AtLeastOnce };
    let builder = client.group_consumer(&options.group).topics([&options.topic]).commits(mode).max_bytes(AT_ONCE);
    let builder = builder.session_timeout(Duration::from_millis(options.session_timeout_ms)).listener(diary.clone());
    let builder = match &options.instance_id {
        Some(id) => builder.instance_id(id),
        None => builder,
    };
    let mut consumer = builder.start().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        let next = tokio::select! {
            next = consumer.next() => next?,
            _ = terminate.recv() => break,
        };
        let Some(records) = next else { break };
        process(records, &options, &diary).await?;
        if !options.at_most_once {
            commit(&mut consumer, &diary).await?;
        }
    }
    Ok(consumer.close().await?)
}

async fn process(records: Records, options: &Options, diary: &Writer) -> Result<()> {
    let mut ahead = Duration::ZERO;
    for record in records {
        let record = record?;
        diary.write(&Entry::Record(now(), record.partition, record.offset));
        // Short sleeps are long ones in truth.
        ahead += Duration::from_micros(options.pace_us);
        if ahead > Duration::from_millis(5) {
            tokio::time::sleep(std::mem::take(&mut ahead)).await;
        }
    }
    Ok(())
}

async fn commit(consumer: &mut GroupConsumer, diary: &Writer) -> Result<()> {
    match consumer.commit().await {
        Err(error) if error.kind() == ErrorKind::MemberFenced => {
            diary.write(&Entry::Fenced(now()));
            Ok(())
        }
        result => Ok(result?),
    }
}
