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
    State::new(Extent::default(), leader_epoch, Producers::new())
}

/// Decides on a batch and puts it on its way.
fn place(state: &mut State, batch: &BatchHeader) -> Result<Decision, AppendError> {
    let decision = state.decide(batch, None)?;
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
    state.written(3);
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
    state.written(3);
    let log = state.producers.clone();
    let second = batch(3, Some((7, 0, 3)));
    place(&mut state, &second).unwrap();
    state.roll_back(3, log);
    assert_eq!(place(&mut state, &second).unwrap(), Decision::Append { base_offset: 3 });
}

#[test]
fn e2_a_leader_epoch_is_checked_when_it_is_there() {
    let state = empty(5);
    assert!(state.decide(&batch(1, None), None).is_ok());
    assert!(state.decide(&batch(1, None), Some(5)).is_ok());
    let lower = state.decide(&batch(1, None), Some(4)).unwrap_err();
    assert!(matches!(lower, AppendError::Epoch(EpochError::Fenced { given: 4, current: 5 })), "{lower}");
    let higher = state.decide(&batch(1, None), Some(6)).unwrap_err();
    assert!(matches!(higher, AppendError::Epoch(EpochError::Unknown { given: 6, current: 5 })), "{higher}");
}

#[test]
fn p6_an_unknown_producer_is_told_the_log_start() {
    let mut state = empty(0);
    place(&mut state, &batch(10, None)).unwrap();
    state.written(10);
    state.trimmed(4);
    let error = state.decide(&batch(1, Some((7, 0, 5))), None).unwrap_err();
    assert!(
        matches!(error, AppendError::Sequence { error: SequenceError::Unknown, log_start: 4 }),
        "{error}: sequences are checked against the producer, and its records may be gone"
    );
}

#[test]
fn offsets_end_before_they_overflow() {
    let state = State::new(Extent { start: 0, end: i64::MAX - 2 }, 0, Producers::new());
    assert!(state.decide(&batch(2, None), None).is_ok());
    assert!(matches!(state.decide(&batch(3, None), None), Err(AppendError::OffsetsExhausted)));
}

#[test]
fn q1_the_log_start_only_goes_up() {
    let mut state = State::new(Extent { start: 5, end: 9 }, 0, Producers::new());
    state.trimmed(3);
    assert_eq!(state.log_start(), 5);
    state.trimmed(7);
    assert_eq!(state.log_start(), 7);
}

#[test]
fn h1_the_high_watermark_is_what_all_in_sync_replicas_have_and_never_falls() {
    assert_eq!(high_watermark(0, [10, 7, 12]), 7);
    assert_eq!(high_watermark(8, [10, 7, 12]), 8);
    assert_eq!(high_watermark(8, []), 8);
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
                        state.written(written.next_offset());
                        log.push(written);
                    }
                    None
                }
                Step::Failed => {
                    in_flight.clear();
                    let mut producers = Producers::new();
                    log.iter().filter_map(Sequenced::of).for_each(|s| producers.record(&s, 1));
                    state.roll_back(log.last().map_or(0, BatchHeader::next_offset), producers);
                    None
                }
            };
            let Some(batch) = batch else { continue };
            if let Ok(Decision::Append { base_offset }) = state.decide(&batch, None) {
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
