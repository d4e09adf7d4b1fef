//! Replicas and min ISR of a partition that is there, as its topic asks for them now, and how replicas leave one.

use taffrail_crds::slice::PartitionState;
use uuid::Uuid;

use super::elect::forget_others;
use super::members::{Members, can_lead};
use super::place::{Load, Room};
use super::slices::Wanted;

/// The partition with as many replicas as are wanted, as far as that is possible now, and with the epochs that the change asks
/// for; `None`: it stays as it is.
pub fn adapt(
    partition: &PartitionState,
    wanted: &Wanted,
    of_topic: &mut Load,
    room: &mut Room<'_>,
) -> Option<PartitionState> {
    let factor = wanted.replication_factor.max(1);
    let min_in_sync = min_in_sync(partition, wanted.min_in_sync_replicas.clamp(1, factor));
    let there = partition.replicas.len().saturating_sub(partition.removing.len());
    let asked = (there, partition.replication_factor, partition.min_in_sync_replicas);
    if !wanted.current || asked == (factor as usize, factor, min_in_sync) {
        return None;
    }
    let mut next = partition.clone();
    (next.replication_factor, next.min_in_sync_replicas) = (factor, min_in_sync);
    forget_others(&mut next);
    grow(&mut next, of_topic, room);
    remove_surplus(&mut next, wanted.id, of_topic, room);
    with_epochs(partition, next)
}

/// The changed partition with the epochs that the change asks for; `None`: nothing has changed.
pub(super) fn with_epochs(partition: &PartitionState, mut next: PartitionState) -> Option<PartitionState> {
    if next == *partition {
        return None;
    }
    // Who has no replica any more must not be taken for one that has (I10).
    let left = partition.replicas.iter().any(|broker| !next.replicas.contains(broker));
    next.leader_epoch += i32::from(left || next.leader != partition.leader);
    next.partition_epoch += 1;
    Some(next)
}

/// Takes these replicas out of all lists, if the partition can do without them now: `false` and unchanged otherwise.
///
/// Those that count for something, being in sync or eligible, go only while as many as a write needs stay in sync (I10); then
/// nobody else is eligible (L2). A leader goes only where another in-sync replica can lead. Without a leader nothing is known
/// of the replicas, nor while what the leader has lost is not known: then all stay (L4).
pub(super) fn release(next: &mut PartitionState, gone: &[i32], topic: Uuid, members: &Members) -> bool {
    let Some(leader) = next.leader.filter(|_| !next.recovering) else { return false };
    let stay: Vec<_> = next.isr.iter().copied().filter(|replica| !gone.contains(&replica.broker)).collect();
    // Not all may be about to go.
    if next.wanted().all(|broker| gone.contains(&broker)) {
        return false;
    }
    if gone.iter().any(|broker| next.counts(*broker)) && stay.len() < next.min_in_sync_replicas as usize {
        return false;
    }
    if gone.contains(&leader) {
        let can = |broker: &i32| {
            let replica = stay.iter().find(|replica| replica.broker == *broker);
            replica.is_some_and(|replica| can_lead(members, (topic, next.index), *replica))
        };
        let Some(heir) = next.wanted().find(can) else { return false };
        next.leader = Some(heir);
    }
    for brokers in [&mut next.replicas, &mut next.adding, &mut next.removing] {
        brokers.retain(|broker| !gone.contains(broker));
    }
    next.isr = stay;
    forget_others(next);
    true
}

/// Those that go stand behind those that stay.
pub(super) fn arrange(next: &mut PartitionState) {
    next.replicas = next.wanted().chain(next.removing.iter().copied()).collect();
}

/// A higher min ISR holds once so many are in sync: that more are asked for shall not stop writes until they have caught up.
fn min_in_sync(partition: &PartitionState, wanted: i32) -> i32 {
    wanted.min(partition.min_in_sync_replicas.max(partition.isr.len() as i32))
}

/// New replicas are not in sync: the leader asks for them once they have caught up. One that was about to move away, and need
/// not, costs no copy.
fn grow(next: &mut PartitionState, of_topic: &mut Load, room: &mut Room<'_>) {
    while next.wanted().count() < next.replication_factor as usize {
        if let Some(place) = next.removing.iter().position(|broker| !room.goes(*broker)) {
            let kept = next.removing.remove(place);
            room.keep(of_topic, kept);
        } else if let Some(broker) = room.add(of_topic, &next.replicas) {
            next.replicas.push(broker);
        } else {
            break;
        }
        arrange(next);
    }
    if next.removing.is_empty() {
        next.adding.clear();
    }
}

