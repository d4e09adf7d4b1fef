//! Bits that flip in files while nobody looks.

use std::path::PathBuf;

use taffrail_proto::record::HEADER_LEN;

use super::*;
use crate::storage::inspect::Directory;
use crate::storage::keys::{FORMAT, META_BOOT_ID, META_FORMAT, META_STORAGE_ID};
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
fn d6_damage_in_what_names_the_files_of_a_database_refuses_the_start_and_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    for database in ["data", "meta"] {
        let place = |name: &str, at: fn(usize) -> usize| {
            let files = std::fs::read_dir(dir.path().join(database)).unwrap().map(|entry| entry.unwrap().path());
            let file = files.filter(|path| path.to_string_lossy().contains(name)).max().unwrap();
            let len = std::fs::metadata(&file).unwrap().len() as usize;
            (file, at(len))
        };
        // The footer of a table, which says where its index is, has 53 bytes.
        let places = [place("MANIFEST-", |len| len / 2), place("CURRENT", |_| 12), place(".sst", |len| len - 30)];
        for (file, at) in places {
            let sound = std::fs::read(&file).unwrap();
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            match Engine::open(dir.path(), options()).map(drop) {
                Err(StorageError::Damaged { file: named, what, .. }) => {
                    let name = file.file_name().unwrap().to_str().unwrap();
                    assert!(named.contains(name) || what.contains(name), "{named}: {what}");
                    assert!(what.contains("does not open"), "{what}");
                }
                other => panic!("{}: {other:?}", file.display()),
            }
            std::fs::write(&file, sound).unwrap();
        }
    }
    Engine::open(dir.path(), options()).unwrap();
}

#[test]
fn d5_damage_in_a_table_of_the_metadata_is_told_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    // Twice, so that what was written last is in a table.
    Engine::open(dir.path(), options()).unwrap().close().unwrap();
    let tables = std::fs::read_dir(dir.path().join("meta")).unwrap().map(|entry| entry.unwrap().path());
    let table = tables.filter(|path| path.extension().is_some_and(|e| e == "sst")).max().unwrap();
    let mut bytes = std::fs::read(&table).unwrap();
    bytes[8] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    match Engine::open(dir.path(), options()).map(drop) {
        Err(StorageError::Damaged { file, .. }) => assert_eq!(Path::new(&file), table),
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_without_its_metadata_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, true);
    std::fs::remove_dir_all(Shared::meta_dir(dir.path())).unwrap();
    assert!(matches!(Engine::open(dir.path(), options()), Err(StorageError::Damaged { .. })));
}

#[test]
fn d7_what_a_start_could_not_prove_no_later_one_claims_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, false);
    // A kernel that is not the one that runs.
    let meta = MetaDb::open(&Shared::meta_dir(dir.path())).unwrap();
    meta.write_synced(vec![(META_BOOT_ID.to_vec(), Some(b"another".to_vec()))]).unwrap();
    drop(meta);
    let complete = |settle: bool, close: bool| {
        let engine = Engine::open(dir.path(), options()).unwrap();
        if settle {
            engine.mark_complete().unwrap();
        }
        if close {
            engine.close().unwrap();
        }
        engine.identity().complete
    };
    assert!(!complete(false, false));
    assert!(!complete(false, false), "the boot id is that of this kernel now, and nothing was done about the loss");
    assert!(!complete(false, true));
    assert!(!complete(true, false), "a proper close proves nothing");
    assert!(complete(false, false));
}

#[test]
fn d6_a_flipped_bit_in_the_write_ahead_log_of_the_metadata_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir, false);
    let files = std::fs::read_dir(dir.path().join("meta")).unwrap().map(|entry| entry.unwrap().path());
    let logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    // The first write; others follow it.
    flip(&logs, META_STORAGE_ID, META_STORAGE_ID.len() + 2);
    match Engine::open(dir.path(), options()).map(drop) {
        Err(StorageError::Damaged { file, .. }) => assert!(logs.iter().any(|log| Path::new(&file) == log), "{file}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(Directory::open(dir.path()), Err(StorageError::Damaged { .. })));
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
