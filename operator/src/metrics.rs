//! The operator's numbers. All names are here.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::error::Error;
use crate::step::Step;

/// What `/metrics` is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// Of Clusters.
    Cluster,
    /// Of Topics.
    Topic,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Topic => "topic",
        }
    }
}

impl prometheus_client::encoding::EncodeLabelValue for Controller {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.name().encode(encoder)
    }
}

impl prometheus_client::encoding::EncodeLabelValue for Step {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.name().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByController {
    controller: Controller,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStep {
    controller: Controller,
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStep {
    step: Step,
}

/// All numbers of an operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ByController, Counter>,
    errors: Family<ByStep, Counter>,
    durations: Family<ByController, Histogram, fn() -> Histogram>,
    writes: Family<OfStep, Counter>,
    /// 1 while this operator has the Lease.
    pub acting: Gauge,
    /// Broker pods that were restarted.
    pub restarts: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// New numbers, all zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let taffrail = registry.sub_registry_with_prefix("taffrail_operator");
        let new = Self {
            registry: Registry::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])),
            writes: Family::default(),
            acting: Gauge::default(),
            restarts: Counter::default(),
        };
        taffrail.register("reconciles", "Objects looked at", new.reconciles.clone());
        taffrail.register("reconcile_errors", "Steps that failed", new.errors.clone());
        let help = "Time that looking at an object took";
        taffrail.register_with_unit("reconcile_duration", help, Unit::Seconds, new.durations.clone());
        taffrail.register("writes", "Writes to the API server, but for Events and the Lease", new.writes.clone());
        taffrail.register("acting", "Whether this operator has the Lease", new.acting.clone());
        taffrail.register("broker_restarts", "Pods of brokers that were deleted to be made anew", new.restarts.clone());
        Arc::new(Self { registry, ..new })
    }

    /// Counts a write to the API server.
    pub fn write(&self, step: Step) {
        self.writes.get_or_create(&OfStep { step }).inc();
    }

    /// Measures a reconcile until it is dropped.
    pub fn reconcile(&self, controller: Controller) -> Measured<'_> {
        self.reconciles.get_or_create(&ByController { controller }).inc();
        Measured { metrics: self, controller, begun: Instant::now() }
    }

    /// Counts a step that failed.
    pub fn error(&self, controller: Controller, error: &Error) {
        self.errors.get_or_create(&ByStep { controller, step: error.step }).inc();
    }

    /// As text, in OpenMetrics.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A reconcile that is under way.
#[derive(Debug)]
pub struct Measured<'a> {
    metrics: &'a Metrics,
    controller: Controller,
    begun: Instant,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let controller = self.controller;
        self.metrics.durations.get_or_create(&ByController { controller }).observe(self.begun.elapsed().as_secs_f64());
    }
}