/// Those that are in sync last, and the leader only if its broker is about to go for good: as many stay as a write needs.
fn remove_surplus(next: &mut PartitionState, topic: Uuid, of_topic: &mut Load, room: &mut Room<'_>) {
    while next.wanted().count() > next.replication_factor as usize {
        let Some(leader) = next.leader else { return };
        let known: Vec<_> = next.isr.iter().chain(&next.elr).chain(&next.last_known_elr).map(|r| r.broker).collect();
        let wanted: Vec<_> = next.wanted().collect();
        let (known, others): (Vec<_>, Vec<_>) = wanted.iter().copied().partition(|broker| known.contains(broker));
        let can_go = |broker: &i32| {
            (*broker != leader || room.goes(leader)) && release(&mut next.clone(), &[*broker], topic, room.members())
        };
        let candidates: Vec<_> = if others.is_empty() { known } else { others }.into_iter().filter(can_go).collect();
        let Some(gone) = room.remove(of_topic, &wanted, &candidates) else { return };
        release(next, &[gone], topic, room.members());
    }
}

#[cfg(test)]
mod tests {
    use taffrail_crds::slice::Replica;

    use super::super::members::tests::members;
    use super::super::slices::tests::{spread, wanted};
    use super::*;

    fn of(factor: i32, min_in_sync: i32) -> Wanted {
        Wanted { replication_factor: factor, min_in_sync_replicas: min_in_sync, ..wanted(1) }
    }

    /// On brokers 0, 1, … of five, led by the first.
    fn partition(factor: i32, min_in_sync: i32) -> PartitionState {
        spread(&of(factor, min_in_sync)).remove(0).partitions.remove(0)
    }

    fn adapted(partition: &PartitionState, wanted: &Wanted) -> Option<PartitionState> {
        let members = members(5);
        let mut of_topic = Load::default();
        of_topic.add(&partition.replicas);
        let mut room = Room::new(&members, members.values().collect(), of_topic.clone());
        let next = adapt(partition, wanted, &mut of_topic, &mut room)?;
        assert_eq!(adapt(&next, wanted, &mut of_topic, &mut room), None, "once is enough");
        Some(next)
    }

    fn replica(broker: i32) -> Replica {
        Replica { broker, incarnation: 10 + i64::from(broker) }
    }

    #[test]
    fn a_replica_more_is_not_in_sync_and_min_isr_waits_for_it() {
        let before = partition(1, 1);
        let mut next = adapted(&before, &of(3, 2)).unwrap();
        assert_eq!((next.replicas.as_slice(), next.isr.as_slice()), ([0, 1, 2].as_slice(), [replica(0)].as_slice()));
        assert_eq!((next.leader_epoch, next.partition_epoch), (before.leader_epoch, before.partition_epoch + 1));
        assert_eq!((next.replication_factor, next.min_in_sync_replicas), (3, 1));
        next.isr.push(replica(2));
        let caught_up = adapted(&next, &of(3, 2)).unwrap();
        assert_eq!((caught_up.min_in_sync_replicas, caught_up.leader_epoch), (2, 0));
    }

    #[test]
    fn growth_goes_as_far_as_there_are_brokers() {
        let (before, members) = (partition(1, 1), members(2));
        let (mut of_topic, load) = (Load::default(), Load::default());
        let mut room = Room::new(&members, members.values().collect(), load);
        let next = adapt(&before, &of(3, 2), &mut of_topic, &mut room).unwrap();
        assert_eq!((next.replicas.as_slice(), next.replication_factor), ([0, 1].as_slice(), 3));
        assert_eq!(adapt(&next, &of(3, 2), &mut of_topic, &mut room), None, "it waits");
    }

    #[test]
    fn i10_surplus_replicas_go_with_a_higher_leader_epoch_and_never_the_leader() {
        let before = PartitionState { leader: Some(2), ..partition(3, 2) };
        let next = adapted(&before, &of(1, 1)).unwrap();
        assert_eq!((next.replicas.as_slice(), next.isr.as_slice()), ([2].as_slice(), [replica(2)].as_slice()));
        assert_eq!((next.leader, next.leader_epoch, next.partition_epoch), (Some(2), 1, 1));
    }

    #[test]
    fn i10_who_is_not_in_sync_goes_first_and_as_many_stay_as_writes_need() {
        let mut before = partition(3, 2);
        before.isr.remove(1);
        let next = adapted(&before, &of(2, 2)).unwrap();
        assert_eq!(next.replicas, [0, 2]);

        let (isr, elr) = (vec![replica(0)], vec![replica(1)]);
        let short = PartitionState { isr, elr, last_known_elr: vec![replica(2)], ..partition(3, 2) };
        let next = adapted(&short, &of(2, 2)).unwrap();
        assert_eq!((next.replicas.len(), next.replication_factor), (3, 2), "nobody can be spared yet");
        let offline = PartitionState { leader: None, isr: vec![], elr: vec![replica(0), replica(1)], ..short };
        assert_eq!(adapted(&offline, &of(2, 2)).unwrap().replicas.len(), 3);
    }

    #[test]
    fn m8_a_lower_min_isr_holds_at_once_and_then_nobody_else_is_eligible() {
        let short = PartitionState { isr: vec![replica(0)], elr: vec![replica(1)], ..partition(3, 2) };
        let next = adapted(&short, &of(3, 1)).unwrap();
        assert_eq!((next.min_in_sync_replicas, next.elr.len(), next.leader_epoch), (1, 0, 0));
        let raised = adapted(&next, &of(3, 3));
        assert_eq!(raised, None, "one is in sync");
    }
}
