use proptest::prelude::*;
use serde_json::{Value, json};
use taffrail_crds::recover::Recovery;
use taffrail_crds::slice::UncleanRecovery;
use taffrail_crds::{Kind, PartitionSlice, PartitionSliceSpec, admission};

use super::super::members::LogEnd;
use super::super::members::tests::members;
use super::super::place::{Load, Room};
use super::super::replicas::adapt;
use super::super::slices::tests::wanted;
use super::*;
use crate::replication::Proposal;

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
        unclean_leader_epoch: None,
        seen_epoch: None,
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

/// The watch of registrations may be behind that of slices: a controller that is not the one who wrote them knows less.
#[test]
fn m4_a_session_that_is_newer_than_the_known_registration_has_lost_nothing() {
    let mut before = partition(&[0, 1], 2);
    for replica in &mut before.isr {
        replica.incarnation += 100;
    }
    let next = settle(TOPIC, &before, &members(2), false).unwrap();
    assert_eq!((next.leader, &next.isr, &next.elr), (None, &vec![], &before.isr), "{next:?}");
    assert_eq!(next.last_known_elr, []);
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
    assert_eq!(one.unclean_leader_epoch, Some(4));

    assert_eq!(settle(TOPIC, &one, &members, false), None, "it has not found its log yet");
    members.get_mut(&0).unwrap().faults.insert((TOPIC, 0), "its log is missing".to_owned());
    let faulty = settle(TOPIC, &one, &members, false).unwrap();
    assert_eq!((faulty.leader, faulty.recovering), (None, true), "without proof it stays");
    members.get_mut(&0).unwrap().faults.clear();
    members.get_mut(&0).unwrap().recovered.insert((TOPIC, 0), 3);
    assert_eq!(settle(TOPIC, &one, &members, false), None, "it said so of an earlier term");
    members.get_mut(&0).unwrap().recovered.insert((TOPIC, 0), 4);
    let found = settle(TOPIC, &one, &members, false).unwrap();
    assert_eq!((found.leader, found.leader_epoch, found.recovering), (Some(0), 4, false));
    assert_eq!(found.unclean_leader_epoch, Some(4), "whoever was away is told yet");

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

fn sessions(brokers: &[i32]) -> Vec<Replica> {
    brokers.iter().map(|broker| replica(*broker)).collect()
}

/// Broker 0 asks for these in-sync replicas after the state of [`partition`].
fn ask(members: &mut Members, isr: &[Replica]) {
    let proposal = Proposal { leader_epoch: 3, partition_epoch: 5, isr: isr.to_vec() };
    members.get_mut(&0).unwrap().proposals.insert((TOPIC, 0), proposal);
}

#[test]
fn i4_what_a_leader_asks_for_is_taken_up_once() {
    let mut members = members(3);
    let before = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 2) };
    ask(&mut members, &sessions(&[0, 1, 2]));
    let next = settle(TOPIC, &before, &members, false).unwrap();
    assert_eq!((&next.isr, next.leader_epoch, next.partition_epoch), (&sessions(&[0, 1, 2]), 3, 6));
    assert_eq!(settle(TOPIC, &next, &members, false), None, "it speaks of a state that is over");
}

#[test]
fn l2_those_who_leave_stay_eligible_while_too_few_are_in_sync_and_no_longer() {
    let mut members = members(3);
    ask(&mut members, &sessions(&[0, 1]));
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.isr, next.elr), (sessions(&[0, 1]), vec![]));

    ask(&mut members, &sessions(&[0]));
    let few = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((&few.isr, &few.elr), (&sessions(&[0]), &sessions(&[1, 2])));

    let proposal = Proposal { leader_epoch: 3, partition_epoch: 6, isr: sessions(&[0, 2]) };
    members.get_mut(&0).unwrap().proposals.insert((TOPIC, 0), proposal);
    let enough = settle(TOPIC, &few, &members, false).unwrap();
    assert_eq!((enough.isr, enough.elr), (sessions(&[0, 2]), vec![]));
}

