//! What the client knows of brokers, topics and leaders, and how it learns more.
//!
//! A snapshot is read without waiting; it is renewed when a caller says that it misled (NOT_LEADER, an unknown topic) and
//! whenever the broker's `Watch` tells of a change. Only topics that somebody asked for are kept. [`Snapshot::merge`] is
//! pure: a late answer never takes a partition back to an older leader epoch.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_proto::v1::metadata_client::MetadataClient;
use taffrail_proto::v1::{GetMetadataRequest, GetMetadataResponse, TopicMetadata};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::client::{Retry, Shared};
use crate::connection::MAX_MESSAGE;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// How often the watch looks whether its client still exists.
const CLIENT_GONE_CHECK: Duration = Duration::from_secs(5);
/// A broker that has not answered for so long is left for another, which is given twice the time: one that sleeps, or whose
/// node has lost its power, says nothing, and connections are only given up after six seconds of that.
const SILENCE: Duration = Duration::from_secs(2);

/// A topic as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicInfo {
    pub(crate) name: Arc<str>,
    pub(crate) id: String,
    pub(crate) partitions: Vec<Leader>,
    /// Broker ids of the in-sync replicas, by the same index.
    pub(crate) in_sync: Vec<Vec<i32>>,
    /// Largest batch; 0 when the broker did not say.
    pub(crate) max_message_bytes: u32,
}

/// Who leads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Broker id; negative: none now.
    pub(crate) broker: i32,
    pub(crate) epoch: i32,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broker {
    /// `host:port`.
    endpoint: String,
    zone: Option<String>,
}

/// All that is known at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    brokers: HashMap<i32, Broker>,
    topics: HashMap<Arc<str>, Arc<TopicInfo>>,
}

impl Snapshot {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.topics.get(name)
    }

    /// `host:port` of a partition's leader.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<&str> {
        let leader = self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        self.brokers.get(&leader.broker).map(|broker| broker.endpoint.as_str())
    }

    /// `host:port` of an in-sync replica in this zone. `None`: there is none, or the leader itself is there.
    pub(crate) fn replica_in(&self, zone: &str, topic: &str, partition: i32) -> Option<&str> {
        let (topic, index) = (self.topics.get(topic)?, usize::try_from(partition).ok()?);
        let leader = topic.partitions.get(index).filter(|leader| leader.broker >= 0)?.broker;
        let is_near = |id: &i32| self.brokers.get(id).is_some_and(|broker| broker.zone.as_deref() == Some(zone));
        let near: Vec<i32> = topic.in_sync.get(index)?.iter().copied().filter(is_near).collect();
        if near.contains(&leader) {
            return None;
        }
        // Where a zone has several, readers of different partitions ask different ones.
        let chosen = near.get(index.checked_rem(near.len())?)?;
        Some(self.brokers.get(chosen)?.endpoint.as_str())
    }

    /// The epoch under which a partition is led: who is told it and does not lead says so, instead of passing things on.
    pub(crate) fn leader_epoch(&self, topic: &str, partition: i32) -> Option<i32> {
        let leader = self.topics.get(topic)?.partitions.get(usize::try_from(partition).ok()?)?;
        (leader.broker >= 0).then_some(leader.epoch)
    }

    pub(crate) fn brokers(&self) -> impl Iterator<Item = &str> {
        self.brokers.values().map(|broker| broker.endpoint.as_str())
    }

    /// What is known once an answer to a question for `asked` has come. A topic that was asked for and is not in the
    /// answer is gone.
    fn merge(&self, asked: &BTreeSet<Arc<str>>, answer: GetMetadataResponse) -> Self {
        let mut next = self.clone();
        if !answer.brokers.is_empty() {
            let known = answer.brokers.into_iter().filter(|b| !b.endpoint.is_empty());
            next.brokers = known.map(|b| (b.id, Broker { endpoint: b.endpoint, zone: b.zone })).collect();
        }
        next.topics.retain(|name, _| !asked.contains(name));
        for topic in answer.topics.into_iter().filter(|t| asked.contains(t.name.as_str())) {
            let known = self.topics.get(topic.name.as_str());
            let topic = topic_info(topic, known.map(AsRef::as_ref));
            next.topics.insert(topic.name.clone(), Arc::new(topic));
        }
        next
    }
}

fn topic_info(topic: TopicMetadata, known: Option<&TopicInfo>) -> TopicInfo {
    let known = known.filter(|k| k.id == topic.topic_id);
    let mut partitions: Vec<_> = topic.partitions;
    partitions.sort_unstable_by_key(|p| p.index);
    let newest =
        |(i, told): (usize, (Leader, Vec<i32>))| match known.and_then(|k| k.partitions.get(i).zip(k.in_sync.get(i))) {
            Some((old, in_sync)) if old.epoch > told.0.epoch => (*old, in_sync.clone()),
            _ => told,
        };
    let told = partitions.into_iter().map(|p| (Leader { broker: p.leader, epoch: p.leader_epoch }, p.isr));
    let (partitions, in_sync) = told.enumerate().map(newest).unzip();
    TopicInfo {
        partitions,
        in_sync,
        name: topic.name.into(),
        id: topic.topic_id,
        max_message_bytes: topic.max_message_bytes,
    }
}

