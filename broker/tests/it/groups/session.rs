//! Session.

use std::time::Duration;

use taffrail_proto::v1::{self, Reason, session_request, session_response};

use super::{Session, describe, join};
use crate::harness::{TestBroker, log_error};

#[tokio::test]
async fn the_first_member_gets_everything_and_a_second_one_its_half() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    assert_eq!(a.owns(4).await, [0, 1, 2, 3]);
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    let (mine, yours) = tokio::join!(a.owns(2), b.owns(2));
    let mut all = [mine, yours].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    b.send(session_request::Frame::Leave(v1::SessionLeave { returning: false })).await;
    assert_eq!(a.owns(4).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn c6_a_partition_goes_over_only_once_its_owner_has_let_go() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    a.owns(2).await;
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    // The owner has heard of it, and has not said that it let go.
    let before = a.owned.clone();
    while super::numbers(&a.owned).len() == 2 {
        a.next().await.unwrap();
    }
    let now = std::mem::replace(&mut a.owned, before);
    a.heartbeat().await;
    assert!(tokio::time::timeout(Duration::from_millis(200), b.next()).await.is_err());
    a.owned = now;
    a.heartbeat().await;
    assert_eq!(b.owns(1).await.len(), 1);
}

#[tokio::test]
async fn a_heartbeat_that_crosses_with_an_assignment_is_not_taken_for_its_answer() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    a.owns(2).await;
    let old_epoch = a.epoch;
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    while super::numbers(&a.owned).len() == 2 {
        a.next().await.unwrap();
    }
    // It says less than before, but of the old epoch.
    let heartbeat = v1::SessionHeartbeat { owned: vec![], member_epoch: old_epoch };
    a.send(session_request::Frame::Heartbeat(heartbeat)).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), b.next()).await.is_err());
    a.heartbeat().await;
    b.owns(1).await;
}

#[tokio::test]
async fn a_broken_stream_is_resumed_and_nothing_moves() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    a.owns(2).await;
    let (epoch, owned) = (a.epoch, a.owned.clone());
    drop(a);
    let group = describe(&broker, "g").await;
    assert_eq!(group.members.len(), 1, "it outlives its stream");
    let resume = v1::SessionJoin { member_epoch: epoch, owned, ..join("g", "a", &["t"]) };
    let a = Session::join(&broker, resume).await;
    assert_eq!((a.epoch, super::numbers(&a.owned)), (epoch, vec![0, 1]));
}

#[tokio::test]
async fn a_member_that_is_silent_for_its_session_timeout_is_removed_and_fenced() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let short = v1::SessionJoin { session_timeout_ms: 3_000, ..join("g", "a", &["t"]) };
    let mut a = Session::join(&broker, short).await;
    a.owns(2).await;
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    assert_eq!(b.owns(2).await, [0, 1]);
    a.heartbeat().await;
    let ended = log_error(&a.ends().await);
    assert_eq!(ended.reason(), Reason::UnknownMember);
}

#[tokio::test]
async fn a_static_member_that_comes_back_gets_what_it_had() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let fixed = |member: &str| v1::SessionJoin { instance_id: "one".to_owned(), ..join("g", member, &["t"]) };
    let mut a = Session::join(&broker, fixed("a1")).await;
    a.owns(4).await;
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    let (mine, yours) = tokio::join!(a.owns(2), b.owns(2));
    let refused = Session::open(&broker, session_request::Frame::Join(fixed("a2"))).await.unwrap().ends().await;
    assert_eq!(log_error(&refused).reason(), Reason::InstanceInUse);
    a.send(session_request::Frame::Leave(v1::SessionLeave { returning: true })).await;
    while describe(&broker, "g").await.members.iter().all(|member| member.member_epoch != -2) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let again = Session::join(&broker, fixed("a2")).await;
    assert_eq!(super::numbers(&again.owned), mine);
    assert_eq!(super::numbers(&b.owned), yours);
}

#[tokio::test]
async fn members_follow_topics_that_grow_and_topics_that_are_made_later() {
    let broker = TestBroker::start().await;
    broker.topic("t-1", 1).await;
    let mut pattern = join("g", "a", &[]);
    pattern.subscription = Some(v1::Subscription { topics: vec![], pattern: "t-.*".to_owned() });
    let mut a = Session::join(&broker, pattern).await;
    a.owns(1).await;
    let grow = v1::AlterTopicRequest { name: "t-1".to_owned(), partitions: 3, ..v1::AlterTopicRequest::default() };
    broker.admin().alter_topic(grow).await.unwrap();
    a.owns(3).await;
    broker.topic("t-2", 2).await;
    broker.topic("other", 2).await;
    a.owns(5).await;
    let delete = v1::DeleteTopicRequest { name: "t-1".to_owned(), ..v1::DeleteTopicRequest::default() };
    broker.admin().delete_topic(delete).await.unwrap();
    assert_eq!(a.owns(2).await, [0, 1]);
}

#[tokio::test]
async fn a_subscription_can_be_replaced() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    broker.topic("u", 3).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    a.owns(2).await;
    let subscription = v1::Subscription { topics: vec!["u".to_owned()], pattern: String::new() };
    a.send(session_request::Frame::Subscribe(subscription)).await;
    assert_eq!(a.owns(3).await, [0, 1, 2]);
    assert_eq!(a.owned[0].topic, "u");
}

#[tokio::test]
async fn a_restart_of_the_broker_keeps_members_and_what_they_own() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut a = Session::join(&broker, join("g", "a", &["t"])).await;
    a.owns(2).await;
    let (epoch, owned) = (a.epoch, a.owned.clone());
    let stopping = tokio::spawn(broker.restart());
    while !matches!(a.next().await, Ok(session_response::Frame::Drain(_))) {}
    drop(a);
    let broker = stopping.await.unwrap();
    let resume = v1::SessionJoin { member_epoch: epoch, owned, ..join("g", "a", &["t"]) };
    let a = Session::join(&broker, resume).await;
    assert_eq!((a.epoch, super::numbers(&a.owned)), (epoch, vec![0, 1]));
}
