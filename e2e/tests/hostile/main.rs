//! 10,000 idle connections and 200 hostile clients: memory stays within its limit and an honest producer hardly notices.

mod clients;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_client::{Client, NewTopic, Record};
use taffrail_e2e::loop_volume::{root, run};
use taffrail_e2e::process::{Broker, BrokerOptions};
use tokio::time::sleep;

const IDLE: usize = 10_000;
/// Of each of the four kinds.
const HOSTILE: usize = 50;
/// `--memory-limit`'s default.
const MEMORY_LIMIT: u64 = 1 << 30;
const BULK: &str = "bulk";
const BULK_PARTITIONS: i32 = 8;
const WINDOW: Duration = Duration::from_millis(1500);
/// Before the attack, and as many after it; twice as many under it.
const WINDOWS: usize = 7;

/// Gives a process a core whenever it wants one. The hostile clients stand for other machines: what they take of this one's
/// time, and what else runs on it, is not what the broker is blamed for.
fn prefer(pid: u32) -> Result<()> {
    run(Command::new("chrt").args(["--all-tasks", "--rr", "--pid", "1", &pid.to_string()]))
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

#[ignore = "not passing yet: since the clients really are hostile, an honest producer's p99 more than doubles"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_and_two_hundred_hostile_clients_neither_fill_memory_nor_starve_an_honest_one() -> Result<()>
{
    if !root()? {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    // The usual limit, which the broker has to raise by itself.
    let broker = Arc::new(BrokerOptions::new(dir.path())?.under(["prlimit", "--nofile=1024:"]).start()?);
    prefer(broker.pid())?;
    prefer(std::process::id())?;
    let client = Client::connect(broker.endpoint().as_str())?;
    client.admin().create_topic(NewTopic::new("honest").partitions(1), false).await?;
    fill(&client).await?;
    honest(&client, 1).await?;
    let mut quiet = honest(&client, WINDOWS).await?;

    let most = Arc::new(AtomicU64::new(0));
    let watcher = tokio::spawn(watch(Arc::clone(&broker), Arc::clone(&most)));
    let address = broker.endpoint().trim_start_matches("http://").to_owned();
    let half = format!("idle {}", IDLE / 2);
    let idle = [clients::start(&half, &address)?, clients::start(&half, &address)?];
    let hostile = clients::start(&format!("hostile {HOSTILE}"), &address)?;
    let attacked = honest(&client, 2 * WINDOWS).await?;
    let connections = broker.metric("taffrail_connections")?;
    let (requests, answers) =
        (broker.metric("taffrail_produce_in_flight_bytes")?, broker.metric("taffrail_fetch_in_flight_bytes")?);
    eprintln!("{connections} connections; bytes held: {requests} of requests, {answers} of answers");
    ensure!(requests + answers > 64e6, "{requests} and {answers} bytes are held: the clients are not hostile");
    drop((idle, hostile));
    watcher.abort();
    // When they are gone, so is what they held.
    sleep(Duration::from_secs(2)).await;
    quiet.extend(honest(&client, WINDOWS).await?);

    let most = most.load(Ordering::Relaxed);
    eprintln!("p99 by windows: quiet {quiet:?}, attacked {attacked:?}; {} MiB of memory at most", most >> 20);
    ensure!(connections > (IDLE + HOSTILE) as f64, "{connections} connections: not all were there");
    ensure!(most <= MEMORY_LIMIT / 10 * 11, "the broker took {} MiB, its limit is {}", most >> 20, MEMORY_LIMIT >> 20);
    let (quiet, attacked) = (median(quiet), median(attacked));
    eprintln!("p99: quiet {quiet:?}, attacked {attacked:?}");
    ensure!(attacked <= quiet * 2, "an honest producer's p99 went from {quiet:?} to {attacked:?}");
    Ok(())
}
