use proptest::prelude::*;
use taffrail_proto::record::BatchHeader;

use super::*;
use crate::partition::tests::{NOW, bench};
use crate::partition::{EpochError, FetchError};

fn from(offset: i64) -> ReadRequest {
    ReadRequest { offset, max_bytes: 1 << 20, isolation: Isolation::default(), last_epoch: None, leader_epoch: None }
}

#[tokio::test]
async fn reads_whole_batches_from_the_one_that_contains_the_offset() {
    let bench = bench().await;
    for _ in 0..3 {
        bench.append(10).await;
    }
    let data = bench.partition.read(from(15)).await.unwrap();
    let bases: Vec<_> = data.batches.iter().map(|b| BatchHeader::parse(b).unwrap().base_offset).collect();
    assert_eq!(bases, [10, 20]);
    let one = bench.partition.read(ReadRequest { max_bytes: 0, ..from(5) }).await.unwrap();
    assert_eq!(one.batches.len(), 1, "at least one");
    assert!(bench.partition.read(from(30)).await.unwrap().batches.is_empty(), "nothing at the end");
}

#[tokio::test]
async fn offsets_outside_of_the_log_are_refused_with_its_bounds() {
    let bench = bench().await;
    bench.append(10).await;
    bench.partition.delete_records(4).await.unwrap();
    for offset in [-1, 3, 11, i64::MAX] {
        let error = bench.partition.read(from(offset)).await.unwrap_err();
        assert!(matches!(error, FetchError::OutOfRange { start: 4, end: 10, .. }), "{offset}: {error}");
    }
}

#[tokio::test]
async fn e2_a_leader_epoch_is_checked_when_it_is_there() {
    let mut bench = bench().await;
    bench.reopen(true).await;
    assert!(bench.partition.read(ReadRequest { leader_epoch: Some(1), ..from(0) }).await.is_ok());
    let lower = bench.partition.read(ReadRequest { leader_epoch: Some(0), ..from(0) }).await.unwrap_err();
    assert!(matches!(lower, FetchError::Epoch(EpochError::Fenced { .. })), "{lower}");
    let higher = bench.partition.read(ReadRequest { leader_epoch: Some(2), ..from(0) }).await.unwrap_err();
    assert!(matches!(higher, FetchError::Epoch(EpochError::Unknown { .. })), "{higher}");
}

#[tokio::test]
async fn e7_d7_a_reader_ahead_of_what_survived_is_told_where_the_log_was_cut() {
    let mut bench = bench().await;
    bench.append(10).await;
    bench.partition.stop().await;
    // A start after a power loss finds less than was acknowledged.
    bench.partition.log().unwrap().truncate(0).await.unwrap().unwrap();
    bench.reopen(true).await;
    bench.append(20).await;
    let reader = ReadRequest { last_epoch: Some(0), ..from(10) };
    let error = bench.partition.read(reader).await.unwrap_err();
    assert!(matches!(error, FetchError::Truncated { at: 0, start: 0, .. }), "{error}");
}

#[tokio::test]
async fn e7_a_reader_whose_history_is_the_logs_goes_on() {
    let mut bench = bench().await;
    bench.append(10).await;
    bench.reopen(true).await;
    bench.append(10).await;
    for (offset, last_epoch) in [(0, 0), (10, 0), (11, 1), (20, 1)] {
        let read = bench.partition.read(ReadRequest { last_epoch: Some(last_epoch), ..from(offset) }).await;
        assert!(read.is_ok(), "{offset} after epoch {last_epoch}: {read:?}");
    }
    bench.partition.delete_records(10).await.unwrap();
    let at_start = ReadRequest { last_epoch: Some(0), ..from(10) };
    assert!(bench.partition.read(at_start).await.is_ok(), "the epoch before went by retention");
}

#[tokio::test]
async fn a_damaged_batch_is_an_error_for_its_offsets_only() {
    let bench = bench().await;
    bench.append(10).await;
    bench.append(10).await;
    assert!(bench.disk.damage(bench.partition.log().unwrap().id(), 3));
    let error = bench.partition.read(from(0)).await.unwrap_err();
    assert!(matches!(error, FetchError::Corrupt { first: 0, last: 9, .. }), "{error}");
    assert_eq!(bench.partition.read(from(10)).await.unwrap().batches.len(), 1);
}

