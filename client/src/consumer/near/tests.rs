//! A consumer against two servers that do as the test says: broker 0 in zone a leads, broker 1 in zone b follows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_proto::record::header::set_leader_epoch;
use taffrail_proto::record::{BatchBuilder, Compression};
use taffrail_proto::v1::consumer_server::{Consumer as Served, ConsumerServer};
use taffrail_proto::v1::fetch_stream_request::Frame as Asked;
use taffrail_proto::v1::fetch_stream_response::Frame as Told;
use taffrail_proto::v1::metadata_server::{Metadata, MetadataServer};
use taffrail_proto::v1::{self, FetchAdd, FetchStreamRequest, FetchStreamResponse, GetMetadataResponse, Reason};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream, WatchStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::{Client, Consumer, Position};

const PATIENCE: Duration = Duration::from_mins(1);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sender = mpsc::UnboundedSender<Result<FetchStreamResponse, Status>>;

/// A partition was added to, or taken off, the stream of a broker.
#[derive(Debug)]
enum Heard {
    Add(usize, FetchAdd, Sender),
    Remove(usize),
}

#[derive(Clone)]
struct Fake {
    broker: usize,
    heard: mpsc::UnboundedSender<Heard>,
    metadata: Arc<Mutex<watch::Receiver<GetMetadataResponse>>>,
}

#[tonic::async_trait]
impl Metadata for Fake {
    async fn get(&self, _: Request<v1::GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        Ok(Response::new(self.metadata.lock().borrow().clone()))
    }

    type WatchStream = Answers<GetMetadataResponse>;

    async fn watch(&self, _: Request<v1::GetMetadataRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = WatchStream::new(self.metadata.lock().clone()).map(Ok);
        Ok(Response::new(Box::pin(changes)))
    }
}

