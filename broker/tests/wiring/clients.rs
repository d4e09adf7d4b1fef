//! Clients: the real ones, on hosts of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use taffrail_client::{Acks, Client, ClientConfig, ErrorKind, NewTopic, Position, Producer, Record};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::counts::{Counts, Seen};
use super::history::{History, Place, Told, WRITER, value};
use super::machine::{BEGIN, CLIENTS, broker_name};
use super::network::dial;
use super::options::Options;
use super::rng::Rng;

/// The topic that all use.
const TOPIC: &str = "orders";
/// Time before somebody who failed tries again.
const PAUSE: Duration = Duration::from_millis(200);
/// Time in which a member that is healthy is given records, if there are any.
const MEMBER_PAUSE: Duration = Duration::from_secs(5);
/// Records of one writer that wait for their acknowledgement.
const IN_FLIGHT: usize = 64;

/// How far the schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Everything begins.
    Setup,
    /// Everything goes wrong.
    Faults,
    /// Everything works, for good.
    Healed,
}

/// What clients and the schedule tell each other.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) stage: watch::Sender<Stage>,
    /// The topic is there.
    pub(crate) made: AtomicBool,
    /// Writers that are not through.
    pub(crate) writing: AtomicUsize,
    pub(crate) history: Mutex<History>,
    pub(crate) counts: Mutex<Counts>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            stage: watch::Sender::new(Stage::Setup),
            made: AtomicBool::new(false),
            writing: AtomicUsize::new(options.writers as usize),
            history: Mutex::default(),
            counts: Mutex::default(),
            options,
        }
    }

    fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    async fn reaches(&self, stage: Stage) {
        // It does not end as long as somebody asks.
        let _ = self.stage.subscribe().wait_for(|now| *now >= stage).await;
    }

    fn saw(&self, seen: Seen) {
        self.counts.lock().saw(seen);
    }
}

fn connect(options: &Options, name: &str) -> taffrail_client::Result<Client> {
    let endpoints: Vec<_> = (0..options.brokers).map(|id| format!("{}:{CLIENTS}", broker_name(id))).collect();
    let config = ClientConfig { dial: |endpoint| dial(&endpoint), ..ClientConfig::new(&endpoints.join(",")) };
    Client::connect(config.client_id(name))
}

/// Makes the topic; then reads it in two ways, as long as things go wrong and once more when all is written.
pub(crate) async fn read(shared: Arc<Shared>) -> turmoil::Result {
    let client = connect(&shared.options, "reader")?;
    Box::pin(make_topic(&client, &shared)).await;
    tokio::join!(Box::pin(follow(&client, &shared)), Box::pin(process(&client, &shared)));
    Ok(())
}

async fn make_topic(client: &Client, shared: &Shared) {
    let options = &shared.options;
    loop {
        let topic = NewTopic::new(TOPIC)
            .partitions(options.partitions)
            .replication_factor(options.replication_factor)
            .config("min.insync.replicas", options.min_in_sync_replicas.to_string());
        match client.admin().create_topic(topic, false).await {
            // Not all brokers are there yet.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                tracing::info!(%error, "the topic is not made yet");
                sleep(PAUSE).await;
            }
            _ => break,
        }
    }
    shared.made.store(true, Relaxed);
}

