//! Which log files still matter: RocksDB's MANIFEST names the oldest one whose records are not all in table files. Older
//! files may lie around, waiting to be deleted or recycled, with others between them long gone.
//!
//! The MANIFEST has the log's format; its records are `VersionEdit`s (RocksDB 11, `db/version_edit.cc`): pairs of a varint
//! tag and a value. Log numbers come before everything of a variable kind, so that reading stops at the first tag that is
//! not known here.

use std::fs::File;
use std::path::Path;

use super::{BLOCK, Kind, Physical, fill, physical};
use crate::storage::codec::{take_bytes, take_u64};

/// Bytes of an edit that are looked at: enough for the names in front of the numbers.
const PREFIX: usize = 1024;
const COMPARATOR: u64 = 1;
const LOG_NUMBER: u64 = 2;
const NEXT_FILE_NUMBER: u64 = 3;
const LAST_SEQUENCE: u64 = 4;
const PREV_LOG_NUMBER: u64 = 9;
const MIN_LOG_NUMBER_TO_KEEP: u64 = 10;
const MAX_COLUMN_FAMILY: u64 = 203;
const DB_ID: u64 = 8193;

/// Number of the oldest log file in `dir` whose records matter; 0 if there is no MANIFEST or none that can be read: RocksDB
/// will refuse it then.
pub(super) fn oldest_needed(dir: &Path) -> std::io::Result<u64> {
    let Ok(name) = std::fs::read_to_string(dir.join("CURRENT")) else { return Ok(0) };
    let Ok(mut file) = File::open(dir.join(name.trim())) else { return Ok(0) };
    let (mut block, mut record, mut oldest) = (vec![0; BLOCK], Vec::new(), 0);
    loop {
        let filled = fill(&mut file, &mut block)?;
        let mut at = 0;
        while at < filled {
            let Physical::Fragment { kind, payload, len } = physical(&block[..filled], at, 0) else { break };
            if matches!(kind, Kind::Full | Kind::First) {
                record.clear();
            }
            let room = PREFIX - record.len().min(PREFIX);
            record.extend_from_slice(&payload[..payload.len().min(room)]);
            if matches!(kind, Kind::Full | Kind::Last) {
                oldest = oldest.max(log_number(&record));
            }
            at += len;
        }
        if filled < BLOCK {
            return Ok(oldest);
        }
    }
}

/// The log number that an edit sets, or 0.
fn log_number(mut edit: &[u8]) -> u64 {
    let (edit, mut number) = (&mut edit, 0);
    while let Some(tag) = take_u64(edit) {
        match tag {
            COMPARATOR | DB_ID => {
                if take_bytes(edit).is_none() {
                    break;
                }
            }
            LOG_NUMBER | MIN_LOG_NUMBER_TO_KEEP => number = number.max(take_u64(edit).unwrap_or(0)),
            NEXT_FILE_NUMBER | LAST_SEQUENCE | PREV_LOG_NUMBER | MAX_COLUMN_FAMILY => {
                let _ = take_u64(edit);
            }
            _ => break,
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use rocksdb::{DB, Options};

    use super::*;

    #[test]
    fn the_oldest_needed_log_is_the_one_that_was_not_flushed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(oldest_needed(dir.path()).unwrap(), 0);
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, dir.path()).unwrap();
        let mut before = 0;
        for key in 0..3u8 {
            db.put([key], b"value").unwrap();
            db.flush().unwrap();
            let needed = oldest_needed(dir.path()).unwrap();
            assert!(needed > before && dir.path().join(format!("{needed:06}.log")).exists(), "{needed}");
            before = needed;
        }
    }

    #[test]
    fn hostile_edits_do_no_harm() {
        assert_eq!(log_number(&[2]), 0);
        assert_eq!(log_number(&[1, 200, 2, 9]), 0);
        assert_eq!(log_number(&[2, 7, 10, 9, 99, 1]), 9);
    }
}
