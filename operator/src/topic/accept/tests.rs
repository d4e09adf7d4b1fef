#![allow(clippy::needless_pass_by_value, clippy::large_stack_arrays)]
use super::*;
use serde_json::{Value, json};

fn topic(name: &str, more: Value) -> Topic {
    let mut object = json!({
        "apiVersion": "taffrail.dev/v1alpha1", "kind": "Topic",
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"clusterRef": {"name": "main"}, "partitions": 4},
    });
    merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match from {
        Value::Object(fields) => fields.into_iter().for_each(|(name, value)| merge(&mut into[name.as_str()], value)),
        other => *into = other,
    }
}

fn served(id: &str) -> Value {
    let accepted = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({"status": {"topicId": id, "conditions": [accepted]}})
}

fn around() -> Surroundings {
    let spec = json!({"storage": {"size": "1Gi"}, "allowedTopicNamespaces": ["shop"]});
    let cluster = json!({"metadata": {"name": "main", "namespace": "ns"}, "spec": spec});
    Surroundings { cluster: Some(serde_json::from_value(cluster).unwrap()), ..Surroundings::default() }
}

const ID: &str = "3f2a8c1e-0000-4000-8000-00000000abcd";

fn names(name: &str) -> BTreeMap<Id, String> {
    BTreeMap::from([(Id(ID.parse().unwrap()), name.to_owned())])
}

fn slices(partitions: i32) -> Vec<PartitionSlice> {
    let partition = |index: i32| {
        json!({
            "index": index, "replicas": [0], "leaderEpoch": 1, "partitionEpoch": 1, "isr": [],
            "minInSyncReplicas": 1, "replicationFactor": 1,
        })
    };
    let spec = json!({
        "clusterName": "main", "topicId": ID, "topicName": "t", "firstIndex": 0, "controllerEpoch": 1, "operationId": 1,
        "partitions": (0..partitions).map(partition).collect::<Vec<_>>(),
    });
    vec![PartitionSlice::new("x", serde_json::from_value(spec).unwrap())]
}

/// `new`, the id, or why not; behind `/` why the newest change is not.
fn told(topic: &Topic, around: &Surroundings) -> String {
    let verdict = judge(topic, around);
    let refused = verdict.refused.map(|refusal| refusal.reason);
    match (verdict.accepted, refused) {
        (Some(Identity::New), None) => "new".to_owned(),
        (Some(Identity::Known(id)), None) => id,
        (Some(_), Some(reason)) => format!("served/{reason}"),
        (None, reason) => reason.unwrap_or("nothing").to_owned(),
    }
}

#[test]
fn a_topic_is_accepted_where_it_may_be_under_a_name_that_is_free() {
    let plain = || topic("t", json!({}));
    let named = |name: &str| topic("t", json!({"spec": {"topicName": name}}));
    let elsewhere = |namespace: &str| {
        topic("t", json!({"metadata": {"namespace": namespace}, "spec": {"clusterRef": {"namespace": "ns"}}}))
    };
    let rival = |more: Value| Surroundings { rivals: vec![topic("rival", more)], ..around() };
    let created = |time: &str| rival(json!({"metadata": {"creationTimestamp": time}}));
    let nobody = Surroundings::default;
    for (what, topic, around, expected) in [
        ("all is right", plain(), around(), "new"),
        ("no Cluster is named", topic("t", json!({"spec": {"clusterRef": null}})), around(), "ClusterNotNamed"),
        ("the Cluster is not there", plain(), nobody(), "ClusterNotFound"),
        ("the namespace is allowed", elsewhere("shop"), around(), "new"),
        ("the namespace is not allowed", elsewhere("other"), around(), "NamespaceNotAllowed"),
        ("an internal name", named("__mine"), around(), "InvalidName"),
        ("an older one by that name", plain(), created("2025-01-01T00:00:00Z"), "NameTaken"),
        ("a younger one by that name", plain(), created("2026-01-02T00:00:00Z"), "new"),
        ("of the same age, with a lower uid", plain(), created("2026-01-01T00:00:00Z"), "NameTaken"),
        ("of the same age, with a higher uid", plain(), rival(json!({"metadata": {"uid": "z"}})), "new"),
        (
            "a younger one that is served",
            plain(),
            {
                let mut more = served(ID);
                merge(&mut more, json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}));
                rival(more)
            },
            "NameTaken",
        ),
        (
            "an older one in a namespace that is not allowed",
            plain(),
            rival(json!({"metadata": {"creationTimestamp": "2025-01-01T00:00:00Z", "namespace": "other"}})),
            "new",
        ),
    ] {
        assert_eq!(told(&topic, &around), expected, "{what}");
    }
}

