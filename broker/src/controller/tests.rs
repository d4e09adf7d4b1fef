mod engine;
mod start;
mod trash;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use taffrail_crds::manifest;
use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

use super::*;
use crate::clock::ManualClock;
use crate::metadata::{EmbeddedStore, Kind, MetadataError};
use crate::partition::{Acks, AppendRequest, Isolation, ReadRequest};
use crate::storage::memory::Disk;
use crate::storage::{Durability, StorageError};

const NOW: i64 = 1_700_000_000_000;
const DAY: Duration = Duration::from_hours(24);

/// A broker's controller on a disk in memory.
struct Bench {
    disk: Disk,
    clock: ManualClock,
    storage: Arc<dyn Storage>,
    metadata: Arc<dyn MetadataStore>,
    topics: Arc<Topics>,
    controller: Arc<Controller>,
    starts: u64,
}

impl Bench {
    async fn new() -> Self {
        Self::start(Disk::new(), ManualClock::new(NOW, "boot"), 1).await
    }

    async fn start(disk: Disk, clock: ManualClock, starts: u64) -> Self {
        let storage: Arc<dyn Storage> = disk.open();
        let context = Context::seeded(Arc::new(clock.clone()), starts, &*storage.meta()).unwrap();
        let metadata: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
        let topics = Topics::new();
        let started = Controller::start(context, storage.clone(), metadata.clone(), topics.clone()).await;
        Self { disk, clock, storage, metadata, topics, controller: started.unwrap(), starts }
    }

    /// Started again after a SIGKILL.
    async fn restart(self) -> Self {
        Self::start(self.disk, self.clock, self.starts + 1).await
    }

    /// A controller on another storage with the same content.
    async fn start_on(&self, storage: Full) -> Result<Arc<Controller>, TopicError> {
        let context = Context::seeded(Arc::new(self.clock.clone()), 99, &*storage.meta()).unwrap();
        Controller::start(context, Arc::new(storage), self.metadata.clone(), Topics::new()).await
    }

    fn epochs(&self) -> Vec<Option<i32>> {
        self.storage.logs().iter().map(|log| log.leader_epochs().latest()).collect()
    }

    async fn create(&self, name: &str, partitions: i32) -> TopicDescription {
        let topic = NewTopic { name: name.to_owned(), partitions: Some(partitions), ..NewTopic::default() };
        self.controller.create(topic, false).await.unwrap()
    }

    async fn append(&self, topic: &str, value: &'static [u8]) -> i64 {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(value), [], NOW).unwrap();
        let batch = builder.build(Compression::None, None).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let request = AppendRequest {
            batch,
            header,
            max_timestamp: NOW,
            acks: Acks::All,
            leader_epoch: None,
            permit: None,
            order: None,
        };
        let pending = self.topics.image().partition(topic, 0).unwrap().append(request);
        pending.await.unwrap().base_offset.unwrap()
    }

    async fn batches(&self, topic: &str) -> Vec<Bytes> {
        let partition = self.topics.image().partition(topic, 0).unwrap().clone();
        let offset = partition.snapshot().log_start;
        let (max_bytes, isolation) = (usize::MAX, Isolation::default());
        let request = ReadRequest { offset, max_bytes, isolation, last_epoch: None, leader_epoch: None };
        partition.read(request).await.unwrap().batches
    }

    fn names(&self) -> Vec<String> {
        self.topics.image().topics().map(|topic| topic.name.to_string()).collect()
    }
}

fn topics(yaml: &str) -> Vec<taffrail_crds::Topic> {
    let documents = manifest::parse(yaml, "test.yaml").unwrap();
    documents.into_iter().map(|document| document.topic).collect()
}

#[tokio::test]
async fn a_topic_is_served_when_it_is_made_and_after_a_restart() {
    let bench = Bench::new().await;
    let mut revision = bench.topics.subscribe();
    let made = bench.create("Orders_2", 3).await;
    assert_eq!((made.partitions, made.internal), (3, false));
    assert!(object::is_usable(made.id));
    assert!(revision.has_changed().unwrap());
    revision.mark_unchanged();
    assert_eq!(bench.append("Orders_2", b"a").await, 0);
    let bench = bench.restart().await;
    assert_eq!(bench.controller.describe("Orders_2").await.unwrap(), made);
    assert_eq!(bench.topics.image().topic("Orders_2").unwrap().partitions.len(), 3);
    assert_eq!(bench.append("Orders_2", b"b").await, 1);
}

