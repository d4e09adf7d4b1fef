use taffrail_proto::v1::{Assignment, Drain, LogError, Outcome, SessionJoined, TopicPartitions};

use super::*;

const SESSION: Duration = Duration::from_secs(6);

fn member(now: Instant) -> Membership {
    let join = SessionJoin { group: "g".into(), member_id: "m".into(), ..SessionJoin::default() };
    Membership::new(join, SESSION, Duration::from_mins(1), now)
}

fn joined(epoch: i32) -> Frame {
    Frame::Joined(SessionJoined {
        member_id: "m".into(),
        member_epoch: epoch,
        heartbeat_interval_ms: 2_000,
        session_timeout_ms: 6_000,
    })
}

fn assignment(epoch: i32, partitions: &[i32]) -> Frame {
    let topic = TopicPartitions { topic: "t".into(), topic_id: "id".into(), partitions: partitions.to_vec() };
    Frame::Assignment(Assignment { member_epoch: epoch, partitions: vec![topic] })
}

fn owned(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    let tp = |&partition| TopicPartition { topic: "t".into(), topic_id: "id".into(), partition };
    partitions.iter().map(tp).collect()
}

fn told(reason: Reason, retriable: bool) -> Error {
    let outcome = Outcome::NotApplied.into();
    LogError { reason: reason.into(), retriable, outcome, ..LogError::default() }.into()
}

