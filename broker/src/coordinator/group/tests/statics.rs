use std::time::Duration;

use super::super::*;
use super::handover::settle;
use super::harness::{Harness, at, join, of, to};

fn static_join(member: &str, instance: &str) -> Join {
    Join { instance: Some(instance.to_owned()), ..join(member) }
}

/// Two static members with two partitions each.
fn two() -> Harness {
    let mut harness = Harness::new(&[("a", 1, 4)]);
    harness.join(static_join("m1", "i")).unwrap();
    harness.join(static_join("n1", "j")).unwrap();
    settle(&mut harness, &["m1".to_owned(), "n1".to_owned()]);
    harness
}

fn epoch(harness: &mut Harness, member: &str) -> i32 {
    harness.describe().unwrap().members.iter().find(|state| state.member == member).unwrap().epoch
}

#[test]
fn instance_that_returns_gets_its_old_partitions_and_nothing_moves() {
    let mut harness = two();
    let before = harness.describe().unwrap();
    let left = epoch(&mut harness, "m1");
    harness.leave("m1", left, true).unwrap();
    assert_eq!(epoch(&mut harness, "m1"), -2);
    harness.pass(Duration::from_secs(44));
    let stays = epoch(&mut harness, "n1");
    harness.heartbeat("n1", stays, None).unwrap();
    harness.events.clear();

    let back = harness.join(static_join("m2", "i")).unwrap();
    assert_eq!(back.assigned, of(1, 0..2));
    assert!(back.epoch > left);
    assert!(harness.events.is_empty(), "nobody else is concerned");
    let after = harness.describe().unwrap();
    assert_eq!(after.members[1], before.members[1]);
    assert_eq!(after.summary.epoch, before.summary.epoch);
    assert!(matches!(harness.heartbeat("m1", left, None), Err(GroupError::UnknownMember { .. })));
}

#[test]
fn rolling_restart_moves_nothing() {
    let mut harness = two();
    let before = harness.describe().unwrap().summary.epoch;
    for (old, new, instance) in [("m1", "m2", "i"), ("n1", "n2", "j")] {
        let left = epoch(&mut harness, old);
        let had = harness.heartbeat(old, left, None).unwrap().assigned;
        harness.leave(old, left, true).unwrap();
        assert_eq!(harness.join(static_join(new, instance)).unwrap().assigned, had);
    }
    assert_eq!(harness.describe().unwrap().summary.epoch, before);
}

#[test]
fn second_process_with_the_same_instance_is_refused_while_the_first_lives() {
    let mut harness = two();
    let in_use = GroupError::InstanceInUse { instance: "i".to_owned(), member: "m1".to_owned() };
    assert_eq!(harness.join(static_join("m2", "i")), Err(in_use));
    assert!(harness.records.is_empty());
    harness.pass(Duration::from_secs(45));
    harness.join(static_join("m2", "i")).expect("the first has timed out");
}

#[test]
fn c6_instance_that_does_not_return_loses_its_place_after_the_session_timeout() {
    let mut harness = two();
    let left = epoch(&mut harness, "m1");
    harness.leave("m1", left, true).unwrap();
    let stays = epoch(&mut harness, "n1");
    for _ in 0..4 {
        harness.pass(Duration::from_secs(11));
        assert_eq!(harness.heartbeat("n1", stays, None).unwrap().assigned, of(1, 2..4));
    }
    harness.pass(Duration::from_secs(11));
    assert_eq!(harness.refresh("n1", stays).unwrap().assigned, of(1, 0..4));
}

#[test]
fn what_an_absent_instance_should_not_own_any_more_is_free_at_once() {
    let mut harness = two();
    let left = epoch(&mut harness, "n1");
    harness.leave("n1", left, true).unwrap();
    let third = harness.join(join("o")).unwrap();
    assert_eq!(third.assigned, of(1, [3]));
    assert_eq!(harness.join(static_join("n2", "j")).unwrap().assigned, of(1, [2]));
}

#[test]
fn absent_instance_is_fenced_whatever_its_epoch() {
    let mut harness = two();
    let left = epoch(&mut harness, "m1");
    harness.leave("m1", left, true).unwrap();
    let fenced = |epoch| GroupError::Fenced { member: "m1".to_owned(), epoch, known: -2 };
    let offsets = || of(1, [0]).into_iter().map(|partition| (partition, at(1))).collect();
    for epoch in [left, -2] {
        assert_eq!(harness.heartbeat("m1", epoch, None), Err(fenced(epoch)));
        assert_eq!(harness.commit(Some(("m1", epoch)), offsets()), Err(fenced(epoch)));
        assert_eq!(harness.join(Join { epoch, ..static_join("m1", "i") }), Err(fenced(epoch)));
    }
    harness.join(static_join("m1", "i")).expect("the same process may come back");
}

#[test]
fn instance_that_returns_with_another_subscription_gets_what_it_asks_for() {
    let mut harness = two();
    harness.topics(&[("a", 1, 4), ("b", 2, 2)]);
    let left = epoch(&mut harness, "m1");
    harness.leave("m1", left, true).unwrap();
    let back = harness.join(Join { subscription: to(&["b"]), ..static_join("m2", "i") }).unwrap();
    assert_eq!(back.assigned, of(2, 0..2));
    let stays = epoch(&mut harness, "n1");
    assert_eq!(harness.refresh("n1", stays).unwrap().assigned, of(1, 0..4));
}

#[test]
fn member_without_an_instance_leaves_for_good_whatever_it_says() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let joined = harness.join(join("m")).unwrap();
    harness.leave("m", joined.epoch, true).unwrap();
    assert!(harness.describe().unwrap().members.is_empty());
}

#[test]
fn member_id_is_not_taken_over_by_another_instance() {
    let mut harness = two();
    assert!(matches!(harness.join(static_join("m1", "other")), Err(GroupError::Fenced { .. })));
    assert!(matches!(harness.join(join("m1")), Err(GroupError::Fenced { .. })));
}
