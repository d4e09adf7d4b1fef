use serde_json::{Value, json};

use super::*;

/// Brokers in zones by their place in the text; `.` is in none.
fn brokers(zones: &str) -> Brokers {
    let zones = (0..).zip(zones.chars()).filter(|(_, zone)| *zone != '.').map(|(id, zone)| (id, zone.to_string()));
    Brokers { zones: zones.collect(), zone_label: "zone".to_owned(), kept: true }
}

/// `012/01+3`: replicas, those in sync, and one that is being added; `?`: no leader; `!`: its leader may lack records.
fn partition(text: &str, least: i32) -> PartitionState {
    let adding: Vec<i32> = text.split('+').nth(1).map(|digit| digit[..1].parse().unwrap()).into_iter().collect();
    let (replicas, in_sync) = text.split(['+', '?', '!']).next().unwrap().split_once('/').unwrap();
    let digits = |text: &str| text.chars().map(|c| c.to_digit(10).unwrap()).collect::<Vec<_>>();
    let isr: Vec<Value> = digits(in_sync).iter().map(|b| json!({"broker": b, "incarnation": 1})).collect();
    let leader = digits(in_sync).first().copied().filter(|_| !text.contains('?'));
    serde_json::from_value(json!({
        "index": 0, "replicas": digits(replicas), "adding": adding, "leader": leader, "leaderEpoch": 1, "partitionEpoch": 1,
        "isr": isr, "minInSyncReplicas": least, "replicationFactor": digits(replicas).len() - adding.len(),
        "recovering": text.contains('!'),
    }))
    .unwrap()
}

fn reason(declared: Survives, zones: &str, text: &str, least: i32) -> &'static str {
    let brokers = brokers(zones);
    let mut survival = Survival::new(&brokers);
    survival.add(declared, &partition(text, least), || "orders/3".to_owned());
    let (holds, reason, message) = survival.told().unwrap();
    assert_eq!(holds, reason == "AsDeclared", "{message}");
    assert!(holds || message.contains("orders/3"), "{message}");
    reason
}

#[test]
fn the_loss_of_a_broker_is_survived_with_min_isr_elsewhere() {
    for (text, least, expected) in [
        ("012/012", 2, "AsDeclared"),
        ("012/012", 1, "AsDeclared"),
        ("01/01", 1, "AsDeclared"),
        ("012/01", 2, "ReplicasNotInSync"),
        // Writes go on with one, and what they acknowledge is on both until then.
        ("012/01", 1, "AsDeclared"),
        ("012/0", 1, "ReplicasNotInSync"),
        ("0/0", 1, "TooFewReplicas"),
        ("01/01", 2, "TooFewReplicas"),
        ("012/012", 3, "TooFewReplicas"),
        ("012/012?", 2, "PartitionsWithoutLeader"),
        ("012/012!", 2, "PartitionsWithoutLeader"),
        // Its move may be called off.
        ("3012/301+3", 2, "ReplicasNotInSync"),
        ("3012/3012+3", 2, "AsDeclared"),
        ("10/10+1", 1, "TooFewReplicas"),
    ] {
        assert_eq!(reason(Survives::Broker, "....", text, least), expected, "{text} {least}");
    }
}

#[test]
fn the_loss_of_a_zone_is_survived_with_min_isr_in_others() {
    for (zones, text, least, expected) in [
        ("abc", "012/012", 2, "AsDeclared"),
        ("aab", "012/012", 2, "ZonesShared"),
        ("aab", "012/012", 1, "AsDeclared"),
        ("aaa", "012/012", 1, "ZonesShared"),
        ("abc", "012/01", 2, "ReplicasNotInSync"),
        ("aab", "012/01", 1, "ReplicasNotInSync"),
        ("aab", "012/02", 1, "AsDeclared"),
        ("ab.", "012/012", 2, "ZoneUnknown"),
        ("abcab", "01234/01234", 3, "AsDeclared"),
        ("abcaa", "01234/01234", 3, "ZonesShared"),
        ("abcd", "3012/301+3", 2, "ReplicasNotInSync"),
        ("ab", "01/01", 1, "AsDeclared"),
        ("ab", "01/01", 2, "TooFewReplicas"),
    ] {
        assert_eq!(reason(Survives::Zone, zones, text, least), expected, "{zones} {text} {least}");
    }
}

#[test]
fn what_a_person_has_to_change_is_said_first_with_the_zones_that_are_shared() {
    let brokers = brokers("aab");
    let mut survival = Survival::new(&brokers);
    survival.add(Survives::Zone, &partition("012/01", 1), || "orders/1".to_owned());
    survival.add(Survives::Zone, &partition("012/012", 2), || "orders/3".to_owned());
    survival.add(Survives::Broker, &partition("012/012", 2), || "flights/0".to_owned());
    let (holds, reason, message) = survival.told().unwrap();
    assert_eq!((holds, reason), (false, "ZonesShared"));
    let expected = "1 of 2 partitions would not survive the loss of a zone: orders/3 (replicas in zones a, a and b); \
                    there are brokers in 2 zones: have them in more, and set spec.rebalance: Enabled; 1 more for other reasons";
    assert_eq!(message, expected);
}

#[test]
fn brokers_that_may_go_together_by_a_drain_of_nodes_survive_nothing() {
    let budget = |most: Value| serde_json::from_value(json!({"spec": {"maxUnavailable": most}})).unwrap();
    for (budget, kept) in [
        (None, false),
        (Some(budget(json!(0))), true),
        (Some(budget(json!(1))), true),
        (Some(budget(json!(2))), false),
        (Some(budget(json!("50%"))), false),
    ] {
        let brokers = Brokers::of(&[], "zone", budget.as_ref());
        let mut survival = Survival::new(&brokers);
        survival.add(Survives::Broker, &partition("012/012", 2), || "orders/3".to_owned());
        let (holds, reason, _) = survival.told().unwrap();
        assert_eq!((holds, reason == "DisruptionBudget"), (kept, !kept));
    }
}

#[test]
fn nothing_declared_is_nothing_told() {
    let brokers = brokers("abc");
    assert_eq!(Survival::new(&brokers).told(), None);
}