#[tokio::test]
async fn names_and_configuration_are_checked_before_anything_is_made() {
    let bench = Bench::new().await;
    let new = |name: &str, config: &[(&str, &str)]| NewTopic {
        name: name.to_owned(),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..NewTopic::default()
    };
    for name in ["", "..", "__internal", "a b", &"x".repeat(250)] {
        let error = bench.controller.create(new(name, &[]), false).await.unwrap_err();
        assert!(matches!(error, TopicError::Name(_)), "{name:?}: {error}");
    }
    for config in [[("no.such.key", "1")], [("retention.ms", "soon")], [("cleanup.policy", "compact")]] {
        let error = bench.controller.create(new("a", &config), false).await.unwrap_err();
        assert!(matches!(error, TopicError::Config(_)), "{config:?}: {error}");
    }
    for partitions in [0, -1, 10_001] {
        let topic = NewTopic { partitions: Some(partitions), ..new("a", &[]) };
        let error = bench.controller.create(topic, false).await.unwrap_err();
        assert!(matches!(error, TopicError::Invalid(_)), "{partitions}: {error}");
    }
    let error = bench.controller.create(new("a", &[("min.insync.replicas", "2")]), false).await.unwrap_err();
    assert!(matches!(error, TopicError::Invalid(_)), "one replica is all there is: {error}");
    assert!(bench.names().is_empty() && bench.storage.logs().is_empty());
}

