//! Snappy, raw or in the framing of Java's xerial library, which Kafka's Java client writes: 8 bytes of magic, version and
//! lowest compatible version (i32 each), then chunks of a length (i32) and a raw block. All big endian.

use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::super::error::BatchError;
use super::{Compression, stretch};

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_LEN: usize = 16;

/// No raw block unpacks to more than this many times its size: the best element copies 64 bytes by 3.
const MAX_RATIO: usize = 22;

/// Unpacks to the front of `output` and returns the length.
pub(super) fn unpack(packed: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<usize, BatchError> {
    if !packed.starts_with(XERIAL_MAGIC) {
        return block(packed, output, 0, limit);
    }
    let mut rest = packed.get(XERIAL_HEADER_LEN..).ok_or_else(|| corrupt("the xerial header is cut off"))?;
    let mut length = 0;
    while !rest.is_empty() {
        let (size, behind) = rest.split_first_chunk().ok_or_else(|| corrupt("a chunk length is cut off"))?;
        let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| corrupt("a chunk length is negative"))?;
        let (chunk, behind) = behind.split_at_checked(size).ok_or_else(|| corrupt("a chunk is cut off"))?;
        length = block(chunk, output, length, limit)?;
        rest = behind;
    }
    Ok(length)
}

/// Unpacks one raw block behind `start` and returns the position after it.
fn block(packed: &[u8], output: &mut Vec<u8>, start: usize, limit: usize) -> Result<usize, BatchError> {
    let length = decompress_len(packed).map_err(corrupt)?;
    if length > limit - start {
        return Err(BatchError::TooLargeUnpacked { limit });
    }
    if length > packed.len().saturating_mul(MAX_RATIO) {
        return Err(corrupt("it claims more bytes than it can hold"));
    }
    let target = stretch(output, start, start + length, limit);
    let written = Decoder::new().decompress(packed, target).map_err(corrupt)?;
    Ok(start + written)
}

/// An encoder that is used again.
pub(super) struct Packer {
    encoder: Encoder,
}

impl Default for Packer {
    fn default() -> Self {
        Self { encoder: Encoder::new() }
    }
}

impl Packer {
    /// Packs as one raw block, which all Kafka clients read, to the front of `output` and returns the length.
    pub(super) fn pack(&mut self, plain: &[u8], output: &mut Vec<u8>) -> Result<usize, BatchError> {
        let room = max_compress_len(plain.len());
        let target = stretch(output, 0, room, room);
        self.encoder.compress(plain, target).map_err(corrupt)
    }
}

fn corrupt(detail: impl std::fmt::Display) -> BatchError {
    Compression::Snappy.corrupt(detail)
}
