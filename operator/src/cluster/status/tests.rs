#![allow(clippy::needless_pass_by_value, clippy::large_stack_arrays)]
use super::*;
use crate::cluster::validate::validate;
use crate::context::Settings;
use serde_json::{Value, json};
use std::sync::Arc;

fn cluster() -> Cluster {
    let spec = json!({"replicas": 2, "storage": {"size": "10Gi"}});
    serde_json::from_value(json!({"metadata": {"name": "main", "namespace": "ns", "generation": 3}, "spec": spec}))
        .unwrap()
}

fn pod(number: i32, status: Value) -> Arc<Pod> {
    let metadata = json!({"name": format!("main-{number}"), "annotations": {"taffrail.dev/version": format!("0.{}.0", 9 + number)}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
}

fn ready() -> Value {
    json!({"conditions": [{"type": "Ready", "status": "True"}]})
}

fn waiting(reason: &str) -> Value {
    json!({"containerStatuses": [{
        "name": "broker", "image": "x:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": "why"}},
    }]})
}

fn of(fetched: &Fetched, outcome: &Outcome, failures: &[Error]) -> ClusterStatus {
    let settings = Settings { broker_image: "x".to_owned(), service_monitors: false };
    let validated = validate(&cluster(), fetched, &settings).unwrap();
    let observed = Observed { fetched, validated: &validated, outcome, failures };
    status_of(&cluster(), &observed, SystemTime::UNIX_EPOCH)
}

fn told(status: &ClusterStatus) -> Vec<String> {
    let show = |c: &Condition| {
        assert_eq!(c.observed_generation, Some(3));
        format!("{} {:?} {}", c.type_, c.status, c.reason)
    };
    status.conditions.iter().map(show).collect()
}

fn claim(asked: &str, given: &str) -> k8s_openapi::api::core::v1::PersistentVolumeClaim {
    let claim = json!({
        "metadata": {"name": "data-main-0"},
        "spec": {"resources": {"requests": {"storage": asked}}},
        "status": {"phase": "Bound", "capacity": {"storage": given}},
    });
    serde_json::from_value(claim).unwrap()
}

#[test]
fn volumes_that_have_not_grown_yet_are_told_and_the_brokers_are_ready() {
    let fetched = |given: &str| Fetched {
        pods: vec![pod(0, ready()), pod(1, ready())],
        claims: vec![claim("10Gi", given)],
        ..Fetched::default()
    };
    let status = of(&fetched("5Gi"), &Outcome::default(), &[]);
    assert_eq!(told(&status)[..2], ["Ready True AllBrokersServe", "Reconciling True VolumesGrow"]);
    assert!(status.conditions[1].message.contains("data-main-0, which asks for 10Gi and has 5Gi"), "{status:?}");
    for given in ["10Gi", "11Gi"] {
        let status = of(&fetched(given), &Outcome::default(), &[]);
        assert_eq!(told(&status)[..2], ["Ready True AllBrokersServe", "Reconciling False Settled"], "{given}");
    }
}

#[test]
fn conditions_tell_what_is_so_and_what_is_in_the_way() {
    let pods = |pods: Vec<Arc<Pod>>| Fetched { pods, ..Fetched::default() };
    let unschedulable = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
    ]});
    let pending = serde_json::from_value(json!({"status": {"phase": "Pending"}})).unwrap();
    for (fetched, expected) in [
        (Fetched::default(), ["Ready False Starting", "Reconciling True Starting", "Stalled False NothingInTheWay"]),
        (
            pods(vec![pod(0, ready()), pod(1, ready())]),
            ["Ready True AllBrokersServe", "Reconciling False Settled", "Stalled False NothingInTheWay"],
        ),
        (
            pods(vec![pod(0, ready()), pod(1, waiting("ImagePullBackOff"))]),
            ["Ready False ImageCannotBePulled", "Reconciling False Stalled", "Stalled True ImageCannotBePulled"],
        ),
        (
            pods(vec![pod(0, ready()), pod(1, waiting("CrashLoopBackOff"))]),
            ["Ready False BrokerFails", "Reconciling False Stalled", "Stalled True BrokerFails"],
        ),
        (
            pods(vec![pod(0, ready()), pod(1, waiting("ContainerCreating"))]),
            ["Ready False Starting", "Reconciling True Starting", "Stalled False NothingInTheWay"],
        ),
        (
            pods(vec![pod(0, unschedulable)]),
            ["Ready False Unschedulable", "Reconciling False Stalled", "Stalled True Unschedulable"],
        ),
        (
            Fetched { claims: vec![pending], ..Fetched::default() },
            ["Ready False StorageClassNotFound", "Reconciling False Stalled", "Stalled True StorageClassNotFound"],
        ),
        (
            pods(vec![pod(0, ready()), pod(1, ready()), pod(2, ready())]),
            ["Ready False ScalingDown", "Reconciling True ScalingDown", "Stalled False NothingInTheWay"],
        ),
    ] {
        let found = told(&of(&fetched, &Outcome::default(), &[]));
        assert_eq!((&found[..3], found[3].as_str()), (&expected.map(str::to_owned)[..], "Applied True AsWanted"));
    }
}

