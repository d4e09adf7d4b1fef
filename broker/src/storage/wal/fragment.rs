//! The pieces that a log file is made of: fragments of records, and the first bytes of a record ([`wal`](super) has the format).

use super::BLOCK;

const BATCH_HEADER: usize = 12;
/// Batch header, tag and length of the log data, sync mark.
const HEAD: usize = BATCH_HEADER + 2 + 8;
const LOG_DATA_TAG: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Full,
    First,
    Middle,
    Last,
    /// Carries no data of a record.
    Note,
}

/// What lies at a place of a block.
pub(super) enum Physical<'a> {
    Padding,
    Fragment {
        kind: Kind,
        payload: &'a [u8],
        len: usize,
    },
    /// A whole fragment of an older log in this file; its length.
    Older(usize),
    Bad(&'static str),
}

/// What lies at `at` of a block; the last block of a file may be short.
pub(super) fn physical(block: &[u8], at: usize, number: u32) -> Physical<'_> {
    let (room, bytes) = (BLOCK - at, &block[at..]);
    if room < 7 || (room < 11 && bytes.iter().all(|&b| b == 0)) {
        return Physical::Padding;
    }
    let Some((crc, &[l0, l1, kind, ..])) = bytes.split_first_chunk::<4>() else {
        return Physical::Bad("the file ends within a header");
    };
    let (crc, payload_len) = (u32::from_le_bytes(*crc), usize::from(u16::from_le_bytes([l0, l1])));
    let (kind, header) = match kind {
        0 if payload_len == 0 && crc == 0 => return Physical::Bad("zeroes"),
        1 | 5 => (Kind::Full, kind),
        2 | 6 => (Kind::First, kind),
        3 | 7 => (Kind::Middle, kind),
        4 | 8 => (Kind::Last, kind),
        10 | 11 | 130 | 131 => (Kind::Note, kind),
        _ => return Physical::Bad("a fragment of unknown type"),
    };
    let header = if matches!(header, 5..=8 | 11 | 131) { 11 } else { 7 };
    let len = header + payload_len;
    if len > room {
        return Physical::Bad("a fragment beyond its block");
    }
    if len > bytes.len() {
        return Physical::Bad("the file ends within a fragment");
    }
    let sound = crc32c::crc32c(&bytes[6..len]) == unmask(crc);
    let own = header == 7 || bytes[7..11] == number.to_le_bytes();
    match (sound, own) {
        (true, true) => Physical::Fragment { kind, payload: &bytes[header..len], len },
        (true, false) => Physical::Older(len),
        (false, _) => Physical::Bad("a fragment fails its checksum"),
    }
}

/// RocksDB stores `rotate_right(crc, 15) + 0xa282ead8` (`util/crc32c.h`).
fn unmask(crc: u32) -> u32 {
    crc.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// The first bytes of a record, gathered from its fragments.
#[derive(Clone, Copy)]
pub(super) struct Head {
    bytes: [u8; HEAD],
    len: usize,
}

impl Head {
    pub(super) fn of(payload: &[u8]) -> Self {
        let mut head = Self { bytes: [0; HEAD], len: 0 };
        head.extend(payload);
        head
    }

    pub(super) fn extend(&mut self, payload: &[u8]) {
        let n = payload.len().min(HEAD - self.len);
        self.bytes[self.len..self.len + n].copy_from_slice(&payload[..n]);
        self.len += n;
    }

    pub(super) fn batch(&self) -> Option<(u64, u32)> {
        let (sequence, rest) = self.bytes[..self.len].split_first_chunk()?;
        Some((u64::from_le_bytes(*sequence), u32::from_le_bytes(*rest.first_chunk()?)))
    }

    pub(super) fn mark(&self) -> u64 {
        match self.bytes[BATCH_HEADER..].split_first_chunk() {
            Some((&[LOG_DATA_TAG, 8], mark)) if self.len == HEAD => {
                mark.first_chunk().map_or(0, |mark| u64::from_be_bytes(*mark))
            }
            _ => 0,
        }
    }
}