/// The snapshot and its renewal.
pub(crate) struct MetadataCache {
    snapshot: watch::Sender<Arc<Snapshot>>,
    interest: Mutex<BTreeSet<Arc<str>>>,
    interest_grew: Arc<Notify>,
    /// When the last renewal began; holding the lock, one is under way.
    renewed: tokio::sync::Mutex<Option<Instant>>,
}

impl MetadataCache {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: watch::Sender::new(Arc::default()),
            interest: Mutex::default(),
            interest_grew: Arc::default(),
            renewed: tokio::sync::Mutex::default(),
        }
    }

    /// What is known now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Tells of each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    fn learn(&self, asked: &BTreeSet<Arc<str>>, answer: GetMetadataResponse) {
        self.snapshot.send_if_modified(|snapshot| {
            let next = snapshot.merge(asked, answer);
            let changed = next != **snapshot;
            if changed {
                *snapshot = Arc::new(next);
            }
            changed
        });
    }

    /// From now on this topic is kept up to date. The first call starts the watch.
    fn add_interest(&self, topic: &str, shared: &Arc<Shared>) {
        let mut interest = self.interest.lock();
        if interest.contains(topic) {
            return;
        }
        if interest.is_empty() {
            tokio::spawn(watch(Arc::downgrade(shared)));
        }
        interest.insert(topic.into());
        self.interest_grew.notify_one();
    }
}

impl Shared {
    /// A topic's metadata, asked for if it is not known. `NotFound` when it does not exist.
    pub(crate) async fn topic(self: &Arc<Self>, name: &str) -> Result<Arc<TopicInfo>> {
        if let Some(topic) = self.metadata.snapshot().topic(name) {
            return Ok(topic.clone());
        }
        self.metadata.add_interest(name, self);
        self.renew_metadata().await?;
        self.metadata.snapshot().topic(name).cloned().ok_or_else(|| {
            let message = format!("topic {name:?} does not exist: create it, or check its name");
            Error::local(ErrorKind::NotFound, message)
        })
    }

    /// Asks a broker again. Callers that come while one asks share its answer.
    pub(crate) async fn renew_metadata(&self) -> Result<()> {
        let called = Instant::now();
        let mut renewed = self.metadata.renewed.lock().await;
        if renewed.is_some_and(|at| at >= called) {
            return Ok(());
        }
        let began = Instant::now();
        let asked = self.metadata.interest.lock().clone();
        let answer = self.get_metadata(&asked).await?;
        *renewed = Some(began);
        self.metadata.learn(&asked, answer);
        Ok(())
    }

    async fn get_metadata(&self, topics: &BTreeSet<Arc<str>>) -> Result<GetMetadataResponse> {
        let (request, asked) = (question(topics), AtomicU32::new(0));
        self.call(Retry::Always, request, |connection, request| {
            let patience = SILENCE.saturating_mul(1 << asked.fetch_add(1, Ordering::Relaxed).min(4));
            async move {
                let mut client = MetadataClient::new(connection).max_decoding_message_size(MAX_MESSAGE);
                within(patience, client.get(request)).await
            }
        })
        .await
    }
}

/// The answer, or that there was none in time.
async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let silent = |_| Err(Status::unavailable(format!("no answer within {patience:?}")));
    timeout(patience, answer).await.unwrap_or_else(silent)
}

fn question(topics: &BTreeSet<Arc<str>>) -> GetMetadataRequest {
    GetMetadataRequest { topics: topics.iter().map(ToString::to_string).collect() }
}

/// Keeps the snapshot up to date until the client is gone.
async fn watch(shared: Weak<Shared>) {
    let mut backoff = Backoff::default();
    loop {
        match watch_once(&shared).await {
            Watched::ClientGone => return,
            Watched::InterestGrew => backoff.reset(),
            Watched::Broken { learnt } => {
                if learnt {
                    backoff.reset();
                }
                // A second at least: the watch only spares errors, and callers renew by themselves.
                tokio::time::sleep(Duration::from_secs(1) + backoff.next(rand::random())).await;
            }
        }
    }
}

enum Watched {
    ClientGone,
    InterestGrew,
    Broken { learnt: bool },
}

async fn watch_once(weak: &Weak<Shared>) -> Watched {
    let Some(shared) = weak.upgrade() else { return Watched::ClientGone };
    let asked = shared.metadata.interest.lock().clone();
    let grew = shared.metadata.interest_grew.clone();
    let Ok((turn, connection)) = shared.control() else { return Watched::Broken { learnt: false } };
    let mut client = MetadataClient::new(connection).max_decoding_message_size(MAX_MESSAGE);
    let Ok(answers) = within(SILENCE, client.watch(question(&asked))).await else {
        shared.next_endpoint(turn);
        return Watched::Broken { learnt: false };
    };
    // While it waits it keeps no client alive; one that is gone is noticed within the interval.
    drop((shared, client));
    let (mut answers, mut learnt) = (answers.into_inner(), false);
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer,
            () = grew.notified() => return Watched::InterestGrew,
            () = tokio::time::sleep(CLIENT_GONE_CHECK) => match weak.strong_count() {
                0 => return Watched::ClientGone,
                _ => continue,
            },
        };
        let Some(shared) = weak.upgrade() else { return Watched::ClientGone };
        let Ok(Some(answer)) = answer else { return Watched::Broken { learnt } };
        shared.metadata.learn(&asked, answer);
        learnt = true;
    }
}

#[cfg(test)]
mod tests;
