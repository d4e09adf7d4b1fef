//! Services: the brokers' own names, one address for clients, and what is reached from outside.

use serde_json::{Value, json};
use taffrail_crds::cluster::{ADMIN_PORT, ExposeType, INTERNAL_PORT, Listener};

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

pub(super) fn build(cluster: &Validated) -> Vec<Child> {
    let listeners = cluster.spec.listeners();
    let exposed = listeners.iter().filter(|listener| listener.expose.is_some());
    let mut services = vec![headless(cluster, &listeners), bootstrap(cluster, &listeners)];
    services.extend(exposed.map(|listener| outside(cluster, listener)));
    services
}

/// A name for each broker. Brokers find each other before they are ready.
fn headless(cluster: &Validated, listeners: &[Listener]) -> Child {
    let mut ports = vec![port("internal", INTERNAL_PORT), port("admin", ADMIN_PORT)];
    ports.extend(listeners.iter().map(|listener| port(&listener.name, listener.port)));
    let spec = json!({ "clusterIP": "None", "publishNotReadyAddresses": true, "ports": ports });
    service(cluster, &labels::headless(&cluster.key.name), labels::metadata(cluster), spec)
}

/// One address for clients: any broker forwards.
fn bootstrap(cluster: &Validated, listeners: &[Listener]) -> Child {
    let ports: Vec<_> = listeners.iter().map(|listener| port(&listener.name, listener.port)).collect();
    let spec = json!({ "type": "ClusterIP", "ports": ports });
    service(cluster, &labels::bootstrap(&cluster.key.name), labels::metadata(cluster), spec)
}

fn outside(cluster: &Validated, listener: &Listener) -> Child {
    let expose = listener.expose.as_ref();
    let type_ = match expose.map(|expose| expose.type_) {
        Some(ExposeType::LoadBalancer) => "LoadBalancer",
        _ => "NodePort",
    };
    let mut metadata = labels::metadata(cluster);
    if let Some(annotations) = expose.map(|expose| &expose.annotations).filter(|all| !all.is_empty()) {
        metadata["annotations"] = json!(annotations);
    }
    let spec = json!({ "type": type_, "ports": [port(&listener.name, listener.port)] });
    service(cluster, &labels::exposed(&cluster.key.name, &listener.name), metadata, spec)
}

fn service(cluster: &Validated, name: &str, metadata: Value, mut spec: Value) -> Child {
    spec["selector"] = json!(labels::selector(&cluster.key.name));
    Child::new(ChildKind::Service, &cluster.key.namespace, name, metadata, json!({ "spec": spec }))
}

fn port(name: &str, port: i32) -> Value {
    json!({ "name": name, "port": port, "targetPort": name, "protocol": "TCP" })
}
