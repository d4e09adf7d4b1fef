//! Zigzag variable-length integers, as Protocol Buffers' sint32 and sint64: seven bits a byte, least significant first.

use super::error::RecordFault;

/// Bytes of the longest 64-bit value.
pub(super) const MAX_LEN: usize = 10;

/// A position in bytes that are read front to back. Reads fail beyond the end and never panic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(RecordFault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Result<u8, RecordFault> {
        let (byte, rest) = self.rest.split_first().ok_or(RecordFault::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// A 32-bit value in at most five bytes.
    pub(super) fn int(&mut self) -> Result<i32, RecordFault> {
        let value = self.unsigned(5)?;
        let value = u32::try_from(value).map_err(|_| RecordFault::VarintOverflow)?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// A 64-bit value in at most ten bytes.
    pub(super) fn long(&mut self) -> Result<i64, RecordFault> {
        let value = self.unsigned(MAX_LEN)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    #[inline]
    fn unsigned(&mut self, max_len: usize) -> Result<u64, RecordFault> {
        match self.rest {
            // Nearly all lengths and deltas take one byte.
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.unsigned_long_form(max_len),
        }
    }

    fn unsigned_long_form(&mut self, max_len: usize) -> Result<u64, RecordFault> {
        let mut value = 0_u64;
        for (i, byte) in self.rest.iter().take(max_len).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == MAX_LEN - 1 && bits > 1 {
                return Err(RecordFault::VarintOverflow);
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < max_len { RecordFault::Truncated } else { RecordFault::VarintOverflow })
    }
}

/// Bytes that `value` takes.
#[inline]
pub(super) fn encoded_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `value` at `at` and returns the position after it. There must be [`MAX_LEN`] bytes of room.
#[inline]
pub(super) fn encode(buffer: &mut [u8], mut at: usize, value: i64) -> usize {
    let mut value = zigzag(value);
    while value >= 0x80 {
        buffer[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    buffer[at] = value as u8;
    at + 1
}

/// A 32-bit value takes the same bytes as the 64-bit one, so that one encoder serves both.
#[inline]
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut buffer = [0; MAX_LEN];
        let length = encode(&mut buffer, 0, value);
        buffer[..length].to_vec()
    }

    #[test]
    fn values_come_back_and_lengths_are_exact() {
        let edges = (0..63).flat_map(|bit| [1_i64 << bit, (1_i64 << bit) - 1, -(1_i64 << bit), -(1_i64 << bit) - 1]);
        for value in edges.chain([i64::MIN, i64::MAX]) {
            let bytes = encoded(value);
            assert_eq!(bytes.len(), encoded_len(value), "{value}");
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.long(), Ok(value));
            assert!(cursor.rest().is_empty());
            if let Ok(small) = i32::try_from(value) {
                assert_eq!(Cursor::new(&bytes).int(), Ok(small));
            } else {
                assert_eq!(Cursor::new(&bytes).int(), Err(RecordFault::VarintOverflow), "{value}");
            }
            for cut in 0..bytes.len() {
                assert_eq!(Cursor::new(&bytes[..cut]).long(), Err(RecordFault::Truncated));
            }
        }
    }

    #[test]
    fn endless_integers_are_refused() {
        assert_eq!(Cursor::new(&[0xff; 20]).long(), Err(RecordFault::VarintOverflow));
        assert_eq!(Cursor::new(&[0xff; 20]).int(), Err(RecordFault::VarintOverflow));
        assert_eq!(Cursor::new(&[0x80; 9]).long(), Err(RecordFault::Truncated));
        let mut too_many_bits = [0x80; 10];
        too_many_bits[9] = 2;
        assert_eq!(Cursor::new(&too_many_bits).long(), Err(RecordFault::VarintOverflow));
    }
}
