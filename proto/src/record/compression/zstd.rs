//! Zstandard, always in one call from buffer to buffer: the output serves as the window, so that a frame may announce any
//! window without costing memory beyond the bound.

use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{CCtx, DCtx, compress_bound, get_error_name, get_frame_content_size, is_error_kind};

use super::super::error::BatchError;
use super::{Compression, stretch};

/// Kafka's default level.
const LEVEL: i32 = 3;
/// First guess, and the factor by which a wrong guess grows, for frames that do not tell their size (Java's do not).
const FIRST_GUESS: usize = 64 << 10;
const GROWTH: usize = 4;
/// No frame unpacks to more than this many times its size: a block of 4 bytes stands for at most 128 KiB.
const MAX_RATIO: usize = (128 << 10) / 4;

/// A decoder that is used again.
#[derive(Default)]
pub(super) struct Unpacker {
    context: Option<DCtx<'static>>,
}

impl Unpacker {
    /// Unpacks to the front of `output` and returns the length.
    pub(super) fn unpack(&mut self, packed: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<usize, BatchError> {
        let context = self.context.get_or_insert_with(DCtx::create);
        let mut room = first_room(packed, output.capacity(), limit)?;
        loop {
            output.clear();
            output.reserve_exact(room);
            match context.decompress(output, packed) {
                Ok(length) if length > limit => return Err(BatchError::TooLargeUnpacked { limit }),
                Ok(length) => return Ok(length),
                Err(code) if !is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall) => {
                    return Err(corrupt(get_error_name(code)));
                }
                Err(_) if output.capacity() >= limit => return Err(BatchError::TooLargeUnpacked { limit }),
                Err(_) => room = output.capacity().saturating_mul(GROWTH).min(limit),
            }
        }
    }
}

/// How much room to begin with: the announced size as far as the bytes can hold it, else a guess.
fn first_room(packed: &[u8], held: usize, limit: usize) -> Result<usize, BatchError> {
    match get_frame_content_size(packed).map_err(|_| corrupt("it is not a zstd frame"))? {
        Some(size) if size > limit as u64 => Err(BatchError::TooLargeUnpacked { limit }),
        Some(size) => Ok((size as usize).min(packed.len().saturating_mul(MAX_RATIO))),
        None => Ok(held.max(FIRST_GUESS).max(packed.len().saturating_mul(GROWTH)).min(limit)),
    }
}

/// An encoder that is used again.
#[derive(Default)]
pub(super) struct Packer {
    context: Option<CCtx<'static>>,
}

impl Packer {
    /// Packs to the front of `output` and returns the length. The frame tells its size.
    pub(super) fn pack(&mut self, plain: &[u8], output: &mut Vec<u8>) -> Result<usize, BatchError> {
        let context = self.context.get_or_insert_with(CCtx::create);
        let room = compress_bound(plain.len());
        let target = stretch(output, 0, room, room);
        context.compress(target, plain, LEVEL).map_err(|code| corrupt(get_error_name(code)))
    }
}

fn corrupt(detail: &str) -> BatchError {
    Compression::Zstd.corrupt(detail)
}
