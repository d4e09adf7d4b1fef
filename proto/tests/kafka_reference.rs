//! Our codec against an independent one, the crate `kafka-protocol`, on well-formed batches: what it writes we read, what
//! we write it reads. (On hostile ones it is no reference: it trusts counts.)

#![allow(clippy::unwrap_used)] // clippy's exception for tests does not see helper functions

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression as TheirCompression, Record as TheirRecord, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;
use taffrail_proto::record::{
    BatchBuilder, BatchProducer, Compression, Limits, RecordView, Scratch, header, records, validate,
};

const NOW: i64 = 1_700_000_000_000;
const LIMIT: usize = 1 << 24;

fn theirs(compression: Compression) -> TheirCompression {
    match compression {
        Compression::None => TheirCompression::None,
        Compression::Gzip => TheirCompression::Gzip,
        Compression::Snappy => TheirCompression::Snappy,
        Compression::Lz4 => TheirCompression::Lz4,
        Compression::Zstd => unreachable!("see REFERENCED"),
    }
}

/// Zstd has no framing of Kafka's own, and theirs would be the same C library as ours: its batches hold one plain frame.
const REFERENCED: [Compression; 4] = [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4];

/// Headers with distinct names: `kafka-protocol` drops duplicates.
fn any_batch() -> impl Strategy<Value = Vec<TheirRecord>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from));
    let headers = proptest::collection::btree_map("[a-zé]{0,8}", bytes(), 0..4);
    let record = (bytes(), bytes(), headers, 0..=NOW);
    let producer = proptest::option::of((0..=i64::MAX, 0..i16::MAX, 0..=i32::MAX - 100));
    (proptest::collection::vec(record, 1..50), producer).prop_map(|(contents, producer)| {
        let (producer_id, producer_epoch, first_sequence) = producer.unwrap_or((-1, -1, -1));
        let records = contents.into_iter().enumerate().map(|(i, (key, value, headers, timestamp))| TheirRecord {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: i as i64,
            // Their encoder keeps records in one batch while sequence and offset go together.
            sequence: first_sequence.wrapping_add(i as i32),
            timestamp,
            key,
            value,
            headers: headers.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        });
        records.collect()
    })
}

fn any_compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&REFERENCED[..])
}

fn build(input: &[TheirRecord], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new();
    for record in input {
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
        builder.push(record.key.as_deref(), record.value.as_deref(), headers, record.timestamp).unwrap();
    }
    let first = &input[0];
    let producer = BatchProducer { id: first.producer_id, epoch: first.producer_epoch, first_sequence: first.sequence };
    builder.build(compression, (first.producer_id >= 0).then_some(producer)).unwrap()
}

fn assert_same(ours: &RecordView, theirs: &TheirRecord) {
    assert_eq!((ours.offset, ours.timestamp), (theirs.offset, theirs.timestamp));
    assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
    let headers: Vec<_> = ours.headers().map(|h| h.map(|h| (h.name.to_owned(), h.value)).unwrap()).collect();
    let expected: Vec<_> = theirs.headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    assert_eq!(headers, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn we_accept_and_read_what_they_write(input in any_batch(), compression in any_compression()) {
        let mut buffer = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: theirs(compression) };
        RecordBatchEncoder::encode(&mut buffer, &input, &options).unwrap();
        let batch = buffer.freeze();

        let mut scratch = Scratch::new();
        let walked = validate(&batch, &Limits::new(LIMIT, NOW), &mut scratch).unwrap();
        prop_assert_eq!(walked.header.compression(), Ok(compression));
        prop_assert_eq!(walked.max_timestamp, walked.header.max_timestamp);
        prop_assert_eq!(walked.header.producer_id, input[0].producer_id);
        prop_assert_eq!(walked.header.base_sequence, input[0].sequence);
        let read: Vec<_> = records(&batch, LIMIT, &mut scratch).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), input.len());
        for (ours, theirs) in read.iter().zip(&input) {
            assert_same(ours, theirs);
        }
    }

    #[test]
    fn they_read_what_we_write(input in any_batch(), compression in any_compression(), base_offset in 0..1_i64 << 40) {
        let mut batch = build(&input, compression).to_vec();
        header::set_base_offset(&mut batch, base_offset);
        header::set_leader_epoch(&mut batch, 12);
        let decoded = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        prop_assert_eq!(decoded.records.len(), input.len());
        for (i, (read, written)) in decoded.records.iter().zip(&input).enumerate() {
            prop_assert_eq!(read.offset, base_offset + i as i64);
            prop_assert_eq!(read.partition_leader_epoch, 12);
            prop_assert_eq!((read.producer_id, read.producer_epoch), (written.producer_id, written.producer_epoch));
            prop_assert_eq!(read.timestamp, written.timestamp);
            prop_assert_eq!((&read.key, &read.value, &read.headers), (&written.key, &written.value, &written.headers));
        }
    }
}

/// Large enough for many blocks of each codec's framing (xerial: 32 KiB, LZ4: 64 KiB).
#[test]
fn batches_of_many_blocks_go_both_ways() {
    let input: Vec<_> = (0..300_i64)
        .map(|i| TheirRecord {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: i,
            sequence: i as i32 - 1,
            timestamp: NOW + i,
            key: None,
            value: Some(Bytes::from(format!("{i} ").repeat(1_000))),
            headers: std::iter::empty().collect(),
        })
        .collect();
    for compression in REFERENCED {
        let mut buffer = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: theirs(compression) };
        RecordBatchEncoder::encode(&mut buffer, &input, &options).unwrap();
        let read = records(&buffer.freeze(), LIMIT, &mut Scratch::new()).unwrap();
        assert_eq!(read.zip(&input).map(|(ours, theirs)| assert_same(&ours.unwrap(), theirs)).count(), 300);

        let decoded = RecordBatchDecoder::decode(&mut build(&input, compression)).unwrap();
        assert!(decoded.records.iter().map(|r| &r.value).eq(input.iter().map(|r| &r.value)), "{compression}");
    }
    let (plain, packed) = (build(&input, Compression::None), build(&input, Compression::Zstd));
    assert!(packed.len() < plain.len() / 4, "{} of {}", packed.len(), plain.len());
    assert_eq!(zstd::decode_all(&packed[header::HEADER_LEN..]).unwrap(), &plain[header::HEADER_LEN..]);
    let read = records(&packed, LIMIT, &mut Scratch::new()).unwrap();
    assert_eq!(read.zip(&input).map(|(ours, theirs)| assert_same(&ours.unwrap(), theirs)).count(), 300);
}
