//! What is counted when a partition's state changes: by its leader, so that no change is counted by two brokers.

use super::desired::{Place, Role};
use crate::metrics::ReplicationMetrics;

/// Takes note that a partition is to be served in another way.
pub(super) fn count(metrics: &ReplicationMetrics, before: Option<&Place>, now: &Place) {
    if now.role != Role::Lead {
        return;
    }
    let was_led = before.filter(|before| before.role == Role::Lead);
    if was_led.is_none_or(|before| before.state.leader_epoch != now.state.leader_epoch) {
        metrics.elections.inc();
        metrics.possible_losses.inc_by(u64::from(now.state.recovering));
    }
    let Some(before) = before else { return };
    let brokers = |place: &Place| place.state.isr.iter().map(|replica| replica.broker).collect::<Vec<_>>();
    let (was, is) = (brokers(before), brokers(now));
    metrics.isr_shrinks.inc_by(was.iter().filter(|broker| !is.contains(broker)).count() as u64);
    metrics.isr_expansions.inc_by(is.iter().filter(|broker| !was.contains(broker)).count() as u64);
}

#[cfg(test)]
mod tests {
    use taffrail_crds::PartitionState;
    use taffrail_crds::slice::{Replica, UncleanRecovery};

    use super::*;

    fn place(role: Role, leader_epoch: i32, isr: &[i32], recovering: bool) -> Place {
        let in_sync = |broker: &i32| Replica { broker: *broker, incarnation: 1 };
        let state = PartitionState {
            index: 0,
            replicas: vec![1, 2, 3],
            adding: vec![],
            removing: vec![],
            leader: Some(1),
            leader_epoch,
            partition_epoch: 0,
            isr: isr.iter().map(in_sync).collect(),
            elr: vec![],
            last_known_elr: vec![],
            fault: None,
            recovering,
            unclean_leader_epoch: None,
            seen_epoch: None,
            min_in_sync_replicas: 2,
            replication_factor: 3,
            unclean_recovery: UncleanRecovery::Balanced,
        };
        Place { state, role }
    }

    #[test]
    fn the_leader_counts_what_changes_and_nobody_else_does() {
        let lead = |epoch, isr, recovering| place(Role::Lead, epoch, isr, recovering);
        let follow = |epoch, isr| place(Role::Follow { leader: 2 }, epoch, isr, false);
        for (what, before, now, counted) in [
            ("first seen", None, lead(3, &[1, 2, 3], false), (1, 0, 0, 0)),
            ("the same", Some(lead(3, &[1, 2], false)), lead(3, &[1, 2], false), (0, 0, 0, 0)),
            ("one leaves", Some(lead(3, &[1, 2, 3], false)), lead(3, &[1, 2], false), (0, 1, 0, 0)),
            ("one joins", Some(lead(3, &[1, 2], false)), lead(3, &[1, 2, 3], false), (0, 0, 1, 0)),
            ("one for another", Some(lead(3, &[1, 2], false)), lead(3, &[1, 3], false), (0, 1, 1, 0)),
            ("elected, for one that died", Some(follow(3, &[1, 2, 3])), lead(4, &[1, 3], false), (1, 1, 0, 0)),
            ("elected anew", Some(lead(3, &[1], false)), lead(5, &[1], false), (1, 0, 0, 0)),
            ("elected without proof", Some(follow(3, &[2])), lead(4, &[1], true), (1, 1, 1, 1)),
            ("and goes on", Some(lead(4, &[1], true)), lead(4, &[1, 2], true), (0, 0, 1, 0)),
            ("another leads", Some(lead(3, &[1, 2, 3], false)), follow(4, &[2, 3]), (0, 0, 0, 0)),
        ] {
            let metrics = ReplicationMetrics::default();
            count(&metrics, before.as_ref(), &now);
            let numbers = (
                metrics.elections.get(),
                metrics.isr_shrinks.get(),
                metrics.isr_expansions.get(),
                metrics.possible_losses.get(),
            );
            assert_eq!(numbers, counted, "{what}");
        }
    }
}
