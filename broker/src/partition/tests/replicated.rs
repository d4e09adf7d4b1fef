//! A leader with two followers.

use std::collections::BTreeMap;

use super::*;
use crate::replication::Proposal;

/// Broker 0 leads brokers 1 and 2, with a log of 3 records, of which none is known to be committed.
struct Led {
    bench: Bench,
    partition: Partition,
    proposals: Arc<Proposals>,
}

fn replica(broker: i32) -> Replica {
    Replica { broker, incarnation: 10 + i64::from(broker) }
}

fn view(partition_epoch: i32, isr: &[i32]) -> View {
    View {
        me: replica(0),
        leader_epoch: 5,
        partition_epoch,
        replicas: vec![0, 1, 2],
        isr: isr.iter().map(|broker| replica(*broker)).collect(),
        min_in_sync_replicas: 2,
    }
}

async fn led(isr: &[i32]) -> Led {
    let bench = bench().await;
    bench.append(3).await;
    bench.partition.stop().await;
    let proposals = Arc::new(Proposals::default());
    let replicated = Replicated { view: view(1, isr), high_watermark: 0, proposals: proposals.clone() };
    let term = Term { epoch: Some(5), replicated: Some(replicated) };
    let partition = Partition::lead(bench.log.clone(), bench.context.clone(), bench.settings.clone(), term);
    Led { partition: partition.await.unwrap(), bench, proposals }
}

impl Led {
    fn append(&self, acks: Acks) -> PendingAppend {
        self.partition.append(AppendRequest { acks, ..request(1, None) })
    }

    /// What the owner is to know it knows.
    async fn told(&self) {
        self.partition.delete_records(0).await.unwrap();
    }

    async fn fetched(&self, broker: i32, written: i64) {
        self.partition.fetched(replica(broker), written);
        self.told().await;
    }

    async fn adopt(&self, partition_epoch: i32, isr: &[i32]) {
        self.partition.adopt(view(partition_epoch, isr));
        self.told().await;
    }

    fn high_watermark(&self) -> i64 {
        self.partition.snapshot().high_watermark
    }

    fn asked(&self) -> BTreeMap<(Uuid, i32), Proposal> {
        self.proposals.follow().borrow().clone()
    }

    /// Brokers that are to be in sync.
    fn proposed(&self) -> Option<Vec<i32>> {
        let asked = self.asked();
        let id = self.partition.id();
        let proposal = asked.get(&(id.topic, id.index))?;
        assert_eq!(proposal.leader_epoch, 5);
        Some(proposal.isr.iter().map(|replica| replica.broker).collect())
    }
}

#[tokio::test]
async fn a1_a2_d1_all_waits_for_every_replica_in_sync_and_leader_for_this_one() {
    let led = led(&[0, 1, 2]).await;
    let mut all = led.append(Acks::All);
    let one = led.append(Acks::Leader).await.unwrap();
    assert_eq!((one.base_offset, one.replicas, one.leader_epoch), (Some(4), 1, 5));
    led.fetched(1, 5).await;
    assert!(futures::poll!(&mut all).is_pending());
    led.fetched(2, 3).await;
    assert!(futures::poll!(&mut all).is_pending(), "broker 2 has what was there before");
    assert_eq!(led.high_watermark(), 3);
    led.fetched(2, 4).await;
    let all = all.await.unwrap();
    assert_eq!((all.base_offset, all.replicas), (Some(3), 3));
    assert_eq!(led.high_watermark(), 4);
}

#[tokio::test]
async fn d1_an_answer_names_as_many_replicas_as_are_in_sync_then() {
    let led = led(&[0, 1, 2]).await;
    let all = led.append(Acks::All);
    led.fetched(1, 3).await;
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 5).await;
    led.adopt(2, &[0, 1]).await;
    assert_eq!(all.await.unwrap().replicas, 2);
}

#[tokio::test]
async fn p2_a_retry_for_all_waits_as_its_original() {
    let led = led(&[0, 1]).await;
    let send = || led.partition.append(request(2, Some((7, 0, 0))));
    let (original, mut retry) = (send(), send());
    led.fetched(1, 3).await;
    assert!(futures::poll!(&mut retry).is_pending());
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 5).await;
    let original = original.await.unwrap();
    assert_eq!(retry.await.unwrap(), Appended { duplicate: true, ..original });
    assert_eq!(
        send().await.unwrap(),
        Appended { duplicate: true, ..original },
        "and one that comes later is due at once"
    );
}

