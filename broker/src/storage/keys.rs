//! The whole on-disk schema of the two databases. Beside them lie copies of footers ([`front`](super::front)).
//!
//! # Database `data`, default column family only
//!
//! Every key has 16 bytes, big endian, so that byte order is number order: storage epoch `u32`, log `u32`, rest `u64`.
//!
//! | epoch | log | rest | value |
//! |---|---|---|---|
//! | E | 0 | 0 | *seal*: E is complete ([`Seal`](super::footer::Seal)); in a rewritten epoch it names what E replaces |
//! | E | 0 | log id, 1 to 2^32-1 | *footer* of that log ([`Footer`](super::footer::Footer)) |
//! | E | 0 | 2^63 + sequence | *ledger record* ([`Ledger`](super::ledger::Ledger)), in the order of their writing |
//! | E | log id | base offset | one record batch, as on the wire |
//!
//! A *storage epoch* is one stretch of the write order. Epochs that the writer fills number from 1 upward and are never used
//! twice (block reservations in `meta` see to it); those that a rewrite makes number from [`FIRST_REWRITTEN`] upward. Footers
//! lie in front of the batches and beside each other, so that a start reads them without the data. All that is written to
//! an epoch after the flush of its batches (footers at a recovery) lies in front of all its other keys, so that files stay
//! disjoint.
//!
//! # Database `meta`
//!
//! Keys of the engine begin with `s/`, those of [`MetaStore`](super::MetaStore) are stored with `m/` in front.
//!
//! | key | value |
//! |---|---|
//! | `s/format` | `u32` BE, [`FORMAT`] |
//! | `s/storage-id` | 16 bytes |
//! | `s/incarnation` | `u64` BE, number of the newest start |
//! | `s/boot-id` | text: the kernel under which the newest start ran |
//! | `s/clean` | `u64` BE: the incarnation that closed properly; absent while one runs |
//! | `s/incomplete` | empty: some start could not prove that all acknowledged appends were there, and leader epochs have not risen since |
//! | `s/epochs` | `u32` BE: storage epochs up to this one are reserved |
//! | `s/rewritten-epochs` | `u32` BE: numbers of rewritten epochs up to this one are used |
//! | `s/next-log` | `u32` BE: the log id to be given next |
//! | `s/log/` + log id `u32` BE | topic id, 16 bytes, partition index `i32` BE |

use super::LogId;

/// Version of all formats in a data directory. A program refuses a newer one and reads all older ones.
pub const FORMAT: u32 = 1;
/// First number of rewritten epochs.
pub(crate) const FIRST_REWRITTEN: u32 = 1 << 31;
/// Length of each key in `data`.
pub(crate) const KEY_LEN: usize = 16;
/// A key of `data`, encoded.
pub(crate) type Key = [u8; KEY_LEN];

const LEDGER: u64 = 1 << 63;

pub(crate) const META_FORMAT: &[u8] = b"s/format";
pub(crate) const META_STORAGE_ID: &[u8] = b"s/storage-id";
pub(crate) const META_INCARNATION: &[u8] = b"s/incarnation";
pub(crate) const META_BOOT_ID: &[u8] = b"s/boot-id";
pub(crate) const META_CLEAN: &[u8] = b"s/clean";
pub(crate) const META_INCOMPLETE: &[u8] = b"s/incomplete";
pub(crate) const META_EPOCHS: &[u8] = b"s/epochs";
pub(crate) const META_REWRITTEN_EPOCHS: &[u8] = b"s/rewritten-epochs";
pub(crate) const META_NEXT_LOG: &[u8] = b"s/next-log";
pub(crate) const META_LOG_PREFIX: &[u8] = b"s/log/";
pub(crate) const META_OTHERS_PREFIX: &[u8] = b"m/";

/// A key of `data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataKey {
    /// The epoch is complete.
    Seal { epoch: u32 },
    /// What a log has in the epoch.
    Footer { epoch: u32, log: LogId },
    /// An operation that is no append. `sequence` is below 2^63.
    Ledger { epoch: u32, sequence: u64 },
    /// A record batch; `base` is not negative.
    Batch { epoch: u32, log: LogId, base: i64 },
}

impl DataKey {
    /// The key's bytes.
    pub(crate) fn encode(self) -> Key {
        match self {
            Self::Seal { epoch } => key(epoch, 0, 0),
            Self::Footer { epoch, log } => key(epoch, 0, u64::from(log.0)),
            Self::Ledger { epoch, sequence } => key(epoch, 0, LEDGER | sequence),
            Self::Batch { epoch, log, base } => key(epoch, log.0, base as u64),
        }
    }

