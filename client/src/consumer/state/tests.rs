use std::time::Duration;

use proptest::prelude::*;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, Compression};
use taffrail_proto::v1::{LogError, Outcome};

use super::*;

/// A batch of `count` records from an offset on.
fn batch(base: i64, count: i32, epoch: i32) -> (BatchHeader, Bytes) {
    let mut builder = BatchBuilder::new();
    for _ in 0..count {
        builder.push(None, Some(b"value"), [], 1).unwrap();
    }
    let mut bytes = builder.build(Compression::None, None).unwrap().to_vec();
    set_base_offset(&mut bytes, base);
    set_leader_epoch(&mut bytes, epoch);
    (BatchHeader::parse(&bytes).unwrap(), bytes.into())
}

fn endpoint() -> Arc<str> {
    "a:1".into()
}

fn fault(reason: Reason, retriable: bool) -> Error {
    LogError {
        reason: reason.into(),
        outcome: Outcome::NotApplied.into(),
        retriable,
        log_start_offset: Some(3),
        log_end_offset: Some(7),
        ..LogError::default()
    }
    .into()
}

/// One partition, read from `offset`.
fn reading(policy: ResetPolicy, offset: i64, end: Option<i64>) -> State {
    let mut state = State::new(policy);
    state.add("t".into(), 0, offset, end);
    state
}

/// Puts the partition on the stream and tells the wanted offset and epoch.
fn subscribe(state: &mut State) -> (u64, i64, Option<i32>) {
    assert_eq!(state.to_add(Instant::now() + Duration::from_secs(5)).0, [0]);
    let add = state.subscribe(0, endpoint());
    let wanted = add.partition.unwrap();
    (add.subscription, wanted.offset, wanted.last_epoch)
}

fn receive(state: &mut State, subscription: u64, batches: Vec<(BatchHeader, Bytes)>, error: Option<Error>) {
    state.received(&endpoint(), Received { subscription, batches, error }, Instant::now(), 0.5);
}

/// The offsets handed out: base of each batch and the range wanted of it.
fn hand_out(state: &mut State) -> Vec<(i64, i64, i64)> {
    let mut out = Vec::new();
    while let Some(item) = state.pop() {
        let Item::Batch(Fetched { slot, header, from, until, .. }) = item else { panic!("{item:?}") };
        let next = header.next_offset().min(until);
        state.handed_out(slot, next, header.leader_epoch);
        out.push((header.base_offset.max(from), next, header.base_offset));
    }
    out
}

fn credit(state: &mut State) -> u64 {
    let bytes = |a: &Action| if let Action::Credit { bytes, .. } = a { *bytes } else { 0 };
    let sum = state.actions.iter().map(bytes).sum();
    state.actions.retain(|a| !matches!(a, Action::Credit { .. }));
    sum
}

#[test]
fn what_lies_before_the_position_is_skipped_and_a_lost_stream_goes_on_behind_what_was_received() {
    let mut state = reading(ResetPolicy::Fail, 2, None);
    let (subscription, offset, epoch) = subscribe(&mut state);
    assert_eq!((offset, epoch), (2, None));
    receive(&mut state, subscription, vec![batch(0, 5, 1), batch(5, 2, 1)], None);
    state.lost("a:1");
    let (again, offset, epoch) = subscribe(&mut state);
    assert_eq!((offset, epoch), (7, Some(1)), "E7: the epoch read last is told");
    receive(&mut state, subscription, vec![batch(7, 1, 1)], None);
    receive(&mut state, again, vec![batch(5, 2, 1), batch(7, 3, 2)], None);
    assert_eq!(hand_out(&mut state), [(2, 5, 0), (5, 7, 5), (7, 10, 7)]);
    assert_eq!(state.position(0), Some(10));
}

#[test]
fn every_byte_comes_back_as_credit_once() {
    let mut state = reading(ResetPolicy::Fail, 0, Some(6));
    let (subscription, ..) = subscribe(&mut state);
    let batches = vec![batch(0, 5, 0), batch(0, 5, 0), batch(5, 5, 0), batch(10, 1, 0)];
    let bytes: u64 = batches.iter().map(|(_, b)| b.len() as u64).sum();
    receive(&mut state, subscription, batches, None);
    receive(&mut state, 99, vec![batch(50, 1, 0)], None);
    hand_out(&mut state);
    assert_eq!(credit(&mut state), bytes + batch(50, 1, 0).1.len() as u64);
    assert_eq!(state.buffered_bytes, 0);
}

#[test]
fn without_follow_it_ends_at_the_end_of_the_start() {
    let mut state = reading(ResetPolicy::Fail, 0, Some(6));
    let (subscription, ..) = subscribe(&mut state);
    receive(&mut state, subscription, vec![batch(0, 4, 0), batch(4, 4, 0)], None);
    assert!(!state.is_over(), "something is to be handed out");
    assert!(state.actions.contains(&Action::Remove { endpoint: endpoint(), slot: 0 }));
    assert_eq!(hand_out(&mut state), [(0, 4, 0), (4, 6, 4)]);
    assert!(state.is_over());
    assert!(reading(ResetPolicy::Fail, 6, Some(6)).is_over(), "nothing to read");
}

