mod model;

use super::*;

/// Session 10 + number of a broker.
fn replica(broker: i32) -> Replica {
    Replica { broker, incarnation: 10 + i64::from(broker) }
}

fn replicas(brokers: &[i32]) -> Vec<Replica> {
    brokers.iter().map(|broker| replica(*broker)).collect()
}

/// Of a partition of brokers 0, 1 and 2 that broker 0 leads, at partition epoch 1.
fn view(isr: &[i32], min_in_sync_replicas: i32) -> View {
    View {
        me: replica(0),
        leader_epoch: 4,
        partition_epoch: 1,
        replicas: vec![0, 1, 2],
        isr: replicas(isr),
        min_in_sync_replicas,
    }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// With a log of 100 records, of which 40 were known to be committed.
fn leader(isr: &[i32], min_in_sync_replicas: i32) -> Leader {
    Leader::new(view(isr, min_in_sync_replicas), 40, Extent { start: 0, end: 100 }, at(0))
}

fn proposed(leader: &Leader) -> Option<Vec<i32>> {
    leader.proposal().map(|proposal| proposal.isr.iter().map(|replica| replica.broker).collect())
}

/// The slice shows these in-sync replicas next.
fn adopt(leader: &mut Leader, isr: &[i32], now: Duration) {
    let partition_epoch = leader.view.partition_epoch + 1;
    leader.adopt(View { partition_epoch, ..view(isr, leader.view.min_in_sync_replicas) }, now);
}

#[test]
fn h1_the_high_watermark_is_the_smallest_end_in_this_epoch_of_all_in_sync_replicas() {
    let mut leader = leader(&[0, 1, 2], 2);
    leader.fetched(replica(1), 100, at(1));
    assert_eq!(leader.high_watermark(), 40, "nothing is known of broker 2 in this epoch");
    let table = [(2, 30, 40), (2, 70, 70), (1, 90, 70), (2, 100, 90), (1, 100, 100), (1, 50, 100)];
    for (broker, written, expected) in table {
        leader.fetched(replica(broker), written, at(2));
        assert_eq!(leader.high_watermark(), expected, "{broker} has {written}");
    }
    leader.written(150, at(3));
    assert_eq!(leader.high_watermark(), 100);
}

#[test]
fn h1_what_cannot_be_is_not_believed() {
    let mut leader = leader(&[0, 1], 1);
    let strangers = [Replica { broker: 7, incarnation: 17 }, replica(0), Replica { broker: 0, incarnation: 99 }];
    for by in strangers {
        leader.fetched(by, 60, at(1));
    }
    for written in [101, i64::MAX, -1] {
        leader.fetched(replica(1), written, at(1));
    }
    assert_eq!((leader.high_watermark(), leader.proposal()), (40, None));
    let heard: Vec<_> = leader.followers.iter().map(|follower| follower.replica.broker).collect();
    assert_eq!(heard, [1, 7], "a stranger counts for nothing, but may be a replica in the next state");
}

#[test]
fn i3_one_that_says_where_it_is_before_the_leader_sees_that_it_is_a_replica_joins() {
    let mut leader = leader(&[0, 1, 2], 2);
    for broker in [1, 2, 3] {
        leader.fetched(replica(broker), 100, at(1));
    }
    assert_eq!((leader.high_watermark(), proposed(&leader)), (100, None));
    leader.written(110, at(2));
    for broker in [1, 2] {
        leader.fetched(replica(broker), 110, at(3));
    }
    assert_eq!(leader.high_watermark(), 110, "who is no replica holds nothing up");
    adopt(&mut leader, &[0, 1, 2], at(4));
    leader.fetched(replica(3), 110, at(5));
    let partition_epoch = leader.view.partition_epoch + 1;
    leader.adopt(View { partition_epoch, replicas: vec![0, 1, 2, 3], ..view(&[0, 1, 2], 2) }, at(6));
    assert_eq!(proposed(&leader), Some(vec![0, 1, 2, 3]), "it has all there is, and says so once");
}

#[test]
fn h1_another_session_begins_with_no_position_and_an_older_one_is_not_heard() {
    let mut leader = leader(&[0, 1], 1);
    let next = Replica { broker: 1, incarnation: 12 };
    leader.fetched(replica(1), 60, at(1));
    leader.fetched(next, 100, at(2));
    leader.fetched(replica(1), 100, at(3));
    assert_eq!(leader.high_watermark(), 60, "the member is the old session, which fetches no more");
    let view = View { partition_epoch: 2, isr: vec![replica(0), next], ..view(&[], 1) };
    leader.adopt(view, at(4));
    assert_eq!(leader.high_watermark(), 100, "it is the present session now");
}

#[test]
fn h1_the_only_replica_commits_what_it_has_written() {
    let alone = View { replicas: vec![0], ..view(&[0], 1) };
    let mut leader = Leader::new(alone, 0, Extent { start: 0, end: 100 }, at(0));
    assert_eq!((leader.high_watermark(), leader.latest_known()), (100, true));
    leader.written(130, at(1));
    assert_eq!(leader.high_watermark(), 130);
}

#[test]
fn h1_the_high_watermark_at_the_start_lies_within_the_log() {
    let table = [(0, 20), (40, 40), (500, 100)];
    for (known, expected) in table {
        let leader = Leader::new(view(&[0, 1], 1), known, Extent { start: 20, end: 100 }, at(0));
        assert_eq!(leader.high_watermark(), expected, "{known} was known");
    }
}

#[test]
fn h2_it_does_not_move_while_too_few_are_in_sync() {
    let mut leader = leader(&[0], 2);
    assert!(leader.is_short());
    leader.written(150, at(1));
    leader.fetched(replica(1), 150, at(2));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (40, Some(vec![0, 1])), "a proposal is not enough");
    adopt(&mut leader, &[0, 1], at(3));
    assert_eq!((leader.high_watermark(), leader.is_short()), (150, false));
    adopt(&mut leader, &[0], at(4));
    leader.written(160, at(5));
    assert_eq!((leader.high_watermark(), leader.is_short()), (150, true));
}