#[test]
fn i5_what_cannot_be_is_refused_by_the_partition_epoch_alone() {
    let before = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 2) };
    let refused = |what: &str, isr: &[Replica], change: &dyn Fn(&mut Members)| {
        let mut members = members(4);
        ask(&mut members, isr);
        change(&mut members);
        let next = settle(TOPIC, &before, &members, false).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(next, PartitionState { partition_epoch: 6, ..before.clone() }, "{what}");
    };
    let all = sessions(&[0, 1, 2]);
    refused("i4: a new member that is fenced", &all, &|members| fence(members, 2));
    refused("i4: a new member in another session", &all, &|members| restart(members, 2, true));
    refused("i4: a new member that is not registered", &all, &|members| drop(members.remove(&2)));
    refused("i9: a new member that is about to stop", &all, &|members| members.get_mut(&2).unwrap().stopping = true);
    refused("a new member that cannot serve it", &all, &|members| {
        members.get_mut(&2).unwrap().faults.insert((TOPIC, 0), "broken".to_owned());
    });
    refused("no replica", &sessions(&[0, 1, 3]), &|_| ());
    refused("without the leader", &sessions(&[1, 2]), &|_| ());
    refused("twice the same", &sessions(&[0, 1, 1]), &|_| ());
    refused("nobody", &[], &|_| ());
    refused("i4: under another leader epoch", &all, &|members| {
        let proposals = &mut members.get_mut(&0).unwrap().proposals;
        proposals.get_mut(&(TOPIC, 0)).unwrap().leader_epoch = 2;
    });
}

#[test]
fn i4_what_is_asked_of_another_state_or_by_another_broker_is_not_heard() {
    let before = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 2) };
    for (broker, partition_epoch) in [(0, 4), (0, 6), (1, 5)] {
        let mut members = members(3);
        let proposal = Proposal { leader_epoch: 3, partition_epoch, isr: sessions(&[0, 1, 2]) };
        members.get_mut(&broker).unwrap().proposals.insert((TOPIC, 0), proposal);
        assert_eq!(settle(TOPIC, &before, &members, false), None, "{broker} {partition_epoch}");
    }
}

#[test]
fn i5_a_change_of_the_controllers_own_is_the_answer_to_what_is_asked() {
    let mut members = members(3);
    ask(&mut members, &sessions(&[0, 1, 2]));
    fence(&mut members, 1);
    let before = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 1) };
    let next = settle(TOPIC, &before, &members, false).unwrap();
    assert_eq!((next.isr, next.partition_epoch), (sessions(&[0]), 6));
}

#[test]
fn i9_a_leader_that_is_about_to_stop_gives_way_and_leaves_if_enough_stay() {
    let mut members = members(3);
    members.get_mut(&0).unwrap().stopping = true;
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.isr), (Some(1), 4, sessions(&[1, 2])));

    let needed = settle(TOPIC, &partition(&[0, 1], 2), &members, false).unwrap();
    assert_eq!((needed.leader, &needed.isr), (Some(1), &sessions(&[0, 1])));

    members.get_mut(&1).unwrap().stopping = true;
    assert_eq!(settle(TOPIC, &partition(&[0, 1], 1), &members, false), None, "all are: it leads until it goes");
}

/// The broker says under which leader epoch it leads or follows with damaged records.
fn damage(members: &mut Members, broker: i32, leader_epoch: i32) {
    members.get_mut(&broker).unwrap().damaged.insert((TOPIC, 0), leader_epoch);
}

#[test]
fn d5_a_damaged_leader_resigns_and_leaves_while_enough_stay_in_sync() {
    let mut members = members(3);
    damage(&mut members, 0, 3);
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, true).unwrap();
    assert_eq!((next.leader, next.leader_epoch, &next.isr), (Some(1), 4, &sessions(&[1, 2])));
    assert_eq!((next.elr.len(), next.last_known_elr.len()), (0, 0), "nothing depends on it");
    assert_eq!(settle(TOPIC, &next, &members, true), None, "it has not heard of the new epoch yet");
    members.get_mut(&0).unwrap().damaged.clear();
    let whole = PartitionState { isr: sessions(&[0, 1, 2]), ..next };
    assert_eq!(settle(TOPIC, &whole, &members, true).unwrap().leader, Some(0), "it leads again once it is whole");
}

