//! Golden plans: `tests/golden/plan/NAME.yaml` holds a Cluster as it is there, the change, and what its brokers hold;
//! `NAME.expected.txt` the plan for people and for programs. `UPDATE=1` writes the latter anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use taffrail_crds::PartitionSlice;

use super::*;
use crate::cluster::fetch::Asked;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// `None`: the Cluster is new.
    live: Option<Cluster>,
    change: Cluster,
    /// Partitions by topic, `012/01` each: replicas, and those in sync if not all are.
    #[serde(default)]
    topics: BTreeMap<String, Vec<String>>,
    /// Topics that say themselves how many replicas they have.
    #[serde(default)]
    own_replicas: BTreeMap<String, i32>,
    /// Brokers that do not serve.
    #[serde(default)]
    unready: Vec<i32>,
    /// Volumes may grow.
    #[serde(default)]
    expandable: bool,
}

fn settings() -> Settings {
    Settings { broker_image: "registry.test/broker".to_owned(), service_monitors: false }
}

fn slice(place: usize, topic: &str, partitions: &[String]) -> PartitionSlice {
    let partition = |(index, text): (usize, &String)| {
        let (replicas, in_sync) = text.split_once('/').unwrap_or((text, text));
        let digits = |text: &str| text.chars().map(|digit| digit.to_digit(10).unwrap()).collect::<Vec<_>>();
        let isr: Vec<_> = digits(in_sync).iter().map(|broker| json!({"broker": broker, "incarnation": 1})).collect();
        let count = replicas.len();
        json!({
            "index": index, "replicas": digits(replicas), "leader": digits(in_sync)[0], "leaderEpoch": 1, "partitionEpoch": 1,
            "isr": isr, "minInSyncReplicas": if count > 2 { 2 } else { 1 }, "replicationFactor": count,
        })
    };
    let spec = json!({
        "clusterName": "main", "topicId": id(place), "topicName": topic, "firstIndex": 0, "controllerEpoch": 1, "operationId": 1,
        "partitions": partitions.iter().enumerate().map(partition).collect::<Vec<_>>(),
    });
    PartitionSlice::new("x", serde_json::from_value(spec).unwrap())
}

fn id(place: usize) -> String {
    format!("3f2a8c1e-0000-4000-8000-{place:012}")
}

/// The Cluster as the operator would have made it, with all its brokers on its template.
fn live(case: &Case) -> Live {
    let Some(cluster) = &case.live else { return Live::default() };
    let topics = || case.topics.iter().enumerate();
    let validated = validate(cluster, &Fetched::default(), &settings()).unwrap();
    let children = children(&validated, &Fetched::default());
    let mut set = children[&(ChildKind::StatefulSet, "shop/main".to_owned())].object.clone();
    set["metadata"]["generation"] = 1.into();
    set["status"] = json!({"replicas": validated.replicas, "observedGeneration": 1, "updateRevision": "r"});
    let pod = |number: i32| -> Arc<k8s_openapi::api::core::v1::Pod> {
        let serves = if case.unready.contains(&number) { "False" } else { "True" };
        let metadata = json!({"name": format!("main-{number}"), "labels": {"controller-revision-hash": "r"}});
        let status = json!({"conditions": [{"type": "Ready", "status": serves}]});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
    };
    let claim = |number: i32| -> Value {
        let spec = json!({"resources": {"requests": {"storage": cluster.spec.storage.size.to_string()}}});
        json!({"metadata": {"name": format!("data-main-{number}")}, "spec": spec})
    };
    let broker = |number: i32| {
        json!({
            "clusterName": "main", "id": number, "incarnation": 1, "storageId": id(1), "bootId": id(1), "version": "1",
            "featureLevel": 1, "endpoints": [{"listener": "internal", "host": "h", "port": 1}], "zone": format!("z{}", number % 2),
        })
    };
    let numbers = || 0..validated.replicas;
    let class = json!({"metadata": {"name": "c"}, "provisioner": "x", "allowVolumeExpansion": case.expandable});
    let asked = |(place, (name, _)): (usize, (&String, &Vec<String>))| {
        (id(place), Asked { replication_factor: case.own_replicas.get(name).copied(), ..Asked::default() })
    };
    let fetched = Fetched {
        set: serde_json::from_value(set).ok(),
        pods: numbers().map(pod).collect(),
        claims: numbers().map(|number| serde_json::from_value(claim(number)).unwrap()).collect(),
        class: serde_json::from_value(class).ok(),
        slices: topics().map(|(place, (name, partitions))| slice(place, name, partitions)).collect(),
        topics: topics().map(asked).collect(),
        brokers: numbers().map(|number| serde_json::from_value(broker(number)).unwrap()).collect(),
        budget: serde_json::from_value(json!({"spec": {"maxUnavailable": 1}})).ok(),
        ..Fetched::default()
    };
    Live { cluster: Some(cluster.clone()), fetched }
}

