use std::time::Duration;

use proptest::prelude::*;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::brokers::Brokers;
use crate::peers::Peers;
use crate::storage::memory::Disk;
use crate::storage::{Append, Durability, PartitionId, Storage};

const EPOCH: i32 = 5;
const LEADER: i32 = 1;

/// A replica whose leader cannot be reached: what is asked of it fails.
struct Bench {
    disk: Disk,
    _storage: Arc<dyn Storage>,
    here: Here,
    progress: watch::Sender<Progress>,
    in_sync: watch::Sender<bool>,
}

impl Bench {
    /// With offsets 0 to 9 in batches of two, the first three of epoch 2 and the others of epoch 5; follows, and knows that six
    /// are committed.
    async fn new() -> Self {
        let disk = Disk::new();
        let storage: Arc<dyn Storage> = disk.open();
        let id = PartitionId { topic: Uuid::from_u128(7), index: 0 };
        let log = storage.create(id).unwrap();
        for (batch, epoch) in [2, 2, 2, 5, 5].into_iter().enumerate() {
            let mut builder = BatchBuilder::new();
            for _ in 0..2 {
                builder.push(None, Some(b"value"), [], 1).unwrap();
            }
            let mut bytes = builder.build(Compression::None, None).unwrap().to_vec();
            set_base_offset(&mut bytes, 2 * batch as i64);
            set_leader_epoch(&mut bytes, epoch);
            let (batch, header) = (bytes.clone().into(), BatchHeader::parse(&bytes).unwrap());
            let append = Append { batch, header, append_time: 1, durability: Durability::Os };
            log.append(append).await.unwrap().unwrap();
        }
        let peers = Peers::new(Brokers::new(0, "cluster".to_owned()), 1 << 20);
        let leader = Remote::new(&peers, id, LEADER, EPOCH);
        let known = following(0, 6, 10);
        let (progress, in_sync) = (watch::Sender::new(known), watch::Sender::new(true));
        let replica = Replica {
            log,
            progress: progress.subscribe(),
            in_sync: in_sync.subscribe(),
            waiters: Waiters::default(),
            watching: AtomicBool::new(false),
            largest_read_batch: AtomicUsize::new(0),
            damage: Damage::default(),
        };
        Self { disk, _storage: storage, here: Here { leader, replica: Arc::new(replica) }, progress, in_sync }
    }

    /// Base offsets of what is read.
    async fn read(&self, request: ReadRequest) -> Result<Vec<i64>, FetchError> {
        let read = self.here.read(request).await?;
        Ok(read.batches.iter().map(|batch| BatchHeader::parse_prefix(batch).unwrap().base_offset).collect())
    }

    fn commit(&self, high_watermark: i64) {
        self.progress.send_modify(|progress| progress.high_watermark = high_watermark);
    }
}

fn following(log_start: i64, high_watermark: i64, written: i64) -> Progress {
    Progress { is_proven: true, is_heard: true, log_start, high_watermark, written, lag: 0 }
}

fn at(offset: i64) -> ReadRequest {
    let isolation = Isolation::ReadUncommitted;
    ReadRequest { offset, max_bytes: 1 << 20, isolation, last_epoch: None, leader_epoch: Some(EPOCH) }
}

/// It went to the leader, which cannot be reached.
fn asked_the_leader(result: &Result<Vec<i64>, FetchError>) -> bool {
    matches!(result, Err(FetchError::Leader(_)))
}

#[tokio::test]
async fn r1_r3_what_is_committed_is_served_and_nothing_above() {
    let bench = Bench::new().await;
    assert_eq!(bench.read(at(0)).await.unwrap(), [0, 2, 4]);
    assert_eq!(bench.read(at(5)).await.unwrap(), [4]);
    for offset in 6..=10 {
        assert!(bench.read(at(offset)).await.unwrap().is_empty(), "{offset} is written, and may not be seen yet");
    }
    bench.commit(10);
    assert_eq!(bench.read(at(6)).await.unwrap(), [6, 8]);
    assert!(bench.here.largest_read_batch() > 0);
}

