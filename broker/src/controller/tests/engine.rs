//! Topics and partitions on the engine on RocksDB: what must hold across a crash.

use taffrail_proto::record::BatchProducer;

use super::*;
use crate::partition::Appended;
use crate::storage::{Engine, EngineOptions};

struct Broker {
    controller: Arc<Controller>,
    topics: Arc<Topics>,
}

impl Broker {
    /// Opens a data directory, as soon as the broker before has let go of it.
    async fn start(dir: &std::path::Path) -> Self {
        let mut tries = 0;
        let storage: Arc<dyn Storage> = loop {
            match Engine::open(dir, EngineOptions::default()) {
                Ok(engine) => break engine,
                Err(StorageError::InUse { .. }) if tries < 6_000 => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
            tries += 1;
        };
        let clock = Arc::new(ManualClock::new(NOW, "boot"));
        let context = Context::seeded(clock, storage.identity().incarnation, &*storage.meta()).unwrap();
        let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
        let topics = Topics::new();
        let controller = Controller::start(context, storage, metadata, topics.clone()).await.unwrap();
        Self { controller, topics }
    }

    /// Ends without closing the storage, which so finds its directory as after a SIGKILL.
    async fn crash(self) {
        self.controller.stop().await;
    }

    async fn append(&self, first_sequence: i32) -> Appended {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(b"value"), [], NOW).unwrap();
        let producer = BatchProducer::new(7, 0, first_sequence).unwrap();
        let batch = builder.build(Compression::None, Some(producer)).unwrap();
        let header = BatchHeader::parse(&batch).unwrap();
        let (acks, max_timestamp, leader_epoch) = (Acks::All, NOW, None);
        let request = AppendRequest { batch, header, max_timestamp, acks, leader_epoch, permit: None, order: None };
        let pending = self.topics.image().partition("a", 0).unwrap().append(request);
        pending.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p5_a_retry_after_a_crash_gets_the_offset_of_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path()).await;
    broker.controller.create(NewTopic { name: "a".into(), ..NewTopic::default() }, false).await.unwrap();
    for sequence in 0..3 {
        assert_eq!(broker.append(sequence).await.base_offset, Some(i64::from(sequence)));
    }
    broker.crash().await;
    let broker = Broker::start(dir.path()).await;
    let retry = broker.append(2).await;
    assert_eq!((retry.base_offset, retry.duplicate), (Some(2), true));
    let next = broker.append(3).await;
    assert_eq!((next.base_offset, next.duplicate), (Some(3), false));
    broker.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_in_the_trash_comes_back_after_a_crash_with_its_offsets_and_producers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path()).await;
    let made = broker.controller.create(NewTopic { name: "a".into(), ..NewTopic::default() }, false).await.unwrap();
    broker.append(0).await;
    broker.controller.delete("a", None).await.unwrap();
    broker.crash().await;
    let broker = Broker::start(dir.path()).await;
    assert!(broker.topics.image().is_empty());
    assert_eq!(broker.controller.undelete(Deleted::Id(made.id), None).await.unwrap(), made);
    assert!(broker.append(0).await.duplicate);
    assert_eq!(broker.append(1).await.base_offset, Some(1));
    broker.crash().await;
}
