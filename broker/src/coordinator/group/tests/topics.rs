use std::time::Duration;

use super::super::*;
use super::harness::{Harness, at, join, of, to};

fn first_of(topic: u128) -> TopicPartition {
    of(topic, [0]).pop_first().unwrap()
}

fn matching(pattern: &str) -> Subscription {
    Subscription { topics: [].into(), pattern: Some(pattern.to_owned()) }
}

#[test]
fn topic_that_grows_is_shared_out() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let joined = harness.join(join("m")).unwrap();
    harness.topics(&[("a", 1, 3)]);
    assert_eq!(harness.events.pop().unwrap().members, ["m"]);
    assert_eq!(harness.refresh("m", joined.epoch).unwrap().assigned, of(1, 0..3));
}

#[test]
fn topic_that_is_made_later_is_taken_up() {
    let mut harness = Harness::new(&[]);
    let named = harness.join(join("m")).unwrap();
    let matched = harness.join(Join { subscription: matching("b.*"), ..join("n") }).unwrap();
    assert!(named.assigned.is_empty() && matched.assigned.is_empty());
    harness.topics(&[("a", 1, 1), ("bc", 2, 1), ("cb", 3, 1)]);
    assert_eq!(harness.refresh("m", named.epoch).unwrap().assigned, of(1, [0]));
    assert_eq!(harness.refresh("n", matched.epoch).unwrap().assigned, of(2, [0]));
}

#[test]
fn topic_that_is_made_anew_starts_without_offsets() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let joined = harness.join(join("m")).unwrap();
    harness.commit(Some(("m", joined.epoch)), vec![(first_of(1), at(9))]).unwrap();
    harness.topics(&[("a", 2, 1)]);
    let told = harness.refresh("m", joined.epoch).unwrap();
    assert_eq!((&told.assigned, &told.revoking), (&of(2, [0]), &of(1, [0])));
    assert_eq!(harness.offset(first_of(2)), None);
    let late = harness.commit(Some(("m", told.epoch)), vec![(first_of(1), at(10))]);
    assert_eq!(late, Ok(vec![GroupError::UnknownPartition]));
}

#[test]
fn topic_that_is_brought_back_in_time_has_its_offsets_still() {
    for (days, kept) in [(6, Some(9)), (8, None)] {
        let mut harness = Harness::new(&[("a", 1, 1)]);
        let joined = harness.join(Join { session_timeout: Duration::from_hours(24), ..join("m") }).unwrap();
        harness.commit(Some(("m", joined.epoch)), vec![(first_of(1), at(9))]).unwrap();
        let days_pass = |harness: &mut Harness, days| {
            for _ in 0..2 * days {
                harness.pass(Duration::from_hours(12));
                let told = harness.refresh("m", joined.epoch).unwrap();
                harness.heartbeat("m", told.epoch, Some(told.assigned)).unwrap();
            }
        };
        harness.topics(&[]);
        days_pass(&mut harness, 1);
        harness.restart();
        days_pass(&mut harness, days - 1);
        harness.topics(&[("a", 1, 1)]);
        assert_eq!(harness.offset(first_of(1)), kept, "after {days} days");
        days_pass(&mut harness, 8);
        assert_eq!(harness.offset(first_of(1)), kept, "and no more of it goes");
    }
}

#[test]
fn changes_while_the_shard_was_away_are_seen_when_it_is_loaded() {
    let mut harness = Harness::new(&[("a", 1, 1), ("b", 2, 1)]);
    let joined = harness.join(Join { subscription: to(&["a", "b"]), ..join("m") }).unwrap();
    let world = Harness::new(&[("a", 1, 2)]).world;
    harness.world = world;
    harness.restart();
    let told = harness.refresh("m", joined.epoch).unwrap();
    assert_eq!((told.assigned, told.revoking), (of(1, 0..2), of(2, [0])));
}

#[test]
fn change_of_a_topic_reaches_every_group() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let group = |at: i32| format!("g{at:03}");
    for at in 0..50 {
        harness.join(Join { group: group(at), ..join("m") }).unwrap();
    }
    harness.topics(&[("a", 1, 2)]);
    for at in 0..50 {
        let refresh = Request::Refresh { group: group(at), member: "m".to_owned(), epoch: 1 };
        let Ok(Answered::Membership(told)) = harness.ask(refresh) else { panic!() };
        assert_eq!(told.assigned, of(1, 0..2));
    }
}

#[test]
fn topics_that_nobody_subscribes_to_change_nothing() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    harness.join(join("m")).unwrap();
    harness.topics(&[("a", 1, 1), ("b", 2, 1)]);
    assert!(harness.records.is_empty());
}
