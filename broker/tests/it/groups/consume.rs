//! Consume.

use std::time::Duration;

use taffrail_proto::v1::{self, Reason, consume_request, consume_response};

use super::{Consumer, Session, commit, committed, describe, join, partitions};
use crate::harness::{TestBroker, log_error, reason, soon};

fn values(records: &[(i32, i64, String)]) -> Vec<&str> {
    records.iter().map(|(_, _, value)| value.as_str()).collect()
}

#[tokio::test]
async fn a_member_gets_what_is_there_and_what_comes_in_order() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    assert_eq!(values(&member.reads(2).await), ["a", "b"]);
    assert!(member.is_silent().await, "it waits");
    broker.produce("t", 0, &["c"]).await;
    assert_eq!(member.reads(1).await, [(0, 2, "c".to_owned())]);
}

#[tokio::test]
async fn a_member_goes_on_where_the_group_has_committed() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b", "c"]).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.reads(3).await;
    assert_eq!(member.commit(7, &[("t", 0, 2)]).await, []);
    member.send(consume_request::Frame::Leave(v1::SessionLeave { returning: false })).await;
    assert!(member.answers.message().await.unwrap().is_none(), "the stream ends well");
    let mut again = Consumer::open(&broker, join("g", "b", &["t"])).await;
    assert_eq!(values(&again.reads(1).await), ["c"]);
    assert_eq!(again.owned[&0], 2);
    assert_eq!(committed(&broker, "g").await, [(0, Some(2))]);
}

#[tokio::test]
async fn what_is_committed_before_the_last_frame_is_answered() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for (id, leaves) in [(1, true), (2, false)] {
        let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
        member.owns("t", 1).await;
        let commit = v1::ConsumeCommit { id, offsets: vec![commit("t", 0, id as i64)] };
        member.send(consume_request::Frame::Commit(commit)).await;
        if leaves {
            member.send(consume_request::Frame::Leave(v1::SessionLeave { returning: false })).await;
        }
        let Consumer { frames, mut answers, .. } = member;
        drop(frames);
        let mut last = None;
        while let Some(answer) = soon(answers.message()).await.unwrap() {
            last = answer.frame;
        }
        let answered = v1::ConsumeCommitted { id, errors: vec![] };
        assert_eq!(last, Some(consume_response::Frame::Committed(answered)));
    }
}

#[tokio::test]
async fn c8_without_a_committed_offset_a_member_begins_as_it_said() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let open = |group: &str, reset: v1::OffsetReset| {
        let join = Some(join(group, "a", &["t"]));
        consume_request::Frame::Open(v1::ConsumeOpen { join, reset: reset.into(), ..v1::ConsumeOpen::default() })
    };
    let mut latest = Consumer::begin(&broker, open("latest", v1::OffsetReset::Latest)).await.unwrap();
    latest.owns("t", 1).await;
    assert_eq!(latest.owned[&0], 2);
    let mut fails = Consumer::begin(&broker, open("fails", v1::OffsetReset::Fail)).await.unwrap();
    assert_eq!(log_error(&fails.ends().await).reason(), Reason::NoCommittedOffset);
    let left = describe(&broker, "fails").await.summary.unwrap();
    assert_eq!((left.members, left.state()), (0, v1::GroupState::Empty), "who cannot begin holds up nobody");
}

#[tokio::test]
async fn where_latest_begins_is_kept_so_that_a_death_before_the_first_commit_skips_nothing() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    broker.produce("t", 0, &["before"]).await;
    let open = |member: &str| {
        let (join, reset) = (Some(join("g", member, &["t"])), v1::OffsetReset::Latest.into());
        consume_request::Frame::Open(v1::ConsumeOpen { join, reset, ..v1::ConsumeOpen::default() })
    };
    let mut dies = Consumer::begin(&broker, open("a")).await.unwrap();
    dies.owns("t", 2).await;
    assert_eq!(committed(&broker, "g").await, [(0, Some(1)), (1, Some(0))], "before anything is delivered");
    broker.produce("t", 0, &["between"]).await;
    assert_eq!(dies.reads(1).await, [(0, 1, "between".to_owned())]);
    dies.send(consume_request::Frame::Leave(v1::SessionLeave { returning: false })).await;
    while let Ok(Some(_)) = dies.answers.message().await {}
    broker.produce("t", 1, &["more"]).await;

    let mut next = Consumer::begin(&broker, open("b")).await.unwrap();
    let mut read = next.reads(2).await;
    read.sort();
    assert_eq!(read, [(0, 1, "between".to_owned()), (1, 0, "more".to_owned())]);
}

