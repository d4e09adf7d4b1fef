//! Frames and requests that no honest client sends. The broker refuses them, names the field, and goes on.

use taffrail_proto::v1::{self, Reason, consume_request, session_request};
use tonic::{Code, Status};

use super::{Consumer, Session, commit, join};
use crate::harness::{TestBroker, log_error};

/// How a stream ends whose first frame is this join.
async fn refused(broker: &TestBroker, join: v1::SessionJoin) -> Status {
    Session::open(broker, session_request::Frame::Join(join)).await.unwrap().ends().await
}

#[tokio::test]
async fn fields_out_of_bounds_are_named() {
    let broker = TestBroker::start().await;
    let good = || join("g", "m", &["t"]);
    let long = || "x".repeat(250);
    let subscription = |pattern: &str| Some(v1::Subscription { topics: vec![], pattern: pattern.to_owned() });
    let many = v1::Subscription { topics: (0..1_001).map(|n| n.to_string()).collect(), pattern: String::new() };
    let joins = [
        ("group", v1::SessionJoin { group: String::new(), ..good() }),
        ("group", v1::SessionJoin { group: long(), ..good() }),
        ("join.member_id", v1::SessionJoin { member_id: long(), ..good() }),
        ("join.instance_id", v1::SessionJoin { instance_id: long(), ..good() }),
        ("join.rack", v1::SessionJoin { rack: "x".repeat(256), ..good() }),
        ("join.client_id", v1::SessionJoin { client_id: "x".repeat(256), ..good() }),
        ("join.member_epoch", v1::SessionJoin { member_epoch: -1, ..good() }),
        ("join.member_epoch", v1::SessionJoin { member_epoch: 1, member_id: String::new(), ..good() }),
        ("join.assignor", v1::SessionJoin { assignor: "best".to_owned(), ..good() }),
        ("join.session_timeout_ms", v1::SessionJoin { session_timeout_ms: 999, ..good() }),
        ("join.session_timeout_ms", v1::SessionJoin { session_timeout_ms: u32::MAX, ..good() }),
        ("join.rebalance_timeout_ms", v1::SessionJoin { rebalance_timeout_ms: 3_600_001, ..good() }),
        ("subscription", v1::SessionJoin { subscription: None, ..good() }),
        ("subscription.topics", v1::SessionJoin { subscription: Some(many), ..good() }),
        ("subscription.pattern", v1::SessionJoin { subscription: subscription("("), ..good() }),
        ("subscription.pattern", v1::SessionJoin { subscription: subscription(&"x".repeat(4_097)), ..good() }),
        ("subscription.pattern", v1::SessionJoin { subscription: subscription(r"(\pL{100}){100}"), ..good() }),
        (
            "topic_id",
            v1::SessionJoin {
                owned: vec![v1::TopicPartitions { topic_id: "x".to_owned(), ..Default::default() }],
                ..good()
            },
        ),
    ];
    for (field, join) in joins {
        let error = log_error(&refused(&broker, join).await);
        assert_eq!(error.reason(), Reason::InvalidRequest, "{field}");
        assert!(error.message.starts_with(&format!("{field}: ")), "{field}: {}", error.message);
        assert!(error.message.len() < 2_000, "{field}: {} bytes", error.message.len());
    }
    let good = Session::join(&broker, good()).await;
    good.heartbeat().await;
}

#[tokio::test]
async fn a_stream_must_begin_with_its_first_frame() {
    let broker = TestBroker::start().await;
    let first = session_request::Frame::Heartbeat(v1::SessionHeartbeat::default());
    let ended = Session::open(&broker, first).await.unwrap().ends().await;
    assert_eq!(log_error(&ended).reason(), Reason::InvalidRequest);
    let first = consume_request::Frame::Heartbeat(v1::ConsumeHeartbeat {});
    let ended = Consumer::begin(&broker, first).await.unwrap().ends().await;
    assert_eq!(log_error(&ended).reason(), Reason::InvalidRequest);
    let first = consume_request::Frame::Open(v1::ConsumeOpen::default());
    let ended = Consumer::begin(&broker, first).await.unwrap().ends().await;
    assert_eq!(log_error(&ended).reason(), Reason::InvalidRequest, "without a join");
    let session = Session::join(&broker, join("g", "m", &["t"])).await;
    session.send(session_request::Frame::Join(join("g", "m", &["t"]))).await;
    let mut session = session;
    assert_eq!(log_error(&session.ends().await).reason(), Reason::InvalidRequest, "twice");
}

