//! What is counted in the storage engine, and its state at a scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Histogram;
use crate::storage::Status;

/// Numbers that the storage engine counts.
#[derive(Clone, Debug)]
pub struct StorageMetrics {
    /// Bytes of each group commit.
    pub group_commit_size: Histogram,
    /// From the begin of a group's write until all who wait for it were told; the sync included.
    pub group_commit_latency: Histogram,
    /// Syncs of the write-ahead log.
    pub wal_syncs: Counter,
    /// Storage epochs dropped.
    pub dropped_epochs: Counter,
    /// Storage epochs written anew without their dead batches.
    pub rewritten_epochs: Counter,
    /// Bytes that rewriting wrote.
    pub rewritten_bytes: Counter,
}

impl Default for StorageMetrics {
    /// Numbers that nobody shows, for tools and tests.
    fn default() -> Self {
        Self {
            group_commit_size: Histogram::size(),
            group_commit_latency: Histogram::latency(),
            wal_syncs: Counter::default(),
            dropped_epochs: Counter::default(),
            rewritten_epochs: Counter::default(),
            rewritten_bytes: Counter::default(),
        }
    }
}

impl StorageMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let size = new.group_commit_size.clone();
        registry.register_with_unit("storage_group_commit", "Bytes of a group commit", Unit::Bytes, size);
        let help = "Time that a group commit took, its sync included";
        let latency = new.group_commit_latency.clone();
        registry.register_with_unit("storage_group_commit_latency", help, Unit::Seconds, latency);
        registry.register("storage_wal_syncs", "Syncs of the write-ahead log", new.wal_syncs.clone());
        registry.register("storage_dropped_epochs", "Storage epochs dropped", new.dropped_epochs.clone());
        let help = "Storage epochs written anew without their dead batches";
        registry.register("storage_rewritten_epochs", help, new.rewritten_epochs.clone());
        let help = "Bytes written by rewriting storage epochs";
        registry.register_with_unit("storage_rewritten", help, Unit::Bytes, new.rewritten_bytes.clone());
        new
    }
}

/// Tells the storage's state; asked at each scrape.
pub type StatusSource = Box<dyn Fn() -> Status + Send + Sync>;

/// Collector over a [`StatusSource`].
pub(super) struct StorageCollector(pub(super) StatusSource);

impl fmt::Debug for StorageCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageCollector")
    }
}

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = (self.0)();
        let bytes = Some(&Unit::Bytes);
        let rows = [
            ("storage_disk_used", "Bytes that the data directory takes", bytes, status.used_bytes),
            ("storage_disk_free", "Bytes free on the data directory's file system", bytes, status.free_bytes),
            ("storage_live", "Bytes of record batches that are live", bytes, status.live_bytes),
            ("storage_epochs", "Storage epochs that are there", None, status.epochs),
            ("storage_disk_full", "1 while appends are refused for want of space", None, u64::from(status.disk_full)),
            ("storage_failed", "1 once a write failed and none is taken", None, u64::from(status.failed.is_some())),
        ];
        for (name, help, unit, value) in rows {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