    /// The key that has these bytes; `None` if no key has.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &Key = bytes.try_into().ok()?;
        let (epoch, rest) = bytes.split_first_chunk::<4>()?;
        let (log, rest) = rest.split_first_chunk::<4>()?;
        let (epoch, log) = (u32::from_be_bytes(*epoch), u32::from_be_bytes(*log));
        let rest = u64::from_be_bytes(rest.try_into().ok()?);
        match (log, rest) {
            (0, 0) => Some(Self::Seal { epoch }),
            (0, rest) if rest & LEDGER != 0 => Some(Self::Ledger { epoch, sequence: rest ^ LEDGER }),
            (0, rest) => Some(Self::Footer { epoch, log: LogId(u32::try_from(rest).ok()?) }),
            (log, base) => Some(Self::Batch { epoch, log: LogId(log), base: i64::try_from(base).ok()? }),
        }
    }

    /// The epoch that holds the key.
    pub(crate) fn epoch(self) -> u32 {
        match self {
            Self::Seal { epoch }
            | Self::Footer { epoch, .. }
            | Self::Ledger { epoch, .. }
            | Self::Batch { epoch, .. } => epoch,
        }
    }
}

/// The least key of an epoch.
pub(crate) fn epoch_start(epoch: u32) -> Key {
    key(epoch, 0, 0)
}

/// The least key of an epoch's ledger records: above its seal and footers.
pub(crate) fn ledger_start(epoch: u32) -> Key {
    key(epoch, 0, LEDGER)
}

/// The least key of an epoch's batches: above its seal, footers and ledger records.
pub(crate) fn batches_start(epoch: u32) -> Key {
    key(epoch, 1, 0)
}

/// A bound above all keys of an epoch, for iterators.
pub(crate) fn epoch_end(epoch: u32) -> Vec<u8> {
    // No key is longer than KEY_LEN, so one more byte lies above all of them.
    let mut end = key(epoch, u32::MAX, u64::MAX).to_vec();
    end.push(0);
    end
}

/// The greatest key of an epoch.
pub(crate) fn epoch_last(epoch: u32) -> Key {
    key(epoch, u32::MAX, u64::MAX)
}

/// Key of a log's identity in `meta`.
pub(crate) fn meta_log(log: LogId) -> Vec<u8> {
    [META_LOG_PREFIX, &log.0.to_be_bytes()].concat()
}

fn key(epoch: u32, log: u32, rest: u64) -> Key {
    let mut key = [0; KEY_LEN];
    key[..4].copy_from_slice(&epoch.to_be_bytes());
    key[4..8].copy_from_slice(&log.to_be_bytes());
    key[8..].copy_from_slice(&rest.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = DataKey> {
        let epoch = any::<u32>;
        let log = || (1..=u32::MAX).prop_map(LogId);
        prop_oneof![
            epoch().prop_map(|epoch| DataKey::Seal { epoch }),
            (epoch(), log()).prop_map(|(epoch, log)| DataKey::Footer { epoch, log }),
            (epoch(), 0..LEDGER).prop_map(|(epoch, sequence)| DataKey::Ledger { epoch, sequence }),
            (epoch(), log(), 0..=i64::MAX).prop_map(|(epoch, log, base)| DataKey::Batch { epoch, log, base }),
        ]
    }

    proptest! {
        #[test]
        fn keys_come_back(key in any_key()) {
            prop_assert_eq!(DataKey::decode(&key.encode()), Some(key));
        }

        #[test]
        fn kinds_lie_in_their_ranges(key in any_key()) {
            let (bytes, epoch) = (key.encode(), key.epoch());
            prop_assert!(bytes >= epoch_start(epoch) && bytes <= epoch_last(epoch) && bytes[..] < epoch_end(epoch)[..]);
            let in_front = matches!(key, DataKey::Seal { .. } | DataKey::Footer { .. });
            prop_assert_eq!(bytes < ledger_start(epoch), in_front);
            prop_assert_eq!(bytes >= batches_start(epoch), matches!(key, DataKey::Batch { .. }));
        }

        #[test]
        fn hostile_keys_are_refused_or_mean_one_thing(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(key) = DataKey::decode(&bytes) {
                prop_assert_eq!(&key.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn golden_keys() {
        let bytes = DataKey::Batch { epoch: 1, log: LogId(2), base: 3 }.encode();
        assert_eq!(bytes, [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        let bytes = DataKey::Ledger { epoch: FIRST_REWRITTEN, sequence: 5 }.encode();
        assert_eq!(bytes, [128, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 5]);
    }
}
