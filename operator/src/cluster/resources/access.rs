//! ServiceAccount, Roles and RoleBindings: who the brokers are and what they may do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

/// In the Cluster's namespace, and for Topics in the others.
pub(super) fn build(cluster: &Validated, others: &BTreeSet<String>) -> Vec<Child> {
    let (namespace, name) = (&cluster.key.namespace, labels::access(&cluster.key.name));
    let own = || labels::metadata(cluster);
    let account = json!({ "automountServiceAccountToken": true });
    let mut children = vec![
        Child::new(ChildKind::ServiceAccount, namespace, &name, own(), account),
        Child::new(ChildKind::Role, namespace, &name, own(), json!({ "rules": own_rules() })),
        Child::new(ChildKind::RoleBinding, namespace, &name, own(), binding(cluster, &name)),
    ];
    for other in others {
        let name = labels::foreign_access(namespace, &cluster.key.name);
        let metadata = || {
            let mut labels = labels::labels(&cluster.key.name);
            labels.insert(labels::CLUSTER_NAMESPACE.to_owned(), namespace.clone());
            // No owner reference: those hold inside a namespace only.
            json!({ "labels": labels })
        };
        let rules = json!({ "rules": [topics(), events()] });
        children.push(Child::new(ChildKind::Role, other, &name, metadata(), rules));
        children.push(Child::new(ChildKind::RoleBinding, other, &name, metadata(), binding(cluster, &name)));
    }
    children
}

fn binding(cluster: &Validated, role: &str) -> Value {
    json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role },
        "subjects": [{
            "kind": "ServiceAccount",
            "name": labels::access(&cluster.key.name),
            "namespace": cluster.key.namespace,
        }],
    })
}

fn own_rules() -> Value {
    json!([
        // What the Cluster is to be like: defaults of topics, namespaces of Topics.
        { "apiGroups": ["taffrail.dev"], "resources": ["clusters"], "verbs": ["get", "list", "watch"] },
        topics(),
        // What brokers agree on among themselves.
        {
            "apiGroups": ["taffrail.dev"],
            "resources": ["partitionslices", "clusterstates", "brokers"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        },
        // Which broker acts as controller.
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
        },
        events(),
    ])
}

/// Admin calls make, change and delete Topics in the caller's name.
fn topics() -> Value {
    json!({
        "apiGroups": ["taffrail.dev"],
        "resources": ["topics"],
        "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
    })
}

fn events() -> Value {
    json!({ "apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"] })
}
