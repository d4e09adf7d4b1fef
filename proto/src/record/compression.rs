//! The codecs of record batches: packing, and unpacking within a bound.
//!
//! A batch's records are compressed as one block. What is accepted is what Kafka's clients send: gzip of any number of
//! members, snappy raw or in xerial's framing, one LZ4 frame, zstd frames with any window.
//!
//! Unpacking never holds more output than the bound, whatever a header claims: buffers grow with what has really been
//! unpacked or could be in the bytes at hand. Buffers and codec states live in [`Scratch`] and [`Packer`] and are used
//! again; keep one for each thread, not for each connection.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use std::fmt;
use std::str::FromStr;

use super::error::BatchError;

/// How a batch's records are compressed. The numbers are those of the batch's attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Kafka's name, as in `compression.type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// A fault of this codec's data.
    fn corrupt(self, detail: impl fmt::Display) -> BatchError {
        BatchError::CorruptCompression { compression: self, detail: detail.to_string() }
    }
}

impl From<Compression> for i16 {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

impl TryFrom<i16> for Compression {
    type Error = BatchError;

    fn try_from(code: i16) -> Result<Self, BatchError> {
        Self::ALL.into_iter().find(|c| i16::from(*c) == code).ok_or(BatchError::UnknownCompression { code })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no codec's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no compression {name:?}: use none, gzip, snappy, lz4 or zstd")]
pub struct UnknownCompressionName {
    name: String,
}

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|c| c.name() == name);
        found.ok_or_else(|| UnknownCompressionName { name: name.to_owned() })
    }
}

/// Buffers for unpacking, used again from batch to batch. Grows to the largest output seen, at most the bound given.
#[derive(Default)]
pub struct Scratch {
    /// What was unpacked, and rests of earlier output behind it.
    output: Vec<u8>,
    gzip: gzip::Inflater,
    zstd: zstd::Unpacker,
}

impl Scratch {
    /// Without any memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Unpacks `packed` to at most `limit` bytes. Without compression `packed` itself is the result, of any length.
    pub fn unpack<'a>(
        &'a mut self,
        compression: Compression,
        packed: &'a [u8],
        limit: usize,
    ) -> Result<&'a [u8], BatchError> {
        let output = &mut self.output;
        let length = match compression {
            Compression::None => return Ok(packed),
            Compression::Gzip => self.gzip.unpack(packed, output, limit)?,
            Compression::Snappy => snappy::unpack(packed, output, limit)?,
            Compression::Lz4 => lz4::unpack(packed, output, limit)?,
            Compression::Zstd => self.zstd.unpack(packed, output, limit)?,
        };
        Ok(&self.output[..length])
    }

    /// Gives back output memory beyond `bytes`. For owners that live long, after a batch that was unusually large.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.output.truncate(bytes);
        self.output.shrink_to(bytes);
    }

    /// Bytes held for output.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.output.capacity()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// Buffers for packing, used again from batch to batch.
#[derive(Default)]
pub struct Packer {
    output: Vec<u8>,
    gzip: gzip::Deflater,
    lz4: lz4::Packer,
    snappy: snappy::Packer,
    zstd: zstd::Packer,
}

impl Packer {
    /// Without any memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Packs `plain`. Without compression `plain` itself is the result.
    pub fn pack<'a>(&'a mut self, compression: Compression, plain: &'a [u8]) -> Result<&'a [u8], BatchError> {
        let output = &mut self.output;
        let length = match compression {
            Compression::None => return Ok(plain),
            Compression::Gzip => self.gzip.pack(plain, output)?,
            Compression::Snappy => self.snappy.pack(plain, output)?,
            Compression::Lz4 => return self.lz4.pack(plain),
            Compression::Zstd => self.zstd.pack(plain, output)?,
        };
        Ok(&self.output[..length])
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// The stretch of `buffer` from `start` to `end`, which is at most `limit`. A buffer that is too short is filled up with
/// zeros, once as it is used again; its capacity doubles to keep that cheap, but not beyond `limit`.
fn stretch(buffer: &mut Vec<u8>, start: usize, end: usize, limit: usize) -> &mut [u8] {
    if buffer.len() < end {
        if buffer.capacity() < end {
            let capacity = buffer.capacity().saturating_mul(2).min(limit).max(end);
            buffer.reserve_exact(capacity - buffer.len());
        }
        buffer.resize(end, 0);
    }
    &mut buffer[start..end]
}

#[cfg(test)]
mod tests;
