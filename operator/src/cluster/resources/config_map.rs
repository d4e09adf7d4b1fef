//! ConfigMap: the brokers' configuration file. A change of it restarts them, so it holds what they need and nothing else.

use serde_json::json;
use taffrail_crds::ClusterSpec;
use taffrail_crds::cluster::{ADMIN_PORT, INTERNAL_PORT};
use taffrail_crds::size::Size;

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;
use crate::topic::ClusterKey;

/// Name of the file.
pub const FILE: &str = "broker.yaml";

/// What a broker takes of its container's memory, in percent: the rest is for the kernel's page tables, threads and a little
/// beyond the broker's own bounds.
const MEMORY_PERCENT: u64 = 80;
/// Least and most memory that a broker takes for its limit.
const MEMORY_BOUNDS: (u64, u64) = (256 << 20, 1 << 40);

pub(super) fn build(cluster: &Validated) -> Child {
    let name = labels::config(&cluster.key.name);
    let rest = json!({ "data": { FILE: cluster.config } });
    Child::new(ChildKind::ConfigMap, &cluster.key.namespace, &name, labels::metadata(cluster), rest)
}

/// The brokers' configuration file.
pub fn broker_yaml(key: &ClusterKey, spec: &ClusterSpec) -> String {
    let failover = &spec.failover;
    let listen: Vec<_> =
        spec.listeners().iter().map(|listener| format!("\"grpc://0.0.0.0:{}\"", listener.port)).collect();
    let mut lines = vec![
        "data-dir: /var/lib/taffrail/data".to_owned(),
        format!("listen: [{}]", listen.join(", ")),
        format!("internal-listen: \"0.0.0.0:{INTERNAL_PORT}\""),
        format!("admin-listen: \"0.0.0.0:{ADMIN_PORT}\""),
        "allow-anonymous: true".to_owned(),
        format!("cluster: {}", key.name),
        format!("namespace: {}", key.namespace),
        format!("session-timeout: {}", failover.session_timeout()),
        format!("lease-duration: {}", failover.lease_duration()),
        format!("renew-deadline: {}", failover.renew_deadline()),
        format!("retry-period: {}", failover.retry_period()),
        "log-format: json".to_owned(),
    ];
    if let Some(limit) = spec.pod.resources.limits.memory.map(memory_limit) {
        lines.push(format!("memory-limit: {limit}KiB"));
    }
    lines.join("\n") + "\n"
}

/// The broker's limit below its container's, in KiB.
fn memory_limit(container: Size) -> u64 {
    let (least, most) = MEMORY_BOUNDS;
    (container.as_bytes() / 100 * MEMORY_PERCENT).clamp(least, most) >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_keeps_below_its_containers_memory() {
        for (container, expected) in [("2Gi", 1_677_721), ("100Mi", 256 << 10), ("1Pi", 1 << 30)] {
            assert_eq!(memory_limit(container.parse().unwrap()), expected, "{container}");
        }
    }
}
