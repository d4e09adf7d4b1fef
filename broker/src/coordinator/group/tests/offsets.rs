use super::super::*;
use super::harness::{GROUP, Harness, at, join, of};

fn one(partition: i32, offset: i64) -> Vec<(TopicPartition, CommittedOffset)> {
    of(1, [partition]).into_iter().map(|partition| (partition, at(offset))).collect()
}

fn partition(number: i32) -> TopicPartition {
    of(1, [number]).pop_first().unwrap()
}

fn stale(member: &str, epoch: i32) -> GroupError {
    GroupError::StaleEpoch { member: member.to_owned(), epoch }
}

/// `m` owns partition 0 since its first epoch; 1 went from it to `n`. Both epochs.
fn handed_over() -> (Harness, i32, i32, i32) {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let first = harness.join(join("m")).unwrap().epoch;
    let n = harness.join(join("n")).unwrap().epoch;
    let m = harness.refresh("m", first).unwrap().epoch;
    harness.heartbeat("m", m, Some(of(1, [0]))).unwrap();
    let n = harness.refresh("n", n).unwrap().epoch;
    (harness, first, m, n)
}

#[test]
fn c8_nothing_committed_is_its_own_answer() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    assert_eq!(harness.offset(partition(0)), None, "no group");
    let joined = harness.join(join("m")).unwrap();
    assert_eq!(harness.offset(partition(0)), None, "no commit");
    harness.commit(Some(("m", joined.epoch)), one(0, 0)).unwrap();
    assert_eq!(harness.offset(partition(0)), Some(0));
    assert_eq!(harness.offset(partition(1)), None);
    let all = harness.ask(Request::FetchOffsets { group: GROUP.to_owned(), partitions: None }).unwrap();
    let Answered::Offsets(all) = all else { panic!() };
    let committed = CommittedOffset { committed_at: harness.wall_millis, ..at(0) };
    assert_eq!(all, [(partition(0), Some(committed))]);
}

#[test]
fn c5_owner_commits_with_any_epoch_since_it_got_the_partition() {
    let (mut harness, first, m, n) = handed_over();
    for epoch in [first, m] {
        assert_eq!(harness.commit(Some(("m", epoch)), one(0, 7)), Ok(vec![]));
    }
    assert_eq!(harness.commit(Some(("n", n)), one(1, 7)), Ok(vec![]));
    assert_eq!(
        harness.commit(Some(("n", n - 1)), one(1, 8)),
        Ok(vec![stale("n", n - 1)]),
        "it joined then, with nothing"
    );
    assert_eq!(harness.offset(partition(1)), Some(7));
}

#[test]
fn c5_commit_of_what_was_lost_is_refused() {
    let (mut harness, first, m, _) = handed_over();
    for epoch in [first, m] {
        assert_eq!(harness.commit(Some(("m", epoch)), one(1, 7)), Ok(vec![stale("m", epoch)]));
    }
    assert_eq!(harness.offset(partition(1)), None);
}

#[test]
fn c5_partition_that_came_back_is_not_committed_with_an_epoch_from_before() {
    let (mut harness, first, m, n) = handed_over();
    harness.leave("n", n, false).unwrap();
    let m = harness.refresh("m", m).unwrap();
    assert_eq!(m.assigned, of(1, 0..2));
    assert_eq!(harness.commit(Some(("m", first)), one(1, 7)), Ok(vec![stale("m", first)]));
    assert_eq!(harness.commit(Some(("m", m.epoch)), one(1, 7)), Ok(vec![]));
}

#[test]
fn c5_member_commits_what_it_is_letting_go_of() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let first = harness.join(join("m")).unwrap().epoch;
    harness.join(join("n")).unwrap();
    let told = harness.refresh("m", first).unwrap();
    assert_eq!(told.revoking, of(1, [1]));
    for epoch in [first, told.epoch] {
        assert_eq!(harness.commit(Some(("m", epoch)), one(1, 7)), Ok(vec![]));
    }
}

#[test]
fn c5_fenced_and_unknown_members_commit_nothing() {
    let (mut harness, first, m, _) = handed_over();
    for epoch in [i32::MIN, -2, -1, 0, first - 1, m + 1, i32::MAX] {
        let fenced = GroupError::Fenced { member: "m".to_owned(), epoch, known: m };
        assert_eq!(harness.commit(Some(("m", epoch)), one(0, 7)), Err(fenced));
    }
    let unknown = GroupError::UnknownMember { group: GROUP.to_owned(), member: "x".to_owned() };
    assert_eq!(harness.commit(Some(("x", m)), one(0, 7)), Err(unknown));
    assert_eq!(harness.offset(partition(0)), None);
}

#[test]
fn one_refused_partition_keeps_no_other_from_being_committed() {
    let (mut harness, _, m, _) = handed_over();
    let offsets = [one(0, 5), one(1, 5), one(2, 5), one(-1, 5)].concat();
    let refused = harness.commit(Some(("m", m)), offsets);
    let unknown = GroupError::UnknownPartition;
    assert_eq!(refused, Ok(vec![stale("m", m), unknown.clone(), unknown]));
    assert_eq!(harness.offset(partition(0)), Some(5));
}

#[test]
fn commits_from_outside_are_for_empty_groups() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    assert_eq!(harness.commit(None, one(0, 3)), Ok(vec![]), "makes the group");
    assert_eq!(harness.describe().unwrap().summary.state, GroupState::Empty);
    let joined = harness.join(join("m")).unwrap();
    assert_eq!(harness.offset(partition(0)), Some(3));
    let not_empty = GroupError::NotEmpty { group: GROUP.to_owned(), members: 1 };
    assert_eq!(harness.commit(None, one(0, 4)), Err(not_empty.clone()));

    let reset = |force| Request::Reset { group: GROUP.to_owned(), offsets: one(0, 9), force };
    assert_eq!(harness.ask(reset(false)), Err(not_empty.clone()));
    assert_eq!(harness.ask(Request::Delete(GROUP.to_owned())), Err(not_empty));
    assert_eq!(harness.ask(reset(true)), Ok(Answered::Done));
    assert_eq!(harness.offset(partition(0)), Some(9));
    harness.leave("m", joined.epoch, false).unwrap();
    assert_eq!(harness.ask(reset(false)), Ok(Answered::Done));
    assert_eq!(harness.ask(Request::Delete(GROUP.to_owned())), Ok(Answered::Done));
    assert_eq!(harness.offset(partition(0)), None);
}

#[test]
fn reset_of_a_partition_that_is_not_there_changes_nothing() {
    let mut harness = Harness::new(&[("a", 1, 2)]);
    let offsets = [one(0, 1), one(2, 1)].concat();
    let reset = Request::Reset { group: GROUP.to_owned(), offsets, force: false };
    assert_eq!(harness.ask(reset), Err(GroupError::UnknownPartition));
    assert_eq!(harness.offset(partition(0)), None);
}
