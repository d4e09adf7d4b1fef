//! Admin and Metadata.

use taffrail_proto::v1::{self, Reason, undelete_topic_request};

use crate::harness::{TestBroker, log_error, reason, soon};

#[tokio::test]
async fn a_topic_is_made_described_altered() {
    let broker = TestBroker::start().await;
    let made = broker.topic_with("flights", 3, &[("retention.ms", "60000")]).await;
    assert_eq!((made.name.as_str(), made.partitions.len(), made.internal), ("flights", 3, false));
    broker.produce("flights", 1, &["a", "b"]).await;
    let describe = v1::DescribeTopicsRequest { names: vec!["flights".to_owned()], include_deleted: false };
    let topics = broker.admin().describe_topics(describe).await.unwrap().into_inner().topics;
    let one = &topics[0].partitions[1];
    assert_eq!((one.index, one.leader, one.log_start_offset, one.high_watermark, one.log_end_offset), (1, 0, 0, 2, 2));
    assert!(one.size_bytes > 0);
    let retention = topics[0].config.iter().find(|entry| entry.key == "retention.ms").unwrap();
    assert!(!retention.is_default && !retention.documentation.is_empty(), "{retention:?}");

    let alter = v1::AlterTopicRequest {
        name: "flights".to_owned(),
        partitions: 5,
        unset: vec!["retention.ms".to_owned()],
        ..Default::default()
    };
    let altered = broker.admin().alter_topic(alter).await.unwrap().into_inner().topic.unwrap();
    assert_eq!((altered.topic_id.as_str(), altered.partitions.len()), (made.topic_id.as_str(), 5));
}

#[tokio::test]
async fn validate_only_changes_nothing() {
    let broker = TestBroker::start().await;
    let create =
        |name: &str| v1::CreateTopicRequest { name: name.to_owned(), validate_only: true, ..Default::default() };
    let checked = broker.admin().create_topic(create("t")).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(checked.name, "t");
    assert_eq!(reason(broker.admin().create_topic(create("no way")).await), Reason::InvalidRequest);
    let all = broker.admin().describe_topics(v1::DescribeTopicsRequest::default()).await.unwrap().into_inner();
    assert!(all.topics.is_empty());
}

#[tokio::test]
async fn a_deleted_topic_comes_back_with_its_offsets() {
    let broker = TestBroker::start().await;
    let made = broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let delete = |topic_id: &str| v1::DeleteTopicRequest { name: "t".to_owned(), topic_id: topic_id.to_owned() };
    let other = uuid::Uuid::from_u128(77).to_string();
    assert_eq!(reason(broker.admin().delete_topic(delete(&other)).await), Reason::UnknownTopic);
    assert_eq!(reason(broker.admin().delete_topic(delete("x")).await), Reason::InvalidRequest);
    let deleted = broker.admin().delete_topic(delete(&made.topic_id)).await.unwrap().into_inner();
    assert_eq!(deleted.topic_id, made.topic_id);
    assert!(deleted.purge_at_ms > 1_700_000_000_000);
    let trash = v1::DescribeTopicsRequest { include_deleted: true, ..Default::default() };
    let listed = broker.admin().describe_topics(trash).await.unwrap().into_inner().topics;
    assert_eq!(listed[0].purge_at_ms, Some(deleted.purge_at_ms));

    let which = Some(undelete_topic_request::Which::TopicId(deleted.topic_id));
    let undelete = v1::UndeleteTopicRequest { which, new_name: "again".to_owned() };
    let back = broker.admin().undelete_topic(undelete).await.unwrap().into_inner().topic.unwrap();
    assert_eq!((back.topic_id, back.name.as_str()), (made.topic_id, "again"));
    assert_eq!(broker.values("again", 0).await, ["a", "b"]);
    assert_eq!(broker.produce("again", 0, &["c"]).await, 2);
}

#[tokio::test]
async fn q1_deleted_records_are_gone_and_offsets_go_on() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a"]).await;
    broker.produce("t", 0, &["b"]).await;
    let delete = |before_offset| v1::DeleteRecordsRequest { topic: "t".to_owned(), partition: 0, before_offset };
    let done = broker.admin().delete_records(delete(1)).await.unwrap().into_inner();
    assert_eq!(done.log_start_offset, 1);
    assert_eq!(broker.values("t", 0).await, ["b"]);
    let error = log_error(&broker.admin().delete_records(delete(3)).await.unwrap_err());
    assert_eq!((error.reason(), error.log_end_offset), (Reason::OffsetOutOfRange, Some(2)));
}