#[test]
fn h3_it_waits_for_one_that_is_about_to_join_also_while_appends_go_on() {
    let mut leader = leader(&[0], 1);
    leader.fetched(replica(1), 50, at(0));
    leader.fetched(replica(1), 90, at(10));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (100, None), "it is behind");
    leader.written(110, at(20));
    assert_eq!(leader.high_watermark(), 110);
    // Now it has what the leader had a moment ago.
    leader.fetched(replica(1), 100, at(30));
    leader.written(120, at(40));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (110, None));
    leader.fetched(replica(1), 110, at(50));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (110, Some(vec![0, 1])));
}

#[test]
fn h3_it_waits_no_longer_for_one_that_has_stopped() {
    let mut leader = leader(&[0], 1);
    leader.fetched(replica(1), 100, at(0));
    assert_eq!(proposed(&leader), Some(vec![0, 1]));
    adopt(&mut leader, &[0], at(6_000));
    leader.tick(at(11_000));
    assert_eq!(proposed(&leader), Some(vec![0, 1]), "it was refused, and is asked for again");
    leader.written(120, at(11_001));
    assert_eq!(leader.high_watermark(), 100);
    adopt(&mut leader, &[0], at(11_002));
    assert_eq!(leader.high_watermark(), 120, "who was refused is not about to join");

    leader.fetched(replica(2), 90, at(20_000));
    leader.fetched(replica(2), 120, at(20_100));
    adopt(&mut leader, &[0, 2], at(20_200));
    adopt(&mut leader, &[0], at(20_300));
    leader.written(150, at(20_400));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (120, Some(vec![0, 2])), "it still fetches");
}

#[test]
fn h5_the_latest_is_known_once_the_log_at_the_start_of_the_epoch_is_committed() {
    let mut leader = leader(&[0, 1], 1);
    for (written, known) in [(0, false), (99, false), (100, true)] {
        leader.fetched(replica(1), written, at(1));
        assert_eq!((leader.latest_known(), leader.epoch_start()), (known, 100), "{written}");
    }
}

