mod held;
mod replicated;

use std::time::Duration;

use taffrail_proto::record::{BatchBuilder, BatchProducer, Compression, TimestampType, header};
use uuid::Uuid;

use self::held::HeldLog;
use super::*;
use crate::clock::ManualClock;
use crate::storage::Storage;
use crate::storage::memory::Disk;
use crate::storage::producers::SequenceError;

pub(super) const NOW: i64 = 1_700_000_000_000;

/// A partition on a log in memory.
pub(crate) struct Bench {
    pub(super) disk: Disk,
    pub(crate) partition: Partition,
    log: Arc<HeldLog>,
    clock: ManualClock,
    context: Context,
    settings: Arc<ArcSwap<Settings>>,
}

pub(crate) async fn bench() -> Bench {
    bench_with(TimestampType::CreateTime).await
}

async fn bench_with(timestamp_type: TimestampType) -> Bench {
    let disk = Disk::new();
    let storage = disk.open();
    let log = storage.create(PartitionId { topic: Uuid::from_u128(9), index: 0 }).unwrap();
    let log = Arc::new(HeldLog::new(log));
    let clock = ManualClock::new(NOW, "boot");
    let context = Context::seeded(Arc::new(clock.clone()), 1, &*storage.meta()).unwrap();
    let settings = Settings { timestamp_type, durability: Durability::Disk, ..Settings::plain() };
    let settings = Arc::new(ArcSwap::from_pointee(settings));
    let partition = Partition::lead(log.clone(), context.clone(), settings.clone(), Term::alone(None)).await.unwrap();
    Bench { disk, partition, log, clock, context, settings }
}

impl Bench {
    /// The partition led again after this one was stopped.
    pub(crate) async fn reopen(&mut self, new_epoch: bool) {
        self.partition.stop().await;
        let (context, settings) = (self.context.clone(), self.settings.clone());
        if new_epoch {
            raise_epoch(&*self.log).await.unwrap();
        }
        self.partition = Partition::lead(self.log.clone(), context, settings, Term::alone(None)).await.unwrap();
    }

    /// Appends `records` records without a producer.
    pub(crate) async fn append(&self, records: usize) -> Appended {
        self.partition.append(request(records, None)).await.unwrap()
    }

    async fn stored(&self, offset: i64) -> Bytes {
        let request =
            ReadRequest { offset, max_bytes: 1, isolation: Isolation::default(), last_epoch: None, leader_epoch: None };
        self.partition.read(request).await.unwrap().batches[0].clone()
    }
}

/// A batch with timestamps from [`NOW`] up; sequenced if it has a producer (id, epoch, first sequence).
pub(super) fn request(records: usize, producer: Option<(i64, i32, i32)>) -> AppendRequest {
    let mut builder = BatchBuilder::new();
    for i in 0..records {
        builder.push(None, Some(b"value"), [], NOW + i as i64).unwrap();
    }
    let producer = producer.map(|(id, epoch, first)| BatchProducer::new(id, epoch, first).unwrap());
    let batch = builder.build(Compression::None, producer).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    let max_timestamp = header.max_timestamp;
    AppendRequest { batch, header, max_timestamp, acks: Acks::All, leader_epoch: None, permit: None, order: None }
}

#[tokio::test]
async fn e1_e5_a_log_is_led_under_the_given_epoch_and_never_under_an_older_one() {
    let bench = bench().await;
    bench.partition.stop().await;
    let lead =
        |epoch| Partition::lead(bench.log.clone(), bench.context.clone(), bench.settings.clone(), Term::alone(epoch));
    for (given, led) in [(Some(3), 3), (Some(3), 3), (None, 3), (Some(4), 4)] {
        let partition = lead(given).await.unwrap();
        assert_eq!(partition.snapshot().leader_epoch, led, "{given:?}");
        assert_eq!(bench.log.leader_epochs().latest(), Some(led), "it is durable before it is used");
        partition.stop().await;
    }
    let refused = lead(Some(2)).await.err();
    assert!(matches!(refused, Some(LeadError::Fenced { given: 2, newest: 4 })), "{refused:?}");
}