#[tokio::test]
async fn c6_a_revoked_partition_is_delivered_no_more_and_goes_over_once_released() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut a = Consumer::open(&broker, join("g", "a", &["t"])).await;
    a.owns("t", 2).await;
    let mut b = Consumer::open(&broker, join("g", "b", &["t"])).await;
    let gone = loop {
        if let consume_response::Frame::Revoke(gone) = a.next().await.unwrap() {
            break super::numbers(&gone.partitions);
        }
    };
    broker.produce("t", gone[0], &["for b"]).await;
    assert!(a.is_silent().await);
    assert!(matches!(b.next().await.unwrap(), consume_response::Frame::Joined(_)));
    assert!(b.is_silent().await, "it is not b's yet");
    assert_eq!(a.commit(1, &[("t", gone[0], 0)]).await, [], "what is revoked can still be committed");
    a.release("t", &gone).await;
    assert_eq!(b.reads(1).await, [(gone[0], 0, "for b".to_owned())]);
    let errors = a.commit(2, &[("t", gone[0], 0), ("t", 1 - gone[0], 0)]).await;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].error.as_ref().unwrap().reason(), Reason::StaleMemberEpoch, "c5");
}

#[tokio::test]
async fn when_a_member_leaves_the_others_take_over() {
    let broker = TestBroker::start().await;
    broker.topic("t", 4).await;
    let mut a = Consumer::open(&broker, join("g", "a", &["t"])).await;
    a.owns("t", 4).await;
    let mut b = Consumer::open(&broker, join("g", "b", &["t"])).await;
    tokio::join!(a.owns("t", 2), b.owns("t", 2));
    b.send(consume_request::Frame::Leave(v1::SessionLeave { returning: false })).await;
    assert_eq!(a.owns("t", 4).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_member_whose_stream_broke_resumes_with_its_epoch() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let mut a = Consumer::open(&broker, join("g", "a", &["t"])).await;
    a.owns("t", 2).await;
    a.reads(2).await;
    assert_eq!(a.commit(1, &[("t", 0, 1)]).await, []);
    let epoch = a.epoch;
    drop(a);
    let resume = v1::SessionJoin { member_epoch: epoch, ..join("g", "a", &["t"]) };
    let mut again = Consumer::open(&broker, resume).await;
    again.owns("t", 2).await;
    assert_eq!(again.epoch, epoch, "nothing moved");
    assert_eq!(values(&again.reads(1).await), ["b"], "from what is committed");
}

#[tokio::test]
async fn an_expelled_member_hears_that_it_has_lost_its_partitions_and_its_commits_are_refused() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let short = v1::SessionJoin { session_timeout_ms: 3_000, ..join("g", "a", &["t"]) };
    let mut a = Consumer::open(&broker, short).await;
    a.owns("t", 1).await;
    let mut b = Session::join(&broker, join("g", "b", &["t"])).await;
    b.owns(1).await;
    assert_eq!(log_error(&a.ends().await).reason(), Reason::UnknownMember);
    assert!(a.owned.is_empty(), "it was told that it lost them");
    let offsets = vec![commit("t", 0, 5)];
    let (member_id, member_epoch) = ("a".to_owned(), a.epoch);
    let request = v1::CommitOffsetsRequest { group: "g".to_owned(), member_id, member_epoch, offsets };
    assert_eq!(reason(broker.groups().commit_offsets(request).await), Reason::UnknownMember);
    assert_eq!(committed(&broker, "g").await, []);
}

#[tokio::test]
async fn a_paused_partition_is_not_delivered_until_it_is_resumed() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.owns("t", 2).await;
    let paused = || v1::ConsumePartitions { partitions: partitions("t", &[0]) };
    member.send(consume_request::Frame::Pause(paused())).await;
    // Behind it in the stream, so that it is known to have been taken in.
    member.commit(1, &[]).await;
    broker.produce("t", 0, &["held"]).await;
    broker.produce("t", 1, &["through"]).await;
    assert_eq!(member.reads(1).await, [(1, 0, "through".to_owned())]);
    assert!(member.is_silent().await);
    member.send(consume_request::Frame::Resume(paused())).await;
    assert_eq!(member.reads(1).await, [(0, 0, "held".to_owned())]);
}