async fn follow(client: &Client, shared: &Shared) {
    shared.reaches(Stage::Faults).await;
    tokio::select! {
        () = read_on(client, shared) => {}
        () = shared.reaches(Stage::Healed) => {}
    }
    while shared.writing.load(Relaxed) > 0 {
        sleep(PAUSE).await;
    }
    loop {
        match Box::pin(read_all(client, shared)).await {
            Ok(places) => return shared.history.lock().end(&places),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Reads from the beginning, and again whenever it fails.
async fn read_on(client: &Client, shared: &Shared) {
    loop {
        if let Ok(mut consumer) = client.consumer().topic(TOPIC).from(Position::Earliest).build().await {
            while let Some(Ok(record)) = consumer.next().await {
                shared.saw(Seen::ReadEarly);
                shared.history.lock().see(&record);
            }
        }
        sleep(PAUSE).await;
    }
}

/// What there is.
async fn read_all(client: &Client, shared: &Shared) -> taffrail_client::Result<BTreeSet<Place>> {
    let mut consumer = client.consumer().topic(TOPIC).from(Position::Earliest).follow(false).build().await?;
    let mut places = BTreeSet::new();
    while let Some(record) = consumer.next().await {
        let record = record?;
        shared.history.lock().see(&record);
        places.insert((record.partition, record.offset));
    }
    Ok(places)
}

/// A group's only member goes through all records, and joins again whenever it fails. What it has committed it is not given
/// again; so all are gone through only if no commit was made up.
async fn process(client: &Client, shared: &Shared) {
    shared.reaches(Stage::Faults).await;
    while Box::pin(process_on(client, shared)).await.is_err() {
        shared.saw(Seen::JoinedAgain);
        sleep(PAUSE).await;
    }
}

async fn process_on(client: &Client, shared: &Shared) -> taffrail_client::Result<()> {
    let group = client.group_consumer("billing").topics([TOPIC]).session_timeout(Duration::from_secs(6));
    let mut member = group.start().await?;
    loop {
        if let Ok(records) = timeout(MEMBER_PAUSE, member.next()).await {
            for record in records?.into_iter().flatten() {
                let record = record?;
                let mut history = shared.history.lock();
                history.see(&record);
                history.process((record.partition, record.offset));
            }
            member.commit().await?;
            shared.saw(Seen::Committed);
        }
        if shared.history.lock().is_processed() {
            return member.close().await;
        }
    }
}

/// Writes as long as things go wrong; once they do not, to each partition until that is acknowledged.
pub(crate) async fn write(shared: Arc<Shared>, number: u64) -> turmoil::Result {
    let options = &shared.options;
    shared.reaches(Stage::Faults).await;
    let client = connect(options, &format!("writer-{number}"))?;
    let producer = client.producer().acks(Acks::All).delivery_timeout(options.patience).build()?;
    let mut writer = Writer { producer, next: number * WRITER, shared: &shared };
    let mut rng = Rng::new(options.seed ^ (0xa11_0000 + number));
    let mut waiting = FuturesUnordered::new();
    while shared.stage() < Stage::Healed {
        let partition = rng.index(options.partitions as usize) as i32;
        let (id, sent) = writer.send(partition).await;
        match sent {
            Ok(receipt) => waiting.push(receipt.map(move |answer| (id, answer))),
            Err(error) => writer.told(id, Err(error)),
        }
        sleep(Duration::from_millis(1 + rng.below(options.pace.as_millis() as u64))).await;
        while let Some(Some((id, answer))) = waiting.next().now_or_never() {
            writer.told(id, answer);
        }
        if waiting.len() >= IN_FLIGHT
            && let Some((id, answer)) = waiting.next().await
        {
            writer.told(id, answer);
        }
    }
    while let Some((id, answer)) = waiting.next().await {
        writer.told(id, answer);
    }
    for partition in 0..options.partitions {
        while !writer.stored(partition).await {
            sleep(PAUSE).await;
        }
    }
    shared.writing.fetch_sub(1, Relaxed);
    Ok(())
}

struct Writer<'a> {
    producer: Producer,
    next: u64,
    shared: &'a Shared,
}

impl Writer<'_> {
    async fn send(&mut self, partition: i32) -> (u64, taffrail_client::Result<taffrail_client::Receipt>) {
        let id = self.next;
        self.next += 1;
        let value = value(id, self.shared.options.padding);
        // The client's machine has a clock that is not simulated.
        let record = Record::to(TOPIC).partition(partition).value(&value).timestamp_ms(BEGIN);
        (id, self.producer.send(record).await)
    }

    /// Whether one more record is acknowledged.
    async fn stored(&mut self, partition: i32) -> bool {
        let (id, sent) = self.send(partition).await;
        let answer = match sent {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        let is_stored = answer.is_ok();
        self.told(id, answer);
        is_stored
    }

    fn told(&self, id: u64, answer: taffrail_client::Result<taffrail_client::RecordMetadata>) {
        self.shared.history.lock().tell(id, Told::of(answer));
    }
}