#[tokio::test]
async fn offsets_are_looked_up_by_end_and_by_time() {
    let bench = bench().await;
    bench.append(10).await;
    bench.append(5).await;
    bench.partition.delete_records(2).await.unwrap();
    let list = |query| bench.partition.list_offset(query, Isolation::default());
    let at = |offset, timestamp| ListedOffset { offset: Some(offset), timestamp, leader_epoch: Some(0) };
    assert_eq!(list(OffsetQuery::Earliest).await.unwrap(), at(2, None));
    assert_eq!(list(OffsetQuery::Latest).await.unwrap(), at(15, None));
    assert_eq!(list(OffsetQuery::Timestamp(NOW + 7)).await.unwrap(), at(7, Some(NOW + 7)));
    assert_eq!(list(OffsetQuery::Timestamp(NOW + 10)).await.unwrap(), ListedOffset::default());
    assert_eq!(list(OffsetQuery::MaxTimestamp).await.unwrap(), at(9, Some(NOW + 9)));
}

#[tokio::test]
async fn a_partition_that_is_not_served_any_more_says_so() {
    let bench = bench().await;
    bench.partition.stop().await;
    assert!(matches!(bench.partition.read(from(0)).await, Err(FetchError::Closed)));
    assert!(matches!(bench.partition.end_of_epoch(0).await, Err(FetchError::Closed)));
}

fn history(entries: &[(i32, i64)]) -> LeaderEpochs {
    let mut epochs = LeaderEpochs::new();
    for &(epoch, start) in entries {
        epochs.assign(epoch, start);
    }
    epochs
}

fn log(start: i64, end: i64, leader_epoch: i32) -> Snapshot {
    Snapshot { log_start: start, high_watermark: end, last_stable: end, log_end: end, leader_epoch, closed: false }
}

#[test]
fn e7_divergence_by_case() {
    let epochs = history(&[(1, 0), (3, 10), (7, 25)]);
    let cases = [
        // offset, last epoch, where the histories part
        (10, 1, None),
        (11, 1, Some((10, Some(1)))),
        (11, 2, Some((10, Some(1)))),
        (5, 2, Some((5, Some(1)))),
        (25, 3, None),
        (26, 3, Some((25, Some(3)))),
        (40, 7, None),
        (41, 7, Some((40, Some(7)))),
        (40, 8, Some((40, Some(7)))),
        (0, 0, None),
        (1, 0, Some((0, None))),
    ];
    for (offset, last_epoch, expected) in cases {
        assert_eq!(divergence(&epochs, &log(0, 40, 7), offset, last_epoch), expected, "{offset} after {last_epoch}");
    }
}

proptest! {
    /// Two logs grow from a common one, as a leader's and what a reader has read of a deposed one's.
    #[test]
    fn e7_a_reader_is_stopped_if_and_only_if_its_last_record_is_not_the_logs(
        common in prop::collection::vec(0i32..2, 0..12),
        read in prop::collection::vec(0i32..2, 0..12),
        log_epochs in prop::collection::vec(0i32..2, 0..12),
    ) {
        // Epochs of the records: the reader's are odd after the fork, the log's even, for an epoch has one leader.
        let (mut epoch, mut shared) = (0, vec![]);
        for rise in common {
            epoch += 2 * rise;
            shared.push(epoch);
        }
        let grow = |steps: Vec<i32>, first: i32| {
            let (mut epoch, mut records) = (first, shared.clone());
            for rise in steps {
                epoch += 2 * rise;
                records.push(epoch);
            }
            records
        };
        let (reader, log_records) = (grow(read, epoch + 1), grow(log_epochs, epoch + 2));
        let mut epochs = LeaderEpochs::new();
        for (offset, epoch) in (0..).zip(&log_records) {
            epochs.assign(*epoch, offset);
        }
        let snapshot = log(0, log_records.len() as i64, epochs.latest().unwrap_or(0));
        for position in 1..=reader.len() {
            let last_epoch = reader[position - 1];
            let parted = divergence(&epochs, &snapshot, position as i64, last_epoch);
            let same = log_records.len() >= position && log_records[..position] == reader[..position];
            prop_assert_eq!(parted.is_none(), same, "at {} of {:?} against {:?}", position, reader, log_records);
            if let Some((at, _)) = parted {
                prop_assert!(at <= position as i64 && at <= log_records.len() as i64);
            }
        }
    }
}