#[tokio::test]
async fn an_append_gets_the_next_offsets_and_says_what_was_done() {
    let bench = bench().await;
    bench.append(3).await;
    let appended = bench.append(2).await;
    let expected = Appended {
        base_offset: Some(3),
        durability: Durability::Disk,
        replicas: 1,
        leader_epoch: 0,
        log_append_time: None,
        log_start_offset: 0,
        duplicate: false,
    };
    assert_eq!(appended, expected);
}

#[tokio::test]
async fn r2_the_stored_batch_is_the_sent_one_with_offset_and_epoch_set() {
    let mut bench = bench().await;
    bench.append(3).await;
    bench.reopen(true).await;
    let sent = request(2, Some((5, 1, 0)));
    let mut expected = sent.batch.to_vec();
    header::set_base_offset(&mut expected, 3);
    header::set_leader_epoch(&mut expected, 1);
    bench.partition.append(sent).await.unwrap();
    assert_eq!(bench.stored(3).await, expected);
}

#[tokio::test]
async fn append_time_topics_get_the_brokers_wall_time_and_a_right_crc() {
    let bench = bench_with(TimestampType::LogAppendTime).await;
    bench.clock.step_wall(5_000);
    let appended = bench.append(2).await;
    assert_eq!(appended.log_append_time, Some(NOW + 5_000));
    let stored = bench.stored(0).await;
    header::verify_crc(&stored).unwrap();
    let header = BatchHeader::parse(&stored).unwrap();
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, NOW + 5_000));
}

#[tokio::test]
async fn a_header_that_lies_about_the_newest_timestamp_is_corrected() {
    let bench = bench().await;
    let honest = request(2, None);
    let mut lying = honest.batch.to_vec();
    header::set_max_timestamp(&mut lying, i64::MAX);
    let (batch, header) = (Bytes::from(lying.clone()), BatchHeader::parse(&lying).unwrap());
    bench.partition.append(AppendRequest { batch, header, ..honest }).await.unwrap();
    let stored = bench.stored(0).await;
    header::verify_crc(&stored).unwrap();
    assert_eq!(BatchHeader::parse(&stored).unwrap().max_timestamp, NOW + 1);
}

#[tokio::test]
async fn r4_who_was_told_of_an_append_sees_it() {
    let bench = bench().await;
    for n in 1..50 {
        bench.append(1).await;
        assert_eq!(bench.partition.snapshot().high_watermark, n);
    }
}

#[tokio::test]
async fn p1_retry_returns_first_offset() {
    let bench = bench().await;
    bench.append(4).await;
    let first = bench.partition.append(request(3, Some((7, 0, 0)))).await.unwrap();
    let retry = bench.partition.append(request(3, Some((7, 0, 0)))).await.unwrap();
    assert_eq!(retry, Appended { duplicate: true, ..first });
    assert_eq!(bench.partition.snapshot().log_end, 7);
}

#[tokio::test]
async fn p2_a_retry_of_a_batch_in_flight_is_answered_with_the_original() {
    let bench = bench().await;
    bench.log.hold();
    let original = bench.partition.append(request(3, Some((7, 0, 0))));
    let mut retry = bench.partition.append(request(3, Some((7, 0, 0))));
    let later = bench.partition.append(request(1, None));
    bench.log.holds(2).await;
    assert!(futures::poll!(&mut retry).is_pending(), "the original is not committed");
    bench.log.release();
    let (original, retry) = (original.await.unwrap(), retry.await.unwrap());
    assert_eq!(retry, Appended { duplicate: true, ..original });
    assert_eq!(later.await.unwrap().base_offset, Some(3));
}

#[tokio::test]
async fn p2_a_retry_fails_with_its_original_and_can_be_sent_again() {
    let bench = bench().await;
    bench.append(2).await;
    bench.log.hold();
    bench.disk.set_full(true);
    let sent: Vec<_> = [0, 0, 3].map(|first| bench.partition.append(request(3, Some((7, 0, first))))).into();
    bench.log.holds(2).await;
    bench.disk.set_full(false);
    let later = bench.partition.append(request(3, Some((7, 0, 0))));
    bench.log.release();
    for answer in futures::future::join_all(sent).await {
        assert!(matches!(answer, Err(AppendError::Refused(StorageError::DiskFull { .. }))), "{answer:?}");
    }
    let later = later.await.unwrap();
    assert_eq!((later.base_offset, later.duplicate), (Some(2), false));
}

