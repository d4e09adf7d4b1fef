use super::*;
use serde_json::{Value, json};

/// `012/01/2?`: replicas, those in sync, those eligible, and with `?` no leader; `+3` behind it is being added, `-0` goes. Min ISR
/// is 2, or as many as there are replicas without those that are being added.
fn partition((index, text): (usize, &str)) -> Value {
    let moving =
        |sign: char| -> Vec<i32> { text.split(sign).skip(1).filter_map(|rest| rest[..1].parse().ok()).collect() };
    let (adding, removing) = (moving('+'), moving('-'));
    let text = text.split(['+', '-']).next().unwrap();
    let parts: Vec<&str> = text.trim_end_matches('?').split('/').collect();
    let brokers = |part: usize| -> Vec<i32> {
        let digits = parts.get(part).map(|digits| digits.chars().filter_map(|digit| digit.to_digit(10)));
        digits.into_iter().flatten().map(|digit| i32::try_from(digit).unwrap()).collect()
    };
    let replicas = |part| brokers(part).iter().map(|b| json!({"broker": b, "incarnation": 1})).collect::<Vec<_>>();
    let count = brokers(0).len() - adding.len();
    let mut partition = json!({
        "index": index, "replicas": brokers(0), "leaderEpoch": 1, "partitionEpoch": 1, "isr": replicas(1),
        "elr": replicas(2), "lastKnownElr": replicas(3), "minInSyncReplicas": count.min(2), "replicationFactor": count,
        "adding": adding, "removing": removing,
    });
    if !text.ends_with('?') {
        partition["leader"] = brokers(1).first().copied().into();
    }
    partition
}

fn slice(text: &str) -> PartitionSlice {
    let partitions: Vec<Value> = text.split_whitespace().enumerate().map(partition).collect();
    let spec = json!({
        "clusterName": "main", "topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "topicName": "t", "firstIndex": 0,
        "controllerEpoch": 1, "operationId": 1, "partitions": partitions,
    });
    PartitionSlice::new("x", serde_json::from_value(spec).unwrap())
}

#[test]
fn too_few_replicas_in_sync_are_told_with_numbers() {
    for (text, expected) in [
        ("", (false, "AsAsked", "")),
        ("0/0 012/012", (false, "AsAsked", "")),
        // What is on its way is no shortfall.
        ("3012/012+3-2 3012/3012+3-2 10/0+1-0", (false, "AsAsked", "")),
        (
            "3012/301+3-2",
            (
                true,
                "ReplicasMissing",
                "1 of 1 partitions have fewer replicas in sync than they shall have: t/0 (2 of 3)",
            ),
        ),
        (
            "012/01 012/012 012/20",
            (
                true,
                "ReplicasMissing",
                "2 of 3 partitions have fewer replicas in sync than they shall have: t/0 (2 of 3), t/2 (2 of 3)",
            ),
        ),
        (
            "012/01 012/2/0 01/01",
            (
                true,
                BELOW_MIN,
                "1 of 3 partitions refuse acks=all writes, since fewer replicas are in sync than minInSyncReplicas: t/1 (1 of 3)",
            ),
        ),
        (
            "0/?",
            (
                true,
                BELOW_MIN,
                "1 of 1 partitions refuse acks=all writes, since fewer replicas are in sync than minInSyncReplicas: t/0 (0 of 1)",
            ),
        ),
    ] {
        let (is, reason, message) = Health::of_cluster(&[slice(text)]).told();
        assert_eq!((is, reason, message.as_str()), expected, "{text}");
    }
    let (.., message) = Health::of_cluster(&[slice(&"012/01 ".repeat(7))]).told();
    assert!(message.ends_with("t/4 (2 of 3), ..."), "{message}");
}

#[test]
fn fewer_replicas_than_are_asked_for_are_told_before_there_are_more() {
    let mut health = Health::default();
    health.add(&slice("0/0").spec.partitions[0], 3, || "0".to_owned());
    assert_eq!(health.told().2, "1 of 1 partitions have fewer replicas in sync than they shall have: 0 (1 of 3)");
}

