use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

use super::*;

const RECORDS: u64 = 120;

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_recycle_log_file_num(2);
    options.set_wal_bytes_per_sync(0);
    options
}

/// Writes one record with a sync mark; true to sync it.
fn put(db: &DB, key: u64, value: &[u8], synced: u64, sync: bool) {
    let mut batch = WriteBatch::default();
    batch.put_log_data(sync_mark(synced));
    batch.put(key.to_be_bytes(), value);
    let mut how = WriteOptions::default();
    how.set_sync(sync);
    db.write_opt(batch, &how).unwrap();
}

/// The newest log of a live database, as a SIGKILL would leave it: `RECORDS` records of which the first `synced` are
/// synced, behind them (if `recycled`) the records of an older log.
fn log(recycled: bool, value: usize, synced: u64) -> (Vec<u8>, WalFile) {
    let dir = tempfile::tempdir().unwrap();
    let db = DB::open(&options(), dir.path()).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let source: Vec<u8> = (0..value * 2).map(|_| rng.random()).collect();
    for round in 0..if recycled { 4 } else { 0 } {
        (0..RECORDS + 20).for_each(|i| put(&db, (round + 1) * 1000 + i, &source[i as usize..][..value], 0, false));
        db.flush().unwrap();
    }
    let mut known = 0;
    for i in 0..RECORDS {
        put(&db, i, &source[i as usize..][..value], known, i < synced);
        known = if i < synced { db.latest_sequence_number() } else { known };
    }
    let file = scan(dir.path(), true).unwrap().files.pop().unwrap();
    (std::fs::read(&file.path).unwrap(), file)
}

fn read(bytes: &[u8], like: &WalFile) -> WalFile {
    let mut scanner = Scanner::new(like.path.clone(), like.number, Some(like.first_sequence));
    for (i, block) in bytes.chunks(BLOCK).enumerate() {
        scanner.block((i * BLOCK) as u64, block);
    }
    scanner.finish(bytes.len() as u64)
}

fn verdict(file: &WalFile, survived: bool) -> Result<(), StorageError> {
    Report { files: vec![file.clone()] }.judge(survived)
}

fn kinds() -> impl Iterator<Item = (Vec<u8>, WalFile)> {
    [(false, 5_000), (true, 900), (true, 5_000), (true, 70_000)].into_iter().map(|(r, v)| log(r, v, 80))
}

#[test]
fn an_untouched_log_is_read_whole_whatever_lies_behind_it() {
    for (bytes, file) in kinds() {
        assert_eq!((file.records, file.next_sequence - file.first_sequence), (RECORDS, RECORDS), "{file:?}");
        assert_eq!(file.mark, file.first_sequence + 79);
        assert_eq!(file.beyond, None);
        let stale = file.number > 4;
        assert_eq!((bytes.len() as u64 > file.end + 5000, file.stop.is_some()), (stale, stale), "{file:?}");
    }
}

#[test]
fn d6_a_flipped_bit_is_found_anywhere_but_in_the_last_record() {
    for (bytes, file) in kinds() {
        let (mut rng, mut bytes, mut in_last) = (StdRng::seed_from_u64(1), bytes, 0);
        for _ in 0..if bytes.len() > 1 << 20 { 60 } else { 800 } {
            let (at, bit) = (rng.random_range(0..file.end as usize), 1 << rng.random_range(0..8));
            bytes[at] ^= bit;
            let found = read(&bytes, &file);
            bytes[at] ^= bit;
            match verdict(&found, true) {
                Err(StorageError::Damaged { at: told, .. }) => assert!(told <= at as u64, "{told} {at} {found:?}"),
                other => {
                    in_last += 1;
                    assert!(other.is_ok() && found.records == RECORDS - 1, "missed at {at}: {found:?}");
                }
            }
        }
        assert!(in_last < 40, "{in_last}");
    }
}

#[test]
fn d6_a_torn_tail_is_no_damage() {
    for (bytes, file) in kinds() {
        let (mut rng, stale) = (StdRng::seed_from_u64(2), &bytes[file.end as usize..]);
        for _ in 0..if bytes.len() > 1 << 20 { 40 } else { 400 } {
            let cut = rng.random_range(0..file.end as usize);
            let mut torn = bytes[..cut].to_vec();
            if file.stop.is_some() {
                torn.extend(stale.iter().cycle().skip(cut % 4096).take(bytes.len() - cut));
            }
            let found = read(&torn, &file);
            assert!(verdict(&found, true).is_ok() && verdict(&found, false).is_ok(), "cut at {cut}: {found:?}");
        }
    }
}

#[test]
fn d4_a_lost_page_is_damage_after_a_power_failure_only_where_it_was_synced() {
    for (bytes, file) in kinds() {
        for percent in [10, 50, 80, 95] {
            let page = file.end as usize * percent / 100 / 4096 * 4096;
            let mut holed = bytes.clone();
            holed[page..(page + 4096).min(file.end as usize)].fill(0);
            let found = read(&holed, &file);
            assert!(matches!(verdict(&found, true), Err(StorageError::Damaged { .. })), "{percent}: {found:?}");
            let synced = found.next_sequence < file.first_sequence + 80 && found.records < 80;
            assert_eq!(verdict(&found, false).is_err(), synced, "{percent}: {found:?}");
        }
    }
}

