//! One LZ4 frame, decoded block by block straight into the output: the frame format's own decoders keep two further
//! buffers of a block's size and copy. Header, block and content checksums are verified where present.
//!
//! Frame (`lz4_Frame_format.md` 1.6, little endian): magic u32; FLG u8 (bits 7–6 version 01, 5 independent blocks, 4 block
//! checksums, 3 content size, 2 content checksum, 0 dictionary); BD u8 (bits 6–4 maximum block size); content size u64?;
//! dictionary id u32?; HC u8 (second byte of the header's xxh32); blocks of size u32 (top bit: stored as is), data,
//! xxh32?; end mark 0u32; content xxh32?. Kafka's Java consumer reads exactly one frame, so more are refused.

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::super::error::BatchError;
use super::{Compression, stretch};

mod block;
mod xxh32;

use block::{Fault, decode};
use xxh32::xxh32;

const FRAME_MAGIC: u32 = 0x184d_2204;
const FLG_VERSION: u8 = 0b1100_0000;
const FLG_VERSION_1: u8 = 0b0100_0000;
const FLG_INDEPENDENT: u8 = 1 << 5;
const FLG_BLOCK_CHECKSUM: u8 = 1 << 4;
const FLG_CONTENT_SIZE: u8 = 1 << 3;
const FLG_CONTENT_CHECKSUM: u8 = 1 << 2;
const FLG_RESERVED: u8 = 1 << 1;
const FLG_DICTIONARY: u8 = 1;
const STORED_BIT: u32 = 1 << 31;
/// How far a linked block may refer back.
const WINDOW: usize = 64 << 10;
/// No block unpacks to more than this many times its size: a length byte of 255 stands for 255 bytes.
const MAX_RATIO: usize = 255;

/// What the frame's header says.
struct Frame {
    flags: u8,
    max_block: usize,
    content_size: Option<u64>,
}

/// Reads the frame front to back.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| corrupt("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| corrupt("it is cut off"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, BatchError> {
        self.array().map(u32::from_le_bytes)
    }
}

/// Unpacks to the front of `output` and returns the length.
pub(super) fn unpack(packed: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<usize, BatchError> {
    let mut input = Input { rest: packed };
    let frame = header(&mut input)?;
    if frame.content_size.is_some_and(|size| size > limit as u64) {
        return Err(BatchError::TooLargeUnpacked { limit });
    }
    let mut length = 0;
    loop {
        let size = input.u32()?;
        if size == 0 {
            break;
        }
        let data = input.take((size & !STORED_BIT) as usize)?;
        if data.len() > frame.max_block {
            return Err(corrupt("a block is larger than the frame allows"));
        }
        if frame.flags & FLG_BLOCK_CHECKSUM != 0 && input.u32()? != xxh32(data) {
            return Err(corrupt("a block's checksum does not match"));
        }
        length = if size & STORED_BIT == 0 {
            block(&frame, data, output, length, limit)?
        } else {
            stored(data, output, length, limit)?
        };
    }
    if frame.flags & FLG_CONTENT_CHECKSUM != 0 && input.u32()? != xxh32(&output[..length]) {
        return Err(corrupt("the content's checksum does not match"));
    }
    if frame.content_size.is_some_and(|size| size != length as u64) {
        return Err(corrupt("the content's size is not the announced one"));
    }
    if input.rest.is_empty() { Ok(length) } else { Err(corrupt("bytes follow the frame")) }
}

fn header(input: &mut Input<'_>) -> Result<Frame, BatchError> {
    if input.u32()? != FRAME_MAGIC {
        return Err(corrupt("it is not an LZ4 frame"));
    }
    let descriptor = input.rest;
    let [flags, bd] = input.array()?;
    if flags & FLG_VERSION != FLG_VERSION_1 || flags & FLG_RESERVED != 0 {
        return Err(corrupt("the frame's version is unknown"));
    }
    if flags & FLG_DICTIONARY != 0 {
        return Err(corrupt("the frame needs a dictionary"));
    }
    let max_block = match bd {
        0x40 => 64 << 10,
        0x50 => 256 << 10,
        0x60 => 1 << 20,
        0x70 => 4 << 20,
        _ => return Err(corrupt("the frame's block size is unknown")),
    };
    let content_size = if flags & FLG_CONTENT_SIZE == 0 { None } else { Some(u64::from_le_bytes(input.array()?)) };
    let hashed = &descriptor[..descriptor.len() - input.rest.len()];
    let [checksum] = input.array()?;
    if checksum != (xxh32(hashed) >> 8) as u8 {
        return Err(corrupt("the frame header's checksum does not match"));
    }
    Ok(Frame { flags, max_block, content_size })
}

fn stored(data: &[u8], output: &mut Vec<u8>, start: usize, limit: usize) -> Result<usize, BatchError> {
    if data.len() > limit - start {
        return Err(BatchError::TooLargeUnpacked { limit });
    }
    let end = start + data.len();
    stretch(output, start, end, limit).copy_from_slice(data);
    Ok(end)
}

/// Unpacks one block behind `start` and returns the position after it.
fn block(frame: &Frame, data: &[u8], output: &mut Vec<u8>, start: usize, limit: usize) -> Result<usize, BatchError> {
    let most = frame.max_block.min(data.len() * MAX_RATIO);
    let room = most.min(limit - start);
    stretch(output, start, start + room, limit);
    let oldest = if frame.flags & FLG_INDEPENDENT == 0 { start.saturating_sub(WINDOW) } else { start };
    match decode(data, &mut output[..start + room], start, oldest) {
        Ok(end) => Ok(end),
        Err(Fault::NoRoom) if room < most => Err(BatchError::TooLargeUnpacked { limit }),
        Err(fault) => Err(corrupt(fault)),
    }
}

/// An encoder that is used again: independent blocks of 64 KiB without checksums, as Kafka's Java client writes.
#[derive(Default)]
pub(super) struct Packer {
    encoder: Option<FrameEncoder<Vec<u8>>>,
}

impl Packer {
    pub(super) fn pack(&mut self, plain: &[u8]) -> Result<&[u8], BatchError> {
        let encoder = self.encoder.get_or_insert_with(|| {
            let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            FrameEncoder::with_frame_info(frame, Vec::new())
        });
        encoder.get_mut().clear();
        encoder.write_all(plain).map_err(corrupt)?;
        encoder.try_finish().map_err(corrupt)?;
        Ok(encoder.get_ref())
    }
}

fn corrupt(detail: impl std::fmt::Display) -> BatchError {
    Compression::Lz4.corrupt(detail)
}
