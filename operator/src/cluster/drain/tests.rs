use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::*;
use crate::cluster::fetch::Asked;

const ORDERS: &str = "3f2a8c1e-0000-4000-8000-00000000abcd";
const FLIGHTS: &str = "3f2a8c1e-0000-4000-8000-00000000abce";

fn cluster(replicas: i32) -> Cluster {
    let spec = json!({"replicas": replicas, "storage": {"size": "10Gi"}});
    serde_json::from_value(json!({"metadata": {"name": "main", "namespace": "ns", "generation": 3}, "spec": spec}))
        .unwrap()
}

/// `012+3-0`: replicas, one that is being added, one that goes; `?`: no leader.
fn partition((index, text): (usize, &str)) -> Value {
    let after = |sign: char| -> Vec<i32> { text.split(sign).skip(1).map(|rest| rest[..1].parse().unwrap()).collect() };
    let replicas: Vec<_> = text.chars().map_while(|digit| digit.to_digit(10)).collect();
    json!({
        "index": index, "replicas": replicas, "adding": after('+'), "removing": after('-'), "leaderEpoch": 1, "partitionEpoch": 1,
        "isr": [], "leader": if text.contains('?') { Value::Null } else { json!(replicas[0]) },
        "minInSyncReplicas": 1, "replicationFactor": replicas.len() - after('+').len(),
    })
}

fn slice(id: &str, partitions: &str) -> PartitionSlice {
    let partitions: Vec<_> = partitions.split_whitespace().enumerate().map(partition).collect();
    let name = if id == ORDERS { "orders" } else { "flights" };
    let spec = json!({
        "clusterName": "main", "topicId": id, "topicName": name, "firstIndex": 0, "controllerEpoch": 1, "operationId": 1,
        "partitions": partitions,
    });
    PartitionSlice::new("x", serde_json::from_value(spec).unwrap())
}

/// So many brokers that all serve, and the topic `orders`, with so many replicas if it says so itself.
fn fetched(present: i32, replicas: Option<i32>, partitions: &str) -> Fetched {
    let set = json!({"spec": {"replicas": present, "serviceName": "x", "selector": {}, "template": {}}});
    let broker = |id: i32| {
        json!({
            "clusterName": "main", "id": id, "incarnation": 1, "storageId": ORDERS, "bootId": ORDERS, "version": "1",
            "featureLevel": 1, "endpoints": [{"listener": "internal", "host": "h", "port": 1}],
        })
    };
    Fetched {
        set: Some(serde_json::from_value(set).unwrap()),
        slices: vec![slice(ORDERS, partitions)],
        settled: true,
        brokers: (0..present).map(|id| serde_json::from_value(broker(id)).unwrap()).collect(),
        topics: [(ORDERS.to_owned(), Asked { replication_factor: replicas, ..Asked::default() })].into(),
        ..Fetched::default()
    }
}

#[test]
fn the_highest_brokers_go_once_no_slice_names_them() {
    for (wanted, present, partitions, size) in [
        (3, 3, "02 1", 3),
        (5, 3, "2", 5),
        (1, 3, "0", 1),
        (1, 3, "0 2", 3),
        // Two is drained, and one is not.
        (1, 3, "1", 2),
        // Zero and two hold all: as long as two stays, one does.
        (1, 3, "2", 3),
        // Who is on his way still names it.
        (2, 3, "012+0-2", 3),
        // Slices of brokers that are no longer there bring none back.
        (1, 2, "4", 1),
        (1, 1, "4", 1),
    ] {
        let drain = drain(&cluster(wanted), &fetched(present, Some(1), partitions));
        assert_eq!(drain.size, size, "{wanted} of {present}: {partitions}");
        let leaving: Vec<_> = drain.leaving.iter().map(|leaving| leaving.broker).collect();
        assert_eq!(leaving, (wanted..size).collect::<Vec<_>>());
    }
}

#[test]
fn deleted_topics_keep_their_brokers_until_their_slices_are_gone() {
    let mut fetched = fetched(3, Some(1), "2");
    let tombstone = json!({"deletedAt": "2026-01-01T00:00:00Z", "purgeAt": "2026-01-02T00:00:00Z"});
    fetched.slices[0].spec.tombstone = Some(serde_json::from_value(tombstone).unwrap());
    let drain = drain(&cluster(2), &fetched);
    assert_eq!((drain.size, drain.problem.is_none()), (3, true), "that ends by itself");
    assert!(drain.progress().ends_with("deleted topics are in the trash: orders until 2026-01-02T00:00:00Z"));
}

