use std::time::Duration;

use super::super::*;
use super::harness::{Harness, join, of, to};

#[test]
fn c6_partition_waits_for_its_owner_to_let_go() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let m = harness.join(join("m")).unwrap();
    let n = harness.join(join("n")).unwrap();
    assert!(n.assigned.is_empty(), "all is owned");
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Reconciling);
    assert_eq!(harness.events.pop().unwrap().members, ["m"], "what it should own has changed");

    let m = harness.refresh("m", m.epoch).unwrap();
    assert_eq!((&m.assigned, &m.revoking), (&of(1, [0]), &of(1, [1])));
    assert!(harness.refresh("n", n.epoch).unwrap().assigned.is_empty(), "not let go yet");
    harness.heartbeat("m", m.epoch, Some(of(1, 0..2))).unwrap();
    assert!(harness.refresh("n", n.epoch).unwrap().assigned.is_empty(), "still not");
    harness.events.clear();
    harness.heartbeat("m", m.epoch, Some(of(1, [0]))).unwrap();
    assert_eq!(harness.events.pop().unwrap().members, ["n"], "it can take the partition now");
    assert_eq!(harness.refresh("n", n.epoch).unwrap().assigned, of(1, [1]));
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Stable);
}

#[test]
fn c6_heartbeat_from_before_the_revocation_lets_go_of_nothing() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let m = harness.join(join("m")).unwrap();
    let n = harness.join(join("n")).unwrap();
    harness.refresh("m", m.epoch).unwrap();
    let late = harness.heartbeat("m", m.epoch, Some(of(1, []))).unwrap();
    assert_eq!(late.revoking, of(1, [1]), "said before it was told");
    let unsaid = harness.heartbeat("m", late.epoch, None).unwrap();
    assert_eq!(unsaid.revoking, of(1, [1]), "said nothing");
    assert!(harness.refresh("n", n.epoch).unwrap().assigned.is_empty());
}

#[test]
fn c6_member_that_holds_on_is_fenced_after_its_rebalance_timeout() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let m = harness.join(join("m")).unwrap();
    let n = harness.join(join("n")).unwrap();
    let m = harness.refresh("m", m.epoch).unwrap();
    for _ in 0..29 {
        harness.pass(Duration::from_secs(10));
        harness.heartbeat("m", m.epoch, Some(of(1, 0..2))).unwrap();
        assert!(harness.heartbeat("n", n.epoch, None).unwrap().assigned.is_empty());
    }
    harness.pass(Duration::from_secs(10));
    assert!(matches!(harness.heartbeat("m", m.epoch, None), Err(GroupError::UnknownMember { .. })));
    assert_eq!(harness.refresh("n", n.epoch).unwrap().assigned, of(1, 0..2));
}

#[test]
fn member_that_lets_go_in_time_stays() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let m = harness.join(join("m")).unwrap();
    let n = harness.join(join("n")).unwrap();
    let m = harness.refresh("m", m.epoch).unwrap();
    harness.heartbeat("m", m.epoch, Some(of(1, [0]))).unwrap();
    for _ in 0..20 {
        harness.pass(Duration::from_secs(30));
        harness.heartbeat("m", m.epoch, None).unwrap();
        harness.heartbeat("n", n.epoch, None).unwrap();
    }
}

#[test]
fn partitions_of_a_leaving_member_alone_move() {
    let mut harness = Harness::new(&[("a", 1, 64)]);
    let ids: Vec<String> = (0..8).map(|at| format!("m{at}")).collect();
    for id in &ids {
        harness.join(join(id)).unwrap();
    }
    settle(&mut harness, &ids);
    let before: Vec<_> = harness.describe().unwrap().members;
    assert!(before.iter().all(|member| member.assigned.len() == 8));
    let gone = before.iter().find(|member| member.member == "m3").unwrap();
    harness.leave("m3", gone.epoch, false).unwrap();
    let rest: Vec<String> = ids.iter().filter(|id| *id != "m3").cloned().collect();
    settle(&mut harness, &rest);
    for member in harness.describe().unwrap().members {
        let had = &before.iter().find(|before| before.member == member.member).unwrap().assigned;
        assert!(had.is_subset(&member.assigned));
        assert!(member.assigned.difference(had).all(|partition| gone.assigned.contains(partition)));
    }
}

/// Everyone does what they are told until nothing changes.
pub(super) fn settle(harness: &mut Harness, ids: &[String]) {
    for _ in 0..4 {
        for id in ids {
            let member = harness.describe().unwrap().members.into_iter().find(|member| member.member == *id).unwrap();
            let told = harness.refresh(id, member.epoch).unwrap();
            harness.heartbeat(id, told.epoch, Some(told.assigned)).unwrap();
        }
    }
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Stable);
}

#[test]
fn member_gets_what_is_free_while_it_lets_go_of_the_rest() {
    let mut harness = Harness::new(&[("a", 1, 2), ("b", 2, 2)]);
    let m = harness.join(join("m")).unwrap();
    let changed = harness.join(Join { epoch: m.epoch, owned: m.assigned, subscription: to(&["b"]), ..join("m") });
    let changed = changed.unwrap();
    assert_eq!((changed.assigned, changed.revoking), (of(2, 0..2), of(1, 0..2)));
}

#[test]
fn range_gives_the_same_numbers_of_each_topic_to_one_member() {
    let mut harness = Harness::new(&[("a", 1, 4), ("b", 2, 4)]);
    let ids = ["m".to_owned(), "n".to_owned()];
    for id in &ids {
        let assignor = Some(AssignorName::Range);
        harness.join(Join { assignor, subscription: to(&["a", "b"]), ..join(id) }).unwrap();
    }
    settle(&mut harness, &ids);
    let described = harness.describe().unwrap();
    assert_eq!(described.assignor, AssignorName::Range);
    let halves = [&of(1, 0..2) | &of(2, 0..2), &of(1, 2..4) | &of(2, 2..4)];
    let assigned: Vec<_> = described.members.into_iter().map(|member| member.assigned).collect();
    assert_eq!(assigned, halves);
}
