//! The gRPC API: each call is parsed, authorized, carried out by the part of the broker that decides, and its answer
//! converted. No state and no decisions are kept here but those of a stream's own protocol.
//!
//! - [`call`]: what every handler begins with;
//! - [`status`]: errors on their way to a client;
//! - [`producer`], [`produce_stream`]: writing, over [`batches`] (checks) and [`encoding`] (plain records);
//! - [`consumer`], [`fetch_stream`], [`read`]: reading;
//! - [`groups`]: consumer groups;
//! - [`metadata`], [`admin`], [`last_seen`]: the rest;
//! - [`partitions`]: what other brokers ask, for clients that have reached them; [`replicas`]: what they ask as followers.

use std::sync::Arc;

use taffrail_proto::internal::v1::partitions_server::PartitionsServer;
use taffrail_proto::internal::v1::replicas_server::ReplicasServer;
use taffrail_proto::v1;
use tonic::service::Routes;

use crate::brokers::Brokers;
use crate::context::Context;
use crate::controller::TopicAdmin;
use crate::coordinator::groups::Groups;
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::producer_ids::ProducerIds;
use crate::storage::Storage;
use crate::topics::Topics;

mod admin;
mod batches;
mod call;
mod consumer;
mod credit;
mod encoding;
mod fetch;
mod fetch_stream;
pub(crate) mod groups;
mod last_seen;
mod metadata;
mod partitions;
mod produce_stream;
mod producer;
mod read;
mod replicas;
pub mod status;

pub use last_seen::LastSeen;

/// Largest message that is received by the producer service: the largest `max.message.bytes` of a topic, with room for what
/// surrounds a batch.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Largest message that other services receive: 1,000 partitions with the longest names fit.
const MAX_QUERY_BYTES: usize = 512 << 10;
/// Largest answer, apart from a single batch that is larger. Clients of gRPC usually accept 4 MiB.
pub const MAX_RESPONSE_BYTES: usize = 3_584 << 10;

/// Largest message from another broker: 1 MiB of batches, or a single one.
const MAX_INTERNAL_BYTES: usize = MAX_REQUEST_BYTES + (1 << 20);

/// What the handlers call.
pub struct Broker {
    /// Clock and randomness.
    pub context: Context,
    /// This broker and the others.
    pub brokers: Arc<Brokers>,
    /// The ways to the others.
    pub peers: Arc<Peers>,
    /// The topics that are served.
    pub topics: Arc<Topics>,
    /// Changes topics.
    pub controller: Arc<dyn TopicAdmin>,
    /// The coordinators of consumer groups.
    pub groups: Arc<Groups>,
    /// Gives producers their identities.
    pub producer_ids: Arc<ProducerIds>,
    /// Disk and identity.
    pub storage: Arc<dyn Storage>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where the data is, for people.
    pub data_dir: String,
    /// Version of the data's format on disk.
    pub format_version: u32,
    /// Partitions of a topic that is made without a number.
    pub default_partitions: i32,
    /// What it remembers of the cluster; none where it runs alone.
    pub last_seen: Option<LastSeen>,
}

impl Broker {
    /// Identity of the cluster: that of the data where the broker runs alone.
    fn cluster_id(&self) -> String {
        self.brokers.cluster_id().to_owned()
    }
}

/// All services of the API, and reflection.
pub fn routes(broker: &Arc<Broker>, advertise: Option<&str>) -> Result<Routes, tonic_reflection::server::Error> {
    let producer = v1::producer_server::ProducerServer::new(producer::Service::new(broker))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(usize::MAX);
    let consumer = v1::consumer_server::ConsumerServer::new(consumer::Service::new(broker))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    let metadata = v1::metadata_server::MetadataServer::new(metadata::Service::new(broker, advertise))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    let admin = v1::admin_server::AdminServer::new(admin::Service::new(broker))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    let groups = v1::groups_server::GroupsServer::new(groups::Service::new(broker))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(producer)
        .add_service(consumer)
        .add_service(metadata)
        .add_service(admin)
        .add_service(groups)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// What other brokers may ask for at the internal listener; more may be added.
pub fn internal_routes(broker: &Arc<Broker>) -> Routes {
    let partitions = PartitionsServer::new(partitions::Service::new(broker))
        .max_decoding_message_size(MAX_INTERNAL_BYTES)
        .max_encoding_message_size(usize::MAX);
    let groups = v1::groups_server::GroupsServer::new(groups::Service::new(broker))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    let replicas = ReplicasServer::new(replicas::Service::new(broker))
        .max_decoding_message_size(MAX_QUERY_BYTES)
        .max_encoding_message_size(usize::MAX);
    Routes::new(partitions).add_service(groups).add_service(replicas)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use taffrail_crds::TopicConfig;

    use super::*;

    #[test]
    fn the_largest_batch_that_a_topic_may_take_fits_a_request() {
        let batch = vec![0; TopicConfig::MOST_MAX_MESSAGE_BYTES as usize].into();
        let batch = v1::PartitionBatch {
            correlation_id: u64::MAX,
            topic: "t".repeat(249),
            partition: i32::MAX,
            batch,
            leader_epoch: Some(i32::MAX),
            ..v1::PartitionBatch::default()
        };
        let frame = v1::produce_stream_request::Frame::Batches(v1::ProduceBatches { batches: vec![batch] });
        let request = v1::ProduceStreamRequest { frame: Some(frame) };
        assert!(request.encoded_len() <= MAX_REQUEST_BYTES);
    }
}