#[tokio::test]
async fn a_check_makes_nothing() {
    let bench = Bench::new().await;
    let topic = NewTopic { name: "a".into(), ..NewTopic::default() };
    assert!(bench.controller.create(topic, true).await.unwrap().id.is_nil());
    assert!(bench.names().is_empty() && bench.metadata.list(Kind::Topic).await.unwrap().is_empty());
    let made = bench.create("a", 1).await;
    let change = TopicChange { partitions: Some(5), ..TopicChange::default() };
    assert_eq!(bench.controller.alter("a", change, true).await.unwrap().partitions, 5);
    assert_eq!(bench.controller.describe("a").await.unwrap(), made);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    let again = bench.controller.create(NewTopic { name: "a".into(), ..NewTopic::default() }, false).await;
    assert!(matches!(again, Err(TopicError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn partitions_grow_and_never_shrink() {
    let bench = Bench::new().await;
    bench.create("a", 2).await;
    bench.append("a", b"kept").await;
    let to = |n| TopicChange { partitions: Some(n), ..TopicChange::default() };
    assert_eq!(bench.controller.alter("a", to(4), false).await.unwrap().partitions, 4);
    assert_eq!(bench.topics.image().topic("a").unwrap().partitions.len(), 4);
    assert_eq!(bench.append("a", b"more").await, 1, "the partitions that were there go on");
    let error = bench.controller.alter("a", to(3), false).await.unwrap_err();
    assert!(matches!(error, TopicError::Invalid(_)), "{error}");
    assert_eq!(bench.restart().await.topics.image().topic("a").unwrap().partitions.len(), 4);
}

#[tokio::test]
async fn configuration_takes_effect_on_what_is_served_and_stays() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    let change = TopicChange {
        set: vec![("durability".into(), "disk".into()), ("max.message.bytes".into(), "2048".into())],
        ..TopicChange::default()
    };
    let changed = bench.controller.alter("a", change, false).await.unwrap();
    let entry = |key: &str| changed.config.iter().find(|e| e.key == key).map(|e| (e.value.clone(), e.is_default));
    assert_eq!(entry("max.message.bytes"), Some(("2048".into(), false)));
    assert_eq!(bench.topics.image().topic("a").unwrap().settings.durability, Durability::Disk);
    let bench = bench.restart().await;
    assert_eq!(bench.topics.image().topic("a").unwrap().settings.max_message_bytes, 2048);
    let change = TopicChange { unset: vec!["max.message.bytes".into()], ..TopicChange::default() };
    bench.controller.alter("a", change, false).await.unwrap();
    assert_eq!(bench.topics.image().topic("a").unwrap().settings.max_message_bytes, 1_048_588);
}

#[tokio::test]
async fn a_topic_that_cannot_be_made_leaves_nothing_behind() {
    let bench = Bench::new().await;
    let full = Full(bench.storage.clone());
    let controller = bench.start_on(full).await.unwrap();
    let made = controller.create(NewTopic { name: "a".into(), ..NewTopic::default() }, false).await;
    assert!(matches!(made, Err(TopicError::Storage(StorageError::DiskFull { .. }))), "{made:?}");
    assert!(bench.metadata.list(Kind::Topic).await.unwrap().is_empty());
}

/// A storage that has no room for new logs.
struct Full(Arc<dyn Storage>);

impl Storage for Full {
    fn logs(&self) -> Vec<Arc<dyn crate::storage::Log>> {
        self.0.logs()
    }
    fn create_all(&self, _partitions: &[PartitionId]) -> Result<Vec<Arc<dyn crate::storage::Log>>, StorageError> {
        Err(StorageError::DiskFull { free: 0, reserve: 1 })
    }
    fn delete(&self, log: crate::storage::LogId) -> Result<(), StorageError> {
        self.0.delete(log)
    }
    fn meta(&self) -> Arc<dyn crate::storage::MetaStore> {
        self.0.meta()
    }
    fn identity(&self) -> crate::storage::Identity {
        self.0.identity()
    }
    fn mark_complete(&self) -> Result<(), StorageError> {
        self.0.mark_complete()
    }
    fn status(&self) -> crate::storage::Status {
        self.0.status()
    }
    fn takes_appends(&self) -> bool {
        self.0.takes_appends()
    }
    fn maintain(&self, log_time: i64) -> Result<crate::storage::Maintenance, StorageError> {
        self.0.maintain(log_time)
    }
    fn close(&self) -> Result<(), StorageError> {
        self.0.close()
    }
}

#[tokio::test]
async fn a_manifest_makes_changes_and_leaves_alone() {
    let bench = Bench::new().await;
    bench.create("other", 1).await;
    let yaml = |partitions: i32| {
        format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: a\nspec:\n  partitions: {partitions}\n---\n\
             apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: b\nspec:\n  config:\n    retention: 1h\n"
        )
    };
    let first = bench.controller.apply(topics(&yaml(2))).await.unwrap();
    assert_eq!(first, Applied { created: vec!["a".into(), "b".into()], ..Applied::default() });
    let second = bench.controller.apply(topics(&yaml(3))).await.unwrap();
    assert_eq!(second, Applied { changed: vec!["a".into()], unchanged: vec!["b".into()], ..Applied::default() });
    assert_eq!(bench.topics.image().topic("b").unwrap().settings.retention_ms, Some(3_600_000));
    let shrinking = bench.controller.apply(topics(&yaml(1))).await.unwrap();
    assert_eq!((shrinking.unchanged, shrinking.failed.len()), (vec!["b".to_owned()], 1));
    assert_eq!(bench.names(), ["a", "b", "other"]);
}

#[tokio::test]
async fn a_change_by_someone_else_is_seen_and_the_next_try_goes_through() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    let mut object = bench.metadata.get(Kind::Topic, "a").await.unwrap().unwrap();
    object.document["spec"]["partitions"] = json!(2);
    bench.metadata.replace(&object).await.unwrap();
    let to = |n| TopicChange { partitions: Some(n), ..TopicChange::default() };
    let first = bench.controller.alter("a", to(3), false).await;
    assert!(matches!(first, Err(TopicError::Conflict(_))), "{first:?}");
    assert_eq!(bench.controller.alter("a", to(3), false).await.unwrap().partitions, 3);
}

#[tokio::test]
async fn after_the_stop_nothing_is_changed_or_served_and_names_stay_known() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    bench.controller.stop().await;
    assert!(bench.topics.image().partition("a", 0).unwrap().snapshot().closed);
    let created = bench.controller.create(NewTopic { name: "b".into(), ..NewTopic::default() }, false).await;
    assert!(matches!(created, Err(TopicError::Stopping)), "{created:?}");
    assert!(matches!(bench.controller.delete("a", None).await, Err(TopicError::Stopping)));
    assert_eq!(bench.restart().await.names(), ["a"]);
}