#[test]
fn nobody_goes_before_every_controller_knows_or_while_a_slice_cannot_be_read() {
    let early = Fetched { settled: false, ..fetched(3, Some(1), "0") };
    let waiting = drain(&cluster(2), &early);
    assert_eq!((waiting.size, waiting.progress().as_str()), (3, "broker 2: drained"));
    let unreadable = Fetched { unreadable: 1, ..fetched(3, Some(1), "0") };
    let blind = drain(&cluster(2), &unreadable);
    assert_eq!((blind.size, blind.problem.map(|problem| problem.reason)), (3, Some("SlicesUnreadable")));
}

#[test]
fn progress_is_told_in_numbers() {
    let drain = drain(&cluster(2), &fetched(4, Some(2), "02 20 021+1-2 03?"));
    let (is, reason, message) = drain.told();
    assert_eq!((is, reason), (true, MOVING));
    assert_eq!(
        message,
        "broker 2: 3 replicas left, 1 of them moving; broker 3: 1 replicas left, 0 of them moving; partitions without a leader \
         cannot move: orders/3"
    );
    let mut away = fetched(3, Some(1), "2");
    away.brokers[1].fenced = true;
    assert!(super::drain(&cluster(2), &away).progress().ends_with("brokers that are to stay do not serve: 1"));
}

#[test]
fn a_drain_that_cannot_end_says_why_and_what_to_do() {
    // The topic insists on three replicas, and two brokers stay.
    let stuck = drain(&cluster(2), &fetched(3, Some(3), "012"));
    let problem = stuck.problem.clone().unwrap();
    assert_eq!(problem.reason, "TooFewBrokersStay");
    let expected = "orders (3 replicas) needs more brokers, and 2 stay: lower replicationFactor of these topics, or set \
                    spec.replicas to 3";
    assert_eq!(problem.message, expected);
    assert_eq!((stuck.size, stuck.told().1), (3, "TooFewBrokersStay"));
    // It leaves it to the Cluster, which has two brokers.
    assert_eq!(drain(&cluster(2), &fetched(3, None, "012")).problem, None);
    // Nobody serves it, so nobody can copy it.
    let mut kept = fetched(3, Some(1), "0");
    kept.slices.push(slice(FLIGHTS, "2"));
    let problem = drain(&cluster(2), &kept).problem.unwrap();
    assert!(problem.reason == "HoldsDeletedTopics" && problem.message.contains("flights"), "{}", problem.message);
    // Unless another broker has all of it too.
    let replica = taffrail_crds::slice::Replica { broker: 1, incarnation: 1 };
    kept.slices[1].spec.partitions[0].isr.push(replica);
    assert_eq!(drain(&cluster(2), &kept).problem, None);
    kept.slices[1].spec.partitions[0].isr.clear();
    // A topic of its own that the cluster keeps is asked for by nobody.
    let internal = json!({"name": "flights", "topicId": FLIGHTS, "partitions": 1});
    let state = json!({
        "metadata": {"name": "main"},
        "spec": {"clusterId": ORDERS, "controllerEpoch": 1, "featureLevel": 1, "nextIds": {"producer": 1, "incarnation": 1, "operation": 1}, "internalTopics": [internal]},
    });
    kept.state = serde_json::from_value(state).ok();
    assert!(kept.state.as_ref().is_some_and(|state| state.name_any() == "main"));
    assert_eq!(drain(&cluster(2), &kept).problem, None);
}

#[test]
fn a_drain_has_settled_once_it_was_on_record_for_a_while() {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let told = |generation: i64, draining: Vec<i32>| {
        let mut cluster = cluster(2);
        let mut condition = Condition::new(DRAINING, ConditionStatus::True, MOVING, "");
        condition.last_transition_time = "1970-01-01T00:01:40Z".to_owned();
        condition.observed_generation = Some(generation);
        let status = taffrail_crds::ClusterStatus {
            conditions: vec![condition],
            draining_brokers: draining,
            ..taffrail_crds::ClusterStatus::default()
        };
        cluster.status = Some(status);
        cluster
    };
    assert!(has_settled(&told(3, vec![2]), at(105)));
    assert!(!has_settled(&told(3, vec![2]), at(104)), "too soon");
    assert!(!has_settled(&told(2, vec![2]), at(200)), "of an older number");
    assert!(!has_settled(&told(3, vec![3]), at(200)), "of fewer brokers");
    assert!(!has_settled(&cluster(2), at(200)), "nothing is on record");
    assert!(!has_settled(&told(3, vec![2]), at(50)), "a clock that was set back proves nothing");
}
