use proptest::prelude::*;
use taffrail_proto::record::BatchHeader;

use super::*;
use crate::storage::producers::SequenceError;

/// A batch of `records` records; sequenced if it has a producer (id, epoch, first sequence).
fn batch(records: i32, producer: Option<(i64, i16, i32)>) -> BatchHeader {
    let (producer_id, producer_epoch, base_sequence) = producer.unwrap_or((-1, -1, -1));
    BatchHeader {
        base_offset: 0,
        batch_length: 100,
        leader_epoch: -1,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count: records,
    }
}

fn empty(leader_epoch: i32) -> State {
    State::new(Extent::default(), leader_epoch, Producers::new(), None)
}

/// Decides on a batch and puts it on its way.
fn place(state: &mut State, batch: &BatchHeader) -> Result<Decision, AppendError> {
    let decision = state.decide(batch, Acks::All, None)?;
    if let Decision::Append { base_offset } = decision {
        state.placed(&BatchHeader { base_offset, ..*batch }, 1);
    }
    Ok(decision)
}

#[test]
fn offsets_are_given_ahead_of_what_is_written() {
    let mut state = empty(0);
    assert_eq!(place(&mut state, &batch(3, None)).unwrap(), Decision::Append { base_offset: 0 });
    assert_eq!(place(&mut state, &batch(2, None)).unwrap(), Decision::Append { base_offset: 3 });
    assert_eq!((state.log_end(), state.high_watermark()), (0, 0));
    state.written(3, Duration::ZERO);
    assert_eq!((state.log_end(), state.high_watermark()), (3, 3));
}

#[test]
fn p1_a_batch_in_flight_is_known_for_a_repeat() {
    let mut state = empty(0);
    let first = batch(3, Some((7, 0, 0)));
    place(&mut state, &first).unwrap();
    assert_eq!(place(&mut state, &first).unwrap(), Decision::Duplicate { base_offset: Some(0), end: 3 });
}

#[test]
fn p5_a_failed_append_leaves_no_trace() {
    let mut state = empty(0);
    let first = batch(3, Some((7, 0, 0)));
    place(&mut state, &first).unwrap();
    state.written(3, Duration::ZERO);
    let log = state.producers.clone();
    let second = batch(3, Some((7, 0, 3)));
    place(&mut state, &second).unwrap();
    state.roll_back(3, log, Duration::ZERO);
    assert_eq!(place(&mut state, &second).unwrap(), Decision::Append { base_offset: 3 });
}

#[test]
fn e2_a_leader_epoch_is_checked_when_it_is_there() {
    let state = empty(5);
    assert!(state.decide(&batch(1, None), Acks::All, None).is_ok());
    assert!(state.decide(&batch(1, None), Acks::All, Some(5)).is_ok());
    let lower = state.decide(&batch(1, None), Acks::All, Some(4)).unwrap_err();
    assert!(matches!(lower, AppendError::Epoch(EpochError::Fenced { given: 4, current: 5 })), "{lower}");
    let higher = state.decide(&batch(1, None), Acks::All, Some(6)).unwrap_err();
    assert!(matches!(higher, AppendError::Epoch(EpochError::Unknown { given: 6, current: 5 })), "{higher}");
}

#[test]
fn p6_an_unknown_producer_is_told_the_log_start() {
    let mut state = empty(0);
    place(&mut state, &batch(10, None)).unwrap();
    state.written(10, Duration::ZERO);
    state.trimmed(4);
    let error = state.decide(&batch(1, Some((7, 0, 5))), Acks::All, None).unwrap_err();
    assert!(
        matches!(error, AppendError::Sequence { error: SequenceError::Unknown, log_start: 4 }),
        "{error}: sequences are checked against the producer, and its records may be gone"
    );
}

#[test]
fn offsets_end_before_they_overflow() {
    let state = State::new(Extent { start: 0, end: i64::MAX - 2 }, 0, Producers::new(), None);
    assert!(state.decide(&batch(2, None), Acks::All, None).is_ok());
    assert!(matches!(state.decide(&batch(3, None), Acks::All, None), Err(AppendError::OffsetsExhausted)));
}

#[test]
fn q1_the_log_start_only_goes_up() {
    let mut state = State::new(Extent { start: 5, end: 9 }, 0, Producers::new(), None);
    state.trimmed(3);
    assert_eq!(state.log_start(), 5);
    state.trimmed(7);
    assert_eq!(state.log_start(), 7);
}

