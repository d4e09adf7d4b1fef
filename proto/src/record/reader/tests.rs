use super::*;
use crate::record::BatchBuilder;
use crate::record::header::{LAST_OFFSET_DELTA, RECORD_COUNT, put, set_base_offset};

const LIMIT: usize = 1 << 20;

fn batch(compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for i in 0..10_u8 {
        builder.push(Some(&[i]), Some(&[i; 50]), [("h", None), ("h", Some(&[i][..]))], i64::from(i) * 6).unwrap();
    }
    let mut bytes = builder.build(compression, None).unwrap().to_vec();
    set_base_offset(&mut bytes, 1_000);
    bytes
}

fn read(bytes: &[u8]) -> Vec<Result<RecordView, BatchError>> {
    records(&Bytes::copy_from_slice(bytes), LIMIT, &mut Scratch::new()).unwrap().collect()
}

#[test]
fn records_carry_offsets_timestamps_and_headers_in_order() {
    for compression in Compression::ALL {
        let read = read(&batch(compression));
        assert_eq!(read.len(), 10);
        for (i, record) in read.into_iter().enumerate() {
            let record = record.unwrap();
            let byte = [i as u8];
            assert_eq!((record.offset, record.timestamp), (1_000 + i as i64, i as i64 * 6));
            assert_eq!(record.key.as_deref(), Some(&byte[..]));
            assert_eq!(record.value.as_deref(), Some(&[i as u8; 50][..]));
            let headers: Vec<_> = record.headers().map(Result::unwrap).collect();
            let expected = [
                HeaderView { name: "h", value: None },
                HeaderView { name: "h", value: Some(Bytes::copy_from_slice(&byte)) },
            ];
            assert_eq!(headers, expected);
        }
    }
}

#[test]
fn an_uncompressed_batch_is_read_without_copying() {
    let bytes = Bytes::from(batch(Compression::None));
    let range = bytes.as_ptr_range();
    for record in records(&bytes, 0, &mut Scratch::new()).unwrap() {
        assert!(range.contains(&record.unwrap().value.unwrap().as_ptr()));
    }
}

#[test]
fn gaps_of_compaction_are_read_and_falling_offsets_are_not() {
    let mut bytes = batch(Compression::None);
    let record_len = (bytes.len() - HEADER_LEN) / 10;
    // Without the records 0 and 4, and an end beyond the last record.
    bytes.drain(HEADER_LEN + 4 * record_len..HEADER_LEN + 5 * record_len);
    bytes.drain(HEADER_LEN..HEADER_LEN + record_len);
    let length = (bytes.len() - 12) as i32;
    put(&mut bytes, 8, length.to_be_bytes());
    put(&mut bytes, RECORD_COUNT, 8_i32.to_be_bytes());
    put(&mut bytes, LAST_OFFSET_DELTA, 20_i32.to_be_bytes());
    let offsets: Vec<_> = read(&bytes).into_iter().map(|r| r.unwrap().offset - 1_000).collect();
    assert_eq!(offsets, [1, 2, 3, 5, 6, 7, 8, 9]);

    // The last record twice.
    let last = bytes[bytes.len() - record_len..].to_vec();
    bytes.extend_from_slice(&last);
    put(&mut bytes, 8, (length + record_len as i32).to_be_bytes());
    put(&mut bytes, RECORD_COUNT, 9_i32.to_be_bytes());
    let read = read(&bytes);
    let fault = RecordFault::OffsetDelta { expected: 10, actual: 9 };
    assert_eq!(read.len(), 9);
    assert_eq!(read[8], Err(BatchError::InvalidRecords(vec![InvalidRecord { index: 8, fault }])));
}

#[test]
fn an_emptied_batch_has_no_records() {
    let mut bytes = batch(Compression::None);
    bytes.truncate(HEADER_LEN);
    put(&mut bytes, 8, 49_i32.to_be_bytes());
    put(&mut bytes, RECORD_COUNT, 0_i32.to_be_bytes());
    assert_eq!(read(&bytes), []);
    assert_eq!(find_by_timestamp(&bytes, 0, LIMIT, &mut Scratch::new()), Ok(None));
}

#[test]
fn left_over_bytes_and_missing_records_are_errors() {
    let mut fewer = batch(Compression::None);
    put(&mut fewer, RECORD_COUNT, 9_i32.to_be_bytes());
    assert!(matches!(read(&fewer).last(), Some(Err(BatchError::TrailingRecordBytes { .. }))));
    let mut more = batch(Compression::None);
    put(&mut more, RECORD_COUNT, 11_i32.to_be_bytes());
    put(&mut more, LAST_OFFSET_DELTA, 10_i32.to_be_bytes());
    let fault = RecordFault::Truncated;
    assert_eq!(read(&more).last(), Some(&Err(BatchError::InvalidRecords(vec![InvalidRecord { index: 10, fault }]))));
}

#[test]
fn offsets_without_a_number_are_refused() {
    for base_offset in [-1, i64::MIN, i64::MAX, i64::MAX - 9] {
        let mut bytes = batch(Compression::None);
        set_base_offset(&mut bytes, base_offset);
        let refused = records(&Bytes::from(bytes), LIMIT, &mut Scratch::new()).unwrap_err();
        assert_eq!(refused, BatchError::InvalidOffset { base_offset });
    }
}

#[test]
fn the_first_record_at_or_after_a_time_is_found() {
    for compression in Compression::ALL {
        let mut bytes = batch(compression);
        let mut scratch = Scratch::new();
        let mut find = |bytes: &[u8], target| find_by_timestamp(bytes, target, LIMIT, &mut scratch).unwrap();
        assert_eq!(find(&bytes, -1), Some((1_000, 0)));
        assert_eq!(find(&bytes, 25), Some((1_005, 30)));
        assert_eq!(find(&bytes, 54), Some((1_009, 54)));
        assert_eq!(find(&bytes, 55), None);
        crate::record::header::set_append_time(&mut bytes, 500);
        assert_eq!(find(&bytes, 91), Some((1_000, 500)));
    }
}
