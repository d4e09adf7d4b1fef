use proptest::prelude::*;

use super::*;

fn tp(partition: i32) -> TopicPartition {
    of("t", "id", partition)
}

fn of(topic: &str, id: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), topic_id: id.into(), partition }
}

fn set(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    partitions.iter().copied().map(tp).collect()
}

fn owning(partitions: &[i32]) -> GroupState {
    let mut state = GroupState::default();
    for partition in partitions {
        state.assigned(tp(*partition), None);
    }
    state
}

fn hand_out(state: &mut GroupState, partition: i32, next: i64) {
    state.handed_out(&"t".into(), partition, Place { offset: next, epoch: Some(1) });
}

fn offsets(commits: &[OffsetCommit]) -> Vec<(i32, i64)> {
    commits.iter().map(|c| (c.partition, c.offset)).collect()
}

#[test]
fn only_what_differs_moves() {
    let state = owning(&[0, 1, 2]);
    let changes = state.changes(&set(&[1, 2, 3]));
    assert_eq!((changes.revoke, changes.add), (vec![tp(0)], vec![tp(3)]));
    assert_eq!(state.changes(&set(&[0, 1, 2])), Changes::default());
}

#[test]
fn a_topic_made_again_under_its_name_is_another() {
    let state = owning(&[0]);
    let again = of("t", "other", 0);
    let changes = state.changes(&BTreeSet::from([again.clone()]));
    assert_eq!((changes.revoke, changes.add), (vec![tp(0)], vec![again]));
}

#[test]
fn a_revocation_is_announced_once_however_often_it_is_broken_off() {
    let mut state = owning(&[0, 1]);
    let first = state.changes(&set(&[1]));
    assert_eq!(first.announce, [tp(0)]);
    state.announced(&first.announce);
    let second = state.changes(&set(&[1]));
    assert_eq!((second.announce, second.revoke), (vec![], vec![tp(0)]));
    state.released(&[tp(0)]);
    assert_eq!(state.changes(&set(&[1])), Changes::default());
}

#[test]
fn c9_what_the_latest_call_of_next_handed_out_is_not_finished() {
    let mut state = owning(&[0, 1]);
    state.next_called();
    hand_out(&mut state, 0, 10);
    assert!(state.finished().is_empty());
    state.next_called();
    hand_out(&mut state, 0, 20);
    hand_out(&mut state, 1, 5);
    assert_eq!(offsets(&state.finished()), [(0, 10)]);
    assert_eq!(offsets(&state.all()), [(0, 20), (1, 5)]);
    state.next_called();
    assert_eq!(offsets(&state.finished()), [(0, 20), (1, 5)]);
}

#[test]
fn what_is_committed_is_not_committed_again() {
    let mut state = owning(&[0]);
    hand_out(&mut state, 0, 10);
    let commits = state.all();
    assert_eq!((commits[0].leader_epoch, commits[0].offset), (Some(1), 10));
    state.committed(&commits);
    assert!(state.all().is_empty());
    hand_out(&mut state, 0, 11);
    assert_eq!(offsets(&state.all()), [(0, 11)]);
}

#[test]
fn where_the_group_had_stopped_is_committed_already() {
    let mut state = GroupState::default();
    state.assigned(tp(0), Some(10));
    hand_out(&mut state, 0, 10);
    assert!(state.all().is_empty());
}

#[test]
fn at_a_revocation_only_what_goes_and_is_wanted_is_committed() {
    let mut state = owning(&[0, 1, 2]);
    for partition in 0..3 {
        hand_out(&mut state, partition, 10);
    }
    state.next_called();
    hand_out(&mut state, 0, 20);
    let (gone, none) = ([tp(0), tp(1)], RevokeCommit::default());
    assert!(state.at_revoke(&gone, &none, false).is_empty(), "the application commits by itself");
    assert_eq!(offsets(&state.at_revoke(&gone, &none, true)), [(0, 10), (1, 10)]);
    let mut wish = RevokeCommit::default();
    wish.offset("t", 1, 7);
    assert_eq!(offsets(&state.at_revoke(&gone, &wish, true)), [(0, 10), (1, 7)]);
    wish.handed_out();
    assert_eq!(offsets(&state.at_revoke(&gone, &wish, false)), [(0, 20), (1, 7)]);
}

#[test]
fn after_a_loss_nothing_is_left_to_commit() {
    let mut state = owning(&[0, 1]);
    hand_out(&mut state, 0, 10);
    assert_eq!(state.lost(), [tp(0), tp(1)]);
    state.assigned(tp(0), Some(3));
    state.next_called();
    assert!(state.all().is_empty() && state.finished().is_empty());
    assert!(!state.owns("t", 1));
}

#[test]
fn a_seek_forgets_what_was_handed_out() {
    let mut state = owning(&[0]);
    hand_out(&mut state, 0, 10);
    state.sought("t", 0);
    state.next_called();
    assert!(state.all().is_empty() && state.finished().is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Next,
    HandOut(i32, i64),
    CommitFinished,
    Move(i32),
    Lose,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Next),
        6 => (0..4, 1..5i64).prop_map(|(p, n)| Op::HandOut(p, n)),
        2 => Just(Op::CommitFinished),
        1 => (0..4).prop_map(Op::Move),
        1 => Just(Op::Lose),
    ];
    prop::collection::vec(op, 1..80)
}

proptest! {
    /// Auto-commit over any history: never ahead of what was handed out before the latest call of `next`, never back (C9).
    #[test]
    fn c9_auto_commit_never_runs_ahead_of_the_application(ops in ops()) {
        let mut state = owning(&[0, 1, 2, 3]);
        let (mut position, mut before_next, mut committed) = ([0i64; 4], [0i64; 4], [0i64; 4]);
        for op in ops {
            match op {
                Op::Next => {
                    state.next_called();
                    before_next = position;
                }
                Op::HandOut(p, n) => {
                    position[p as usize] += n;
                    hand_out(&mut state, p, position[p as usize]);
                }
                Op::CommitFinished => {
                    let commits = state.finished();
                    for commit in &commits {
                        let p = commit.partition as usize;
                        prop_assert!(commit.offset <= before_next[p] && commit.offset > committed[p]);
                        committed[p] = commit.offset;
                    }
                    state.committed(&commits);
                }
                // Goes to another, which goes on where the group stopped, and comes back.
                Op::Move(p) => {
                    let commits = state.at_revoke(&[tp(p)], &RevokeCommit::default(), true);
                    let p = p as usize;
                    for commit in &commits {
                        prop_assert!(commit.offset <= before_next[p]);
                        committed[p] = commit.offset;
                    }
                    state.released(&[tp(p as i32)]);
                    (position[p], before_next[p]) = (committed[p], committed[p]);
                    state.assigned(tp(p as i32), Some(committed[p]));
                }
                Op::Lose => {
                    prop_assert_eq!(state.lost().len(), 4);
                    for p in 0..4 {
                        state.assigned(tp(p), Some(committed[p as usize]));
                    }
                    (position, before_next) = (committed, committed);
                }
            }
        }
    }
}
