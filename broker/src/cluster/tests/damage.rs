//! Replicas whose records cannot be read any more.

use super::moves::{partition, request, stored};
use super::*;
use crate::partition::{FetchError, Isolation, Partition, ReadRequest};
use crate::storage::LogId;

/// Records of the partition, one batch each.
const RECORDS: i64 = 5;
/// The damaged one.
const DAMAGED: i64 = 2;

/// A topic of one partition with a replica on each of three brokers, and that partition when all are in sync.
async fn start() -> (Cluster, Vec<Running>, PartitionState) {
    let cluster = Cluster::new(3, PATIENT).await;
    let mut running = Vec::new();
    for id in 0..3 {
        running.push(cluster.start(id, 1, None, Disk::new()).await);
    }
    cluster.topic(1, 3).await;
    for broker in &running {
        broker.wait("led", |broker| broker.leaders().is_some_and(|leaders| !leaders.contains_key(&None))).await;
    }
    let state = until(&cluster, "all in sync", |state| state.isr.len() == 3).await;
    let led = served(&running[leader(&state)]);
    for number in 0..RECORDS {
        led.append(request(number)).await.unwrap();
    }
    (cluster, running, state)
}

fn leader(state: &PartitionState) -> usize {
    state.leader.unwrap() as usize
}

/// The partition as this broker serves it.
fn served(broker: &Running) -> Partition {
    partition(&broker.topics, 0).unwrap()
}

/// Damages a record on the disk of a broker.
fn damage(broker: &Running) -> LogId {
    let log = broker.disk.log_of(served(broker).id()).unwrap();
    assert!(broker.disk.damage(log, DAMAGED));
    log
}

async fn read(partition: &Partition) -> Result<usize, FetchError> {
    let isolation = Isolation::ReadUncommitted;
    let request = ReadRequest { offset: DAMAGED, max_bytes: 1 << 20, isolation, last_epoch: None, leader_epoch: None };
    Ok(partition.read(request).await?.batches.len())
}

/// Waits until the partition is so.
async fn until(cluster: &Cluster, what: &str, holds: impl Fn(&PartitionState) -> bool) -> PartitionState {
    let end = Instant::now() + PATIENCE;
    loop {
        let slice = cluster.store.get(Kind::PartitionSlice, &format!("{TOPIC}-0")).await.unwrap();
        let slice = slice.as_ref().and_then(spec_of::<PartitionSliceSpec>);
        let state = slice.and_then(|slice| slice.partitions.into_iter().next());
        if let Some(state) = state.clone().filter(&holds) {
            return state;
        }
        assert!(Instant::now() < end, "{what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the broker has another log in the place of this one, and all replicas are in sync.
async fn begins_anew(cluster: &Cluster, broker: &Running, damaged: LogId) -> PartitionState {
    let id = served(broker).id();
    let is_anew = |state: &PartitionState| {
        let log = broker.disk.log_of(id);
        state.isr.len() == 3 && log.is_some_and(|log| log != damaged)
    };
    let state = until(cluster, "begins anew", is_anew).await;
    assert!(!served(broker).is_damaged());
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_leader_with_damaged_records_resigns_and_begins_anew() {
    let (cluster, running, before) = start().await;
    let broker = &running[leader(&before)];
    let log = damage(broker);
    let put_off = read(&served(broker)).await;
    assert!(matches!(put_off, Err(FetchError::NoLeader(_))), "{put_off:?}");

    let other = |state: &PartitionState| state.leader.is_some() && state.leader != before.leader;
    let heir = &running[leader(&until(&cluster, "another leads", other).await)];
    heir.wait("leads, and knows what is committed", |heir| {
        let partition = served(heir);
        partition.is_local() && partition.snapshot().high_watermark == RECORDS
    })
    .await;
    let all: BTreeMap<_, _> = (0..RECORDS).map(|number| (number, number)).collect();
    assert_eq!(stored(&served(heir)).await, all);
    begins_anew(&cluster, broker, log).await;
    for broker in running {
        broker.leave().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_follower_with_damaged_records_leaves_and_begins_anew_under_another_epoch() {
    let (cluster, running, before) = start().await;
    let broker = &running[(leader(&before) + 1) % 3];
    broker
        .wait("serves all", |broker| {
            let replica = served(broker).in_sync_replica();
            replica.is_some_and(|replica| replica.snapshot().high_watermark == RECORDS)
        })
        .await;
    let log = damage(broker);
    let replica = served(broker).in_sync_replica().unwrap();
    assert!(read(&replica).await.unwrap() > 0, "its leader has them");
    let after = begins_anew(&cluster, broker, log).await;
    assert_eq!(after.leader, before.leader);
    assert!(after.leader_epoch > before.leader_epoch, "{before:?}, {after:?}");
    for broker in running {
        broker.leave().await;
    }
}