#[tonic::async_trait]
impl Served for Fake {
    type ReadStream = Answers<v1::ReadResponse>;
    type FetchStreamStream = Answers<FetchStreamResponse>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let (answers, stream) = mpsc::unbounded_channel();
        let (fake, mut frames) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let heard = match frame.frame {
                    Some(Asked::Add(add)) => Heard::Add(fake.broker, add, answers.clone()),
                    Some(Asked::Remove(_)) => Heard::Remove(fake.broker),
                    _ => continue,
                };
                let _ = fake.heard.send(heard);
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn read(&self, _: Request<v1::ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_offsets(
        &self,
        _: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn end_of_epoch(
        &self,
        _: Request<v1::EndOfEpochRequest>,
    ) -> Result<Response<v1::EndOfEpochResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

struct Brokers {
    endpoints: Vec<String>,
    metadata: watch::Sender<GetMetadataResponse>,
    heard: mpsc::UnboundedReceiver<Heard>,
    servers: Vec<tokio::task::JoinHandle<()>>,
}

impl Brokers {
    async fn start() -> Self {
        let ((tell, heard), (metadata, told)) =
            (mpsc::unbounded_channel(), watch::channel(GetMetadataResponse::default()));
        let (mut endpoints, mut servers) = (Vec::new(), Vec::new());
        for broker in 0..2 {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(socket.local_addr().unwrap().to_string());
            let fake = Fake { broker, heard: tell.clone(), metadata: Arc::new(Mutex::new(told.clone())) };
            let server = tonic::transport::Server::builder()
                .add_service(MetadataServer::new(fake.clone()))
                .add_service(ConsumerServer::new(fake));
            servers.push(tokio::spawn(async move {
                server.serve_with_incoming(TcpListenerStream::new(socket)).await.unwrap();
            }));
        }
        let brokers = Self { endpoints, metadata, heard, servers };
        brokers.in_sync(&[0, 1]);
        brokers
    }

    fn in_sync(&self, isr: &[i32]) {
        let broker = |(id, zone): (i32, &str)| v1::BrokerEndpoint {
            id,
            endpoint: self.endpoints[id as usize].clone(),
            zone: Some(zone.to_owned()),
            draining: false,
        };
        let partition = v1::PartitionMetadata {
            leader_epoch: 7,
            replicas: vec![0, 1],
            isr: isr.to_vec(),
            ..v1::PartitionMetadata::default()
        };
        let topic = v1::TopicMetadata {
            name: "t".into(),
            topic_id: "id".into(),
            partitions: vec![partition],
            ..v1::TopicMetadata::default()
        };
        self.metadata.send_replace(GetMetadataResponse {
            brokers: [(0, "a"), (1, "b")].map(broker).to_vec(),
            topics: vec![topic],
            ..GetMetadataResponse::default()
        });
    }

    async fn consumer(&self, zone: &str) -> Consumer {
        let client = Client::connect(self.endpoints[0].as_str()).unwrap();
        client.consumer().partition_from("t", 0, Position::Offset(4)).zone(zone).build().await.unwrap()
    }

    /// The next addition: by which broker, whether a follower may answer, from which offset.
    async fn added(&mut self) -> (usize, FetchAdd, Sender) {
        loop {
            match timeout(PATIENCE, self.heard.recv()).await.unwrap().unwrap() {
                Heard::Add(broker, add, answers) => return (broker, add, answers),
                Heard::Remove(_) => {}
            }
        }
    }
}

/// A partition leaves one broker's stream and comes to another's. They hear of it in any order: the streams are two connections.
async fn moved(brokers: &mut Brokers) -> (usize, (usize, FetchAdd, Sender)) {
    let (mut left, mut added) = (None, None);
    loop {
        match timeout(PATIENCE, brokers.heard.recv()).await.unwrap().unwrap() {
            Heard::Add(broker, add, answers) => added = Some((broker, add, answers)),
            Heard::Remove(broker) => left = Some(broker),
        }
        match (left, added.take()) {
            (Some(left), Some(added)) => return (left, added),
            (_, before) => added = before,
        }
    }
}

/// What an addition asks for.
fn asks((broker, add, _): &(usize, FetchAdd, Sender)) -> (usize, bool, i64, Option<i32>) {
    let partition = add.partition.as_ref().unwrap();
    (*broker, partition.from_follower, partition.offset, partition.leader_epoch)
}

fn answer((_, add, answers): &(usize, FetchAdd, Sender), data: v1::PartitionData) {
    let data = v1::PartitionData { topic: "t".into(), subscription: add.subscription, ..data };
    answers.send(Ok(FetchStreamResponse { frame: Some(Told::Data(data)) })).unwrap();
}

fn one_record(offset: i64) -> v1::PartitionData {
    let mut builder = BatchBuilder::new();
    builder.push(None, Some(b"value"), [], 1).unwrap();
    let mut bytes = builder.build(Compression::None, None).unwrap().to_vec();
    taffrail_proto::record::header::set_base_offset(&mut bytes, offset);
    set_leader_epoch(&mut bytes, 7);
    v1::PartitionData { batches: vec![bytes.into()], ..v1::PartitionData::default() }
}

fn error(reason: Reason) -> v1::PartitionData {
    let error = v1::LogError { reason: reason.into(), ..v1::LogError::default() };
    v1::PartitionData { error: Some(error), ..v1::PartitionData::default() }
}

/// Runs the consumer until `event` is there.
async fn while_reading<T>(consumer: &mut Consumer, event: impl Future<Output = T>) -> T {
    tokio::select! {
        event = event => event,
        record = consumer.next() => panic!("nothing was sent: {record:?}"),
    }
}

#[tokio::test]
async fn r3_a_follower_of_the_zone_is_read_and_the_leader_where_it_refuses() {
    let mut brokers = Brokers::start().await;
    let mut consumer = brokers.consumer("b").await;
    let added = while_reading(&mut consumer, brokers.added()).await;
    assert_eq!(asks(&added), (1, true, 4, Some(7)));
    answer(&added, one_record(4));
    assert_eq!(timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap().offset, 4);
    // A fault that would end a reader of the leader, too.
    answer(&added, error(Reason::UnknownTopic));
    let added = while_reading(&mut consumer, brokers.added()).await;
    assert_eq!(asks(&added), (0, false, 5, Some(7)), "at once, behind what was read");
    answer(&added, one_record(5));
    assert_eq!(timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap().offset, 5);
}

#[tokio::test]
async fn a_reader_goes_where_the_in_sync_replicas_go() {
    let mut brokers = Brokers::start().await;
    brokers.in_sync(&[0]);
    let mut consumer = brokers.consumer("b").await;
    let added = while_reading(&mut consumer, brokers.added()).await;
    assert_eq!(asks(&added), (0, false, 4, Some(7)));
    brokers.in_sync(&[0, 1]);
    let (left, added) = while_reading(&mut consumer, moved(&mut brokers)).await;
    assert_eq!((left, asks(&added)), (0, (1, true, 4, Some(7))));
    brokers.in_sync(&[0]);
    let (left, added) = while_reading(&mut consumer, moved(&mut brokers)).await;
    assert_eq!((left, asks(&added)), (1, (0, false, 4, Some(7))));
}

#[tokio::test]
async fn a_follower_that_is_gone_is_not_waited_for() {
    let mut brokers = Brokers::start().await;
    brokers.servers[1].abort();
    let mut consumer = brokers.consumer("b").await;
    assert_eq!(asks(&while_reading(&mut consumer, brokers.added()).await), (0, false, 4, Some(7)));
}

#[tokio::test]
async fn without_a_zone_and_in_the_leader_s_the_leader_is_read() {
    for zone in ["", "a", "c"] {
        let mut brokers = Brokers::start().await;
        let mut consumer = brokers.consumer(zone).await;
        let added = while_reading(&mut consumer, brokers.added()).await;
        assert_eq!(asks(&added), (0, false, 4, Some(7)), "{zone:?}");
    }
}