#[test]
fn l7_a_possible_loss_is_told_and_stays_on_record() {
    use taffrail_crds::condition::ConditionStatus;
    let calm = Health::of_cluster(&[slice("012/012")]);
    assert_eq!(calm.possible_loss(&[]), (false, "NoneKnown", String::new()));
    let mut recovering = slice("012/012 012/0");
    recovering.spec.partitions[1].recovering = true;
    let (is, reason, message) = Health::of_cluster(&[recovering]).possible_loss(&[]);
    assert!(is && reason == UNCLEAN && message.ends_with("may be missing: t/1"), "{message}");
    let mut before = Condition::new(POSSIBLE_LOSS, ConditionStatus::True, reason, message.clone());
    for _ in 0..2 {
        let (is, reason, kept) = calm.possible_loss(&[before.clone()]);
        assert_eq!((is, reason, &kept), (false, RECOVERED, &message));
        before = Condition::new(POSSIBLE_LOSS, ConditionStatus::False, reason, kept);
    }
}

#[test]
fn l7_a_possible_loss_that_was_over_before_anybody_saw_it_is_on_record_too() {
    let mut over = slice("012/012 012/012");
    over.spec.partitions[1].unclean_leader_epoch = Some(4);
    let (is, reason, message) = Health::of_cluster(&[over]).possible_loss(&[]);
    assert!(!is && reason == RECOVERED && message.ends_with("may be missing: t/1"), "{message}");
}

#[test]
fn no_broker_may_go_while_a_partition_needs_all_that_it_has() {
    for (text, fragile) in [
        ("", false),
        ("0/0 0/? 012/012 01/01", false),
        ("012/01", true),
        ("012/2/01", true),
        ("012//012?", true),
        ("01/0", true),
        ("0123/012", false),
        // A replica that is being added is none that is missing, and none that may be counted on.
        ("3012/012+3-2 10/0+1-0", false),
        ("3012/301+3-2", true),
    ] {
        assert_eq!(is_fragile(&[slice(text)]), fragile, "{text}");
    }
    let mut deleted = slice("012/01");
    deleted.spec.tombstone = Some(
        serde_json::from_value(json!({"deletedAt": "2026-01-01T00:00:00Z", "purgeAt": "2026-01-02T00:00:00Z"}))
            .unwrap(),
    );
    assert!(!is_fragile(&[deleted]));
}

#[test]
fn a_broker_is_held_while_another_replica_of_its_partitions_is_behind() {
    for (text, held) in [
        ("", [false, false, false]),
        ("012/012", [false, false, false]),
        ("0/0 1/1 2/?", [false, false, false]),
        // 2 is behind: it may be restarted, the others not.
        ("012/01", [true, true, false]),
        ("01/0 12/12", [true, false, false]),
        ("02/02 12/1", [false, true, false]),
        // Of two that are behind each may be restarted, since it may be that which heals it.
        ("012/0", [true, false, false]),
        // But not one that has every acknowledged record.
        ("012/0/1", [true, true, false]),
        // Nobody leads: whoever a leader may come from stays.
        ("012//01?", [true, true, false]),
        ("012///12?", [false, true, true]),
        // Moves hold up nobody, and help nobody.
        ("3012/012+3-2", [false, false, false]),
        ("3012/301+3-2", [true, true, false]),
        ("10/0+1-0", [false, false, false]),
        // Another partition's trouble.
        ("34/3", [false, false, false]),
    ] {
        let slices = [slice(text)];
        assert_eq!([0, 1, 2].map(|broker| held_by(broker, &slices).is_some()), held, "{text}");
    }
    let told = held_by(0, &[slice("012/012 012/01 01/0")]).unwrap();
    assert_eq!(told, "partition 1 of t has 2 of 3 replicas in sync (and 1 more like it)");
}
