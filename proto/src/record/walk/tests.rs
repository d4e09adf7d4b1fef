use super::*;
use crate::record::header::{
    ATTRIBUTES, BASE_SEQUENCE, BATCH_LENGTH, LAST_OFFSET_DELTA, MAX_TIMESTAMP, PRODUCER_EPOCH, PRODUCER_ID,
    RECORD_COUNT, put, seal,
};
use crate::record::{BatchBuilder, Compression};

const NOW: i64 = 1_700_000_000_000;

fn limits() -> Limits {
    Limits::new(DEFAULT_MAX_BATCH_BYTES, NOW)
}

fn check(batch: &[u8]) -> Result<Walked, BatchError> {
    validate(batch, &limits(), &mut Scratch::new())
}

/// Three records with a header each.
fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for i in 0..3_u8 {
        builder.push(Some(&[i]), Some(b"value"), [("name", Some(&b"x"[..]))], NOW + i64::from(i)).unwrap();
    }
    builder.build(Compression::None, None).unwrap().to_vec()
}

/// A batch around `records` as they are, uncompressed, with a right length and CRC.
fn batch_of(records: &[u8], count: i32) -> Vec<u8> {
    let mut bytes = batch()[..HEADER_LEN].to_vec();
    bytes.extend_from_slice(records);
    let length = (bytes.len() - 12) as i32;
    put(&mut bytes, BATCH_LENGTH, length.to_be_bytes());
    put(&mut bytes, RECORD_COUNT, count.to_be_bytes());
    put(&mut bytes, LAST_OFFSET_DELTA, (count - 1).to_be_bytes());
    seal(&mut bytes);
    bytes
}

fn patched<const N: usize>(at: usize, value: [u8; N]) -> Vec<u8> {
    let mut bytes = batch();
    put(&mut bytes, at, value);
    seal(&mut bytes);
    bytes
}

