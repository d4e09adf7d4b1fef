//! Numbers about producers and consumers, for the application to read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// What a producer has done so far; from [`Producer::metrics`](crate::Producer::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerMetrics {
    /// Records that are stored (with acks none: handed to the network).
    pub records: u64,
    /// Bytes of the batches that were sent, as encoded; retries count again.
    pub bytes: u64,
    /// Batches that are stored.
    pub batches: u64,
    /// Batches that were sent again.
    pub retries: u64,
    /// Records that failed.
    pub errors: u64,
    /// Bytes of records that wait for an answer.
    pub buffered_bytes: u64,
    /// From a batch's first record to its end, of batches that are stored: half of them were faster.
    pub latency_p50: Duration,
    /// The same: 99 of 100 were faster.
    pub latency_p99: Duration,
    /// The same: the slowest.
    pub latency_max: Duration,
}

/// What a consumer has done so far; from [`Consumer::metrics`](crate::Consumer::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerMetrics {
    /// Batches handed out.
    pub batches: u64,
    /// Bytes of those, as encoded.
    pub bytes: u64,
    /// Bytes of batches that were received and not handed out yet.
    pub buffered_bytes: u64,
    /// Connections that broke.
    pub reconnects: u64,
}

/// The producer's own counters.
pub(crate) struct ProducerCounters {
    records: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    errors: AtomicU64,
    /// Microseconds.
    latency: Mutex<Histogram<u64>>,
}

impl ProducerCounters {
    pub(crate) fn new() -> Self {
        let latency = Histogram::new(2).expect("two significant digits are allowed");
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            latency: Mutex::new(latency),
        }
    }

    pub(crate) fn sent(&self, bytes: usize, retry: bool) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.retries.fetch_add(u64::from(retry), Ordering::Relaxed);
    }

    pub(crate) fn stored(&self, records: i32, latency: Duration) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        // Resizes itself: it refuses nothing but what no memory could hold.
        let _ = self.latency.lock().record(latency.as_micros() as u64);
    }

    pub(crate) fn failed(&self, records: i32) {
        self.errors.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, buffered_bytes: usize) -> ProducerMetrics {
        let latency = self.latency.lock();
        let quantile = |q| Duration::from_micros(latency.value_at_quantile(q));
        ProducerMetrics {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            buffered_bytes: buffered_bytes as u64,
            latency_p50: quantile(0.5),
            latency_p99: quantile(0.99),
            latency_max: Duration::from_micros(latency.max()),
        }
    }
}