#[test]
fn i1_a_replica_that_is_to_leave_holds_the_high_watermark_until_it_has_left() {
    let mut leader = leader(&[0, 1, 2], 2);
    leader.fetched(replica(1), 100, at(1));
    leader.tick(at(10_000));
    assert_eq!(proposed(&leader), Some(vec![0, 1]), "broker 2 has not fetched for 10 s");
    assert_eq!(leader.high_watermark(), 40);
    adopt(&mut leader, &[0, 1], at(10_001));
    assert_eq!((leader.high_watermark(), proposed(&leader)), (100, None));
}

#[test]
fn i2_a_replica_that_is_to_join_holds_the_high_watermark_before_it_has_joined() {
    let mut leader = leader(&[0, 1], 2);
    leader.fetched(replica(1), 100, at(1));
    leader.fetched(replica(2), 100, at(2));
    assert_eq!(proposed(&leader), Some(vec![0, 1, 2]));
    leader.written(200, at(3));
    leader.fetched(replica(1), 200, at(4));
    leader.tick(at(60_000));
    assert_eq!(leader.high_watermark(), 100);
    leader.fetched(replica(2), 150, at(60_001));
    assert_eq!(leader.high_watermark(), 150);
}

#[test]
fn i3_a_replica_joins_that_has_what_is_committed_and_the_log_of_the_epochs_start() {
    // Its end, whether it is asked for; 60 are committed in the first case, all of 120 in the second.
    for (written, joins) in [(59, false), (60, false), (99, false), (100, true)] {
        let mut leader = leader(&[0, 1], 2);
        leader.fetched(replica(1), 60, at(1));
        leader.fetched(replica(2), written, at(2));
        assert_eq!(leader.proposal().is_some(), joins, "{written}");
    }
    for (written, joins) in [(100, false), (119, false), (120, true)] {
        let mut leader = leader(&[0, 1], 2);
        leader.written(120, at(1));
        leader.fetched(replica(1), 120, at(1));
        leader.fetched(replica(2), written, at(2));
        assert_eq!(leader.proposal().is_some(), joins, "{written}");
    }
}

#[test]
fn i3_one_that_stopped_to_fetch_long_ago_is_not_asked_for() {
    let mut leader = leader(&[0, 1], 1);
    leader.fetched(replica(1), 100, at(0));
    leader.written(110, at(1));
    leader.tick(at(10_001));
    adopt(&mut leader, &[0], at(10_002));
    for second in 11..40 {
        leader.tick(at(second * 1_000));
    }
    assert_eq!((leader.high_watermark(), proposed(&leader)), (110, None));
}

#[test]
fn i5_what_was_asked_for_stands_until_the_partition_epoch_is_higher() {
    let mut leader = leader(&[0, 1], 2);
    leader.fetched(replica(2), 100, at(1));
    let asked = leader.proposal().cloned();
    leader.fetched(replica(2), 10, at(2));
    leader.tick(at(100_000));
    let older = View { partition_epoch: 0, ..view(&[0], 1) };
    let another = View { partition_epoch: 9, leader_epoch: 5, ..view(&[0], 1) };
    let of_another = View { partition_epoch: 9, me: replica(1), ..view(&[0], 1) };
    for view in [view(&[0], 1), older, another, of_another] {
        leader.adopt(view, at(100_001));
    }
    assert_eq!(leader.proposal().cloned(), asked);
    assert_eq!(leader.maximal_isr().collect::<Vec<_>>(), replicas(&[0, 1, 2]));
}

#[test]
fn i5_a_refused_expansion_is_not_repeated_for_5_s() {
    let mut leader = leader(&[0, 1], 2);
    leader.fetched(replica(1), 100, at(0));
    leader.fetched(replica(2), 100, at(0));
    adopt(&mut leader, &[0, 1], at(1_000));
    leader.fetched(replica(2), 100, at(5_999));
    assert_eq!(leader.proposal(), None);
    leader.tick(at(6_000));
    assert_eq!(leader.proposal(), Some(&Proposal { leader_epoch: 4, partition_epoch: 2, isr: replicas(&[0, 1, 2]) }));
}

#[test]
fn i5_an_expansion_that_another_change_overtook_is_repeated_at_once() {
    let mut leader = leader(&[0, 1], 2);
    leader.fetched(replica(2), 100, at(0));
    adopt(&mut leader, &[0], at(1));
    assert_eq!(proposed(&leader), Some(vec![0, 2]));
}

