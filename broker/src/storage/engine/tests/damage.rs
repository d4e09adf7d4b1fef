//! Bits that flip in files while nobody looks.

use std::path::PathBuf;

use taffrail_proto::record::HEADER_LEN;

use super::*;
use crate::storage::keys::{FORMAT, META_FORMAT};
use crate::storage::meta::MetaDb;

/// Each batch is larger than a block, so that a damaged block concerns one of them.
const RECORDS: i64 = 80;

fn options() -> EngineOptions {
    EngineOptions { epoch_bytes: 512 << 10, ..small() }
}

fn files(dir: &TempDir, part: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(Shared::data_dir(dir.path())).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().contains(part)).collect()
}

/// Flips a bit `behind` the place in these files that begins with `wanted`.
fn flip(files: &[PathBuf], wanted: &[u8], behind: usize) {
    for path in files {
        let mut bytes = std::fs::read(path).unwrap();
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            bytes[at + behind] ^= 1;
            return std::fs::write(path, bytes).unwrap();
        }
    }
    panic!("no file holds it");
}

fn fill(dir: &TempDir, close: bool) -> Vec<Bytes> {
    let engine = Engine::open(dir.path(), options()).unwrap();
    let log = engine.create(partition(0)).unwrap();
    let written = (0..10).map(|_| append_as(&log, RECORDS, Durability::Disk)).collect();
    if close {
        engine.close().unwrap();
    }
    written
}

#[test]
fn d5_a_flipped_bit_in_a_data_block_is_an_error_for_its_offsets_only() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir, true);
    flip(&files(&dir, ".sst"), &written[4][..HEADER_LEN], 60_000);
    let engine = Engine::open(dir.path(), options()).unwrap();
    let log = engine.logs().remove(0);
    let damaged = 4 * RECORDS..5 * RECORDS;
    for (at, batch) in written.iter().enumerate() {
        let base = at as i64 * RECORDS;
        match block_on(log.read(base + 3, i64::MAX, 1)) {
            Ok(read) => assert!(read == [batch.clone()] && !damaged.contains(&base)),
            Err(ReadError::Corrupt { first, last, .. }) => assert_eq!((first, last + 1), (damaged.start, damaged.end)),
            Err(fault) => panic!("{fault}"),
        }
    }
    let up_to_it = block_on(log.read(0, i64::MAX, usize::MAX)).unwrap();
    assert_eq!(up_to_it, written[..4]);
    assert!(matches!(block_on(log.find_timestamp(1000 + damaged.start, i64::MAX)), Err(ReadError::Corrupt { .. })));
}

#[test]
fn d6_a_flipped_bit_in_the_write_ahead_log_refuses_the_start_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir, false);
    flip(&files(&dir, ".log"), &written[8][..HEADER_LEN], 60_000);
    match Engine::open(dir.path(), options()).map(drop) {
        Err(StorageError::Damaged { file, .. }) => {
            assert!(Path::new(&file).extension().is_some_and(|e| e == "log"), "{file}");
        }
        other => panic!("{other:?}"),
    }
    let accept = EngineOptions { accept_loss: true, ..options() };
    let engine = Engine::open(dir.path(), accept).unwrap();
    assert!(!engine.identity().complete);
    let log = engine.logs().remove(0);
    assert_eq!(read_all(&log), written[..log.extent().end as usize / RECORDS as usize]);
}

#[test]
fn a_flipped_bit_in_the_manifest_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    flip(&files(&dir, "MANIFEST"), b"leveldb.BytewiseComparator", 5);
    assert!(matches!(Engine::open(dir.path(), options()), Err(StorageError::Damaged { .. })));
}

#[test]
fn data_without_its_metadata_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    std::fs::remove_dir_all(Shared::meta_dir(dir.path())).unwrap();
    assert!(matches!(Engine::open(dir.path(), options()), Err(StorageError::Damaged { .. })));
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    let meta = MetaDb::open(&Shared::meta_dir(dir.path())).unwrap();
    meta.write_synced(vec![(META_FORMAT.to_vec(), Some((FORMAT + 1).to_be_bytes().to_vec()))]).unwrap();
    drop(meta);
    let refused = Engine::open(dir.path(), options()).map(drop).unwrap_err();
    assert!(matches!(refused, StorageError::NewerFormat { found, known, .. } if found == known + 1));
}