#[test]
fn d5_where_too_few_would_stay_a_damaged_replica_follows_and_counts_until_others_are_in_sync() {
    let mut members = members(3);
    damage(&mut members, 0, 3);
    fence(&mut members, 2);
    let short = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 2) };
    let next = settle(TOPIC, &short, &members, true).unwrap();
    assert_eq!((next.leader, next.leader_epoch, &next.isr), (Some(1), 4, &sessions(&[0, 1])));
    damage(&mut members, 0, 4);
    assert_eq!(settle(TOPIC, &next, &members, true), None);
    members.get_mut(&2).unwrap().fenced = false;
    let enough = PartitionState { isr: sessions(&[1, 0, 2]), ..next };
    let next = settle(TOPIC, &enough, &members, true).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.isr), (Some(1), 5, sessions(&[1, 2])));

    let alone = PartitionState { isr: sessions(&[0]), elr: sessions(&[1]), ..partition(&[0, 1], 2) };
    fence(&mut members, 1);
    assert_eq!(settle(TOPIC, &alone, &members, true), None, "nobody else has it: it goes on to lead");
}

#[test]
fn d5_a_damaged_follower_leaves_under_another_epoch_one_at_a_time() {
    let mut members = members(3);
    damage(&mut members, 2, 3);
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.isr), (Some(0), 4, sessions(&[0, 1])));
    damage(&mut members, 1, 3);
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.leader, next.isr), (Some(0), sessions(&[0, 1])), "the other waits for the first");
    damage(&mut members, 0, 3);
    assert_eq!(settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false), None, "of each some is left nowhere else");
    members.get_mut(&2).unwrap().stopping = true;
    let next = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!((next.isr, next.leader_epoch), (sessions(&[0, 1]), 3), "who stops leaves, with what it has");
}

#[test]
fn d5_h1_a_damaged_replica_that_counts_for_nothing_begins_anew_once_under_another_epoch() {
    let mut members = members(3);
    let before = PartitionState { isr: sessions(&[0, 1]), ..partition(&[0, 1, 2], 2) };
    for (told, epoch) in [(2, None), (3, Some(4)), (4, None)] {
        damage(&mut members, 2, told);
        let next = settle(TOPIC, &before, &members, false);
        assert_eq!(next.as_ref().map(|next| next.leader_epoch), epoch, "told under {told}");
        assert!(next.is_none_or(|next| next.isr == before.isr));
    }
    damage(&mut members, 2, 3);
    for (what, state) in [
        ("it is eligible", PartitionState { isr: sessions(&[0]), elr: sessions(&[2]), ..before.clone() }),
        ("it is asked", PartitionState { isr: sessions(&[0]), last_known_elr: sessions(&[2]), ..before.clone() }),
        ("it has no replica", PartitionState { replicas: vec![0, 1], ..before }),
    ] {
        assert_eq!(settle(TOPIC, &state, &members, false), None, "{what}");
    }
}

#[test]
fn d5_i9_a_damaged_replica_leads_where_nobody_else_can_and_before_one_that_stops() {
    let mut members = members(3);
    damage(&mut members, 1, 3);
    members.get_mut(&0).unwrap().stopping = true;
    let next = settle(TOPIC, &partition(&[0, 1], 1), &members, false).unwrap();
    assert_eq!((next.leader, next.isr), (Some(1), sessions(&[1])));
    fence(&mut members, 0);
    assert_eq!(settle(TOPIC, &partition(&[0, 1, 2], 1), &members, false).unwrap().leader, Some(2));
    fence(&mut members, 2);
    assert_eq!(settle(TOPIC, &partition(&[0, 1, 2], 1), &members, false).unwrap().leader, Some(1));
}

