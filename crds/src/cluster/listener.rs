//! Where clients connect.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A port on which every broker serves clients. One address is enough for a client: any broker forwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Name of the listener: letters a-z, digits and '-', at most 15; "internal" and "admin" are the brokers' own.
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("!(self in ['internal', 'admin'])").message("internal and admin are the brokers' own listeners: choose another name"))]
    pub name: String,

    /// Port, from 1024 to 65535, other than 9093 (between brokers) and 9095 (probes and metrics).
    #[schemars(range(min = 1024, max = 65535))]
    #[x_kube(validation = Rule::new("self != 9093 && self != 9095").message("ports 9093 and 9095 are the brokers' own: choose another"))]
    pub port: i32,

    /// What is spoken there. Default: grpc.
    #[serde(default)]
    pub protocol: Protocol,

    /// How it is reached from outside of the Kubernetes cluster. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
}

impl Default for Listener {
    fn default() -> Self {
        Self { name: "grpc".to_owned(), port: 9094, protocol: Protocol::Grpc, expose: None }
    }
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Taffrail's own protocol, on gRPC.
    #[default]
    Grpc,
}

/// How a listener is reached from outside of the Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Type of the Service.
    #[serde(rename = "type")]
    pub type_: ExposeType,
    /// Annotations of the Service, which controllers of load balancers read. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = { "type": "string", "maxLength": 4096 }))]
    pub annotations: BTreeMap<String, String>,
}

/// Type of the Service that exposes a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeType {
    /// A port on every node.
    NodePort,
    /// One address of the provider's load balancer.
    LoadBalancer,
}
