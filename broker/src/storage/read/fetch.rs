//! Fetching batches by their keys, and checking what comes.

use bytes::Bytes;
use rocksdb::{DBPinnableSlice, ErrorKind};
use taffrail_proto::record::BatchHeader;
use taffrail_proto::record::header::verify_crc;

use super::plan::Located;
use crate::storage::shared::Shared;
use crate::storage::{ReadError, StorageError, options};

/// What came for a key.
#[derive(Debug)]
pub(super) enum Fetched {
    Batch(Bytes),
    /// The key is not there: the log changed, or worse.
    Missing,
    Fault(ReadError),
}

/// Fetches batches, in order. Blocks.
pub(super) fn fetch(shared: &Shared, located: &[Located]) -> Vec<Fetched> {
    let keys: Vec<_> = located.iter().map(|batch| batch.key().encode()).collect();
    // Values stay where RocksDB read them to: copied once, where `multi_get_opt` copies twice.
    let values = shared.data().batched_multi_get_cf_opt(shared.batches(), &keys, false, &options::read_once());
    let check = |(batch, value): (&Located, Result<Option<DBPinnableSlice<'_>>, rocksdb::Error>)| match value {
        Ok(Some(bytes)) => verified(batch, &bytes),
        Ok(None) => Fetched::Missing,
        Err(cause) if cause.kind() == ErrorKind::Corruption => Fetched::Fault(corrupt(batch, cause.to_string())),
        Err(cause) => Fetched::Fault(StorageError::io("read batches", &cause).into()),
    };
    located.iter().zip(values).map(check).collect()
}

fn verified(batch: &Located, bytes: &[u8]) -> Fetched {
    match check(batch, bytes) {
        Ok(()) => Fetched::Batch(Bytes::copy_from_slice(bytes)),
        Err(what) => Fetched::Fault(corrupt(batch, what)),
    }
}

fn check(batch: &Located, bytes: &[u8]) -> Result<(), String> {
    verify_crc(bytes).map_err(|fault| fault.to_string())?;
    let header = BatchHeader::parse(bytes).map_err(|fault| fault.to_string())?;
    if header.base_offset != batch.base || header.last_offset() != batch.last {
        return Err(format!("the batch says offsets {} to {}", header.base_offset, header.last_offset()));
    }
    if header.size_in_bytes() != bytes.len() {
        return Err(format!("the batch says {} bytes, stored are {}", header.size_in_bytes(), bytes.len()));
    }
    Ok(())
}

fn corrupt(batch: &Located, what: String) -> ReadError {
    ReadError::Corrupt { first: batch.base, last: batch.last, what }
}