#[tokio::test]
async fn a_seek_reads_from_elsewhere() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b", "c"]).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.reads(3).await;
    let seek = |offset| consume_request::Frame::Seek(v1::ConsumeSeek { topic: "t".to_owned(), partition: 0, offset });
    member.send(seek(1)).await;
    assert_eq!(values(&member.reads(2).await), ["b", "c"]);
    member.send(seek(99)).await;
    assert_eq!(values(&member.reads(3).await), ["a", "b", "c"], "there is no such offset: as without a committed one");
}

#[tokio::test]
async fn no_more_is_sent_than_there_is_credit_for() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for _ in 0..5 {
        broker.produce("t", 0, &[&"x".repeat(1_000)]).await;
    }
    let join = Some(join("g", "a", &["t"]));
    let open = v1::ConsumeOpen { join, credit_bytes: 1, ..v1::ConsumeOpen::default() };
    let mut member = Consumer::begin(&broker, consume_request::Frame::Open(open)).await.unwrap();
    assert_eq!(member.reads(1).await.len(), 1);
    assert!(member.is_silent().await);
    member.send(consume_request::Frame::Credit(v1::FetchCredit { bytes: 10_000 })).await;
    assert_eq!(member.reads(4).await.len(), 4);
}

#[tokio::test]
async fn a_client_that_takes_its_time_over_records_stays_a_member() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    for _ in 0..40 {
        broker.produce("t", 0, &[&"x".repeat(500_000)]).await;
    }
    let short = v1::SessionJoin { session_timeout_ms: 3_000, ..join("g", "a", &["t"]) };
    let mut member = Consumer::open(&broker, short).await;
    member.owns("t", 1).await;
    // More than the stream holds is there, and nobody reads it, for twice as long as it may be silent.
    for _ in 0..60 {
        member.send(consume_request::Frame::Heartbeat(v1::ConsumeHeartbeat {})).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(member.reads(40).await.len(), 40);
    assert_eq!(member.commit(1, &[("t", 0, 40)]).await, []);
}

#[tokio::test]
async fn a_restart_of_the_broker_keeps_what_is_committed() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["a", "b"]).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.reads(2).await;
    member.commit(1, &[("t", 0, 1)]).await;
    let epoch = member.epoch;
    drop(member);
    let broker = broker.restart().await;
    let resume = v1::SessionJoin { member_epoch: epoch, ..join("g", "a", &["t"]) };
    let mut member = Consumer::open(&broker, resume).await;
    assert_eq!(values(&member.reads(1).await), ["b"]);
}

#[tokio::test]
async fn a_deleted_topic_is_lost_and_one_made_again_begins_anew() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["old"]).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.reads(1).await;
    member.commit(1, &[("t", 0, 1)]).await;
    let delete = v1::DeleteTopicRequest { name: "t".to_owned(), ..v1::DeleteTopicRequest::default() };
    broker.admin().delete_topic(delete).await.unwrap();
    member.owns("t", 0).await;
    broker.topic("t", 1).await;
    broker.produce("t", 0, &["new"]).await;
    assert_eq!(member.reads(1).await, [(0, 0, "new".to_owned())]);
}

#[tokio::test]
async fn commits_of_what_is_not_there_are_refused_one_by_one() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut member = Consumer::open(&broker, join("g", "a", &["t"])).await;
    member.owns("t", 1).await;
    let errors = member.commit(1, &[("nowhere", 0, 1), ("t", 9, 1), ("t", 0, 1)]).await;
    let mut reasons: Vec<_> = errors.iter().map(|e| e.error.as_ref().unwrap().reason()).collect();
    reasons.sort();
    assert_eq!(reasons, [Reason::UnknownTopic, Reason::UnknownPartition]);
    assert_eq!(committed(&broker, "g").await, [(0, Some(1))]);
    let request =
        v1::CommitOffsetsRequest { group: "g".to_owned(), offsets: vec![commit("t", 0, 5)], ..Default::default() };
    assert_eq!(reason(broker.groups().commit_offsets(request).await), Reason::GroupNotEmpty, "not from outside");
}
