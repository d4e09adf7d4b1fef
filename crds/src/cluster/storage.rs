//! The volume of each broker.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::size::Size;

/// The volume of each broker: one PersistentVolumeClaim, kept when a broker or its pod goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storageClassName cannot change: make a new Cluster and copy")
        .field_path(".storageClassName")
)]
pub struct Storage {
    /// Size of each broker's volume: a size such as 100Gi, at least 1Gi. It can rise where the storage class allows it, and
    /// never falls.
    #[x_kube(
        validation = Rule::new("!quantity(string(self)).isLessThan(quantity('1Gi'))").message("storage.size is 1Gi at least"),
        validation = Rule::new("!quantity(string(self)).isLessThan(quantity(string(oldSelf)))")
            .message("storage cannot shrink: Kubernetes has no smaller volumes; make a new Cluster and copy")
    )]
    pub size: Size,

    /// Storage class of the volumes. It cannot change. Default: the default class of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// What becomes of the volumes when the Cluster object is deleted. Default: Retain.
    #[serde(default)]
    pub when_deleted: ClaimPolicy,

    /// What becomes of a broker's volume when the number of brokers is lowered, after its partitions have moved. Default:
    /// Retain.
    #[serde(default)]
    pub when_scaled: ClaimPolicy,
}

/// What becomes of a volume that is no longer used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimPolicy {
    /// It stays, with its data, until somebody deletes the claim.
    #[default]
    Retain,
    /// It is deleted, with its data.
    Delete,
}
