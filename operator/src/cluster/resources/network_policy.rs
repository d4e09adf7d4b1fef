//! NetworkPolicy: clients reach the listeners, brokers each other. What brokers open themselves is not restricted: the
//! address of the API server differs from cluster to cluster.

use serde_json::{Value, json};
use taffrail_crds::cluster::{ADMIN_PORT, INTERNAL_PORT};

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

pub(super) fn build(cluster: &Validated) -> Child {
    let key = &cluster.key;
    let brokers = json!({ "matchLabels": labels::selector(&key.name) });
    // Probes come from the node, and metrics are read from other namespaces.
    let mut open = vec![port(ADMIN_PORT)];
    open.extend(cluster.spec.listeners().iter().map(|listener| port(listener.port)));
    let spec = json!({
        "podSelector": brokers,
        "policyTypes": ["Ingress"],
        "ingress": [
            { "ports": open },
            { "ports": [port(INTERNAL_PORT)], "from": [{ "podSelector": brokers }] },
        ],
    });
    let (metadata, rest) = (labels::metadata(cluster), json!({ "spec": spec }));
    Child::new(ChildKind::NetworkPolicy, &key.namespace, &key.name, metadata, rest)
}

fn port(port: i32) -> Value {
    json!({ "port": port, "protocol": "TCP" })
}