#[test]
fn leadership_goes_back_to_the_preferred_replica_when_all_are_in_sync_and_only_then() {
    let mut members = members(3);
    let elsewhere = PartitionState { leader: Some(2), ..partition(&[0, 1, 2], 2) };
    assert_eq!(settle(TOPIC, &elsewhere, &members, false), None);
    let next = settle(TOPIC, &elsewhere, &members, true).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.partition_epoch), (Some(0), 4, 6));
    assert_eq!(settle(TOPIC, &next, &members, true), None);
    let some = PartitionState { isr: sessions(&[0, 2]), ..elsewhere.clone() };
    assert_eq!(settle(TOPIC, &some, &members, true), None, "one has to catch up yet");
    let unproven = PartitionState { recovering: true, ..elsewhere.clone() };
    assert_eq!(settle(TOPIC, &unproven, &members, true), None);
    members.get_mut(&0).unwrap().settled = false;
    assert_eq!(settle(TOPIC, &elsewhere, &members, true), None, "it has only just come");
    fence(&mut members, 2);
    assert_eq!(settle(TOPIC, &elsewhere, &members, true).unwrap().leader, Some(0), "it is needed");
    members.get_mut(&2).unwrap().fenced = false;
    members.get_mut(&0).unwrap().settled = true;
    members.get_mut(&0).unwrap().stopping = true;
    assert_eq!(settle(TOPIC, &elsewhere, &members, true).unwrap().leader, Some(2));
}

#[test]
fn l8_of_several_that_have_all_lost_the_longest_log_leads_once_all_have_told() {
    let mut members = members(3);
    (0..3).for_each(|broker| fence(&mut members, broker));
    let away = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    assert_eq!(away.elr.len(), 3);

    let tell = |members: &mut Members, broker: i32, epoch: i32, end: i64| {
        let end = LogEnd { leader_epoch: away.leader_epoch, epoch, end };
        members.get_mut(&broker).unwrap().ends.insert((TOPIC, 0), end);
    };
    (0..3).for_each(|broker| restart(&mut members, broker, false));
    (0..2).for_each(|broker| members.get_mut(&broker).unwrap().fenced = false);
    (0..3).for_each(|broker| tell(&mut members, broker, 3, 10));
    let lost = settle(TOPIC, &away, &members, false).unwrap();
    assert_eq!((lost.leader, lost.last_known_elr.len()), (None, 3), "one does not answer");
    assert!(lost.fault.as_ref().unwrap().contains("broker 2 does not answer"), "{:?}", lost.fault);

    members.get_mut(&2).unwrap().fenced = false;
    members.get_mut(&2).unwrap().ends.clear();
    let waits = settle(TOPIC, &lost, &members, false).unwrap();
    assert!(
        waits.fault.as_ref().unwrap().contains("broker 2 has not told yet where its log ends"),
        "{:?}",
        waits.fault
    );

    for (ends, leader) in [
        ([(3, 10), (3, 10), (3, 10)], 0),
        ([(3, 10), (3, 11), (3, 10)], 1),
        ([(3, 10), (3, 11), (4, 2)], 2),
        ([(-1, 0), (0, 0), (-1, 0)], 1),
    ] {
        (0..3).for_each(|broker| tell(&mut members, broker, ends[broker as usize].0, ends[broker as usize].1));
        let next = settle(TOPIC, &waits, &members, false).unwrap();
        assert_eq!((next.leader, next.recovering, next.fault.as_ref()), (Some(leader), true, None), "{ends:?}");
        assert_eq!(next.isr, [Replica { broker: leader, incarnation: 110 + i64::from(leader) }]);
        assert_eq!(next.last_known_elr.len(), 2, "they are asked again, should it be lost too");
    }

    // One that has been written to since it was told counts for nothing: it may be the longest now.
    let told = members[&1].ends.clone();
    members.get_mut(&1).unwrap().ends.values_mut().for_each(|end| end.leader_epoch -= 1);
    assert_eq!(settle(TOPIC, &waits, &members, false).unwrap().leader, None);
    members.get_mut(&1).unwrap().ends = told;

    // The longest log cannot be served: nobody chooses another without a person.
    tell(&mut members, 2, 9, 9);
    members.get_mut(&2).unwrap().faults.insert((TOPIC, 0), "broken".to_owned());
    let next = settle(TOPIC, &waits, &members, false).unwrap();
    assert_eq!((next.leader, next.fault.unwrap().contains("broker 2: broken")), (None, true));
}

#[test]
fn l3_a_replica_that_lost_is_asked_only_when_nobody_is_left() {
    let mut members = members(3);
    ask(&mut members, &sessions(&[0]));
    let few = settle(TOPIC, &partition(&[0, 1, 2], 2), &members, false).unwrap();
    restart(&mut members, 1, false);
    fence(&mut members, 0);
    let next = settle(TOPIC, &few, &members, false).unwrap();
    assert_eq!((next.leader, &next.isr, &next.elr), (Some(2), &sessions(&[2]), &sessions(&[0])));
    assert_eq!((&next.last_known_elr, next.recovering), (&sessions(&[1]), false));
}

