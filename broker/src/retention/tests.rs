use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

use super::*;
use crate::clock::ManualClock;
use crate::controller::Controller;
use crate::controller::NewTopic;
use crate::metadata::EmbeddedStore;
use crate::partition::{Acks, AppendRequest};
use crate::storage::memory::Disk;

const NOW: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_hours(1);

struct Bench {
    clock: ManualClock,
    storage: Arc<dyn Storage>,
    topics: Arc<Topics>,
    retention: Retention,
}

/// A topic "t" with this configuration.
async fn bench(config: &[(&str, &str)]) -> Bench {
    let (storage, clock): (Arc<dyn Storage>, _) = (Disk::new().open(), ManualClock::new(NOW, "boot"));
    let context = Context::seeded(Arc::new(clock.clone()), 1, &*storage.meta()).unwrap();
    let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
    let topics = Topics::new();
    let started = Controller::start(context.clone(), storage.clone(), metadata, topics.clone()).await;
    let controller = started.unwrap();
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    controller.create(NewTopic { name: "t".into(), config, ..NewTopic::default() }, false).await.unwrap();
    let retention = Retention::new(context, storage.clone(), topics.clone(), controller);
    Bench { clock, storage, topics, retention }
}

impl Bench {
    /// Appends a batch of one record whose producer lives at `timestamp`.
    async fn append(&self, timestamp: i64) {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(&[0; 1_000]), [], timestamp).unwrap();
        let batch = builder.build(Compression::None, None).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let (acks, max_timestamp) = (Acks::All, timestamp);
        let request =
            AppendRequest { batch, header, max_timestamp, acks, leader_epoch: None, permit: None, order: None };
        let pending = self.topics.image().partition("t", 0).unwrap().append(request);
        pending.await.unwrap();
    }

    fn log_start(&self) -> i64 {
        self.topics.image().partition("t", 0).unwrap().snapshot().log_start
    }
}

#[tokio::test]
async fn q2_records_go_when_they_are_old_by_log_time_whatever_producers_and_the_wall_say() {
    let mut bench = bench(&[("retention", "10h")]).await;
    bench.append(0).await;
    bench.append(NOW).await;
    bench.clock.advance(5 * HOUR);
    bench.append(0).await;
    assert_eq!(bench.retention.round().await.unwrap().trimmed, 0);
    bench.clock.advance(5 * HOUR + Duration::from_millis(1));
    assert_eq!(bench.retention.round().await.unwrap().trimmed, 1);
    assert_eq!(bench.log_start(), 2);
}

#[tokio::test]
async fn q2_after_a_jump_of_the_wall_clock_nothing_goes_for_its_age_for_an_hour() {
    let mut bench = bench(&[("retention", "10h")]).await;
    bench.append(NOW).await;
    bench.retention.round().await.unwrap();
    bench.clock.advance(11 * HOUR);
    bench.clock.step_wall(30 * 86_400_000);
    assert_eq!(bench.retention.round().await.unwrap().trimmed, 0);
    bench.clock.advance(HOUR / 2);
    assert_eq!(bench.retention.round().await.unwrap().trimmed, 0);
    bench.clock.advance(HOUR / 2);
    assert_eq!(bench.retention.round().await.unwrap().trimmed, 1);
}

#[tokio::test]
async fn size_is_kept_per_partition() {
    let mut bench = bench(&[("retention", "forever"), ("retentionBytes", "2500")]).await;
    for _ in 0..6 {
        bench.append(NOW).await;
    }
    bench.retention.round().await.unwrap();
    assert_eq!(bench.log_start(), 3, "three batches of 1,069 bytes hold at least 2,500");
}

#[tokio::test]
async fn log_time_is_kept_for_the_next_start() {
    let mut bench = bench(&[]).await;
    bench.clock.advance(5 * HOUR);
    bench.retention.round().await.unwrap();
    let next = Context::seeded(Arc::new(ManualClock::new(NOW, "another boot")), 2, &*bench.storage.meta()).unwrap();
    assert_eq!(next.log_millis(), NOW + 5 * 3_600_000);
}
