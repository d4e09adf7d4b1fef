//! SIGKILL, at random moments and at every named point: what was acknowledged is there, once, at its offset.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use taffrail_broker::crash::{CrashPoint, VARIABLE};
use taffrail_client::{Client, NewTopic, Position, Record};
use taffrail_e2e::history::{History, Seen, id_of};
use taffrail_e2e::loop_volume::{LoopVolume, root};
use taffrail_e2e::process::BrokerOptions;
use taffrail_e2e::writers::{Load, Writers, check};

/// Repeats a run of the random kills.
const SEED: &str = "TAFFRAIL_TEST_SEED";
const KILLS: u32 = 20;
/// Storage epochs are small on a small volume, a 128th of it: each of the steps comes often.
const VOLUME_MIB: u64 = 1024;
/// How long it may take until a step is reached.
const PATIENCE: Duration = Duration::from_mins(2);

fn seed() -> Result<u64> {
    let seed = std::env::var(SEED).ok().map(|seed| seed.parse()).transpose()?.unwrap_or_else(rand::random);
    eprintln!("{SEED}={seed}");
    Ok(seed)
}

async fn create(client: &Client, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
    let topic = NewTopic::new(name).partitions(partitions);
    let topic = config.iter().fold(topic, |topic, (key, value)| topic.config(*key, *value));
    client.admin().create_topic(topic, false).await?;
    Ok(())
}

/// Follows a topic until `done`, through all restarts: what a reader that never looked back saw.
async fn follow(client: Client, topic: &'static str, mut done: tokio::sync::oneshot::Receiver<()>) -> Result<Seen> {
    let mut consumer = client.consumer().topic(topic).from(Position::Earliest).build().await?;
    let mut seen = Seen::new();
    loop {
        let record = tokio::select! {
            record = consumer.next() => record.context("a reader that follows never ends")??,
            _ = &mut done => return Ok(seen),
        };
        let id = record.value.as_deref().and_then(id_of);
        let before = seen.entry(record.partition).or_default().insert(record.offset, id);
        ensure!(before.is_none(), "offset {} of partition {} came twice", record.offset, record.partition);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d2_p1_r2_random_kills_under_load_lose_double_and_change_nothing() -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed()?);
    let dir = tempfile::tempdir()?;
    let mut broker = BrokerOptions::new(dir.path())?.start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    create(&client, "events", 4, &[]).await?;
    create(&client, "ledger", 2, &[("durability", "disk")]).await?;
    let (stop_reader, stopped) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn(follow(client.clone(), "events", stopped));
    let events = Writers::start(&client, &Load::to("events"), 0)?;
    let ledger = Writers::start(&client, &Load::to("ledger").padding(100), 1 << 32)?;
    for _ in 0..KILLS {
        events.wait_for(random.random_range(1..500)).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        broker = broker.kill()?.start()?;
    }
    let (events, ledger) = (events.stop().await?, ledger.stop().await?);
    let seen = check(&client, "events", &events).await?;
    check(&client, "ledger", &ledger).await?;
    // The kernel stayed up, so nothing can be missing, and no reader needs to be warned (D7).
    let topics = client.metadata(&["events", "ledger"]).await?.topics;
    assert!(topics.iter().flat_map(|t| &t.partitions).all(|p| p.leader_epoch == 0), "{topics:?}");
    eprintln!("{KILLS} kills, {} and {} records acknowledged", events.acked(), ledger.acked());

    let _ = stop_reader.send(());
    for (partition, records) in reader.await?? {
        let end = records.len() as i64;
        assert!(records.keys().copied().eq(0..end), "the reader skipped records of partition {partition}");
        for (offset, id) in records {
            assert_eq!(seen[&partition].get(&offset), Some(&id), "partition {partition} offset {offset} changed (R2)");
        }
    }
    drop(broker);
    Ok(())
}

/// One data directory through all crash points.
struct Ordeal {
    options: BrokerOptions,
    client: Client,
    history: History,
    round: u64,
    /// Where the offsets of [`IDLE`](Self::IDLE) go on.
    idle_end: i64,
}

impl Ordeal {
    const LOAD: &'static str = "load";
    /// Nothing of it is kept, and nobody writes to it under the load: its offsets outlive the files that had them.
    const IDLE: &'static str = "idle";
    /// More than two storage epochs of a volume of [`VOLUME_MIB`], so that at least one holds nothing else.
    const IDLE_MIB: i64 = 24;

