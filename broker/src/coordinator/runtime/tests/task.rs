//! The task, on a partition in memory.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use taffrail_crds::slice::Replica;
use tokio::sync::watch;
use uuid::Uuid;

use super::super::{AskError, Coordinator, Failure, Limits, Phase, Setup};
use super::toy::{Ask, Toy};
use crate::context::Context;
use crate::partition::{Isolation, Partition, Replicated, Term};
use crate::replication::View;
use crate::storage::memory::Disk;
use crate::storage::{PartitionId, Storage as _};
use crate::topics::Settings;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    disk: Disk,
    partition: Partition,
    coordinator: Coordinator<Toy>,
    world: watch::Sender<u64>,
    events: Arc<Mutex<Vec<String>>>,
}

async fn open(disk: &Disk, term: Term) -> (Partition, Context) {
    let storage = disk.open();
    let id = PartitionId { topic: Uuid::from_u128(5), index: 0 };
    let log = storage.logs().into_iter().find(|log| log.partition() == id);
    let log = log.unwrap_or_else(|| storage.create(id).unwrap());
    let context = Context::system(&*storage.meta()).unwrap();
    let partition =
        Partition::lead(log, context.clone(), Arc::new(ArcSwap::from_pointee(Settings::plain())), term).await.unwrap();
    (partition, context)
}

impl Bench {
    async fn new(disk: Disk, limits: Limits) -> Self {
        Self::led(disk, limits, Term::alone(None)).await
    }

    async fn led(disk: Disk, limits: Limits, term: Term) -> Self {
        let (partition, context) = open(&disk, term).await;
        let (world, seen) = watch::channel(7);
        let events = Arc::new(Mutex::new(vec![]));
        let told = events.clone();
        let setup = Setup {
            name: "toy".into(),
            make: Toy::default,
            context,
            world: seen,
            events: Arc::new(move |event| told.lock().push(event)),
            limits,
        };
        let coordinator = Coordinator::start(partition.clone(), setup);
        Self { disk, partition, coordinator, world, events }
    }

    async fn loaded(disk: Disk) -> Self {
        let bench = Self::new(disk, Limits::default()).await;
        assert_eq!(bench.coordinator.loaded(PATIENCE).await, Phase::Serving);
        bench
    }

    async fn get(&self, name: &'static str) -> Option<u64> {
        self.coordinator.ask(Ask::Get(name)).await.unwrap()
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let disk = Disk::new();
    let bench = Bench::loaded(disk.clone()).await;
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 5)])).await, Ok(Some(5)));
    assert_eq!(*bench.events.lock(), ["a"]);
    bench.coordinator.stop().await;
    bench.partition.stop().await;
    assert_eq!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Closed));
    let bench = Bench::loaded(disk).await;
    assert_eq!((bench.get("a").await, bench.get("loads").await), (Some(5), Some(2)));
}

/// A log with a value for "a" that broker 0 leads anew, with broker 1 in sync.
async fn led_with_a_follower() -> Bench {
    let disk = Disk::new();
    let bench = Bench::loaded(disk.clone()).await;
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 5)])).await, Ok(Some(5)));
    bench.coordinator.stop().await;
    bench.partition.stop().await;
    let replica = |broker| Replica { broker, incarnation: 1 };
    let view = View {
        me: replica(0),
        leader_epoch: 1,
        partition_epoch: 1,
        replicas: vec![0, 1],
        isr: vec![replica(0), replica(1)],
        min_in_sync_replicas: 2,
    };
    let replicated = Some(Replicated { view, high_watermark: 0, proposals: Arc::default() });
    Bench::led(disk, Limits::default(), Term { epoch: Some(1), replicated }).await
}

#[tokio::test]
async fn c2_a_new_leader_serves_once_all_that_its_log_held_is_committed() {
    let bench = led_with_a_follower().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Loading));
    let follower = bench.partition.clone();
    tokio::spawn(async move {
        let mut written = -1;
        while !follower.snapshot().closed {
            written = follower.wait_beyond(written, Isolation::LogEnd).await.log_end;
            follower.fetched(Replica { broker: 1, incarnation: 1 }, written);
        }
    });
    assert_eq!(bench.coordinator.loaded(PATIENCE).await, Phase::Serving);
    assert_eq!(bench.get("a").await, Some(5));
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 6)])).await, Ok(Some(6)), "what it writes is committed too");
}

#[tokio::test]
async fn c2_one_that_waits_for_that_ends_with_its_partition() {
    let bench = led_with_a_follower().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.partition.stop().await;
    assert_eq!(bench.coordinator.loaded(PATIENCE).await, Phase::Closed);
}

