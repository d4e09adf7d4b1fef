use proptest::prelude::*;

use super::*;
use crate::storage::producers::{Sequenced, SequencedBatch};

fn producers(ids: &[i64]) -> Producers {
    let mut producers = Producers::new();
    for &id in ids {
        let batch =
            SequencedBatch { first_sequence: 0, last_sequence: 4, base_offset: id, last_offset: id + 4, timestamp: 9 };
        producers.record(&Sequenced { id, epoch: 1, batch }, 77);
    }
    producers
}

prop_compose! {
    fn any_piece()(
        origin in any::<u32>(),
        full in any::<bool>(),
        ends in any::<(i64, i64, i64)>(),
        truncated_to in any::<Option<i64>>(),
        epochs_from in any::<i64>(),
        starts in prop::collection::btree_map(any::<i32>(), 0i64..100, 0..4),
        ids in prop::collection::vec(0i64..1000, 0..4),
        batches in prop::collection::vec((1i64..1 << 40, any::<u32>(), any::<i64>()), 0..20),
    ) -> Piece {
        let mut base = 0;
        let batches: Vec<_> = batches
            .into_iter()
            .map(|(step, bytes, max_timestamp)| {
                base += step;
                BatchRef { base, bytes, max_timestamp }
            })
            .collect();
        let span = batches.first().map(|first| SpanSummary {
            first: first.base,
            last: base,
            bytes: 7,
            max_append_time: -5,
            max_timestamp: i64::MAX,
        });
        let mut start = 0;
        let epochs = starts.into_iter().map(|(epoch, step)| { start += step; (epoch, start) }).collect();
        Piece {
            origin, full, start: ends.0, end: ends.1, append_time: ends.2, truncated_to, epochs_from, epochs,
            producers: producers(&ids), span, batches,
        }
    }
}

proptest! {
    #[test]
    fn footers_come_back(pieces in prop::collection::vec(any_piece(), 0..4)) {
        let footer = Footer { pieces };
        let bytes = footer.encode();
        prop_assert_eq!(Footer::decode(&bytes), Some(footer.clone()));
        let mut summary = footer;
        summary.pieces.iter_mut().for_each(|piece| piece.batches.clear());
        prop_assert_eq!(Footer::decode_summary(&bytes), Some(summary));
    }

    #[test]
    fn cut_footers_are_refused(piece in any_piece(), at in any::<prop::sample::Index>()) {
        let bytes = Footer { pieces: vec![piece] }.encode();
        prop_assert_eq!(Footer::decode(&bytes[..at.index(bytes.len())]), None);
    }

    #[test]
    fn hostile_footers_and_seals_do_no_harm(
        piece in any_piece(), at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in any::<Vec<u8>>()
    ) {
        let mut bytes = Footer { pieces: vec![piece] }.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Footer::decode(&bytes);
        let _ = Footer::decode(&[&[VERSION], noise.as_slice()].concat());
        let _ = Seal::decode(&[&[VERSION], noise.as_slice()].concat());
    }

    #[test]
    fn seals_come_back(footers in any::<u64>(), bytes in any::<u64>(), replaces in any::<Vec<u32>>()) {
        let seal = Seal { footers, bytes, replaces };
        prop_assert_eq!(Seal::decode(&seal.encode()), Some(seal));
    }
}

#[test]
fn a_claimed_count_allocates_nothing() {
    let mut bytes = vec![VERSION];
    put_u64(&mut bytes, u64::MAX);
    assert_eq!(Footer::decode(&bytes), None);
    assert_eq!(Seal::decode(&bytes), None);
}