    async fn new(volume: &LoopVolume) -> Result<Self> {
        let mut options = BrokerOptions::new(volume.outside())?;
        options.data_dir = volume.path().join("data");
        let broker = options.start()?;
        let client = Client::connect(broker.endpoint().as_str())?;
        create(&client, Self::LOAD, 4, &[]).await?;
        create(&client, Self::IDLE, 1, &[]).await?;
        let mut ordeal = Self { options, client, history: History::default(), round: 0, idle_end: 0 };
        ordeal.leave_garbage().await?;
        drop(broker);
        Ok(ordeal)
    }

    /// Runs a broker that will kill itself at `point`, keeps it busy until it does, starts it again and checks everything.
    async fn survive(&mut self, point: CrashPoint, times: u32) -> Result<()> {
        self.round += 1;
        let armed = self.options.clone().env(VARIABLE, &format!("{}:{times}", point.name()));
        let begin = Instant::now();
        let mut broker = armed.spawn()?;
        let load = Load::to(Self::LOAD).padding(8000).patience(PATIENCE).pause(Duration::from_millis(1));
        let writers = Writers::start(&self.client, &load, self.round << 32)?;
        while broker.ended()?.is_none() {
            ensure!(begin.elapsed() < PATIENCE, "not reached within {PATIENCE:?}");
            // Each step may fail: the broker dies in the middle of one.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.stir()).await;
        }
        drop(broker);
        let broker = self.options.start()?;
        writers.wait_for(100).await?;
        self.history.extend(writers.stop().await?);
        check(&self.client, Self::LOAD, &self.history).await?;
        let idle = self.client.admin().describe_topics(&[Self::IDLE], false).await?;
        let (start, end) = (idle[0].partitions[0].log_start_offset, idle[0].partitions[0].high_watermark);
        ensure!((start, end) == (self.idle_end, self.idle_end), "the idle log reaches from {start} to {end}");
        self.leave_garbage().await?;
        drop(broker); // As a crash: the next start has an open epoch to recover.
        eprintln!("{:14} {times}: {:.1} s", point.name(), begin.elapsed().as_secs_f64());
        Ok(())
    }

    /// Makes and deletes a topic, and trims.
    async fn stir(&self) -> Result<()> {
        let admin = self.client.admin();
        let _ = create(&self.client, "short-lived", 2, &[("trashRetention", "0s")]).await;
        let _ = admin.delete_topic("short-lived").await;
        self.trim().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    /// Gives up the older half of each partition but one, so that epochs are half dead.
    async fn trim(&self) -> Result<()> {
        let admin = self.client.admin();
        for topic in admin.describe_topics(&[Self::LOAD], false).await? {
            for p in topic.partitions.iter().filter(|p| p.index > 0) {
                admin.delete_records(&topic.name, p.index, p.log_start_offset.midpoint(p.high_watermark)).await?;
            }
        }
        Ok(())
    }

    /// Leaves epochs that are dead and others that are half dead, and a topic to purge, for the maintenance that the next
    /// start begins with.
    async fn leave_garbage(&mut self) -> Result<()> {
        let producer = self.client.producer().build()?;
        for _ in 0..2 * Self::IDLE_MIB {
            producer.send_forget(Record::to(Self::IDLE).value(&vec![7; 512 << 10])).await?;
        }
        producer.close().await?;
        self.idle_end += 2 * Self::IDLE_MIB;
        self.client.admin().delete_records(Self::IDLE, 0, self.idle_end).await?;
        self.stir().await?;
        self.trim().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d2_p1_a_kill_at_every_crash_point_loses_and_doubles_nothing() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    let volume = LoopVolume::new(VOLUME_MIB)?;
    let mut ordeal = Ordeal::new(&volume).await?;
    let random = &mut StdRng::seed_from_u64(seed()?);
    // Only followers truncate, and a broker that runs alone has none: the engine's own tests kill there.
    for point in CrashPoint::STORAGE.into_iter().filter(|&point| point != CrashPoint::Truncate) {
        // Maintenance works at a start and then every 30 s: what comes later than the first time is the engine's own test.
        let maintains =
            [CrashPoint::Rewrite, CrashPoint::Ingest, CrashPoint::Drop, CrashPoint::Checkpoint].contains(&point);
        for times in [1, if maintains { 1 } else { random.random_range(2..4) }] {
            ordeal.survive(point, times).await.with_context(|| format!("crash point {} {times}", point.name()))?;
        }
    }
    Ok(())
}
