//! Damaged batches of every kind, from a fixed seed and with a fixed budget. Nothing may panic or hold more memory than
//! its bound, and whatever the walk before an append accepts must be readable afterwards, record by record.

#![allow(clippy::unwrap_used)] // clippy's exception for tests does not see helper functions

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use taffrail_proto::record::{
    BatchBuilder, BatchError, BatchHeader, BatchProducer, Compression, HEADER_LEN, InvalidRecord, Limits, Packer,
    Scratch, find_by_timestamp, header, records, validate,
};

const NOW: i64 = 1_700_000_000_000;
const ROUNDS: usize = 20_000;
const UNPACKED_LIMIT: usize = 64 << 10;
/// Values at the edges of lengths, counts and varints.
const EDGES: [i32; 14] = [0, 1, -1, 2, -2, 48, 49, 61, 127, 128, 0x4000, 0x7fff_ff00, i32::MAX, i32::MIN];

fn limits() -> Limits {
    Limits { max_unpacked_bytes: UNPACKED_LIMIT, ..Limits::new(1 << 20, NOW) }
}

/// A valid uncompressed batch with all kinds of fields.
fn seed_batch(rng: &mut StdRng) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for _ in 0..rng.random_range(1..8) {
        let key = vec![1; rng.random_range(0..10)];
        let value = vec![2; rng.random_range(0..200)];
        let headers = [("name", Some(&key[..])), ("name", None), ("", Some(&[][..]))];
        let count = rng.random_range(0..=headers.len());
        let timestamp = if rng.random() { NOW - rng.random_range(0..100_000) } else { -1 };
        let key = rng.random::<bool>().then_some(&key[..]);
        let value = rng.random::<bool>().then_some(&value[..]);
        builder.push(key, value, headers[..count].iter().copied(), timestamp).unwrap();
    }
    let producer = rng.random::<bool>().then_some(BatchProducer { id: 3, epoch: 1, first_sequence: 7 });
    builder.build(Compression::None, producer).unwrap().to_vec()
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..8) {
        0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => bytes[at] = [0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff][rng.random_range(0..8)],
        4 => {
            let edge = EDGES[rng.random_range(0..EDGES.len())].to_be_bytes();
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&edge[..end - at]);
        }
        5 => bytes.truncate(at),
        6 => bytes.insert(at, rng.random()),
        _ => {
            let end = rng.random_range(at..=bytes.len());
            let copy = bytes[at..end].to_vec();
            bytes.extend_from_slice(&copy);
        }
    }
}

/// Makes length and CRC right again, so that what lies behind those checks is reached.
fn repair(batch: &mut [u8]) {
    if batch.len() < HEADER_LEN {
        return;
    }
    let length = (batch.len() - header::LENGTH_PREFIX) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = header::MAGIC as u8;
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The same batch with its records packed.
fn packed(batch: &[u8], compression: Compression, packer: &mut Packer) -> Vec<u8> {
    let records = packer.pack(compression, &batch[HEADER_LEN..]).unwrap();
    let mut packed = [&batch[..HEADER_LEN], records].concat();
    packed[22] = packed[22] & !0b111 | i16::from(compression) as u8;
    repair(&mut packed);
    packed
}

/// Checks and reads the batch; returns whether it was accepted.
fn check(batch: &[u8], scratch: &mut Scratch) -> bool {
    let accepted = validate(batch, &limits(), scratch);
    assert!(scratch.capacity() <= UNPACKED_LIMIT + 1, "{} bytes held", scratch.capacity());
    // As the leader stores it; but readers meet bytes that no walk has seen, too.
    let mut stored = batch.to_vec();
    if stored.len() >= HEADER_LEN {
        header::set_base_offset(&mut stored, 1_000);
    }
    let read = read_all(&Bytes::from(stored.clone()), scratch);
    let target = accepted.as_ref().map_or(NOW, |walked| walked.max_timestamp);
    let found = find_by_timestamp(&stored, target, UNPACKED_LIMIT, scratch);
    let Ok(walked) = accepted else { return false };

    let timestamps = read.unwrap();
    assert_eq!(timestamps.len(), walked.header.record_count as usize);
    assert_eq!(timestamps.into_iter().max(), Some(walked.max_timestamp));
    assert_eq!(found.unwrap().map(|f| f.1), Some(walked.max_timestamp));
    true
}

/// The timestamps of all records; their headers are decoded as well.
fn read_all(stored: &Bytes, scratch: &mut Scratch) -> Result<Vec<i64>, BatchError> {
    let mut timestamps = Vec::new();
    for record in records(stored, UNPACKED_LIMIT, scratch)? {
        let record = record?;
        for header in record.headers() {
            header.map_err(|fault| BatchError::InvalidRecords(vec![InvalidRecord { index: 0, fault }]))?;
        }
        timestamps.push(record.timestamp);
    }
    Ok(timestamps)
}

#[test]
fn mutated_batches_are_refused_or_readable() {
    let mut rng = StdRng::seed_from_u64(0x7aff_7a11);
    let (mut packer, mut scratch) = (Packer::new(), Scratch::new());
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let mut batch = seed_batch(&mut rng);
        assert!(check(&batch, &mut scratch));
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut batch, &mut rng);
        }
        if round % 8 != 0 {
            repair(&mut batch);
        }
        if batch.len() >= HEADER_LEN && round % 2 == 0 {
            let compression = Compression::ALL[rng.random_range(0..5)];
            batch = packed(&batch, compression, &mut packer);
        }
        if check(&batch, &mut scratch) { accepted += 1 } else { refused += 1 }
    }
    // Both ways out must have been taken often, or the test tests little.
    assert!(accepted > ROUNDS / 20 && refused > ROUNDS / 20, "{accepted} accepted, {refused} refused");
}

#[test]
fn mutated_compressed_bytes_are_refused_or_readable() {
    let mut rng = StdRng::seed_from_u64(0xc0_dec5);
    let (mut packer, mut scratch) = (Packer::new(), Scratch::new());
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let compression = Compression::ALL[rng.random_range(1..5)];
        let batch = packed(&seed_batch(&mut rng), compression, &mut packer);
        assert!(check(&batch, &mut scratch));
        let mut body = batch[HEADER_LEN..].to_vec();
        for _ in 0..rng.random_range(1..3) {
            mutate(&mut body, &mut rng);
        }
        let mut mutated = [&batch[..HEADER_LEN], &body[..]].concat();
        repair(&mut mutated);
        refused += usize::from(!check(&mutated, &mut scratch));
    }
    assert!(refused > ROUNDS / 20, "{refused}");
}

#[test]
fn random_bytes_behind_a_valid_header_do_no_harm() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut scratch = Scratch::new();
    for _ in 0..ROUNDS {
        let mut batch = seed_batch(&mut rng);
        batch.truncate(HEADER_LEN);
        batch.extend(
            (0..rng.random_range(0..300)).map(|_| rng.random::<u8>() & [0xff, 0x0f, 0x03][rng.random_range(0..3)]),
        );
        batch[22] = rng.random_range(0..5);
        repair(&mut batch);
        check(&batch, &mut scratch);
        let _ = BatchHeader::parse(&batch[rng.random_range(0..batch.len())..]);
    }
}