#[test]
fn partitions_with_too_few_replicas_in_sync_are_told_those_of_internal_topics_too() {
    let slice = |in_sync: Value| {
        let partition = json!({
            "index": 3, "replicas": [0, 1], "leader": 0, "leaderEpoch": 1, "partitionEpoch": 1, "isr": in_sync,
            "minInSyncReplicas": 1, "replicationFactor": 2,
        });
        let spec = json!({
            "clusterName": "main", "topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "topicName": "__consumer_offsets",
            "firstIndex": 0, "controllerEpoch": 1, "operationId": 1, "partitions": [partition],
        });
        let slices = vec![taffrail_crds::PartitionSlice::new("x", serde_json::from_value(spec).unwrap())];
        let pods = vec![pod(0, ready()), pod(1, ready())];
        of(&Fetched { pods, slices, ..Fetched::default() }, &Outcome::default(), &[])
    };
    let replica = |broker: i32| json!({"broker": broker, "incarnation": 1});
    let status = slice(json!([replica(0)]));
    let condition = status.conditions.iter().find(|condition| condition.type_ == UNDER_REPLICATED).unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::True, "ReplicasMissing"));
    assert!(condition.message.ends_with("__consumer_offsets/3 (1 of 2)"), "{}", condition.message);
    assert!(told(&status).contains(&"Ready True AllBrokersServe".to_owned()), "they serve all the same");
    assert!(told(&slice(json!([replica(0), replica(1)]))).contains(&"UnderReplicated False AsAsked".to_owned()));
}

/// Two brokers are asked for, three are there, and the third has a replica or none.
fn draining(partition: Value, settled: bool) -> Fetched {
    let spec = json!({
        "clusterName": "main", "topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "topicName": "orders",
        "firstIndex": 0, "controllerEpoch": 1, "operationId": 1, "partitions": [partition],
    });
    let set = json!({"spec": {"replicas": 3, "serviceName": "x", "selector": {}, "template": {}}});
    Fetched {
        set: Some(serde_json::from_value(set).unwrap()),
        slices: vec![taffrail_crds::PartitionSlice::new("x", serde_json::from_value(spec).unwrap())],
        pods: vec![pod(0, ready()), pod(1, ready()), pod(2, ready())],
        topics: [("3f2a8c1e-0000-4000-8000-00000000abcd".to_owned(), crate::cluster::fetch::Asked::default())].into(),
        settled,
        ..Fetched::default()
    }
}

fn partition(replicas: &[i32], adding: &[i32]) -> Value {
    let isr: Vec<_> = replicas.iter().map(|broker| json!({"broker": broker, "incarnation": 1})).collect();
    json!({
        "index": 0, "replicas": replicas, "adding": adding, "leader": replicas[0], "leaderEpoch": 1, "partitionEpoch": 1,
        "isr": isr, "minInSyncReplicas": 1, "replicationFactor": 2,
    })
}

#[test]
fn a_drain_is_told_from_its_beginning_to_its_end_and_when_it_is_called_off() {
    let news = |old: &ClusterStatus, new: &ClusterStatus, wanted| -> Vec<String> {
        events(old, new, wanted).into_iter().map(|news| format!("{}: {}", news.reason, news.note)).collect()
    };
    let begun = of(&draining(partition(&[1, 0, 2], &[1]), true), &Outcome::default(), &[]);
    let conditions = told(&begun);
    for expected in ["Ready False Draining", "Reconciling True Draining", "Stalled False NothingInTheWay"] {
        assert!(conditions.contains(&expected.to_owned()), "{expected} is not in {conditions:?}");
    }
    assert!(conditions.contains(&"Draining True MovingReplicas".to_owned()), "{conditions:?}");
    assert_eq!((begun.draining_brokers.as_slice(), begun.moving_partitions), ([2].as_slice(), Some(1)));
    let begin = news(&ClusterStatus::default(), &begun, 2);
    assert!(
        begin.iter().any(|news| news.starts_with("Draining: brokers are to go: broker 2: 1 replicas left")),
        "{begin:?}"
    );

    let drained = of(&draining(partition(&[1, 0], &[]), true), &Outcome::default(), &[]);
    assert!(told(&drained).contains(&"Draining False NobodyLeaves".to_owned()));
    assert_eq!((drained.draining_brokers.len(), drained.moving_partitions), (0, Some(0)));
    let end = news(&begun, &drained, 2);
    assert!(end.contains(&"Drained: nothing is left on brokers 2: they stop".to_owned()), "{end:?}");
    let stays = news(&begun, &drained, 3);
    assert!(stays.contains(&"DrainCancelled: brokers 2 stay, with what is left on them".to_owned()), "{stays:?}");
}

