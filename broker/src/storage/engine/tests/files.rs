//! Files that an engine holds open, and those it keeps beside the databases.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use super::*;

/// Tables of this directory that the process has open.
fn open_tables(dir: &TempDir) -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    files.filter(|file| file.starts_with(dir.path()) && file.extension().is_some_and(|e| e == "sst")).count()
}

/// RocksDB divides the number among 64 parts of its cache, so less than one each is none.
const MOST: u32 = 64;

fn few_tables() -> EngineOptions {
    EngineOptions { epoch_bytes: 16 << 10, max_tables: Some(MOST), ..small() }
}

fn fill(dir: &TempDir) -> Vec<Bytes> {
    let engine = Engine::open(dir.path(), few_tables()).unwrap();
    let log = engine.create(partition(0)).unwrap();
    let mut written = vec![];
    while engine.shared().data().live_files().unwrap().len() < 2 * MOST as usize {
        written.extend((0..5).map(|_| append(&log, 4)));
    }
    assert_eq!(read_all(&log), written);
    assert!(open_tables(dir) <= MOST as usize, "{} are open", open_tables(dir));
    engine.close().unwrap();
    written
}

#[test]
fn no_more_tables_are_open_than_allowed_and_all_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir);
    let engine = Engine::open(dir.path(), few_tables()).unwrap();
    assert_eq!(read_all(&engine.logs()[0]), written);
    assert!(open_tables(&dir) <= MOST as usize, "{} are open", open_tables(&dir));
    drop(engine);
    let all = EngineOptions { max_tables: None, ..few_tables() };
    let _engine = Engine::open(dir.path(), all).unwrap();
    assert!(open_tables(&dir) > MOST as usize);
}

#[test]
fn d5_a_damaged_index_of_a_table_that_is_opened_late_costs_the_offsets_in_that_table() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(&dir);
    let mut tables: Vec<_> =
        fs::read_dir(Shared::data_dir(dir.path())).unwrap().map(|entry| entry.unwrap().path()).collect();
    tables.retain(|path| path.extension().is_some_and(|e| e == "sst"));
    tables.sort();
    let table = &tables[tables.len() / 2];
    let mut bytes = fs::read(table).unwrap();
    let at = bytes.len() - 30;
    bytes[at] ^= 1;
    fs::write(table, bytes).unwrap();
    let engine = Engine::open(dir.path(), few_tables()).unwrap();
    let log = engine.logs().remove(0);
    let (mut base, mut damaged) = (0, vec![]);
    for batch in &written {
        match block_on(log.read(base, i64::MAX, 1)) {
            Ok(read) => assert_eq!(read, std::slice::from_ref(batch)),
            Err(ReadError::Corrupt { first, .. }) => damaged.push(first),
            Err(fault) => panic!("{fault}"),
        }
        base += i64::from(BatchHeader::parse(batch).unwrap().record_count);
    }
    assert_eq!(log.extent().end, base);
    assert!((1..20).contains(&damaged.len()), "{damaged:?}");
    append(&log, 3);
    engine.maintain(0).unwrap();
    engine.close().unwrap();
}

#[test]
fn d5_the_copy_of_a_front_is_made_when_its_epoch_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    append(&log, 3);
    append(&engine.create(partition(1)).unwrap(), 2);
    let epoch = engine.shared().open_epoch.load(Ordering::Relaxed);
    engine.shared().seal().unwrap();
    let begun = Instant::now();
    while engine.shared().copies.read(epoch).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no copy was made");
        std::thread::sleep(Duration::from_millis(2));
    }
    let original = crate::storage::front::Front::original(engine.shared().data(), epoch).unwrap();
    assert_eq!(engine.shared().copies.read(epoch), Some(original));
}

/// Which file of the write-ahead log is being written: its inode, which it keeps when it is named anew.
fn newest_log(dir: &TempDir) -> u64 {
    let files = fs::read_dir(Shared::data_dir(dir.path())).unwrap().map(|file| file.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|e| e == "log")).max();
    fs::metadata(newest.unwrap()).unwrap().ino()
}

/// RocksDB may still have to close the file whose memtable it flushed last, and that cuts it off.
#[test]
fn d2_the_file_of_the_write_ahead_log_that_became_free_last_is_not_the_next_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    let mut written = vec![newest_log(&dir)];
    for _ in 0..12 {
        append(&log, 3);
        engine.shared().seal().unwrap();
        engine.shared().wait_for_files();
        written.push(newest_log(&dir));
    }
    let differ = |three: &[u64]| three[0] != three[1] && three[1] != three[2] && three[0] != three[2];
    assert!(written.windows(3).all(differ), "{written:?}");
    assert_eq!(written[3..], written[..written.len() - 3], "they are written in turn");
}
