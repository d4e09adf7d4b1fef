use std::pin::Pin;

use taffrail_proto::v1::metadata_server::{Metadata, MetadataServer};
use taffrail_proto::v1::{BrokerEndpoint, PartitionMetadata};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response};

use super::*;
use crate::{Client, ClientConfig};

fn answer(id: &str, epochs: &[i32], leader: i32) -> GetMetadataResponse {
    let partition = |(i, epoch): (usize, &i32)| PartitionMetadata {
        index: i as i32,
        leader,
        leader_epoch: *epoch,
        ..PartitionMetadata::default()
    };
    let topic = TopicMetadata {
        name: "t".into(),
        topic_id: id.into(),
        partitions: epochs.iter().enumerate().map(partition).collect(),
        ..TopicMetadata::default()
    };
    let endpoint = format!("broker-{leader}:9094");
    GetMetadataResponse {
        brokers: vec![BrokerEndpoint { id: leader, endpoint, ..BrokerEndpoint::default() }],
        topics: vec![topic],
        ..GetMetadataResponse::default()
    }
}

fn asked() -> BTreeSet<Arc<str>> {
    BTreeSet::from(["t".into()])
}

#[test]
fn a_late_answer_takes_no_partition_back_to_an_older_leader() {
    let new = Snapshot::default().merge(&asked(), answer("id", &[5, 5], 2));
    let late = new.merge(&asked(), answer("id", &[4, 6], 1));
    let topic = late.topic("t").unwrap();
    assert_eq!(topic.partitions, [Leader { broker: 2, epoch: 5 }, Leader { broker: 1, epoch: 6 }]);
}

#[test]
fn a_topic_made_again_begins_afresh() {
    let old = Snapshot::default().merge(&asked(), answer("old", &[9], 1));
    let new = old.merge(&asked(), answer("new", &[0], 1));
    assert_eq!(new.topic("t").unwrap().partitions, [Leader { broker: 1, epoch: 0 }]);
    assert_eq!(new.leader("t", 0), Some("broker-1:9094"));
    assert_eq!((new.leader_epoch("t", 0), new.leader_epoch("t", 1)), (Some(0), None));
    assert_eq!(new.leader("t", 1), None);
    assert_eq!(new.leader("t", -1), None);
}

#[test]
fn r3_only_an_in_sync_replica_of_the_zone_stands_in_for_a_leader_elsewhere() {
    let broker = |(id, zone): (i32, Option<&str>)| BrokerEndpoint {
        id,
        endpoint: format!("broker-{id}:9094"),
        zone: zone.map(str::to_owned),
        draining: false,
    };
    let brokers = [(0, Some("a")), (1, Some("b")), (2, Some("b")), (3, Some("c")), (4, None)].map(broker);
    let partition = |(index, leader, isr): (i32, i32, &[i32])| PartitionMetadata {
        index,
        leader,
        replicas: vec![0, 1, 2, 3, 4],
        isr: isr.to_vec(),
        ..PartitionMetadata::default()
    };
    let partitions: [(i32, i32, &[i32]); 4] =
        [(0, 0, &[0, 1, 2, 4]), (1, 0, &[0, 1, 2]), (2, 1, &[0, 1, 2]), (3, -1, &[1])];
    let topic =
        TopicMetadata { name: "t".into(), partitions: partitions.map(partition).to_vec(), ..TopicMetadata::default() };
    let answer =
        GetMetadataResponse { brokers: brokers.to_vec(), topics: vec![topic], ..GetMetadataResponse::default() };
    let snapshot = Snapshot::default().merge(&asked(), answer);
    for (zone, partition, replica, why) in [
        ("b", 0, Some("broker-1:9094"), "in sync there"),
        ("b", 1, Some("broker-2:9094"), "another partition asks another one"),
        ("b", 2, None, "the leader is there"),
        ("a", 0, None, "the leader is there"),
        ("a", 2, Some("broker-0:9094"), "in sync there"),
        ("c", 0, None, "that replica is not in sync"),
        ("d", 0, None, "no such zone"),
        ("b", 3, None, "nobody leads"),
        ("b", 4, None, "no such partition"),
    ] {
        assert_eq!(snapshot.replica_in(zone, "t", partition), replica, "{zone} {partition}: {why}");
    }
}

#[test]
fn a_topic_that_was_asked_for_and_is_not_told_of_is_gone() {
    let snapshot = Snapshot::default().merge(&asked(), answer("id", &[0], 1));
    let nothing = GetMetadataResponse::default();
    assert!(snapshot.merge(&BTreeSet::new(), nothing.clone()).topic("t").is_some());
    assert!(snapshot.merge(&asked(), nothing).topic("t").is_none());
}

/// Answers, or accepts what is asked and says nothing for ever.
#[derive(Clone)]
struct Fake {
    is_silent: bool,
}

#[tonic::async_trait]
impl Metadata for Fake {
    async fn get(&self, _: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(answer("id", &[1], 1)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<GetMetadataResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<GetMetadataRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let answer = self.get(request).await?.into_inner();
        let for_ever = tokio_stream::once(Ok(answer)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(for_ever)))
    }
}

async fn serve(is_silent: bool) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = socket.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(MetadataServer::new(Fake { is_silent }));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(socket)));
    endpoint
}

#[tokio::test]
async fn a_silent_broker_is_left_for_another_before_its_connection_is_given_up() {
    let endpoints = [serve(true).await, serve(false).await].join(",");
    let client = Client::connect(ClientConfig::new(&endpoints)).unwrap();
    let topic = timeout(2 * SILENCE, client.0.topic("t")).await.expect("the other is asked in time").unwrap();
    assert_eq!(topic.partitions, [Leader { broker: 1, epoch: 1 }]);
}