#[test]
fn a_drain_that_goes_further_is_on_record_from_then_on() {
    let validate = |cluster: &Cluster, fetched: &Fetched, at: u64| {
        let settings = Settings { broker_image: "x".to_owned(), service_monitors: false };
        let validated = validate(cluster, fetched, &settings).unwrap();
        let observed = Observed { fetched, validated: &validated, outcome: &Outcome::default(), failures: &[] };
        status_of(cluster, &observed, SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at))
    };
    let since = |status: &ClusterStatus| {
        status.conditions.iter().find(|c| c.type_ == DRAINING).unwrap().last_transition_time.clone()
    };
    let fetched = draining(partition(&[1, 0, 2], &[]), false);
    let mut cluster = cluster();
    cluster.status = Some(validate(&cluster, &fetched, 10));
    let same = validate(&cluster, &fetched, 20);
    assert_eq!(since(&same), "1970-01-01T00:00:10Z");
    cluster.spec.replicas = 1;
    let further = validate(&cluster, &fetched, 30);
    assert_eq!(
        (since(&further).as_str(), further.draining_brokers.as_slice()),
        ("1970-01-01T00:00:30Z", [1, 2].as_slice())
    );
}

#[test]
fn what_is_declared_is_checked_for_every_topic_and_forgotten_with_the_declaration() {
    let mut cluster = cluster();
    let fetched = draining(partition(&[1, 0], &[]), true);
    let status = |cluster: &Cluster| {
        let settings = Settings { broker_image: "x".to_owned(), service_monitors: false };
        let validated = validate(cluster, &fetched, &settings).unwrap();
        let observed =
            Observed { fetched: &fetched, validated: &validated, outcome: &Outcome::default(), failures: &[] };
        status_of(cluster, &observed, SystemTime::UNIX_EPOCH)
    };
    let find =
        |status: &ClusterStatus| status.conditions.iter().find(|c| c.type_ == SURVIVES).map(|c| c.reason.clone());
    assert_eq!(find(&status(&cluster)), None);
    cluster.spec.topic_defaults.survives = Some(taffrail_crds::topic::Survives::Broker);
    let declared = status(&cluster);
    assert_eq!(find(&declared).as_deref(), Some("DisruptionBudget"), "nothing keeps the brokers from going together");
    cluster.status = Some(declared);
    cluster.spec.topic_defaults.survives = None;
    assert_eq!(find(&status(&cluster)), None);
}

#[test]
fn a_step_that_failed_is_told_and_the_brokers_look_only_where_they_may() {
    use crate::error::Cause;
    let failure = |step| Cause::Taken { kind: "Service".to_owned(), name: "x".to_owned() }.at(step);
    let fetched = Fetched { namespaces: ["shop".to_owned()].into(), ..Fetched::default() };
    let status = of(&fetched, &Outcome::default(), &[failure(crate::step::Step::Services)]);
    assert!(told(&status).contains(&"Applied False StepFailed".to_owned()));
    assert_eq!(status.topic_namespaces, ["ns", "shop"]);
    let status = of(&fetched, &Outcome::default(), &[failure(crate::step::Step::Access)]);
    assert_eq!(status.topic_namespaces, ["ns"]);
}

#[test]
fn the_version_is_the_oldest_that_runs_and_brokers_that_wait_are_listed() {
    let fetched = Fetched { pods: vec![pod(1, ready()), pod(0, ready())], ..Fetched::default() };
    let waiting = super::super::rollout::Pending { broker: 0, reason: "its configuration has changed".to_owned() };
    let outcome = Outcome { pending: vec![waiting], ..Outcome::default() };
    let status = of(&fetched, &outcome, &[]);
    assert_eq!(status.version.as_deref(), Some("0.9.0"), "as numbers, not as text");
    assert_eq!(status.pending_restarts[0].broker, 0);
    assert!(told(&status).contains(&"Ready False Restarting".to_owned()));
    let news: Vec<_> = events(&ClusterStatus::default(), &status, 2).into_iter().map(|news| news.reason).collect();
    assert_eq!(news, ["Restarting"]);
}

#[test]
fn a_paused_cluster_keeps_what_was_known() {
    let mut cluster = cluster();
    cluster.status = Some(of(
        &Fetched { pods: vec![pod(0, ready()), pod(1, ready())], ..Fetched::default() },
        &Outcome::default(),
        &[],
    ));
    let status = paused(&cluster, SystemTime::UNIX_EPOCH);
    assert_eq!(told(&status)[..3], ["Ready True AllBrokersServe", "Reconciling False Paused", "Stalled True Paused"]);
}
