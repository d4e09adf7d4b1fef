use std::time::Duration;

use super::super::*;
use super::harness::{GROUP, Harness, join, of, to};

#[test]
fn first_member_gets_everything_at_once() {
    let mut harness = Harness::new(&[("a", 1, 3)]);
    let joined = harness.join(join("m")).unwrap();
    assert_eq!(joined.assigned, of(1, 0..3));
    assert!(joined.revoking.is_empty());
    assert_eq!((joined.epoch, joined.heartbeat_interval), (1, Duration::from_secs(5)));
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Stable);
}

#[test]
fn heartbeat_interval_follows_the_session_timeout() {
    for (session, interval) in [(1_000, 200), (9_000, 1_000), (45_000, 5_000), (1_800_000, 200_000)] {
        let mut harness = Harness::new(&[]);
        let join = Join { session_timeout: Duration::from_millis(session), ..join("m") };
        let joined = harness.join(join).unwrap();
        assert_eq!(joined.heartbeat_interval, Duration::from_millis(interval));
        assert_eq!(joined.session_timeout, Duration::from_millis(session));
    }
}

#[test]
fn silent_member_is_removed_after_its_session_timeout_and_fenced() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let joined = harness.join(join("m")).unwrap();
    harness.pass(Duration::from_secs(44));
    harness.heartbeat("m", joined.epoch, None).unwrap();
    harness.pass(Duration::from_secs(44));
    harness.refresh("m", joined.epoch).expect("a refresh is no sign of life, but it is answered");
    harness.pass(Duration::from_secs(1));
    let unknown = GroupError::UnknownMember { group: GROUP.to_owned(), member: "m".to_owned() };
    assert_eq!(harness.heartbeat("m", joined.epoch, None), Err(unknown.clone()));
    assert_eq!(harness.join(Join { epoch: joined.epoch, ..join("m") }), Err(unknown));
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Empty);
    assert_eq!(harness.events.pop().unwrap().members, ["m"], "its stream is told");
}

#[test]
fn epochs_of_an_earlier_life_are_fenced_after_the_same_id_joins_again() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let before = harness.join(join("m")).unwrap();
    harness.leave("m", before.epoch, false).unwrap();
    let after = harness.join(join("m")).unwrap();
    assert!(after.epoch > before.epoch);
    let fenced = |epoch| GroupError::Fenced { member: "m".to_owned(), epoch, known: after.epoch };
    assert_eq!(harness.heartbeat("m", before.epoch, None), Err(fenced(before.epoch)));
    assert_eq!(harness.leave("m", before.epoch, false), Err(fenced(before.epoch)));
    assert_eq!(harness.heartbeat("m", after.epoch + 1, None), Err(fenced(after.epoch + 1)));
    assert_eq!(harness.join(Join { epoch: -1, ..join("m") }), Err(fenced(-1)));
}

#[test]
fn member_whose_answers_were_lost_resumes_with_what_it_has() {
    let mut harness = Harness::new(&[("a", 1, 4)]);
    let first = harness.join(join("m")).unwrap();
    harness.join(join("n")).unwrap();
    let lost = harness.refresh("m", first.epoch).unwrap();
    assert!(lost.epoch > first.epoch);
    let resumed = harness.join(Join { epoch: first.epoch, owned: first.assigned.clone(), ..join("m") }).unwrap();
    assert_eq!(resumed, lost);
    let wrong = Join { epoch: first.epoch, owned: of(1, 3..5), ..join("m") };
    assert!(matches!(harness.join(wrong), Err(GroupError::Fenced { .. })), "partition 4 was never its own");
}

#[test]
fn join_whose_answer_was_lost_can_be_sent_again() {
    let mut harness = Harness::new(&[("a", 1, 4)]);
    let first = harness.join(join("m")).unwrap();
    assert_eq!(harness.join(join("m")).unwrap(), first);
    assert!(harness.records.is_empty());
}

#[test]
fn new_subscription_moves_partitions() {
    let mut harness = Harness::new(&[("a", 1, 2), ("b", 2, 2)]);
    let joined = harness.join(join("m")).unwrap();
    let heartbeat = Heartbeat {
        group: GROUP.to_owned(),
        member: "m".to_owned(),
        epoch: joined.epoch,
        owned: None,
        subscription: Some(to(&["b"])),
    };
    let Ok(Answered::Membership(changed)) = harness.ask(Request::Heartbeat(heartbeat)) else { panic!() };
    assert_eq!((changed.assigned, changed.revoking), (of(2, 0..2), of(1, 0..2)));
}

#[test]
fn unknown_groups_and_members_are_named() {
    let mut harness = Harness::new(&[]);
    let unknown = GroupError::UnknownMember { group: GROUP.to_owned(), member: "m".to_owned() };
    assert_eq!(harness.heartbeat("m", 1, None), Err(unknown.clone()));
    assert_eq!(harness.refresh("m", 1), Err(unknown.clone()));
    assert_eq!(harness.leave("m", 1, false), Err(unknown.clone()));
    assert_eq!(harness.commit(Some(("m", 1)), vec![]), Err(unknown));
    let unknown = GroupError::UnknownGroup(GROUP.to_owned());
    assert_eq!(harness.describe(), Err(unknown.clone()));
    assert_eq!(harness.ask(Request::Delete(GROUP.to_owned())), Err(unknown));
    assert_eq!(harness.ask(Request::List), Ok(Answered::Groups(vec![])));
}

#[test]
fn wall_clock_changes_nothing_but_the_time_of_commits() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let joined = harness.join(join("m")).unwrap();
    for wall in [i64::MIN, 0, i64::MAX] {
        harness.wall_millis = wall;
        harness.pass(Duration::from_secs(40));
        assert_eq!(harness.heartbeat("m", joined.epoch, None).unwrap(), joined);
    }
}

#[test]
fn any_utf8_is_an_id() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    for id in ["\0", "..", "/", "\u{202e}x", &"ä".repeat(124), "%s", "'; --", "\u{10ffff}"] {
        let joined = harness.join(Join { instance: Some(id.to_owned()), ..join(id) }).unwrap();
        harness.leave(id, joined.epoch, false).unwrap();
    }
}
