//! What the broker asks of the Kubernetes API.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    outcome: &'static str,
}

/// Calls to the Kubernetes API, counted. Clones count on the same.
#[derive(Clone, Debug, Default)]
pub struct MetadataMetrics {
    calls: Family<Labels, Counter>,
    waited: Counter<f64, std::sync::atomic::AtomicU64>,
    broken: Counter,
}

impl MetadataMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        let help = "Calls to the Kubernetes API for metadata: read or write, ok or failed";
        registry.register("metadata_calls", help, new.calls.clone());
        let help =
            "Time for which calls waited because of the budget for writes or because the API server asked for it";
        registry.register_with_unit("metadata_wait", help, Unit::Seconds, new.waited.clone());
        let help = "Watches of the Kubernetes API that broke and were begun again";
        registry.register("metadata_watch_restarts", help, new.broken.clone());
        new
    }

    /// Counts a read.
    pub fn read(&self, ok: bool) {
        self.count("read", ok);
    }

    /// Counts a change.
    pub fn change(&self, ok: bool) {
        self.count("write", ok);
    }

    fn count(&self, operation: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.calls.get_or_create(&Labels { operation, outcome }).inc();
    }

    /// Counts a wait before a call.
    pub fn waited(&self, time: Duration) {
        self.waited.inc_by(time.as_secs_f64());
    }

    /// Counts a watch that broke.
    pub fn watch_broken(&self) {
        self.broken.inc();
    }
}