#[test]
fn a_faulty_follower_begins_anew_where_another_leads_and_is_waited_for_where_nobody_does() {
    let mut members = members(2);
    members.get_mut(&1).unwrap().faults.insert((TOPIC, 0), "its log is missing".to_owned());
    let next = settle(TOPIC, &partition(&[0, 1], 2), &members, false).unwrap();
    assert_eq!((next.leader, &next.isr, &next.elr), (Some(0), &sessions(&[0]), &vec![]));
    assert_eq!(next.last_known_elr, sessions(&[1]));
    assert_eq!(settle(TOPIC, &next, &members, false), None, "its fault is nobody's matter any more");

    members.get_mut(&0).unwrap().faults.insert((TOPIC, 0), "its log is missing".to_owned());
    let nobody = settle(TOPIC, &partition(&[0, 1], 2), &members, false).unwrap();
    assert_eq!((nobody.leader, nobody.elr), (None, sessions(&[0, 1])));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Fence(i32),
    Return(i32),
    Restart(i32, bool),
    Fault(i32, bool),
    Stop(i32),
    Damage(i32, bool),
    /// The leader asks for those whose bit is set, of a state so many epochs ago.
    Ask(u8, i32),
    End(i32, i32, i64),
    Found(i32),
    Factor(i32, i32),
}

const BROKERS: i32 = 4;

fn step() -> impl Strategy<Value = Step> {
    let broker = 0..BROKERS;
    prop_oneof![
        2 => broker.clone().prop_map(Step::Fence),
        3 => broker.clone().prop_map(Step::Return),
        2 => (broker.clone(), any::<bool>()).prop_map(|(broker, clean)| Step::Restart(broker, clean)),
        1 => (broker.clone(), any::<bool>()).prop_map(|(broker, there)| Step::Fault(broker, there)),
        1 => broker.clone().prop_map(Step::Stop),
        1 => (broker.clone(), any::<bool>()).prop_map(|(broker, there)| Step::Damage(broker, there)),
        4 => (1..16u8, prop_oneof![9 => Just(0), 1 => 0..3]).prop_map(|(isr, ago)| Step::Ask(isr, ago)),
        3 => (broker.clone(), -1..4, 0..3i64).prop_map(|(broker, epoch, end)| Step::End(broker, epoch, end)),
        1 => broker.prop_map(Step::Found),
        1 => (1..=BROKERS, 1..4).prop_map(|(factor, min_in_sync)| Step::Factor(factor, min_in_sync)),
    ]
}

fn take(step: Step, members: &mut Members, partition: &PartitionState, asked: &mut (i32, i32)) {
    let key = (TOPIC, 0);
    match step {
        Step::Fence(broker) => fence(members, broker),
        Step::Return(broker) => {
            let member = members.get_mut(&broker).unwrap();
            (member.fenced, member.stopping) = (false, false);
        }
        Step::Restart(broker, clean) => {
            restart(members, broker, clean);
            let member = members.get_mut(&broker).unwrap();
            member.stopping = false;
            member.faults.clear();
            member.damaged.clear();
            member.recovered.clear();
            member.proposals.clear();
            member.ends.clear();
        }
        Step::Fault(broker, true) => {
            members.get_mut(&broker).unwrap().faults.insert(key, "broken".to_owned());
        }
        Step::Fault(broker, false) => members.get_mut(&broker).unwrap().faults.clear(),
        Step::Stop(broker) => members.get_mut(&broker).unwrap().stopping = true,
        Step::Damage(broker, true) => damage(members, broker, partition.leader_epoch),
        Step::Damage(broker, false) => members.get_mut(&broker).unwrap().damaged.clear(),
        Step::Ask(mask, ago) => {
            let session = |broker: i32| Replica { broker, incarnation: members[&broker].incarnation };
            let isr = (0..BROKERS).filter(|broker| mask & (1 << broker) != 0).map(session).collect();
            let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch - ago);
            let proposal = Proposal { leader_epoch, partition_epoch, isr };
            if let Some(leader) = partition.leader {
                members.get_mut(&leader).unwrap().proposals.insert(key, proposal);
            }
        }
        Step::End(broker, epoch, end) => {
            let end = LogEnd { leader_epoch: partition.leader_epoch, epoch, end };
            members.get_mut(&broker).unwrap().ends.insert(key, end);
        }
        Step::Found(broker) => {
            let leads = partition.leader == Some(broker) && partition.recovering;
            members.get_mut(&broker).unwrap().recovered.extend(leads.then_some((key, partition.leader_epoch)));
        }
        Step::Factor(factor, min_in_sync) => *asked = (factor, min_in_sync.min(factor)),
    }
}