#[tokio::test]
async fn p3_p4_p6_what_is_out_of_sequence_is_refused_and_nothing_appended() {
    let bench = bench().await;
    bench.partition.append(request(3, Some((7, 1, 0)))).await.unwrap();
    let refusals = [
        ((7, 1, 4), SequenceError::OutOfSequence { expected: 3, found: 4 }),
        ((7, 0, 3), SequenceError::Fenced { current: 1 }),
        ((7, 2, 3), SequenceError::OutOfSequence { expected: 0, found: 3 }),
        ((8, 0, 1), SequenceError::Unknown),
    ];
    for (producer, expected) in refusals {
        match bench.partition.append(request(1, Some(producer))).await {
            Err(AppendError::Sequence { error, log_start: 0 }) => assert_eq!(error, expected),
            other => panic!("{producer:?}: {other:?}"),
        }
    }
    assert_eq!(bench.partition.snapshot().log_end, 3);
}

#[tokio::test]
async fn p7_a_producer_that_was_idle_for_a_day_of_log_time_is_forgotten() {
    let bench = bench().await;
    bench.partition.append(request(1, Some((7, 0, 0)))).await.unwrap();
    bench.clock.step_wall(40 * 86_400_000);
    bench.append(1).await;
    bench.partition.append(request(1, Some((7, 0, 1)))).await.expect("the wall clock ages nobody");
    bench.clock.advance(Duration::from_hours(24));
    bench.append(1).await;
    let error = bench.partition.append(request(1, Some((7, 0, 2)))).await.unwrap_err();
    assert!(matches!(error, AppendError::Sequence { error: SequenceError::Unknown, .. }), "{error}");
}

#[tokio::test]
async fn a3_acks_none_is_answered_before_the_log_has_it() {
    let bench = bench().await;
    bench.log.hold();
    let answer = bench.partition.append(AppendRequest { acks: Acks::None, ..request(1, None) }).await.unwrap();
    assert_eq!((answer.base_offset, answer.replicas), (None, 0));
    bench.log.release();
    assert_eq!(bench.append(1).await.base_offset, Some(1));
}

#[tokio::test]
async fn a1_a2_an_append_is_not_answered_before_the_log_has_it() {
    let bench = bench().await;
    for acks in [Acks::Leader, Acks::All] {
        bench.log.hold();
        let mut pending = bench.partition.append(AppendRequest { acks, ..request(1, None) });
        bench.log.holds(1).await;
        assert!(futures::poll!(&mut pending).is_pending());
        bench.log.release();
        pending.await.unwrap();
    }
}

#[tokio::test]
async fn a_permit_is_held_until_the_log_has_the_batch() {
    let bench = bench().await;
    let budget = Arc::new(tokio::sync::Semaphore::new(1));
    bench.log.hold();
    let permit = budget.clone().try_acquire_owned().ok();
    let pending = bench.partition.append(AppendRequest { permit, acks: Acks::None, ..request(1, None) });
    pending.await.unwrap();
    assert_eq!(budget.available_permits(), 0);
    bench.log.release();
    bench.append(1).await;
    assert_eq!(budget.available_permits(), 1);
}