/// Of a log of 10 records, at the end of which this epoch begins, with these in-sync replicas of 0, 1 and 2.
fn replicated(isr: &[i32], min_in_sync_replicas: i32) -> State {
    let replica = |broker: &i32| Replica { broker: *broker, incarnation: 1 };
    let view = View {
        me: replica(&0),
        leader_epoch: 3,
        partition_epoch: 1,
        replicas: vec![0, 1, 2],
        isr: isr.iter().map(replica).collect(),
        min_in_sync_replicas,
    };
    let extent = Extent { start: 0, end: 10 };
    let leader = Leader::new(view, 4, extent, Duration::ZERO);
    State::new(extent, 3, Producers::new(), Some(Box::new(leader)))
}

#[test]
fn h1_what_others_have_not_is_not_committed() {
    let mut state = replicated(&[0, 1], 2);
    place(&mut state, &batch(5, None)).unwrap();
    state.written(15, Duration::ZERO);
    assert_eq!((state.log_end(), state.high_watermark(), state.in_sync()), (15, 4, 2));
    state.fetched(Replica { broker: 1, incarnation: 1 }, 12, Duration::ZERO);
    let snapshot = state.snapshot(false);
    assert_eq!((snapshot.log_end, snapshot.high_watermark, snapshot.last_stable), (15, 12, 12));
}

#[test]
fn l1_an_append_for_all_is_refused_while_too_few_are_in_sync_but_not_one_that_is_there() {
    let mut state = replicated(&[0, 1], 2);
    let first = batch(3, Some((7, 0, 0)));
    place(&mut state, &first).unwrap();
    let short = View { partition_epoch: 2, ..replicated(&[0], 2).replication.unwrap().view().clone() };
    state.adopt(short, Duration::ZERO);
    let refused = state.decide(&batch(1, None), Acks::All, None);
    assert!(matches!(refused, Err(AppendError::NotEnoughReplicas { in_sync: 1, min: 2 })), "{refused:?}");
    for acks in [Acks::Leader, Acks::None] {
        assert_eq!(state.decide(&batch(1, None), acks, None).unwrap(), Decision::Append { base_offset: 13 });
    }
    let repeat = state.decide(&first, Acks::All, None).unwrap();
    assert_eq!(repeat, Decision::Duplicate { base_offset: Some(10), end: 13 });
}

/// What happens to a partition with one idempotent producer that retries all that is not acknowledged.
#[derive(Clone, Copy, Debug)]
enum Step {
    Send(i32),
    /// Sends again a batch that was sent before, by its distance from the newest.
    Repeat(usize),
    /// The oldest batch in flight is written.
    Written,
    /// The oldest batch in flight fails, and with it all others.
    Failed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1i32..4).prop_map(Step::Send),
        2 => (0usize..5).prop_map(Step::Repeat),
        4 => Just(Step::Written),
        1 => Just(Step::Failed),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    /// The log is modelled as the headers it holds; its producer state is a replay of them (P5).
    #[test]
    fn p1_whatever_fails_and_is_sent_again_each_sequence_is_stored_once_and_offsets_are_dense(steps in steps()) {
        let (mut state, mut sent, mut next_sequence) = (empty(0), Vec::<BatchHeader>::new(), 0);
        let (mut log, mut in_flight) = (Vec::<BatchHeader>::new(), Vec::<BatchHeader>::new());
        for step in steps {
            let batch = match step {
                Step::Send(records) => {
                    let new = batch(records, Some((7, 0, next_sequence)));
                    next_sequence += records;
                    sent.push(new);
                    Some(new)
                }
                Step::Repeat(back) => sent.len().checked_sub(back + 1).map(|i| sent[i]),
                Step::Written => {
                    if !in_flight.is_empty() {
                        let written = in_flight.remove(0);
                        state.written(written.next_offset(), Duration::ZERO);
                        log.push(written);
                    }
                    None
                }
                Step::Failed => {
                    in_flight.clear();
                    let mut producers = Producers::new();
                    log.iter().filter_map(Sequenced::of).for_each(|s| producers.record(&s, 1));
                    state.roll_back(log.last().map_or(0, BatchHeader::next_offset), producers, Duration::ZERO);
                    None
                }
            };
            let Some(batch) = batch else { continue };
            if let Ok(Decision::Append { base_offset }) = state.decide(&batch, Acks::All, None) {
                let placed = BatchHeader { base_offset, ..batch };
                state.placed(&placed, 1);
                in_flight.push(placed);
            }
        }
        log.append(&mut in_flight);
        let mut end = (0, 0);
        for batch in &log {
            prop_assert_eq!((batch.base_offset, batch.base_sequence), end);
            end = (batch.next_offset(), batch.base_sequence + batch.record_count);
        }
    }
}