#[tokio::test]
async fn l1_with_too_few_in_sync_all_is_refused_before_anything_is_appended() {
    let led = led(&[0]).await;
    let refused = led.append(Acks::All).await;
    assert!(matches!(refused, Err(AppendError::NotEnoughReplicas { in_sync: 1, min: 2 })), "{refused:?}");
    assert_eq!(led.partition.snapshot().log_end, 3);
    assert_eq!(led.append(Acks::Leader).await.unwrap().base_offset, Some(3));
    led.fetched(1, 4).await;
    led.adopt(2, &[0, 1]).await;
    let mut all = led.append(Acks::All);
    led.told().await;
    assert!(futures::poll!(&mut all).is_pending());
    // What was appended waits, though it would be refused now.
    led.adopt(3, &[0]).await;
    led.fetched(1, 5).await;
    assert!(futures::poll!(&mut all).is_pending());
    led.adopt(4, &[0, 1]).await;
    assert_eq!(all.await.unwrap().replicas, 2);
}

#[tokio::test]
async fn i2_i5_a_proposal_stands_until_the_slice_shows_a_higher_partition_epoch() {
    let led = led(&[0, 1]).await;
    led.fetched(2, 3).await;
    assert_eq!(led.proposed(), Some(vec![0, 1, 2]));
    let all = led.append(Acks::All);
    led.fetched(1, 3).await;
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 5).await;
    assert_eq!(led.high_watermark(), 3, "broker 2 may be in sync");
    led.adopt(1, &[0, 1]).await;
    assert_eq!(led.proposed(), Some(vec![0, 1, 2]), "a state that is not newer");
    led.adopt(2, &[0, 1, 2]).await;
    assert_eq!(led.proposed(), None);
    led.fetched(2, 5).await;
    assert_eq!((all.await.unwrap().replicas, led.high_watermark()), (3, 5));
}

#[tokio::test]
async fn i5_what_was_asked_for_binds_who_leads_again_under_the_same_epoch() {
    let led = led(&[0, 1]).await;
    led.fetched(2, 3).await;
    assert_eq!(led.proposed(), Some(vec![0, 1, 2]));
    led.partition.stop().await;
    led.partition.fetched(replica(2), 3);
    led.partition.adopt(view(2, &[0, 1]));
    assert_eq!(led.proposed(), Some(vec![0, 1, 2]), "it may have been heard");

    let led = again(led).await;
    let all = led.append(Acks::All);
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 5).await;
    assert_eq!(led.high_watermark(), 0, "broker 2 may be in sync");
    led.fetched(2, 5).await;
    assert_eq!((all.await.unwrap().replicas, led.high_watermark()), (2, 5));
}

/// Led again, under the same epoch and state.
async fn again(led: Led) -> Led {
    let Led { bench, proposals, .. } = led;
    let replicated = Replicated { view: view(1, &[0, 1]), high_watermark: 0, proposals: proposals.clone() };
    let term = Term { epoch: Some(5), replicated: Some(replicated) };
    let partition = Partition::lead(bench.log.clone(), bench.context.clone(), bench.settings.clone(), term);
    Led { partition: partition.await.unwrap(), bench, proposals }
}

#[tokio::test]
async fn i1_a_replica_that_does_not_fetch_is_to_leave_after_10_s() {
    let led = led(&[0, 1, 2]).await;
    led.fetched(1, 3).await;
    let mut asked = led.proposals.follow();
    led.bench.clock.advance(Duration::from_secs(10));
    tokio::time::timeout(Duration::from_secs(20), asked.changed()).await.expect("it looks every second").unwrap();
    assert_eq!((led.proposed(), led.high_watermark()), (Some(vec![0, 1]), 0));
    led.adopt(2, &[0, 1]).await;
    assert_eq!(led.high_watermark(), 3);
}

#[tokio::test]
async fn the_outcome_is_unknown_of_what_others_lack_when_a_leader_stops() {
    let led = led(&[0, 1]).await;
    let order = Order::default();
    let all = AppendRequest { order: Some(order.clone()), ..request(1, None) };
    let all = led.partition.append(all);
    led.append(Acks::Leader).await.unwrap();
    led.partition.stop().await;
    assert!(matches!(all.await, Err(AppendError::ClosedInFlight)));
    assert!(order.has_ended(), "nothing may follow it");
}

#[tokio::test]
async fn h5_the_latest_offset_is_told_once_the_epochs_start_is_committed() {
    let led = led(&[0, 1]).await;
    let list = |query, isolation| led.partition.list_offset(query, isolation);
    let unknown = [OffsetQuery::Latest, OffsetQuery::MaxTimestamp, OffsetQuery::Timestamp(NOW)];
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        for query in unknown {
            let refused = list(query, isolation).await;
            assert!(matches!(refused, Err(FetchError::OffsetNotAvailable)), "{query:?}: {refused:?}");
        }
        assert_eq!(list(OffsetQuery::Earliest, isolation).await.unwrap().offset, Some(0));
    }
    assert_eq!(list(OffsetQuery::Latest, Isolation::LogEnd).await.unwrap().offset, Some(3));
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 3).await;
    assert_eq!(list(OffsetQuery::Latest, Isolation::default()).await.unwrap().offset, Some(3));
    assert_eq!(list(OffsetQuery::Timestamp(NOW), Isolation::default()).await.unwrap().offset, Some(0));
    assert_eq!(list(OffsetQuery::Timestamp(NOW + 99), Isolation::default()).await.unwrap().offset, None);
}