#[tokio::test]
async fn a_write_that_broke_storage_is_of_unknown_outcome_and_later_ones_are_refused() {
    let bench = bench().await;
    bench.disk.fail_next_write("input/output error");
    let first = bench.partition.append(request(1, None)).await;
    assert!(matches!(first, Err(AppendError::Unknown(StorageError::Failed(_)))), "{first:?}");
    let second = bench.partition.append(request(1, None)).await;
    assert!(matches!(second, Err(AppendError::Refused(StorageError::Failed(_)))), "{second:?}");
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight_and_refuses_the_rest() {
    let bench = bench().await;
    bench.log.hold();
    let in_flight = bench.partition.append(request(1, None));
    bench.log.holds(1).await;
    let partition = bench.partition.clone();
    let stopping = tokio::spawn(async move { partition.stop().await });
    tokio::task::yield_now().await;
    bench.log.release();
    stopping.await.unwrap();
    assert_eq!(in_flight.await.unwrap().base_offset, Some(0));
    assert!(matches!(bench.partition.append(request(1, None)).await, Err(AppendError::Closed)));
    assert!(matches!(bench.partition.delete_records(0).await, Err(DeleteRecordsError::Closed)));
    assert!(bench.partition.snapshot().closed);
    bench.partition.stop().await;
}

#[tokio::test]
async fn d7_e1_a_new_epoch_begins_at_the_end_before_anything_is_appended() {
    let mut bench = bench().await;
    bench.append(3).await;
    bench.reopen(false).await;
    assert_eq!(bench.partition.snapshot().leader_epoch, 0);
    bench.reopen(true).await;
    assert_eq!(bench.log.leader_epochs().entries(), [(0, 0), (1, 3)]);
    assert_eq!(bench.append(1).await.leader_epoch, 1);
}

#[tokio::test]
async fn q3_records_are_deleted_up_to_the_high_watermark_only() {
    let bench = bench().await;
    bench.append(5).await;
    assert_eq!(bench.partition.delete_records(3).await.unwrap(), 3);
    assert_eq!(bench.partition.delete_records(1).await.unwrap(), 3, "the start never goes back");
    for offset in [6, -2, i64::MAX] {
        let refused = bench.partition.delete_records(offset).await.unwrap_err();
        assert!(matches!(refused, DeleteRecordsError::OutOfRange { high_watermark: 5, .. }), "{refused}");
    }
    assert_eq!(bench.partition.delete_records(-1).await.unwrap(), 5);
    assert_eq!(bench.partition.snapshot().log_start, 5);
    assert_eq!(bench.append(1).await.base_offset, Some(5));
}

#[tokio::test]
async fn one_waiter_is_woken_by_each_partition_that_has_data() {
    let benches = [bench().await, bench().await, bench().await];
    let waiter = Waiter::new();
    benches[0].append(1).await;
    let armed: Vec<_> =
        (0..).zip(&benches).map(|(t, b)| b.partition.arm(0, Isolation::default(), &waiter, t)).collect();
    assert_eq!(armed, [false, true, true], "the first has data already");
    benches[2].append(1).await;
    assert_eq!(waiter.ready().await, [2]);
    benches[2].append(1).await;
    assert_eq!(waiter.take(), Vec::<u64>::new(), "woken once for each arming");
    benches[1].partition.stop().await;
    assert_eq!(waiter.ready().await, [1], "a partition that closes wakes those who wait");
}

#[tokio::test]
async fn waiting_ends_when_there_is_something_beyond() {
    let bench = bench().await;
    let partition = bench.partition.clone();
    let waiting = tokio::spawn(async move { partition.wait_beyond(2, Isolation::ReadCommitted).await });
    bench.append(2).await;
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "offset 2 is not there yet");
    bench.append(1).await;
    assert_eq!(waiting.await.unwrap().high_watermark, 3);
}

#[tokio::test]
async fn p9_after_a_refusal_nothing_of_the_same_order_is_appended() {
    for acks in [Acks::All, Acks::Leader, Acks::None] {
        let bench = bench().await;
        let order = Order::default();
        let ordered = |records| AppendRequest { order: Some(order.clone()), acks, ..request(records, None) };
        bench.partition.append(ordered(1)).await.unwrap();
        bench.log.hold();
        bench.disk.set_full(true);
        let failing = bench.partition.append(ordered(2));
        bench.log.holds(1).await;
        bench.disk.set_full(false);
        let behind = bench.partition.append(ordered(3));
        bench.log.release();
        assert_eq!(failing.await.is_ok(), acks == Acks::None);
        assert!(matches!(behind.await, Err(AppendError::PrecedingRefused)), "{acks:?}");
        assert_eq!(bench.append(4).await.base_offset, Some(1), "others go on");
    }
}