fn check(name: &str) -> Plan {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan");
    let case: Case =
        serde_yaml::from_str(&std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap()).unwrap();
    let found = plan(&case.change, &live(&case), &settings());
    let text = format!("{found}\n{}\n", serde_json::to_string_pretty(&found).unwrap());
    let file = folder.join(format!("{name}.expected.txt"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(text == expected, "{} differs; UPDATE=1 writes it anew:\n{text}", file.display());
    found
}

#[test]
fn a_change_that_reaches_pods_restarts_them_and_says_since_what() {
    let plan = check("restart");
    let order: Vec<_> = plan.restarts.iter().map(|restart| restart.broker).collect();
    assert_eq!(order, [2, 0, 1], "one that does not serve is first");
    assert!(plan.restarts.iter().any(|restart| restart.waits.is_some()), "a partition needs it now");
}

#[test]
fn what_brokers_follow_by_themselves_restarts_nobody() {
    let plan = check("live-settings");
    assert_eq!((plan.restarts.len(), plan.rebalanced.len()), (0, 1));
}

#[test]
fn fewer_brokers_are_drained_the_highest_first() {
    let plan = check("scale-down");
    let drained: Vec<_> = plan.drained.iter().map(|moved| (moved.broker, moved.replicas)).collect();
    assert_eq!((drained, plan.refused.len()), (vec![(4, 2), (3, 1)], 0));
}

#[test]
fn a_drain_that_could_not_end_is_refused_before_it_begins() {
    assert_eq!(check("stuck").refused[0].reason, "TooFewBrokersStay");
}

#[test]
fn what_the_api_server_would_refuse_is_all_that_is_said() {
    let plan = check("refused");
    assert_eq!((plan.refused[0].reason.as_str(), plan.objects.len()), ("NotAdmitted", 0));
}

#[test]
fn volumes_grow_and_brokers_are_added() {
    let plan = check("grow");
    assert_eq!((plan.grown.len(), plan.added.as_slice(), plan.restarts.len()), (2, [2].as_slice(), 0));
}

#[test]
fn a_new_cluster_is_made_of_all_its_objects() {
    let plan = check("new");
    assert!(plan.new && plan.objects.len() > 5 && plan.restarts.is_empty());
}

#[test]
fn the_same_again_is_nothing() {
    assert!(check("nothing").is_nothing());
}

#[test]
fn the_image_that_the_operator_uses_is_seen_by_what_it_made() {
    let cluster = json!({"metadata": {"name": "main", "namespace": "shop"}, "spec": {"storage": {"size": "10Gi"}}});
    let live = |cluster: Value| {
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        let case = Case {
            change: cluster.clone(),
            live: Some(cluster),
            topics: BTreeMap::new(),
            own_replicas: BTreeMap::new(),
            unready: vec![],
            expandable: false,
        };
        live(&case)
    };
    assert_eq!(super::settings(&live(cluster.clone()), "other").broker_image, "registry.test/broker");
    assert_eq!(super::settings(&Live::default(), "other").broker_image, "other");
    let mut own = cluster;
    own["spec"]["image"] = "mine:7".into();
    assert_eq!(super::settings(&live(own), "other").broker_image, "other");
}