#[test]
fn an_identity_is_kept_and_taken_over_only_from_a_topic_that_is_known_and_free() {
    let adopts = || topic("t", json!({"metadata": {"annotations": {"taffrail.dev/adopt": ID}}}));
    let known = |name: &str| Surroundings { names: names(name), ..around() };
    let used = || Surroundings { users: vec![topic("user", served(ID))], ..known("t") };
    let younger = |id: &str| {
        let mut more = served(id);
        merge(&mut more, json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}));
        more
    };
    for (what, topic, around, expected) in [
        ("it has one", topic("t", served(ID)), around(), ID),
        (
            "it has one, whatever it adopts",
            {
                let mut more = served(ID);
                merge(&mut more, json!({"metadata": {"annotations": {"taffrail.dev/adopt": "x"}}}));
                topic("t", more)
            },
            around(),
            ID,
        ),
        ("it adopts a known one", adopts(), known("t"), ID),
        ("it adopts an unknown one", adopts(), around(), "AdoptUnknown"),
        ("it adopts one of another name", adopts(), known("other"), "AdoptOtherName"),
        ("it adopts one that is used", adopts(), used(), "AdoptInUse"),
        ("its status was copied from an older one", topic("t", younger(ID)), used(), "AdoptInUse"),
    ] {
        assert_eq!(told(&topic, &around), expected, "{what}");
    }
}

#[test]
fn partitions_do_not_fall() {
    let with = |partitions| Surroundings { slices: slices(partitions), names: names("t"), ..around() };
    let adopts = topic("t", json!({"metadata": {"annotations": {"taffrail.dev/adopt": ID}}}));
    assert_eq!(told(&adopts, &with(4)), ID);
    assert_eq!(told(&adopts, &with(5)), "PartitionsCannotFall", "it is not accepted at all");
    let served = topic("t", served(ID));
    assert_eq!(told(&served, &with(5)), "served/PartitionsCannotFall", "it is served as it was");
}

#[test]
fn what_the_brokers_cannot_hold_is_refused_and_what_they_hold_is_kept() {
    let asks = |replicas: i32| json!({"spec": {"replicationFactor": replicas}});
    let of = |brokers: i32| {
        let mut around = around();
        around.cluster.as_mut().unwrap().spec.replicas = brokers;
        around
    };
    let held = |brokers: i32, replicas: i32| {
        let mut slices = slices(4);
        slices[0].spec.partitions.iter_mut().for_each(|partition| partition.replication_factor = replicas);
        Surroundings { slices, ..of(brokers) }
    };
    let least =
        |more: Value| topic("t", json!({"spec": {"config": {"minInSyncReplicas": 2}, "replicationFactor": more}}));
    let with_id = |more: Value| {
        let mut all = served(ID);
        merge(&mut all, more);
        topic("t", all)
    };
    for (what, topic, around, expected) in [
        ("as many as there are brokers", topic("t", asks(3)), of(3), "new"),
        ("more than there are brokers", topic("t", asks(4)), of(3), "TooFewBrokers"),
        ("it is raised beyond them", with_id(asks(5)), held(3, 3), "served/TooFewBrokers"),
        ("there were more brokers", with_id(asks(3)), held(2, 3), ID),
        ("it says nothing", topic("t", json!({})), of(1), "new"),
        ("a min ISR of what the Cluster gives", least(Value::Null), of(2), "new"),
        ("a min ISR above it", least(Value::Null), of(1), "MinInSyncReplicasTooHigh"),
    ] {
        assert_eq!(told(&topic, &around), expected, "{what}");
    }
    let message = judge(&topic("t", asks(4)), &of(3)).refused.unwrap().message;
    assert!(
        message.starts_with("4 replicas of each partition need 4 brokers, and the Cluster main has 3"),
        "{message}"
    );
}

#[test]
fn a_topic_has_the_replicas_of_its_cluster_unless_it_says_otherwise() {
    assert_eq!(judge(&topic("t", json!({})), &around()).replicas, 3);
    assert_eq!(judge(&topic("t", json!({"spec": {"replicationFactor": 1}})), &around()).replicas, 1);
}