#[tokio::test]
async fn r3_what_a_follower_cannot_vouch_for_the_leader_is_asked() {
    let bench = Bench::new().await;
    let parts = |offset, last_epoch| ReadRequest { last_epoch: Some(last_epoch), ..at(offset) };
    for (what, request, by_leader) in [
        ("above the end", at(11), true),
        ("below zero", at(-1), true),
        ("the same history", parts(6, 2), false),
        ("another history", parts(4, 3), true),
        ("an epoch that ended before", parts(8, 2), false),
    ] {
        let result = bench.read(request).await;
        assert_eq!(asked_the_leader(&result), by_leader, "{what}: {result:?}");
    }
    bench.commit(9);
    assert!(asked_the_leader(&bench.read(parts(8, 2)).await), "committed, and not what was read");
    bench.progress.send_modify(|progress| progress.log_start = 3);
    assert!(asked_the_leader(&bench.read(at(2)).await), "below its start");
    bench.progress.send_modify(|progress| progress.is_heard = false);
    assert!(asked_the_leader(&bench.read(at(9)).await), "what comes next is not heard of");
    assert_eq!(bench.read(at(4)).await.unwrap(), [4, 6, 8], "what was committed stays so");
    bench.progress.send_modify(|progress| progress.is_proven = false);
    assert!(asked_the_leader(&bench.read(at(4)).await), "it may not be the leader's");
}

#[tokio::test]
async fn d5_what_is_damaged_here_the_leader_is_asked_and_it_is_noted() {
    let bench = Bench::new().await;
    assert!(bench.disk.damage(bench.here.replica.log.id(), 2));
    assert_eq!(bench.read(at(0)).await.unwrap(), [0], "what is in front of it is served");
    assert!(!bench.here.replica.is_damaged(), "nobody came there yet");
    assert!(asked_the_leader(&bench.read(at(2)).await));
    assert!(bench.here.replica.is_damaged());
    assert_eq!(bench.read(at(4)).await.unwrap(), [4]);
}

#[tokio::test]
async fn r3_only_an_in_sync_replica_serves_under_the_very_epoch() {
    let bench = Bench::new().await;
    for (given, is_right) in [(None, true), (Some(EPOCH), true), (Some(EPOCH - 1), false), (Some(EPOCH + 1), false)] {
        let result = bench.read(ReadRequest { leader_epoch: given, ..at(0) }).await;
        assert_eq!(result.is_ok(), is_right, "{given:?}");
        assert!(is_right || matches!(result, Err(FetchError::Epoch(_))), "{result:?}");
    }
    bench.in_sync.send_replace(false);
    assert!(matches!(bench.read(at(0)).await, Err(FetchError::NotInSync { leader: LEADER })));
    bench.in_sync.send_replace(true);
    bench.here.leader.close();
    assert!(matches!(bench.read(at(0)).await, Err(FetchError::Closed)));
}

#[tokio::test]
async fn who_waits_is_woken_when_more_is_committed_and_when_it_is_to_go_elsewhere() {
    let bench = Bench::new().await;
    let (here, waiter) = (&bench.here, Waiter::new());
    let isolation = Isolation::ReadUncommitted;
    let woken = || tokio::time::timeout(Duration::from_secs(20), waiter.ready());
    assert!(!here.arm(5, isolation, &waiter, 1), "there is more already");
    assert!(here.arm(6, isolation, &waiter, 2));
    bench.commit(6);
    tokio::task::yield_now().await;
    assert_eq!(waiter.take(), Vec::<u64>::new());
    bench.commit(8);
    assert_eq!(woken().await.unwrap(), [2]);
    assert!(here.arm(8, Isolation::ReadCommitted, &waiter, 3));
    bench.in_sync.send_replace(false);
    assert_eq!(woken().await.unwrap(), [3]);
    assert!(!here.arm(8, isolation, &waiter, 4), "who reads is told");
    bench.in_sync.send_replace(true);
    assert!(here.arm(8, isolation, &waiter, 4));
    tokio::task::yield_now().await;
    bench.progress.send_modify(|progress| progress.is_heard = false);
    assert_eq!(woken().await.unwrap(), [4], "the leader is asked");
    for token in 5..8 {
        assert!(here.arm(8, isolation, &waiter, token));
    }
    here.leader.close();
    let mut tokens = woken().await.unwrap();
    tokens.sort_unstable();
    assert_eq!(tokens, [5, 6, 7]);
    assert!(!here.arm(8, isolation, &waiter, 8));
}

proptest! {
    /// Whatever the leader says to those who wait and to the follower: nothing is visible that the leader has not committed,
    /// nor what is not written here.
    #[test]
    fn h4_the_high_watermark_is_never_above_the_leader_s_nor_above_what_is_written(
        known in 0_i64..20, written in 0_i64..20, told in -1_i64..20, start in 0_i64..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bench = runtime.block_on(Bench::new());
        let _entered = runtime.enter();
        let high_watermark = known.min(written);
        bench.progress.send_replace(following(start, high_watermark, written));
        let leader = Snapshot { high_watermark: told, last_stable: told, ..bench.here.leader.snapshot() };
        let snapshot = bench.here.replica.snapshot(&leader).unwrap();
        prop_assert!(snapshot.high_watermark <= told.max(high_watermark) && snapshot.high_watermark <= written);
        prop_assert!(snapshot.high_watermark >= high_watermark);
    }
}