fn only_fault(records: &[u8]) -> RecordFault {
    let mut padded = records.to_vec();
    // A header claims no more records than fit: a whole one behind keeps the count possible.
    padded.extend_from_slice(&[12, 0, 0, 2, 1, 1, 0]);
    match check(&batch_of(&padded, 2)) {
        Err(BatchError::InvalidRecords(invalid)) => {
            assert_eq!(invalid[0].index, 0);
            invalid[0].fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_batch_passes_whatever_its_base_offset() {
    let mut bytes = batch();
    for offset in [0, 5, -1, i64::MIN, i64::MAX] {
        crate::record::header::set_base_offset(&mut bytes, offset);
        let walked = check(&bytes).unwrap();
        assert_eq!(walked.header.record_count, 3);
        assert_eq!(walked.max_timestamp, NOW + 2);
    }
}

#[test]
fn the_61_byte_batch_of_2_to_the_31_records_is_refused() {
    for compression in 0..5_i16 {
        let mut bytes = batch_of(&[], i32::MAX);
        put(&mut bytes, ATTRIBUTES, compression.to_be_bytes());
        seal(&mut bytes);
        assert_eq!(bytes.len(), 61);
        let mut scratch = Scratch::new();
        assert!(validate(&bytes, &limits(), &mut scratch).is_err());
        assert!(scratch.capacity() < 1 << 20);
    }
}

#[test]
fn a_wrong_max_timestamp_is_found() {
    let walked = check(&patched(MAX_TIMESTAMP, (NOW + 1_000_000).to_be_bytes())).unwrap();
    assert_eq!((walked.header.max_timestamp, walked.max_timestamp), (NOW + 1_000_000, NOW + 2));
}

#[test]
fn what_only_the_broker_may_set_is_refused() {
    let cases = [
        (1 << 3, BatchError::AppendTimeNotAllowed),
        (1 << 4, BatchError::TransactionalNotAllowed),
        (1 << 5, BatchError::ControlNotAllowed),
        (1 << 6, BatchError::UnknownAttributes { attributes: 1 << 6 }),
        (i16::MIN, BatchError::UnknownAttributes { attributes: i16::MIN }),
        (5, BatchError::UnknownCompression { code: 5 }),
        (7, BatchError::UnknownCompression { code: 7 }),
    ];
    for (attributes, error) in cases {
        assert_eq!(check(&patched(ATTRIBUTES, attributes.to_be_bytes())), Err(error));
    }
    let allowed = Limits { allow_transactional: true, allow_control: true, ..limits() };
    let mut bytes = patched(ATTRIBUTES, (0b11_0000_i16).to_be_bytes());
    // A transaction has a producer; a marker of it has no sequence.
    let absent = BatchError::InvalidProducer { id: -1, epoch: -1, first_sequence: -1 };
    assert_eq!(validate(&bytes, &allowed, &mut Scratch::new()), Err(absent));
    put(&mut bytes, PRODUCER_ID, 4_i64.to_be_bytes());
    put(&mut bytes, PRODUCER_EPOCH, 0_i16.to_be_bytes());
    seal(&mut bytes);
    assert!(validate(&bytes, &allowed, &mut Scratch::new()).is_ok());
}

#[test]
fn exactly_one_whole_undamaged_batch_is_accepted() {
    let bytes = batch();
    let with_trailing = [&bytes[..], &[0]].concat();
    assert_eq!(check(&with_trailing), Err(BatchError::TrailingBytes { extra: 1 }));
    let two = [&bytes[..], &bytes[..]].concat();
    assert_eq!(check(&two), Err(BatchError::TrailingBytes { extra: bytes.len() }));
    for length in 0..bytes.len() {
        assert!(matches!(check(&bytes[..length]), Err(BatchError::Truncated { .. })), "{length}");
    }
    for i in ATTRIBUTES..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[i] ^= 1;
        let refused = check(&damaged).unwrap_err();
        assert!(matches!(refused, BatchError::CrcMismatch { .. } | BatchError::InvalidCount { .. }), "{i}: {refused}");
    }
}

#[test]
fn counts_that_cannot_be_are_refused() {
    for (count, delta) in [(0, 0), (-1, 2), (3, 3), (4, 2), (2, 2), (3, -1), (i32::MIN, 2), (i32::MAX, i32::MAX)] {
        let mut bytes = batch();
        put(&mut bytes, RECORD_COUNT, i32::to_be_bytes(count));
        put(&mut bytes, LAST_OFFSET_DELTA, i32::to_be_bytes(delta));
        seal(&mut bytes);
        let expected =
            if count == 0 { BatchError::Empty } else { BatchError::InvalidCount { count, last_offset_delta: delta } };
        assert_eq!(check(&bytes), Err(expected), "{count} {delta}");
    }
    let fewer = batch_of(&batch()[HEADER_LEN..], 2);
    assert!(matches!(check(&fewer), Err(BatchError::TrailingRecordBytes { .. })));
    let more = batch_of(&batch()[HEADER_LEN..], 4);
    let expected = InvalidRecord { index: 3, fault: RecordFault::Truncated };
    assert_eq!(check(&more), Err(BatchError::InvalidRecords(vec![expected])));
    assert_eq!(check(&batch_of(&[], 0)), Err(BatchError::InvalidCount { count: 0, last_offset_delta: -1 }));
}

#[test]
fn a_producer_identity_is_whole_or_absent() {
    let with = |id: i64, epoch: i16, sequence: i32| {
        let mut bytes = batch();
        put(&mut bytes, PRODUCER_ID, id.to_be_bytes());
        put(&mut bytes, PRODUCER_EPOCH, epoch.to_be_bytes());
        put(&mut bytes, BASE_SEQUENCE, sequence.to_be_bytes());
        seal(&mut bytes);
        check(&bytes)
    };
    for (id, epoch, sequence) in [(-1, -1, -1), (0, 0, 0), (i64::MAX, i16::MAX - 1, i32::MAX)] {
        assert!(with(id, epoch, sequence).is_ok(), "{id} {epoch} {sequence}");
    }
    for (id, epoch, sequence) in [
        (-1, 0, 0),
        (0, -1, 0),
        (0, 0, -1),
        (-1, -1, 0),
        (-1, 0, -1),
        (-2, 0, 0),
        (0, -2, 0),
        (0, 0, -2),
        (0, i16::MAX, 0),
    ] {
        let error = BatchError::InvalidProducer { id, epoch: i32::from(epoch), first_sequence: sequence };
        assert_eq!(with(id, epoch, sequence), Err(error));
    }
}

#[test]
fn sizes_beyond_the_limits_are_too_large() {
    let bytes = batch();
    let tight = Limits { max_batch_bytes: bytes.len(), ..limits() };
    assert!(validate(&bytes, &tight, &mut Scratch::new()).is_ok());
    let tighter = Limits { max_batch_bytes: bytes.len() - 1, ..limits() };
    let error = BatchError::TooLarge { size: bytes.len(), limit: bytes.len() - 1 };
    assert_eq!(validate(&bytes, &tighter, &mut Scratch::new()), Err(error));

    for compression in &Compression::ALL[1..] {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(&[0; 10_000]), [], 0).unwrap();
        let unpacked = builder.size() - HEADER_LEN;
        let packed = builder.build(*compression, None).unwrap();
        let exact = Limits { max_unpacked_bytes: unpacked, ..limits() };
        assert_eq!(validate(&packed, &exact, &mut Scratch::new()).unwrap().unpacked_bytes, unpacked, "{compression}");
        let limit = unpacked - 1;
        let below = Limits { max_unpacked_bytes: limit, ..limits() };
        let refused = validate(&packed, &below, &mut Scratch::new());
        assert_eq!(refused, Err(BatchError::TooLargeUnpacked { limit }), "{compression}");
    }
}

#[test]
fn malformed_records_are_named_with_their_fault() {
    // length, attributes, timestamp delta, offset delta, key length, value length, header count
    assert_eq!(only_fault(&[12, 0, 0, 2, 1, 1, 0]), RecordFault::OffsetDelta { expected: 0, actual: 1 });
    assert_eq!(only_fault(&[1, 0, 0, 0, 1, 1, 0]), RecordFault::InvalidLength { value: -1 });
    assert_eq!(only_fault(&[12, 0, 0, 0, 3, 1, 0]), RecordFault::InvalidLength { value: -2 });
    assert_eq!(only_fault(&[12, 0, 0, 0, 1, 3, 0]), RecordFault::InvalidLength { value: -2 });
    assert_eq!(only_fault(&[12, 0, 0, 0, 1, 1, 1]), RecordFault::InvalidLength { value: -1 });
    assert_eq!(only_fault(&[12, 0, 0, 0, 1, 2, 0]), RecordFault::Truncated);
    assert_eq!(only_fault(&[14, 0, 0, 0, 1, 1, 0, 0]), RecordFault::TrailingBytes { extra: 1 });
    assert_eq!(only_fault(&[12, 0, 0, 0, 1, 1, 2]), RecordFault::Truncated);
    assert_eq!(only_fault(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), RecordFault::InvalidLength { value: -1 });
    assert_eq!(only_fault(&[18, 0, 0, 0, 1, 1, 2, 2, 0xff, 1]), RecordFault::HeaderNameNotUtf8);
    assert_eq!(only_fault(&[20, 0, 0, 0, 1, 1, 2, 0, 1, 0, 0]), RecordFault::TrailingBytes { extra: 2 });
    assert_eq!(only_fault(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]), RecordFault::Truncated);
    assert_eq!(only_fault(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]), RecordFault::VarintOverflow);
}

