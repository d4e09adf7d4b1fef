//! Consumer groups as applications see them: the first assignment, what a leaving member does to the others, and what a
//! group costs in throughput.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::{Client, CommitMode, RebalanceListener, Record, RecordBatch, RevokeCommit, TopicPartition};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::figures::Figures;
use super::sitting::{Sitting, client_bench};
use crate::process::Broker;

const TOPIC: &str = "shared";
const PARTITIONS: u32 = 64;
const MEMBERS: usize = 8;
/// Records a second to each partition while a member leaves.
const RATE: u32 = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Runs of each kind of consumer in a round.
const TURNS: u32 = 3;

/// The rows about groups of readers.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.long_rounds() {
        let broker = sitting.broker("group", &[(TOPIC, PARTITIONS, ""), ("whole", 16, "")], &[])?;
        handover(&broker, figures).await?;
        tokio::task::block_in_place(|| throughput(sitting, &broker, figures))?;
        sitting.discard(broker)?;
    }
    Ok(())
}

/// Deliveries to one member: when each of its partitions was heard of last, and the largest gap between two deliveries.
#[derive(Debug, Default)]
struct Deliveries {
    watched: bool,
    last: BTreeMap<i32, Instant>,
    largest: Duration,
}

/// How many partitions a member got, and how many it had to let go of.
#[derive(Debug, Default)]
struct Told {
    assigned: AtomicUsize,
    revoked: AtomicUsize,
}

impl Told {
    fn assigned(&self) -> usize {
        self.assigned.load(Ordering::SeqCst)
    }

    fn owned(&self) -> usize {
        self.assigned() - self.revoked.load(Ordering::SeqCst)
    }
}

struct Teller(Arc<Told>);

impl RebalanceListener for Teller {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.0.assigned.fetch_add(partitions.len(), Ordering::SeqCst);
    }

    fn revoked(&mut self, partitions: &[TopicPartition], _: &mut RevokeCommit) {
        self.0.revoked.fetch_add(partitions.len(), Ordering::SeqCst);
    }
}

fn lock(deliveries: &Mutex<Deliveries>) -> MutexGuard<'_, Deliveries> {
    deliveries.lock().expect("nobody panics while counting")
}

struct Member {
    told: Arc<Told>,
    deliveries: Arc<Mutex<Deliveries>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl Member {
    fn start(endpoint: &str) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (told, deliveries) = (Arc::<Told>::default(), Arc::<Mutex<Deliveries>>::default());
        let (teller, seen, endpoint) = (Teller(told.clone()), deliveries.clone(), endpoint.to_owned());
        let task = tokio::spawn(async move {
            let client = Client::connect(endpoint)?;
            let builder = client.group_consumer("bench").topics([TOPIC]).listener(teller);
            let mut consumer = builder.commits(CommitMode::Auto(Duration::from_secs(1))).start().await?;
            loop {
                let records = tokio::select! {
                    records = consumer.next() => records?.context("a reader that follows has no end")?,
                    _ = stopped.changed() => break,
                };
                let (now, mut seen) = (Instant::now(), lock(&seen));
                for batch in records.batches() {
                    let before = seen.last.insert(RecordBatch::partition(&batch), now);
                    if let Some(before) = before.filter(|_| seen.watched) {
                        seen.largest = seen.largest.max(now - before);
                    }
                }
            }
            Ok(consumer.close().await?)
        });
        Self { told, deliveries, stop, task }
    }

    async fn leave(self) -> Result<()> {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.task).await.context("a member does not leave")??
    }
}

/// Writes at the rate to every partition until it is stopped.
fn write(endpoint: &str) -> Result<(watch::Sender<bool>, JoinHandle<Result<()>>)> {
    let producer = Client::connect(endpoint)?.producer().linger(Duration::from_millis(5)).build()?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let value = vec![b'.'; 100];
        while !*stopped.borrow() {
            tick.tick().await;
            for partition in 0..PARTITIONS as i32 {
                for _ in 0..RATE / 100 {
                    // A receipt that nobody waits for is no less a record.
                    drop(producer.send(Record::to(TOPIC).partition(partition).value(&value)).await?);
                }
            }
        }
        Ok(producer.close().await?)
    });
    Ok((stop, task))
}

async fn handover(broker: &Broker, figures: &mut Figures) -> Result<()> {
    let (endpoint, share) = (broker.endpoint(), PARTITIONS as usize / MEMBERS);
    let begin = Instant::now();
    let mut members: Vec<_> = (0..MEMBERS).map(|_| Member::start(&endpoint)).collect();
    wait("each member owns its share", || members.iter().all(|member| member.told.owned() == share)).await?;
    let note = "8 members join at once a group that is not there; until each has 8 of the partitions";
    figures.add("group-first", begin.elapsed().as_secs_f64(), note);

    let (stop, writer) = write(&endpoint)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let assigned = |members: &[Member]| members.iter().map(|member| member.told.assigned()).sum::<usize>();
    for member in &members {
        lock(&member.deliveries).watched = true;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = largest_gap(&members);
    let gone = members.pop().context("a member")?;
    let had = assigned(&members);
    gone.leave().await?;
    wait("its partitions have new owners", || assigned(&members) >= had + share).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let moved = assigned(&members) - had;
    let owned = members.iter().map(|member| member.told.owned()).sum::<usize>();
    ensure!(moved == share && owned == PARTITIONS as usize, "{moved} partitions moved, not {share}; {owned} are owned");
    let note =
        format!("{moved} partitions moved, those of the member; {:.0} ms in the two seconds before", millis(before));
    figures.add("group-gap", millis(largest_gap(&members)), &note);
    for member in members {
        member.leave().await?;
    }
    stop.send_replace(true);
    timeout(PATIENCE, writer).await.context("the writer does not end")??
}

/// The longest that any partition of these members went without a delivery, the time since the last one included.
fn largest_gap(members: &[Member]) -> Duration {
    let of_member = |member: &Member| {
        let deliveries = lock(&member.deliveries);
        let since_last = deliveries.last.values().map(Instant::elapsed).max().unwrap_or_default();
        deliveries.largest.max(since_last)
    };
    members.iter().map(of_member).max().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn wait(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !is_so() {
        ensure!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The same records in turns without a group, through one, and through one that waits for a commit after each MiB.
fn throughput(sitting: &Sitting, broker: &Broker, figures: &mut Figures) -> Result<()> {
    let consume = |figures: &[&str], more: &[&str]| {
        let report = client_bench(sitting, figures, broker, &[&["consume", "whole"], more].concat())?;
        anyhow::Ok(report.records_per_second / 1e6)
    };
    client_bench(sitting, &[], broker, &["produce", "whole", "-n", "3000000", "--size", "300"])?;
    consume(&[], &[])?;
    let (mut plain, mut group, mut waiting) = (0.0, 0.0, 0.0);
    for turn in 0..TURNS {
        let (auto, each) = (format!("auto-{turn}"), format!("each-{turn}"));
        plain += consume(&[], &[])? / f64::from(TURNS);
        group += consume(&["group-consume"], &["--group", &auto, "--auto-commit", "1s"])? / f64::from(TURNS);
        waiting += consume(&[], &["--group", &each])? / f64::from(TURNS);
    }
    let note = format!(
        "{group:.2} of {plain:.2} M records/s of 300 B, one member that commits each second and at the end; {:.2} if it waits for \
         a commit after each MiB",
        waiting / plain
    );
    figures.add("group-consume", group / plain, &note);
    Ok(())
}