#[test]
fn i6_one_change_at_a_time_and_a_refusal_of_one_does_not_hold_up_others() {
    let mut leader = leader(&[0], 1);
    leader.fetched(replica(2), 100, at(0));
    leader.fetched(replica(1), 100, at(0));
    assert_eq!(proposed(&leader), Some(vec![0, 2]));
    adopt(&mut leader, &[0], at(1));
    assert_eq!(proposed(&leader), Some(vec![0, 1]));
    adopt(&mut leader, &[0, 1], at(2));
    assert_eq!(proposed(&leader), None);
}

#[test]
fn e6_a_leader_that_was_deposed_commits_nothing_more() {
    let mut leader = leader(&[0, 1, 2], 1);
    leader.fetched(replica(1), 100, at(1));
    leader.fetched(replica(2), 100, at(1));
    // Broker 1 leads now, under an epoch that this one does not know: it fetches no more.
    for second in 1..60 {
        leader.written(100 + second, at(second as u64 * 1_000));
        leader.fetched(replica(2), 100 + second, at(second as u64 * 1_000));
        leader.tick(at(second as u64 * 1_000));
    }
    assert_eq!((leader.high_watermark(), proposed(&leader)), (100, Some(vec![0, 2])), "nobody applies it");
}

#[test]
fn a_replica_lags_when_it_has_not_been_at_the_leaders_end_for_10_s() {
    let mut idle = leader(&[0, 1], 1);
    idle.fetched(replica(1), 100, at(0));
    idle.tick(at(500_000));
    assert_eq!(idle.proposal(), None, "it has everything, and nothing to say");
    idle.written(101, at(500_000));
    idle.tick(at(509_999));
    assert_eq!(idle.proposal(), None);
    idle.tick(at(510_000));
    assert_eq!(proposed(&idle), Some(vec![0]));

    // Under load it is always a little behind.
    let mut busy = leader(&[0, 1], 1);
    for second in 0..60 {
        busy.written(110 + second * 10, at(second as u64 * 1_000));
        busy.fetched(replica(1), 100 + second * 10, at(second as u64 * 1_000 + 500));
        busy.tick(at(second as u64 * 1_000 + 600));
        assert_eq!(busy.proposal(), None, "{second}");
    }

    // It reports each batch, and is always some reports behind.
    for isr in [&[0, 1][..], &[0]] {
        let mut busy = leader(isr, 1);
        for millis in 0..20_000 {
            busy.written(100 + millis, at(millis as u64));
            busy.fetched(replica(1), 90 + millis, at(millis as u64));
            busy.tick(at(millis as u64));
        }
        assert_eq!(proposed(&busy), (isr.len() == 1).then_some(vec![0, 1]), "{isr:?}");
    }

    // More and more.
    let mut slow = leader(&[0, 1], 1);
    for second in 0..60 {
        slow.written(110 + second * 10, at(second as u64 * 1_000));
        slow.fetched(replica(1), 100 + second * 2, at(second as u64 * 1_000 + 500));
        slow.tick(at(second as u64 * 1_000 + 600));
    }
    assert_eq!(proposed(&slow), Some(vec![0]));
}

#[test]
fn all_that_lag_leave_at_once_and_a_refusal_of_that_is_respected() {
    let mut leader = leader(&[0, 1, 2], 2);
    leader.tick(at(10_000));
    assert_eq!(proposed(&leader), Some(vec![0]));
    adopt(&mut leader, &[0, 1, 2], at(10_001));
    leader.tick(at(15_000));
    assert_eq!(leader.proposal(), None);
    leader.tick(at(15_001));
    assert_eq!(proposed(&leader), Some(vec![0]));
}

#[test]
fn i10_replicas_that_are_removed_are_forgotten_and_new_ones_are_heard() {
    let mut leader = leader(&[0, 1], 1);
    leader.fetched(replica(2), 10, at(1));
    leader.adopt(View { partition_epoch: 2, replicas: vec![0, 1, 3], ..view(&[0, 1], 1) }, at(2));
    leader.fetched(replica(2), 100, at(3));
    assert_eq!(leader.proposal(), None);
    leader.fetched(replica(3), 100, at(3));
    assert_eq!(proposed(&leader), Some(vec![0, 1, 3]));
}
