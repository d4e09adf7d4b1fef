//! What is counted where partitions are copied, and how they stand at a scrape. No series for each partition.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// What is counted of replication. Clones count on the same.
#[derive(Clone, Debug, Default)]
pub struct ReplicationMetrics {
    /// Bytes of batches sent to followers.
    pub sent_bytes: Counter,
    /// Bytes of batches received from leaders.
    pub received_bytes: Counter,
    /// In-sync replicas of partitions that are led here became fewer.
    pub isr_shrinks: Counter,
    /// In-sync replicas of partitions that are led here became more.
    pub isr_expansions: Counter,
    /// Leaderships that began here.
    pub elections: Counter,
    /// Leaderships that began here without proof that no record was lost.
    pub possible_losses: Counter,
    waited: Counter<f64, std::sync::atomic::AtomicU64>,
}

impl ReplicationMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let help = "Bytes of record batches sent to followers";
        registry.register_with_unit("replication_sent", help, Unit::Bytes, new.sent_bytes.clone());
        let help = "Bytes of record batches received from leaders";
        registry.register_with_unit("replication_received", help, Unit::Bytes, new.received_bytes.clone());
        let help = "Times that a replica left the in-sync replicas of a partition that this broker leads";
        registry.register("replication_isr_shrinks", help, new.isr_shrinks.clone());
        let help = "Times that a replica joined the in-sync replicas of a partition that this broker leads";
        registry.register("replication_isr_expansions", help, new.isr_expansions.clone());
        let help = "Times that this broker was elected leader of a partition, seen since it started";
        registry.register("replication_elections", help, new.elections.clone());
        let help = "Times that this broker was elected leader of a partition of which records may have been lost";
        registry.register("replication_possible_losses", help, new.possible_losses.clone());
        let help = "Time for which replicas that catch up waited because of the Cluster's catchUpRate";
        registry.register_with_unit("replication_catch_up_wait", help, Unit::Seconds, new.waited.clone());
        new
    }

    /// Counts a wait of a replica that catches up.
    pub fn waited(&self, time: Duration) {
        self.waited.inc_by(time.as_secs_f64());
    }
}

/// How the partitions of which this broker has a replica stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicationSample {
    /// Led here.
    pub led: u64,
    /// Of which another broker's replica leads.
    pub followed: u64,
    /// Of those led here: some replica is not in sync.
    pub under_replicated: u64,
    /// Of those led here: fewer replicas are in sync than acks=all needs.
    pub below_min_isr: u64,
    /// Nobody leads.
    pub leaderless: u64,
    /// Of those led here: records may have been lost, and not all replicas agree yet.
    pub recovering: u64,
    /// Of those followed here: this replica is not in sync.
    pub catching_up: u64,
    /// Of those followed here: records that the replica lacks that lacks most.
    pub max_lag: u64,
}

/// Tells how they stand; asked at each scrape.
pub type ReplicationSource = Box<dyn Fn() -> ReplicationSample + Send + Sync>;

/// Collector over a [`ReplicationSource`].
pub(super) struct ReplicationCollector(pub(super) ReplicationSource);

impl fmt::Debug for ReplicationCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplicationCollector")
    }
}

impl Collector for ReplicationCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = (self.0)();
        let rows = [
            ("replication_led_partitions", "Partitions that this broker leads", sample.led),
            ("replication_followed_partitions", "Partitions that this broker follows", sample.followed),
            (
                "replication_under_replicated_partitions",
                "Partitions that this broker leads and of which a replica is not in sync",
                sample.under_replicated,
            ),
            (
                "replication_below_min_isr_partitions",
                "Partitions that this broker leads and of which fewer replicas are in sync than acks=all needs",
                sample.below_min_isr,
            ),
            (
                "replication_leaderless_partitions",
                "Partitions of which this broker has a replica and that nobody leads",
                sample.leaderless,
            ),
            (
                "replication_recovering_partitions",
                "Partitions that this broker leads since records may have been lost, until their replicas agree again",
                sample.recovering,
            ),
            (
                "replication_catching_up_replicas",
                "Partitions that this broker follows and is not in sync in",
                sample.catching_up,
            ),
            (
                "replication_max_lag",
                "Records of its leader that this broker lacked when it heard of them last, in the partition where it lacks most",
                sample.max_lag,
            ),
        ];
        for (name, help, value) in rows {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
