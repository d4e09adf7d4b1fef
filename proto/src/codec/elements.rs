//! Counts what a large message will be made of, before it is decoded.
//!
//! Only the requests that may be large are looked into, and only as deep as something repeats in them. Malformed bytes end
//! the count: decoding will refuse them.

use std::any::TypeId;

use crate::v1::{ProduceRequest, ProduceStreamRequest};

/// Records, headers and batches that one message may hold together; each takes about 100 bytes beside its content.
pub const MAX_ELEMENTS: usize = 100_000;

/// A field that holds messages: its number, whether they repeat, and what is in them.
struct Field {
    number: u64,
    repeats: bool,
    inside: &'static [Self],
}

const HEADERS: Field = Field { number: 3, repeats: true, inside: &[] };
const RECORDS: Field = Field { number: 4, repeats: true, inside: &[HEADERS] };
const BATCH: Field = Field { number: 1, repeats: true, inside: &[] };
const BATCHES: Field = Field { number: 2, repeats: false, inside: &[BATCH] };
const REQUEST: Field = Field { number: 2, repeats: false, inside: &[RECORDS] };
const PLAIN: Field = Field { number: 3, repeats: false, inside: &[REQUEST] };

/// How many elements a `U` encoded as `bytes` has; stops soon after [`MAX_ELEMENTS`].
pub(super) fn count<U: 'static>(bytes: &[u8]) -> usize {
    let message = TypeId::of::<U>();
    let mut found = 0;
    if message == TypeId::of::<ProduceRequest>() {
        walk(bytes, &[RECORDS], &mut found);
    } else if message == TypeId::of::<ProduceStreamRequest>() {
        walk(bytes, &[BATCHES, PLAIN], &mut found);
    }
    found
}

/// Goes through a message's fields; `None` when its bytes end too early or make no sense.
fn walk(mut bytes: &[u8], fields: &'static [Field], found: &mut usize) -> Option<()> {
    while !bytes.is_empty() && *found <= MAX_ELEMENTS {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (content, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        if let Some(field) = fields.iter().find(|field| field.number == tag >> 3 && tag & 7 == 2) {
            *found += usize::from(field.repeats);
            walk(content, field.inside, found)?;
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::v1::produce_stream_request::Frame;
    use crate::v1::{FetchRequest, PartitionBatch, ProduceBatches, ProduceRecords, Record};

    fn request(records: usize, headers: usize) -> ProduceRequest {
        let record = Record {
            headers: vec![crate::v1::Header::default(); headers],
            // Looks like a message that is full of records.
            value: Some(vec![0x22, 0, 0x22, 0, 0x22, 0].into()),
            ..Record::default()
        };
        ProduceRequest { topic: "t".to_owned(), records: vec![record; records], ..ProduceRequest::default() }
    }

    fn frame(frame: Frame) -> Vec<u8> {
        ProduceStreamRequest { frame: Some(frame) }.encode_to_vec()
    }

    #[test]
    fn counts_records_headers_and_batches_and_nothing_else() {
        assert_eq!(count::<ProduceRequest>(&request(5, 2).encode_to_vec()), 15);
        let plain = Frame::Records(ProduceRecords { correlation_id: 7, request: Some(request(3, 1)) });
        assert_eq!(count::<ProduceStreamRequest>(&frame(plain)), 6);
        let batches = Frame::Batches(ProduceBatches { batches: vec![PartitionBatch::default(); 9] });
        assert_eq!(count::<ProduceStreamRequest>(&frame(batches)), 9);
        assert_eq!(count::<FetchRequest>(&request(5, 2).encode_to_vec()), 0);
    }

    #[test]
    fn a_message_of_nothing_but_empty_records_is_found_out() {
        let bytes: Vec<u8> = [0x22, 0].repeat(4 << 20);
        assert_eq!(count::<ProduceRequest>(&bytes), MAX_ELEMENTS + 1);
    }

    #[test]
    fn malformed_bytes_end_the_count() {
        let good = request(5, 2).encode_to_vec();
        for cut in 0..good.len() {
            assert!(count::<ProduceRequest>(&good[..cut]) <= 15);
        }
        for first in 0..=255 {
            count::<ProduceStreamRequest>(&[first, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }
    }
}
