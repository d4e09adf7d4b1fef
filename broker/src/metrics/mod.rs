//! Every metric of the broker: its name, unit, help and labels stand here and in this folder, nowhere else.
//! `docs/metrics.md` is their table; a test fails when it drifts.
//!
//! Components get [`Metrics`] and keep the handles that they count on: counting is an atomic addition, never a look-up.
//! Labels come from closed or bounded sets: never a key, an offset, an address or the text of an error.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Instant;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use taffrail_proto::v1::Reason;

mod controller;
mod groups;
mod histogram;
mod metadata;
mod process;
mod replication;
mod rpc;
mod storage;
mod topics;

pub use controller::ControllerMetrics;
pub use groups::{
    CoordinatorSample, GroupMetrics, GroupSample, GroupSource, GroupsSample, MAX_GROUP_PARTITIONS, MAX_GROUPS,
};
pub use histogram::Histogram;
pub use metadata::MetadataMetrics;
pub use process::{cpu_time, resident_bytes};
pub use replication::{ReplicationMetrics, ReplicationSample, ReplicationSource};
pub use rpc::{Call, OpenStream, Rpc, RpcMetrics};
pub use storage::{StatusSource, StorageMetrics};
pub use topics::{MAX_PARTITIONS, MAX_TOPICS, OTHER_TOPICS, PartitionSample, PartitionSource, TopicMetrics};

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All numbers of a broker; one per process (or per test), passed to what counts. Not global.
#[derive(Debug)]
pub struct Metrics {
    registry: RwLock<Registry>,
    rpcs: Vec<RpcMetrics>,
    errors: Vec<Counter>,
    topics: Arc<topics::Topics>,
    /// Connections to the listeners that are open.
    pub connections: Gauge<i64, AtomicI64>,
    /// Connections that were refused because as many were open as may.
    pub refused_connections: Counter,
    /// Bytes of produce requests that were received and are not yet acknowledged.
    pub produce_in_flight_bytes: Gauge<i64, AtomicI64>,
    /// Bytes of fetch answers that are made and not yet sent.
    pub fetch_in_flight_bytes: Gauge<i64, AtomicI64>,
    /// The storage engine's.
    pub storage: StorageMetrics,
    /// Copies of partitions; all zero without other brokers.
    pub replication: ReplicationMetrics,
    /// Consumer groups'.
    pub groups: GroupMetrics,
    /// What it decided as controller of a cluster.
    pub controller: ControllerMetrics,
    /// Calls to the Kubernetes API; all zero without one.
    pub metadata: MetadataMetrics,
    started: Instant,
}

