use proptest::prelude::*;

use super::*;

const MAX: i32 = i32::MAX;

fn batch(id: i64, epoch: i16, first: i32, records: i32, offset: i64) -> Sequenced {
    let last_sequence = advance(first, records - 1);
    let last_offset = offset + i64::from(records) - 1;
    let batch = SequencedBatch { first_sequence: first, last_sequence, base_offset: offset, last_offset, timestamp: 7 };
    Sequenced { id, epoch, batch }
}

/// Ten batches of ten records of producer 1, epoch 3, at offsets 1000 and on.
fn ten_batches() -> Producers {
    let mut producers = Producers::new();
    for i in 0..10 {
        producers.record(&batch(1, 3, i * 10, 10, 1000 + i64::from(i) * 10), 50);
    }
    producers
}

#[test]
fn p1_a_retry_of_one_of_the_last_five_gets_its_offset_and_older_ones_are_known_as_applied() {
    let producers = ten_batches();
    let answer = |first| producers.check(&batch(1, 3, first, 10, 0));
    assert_eq!(answer(90), Ok(Check::Duplicate { base_offset: Some(1090), end: 1100 }));
    assert_eq!(answer(50), Ok(Check::Duplicate { base_offset: Some(1050), end: 1060 }));
    assert_eq!(answer(40), Ok(Check::Duplicate { base_offset: None, end: 1050 }));
    assert_eq!(answer(0), Ok(Check::Duplicate { base_offset: None, end: 1050 }));
    assert_eq!(answer(100), Ok(Check::Append));
}

#[test]
fn p3_a_gap_or_an_overlap_is_out_of_sequence() {
    let producers = ten_batches();
    let refused = |found| Err(SequenceError::OutOfSequence { expected: 100, found });
    assert_eq!(producers.check(&batch(1, 3, 101, 10, 0)), refused(101));
    assert_eq!(producers.check(&batch(1, 3, 95, 10, 0)), refused(95));
    assert_eq!(producers.check(&batch(1, 3, 90, 11, 0)), refused(90));
    assert_eq!(producers.check(&batch(1, 3, 45, 10, 0)), refused(45));
}

#[test]
fn p4_a_lower_epoch_is_fenced_and_a_higher_one_begins_at_zero() {
    let producers = ten_batches();
    assert_eq!(producers.check(&batch(1, 2, 100, 1, 0)), Err(SequenceError::Fenced { current: 3 }));
    assert_eq!(producers.check(&batch(1, 4, 0, 1, 0)), Ok(Check::Append));
    let refused = Err(SequenceError::OutOfSequence { expected: 0, found: 100 });
    assert_eq!(producers.check(&batch(1, 4, 100, 1, 0)), refused);
}

#[test]
fn p6_an_unknown_producer_must_begin_at_zero() {
    assert_eq!(Producers::new().check(&batch(9, 0, 0, 1, 0)), Ok(Check::Append));
    assert_eq!(Producers::new().check(&batch(9, 0, 5, 1, 0)), Err(SequenceError::Unknown));
}

#[test]
fn p1_sequences_wrap_at_two_to_the_31() {
    let mut producers = Producers::new();
    producers.record(&batch(1, 0, MAX - 4, 10, 0), 0);
    assert_eq!(producers.check(&batch(1, 0, 5, 3, 0)), Ok(Check::Append));
    assert_eq!(producers.check(&batch(1, 0, MAX - 4, 10, 0)), Ok(Check::Duplicate { base_offset: Some(0), end: 10 }));
    producers.record(&batch(1, 0, 5, 3, 10), 0);
    let older = producers.check(&batch(1, 0, MAX - 9, 5, 0));
    assert_eq!(older, Ok(Check::Duplicate { base_offset: None, end: 0 }));
}

#[test]
fn p7_producers_expire_by_the_append_times_of_later_batches() {
    let mut producers = ten_batches();
    producers.record(&batch(2, 0, 0, 1, 2000), 60);
    producers.expire(50 + EXPIRY_MS);
    assert_eq!((producers.epoch(1), producers.epoch(2)), (None, Some(0)));
}

#[test]
fn a_client_that_takes_ids_without_end_does_not_fill_the_memory() {
    let mut producers = Producers::new();
    for id in 0..PRODUCERS_KEPT as i64 + 5 {
        producers.record(&batch(id, 0, 0, 1, id), id);
    }
    assert_eq!(producers.len(), PRODUCERS_KEPT);
    assert_eq!((producers.epoch(4), producers.epoch(5)), (None, Some(0)));
}

proptest! {
    #[test]
    fn p5_state_of_a_split_log_is_the_state_of_the_whole(
        batches in prop::collection::vec((0i64..4, 1i32..5), 0..60),
        cut in 0usize..60,
    ) {
        let (mut next, mut offset) = ([0i32; 4], 0i64);
        let log: Vec<_> = batches.iter().map(|&(id, records)| {
            let b = batch(id, 0, next[id as usize], records, offset);
            next[id as usize] += records;
            offset += i64::from(records);
            b
        }).collect();
        let replay = |part: &[Sequenced]| {
            let mut state = Producers::new();
            for b in part {
                state.record(b, b.batch.base_offset);
            }
            state
        };
        let (front, back) = log.split_at(cut.min(log.len()));
        let mut joined = replay(front);
        joined.extend(&replay(back));
        prop_assert_eq!(&joined, &replay(&log));
        let mut bytes = vec![];
        joined.encode(&mut bytes);
        bytes.push(9);
        let mut rest = &bytes[..];
        prop_assert_eq!(Producers::decode(&mut rest), Some(joined));
        prop_assert_eq!(rest, [9]);
    }

    #[test]
    fn hostile_bytes_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Producers::decode(&mut &bytes[..]);
        let mut with_version = bytes;
        with_version.insert(0, VERSION);
        let _ = Producers::decode(&mut &with_version[..]);
    }
}
