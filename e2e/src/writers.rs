//! Load that knows what it was told: idempotent producers that write unique values until they are stopped, and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use taffrail_client::{Acks, Client, Position, Producer, Record, RequestOutcome};
use tokio::task::JoinHandle;

use crate::history::{Answer, History, Seen, Told, id_of, value};

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
    /// Who must have a record before it is acknowledged.
    pub acks: Acks,
    /// Each writer has a partition of its own, by its number, so that none waits for another's.
    pub apart: bool,
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
            acks: Acks::All,
            apart: false,
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

    /// With acknowledgements of this kind.
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// With a writer for each of so many partitions, none of whom waits for another's.
    pub fn apart(mut self, partitions: u64) -> Self {
        (self.writers, self.apart) = (partitions, true);
        self
    }

    /// With so much time between two sends of a writer.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

/// Acknowledgements of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How many.
    pub count: u64,
    /// When the last came.
    pub last: Instant,
    /// The longest time between two of them.
    pub pause: Duration,
}

/// Acknowledgements, by partition.
type ByPartition = Arc<Mutex<BTreeMap<i32, Progress>>>;

fn note_ack(acks: &ByPartition, partition: i32) {
    let (mut acks, now) = (acks.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
    let acks = acks.entry(partition).or_insert(Progress { count: 0, last: now, pause: Duration::ZERO });
    *acks = Progress { count: acks.count + 1, last: now, pause: acks.pause.max(now - acks.last) };
}

/// Writers at work.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    acks: ByPartition,
    tasks: Vec<JoinHandle<Result<Vec<Answer>>>>,
}

impl Writers {
    /// Starts them. Numbers of records begin at `first`: leave room between loads of one topic.
    pub fn start(client: &Client, load: &Load, first: u64) -> Result<Self> {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let acks = ByPartition::default();
        let mut tasks = vec![];
        for writer in 0..load.writers {
            let producer = client.producer().acks(load.acks).linger(Duration::ZERO).delivery_timeout(load.patience);
            let writer = Writer {
                producer: producer.build()?,
                load: load.clone(),
                next: first + writer,
                partition: load.apart.then(|| i32::try_from(writer)).transpose()?,
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
    pub fn acks(&self) -> BTreeMap<i32, Progress> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The longest time for which a partition acknowledged nothing, up to now.
    pub fn longest_pause(&self) -> Duration {
        let pause = |acks: &Progress| acks.pause.max(acks.last.elapsed());
        self.acks().values().map(pause).max().unwrap_or_default()
    }

    /// Pauses count from now on.
    pub fn forget_pauses(&self) {
        let (mut acks, now) = (self.acks.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        acks.values_mut().for_each(|acks| (acks.last, acks.pause) = (now, Duration::ZERO));
    }

    /// Waits until so many more records are acknowledged by each of so many partitions: how long that took.
    pub async fn wait_for_each(&self, partitions: i32, more: u64, patience: Duration) -> Result<Duration> {
        self.wait_for_these(&(0..partitions).collect::<Vec<_>>(), more, patience).await
    }

    /// The same for these partitions.
    pub async fn wait_for_these(&self, partitions: &[i32], more: u64, patience: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let counts = |acks: &BTreeMap<i32, Progress>| -> Vec<u64> {
            partitions.iter().map(|partition| acks.get(partition).map_or(0, |acks| acks.count)).collect()
        };
        let before = counts(&self.acks());
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
        let (mut answers, writers) = (vec![], self.tasks.len() as u64);
        for task in self.tasks {
            answers.extend(task.await??);
        }
        Ok(History::of_answers(&answers, writers))
    }
}

struct Writer {
    producer: Producer,
    load: Load,
    next: u64,
    /// The one that it writes to; none: by key.
    partition: Option<i32>,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    acks: ByPartition,
}

impl Writer {
    async fn run(mut self) -> Result<Vec<Answer>> {
        let mut answers = vec![];
        let mut waiting = FuturesUnordered::new();
        while !self.stop.load(Ordering::Relaxed) {
            let (id, sent) = (self.next, Instant::now());
            self.next += self.load.writers;
            let (key, value) = (id.to_be_bytes(), value(id, self.load.padding));
            let record = Record::to(&self.load.topic).key(&key).value(&value);
            let record = self.partition.into_iter().fold(record, Record::partition);
            match self.producer.send(record).await {
                Ok(receipt) => waiting.push(async move { Answer::now(id, sent, told_of(receipt.await)) }),
                Err(error) => answers.push(Answer::now(id, sent, told_of(Err(error)))),
            }
            if !self.load.pause.is_zero() {
                tokio::time::sleep(self.load.pause).await;
            }
            while let Some(Some(answer)) = waiting.next().now_or_never() {
                self.note(answer, &mut answers);
            }
            while waiting.len() >= IN_FLIGHT
                && let Some(answer) = waiting.next().await
            {
                self.note(answer, &mut answers);
            }
        }
        while let Some(answer) = waiting.next().await {
            self.note(answer, &mut answers);
        }
        Ok(answers)
    }

    fn note(&self, answer: Answer, answers: &mut Vec<Answer>) {
        if let Told::Acked { partition, .. } = answer.told {
            self.acked.fetch_add(1, Ordering::Relaxed);
            note_ack(&self.acks, partition);
        }
        answers.push(answer);
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
