use proptest::prelude::*;
use serde_json::{Value, json};
use taffrail_crds::slice::UncleanRecovery;
use taffrail_crds::{Kind, PartitionSlice, PartitionSliceSpec, admission};

use super::super::members::tests::members;
use super::*;

const TOPIC: Uuid = Uuid::from_u128(7);

/// Partition 0 with these replicas, all in sync in sessions 10 + number, led by the first.
fn partition(replicas: &[i32], min_in_sync: i32) -> PartitionState {
    let isr = replicas.iter().map(|broker| replica(*broker)).collect();
    PartitionState {
        index: 0,
        replicas: replicas.to_vec(),
        adding: vec![],
        removing: vec![],
        leader: Some(replicas[0]),
        leader_epoch: 3,
        partition_epoch: 5,
        isr,
        elr: vec![],
        last_known_elr: vec![],
        fault: None,
        recovering: false,
        min_in_sync_replicas: min_in_sync,
        replication_factor: replicas.len() as i32,
        unclean_recovery: UncleanRecovery::Balanced,
    }
}

fn replica(broker: i32) -> Replica {
    Replica { broker, incarnation: 10 + i64::from(broker) }
}

fn fence(members: &mut Members, broker: i32) {
    members.get_mut(&broker).unwrap().fenced = true;
}

/// The broker begins another session.
fn restart(members: &mut Members, broker: i32, clean: bool) {
    let member = members.get_mut(&broker).unwrap();
    member.continues = clean.then_some(member.continues.unwrap_or(member.incarnation));
    member.incarnation += 100;
}

#[test]
fn nothing_changes_while_all_is_well() {
    assert_eq!(settle(TOPIC, &partition(&[0, 1, 2], 2), &members(3), false), None);
}

#[test]
fn i7_a_leader_that_dies_is_followed_by_the_next_in_sync_replica() {
    let mut members = members(3);
    fence(&mut members, 0);
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.partition_epoch), (Some(1), 4, 6));
    assert_eq!((next.isr, next.elr), (vec![replica(1), replica(2)], vec![]));
}

#[test]
fn the_only_replica_waits_for_its_broker_and_leads_again() {
    let mut members = members(1);
    fence(&mut members, 0);
    let away = settle(TOPIC, &partition(&[0], 1), &members, false).unwrap();
    assert_eq!((away.leader, away.leader_epoch), (None, 4));
    assert_eq!((&away.isr, &away.elr), (&vec![], &vec![replica(0)]));
    assert_eq!(away.fault.as_deref(), Some("broker 0 does not answer"));
    assert_eq!(settle(TOPIC, &away, &members, false), None);

    members.get_mut(&0).unwrap().fenced = false;
    let back = settle(TOPIC, &away, &members, false).unwrap();
    assert_eq!((back.leader, back.leader_epoch, back.recovering, back.fault), (Some(0), 5, false, None));
    assert_eq!((back.isr, back.elr), (vec![replica(0)], vec![]));
}

#[test]
fn a_session_that_lost_nothing_leads_on_under_another_epoch() {
    let mut members = members(1);
    restart(&mut members, 0, true);
    let next = settle(TOPIC, &partition(&[0], 1), &members, false).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.recovering), (Some(0), 4, false));
    assert_eq!(next.isr, [Replica { broker: 0, incarnation: 110 }]);
}

#[test]
fn m6_a_session_that_may_have_lost_something_leads_only_as_the_last_one_and_says_so() {
    let mut members = members(2);
    restart(&mut members, 0, false);
    let one = settle(TOPIC, &partition(&[0], 1), &members, false).unwrap();
    assert_eq!((one.leader, one.leader_epoch, one.recovering), (Some(0), 4, true));

    assert_eq!(settle(TOPIC, &one, &members, false), None, "it has not found its log yet");
    members.get_mut(&0).unwrap().faults.insert((TOPIC, 0), "its log is missing".to_owned());
    let faulty = settle(TOPIC, &one, &members, false).unwrap();
    assert_eq!((faulty.leader, faulty.recovering), (None, true), "without proof it stays");
    members.get_mut(&0).unwrap().faults.clear();
    members.get_mut(&0).unwrap().recovered.insert((TOPIC, 0));
    let found = settle(TOPIC, &one, &members, false).unwrap();
    assert_eq!((found.leader, found.leader_epoch, found.recovering), (Some(0), 4, false));

    let two = settle(TOPIC, &partition(&[0, 1], 2), &members, false).unwrap();
    assert_eq!((two.leader, two.isr, two.elr), (Some(1), vec![replica(1)], vec![]));
    assert_eq!(two.last_known_elr, [replica(0)]);
}

#[test]
fn l8_nobody_leads_without_proof_where_that_is_forbidden() {
    let mut members = members(1);
    restart(&mut members, 0, false);
    let strict = PartitionState { unclean_recovery: UncleanRecovery::None, ..partition(&[0], 1) };
    let next = settle(TOPIC, &strict, &members, false).unwrap();
    assert_eq!((next.leader, next.recovering), (None, false));
    assert!(next.fault.unwrap().contains("may have lost acknowledged records"));
}