#[tokio::test]
async fn requests_are_refused_until_the_log_is_read() {
    let bench = Bench::new(Disk::new(), Limits::default()).await;
    assert_eq!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Loading));
}

#[tokio::test]
async fn when_an_append_fails_the_state_is_that_of_the_log_again() {
    let bench = Bench::loaded(Disk::new()).await;
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 1)])).await, Ok(Some(1)));
    bench.disk.set_full(true);
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 2)])).await, Err(AskError::Failed(Failure::Unknown)));
    assert_eq!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Loading));
    bench.disk.set_full(false);
    assert_eq!(bench.coordinator.loaded(PATIENCE).await, Phase::Serving);
    assert_eq!(bench.get("a").await, Some(1));
}

#[tokio::test]
async fn a_parked_request_is_answered_in_time_or_when_the_time_is_over() {
    let bench = Bench::loaded(Disk::new()).await;
    let later = bench.coordinator.ask(Ask::Await("a", 3, PATIENCE));
    assert_eq!(bench.get("a").await, None, "what was asked before is parked by now");
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 3)])).await, Ok(Some(3)));
    assert_eq!(later.await, Ok(Some(3)));
    let never = bench.coordinator.ask(Ask::Await("a", 9, Duration::from_millis(50)));
    assert_eq!(never.await, Ok(Some(3)));
}

#[tokio::test]
async fn the_world_is_followed() {
    let bench = Bench::loaded(Disk::new()).await;
    bench.world.send(11).unwrap();
    while bench.get("world").await != Some(11) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn checkpoints_bound_the_log() {
    let limits = Limits { least_bytes: 10_000, ..Limits::default() };
    let disk = Disk::new();
    let bench = Bench::new(disk.clone(), limits).await;
    bench.coordinator.loaded(PATIENCE).await;
    for number in 0..3_000 {
        bench.coordinator.ask(Ask::Set(vec![("a", number)])).await.unwrap();
    }
    let snapshot = bench.partition.snapshot();
    assert!(snapshot.log_end - snapshot.log_start < 1_500, "{snapshot:?}");
    bench.coordinator.stop().await;
    bench.partition.stop().await;
    let bench = Bench::loaded(disk).await;
    assert_eq!(bench.get("a").await, Some(2_999));
}

#[tokio::test]
async fn a_log_that_cannot_be_understood_is_left_as_it_is() {
    let disk = Disk::new();
    let (partition, _) = open(&disk, Term::alone(None)).await;
    let mut builder = taffrail_proto::record::BatchBuilder::new();
    builder.push(Some(&[99]), Some(b""), [], 1).unwrap();
    let batch = builder.build(taffrail_proto::record::Compression::None, None).unwrap();
    let header = taffrail_proto::record::BatchHeader::parse(&batch).unwrap();
    let request = crate::partition::AppendRequest {
        batch,
        header,
        max_timestamp: 1,
        acks: crate::partition::Acks::All,
        leader_epoch: None,
        permit: None,
        order: None,
    };
    partition.append(request).await.unwrap();
    partition.stop().await;
    let bench = Bench::new(disk, Limits::default()).await;
    assert!(matches!(bench.coordinator.loaded(PATIENCE).await, Phase::Unreadable(_)));
    assert!(matches!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Unreadable(_))));
    assert_eq!(bench.partition.snapshot().log_end, 1);
    bench.coordinator.stop().await;
}

#[tokio::test]
async fn when_the_partition_is_closed_requests_are_refused() {
    let bench = Bench::loaded(Disk::new()).await;
    bench.partition.stop().await;
    assert_eq!(bench.coordinator.ask(Ask::Set(vec![("a", 1)])).await, Err(AskError::Failed(Failure::Unknown)));
    while bench.coordinator.phase() != Phase::Closed {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.coordinator.ask(Ask::Get("a")).await, Err(AskError::Closed));
    bench.coordinator.stop().await;
}

#[tokio::test]
async fn many_who_ask_at_once_are_served_together() {
    let bench = Bench::loaded(Disk::new()).await;
    let asks = (0..4_000).map(|number| bench.coordinator.ask(Ask::Set(vec![("a", number % 10)])));
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().all(Result::is_ok));
    let written = bench.partition.log().unwrap().read(0, i64::MAX, usize::MAX).await.unwrap();
    assert!(written.len() < 100, "{} appends", written.len());
}

#[tokio::test]
async fn more_than_may_wait_are_refused() {
    let bench = Bench::loaded(Disk::new()).await;
    let asks = (0..10_000).map(|_| bench.coordinator.ask(Ask::Get("a")));
    let answers = futures::future::join_all(asks).await;
    assert!(answers.contains(&Err(AskError::Busy)));
    assert!(answers.iter().filter(|answer| answer.is_ok()).count() >= 4_096);
}
