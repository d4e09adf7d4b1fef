//! What every part of the operator is given.

use std::sync::Arc;
use std::time::SystemTime;

use kube::Client;

use crate::events::Events;
use crate::metrics::Metrics;
use crate::watches::Stores;

/// What the operator was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The brokers' image without a tag, for Clusters that name none.
    pub broker_image: String,
    /// Whether Prometheus' operator is told to read the brokers' metrics.
    pub service_monitors: bool,
}

/// What every part of the operator is given.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Where Events go.
    pub events: Arc<Events>,
    /// Where things are counted.
    pub metrics: Arc<Metrics>,
    /// What the operator was started with.
    pub settings: Arc<Settings>,
    /// What the watches have seen last.
    pub stores: Arc<Stores>,
}

impl Context {
    /// For conditions, which tell when they changed.
    pub fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
