//! Load that knows what it was told: idempotent producers that write unique values until they are stopped, and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use taffrail_client::{Client, Position, Producer, Record, RequestOutcome};
use tokio::task::JoinHandle;

use crate::history::{History, Seen, Told, id_of, value};

/// Records of one writer that wait for their acknowledgement.
const IN_FLIGHT: usize = 64;

/// What is written.
#[derive(Clone, Debug)]
pub struct Load {
    /// To which topic; partitions are chosen by key.
    pub topic: String,
    /// Producers.
    pub writers: u64,
    /// Bytes of a value beyond its number.
    pub padding: usize,
    /// How long a record is tried.
    pub patience: Duration,
    /// Time between two sends of a writer.
    pub pause: Duration,
}

impl Load {
    /// Two writers of 1 KiB records.
    pub fn to(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            writers: 2,
            padding: 1008,
            patience: Duration::from_mins(1),
            pause: Duration::ZERO,
        }
    }

    /// With values so much longer than their number.
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// With so much time for each record.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With so much time between two sends of a writer.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

/// What each record was told.
type Answers = Vec<(u64, Told)>;

/// Acknowledgements of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Acks {
    /// How many.
    pub count: u64,
    /// When the last came.
    pub last: Instant,
    /// The longest time between two of them.
    pub pause: Duration,
}

/// Acknowledgements, by partition.
type ByPartition = Arc<Mutex<BTreeMap<i32, Acks>>>;

fn note_ack(acks: &ByPartition, partition: i32) {
    let (mut acks, now) = (acks.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    let acks = acks.entry(partition).or_insert(Acks { count: 0, last: now, pause: Duration::ZERO });
    *acks = Acks { count: acks.count + 1, last: now, pause: acks.pause.max(now - acks.last) };
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    acks: ByPartition,
    tasks: Vec<JoinHandle<Result<Answers>>>,
}

impl Writers {
    /// Starts them. Numbers of records begin at `first`: leave room between loads of one topic.
    pub fn start(client: &Client, load: &Load, first: u64) -> Result<Self> {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let acks = ByPartition::default();
        let mut tasks = vec![];
        for writer in 0..load.writers {
            let producer = client.producer().linger(Duration::ZERO).delivery_timeout(load.patience).build()?;
            let writer = Writer {
                producer,
                load: load.clone(),
                next: first + writer,
                stop: Arc::clone(&stop),
                acked: Arc::clone(&acked),
                acks: Arc::clone(&acks),
            };
            tasks.push(tokio::spawn(writer.run()));
        }
        Ok(Self { stop, acked, acks, tasks })
    }

    /// Records acknowledged until now.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many more records are acknowledged.
    pub async fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.acked() + more;
        let enough = async {
            while self.acked() < wanted && !self.tasks.iter().any(JoinHandle::is_finished) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), enough).await.context("writers make no progress")
    }

    /// Acknowledgements until now, by partition.
    pub fn acks(&self) -> BTreeMap<i32, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The longest time for which a partition acknowledged nothing.
    pub fn longest_pause(&self) -> Duration {
        self.acks().values().map(|acks| acks.pause).max().unwrap_or_default()
    }

    /// Waits until so many more records are acknowledged by each of so many partitions: how long that took.
    pub async fn wait_for_each(&self, partitions: i32, more: u64, patience: Duration) -> Result<Duration> {
        let (begin, before) = (Instant::now(), self.acks());
        let counts = |acks: &BTreeMap<i32, Acks>| -> Vec<u64> {
            (0..partitions).map(|partition| acks.get(&partition).map_or(0, |acks| acks.count)).collect()
        };
        let before = counts(&before);
        loop {
            let now = counts(&self.acks());
            if now.iter().zip(&before).all(|(now, before)| *now >= before + more) {
                return Ok(begin.elapsed());
            }
            let elapsed = begin.elapsed();
            ensure!(elapsed < patience, "acknowledged by partition: {now:?} after {patience:?}, {before:?} before");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops them, waits for what is in flight, and gives what they were told.
    pub async fn stop(self) -> Result<History> {
        self.stop.store(true, Ordering::Relaxed);
        let (mut told, writers) = (vec![], self.tasks.len() as u64);
        for task in self.tasks {
            told.extend(task.await??);
        }
        Ok(History::by_writers(told, writers))
    }
}

struct Writer {
    producer: Producer,
    load: Load,
    next: u64,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    acks: ByPartition,
}

impl Writer {
    async fn run(mut self) -> Result<Answers> {
        let mut told = vec![];
        let mut waiting = FuturesUnordered::new();
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.next;
            self.next += self.load.writers;
            let (key, value) = (id.to_be_bytes(), value(id, self.load.padding));
            match self.producer.send(Record::to(&self.load.topic).key(&key).value(&value)).await {
                Ok(receipt) => waiting.push(async move { (id, told_of(receipt.await)) }),
                Err(error) => told.push((id, told_of(Err(error)))),
            }
            if !self.load.pause.is_zero() {
                tokio::time::sleep(self.load.pause).await;
            }
            while waiting.len() >= IN_FLIGHT {
                self.note(waiting.next().await, &mut told);
            }
        }
        while let Some(answer) = waiting.next().await {
            self.note(Some(answer), &mut told);
        }
        Ok(told)
    }

    fn note(&self, answer: Option<(u64, Told)>, told: &mut Answers) {
        if let Some((_, Told::Acked { partition, .. })) = answer {
            self.acked.fetch_add(1, Ordering::Relaxed);
            note_ack(&self.acks, partition);
        }
        told.extend(answer);
    }
}

fn told_of(answer: taffrail_client::Result<taffrail_client::RecordMetadata>) -> Told {
    match answer {
        Ok(stored) => Told::Acked { partition: stored.partition, offset: stored.offset },
        Err(error) if error.outcome() == RequestOutcome::NotApplied => Told::Refused,
        Err(_) => Told::Unknown,
    }
}

/// Reads all that a topic has.
pub async fn read_all(client: &Client, topic: &str) -> Result<Seen> {
    let mut consumer = client.consumer().topic(topic).from(Position::Earliest).follow(false).build().await?;
    let mut seen = Seen::new();
    while let Some(record) = consumer.next().await {
        let record = record?;
        let id = record.value.as_deref().and_then(id_of);
        seen.entry(record.partition).or_default().insert(record.offset, id);
    }
    Ok(seen)
}

/// First offsets of a topic's partitions.
pub async fn starts(client: &Client, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let topics = client.admin().describe_topics(&[topic], false).await?;
    Ok(topics.iter().flat_map(|t| t.partitions.iter().map(|p| (p.index, p.log_start_offset))).collect())
}

/// Reads all that a topic has and fails with the first things that contradict the history.
pub async fn check(client: &Client, topic: &str, history: &History) -> Result<Seen> {
    let starts = starts(client, topic).await?;
    let seen = read_all(client, topic).await?;
    let violations = history.check(&seen, &starts);
    let shown = &violations[..violations.len().min(10)];
    let (acked, there) = (history.acked(), seen.values().map(BTreeMap::len).sum::<usize>());
    anyhow::ensure!(
        violations.is_empty(),
        "{topic}: {acked} records acknowledged, {there} there, {} violations, such as {shown:?}",
        violations.len()
    );
    Ok(seen)
}
