//! Gzip (RFC 1952), any number of members. Header and trailer are handled here, so that the inflate state is used again.

use flate2::{Compress, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::super::error::BatchError;
use super::{Compression, stretch};

/// Magic, method deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const TRAILER_LEN: usize = 8;
const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;
const RESERVED_FLAGS: u8 = 0b1110_0000;
/// Output grows by what the input typically unpacks to, at least this much.
const LEAST_GROWTH: usize = 16 << 10;
const TYPICAL_RATIO: usize = 4;

/// A decoder that is used again.
#[derive(Default)]
pub(super) struct Inflater {
    state: Option<Decompress>,
}

impl Inflater {
    /// Unpacks to the front of `output` and returns the length.
    pub(super) fn unpack(&mut self, packed: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<usize, BatchError> {
        let mut rest = packed;
        let mut length = 0;
        loop {
            rest = skip_header(rest)?;
            let start = length;
            (rest, length) = self.member(rest, output, start, limit)?;
            let (trailer, behind) =
                rest.split_first_chunk::<TRAILER_LEN>().ok_or_else(|| corrupt("the trailer is cut off"))?;
            check_trailer(*trailer, &output[start..length])?;
            rest = behind;
            if rest.is_empty() {
                return Ok(length);
            }
        }
    }

    /// Inflates one member behind `start`; returns what follows it and the position after its output.
    fn member<'a>(
        &mut self,
        packed: &'a [u8],
        output: &mut Vec<u8>,
        start: usize,
        limit: usize,
    ) -> Result<(&'a [u8], usize), BatchError> {
        let state = self.state.get_or_insert_with(|| Decompress::new(false));
        state.reset(false);
        // One byte more than allowed tells output that ends at the bound from output that goes on.
        let most = limit.saturating_add(1);
        let growth = packed.len().saturating_mul(TYPICAL_RATIO).max(LEAST_GROWTH);
        let mut end = start;
        loop {
            let rest = &packed[state.total_in() as usize..];
            let room_end = output.len().max(end.saturating_add(growth)).min(most);
            let target = stretch(output, end, room_end, most);
            let before = (state.total_in(), state.total_out());
            let status = state.decompress(rest, target, FlushDecompress::None).map_err(corrupt)?;
            end += (state.total_out() - before.1) as usize;
            if end > limit {
                return Err(BatchError::TooLargeUnpacked { limit });
            }
            if status == Status::StreamEnd {
                return Ok((&packed[state.total_in() as usize..], end));
            }
            // There was room, so that only want of input can have stopped it.
            if (state.total_in(), state.total_out()) == before {
                return Err(corrupt("it is cut off"));
            }
        }
    }
}

/// What follows a member's header.
fn skip_header(packed: &[u8]) -> Result<&[u8], BatchError> {
    let (fixed, mut rest) = packed.split_first_chunk::<10>().ok_or_else(|| corrupt("the header is cut off"))?;
    let flags = fixed[3];
    if fixed[..3] != HEADER[..3] || flags & RESERVED_FLAGS != 0 {
        return Err(corrupt("it is not gzip"));
    }
    if flags & FLAG_EXTRA != 0 {
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| corrupt("the header is cut off"))?;
        rest = skip(behind, usize::from(u16::from_le_bytes(*length)))?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(|| corrupt("the header is cut off"))?;
            rest = &rest[end + 1..];
        }
    }
    if flags & FLAG_HEADER_CRC == 0 { Ok(rest) } else { skip(rest, 2) }
}

fn skip(bytes: &[u8], length: usize) -> Result<&[u8], BatchError> {
    bytes.get(length..).ok_or_else(|| corrupt("the header is cut off"))
}

fn check_trailer(trailer: [u8; TRAILER_LEN], content: &[u8]) -> Result<(), BatchError> {
    let [c0, c1, c2, c3, l0, l1, l2, l3] = trailer;
    let mut crc = Crc::new();
    crc.update(content);
    if u32::from_le_bytes([c0, c1, c2, c3]) != crc.sum() {
        return Err(corrupt("the content's checksum does not match"));
    }
    if u32::from_le_bytes([l0, l1, l2, l3]) != content.len() as u32 {
        return Err(corrupt("the content's size is not the announced one"));
    }
    Ok(())
}

/// An encoder that is used again, at zlib's default level as Kafka's.
#[derive(Default)]
pub(super) struct Deflater {
    state: Option<Compress>,
}

impl Deflater {
    /// Packs to the front of `output` and returns the length.
    pub(super) fn pack(&mut self, plain: &[u8], output: &mut Vec<u8>) -> Result<usize, BatchError> {
        let state = self.state.get_or_insert_with(|| Compress::new(flate2::Compression::default(), false));
        state.reset();
        output.clear();
        output.extend_from_slice(&HEADER);
        loop {
            output.reserve(plain.len() / 2 + LEAST_GROWTH);
            let rest = &plain[state.total_in() as usize..];
            if state.compress_vec(rest, output, FlushCompress::Finish).map_err(corrupt)? == Status::StreamEnd {
                break;
            }
        }
        let mut crc = Crc::new();
        crc.update(plain);
        output.extend_from_slice(&crc.sum().to_le_bytes());
        output.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        Ok(output.len())
    }
}

fn corrupt(detail: impl std::fmt::Display) -> BatchError {
    Compression::Gzip.corrupt(detail)
}