impl Metrics {
    /// New numbers, all zero. `started` is when the process began.
    pub fn new(started: Instant) -> Arc<Self> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::ProcessCollector { started }));
        let taffrail = registry.sub_registry_with_prefix("taffrail");
        let topics = Arc::new(topics::Topics::default());
        taffrail.register_collector(Box::new(topics::TopicCollector(topics.clone())));
        let new = Self {
            rpcs: register_rpcs(taffrail),
            errors: register_errors(taffrail),
            topics,
            connections: Gauge::default(),
            refused_connections: Counter::default(),
            produce_in_flight_bytes: Gauge::default(),
            fetch_in_flight_bytes: Gauge::default(),
            storage: StorageMetrics::register(taffrail),
            replication: ReplicationMetrics::register(taffrail),
            groups: GroupMetrics::register(taffrail),
            controller: ControllerMetrics::register(taffrail),
            metadata: MetadataMetrics::register(taffrail),
            started,
            registry: RwLock::default(),
        };
        taffrail.register("connections", "Open connections", new.connections.clone());
        let help = "Connections refused because as many were open as may";
        taffrail.register("refused_connections", help, new.refused_connections.clone());
        let help = "Bytes of batches received and not yet acknowledged";
        taffrail.register_with_unit("produce_in_flight", help, Unit::Bytes, new.produce_in_flight_bytes.clone());
        let help = "Bytes of answers to readers made and not yet sent";
        taffrail.register_with_unit("fetch_in_flight", help, Unit::Bytes, new.fetch_in_flight_bytes.clone());
        *new.registry.write() = registry;
        Arc::new(new)
    }

    /// The numbers of a call of the API.
    pub fn rpc(&self, rpc: Rpc) -> &RpcMetrics {
        &self.rpcs[rpc as usize]
    }

    /// Counts a request that was answered with an error of this reason.
    pub fn error(&self, reason: Reason) {
        if let Some(counter) = self.errors.get(reason as usize) {
            counter.inc();
        }
    }

    /// The numbers of a topic: to be kept, for finding them takes a lock.
    pub fn topic(&self, name: &str) -> TopicMetrics {
        self.topics.get(name)
    }

    /// Stops showing a topic that was deleted.
    pub fn forget_topic(&self, name: &str) {
        self.topics.forget(name);
    }

    /// Shows the partitions that `source` tells, at each scrape. To be called once.
    pub fn observe_partitions(&self, source: PartitionSource) {
        let collector = Box::new(topics::PartitionCollector(source));
        self.registry.write().sub_registry_with_prefix("taffrail").register_collector(collector);
    }

    /// Shows the state of the storage that `status` tells, at each scrape. To be called once.
    pub fn observe_storage(&self, status: StatusSource) {
        let collector = Box::new(storage::StorageCollector(status));
        self.registry.write().sub_registry_with_prefix("taffrail").register_collector(collector);
    }

    /// Shows how partitions are replicated as `source` tells, at each scrape. To be called once.
    pub fn observe_replication(&self, source: ReplicationSource) {
        let collector = Box::new(replication::ReplicationCollector(source));
        self.registry.write().sub_registry_with_prefix("taffrail").register_collector(collector);
    }

    /// Shows the consumer groups that `source` tells, at each scrape. To be called once.
    pub fn observe_groups(&self, source: GroupSource) {
        let collector = Box::new(groups::GroupCollector(source));
        self.registry.write().sub_registry_with_prefix("taffrail").register_collector(collector);
    }

    /// Seconds since the start.
    pub fn uptime_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// All numbers in the OpenMetrics text format. Reads the disk's and the process's state: milliseconds.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry.read()).expect("writing to a String cannot fail");
        text
    }
}

fn register_rpcs(registry: &mut Registry) -> Vec<RpcMetrics> {
    let requests = Family::<rpc::RpcLabels, Counter>::default();
    let active = Family::<rpc::RpcLabels, Gauge<i64, AtomicI64>>::default();
    let latency = Family::<rpc::RpcLabels, Histogram, fn() -> Histogram>::new_with_constructor(Histogram::latency);
    registry.register("rpc_requests", "Calls begun; in streams, frames that ask for something", requests.clone());
    registry.register("rpc_active", "Calls under way and open streams", active.clone());
    let help = "From a request's arrival to its answer; in streams, from a batch's arrival to its acknowledgement";
    registry.register_with_unit("rpc_latency", help, Unit::Seconds, latency.clone());
    let of = |rpc: Rpc| {
        let labels = rpc::RpcLabels { rpc: rpc.label() };
        RpcMetrics {
            requests: requests.get_or_create(&labels).clone(),
            active: active.get_or_create(&labels).clone(),
            latency: latency.get_or_create(&labels).clone(),
        }
    };
    Rpc::ALL.into_iter().map(of).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    reason: String,
}

/// One counter for each reason of the API, by its number.
fn register_errors(registry: &mut Registry) -> Vec<Counter> {
    let errors = Family::<ErrorLabels, Counter>::default();
    registry.register("errors", "Requests answered with an error, by its reason", errors.clone());
    let of = |reason: Reason| {
        let reason = reason.as_str_name().trim_start_matches("REASON_").to_owned();
        errors.get_or_create(&ErrorLabels { reason }).clone()
    };
    (0..).map_while(|number| Reason::try_from(number).ok()).map(of).collect()
}

#[cfg(test)]
mod tests;
