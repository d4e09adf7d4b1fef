//! 10,000 idle connections and 200 hostile clients, and what an honest producer and the broker's memory have to bear.

mod clients;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_client::{Client, NewTopic, Record};
use tokio::time::sleep;

pub use self::clients::{Role, run};
use crate::loop_volume::run as run_command;
use crate::process::{Broker, BrokerOptions};

const IDLE: usize = 10_000;
/// Of each of the four kinds.
const HOSTILE: usize = 50;
/// `--memory-limit`'s default.
pub const MEMORY_LIMIT: u64 = 1 << 30;
const BULK: &str = "bulk";
const BULK_PARTITIONS: i32 = 8;
const WINDOW: Duration = Duration::from_millis(1500);
/// Before the attack, and as many after it; twice as many under it.
const WINDOWS: usize = 7;
/// What was borne.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The most memory that the broker took.
    pub resident: u64,
    /// An honest producer's 99th percentile, the median of windows of a second and a half: before and after, and under attack.
    pub quiet: Duration,
    /// See [`quiet`](Self::quiet).
    pub attacked: Duration,
}

/// Gives a process a core whenever it wants one and no process of a higher priority does; 0 takes that from it. The clients
/// stand for other machines: this process, the honest one, never waits for the broker; the hostile ones run when nobody else
/// does. So what is measured is the broker's doing, and not what else wants this machine's cores.
fn prefer(pid: u32, priority: u8) -> Result<()> {
    let policy = if priority > 0 { "--rr" } else { "--other" };
    let (priority, pid) = (priority.to_string(), pid.to_string());
    run_command(Command::new("chrt").args(["--all-tasks", policy, "--pid", &priority, &pid]))
}

async fn fill(client: &Client) -> Result<()> {
    client.admin().create_topic(NewTopic::new(BULK).partitions(BULK_PARTITIONS), false).await?;
    let producer = client.producer().batch_size(512 << 10).build()?;
    let value = vec![7; 64 << 10];
    for i in 0..2_000 {
        producer.send_forget(Record::to(BULK).partition(i % BULK_PARTITIONS).value(&value)).await?;
    }
    Ok(producer.close().await?)
}

/// A producer that writes at a steady pace and waits for each acknowledgement: the 99th percentile of each window.
async fn honest(client: &Client, windows: usize) -> Result<Vec<Duration>> {
    let producer = client.producer().linger(Duration::ZERO).build()?;
    let value = [1; 1024];
    let mut p99s = vec![];
    for _ in 0..windows {
        let begin = Instant::now();
        let mut pace = tokio::time::interval(Duration::from_millis(3));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut latencies = vec![];
        while begin.elapsed() < WINDOW {
            pace.tick().await;
            let sent = Instant::now();
            producer.send(Record::to("honest").value(&value)).await?.await?;
            latencies.push(sent.elapsed());
        }
        latencies.sort_unstable();
        p99s.push(latencies[latencies.len() * 99 / 100]);
    }
    producer.close().await?;
    Ok(p99s)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Watches the most memory that the broker takes.
async fn watch(broker: Arc<Broker>, most: Arc<AtomicU64>) -> Result<()> {
    loop {
        most.fetch_max(broker.resident_bytes()?, Ordering::Relaxed);
        sleep(Duration::from_millis(50)).await;
    }
}

/// The clients are there, and hold what they can.
fn check_attack(broker: &Broker) -> Result<()> {
    let connections = broker.metric("taffrail_connections")?;
    let (requests, answers) =
        (broker.metric("taffrail_produce_in_flight_bytes")?, broker.metric("taffrail_fetch_in_flight_bytes")?);
    eprintln!("{connections} connections; bytes held: {requests} of requests, {answers} of answers");
    ensure!(requests + answers > 64e6, "{requests} and {answers} bytes are held: the clients are not hostile");
    ensure!(connections > (IDLE + HOSTILE) as f64, "{connections} connections: not all were there");
    Ok(())
}

/// Starts a broker in `dir` and all clients, and measures. Needs root, for priorities; takes about a minute.
pub async fn endure(dir: &Path) -> Result<Outcome> {
    prefer(std::process::id(), 2)?;
    let outcome = endure_preferred(dir).await;
    prefer(std::process::id(), 0)?;
    outcome
}

async fn endure_preferred(dir: &Path) -> Result<Outcome> {
    // The usual limit, which the broker has to raise by itself.
    let broker = Arc::new(BrokerOptions::new(dir)?.under(["prlimit", "--nofile=1024:"]).start()?);
    prefer(broker.pid(), 1)?;
    let client = Client::connect(broker.endpoint().as_str())?;
    client.admin().create_topic(NewTopic::new("honest").partitions(1), false).await?;
    fill(&client).await?;
    honest(&client, 1).await?;
    let mut quiet = honest(&client, WINDOWS).await?;

    let most = Arc::new(AtomicU64::new(0));
    let watcher = tokio::spawn(watch(Arc::clone(&broker), Arc::clone(&most)));
    let address = broker.endpoint().trim_start_matches("http://").to_owned();
    let half = Role::Idle { number: IDLE / 2 };
    let idle = [clients::start(half, &address)?, clients::start(half, &address)?];
    let hostile = clients::start(Role::Hostile { each: HOSTILE }, &address)?;
    let attacked = honest(&client, 2 * WINDOWS).await?;
    check_attack(&broker)?;
    drop((idle, hostile));
    watcher.abort();
    // When they are gone, so is what they held.
    sleep(Duration::from_secs(2)).await;
    quiet.extend(honest(&client, WINDOWS).await?);

    let resident = most.load(Ordering::Relaxed);
    eprintln!("p99 by windows: quiet {quiet:?}, attacked {attacked:?}; {} MiB of memory at most", resident >> 20);
    Ok(Outcome { resident, quiet: median(quiet), attacked: median(attacked) })
}
