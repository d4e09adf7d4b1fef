//! Whole batches out of concatenated bytes, without copying.

use bytes::Bytes;

use super::error::BatchError;
use super::header::BatchHeader;

/// Iterates over batches that follow each other in one buffer. Ends after the first error.
///
/// Each batch shares the buffer's memory: keeping one keeps all.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// Over all batches in `bytes`, which must end where a batch ends.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match BatchHeader::parse(&self.rest) {
            Ok(header) => Some(Ok((header, self.rest.split_to(header.size_in_bytes())))),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Batches {}
