//! A broker to ask, and the shortest ways to ask it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use taffrail_broker::brokers::Brokers;
use taffrail_broker::context::Context;
use taffrail_broker::controller::Controller;
use taffrail_broker::coordinator::groups::{self, Groups};
use taffrail_broker::coordinator::runtime::Limits;
use taffrail_broker::metadata::embedded::EmbeddedStore;
use taffrail_broker::metrics::Metrics;
use taffrail_broker::peers::Peers;
use taffrail_broker::producer_ids::ProducerIds;
use taffrail_broker::server::{self, Options, Server};
use taffrail_broker::service::Broker;
use taffrail_broker::storage::Storage;
use taffrail_broker::storage::memory::Disk;
use taffrail_broker::topics::Topics;
use taffrail_proto::record::{BatchBuilder, BatchProducer, Compression};
use taffrail_proto::v1::admin_client::AdminClient;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::metadata_client::MetadataClient;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{self, LogError, Reason};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything here takes on the slowest machine, and less than the longest that a poll may wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// A broker that runs until it is dropped or stopped.
pub(crate) struct TestBroker {
    pub(crate) disk: Disk,
    pub(crate) broker: Arc<Broker>,
    server: Option<Server>,
    shutdown: CancellationToken,
    pub(crate) channel: Channel,
}

impl TestBroker {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::on(Disk::new(), options).await
    }

    /// On what a broker before it has left.
    pub(crate) async fn on(disk: Disk, options: Options) -> Self {
        let storage: Arc<dyn Storage> = disk.open();
        let context = Context::system(&*storage.meta()).unwrap();
        let topics = Topics::new();
        let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
        let controller = Controller::start(context.clone(), storage.clone(), metadata, topics.clone()).await.unwrap();
        controller.ensure_internal(groups::topic()).await.unwrap();
        let groups = Groups::start(&context, &topics, Limits::default());
        assert_eq!(groups.loaded(PATIENCE).await, 0);
        let brokers = Brokers::alone(storage.identity().storage.to_string());
        let broker = Arc::new(Broker {
            context,
            peers: Peers::new(brokers.clone(), 1 << 30),
            brokers,
            topics,
            groups,
            controller,
            producer_ids: ProducerIds::open(storage.meta()).unwrap(),
            storage,
            metrics: Metrics::new(Instant::now()),
            data_dir: "memory".to_owned(),
            format_version: 1,
            default_partitions: 1,
            last_seen: None,
        });
        Self::serving(disk, broker, options).await
    }

    /// One that somebody else has put together.
    pub(crate) async fn serving(disk: Disk, broker: Arc<Broker>, options: Options) -> Self {
        let shutdown = CancellationToken::new();
        let server = server::serve(options, broker.clone(), shutdown.clone()).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", server.addresses()[0])).unwrap();
        let channel = endpoint.connect_lazy();
        Self { disk, broker, server: Some(server), shutdown, channel }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.as_ref().unwrap().addresses()[0]
    }

    /// Another connection.
    pub(crate) async fn connect(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address())).unwrap().connect().await.unwrap()
    }

    /// Stops all of it, in the order of a real stop, and starts it again.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop().await;
        self.broker.groups.stop().await;
        for partition in self.broker.topics.full_image().topics().flat_map(|topic| &topic.partitions) {
            partition.stop().await;
        }
        Self::on(self.disk.clone(), Options::default()).await
    }

    /// Asks the server to stop; ends when it has.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        self.server.take().unwrap().stopped().await;
    }

    /// Asks the server to stop and does not wait.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    pub(crate) fn producer(&self) -> ProducerClient<Channel> {
        ProducerClient::new(self.channel.clone())
    }

    pub(crate) fn consumer(&self) -> ConsumerClient<Channel> {
        ConsumerClient::new(self.channel.clone())
    }

    pub(crate) fn metadata(&self) -> MetadataClient<Channel> {
        MetadataClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) async fn topic(&self, name: &str, partitions: i32) -> v1::TopicDescription {
        self.topic_with(name, partitions, &[]).await
    }

    pub(crate) async fn topic_with(
        &self,
        name: &str,
        partitions: i32,
        config: &[(&str, &str)],
    ) -> v1::TopicDescription {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config, ..Default::default() };
        self.admin().create_topic(request).await.unwrap().into_inner().topic.unwrap()
    }

    /// Appends plain records with these values to one partition.
    pub(crate) async fn produce(&self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let records = values.iter().map(|value| record(None, value)).collect();
        let request = v1::ProduceRequest { partition: Some(partition), ..produce_request(topic, records) };
        let response = self.producer().produce(request).await.unwrap().into_inner();
        match response.results[0].outcome.clone().unwrap() {
            v1::produce_result::Outcome::Appended(appended) => appended.base_offset.unwrap(),
            v1::produce_result::Outcome::Error(error) => panic!("{error:?}"),
        }
    }

    /// All values of a partition, as text.
    pub(crate) async fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        let request = v1::ReadRequest { topic: topic.to_owned(), partitions: vec![partition], ..Default::default() };
        let mut stream = self.consumer().read(request).await.unwrap().into_inner();
        let mut values = Vec::new();
        while let Some(response) = stream.message().await.unwrap() {
            values.extend(response.records.into_iter().map(|record| text(record.value.as_ref())));
        }
        values
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn text(bytes: Option<&Bytes>) -> String {
    bytes.map_or_else(|| "(null)".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

pub(crate) fn record(key: Option<&str>, value: &str) -> v1::Record {
    v1::Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..v1::Record::default()
    }
}

pub(crate) fn produce_request(topic: &str, records: Vec<v1::Record>) -> v1::ProduceRequest {
    v1::ProduceRequest { topic: topic.to_owned(), records, ..v1::ProduceRequest::default() }
}

/// A batch as a client of the fast path makes it.
pub(crate) fn batch(values: &[&str], producer: Option<BatchProducer>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(None, Some(value.as_bytes()), [], 1_700_000_000_000).unwrap();
    }
    builder.build(Compression::None, producer).unwrap()
}

pub(crate) fn fetch_partition(topic: &str, partition: i32, offset: i64) -> v1::FetchPartition {
    v1::FetchPartition { topic: topic.to_owned(), partition, offset, ..v1::FetchPartition::default() }
}

/// The API's own error in a status.
pub(crate) fn log_error(status: &Status) -> LogError {
    let packed = tonic_types::pb::Status::decode(status.details()).unwrap();
    let found = packed.details.iter().find(|any| any.type_url.ends_with("taffrail.v1.LogError"));
    LogError::decode(found.unwrap_or_else(|| panic!("no LogError in {status:?}")).value.as_slice()).unwrap()
}

/// The reason of a failed call.
pub(crate) fn reason<T>(result: Result<T, Status>) -> Reason {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(status) => log_error(&status).reason(),
    }
}

/// Fails instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
