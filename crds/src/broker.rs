//! `Broker`: a broker's registration, named `<cluster>-<id>`.
//!
//! Each broker writes its own when it starts and stops; the controller writes `fenced`. How it does from second to second
//! is not here: heartbeats never go to the Kubernetes API.

// The derive of KubeSchema repeats the structs where nothing reaches them.
#![allow(unreachable_pub)]

use std::net::Ipv6Addr;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Id;

/// A broker's registration. Written by the broker itself, and by the controller when it fences it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "taffrail.dev",
    version = "v1alpha1",
    kind = "Broker",
    namespaced,
    shortname = "tfb",
    category = "taffrail",
    derive = "PartialEq",
    doc = "A broker's registration. Written by the broker itself, and by the controller when it fences it.",
    validation = Rule::new("self.metadata.name.startsWith(self.spec.clusterName + '-') && self.metadata.name.matches('-(0|[1-9][0-9]{0,9})$') && int(self.metadata.name.substring(size(self.spec.clusterName) + 1)) == self.spec.id")
        .message("metadata.name is the cluster's name, '-' and the broker's number"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterName"),
    printcolumn(name = "ID", type_ = "integer", json_path = ".spec.id"),
    printcolumn(name = "Zone", type_ = "string", json_path = ".spec.zone"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Fenced", type_ = "boolean", json_path = ".spec.fenced"),
    printcolumn(name = "Incarnation", type_ = "integer", json_path = ".spec.incarnation", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.incarnation >= oldSelf.incarnation")
        .message("incarnation cannot fall: a later session of this broker has registered")
        .field_path(".incarnation"),
    validation = Rule::new("self.incarnation > oldSelf.incarnation || (self.storageId == oldSelf.storageId && self.bootId == oldSelf.bootId)")
        .message("another volume or another boot is another session: it needs a higher incarnation")
        .field_path(".storageId"),
    validation = Rule::new("!has(self.continues) || self.continues < self.incarnation")
        .message("a session continues an earlier one: continues is lower than incarnation")
        .field_path(".continues")
)]
pub struct BrokerSpec {
    /// The Cluster it belongs to, in the same namespace. It cannot change, since the object is
    /// named after it.
    #[schemars(length(min = 1, max = 40))]
    pub cluster_name: String,

    /// Number of the broker, which is its pod's. It cannot change, since the object is named after it.
    #[schemars(range(min = 0, max = i32::MAX))]
    pub id: i32,

    /// Number of this session of the broker, from start to end, unique for the life of the cluster. It never falls.
    #[schemars(range(min = 0))]
    pub incarnation: i64,

    /// The earliest incarnation since which nothing was lost: each session from it on ended in good order, or the machine's
    /// page cache outlived it. Not set: not proven, so that the broker's replicas count as behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub continues: Option<i64>,

    /// Identity of the volume, a UUID written when it was first used. Another one: the volume was lost or swapped.
    pub storage_id: Id,

    /// The kernel's boot id: while it is the same, what a crashed broker had written is still there.
    pub boot_id: Id,

    /// Zone of the node it runs on. Not set: its node has no zone label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,

    /// Where it is reached, by listener; "internal" is the one for brokers. At most 16.
    #[schemars(length(min = 1, max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["listener"]))]
    pub endpoints: Vec<Endpoint>,

    /// Version of the program, such as 0.1.0.
    #[schemars(length(min = 1, max = 64))]
    pub version: String,

    /// Highest level of features that it has.
    #[schemars(range(min = 1, max = i32::MAX))]
    pub feature_level: i32,

    /// The controller has taken its partitions away, because it is silent or about to stop: it neither leads nor is in sync.
    #[serde(default)]
    pub fenced: bool,
}

/// Where a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Name of the listener.
    #[schemars(length(min = 1, max = 15))]
    pub listener: String,
    /// Host name or IP address.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port, from 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

impl Endpoint {
    /// `host:port`, as it stands in a URI: IPv6 addresses have brackets there.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_as_in_a_uri() {
        for (host, expected) in [
            ("main-1.main-brokers.shop.svc", "main-1.main-brokers.shop.svc:9093"),
            ("10.0.0.7", "10.0.0.7:9093"),
            ("fd00::7", "[fd00::7]:9093"),
        ] {
            let endpoint = Endpoint { listener: "internal".to_owned(), host: host.to_owned(), port: 9093 };
            assert_eq!(endpoint.authority(), expected);
        }
    }
}