#[test]
fn a_header_count_of_two_billion_costs_nothing() {
    let mut record = vec![20, 0, 0, 0, 1, 1];
    record.extend_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0x0f]);
    let fault = RecordFault::TooManyHeaders { count: i32::MAX as usize, limit: MAX_HEADERS };
    assert_eq!(only_fault(&record), fault);
}

#[test]
fn timestamps_are_bounded_and_absent_is_allowed() {
    let with = |timestamps: &[i64]| {
        let mut builder = BatchBuilder::new();
        for timestamp in timestamps {
            builder.push(None, None, [], *timestamp).unwrap();
        }
        check(&builder.build(Compression::None, None).unwrap())
    };
    assert_eq!(with(&[-1, -1]).unwrap().max_timestamp, -1);
    assert_eq!(with(&[0, NOW + MAX_FUTURE_MILLIS]).unwrap().max_timestamp, NOW + MAX_FUTURE_MILLIS);
    let late = NOW + MAX_FUTURE_MILLIS + 1;
    let fault = RecordFault::TimestampInFuture { timestamp: late, latest: NOW + MAX_FUTURE_MILLIS };
    let expected = vec![InvalidRecord { index: 1, fault }, InvalidRecord { index: 3, fault }];
    assert_eq!(with(&[0, late, 0, late]), Err(BatchError::InvalidRecords(expected)));
    // A delta of -1 below -1.
    let below = patched(crate::record::header::BASE_TIMESTAMP, (-2_i64).to_be_bytes());
    let fault = RecordFault::InvalidTimestamp { timestamp: -2 };
    let Err(BatchError::InvalidRecords(invalid)) = check(&below) else { panic!() };
    assert_eq!(invalid, [InvalidRecord { index: 0, fault }]);
}

#[test]
fn at_most_ten_invalid_records_are_named() {
    let records = [14, 0, 0, 0, 1, 1, 0, 9].repeat(50);
    let Err(error @ BatchError::InvalidRecords(_)) = check(&batch_of(&records, 50)) else { panic!() };
    let BatchError::InvalidRecords(invalid) = &error else { panic!() };
    assert_eq!(invalid.iter().map(|r| r.index).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(error.to_string().contains("record 9: 1 bytes follow its last field"), "{error}");
}

#[test]
fn keys_and_headers_beyond_the_limits_are_named() {
    let mut record = vec![0, 0, 0];
    let key = vec![b'k'; MAX_KEY_BYTES + 1];
    let mut length = [0; 10];
    let end = crate::record::varint::encode(&mut length, 0, key.len() as i64);
    record.extend_from_slice(&length[..end]);
    record.extend_from_slice(&key);
    record.extend_from_slice(&[1, 0]);
    let end = crate::record::varint::encode(&mut length, 0, record.len() as i64);
    let record = [&length[..end], &record[..]].concat();
    let fault = RecordFault::KeyTooLong { bytes: MAX_KEY_BYTES + 1, limit: MAX_KEY_BYTES };
    assert_eq!(only_fault(&record), fault);
}