/// In the group with epoch 3 and two partitions.
fn taken_in(now: Instant) -> Membership {
    let mut member = member(now);
    member.joining(now);
    member.on_frame(joined(3));
    member.on_frame(assignment(3, &[0, 1]));
    member.set_owned(owned(&[0, 1]), 3);
    member
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_first_join_has_no_epoch_and_owns_nothing() {
    let now = Instant::now();
    let join = member(now).joining(now);
    assert_eq!((join.member_epoch, join.owned.len(), join.member_id.as_str()), (0, 0, "m"));
}

#[tokio::test]
async fn a_broken_stream_is_resumed_with_epoch_and_partitions() {
    let now = Instant::now();
    let mut member = taken_in(now);
    let era = member.view().era;
    assert_eq!(member.on_error(&crate::consumer::ended("reset"), now), Ended::Again);
    let join = member.joining(now + secs(1));
    assert_eq!((join.member_epoch, &join.owned[0].partitions), (3, &vec![0, 1]));
    assert_eq!((member.view().era, member.view().target), (era, Some(owned(&[0, 1]))), "nothing is lost meanwhile");
}

#[tokio::test]
async fn a_member_that_was_removed_joins_anew_only_when_the_application_knows() {
    for reason in [Reason::MemberFenced, Reason::UnknownMember, Reason::UnknownGroup] {
        let now = Instant::now();
        let mut member = taken_in(now);
        let era = member.view().era;
        assert_eq!(member.on_error(&told(reason, false), now), Ended::WhenToldOfLoss);
        assert!(member.is_lost());
        let view = member.view();
        assert_eq!((view.era, view.target, view.epoch), (era + 1, None, 0));
        // What the application said before it knew is void.
        member.set_owned(owned(&[0]), 3);
        member.told_of_loss();
        assert!(!member.is_lost());
        let join = member.joining(now);
        assert_eq!((join.member_epoch, join.owned.len()), (0, 0));
        member.on_frame(joined(9));
        assert!(member.owned().is_empty());
    }
}

#[tokio::test]
async fn heartbeats_come_at_the_interval_that_the_group_wants() {
    let now = Instant::now();
    let mut member = taken_in(now);
    assert_eq!(member.wakes_at(None), now + secs(2));
    assert_eq!(member.on_time(now + secs(1), None), Step::Wait);
    assert_eq!(member.on_time(now + secs(2), None), Step::Heartbeat);
    member.sent(now + secs(2));
    assert_eq!(member.on_time(now + secs(3), None), Step::Wait);
    assert_eq!(member.view().alive_until, now + secs(8));
}

#[tokio::test]
async fn a_process_that_slept_for_longer_than_its_session_asks_before_it_goes_on() {
    let now = Instant::now();
    let mut member = taken_in(now);
    let awake = now + secs(7);
    assert!(member.view().alive_until <= awake, "nothing is handed out");
    assert_eq!(member.on_time(awake, None), Step::Reopen);
    member.on_error(&crate::consumer::ended("asks"), awake);
    member.joining(awake);
    assert!(member.view().alive_until <= awake, "the question is no answer");
    member.on_frame(joined(3));
    assert_eq!(member.view().alive_until, awake + SESSION);
}

#[tokio::test]
async fn an_application_that_is_stuck_leaves_and_one_that_waits_does_not() {
    let now = Instant::now();
    let mut member = taken_in(now);
    let later = now + secs(60);
    member.sent(later);
    assert_eq!(member.on_time(later, Some(now)), Step::Leave);
    assert_eq!(member.on_time(later, None), Step::Wait);
    assert_eq!(member.wakes_at(Some(now + secs(1))), now + secs(61));
}

#[tokio::test]
async fn a_join_without_an_answer_is_made_again() {
    let now = Instant::now();
    let mut member = member(now);
    member.joining(now);
    assert_eq!(member.on_time(now + secs(9), None), Step::Wait);
    assert_eq!(member.wakes_at(None), now + JOIN_TIMEOUT);
    assert_eq!(member.on_time(now + JOIN_TIMEOUT, None), Step::Reopen);
}

#[tokio::test]
async fn an_instance_id_in_use_is_waited_for_as_long_as_a_session() {
    let now = Instant::now();
    let mut member = member(now);
    let error = told(Reason::InstanceInUse, true);
    assert_eq!(member.on_error(&error, now), Ended::Again);
    assert_eq!(member.on_error(&error, now + SESSION), Ended::Again);
    assert_eq!(member.on_error(&error, now + SESSION + INSTANCE_GRACE), Ended::Never);
    assert!(member.view().failed.is_some());
}

#[tokio::test]
async fn a_coordinator_that_loads_is_waited_for_and_a_refusal_is_told() {
    let now = Instant::now();
    let mut member = taken_in(now);
    assert_eq!(member.on_error(&told(Reason::CoordinatorLoading, true), now), Ended::Again);
    assert!(member.view().waits_for.is_some() && member.view().failed.is_none());
    assert_eq!(member.on_error(&told(Reason::Unauthorized, false), now), Ended::Never);
    assert_eq!(member.view().failed.map(|e| e.kind()), Some(ErrorKind::Unauthorized));
}

#[tokio::test]
async fn a_broker_that_stops_is_left_and_the_membership_stays() {
    let now = Instant::now();
    let mut member = taken_in(now);
    assert!(member.on_frame(Frame::Drain(Drain::default())));
    assert_eq!(member.joining(now).member_epoch, 3);
}

#[tokio::test]
async fn a_new_assignment_replaces_the_one_before() {
    let mut member = taken_in(Instant::now());
    member.on_frame(assignment(4, &[1, 2]));
    let view = member.view();
    assert_eq!((view.epoch, view.target), (4, Some(owned(&[1, 2]))));
}

#[tokio::test]
async fn c6_no_heartbeat_gives_away_what_the_application_may_be_about_to_take_over() {
    let mut member = taken_in(Instant::now());
    member.on_frame(assignment(4, &[0, 1, 2]));
    assert_eq!(*member.owned(), owned(&[0, 1, 2]), "the application is at it");
    // The group wants it back before the application has said that it has it.
    member.on_frame(assignment(5, &[0, 1]));
    assert!(member.owned().contains(&owned(&[2]).into_iter().next().unwrap()));
    member.set_owned(owned(&[0, 1, 2]), 4);
    assert_eq!(*member.owned(), owned(&[0, 1, 2]));
    member.set_owned(owned(&[0, 1]), 5);
    assert_eq!(*member.owned(), owned(&[0, 1]), "now it is let go");
}
