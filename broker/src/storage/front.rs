//! The front of a sealed storage epoch: its seal and all of its footers, as they lie on the disk.
//!
//! Batches can be lost one by one, but a front says what its epoch holds of which logs, and nothing else does: a bit that
//! flips in it would cost whole logs their ends. So each front lies a second time in a plain file beside the databases
//! ([`Copies`]), and is read from there when the database's own is damaged (D5). Fronts are 1 % of the bytes or less.
//!
//! # What damage costs
//!
//! | damaged block | what happens |
//! |---|---|
//! | batches | reads of their offsets fail |
//! | seal, footers, and whatever shares their block | the copy stands in; reads of the batches in the block fail |
//! | ledger records of a sealed epoch | nothing: the footers hold what came of them |
//! | seal or footers, and the copy is gone or damaged too | the start is refused with file and byte: whose offsets are concerned, and where logs end, cannot be known |
//! | the epoch that was open at a crash, before the start has sealed it | the same |
//!
//! The copy is made as soon as the epoch is sealed, from what was written. One that is missing nevertheless is made by the
//! next start, round of maintenance or close, whichever comes first.
//!
//! # Format of a copy
//!
//! CRC32C of all behind it `u32` big endian, version `u8` = 1, then varints ([`codec`](super::codec)): epoch; length and bytes
//! of the seal; number of footers; of each the log, length and bytes.

use rocksdb::DB;

use super::codec::{put_bytes, put_u64, take_bytes, take_u8, take_u32, take_u64};
use super::footer::{Footer, Seal};
use super::keys::{DataKey, ledger_start};
use super::{LogId, StorageError, options};

mod copies;

pub(crate) use copies::Copies;

const VERSION: u8 = 1;

/// Seal and footers of an epoch, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    seal: Vec<u8>,
    /// In the order of the logs' numbers.
    footers: Vec<(LogId, Vec<u8>)>,
}

impl Front {
    /// What has just been written of an epoch.
    pub(crate) fn written(seal: Vec<u8>, mut footers: Vec<(LogId, Vec<u8>)>) -> Self {
        footers.sort_unstable_by_key(|(log, _)| *log);
        Self { seal, footers }
    }

    /// Reads the database's own.
    pub(crate) fn original(data: &DB, epoch: u32) -> Result<Self, StorageError> {
        let what = || format!("front of storage epoch {epoch}");
        let seal = data.get_opt(DataKey::Seal { epoch }.encode(), &options::read_once());
        let seal = seal.map_err(|cause| StorageError::by_rocksdb(data.path(), &what(), &cause))?;
        let seal = seal.ok_or_else(|| StorageError::damaged(data.path(), &what(), &"it has no seal"))?;
        let mut front = Self { seal, footers: vec![] };
        let mut items = data.raw_iterator_opt(options::scan(ledger_start(epoch)));
        items.seek(DataKey::Footer { epoch, log: LogId(1) }.encode());
        while let Some((key, value)) = items.item() {
            let Some(DataKey::Footer { log, .. }) = DataKey::decode(key) else {
                return Err(StorageError::damaged(data.path(), &what(), &"malformed key"));
            };
            front.footers.push((log, value.to_vec()));
            items.next();
        }
        items.status().map_err(|cause| StorageError::by_rocksdb(data.path(), &what(), &cause))?;
        Ok(front)
    }

    /// The database's own or, if that is damaged, the copy.
    pub(crate) fn read(data: &DB, copies: &Copies, epoch: u32) -> Result<Self, StorageError> {
        match Self::original(data, epoch) {
            Err(damage @ StorageError::Damaged { .. }) => {
                let copy = copies.read(epoch).ok_or_else(|| damage.clone())?;
                tracing::error!(%damage, "the copy stands in; reads of damaged batches fail");
                Ok(copy)
            }
            read => read,
        }
    }

    /// The seal; `None` if malformed.
    pub(crate) fn seal(&self) -> Option<Seal> {
        Seal::decode(&self.seal)
    }

    /// The footers, encoded, by their logs.
    pub(crate) fn footers(&self) -> &[(LogId, Vec<u8>)] {
        &self.footers
    }

    /// The footer of a log; `None` if it has none or a malformed one.
    pub(crate) fn footer(&self, log: LogId) -> Option<Footer> {
        let at = self.footers.binary_search_by_key(&log, |(log, _)| *log).ok()?;
        Footer::decode(&self.footers[at].1)
    }

    fn encode(&self, epoch: u32) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, VERSION];
        put_u64(&mut out, u64::from(epoch));
        put_bytes(&mut out, &self.seal);
        put_u64(&mut out, self.footers.len() as u64);
        for (log, footer) in &self.footers {
            put_u64(&mut out, u64::from(log.0));
            put_bytes(&mut out, footer);
        }
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// `None` if it is not the whole copy of this epoch.
    fn decode(bytes: &[u8], epoch: u32) -> Option<Self> {
        let (crc, mut bytes) = bytes.split_first_chunk::<4>()?;
        if crc32c::crc32c(bytes) != u32::from_be_bytes(*crc) {
            return None;
        }
        let bytes = &mut bytes;
        if take_u8(bytes)? != VERSION || take_u32(bytes)? != epoch {
            return None;
        }
        let seal = take_bytes(bytes)?.to_vec();
        let count = take_u64(bytes)?;
        let mut footers = vec![];
        for _ in 0..count {
            footers.push((LogId(take_u32(bytes)?), take_bytes(bytes)?.to_vec()));
        }
        bytes.is_empty().then_some(Self { seal, footers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> Front {
        let footer = |log| (LogId(log), Footer::default().encode());
        Front { seal: Seal { footers: 2, ..Seal::default() }.encode(), footers: vec![footer(1), footer(70_000)] }
    }

    #[test]
    fn a_copy_comes_back() {
        let decoded = Front::decode(&front().encode(5), 5);
        assert_eq!(decoded, Some(front()));
        assert_eq!(front().footer(LogId(70_000)), Some(Footer::default()));
        assert_eq!(front().footer(LogId(2)), None);
    }

    #[test]
    fn d5_a_copy_with_any_bit_flipped_or_byte_missing_is_none() {
        let bytes = front().encode(5);
        assert_eq!(Front::decode(&bytes, 6), None, "of another epoch");
        for at in 0..bytes.len() {
            assert_eq!(Front::decode(&bytes[..at], 5), None);
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(Front::decode(&flipped, 5), None);
        }
    }
}
