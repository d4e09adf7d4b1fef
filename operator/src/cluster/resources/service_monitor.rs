//! ServiceMonitor: tells Prometheus' operator to read the metrics of each broker.

use serde_json::json;

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

pub(super) fn build(cluster: &Validated) -> Child {
    let key = &cluster.key;
    let spec = json!({
        "endpoints": [{ "port": "admin", "path": "/metrics" }],
        "selector": { "matchLabels": labels::selector(&key.name) },
        "namespaceSelector": { "matchNames": [key.namespace] },
    });
    let (metadata, rest) = (labels::metadata(cluster), json!({ "spec": spec }));
    Child::new(ChildKind::ServiceMonitor, &key.namespace, &key.name, metadata, rest)
}
