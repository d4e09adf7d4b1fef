//! Figures of a coordinator. The bounds are far from what is measured, so that they hold on a busy machine without
//! optimization; `make bench` has the real ones.

use std::time::{Duration, Instant};

use taffrail_broker::coordinator::group::{Answered, Commit, CommittedOffset, Request, TopicPartition};
use uuid::Uuid;

use crate::harness::TestBroker;

const GROUPS: usize = 1_000;
const PARTITIONS: i32 = 100;

fn commit(group: &str, topic: Uuid, partitions: std::ops::Range<i32>) -> Request {
    let offset = CommittedOffset { offset: 7, leader_epoch: Some(0), metadata: String::new(), committed_at: 0 };
    let of = |partition| (TopicPartition { topic, partition }, offset.clone());
    Request::Commit(Commit { group: group.to_owned(), member: None, offsets: partitions.map(of).collect() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_with_100_000_offsets_loads_in_time() {
    let broker = TestBroker::start().await;
    let topic = Uuid::parse_str(&broker.topic("t", PARTITIONS).await.topic_id).unwrap();
    let groups = &broker.broker.groups;
    let ids: Vec<_> = (0..).map(|n| format!("g{n}")).filter(|id| groups.shard_of(id) == 3).take(GROUPS).collect();
    let asked: Vec<_> = ids.iter().map(|id| groups.ask(id, commit(id, topic, 0..PARTITIONS))).collect();
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), Answered::Committed(vec![]));
    }
    let broker = broker.restart().await;
    let status = broker.broker.groups.status()[3];
    assert!(status.loaded_records >= 100_000);
    let took = status.load;
    eprintln!("100,000 offsets were loaded in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_commits_take_no_more_than_seconds() {
    let broker = TestBroker::start().await;
    let topic = Uuid::parse_str(&broker.topic("t", PARTITIONS).await.topic_id).unwrap();
    let groups = &broker.broker.groups;
    let began = Instant::now();
    for _ in 0..10 {
        let asked: Vec<_> = (0..1_000).map(|n| format!("g{}", n % 50)).collect();
        let asked: Vec<_> = asked.iter().map(|id| groups.ask(id, commit(id, topic, 0..1))).collect();
        assert!(futures::future::join_all(asked).await.iter().all(Result::is_ok));
    }
    eprintln!("10,000 commits took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
