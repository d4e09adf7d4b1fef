use super::*;
use crate::record::{BatchBuilder, Batches, Scratch, records};
use bytes::Bytes;

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(Some(b"key"), Some(b"one"), [], 10).unwrap();
    builder.push(None, Some(b"two"), [], 20).unwrap();
    builder.build(Compression::None, None).unwrap().to_vec()
}

#[test]
fn fields_lie_where_the_table_says() {
    let mut bytes = [0_u8; 75];
    put(&mut bytes, 0, 0x0102_0304_0506_0708_i64.to_be_bytes());
    put(&mut bytes, 8, 63_i32.to_be_bytes());
    put(&mut bytes, 12, 7_i32.to_be_bytes());
    bytes[16] = 2;
    put(&mut bytes, 17, 0xdead_beef_u32.to_be_bytes());
    put(&mut bytes, 21, 0b01_1000_i16.to_be_bytes());
    put(&mut bytes, 23, 4_i32.to_be_bytes());
    put(&mut bytes, 27, 100_i64.to_be_bytes());
    put(&mut bytes, 35, 200_i64.to_be_bytes());
    put(&mut bytes, 43, 9_i64.to_be_bytes());
    put(&mut bytes, 51, 3_i16.to_be_bytes());
    put(&mut bytes, 53, (i32::MAX - 1).to_be_bytes());
    put(&mut bytes, 57, 2_i32.to_be_bytes());
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.base_offset, 0x0102_0304_0506_0708);
    assert_eq!((header.size_in_bytes(), header.leader_epoch, header.crc), (75, 7, 0xdead_beef));
    assert_eq!((header.last_offset() - header.base_offset, header.next_offset() - header.base_offset), (4, 5));
    assert_eq!((header.base_timestamp, header.max_timestamp, header.record_count), (100, 200, 2));
    assert_eq!(header.producer(), Some(BatchProducer { id: 9, epoch: 3, first_sequence: i32::MAX - 1 }));
    assert_eq!(header.compression(), Ok(Compression::None));
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert!(header.is_transactional() && !header.is_control() && !header.has_unknown_attributes());
}

#[test]
fn p1_sequences_wrap_after_the_largest() {
    assert_eq!(add_to_sequence(0, 1), 1);
    assert_eq!(add_to_sequence(i32::MAX, 1), 0);
    assert_eq!(add_to_sequence(i32::MAX - 1, 4), 2);
    assert_eq!(add_to_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
}

#[test]
fn other_magics_and_impossible_lengths_are_refused() {
    for magic in [0_i8, 1, 3, -1] {
        let mut bytes = batch();
        bytes[MAGIC_AT] = magic as u8;
        assert_eq!(BatchHeader::parse(&bytes), Err(BatchError::UnsupportedMagic { magic }));
    }
    for length in [i32::MIN, -1, 0, 48] {
        let mut bytes = batch();
        put(&mut bytes, BATCH_LENGTH, length.to_be_bytes());
        assert_eq!(BatchHeader::parse(&bytes), Err(BatchError::InvalidLength { length }));
    }
    let mut bytes = batch();
    put(&mut bytes, BATCH_LENGTH, i32::MAX.to_be_bytes());
    let error = BatchError::Truncated { needed: i32::MAX as usize + 12, actual: bytes.len() };
    assert_eq!(BatchHeader::parse(&bytes), Err(error));
    assert!(BatchHeader::parse_prefix(&bytes[..HEADER_LEN]).is_ok());
    assert_eq!(BatchHeader::parse(&[]), Err(BatchError::Truncated { needed: HEADER_LEN, actual: 0 }));
}

#[test]
fn r5_offset_and_epoch_are_set_without_touching_the_crc() {
    let mut bytes = batch();
    set_base_offset(&mut bytes, 1 << 40);
    set_leader_epoch(&mut bytes, 17);
    verify_crc(&bytes).unwrap();
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.base_offset, header.leader_epoch), (1 << 40, 17));
}

#[test]
fn append_time_replaces_every_timestamp_and_renews_the_crc() {
    let mut bytes = batch();
    let before = bytes[HEADER_LEN..].to_vec();
    set_append_time(&mut bytes, 99);
    verify_crc(&bytes).unwrap();
    assert_eq!(bytes[HEADER_LEN..], before);
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 99));
    let read = records(&Bytes::from(bytes), 0, &mut Scratch::new()).unwrap();
    assert_eq!(read.map(|r| r.unwrap().timestamp).collect::<Vec<_>>(), [99, 99]);
}

#[test]
fn max_timestamp_is_set_with_a_new_crc() {
    let mut bytes = batch();
    set_max_timestamp(&mut bytes, 21);
    verify_crc(&bytes).unwrap();
    assert_eq!(BatchHeader::parse(&bytes).unwrap().max_timestamp, 21);
}

#[test]
fn p1_a_producer_is_set_with_a_new_crc_and_nothing_else() {
    let before = batch();
    let mut bytes = before.clone();
    let producer = BatchProducer { id: 77, epoch: 3, first_sequence: 42 };
    set_producer(&mut bytes, producer);
    assert_eq!(verify_crc(&bytes), Ok(()));
    assert_eq!(BatchHeader::parse(&bytes).unwrap().producer(), Some(producer));
    assert_eq!((&bytes[..CRC], &bytes[RECORD_COUNT..]), (&before[..CRC], &before[RECORD_COUNT..]));
}

#[test]
fn a_damaged_byte_fails_the_crc() {
    let mut bytes = batch();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    assert!(matches!(verify_crc(&bytes), Err(BatchError::CrcMismatch { .. })));
}

#[test]
fn concatenated_batches_are_split_without_copying() {
    let one = batch();
    let all = Bytes::from(one.repeat(3));
    let split: Vec<_> = Batches::new(all.clone()).map(|batch| batch.unwrap().1).collect();
    assert_eq!(split, vec![Bytes::from(one.clone()); 3]);
    assert_eq!(split[1].as_ptr(), all[one.len()..].as_ptr());

    let mut cut = Batches::new(all.slice(..all.len() - 1));
    assert!(cut.next().unwrap().is_ok() && cut.next().unwrap().is_ok());
    let error = BatchError::Truncated { needed: one.len(), actual: one.len() - 1 };
    assert_eq!(cut.next(), Some(Err(error)));
    assert_eq!(cut.next(), None);
}