/// What the topic asks for, done to the partition.
fn adapted(partition: &PartitionState, members: &Members, (factor, min_in_sync): (i32, i32)) -> Option<PartitionState> {
    let wanted =
        super::super::slices::Wanted { replication_factor: factor, min_in_sync_replicas: min_in_sync, ..wanted(1) };
    let takers = members.values().filter(|member| !member.fenced && !member.stopping).collect();
    adapt(partition, &wanted, &mut Load::default(), &mut Room::new(members, takers, Load::default()))
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

fn present(partition: &PartitionState) -> impl Iterator<Item = &Replica> {
    partition.isr.iter().chain(&partition.elr)
}

fn check(before: &PartitionState, next: &PartitionState, members: &Members) -> Result<(), TestCaseError> {
    let faults = admission::admit_kind(Kind::PartitionSlice, &document(next), Some(&document(before)));
    prop_assert!(faults.is_empty(), "{faults:?}: {before:?} to {next:?}");
    let is_faulty = |replica: &Replica| !members[&replica.broker].faults.is_empty();
    if next.leader != before.leader || next.isr != before.isr || next.elr != before.elr {
        for replica in &next.isr {
            let member = &members[&replica.broker];
            prop_assert!(!member.fenced && !is_faulty(replica), "{replica:?} in {next:?}");
        }
        for replica in present(next) {
            let member = &members[&replica.broker];
            prop_assert_eq!(replica.incarnation, member.incarnation, "m6, l3: {:?}", next);
        }
    }
    prop_assert_eq!(next.leader.is_none(), next.fault.is_some(), "{:?}", next);
    if let Some(leader) = next.leader {
        let was_present = present(before).any(|replica| replica.broker == leader);
        // Who has just joined can be handed the leadership at once.
        let joined = before.leader.is_some_and(|leader| !members[&leader].proposals.is_empty());
        prop_assert!(was_present || joined || next.recovering, "l3, l7: {before:?} to {next:?}");
    }
    let unclean = next.recovering && next.leader_epoch > before.leader_epoch && !before.recovering;
    let expected = if unclean { Some(next.leader_epoch) } else { next.unclean_leader_epoch };
    prop_assert_eq!(next.unclean_leader_epoch, expected, "whoever follows must know");
    prop_assert!(next.unclean_leader_epoch >= before.unclean_leader_epoch);
    let was_lost = |replica: &Replica| !members[&replica.broker].vouches_for(*replica) || is_faulty(replica);
    if present(next).count() < next.min_in_sync_replicas as usize && present(next).count() < present(before).count() {
        prop_assert!(present(before).any(was_lost), "l10: {before:?} to {next:?}");
    }
    let known = present(next).count() + next.last_known_elr.len();
    prop_assert!(known > 0, "{next:?}");
    Ok(())
}

proptest! {
    /// Whatever brokers do and leaders and topics ask for: the API admits each step (M2), settling twice is settling once, all
    /// in-sync replicas are alive in sessions that count (M6), nobody leads without proof unless that is said (L3, L7), and
    /// enough replicas that have every acknowledged record are kept unless they lose it (L10).
    #[test]
    fn every_step_is_legal_and_final(
        steps in proptest::collection::vec((step(), prop::bool::weighted(0.1)), 1..30),
        min_in_sync in 1..3,
    ) {
        let (mut members, mut partition) = (members(BROKERS), partition(&[0, 1, 2], min_in_sync));
        let mut asked = (3, min_in_sync);
        for (step, balance) in steps {
            take(step, &mut members, &partition, &mut asked);
            if let Some(next) = settle(TOPIC, &partition, &members, balance) {
                check(&partition, &next, &members)?;
                // A broker says so only of what it leads.
                for member in members.values_mut().filter(|member| next.leader != Some(member.id) || !next.recovering) {
                    member.recovered.clear();
                }
                prop_assert_eq!(settle(TOPIC, &next, &members, balance), None);
                partition = next;
            }
            if let Some(next) = adapted(&partition, &members, asked) {
                check(&partition, &next, &members)?;
                prop_assert_eq!(next.leader, partition.leader);
                prop_assert_eq!(adapted(&next, &members, asked), None);
                partition = next;
            }
        }
    }
}

#[test]
fn l8_what_was_told_while_somebody_led_is_not_where_logs_end_now() {
    let (mut members, mut partition) = (members(BROKERS), partition(&[0, 1, 2], 2));
    for step in [Step::Stop(1), Step::Restart(2, false), Step::End(2, 0, 0), Step::Restart(0, false)] {
        take(step, &mut members, &partition, &mut (3, 2));
        partition = settle(TOPIC, &partition, &members, false).unwrap_or(partition);
    }
    let fault = "broker 2 has not told yet where its log ends; broker 0 has not told yet where its log ends";
    assert_eq!((partition.leader, partition.fault.as_deref()), (None, Some(fault)));
    assert_eq!(settle(TOPIC, &partition, &members, false), None);
}

/// Broker 2 had every record and is gone for good; 0 and 1 lack some.
fn waits_for_a_person(members: &mut Members) -> PartitionState {
    fence(members, 2);
    let (isr, elr, leader) = (vec![], vec![replica(2)], None);
    PartitionState { isr, elr, leader, fault: Some("broker 2 does not answer".to_owned()), ..partition(&[0, 1, 2], 2) }
}

#[test]
fn l8_a_person_commands_which_replica_leads_and_possible_loss_is_recorded() {
    let mut members = members(3);
    let before = waits_for_a_person(&mut members);
    assert_eq!(settle(TOPIC, &before, &members, false), None, "nobody else decides that");
    let of_broker_1 = Recovery { partition: 0, broker: 1, leader_epoch: 3 };
    let next = command(TOPIC, &before, &members, of_broker_1).unwrap();
    assert_eq!((next.leader, next.leader_epoch, next.partition_epoch), (Some(1), 4, 6));
    assert_eq!((next.isr.as_slice(), next.elr.as_slice(), next.recovering), ([replica(1)].as_slice(), &[][..], true));
    assert_eq!(next.last_known_elr, [replica(2)], "it is asked, should it come back while nobody else has followed");
    assert_eq!(next.unclean_leader_epoch, Some(4), "t4: what others took for committed before counts for nothing");
    assert_eq!(next.fault, None);
    assert_eq!(admission::admit_kind(Kind::PartitionSlice, &document(&next), Some(&document(&before))), []);
    // It has decided once: the next loss is another one, whatever still stands in the Topic.
    let again = PartitionState { leader: None, isr: vec![], elr: vec![replica(1)], ..next.clone() };
    assert_eq!(command(TOPIC, &again, &members, of_broker_1), None);
    assert_eq!(command(TOPIC, &next, &members, Recovery { leader_epoch: 4, ..of_broker_1 }), None, "somebody leads");
}

#[test]
fn l8_a_command_is_not_carried_out_by_a_broker_that_cannot_lead() {
    let mut members = members(4);
    let before = waits_for_a_person(&mut members);
    members.get_mut(&0).unwrap().faults.insert((TOPIC, 0), "its log is damaged".to_owned());
    for (broker, why) in
        [(0, "its log is faulty"), (2, "it is away"), (3, "it has no replica"), (9, "it does not exist")]
    {
        let recovery = Recovery { partition: 0, broker, leader_epoch: 3 };
        assert_eq!(command(TOPIC, &before, &members, recovery), None, "{why}");
    }
    for leader_epoch in [2, 4] {
        let recovery = Recovery { partition: 0, broker: 1, leader_epoch };
        assert_eq!(command(TOPIC, &before, &members, recovery), None, "of another epoch");
    }
}