#[test]
fn the_last_replicas_stay_eligible_while_too_few_are_in_sync() {
    let mut members = members(3);
    fence(&mut members, 1);
    fence(&mut members, 2);
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.leader, &next.isr, &next.elr), (Some(0), &vec![replica(0)], &vec![replica(1), replica(2)]));
    fence(&mut members, 0);
    let next = settle(TOPIC, &next, &members, false).unwrap();
    assert_eq!((next.leader, next.isr.len(), next.elr.len()), (None, 0, 3));
    members.get_mut(&2).unwrap().fenced = false;
    let next = settle(TOPIC, &next, &members, false).unwrap();
    assert_eq!((next.leader, next.isr, next.elr), (Some(2), vec![replica(2)], vec![replica(1), replica(0)]));
}

#[test]
fn a_broker_that_cannot_serve_a_partition_does_not_lead_it_and_its_reason_is_kept() {
    let mut members = members(1);
    members.get_mut(&0).unwrap().faults.insert((TOPIC, 0), "its log is missing".to_owned());
    let next = settle(TOPIC, &partition(&[0], 1), &members, false).unwrap();
    assert_eq!((next.leader, next.fault.as_deref()), (None, Some("broker 0: its log is missing")));
    assert_eq!(settle(TOPIC, &next, &members, false), None, "it is not tried again and again");
    members.get_mut(&0).unwrap().faults.clear();
    assert_eq!(settle(TOPIC, &next, &members, false).unwrap().leader, Some(0));
}

#[test]
fn i9_a_broker_that_is_about_to_stop_is_elected_only_if_there_is_no_other() {
    let mut members = members(3);
    fence(&mut members, 0);
    members.get_mut(&1).unwrap().stopping = true;
    let partition = partition(&[0, 1, 2], 1);
    assert_eq!(settle(TOPIC, &partition, &members, false).unwrap().leader, Some(2));
    fence(&mut members, 2);
    assert_eq!(settle(TOPIC, &partition, &members, false).unwrap().leader, Some(1));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Fence(i32),
    Return(i32),
    Restart(i32, bool),
    Fault(i32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3).prop_map(Step::Fence),
        (0..3).prop_map(Step::Return),
        (0..3, any::<bool>()).prop_map(|(broker, clean)| Step::Restart(broker, clean)),
        (0..3, any::<bool>()).prop_map(|(broker, there)| Step::Fault(broker, there)),
    ]
}

fn document(partition: &PartitionState) -> Value {
    let spec = PartitionSliceSpec {
        cluster_name: "main".to_owned(),
        topic_id: taffrail_crds::id::Id(TOPIC),
        topic_name: "t".to_owned(),
        first_index: 0,
        controller_epoch: 0,
        operation_id: 0,
        tombstone: None,
        partitions: vec![partition.clone()],
    };
    let mut slice = PartitionSlice::new("slice", spec);
    slice.metadata.namespace = Some("default".to_owned());
    json!(slice)
}

proptest! {
    /// Whatever brokers do: the API admits each step (M2), settling twice is settling once, whoever leads is alive in a
    /// session that counts, and no replica that has every acknowledged record is forgotten.
    #[test]
    fn every_step_is_legal_and_final(steps in proptest::collection::vec(step(), 1..20), min_in_sync in 1..3) {
        let (mut members, mut partition) = (members(3), partition(&[0, 1, 2], min_in_sync));
        for step in steps {
            match step {
                Step::Fence(broker) => fence(&mut members, broker),
                Step::Return(broker) => members.get_mut(&broker).unwrap().fenced = false,
                Step::Restart(broker, clean) => restart(&mut members, broker, clean),
                Step::Fault(broker, true) => {
                    members.get_mut(&broker).unwrap().faults.insert((TOPIC, 0), "broken".to_owned());
                }
                Step::Fault(broker, false) => members.get_mut(&broker).unwrap().faults.clear(),
            }
            let Some(next) = settle(TOPIC, &partition, &members, false) else { continue };
            let faults = admission::admit_kind(Kind::PartitionSlice, &document(&next), Some(&document(&partition)));
            prop_assert!(faults.is_empty(), "{faults:?}: {partition:?} to {next:?}");
            prop_assert_eq!(settle(TOPIC, &next, &members, false), None);
            if let Some(leader) = leadership(&next) {
                let member = &members[&leader.broker];
                prop_assert!(!member.fenced && member.incarnation == leader.incarnation && member.faults.is_empty());
            }
            let known = |p: &PartitionState| p.isr.len() + p.elr.len() + p.last_known_elr.len();
            prop_assert!(known(&next) > 0, "{next:?}");
            partition = next;
        }
    }
}
