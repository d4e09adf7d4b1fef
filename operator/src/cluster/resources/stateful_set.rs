//! StatefulSet: the brokers.
//!
//! Parallel, since brokers need no order; OnDelete, since the operator restarts them one by one when their partitions allow
//! it ([`crate::cluster::rollout`]). Pods fulfil the Restricted policy. What is in the pod template is what restarts brokers
//! when it changes, also when another operator builds it: so it changes rarely and on purpose.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use taffrail_crds::cluster::{ADMIN_PORT, ClaimPolicy, INTERNAL_PORT, ResourceAmounts};

use super::config_map::FILE;
use crate::apply::{Child, ChildKind};
use crate::cluster::labels;
use crate::cluster::validate::Validated;

/// User and group of the image's processes.
const USER: i64 = 65_532;
/// A broker finishes what is under way for 20 s, and closes its storage.
const GRACE_SECONDS: i64 = 60;

pub(super) fn build(cluster: &Validated) -> Child {
    let (key, storage) = (&cluster.key, &cluster.spec.storage);
    let policy = |policy: ClaimPolicy| json!(policy);
    let spec = json!({
        "replicas": cluster.replicas,
        "serviceName": labels::headless(&key.name),
        "podManagementPolicy": "Parallel",
        "updateStrategy": { "type": "OnDelete" },
        "persistentVolumeClaimRetentionPolicy": {
            "whenDeleted": policy(storage.when_deleted),
            "whenScaled": policy(storage.when_scaled),
        },
        "selector": { "matchLabels": labels::selector(&key.name) },
        "template": { "metadata": pod_metadata(cluster), "spec": pod_spec(cluster) },
        "volumeClaimTemplates": [{
            "metadata": { "name": "data", "labels": labels::labels(&key.name) },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": storage.storage_class_name,
                "resources": { "requests": { "storage": cluster.claim_size.to_string() } },
            },
        }],
    });
    let mut metadata = labels::metadata(cluster);
    metadata["annotations"] = json!({ labels::VERSION: cluster.version });
    Child::new(ChildKind::StatefulSet, &key.namespace, &key.name, metadata, json!({ "spec": spec }))
}

fn pod_metadata(cluster: &Validated) -> Value {
    let mut annotations = cluster.spec.pod.annotations.clone();
    annotations.insert(labels::CONFIG_HASH.to_owned(), cluster.config_hash.clone());
    annotations.insert(labels::VERSION.to_owned(), cluster.version.clone());
    json!({ "labels": labels::labels(&cluster.key.name), "annotations": annotations })
}

fn pod_spec(cluster: &Validated) -> Value {
    let (key, pod) = (&cluster.key, &cluster.spec.pod);
    let secrets: Vec<_> = cluster.spec.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
    let some = |list: Vec<Value>| (!list.is_empty()).then_some(list);
    json!({
        "serviceAccountName": labels::access(&key.name),
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "imagePullSecrets": some(secrets),
        "priorityClassName": pod.priority_class_name,
        "nodeSelector": (!pod.node_selector.is_empty()).then_some(&pod.node_selector),
        "tolerations": some(pod.tolerations.iter().map(|toleration| json!(toleration)).collect()),
        "affinity": affinity(cluster),
        "topologySpreadConstraints": [{
            "topologyKey": cluster.spec.zone_label(),
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": labels::selector(&key.name) },
        }],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            // Changing the owner of a large volume's files at each start takes minutes.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container(cluster)],
        "volumes": [{
            "name": "config",
            "projected": { "sources": [
                { "configMap": { "name": labels::config(&key.name), "items": [{ "key": FILE, "path": FILE }] } },
                { "downwardAPI": { "items": [{
                    "path": "pod/zone",
                    "fieldRef": { "fieldPath": format!("metadata.annotations['{}']", labels::ZONE) },
                }] } },
            ] },
        }],
    })
}

fn container(cluster: &Validated) -> Value {
    let probe = |path: &str, period: i32, failures: i32| {
        json!({
            "httpGet": { "path": path, "port": "admin" },
            "periodSeconds": period,
            "timeoutSeconds": 3,
            "failureThreshold": failures,
        })
    };
    let port = |name: &str, port: i32| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let mut ports = vec![port("internal", INTERNAL_PORT), port("admin", ADMIN_PORT)];
    ports.extend(cluster.spec.listeners().iter().map(|listener| port(&listener.name, listener.port)));
    json!({
        "name": "broker",
        "image": cluster.image,
        "args": ["cluster"],
        "env": environment(cluster),
        "ports": ports,
        "resources": resources(cluster),
        "livenessProbe": probe("/livez", 10, 6),
        "readinessProbe": probe("/readyz", 2, 3),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "data", "mountPath": "/var/lib/taffrail" },
            { "name": "config", "mountPath": "/etc/taffrail", "readOnly": true },
        ],
    })
}

/// Ours, and the user's behind them; one of the same name is the user's.
fn environment(cluster: &Validated) -> Vec<Value> {
    let key = &cluster.key;
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let host = format!("$(POD_NAME).{}.{}.svc", labels::headless(&key.name), key.namespace);
    let ours = [
        ("POD_NAME", json!({ "valueFrom": field("metadata.name") })),
        ("TAFFRAIL_CONFIG", json!({ "value": format!("/etc/taffrail/{FILE}") })),
        ("TAFFRAIL_BROKER_ID", json!({ "valueFrom": field("metadata.labels['apps.kubernetes.io/pod-index']") })),
        ("TAFFRAIL_ADVERTISE_HOST", json!({ "value": host })),
        // A name leads to the pod before for as long as it is cached: acknowledgements do not wait for that.
        ("TAFFRAIL_INTERNAL_HOST", json!({ "valueFrom": field("status.podIP") })),
        ("TAFFRAIL_ZONE_FILE", json!({ "value": "/etc/taffrail/pod/zone" })),
    ];
    let users = &cluster.spec.pod.env;
    let ours = ours.into_iter().filter(|(name, _)| users.iter().all(|variable| variable.name != *name));
    let ours = ours.map(|(name, mut rest)| {
        rest["name"] = name.into();
        rest
    });
    ours.chain(users.iter().map(|variable| json!(variable))).collect()
}

fn resources(cluster: &Validated) -> Option<Value> {
    let resources = &cluster.spec.pod.resources;
    let amounts = |amounts: &ResourceAmounts| {
        let cpu = amounts.cpu.map(|cpu| ("cpu", cpu.to_string()));
        let memory = amounts.memory.map(|memory| ("memory", memory.to_string()));
        let amounts: BTreeMap<_, _> = cpu.into_iter().chain(memory).collect();
        (!amounts.is_empty()).then_some(amounts)
    };
    let (requests, limits) = (amounts(&resources.requests), amounts(&resources.limits));
    (requests.is_some() || limits.is_some()).then(|| json!({ "requests": requests, "limits": limits }))
}

/// As the user says; brokers had better run on different nodes unless he says something about pods too.
fn affinity(cluster: &Validated) -> Value {
    let users = cluster.spec.pod.affinity.clone().unwrap_or_default();
    let mut affinity = serde_json::to_value(users).unwrap_or_default();
    let apart = json!({ "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": labels::selector(&cluster.key.name) },
        },
    }] });
    if let Some(fields) = affinity.as_object_mut() {
        fields.entry("podAntiAffinity").or_insert(apart);
    } else {
        affinity = Value::Object(Map::from_iter([("podAntiAffinity".to_owned(), apart)]));
    }
    affinity
}
