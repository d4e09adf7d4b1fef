use bytes::Bytes;

use super::*;
use crate::record::{Scratch, records};

fn header(name: &str, value: Option<&'static [u8]>) -> v1::Header {
    v1::Header { name: name.to_owned(), value: value.map(Bytes::from_static) }
}

#[test]
fn plain_records_come_back_with_nulls_and_duplicate_headers() {
    let headers = vec![header("a", Some(b"1")), header("", None), header("a", Some(b"")), header("a", Some(b"1"))];
    let full = v1::Record {
        key: Some(Bytes::from_static(b"")),
        value: Some(Bytes::from_static(b"v")),
        headers: headers.clone(),
        timestamp_ms: Some(-1),
    };
    let mut builder = BatchBuilder::new();
    let empty = v1::Record::default();
    assert!(builder.would_fit_plain(&full, 7, 1_000) && !builder.would_fit_plain(&full, 7, 70));
    builder.push_plain(&full, 7).unwrap();
    builder.push_plain(&empty, 7).unwrap();
    let mut batch = builder.build(Compression::None, None).unwrap().to_vec();
    crate::record::header::set_base_offset(&mut batch, 40);
    crate::record::header::set_leader_epoch(&mut batch, 3);

    let read = records(&Bytes::from(batch), 0, &mut Scratch::new()).unwrap();
    let batch_header = *read.header();
    let stored: Vec<_> = read.map(|record| record.unwrap().to_stored(5, &batch_header).unwrap()).collect();
    let expected = v1::StoredRecord {
        partition: 5,
        offset: 40,
        timestamp_ms: -1,
        timestamp_type: v1::TimestampType::CreateTime.into(),
        leader_epoch: 3,
        key: full.key,
        value: full.value,
        headers,
    };
    assert_eq!(stored[0], expected);
    let expected =
        v1::StoredRecord { offset: 41, timestamp_ms: 7, key: None, value: None, headers: vec![], ..expected };
    assert_eq!(stored[1], expected);
}

#[test]
fn codecs_have_the_same_numbers_in_the_api_and_in_batches() {
    for compression in Compression::ALL {
        let api = v1::Compression::from(compression);
        assert_eq!(api as i32, i32::from(i16::from(compression)));
        assert_eq!(Compression::from(api), compression);
    }
}

#[test]
fn refusals_name_reason_and_records() {
    use crate::record::{InvalidRecord, RecordFault};
    let error = BatchError::InvalidRecords(vec![InvalidRecord { index: 4, fault: RecordFault::HeaderNameNotUtf8 }]);
    assert_eq!(error.reason(), v1::Reason::InvalidRecord);
    let expected = v1::RecordError { index: 4, message: RecordFault::HeaderNameNotUtf8.to_string() };
    assert_eq!(error.record_errors(), [expected]);
    let error = BatchError::TooLargeUnpacked { limit: 1 };
    assert_eq!((error.reason(), error.record_errors()), (v1::Reason::BatchTooLarge, vec![]));
    assert_eq!(BatchError::CrcMismatch { stored: 0, computed: 1 }.reason(), v1::Reason::CorruptBatch);
}
