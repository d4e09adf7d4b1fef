//! Groups whose coordinator is at another broker.

use std::time::Duration;

use taffrail_proto::v1;
use tokio::time::timeout;

use super::cluster::Cluster;
use crate::groups::{Consumer, Session, commit, committed, describe, join};
use crate::harness::soon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_consumes_through_any_broker_what_others_lead() {
    let cluster = Cluster::start(3).await;
    cluster.groups_at(1, 0).await;
    cluster.topic("t", &[Some(2), Some(1), Some(0)], 0).await;
    let mut member = Consumer::open(cluster.client(0), join("g", "a", &["t"])).await;
    member.owns("t", 3).await;
    for partition in 0..3 {
        cluster.client(0).produce("t", partition, &["a", "b"]).await;
    }
    let mut read = member.reads(6).await;
    read.sort();
    let expected: Vec<_> = (0..3).flat_map(|p| [(p, 0, "a".to_owned()), (p, 1, "b".to_owned())]).collect();
    assert_eq!(read, expected);
    assert_eq!(member.commit(7, &[("t", 0, 2), ("t", 2, 1)]).await, []);
    for broker in 0..3 {
        let client = cluster.client(broker);
        let committed = committed(client, "g").await;
        assert!(committed.contains(&(0, Some(2))) && committed.contains(&(2, Some(1))), "{broker}: {committed:?}");
        let groups = client.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
        assert_eq!(groups.iter().map(|group| group.group.as_str()).collect::<Vec<_>>(), ["g"], "{broker}");
        let described = describe(client, "g").await;
        assert_eq!(described.coordinator, 1);
        assert_eq!(described.partitions.iter().find(|p| p.partition == 2).unwrap().lag, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_at_the_new_coordinator_when_that_moves() {
    let cluster = Cluster::start(2).await;
    cluster.groups_at(1, 0).await;
    cluster.topic("t", &[Some(0)], 0).await;
    let mut session = Session::join(cluster.client(0), join("g", "a", &["t"])).await;
    assert_eq!(session.owns(1).await, [0]);
    let request = v1::CommitOffsetsRequest {
        group: "g".to_owned(),
        offsets: vec![commit("t", 0, 0)],
        member_id: "a".to_owned(),
        member_epoch: session.epoch,
    };
    let answer = cluster.client(0).groups().commit_offsets(request).await.unwrap().into_inner();
    assert_eq!(answer.errors, []);
    cluster.groups_at(0, 1).await;
    // A heartbeat that overtakes the move is answered as ever; one of the next is not.
    let ended = async {
        loop {
            session.heartbeat().await;
            if let Ok(ended) = timeout(Duration::from_millis(100), session.ends()).await {
                break ended;
            }
        }
    };
    let ended = soon(ended).await;
    assert_eq!(ended.code(), tonic::Code::Unavailable, "{ended}");
    let mut again = Session::join(cluster.client(1), join("g", "a", &["t"])).await;
    assert_eq!(again.owns(1).await, [0]);
}