#[test]
fn a_seek_voids_what_was_received() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    let (subscription, ..) = subscribe(&mut state);
    receive(&mut state, subscription, vec![batch(0, 5, 3)], None);
    state.seek(0, Position::Offset(100));
    assert!(state.actions.contains(&Action::Remove { endpoint: endpoint(), slot: 0 }));
    receive(&mut state, subscription, vec![batch(5, 5, 3)], None);
    assert_eq!((hand_out(&mut state), state.position(0)), (vec![], Some(100)));
    let (_, offset, epoch) = subscribe(&mut state);
    assert_eq!((offset, epoch), (100, None), "what was read elsewhere proves nothing here");
}

#[test]
fn a_seek_to_a_place_without_a_number_waits_for_its_own_answer() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    state.seek(0, Position::Latest);
    state.seek(0, Position::Earliest);
    let tickets: Vec<_> = state.actions.drain(..).collect();
    let [Action::Resolve { ticket: first, .. }, Action::Resolve { ticket: second, at: Position::Earliest, .. }] =
        tickets[..]
    else {
        panic!("{tickets:?}")
    };
    state.resolved(0, first, Ok(50));
    assert_eq!((state.position(0), state.to_add(Instant::now()).0), (None, vec![]));
    state.resolved(0, second, Ok(4));
    assert_eq!((state.position(0), state.to_add(Instant::now()).0), (Some(4), vec![0]));
}

#[test]
fn a_pause_goes_on_where_the_application_stopped() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    let (subscription, ..) = subscribe(&mut state);
    receive(&mut state, subscription, vec![batch(0, 2, 1), batch(2, 2, 1)], None);
    let Some(Item::Batch(first)) = state.pop() else { panic!("a batch was received") };
    state.handed_out(0, first.header.next_offset(), 1);
    state.pause(0);
    assert_eq!((hand_out(&mut state), state.to_add(Instant::now()).0), (vec![], vec![]));
    state.resume(0);
    let (_, offset, epoch) = subscribe(&mut state);
    assert_eq!((offset, epoch), (2, Some(1)));
}

#[test]
fn passing_faults_are_tried_again_after_a_wait() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    for (reason, retriable) in [(Reason::NotLeader, false), (Reason::Unavailable, true)] {
        let (subscription, ..) = subscribe(&mut state);
        receive(&mut state, subscription, vec![], Some(fault(reason, retriable)));
        let (now, at) = state.to_add(Instant::now());
        assert!(now.is_empty() && at.is_some());
        assert!(state.actions.contains(&Action::RenewMetadata));
    }
    assert!(state.pop().is_none());
}

#[test]
fn a_lasting_fault_is_told_behind_what_was_received_and_the_others_go_on() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    state.add("t".into(), 1, 0, None);
    let (subscription, other) =
        (state.subscribe(0, endpoint()).subscription, state.subscribe(1, endpoint()).subscription);
    receive(&mut state, subscription, vec![batch(0, 1, 0)], Some(fault(Reason::DataCorrupt, false)));
    receive(&mut state, other, vec![batch(0, 1, 0)], None);
    assert!(matches!(state.pop(), Some(Item::Batch(_))));
    assert!(matches!(state.pop(), Some(Item::Error(e)) if e.kind() == ErrorKind::DataCorrupt));
    assert!(matches!(state.pop(), Some(Item::Batch(Fetched { slot: 1, .. }))));
    assert!(!state.is_over());
    state.seek(0, Position::Offset(2));
    assert_eq!(state.to_add(Instant::now()).0, [0], "a seek takes it up again");
}

#[test]
fn e7_a_position_that_is_not_in_the_log_follows_the_policy() {
    let cases = [
        (ResetPolicy::Earliest, Reason::LogTruncated, Some(7), None),
        (ResetPolicy::Earliest, Reason::OffsetOutOfRange, None, Some(Position::Earliest)),
        (ResetPolicy::Latest, Reason::LogTruncated, None, Some(Position::Latest)),
        (ResetPolicy::Latest, Reason::OffsetOutOfRange, None, Some(Position::Latest)),
    ];
    for (policy, reason, offset, lookup) in cases {
        let mut state = reading(policy, 9, None);
        let (subscription, ..) = subscribe(&mut state);
        receive(&mut state, subscription, vec![], Some(fault(reason, false)));
        let asked =
            state.actions.iter().find_map(|a| if let Action::Resolve { at, .. } = a { Some(*at) } else { None });
        assert_eq!(asked, lookup, "{policy:?} {reason:?}");
        if let Some(offset) = offset {
            assert_eq!(subscribe(&mut state).1, offset);
        }
    }
    let mut state = reading(ResetPolicy::Fail, 9, None);
    let (subscription, ..) = subscribe(&mut state);
    receive(&mut state, subscription, vec![], Some(fault(Reason::LogTruncated, false)));
    let Some(Item::Error(error)) = state.pop() else { panic!("the application is told") };
    assert_eq!((error.kind(), error.log_end_offset()), (ErrorKind::LogTruncated, Some(7)));
    assert!(state.is_over());
}

