//! Replicas that move under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

use super::*;
use crate::partition::{Acks, AppendRequest, Isolation, Partition, ReadRequest};

/// Each record has a timestamp of its own.
const FIRST: i64 = 1_700_000_000_000;

/// One record.
pub(super) fn request(number: i64) -> AppendRequest {
    let mut builder = BatchBuilder::new();
    builder.push(None, Some(b"value"), [], FIRST + number).unwrap();
    let batch = builder.build(Compression::None, None).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    let max_timestamp = header.max_timestamp;
    AppendRequest { batch, header, max_timestamp, acks: Acks::All, leader_epoch: None, permit: None, order: None }
}

/// What was acknowledged of a partition: numbers by offset, and the longest pause.
#[derive(Default)]
struct Acknowledged {
    records: BTreeMap<i64, i64>,
    pause: Duration,
}

pub(super) fn partition(topics: &Topics, index: usize) -> Option<Partition> {
    topics.image().topic("t").ok()?.partitions.get(index).cloned()
}

/// What writers are told, and tell.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// How many records of each partition were acknowledged.
    acknowledged: [AtomicUsize; 3],
}

impl Load {
    /// Waits until so many more records of each partition were acknowledged.
    async fn more(&self, records: usize) {
        let counts = || self.acknowledged.each_ref().map(|count| count.load(Ordering::Relaxed));
        let (before, end) = (counts(), Instant::now() + PATIENCE);
        while std::iter::zip(before, counts()).any(|(before, now)| now < before + records) {
            assert!(Instant::now() < end, "{before:?}, then {:?}", counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Appends one record after another through this broker until it is told to stop.
async fn append(topics: Arc<Topics>, index: usize, load: Arc<Load>) -> Acknowledged {
    let (mut done, mut last, mut number) = (Acknowledged::default(), Instant::now(), 0);
    while !load.stop.load(Ordering::Relaxed) {
        number += 1;
        let Some(partition) = partition(&topics, index) else { return done };
        match tokio::time::timeout(Duration::from_secs(5), partition.append(request(number))).await {
            Ok(Ok(appended)) => {
                done.records.insert(appended.base_offset.unwrap(), number);
                load.acknowledged[index].fetch_add(1, Ordering::Relaxed);
                (done.pause, last) = (done.pause.max(last.elapsed()), Instant::now());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Whether it is stored is not known: it is no matter of this test.
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    done
}

/// All that is committed, by offset.
pub(super) async fn stored(partition: &Partition) -> BTreeMap<i64, i64> {
    let mut found = BTreeMap::new();
    let end = partition.current().await.unwrap().snapshot.high_watermark;
    let mut offset = 0;
    while offset < end {
        let request = ReadRequest {
            offset,
            max_bytes: 1 << 20,
            isolation: Isolation::default(),
            last_epoch: None,
            leader_epoch: None,
        };
        for batch in partition.read(request).await.unwrap().batches {
            let header = BatchHeader::parse(&batch).unwrap();
            found.insert(header.base_offset, header.base_timestamp - FIRST);
            offset = header.base_offset + 1;
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_broker_is_emptied_under_load_and_nothing_is_lost() {
    let cluster = Cluster::new(3, PATIENT).await;
    let mut running = Vec::new();
    for id in 0..3 {
        running.push(cluster.start(id, 1, None, Disk::new()).await);
    }
    cluster.topic(3, 2).await;
    for broker in &running {
        let even = spread(&[(Some(0), 1), (Some(1), 1), (Some(2), 1)]);
        broker.wait("spread over all", |broker| broker.leaders() == Some(even.clone())).await;
    }
    let load = Arc::<Load>::default();
    let writer = |index| tokio::spawn(append(running[0].topics.clone(), index, load.clone()));
    let writers: Vec<_> = (0..3).map(writer).collect();
    load.more(30).await;

    cluster.set("replicas", json!(2)).await;
    let end = Instant::now() + 2 * PATIENCE;
    loop {
        let partitions = cluster.partitions().await;
        let left: Vec<_> = partitions.iter().filter(|partition| partition.replicas.contains(&2)).collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "broker 2 is not emptied: {left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nobody needs it any more.
    running.pop().unwrap().leave().await;
    load.more(30).await;
    load.stop.store(true, Ordering::Relaxed);
    let end = Instant::now() + PATIENCE;
    loop {
        let partitions = cluster.partitions().await;
        if partitions.iter().all(|partition| !partition.is_moving() && partition.isr.len() == 2) {
            break;
        }
        assert!(Instant::now() < end, "{partitions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (index, writer) in writers.into_iter().enumerate() {
        let done = writer.await.unwrap();
        let found = stored(&partition(&running[0].topics, index).unwrap()).await;
        let lost: Vec<_> = done.records.iter().filter(|(offset, number)| found.get(offset) != Some(number)).collect();
        assert!(lost.is_empty() && done.records.len() >= 60, "{lost:?} of {}", done.records.len());
        // A twentieth of this where the machine is not busy.
        assert!(done.pause < Duration::from_secs(5), "{:?}", done.pause);
    }
    for broker in running {
        broker.leave().await;
    }
}
