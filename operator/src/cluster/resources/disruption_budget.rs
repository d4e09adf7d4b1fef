//! PodDisruptionBudget: how many brokers may be away by somebody's will, such as a drain of nodes.

use serde_json::json;

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

pub(super) fn build(cluster: &Validated, fragile: bool) -> Child {
    let key = &cluster.key;
    let spec = json!({
        "maxUnavailable": i32::from(!fragile),
        "selector": { "matchLabels": labels::selector(&key.name) },
    });
    let (metadata, rest) = (labels::metadata(cluster), json!({ "spec": spec }));
    Child::new(ChildKind::PodDisruptionBudget, &key.namespace, &key.name, metadata, rest)
}
