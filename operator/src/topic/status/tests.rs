use super::super::accept::Refusal;
use super::*;
use serde_json::{Value, json};

const ID: &str = "3f2a8c1e-0000-4000-8000-00000000abcd";

fn topic(partitions: i32) -> Topic {
    serde_json::from_value(json!({"metadata": {"name": "t", "generation": 7}, "spec": {"partitions": partitions}}))
        .unwrap()
}

/// A slice of partitions: `L` has a leader, `-` has none.
fn slices(partitions: &str) -> Vec<PartitionSlice> {
    let partition = |(index, letter): (usize, char)| {
        let mut partition = json!({
            "index": index, "replicas": [0], "leaderEpoch": 1, "partitionEpoch": 1, "minInSyncReplicas": 1,
            "replicationFactor": 1, "isr": [{"broker": 0, "incarnation": 1}],
        });
        if letter == 'L' {
            partition["leader"] = 0.into();
        } else {
            partition["fault"] = "broker 0 is away".into();
        }
        partition
    };
    let partitions: Vec<Value> = partitions.chars().enumerate().map(partition).collect();
    if partitions.is_empty() {
        return vec![];
    }
    let spec = json!({
        "clusterName": "main", "topicId": ID, "topicName": "t", "firstIndex": 0, "controllerEpoch": 1, "operationId": 1,
        "partitions": partitions,
    });
    vec![PartitionSlice::new("x", serde_json::from_value(spec).unwrap())]
}

fn known(partitions: &str) -> Verdict {
    Verdict {
        accepted: Some(Identity::Known(ID.to_owned())),
        slices: slices(partitions),
        replicas: 1,
        ..Verdict::default()
    }
}

fn refusal() -> Refusal {
    Refusal { reason: "No", message: "because".to_owned() }
}

fn of(verdict: &Verdict) -> TopicStatus {
    status_of(&topic(2), verdict, Uuid::nil, SystemTime::UNIX_EPOCH)
}

/// Status and reason of a condition.
fn told(status: &TopicStatus, type_: &str) -> String {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    format!("{:?} {}", condition.status, condition.reason)
}

#[test]
fn a_topic_is_ready_when_every_partition_has_a_leader() {
    for (partitions, ready, reconciling, numbers) in [
        ("", "False WaitingForBrokers", "True WaitingForBrokers", (0, 0)),
        ("L", "False WaitingForBrokers", "True WaitingForBrokers", (1, 1)),
        ("L-", "False PartitionsWithoutLeader", "True PartitionsWithoutLeader", (2, 1)),
        ("LL", "True Serving", "False Serving", (2, 2)),
        ("LLL", "True Serving", "False Serving", (3, 2)),
    ] {
        let status = of(&known(partitions));
        assert_eq!((told(&status, READY), told(&status, RECONCILING)), (ready.to_owned(), reconciling.to_owned()));
        assert_eq!((status.partitions, status.ready_partitions), (Some(numbers.0), Some(numbers.1)), "{partitions}");
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(7)));
    }
    let status = of(&known("L-"));
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
    assert_eq!(ready.message, "1 of 2 partitions have no leader: 1; partition 1: broker 0 is away");
}

#[test]
fn m9_partitions_whose_slice_is_gone_are_told_and_still_counted() {
    let mut topic = topic(2);
    topic.status = Some(of(&known("LL")));
    let lost = status_of(&topic, &known(""), Uuid::nil, SystemTime::UNIX_EPOCH);
    let states = [READY, RECONCILING, STALLED].map(|type_| told(&lost, type_));
    assert_eq!(states, ["False SlicesLost", "False SlicesLost", "True SlicesLost"]);
    assert_eq!((lost.partitions, lost.ready_partitions), (Some(2), Some(0)));
    let ready = lost.conditions.iter().find(|condition| condition.type_ == READY).unwrap();
    assert!(ready.message.contains("taffrail cluster recover"), "{}", ready.message);

    topic.status = Some(lost);
    let back = status_of(&topic, &known("LL"), Uuid::nil, SystemTime::UNIX_EPOCH);
    assert_eq!([READY, STALLED].map(|type_| told(&back, type_)), ["True Serving", "False Accepted"]);
}

#[test]
fn what_is_refused_stalls_and_what_was_accepted_before_is_kept() {
    let status = of(&Verdict { refused: Some(refusal()), ..Verdict::default() });
    assert_eq!((told(&status, ACCEPTED), told(&status, STALLED)), ("False No".to_owned(), "True No".to_owned()));
    assert_eq!((status.topic_id, status.accepted_generation, status.partitions), (None, None, None));
    let status = of(&Verdict { refused: Some(refusal()), ..known("LL") });
    assert_eq!((told(&status, ACCEPTED), told(&status, READY)), ("True Accepted".to_owned(), "False No".to_owned()));
    assert_eq!((status.topic_id.as_deref(), status.accepted_generation), (Some(ID), None));
}

#[test]
fn fewer_replicas_than_asked_for_are_told() {
    assert_eq!(told(&of(&known("LL")), UNDER_REPLICATED), "False AsAsked");
    let wanting = of(&Verdict { replicas: 3, ..known("LL") });
    assert_eq!(told(&wanting, UNDER_REPLICATED), "True ReplicasMissing");
    assert_eq!(told(&wanting, READY), "True Serving", "what there is serves");
    let refused = Verdict { replicas: 9, refused: Some(refusal()), ..known("LL") };
    assert_eq!(told(&of(&refused), UNDER_REPLICATED), "False AsAsked", "what is refused is not missed");

    let mut verdict = known("LL");
    let partition = &mut verdict.slices[0].spec.partitions[1];
    (partition.replicas, partition.min_in_sync_replicas) = (vec![0, 1, 2], 2);
    let short = of(&verdict);
    assert_eq!(told(&short, UNDER_REPLICATED), "True BelowMinInSyncReplicas");
    let warned = |old: &TopicStatus, new: &TopicStatus| -> Vec<_> {
        events(old, new).into_iter().filter(|news| news.warning).map(|news| news.note).collect()
    };
    assert!(warned(&wanting, &short)[0].ends_with("than minInSyncReplicas: 1 (1 of 3)"), "somebody should look at it");
    assert!(warned(&short, &short).is_empty() && warned(&short, &wanting).is_empty());
}

#[test]
fn an_identity_is_given_once() {
    let verdict = Verdict { accepted: Some(Identity::New), replicas: 1, ..Verdict::default() };
    let status = of(&verdict);
    assert_eq!(status.topic_id, Some(Uuid::nil().to_string()));
    assert_eq!(status.accepted_generation, Some(7));
}

#[test]
fn events_tell_what_is_new_and_nothing_twice() {
    let (none, accepted, served, broken) = (TopicStatus::default(), of(&known("")), of(&known("LL")), of(&known("L-")));
    let reasons = |old: &TopicStatus, new: &TopicStatus| -> Vec<String> {
        events(old, new).into_iter().map(|news| news.reason).collect()
    };
    assert_eq!(reasons(&none, &accepted), ["Accepted"]);
    assert_eq!(reasons(&accepted, &served), ["Serving"]);
    assert_eq!(reasons(&served, &served), Vec::<String>::new());
    assert_eq!(reasons(&served, &broken), ["PartitionsWithoutLeader"]);
    let refused = of(&Verdict { refused: Some(refusal()), ..Verdict::default() });
    assert_eq!(reasons(&none, &refused), ["No"]);
}