#[tokio::test]
async fn a_million_owned_partitions_are_refused() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut session = Session::join(&broker, join("g", "m", &["t"])).await;
    let owned =
        vec![v1::TopicPartitions { topic: "t".to_owned(), partitions: (0..1_000_000).collect(), ..Default::default() }];
    session.send(session_request::Frame::Heartbeat(v1::SessionHeartbeat { owned, member_epoch: 0 })).await;
    assert_eq!(session.ends().await.code(), Code::OutOfRange, "the message is too large");
    let mut session = Session::join(&broker, join("g", "n", &["t"])).await;
    let owned = vec![v1::TopicPartitions { topic: "t".to_owned(), partitions: vec![1; 100_001], ..Default::default() }];
    session.send(session_request::Frame::Heartbeat(v1::SessionHeartbeat { owned, member_epoch: 0 })).await;
    assert_eq!(log_error(&session.ends().await).reason(), Reason::InvalidRequest);
}

#[tokio::test]
async fn partitions_that_a_member_does_not_own_are_ignored() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.topic("u", 1).await;
    let mut member = Consumer::open(&broker, join("g", "m", &["t"])).await;
    member.owns("t", 1).await;
    for numbers in [&[-1, i32::MIN, i32::MAX][..], &[0]] {
        let named = || v1::ConsumePartitions { partitions: super::partitions("u", numbers) };
        member.send(consume_request::Frame::Pause(named())).await;
        member.send(consume_request::Frame::Resume(named())).await;
        member.release("u", numbers).await;
    }
    let seek = v1::ConsumeSeek { topic: "u".to_owned(), partition: i32::MIN, offset: i64::MAX };
    member.send(consume_request::Frame::Seek(seek)).await;
    // A partition that was not revoked is not given up by saying so.
    member.release("t", &[0]).await;
    broker.produce("t", 0, &["still"]).await;
    assert_eq!(member.reads(1).await.len(), 1);
    let seek = v1::ConsumeSeek { topic: "t".to_owned(), partition: 0, offset: -5 };
    member.send(consume_request::Frame::Seek(seek)).await;
    assert_eq!(log_error(&member.ends().await).reason(), Reason::InvalidRequest);
}

#[tokio::test]
async fn commits_out_of_bounds_are_refused_whole() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let good = || commit("t", 0, 1);
    let commits = [
        vec![v1::OffsetCommit { offset: -1, ..good() }],
        vec![v1::OffsetCommit { metadata: "m".repeat(4_097), ..good() }],
        vec![v1::OffsetCommit { leader_epoch: Some(-1), ..good() }],
        vec![good(); 1_001],
    ];
    for offsets in commits {
        let request =
            v1::CommitOffsetsRequest { group: "g".to_owned(), offsets: offsets.clone(), ..Default::default() };
        let refused = broker.groups().commit_offsets(request).await.unwrap_err();
        assert_eq!(log_error(&refused).reason(), Reason::InvalidRequest);
        let mut member = Consumer::open(&broker, join("h", "m", &["t"])).await;
        member.send(consume_request::Frame::Commit(v1::ConsumeCommit { id: 1, offsets })).await;
        assert_eq!(log_error(&member.ends().await).reason(), Reason::InvalidRequest);
    }
}

#[tokio::test]
async fn any_text_may_be_an_id() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for id in ["\0", "a/b", "../..", "\u{202e}", "' OR 1=1", "{}\"\n"] {
        let mut session = Session::join(&broker, join(id, id, &["t"])).await;
        session.owns(1).await;
        assert_eq!(super::describe(&broker, id).await.members[0].member_id, id);
    }
    let listed = broker.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.groups.len(), 6);
}
