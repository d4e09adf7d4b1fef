//! One LZ4 block, decoded behind what was decoded before it. lz4_flex's decoder without `unsafe` copies a match that
//! overlaps itself (a run, or a pattern that repeats) byte by byte, which took six times as long for payloads with runs.
//!
//! Block (`lz4_Block_format.md`): sequences of a token u8 (high four bits: literals; low four: match length less 4; 15: bytes
//! follow that are added, up to the first that is not 255), the lengths' further bytes, the literals, the match's offset back
//! u16 little endian. The last sequence ends behind its literals.

/// The least length of a match.
const MIN_MATCH: usize = 4;
/// Short stretches are copied in pieces of one size, which is cheaper than to call for each length.
const PIECE: usize = 16;

/// Why a block is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It decodes to more than there is room for.
    NoRoom,
    /// It is cut off.
    Truncated,
    /// A match begins before what it may refer to.
    Offset,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "a block unpacks to more than the frame allows",
            Self::Truncated => "a block is cut off",
            Self::Offset => "a match refers to what is not there",
        })
    }
}

/// Decodes `data` to `output` from `start` on and returns the position after it. Matches may reach back to `oldest`. What
/// lies behind that position may have been written to.
pub(super) fn decode(data: &[u8], output: &mut [u8], start: usize, oldest: usize) -> Result<usize, Fault> {
    let (mut input, mut at) = (data, start);
    loop {
        let token = byte(&mut input)?;
        let literals = length(token >> 4, &mut input)?;
        at = copy_literals(&mut input, literals, output, at)?;
        if input.is_empty() {
            return Ok(at);
        }
        let (offset, rest) = input.split_first_chunk().ok_or(Fault::Truncated)?;
        input = rest;
        let offset = usize::from(u16::from_le_bytes(*offset));
        let length = MIN_MATCH + length(token & 15, &mut input)?;
        if offset == 0 || offset > at - oldest {
            return Err(Fault::Offset);
        }
        if length > output.len() - at {
            return Err(Fault::NoRoom);
        }
        copy_match(output, at, offset, length);
        at += length;
    }
}

fn byte(input: &mut &[u8]) -> Result<u8, Fault> {
    let (byte, rest) = input.split_first().ok_or(Fault::Truncated)?;
    *input = rest;
    Ok(*byte)
}

#[inline]
fn length(four_bits: u8, input: &mut &[u8]) -> Result<usize, Fault> {
    let mut length = usize::from(four_bits);
    if length == 15 {
        loop {
            let more = byte(input)?;
            length += usize::from(more);
            if more != u8::MAX {
                break;
            }
        }
    }
    Ok(length)
}

/// Moves literals to the output and returns the position after them.
#[inline]
fn copy_literals(input: &mut &[u8], length: usize, output: &mut [u8], at: usize) -> Result<usize, Fault> {
    let (literals, rest) = input.split_at_checked(length).ok_or(Fault::Truncated)?;
    let room = &mut output[at..];
    match (input.first_chunk::<PIECE>(), room.first_chunk_mut::<PIECE>()) {
        (Some(piece), Some(room)) if length <= PIECE => *room = *piece,
        _ => room.get_mut(..length).ok_or(Fault::NoRoom)?.copy_from_slice(literals),
    }
    *input = rest;
    Ok(at + length)
}

/// Copies `length` bytes from `offset` back; the room is there. Behind an overlap each copy doubles what repeats.
#[inline]
fn copy_match(output: &mut [u8], at: usize, offset: usize, length: usize) {
    let from = at - offset;
    if length <= PIECE && offset >= PIECE {
        let (before, room) = output.split_at_mut(at);
        if let (Some(piece), Some(room)) = (before[from..].first_chunk::<PIECE>(), room.first_chunk_mut::<PIECE>()) {
            *room = *piece;
            return;
        }
    }
    let mut copied = 0;
    while copied < length {
        let piece = (offset + copied).min(length - copied);
        output.copy_within(from..from + piece, at + copied);
        copied += piece;
    }
}

#[cfg(test)]
mod tests {
    use lz4_flex::block::{compress, decompress_into_with_dict};
    use proptest::prelude::*;

    use super::*;

    /// Text with repeats, near and far, of all lengths.
    fn plain() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop::collection::vec(any::<u8>(), 1..40), 1..60usize);
        prop::collection::vec(part, 0..40)
            .prop_map(|parts| parts.into_iter().flat_map(|(bytes, times)| bytes.repeat(times)).collect())
    }

    #[test]
    fn runs_and_patterns_of_every_length_are_repeated() {
        for offset in 1..40usize {
            for length in 4..200usize {
                let pattern: Vec<u8> = (0..offset as u8).collect();
                let mut output = [pattern.clone(), vec![0xee; length + 3]].concat();
                copy_match(&mut output, offset, offset, length);
                let expected: Vec<u8> = pattern.iter().copied().cycle().take(offset + length).collect();
                assert_eq!(output[..offset + length], expected, "{offset} {length}");
            }
        }
    }

    #[test]
    fn faults_are_told_apart() {
        let decode = |data: &[u8], room| decode(data, &mut vec![0; room], 0, 0);
        assert_eq!(decode(&[], 10), Err(Fault::Truncated));
        assert_eq!(decode(&[0x20, 1], 10), Err(Fault::Truncated));
        assert_eq!(decode(&[0xf0, 255], 10), Err(Fault::Truncated));
        assert_eq!(decode(&[0x10, 1, 1], 10), Err(Fault::Truncated));
        assert_eq!(decode(&[0x10, 1, 0, 0, 0x00], 10), Err(Fault::Offset));
        assert_eq!(decode(&[0x10, 1, 2, 0, 0x00], 10), Err(Fault::Offset));
        assert_eq!(decode(&[0x30, 1, 2, 3], 2), Err(Fault::NoRoom));
        assert_eq!(decode(&[0x10, 1, 1, 0, 0x00], 4), Err(Fault::NoRoom));
        assert_eq!(decode(&[0x10, 1, 1, 0, 0x00], 5), Ok(5));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back_behind_what_was_there(plain in plain(), start in 0..50usize) {
            let packed = compress(&plain);
            let mut output = vec![0x55; start + plain.len()];
            prop_assert_eq!(decode(&packed, &mut output, start, start), Ok(output.len()));
            prop_assert_eq!(&output[start..], &plain[..]);
            prop_assert!(output[..start].iter().all(|byte| *byte == 0x55));
        }

        #[test]
        fn hostile_blocks_decode_as_lz4_flex_has_them_or_not_at_all(
            plain in plain(), at in any::<prop::sample::Index>(), with in any::<u8>(), before in 0..70usize, room in 0..9000usize,
        ) {
            let mut packed = compress(&plain);
            let at = at.index(packed.len());
            packed[at] = with;
            let dictionary: Vec<u8> = (0..before as u8).collect();
            let mut output = [dictionary.clone(), vec![0; room]].concat();
            let ours = decode(&packed, &mut output, before, 0).map(|end| output[before..end].to_vec());
            let mut theirs = vec![0; room];
            let expected = decompress_into_with_dict(&packed, &mut theirs, &dictionary).map(|end| theirs[..end].to_vec());
            prop_assert_eq!(ours.ok(), expected.ok());
        }
    }
}