#[tokio::test]
async fn h6_what_is_not_committed_is_waited_for_and_only_replicas_see_it() {
    let led = led(&[0, 1]).await;
    let read = |isolation| {
        led.partition.read(ReadRequest { offset: 0, max_bytes: 1, isolation, last_epoch: None, leader_epoch: None })
    };
    let (public, replicas) = (Waiter::new(), Waiter::new());
    assert_eq!(read(Isolation::default()).await.unwrap().batches.len(), 0);
    assert_eq!(read(Isolation::LogEnd).await.unwrap().batches.len(), 1);
    assert!(led.partition.arm(0, Isolation::default(), &public, 1));
    assert!(!led.partition.arm(2, Isolation::LogEnd, &replicas, 2));
    assert!(led.partition.arm(3, Isolation::LogEnd, &replicas, 2));
    led.append(Acks::Leader).await.unwrap();
    assert_eq!((replicas.take(), public.take()), (vec![2], vec![]));
    led.fetched(1, 4).await;
    assert_eq!(public.take(), [1]);
    assert_eq!(read(Isolation::default()).await.unwrap().batches.len(), 1);
}

#[tokio::test]
async fn q3_what_is_not_committed_is_not_deleted() {
    let led = led(&[0, 1]).await;
    led.append(Acks::Leader).await.unwrap();
    led.fetched(1, 3).await;
    let refused = led.partition.delete_records(4).await.unwrap_err();
    assert!(matches!(refused, DeleteRecordsError::OutOfRange { high_watermark: 3, .. }), "{refused}");
    assert_eq!(led.partition.delete_records(-1).await.unwrap(), 3);
}

#[tokio::test]
async fn r4_whoever_is_told_of_an_append_sees_it_however_reports_come() {
    let led = led(&[0, 1]).await;
    for end in 4..100 {
        let all = led.append(Acks::All);
        led.partition.wait_beyond(end - 1, Isolation::LogEnd).await;
        for written in [end, end - 1, end] {
            led.partition.fetched(replica(1), written);
        }
        all.await.unwrap();
        assert!(led.high_watermark() >= end);
    }
}

#[tokio::test]
async fn h1_one_that_has_a_slice_and_no_other_replica_commits_at_once() {
    let bench = bench().await;
    bench.partition.stop().await;
    let view = View { replicas: vec![0], min_in_sync_replicas: 1, ..view(1, &[0]) };
    let proposals = Arc::new(Proposals::default());
    let term = Term { epoch: Some(5), replicated: Some(Replicated { view, high_watermark: 0, proposals }) };
    let partition = Partition::lead(bench.log.clone(), bench.context.clone(), bench.settings.clone(), term);
    let partition = partition.await.unwrap();
    assert_eq!(partition.append(request(2, None)).await.unwrap().replicas, 1);
    assert_eq!(partition.list_offset(OffsetQuery::Latest, Isolation::default()).await.unwrap().offset, Some(2));
}

#[tokio::test]
async fn d5_damage_is_noted_and_readers_wait_for_another_leader_while_others_are_in_sync() {
    let led = led(&[0, 1, 2]).await;
    let request =
        ReadRequest { offset: 0, max_bytes: 1, isolation: Isolation::LogEnd, last_epoch: None, leader_epoch: None };
    assert!(led.partition.read(request).await.is_ok() && !led.partition.is_damaged());
    assert!(led.bench.disk.damage(led.partition.log().unwrap().id(), 1));
    let put_off = led.partition.read(request).await;
    assert!(matches!(&put_off, Err(FetchError::NoLeader(why)) if why.contains("offsets 0 to 2")), "{put_off:?}");
    assert!(led.partition.is_damaged());
    led.fetched(1, 3).await;
    led.fetched(2, 3).await;
    let put_off = led.partition.list_offset(OffsetQuery::MaxTimestamp, Isolation::default()).await;
    assert!(matches!(put_off, Err(FetchError::NoLeader(_))), "{put_off:?}");

    led.adopt(2, &[0]).await;
    let told = led.partition.read(request).await;
    assert!(matches!(told, Err(FetchError::Corrupt { first: 0, last: 2, .. })), "nobody else has it: {told:?}");
    led.partition.stop().await;
    assert!(matches!(led.partition.read(request).await, Err(FetchError::Closed)));
}
