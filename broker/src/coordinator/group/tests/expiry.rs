use std::time::Duration;

use super::super::*;
use super::harness::{GROUP, Harness, at, join, of};

const DAY: Duration = Duration::from_hours(24);

fn committed() -> Vec<(TopicPartition, CommittedOffset)> {
    of(1, [0]).into_iter().map(|partition| (partition, at(5))).collect()
}

#[test]
fn c10_offsets_of_an_empty_group_live_seven_days_and_then_go_with_it() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    let joined = harness.join(join("m")).unwrap();
    harness.commit(Some(("m", joined.epoch)), committed()).unwrap();
    harness.leave("m", joined.epoch, false).unwrap();
    harness.pass(6 * DAY + Duration::from_secs(86_399));
    assert_eq!(harness.offset(committed()[0].0), Some(5));
    harness.pass(Duration::from_secs(1));
    assert_eq!(harness.offset(committed()[0].0), None);
    assert_eq!(harness.describe(), Err(GroupError::UnknownGroup(GROUP.to_owned())));
}

#[test]
fn c10_offsets_of_a_live_group_never_expire() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    harness.commit(None, committed()).unwrap();
    harness.pass(6 * DAY);
    let join = Join { session_timeout: DAY, ..join("m") };
    let joined = harness.join(join).unwrap();
    for _ in 0..60 {
        harness.pass(DAY / 2);
        harness.heartbeat("m", joined.epoch, None).unwrap();
    }
    assert_eq!(harness.offset(committed()[0].0), Some(5));
}

#[test]
fn c10_commit_from_outside_starts_the_seven_days_anew() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    for _ in 0..5 {
        harness.commit(None, committed()).unwrap();
        harness.pass(6 * DAY);
    }
    assert_eq!(harness.offset(committed()[0].0), Some(5));
    harness.pass(DAY);
    assert_eq!(harness.offset(committed()[0].0), None);
}

#[test]
fn c10_seven_days_go_on_over_a_restart() {
    let mut harness = Harness::new(&[("a", 1, 1)]);
    harness.commit(None, committed()).unwrap();
    harness.pass(6 * DAY);
    harness.restart();
    assert_eq!(harness.offset(committed()[0].0), Some(5));
    harness.pass(DAY);
    assert_eq!(harness.offset(committed()[0].0), None);
}

#[test]
fn members_have_their_whole_session_after_a_restart() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let first = harness.join(join("m")).unwrap();
    harness.pass(Duration::from_secs(44));
    harness.restart();
    harness.pass(Duration::from_secs(44));
    harness.heartbeat("m", first.epoch, None).unwrap();
}

#[test]
fn c6_rebalance_timeout_starts_anew_after_a_restart() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let join = |member| Join { session_timeout: Duration::from_secs(1000), ..join(member) };
    let m = harness.join(join("m")).unwrap();
    harness.join(join("n")).unwrap();
    let m = harness.refresh("m", m.epoch).unwrap();
    harness.pass(Duration::from_secs(299));
    harness.restart();
    harness.pass(Duration::from_secs(299));
    harness.refresh("m", m.epoch).unwrap();
    harness.pass(Duration::from_secs(1));
    assert!(matches!(harness.refresh("m", m.epoch), Err(GroupError::UnknownMember { .. })));
}