#[test]
fn what_a_follower_does_not_do_the_leader_is_asked_for_at_once_and_a_follower_again_after_a_while() {
    let mut state = reading(ResetPolicy::Fail, 0, None);
    for fail in [
        |state: &mut State, subscription| receive(state, subscription, vec![], Some(fault(Reason::NotLeader, true))),
        |state: &mut State, subscription| receive(state, subscription, vec![], Some(fault(Reason::Internal, false))),
        |state: &mut State, _| state.lost_near("a:1", Instant::now()),
    ] {
        assert!(state.may_be_near(0, Instant::now() + Duration::from_mins(1)));
        let (subscription, ..) = subscribe(&mut state);
        state.set_near(0);
        assert_eq!(state.on_streams().map(|(slot, _, is_near)| (slot, is_near)).collect::<Vec<_>>(), [(0, true)]);
        fail(&mut state, subscription);
        assert_eq!(state.to_add(Instant::now()).0, [0], "it goes on at once");
        assert!(!state.may_be_near(0, Instant::now()) && state.near_again(Instant::now()).is_some());
    }
    assert!(state.pop().is_none(), "nothing is told");
    let (subscription, ..) = subscribe(&mut state);
    state.set_near(0);
    receive(&mut state, subscription, vec![], Some(fault(Reason::OffsetOutOfRange, false)));
    assert!(matches!(state.pop(), Some(Item::Error(_))), "the leader has confirmed that");
}

/// What may happen to a consumer of one partition with batches of three records.
#[derive(Clone, Copy, Debug)]
enum Step {
    Receive(u8),
    Late(u8),
    HandOut,
    Lose,
    Refuse,
    Pause,
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u8..4).prop_map(Step::Receive),
        1 => (1_u8..4).prop_map(Step::Late),
        4 => Just(Step::HandOut),
        1 => Just(Step::Lose),
        1 => Just(Step::Refuse),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
    ]
}

/// The batches from the one that contains an offset on, as a broker reads them.
fn read(offset: i64, count: u8) -> Vec<(BatchHeader, Bytes)> {
    (0..i64::from(count)).map(|i| batch(offset / 3 * 3 + i * 3, 3, 0)).collect()
}

proptest! {
    #[test]
    fn r1_records_come_in_order_none_twice_and_none_left_out(start in 0_i64..7, steps in prop::collection::vec(step(), 0..80)) {
        let mut state = reading(ResetPolicy::Fail, start, None);
        let (mut stream, mut broken) = (None::<(u64, i64)>, None::<(u64, i64)>);
        let mut next = start;
        let (mut received, mut given_back) = (0, 0);
        for step in steps {
            let long_after = Instant::now() + Duration::from_mins(1);
            if stream.is_none() && !state.to_add(long_after).0.is_empty() {
                let add = state.subscribe(0, endpoint());
                stream = Some((add.subscription, add.partition.unwrap().offset));
            }
            match step {
                Step::Receive(count) => if let Some((subscription, offset)) = &mut stream {
                    let batches = read(*offset, count);
                    *offset = batches.last().unwrap().0.next_offset();
                    received += batches.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
                    receive(&mut state, *subscription, batches, None);
                },
                Step::Late(count) => if let Some((subscription, offset)) = broken {
                    let batches = read(offset, count);
                    received += batches.iter().map(|(_, b)| b.len() as u64).sum::<u64>();
                    receive(&mut state, subscription, batches, None);
                },
                Step::HandOut => if let Some(Item::Batch(fetched)) = state.pop() {
                    prop_assert!(fetched.header.base_offset <= next && next < fetched.header.next_offset());
                    prop_assert!(fetched.from.max(fetched.header.base_offset) == next);
                    next = fetched.header.next_offset();
                    state.handed_out(0, next, 0);
                },
                Step::Lose => {
                    broken = stream.take().or(broken);
                    state.lost("a:1");
                }
                Step::Refuse => if let Some((subscription, _)) = stream.take() {
                    receive(&mut state, subscription, vec![], Some(fault(Reason::NotLeader, true)));
                },
                Step::Pause => {
                    broken = stream.take().or(broken);
                    state.pause(0);
                }
                Step::Resume => state.resume(0),
            }
            given_back += credit(&mut state);
            prop_assert_eq!(state.position(0), Some(next));
            prop_assert_eq!(received, given_back + state.buffered_bytes);
        }
    }
}