#[test]
fn the_head_of_a_record_is_gathered_from_its_fragments() {
    let dir = tempfile::tempdir().unwrap();
    let db = DB::open(&options(), dir.path()).unwrap();
    let (mut at, mut key) = (0usize, 0);
    // Leaves 11 to 34 bytes of a block to the next record: a header of 11 and 0 to 23 bytes of its own.
    for room in 11..35 {
        for aimed in [true, false] {
            // Two fragment headers at most, batch header, mark, tag, key with its length, length of the value.
            let around = 11 + 12 + 10 + 1 + 9 + 2;
            let (gap, value) = ((2 * BLOCK - room - at % BLOCK - around) % BLOCK, 100 + key as usize);
            let value = if aimed { if gap < 200 { 200 } else { gap.min(16_000) } } else { value };
            put(&db, key, &vec![key as u8; value], key, false);
            key += 1;
            at = read_live(dir.path()).end as usize;
        }
    }
    let file = read_live(dir.path());
    assert_eq!((file.records, file.mark, file.stop), (key, key - 1, None));
}

fn read_live(dir: &Path) -> WalFile {
    scan(dir, true).unwrap().files.pop().unwrap()
}

#[test]
fn fragments_that_clients_sent_are_not_taken_for_records() {
    let (bytes, file) = log(false, 900, 0);
    let mut forged = Vec::new();
    for sequence in (1..2000u64)
        .chain(1 << 32..(1 << 32) + 500)
        .filter(|s| !(file.first_sequence..file.next_sequence + 9000).contains(s))
    {
        let mut body = vec![5u8];
        body.extend((file.number as u32).to_le_bytes());
        body.extend(sequence.to_le_bytes());
        body.extend([0; 4]);
        let crc = crc32c::crc32c(&body).rotate_right(15).wrapping_add(0xa282_ead8);
        forged.extend(crc.to_le_bytes());
        forged.extend(12u16.to_le_bytes());
        forged.extend(body);
    }
    assert!(!forged.is_empty());
    for cut in [1000, 2000, 60_000] {
        let found = read(&[&bytes[..cut], &[1, 2, 3, 4, 5], &forged[..]].concat(), &file);
        assert!(found.stop.is_some() && verdict(&found, true).is_ok(), "{found:?}");
    }
}

/// A file with records of these sequences.
fn part(number: u64, sequences: Range<u64>, mark: u64, beyond: Option<u64>) -> WalFile {
    WalFile {
        path: format!("{number:06}.log").into(),
        number,
        records: sequences.end - sequences.start,
        first_sequence: sequences.start,
        next_sequence: sequences.end,
        mark,
        stop: beyond.map(|_| Stop { at: 1, what: "zeroes" }),
        beyond: beyond.map(|mark| Beyond { at: 4096, mark }),
        ..WalFile::default()
    }
}

#[test]
fn d6_files_must_follow_one_another() {
    let judge = |files: &[WalFile], survived| Report { files: files.to_vec() }.judge(survived).is_ok();
    let cases = [
        ("in order", vec![part(1, 1..50, 0, None), part(2, 50..90, 0, None)], true, true),
        (
            "an empty one between",
            vec![part(1, 1..50, 0, None), part(2, 0..0, 0, None), part(3, 50..60, 0, None)],
            true,
            true,
        ),
        ("records between are gone", vec![part(1, 1..40, 0, None), part(2, 50..90, 30, None)], false, true),
        ("synced records between are gone", vec![part(1, 1..40, 0, None), part(2, 50..90, 45, None)], false, false),
        ("a hole", vec![part(1, 1..40, 0, Some(39))], false, true),
        ("a hole in what was synced", vec![part(1, 1..40, 0, Some(40))], false, false),
        (
            "a hole that an earlier start accepted",
            vec![part(1, 1..40, 0, Some(60)), part(3, 40..50, 0, None)],
            true,
            true,
        ),
        (
            "a file that an earlier start gave up",
            vec![part(1, 1..40, 0, None), part(2, 50..90, 60, None), part(3, 40..45, 0, None)],
            true,
            true,
        ),
    ];
    for (name, files, survived, power_failure) in cases {
        assert_eq!((judge(&files, true), judge(&files, false)), (survived, power_failure), "{name}");
    }
}

#[test]
fn d6_a_log_file_that_vanished_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (source, copy) = (dir.path().join("db"), dir.path().join("copy"));
    let db = DB::open(&options(), &source).unwrap();
    std::fs::create_dir(&copy).unwrap();
    for round in 0..3 {
        (0..10).for_each(|i| put(&db, i, &[1; 100], 0, false));
        let newest = read_live(&source).path;
        std::fs::copy(&newest, copy.join(format!("{:06}.log", number_of(&newest)))).unwrap();
        if round < 2 {
            db.flush().unwrap();
        }
    }
    let files = scan(&copy, true).unwrap().files;
    assert_eq!(files.iter().map(|file| file.records).collect::<Vec<_>>(), [10, 10, 10]);
    std::fs::remove_file(&files[1].path).unwrap();
    assert!(matches!(scan(&copy, true), Err(StorageError::Damaged { .. })));
}

fn number_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}
