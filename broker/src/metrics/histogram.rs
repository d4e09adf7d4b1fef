//! A histogram of plain atomics: `prometheus_client`'s own takes a lock for each observation, which a path that runs a
//! million times a second cannot afford.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds for latencies, in nanoseconds: 50 µs to 10 s, each about 2.2 times the one before.
const LATENCY: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds for sizes, in bytes: 1 KiB to 16 MiB, each four times the one before.
const SIZE: &[u64] = &[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24];

/// Distribution of a latency or a size. Cheap to clone: clones share their numbers. An observation is three relaxed
/// additions; a scrape that falls between them sees a sum and a count that differ by one observation.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: &'static [u64],
    /// Multiplies an observed integer into the metric's unit.
    scale: f64,
    /// One per bound and one for what lies above the last.
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    /// Of latencies, exported in seconds.
    pub fn latency() -> Self {
        Self::new(LATENCY, 1e-9)
    }

    /// Of sizes, exported in bytes.
    pub fn size() -> Self {
        Self::new(SIZE, 1.0)
    }

    fn new(bounds: &'static [u64], scale: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner { bounds, scale, buckets, sum: AtomicU64::new(0) }))
    }

    /// Adds a latency (to a histogram of latencies).
    pub fn observe(&self, latency: Duration) {
        self.add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds a size (to a histogram of sizes).
    pub fn observe_bytes(&self, bytes: u64) {
        self.add(bytes);
    }

    fn add(&self, value: u64) {
        let bucket = self.0.bounds.partition_point(|&bound| bound < value);
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.0.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let inner = &self.0;
        let bounds = inner.bounds.iter().map(|&b| b as f64 * inner.scale).chain([f64::INFINITY]);
        let counts = inner.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, n)| n).sum();
        let sum = inner.sum.load(Ordering::Relaxed) as f64 * inner.scale;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn a_value_falls_in_the_first_bucket_whose_bound_is_not_below_it() {
        let histogram = Histogram::size();
        for bytes in [0, 1024, 1025, u64::MAX] {
            histogram.observe_bytes(bytes);
        }
        let mut registry = Registry::default();
        registry.register("x", "help", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("x_bucket{le=\"1024.0\"} 2"), "{text}");
        assert!(text.contains("x_bucket{le=\"4096.0\"} 3"), "{text}");
        assert!(text.contains("x_bucket{le=\"+Inf\"} 4"), "{text}");
        assert!(text.contains("x_count 4"), "{text}");
    }

    #[test]
    fn latencies_are_exported_in_seconds() {
        let histogram = Histogram::latency();
        histogram.observe(Duration::from_millis(1500));
        let mut registry = Registry::default();
        registry.register("x", "help", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("x_sum 1.5"), "{text}");
        assert!(text.contains("x_bucket{le=\"1.0\"} 0"), "{text}");
        assert!(text.contains("x_bucket{le=\"2.5\"} 1"), "{text}");
    }
}