#[tokio::test]
async fn admin_refuses_what_it_cannot_do() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let create =
        |name: &str, partitions| v1::CreateTopicRequest { name: name.to_owned(), partitions, ..Default::default() };
    let config = |key: &str, value: &str| v1::CreateTopicRequest {
        config: [(key.to_owned(), value.to_owned())].into(),
        ..create("new", 1)
    };
    let long = "x".repeat(250);
    let refused = [
        (create("t", 1), Reason::TopicExists),
        (create("", 1), Reason::InvalidRequest),
        (create(&long, 1), Reason::InvalidRequest),
        (create("a/b", 1), Reason::InvalidRequest),
        (create("..", 1), Reason::InvalidRequest),
        (create("__secret", 1), Reason::InvalidRequest),
        (create("new", -1), Reason::InvalidRequest),
        (create("new", i32::MAX), Reason::InvalidRequest),
        // It is alone.
        (v1::CreateTopicRequest { replication_factor: 3, ..create("new", 1) }, Reason::InvalidRequest),
        (v1::CreateTopicRequest { replication_factor: -1, ..create("new", 1) }, Reason::InvalidRequest),
        (v1::CreateTopicRequest { replication_factor: i32::MAX, ..create("new", 1) }, Reason::InvalidRequest),
        (config("retention.mss", "1"), Reason::InvalidRequest),
        (config("retention.ms", "soon"), Reason::InvalidRequest),
        (config("max.message.bytes", &"9".repeat(5_000)), Reason::InvalidRequest),
    ];
    for (request, expected) in refused {
        let shown = format!("{request:.60?}");
        assert_eq!(reason(broker.admin().create_topic(request).await), expected, "{shown}");
    }
    let fewer = v1::AlterTopicRequest { name: "t".to_owned(), partitions: 3, ..Default::default() };
    assert_eq!(reason(broker.admin().alter_topic(fewer).await), Reason::InvalidRequest);
    let unknown = v1::DescribeTopicsRequest { names: vec!["u".to_owned()], include_deleted: false };
    assert_eq!(reason(broker.admin().describe_topics(unknown).await), Reason::UnknownTopic);
    let undelete = v1::UndeleteTopicRequest::default();
    assert_eq!(reason(broker.admin().undelete_topic(undelete).await), Reason::InvalidRequest);
}

#[tokio::test]
async fn the_broker_describes_itself() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let told = broker.admin().describe_broker(v1::DescribeBrokerRequest {}).await.unwrap().into_inner();
    assert_eq!((told.topics, told.partitions, told.incarnation), (1, 4, 1));
    assert!(told.resident_bytes > 0 && !told.version.is_empty() && told.read_only_reason.is_empty());
}

#[tokio::test]
async fn metadata_tells_topics_limits_and_the_address_that_was_used() {
    let broker = TestBroker::start().await;
    broker.topic("a", 2).await;
    broker.topic("b", 1).await;
    let get = async |topics: &[&str]| {
        let topics = topics.iter().map(ToString::to_string).collect();
        broker.metadata().get(v1::GetMetadataRequest { topics }).await.unwrap().into_inner()
    };
    let all = get(&[]).await;
    assert_eq!(all.topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(all.brokers[0].endpoint, broker.address().to_string());
    assert_eq!(all.topics[0].partitions.len(), 2);
    assert_eq!(all.topics[0].max_message_bytes, 1_048_588);
    assert_eq!(all.limits.unwrap().max_streams_per_connection, 64);
    let some = get(&["b", "nowhere"]).await;
    assert_eq!(some.topics.len(), 1);
}

#[tokio::test]
async fn a_watch_tells_each_change() {
    let broker = TestBroker::start().await;
    let mut watch = broker.metadata().watch(v1::GetMetadataRequest::default()).await.unwrap().into_inner();
    let first = soon(watch.message()).await.unwrap().unwrap();
    assert!(first.topics.is_empty());
    broker.topic("t", 1).await;
    let second = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(second.topics.len(), 1);
    assert!(second.revision > first.revision);
}

#[tokio::test]
async fn a_broker_that_runs_alone_says_why_it_has_one_replica() {
    let broker = TestBroker::start().await;
    let three = v1::CreateTopicRequest { name: "t".to_owned(), replication_factor: 3, ..Default::default() };
    let refused = broker.admin().create_topic(three).await.unwrap_err();
    assert!(refused.message().contains("a standalone broker has one replica"), "{}", refused.message());
    let one = v1::CreateTopicRequest { name: "t".to_owned(), replication_factor: 1, ..Default::default() };
    let made = broker.admin().create_topic(one).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(made.replication_factor, 1);
    let more = v1::AlterTopicRequest { name: "t".to_owned(), replication_factor: 2, ..Default::default() };
    assert_eq!(reason(broker.admin().alter_topic(more).await), Reason::InvalidRequest);
    let command = v1::RecoverPartitionRequest { topic: "t".to_owned(), accept_data_loss: true, ..Default::default() };
    assert_eq!(reason(broker.admin().recover_partition(command.clone()).await), Reason::InvalidRequest);
    let unsaid = v1::RecoverPartitionRequest { accept_data_loss: false, ..command };
    let refused = broker.admin().recover_partition(unsaid).await.unwrap_err();
    assert!(refused.message().contains("accept_data_loss"), "{}", refused.message());
}
