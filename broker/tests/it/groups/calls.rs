//! The calls with one answer.

use std::io::Write as _;

use taffrail_broker::security::{Authenticator, TokenFile};
use taffrail_broker::server::Options;
use taffrail_proto::v1::{self, Reason, reset_offsets_request::To};

use super::{Session, commit, committed, describe, join, partitions};
use crate::harness::{TestBroker, reason};

async fn commit_outside(broker: &TestBroker, group: &str, offsets: &[(i32, i64)]) {
    let offsets = offsets.iter().map(|(partition, offset)| commit("t", *partition, *offset)).collect();
    let request = v1::CommitOffsetsRequest { group: group.to_owned(), offsets, ..Default::default() };
    assert_eq!(broker.groups().commit_offsets(request).await.unwrap().into_inner().errors, []);
}

#[tokio::test]
async fn c8_nothing_committed_is_an_answer_of_its_own() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    commit_outside(&broker, "g", &[(0, 0)]).await;
    let request = v1::FetchOffsetsRequest { group: "g".to_owned(), partitions: partitions("t", &[0, 1]) };
    let offsets = broker.groups().fetch_offsets(request).await.unwrap().into_inner().offsets;
    assert_eq!((offsets[0].offset, &offsets[0].error), (Some(0), &None));
    assert_eq!(offsets[1].offset, None);
    assert_eq!(offsets[1].error.as_ref().unwrap().reason(), Reason::NoCommittedOffset);
}

#[tokio::test]
async fn a_topic_can_be_used_as_soon_as_it_is_made() {
    let broker = TestBroker::start().await;
    for number in 0..50 {
        let name = format!("t{number}");
        broker.topic(&name, 1).await;
        let (group, offsets) = ("g".to_owned(), vec![commit(&name, 0, 0)]);
        let request = v1::CommitOffsetsRequest { group, offsets, ..Default::default() };
        assert_eq!(broker.groups().commit_offsets(request).await.unwrap().into_inner().errors, []);
    }
}

#[tokio::test]
async fn a_group_is_listed_described_with_its_lag_and_deleted() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    broker.produce("t", 0, &["a", "b", "c"]).await;
    broker.produce("t", 1, &["a"]).await;
    let mut session = Session::join(&broker, join("g", "m", &["t"])).await;
    session.owns(2).await;
    let offsets = vec![commit("t", 0, 1)];
    let member_epoch = session.epoch;
    let request = v1::CommitOffsetsRequest { group: "g".to_owned(), member_id: "m".to_owned(), member_epoch, offsets };
    broker.groups().commit_offsets(request).await.unwrap();
    commit_outside(&broker, "other", &[(0, 1)]).await;

    let list = async |request| broker.groups().list_groups(request).await.unwrap().into_inner().groups;
    let all = list(v1::ListGroupsRequest::default()).await;
    assert_eq!(all.iter().map(|group| group.group.as_str()).collect::<Vec<_>>(), ["g", "other"]);
    assert_eq!(list(v1::ListGroupsRequest { prefix: "o".to_owned(), states: vec![] }).await.len(), 1);
    let states = vec![v1::GroupState::Stable.into()];
    assert_eq!(list(v1::ListGroupsRequest { states, prefix: String::new() }).await[0].group, "g");

    let group = describe(&broker, "g").await;
    let summary = group.summary.unwrap();
    assert_eq!((summary.state(), summary.members, summary.r#type.as_str()), (v1::GroupState::Stable, 1, "consumer"));
    let lag: Vec<_> = group.partitions.iter().map(|p| (p.partition, p.committed, p.high_watermark, p.lag)).collect();
    assert_eq!(lag, [(0, Some(1), 3, 2), (1, None, 1, 1)]);
    assert!(group.partitions.iter().all(|p| p.member_id == "m" && p.topic == "t"));
    assert_eq!(group.members[0].subscription.as_ref().unwrap().topics, ["t"]);

    let delete = |group: &str| v1::DeleteGroupRequest { group: group.to_owned() };
    assert_eq!(reason(broker.groups().delete_group(delete("g")).await), Reason::GroupNotEmpty);
    broker.groups().delete_group(delete("other")).await.unwrap();
    assert_eq!(reason(broker.groups().delete_group(delete("other")).await), Reason::UnknownGroup);
    let describe = v1::DescribeGroupRequest { group: "other".to_owned() };
    assert_eq!(reason(broker.groups().describe_group(describe).await), Reason::UnknownGroup);
}

#[tokio::test]
async fn offsets_are_reset_to_where_was_asked() {
    let broker = TestBroker::start().await;
    broker.topic("t", 2).await;
    for value in ["a", "b", "c", "d"] {
        broker.produce("t", 0, &[value]).await;
    }
    commit_outside(&broker, "g", &[(0, 2)]).await;
    let reset = async |to: To, partitions, dry_run| {
        let group = "g".to_owned();
        let request = v1::ResetOffsetsRequest { group, partitions, to: Some(to), dry_run, force: false };
        let response = broker.groups().reset_offsets(request).await?.into_inner();
        Ok(response
            .changes
            .into_iter()
            .map(|change| (change.partition, change.before, change.after))
            .collect::<Vec<_>>())
    };
    let all = Vec::new;
    assert_eq!(reset(To::Latest(v1::Latest {}), all(), true).await.unwrap(), [(0, Some(2), 4)]);
    assert_eq!(committed(&broker, "g").await, [(0, Some(2))], "that was a dry run");
    assert_eq!(reset(To::ShiftBy(-1), all(), false).await.unwrap(), [(0, Some(2), 1)]);
    assert_eq!(reset(To::ShiftBy(-100), all(), false).await.unwrap(), [(0, Some(1), 0)]);
    assert_eq!(reset(To::Offset(99), all(), false).await.unwrap(), [(0, Some(0), 4)]);
    assert_eq!(reset(To::TimestampMs(0), all(), false).await.unwrap(), [(0, Some(4), 0)]);
    assert_eq!(reset(To::TimestampMs(i64::MAX), all(), false).await.unwrap(), [(0, Some(0), 4)]);
    let topic = || partitions("t", &[]);
    assert_eq!(reset(To::Earliest(v1::Earliest {}), topic(), false).await.unwrap(), [(0, Some(4), 0), (1, None, 0)]);
    assert_eq!(committed(&broker, "g").await, [(0, Some(0)), (1, Some(0))]);
    assert_eq!(reason(reset(To::Offset(0), partitions("t", &[7]), false).await), Reason::UnknownPartition);
    let unsaid = v1::ResetOffsetsRequest { group: "g".to_owned(), ..Default::default() };
    assert_eq!(reason(broker.groups().reset_offsets(unsaid).await), Reason::InvalidRequest);
}

#[tokio::test]
async fn a_reset_under_members_needs_force() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut session = Session::join(&broker, join("g", "m", &["t"])).await;
    session.owns(1).await;
    let reset = async |force| {
        let to = Some(To::Earliest(v1::Earliest {}));
        let partitions = partitions("t", &[0]);
        let request = v1::ResetOffsetsRequest { group: "g".to_owned(), partitions, to, dry_run: false, force };
        broker.groups().reset_offsets(request).await
    };
    assert_eq!(reason(reset(false).await), Reason::GroupNotEmpty);
    reset(true).await.unwrap();
}

