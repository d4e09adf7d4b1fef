//! 10,000 idle connections and 200 hostile clients: memory stays within its limit and an honest producer hardly notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use taffrail_client::{Client, NewTopic, Record};
use taffrail_e2e::http2::{Connection, huge_fetch};
use taffrail_e2e::process::{Broker, BrokerOptions};
use taffrail_proto::v1;
use tokio::task::JoinSet;
use tokio::time::sleep;

const IDLE: usize = 10_000;
/// Of each of the four kinds.
const HOSTILE: usize = 50;
/// `--memory-limit`'s default.
const MEMORY_LIMIT: u64 = 1 << 30;
const BULK: &str = "bulk";
const BULK_PARTITIONS: i32 = 8;
const WINDOW: Duration = Duration::from_millis(1500);
const WINDOWS: usize = 9;
/// What a window's p99 varies by on a shared machine although nothing changes: not counted as worse.
const NOISE: Duration = Duration::from_millis(4);

/// Room for all connections, in this process and in the broker, which inherits it.
fn raise_file_limit() -> Result<()> {
    let wanted = 2 * IDLE as u64 + 10_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .with_context(|| format!("raise the limit of open files to {wanted}: run as root, or `ulimit -n {wanted}`"))
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

#[derive(Clone, Copy, Debug)]
enum Kind {
    NeverReads,
    HalfAFrame,
    ThousandsOfStreams,
    HugeFetches,
}

/// One hostile connection, until the server ends it or it has nothing more to send; then it stays, and reads nothing.
async fn hostile(kind: Kind, address: &str) -> Result<Connection> {
    const READ: &str = "/taffrail.v1.Consumer/Read";
    const FETCH: &str = "/taffrail.v1.Consumer/Fetch";
    const PRODUCE: &str = "/taffrail.v1.Producer/Produce";
    let mut connection = Connection::open(address).await?;
    let read = v1::ReadRequest { topic: BULK.to_owned(), follow: true, ..v1::ReadRequest::default() };
    let streams = (1..).step_by(2);
    match kind {
        Kind::NeverReads => {
            for stream in streams.take(60) {
                connection.call(stream, READ, &read).await?;
            }
        }
        Kind::HalfAFrame => {
            for stream in streams.take(4) {
                connection.half_a_message(stream, PRODUCE, 8_000_000, 900_000).await?;
            }
        }
        Kind::ThousandsOfStreams => {
            for stream in streams.take(3_000) {
                connection.call(stream, READ, &read).await?;
            }
        }
        Kind::HugeFetches => {
            for stream in streams.take(20) {
                connection.call(stream, FETCH, &huge_fetch(BULK, BULK_PARTITIONS)).await?;
                connection.drain(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(connection)
}

/// Keeps all hostile clients at it: who is thrown out comes back.
fn attack(address: &str, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    for kind in [Kind::NeverReads, Kind::HalfAFrame, Kind::ThousandsOfStreams, Kind::HugeFetches] {
        for _ in 0..HOSTILE {
            let (address, stop) = (address.to_owned(), Arc::clone(stop));
            attackers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A client that does not read never notices that it was thrown out: it tries anew after a while.
                    let connection = tokio::time::timeout(Duration::from_secs(5), hostile(kind, &address)).await;
                    sleep(Duration::from_secs(3)).await;
                    drop(connection);
                }
            });
        }
    }
    attackers
}

async fn idle(address: &str) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        connections
            .push(Connection::open(address).await.with_context(|| format!("after {} connections", connections.len()))?);
    }
    Ok(connections)
}

/// Watches the most memory that the broker takes.
async fn watch(broker: Arc<Broker>, most: Arc<AtomicU64>) -> Result<()> {
    loop {
        most.fetch_max(broker.resident_bytes()?, Ordering::Relaxed);
        sleep(Duration::from_millis(50)).await;
    }
}

#[ignore = "not passing yet: asks for 30,000 open files, where some machines allow 20,000"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_idle_and_two_hundred_hostile_clients_neither_fill_memory_nor_starve_an_honest_one() -> Result<()>
{
    raise_file_limit()?;
    let dir = tempfile::tempdir()?;
    let broker = Arc::new(BrokerOptions::new(dir.path())?.start()?);
    let client = Client::connect(broker.endpoint().as_str())?;
    client.admin().create_topic(NewTopic::new("honest").partitions(1), false).await?;
    fill(&client).await?;
    honest(&client, 1).await?;
    let quiet = honest(&client, WINDOWS).await?;

    let most = Arc::new(AtomicU64::new(0));
    let watcher = tokio::spawn(watch(Arc::clone(&broker), Arc::clone(&most)));
    let address = broker.endpoint().trim_start_matches("http://").to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let idle = idle(&address).await?;
    let attackers = attack(&address, &stop);
    sleep(Duration::from_secs(3)).await;
    let attacked = honest(&client, WINDOWS).await?;
    stop.store(true, Ordering::Relaxed);
    attackers.join_all().await;
    watcher.abort();

    let most = most.load(Ordering::Relaxed);
    eprintln!("p99 by windows: quiet {quiet:?}, attacked {attacked:?}; {} MiB of memory at most", most >> 20);
    ensure!(most <= MEMORY_LIMIT / 10 * 11, "the broker took {} MiB, its limit is {}", most >> 20, MEMORY_LIMIT >> 20);
    let (quiet, attacked) = (median(quiet), median(attacked));
    ensure!(attacked <= (quiet * 2).max(quiet + NOISE), "an honest producer's p99 went from {quiet:?} to {attacked:?}");

    // When they are gone, so is what they held.
    drop(idle);
    sleep(Duration::from_secs(2)).await;
    let after = median(honest(&client, 3).await?);
    ensure!(after <= (quiet * 2).max(quiet + NOISE), "the attack is over, and p99 is {after:?} after {quiet:?}");
    Ok(())
}
