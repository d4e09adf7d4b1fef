use proptest::prelude::*;

use super::*;
use crate::record::entry::{MAX_HEADERS, MAX_HEADERS_BYTES, MAX_KEY_BYTES};
use crate::record::{BatchHeader, Limits, Scratch, records, validate};

const NOW: i64 = 1_700_000_000_000;

type OwnedHeader = (String, Option<Vec<u8>>);

#[derive(Debug, Clone, PartialEq)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
    timestamp: i64,
}

impl Owned {
    fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    fn push(&self, builder: &mut BatchBuilder) {
        builder.push(self.key.as_deref(), self.value.as_deref(), self.headers(), self.timestamp).unwrap();
    }
}

fn any_record() -> impl Strategy<Value = Owned> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let headers = proptest::collection::vec(("[a-zä]{0,5}", bytes()), 0..4);
    (bytes(), bytes(), headers, -1..=NOW).prop_map(|(key, value, headers, timestamp)| Owned {
        key,
        value,
        headers,
        timestamp,
    })
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

fn decode(batch: &Bytes) -> Vec<Owned> {
    let decoded = records(batch, 1 << 24, &mut Scratch::new()).unwrap().map(|record| {
        let record = record.unwrap();
        let headers = record.headers().map(|header| {
            let header = header.unwrap();
            (header.name.to_owned(), header.value.map(|v| v.to_vec()))
        });
        Owned {
            headers: headers.collect(),
            key: record.key.map(|k| k.to_vec()),
            value: record.value.map(|v| v.to_vec()),
            timestamp: record.timestamp,
        }
    });
    decoded.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_built_passes_the_walk_and_reads_back(
        input in proptest::collection::vec(any_record(), 1..40),
        compression in any_compression(),
        first_sequence in proptest::option::of(0..=i32::MAX),
    ) {
        let producer = first_sequence.map(|first_sequence| BatchProducer { id: 7, epoch: 3, first_sequence });
        let mut builder = BatchBuilder::new();
        for record in &input {
            record.push(&mut builder);
        }
        let size = builder.size();
        let batch = builder.build(compression, producer).unwrap();
        prop_assert!(batch.len() <= size);

        let walked = validate(&batch, &Limits::new(1 << 20, NOW), &mut Scratch::new()).unwrap();
        prop_assert_eq!(walked.header.producer(), producer);
        prop_assert_eq!(walked.header.record_count as usize, input.len());
        prop_assert_eq!(walked.max_timestamp, input.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(walked.header.max_timestamp, walked.max_timestamp);
        prop_assert_eq!(walked.unpacked_bytes + HEADER_LEN, size);
        prop_assert_eq!(decode(&batch), input);
    }

    #[test]
    fn the_size_is_exact_and_would_fit_tells_the_limit(input in proptest::collection::vec(any_record(), 1..20)) {
        let mut builder = BatchBuilder::new();
        for record in &input {
            let before = builder.size();
            record.push(&mut builder);
            let after = builder.size();
            let mut shorter = BatchBuilder::new();
            for earlier in &input[..builder.len() - 1] {
                earlier.push(&mut shorter);
            }
            prop_assert_eq!(shorter.size(), before);
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            prop_assert!(shorter.would_fit(key, value, record.headers(), record.timestamp, after));
            prop_assert!(!shorter.would_fit(key, value, record.headers(), record.timestamp, after - 1));
        }
        let size = builder.size();
        prop_assert_eq!(builder.build(Compression::None, None).unwrap().len(), size);
    }
}

#[test]
fn the_bytes_of_a_batch_are_kafkas() {
    let mut builder = BatchBuilder::new();
    builder.push(Some(b"k"), None, [("h", Some(&b"1"[..])), ("h", None)], 1_000).unwrap();
    builder.push(None, Some(b""), [], 999).unwrap();
    let producer = BatchProducer { id: 5, epoch: 2, first_sequence: 9 };
    let batch = builder.build(Compression::None, Some(producer)).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch, header.attributes), (0, -1, 0));
    assert_eq!((header.last_offset_delta, header.record_count), (1, 2));
    assert_eq!((header.base_timestamp, header.max_timestamp), (1_000, 1_000));
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (5, 2, 9));
    let first = [28, 0, 0, 0, 2, b'k', 1, 4, 2, b'h', 2, b'1', 2, b'h', 1];
    let second = [12, 0, 1, 2, 1, 0, 0];
    assert_eq!(batch[HEADER_LEN..], [&first[..], &second[..]].concat());
}

#[test]
fn records_that_break_a_rule_are_refused_and_not_added() {
    let mut builder = BatchBuilder::new();
    let long_key = vec![0; MAX_KEY_BYTES + 1];
    let fault = builder.push(Some(&long_key), None, [], 0).unwrap_err();
    assert_eq!(fault, RecordFault::KeyTooLong { bytes: MAX_KEY_BYTES + 1, limit: MAX_KEY_BYTES });
    let fault = builder.push(None, None, vec![("", None); MAX_HEADERS + 1], 0).unwrap_err();
    assert!(matches!(fault, RecordFault::TooManyHeaders { .. }));
    let long_value = vec![0; MAX_HEADERS_BYTES];
    let fault = builder.push(None, None, [("", Some(&long_value[..]))], 0).unwrap_err();
    assert!(matches!(fault, RecordFault::HeadersTooLong { .. }));
    let long_name = "x".repeat(40 << 10);
    let fault = builder.push(None, None, [(long_name.as_str(), None)], 0).unwrap_err();
    assert!(matches!(fault, RecordFault::HeaderNameTooLong { .. }));
    for timestamp in [-2, i64::MIN, i64::MAX] {
        let fault = builder.push(None, None, [], timestamp).unwrap_err();
        assert_eq!(fault, RecordFault::InvalidTimestamp { timestamp });
    }
    assert!(builder.is_empty());
    assert_eq!(builder.size(), HEADER_LEN);
    assert_eq!(builder.build(Compression::None, None), Err(BatchError::Empty));
}

#[test]
fn timestamps_at_both_ends_read_back() {
    let mut builder = BatchBuilder::new();
    for timestamp in [-1, i64::MAX - 1, 0] {
        builder.push(None, None, [], timestamp).unwrap();
    }
    let batch = builder.build(Compression::None, None).unwrap();
    assert_eq!(decode(&batch).iter().map(|r| r.timestamp).collect::<Vec<_>>(), [-1, i64::MAX - 1, 0]);
}

#[test]
fn incompressible_records_are_stored_uncompressed() {
    for compression in Compression::ALL {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(b"\x01"), [], 0).unwrap();
        let size = builder.size();
        let batch = builder.build(compression, None).unwrap();
        assert_eq!(batch.len(), size);
        assert_eq!(BatchHeader::parse(&batch).unwrap().compression(), Ok(Compression::None));
    }
}

#[test]
fn a_builder_used_again_keeps_its_memory_and_forgets_its_records() {
    let mut builder = BatchBuilder::with_capacity(1 << 16);
    let value = vec![0; 30_000];
    for round in 1..4_i64 {
        builder.push(None, Some(&value), [], round).unwrap();
        builder.push(None, Some(&value), [], round).unwrap();
        let batch = builder.build(Compression::None, None).unwrap();
        assert_eq!(BatchHeader::parse(&batch).unwrap().base_timestamp, round);
        assert!(builder.bytes.capacity() >= 1 << 16);
        assert!(builder.is_empty());
        builder.push(None, None, [], 5).unwrap();
        let small = builder.build(Compression::Zstd, None).unwrap();
        assert_eq!(BatchHeader::parse(&small).unwrap().max_timestamp, 5);
    }
}