#[tokio::test]
async fn c5_a_commit_needs_the_epoch_of_a_member() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    let mut session = Session::join(&broker, join("g", "m", &["t"])).await;
    session.owns(1).await;
    let commit = async |member: &str, member_epoch| {
        let (group, member_id) = ("g".to_owned(), member.to_owned());
        let request = v1::CommitOffsetsRequest { group, member_id, member_epoch, offsets: vec![commit("t", 0, 0)] };
        broker.groups().commit_offsets(request).await
    };
    commit("m", session.epoch).await.unwrap();
    assert_eq!(reason(commit("m", session.epoch + 1).await), Reason::MemberFenced);
    assert_eq!(reason(commit("nobody", session.epoch).await), Reason::UnknownMember);
}

fn with<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn roles_decide_who_may_use_a_group() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "admin-admin-admin admin\nviewer-viewer-viewer viewer\nreader-reader-reader consumer").unwrap();
    let tokens = TokenFile::open(file.path()).unwrap();
    let authenticator = Authenticator::new(Some(tokens.into()), false);
    let broker = TestBroker::with(Options { authenticator, ..Options::default() }).await;
    let commit = v1::CommitOffsetsRequest { group: "g".to_owned(), ..Default::default() };
    let refused = broker.groups().commit_offsets(with("viewer-viewer-viewer", commit.clone())).await;
    assert_eq!(reason(refused), Reason::Unauthorized);
    broker.groups().commit_offsets(with("reader-reader-reader", commit)).await.unwrap();
    let describe = v1::DescribeGroupRequest { group: "g".to_owned() };
    broker.groups().describe_group(with("viewer-viewer-viewer", describe)).await.unwrap();
    let delete = v1::DeleteGroupRequest { group: "g".to_owned() };
    let refused = broker.groups().delete_group(with("reader-reader-reader", delete.clone())).await;
    assert_eq!(reason(refused), Reason::Unauthorized);
    broker.groups().delete_group(with("admin-admin-admin", delete)).await.unwrap();
}

#[tokio::test]
async fn the_internal_topic_is_not_for_clients() {
    let broker = TestBroker::start().await;
    let name = || "__consumer_offsets".to_owned();
    let records = vec![crate::harness::record(None, "v")];
    let produced = broker.producer().produce(crate::harness::produce_request(&name(), records)).await;
    assert_eq!(reason(produced), Reason::Unauthorized);
    let delete = v1::DeleteTopicRequest { name: name(), ..Default::default() };
    assert_eq!(reason(broker.admin().delete_topic(delete).await), Reason::Unauthorized);
    let alter = v1::AlterTopicRequest { name: name(), partitions: 32, ..Default::default() };
    assert_eq!(reason(broker.admin().alter_topic(alter).await), Reason::Unauthorized);
    let trim = v1::DeleteRecordsRequest { topic: name(), partition: 0, before_offset: -1 };
    assert_eq!(reason(broker.admin().delete_records(trim).await), Reason::Unauthorized);
    let listed = broker.admin().describe_topics(v1::DescribeTopicsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.topics, []);
    let named = v1::DescribeTopicsRequest { names: vec![name()], include_deleted: false };
    let named = broker.admin().describe_topics(named).await.unwrap().into_inner();
    assert_eq!((named.topics[0].internal, named.topics[0].partitions.len()), (true, 16));
}
