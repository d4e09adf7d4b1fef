//! Reading ahead: a sequence of reads gets the same as single reads do.

use std::time::Instant;

use super::*;

/// A log of some epochs, none of it in memory.
fn filled(dir: &TempDir) -> (Arc<Engine>, Arc<dyn Log>, Vec<Bytes>) {
    let engine = open(dir);
    let log = engine.create(partition(0)).unwrap();
    let written = (0..120).map(|at| append(&log, 1 + at % 4)).collect();
    engine.shared().seal().unwrap();
    (engine, log, written)
}

fn next(batches: &[Bytes]) -> i64 {
    BatchHeader::parse(batches.last().unwrap()).unwrap().next_offset()
}

#[test]
fn the_second_read_of_a_sequence_has_the_third_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, log, _) = filled(&dir);
    let fetched = || engine.shared().ahead.stretches();
    let first = block_on(log.read(0, i64::MAX, 20_000)).unwrap();
    assert_eq!(fetched(), 0, "it may be the only one");
    let second = block_on(log.read(next(&first), i64::MAX, 20_000)).unwrap();
    assert_eq!(fetched(), 1);
    let third = block_on(log.read(next(&second), i64::MAX, 20_000)).unwrap();
    assert!(next(&third) > next(&second));
    let (since, mut rest) = (Instant::now(), third);
    while next(&rest) < log.extent().end {
        rest = block_on(log.read(next(&rest), i64::MAX, 20_000)).unwrap();
        assert!(since.elapsed() < Duration::from_mins(1));
    }
    assert_eq!(fetched(), 0, "nothing lies behind the end");
}

#[test]
fn r5_whatever_sequences_ask_for_they_get_what_was_written_there() {
    let dir = tempfile::tempdir().unwrap();
    let (_engine, log, written) = filled(&dir);
    // Three readers of one log in turn, with bounds that change.
    let (end, mut at, mut found) = (log.extent().end, [0i64; 3], [const { vec![] }; 3]);
    for turn in 0.. {
        let reader = turn % 3;
        let (bytes, before) = (1 + 7_000 * (turn / 3 % 5), (at[reader] + 1 + turn as i64 % 60).min(end));
        if at == [end; 3] {
            break;
        }
        if at[reader] == end {
            continue;
        }
        let batches: Vec<Bytes> = block_on(log.read(at[reader], before, bytes)).unwrap();
        let size: usize = batches.iter().map(Bytes::len).sum();
        assert!(batches.len() == 1 || size <= bytes, "{size} bytes of {bytes}");
        assert!(batches.iter().all(|batch| BatchHeader::parse(batch).unwrap().base_offset < before));
        at[reader] = next(&batches);
        found[reader].extend(batches);
    }
    assert!(found.iter().all(|found| *found == written));
}

#[test]
fn r5_what_was_fetched_ahead_is_not_served_once_it_was_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, log, _) = filled(&dir);
    let first = block_on(log.read(0, i64::MAX, 20_000)).unwrap();
    let second = block_on(log.read(next(&first), i64::MAX, 20_000)).unwrap();
    assert_eq!(engine.shared().ahead.stretches(), 1);
    let end = next(&second);
    block_on(log.truncate(end)).unwrap().unwrap();
    let other = batch(end, 2, 7, None);
    let header = BatchHeader::parse(&other).unwrap();
    let again = Append { batch: other.clone(), header, append_time: 9000, durability: Durability::Os };
    block_on(log.append(again)).unwrap().unwrap();
    assert_eq!(block_on(log.read(end, i64::MAX, 20_000)).unwrap(), [other]);
}
